//! Archives written here in every version, and a real one.

use super::super::testing::{RICH, Server};
use super::super::tools::{DumpOptions, dump_schema};
use super::*;
use lastgood_model::ErrorKind;
use proptest::prelude::*;
use std::io::Read;

/// Writes what the reader reads.
struct Writer {
    bytes: Vec<u8>,
    int_bytes: usize,
}

impl Writer {
    fn int(&mut self, value: i64) {
        self.bytes.push(u8::from(value < 0));
        let magnitude = value.unsigned_abs().to_le_bytes();
        let zeros = [0; 32];
        self.bytes.extend_from_slice(&[&magnitude[..], &zeros].concat()[..self.int_bytes]);
    }

    fn text(&mut self, text: Option<&[u8]>) {
        match text {
            None => self.int(-1),
            Some(text) => {
                self.int(text.len() as i64);
                self.bytes.extend_from_slice(text);
            }
        }
    }
}

fn write(toc: &Toc, int_bytes: usize, offset_bytes: usize) -> Vec<u8> {
    let mut out = Writer { bytes: b"PGDMP".to_vec(), int_bytes };
    out.bytes.extend_from_slice(&[1, toc.archive, 0, int_bytes as u8, offset_bytes as u8, 1]);
    if toc.archive >= 15 {
        out.bytes.push(0);
    } else {
        out.int(-1);
    }
    for part in [59, 58, 23, 31, 11, 126, 1] {
        out.int(part);
    }
    let bytes = |text: &str| toc.text.encode(text).into_owned();
    for text in [&toc.database, &toc.server_version, &toc.dump_version] {
        out.text(Some(&bytes(text)));
    }
    out.int(toc.entries.len() as i64);
    for entry in &toc.entries {
        let optional = |text: &Option<String>| text.as_deref().map(bytes);
        out.int(entry.dump_id.into());
        out.int(entry.had_dumper.into());
        out.text(Some(entry.catalog.to_string().as_bytes()));
        out.text(Some(entry.oid.to_string().as_bytes()));
        out.text(Some(&bytes(&entry.tag)));
        out.text(Some(&bytes(&entry.desc)));
        out.int(entry.section as i64 + 1);
        for text in [&entry.defn, &entry.drop_stmt, &entry.copy_stmt, &entry.namespace, &entry.tablespace] {
            out.text(optional(text).as_deref());
        }
        if toc.archive >= 14 {
            out.text(optional(&entry.table_am).as_deref());
        }
        if toc.archive >= 16 {
            out.int(entry.relkind.map_or(0, |kind| u32::from(kind).into()));
        }
        out.text(optional(&entry.owner).as_deref());
        out.text(Some(if entry.with_oids { b"true" } else { b"false" }));
        for id in &entry.dependencies {
            out.text(Some(id.to_string().as_bytes()));
        }
        out.text(None);
        out.bytes.push(1);
        out.bytes.extend(vec![7; offset_bytes]);
    }
    out.bytes
}

fn example(archive: u8) -> Toc {
    let text = |text: &str| Some(text.to_owned());
    Toc {
        text: Text::Utf8,
        archive,
        server_version: "15.1".into(),
        dump_version: "16.2".into(),
        database: "shöp".into(),
        entries: vec![
            Entry {
                dump_id: 4032,
                desc: "ENCODING".into(),
                tag: "ENCODING".into(),
                section: Section::PreData,
                ..Entry::default()
            },
            Entry {
                dump_id: 7,
                desc: "TABLE".into(),
                namespace: text("pub\"lic"),
                tag: "a\nb".into(),
                section: Section::PreData,
                owner: text("me"),
                tablespace: text(""),
                table_am: if archive >= 14 { text("heap") } else { None },
                relkind: if archive >= 16 { Some('r') } else { None },
                catalog: 1259,
                oid: u32::MAX,
                dependencies: vec![3, 4032],
                had_dumper: true,
                with_oids: archive == 12,
                defn: text("CREATE é;"),
                drop_stmt: text(""),
                copy_stmt: text("COPY …"),
            },
        ],
    }
}

fn read(bytes: &[u8]) -> lastgood_model::Result<Toc> {
    Toc::read_archive(&mut &bytes[..])
}

fn json(toc: &Toc) -> Vec<u8> {
    let mut out = Vec::new();
    toc.write_json(&mut out).unwrap();
    out
}

#[test]
fn archives_of_all_versions_and_sizes_are_read() {
    for archive in 12..=16 {
        for (int_bytes, offset_bytes) in [(4, 8), (8, 4)] {
            let toc = example(archive);
            let mut bytes = write(&toc, int_bytes, offset_bytes);
            assert_eq!(read(&bytes).unwrap(), toc);
            bytes.extend_from_slice(b"data");
            assert_eq!(read(&bytes).unwrap(), toc);
        }
    }
}

