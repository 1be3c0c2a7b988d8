//! What happened, kept so that a failure can tell it.

use super::ActorId;
use super::world::{Change, CrashKind, Key};
use std::fmt::Write;

/// What was asked for.
#[derive(Clone, Debug)]
pub enum Event {
    /// A whole object is written.
    Put(Key),
    /// It is removed.
    Remove(Key),
    /// It is read, or a part of it, or its size.
    Get(Key),
    /// A folder is listed; so many were found.
    List(String, usize),
    /// Everything is made durable.
    Sync,
    /// An actor waits so many nanoseconds.
    Waited(i64),
    /// So many seconds passed unnoticed.
    Slept(i64),
    /// What the actor says about itself.
    Said(String),
}

impl Event {
    pub(super) fn of(change: &Change) -> Self {
        match change {
            Change::Put { key, .. } => Self::Put(key.clone()),
            Change::Remove { key } => Self::Remove(key.clone()),
        }
    }
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Outcome {
    Done,
    Refused,
    Failed,
    LostReply,
    Late,
    Arrived,
    Died(CrashKind),
}

#[derive(Debug, Default)]
pub(super) struct Trace(Vec<(u64, Option<ActorId>, usize, Event, Outcome)>);

impl Trace {
    pub(super) fn push(&mut self, step: u64, actor: Option<ActorId>, place: usize, event: Event, outcome: Outcome) {
        self.0.push((step, actor, place, event, outcome));
    }

    pub(super) fn tell(&self, names: &[&str]) -> String {
        let mut told = String::new();
        for (step, actor, place, event, outcome) in &self.0 {
            let name = actor.and_then(|actor| names.get(actor)).copied().unwrap_or("world");
            let _ = write!(told, "{step:>5} {name:<12} {place} ");
            let _ = match event {
                Event::Put(key) => write!(told, "put {key}"),
                Event::Remove(key) => write!(told, "remove {key}"),
                Event::Get(key) => write!(told, "get {key}"),
                Event::List(what, found) => write!(told, "list {what}: {found}"),
                Event::Sync => write!(told, "sync"),
                Event::Waited(nanos) => write!(told, "wait {} ms", nanos / 1_000_000),
                Event::Slept(secs) => write!(told, "sleep {secs} s"),
                Event::Said(text) => write!(told, "says: {text}"),
            };
            let _ = match outcome {
                Outcome::Done => writeln!(told),
                Outcome::Refused => writeln!(told, ": refused"),
                Outcome::Failed => writeln!(told, ": failed"),
                Outcome::LostReply => writeln!(told, ": done, and the answer is lost"),
                Outcome::Late => writeln!(told, ": told to have failed, and on its way"),
                Outcome::Arrived => writeln!(told, ": arrives"),
                Outcome::Died(kind) => writeln!(told, ": dies, {kind:?}"),
            };
        }
        told
    }
}
