//! Secrets by reference. A config says where a key is, never what it is, and nothing here ever prints one.

use lastgood_model::{Context, Error, ErrorKind, Result};
use lastgood_repo::crypto::Password;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use zeroize::Zeroizing;

/// A key file is one line; what is longer than this is none.
const SECRET_BYTES_MAX: u64 = 64 << 10;

/// Names a file that holds the key of every repository.
pub(crate) const KEY_FILE_VARIABLE: &str = "LASTGOOD_KEY_FILE";
/// Holds the key of every repository.
pub(crate) const KEY_VARIABLE: &str = "LASTGOOD_KEY";

/// Where a secret is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SecretRef {
    /// The first line of a file.
    File(PathBuf),
    /// An environment variable.
    Env(String),
    /// The first line that a program prints.
    Command(Vec<String>),
    /// A credential that systemd passes to the service.
    Systemd(String),
}

/// What a reference leads to, for messages and the meaning of its absence.
struct What {
    /// The kind of an error when it is not there.
    kind: ErrorKind,
    noun: &'static str,
    short: &'static str,
    gone: &'static str,
}

const KEY: What = What {
    kind: ErrorKind::WrongKey,
    noun: "the repository's key",
    short: "key",
    gone: "bring the key file back from where it was copied to; without it the repository cannot be read by anyone. For a new repository `lastgood init` makes one",
};

const URL: What = What {
    kind: ErrorKind::Invalid,
    noun: "the database's URL",
    short: "URL",
    gone: "make it, with the database's URL as its only line, readable for its owner alone; or correct `url` in the config",
};

const CREDENTIAL: What = What {
    kind: ErrorKind::Invalid,
    noun: "a credential",
    short: "credential",
    gone: "make it, with the credential as its only line, readable for its owner alone; or correct the config",
};

impl SecretRef {
    /// Where it is, in words that tell nothing secret.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::File(path) => format!("key file {}", path.display()),
            _ => self.place(),
        }
    }

    /// The same, whatever secret it is.
    pub(crate) fn place(&self) -> String {
        match self {
            Self::File(path) => format!("file {}", path.display()),
            Self::Env(name) => format!("environment variable {name}"),
            Self::Command(argv) => format!("command {:?}", argv.first().map_or("", String::as_str)),
            Self::Systemd(name) => format!("systemd credential {name}"),
        }
    }

    /// The file that holds it, when it is in a file.
    pub(crate) fn file(&self) -> Option<PathBuf> {
        match self {
            Self::File(path) => Some(path.clone()),
            Self::Systemd(name) => credential(name, &KEY).ok(),
            Self::Env(_) | Self::Command(_) => None,
        }
    }

    /// Fetches it.
    ///
    /// # Errors
    /// [`ErrorKind::WrongKey`] when it is not there, [`ErrorKind::Invalid`] when it cannot be a key.
    pub(crate) fn resolve(&self) -> Result<Password> {
        let act = || format!("read the repository's key from {}", self.describe());
        let text = self.fetch(&KEY).with_context(act)?;
        refuse_slips(&text).with_context(act)?;
        Password::new(&text).with_context(act)
    }

    /// Fetches a database's URL: its first line, without blanks around it.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] when it is not there or empty.
    pub(crate) fn resolve_url(&self) -> Result<Zeroizing<String>> {
        let act = || format!("read the database's URL from {}", self.place());
        let text = self.fetch(&URL).with_context(act)?;
        let line = text.lines().next().unwrap_or_default().trim_matches(is_blank);
        if line.is_empty() {
            return Err(Error::invalid("its first line is empty")
                .with_hint("it must be the URL, such as postgres://user:password@host/database")
                .context(act()));
        }
        Ok(Zeroizing::new(line.to_owned()))
    }

    /// Fetches the credential of that name: its first line without blanks around it, or all of it where one is longer
    /// than a line.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] when it is not there or empty.
    pub(crate) fn resolve_credential(&self, name: &str) -> Result<Zeroizing<String>> {
        let act = || format!("read `{name}` from {}", self.place());
        let text = self.fetch(&CREDENTIAL).with_context(act)?;
        let has_lines = matches!(name, "service_account" | "private_key");
        // Blanks around a password count.
        let is_exact = matches!(name, "private_key" | "password" | "passphrase");
        let wanted = if has_lines { &text[..] } else { text.lines().next().unwrap_or_default() };
        let wanted = if is_exact { wanted } else { wanted.trim_matches(is_blank) };
        if wanted.is_empty() {
            return Err(Error::invalid("its first line is empty")
                .with_hint("it must be the credential alone")
                .context(act()));
        }
        Ok(Zeroizing::new(wanted.to_owned()))
    }

    fn fetch(&self, what: &What) -> Result<Zeroizing<String>> {
        match self {
            Self::File(path) => read_file(path, what),
            Self::Env(name) => match std::env::var(name) {
                Ok(value) => Ok(Zeroizing::new(value)),
                Err(std::env::VarError::NotPresent) => {
                    Err(Error::new(what.kind, format!("environment variable {name} is not set"))
                        .with_hint(format!("it must hold {}", what.noun)))
                }
                Err(std::env::VarError::NotUnicode(_)) => {
                    Err(Error::invalid(format!("environment variable {name} is not text")))
                }
            },
            Self::Command(argv) => run(argv, what),
            Self::Systemd(name) => read_file(&credential(name, what)?, what),
        }
    }

    /// The key as the environment names it, by a variable of its own.
    pub(crate) fn of_environment() -> Option<Self> {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        match set(KEY_FILE_VARIABLE) {
            Some(path) => Some(Self::File(PathBuf::from(path))),
            None => set(KEY_VARIABLE).map(|_| Self::Env(KEY_VARIABLE.to_owned())),
        }
    }

    /// A warning about a file that others may read, with what to do.
    pub(crate) fn exposure(&self) -> Option<(String, String)> {
        self.exposure_as("key file")
    }

    /// The same, with what kind of file it is in words.
    pub(crate) fn exposure_as(&self, what: &str) -> Option<(String, String)> {
        let Self::File(path) = self else { return None };
        let mode = fs_err::metadata(path).ok()?.permissions().mode();
        (mode & 0o077 != 0).then(|| {
            let who = if mode & 0o007 != 0 { "everybody on this machine" } else { "its group" };
            let shown = path.display().to_string();
            (
                format!("{what} {shown} can be opened by {who} (mode {:03o})", mode & 0o777),
                format!("chmod 600 {}", crate::text::shell_word(&shown)),
            )
        })
    }
}

