use crate::support::{Shop, run};

#[test]
fn a_typo_is_shown_in_place_and_nothing_is_done() {
    let shop = Shop::protected();
    let config = fs_err::read_to_string(shop.path("lastgood.toml")).unwrap();
    shop.config(&config.replace("paths =", "pahts ="));
    let ran = shop.run(["backup"]).ends_with(2);
    assert_eq!(
        ran.stderr.lines().take(6).collect::<Vec<_>>(),
        [
            "error: unknown key `pahts` in [source.uploads]",
            "  --> lastgood.toml:12:1",
            "   |",
            "12 | pahts = [\"./uploads\"]",
            "   | ^^^^^",
            "   = help: did you mean `paths`?",
        ],
        "{}",
        ran.stderr
    );
    let (code, error) = shop.json(["backup"]);
    assert_eq!(code, Some(2));
    assert_eq!(
        (&error["type"], &error["kind"], &error["exit_code"]),
        (&"lastgood.error".into(), &"config".into(), &2.into())
    );
    assert!(error["message"].as_str().unwrap().contains("lastgood.toml:12:1: unknown key `pahts`"));
    shop.config(&config);
    assert_eq!(shop.snapshots().len(), 1);
}

#[test]
fn a_key_in_clear_is_refused_and_not_repeated() {
    let shop = Shop::protected();
    let key = shop.key();
    shop.config(&format!("[repository.r]\nurl = 'backups'\nkey = '{key}'\n"));
    let ran = shop.run(["snapshots"]).ends_with(2).says(&["must not hold the secret itself", "{ file = "]);
    assert!(!ran.stderr.contains(&key[4..]), "{}", ran.stderr);
}

#[test]
fn the_config_is_looked_for_where_the_manual_says_and_flags_go_over_it() {
    let shop = Shop::protected();
    let app = |name: &str| format!("[app]\nname = '{name}'\n");
    let shown = |command: &mut std::process::Command| {
        let ran = run(command).ok();
        ran.json()["app"].as_str().unwrap().to_owned()
    };
    let show = ["config", "show", "--output", "json"];
    fs_err::create_dir_all(shop.beside("home/.config/lastgood")).unwrap();
    fs_err::create_dir_all(shop.beside("xdg/lastgood")).unwrap();
    fs_err::write(shop.beside("home/.config/lastgood/lastgood.toml"), app("of-home")).unwrap();
    fs_err::write(shop.beside("xdg/lastgood/lastgood.toml"), app("of-xdg")).unwrap();
    fs_err::write(shop.beside("variable.toml"), app("of-variable")).unwrap();
    fs_err::write(shop.beside("flag.toml"), app("of-flag")).unwrap();
    assert_eq!(shown(&mut shop.command(show)), "shop", "the one of the working directory");
    fs_err::rename(shop.path("lastgood.toml"), shop.beside("kept.toml")).unwrap();
    assert_eq!(shown(&mut shop.command(show)), "of-home");
    assert_eq!(shown(shop.command(show).env("XDG_CONFIG_HOME", shop.beside("xdg"))), "of-xdg");
    assert_eq!(shown(shop.command(show).env("LASTGOOD_CONFIG", shop.beside("variable.toml"))), "of-variable");
    let flag = shop.beside("flag.toml");
    let flagged = show.iter().copied().chain(["--config", flag.to_str().unwrap()]);
    assert_eq!(shown(shop.command(flagged).env("LASTGOOD_CONFIG", shop.beside("variable.toml"))), "of-flag");
    run(shop.command(show).env("LASTGOOD_CONFIG", "/nonexistent"))
        .ends_with(2)
        .says(&["LASTGOOD_CONFIG names /nonexistent"]);
}

