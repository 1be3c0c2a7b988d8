//! restic is the judge of our trees, and of every other object: what it wrote, read by us and written again, must come
//! out byte for byte.

use lastgood_model::{Id, NodeKind, PackId, TreeId};
use lastgood_repo::crypto::{MasterKey, Password, Sealer};
use lastgood_repo::format::key_file::decode_master_key;
use lastgood_repo::format::{BlobKind, IndexBlob, pack};
use lastgood_repo::format::{
    ConfigFile, KeyFile, LockFile, SnapshotFile, TreeEncoder, decode_index, decode_tree, encode_index,
};
use lastgood_testkit::restic::Restic;
use lastgood_testkit::tree_fixture;
use rustix::fs::{XattrFlags, lsetxattr};
use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A repository that restic made, opened with nothing but our codecs.
struct Foreign {
    dir: tempfile::TempDir,
    restic: Restic,
    sealer: Sealer,
    blobs: HashMap<Id, (PackId, IndexBlob)>,
}

impl Foreign {
    /// Backs up `source` with restic, in UTC, for restic writes times in the zone it runs in.
    fn backup(source: &Path) -> Self {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let restic = Restic::newest(dir.path().join("repo"), dir.path().join("password"));
        assert!(restic.version().unwrap() >= (0, 17), "older versions of restic escape other characters");
        restic.init().unwrap();
        let output = restic.command().env("TZ", "UTC").arg("backup").arg(source).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let master = open_key(&restic);
        let mut foreign = Self { sealer: Sealer::new(&master).unwrap(), dir, restic, blobs: HashMap::new() };
        foreign.read_indexes();
        foreign
    }

    fn objects(&self, folder: &str) -> Vec<Vec<u8>> {
        let folder = fs_err::read_dir(self.dir.path().join("repo").join(folder)).unwrap();
        let objects: Vec<_> = folder.map(|file| fs_err::read(file.unwrap().path()).unwrap()).collect();
        assert!(!objects.is_empty());
        objects
    }

    /// Unsealed and decompressed objects.
    fn unpacked(&self, folder: &str) -> Vec<Vec<u8>> {
        let unpack = |mut sealed: Vec<u8>| {
            let plain = self.sealer.open_in_place(&mut sealed).unwrap();
            match plain[0] {
                2 => zstd::stream::decode_all(&plain[1..]).unwrap(),
                _ => plain.to_vec(),
            }
        };
        self.objects(folder).into_iter().map(unpack).collect()
    }

    fn read_indexes(&mut self) {
        for json in self.unpacked("index") {
            let mut packs = Vec::new();
            decode_index(&json, |pack, blobs| {
                self.blobs.extend(blobs.iter().map(|blob| (blob.id, (pack, *blob))));
                packs.push((pack, blobs.to_vec()));
                Ok(())
            })
            .unwrap();
            assert_eq!(encode_index(packs.iter().map(|(pack, blobs)| (*pack, &blobs[..]))), json, "index");
        }
    }

    fn pack(&self, id: PackId) -> Vec<u8> {
        fs_err::read(self.dir.path().join("repo/data").join(&id.to_string()[..2]).join(id.to_string())).unwrap()
    }

    fn blob(&self, id: Id) -> Vec<u8> {
        let (pack, blob) = self.blobs[&id];
        let mut sealed = self.pack(pack)[blob.offset as usize..blob.end() as usize].to_vec();
        let plain = self.sealer.open_in_place(&mut sealed).unwrap();
        let plain =
            if blob.uncompressed.is_some() { zstd::stream::decode_all(&*plain).unwrap() } else { plain.to_vec() };
        assert_eq!(plain.len(), blob.plain_length() as usize);
        plain
    }

    fn root(&self) -> TreeId {
        SnapshotFile::decode(&self.unpacked("snapshots")[0]).unwrap().tree
    }

    /// Visits all trees; gives back how many entries of each kind were met.
    fn assert_trees_come_out_as_they_are(&self, root: TreeId) -> BTreeMap<&'static str, usize> {
        let mut met = BTreeMap::new();
        let mut open = vec![root];
        let mut buffer = Vec::new();
        while let Some(id) = open.pop() {
            let json = self.blob(id.0);
            let mut encoder = TreeEncoder::with_buffer(buffer);
            for node in decode_tree(&json).unwrap() {
                encoder.push(&node).unwrap();
                *met.entry(word(node.kind)).or_default() += 1;
                *met.entry("attribute").or_default() += node.xattrs.len();
                open.extend(node.subtree);
            }
            buffer = encoder.finish();
            if buffer != json {
                let (ours, theirs) = first_difference(&buffer, &json);
                panic!("tree {} differs:\n  ours   …{ours}…\n  theirs …{theirs}…", id.short());
            }
        }
        met
    }
}

