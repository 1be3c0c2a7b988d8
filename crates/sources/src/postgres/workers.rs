//! Reading the rows of one database with several sessions at once.
//!
//! Each worker takes a slab, looks at its table under the holder's snapshot in a transaction of its own, and ends that
//! before it takes the next: so nobody who wants to change a table or an index waits for more than one slab of ours, and
//! none of ours waits in a circle behind them. A table that somebody waits for cannot be locked by a worker. It goes to
//! the holder, who has its lock already.

use super::capture::Table;
use super::conninfo::Conninfo;
use super::large_objects::{self, LargeObjects};
use super::layout::{self, PartRecord};
use super::parts::{self, Slab};
use super::selection::Selection;
use super::session::{self, READER_SETTINGS, Snapshot, Stop};
use super::sql::quote_in;
use super::stream::Streams;
use super::toc::Text;
use super::wire::{Client, Transaction, sqlstate};
use lastgood_model::{Error, ErrorKind, Result};
use std::collections::{BTreeMap, VecDeque};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How often the holder shows that it is alive, while others work.
const HOLDER_TICK: Duration = Duration::from_secs(5);

/// What there is to read of a database.
pub(super) struct Job<'a> {
    pub(super) info: &'a Conninfo,
    pub(super) snapshot: &'a Snapshot,
    /// The database's folder.
    pub(super) folder: &'a str,
    pub(super) encoding: &'a str,
    pub(super) tables: &'a [Table],
    pub(super) slab_pages: u64,
    pub(super) has_large_objects: bool,
    pub(super) workers: usize,
    pub(super) streams: Streams<'a>,
    pub(super) stop: &'a Arc<Stop>,
}

/// What was read.
#[derive(Debug, Default)]
pub(super) struct Done {
    /// Per table, by its place in the list, its parts in order.
    pub(super) parts: BTreeMap<usize, Vec<PartRecord>>,
    pub(super) large_objects: Option<LargeObjects>,
}

#[derive(Clone, Copy, Debug)]
enum Task {
    Slab { table: usize, slab: Slab },
    LargeObjects,
}

enum Event {
    Part(usize, u32, PartRecord),
    LargeObjects(LargeObjects),
    /// For the holder.
    Contested(Task),
}

/// Reads everything. Returns when all workers are gone, whatever happened.
pub(super) fn read_all(job: &Job<'_>, holder: &mut Client) -> Result<Done> {
    let queue = Mutex::new(tasks(job));
    let mut found: BTreeMap<(usize, u32), PartRecord> = BTreeMap::new();
    let mut done = Done::default();
    holder.batch(READER_SETTINGS)?;
    std::thread::scope(|scope| {
        let (sender, events) = channel();
        for number in 0..job.workers.min(lock(&queue).len()) {
            let (sender, queue) = (sender.clone(), &queue);
            let worker = std::thread::Builder::new().name(format!("postgres-{number}"));
            let spawned = worker.spawn_scoped(scope, move || {
                if let Err(error) = work(job, queue, &sender) {
                    job.stop.because(error);
                }
            });
            if let Err(error) = spawned {
                job.stop.because(Error::io("start a thread", error));
            }
        }
        drop(sender);
        let mut take_in = |event, holder: &mut Client| {
            match event {
                Event::Part(table, number, part) => drop(found.insert((table, number), part)),
                Event::LargeObjects(objects) => done.large_objects = Some(objects),
                Event::Contested(task) => return job.read(task, holder).map(Some),
            }
            Ok(None)
        };
        loop {
            let result = match events.recv_timeout(HOLDER_TICK) {
                Ok(event) => match take_in(event, holder) {
                    Ok(Some(event)) => take_in(event, holder).map(drop),
                    other => other.map(drop),
                },
                Err(RecvTimeoutError::Timeout) => session::check_held(holder, job.snapshot),
                Err(RecvTimeoutError::Disconnected) => break,
            };
            if let Err(error) = result {
                job.stop.because(error);
                // The others hear of it, and the last one ends this loop; what they still send is of no use.
                while events.recv().is_ok() {}
                break;
            }
        }
        // What is left when no worker, or too few, got a connection.
        while let Some(task) = next(job, &queue) {
            match job.read(task, holder).and_then(|event| take_in(event, holder)) {
                Ok(_) => {}
                Err(error) => job.stop.because(error),
            }
        }
    });
    job.stop.check()?;
    for ((table, number), part) in found {
        let parts = done.parts.entry(table).or_default();
        if parts.len() != number as usize {
            return Err(Error::new(
                ErrorKind::Bug,
                format!("part {} of {} is missing", parts.len(), job.tables[table].relation.shown()),
            ));
        }
        parts.push(part);
    }
    Ok(done)
}