#[test]
fn variables_go_over_the_file_and_a_wrong_one_is_named() {
    let shop = Shop::protected();
    run(shop.command(["init"]).env("LASTGOOD__REPOSITORY__LOCAL__URL", "./second")).ok();
    assert!(shop.path("second/config").exists());
    let ran = run(shop.command(["config", "show"]).env("LASTGOOD__APP__NAME", "blog")).ok();
    ran.says(&["name = \"blog\"", "environment variable LASTGOOD__APP__NAME", "lastgood.toml:", "# default"]);
    run(shop.command(["backup"]).env("LASTGOOD__SOURCE__UPLOADS__EXCLUDES", "*.jpg"))
        .ends_with(2)
        .says(&["environment variable LASTGOOD__SOURCE__UPLOADS__EXCLUDES", "did you mean `exclude`"]);
    run(shop.command(["backup"]).env("LASTGOOD__SOURCE__UPLOADS__EXCLUDE", "*.jpg")).ok();
    assert!(!shop.run(["find", "*"]).ok().stdout.contains("b.jpg"));
}

#[test]
fn a_key_of_the_environment_goes_over_that_of_the_file_and_a_flag_over_both() {
    let shop = Shop::protected();
    shop.run(["key", "generate", "other.key"]).ok();
    let other = fs_err::read_to_string(shop.path("other.key")).unwrap();
    let snapshots = || shop.command(["snapshots"]);
    run(snapshots().env("LASTGOOD_KEY", &other)).ends_with(12).says(&["with environment variable LASTGOOD_KEY"]);
    run(snapshots().env("LASTGOOD_KEY_FILE", "other.key")).ends_with(12).says(&["with key file other.key"]);
    run(snapshots().env("LASTGOOD_KEY", &other).args(["--key-file", "lastgood.key"])).ok();
    // A variable for one repository says more than one for all.
    let named = "LASTGOOD__REPOSITORY__LOCAL__KEY__FILE";
    run(snapshots().env("LASTGOOD_KEY", &other).env(named, "lastgood.key")).ok();
    let shown = run(shop.command(["config", "show"]).env("LASTGOOD_KEY_FILE", "other.key")).ok();
    let line = shown.stdout.lines().find(|line| line.starts_with("key.file")).unwrap();
    assert!(line.contains("\"other.key\"") && line.ends_with("# environment variable LASTGOOD_KEY_FILE"), "{line}");
    let config = fs_err::read_to_string(shop.path("lastgood.toml")).unwrap();
    shop.config(&config.replace("lastgood.key", "other.key"));
    run(snapshots().env("LASTGOOD_KEY", shop.key())).ok();
}

#[test]
fn an_exclude_file_that_is_not_there_is_a_mistake_in_the_config() {
    let shop = Shop::protected();
    let config = fs_err::read_to_string(shop.path("lastgood.toml")).unwrap();
    shop.config(&config.replace("paths = ", "exclude_files = ['none']\npaths = "));
    let at = config.lines().position(|line| line.starts_with("paths")).unwrap() + 1;
    let place = format!("lastgood.toml:{at}: `exclude_files` of source \"uploads\" names ");
    let ran = shop.run(["backup"]).ends_with(2).says(&[&place, "shop/none, which is not a file"]);
    assert!(!ran.stderr.contains("unprotected now"), "{ran:?}");
    shop.run(["config", "check"]).ends_with(2).says(&[&place]);
    shop.run(["snapshots"]).ok();
}

#[test]
fn the_config_is_checked_with_every_source_and_key() {
    let shop = Shop::protected();
    shop.run(["config", "check"]).ok().says(&["lastgood.toml can be used", "the key is there", "SQLite database"]);
    fs_err::remove_file(shop.path("lastgood.key")).unwrap();
    fs_err::remove_dir_all(shop.path("uploads")).unwrap();
    let ran = shop.run(["config", "check"]).ends_with(2);
    ran.says(&["FAIL", "there is no key file", "uploads", "next:"]);
    let (code, report) = shop.json(["config", "check"]);
    assert_eq!((code, &report["failures"]), (Some(2), &2.into()), "{report}");
}

