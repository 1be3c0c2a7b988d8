//! Where a restore goes: whether that place can be used at all, asked before anything is changed, and how paths in the
//! recovery point become paths there.

use super::select::Root;
use super::{Destination, RestoreRequest, without_source};
use crate::prove::files::split;
use lastgood_model::node::display_path;
use lastgood_model::{Context, Error, ErrorKind, NodeKind, Result};
use lastgood_sources::files::keeps_nothing;
use lastgood_sources::files::target::{Target, TargetOptions, TreeView};
use rustix::fs::Access;
use rustix::io::Errno;
use std::ffi::OsStr;
use std::io::ErrorKind as Io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The directory that the writer of a root opens, and what of its paths lies below that.
#[derive(Debug)]
pub(super) struct Base {
    folder: PathBuf,
    skip: usize,
}

impl Base {
    /// That of a root which is not swapped in.
    pub(super) fn of(root: &Root, to: &Destination) -> Self {
        match to {
            Destination::Folder(folder) => Self { folder: folder.clone(), skip: 0 },
            Destination::InPlace => {
                let (above, name) = split(without_source(&root.path));
                let folder = PathBuf::from(OsStr::from_bytes(&[b"/", above].concat()));
                Self { folder, skip: root.path.len() - name.len() }
            }
        }
    }

    /// The directory itself.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// What is there now; `None` when nothing is.
    pub(super) fn view(&self) -> Result<Option<TreeView>> {
        TreeView::open(&self.folder)
    }

    /// A path of the recovery point at or below the root, as one below the directory.
    pub(super) fn below<'p>(&self, path: &'p [u8]) -> &'p [u8] {
        path.get(self.skip..).unwrap_or_default()
    }

    /// A path below the directory with the directory's own in front.
    pub(super) fn full(&self, below: &[u8]) -> Vec<u8> {
        let folder = self.folder.as_os_str().as_bytes();
        match (folder.ends_with(b"/"), below.is_empty()) {
            (_, true) => folder.to_vec(),
            (true, false) => [folder, below].concat(),
            (false, false) => [folder, b"/", below].concat(),
        }
    }
}

/// Looks whether a restore can go where it is to go. When only the plan is wanted and the place cannot be written to, that
/// comes back in words.
///
/// # Errors
/// [`ErrorKind::Conflict`] for a place that can be none, [`ErrorKind::Denied`] for one that nobody may write to.
pub(super) fn judge(roots: &[Root], request: &RestoreRequest, repository: &str) -> Result<Option<String>> {
    let mut obstacle = None;
    let mut require_usable = |folder: &Path| match require_usable(folder) {
        Err(error) if request.dry_run && error.kind() == ErrorKind::Denied => {
            obstacle.get_or_insert_with(|| error.chain());
            Ok(())
        }
        // One that is there is not asked for leave to write: what is the same in it needs none.
        Ok(()) if request.dry_run && rustix::fs::access(folder, Access::WRITE_OK) == Err(Errno::ROFS) => {
            let shown = display_path(folder.as_os_str().as_bytes());
            obstacle.get_or_insert_with(|| format!("{shown} is on a read-only file system"));
            Ok(())
        }
        usable => usable,
    };
    match &request.to {
        Destination::Folder(folder) => {
            require_usable(folder)?;
            refuse_repository(folder, repository)?;
        }
        Destination::InPlace => {
            for root in roots {
                let file = root.origin_file().filter(|_| root.is_swap(&request.to));
                let folder = file.as_deref().map(|file| file.parent().unwrap_or(Path::new("/")));
                require_usable(folder.unwrap_or(Base::of(root, &request.to).folder()))?;
            }
        }
    }
    refuse_links(roots, &request.to)?;
    Ok(obstacle)
}

/// What is restored is not sealed; it must not lie among what is.
fn refuse_repository(folder: &Path, location: &str) -> Result<()> {
    let absolute = std::path::absolute(folder).with_context(|| format!("find {}", folder.display()))?;
    let known = absolute.ancestors().find_map(|a| fs_err::canonicalize(a).ok()).unwrap_or_default();
    let repository = fs_err::canonicalize(location).unwrap_or_else(|_| PathBuf::from(location));
    if absolute.starts_with(&repository) || known.starts_with(&repository) {
        return Err(Error::new(ErrorKind::Conflict, format!("{} lies in the repository itself", folder.display()))
            .with_hint("choose a folder outside of it: what is restored is not encrypted"));
    }
    Ok(())
}

