//! A database with every kind of object and value that PostgreSQL has, in the files `everything/*.sql`, each with its
//! subject; and the comparison of dumps of it.
//!
//! What no version at hand can have: security labels, whose providers are no part of any package; a configuration
//! table of an extension before version 18, as only that finds extensions outside of its own folders.

use super::{PgServer, Version, user};
use std::collections::BTreeMap;

/// For every version, in this order.
const FILES: [&str; 7] = [
    include_str!("everything/00_globals.sql"),
    include_str!("everything/10_names.sql"),
    include_str!("everything/20_types.sql"),
    include_str!("everything/30_values.sql"),
    include_str!("everything/40_tables.sql"),
    include_str!("everything/50_code.sql"),
    include_str!("everything/60_cluster.sql"),
];
/// For version 18, after those.
const FILE_18: &str = include_str!("everything/90_from_18.sql");

const EXTENSION_CONTROL: &str = "comment = 'rows of the user in a table of an extension'\ndefault_version = '1.0'\n";
const EXTENSION_SQL: &str = "
    CREATE TABLE config (key text PRIMARY KEY, value text, is_of_user boolean NOT NULL);
    CREATE SEQUENCE config_seq;
    INSERT INTO config VALUES ('shipped', 'by the script', false);
    SELECT pg_extension_config_dump('config', 'WHERE is_of_user');
    SELECT pg_extension_config_dump('config_seq', '');";

impl PgServer {
    /// Makes the database `name` and fills it with everything, after
    /// [`prepare_for_everything`](Self::prepare_for_everything); the first time also the roles and the tablespace. A
    /// name of at most 40 bytes keeps that of its subscription whole.
    ///
    /// An event trigger refuses further tables, views and indexes in it, as a restored one would come too early if it
    /// did not come last; whoever adds some runs `ALTER EVENT TRIGGER z_no_more DISABLE` first.
    #[track_caller]
    pub fn load_everything(&self, name: &str) {
        self.prepare_for_everything();
        self.create_database(name);
        let mut sql = FILES.concat();
        if self.version() >= Version::V18 {
            sql.push_str(FILE_18);
        }
        self.psql(name, &sql);
    }

    /// What a server needs before everything can be restored there: files of an extension, and the permission for
    /// tablespaces within the data folder.
    #[track_caller]
    pub fn prepare_for_everything(&self) {
        self.set("allow_in_place_tablespaces", "on");
        if self.version() >= Version::V18 {
            let folder = self.folder.join("share");
            user::make_folder(&folder.join("extension"));
            let file = |name: &str| folder.join("extension").join(name);
            fs_err::write(file("lastgood_config.control"), EXTENSION_CONTROL).unwrap();
            fs_err::write(file("lastgood_config--1.0.sql"), EXTENSION_SQL).unwrap();
            self.set("extension_control_path", &format!("$system:{}", folder.display()));
        }
    }
}

/// What makes two plain dumps differ, for people to read; empty when both tell the same.
///
/// Three differences count for nothing, as they are none in content: the order of a policy's roles (pg_dump tells them by
/// their object ids, which are others on every server), the order of a table's columns (a restored child has
/// columns of its parents first), and in which partition a row is, where partitions are told apart by hashes of an
/// enum's object ids. pg_dump then loads through the parent, so several blocks of rows go into one table.
pub fn differences(left: &str, right: &str) -> String {
    let comparable = |dump: &str| comparable(dump).iter().map(|line| roles_in_order(line)).collect::<Vec<_>>();
    let (left, right) = (comparable(left), comparable(right));
    if left == right {
        return String::new();
    }
    let mut counts: BTreeMap<&str, i64> = BTreeMap::new();
    left.iter().for_each(|line| *counts.entry(line).or_default() += 1);
    right.iter().for_each(|line| *counts.entry(line).or_default() -= 1);
    let shortened = |line: &str| line.chars().take(300).collect::<String>();
    let mut found = Vec::new();
    for (sign, lines, wanted) in [('-', &left, 1), ('+', &right, -1)] {
        let only_here = lines.iter().filter(|line| counts.get(line.as_str()).copied().unwrap_or(0) * wanted > 0);
        found.extend(only_here.map(|line| format!("{sign} {}", shortened(line))));
    }
    if found.is_empty() {
        let at = left.iter().zip(&right).position(|(left, right)| left != right).unwrap_or_default();
        found.push(format!("the order differs: {:?} and {:?}", shortened(&left[at]), shortened(&right[at])));
    }
    found.truncate(60);
    found.join("\n")
}

