//! Steps and what they wait for.

use super::super::script::object::{Part, Pass, Place, Wishes, make, parts};
use super::super::script::refresh::refreshes;
use super::super::script::session::Session;
use super::super::sql::statements;
use super::super::toc::{Entry, Section};
use super::choose::Chosen;
use super::constraint::{Split, by_index, by_validation};
use super::facts::{Facts, is_relation};
use super::{DataTarget, Lock, LockMode, Options, Step, What};
use lastgood_model::Result;
use std::collections::{BTreeSet, HashMap, HashSet};

pub(super) struct Graph<'a> {
    facts: &'a Facts<'a>,
    session: &'a Session,
    wishes: Wishes,
    /// OIDs of tables whose rows are loaded.
    loaded: HashSet<u32>,
    pre: Vec<Step>,
    post: Vec<Step>,
    next_id: u32,
    /// The step with which an entry is there.
    done_by: HashMap<usize, u32>,
    /// The last step that altered a publication; two at once would disturb each other.
    publications: HashMap<usize, u32>,
    /// Steps that attached an index to that of a partitioned table, with the table that was indexed.
    attached: Vec<(usize, u32)>,
    /// Settings of indexes on partitioned tables, which wait for those.
    late: Vec<(usize, Step)>,
    /// Where the steps after the last barrier begin, and the barrier.
    pass_start: usize,
    barrier: Option<u32>,
}

impl<'a> Graph<'a> {
    pub(super) fn new(facts: &'a Facts<'a>, session: &'a Session, wishes: Wishes, data: &[DataTarget]) -> Self {
        Self {
            facts,
            session,
            wishes,
            loaded: data.iter().filter(|target| !target.is_sequence).map(|target| target.oid).collect(),
            pre: Vec::new(),
            post: Vec::new(),
            next_id: 1,
            done_by: HashMap::new(),
            publications: HashMap::new(),
            attached: Vec::new(),
            late: Vec::new(),
            pass_start: 0,
            barrier: None,
        }
    }

    pub(super) fn finish(self) -> (Vec<Step>, Vec<Step>) {
        (self.pre, self.post)
    }

    fn step(&mut self, what: impl Into<String>, sql: String) -> Step {
        let id = self.next_id;
        self.next_id += 1;
        let depends_on = self.barrier.into_iter().collect();
        Step { id, what: what.into(), sql, depends_on, data: Vec::new(), locks: Vec::new(), weight: None }
    }

    pub(super) fn pre_statement(&mut self, what: &str, sql: String) {
        let step = self.step(what, sql);
        self.pre.push(step);
    }

    /// Makes what an entry describes, and with it, as one, what `more` says.
    pub(super) fn pre_entry(&mut self, index: usize, more: Option<&str>, notes: &mut Vec<String>) -> Result<()> {
        let entry = self.facts.entry(index);
        if let Some((settings, mut sql)) = self.sql(entry, notes)? {
            if let Some(more) = more {
                sql.push('\n');
                sql.push_str(more);
                notes.push(format!("{} inherits from other tables: the copy stands alone", entry.label()));
            }
            let step = self.step(entry.label(), settings + &sql);
            self.pre.push(step);
        }
        Ok(())
    }

    /// What must be set for an object, and the SQL for it. As steps come in any order on any connection, each sets all
    /// that it depends on.
    fn sql(&self, entry: &Entry, notes: &mut Vec<String>) -> Result<Option<(String, String)>> {
        let made = make(entry, self.session, &self.wishes, notes)?;
        Ok(made.map(|made| {
            let settings = made.place.changes_from(&mut Place::default());
            (settings.into_iter().map(|setting| setting + "\n").collect(), made.sql)
        }))
    }

