//! One policy on one group of points: which of them its rules want.
//!
//! A rule looks from the newest to the oldest. Of each period it takes one: the newest that is whole, else the newest.
//! While it has counts left it also takes the oldest there is, so that history grows from its beginning (restic's rules
//! do the same; tests compare them).
//!
//! Each rule is asked several times, about ever fewer points: all of them; those that are whole; those that arrived in
//! their time; and those that are both. What it wants of any of these is kept. So points that are not whole, or whose
//! date may be forged, never take the place of others: with them a rule wants whatever it would want without them.

use super::calendar::{Civil, Period, Unit};
use super::plan::Reason;
use super::policy::Policy;
use crate::{SnapshotId, Time};
use jiff::tz::TimeZone;
use std::collections::BTreeMap;

/// A point as rules see it.
#[derive(Clone, Debug)]
pub(super) struct Item<'a> {
    pub(super) id: SnapshotId,
    pub(super) time: Time,
    pub(super) civil: Civil,
    pub(super) tags: &'a [String],
    /// All that the policy is about is whole in it.
    pub(super) whole: bool,
    /// It was there when its date was the present, for all that is known.
    pub(super) in_time: bool,
    /// Its date is beyond this moment.
    pub(super) future: bool,
}

/// What the rules say of one item.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Opinion {
    pub(super) wanted: Vec<Reason>,
    pub(super) unwanted: Vec<Reason>,
}

