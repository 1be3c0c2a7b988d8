//! How the entries of a table of contents hang together.

use super::super::sql::{Token, Tokens};
use super::super::toc::{Entry, Toc};
use std::collections::{HashMap, HashSet};

/// A table of contents with what can be asked of it. Entries are named by their index.
pub(super) struct Facts<'a> {
    pub(super) toc: &'a Toc,
    pub(super) standard_strings: bool,
    by_id: HashMap<u32, usize>,
    relations: HashMap<(&'a str, &'a str), usize>,
    /// The entry that an entry is part of: the table of an index, the index of a comment.
    whole: Vec<Option<usize>>,
    partitioned: HashSet<usize>,
    /// Partitions and tables that inherit, of a table.
    children: HashMap<usize, Vec<usize>>,
    /// Those of them that are partitions.
    partitions: HashSet<usize>,
}

/// What can be named as a table.
pub(super) fn is_relation(entry: &Entry) -> bool {
    matches!(entry.desc.as_str(), "TABLE" | "VIEW" | "MATERIALIZED VIEW" | "FOREIGN TABLE" | "SEQUENCE")
}

impl<'a> Facts<'a> {
    pub(super) fn of(toc: &'a Toc, standard_strings: bool) -> Self {
        let mut facts = Self {
            toc,
            standard_strings,
            by_id: toc.entries.iter().enumerate().map(|(index, entry)| (entry.dump_id, index)).collect(),
            relations: HashMap::new(),
            whole: Vec::new(),
            partitioned: HashSet::new(),
            children: HashMap::new(),
            partitions: HashSet::new(),
        };
        for (index, entry) in toc.entries.iter().enumerate() {
            if is_relation(entry) {
                facts.relations.insert((namespace(entry), &entry.tag), index);
            }
            if entry.desc == "TABLE"
                && (entry.relkind == Some('p')
                    || entry.relkind.is_none() && is_partitioned(entry.definition(), standard_strings))
            {
                facts.partitioned.insert(index);
            }
        }
        for (index, entry) in toc.entries.iter().enumerate().filter(|(_, entry)| entry.desc == "TABLE") {
            let is_parent = |parent: &usize| toc.entries[*parent].desc == "TABLE" && *parent != index;
            for parent in facts.needs(index).filter(is_parent).collect::<Vec<_>>() {
                facts.children.entry(parent).or_default().push(index);
                if facts.partitioned.contains(&parent) && !entry.definition().contains("\nINHERITS (") {
                    facts.partitions.insert(index);
                }
            }
        }
        facts.whole = (0..toc.entries.len()).map(|index| facts.find_whole(index)).collect();
        facts
    }

