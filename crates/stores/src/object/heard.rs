//! What a server said during one call, and what that means.
//!
//! The client library folds answers into errors of its own, whose texts may hold signed URLs. So the wire keeps what
//! counts of each answer here, and errors are made from that: status, the provider's own code and words, when to come
//! back. Nothing else of an answer ever gets into a message.

use crate::bridge::Pulse;
use crate::lock;
use lastgood_model::{Error, ErrorKind};
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

tokio::task_local! {
    /// The call that is being made.
    static CALL: Arc<Heard>;
}

/// What was heard during one call, which may be several requests: of pages, or for a token first. The last answer counts.
#[derive(Debug)]
pub(super) struct Heard {
    pub(super) pulse: Pulse,
    last: Mutex<Answer>,
}

/// What counts of one answer.
#[derive(Clone, Debug, Default)]
pub(super) struct Answer {
    /// The HTTP status; 0 while there was none.
    pub(super) status: u16,
    /// The provider's own word for what is wrong, such as `NoSuchKey`.
    pub(super) code: String,
    /// The provider's sentence.
    pub(super) message: String,
    /// How long to stay away.
    pub(super) retry_after: Option<Duration>,
    /// The server's clock, in seconds since 1970.
    pub(super) date: Option<i64>,
    /// The whole object's length, when a range was asked for.
    pub(super) total: Option<u64>,
    /// Until when the object is locked.
    pub(super) retain_until: Option<String>,
    /// The bucket keeps old versions of objects.
    pub(super) is_versioned: bool,
    /// The region in which the bucket really is.
    pub(super) region: Option<String>,
    /// What kept an answer from coming, or its body from coming whole.
    pub(super) broken: Option<Broken>,
}

/// A request without a whole answer.
#[derive(Clone, Debug)]
pub(super) struct Broken {
    pub(super) cause: Cause,
    /// The system's or library's words.
    pub(super) why: String,
}

/// What kind of trouble kept it from coming.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// What the network does now and then.
    Network,
    /// The certificate is not trusted: trying again changes nothing.
    Certificate,
    /// Nobody answers where a machine with a role gets its credentials: this machine has none.
    NoRole,
}

impl Heard {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { pulse: Pulse::new(), last: Mutex::default() })
    }

    /// The call that the running code belongs to.
    pub(super) fn current() -> Option<Arc<Self>> {
        CALL.try_with(Arc::clone).ok()
    }

    /// Runs `future` as part of this call.
    pub(super) fn during<F: Future>(self: &Arc<Self>, future: F) -> impl Future<Output = F::Output> + use<F> {
        CALL.scope(self.clone(), future)
    }

    /// Notes an answer, in the place of the one before.
    pub(super) fn note(&self, answer: Answer) {
        *lock(&self.last) = answer;
    }

    /// Notes that the answer did not come, or not whole.
    pub(super) fn note_broken(&self, broken: Broken) {
        lock(&self.last).broken = Some(broken);
    }

    /// The last answer.
    pub(super) fn last(&self) -> Answer {
        lock(&self.last).clone()
    }
}

/// Codes with which servers say that a key, a token or a signature is too old.
const EXPIRED: [&str; 6] = [
    "ExpiredToken",
    "ExpiredTokenException",
    "TokenRefreshRequired",
    "RequestExpired",
    "InvalidToken",
    "ExpiredAuthenticationToken",
];

impl Answer {
    /// True when the credentials were good once: fetching them anew may help.
    pub(super) fn is_expired(&self) -> bool {
        let words = self.message.contains("expired") && matches!(self.status, 400 | 401 | 403);
        words || EXPIRED.contains(&self.code.as_str())
    }

    /// True when a name is taken that was to be made.
    pub(super) fn is_taken(&self) -> bool {
        matches!(self.status, 304 | 412) || self.code == "BlobAlreadyExists"
    }

    /// True when the server does not know conditional writes at all and says so.
    pub(super) fn knows_no_conditions(&self) -> bool {
        self.status == 501 || (self.status == 400 && self.code == "NotImplemented")
    }

