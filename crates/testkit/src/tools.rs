//! Where the programs of others are that judge what lastgood wrote.
//!
//! Each is looked for in its environment variable first, then among what `cargo xtask setup` installed, then (but for the
//! newest restic) on the search path. A test that needs one and does not find it fails, saying what to do: a test that
//! did not run must not look passed.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The newest restic.
#[track_caller]
pub fn restic() -> PathBuf {
    need("the newest restic", find("LASTGOOD_RESTIC", "restic", None))
}

/// The restic of the distribution, as an older reader; 0.14 is the first that reads repositories of version 2.
#[track_caller]
pub fn restic_old() -> PathBuf {
    need("the distribution's restic", find("LASTGOOD_RESTIC_OLD", "restic-old", Some("restic")))
}

/// rustic, a second implementation of the format by others.
#[track_caller]
pub fn rustic() -> PathBuf {
    need("rustic", find("LASTGOOD_RUSTIC", "rustic", Some("rustic")))
}

/// SQLite's own command line program.
#[track_caller]
pub fn sqlite3() -> PathBuf {
    need("sqlite3", find("LASTGOOD_SQLITE3", "sqlite3", Some("sqlite3")))
}

/// Garage, an object store of several machines.
#[track_caller]
pub fn garage() -> PathBuf {
    need("garage", find("LASTGOOD_GARAGE", "garage", Some("garage")))
}

/// rclone, whose `serve restic` is a server of the REST protocol.
#[track_caller]
pub fn rclone() -> PathBuf {
    need("rclone", find("LASTGOOD_RCLONE", "rclone", Some("rclone")))
}

/// OpenSSH's server, which wants to be started by its whole path and is often on the administrator's search path alone.
#[track_caller]
pub fn sshd() -> PathBuf {
    let found = find("LASTGOOD_SSHD", "sshd", Some("sshd"));
    let found = found.or_else(|| Some(PathBuf::from("/usr/sbin/sshd")).filter(|path| path.is_file()));
    need("OpenSSH's sshd", found)
}

/// The folder with the programs of a major version of PostgreSQL, 15 or 18: server, clients and contrib's.
#[track_caller]
pub fn postgres(major: u32) -> PathBuf {
    let below = format!("lib/postgresql/{major}/bin");
    let installed = folder().with_file_name(format!("postgresql-{major}")).join("usr").join(&below);
    let of_system = Path::new("/usr").join(&below);
    let found = match std::env::var_os(format!("LASTGOOD_POSTGRES_{major}")).filter(|value| !value.is_empty()) {
        Some(chosen) => vec![PathBuf::from(chosen)],
        None => vec![installed, of_system],
    };
    let found = found.into_iter().find(|bin| bin.join("postgres").is_file() && bin.join("initdb").is_file());
    need(&format!("PostgreSQL {major}"), found)
}

/// Azurite's server of blobs, a program of Node.
#[track_caller]
pub fn azurite() -> PathBuf {
    let chosen = std::env::var_os("LASTGOOD_AZURITE").filter(|value| !value.is_empty()).map(PathBuf::from);
    let installed = folder().with_file_name("azurite").join("node_modules/.bin/azurite-blob");
    need("Azurite", chosen.or(Some(installed)).filter(|program| program.is_file()))
}

/// Where `cargo xtask setup` puts programs when nothing else is said.
pub fn folder() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace.join("target"), PathBuf::from);
    target.join("tools/bin")
}

fn find(variable: &str, installed: &str, on_path: Option<&str>) -> Option<PathBuf> {
    find_in(std::env::var_os(variable), &folder().join(installed), on_path, std::env::var_os("PATH"))
}

fn find_in(
    variable: Option<OsString>,
    installed: &Path,
    on_path: Option<&str>,
    path: Option<OsString>,
) -> Option<PathBuf> {
    if let Some(chosen) = variable.filter(|value| !value.is_empty()) {
        // What was chosen is not quietly replaced by something else.
        return Some(PathBuf::from(chosen)).filter(|path| path.is_file());
    }
    let name = on_path.unwrap_or_default();
    let mut candidates = vec![installed.to_owned()];
    if !name.is_empty() {
        candidates.extend(std::env::split_paths(&path.unwrap_or_default()).map(|dir| dir.join(name)));
    }
    candidates.into_iter().find(|path| path.is_file())
}

#[track_caller]
fn need(what: &str, found: Option<PathBuf>) -> PathBuf {
    found.unwrap_or_else(|| panic!("this test needs {what}: run `cargo xtask setup`, or `cargo xtask test` for all"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chosen_program_wins_and_is_never_replaced_by_another() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        fs_err::write(&a, "").unwrap();
        fs_err::write(&b, "").unwrap();
        let path = Some(dir.path().as_os_str().to_owned());
        assert_eq!(find_in(Some(a.clone().into()), &b, None, None), Some(a.clone()));
        assert_eq!(find_in(Some("/nonexistent".into()), &b, Some("a"), path.clone()), None);
        assert_eq!(find_in(None, &b, Some("a"), path.clone()), Some(b));
        assert_eq!(find_in(None, Path::new("/nonexistent"), Some("a"), path.clone()), Some(a));
        assert_eq!(find_in(None, Path::new("/nonexistent"), None, path), None);
    }
}
