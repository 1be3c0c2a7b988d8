//! A sink that keeps everything in memory, for tests of sources: what was written where, with which verdict, and nothing
//! of a stream that was dropped without one.

use lastgood_model::node::{display_path, is_safe_name};
use lastgood_model::source::{Chunking, Entry, Read, Sink, Steady, StreamSpec, StreamWriter, TreeDir, Verdict};
use lastgood_model::{Error, ErrorKind, Monitor, Node, NodeKind, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How much is read from a file at once.
const READ_BYTES: usize = 256 << 10;

type Hook = Box<dyn Fn(u64) -> Result<()> + Send + Sync>;

/// A finished stream.
#[derive(Clone, Debug)]
pub struct StoredStream {
    /// As it was begun.
    pub spec: StreamSpec,
    /// All of it, holes as zeros.
    pub content: Vec<u8>,
    /// Bytes that were told as holes.
    pub bytes_zeros: u64,
    /// The producer's word.
    pub verdict: Verdict,
}

/// An entry of a tree.
#[derive(Clone, Debug)]
pub struct StoredEntry {
    /// Its metadata, described and finished.
    pub node: Node,
    /// A file's content, holes as zeros.
    pub content: Option<Vec<u8>>,
    /// How a file was to be cut.
    pub chunking: Option<Chunking>,
    /// What a file's reader said at the end.
    pub steady: Option<Steady>,
}

/// A [`Sink`] in memory.
#[derive(Default)]
pub struct MemorySink {
    /// Problems and counters of trees.
    pub monitor: Monitor,
    state: Arc<Mutex<State>>,
    before_write: Option<Arc<Hook>>,
}

#[derive(Default)]
struct State {
    taken: BTreeSet<Vec<u8>>,
    streams: BTreeMap<Vec<u8>, StoredStream>,
    entries: BTreeMap<Vec<u8>, StoredEntry>,
}

impl std::fmt::Debug for MemorySink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = lock(&self.state);
        f.debug_struct("MemorySink").field("streams", &state.streams.keys()).finish_non_exhaustive()
    }
}

impl MemorySink {
    /// An empty sink.
    pub fn new() -> Self {
        Self::default()
    }

    /// Calls `hook` before each write to a stream, with the number of bytes that stream has so far: a place to let other
    /// things happen in the middle of a capture, or to fail.
    #[must_use]
    pub fn before_write(mut self, hook: impl Fn(u64) -> Result<()> + Send + Sync + 'static) -> Self {
        self.before_write = Some(Arc::new(Box::new(hook)));
        self
    }

    /// A finished stream by its path.
    pub fn stream_at(&self, path: &str) -> Option<StoredStream> {
        lock(&self.state).streams.get(path.as_bytes()).cloned()
    }

    /// The paths of all finished streams.
    pub fn stream_paths(&self) -> Vec<String> {
        lock(&self.state).streams.keys().map(|path| display_path(path)).collect()
    }

    /// An entry of a tree by its path from the source's folder.
    pub fn entry_at(&self, path: &str) -> Option<StoredEntry> {
        lock(&self.state).entries.get(path.as_bytes()).cloned()
    }

    /// The paths of all entries of trees, directories included.
    pub fn entry_paths(&self) -> Vec<String> {
        lock(&self.state).entries.keys().map(|path| display_path(path)).collect()
    }

    fn take(&self, path: &[u8]) -> Result<()> {
        if !path.is_empty() && !path.split(|b| *b == b'/').all(is_safe_name) {
            return Err(Error::new(ErrorKind::Bug, format!("unsafe path {}", display_path(path))));
        }
        if !lock(&self.state).taken.insert(path.to_vec()) {
            return Err(Error::new(ErrorKind::Bug, format!("path {} is taken", display_path(path))));
        }
        Ok(())
    }

    fn keep(&self, path: Vec<u8>, entry: Entry, dir: &dyn TreeDir) -> Result<()> {
        let mut node = entry.node.clone();
        dir.describe(&mut node, &self.monitor)?;
        let mut stored = StoredEntry { node, content: None, chunking: None, steady: None };
        if entry.node.kind == NodeKind::File {
            let mut reader = dir.open_file(&entry, &self.monitor)?;
            stored.chunking = Some(reader.chunking());
            let mut content = Vec::new();
            loop {
                match reader.read(&mut content, READ_BYTES)? {
                    Read::Data(_) => {}
                    Read::Hole(length) => content.resize(content.len() + length as usize, 0),
                    Read::End => break,
                }
            }
            stored.steady = Some(reader.finish(&mut stored.node)?);
            stored.content = Some(content);
        }
        lock(&self.state).entries.insert(path, stored);
        Ok(())
    }

