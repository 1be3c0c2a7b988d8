use crate::support::{Shop, damage, largest, run};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;

#[test]
fn a_recovery_point_comes_back_into_a_folder_and_nothing_is_overwritten() {
    let shop = Shop::protected();
    let to = shop.beside("restored");
    shop.run(["restore", "latest", "--to", to.to_str().unwrap()]).ok().says(&["Restored recovery point", "4 files"]);
    assert_eq!(Shop::items(&to.join("shop/shop.db")), ["tea", "cup", "pot"]);
    for (name, content) in [("a.txt", "first"), ("deep/c.txt", "deep")] {
        assert_eq!(fs_err::read_to_string(shop.restored_upload(&to, name)).unwrap(), content);
    }
    fs_err::write(shop.restored_upload(&to, "a.txt"), "mine now").unwrap();
    shop.run(["restore", "latest", "--to", to.to_str().unwrap()]).ends_with(4).says(&["exists already", "--overwrite"]);
    assert_eq!(fs_err::read_to_string(shop.restored_upload(&to, "a.txt")).unwrap(), "mine now");
    shop.run(["restore", "latest", "--to", to.to_str().unwrap(), "--overwrite"]).ok().says(&["were the same already"]);
    assert_eq!(fs_err::read_to_string(shop.restored_upload(&to, "a.txt")).unwrap(), "first");
}

#[test]
fn only_what_was_asked_for_is_restored() {
    let shop = Shop::protected();
    let to = shop.beside("one");
    shop.run([
        "restore",
        "latest",
        "--to",
        to.to_str().unwrap(),
        "--source",
        "uploads",
        "--path",
        shop.path("uploads/deep").to_str().unwrap(),
    ])
    .ok();
    assert!(shop.restored_upload(&to, "deep/c.txt").exists());
    assert!(!shop.restored_upload(&to, "a.txt").exists() && !to.join("shop").exists());
    shop.run(["restore", "latest", "--to", to.to_str().unwrap(), "--path", "uploads/none"]).ends_with(14);
    shop.run(["restore", "latest", "--to", to.to_str().unwrap(), "--source", "none"])
        .ends_with(14)
        .says(&["it has: shop, uploads"]);
    let (code, plan) = shop.json(["restore", "latest", "--to", shop.beside("two").to_str().unwrap(), "--dry-run"]);
    assert_eq!((code, plan["type"].as_str()), (Some(0), Some("lastgood.restore-plan")));
    assert!(!shop.beside("two").exists());
}

#[test]
fn removing_what_is_extra_shows_a_plan_and_wants_a_yes() {
    let shop = Shop::protected();
    let to = shop.beside("restored");
    let words = ["restore", "latest", "--to", to.to_str().unwrap(), "--overwrite", "--delete"];
    shop.run(["restore", "latest", "--to", to.to_str().unwrap()]).ok();
    let extra = shop.restored_upload(&to, "extra.txt");
    fs_err::write(&extra, "x").unwrap();
    let named = [extra.to_str().unwrap(), "To be REMOVED", "1 entry, 1 B", "Plan:"];
    shop.run(words).ends_with(4).says(&named).says(&["nothing was changed", "--yes"]);
    shop.run(words.iter().chain(&["--dry-run"])).ok().says(&named);
    let (code, plan) = shop.json(words.iter().chain(&["--dry-run"]));
    assert_eq!((code, plan["removals"]["paths"][0].as_str()), (Some(0), extra.to_str()), "{plan}");
    assert!(extra.exists());
    shop.run(words.iter().chain(&["--yes"])).ok().says(&["were removed"]);
    assert!(!extra.exists());
}

