//! The schema, entry by entry as `pg_dump` describes it now and then.
//!
//! Different versions of servers and of `pg_dump` tell the same thing in different words. So definitions are compared
//! only where both are of the same major version; else it is compared what there is, and who owns it.

use super::super::super::conninfo::Conninfo;
use super::super::super::script::object::{self, Part};
use super::super::super::toc::{Entry, Text, Toc};
use super::super::super::tools::{DumpOptions, Tools, dump_schema};
use super::super::super::wire::Client;
use super::super::planning::version_of;
use super::super::saved::SavedDatabase;
use super::{Mismatch, VerifyOptions, VerifyReport};
use lastgood_model::{Context, Result};
use std::collections::BTreeMap;

/// So much of a definition is shown.
const SHOWN_MAX: usize = 400;

pub(super) fn compare(
    client: &mut Client,
    target: &Conninfo,
    saved: &SavedDatabase,
    options: &VerifyOptions,
    is_cancelled: &dyn Fn() -> bool,
    report: &mut VerifyReport,
) -> Result<()> {
    let Some(expected) = &saved.toc else { return Ok(()) };
    let tools = Tools::find(options.tools.as_deref())?;
    let installation = tools.choose(client.server_version())?;
    let quote_all = expected.entries.iter().any(|entry| {
        entry.desc == "TABLE" && entry.definition().starts_with("CREATE") && entry.definition().contains('"')
    });
    let dump = DumpOptions {
        quote_all,
        utf8: client.parameter("server_encoding") != Some("SQL_ASCII"),
        ..DumpOptions::default()
    };
    let found = dump_schema(
        installation,
        &client.conninfo().with_database(target.database()).to_environment(),
        &dump,
        is_cancelled,
    )
    .context("describe the schema of the server")?;
    let found = if expected.text == Text::Bytes { found.into_bytes() } else { found };
    let major = |said: &str| version_of(said).map(|version| version.major());
    let is_same = major(&expected.server_version) == major(&found.server_version)
        && major(&expected.dump_version) == major(&found.dump_version);
    let (expected, found) = (entries(expected, options), entries(&found, options));
    report.schema_entries = expected.values().map(|list| list.len() as u64).sum();
    differences(&expected, &found, is_same, &mut report.mismatches);
    Ok(())
}

/// Kind, schema and name.
type Key = (String, String, String);
/// Definition and owner.
type Told = (String, String);

fn entries(toc: &Toc, options: &VerifyOptions) -> BTreeMap<Key, Vec<Told>> {
    let mut out: BTreeMap<Key, Vec<Told>> = BTreeMap::new();
    for (entry, part) in object::parts(toc) {
        let is_acl = matches!(entry.desc.as_str(), "ACL" | "ACL LANGUAGE" | "DEFAULT ACL");
        let is_left_out = matches!(part, Part::Database | Part::Nowhere | Part::Data) || options.no_acl && is_acl;
        // What the planner knew is measured anew.
        if is_left_out || entry.desc == "STATISTICS DATA" {
            continue;
        }
        let key = (entry.desc.clone(), entry.namespace.clone().unwrap_or_default(), entry.tag.clone());
        out.entry(key).or_default().push((definition(entry), owner(entry, options)));
    }
    out.values_mut().for_each(|list| list.sort());
    out
}

fn owner(entry: &Entry, options: &VerifyOptions) -> String {
    // An extension belongs to whoever made it, and what is the system's own to whoever made the server.
    let is_of_system = matches!(entry.namespace.as_deref(), Some("pg_catalog" | "information_schema"));
    let is_told = !options.no_owner && entry.desc != "EXTENSION" && !is_of_system;
    entry.owner.clone().filter(|_| is_told).unwrap_or_default()
}

fn definition(entry: &Entry) -> String {
    let text = entry.definition().trim_end();
    if entry.desc == "POLICY" {
        return roles_in_order(text);
    }
    if entry.desc != "TABLE" || !text.contains("\nINHERITS (") {
        return text.to_owned();
    }
    // A table that is made with its parents has their columns first, whatever order it was given them in.
    let mut lines: Vec<&str> = text.lines().map(|line| line.trim_end_matches(',')).collect();
    lines.sort_unstable();
    lines.join("\n")
}

/// A policy's roles are told in the order of their OIDs, which are others on every server.
fn roles_in_order(policy: &str) -> String {
    let Some((before, rest)) = policy.split_once(" TO ") else { return policy.to_owned() };
    let end = rest.find(" USING (").or_else(|| rest.find(" WITH CHECK (")).unwrap_or(rest.len());
    let mut roles: Vec<&str> = rest[..end].trim_end_matches(';').split(", ").collect();
    roles.sort_unstable();
    format!("{before} TO {}{}", roles.join(", "), &rest[end..])
}

