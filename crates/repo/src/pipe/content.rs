//! Long content on its way: cut where it arrives, stored by whoever is free, put together in order.

use super::Engine;
use super::compress::Scratch;
use crate::chunk::{Cutter, FILE_CHUNK_MIN_BYTES, MAX_CHUNK_BYTES, ZERO_CHUNK_BYTES, zero_blob_id};
use crate::index::BlobKind;
use crate::sha256::sha256_many;
use lastgood_model::source::Chunking;
use lastgood_model::{BlobId, Error, ErrorKind, Id, Result};
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex};

/// Cut chunks are handed on together once they hold this much: a chunk of 16 KiB alone would not be worth the passing.
const BATCH_BYTES: usize = 3 << 20;

/// Room in a buffer beyond the batch for what arrives after its last cut.
const TAIL_BYTES: usize = 2 << 20;
/// Buffers kept for the next batch.
const BUFFERS_KEPT: usize = 8;

/// Buffers that go round: fresh memory costs a page fault every 4 KiB, and leaves holes behind when it is given back.
#[derive(Default)]
pub(super) struct Buffers(Mutex<Vec<Vec<u8>>>);

impl Buffers {
    fn take(&self) -> Vec<u8> {
        let kept = self.0.lock().unwrap_or_else(|e| e.into_inner()).pop();
        kept.unwrap_or_else(|| Vec::with_capacity(BATCH_BYTES + TAIL_BYTES))
    }

    fn give(&self, mut buffer: Vec<u8>) {
        // One that had to grow for an uncommonly long chunk is let go.
        if buffer.capacity() != BATCH_BYTES + TAIL_BYTES {
            return;
        }
        buffer.clear();
        let mut kept = self.0.lock().unwrap_or_else(|e| e.into_inner());
        if kept.len() < BUFFERS_KEPT {
            kept.push(buffer);
        }
    }
}

type Completion = Box<dyn FnOnce(Vec<BlobId>) + Send>;

/// The blobs of one content, filled in from several threads.
#[derive(Default)]
struct Blobs {
    state: Mutex<BlobsState>,
    done: Condvar,
}

#[derive(Default)]
struct BlobsState {
    ids: Vec<BlobId>,
    pending: usize,
    closed: bool,
    completion: Option<Completion>,
}

impl Blobs {
    /// Ends one batch, or with `None` the writer's own hold; runs the completion when nothing is left.
    fn settle(&self, batch: Option<(usize, Vec<BlobId>)>) {
        let mut state = self.state.lock().unwrap_or_else(|e| e.into_inner());
        match batch {
            Some((first, ids)) => {
                state.ids[first..first + ids.len()].copy_from_slice(&ids);
                state.pending -= 1;
            }
            None => state.closed = true,
        }
        if state.pending == 0 && state.closed {
            let completion = state.completion.take();
            let ids = completion.is_some().then(|| std::mem::take(&mut state.ids));
            drop(state);
            self.done.notify_all();
            if let (Some(completion), Some(ids)) = (completion, ids) {
                completion(ids);
            }
        }
    }
}

/// A batch of chunks to be stored.
pub(super) struct Batch {
    bytes: Vec<u8>,
    /// Ends of the chunks in `bytes`, ascending.
    cuts: Vec<usize>,
    first: usize,
    blobs: Arc<Blobs>,
    budgeted: usize,
}

impl Batch {
    pub(super) fn run(self, engine: &Engine, scratch: &mut Scratch) {
        let mut ids = vec![BlobId::default(); self.cuts.len()];
        if !engine.is_stopping() {
            let starts = std::iter::once(&0).chain(&self.cuts);
            let chunks: Vec<&[u8]> = starts.zip(&self.cuts).map(|(start, end)| &self.bytes[*start..*end]).collect();
            for ((id, hash), chunk) in ids.iter_mut().zip(sha256_many(&chunks)).zip(chunks) {
                *id = BlobId(Id(hash));
                if let Err(error) = engine.store_hashed(BlobKind::Data, id.0, chunk, scratch) {
                    engine.fail(error);
                    break;
                }
            }
        }
        engine.buffers.give(self.bytes);
        if self.budgeted > 0 {
            engine.budget.give(self.budgeted);
        }
        self.blobs.settle(Some((self.first, ids)));
    }
}

