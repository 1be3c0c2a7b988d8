//! What damage means: which snapshots it spoils, and which paths in them.
//!
//! Only called when there is damage. Every tree that a snapshot reaches is read once, on all threads; what hangs
//! together is kept in memory as pairs of numbers. From the trees that refer to something damaged, what is above them is
//! marked; then each snapshot is followed along the marked trees alone. Names are looked up last, on a second reading of
//! the marked trees, newest snapshot first, which ends as soon as every finding has its samples.

use super::faults::{Faults, place};
use super::findings::{Fault, fault_of, lock};
use super::packs::{Packs, ToldBy};
use super::report::{Damage, DamageKind, DamagedObject, PATHS_MAX};
use super::run::Run;
use crate::format::TreeReader;
use crate::index::{BlobRef, Location};
use crate::read::BlobReader;
use crate::repository::Snapshot;
use lastgood_model::node::display_path;
use lastgood_model::{Error, Node, Result, SnapshotId, TreeId};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Condvar, Mutex};

const HINT_INDEX: &str =
    "the data is intact, and restores find it by the pack's own list; the next `lastgood backup` lists it anew";

/// Where a reference leads.
enum Leads {
    /// To something that can be read.
    To(Location),
    /// To nothing.
    Nowhere,
}

/// What one tree refers to.
#[derive(Default)]
struct Contents {
    /// Directories below it that can be entered.
    subtrees: Vec<(TreeId, Location)>,
    /// Findings that spoil entries of it, once for each entry.
    hits: Vec<u32>,
}

/// All trees that were met, each with a number.
#[derive(Default)]
struct Graph {
    trees: Vec<(TreeId, Location)>,
    numbers: HashMap<u64, u32>,
    /// Tree and a tree below it.
    edges: Vec<(u32, u32)>,
    /// Tree and a finding that spoils an entry of it.
    hits: Vec<(u32, u32)>,
    /// How many entries each finding spoils.
    totals: HashMap<u32, u64>,
    waiting: Vec<u32>,
    working: usize,
    failed: Option<Error>,
}

impl Graph {
    /// The number of a tree; one that is new is put on the list of those to be read.
    fn number(&mut self, id: TreeId, location: Location) -> u32 {
        let next = self.trees.len() as u32;
        let number = *self.numbers.entry(place(location.pack, location.offset)).or_insert(next);
        if number == next {
            self.trees.push((id, location));
            self.waiting.push(next);
        }
        number
    }

    fn hit(&mut self, tree: Option<u32>, finding: u32) {
        *self.totals.entry(finding).or_default() += 1;
        if let Some(tree) = tree {
            self.hits.push((tree, finding));
        }
    }
}

/// Attributes findings to snapshots and paths.
pub(super) struct Attribution<'a> {
    run: &'a Run<'a>,
    packs: &'a Packs,
    faults: &'a Faults,
    reader: BlobReader,
    missing: Mutex<HashMap<BlobRef, u32>>,
    unindexed: Mutex<HashSet<u32>>,
    bad_trees: Mutex<HashMap<u64, u32>>,
}

impl<'a> Attribution<'a> {
    pub(super) fn new(run: &'a Run<'a>, packs: &'a Packs, faults: &'a Faults) -> Self {
        let reader = BlobReader::new(run.repository.store.clone(), run.repository.sealer.clone(), packs.index.clone());
        Self {
            run,
            packs,
            faults,
            reader,
            missing: Mutex::default(),
            unindexed: Mutex::default(),
            bad_trees: Mutex::default(),
        }
    }

    /// Attributes everything found so far to `snapshots`, oldest first.
    pub(super) fn settle(self, snapshots: &[Snapshot]) -> Result<()> {
        let mut graph = Graph::default();
        let mut roots = Vec::new();
        let mut spoiled_roots = HashSet::new();
        for snapshot in snapshots {
            let mut contents = Contents::default();
            self.follow_tree(snapshot.file.tree, &mut contents);
            let root = contents.subtrees.first().map(|(id, location)| graph.number(*id, *location));
            // All roots are the same path, `/`.
            contents.hits.iter().filter(|f| spoiled_roots.insert(**f)).for_each(|f| graph.hit(None, *f));
            roots.push((root, contents.hits));
        }
        let mut graph = self.read_all(graph)?;
        graph.edges.sort_unstable();
        graph.edges.dedup();
        graph.hits.sort_unstable();
        graph.hits.dedup();
        let marked = mark(&graph);
        self.name_snapshots(&graph, &marked, snapshots, &roots);
        self.name_paths(&graph, &marked, &roots, &spoiled_roots)
    }

