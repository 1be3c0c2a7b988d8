use crate::support::Shop;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

#[test]
fn a_recovery_point_can_be_looked_into() {
    let shop = Shop::protected();
    let deep = format!("uploads{}/deep", shop.path("uploads").display());
    shop.run(["ls", "latest"]).ok().says(&["uploads/\n", "shop/\n"]);
    assert_eq!(shop.run(["ls", "latest", &deep]).ok().stdout, format!("{deep}/c.txt\n"));
    shop.run(["ls", "latest", "-lR", "uploads"]).ok().says(&["-rw-", "a.txt", "c.txt", "drwx"]);
    let file = format!("/{deep}/c.txt");
    assert_eq!(shop.run(["cat", "latest", &file]).ok().stdout, "deep");
    assert!(shop.run(["cat", "latest", "shop/shop.db"]).ok().bytes.starts_with(b"SQLite format 3\0"));
    shop.run(["cat", "latest", "uploads"]).ends_with(2).says(&["is not a regular file"]);
    shop.run(["cat", "latest", "/"]).ends_with(2);
    shop.run(["cat", "latest", "uploads/none"]).ends_with(14).says(&["lastgood ls"]);
    let (_, list) = shop.json(["ls", "latest", &deep]);
    assert_eq!(list["entries"][0]["size"], 4);
}

#[test]
fn names_that_are_not_text_are_listed_found_and_read() {
    let shop = Shop::new();
    let name = OsStr::from_bytes(b"odd \xff\n.bin");
    fs_err::write(shop.path("uploads").join(name), "odd").unwrap();
    shop.run(["protect", "./uploads"]).ok();
    shop.run(["find", "odd*"]).ok().says(&["odd \\xff\\n.bin"]);
    let (_, found) = shop.json(["find", "odd*"]);
    let bytes = found["matches"][0]["path_bytes"].as_array().unwrap();
    assert!(bytes.ends_with(&[0xff.into(), 10.into(), 46.into(), 98.into(), 105.into(), 110.into()]), "{found}");
    let path = std::path::Path::new("uploads").join(shop.path("uploads").strip_prefix("/").unwrap()).join(name);
    let ran = shop.run([OsStr::new("cat"), OsStr::new("latest"), path.as_os_str()]).ok();
    assert_eq!(ran.stdout, "odd");
    // What is no text where text is needed is a mistake of the user, not ours.
    shop.run([OsStr::new("cat"), OsStr::from_bytes(b"\xff"), OsStr::new("x")]).ends_with(2);
    shop.run([OsStr::from_bytes(b"\xff\xfe")]).ends_with(2);
}

#[test]
fn what_was_deleted_is_found_in_the_points_that_still_have_it() {
    let shop = Shop::protected();
    fs_err::remove_file(shop.path("uploads/a.txt")).unwrap();
    shop.run(["backup"]).ok();
    shop.run(["find", "a.txt"]).ok().says(&["nothing fits"]);
    let (_, found) = shop.json(["find", "a.txt", "--snapshot", "all"]);
    let matches = found["matches"].as_array().unwrap();
    assert_eq!(matches.len(), 1);
    assert_eq!(matches[0]["snapshot"], shop.snapshots()[0].as_str());
    shop.run(["find", "A.TXT", "--snapshot", "all", "-i"]).ok().says(&["a.txt"]);
    let original = shop.path("uploads/a.txt");
    shop.run(["find", original.to_str().unwrap(), "--snapshot", "all"]).ok().says(&["a.txt"]);
    shop.run(["find", "["]).ends_with(2).says(&["not a pattern"]);
}

#[test]
fn the_difference_between_two_points_is_told() {
    let shop = Shop::protected();
    fs_err::remove_file(shop.path("uploads/a.txt")).unwrap();
    fs_err::write(shop.path("uploads/b.jpg"), "another picture").unwrap();
    fs_err::write(shop.path("uploads/new.txt"), "new").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs_err::set_permissions(shop.path("uploads/deep/c.txt"), mode).unwrap();
    shop.run(["backup"]).ok();
    let uploads = format!("uploads{}", shop.path("uploads").display());
    let ran = shop.run(["diff", "latest~1", "latest", "uploads"]).ok();
    let marks: Vec<&str> = ran.stdout.lines().filter(|l| l.contains(&uploads)).collect();
    let starts = |letter: &str, name: &str| marks.iter().any(|l| l.starts_with(letter) && l.contains(name));
    assert!(
        starts("-", "a.txt") && starts("M", "b.jpg") && starts("+", "new.txt") && starts("U", "c.txt"),
        "{marks:?}"
    );
    assert_eq!(marks.len(), 4, "{marks:?}");
    let stat = shop.run(["diff", "latest~1", "latest", "uploads", "--stat"]).ok();
    assert!(stat.stdout.starts_with("1 added, 1 removed, 1 modified, 1 with other metadata"), "{}", stat.stdout);
    let (_, same) = shop.json(["diff", "latest", "latest"]);
    assert_eq!((&same["differences"], &same["totals"]["added"]), (&serde_json::json!([]), &0.into()));
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let shop = Shop::new();
    for n in 0..3000 {
        fs_err::write(shop.path(format!("uploads/a file with a rather long name, number {n}")), "").unwrap();
    }
    shop.run(["protect", "./uploads"]).ok();
    for arguments in [
        &["ls", "latest", "-R"][..],
        &["find", "*"],
        &["ls", "latest", "-R", "--output", "json"],
        &["ls", "latest", "-R", "--output", "ndjson"],
    ] {
        let mut child = shop
            .command(arguments)
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(output.stderr.is_empty(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
