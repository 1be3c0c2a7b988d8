//! What a session promises: nothing is visible before it is whole, nothing is stored twice, memory is bounded.

use crate::rig::{Contents, Rig, Saved, begin, contents, node_at, save, spec, spec_with, stream, stream_spec, verdict};
use lastgood_model::manifest::SourceOutcome;
use lastgood_model::source::{Chunking, Sink};
use lastgood_model::store::{Capabilities, ObjectKind, Store, StoreKey};
use lastgood_model::{ErrorKind, Id, Monitor, Result};
use lastgood_repo::check::{CheckOptions, DamageKind, check};
use lastgood_repo::lock::system_clock;
use lastgood_repo::{Compression, Session, SessionOptions};
use lastgood_stores::{MemoryStore, Op, RecordStore};
use lastgood_testkit::rng::Rng;
use std::sync::{Arc, Barrier};

const CHUNKINGS: [Chunking; 3] = [Chunking::Files, Chunking::Rows, Chunking::Fixed(65_536)];

#[test]
fn a_point_is_refused_while_anything_in_it_is_open_dropped_missing_or_failed() {
    let failed = SourceOutcome::Failed { error: "it fell over".into() };
    type Case = (&'static str, fn(&Session), Vec<(&'static str, SourceOutcome)>);
    let cases: [Case; 5] = [
        (
            "without a verdict",
            |session| std::mem::forget(stream(&session.source("db").unwrap(), "a", Chunking::Rows)),
            vec![("db", SourceOutcome::Complete)],
        ),
        (
            "without a verdict",
            |session| {
                let sink = session.source("db").unwrap();
                let mut dropped = stream(&sink, "a", Chunking::Rows);
                dropped.write(b"half a dump").unwrap();
                drop(dropped);
                let whole = stream(&sink, "b", Chunking::Rows);
                whole.finish(verdict()).unwrap();
            },
            vec![("db", SourceOutcome::Complete)],
        ),
        ("never captured", |_| {}, vec![("db", SourceOutcome::Complete)]),
        ("not discarded", |session| drop(session.source("db").unwrap()), vec![("db", failed.clone())]),
        ("not in the manifest", |session| drop(session.source("other").unwrap()), vec![]),
    ];
    let rig = Rig::new();
    for (why, arrange, sources) in cases {
        let repository = rig.open();
        let (session, _) = begin(&repository).unwrap();
        arrange(&session);
        let error = session.publish(spec_with(&sources)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Bug, "{why}");
        assert!(error.chain().contains(why), "{why}: {error:?}");
        assert!(rig.snapshots().is_empty(), "{why}");
        assert!(rig.keys_of(ObjectKind::Lock).is_empty(), "{why}: the lock stayed");
    }
    // A failed source that was discarded, and whatever it left half done, does not stand in the way of a good one.
    let (session, _) = begin(&rig.open()).unwrap();
    let bad = session.source("bad").unwrap();
    drop(stream(&bad, "half", Chunking::Files));
    drop(bad);
    session.discard("bad");
    stream(&session.source("db").unwrap(), "a", Chunking::Rows).finish(verdict()).unwrap();
    let published = session.publish(spec_with(&[("bad", failed), ("db", SourceOutcome::Complete)])).unwrap();
    let kept = contents(&rig.open(), published.snapshot.id).unwrap();
    assert_eq!(kept, Contents::from([("db/a".to_owned(), Vec::new())]));
}

