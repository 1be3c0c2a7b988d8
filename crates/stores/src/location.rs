//! From the text a person wrote to a store.

mod object;
#[cfg(feature = "rest")]
mod rest;
#[cfg(feature = "sftp")]
mod sftp;

pub use object::{ObjectPlace, Service, Style};

#[cfg(feature = "rest")]
use crate::rest::RestPlace;
#[cfg(feature = "sftp")]
use crate::sftp::SftpPlace;
use crate::{Access, DeadlineStore, LocalStore, Mount};
use lastgood_model::node::display_path;
use lastgood_model::store::Store;
use lastgood_model::{Error, ErrorKind, Result};
use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::sync::Arc;

/// A place for a repository, understood but not yet touched.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Location {
    /// A folder on this machine.
    Local(PathBuf),
    /// A bucket.
    Object(ObjectPlace),
    /// A server that speaks the protocol of restic's REST server.
    #[cfg(feature = "rest")]
    Rest(RestPlace),
    /// A folder on a machine that is reached by SFTP.
    #[cfg(feature = "sftp")]
    Sftp(SftpPlace),
}

impl Location {
    /// The store at this place, with what a location alone does not say. Nothing is looked up or made there.
    ///
    /// # Errors
    /// Settings that contradict one another, and secrets that cannot be fetched.
    pub fn open(&self, access: &Access) -> Result<Arc<dyn Store>> {
        #[cfg(feature = "planted-bugs")]
        return Ok(crate::planted::wrap(self.open_soundly(&crate::planted::access(access))?, access));
        #[cfg(not(feature = "planted-bugs"))]
        self.open_soundly(access)
    }

    fn open_soundly(&self, access: &Access) -> Result<Arc<dyn Store>> {
        match self {
            Self::Local(path) => {
                let store = LocalStore::new(path)?;
                match Mount::of(store.root()).is_some_and(|mount| mount.is_remote()) {
                    true => Ok(Arc::new(DeadlineStore::new(store, access.timeouts))),
                    false => Ok(Arc::new(store)),
                }
            }
            #[cfg(feature = "object")]
            Self::Object(place) => crate::object::open(place, access),
            #[cfg(not(feature = "object"))]
            Self::Object(_) => Err(Error::new(ErrorKind::Unsupported, "this build of lastgood has no object stores")),
            #[cfg(feature = "rest")]
            Self::Rest(place) => rest::open(place, access),
            #[cfg(feature = "sftp")]
            Self::Sftp(place) => sftp::open(place, access),
        }
    }

    /// What can be said of the way to a place of this kind, beside secrets: `lock` and `ca_file`, which are fields of
    /// [`Access`], and names in [`Access::settings`].
    pub fn settings(&self) -> &'static [&'static str] {
        match self {
            Self::Local(_) => &[],
            Self::Object(_) => &["lock", "ca_file"],
            #[cfg(feature = "rest")]
            Self::Rest(_) => rest::SETTINGS,
            #[cfg(feature = "sftp")]
            Self::Sftp(_) => sftp::SETTINGS,
        }
    }

    /// The names of secrets, of those in [`Access::NAMES`], that a place of this kind understands.
    pub fn secrets(&self) -> &'static [&'static str] {
        match self {
            Self::Local(_) => &[],
            Self::Object(_) => {
                &["access_key_id", "secret_access_key", "session_token", "account_key", "sas", "service_account"]
            }
            #[cfg(feature = "rest")]
            Self::Rest(_) => &["password"],
            #[cfg(feature = "sftp")]
            Self::Sftp(_) => &["private_key", "passphrase", "password"],
        }
    }

    /// True when the URL itself holds a secret, which belongs into no config and no list of processes.
    pub fn holds_secret(&self) -> bool {
        match self {
            Self::Local(_) | Self::Object(_) => false,
            #[cfg(feature = "rest")]
            Self::Rest(place) => place.password.is_some(),
            #[cfg(feature = "sftp")]
            Self::Sftp(_) => false,
        }
    }
}

/// For people, without secrets.
impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(path) => f.write_str(&display_path(path.as_os_str().as_bytes())),
            Self::Object(place) => place.fmt(f),
            #[cfg(feature = "rest")]
            Self::Rest(place) => place.fmt(f),
            #[cfg(feature = "sftp")]
            Self::Sftp(place) => place.fmt(f),
        }
    }
}

/// Understands `text` and gives the store there: [`parse_location`], then [`Location::open`].
pub fn open_url(text: &str) -> Result<Arc<dyn Store>> {
    parse_location(text)?.open(&Access::default())
}

/// Schemes that people know from here and from restic, whose locations look like `s3:host/bucket`. Taking one of them
/// for a folder named `s3:host` would keep backups on the very machine they are to outlive.
const REMOTE_SCHEMES: [&str; 16] = [
    "s3", "s3a", "gs", "gcs", "azure", "az", "abfs", "abfss", "b2", "swift", "sftp", "ssh", "rest", "rclone", "http",
    "https",
];

