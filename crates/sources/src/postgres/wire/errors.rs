//! What a server says when something fails, as our error: what the caller can do about it comes from the SQLSTATE.
//! Codes: "PostgreSQL Error Codes" in its documentation, appendix A.

use lastgood_model::{Error, ErrorKind};
use std::fmt;

/// An `ErrorResponse` or `NoticeResponse`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerMessage {
    /// `ERROR`, `FATAL`, `PANIC`, `WARNING`, `NOTICE`, …, never translated where the server can help it.
    pub severity: String,
    /// Five characters.
    pub sqlstate: String,
    /// What happened.
    pub message: String,
    /// More of it.
    pub detail: Option<String>,
    /// What the server proposes.
    pub hint: Option<String>,
    /// Where in nested functions, triggers or input lines.
    pub place: Option<String>,
    /// Character of the statement, from 1.
    pub position: Option<u32>,
    /// Schema, table, column, type and constraint it is about, as far as told.
    pub about: Option<String>,
    /// Routine of the server that said so.
    pub routine: Option<String>,
}

impl ServerMessage {
    /// Reads the fields: a letter and text ended by NUL, the list ended by a NUL. What was cut off is left out.
    pub(super) fn parse(mut body: &[u8]) -> Self {
        let mut out = Self::default();
        let mut severity_translated = String::new();
        while let Some((&field, rest)) = body.split_first().filter(|(field, _)| **field != 0) {
            let end = rest.iter().position(|&byte| byte == 0).unwrap_or(rest.len());
            let text = String::from_utf8_lossy(&rest[..end]).into_owned();
            body = rest.get(end + 1..).unwrap_or_default();
            match field {
                b'S' => severity_translated = text,
                b'V' => out.severity = text,
                b'C' => out.sqlstate = text,
                b'M' => out.message = text,
                b'D' => out.detail = Some(text),
                b'H' => out.hint = Some(text),
                b'W' => out.place = Some(text),
                b'P' => out.position = text.parse().ok(),
                b'R' => out.routine = Some(text),
                b's' | b't' | b'c' | b'd' | b'n' => {
                    let what = match field {
                        b's' => "schema",
                        b't' => "table",
                        b'c' => "column",
                        b'd' => "type",
                        _ => "constraint",
                    };
                    let about = out.about.get_or_insert_default();
                    about.push_str(if about.is_empty() { "" } else { ", " });
                    about.push_str(&format!("{what} {text}"));
                }
                _ => {}
            }
        }
        if out.severity.is_empty() {
            out.severity = severity_translated;
        }
        out
    }

    /// True if the server ends the connection with it.
    pub(super) fn is_fatal(&self) -> bool {
        matches!(self.severity.as_str(), "FATAL" | "PANIC")
    }

    /// The error for a caller. `was_cancelled`: we ourselves asked the server to stop.
    pub(super) fn into_error(self, was_cancelled: bool) -> Error {
        let kind = kind(&self.sqlstate, was_cancelled);
        let mut hint = self.hint.clone().unwrap_or_default();
        let also = [
            self.position.map(|at| format!("at character {at} of the statement")),
            self.about.clone(),
            self.place.as_ref().map(|place| format!("while: {}", place.replace('\n', "; "))),
        ];
        for part in also.into_iter().flatten() {
            hint.push_str(if hint.is_empty() { "" } else { " — " });
            hint.push_str(&part);
        }
        let error = Error::new(kind, format!("{} {}: {}", self.severity, self.sqlstate, self.message));
        let error = if hint.is_empty() { error } else { error.with_hint(hint) };
        error.with_source(self)
    }
}

/// As a cause: what the error's own line does not say yet.
impl fmt::Display for ServerMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.detail, &self.routine) {
            (Some(detail), _) => f.write_str(detail),
            (None, Some(routine)) => write!(f, "said by the server in {routine}"),
            (None, None) => f.write_str("said by the server"),
        }
    }
}

impl std::error::Error for ServerMessage {}

