//! What a restore would do, and what it has done, for people.

use lastgood_model::ErrorKind;
use serde::{Deserialize, Serialize};

/// What happens to the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DatabaseFate {
    /// It is made.
    Made,
    /// It is there, holds nothing, and is used.
    Used,
    /// It is dropped, and a new one takes its place.
    Replaced,
    /// What is in it stays, and something is added.
    AddedTo,
}

/// Something that makes the restore impossible or unwise as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Obstacle {
    /// Its nature.
    pub kind: ObstacleKind,
    /// The fact.
    pub message: String,
    /// What to do about it.
    pub hint: String,
}

/// The nature of an obstacle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ObstacleKind {
    /// Something is in the place.
    Occupied,
    /// Others use what would be taken away.
    InUse,
    /// The server lacks roles.
    Roles,
    /// The role that is connected may not act for the owners.
    Membership,
    /// The server lacks extensions.
    Extensions,
    /// The database, or tables in it, must be there and are not.
    Absent,
    /// The server cannot have it.
    Unsupported,
    /// A trigger would change rows while they are loaded.
    Fires,
}

impl ObstacleKind {
    pub(super) fn error_kind(self) -> ErrorKind {
        match self {
            Self::Occupied | Self::Fires => ErrorKind::Conflict,
            Self::InUse => ErrorKind::Locked,
            Self::Roles | Self::Extensions | Self::Absent => ErrorKind::Absent,
            Self::Membership => ErrorKind::Denied,
            Self::Unsupported => ErrorKind::Unsupported,
        }
    }
}

/// What a restore would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreSummary {
    /// The database as it was saved.
    pub source: String,
    /// The version of the server that it was saved from, in its own words; empty when it is not known.
    pub source_version: String,
    /// Where it goes: the server.
    pub server: String,
    /// The version of that server, in its own words.
    pub server_version: String,
    /// Where it goes: the database.
    pub database: String,
    /// What happens to that.
    pub fate: DatabaseFate,
    /// What is taken away with a database that is replaced, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<String>,
    /// Tables whose rows are loaded.
    pub tables: u64,
    /// Their rows.
    pub rows: u64,
    /// Bytes of them, as kept.
    pub bytes: u64,
    /// Sequences whose values are set.
    pub sequences: u64,
    /// Large objects.
    pub large_objects: u64,
    /// Definitions: statements or small groups of them.
    pub steps: u64,
    /// Connections that work at the same time.
    pub jobs: usize,
    /// Roles that are made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles_made: Vec<String>,
    /// Extensions that are made, with the versions that the server would install.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extensions: Vec<(String, String)>,
    /// What is left out and why, what is not as it was, what must be there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// What is so until it is done, and not told afterwards.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub meanwhile: Vec<String>,
    /// What could go wrong.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// What stands in the way. With any of them, the restore refuses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub obstacles: Vec<Obstacle>,
}

/// What a restore did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseRestoreReport {
    /// The database.
    pub database: String,
    /// Tables whose rows were loaded.
    pub tables: u64,
    /// Their rows.
    pub rows: u64,
    /// Bytes of them, as kept.
    pub bytes: u64,
    /// Definitions that were made.
    pub steps: u64,
    /// Roles that were made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles_made: Vec<String>,
    /// Definitions that failed and were left out, as the options allowed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<FailedDefinition>,
    /// What is left out and why, what is not as it was, and what the server remarked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<String>,
    /// How long it took.
    pub phases: Phases,
}

/// A definition that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedDefinition {
    /// What it makes, such as `INDEX public.x`.
    pub what: String,
    /// Why, in the server's words.
    pub error: String,
    /// The statements, none of which was done.
    pub sql: String,
}

/// How long the parts of a restore took, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phases {
    /// Until the database was there.
    pub prepare_ms: u64,
    /// Definitions before rows.
    pub pre_data_ms: u64,
    /// Until the last row was loaded. Indexes of tables that are loaded are built meanwhile.
    pub data_ms: u64,
    /// From there until all else was done.
    pub post_data_ms: u64,
}