/// Asks every rule about every item. `items` are newest first; the answers are in the same order.
pub(super) fn ask(policy: &Policy, items: &[Item<'_>], zone: &TimeZone) -> Vec<Opinion> {
    let mut opinions = vec![Opinion::default(); items.len()];
    for (index, item) in items.iter().enumerate() {
        for tag in policy.tags.iter().filter(|tag| tag.split(',').all(|t| item.tags.iter().any(|own| own == t.trim())))
        {
            opinions[index].wanted.push(Reason::Tag(tag.clone()));
        }
    }
    for subset in subsets(items) {
        let mut asked = Asked { items, subset: &subset, opinions: &mut opinions };
        asked.last(policy.last);
        if let Some(span) = policy.within.filter(|span| !span.is_zero()) {
            let since = asked.newest().map(|newest| span.before(newest, zone));
            asked.within(since, &span.to_string());
        }
        for (unit, count) in policy.counts.iter().filter(|(_, count)| **count > 0) {
            asked.periods(*unit, *count);
        }
        for (unit, span) in policy.within_each.iter().filter(|(_, span)| !span.is_zero()) {
            let since = asked.newest().map(|newest| span.before(newest, zone));
            asked.periods_within(*unit, since, &span.to_string());
        }
    }
    opinions
}

/// The parts of the group that each rule is asked about, without repetitions; the best part first, so that its numbers
/// are told.
fn subsets(items: &[Item<'_>]) -> Vec<Vec<usize>> {
    let part =
        |fits: &dyn Fn(&Item<'_>) -> bool| -> Vec<usize> { (0..items.len()).filter(|i| fits(&items[*i])).collect() };
    let mut subsets: Vec<Vec<usize>> = Vec::new();
    for subset in [part(&|i| i.whole && i.in_time), part(&|i| i.in_time), part(&|i| i.whole), part(&|_| true)] {
        if !subset.is_empty() && !subsets.contains(&subset) {
            subsets.push(subset);
        }
    }
    subsets
}

struct Asked<'a> {
    items: &'a [Item<'a>],
    /// Indexes of `items`, newest first.
    subset: &'a [usize],
    opinions: &'a mut [Opinion],
}

impl Asked<'_> {
    /// The newest moment that is not in the future: spans count from there and not from now, so that points do not run
    /// out while no new ones come.
    fn newest(&self) -> Option<Time> {
        self.subset.iter().map(|i| &self.items[*i]).find(|item| !item.future).map(|item| item.time)
    }

    fn want(&mut self, index: usize, reason: Reason) {
        let rule = reason.rule();
        let opinion = &mut self.opinions[index];
        opinion.unwanted.retain(|known| known.rule() != rule);
        if opinion.wanted.iter().all(|known| known.rule() != rule) {
            opinion.wanted.push(reason);
        }
    }

    fn pass_over(&mut self, index: usize, reason: Reason) {
        let opinion = &mut self.opinions[index];
        let said = |known: &Reason| known.rule() == reason.rule();
        if !opinion.wanted.iter().any(said) && !opinion.unwanted.iter().any(said) {
            opinion.unwanted.push(reason);
        }
    }

    fn last(&mut self, count: u32) {
        if count == 0 {
            return;
        }
        for (n, index) in self.subset.iter().enumerate() {
            if n < count as usize {
                self.want(*index, Reason::Last { n: n as u32 + 1, of: count });
            } else {
                self.pass_over(*index, Reason::Beyond { rule: "last".to_owned(), of: count });
            }
        }
    }

    fn within(&mut self, since: Option<Time>, span: &str) {
        for index in self.subset {
            if since.is_some_and(|since| self.items[*index].time > since) {
                self.want(*index, Reason::Within { span: span.to_owned() });
            } else {
                self.pass_over(*index, Reason::Older { rule: "within".to_owned(), span: span.to_owned() });
            }
        }
    }

    fn periods(&mut self, unit: Unit, count: u32) {
        let chosen = self.choose(unit, |_| true);
        let rule = unit.rule();
        for (index, period) in self.of_unit(unit) {
            match chosen.get(&period) {
                Some((n, best)) if *n < count => {
                    if *best == index {
                        self.want(index, Reason::Period { rule: rule.to_owned(), n: n + 1, of: count, period });
                    } else {
                        let by = self.items[*best].id;
                        self.pass_over(index, Reason::Another { rule: rule.to_owned(), period, by });
                    }
                }
                _ => self.pass_over(index, Reason::Beyond { rule: rule.to_owned(), of: count }),
            }
        }
        if let Some(oldest) = self.subset.last().filter(|_| chosen.len() < count as usize) {
            let period = self.items[*oldest].civil.period(unit);
            self.want(*oldest, Reason::Oldest { rule: rule.to_owned(), of: count, period });
        }
    }

    fn periods_within(&mut self, unit: Unit, since: Option<Time>, span: &str) {
        let is_within = |item: &Item<'_>| since.is_some_and(|since| item.time > since);
        let chosen = self.choose(unit, is_within);
        let rule = format!("{} within {span}", unit.rule());
        for (index, period) in self.of_unit(unit) {
            if !is_within(&self.items[index]) {
                self.pass_over(index, Reason::Older { rule: rule.clone(), span: span.to_owned() });
                continue;
            }
            match chosen.get(&period) {
                Some((_, best)) if *best != index => {
                    let by = self.items[*best].id;
                    self.pass_over(index, Reason::Another { rule: rule.clone(), period, by });
                }
                _ => self.want(index, Reason::PeriodWithin { rule: rule.clone(), period }),
            }
        }
        if let Some(oldest) = self.subset.last().filter(|oldest| is_within(&self.items[**oldest])) {
            let period = self.items[*oldest].civil.period(unit);
            self.want(*oldest, Reason::PeriodWithin { rule, period });
        }
    }

    fn of_unit(&self, unit: Unit) -> Vec<(usize, Period)> {
        self.subset.iter().map(|index| (*index, self.items[*index].civil.period(unit))).collect()
    }

    /// For each period its place, the newest being 0, and its best item. Where a zone turns its clocks back over
    /// midnight a day comes, goes and comes again; it is one.
    fn choose(&self, unit: Unit, fits: impl Fn(&Item<'_>) -> bool) -> BTreeMap<Period, (u32, usize)> {
        let mut chosen: BTreeMap<Period, (u32, usize)> = BTreeMap::new();
        for (index, period) in self.of_unit(unit) {
            if !fits(&self.items[index]) {
                continue;
            }
            let place = chosen.len() as u32;
            let best = chosen.entry(period).or_insert((place, index));
            if self.items[index].whole && !self.items[best.1].whole {
                best.1 = index;
            }
        }
        chosen
    }
}
