//! Tasks that wait for one another, run by several workers: the heaviest that can run goes first.
//!
//! A task names those that must be done before it, and the tables it locks. Two tasks whose locks exclude each other never
//! run at once: waiting for a lock in the server would keep a worker idle, and two that wait for each other's locks would
//! be ended by the server's deadlock detection.

use super::super::plan::{Lock, LockMode};
use lastgood_model::{Error, ErrorKind, Monitor, Result};
use std::collections::{BinaryHeap, HashMap};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How often it is looked whether a stop was asked for.
const LOOK_UP: Duration = Duration::from_millis(100);

/// One task; its place in the list is its number.
#[derive(Clone, Debug, Default)]
pub(crate) struct Task {
    /// Numbers of the tasks that come before it.
    pub(crate) after: Vec<usize>,
    /// Of those that could run, the one with the greatest weight is next.
    pub(crate) weight: u64,
    /// Tables that it locks, and how.
    pub(crate) locks: Vec<Lock>,
}

/// Runs every task once, on as many threads as there are workers; `work` does one with a worker's own state. The first
/// failure stops all: no further task begins, and `interrupt` is called once to end those that are running.
///
/// # Errors
/// The first error of `work`; [`ErrorKind::Cancelled`] when a stop was asked for; [`ErrorKind::Bug`] for tasks that wait
/// for each other in a circle.
pub(crate) fn run<W: Send>(
    tasks: &[Task],
    workers: Vec<W>,
    monitor: &Monitor,
    work: impl Fn(&mut W, usize) -> Result<()> + Sync,
    interrupt: impl Fn() + Sync,
) -> Result<()> {
    let board = Mutex::new(Board::new(tasks));
    let changed = Condvar::new();
    std::thread::scope(|scope| {
        let threads: Vec<_> = workers
            .into_iter()
            .map(|mut worker| {
                let (board, changed, work, interrupt) = (&board, &changed, &work, &interrupt);
                scope.spawn(move || {
                    while let Some(task) = next(board, changed, tasks, monitor, interrupt) {
                        // A panic must not leave the others waiting for a task that nobody does any more.
                        let mut guard = Guard { board, changed, interrupt, task, tasks, outcome: None };
                        guard.outcome = Some(work(&mut worker, task));
                    }
                })
            })
            .collect();
        // A worker that waits for a long statement of the server cannot look for itself.
        while threads.iter().any(|thread| !thread.is_finished()) {
            let board = lock(&board);
            if board.failed.is_none()
                && let Err(cancelled) = monitor.check_cancelled()
            {
                stop(board, cancelled, &changed, &interrupt);
                break;
            }
            drop(changed.wait_timeout(board, LOOK_UP).unwrap_or_else(PoisonError::into_inner));
        }
    });
    let board = board.into_inner().unwrap_or_else(PoisonError::into_inner);
    match board.failed {
        Some(error) => Err(error),
        None if board.left > 0 => Err(Error::new(ErrorKind::Bug, "tasks of a restore wait for each other in a circle")),
        None => Ok(()),
    }
}

/// What is done, what runs, and what could run.
struct Board {
    /// For each task, how many of those before it are not done.
    waits_for: Vec<usize>,
    /// For each task, those that wait for it.
    frees: Vec<Vec<usize>>,
    ready: BinaryHeap<(u64, std::cmp::Reverse<usize>)>,
    /// How many have locked each table, by how they did.
    locked: HashMap<u32, Vec<(LockMode, usize)>>,
    running: usize,
    left: usize,
    failed: Option<Error>,
}

impl Board {
    fn new(tasks: &[Task]) -> Self {
        let mut frees = vec![Vec::new(); tasks.len()];
        let mut waits_for = vec![0; tasks.len()];
        for (number, task) in tasks.iter().enumerate() {
            let mut after = task.after.clone();
            after.sort_unstable();
            after.dedup();
            for before in after {
                frees[before].push(number);
                waits_for[number] += 1;
            }
        }
        let ready = |(number, task): (usize, &Task)| (task.weight, std::cmp::Reverse(number));
        let ready = tasks.iter().enumerate().filter(|(number, _)| waits_for[*number] == 0).map(ready).collect();
        Self { waits_for, frees, ready, locked: HashMap::new(), running: 0, left: tasks.len(), failed: None }
    }