#[test]
fn repeated_dependencies_in_any_order_become_a_sorted_set() {
    let mut toc = example(14);
    toc.entries[1].dependencies = vec![9, 3, 9, 3, 1];
    assert_eq!(read(&write(&toc, 4, 8)).unwrap().entries[1].dependencies, [1, 3, 9]);
}

#[test]
fn text_that_is_no_utf8_is_kept_byte_by_byte() {
    let mut toc = example(14);
    let mut bytes = write(&toc, 4, 8);
    let at = bytes.windows(3).position(|window| window == b"a\nb").unwrap();
    bytes[at + 1] = 0xe4;
    let read_back = read(&bytes).unwrap();
    toc.text = Text::Bytes;
    toc.database = "shÃ¶p".into();
    toc.entries[1].tag = "aäb".into();
    toc.entries[1].defn = Some("CREATE Ã©;".into());
    toc.entries[1].copy_stmt = Some("COPY â\u{80}¦".into());
    assert_eq!(read_back, toc);
    assert_eq!(write(&read_back, 4, 8), bytes);
    assert_eq!(&*toc.text.encode("aä…"), b"a\xe4\xe2\x80\xa6");
    assert_eq!(Toc::read_json(&mut &json(&toc)[..]).unwrap(), toc);
}

#[test]
fn json_has_one_entry_a_line_and_leaves_out_what_is_not_there() {
    let text = String::from_utf8(json(&example(14))).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines,
        [
            "{\"type\":\"lastgood.postgres.toc\",\"schema\":1,\"archive\":14,\"server_version\":\"15.1\",\
             \"dump_version\":\"16.2\",\"database\":\"shöp\",\"entries\":[",
            "{\"dump_id\":4032,\"desc\":\"ENCODING\",\"tag\":\"ENCODING\",\"section\":\"pre-data\",\"catalog\":0,\"oid\":0},",
            "{\"dump_id\":7,\"desc\":\"TABLE\",\"namespace\":\"pub\\\"lic\",\"tag\":\"a\\nb\",\"section\":\"pre-data\",\
             \"owner\":\"me\",\"tablespace\":\"\",\"table_am\":\"heap\",\"catalog\":1259,\"oid\":4294967295,\
             \"dependencies\":[3,4032],\"had_dumper\":true,\"defn\":\"CREATE é;\",\"drop_stmt\":\"\",\"copy_stmt\":\"COPY …\"}",
            "]}",
        ]
    );
    let relaid = serde_json::to_vec_pretty(&serde_json::from_str::<serde_json::Value>(&text).unwrap()).unwrap();
    assert_eq!(Toc::read_json(&mut &relaid[..]).unwrap(), example(14));
}

#[test]
fn foreign_and_newer_files_are_refused() {
    let check = |bytes: &[u8], kind| assert_eq!(read(bytes).unwrap_err().kind(), kind);
    let good = write(&example(16), 4, 8);
    let changed = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    check(b"-- PostgreSQL database dump", ErrorKind::Unsupported);
    check(&changed(6, 17), ErrorKind::Unsupported);
    check(&changed(6, 11), ErrorKind::Unsupported);
    check(&changed(10, 3), ErrorKind::Unsupported);
    check(&changed(8, 200), ErrorKind::Corrupt);
    check(&good[..good.len() - 1], ErrorKind::Corrupt);
    check(b"", ErrorKind::Corrupt);
    let text = String::from_utf8(json(&example(16))).unwrap();
    let json = |text: String| Toc::read_json(&mut text.as_bytes()).unwrap_err().kind();
    assert_eq!(json(text.replace("\"schema\":1", "\"schema\":2")), ErrorKind::Unsupported);
    assert_eq!(json(text.replace("postgres.toc", "other")), ErrorKind::Corrupt);
    assert_eq!(json(text[..text.len() - 3].to_owned()), ErrorKind::Corrupt);
}

/// Gives the first bytes and then what looks like an endless row of them; counts.
struct Endless {
    head: Vec<u8>,
    given: usize,
}

impl Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        assert!(buffer.len() <= 64 * 1024 * 2 + self.given, "asked for {} after {}", buffer.len(), self.given);
        let length = buffer.len().min(self.head.len() - self.given);
        buffer[..length].copy_from_slice(&self.head[self.given..self.given + length]);
        self.given += length;
        Ok(length)
    }
}

#[test]
fn an_announced_length_alone_takes_no_memory() {
    let mut head = write(&Toc { entries: Vec::new(), ..example(16) }, 4, 8);
    let at = head.windows(4).position(|window| window == b"15.1").unwrap();
    head[at - 4..at].copy_from_slice(&(1u32 << 30).to_le_bytes());
    let error = Toc::read_archive(&mut Endless { head, given: 0 }).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}

