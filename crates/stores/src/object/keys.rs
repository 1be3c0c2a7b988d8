//! Keys of S3 that we fetch ourselves, by reference or from a profile, and fetch anew when the server calls them expired.

use super::open::Renew;
use super::profile;
use crate::access::Secret;
use crate::location::ObjectPlace;
use crate::{Access, lock};
use async_trait::async_trait;
use lastgood_model::{Error, Result};
use object_store::CredentialProvider;
use object_store::aws::AwsCredential;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// Where keys come from.
enum Origin {
    /// References of the config.
    References(Access),
    /// AWS's files.
    Profile(Option<String>),
}

/// Keys, fetched when first needed and kept until they are called expired.
pub(super) struct Keys {
    origin: Origin,
    /// With when they were fetched.
    kept: Mutex<Option<(Arc<AwsCredential>, Instant)>>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(…)")
    }
}

/// Which way the keys of a place come.
pub(super) enum Way {
    /// From here.
    Ours(Arc<Keys>),
    /// From the environment or the machine, by the library's own means.
    Library,
}

impl Keys {
    /// Chooses the way: references first, then the environment's keys or web identity, then a profile, then the
    /// machine's role. `region` is set from the profile when nothing else says it.
    pub(super) fn choose(
        place: &ObjectPlace,
        access: &Access,
        variable: &dyn Fn(&str) -> Option<String>,
        region: &mut Option<String>,
    ) -> Result<Way> {
        let ours = |origin| Ok(Way::Ours(Arc::new(Self { origin, kept: Mutex::default() })));
        let set = |name: &str| variable(name).is_some_and(|value| !value.is_empty());
        let by_reference = access
            .secrets
            .as_ref()
            .is_some_and(|secrets| secrets.has("access_key_id") || secrets.has("secret_access_key"));
        if by_reference {
            return ours(Origin::References(access.clone()));
        }
        let of_environment = set("AWS_ACCESS_KEY_ID") && set("AWS_SECRET_ACCESS_KEY");
        if place.profile.is_none() && (of_environment || set("AWS_WEB_IDENTITY_TOKEN_FILE")) {
            return Ok(Way::Library);
        }
        let found = profile::read(place.profile.as_deref(), variable)?;
        if region.is_none() {
            *region = found.region;
        }
        match found.access_key_id {
            Some(_) => ours(Origin::Profile(place.profile.clone())),
            None => Ok(Way::Library),
        }
    }

    fn fetch(&self) -> Result<AwsCredential> {
        let (id, secret, token) = match &self.origin {
            Origin::References(access) => {
                let need = |name: &str| {
                    access.secret(name)?.ok_or_else(|| {
                        Error::invalid(format!("`{name}` is missing"))
                            .with_hint("give `access_key_id` and `secret_access_key` both, or neither")
                    })
                };
                (need("access_key_id")?.to_string(), need("secret_access_key")?, access.secret("session_token")?)
            }
            Origin::Profile(name) => {
                let found = profile::read(name.as_deref(), &|name| std::env::var(name).ok())?;
                let gone = || Error::invalid("the keys are gone from AWS's profile");
                let id = found.access_key_id.ok_or_else(gone)?;
                (id, found.secret_access_key.ok_or_else(gone)?, found.session_token)
            }
        };
        let plain = |secret: Secret| secret.to_string();
        Ok(AwsCredential { key_id: id, secret_key: plain(secret), token: token.map(plain) })
    }
}

impl Renew for Keys {
    fn renew(&self, used_since: Instant) -> bool {
        let mut kept = lock(&self.kept);
        // Several calls fail of the same keys at once, and one of them has fetched others already.
        if kept.as_ref().is_some_and(|(_, fetched)| *fetched > used_since) {
            return true;
        }
        let Ok(fresh) = self.fetch() else { return false };
        let is_other = kept.as_ref().is_none_or(|(keys, _)| **keys != fresh);
        if is_other {
            *kept = Some((Arc::new(fresh), Instant::now()));
        }
        is_other
    }
}

#[async_trait]
impl CredentialProvider for Keys {
    type Credential = AwsCredential;

    /// May block on a command that prints a secret. It runs on the thread of the call that needs it, never on one that
    /// drives sockets.
    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let mut kept = lock(&self.kept);
        if let Some((keys, _)) = &*kept {
            return Ok(keys.clone());
        }
        let fetched =
            self.fetch().map_err(|error| object_store::Error::Generic { store: "S3", source: Box::new(error) })?;
        Ok(kept.insert((Arc::new(fetched), Instant::now())).0.clone())
    }
}
