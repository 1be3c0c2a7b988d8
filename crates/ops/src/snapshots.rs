//! Finding recovery points.

use lastgood_model::manifest::Manifest;
use lastgood_model::node::is_safe_name;
use lastgood_model::selector::{Candidate, Selector};
use lastgood_model::{BlobId, Context, Error, ErrorKind, Node, Result, SnapshotId};
use lastgood_repo::copy::is_same_point;
use lastgood_repo::format::SnapshotFile;
use lastgood_repo::{BlobReader, Repository, Snapshot};
use std::collections::BTreeSet;

/// The tag that names the application begins so.
pub const APP_TAG: &str = "app:";

/// The application a snapshot belongs to, when lastgood wrote it.
pub fn app_of(file: &SnapshotFile) -> Option<String> {
    file.tags.iter().find_map(|tag| tag.strip_prefix(APP_TAG)).map(str::to_owned)
}

/// Picks one snapshot. `app`, when given, is preferred where the selector names none and the application has points.
///
/// # Errors
/// [`ErrorKind::Absent`] or [`ErrorKind::Invalid`] as [`Selector::pick`] says; [`ErrorKind::Corrupt`] when the one that is
/// meant is damaged, or may be a damaged one.
pub fn pick(repository: &Repository, selector: &Selector, app: Option<&str>) -> Result<Snapshot> {
    let mut damaged: Vec<(SnapshotId, Error)> = Vec::new();
    let snapshots = repository.snapshots(|id, error| damaged.push((id, error)))?;
    let candidates: Vec<Candidate> =
        snapshots.iter().map(|s| Candidate { id: s.id, time: s.file.time, app: app_of(&s.file) }).collect();
    let own: Vec<Candidate> = candidates.iter().filter(|c| app.is_some() && c.app.as_deref() == app).cloned().collect();
    let picked = match selector.names_app() || own.is_empty() {
        true => selector.pick(&candidates),
        false => selector.pick(&own).or_else(|_| selector.pick(&candidates)),
    };
    // Nobody can say when a damaged one was taken: it may be the very one that is meant.
    if let (Some((id, cause)), false) = (damaged.first(), selector.is_id()) {
        return Err(Error::corrupt(format!(
            "which recovery point {:?} is cannot be told, since snapshot {} is damaged: {}",
            selector.text(),
            id.short(),
            cause.chain()
        ))
        .with_hint(format!(
            "name the recovery point by its id; `lastgood snapshots` lists those that can be read. Bring the object \
             snapshots/{id} back from another copy of the repository, or remove it where there is none: then it is no \
             longer in the way"
        )));
    }
    if let Some(prefix) = selector.id_prefix() {
        let mut meant = damaged.iter().filter(|(id, _)| id.to_string().starts_with(prefix));
        match (meant.next(), &picked) {
            (Some((id, cause)), Err(error)) if error.kind() == ErrorKind::Absent => {
                return Err(Error::corrupt(format!("recovery point {} is damaged: {}", id.short(), cause.chain()))
                    .with_hint(format!(
                        "choose another from `lastgood snapshots`; or bring the object snapshots/{id} back from another \
                         copy of the repository"
                    )));
            }
            (Some((id, _)), Ok(other)) => {
                return Err(Error::invalid(format!(
                    "{prefix:?} fits {} and the damaged {}",
                    other.short(),
                    id.short()
                ))
                .with_hint("give more digits of the id"));
            }
            _ => {}
        }
    }
    if let (Some(prefix), Err(_)) = (selector.id_prefix(), &picked) {
        // A copy under another key has another id; the first one's is as good.
        let is_meant = |s: &&Snapshot| s.file.original.is_some_and(|id| id.to_string().starts_with(prefix));
        let mut meant = snapshots.iter().filter(is_meant);
        if let (Some(copy), None) = (meant.next(), meant.next()) {
            return Ok(copy.clone());
        }
    }
    let id = picked.map_err(|error| match damaged.first() {
        Some((id, cause)) if error.kind() == ErrorKind::Absent => {
            error.with_source(Error::corrupt(format!("snapshot {} cannot be read: {}", id.short(), cause.chain())))
        }
        _ => error,
    })?;
    snapshots.into_iter().find(|s| s.id == id).ok_or_else(|| Error::new(ErrorKind::Absent, format!("snapshot {id}")))
}

