//! How to restore a database or a part of it: which statements, in which order, and which of them at the same time.
//!
//! [`plan`] is pure. It takes a table of contents and what a person wants, and gives a [`Plan`]: statements to run one
//! after another, the tables whose rows are loaded then, and a graph of statements that several connections can work
//! on. Run so, the result is what `pg_restore` makes, which the tests hold it to; it only gets there sooner:
//!
//! - A primary key or unique constraint is built as an index and then put in place, as building an index leaves room
//!   for others on the same table while `ADD CONSTRAINT` does not. Not where that would make something else: exclusion
//!   constraints, `WITHOUT OVERLAPS`, partitioned tables, and whatever is not understood to the last word.
//! - A foreign key is added without looking at rows and then validated, which locks less. Not on or to partitioned
//!   tables.
//! - What is fixed to an index (`CLUSTER ON`, `REPLICA IDENTITY`) is a step of its own after it.
//!
//! The order between passes is that of `pg_restore`: everything, then privileges, then materialized views; here event
//! triggers come last of all, so that they do not see the restore.

mod choose;
mod constraint;
mod facts;
mod graph;
mod pattern;
mod rename;
#[cfg(test)]
mod tests;

pub use pattern::Pattern;

use super::script::object::{self, Part, Wishes};
use super::script::session::Session;
use super::toc::{Text, Toc};
use facts::Facts;
use lastgood_model::Result;
use std::collections::BTreeSet;

/// What to restore, and how.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Tables, views and sequences, with all that is part of them. With `schemas` empty, too: everything.
    pub tables: Vec<Pattern>,
    /// Schemas, with all that is in them.
    pub schemas: Vec<Pattern>,
    /// Tables, views and sequences to leave out, with all that is part of them or cannot be without them.
    pub exclude: Vec<Pattern>,
    /// Rows, definitions, or both.
    pub what: What,
    /// Everything shall belong to whoever restores.
    pub no_owner: bool,
    /// Leave out privileges.
    pub no_acl: bool,
    /// Everything shall go to the target's default tablespace and table access method.
    pub no_tablespace: bool,
    /// Restore the one selected table under this name.
    pub rename: Option<Rename>,
    /// Schemas that the target has. They are not made again; those of selected tables are when they are not among them.
    pub existing_schemas: BTreeSet<String>,
    /// The target has nothing of the database yet: types, functions, extensions, sequences and the like that the selected
    /// objects need are restored with them. Else they must be there, and the plan says which. Holds the names of the
    /// extensions that the target's server offers: nobody tells which of them an index needs, so all come that can.
    pub brings_needs: Option<BTreeSet<String>>,
    /// OIDs of the materialized views that hold rows in the dumped database; all when `None`.
    pub populated: Option<BTreeSet<u32>>,
}

/// Which half of a database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum What {
    /// Definitions and rows.
    #[default]
    All,
    /// Definitions only. Materialized views stay empty.
    Schema,
    /// Rows and values of sequences only, into tables that are there. Materialized views are not filled again.
    Data,
}

/// A new name for a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rename {
    /// The schema; the old one when `None`.
    pub schema: Option<String>,
    /// The name.
    pub name: String,
}

/// A restore as a value. Run `session` on every connection, then `pre` in order, then load `data`, then work on `post`.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How its SQL stands for bytes.
    pub text: Text,
    /// Statements that set up every connection.
    pub session: Vec<String>,
    /// What comes before rows, one after another.
    pub pre: Vec<Step>,
    /// Where rows and values of sequences go.
    pub data: Vec<DataTarget>,
    /// What comes after rows. A step depends only on steps before it, so that one after another works, too.
    pub post: Vec<Step>,
    /// The one table was a partition, and is restored without the table that it was part of.
    pub is_partition_alone: bool,
    /// What a person should know: what is left out and why, what must be in the target already.
    pub notes: Vec<String>,
}

/// Statements that are sent as one simple query, and so are done as a whole or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Unique in the plan, ascending.
    pub id: u32,
    /// For messages: `INDEX public.x`.
    pub what: String,
    /// The statements. Empty for a step that only waits for others.
    pub sql: String,
    /// Steps of `post` that must be done before.
    pub depends_on: Vec<u32>,
    /// OIDs of tables in [`Plan::data`] whose rows must be loaded before.
    pub data: Vec<u32>,
    /// Locks that it takes on tables. Steps with conflicting ones should not run at the same time: they would wait for
    /// each other, and keep connections busy with that.
    pub locks: Vec<Lock>,
    /// OID of the table whose size says how long it takes; `None` when it takes no time.
    pub weight: Option<u32>,
}

