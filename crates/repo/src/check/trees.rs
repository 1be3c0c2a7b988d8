//! What a directory refers to.
//!
//! Trees are read pack by pack, in the order in which they lie, and not from the snapshots downwards: that reads each
//! once, in large pieces, and needs no memory for what was visited. When every tree there is opens, and all it refers to
//! is in the index, then so does and is all that any snapshot reaches. Only when something is amiss are the snapshots
//! walked, to tell what it means and whether it matters at all.

use super::faults::{Faults, place};
use super::findings::lock;
use super::run::Run;
use crate::format::{IndexBlob, TreeReader};
use crate::index::Index;
use lastgood_model::{ErrorKind, Node, TreeId};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Examples told in a note.
const EXAMPLES_MAX: usize = 5;

/// What was seen in all trees.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Trees opened and read.
    pub(super) trees: AtomicU64,
    other_size: Tally,
    unknown: Tally,
}

/// How many, and a few of them.
#[derive(Debug, Default)]
struct Tally {
    count: AtomicU64,
    examples: Mutex<Vec<String>>,
}

impl Tally {
    fn add(&self, example: impl FnOnce() -> String) {
        self.count.fetch_add(1, Relaxed);
        let mut examples = lock(&self.examples);
        if examples.len() < EXAMPLES_MAX {
            examples.push(example());
        }
    }

    fn tell(&self, what: &str) -> Option<String> {
        let count = self.count.load(Relaxed);
        (count > 0).then(|| format!("{count} {what}, such as {}", lock(&self.examples).join(", ")))
    }
}

impl Seen {
    /// Looks at one tree: is it valid, and is all it refers to in the index.
    pub(super) fn look_at(&self, ordinal: u32, blob: &IndexBlob, json: &[u8], index: &Index, faults: &Faults) {
        self.trees.fetch_add(1, Relaxed);
        let bad = |why: String| faults.bad_tree(place(ordinal, blob.offset), TreeId(blob.id), why);
        let reader = match TreeReader::strict(json) {
            Ok(reader) => reader,
            Err(error) => return bad(error.chain()),
        };
        for node in reader {
            match node {
                Ok(node) => self.look_at_node(&node, index, faults),
                Err(error) if error.kind() == ErrorKind::Unsupported => self.unknown.add(|| error.chain()),
                Err(error) => bad(error.chain()),
            }
        }
    }

    fn look_at_node(&self, node: &Node, index: &Index, faults: &Faults) {
        if node.subtree.is_some_and(|id| index.find(id).is_none()) {
            faults.dangle();
        }
        let Some(content) = &node.content else { return };
        let mut length = 0u64;
        let mut whole = true;
        for id in content {
            match index.find(*id) {
                Some(location) => length += u64::from(location.plain_length()),
                None => whole = false,
            }
        }
        if !whole {
            faults.dangle();
        } else if length != node.size {
            self.other_size.add(|| format!("{:?} of {} with {length}", node.display_name(), node.size));
        }
    }

    pub(super) fn tell(&self, run: &Run<'_>) {
        let told = [
            self.other_size
                .tell("files have another size than their content (they may have changed while they were read)"),
            self.unknown.tell("entries are of a kind unknown to this version and would not be restored"),
        ];
        told.into_iter().flatten().for_each(|text| run.note(text));
    }
}
