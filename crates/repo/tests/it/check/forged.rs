//! Objects that are sealed as they should be and still wrong: what a faulty writer or a holder of the key could leave.

use super::{Fixture, about};
use lastgood_model::store::{ObjectKind, Store, StoreKey};
use lastgood_model::{Id, Node, NodeKind, PackId, SnapshotId, Time, TreeId};
use lastgood_repo::check::DamageKind;
use lastgood_repo::crypto::{MasterKey, Sealer};
use lastgood_repo::format::key_file::decode_master_key;
use lastgood_repo::format::pack::{encode_header, trailer};
use lastgood_repo::format::{BlobKind, IndexBlob, KeyFile, SnapshotFile, TreeEncoder, encode_index};
use lastgood_repo::sha256::sha256;
use std::num::NonZeroU32;

/// Writes objects of any content into a repository.
struct Forge<'a> {
    fixture: &'a mut Fixture,
    sealer: Sealer,
}

impl<'a> Forge<'a> {
    fn new(fixture: &'a mut Fixture) -> Self {
        let key = fixture.store.get(&fixture.keys_of(ObjectKind::Key)[0]).unwrap();
        let key = KeyFile::decode(&key).unwrap();
        let derived = MasterKey::from_derived(&fixture.password.derive(key.cost, &key.salt).unwrap());
        let mut sealed = key.data;
        let master = decode_master_key(Sealer::new(&derived).unwrap().open_in_place(&mut sealed).unwrap()).unwrap();
        Self { fixture, sealer: Sealer::new(&master).unwrap() }
    }

    fn put(&self, kind: ObjectKind, bytes: &[u8]) -> StoreKey {
        let key = StoreKey::new(kind, Id(sha256(bytes)));
        self.fixture.store.put(&key, &[bytes]).unwrap();
        key
    }

    /// An index, snapshot or lock, uncompressed.
    fn put_json(&self, kind: ObjectKind, json: &[u8]) -> StoreKey {
        self.put(kind, &self.sealer.seal(json).unwrap())
    }

    /// A pack of blobs given by kind, claimed id, stored plaintext and claimed length when compressed.
    fn pack(&self, blobs: &[(BlobKind, Id, &[u8], u32)]) -> (PackId, Vec<IndexBlob>) {
        let (mut bytes, mut entries) = (Vec::new(), Vec::new());
        for (kind, id, content, claimed) in blobs {
            let sealed = self.sealer.seal(content).unwrap();
            entries.push(IndexBlob {
                id: *id,
                kind: *kind,
                offset: bytes.len() as u32,
                length: sealed.len() as u32,
                uncompressed: NonZeroU32::new(*claimed),
            });
            bytes.extend(sealed);
        }
        let header = self.sealer.seal(&encode_header(&entries).unwrap()).unwrap();
        bytes.extend_from_slice(&header);
        bytes.extend_from_slice(&trailer(header.len()).unwrap());
        (PackId(self.put(ObjectKind::Pack, &bytes).id), entries)
    }

    fn index(&self, packs: &[(PackId, Vec<IndexBlob>)]) -> StoreKey {
        self.put_json(ObjectKind::Index, &encode_index(packs.iter().map(|(id, blobs)| (*id, &blobs[..]))))
    }

    /// Packs and indexes a tree.
    fn tree(&self, json: &[u8]) -> TreeId {
        let id = Id(sha256(json));
        self.index(&[self.pack(&[(BlobKind::Tree, id, json, 0)])]);
        TreeId(id)
    }

