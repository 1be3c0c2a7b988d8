//! What a backup says of itself: problems are named, failures are whole, unchanged files are not read.

use crate::meddle::{Meddled, Moment};
use crate::rig::{Rig, Watched, backup_with, files, make_database, outcome, sqlite};
use lastgood_model::manifest::{ProblemKind, SourceOutcome};
use lastgood_model::source::{Captured, Chunking, Finding, Sink, Source, StreamSpec, Verdict};
use lastgood_model::store::ObjectKind;
use lastgood_model::{Error, ErrorKind, Monitor, Result, Time};
use lastgood_ops::backup::{self, BackupOptions, BackupReport};
use lastgood_repo::lock::{Clock, system_clock};
use lastgood_repo::{OpenOptions, Repository};
use lastgood_sources::command::CommandSource;
use lastgood_stores::Op;
use lastgood_testkit::rng::Rng;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

impl Rig {
    /// A backup that believes to begin so many seconds from now.
    fn backup_at(&self, seconds: i64, options: &BackupOptions) -> BackupReport {
        let system = system_clock();
        let clock: Clock = Arc::new(move || {
            let now = system();
            Time::new(now.secs + seconds, now.nanos)
        });
        let options_of_opening = OpenOptions { clock, ..OpenOptions::default() };
        let repository = Repository::open(self.store.clone(), &self.password, options_of_opening).unwrap();
        backup_with(&Arc::new(repository), &[files("files", [self.path("tree")])], options).unwrap()
    }
}

fn command(name: &str, argv: &[&str]) -> Box<dyn Source> {
    Box::new(CommandSource::new(name, argv.iter().map(|word| (*word).to_owned()).collect(), "out"))
}

#[test]
fn files_that_vanish_change_or_cannot_be_read_are_named_and_the_rest_is_kept() {
    let (rig, _) = Rig::in_memory();
    let large = vec![3; 3 << 20];
    let tree =
        rig.plant(&[("a/gone", b"x"), ("a/kept", b"kept"), ("denied", b"y"), ("grows", &large), ("z/also", b"z")]);
    let growing = tree.join("grows");
    let vanishing = tree.join("a/gone");
    let source = Meddled::boxed(files("files", [tree.clone()]), move |moment, path| {
        if moment == Moment::Listed && path.ends_with("/a") {
            fs_err::remove_file(&vanishing).unwrap();
        }
        if moment == Moment::Opening && path.ends_with("/denied") {
            return Err(Error::io("open it", std::io::Error::from_raw_os_error(13)));
        }
        if moment == Moment::Opened && path.ends_with("/grows") {
            let mut file = fs_err::OpenOptions::new().append(true).open(&growing).unwrap();
            std::io::Write::write_all(&mut file, b"more").unwrap();
        }
        Ok(())
    });
    let report = rig.backup(&[source]).unwrap();
    let found: Vec<_> = report.problems.iter().map(|p| (p.path.rsplit('/').next().unwrap(), p.what)).collect();
    let mut sorted = found.clone();
    sorted.sort_by_key(|(name, _)| *name);
    let expected =
        [("denied", ProblemKind::Unreadable), ("gone", ProblemKind::Vanished), ("grows", ProblemKind::Changed)];
    assert_eq!(sorted, expected, "{:?}", report.problems);
    assert!(report.problems.iter().all(|p| p.source == "files" && p.path.starts_with('/')), "{:?}", report.problems);
    assert!(!report.complete && report.problems_total == 3);
    assert_eq!(*outcome(&report, "files"), SourceOutcome::Partial);
    let id = report.snapshot.unwrap();
    let manifest = rig.manifest(id);
    assert_eq!((manifest.complete, manifest.problems_total, manifest.problems.len()), (false, 3, 3));
    assert!(rig.open().snapshot(id).unwrap().file.tags.contains(&"incomplete".to_owned()));
    rig.restore(id, "to").unwrap();
    let restored = rig.restored("to", "files", &tree);
    assert_eq!(fs_err::read(restored.join("a/kept")).unwrap(), b"kept");
    assert_eq!(fs_err::read(restored.join("z/also")).unwrap(), b"z");
    assert!(!restored.join("a/gone").exists() && !restored.join("denied").exists());
    assert!(fs_err::read(restored.join("grows")).unwrap().starts_with(&large));
    // What was left out of the parent is not taken for unchanged.
    let next = rig.backup_tree();
    assert!(next.complete && next.problems_total == 0);
    rig.restore(next.snapshot.unwrap(), "next").unwrap();
    assert_eq!(fs_err::read(rig.restored("next", "files", &tree).join("denied")).unwrap(), b"y");
}