/// Says what is around a key that only an editor or a copy can have put there.
fn refuse_slips(text: &str) -> Result<()> {
    let bare = |text: &str| text.trim_matches(is_blank).is_empty();
    let line = text.split(['\n', '\r']).next().unwrap_or_default();
    if bare(line) && !bare(text) {
        return Err(Error::invalid("its first line is empty, and no other is read")
            .with_hint("the key must stand in the first line: remove the empty lines above it"));
    }
    if bare(line) && !line.is_empty() {
        return Err(Error::invalid("there is no key in it, only spaces")
            .with_hint("name the file whose single line is the key; `lastgood key generate FILE` makes one"));
    }
    let key = line.trim_matches(is_blank);
    if key.len() < line.len() && Password::new(key).is_ok_and(|password| password.is_generated()) {
        return Err(Error::invalid("there are spaces before or after the key")
            .with_hint("remove spaces, tabs and other invisible characters around it; a line end is no trouble"));
    }
    Ok(())
}

/// True when a key begins or ends with what nobody sees. In a password that a person chose it counts.
pub(crate) fn has_blanks_around(password: &Password) -> bool {
    password.reveal().trim_matches(is_blank).len() < password.reveal().len()
}

/// White space, and the mark that some editors put before a text.
fn is_blank(c: char) -> bool {
    c.is_whitespace() || c == '\u{feff}'
}

fn read_file(path: &Path, what: &What) -> Result<Zeroizing<String>> {
    let name = what.short;
    let hint = || format!("name the file whose single line is the {name}");
    let meta = fs_err::metadata(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            Error::new(what.kind, format!("there is no {name} file")).with_source(error).with_hint(what.gone)
        }
        _ => Error::io(format!("look at the {name} file"), error),
    })?;
    if meta.is_dir() {
        return Err(Error::invalid(format!("the {name} file is a directory")));
    }
    if meta.len() > SECRET_BYTES_MAX {
        return Err(Error::invalid(format!("it has {} bytes, too many for a {name}", meta.len())).with_hint(hint()));
    }
    let bytes = Zeroizing::new(fs_err::read(path).with_context(|| format!("read the {name} file"))?);
    match std::str::from_utf8(&bytes) {
        Ok(text) => Ok(Zeroizing::new(text.to_owned())),
        Err(_) => Err(Error::invalid("it is not text").with_hint(hint())),
    }
}

fn run(argv: &[String], what: &What) -> Result<Zeroizing<String>> {
    let name = what.short;
    let (program, arguments) =
        argv.split_first().ok_or_else(|| Error::invalid(format!("the command that prints the {name} is empty")))?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut output = command.output().map_err(|error| {
        Error::new(what.kind, format!("{program:?} could not be started"))
            .with_source(error)
            .with_hint(format!("run the command by hand: it must print the {name} and end well"))
    })?;
    let text = Zeroizing::new(std::mem::take(&mut output.stdout));
    if !output.status.success() {
        return Err(Error::new(what.kind, format!("{program:?} ended with {}", output.status))
            .with_hint(format!("run the command by hand: it must print the {name} and end well")));
    }
    match std::str::from_utf8(&text) {
        Ok(text) => Ok(Zeroizing::new(text.to_owned())),
        Err(_) => Err(Error::invalid(format!("{program:?} printed something that is not text"))),
    }
}

