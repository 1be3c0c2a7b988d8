//! Places in object stores: how people write them, and how they are shown.
//!
//! A location says where and how to reach it, and never holds a secret: one that does is refused, so that none is ever
//! kept in a config or shown in a list of processes. Messages name the parameter, not what was given.

use super::percent_decode;
use lastgood_model::{Error, Result};
use std::fmt;

/// A place in an object store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectPlace {
    /// Which kind of store.
    pub service: Service,
    /// The bucket, or Azure's container.
    pub bucket: String,
    /// What stands before every name, without slashes around it; empty for the whole bucket.
    pub prefix: String,
    /// The server, as `http://host:port` or `https://host`; the provider's own when there is none.
    pub endpoint: Option<String>,
    /// S3's region, when it is not left to the environment.
    pub region: Option<String>,
    /// Whether S3's bucket stands in the path or in the host's name; by default as the server is known to want it.
    pub style: Option<Style>,
    /// The class of storage for packs; everything else is kept warm.
    pub storage_class: Option<String>,
    /// Azure's account, when it is not left to the environment.
    pub account: Option<String>,
    /// The profile in AWS's files, when it is not left to the environment.
    pub profile: Option<String>,
    /// Signs nothing: for public buckets and test servers.
    pub anonymous: bool,
}

/// The kinds of object store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Amazon's S3 and what speaks its protocol.
    S3,
    /// Google Cloud Storage.
    Gcs,
    /// Azure Blob Storage.
    Azure,
}

impl Service {
    /// The scheme that locations are shown with.
    pub fn scheme(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Gcs => "gs",
            Self::Azure => "az",
        }
    }

    fn of_scheme(scheme: &str) -> Option<Self> {
        Some(match scheme {
            "s3" | "s3a" => Self::S3,
            "gs" | "gcs" => Self::Gcs,
            "az" | "azure" => Self::Azure,
            _ => return None,
        })
    }
}

/// Where S3's bucket stands in a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// `https://host/bucket/object`
    Path,
    /// `https://bucket.host/object`
    Host,
}

const SHAPES: &str = "write s3://bucket/prefix?endpoint=https://host&region=eu-west-1, gs://bucket/prefix or \
                      az://container/prefix?account=name";

/// Understands what stands after `scheme:`; `None` when the scheme is another's.
pub(super) fn parse(scheme: &str, rest: &str) -> Option<Result<ObjectPlace>> {
    let service = Service::of_scheme(scheme)?;
    Some(match (rest.strip_prefix("//"), service) {
        (Some(rest), _) => of_url(service, rest),
        // As restic writes them.
        (None, Service::S3) => of_restic_s3(rest),
        (None, _) => of_restic_pair(service, rest),
    })
}

fn wrong(why: impl Into<String>) -> Error {
    Error::invalid(why).with_hint(SHAPES)
}

fn of_url(service: Service, rest: &str) -> Result<ObjectPlace> {
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    if path.contains('#') || query.contains('#') {
        return Err(wrong("`#` must be written %23"));
    }
    let (bucket, prefix) = path.split_once('/').unwrap_or((path, ""));
    if bucket.contains('@') {
        return Err(wrong("a location must not hold a user or a secret, and there is an `@` in it")
            .with_hint("give credentials by reference in the config, or by the environment"));
    }
    let mut place = ObjectPlace::new(service, &decoded(bucket)?, &decoded(prefix)?)?;
    place.take(query)?;
    Ok(place)
}

/// `https://host:port/bucket/prefix`, `host/bucket/prefix`.
fn of_restic_s3(rest: &str) -> Result<ObjectPlace> {
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (scheme, rest) = match rest.split_once("://") {
        Some((scheme @ ("http" | "https"), rest)) => (scheme, rest),
        Some(_) => return Err(wrong("only http and https can follow `s3:`")),
        None => ("https", rest),
    };
    let (host, path) = rest.split_once('/').ok_or_else(|| wrong("the bucket is missing after `s3:host/`"))?;
    if host.is_empty() || host.contains('@') {
        return Err(wrong("there is no plain host after `s3:`"));
    }
    let (bucket, prefix) = path.split_once('/').unwrap_or((path, ""));
    let mut place = ObjectPlace::new(Service::S3, &decoded(bucket)?, &decoded(prefix)?)?;
    place.take(query)?;
    // `s3.eu-west-1.amazonaws.com` says the region too; the global name says nothing that is not known.
    match host.strip_suffix(".amazonaws.com").map(|name| name.trim_start_matches("s3")) {
        Some("") => {}
        Some(region) if place.region.is_none() => place.region = Some(region.trim_matches(['.', '-']).to_owned()),
        Some(_) => {}
        None => place.endpoint = Some(format!("{scheme}://{host}")),
    }
    Ok(place)
}

