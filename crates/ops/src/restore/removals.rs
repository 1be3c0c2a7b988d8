//! What a restore that removes extra entries would remove: found and told before anything is changed. Carrying out the
//! plan then removes only what is in it, and only where it is still the same, so that what is written meanwhile stays.
//!
//! The repository that is restored from, its key and the like are never removed, wherever they lie: a backup leaves them
//! out of what it captures, so to a recovery point they are extra like anything else.

use super::RestoreRequest;
use super::place::Base;
use super::select::Root;
use crate::prove::files::split;
use lastgood_model::node::display_path;
use lastgood_model::{Error, ErrorKind, Monitor, NodeKind, Result};
use lastgood_repo::BlobReader;
use lastgood_sources::files::target::{Seen, TreeView, ViewDir};
use serde::Serialize;
use std::collections::{HashMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// What is there, within restored folders, and not in the recovery point.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Removals {
    /// Entries that will be removed, with all that is in removed folders.
    pub entries: u64,
    /// Bytes of the files among them.
    pub bytes: u64,
    /// The outermost of them.
    pub items: Vec<Removal>,
    /// Every one of them, folders before what is in them.
    pub paths: Vec<String>,
    /// What the recovery point does not have either and that stays all the same, with the reason.
    pub kept: Vec<Kept>,
    /// Device and inode of the outermost, by their paths.
    #[serde(skip)]
    planned: HashMap<Vec<u8>, (u64, u64)>,
}

/// One entry that will be removed, with everything in it.
#[derive(Clone, Debug, Serialize)]
pub struct Removal {
    /// Where it is.
    pub path: String,
    /// True for a folder.
    pub folder: bool,
    /// How many entries that is, itself included.
    pub entries: u64,
    /// Bytes of the files among them.
    pub bytes: u64,
}

/// One entry that stays.
#[derive(Clone, Debug, Serialize)]
pub struct Kept {
    /// Where it is.
    pub path: String,
    /// Why.
    pub reason: String,
}

const HOLDS_REPOSITORY: &str = "it is or holds a repository or its key, which are never removed";
const HOLDS_MOUNT: &str = "another file system is mounted on or below it";
const CLOSED: &str = "it cannot be looked into";

impl Removals {
    /// True when the plan says that this very entry is to be removed.
    pub(super) fn is_planned(&self, path: &[u8], seen: &Seen) -> bool {
        self.planned.get(path) == Some(&(seen.device_id, seen.inode))
    }
}

/// Looks for what `request` would remove. `spared` are paths that are moved elsewhere before.
///
/// # Errors
/// [`ErrorKind::Conflict`] when a folder that holds the repository is in the way of a file.
pub(super) fn find(
    reader: &BlobReader,
    roots: &[Root],
    request: &RestoreRequest,
    spared: &HashSet<Vec<u8>>,
    monitor: &Monitor,
) -> Result<Removals> {
    let mut search = Search { never: identities(&request.never_remove), spared, monitor, found: Removals::default() };
    for root in roots.iter().filter(|root| !root.is_swap(&request.to)) {
        let base = Base::of(root, &request.to);
        let Some(mut view) = base.view()? else { continue };
        root.for_each(reader, monitor, &mut |walked| {
            let below = base.below(walked.path);
            match (walked.node.kind, walked.node.subtree) {
                (NodeKind::Dir, Some(tree)) => {
                    // What a directory should hold is not known when it cannot be read: nothing in it is too much.
                    let Ok(nodes) = reader.tree(tree) else { return Ok(()) };
                    let names: HashSet<&[u8]> = nodes.iter().map(|n| &n.name[..]).collect();
                    search.directory(&base, &mut view, below, &names)
                }
                (NodeKind::Dir, None) => Ok(()),
                _ => search.in_the_way(&base, &mut view, below),
            }
        })?;
    }
    Ok(search.found)
}

struct Search<'a> {
    never: HashSet<(u64, u64)>,
    spared: &'a HashSet<Vec<u8>>,
    monitor: &'a Monitor,
    found: Removals,
}

/// An entry with all below it, before it is decided what becomes of it.
#[derive(Default)]
struct Survey {
    entries: u64,
    bytes: u64,
    paths: Vec<String>,
    stays: Option<&'static str>,
}

