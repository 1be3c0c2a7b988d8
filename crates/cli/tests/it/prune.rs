//! `prune` as it is called.

use crate::support::Shop;

/// A shop with two recovery points, of which the object of the first was removed.
fn forgotten() -> Shop {
    let shop = Shop::protected();
    let first = shop.snapshots()[0].clone();
    let bytes: Vec<u8> = (0..900_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    fs_err::write(shop.path("uploads/new.bin"), bytes).unwrap();
    shop.run(["backup"]).ok();
    let second = shop.snapshots().into_iter().find(|id| *id != first).unwrap();
    fs_err::remove_file(shop.path("uploads/new.bin")).unwrap();
    shop.run(["backup"]).ok();
    for path in shop.objects("snapshots") {
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&second)) {
            fs_err::remove_file(path).unwrap();
        }
    }
    assert_eq!(shop.snapshots().len(), 2);
    shop
}

#[test]
fn prune_says_what_would_go_removes_it_and_leaves_the_rest_sound() {
    let shop = forgotten();
    let packs = shop.objects("data").len();
    shop.run(["prune", "--dry-run", "--max-unused", "0%"]).ok().says(&["Would remove"]);
    assert_eq!(shop.objects("data").len(), packs);
    let (code, report) = shop.json(["prune", "--max-unused", "0%"]);
    assert_eq!((code, &report["type"]), (Some(0), &"lastgood.prune".into()), "{report}");
    assert!(report["packs_removed"].as_u64().unwrap() > 0, "{report}");
    assert!(report["deferred"].is_null() && report["snapshots"] == 2, "{report}");
    shop.run(["verify"]).ok();
    shop.run(["prune"]).ok().says(&["Nothing to remove", "needed by 2 recovery points"]);
    let to = shop.beside("restored");
    shop.run(["restore", "latest", "--to", to.to_str().unwrap()]).ok();
    shop.run(["backup"]).ok();
}

#[test]
fn prune_refuses_while_something_needed_is_missing() {
    let shop = forgotten();
    shop.objects("index").iter().for_each(|path| fs_err::remove_file(path).unwrap());
    let packs = shop.objects("data").len();
    shop.run(["prune"]).ends_with(5).says(&["is in no index", "nothing was deleted"]);
    assert_eq!(shop.objects("data").len(), packs);
    shop.run(["backup"]).ok();
    shop.run(["prune"]).ok();
    shop.run(["verify"]).ok();
}

#[test]
fn amounts_that_are_none_are_refused() {
    let shop = Shop::protected();
    for bad in [["--max-unused", "101%"], ["--max-repack", "much"], ["--max-time", "0s"], ["--lock-wait", "soon"]] {
        shop.run([&["prune"][..], &bad[..]].concat()).ends_with(2);
    }
}
