//! Lock objects, shared with restic: who works on the repository and whether alone. Their JSON is compressed and sealed.

use super::serde_forms::{is_zero, null_as_default};
use lastgood_model::{Context, Error, ErrorKind, Result, Time};
use serde::{Deserialize, Serialize};

/// One lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockFile {
    /// When it was made or last refreshed; refreshing makes a new object. Old locks are stale.
    pub time: Time,
    /// True to be alone, false to share with others that are not exclusive.
    #[serde(default, deserialize_with = "null_as_default")]
    pub exclusive: bool,
    /// The holder's host.
    #[serde(default, deserialize_with = "null_as_default")]
    pub hostname: String,
    /// The holder's user.
    #[serde(default, deserialize_with = "null_as_default")]
    pub username: String,
    /// The holder's process on that host.
    #[serde(default, deserialize_with = "null_as_default")]
    pub pid: i64,
    /// The holder's numeric user.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "is_zero")]
    pub uid: u32,
    /// The holder's numeric group.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "is_zero")]
    pub gid: u32,
    /// The holder only reads. An addition of lastgood's, which others pass over: such a lock that was left behind is no
    /// sign of packs that were, so whoever comes next may clear it away.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reading: bool,
}

impl LockFile {
    /// The JSON to be compressed and sealed.
    pub fn encode(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(|e| Error::new(ErrorKind::Bug, "encode lock").with_source(e))
    }

    /// Reads an unsealed lock.
    pub fn decode(json: &[u8]) -> Result<Self> {
        serde_json::from_slice(json).context("decode lock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_are_written_as_restic_writes_them() {
        let text = r#"{"time":"2026-08-01T10:00:00.5Z","exclusive":true,"hostname":"h","username":"u","pid":42,"uid":1000,"gid":100}"#;
        let lock = LockFile::decode(text.as_bytes()).unwrap();
        assert_eq!(lock.encode().unwrap(), text.as_bytes());
        let root = text.replace(r#","uid":1000,"gid":100"#, "");
        assert_eq!(LockFile::decode(root.as_bytes()).unwrap(), LockFile { uid: 0, gid: 0, ..lock });
        assert_eq!(LockFile::decode(root.as_bytes()).unwrap().encode().unwrap(), root.as_bytes());
    }

    #[test]
    fn a_lock_without_time_is_damage() {
        for text in ["{}", "", r#"{"time":"yesterday"}"#, r#"{"time":"2026-08-01T10:00:00Z","pid":"x"}"#] {
            assert_eq!(LockFile::decode(text.as_bytes()).unwrap_err().kind(), ErrorKind::Corrupt, "{text}");
        }
    }
}