    /// Reads every tree that is reachable, on all threads.
    fn read_all(&self, graph: Graph) -> Result<Graph> {
        let (shared, wake) = (Mutex::new(graph), Condvar::new());
        std::thread::scope(|scope| {
            for _ in 0..self.run.threads {
                scope.spawn(|| {
                    let mut graph = lock(&shared);
                    loop {
                        if graph.failed.is_some() || graph.waiting.is_empty() && graph.working == 0 {
                            break;
                        }
                        let Some(number) = graph.waiting.pop() else {
                            graph = wake.wait(graph).unwrap_or_else(|e| e.into_inner());
                            continue;
                        };
                        graph.working += 1;
                        let (id, location) = graph.trees[number as usize];
                        drop(graph);
                        let contents = self.run.monitor.check_cancelled().and_then(|()| self.read(id, &location));
                        graph = lock(&shared);
                        graph.working -= 1;
                        match contents {
                            Ok(contents) => {
                                for (id, location) in contents.subtrees {
                                    let below = graph.number(id, location);
                                    graph.edges.push((number, below));
                                }
                                contents.hits.into_iter().for_each(|finding| graph.hit(Some(number), finding));
                            }
                            Err(error) => graph.failed = Some(error),
                        }
                        wake.notify_all();
                    }
                    drop(graph);
                    wake.notify_all();
                });
            }
        });
        let mut graph = shared.into_inner().unwrap_or_else(|e| e.into_inner());
        graph.failed.take().map_or(Ok(graph), Err)
    }

    /// What a tree refers to.
    fn read(&self, id: TreeId, location: &Location) -> Result<Contents> {
        let mut contents = Contents::default();
        self.each_entry(id, location, |_, entry| {
            contents.hits.extend(entry.hits);
            contents.subtrees.extend(entry.subtrees);
            true
        })?;
        Ok(contents)
    }

    /// Calls `visit` with the name and the content of each entry of a tree, and with an empty name for what concerns the
    /// tree as a whole, while it returns true.
    fn each_entry(
        &self,
        id: TreeId,
        location: &Location,
        mut visit: impl FnMut(&[u8], Contents) -> bool,
    ) -> Result<()> {
        let own = |hits| Contents { subtrees: Vec::new(), hits };
        let json = match self.open(id, location) {
            Ok(json) => json,
            Err(error) => {
                // It could be read a moment ago: the store is failing under us.
                let fault = fault_of(error)?;
                visit(b"", own(vec![self.bad_tree(id, location, fault)]));
                return Ok(());
            }
        };
        if let Some(finding) = self.known_bad_tree(location)
            && !visit(b"", own(vec![finding]))
        {
            return Ok(());
        }
        let Ok(nodes) = TreeReader::strict(&json) else { return Ok(()) };
        // Entries that are damaged within are told by the finding about the tree as a whole.
        for node in nodes.flatten() {
            if !visit(&node.name, self.follow(&node)) {
                break;
            }
        }
        Ok(())
    }

    fn open(&self, id: TreeId, location: &Location) -> Result<Vec<u8>> {
        let key = self.packs.all[location.pack as usize].key();
        let mut sealed = Vec::new();
        self.run.store().get_range(&key, u64::from(location.offset), location.length as usize, &mut sealed)?;
        let mut json = Vec::new();
        self.reader.open(&id.into(), location, &mut sealed, &mut json)?;
        Ok(json)
    }

    fn follow(&self, node: &Node) -> Contents {
        let mut contents = Contents::default();
        if let Some(tree) = node.subtree {
            self.follow_tree(tree, &mut contents);
        }
        let mut hits = HashSet::new();
        for id in node.content.iter().flatten() {
            self.follow_blob((*id).into(), &mut hits);
        }
        contents.hits.extend(hits);
        contents
    }

