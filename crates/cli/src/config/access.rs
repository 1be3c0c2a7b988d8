//! The settings of a repository that is not on this machine: credentials by reference, and how to deal with the place.

use super::SecretRef;
use super::decode::{read_secret, refuse_tilde, tidied};
use super::read::{Found, Section};
use crate::text::{parse_duration, parse_size};
use crate::wiring::{Place, Rates, SECRET_NAMES};
use std::collections::BTreeMap;
use std::num::NonZeroU64;
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
    /// What else leads there, by the names of [`SETTINGS`].
    pub(crate) settings: BTreeMap<&'static str, String>,
    /// How fast bytes may go.
    pub(crate) rates: Rates,
    /// How long it may be silent before a call is given up.
    pub(crate) timeout: Option<Duration>,
    /// How long a call that fails in passing is tried again.
    pub(crate) patience: Option<Duration>,
}

/// Settings of which each means something for some kinds of place, and is passed on as it is.
pub(super) const SETTINGS: &[&str] = &["user", "transport", "known_hosts", "host_key", "ssh_config"];
/// Those of them that are paths.
const PATHS: [&str; 2] = ["known_hosts", "ssh_config"];
/// The others, which are understood here.
pub(super) const OTHERS: [&str; 3] = ["lock", "lock_mode", "ca_file"];

const HINT: &str = "write { file = \"path\" }, { env = \"VARIABLE\" }, { command = [\"program\", …] } or \
                    { systemd = \"credential\" }; a credential itself never stands in a config";

/// What leads to `place`: what does not is left for who closes the section. Everything is taken when the place itself is
/// wrong, so that this is told once.
pub(super) fn read(section: &mut Section<'_>, place: Option<&Place>, folder: &Path) -> AccessConfig {
    let mut secrets = BTreeMap::new();
    for &name in place.map_or(&SECRET_NAMES[..], Place::secrets) {
        let reference = section.table(name, Some(HINT)).and_then(|table| read_secret(table, folder, HINT));
        secrets.extend(reference.map(|reference| (name, reference)));
    }
    let takes = |name: &str| place.is_none_or(|place| place.settings().contains(&name));
    let (mut lock, mut mode) = (None, None);
    if takes("lock") {
        lock = section.parsed("lock", "a span such as \"30d\"", parse_duration);
        mode = section.choice("lock_mode", &[("governance", false), ("compliance", true)]);
    }
    if let (None, Some(mode)) = (&lock, &mode) {
        let message = format!("`{}` says how, but nothing says that objects are locked", section.path_of("lock_mode"));
        section.wrong(&mode.place, message, Some("write lock = \"30d\" beside it, or remove it".to_owned()));
    }
    let ca_file = takes("ca_file").then(|| section.text("ca_file")).flatten().map(|found| {
        refuse_tilde(section, &found.value, &found.place);
        tidied(folder.join(found.value))
    });
    let mut settings = BTreeMap::new();
    for &name in SETTINGS.iter().filter(|name| takes(name)) {
        let Some(Found { value, place }) = section.text(name) else { continue };
        let is_path = PATHS.contains(&name);
        if is_path {
            refuse_tilde(section, &value, &place);
        }
        let value = if is_path { tidied(folder.join(value)).to_string_lossy().into_owned() } else { value };
        settings.insert(name, value);
    }
    let want = "a size a second, such as \"10MiB\"";
    let mut rate = |key| section.parsed(key, want, |text| NonZeroU64::new(parse_size(text)?)).map(|found| found.value);
    let rates = Rates { upload: rate("limit_upload"), download: rate("limit_download") };
    let timeout = span(section, "timeout", "60s");
    let patience = span(section, "patience", "2m");
    AccessConfig {
        secrets,
        settings,
        rates,
        timeout,
        patience,
        lock: lock.map(|found| found.value),
        lock_is_compliance: mode.is_some_and(|found| found.value),
        ca_file,
    }
}

/// A time that must not be nothing, and is `usual` where nothing is said.
fn span(section: &mut Section<'_>, key: &'static str, usual: &str) -> Option<Duration> {
    let Found { value, place } = section.parsed(key, "a span such as \"30s\" or \"5m\"", parse_duration)?;
    if value.is_zero() {
        let message = format!("`{}` must not be zero: no call would ever succeed", section.path_of(key));
        section.wrong(&place, message, Some(format!("leave it out for {usual}")));
        return None;
    }
    Some(value)
}
