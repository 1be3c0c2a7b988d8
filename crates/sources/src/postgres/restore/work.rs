//! The graph of a restore: loads and what comes after them, as tasks of the pool. An index is built as soon as its table
//! is loaded, while others still are.

use super::load::Load;
use super::planning::DatabaseRestorePlan;
use super::pool::Task;
use std::collections::HashMap;

/// What a task does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// The load of this number.
    Load(usize),
    /// Large objects.
    LargeObjects,
    /// The step of this number in `post`.
    Step(usize),
}

/// Tasks, and what each does.
pub(super) struct Graph {
    pub(super) tasks: Vec<Task>,
    pub(super) work: Vec<Work>,
    /// How many of them load rows.
    pub(super) loads: usize,
}

/// Makes the graph. Tasks wait only for those before them.
pub(super) fn graph(plan: &DatabaseRestorePlan, loads: &[Load]) -> Graph {
    let mut work: Vec<Work> = (0..loads.len()).map(Work::Load).collect();
    if plan.has_large_objects {
        work.push(Work::LargeObjects);
    }
    let before = work.len();
    work.extend((0..plan.plan.post.len()).map(Work::Step));
    let mut tasks = vec![Task::default(); work.len()];
    // The cost of each by itself: what it reads.
    let mut cost = vec![0u64; work.len()];

    let tables = &plan.saved.tables;
    let mut loads_of: HashMap<u32, Vec<usize>> = HashMap::new();
    let mut through: HashMap<(&str, &str), Vec<usize>> = HashMap::new();
    for (task, load) in loads.iter().enumerate() {
        cost[task] = load.bytes();
        let table = &tables[load.table];
        loads_of.entry(table.oid).or_default().push(task);
        if let Some((schema, name)) = table.root.as_ref().filter(|_| table.load_through_root) {
            through.entry((schema, name)).or_default().push(task);
        }
    }
    // Rows that go through a partitioned table may end up in any of its partitions.
    for place in &plan.places {
        let table = &tables[place.table];
        if let Some((schema, name)) = table.root.as_ref().filter(|_| table.load_through_root) {
            let all = through.get(&(schema.as_str(), name.as_str())).cloned().unwrap_or_default();
            loads_of.insert(table.oid, all);
        }
    }
    let sizes: HashMap<u32, u64> = tables.iter().map(|table| (table.oid, table.bytes())).collect();
    let by_id: HashMap<u32, usize> =
        plan.plan.post.iter().enumerate().map(|(at, step)| (step.id, before + at)).collect();
    let mut last_acl = None;
    for (at, step) in plan.plan.post.iter().enumerate() {
        let task = before + at;
        let mut after: Vec<usize> = step.depends_on.iter().filter_map(|id| by_id.get(id)).copied().collect();
        after.extend(step.data.iter().filter_map(|oid| loads_of.get(oid)).flatten());
        if step.what.starts_with("ACL ") || step.what.starts_with("DEFAULT ACL ") {
            // Privileges in their old order: who grants one in another's name needs what was granted before.
            after.extend(last_acl.replace(task));
        }
        // What makes a table appear under its new name has nothing after it. An event trigger sees whatever is defined, and
        // large objects come with definitions of their own.
        if at + 1 == plan.plan.post.len() || step.what.starts_with("EVENT TRIGGER ") {
            after.extend(0..before);
        }
        after.retain(|one| *one < task);
        after.sort_unstable();
        after.dedup();
        cost[task] = step.weight.and_then(|oid| sizes.get(&oid)).copied().unwrap_or(0);
        tasks[task] = Task { after, weight: 0, locks: step.locks.clone() };
    }
    weigh(&mut tasks, &cost);
    Graph { tasks, work, loads: before }
}

/// The weight of a task is all that has to be done from its beginning to the end, on the longest way: whatever would
/// keep the restore longest is begun first.
fn weigh(tasks: &mut [Task], cost: &[u64]) {
    let mut behind = vec![0u64; tasks.len()];
    for at in (0..tasks.len()).rev() {
        let weight = cost[at].saturating_add(behind[at]);
        tasks[at].weight = weight;
        for before in tasks[at].after.clone() {
            behind[before] = behind[before].max(weight);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_the_longest_way_to_the_end_weighs_most() {
        let after = |after: &[usize]| Task { after: after.to_vec(), ..Task::default() };
        let mut tasks = [after(&[]), after(&[]), after(&[0]), after(&[0]), after(&[1]), after(&[2, 3, 4])];
        weigh(&mut tasks, &[10, 12, 10, 3, 1, 0]);
        assert_eq!(tasks.map(|task| task.weight), [20, 13, 10, 3, 1, 0]);
    }
}