#[test]
fn names_that_cannot_be_or_come_twice_are_refused() {
    let rig = Rig::new();
    let (session, _) = begin(&rig.open()).unwrap();
    for name in ["", ".", "..", "a/b", ".lastgood", "a\0b"] {
        assert_eq!(session.source(name).unwrap_err().kind(), ErrorKind::Invalid, "{name:?}");
    }
    let sink = session.source("db").unwrap();
    assert_eq!(session.source("db").unwrap_err().kind(), ErrorKind::Conflict);
    for path in ["", "/a", "a//b", "a/../b", "./a", "a/"] {
        assert_eq!(
            sink.stream(stream_spec(path, Chunking::Rows)).err().unwrap().kind(),
            ErrorKind::Invalid,
            "{path:?}"
        );
    }
    let first = stream(&sink, "a", Chunking::Rows);
    assert_eq!(sink.stream(stream_spec("a", Chunking::Rows)).err().unwrap().kind(), ErrorKind::Conflict);
    first.finish(verdict()).unwrap();
    assert_eq!(sink.stream(stream_spec("a", Chunking::Rows)).err().unwrap().kind(), ErrorKind::Conflict);
    // A file cannot be a folder as well.
    assert_eq!(stream(&sink, "a/b", Chunking::Rows).finish(verdict()).unwrap_err().kind(), ErrorKind::Conflict);
}

#[test]
fn the_snapshot_is_the_last_object_written_and_all_else_is_durable_by_then() {
    let rig = Rig::new();
    let store = Arc::new(RecordStore::new(rig.store.clone()));
    let repository = rig.open_through(store.clone(), system_clock()).unwrap();
    store.reset();
    let mut rng = Rng::new(1);
    let large = rng.bytes(40 << 20);
    let saved = save(&repository, Chunking::Files, &[("large", &large), ("small", b"x")]).unwrap();
    let calls = store.calls();
    assert!(calls.iter().all(|call| call.error.is_none()));
    let at = |op: Op, kind: Option<ObjectKind>| -> Vec<usize> {
        let wanted = calls.iter().enumerate().filter(|(_, c)| c.op == op && (kind.is_none() || c.kind == kind));
        wanted.map(|(i, _)| i).collect()
    };
    let snapshot = at(Op::Put, Some(ObjectKind::Snapshot));
    let (packs, indexes) = (at(Op::Put, Some(ObjectKind::Pack)), at(Op::Put, Some(ObjectKind::Index)));
    let syncs = at(Op::Sync, None);
    assert_eq!(snapshot.len(), 1);
    assert!(packs.len() >= 3, "{} packs", packs.len());
    assert_eq!(packs.len(), saved.published.packs.len());
    assert!(at(Op::Put, None).iter().all(|put| *put <= snapshot[0]), "something was put after the snapshot");
    let synced_between = |a: usize, b: usize| syncs.iter().any(|s| a < *s && *s < b);
    assert!(synced_between(*packs.last().unwrap(), indexes[0]), "an index file came before its packs were durable");
    assert!(synced_between(*indexes.last().unwrap(), snapshot[0]), "the snapshot came before its index was durable");
    let read_back = calls.iter().position(|c| c.op == Op::Get && c.kind == Some(ObjectKind::Snapshot)).unwrap();
    assert!(synced_between(snapshot[0], read_back), "the snapshot was not made durable and then read back");
    // Only the lock is ever removed.
    assert!(calls.iter().all(|c| c.op != Op::Remove || c.kind == Some(ObjectKind::Lock)));
}

#[test]
fn eight_streams_of_two_sources_written_at_once_restore_exactly() {
    let rig = Rig::new();
    let repository = rig.open();
    let (session, _) = begin(&repository).unwrap();
    let mut expected = Contents::new();
    let mut rng = Rng::new(3);
    let mut plans = Vec::new();
    for (i, name) in (0..8).map(|i| (i, if i % 2 == 0 { "one" } else { "two" })) {
        let length = [0, 1, 16_384, 300_000, 1 << 20, 5_000_000, 9_000_001, 12_345_678][i];
        let content = if i % 3 == 0 { rng.bytes(length) } else { rng.text(length) };
        expected.insert(format!("{name}/part-{i}/rows"), content.clone());
        plans.push((i, name, content));
    }
    let sinks = ["one", "two"].map(|name| session.source(name).unwrap());
    std::thread::scope(|scope| {
        for (i, name, content) in &plans {
            let sink = &sinks[usize::from(*name == "two")];
            scope.spawn(move || {
                let mut writer = stream(sink, &format!("part-{i}/rows"), CHUNKINGS[i % 3]);
                let mut rest = &content[..];
                let mut sizes = Rng::new(*i as u64);
                while !rest.is_empty() {
                    let (piece, after) = rest.split_at(rest.len().min(1 + sizes.below(700_000) as usize));
                    writer.write(piece).unwrap();
                    rest = after;
                }
                assert_eq!(writer.finish(verdict()).unwrap(), content.len() as u64);
            });
        }
    });
    drop(sinks);
    let published = session.publish(spec(&["one", "two"])).unwrap();
    assert!(contents(&rig.open(), published.snapshot.id).unwrap() == expected);
    let node = node_at(&rig.open(), published.snapshot.id, "two/part-7/rows");
    assert_eq!((node.mode, node.uid, node.gid, node.mtime.nanos), (0o640, 7, 8, 9));
    rig.assert_sound();
}