#[test]
fn many_entries_are_written_and_read_as_a_stream() {
    let mut toc = example(16);
    let entry = toc.entries[1].clone();
    toc.entries = (1..20_000).map(|dump_id| Entry { dump_id, ..entry.clone() }).collect();
    let bytes = json(&toc);
    assert_eq!(Toc::read_json(&mut &bytes[..]).unwrap(), toc);
    assert_eq!(read(&write(&toc, 4, 8)).unwrap(), toc);
}

#[test]
fn a_real_archive_is_the_same_every_time_and_through_json() {
    let server = Server::start();
    server.create("rich");
    server.must("rich", RICH);
    let dump = || dump_schema(&server.tools, &server.env("rich"), &DumpOptions::default(), &|| false).unwrap();
    let toc = dump();
    assert_eq!(json(&toc), json(&dump()));
    assert_eq!(Toc::read_json(&mut &json(&toc)[..]).unwrap(), toc);
    // What pg_restore lists is what was read.
    let file = server.folder().join("archive");
    let mut command = server.command(super::super::tools::Program::PgDump, "rich");
    let made = command.args(["-Fc", "-s", "--quote-all-identifiers", "-f"]).arg(&file).status().unwrap();
    assert!(made.success());
    let mut command = server.command(super::super::tools::Program::PgRestore, "rich");
    let listed = command.arg("-l").arg(&file).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let listed: Vec<&str> = listed.lines().filter(|line| !line.starts_with(';')).collect();
    // pg_restore lists nothing that it would not restore.
    let special = ["ENCODING", "STDSTRINGS", "SEARCHPATH", "DATABASE", "DATABASE PROPERTIES"];
    let ours = toc.entries.iter().filter(|entry| !special.contains(&entry.desc.as_str())).map(|entry| {
        let namespace = entry.namespace.as_deref().unwrap_or("-");
        let owner = entry.owner.as_deref().unwrap_or_default();
        let line = format!("{} {} {namespace} {} {owner}", entry.oid, entry.desc, entry.tag).replace(['\n', '\r'], " ");
        (entry.dump_id, line)
    });
    let plain = |text: &str| text.replace('"', "");
    let ours: Vec<String> = ours.map(|(id, line)| plain(&format!("{id}; {line}"))).collect();
    let listed: Vec<String> = listed
        .iter()
        .map(|line| {
            // dump id, catalog, object: the catalog is left out above.
            let (id, rest) = line.split_once("; ").unwrap();
            plain(&format!("{id}; {}", rest.split_once(' ').unwrap().1))
        })
        .collect();
    assert_eq!(ours, listed);
}

fn some_text() -> impl Strategy<Value = Option<String>> {
    proptest::option::of("[^\0]{0,12}")
}

prop_compose! {
    fn some_entry()(
        numbers in (1u32..=i32::MAX as u32, any::<u32>(), any::<u32>()),
        texts in proptest::collection::vec(some_text(), 9),
        section in prop_oneof![Just(Section::None), Just(Section::PreData), Just(Section::Data), Just(Section::PostData)],
        dependencies in proptest::collection::btree_set(any::<u32>(), 0..5),
        flags in any::<(bool, bool)>(),
        kind in proptest::option::of(1u8..=127),
    ) -> Entry {
        let mut texts = texts.into_iter();
        let mut text = || texts.next().flatten();
        Entry {
            dump_id: numbers.0, catalog: numbers.1, oid: numbers.2, section,
            tag: text().unwrap_or_default(), desc: text().unwrap_or_default(),
            namespace: text(), owner: text(), tablespace: text(), table_am: text(),
            defn: text(), drop_stmt: text(), copy_stmt: text(),
            relkind: kind.map(char::from),
            dependencies: dependencies.into_iter().collect(),
            had_dumper: flags.0, with_oids: flags.1,
        }
    }
}

proptest! {
    #[test]
    fn any_contents_come_back_from_archive_and_json(entries in proptest::collection::vec(some_entry(), 0..6)) {
        let toc = Toc { entries, ..example(16) };
        prop_assert_eq!(&read(&write(&toc, 4, 8)).unwrap(), &toc);
        prop_assert_eq!(&Toc::read_json(&mut &json(&toc)[..]).unwrap(), &toc);
    }

    #[test]
    fn damage_ends_in_an_error_or_a_table_of_contents(
        archive in 12u8..=16,
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = write(&example(archive), 4, 8);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let _ = read(&bytes);
        let _ = read(&bytes[..cut.index(bytes.len())]);
        let mut text = json(&example(archive));
        let at = cut.index(text.len());
        text[at] ^= 1;
        let _ = Toc::read_json(&mut &text[..]);
    }

    #[test]
    fn noise_after_a_header_ends_in_an_error_or_a_table_of_contents(noise: Vec<u8>) {
        let mut bytes = b"PGDMP\x01\x10\x00\x04\x08\x01\x00".to_vec();
        bytes.extend(noise);
        let _ = read(&bytes);
    }
}
