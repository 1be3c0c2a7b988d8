//! What must be there: every blob that an acknowledged recovery point needs, in some pack, at every moment.

use anyhow::{Context, Result, bail};
use lastgood_model::store::ObjectKind;
use lastgood_model::{BlobId, Id, SnapshotId, TreeId};
use lastgood_repo::crypto::Sealer;
use lastgood_repo::format::IndexBlob;
use lastgood_repo::format::pack::{locate_header, parse_header};
use lastgood_repo::{BlobReader, OpenOptions, Repository};
use lastgood_testkit::sim::{Key, SimWorld, Witnessed};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Knows for each place which blobs lie in which packs, and which of them are needed. Watches every change.
#[derive(Clone)]
pub(crate) struct Oracle(Arc<Mutex<State>>);

struct State {
    places: Vec<Place>,
    losses: Vec<String>,
}

struct Place {
    /// The key, where it is known beforehand. Without it packs are not looked into, and points are only read.
    sealer: Option<Arc<Sealer>>,
    packs: HashMap<Id, Vec<Id>>,
    /// In how many packs a blob lies.
    copies: HashMap<Id, usize>,
    /// Acknowledged recovery points, and what they need.
    points: BTreeMap<SnapshotId, HashSet<Id>>,
    /// Recovery points that somebody is forgetting at this moment. One that is copied back under the same name meanwhile
    /// came before it was forgotten as well as after, so nobody can rely on it.
    leaving: Vec<SnapshotId>,
}

/// A recovery point is being forgotten, until this is dropped.
#[must_use]
pub(crate) struct Leaving {
    oracle: Oracle,
    place: usize,
    point: SnapshotId,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        let mut state = self.oracle.lock();
        let leaving = &mut state.places[self.place].leaving;
        if let Some(at) = leaving.iter().position(|point| *point == self.point) {
            leaving.swap_remove(at);
        }
    }
}

impl Oracle {
    /// Watches `world`, whose places have these keys.
    pub(crate) fn watch(world: &SimWorld, sealers: &[Option<Arc<Sealer>>]) -> Self {
        let place = |sealer: &Option<Arc<Sealer>>| Place {
            sealer: sealer.clone(),
            packs: HashMap::new(),
            copies: HashMap::new(),
            points: BTreeMap::new(),
            leaving: Vec::new(),
        };
        let oracle =
            Self(Arc::new(Mutex::new(State { places: sealers.iter().map(place).collect(), losses: Vec::new() })));
        let watching = oracle.clone();
        world.witness(move |place, key, what| {
            let Key::Object(key) = key else { return };
            let mut state = watching.lock();
            let State { places, losses } = &mut *state;
            let here = &mut places[place];
            match (key.kind, what) {
                (ObjectKind::Pack, Witnessed::There(bytes)) => {
                    here.forget(key.id);
                    here.learn(key.id, bytes);
                }
                (ObjectKind::Pack, Witnessed::Gone) => {
                    let lost = here.forget(key.id);
                    for (point, needs) in &here.points {
                        if let Some(blob) = lost.iter().find(|blob| needs.contains(*blob)) {
                            losses.push(format!(
                                "place {place}: pack {} went, and with it blob {} of the recovery point {}",
                                short(key.id),
                                short(*blob),
                                short(point.0)
                            ));
                        }
                    }
                }
                (ObjectKind::Snapshot, Witnessed::Gone) if here.points.contains_key(&SnapshotId(key.id)) => {
                    losses.push(format!("place {place}: the recovery point {} went", short(key.id)));
                }
                _ => {}
            }
        });
        oracle
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A recovery point was told to be saved: from now on all it needs must stay. What is missing already is a loss.
    pub(crate) fn acknowledge(&self, world: &SimWorld, place: usize, point: SnapshotId) {
        let needs = truth(world, place).and_then(|repository| needs(&repository, point));
        let mut state = self.lock();
        if state.places[place].leaving.contains(&point) {
            return;
        }
        match needs {
            Err(error) => state.losses.push(format!(
                "place {place}: the recovery point {} was told to be saved and cannot be read: {error:#}",
                short(point.0)
            )),
            Ok(_) if state.places[place].sealer.is_none() => {
                state.places[place].points.insert(point, HashSet::new());
            }
            Ok(needs) => {
                let missing = needs.iter().find(|blob| !state.places[place].copies.contains_key(*blob)).copied();
                if let Some(blob) = missing {
                    state.losses.push(format!(
                        "place {place}: the recovery point {} was told to be saved without its blob {}",
                        short(point.0),
                        short(blob)
                    ));
                }
                state.places[place].points.insert(point, needs);
            }
        }
    }

    /// Takes over the acknowledged points of another world, from which this one's places were filled.
    pub(crate) fn adopt(&self, other: &Self) {
        let points: Vec<_> = other.lock().places.iter().map(|place| place.points.clone()).collect();
        for (place, points) in self.lock().places.iter_mut().zip(points) {
            place.points = points;
        }
    }

    /// A recovery point is about to be removed on purpose. From here on it may go, whatever the answer is.
    pub(crate) fn release(&self, place: usize, point: SnapshotId) -> Leaving {
        let mut state = self.lock();
        let here = &mut state.places[place];
        here.points.remove(&point);
        here.leaving.push(point);
        Leaving { oracle: self.clone(), place, point }
    }

    /// Acknowledged recovery points of a place.
    pub(crate) fn points(&self, place: usize) -> Vec<SnapshotId> {
        self.lock().places[place].points.keys().copied().collect()
    }

    /// What was lost so far.
    pub(crate) fn losses(&self) -> Vec<String> {
        self.lock().losses.clone()
    }

    /// Everything that acknowledged recovery points need is in index files, without looking into packs.
    pub(crate) fn is_indexed(&self, world: &SimWorld, place: usize) -> Result<()> {
        let index = truth(world, place)?.load_index()?;
        let is_known = |id: &Id| index.find(TreeId(*id)).is_some() || index.find(BlobId(*id)).is_some();
        for (point, needs) in &self.lock().places[place].points {
            if let Some(blob) = needs.iter().find(|id| !is_known(id)) {
                bail!(
                    "place {place}: blob {} of the recovery point {} is in no index file",
                    short(*blob),
                    short(point.0)
                );
            }
        }
        Ok(())
    }

    /// Every acknowledged recovery point of a place is listed and reads whole.
    pub(crate) fn read_all(&self, world: &SimWorld, place: usize) -> Result<()> {
        let points = self.points(place);
        let repository = truth(world, place)?;
        let mut damaged = Vec::new();
        let listed: BTreeSet<_> = repository
            .snapshots(|id, error| damaged.push(format!("{}: {}", short(id.0), error.chain())))?
            .into_iter()
            .map(|snapshot| snapshot.id)
            .collect();
        if let Some(point) = points.iter().find(|point| !listed.contains(point)) {
            bail!("place {place}: the recovery point {} is not listed; damaged: {damaged:?}", short(point.0));
        }
        let reader = repository.reader()?;
        for point in points {
            let root = repository.snapshot(point)?.file.tree;
            read_tree(&reader, root, &mut HashSet::new())
                .with_context(|| format!("place {place}: read the recovery point {}", short(point.0)))?;
        }
        Ok(())
    }
}

impl Place {
    fn learn(&mut self, pack: Id, bytes: &[u8]) {
        // What is torn holds nothing.
        let Some(sealer) = &self.sealer else { return };
        let entries = entries_of(bytes, sealer).unwrap_or_default();
        let blobs: Vec<Id> = entries.iter().map(|blob| blob.id).collect();
        for blob in &blobs {
            *self.copies.entry(*blob).or_default() += 1;
        }
        self.packs.insert(pack, blobs);
    }

