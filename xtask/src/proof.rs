//! Long proofs with the real program: what must hold at every moment and for every byte, tried at very many.

mod app;
mod bitflip;
mod kill9;
mod postgres;
mod stats;

use anyhow::Result;

#[derive(clap::Subcommand)]
pub(crate) enum Proof {
    /// Kill backups and restores at random moments; nothing acknowledged may ever be lost, nothing need repair.
    Kill9(kill9::Options),
    /// Damage every object of a small repository in every way; all of it must be noticed and named, none restored.
    Bitflip(bitflip::Options),
    /// Kill client, server and network while PostgreSQL is captured and restored; nothing may hold a part as the whole.
    Postgres(postgres::Options),
}

pub(crate) fn run(proof: &Proof) -> Result<()> {
    match proof {
        Proof::Kill9(options) => kill9::run(options),
        Proof::Bitflip(options) => bitflip::run(options),
        Proof::Postgres(options) => postgres::run(options),
    }
}

/// A seed from the clock.
fn started_seed() -> Option<u64> {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(since.as_nanos() as u64)
}
