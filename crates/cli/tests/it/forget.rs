use crate::support::Shop;
use lastgood_testkit::restic::Restic;
use serde_json::Value;
use std::path::PathBuf;

/// A protected shop with so many complete points, oldest first.
fn shop_with(points: usize) -> (Shop, Vec<String>) {
    let shop = Shop::protected();
    for n in 1..points {
        fs_err::write(shop.path("uploads/a.txt"), format!("change {n}")).unwrap();
        shop.run(["backup"]).ok();
    }
    let ids = shop.snapshots();
    assert_eq!(ids.len(), points);
    (shop, ids)
}

fn restic(shop: &Shop) -> Restic {
    Restic::newest(shop.path("backups"), shop.path("lastgood.key"))
}

/// Dates a point otherwise, as restic does it. It gets another id, which is given back.
fn date(shop: &Shop, id: &str, time: &str) -> String {
    let before = shop.snapshots();
    let mut command = restic(shop).command();
    let output = command.args(["rewrite", "--forget", "--new-time", time, id]).env("TZ", "UTC").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let after = shop.snapshots();
    after.into_iter().find(|id| !before.contains(id)).unwrap()
}

fn keep(shop: &Shop, keep: &str) {
    let text = fs_err::read_to_string(shop.path("lastgood.toml")).unwrap();
    assert!(text.contains("[repository.local]\n"), "{text}");
    shop.config(&text.replace("[repository.local]\n", &format!("[repository.local]\nkeep = {keep}\n")));
}

fn verdict<'a>(plan: &'a Value, id: &str) -> &'a Value {
    let groups = plan["groups"].as_array().unwrap().iter();
    groups.flat_map(|g| g["points"].as_array().unwrap()).find(|p| p["id"] == id).unwrap()
}

#[test]
fn points_that_no_rule_keeps_go_after_a_plan_and_are_written_down() {
    let (shop, ids) = shop_with(4);
    shop.run(["forget"]).ends_with(2).says(&["nothing says which recovery points to keep", "keep ="]);
    shop.run(["forget", "--keep-last", "2", "--dry-run"]).ok().says(&["2 of 4 recovery points would go", "rehearsal"]);
    let ran = shop.run(["forget", "--keep-last", "2"]).ends_with(4);
    ran.says(&["GOES", "last: older than its 2", "last 1 of 2; last good", "nothing was changed", "--yes"]);
    assert_eq!(shop.snapshots(), ids);

    let (code, plan) = shop.json(["forget", "--keep-last", "2", "--yes"]);
    assert_eq!(code, Some(0), "{plan}");
    assert_eq!(plan["type"], "lastgood.forget");
    assert_eq!(plan["gone"].as_array().unwrap().len(), 2);
    assert_eq!(verdict(&plan, &ids[0])["keep"], false);
    assert_eq!(shop.snapshots(), ids[2..]);
    shop.run(["check"]).ok();
    restic(&shop).check().unwrap();
    shop.run(["forget", "--keep-last", "2", "--yes"]).ok().says(&["0 of 2 recovery points would go"]);

    shop.run(["snapshots", "--removed"]).ok().says(&[&ids[0][..8], &ids[1][..8], "shop, uploads", "older than its 2"]);
    let (_, removed) = shop.json(["snapshots", "--removed"]);
    assert_eq!(removed["total"], 2);
    let one = &removed["removed"][0];
    assert_eq!((&one["app"], &one["complete"], &one["still_there"]), (&"shop".into(), &true.into(), &false.into()));
    assert!(one["manifest_sha256"].as_str().unwrap().len() == 64 && one["finished"].is_string(), "{one}");
    // What a note says about content is for those with the key alone.
    let notes: Vec<PathBuf> = shop.objects("lastgood/removed");
    assert_eq!(notes.len(), 1);
    let bytes = fs_err::read(&notes[0]).unwrap();
    assert!(!bytes.windows(7).any(|w| w == b"uploads"));
    crate::support::damage(&notes[0]);
    shop.run(["snapshots", "--removed"]).ends_with(5).says(&["damaged"]);
    shop.run(["snapshots"]).ok();
}

