//! What `doctor` tries for real: writing into the repository, reading the sources, finding the repository at all.

use crate::support::{Ran, Shop, run};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;

/// Runs it as a user for whom permissions count.
pub(crate) fn as_somebody(shop: &Shop, arguments: &[&str]) -> Ran {
    let mut command = shop.command(arguments);
    command.env("LASTGOOD_KEY", shop.key());
    if rustix::process::geteuid().is_root() {
        command.uid(65534).gid(65534);
    }
    run(&mut command)
}

/// Gives everything below a folder these permissions.
pub(crate) fn open_up(path: &Path, of_folders: u32, of_files: u32) {
    let set = |path: &Path, mode| fs_err::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    if path.is_dir() {
        set(path, 0o700);
        fs_err::read_dir(path).unwrap().for_each(|e| open_up(&e.unwrap().path(), of_folders, of_files));
    }
    set(path, if path.is_dir() { of_folders } else { of_files });
}

#[test]
fn a_repository_that_takes_no_packs_is_in_the_way() {
    let shop = Shop::protected();
    shop.run(["doctor"]).ok().says(&["it can be written to", "Nothing is in the way"]);
    let before = shop.objects("data");
    open_up(&shop.path("backups"), 0o777, 0o444);
    open_up(&shop.path("backups/data"), 0o555, 0o444);
    let ran = as_somebody(&shop, &["doctor"]).ends_with(1).says(&[
        "opens with its key",
        "it cannot be written to: restores work, backups do not",
        "backups/data/",
        "Permission denied",
        "give this user the permission",
    ]);
    assert!(!ran.stdout.contains("Nothing is in the way"));
    open_up(&shop.path("backups"), 0o700, 0o600);
    assert_eq!(shop.objects("data"), before, "nothing is left behind");
    assert_eq!(shop.objects("locks").len(), 0);
}

#[test]
fn a_file_that_cannot_be_read_is_in_the_way_unless_it_is_excluded() {
    let shop = Shop::protected();
    open_up(&shop.path("backups"), 0o777, 0o666);
    fs_err::write(shop.path("uploads/deep/secret.txt"), "x").unwrap();
    open_up(&shop.path("uploads/deep/secret.txt"), 0, 0);
    let ran = as_somebody(&shop, &["doctor"]).ends_with(1);
    ran.says(&["uploads/deep/secret.txt: Permission denied", "or exclude it"]);
    let config = fs_err::read_to_string(shop.path("lastgood.toml")).unwrap();
    shop.config(&config.replace("paths = ", "exclude = ['secret.txt']\npaths = "));
    let ran = as_somebody(&shop, &["doctor"]);
    assert!(!ran.stdout.contains("secret.txt"), "{ran:?}");
}

#[test]
fn a_repository_that_is_not_where_it_should_be_is_looked_for_and_not_made_anew() {
    let shop = Shop::protected();
    let aside = shop.beside("aside");
    fs_err::rename(shop.path("backups"), &aside).unwrap();
    let init = "Only where there never was one";
    for command in ["backup", "doctor"] {
        let ran = shop.run([command]);
        assert_eq!(ran.code, Some(if command == "backup" { 10 } else { 1 }), "{ran:?}");
        ran.says(&["the folder is gone: is its disk mounted", init]);
    }
    fs_err::create_dir(shop.path("backups")).unwrap();
    shop.run(["backup"]).ends_with(10).says(&["empty: is its disk mounted?", init]);
    fs_err::write(shop.path("backups/letter.txt"), "x").unwrap();
    let ran = shop.run(["backup"]).ends_with(10).says(&["holds something else"]);
    assert!(!ran.stderr.contains("lastgood init"), "{ran:?}");
    fs_err::remove_dir_all(shop.path("backups")).unwrap();
    fs_err::rename(&aside, shop.path("backups")).unwrap();

    let config = fs_err::read(shop.path("backups/config")).unwrap();
    for damaged in [None, Some(&b""[..]), Some(&config[1..])] {
        fs_err::remove_file(shop.path("backups/config")).unwrap();
        if let Some(bytes) = damaged {
            fs_err::write(shop.path("backups/config"), bytes).unwrap();
        }
        for command in ["backup", "check"] {
            let ran = shop.run([command]).ends_with(5);
            let ran = ran.says(&["the `config` object of the repository", "from another copy of the repository"]);
            assert!(!ran.stderr.contains("lastgood init") && !ran.stderr.contains("`lastgood check`"), "{ran:?}");
        }
        fs_err::write(shop.path("backups/config"), &config).unwrap();
    }
    for key in shop.objects("keys") {
        fs_err::rename(&key, shop.beside("key-object")).unwrap();
        let ran = shop.run(["backup"]).ends_with(5).says(&["no object in keys/", "another copy"]);
        assert!(!ran.stderr.contains("init"), "{ran:?}");
        fs_err::rename(shop.beside("key-object"), &key).unwrap();
    }
    shop.run(["check"]).ok();
}

#[test]
fn what_killed_proofs_and_restores_have_left_is_named_with_how_to_remove_it() {
    let shop = Shop::protected();
    // Other things may lie in the system's own folder for temporary files.
    fs_err::create_dir(shop.beside("tmp")).unwrap();
    let doctor = || run(shop.command(["doctor"]).env("TMPDIR", shop.beside("tmp")));
    assert!(!doctor().ok().stdout.contains("leftovers"));
    // No process has a number as high as this.
    let proof = shop.path("lastgood-proof-4194400-0");
    fs_err::create_dir(&proof).unwrap();
    let restore = shop.path(".lastgood-restore-4194400-0");
    fs_err::create_dir(&restore).unwrap();
    let mine = shop.path(format!("lastgood-proof-{}-0", std::process::id()));
    fs_err::create_dir(&mine).unwrap();
    shop.sql("DELETE FROM orders");
    shop.run(["restore", "latest", "--in-place", "--source", "shop", "--yes"]).ok();
    assert!(!restore.exists(), "that of a database is removed by the next restore of it");
    fs_err::create_dir(&restore).unwrap();
    fs_err::write(shop.path("uploads/x.db-wal.before-restore-0"), "x").unwrap();
    let ran = doctor().ok().says(&[
        &format!("rm -r {}", proof.display()),
        &format!("rm -r {}", restore.display()),
        "unencrypted",
        "shop.db.before-",
        "x.db-wal.before-restore-0",
        "when you are sure",
    ]);
    assert!(!ran.stdout.contains(mine.to_str().unwrap()), "a proof that is running is left alone");
    let (code, report) = shop.json(["doctor"]);
    assert!(code == Some(0) && report["warnings"].as_u64() >= Some(3), "{report}");
    shop.run(["protect", "./shop.db"]).ok();
    assert!(!proof.exists() && mine.exists());
}