fn roles_in_order(line: &str) -> String {
    let of_policy = || line.starts_with("CREATE POLICY").then(|| line.split_once(" TO ")).flatten();
    let Some((before, rest)) = of_policy() else { return line.to_owned() };
    let end = rest.find(" USING (").or_else(|| rest.find(" WITH CHECK (")).unwrap_or(rest.len());
    let mut roles: Vec<&str> = rest[..end].trim_end_matches(';').split(", ").collect();
    roles.sort_unstable();
    format!("{before} TO {}{}", roles.join(", "), &rest[end..])
}

/// The lines of a dump; rows with their columns in the order of the columns' names, behind all else, by table.
fn comparable(dump: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut rows: BTreeMap<String, (usize, Vec<String>)> = BTreeMap::new();
    let mut table_at = 0;
    let mut of_dump = dump.split('\n');
    while let Some(line) = of_dump.next() {
        if line.starts_with("CREATE ") {
            table_at = lines.len() + 1;
        } else if line.starts_with("INHERITS (") {
            in_any_order(&mut lines[table_at..]);
        }
        let Some(target) = line.strip_prefix("COPY ").and_then(|rest| rest.strip_suffix(" FROM stdin;")) else {
            lines.push(line.to_owned());
            continue;
        };
        let (table, columns) = columns_of(target);
        let mut order: Vec<usize> = (0..columns.len()).collect();
        order.sort_by_key(|&at| columns[at]);
        let names: Vec<&str> = order.iter().map(|&at| columns[at]).collect();
        let (blocks, found) = rows.entry(format!("COPY {table} ({})", names.join(", "))).or_default();
        *blocks += 1;
        for row in of_dump.by_ref().take_while(|&row| row != "\\.") {
            let values: Vec<&str> = row.split('\t').collect();
            assert!(columns.is_empty() || values.len() == columns.len(), "a row of {table}: {row:?}");
            let ordered = if columns.is_empty() { values } else { order.iter().map(|&at| values[at]).collect() };
            found.push(ordered.join("\t"));
        }
    }
    for (header, (blocks, mut found)) in rows {
        if blocks > 1 {
            found.sort();
        }
        lines.push(header);
        lines.append(&mut found);
    }
    lines
}

/// Columns and constraints of a table, one a line, in an order that does not depend on theirs.
fn in_any_order(lines: &mut [String]) {
    for line in lines.iter_mut() {
        line.truncate(line.trim_end_matches(',').len());
    }
    lines.sort();
}

/// A table and its columns, from `table (column, "another, column")`; names as quoted as they are.
fn columns_of(target: &str) -> (&str, Vec<&str>) {
    let mut is_quoted = false;
    let mut start = None;
    let mut columns = Vec::new();
    for (at, letter) in target.char_indices() {
        match letter {
            '"' => is_quoted = !is_quoted,
            '(' if !is_quoted => start = Some(at + 1),
            ',' | ')' if !is_quoted => {
                if let Some(begun) = start {
                    columns.push(target[begun..at].trim_start());
                    start = Some(at + 1);
                }
            }
            _ => {}
        }
    }
    let list = target.len() - columns.iter().map(|column| column.len() + 2).sum::<usize>();
    (target[..list].trim_end(), columns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_told_apart_whatever_their_names_hold() {
        assert_eq!(columns_of(r#"a."t (x)" (b, "c, ""d)", e)"#), (r#"a."t (x)""#, vec!["b", r#""c, ""d)""#, "e"]));
        assert_eq!(columns_of("a.b (c)"), ("a.b", vec!["c"]));
        assert_eq!(columns_of("a.b"), ("a.b", vec![]));
    }

    #[test]
    fn orders_of_columns_and_places_of_rows_count_for_nothing_and_the_rest_does() {
        let dump = "x\nCOPY t (a, b) FROM stdin;\n1\t2\n\\.\ny\nCOPY t (a, b) FROM stdin;\n3\t4\n\\.\n";
        let same = "x\nCOPY t (b, a) FROM stdin;\n4\t3\n2\t1\n\\.\ny\nCOPY t (b, a) FROM stdin;\n\\.\n";
        assert_eq!(differences(dump, same), "");
        for other in
            [dump.replace("1\t2", "2\t1"), dump.replace("1\t2\n", ""), dump.replace('x', "z"), format!("{dump}w")]
        {
            assert_ne!(differences(dump, &other), "", "{other}");
        }
        let heir = "CREATE TABLE t (\n    a int,\n    b int\n)\nINHERITS (u);\n";
        let of_other_order = heir.replace("a int,\n    b int", "b int,\n    a int");
        assert_eq!(differences(heir, &of_other_order), "");
        assert_ne!(differences(&heir.replace("INHERITS", "x"), &of_other_order.replace("INHERITS", "x")), "");
        let rows = "COPY t (a) FROM stdin;\n1\n2\n\\.\n";
        assert!(differences(rows, &rows.replace("1\n2", "2\n1")).starts_with("the order differs"));
    }
}