#[test]
fn the_same_content_in_two_streams_at_once_is_stored_once() {
    let content = Rng::new(4).bytes(20 << 20);
    let alone = {
        let rig = Rig::new();
        save(&rig.open(), Chunking::Rows, &[("a", &content)]).unwrap().stored()
    };
    let rig = Rig::new();
    let (session, monitor) = begin(&rig.open()).unwrap();
    let sink = session.source("db").unwrap();
    let start = Barrier::new(2);
    std::thread::scope(|scope| {
        for path in ["a", "b"] {
            let (sink, start, content) = (&sink, &start, &content);
            scope.spawn(move || {
                let mut writer = stream(sink, path, Chunking::Rows);
                start.wait();
                content.chunks(100_000).for_each(|piece| writer.write(piece).unwrap());
                writer.finish(verdict()).unwrap();
            });
        }
    });
    drop(sink);
    let published = session.publish(spec(&["db"])).unwrap();
    let twice = Saved { published, monitor, adopted: 0 };
    // Row chunks depend on the repository's secret, so the two repositories do not cut at quite the same places.
    let near = alone.0 / 4;
    assert!(twice.stored().0.abs_diff(alone.0) < near, "{} blobs, alone {}", twice.stored().0, alone.0);
    assert!(twice.stored().1 < content.len() as u64 + (1 << 20), "{} plain bytes were new", twice.stored().1);
    let stored: u64 = twice.published.packs.iter().map(|(_, size)| size).sum();
    assert!(stored < content.len() as u64 + (1 << 20), "{stored} bytes in packs");
    let kept = contents(&rig.open(), twice.id()).unwrap();
    assert!(kept["db/a"] == content && kept["db/b"] == content);
}

#[test]
fn what_a_lost_pack_held_is_whole_again_after_the_next_run_in_old_points_too() {
    let rig = Rig::new();
    let content = Rng::new(11).bytes(3 << 20);
    let first = save(&rig.open(), Chunking::Files, &[("a", &content)]).unwrap();
    let reader = rig.open().reader().unwrap();
    for id in node_at(&rig.open(), first.id(), "db/a").content.unwrap() {
        let pack = reader.index.pack(reader.index.find(id).unwrap().pack);
        let _ = rig.store.remove(&StoreKey::new(ObjectKind::Pack, pack));
    }
    assert_eq!(contents(&rig.open(), first.id()).unwrap_err().kind(), ErrorKind::Corrupt);
    let broken = check(&rig.open(), &Monitor::new(), &CheckOptions::default()).unwrap();
    assert_eq!(broken.snapshots_affected, [first.id()]);

    let second = save(&rig.open(), Chunking::Files, &[("a", &content)]).unwrap();
    for id in [first.id(), second.id()] {
        let kept = contents(&rig.open(), id).unwrap();
        assert!(kept["db/a"] == content);
    }
    // The first point's own notes may have been in a lost pack and are in no source; the second point lacks nothing.
    let mended = check(&rig.open(), &Monitor::new(), &CheckOptions::default()).unwrap();
    assert!(!mended.snapshots_affected.contains(&second.id()), "{:#?}", mended.damage);
    assert!(mended.damage.iter().any(|d| d.what == DamageKind::Missing));
}

