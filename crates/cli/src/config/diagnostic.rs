//! What is wrong with a config, shown where it was written. A line that could hold a secret in clear is never shown.

use super::tree::Place;
use lastgood_model::node::display_path;
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The text of a config file, for showing lines of it.
#[derive(Clone, Debug, Default)]
pub(super) struct SourceText {
    /// The file's name as it was given.
    pub(super) name: String,
    pub(super) text: String,
}

impl SourceText {
    pub(super) fn new(path: &Path, text: String) -> Self {
        Self { name: display_path(path.as_os_str().as_bytes()), text }
    }

    /// Line and column, both from 1, of a byte.
    pub(super) fn position(&self, byte: usize) -> (usize, usize) {
        let before = &self.text.as_bytes()[..byte.min(self.text.len())];
        let line = before.iter().filter(|b| **b == b'\n').count() + 1;
        let start = before.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        (line, String::from_utf8_lossy(&before[start..]).chars().count() + 1)
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug)]
pub(super) struct Diagnostic {
    pub(super) place: Place,
    pub(super) message: String,
    pub(super) hint: Option<String>,
    /// True when the line may hold a secret.
    pub(super) is_secret: bool,
}

impl Diagnostic {
    /// On one line, with its position in front.
    pub(super) fn line(&self, source: &SourceText) -> String {
        match &self.place {
            Place::File(span) => {
                let (line, column) = source.position(span.start);
                format!("{}:{line}:{column}: {}", source.name, self.message)
            }
            Place::Env(variable) => format!("environment variable {variable}: {}", self.message),
            Place::Missing if source.name.is_empty() => self.message.clone(),
            Place::Missing => format!("{}: {}", source.name, self.message),
        }
    }

    /// With the line of the file and a caret under it.
    pub(super) fn render(&self, source: &SourceText) -> String {
        let mut out = self.message.clone();
        let mut margin = String::from(" ");
        match &self.place {
            Place::File(span) => {
                let (line, column) = source.position(span.start);
                let number = line.to_string();
                margin = " ".repeat(number.len() + 1);
                // Writing to a string cannot fail.
                let _ = write!(out, "\n{}--> {}:{line}:{column}", " ".repeat(number.len()), source.name);
                let text = source.text.lines().nth(line - 1).unwrap_or_default();
                if self.is_secret || may_hold_secret(text) {
                    let _ = write!(out, "\n{margin}|\n{number} | (the line is not shown: it may hold a secret)");
                } else {
                    // Tabs and control characters would move the caret.
                    let shown: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
                    let end = span.end.clamp(span.start + 1, source.text.len().max(span.start + 1));
                    let marked = source.text.get(span.start..end).unwrap_or(" ");
                    let width = marked.lines().next().map_or(1, |l| l.chars().count()).max(1);
                    let _ = write!(
                        out,
                        "\n{margin}|\n{number} | {shown}\n{margin}| {}{}",
                        " ".repeat(column - 1),
                        "^".repeat(width)
                    );
                }
            }
            Place::Env(variable) => {
                let _ = write!(out, "\n  --> environment variable {variable}");
            }
            Place::Missing if source.name.is_empty() => {}
            Place::Missing => {
                let _ = write!(out, "\n  --> {}", source.name);
            }
        }
        if let Some(hint) = &self.hint {
            let _ = write!(out, "\n{margin}= help: {hint}");
        }
        out
    }
}

/// True for a line that looks as if a key or password stood in it itself instead of a reference to it.
fn may_hold_secret(line: &str) -> bool {
    let lower = line.to_ascii_lowercase();
    let named = ["key", "pass", "pwd", "secret", "token"].iter().any(|word| lower.contains(word));
    let by_reference = ["file", "env", "command", "systemd"].iter().any(|way| {
        lower.contains(&format!("{way} ="))
            || lower.contains(&format!("{way}="))
            || lower.contains(&format!("{way}\" "))
    });
    lower.contains("lg1-") || (named && lower.contains('=') && !by_reference)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str, needle: &str) -> (SourceText, Diagnostic) {
        let start = text.find(needle).unwrap();
        let source = SourceText { name: "lastgood.toml".into(), text: text.into() };
        let place = Place::File(start..start + needle.len());
        (
            source,
            Diagnostic {
                place,
                message: "unknown key".into(),
                hint: Some("did you mean `x`?".into()),
                is_secret: false,
            },
        )
    }

    #[test]
    fn the_caret_stands_under_the_word_also_after_wide_letters() {
        let (source, diagnostic) = at("[a]\n\"häß\".pth = 1\n", "pth");
        assert_eq!(
            diagnostic.render(&source),
            "unknown key\n --> lastgood.toml:2:7\n  |\n2 | \"häß\".pth = 1\n  |       ^^^\n  = help: did you mean `x`?"
        );
        assert_eq!(diagnostic.line(&source), "lastgood.toml:2:7: unknown key");
    }

    #[test]
    fn a_secret_in_clear_is_not_repeated() {
        for text in ["key = \"hunter2\"", "key = lg1-hunter2", "passwort = 'hunter2'", "x = \"lg1-hunter2\" # file = "]
        {
            let (source, diagnostic) = at(text, "=");
            assert!(!diagnostic.render(&source).contains("hunter2"), "{text}");
        }
        let (source, diagnostic) = at("key = { fil = 'k', file = 'k' }", "fil");
        assert!(diagnostic.render(&source).contains("fil"));
    }

    #[test]
    fn spans_beyond_the_end_do_no_harm() {
        let source = SourceText { name: "f".into(), text: "a".into() };
        let diagnostic = Diagnostic { place: Place::File(1..1), message: "m".into(), hint: None, is_secret: false };
        assert!(diagnostic.render(&source).contains("f:1:2"));
    }
}