fn credential(name: &str, what: &What) -> Result<PathBuf> {
    match std::env::var_os("CREDENTIALS_DIRECTORY").filter(|value| !value.is_empty()) {
        Some(folder) => Ok(PathBuf::from(folder).join(name)),
        None => Err(Error::new(what.kind, "systemd has passed no credentials: CREDENTIALS_DIRECTORY is not set")
            .with_hint("set LoadCredential= in the service, or run it through systemd-run")),
    }
}

/// Makes a file that only its owner may read, with `text` as its one line, durable on return.
///
/// # Errors
/// [`ErrorKind::Conflict`] when there is something by that name: a secret is never overwritten.
pub(crate) fn keep(path: &Path, text: &str) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let act = || format!("make {}", path.display());
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs_err::create_dir_all(folder).with_context(act)?;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let mut file = options.open(path).with_context(act)?;
    let line = Zeroizing::new(format!("{text}\n"));
    file.write_all(line.as_bytes()).with_context(act)?;
    file.sync_all().with_context(act)?;
    fs_err::File::open(folder).and_then(|folder| folder.sync_all()).with_context(act)
}

/// Makes a key file that only its owner may read, durable on return.
///
/// # Errors
/// [`ErrorKind::Conflict`] when there is something by that name: a key is never overwritten.
pub(crate) fn generate(path: &Path) -> Result<Password> {
    let password = Password::generate()?;
    keep(path, password.reveal()).map_err(|error| {
        let error = error.context(format!("make key file {}", path.display()));
        if error.kind() == ErrorKind::Conflict {
            return error.with_hint("a key is never overwritten: it may be the only one to existing backups");
        }
        error
    })?;
    Ok(password)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_key_is_private_and_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/k");
        let password = generate(&path).unwrap();
        assert_eq!(fs_err::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let reference = SecretRef::File(path.clone());
        assert_eq!(reference.resolve().unwrap(), password);
        assert_eq!(reference.exposure(), None);
        assert_eq!(generate(&path).unwrap_err().kind(), ErrorKind::Conflict);
        assert_eq!(reference.resolve().unwrap(), password);
        fs_err::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(reference.exposure().unwrap().0.contains("everybody"));
    }

    #[test]
    fn secrets_that_are_not_there_say_where_they_were_looked_for() {
        let folder = tempfile::tempdir().unwrap();
        let argv = |words: &[&str]| SecretRef::Command(words.iter().map(|w| (*w).to_owned()).collect());
        let cases = [
            (SecretRef::File(folder.path().join("none")), ErrorKind::WrongKey, "none"),
            (SecretRef::Env("LASTGOOD_TEST_UNSET".into()), ErrorKind::WrongKey, "LASTGOOD_TEST_UNSET"),
            (argv(&["false", "hunter2"]), ErrorKind::WrongKey, "false"),
            (argv(&["true"]), ErrorKind::Invalid, "true"),
            (argv(&["/nonexistent/program"]), ErrorKind::WrongKey, "program"),
            (SecretRef::File(folder.path().to_owned()), ErrorKind::Invalid, "directory"),
        ];
        for (reference, kind, word) in cases {
            let error = reference.resolve().unwrap_err();
            assert_eq!(error.kind(), kind, "{error:?}");
            assert!(error.chain().contains(word), "{error:?}");
            assert!(!error.chain().contains("hunter2"), "{error:?}");
        }
        let generated = Password::generate().unwrap();
        let key = generated.reveal();
        let resolve = |text: &str| {
            let path = folder.path().join("k");
            fs_err::write(&path, text).unwrap();
            SecretRef::File(path).resolve()
        };
        for fine in [key.to_owned(), format!("{key}\n"), format!("{key}\r\n"), format!("{key}\n\n a note\n")] {
            assert_eq!(resolve(&fine).unwrap(), generated);
        }
        for (slip, word) in [
            (format!("{key}  \n"), "spaces before or after"),
            (format!("\t{key}\n"), "spaces before or after"),
            (format!("\u{feff}{key}\n"), "spaces before or after"),
            (format!("\n{key}\n"), "first line is empty"),
            (" \n\n".to_owned(), "only spaces"),
        ] {
            let error = resolve(&slip).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.chain().contains(word) && !error.chain().contains(key), "{slip:?}: {}", error.chain());
        }
        assert!(
            has_blanks_around(&resolve("chosen \n").unwrap()),
            "it may be the password of another program's making"
        );
        assert_eq!(argv(&["echo", "secret words"]).resolve().unwrap().reveal(), "secret words");
    }
}
