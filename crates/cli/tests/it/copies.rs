//! Several repositories: one capture for all of them, what happens when one is away, and copies by hand.

use crate::support::{Ran, Shop, damage, largest, run};
use lastgood_testkit::restic::Restic;
use serde_json::Value;
use std::path::PathBuf;

const SOURCES: &str = "\
[source.shop]
kind = 'sqlite'
path = 'shop.db'
[source.uploads]
kind = 'files'
paths = ['uploads']
[repository.local]
url = 'backups'
key = { file = 'lastgood.key' }
[repository.offsite]
url = '../offsite'
key = { file = 'offsite.key' }
";

/// A shop with two repositories that have one master key, and nothing in them.
fn twins() -> Shop {
    let shop = Shop::new();
    shop.config(SOURCES);
    shop.run(["init", "--repo", "local"]).ok();
    shop.run(["init", "--copy-of", "local"]).ok().says(&["shares the master key", "offsite.key"]);
    shop
}

/// The same with two that have nothing in common.
fn strangers() -> Shop {
    let shop = Shop::new();
    shop.config(SOURCES);
    shop.run(["init"]).ok();
    shop
}

fn restic(shop: &Shop, local: bool) -> Restic {
    match local {
        true => Restic::newest(shop.path("backups"), shop.path("lastgood.key")),
        false => Restic::newest(shop.beside("offsite"), shop.path("offsite.key")),
    }
}

fn listed(shop: &Shop, repository: &str) -> Vec<String> {
    let (code, list) = shop.json(["snapshots", "--repo", repository]);
    assert_eq!(code, Some(0), "{list}");
    list["snapshots"].as_array().unwrap().iter().map(|s| s["id"].as_str().unwrap().to_owned()).collect()
}

fn away(shop: &Shop) -> PathBuf {
    shop.beside("unplugged")
}

#[test]
fn a_twin_has_the_key_material_but_its_own_id_and_key_and_restic_works_with_both() {
    let shop = twins();
    assert_ne!(fs_err::read(shop.path("lastgood.key")).unwrap(), fs_err::read(shop.path("offsite.key")).unwrap());
    shop.run(["backup"]).ok().says(&["Recovery point", "Copied to offsite", "whole"]);
    assert_eq!(listed(&shop, "local"), listed(&shop, "offsite"));
    for local in [true, false] {
        restic(&shop, local).check_read_data().unwrap();
    }
    let to = shop.beside("by-restic");
    restic(&shop, false).restore("latest", &to).unwrap();
    assert_eq!(Shop::items(&to.join("shop/shop.db")), ["tea", "cup", "pot"]);
    // Neither key opens the other's repository as it lies there.
    let key = shop.path("lastgood.key");
    let ran = shop.run(["snapshots", "--repo", "../offsite", "--key-file", key.to_str().unwrap()]);
    ran.ends_with(12);
    shop.run(["init", "--copy-of", "local"]).ends_with(4).says(&["already"]);
    shop.run(["init", "--copy-of", "local", "--repo", "local"]).ends_with(2).says(&["--repo"]);
}

#[test]
fn sources_are_read_once_and_the_point_is_in_both_repositories() {
    for shop in [twins(), strangers()] {
        let (code, report) = shop.json(["backup"]);
        assert_eq!(code, Some(0), "{report}");
        let runs = report["runs"].as_array().unwrap();
        assert_eq!((runs[0]["how"].as_str(), runs[1]["how"].as_str()), (Some("captured"), Some("copied")), "{report}");
        assert_eq!(runs[1]["points_sent"], 1, "{report}");
        let (_, all) = shop.json(["snapshots"]);
        assert_eq!(all["total"], 1, "{all}");
        assert_eq!(all["snapshots"][0]["repositories"].as_array().unwrap().len(), 2, "{all}");
        shop.run(["snapshots"]).ok().says(&["IN", "local, offsite"]);
        shop.run(["restore", "latest", "--to", "back"]).ok().says(&["read from repository \"local\""]);
        shop.run(["check"]).ok().says(&["local: ", "offsite: ", "Sound"]);
        shop.run(["verify", "--repository", "offsite"]).ok().says(&["Sound"]);
        let (_, checked) = shop.json(["check"]);
        assert_eq!(checked["repositories"].as_array().unwrap().len(), 2, "{checked}");
        shop.run(["key", "list"]).ends_with(2).says(&["2 repositories", "--repo: local, offsite"]);
        restic(&shop, true).check_read_data().unwrap();
        restic(&shop, false).check_read_data().unwrap();
    }
}

