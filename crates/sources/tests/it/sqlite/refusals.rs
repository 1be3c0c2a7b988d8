//! What cannot be captured is refused in words that say what to do.

use super::*;
use lastgood_model::ErrorKind;
use lastgood_model::source::FindingLevel;
use lastgood_sources::sqlite::capture_file;
use std::time::Duration;

/// Capture, probe and file reader agree that it fails, and how.
fn check(db: &Path, kind: ErrorKind, says: &str, has_hint: bool) {
    let mut source = source(db, DigestLevel::Image);
    source.options.busy_timeout = Duration::from_millis(50);
    let sink = MemorySink::new();
    let error = source.capture(&sink, &Monitor::new()).unwrap_err();
    assert_eq!(error.kind(), kind, "{error:?}");
    assert!(error.chain().contains(says), "{error:?} does not say {says:?}");
    assert!(error.chain().contains(db.file_name().unwrap().to_str().unwrap()), "{error:?} does not name the file");
    assert_eq!(error.hint().is_some(), has_hint, "{error:?}: {:?}", error.hint());
    assert!(sink.stream_paths().is_empty());
    match source.probe() {
        Ok(findings) => {
            assert_eq!(findings[0].level, FindingLevel::Failure, "{findings:?}");
            assert!(findings[0].message.contains(says), "{findings:?}");
        }
        // What somebody keeps from us is told by its kind.
        Err(error) => assert!(error.kind() == kind && matches!(kind, ErrorKind::Locked | ErrorKind::Denied)),
    }
    if kind != ErrorKind::Locked {
        assert_eq!(capture_file(db).err().unwrap().kind(), kind);
    }
}

#[test]
fn the_log_of_a_database_that_was_cut_to_nothing_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("shop.db");
    let wal = folder.path().join("shop.db-wal");
    let log = {
        let app = Connection::open(&db).unwrap();
        app.pragma_update(None, "journal_mode", "wal").unwrap();
        app.execute_batch("CREATE TABLE t(a); INSERT INTO t VALUES (1)").unwrap();
        fs_err::read(&wal).unwrap()
    };
    fs_err::write(&db, "").unwrap();
    fs_err::write(&wal, &log).unwrap();
    check(&db, ErrorKind::Corrupt, "its log", true);
    assert!(fs_err::read(&wal).unwrap() == log);
    // An empty log is nobody's loss, and an empty file is an empty database.
    fs_err::write(&wal, "").unwrap();
    assert!(capture_file(&db).is_ok());
}

#[test]
fn foreign_and_damaged_files_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);

    let mut x = 88172645463325252u64;
    let random: Vec<u8> = std::iter::repeat_with(|| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        (x >> 24) as u8
    })
    .take(8192)
    .collect();
    fs_err::write(path("sqlcipher.db"), random).unwrap();
    check(&path("sqlcipher.db"), ErrorKind::Unsupported, "encrypted", true);

    fs_err::write(path("notes.txt"), "hello world\n".repeat(1000)).unwrap();
    check(&path("notes.txt"), ErrorKind::Corrupt, "is not a SQLite database", true);

    let whole = path("whole.db");
    bank(&whole, "delete");
    let bytes = fs_err::read(&whole).unwrap();
    fs_err::write(path("cut.db"), &bytes[..bytes.len() / 2]).unwrap();
    check(&path("cut.db"), ErrorKind::Corrupt, "is cut short", true);

    let mut damaged = bytes.clone();
    damaged[16..18].copy_from_slice(&[3, 3]);
    fs_err::write(path("header.db"), damaged).unwrap();
    check(&path("header.db"), ErrorKind::Corrupt, "header is damaged", true);

    let mut newer = bytes;
    newer[18..20].copy_from_slice(&[9, 9]);
    fs_err::write(path("newer.db"), newer).unwrap();
    check(&path("newer.db"), ErrorKind::Unsupported, "file format 9", true);

    fs_err::create_dir(path("folder.db")).unwrap();
    check(&path("folder.db"), ErrorKind::Invalid, "is a directory", true);
    check(&path("missing.db"), ErrorKind::Absent, "missing.db", false);
}

#[test]
fn a_file_of_no_bytes_is_an_empty_database() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("empty.db");
    fs_err::write(&db, "").unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let (copy, facts) = capture(&source(&db, DigestLevel::Full), &MemorySink::new(), scratch.path());
    assert_eq!((facts.bytes, facts.page_count, facts.rows.len()), (0, 0, 0));
    assert!(lastgood_sources::sqlite::verify_file(&copy, &facts).unwrap().is_ok());
    assert_eq!(source(&db, DigestLevel::Image).probe().unwrap()[0].level, FindingLevel::Ok);
}

#[test]
fn a_database_that_stays_locked_is_named_as_such_and_can_be_captured_afterwards() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("bank.db");
    bank(&db, "delete");
    let mut app = App::open(&db);
    app.must("BEGIN EXCLUSIVE");
    check(&db, ErrorKind::Locked, "locked", true);
    app.must("COMMIT");
    let scratch = tempfile::tempdir().unwrap();
    capture(&source(&db, DigestLevel::Image), &MemorySink::new(), scratch.path());
}

#[test]
fn reading_needs_read_access_and_a_log_mode_database_in_a_closed_folder_is_captured_from_a_copy() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let chmod = |path: &Path, mode| fs_err::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    let (db, secret) = (folder.path().join("bank.db"), folder.path().join("secret.db"));
    bank(&db, "wal");
    bank(&secret, "delete");
    chmod(&secret, 0o000);
    chmod(&db, 0o444);
    chmod(folder.path(), 0o555);
    chmod(scratch.path(), 0o777);
    let names = || fs_err::read_dir(folder.path()).unwrap().count();
    let before = fs_err::read(&db).unwrap();
    as_nobody(|| {
        check(&secret, ErrorKind::Denied, "secret.db", false);
        let mut source = source(&db, DigestLevel::Image);
        source.options.scratch = Some(scratch.path().to_owned());
        let (copy, facts) = capture(&source, &MemorySink::new(), scratch.path());
        assert_eq!(facts.method, lastgood_sources::sqlite::Method::RecoveredCopy);
        assert_eq!(state_of(&copy), (SUM, 0));
    });
    assert_eq!((names(), fs_err::read(&db).unwrap()), (2, before));
    chmod(folder.path(), 0o755);
}

/// Runs `act` without root's rights: in a thread of its own whose user is nobody, when the tests run as root.
fn as_nobody(act: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            if rustix::process::geteuid().is_root() {
                let nobody = rustix::thread::Uid::from_raw(65534);
                rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
            }
            act();
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
}
