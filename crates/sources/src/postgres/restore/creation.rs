//! How the database itself is made: `CREATE DATABASE` for the target's server and name, and what belongs to the database
//! and not to anything in it (settings, privileges, comment, owner), which comes last, as it could hinder a restore.

use super::super::script::object::{self, Part};
use super::super::sql::{Kind, Token, Tokens, literal, quote, statements};
use super::super::toc::Toc;
use super::globals::roles_in;
use super::mark::Mark;
use lastgood_model::{Error, ErrorKind, Result};
use std::collections::BTreeSet;

/// A database without its name and content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Creation {
    /// Options of `CREATE DATABASE` and their values as SQL, in order.
    options: Vec<(String, String)>,
    /// Who owned it.
    pub(super) owner: Option<String>,
    /// Settings, privileges, comment: statements that name the database as it was called.
    after: Vec<String>,
    has_comment: bool,
    standard_strings: bool,
}

impl Creation {
    /// What a table of contents says; UTF-8 and the server's own locale when it says nothing.
    pub(super) fn of(toc: Option<&Toc>, standard_strings: bool, no_owner: bool, no_acl: bool) -> Self {
        let mut out = Self { standard_strings, ..Self::default() };
        let mut is_marked = false;
        for (entry, part) in toc.into_iter().flat_map(object::parts) {
            let defn = entry.definition();
            match entry.desc.as_str() {
                _ if part != Part::Database || defn.is_empty() => {}
                "DATABASE" => {
                    out.options = options(defn, standard_strings);
                    let owner = entry.owner.as_ref().filter(|owner| !owner.is_empty() && !no_owner);
                    out.owner = owner.cloned();
                }
                "ACL" if no_acl => {}
                // Of a restore that did not end, which was captured with the database: this one ends.
                "COMMENT" if mark_in(defn, standard_strings).is_some() => {
                    is_marked = true;
                }
                desc => {
                    out.has_comment |= desc == "COMMENT";
                    out.after.extend(statements(defn, standard_strings).into_iter().map(str::to_owned));
                }
            }
        }
        if is_marked {
            out.after.retain(|statement| !statement.contains("default_transaction_read_only"));
        }
        out
    }

    /// The encoding, where it is told.
    pub(super) fn encoding(&self) -> Option<String> {
        self.option("ENCODING").map(|value| value.trim_matches('\'').to_owned())
    }

    fn option(&self, name: &str) -> Option<&str> {
        self.options.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// All that concerns the order of texts, for people.
    pub(super) fn locale(&self) -> String {
        let is_locale = |key: &str| key.contains("LOCALE") || key.starts_with("LC_");
        let told = self.options.iter().filter(|(key, _)| is_locale(key)).map(|(key, value)| format!("{key} = {value}"));
        told.collect::<Vec<_>>().join(", ")
    }

    /// The statement that makes it on a server of this version. A tablespace that the server lacks is left out, which
    /// goes to `remarks`. [`ErrorKind::Unsupported`] when the server cannot have such a database.
    pub(super) fn create(
        &self,
        name: &str,
        version: u32,
        tablespaces: &BTreeSet<String>,
        remarks: &mut Vec<String>,
    ) -> Result<String> {
        let mut sql = format!("CREATE DATABASE {} WITH TEMPLATE = template0", quote(name));
        if self.option("ENCODING").is_none() {
            sql.push_str(" ENCODING = 'UTF8'");
        }
        for (key, value) in &self.options {
            match key.as_str() {
                "TEMPLATE" | "OWNER" => {}
                "LOCALE_PROVIDER" if version < 150_000 => {
                    if !value.trim_matches(['\'', '"']).eq_ignore_ascii_case("libc") {
                        return Err(unsupported(&format!("the locale provider {value}"), version));
                    }
                }
                "LOCALE_PROVIDER" if version < 170_000 && value.trim_matches(['\'', '"']) == "builtin" => {
                    return Err(unsupported("the locale provider builtin", version));
                }
                "LOCALE" if version < 130_000 => {
                    sql.push_str(&format!(" LC_COLLATE = {value} LC_CTYPE = {value}"));
                }
                // Belongs to the library of another host.
                "COLLATION_VERSION" => {}
                "TABLESPACE" => {
                    let bare = Tokens::new(value, true).next().and_then(|token| token.name()).unwrap_or_default();
                    if tablespaces.contains(&bare) {
                        sql.push_str(&format!(" TABLESPACE = {value}"));
                    } else {
                        remarks.push(format!(
                            "the server has no tablespace {bare:?}: the database goes to the default one"
                        ));
                    }
                }
                _ => sql.push_str(&format!(" {key} = {value}")),
            }
        }
        Ok(sql)
    }

    /// Leaves out what names this role.
    pub(super) fn leave_out(&mut self, role: &str) {
        self.owner = self.owner.take().filter(|owner| owner != role);
        let standard_strings = self.standard_strings;
        self.after.retain(|statement| {
            let mut named = BTreeSet::new();
            roles_in(statement, standard_strings, &mut named);
            !named.contains(role)
        });
    }

    /// What is done last, with the database's own comment or the one that it shall keep.
    pub(super) fn after(&self, name: &str, keep: Option<&str>) -> Vec<String> {
        let mut out: Vec<String> =
            self.after.iter().map(|statement| renamed(statement, self.standard_strings, name)).collect();
        if let Some(owner) = &self.owner {
            out.push(format!("ALTER DATABASE {} OWNER TO {}", quote(name), quote(owner)));
        }
        if keep.is_some() || !self.has_comment {
            out.push(super::mark::comment_on(name, keep));
        }
        out
    }
}

/// The mark in `COMMENT ON DATABASE x IS 'text'`.
fn mark_in(sql: &str, standard_strings: bool) -> Option<Mark> {
    let last = Tokens::new(sql, standard_strings).filter(|token| token.kind == Kind::Value).last()?;
    let text = last.text.trim_start_matches(['E', 'e']).trim_matches('\'').replace("''", "'");
    Mark::parse(&text)
}

fn unsupported(what: &str, version: u32) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        format!("the database uses {what}, which PostgreSQL {} has not", version / 10_000),
    )
    .with_hint("restore to a newer server, or make an empty database with another locale and restore into it")
}

