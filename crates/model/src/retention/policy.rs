//! What is to be kept, as a config or a command line says it.

use super::calendar::Unit;
use super::span::Span;
use std::collections::BTreeMap;

/// The rules of one repository or source. A point is kept when any of them wants it; a count of 0 is no rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// The newest so many.
    pub last: u32,
    /// For each unit, the newest of so many periods that have any.
    pub counts: BTreeMap<Unit, u32>,
    /// All that are no older than the newest by more than this.
    pub within: Option<Span>,
    /// For each unit, the newest of every period, as long as it is no older than the newest point by more than this.
    pub within_each: BTreeMap<Unit, Span>,
    /// All that have one of these tags. Several tags in one, with commas between them, must all be there.
    pub tags: Vec<String>,
}

impl Policy {
    /// True without any rule. Such a policy keeps everything.
    pub fn is_empty(&self) -> bool {
        self.last == 0
            && self.counts.values().all(|n| *n == 0)
            && self.within.is_none_or(|span| span.is_zero())
            && self.within_each.values().all(Span::is_zero)
            && self.tags.is_empty()
    }

    /// The count for one unit.
    pub fn count(&self, unit: Unit) -> u32 {
        self.counts.get(&unit).copied().unwrap_or(0)
    }

    /// The same with one count set.
    #[must_use]
    pub fn with(mut self, unit: Unit, count: u32) -> Self {
        self.counts.insert(unit, count);
        self
    }

    /// In words: `last 3, daily 14, within 30d`.
    pub fn describe(&self) -> String {
        let mut words = Vec::new();
        if self.last > 0 {
            words.push(format!("last {}", self.last));
        }
        let counts = self.counts.iter().filter(|(_, n)| **n > 0);
        words.extend(counts.map(|(unit, n)| format!("{} {n}", unit.rule())));
        words.extend(self.within.filter(|span| !span.is_zero()).map(|span| format!("within {span}")));
        let each = self.within_each.iter().filter(|(_, span)| !span.is_zero());
        words.extend(each.map(|(unit, span)| format!("{} within {span}", unit.rule())));
        words.extend(self.tags.iter().map(|tag| format!("tag {tag}")));
        if words.is_empty() { "everything".to_owned() } else { words.join(", ") }
    }
}

/// The policies of one repository.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policies {
    /// For every source that has none of its own.
    pub repository: Policy,
    /// Of single sources, by name.
    pub sources: BTreeMap<String, Policy>,
}

impl Policies {
    /// One policy for all.
    pub fn all(repository: Policy) -> Self {
        Self { repository, sources: BTreeMap::new() }
    }

    /// The policy for one source.
    pub fn of(&self, source: &str) -> &Policy {
        self.sources.get(source).unwrap_or(&self.repository)
    }

    /// True when nothing says what to keep.
    pub fn is_empty(&self) -> bool {
        self.repository.is_empty() && self.sources.values().all(Policy::is_empty)
    }

    /// The distinct policies that a set of sources has, each with its sources. A point without sources goes by the
    /// repository's.
    pub(super) fn distinct<'a>(&'a self, sources: impl Iterator<Item = &'a str>) -> Vec<(&'a Policy, Vec<&'a str>)> {
        let mut distinct: Vec<(&Policy, Vec<&str>)> = Vec::new();
        for source in sources {
            let policy = self.of(source);
            match distinct.iter_mut().find(|(known, _)| *known == policy) {
                Some((_, names)) => names.push(source),
                None => distinct.push((policy, vec![source])),
            }
        }
        if distinct.is_empty() {
            distinct.push((&self.repository, Vec::new()));
        }
        distinct
    }
}
