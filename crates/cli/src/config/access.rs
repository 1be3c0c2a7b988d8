//! The settings of a repository that is not on this machine: credentials by reference, and how to deal with the place.

use super::SecretRef;
use super::decode::{read_secret, refuse_tilde, tidied};
use super::read::Section;
use crate::text::parse_duration;
use crate::wiring::SECRET_NAMES;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What a location alone does not say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AccessConfig {
    /// Credentials by the names of [`SECRET_NAMES`].
    pub(crate) secrets: BTreeMap<&'static str, SecretRef>,
    /// How long objects are locked after they are written.
    pub(crate) lock: Option<Duration>,
    /// Nobody at all may lift such a lock.
    pub(crate) lock_is_compliance: bool,
    /// Certificates of authorities to trust beside the system's.
    pub(crate) ca_file: Option<PathBuf>,
}

const HINT: &str = "write { file = \"path\" }, { env = \"VARIABLE\" }, { command = [\"program\", …] } or \
                    { systemd = \"credential\" }; a credential itself never stands in a config";

pub(super) fn read(section: &mut Section<'_>, folder: &Path) -> AccessConfig {
    let mut secrets = BTreeMap::new();
    for name in SECRET_NAMES {
        let reference = section.table(name, Some(HINT)).and_then(|table| read_secret(table, folder, HINT));
        secrets.extend(reference.map(|reference| (name, reference)));
    }
    let lock = section.parsed("lock", "a span such as \"30d\"", parse_duration);
    let mode = section.choice("lock_mode", &[("governance", false), ("compliance", true)]);
    if let (None, Some(mode)) = (&lock, &mode) {
        let message = format!("`{}` says how, but nothing says that objects are locked", section.path_of("lock_mode"));
        section.wrong(&mode.place, message, Some("write lock = \"30d\" beside it, or remove it".to_owned()));
    }
    let ca_file = section.text("ca_file").map(|found| {
        refuse_tilde(section, &found.value, &found.place);
        tidied(folder.join(found.value))
    });
    AccessConfig {
        secrets,
        lock: lock.map(|found| found.value),
        lock_is_compliance: mode.is_some_and(|found| found.value),
        ca_file,
    }
}
