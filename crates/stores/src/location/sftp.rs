//! `sftp://user@host:port/path` and `sftp:user@host:path`, as restic writes them.

use crate::access::Access;
use crate::sftp::{HostKeys, SftpOptions, SftpPlace, SftpStore, Transport};
use lastgood_model::store::Store;
use lastgood_model::{Error, ErrorKind, Result};
use std::path::PathBuf;
use std::sync::Arc;

/// What an SFTP server understands beside its URL: the way there (`own` or `openssh`), the file with the keys of known
/// servers, the server's key or its fingerprint, and the file that the system's `ssh` reads.
pub(super) const SETTINGS: &[&str] = &["transport", "known_hosts", "host_key", "ssh_config"];

/// Understands what follows `sftp:`. As with restic, `//` after the host begins an absolute path in a URL and a single
/// slash one in the user's home, while in the short form a path is absolute if it begins with a slash.
pub(super) fn parse(rest: &str) -> Result<SftpPlace> {
    let hint =
        "write sftp://user@host:port//absolute/path, sftp://user@host/path/in/home, or sftp:user@host:/absolute/path";
    let wrong = |why: &str| Error::invalid(format!("{why} in the location of the SFTP server")).with_hint(hint);
    let (who, path, port) = match rest.strip_prefix("//") {
        Some(url) => {
            if url.contains(['?', '#']) {
                return Err(wrong("`?` and `#` must be written %3F and %23: there is one"));
            }
            let (authority, path) = url.split_once('/').ok_or_else(|| wrong("there is no path"))?;
            let (user, host) = split_user(authority);
            let (host, port) = split_port(host).ok_or_else(|| wrong("what follows the host's colon is no port"))?;
            let plain = |text: &str| {
                let bytes = super::percent_decode(text.as_bytes()).and_then(|bytes| String::from_utf8(bytes).ok());
                bytes.ok_or_else(|| wrong("`%` is not followed by two hex digits"))
            };
            ((user.map(plain).transpose()?, host.to_owned()), plain(path)?, port)
        }
        None => {
            // An address with colons stands in brackets.
            let from = rest.rfind("]:").map_or(0, |at| at + 1);
            let at =
                rest[from..].find(':').map(|at| at + from).ok_or_else(|| wrong("there is no `:` before the path"))?;
            let (user, host) = split_user(&rest[..at]);
            let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
            ((user.map(str::to_owned), host.to_owned()), rest[at + 1..].to_owned(), None)
        }
    };
    let (user, host) = who;
    if user.as_ref().is_some_and(|user| user.contains(':')) {
        let message = "a password in the location of an SFTP server is not used";
        return Err(Error::invalid(message).with_hint("give it as `password` in the config, or better use a key"));
    }
    // What begins with a dash would be an option to `ssh`.
    let is_name = |text: &str| {
        !text.is_empty() && !text.starts_with('-') && !text.contains(|c: char| c.is_whitespace() || c.is_control())
    };
    if !is_name(&host) {
        return Err(wrong("there is no host"));
    }
    if user.as_ref().is_some_and(|user| !is_name(user)) {
        return Err(wrong("the user is no name"));
    }
    let is_root = !path.is_empty() && path.bytes().all(|b| b == b'/');
    if path.is_empty() || is_root || path.contains('\0') {
        return Err(wrong("there is no folder for the repository"));
    }
    if path == "~" || path.starts_with("~/") {
        return Err(Error::invalid("`~` is not expanded in the location of an SFTP server").with_hint(
            "paths without a leading slash begin in the user's home: sftp://user@host/path or sftp:user@host:path",
        ));
    }
    Ok(SftpPlace { host, port, user, path: path.trim_end_matches('/').to_owned() })
}

fn split_user(authority: &str) -> (Option<&str>, &str) {
    match authority.rsplit_once('@') {
        Some((user, host)) => (Some(user), host),
        None => (None, authority),
    }
}

