//! The brief second phase, alone with the repository: look again, claim, rewrite index files, remove packs.

use super::mark::{Bits, Walk};
use super::report::{Deferred, PruneReport};
use super::state::{DoomList, DoomedPack, Ledger};
use super::{PruneOptions, threads};
use crate::format::{IndexBlob, encode_index};
use crate::index::{BlobRef, Location};
use crate::index_files::Believed;
use crate::lock::{LockGuard, LockMode};
use crate::pipe::INDEX_BLOBS;
use crate::planted::Planted;
use crate::read::BlobReader;
use crate::repository::{Repository, put_unpacked};
use lastgood_model::store::{ObjectKind, StoreKey};
use lastgood_model::{Context, Error, ErrorKind, Id, IndexId, Monitor, PackId, Result, SnapshotId, Time};
use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// On a store whose lists may be stale, whoever carries a list out must have known it for so long, by its own clock, beside
/// its having been published by an earlier run.
pub(super) const STALE_LIST_MARGIN_SECS: i64 = 24 * 3600;
/// The lock is looked at again after so long, before anything more is removed.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// How a sweep ended.
pub(super) enum Outcome {
    /// Everything on the list is gone, or held by the store.
    Done,
    /// Somebody is at work; the list stays for a later run.
    Waits,
    /// The list says nothing any more: somebody else has pruned since.
    Void,
}

/// One run of the second phase.
pub(super) struct Sweep<'a> {
    pub(super) repository: &'a Repository,
    pub(super) ledger: Option<&'a Ledger<'a>>,
    pub(super) monitor: &'a Monitor,
    /// How long to wait for others.
    pub(super) wait: Duration,
    /// Generations of lists that this one takes the place of.
    pub(super) superseded: Vec<u64>,
    /// Whether the list was made in this very run.
    pub(super) fresh: bool,
}

/// Carries on a list that an earlier run had to leave, when that is sound without looking through everything again: the
/// list was not begun, and every index file is there that was. True when it still waits, or nothing more can have become
/// unneeded since, because every recovery point that was followed is still there.
pub(super) fn resume(
    repository: &Repository,
    monitor: &Monitor,
    options: &PruneOptions,
    report: &mut PruneReport,
) -> Result<bool> {
    let Some(ledger) = Ledger::of(repository) else { return Ok(false) };
    let state = ledger.read()?;
    let [list] = state.lists.as_slice() else { return Ok(false) };
    if state.is_claimed(list) {
        return Ok(false);
    }
    let present =
        |kind| -> Result<HashSet<Id>> { Ok(repository.store.list(kind)?.into_iter().map(|(id, _)| id).collect()) };
    let (snapshots, index_files) = (present(ObjectKind::Snapshot)?, present(ObjectKind::Index)?);
    if !list.index_files.iter().all(|id| index_files.contains(&id.0)) {
        return Ok(false);
    }
    let wait = options.lock_wait;
    let sweep = Sweep { repository, ledger: Some(&ledger), monitor, wait, superseded: Vec::new(), fresh: false };
    let nothing_more = match sweep.run(list.clone(), report)? {
        Outcome::Void => false,
        // A new list would have to wait as long, and from the beginning.
        Outcome::Waits => true,
        Outcome::Done => list.snapshots.iter().all(|id| snapshots.contains(&id.0)),
    };
    if nothing_more {
        report.resumed = true;
        report.snapshots = snapshots.len() as u64;
    }
    Ok(nothing_more)
}

/// What an index file lists.
type Listing = Vec<(PackId, Vec<IndexBlob>)>;
/// Index files that name doomed packs.
type Touched = Vec<(IndexId, Listing)>;

/// The exclusive lock, looked at again and again.
struct Fence<'a> {
    guard: LockGuard,
    clock: &'a crate::lock::Clock,
    looked: Mutex<(Instant, Time)>,
}

impl<'a> Fence<'a> {
    fn new(guard: LockGuard, clock: &'a crate::lock::Clock) -> Self {
        let looked = Mutex::new((Instant::now(), clock()));
        Self { guard, clock, looked }
    }

    /// Fails once the lock is not surely held any more. Timers stand still while a machine sleeps and wall clocks jump, so
    /// both are asked how long ago the last look was.
    fn check(&self) -> Result<()> {
        let mut looked = super::mark::lock(&self.looked);
        let since = (self.clock)().secs.saturating_sub(looked.1.secs).unsigned_abs();
        if looked.0.elapsed() < LOOK_AGAIN && since < LOOK_AGAIN.as_secs() {
            return Ok(());
        }
        if !self.guard.is_sound() {
            return Err(Error::new(ErrorKind::Retry, "the lock was lost while packs were removed").with_hint(
                "nothing that is needed was removed; prune again. This happens when the machine sleeps meanwhile",
            ));
        }
        *looked = (Instant::now(), (self.clock)());
        Ok(())
    }
}

