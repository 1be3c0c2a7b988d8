//! HTTP as the clients of all object stores use it: one client of our own below theirs.
//!
//! It follows no redirects (a signed request is good for one host), speaks HTTP/1.1 on as many connections as there are
//! calls, keeps what each answer says for [`Heard`], and tells of every piece that moves in either direction, so that a
//! stalled peer is told from a slow one.

use super::heard::{Answer, Broken, Cause, Heard, element};
use crate::Access;
use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use lastgood_model::{Context as _, Error, Result};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse, HttpResponseBody,
    HttpService,
};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// An answer that explains a refusal is never longer than this; more is not read.
const EXPLANATION_BYTES_MAX: usize = 64 << 10;
/// A page of a list has a thousand names, each shorter than this over a thousand.
const LIST_BYTES_MAX: usize = 16 << 20;
/// How long the machine's own service for credentials may take to be connected to. Where there is none, nobody answers.
const ROLE_CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Connections that nobody has used for so long are closed: servers and what stands between drop them without a word.
const POOL_IDLE: Duration = Duration::from_secs(20);

/// Makes the clients of one store.
#[derive(Clone, Debug)]
pub(super) struct Wire {
    /// To the store.
    store: Line,
    /// To the service that gives this machine its role.
    role: Line,
}

/// One client and its pool of connections.
#[derive(Clone, Debug)]
struct Line {
    client: reqwest::Client,
    is_for_role: bool,
}

impl Wire {
    pub(super) fn new(access: &Access) -> Result<Self> {
        let authorities = match &access.ca_file {
            Some(path) => {
                let act = || format!("read certificates from {}", path.display());
                let pem = fs_err::read(path).with_context(act)?;
                reqwest::Certificate::from_pem_bundle(&pem).map_err(|e| Error::invalid(act()).with_source(e))?
            }
            None => Vec::new(),
        };
        let line = |connect: Duration, is_for_role: bool| {
            let builder = reqwest::Client::builder()
                .user_agent(concat!("lastgood/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(connect)
                .redirect(reqwest::redirect::Policy::none())
                .http1_only()
                .tcp_nodelay(true)
                .pool_idle_timeout(POOL_IDLE)
                .tls_certs_merge(authorities.clone())
                // Lengths of objects are taken from headers, which compression would change.
                .no_gzip()
                .no_brotli()
                .no_zstd()
                .no_deflate();
            let client = builder.build().map_err(|e| Error::invalid("set up HTTPS").with_source(e))?;
            Ok::<_, Error>(Line { client, is_for_role })
        };
        Ok(Self { store: line(access.timeouts.connect, false)?, role: line(ROLE_CONNECT_TIMEOUT, true)? })
    }

    /// What the builders of stores are given, beside this as their connector.
    pub(super) fn options() -> ClientOptions {
        ClientOptions::new().with_allow_http(true).with_timeout_disabled().with_connect_timeout_disabled()
    }
}

impl HttpConnector for Wire {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        // Only for services of roles does the library set a timeout of its own.
        let key = object_store::ClientConfigKey::ConnectTimeout;
        let line = if options.get_config_value(&key).is_some() { &self.role } else { &self.store };
        Ok(HttpClient::new(line.clone()))
    }
}

#[async_trait]
impl HttpService for Line {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let heard = Heard::current();
        let (parts, body) = request.into_parts();
        let url = reqwest::Url::parse(&parts.uri.to_string()).map_err(|e| HttpError::new(HttpErrorKind::Request, e))?;
        let query = url.query().unwrap_or_default();
        let (is_list, is_batch) =
            (query.contains("list-type=2") || query.contains("comp=list"), query.contains("comp=batch"));
        let attempt = || {
            let mut request = reqwest::Request::new(parts.method.clone(), url.clone());
            *request.headers_mut() = parts.headers.clone();
            *request.body_mut() = Some(reqwest::Body::wrap(Sending { body: body.clone(), heard: heard.clone() }));
            if let Some(heard) = &heard {
                heard.note(Answer::default());
            }
            self.client.execute(request)
        };
        let response = match attempt().await {
            // A connection from the pool that the server has closed meanwhile, or on which an earlier body was refused.
            Err(error) if !error.is_connect() && !error.is_timeout() && is_plain_read(&parts.method) => attempt().await,
            other => other,
        };
        let response = match response {
            Ok(response) => http::Response::<reqwest::Body>::from(response),
            Err(error) => return Err(broken(error, self.is_for_role, heard.as_deref())),
        };
        let (parts, body) = response.into_parts();
        let mut answer = answer(parts.status, &parts.headers);
        if let Some(heard) = &heard {
            heard.pulse.beat(0);
            heard.note(answer.clone());
        }
        let body = Receiving { body, heard: heard.clone() };
        if !(parts.status.is_client_error() || parts.status.is_server_error() || parts.status.is_redirection()) {
            if is_list {
                let list = body.whole(LIST_BYTES_MAX).await?;
                return match is_whole_list(&list) {
                    true => Ok(HttpResponse::from_parts(parts, list.into())),
                    false => Err(HttpError::new(HttpErrorKind::Decode, NoList)),
                };
            }
            if is_batch {
                let results = body.whole(EXPLANATION_BYTES_MAX).await?;
                if let (Some(heard), Some(inner)) = (&heard, answer_within(&results)) {
                    heard.note(inner);
                }
                return Ok(HttpResponse::from_parts(parts, results.into()));
            }
            return Ok(HttpResponse::from_parts(parts, HttpResponseBody::new(body)));
        }
        let explanation = body.whole(EXPLANATION_BYTES_MAX).await?;
        let text = String::from_utf8_lossy(&explanation);
        if answer.code.is_empty() {
            answer.code = element(&text, "Code");
        }
        answer.message = element(&text, "Message");
        if let Some(heard) = &heard {
            heard.note(answer);
        }
        Ok(HttpResponse::from_parts(parts, explanation.into()))
    }
}