#[test]
fn in_place_shows_a_plan_first_and_swaps_the_database_in() {
    let shop = Shop::protected();
    shop.sql("DELETE FROM orders");
    fs_err::remove_file(shop.path("uploads/a.txt")).unwrap();
    fs_err::write(shop.path("uploads/b.jpg"), "scribbled").unwrap();
    for arguments in [&["restore", "latest", "--in-place"][..], &["restore", "latest", "--in-place", "--dry-run"]] {
        let ran = shop.run(arguments).says(&["Plan:", "swapped in as a whole", "missing", "differs"]);
        assert_eq!(ran.code, Some(if arguments.contains(&"--dry-run") { 0 } else { 4 }));
        assert!(!shop.path("uploads/a.txt").exists());
        assert!(Shop::items(&shop.path("shop.db")).is_empty());
    }
    shop.run(["restore", "latest", "--in-place", "--yes"]).ok().says(&["Swapped in", "keep"]);
    assert_eq!(Shop::items(&shop.path("shop.db")), ["tea", "cup", "pot"]);
    assert_eq!(fs_err::read_to_string(shop.path("uploads/a.txt")).unwrap(), "first");
    assert_eq!(fs_err::read_to_string(shop.path("uploads/b.jpg")).unwrap(), "picture");
    let kept = fs_err::read_dir(shop.path(""))
        .unwrap()
        .filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().contains(".before-"))
        .count();
    assert!(kept >= 1, "the old database is kept");
}

#[test]
fn a_database_in_use_is_not_swapped_away_under_its_user() {
    let shop = Shop::protected();
    let user = rusqlite::Connection::open(shop.path("shop.db")).unwrap();
    user.execute_batch("INSERT INTO orders (item) VALUES ('newer')").unwrap();
    fs_err::write(shop.path("uploads/a.txt"), "newer").unwrap();
    let ran = shop.run(["restore", "latest", "--in-place", "--yes"]);
    assert!(matches!(ran.code, Some(4 | 11)), "{ran:?}");
    assert_eq!(Shop::items(&shop.path("shop.db")), ["tea", "cup", "pot", "newer"]);
    assert_eq!(fs_err::read_to_string(shop.path("uploads/a.txt")).unwrap(), "newer", "files stay with their database");
}

#[test]
fn from_nothing_but_the_repository_and_its_key() {
    let shop = Shop::protected();
    let elsewhere = Shop::new();
    let repo = shop.path("backups");
    let key = shop.path("lastgood.key");
    let restored = |to: &str| Shop::items(&elsewhere.path(to).join("shop/shop.db"));
    let words = |to: &str| ["restore", "latest", "--repo", repo.to_str().unwrap(), "--to", to].map(str::to_owned);
    run(elsewhere.command(words("one")).arg("--key-file").arg(&key)).ok();
    run(elsewhere.command(words("two")).env("LASTGOOD_KEY_FILE", &key)).ok();
    run(elsewhere.command(words("three")).env("LASTGOOD_KEY", shop.key())).ok();
    for to in ["one", "two", "three"] {
        assert_eq!(restored(to), ["tea", "cup", "pot"]);
    }
    run(&mut elsewhere.command(words("four"))).ends_with(12).says(&["--key-file FILE"]);
    // A config that cannot be used does not stand in the way.
    elsewhere.config("this is no TOML");
    run(elsewhere.command(words("five")).arg("--key-file").arg(&key))
        .ok()
        .says(&["warning: the config is passed over"]);
    // A file URL, too.
    let url = format!("file://{}", repo.display());
    elsewhere.run(["snapshots", "--repo", &url, "--key-file", key.to_str().unwrap()]).ok();
}

