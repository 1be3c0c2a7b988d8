//! Open packs, kept for the next range of the same pack: that saves a round trip each.

use super::channel::Channel;
use super::wire::{self, Packet};
use crate::lock;
use bytes::Bytes;
use lastgood_model::Id;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

/// Open at once; OpenSSH allows far more.
const OPEN_MAX: usize = 16;

/// A file that is open at the server, closed when nobody needs it.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) channel: Arc<Channel>,
    pub(super) handle: Bytes,
    pub(super) length: u64,
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.channel.tell(Packet::new(wire::CLOSE).text(&self.handle));
    }
}

/// Those used last, the newest at the end.
#[derive(Debug, Default)]
pub(super) struct Handles(Mutex<VecDeque<(Id, Arc<Opened>)>>);

impl Handles {
    /// The pack, when it is open on a channel that lives.
    pub(super) fn get(&self, id: &Id) -> Option<Arc<Opened>> {
        let mut open = lock(&self.0);
        let at = open.iter().position(|(other, _)| other == id)?;
        let found = open.remove(at)?;
        if found.1.channel.death().is_some() {
            return None;
        }
        let opened = found.1.clone();
        open.push_back(found);
        Some(opened)
    }

    pub(super) fn keep(&self, id: Id, opened: Arc<Opened>) {
        let mut open = lock(&self.0);
        open.retain(|(other, _)| *other != id);
        open.push_back((id, opened));
        let dropped = (open.len() > OPEN_MAX).then(|| open.pop_front()).flatten();
        drop(open);
        drop(dropped);
    }

    pub(super) fn forget(&self, id: &Id) {
        lock(&self.0).retain(|(other, _)| other != id);
    }
}
