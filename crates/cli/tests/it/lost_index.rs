//! Index files that are gone or damaged: the data is there, so nothing may be lost by it, and nothing kept quiet.

use crate::support::{Shop, damage};

/// A shop with two recovery points, the first of which holds a file that is gone since.
fn two_points() -> (Shop, Vec<String>) {
    let shop = Shop::protected();
    fs_err::remove_file(shop.path("uploads/a.txt")).unwrap();
    fs_err::write(shop.path("uploads/new.bin"), vec![3; 200_000]).unwrap();
    shop.run(["backup"]).ok();
    let points = shop.snapshots();
    (shop, points)
}

fn lose_index(shop: &Shop) {
    shop.objects("index").iter().for_each(|path| fs_err::remove_file(path).unwrap());
}

#[track_caller]
fn assert_restores(shop: &Shop, point: &str, name: &str) {
    let to = shop.beside(&format!("to-{name}"));
    shop.run(["restore", point, "--to", to.to_str().unwrap()]).ok();
    assert_eq!(fs_err::read_to_string(shop.restored_upload(&to, "a.txt")).unwrap(), "first");
}

#[test]
fn a_backup_makes_a_lost_index_anew_and_says_so() {
    let (shop, points) = two_points();
    lose_index(&shop);
    // Rehearsed first: nothing is written, and the same is said.
    shop.run(["backup", "--dry-run"])
        .ok()
        .says(&["WARNING: a part of the repository's index", "The next backup makes"]);
    assert!(shop.objects("index").is_empty());
    let (code, report) = shop.json(["backup"]);
    assert_eq!((code, &report["index_was_lost"]), (Some(0), &true.into()), "{report}");
    assert_eq!(report["files_unchanged"], 3, "nothing is read again: {report}");
    assert!(report["bytes_new"].as_u64().unwrap() < 20_000, "nothing is stored twice: {report}");
    shop.run(["check"]).ok();
    assert_restores(&shop, &points[0], "healed");
    let ran = shop.run(["backup"]).ok();
    assert!(!ran.stdout.contains("WARNING"), "{ran:?}");
    lose_index(&shop);
    shop.run(["backup"]).ok().says(&["WARNING: a part of the repository's index", "made anew from", "lastgood check"]);
}

#[test]
fn a_restore_and_a_check_see_through_a_lost_index_and_agree() {
    let (shop, points) = two_points();
    lose_index(&shop);
    assert_restores(&shop, &points[0], "without");
    for command in ["check", "verify"] {
        let ran = shop.run([command]).ends_with(5).says(&[
            "no index file lists it",
            "All recovery points can be restored in full",
            "the next `lastgood backup`",
        ]);
        assert!(!ran.stdout.contains("annot be restored") && !ran.stdout.contains("repair packs"), "{ran:?}");
    }
    shop.run(["backup"]).ok();
    shop.run(["check"]).ok();
}

#[test]
fn a_damaged_index_file_spoils_no_recovery_point_and_is_told_until_it_is_cleared_away() {
    let (shop, points) = two_points();
    let spoilt = shop.objects("index").remove(0);
    damage(&spoilt);
    let ran = shop.run(["check"]).ends_with(5).says(&[
        "All recovery points can be restored in full",
        "the next `lastgood backup` lists them anew",
        &format!("Last good recovery point: {}", &points[1][..8]),
    ]);
    assert!(!ran.stdout.contains("annot be restored"), "{ran:?}");
    assert_restores(&shop, &points[0], "damaged");
    shop.run(["backup"]).ok().says(&["WARNING: a part of the repository's index"]);
    let ran = shop.run(["check"]).ends_with(5).says(&["other index files list every pack", "repair index"]);
    assert!(!ran.stdout.contains("lists them anew"), "{ran:?}");
    fs_err::remove_file(spoilt).unwrap();
    shop.run(["check"]).ok();
    assert_restores(&shop, &points[0], "cleared");
}
