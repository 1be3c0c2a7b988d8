//! The pass over the packs: those that were chosen in full, those that hold trees for their trees, and those that were
//! found damaged once more by what the index says of them.

use super::examine::{Buffers, Depth, Examined, tell_lost};
use super::faults::{Extent, Faults};
use super::findings::{Fault, lock};
use super::ledger::LedgerKeeper;
use super::packs::{Pack, Packs, ToldBy};
use super::report::DamageKind;
use super::run::Run;
use super::trees::Seen;
use crate::format::IndexBlob;
use lastgood_model::Result;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Packs longer than this are held in memory one at a time.
const LARGE_PACK_BYTES: u64 = 256 << 20;

/// What was read in full.
#[derive(Debug, Default)]
pub(super) struct Totals {
    pub(super) packs: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) blobs: AtomicU64,
    pub(super) bytes_plain: AtomicU64,
}

/// What a pass needs and fills in.
pub(super) struct Pass<'a> {
    pub(super) run: &'a Run<'a>,
    pub(super) faults: &'a Faults,
    pub(super) seen: &'a Seen,
    pub(super) totals: &'a Totals,
    pub(super) ledger: &'a LedgerKeeper,
}

impl Pass<'_> {
    /// Looks at the packs from ordinal `first` on; `chosen` says which of them in full.
    pub(super) fn over(&self, packs: &Packs, first: u32, chosen: impl Fn(&Pack) -> bool) -> Result<()> {
        let mut work: Vec<(u32, Depth)> = Vec::new();
        // Packs whose own header is of no use.
        let again: Mutex<BTreeMap<_, u32>> = Mutex::default();
        for (ordinal, pack) in (first..).zip(&packs.all[first as usize..]) {
            match pack.bytes_stored {
                None => self.missing(ordinal, pack),
                Some(stored) if stored != pack.bytes_due => drop(lock(&again).insert(pack.id, ordinal)),
                Some(_) if chosen(pack) => work.push((ordinal, Depth::All)),
                Some(_) if pack.has_trees => work.push((ordinal, Depth::Trees)),
                Some(_) => {}
            }
        }
        // Ascending, so that each thread's buffer grows a little from pack to pack and is never much too large for one:
        // such a buffer would have to be cleared before each reading.
        work.sort_unstable_by_key(|(ordinal, _)| (packs.all[*ordinal as usize].bytes_due, *ordinal));
        let expected = work.iter().map(|(ordinal, _)| packs.all[*ordinal as usize].bytes_due).sum();
        self.run.monitor.add(|c| &c.bytes_expected, expected);
        let large = Mutex::new(());
        self.run.each(&work, Buffers::default, |buffers, (ordinal, depth)| {
            let pack = &packs.all[*ordinal as usize];
            let _alone = (pack.bytes_due > LARGE_PACK_BYTES).then(|| lock(&large));
            let mut on_tree =
                |blob: &IndexBlob, json: &[u8]| self.seen.look_at(*ordinal, blob, json, &packs.index, self.faults);
            let mut examined = self.run.examine(pack, *depth, buffers, &mut on_tree)?;
            let is_damaged = !(examined.faults.is_empty() && examined.lost.is_empty());
            if is_damaged && !examined.in_full && !examined.needs_index && !examined.all_lost {
                // Trees beside data: what happened to the data must be known too.
                examined = self.run.examine(pack, Depth::All, buffers, &mut |_, _| {})?;
            }
            self.run.monitor.add(|c| &c.bytes, pack.bytes_due);
            if examined.needs_index && pack.told_by == ToldBy::Index {
                lock(&again).insert(pack.id, *ordinal);
                return Ok(());
            }
            // No index to ask: its header was all that was known of it, and has changed since.
            examined.all_lost |= examined.needs_index;
            self.settle(*ordinal, pack, examined)
        })?;
        self.second_look(packs, again.into_inner().unwrap_or_else(|e| e.into_inner()))
    }

    /// Packs that are damaged, by what the index says is in them.
    fn second_look(&self, packs: &Packs, mut again: BTreeMap<lastgood_model::PackId, u32>) -> Result<()> {
        packs.listings_of(self.run, &mut again, |listings| {
            let one = Mutex::new(Buffers::default());
            self.run.each(
                &listings,
                || (),
                |(), (ordinal, blobs)| {
                    let pack = &packs.all[*ordinal as usize];
                    let mut on_tree = |blob: &IndexBlob, json: &[u8]| {
                        self.seen.look_at(*ordinal, blob, json, &packs.index, self.faults)
                    };
                    // One at a time: these are few, and may be of any size.
                    let examined = self.run.examine_by_index(pack, blobs, &mut lock(&one), &mut on_tree)?;
                    self.settle(*ordinal, pack, examined)
                },
            )
        })?;
        // Its index file went away meanwhile, or it is known by a header that says otherwise now.
        for (_, ordinal) in again {
            let pack = &packs.all[ordinal as usize];
            let fault =
                Fault::new(DamageKind::Unreadable, "what is in it cannot be told: its list of blobs changed under us");
            self.settle(ordinal, pack, Examined { faults: vec![fault], all_lost: true, ..Examined::default() })?;
        }
        Ok(())
    }

    fn missing(&self, ordinal: u32, pack: &Pack) {
        let message = format!("the index lists it with {} blobs, and it is not in the store", pack.blobs);
        self.report(ordinal, pack, Fault::new(DamageKind::Missing, message), Extent::Whole);
    }

    /// Takes in what was found in one pack.
    fn settle(&self, ordinal: u32, pack: &Pack, examined: Examined) -> Result<()> {
        if examined.in_full {
            self.totals.packs.fetch_add(1, Relaxed);
            self.totals.bytes.fetch_add(pack.bytes_stored.unwrap_or(0), Relaxed);
            self.totals.blobs.fetch_add(examined.blobs, Relaxed);
            self.totals.bytes_plain.fetch_add(examined.bytes_plain, Relaxed);
        }
        let mut faults = examined.faults.into_iter();
        let first = faults.next();
        if first.is_none() && examined.lost.is_empty() {
            if examined.in_full {
                self.ledger.verified(pack.id);
            }
            return Ok(());
        }
        self.ledger.damaged(pack.id);
        let mut facts: Vec<String> = first.iter().map(|f| f.message.clone()).chain(faults.map(|f| f.message)).collect();
        if !examined.all_lost {
            let opened = u32::try_from(examined.blobs).unwrap_or(u32::MAX);
            facts.push(tell_lost(&examined.lost, opened));
        }
        let what = first.as_ref().or(examined.lost.first().map(|(_, f)| f)).map_or(DamageKind::Unreadable, |f| f.what);
        let extent = match examined.all_lost {
            true => Extent::Whole,
            false => Extent::Blobs(examined.lost.iter().map(|(blob, _)| blob.offset).collect()),
        };
        self.report(ordinal, pack, Fault::new(what, facts.join("; ")), extent);
        Ok(())
    }

    fn report(&self, ordinal: u32, pack: &Pack, fault: Fault, extent: Extent) {
        let hint = match (&extent, fault.what) {
            (Extent::Blobs(lost), DamageKind::IndexMismatch) if lost.is_empty() => {
                "the data is intact: `restic repair index` makes the index anew from the packs' own headers".to_owned()
            }
            (_, DamageKind::Missing) => "put this object back from another copy of the repository; without one, the next `lastgood backup` stores again what the sources still have, and `restic repair index` then forgets this one".to_owned(),
            _ => format!(
                "put this object back from another copy of the repository; without one, `restic repair packs {}` saves what can be read, and the next `lastgood backup` stores again what the sources still have",
                pack.id
            ),
        };
        let finding = self.run.findings.add(fault.on(pack.key()).with_hint(hint));
        self.faults.lose(ordinal, finding, extent);
    }
}
