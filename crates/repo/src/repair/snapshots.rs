//! New recovery points in place of damaged ones: the same without what cannot be read, which is named in the manifest.

use super::Unsaved;
use crate::format::{SnapshotFile, TreeEncoder, TreeReader};
use crate::index::{BlobKind, BlobRef};
use crate::lock::LockMode;
use crate::pipe::Packer;
use crate::read::BlobReader;
use crate::repository::{Repository, Snapshot, put_unpacked};
use crate::sha256::sha256;
use lastgood_model::manifest::{Manifest, Problem, ProblemKind, SourceOutcome};
use lastgood_model::node::display_path;
use lastgood_model::store::ObjectKind;
use lastgood_model::{BlobId, Context, Error, ErrorKind, Id, Monitor, Node, NodeKind, Result, SnapshotId, TreeId};
use serde::Serialize;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

/// The tag of a recovery point that was repaired.
const TAG: &str = "repaired";
/// The tag of one in which something is missing.
const INCOMPLETE: &str = "incomplete";
/// Paths told in full; more are only counted.
const PATHS_MAX: usize = 1000;

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct SnapshotsReport {
    /// Always `lastgood.repair-snapshots`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Version of this layout.
    pub schema: u32,
    /// Recovery points that are whole.
    pub sound: u64,
    /// Those that are not.
    pub repaired: Vec<SnapshotRepair>,
    /// Those of which nothing could be saved.
    pub unsaved: Vec<Unsaved>,
}

/// A recovery point and what was made of it.
#[derive(Clone, Debug, Serialize)]
pub struct SnapshotRepair {
    /// The damaged one, which stays.
    pub snapshot: SnapshotId,
    /// The new one.
    pub new: SnapshotId,
    /// True when an earlier run had made it.
    pub was_there: bool,
    /// Paths that are not in the new one, at most a thousand.
    pub left_out: Vec<String>,
    /// How many there are.
    pub left_out_total: u64,
}

/// Makes a new recovery point for each damaged one. With `read_data` every blob is read; else content counts as readable
/// when the index knows a pack for it that is there.
///
/// # Errors
/// [`ErrorKind::Locked`] while somebody deletes; whatever keeps the store from answering or being written to.
pub fn snapshots(
    repository: &Repository,
    monitor: &Monitor,
    read_data: bool,
    lock_wait: Duration,
) -> Result<SnapshotsReport> {
    let _lock = repository.lock_within(LockMode::Shared, lock_wait, monitor)?;
    let mut report = SnapshotsReport {
        kind: "lastgood.repair-snapshots",
        schema: 1,
        sound: 0,
        repaired: Vec::new(),
        unsaved: Vec::new(),
    };
    let mut unread = Vec::new();
    let all = repository.snapshots(|id, error| unread.push((id, error)))?;
    for (id, error) in unread {
        report.unsaved.push(Unsaved { object: format!("snapshot {id}"), reason: error.chain() });
    }
    let (index, _) = repository.load_index_of_present_packs()?;
    let reader = BlobReader::new(repository.store.clone(), repository.sealer.clone(), index.clone());
    let packer = Packer::start(repository.store.clone(), repository.sealer.clone(), index, repository.cache(), false)?;
    let (trees, data, made) = (HashMap::new(), HashMap::new(), HashMap::new());
    let mut mender = Mender { repository, reader, packer, monitor, read_data, trees, data, made };
    let mut new = Vec::new();
    for snapshot in &all {
        let mended = mender.tree(snapshot.file.tree)?;
        let Some(tree) = mended.tree else {
            let reason = "its top directory cannot be read".to_owned();
            report.unsaved.push(Unsaved { object: format!("snapshot {}", snapshot.id), reason });
            continue;
        };
        if tree == snapshot.file.tree {
            report.sound += 1;
            continue;
        }
        let tree = mender.tell(tree, &mended)?;
        new.push((snapshot, tree, mended));
    }
    // Everything is durable before anything refers to it.
    mender.packer.finish()?;
    repository.store.sync()?;
    for (snapshot, tree, mended) in new {
        let (new, was_there) = publish(repository, snapshot, tree, &all)?;
        report.repaired.push(SnapshotRepair {
            snapshot: snapshot.id,
            new,
            was_there,
            left_out: mended.left_out.clone(),
            left_out_total: mended.total,
        });
    }
    Ok(report)
}