impl Search<'_> {
    fn directory(&mut self, base: &Base, view: &mut TreeView, path: &[u8], names: &HashSet<&[u8]>) -> Result<()> {
        let listed = view.dir(path).and_then(|dir| match dir {
            Some(dir) => dir.names().map(|names| Some((dir, names))),
            None => Ok(None),
        });
        let (dir, there) = match listed {
            Ok(Some(found)) => found,
            Ok(None) => return Ok(()),
            Err(_) => {
                self.keep(&base.full(path), CLOSED);
                return Ok(());
            }
        };
        for name in there.iter().filter(|name| !names.contains(&name[..])) {
            let below = join(path, name);
            let full = base.full(&below);
            let Some(seen) = dir.look(name)? else { continue };
            if self.spared.contains(&full) {
                continue;
            }
            let survey = self.survey(base, view, &dir, &below, &seen)?;
            match survey.stays {
                Some(reason) => self.keep(&full, reason),
                None => {
                    self.found.planned.insert(full.clone(), (seen.device_id, seen.inode));
                    self.take(&full, &seen, survey);
                }
            }
        }
        Ok(())
    }

    /// A directory with content that is where the recovery point has something else goes, too.
    fn in_the_way(&mut self, base: &Base, view: &mut TreeView, path: &[u8]) -> Result<()> {
        let (above, name) = split(path);
        let Ok(Some(dir)) = view.dir(above) else { return Ok(()) };
        let Some(seen) = dir.look(name)?.filter(|seen| seen.kind == NodeKind::Dir) else { return Ok(()) };
        let survey = self.survey(base, view, &dir, path, &seen)?;
        let full = base.full(path);
        if let Some(reason) = survey.stays {
            let message = format!("{} is in the way of what the recovery point has there", display_path(&full));
            return Err(Error::new(ErrorKind::Conflict, message)
                .with_source(reason)
                .with_hint("move it elsewhere first, or restore with --to FOLDER"));
        }
        self.take(&full, &seen, survey);
        Ok(())
    }

    fn survey(&self, base: &Base, view: &mut TreeView, parent: &ViewDir, top: &[u8], seen: &Seen) -> Result<Survey> {
        let home = parent.seen()?.device_id;
        let mut survey = Survey::default();
        let mut pending = vec![(top.to_vec(), *seen)];
        while let Some((path, seen)) = pending.pop() {
            self.monitor.check_cancelled()?;
            let full = base.full(&path);
            if self.never.contains(&(seen.device_id, seen.inode)) {
                survey.stays = Some(HOLDS_REPOSITORY);
                break;
            }
            if seen.device_id != home {
                survey.stays = Some(HOLDS_MOUNT);
                break;
            }
            survey.entries += 1;
            survey.paths.push(display_path(&full));
            if seen.kind == NodeKind::File {
                survey.bytes = survey.bytes.saturating_add(seen.size);
            }
            if seen.kind != NodeKind::Dir {
                continue;
            }
            let listed = view.dir(&path).and_then(|dir| match dir {
                Some(dir) => dir.names().map(|names| Some((dir, names))),
                None => Ok(None),
            });
            match listed {
                Ok(None) => {}
                Ok(Some((dir, names))) => {
                    for name in names.iter().rev() {
                        if let Some(seen) = dir.look(name)? {
                            pending.push((join(&path, name), seen));
                        }
                    }
                }
                // It may hold anything.
                Err(_) => {
                    survey.stays = Some(CLOSED);
                    break;
                }
            }
        }
        Ok(survey)
    }

    fn take(&mut self, full: &[u8], seen: &Seen, survey: Survey) {
        self.found.entries += survey.entries;
        self.found.bytes = self.found.bytes.saturating_add(survey.bytes);
        self.found.paths.extend(survey.paths);
        self.found.items.push(Removal {
            path: display_path(full),
            folder: seen.kind == NodeKind::Dir,
            entries: survey.entries,
            bytes: survey.bytes,
        });
    }

    fn keep(&mut self, full: &[u8], reason: &str) {
        self.found.kept.push(Kept { path: display_path(full), reason: reason.to_owned() });
    }
}

fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    if path.is_empty() { name.to_vec() } else { [path, b"/", name].concat() }
}

/// Devices and inodes of what is at these places, and of links to it there.
fn identities(paths: &[PathBuf]) -> HashSet<(u64, u64)> {
    let seen = paths.iter().flat_map(|path| [fs_err::metadata(path), fs_err::symlink_metadata(path)]);
    seen.flatten().map(|meta| (meta.dev(), meta.ino())).collect()
}
