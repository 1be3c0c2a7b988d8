//! What a server's answer means to the caller.

use super::RestPlace;
use lastgood_model::{Error, ErrorKind};
use reqwest::header::RETRY_AFTER;
use reqwest::{Response, StatusCode};
use std::fmt;
use std::time::Duration;

/// What is being done, and to what.
#[derive(Clone, Copy)]
pub(super) struct Act<'a>(pub(super) &'static str, pub(super) &'a dyn Showable);

/// Anything that can be shown and sent to another thread.
pub(super) trait Showable: fmt::Display + Sync {}
impl<T: fmt::Display + Sync> Showable for T {}

impl fmt::Display for Act<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.0, self.1)
    }
}

impl Act<'_> {
    pub(super) fn absent(&self, place: &RestPlace) -> Error {
        Error::new(ErrorKind::Absent, format!("{self}: it is not at {place}"))
    }
}

/// What an answer that is no success means.
pub(super) fn judge(act: Act<'_>, place: &RestPlace, status: StatusCode, reason: &[u8]) -> Error {
    let kind = match status.as_u16() {
        404 | 410 => return act.absent(place),
        401 | 403 | 405 => ErrorKind::Denied,
        409 => ErrorKind::Conflict,
        // A quota of the server shows as 413, a full disk as 507.
        413 | 507 => ErrorKind::NoSpace,
        416 => ErrorKind::Corrupt,
        408 | 425 | 429 | 500..=599 => ErrorKind::Retry,
        300..=399 => ErrorKind::Invalid,
        _ => ErrorKind::Io,
    };
    let reason = String::from_utf8_lossy(reason);
    let reason: String = reason.trim().chars().take(200).map(|c| if c.is_control() { ' ' } else { c }).collect();
    // Most servers only say the name of the status again.
    let again = status.canonical_reason().is_some_and(|name| reason.eq_ignore_ascii_case(name));
    let said = if reason.is_empty() || again { String::new() } else { format!(", saying {reason:?}") };
    let error = Error::new(kind, format!("{act}: {place} answered {status}{said}"));
    match status.as_u16() {
        401 => error.with_hint(
            "correct user and password: the user in the URL, `password` in the config, or RESTIC_REST_USERNAME and RESTIC_REST_PASSWORD in the environment",
        ),
        300..=399 => error.with_hint("the server sends us elsewhere; write the address it really has, with http or https as it is"),
        _ => error,
    }
}

/// How long the server asks to be left alone.
pub(super) fn retry_after(response: &Response) -> Option<Duration> {
    if !matches!(response.status().as_u16(), 429 | 503) {
        return None;
    }
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// What it means that no whole answer came.
pub(super) fn troubled(act: Act<'_>, place: &RestPlace, error: reqwest::Error) -> Error {
    let error = error.without_url();
    let causes = std::iter::successors(std::error::Error::source(&error), |cause| cause.source());
    let is_distrust = causes.map(ToString::to_string).any(|text| text.contains("certificate"));
    if is_distrust {
        return Error::new(ErrorKind::Denied, format!("{act}: {place} shows a certificate that is not trusted"))
            .with_source(error)
            .with_hint("name the authority that signed it by `ca_file` in the config or by SSL_CERT_FILE, or correct the host in the URL");
    }
    Error::new(ErrorKind::Retry, format!("{act}: no whole answer from {place}")).with_source(error)
}
