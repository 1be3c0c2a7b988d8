//! Complete PostgreSQL installations of the versions that tests run against: servers, clients and contrib.
//!
//! One that the machine has is taken as it is. Otherwise Debian's packages are unpacked, with every library they need
//! and the C library itself, into `target/tools/postgresql-N`. So nothing of the system is touched, no package starts a
//! server, and neither root nor a system as new as the packages is needed. Each program gets a few lines of shell as
//! its starter, which runs it through the C library's own loader with those libraries; a variable like
//! `LD_LIBRARY_PATH` would be inherited by the machine's own programs that a server starts. PostgreSQL looks for its
//! files and its other programs relative to its own name, so that name is the starter's, and folders lie to one another
//! as in the packages.

use super::debian::Suite;
use crate::shell::first_line;
use anyhow::{Context, Result, bail};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// A version, and the suites of Debian that carry it, the steadiest first.
pub(super) struct Version {
    major: u32,
    suites: &'static [&'static str],
}

/// Debian 12's. Its suite will one day leave the mirrors.
pub(super) const V15: Version = Version { major: 15, suites: &["bookworm"] };
/// The newest that is released. Debian replaces it by its successor some day.
pub(super) const V18: Version = Version { major: 18, suites: &["testing", "sid"] };

/// Programs that are looked for, and tried, before an installation counts as complete.
const PROGRAMS: [&str; 9] =
    ["postgres", "initdb", "pg_ctl", "psql", "pg_dump", "pg_dumpall", "pg_restore", "pg_basebackup", "pgbench"];

/// The folder with the programs of a version: the machine's own or one below `tools`, which is made when missing.
pub(super) fn install(version: &Version, tools: &Path, refresh: bool) -> Result<PathBuf> {
    let major = version.major;
    let of_machine = PathBuf::from(format!("/usr/lib/postgresql/{major}/bin"));
    if is_complete(&of_machine, major) {
        return Ok(of_machine);
    }
    let folder = tools.join(format!("postgresql-{major}"));
    let bin = folder.join(below_root(major)).join("bin");
    if !refresh && is_complete(&bin, major) {
        return Ok(bin);
    }
    let mut failures = Vec::new();
    for suite in version.suites {
        eprintln!("fetching PostgreSQL {major} from Debian {suite}");
        match fetch(major, suite, tools, &folder) {
            Ok(()) => {
                eprintln!("installed {}", first_line(bin.join("postgres"), &["--version"]).unwrap_or_default());
                return Ok(bin);
            }
            Err(error) => failures.push(format!("{suite}: {error:#}")),
        }
    }
    bail!(
        "no suite gave PostgreSQL {major}; install it by other means and set LASTGOOD_POSTGRES_{major} to the folder of \
         its programs\n{}",
        failures.join("\n")
    )
}

/// Whether all programs are in the folder, run, and are of that version.
pub(super) fn is_complete(bin: &Path, major: u32) -> bool {
    PROGRAMS.iter().all(|program| {
        let version = first_line(bin.join(program), &["--version"]).unwrap_or_default();
        version.contains(&format!("(PostgreSQL) {major}."))
    })
}

/// Where Debian's packages keep a version; the path counts, as PostgreSQL derives those of other files from it.
fn below_root(major: u32) -> PathBuf {
    PathBuf::from(format!("usr/lib/postgresql/{major}"))
}

/// Makes `folder` anew from the packages of a suite.
fn fetch(major: u32, suite: &str, tools: &Path, folder: &Path) -> Result<()> {
    let suite = Suite::open(suite, tools)?;
    let packages: Vec<String> = suite
        .closure(&format!("postgresql-{major}"))?
        .into_iter()
        .filter(|package| is_wanted(package, major))
        .collect();
    let root = suite.unpack(&packages)?;
    // Made elsewhere and then put in place, so that a folder that was begun and not finished is never taken.
    let fresh = root.join("fresh");
    let inside = fresh.join(below_root(major));
    fs_err::create_dir_all(&inside)?;
    fs_err::create_dir_all(fresh.join("usr/share/postgresql"))?;
    fs_err::create_dir(fresh.join("lib"))?;
    fs_err::rename(root.join(below_root(major)).join("lib"), inside.join("lib"))?;
    fs_err::rename(root.join(below_root(major)).join("bin"), inside.join("programs"))?;
    // The compiler for queries. Without its module a server does not look for its library, which is as large as all
    // else.
    let _ = fs_err::remove_file(inside.join("lib/llvmjit.so"));
    let _ = fs_err::remove_dir_all(inside.join("lib/bitcode"));
    let share = format!("usr/share/postgresql/{major}");
    fs_err::rename(root.join(&share), fresh.join(&share))?;
    let loader = gather_libraries(&root, &fresh.join("lib"))?;
    fs_err::create_dir(inside.join("bin"))?;
    for program in fs_err::read_dir(inside.join("programs"))? {
        let name = program?.file_name().into_string().ok().context("a program's name is not text")?;
        write_starter(&inside.join("bin").join(&name), &name, &loader)?;
    }
    if !is_complete(&inside.join("bin"), major) {
        bail!("the unpacked programs do not run");
    }
    // Servers run as another user than root.
    fs_err::set_permissions(&fresh, PermissionsExt::from_mode(0o755))?;
    if folder.exists() {
        fs_err::remove_dir_all(folder)?;
    }
    fs_err::rename(&fresh, folder).context("put PostgreSQL in its place")
}

