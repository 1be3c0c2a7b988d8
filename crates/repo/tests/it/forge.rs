//! Objects that nobody honest would write, sealed with the repository's own key: what a faulty writer, or somebody who
//! holds the key, could leave behind. Shared with the tests of other crates.
#![allow(dead_code, reason = "each test binary that includes this uses its part of it")]

use lastgood_model::store::{ObjectKind, Store, StoreKey};
use lastgood_model::{Id, Node, NodeKind, PackId, SnapshotId, Time, TreeId};
use lastgood_repo::crypto::{MasterKey, Password, Sealer};
use lastgood_repo::format::key_file::decode_master_key;
use lastgood_repo::format::pack::{encode_header, trailer};
use lastgood_repo::format::{BlobKind, IndexBlob, KeyFile, LockFile, TreeEncoder, encode_index};
use lastgood_repo::sha256::sha256;
use std::num::NonZeroU32;
use std::sync::Arc;

/// Writes objects of any content into a repository.
pub(crate) struct Forge {
    store: Arc<dyn Store>,
    pub(crate) sealer: Sealer,
}

impl Forge {
    /// A forge for the repository in `store`, whose one key opens with `password`.
    pub(crate) fn new(store: Arc<dyn Store>, password: &Password) -> Self {
        let (id, _) = store.list(ObjectKind::Key).unwrap()[0];
        let key = KeyFile::decode(&store.get(&StoreKey::new(ObjectKind::Key, id)).unwrap()).unwrap();
        let derived = MasterKey::from_derived(&password.derive(key.cost, &key.salt).unwrap());
        let mut sealed = key.data;
        let master = decode_master_key(Sealer::new(&derived).unwrap().open_in_place(&mut sealed).unwrap()).unwrap();
        Self { store, sealer: Sealer::new(&master).unwrap() }
    }

    /// An object of these bytes.
    pub(crate) fn put(&self, kind: ObjectKind, bytes: &[u8]) -> StoreKey {
        let key = StoreKey::new(kind, Id(sha256(bytes)));
        self.store.put(&key, &[bytes]).unwrap();
        key
    }

    /// An index, snapshot or lock of these bytes, sealed.
    pub(crate) fn put_sealed(&self, kind: ObjectKind, plain: &[u8]) -> StoreKey {
        self.put(kind, &self.sealer.seal(plain).unwrap())
    }

    /// A lock.
    pub(crate) fn lock(&self, lock: &LockFile) -> StoreKey {
        self.put_sealed(ObjectKind::Lock, &lock.encode().unwrap())
    }

    /// A pack of blobs given by kind, claimed id, stored content and, when it is compressed, claimed length.
    pub(crate) fn pack(&self, blobs: &[(BlobKind, Id, &[u8], u32)]) -> (PackId, Vec<IndexBlob>) {
        let (mut bytes, mut entries) = (Vec::new(), Vec::new());
        for (kind, id, content, claimed) in blobs {
            let sealed = self.sealer.seal(content).unwrap();
            let (offset, length) = (bytes.len() as u32, sealed.len() as u32);
            entries.push(IndexBlob { id: *id, kind: *kind, offset, length, uncompressed: NonZeroU32::new(*claimed) });
            bytes.extend(sealed);
        }
        let header = self.sealer.seal(&encode_header(&entries).unwrap()).unwrap();
        bytes.extend_from_slice(&header);
        bytes.extend_from_slice(&trailer(header.len()).unwrap());
        (PackId(self.put(ObjectKind::Pack, &bytes).id), entries)
    }

    /// An index file that tells this of packs.
    pub(crate) fn index(&self, packs: &[(PackId, Vec<IndexBlob>)]) -> StoreKey {
        self.put_sealed(ObjectKind::Index, &encode_index(packs.iter().map(|(id, blobs)| (*id, &blobs[..]))))
    }

    /// Packs and indexes data as it is, one pack for all, and returns its ids.
    pub(crate) fn data(&self, contents: &[&[u8]]) -> Vec<Id> {
        let ids: Vec<Id> = contents.iter().map(|content| Id(sha256(content))).collect();
        let blobs: Vec<_> = ids.iter().zip(contents).map(|(id, c)| (BlobKind::Data, *id, *c, 0)).collect();
        self.index(&[self.pack(&blobs)]);
        ids
    }

    /// Packs and indexes a tree of this JSON.
    pub(crate) fn tree_json(&self, json: &[u8]) -> TreeId {
        let id = Id(sha256(json));
        self.index(&[self.pack(&[(BlobKind::Tree, id, json, 0)])]);
        TreeId(id)
    }

    /// Packs and indexes a tree.
    pub(crate) fn tree(&self, nodes: &[Node]) -> TreeId {
        self.tree_json(&tree_of(nodes))
    }

    /// Packs and indexes many trees in one pack.
    pub(crate) fn trees(&self, trees: &[Vec<u8>]) {
        let blobs: Vec<_> = trees.iter().map(|json| (BlobKind::Tree, Id(sha256(json)), &json[..], 0)).collect();
        self.index(&[self.pack(&blobs)]);
    }

    /// A snapshot of a tree, newer than all that tests make otherwise.
    pub(crate) fn snapshot(&self, tree: TreeId) -> SnapshotId {
        let json = format!(r#"{{"time":"2095-01-02T03:04:05Z","tree":"{tree}","paths":[]}}"#);
        SnapshotId(self.put_sealed(ObjectKind::Snapshot, json.as_bytes()).id)
    }
}

/// A file's node.
pub(crate) fn file(name: &str, size: u64, content: &[Id]) -> Node {
    let mut node = Node::new(name, NodeKind::File);
    (node.size, node.mode, node.mtime) = (size, 0o644, Time::new(1, 0));
    node.content = Some(content.iter().map(|id| (*id).into()).collect());
    node
}

/// A directory's node.
pub(crate) fn dir(name: &str, subtree: TreeId) -> Node {
    let mut node = Node::new(name, NodeKind::Dir);
    (node.mode, node.mtime, node.subtree) = (0o755, Time::new(1, 0), Some(subtree));
    node
}

/// A symbolic link's node.
pub(crate) fn link(name: &str, target: &str) -> Node {
    let mut node = Node::new(name, NodeKind::Symlink);
    (node.mode, node.mtime, node.link_target) = (0o777, Time::new(1, 0), target.into());
    node
}

/// The JSON of a tree.
pub(crate) fn tree_of(nodes: &[Node]) -> Vec<u8> {
    let mut encoder = TreeEncoder::new();
    nodes.iter().for_each(|node| encoder.push(node).unwrap());
    encoder.finish()
}