#[test]
fn a_failing_source_is_absent_as_a_whole_beside_a_good_one() {
    let (rig, _) = Rig::in_memory();
    let tree = rig.plant(&[("a", b"good")]);
    let half = Meddled::boxed(files("half", [tree.clone()]), |moment, _| match moment {
        Moment::Done => Err(Error::new(ErrorKind::Io, "it fell over at the very end")),
        _ => Ok(()),
    });
    let sources = [
        files("good", [tree.clone()]),
        half,
        command("dump", &["sh", "-c", "echo half a dump; exit 3"]),
        sqlite("db", &rig.path("missing.db")),
    ];
    let report = rig.backup(&sources).unwrap();
    assert!(!report.complete);
    assert_eq!(*outcome(&report, "good"), SourceOutcome::Complete);
    for (name, words) in [("half", "very end"), ("dump", "status: 3"), ("db", "missing.db")] {
        let SourceOutcome::Failed { error } = outcome(&report, name) else { panic!("{name} did not fail") };
        assert!(error.contains(words) || name == "dump" && error.contains('3'), "{name}: {error}");
    }
    let id = report.snapshot.unwrap();
    let manifest = rig.manifest(id);
    assert_eq!(manifest.sources.len(), 4);
    assert!(matches!(manifest.source("dump").unwrap().outcome, SourceOutcome::Failed { .. }));
    let repository = rig.open();
    let top = repository.reader().unwrap().tree(repository.snapshot(id).unwrap().file.tree).unwrap();
    let names: Vec<_> = top.iter().map(|node| node.display_name()).collect();
    assert_eq!(names, [".lastgood", "good"], "something of a failed source was published");
    assert_eq!(repository.snapshot(id).unwrap().file.paths, [tree.display().to_string()]);
    let restored = rig.restore(id, "to").unwrap();
    assert_eq!(restored.failures_total, 0);
    let notes = {
        let node = lastgood_ops::snapshots::find_node(
            &repository.reader().unwrap(),
            &repository.snapshot(id).unwrap(),
            b".lastgood/RESTORE.md",
        );
        lastgood_ops::snapshots::read_file(&repository.reader().unwrap(), &node.unwrap().unwrap()).unwrap()
    };
    let notes = String::from_utf8(notes).unwrap();
    assert!(notes.contains("MISSING") && notes.contains("INCOMPLETE"), "{notes}");
    rig.assert_sound();
}

#[test]
fn when_every_source_fails_there_is_no_point() {
    let (rig, store) = Rig::in_memory();
    let sources = [command("dump", &["false"]), files("files", [rig.path("missing")])];
    let error = rig.backup(&sources).unwrap_err();
    assert!(error.chain().contains("dump") && error.chain().contains("files"), "{error:?}");
    assert!(error.hint().is_some());
    assert!(rig.snapshots().is_empty());
    assert!(store.keys().iter().all(|key| key.kind != ObjectKind::Lock));
    assert_eq!(rig.backup(&[]).unwrap_err().kind(), ErrorKind::Invalid);
}