    /// Takes the heaviest task whose tables can be had.
    fn take(&mut self, tasks: &[Task]) -> Option<usize> {
        let mut passed_over = Vec::new();
        let mut found = None;
        while let Some(next) = self.ready.pop() {
            let task = &tasks[next.1.0];
            if task.locks.iter().all(|lock| self.can_be_had(lock)) {
                found = Some(next.1.0);
                break;
            }
            passed_over.push(next);
        }
        self.ready.extend(passed_over);
        let task = &tasks[found?];
        for lock in &task.locks {
            let modes = self.locked.entry(lock.table).or_default();
            match modes.iter_mut().find(|(mode, _)| *mode == lock.mode) {
                Some((_, count)) => *count += 1,
                None => modes.push((lock.mode, 1)),
            }
        }
        self.running += 1;
        found
    }

    fn can_be_had(&self, lock: &Lock) -> bool {
        let modes = self.locked.get(&lock.table).into_iter().flatten();
        modes.into_iter().all(|(mode, _)| !mode.conflicts_with(lock.mode))
    }

    fn release(&mut self, task: &Task) {
        self.running -= 1;
        for lock in &task.locks {
            let Some(modes) = self.locked.get_mut(&lock.table) else { continue };
            modes.iter_mut().filter(|(mode, _)| *mode == lock.mode).for_each(|(_, count)| *count -= 1);
            modes.retain(|(_, count)| *count > 0);
            if modes.is_empty() {
                self.locked.remove(&lock.table);
            }
        }
    }

    fn done(&mut self, number: usize, tasks: &[Task]) {
        self.left -= 1;
        for freed in std::mem::take(&mut self.frees[number]) {
            self.waits_for[freed] -= 1;
            if self.waits_for[freed] == 0 {
                self.ready.push((tasks[freed].weight, std::cmp::Reverse(freed)));
            }
        }
    }
}

fn lock(board: &Mutex<Board>) -> MutexGuard<'_, Board> {
    board.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lets no further task begin and ends those that are running.
fn stop(mut board: MutexGuard<'_, Board>, why: Error, changed: &Condvar, interrupt: &impl Fn()) {
    board.failed = Some(why);
    drop(board);
    interrupt();
    changed.notify_all();
}

/// Waits for the next task; `None` when there is nothing more to begin.
fn next(
    board: &Mutex<Board>,
    changed: &Condvar,
    tasks: &[Task],
    monitor: &Monitor,
    interrupt: &(impl Fn() + Sync),
) -> Option<usize> {
    let mut board = lock(board);
    loop {
        if board.failed.is_some() || board.left == 0 {
            return None;
        }
        if let Err(cancelled) = monitor.check_cancelled() {
            stop(board, cancelled, changed, interrupt);
            return None;
        }
        if let Some(task) = board.take(tasks) {
            return Some(task);
        }
        if board.running == 0 {
            // Nothing runs and nothing can: a circle.
            changed.notify_all();
            return None;
        }
        board = changed.wait(board).unwrap_or_else(PoisonError::into_inner);
    }
}

/// Takes a task off the board however it ends.
struct Guard<'a, I: Fn() + Sync> {
    board: &'a Mutex<Board>,
    changed: &'a Condvar,
    interrupt: &'a I,
    task: usize,
    tasks: &'a [Task],
    outcome: Option<Result<()>>,
}