#[test]
fn a_repository_that_does_not_exist_yet_is_told_with_what_makes_it() {
    let shop = Shop::protected();
    shop.run(["config", "check"]).ok().says(&["there is a repository at"]);
    fs_err::rename(shop.path("backups"), shop.beside("backups")).unwrap();
    shop.run(["config", "check"]).ok().says(&["WARN", "there is no repository at", "is its disk mounted"]);
    fs_err::rename(shop.path("lastgood.key"), shop.beside("kept.key")).unwrap();
    let ran = shop.run(["config", "check"]).ok();
    ran.says(&["its key is not there yet", "there is no repository at", "`lastgood init` makes it"]);
    shop.run(["init"]).ok();
    shop.run(["config", "check"]).ok().says(&["there is a repository at"]);
    fs_err::remove_dir_all(shop.path("backups")).unwrap();
    fs_err::rename(shop.beside("backups"), shop.path("backups")).unwrap();
    fs_err::remove_file(shop.path("backups/config")).unwrap();
    shop.run(["config", "check"]).says(&["FAIL", "the `config` object of the repository", "is missing"]);
}

#[test]
fn the_schema_is_json_and_secrets_are_not_shown() {
    let shop = Shop::protected();
    let schema: serde_json::Value = serde_json::from_str(&shop.run(["config", "schema"]).ok().stdout).unwrap();
    assert!(schema["properties"]["source"].is_object());
    shop.config(
        "[source.d]\nkind = 'command'\ncommand = ['dump', '--password=hunter2']\nenv = { PGPASSWORD = 'hunter2' }\n\
         [repository.r]\nurl = 'backups'\nkey = { command = ['pass', 'hunter2'] }\n",
    );
    for arguments in [
        &["config", "show"][..],
        &["config", "check"],
        &["config", "show", "--output", "json"],
        &["doctor"],
        &["backup", "-vvv"],
        &["snapshots"],
    ] {
        let ran = shop.run(arguments);
        assert!(!format!("{ran:?}").contains("hunter2"), "{arguments:?}: {ran:?}");
    }
}

#[test]
fn what_this_version_does_not_do_is_refused_in_plain_words() {
    let shop = Shop::protected();
    let config = fs_err::read_to_string(shop.path("lastgood.toml")).unwrap();
    let schedule = format!("{config}[schedule]\nevery = '6h'\n");
    for text in [schedule, config.replace("[app]\n", "[app]\nrto = '1h'\n")] {
        shop.config(&text);
        shop.run(["backup"]).ends_with(2).says(&["is not acted upon by this version"]);
    }
}

#[test]
fn without_a_config_the_way_to_one_is_shown() {
    let shop = Shop::new();
    shop.run(["backup"]).ends_with(2).says(&["there is no config", "lastgood protect"]);
    shop.run(["snapshots"]).ends_with(2).says(&["neither a config nor a repository", "--repo PATH"]);
}

#[test]
fn relative_paths_may_lead_out_of_the_configs_folder() {
    let shop = Shop::protected();
    fs_err::create_dir_all(shop.beside("data/real/below")).unwrap();
    fs_err::write(shop.beside("data/beside.txt"), "not this").unwrap();
    fs_err::write(shop.beside("data/real/mine.txt"), "this").unwrap();
    // Behind a link `..` is not what the text says.
    std::os::unix::fs::symlink(shop.beside("data/real/below"), shop.path("link")).unwrap();
    let config = fs_err::read_to_string(shop.path("lastgood.toml")).unwrap();
    for (path, found) in [("../data/real", true), ("./link/../mine.txt", true), ("../data/beside.txt", false)] {
        shop.config(&config.replace("\"./uploads\"", &format!("{path:?}")));
        shop.run(["config", "check"]).ok();
        shop.run(["backup"]).ok();
        let ran = shop.run(["find", "mine.txt", "--snapshot", "latest"]).ok();
        assert_eq!(ran.stdout.contains("/data/real/mine.txt"), found, "{path}: {}", ran.stdout);
    }
    shop.config(&config.replace("\"./uploads\"", "\"../none/../x\""));
    shop.run(["config", "check"]).ends_with(2).says(&["leads upwards"]);
}
