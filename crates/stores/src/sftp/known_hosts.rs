//! Whether the server is the one it says it is.
//!
//! Files are read as OpenSSH reads them: names with wildcards and negations, hashed names, revoked keys. A line that
//! cannot be read is passed over, as there. Certificates of hosts are not supported; `transport = "openssh"` is for them.

use lastgood_model::{Error, ErrorKind, Result};
use russh::keys::ssh_key::known_hosts::{Entry, HostPatterns, Marker};
use russh::keys::{Algorithm, HashAlg, PublicKey};
use std::path::PathBuf;

/// What is known of one server.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    /// Keys it may show, with where they stand.
    keys: Vec<(String, PublicKey)>,
    revoked: Vec<PublicKey>,
    /// A fingerprint that the config names instead.
    pinned: Option<String>,
    /// Where it was looked, for messages.
    files: Vec<PathBuf>,
}

impl Known {
    /// What the config pins: a fingerprint, or a public key in one line.
    pub(super) fn pinned(text: &str) -> Result<Self> {
        let text = text.trim();
        if text.starts_with("SHA256:") {
            return Ok(Self { pinned: Some(text.trim_end_matches('=').to_owned()), ..Self::default() });
        }
        let key = PublicKey::from_openssh(text).map_err(|error| {
            Error::invalid("`host_key` is neither a fingerprint nor a public key")
                .with_source(error.to_string())
                .with_hint("write host_key = \"SHA256:…\" or host_key = \"ssh-ed25519 AAAA…\"")
        })?;
        Ok(Self { pinned: Some(fingerprint(&key)), ..Self::default() })
    }

    /// What these files say of `host`.
    ///
    /// # Errors
    /// When one is there and cannot be read.
    pub(super) fn read(files: Vec<PathBuf>, host: &str, port: u16) -> Result<Self> {
        let mut known = Self::default();
        for file in &files {
            let text = match fs_err::read(file) {
                Ok(text) => text,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(Error::io("read the known hosts", error)),
            };
            for (number, line) in String::from_utf8_lossy(&text).lines().enumerate() {
                known.add(line, &format!("{}:{}", file.display(), number + 1), host, port);
            }
        }
        known.files = files;
        Ok(known)
    }

    fn add(&mut self, line: &str, place: &str, host: &str, port: u16) {
        let Ok(entry) = line.trim().parse::<Entry>() else { return };
        if !matches(entry.host_patterns(), &name_of(host, port)) {
            return;
        }
        match entry.marker() {
            None => self.keys.push((place.to_owned(), entry.public_key().clone())),
            Some(Marker::Revoked) => self.revoked.push(entry.public_key().clone()),
            Some(Marker::CertAuthority) => {}
        }
    }

    /// Kinds of key in the order to ask for: those first that are known, so that a server with several shows one of them.
    pub(super) fn algorithms(&self, able: &[Algorithm]) -> Vec<Algorithm> {
        let is_known = |algorithm: &&Algorithm| self.keys.iter().any(|(_, key)| key.algorithm() == **algorithm);
        let (known, rest): (Vec<&Algorithm>, Vec<&Algorithm>) = able.iter().partition(is_known);
        // Where only kinds are known that we do not speak, the rest would look like strangers.
        known.into_iter().chain(rest).cloned().collect()
    }

    /// Judges the key that the server shows.
    pub(super) fn judge(&self, key: &PublicKey, host: &str, port: u16) -> Result<()> {
        let (kind, shown, name) = (key.algorithm().to_string(), fingerprint(key), name_of(host, port));
        let refused = |message: String| Error::new(ErrorKind::Denied, message);
        if self.revoked.iter().any(|revoked| revoked.key_data() == key.key_data()) {
            return Err(refused(format!("the server at {name} shows a key that was revoked: {kind} {shown}"))
                .with_hint("do not use this server before whoever runs it has said why"));
        }
        if let Some(pinned) = &self.pinned {
            if *pinned == shown {
                return Ok(());
            }
            return Err(refused(format!("the server at {name} shows another key than `host_key` names: {kind} {shown} instead of {pinned}"))
                .with_hint("somebody may be listening in between. Ask whoever runs the server; correct `host_key` only when they say that its key was changed"));
        }
        if self.keys.iter().any(|(_, known)| known.key_data() == key.key_data()) {
            return Ok(());
        }
        if let Some((place, known)) = self.keys.iter().find(|(_, known)| known.algorithm() == key.algorithm()) {
            return Err(refused(format!(
                "THE KEY OF THE SERVER HAS CHANGED: {name} shows {kind} {shown}, but {place} has {}",
                fingerprint(known)
            ))
            .with_hint(format!("somebody may be listening in between. Ask whoever runs the server; only when they say that its key was changed: ssh-keygen -R '{name}', and add the new one")));
        }
        let where_looked = match (self.keys.first(), self.files.as_slice()) {
            (Some((place, other)), _) => {
                format!("{place} has only its {} key, which this version does not speak", other.algorithm())
            }
            (None, []) => "there is no file of known hosts".to_owned(),
            (None, files) => {
                format!(
                    "it is not in {}",
                    files.iter().map(|f| f.display().to_string()).collect::<Vec<_>>().join(" nor in ")
                )
            }
        };
        let scan = if port == 22 { format!("ssh-keyscan {host}") } else { format!("ssh-keyscan -p {port} {host}") };
        Err(refused(format!("the server at {name} is not known: it shows {kind} {shown}, and {where_looked}"))
            .with_hint(format!("compare the fingerprint with what whoever runs the server says; then write host_key = \"{shown}\" into the config, or: {scan} >> ~/.ssh/known_hosts")))
    }
}