/// Refuses a link where a folder of the recovery point goes: a restore would put a folder in its place, and what it leads
/// to would be cut off from whoever looks for it there.
///
/// # Errors
/// [`ErrorKind::Conflict`].
fn refuse_links(roots: &[Root], to: &Destination) -> Result<()> {
    for root in roots.iter().filter(|root| !root.is_swap(to)) {
        let base = Base::of(root, to);
        let below = base.below(&root.path);
        let ends = below.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        let itself = (root.node.kind == NodeKind::Dir).then_some(below.len());
        for end in ends.chain(itself) {
            let place = PathBuf::from(OsStr::from_bytes(&base.full(&below[..end])));
            if !fs_err::symlink_metadata(&place).is_ok_and(|meta| meta.is_symlink()) {
                continue;
            }
            let shown = display_path(place.as_os_str().as_bytes());
            let leads = fs_err::read_link(&place).map(|to| display_path(to.as_os_str().as_bytes()));
            return Err(Error::new(
                ErrorKind::Conflict,
                format!(
                    "{shown} is a link (to {}) where the recovery point has a folder; a restore neither follows nor \
                     replaces it",
                    leads.unwrap_or_else(|_| "somewhere".to_owned())
                ),
            )
            .with_hint(
                "nothing was changed; take the link away to have a folder made there, or restore to another place with \
                 --to FOLDER and move what is there",
            ));
        }
    }
    Ok(())
}

/// Refuses a folder that is none and cannot become one.
///
/// # Errors
/// [`ErrorKind::Conflict`], or [`ErrorKind::Denied`] where the system would not let it be made.
fn require_usable(folder: &Path) -> Result<()> {
    let shown = |path: &Path| display_path(path.as_os_str().as_bytes());
    let refuse = |why: String| {
        Error::new(ErrorKind::Conflict, format!("{} cannot be restored to", shown(folder)))
            .with_source(why)
            .with_hint("choose another folder; nothing was changed")
    };
    if folder.as_os_str().is_empty() {
        return Err(Error::invalid("the folder to restore to is empty").with_hint("name one with --to DIR"));
    }
    let absolute = std::path::absolute(folder).with_context(|| format!("find {}", shown(folder)))?;
    for place in absolute.ancestors() {
        match fs_err::metadata(place) {
            Ok(meta) if meta.is_dir() && keeps_nothing(place) => {
                return Err(refuse(format!("{} only shows the state of the system", shown(place))));
            }
            Ok(meta) if meta.is_dir() => {
                if place == absolute {
                    return Ok(());
                }
                let access = rustix::fs::access(place, Access::WRITE_OK | Access::EXEC_OK);
                return access.map_err(|e| Error::io(format!("make a folder in {}", shown(place)), e.into()));
            }
            Ok(_) => return Err(refuse(format!("{} is not a folder", shown(place)))),
            Err(error) => match error.kind() {
                Io::NotFound if fs_err::symlink_metadata(place).is_ok() => {
                    return Err(refuse(format!("{} is a link that leads nowhere", shown(place))));
                }
                Io::NotFound | Io::NotADirectory => {}
                Io::PermissionDenied => return Err(Error::io(format!("look at {}", shown(place)), error)),
                _ => return Err(refuse(error.to_string())),
            },
        }
    }
    Ok(())
}

/// Opens a folder to restore into as the first thing that changes anything.
///
/// # Errors
/// [`ErrorKind::Conflict`] when it cannot be made, and what the system said, when that can be told apart.
pub(super) fn open(folder: &Path, options: TargetOptions) -> Result<Target> {
    Target::open(folder, options).map_err(|error| match error.kind() {
        ErrorKind::Denied | ErrorKind::NoSpace | ErrorKind::Conflict | ErrorKind::Retry => error,
        _ => Error::new(
            ErrorKind::Conflict,
            format!("{} cannot be restored to", display_path(folder.as_os_str().as_bytes())),
        )
        .with_source(error.chain())
        .with_hint("choose another folder; nothing was restored"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_can_be_no_folder_is_refused_and_nothing_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs_err::write(at("file"), "x").unwrap();
        std::os::unix::fs::symlink("nowhere", at("link")).unwrap();
        assert_eq!(require_usable(Path::new("/proc/lastgood-test")).unwrap_err().kind(), ErrorKind::Conflict);
        let long = "n".repeat(300);
        for bad in ["file", "file/below/it", "link", "link/x", &long] {
            assert_eq!(require_usable(&at(bad)).unwrap_err().kind(), ErrorKind::Conflict, "{bad}");
        }
        for good in ["", "new", "new/below/it"] {
            require_usable(&at(good)).unwrap();
        }
        assert_eq!(fs_err::read_dir(dir.path()).unwrap().count(), 2);
        assert_eq!(require_usable(Path::new("")).unwrap_err().kind(), ErrorKind::Invalid);
        // What only trying tells.
        let refused = open(Path::new("/proc/lastgood-test"), TargetOptions::default()).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Conflict, "{refused:?}");
    }
}