#[test]
fn holes_and_runs_of_zeros_cost_next_to_nothing() {
    let rig = Rig::new();
    let repository = rig.open();
    let (session, monitor) = begin(&repository).unwrap();
    let sink = session.source("db").unwrap();
    for (i, chunking) in CHUNKINGS.into_iter().enumerate() {
        let mut hole = stream(&sink, &format!("hole-{i}"), chunking);
        hole.write(b"before").unwrap();
        hole.zeros((1 << 32) + 12_345).unwrap();
        hole.write(b"after").unwrap();
        assert_eq!(hole.finish(verdict()).unwrap(), (1 << 32) + 12_345 + 11);
        let mut zeros = stream(&sink, &format!("zeros-{i}"), chunking);
        (0..40).for_each(|_| zeros.write(&[0; 1 << 20]).unwrap());
        zeros.finish(verdict()).unwrap();
    }
    drop(sink);
    let published = session.publish(spec(&["db"])).unwrap();
    let saved = Saved { published, monitor, adopted: 0 };
    // The lists of chunks are metadata: 8192 times one id for each hole of 4 GiB. Chunks of zeros are few.
    assert!(saved.stored().0 < 40, "{} data blobs", saved.stored().0);
    assert!(saved.stored().2 < 100_000, "{} bytes stored", saved.stored().2);
    for i in 0..3 {
        let node = node_at(&repository, saved.id(), &format!("db/hole-{i}"));
        assert_eq!(node.size, (1 << 32) + 12_345 + 11);
        let reader = repository.reader().unwrap();
        let ids = node.content.unwrap();
        assert_eq!(reader.data(ids[0]).unwrap(), b"before");
        assert_eq!(reader.data(*ids.last().unwrap()).unwrap(), b"after");
        let lengths: u64 = ids.iter().map(|id| u64::from(reader.index.find(*id).unwrap().plain_length())).sum();
        assert_eq!(lengths, node.size);
        assert!(reader.data(ids[ids.len() / 2]).unwrap().iter().all(|byte| *byte == 0));
        let node = node_at(&repository, saved.id(), &format!("db/zeros-{i}"));
        assert!(crate::rig::content(&reader, &node).unwrap() == vec![0; 40 << 20]);
    }
}

#[test]
fn what_compresses_is_compressed_and_what_does_not_is_left_alone() {
    let mut rng = Rng::new(5);
    let (text, noise) = (rng.text(8 << 20), rng.bytes(8 << 20));
    let size = |content: &[u8], compression| {
        let rig = Rig::new();
        let options = SessionOptions { compression, ..SessionOptions::default() };
        let session = Session::begin(rig.open(), Arc::new(Monitor::new()), options).unwrap();
        let mut writer = stream(&session.source("db").unwrap(), "a", Chunking::Files);
        writer.write(content).unwrap();
        writer.finish(verdict()).unwrap();
        let published = session.publish(spec(&["db"])).unwrap();
        assert!(contents(&rig.open(), published.snapshot.id).unwrap()["db/a"] == content);
        let stored: u64 = published.packs.iter().map(|(_, size)| size).sum();
        stored as f64 / content.len() as f64
    };
    let [fast, balanced, max, off] =
        [Compression::Fast, Compression::Balanced, Compression::Max, Compression::Off].map(|c| size(&text, c));
    assert!(max < balanced && balanced <= fast && fast < 0.5, "{fast} {balanced} {max}");
    assert!((1.0..1.001).contains(&off), "{off}");
    for compression in [Compression::Fast, Compression::Max] {
        let ratio = size(&noise, compression);
        assert!((1.0..1.001).contains(&ratio), "{ratio}");
    }
}