/// Content being written, from one thread at a time.
pub(super) struct Content {
    engine: Arc<Engine>,
    cutter: Cutter,
    /// Chunks to be expected from the start of `bytes` on; while there are any, nothing of `bytes` was cut.
    expected: VecDeque<(BlobId, usize)>,
    /// The last of them was the last of the content.
    expected_to_end: bool,
    bytes: Vec<u8>,
    /// Up to here `bytes` is counted in `length`.
    counted: usize,
    /// Up to here `bytes` has gone through the cutter.
    scanned: usize,
    cuts: Vec<usize>,
    blobs: Arc<Blobs>,
    count: usize,
    length: u64,
}

impl Drop for Content {
    fn drop(&mut self) {
        self.engine.buffers.give(std::mem::take(&mut self.bytes));
    }
}

impl Content {
    pub(super) fn new(engine: Arc<Engine>, chunking: Chunking) -> Result<Self> {
        let cutter = Cutter::new(chunking, &engine.params)?;
        Ok(Self {
            engine,
            cutter,
            expected: VecDeque::new(),
            expected_to_end: false,
            bytes: Vec::new(),
            counted: 0,
            scanned: 0,
            cuts: Vec::new(),
            blobs: Arc::default(),
            count: 0,
            length: 0,
        })
    }

    /// Tells which chunks the content had when it was stored before; it must still be empty. Where a chunk is the same
    /// again, its end need not be searched: the cutter would find it at the same place, since where it cuts depends on
    /// the chunk alone.
    pub(super) fn expect(&mut self, chunks: &[BlobId]) {
        let last = chunks.len().saturating_sub(1);
        for (at, id) in chunks.iter().enumerate() {
            let length = self.engine.index.find(*id).map_or(0, |location| location.plain_length() as usize);
            // Others were not cut by their content, but by a hole behind them or by another cutter.
            let is_cut_by_content = at == last || length >= FILE_CHUNK_MIN_BYTES;
            if length == 0 || length > MAX_CHUNK_BYTES || !is_cut_by_content {
                break;
            }
            self.expected.push_back((*id, length));
        }
        self.expected_to_end = self.expected.len() == chunks.len();
    }

