//! What each actor changed and did not sync.

use super::ActorId;
use super::world::{Key, Object};
use std::collections::{BTreeMap, BTreeSet};

/// The states that a name went through, the first of which is durable.
pub(super) type States = Vec<Option<Object>>;

/// By actor and name.
#[derive(Debug, Default)]
pub(super) struct Journal {
    changes: BTreeMap<(ActorId, Key), States>,
    /// What an actor wrote that was there already, and perhaps not durable: its next sync makes it so.
    touched: BTreeSet<(ActorId, Key)>,
}

impl Journal {
    /// A change that is not durable.
    pub(super) fn note(&mut self, by: ActorId, key: Key, before: Option<Object>, after: Option<Object>) {
        self.changes.entry((by, key)).or_insert_with(|| vec![before]).push(after);
    }

    /// An actor wrote what was there already.
    pub(super) fn touch(&mut self, by: ActorId, key: Key) {
        self.touched.insert((by, key));
    }

    /// All that an actor changed is durable.
    pub(super) fn sync(&mut self, by: ActorId) {
        let Self { changes, touched } = self;
        changes.retain(|(actor, key), _| *actor != by && !touched.contains(&(by, key.clone())));
        touched.retain(|(actor, _)| *actor != by);
    }

    /// Takes out what an actor has not synced.
    pub(super) fn take(&mut self, by: ActorId) -> Vec<(Key, States)> {
        self.touched.retain(|(actor, _)| *actor != by);
        let keys: Vec<_> = self.changes.keys().filter(|(actor, _)| *actor == by).cloned().collect();
        keys.into_iter().filter_map(|at| self.changes.remove(&at).map(|states| (at.1, states))).collect()
    }
}