#[test]
fn a_changed_page_costs_one_extent() {
    const EXTENT: usize = 65_536;
    let rig = Rig::new();
    let repository = rig.open();
    let mut pages = Rng::new(6).bytes(100 * EXTENT + 4096);
    let first = save(&repository, Chunking::Fixed(EXTENT as u32), &[("db", &pages)]).unwrap();
    assert_eq!(first.stored().0, 101 + 2, "100 whole extents, a short one, the manifest and the notes");
    pages[37 * EXTENT + 4096] ^= 1;
    let second = save(&repository, Chunking::Fixed(EXTENT as u32), &[("db", &pages)]).unwrap();
    assert_eq!(second.stored().0, 1);
    let same = save(&repository, Chunking::Fixed(EXTENT as u32), &[("db", &pages)]).unwrap();
    assert_eq!(same.stored().0, 0);
    // The directories above carry the time of the run, and so are new each time.
    assert!(same.published.packs.len() == 1 && same.stored().2 < 4096, "{:?}", same.published.packs);
    assert!(contents(&repository, second.id()).unwrap()["db/db"] == pages);
}

#[test]
fn rows_that_shift_cost_only_what_is_around_the_change() {
    let rig = Rig::new();
    let repository = rig.open();
    let mut rows = Rng::new(7).bytes(16 << 20);
    let first = save(&repository, Chunking::Rows, &[("rows", &rows)]).unwrap().stored().1;
    rows.splice(5_000_000..5_000_000, *b"one more row");
    let second = save(&repository, Chunking::Rows, &[("rows", &rows)]).unwrap();
    assert!(second.stored().1 < first / 20, "{} of {first} bytes were new", second.stored().1);
    assert!(contents(&repository, second.id()).unwrap()["db/rows"] == rows);
}

#[test]
fn a_stream_that_outlives_its_session_ends_in_an_error_and_never_waits() {
    let rig = Rig::new();
    let noise = Rng::new(8).bytes(64 << 20);
    // Given up by dropping, and by a publication that is refused because a stream of a failed source is still open.
    for publish in [false, true] {
        let repository = rig.open();
        let (session, _) = begin(&repository).unwrap();
        let sink = session.source("slow").unwrap();
        let [mut writer, idle] = ["a", "b"].map(|path| stream(&sink, path, Chunking::Files));
        drop(sink);
        writer.write(&noise[..1 << 20]).unwrap();
        if publish {
            session.discard("slow");
            stream(&session.source("db").unwrap(), "a", Chunking::Rows).finish(verdict()).unwrap();
            let failed = SourceOutcome::Failed { error: "too slow".into() };
            let error = session.publish(spec_with(&[("slow", failed), ("db", SourceOutcome::Complete)])).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Bug, "{error:?}");
        } else {
            drop(session);
        }
        let outcome = writer.write(&noise).and_then(|()| writer.finish(verdict()));
        assert!(outcome.is_err(), "publish {publish}");
        assert!(idle.finish(verdict()).is_err(), "publish {publish}");
        assert!(rig.snapshots().is_empty());
    }
}

#[test]
fn a_cancelled_session_publishes_nothing_and_leaves_no_lock() {
    let rig = Rig::new();
    let (session, monitor) = begin(&rig.open()).unwrap();
    let mut writer = stream(&session.source("db").unwrap(), "a", Chunking::Files);
    writer.write(&Rng::new(9).bytes(8 << 20)).unwrap();
    writer.finish(verdict()).unwrap();
    monitor.cancel();
    assert_eq!(session.publish(spec(&["db"])).unwrap_err().kind(), ErrorKind::Cancelled);
    assert!(rig.snapshots().is_empty() && rig.keys_of(ObjectKind::Lock).is_empty());
}