    fn walk(&self, path: &[u8], dir: &Arc<dyn TreeDir>) -> Result<()> {
        for entry in dir.list(&self.monitor)? {
            let inner = join(path, &entry.node.name);
            if entry.node.kind == NodeKind::Dir {
                let below = dir.open_dir(&entry)?;
                self.keep(inner.clone(), entry, &**dir)?;
                self.walk(&inner, &below)?;
            } else {
                self.keep(inner, entry, &**dir)?;
            }
        }
        Ok(())
    }
}

impl Sink for MemorySink {
    fn stream(&self, spec: StreamSpec) -> Result<Box<dyn StreamWriter>> {
        self.take(&spec.path)?;
        Ok(Box::new(MemoryStream {
            spec,
            content: Vec::new(),
            bytes_zeros: 0,
            state: Arc::clone(&self.state),
            before_write: self.before_write.clone(),
        }))
    }

    fn tree(&self, path: &[u8], node: Node, _parents: Vec<Node>, dir: Arc<dyn TreeDir>) -> Result<()> {
        self.take(path)?;
        lock(&self.state)
            .entries
            .insert(path.to_vec(), StoredEntry { node, content: None, chunking: None, steady: None });
        self.walk(path, &dir)
    }

    fn entry(&self, path: &[u8], entry: Entry, _parents: Vec<Node>, dir: Arc<dyn TreeDir>) -> Result<()> {
        self.take(path)?;
        self.keep(path.to_vec(), entry, &*dir)
    }
}

struct MemoryStream {
    spec: StreamSpec,
    content: Vec<u8>,
    bytes_zeros: u64,
    state: Arc<Mutex<State>>,
    before_write: Option<Arc<Hook>>,
}

impl MemoryStream {
    fn hook(&self) -> Result<()> {
        match &self.before_write {
            Some(hook) => hook(self.content.len() as u64),
            None => Ok(()),
        }
    }
}

impl StreamWriter for MemoryStream {
    fn write(&mut self, data: &[u8]) -> Result<()> {
        self.hook()?;
        self.content.extend_from_slice(data);
        Ok(())
    }

    fn zeros(&mut self, length: u64) -> Result<()> {
        self.hook()?;
        self.content.resize(self.content.len() + length as usize, 0);
        self.bytes_zeros += length;
        Ok(())
    }

    fn finish(self: Box<Self>, verdict: Verdict) -> Result<u64> {
        let Self { spec, content, bytes_zeros, state, .. } = *self;
        let length = content.len() as u64;
        lock(&state).streams.insert(spec.path.clone(), StoredStream { spec, content, bytes_zeros, verdict });
        Ok(length)
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    if path.is_empty() { name.to_vec() } else { [path, b"/", name].concat() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lastgood_model::Time;

    fn spec(path: &str) -> StreamSpec {
        StreamSpec {
            path: path.into(),
            chunking: Chunking::Rows,
            mode: 0o600,
            uid: 0,
            gid: 0,
            mtime: Time::default(),
            time_follows_content: false,
        }
    }

    #[test]
    fn a_dropped_stream_leaves_nothing_and_a_path_is_taken_once() {
        let sink = MemorySink::new();
        let mut dropped = sink.stream(spec("a")).unwrap();
        dropped.write(b"x").unwrap();
        drop(dropped);
        let mut kept = sink.stream(spec("b")).unwrap();
        kept.write(b"x").unwrap();
        kept.zeros(2).unwrap();
        assert_eq!(kept.finish(Verdict { evidence: "ok".into() }).unwrap(), 3);
        assert_eq!(sink.stream_paths(), ["b"]);
        assert_eq!(sink.stream_at("b").unwrap().content, b"x\0\0");
        assert_eq!(sink.stream(spec("b")).err().unwrap().kind(), ErrorKind::Bug);
        assert!(sink.stream(spec("../b")).is_err());
    }
}
