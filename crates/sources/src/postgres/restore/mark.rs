//! The mark of an unfinished restore: the comment on the database that it fills.
//!
//! It is set before anything else is, and taken away with the last change, so that nobody takes a half for the whole. The
//! comment that the database had before is kept in it.
//!
//! Comments can be copied, by a backup too. So the mark of a database that a restore has made tells which database that
//! was, as the server knows it, and only there it says that nobody else made it and the next restore may take it away.

use super::super::sql::{literal, quote};

const PREFIX: &str = "lastgood: restore of ";
const REPLACED: &str = "lastgood: replaced by a restore of ";
const UNDER_WAY: &str = " is under way; what is here is not complete";
const FAILED: &str = " failed; what is here is not complete. ";
const MADE: &str = "\nMade for it: ";
const BEFORE: &str = "\nComment before: ";
/// What failed is told in so many characters.
const WHY_MAX: usize = 400;

/// Which database it is, as SQL over a row `d` of `pg_database`: number and name, so that neither a comment that was
/// copied nor a database that was renamed passes for what a restore made.
pub(super) fn identity(name: &str) -> String {
    format!("d.oid || '.' || pg_catalog.hashtext({name} COLLATE \"C\")")
}

/// A mark as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// The recovery point that was being restored.
    pub(super) recovery_point: String,
    /// What failed; `None` when it was not told, because the restore is still under way or was killed.
    pub(super) failure: Option<String>,
    /// The [`identity`] of the database, when the restore made it.
    pub(super) made: Option<String>,
    /// The database's comment before.
    pub(super) before: Option<String>,
}

impl Mark {
    /// For a restore that begins.
    pub(super) fn begin(recovery_point: &str, before: Option<&str>) -> Self {
        let recovery_point = recovery_point.replace(['\n', ';'], " ");
        Self { recovery_point, failure: None, made: None, before: before.map(str::to_owned) }
    }

    /// Reads a comment; `None` for any other.
    pub(super) fn parse(comment: &str) -> Option<Self> {
        let (told, before) = match comment.split_once(BEFORE) {
            Some((told, before)) => (told, Some(before.to_owned())),
            None => (comment, None),
        };
        let (told, made) = match told.split_once(MADE) {
            Some((told, made)) => (told, Some(made.to_owned())),
            None => (told, None),
        };
        let told = told.strip_prefix(PREFIX)?;
        if let Some(recovery_point) = told.strip_suffix(UNDER_WAY) {
            return Some(Self { recovery_point: recovery_point.to_owned(), failure: None, made, before });
        }
        let (recovery_point, why) = told.split_once(FAILED)?;
        Some(Self { recovery_point: recovery_point.to_owned(), failure: Some(why.to_owned()), made, before })
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
        let made = self.made.as_ref().map(|made| format!("{MADE}{made}")).unwrap_or_default();
        let before = self.before.as_ref().map(|before| format!("{BEFORE}{before}")).unwrap_or_default();
        format!("{PREFIX}{}{what}{made}{before}", self.recovery_point)
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

/// What a database was replaced by, and which database it was: the comment of one that only waits to be dropped.
pub(super) fn replaced(recovery_point: &str, identity: &str) -> String {
    format!("{REPLACED}{recovery_point}; it can be dropped{MADE}{identity}")
}

/// The identity in such a comment.
pub(super) fn replaced_identity(comment: &str) -> Option<&str> {
    comment.strip_prefix(REPLACED)?.rsplit_once(MADE).map(|(_, identity)| identity)
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
        for (before, made) in [(None, None), (Some("our shop\nComment before: x"), Some("16384.-7")), (Some(""), None)]
        {
            let mut mark = Mark::begin("a1b2c3 of 2026-05-01", before);
            mark.made = made.map(str::to_owned);
            assert_eq!(Mark::parse(&mark.text()).as_ref(), Some(&mark));
            mark.failure = Some("INDEX public.x: ERROR 23505: could not\ncreate".into());
            let read = Mark::parse(&mark.text()).unwrap();
            assert_eq!(read.failure.as_deref(), Some("INDEX public.x: ERROR 23505: could not create"));
            assert_eq!((&read.before, &read.recovery_point), (&mark.before, &mark.recovery_point));
            assert_eq!(read.made, mark.made);
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