#[test]
fn a_rehearsal_writes_nothing_but_its_lock_and_cannot_publish() {
    let rig = Rig::new();
    let store = Arc::new(RecordStore::new(rig.store.clone()));
    let repository = rig.open_through(store.clone(), system_clock()).unwrap();
    let options = SessionOptions { dry_run: true, ..SessionOptions::default() };
    let rehearse = || {
        let monitor = Arc::new(Monitor::new());
        let session = Session::begin(repository.clone(), monitor.clone(), options.clone()).unwrap();
        let mut writer = stream(&session.source("db").unwrap(), "a", Chunking::Files);
        writer.write(&Rng::new(10).bytes(20 << 20)).unwrap();
        writer.finish(verdict()).unwrap();
        (session, monitor)
    };
    let (session, monitor) = rehearse();
    session.rehearse().unwrap();
    assert!(monitor.counters.bytes_new.load(std::sync::atomic::Ordering::Relaxed) >= 20 << 20);
    let (session, _) = rehearse();
    assert_eq!(session.publish(spec(&["db"])).unwrap_err().kind(), ErrorKind::Bug);
    let put: Vec<_> = store.calls().into_iter().filter(|c| c.op == Op::Put).map(|c| c.kind).collect();
    assert_eq!(put, [Some(ObjectKind::Lock); 2]);
}

/// Takes packs in and forgets them, so that a test's own memory says nothing but the engine's.
#[derive(Debug)]
struct Forgetful(MemoryStore);

impl Store for Forgetful {
    fn location(&self) -> String {
        self.0.location()
    }
    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }
    fn create(&self) -> Result<()> {
        self.0.create()
    }
    fn put(&self, key: &StoreKey, parts: &[&[u8]]) -> Result<()> {
        if key.kind == ObjectKind::Pack { Ok(()) } else { self.0.put(key, parts) }
    }
    fn sync(&self) -> Result<()> {
        self.0.sync()
    }
    fn get(&self, key: &StoreKey) -> Result<Vec<u8>> {
        self.0.get(key)
    }
    fn get_range(&self, key: &StoreKey, offset: u64, length: usize, out: &mut Vec<u8>) -> Result<()> {
        self.0.get_range(key, offset, length, out)
    }
    fn size(&self, key: &StoreKey) -> Result<u64> {
        self.0.size(key)
    }
    fn list(&self, kind: ObjectKind) -> Result<Vec<(Id, u64)>> {
        self.0.list(kind)
    }
    fn remove(&self, key: &StoreKey) -> Result<()> {
        self.0.remove(key)
    }
}

/// Runs itself once more in a process of its own, whose peak of memory the kernel tells.
#[test]
fn a_long_stream_that_does_not_compress_stays_within_the_memory_budget() {
    const BYTES: u64 = 300 << 20;
    /// 40 MiB of content in waiting, up to six packs of 25 MiB being filled or written, and what the workers hold.
    const PEAK_KIB_MAX: u64 = 260 << 10;
    const CHILD: &str = "LASTGOOD_TEST_MEMORY_CHILD";
    if std::env::var_os(CHILD).is_none() {
        let name = "session::a_long_stream_that_does_not_compress_stays_within_the_memory_budget";
        let own = std::env::current_exe().unwrap();
        let child = std::process::Command::new(own).args(["--exact", name, "--nocapture"]).env(CHILD, "1").output();
        let output = child.unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        assert!(said.contains("1 passed"), "the child did not run: {said}");
        return;
    }
    let rig = Rig::new();
    let repository = rig.open_through(Arc::new(Forgetful(rig.store.clone())), system_clock()).unwrap();
    let (session, _) = begin(&repository).unwrap();
    let sink = session.source("db").unwrap();
    let mut writers = ["a", "b"].map(|path| stream(&sink, path, Chunking::Rows));
    let mut rng = Rng::new(11);
    let mut piece = vec![0; 1 << 20];
    for i in 0..BYTES >> 20 {
        rng.fill(&mut piece);
        writers[i as usize % 2].write(&piece).unwrap();
    }
    let lengths: u64 = writers.into_iter().map(|writer| writer.finish(verdict()).unwrap()).sum();
    assert_eq!(lengths, BYTES);
    drop(sink);
    session.publish(spec(&["db"])).unwrap();
    let status = fs_err::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak < PEAK_KIB_MAX, "a peak of {} MiB", peak >> 10);
    println!("a peak of {} MiB", peak >> 10);
}