    /// Takes the chunks that are as expected; the rest is left to the cutter. A last chunk that was cut by the end of the
    /// content is right only if the end is here again.
    fn take_expected(&mut self, at_end: bool) {
        while let Some((_, first)) = self.expected.front() {
            let is_last = self.expected_to_end && self.expected.len() == 1;
            let wanted = if is_last { first + 1 } else { BATCH_BYTES.max(*first) };
            if !at_end && self.bytes.len() < wanted {
                return;
            }
            let (mut end, mut chunks) = (0usize, Vec::new());
            for (at, (id, length)) in self.expected.iter().enumerate() {
                let Some(chunk) = self.bytes.get(end..end + length) else { break };
                end += length;
                let is_last = self.expected_to_end && at + 1 == self.expected.len();
                if is_last && !(at_end && end == self.bytes.len()) {
                    break;
                }
                chunks.push((*id, chunk));
            }
            let contents: Vec<&[u8]> = chunks.iter().map(|(_, chunk)| *chunk).collect();
            let same =
                sha256_many(&contents).iter().zip(&chunks).take_while(|(hash, (id, _))| **hash == id.0.0).count();
            let goes_on = same > 0 && same == chunks.len();
            let taken: usize = contents[..same].iter().map(|chunk| chunk.len()).sum();
            let ids = self.expected.drain(..same).map(|(id, _)| id);
            self.blobs.state.lock().unwrap_or_else(|e| e.into_inner()).ids.extend(ids);
            self.count += same;
            self.bytes.drain(..taken);
            self.counted -= taken;
            if !goes_on {
                self.expected.clear();
            }
        }
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Where new bytes are to be appended; call [`Content::advance`] after.
    pub(super) fn tail(&mut self) -> &mut Vec<u8> {
        if self.bytes.capacity() == 0 {
            self.bytes = self.engine.buffers.take();
        }
        &mut self.bytes
    }

    /// Takes note of bytes appended to the tail. On a worker, `scratch` lets it do the work itself when the budget is
    /// used up; other threads wait.
    pub(super) fn advance(&mut self, scratch: Option<&mut Scratch>) -> Result<()> {
        self.length += (self.bytes.len() - self.counted) as u64;
        self.counted = self.bytes.len();
        self.take_expected(false);
        if !self.expected.is_empty() {
            return Ok(());
        }
        self.scan();
        if self.bytes.len() >= BATCH_BYTES && !self.cuts.is_empty() { self.submit(scratch) } else { Ok(()) }
    }

    /// Searches what has arrived for the ends of chunks.
    fn scan(&mut self) {
        while self.scanned < self.bytes.len() {
            match self.cutter.next_cut(&self.bytes[self.scanned..]) {
                Some(n) => {
                    self.scanned += n;
                    self.cuts.push(self.scanned);
                }
                None => self.scanned = self.bytes.len(),
            }
        }
    }

    /// Appends zeros without producing them: whole chunks of zeros are stored once and then only named.
    pub(super) fn zeros(&mut self, mut length: u64, mut scratch: Option<&mut Scratch>) -> Result<()> {
        self.cut_here(false);
        self.submit(scratch.as_deref_mut())?;
        self.length += length;
        while length > 0 {
            let piece = length.min(ZERO_CHUNK_BYTES as u64) as usize;
            length -= piece as u64;
            let known = zero_blob_id(piece).filter(|id| self.engine.index.knows(*id));
            if let Some(id) = known {
                let mut state = self.blobs.state.lock().unwrap_or_else(|e| e.into_inner());
                state.ids.push(id);
                self.count += 1;
            } else {
                self.bytes.resize(piece, 0);
                self.cuts.push(piece);
                (self.counted, self.scanned) = (piece, piece);
                self.submit(scratch.as_deref_mut())?;
            }
        }
        Ok(())
    }

    /// Ends the current chunk, for a hole or at the end of the content.
    fn cut_here(&mut self, at_end: bool) {
        if !self.expected.is_empty() {
            self.take_expected(at_end);
            self.expected.clear();
            self.scan();
        }
        if self.cuts.last().copied().unwrap_or(0) < self.bytes.len() {
            self.cuts.push(self.bytes.len());
        }
        self.cutter.reset();
    }

    /// Hands the cut chunks to the workers and keeps the rest.
    fn submit(&mut self, scratch: Option<&mut Scratch>) -> Result<()> {
        let Some(end) = self.cuts.last().copied() else { return Ok(()) };
        self.engine.check()?;
        let mut rest = Vec::new();
        if end < self.bytes.len() {
            rest = self.engine.buffers.take();
            rest.extend_from_slice(&self.bytes[end..]);
        }
        let mut bytes = std::mem::replace(&mut self.bytes, rest);
        bytes.truncate(end);
        (self.counted, self.scanned) = (self.bytes.len(), self.bytes.len());
        let cuts = std::mem::take(&mut self.cuts);
        let first = self.count;
        self.count += cuts.len();
        {
            let mut state = self.blobs.state.lock().unwrap_or_else(|e| e.into_inner());
            state.ids.resize(self.count, BlobId::default());
            state.pending += 1;
        }
        let budgeted = bytes.capacity();
        let mut batch = Batch { bytes, cuts, first, blobs: self.blobs.clone(), budgeted };
        match scratch {
            Some(scratch) if !self.engine.budget.try_take(budgeted) => {
                batch.budgeted = 0;
                batch.run(&self.engine, scratch);
                return Ok(());
            }
            Some(_) => {}
            None => self.engine.budget.take(budgeted),
        }
        self.hand_on(batch)
    }

    /// A stream may outlive its session: then its batches are passed over, so that it ends in an error and nobody waits
    /// for workers that are gone.
    fn hand_on(&self, batch: Batch) -> Result<()> {
        let Err(late) = self.engine.pool.push_batch(batch) else { return Ok(()) };
        self.engine.fail(Error::new(ErrorKind::Bug, "write to a session that has ended"));
        late.run(&self.engine, &mut Scratch::new());
        self.engine.check()
    }

    /// Ends the content on a worker; `completion` gets its blobs once all are stored, on whichever worker was last.
    pub(super) fn finish_then(mut self, scratch: &mut Scratch, completion: Completion) -> Result<()> {
        self.cut_here(true);
        let submitted = self.submit(Some(scratch));
        // Also after a failure: somebody waits for the completion, which looks for itself whether all went well.
        self.blobs.state.lock().unwrap_or_else(|e| e.into_inner()).completion = Some(completion);
        self.blobs.settle(None);
        submitted
    }

    /// Ends the content on any other thread, waiting until all blobs are stored.
    pub(super) fn finish(mut self) -> Result<Vec<BlobId>> {
        self.cut_here(true);
        self.submit(None)?;
        self.blobs.settle(None);
        let mut state = self.blobs.state.lock().unwrap_or_else(|e| e.into_inner());
        while state.pending > 0 {
            state = self.blobs.done.wait(state).unwrap_or_else(|e| e.into_inner());
        }
        let ids = std::mem::take(&mut state.ids);
        drop(state);
        self.engine.check()?;
        Ok(ids)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn ids(numbers: &[u8]) -> Vec<BlobId> {
        numbers.iter().map(|n| BlobId(Id([*n; 32]))).collect()
    }

    #[test]
    fn batches_that_end_in_any_order_come_out_in_the_order_of_the_content() {
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
            let blobs = Blobs::default();
            let (done, ran) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
            {
                let mut state = blobs.state.lock().unwrap();
                state.ids.resize(5, BlobId::default());
                state.pending = 3;
                let (done, ran) = (done.clone(), ran.clone());
                state.completion = Some(Box::new(move |ids| {
                    *done.lock().unwrap() = ids;
                    ran.fetch_add(1, Ordering::Relaxed);
                }));
            }
            let batches = [(0, ids(&[1, 2])), (2, ids(&[3])), (3, ids(&[4, 5]))];
            blobs.settle(Some(batches[order[0]].clone()));
            blobs.settle(Some(batches[order[1]].clone()));
            blobs.settle(Some(batches[order[2]].clone()));
            assert_eq!(ran.load(Ordering::Relaxed), 0, "the writer has not ended");
            blobs.settle(None);
            assert_eq!(ran.load(Ordering::Relaxed), 1);
            assert_eq!(*done.lock().unwrap(), ids(&[1, 2, 3, 4, 5]));
        }
    }

    #[test]
    fn buffers_go_round_but_for_those_that_grew_and_those_that_are_too_many() {
        let buffers = Buffers::default();
        let mut first = buffers.take();
        first.extend_from_slice(b"old content");
        let address = first.as_ptr();
        buffers.give(first);
        let again = buffers.take();
        assert!(again.is_empty() && again.as_ptr() == address);
        buffers.give(Vec::with_capacity(2 * (BATCH_BYTES + TAIL_BYTES)));
        buffers.give(Vec::new());
        assert!(buffers.0.lock().unwrap().is_empty());
        (0..BUFFERS_KEPT + 3).for_each(|_| buffers.give(Vec::with_capacity(BATCH_BYTES + TAIL_BYTES)));
        assert_eq!(buffers.0.lock().unwrap().len(), BUFFERS_KEPT);
    }
}