    fn is_held(&self) -> bool {
        let text = self.message.to_ascii_lowercase();
        matches!(
            self.code.as_str(),
            "BlobImmutableDueToPolicy" | "BlobImmutableDueToLegalHold" | "RetentionPolicyNotMet"
        ) || self.code == "ObjectLocked"
            || (matches!(self.status, 400 | 403 | 409)
                && ["object lock", "worm protected", "retention policy", "under active", "legal hold"]
                    .iter()
                    .any(|words| text.contains(words)))
    }

    /// What a caller can do about it, and what a person.
    fn kind(&self) -> (ErrorKind, Option<&'static str>) {
        use ErrorKind as K;
        if let Some(broken) = &self.broken {
            return match broken.cause {
                Cause::Network => (K::Retry, None),
                Cause::Certificate => {
                    (K::Denied, Some("for a server with a certificate of one's own name its authority: `ca_file`"))
                }
                Cause::NoRole => (
                    K::Denied,
                    Some("give credentials: by reference in the config, by the environment, or by a profile"),
                ),
            };
        }
        match self.code.as_str() {
            "NoSuchBucket" | "ContainerNotFound" | "InvalidBucketName" | "NoSuchContainer" => {
                return (K::NoRepository, Some("make the bucket first, or correct its name"));
            }
            "RequestTimeTooSkewed" => {
                return (K::Denied, Some("this machine's clock differs from the server's: set it right"));
            }
            "QuotaExceeded" | "StorageFull" | "XMinioStorageFull" | "InsufficientStorage" | "BucketQuotaExceeded" => {
                return (K::NoSpace, None);
            }
            "ConditionalRequestConflict"
            | "OperationAborted"
            | "RequestTimeout"
            | "SlowDown"
            | "IncompleteBody"
            | "BadDigest"
            | "XAmzContentSHA256Mismatch"
            | "Md5Mismatch"
            | "ServerBusy" => return (K::Retry, None),
            "InvalidObjectState" | "BlobArchived" => {
                return (
                    K::Unsupported,
                    Some("it lies in a cold class of storage: have the provider bring it back first, then try again"),
                );
            }
            _ => {}
        }
        if self.is_held() {
            return (K::Held, None);
        }
        if self.is_expired() {
            return (K::Denied, Some("the credentials have expired: renew them"));
        }
        match self.status {
            0 => (K::Io, None),
            // Cut short, or by somebody in between who is not the store.
            200..=299 => (K::Retry, None),
            301 | 302 | 307 | 308 => (K::Invalid, Some("the bucket is in another region or behind another endpoint")),
            401 | 403 => (K::Denied, Some("check the credentials, and what they are permitted to do")),
            404 | 410 => (K::Absent, None),
            304 | 409 | 412 => (K::Conflict, None),
            408 | 425 | 429 | 500 | 502 | 503 | 504 => (K::Retry, None),
            416 => (K::Corrupt, None),
            405 | 501 => (K::Unsupported, None),
            507 => (K::NoSpace, None),
            _ => (K::Io, None),
        }
    }

    /// The error for a call of which this was the last answer. `act` and `place` as in [`crate::bridge::block_on`].
    pub(super) fn error(&self, act: &dyn fmt::Display, place: &dyn fmt::Display) -> Error {
        let (kind, hint) = self.kind();
        let mut error = Error::new(kind, format!("{act} in {place}: {self}"));
        if let Some(wait) = self.retry_after.filter(|_| kind == ErrorKind::Retry) {
            error = error.with_retry_after(wait);
        }
        match (&self.region, hint) {
            (Some(region), _) if matches!(self.status, 301 | 307 | 400) => {
                error.with_hint(format!("the bucket is in region {region}: put `region={region}` into its location"))
            }
            (_, Some(hint)) => error.with_hint(hint),
            _ => error,
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.broken, self.status) {
            (Some(Broken { cause: Cause::NoRole, .. }), _) => {
                return f.write_str("there are no credentials: none were given, and this machine has no role");
            }
            (Some(broken), 0) => return write!(f, "{}", broken.why),
            (Some(broken), _) => return write!(f, "the answer broke off: {}", broken.why),
            (None, 0) => return f.write_str("there was no answer"),
            (None, status @ 200..=299) => return write!(f, "the server answered {status} with what makes no sense"),
            (None, status) => write!(f, "the server answered {status}")?,
        }
        if !self.code.is_empty() {
            write!(f, " {}", self.code)?;
        }
        if !self.message.is_empty() {
            write!(f, " ({})", self.message)?;
        }
        Ok(())
    }
}