/// The words and values behind `CREATE DATABASE x WITH`.
fn options(definition: &str, standard_strings: bool) -> Vec<(String, String)> {
    let first = statements(definition, standard_strings).into_iter().next().unwrap_or_default();
    let mut tokens = Tokens::new(first, standard_strings).skip(3).skip_while(|token| token.is("WITH"));
    let mut out = Vec::new();
    let mut key: Vec<&str> = Vec::new();
    while let Some(token) = tokens.next() {
        if token.is_sign("=") {
            let Some(value) = tokens.next() else { break };
            out.push((key.join(" ").to_uppercase(), value.text.to_owned()));
            key.clear();
        } else if token.kind == Kind::Word {
            key.push(token.text);
        }
    }
    out
}

/// The same statement about a database of another name.
fn renamed(sql: &str, standard_strings: bool, name: &str) -> String {
    let tokens: Vec<Token<'_>> = Tokens::new(sql, standard_strings).collect();
    let mut out = String::with_capacity(sql.len());
    let mut copied = 0;
    for at in 2..tokens.len() {
        let before = &tokens[at - 2];
        let is_named = tokens[at - 1].is("DATABASE") && ["ALTER", "ON", "IN"].iter().any(|word| before.is(word));
        if is_named && matches!(tokens[at].kind, Kind::Word | Kind::Name) {
            out.push_str(&sql[copied..tokens[at].start]);
            out.push_str(&quote(name));
            copied = tokens[at].end();
        }
    }
    out.push_str(&sql[copied..]);
    out
}

