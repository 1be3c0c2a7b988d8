//! The one error type of the seams. A caller asks [`Error::kind`] what it can do; a person reads the chain and the hint.

use std::fmt;
use std::time::Duration;

/// A result whose error is the seams' [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a caller can do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Passing trouble (network, busy server): the same call may succeed later.
    Retry,
    /// The thing asked for does not exist.
    Absent,
    /// Permission was refused by the operating system or a server.
    Denied,
    /// The object may not be removed or changed before a date (object lock, retention): not now, and not by asking
    /// again soon.
    Held,
    /// Something is already there that must not be overwritten.
    Conflict,
    /// Bytes are not what they must be: damage, truncation, or a foreign format.
    Corrupt,
    /// The repository key does not open this repository.
    WrongKey,
    /// There is no repository at this place.
    NoRepository,
    /// Another process holds a lock that excludes this operation.
    Locked,
    /// The device or quota is full.
    NoSpace,
    /// Valid, but not something this version can handle.
    Unsupported,
    /// The caller's input is unusable (config, flag, name).
    Invalid,
    /// The user or a signal stopped the operation.
    Cancelled,
    /// Reading or writing failed for a reason that fits no other kind.
    Io,
    /// Our own invariant is broken; please report.
    Bug,
}

/// What happened, what can be done about it, and why it happened.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    hint: Option<String>,
    retry_after: Option<Duration>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of `kind`; `message` names the act or the fact, without its cause.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner { kind, message: message.into(), hint: None, retry_after: None, source: None }))
    }

    /// Shorthand for damage found in stored bytes.
    pub fn corrupt(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Corrupt, message)
    }

    /// Shorthand for unusable input.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    /// Wraps an I/O error, taking the kind from its code; `act` is a phrase such as "write pack".
    pub fn io(act: impl Into<String>, source: std::io::Error) -> Self {
        let kind = kind_of_io(&source);
        Self::new(kind, act).with_source(source)
    }

    /// Attaches the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Attaches what to do next, shown apart from the message.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Attaches how long the other side asked to be left alone before the same call is tried again.
    #[must_use]
    pub fn with_retry_after(mut self, wait: Duration) -> Self {
        self.0.retry_after = Some(wait);
        self
    }

    /// Wraps this error in an outer act, keeping kind, hint and the wait that was asked for.
    #[must_use]
    pub fn context(self, act: impl Into<String>) -> Self {
        let kind = self.0.kind;
        let hint = self.0.hint.clone();
        let retry_after = self.0.retry_after;
        Self(Box::new(Inner { kind, message: act.into(), hint, retry_after, source: Some(Box::new(self)) }))
    }

    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What to do next, when the place that failed knew it.
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// How long to wait before the same call is tried again, when the other side said so.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// The message of this error alone, without its causes.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The whole chain on one line, outermost first.
    pub fn chain(&self) -> String {
        let mut out = self.0.message.clone();
        let mut next = std::error::Error::source(self);
        while let Some(cause) = next {
            out.push_str(": ");
            out.push_str(&cause.to_string());
            next = cause.source();
        }
        out
    }
}

fn kind_of_io(error: &std::io::Error) -> ErrorKind {
    use std::io::ErrorKind as K;
    match error.kind() {
        K::NotFound => ErrorKind::Absent,
        K::PermissionDenied | K::ReadOnlyFilesystem => ErrorKind::Denied,
        K::AlreadyExists => ErrorKind::Conflict,
        K::StorageFull | K::QuotaExceeded => ErrorKind::NoSpace,
        K::TimedOut | K::ConnectionRefused | K::ConnectionReset | K::ConnectionAborted => ErrorKind::Retry,
        _ => ErrorKind::Io,
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.0.kind, self.chain())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_ref().map(|s| &**s as &(dyn std::error::Error + 'static))
    }
}

/// Adds the act that failed to a result.
pub trait Context<T> {
    /// Names the act, such as "read manifest".
    fn context(self, act: impl Into<String>) -> Result<T>;
    /// Names the act lazily.
    fn with_context<S: Into<String>>(self, act: impl FnOnce() -> S) -> Result<T>;
}

impl<T> Context<T> for Result<T, Error> {
    fn context(self, act: impl Into<String>) -> Result<T> {
        self.map_err(|e| e.context(act))
    }
    fn with_context<S: Into<String>>(self, act: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|e| e.context(act()))
    }
}

impl<T> Context<T> for std::result::Result<T, std::io::Error> {
    fn context(self, act: impl Into<String>) -> Result<T> {
        self.map_err(|e| Error::io(act, e))
    }
    fn with_context<S: Into<String>>(self, act: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|e| Error::io(act(), e))
    }
}

impl<T> Context<T> for std::result::Result<T, serde_json::Error> {
    fn context(self, act: impl Into<String>) -> Result<T> {
        self.map_err(|e| Error::corrupt(act).with_source(e))
    }
    fn with_context<S: Into<String>>(self, act: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|e| Error::corrupt(act()).with_source(e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn context_keeps_kind_and_hint_and_the_chain_reads_outermost_first() {
        let inner = Error::new(ErrorKind::Locked, "repository is locked").with_hint("wait for the other run");
        let outer = inner.context("begin backup");
        assert_eq!(outer.kind(), ErrorKind::Locked);
        assert_eq!(outer.hint(), Some("wait for the other run"));
        assert_eq!(outer.chain(), "begin backup: repository is locked");
    }

    #[test]
    fn a_full_disk_is_told_apart() {
        let full = std::io::Error::from_raw_os_error(28);
        assert_eq!(Error::io("write pack", full).kind(), ErrorKind::NoSpace);
    }
}
