//! Snapshot objects: the root of a recovery point, and what is told about it without opening its trees. Their JSON is
//! compressed and sealed.
//!
//! The fields are restic's and in its order. Only they survive when restic rewrites a snapshot (`tag`, `rewrite`,
//! `copy`), so lastgood's own facts are in a file of the snapshot instead, the manifest.

use super::serde_forms::{is_zero, null_as_default};
use lastgood_model::{Context, Error, ErrorKind, Result, SnapshotId, Time, TreeId};
use serde::{Deserialize, Serialize};

/// One snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotFile {
    /// The moment it stands for.
    pub time: Time,
    /// The snapshot it was compared with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<SnapshotId>,
    /// Its root directory.
    pub tree: TreeId,
    /// What was backed up; for people and for grouping, not for finding anything in the tree.
    #[serde(default, deserialize_with = "null_as_default")]
    pub paths: Vec<String>,
    /// The host it was taken on.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "String::is_empty")]
    pub hostname: String,
    /// The user who took it.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "String::is_empty")]
    pub username: String,
    /// That user's number.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "is_zero")]
    pub uid: u32,
    /// That user's group.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "is_zero")]
    pub gid: u32,
    /// Patterns that were left out.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub excludes: Vec<String>,
    /// Free words, for grouping and retention.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// The snapshot it was rewritten from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original: Option<SnapshotId>,
    /// The program that took it.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "String::is_empty")]
    pub program_version: String,
    /// What the run counted; absent in old snapshots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<SnapshotSummary>,
}

/// What a backup counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SnapshotSummary {
    /// When the run began.
    #[serde(deserialize_with = "null_as_default")]
    pub backup_start: Time,
    /// When its last byte was stored.
    #[serde(deserialize_with = "null_as_default")]
    pub backup_end: Time,
    /// Files that the parent did not have.
    #[serde(deserialize_with = "null_as_default")]
    pub files_new: u64,
    /// Files that the parent had otherwise.
    #[serde(deserialize_with = "null_as_default")]
    pub files_changed: u64,
    /// Files as the parent had them.
    #[serde(deserialize_with = "null_as_default")]
    pub files_unmodified: u64,
    /// Directories that the parent did not have.
    #[serde(deserialize_with = "null_as_default")]
    pub dirs_new: u64,
    /// Directories that the parent had otherwise.
    #[serde(deserialize_with = "null_as_default")]
    pub dirs_changed: u64,
    /// Directories as the parent had them.
    #[serde(deserialize_with = "null_as_default")]
    pub dirs_unmodified: u64,
    /// Data blobs stored for the first time.
    #[serde(deserialize_with = "null_as_default")]
    pub data_blobs: u64,
    /// Tree blobs stored for the first time.
    #[serde(deserialize_with = "null_as_default")]
    pub tree_blobs: u64,
    /// Plaintext bytes of those blobs.
    #[serde(deserialize_with = "null_as_default")]
    pub data_added: u64,
    /// Bytes of those blobs in packs.
    #[serde(deserialize_with = "null_as_default")]
    pub data_added_packed: u64,
    /// All files.
    #[serde(deserialize_with = "null_as_default")]
    pub total_files_processed: u64,
    /// All bytes of those files.
    #[serde(deserialize_with = "null_as_default")]
    pub total_bytes_processed: u64,
}

impl SnapshotFile {
    /// The JSON to be compressed and sealed.
    pub fn encode(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(|e| Error::new(ErrorKind::Bug, "encode snapshot").with_source(e))
    }

    /// Reads an unsealed snapshot, by whatever version written: only `time` and `tree` must be there.
    pub fn decode(json: &[u8]) -> Result<Self> {
        serde_json::from_slice(json).context("decode snapshot")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(json: &str) -> Result<SnapshotFile> {
        SnapshotFile::decode(json.as_bytes())
    }

    fn encode(snapshot: &SnapshotFile) -> String {
        String::from_utf8(snapshot.encode().unwrap()).unwrap()
    }

    const TREE: &str = "49e4d08ea568889a4c9f1668c31dcb7541daacb20fd17fbc6c5e4ee46fbcfb35";

    #[test]
    fn a_snapshot_is_written_as_restic_writes_it() {
        let text = [
            r#"{"time":"2026-11-20T11:20:12.914967613Z","parent":"42802aa8fea8d70f1efa1ea6cbe83fc92b754a00b8f3cad895a5c068bcc635e3","#,
            &format!(r#""tree":"{TREE}","paths":["/srv/a","/srv/b"],"hostname":"vm","username":"o","uid":1,"gid":2,"#),
            r#""excludes":["*.tmp"],"tags":["app:shop","x"],"original":"86b1409f88d521031f6587adf005762e8681a369ed344494ba85f772fa3ca414","#,
            r#""program_version":"restic 0.19.1","summary":{"backup_start":"2026-11-20T11:20:12Z","backup_end":"2026-11-20T11:20:14.6Z","#,
            r#""files_new":1,"files_changed":2,"files_unmodified":3,"dirs_new":4,"dirs_changed":5,"dirs_unmodified":6,"data_blobs":7,"#,
            r#""tree_blobs":8,"data_added":9,"data_added_packed":10,"total_files_processed":11,"total_bytes_processed":12}}"#,
        ]
        .concat();
        let snapshot = decode(&text).unwrap();
        assert_eq!(encode(&snapshot), text);
        assert_eq!(snapshot.summary.unwrap().total_bytes_processed, 12);
    }

    #[test]
    fn old_and_foreign_snapshots_are_read() {
        let bare = format!(r#"{{"time":"2015-01-02T03:04:05+01:00","tree":"{TREE}","paths":null}}"#);
        let snapshot = decode(&bare).unwrap();
        assert_eq!(snapshot.time, Time::parse_rfc3339("2015-01-02T02:04:05Z").unwrap());
        assert_eq!(encode(&snapshot), bare.replace("03:04:05+01:00", "02:04:05Z").replace("null", "[]"));
        let foreign = format!(
            r#"{{"label":"x","tags":null,"uid":null,"parent":null,"summary":{{"files_new":null,"backup_duration":1.5,"files_changed":2}},
                "tree":"{TREE}","time":"2025-01-02T03:04:05Z"}}"#
        );
        let snapshot = decode(&foreign).unwrap();
        assert_eq!(snapshot.summary, Some(SnapshotSummary { files_changed: 2, ..SnapshotSummary::default() }));
    }

    #[test]
    fn a_snapshot_without_tree_or_time_is_damage() {
        for text in [
            "{}".into(),
            r#"{"time":"2015-01-02T03:04:05Z","tree":null}"#.into(),
            r#"{"time":"2015-01-02T03:04:05Z"}"#.into(),
            format!(r#"{{"tree":"{TREE}"}}"#),
            r#"{"time":"2015-01-02T03:04:05Z","tree":"12"}"#.into(),
            format!(r#"{{"time":"2015-01-02T03:04:05Z","tree":"{TREE}""#),
        ] {
            assert_eq!(decode(&text).unwrap_err().kind(), ErrorKind::Corrupt, "{text}");
        }
    }
}