    /// The blobs that are nowhere any more.
    fn forget(&mut self, pack: Id) -> Vec<Id> {
        let mut lost = Vec::new();
        for blob in self.packs.remove(&pack).unwrap_or_default() {
            let Some(copies) = self.copies.get_mut(&blob) else { continue };
            *copies -= 1;
            if *copies == 0 {
                self.copies.remove(&blob);
                lost.push(blob);
            }
        }
        lost
    }
}

/// The repository in a place as it is, without turns and troubles.
pub(crate) fn truth(world: &SimWorld, place: usize) -> Result<Repository> {
    Ok(Repository::open(Arc::new(world.truth(place)), super::base::password()?, OpenOptions::default())?)
}

/// What a pack says is in it.
pub(crate) fn entries_of(pack: &[u8], sealer: &Sealer) -> Result<Vec<IndexBlob>> {
    let trailer = *pack.last_chunk::<4>().context("no trailer")?;
    let (at, length) = locate_header(pack.len() as u64, trailer)?;
    let mut header = pack.get(at as usize..at as usize + length as usize).context("no header")?.to_vec();
    Ok(parse_header(sealer.open_in_place(&mut header)?, pack.len() as u64)?)
}

/// Everything a recovery point refers to.
fn needs(repository: &Repository, point: SnapshotId) -> Result<HashSet<Id>> {
    let reader = repository.reader()?;
    let mut found = HashSet::new();
    let mut open = vec![repository.snapshot(point)?.file.tree];
    while let Some(tree) = open.pop() {
        if !found.insert(tree.0) {
            continue;
        }
        for node in reader.tree(tree)? {
            open.extend(node.subtree);
            found.extend(node.content.iter().flatten().map(|blob| blob.0));
        }
    }
    Ok(found)
}

fn read_tree(reader: &BlobReader, tree: TreeId, seen: &mut HashSet<Id>) -> Result<()> {
    if !seen.insert(tree.0) {
        return Ok(());
    }
    for node in reader.tree(tree)? {
        for blob in node.content.iter().flatten() {
            if seen.insert(blob.0) {
                reader.data(*blob)?;
            }
        }
        if let Some(below) = node.subtree {
            read_tree(reader, below, seen)?;
        }
    }
    Ok(())
}

/// The first digits of an id.
pub(crate) fn short(id: Id) -> String {
    id.to_string()[..8].to_owned()
}
