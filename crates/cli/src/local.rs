//! Folders on this machine that are not part of any repository: a cache that may be deleted at any time, and a little
//! state that is better kept.

use std::path::PathBuf;

fn set(name: &str) -> Option<PathBuf> {
    // The XDG rules: a relative path is as good as none.
    std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute())
}

/// `$XDG_CACHE_HOME/lastgood`, `~/.cache/lastgood`, or for root without a home `/var/cache/lastgood`.
pub(crate) fn cache_folder() -> Option<PathBuf> {
    let base = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")));
    base.map(|base| base.join("lastgood")).or_else(|| is_root().then(|| PathBuf::from("/var/cache/lastgood")))
}

/// `$XDG_STATE_HOME/lastgood`, `~/.local/state/lastgood`, or for root without a home `/var/lib/lastgood`.
pub(crate) fn state_folder() -> Option<PathBuf> {
    let base = set("XDG_STATE_HOME").or_else(|| set("HOME").map(|home| home.join(".local/state")));
    base.map(|base| base.join("lastgood")).or_else(|| is_root().then(|| PathBuf::from("/var/lib/lastgood")))
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
