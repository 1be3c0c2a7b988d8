//! What was seen in a repository when: a little file on this machine.
//!
//! The date of a recovery point is what its writer says. Who may write but not remove could date points so that rules
//! let others go. So it is noted when the repository was looked into, and which points were there: one that turns up
//! with a date before the last look has come late, and retention lets it take no other's place.

use lastgood_model::{Context, Id, Result, SnapshotId, Time};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

/// The file of one repository.
#[derive(Debug)]
pub struct Seen {
    path: Option<PathBuf>,
    noted: Noted,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Noted {
    repository: String,
    /// Seconds since 1970 of the last look; none before the first.
    looked: Option<i64>,
    /// For each point, when it was last known not to be there.
    points: BTreeMap<SnapshotId, Option<i64>>,
}

impl Seen {
    /// Reads the file; nothing is known where there is none, or one that cannot be used.
    pub fn open(path: Option<PathBuf>, repository: Id) -> Self {
        let text = path.as_ref().and_then(|path| fs_err::read(path).ok());
        let noted: Option<Noted> = text.and_then(|text| serde_json::from_slice(&text).ok());
        let noted = noted.filter(|noted| noted.repository == repository.to_string());
        Self { path, noted: noted.unwrap_or(Noted { repository: repository.to_string(), ..Noted::default() }) }
    }

    /// Takes note of what is there now.
    pub fn look(&mut self, there: impl Iterator<Item = SnapshotId>, now: Time) {
        let before = std::mem::take(&mut self.noted.points);
        let looked = self.noted.looked;
        self.noted.points = there.map(|id| (id, before.get(&id).copied().unwrap_or(looked))).collect();
        // A clock that was set back must not make points of today look late tomorrow.
        self.noted.looked = Some(now.secs);
    }

    /// The latest moment at which a point was not there, when one is known.
    pub fn absent_at(&self, id: SnapshotId) -> Option<Time> {
        self.noted.points.get(&id).copied().flatten().map(|secs| Time::new(secs, 0))
    }

    /// Writes the file.
    pub fn keep(&self) -> Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        let act = || format!("write {}", path.display());
        let json = serde_json::to_vec(&self.noted).with_context(act)?;
        let folder = path.parent().unwrap_or(Path::new("."));
        fs_err::create_dir_all(folder).with_context(act)?;
        let temporary = path.with_extension(format!("tmp{}", std::process::id()));
        let mut file = fs_err::File::create(&temporary).with_context(act)?;
        file.write_all(&json).with_context(act)?;
        file.sync_all().with_context(act)?;
        fs_err::rename(&temporary, path).with_context(act)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_turns_up_after_a_look_is_known_to_have_been_absent_then() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("below/seen.json");
        let id = |byte: u8| SnapshotId(Id([byte; 32]));
        let open = || Seen::open(Some(path.clone()), Id([9; 32]));
        let mut seen = open();
        seen.look([id(1), id(2)].into_iter(), Time::new(100, 0));
        seen.keep().unwrap();
        let mut seen = open();
        assert_eq!(seen.absent_at(id(1)), None, "nobody had looked before");
        seen.look([id(2), id(3)].into_iter(), Time::new(200, 0));
        seen.keep().unwrap();
        let seen = open();
        assert_eq!((seen.absent_at(id(2)), seen.absent_at(id(3))), (None, Some(Time::new(100, 0))));
        let of_another = Seen::open(Some(path.clone()), Id([8; 32]));
        assert_eq!(of_another.absent_at(id(3)), None);
        fs_err::write(&path, "{").unwrap();
        assert_eq!(open().absent_at(id(3)), None);
    }
}