/// `bucket:/prefix`
fn of_restic_pair(service: Service, rest: &str) -> Result<ObjectPlace> {
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (bucket, prefix) = rest.split_once(':').unwrap_or((rest, ""));
    let mut place = ObjectPlace::new(service, &decoded(bucket)?, &decoded(prefix)?)?;
    place.take(query)?;
    Ok(place)
}

fn decoded(text: &str) -> Result<String> {
    let bytes = percent_decode(text.as_bytes()).ok_or_else(|| wrong("`%` is not followed by two hex digits"))?;
    String::from_utf8(bytes).map_err(|_| wrong("what `%` encodes is not UTF-8"))
}

impl ObjectPlace {
    /// The whole of `bucket`, or what is below `prefix` in it, with everything else left to defaults.
    ///
    /// # Errors
    /// [`lastgood_model::ErrorKind::Invalid`] for what cannot be a bucket or a prefix.
    pub fn new(service: Service, bucket: &str, prefix: &str) -> Result<Self> {
        let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        if bucket.is_empty() || !bucket.bytes().all(legal) {
            return Err(wrong("what stands for the bucket can be none: letters, digits, `.`, `-` and `_` can"));
        }
        let prefix = prefix.trim_matches('/');
        let plain = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.chars().any(char::is_control);
        if !prefix.is_empty() && !prefix.split('/').all(plain) {
            return Err(wrong("the prefix has an empty part, `.`, `..` or a control character in it"));
        }
        Ok(Self {
            service,
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
            endpoint: None,
            region: None,
            style: None,
            storage_class: None,
            account: None,
            profile: None,
            anonymous: false,
        })
    }

    /// Reads the parameters after `?`.
    fn take(&mut self, query: &str) -> Result<()> {
        let mut plain_http = None;
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decoded(value)?;
            let foreign = |service| self.service != service;
            match name {
                "endpoint" if !value.is_empty() => self.endpoint = Some(value),
                "storage_class" if is_word(&value) => self.storage_class = Some(value),
                "region" if is_word(&value) && !foreign(Service::S3) => self.region = Some(value),
                "profile" if !value.is_empty() && !foreign(Service::S3) => self.profile = Some(value),
                "style" if !foreign(Service::S3) => {
                    self.style = Some(match value.as_str() {
                        "path" => Style::Path,
                        "host" => Style::Host,
                        _ => return Err(wrong("`style` can be `path` or `host`")),
                    });
                }
                "account" if is_word(&value) && !foreign(Service::Azure) => self.account = Some(value),
                "tls" => match value.as_str() {
                    "off" => plain_http = Some(true),
                    "on" => plain_http = Some(false),
                    _ => return Err(wrong("`tls` can be `on` or `off`")),
                },
                "auth" => match value.as_str() {
                    "none" => self.anonymous = true,
                    _ => return Err(wrong("`auth` can only be `none`; leave it out to sign requests")),
                },
                name if is_secret(name) => {
                    return Err(Error::invalid(format!("`{name}` is a secret and must not stand in a location"))
                        .with_hint("give it by reference in the config, or by the environment"));
                }
                _ => {
                    let service = self.service.scheme();
                    return Err(wrong(format!("locations with {service}:// have no parameter like `{}`", cut(name))));
                }
            }
        }
        self.settle_endpoint(plain_http)
    }

    /// Gives the endpoint a scheme, and makes sure that it is no more than a server.
    fn settle_endpoint(&mut self, plain_http: Option<bool>) -> Result<()> {
        let Some(endpoint) = &self.endpoint else {
            return match plain_http {
                Some(true) => Err(wrong("`tls=off` is for an `endpoint` of one's own, and there is none")),
                _ => Ok(()),
            };
        };
        let (scheme, rest) = match endpoint.split_once("://") {
            Some(("http", _)) if plain_http == Some(false) => {
                return Err(wrong("`tls=on` contradicts an `endpoint` that begins with http://"));
            }
            Some(("https", _)) if plain_http == Some(true) => {
                return Err(wrong("`tls=off` contradicts an `endpoint` that begins with https://"));
            }
            Some((scheme @ ("http" | "https"), rest)) => (scheme, rest),
            Some(_) => return Err(wrong("`endpoint` can begin with http:// or https://, and with no other scheme")),
            None if plain_http == Some(true) => ("http", endpoint.as_str()),
            None => ("https", endpoint.as_str()),
        };
        let rest = rest.trim_end_matches('/');
        if rest.is_empty() || rest.starts_with('/') || rest.contains(['@', '?', '#', ' ']) {
            return Err(wrong("`endpoint` is not a plain server, such as https://host:9000"));
        }
        self.endpoint = Some(format!("{scheme}://{rest}"));
        Ok(())
    }
}

