//! Restores that were interrupted, by a wish to stop or by death: repeating them completes them, and nothing else may be
//! restored over them.

use crate::rig::{Rig, Watched, folder, make_database, restore_watched, restore_with, sqlite};
use lastgood_model::{ErrorKind, Monitor, SnapshotId};
use lastgood_ops::restore::RestoreRequest;
use lastgood_repo::crypto::Password;
use lastgood_repo::{OpenOptions, Repository};
use lastgood_stores::{LocalStore, Op, RecordStore};
use lastgood_testkit::compare::assert_identical;
use lastgood_testkit::rng::Rng;
use lastgood_testkit::tree_fixture::{self, Options};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

const MARK: &str = ".lastgood-restore";

/// An odd tree in a repository on disk, and its recovery point.
fn odd() -> (Rig, PathBuf, SnapshotId) {
    let rig = Rig::on_disk();
    let tree = rig.path("tree");
    let options = Options { small_files: 80, large_bytes: 6 << 20, sparse_bytes: 8 << 20, ..Options::default() };
    tree_fixture::build(&tree, &options).unwrap();
    let id = rig.backup_tree().snapshot.unwrap();
    (rig, tree, id)
}

#[test]
fn a_restore_that_was_stopped_is_completed_by_repeating_it() {
    let (rig, tree, id) = odd();
    let other = {
        fs_err::write(tree.join("names/plain"), "another point").unwrap();
        let other = rig.backup_tree().snapshot.unwrap();
        fs_err::write(tree.join("names/plain"), "named plain").unwrap();
        other
    };
    let total = calls_of_a_restore(&rig, id);
    let mut stopped = 0;
    for nth in [1, total / 4, total / 2, total * 5 / 8, total * 3 / 4, total * 7 / 8, total - 2, total + 1] {
        let to = format!("to-{nth}");
        let target = rig.path(&to);
        let monitor = Arc::new(Monitor::new());
        let (calls, stopping) = (AtomicU64::new(0), monitor.clone());
        let watched = Watched::new(rig.store.clone(), move |op, _| {
            if op == Op::GetRange && calls.fetch_add(1, Relaxed) + 1 == nth {
                stopping.cancel();
            }
        });
        let repository = rig.open_through(watched).unwrap();
        let outcome = restore_watched(&repository, id, RestoreRequest::all_to(&target), &monitor);
        if let Err(error) = outcome {
            assert_eq!(error.kind(), ErrorKind::Cancelled, "{error:?}");
            if target.exists() {
                stopped += 1;
                assert!(target.join(MARK).exists());
                // Another point must not be mixed into it.
                let mixed = rig.restore(other, &to).unwrap_err();
                assert_eq!(mixed.kind(), ErrorKind::Conflict, "{mixed:?}");
            }
        }
        let report = rig.restore(id, &to).unwrap();
        assert_eq!((report.failures_total, report.problems_total), (0, 0), "{report:?}");
        restore_original(&tree);
        assert_same_but_plain(&tree, &rig.restored(&to, "files", &tree));
        assert!(!target.join(MARK).exists());
        // And once more, now that all is there, nothing is written and nothing is said against it.
        let again = rig.restore(id, &to).unwrap();
        assert_eq!((again.bytes_written, again.failures_total), (0, 0));
    }
    assert!(stopped >= 2, "{stopped} restores were stopped in the middle");
}

/// How many ranges a whole restore asks the store for.
fn calls_of_a_restore(rig: &Rig, id: SnapshotId) -> u64 {
    let store = Arc::new(RecordStore::new(rig.store.clone()));
    let repository = rig.open_through(store.clone()).unwrap();
    store.reset();
    restore_with(&repository, id, RestoreRequest::all_to(rig.path("count"))).unwrap();
    store.counts().of(Op::GetRange).calls
}

/// The time of the one file that this test has written twice.
fn restore_original(tree: &Path) {
    let content = fs_err::read(tree.join("names/plain")).unwrap();
    assert_eq!(content, b"named plain");
}

/// Identical, but for the times of the file and directory that the test itself has touched since.
#[track_caller]
fn assert_same_but_plain(original: &Path, restored: &Path) {
    use lastgood_testkit::compare::{What, compare_trees, describe};
    let mut differences = compare_trees(original, restored).unwrap();
    differences.retain(|d| !(d.what == What::Mtime && d.path.starts_with(b"names")));
    assert!(differences.is_empty(), "{}", describe(&differences));
}

#[test]
fn a_restore_that_was_killed_is_completed_by_repeating_it() {
    const CHILD: &str = "LASTGOOD_TEST_RESTORE_CHILD";
    if let Some(orders) = std::env::var_os(CHILD) {
        return die_restoring(&orders.into_string().unwrap());
    }
    let (rig, tree, id) = odd();
    let total = calls_of_a_restore(&rig, id);
    let mut killed = 0;
    for nth in [2, total / 2, total * 5 / 8, total * 3 / 4, total * 7 / 8, total - 1, total + 1] {
        let to = rig.path(&format!("to-{nth}"));
        let orders = format!("{}|{}|{id}|{nth}", rig.dir.path().display(), to.display());
        let name = "resume::a_restore_that_was_killed_is_completed_by_repeating_it";
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(CHILD, orders)
            .output()
            .unwrap();
        let was_killed = child.status.signal() == Some(9);
        assert!(was_killed || child.status.success(), "{}", String::from_utf8_lossy(&child.stderr));
        killed += u32::from(was_killed && to.join(MARK).exists());
        let report = rig.restore(id, &format!("to-{nth}")).unwrap();
        assert_eq!((report.failures_total, report.problems_total), (0, 0), "{report:?}");
        assert_identical(&tree, &rig.restored(&format!("to-{nth}"), "files", &tree));
        assert_eq!(fs_err::read_dir(&to).unwrap().count(), 1, "something besides the source stayed in the target");
    }
    assert!(killed >= 3, "{killed} children were killed");
    // The dead left locks; whoever writes next clears them away.
    rig.backup_tree();
    assert_eq!(fs_err::read_dir(rig.path("repo/locks")).unwrap().count(), 0);
}