    pub(super) fn post(&mut self, chosen: &Chosen, options: &Options, notes: &mut Vec<String>) -> Result<()> {
        for pass in [Pass::Main, Pass::Privileges, Pass::Statistics, Pass::Last] {
            if pass == Pass::Statistics && options.what == What::All {
                self.refresh(chosen, options);
                self.raise_barrier();
            }
            for (index, (_, part)) in parts(self.facts.toc).enumerate().filter(|(index, _)| chosen.contains(*index)) {
                if part == Part::PostData(pass) {
                    self.entry(index, notes)?;
                }
            }
            self.push_late();
            // Privileges may take away what loading rows needs, so they wait for rows even where nothing else does.
            if pass == Pass::Main && !self.loaded.is_empty() {
                self.push_barrier();
            } else {
                self.raise_barrier();
            }
        }
        Ok(())
    }

    /// One more step after all others.
    pub(super) fn last(&mut self, what: &str, sql: String) {
        self.raise_barrier();
        let step = self.step(what, sql);
        self.post.push(step);
    }

    /// Whatever comes from here on waits for all that came before.
    fn raise_barrier(&mut self) {
        if self.post.len() > self.pass_start {
            self.push_barrier();
        }
    }

    fn push_barrier(&mut self) {
        let pass = &self.post[self.pass_start..];
        let awaited: HashSet<u32> = pass.iter().flat_map(|step| &step.depends_on).copied().collect();
        let mut depends_on: Vec<u32> = pass.iter().map(|step| step.id).filter(|id| !awaited.contains(id)).collect();
        let data: BTreeSet<u32> = match self.barrier {
            Some(before) => {
                if depends_on.is_empty() {
                    depends_on.push(before);
                }
                BTreeSet::new()
            }
            None => self.loaded.iter().copied().collect(),
        };
        let step = self.step("everything before this", String::new());
        self.barrier = Some(step.id);
        self.post.push(Step { depends_on, data: data.into_iter().collect(), ..step });
        self.pass_start = self.post.len();
    }

    fn refresh(&mut self, chosen: &Chosen, options: &Options) {
        for refresh in refreshes(self.facts.toc, options.populated.as_ref()) {
            let index = refresh.index;
            if !chosen.contains(index) {
                continue;
            }
            let entry = self.facts.entry(index);
            let mut step = self.step(format!("REFRESH {}", entry.label()), refresh.sql);
            // The step of the materialized view itself is its filling from here on.
            step.depends_on.extend(refresh.after.iter().filter_map(|after| self.done_by.get(after)));
            step.depends_on.sort_unstable();
            step.locks = vec![Lock { table: entry.oid, mode: LockMode::AccessExclusive }];
            // Nobody knows how long, so better soon.
            step.weight = Some(entry.oid);
            if self.barrier.is_none() {
                step.data = self.loaded.iter().copied().collect();
                step.data.sort_unstable();
            }
            self.done_by.insert(index, step.id);
            self.post.push(step);
        }
    }

