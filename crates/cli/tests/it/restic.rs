//! The key file's single line is the repository's password: restic opens what lastgood made, by its own words.

use crate::support::Shop;
use lastgood_testkit::restic::Restic;

#[test]
fn restic_checks_lists_dumps_and_restores_what_protect_made() {
    let shop = Shop::protected();
    shop.run(["backup"]).ok();
    let restic = Restic::newest(shop.path("backups"), shop.path("lastgood.key"));
    restic.check_read_data().unwrap();
    let snapshots = restic.snapshots().unwrap();
    assert_eq!(snapshots.iter().map(|s| s.id.clone()).collect::<Vec<_>>(), shop.snapshots());
    let path = format!("/uploads{}/a.txt", shop.path("uploads").display());
    assert_eq!(restic.dump("latest", &path).unwrap(), b"first");
    let to = shop.beside("by-restic");
    restic.restore("latest", &to).unwrap();
    assert_eq!(Shop::items(&to.join("shop/shop.db")), ["tea", "cup", "pot"]);
}

#[test]
fn a_repository_begun_by_restic_is_opened_added_to_and_restored() {
    let shop = Shop::new();
    let restic = Restic::newest(shop.path("backups"), shop.beside("password"));
    restic.init().unwrap();
    restic.backup([shop.path("uploads")], &[]).unwrap();
    let password = shop.beside("password");
    let key = ["--repo", "./backups", "--key-file", password.to_str().unwrap()];
    let with =
        |words: &[&'static str]| shop.run(words.iter().copied().map(str::to_owned).chain(key.map(str::to_owned)));
    with(&["snapshots"]).ok().says(&["uploads"]);
    with(&["restore", "latest", "--to", "theirs"]).ok();
    let theirs = shop.path("theirs").join(shop.path("uploads/a.txt").strip_prefix("/").unwrap());
    assert_eq!(fs_err::read_to_string(theirs).unwrap(), "first");
    with(&["restore", "latest", "--in-place", "--yes"]).ends_with(1).says(&["no original place", "--to FOLDER"]);
    with(&["protect", "./shop.db"]).ok();
    with(&["check"]).ok();
    restic.check_read_data().unwrap();
    assert_eq!(restic.snapshots().unwrap().len(), 2);
}