#[test]
fn a_repository_that_cannot_be_written_can_be_restored_from() {
    let shop = Shop::protected();
    let readable =
        |path: &std::path::Path, mode| fs_err::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    readable(&shop.path("lastgood.key"), 0o644);
    let mut folders = vec![shop.path("backups")];
    while let Some(folder) = folders.pop() {
        for entry in fs_err::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { readable(&path, 0o444) }
        }
        readable(&folder, 0o555);
    }
    let home = shop.beside("nobody");
    fs_err::create_dir(&home).unwrap();
    readable(&home, 0o777);
    // Root may write everywhere, so somebody else does it.
    let as_somebody = |arguments: &[&str]| {
        let mut command = shop.command(arguments);
        command.env("HOME", &home);
        if rustix::process::geteuid().is_root() {
            command.uid(65534).gid(65534);
        }
        run(&mut command)
    };
    let to = home.join("restored");
    as_somebody(&["restore", "latest", "--to", to.to_str().unwrap()]).ok();
    assert_eq!(Shop::items(&to.join("shop/shop.db")), ["tea", "cup", "pot"]);
    as_somebody(&["check"]).ok().says(&["no lock could be taken"]);
    as_somebody(&["verify"]).ok();
    as_somebody(&["snapshots"]).ok().says(&["key file", "chmod 600"]);
    as_somebody(&["backup"]).ends_with(15).says(&["unprotected now", "the repository at", "restores from it work"]);
    as_somebody(&["doctor"]).says(&["it cannot be written to: restores work, backups do not"]);
    // So that the folder can be removed again.
    let mut folders = vec![shop.path("backups")];
    while let Some(folder) = folders.pop() {
        readable(&folder, 0o755);
        folders.extend(fs_err::read_dir(&folder).unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_dir()));
    }
}