/// Writes the new recovery point, unless an earlier run did.
fn publish(repository: &Repository, old: &Snapshot, tree: TreeId, all: &[Snapshot]) -> Result<(SnapshotId, bool)> {
    let original = old.file.original.unwrap_or(old.id);
    let is_it = |other: &&Snapshot| other.file.original == Some(original) && other.file.tree == tree;
    if let Some(there) = all.iter().find(is_it) {
        return Ok((there.id, true));
    }
    let mut tags = old.file.tags.clone();
    for tag in [INCOMPLETE, TAG] {
        if !tags.iter().any(|other| other == tag) {
            tags.push(tag.to_owned());
        }
    }
    let file = SnapshotFile { tree, tags, original: Some(original), ..old.file.clone() };
    let id = put_unpacked(&*repository.store, &repository.sealer, ObjectKind::Snapshot, &file.encode()?)
        .context("write snapshot")?;
    repository.store.sync().context("write snapshot")?;
    let read_back = repository.snapshot(SnapshotId(id)).context("read back snapshot")?;
    if read_back.file.tree != tree {
        return Err(Error::corrupt("the snapshot read back is not the one written"));
    }
    Ok((SnapshotId(id), false))
}

/// What became of a directory.
#[derive(Debug, Default)]
struct Mended {
    /// It without what cannot be read; absent when it cannot be read itself.
    tree: Option<TreeId>,
    /// Paths below it that are left out.
    left_out: Vec<String>,
    total: u64,
}

impl Mended {
    fn leave_out(&mut self, path: String) {
        self.total += 1;
        if self.left_out.len() < PATHS_MAX {
            self.left_out.push(path);
        }
    }
}

struct Mender<'a> {
    repository: &'a Repository,
    reader: BlobReader,
    packer: Packer,
    monitor: &'a Monitor,
    read_data: bool,
    /// Each directory is read once.
    trees: HashMap<TreeId, Rc<Mended>>,
    /// Whether content can be read, once it was tried.
    data: HashMap<BlobId, bool>,
    /// Directories that were made, and cannot be read back before they are written.
    made: HashMap<TreeId, Vec<Node>>,
}

