//! What a manifest says of a captured PostgreSQL server.

use super::large_objects::LargeObjects;
use lastgood_model::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Facts about one capture; the `facts` of a `postgres` source in a manifest.
///
/// Each database was seen through a snapshot of its own: PostgreSQL has none across databases. What belongs together in
/// several of them is as of several moments, which `databases` tells.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// The server's own words, such as `15.18 (Debian 15.18-0+deb12u1)`.
    pub server_version: String,
    /// As a number: 150018.
    pub server_version_num: u32,
    /// Tells the server's data from any other's. Absent when the role may not ask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_identifier: Option<String>,
    /// The timeline of its last checkpoint, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeline: Option<u32>,
    /// Whether it takes writes.
    pub role: Role,
    /// Version of the `pg_dump` that described the schema, as a number. Absent when only data was wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pg_dump_version_num: Option<u32>,
    /// How roles and tablespaces are kept.
    pub globals: Globals,
    /// In the order in which they were captured, which is that of their names or of the config.
    pub databases: Vec<DatabaseFacts>,
}

/// Whether a server takes writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// It does.
    #[default]
    Primary,
    /// It follows another one.
    Standby,
}

/// How much of roles and tablespaces is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Globals {
    /// Everything.
    WithPasswords,
    /// Roles without their passwords: they must be set anew after a restore.
    WithoutPasswords,
    /// Nothing: only data was wanted.
    #[default]
    LeftOut,
}

/// Facts about one database.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseFacts {
    /// Its name.
    pub name: String,
    /// Its folder in the source's.
    pub folder: String,
    /// Its encoding.
    pub encoding: String,
    /// `LC_COLLATE`.
    pub collation: String,
    /// `LC_CTYPE`.
    pub ctype: String,
    /// Who compares texts: `libc`, `icu` or `builtin`.
    pub provider: String,
    /// The provider's locale, where it is not `collation`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locale: Option<String>,
    /// What was added to the rules of that locale, for `icu`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icu_rules: Option<String>,
    /// The version of its collation. With another one, indexes on texts may be in another order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collation_version: Option<String>,
    /// When it was seen, by the server's clock: RFC 3339.
    pub snapshot_time: String,
    /// Where in the write-ahead log.
    pub lsn: String,
    /// Tables whose rows are kept.
    pub tables: u64,
    /// Tables that are described and whose rows were not asked for.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub tables_described: u64,
    /// Rows of those that are kept.
    pub rows: u64,
    /// Bytes of their rows, as kept.
    pub bytes: u64,
    /// Those of them that have no text, and are kept in the binary format.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub long_rows: u64,
    /// Sequences.
    pub sequences: u64,
    /// Large objects, if there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub large_objects: Option<LargeObjects>,
    /// Extensions and their versions.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub extensions: BTreeMap<String, String>,
    /// How often the capture began anew because tables came or went.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub begun_anew: u32,
    /// What is to be known about the SQL files of its schema.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remarks: Vec<String>,
}

fn is_zero<N: Default + PartialEq>(number: &N) -> bool {
    *number == N::default()
}

impl Facts {
    /// As a manifest keeps them.
    pub fn to_map(&self) -> Result<serde_json::Map<String, serde_json::Value>> {
        match serde_json::to_value(self) {
            Ok(serde_json::Value::Object(map)) => Ok(map),
            Ok(_) => Err(Error::new(ErrorKind::Bug, "facts are not an object")),
            Err(e) => Err(Error::new(ErrorKind::Bug, "write facts").with_source(e)),
        }
    }

    /// From a manifest.
    pub fn from_map(map: &serde_json::Map<String, serde_json::Value>) -> Result<Self> {
        serde_json::from_value(serde_json::Value::Object(map.clone()))
            .map_err(|e| Error::corrupt("read the facts of a postgres source").with_source(e))
    }

    /// The source's position: that of the first database.
    pub fn position(&self) -> Option<String> {
        self.databases.first().map(|database| database.lsn.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_read_back_as_written() {
        let facts = Facts {
            server_version: "15.18".into(),
            role: Role::Standby,
            globals: Globals::WithoutPasswords,
            databases: vec![DatabaseFacts {
                name: "shop".into(),
                lsn: "0/16B3748".into(),
                large_objects: Some(LargeObjects { objects: 1, ..LargeObjects::default() }),
                ..DatabaseFacts::default()
            }],
            ..Facts::default()
        };
        let map = facts.to_map().unwrap();
        assert_eq!(map["globals"], "without-passwords");
        assert_eq!(map["databases"][0]["large_objects"]["rows"], 0);
        assert_eq!(Facts::from_map(&map).unwrap(), facts);
        assert_eq!(facts.position().as_deref(), Some("0/16B3748"));
    }
}
