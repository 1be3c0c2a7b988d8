//! What the wanted points consist of, and what of it the target lacks.

use super::Ends;
use crate::format::{TreeReader, pack};
use crate::index::{BlobKind, BlobRef, Claim, Index, Location};
use crate::read::{Fetch, FetchRequest};
use crate::work::threads_for;
use lastgood_model::{Error, ErrorKind, Monitor, PackId, Result, TreeId};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard};

/// Directories read together: enough that most of them lie side by side, few enough to be held at once.
const TREES_AT_ONCE: usize = 16 << 10;

/// What is wanted of one pack of the source.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Need {
    /// Its ordinal in the source's index.
    pub(super) pack: u32,
    /// Blobs wanted.
    pub(super) blobs: u32,
    /// Their sealed bytes.
    pub(super) bytes: u64,
    /// How long the pack is that holds exactly these blobs.
    pub(super) bytes_as_pack: u64,
}

/// Why a blob is lost, by blob.
pub(super) type Lost = HashMap<BlobRef, String>;

/// Everything to be sent.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// Packs with something wanted, in the order of the source's index.
    pub(super) needs: Vec<Need>,
    /// Directories seen.
    pub(super) trees: u64,
    /// What the source names and does not have.
    pub(super) lost: Lost,
}

impl Wanted {
    /// How many blobs are to be sent.
    pub(super) fn blobs(&self) -> u64 {
        self.needs.iter().map(|need| u64::from(need.blobs)).sum()
    }
}

/// Walks everything below `roots`, each directory once, and claims in the target's index whatever the target lacks.
pub(super) fn walk(ends: &Ends, roots: &[TreeId], monitor: &Monitor) -> Result<Wanted> {
    let walk = Walk {
        ends,
        seen: Index::new()?,
        trees: AtomicU64::new(0),
        needs: Mutex::default(),
        lost: Mutex::default(),
        open: Mutex::default(),
    };
    for root in roots {
        walk.visit(*root);
    }
    let threads = threads_for(&*ends.source.store);
    loop {
        let some = {
            let mut open = lock(&walk.open);
            let at = open.len().saturating_sub(TREES_AT_ONCE);
            open.split_off(at)
        };
        if some.is_empty() {
            break;
        }
        walk.read(&some, threads, monitor)?;
    }
    let needs = join_packs(&ends.source.index, walk.needs.into_inner().unwrap_or_else(|e| e.into_inner()));
    let lost = walk.lost.into_inner().unwrap_or_else(|e| e.into_inner());
    Ok(Wanted { needs, trees: walk.trees.into_inner(), lost })
}

struct Walk<'a> {
    ends: &'a Ends,
    /// Directories that the target has and that were met before; of those it lacks, its own index knows.
    seen: Index,
    trees: AtomicU64,
    /// By ordinal of the pack.
    needs: Mutex<Vec<Need>>,
    lost: Mutex<Lost>,
    /// Directories still to be read.
    open: Mutex<Vec<TreeId>>,
}

impl Walk<'_> {
    /// Remembers a directory for reading, unless it was met before.
    fn visit(&self, tree: TreeId) {
        let target = &self.ends.target.index;
        let is_new = match target.find(tree) {
            // That the target has a directory does not mean that it has all below: a run that died may have left it.
            Some(_) => self.seen.claim(tree) == Claim::Mine,
            None => self.want(tree.into()),
        };
        if is_new {
            lock(&self.open).push(tree);
        }
    }

    /// Claims a blob if the target lacks it; true when nobody did before.
    fn want(&self, blob: BlobRef) -> bool {
        if self.ends.target.index.claim(blob) == Claim::Known {
            return false;
        }
        match self.ends.source.locate(blob) {
            Ok(location) => self.need(blob, &location),
            Err(error) => drop(lock(&self.lost).insert(blob, error.chain())),
        }
        true
    }

    fn need(&self, blob: BlobRef, location: &Location) {
        let mut needs = lock(&self.needs);
        let at = location.pack as usize;
        if needs.len() <= at {
            needs.resize(at + 1, Need::default());
        }
        let need = &mut needs[at];
        need.blobs += 1;
        need.bytes += u64::from(location.length);
        need.bytes_as_pack += u64::from(location.length) + pack::entry_bytes(&location.entry(&blob));
    }

    fn read(&self, trees: &[TreeId], threads: usize, monitor: &Monitor) -> Result<()> {
        let fail = |tree: TreeId, error: &Error| drop(lock(&self.lost).insert(tree.into(), error.chain()));
        let absent = Mutex::new(Vec::new());
        let requests = trees.iter().zip(0..).map(|(tree, place)| FetchRequest { blob: (*tree).into(), place });
        let fetch = Fetch::plan(&self.ends.source, requests, |request, error| lock(&absent).push((request, error)));
        let failed = |request: FetchRequest, error: Error| {
            let tree = TreeId(request.blob.id);
            // What the source has lost the target may have.
            match self.ends.target.blob(tree) {
                Ok(json) => self.look_into(tree, &json),
                Err(_) => fail(tree, &error),
            }
        };
        fetch.run(
            threads,
            monitor,
            |place, json| {
                self.look_into(trees[place as usize], json);
                Ok(())
            },
            failed,
        )?;
        for (request, error) in absent.into_inner().unwrap_or_else(|e| e.into_inner()) {
            failed(request, error);
        }
        Ok(())
    }

    fn look_into(&self, tree: TreeId, json: &[u8]) {
        self.trees.fetch_add(1, Relaxed);
        let outcome = references(json, |reference| match reference.kind {
            BlobKind::Tree => self.visit(TreeId(reference.id)),
            BlobKind::Data => drop(self.want(reference)),
        });
        if let Err(error) = outcome {
            lock(&self.lost).insert(tree.into(), error.chain());
        }
    }
}

/// Hands over everything that a directory refers to.
///
/// # Errors
/// [`ErrorKind::Corrupt`] when an entry cannot be read, so that nobody knows what it refers to; all others were handed over.
pub(super) fn references(json: &[u8], mut visit: impl FnMut(BlobRef)) -> Result<()> {
    let mut bad = None;
    // Whatever order the entries are in: the directory is sent as it is.
    for node in TreeReader::lenient(json)? {
        match node {
            Ok(node) => {
                node.subtree.into_iter().for_each(|tree| visit(tree.into()));
                node.content.iter().flatten().for_each(|blob| visit((*blob).into()));
            }
            // An entry of a kind from a later version; of such nothing is restored, either.
            Err(error) if error.kind() == ErrorKind::Unsupported => {}
            Err(error) => bad = Some(error),
        }
    }
    bad.map_or(Ok(()), Err)
}

/// A pack that two index files list has two ordinals; here it gets one.
fn join_packs(index: &Index, needs: Vec<Need>) -> Vec<Need> {
    let mut joined: Vec<Need> = Vec::new();
    let mut places: HashMap<PackId, usize> = HashMap::new();
    for (ordinal, need) in (0..).zip(needs).filter(|(_, need)| need.blobs > 0) {
        let place = *places.entry(index.pack(ordinal)).or_insert_with(|| {
            let bytes_as_pack = pack::EMPTY_PACK_BYTES;
            joined.push(Need { pack: ordinal, bytes_as_pack, ..Need::default() });
            joined.len() - 1
        });
        let known = &mut joined[place];
        known.blobs += need.blobs;
        known.bytes += need.bytes;
        known.bytes_as_pack += need.bytes_as_pack;
    }
    joined
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}