/// Understands a local path, a `file://` URL, a place in an object store or on a server. [`ErrorKind::Unsupported`] for
/// another scheme, [`ErrorKind::Invalid`] for what can be neither. Messages name the scheme alone, since a URL may hold a
/// password.
pub fn parse_location(text: &str) -> Result<Location> {
    if text.is_empty() {
        return Err(Error::invalid("the location of the repository is empty"));
    }
    if text.contains('\0') {
        return Err(Error::invalid("the location of the repository holds a NUL"));
    }
    if text == "~" || text.starts_with("~/") {
        return Err(Error::invalid(format!("`~` is not expanded in {text:?}")).with_hint("write the whole path"));
    }
    if let Some((scheme, rest)) = split_scheme(text) {
        if scheme == "file" {
            return file_url(rest, text);
        }
        if scheme == "local" && !rest.starts_with("//") {
            return Ok(Location::Local(PathBuf::from(rest)));
        }
        #[cfg(feature = "rest")]
        if scheme == "rest" {
            return rest::parse(rest).map(Location::Rest);
        }
        #[cfg(feature = "sftp")]
        if scheme == "sftp" {
            return sftp::parse(rest).map(Location::Sftp);
        }
        if let Some(place) = object::parse(&scheme, rest) {
            return place.map(Location::Object);
        }
        if rest.starts_with("//") || REMOTE_SCHEMES.contains(&scheme.as_str()) {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("locations with the scheme `{scheme}:` are not supported"),
            )
            .with_hint(format!(
                "use a local path, file:///path, s3://, gs://, az://, sftp:// or rest:https://; for a folder whose name begins with `{scheme}:` write ./ before it"
            )));
        }
    }
    Ok(Location::Local(PathBuf::from(text)))
}

/// `scheme:rest`, when what stands before the first colon can be a scheme; lower-cased, as schemes ignore case.
fn split_scheme(text: &str) -> Option<(String, &str)> {
    let (scheme, rest) = text.split_once(':')?;
    let valid = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
    valid.then(|| (scheme.to_ascii_lowercase(), rest))
}

/// RFC 8089, with an empty host or `localhost`, and an absolute path.
fn file_url(rest: &str, text: &str) -> Result<Location> {
    let wrong = |why: &str| {
        Error::invalid(format!("{why} in {text:?}")).with_hint("write file:///path/to/repository, or the path alone")
    };
    let after = rest.strip_prefix("//").ok_or_else(|| wrong("two slashes are missing after `file:`"))?;
    let at = after.find('/').ok_or_else(|| wrong("there is no absolute path"))?;
    let (host, path) = after.split_at(at);
    if !(host.is_empty() || host.eq_ignore_ascii_case("localhost")) {
        return Err(wrong("another host cannot be reached by `file:`; found one"));
    }
    if path.contains(['?', '#']) {
        return Err(wrong("`?` and `#` must be written %3F and %23"));
    }
    let bytes = percent_decode(path.as_bytes()).ok_or_else(|| wrong("`%` is not followed by two hex digits"))?;
    if bytes.contains(&0) {
        return Err(wrong("there is a NUL"));
    }
    Ok(Location::Local(PathBuf::from(OsString::from_vec(bytes))))
}

fn percent_decode(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |b: u8| (b as char).to_digit(16).map(|d| d as u8);
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.iter();
    while let Some(&byte) = rest.next() {
        out.push(match byte {
            b'%' => digit(*rest.next()?)? << 4 | digit(*rest.next()?)?,
            byte => byte,
        });
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_file_urls_are_local() {
        let cases: [(&str, &[u8]); 12] = [
            ("/srv/backup", b"/srv/backup"),
            ("backup", b"backup"),
            ("./s3:bucket", b"./s3:bucket"),
            ("/mnt/a:b://c", b"/mnt/a:b://c"),
            ("2026:backups", b"2026:backups"),
            ("shop:backups", b"shop:backups"),
            ("caf\u{e9}", "caf\u{e9}".as_bytes()),
            ("local:/srv/backup", b"/srv/backup"),
            ("file:///srv/my%20backup", b"/srv/my backup"),
            ("FILE://localhost/srv", b"/srv"),
            ("file:///srv/%FF%3f", b"/srv/\xff?"),
            ("file:///", b"/"),
        ];
        for (text, path) in cases {
            let found = match parse_location(text) {
                Ok(Location::Local(found)) => found,
                other => panic!("{text}: {other:?}"),
            };
            assert_eq!(found.into_os_string().into_vec(), path, "{text}");
        }
    }

    #[test]
    fn other_schemes_are_named_without_their_secrets() {
        for (text, scheme) in [("b2:secret", "b2"), ("webdav+tls://secret", "webdav+tls")] {
            let error = parse_location(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{text}");
            assert!(error.message().contains(&format!("`{scheme}:`")), "{error}");
            assert!(!error.chain().contains("secret"), "{error}");
            assert!(error.hint().is_some());
        }
    }

    #[test]
    fn what_can_be_no_location_is_refused() {
        for text in [
            "",
            "a\0b",
            "~",
            "~/backup",
            "file:",
            "file:/srv",
            "file://",
            "file://host/srv",
            "file:///a%2",
            "file:///a%zz",
            "file:///a%00",
            "file:///a?b",
        ] {
            assert_eq!(parse_location(text).map_err(|e| e.kind()), Err(ErrorKind::Invalid), "{text:?}");
        }
    }

    #[test]
    fn a_relative_path_opens_as_an_absolute_one() {
        let store = open_url("some/where").unwrap();
        let here = std::env::current_dir().unwrap();
        assert_eq!(store.location(), here.join("some/where").display().to_string());
    }
}