fn word(kind: NodeKind) -> &'static str {
    match kind {
        NodeKind::File => "file",
        NodeKind::Dir => "dir",
        NodeKind::Symlink => "symlink",
        NodeKind::BlockDevice => "block device",
        NodeKind::CharDevice => "character device",
        NodeKind::Fifo => "fifo",
        NodeKind::Socket => "socket",
    }
}

/// The surroundings of the first byte that differs.
fn first_difference(ours: &[u8], theirs: &[u8]) -> (String, String) {
    let at = ours.iter().zip(theirs).take_while(|(a, b)| a == b).count();
    let around =
        |bytes: &[u8]| String::from_utf8_lossy(&bytes[at.saturating_sub(60)..bytes.len().min(at + 60)]).into_owned();
    (around(ours), around(theirs))
}

/// Opens the one key of a repository.
fn open_key(restic: &Restic) -> MasterKey {
    let password = Password::new(&fs_err::read_to_string(&restic.password_file).unwrap()).unwrap();
    let name = fs_err::read_dir(restic.repository.join("keys")).unwrap().next().unwrap().unwrap();
    let json = fs_err::read(name.path()).unwrap();
    let key = KeyFile::decode(&json).unwrap();
    // Keys carry the local time of their making, so only what follows it can be compared.
    let (again, from) = (key.encode().unwrap(), |json: &[u8]| json.iter().position(|&b| b == b',').unwrap());
    assert_eq!(again[from(&again)..], json[from(&json)..], "key");
    let derived = MasterKey::from_derived(&password.derive(key.cost, &key.salt).unwrap());
    let mut sealed = key.data;
    decode_master_key(Sealer::new(&derived).unwrap().open_in_place(&mut sealed).unwrap()).unwrap()
}

/// Names, link texts and attributes beyond those of the fixture: every ASCII character, every lone byte, and a member of
/// each class of character that is escaped somewhere.
fn add_odd_texts(root: &Path) {
    let dir = root.join("texts");
    fs_err::create_dir(&dir).unwrap();
    let ascii: Vec<u8> = (1..0x80).filter(|&b| b != b'/').collect();
    let html = "<a href=\"x\">&amp;'\\/</a>";
    let classes = "\u{80}\u{9f}\u{a0}\u{ad}é\u{301}\u{378}\u{200b}\u{2028}\u{2029}\u{3000}你\u{d7ff}\u{e000}\u{feff}\u{fffd}\u{ffff}";
    let higher = "𐀀😀\u{e0001}\u{e0100}\u{f0000}\u{10ffff}\u{2ebf0}";
    let bytes: Vec<u8> = (0x80..=0xff).collect();
    let broken = b"\xc3(\xe2\x82(\xf0\x9f\x98(\xed\xa0\x80\xf4\x90\x80\x80\xc0\xaf\xff";
    let texts: [&[u8]; 6] = [&ascii, html.as_bytes(), classes.as_bytes(), higher.as_bytes(), &bytes, broken];
    for (i, text) in texts.iter().enumerate() {
        let target = OsStr::from_bytes(text);
        fs_err::os::unix::fs::symlink(target, dir.join(format!("link-{i}"))).unwrap();
        let name: Vec<u8> = text.iter().copied().filter(|&b| b != b'/').collect();
        fs_err::write(dir.join(OsStr::from_bytes(&[b"name-", &name[..]].concat())), text).unwrap();
        fs_err::create_dir(dir.join(OsStr::from_bytes(&[b"dir-", &name[..]].concat()))).unwrap();
    }
    for byte in (1..=0xff).filter(|&b| b != b'/' && b != b'.') {
        fs_err::write(dir.join(OsStr::from_bytes(&[byte])), [byte]).unwrap();
    }
    let with = dir.join("attributes");
    fs_err::write(&with, "").unwrap();
    for (i, text) in [&ascii[..], html.as_bytes(), classes.as_bytes(), higher.as_bytes()].into_iter().enumerate() {
        let name = [format!("user.{i}-").as_bytes(), text].concat();
        let value: &[u8] = if i == 0 { b"" } else { &bytes };
        lsetxattr(&with, OsStr::from_bytes(&name), value, XattrFlags::empty())
            .expect("this test needs user attributes on the file system of the target folder");
    }
}

