//! What `doctor` and `config check` find: facts with a level, and what to do about them.

use crate::exit_code::ExitCode;
use crate::output::{json, object};
use crate::run::Run;
use lastgood_model::source::{Finding, FindingLevel};
use lastgood_model::{Error, ErrorKind, Result};

/// Findings, in the order they were made.
#[derive(Debug, Default)]
pub(super) struct Findings {
    list: Vec<(String, Finding)>,
    /// How many of them say that a key is missing or another.
    wrong_keys: usize,
}

impl Findings {
    /// As it should be.
    pub(super) fn ok(&mut self, about: &str, message: impl Into<String>) {
        self.add(about, FindingLevel::Ok, message, None::<String>);
    }

    /// Works, but should be known.
    pub(super) fn warning(&mut self, about: &str, message: impl Into<String>, hint: impl Into<String>) {
        self.add(about, FindingLevel::Warning, message, Some(hint));
    }

    /// In the way.
    pub(super) fn failure(&mut self, about: &str, message: impl Into<String>, hint: Option<impl Into<String>>) {
        self.add(about, FindingLevel::Failure, message, hint);
    }

    /// An error as a finding.
    pub(super) fn error(&mut self, about: &str, error: &Error) {
        self.wrong_keys += usize::from(error.kind() == ErrorKind::WrongKey);
        self.failure(about, error.chain(), error.hint());
    }

    fn add(&mut self, about: &str, level: FindingLevel, message: impl Into<String>, hint: Option<impl Into<String>>) {
        let finding = Finding { level, message: message.into(), hint: hint.map(Into::into) };
        self.list.push((about.to_owned(), finding));
    }

    /// What a source said of itself.
    pub(super) fn extend(&mut self, about: &str, findings: Vec<Finding>) {
        self.list.extend(findings.into_iter().map(|finding| (about.to_owned(), finding)));
    }

    fn count(&self, level: FindingLevel) -> usize {
        self.list.iter().filter(|(_, finding)| finding.level == level).count()
    }

    /// Tells all of them; `failed` is the code when something is in the way. Where that is nothing but a key, the code is
    /// the one that every other command has for it.
    pub(super) fn tell(self, run: &Run, list_type: &str, failed: ExitCode) -> Result<ExitCode> {
        let mut list = run.out.list(list_type, "lastgood.finding", "findings", object([]))?;
        let mut last = "";
        for (about, finding) in &self.list {
            if run.out.is_human() && about != last {
                run.out.line(about)?;
                last = about;
            }
            let mark = match finding.level {
                FindingLevel::Ok => "ok  ",
                FindingLevel::Warning => "WARN",
                FindingLevel::Failure => "FAIL",
            };
            let fields = || {
                object([
                    ("about", about.as_str().into()),
                    ("level", json(&finding.level)),
                    ("message", finding.message.as_str().into()),
                    ("hint", json(&finding.hint)),
                ])
            };
            list.item(fields, || {
                let hint = finding.hint.as_ref().map(|hint| format!("\n        next: {hint}")).unwrap_or_default();
                Some(format!("  {mark}  {}{hint}", finding.message))
            })?;
        }
        let (warnings, failures) = (self.count(FindingLevel::Warning), self.count(FindingLevel::Failure));
        let code = match failures {
            0 => ExitCode::Ok,
            n if n == self.wrong_keys => ExitCode::WrongKey,
            _ => failed,
        };
        let tail = [("warnings", warnings.into()), ("failures", failures.into()), ("exit_code", code.number().into())];
        list.end(object(tail))?;
        if run.out.is_human() {
            run.out.line(match (failures, warnings) {
                (0, 0) => "Everything is as it should be.".to_owned(),
                (0, n) => format!("Nothing is in the way; {}.", crate::text::counted(n as u64, "warning")),
                (n, w) => format!(
                    "{} in the way, {}.",
                    crate::text::counted(n as u64, "thing"),
                    crate::text::counted(w as u64, "warning")
                ),
            })?;
        }
        Ok(code)
    }
}