impl Step {
    /// Whether both together would wait for each other.
    pub fn conflicts_with(&self, other: &Self) -> bool {
        let pairs = self.locks.iter().flat_map(|mine| other.locks.iter().map(move |theirs| (mine, theirs)));
        pairs.into_iter().any(|(mine, theirs)| mine.table == theirs.table && mine.mode.conflicts_with(theirs.mode))
    }
}

/// A lock on a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lock {
    /// The table's OID in the dumped database.
    pub table: u32,
    /// How.
    pub mode: LockMode,
}

/// How a statement locks a table, weakest first; those modes of PostgreSQL that steps use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LockMode {
    /// Reading.
    AccessShare,
    /// A foreign key that is validated, on the table it points to.
    RowShare,
    /// Validating, statistics, comments.
    ShareUpdateExclusive,
    /// Building an index.
    Share,
    /// Triggers and new foreign keys.
    ShareRowExclusive,
    /// Everything else that alters a table.
    AccessExclusive,
}

impl LockMode {
    /// The table "Conflicting Lock Modes" of PostgreSQL's manual.
    pub fn conflicts_with(self, other: Self) -> bool {
        use LockMode::{AccessExclusive, AccessShare, RowShare, Share, ShareUpdateExclusive};
        match (self.min(other), self.max(other)) {
            (_, AccessExclusive) => true,
            (AccessShare | RowShare, _) => false,
            (Share, Share) => false,
            (ShareUpdateExclusive | Share, _) => true,
            _ => true,
        }
    }
}

/// A place for rows, or for the value of a sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataTarget {
    /// OID in the dumped database.
    pub oid: u32,
    /// Whether it is a sequence.
    pub is_sequence: bool,
    /// Its schema while rows are loaded. Not the one that it ends in when it is restored under another name.
    pub schema: String,
    /// Its name then.
    pub name: String,
}

/// Plans a restore. [`lastgood_model::ErrorKind::Absent`] when a pattern fits nothing,
/// [`lastgood_model::ErrorKind::Invalid`] when wishes contradict each other.
pub fn plan(toc: &Toc, options: &Options) -> Result<Plan> {
    let session = Session::of(toc)?;
    let facts = Facts::of(toc, session.standard_strings);
    let mut notes = Vec::new();
    let chosen = choose::choose(&facts, options, &mut notes)?;
    let rename = options.rename.as_ref().map(|wish| rename::Move::plan(&facts, &chosen, wish, options)).transpose()?;
    let is_chosen = |index: usize| chosen.contains(index);

    let mut plan = Plan {
        text: toc.text,
        session: session.settings.clone(),
        pre: Vec::new(),
        data: Vec::new(),
        post: Vec::new(),
        is_partition_alone: false,
        notes: Vec::new(),
    };
    if options.what != What::Schema {
        for (index, entry) in toc.entries.iter().enumerate().filter(|(index, _)| is_chosen(*index)) {
            let is_sequence = entry.desc == "SEQUENCE";
            if is_sequence || (entry.desc == "TABLE" && !facts.is_partitioned(index)) {
                let schema = entry.namespace.clone().unwrap_or_default();
                let schema = rename.as_ref().map_or(schema, |rename| rename.scratch.clone());
                plan.data.push(DataTarget { oid: entry.oid, is_sequence, schema, name: entry.tag.clone() });
            }
        }
    }
    if options.what != What::Data {
        let wishes = Wishes { no_owner: options.no_owner, no_tablespace: options.no_tablespace };
        let mut graph = graph::Graph::new(&facts, &session, wishes, &plan.data);
        if let Some(rename) = &rename {
            graph.pre_statement("SCHEMA for the time of the restore", rename.begin(options));
        }
        for (index, (_, part)) in object::parts(toc).enumerate().filter(|(index, _)| is_chosen(*index)) {
            if part == Part::PreData {
                graph.pre_entry(index, rename.as_ref().and_then(|rename| rename.with(index)), &mut notes)?;
            }
        }
        graph.post(&chosen, options, &mut notes)?;
        if let Some(rename) = &rename {
            graph.last("TABLE under its new name", rename.end());
        }
        (plan.pre, plan.post) = graph.finish();
        if let Some(rename) = &rename {
            for step in plan.pre.iter_mut().chain(&mut plan.post) {
                step.sql = rename.rewrite(&step.sql, session.standard_strings);
            }
        }
    } else if options.rename.is_some() {
        notes.push("the new name is not used: only rows are restored, into a table that is there".to_owned());
    }
    plan.is_partition_alone = rename.as_ref().is_some_and(|rename| rename.is_partition);
    plan.notes = notes;
    Ok(plan)
}
