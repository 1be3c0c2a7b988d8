//! The small objects: config, keys, locks, snapshots.

use super::findings::Fault;
use super::report::{Damage, DamageKind, DamagedObject};
use super::run::Run;
use crate::format::{ConfigFile, KeyFile, LockFile, SnapshotFile};
use crate::lock::{is_of_a_past_life, is_stale};
use crate::repository::Snapshot;
use lastgood_model::store::{ObjectKind, StoreKey};
use lastgood_model::{Context, Id, Result, SnapshotId};

const FROM_A_COPY: &str = "put this object back from another copy of the repository";

/// The snapshots of a repository.
pub(super) struct Snapshots {
    /// Those that can be read, oldest first.
    pub(super) readable: Vec<Snapshot>,
    /// How many objects there are.
    pub(super) listed: u64,
}

impl Run<'_> {
    /// The config, which was read once already when the repository was opened.
    pub(super) fn look_at_config(&self) -> Result<()> {
        let fault = match self.fetch(&StoreKey::CONFIG)? {
            Err(fault) => Some(fault),
            Ok(mut sealed) => match self.repository.sealer.open_in_place(&mut sealed) {
                Err(error) => Some(Fault::new(DamageKind::WrongTag, error.chain())),
                Ok(json) => match ConfigFile::decode(json) {
                    Err(error) => Some(Fault::new(DamageKind::BadContent, error.chain())),
                    Ok(config) if config != self.repository.config => {
                        Some(Fault::new(DamageKind::BadContent, "it is another than when the repository was opened"))
                    }
                    Ok(_) => None,
                },
            },
        };
        if let Some(fault) = fault {
            self.findings.add(fault.on(StoreKey::CONFIG).with_hint(FROM_A_COPY));
        }
        Ok(())
    }

    /// Every key object; returns how many there are.
    pub(super) fn look_at_keys(&self) -> Result<u64> {
        let mut ids = self.ids(ObjectKind::Key)?;
        let listed = ids.len() as u64;
        let current = self.repository.current_key().0;
        if !ids.contains(&current) {
            ids.push(current);
        }
        let hint = |id: &Id| {
            format!(
                "put the object back from another copy of the repository; or add another key with `lastgood key add` while this repository can still be opened, and take this one away with `lastgood key remove {}`",
                id.short()
            )
        };
        self.each(
            &ids,
            || (),
            |(), id| {
                let key = StoreKey::new(ObjectKind::Key, *id);
                let fault = match self.fetch(&key)? {
                    Err(fault) => Some(fault),
                    Ok(bytes) => KeyFile::decode(&bytes).err().map(|e| Fault::new(DamageKind::BadContent, e.chain())),
                };
                if let Some(fault) = fault {
                    self.findings.add(fault.on(key).with_hint(hint(id)));
                }
                Ok(())
            },
        )?;
        Ok(listed)
    }

    /// Locks hold no data, so that nothing about them is damage.
    pub(super) fn look_at_locks(&self) -> Result<()> {
        let now = (self.repository.options.clock)();
        for id in self.ids(ObjectKind::Lock)? {
            let key = StoreKey::new(ObjectKind::Lock, id);
            let fault = match self.fetch_json(&key)? {
                Err(Fault { what: DamageKind::Missing, .. }) => continue,
                Err(fault) => fault.message,
                Ok(json) => match LockFile::decode(&json) {
                    Ok(file) if is_stale(&file, now) || is_of_a_past_life(&file, id, now) => {
                        self.note(format!(
                            "lock {} was left behind by process {} on {} at {}; the next {} clears it away",
                            id.short(),
                            file.pid,
                            file.hostname,
                            file.time,
                            if file.reading { "run" } else { "backup" }
                        ));
                        continue;
                    }
                    Ok(_) => continue,
                    Err(error) => error.chain(),
                },
            };
            self.note(format!("{key} is no readable lock ({fault}); it protects nothing and can be removed"));
        }
        Ok(())
    }

    /// Every snapshot object, and those of `expected` that are none.
    pub(super) fn look_at_snapshots(&self, expected: &[SnapshotId]) -> Result<Snapshots> {
        let ids = self.ids(ObjectKind::Snapshot)?;
        let read = self.map(&ids, |id| {
            let key = StoreKey::new(ObjectKind::Snapshot, *id);
            let fault = match self.fetch_json(&key)? {
                Err(fault) => fault,
                Ok(json) => match SnapshotFile::decode(&json) {
                    Ok(file) => return Ok(Some(Snapshot { id: SnapshotId(*id), file })),
                    Err(error) => Fault::new(DamageKind::BadContent, error.chain()),
                },
            };
            // One that is gone since the listing was forgotten by somebody, which a shared lock does not prevent.
            if fault.what != DamageKind::Missing {
                self.lose_snapshot(SnapshotId(*id), fault);
            }
            Ok(None)
        })?;
        for id in expected.iter().filter(|id| ids.binary_search(&id.0).is_err()) {
            self.lose_snapshot(*id, Fault::new(DamageKind::Missing, "it was made, was never forgotten, and is gone"));
        }
        let mut readable: Vec<Snapshot> = read.into_iter().flatten().collect();
        readable.sort_by_key(|s| (s.file.time, s.id));
        Ok(Snapshots { readable, listed: ids.len() as u64 })
    }

    fn lose_snapshot(&self, id: SnapshotId, fault: Fault) {
        let object = DamagedObject::Stored(StoreKey::new(ObjectKind::Snapshot, id));
        let mut damage = Damage::new(object, fault.what, fault.message).with_hint(format!(
            "{FROM_A_COPY}; the files of this recovery point may all be there still, but what names them is lost"
        ));
        damage.snapshots = [id].into();
        damage.paths = vec!["/".to_owned()];
        damage.paths_total = 1;
        self.findings.add(damage);
    }

    /// The objects of a kind, by id.
    pub(super) fn ids(&self, kind: ObjectKind) -> Result<Vec<Id>> {
        let listed = self.store().list(kind).with_context(|| format!("list {}", kind.folder()))?;
        let mut ids: Vec<Id> = listed.into_iter().map(|(id, _)| id).collect();
        ids.sort_unstable();
        Ok(ids)
    }
}