/// What to do about a `CREATE DATABASE` that failed.
pub(super) fn explain(error: Error, creation: &Creation, name: &str) -> Error {
    let said = super::super::wire::server_message(&error);
    let code = said.map(|said| said.sqlstate.clone()).unwrap_or_default();
    let is_about_locale = said.is_some_and(|said| said.message.to_lowercase().contains("locale"));
    let error = error.context(format!("make database {}", quote(name)));
    match code.as_str() {
        // What an unknown locale is told with, depending on version and provider.
        "42809" | "22023" | "0A000" | "XX000" | "42P17" if is_about_locale => error.with_hint(format!(
            "the server's host must have the locale of the saved database ({}): install it there and restart the \
             server, or make an empty database {} with another locale and restore into it, where texts may then sort \
             in another order",
            creation.locale(),
            literal(name).trim()
        )),
        "42501" => error.with_hint(
            "the role needs CREATEDB; or have somebody make an empty database that belongs to it, and restore into that",
        ),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::toc::{Entry, Section, Text};
    use super::*;

    fn entry(desc: &str, tag: &str, defn: &str) -> Entry {
        let (desc, tag, defn) = (desc.to_owned(), tag.to_owned(), Some(defn.to_owned()));
        Entry { desc, tag, defn, section: Section::PreData, owner: Some("boss".into()), ..Entry::default() }
    }

    fn toc() -> Toc {
        Toc {
            text: Text::Utf8,
            archive: 14,
            server_version: "15.18".into(),
            dump_version: "15.18".into(),
            database: "shop".into(),
            entries: vec![
                entry("ENCODING", "ENCODING", "SET client_encoding = 'UTF8';"),
                entry(
                    "DATABASE",
                    "shop",
                    "CREATE DATABASE \"shop\" WITH TEMPLATE = template0 ENCODING = 'LATIN1' LOCALE_PROVIDER = libc \
                     LOCALE = 'de_DE' TABLESPACE = \"fast\";\n",
                ),
                entry(
                    "DATABASE PROPERTIES",
                    "shop",
                    "ALTER DATABASE \"shop\" CONNECTION LIMIT = 7;\nALTER DATABASE \"shop\" SET \"x.y\" TO 'ON DATABASE a';\n\
                     ALTER ROLE \"boss\" IN DATABASE \"shop\" SET \"work_mem\" TO '7MB';\n",
                ),
                entry("COMMENT", "DATABASE \"shop\"", "COMMENT ON DATABASE \"shop\" IS 'our; shop';\n"),
                entry("ACL", "DATABASE \"shop\"", "REVOKE ALL ON DATABASE \"shop\" FROM PUBLIC;\n"),
                entry("TABLE", "t", "CREATE TABLE t ();"),
            ],
        }
    }

    #[test]
    fn a_database_is_made_as_it_was_under_any_name() {
        let creation = Creation::of(Some(&toc()), true, false, false);
        let mut remarks = Vec::new();
        let sql = creation.create("new \"one", 150_018, &BTreeSet::from(["fast".to_owned()]), &mut remarks).unwrap();
        let expected = "CREATE DATABASE \"new \"\"one\" WITH TEMPLATE = template0 ENCODING = 'LATIN1' \
                        LOCALE_PROVIDER = libc LOCALE = 'de_DE' TABLESPACE = \"fast\"";
        assert_eq!(sql, expected);
        assert_eq!(remarks, [""; 0]);
        let sql = creation.create("x", 120_000, &BTreeSet::new(), &mut remarks).unwrap();
        assert!(sql.ends_with("ENCODING = 'LATIN1' LC_COLLATE = 'de_DE' LC_CTYPE = 'de_DE'"), "{sql}");
        assert_eq!(remarks.len(), 1);
        assert_eq!(creation.encoding().as_deref(), Some("LATIN1"));
    }

    #[test]
    fn what_belongs_to_the_database_comes_last_and_bears_its_new_name() {
        let after = Creation::of(Some(&toc()), true, false, false).after("neu", None);
        assert_eq!(
            after,
            [
                "ALTER DATABASE \"neu\" CONNECTION LIMIT = 7;",
                "ALTER DATABASE \"neu\" SET \"x.y\" TO 'ON DATABASE a';",
                "ALTER ROLE \"boss\" IN DATABASE \"neu\" SET \"work_mem\" TO '7MB';",
                "COMMENT ON DATABASE \"neu\" IS 'our; shop';",
                "REVOKE ALL ON DATABASE \"neu\" FROM PUBLIC;",
                "ALTER DATABASE \"neu\" OWNER TO \"boss\"",
            ]
        );
        let bare = Creation::of(Some(&toc()), true, true, true).after("neu", Some("kept"));
        assert_eq!(bare.last().unwrap(), "COMMENT ON DATABASE \"neu\" IS 'kept'");
        assert!(bare.iter().all(|statement| !statement.contains("OWNER") && !statement.contains("REVOKE")));
    }

    #[test]
    fn without_a_word_on_it_the_database_is_utf8() {
        let creation = Creation::of(None, true, false, false);
        let sql = creation.create("x", 180_000, &BTreeSet::new(), &mut Vec::new()).unwrap();
        assert_eq!(sql, "CREATE DATABASE \"x\" WITH TEMPLATE = template0 ENCODING = 'UTF8'");
        assert_eq!(creation.after("x", None), ["COMMENT ON DATABASE \"x\" IS NULL"]);
    }

    #[test]
    fn a_provider_that_the_server_lacks_is_refused() {
        let mut toc = toc();
        toc.entries[1].defn = Some("CREATE DATABASE x WITH LOCALE_PROVIDER = icu ICU_LOCALE = 'de';".into());
        let creation = Creation::of(Some(&toc), true, false, false);
        let create = |version| creation.create("x", version, &BTreeSet::new(), &mut Vec::new());
        assert_eq!(create(140_000).unwrap_err().kind(), ErrorKind::Unsupported);
        assert!(create(150_000).unwrap().contains("ICU_LOCALE = 'de'"));
    }
}
