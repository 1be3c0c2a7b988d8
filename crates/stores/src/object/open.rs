//! From a place and what is needed beside it to the clients of its provider.

#[cfg(feature = "s3")]
use super::keys::{Keys, Way};
use super::wire::Wire;
use crate::Access;
use crate::access::{LockMode, ObjectLock};
#[cfg(feature = "s3")]
use crate::location::Style;
use crate::location::{ObjectPlace, Service};
use jiff::{SignedDuration, Timestamp};
use lastgood_model::{Error, ErrorKind, Result};
use object_store::{ClientOptions, HeaderMap, HeaderValue, ObjectStore, RetryConfig};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Makes a client that sends these headers with every request, signed.
type Maker = Box<dyn Fn(HeaderMap) -> Result<Arc<dyn ObjectStore>> + Send + Sync>;

/// The clients of one place.
pub(super) struct Clients {
    pub(super) plain: Arc<dyn ObjectStore>,
    /// For objects that are locked as they are written.
    pub(super) locking: Option<Locking>,
    /// Keys that can be fetched anew.
    pub(super) keys: Option<Arc<dyn Renew>>,
}

/// Keys that the server has called expired.
pub(super) trait Renew: Send + Sync {
    /// Fetches them anew, unless that has happened since a call with them began. True when there are other ones now.
    fn renew(&self, used_since: Instant) -> bool;
}

/// Makes clients that lock what they write.
#[cfg_attr(not(feature = "s3"), allow(dead_code, reason = "S3 alone locks objects one by one"))]
pub(super) struct Locking {
    make: Maker,
    pub(super) lock: ObjectLock,
}

/// The dates of locks are whole hours, so that one client serves for that long.
const LOCK_STEP_SECONDS: i64 = 3600;

impl Locking {
    /// Until when an object written now is to be kept.
    pub(super) fn until(&self, now: Timestamp) -> Timestamp {
        let keep = SignedDuration::try_from(self.lock.keep).unwrap_or(SignedDuration::MAX);
        let end = now.checked_add(keep).unwrap_or(Timestamp::MAX).as_second();
        let step = end.div_euclid(LOCK_STEP_SECONDS).saturating_add(1).saturating_mul(LOCK_STEP_SECONDS);
        Timestamp::from_second(step).unwrap_or(Timestamp::MAX)
    }

    /// A date that is over before anybody looks for the object: for trying whether locks are made at all.
    pub(super) fn until_soon(now: Timestamp) -> Timestamp {
        now.checked_add(SignedDuration::from_secs(90)).unwrap_or(Timestamp::MAX)
    }

    /// A client whose objects are kept until then.
    pub(super) fn client(&self, until: Timestamp) -> Result<Arc<dyn ObjectStore>> {
        let mode = match self.lock.mode {
            LockMode::Governance => "GOVERNANCE",
            LockMode::Compliance => "COMPLIANCE",
        };
        let mut headers = HeaderMap::new();
        headers.insert("x-amz-object-lock-mode", HeaderValue::from_static(mode));
        let date = HeaderValue::from_str(&until.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
            .map_err(|e| Error::new(ErrorKind::Bug, "write the date of a lock").with_source(e))?;
        headers.insert("x-amz-object-lock-retain-until-date", date);
        (self.make)(headers)
    }
}

/// The library repeats nothing: whoever wraps the store does, and obeys what the server says about when.
fn no_retries() -> RetryConfig {
    RetryConfig { max_retries: 0, retry_timeout: Duration::ZERO, ..RetryConfig::default() }
}

fn options(headers: HeaderMap) -> ClientOptions {
    Wire::options().with_default_headers(headers)
}

/// A complaint about settings, before anything was sent.
fn unusable(error: object_store::Error) -> Error {
    Error::invalid(format!("set up the client: {error}"))
}

#[cfg(not(all(feature = "s3", feature = "gcs", feature = "azure")))]
fn not_built(service: Service) -> Error {
    let scheme = service.scheme();
    Error::new(ErrorKind::Unsupported, format!("this build of lastgood has no stores of kind {scheme}://"))
}

#[cfg(any(feature = "s3", feature = "azure"))]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Makes the clients. Sends nothing; fetches no secret of S3, which is done when one is first needed.
pub(super) fn clients(place: &ObjectPlace, access: &Access) -> Result<Clients> {
    if access.lock.is_some() && place.service != Service::S3 {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!("objects can be locked one by one on S3 alone, not at {}://", place.service.scheme()),
        )
        .with_hint("set a retention policy on the bucket or container itself, and leave `lock` out"));
    }
    let wire = Wire::new(access)?;
    match place.service {
        #[cfg(feature = "s3")]
        Service::S3 => s3(place, access, &wire),
        #[cfg(feature = "gcs")]
        Service::Gcs => gcs(place, access, &wire).map(only),
        #[cfg(feature = "azure")]
        Service::Azure => azure(place, access, &wire).map(only),
        #[cfg(not(all(feature = "s3", feature = "gcs", feature = "azure")))]
        other => Err(not_built(other)),
    }
}

#[cfg(any(feature = "gcs", feature = "azure"))]
fn only(plain: Arc<dyn ObjectStore>) -> Clients {
    Clients { plain, locking: None, keys: None }
}

/// With which AWS's programs are given credentials.
#[cfg(feature = "s3")]
const CREDENTIAL_VARIABLES: [&str; 11] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_ENDPOINT_URL_STS",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_METADATA_ENDPOINT",
];