#[test]
fn damage_is_named_by_object_point_and_path_and_no_wrong_byte_is_restored() {
    let shop = Shop::new();
    let content: Vec<u8> = (0..400_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    fs_err::write(shop.path("uploads/big.bin"), &content).unwrap();
    shop.run(["protect", "./shop.db", "./uploads"]).ok();
    let point = shop.snapshots().pop().unwrap();
    let pack = largest(shop.objects("data"));
    damage(&pack);
    let pack_name = pack.file_name().unwrap().to_str().unwrap().to_owned();

    shop.run(["check"]).ok();
    shop.run(["verify"]).ends_with(5).says(&[
        "DAMAGED",
        &pack_name,
        &point[..8],
        "big.bin",
        "Next:",
        "Last good recovery point: none",
    ]);
    let (code, report) = shop.json(["verify"]);
    assert_eq!((code, report["snapshots_affected"][0].as_str()), (Some(5), Some(point.as_str())));
    let to = shop.beside("restored");
    shop.run(["restore", "latest", "--to", to.to_str().unwrap(), "--no-cache"]).ends_with(5).says(&[
        "NOT restored",
        "big.bin",
        "damaged in the repository",
    ]);
    assert!(!shop.restored_upload(&to, "big.bin").exists(), "not a wrong byte");
    assert_eq!(fs_err::read_to_string(shop.restored_upload(&to, "a.txt")).unwrap(), "first", "what is sound is there");

    fs_err::remove_file(&pack).unwrap();
    shop.run(["check"]).ends_with(5).says(&[&pack_name, &point[..8]]);

    // A listing that breaks off is still one document, which says so and why.
    for pack in shop.objects("data") {
        fs_err::remove_file(pack).unwrap();
    }
    let (code, list) = shop.json(["ls", "latest", "-R"]);
    assert!(code != Some(0) && list["type"] == "lastgood.error" || list["complete"] == false, "{code:?} {list}");

    let snapshot = shop.objects("snapshots").pop().unwrap();
    damage(&snapshot);
    let name = snapshot.file_name().unwrap().to_str().unwrap().to_owned();
    shop.run(["snapshots"]).ends_with(5).says(&["damaged", &name[..8]]);
    let (_, list) = shop.json(["snapshots"]);
    assert_eq!(list["damaged"][0]["id"], name.as_str());
    shop.run(["restore", "latest", "--to", to.to_str().unwrap()]).ends_with(5).says(&[&name[..8], "cannot be told"]);
}

#[test]
fn a_restore_of_the_folder_that_holds_the_repository_removes_neither_it_nor_its_key() {
    let shop = Shop::new();
    shop.run(["protect", "."]).ok();
    fs_err::create_dir(shop.path("new")).unwrap();
    fs_err::write(shop.path("new/file"), "x").unwrap();
    shop.run(["restore", "latest", "--in-place", "--delete", "--yes"]).ok().says(&["never removed"]);
    assert!(!shop.path("new").exists() && shop.path("lastgood.key").exists());
    shop.run(["verify"]).ok();
}

#[test]
fn a_target_that_can_be_none_is_refused_before_anything_changed() {
    let shop = Shop::protected();
    fs_err::write(shop.path("file"), "mine").unwrap();
    for to in ["/proc/lastgood", "/dev/null", "file", "file/below"] {
        shop.run(["restore", "latest", "--to", to]).ends_with(4).says(&["cannot be restored to", "next:"]);
    }
    assert_eq!(fs_err::read_to_string(shop.path("file")).unwrap(), "mine");
    for scratch in ["/nosuch", "file"] {
        shop.run(["protect", "uploads", "--scratch", scratch]).ends_with(4).says(&["no folder to restore to"]);
    }
    assert_eq!(shop.snapshots().len(), 1, "nothing was taken either");
    shop.run(["restore", "latest"]).ends_with(2).says(&["--to DIR", "--in-place"]);
}

#[test]
fn original_absolute_paths_are_understood_everywhere() {
    let shop = Shop::protected();
    let (folder, file, database) = (shop.path("uploads"), shop.path("uploads/a.txt"), shop.path("shop.db"));
    let [folder, file, database] = [&folder, &file, &database].map(|path| path.to_str().unwrap());
    shop.run(["ls", "latest", folder]).ok().says(&["a.txt", "deep/"]);
    assert_eq!(shop.run(["cat", "latest", file]).ok().stdout, "first");
    assert!(shop.run(["cat", "latest", database]).ok().bytes.starts_with(b"SQLite format 3\0"));
    assert!(shop.run(["find", database]).ok().stdout.ends_with("shop/shop.db\n"));
    shop.run(["diff", "latest", "latest", folder]).ok();
    shop.run(["restore", "latest", "--to", "some", "--path", file, "--path", database]).ok().says(&["2 files"]);
    assert_eq!(Shop::items(&shop.path("some/shop/shop.db")), ["tea", "cup", "pot"]);
    shop.run(["cat", "latest", "/nowhere/at/all"]).ends_with(14).says(&["lastgood ls", "lastgood find"]);
}

#[test]
fn a_damaged_recovery_point_is_no_missing_one() {
    let shop = Shop::protected();
    let point = shop.snapshots().pop().unwrap();
    shop.run(["backup"]).ok();
    damage(&shop.path("backups/snapshots").join(&point));
    let to = shop.beside("to");
    for id in [&point[..], &point[..8]] {
        let ran = shop.run(["restore", id, "--to", to.to_str().unwrap()]).ends_with(5);
        ran.says(&[&point[..8], "is damaged", "lastgood snapshots", &format!("snapshots/{point}")]);
    }
    shop.run(["restore", "00000000", "--to", to.to_str().unwrap()]).ends_with(14);
    assert!(!to.exists());
    let ran =
        shop.run(["find", "a.txt", "--snapshot", "all"]).ends_with(5).says(&[&point[..8], "could not be searched"]);
    assert!(ran.stdout.contains("a.txt"), "what is sound is found: {ran:?}");
    let (code, found) = shop.json(["find", "a.txt", "--snapshot", "all"]);
    assert_eq!((code, found["damaged"][0]["id"].as_str()), (Some(5), Some(&point[..])), "{found}");
}

#[test]
fn a_link_where_a_folder_of_the_recovery_point_goes_is_neither_followed_nor_replaced() {
    let shop = Shop::protected();
    let (to, outside) = (shop.beside("restored"), shop.beside("outside"));
    for folder in [&to, &outside] {
        fs_err::create_dir(folder).unwrap();
    }
    fs_err::write(outside.join("mine"), "mine").unwrap();
    let link = to.join("uploads");
    std::os::unix::fs::symlink(&outside, &link).unwrap();
    let words = ["restore", "latest", "--to", to.to_str().unwrap(), "--overwrite", "--delete", "--yes"];
    for words in [&words[..4], &words[..5], &words] {
        shop.run(words).ends_with(4);
        assert_eq!(fs_err::read_link(&link).unwrap(), outside);
        assert_eq!(fs_err::read_dir(&outside).unwrap().count(), 1, "{words:?}");
    }
    shop.run(words).ends_with(4).says(&["is a link", outside.to_str().unwrap(), "neither follows nor replaces"]);
    // The same in place: what was moved to a larger disk is not cut off.
    fs_err::rename(shop.path("uploads"), shop.beside("large")).unwrap();
    std::os::unix::fs::symlink(shop.beside("large"), shop.path("uploads")).unwrap();
    shop.run(["restore", "latest", "--in-place", "--source", "uploads", "--yes"]).ends_with(4).says(&["is a link"]);
    assert!(shop.path("uploads").is_symlink());
}

/// Lets everybody read the repository, and its owner alone write to it.
fn open_repository(shop: &Shop) {
    let set =
        |path: &std::path::Path, mode| fs_err::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    let mut folders = vec![shop.path("backups")];
    while let Some(folder) = folders.pop() {
        set(&folder, 0o755);
        for path in fs_err::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() { folders.push(path) } else { set(&path, 0o444) }
        }
    }
}