#[test]
fn an_unchanged_tree_is_not_read_again() {
    let (rig, _) = Rig::in_memory();
    rig.plant(&[("a", b"one"), ("b/c", &[7; 100_000]), ("b/d/e", b""), ("empty/x", b"x")]);
    std::os::unix::fs::symlink("a", rig.path("tree/link")).unwrap();
    // It began well after everything was written, so no change can share a time stamp with what it saw.
    let first = rig.backup_at(5, &BackupOptions::default());
    assert_eq!((first.files, first.files_new, first.files_unchanged), (5, 5, 0));
    assert_eq!(first.bytes_read, 100_004);
    let second = rig.backup_at(10, &BackupOptions::default());
    assert_eq!(second.parent, first.snapshot);
    assert_eq!((second.files, second.files_new, second.files_unchanged), (5, 0, 5));
    assert_eq!((second.bytes_read, second.bytes), (0, 100_004));
    // The directories above the tree hold nothing of the run; the manifest and what it hangs on are new.
    assert!(second.bytes_new < 10_000, "{}", second.bytes_new);
    let forced = rig.backup_at(15, &BackupOptions { force: true, ..BackupOptions::default() });
    assert_eq!((forced.files_unchanged, forced.bytes_read), (0, 100_004));
    assert!(forced.bytes_new < 10_000, "{}", forced.bytes_new);

    // One file changes, one is new, one goes.
    rig.plant(&[("a", b"two"), ("new", b"new")]);
    fs_err::remove_file(rig.path("tree/empty/x")).unwrap();
    let third = rig.backup_at(20, &BackupOptions::default());
    assert_eq!((third.files, third.files_new, third.files_unchanged, third.bytes_read), (5, 1, 3, 6));
    rig.restore(third.snapshot.unwrap(), "to").unwrap();
    lastgood_testkit::compare::assert_identical(&rig.path("tree"), &rig.restored("to", "files", &rig.path("tree")));
    rig.restore(first.snapshot.unwrap(), "first").unwrap();
    assert_eq!(fs_err::read(rig.restored("first", "files", &rig.path("tree")).join("a")).unwrap(), b"one");
}

#[test]
fn what_may_have_changed_within_the_same_time_stamp_is_read_again() {
    let (rig, _) = Rig::in_memory();
    rig.plant(&[("young", b"before")]);
    // It began before the file was written, as it does when a file is written while a backup runs.
    let first = rig.backup_at(-5, &BackupOptions::default());
    let second = rig.backup_at(10, &BackupOptions::default());
    assert_eq!((first.bytes_read, second.bytes_read, second.files_unchanged), (6, 6, 0));
    // Once it was seen by a backup that began later, it is old.
    let third = rig.backup_at(15, &BackupOptions::default());
    assert_eq!((third.bytes_read, third.files_unchanged), (0, 1));

    // Size, times and inode the same, content another: what a time stamp of coarse grain looks like.
    let repository = rig.open();
    let coarse = |content| {
        let sources: [Box<dyn Source>; 1] = [Box::new(Coarse(content))];
        let monitor = Arc::new(Monitor::new());
        backup::run(&repository, "coarse", &sources, &monitor, &BackupOptions::default()).unwrap()
    };
    let (one, two) = (coarse(b"first!"), coarse(b"second"));
    assert_eq!((one.bytes_read, two.bytes_read), (6, 6));
    rig.restore(two.snapshot.unwrap(), "to").unwrap();
    assert_eq!(fs_err::read(rig.path("to/coarse/f")).unwrap(), b"second");
}