fn split_port(host: &str) -> Option<(&str, Option<u16>)> {
    if let Some(inner) = host.strip_prefix('[') {
        let (host, after) = inner.split_once(']')?;
        return match after.strip_prefix(':') {
            None if after.is_empty() => Some((host, None)),
            None => None,
            Some(port) => Some((host, Some(port.parse().ok()?))),
        };
    }
    match host.split_once(':') {
        None => Some((host, None)),
        Some((host, port)) => Some((host, Some(port.parse().ok()?))),
    }
}

/// The store, with what the config says of keys and the way there.
pub(super) fn open(place: &SftpPlace, access: &Access) -> Result<Arc<dyn Store>> {
    let transport = match access.setting("transport") {
        None | Some("own") => Transport::Own,
        Some("openssh") => Transport::OpenSsh,
        Some(other) => {
            return Err(Error::invalid(format!("there is no transport {other:?}"))
                .with_hint("write transport = \"openssh\", or leave it out"));
        }
    };
    let file = |name: &str| access.setting(name).map(PathBuf::from);
    let host_keys = HostKeys { file: file("known_hosts"), pinned: access.setting("host_key").map(str::to_owned) };
    let ssh_config = file("ssh_config");
    let (is_ours, is_theirs) = (host_keys != HostKeys::default(), ssh_config.is_some());
    match transport {
        Transport::OpenSsh if is_ours => {
            return Err(Error::new(
                ErrorKind::Invalid,
                "known hosts are the system's own business with transport = \"openssh\"",
            )
            .with_hint("name them in ~/.ssh/config, or in the file that `ssh_config` names"));
        }
        Transport::Own if is_theirs => {
            return Err(Error::invalid("`ssh_config` is read with transport = \"openssh\" only"));
        }
        _ => {}
    }
    let options = SftpOptions { transport, host_keys, ssh_config, access: access.clone() };
    Ok(Arc::new(SftpStore::new(place.clone(), options)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_understood_as_restic_does() {
        for (text, user, host, port, path) in [
            ("//user@box:2222//srv/repo", Some("user"), "box", Some(2222), "/srv/repo"),
            ("//user@box/repo/", Some("user"), "box", None, "repo"),
            ("//box//srv/my%20repo", None, "box", None, "/srv/my repo"),
            ("//[::1]:22//srv", None, "::1", Some(22), "/srv"),
            ("//[fe80::1%eth0]//srv", None, "fe80::1%eth0", None, "/srv"),
            ("user@box:/srv/repo", Some("user"), "box", None, "/srv/repo"),
            ("user@box:repo", Some("user"), "box", None, "repo"),
            ("box:repo:old", None, "box", None, "repo:old"),
            ("u@[::1]:/srv", Some("u"), "::1", None, "/srv"),
            ("domain@user@box:/srv", Some("domain@user"), "box", None, "/srv"),
        ] {
            let place = parse(text).unwrap_or_else(|e| panic!("{text}: {e:?}"));
            let want = SftpPlace { host: host.into(), port, user: user.map(Into::into), path: path.into() };
            assert_eq!(place, want, "{text}");
            // What is shown leads there again.
            if !path.contains(' ') {
                let shown = place.to_string();
                assert_eq!(parse(shown.strip_prefix("sftp:").unwrap()).unwrap(), want, "{shown}");
            }
        }
    }

    #[test]
    fn what_leads_nowhere_is_refused() {
        for text in [
            "",
            "//",
            "//box",
            "//box/",
            "//box//",
            "//:22//srv",
            "//box:x//srv",
            "//-oProxyCommand=x//srv",
            "//u:secret@box//srv",
            "box",
            "box:",
            "-x:/srv",
            "//box/~/srv",
            "box:~/srv",
            "//a b//srv",
            "//box//srv?x",
            "//box//srv%zz",
        ] {
            let error = parse(text).expect_err(text);
            assert_eq!(error.kind(), ErrorKind::Invalid, "{text}");
            assert!(!error.chain().contains("secret"), "{error:?}");
        }
    }
}
