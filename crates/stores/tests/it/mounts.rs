//! File systems that are full or read-only. Each test runs itself again in a private mount namespace, so that its mounts
//! vanish with that process however it ends.

use crate::pack;
use lastgood_model::ErrorKind;
use lastgood_model::store::{ObjectKind, Store, StoreKey};
use lastgood_stores::LocalStore;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const INSIDE: &str = "LASTGOOD_TEST_IN_PRIVATE_MOUNTS";

/// Runs `inside` on a small empty tmpfs, in a process of its own. `name` is the calling test's path.
fn on_tmpfs(name: &str, inside: impl FnOnce(&Path)) {
    if std::env::var_os(INSIDE).is_some() {
        let folder = tempfile::tempdir().unwrap();
        run(Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "lastgood"]).arg(folder.path()));
        inside(folder.path());
        run(Command::new("umount").arg(folder.path()));
        return;
    }
    let me = std::env::current_exe().unwrap();
    let mut again = Command::new("unshare");
    again.args(["--mount", "--map-root-user"]).arg(me).args([name, "--exact", "--ignored", "--nocapture"]);
    let output = again.env(INSIDE, "1").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("1 passed"), "the test did not run: {said}");
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn names_in(folder: &Path) -> Vec<String> {
    fs_err::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
#[ignore = "needs leave to mount a tmpfs: root, or user namespaces"]
fn a_full_disk_is_told_and_leaves_no_half_object() {
    on_tmpfs("mounts::a_full_disk_is_told_and_leaves_no_half_object", |root| {
        let store = LocalStore::new(root).unwrap();
        store.create().unwrap();
        let object = vec![7u8; 300_000];
        let mut put = 0;
        let error = loop {
            match store.put(&pack(put), &[&object[..1000], &object[1000..]]) {
                Ok(()) => put += 1,
                Err(error) => break error,
            }
        };
        assert!((1..4).contains(&put), "{put} objects of 300 kB fit into 1 MiB");
        assert_eq!(error.kind(), ErrorKind::NoSpace, "{error:?}");
        assert!(error.chain().contains(&root.display().to_string()), "{error:?}");
        assert_eq!(names_in(&root.join(format!("data/{put:02x}"))), [""; 0], "its temporary is gone");
        assert_eq!(store.get(&pack(put)).unwrap_err().kind(), ErrorKind::Absent);
        store.sync().unwrap();
        for n in 0..put {
            assert!(store.get(&pack(n)).unwrap() == object, "{n}");
        }
        store.remove(&pack(0)).unwrap();
        store.put(&pack(put), &[&object]).unwrap();
        assert!(store.get(&pack(put)).unwrap() == object);
    });
}

#[test]
#[ignore = "needs leave to mount a tmpfs: root, or user namespaces"]
fn a_removed_pack_frees_its_space_though_it_was_being_read() {
    on_tmpfs("mounts::a_removed_pack_frees_its_space_though_it_was_being_read", |root| {
        let store = LocalStore::new(root).unwrap();
        store.create().unwrap();
        let object = vec![7u8; 600_000];
        let mut out = Vec::new();
        for n in 0..5 {
            store.put(&pack(n), &[&object]).unwrap();
            store.get_range(&pack(n), 5, 10, &mut out).unwrap();
            store.remove(&pack(n)).unwrap();
        }
    });
}

#[test]
#[ignore = "needs leave to mount a tmpfs: root, or user namespaces"]
fn a_repository_on_a_read_only_mount_is_read_and_changes_are_denied() {
    on_tmpfs("mounts::a_repository_on_a_read_only_mount_is_read_and_changes_are_denied", |root| {
        let store = LocalStore::new(root).unwrap();
        store.create().unwrap();
        store.put(&StoreKey::CONFIG, &[b"config"]).unwrap();
        store.put(&pack(1), &[b"bytes"]).unwrap();
        fs_err::write(root.join("keys/.tmp-1-0-deadbeef"), b"half").unwrap();
        run(Command::new("mount").args(["-o", "remount,ro"]).arg(root));

        let store = LocalStore::new(root).unwrap();
        assert_eq!(store.get(&StoreKey::CONFIG).unwrap(), b"config");
        let mut out = Vec::new();
        store.get_range(&pack(1), 1, 3, &mut out).unwrap();
        assert_eq!(out, b"yte");
        assert_eq!(store.size(&pack(1)).unwrap(), 5);
        assert_eq!(store.list(ObjectKind::Pack).unwrap(), [(pack(1).id, 5)]);
        store.sync().unwrap();
        store.put(&pack(1), &[b"bytes"]).expect("it is there already");
        store.sync().unwrap();
        store.create().expect("all folders are there already");

        let denied = |result: lastgood_model::Result<()>| {
            let error = result.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
            assert!(error.chain().contains(&root.display().to_string()), "{error:?}");
        };
        denied(store.put(&pack(2), &[b"new"]));
        denied(store.remove(&pack(1)));
        denied(store.sweep(Duration::ZERO).map(drop));
        assert_eq!(store.get(&pack(2)).unwrap_err().kind(), ErrorKind::Absent);
        assert_eq!(store.get(&pack(1)).unwrap(), b"bytes");
    });
}