#[test]
fn the_space_is_freed_when_asked() {
    let (shop, _) = shop_with(3);
    let large: Vec<u8> = (0..300_000u32).flat_map(|n| (n ^ (n << 13)).to_le_bytes()).collect();
    fs_err::write(shop.path("uploads/large"), large).unwrap();
    shop.run(["backup"]).ok();
    fs_err::remove_file(shop.path("uploads/large")).unwrap();
    shop.run(["backup"]).ok();
    let bytes = || shop.objects("data").iter().map(|path| fs_err::metadata(path).unwrap().len()).sum::<u64>();
    let before = bytes();
    let (code, plan) = shop.json(["forget", "--keep-last", "1", "--yes", "--prune", "--even-though", "shop"]);
    assert_eq!((code, plan["gone"].as_array().unwrap().len()), (Some(0), 4), "{plan}");
    assert!(plan["prune"]["bytes_removed"].as_u64().unwrap() > 100_000, "{plan}");
    assert!(bytes() < before);
    shop.run(["verify"]).ok();
    restic(&shop).check_read_data().unwrap();
}

#[test]
fn rules_by_the_calendar_stand_in_the_config_and_count_in_its_zone() {
    let (shop, ids) = shop_with(6);
    let times = [
        "2026-03-28 22:30:00",
        "2026-03-28 23:30:00",
        "2026-03-29 00:30:00",
        "2026-03-29 20:00:00",
        "2026-03-30 10:00:00",
    ];
    let dated: Vec<String> = times.iter().zip(&ids).map(|(time, id)| date(&shop, id, time)).collect();
    keep(&shop, "{ daily = 4, time_zone = \"Europe/Berlin\" }");
    let (code, plan) = shop.json(["forget", "--dry-run"]);
    assert_eq!(code, Some(0), "{plan}");
    // restic reads the dates in UTC, Berlin is an hour, then two ahead.
    let stays: Vec<bool> = dated.iter().map(|id| verdict(&plan, id)["keep"].as_bool().unwrap()).collect();
    assert_eq!(stays, [true, false, false, true, true], "{plan}");
    assert_eq!(verdict(&plan, &dated[0])["reasons"][0], "daily 4 of 4: 2026-03-28");
    assert!(verdict(&plan, &dated[1])["reasons"][0].as_str().unwrap().starts_with("daily: 2026-03-29 has "));
    assert_eq!(plan["time_zone"], "Europe/Berlin");
    shop.run(["forget", "--time-zone", "Europe/Berlyn"]).ends_with(2).says(&["no time zone"]);

    let (_, future) = shop.json(["forget", "--simulate", "400d", "--every", "12h"]);
    let steps = future["steps"].as_array().unwrap();
    assert_eq!(steps.last().unwrap()["points"].as_array().unwrap().len(), 4, "{future}");
    assert_eq!(future["goes"].as_array().unwrap().len(), 6, "{future}");
    shop.run(["forget", "--simulate", "30d", "--every", "1d"]).ok().says(&["POINTS", "OLDEST", "GOES", "now"]);
    assert_eq!(shop.snapshots().len(), 6);

    shop.run(["forget", "--yes"]).ok().says(&["Forgot 2 recovery points"]);
    assert_eq!(shop.snapshots().len(), 4);
}

#[test]
fn nothing_goes_while_the_newest_point_is_incomplete_unless_the_name_is_typed() {
    let (shop, _) = shop_with(3);
    fs_err::rename(shop.path("shop.db"), shop.path("away.db")).unwrap();
    shop.run(["backup"]).ends_with(3);
    let before = shop.snapshots();
    let ran = shop.run(["forget", "--keep-last", "1", "--yes"]).ends_with(4);
    ran.says(&["REFUSED: nothing is removed", "is incomplete", "--even-though shop"]);
    let (code, plan) = shop.json(["forget", "--keep-last", "1", "--yes"]);
    assert_eq!((code, &plan["refused"]), (Some(4), &true.into()));
    shop.run(["forget", "--keep-last", "1", "--yes", "--even-though", "Shop"]).ends_with(2).says(&["exactly"]);
    assert_eq!(shop.snapshots(), before);
    shop.run(["forget", "--keep-last", "1", "--yes", "--even-though", "shop"]).ok();
    // The newest of all, and the newest that is complete.
    assert_eq!(shop.snapshots(), before[2..]);
    let (_, removed) = shop.json(["snapshots", "--removed"]);
    assert_eq!(removed["removed"][0]["even_though"], "shop");
}

