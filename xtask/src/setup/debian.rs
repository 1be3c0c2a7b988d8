//! Packages of a suite of Debian other than the machine's own, without touching the system's packages.
//!
//! Where to fetch them and which key to trust is taken from the machine's own package configuration with the suite
//! replaced, so that a mirror chosen there is used here as well. apt itself fetches and checks signatures and
//! checksums, with lists and cache in a folder that is thrown away.

use crate::shell;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A suite's package lists, and a folder for what is fetched of it.
pub(super) struct Suite {
    name: String,
    scratch: tempfile::TempDir,
}

impl Suite {
    /// Fetches the lists of the suite `name`, into a folder below `parent` that ends with the value.
    pub(super) fn open(name: &str, parent: &Path) -> Result<Self> {
        let entry = machine_entry(&config_files()?).context("find a Debian mirror in /etc/apt")?;
        let suite = Self { name: name.to_owned(), scratch: tempfile::tempdir_in(parent)? };
        let dir = suite.scratch.path();
        for folder in ["lists/partial", "cache/archives/partial", "state", "packages", "unpacked"] {
            fs_err::create_dir_all(dir.join(folder))?;
        }
        // No package is installed as far as this apt knows: it names all that a package needs.
        fs_err::write(dir.join("state/status"), "")?;
        fs_err::write(dir.join("sources.list"), format!("{}\n", entry.line(name, dir)?))?;
        shell::output(suite.apt_get().arg("update")).with_context(|| format!("fetch the package lists of {name}"))?;
        Ok(suite)
    }

    /// Names of the packages that `package` needs to run, itself among them.
    pub(super) fn closure(&self, package: &str) -> Result<Vec<String>> {
        let mut command = self.apt_get();
        command.args(["--simulate", "--no-install-recommends", "install", package]);
        let said = shell::output(&mut command).with_context(|| format!("find {package} in {}", self.name))?;
        Ok(installed_by(&said))
    }

    /// Fetches packages and unpacks them, none of their scripts run; gives back the folder that stands for `/`.
    pub(super) fn unpack<S: AsRef<str>>(&self, packages: &[S]) -> Result<PathBuf> {
        let (fetched, root) = (self.scratch.path().join("packages"), self.scratch.path().join("unpacked"));
        let mut command = self.apt_get();
        command.current_dir(&fetched).arg("download").args(packages.iter().map(AsRef::as_ref));
        shell::output(&mut command).with_context(|| format!("fetch packages from {}", self.name))?;
        let mut count = 0;
        for entry in fs_err::read_dir(&fetched)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "deb") {
                shell::output(Command::new("dpkg").arg("-x").arg(&path).arg(&root))?;
                fs_err::remove_file(&path)?;
                count += 1;
            }
        }
        if count != packages.len() {
            bail!("{count} packages came from {}, {} were asked for", self.name, packages.len());
        }
        Ok(root)
    }

    /// apt-get that knows this suite alone.
    fn apt_get(&self) -> Command {
        let dir = self.scratch.path();
        let mut command = Command::new("apt-get");
        command.current_dir(dir).env("LC_ALL", "C").arg("-qq");
        for (key, value) in [
            ("Dir::Etc::sourcelist", "sources.list"),
            ("Dir::Etc::sourceparts", "none"),
            ("Dir::Etc::preferences", "none"),
            ("Dir::Etc::preferencesparts", "none"),
            ("Dir::State", "state"),
            ("Dir::State::lists", "lists"),
            ("Dir::State::status", "state/status"),
            ("Dir::Cache", "cache"),
        ] {
            command.arg("-o").arg(format!("{key}={}", dir.join(value).display()));
        }
        // The folder is ours alone, so the unprivileged helper user could not read it.
        for option in ["Acquire::Languages=none", "APT::Sandbox::User=root", "Acquire::Retries=3"] {
            command.args(["-o", option]);
        }
        command
    }
}

/// The packages that a simulated installation names.
fn installed_by(said: &str) -> Vec<String> {
    let names = said.lines().filter_map(|line| line.strip_prefix("Inst ")?.split_whitespace().next());
    names.map(ToOwned::to_owned).collect()
}

/// One mirror and the key that signs it.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    uri: String,
    signed_by: Option<String>,
}

impl Entry {
    /// The line for `suite`; a key written out in the configuration is put into a file in `dir`.
    fn line(&self, suite: &str, dir: &Path) -> Result<String> {
        let option = match &self.signed_by {
            None => String::new(),
            Some(key) if key.contains("BEGIN PGP") => {
                let path = dir.join("key.asc");
                fs_err::write(&path, key)?;
                format!("[signed-by={}] ", path.display())
            }
            Some(path) => format!("[signed-by={path}] "),
        };
        Ok(format!("deb {option}{} {suite} main", self.uri))
    }
}

/// The texts of the machine's package configuration: name and content.
fn config_files() -> Result<Vec<(String, String)>> {
    let mut paths = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(entries) = fs_err::read_dir("/etc/apt/sources.list.d") {
        let mut parts: Vec<PathBuf> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
        parts.sort();
        paths.extend(parts);
    }
    let mut files = Vec::new();
    for path in paths.iter().filter(|path| path.extension().is_some_and(|e| e == "list" || e == "sources")) {
        if path.is_file() {
            files.push((path.display().to_string(), fs_err::read_to_string(path)?));
        }
    }
    Ok(files)
}

/// The first binary entry of Debian's own main archive: not of security updates, not of another vendor.
fn machine_entry(files: &[(String, String)]) -> Result<Entry> {
    for (name, text) in files {
        let entries = if name.ends_with(".sources") { stanzas(text) } else { lines(text) };
        if let Some((entry, _)) = entries.into_iter().find(|(entry, suites)| is_main_archive(entry, suites)) {
            return Ok(entry);
        }
    }
    bail!("no entry for Debian's main archive in {} files", files.len())
}

