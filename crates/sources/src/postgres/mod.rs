//! PostgreSQL databases as sources.
//!
//! What is promised: each database is captured as it was at one moment, whatever is written meanwhile; an error anywhere
//! leaves nothing of the source; and what is kept can be loaded with `psql` alone. Why this way and not another:
//! `docs/design/postgresql-logical.md`.
//!
//! - [`PostgresSource`] captures the databases of a server; [`Facts`] is what the manifest says of them
//! - [`layout`] tells where things lie; [`rows`] how rows are digested
//! - [`least_privilege_script`] makes a role for captures
//! - [`ScratchDatabase`] and [`Throwaway`] are places for a proof
//! - [`conninfo`] turns what a person, a service file and the environment say into what to connect to
//! - [`wire`] is the client: statements, `COPY` both ways, cancelling
//! - [`tools`] finds PostgreSQL's own client programs and runs `pg_dump` and `pg_dumpall`
//! - [`restore`] plans, executes and verifies restores; [`plan`] is what they are made of
//! - [`toc`] reads what `pg_dump` says; [`script`] writes it as SQL files that plain `psql` loads

mod capture;
mod catalog;
pub mod conninfo;
mod facts;
mod grants;
mod hidden;
mod large_objects;
pub mod layout;
mod parts;
mod pattern;
pub mod plan;
mod probe;
pub mod restore;
pub mod rows;
mod scratch;
pub mod script;
mod secrets;
mod selection;
mod sequences;
mod session;
mod source;
mod sql;
mod stream;
mod throwaway;
pub mod toc;
pub mod tools;
pub mod wire;
mod workers;

#[cfg(test)]
mod testing;

pub use facts::{DatabaseFacts, Facts, Globals, Role};
pub use grants::{ROLE as BACKUP_ROLE, least_privilege_script};
pub use large_objects::LargeObjects;
pub use parts::SLAB_PAGES;
pub use scratch::{PREFIX as SCRATCH_PREFIX, ScratchDatabase};
pub use secrets::holds_password;
pub use source::{Options, PostgresSource};
pub use throwaway::Throwaway;
