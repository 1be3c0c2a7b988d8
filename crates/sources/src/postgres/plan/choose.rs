//! Which entries are restored when not all are wanted.

use super::super::script::object::{Part, parts};
use super::super::toc::Section;
use super::facts::{Facts, is_relation, namespace};
use super::{Options, Pattern};
use lastgood_model::{Error, ErrorKind, Result};
use std::collections::{BTreeMap, BTreeSet};

/// How many remarks of one kind are told one by one.
const TOLD_MAX: usize = 50;

/// A set of entries.
pub(super) struct Chosen(Vec<bool>);

impl Chosen {
    pub(super) fn contains(&self, index: usize) -> bool {
        self.0[index]
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = usize> {
        self.0.iter().enumerate().filter(|(_, is_chosen)| **is_chosen).map(|(index, _)| index)
    }
}

/// Chooses, and tells in `notes` what is left out for want of something else, and what the target must have.
pub(super) fn choose(facts: &Facts<'_>, options: &Options, notes: &mut Vec<String>) -> Result<Chosen> {
    let entries = &facts.toc.entries;
    let is_selective = !options.tables.is_empty() || !options.schemas.is_empty();
    let mut chosen = Chosen(vec![!is_selective; entries.len()]);
    if is_selective {
        select(facts, options, &mut chosen)?;
    }
    // The database is somebody else's work, and what is no object is no part of a plan.
    for (index, (entry, part)) in parts(facts.toc).enumerate() {
        let is_acl = matches!(entry.desc.as_str(), "ACL" | "ACL LANGUAGE" | "DEFAULT ACL");
        let is_there = entry.desc == "SCHEMA"
            && options.existing_schemas.contains(&entry.tag)
            && !entry.definition().starts_with("--");
        if matches!(part, Part::Database | Part::Nowhere | Part::Data) || options.no_acl && is_acl || is_there {
            chosen.0[index] = false;
        }
    }
    if options.rename.is_some() {
        for (entry, is_chosen) in entries.iter().zip(&mut chosen.0) {
            if *is_chosen && entry.desc == "PUBLICATION TABLE" {
                notes.push(format!("{} is left out: a copy is not published", entry.label()));
                *is_chosen = false;
            }
        }
    }
    exclude(facts, options, &mut chosen, notes)?;
    if is_selective {
        loose_ends(facts, options, &mut chosen, notes);
    }
    Ok(chosen)
}

fn select(facts: &Facts<'_>, options: &Options, chosen: &mut Chosen) -> Result<()> {
    let entries = &facts.toc.entries;
    let mut relations = BTreeSet::new();
    for pattern in &options.tables {
        let found: Vec<usize> = fitting(facts, pattern).collect();
        if found.is_empty() {
            return Err(nothing_fits("table, view or sequence", pattern));
        }
        relations.extend(found.into_iter().flat_map(|index| {
            // Rows of a partitioned table are in its partitions. Tables that merely inherit stand for themselves.
            let family = if facts.is_partitioned(index) { facts.family(index) } else { vec![index] };
            family.into_iter().filter(move |one| *one == index || facts.is_partition(*one))
        }));
    }
    for pattern in &options.schemas {
        let mut found = false;
        for (index, entry) in entries.iter().enumerate() {
            let is_schema = entry.desc == "SCHEMA" && pattern.fits_name(&entry.tag);
            let is_within = !namespace(entry).is_empty() && pattern.fits_name(namespace(entry));
            found |= is_schema || is_within;
            chosen.0[index] |= is_schema || is_within;
        }
        if !found {
            return Err(nothing_fits("schema", pattern));
        }
    }
    for index in 0..entries.len() {
        if !chosen.contains(index) {
            let is_part =
                facts.wholes(index).any(|whole| relations.contains(&whole) || whole != index && chosen.contains(whole));
            chosen.0[index] = is_part;
        }
    }
    Ok(())
}

fn fitting(facts: &Facts<'_>, pattern: &Pattern) -> impl Iterator<Item = usize> {
    let entries = facts.toc.entries.iter().enumerate();
    let fitting = entries.filter(|(_, entry)| {
        is_relation(entry) && pattern.fits(namespace(entry), &entry.tag) && !is_left_over(namespace(entry))
    });
    fitting.map(|(index, _)| index)
}

/// The schema of a restore under another name that was killed before the capture: nobody means what is in it.
fn is_left_over(schema: &str) -> bool {
    let number = schema.strip_prefix("lastgood_").map(|rest| rest.trim_end_matches('_'));
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

fn nothing_fits(what: &str, pattern: &Pattern) -> Error {
    Error::new(ErrorKind::Absent, format!("the recovery point has no {what} that fits {pattern}"))
        .with_hint("upper and lower case matter; without a schema, a name is looked for in all of them")
}

/// Takes out what is excluded, what is part of it, and what cannot be made without it.
fn exclude(facts: &Facts<'_>, options: &Options, chosen: &mut Chosen, notes: &mut Vec<String>) -> Result<()> {
    if options.exclude.is_empty() {
        return Ok(());
    }
    let entries = &facts.toc.entries;
    let mut open = Vec::new();
    for pattern in &options.exclude {
        let before = open.len();
        open.extend(fitting(facts, pattern));
        if open.len() == before {
            return Err(nothing_fits("table, view or sequence", pattern));
        }
    }
    let mut users: Vec<Vec<usize>> = vec![Vec::new(); entries.len()];
    for index in 0..entries.len() {
        for need in facts.needs(index).chain(facts.whole(index)) {
            users[need].push(index);
        }
    }
    let named: BTreeSet<usize> = open.iter().copied().collect();
    let mut gone = vec![false; entries.len()];
    let mut told = Vec::new();
    while let Some(index) = open.pop() {
        if std::mem::replace(&mut gone[index], true) {
            continue;
        }
        if chosen.contains(index) && !named.contains(&index) && !facts.whole(index).is_some_and(|whole| gone[whole]) {
            let note = format!("{} is left out: it needs something that is excluded", entries[index].label());
            // Objects before parts of them.
            told.push((facts.whole(index).is_some(), note));
        }
        // A view in two steps is nothing without the second.
        let late_view = facts.whole(index).filter(|_| entries[index].tag.ends_with(" _RETURN"));
        open.extend(users[index].iter().copied().chain(late_view).filter(|next| !gone[*next]));
    }
    chosen.0.iter_mut().zip(&gone).filter(|(_, gone)| **gone).for_each(|(is_chosen, _)| *is_chosen = false);
    told.sort();
    tell(notes, told.into_iter().map(|(_, note)| note).collect());
    Ok(())
}

/// What a part of a database cannot have because the rest is missing, and what it needs to find.
fn loose_ends(facts: &Facts<'_>, options: &Options, chosen: &mut Chosen, notes: &mut Vec<String>) {
    let entries = &facts.toc.entries;
    let is_missing = |chosen: &Chosen, need: usize| !chosen.contains(need);
    let mut left_out = Vec::new();
    // Parts of parts come after what they are part of, so once through is enough.
    for index in 0..entries.len() {
        if !chosen.contains(index) {
            continue;
        }
        let entry = &entries[index];
        let whole_is_gone = facts.whole(index).is_some_and(|whole| {
            is_missing(chosen, whole)
                && matches!(entry.desc.as_str(), "COMMENT" | "ACL" | "SECURITY LABEL" | "INDEX ATTACH")
        });
        let joins = matches!(entry.desc.as_str(), "FK CONSTRAINT" | "TABLE ATTACH" | "INDEX ATTACH")
            || entry.desc.starts_with("PUBLICATION TABLE")
            // With the table that they look at they could be made; in an empty database nobody can bring it first.
            || options.brings_needs.is_some()
                && matches!(entry.desc.as_str(), "POLICY" | "RULE" | "TRIGGER")
                && !entry.tag.ends_with(" _RETURN");
        let missing = facts.needs(index).find(|need| {
            let need_entry = &entries[*need];
            joins
                && is_missing(chosen, *need)
                && (is_relation(need_entry)
                    || matches!(need_entry.desc.as_str(), "PUBLICATION" | "INDEX" | "CONSTRAINT"))
        });
        // A sequence that belongs to a table cannot be told so without the table; one of an identity column is nothing.
        let is_tied = entry.desc == "SEQUENCE OWNED BY"
            || entry.desc == "SEQUENCE" && entry.definition().trim_start().starts_with("ALTER TABLE");
        let owner = facts.wholes(index).find(|whole| {
            is_tied && is_missing(chosen, *whole) && matches!(entries[*whole].desc.as_str(), "TABLE" | "FOREIGN TABLE")
        });
        if let Some(missing) = missing.or(owner) {
            if entry.desc != "INDEX ATTACH" {
                left_out.push(format!("{} is left out: {} is not selected", entry.label(), entries[missing].label()));
            }
            chosen.0[index] = false;
        } else if whole_is_gone {
            chosen.0[index] = false;
        }
    }
    tell(notes, left_out);
    if let Some(extensions) = &options.brings_needs {
        bring(facts, options, extensions, chosen, notes);
    }
    let mut wanted: BTreeMap<usize, usize> = BTreeMap::new();
    let mut schemas = BTreeSet::new();
    for index in chosen.iter() {
        for need in facts.needs(index).filter(|need| is_missing(chosen, *need)) {
            let (entry, part) = (&entries[need], &entries[index]);
            if entry.desc == "SCHEMA" {
                schemas.insert(need);
                continue;
            }
            let is_own_partition = facts.is_partition(index) && facts.is_partitioned(need) && part.desc == "TABLE";
            // An index of a partition stands in the place of its parent's, but needs it only to be attached.
            let is_index = matches!(entry.desc.as_str(), "INDEX" | "CONSTRAINT" | "INDEX ATTACH");
            // What these need is told with what they are part of; a sequence made without its table is one by itself.
            let is_content = matches!(part.desc.as_str(), "ACL" | "COMMENT" | "SEQUENCE");
            if !is_index && !is_own_partition && !is_content {
                wanted.entry(need).or_insert(index);
            }
        }
    }
    for schema in schemas {
        if options.rename.is_none() && !options.existing_schemas.contains(&entries[schema].tag) {
            chosen.0[schema] = true;
        }
    }
    let wanted = wanted.into_iter().map(|(need, index)| {
        format!("{} must be there: {} needs it and it is not selected", entries[need].label(), entries[index].label())
    });
    tell(notes, wanted.collect());
}

/// Adds what the chosen objects need and no person would name, such as the type of a column, with what that needs itself
/// and who may use it. Tables and views are somebody's decision and are not brought.
fn bring(
    facts: &Facts<'_>,
    options: &Options,
    extensions: &BTreeSet<String>,
    chosen: &mut Chosen,
    notes: &mut Vec<String>,
) {
    let entries = &facts.toc.entries;
    let mut open: Vec<usize> = chosen.iter().collect();
    let mut brought = BTreeSet::new();
    // pg_dump does not tell whose operators an index or an exclusion constraint uses.
    let is_of_operators = |index: usize| matches!(entries[index].desc.as_str(), "INDEX" | "CONSTRAINT");
    if chosen.iter().any(is_of_operators) {
        for (index, entry) in entries.iter().enumerate() {
            if entry.desc == "EXTENSION" && extensions.contains(&entry.tag) && !chosen.contains(index) {
                chosen.0[index] = true;
                brought.insert(index);
                open.push(index);
            }
        }
    }
    while let Some(index) = open.pop() {
        for need in facts.needs(index) {
            let entry = &entries[need];
            let is_decision = is_relation(entry) && entry.desc != "SEQUENCE";
            let belongs_to_another = facts.whole(need).is_some_and(|whole| !chosen.contains(whole));
            let is_brought = entry.section == Section::PreData && entry.desc != "SCHEMA" && !is_decision;
            if is_brought && !belongs_to_another && !std::mem::replace(&mut chosen.0[need], true) {
                brought.insert(need);
                open.push(need);
            }
        }
    }
    for (index, entry) in entries.iter().enumerate() {
        let is_part = facts.whole(index).is_some_and(|whole| brought.contains(&whole));
        let desc = entry.desc.as_str();
        chosen.0[index] |= is_part && (matches!(desc, "COMMENT" | "SEQUENCE SET") || desc == "ACL" && !options.no_acl);
    }
    let labels = brought.iter().map(|index| format!("{} comes with it", entries[*index].label()));
    tell(notes, labels.collect());
}

fn tell(notes: &mut Vec<String>, mut told: Vec<String>) {
    let surplus = told.len().saturating_sub(TOLD_MAX);
    told.truncate(TOLD_MAX);
    notes.append(&mut told);
    if surplus > 0 {
        notes.push(format!("and {surplus} more like these"));
    }
}
