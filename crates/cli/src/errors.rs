//! How a failure is told: what was done, why it failed, what to do next, and what that means for the data.

use crate::config::{ConfigProblems, LoadError};
use crate::exit_code::ExitCode;
use crate::output::{Out, json};
use crate::progress;
use crate::protection::Protection;
use lastgood_model::{Error, ErrorKind};
use serde_json::{Map, Value};
use std::error::Error as _;

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Something went wrong.
    Error(Error),
    /// The config cannot be used.
    Config(ConfigProblems),
}

/// How a command ends: with an exit code of its own after it has reported, or with a failure that is still to be told.
pub(crate) type Outcome = Result<ExitCode, Failure>;

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Wrong(problems) => Self::Config(problems),
            LoadError::Unreadable(error) => Self::Error(error),
        }
    }
}

impl Failure {
    /// The code the program ends with.
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Error(error) => error.kind().into(),
            Self::Config(_) => ExitCode::Usage,
        }
    }

    /// True for a slip in the words or the config: nothing was begun, and it says nothing of what is protected.
    pub(crate) fn is_slip(&self) -> bool {
        self.exit_code() == ExitCode::Usage
    }

    fn message(&self) -> String {
        match self {
            Self::Error(error) => error.message().to_owned(),
            Self::Config(problems) => problems.lines.join("\n"),
        }
    }

    fn causes(&self) -> Vec<String> {
        let Self::Error(error) = self else { return Vec::new() };
        let mut causes = Vec::new();
        let mut next = error.source();
        while let Some(cause) = next {
            causes.push(cause.to_string());
            next = cause.source();
        }
        causes
    }

    fn hint(&self) -> Option<&str> {
        match self {
            Self::Error(error) => error.hint().or_else(|| general_hint(error.kind())),
            Self::Config(_) => Some("`lastgood config check` looks at it again, `lastgood config schema` describes it"),
        }
    }

    /// As an object for programs.
    pub(crate) fn object(&self, protection: Option<&Protection>) -> Map<String, Value> {
        let kind = match self {
            Self::Error(error) => kind_name(error.kind()),
            Self::Config(_) => "config",
        };
        let mut object = crate::output::object([
            ("type", "lastgood.error".into()),
            ("schema", 1.into()),
            ("kind", kind.into()),
            ("exit_code", self.exit_code().number().into()),
            ("message", self.message().into()),
            ("causes", self.causes().into()),
            ("hint", json(&self.hint())),
        ]);
        if let Some(protection) = protection {
            object.insert("last_good".into(), json(&protection.last_good));
            object.insert("unprotected".into(), json(&protection.unprotected));
        }
        object
    }

    /// Tells it: as text on standard error, and to programs as an object on standard output.
    pub(crate) fn tell(&self, out: &Out, protection: Option<&Protection>) {
        // On a terminal both outputs are read as one. Trouble with results is told by whoever writes them.
        let _ = out.flush();
        let mut text = String::new();
        match self {
            Self::Error(error) => {
                text.push_str(&format!("error: {}\n", error.message()));
                for cause in self.causes() {
                    text.push_str(&format!("  because: {cause}\n"));
                }
            }
            Self::Config(problems) => {
                for problem in &problems.rendered {
                    text.push_str(&format!("error: {problem}\n"));
                }
            }
        }
        if let Some(protection) = protection {
            for line in protection.lines() {
                text.push_str(&format!("{line}\n"));
            }
        }
        if let Some(hint) = self.hint() {
            text.push_str(&format!("next: {hint}\n"));
        }
        progress::write_above(crate::text::printable(&text).as_bytes());
        if !out.is_human() {
            // There is nobody left to tell that standard output is broken.
            let _ = out.object(&self.object(protection));
        }
    }
}

fn kind_name(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Retry => "retry",
        ErrorKind::Absent => "absent",
        ErrorKind::Denied => "denied",
        ErrorKind::Held => "held",
        ErrorKind::Conflict => "conflict",
        ErrorKind::Corrupt => "corrupt",
        ErrorKind::WrongKey => "wrong-key",
        ErrorKind::NoRepository => "no-repository",
        ErrorKind::Locked => "locked",
        ErrorKind::NoSpace => "no-space",
        ErrorKind::Unsupported => "unsupported",
        ErrorKind::Invalid => "invalid",
        ErrorKind::Cancelled => "cancelled",
        ErrorKind::Io => "io",
        ErrorKind::Bug => "bug",
        _ => "other",
    }
}

/// What to do about an error whose place knew no better.
fn general_hint(kind: ErrorKind) -> Option<&'static str> {
    Some(match kind {
        ErrorKind::Retry => "try again; the same command may succeed later",
        ErrorKind::Denied => "run as a user who may do this, or give this one the permission",
        ErrorKind::NoSpace => "make room on that disk, then run the same command again",
        ErrorKind::Corrupt => {
            "`lastgood check` and `lastgood verify` tell what is damaged, and which recovery points are sound"
        }
        ErrorKind::Cancelled => "no half-made recovery point is visible; run the same command again",
        ErrorKind::Io => "`lastgood doctor` looks for whatever stands in the way",
        ErrorKind::Bug => "this is a defect of lastgood; please report it with the whole message",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_for_programs_has_the_code_and_every_cause() {
        let error = Error::io("write pack", std::io::Error::from_raw_os_error(28)).context("back up");
        let object = Failure::from(error).object(None);
        assert_eq!(object["type"], "lastgood.error");
        assert_eq!(object["kind"], "no-space");
        assert_eq!(object["exit_code"], 1);
        assert_eq!(object["message"], "back up");
        assert_eq!(object["causes"][0], "write pack");
        assert!(object["hint"].as_str().unwrap().contains("make room"));
    }
}