impl Sweep<'_> {
    pub(super) fn run(&self, mut list: DoomList, report: &mut PruneReport) -> Result<Outcome> {
        if let Some(reason) = self.must_wait(&list)? {
            return Ok(self.defer(&list, reason, report));
        }
        let guard = match self.repository.lock_within(LockMode::Exclusive, self.wait, self.monitor) {
            Err(error) if error.kind() == ErrorKind::Locked => {
                return Ok(self.defer(&list, error.message().to_owned(), report));
            }
            other => other?,
        };
        let fence = Fence::new(guard, &self.repository.options.clock);
        if let Some(ledger) = self.ledger
            && !self.repository.has(Planted::DeleteBeforePublishing)
            && !ledger.is_open(&list)?
        {
            return Ok(Outcome::Void);
        }
        let snapshots = self.repository.store.list(ObjectKind::Snapshot)?;
        let index_files: Vec<IndexId> =
            self.repository.store.list(ObjectKind::Index)?.into_iter().map(|(id, _)| IndexId(id)).collect();
        let present: HashMap<Id, u64> = self.repository.store.list(ObjectKind::Pack)?.into_iter().collect();
        if !self.is_blind() && !is_valid(&list, &index_files, &present) {
            return Ok(Outcome::Void);
        }

        let mut doomed: HashSet<PackId> = list.packs.iter().map(|pack| pack.id).collect();
        let (touched, fresh) = self.index_files_naming(&index_files, &list, &mut doomed)?;
        if !self.repository.has(Planted::IgnoreNewSnapshots) && !self.is_blind() {
            self.rescue(&list, snapshots, &present, &fresh, &mut doomed)?;
        }
        let all = list.packs.len();
        list.packs.retain(|pack| doomed.contains(&pack.id));
        report.packs_rescued += (all - list.packs.len()) as u64;
        if let Some(ledger) = self.ledger.filter(|_| !self.repository.has(Planted::DeleteBeforePublishing)) {
            if list.packs.len() < all {
                ledger.replace(&list)?;
            }
            if !ledger.claim(&list)? {
                return Ok(Outcome::Void);
            }
            for generation in &self.superseded {
                ledger.remove(*generation)?;
            }
        }
        fence.guard.is_sound().then_some(()).ok_or_else(|| {
            Error::new(ErrorKind::Retry, "the lock was lost before anything was removed; prune again")
        })?;

        if self.repository.has(Planted::PacksFirst) {
            self.remove_packs(&list, &present, &HashSet::new(), &fence)?;
        }
        let still_named = self.rewrite_index(touched, &doomed, &fence)?;
        let removed = self.remove_packs(&list, &present, &still_named, &fence)?;
        report.packs_removed += removed.packs;
        report.bytes_removed += removed.bytes;
        report.packs_held = removed.held.len() as u64;
        report.bytes_held = removed.held.iter().map(|pack| pack.bytes).sum();
        report.held = removed.reason;
        if let Some(ledger) = self.ledger {
            match removed.held.is_empty() {
                true => ledger.remove(list.generation)?,
                false => ledger.replace(&DoomList { packs: removed.held, moved_to: Vec::new(), ..list })?,
            }
        }
        Ok(Outcome::Done)
    }

    /// A planted mistake: what an earlier run has decided holds for ever.
    fn is_blind(&self) -> bool {
        !self.fresh && self.repository.has(Planted::ResumeBlindly)
    }

    /// Why the list cannot be carried out yet, where lists of objects may be stale.
    fn must_wait(&self, list: &DoomList) -> Result<Option<String>> {
        let capabilities = self.repository.store.capabilities();
        if self.repository.has(Planted::TrustStaleLists) {
            return Ok(None);
        }
        if capabilities.list_after_write && (capabilities.exclusive_create || self.ledger.is_none()) {
            return Ok(None);
        }
        // Without room for lists there is none that an earlier run could have left.
        let known_for = self.ledger.map_or(Ok(0), |ledger| ledger.known_for(list))?;
        if !self.fresh && known_for >= STALE_LIST_MARGIN_SECS {
            return Ok(None);
        }
        let why = match capabilities.list_after_write {
            false => "this store may show what was written with a delay",
            true => "this store does not refuse a name that is taken, and so keeps no two programs apart",
        };
        Ok(Some(format!("{why}: packs are removed a day later at the earliest")))
    }

    fn defer(&self, list: &DoomList, reason: String, report: &mut PruneReport) -> Outcome {
        let bytes = list.packs.iter().map(|pack| pack.bytes).sum();
        report.deferred = Some(Deferred { packs: list.packs.len() as u64, bytes, reason });
        Outcome::Waits
    }

    /// Every index file that names a doomed pack, with what it lists; and the packs that are named by index files that came
    /// since. Such a pack leaves the doomed: somebody has taken it over.
    fn index_files_naming(
        &self,
        index_files: &[IndexId],
        list: &DoomList,
        doomed: &mut HashSet<PackId>,
    ) -> Result<(Touched, HashSet<PackId>)> {
        let seen: HashSet<IndexId> = list.index_files.iter().copied().collect();
        let (mut touched, mut fresh) = (Vec::new(), HashSet::new());
        for id in index_files {
            self.monitor.check_cancelled()?;
            let listing = match self.repository.index_listing(*id) {
                Ok(listing) => listing,
                Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported) => {
                    tracing::warn!("index {} is damaged and stays: {}", id.short(), error.chain());
                    continue;
                }
                Err(error) => return Err(error),
            };
            if !seen.contains(id) {
                fresh.extend(listing.iter().map(|(pack, _)| *pack));
            } else if listing.iter().any(|(pack, _)| doomed.contains(pack)) {
                touched.push((*id, listing));
            }
        }
        doomed.retain(|pack| !fresh.contains(pack));
        touched.retain(|(_, listing)| listing.iter().any(|(pack, _)| doomed.contains(pack)));
        Ok((touched, fresh))
    }

    /// Follows recovery points that the list does not know. What they need of doomed packs, and was neither moved out of
    /// them nor stored again since, takes these packs off the list.
    fn rescue(
        &self,
        list: &DoomList,
        snapshots: Vec<(Id, u64)>,
        present: &HashMap<Id, u64>,
        fresh: &HashSet<PackId>,
        doomed: &mut HashSet<PackId>,
    ) -> Result<()> {
        let known: HashSet<SnapshotId> = list.snapshots.iter().copied().collect();
        let new = snapshots.into_iter().map(|(id, _)| SnapshotId(id)).filter(|id| !known.contains(id));
        let new = new.map(|id| self.repository.snapshot(id)).collect::<Result<Vec<_>>>()?;
        if new.is_empty() || doomed.is_empty() {
            return Ok(());
        }
        let index = self.repository.load_index_of(&Believed { present: Some(present), doomed: None, quiet: true })?;
        let (numbers, packs) = (index.number(), index.packs());
        let needed = Bits::new(numbers.len);
        let reader = BlobReader::new(self.repository.store.clone(), self.repository.sealer.clone(), index);
        let moved_to: HashSet<PackId> = list.moved_to.iter().map(|pack| pack.id).collect();
        let rescued = Mutex::new(HashSet::new());
        let met = |blob: BlobRef, first: Location| {
            let first = packs[first.pack as usize];
            let spares = reader.index.spares(blob);
            let places = || spares.iter().map(|spare| packs[spare.pack as usize]).chain([first]);
            if !places().any(|pack| moved_to.contains(&pack) || fresh.contains(&pack)) {
                super::mark::lock(&rescued).extend(places().filter(|pack| doomed.contains(pack)));
            }
        };
        let threads = threads(self.repository);
        let walk = Walk { reader: &reader, numbers: &numbers, needed: &needed, threads, monitor: self.monitor };
        if let Err(error) = walk.follow(&new, met) {
            // What it lacks may be in a pack that no index file lists: then nobody should be kept from taking it over.
            if let (ErrorKind::Corrupt, Some(ledger)) = (error.kind(), self.ledger) {
                ledger.remove(list.generation)?;
            }
            return Err(error);
        }
        for pack in rescued.into_inner().unwrap_or_else(|e| e.into_inner()) {
            doomed.remove(&pack);
        }
        Ok(())
    }

    /// Puts index files without doomed packs in the place of those in `touched`; one is written before those whose
    /// content it has are removed, so that no more room is needed than it takes. Returns the packs that an index file
    /// still names because the store holds it.
    fn rewrite_index(&self, touched: Touched, doomed: &HashSet<PackId>, fence: &Fence<'_>) -> Result<HashSet<PackId>> {
        let Repository { store, sealer, .. } = self.repository;
        let mut still_named = HashSet::new();
        let mut left = touched.into_iter().peekable();
        while left.peek().is_some() {
            let (mut kept, mut blobs, mut old) = (Listing::new(), 0, Vec::new());
            while blobs < INDEX_BLOBS
                && let Some((id, listing)) = left.next()
            {
                old.push((
                    id,
                    listing.iter().map(|(pack, _)| *pack).filter(|p| doomed.contains(p)).collect::<Vec<_>>(),
                ));
                kept.extend(listing.into_iter().filter(|(pack, _)| !doomed.contains(pack)));
                blobs = kept.iter().map(|(_, blobs)| blobs.len()).sum();
            }
            fence.check()?;
            if !kept.is_empty() {
                let json = encode_index(kept.iter().map(|(pack, blobs)| (*pack, &blobs[..])));
                let id = put_unpacked(&**store, sealer, ObjectKind::Index, &json).context("write index")?;
                if !self.repository.has(Planted::OldIndexFirst) {
                    store.sync().context("write index")?;
                }
                self.repository.cache().keep(&IndexId(id), &kept);
            }
            for (id, packs) in old {
                fence.check()?;
                match store.remove(&StoreKey::new(ObjectKind::Index, id)) {
                    Err(error) if error.kind() == ErrorKind::Held => still_named.extend(packs),
                    outcome => outcome.context("remove an index file that was replaced")?,
                }
            }
        }
        if !self.repository.has(Planted::PacksBeforeSync) {
            store.sync().context("remove index files that were replaced")?;
        }
        Ok(still_named)
    }

    /// Removes the packs, as many at once as helps.
    fn remove_packs(
        &self,
        list: &DoomList,
        present: &HashMap<Id, u64>,
        still_named: &HashSet<PackId>,
        fence: &Fence<'_>,
    ) -> Result<Removed> {
        let store = &self.repository.store;
        let (removed, failed, next) = (Mutex::new(Removed::default()), Mutex::new(None), AtomicUsize::new(0));
        let there: Vec<&DoomedPack> = list.packs.iter().filter(|pack| present.contains_key(&pack.id.0)).collect();
        let one = |pack: &DoomedPack| -> Result<()> {
            if still_named.contains(&pack.id) {
                super::mark::lock(&removed).hold(pack, "an index file that names them is held".into());
                return Ok(());
            }
            self.monitor.check_cancelled()?;
            fence.check()?;
            match store.remove(&StoreKey::new(ObjectKind::Pack, pack.id)) {
                Ok(()) => {
                    let mut removed = super::mark::lock(&removed);
                    removed.packs += 1;
                    removed.bytes += pack.bytes;
                    Ok(())
                }
                Err(error) if error.kind() == ErrorKind::Held => {
                    super::mark::lock(&removed).hold(pack, error.chain());
                    Ok(())
                }
                Err(error) => Err(error.context("remove a pack that nobody needs")),
            }
        };
        let work = || {
            while let Some(pack) = there.get(next.fetch_add(1, Relaxed)) {
                if let Err(error) = one(pack) {
                    super::mark::lock(&failed).get_or_insert(error);
                    next.store(there.len(), Relaxed);
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..threads(self.repository).clamp(1, there.len().max(1)) {
                scope.spawn(work);
            }
        });
        if let Some(error) = failed.into_inner().unwrap_or_else(|e| e.into_inner()) {
            return Err(error);
        }
        store.sync().context("remove packs")?;
        Ok(removed.into_inner().unwrap_or_else(|e| e.into_inner()))
    }
}

/// What was removed.
#[derive(Default)]
struct Removed {
    packs: u64,
    bytes: u64,
    held: Vec<DoomedPack>,
    reason: Option<String>,
}

impl Removed {
    fn hold(&mut self, pack: &DoomedPack, reason: String) {
        self.held.push(*pack);
        self.reason.get_or_insert(reason);
    }
}

/// True while what the list was made from still stands: every index file is there, and whatever was moved.
fn is_valid(list: &DoomList, index_files: &[IndexId], present: &HashMap<Id, u64>) -> bool {
    let there: HashSet<&IndexId> = index_files.iter().collect();
    list.index_files.iter().all(|id| there.contains(id))
        && list.moved_to.iter().all(|pack| present.get(&pack.id.0) == Some(&pack.bytes))
}