    pub(super) fn entry(&self, index: usize) -> &'a Entry {
        &self.toc.entries[index]
    }

    /// Entries that an entry depends on.
    pub(super) fn needs(&self, index: usize) -> impl Iterator<Item = usize> {
        self.toc.entries[index].dependencies.iter().filter_map(|id| self.by_id.get(id)).copied()
    }

    pub(super) fn whole(&self, index: usize) -> Option<usize> {
        self.whole[index]
    }

    /// The table, view or sequence that an entry is, or is a part of in the end; for a sequence that belongs to a
    /// table the sequence.
    pub(super) fn relation(&self, index: usize) -> Option<usize> {
        self.wholes(index).find(|whole| is_relation(self.entry(*whole)))
    }

    /// The entry itself, what it is part of, what that is part of, and so on.
    pub(super) fn wholes(&self, index: usize) -> impl Iterator<Item = usize> {
        // A chain has a handful of links; more is a loop in a foreign table of contents.
        std::iter::successors(Some(index), |index| self.whole[*index]).take(8)
    }

    pub(super) fn is_partitioned(&self, index: usize) -> bool {
        self.partitioned.contains(&index)
    }

    pub(super) fn is_partition(&self, index: usize) -> bool {
        self.partitions.contains(&index)
    }

    /// A table with all that inherit from it, partitions included.
    pub(super) fn family(&self, index: usize) -> Vec<usize> {
        let mut family = vec![index];
        let mut seen = HashSet::from([index]);
        let mut next = 0;
        while let Some(parent) = family.get(next) {
            let children = self.children.get(parent).into_iter().flatten().copied();
            let children: Vec<usize> = children.filter(|child| seen.insert(*child)).collect();
            family.extend(children);
            next += 1;
        }
        family
    }

    fn find_whole(&self, index: usize) -> Option<usize> {
        let entry = self.entry(index);
        let schema = namespace(entry);
        let named = |name: &str| self.relations.get(&(schema, name)).copied().filter(|found| *found != index);
        let relations = || self.needs(index).filter(|need| is_relation(self.entry(*need)));
        match entry.desc.as_str() {
            "CONSTRAINT" | "CHECK CONSTRAINT" | "FK CONSTRAINT" | "DEFAULT" | "TRIGGER" | "RULE" | "POLICY" => {
                // The tag is the table's name, a space and its own, and both may hold spaces.
                let is_prefix = |need: &usize| {
                    let table = self.entry(*need);
                    let rest = entry.tag.strip_prefix(table.tag.as_str());
                    namespace(table) == schema && rest.is_some_and(|rest| rest.starts_with(' '))
                };
                let found = relations().filter(is_prefix).max_by_key(|need| self.entry(*need).tag.len());
                found.or_else(|| entry.tag.match_indices(' ').find_map(|(at, _)| named(&entry.tag[..at])))
            }
            "INDEX" => {
                let mut candidates = relations().filter(|need| namespace(self.entry(*need)) == schema);
                match (candidates.next(), candidates.next()) {
                    (only, None) => only,
                    _ => indexed_table(entry.definition(), self.standard_strings).and_then(|(_, name)| named(&name)),
                }
            }
            "INDEX ATTACH" => self.needs(index).find(|need| {
                let part = self.entry(*need);
                let is_constraint = part.desc == "CONSTRAINT" && part.tag.ends_with(&format!(" {}", entry.tag));
                namespace(part) == schema && (part.desc == "INDEX" && part.tag == entry.tag || is_constraint)
            }),
            "SEQUENCE" => relations().find(|need| matches!(self.entry(*need).desc.as_str(), "TABLE" | "FOREIGN TABLE")),
            "TABLE ATTACH"
            | "ROW SECURITY"
            | "SEQUENCE OWNED BY"
            | "TABLE DATA"
            | "SEQUENCE SET"
            | "MATERIALIZED VIEW DATA" => named(&entry.tag),
            "STATISTICS DATA" => named(&entry.tag).or_else(|| self.needs(index).next()),
            "STATISTICS" => relations().next(),
            "PUBLICATION TABLE" => relations().find(|need| {
                let table = self.entry(*need);
                namespace(table) == schema && entry.tag.ends_with(&format!(" {}", table.tag))
            }),
            "COMMENT" | "ACL" | "SECURITY LABEL" => self.needs(index).find(|need| self.entry(*need).desc != "ACL"),
            _ => None,
        }
    }
}

pub(super) fn namespace(entry: &Entry) -> &str {
    entry.namespace.as_deref().unwrap_or_default()
}

/// Whether `CREATE TABLE` has a `PARTITION BY` of its own, and not within anything.
fn is_partitioned(definition: &str, standard_strings: bool) -> bool {
    if !definition.contains("PARTITION BY") {
        return false;
    }
    let (mut depth, mut was_partition) = (0i64, false);
    for token in Tokens::new(definition, standard_strings) {
        match token.text {
            "(" => depth += 1,
            ")" => depth -= 1,
            ";" if depth == 0 => return false,
            _ => {}
        }
        if depth == 0 && was_partition && token.is("BY") {
            return true;
        }
        was_partition = depth == 0 && token.is("PARTITION");
    }
    false
}

/// Schema and name of the table in `CREATE INDEX … ON …`.
fn indexed_table(definition: &str, standard_strings: bool) -> Option<(String, String)> {
    let mut tokens = Tokens::new(definition, standard_strings).skip_while(|token| !token.is("ON")).skip(1).peekable();
    tokens.next_if(|token| token.is("ONLY"));
    let [schema, dot, name]: [Token<'_>; 3] = [tokens.next()?, tokens.next()?, tokens.next()?];
    if dot.is_sign(".") { Some((schema.name()?, name.name()?)) } else { None }
}
