//! How commands end: every code of `docs/exit-codes.md` that a command line can bring about by itself, and what stands
//! beside it. Codes 3, 5, 11, 15 and 130 have tests of their own.

use crate::support::{Shop, run};

#[test]
fn every_failure_has_its_code_its_object_and_what_to_do_next() {
    let shop = Shop::protected();
    shop.run(["key", "generate", "other.key"]).ok();
    fs_err::create_dir_all(shop.path("out/uploads/x")).unwrap();
    let table: &[(&[&str], i32, &str)] = &[
        (&["restore", "latest", "--to", "out"], 4, "conflict"),
        (&["restore", "ffffffff", "--to", "o"], 14, "absent"),
        (&["restore", "latest~9", "--to", "o"], 14, "absent"),
        (&["restore", "app:blog", "--to", "o"], 14, "absent"),
        (&["restore", "before:2001-01-01", "--to", "o"], 14, "absent"),
        (&["restore", "newest", "--to", "o"], 2, "invalid"),
        (&["ls", "latest", "none"], 14, "absent"),
        (&["snapshots", "--repo", "./nowhere", "--key-file", "lastgood.key"], 10, "no-repository"),
        (&["snapshots", "--repo", "./uploads", "--key-file", "lastgood.key"], 10, "no-repository"),
        (&["check", "--key-file", "other.key"], 12, "wrong-key"),
        (&["snapshots", "--repo", "b2:bucket", "--key-file", "lastgood.key"], 1, "unsupported"),
        (&["snapshots", "--config", "none.toml"], 2, "invalid"),
        (&["restore", "latest"], 2, "invalid"),
        (&["frobnicate"], 2, "invalid"),
        (&["verify", "--sample", "0%"], 2, "invalid"),
        (&["verify", "--sample", "5%", "--within", "3d"], 2, "invalid"),
    ];
    for (arguments, code, kind) in table {
        let ran = shop.run(*arguments).ends_with(*code);
        assert!(!ran.stderr.is_empty() && ran.stdout.is_empty(), "{arguments:?}: {ran:?}");
        let (json_code, error) = shop.json(*arguments);
        assert_eq!(json_code, Some(*code), "{arguments:?}");
        assert_eq!(
            (error["type"].as_str(), error["kind"].as_str()),
            (Some("lastgood.error"), Some(*kind)),
            "{arguments:?}: {error}"
        );
        assert_eq!(error["exit_code"], *code);
        assert!(error["hint"].is_string(), "{arguments:?} leaves the user alone: {error}");
    }
    assert!(!shop.path("o").exists());
}

#[test]
fn a_failure_names_the_last_good_point_and_what_is_unprotected() {
    let shop = Shop::protected();
    let good = shop.snapshots().pop().unwrap();
    let (_, error) = shop.json(["restore", "latest~5", "--to", "o"]);
    assert_eq!(error["last_good"]["snapshot"], good.as_str());
    assert!(error["unprotected"].as_str().unwrap().contains("shop, uploads"));
    // What cannot be found out is said to be so.
    fs_err::rename(shop.path("backups"), shop.path("moved")).unwrap();
    shop.run(["backup"]).ends_with(10).says(&["unprotected now", "could not be asked"]);
}

#[test]
fn a_slip_of_the_tongue_says_nothing_of_what_is_protected() {
    let shop = Shop::protected();
    for arguments in
        [&["backup", "uplaods"][..], &["restore", "newest", "--to", "o"], &["ls", "--repo", "lokal", "latest"]]
    {
        let ran = shop.run(arguments).ends_with(2);
        assert!(!ran.stderr.contains("unprotected") && !ran.stderr.contains("last good"), "{ran:?}");
        let (_, error) = shop.json(arguments);
        assert!(error.get("unprotected").is_none() && error["hint"].is_string(), "{error}");
    }
}

#[test]
fn help_version_and_completions_go_to_standard_output() {
    let shop = Shop::new();
    let help = shop.run(["--help"]).ok();
    assert!(help.stdout.contains("Examples:") && help.stdout.contains("lastgood protect ./shop.db ./uploads"));
    for command in [
        "protect",
        "init",
        "backup",
        "restore",
        "snapshots",
        "ls",
        "cat",
        "find",
        "diff",
        "check",
        "verify",
        "key",
        "config",
        "doctor",
        "completions",
    ] {
        assert!(help.stdout.contains(&format!("\n  {command} ")), "{command} is not in the help");
        shop.run([command, "--help"]).ok();
    }
    assert_eq!(shop.run(["--version"]).ok().stdout, format!("lastgood {}\n", env!("CARGO_PKG_VERSION")));
    for shell in ["bash", "zsh", "fish"] {
        assert!(shop.run(["completions", shell]).ok().stdout.contains("lastgood"));
    }
    shop.run(Vec::<&str>::new()).ends_with(2);
}

#[test]
fn results_and_remarks_do_not_mix() {
    let shop = Shop::protected();
    let ran = shop.run(["backup", "--output", "json", "-vvv"]).ok();
    ran.json();
    assert!(!ran.stderr.contains(&shop.key()[4..]), "not even then");
    let quiet = shop.run(["backup", "-q"]).ok();
    assert_eq!(quiet.stderr, "");
    shop.run(["backup", "-q", "-v"]).ends_with(2);
    // Standard output that takes nothing is a failure, not a success that nobody saw.
    let mut command = shop.command(["snapshots"]);
    let full = fs_err::OpenOptions::new().write(true).open("/dev/full").unwrap();
    command.stdout(full.into_parts().0);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("write to standard output"));
}

#[test]
fn doctor_finds_what_is_wrong_and_says_what_to_do() {
    let shop = Shop::protected();
    shop.run(["doctor"]).ok().says(&["Nothing is in the way", "one broken disk takes both", "opens with its key"]);
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    fs_err::set_permissions(shop.path("lastgood.key"), mode).unwrap();
    shop.run(["doctor"]).ok().says(&["can be opened by everybody on this machine", "chmod 600"]);
    shop.config("[app]\nnam = 'x'\n");
    shop.run(["doctor"]).ends_with(1).says(&["unknown key `nam`", "lastgood config check"]);
    let empty = Shop::new();
    let (code, report) = empty.json(["doctor"]);
    assert_eq!(code, Some(1), "{report}");
    run(empty.command(["doctor"]).env_remove("HOME")).ends_with(1);
}

#[test]
fn verify_reads_all_a_sample_or_what_is_due() {
    let shop = Shop::protected();
    shop.run(["verify"]).ok().says(&["Sound", "100.0 % of all bytes"]);
    shop.run(["verify", "--sample", "5%"]).ok().says(&["Sound"]);
    shop.run(["verify", "--within", "30d"]).ok().says(&["Sound", "Verified so far"]);
    assert!(shop.beside("home/.local/state/lastgood/verify").exists());
    let (_, report) = shop.json(["verify"]);
    assert_eq!((&report["damage_total"], &report["packs_verified"]), (&0.into(), &report["counts"]["packs"]));
}