impl Mender<'_> {
    fn tree(&mut self, id: TreeId) -> Result<Rc<Mended>> {
        if let Some(known) = self.trees.get(&id) {
            return Ok(known.clone());
        }
        self.monitor.check_cancelled()?;
        let mended = match self.reader.blob(id) {
            Ok(json) => self.entries(id, &json)?,
            Err(error) if is_damage(&error) => Mended::default(),
            Err(error) => return Err(error),
        };
        let mended = Rc::new(mended);
        self.trees.insert(id, mended.clone());
        Ok(mended)
    }

    fn entries(&mut self, id: TreeId, json: &[u8]) -> Result<Mended> {
        let mut mended = Mended::default();
        let Ok(reader) = TreeReader::lenient(json) else { return Ok(mended) };
        let (mut kept, mut changed): (Vec<Node>, bool) = (Vec::new(), false);
        for entry in reader {
            let Ok(mut node) = entry else {
                mended.leave_out("an entry that cannot be read".to_owned());
                changed = true;
                continue;
            };
            let name = display_path(&node.name);
            if !self.has_content(&node)? {
                mended.leave_out(name);
                changed = true;
                continue;
            }
            if node.kind == NodeKind::Dir {
                let below = match node.subtree {
                    Some(subtree) => self.tree(subtree)?,
                    None => Rc::default(),
                };
                for path in &below.left_out {
                    mended.leave_out(format!("{name}/{path}"));
                }
                mended.total += below.total - below.left_out.len() as u64;
                if below.tree.is_none() {
                    mended.leave_out(name);
                    changed = true;
                    continue;
                }
                changed |= below.tree != node.subtree;
                node.subtree = below.tree;
            }
            kept.push(node);
        }
        mended.tree = Some(if changed { self.save(kept)? } else { id });
        Ok(mended)
    }

    fn has_content(&mut self, node: &Node) -> Result<bool> {
        for id in node.content.iter().flatten() {
            let known = self.data.get(id).copied();
            let is_there = match known {
                Some(known) => known,
                None if !self.read_data => self.reader.index.find(*id).is_some(),
                None => match self.reader.blob(*id) {
                    Ok(_) => true,
                    Err(error) if is_damage(&error) => false,
                    Err(error) => return Err(error),
                },
            };
            if known.is_none() {
                self.data.insert(*id, is_there);
            }
            if !is_there {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Stores a directory.
    fn save(&mut self, mut nodes: Vec<Node>) -> Result<TreeId> {
        nodes.sort_by(|a, b| a.name.cmp(&b.name));
        nodes.dedup_by(|a, b| a.name == b.name);
        let mut encoder = TreeEncoder::new();
        for node in &nodes {
            encoder.push(node)?;
        }
        let id = self.store(BlobKind::Tree, &encoder.finish()).map(TreeId)?;
        self.made.insert(id, nodes);
        Ok(id)
    }

    /// Stores a blob that is not there.
    fn store(&mut self, kind: BlobKind, plain: &[u8]) -> Result<Id> {
        let id = Id(sha256(plain));
        if self.reader.index.claim(BlobRef { kind, id }) == crate::index::Claim::Mine {
            let compressed = zstd::bulk::compress(plain, 3).map_err(|e| Error::io("compress", e))?;
            let sealed = self.repository.sealer.seal(&compressed)?;
            let length = u32::try_from(plain.len())
                .map_err(|_| Error::new(ErrorKind::Unsupported, "a directory larger than any blob"))?;
            self.packer.append(kind, id, &sealed, length)?;
        }
        Ok(id)
    }

    /// Names what was left out in the manifest of the new recovery point, where there is one that can be read.
    fn tell(&mut self, root: TreeId, mended: &Mended) -> Result<TreeId> {
        let Some(mut nodes) = self.nodes(root)? else { return Ok(root) };
        let Some(folder) = nodes.iter().position(|node| node.name == Manifest::FOLDER.as_bytes()) else {
            return Ok(root);
        };
        let Some(subtree) = nodes[folder].subtree else { return Ok(root) };
        let Some(mut own) = self.nodes(subtree)? else { return Ok(root) };
        let Some(file) = own.iter_mut().find(|node| node.name == b"manifest.json") else { return Ok(root) };
        let mut bytes = Vec::new();
        for id in file.content.iter().flatten() {
            match self.reader.blob(*id) {
                Ok(piece) => bytes.extend(piece),
                Err(_) => return Ok(root),
            }
        }
        let Ok(mut manifest) = serde_json::from_slice::<Manifest>(&bytes) else { return Ok(root) };
        add_problems(&mut manifest, mended);
        let json = serde_json::to_vec_pretty(&manifest).context("write manifest")?;
        file.size = json.len() as u64;
        let pieces = json.chunks(1 << 20).map(|piece| self.store(BlobKind::Data, piece).map(BlobId));
        file.content = Some(pieces.collect::<Result<_>>()?);
        nodes[folder].subtree = Some(self.save(own)?);
        self.save(nodes)
    }

    /// The nodes of a directory that is stored, or was just handed to the packer.
    fn nodes(&mut self, id: TreeId) -> Result<Option<Vec<Node>>> {
        if let Some(nodes) = self.made.get(&id) {
            return Ok(Some(nodes.clone()));
        }
        match self.reader.tree(id) {
            Ok(nodes) => Ok(Some(nodes)),
            Err(error) if is_damage(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn add_problems(manifest: &mut Manifest, mended: &Mended) {
    manifest.complete = false;
    for path in &mended.left_out {
        let (source, below) = path.split_once('/').unwrap_or((path, ""));
        let mut problem =
            Problem::new(path.clone(), ProblemKind::Unreadable, "damaged in the repository; left out by a repair");
        problem.source = source.to_owned();
        manifest.problems.push(problem);
        if let Some(record) = manifest.sources.iter_mut().find(|record| record.name == source) {
            match (&record.outcome, below) {
                (_, "") => {
                    let error = "damaged in the repository; left out by a repair".to_owned();
                    record.outcome = SourceOutcome::Failed { error };
                }
                (SourceOutcome::Complete, _) => record.outcome = SourceOutcome::Partial,
                _ => {}
            }
        }
    }
    manifest.problems_total += mended.total;
}

fn is_damage(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported | ErrorKind::Absent)
}