#[test]
fn a_place_that_is_away_is_named_and_catches_up_with_the_next_backup() {
    for shop in [twins(), strangers()] {
        shop.run(["backup"]).ok();
        fs_err::rename(shop.beside("offsite"), away(&shop)).unwrap();
        shop.sql("INSERT INTO orders (item) VALUES ('lid');");
        let said = shop.run(["backup"]).ends_with(3);
        said.says(&[
            "Recovery point",
            "is NOT in repository \"offsite\"",
            "Unprotected in offsite",
            "lastgood copy local offsite",
        ]);
        let (code, report) = shop.json(["backup"]);
        assert_eq!(code, Some(3), "{report}");
        assert_eq!(report["runs"][1]["how"], "failed", "{report}");
        assert_eq!(report["exit_code"], 3);
        shop.run(["snapshots"]).ends_with(3).says(&["\"offsite\"", "cannot be used"]);
        fs_err::rename(away(&shop), shop.beside("offsite")).unwrap();
        shop.run(["backup"]).ok().says(&["Copied to offsite", "2 recovery points that it had missed"]);
        assert_eq!(listed(&shop, "local").len(), 4);
        assert_eq!(listed(&shop, "offsite").len(), 4);
        restic(&shop, false).check_read_data().unwrap();
    }
}

#[test]
fn while_the_first_place_is_away_the_next_takes_the_capture_and_gives_it_back() {
    for shop in [twins(), strangers()] {
        shop.run(["backup"]).ok();
        fs_err::rename(shop.path("backups"), away(&shop)).unwrap();
        shop.sql("INSERT INTO orders (item) VALUES ('lid');");
        shop.run(["backup"]).ends_with(3).says(&["in ", "offsite", "is NOT in repository \"local\""]);
        shop.run(["restore", "latest", "--to", "back"]).ok().says(&["read from repository \"offsite\""]);
        assert_eq!(Shop::items(&shop.path("back/shop/shop.db")).len(), 4);
        fs_err::rename(away(&shop), shop.path("backups")).unwrap();
        // The newest is still only in the second.
        shop.run(["restore", "latest", "--to", "again"]).ok().says(&["read from repository \"offsite\""]);
        shop.run(["backup"]).ok().says(&["Fetched from offsite what local had missed: 1 recovery point"]);
        assert_eq!(listed(&shop, "local").len(), 3);
        assert_eq!(listed(&shop, "offsite").len(), 3);
        let (_, all) = shop.json(["snapshots"]);
        assert_eq!(all["total"], 3, "{all}");
        restic(&shop, true).check_read_data().unwrap();
        // With both away there is nothing left to tell of but that.
        fs_err::rename(shop.path("backups"), away(&shop)).unwrap();
        fs_err::rename(shop.beside("offsite"), shop.beside("gone")).unwrap();
        shop.run(["backup"]).ends_with(10).says(&["\"local\"", "\"offsite\""]);
        shop.run(["restore", "latest", "--to", "never"]).ends_with(10).says(&["none of 2 repositories"]);
    }
}

#[test]
fn what_was_captured_in_the_last_of_three_reaches_the_other_two() {
    let shop = Shop::new();
    let third = "[repository.third]\nurl = '../third'\nkey = { file = 'offsite.key' }\n";
    shop.config(&format!("{SOURCES}{third}"));
    shop.run(["init"]).ok();
    shop.run(["backup"]).ok();
    fs_err::rename(shop.path("backups"), away(&shop)).unwrap();
    fs_err::rename(shop.beside("offsite"), shop.beside("too")).unwrap();
    shop.run(["backup"]).ends_with(3).says(&[
        "NOT in repository \"local\"",
        "NOT in repository \"offsite\"",
        "third has it",
    ]);
    fs_err::rename(away(&shop), shop.path("backups")).unwrap();
    fs_err::rename(shop.beside("too"), shop.beside("offsite")).unwrap();
    shop.run(["backup"]).ok().says(&["Fetched from third what local had missed", "that it had missed"]);
    for name in ["local", "offsite", "third"] {
        assert_eq!(listed(&shop, name).len(), 3, "{name}");
    }
}

