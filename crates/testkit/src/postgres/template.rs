//! The data folder that new servers are copied from: made once for each version and kept, as copying it takes a tenth
//! of the time.

use super::{PASSWORD, SETTINGS, SUPERUSER, Version, finish, user};
use rustix::fs::{FlockOperation, flock};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Makes `data` a fresh data folder of the version.
#[track_caller]
pub(super) fn copy_to(version: Version, data: &Path) {
    let template = make(version);
    finish(Command::new("cp").args(["-a", "--reflink=auto", "--sparse=always", "--"]).arg(template).arg(data), None);
}

/// The template's folder, made when missing. Tests in other processes wait meanwhile.
#[track_caller]
fn make(version: Version) -> PathBuf {
    let said = finish(user::command(&version.bin("postgres")).arg("--version"), None).stdout;
    let said: String =
        String::from_utf8_lossy(&said).chars().filter(|c| c.is_ascii_alphanumeric() || *c == '.').collect();
    let owner = user::unprivileged().map_or(rustix::process::geteuid().as_raw(), |(uid, _)| uid);
    let parent = crate::tools::folder().with_file_name("postgresql-templates");
    fs_err::create_dir_all(&parent).unwrap();
    // One that was made with other settings is not taken.
    let mut settings = DefaultHasher::new();
    SETTINGS.hash(&mut settings);
    let template = parent.join(format!("{said}-{owner}-{:x}", settings.finish()));
    let lock = fs_err::File::create(parent.join("lock")).unwrap();
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    if !template.is_dir() {
        let scratch = tempfile::tempdir().unwrap();
        user::give(scratch.path());
        let (fresh, password) = (scratch.path().join("data"), scratch.path().join("password"));
        fs_err::write(&password, PASSWORD).unwrap();
        user::give(&password);
        let mut initdb = user::command(&version.bin("initdb"));
        initdb.args(["--no-sync", "--encoding=UTF8", "--locale=C.UTF-8", "--auth-local=trust"]);
        initdb.args(["--auth-host=scram-sha-256", "--username", SUPERUSER, "--pwfile"]).arg(password);
        finish(initdb.arg("--pgdata").arg(&fresh), None);
        append_settings(&fresh, &SETTINGS);
        // The target folder may be on another file system than the temporary one; its last step is atomic.
        let beside = template.with_extension("new");
        let _ = fs_err::remove_dir_all(&beside);
        finish(Command::new("cp").args(["-a", "--"]).arg(&fresh).arg(&beside), None);
        fs_err::rename(&beside, &template).unwrap();
    }
    template
}

/// Adds settings to a data folder's configuration; the last one of a name holds.
#[track_caller]
pub(super) fn append_settings(data: &Path, settings: &[(&str, &str)]) {
    let mut file = fs_err::OpenOptions::new().append(true).open(data.join("postgresql.conf")).unwrap();
    for (name, value) in settings {
        let value = value.replace('\\', "\\\\").replace('\'', "''");
        writeln!(file, "{name} = '{value}'").unwrap();
    }
}