#[test]
fn a_plan_for_a_place_that_nobody_can_write_to_says_so() {
    let shop = Shop::protected();
    for to in ["/proc/x", "/sys/x/y"] {
        shop.run(["restore", "latest", "--to", to, "--dry-run"]).ends_with(4).says(&["cannot be restored to"]);
    }
    open_repository(&shop);
    let closed = shop.beside("closed");
    fs_err::create_dir(&closed).unwrap();
    fs_err::set_permissions(&closed, std::fs::Permissions::from_mode(0o555)).unwrap();
    let to = closed.join("new");
    let as_somebody = |words: &[&str]| {
        let mut command = shop.command(words);
        command.env("LASTGOOD_KEY", shop.key()).env("HOME", shop.beside("nohome"));
        if rustix::process::geteuid().is_root() {
            command.uid(65534).gid(65534);
        }
        run(&mut command)
    };
    let words = ["restore", "latest", "--to", to.to_str().unwrap(), "--dry-run"];
    as_somebody(&words).ok().says(&["Plan:", "WARNING: the restore itself would be refused now", "Permission denied"]);
    as_somebody(&words[..4]).ends_with(15);
}

#[test]
fn what_is_the_same_and_belongs_to_somebody_else_is_left_alone() {
    use std::os::unix::fs::MetadataExt;
    let shop = Shop::protected();
    open_repository(&shop);
    let file = shop.path("uploads/a.txt");
    let in_place = || {
        let mut command = shop.command(["restore", "latest", "--in-place", "--source", "uploads", "--yes"]);
        command.env("LASTGOOD_KEY", shop.key()).env("HOME", shop.beside("nohome"));
        if rustix::process::geteuid().is_root() {
            command.uid(65534).gid(65534);
        }
        run(&mut command)
    };
    // In a folder that only its owner may write to, and in one that this user could replace it in.
    for mode in [0o755, 0o777] {
        fs_err::set_permissions(shop.path("uploads"), std::fs::Permissions::from_mode(mode)).unwrap();
        shop.run(["backup"]).ok();
        open_repository(&shop);
        let before = fs_err::metadata(&file).unwrap();
        let ran = in_place().ok().says(&["3 files were the same already"]);
        assert!(!ran.stdout.contains("NOT restored") && !ran.stdout.contains("problem"), "{ran:?}");
        let after = fs_err::metadata(&file).unwrap();
        assert_eq!((after.ino(), after.uid(), after.ctime()), (before.ino(), before.uid(), before.ctime()));
    }
    // What differs is replaced where that can be.
    let time = fs_err::metadata(&file).unwrap().modified().unwrap();
    fs_err::write(&file, "other").unwrap();
    fs_err::File::open(&file).unwrap().file().set_modified(time).unwrap();
    in_place();
    assert_eq!(fs_err::read_to_string(&file).unwrap(), "first");
}

