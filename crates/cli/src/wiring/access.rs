//! From references in a config to what a store is opened with.

use crate::config::{AccessConfig, SecretRef};
use lastgood_model::Result;
use lastgood_model::store::Store;
use lastgood_stores::{Access, CapabilityRecord, LockMode, ObjectLock, Secret, Secrets, Timeouts};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The names of all credentials that a config can refer to.
pub(crate) const SECRET_NAMES: [&str; Access::NAMES.len()] = Access::NAMES;

/// What was found out about the server when the repository was made there; `None` where nothing was, as in a folder.
pub(crate) fn abilities(store: &dyn Store) -> Option<CapabilityRecord> {
    CapabilityRecord::read(store.side()?).ok().flatten()
}

/// Credentials where the config says they are.
struct References(BTreeMap<&'static str, SecretRef>);

impl Secrets for References {
    fn get(&self, name: &str) -> Result<Option<Secret>> {
        self.0.get(name).map(|reference| reference.resolve_credential(name)).transpose()
    }

    fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }
}

/// What a store is opened with.
pub(super) fn of(config: &AccessConfig) -> Access {
    let mode = if config.lock_is_compliance { LockMode::Compliance } else { LockMode::Governance };
    let secrets =
        (!config.secrets.is_empty()).then(|| Arc::new(References(config.secrets.clone())) as Arc<dyn Secrets>);
    let usual = Timeouts::default();
    let timeouts = config.timeout.map_or(usual, |idle| Timeouts { idle, connect: usual.connect.min(idle), ..usual });
    Access {
        secrets,
        timeouts,
        lock: config.lock.map(|keep| ObjectLock { mode, keep }),
        ca_file: config.ca_file.clone(),
        settings: config.settings.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect(),
        ..Access::default()
    }
}
