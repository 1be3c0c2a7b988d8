//! The workers and what they take up next.

use super::Engine;
use super::compress::Scratch;
use super::content::Batch;
use super::tree::{DirTask, FilesTask};
use lastgood_model::{Error, Result};
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::thread::JoinHandle;

/// A piece of work.
pub(super) enum Task {
    /// Chunks in memory: first, since they give memory back.
    Batch(Batch),
    /// Files of one directory.
    Files(FilesTask),
    /// A directory: last, and the newest first, so that the walk goes deep before it goes wide.
    Dir(Box<DirTask>),
}

#[derive(Default)]
struct Queues {
    batches: VecDeque<Batch>,
    files: VecDeque<FilesTask>,
    #[expect(clippy::vec_box, reason = "handed on as it came")]
    dirs: Vec<Box<DirTask>>,
    closed: bool,
}

/// The queues of an engine and its threads.
#[derive(Default)]
pub(super) struct Pool {
    queues: Mutex<Queues>,
    wake: Condvar,
    workers: Mutex<Vec<JoinHandle<()>>>,
}

/// Starts the workers: one more than there are cores, so that one may wait for the disk.
pub(super) fn start(engine: &Arc<Engine>) -> Result<()> {
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    for n in 0..cores.max(2) + 1 {
        let weak = Arc::downgrade(engine);
        let worker = std::thread::Builder::new()
            .name(format!("worker-{n}"))
            .spawn(move || work(&weak))
            .map_err(|e| Error::io("start worker", e))?;
        engine.pool.workers.lock().unwrap_or_else(|e| e.into_inner()).push(worker);
    }
    Ok(())
}

/// Workers hold the engine only while it is running; `stop` ends them before it takes the engine apart.
fn work(engine: &Weak<Engine>) {
    let Some(engine) = engine.upgrade() else { return };
    let mut scratch = Scratch::new();
    while let Some(task) = engine.pool.next() {
        match task {
            Task::Batch(batch) => batch.run(&engine, &mut scratch),
            Task::Files(files) => files.run(&engine, &mut scratch),
            Task::Dir(dir) => dir.run(&engine, &mut scratch),
        }
    }
}

impl Pool {
    pub(super) fn push(&self, task: Task) {
        self.push_all([task]);
    }

    pub(super) fn push_all(&self, tasks: impl IntoIterator<Item = Task>) {
        let mut queues = self.queues.lock().unwrap_or_else(|e| e.into_inner());
        let mut pushed = 0;
        for task in tasks {
            pushed += 1;
            match task {
                Task::Batch(batch) => queues.batches.push_back(batch),
                Task::Files(files) => queues.files.push_back(files),
                Task::Dir(dir) => queues.dirs.push(dir),
            }
        }
        drop(queues);
        match pushed {
            0 => {}
            1 => self.wake.notify_one(),
            _ => self.wake.notify_all(),
        }
    }

    /// Hands a batch to the workers. Gives it back once they have ended: nobody would ever take it up.
    pub(super) fn push_batch(&self, batch: Batch) -> Result<(), Batch> {
        let mut queues = self.queues.lock().unwrap_or_else(|e| e.into_inner());
        if queues.closed {
            return Err(batch);
        }
        queues.batches.push_back(batch);
        drop(queues);
        self.wake.notify_one();
        Ok(())
    }

    fn next(&self) -> Option<Task> {
        let mut queues = self.queues.lock().unwrap_or_else(|e| e.into_inner());
        loop {
            if let Some(batch) = queues.batches.pop_front() {
                return Some(Task::Batch(batch));
            }
            if let Some(files) = queues.files.pop_front() {
                return Some(Task::Files(files));
            }
            if let Some(dir) = queues.dirs.pop() {
                return Some(Task::Dir(dir));
            }
            if queues.closed {
                return None;
            }
            queues = self.wake.wait(queues).unwrap_or_else(|e| e.into_inner());
        }
    }

    /// Ends the workers once the queues are empty.
    pub(super) fn stop(&self) {
        self.queues.lock().unwrap_or_else(|e| e.into_inner()).closed = true;
        self.wake.notify_all();
        let workers = std::mem::take(&mut *self.workers.lock().unwrap_or_else(|e| e.into_inner()));
        for worker in workers {
            if let Err(panic) = worker.join() {
                std::panic::resume_unwind(panic);
            }
        }
    }
}
