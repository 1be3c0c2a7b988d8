//! A source between the engine and a real one: the world changes at chosen moments of a capture.

use lastgood_model::source::{Captured, Entry, FileReader, Finding, Sink, Source, StreamSpec, StreamWriter, TreeDir};
use lastgood_model::{Monitor, Node, Result};
use std::sync::Arc;

/// What happens at a moment of a capture, given the path concerned; an error stands for that of the system.
pub(crate) type Meddling = dyn Fn(Moment, &str) -> Result<()> + Send + Sync;

/// The moments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// A directory was listed, and nothing of it opened.
    Listed,
    /// A file is about to be opened.
    Opening,
    /// A file was opened and nothing read.
    Opened,
    /// Everything was handed over; the capture is about to return.
    Done,
}

/// A source with its meddler.
pub(crate) struct Meddled {
    pub(crate) source: Box<dyn Source>,
    pub(crate) meddle: Arc<Meddling>,
}

impl Meddled {
    pub(crate) fn boxed(
        source: Box<dyn Source>,
        meddle: impl Fn(Moment, &str) -> Result<()> + Send + Sync + 'static,
    ) -> Box<dyn Source> {
        Box::new(Self { source, meddle: Arc::new(meddle) })
    }
}

impl Source for Meddled {
    fn name(&self) -> &str {
        self.source.name()
    }
    fn kind(&self) -> &'static str {
        self.source.kind()
    }
    fn origins(&self) -> Vec<String> {
        self.source.origins()
    }
    fn probe(&self) -> Result<Vec<Finding>> {
        self.source.probe()
    }
    fn capture(&self, sink: &dyn Sink, monitor: &Monitor) -> Result<Captured> {
        let captured = self.source.capture(&MeddledSink { sink, meddle: self.meddle.clone() }, monitor)?;
        (self.meddle)(Moment::Done, "")?;
        Ok(captured)
    }
}

struct MeddledSink<'a> {
    sink: &'a dyn Sink,
    meddle: Arc<Meddling>,
}

impl MeddledSink<'_> {
    fn wrap(&self, dir: Arc<dyn TreeDir>) -> Arc<dyn TreeDir> {
        Arc::new(MeddledDir { dir, meddle: self.meddle.clone() })
    }
}

impl Sink for MeddledSink<'_> {
    fn stream(&self, spec: StreamSpec) -> Result<Box<dyn StreamWriter>> {
        self.sink.stream(spec)
    }
    fn tree(&self, path: &[u8], node: Node, parents: Vec<Node>, dir: Arc<dyn TreeDir>) -> Result<()> {
        self.sink.tree(path, node, parents, self.wrap(dir))
    }
    fn entry(&self, path: &[u8], entry: Entry, parents: Vec<Node>, dir: Arc<dyn TreeDir>) -> Result<()> {
        self.sink.entry(path, entry, parents, self.wrap(dir))
    }
}

struct MeddledDir {
    dir: Arc<dyn TreeDir>,
    meddle: Arc<Meddling>,
}

impl MeddledDir {
    fn tell(&self, moment: Moment, name: &[u8]) -> Result<()> {
        (self.meddle)(moment, &String::from_utf8_lossy(&self.dir.path_of(name)))
    }
}

impl TreeDir for MeddledDir {
    fn list(&self, monitor: &Monitor) -> Result<Vec<Entry>> {
        let list = self.dir.list(monitor)?;
        self.tell(Moment::Listed, b"")?;
        Ok(list)
    }
    fn open_dir(&self, entry: &Entry) -> Result<Arc<dyn TreeDir>> {
        Ok(Arc::new(Self { dir: self.dir.open_dir(entry)?, meddle: self.meddle.clone() }))
    }
    fn describe(&self, node: &mut Node, monitor: &Monitor) -> Result<()> {
        self.dir.describe(node, monitor)
    }
    fn open_file(&self, entry: &Entry, monitor: &Monitor) -> Result<Box<dyn FileReader>> {
        self.tell(Moment::Opening, &entry.node.name)?;
        let reader = self.dir.open_file(entry, monitor)?;
        self.tell(Moment::Opened, &entry.node.name)?;
        Ok(reader)
    }
    fn path_of(&self, name: &[u8]) -> Vec<u8> {
        self.dir.path_of(name)
    }
}