    fn follow_tree(&self, id: TreeId, contents: &mut Contents) {
        let mut hits = HashSet::new();
        if let Leads::To(location) = self.follow_blob(id.into(), &mut hits) {
            contents.subtrees.push((id, location));
        }
        contents.hits.extend(hits);
    }

    /// Where a reference leads, and the findings that lie on the way.
    fn follow_blob(&self, blob: BlobRef, hits: &mut HashSet<u32>) -> Leads {
        let Some(mut location) = self.packs.index.find(blob) else {
            hits.insert(self.missing(blob));
            return Leads::Nowhere;
        };
        if let Some(finding) = self.faults.at(&location) {
            // Stored again since: readers find it at its other place, and no path is lost.
            let sound = self.packs.index.spares(blob).into_iter().find(|spare| self.faults.at(spare).is_none());
            let Some(spare) = sound else {
                hits.insert(finding);
                return Leads::Nowhere;
            };
            location = spare;
        }
        if self.packs.all[location.pack as usize].told_by == ToldBy::Header && self.packs.lost_index_files.is_empty() {
            // Whole, and found by readers of ours: worth a finding, but it spoils no path.
            self.unindexed(location.pack);
        }
        Leads::To(location)
    }

    fn missing(&self, blob: BlobRef) -> u32 {
        *lock(&self.missing).entry(blob).or_insert_with(|| {
            let message = "snapshots need it, and neither the index nor any pack has it";
            let hint = "where the sources still have its content, the next backup stores it again";
            let damage = Damage::new(DamagedObject::Blob(blob), DamageKind::MissingBlob, message);
            self.run.findings.add(damage.with_hint(hint))
        })
    }

    fn unindexed(&self, ordinal: u32) {
        if lock(&self.unindexed).insert(ordinal) {
            let message = "snapshots need it, but no index file lists it: an index file is missing";
            let pack = &self.packs.all[ordinal as usize];
            self.run.findings.add(Fault::new(DamageKind::Unindexed, message).on(pack.key()).with_hint(HINT_INDEX));
        }
    }

    fn known_bad_tree(&self, location: &Location) -> Option<u32> {
        let at = place(location.pack, location.offset);
        if let Some((id, why)) = self.faults.take_bad_tree(at) {
            return Some(self.bad_tree(id, location, Fault::new(DamageKind::BadTree, why)));
        }
        lock(&self.bad_trees).get(&at).copied()
    }

    fn bad_tree(&self, id: TreeId, location: &Location, fault: Fault) -> u32 {
        *lock(&self.bad_trees).entry(place(location.pack, location.offset)).or_insert_with(|| {
            let pack = self.packs.all[location.pack as usize].id;
            let message = format!("{} (in pack {pack})", fault.message);
            self.run.findings.add(Damage::new(DamagedObject::Blob(id.into()), fault.what, message))
        })
    }

    /// Fills in the snapshots of every finding.
    fn name_snapshots(
        &self,
        graph: &Graph,
        marked: &[bool],
        snapshots: &[Snapshot],
        roots: &[(Option<u32>, Vec<u32>)],
    ) {
        let mut of_finding: Vec<Vec<u32>> = vec![Vec::new(); self.run.findings.len()];
        let mut visited = vec![u32::MAX; graph.trees.len()];
        for (number, (root, hits)) in (0u32..).zip(roots) {
            let mut enter = |finding: u32| {
                let list = &mut of_finding[finding as usize];
                if list.last() != Some(&number) {
                    list.push(number);
                }
            };
            hits.iter().for_each(|finding| enter(*finding));
            let mut open: Vec<u32> = root.iter().copied().filter(|r| marked[*r as usize]).collect();
            while let Some(tree) = open.pop() {
                if std::mem::replace(&mut visited[tree as usize], number) == number {
                    continue;
                }
                pairs_of(&graph.hits, tree).for_each(&mut enter);
                open.extend(pairs_of(&graph.edges, tree).filter(|below| marked[*below as usize]));
            }
        }
        // Most findings spoil the same snapshots as their neighbours: each list is kept once.
        let mut lists: HashMap<Vec<u32>, Arc<[SnapshotId]>> = HashMap::new();
        for (finding, numbers) in of_finding.into_iter().enumerate().filter(|(_, numbers)| !numbers.is_empty()) {
            let ids = |numbers: &Vec<u32>| numbers.iter().map(|n| snapshots[*n as usize].id).collect();
            let list = lists.entry(numbers).or_insert_with_key(ids).clone();
            let total = graph.totals.get(&(finding as u32)).copied().unwrap_or(0);
            self.run.findings.amend(finding as u32, |damage| {
                damage.snapshots = list;
                damage.paths_total = total;
            });
        }
    }