fn is_word(value: &str) -> bool {
    !value.is_empty() && value.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

/// Names under which people keep secrets.
fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["key", "secret", "token", "password", "sas", "sig", "credential"].iter().any(|word| name.contains(word))
}

/// A name that may have been meant as something else, no longer than one is.
fn cut(name: &str) -> String {
    name.chars().take(24).collect()
}

/// As it can be written again: without secrets, since there are none in it.
impl fmt::Display for ObjectPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.service.scheme(), self.bucket)?;
        if !self.prefix.is_empty() {
            write!(f, "/{}", encoded(&self.prefix))?;
        }
        let style = self.style.map(|style| match style {
            Style::Path => "path".to_owned(),
            Style::Host => "host".to_owned(),
        });
        let pairs = [
            ("endpoint", &self.endpoint),
            ("region", &self.region),
            ("style", &style),
            ("storage_class", &self.storage_class),
            ("account", &self.account),
            ("profile", &self.profile),
            ("auth", &self.anonymous.then(|| "none".to_owned())),
        ];
        let set = pairs.iter().filter_map(|(name, value)| value.as_ref().map(|value| (name, value)));
        for (n, (name, value)) in set.enumerate() {
            write!(f, "{}{name}={}", if n == 0 { '?' } else { '&' }, encoded(value))?;
        }
        Ok(())
    }
}

/// With `%` before what would end the part it stands in.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '%' | '?' | '#' | '&' | '+' | ' ' => out.push_str(&format!("%{:02X}", c as u32)),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use lastgood_model::ErrorKind;

    fn of(text: &str) -> Result<ObjectPlace> {
        let (scheme, rest) = text.split_once(':').unwrap();
        parse(scheme, rest).unwrap_or_else(|| panic!("{text}: not ours"))
    }

    #[test]
    fn what_is_written_is_shown_and_understood_again() {
        for text in [
            "s3://bucket",
            "s3://bucket/a/b?endpoint=http://127.0.0.1:9000&region=eu-west-1&style=path&storage_class=GLACIER_IR",
            "s3://my.bucket/deep%20prefix?profile=backup",
            "gs://bucket/x?endpoint=http://localhost:9023&auth=none",
            "az://container/p?account=shop",
        ] {
            assert_eq!(of(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn the_ways_of_restic_are_understood() {
        for (theirs, ours) in [
            ("s3:https://host:9000/bucket/a", "s3://bucket/a?endpoint=https://host:9000"),
            ("s3:http://host/bucket", "s3://bucket?endpoint=http://host"),
            ("s3:minio.example/bucket/a/b/", "s3://bucket/a/b?endpoint=https://minio.example"),
            ("s3:s3.amazonaws.com/bucket", "s3://bucket"),
            ("s3:s3.eu-west-1.amazonaws.com/bucket/a", "s3://bucket/a?region=eu-west-1"),
            ("gs:bucket:/a/b", "gs://bucket/a/b"),
            ("azure:container:/", "az://container"),
        ] {
            assert_eq!(of(theirs).unwrap().to_string(), ours, "{theirs}");
        }
    }

    #[test]
    fn an_endpoint_gets_its_scheme() {
        for (text, endpoint) in [
            ("s3://b?endpoint=host:9000", "https://host:9000"),
            ("s3://b?endpoint=host:9000&tls=off", "http://host:9000"),
            ("s3://b?tls=on&endpoint=https%3A%2F%2Fhost%2F", "https://host"),
        ] {
            assert_eq!(of(text).unwrap().endpoint.as_deref(), Some(endpoint), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused_and_secrets_are_not_repeated() {
        for text in [
            "s3:",
            "s3://",
            "s3:///prefix",
            "s3:host",
            "s3:ftp://host/bucket",
            "s3://bucket/a//x",
            "s3://bucket/../x",
            "s3://bucket?style=virtual",
            "s3://bucket?tls=off",
            "s3://bucket?endpoint=http://host&tls=on",
            "s3://bucket?endpoint=https://user:hunter2@host",
            "s3://AKIA:hunter2@host/bucket",
            "s3://bucket?secret_access_key=hunter2",
            "s3://bucket?hunter2",
            "s3://buck et",
            "gs://bucket?region=eu",
            "az://container?sas=hunter2",
            "az://container%2",
        ] {
            let error = of(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{text}");
            let said = format!("{} {}", error.chain(), error.hint().unwrap_or_default());
            assert!(!said.contains("hunter2") || text.ends_with("?hunter2"), "{text}: {said}");
        }
    }
}
