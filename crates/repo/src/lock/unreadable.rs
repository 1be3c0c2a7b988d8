//! Locks that cannot be read: torn when their writer died, empty, or damaged.
//!
//! Such a lock names nobody who could be asked, and has no date. But whoever is alive renews its lock every few minutes
//! under another name, restic as well as we. So each host that meets one notes beside the repository when it first did; one
//! that is still there under the same name after [`DEAD_AFTER_SECS`], by the clock of that very host, is a dead run's, and
//! is removed. Until then it excludes whoever deletes, but for an empty one, which restic passes over, too.

use super::{LockMode, STALE_AFTER_SECS, hostname};
use crate::crypto::Sealer;
use crate::notes;
use crate::sha256::sha256;
use lastgood_model::store::{ObjectKind, SideName, SidePut, SideStore, Store, StoreKey};
use lastgood_model::{Error, ErrorKind, Id, Result, Time};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;

/// The folder of the notes, in the side directory.
const FOLDER: &str = "locks";
/// A lock that was not renewed for so long is nobody's: a minute more than what makes one stale that can be read.
const DEAD_AFTER_SECS: i64 = STALE_AFTER_SECS + 60;

/// A host's note about a lock.
#[derive(Serialize, Deserialize)]
struct Note {
    /// When this host first met it.
    since: Time,
}

/// What is to be done about an unreadable lock.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It was a dead run's, and is gone.
    Removed,
    /// It may be a living run's.
    Stays,
}

/// Unreadable locks, as one host meets them.
pub(super) struct Unreadable<'a> {
    pub(super) store: &'a dyn Store,
    pub(super) sealer: &'a Sealer,
    pub(super) now: Time,
}

impl Unreadable<'_> {
    /// Judges one for a run that wants a lock of `mode`.
    ///
    /// # Errors
    /// [`ErrorKind::Locked`] when it excludes the run.
    pub(super) fn judge(&self, id: Id, is_empty: bool, mode: LockMode) -> Result<Verdict> {
        let key = StoreKey::new(ObjectKind::Lock, id);
        if mode == LockMode::Reading {
            // A reader may lack the right to write or remove.
            tracing::warn!(lock = %id, "unreadable lock is passed over");
            return Ok(Verdict::Stays);
        }
        let since = self.known_since(id);
        if since.is_some_and(|since| self.now.secs.saturating_sub(since.secs) > DEAD_AFTER_SECS) {
            match self.store.remove(&key) {
                Ok(()) => {
                    tracing::info!(lock = %id, "an unreadable lock that nobody has renewed was removed");
                    self.drop_note(id);
                    return Ok(Verdict::Removed);
                }
                Err(error) if mode == LockMode::Exclusive => {
                    return Err(error.context("remove an unreadable lock that nobody has renewed"));
                }
                Err(error) => tracing::warn!(error = %error.chain(), "an unreadable lock stays behind"),
            }
        }
        if mode == LockMode::Exclusive && !is_empty {
            return Err(self.locked(&format!("{}/{key}", self.store.location()), since));
        }
        tracing::warn!(lock = %id, "unreadable lock is passed over");
        Ok(Verdict::Stays)
    }

    /// When this host first met it, which is noted if that is now. `None` where it cannot be noted.
    fn known_since(&self, id: Id) -> Option<Time> {
        let side = self.store.side()?;
        let name = name(id).ok()?;
        let read = side.get_side(&name).and_then(|sealed| notes::open::<Note>(self.sealer, &name, sealed));
        match read {
            Ok(Note { since }) if since <= self.now => return Some(since),
            // This host's clock was ahead then and was set right, or the note is damaged: it begins anew.
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::Absent | ErrorKind::Corrupt) => {}
            Err(error) => {
                tracing::warn!(lock = %id, error = %error.chain(), "cannot be told since when a lock is unreadable");
                return None;
            }
        }
        let written = notes::seal(self.sealer, &name, &Note { since: self.now })
            .and_then(|sealed| side.put_side(&name, &sealed, SidePut::Replace));
        match written {
            Ok(()) => Some(self.now),
            Err(error) => {
                tracing::warn!(lock = %id, error = %error.chain(), "cannot be noted that a lock is unreadable");
                None
            }
        }
    }

    fn drop_note(&self, id: Id) {
        if let (Some(side), Ok(name)) = (self.store.side(), name(id)) {
            forget(side, &name);
        }
    }

    /// Removes notes, of all hosts, about locks that are not there any more. Failing to is no failure.
    pub(super) fn tidy(&self, there: &HashSet<Id>) {
        let Some(side) = self.store.side() else { return };
        match side.list_side(FOLDER) {
            Ok(notes) => {
                let is_over = |name: &SideName| lock_in(name).is_some_and(|id| !there.contains(&id));
                notes.iter().filter(|(name, _)| is_over(name)).for_each(|(name, _)| forget(side, name));
            }
            Err(error) => {
                tracing::debug!(error = %error.chain(), "notes about unreadable locks are not looked through")
            }
        }
    }

    /// What to tell whoever has to wait for it.
    fn locked(&self, place: &str, since: Option<Time>) -> Error {
        let by_hand = format!(
            "look whether a run is going on in this repository, of any program and on any host; only if there is none, \
             remove the object {place}, and nothing else"
        );
        let what = format!("a lock of the repository cannot be read: {place}");
        let (message, hint) = match since {
            Some(since) => {
                let until = Time::new(since.secs.saturating_add(DEAD_AFTER_SECS), 0);
                let hint = format!(
                    "most likely it is what a run left that died while it wrote it. The first run after {until} clears it \
                     away by itself, unless it was renewed by then. To go on at once: {by_hand}"
                );
                (format!("{what}; this host has known it since {}", Time::new(since.secs, 0)), hint)
            }
            None => {
                let hint = format!(
                    "most likely it is what a run left that died while it wrote it. It cannot be noted here since when it \
                     is there, so it is not cleared away by itself: {by_hand}"
                );
                (what, hint)
            }
        };
        Error::new(ErrorKind::Locked, message).with_hint(hint)
    }
}

