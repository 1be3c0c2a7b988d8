//! Runs that meet other runs, living and dead, and runs that are stopped.

use crate::support::{Shop, run};
use lastgood_repo::crypto::Password;
use lastgood_repo::{LockMode, OpenOptions, Repository};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

/// A backup that has begun and will not end by itself: its last source waits. Gives the backup and the waiting command.
fn begun(shop: &Shop) -> (Child, Pid) {
    let fifo = shop.path("began");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status().unwrap();
    assert!(made.success());
    let config = fs_err::read_to_string(shop.path("lastgood.toml")).unwrap();
    // The name comes before `shop` in no order: databases and commands are captured as they stand in the config.
    shop.config(&format!(
        "{config}\n[source.wait]\nkind = 'command'\ncommand = ['sh', '-c', 'echo $$ > began; exec sleep 600']\n"
    ));
    let child = shop.command(["backup"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(fs_err::File::open(&fifo).unwrap()).read_line(&mut line).unwrap();
    let waiting = Pid::from_raw(line.trim().parse().unwrap()).unwrap();
    fs_err::remove_file(&fifo).unwrap();
    shop.config(&config);
    (child, waiting)
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id().cast_signed()).unwrap()
}

#[test]
fn a_signal_ends_a_backup_without_a_recovery_point_and_the_next_run_works() {
    for signal in [Signal::INT, Signal::TERM] {
        let shop = Shop::protected();
        let (child, waiting) = begun(&shop);
        kill_process(pid(&child), signal).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(rustix::process::test_kill_process(waiting).is_err(), "its command does not outlive it");
        assert_eq!(shop.snapshots().len(), 1);
        assert!(shop.objects("locks").is_empty(), "its lock is gone");
        shop.run(["backup"]).ok();
        shop.run(["verify"]).ok();
    }
}

#[test]
fn a_killed_backup_leaves_nothing_in_the_way() {
    let shop = Shop::protected();
    fs_err::write(shop.path("uploads/new.bin"), vec![3; 200_000]).unwrap();
    let (mut child, waiting) = begun(&shop);
    child.kill().unwrap();
    child.wait().unwrap();
    kill_process(waiting, Signal::KILL).unwrap();
    assert_eq!(shop.objects("locks").len(), 1, "the lock of the dead");
    shop.run(["restore", "latest", "--to", shop.beside("to").to_str().unwrap()]).ok();
    shop.run(["check"]).ok();
    shop.run(["backup"]).ok();
    assert!(shop.objects("locks").is_empty(), "the next run cleared it away");
    assert_eq!(shop.snapshots().len(), 2);
    shop.run(["verify"]).ok();
}

#[test]
fn a_lock_of_a_living_process_is_respected() {
    let shop = Shop::protected();
    let store = lastgood_stores::open_url(shop.path("backups").to_str().unwrap()).unwrap();
    let repository = Repository::open(store, &Password::new(&shop.key()).unwrap(), OpenOptions::default()).unwrap();
    let lock = repository.lock(LockMode::Exclusive).unwrap();
    let backup = ["backup", "--lock-wait", "0s"];
    for arguments in [&backup[..], &["check"], &["verify"], &["restore", "latest", "--to", "out"]] {
        let (code, error) = shop.json(arguments);
        assert_eq!(code, Some(11), "{arguments:?}: {error}");
        assert!(
            error["message"].as_str().unwrap().contains(&std::process::id().to_string()),
            "it names the process: {error}"
        );
    }
    shop.run(["doctor"]).ends_with(1).says(&["locked by process"]);
    drop(lock);
    shop.run(["backup"]).ok();
}

#[test]
fn two_backups_at_once_both_make_a_whole_point() {
    let shop = Shop::protected();
    let begin =
        || shop.command(["backup", "--output", "json"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (one, two) = (begin(), begin());
    for child in [one, two] {
        let output = child.wait_with_output().unwrap();
        let told = [output.stdout, output.stderr].concat();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&told));
    }
    assert_eq!(shop.snapshots().len(), 3);
    shop.run(["verify"]).ok();
}

#[test]
#[ignore = "needs leave to mount a tmpfs: root, or user namespaces"]
fn a_full_disk_makes_no_point_and_says_to_make_room() {
    let shop = Shop::new();
    shop.run(["key", "generate", "lastgood.key"]).ok();
    fs_err::create_dir(shop.path("small")).unwrap();
    let noise: Vec<u8> =
        (0..1_000_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).rotate_left(n % 31).to_le_bytes()).collect();
    fs_err::write(shop.path("uploads/noise.bin"), noise).unwrap();
    shop.config(
        "[source.uploads]\nkind = 'files'\npaths = ['uploads']\n[repository.local]\nurl = 'small/backups'\nkey = { file = 'lastgood.key' }\n",
    );
    let script = format!(
        "mount -t tmpfs -o size=2m lastgood small || exit 99; '{0}' init || exit 98; '{0}' backup; code=$?; '{0}' snapshots; umount small; exit $code",
        env!("CARGO_BIN_EXE_lastgood")
    );
    let mut command = std::process::Command::new("unshare");
    command
        .args(["--mount", "--map-root-user", "sh", "-c", &script])
        .current_dir(shop.path(""))
        .env("HOME", shop.beside("home"));
    run(&mut command).ends_with(1).says(&[
        "make room",
        "last good recovery point: none",
        "There is no recovery point yet",
    ]);
}

#[test]
fn a_lock_whose_date_lies_in_the_future_is_explained_and_doctor_names_it() {
    let shop = Shop::protected();
    let clock = || {
        let now = lastgood_repo::lock::system_clock()();
        lastgood_model::Time::new(now.secs + 3 * 86_400 + 60, now.nanos)
    };
    let store = std::sync::Arc::new(lastgood_stores::LocalStore::new(shop.path("backups")).unwrap());
    let options = OpenOptions { clock: std::sync::Arc::new(clock), ..OpenOptions::default() };
    let repository = Repository::open(store, &Password::new(&shop.key()).unwrap(), options).unwrap();
    let guard = repository.lock(LockMode::Exclusive).unwrap();
    let lock = shop.objects("locks").remove(0);
    let process = format!("process {}", std::process::id());
    let place = format!("the object {}", lock.display());
    for (command, code) in [(&["backup", "--lock-wait", "0s"][..], 11), (&["doctor"], 1)] {
        let ran = shop.run(command).ends_with(code);
        ran.says(&[
            "is locked by",
            &process,
            "lies 3 days in the future",
            "clock",
            &format!("{process} still runs"),
            &place,
        ]);
    }
    drop(guard);
    shop.run(["backup"]).ok();
}