/// Asks without a body, for what may be asked twice.
fn is_plain_read(method: &http::Method) -> bool {
    matches!(*method, http::Method::GET | http::Method::HEAD | http::Method::DELETE)
}

/// True for a whole page of a list: what is none would be understood as an empty one, which is the most dangerous of
/// all answers.
fn is_whole_list(body: &[u8]) -> bool {
    let text = String::from_utf8_lossy(body);
    ["ListBucketResult", "EnumerationResults"].iter().any(|root| {
        let begins = text.trim_start_matches('\u{feff}').find(&format!("<{root}")).is_some_and(|at| at < 256);
        begins && (text.trim_end().ends_with(&format!("</{root}>")) || text.trim_end().ends_with("/>"))
    })
}

/// An answer to a list that is none.
#[derive(Debug)]
struct NoList;

impl std::fmt::Display for NoList {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("not a list of objects")
    }
}

impl std::error::Error for NoList {}

/// Azure answers several removals in one body, each with a head of its own; we remove one at a time.
fn answer_within(body: &[u8]) -> Option<Answer> {
    let text = String::from_utf8_lossy(body);
    let head = text.split_once("HTTP/1.1 ")?.1;
    let status = head.split_whitespace().next()?.parse().ok()?;
    let code = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("x-ms-error-code").then(|| value.trim().to_owned())
    });
    let message = element(head, "Message");
    Some(Answer { status, code: code.unwrap_or_else(|| element(head, "Code")), message, ..Answer::default() })
}

/// What the head of an answer says.
fn answer(status: StatusCode, headers: &HeaderMap) -> Answer {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let date = text("date").and_then(seconds_of_date);
    let retry_after = text(header::RETRY_AFTER.as_str()).and_then(|value| match value.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => {
            let wait = seconds_of_date(value)?.checked_sub(date?)?;
            Some(Duration::from_secs(u64::try_from(wait).ok()?))
        }
    });
    Answer {
        status: status.as_u16(),
        code: text("x-ms-error-code").unwrap_or_default().chars().take(80).collect(),
        retry_after,
        date,
        total: text(header::CONTENT_RANGE.as_str()).and_then(|value| value.rsplit_once('/')?.1.parse().ok()),
        retain_until: text("x-amz-object-lock-retain-until-date").map(str::to_owned),
        is_versioned: text("x-amz-version-id").is_some_and(|version| version != "null"),
        region: text("x-amz-bucket-region").map(str::to_owned),
        ..Answer::default()
    }
}

