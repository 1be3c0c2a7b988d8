//! What a role must be granted to capture, and what of it is missing.

use super::catalog::{Relation, Relations};
use super::session;
use super::sql::{quote, quote_in};
use lastgood_model::{Error, ErrorKind};
use std::collections::BTreeSet;
use std::fmt::Write;

/// Names shown in one message.
const SHOWN_MAX: usize = 20;
/// The first version with a role that may read everything.
const READ_ALL_SINCE: u32 = 140_000;

/// A right that is missing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Missing {
    /// What cannot be read, for messages.
    pub(super) what: String,
    /// The statement that grants it.
    pub(super) grant: String,
}

/// What `role` lacks. Tables are locked and their definition read even when only the schema is wanted.
pub(super) fn missing(relations: &Relations, role: &str, schema_only: bool) -> Vec<Missing> {
    let role = quote(role);
    let mut out = BTreeSet::new();
    let tables = relations.tables.iter().filter(|table| table.kind.is_some_and(session::is_lockable));
    let sequences = relations.sequences.iter().filter(|_| !schema_only);
    let mut look = |relation: &Relation, what: &str| {
        if !relation.may_use_schema {
            out.insert(Missing {
                what: format!("schema {}", relation.schema),
                grant: format!("GRANT USAGE ON SCHEMA {} TO {role};", quote(&relation.schema)),
            });
        }
        if !relation.may_select {
            let name = quote_in(&relation.schema, &relation.name);
            out.insert(Missing {
                what: format!("{} {}", what.to_lowercase(), relation.shown()),
                grant: format!("GRANT SELECT ON {what} {name} TO {role};"),
            });
        }
    };
    tables.for_each(|table| look(table, "TABLE"));
    sequences.for_each(|sequence| look(sequence, "SEQUENCE"));
    out.into_iter().collect()
}

/// The error for what is missing.
pub(super) fn denied(missing: &[Missing], role: &str, version: u32) -> Error {
    let what: Vec<String> = missing.iter().map(|one| one.what.clone()).collect();
    let grants: Vec<String> = missing.iter().map(|one| one.grant.clone()).collect();
    let mut hint = some_of(&grants).replace(";, ", "; ");
    if version >= READ_ALL_SINCE {
        // Writing to a string cannot fail.
        let _ = write!(hint, " — or for all of it at once: GRANT pg_read_all_data TO {};", quote(role));
    }
    Error::new(ErrorKind::Denied, format!("role {role:?} may not read {}", some_of(&what))).with_hint(hint)
}

/// The first of many names.
pub(super) fn some_of(names: &[String]) -> String {
    let mut out = names.iter().take(SHOWN_MAX).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN_MAX {
        // Writing to a string cannot fail.
        let _ = write!(out, " and {} more", names.len() - SHOWN_MAX);
    }
    out
}

/// SQL that makes a role with no more rights than a capture of these databases needs: to be run by a superuser, once in
/// any database but for the parts that say otherwise. The password is to be set by hand: `\password` in `psql` sends it
/// encrypted.
///
/// From PostgreSQL 14 on `pg_read_all_data` reads every table, sequence and large object, and the verifiers of passwords;
/// before, each has to be granted, tables that are made later by their makers' default privileges, and large objects
/// through the table of the system that holds them. Row-level security would hide rows from such a role, so it is told to be passed over.
pub fn least_privilege_script(role: &str, databases: &[String]) -> String {
    let name = quote(role);
    let mut out = format!(
        "-- A role for captures by lastgood. Run by a superuser, in psql.\n\
         CREATE ROLE {name} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION BYPASSRLS CONNECTION LIMIT 16;\n\
         ALTER ROLE {name} SET default_transaction_read_only = on;\n\
         -- Its password: \\password {name}\n\n\
         -- PostgreSQL 14 and newer: all tables, sequences and large objects, those made later among them.\n\
         SELECT pg_catalog.current_setting('server_version_num')::int >= 140000 AS has_read_all \\gset\n\
         \\if :has_read_all\n\
         GRANT pg_read_all_data TO {name};\n\
         \\endif\n\n\
         -- With it comes reading the verifiers of all roles' passwords, so guard its own as one of a superuser. Older\n\
         -- servers show those to superusers only: roles are then kept without them, and they are set anew after a\n\
         -- restore.\n"
    );
    for database in databases {
        let quoted = quote(database);
        // Writing to a string cannot fail.
        let _ = write!(
            out,
            "\nGRANT CONNECT ON DATABASE {quoted} TO {name};\n\
             \\if :has_read_all\n\
             \\else\n\
             -- Older servers: every schema and what is in it, large objects through the table that holds them.\n\
             \\connect {quoted}\n\
             SELECT pg_catalog.format('GRANT USAGE ON SCHEMA %1$I TO {role}; GRANT SELECT ON ALL TABLES IN SCHEMA %1$I \
             TO {role}; GRANT SELECT ON ALL SEQUENCES IN SCHEMA %1$I TO {role}', n.nspname)\n\
             FROM pg_catalog.pg_namespace n WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' \\gexec\n\
             GRANT SELECT ON pg_catalog.pg_largeobject TO {name};\n\
             -- For tables made later, once for each role that makes some:\n\
             -- ALTER DEFAULT PRIVILEGES FOR ROLE … GRANT SELECT ON TABLES TO {name};\n\
             \\endif\n",
            // Within a format string within a literal.
            role = name.replace('%', "%%").replace('\'', "''"),
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_names_are_cut_short() {
        let names: Vec<String> = (0..25).map(|n| n.to_string()).collect();
        assert!(some_of(&names).ends_with("19 and 5 more"));
        assert_eq!(some_of(&names[..2]), "0, 1");
    }

    #[test]
    fn the_error_names_what_cannot_be_read_and_the_statement_that_mends_it() {
        let one = Missing {
            what: "table public.secret".into(),
            grant: "GRANT SELECT ON TABLE \"public\".\"secret\" TO \"b\";".into(),
        };
        let error = denied(&[one.clone(), one], "b", 150_000);
        assert_eq!(error.kind(), ErrorKind::Denied);
        assert!(error.message().contains("table public.secret"));
        let hint = error.hint().unwrap();
        assert!(hint.contains("TO \"b\"; GRANT SELECT") && hint.contains("GRANT pg_read_all_data TO \"b\";"), "{hint}");
        assert!(!denied(&[], "b", 130_000).hint().unwrap().contains("pg_read_all_data"));
    }
}