#[test]
fn nothing_goes_while_the_newest_point_is_far_smaller() {
    let shop = Shop::new();
    for n in 0..20 {
        fs_err::write(shop.path(format!("uploads/file {n}")), format!("content {n}")).unwrap();
    }
    shop.run(["protect", "./shop.db", "./uploads"]).ok();
    shop.run(["backup"]).ok();
    for n in 0..20 {
        fs_err::remove_file(shop.path(format!("uploads/file {n}"))).unwrap();
    }
    shop.run(["backup"]).ok();
    shop.run(["forget", "--keep-last", "1", "--yes"])
        .ends_with(4)
        .says(&["files in source uploads, less than half of"]);
    assert_eq!(shop.snapshots().len(), 3);
    shop.run(["forget", "--keep-last", "1", "--yes", "--even-though", "local"]).ok();
    assert_eq!(shop.snapshots().len(), 1);
}

#[test]
fn nothing_goes_while_a_point_is_dated_in_the_future_and_that_one_can_be_named() {
    let (shop, ids) = shop_with(4);
    let late = date(&shop, &ids[0], "2095-01-01 00:00:00");
    let ran = shop.run(["forget", "--keep-last", "1", "--yes"]).ends_with(4);
    ran.says(&["in the future"]);
    shop.run(["forget", &late, "--yes"]).ok().says(&["what is named goes", "Forgot 1 recovery point"]);
    shop.run(["forget", "--keep-last", "1", "--yes"]).ok();
    assert_eq!(shop.snapshots(), ids[3..]);
}

#[test]
fn points_dated_back_take_no_other_ones_place() {
    let (shop, ids) = shop_with(3);
    // What is there is seen; what turns up later with a date from before came late.
    shop.run(["forget", "--keep-last", "2", "--dry-run"]).ok();
    shop.run(["backup"]).ok();
    let forged = date(&shop, &shop.snapshots()[3], "2020-05-05 05:05:05");
    let (_, plan) = shop.json(["forget", "--keep-yearly", "1", "--keep-last", "3", "--dry-run"]);
    for id in &ids {
        assert_eq!(verdict(&plan, id)["keep"], true, "{plan}");
    }
    assert_eq!(verdict(&plan, &forged)["keep"], false, "{plan}");
}

#[test]
fn a_named_point_goes_but_the_last_good_one_only_with_the_name_typed() {
    let (shop, ids) = shop_with(2);
    fs_err::rename(shop.path("shop.db"), shop.path("away.db")).unwrap();
    shop.run(["backup"]).ends_with(3);
    fs_err::rename(shop.path("away.db"), shop.path("shop.db")).unwrap();
    let incomplete = shop.snapshots().pop().unwrap();
    shop.run(["forget", &ids[1], "--yes"]).ends_with(4).says(&["REFUSED", "last good", "--even-though shop"]);
    shop.run(["forget", "ffffffff", "--yes"]).ends_with(14);
    shop.run(["forget", &ids[0], "--keep-last", "1"]).ends_with(2);
    // The newest looks wrong, and is the one that is to go.
    shop.run(["forget", &incomplete[..10], "latest~2", "--yes"]).ok().says(&["2 of 3"]);
    assert_eq!(shop.snapshots(), ids[1..]);
    shop.run(["forget", "latest", "--yes"]).ends_with(4);
    shop.run(["forget", "latest", "--yes", "--even-though", "shop"]).ok();
    assert!(shop.snapshots().is_empty());
}

