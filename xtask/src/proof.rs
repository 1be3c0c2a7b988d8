//! Long proofs with the real program: what must hold at every moment and for every byte, tried at very many.

mod app;
mod bitflip;
mod crash;
mod kill9;
mod net;
mod postgres;
mod races;
mod sim;
mod stats;

use anyhow::Result;

#[derive(clap::Subcommand)]
pub(crate) enum Proof {
    /// Kill backups and restores at random moments; nothing acknowledged may ever be lost, nothing need repair.
    Kill9(kill9::Options),
    /// Let runs die at every step in a model of stores; nothing may be lost, and the next run needs no hand.
    Crash(crash::Options),
    /// Let writers, pruners, copiers and a stranger meet in a model of stores; nothing needed may ever go.
    Races(races::Options),
    /// Damage every object of a small repository in every way; all of it must be noticed and named, none restored.
    Bitflip(bitflip::Options),
    /// Let the network and the servers of every kind of store fail; every run ends in time, and tells the truth.
    Net(net::Options),
    /// Kill client, server and network while PostgreSQL is captured and restored; nothing may hold a part as the whole.
    Postgres(postgres::Options),
}

pub(crate) fn run(proof: &Proof) -> Result<()> {
    match proof {
        Proof::Kill9(options) => kill9::run(options),
        Proof::Crash(options) => crash::run(options),
        Proof::Races(options) => races::run(options),
        Proof::Bitflip(options) => bitflip::run(options),
        Proof::Net(options) => net::run(options),
        Proof::Postgres(options) => postgres::run(options),
    }
}

/// A seed from the clock.
fn started_seed() -> Option<u64> {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(since.as_nanos() as u64)
}