#[test]
fn what_restic_wrote_of_an_odd_directory_comes_out_of_our_codecs_byte_for_byte() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let root = dir.path().join("tree");
    let options = tree_fixture::Options { small_files: 60, large_bytes: 3 << 20, ..Default::default() };
    tree_fixture::build(&root, &options).unwrap();
    add_odd_texts(&root);
    let foreign = Foreign::backup(&root);
    // Opened by nobody's leave, and still the same bytes that restic itself shows.
    let root = foreign.root();
    assert_eq!(foreign.blob(root.0), foreign.restic.cat(&["blob", &root.to_string()]).unwrap());

    let met = foreign.assert_trees_come_out_as_they_are(root);
    // restic passes over sockets when it makes a backup.
    let mut kinds = vec!["file", "dir", "symlink", "fifo", "attribute"];
    if rustix::process::geteuid().is_root() {
        kinds.extend(["block device", "character device"]);
    }
    for kind in kinds {
        assert!(met.get(kind).is_some_and(|&count| count > 0), "no {kind} among {met:?}");
    }

    let config = foreign.restic.repository.join("config");
    let mut config = fs_err::read(config).unwrap();
    let config = foreign.sealer.open_in_place(&mut config).unwrap();
    assert_eq!(ConfigFile::decode(config).unwrap().encode(), config, "config");
    for json in foreign.unpacked("snapshots") {
        assert_eq!(SnapshotFile::decode(&json).unwrap().encode().unwrap(), json, "snapshot");
    }
}

#[test]
fn the_headers_of_restics_packs_come_out_byte_for_byte_and_account_for_every_byte() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut noise = lastgood_testkit::rng::Rng::new(7);
    for i in 0..40 {
        fs_err::write(dir.path().join(format!("noise-{i}")), noise.bytes(200_000)).unwrap();
        fs_err::write(dir.path().join(format!("text-{i}")), noise.text(20_000)).unwrap();
    }
    let foreign = Foreign::backup(dir.path());
    let mut by_pack: HashMap<PackId, Vec<IndexBlob>> = HashMap::new();
    for (pack, blob) in foreign.blobs.values() {
        by_pack.entry(*pack).or_default().push(*blob);
    }
    let mut kinds = BTreeMap::new();
    for (id, mut blobs) in by_pack {
        let bytes = foreign.pack(id);
        pack::check_layout(&mut blobs, bytes.len() as u64).unwrap();
        let (offset, length) = pack::locate_header(bytes.len() as u64, *bytes.last_chunk().unwrap()).unwrap();
        let mut sealed = bytes[offset as usize..][..length as usize].to_vec();
        let header = foreign.sealer.open_in_place(&mut sealed).unwrap();
        assert_eq!(pack::parse_header(header, bytes.len() as u64).unwrap(), blobs);
        assert_eq!(pack::encode_header(&blobs).unwrap(), header);
        assert_eq!(pack::trailer(length as usize).unwrap(), bytes[bytes.len() - 4..]);
        for blob in blobs {
            *kinds.entry((blob.kind, blob.uncompressed.is_some())).or_insert(0) += 1;
        }
    }
    // restic compresses all, also what does not get smaller.
    assert!(kinds.contains_key(&(BlobKind::Data, true)) && kinds.contains_key(&(BlobKind::Tree, true)), "{kinds:?}");
}

#[test]
fn restics_locks_are_understood() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let foreign = Foreign::backup(dir.path());
    // A backup from standard input holds its lock until that ends.
    let mut command = foreign.restic.command();
    command.args(["backup", "--stdin"]).stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::null());
    let mut child = command.env("TZ", "UTC").spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    // More than a pipe holds: once it is written, restic has begun to read and thus has its lock.
    input.write_all(&vec![b'x'; 1 << 20]).unwrap();
    let json = foreign.unpacked("locks").remove(0);
    let lock = LockFile::decode(&json).unwrap();
    let pid = child.id();
    drop(input);
    assert!(child.wait().unwrap().success());
    assert_eq!((lock.pid, lock.exclusive), (i64::from(pid), false));
    assert_eq!(lock.uid, rustix::process::getuid().as_raw());
    assert_eq!(lock.encode().unwrap(), json, "lock");
}

/// Proves the table of printable characters: every character there is, sixty to a name.
#[test]
fn restic_quotes_every_character_as_we_do() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let characters: Vec<char> = ('\u{1}'..=char::MAX).filter(|&c| c != '/').collect();
    assert_eq!(characters.len(), 0x11_0000 - 0x800 - 2);
    for (i, group) in characters.chunks(60).enumerate() {
        // The number in front keeps names apart that differ in characters alone, and from `.` and `..`.
        let name = format!("{i:05}{}", group.iter().collect::<String>());
        fs_err::write(dir.path().join(name), "").unwrap();
    }
    let foreign = Foreign::backup(dir.path());
    let met = foreign.assert_trees_come_out_as_they_are(foreign.root());
    assert_eq!(met["file"], characters.len().div_ceil(60));
}
