//! The manifest: what was captured, in what state, and what went wrong. Kept as `/.lastgood/manifest.json` in every
//! recovery point; described in `docs/format.md`.

use crate::Time;
use serde::{Deserialize, Serialize};

/// Facts captured with one recovery point.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Always `lastgood.manifest`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Version of this layout; readers refuse a higher one.
    pub schema: u32,
    /// The application's name.
    pub app: String,
    /// Version of lastgood that wrote it.
    pub program: String,
    /// The host that took it.
    pub host: String,
    /// When the capture began.
    pub started: Time,
    /// When the last source was finished.
    pub finished: Time,
    /// Why it was taken, when somebody said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Every configured source, the failed ones too, in the order they were captured.
    pub sources: Vec<SourceRecord>,
    /// False when a source failed or a problem was met: something that should be here is not.
    pub complete: bool,
    /// What went wrong, at most [`crate::Monitor::PROBLEMS_KEPT_MAX`] of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
    /// How many problems there were in all.
    #[serde(default)]
    pub problems_total: u64,
}

impl Manifest {
    /// The `type` of every manifest.
    pub const TYPE: &'static str = "lastgood.manifest";
    /// The newest `schema` this version writes and reads.
    pub const SCHEMA: u32 = 1;
    /// The folder of lastgood's own files at the root of every snapshot.
    pub const FOLDER: &'static str = ".lastgood";

    /// The record of a source by name.
    pub fn source(&self, name: &str) -> Option<&SourceRecord> {
        self.sources.iter().find(|s| s.name == name)
    }
}

/// One source in a manifest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SourceRecord {
    /// Its name: the folder it has in the snapshot.
    pub name: String,
    /// `files`, `sqlite`, `command`, …
    pub kind: String,
    /// Where it was: absolute paths or URLs without secrets.
    pub origins: Vec<String>,
    /// Whether it is in the snapshot.
    pub outcome: SourceOutcome,
    /// When its capture began.
    pub started: Time,
    /// When its capture ended.
    pub finished: Time,
    /// Logical bytes of it.
    #[serde(default)]
    pub bytes: u64,
    /// Files and other entries of it.
    #[serde(default)]
    pub entries: u64,
    /// Where in its change log it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<String>,
    /// Kind-specific facts.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    pub facts: serde_json::Map<String, serde_json::Value>,
}

/// Whether a source made it into the recovery point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum SourceOutcome {
    /// All of it.
    Complete,
    /// It is there, but for what the problems name.
    Partial,
    /// It is absent as a whole.
    Failed {
        /// Why.
        error: String,
    },
}

/// Something that should be in the recovery point as the source had it, and is not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The source it concerns; filled in by the run.
    #[serde(default)]
    pub source: String,
    /// The path or object, printable.
    pub path: String,
    /// What happened to it.
    pub what: ProblemKind,
    /// The cause in words.
    pub message: String,
}

/// The kinds of problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProblemKind {
    /// It changed while it was read; what was read is stored.
    Changed,
    /// It was listed and then gone; it is absent.
    Vanished,
    /// It could not be read; it is absent.
    Unreadable,
    /// Some of its metadata could not be read; the content is stored.
    Metadata,
    /// It is of a kind that is not kept; it is absent.
    Unsupported,
}

impl Problem {
    /// A problem with a path, its source to be filled in by the run.
    pub fn new(path: impl Into<String>, what: ProblemKind, message: impl Into<String>) -> Self {
        Self { source: String::new(), path: path.into(), what, message: message.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_reads_back_as_written_and_unknown_fields_are_passed_over() {
        let text = r#"{"type":"lastgood.manifest","schema":1,"app":"shop","program":"0.1.0","host":"h","started":"2026-01-02T03:04:05Z",
            "finished":"2026-01-02T03:04:06.5Z","sources":[{"name":"db","kind":"sqlite","origins":["/srv/shop.db"],"outcome":{"state":"failed","error":"locked"},
            "started":"2026-01-02T03:04:05Z","finished":"2026-01-02T03:04:05Z","later":1}],"complete":false,
            "problems":[{"source":"up","path":"a","what":"vanished","message":"gone"}],"problems_total":1,"new":true}"#;
        let manifest: Manifest = serde_json::from_str(text).unwrap();
        assert_eq!(manifest.source("db").unwrap().outcome, SourceOutcome::Failed { error: "locked".into() });
        let again: Manifest = serde_json::from_str(&serde_json::to_string(&manifest).unwrap()).unwrap();
        assert_eq!(again, manifest);
    }
}
