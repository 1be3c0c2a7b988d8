//! A sink that does with a tree what the engine does, and keeps everything in memory.

use super::super::{FilesOptions, FilesSource};
use lastgood_model::manifest::{Problem, ProblemKind};
use lastgood_model::source::{
    Captured, Entry, FileReader, Read, Sink, Source, Steady, StreamSpec, StreamWriter, TreeDir,
};
use lastgood_model::{Monitor, Node, NodeKind, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// What was captured of one entry.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub(super) node: Node,
    pub(super) content: Vec<u8>,
    pub(super) steady: Option<Steady>,
    pub(super) volatile: bool,
}

/// Everything captured, by path below the source's folder.
#[derive(Debug, Default)]
pub(super) struct Collected {
    kept: Mutex<BTreeMap<Vec<u8>, Kept>>,
    monitor: Monitor,
}

/// A finished capture.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) kept: BTreeMap<Vec<u8>, Kept>,
    pub(super) captured: Captured,
    pub(super) problems: Vec<Problem>,
    top: Vec<u8>,
}

impl Taken {
    /// The entry at `path` below the first configured path.
    #[track_caller]
    pub(super) fn get(&self, path: impl AsRef<[u8]>) -> &Kept {
        let path = path.as_ref();
        self.find(path).unwrap_or_else(|| panic!("{} was not captured", path.escape_ascii()))
    }

    pub(super) fn find(&self, path: impl AsRef<[u8]>) -> Option<&Kept> {
        self.kept.get(&[&self.top, &b"/"[..], path.as_ref()].concat())
    }

    /// Paths below the first configured path, in byte order.
    pub(super) fn names(&self) -> Vec<String> {
        let below =
            |path: &[u8]| path.strip_prefix(&*self.top)?.strip_prefix(b"/").map(|p| p.escape_ascii().to_string());
        self.kept.keys().filter_map(|path| below(path)).collect()
    }

    /// The problems' kinds and paths below the first configured path.
    pub(super) fn problems(&self) -> Vec<(ProblemKind, &str)> {
        let top = format!("/{}/", str::from_utf8(&self.top).unwrap());
        self.problems.iter().map(|p| (p.what, p.path.strip_prefix(&top).unwrap_or(&p.path))).collect()
    }
}

/// Captures `top` with `options`.
pub(super) fn take(top: &Path, options: FilesOptions) -> Taken {
    try_take(vec![top.to_owned()], options).unwrap()
}

pub(super) fn try_take(paths: Vec<PathBuf>, options: FilesOptions) -> Result<Taken> {
    let source = FilesSource::new("up", paths, options)?;
    let sink = Collected::default();
    let captured = source.capture(&sink, &sink.monitor)?;
    let top = source.origins()[0].trim_start_matches('/').as_bytes().to_vec();
    let (problems, _) = sink.monitor.problems();
    Ok(Taken { kept: sink.kept.into_inner().unwrap(), captured, problems, top })
}

/// Opens the top of a tree as the engine gets it, to act between its calls.
pub(super) fn open_top(top: &Path, options: FilesOptions) -> Arc<dyn TreeDir> {
    #[derive(Default)]
    struct Grab(Mutex<Option<Arc<dyn TreeDir>>>);
    impl Sink for Grab {
        fn stream(&self, _: StreamSpec) -> Result<Box<dyn StreamWriter>> {
            panic!("a tree has no streams")
        }
        fn tree(&self, _: &[u8], _: Node, _: Vec<Node>, dir: Arc<dyn TreeDir>) -> Result<()> {
            *self.0.lock().unwrap() = Some(dir);
            Ok(())
        }
        fn entry(&self, _: &[u8], _: Entry, _: Vec<Node>, dir: Arc<dyn TreeDir>) -> Result<()> {
            *self.0.lock().unwrap() = Some(dir);
            Ok(())
        }
    }
    let grab = Grab::default();
    FilesSource::new("up", vec![top.to_owned()], options).unwrap().capture(&grab, &Monitor::new()).unwrap();
    grab.0.into_inner().unwrap().unwrap()
}

/// The entry `name` of a listing.
#[track_caller]
pub(super) fn entry(dir: &dyn TreeDir, name: &[u8]) -> Entry {
    let listed = dir.list(&Monitor::new()).unwrap();
    listed.into_iter().find(|e| e.node.name == name).expect("entry is listed")
}

