//! The mark of an unfinished restore: the comment on the database that it fills.
//!
//! It is set before anything else is, and taken away with the last change. So a database with this mark holds nothing
//! but what a restore put there, and may be taken away by the next; and nobody takes a half for the whole. The comment
//! that the database had before is kept in it.

use super::super::sql::{literal, quote};

const PREFIX: &str = "lastgood: restore of ";
const UNDER_WAY: &str = " is under way; what is here is not complete";
const FAILED: &str = " failed; what is here is not complete. ";
const BEFORE: &str = "\nComment before: ";
/// What failed is told in so many characters.
const WHY_MAX: usize = 400;

/// A mark as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// The recovery point that was being restored.
    pub(super) recovery_point: String,
    /// What failed; `None` when it was not told, because the restore is still under way or was killed.
    pub(super) failure: Option<String>,
    /// The database's comment before.
    pub(super) before: Option<String>,
}

impl Mark {
    /// For a restore that begins.
    pub(super) fn begin(recovery_point: &str, before: Option<&str>) -> Self {
        let recovery_point = recovery_point.replace(['\n', ';'], " ");
        Self { recovery_point, failure: None, before: before.map(str::to_owned) }
    }

    /// Reads a comment; `None` for any other.
    pub(super) fn parse(comment: &str) -> Option<Self> {
        let (told, before) = match comment.split_once(BEFORE) {
            Some((told, before)) => (told, Some(before.to_owned())),
            None => (comment, None),
        };
        let told = told.strip_prefix(PREFIX)?;
        if let Some(recovery_point) = told.strip_suffix(UNDER_WAY) {
            return Some(Self { recovery_point: recovery_point.to_owned(), failure: None, before });
        }
        let (recovery_point, why) = told.split_once(FAILED)?;
        Some(Self { recovery_point: recovery_point.to_owned(), failure: Some(why.to_owned()), before })
    }

    /// The comment.
    pub(super) fn text(&self) -> String {
        let what = match &self.failure {
            None => UNDER_WAY.to_owned(),
            Some(why) => {
                let why: String = why.replace('\n', " ").chars().take(WHY_MAX).collect();
                format!("{FAILED}{why}")
            }
        };
        let before = self.before.as_ref().map(|before| format!("{BEFORE}{before}")).unwrap_or_default();
        format!("{PREFIX}{}{what}{before}", self.recovery_point)
    }

    /// The statement that sets it.
    pub(super) fn set(&self, database: &str) -> String {
        comment_on(database, Some(&self.text()))
    }

    /// For people.
    pub(super) fn shown(&self) -> String {
        match &self.failure {
            None => format!("a restore of {} that did not end", self.recovery_point),
            Some(why) => format!("a restore of {} that failed: {why}", self.recovery_point),
        }
    }
}

/// Gives a database a comment, or none.
pub(super) fn comment_on(database: &str, comment: Option<&str>) -> String {
    let text = comment.map_or_else(|| "NULL".to_owned(), literal);
    format!("COMMENT ON DATABASE {} IS {text}", quote(database))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_as_it_was_written_and_keeps_the_comment_before() {
        for before in [None, Some("our shop\nComment before: x"), Some("")] {
            let mut mark = Mark::begin("a1b2c3 of 2026-05-01", before);
            assert_eq!(Mark::parse(&mark.text()).as_ref(), Some(&mark));
            mark.failure = Some("INDEX public.x: ERROR 23505: could not\ncreate".into());
            let read = Mark::parse(&mark.text()).unwrap();
            assert_eq!(read.failure.as_deref(), Some("INDEX public.x: ERROR 23505: could not create"));
            assert_eq!((&read.before, &read.recovery_point), (&mark.before, &mark.recovery_point));
            mark.failure = Some("é".repeat(1000));
            assert_eq!(Mark::parse(&mark.text()).unwrap().failure.unwrap().chars().count(), WHY_MAX);
        }
    }

    #[test]
    fn no_other_comment_is_a_mark() {
        for comment in ["", "our shop", "lastgood", "lastgood: restore of x", "see lastgood: restore of x is under way"]
        {
            assert_eq!(Mark::parse(comment), None, "{comment}");
        }
        let copied = format!("was: {}", Mark::begin("x", None).text());
        assert_eq!(Mark::parse(&copied), None);
    }

    #[test]
    fn whatever_it_says_is_one_literal() {
        let mark = Mark::begin("it's; DROP\nTABLE", Some("a\\b'c"));
        let sql = mark.set("sh\"op");
        assert!(
            sql.starts_with("COMMENT ON DATABASE \"sh\"\"op\" IS  E'lastgood: restore of it''s  DROP TABLE is"),
            "{sql}"
        );
        assert!(sql.ends_with("before: a\\\\b''c'"), "{sql}");
        assert_eq!(comment_on("x", None), "COMMENT ON DATABASE \"x\" IS NULL");
    }
}