/// As people compare it.
pub(super) fn fingerprint(key: &PublicKey) -> String {
    key.fingerprint(HashAlg::Sha256).to_string()
}

fn name_of(host: &str, port: u16) -> String {
    if port == 22 { host.to_owned() } else { format!("[{host}]:{port}") }
}

fn matches(patterns: &HostPatterns, name: &str) -> bool {
    match patterns {
        HostPatterns::HashedName { salt, hash } => {
            use aws_lc_rs::hmac;
            let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, salt);
            hmac::verify(&key, name.as_bytes(), hash).is_ok()
        }
        HostPatterns::Patterns(patterns) => {
            let name = name.to_ascii_lowercase();
            let of = |pattern: &str| is_like(&pattern.to_ascii_lowercase(), &name);
            patterns.iter().any(|pattern| !pattern.starts_with('!') && of(pattern))
                && !patterns.iter().filter_map(|pattern| pattern.strip_prefix('!')).any(of)
        }
    }
}

/// `*` stands for any text and `?` for one letter.
fn is_like(pattern: &str, text: &str) -> bool {
    let (mut pattern, mut text) = (pattern.as_bytes(), text.as_bytes());
    let mut back: Option<(&[u8], &[u8])> = None;
    loop {
        match (pattern.split_first(), text.split_first()) {
            (Some((b'*', rest)), _) => {
                back = Some((rest, text));
                pattern = rest;
            }
            (Some((p, rest)), Some((t, after))) if *p == b'?' || p == t => (pattern, text) = (rest, after),
            (None, None) => return true,
            _ => match back {
                Some((rest, [_, after @ ..])) => {
                    back = Some((rest, after));
                    (pattern, text) = (rest, after);
                }
                _ => return false,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
    const TWO: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA6rWI3G1sz07DnfFlrouTcysQlj2P+jpNSOEWD9OJ3X";

    fn known(text: &str, host: &str, port: u16) -> Known {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("known_hosts");
        fs_err::write(&file, text).unwrap();
        Known::read(vec![file, dir.path().join("none")], host, port).unwrap()
    }

    fn verdict(text: &str, host: &str, port: u16, key: &str) -> std::result::Result<(), String> {
        let key = PublicKey::from_openssh(key).unwrap();
        known(text, host, port)
            .judge(&key, host, port)
            .map_err(|e| format!("{} | {}", e.message(), e.hint().unwrap_or("")))
    }

    #[test]
    fn names_wildcards_ports_and_hashes_are_matched() {
        // The hash is of example.com.
        let hashed = "|1|O33ESRMWPVkMYIwJ1Uw+n877jTo=|nuuC5vEqXlEZ/8BXQR7m619W6Ak=";
        for (hosts, host, port, want) in [
            ("box", "box", 22, true),
            ("BOX,other", "box", 22, true),
            ("box", "box", 2222, false),
            ("[box]:2222", "box", 2222, true),
            ("*.example.org", "a.example.org", 22, true),
            ("*.example.org,!b.example.org", "b.example.org", 22, false),
            ("b?x", "box", 22, true),
            (hashed, "example.com", 22, true),
            (hashed, "example.org", 22, false),
        ] {
            let found = verdict(&format!("# box\nnonsense\n{hosts} {ONE}\n"), host, port, ONE);
            assert_eq!(found.is_ok(), want, "{hosts} {host}:{port} {found:?}");
        }
    }

    #[test]
    fn strangers_changed_and_revoked_keys_are_told_apart() {
        let stranger = verdict("", "box", 2222, ONE).unwrap_err();
        assert!(
            stranger.contains("not known")
                && stranger.contains("SHA256:")
                && stranger.contains("ssh-keyscan -p 2222 box")
        );
        let changed = verdict(&format!("box {ONE}\n"), "box", 22, TWO).unwrap_err();
        assert!(changed.contains("HAS CHANGED") && changed.contains("known_hosts:1"), "{changed}");
        let revoked = verdict(&format!("box {ONE}\n@revoked * {ONE}\n"), "box", 22, ONE).unwrap_err();
        assert!(revoked.contains("revoked"), "{revoked}");
        // A second key of the same kind is as good as the first.
        verdict(&format!("box {ONE}\nbox {TWO}\n"), "box", 22, TWO).unwrap();
    }

    #[test]
    fn a_pinned_key_counts_alone() {
        let key = PublicKey::from_openssh(ONE).unwrap();
        for text in [ONE.to_owned(), fingerprint(&key)] {
            Known::pinned(&text).unwrap().judge(&key, "box", 22).unwrap();
        }
        let other = Known::pinned(TWO).unwrap().judge(&key, "box", 22).unwrap_err();
        assert_eq!(other.kind(), ErrorKind::Denied);
        assert!(Known::pinned("hunter2").is_err());
    }
}
