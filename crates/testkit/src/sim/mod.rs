//! A deterministic model of stores, of the actors that use them, and of all that may go wrong between.
//!
//! A [`SimWorld`] holds the objects of one or more places, a virtual clock and a generator of chance. Every actor has a
//! [`SimStore`] for each place. Actors run on threads of their own, but only one at a time: a call to a store, and a wait,
//! is where an actor may be put aside for another ([`SimWorld::run`]), and chance alone decides which goes on. So a run
//! follows from its seed. Names of objects do not: they are hashes over random bytes, so where their order decides what is
//! done first, the same seed may have to be run several times to see the same again.
//!
//! # The two layers
//! A place remembers for every change whether it was made durable. When the power goes from an actor, what it changed
//! without a `sync` after it survives as far as chance has it, each name by itself; what others changed, and what was
//! synced, stays. Objects beside the repository's own are durable at once, as their contract says.
//!
//! # Troubles
//! [`Troubles`] happen by chance to any call: it fails, succeeds and loses its answer, is applied later although it was
//! told to have failed, or a second time although it was done. On a place with [`SimPlace::stale_secs`] lists may lack
//! what is new and show what is gone. [`Crash`]es and [`Freeze`]s are planned for the n-th call of an actor.

mod journal;
mod schedule;
mod store;
mod trace;
mod world;

pub use schedule::Freeze;
pub use store::SimStore;
pub use trace::Event;
pub use world::{Crash, CrashKind, Key, Renewal, SimPlace, SimWorld, Troubles, Witnessed};

/// An actor's number, as [`SimWorld::actor`] gave it.
pub type ActorId = usize;