fn tasks(job: &Job<'_>) -> VecDeque<Task> {
    let sizes: Vec<u64> = job.tables.iter().map(|table| table.size.bytes).collect();
    let mut out = VecDeque::new();
    if job.has_large_objects {
        // One long stream that only one worker can read: it begins first.
        out.push_back(Task::LargeObjects);
    }
    for table in parts::largest_first(&sizes) {
        let read = &job.tables[table];
        if read.has_rows() {
            let pages = if read.can_be_cut { read.size.pages } else { 0 };
            out.extend(parts::slabs(pages, job.slab_pages).into_iter().map(|slab| Task::Slab { table, slab }));
        }
    }
    out
}

fn lock(queue: &Mutex<VecDeque<Task>>) -> std::sync::MutexGuard<'_, VecDeque<Task>> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

fn next(job: &Job<'_>, queue: &Mutex<VecDeque<Task>>) -> Option<Task> {
    if job.stop.is_wanted() { None } else { lock(queue).pop_front() }
}

fn work(job: &Job<'_>, queue: &Mutex<VecDeque<Task>>, events: &Sender<Event>) -> Result<()> {
    let mut client = match session::open(job.info, job.stop) {
        // The others do it alone, at worst the holder.
        Err(error) if session::is_full(&error) => return Ok(()),
        other => other?,
    };
    if job.streams.text == Text::Bytes {
        client.set_text(Text::Bytes)?;
    }
    client.batch(READER_SETTINGS)?;
    while let Some(task) = next(job, queue) {
        let event = match job.begin(task, &mut client)? {
            true => job.read(task, &mut client)?,
            false => Event::Contested(task),
        };
        // Only a holder that failed does not listen, and then the wish to stop is there.
        let _ = events.send(event);
    }
    Ok(())
}

impl Job<'_> {
    fn table_name(&self, table: usize) -> String {
        let relation = &self.tables[table].relation;
        quote_in(&relation.schema, &relation.name)
    }

    /// Begins a worker's transaction for a task; false when its table cannot be had.
    fn begin(&self, task: Task, client: &mut Client) -> Result<bool> {
        let before = if client.transaction() == Transaction::Idle { "" } else { "COMMIT; " };
        let begin = match task {
            Task::Slab { table, .. } => session::begin_on(&self.snapshot.id, &self.table_name(table)),
            Task::LargeObjects => session::begin_under(&self.snapshot.id),
        };
        match client.batch(&format!("{before}{begin}")) {
            Ok(()) => Ok(true),
            Err(error) if session::is_contested(&error) => {
                client.batch("ROLLBACK")?;
                Ok(false)
            }
            // No such snapshot, in the words of versions up to 16 and of later ones.
            Err(error) if matches!(sqlstate(&error), Some("22023" | "42704" | "55000")) => {
                Err(Error::new(ErrorKind::Retry, "the session that held the snapshot is gone")
                    .with_source(error)
                    .with_hint("somebody ended it, or the server was restarted; try again"))
            }
            Err(error) => Err(self.explain(error, task)),
        }
    }

    /// Reads in the transaction that is open.
    fn read(&self, task: Task, client: &mut Client) -> Result<Event> {
        self.read_task(task, client).map_err(|error| self.explain(error, task))
    }

    fn read_task(&self, task: Task, client: &mut Client) -> Result<Event> {
        match task {
            Task::Slab { table, slab } => {
                let oid = self.tables[table].relation.oid;
                if slab.number == 0 {
                    let statement = self.tables[table].record(self.encoding, self.streams.text).copy_from();
                    let path = layout::copy_statement_path(self.folder, oid);
                    self.streams.file(path, |file| file.put_text(&statement))?;
                }
                let path = layout::slab_path(self.folder, oid, slab.number);
                let long_path = |number| layout::long_row_path(self.folder, oid, slab.number, number);
                let part = self.streams.rows(client, &self.selection(table, slab), path, &long_path)?;
                Ok(Event::Part(table, slab.number, part))
            }
            Task::LargeObjects => {
                let path = |file| layout::in_database(self.folder, file);
                let objects = large_objects::script(client, &self.streams, path(layout::LARGE_OBJECTS_SQL))?;
                let (bytes, total) = large_objects::rows(client, &self.streams, path(layout::LARGE_OBJECTS_ROWS))?;
                Ok(Event::LargeObjects(LargeObjects { objects, bytes, total }))
            }
        }
    }

    fn selection(&self, table: usize, slab: Slab) -> Selection<'_> {
        let Table { relation, columns, size, .. } = &self.tables[table];
        Selection {
            table: self.table_name(table),
            columns,
            encoding: self.encoding,
            range: slab.range,
            condition: relation.condition.as_deref(),
            is_heap: relation.is_heap,
            bytes: size.bytes,
        }
    }

    fn explain(&self, error: Error, task: Task) -> Error {
        match task {
            // Our own end of it is not the table's fault.
            _ if error.kind() == ErrorKind::Cancelled => error,
            Task::Slab { table, .. } => error.context(format!("read table {}", self.tables[table].relation.shown())),
            Task::LargeObjects => error,
        }
    }
}