/// One file whose metadata never changes and says that it is younger than any backup.
struct Coarse(&'static [u8]);

impl Source for Coarse {
    fn name(&self) -> &str {
        "coarse"
    }
    fn kind(&self) -> &'static str {
        "files"
    }
    fn origins(&self) -> Vec<String> {
        Vec::new()
    }
    fn probe(&self) -> Result<Vec<Finding>> {
        Ok(Vec::new())
    }
    fn capture(&self, sink: &dyn Sink, _: &Monitor) -> Result<Captured> {
        use lastgood_model::source::{Entry, FileReader, Read, Steady, TreeDir};
        use lastgood_model::{Node, NodeKind};
        struct Top(&'static [u8]);
        struct Content(Option<&'static [u8]>);
        impl TreeDir for Top {
            fn list(&self, _: &Monitor) -> Result<Vec<Entry>> {
                let mut node = Node::new("f", NodeKind::File);
                node.size = self.0.len() as u64;
                node.inode = 77;
                node.mtime = Time::new(4_102_444_800, 0);
                node.ctime = node.mtime;
                Ok(vec![Entry::new(node)])
            }
            fn open_dir(&self, _: &Entry) -> Result<Arc<dyn TreeDir>> {
                Err(Error::new(ErrorKind::Bug, "there is none"))
            }
            fn describe(&self, _: &mut Node, _: &Monitor) -> Result<()> {
                Ok(())
            }
            fn open_file(&self, _: &Entry, _: &Monitor) -> Result<Box<dyn FileReader>> {
                Ok(Box::new(Content(Some(self.0))))
            }
            fn path_of(&self, name: &[u8]) -> Vec<u8> {
                name.to_vec()
            }
        }
        impl FileReader for Content {
            fn read(&mut self, out: &mut Vec<u8>, _: usize) -> Result<Read> {
                let Some(content) = self.0.take() else { return Ok(Read::End) };
                out.extend_from_slice(content);
                Ok(Read::Data(content.len()))
            }
            fn finish(self: Box<Self>, _: &mut Node) -> Result<Steady> {
                Ok(Steady::Yes)
            }
        }
        sink.tree(b"", Node::new("coarse", NodeKind::Dir), Vec::new(), Arc::new(Top(self.0)))?;
        Ok(Captured::default())
    }
}

#[test]
fn databases_come_before_the_files_that_their_rows_refer_to() {
    let (rig, _) = Rig::in_memory();
    let tree = rig.plant(&[("upload", b"x")]);
    make_database(&rig.path("app.db"), 10);
    let report = rig.backup(&[files("a-files", [tree]), sqlite("z-db", &rig.path("app.db"))]).unwrap();
    let order: Vec<_> = report.sources.iter().map(|source| &*source.name).collect();
    assert_eq!(order, ["z-db", "a-files"]);
    let manifest = rig.manifest(report.snapshot.unwrap());
    assert!(!manifest.source("z-db").unwrap().facts.is_empty());
}

#[test]
fn a_dry_run_counts_and_keeps_nothing() {
    let (rig, store) = Rig::in_memory();
    rig.plant(&[("a", &[1; 5000])]);
    let before = store.keys();
    let report = rig.backup_at(5, &BackupOptions { dry_run: true, ..BackupOptions::default() });
    assert_eq!((report.snapshot, report.files, report.bytes_read), (None, 1, 5000));
    assert!(report.bytes_new >= 5000);
    assert_eq!(store.keys(), before);
}

/// Streams for ever, until somebody stops it.
struct Endless {
    written: Arc<AtomicUsize>,
}

impl Source for Endless {
    fn name(&self) -> &str {
        "endless"
    }
    fn kind(&self) -> &'static str {
        "test"
    }
    fn origins(&self) -> Vec<String> {
        Vec::new()
    }
    fn probe(&self) -> Result<Vec<Finding>> {
        Ok(Vec::new())
    }
    fn capture(&self, sink: &dyn Sink, _: &Monitor) -> Result<Captured> {
        let spec = StreamSpec {
            path: b"stream".to_vec(),
            chunking: Chunking::Rows,
            mode: 0o600,
            uid: 0,
            gid: 0,
            mtime: Time::default(),
            time_follows_content: false,
        };
        let mut writer = sink.stream(spec)?;
        let mut rng = lastgood_testkit::rng::Rng::new(1);
        // Far more than any test waits for; the verdict is only there to be wrong if it were ever given.
        for _ in 0..20_000 {
            writer.write(&rng.bytes(100_000))?;
            self.written.fetch_add(100_000, Relaxed);
        }
        writer.finish(Verdict { evidence: "never".into() })?;
        Ok(Captured::default())
    }
}

#[test]
fn a_backup_that_is_stopped_in_the_middle_makes_no_point_and_holds_no_lock() {
    let (rig, store) = Rig::in_memory();
    let monitor = Arc::new(Monitor::new());
    let (packs, stopping) = (AtomicUsize::new(0), monitor.clone());
    let watched = Watched::new(rig.store.clone(), move |op, key| {
        if op == Op::Put && key.is_some_and(|k| k.kind == ObjectKind::Pack) && packs.fetch_add(1, Relaxed) == 1 {
            stopping.cancel();
        }
    });
    let repository = rig.open_through(watched).unwrap();
    let written = Arc::new(AtomicUsize::new(0));
    let sources: [Box<dyn Source>; 1] = [Box::new(Endless { written: written.clone() })];
    let error = backup::run(&repository, "shop", &sources, &monitor, &BackupOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled, "{error:?}");
    assert!(written.load(Relaxed) < 300 << 20, "{} bytes were still taken", written.load(Relaxed));
    assert!(rig.snapshots().is_empty());
    assert!(store.keys().iter().all(|key| key.kind != ObjectKind::Lock));
}

#[test]
fn a_store_that_fails_is_not_the_misfortune_of_one_source() {
    let (rig, store) = Rig::in_memory();
    let written = Arc::new(AtomicUsize::new(0));
    rig.plant(&[("a", b"good")]);
    store.set_quota(Some(store.used_bytes() + (20 << 20)));
    let sources = [Box::new(Endless { written }) as Box<dyn Source>, files("files", [rig.path("tree")])];
    let error = rig.backup(&sources).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error:?}");
    assert!(rig.snapshots().is_empty());
    store.set_quota(None);
    assert!(rig.backup(&sources[1..]).unwrap().complete);
}

