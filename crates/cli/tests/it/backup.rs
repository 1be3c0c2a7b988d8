use crate::support::Shop;

const TWO_SOURCES: &str = r#"
[app]
name = "shop"
[source.shop]
kind = "sqlite"
path = "shop.db"
[source.uploads]
kind = "files"
paths = ["uploads"]
[repository.local]
url = "backups"
key = { file = "lastgood.key" }
"#;

#[test]
fn init_and_backup_make_recovery_points_with_tags_and_reasons() {
    let shop = Shop::new();
    shop.config(TWO_SOURCES);
    shop.run(["init", "--dry-run"]).ok().says(&["Would make"]);
    assert!(!shop.path("backups").exists() && !shop.path("lastgood.key").exists());
    shop.run(["init"]).ok().says(&["Made a repository", "Without this key"]);
    shop.run(["init"]).ends_with(4).says(&["there is a repository"]);
    shop.run(["backup", "--reason", "before the migration", "--tag", "v2"]).ok();
    fs_err::write(shop.path("uploads/new.txt"), "new").unwrap();
    let (code, report) = shop.json(["backup"]);
    assert_eq!(code, Some(0));
    assert_eq!(report["type"], "lastgood.backup");
    assert_eq!((&report["complete"], &report["files_unchanged"]), (&true.into(), &3.into()), "{report}");
    let (_, forced) = shop.json(["backup", "--force", "--compression", "max"]);
    assert_eq!(forced["files_unchanged"], 0);
    let (_, list) = shop.json(["snapshots"]);
    let first = &list["snapshots"][0];
    assert_eq!((&first["reason"], &first["tags"]), (&"before the migration".into(), &serde_json::json!(["v2"])));
    assert_eq!(list["snapshots"][1]["parent"], first["id"]);
    assert_eq!(list["total"], 3);
    shop.run(["snapshots", "--limit", "1"]).ok().says(&["shop ok, uploads ok", "1 of 3 recovery points"]);
    shop.run(["snapshots", "--app", "blog"]).ok().says(&["There is no recovery point yet"]);
}

#[test]
fn a_rehearsal_stores_nothing() {
    let shop = Shop::protected();
    let before = (shop.objects("data").len(), shop.objects("snapshots").len(), shop.objects("index").len());
    fs_err::write(shop.path("uploads/new.bin"), vec![7; 100_000]).unwrap();
    shop.run(["backup", "--dry-run"]).ok().says(&["nothing was stored", "would take"]);
    assert_eq!((shop.objects("data").len(), shop.objects("snapshots").len(), shop.objects("index").len()), before);
}

#[test]
fn a_source_that_vanished_makes_the_point_incomplete_and_says_what_that_means() {
    let shop = Shop::protected();
    let good = shop.snapshots().pop().unwrap();
    fs_err::rename(shop.path("uploads"), shop.beside("gone")).unwrap();
    shop.run(["backup"]).ends_with(3).says(&[
        "INCOMPLETE",
        "Failed: source uploads is not in this recovery point",
        "Unprotected now: all of uploads",
        &format!("Last good recovery point: {}", &good[..8]),
        "Next:",
    ]);
    shop.run(["snapshots"]).ok().says(&["shop ok, uploads failed"]);
    let (code, report) = shop.json(["backup"]);
    assert_eq!(code, Some(3));
    assert_eq!((&report["complete"], &report["last_good"]["snapshot"]), (&false.into(), &good.as_str().into()));
    // Asked for what is not in it, the restore says why.
    let to = shop.beside("to");
    let to = to.to_str().unwrap();
    shop.run(["restore", "latest", "--to", to, "--source", "uploads"])
        .ends_with(14)
        .says(&["its capture failed", "latest~1"]);
    shop.run(["restore", &good, "--to", to, "--source", "uploads"]).ok();
}

#[test]
fn when_every_source_fails_there_is_no_point_and_the_last_good_one_is_named() {
    let shop = Shop::protected();
    let good = shop.snapshots().pop().unwrap();
    fs_err::rename(shop.path("uploads"), shop.beside("gone")).unwrap();
    fs_err::rename(shop.path("shop.db"), shop.beside("gone.db")).unwrap();
    shop.run(["backup"]).ends_with(1).says(&[
        "no source could be captured",
        &format!("last good recovery point: {}", &good[..8]),
        "unprotected now: whatever changed since then in shop, uploads",
        "next:",
    ]);
    assert_eq!(shop.snapshots(), [good]);
}

#[test]
fn problems_are_named_twenty_at_a_time_and_all_of_them_on_request() {
    let shop = Shop::new();
    // What a command prints is not part of the point when it fails; what it said is.
    shop.config(&format!("{TWO_SOURCES}[source.dump]\nkind = 'command'\ncommand = ['sh', '-c', 'echo half; echo broken pipe to heaven >&2; exit 7']\n"));
    shop.run(["init"]).ok();
    shop.run(["backup"]).ends_with(3).says(&["source dump is not in this recovery point", "broken pipe to heaven"]);
    let manifest = shop.run(["cat", "latest", ".lastgood/manifest.json"]).ok();
    assert!(manifest.stdout.contains("broken pipe to heaven"));
    shop.run(["find", "*", "--snapshot", "latest"]).ok();
    assert!(!shop.run(["ls", "latest"]).ok().stdout.contains("dump"));
}

