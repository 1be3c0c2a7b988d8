//! What each actor changed and did not sync.

use super::ActorId;
use super::world::{Key, Object};
use std::collections::BTreeMap;

/// The states that a name went through, the first of which is durable.
pub(super) type States = Vec<Option<Object>>;

/// By actor and name.
#[derive(Debug, Default)]
pub(super) struct Journal(BTreeMap<(ActorId, Key), States>);

impl Journal {
    /// A change that is not durable.
    pub(super) fn note(&mut self, by: ActorId, key: Key, before: Option<Object>, after: Option<Object>) {
        self.0.entry((by, key)).or_insert_with(|| vec![before]).push(after);
    }

    /// All that an actor changed is durable.
    pub(super) fn sync(&mut self, by: ActorId) {
        self.0.retain(|(actor, _), _| *actor != by);
    }

    /// Takes out what an actor has not synced.
    pub(super) fn take(&mut self, by: ActorId) -> Vec<(Key, States)> {
        let keys: Vec<_> = self.0.keys().filter(|(actor, _)| *actor == by).cloned().collect();
        keys.into_iter().filter_map(|at| self.0.remove(&at).map(|states| (at.1, states))).collect()
    }
}
