//! A restored database takes the old one's place, or nothing is lost.

use super::*;
use lastgood_model::{ErrorKind, Time};
use lastgood_sources::sqlite::{Step, SwapOptions, plan_swap, swap_in};
use std::os::unix::fs::PermissionsExt;

struct Place {
    folder: tempfile::TempDir,
    live: PathBuf,
    restored: PathBuf,
}

/// A live database with three transfers and a restored one with none.
fn place(mode: &str) -> Place {
    let folder = tempfile::tempdir().unwrap();
    let (live, restored) = (folder.path().join("bank.db"), folder.path().join("restored.db"));
    bank_with_filler(&live, mode, 100);
    fs_err::copy(&live, &restored).unwrap();
    let mut app = App::open(&live);
    for n in 1..=3 {
        app.must(&transfer(n));
    }
    drop(app);
    Place { folder, live, restored }
}

impl Place {
    /// A crash of the application with three transfers committed: in the log, or beside a hot journal.
    fn crash(&self, mode: &str) {
        let mut app = App::open(&self.live);
        if mode == "wal" {
            app.must(&transfer(4));
        } else {
            app.must(&transfer(4));
            app.must("PRAGMA cache_size = 1; BEGIN; UPDATE account SET balance = 0, note = 'torn'; UPDATE filler SET b = randomblob(4000) WHERE id < 50");
        }
        app.kill();
    }
}

fn options() -> SwapOptions {
    SwapOptions {
        now: Some(Time::new(1_700_000_000, 0)),
        busy_timeout: std::time::Duration::ZERO,
        ..SwapOptions::default()
    }
}

#[test]
fn the_new_database_is_in_place_and_the_old_one_is_kept_and_opens() {
    let place = place("wal");
    fs_err::set_permissions(&place.live, std::fs::Permissions::from_mode(0o640)).unwrap();
    let plan = plan_swap(&place.restored, &place.live, options()).unwrap();
    let shown = plan.to_string();
    assert!(shown.contains("rename") && shown.contains("bank.db.before-20231114T221320Z"), "{shown}");
    assert!(!plan.steps.iter().any(|s| matches!(s, Step::Remove(_))), "at every moment a database is there: {shown}");
    let report = plan.execute().unwrap();
    assert_eq!(state_of(&place.live), (SUM, 0));
    assert_eq!(report.kept.len(), 1);
    assert_eq!(state_of(&report.kept[0]), (SUM, 3));
    assert!(!place.restored.exists());
    assert_eq!(fs_err::metadata(&place.live).unwrap().permissions().mode() & 0o7777, 0o640);
}

#[test]
fn the_log_or_journal_of_a_crashed_application_goes_with_the_old_database() {
    for mode in ["wal", "delete"] {
        let place = place(mode);
        place.crash(mode);
        let report = swap_in(&place.restored, &place.live).unwrap();
        assert!(report.kept.len() > 1, "{report:?}");
        for suffix in ["-wal", "-journal", "-shm"] {
            assert!(!place.folder.path().join(format!("bank.db{suffix}")).exists(), "{suffix}");
        }
        assert_eq!(state_of(&place.live), (SUM, 0));
        assert_eq!(state_of(&report.kept[0]), (SUM, 4), "{mode}");
    }
}