fn differences(
    expected: &BTreeMap<Key, Vec<Told>>,
    found: &BTreeMap<Key, Vec<Told>>,
    with_definitions: bool,
    out: &mut Vec<Mismatch>,
) {
    let what = |(desc, schema, name): &Key| match schema.is_empty() {
        true => format!("{desc} {name}"),
        false => format!("{desc} {schema}.{name}"),
    };
    let shown = |list: &[Told]| {
        let told = list.iter().map(|(definition, owner)| match owner.is_empty() {
            true => definition.clone(),
            false => format!("{definition} -- of {owner}"),
        });
        let text: String = told.collect::<Vec<_>>().join(" ").chars().take(SHOWN_MAX).collect();
        if text.is_empty() { "there".to_owned() } else { text }
    };
    for (key, list) in expected {
        let is_same = match found.get(key) {
            Some(other) if with_definitions => other == list,
            Some(other) => {
                let owners = |list: &[Told]| {
                    let mut owners: Vec<String> = list.iter().map(|(_, owner)| owner.clone()).collect();
                    owners.sort();
                    owners
                };
                owners(other) == owners(list)
            }
            // Newer versions tell of some things together, older ones each by itself.
            None => !with_definitions && !is_own_thing(&key.0),
        };
        if !is_same {
            let found = found.get(key).map_or_else(|| "not there".to_owned(), |list| shown(list));
            out.push(Mismatch { what: what(key), expected: shown(list), found });
        }
    }
    for (key, list) in found.iter().filter(|(key, _)| !expected.contains_key(key)) {
        if with_definitions || is_own_thing(&key.0) {
            out.push(Mismatch { what: what(key), expected: "not there".to_owned(), found: shown(list) });
        }
    }
}

/// What every version tells as an entry of its own.
fn is_own_thing(desc: &str) -> bool {
    matches!(
        desc,
        "TABLE"
            | "VIEW"
            | "MATERIALIZED VIEW"
            | "FOREIGN TABLE"
            | "SEQUENCE"
            | "INDEX"
            | "FUNCTION"
            | "TRIGGER"
            | "FK CONSTRAINT"
            | "TYPE"
            | "DOMAIN"
            | "SCHEMA"
            | "EXTENSION"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(list: &[(&str, &str, &str, &str)]) -> BTreeMap<Key, Vec<Told>> {
        let mut out: BTreeMap<Key, Vec<Told>> = BTreeMap::new();
        for (desc, name, definition, owner) in list {
            let key = ((*desc).to_owned(), "s".to_owned(), (*name).to_owned());
            out.entry(key).or_default().push(((*definition).to_owned(), (*owner).to_owned()));
        }
        out
    }

    #[test]
    fn what_is_missing_added_or_changed_is_told() {
        let expected =
            map(&[("TABLE", "t", "CREATE t", "a"), ("INDEX", "i", "CREATE i", ""), ("COMMENT", "c", "x", "")]);
        let found =
            map(&[("TABLE", "t", "CREATE t (x)", "a"), ("VIEW", "v", "CREATE v", ""), ("COMMENT", "c", "x", "")]);
        let mut out = Vec::new();
        differences(&expected, &found, true, &mut out);
        let what: Vec<&str> = out.iter().map(|one| one.what.as_str()).collect();
        assert_eq!(what, ["INDEX s.i", "TABLE s.t", "VIEW s.v"]);
        out.clear();
        differences(&expected, &expected, true, &mut out);
        assert_eq!(out, []);
    }

    #[test]
    fn the_order_of_columns_counts_but_in_tables_that_inherit() {
        let of = |text: &str| definition(&Entry { desc: "TABLE".into(), defn: Some(text.into()), ..Entry::default() });
        assert_eq!(
            of("CREATE TABLE c (\n  z int,\n  a int\n)\nINHERITS (p);"),
            of("CREATE TABLE c (\n  a int,\n  z int\n)\nINHERITS (p);")
        );
        assert_ne!(of("CREATE TABLE c (\n  z int,\n  a int\n);"), of("CREATE TABLE c (\n  a int,\n  z int\n);"));
    }

    #[test]
    fn who_made_the_server_is_no_difference() {
        let of = |schema: &str| {
            let entry = Entry { namespace: Some(schema.into()), owner: Some("postgres".into()), ..Entry::default() };
            owner(&entry, &VerifyOptions::default())
        };
        assert_eq!((of("pg_catalog"), of("information_schema"), of("app")), ("".into(), "".into(), "postgres".into()));
    }

    #[test]
    fn between_versions_only_things_and_owners_count() {
        let expected = map(&[("TABLE", "t", "CREATE t", "a"), ("DEFAULT", "d", "x", "")]);
        let mut out = Vec::new();
        differences(&expected, &map(&[("TABLE", "t", "other words", "a")]), false, &mut out);
        assert_eq!(out, []);
        differences(&expected, &map(&[("TABLE", "t", "CREATE t", "b")]), false, &mut out);
        assert_eq!(out.len(), 1);
    }
}