    /// The steps of one entry.
    fn entry(&mut self, index: usize, notes: &mut Vec<String>) -> Result<()> {
        let facts = self.facts;
        let entry = facts.entry(index);
        let Some((settings, sql)) = self.sql(entry, notes)? else { return Ok(()) };
        let table = facts.relation(index);
        let standard_strings = self.session.standard_strings;
        match entry.desc.as_str() {
            "INDEX" => {
                let parts = statements(&sql, standard_strings);
                let (first, rest) = parts.split_first().map_or(("", [].as_slice()), |(first, rest)| (*first, rest));
                let locks = self.locks(table, LockMode::Share, false);
                let build = self.push(index, entry.label(), settings + first, locks, true);
                self.done_by.insert(index, build);
                self.fixings(index, table, rest);
            }
            "CONSTRAINT" => {
                let parts = statements(&sql, standard_strings);
                let (first, rest) = parts.split_first().map_or(("", [].as_slice()), |(first, rest)| (*first, rest));
                let is_plain =
                    table.is_some_and(|table| facts.entry(table).desc == "TABLE" && !facts.is_partitioned(table));
                let exclusive = self.locks(table, LockMode::AccessExclusive, false);
                let done = match by_index(first, standard_strings).filter(|_| is_plain) {
                    Some(Split { first, second }) => {
                        let locks = self.locks(table, LockMode::Share, false);
                        let build =
                            self.push(index, format!("INDEX of {}", entry.label()), settings + &first, locks, true);
                        let done = self.push(index, entry.label(), second, exclusive, false);
                        self.wait(done, build);
                        done
                    }
                    None => self.push(index, entry.label(), settings + first, exclusive, true),
                };
                self.done_by.insert(index, done);
                self.fixings(index, table, rest);
            }
            "FK CONSTRAINT" => {
                let others: Vec<usize> = self.tables_needed(index).filter(|other| Some(*other) != table).collect();
                let has_parts = others.iter().chain(&table).any(|one| facts.is_partitioned(*one));
                let mut locks = self.locks(table, LockMode::ShareRowExclusive, true);
                for other in &others {
                    locks.extend(self.locks(Some(*other), LockMode::ShareRowExclusive, true));
                }
                let done = match by_validation(&sql, standard_strings).filter(|_| !has_parts && table.is_some()) {
                    Some(Split { first, second }) => {
                        let added = self.push(index, entry.label(), settings + &first, locks, false);
                        let mut locks = self.locks(table, LockMode::ShareUpdateExclusive, false);
                        for other in others {
                            locks.extend(self.locks(Some(other), LockMode::RowShare, false));
                        }
                        let done = self.push(index, format!("VALIDATE {}", entry.label()), second, locks, true);
                        self.wait(done, added);
                        done
                    }
                    None => self.push(index, entry.label(), settings + &sql, locks, true),
                };
                self.done_by.insert(index, done);
            }
            _ => {
                let locks = self.other_locks(index, table);
                let is_long = entry.desc == "CHECK CONSTRAINT";
                let done = self.push(index, entry.label(), settings + &sql, locks, is_long);
                if entry.desc == "PUBLICATION TABLE" || entry.desc == "PUBLICATION TABLES IN SCHEMA" {
                    let publication = facts.needs(index).find(|need| facts.entry(*need).desc == "PUBLICATION");
                    if let Some(before) =
                        publication.and_then(|publication| self.publications.insert(publication, done))
                    {
                        self.wait(done, before);
                    }
                }
                if let Some(table) = table.filter(|_| entry.desc == "INDEX ATTACH") {
                    self.attached.push((table, done));
                }
                self.done_by.insert(index, done);
            }
        }
        Ok(())
    }

    /// What is fixed to an index once it is there. On a partitioned table it is valid only with all its parts attached.
    fn fixings(&mut self, index: usize, table: Option<usize>, statements: &[&str]) {
        if statements.is_empty() {
            return;
        }
        let label = format!("settings of {}", self.facts.entry(index).label());
        let locks = self.locks(table, LockMode::AccessExclusive, false);
        let mut step = self.step(label, statements.join("\n"));
        step.locks = locks;
        step.depends_on.extend(self.done_by.get(&index));
        step.depends_on.sort_unstable();
        match table.filter(|table| self.facts.is_partitioned(*table)) {
            Some(table) => self.late.push((table, step)),
            None => self.post.push(step),
        }
    }

    fn push_late(&mut self) {
        for (table, step) in std::mem::take(&mut self.late) {
            let family: HashSet<usize> = self.facts.family(table).into_iter().collect();
            let mut depends_on: BTreeSet<u32> = step.depends_on.into_iter().collect();
            depends_on.extend(self.attached.iter().filter(|(table, _)| family.contains(table)).map(|(_, step)| *step));
            let Step { what, sql, locks, .. } = step;
            let step = self.step(what, sql);
            self.post.push(Step { depends_on: depends_on.into_iter().collect(), locks, ..step });
        }
    }

