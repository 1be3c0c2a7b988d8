//! A disk that becomes full while it is restored to. The test runs itself again in a private mount namespace, so that its
//! mount vanishes with that process however it ends.

use crate::rig::{Rig, restore_with};
use lastgood_model::ErrorKind;
use lastgood_ops::restore::RestoreRequest;
use lastgood_testkit::compare::assert_identical;
use lastgood_testkit::rng::Rng;
use std::path::Path;
use std::process::Command;

const INSIDE: &str = "LASTGOOD_TEST_IN_PRIVATE_MOUNTS";
const TEST: &str = "full_disk::a_full_disk_leaves_no_file_cut_short_and_the_restore_is_taken_up_again";

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
#[ignore = "needs leave to mount a tmpfs: root, or user namespaces"]
fn a_full_disk_leaves_no_file_cut_short_and_the_restore_is_taken_up_again() {
    if std::env::var_os(INSIDE).is_some() {
        let folder = tempfile::tempdir().unwrap();
        run(Command::new("mount").args(["-t", "tmpfs", "-o", "size=3m", "lastgood"]).arg(folder.path()));
        inside(folder.path());
        run(Command::new("umount").arg(folder.path()));
        return;
    }
    let me = std::env::current_exe().unwrap();
    let mut again = Command::new("unshare");
    again.args(["--mount", "--map-root-user"]).arg(me).args([TEST, "--exact", "--ignored", "--nocapture"]);
    let output = again.env(INSIDE, "1").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("1 passed"), "the test did not run: {said}");
}

fn inside(disk: &Path) {
    let rig = Rig::on_disk();
    let mut rng = Rng::new(3);
    let (big, small) = (rng.bytes(6 << 20), rng.bytes(40_000));
    let tree = rig.plant(&[("a/small", &small), ("b/big", &big), ("c/last", &small[1..])]);
    let id = rig.backup_tree().snapshot.unwrap();
    let request = || RestoreRequest::all_to(disk.join("to"));
    let error = restore_with(&rig.open(), id, request()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error:?}");
    let hint = error.hint().unwrap();
    for word in ["removed again", "b/big", "run the same command again", &id.short()] {
        assert!(hint.contains(word), "{word:?} is not in {hint:?}");
    }
    let restored = disk.join("to/files").join(tree.strip_prefix("/").unwrap());
    for name in ["a/small", "b/big", "c/last"] {
        if let Ok(content) = fs_err::read(restored.join(name)) {
            assert!(content == fs_err::read(tree.join(name)).unwrap(), "{name} is cut short");
        }
    }
    assert!(!restored.join("b/big").exists());

    run(Command::new("mount").args(["-o", "remount,size=20m"]).arg(disk));
    restore_with(&rig.open(), id, request()).unwrap();
    assert_identical(&tree, &restored);
}