impl<I: Fn() + Sync> Drop for Guard<'_, I> {
    fn drop(&mut self) {
        let panicked = || Err(Error::new(ErrorKind::Bug, "a worker of the restore panicked"));
        let outcome = self.outcome.take().unwrap_or_else(panicked);
        let mut board = lock(self.board);
        board.release(&self.tasks[self.task]);
        let is_first = match outcome {
            Ok(()) => {
                board.done(self.task, self.tasks);
                false
            }
            Err(_) if board.failed.is_some() => false,
            Err(error) => {
                board.failed = Some(error);
                true
            }
        };
        drop(board);
        if is_first {
            (self.interrupt)();
        }
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

    fn after(after: &[usize], weight: u64) -> Task {
        Task { after: after.to_vec(), weight, ..Task::default() }
    }

    fn order(tasks: &[Task], workers: usize) -> Result<Vec<usize>> {
        let done = Mutex::new(Vec::new());
        let work = |_: &mut (), task| {
            done.lock().unwrap().push(task);
            Ok(())
        };
        run(tasks, vec![(); workers], &Monitor::new(), work, || {})?;
        Ok(done.into_inner().unwrap())
    }

    #[test]
    fn the_heaviest_that_can_run_goes_first_and_each_after_those_before_it() {
        let tasks = [after(&[3, 3], 100), after(&[], 1), after(&[], 5), after(&[1], 2), after(&[], 5)];
        assert_eq!(order(&tasks, 1).unwrap(), [2, 4, 1, 3, 0]);
        assert_eq!(order(&[], 2).unwrap(), [0; 0]);
        for _ in 0..50 {
            let order = order(&tasks, 3).unwrap();
            let place = |task| order.iter().position(|t| *t == task).unwrap();
            assert!(order.len() == 5 && place(1) < place(3) && place(3) < place(0), "{order:?}");
        }
    }

    #[test]
    fn a_circle_is_told_and_what_can_be_done_is_done() {
        let error = order(&[after(&[1], 0), after(&[0], 0), after(&[], 0)], 2).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Bug);
    }

    #[test]
    fn exclusive_tables_are_used_by_one_at_a_time_and_shared_ones_by_many() {
        let mut tasks = Vec::new();
        for n in 0..60 {
            let mode = if n % 3 == 0 { LockMode::AccessExclusive } else { LockMode::Share };
            tasks.push(Task { locks: vec![Lock { table: 7, mode }], ..Task::default() });
        }
        let (alone, together, most) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
        let work = |_: &mut (), task: usize| {
            assert!(!alone.load(SeqCst));
            if task.is_multiple_of(3) {
                assert_eq!(together.load(SeqCst), 0);
                assert!(!alone.swap(true, SeqCst));
                std::thread::sleep(Duration::from_millis(1));
                alone.store(false, SeqCst);
            } else {
                most.fetch_max(together.fetch_add(1, SeqCst) + 1, SeqCst);
                std::thread::sleep(Duration::from_millis(2));
                together.fetch_sub(1, SeqCst);
            }
            Ok(())
        };
        run(&tasks, vec![(); 4], &Monitor::new(), work, || {}).unwrap();
        assert!(most.load(SeqCst) > 1);
    }

    #[test]
    fn the_first_failure_interrupts_the_others_and_nothing_more_begins() {
        let tasks = vec![Task::default(); 100];
        let (interrupted, begun) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let work = |_: &mut (), _| {
            if begun.fetch_add(1, SeqCst) == 4 {
                return Err(Error::invalid("the fifth"));
            }
            while interrupted.load(SeqCst) == 0 {
                std::thread::yield_now();
            }
            Err(Error::invalid("interrupted"))
        };
        let interrupt = || {
            interrupted.fetch_add(1, SeqCst);
        };
        let error = run(&tasks, vec![(); 5], &Monitor::new(), work, interrupt).unwrap_err();
        assert_eq!((error.message(), interrupted.load(SeqCst), begun.load(SeqCst)), ("the fifth", 1, 5));
    }

    #[test]
    fn a_wish_to_stop_ends_it() {
        let monitor = Monitor::new();
        let work = |_: &mut (), task| {
            if task == 1 {
                monitor.cancel();
            }
            Ok(())
        };
        let error = run(&vec![Task::default(); 9], vec![(); 1], &monitor, work, || {}).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled);
    }
}