/// PostgreSQL and libraries, but for those of Perl and of a compiler for queries. What else its packages need is for a
/// system that they are installed in.
fn is_wanted(package: &str, major: u32) -> bool {
    let is_library = package.starts_with("lib") || package == "zlib1g";
    let is_left_out = ["perl", "libllvm", "libz3"].iter().any(|name| package.contains(name));
    let is_server = package == format!("postgresql-{major}") || package == format!("postgresql-client-{major}");
    (is_library && !is_left_out) || is_server
}

/// Moves the shared libraries of unpacked packages, whether or not their `/lib` is within `/usr`, into one folder;
/// gives back the file name of the loader among them.
fn gather_libraries(root: &Path, target: &Path) -> Result<String> {
    let mut loader = None;
    for parent in [root.join("usr/lib"), root.join("lib")] {
        let Ok(folders) = fs_err::read_dir(&parent) else { continue };
        for folder in folders {
            let folder = folder?;
            // The folder of the processor's architecture.
            if !folder.file_name().to_string_lossy().contains("-linux-gnu") {
                continue;
            }
            for file in fs_err::read_dir(folder.path())? {
                let file = file?;
                let name = file.file_name().to_string_lossy().into_owned();
                if name.contains(".so") && !file.file_type()?.is_dir() {
                    fs_err::rename(file.path(), target.join(&name))?;
                    if name.starts_with("ld-linux") {
                        loader = Some(name);
                    }
                }
            }
        }
    }
    loader.context("no loader among the unpacked libraries")
}

fn write_starter(path: &Path, name: &str, loader: &str) -> Result<()> {
    // From .../usr/lib/postgresql/N/bin.
    let text = format!(
        "#!/bin/sh\n\
         here=${{0%/*}}\n\
         lib=$here/../../../../../lib\n\
         exec \"$lib/{loader}\" --library-path \"$lib\" --argv0 \"$0\" \"$here/../programs/{name}\" \"$@\"\n"
    );
    fs_err::write(path, text)?;
    Ok(fs_err::set_permissions(path, PermissionsExt::from_mode(0o755))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_wanted_and_the_rest_of_a_system_is_not() {
        for wanted in ["postgresql-18", "postgresql-client-18", "libc6", "libpq5", "zlib1g", "libicu78"] {
            assert!(is_wanted(wanted, 18), "{wanted}");
        }
        for other in ["systemd", "perl", "libperl5.42", "libllvm14", "postgresql-common", "postgresql-17", "tzdata"] {
            assert!(!is_wanted(other, 18), "{other}");
        }
    }

    #[test]
    fn a_folder_without_all_programs_is_not_an_installation() {
        let dir = tempfile::tempdir().unwrap();
        let write = |program: &str, version: &str| {
            let path = dir.path().join(program);
            fs_err::write(&path, format!("#!/bin/sh\necho '{program} (PostgreSQL) {version}'\n")).unwrap();
            fs_err::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        };
        PROGRAMS.iter().for_each(|program| write(program, "18.6 (Debian 18.6-3)"));
        assert!(is_complete(dir.path(), 18));
        assert!(!is_complete(dir.path(), 15));
        write("pgbench", "17.1");
        assert!(!is_complete(dir.path(), 18));
        fs_err::remove_file(dir.path().join("pgbench")).unwrap();
        assert!(!is_complete(dir.path(), 18));
    }
}
