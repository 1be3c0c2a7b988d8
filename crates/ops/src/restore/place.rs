//! Where a restore goes: whether that place can be used at all, asked before anything is changed, and how paths in the
//! recovery point become paths there.

use super::select::Root;
use super::{Destination, without_source};
use crate::prove::files::split;
use lastgood_model::node::display_path;
use lastgood_model::{Context, Error, ErrorKind, Result};
use lastgood_sources::files::target::{Target, TargetOptions, TreeView};
use rustix::fs::Access;
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

/// Refuses a folder that is none and cannot become one.
///
/// # Errors
/// [`ErrorKind::Conflict`], or [`ErrorKind::Denied`] where the system would not let it be made.
pub(super) fn require_usable(folder: &Path) -> Result<()> {
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