#[test]
fn a_source_by_name_alone_and_a_slip_in_its_name() {
    let shop = Shop::protected();
    let (_, report) = shop.json(["backup", "uploads"]);
    assert_eq!(report["sources"].as_array().unwrap().len(), 1);
    shop.run(["backup", "uplaods"]).ends_with(2).says(&["did you mean \"uploads\"?"]);
}

#[test]
fn several_repositories_are_each_backed_up_and_one_that_fails_does_not_stop_the_others() {
    let shop = Shop::new();
    shop.config(&format!("{TWO_SOURCES}[repository.other]\nurl = '../other'\nkey = {{ file = 'lastgood.key' }}\n"));
    shop.run(["init"]).ok();
    shop.run(["backup"]).ok();
    assert!(shop.beside("other/config").exists());
    shop.run(["snapshots"]).ok().says(&["local, other"]);
    shop.run(["snapshots", "--repo", "other"]).ok().says(&["shop ok"]);
    shop.run(["snapshots", "--repo", "../other"]).ok().says(&["shop ok"]);
    shop.run(["snapshots", "--repo", "othr"]).ends_with(2).says(&["did you mean \"other\"?"]);

    fs_err::remove_dir_all(shop.path("backups")).unwrap();
    shop.run(["backup"]).ends_with(3).says(&["repository \"local\"", "Recovery point"]);
    let (code, both) = shop.json(["backup"]);
    assert_eq!(code, Some(3));
    assert_eq!(both["runs"][0]["complete"], true, "{both}");
    assert_eq!(both["runs"][1]["type"], "lastgood.error", "{both}");
    let (_, list) = shop.json(["snapshots", "--repo", "other"]);
    assert_eq!(list["total"], 3);
}

#[test]
fn the_same_in_lines_of_json() {
    let shop = Shop::protected();
    shop.run(["backup"]).ok();
    for (arguments, kind, lines) in [
        (&["snapshots"][..], "lastgood.snapshot", 2),
        (&["ls", "latest"], "lastgood.entry", 3),
        (&["find", "*.txt"], "lastgood.match", 2),
        (&["backup"], "lastgood.backup", 1),
        (&["key", "list"], "lastgood.key", 1),
    ] {
        let ran = shop.run(arguments.iter().chain(&["--output", "ndjson"])).ok();
        let types: Vec<String> = ran
            .stdout
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["type"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(types, vec![kind; lines], "{arguments:?}");
    }
}

/// One source of two folders.
const ONE_SOURCE: &str = r#"
[app]
name = "shop"
[source.files]
kind = "files"
paths = ["uploads", "disk"]
[repository.local]
url = "backups"
key = { file = "lastgood.key" }
"#;

#[test]
fn a_missing_path_is_named_and_a_disk_that_is_not_mounted_never_looks_like_success() {
    let shop = Shop::new();
    shop.config(ONE_SOURCE);
    shop.run(["init"]).ok();
    fs_err::create_dir(shop.path("disk")).unwrap();
    fs_err::write(shop.path("disk/film.bin"), "film").unwrap();
    shop.run(["backup"]).ok();
    let good = shop.snapshots().pop().unwrap();
    fs_err::rename(shop.path("disk"), shop.beside("unmounted")).unwrap();
    fs_err::create_dir(shop.path("disk")).unwrap();
    let warning = format!("has no files any more. In recovery point {} of ", &good[..8]);
    shop.run(["backup"]).ok().says(&["WARNING: [files] ", "shop/disk", &warning, "4 files", "Is its disk mounted?"]);
    let (code, report) = shop.json(["backup"]);
    assert_eq!((code, &report["emptied"][0]["snapshot"]), (Some(0), &good.as_str().into()), "{report}");

    fs_err::remove_dir(shop.path("disk")).unwrap();
    let ran = shop.run(["backup"]).ends_with(3);
    ran.says(&["INCOMPLETE", "shop/disk: could not be read", "Unprotected now: parts of files", "correct the path"]);
    fs_err::rename(shop.path("uploads"), shop.beside("uploads")).unwrap();
    shop.run(["backup"]).ends_with(1).says(&["no source could be captured", "none of 2 paths is there"]);
    assert_eq!(shop.snapshots().len(), 4);
}

#[test]
fn a_path_that_is_lost_is_told_once() {
    let shop = Shop::new();
    fs_err::write(shop.path("uploads/large.bin"), (0..90_000u32).flat_map(u32::to_le_bytes).collect::<Vec<u8>>())
        .unwrap();
    shop.config(ONE_SOURCE);
    shop.run(["init"]).ok();
    fs_err::create_dir(shop.path("disk")).unwrap();
    shop.run(["backup", "--compression", "off"]).ok();
    let pack = crate::support::largest(shop.objects("data"));
    // Each point has a folder of its own, and the file in it.
    for name in ["two", "three"] {
        fs_err::write(shop.path("uploads").join(name), name).unwrap();
        shop.run(["backup"]).ok();
    }
    crate::support::damage(&pack);
    let ran = shop.run(["verify"]).ends_with(5).says(&["there is no other"]);
    let told: Vec<&str> = ran.stdout.lines().filter(|line| line.starts_with("  affected:")).collect();
    assert!(told.len() == 1 && told[0].ends_with("/uploads/large.bin"), "{ran:?}");
}
