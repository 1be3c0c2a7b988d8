//! The configured paths: which may stand together, and how a capture of one begins.
//!
//! A configured path means what it leads to: a link as its last component is followed, to a directory or a file, and what
//! is there is kept under the configured name. A link kept as such would protect nothing. Links *inside* a tree are kept
//! as links.

use super::dir::{Alias, Dir, node_at};
use super::place::Place;
use super::scope::{Scope, key};
use super::{database, open};
use lastgood_model::node::display_path;
use lastgood_model::source::Entry;
use lastgood_model::{Context, Error, ErrorKind, Monitor, Node, NodeKind, Result};
use rustix::fs::{AtFlags, CWD, FileType, fstat, statat};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// Makes `paths` absolute and plain, drops repetitions, and refuses those that cannot be kept side by side.
pub(super) fn settle(paths: Vec<PathBuf>) -> Result<Vec<PathBuf>> {
    if paths.is_empty() {
        return Err(Error::invalid("a files source needs at least one path"));
    }
    let mut settled: Vec<PathBuf> = Vec::with_capacity(paths.len());
    for path in paths {
        let shown = display_path(path.as_os_str().as_bytes());
        let path = std::path::absolute(&path).with_context(|| format!("make path absolute: {shown:?}"))?;
        if path.components().any(|c| c == Component::ParentDir) || path.as_os_str().as_bytes().contains(&0) {
            // Taking `..` away by text alone would mean another place when a link is before it.
            return Err(Error::invalid(format!("path {shown} leads upwards")).with_hint("write it without `..`"));
        }
        // Without a slash at its end.
        settled.push(path.components().collect());
    }
    settled.sort();
    settled.dedup();
    for outer in &settled {
        if let Some(inner) = settled.iter().find(|inner| *inner != outer && inner.starts_with(outer)) {
            let (outer, inner) = (display(outer), display(inner));
            return Err(Error::invalid(format!("path {inner} is already part of {outer}"))
                .with_hint("remove the inner one, or make it a source of its own"));
        }
    }
    Ok(settled)
}

/// A configured path, open.
pub(super) enum Root {
    /// A directory with all below it.
    Tree {
        /// Its own metadata.
        node: Node,
        /// Itself.
        dir: Dir,
    },
    /// A single file.
    Single {
        /// It, as an entry of `dir`.
        entry: Entry,
        /// The directory it is in.
        dir: Dir,
    },
}

/// Opens what is at the absolute `path`.
pub(super) fn open(path: &Path, scope: &Arc<Scope>, monitor: &Monitor) -> Result<Root> {
    let bytes = path.as_os_str().as_bytes();
    let mut node = node_at(bytes, scope, monitor).map_err(|error| match error.kind() {
        ErrorKind::Absent => error
            .with_hint("is its disk mounted? Else correct the path in the config, or remove it if it is gone for good"),
        ErrorKind::Denied => error.with_hint("run as root, or as a user who may read it"),
        _ => error,
    })?;
    if scope.is_never(node.device_id, node.inode) {
        return Err(Error::invalid(format!("{} is the repository or its key", display(path)))
            .with_hint("keep the repository out of what it protects"));
    }
    if node.kind == NodeKind::Dir {
        let fd = open::top(bytes).map_err(|errno| open::failed("open", bytes, errno))?;
        let stat = fstat(&fd).map_err(|errno| open::failed("examine", bytes, errno))?;
        let dir = Dir::top(fd, &stat, (node.device_id, node.inode), Place::top(bytes), Arc::clone(scope));
        return Ok(Root::Tree { node, dir });
    }
    // Entries are opened without following links, so a link at the end of the path is followed here.
    let real = if is_link(bytes) { fs_err::canonicalize(path).context("follow link")? } else { path.to_owned() };
    let (Some(parent), Some(name)) = (real.parent(), real.file_name().map(OsStrExt::as_bytes)) else {
        return Err(Error::invalid(format!("{} is no file in a directory", display(path))));
    };
    let parent = parent.as_os_str().as_bytes();
    let fd = open::anchor(parent).map_err(|errno| open::failed("open", parent, errno))?;
    let stat = fstat(&fd).map_err(|errno| open::failed("examine", parent, errno))?;
    let volatile = node.kind == NodeKind::File
        && database::sides_of(name).any(|side| statat(&fd, side, AtFlags::SYMLINK_NOFOLLOW).is_ok());
    let mut dir = Dir::top(fd, &stat, key(&stat), Place::top(parent), Arc::clone(scope));
    let shown = path.file_name().map_or(name, OsStr::as_bytes);
    node.name = shown.to_owned();
    dir = dir.with_alias(Alias { shown: shown.to_owned(), real: name.to_owned() });
    let volatile = volatile && database::is_one(&dir, name);
    Ok(Root::Single { entry: Entry { node, volatile }, dir })
}

/// The directories above the absolute `path`, outermost first, without the root of the file system.
pub(super) fn parents(path: &Path, scope: &Scope, monitor: &Monitor) -> Result<Vec<Node>> {
    let mut above: Vec<&Path> = path.ancestors().skip(1).filter(|p| p.parent().is_some()).collect();
    above.reverse();
    above.into_iter().map(|p| node_at(p.as_os_str().as_bytes(), scope, monitor)).collect()
}

/// True when the last component of `path` is a symbolic link.
pub(super) fn is_link(path: &[u8]) -> bool {
    statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink)
}

/// A path for people.
pub(super) fn display(path: &Path) -> String {
    display_path(path.as_os_str().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(paths: &[&str]) -> Result<Vec<String>> {
        let settled = settle(paths.iter().map(PathBuf::from).collect())?;
        Ok(settled.iter().map(|p| p.to_str().unwrap().to_owned()).collect())
    }

    #[test]
    fn paths_are_made_plain_and_repetitions_dropped() {
        assert_eq!(check(&["/b/", "/a//c/./d", "/b"]).unwrap(), ["/a/c/d", "/b"]);
        assert_eq!(check(&["/"]).unwrap(), ["/"]);
        assert_eq!(check(&["/ab", "/a"]).unwrap(), ["/a", "/ab"]);
        let here = std::env::current_dir().unwrap();
        assert_eq!(check(&["x"]).unwrap(), [here.join("x").to_str().unwrap()]);
    }

    #[test]
    fn paths_that_lie_in_one_another_or_lead_upwards_are_refused() {
        for (paths, word) in [
            (&["/a/b", "/a"][..], "/a/b"),
            (&["/", "/x"], "/x"),
            (&["/a", "/a b", "/a/c"], "/a/c"),
            (&["/a/../b"], "upwards"),
            (&[], "at least one"),
        ] {
            let error = check(paths).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.message().contains(word), "{}", error.message());
        }
    }
}