/// Offsets and lengths.
pub(super) type Holes = Vec<(u64, u64)>;

/// Reads to the end in pieces of `want`; content and holes.
pub(super) fn read_all(reader: &mut dyn FileReader, want: usize) -> Result<(Vec<u8>, Holes)> {
    let (mut content, mut holes) = (Vec::new(), Vec::new());
    loop {
        let before = content.len();
        match reader.read(&mut content, want)? {
            Read::Data(length) => {
                assert!(length > 0 && length <= want, "{length} of {want}");
                assert_eq!(content.len(), before + length);
            }
            Read::Hole(length) => {
                assert!(length > 0);
                assert_eq!(content.len(), before);
                holes.push((before as u64, length));
                content.resize(before + usize::try_from(length).unwrap(), 0);
            }
            Read::End => {
                assert_eq!(content.len(), before);
                return Ok((content, holes));
            }
        }
    }
}

impl Collected {
    fn keep(&self, path: Vec<u8>, kept: Kept) {
        let old = self.kept.lock().unwrap().insert(path, kept);
        assert!(old.is_none(), "captured twice");
    }

    fn take_entry(&self, path: Vec<u8>, mut entry: Entry, dir: &dyn TreeDir) -> Result<()> {
        dir.describe(&mut entry.node, &self.monitor)?;
        let (mut content, mut steady) = (Vec::new(), None);
        if entry.node.kind == NodeKind::File {
            let mut reader = dir.open_file(&entry, &self.monitor)?;
            content = read_all(&mut *reader, 1 << 20)?.0;
            steady = Some(reader.finish(&mut entry.node)?);
        }
        self.keep(path, Kept { node: entry.node, content, steady, volatile: entry.volatile });
        self.monitor.add(|counters| &counters.files, 1);
        Ok(())
    }
}

fn absent(node: Node) -> Kept {
    Kept { node, content: Vec::new(), steady: None, volatile: false }
}

impl Sink for Collected {
    fn stream(&self, _: StreamSpec) -> Result<Box<dyn StreamWriter>> {
        panic!("a tree has no streams")
    }

    fn tree(&self, path: &[u8], mut node: Node, parents: Vec<Node>, dir: Arc<dyn TreeDir>) -> Result<()> {
        let monitor = &self.monitor;
        let complete = node.clone();
        dir.describe(&mut node, monitor)?;
        assert_eq!(node, complete, "the top is given fully described");
        let components: Vec<&[u8]> = path.split(|&b| b == b'/').collect();
        let names: Vec<&[u8]> = parents.iter().map(|p| &*p.name).collect();
        assert_eq!(names, components[..components.len() - 1], "parents are the components above");
        self.keep(path.to_vec(), absent(node));
        // A stack of its own, for trees deeper than a thread's.
        let mut stack = vec![(path.to_vec(), dir.list(monitor)?.into_iter(), dir)];
        while let Some((path, entries, dir)) = stack.last_mut() {
            let Some(mut entry) = entries.next() else {
                stack.pop();
                continue;
            };
            let below = [path, &b"/"[..], &entry.node.name].concat();
            assert_eq!(dir.path_of(&entry.node.name), [b"/", &*below].concat());
            if entry.node.kind != NodeKind::Dir {
                self.take_entry(below, entry, &**dir)?;
                continue;
            }
            let child = dir.open_dir(&entry)?;
            // A directory may be described by itself or by the one it is in.
            let mut by_parent = entry.node.clone();
            dir.describe(&mut by_parent, monitor)?;
            child.describe(&mut entry.node, monitor)?;
            assert_eq!(by_parent, entry.node);
            let listed = child.list(monitor)?;
            assert!(listed.is_sorted_by(|a, b| a.node.name < b.node.name), "strictly ascending");
            self.keep(below.clone(), absent(entry.node));
            stack.push((below, listed.into_iter(), child));
        }
        Ok(())
    }

    fn entry(&self, path: &[u8], entry: Entry, _: Vec<Node>, dir: Arc<dyn TreeDir>) -> Result<()> {
        self.take_entry(path.to_vec(), entry, &*dir)
    }
}
