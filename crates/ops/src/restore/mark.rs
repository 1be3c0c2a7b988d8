//! The mark of a restore under way: a file in the target folder that says which recovery point is being restored there.
//! It is removed at the end; found at a beginning it means that the restore was interrupted and may be taken up again.

use super::select::Root;
use lastgood_model::{Context, Error, ErrorKind, Result, SnapshotId};
use std::collections::BTreeSet;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

const NAME: &str = ".lastgood-restore";

/// A mark that was set.
pub(super) struct Mark {
    path: PathBuf,
}

impl Mark {
    pub(super) fn set(folder: &Path, snapshot: SnapshotId) -> Result<Self> {
        let path = folder.join(NAME);
        // Whole or not there: a torn mark would be taken for that of another recovery point.
        let unnamed = folder.join(format!("{NAME}.{}", std::process::id()));
        // Never through a link that somebody has put there, or that an interrupted restore has.
        match fs_err::remove_file(&unnamed) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).context("mark restore as begun");
            }
            _ => {}
        }
        let file = fs_err::OpenOptions::new().write(true).create_new(true).open(&unnamed);
        let written = file.and_then(|mut file| file.write_all(format!("{snapshot}\n").as_bytes()));
        written.context("mark restore as begun")?;
        fs_err::rename(&unnamed, &path).context("mark restore as begun")?;
        Ok(Self { path })
    }

    pub(super) fn clear(self) -> Result<()> {
        // What runs left behind that were killed while they set the mark.
        let folder = self.path.parent().unwrap_or(Path::new("."));
        for entry in fs_err::read_dir(folder).context("mark restore as ended")?.flatten() {
            let name = entry.file_name();
            let number = name.as_bytes().strip_prefix(format!("{NAME}.").as_bytes());
            if number.is_some_and(|n| !n.is_empty() && n.iter().all(u8::is_ascii_digit)) {
                fs_err::remove_file(entry.path()).context("mark restore as ended")?;
            }
        }
        fs_err::remove_file(&self.path).context("mark restore as ended")
    }
}

/// Whether `folder` may be restored into; true when that takes up an interrupted restore of the same point.
pub(super) fn may_begin(folder: &Path, snapshot: SnapshotId, roots: &[Root], overwrite: bool) -> Result<bool> {
    let path = folder.join(NAME);
    match fs_err::read_to_string(&path) {
        Ok(text) if text.trim() == snapshot.to_string() => return Ok(true),
        Ok(_) if overwrite => return Ok(false),
        Ok(text) => {
            return Err(Error::new(
                ErrorKind::Conflict,
                format!(
                    "{} holds an interrupted restore of another recovery point ({})",
                    folder.display(),
                    text.trim().get(..8).unwrap_or("unknown")
                ),
            )
            .with_hint("finish that one by repeating its command, or choose another folder"));
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).context("look for an interrupted restore"),
    }
    if overwrite {
        return Ok(false);
    }
    let tops: BTreeSet<&[u8]> = roots.iter().filter_map(|r| r.path.split(|b| *b == b'/').next()).collect();
    for top in tops {
        let place = folder.join(std::ffi::OsStr::from_bytes(top));
        if is_occupied(&place)? {
            return Err(conflict(&place.display().to_string()));
        }
    }
    Ok(false)
}

fn conflict(path: &str) -> Error {
    Error::new(ErrorKind::Conflict, format!("{path} exists already and is not empty"))
        .with_hint("choose another folder, or say --overwrite to have what differs overwritten")
}

/// Reads a directory's names; `None` when there is no such directory.
fn is_occupied(path: &Path) -> Result<bool> {
    match fs_err::symlink_metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("look at {}", path.display())),
        Ok(meta) if meta.is_dir() => {
            Ok(fs_err::read_dir(path).with_context(|| format!("look into {}", path.display()))?.next().is_some())
        }
        Ok(_) => Ok(true),
    }
}
