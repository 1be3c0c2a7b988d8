//! One source's folder in one recovery point, read from the repository for a restore into a server.

use crate::snapshots::content_of;
use lastgood_model::node::display_path;
use lastgood_model::saved::{SavedFiles, SavedReader};
use lastgood_model::{BlobId, Error, ErrorKind, Monitor, Node, NodeKind, Result, TreeId};
use lastgood_repo::{BlobReader, Fetch, FetchRequest};
use std::sync::{Arc, Mutex, PoisonError};

/// So much plaintext of a file is read ahead at once; one blob is taken whatever its length.
const WINDOW_BYTES: u64 = 4 << 20;

/// A directory by its path, with its entries.
type Dir = (Vec<u8>, Arc<Vec<Node>>);

/// The folder of one source.
#[derive(Debug)]
pub struct SourceFolder {
    reader: Arc<BlobReader>,
    monitor: Arc<Monitor>,
    top: TreeId,
    /// The directory looked into last: files are asked for directory by directory.
    last: Mutex<Option<Dir>>,
}

impl SourceFolder {
    /// The folder whose content is the tree `top`. Reading stops when a stop is asked for of `monitor`.
    pub fn new(reader: Arc<BlobReader>, top: TreeId, monitor: Arc<Monitor>) -> Self {
        Self { reader, monitor, top, last: Mutex::default() }
    }

    fn dir(&self, path: &[u8]) -> Result<Arc<Vec<Node>>> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, nodes)) = &*last
            && known == path
        {
            return Ok(nodes.clone());
        }
        let mut nodes = self.reader.tree(self.top)?;
        for name in path.split(|b| *b == b'/').filter(|name| !name.is_empty()) {
            let below = nodes.iter().find(|node| node.name == name).and_then(|node| node.subtree);
            nodes = self.reader.tree(below.ok_or_else(|| absent(path))?)?;
        }
        let nodes = Arc::new(nodes);
        *last = Some((path.to_vec(), nodes.clone()));
        Ok(nodes)
    }
}

impl SavedFiles for SourceFolder {
    fn list(&self, path: &[u8]) -> Result<Vec<Node>> {
        Ok(self.dir(path)?.to_vec())
    }

    fn open(&self, path: &[u8]) -> Result<Box<dyn SavedReader + '_>> {
        let (dir, name) = match path.iter().rposition(|b| *b == b'/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (&b""[..], path),
        };
        let nodes = self.dir(dir)?;
        let node = nodes.iter().find(|node| node.name == name && node.kind == NodeKind::File);
        let content = content_of(node.ok_or_else(|| absent(path))?).to_vec();
        Ok(Box::new(FileContent { folder: self, content, next: 0 }))
    }
}

fn absent(path: &[u8]) -> Error {
    Error::new(ErrorKind::Absent, format!("there is no {:?} in the recovery point", display_path(path)))
}

/// A file being read, a window of blobs at a time: those of one window lie near each other in few packs.
struct FileContent<'a> {
    folder: &'a SourceFolder,
    content: Vec<BlobId>,
    next: usize,
}

impl SavedReader for FileContent<'_> {
    fn read(&mut self, out: &mut Vec<u8>) -> Result<bool> {
        self.folder.monitor.check_cancelled()?;
        let mut bytes = 0;
        let window: Vec<FetchRequest> = self.content[self.next..]
            .iter()
            .zip(0..)
            .take_while(|(id, place)| {
                let length = self.folder.reader.locate(**id).map_or(0, |l| u64::from(l.plain_length()));
                bytes += length;
                *place == 0 || bytes <= WINDOW_BYTES
            })
            .map(|(id, place)| FetchRequest { blob: (*id).into(), place })
            .collect();
        if window.is_empty() {
            return Ok(false);
        }
        self.next += window.len();
        let count = window.len();
        let pieces: Mutex<Vec<Vec<u8>>> = Mutex::new(vec![Vec::new(); count]);
        let failed: Mutex<Option<Error>> = Mutex::default();
        let note = |_: FetchRequest, error: Error| {
            failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        };
        Fetch::plan(&self.folder.reader, window, note).run(
            1,
            &self.folder.monitor,
            |place, plain| {
                pieces.lock().unwrap_or_else(PoisonError::into_inner)[place as usize] = plain.to_vec();
                Ok(())
            },
            note,
        )?;
        if let Some(error) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
        pieces
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .for_each(|piece| out.extend_from_slice(piece));
        Ok(true)
    }
}
