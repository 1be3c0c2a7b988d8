//! What lastgood leaves on the machine beside repositories.

use crate::support::{Shop, run};

#[test]
fn the_cache_is_only_a_cache_and_can_be_left_out() {
    let shop = Shop::protected();
    assert!(shop.beside("home/.cache/lastgood").exists());
    fs_err::remove_dir_all(shop.beside("home")).unwrap();
    shop.run(["backup", "--no-cache"]).ok();
    assert!(!shop.beside("home/.cache").exists());
    run(shop.command(["check"]).env("XDG_CACHE_HOME", shop.beside("xdg"))).ok();
    run(shop.command(["backup"]).env("XDG_CACHE_HOME", shop.beside("xdg"))).ok();
    assert!(shop.beside("xdg/lastgood").exists());
    // A cache that holds nonsense misleads nobody.
    let mut folders = vec![shop.beside("xdg/lastgood")];
    while let Some(folder) = folders.pop() {
        for entry in fs_err::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { fs_err::write(path, "nonsense").unwrap() }
        }
    }
    run(shop.command(["backup"]).env("XDG_CACHE_HOME", shop.beside("xdg"))).ok();
    run(shop.command(["verify"]).env("XDG_CACHE_HOME", shop.beside("xdg"))).ok();
}

#[test]
fn a_home_that_is_protected_does_not_trip_over_its_own_cache() {
    let shop = Shop::new();
    fs_err::create_dir_all(shop.beside("home")).unwrap();
    fs_err::write(shop.beside("home/note.txt"), "x").unwrap();
    shop.run(["protect", "../home"]).ok();
    let (code, report) = shop.json(["backup"]);
    assert_eq!((code, &report["problems_total"]), (Some(0), &0.into()), "{report}");
    assert!(!shop.run(["find", "/**/.cache/lastgood/**"]).ok().stdout.contains("index"));
}