#[test]
fn a_point_that_an_earlier_one_claims_to_come_after_is_told() {
    let (rig, _) = Rig::in_memory();
    rig.plant(&[("a", b"a")]);
    let options = BackupOptions::default();
    assert_eq!(rig.backup_at(0, &options).dated_later, None);
    let early = rig.backup_at(86_400, &options);
    assert_eq!(early.dated_later, None);
    let later = rig.backup_at(1, &options).dated_later.unwrap();
    assert_eq!((Some(later.snapshot), later.time), (early.snapshot, early.started));
}

#[test]
fn a_file_read_again_is_cut_where_it_would_be_cut_without_its_past() {
    let (rig, _) = Rig::in_memory();
    let mut rng = Rng::new(23);
    let old = rng.bytes(14 << 20);
    let mut changed = old.clone();
    changed[5 << 20] ^= 1;
    let with = |from: usize, what: &[u8]| [&old[..from], what, &old[from..]].concat();
    let zeros = vec![0; 3 << 20];
    let variants = [
        old.clone(),
        old[..9_000_001].to_vec(),
        old[..600 << 10].to_vec(),
        Vec::new(),
        changed,
        [&old[..], b"appended"].concat(),
        [&old[..], &rng.bytes(6 << 20)].concat(),
        with(0, b"inserted"),
        with(7 << 20, b"inserted"),
        with(3 << 20, &zeros),
    ];
    let tree = rig.plant(&[("file", b"")]);
    let sources = [files("files", [tree.clone()])];
    let repository = rig.open();
    let content = |app: &str| {
        let options = BackupOptions { force: true, ..BackupOptions::default() };
        let report = backup::run(&repository, app, &sources, &Arc::new(Monitor::new()), &options).unwrap();
        let snapshot = repository.snapshot(report.snapshot.unwrap()).unwrap();
        let path = format!("{}/file", tree.display());
        let reader = repository.reader().unwrap();
        let node = lastgood_ops::browse::resolve(&reader, &snapshot, path.as_bytes()).unwrap().1.unwrap();
        let bytes: Vec<u8> = node.content.iter().flatten().flat_map(|id| reader.data(*id).unwrap()).collect();
        assert!(bytes == fs_err::read(tree.join("file")).unwrap(), "restores exactly");
        node.content
    };
    for (number, variant) in variants.iter().enumerate() {
        fs_err::write(tree.join("file"), &old).unwrap();
        content("known");
        fs_err::write(tree.join("file"), variant).unwrap();
        assert_eq!(content("known"), content(&format!("fresh-{number}")), "variant {number}");
    }
    rig.assert_sound();
}