fn is_main_archive(entry: &Entry, suites: &[String]) -> bool {
    let is_debian = entry.uri.trim_end_matches('/').ends_with("/debian");
    is_debian && suites.iter().any(|suite| !suite.contains('/') && !suite.contains("security"))
}

/// The `deb822` form: stanzas of fields, continued lines begin with a space, a lone dot stands for an empty one.
fn stanzas(text: &str) -> Vec<(Entry, Vec<String>)> {
    let mut found = Vec::new();
    let without_comments: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    for stanza in without_comments.join("\n").split("\n\n") {
        let mut fields: Vec<(String, String)> = Vec::new();
        for line in stanza.lines() {
            if line.starts_with([' ', '\t']) {
                if let Some((_, value)) = fields.last_mut() {
                    value.push('\n');
                    value.push_str(if line.trim() == "." { "" } else { line.trim() });
                }
            } else if let Some((key, value)) = line.split_once(':') {
                fields.push((key.trim().to_ascii_lowercase(), value.trim().to_owned()));
            }
        }
        let field = |key: &str| fields.iter().find(|(k, _)| k == key).map(|(_, value)| value.trim().to_owned());
        let is_binary = field("types").is_some_and(|types| types.split_whitespace().any(|word| word == "deb"));
        let is_enabled = field("enabled").is_none_or(|value| value != "no");
        if is_binary && is_enabled {
            let suites: Vec<String> = words(&field("suites").unwrap_or_default());
            for uri in words(&field("uris").unwrap_or_default()) {
                found.push((Entry { uri, signed_by: field("signed-by") }, suites.clone()));
            }
        }
    }
    found
}

/// The one-line form: `deb [options] uri suite component…`.
fn lines(text: &str) -> Vec<(Entry, Vec<String>)> {
    let mut found = Vec::new();
    for line in text.lines() {
        let Some(rest) = line.split('#').next().unwrap_or_default().trim().strip_prefix("deb ") else { continue };
        let (options, rest) = match rest.trim().strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((options, rest)) => (options, rest),
            None => ("", rest),
        };
        let signed_by = options
            .split_whitespace()
            .find_map(|option| option.to_ascii_lowercase().starts_with("signed-by=").then(|| option[10..].to_owned()));
        let mut parts = rest.split_whitespace();
        if let (Some(uri), Some(suite)) = (parts.next(), parts.next()) {
            found.push((Entry { uri: uri.to_owned(), signed_by }, vec![suite.to_owned()]));
        }
    }
    found
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(ToOwned::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, text: &str) -> Option<(String, Option<String>)> {
        machine_entry(&[(name.to_owned(), text.to_owned())]).ok().map(|entry| (entry.uri, entry.signed_by))
    }

    #[test]
    fn the_mirror_and_its_key_are_taken_from_both_forms_of_configuration() {
        let stanzas = "Types: deb\n# a comment\nURIs: http://mirror.example/debian-security\nSuites: x-security\n\n\
            Types: deb deb-src\nURIs: http://mirror.example/debian\nSuites: bookworm bookworm-updates\n\
            Components: main\nSigned-By: /usr/share/keyrings/k.gpg\n";
        let want = Some(("http://mirror.example/debian".to_owned(), Some("/usr/share/keyrings/k.gpg".to_owned())));
        assert_eq!(entry("debian.sources", stanzas), want);
        let lines = "# deb http://off.example/debian bookworm main\ndeb-src http://mirror.example/debian bookworm main\n\
            deb https://vendor.example/apt stable main\n\
            deb [arch=amd64 signed-by=/usr/share/keyrings/k.gpg] http://mirror.example/debian bookworm main\n";
        assert_eq!(entry("sources.list", lines), want);
        assert_eq!(
            entry("sources.list", "deb http://mirror.example/debian/ bookworm main"),
            Some(("http://mirror.example/debian/".to_owned(), None))
        );
    }

    #[test]
    fn other_archives_and_switched_off_entries_are_passed_over() {
        for text in [
            "",
            "Types: deb\nURIs: http://mirror.example/ubuntu\nSuites: noble\n",
            "Types: deb-src\nURIs: http://mirror.example/debian\nSuites: bookworm\n",
            "Types: deb\nEnabled: no\nURIs: http://mirror.example/debian\nSuites: bookworm\n",
        ] {
            assert_eq!(entry("a.sources", text), None, "{text}");
        }
    }

    #[test]
    fn a_key_written_out_in_the_configuration_is_put_into_a_file() {
        let text = "Types: deb\nURIs: http://mirror.example/debian\nSuites: sid\nSigned-By:\n \
            -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mDME\n -----END PGP PUBLIC KEY BLOCK-----\n";
        let entry = machine_entry(&[("a.sources".to_owned(), text.to_owned())]).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let line = entry.line("sid", dir.path()).unwrap();
        assert!(line.starts_with("deb [signed-by=/") && line.ends_with("] http://mirror.example/debian sid main"));
        let key = fs_err::read_to_string(dir.path().join("key.asc")).unwrap();
        assert_eq!(key, "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmDME\n-----END PGP PUBLIC KEY BLOCK-----");
    }

    #[test]
    fn what_a_simulated_installation_names_is_found() {
        let said = "NOTE: This is only a simulation!\nInst libc6 (2.43-7 Debian:testing [amd64])\n\
            Inst postgresql-18 (18.6-3 Debian:testing [amd64]) []\nConf libc6 (2.43-7 Debian:testing [amd64])\n";
        assert_eq!(installed_by(said), ["libc6", "postgresql-18"]);
    }
}