    fn push(&mut self, index: usize, what: String, sql: String, locks: Vec<Lock>, is_long: bool) -> u32 {
        let mut step = self.step(what, sql);
        let mut depends_on: BTreeSet<u32> = step.depends_on.iter().copied().collect();
        depends_on.extend(self.steps_needed(index));
        step.depends_on = depends_on.into_iter().collect();
        let tables =
            self.tables_needed(index).chain(self.facts.relation(index)).flat_map(|table| self.facts.family(table));
        let data: BTreeSet<u32> =
            tables.map(|table| self.facts.entry(table).oid).filter(|oid| self.loaded.contains(oid)).collect();
        step.data = data.into_iter().collect();
        step.locks = locks;
        step.locks.sort_unstable();
        step.locks.dedup();
        if is_long {
            step.weight = self.facts.relation(index).map(|table| self.facts.entry(table).oid);
        }
        let id = step.id;
        self.post.push(step);
        id
    }

    /// Makes a step that was pushed wait for another.
    fn wait(&mut self, id: u32, before: u32) {
        if let Some(step) = self.post.iter_mut().rev().find(|step| step.id == id)
            && !step.depends_on.contains(&before)
        {
            step.depends_on.push(before);
            step.depends_on.sort_unstable();
        }
    }

    /// Steps that make what an entry needs; through entries that have no step of their own, too. Only steps that are
    /// there already, so that there are no loops whatever the table of contents says.
    fn steps_needed(&self, index: usize) -> BTreeSet<u32> {
        let (mut steps, mut seen, mut open) = (BTreeSet::new(), HashSet::from([index]), vec![index]);
        while let Some(next) = open.pop() {
            for need in self.facts.needs(next) {
                if !seen.insert(need) {
                    continue;
                }
                match self.done_by.get(&need) {
                    Some(step) => {
                        steps.insert(*step);
                    }
                    // What comes before rows is there, with all that it needs.
                    None if self.facts.entry(need).section == Section::PostData => open.push(need),
                    None => {}
                }
            }
        }
        steps
    }

    fn tables_needed(&self, index: usize) -> impl Iterator<Item = usize> {
        let facts = self.facts;
        facts.needs(index).filter(move |need| is_relation(facts.entry(*need)))
    }

    fn locks(&self, table: Option<usize>, mode: LockMode, with_family: bool) -> Vec<Lock> {
        let Some(table) = table else { return Vec::new() };
        let family = if with_family { self.facts.family(table) } else { vec![table] };
        family.into_iter().map(|table| Lock { table: self.facts.entry(table).oid, mode }).collect()
    }

    fn other_locks(&self, index: usize, table: Option<usize>) -> Vec<Lock> {
        let desc = self.facts.entry(index).desc.as_str();
        // What it only looks at.
        let mut locks: Vec<Lock> = self
            .tables_needed(index)
            .filter(|other| Some(*other) != table)
            .flat_map(|other| self.locks(Some(other), LockMode::AccessShare, false))
            .collect();
        locks.extend(match desc {
            "CHECK CONSTRAINT" => self.locks(table, LockMode::AccessExclusive, true),
            "TRIGGER" => self.locks(table, LockMode::ShareRowExclusive, true),
            "RULE" | "POLICY" | "ROW SECURITY" | "DEFAULT" => self.locks(table, LockMode::AccessExclusive, false),
            "STATISTICS" | "PUBLICATION TABLE" | "COMMENT" | "SECURITY LABEL" => {
                self.locks(table, LockMode::ShareUpdateExclusive, false)
            }
            "INDEX ATTACH" => {
                // The parent's table is among what it needs, and its index is altered.
                let tables = self.tables_needed(index).chain(table);
                tables.flat_map(|table| self.locks(Some(table), LockMode::ShareUpdateExclusive, false)).collect()
            }
            "ACL" | "DEFAULT ACL" | "STATISTICS DATA" => Vec::new(),
            "VIEW" | "MATERIALIZED VIEW" | "FUNCTION" | "PROCEDURE" => Vec::new(),
            _ => self.locks(table, LockMode::AccessExclusive, false),
        });
        locks
    }
}
