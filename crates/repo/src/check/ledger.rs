//! When each pack was last verified: a small local file that lets a verification run every day over a part and still
//! cover all within a set time.
//!
//! It is a memory, not a proof: a ledger that is lost, damaged or of another repository only means that everything counts
//! as unverified. It is replaced atomically, at the end of a run and every minute during one, so that a run that is cut
//! short is not lost.
//!
//! Layout, little endian: `lgverif1`, the repository's id (32 bytes), the time of the last run in seconds since 1970 (i64,
//! 0 for none), the number of packs (u64), for each its id (32), when it was first seen and when last verified (i64 each,
//! 0 for never); last the SHA-256 of all before it.

use super::findings::lock;
use super::report::Coverage;
use crate::lock::Clock;
use crate::repository::Repository;
use crate::sha256::sha256;
use lastgood_model::store::ObjectKind;
use lastgood_model::{Context, Id, PackId, Result};
use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

const MAGIC: &[u8; 8] = b"lgverif1";
const RECORD_BYTES: usize = 32 + 8 + 8;
/// Seconds between two writings during a run.
const KEEP_EVERY_SECS: i64 = 60;

/// What is known of one pack; seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// When it was first seen.
    pub(super) seen: i64,
    /// When every byte of it was last found right.
    pub(super) verified: Option<i64>,
}

impl Record {
    /// Since when nobody has looked at it.
    pub(super) fn waits_since(&self) -> i64 {
        self.verified.unwrap_or(self.seen)
    }
}

/// The ledger of one repository.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ledger {
    pub(super) last_run: Option<i64>,
    pub(super) packs: HashMap<PackId, Record>,
}

impl Ledger {
    fn encode(&self, repository: &Id) -> Vec<u8> {
        let mut out = Vec::with_capacity(96 + self.packs.len() * RECORD_BYTES);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&repository.0);
        out.extend_from_slice(&self.last_run.unwrap_or(0).to_le_bytes());
        out.extend_from_slice(&(self.packs.len() as u64).to_le_bytes());
        for (id, record) in &self.packs {
            out.extend_from_slice(&id.0.0);
            out.extend_from_slice(&record.seen.to_le_bytes());
            out.extend_from_slice(&record.verified.unwrap_or(0).to_le_bytes());
        }
        let digest = sha256(&out);
        out.extend_from_slice(&digest);
        out
    }

    fn decode(bytes: &[u8], repository: &Id) -> Option<Self> {
        let (body, digest) = bytes.split_last_chunk::<32>()?;
        if sha256(body) != *digest {
            return None;
        }
        let mut rest = body.strip_prefix(MAGIC)?.strip_prefix(&repository.0)?;
        let last_run = take_i64(&mut rest)?;
        let count = take_i64(&mut rest)? as u64;
        let (records, []) = rest.as_chunks::<RECORD_BYTES>() else { return None };
        if records.len() as u64 != count {
            return None;
        }
        let mut packs = HashMap::with_capacity(records.len());
        for record in records {
            let mut record = &record[..];
            let id = PackId(Id(*record.split_off(..32)?.first_chunk()?));
            let (seen, verified) = (take_i64(&mut record)?, take_i64(&mut record)?);
            packs.insert(id, Record { seen, verified: some(verified) });
        }
        Some(Self { last_run: some(last_run), packs })
    }

    /// Forgets packs that are gone and takes note of those that are new at `now`.
    fn follow(&mut self, packs: &[(PackId, u64)], now: i64) {
        let mut old = std::mem::take(&mut self.packs);
        self.packs.reserve(packs.len());
        for (id, _) in packs {
            let record = old.remove(id).unwrap_or(Record { seen: now, verified: None });
            // A clock that was set back must not put packs off for good.
            let record = Record { seen: record.seen.min(now), verified: record.verified.map(|v| v.min(now)) };
            self.packs.insert(*id, record);
        }
    }

    pub(super) fn coverage(&self, packs: &[(PackId, u64)], within: Option<Duration>, now: i64) -> Coverage {
        let (mut bytes, mut covered, mut never, mut oldest) = (0u64, 0u64, 0u64, 0i64);
        let limit = within.map_or(i64::MAX, |w| i64::try_from(w.as_secs()).unwrap_or(i64::MAX));
        for (id, size) in packs {
            let record = self.packs.get(id).copied().unwrap_or(Record { seen: now, verified: None });
            bytes += size;
            never += u64::from(record.verified.is_none());
            oldest = oldest.max(now.saturating_sub(record.waits_since()));
            if record.verified.is_some_and(|v| now.saturating_sub(v) <= limit) {
                covered += size;
            }
        }
        Coverage {
            covered_percent: if bytes == 0 { 100.0 } else { covered as f64 * 100.0 / bytes as f64 },
            oldest_unverified_secs: oldest.max(0) as u64,
            packs_never_verified: never,
        }
    }
}

