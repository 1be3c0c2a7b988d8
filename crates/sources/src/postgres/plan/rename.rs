//! Restoring a table under another name.
//!
//! The table, its partitions, sequences, indexes and statistics are made in a schema of their own, under their old
//! names, so that they meet nothing that is there. When all is loaded and checked, one transaction renames them, moves
//! them to where they belong, and drops the empty schema: the table appears at once or not at all, and a name that is
//! taken stops only this last step.
//!
//! For this the schema in their definitions is exchanged. No text is replaced: the tokens `schema . name` are, where
//! the pair names one of these objects and does not name a function, and literals that are cast to `regclass`.

use super::super::sql::{Kind, Token, Tokens, literal, quote, quote_in};
use super::choose::Chosen;
use super::facts::{Facts, is_relation, namespace};
use super::{Options, Rename};
use lastgood_model::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};

/// PostgreSQL's `NAMEDATALEN - 1`.
const NAME_BYTES_MAX: usize = 63;
/// So many tables are named when several are selected.
const NAMED_MAX: usize = 5;

/// Which objects move, and where.
pub(super) struct Move {
    /// The schema for the time of the restore.
    pub(super) scratch: String,
    schema: String,
    /// The table.
    root: usize,
    /// It was a partition of a table that is not restored.
    pub(super) is_partition: bool,
    /// What makes a table that inherits from others a table by itself, with all columns that it has.
    alone: String,
    /// Kind for `ALTER`, old schema, old name, new name; tables before what is theirs.
    objects: Vec<(&'static str, String, String, String)>,
    moved: BTreeSet<(String, String)>,
}

impl Move {
    pub(super) fn plan(facts: &Facts<'_>, chosen: &Chosen, wish: &Rename, options: &Options) -> Result<Self> {
        let entries = &facts.toc.entries;
        let tables = chosen.iter().filter(|index| {
            // A partition without its table is a table by itself.
            let is_part = facts.is_partition(*index)
                && facts.needs(*index).any(|need| facts.is_partitioned(need) && chosen.contains(need));
            let is_own = facts.whole(*index).is_none() && !is_part;
            is_relation(&entries[*index]) && is_own
        });
        let tables: Vec<usize> = tables.collect();
        let [root] = tables.as_slice() else {
            let some: Vec<String> = tables
                .iter()
                .take(NAMED_MAX)
                .map(|table| format!("{}.{}", namespace(&entries[*table]), entries[*table].tag))
                .collect();
            let message =
                format!("a new name is for one table, and {} are selected: {}", tables.len(), some.join(", "));
            return Err(Error::invalid(message).with_hint("select exactly one, with its schema: schema.table"));
        };
        let parents = parents(entries[*root].definition(), facts.standard_strings);
        let is_partition = facts.is_partition(*root);
        let root_index = *root;
        let root = &entries[*root];
        if root.desc != "TABLE" {
            return Err(Error::invalid(format!(
                "{} cannot be restored under a new name: only tables can",
                root.label()
            )));
        }
        let old_schema = namespace(root).to_owned();
        let schema = wish.schema.clone().unwrap_or_else(|| old_schema.clone());
        if wish.name.is_empty() || wish.name.len() > NAME_BYTES_MAX || wish.name.contains('\0') || schema.is_empty() {
            return Err(Error::invalid(format!("{:?} is no name for a table", wish.name))
                .with_hint(format!("it may have 1 to {NAME_BYTES_MAX} bytes")));
        }
        let mut scratch = format!("lastgood_{}", root.oid);
        while options.existing_schemas.contains(&scratch) || entries.iter().any(|entry| namespace(entry) == scratch) {
            scratch.push('_');
        }
        let alone = parents
            .iter()
            .map(|parent| format!("ALTER TABLE ONLY {} NO INHERIT {parent};", quote_in(&scratch, &root.tag)));
        let alone = alone.collect::<Vec<_>>().join("\n");
        let mut this = Self {
            scratch,
            schema,
            root: root_index,
            is_partition,
            alone,
            objects: Vec::new(),
            moved: BTreeSet::new(),
        };
        // Where nothing else is, other names than the table's can stay.
        let stays = this.schema != old_schema;
        let mut taken = BTreeSet::from([wish.name.clone()]);
        let mut order: BTreeMap<u8, Vec<(&'static str, String, String)>> = BTreeMap::new();
        for index in chosen.iter() {
            let entry = &entries[index];
            let own_name = |prefix: &str| entry.tag.strip_prefix(prefix).unwrap_or(&entry.tag).to_owned();
            let (place, kind, name) = match entry.desc.as_str() {
                "TABLE" => (0, "TABLE", entry.tag.clone()),
                "SEQUENCE" => (1, "SEQUENCE", entry.tag.clone()),
                "INDEX" => (2, "INDEX", entry.tag.clone()),
                "CONSTRAINT" if has_index(entry.definition(), facts.standard_strings) => {
                    let table = facts.whole(index).map(|table| format!("{} ", entries[table].tag)).unwrap_or_default();
                    (2, "INDEX", own_name(&table))
                }
                "STATISTICS" => (3, "STATISTICS", entry.tag.clone()),
                _ => continue,
            };
            order.entry(place).or_default().push((kind, namespace(entry).to_owned(), name));
        }
        for (kind, schema, name) in order.into_values().flatten() {
            let is_root = kind == "TABLE" && name == root.tag && schema == old_schema;
            let new = if is_root {
                wish.name.clone()
            } else if stays {
                name.clone()
            } else {
                derived(&name, &root.tag, &wish.name, &mut taken)
            };
            this.moved.insert((schema.clone(), name.clone()));
            this.objects.push((kind, schema, name, new));
        }
        Ok(this)
    }

    /// What belongs to the making of an entry: no row of the copy may ever be seen through a table that is there.
    pub(super) fn with(&self, index: usize) -> Option<&str> {
        (index == self.root && !self.alone.is_empty()).then_some(&self.alone)
    }

    /// Makes the schemas that it needs.
    pub(super) fn begin(&self, options: &Options) -> String {
        let scratch = quote(&self.scratch);
        if options.existing_schemas.contains(&self.schema) {
            format!("CREATE SCHEMA {scratch};")
        } else {
            format!("CREATE SCHEMA IF NOT EXISTS {};\nCREATE SCHEMA {scratch};", quote(&self.schema))
        }
    }

    /// Gives everything its name and place.
    pub(super) fn end(&self) -> String {
        let mut sql = String::new();
        for (kind, _, old, new) in self.objects.iter().filter(|(_, _, old, new)| old != new) {
            sql.push_str(&format!("ALTER {kind} {} RENAME TO {};\n", quote_in(&self.scratch, old), quote(new)));
        }
        // Indexes and sequences go where their table goes.
        for (kind, _, _, new) in self.objects.iter().filter(|(kind, ..)| matches!(*kind, "TABLE" | "STATISTICS")) {
            let name = quote_in(&self.scratch, new);
            sql.push_str(&format!("ALTER {kind} {name} SET SCHEMA {};\n", quote(&self.schema)));
        }
        // Fails if anything was forgotten in it.
        sql.push_str(&format!("DROP SCHEMA {};", quote(&self.scratch)));
        sql
    }

    /// A statement that was made for the old place.
    pub(super) fn rewrite(&self, sql: &str, standard_strings: bool) -> String {
        let tokens: Vec<Token<'_>> = Tokens::new(sql, standard_strings).collect();
        let mut out = String::with_capacity(sql.len() + 64);
        let mut copied = 0;
        for (place, token) in tokens.iter().enumerate() {
            let new = match token.kind {
                Kind::Word | Kind::Name => self.new_schema(&tokens, place),
                Kind::Value if is_regclass(&tokens[place + 1..]) => self.new_literal(token.text, standard_strings),
                _ => None,
            };
            if let Some(new) = new {
                out.push_str(&sql[copied..token.start]);
                out.push_str(&new);
                copied = token.end();
            }
        }
        out.push_str(&sql[copied..]);
        out
    }

    fn is_moved(&self, schema: &Token<'_>, name: &Token<'_>) -> bool {
        match (schema.name(), name.name()) {
            (Some(schema), Some(name)) => self.moved.contains(&(schema, name)),
            _ => false,
        }
    }

    fn new_schema(&self, tokens: &[Token<'_>], place: usize) -> Option<String> {
        let [schema, dot, name] = tokens.get(place..place + 3)? else { return None };
        let before = place.checked_sub(1).and_then(|before| tokens.get(before));
        if !dot.is_sign(".") || before.is_some_and(|before| before.is_sign(".")) || !self.is_moved(schema, name) {
            return None;
        }
        // A function can have the name of a table. Only after these words a list may follow what is no function.
        let is_called = tokens.get(place + 3).is_some_and(|after| after.is_sign("("));
        let before_tables = ["TABLE", "ONLY", "REFERENCES", "INTO", "ON", "EXISTS", "STATISTICS"];
        if is_called && !before.is_some_and(|before| before_tables.iter().any(|word| before.is(word))) {
            return None;
        }
        Some(quote(&self.scratch))
    }

    fn new_literal(&self, text: &str, standard_strings: bool) -> Option<String> {
        let inner = text.strip_prefix('\'')?.strip_suffix('\'')?.replace("''", "'");
        let tokens: Vec<Token<'_>> = Tokens::new(&inner, standard_strings).collect();
        let [schema, dot, name] = tokens.as_slice() else { return None };
        if !dot.is_sign(".") || !self.is_moved(schema, name) {
            return None;
        }
        Some(literal(&quote_in(&self.scratch, &name.name()?)))
    }
}

/// The tables in `CREATE TABLE … INHERITS (…)`, as they are written there.
fn parents(definition: &str, standard_strings: bool) -> Vec<String> {
    let tokens: Vec<Token<'_>> = Tokens::new(definition, standard_strings).collect();
    let mut depth = 0i64;
    let mut start = None;
    for (at, token) in tokens.iter().enumerate() {
        match token.text {
            "(" => depth += 1,
            ")" => depth -= 1,
            ";" if depth == 0 => break,
            _ => {}
        }
        if depth == 0 && token.is("INHERITS") && tokens.get(at + 1).is_some_and(|next| next.is_sign("(")) {
            start = Some(at + 2);
        }
    }
    let rest = start.map_or(&[][..], |start| &tokens[start..]);
    let list: Vec<&Token<'_>> = rest.iter().take_while(|token| !token.is_sign(")")).collect();
    let names = list.split(|token| token.is_sign(",")).filter(|name| !name.is_empty());
    names.map(|name| name.iter().map(|token| token.text).collect()).collect()
}

/// Whether a cast to `regclass` comes next.
fn is_regclass(tokens: &[Token<'_>]) -> bool {
    let is_colons =
        tokens.first().is_some_and(|one| one.is_sign(":")) && tokens.get(1).is_some_and(|two| two.is_sign(":"));
    let mut rest = tokens.iter().skip(2).filter_map(Token::name);
    let type_name = if tokens.get(3).is_some_and(|dot| dot.is_sign(".")) { rest.nth(1) } else { rest.next() };
    is_colons && type_name.as_deref() == Some("regclass")
}

/// Whether a constraint has an index of its name.
fn has_index(definition: &str, standard_strings: bool) -> bool {
    let mut tokens = Tokens::new(definition, standard_strings).skip_while(|token| !token.is("CONSTRAINT")).skip(2);
    tokens.next().is_some_and(|kind| ["PRIMARY", "UNIQUE", "EXCLUDE"].iter().any(|word| kind.is(word)))
}

/// A name for a part of the table that fits its new name, and that no other part has.
fn derived(old: &str, table: &str, new_table: &str, taken: &mut BTreeSet<String>) -> String {
    let base = match old.strip_prefix(table) {
        Some(rest) => format!("{new_table}{rest}"),
        None => format!("{new_table}_{old}"),
    };
    let mut number = 0;
    loop {
        let suffix = if number == 0 { String::new() } else { format!("_{number}") };
        let mut end = base.len().min(NAME_BYTES_MAX - suffix.len());
        while !base.is_char_boundary(end) {
            end -= 1;
        }
        let name = format!("{}{suffix}", &base[..end]);
        if taken.insert(name.clone()) {
            return name;
        }
        number += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_moved_objects_change_their_schema() {
        let pair = |schema: &str, name: &str| (schema.to_owned(), name.to_owned());
        let moved = BTreeSet::from([pair("s", "t"), pair("s", "t_seq"), pair("S x", "t\"")]);
        let this = Move {
            scratch: "new".into(),
            schema: "s".into(),
            root: 0,
            is_partition: false,
            alone: String::new(),
            objects: Vec::new(),
            moved,
        };
        let check = |sql: &str, expected: &str| assert_eq!(this.rewrite(sql, true), expected, "{sql}");
        check("CREATE TABLE s.t (a int)", "CREATE TABLE \"new\".t (a int)");
        check(
            "\"s\".\"t\".\"a\" s . t2 S.t \"S x\".\"t\"\"\"",
            "\"new\".\"t\".\"a\" s . t2 \"new\".t \"new\".\"t\"\"\"",
        );
        check("x.s.t 's.t' $$s.t$$ -- s.t", "x.s.t 's.t' $$s.t$$ -- s.t");
        check("CREATE STATISTICS s.t (ndistinct)", "CREATE STATISTICS \"new\".t (ndistinct)");
        check("EXECUTE FUNCTION s.t()", "EXECUTE FUNCTION s.t()");
        check("REFERENCES s.t(a), s.t(1)", "REFERENCES \"new\".t(a), s.t(1)");
        check("nextval('s.t_seq'::regclass)", "nextval('\"new\".\"t_seq\"'::regclass)");
        check(
            "nextval('\"s\".\"t_seq\"'::\"pg_catalog\".\"regclass\")",
            "nextval('\"new\".\"t_seq\"'::\"pg_catalog\".\"regclass\")",
        );
        check("'s.t_seq'::text || 's.other'::regclass", "'s.t_seq'::text || 's.other'::regclass");
    }

    #[test]
    fn what_a_table_inherits_from_is_found() {
        let sql = "CREATE TABLE \"s\".\"c\" (\n \"INHERITS\" int DEFAULT (1)\n)\nINHERITS (\"s\".\"a,b\", \"t\".\"p\");\nSELECT 1";
        assert_eq!(parents(sql, true), ["\"s\".\"a,b\"", "\"t\".\"p\""]);
        assert_eq!(parents("CREATE TABLE s.t (a int);", true), [""; 0]);
    }

    #[test]
    fn new_names_follow_the_table_and_fit_and_differ() {
        let mut taken = BTreeSet::new();
        assert_eq!(derived("t_pkey", "t", "copy", &mut taken), "copy_pkey");
        assert_eq!(derived("other", "t", "copy", &mut taken), "copy_other");
        assert_eq!(derived("t_other", "t", "copy", &mut taken), "copy_other_1");
        let long = "é".repeat(40);
        let (one, two) = (derived(&long, "t", "c", &mut taken), derived(&long, "t", "c", &mut taken));
        assert!(one != two && one.len() <= 63 && two.len() <= 63 && two.ends_with("_1"));
    }
}
