//! Filling materialized views, in an order in which each finds the others filled that it reads from.
//!
//! `pg_dump --schema-only` leaves this out, so it is found again from the dependencies. A view that was made in two
//! steps, empty first and by a rule `_RETURN` later, reads from what its rule needs.

use super::super::sql::quote_in;
use super::super::toc::{Entry, Toc};
use std::collections::{BTreeSet, HashMap, HashSet};

/// One view to fill.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Refresh {
    /// Index of the `MATERIALIZED VIEW` in the table of contents.
    pub(in super::super) index: usize,
    /// The statement.
    pub(in super::super) sql: String,
    /// Indexes of the views that must be filled before.
    pub(in super::super) after: Vec<usize>,
}

/// All views to fill, in order. `populated`: see [`super::write_post_data`]. An archive that says itself which are
/// filled is believed when `populated` is not given.
pub(in super::super) fn refreshes(toc: &Toc, populated: Option<&BTreeSet<u32>>) -> Vec<Refresh> {
    let is_view = |entry: &Entry| entry.desc == "MATERIALIZED VIEW";
    let data = toc.entries.iter().filter(|entry| entry.desc == "MATERIALIZED VIEW DATA");
    let data: HashSet<_> = data.map(|entry| (&entry.namespace, &entry.tag)).collect();
    let is_wanted = |entry: &Entry| {
        is_view(entry)
            && match populated {
                Some(oids) => oids.contains(&entry.oid),
                None => data.is_empty() || data.contains(&(&entry.namespace, &entry.tag)),
            }
    };
    if !toc.entries.iter().any(is_wanted) {
        return Vec::new();
    }
    let by_id: HashMap<u32, usize> = toc.entries.iter().enumerate().map(|(i, entry)| (entry.dump_id, i)).collect();
    let mut rules: HashMap<usize, Vec<usize>> = HashMap::new();
    for (index, entry) in toc.entries.iter().enumerate().filter(|(_, entry)| entry.desc == "RULE") {
        for view in entry.dependencies.iter().filter_map(|id| by_id.get(id)) {
            let made = &toc.entries[*view];
            if made.namespace == entry.namespace && entry.tag == format!("{} _RETURN", made.tag) {
                rules.entry(*view).or_default().push(index);
            }
        }
    }
    let needs = |index: usize| {
        let own = toc.entries[index].dependencies.iter().filter_map(|id| by_id.get(id)).copied();
        own.chain(rules.get(&index).into_iter().flatten().copied())
    };
    // Materialized views that this one reads from, directly or through other objects.
    let sources = |start: usize| {
        let (mut found, mut seen, mut open) = (Vec::new(), HashSet::from([start]), vec![start]);
        while let Some(index) = open.pop() {
            for next in needs(index).filter(|next| seen.insert(*next)).collect::<Vec<_>>() {
                if is_wanted(&toc.entries[next]) { found.push(next) } else { open.push(next) }
            }
        }
        found.sort_unstable();
        found
    };
    let mut out: Vec<Refresh> = Vec::new();
    let mut done = HashSet::new();
    let mut sources_of: HashMap<usize, Vec<usize>> = HashMap::new();
    for start in (0..toc.entries.len()).filter(|index| is_wanted(&toc.entries[*index])) {
        // Depth first without recursion: a view comes out when it is met the second time.
        let (mut open, mut entered) = (vec![start], HashSet::new());
        while let Some(&index) = open.last() {
            if done.contains(&index) {
                open.pop();
            } else if entered.insert(index) {
                let sources = sources_of.entry(index).or_insert_with(|| sources(index));
                open.extend(sources.iter().filter(|next| !done.contains(*next) && !entered.contains(*next)));
            } else {
                open.pop();
                done.insert(index);
                let entry = &toc.entries[index];
                let name = quote_in(entry.namespace.as_deref().unwrap_or_default(), &entry.tag);
                let after = sources_of.remove(&index).unwrap_or_default();
                // Only those that do come before: a table of contents from elsewhere may have loops.
                let after = after.into_iter().filter(|next| done.contains(next)).collect();
                out.push(Refresh { index, sql: format!("REFRESH MATERIALIZED VIEW {name};"), after });
            }
        }
    }
    out
}
