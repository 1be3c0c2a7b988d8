//! What to do with each entry of a table of contents, and the SQL for it. The rules are those of `_tocEntryRequired`,
//! `_tocEntryRestorePass`, `_printTocEntry` and `_getObjectDescription` in PostgreSQL's `pg_backup_archiver.c`.

use super::super::sql::{literal, quote, quote_in};
use super::super::toc::{Entry, Section, Toc};
use super::session::Session;
use lastgood_model::{Error, Result};

/// Where an entry belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Part {
    /// A setting of the session, or nothing at all.
    Nowhere,
    /// The database itself.
    Database,
    /// Rows, values of sequences, large objects.
    Data,
    /// Before rows.
    PreData,
    /// After rows.
    PostData(Pass),
}

/// The order of what comes after rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) enum Pass {
    /// Indexes, constraints, triggers, …
    Main,
    /// Privileges.
    Privileges,
    /// What the planner knew.
    Statistics,
    /// Event triggers.
    Last,
}

/// All entries with where they belong, in order.
pub(in super::super) fn parts(toc: &Toc) -> impl Iterator<Item = (&Entry, Part)> {
    let mut section = Section::PreData;
    toc.entries.iter().map(move |entry| {
        if entry.section != Section::None {
            section = entry.section;
        }
        (entry, part(entry, section))
    })
}

fn part(entry: &Entry, section: Section) -> Part {
    let is_about =
        |kind: &str| matches!(entry.desc.as_str(), "ACL" | "COMMENT" | "SECURITY LABEL") && entry.tag.starts_with(kind);
    match entry.desc.as_str() {
        "ENCODING" | "STDSTRINGS" | "SEARCHPATH" | "<Init>" | "WARNING" => return Part::Nowhere,
        "DATABASE" | "DATABASE PROPERTIES" => return Part::Database,
        "TABLE DATA" | "SEQUENCE SET" | "BLOB" | "BLOBS" | "BLOB METADATA" | "BLOB COMMENTS" => return Part::Data,
        // Made anew by `refresh`, as most archives have none.
        "MATERIALIZED VIEW DATA" => return Part::Data,
        _ if is_about("DATABASE ") => return Part::Database,
        _ if is_about("LARGE OBJECT") => return Part::Data,
        "ACL" | "ACL LANGUAGE" | "DEFAULT ACL" => return Part::PostData(Pass::Privileges),
        "STATISTICS DATA" => return Part::PostData(Pass::Statistics),
        "EVENT TRIGGER" => return Part::PostData(Pass::Last),
        _ if is_about("EVENT TRIGGER ") && entry.desc == "COMMENT" => return Part::PostData(Pass::Last),
        // What initdb said already. Some versions of pg_dump repeat it, and only the owner of the schema may.
        "COMMENT"
            if matches!(entry.tag.as_str(), "SCHEMA public" | "SCHEMA \"public\"")
                && entry.definition().trim_end().ends_with("IS 'standard public schema';") =>
        {
            return Part::Nowhere;
        }
        _ => {}
    }
    match section {
        Section::PreData => Part::PreData,
        _ => Part::PostData(Pass::Main),
    }
}

/// What a person wants to be left out of the SQL.
#[derive(Clone, Copy, Debug, Default)]
pub(in super::super) struct Wishes {
    /// Everything belongs to whoever restores.
    pub(in super::super) no_owner: bool,
    /// Everything goes to the default tablespace and access method.
    pub(in super::super) no_tablespace: bool,
}

/// Settings that decide where an object is put. `None`: it does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Place {
    tablespace: Option<String>,
    table_am: Option<String>,
    search_path: Option<String>,
}

impl Place {
    /// Statements that bring a session in the state `now` here, which then is its state.
    pub(in super::super) fn changes_from(&self, now: &mut Self) -> Vec<String> {
        let mut statements = Vec::new();
        let mut change = |want: &Option<String>, have: &mut Option<String>, name: &str| {
            if let Some(value) = want
                && have.as_ref() != Some(value)
            {
                statements.push(format!("SET {name} = {value};"));
                *have = Some(value.clone());
            }
        };
        change(&self.search_path, &mut now.search_path, "search_path");
        change(&self.tablespace, &mut now.tablespace, "default_tablespace");
        change(&self.table_am, &mut now.table_am, "default_table_access_method");
        statements
    }
}

/// An object as SQL.
#[derive(Clone, Debug)]
pub(in super::super) struct Made {
    /// One or more statements.
    pub(in super::super) sql: String,
    /// What must be set before.
    pub(in super::super) place: Place,
}

