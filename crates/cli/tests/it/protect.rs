use crate::support::{Shop, run};
use std::os::unix::fs::PermissionsExt;

#[test]
fn two_minutes_after_the_start_everything_is_protected_and_proven() {
    let shop = Shop::new();
    let ran = shop.run(["protect", "./shop.db", "./uploads"]).ok().says(&[
        "complete",
        "1 table, 3 rows",
        "Proven: restored in",
        "3 of them with the originals, byte by byte",
        "database shop opened, sound, with 3 rows in 1 table",
        "Without this key nobody can read the backups",
        "lastgood restore latest --to ./restored",
        "one broken disk takes both",
    ]);
    let key = fs_err::read_to_string(shop.path("lastgood.key")).unwrap();
    assert!(key.starts_with("lg1-") && key.ends_with('\n') && key.lines().count() == 1, "one line");
    assert_eq!(fs_err::metadata(shop.path("lastgood.key")).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!format!("{ran:?}").contains(key.trim_end()), "the key is never printed");
    let names: Vec<_> =
        fs_err::read_dir(shop.path("")).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert!(!names.iter().any(|n| n.starts_with("lastgood-proof")), "the scratch is gone: {names:?}");

    // The command it prints for an empty machine works as it stands.
    let line = ran.stdout.lines().find(|l| l.contains("--key-file")).unwrap().trim().replacen(
        "lastgood",
        env!("CARGO_BIN_EXE_lastgood"),
        1,
    );
    fs_err::create_dir(shop.beside("empty")).unwrap();
    let mut command = std::process::Command::new("sh");
    command.arg("-c").arg(line).current_dir(shop.beside("empty")).env("HOME", shop.beside("empty"));
    run(&mut command).ok();
    assert_eq!(Shop::items(&shop.beside("empty/restored/shop/shop.db")), ["tea", "cup", "pot"]);
}

#[test]
fn again_it_adds_a_point_and_new_paths_and_keeps_what_a_person_wrote() {
    let shop = Shop::protected();
    let mut config = fs_err::read_to_string(shop.path("lastgood.toml")).unwrap();
    config.insert_str(0, "# mine, all mine\n");
    shop.config(&config);
    fs_err::write(shop.path("settings.ini"), "x = 1").unwrap();
    shop.run(["protect", "./shop.db", "./settings.ini"]).ok().says(&["is part of source shop already", "settings-ini"]);
    assert_eq!(shop.snapshots().len(), 2);
    let after = fs_err::read_to_string(shop.path("lastgood.toml")).unwrap();
    assert!(after.starts_with("# mine, all mine\n"), "{after}");
    assert!(after.contains("[source.settings-ini]") && after.matches("shop.db").count() == 1, "{after}");
    shop.run(["protect", "./uploads"]).ok();
    assert_eq!(fs_err::read_to_string(shop.path("lastgood.toml")).unwrap(), after, "nothing new, nothing changed");
}

#[test]
fn what_cannot_be_protected_leaves_nothing_behind() {
    let shop = Shop::new();
    for (path, code, words) in [
        ("mysql://shop:hunter2@localhost/shop", 2, &["databases are not in this version", "kind = \"command\""][..]),
        ("postgres://shop:hunter2@localhost:1/shop", 13, &["connect to postgresql://shop@localhost:1/shop"]),
        ("./none", 14, &["there is no ./none"]),
        ("./backups/x", 14, &["there is no"]),
    ] {
        let ran = shop.run(["protect", "./uploads", path]).ends_with(code).says(words);
        assert!(!ran.stderr.contains("hunter2"));
        for made in ["lastgood.toml", "lastgood.key", "backups"] {
            assert!(!shop.path(made).exists(), "{made} after {path}");
        }
    }
}

#[test]
fn the_repository_and_its_key_are_never_part_of_themselves() {
    let shop = Shop::new();
    // The database inside of the folder is captured as one, which is said.
    shop.run(["protect", "."]).ok().says(&["shop.db is a SQLite database"]);
    shop.run(["protect", "."]).ok();
    let found = shop.run(["find", "/**", "--snapshot", "latest"]).ok();
    assert!(found.stdout.contains("uploads/a.txt"), "{}", found.stdout);
    for never in ["lastgood.key", "/backups/config", "/backups/data"] {
        assert!(!found.stdout.contains(never), "{never} in {}", found.stdout);
    }
    shop.run(["protect", "./backups"]).ends_with(2).says(&["is the repository itself"]);
}