/// The text of an element in an XML answer, entities resolved, no longer than a message should be.
pub(super) fn element(text: &str, name: &str) -> String {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let found = text.split_once(&open).and_then(|(_, rest)| rest.split_once(&close)).map_or("", |(inner, _)| inner);
    let mut plain = found.trim().to_owned();
    for (entity, c) in [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&#39;", "'"), ("&amp;", "&")]
    {
        plain = plain.replace(entity, c);
    }
    // Azure puts the request's id and time into further lines.
    let line = plain.lines().next().unwrap_or_default();
    line.chars().filter(|c| !c.is_control()).take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, code: &str, message: &str) -> Answer {
        Answer { status, code: code.to_owned(), message: message.to_owned(), ..Answer::default() }
    }

    #[test]
    fn answers_become_what_a_caller_can_do() {
        use ErrorKind as K;
        for (status, code, message, kind) in [
            (404, "NoSuchKey", "", K::Absent),
            (404, "NoSuchBucket", "", K::NoRepository),
            (404, "ContainerNotFound", "", K::NoRepository),
            (403, "AccessDenied", "Access Denied", K::Denied),
            (403, "AccessDenied", "Access Denied because object protected by object lock.", K::Held),
            (400, "InvalidRequest", "Object is WORM protected and cannot be overwritten", K::Held),
            (409, "BlobImmutableDueToPolicy", "", K::Held),
            (403, "", "Object 'x' is subject to bucket's retention policy", K::Held),
            (400, "ExpiredToken", "The provided token has expired.", K::Denied),
            (403, "RequestTimeTooSkewed", "", K::Denied),
            (409, "ConditionalRequestConflict", "", K::Retry),
            (412, "PreconditionFailed", "", K::Conflict),
            (409, "BlobAlreadyExists", "", K::Conflict),
            (416, "InvalidRange", "", K::Corrupt),
            (429, "", "", K::Retry),
            (500, "InternalError", "", K::Retry),
            (503, "SlowDown", "", K::Retry),
            (400, "RequestTimeout", "", K::Retry),
            (400, "BadDigest", "", K::Retry),
            (507, "", "", K::NoSpace),
            (403, "QuotaExceeded", "", K::NoSpace),
            (501, "NotImplemented", "", K::Unsupported),
            (403, "InvalidObjectState", "", K::Unsupported),
        ] {
            let error = answer(status, code, message).error(&"read x", &"s3://b");
            assert_eq!(error.kind(), kind, "{status} {code} {message}");
            assert!(error.message().starts_with("read x in s3://b: the server answered"), "{error}");
        }
    }

    #[test]
    fn only_trouble_that_passes_says_when_to_come_back() {
        let wait = Some(Duration::from_secs(7));
        let busy = Answer { retry_after: wait, ..answer(503, "SlowDown", "") };
        assert_eq!(busy.error(&"x", &"y").retry_after(), wait);
        let denied = Answer { retry_after: wait, ..answer(403, "", "") };
        assert_eq!(denied.error(&"x", &"y").retry_after(), None);
    }

    #[test]
    fn a_code_is_found_in_the_xml_of_an_answer() {
        let text = "<?xml version=\"1.0\"?><Error><Code>NoSuchKey</Code><Message>no &quot;x&quot; &amp; y\nTime:1</Message></Error>";
        assert_eq!(element(text, "Code"), "NoSuchKey");
        assert_eq!(element(text, "Message"), "no \"x\" & y");
        assert_eq!(element(text, "Region"), "");
        assert_eq!(element("<Code>", "Code"), "");
    }
}