#[test]
fn interrupted_after_any_step_the_old_database_or_the_new_one_opens_and_swapping_again_finishes() {
    for mode in ["wal", "delete", "clean"] {
        for stop_after in 0.. {
            let place = place(if mode == "delete" { "delete" } else { "wal" });
            if mode != "clean" {
                place.crash(mode);
            }
            let transfers = if mode == "clean" { 3 } else { 4 };
            let plan = plan_swap(&place.restored, &place.live, options()).unwrap();
            let kept = plan.kept[0].clone();
            if stop_after > plan.steps.len() {
                break;
            }
            let put = plan.steps.iter().position(|s| matches!(s, Step::Put { .. })).unwrap();
            plan.execute_steps(stop_after).unwrap();

            // Judged on a copy of the whole folder, since opening a database recovers it.
            let seen = tempfile::tempdir().unwrap();
            for entry in fs_err::read_dir(place.folder.path()).unwrap() {
                let entry = entry.unwrap();
                fs_err::copy(entry.path(), seen.path().join(entry.file_name())).unwrap();
            }
            let there = |path: &Path| seen.path().join(path.file_name().unwrap());
            let case = format!("{mode}, stopped after {stop_after}");
            if stop_after > put {
                assert_eq!(state_of(&there(&place.live)), (SUM, 0), "{case}");
            } else if there(&kept).exists() && !there(&place.live).exists() {
                assert_eq!(state_of(&there(&kept)), (SUM, transfers), "{case}");
            } else {
                assert_eq!(state_of(&there(&place.live)), (SUM, transfers), "{case}");
            }

            if stop_after <= put {
                let report = swap_in(&place.restored, &place.live).unwrap();
                assert_eq!(state_of(&report.destination), (SUM, 0), "{case}");
                let oldest = if kept.exists() { &kept } else { &report.kept[0] };
                assert_eq!(state_of(oldest), (SUM, transfers), "{case}");
            }
        }
    }
}

#[test]
fn a_database_in_use_is_not_replaced_unless_forced() {
    for mode in ["wal", "delete"] {
        let place = place(mode);
        let mut app = App::open(&place.live);
        // In rollback mode an idle application holds no lock at all; only its open file gives it away.
        app.must("SELECT 1 FROM account WHERE id = -1");
        let before = fs_err::read(&place.live).unwrap();
        let plan = plan_swap(&place.restored, &place.live, options()).unwrap();
        assert!(plan.to_string().contains("in use by sqlite3"), "{plan}");
        let error = plan.execute().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Locked);
        assert!(error.chain().contains("sqlite3 (process"), "{error:?}");
        assert!(error.hint().unwrap().contains("stop the application"));
        assert_eq!(fs_err::read(&place.live).unwrap(), before);
        assert!(place.restored.exists());

        let forced = SwapOptions { force: true, ..options() };
        let report = plan_swap(&place.restored, &place.live, forced).unwrap().execute().unwrap();
        assert!(report.warnings.iter().any(|w| w.contains("still use the old database")), "{report:?}");
        drop(app);
        assert_eq!(state_of(&place.live), (SUM, 0));
    }
}

#[test]
fn a_new_file_that_is_damaged_or_not_what_was_captured_changes_nothing() {
    let place = place("wal");
    let scratch = tempfile::tempdir().unwrap();
    let (_, facts) = capture(&source(&place.live, DigestLevel::Image), &MemorySink::new(), scratch.path());
    let checked = SwapOptions { facts: Some(facts), ..options() };
    let error = plan_swap(&place.restored, &place.live, checked).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.chain().contains("SHA-256 of the file") || error.chain().contains("file size"), "{error:?}");

    let mut bytes = fs_err::read(&place.restored).unwrap();
    bytes[4096 * 20..4096 * 21].fill(0xee);
    fs_err::write(&place.restored, bytes).unwrap();
    assert_eq!(swap_in(&place.restored, &place.live).unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(state_of(&place.live), (SUM, 3));
    assert!(swap_in(&place.live, &place.live).is_err());
}

#[test]
fn without_an_old_database_the_new_one_is_put_there_and_a_stale_log_is_taken_away_first() {
    let place = place("wal");
    place.crash("wal");
    fs_err::remove_file(&place.live).unwrap();
    let report = swap_in(&place.restored, &place.live).unwrap();
    assert_eq!(state_of(&place.live), (SUM, 0));
    assert!(report.kept.iter().any(|k| k.to_str().unwrap().ends_with("-wal")), "{report:?}");
    let elsewhere = place.folder.path().join("new.db");
    fs_err::copy(&place.live, place.folder.path().join("again.db")).unwrap();
    let report = swap_in(&place.folder.path().join("again.db"), &elsewhere).unwrap();
    assert!(report.kept.is_empty());
    assert_eq!(state_of(&elsewhere), (SUM, 0));
}

#[test]
fn what_changed_since_the_plan_was_made_stops_it() {
    let place = place("wal");
    let plan = plan_swap(&place.restored, &place.live, options()).unwrap();
    place.crash("wal");
    let error = plan.execute().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.chain().contains("came since the plan was made"), "{error:?}");
    assert!(place.restored.exists());
}