#[test]
fn a_repository_whose_key_is_gone_or_another_is_refused_before_anything_changes() {
    let shop = Shop::protected();
    let key = shop.key();
    fs_err::rename(shop.path("lastgood.key"), shop.beside("kept.key")).unwrap();
    shop.run(["protect", "./uploads"]).ends_with(12).says(&["its key", "is not there", "bring the key file back"]);
    assert!(!shop.path("lastgood.key").exists(), "no second key is made for it");
    shop.run(["key", "generate", "lastgood.key"]).ok();
    assert_ne!(shop.key(), key);
    fs_err::remove_file(shop.path("lastgood.toml")).unwrap();
    shop.run(["protect", "./uploads"]).ends_with(12).says(&["does not open the repository", "lastgood.key"]);
    assert!(!shop.path("lastgood.toml").exists());
}

#[test]
fn what_an_interrupted_start_left_is_taken_up() {
    let shop = Shop::protected();
    // Key and repository were made, the config was not.
    fs_err::remove_file(shop.path("lastgood.toml")).unwrap();
    shop.run(["protect", "./shop.db"]).ok();
    assert_eq!(shop.snapshots().len(), 2);
    // Only the key was made.
    let other = Shop::new();
    other.run(["key", "generate", "lastgood.key"]).ok();
    let key = other.key();
    other.run(["protect", "./shop.db"]).ok();
    assert_eq!(other.key(), key);
}

#[test]
fn a_disk_that_is_not_mounted_gets_no_second_repository() {
    let shop = Shop::protected();
    fs_err::rename(shop.path("backups"), shop.beside("unplugged")).unwrap();
    for empty in [false, true] {
        if empty {
            fs_err::create_dir(shop.path("backups")).unwrap();
        }
        shop.run(["protect", "./uploads"]).ends_with(10).says(&["is its disk mounted", "lastgood init"]);
        assert!(!shop.path("backups/config").exists());
    }
    shop.run(["init"]).ok();
    shop.run(["protect", "./uploads"]).ok();
}

#[test]
fn a_folder_that_holds_something_else_is_no_place_for_a_repository() {
    let shop = Shop::new();
    fs_err::create_dir(shop.beside("full")).unwrap();
    fs_err::write(shop.beside("full/letter.txt"), "x").unwrap();
    shop.run(["protect", "./uploads", "--repo", "../full"])
        .ends_with(4)
        .says(&["letter.txt", "choose an empty folder"]);
    assert!(!shop.path("lastgood.toml").exists() && !shop.path("lastgood.key").exists());
    shop.run(["protect", "./uploads", "--repo", "../elsewhere"]).ok();
    assert!(shop.beside("elsewhere/config").exists());
    assert!(fs_err::read_to_string(shop.path("lastgood.toml")).unwrap().contains("url = \"../elsewhere\""));
}

#[test]
fn names_of_sources_are_unique_and_side_files_are_no_sources() {
    let shop = Shop::new();
    fs_err::create_dir(shop.path("shop")).unwrap();
    let db = rusqlite::Connection::open(shop.path("shop.db")).unwrap();
    db.execute_batch("INSERT INTO orders (item) VALUES ('held')").unwrap();
    assert!(shop.path("shop.db-wal").exists());
    let (code, report) = {
        let mut command = shop.command(["protect", "shop.db", "shop.db-wal", "shop", "--output", "json"]);
        let ran = run(&mut command);
        (ran.code, ran.json())
    };
    assert_eq!(code, Some(0), "{report}");
    let sources = report["runs"][0]["backup"]["sources"].as_array().unwrap();
    let names: Vec<_> = sources.iter().map(|s| (s["name"].as_str().unwrap(), s["kind"].as_str().unwrap())).collect();
    assert_eq!(names, [("shop", "sqlite"), ("shop-2", "files")]);
    assert_eq!(report["runs"][0]["proof"]["mismatches_total"], 0);
    drop(db);
}