/// The child's part: restores, and kills itself when the store is asked for the nth range.
fn die_restoring(orders: &str) {
    let words: Vec<&str> = orders.split('|').collect();
    let (home, to, id) = (Path::new(words[0]), Path::new(words[1]), words[2].parse().unwrap());
    let nth: u64 = words[3].parse().unwrap();
    let password = Password::new(&fs_err::read_to_string(home.join("password")).unwrap()).unwrap();
    let calls = AtomicU64::new(0);
    let watched = Watched::new(Arc::new(LocalStore::new(home.join("repo")).unwrap()), move |op, _| {
        if op == Op::GetRange && calls.fetch_add(1, Relaxed) + 1 == nth {
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).unwrap();
        }
    });
    let repository = Arc::new(Repository::open(watched, &password, OpenOptions::default()).unwrap());
    restore_with(&repository, id, RestoreRequest::all_to(to)).unwrap();
}

#[test]
fn directories_above_a_chosen_path_get_their_metadata_also_when_the_restore_is_resumed() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let (rig, _) = Rig::in_memory();
    let tree = rig.plant(&[("one/deep/large", &Rng::new(1).bytes(40 << 20))]);
    for (path, mode) in [("one", 0o751), ("one/deep", 0o711)] {
        fs_err::set_permissions(tree.join(path), PermissionsExt::from_mode(mode)).unwrap();
    }
    let id = rig.backup_tree().snapshot.unwrap();
    let request = RestoreRequest {
        paths: vec![tree.join("one/deep/large").to_str().unwrap().as_bytes().to_vec()],
        ..RestoreRequest::all_to(rig.path("to"))
    };
    // Stopped while the file is being fetched: the directories are there, still private.
    let monitor = Arc::new(Monitor::new());
    let (stopping, at) = (monitor.clone(), rig.restored("to", "files", &tree));
    let made = at.clone();
    let watched = Watched::new(rig.store.clone(), move |op, _| {
        if op == Op::GetRange && made.join("one/deep").exists() {
            stopping.cancel();
        }
    });
    let repository = rig.open_through(watched).unwrap();
    let error = restore_watched(&repository, id, request.clone(), &monitor).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert!(rig.path("to").join(MARK).exists() && at.join("one/deep").exists());
    restore_with(&rig.open(), id, request).unwrap();
    for path in ["one", "one/deep"] {
        let (is, was) = (fs_err::metadata(at.join(path)).unwrap(), fs_err::metadata(tree.join(path)).unwrap());
        assert_eq!((is.mode(), is.mtime(), is.mtime_nsec()), (was.mode(), was.mtime(), was.mtime_nsec()), "{path}");
    }
}

#[test]
fn a_database_is_swapped_in_by_the_run_after_one_that_was_stopped() {
    let rig = Rig::on_disk();
    let home = folder();
    let database = home.path().join("app.db");
    make_database(&database, 0);
    let sql = "with recursive n(i) as (select 1 union all select i + 1 from n where i < 40000)
               insert into item (body) select randomblob(1000) from n";
    rusqlite::Connection::open(&database).unwrap().execute_batch(sql).unwrap();
    let id = rig.backup(&[sqlite("db", &database)]).unwrap().snapshot.unwrap();
    crate::rig::add_rows(&database, 1);
    let request = RestoreRequest { to: lastgood_ops::restore::Destination::InPlace, ..RestoreRequest::all_to("/") };
    let monitor = Arc::new(Monitor::new());
    let (calls, stopping) = (AtomicU64::new(0), monitor.clone());
    let scratch = home.path().to_owned();
    let watched = Watched::new(rig.store.clone(), move |op, _| {
        let begun =
            fs_err::read_dir(&scratch).unwrap().flatten().any(|e| e.file_name().to_string_lossy().starts_with(MARK));
        if op == Op::GetRange && begun && calls.fetch_add(1, Relaxed) == 0 {
            stopping.cancel();
        }
    });
    let stopped = restore_watched(&rig.open_through(watched).unwrap(), id, request.clone(), &monitor);
    if stopped.is_err() {
        assert_eq!(crate::rig::count_rows(&database), 40_002, "a stopped restore touched the database");
    }
    restore_with(&rig.open(), id, request).unwrap();
    assert_eq!(crate::rig::count_rows(&database), 40_001);
    let left: Vec<_> = fs_err::read_dir(home.path()).unwrap().flatten().map(|e| e.file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().starts_with(MARK)), "{left:?}");
    assert!(stopped.is_err(), "the restore was not stopped");
}
