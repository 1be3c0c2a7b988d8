//! A stream: bytes pushed by a source, kept as one file.

use super::Engine;
use super::content::Content;
use lastgood_model::source::{Chunking, StreamWriter, Verdict};
use lastgood_model::{BlobId, Result};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Called once with the blobs and the length of a finished stream, or with `None` when it was dropped.
type OnEnd = Box<dyn FnOnce(Option<(Vec<BlobId>, u64, Verdict)>) -> Result<()> + Send>;

/// The engine's [`StreamWriter`].
pub(crate) struct Stream {
    content: Option<Content>,
    engine: Arc<Engine>,
    on_end: Option<OnEnd>,
}

/// Bytes taken over in one step; keeps the tail buffer near its reserved size.
const STEP_BYTES: usize = 256 << 10;

impl Stream {
    pub(crate) fn new(engine: Arc<Engine>, chunking: Chunking, on_end: OnEnd) -> Result<Self> {
        Ok(Self { content: Some(Content::new(engine.clone(), chunking)?), engine, on_end: Some(on_end) })
    }
}

impl StreamWriter for Stream {
    fn write(&mut self, data: &[u8]) -> Result<()> {
        let Some(content) = &mut self.content else { return Ok(()) };
        for step in data.chunks(STEP_BYTES) {
            content.tail().extend_from_slice(step);
            content.advance(None)?;
        }
        let counters = &self.engine.monitor.counters;
        counters.bytes.fetch_add(data.len() as u64, Relaxed);
        counters.bytes_read.fetch_add(data.len() as u64, Relaxed);
        Ok(())
    }

    fn zeros(&mut self, length: u64) -> Result<()> {
        let Some(content) = &mut self.content else { return Ok(()) };
        content.zeros(length, None)?;
        self.engine.monitor.counters.bytes.fetch_add(length, Relaxed);
        Ok(())
    }

    fn finish(mut self: Box<Self>, verdict: Verdict) -> Result<u64> {
        let Some(content) = self.content.take() else { return Ok(0) };
        let length = content.length();
        let ids = content.finish()?;
        self.engine.monitor.counters.files.fetch_add(1, Relaxed);
        if let Some(on_end) = self.on_end.take() {
            on_end(Some((ids, length, verdict)))?;
        }
        Ok(length)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Some(on_end) = self.on_end.take() {
            // An aborted stream has nothing more to fail at; the session keeps note of it.
            let _ = on_end(None);
        }
    }
}
