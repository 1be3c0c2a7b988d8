//! Files that were begun when the disk was full.

use super::window::Pending;
use lastgood_model::node::display_path;
use lastgood_model::{Error, ErrorKind};
use lastgood_sources::files::target::Target;
use std::sync::Arc;

/// Incomplete files that a message names.
const TOLD_MAX: usize = 5;

/// On a full disk removes the files of a window that were begun and cannot be completed: they would look whole. The
/// room they took is not lost to whoever has to make some. A restore that is stopped for another reason keeps them,
/// to go on where it was.
pub(super) fn abandon(window: &[Arc<Pending>], target: &Target, error: Error) -> Error {
    if error.kind() != ErrorKind::NoSpace {
        return error;
    }
    let (mut removed, mut stay) = (Vec::new(), Vec::new());
    for file in window {
        match file.abandon(target) {
            Ok(true) => removed.push(file),
            Ok(false) => {}
            Err(_) => stay.push(file),
        }
    }
    let names = |files: &[&Arc<Pending>]| {
        let shown = files.iter().take(TOLD_MAX);
        let mut names: Vec<String> = shown.map(|f| display_path(&f.dir.path_of(&f.node.name))).collect();
        if files.len() > names.len() {
            names.push(format!("and {} more", files.len() - names.len()));
        }
        names.join(", ")
    };
    let mut told = error.hint().map(|hint| format!("{hint}. ")).unwrap_or_default();
    match (removed.is_empty(), told.is_empty()) {
        (true, true) => told.push_str("No file is cut short"),
        (true, false) => told.push_str("No other file is cut short"),
        (false, _) => told.push_str(&format!("Files that were incomplete are removed again: {}", names(&removed))),
    }
    if !stay.is_empty() {
        told.push_str(&format!("; these are INCOMPLETE and could not be removed: {}", names(&stay)));
    }
    error.with_hint(told)
}