#[test]
fn a_new_repository_gets_the_newest_point_and_the_older_ones_by_hand() {
    let shop = Shop::new();
    shop.config(SOURCES);
    shop.run(["init", "--repo", "local"]).ok();
    for _ in 0..3 {
        shop.run(["backup", "--repo", "local"]).ok();
    }
    shop.run(["init", "--copy-of", "local"]).ok();
    shop.run(["backup"]).ok().says(&["3 older recovery points", "lastgood copy local offsite"]);
    assert_eq!(listed(&shop, "offsite").len(), 1);
    let told = shop.run(["copy", "local", "offsite", "--dry-run"]).ok();
    told.says(&["Would copy 3 recovery points from local to offsite", "1 recovery point there already"]);
    assert_eq!(listed(&shop, "offsite").len(), 1);
    let (code, report) = shop.json(["copy", "local", "offsite"]);
    assert_eq!(code, Some(0), "{report}");
    assert_eq!((&report["points_sent"], &report["points_there"]), (&Value::from(3), &Value::from(1)), "{report}");
    assert_eq!(listed(&shop, "local"), listed(&shop, "offsite"));
    shop.run(["copy", "local", "offsite"]).ok().says(&["Nothing to copy to offsite"]);
    restic(&shop, false).check_read_data().unwrap();
}

#[test]
fn points_are_chosen_by_selectors_and_restored_by_the_id_they_had_first() {
    let shop = strangers();
    let first = {
        shop.run(["backup", "--repo", "local"]).ok();
        listed(&shop, "local")[0].clone()
    };
    shop.run(["backup", "--repo", "local"]).ok();
    shop.run(["copy", "local", "offsite", &first[..8]]).ok().says(&["Copied 1 recovery point", "sealed anew", " as "]);
    shop.run(["copy", "local", "offsite", "nothere"]).ends_with(2);
    shop.run(["copy", "local", "local"]).ends_with(2).says(&["itself"]);
    shop.run(["copy", "local", "offsit"]).ends_with(2).says(&["did you mean \"offsite\"?"]);
    shop.run(["copy", "local", "offsite", "--repo", "local"]).ends_with(2);
    assert_ne!(listed(&shop, "offsite")[0], first);
    shop.run(["restore", &first[..8], "--repo", "offsite", "--to", "back"]).ok();
    shop.run(["restore", &listed(&shop, "offsite")[0][..8], "--to", "too"]).ok().says(&["repository \"local\""]);
    // restic knows it, too: what it copies itself is the same.
    let (local, offsite) = (restic(&shop, true), restic(&shop, false));
    offsite.check_read_data().unwrap();
    local.copy_to(&offsite, &[]).unwrap();
    assert_eq!(offsite.snapshots().unwrap().len(), 2);
    shop.run(["copy", "local", "offsite"]).ok().says(&["Nothing to copy to offsite: 2 recovery points"]);
    shop.run(["copy", "offsite", "local"]).ok().says(&["Nothing to copy to local: 2 recovery points"]);
    offsite.check_read_data().unwrap();
}

#[test]
fn a_restore_that_meets_damage_says_who_else_has_the_point() {
    let shop = twins();
    // So long that it is what lies in the middle of the pack.
    let noise = (0..400_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8);
    fs_err::write(shop.path("uploads/big"), noise.collect::<Vec<u8>>()).unwrap();
    shop.run(["backup"]).ok();
    damage(&largest(shop.objects("data")));
    shop.run(["restore", "latest", "--to", "back"]).ends_with(5).says(&["offsite has this recovery point, too"]);
    shop.run(["restore", "latest", "--to", "whole", "--repo", "offsite"]).ok();
}

#[test]
fn a_damaged_point_is_named_and_the_others_are_copied() {
    let shop = twins();
    fs_err::write(shop.path("uploads/big"), vec![7; 300_000]).unwrap();
    shop.run(["backup", "--repo", "local"]).ok();
    let broken = largest(shop.objects("data"));
    shop.sql("INSERT INTO orders (item) VALUES ('lid');");
    damage(&broken);
    let said: Ran = shop.run(["copy", "local", "offsite"]).ends_with(5);
    said.says(&["NOT copied: 1 recovery point", "lastgood verify --repo local"]);
    assert!(listed(&shop, "offsite").is_empty());
}

#[test]
fn a_copy_that_was_killed_again_and_again_is_continued() {
    let shop = twins();
    fs_err::write(
        shop.path("uploads/big"),
        (0..40_000_000u32).map(|n| (n.wrapping_mul(n) >> 7) as u8).collect::<Vec<_>>(),
    )
    .unwrap();
    shop.run(["backup", "--repo", "local"]).ok();
    for pause in [5, 20, 60, 150, 400] {
        let mut child = shop.command(["copy", "local", "offsite"]).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(pause));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    run(&mut shop.command(["copy", "local", "offsite"])).ok();
    assert_eq!(listed(&shop, "local"), listed(&shop, "offsite"));
    restic(&shop, false).check_read_data().unwrap();
}
