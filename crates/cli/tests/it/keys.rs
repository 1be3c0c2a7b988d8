use crate::doctor::{as_somebody, open_up};
use crate::support::{Shop, damage, run};
use std::os::unix::fs::PermissionsExt;

#[test]
fn keys_are_added_listed_and_removed_and_one_that_works_always_stays() {
    let shop = Shop::protected();
    shop.run(["key", "add", "second.key"]).ok().says(&["Added a new key"]);
    assert_eq!(fs_err::metadata(shop.path("second.key")).unwrap().permissions().mode() & 0o777, 0o600);
    fs_err::write(shop.path("chosen.key"), "correct horse battery staple\n").unwrap();
    shop.run(["key", "add", "chosen.key"]).ok().says(&["Added the key"]);
    let (_, list) = shop.json(["key", "list"]);
    let keys = list["keys"].as_array().unwrap();
    assert_eq!(keys.len(), 3);
    let id = |current: bool| {
        let key = keys.iter().find(|k| k["current"] == current).unwrap();
        key["id"].as_str().unwrap().to_owned()
    };
    for key in ["second.key", "chosen.key"] {
        shop.run(["snapshots", "--key-file", key]).ok();
    }
    shop.run(["key", "remove", &id(true)]).ends_with(2).says(&["the key in use cannot be removed"]);
    shop.run(["key", "remove", "ffffffffffff"]).ends_with(14).says(&["there is no key"]);
    shop.run(["key", "remove", &id(false)]).ends_with(4).says(&["Plan: remove key", "--yes"]);
    shop.run(["key", "remove", &id(false), "--yes"]).ok();
    assert_eq!(shop.json(["key", "list"]).1["keys"].as_array().unwrap().len(), 2);
    shop.run(["check"]).ok();
}

#[test]
fn a_key_that_opens_the_repository_already_is_not_added_again() {
    let shop = Shop::protected();
    fs_err::write(shop.path("chosen.key"), "correct horse battery staple\n").unwrap();
    shop.run(["key", "add", "chosen.key"]).ok();
    let ids = || -> Vec<String> {
        let (_, list) = shop.json(["key", "list"]);
        list["keys"].as_array().unwrap().iter().map(|k| k["id"].as_str().unwrap()[..8].to_owned()).collect()
    };
    let before = ids();
    for file in ["lastgood.key", "chosen.key"] {
        let ran = shop.run(["key", "add", file]).ends_with(4).says(&[file, "opens this repository already: it is "]);
        assert!(before.iter().any(|id| ran.stderr.contains(id)), "{ran:?}");
    }
    assert_eq!(ids(), before);
}

#[test]
fn spaces_around_a_key_are_told_and_a_line_end_is_no_trouble() {
    let shop = Shop::protected();
    let key = shop.key();
    fs_err::write(shop.path("k"), format!("{key}\r\n\n")).unwrap();
    shop.run(["snapshots", "--key-file", "k"]).ok();
    for slip in [format!("{key} \n"), format!(" {key}\n")] {
        fs_err::write(shop.path("k"), slip).unwrap();
        let ran = shop.run(["snapshots", "--key-file", "k"]).ends_with(2);
        ran.says(&["key file k", "spaces before or after the key", "a line end is no trouble"]);
    }
    fs_err::write(shop.path("k"), format!("\n{key}\n")).unwrap();
    shop.run(["snapshots", "--key-file", "k"]).ends_with(2).says(&["first line is empty"]);
    // In a password that a person chose they count, for opening; nobody adds such a one by accident.
    fs_err::write(shop.path("k"), "chosen \n").unwrap();
    shop.run(["snapshots", "--key-file", "k"]).ends_with(12).says(&["spaces before or after the key count"]);
    shop.run(["key", "add", "k"]).ends_with(2).says(&["spaces before or after the key"]);
}

#[test]
fn a_key_file_is_never_overwritten() {
    let shop = Shop::protected();
    let key = shop.key();
    shop.run(["key", "generate", "lastgood.key"]).ends_with(4).says(&["a key is never overwritten"]);
    assert_eq!(shop.key(), key);
}

#[test]
fn a_wrong_or_missing_key_is_told_with_where_it_came_from() {
    let shop = Shop::protected();
    shop.run(["key", "generate", "other.key"]).ok();
    shop.run(["snapshots", "--key-file", "other.key"])
        .ends_with(12)
        .says(&["other.key", "does not open the repository"]);
    shop.run(["snapshots", "--key-file", "none.key"]).ends_with(12).says(&["none.key", "there is no key file"]);
    let mut typo = shop.key().into_bytes();
    typo[10] = if typo[10] == b'a' { b'b' } else { b'a' };
    fs_err::write(shop.path("typo.key"), &typo).unwrap();
    let ran = shop.run(["snapshots", "--key-file", "typo.key"]).ends_with(2).says(&["typing error"]);
    assert!(!ran.stderr.contains(std::str::from_utf8(&typo[4..20]).unwrap()));
    fs_err::write(shop.path("empty.key"), "\n").unwrap();
    shop.run(["snapshots", "--key-file", "empty.key"]).ends_with(2).says(&["empty"]);
    fs_err::write(shop.path("binary.key"), [0xff; 80]).unwrap();
    shop.run(["snapshots", "--key-file", "binary.key"]).ends_with(2);
}

