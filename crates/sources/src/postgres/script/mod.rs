//! A table of contents as SQL files that plain `psql` loads: `pre-data.sql`, then the rows by whatever means, then
//! `post-data.sql`. In effect they equal what `pg_restore` does, with an eye on a person who has nothing but `psql`:
//!
//! - They stop at nothing that a restore can do without: no `transaction_timeout` where the server knows none, no
//!   comment on an extension that belongs to somebody else, no second schema `public`.
//! - They hold no command of `psql` itself, whatever a hostile server put into a name or a definition: text that could
//!   be taken for one is refused. So they need no `\restrict` with its random token, and are the same every time.
//! - Privileges come after everything else, as a role may have taken some from itself that its own foreign keys need;
//!   materialized views are filled after that, and event triggers come last, so that they see nothing of all this.
//!
//! Large objects, rows and values of sequences are not in them.

pub(super) mod object;
pub(super) mod refresh;
pub(super) mod session;
#[cfg(test)]
mod tests;

use super::sql::{self, Kind, Tokens};
use super::toc::{Entry, Toc};
use lastgood_model::{Context, Error, Result};
use object::{Part, Pass, Wishes};
use session::Session;
use std::collections::BTreeSet;
use std::io::Write;

const ACT: &str = "write SQL";

/// Writes `pre-data.sql`: everything that must be there before rows can be loaded. Gives remarks for people, such as an
/// owner that could not be kept. `out` should be buffered.
pub fn write_pre_data(toc: &Toc, out: &mut dyn Write) -> Result<Vec<String>> {
    let mut script = Script::begin(toc, out, "Load this first, then the rows, then post-data.sql")?;
    for (entry, part) in object::parts(toc) {
        if part == Part::PreData {
            script.entry(entry)?;
        }
    }
    script.end()
}

/// Writes `post-data.sql`: what is made after rows were loaded. `populated` are OIDs of the materialized views that
/// hold rows and are to be filled; all of them when it is `None`. (`pg_dump --schema-only` does not say which do.)
/// Gives remarks for people. `out` should be buffered.
pub fn write_post_data(toc: &Toc, populated: Option<&BTreeSet<u32>>, out: &mut dyn Write) -> Result<Vec<String>> {
    let mut script = Script::begin(toc, out, "Load this after pre-data.sql and the rows")?;
    for pass in [Pass::Main, Pass::Privileges, Pass::Statistics, Pass::Last] {
        // What the planner knew of a view is set once the view is filled.
        if pass == Pass::Statistics {
            for refresh in refresh::refreshes(toc, populated) {
                script.text(&format!("REFRESH {}", toc.entries[refresh.index].label()), &refresh.sql)?;
            }
        }
        for (entry, part) in object::parts(toc) {
            if part == Part::PostData(pass) {
                script.entry(entry)?;
            }
        }
    }
    script.end()
}

/// Writes what makes the database itself, with its settings, comment and privileges, under its old name. Must be
/// loaded from within another database, before all else; `CREATE DATABASE` fails where one of that name is.
pub fn write_database(toc: &Toc, out: &mut dyn Write) -> Result<Vec<String>> {
    let mut script = Script::begin(toc, out, "Load this in another database, such as postgres")?;
    for (entry, part) in object::parts(toc) {
        if part == Part::Database {
            script.entry(entry)?;
        }
    }
    script.end()
}

/// Writes `database.sql`: what belongs to the database and not to anything in it (settings, privileges, comment, owner),
/// but not what makes it. Comes last, as it could hinder a load. Gives remarks for people.
pub fn write_database_properties(toc: &Toc, out: &mut dyn Write) -> Result<Vec<String>> {
    let mut script = Script::begin(toc, out, "Load this last, in the database itself")?;
    for (entry, part) in object::parts(toc) {
        match (part, entry.owner.as_deref().filter(|owner| !owner.is_empty())) {
            (Part::Database, Some(owner)) if entry.desc == "DATABASE" => {
                let sql = format!("ALTER DATABASE {} OWNER TO {};", sql::quote(&entry.tag), sql::quote(owner));
                script.text(&entry.label(), &sql)?;
            }
            (Part::Database, _) if entry.desc != "DATABASE" => script.entry(entry)?,
            _ => {}
        }
    }
    script.end()
}

struct Script<'a> {
    toc: &'a Toc,
    out: &'a mut dyn Write,
    session: Session,
    /// Settings in force, so that they are written only when they change.
    now: object::Place,
    remarks: Vec<String>,
}

impl<'a> Script<'a> {
    fn begin(toc: &'a Toc, out: &'a mut dyn Write, purpose: &str) -> Result<Self> {
        let session = Session::of(toc)?;
        let mut script = Self { toc, out, session, now: object::Place::default(), remarks: Vec::new() };
        let origin = format!("Database {}, PostgreSQL {}", toc.database, toc.server_version);
        script.line(&sql::comment(&origin))?;
        script.line(&sql::comment(&format!("{purpose}: psql -X -v ON_ERROR_STOP=1 -f FILE")))?;
        script.line("")?;
        for setting in script.session.settings.clone() {
            script.statement("settings", &setting)?;
        }
        script.line("")?;
        Ok(script)
    }

    fn entry(&mut self, entry: &Entry) -> Result<()> {
        let wishes = Wishes::default();
        let Some(made) = object::make(entry, &self.session, &wishes, &mut self.remarks)? else { return Ok(()) };
        for setting in made.place.changes_from(&mut self.now) {
            self.statement("settings", &setting)?;
        }
        self.text(&entry.label(), &made.sql)
    }

    fn text(&mut self, label: &str, text: &str) -> Result<()> {
        self.line(&sql::comment(label))?;
        self.statement(label, text)?;
        self.line("")
    }

    /// Writes statements, once it is sure that `psql` sees nothing in them but statements, and an end.
    fn statement(&mut self, label: &str, text: &str) -> Result<()> {
        let mut is_ended = true;
        for token in Tokens::new(text, self.session.standard_strings) {
            match token.kind {
                Kind::Backslash => return Err(refused(label, "a backslash, which psql would take for a command")),
                Kind::Unfinished => return Err(refused(label, "a quote or comment without an end")),
                _ => is_ended = token.is_sign(";"),
            }
        }
        self.line(text.trim_end())?;
        // On a line of its own: the text may end in a comment.
        if is_ended { Ok(()) } else { self.line(";") }
    }

    fn line(&mut self, text: &str) -> Result<()> {
        self.out.write_all(&self.toc.text.encode(text)).context(ACT)?;
        self.out.write_all(b"\n").context(ACT)
    }

    fn end(self) -> Result<Vec<String>> {
        self.out.flush().context(ACT)?;
        Ok(self.remarks)
    }
}

fn refused(label: &str, why: &str) -> Error {
    Error::corrupt(format!("the definition of {label:?} cannot be written to a file for psql: it holds {why}"))
        .with_hint("look at this object in the database: its name or text may be an attack")
}