#[cfg(feature = "s3")]
fn s3(place: &ObjectPlace, access: &Access, wire: &Wire) -> Result<Clients> {
    use object_store::aws::{AmazonS3Builder, Checksum, S3ConditionalPut};
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    let mut region = place.region.clone().or_else(|| set("AWS_REGION")).or_else(|| set("AWS_DEFAULT_REGION"));
    let way = if place.anonymous { Way::Library } else { Keys::choose(place, access, &variable, &mut region)? };
    // Only what carries credentials is taken from the environment; where the bucket is, the location says.
    let mut builder = AmazonS3Builder::new();
    for name in CREDENTIAL_VARIABLES {
        if let (Some(value), Ok(key)) = (set(name), name.to_ascii_lowercase().parse()) {
            builder = builder.with_config(key, value);
        }
    }
    builder = builder
        .with_bucket_name(&place.bucket)
        .with_region(region.unwrap_or_else(|| "us-east-1".to_owned()))
        .with_retry(no_retries())
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_disable_bulk_delete(true)
        .with_disable_tagging(true)
        .with_skip_signature(place.anonymous)
        .with_http_connector(wire.clone());
    // What begins the host's name cannot hold a dot and match a certificate.
    let by_host = match (place.style, &place.endpoint) {
        (Some(style), _) => style == Style::Host,
        (None, endpoint) => endpoint.is_none() && !place.bucket.contains('.'),
    };
    builder = builder.with_virtual_hosted_style_request(by_host);
    if let Some(endpoint) = &place.endpoint {
        builder = builder.with_endpoint(match endpoint.split_once("://") {
            Some((scheme, host)) if by_host => format!("{scheme}://{}.{host}", place.bucket),
            _ => endpoint.clone(),
        });
    }
    let keys = match way {
        Way::Ours(keys) => {
            builder = builder.with_credentials(keys.clone());
            Some(keys as Arc<dyn Renew>)
        }
        Way::Library => None,
    };
    let made = move |builder: AmazonS3Builder, headers| -> Result<Arc<dyn ObjectStore>> {
        Ok(Arc::new(builder.with_client_options(options(headers)).build().map_err(unusable)?))
    };
    let plain = made(builder.clone(), HeaderMap::new())?;
    let locking = access.lock.map(|lock| {
        // The server takes a lock only with a digest of what it locks.
        let builder = builder.with_checksum_algorithm(Checksum::SHA256);
        Locking { make: Box::new(move |headers| made(builder.clone(), headers)), lock }
    });
    Ok(Clients { plain, locking, keys })
}

#[cfg(feature = "gcs")]
fn gcs(place: &ObjectPlace, access: &Access, wire: &Wire) -> Result<Arc<dyn ObjectStore>> {
    use object_store::gcp::GoogleCloudStorageBuilder;
    let mut builder = match access.secret("service_account")? {
        Some(key) => GoogleCloudStorageBuilder::new().with_service_account_key(key.as_str()),
        None if place.anonymous => GoogleCloudStorageBuilder::new().with_credentials(Arc::new(
            object_store::StaticCredentialProvider::new(object_store::gcp::GcpCredential { bearer: String::new() }),
        )),
        None => GoogleCloudStorageBuilder::from_env(),
    };
    if let Some(endpoint) = &place.endpoint {
        builder = builder.with_base_url(endpoint);
    }
    let builder = builder
        .with_bucket_name(&place.bucket)
        .with_skip_signature(place.anonymous)
        .with_retry(no_retries())
        .with_client_options(options(HeaderMap::new()))
        .with_http_connector(wire.clone());
    Ok(Arc::new(builder.build().map_err(unusable)?))
}

#[cfg(feature = "azure")]
fn azure(place: &ObjectPlace, access: &Access, wire: &Wire) -> Result<Arc<dyn ObjectStore>> {
    use object_store::azure::{MicrosoftAzureBuilder, split_sas};
    let (key, sas) = (access.secret("account_key")?, access.secret("sas")?);
    let mut builder = match key.is_some() || sas.is_some() {
        true => MicrosoftAzureBuilder::new(),
        false => MicrosoftAzureBuilder::from_env(),
    };
    // The names that restic's users have set.
    let account = place.account.clone().or_else(|| variable("AZURE_ACCOUNT_NAME"));
    if let Some(account) = account.or_else(|| variable("AZURE_STORAGE_ACCOUNT_NAME")) {
        builder = builder.with_account(account);
    }
    if let Some(key) = key {
        builder = builder.with_access_key(key.as_str());
    } else if let Some(sas) = sas {
        let pairs = split_sas(&sas).map_err(|_| Error::invalid("`sas` is no shared access signature"))?;
        builder = builder.with_sas_authorization(pairs);
    } else if let Some(key) = variable("AZURE_ACCOUNT_KEY").filter(|key| !key.is_empty()) {
        builder = builder.with_access_key(key);
    }
    if let Some(endpoint) = &place.endpoint {
        builder = builder.with_endpoint(endpoint.clone());
    }
    let builder = builder
        .with_container_name(&place.bucket)
        .with_skip_signature(place.anonymous)
        .with_disable_tagging(true)
        .with_retry(no_retries())
        .with_client_options(options(HeaderMap::new()))
        .with_http_connector(wire.clone());
    Ok(Arc::new(builder.build().map_err(unusable)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_ends_at_the_hour_after_its_span() {
        let lock = ObjectLock { mode: LockMode::Compliance, keep: Duration::from_secs(30 * 86_400) };
        let locking = Locking { make: Box::new(|_| Err(Error::invalid("unused"))), lock };
        let until = |now: &str| locking.until(now.parse().unwrap()).to_string();
        assert_eq!(until("2026-11-21T20:52:50Z"), "2026-12-21T21:00:00Z");
        assert_eq!(until("2026-11-21T20:00:00Z"), "2026-12-21T21:00:00Z");
        assert_eq!(until("2026-11-21T21:00:00Z"), "2026-12-21T22:00:00Z");
    }
}