fn forget(side: &dyn SideStore, name: &SideName) {
    if let Err(error) = side.remove_side(name) {
        tracing::debug!(error = %error.chain(), "{name} stays behind");
    }
}

/// The note of this host about a lock. Another host's clock is none of ours.
fn name(id: Id) -> Result<SideName> {
    let host = Id(sha256(hostname().as_bytes())).to_string();
    SideName::new(FOLDER, &format!("{id}-{}", &host[..16]))
}

/// The lock that a note is about.
fn lock_in(name: &SideName) -> Option<Id> {
    name.name().split_once('-').and_then(|(id, _)| id.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::MasterKey;
    use crate::lock::{Clock, LockFindings, LockGuard};
    use crate::repository::seal_unpacked;
    use lastgood_stores::{Fault, FaultStore, MemoryStore, Op};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

    const START: i64 = 1_700_000_000;

    /// A store in memory, and a host whose clock stands where it is put.
    struct Rig {
        memory: MemoryStore,
        store: Arc<dyn Store>,
        faults: Arc<FaultStore<MemoryStore>>,
        sealer: Arc<Sealer>,
        now: Arc<AtomicI64>,
    }

    impl Rig {
        fn new() -> Self {
            let memory = MemoryStore::new();
            let faults = Arc::new(FaultStore::new(memory.clone()));
            let sealer = Arc::new(Sealer::new(&MasterKey::generate().unwrap()).unwrap());
            Self { memory, store: faults.clone(), faults, sealer, now: Arc::new(AtomicI64::new(START)) }
        }

        fn take(&self, mode: LockMode) -> Result<LockFindings> {
            let now = self.now.clone();
            let clock: Clock = Arc::new(move || Time::new(now.load(Relaxed), 0));
            let no_pause: crate::lock::Pause = Arc::new(|_| ());
            LockGuard::take(self.store.clone(), self.sealer.clone(), mode, clock, &no_pause).map(|guard| guard.findings)
        }

        fn kind(&self, mode: LockMode) -> Option<ErrorKind> {
            self.take(mode).err().map(|error| error.kind())
        }

        fn put(&self, bytes: &[u8]) -> StoreKey {
            let key = StoreKey::new(ObjectKind::Lock, Id(sha256(b"what it was to be")));
            self.memory.put(&key, &[bytes]).unwrap();
            key
        }

        fn notes(&self) -> Vec<(SideName, u64)> {
            self.memory.list_side(FOLDER).unwrap()
        }

        fn pass(&self, secs: i64) {
            self.now.fetch_add(secs, Relaxed);
        }
    }

    #[test]
    fn one_that_nobody_renews_excludes_deletion_for_half_an_hour_and_then_goes_by_itself() {
        for remover in [LockMode::Shared, LockMode::Exclusive] {
            let rig = Rig::new();
            let key = rig.put(b"torn");
            // Only who may remove it notes it.
            assert_eq!(rig.take(LockMode::Reading).unwrap().unreadable, 1);
            assert!(rig.notes().is_empty());
            let found = rig.take(LockMode::Shared).unwrap();
            assert_eq!((found.others, found.unreadable, found.stale_removed), (0, 1, 0));
            assert_eq!(rig.notes().len(), 1);
            rig.pass(DEAD_AFTER_SECS);
            let error = rig.take(LockMode::Exclusive).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Locked);
            let (message, hint) = (error.message(), error.hint().unwrap());
            assert!(message.contains(&key.path()) && message.contains("since 2023-11-14T22:13:20Z"), "{message}");
            assert!(hint.contains("after 2023-11-14T22:44:20Z") && hint.contains(&key.path()), "{hint}");
            assert_eq!(rig.memory.keys(), [key], "our own lock stayed, or it went too early");
            rig.pass(1);
            assert_eq!(rig.take(remover).unwrap().unreadable, 0);
            assert!(rig.memory.keys().is_empty() && rig.notes().is_empty(), "{remover:?}");
            assert_eq!(rig.kind(LockMode::Exclusive), None);
        }
    }

    #[test]
    fn an_empty_one_excludes_nobody_and_goes_like_others() {
        let rig = Rig::new();
        let key = rig.put(b"");
        assert_eq!(rig.take(LockMode::Exclusive).unwrap().unreadable, 1);
        rig.pass(DEAD_AFTER_SECS);
        assert_eq!(rig.kind(LockMode::Exclusive), None);
        assert_eq!(rig.memory.keys(), [key]);
        rig.pass(1);
        assert_eq!(rig.kind(LockMode::Exclusive), None);
        assert!(rig.memory.keys().is_empty() && rig.notes().is_empty());
    }

    #[test]
    fn readers_never_touch_one_however_old_it_is() {
        let rig = Rig::new();
        let key = rig.put(b"torn");
        rig.take(LockMode::Shared).unwrap();
        rig.pass(86_400);
        assert_eq!(rig.kind(LockMode::Reading), None);
        assert_eq!(rig.memory.keys(), [key]);
    }

    #[test]
    fn without_room_for_notes_it_stays_and_says_what_to_do_by_hand() {
        let rig = Rig { store: Arc::new(NoSide(MemoryStore::new())), ..Rig::new() };
        let key = StoreKey::new(ObjectKind::Lock, Id([7; 32]));
        rig.store.put(&key, &[b"torn"]).unwrap();
        assert_eq!(rig.kind(LockMode::Shared), None);
        rig.pass(86_400);
        let error = rig.take(LockMode::Exclusive).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Locked);
        let hint = error.hint().unwrap();
        assert!(hint.contains("not cleared away by itself") && hint.contains(&key.path()), "{hint}");
        assert_eq!(rig.kind(LockMode::Shared), None);
    }

    #[test]
    fn notes_that_cannot_be_written_keep_no_backup_away() {
        let rig = Rig::new();
        rig.put(b"torn");
        for kind in [ErrorKind::Denied, ErrorKind::NoSpace, ErrorKind::Io] {
            rig.faults.add(Fault::on(Op::PutSide).lasting().fails_before(kind));
            assert_eq!(rig.kind(LockMode::Shared), None, "{kind:?}");
            assert_eq!(rig.kind(LockMode::Exclusive), Some(ErrorKind::Locked), "{kind:?}");
            rig.faults.mend();
            assert!(rig.notes().is_empty());
        }
    }

    #[test]
    fn one_that_cannot_be_removed_keeps_no_backup_away() {
        let rig = Rig::new();
        let key = rig.put(b"torn");
        rig.take(LockMode::Shared).unwrap();
        rig.pass(DEAD_AFTER_SECS + 1);
        rig.faults.add(Fault::on(Op::Remove).at(key).lasting().fails_before(ErrorKind::Denied));
        assert_eq!(rig.take(LockMode::Shared).unwrap().unreadable, 1);
        assert_eq!(rig.kind(LockMode::Exclusive), Some(ErrorKind::Denied));
        assert_eq!(rig.memory.keys(), [key]);
        rig.faults.mend();
        assert_eq!(rig.kind(LockMode::Exclusive), None);
    }

    #[test]
    fn a_note_from_the_future_or_a_damaged_one_begins_anew() {
        let rig = Rig::new();
        rig.put(b"torn");
        rig.pass(86_400);
        rig.take(LockMode::Shared).unwrap();
        // The clock is set right.
        rig.pass(-86_400);
        rig.take(LockMode::Shared).unwrap();
        rig.pass(DEAD_AFTER_SECS);
        assert_eq!(rig.kind(LockMode::Exclusive), Some(ErrorKind::Locked));
        rig.memory.put_side(&rig.notes()[0].0, b"damaged", SidePut::Replace).unwrap();
        rig.pass(1);
        assert_eq!(rig.kind(LockMode::Exclusive), Some(ErrorKind::Locked));
        rig.pass(DEAD_AFTER_SECS + 1);
        assert_eq!(rig.kind(LockMode::Exclusive), None);
    }

    #[test]
    fn notes_about_locks_that_are_gone_are_removed_by_who_deletes() {
        let rig = Rig::new();
        let key = rig.put(b"torn");
        rig.take(LockMode::Shared).unwrap();
        let strange = SideName::new(FOLDER, "something-else").unwrap();
        rig.memory.put_side(&strange, b"", SidePut::Create).unwrap();
        rig.memory.remove(&key).unwrap();
        rig.take(LockMode::Shared).unwrap();
        assert_eq!(rig.notes().len(), 2, "a backup does not ask for them");
        rig.take(LockMode::Exclusive).unwrap();
        assert_eq!(rig.notes(), [(strange, 0)]);
    }

    #[test]
    fn a_lock_of_a_program_that_we_do_not_know_excludes_deletion_for_ever_and_nothing_else() {
        let rig = Rig::new();
        let sealed = seal_unpacked(&rig.sealer, br#"{"version":9,"holder":"somebody newer"}"#).unwrap();
        let key = StoreKey::new(ObjectKind::Lock, Id(sha256(&sealed)));
        rig.memory.put(&key, &[&sealed]).unwrap();
        for _ in 0..2 {
            for mode in [LockMode::Shared, LockMode::Reading] {
                assert_eq!(rig.take(mode).unwrap().writers, 1, "{mode:?}");
            }
            let error = rig.take(LockMode::Exclusive).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Locked);
            assert!(error.hint().unwrap().contains(&key.path()), "{:?}", error.hint());
            rig.pass(86_400);
        }
        assert_eq!(rig.memory.keys(), [key]);
        assert!(rig.notes().is_empty());
    }

    /// restic's REST protocol: nothing beside the repository's own objects.
    #[derive(Debug)]
    struct NoSide(MemoryStore);

    impl Store for NoSide {
        fn location(&self) -> String {
            self.0.location()
        }
        fn capabilities(&self) -> lastgood_model::store::Capabilities {
            self.0.capabilities()
        }
        fn create(&self) -> Result<()> {
            self.0.create()
        }
        fn put(&self, key: &StoreKey, parts: &[&[u8]]) -> Result<()> {
            self.0.put(key, parts)
        }
        fn sync(&self) -> Result<()> {
            self.0.sync()
        }
        fn get(&self, key: &StoreKey) -> Result<Vec<u8>> {
            self.0.get(key)
        }
        fn get_range(&self, key: &StoreKey, offset: u64, length: usize, out: &mut Vec<u8>) -> Result<()> {
            self.0.get_range(key, offset, length, out)
        }
        fn size(&self, key: &StoreKey) -> Result<u64> {
            self.0.size(key)
        }
        fn list(&self, kind: ObjectKind) -> Result<Vec<(Id, u64)>> {
            self.0.list(kind)
        }
        fn remove(&self, key: &StoreKey) -> Result<()> {
            self.0.remove(key)
        }
    }
}
