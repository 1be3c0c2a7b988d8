//! What a role must be granted to capture, and what of it is missing.

use super::catalog::{Relation, Relations};
use super::session;
use super::sql::{literal, quote, quote_in};
use super::wire::Client;
use lastgood_model::{Error, ErrorKind, Result};
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

/// Who a session acts as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Acting {
    /// The role whose rights count.
    pub(super) role: String,
    /// The role that signed in, when that is another.
    pub(super) signed_in: Option<String>,
}

/// Asks who we are: a database or a role may be set to let everybody act as somebody else.
pub(super) fn acting(client: &mut Client) -> Result<Acting> {
    let rows = client.query("SELECT current_user, session_user")?;
    let row = rows.only()?;
    let (role, signed_in) = (row.text(0)?.to_owned(), row.text(1)?.to_owned());
    Ok(Acting { signed_in: (signed_in != role).then_some(signed_in), role })
}

impl Acting {
    /// For messages.
    pub(super) fn shown(&self) -> String {
        match &self.signed_in {
            Some(signed_in) => format!(
                "role {:?} (which {signed_in:?} acts as here, by a setting `role` of the database or the role)",
                self.role
            ),
            None => format!("role {:?}", self.role),
        }
    }
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
pub(super) fn denied(missing: &[Missing], acting: &Acting, version: u32) -> Error {
    let what: Vec<String> = missing.iter().map(|one| one.what.clone()).collect();
    let grants: Vec<String> = missing.iter().map(|one| one.grant.clone()).collect();
    let mut hint = some_of(&grants).replace(";, ", "; ");
    if version >= READ_ALL_SINCE {
        // Writing to a string cannot fail.
        let _ = write!(hint, " — or for all of it at once: GRANT pg_read_all_data TO {};", quote(&acting.role));
    }
    if acting.signed_in.is_some() {
        hint.push_str(" — or take that setting back: ALTER DATABASE … RESET role");
    }
    Error::new(ErrorKind::Denied, format!("{} may not read {}", acting.shown(), some_of(&what))).with_hint(hint)
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

/// The name of the role that [`least_privilege_script`] makes when nobody names another.
pub const ROLE: &str = "lastgood_backup";
/// The comment by which the script knows a role that it made.
const MARK: &str = "made by lastgood doctor --grants";
/// The longest name that a server does not cut off.
const NAME_BYTES_MAX: usize = 63;

/// What may make a role, or set right the one that it made before. Any other is somebody's: with our settings the role
/// of an application could write no more.
const MAKE_ROLE: &str = "\
DO $lastgood$
DECLARE
  wanted pg_catalog.text := pg_catalog.current_setting('lastgood.role');
  mark pg_catalog.text := pg_catalog.current_setting('lastgood.mark');
  old record;
BEGIN
  SELECT r.rolsuper, pg_catalog.shobj_description(r.oid, 'pg_authid') AS said,
    EXISTS (SELECT FROM pg_catalog.pg_shdepend d WHERE d.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass
      AND d.refobjid = r.oid AND d.deptype = 'o') AS owns
    INTO old FROM pg_catalog.pg_roles r WHERE r.rolname = wanted;
  IF NOT FOUND THEN
    EXECUTE pg_catalog.format('CREATE ROLE %I', wanted);
    EXECUTE pg_catalog.format('COMMENT ON ROLE %I IS %L', wanted, mark);
  ELSIF old.rolsuper THEN
    RAISE EXCEPTION 'role % is a superuser, and stays as it is', wanted
      USING HINT = 'name another one: lastgood doctor --grants SOURCE --role NAME';
  ELSIF old.owns THEN
    RAISE EXCEPTION 'role % owns something, and stays as it is', wanted
      USING HINT = 'name another one: lastgood doctor --grants SOURCE --role NAME';
  ELSIF old.said IS DISTINCT FROM mark THEN
    RAISE EXCEPTION 'role % was not made by such a script, and stays as it is', wanted
      USING HINT = 'name another one: lastgood doctor --grants SOURCE --role NAME';
  END IF;
END
$lastgood$;
";

/// SQL that makes `role` with no more rights than a capture of these databases needs: to be run by a superuser in
/// `psql`, in any database. It ends at its first error, and touches no role that it did not make. The password is to be
/// set by hand: `\password` in `psql` sends it encrypted. `url` is what leads to the databases as that role, for people.
///
/// From PostgreSQL 14 on `pg_read_all_data` reads every table, sequence and large object, and the verifiers of passwords;
/// before, each has to be granted, tables that are made later by their makers' default privileges, and large objects
/// through the table of the system that holds them. Row-level security would hide rows from such a role, so it is told
/// to be passed over.
///
/// # Errors
/// [`ErrorKind::Invalid`] for a name that no new role can have.
pub fn least_privilege_script(role: &str, databases: &[String], url: &str) -> Result<String> {
    if role.is_empty() || role.len() > NAME_BYTES_MAX || role.contains(char::is_control) || role.starts_with("pg_") {
        return Err(Error::invalid(format!("a role cannot be called {role:?}"))
            .with_hint("a name has 1 to 63 bytes, none of them a control character, and does not begin with `pg_`"));
    }
    let name = quote(role);
    let mut out = format!(
        "-- A role for captures by lastgood. Run it as a superuser: psql -X -d postgres -f THIS_FILE\n\
         -- It makes {name}, or sets right the one that it made before; any other role stays as it is.\n\
         \\set ON_ERROR_STOP on\n\
         SET lastgood.role = {};\n\
         SET lastgood.mark = {};\n\
         {MAKE_ROLE}\
         ALTER ROLE {name} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION BYPASSRLS CONNECTION LIMIT 16;\n\
         ALTER ROLE {name} SET default_transaction_read_only = on;\n\n\
         -- PostgreSQL 14 and newer: all tables, sequences and large objects, those made later among them.\n\
         SELECT pg_catalog.current_setting('server_version_num')::int >= 140000 AS has_read_all \\gset\n\
         \\if :has_read_all\n\
         GRANT pg_read_all_data TO {name};\n\
         \\endif\n\n\
         -- Definitions of subscriptions and options of user mappings are shown to superusers alone: where there are\n\
         -- some, captures by this role are incomplete, and say so.\n\n\
         -- With it comes reading the verifiers of all roles' passwords, so guard its own as one of a superuser. Older\n\
         -- servers show those to superusers only: roles are then kept without them, and they are set anew after a\n\
         -- restore.\n",
        literal(role),
        literal(MARK),
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
    let next = [
        format!("Role {name} is there. Give it a password, which psql sends encrypted: \\password {name}"),
        "Keep that in ~/.pgpass of the user who runs lastgood, and write into the config:".to_owned(),
        format!("url = \"{}\"", url.replace('\\', "\\\\").replace('"', "\\\"")),
    ];
    out.push('\n');
    for line in next {
        let _ = writeln!(out, "\\echo '{}'", line.replace('\\', "\\\\").replace('\'', "''"));
    }
    Ok(out)
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
    fn a_name_that_no_role_can_have_is_refused() {
        for name in ["", "a\nDROP TABLE x", "pg_mine", &"x".repeat(64)] {
            assert_eq!(least_privilege_script(name, &[], "").unwrap_err().kind(), ErrorKind::Invalid, "{name:?}");
        }
    }

    #[test]
    fn the_error_names_what_cannot_be_read_and_the_statement_that_mends_it() {
        let one = Missing {
            what: "table public.secret".into(),
            grant: "GRANT SELECT ON TABLE \"public\".\"secret\" TO \"b\";".into(),
        };
        let acting = Acting { role: "b".into(), signed_in: None };
        let error = denied(&[one.clone(), one], &acting, 150_000);
        assert_eq!(error.kind(), ErrorKind::Denied);
        assert!(error.message().contains("table public.secret"));
        let hint = error.hint().unwrap();
        assert!(hint.contains("TO \"b\"; GRANT SELECT") && hint.contains("GRANT pg_read_all_data TO \"b\";"), "{hint}");
        assert!(!denied(&[], &acting, 130_000).hint().unwrap().contains("pg_read_all_data"));
    }
}
