use super::*;
use crate::format::TreeEncoder;
use lastgood_model::Id;
use proptest::prelude::*;

const TIMES: &str = r#""mtime":"2023-11-14T22:13:20Z","atime":"2023-11-14T22:13:20Z","ctime":"2023-11-14T22:13:20Z""#;

fn tree(nodes: &[&str]) -> String {
    format!("{{\"nodes\":[{}]}}\n", nodes.join(","))
}

fn file(name: &str) -> String {
    format!(r#"{{"name":"{name}","type":"file",{TIMES},"uid":0,"gid":0,"content":[]}}"#)
}

/// What a reader yields, as names or the kind of error.
fn read(reader: Result<TreeReader<'_>>) -> Vec<Result<String, ErrorKind>> {
    match reader {
        Ok(reader) => reader.map(|n| n.map(|n| n.display_name()).map_err(|e| e.kind())).collect(),
        Err(error) => vec![Err(error.kind())],
    }
}

fn read_strict(json: &str) -> Vec<Result<String, ErrorKind>> {
    read(TreeReader::strict(json.as_bytes()))
}

#[test]
fn other_key_orders_spacing_and_unknown_keys_are_read() {
    let id = "0f".repeat(32);
    let json = format!(
        r#" {{ "before":[{{"x":[]}}], "nodes" : [
            {{ "content" : [ "{id}" , "{id}" ], "generic_attributes":{{"windows.creation_time":"AA=="}}, "size":7, "user":null,
               "extended_attributes":[{{"value":"AP8=","new":1,"name":"user.x"}},{{"name":"user.y","value":null}}],
               "mtime":"2023-11-14T23:13:20.5+01:00", "error":"x", "mode":12583296, "n\u0061me":"caf\u00e9", "type":"file" }},
            {{"name":"d","type":"dir","subtree":"{id}","content":null,"mode":2147484141}},
            {{"name":"l","type":"symlink","linktarget_raw":"/w==","linktarget":"\ufffd","links":2}}
        ], "after":null }} "#
    );
    let nodes = decode_tree(json.as_bytes()).unwrap();
    assert_eq!(nodes.len(), 3);
    let id = Id([0x0f; 32]);
    assert_eq!((&nodes[0].name[..], nodes[0].mode, nodes[0].size), ("café".as_bytes(), 0o6600, 7));
    assert_eq!(nodes[0].mtime, Time::new(1_700_000_000, 500_000_000));
    assert_eq!(nodes[0].content, Some(vec![BlobId(id), BlobId(id)]));
    assert_eq!(nodes[0].xattrs[0], Xattr { name: "user.x".into(), value: vec![0, 255] });
    assert_eq!(nodes[0].xattrs[1], Xattr { name: "user.y".into(), value: vec![] });
    assert_eq!((nodes[1].kind, nodes[1].mode, nodes[1].subtree), (NodeKind::Dir, 0o755, Some(TreeId(id))));
    assert_eq!((&nodes[2].link_target[..], nodes[2].links), (&b"\xff"[..], 2));
    assert_eq!(decode_tree(br#"{"nodes":null,"x":1}"#).unwrap(), []);
    assert_eq!(decode_tree(br#"{"nodes":[]}"#).unwrap(), []);
}

#[test]
fn names_that_could_leave_their_directory_are_damage_and_cost_only_their_entry() {
    for bad in ["", ".", "..", "a/b", "/", r"a\\x2fb", r"a\\000", r"\\x2e.", r"a\u0000", r"a\\q", r#"a\"b"#, r"a\nb"] {
        let json = tree(&[&file("a"), &file(bad), &file("z")]);
        let want = [Ok("a".to_owned()), Err(ErrorKind::Corrupt), Ok("z".to_owned())];
        assert_eq!(read_strict(&json), want, "{bad}");
        assert_eq!(read(TreeReader::lenient(json.as_bytes())), want, "{bad}");
    }
}

#[test]
fn order_is_judged_by_the_bytes_of_names_and_only_when_strict() {
    let names = |names: &[&str]| {
        tree(&names.iter().map(|n| file(n)).collect::<Vec<_>>().iter().map(|f| &f[..]).collect::<Vec<_>>())
    };
    // As bytes \xff follows é, though its quoted form starts with a backslash.
    assert!(decode_tree(names(&["B", "a", "a-", "aa", "é", r"\\xff"]).as_bytes()).is_ok());
    for bad in [["a", "a"], ["b", "a"], [r"\\xff", "é"], ["a", r"\\x61"]] {
        let json = names(&bad);
        assert_eq!(read_strict(&json)[1], Err(ErrorKind::Corrupt), "{bad:?}");
        assert_eq!(read(TreeReader::lenient(json.as_bytes())).iter().filter(|n| n.is_ok()).count(), 2, "{bad:?}");
    }
    // What follows a name out of order is held against the last good one.
    let kinds: Vec<_> = read_strict(&names(&["c", "a", "b", "d"])).iter().map(|n| n.is_ok()).collect();
    assert_eq!(kinds, [true, false, false, true]);
}

#[test]
fn entries_that_cannot_be_are_refused_one_by_one() {
    let node = |fields: &str| format!(r#"{{"name":"m",{fields}}}"#);
    for (fields, kind) in [
        (r#""type":"file""#, ErrorKind::Corrupt),
        (r#""type":"file","content":null"#, ErrorKind::Corrupt),
        (r#""type":"file","content":["12"]"#, ErrorKind::Corrupt),
        (r#""type":"file","content":[null]"#, ErrorKind::Corrupt),
        (r#""type":"file","content":[],"size":9223372036854775808"#, ErrorKind::Corrupt),
        (r#""type":"file","content":[],"size":-1"#, ErrorKind::Corrupt),
        (r#""type":"file","content":[],"size":1.5"#, ErrorKind::Corrupt),
        (r#""type":"file","content":[],"uid":4294967296"#, ErrorKind::Corrupt),
        (r#""type":"file","content":[],"mtime":"yesterday""#, ErrorKind::Corrupt),
        (r#""type":"file","content":[],"extended_attributes":[{"name":"a","value":"?"}]"#, ErrorKind::Corrupt),
        (r#""type":"file","content":[],"user":7"#, ErrorKind::Corrupt),
        (r#""type":"symlink","linktarget_raw":"*""#, ErrorKind::Corrupt),
        (r#""content":[]"#, ErrorKind::Unsupported),
        (r#""type":"irregular""#, ErrorKind::Unsupported),
        (r#""type":"dir""#, ErrorKind::Corrupt),
        (r#""type":"dir","subtree":null"#, ErrorKind::Corrupt),
    ] {
        let json = tree(&[&file("a"), &node(fields), &file("z")]);
        assert_eq!(read_strict(&json), [Ok("a".into()), Err(kind), Ok("z".into())], "{fields}");
    }
    let json = tree(&[r#"7"#, r#"null"#, &file("z")]);
    assert_eq!(read_strict(&json), [Err(ErrorKind::Corrupt), Err(ErrorKind::Corrupt), Ok("z".into())]);
    let bare = tree(&[&node(r#""type":"dir""#)]);
    let salvaged: Vec<_> = TreeReader::lenient(bare.as_bytes()).unwrap().map(Result::unwrap).collect();
    assert_eq!((salvaged[0].kind, salvaged[0].subtree), (NodeKind::Dir, None));
}

#[test]
fn broken_json_ends_the_reading_with_an_error() {
    let whole = tree(&[&file("a"), &file("b")]);
    for cut in 0..whole.len() - 1 {
        let read = read_strict(&whole[..cut]);
        assert_eq!(read.last(), Some(&Err(ErrorKind::Corrupt)), "{cut}");
        assert_eq!(read.iter().filter(|n| n.is_err()).count(), 1, "{cut}");
    }
    for json in [
        "",
        "null",
        "[]",
        "{}",
        r#"{"nodes":{}}"#,
        r#"{"nodes":[]"#,
        r#"{"nodes":[]}x"#,
        r#"{"nodes":[,]}"#,
        r#"{"node":[]}"#,
    ] {
        assert_eq!(read_strict(json), [Err(ErrorKind::Corrupt)], "{json}");
    }
    assert_eq!(read(TreeReader::strict(b"{\"nodes\":[\"\xff\"]}")), [Err(ErrorKind::Corrupt)]);
    let bomb = tree(&[&format!(r#"{{"name":"a","x":{}"#, "[".repeat(200_000))]);
    assert_eq!(read_strict(&bomb), [Err(ErrorKind::Corrupt)]);
}

fn time() -> impl Strategy<Value = Time> {
    // 0000-01-01 to 9999-12-31: what the format can hold.
    (-62_167_219_200i64..=253_402_300_799, prop_oneof![Just(0), 0u32..1_000_000_000])
        .prop_map(|(secs, nanos)| Time { secs, nanos })
}

fn ids<T: From<Id> + std::fmt::Debug>() -> impl Strategy<Value = Vec<T>> {
    prop::collection::vec(any::<[u8; 32]>().prop_map(|id| T::from(Id(id))), 0..4)
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        any::<Vec<u8>>(),
        any::<String>().prop_map(String::into_bytes),
        "[ -~]{1,12}".prop_map(String::into_bytes)
    ]
    .prop_filter("a path component", |name| is_safe_name(name))
}

fn kind() -> impl Strategy<Value = NodeKind> {
    prop::sample::select(vec![
        NodeKind::File,
        NodeKind::Dir,
        NodeKind::Symlink,
        NodeKind::BlockDevice,
        NodeKind::CharDevice,
        NodeKind::Fifo,
        NodeKind::Socket,
    ])
}

prop_compose! {
    fn node()(
        (name, kind, mode) in (name(), kind(), 0u32..=0o7777),
        (mtime, atime, ctime) in (time(), time(), time()),
        (uid, gid, user, group) in any::<(u32, u32, String, String)>(),
        (inode, device_id, size, links, device) in (any::<u64>(), any::<u64>(), 0..=i64::MAX as u64, 0u64..5, any::<u64>()),
        (link_target, xattrs) in (any::<Vec<u8>>(), prop::collection::vec(any::<(String, Vec<u8>)>(), 0..3)),
        (content, subtree) in (ids(), any::<[u8; 32]>()),
    ) -> Node {
        let xattrs = xattrs.into_iter().map(|(name, value)| Xattr { name, value }).collect();
        let is_file = kind == NodeKind::File;
        Node {
            name, kind, mode, mtime, atime, ctime, uid, gid, user, group, inode, device_id, links, device, xattrs,
            size: if is_file { size } else { 0 },
            link_target: if kind == NodeKind::Symlink { link_target } else { Vec::new() },
            content: is_file.then_some(content),
            subtree: (kind == NodeKind::Dir).then_some(TreeId(Id(subtree))),
        }
    }
}

proptest! {
    #[test]
    fn every_tree_reads_back_as_it_was(mut nodes in prop::collection::vec(node(), 0..6)) {
        nodes.sort_by(|a, b| a.name.cmp(&b.name));
        nodes.dedup_by(|a, b| a.name == b.name);
        let mut encoder = TreeEncoder::new();
        for node in &nodes {
            encoder.push(node).unwrap();
        }
        let json = encoder.finish();
        prop_assert_eq!(decode_tree(&json).unwrap(), nodes);
        let value: serde_json::Value = serde_json::from_slice(&json).unwrap();
        prop_assert!(value["nodes"].is_array());
    }

    #[test]
    fn changed_bytes_never_panic_and_never_yield_an_unsafe_name(node in node(), at: prop::sample::Index, byte: u8) {
        let mut encoder = TreeEncoder::new();
        encoder.push(&node).unwrap();
        let mut json = encoder.finish();
        let at = at.index(json.len());
        json[at] = byte;
        if let Ok(reader) = TreeReader::lenient(&json) {
            for node in reader.flatten() {
                prop_assert!(is_safe_name(&node.name));
            }
        }
    }
}
