//! Roles: which ones a restore needs, and making those that the server lacks from `globals.sql`.

use super::super::sql::{Token, Tokens, quote, statements};
use super::super::wire::Client;
use lastgood_model::{Context, Result};
use std::collections::BTreeSet;

/// Adds the roles that statements name to `roles`: owners, those who are granted something, those for whom a policy or
/// mapping is.
pub(super) fn roles_in(sql: &str, standard_strings: bool, roles: &mut BTreeSet<String>) {
    for statement in statements(sql, standard_strings) {
        let tokens: Vec<Token<'_>> = Tokens::new(statement, standard_strings).collect();
        let is = |at: usize, word: &str| tokens.get(at).is_some_and(|token| token.is(word));
        match tokens.first().map(|token| token.text.to_ascii_uppercase()).as_deref() {
            Some("GRANT" | "REVOKE") => grantees(&tokens, roles),
            Some("ALTER") if is(1, "DEFAULT") && is(2, "PRIVILEGES") => {
                for at in 3..tokens.len() {
                    if is(at, "FOR") && (is(at + 1, "ROLE") || is(at + 1, "USER")) {
                        list(&tokens[at + 2..], roles);
                    }
                }
                grantees(&tokens, roles);
            }
            Some("ALTER") => {
                if is(1, "ROLE") || is(1, "USER") && !is(2, "MAPPING") {
                    list(&tokens[2..], roles);
                }
                for at in 1..tokens.len() {
                    if is(at, "OWNER") && is(at + 1, "TO") {
                        list(&tokens[at + 2..], roles);
                    }
                }
            }
            Some("SET") if is(1, "SESSION") && is(2, "AUTHORIZATION") => list(&tokens[3..], roles),
            Some("CREATE") if is(1, "SCHEMA") => {
                let found = tokens.iter().position(|token| token.is("AUTHORIZATION"));
                list(found.map_or(&[], |at| &tokens[at + 1..]), roles);
            }
            Some("CREATE") if is(1, "USER") && is(2, "MAPPING") && is(3, "FOR") => list(&tokens[4..], roles),
            Some("CREATE") if is(1, "POLICY") => {
                // Before its conditions, in which the word could be anything.
                let end = tokens.iter().position(|token| token.is("USING") || token.is("WITH")).unwrap_or(tokens.len());
                let found = tokens[..end].iter().position(|token| token.is("TO"));
                list(found.map_or(&[], |at| &tokens[at + 1..end]), roles);
            }
            _ => {}
        }
    }
}

/// Adds the roles to which statements give things.
pub(super) fn owners_in(sql: &str, standard_strings: bool, roles: &mut BTreeSet<String>) {
    for statement in statements(sql, standard_strings) {
        let tokens: Vec<Token<'_>> = Tokens::new(statement, standard_strings).collect();
        if !tokens.first().is_some_and(|token| token.is("ALTER")) {
            continue;
        }
        if let Some(at) = tokens.windows(2).rposition(|pair| pair[0].is("OWNER") && pair[1].is("TO")) {
            list(&tokens[at + 2..], roles);
        }
    }
}