/// Picks one snapshot among those of several repositories: each point counts once, however many have it, and a prefix may
/// be that of its id in any of them. The snapshot is that of the first repository that has it.
///
/// # Errors
/// As [`pick`], but for damaged snapshots: another repository may have them whole. They go to `damaged`.
pub fn pick_among(
    repositories: &[&Repository],
    selector: &Selector,
    app: Option<&str>,
    mut damaged: impl FnMut(&Repository, SnapshotId, Error),
) -> Result<Snapshot> {
    let mut points: Vec<Snapshot> = Vec::new();
    // Every name that a point has, with its place in `points`.
    let mut names: Vec<(SnapshotId, usize)> = Vec::new();
    for repository in repositories {
        for snapshot in repository.snapshots(|id, error| damaged(repository, id, error))? {
            let place = points.iter().position(|known| is_same_point(known, &snapshot)).unwrap_or(points.len());
            names.extend([Some(snapshot.id), snapshot.file.original].into_iter().flatten().map(|id| (id, place)));
            if place == points.len() {
                points.push(snapshot);
            }
        }
    }
    if let Some(prefix) = selector.id_prefix() {
        let fitting = names.iter().filter(|(id, _)| id.to_string().starts_with(prefix)).map(|(_, place)| *place);
        let fitting: BTreeSet<usize> = fitting.collect();
        if let (1, Some(place)) = (fitting.len(), fitting.first()) {
            return Ok(points.swap_remove(*place));
        }
    }
    let candidates: Vec<Candidate> =
        points.iter().map(|s| Candidate { id: s.id, time: s.file.time, app: app_of(&s.file) }).collect();
    let own: Vec<Candidate> = candidates.iter().filter(|c| app.is_some() && c.app.as_deref() == app).cloned().collect();
    let id = match selector.names_app() || own.is_empty() {
        true => selector.pick(&candidates),
        false => selector.pick(&own).or_else(|_| selector.pick(&candidates)),
    }?;
    points.into_iter().find(|s| s.id == id).ok_or_else(|| Error::new(ErrorKind::Absent, format!("snapshot {id}")))
}

/// True for errors that say something of a recovery point is lost, and nothing of what else may be read.
pub fn is_loss(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Absent | ErrorKind::Io | ErrorKind::Denied)
}

/// The manifest of a snapshot; `None` when another program wrote it.
pub fn manifest(reader: &BlobReader, snapshot: &Snapshot) -> Result<Option<Manifest>> {
    let path = format!("{}/manifest.json", Manifest::FOLDER);
    let Some(node) = find_node(reader, snapshot, path.as_bytes())? else { return Ok(None) };
    let act = || format!("read manifest of {}", snapshot.id.short());
    let json = read_file(reader, &node).with_context(act)?;
    let manifest: Manifest = serde_json::from_slice(&json).with_context(act)?;
    if manifest.schema > Manifest::SCHEMA {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "the manifest of {} has schema {}, newer than this version reads",
                snapshot.id.short(),
                manifest.schema
            ),
        )
        .with_hint("use a newer lastgood, or `restic restore`"));
    }
    // A name becomes a path where things are looked for.
    if let Some(source) = manifest.sources.iter().find(|source| !is_safe_name(source.name.as_bytes())) {
        return Err(Error::corrupt(format!("a source cannot be named {:?}", source.name)).context(act()));
    }
    Ok(Some(manifest))
}

/// The node at a path below the snapshot's root; `None` when there is none.
pub fn find_node(reader: &BlobReader, snapshot: &Snapshot, path: &[u8]) -> Result<Option<Node>> {
    let mut tree = Some(snapshot.file.tree);
    let mut found = None;
    for component in path.split(|b| *b == b'/').filter(|c| !c.is_empty()) {
        let Some(id) = tree else { return Ok(None) };
        let mut nodes = reader.tree(id)?;
        let Ok(position) = nodes.binary_search_by(|n| n.name.as_slice().cmp(component)) else { return Ok(None) };
        let node = nodes.swap_remove(position);
        tree = node.subtree;
        found = Some(node);
    }
    Ok(found)
}

/// The whole content of a small file.
pub fn read_file(reader: &BlobReader, node: &Node) -> Result<Vec<u8>> {
    let mut content = Vec::new();
    for id in content_of(node) {
        content.extend_from_slice(&reader.data(*id)?);
    }
    Ok(content)
}

/// The blobs of a file, none for anything else.
pub fn content_of(node: &Node) -> &[BlobId] {
    node.content.as_deref().unwrap_or_default()
}
