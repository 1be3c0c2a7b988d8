//! `rest:http://user@host:port/path/`, as restic writes it.

use crate::access::{Access, Secret};
use crate::rest::{RestPlace, RestStore};
use lastgood_model::store::Store;
use lastgood_model::{Error, Result};
use std::sync::Arc;

/// What a REST server understands beside its URL.
pub(super) const SETTINGS: &[&str] = &["user", "ca_file"];

/// Understands what follows `rest:`. Messages do not repeat it, since it may hold a password.
pub(super) fn parse(rest: &str) -> Result<RestPlace> {
    let wrong = |why: &str| {
        Error::invalid(format!("{why} in the URL of the REST server"))
            .with_hint("write rest:https://host/path/ or rest:https://user@host:8000/path/, with the password as `password` in the config")
    };
    let url = reqwest::Url::parse(rest).map_err(|error| wrong(&format!("{error}")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(wrong("neither http: nor https: stands after rest:"));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(wrong("there is no host"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("there is a `?` or `#`"));
    }
    let plain = |text: &str| {
        let bytes = super::percent_decode(text.as_bytes()).and_then(|bytes| String::from_utf8(bytes).ok());
        bytes.ok_or_else(|| wrong("`%` is not followed by two hex digits in user or password"))
    };
    let user = (!url.username().is_empty()).then(|| plain(url.username())).transpose()?;
    let password = url.password().map(plain).transpose()?.map(Secret::new);
    let mut base = url.clone();
    // Both succeed where there is a host.
    let _ = (base.set_username(""), base.set_password(None));
    if !base.path().ends_with('/') {
        base.set_path(&format!("{}/", url.path()));
    }
    Ok(RestPlace { base: base.into(), user, password })
}

/// The store, with what the config or else the environment says of user and password.
pub(super) fn open(place: &RestPlace, access: &Access) -> Result<Arc<dyn Store>> {
    let mut place = place.clone();
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    if let Some(user) = access.setting("user") {
        place.user = Some(user.to_owned());
    }
    if let Some(password) = access.secret("password")? {
        place.password = Some(password);
    }
    if place.password.is_none() {
        // The user and the password of the environment belong together.
        let user = variable("RESTIC_REST_USERNAME");
        if place.user.is_none() || place.user == user || user.is_none() {
            place.password = variable("RESTIC_REST_PASSWORD").map(Secret::new);
            place.user = place.user.or(user);
        }
    }
    if place.password.is_some() && place.user.is_none() {
        return Err(Error::invalid(format!("there is a password for {place}, but no user"))
            .with_hint("write the user into the URL: rest:https://user@host/path/"));
    }
    Ok(Arc::new(RestStore::new(place, access.timeouts, access.ca_file.as_deref())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_shown_without_its_password() {
        let place = parse("https://us%40er:p%2Fw@host:8000/a/b").unwrap();
        assert_eq!(place.base, "https://host:8000/a/b/");
        assert_eq!(place.user.as_deref(), Some("us@er"));
        assert_eq!(place.password.as_ref().unwrap().as_str(), "p/w");
        assert_eq!(place.to_string(), "rest:https://us@er@host:8000/a/b/");
        assert!(!format!("{place:?}").contains("p/w"));
        assert_eq!(parse("http://host").unwrap().to_string(), "rest:http://host/");
    }

    #[test]
    fn what_is_no_address_is_refused_without_being_repeated() {
        for text in [
            "",
            "host/x",
            "ftp://u:secret@host/",
            "https://u:secret@/x",
            "https://u:secret@h/?x=1",
            "http://u:secret@h:port/",
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(error.kind(), lastgood_model::ErrorKind::Invalid, "{text}");
            assert!(!error.chain().contains("secret"), "{error:?}");
        }
    }
}
