//! Restoring a database from a recovery point into a server.
//!
//! A restore is a plan first: [`plan`] reads what was saved, looks at the server, and changes nothing.
//! [`DatabaseRestorePlan::summary`] says what would be done and what stands in the way;
//! [`DatabaseRestorePlan::execute`] does it or refuses.
//!
//! What is promised:
//!
//! - Nothing that is there is taken away unless the options say so, or a restore that did not end has provably left it.
//! - A database that is to be replaced stays as it is until all of the new one is loaded and checked; then they exchange
//!   their names in one transaction.
//! - While it goes on, and after it failed, the database says so in its comment (see `mark`); one in use, to which
//!   something is added, by a schema (see `unfinished`).
//! - Rows are what was saved, by count and digest; any statement that fails fails the restore and is named.
//! - What is added to a database in use (one table under another name, rows into existing tables) is taken away again
//!   when the restore fails, as far as the server can still be reached.
//!
//! [`verify`](fn@verify) compares a database on a server with a recovery point, by reading all of it again.

mod creation;
mod execute;
mod globals;
mod large_objects;
mod leftovers;
mod load;
mod making;
mod mark;
mod obstacles;
mod orphans;
mod planning;
mod pool;
mod saved;
mod sequences;
mod session;
mod summary;
mod target;
mod undo;
mod unfinished;
mod verify;
mod work;

#[cfg(test)]
mod tests;

pub use leftovers::{Leftover, leftovers};
pub(super) use making::{SUCCESSOR, drop_subscriptions};
pub use planning::{DatabaseRestorePlan, plan};

pub use summary::{
    DatabaseFate, DatabaseRestoreReport, FailedDefinition, Obstacle, ObstacleKind, Phases, RestoreSummary,
};
pub use verify::{Mismatch, VerifyOptions, VerifyReport, verify};

use lastgood_model::Result;
use lastgood_model::saved::SavedFiles;

/// What to restore, and how. The default is all of the only database.
#[derive(Clone, Debug, Default)]
pub struct RestoreOptions {
    /// What the recovery point is called in messages and in the mark on the database.
    pub recovery_point: String,
    /// The saved database; needed when there are several.
    pub database: Option<String>,
    /// Patterns for tables, views and sequences to restore with all that is part of them; see
    /// [`super::plan::Pattern`].
    pub tables: Vec<String>,
    /// Patterns for tables, views and sequences to leave out.
    pub exclude_tables: Vec<String>,
    /// Patterns for schemas to restore with all that is in them.
    pub schemas: Vec<String>,
    /// Restores the one table (the first, as a pattern) under another name (the second: `name` or `schema.name`).
    pub rename: Option<(String, String)>,
    /// Definitions only.
    pub schema_only: bool,
    /// Rows only, into tables that are there. Such tables must be empty, unless `overwrite` says to empty them.
    pub data_only: bool,
    /// Everything belongs to whoever restores.
    pub no_owner: bool,
    /// Privileges are left out.
    pub no_acl: bool,
    /// Roles that the server lacks are made as they were. Those that are there stay as they are.
    pub roles: bool,
    /// Connections that work at the same time; 0 for as many as this machine has processors, from 2 to 8.
    pub jobs: usize,
    /// Takes away what is in the database.
    pub overwrite: bool,
    /// Ends connections of others to a database that is taken away.
    pub force: bool,
    /// Definitions that fail once rows can be loaded, such as a foreign key that the rows break, are told in the report and
    /// left out; the rest is restored. Rows that fail still fail the restore.
    pub continue_past_errors: bool,
    /// Where the recovery point came from, to tell whether it is restored over itself.
    pub origin: Option<Origin>,
}

/// The database that was saved, as it is told from others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The server's system identifier.
    pub system_identifier: String,
}

/// Names of the databases that a recovery point has.
///
/// # Errors
/// Those of `files`.
pub fn databases(files: &dyn SavedFiles) -> Result<Vec<String>> {
    saved::databases(files)
}