#[test]
fn held_points_stay_until_the_hold_is_lifted() {
    let (shop, ids) = shop_with(3);
    shop.run(["hold", "list"]).ok().says(&["Nothing is held"]);
    shop.run(["hold", "add", &ids[0], "--reason", " "]).ends_with(2).says(&["needs a reason"]);
    shop.run(["hold", "add", &ids[0], "--reason", "x", "--until", "2020-01-01"]).ends_with(2).says(&["past"]);
    shop.run(["hold", "add", &ids[0], "--reason", "x", "--until", "soon"]).ends_with(2).says(&["not a date"]);
    shop.run(["hold", "add", &ids[0], "--reason", "audit 2026"]).ok().says(&["for good: audit 2026"]);
    shop.run(["hold", "add", &ids[1], "--reason", "before the move", "--for", "90d"]).ok().says(&["until"]);
    shop.run(["hold", "list"]).ok().says(&["audit 2026", "before the move", "for good", "holds"]);
    shop.run(["snapshots"]).ok().says(&["held for good: audit 2026"]);
    let (_, listed) = shop.json(["snapshots"]);
    assert_eq!(listed["snapshots"][0]["hold"]["reason"], "audit 2026");
    shop.run(["forget", "--keep-last", "1", "--yes"]).ok().says(&["held: audit 2026", "0 of 3"]);
    shop.run(["forget", &ids[0], "--yes", "--even-though", "shop"]).ends_with(4).says(&["hold remove"]);
    assert_eq!(shop.snapshots(), ids);
    shop.run(["hold", "remove", &ids[0]]).ok();
    shop.run(["hold", "remove", &ids[0]]).ends_with(14);
    shop.run(["forget", "--keep-last", "1", "--yes"]).ok();
    assert_eq!(shop.snapshots(), ids[1..]);
    // A hold that cannot be read may hold anything.
    crate::support::damage(&shop.objects("lastgood/holds")[0]);
    shop.run(["forget", "--keep-last", "1", "--yes"]).ends_with(5).says(&["hold on", "hold add"]);
    shop.run(["snapshots"]).ok().says(&["holds cannot be read"]);
    shop.run(["hold", "remove", &ids[1]]).ok();
    shop.run(["forget", "--keep-last", "1", "--yes"]).ok();
    assert_eq!(shop.snapshots(), ids[2..]);
}

#[test]
fn a_hold_that_has_run_out_is_told_and_counts_no_more() {
    let (shop, ids) = shop_with(2);
    let soon = jiff::Timestamp::now() + std::time::Duration::from_secs(2);
    shop.run(["hold", "add", &ids[0], "--reason", "short", "--until", &soon.to_string()]).ok();
    shop.run(["forget", "--keep-last", "1", "--dry-run"]).ok().says(&["0 of 2"]);
    std::thread::sleep(std::time::Duration::from_secs(3));
    // No point is newer than its end: a clock that jumped would say the same.
    shop.run(["forget", "--keep-last", "1", "--dry-run"]).ok().says(&["0 of 2"]);
    shop.run(["backup"]).ok();
    shop.run(["hold", "list"]).ok().says(&["ran out"]);
    shop.run(["forget", "--keep-last", "2", "--yes"]).ok().says(&["ran out on", "short", "1 of 3"]);
    shop.run(["hold", "list"]).ok().says(&["the recovery point is gone"]);
    shop.run(["hold", "remove", &ids[0][..12]]).ok();
}

#[test]
fn each_repository_keeps_by_its_own_rules_and_other_applications_are_left_alone() {
    let (shop, _) = shop_with(1);
    let text = fs_err::read_to_string(shop.path("lastgood.toml")).unwrap();
    let text = text.replace("[repository.local]\n", "[repository.local]\nkeep = { last = 1 }\n")
        + "\n[repository.other]\nurl = \"./other\"\nkey = { file = \"./lastgood.key\" }\nkeep = { last = 2 }\n"
        + "\n[repository.all]\nurl = \"./all\"\nkey = { file = \"./lastgood.key\" }\n";
    shop.config(&text);
    shop.run(["init", "--repo", "other"]).ok();
    shop.run(["init", "--repo", "all"]).ok();
    for _ in 0..3 {
        shop.run(["backup"]).ok();
    }
    fs_err::write(shop.path("blog.toml"), text.replace("[app]\nname = \"shop\"", "[app]\nname = \"blog\"")).unwrap();
    shop.run(["--config", "blog.toml", "backup", "--repo", "local"]).ok();
    let count = |repo: &str| shop.json(["snapshots", "--repo", repo]).1["total"].as_u64().unwrap();
    let before = (count("local"), count("other"), count("all"));
    assert_eq!(before, (5, 3, 3));
    shop.run(["forget", "--yes"]).ok().says(&["everything is kept in"]);
    assert_eq!((count("local"), count("other"), count("all")), (2, 2, 3));
    let mut foreign =
        shop.command(["forget", "--repo", "../backups", "--key-file", "../lastgood.key", "--keep-last", "1"]);
    foreign.current_dir(shop.path("uploads"));
    crate::support::run(&mut foreign).ends_with(2).says(&["--app NAME", "blog, shop"]);
}