/// How long the byte that waits longest has been waiting to be verified, in seconds, by what this machine remembers.
/// What came after the last run has been waiting since then at most. `None` when some were met by a run and never
/// verified, or when no run is remembered.
///
/// # Errors
/// When the repository's packs cannot be listed.
pub fn longest_unverified(path: &Path, repository: &Repository) -> Result<Option<u64>> {
    let Ok(bytes) = fs_err::read(path) else { return Ok(None) };
    let Some(ledger) = Ledger::decode(&bytes, &repository.id()) else { return Ok(None) };
    let Some(last_run) = ledger.last_run else { return Ok(None) };
    let now = (repository.options.clock)().secs;
    let mut longest = 0;
    for (id, _) in repository.store.list(ObjectKind::Pack)? {
        let since = match ledger.packs.get(&PackId(id)) {
            Some(Record { verified: Some(verified), .. }) => *verified,
            Some(Record { verified: None, .. }) => return Ok(None),
            None => last_run,
        };
        longest = now.saturating_sub(since).max(longest);
    }
    Ok(Some(longest.max(0).unsigned_abs()))
}

fn some(secs: i64) -> Option<i64> {
    (secs != 0).then_some(secs)
}

fn take_i64(rest: &mut &[u8]) -> Option<i64> {
    rest.split_off(..8)?.first_chunk().map(|b| i64::from_le_bytes(*b))
}

/// A ledger in use by a run, or none.
pub(super) struct LedgerKeeper {
    path: Option<PathBuf>,
    repository: Id,
    clock: Clock,
    state: Mutex<State>,
    /// Held while the file is written.
    writing: Mutex<()>,
}

#[derive(Default)]
struct State {
    ledger: Ledger,
    kept_at: i64,
}

impl LedgerKeeper {
    /// The ledger at `path`, with a note when what is there cannot be used.
    pub(super) fn open(path: Option<&Path>, repository: Id, clock: Clock) -> (Self, Option<String>) {
        let mut note = None;
        let mut ledger = Ledger::default();
        if let Some(path) = path {
            let lost = "everything counts as unverified";
            match fs_err::read(path) {
                Ok(bytes) => match Ledger::decode(&bytes, &repository) {
                    Some(read) => ledger = read,
                    None => {
                        note =
                            Some(format!("the ledger {} is damaged or of another repository: {lost}", path.display()))
                    }
                },
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => note = Some(format!("the ledger cannot be read: {lost} ({error})")),
            }
        }
        let state = State { ledger, kept_at: clock().secs };
        let path = path.map(Path::to_owned);
        (Self { path, repository, clock, state: Mutex::new(state), writing: Mutex::default() }, note)
    }

    pub(super) fn now(&self) -> i64 {
        (self.clock)().secs
    }

    /// The ledger brought up to date with the packs there are.
    pub(super) fn follow(&self, packs: &[(PackId, u64)]) -> Ledger {
        let now = self.now();
        let mut state = lock(&self.state);
        state.ledger.follow(packs, now);
        state.ledger.clone()
    }

    /// Every byte of a pack was found right.
    pub(super) fn verified(&self, pack: PackId) {
        if self.path.is_none() {
            return;
        }
        let now = self.now();
        let due = {
            let mut state = lock(&self.state);
            state.ledger.packs.entry(pack).or_insert(Record { seen: now, verified: None }).verified = Some(now);
            now - state.kept_at >= KEEP_EVERY_SECS
        };
        if due && let Ok(_writing) = self.writing.try_lock() {
            lock(&self.state).kept_at = now;
            // At the end it is tried again, and then failure is told.
            if let Err(error) = self.keep() {
                tracing::warn!(error = %error.chain(), "ledger not written");
            }
        }
    }

    /// A pack was found damaged: it is the first to be looked at next time.
    pub(super) fn damaged(&self, pack: PackId) {
        if let Some(record) = lock(&self.state).ledger.packs.get_mut(&pack) {
            record.verified = None;
        }
    }

