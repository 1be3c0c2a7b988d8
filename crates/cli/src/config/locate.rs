//! Where the config is: `--config`, `$LASTGOOD_CONFIG`, `./lastgood.toml`, the user's, the system's. The first that
//! exists counts; one that was named must exist.

use lastgood_model::node::display_path;
use lastgood_model::{Error, Result};
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The name of a config file.
pub(crate) const FILE_NAME: &str = "lastgood.toml";

/// The config file that counts, or `None` when there is none.
pub(crate) fn locate(flag: Option<&Path>, variable: impl Fn(&str) -> Option<OsString>) -> Result<Option<PathBuf>> {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let named = match flag {
        Some(path) => Some((path.to_owned(), "--config")),
        None => set("LASTGOOD_CONFIG").map(|path| (path, "LASTGOOD_CONFIG")),
    };
    if let Some((path, by)) = named {
        if path.is_file() {
            return Ok(Some(path));
        }
        let shown = display_path(path.as_os_str().as_bytes());
        return Err(Error::invalid(format!("{by} names {shown}, which is not a file"))
            .with_hint("correct the path, or make a config with `lastgood protect PATH`"));
    }
    let user = set("XDG_CONFIG_HOME").or_else(|| set("HOME").map(|home| home.join(".config")));
    let candidates = [
        Some(PathBuf::from(FILE_NAME)),
        user.map(|folder| folder.join("lastgood").join(FILE_NAME)),
        Some(Path::new("/etc/lastgood").join(FILE_NAME)),
    ];
    Ok(candidates.into_iter().flatten().find(|path| path.is_file()))
}