    /// Fills in sample paths, from the newest snapshot on.
    fn name_paths(
        &self,
        graph: &Graph,
        marked: &[bool],
        roots: &[(Option<u32>, Vec<u32>)],
        spoiled_roots: &HashSet<u32>,
    ) -> Result<()> {
        let mut wanted: HashMap<u32, usize> =
            graph.totals.iter().map(|(finding, total)| (*finding, PATHS_MAX.min(*total as usize))).collect();
        let mut take = |finding: u32, path: &[u8]| {
            let Some(more) = wanted.get_mut(&finding) else { return !wanted.is_empty() };
            let path = display_path(path);
            let mut is_new = false;
            self.run.findings.amend(finding, |damage| {
                is_new = !damage.paths.contains(&path);
                if is_new {
                    damage.paths.push(path);
                }
            });
            // A file that stayed while its folder changed is met again in every folder's tree.
            if !is_new {
                return true;
            }
            *more -= 1;
            if *more == 0 {
                wanted.remove(&finding);
            }
            !wanted.is_empty()
        };
        for finding in spoiled_roots {
            take(*finding, b"/");
        }
        let mut visited = vec![false; graph.trees.len()];
        for (root, _) in roots.iter().rev() {
            let mut open: Vec<(u32, Arc<[u8]>)> = root.iter().map(|root| (*root, Arc::default())).collect();
            while let Some((tree, path)) = open.pop() {
                if !marked[tree as usize] || std::mem::replace(&mut visited[tree as usize], true) {
                    continue;
                }
                self.run.monitor.check_cancelled()?;
                let (id, location) = graph.trees[tree as usize];
                let mut more = true;
                let first = open.len();
                self.each_entry(id, &location, |name, entry| {
                    let full = [&path[..], b"/", name].concat();
                    more = entry.hits.iter().fold(true, |_, finding| take(*finding, &full));
                    let below = |l: &Location| graph.numbers.get(&place(l.pack, l.offset)).copied();
                    let subtrees = entry.subtrees.iter().filter_map(|(_, location)| below(location));
                    open.extend(subtrees.map(|number| (number, full.clone().into())));
                    more
                })?;
                if !more {
                    return Ok(());
                }
                open[first..].reverse();
            }
        }
        // Of these every path was met, and some more than once.
        for finding in wanted.into_keys() {
            self.run.findings.amend(finding, |damage| {
                if !damage.paths.is_empty() {
                    damage.paths_total = damage.paths.len() as u64;
                }
            });
        }
        Ok(())
    }
}

/// Marks the trees that refer to damage or have such a tree below them.
fn mark(graph: &Graph) -> Vec<bool> {
    let mut upwards: Vec<(u32, u32)> = graph.edges.iter().map(|(above, below)| (*below, *above)).collect();
    upwards.sort_unstable();
    let mut marked = vec![false; graph.trees.len()];
    let mut open: Vec<u32> = graph.hits.iter().map(|(tree, _)| *tree).collect();
    while let Some(tree) = open.pop() {
        if !std::mem::replace(&mut marked[tree as usize], true) {
            open.extend(pairs_of(&upwards, tree));
        }
    }
    marked
}

/// The second halves of the pairs that begin with `first`, in a sorted list.
fn pairs_of(pairs: &[(u32, u32)], first: u32) -> impl Iterator<Item = u32> + '_ {
    let start = pairs.partition_point(|(key, _)| *key < first);
    pairs[start..].iter().take_while(move |(key, _)| *key == first).map(|(_, second)| *second)
}