/// The SQL that makes an object and gives it its owner; `None` when there is nothing to do. Remarks for people go to
/// `remarks`.
pub(in super::super) fn make(
    entry: &Entry,
    session: &Session,
    wishes: &Wishes,
    remarks: &mut Vec<String>,
) -> Result<Option<Made>> {
    let definition = entry.definition();
    if definition.is_empty() {
        return Ok(None);
    }
    let is_partitioned = entry.relkind == Some('p');
    let table_am = entry.table_am.as_deref().filter(|name| !name.is_empty() && !wishes.no_tablespace).map(quote);
    let place = Place {
        tablespace: entry
            .tablespace
            .as_ref()
            .filter(|_| !wishes.no_tablespace)
            .map(|name| if name.is_empty() { "''".to_owned() } else { quote(name) }),
        table_am: table_am.clone().filter(|_| !is_partitioned),
        search_path: entry
            .namespace
            .as_ref()
            .filter(|name| !session.is_qualified && !name.is_empty())
            .map(|name| if name == "pg_catalog" { name.clone() } else { format!("{}, pg_catalog", quote(name)) }),
    };
    let is_schema = entry.desc == "SCHEMA" && !definition.starts_with("--");
    let mut sql = if is_schema && entry.tag == "public" {
        // From servers older than 15; every new database has it.
        "CREATE SCHEMA IF NOT EXISTS public;".to_owned()
    } else if is_schema && wishes.no_owner {
        // Very old ones name the owner right there.
        format!("CREATE SCHEMA {};", quote(&entry.tag))
    } else if entry.desc == "COMMENT" && entry.tag.starts_with("EXTENSION ") {
        comment_on_extension(definition)
    } else {
        definition.trim_end().to_owned()
    };
    if entry.with_oids {
        remarks.push(format!("{} had OIDs, which no server still knows", entry.label()));
    }
    let owner = entry.owner.as_deref().filter(|owner| !owner.is_empty() && !wishes.no_owner);
    if let Some(owner) = owner
        && entry.drop_stmt.as_deref().is_some_and(|text| !text.is_empty())
    {
        match owned(entry)? {
            Owned::As(what) => {
                sql.push_str(&format!("\nALTER {what} OWNER TO {};", quote(owner)));
            }
            Owned::ByNobody => {}
            Owned::Unknown => remarks.push(format!("the owner of {} was not kept: unknown kind", entry.label())),
        }
    }
    if let Some(table_am) = table_am.filter(|_| is_partitioned) {
        let name = quote_in(entry.namespace.as_deref().unwrap_or_default(), &entry.tag);
        sql.push_str(&format!("\nALTER TABLE {name} SET ACCESS METHOD {table_am};"));
    }
    Ok(Some(Made { sql, place }))
}

enum Owned {
    /// What follows `ALTER`.
    As(String),
    ByNobody,
    Unknown,
}

fn owned(entry: &Entry) -> Result<Owned> {
    Ok(match entry.desc.as_str() {
        "COLLATION"
        | "CONVERSION"
        | "DATABASE"
        | "DOMAIN"
        | "EVENT TRIGGER"
        | "FOREIGN DATA WRAPPER"
        | "FOREIGN TABLE"
        | "MATERIALIZED VIEW"
        | "PROCEDURAL LANGUAGE"
        | "PUBLICATION"
        | "SCHEMA"
        | "SEQUENCE"
        | "SERVER"
        | "STATISTICS"
        | "SUBSCRIPTION"
        | "TABLE"
        | "TEXT SEARCH CONFIGURATION"
        | "TEXT SEARCH DICTIONARY"
        | "TYPE"
        | "VIEW"
        | "PROPERTY GRAPH" => {
            let namespace = entry.namespace.as_deref().unwrap_or_default();
            Owned::As(format!("{} {}", entry.desc, quote_in(namespace, &entry.tag)))
        }
        // Their arguments are part of the name, and the statement that drops them has both.
        "AGGREGATE" | "FUNCTION" | "OPERATOR" | "OPERATOR CLASS" | "OPERATOR FAMILY" | "PROCEDURE" => {
            let drop = entry.drop_stmt.as_deref().unwrap_or_default();
            let what = drop.strip_prefix("DROP ").map(|what| what.trim_end_matches(['\n', ';']));
            let what = what.filter(|what| !what.is_empty());
            Owned::As(what.ok_or_else(|| Error::corrupt(format!("{} cannot be dropped", entry.label())))?.to_owned())
        }
        "ACCESS METHOD"
        | "ACL"
        | "CAST"
        | "CHECK CONSTRAINT"
        | "COMMENT"
        | "CONSTRAINT"
        | "DATABASE PROPERTIES"
        | "DEFAULT"
        | "DEFAULT ACL"
        | "EXTENSION"
        | "FK CONSTRAINT"
        | "INDEX"
        | "INDEX ATTACH"
        | "POLICY"
        | "PUBLICATION TABLE"
        | "PUBLICATION TABLES IN SCHEMA"
        | "ROW SECURITY"
        | "RULE"
        | "SECURITY LABEL"
        | "SEQUENCE OWNED BY"
        | "SHELL TYPE"
        | "STATISTICS DATA"
        | "SUBSCRIPTION TABLE"
        | "TABLE ATTACH"
        | "TEXT SEARCH PARSER"
        | "TEXT SEARCH TEMPLATE"
        | "TRANSFORM"
        | "TRIGGER"
        | "USER MAPPING" => Owned::ByNobody,
        _ => Owned::Unknown,
    })
}

/// Only the owner of an extension may comment on it, and an extension that was there before belongs to somebody else.
/// A comment is not worth a restore.
fn comment_on_extension(definition: &str) -> String {
    let body = format!(
        "BEGIN EXECUTE {}; EXCEPTION WHEN insufficient_privilege THEN RAISE WARNING '%', SQLERRM; END",
        literal(definition.trim_end().trim_end_matches(';'))
    );
    format!("DO {};", literal(&body))
}