    fn snapshot(&mut self, tree: TreeId) -> SnapshotId {
        let json = format!(r#"{{"time":"2030-01-02T03:04:05Z","tree":"{tree}","paths":[]}}"#);
        assert!(SnapshotFile::decode(json.as_bytes()).is_ok());
        let id = SnapshotId(self.put_json(ObjectKind::Snapshot, json.as_bytes()).id);
        self.fixture.snapshots.push(id);
        id
    }
}

fn file(name: &str, size: u64, content: &[Id]) -> Node {
    let mut node = Node::new(name, NodeKind::File);
    node.size = size;
    node.mtime = Time::new(1, 0);
    node.content = Some(content.iter().map(|id| (*id).into()).collect());
    node
}

fn tree_of(nodes: &[Node]) -> Vec<u8> {
    let mut encoder = TreeEncoder::new();
    nodes.iter().for_each(|node| encoder.push(node).unwrap());
    encoder.finish()
}

#[test]
fn a_directory_that_is_none_is_damage_when_a_snapshot_needs_it_and_a_note_otherwise() {
    let good = String::from_utf8(tree_of(&[file("a", 0, &[]), file("b", 0, &[])])).unwrap();
    let cases = [
        good.replace(r#""name":"b""#, r#""name":"a""#),
        good.replace(r#""name":"a""#, r#""name":"c""#),
        good.replace(r#""name":"a""#, r#""name":"..""#),
        good.replace(r#""content":[]"#, r#""content":null"#),
        good.replace("]}\n", ""),
        "{}".to_owned(),
        "[]".to_owned(),
        "\u{0}".to_owned(),
    ];
    for text in cases {
        let mut fixture = Fixture::two();
        let mut forge = Forge::new(&mut fixture);
        let tree = forge.tree(text.as_bytes());
        let report = forge.fixture.verify();
        assert!(report.is_sound(), "{text}: {:#?}", report.damage);
        assert!(report.notes.iter().any(|n| n.contains("no snapshot needs")), "{text}: {:?}", report.notes);
        let snapshot = forge.snapshot(tree);
        for damage in [fixture.check().damage, fixture.verify().damage] {
            assert_eq!(damage.len(), 1, "{text}: {damage:#?}");
            let found = about(&damage, &format!("tree blob {tree}"));
            assert_eq!((found.what, &*found.snapshots), (DamageKind::BadTree, &[snapshot][..]), "{text}");
        }
    }
}

#[test]
fn a_reference_to_nothing_is_damage_only_when_a_snapshot_has_it() {
    let mut fixture = Fixture::two();
    let mut forge = Forge::new(&mut fixture);
    let nowhere = Id([7; 32]);
    let mut dir = Node::new("dir", NodeKind::Dir);
    dir.subtree = Some(TreeId(nowhere));
    let tree = forge.tree(&tree_of(&[dir, file("file", 5, &[nowhere])]));
    // As after old snapshots were forgotten and pruned: what is left over may refer to what is gone.
    let report = forge.fixture.check();
    assert!(report.is_sound() && report.notes.is_empty(), "{report:#?}");
    let snapshot = forge.snapshot(tree);
    let report = forge.fixture.check();
    assert_eq!(report.damage_total, 2);
    for (object, path) in [("data", "/file"), ("tree", "/dir")] {
        let found = about(&report.damage, &format!("{object} blob {nowhere}"));
        assert_eq!((found.what, &*found.snapshots), (DamageKind::MissingBlob, &[snapshot][..]));
        assert_eq!(found.paths, [path]);
    }
    // A snapshot of a directory that is not there at all.
    let lost = forge.snapshot(TreeId(Id([8; 32])));
    let report = forge.fixture.check();
    let found = about(&report.damage, &format!("tree blob {}", Id([8; 32])));
    assert_eq!((&*found.snapshots, &found.paths[..]), (&[lost][..], &["/".to_owned()][..]));
    // They are of the same time.
    assert_eq!(report.snapshots_affected, [snapshot.min(lost), snapshot.max(lost)]);
}

#[test]
fn a_blob_of_the_other_kind_does_not_count() {
    let mut fixture = Fixture::two();
    let mut forge = Forge::new(&mut fixture);
    let empty = tree_of(&[]);
    let as_data = Id(sha256(&empty));
    forge.tree(&empty);
    let tree = forge.tree(&tree_of(&[file("file", empty.len() as u64, &[as_data])]));
    forge.snapshot(tree);
    let report = forge.fixture.check();
    assert_eq!(about(&report.damage, &format!("data blob {as_data}")).what, DamageKind::MissingBlob);
}

#[test]
fn a_blob_that_opens_to_something_else_is_damage() {
    let mut fixture = Fixture::two();
    let mut forge = Forge::new(&mut fixture);
    let good = b"what it should be".to_vec();
    let id = Id(sha256(&good));
    let frame = zstd::bulk::compress(&good, 1).unwrap();
    let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 1).unwrap();
    let cases: [(&str, &[u8], u32); 7] = [
        ("another content", b"what it shouldn't", 0),
        ("no frame", b"what it should be", 17),
        ("a longer length", &frame, 18),
        ("a shorter length", &frame, 16),
        ("more than any blob", &frame, u32::MAX),
        ("a bomb", &bomb, 17),
        ("nothing", b"", 17),
    ];
    for (what, content, claimed) in cases {
        let (pack, blobs) = forge.pack(&[(BlobKind::Data, id, content, claimed)]);
        let index = forge.index(&[(pack, blobs)]);
        let tree = forge.tree(&tree_of(&[file("file", 17, &[id])]));
        let snapshot = forge.snapshot(tree);
        let report = forge.fixture.verify();
        let found = about(&report.damage, &StoreKey::new(ObjectKind::Pack, pack).path());
        assert_eq!((found.what, &*found.snapshots), (DamageKind::BadContent, &[snapshot][..]), "{what}: {found:#?}");
        assert_eq!(found.paths, ["/file"], "{what}");
        for key in [index, StoreKey::new(ObjectKind::Pack, pack), StoreKey::new(ObjectKind::Snapshot, snapshot)] {
            forge.fixture.store.remove(&key).unwrap();
        }
        forge.fixture.snapshots.pop();
    }
    assert!(forge.fixture.verify().is_sound());
}

#[test]
fn an_index_that_tells_other_things_than_the_pack_is_damage() {
    let mut fixture = Fixture::two();
    let forge = Forge::new(&mut fixture);
    let (one, two) = (b"first".to_vec(), b"second".to_vec());
    let (pack, blobs) =
        forge.pack(&[(BlobKind::Data, Id(sha256(&one)), &one, 0), (BlobKind::Data, Id(sha256(&two)), &two, 0)]);
    let key = StoreKey::new(ObjectKind::Pack, pack);
    let swapped = vec![IndexBlob { id: blobs[1].id, ..blobs[0] }, IndexBlob { id: blobs[0].id, ..blobs[1] }];
    let other_kind = vec![IndexBlob { kind: BlobKind::Tree, ..blobs[0] }, blobs[1]];
    let gap = vec![blobs[0], IndexBlob { offset: blobs[1].offset + 1, ..blobs[1] }];
    let overlap = vec![blobs[0], IndexBlob { offset: blobs[1].offset - 1, ..blobs[1] }];
    let partial = vec![blobs[0]];
    for (what, told) in
        [("swapped", swapped), ("kind", other_kind), ("gap", gap), ("overlap", overlap), ("partial", partial)]
    {
        let index = forge.index(&[(pack, told)]);
        let report = forge.fixture.verify();
        let found: Vec<String> = report.damage.iter().map(|d| d.object.to_string()).collect();
        assert!(found.contains(&key.path()) || found.contains(&index.path()), "{what}: {found:?}");
        assert!(report.snapshots_affected.is_empty(), "{what}");
        forge.fixture.store.remove(&index).unwrap();
    }
    // The same pack twice with the same blobs is as good as once; twice with others is damage.
    let index = forge.index(&[(pack, blobs.clone()), (pack, blobs.clone())]);
    assert!(forge.fixture.verify().is_sound());
    let other = forge.index(&[(pack, vec![blobs[1], IndexBlob { id: Id([1; 32]), ..blobs[0] }])]);
    let report = forge.fixture.check();
    assert!(report.damage.iter().any(|d| d.what == DamageKind::IndexMismatch), "{:#?}", report.damage);
    forge.fixture.store.remove(&index).unwrap();
    forge.fixture.store.remove(&other).unwrap();
}

#[test]
fn a_blob_in_several_packs_is_lost_only_when_it_is_damaged_in_all_of_them() {
    let mut fixture = Fixture::two();
    let mut forge = Forge::new(&mut fixture);
    let content = b"kept twice".to_vec();
    let id = Id(sha256(&content));
    let keepers: Vec<StoreKey> = (0..2)
        .map(|_| {
            let (pack, blobs) = forge.pack(&[(BlobKind::Data, id, &content, 0)]);
            forge.index(&[(pack, blobs)]);
            StoreKey::new(ObjectKind::Pack, pack)
        })
        .collect();
    let tree = forge.tree(&tree_of(&[file("file", content.len() as u64, &[id])]));
    let snapshot = forge.snapshot(tree);
    assert!(forge.fixture.verify().is_sound());
    let blob = || forge.fixture.repository.reader().unwrap().data(lastgood_model::BlobId(id));
    for key in &keepers {
        let whole = forge.fixture.store.get(key).unwrap();
        forge.fixture.flip(key, 3);
        let report = forge.fixture.verify();
        assert!(about(&report.damage, &key.path()).snapshots.is_empty());
        assert_eq!(blob().unwrap(), content);
        forge.fixture.mend(key, &whole);
    }
    keepers.iter().for_each(|key| forge.fixture.flip(key, 3));
    let report = forge.fixture.verify();
    let spoilt: Vec<_> = keepers.iter().map(|key| about(&report.damage, &key.path()).snapshots.to_vec()).collect();
    assert!(spoilt.contains(&vec![snapshot]), "{spoilt:?}");
    assert!(blob().is_err());
}

#[test]
fn sizes_that_do_not_add_up_are_a_note() {
    let mut fixture = Fixture::two();
    let mut forge = Forge::new(&mut fixture);
    let tree = forge.tree(&tree_of(&[file("grown", 12, &[])]));
    forge.snapshot(tree);
    let report = fixture.check();
    assert!(report.is_sound());
    assert!(report.notes.iter().any(|n| n.contains("\"grown\" of 12 with 0")), "{:?}", report.notes);
}

#[test]
fn small_objects_of_wrong_content_are_damage() {
    let mut fixture = Fixture::two();
    let forge = Forge::new(&mut fixture);
    for (kind, text) in [
        (ObjectKind::Snapshot, "{}"),
        (ObjectKind::Snapshot, "\u{2}no frame"),
        (ObjectKind::Snapshot, "\u{7}"),
        (ObjectKind::Index, r#"{"packs":[{"id":"x"}]}"#),
        (ObjectKind::Index, r#"{"packs":[{}"#),
        (ObjectKind::Index, ""),
    ] {
        let key = forge.put_json(kind, text.as_bytes());
        let report = forge.fixture.check();
        assert_eq!(about(&report.damage, &key.path()).what, DamageKind::BadContent, "{text:?}");
        assert_eq!(report.damage_total, 1);
        forge.fixture.store.remove(&key).unwrap();
    }
    let key = forge.put(ObjectKind::Key, b"{}");
    assert_eq!(about(&forge.fixture.check().damage, &key.path()).what, DamageKind::BadContent);
    let key = forge.put(ObjectKind::Snapshot, b"not even sealed, but of some length");
    assert_eq!(about(&forge.fixture.check().damage, &key.path()).what, DamageKind::WrongTag);
}
