//! What a repository lies on, as far as its location tells.

use crate::wiring::Mount;
use lastgood_model::status::Known;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What is known of a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Medium {
    /// What it lies on.
    pub(super) name: String,
    /// Whether the data lies there, too.
    pub(super) beside_data: Known,
    /// Whether it is in another place than the data.
    pub(super) offsite: Known,
    /// Whether nobody can remove it for now.
    pub(super) immutable: Known,
}

/// The medium of a location, as a store tells it: a path, or a URL without secrets. `data` is where the data lies.
pub(super) fn of_location(location: &str, data: &[PathBuf]) -> Medium {
    match host_of(location) {
        None => of_folder(Path::new(location), data),
        Some(host) => {
            let cloud = matches!(host.as_str(), "Amazon S3" | "Google Cloud Storage" | "Azure Blob Storage");
            let here = matches!(host.as_str(), "localhost" | "127.0.0.1" | "[::1]");
            let (beside_data, offsite) = match (cloud, here) {
                (true, _) => (Known::No, Known::Yes),
                // A server on this machine, which may keep its data anywhere.
                (_, true) => (Known::Unknown, Known::Unknown),
                _ => (Known::No, Known::Unknown),
            };
            Medium { name: host, beside_data, offsite, immutable: Known::Unknown }
        }
    }
}

/// The host, or the cloud, of a URL; nothing for a path.
fn host_of(location: &str) -> Option<String> {
    let location = location.strip_prefix("rest:").unwrap_or(location);
    let (scheme, rest) = location.split_once("://")?;
    let endpoint = rest.split_once('?').and_then(|(_, query)| {
        let value = query.split('&').find_map(|pair| pair.strip_prefix("endpoint="))?;
        Some(value.split_once("://").map_or(value, |(_, rest)| rest))
    });
    match (scheme, endpoint) {
        ("s3", None) => Some("Amazon S3".to_owned()),
        ("gs", None) => Some("Google Cloud Storage".to_owned()),
        ("az", None) => Some("Azure Blob Storage".to_owned()),
        (_, endpoint) => {
            let authority = endpoint.unwrap_or(rest).split(['/', '?']).next().unwrap_or_default();
            let host = authority.rsplit('@').next().unwrap_or_default();
            // What follows the last colon is a port, unless it is within the brackets of an address.
            let host = match host.rsplit_once(':') {
                Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
                _ => host,
            };
            Some(host.to_owned())
        }
    }
}

fn of_folder(folder: &Path, data: &[PathBuf]) -> Medium {
    let mut medium = Medium {
        name: "unknown disk".to_owned(),
        beside_data: Known::Unknown,
        offsite: Known::Unknown,
        immutable: Known::No,
    };
    let Ok(meta) = fs_err::metadata(folder) else { return medium };
    match fs_err::canonicalize(folder).ok().and_then(|path| Mount::of(&path)) {
        Some(mount) if mount.is_remote() => {
            medium.name = format!("share {}", mount.source);
            medium.beside_data = Known::No;
        }
        mount => {
            let device = meta.dev();
            let number = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
            medium.name = match mount {
                Some(Mount { source, .. }) if source.starts_with('/') => format!("disk {source}"),
                _ => format!("disk {number}"),
            };
            medium.offsite = Known::No;
            let devices: Vec<u64> = data.iter().filter_map(|path| Some(fs_err::metadata(path).ok()?.dev())).collect();
            medium.beside_data = match devices.contains(&device) {
                true => Known::Yes,
                false if devices.len() == data.len() && !data.is_empty() => Known::No,
                false => Known::Unknown,
            };
        }
    }
    medium
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_told_from_locations() {
        for (location, host) in [
            ("s3://bucket/prefix", Some("Amazon S3")),
            ("s3://bucket/prefix?endpoint=https://s3.example.com:9000&region=x", Some("s3.example.com")),
            ("gs://bucket", Some("Google Cloud Storage")),
            ("az://container/x", Some("Azure Blob Storage")),
            ("sftp://me@nas.example:2222/backups", Some("nas.example")),
            ("rest:https://backup.example/shop", Some("backup.example")),
            ("rest:http://[::1]:8000/", Some("[::1]")),
            ("/srv/backups", None),
        ] {
            assert_eq!(host_of(location).as_deref(), host, "{location}");
        }
        assert_eq!(of_location("s3://b", &[]).offsite, Known::Yes);
        assert_eq!(of_location("s3://b?endpoint=http://127.0.0.1:9000", &[]).offsite, Known::Unknown);
    }
}