#[test]
fn a_database_that_somebody_keeps_locked_is_locked_and_no_mistake_of_the_user() {
    let shop = Shop::new();
    shop.sql("PRAGMA journal_mode = delete");
    let user = rusqlite::Connection::open(shop.path("shop.db")).unwrap();
    user.execute_batch("BEGIN EXCLUSIVE").unwrap();
    shop.run(["protect", "shop.db", "uploads"]).ends_with(11).says(&["shop.db", "locked", "next:", "fuser"]);
    assert!(!shop.path("lastgood.toml").exists() && !shop.path("backups").exists());
    user.execute_batch("COMMIT").unwrap();
    shop.run(["protect", "shop.db", "uploads"]).ok();
}

#[test]
fn a_configured_database_that_is_empty_now_is_not_made_a_source_of_files() {
    let shop = Shop::protected();
    let config = fs_err::read_to_string(shop.path("lastgood.toml")).unwrap();
    let point = shop.snapshots().pop().unwrap();
    for side in ["-wal", "-shm"] {
        fs_err::remove_file(shop.path(format!("shop.db{side}"))).ok();
    }
    fs_err::write(shop.path("shop.db"), "").unwrap();
    let restore = format!("lastgood restore {} --in-place --source shop", &point[..8]);
    shop.run(["protect", "./shop.db", "./uploads"]).ends_with(4).says(&["is empty now", "source \"shop\"", &restore]);
    assert_eq!(fs_err::read_to_string(shop.path("lastgood.toml")).unwrap(), config);
    assert_eq!(shop.snapshots().len(), 1);
    let warning = "has no tables any more";
    shop.run(["backup"]).ok().says(&[warning, "1 table with 3 rows", &point[..8], &restore]);
    let (_, report) = shop.json(["backup"]);
    assert_eq!(report["emptied"][0]["rows"], 3, "{report}");
    let words: Vec<&str> = restore.split(' ').skip(1).chain(["--yes"]).collect();
    shop.run(words).ok();
    assert_eq!(Shop::items(&shop.path("shop.db")), ["tea", "cup", "pot"]);
    assert!(!shop.run(["backup"]).ok().stdout.contains(warning));
}

#[test]
fn a_repository_that_lost_its_config_object_is_told_as_that_and_nothing_is_made_beside_it() {
    let shop = Shop::protected();
    fs_err::remove_file(shop.path("backups/config")).unwrap();
    let cause =
        ["the `config` object of the repository", "is missing; still there are 1 recovery points", "make no new"];
    for command in [&["backup"][..], &["protect", "./uploads"], &["init"]] {
        let ran = shop.run(command).ends_with(5).says(&cause);
        assert!(!ran.stderr.contains("mounted"), "{ran:?}");
    }
    // Nor without the config and the key that named it.
    for name in ["lastgood.toml", "lastgood.key"] {
        fs_err::rename(shop.path(name), shop.beside(name)).unwrap();
    }
    shop.run(["protect", "./uploads"]).ends_with(5).says(&cause);
    shop.run(["init", "--repo", "./backups", "--key-file", "new.key"]).ends_with(5).says(&cause);
    for made in ["lastgood.toml", "lastgood.key", "new.key", "backups/config"] {
        assert!(!shop.path(made).exists(), "{made}");
    }
}

#[test]
fn several_repositories_get_the_same_point_and_each_is_proven() {
    let shop = Shop::new();
    let second = shop.beside("second");
    shop.config(&format!(
        "[repository.near]\nurl = \"./backups\"\nkey = {{ file = \"./lastgood.key\" }}\n\
         [repository.far]\nurl = \"{}\"\nkey = {{ file = \"./far.key\" }}\n",
        second.display()
    ));
    let ran = shop.run(["protect", "./shop.db", "./uploads"]).ok();
    assert!(ran.stdout.contains("Copied to far"), "{}", ran.stdout);
    assert_eq!(ran.stdout.matches("Proven: restored").count(), 2, "{}", ran.stdout);
    // One capture, so one moment in both.
    let times = ["near", "far"].map(|name| {
        let (code, list) = shop.json(["snapshots", "--repo", name]);
        assert_eq!(code, Some(0), "{list}");
        assert_eq!(list["snapshots"].as_array().unwrap().len(), 1);
        list["snapshots"][0]["time"].as_str().unwrap().to_owned()
    });
    assert_eq!(times[0], times[1]);
}