    /// Writes the ledger at the end of a run that began at `began` and got through what it had chosen.
    pub(super) fn finish(&self, began: i64) -> Result<Ledger> {
        let _writing = lock(&self.writing);
        lock(&self.state).ledger.last_run = Some(began);
        self.keep()?;
        Ok(lock(&self.state).ledger.clone())
    }

    /// Writes what a run that was cut short has got through.
    pub(super) fn interrupt(&self) -> Result<()> {
        let _writing = lock(&self.writing);
        self.keep()
    }

    fn keep(&self) -> Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        let bytes = lock(&self.state).ledger.encode(&self.repository);
        replace(path, &bytes).context("write verification ledger")
    }
}

/// Replaces a file as a whole: after a crash there is the old one or the new one.
fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs_err::create_dir_all(folder)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    let temporary = folder.join(name);
    let write = || {
        let mut file = fs_err::File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs_err::rename(&temporary, path)?;
        fs_err::File::open(folder)?.sync_all()
    };
    write().inspect_err(|_| drop(fs_err::remove_file(&temporary)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use lastgood_model::Time;
    use std::sync::Arc;

    fn pack(n: u8) -> PackId {
        PackId(Id([n; 32]))
    }

    fn at(secs: i64) -> Clock {
        Arc::new(move || Time::new(secs, 0))
    }

    #[test]
    fn a_ledger_reads_back_as_written_and_any_damage_means_unverified() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state/ledger");
        let repository = Id([9; 32]);
        let (keeper, note) = LedgerKeeper::open(Some(&path), repository, at(1000));
        assert_eq!(note, None);
        keeper.follow(&[(pack(1), 10), (pack(2), 30)]);
        keeper.verified(pack(1));
        let written = keeper.finish(990).unwrap();
        assert_eq!(written.packs[&pack(1)], Record { seen: 1000, verified: Some(1000) });
        assert_eq!(written.packs[&pack(2)], Record { seen: 1000, verified: None });
        let (again, note) = LedgerKeeper::open(Some(&path), repository, at(2000));
        assert_eq!((&lock(&again.state).ledger, note), (&written, None));

        let good = fs_err::read(&path).unwrap();
        for position in 0..good.len() {
            let mut bad = good.clone();
            bad[position] ^= 1;
            assert_eq!(Ledger::decode(&bad, &repository), None, "{position}");
            assert_eq!(Ledger::decode(&good[..position], &repository), None, "{position}");
        }
        assert_eq!(Ledger::decode(&good, &Id([8; 32])), None);
        fs_err::write(&path, &good[1..]).unwrap();
        let (lost, note) = LedgerKeeper::open(Some(&path), repository, at(2000));
        assert!(note.unwrap().contains("everything counts as unverified"));
        assert_eq!(lost.follow(&[(pack(1), 10)]).packs[&pack(1)], Record { seen: 2000, verified: None });
        assert_eq!(fs_err::read_dir(folder.path().join("state")).unwrap().count(), 1, "a temporary stayed behind");
    }

    #[test]
    fn coverage_counts_bytes_and_the_longest_wait() {
        let packs = [(pack(1), 10), (pack(2), 30)];
        let mut ledger = Ledger::default();
        ledger.follow(&packs, 1000);
        ledger.packs.get_mut(&pack(1)).unwrap().verified = Some(1500);
        let coverage = |within: Option<u64>| ledger.coverage(&packs, within.map(Duration::from_secs), 2000);
        assert_eq!(
            coverage(None),
            Coverage { covered_percent: 25.0, oldest_unverified_secs: 1000, packs_never_verified: 1 }
        );
        assert_eq!(coverage(Some(500)).covered_percent, 25.0);
        assert_eq!(coverage(Some(499)).covered_percent, 0.0);
        assert_eq!(Ledger::default().coverage(&[], None, 5).covered_percent, 100.0);
    }

    #[test]
    fn packs_that_are_gone_are_forgotten_and_a_clock_set_back_puts_nothing_off() {
        let mut ledger = Ledger::default();
        ledger.follow(&[(pack(1), 1), (pack(2), 1)], 5000);
        ledger.packs.get_mut(&pack(2)).unwrap().verified = Some(6000);
        ledger.follow(&[(pack(2), 1)], 3000);
        assert_eq!(ledger.packs.len(), 1);
        assert_eq!(ledger.packs[&pack(2)], Record { seen: 3000, verified: Some(3000) });
    }
}