/// What the server said, if `error` comes from a server, however deep within contexts.
pub fn server_message(error: &Error) -> Option<&ServerMessage> {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// The SQLSTATE of an error that comes from a server.
pub fn sqlstate(error: &Error) -> Option<&str> {
    server_message(error).map(|message| message.sqlstate.as_str())
}

/// What a caller can do about an SQLSTATE.
fn kind(sqlstate: &str, was_cancelled: bool) -> ErrorKind {
    match sqlstate {
        "57014" if was_cancelled => ErrorKind::Cancelled,
        // Statement timeout, a conflict with recovery on a standby, or somebody else's pg_cancel_backend.
        "57014" => ErrorKind::Retry,
        // Shutdowns, crashes, starting up, and a database dropped under us (which a retry will find absent).
        "57P01" | "57P02" | "57P03" | "57P04" | "57P05" => ErrorKind::Retry,
        // Too many connections; out of memory or locks for now.
        "53300" | "53200" | "53000" => ErrorKind::Retry,
        "53100" => ErrorKind::NoSpace,
        // A deadlock and a failed serialisation are gone when tried again; a lock that somebody holds may stay.
        "40001" | "40P01" | "40003" => ErrorKind::Retry,
        "55P03" | "55006" => ErrorKind::Locked,
        "42501" => ErrorKind::Denied,
        // Database, table, schema, column, function or object that is not there.
        "3D000" | "42P01" | "3F000" | "42703" | "42883" | "42704" => ErrorKind::Absent,
        "42P04" | "42P07" | "42P06" | "42710" | "42723" | "23505" => ErrorKind::Conflict,
        "0A000" => ErrorKind::Unsupported,
        // Damaged data or index on the server's side; a damaged dump is told by the loader itself.
        "XX001" | "XX002" => ErrorKind::Corrupt,
        _ if sqlstate.starts_with("08P") => ErrorKind::Corrupt,
        _ if sqlstate.starts_with("08") => ErrorKind::Retry,
        _ if sqlstate.starts_with("28") => ErrorKind::Denied,
        _ if sqlstate.starts_with("58") => ErrorKind::Io,
        _ => ErrorKind::Invalid,
    }
}

/// A message that no server should send.
pub(super) fn nonsense(what: impl fmt::Display) -> Error {
    Error::corrupt(format!("the server broke the protocol: {what}"))
        .with_hint("is it a PostgreSQL server that listens there, and no proxy that changes what it says?")
}

#[cfg(test)]
mod tests {
    use super::*;
    use lastgood_model::Context;

    fn message(fields: &[(u8, &str)]) -> ServerMessage {
        let mut body = Vec::new();
        for (field, text) in fields {
            body.push(*field);
            body.extend_from_slice(text.as_bytes());
            body.push(0);
        }
        body.push(0);
        ServerMessage::parse(&body)
    }

    #[test]
    fn an_error_says_severity_code_and_text_and_keeps_the_servers_hint() {
        let said = message(&[
            (b'S', "FEHLER"),
            (b'V', "ERROR"),
            (b'C', "42P01"),
            (b'M', "relation \"x\" does not exist"),
            (b'H', "look elsewhere"),
            (b'P', "15"),
            (b'W', "SQL function f\nline 2"),
            (b't', "x"),
        ]);
        let error = Err::<(), _>(said.into_error(false)).context("read the catalog").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Absent);
        assert!(error.chain().contains("ERROR 42P01: relation \"x\" does not exist"), "{error:?}");
        let hint = "look elsewhere — at character 15 of the statement — table x — while: SQL function f; line 2";
        assert_eq!(error.hint(), Some(hint));
        assert_eq!(sqlstate(&error), Some("42P01"));
        assert_eq!(sqlstate(&Error::invalid("ours")), None);
    }

    #[test]
    fn fields_cut_off_anywhere_are_read_as_far_as_they_go() {
        let body = b"SERROR\0VERROR\0C42P01\0Mtext\0\0";
        for end in 0..body.len() {
            let _ = ServerMessage::parse(&body[..end]);
        }
        assert_eq!(ServerMessage::parse(&body[..12]).severity, "ERRO");
    }

    #[test]
    fn codes_tell_what_can_be_done() {
        let table = [
            ("08006", ErrorKind::Retry),
            ("08P01", ErrorKind::Corrupt),
            ("57P01", ErrorKind::Retry),
            ("57P03", ErrorKind::Retry),
            ("53300", ErrorKind::Retry),
            ("28P01", ErrorKind::Denied),
            ("28000", ErrorKind::Denied),
            ("42501", ErrorKind::Denied),
            ("3D000", ErrorKind::Absent),
            ("42P01", ErrorKind::Absent),
            ("3F000", ErrorKind::Absent),
            ("42P04", ErrorKind::Conflict),
            ("42P07", ErrorKind::Conflict),
            ("53100", ErrorKind::NoSpace),
            ("55P03", ErrorKind::Locked),
            ("55006", ErrorKind::Locked),
            ("40P01", ErrorKind::Retry),
            ("40001", ErrorKind::Retry),
            ("57014", ErrorKind::Retry),
            ("42601", ErrorKind::Invalid),
            ("", ErrorKind::Invalid),
        ];
        for (code, expected) in table {
            assert_eq!(kind(code, false), expected, "{code}");
        }
        assert_eq!(kind("57014", true), ErrorKind::Cancelled);
    }
}
