//! Constraints as two statements: one that takes long and locks little, and one the other way round. Whatever does not
//! look to the last word as `pg_dump` writes it stays one statement.

use super::super::sql::{Kind, Token, Tokens};

/// A statement of `pg_dump` in two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Split {
    pub(super) first: String,
    pub(super) second: String,
}

struct Reader<'a> {
    sql: &'a str,
    tokens: Vec<Token<'a>>,
    at: usize,
}

impl<'a> Reader<'a> {
    fn new(sql: &'a str, standard_strings: bool) -> Self {
        Self { sql, tokens: Tokens::new(sql, standard_strings).collect(), at: 0 }
    }

    fn peek(&self) -> Option<&Token<'a>> {
        self.tokens.get(self.at)
    }

    /// Takes these key words if they come next.
    fn words(&mut self, words: &str) -> Option<()> {
        let words: Vec<&str> = words.split(' ').collect();
        let next = self.tokens.get(self.at..self.at + words.len())?;
        if next.iter().zip(&words).all(|(token, word)| token.is(word)) {
            self.at += words.len();
            return Some(());
        }
        None
    }

    fn sign(&mut self, sign: &str) -> Option<()> {
        self.peek().filter(|token| token.is_sign(sign))?;
        self.at += 1;
        Some(())
    }

    /// Takes a name as it is written.
    fn name(&mut self) -> Option<&'a str> {
        let token = *self.peek().filter(|token| matches!(token.kind, Kind::Word | Kind::Name))?;
        self.at += 1;
        Some(token.text)
    }

    /// Takes a name with its schema as it is written.
    fn qualified(&mut self) -> Option<&'a str> {
        let start = self.peek()?.start;
        self.name()?;
        if self.sign(".").is_some() {
            self.name()?;
        }
        self.sql.get(start..self.tokens[self.at - 1].end())
    }

    /// Takes everything to the closing parenthesis, both included, if `is_fine` holds for every token between.
    fn list(&mut self, is_fine: impl Fn(&Token<'_>) -> bool) -> Option<&'a str> {
        let start = self.peek()?.start;
        self.sign("(")?;
        while let Some(token) = self.peek().copied() {
            self.at += 1;
            if token.is_sign(")") {
                return self.sql.get(start..token.end());
            }
            if !is_fine(&token) {
                return None;
            }
        }
        None
    }

    fn end(&mut self) -> Option<()> {
        self.sign(";")?;
        if self.peek().is_none() { Some(()) } else { None }
    }

    /// `ALTER TABLE ONLY x ADD CONSTRAINT y`: both names.
    fn head(&mut self) -> Option<(&'a str, &'a str)> {
        self.words("ALTER TABLE ONLY")?;
        let table = self.qualified()?;
        self.words("ADD CONSTRAINT")?;
        Some((table, self.name()?))
    }
}

/// A primary key or unique constraint as an index and a constraint that takes it over. The form is that of
/// `dumpConstraint` in PostgreSQL's `pg_dump.c`.
pub(super) fn by_index(sql: &str, standard_strings: bool) -> Option<Split> {
    let mut reader = Reader::new(sql, standard_strings);
    let (table, name) = reader.head()?;
    let (kind, is_key) = match (reader.words("PRIMARY KEY"), reader.words("UNIQUE")) {
        (Some(()), None) => ("PRIMARY KEY", true),
        (None, Some(())) => ("UNIQUE", false),
        _ => return None,
    };
    let nulls = if !is_key && reader.words("NULLS NOT DISTINCT").is_some() { " NULLS NOT DISTINCT" } else { "" };
    // Words within are columns; one that is not, such as WITHOUT OVERLAPS, comes without a comma before it.
    let columns = reader.list(|token| matches!(token.kind, Kind::Word | Kind::Name) || token.is_sign(","))?;
    if !is_plain_list(columns, standard_strings) {
        return None;
    }
    let include = match reader.words("INCLUDE") {
        Some(()) => Some(reader.list(|token| matches!(token.kind, Kind::Word | Kind::Name) || token.is_sign(","))?),
        None => None,
    };
    let with = match reader.words("WITH") {
        Some(()) => Some(reader.list(|token| !token.is_sign("(") && token.kind != Kind::Backslash)?),
        None => None,
    };
    let deferrable = if reader.words("DEFERRABLE").is_some() { " DEFERRABLE" } else { "" };
    let deferred = if reader.words("INITIALLY DEFERRED").is_some() { " INITIALLY DEFERRED" } else { "" };
    reader.end()?;
    let include = include.map(|list| format!(" INCLUDE {list}")).unwrap_or_default();
    let with = with.map(|list| format!(" WITH {list}")).unwrap_or_default();
    Some(Split {
        first: format!("CREATE UNIQUE INDEX {name} ON {table} USING btree {columns}{include}{nulls}{with};"),
        second: format!(
            "ALTER TABLE ONLY {table} ADD CONSTRAINT {name} {kind} USING INDEX {name}{deferrable}{deferred};"
        ),
    })
}

/// Names with commas between.
fn is_plain_list(list: &str, standard_strings: bool) -> bool {
    let tokens: Vec<_> = Tokens::new(list, standard_strings).collect();
    let inner = tokens.get(1..tokens.len().saturating_sub(1)).unwrap_or_default();
    inner.len() % 2 == 1 && inner.iter().enumerate().all(|(place, token)| token.is_sign(",") == (place % 2 == 1))
}

/// A foreign key that is added unchecked and validated then. Only on a table alone (`ONLY`), which a partitioned one
/// never is, and only when it is valid in the dumped database.
pub(super) fn by_validation(sql: &str, standard_strings: bool) -> Option<Split> {
    let mut reader = Reader::new(sql, standard_strings);
    let (table, name) = reader.head()?;
    reader.words("FOREIGN KEY")?;
    let last = *reader.tokens.last().filter(|token| token.is_sign(";"))?;
    let rest = &reader.tokens[reader.at..reader.tokens.len() - 1];
    let is_strange = |token: &Token<'_>| token.is("VALID") || token.is("ENFORCED") || token.is_sign(";");
    let is_odd = |token: &Token<'_>| matches!(token.kind, Kind::Backslash | Kind::Unfinished);
    if rest.iter().any(|token| is_strange(token) || is_odd(token)) {
        return None;
    }
    Some(Split {
        first: format!("{} NOT VALID;", sql[..last.start].trim_end()),
        second: format!("ALTER TABLE ONLY {table} VALIDATE CONSTRAINT {name};"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_become_an_index_and_a_constraint_on_it() {
        let check = |sql: &str, first: &str, second: &str| {
            let split =
                by_index(&format!("ALTER TABLE ONLY \"s\".\"t\"\n    ADD CONSTRAINT \"c d\" {sql};\n"), true).unwrap();
            assert_eq!(split.first, format!("CREATE UNIQUE INDEX \"c d\" ON \"s\".\"t\" USING btree {first};"));
            let second = format!("ALTER TABLE ONLY \"s\".\"t\" ADD CONSTRAINT \"c d\" {second};");
            assert_eq!(split.second, second);
        };
        check("PRIMARY KEY (\"a\")", "(\"a\")", "PRIMARY KEY USING INDEX \"c d\"");
        check("UNIQUE (a, \"b \"\"x\")", "(a, \"b \"\"x\")", "UNIQUE USING INDEX \"c d\"");
        check("UNIQUE NULLS NOT DISTINCT (a)", "(a) NULLS NOT DISTINCT", "UNIQUE USING INDEX \"c d\"");
        check(
            "UNIQUE (a) INCLUDE (b, c) WITH (fillfactor='80', \"x\"=on) DEFERRABLE INITIALLY DEFERRED",
            "(a) INCLUDE (b, c) WITH (fillfactor='80', \"x\"=on)",
            "UNIQUE USING INDEX \"c d\" DEFERRABLE INITIALLY DEFERRED",
        );
    }

    #[test]
    fn what_is_not_surely_the_same_stays_one_statement() {
        for sql in [
            "ALTER TABLE ONLY s.t ADD CONSTRAINT c EXCLUDE USING gist (a WITH =);",
            "ALTER TABLE ONLY s.t ADD CONSTRAINT c PRIMARY KEY (a, b WITHOUT OVERLAPS);",
            "ALTER TABLE ONLY s.t ADD CONSTRAINT c PRIMARY KEY (a) NOVELTY;",
            "ALTER TABLE ONLY s.t ADD CONSTRAINT c PRIMARY KEY (a)",
            "ALTER TABLE ONLY s.t ADD CONSTRAINT c PRIMARY KEY (a); SELECT 1;",
            "ALTER TABLE ONLY s.t ADD CONSTRAINT c PRIMARY KEY (lower(a));",
            "ALTER TABLE ONLY s.t ADD CONSTRAINT c PRIMARY KEY ();",
            "ALTER TABLE ONLY s.t ADD CONSTRAINT c NOT NULL a NOT VALID;",
            "ALTER TABLE s.t ADD CONSTRAINT c PRIMARY KEY (a);",
            "ALTER FOREIGN TABLE ONLY s.t ADD CONSTRAINT c CHECK (a);",
            "ALTER TABLE ONLY s.t ADD CONSTRAINT c PRIMARY KEY (a, 'b');",
            "",
        ] {
            assert_eq!(by_index(sql, true), None, "{sql}");
        }
    }

    #[test]
    fn foreign_keys_are_validated_later_unless_they_never_were_or_the_table_has_parts() {
        let split = by_validation(
            "ALTER TABLE ONLY s.t\n  ADD CONSTRAINT c FOREIGN KEY (a) REFERENCES s.u(\"valid\");\n",
            true,
        );
        let split = split.unwrap();
        assert!(split.first.ends_with("REFERENCES s.u(\"valid\") NOT VALID;"), "{split:?}");
        assert_eq!(split.second, "ALTER TABLE ONLY s.t VALIDATE CONSTRAINT c;");
        for sql in [
            "ALTER TABLE s.t ADD CONSTRAINT c FOREIGN KEY (a) REFERENCES s.u(b);",
            "ALTER TABLE ONLY s.t ADD CONSTRAINT c FOREIGN KEY (a) REFERENCES s.u(b) NOT VALID;",
            "ALTER TABLE ONLY s.t ADD CONSTRAINT c FOREIGN KEY (a) REFERENCES s.u(b) NOT ENFORCED;",
            "ALTER TABLE ONLY s.t ADD CONSTRAINT c FOREIGN KEY (a) REFERENCES s.u(b); SELECT 1;",
            "ALTER TABLE ONLY s.t ADD CONSTRAINT c CHECK (a > 0);",
        ] {
            assert_eq!(by_validation(sql, true), None, "{sql}");
        }
    }
}