/// What stands behind the last `TO` or `FROM`, and behind `GRANTED BY`.
fn grantees(tokens: &[Token<'_>], roles: &mut BTreeSet<String>) {
    if let Some(at) = tokens.iter().rposition(|token| token.is("TO") || token.is("FROM")) {
        list(&tokens[at + 1..], roles);
    }
    for pair in tokens.windows(2).enumerate() {
        if let (at, [granted, by]) = pair
            && granted.is("GRANTED")
            && by.is("BY")
        {
            list(&tokens[at + 2..], roles);
        }
    }
}

/// Names between commas.
fn list(tokens: &[Token<'_>], roles: &mut BTreeSet<String>) {
    let mut tokens = tokens.iter().skip_while(|token| token.is("GROUP"));
    while let Some(token) = tokens.next() {
        let is_nobody = ["PUBLIC", "CURRENT_USER", "CURRENT_ROLE", "SESSION_USER", "DEFAULT"];
        if !is_nobody.iter().any(|word| token.is(word)) {
            // Quoted or not, these two are no roles.
            roles.extend(token.name().filter(|name| !matches!(name.as_str(), "public" | "none")));
        }
        if !tokens.next().is_some_and(|token| token.is_sign(",")) {
            break;
        }
    }
}

/// What `globals.sql` says of roles.
#[derive(Clone, Debug, Default)]
pub(super) struct Globals {
    /// Each statement about a role, with the role's name.
    about: Vec<(String, String)>,
    /// Memberships: role, member, and the statement up to its options.
    memberships: Vec<(String, String, String)>,
}

impl Globals {
    /// Reads the file. What is in it beside roles is passed over.
    pub(super) fn parse(sql: &str) -> Self {
        let mut out = Self::default();
        for statement in statements(sql, true) {
            let tokens: Vec<Token<'_>> = Tokens::new(statement, true).collect();
            let is = |at: usize, word: &str| tokens.get(at).is_some_and(|token| token.is(word));
            let name = |at: usize| tokens.get(at).and_then(Token::name);
            let about = match () {
                () if (is(0, "CREATE") || is(0, "ALTER")) && is(1, "ROLE") => name(2),
                () if is(0, "COMMENT") && is(1, "ON") && is(2, "ROLE") => name(3),
                () if is(0, "GRANT") && tokens.windows(2).any(|pair| pair[0].is("ON") && pair[1].is("PARAMETER")) => {
                    let to = tokens.iter().rposition(|token| token.is("TO"));
                    to.and_then(|at| name(at + 1)).filter(|role| role != "public")
                }
                () if is(0, "GRANT") && is(2, "TO") => {
                    if let (Some(role), Some(member)) = (name(1), name(3)) {
                        // Who granted it may be nobody here.
                        let granted = tokens.windows(2).find(|pair| pair[0].is("GRANTED") && pair[1].is("BY"));
                        let end = granted.map_or(statement.len(), |pair| pair[0].start);
                        let kept = statement[..end].trim_end_matches([';', ' ', '\n']);
                        out.memberships.push((role, member, kept.to_owned()));
                    }
                    None
                }
                () => None,
            };
            out.about.extend(about.map(|role| (role, statement.to_owned())));
        }
        out
    }

    /// All roles that it can make.
    pub(super) fn roles(&self) -> BTreeSet<&str> {
        let is_made = |statement: &str| statement.get(..6).is_some_and(|word| word.eq_ignore_ascii_case("CREATE"));
        self.about.iter().filter(|(_, statement)| is_made(statement)).map(|(role, _)| role.as_str()).collect()
    }

    /// `needed` with the roles that these are members of, as far as the server has not got them. Ascending.
    pub(super) fn to_make(&self, needed: &BTreeSet<String>, existing: &BTreeSet<String>) -> BTreeSet<String> {
        let known = self.roles();
        let mut out = BTreeSet::new();
        let mut open: Vec<&String> = needed.iter().collect();
        while let Some(role) = open.pop() {
            if existing.contains(role) || !known.contains(role.as_str()) || !out.insert(role.clone()) {
                continue;
            }
            open.extend(self.memberships.iter().filter(|(_, member, _)| member == role).map(|(above, _, _)| above));
        }
        out
    }

    /// Makes roles, all or none. What is there is not touched, but that new roles become members of it and it of them.
    pub(super) fn make(&self, client: &mut Client, new: &BTreeSet<String>, existing: &BTreeSet<String>) -> Result<()> {
        let has = |role: &String| new.contains(role) || existing.contains(role);
        // Privileges on settings came with 15.
        let knows = |sql: &str| client.server_version() >= 150_000 || !sql.starts_with("GRANT");
        let about: Vec<(&String, &String)> = self
            .about
            .iter()
            .filter(|(role, sql)| new.contains(role) && knows(sql))
            .map(|(role, sql)| (role, sql))
            .collect();
        let memberships = self
            .memberships
            .iter()
            .filter(|(role, member, _)| (new.contains(role) || new.contains(member)) && has(role) && has(member))
            .map(|(_, member, sql)| (member, sql));
        client.batch("BEGIN")?;
        for (role, sql) in about.into_iter().chain(memberships) {
            client.batch(sql).with_context(|| format!("make role {}", quote(role)))?;
        }
        client.batch("COMMIT").context("make roles")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roles(sql: &str) -> Vec<String> {
        let mut roles = BTreeSet::new();
        roles_in(sql, true, &mut roles);
        roles.into_iter().collect()
    }

    #[test]
    fn every_role_that_a_statement_names_is_found_and_nothing_else() {
        let table: &[(&str, &[&str])] = &[
            ("CREATE TABLE \"a\" (x int);\nALTER TABLE \"a\" OWNER TO \"Big \"\"Boss\"\"\";", &["Big \"Boss\""]),
            ("GRANT SELECT(a) ON TABLE \"t\" TO \"r\";\nREVOKE ALL ON FUNCTION f(a int) FROM PUBLIC;", &["r"]),
            ("GRANT ALL ON SCHEMA \"to\" TO \"a\" WITH GRANT OPTION;", &["a"]),
            (
                "SET SESSION AUTHORIZATION \"g\"; GRANT SELECT ON t TO \"r\" GRANTED BY \"h\"; RESET SESSION AUTHORIZATION;",
                &["g", "h", "r"],
            ),
            ("ALTER DEFAULT PRIVILEGES FOR ROLE \"o\" IN SCHEMA \"s\" GRANT SELECT ON TABLES  TO \"r\";", &["o", "r"]),
            ("CREATE POLICY \"p\" ON \"t\" FOR SELECT TO \"w\", \"v\" USING ((a TO b));", &["v", "w"]),
            ("CREATE POLICY \"p\" ON \"t\" USING (x);", &[]),
            ("CREATE USER MAPPING FOR \"w\" SERVER \"far\" OPTIONS (user 'u');", &["w"]),
            ("CREATE USER MAPPING FOR PUBLIC SERVER \"far\";", &[]),
            ("CREATE USER MAPPING FOR \"public\" SERVER \"far\";", &[]),
            ("CREATE FUNCTION f() RETURNS void AS $$ ALTER TABLE x OWNER TO y; GRANT a TO b; $$;", &[]),
            ("ALTER ROLE \"r\" IN DATABASE \"d\" SET x TO 'y';", &["r"]),
            ("CREATE SCHEMA s AUTHORIZATION \"old\";", &["old"]),
        ];
        for (sql, expected) in table {
            assert_eq!(roles(sql), *expected, "{sql}");
        }
    }

    const GLOBALS: &str = "SET default_transaction_read_only = off;\n\
        CREATE ROLE \"app\";\nALTER ROLE \"app\" WITH NOSUPERUSER LOGIN PASSWORD 'SCRAM-SHA-256$4096:x;y';\n\
        CREATE ROLE team;\nALTER ROLE team WITH NOLOGIN;\nCREATE ROLE other;\nCREATE ROLE postgres;\n\
        COMMENT ON ROLE team IS 'us; all';\nALTER ROLE \"app\" SET search_path TO 'a';\n\
        CREATE TABLESPACE x OWNER postgres LOCATION '/x';\n\
        GRANT team TO \"app\" WITH INHERIT TRUE GRANTED BY \"someone\";\nGRANT other TO postgres GRANTED BY postgres;\n";

    #[test]
    fn what_is_missing_is_made_with_the_roles_above_it_and_nothing_else() {
        let globals = Globals::parse(GLOBALS);
        assert_eq!(globals.roles().into_iter().collect::<Vec<_>>(), ["app", "other", "postgres", "team"]);
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<String>>();
        assert_eq!(globals.to_make(&set(&["app", "unknown"]), &set(&["postgres"])), set(&["app", "team"]));
        assert_eq!(globals.to_make(&set(&["app"]), &set(&["app"])), set(&[]));
        assert_eq!(globals.memberships[0].2, "GRANT team TO \"app\" WITH INHERIT TRUE");
    }
}