#[test]
fn a_key_comes_from_a_command_a_variable_or_systemd() {
    let shop = Shop::protected();
    let with = |key: &str| shop.config(&format!("[repository.r]\nurl = 'backups'\nkey = {key}\n"));
    with("{ command = ['cat', 'lastgood.key'] }");
    shop.run(["snapshots"]).ok();
    with("{ env = 'SHOP_KEY' }");
    run(shop.command(["snapshots"]).env("SHOP_KEY", shop.key())).ok();
    shop.run(["snapshots"]).ends_with(12).says(&["SHOP_KEY is not set"]);
    with("{ systemd = 'lastgood.key' }");
    run(shop.command(["snapshots"]).env("CREDENTIALS_DIRECTORY", shop.path(""))).ok();
    shop.run(["snapshots"]).ends_with(12).says(&["CREDENTIALS_DIRECTORY"]);
    with("{ command = ['false', 'hunter2'] }");
    let ran = shop.run(["snapshots"]).ends_with(12).says(&["\"false\" ended with"]);
    assert!(!ran.stderr.contains("hunter2"));
}

#[test]
fn a_damaged_key_object_is_listed_and_can_be_taken_away() {
    let shop = Shop::protected();
    let own = shop.objects("keys").remove(0);
    shop.run(["key", "add", "second.key"]).ok();
    let spoilt = shop.objects("keys").into_iter().find(|path| *path != own).unwrap();
    damage(&spoilt);
    let id = spoilt.file_name().unwrap().to_str().unwrap();
    let remove = format!("lastgood key remove {}", &id[..8]);
    shop.run(["key", "list"]).ends_with(5).says(&["in use", "DAMAGED", &format!("damaged: key {}", &id[..8]), &remove]);
    let (code, list) = shop.json(["key", "list"]);
    let damaged = list["keys"].as_array().unwrap().iter().find(|key| key["id"] == id).unwrap();
    assert_eq!((code, damaged["current"].as_bool()), (Some(5), Some(false)), "{list}");
    assert!(damaged["damaged"].as_str().unwrap().contains("not what its name says"), "{list}");
    shop.run(["check"]).ends_with(5).says(&[&remove]);
    // The one in use stays, also when it is the last that works.
    let own_id = own.file_name().unwrap().to_str().unwrap();
    shop.run(["key", "remove", own_id, "--yes"]).ends_with(2).says(&["the key in use cannot be removed"]);
    shop.run(["key", "remove", &id[..8], "--yes"]).ok().says(&["is damaged and opens nothing", "Removed key"]);
    shop.run(["key", "list"]).ok();
    shop.run(["check"]).ok();
}

#[test]
fn a_key_that_could_not_be_added_leaves_no_file_behind() {
    let shop = Shop::protected();
    open_up(&shop.path("backups"), 0o777, 0o666);
    open_up(&shop.path("backups/keys"), 0o555, 0o444);
    fs_err::set_permissions(shop.path(""), PermissionsExt::from_mode(0o777)).unwrap();
    as_somebody(&shop, &["key", "add", "second.key"]).ends_with(15).says(&["write key"]);
    assert!(!shop.path("second.key").exists());
    // A file that was there before stays.
    fs_err::write(shop.path("chosen.key"), "correct horse battery staple\n").unwrap();
    open_up(&shop.path("chosen.key"), 0, 0o644);
    as_somebody(&shop, &["key", "add", "chosen.key"]).ends_with(15);
    assert!(shop.path("chosen.key").exists());
}

#[test]
fn a_missing_key_has_one_exit_code_everywhere() {
    let shop = Shop::protected();
    fs_err::rename(shop.path("lastgood.key"), shop.beside("kept.key")).unwrap();
    for command in ["backup", "snapshots", "check", "doctor"] {
        shop.run([command]).ends_with(12).says(&["there is no key file"]);
    }
    shop.run(["config", "check"]).ends_with(12).says(&["there is no key file"]);
    shop.run(["key", "list"]).ends_with(12);
    shop.run(["protect", "./uploads"]).ends_with(12);
    shop.config("[repository.r]\nurl = 'backups'\nkey = { command = ['no-such-program'] }\n");
    shop.run(["snapshots"]).ends_with(12).says(&["could not be started", "run the command by hand"]);
}