/// `Sat, 21 Nov 2026 20:52:50 GMT` in seconds since 1970.
fn seconds_of_date(text: &str) -> Option<i64> {
    jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok().map(|time| time.as_second())
}

/// Notes why a request has no whole answer, and tells the library.
fn broken(error: reqwest::Error, is_for_role: bool, heard: Option<&Heard>) -> HttpError {
    let error = error.without_url();
    let mut why = error.to_string();
    let mut next = std::error::Error::source(&error);
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !why.contains(&cause_text) {
            why.push_str(": ");
            why.push_str(&cause_text);
        }
        next = cause.source();
    }
    if let Some(heard) = heard {
        let cause = match error.is_connect() {
            true if is_for_role => Cause::NoRole,
            true if why.contains("certificate") => Cause::Certificate,
            _ => Cause::Network,
        };
        heard.note_broken(Broken { cause, why });
    }
    HttpError::new(HttpErrorKind::Unknown, error)
}

/// A body on its way out.
struct Sending {
    body: HttpRequestBody,
    heard: Option<Arc<Heard>>,
}

impl Body for Sending {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        tell(&polled, self.heard.as_deref());
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A body on its way in.
struct Receiving {
    body: reqwest::Body,
    heard: Option<Arc<Heard>>,
}

impl Body for Receiving {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let polled = match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(broken(error, false, self.heard.as_deref())))),
            Poll::Ready(Some(Ok(frame))) => Poll::Ready(Some(Ok(frame))),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        };
        tell(&polled, self.heard.as_deref());
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Receiving {
    /// All of a short answer, or its beginning.
    async fn whole(mut self, bytes_max: usize) -> Result<Bytes, HttpError> {
        let mut out = Vec::new();
        while out.len() < bytes_max {
            match std::future::poll_fn(|cx| Pin::new(&mut self).poll_frame(cx)).await {
                Some(Ok(frame)) => out.extend_from_slice(frame.data_ref().map_or(&[], |data| &data[..])),
                Some(Err(error)) => return Err(error),
                None => break,
            }
        }
        Ok(out.into())
    }
}

/// Tells of bytes that moved.
fn tell(polled: &Poll<Option<Result<Frame<Bytes>, HttpError>>>, heard: Option<&Heard>) {
    if let (Poll::Ready(Some(Ok(frame))), Some(heard)) = (polled, heard) {
        heard.pulse.beat(frame.data_ref().map_or(0, Bytes::len));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn an_answer_says_when_to_come_back_in_seconds_or_by_its_own_clock() {
        let seconds = answer(StatusCode::SERVICE_UNAVAILABLE, &headers(&[("retry-after", "7")]));
        assert_eq!(seconds.retry_after, Some(Duration::from_secs(7)));
        let date = answer(
            StatusCode::SERVICE_UNAVAILABLE,
            &headers(&[("date", "Sat, 21 Nov 2026 20:52:50 GMT"), ("retry-after", "Sat, 21 Nov 2026 20:53:20 GMT")]),
        );
        assert_eq!(date.retry_after, Some(Duration::from_secs(30)));
        assert_eq!(date.date, Some(1_795_294_370));
        let odd = answer(StatusCode::SERVICE_UNAVAILABLE, &headers(&[("retry-after", "soon"), ("date", "now")]));
        assert_eq!((odd.retry_after, odd.date), (None, None));
    }

    #[test]
    fn the_length_of_an_object_is_told_beside_a_range() {
        let of = |range| answer(StatusCode::PARTIAL_CONTENT, &headers(&[("content-range", range)])).total;
        assert_eq!(of("bytes 0-9/100"), Some(100));
        assert_eq!(of("bytes */17"), Some(17));
        assert_eq!(of("bytes 0-9/*"), None);
    }
}