#[test]
fn damage_that_a_restore_meets_is_damage_and_the_point_that_has_it_is_not_called_good() {
    let shop = Shop::protected();
    fs_err::write(shop.path("uploads/new.txt"), "new").unwrap();
    let first = shop.objects("data");
    shop.run(["backup"]).ok();
    let [old, new] = shop.snapshots().try_into().unwrap();
    // All that the second run wrote: its directories, its manifest, and one file.
    let packs: Vec<_> = shop.objects("data").into_iter().filter(|pack| !first.contains(pack)).collect();
    let to = |n: usize| shop.beside(&format!("to-{n}")).to_str().unwrap().to_owned();
    let mut met = 0;
    for (n, pack) in packs.iter().enumerate() {
        let whole = fs_err::read(pack).unwrap();
        damage(pack);
        for (i, command) in [
            &["restore", "latest", "--to", &to(n)][..],
            &["restore", &new[..8], "--to", &to(n + 10)],
            &["cat", "latest", ".lastgood/manifest.json"],
            &["ls", "latest", "--recursive"],
        ]
        .into_iter()
        .enumerate()
        {
            let ran = shop.run(command);
            if ran.code == Some(0) {
                continue;
            }
            met += 1;
            let ran = ran.ends_with(5);
            let said = format!("{}{}", ran.stdout, ran.stderr).to_lowercase();
            assert!(!said.contains(&format!("last good recovery point: {}", &new[..8])), "{i}: {ran:?}");
            if said.contains("last good recovery point") {
                ran.says(&[&format!("last good recovery point: {}", &old[..8])]);
            }
        }
        fs_err::write(pack, &whole).unwrap();
        // The next point is whole all the same.
    }
    assert!(met >= 2, "{met} commands met the damage");
}

#[test]
fn a_damaged_manifest_of_an_older_point_is_damage_to_its_restore_and_no_trouble_to_a_backup() {
    let shop = Shop::protected();
    let old = shop.snapshots().remove(0);
    shop.run(["backup"]).ok();
    // The only blob of the first point that no other shares, byte by byte until it is found.
    let spoilt = shop.objects("data").into_iter().find_map(|pack| {
        let whole = fs_err::read(&pack).unwrap();
        fs_err::set_permissions(&pack, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        for at in (10..whole.len()).step_by(150) {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            fs_err::write(&pack, bytes).unwrap();
            let manifest = shop.run(["cat", &old, ".lastgood/manifest.json"]).code;
            if manifest == Some(5) && shop.run(["ls", &old]).code == Some(0) {
                return Some(pack);
            }
        }
        fs_err::write(&pack, whole).unwrap();
        None
    });
    assert!(spoilt.is_some(), "the manifest was not found");
    let to = shop.beside("to");
    let ran = shop.run(["restore", &old, "--to", to.to_str().unwrap()]).ends_with(5);
    ran.says(&["manifest of this recovery point is damaged", "lastgood verify"]);
    assert_eq!(fs_err::read_to_string(shop.restored_upload(&to, "a.txt")).unwrap(), "first");
    shop.run(["verify"]).ends_with(5).says(&["/.lastgood"]);
    shop.run(["backup"]).ok().says(&["complete"]);
}
