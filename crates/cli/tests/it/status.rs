use crate::support::Shop;

/// Ends with this code, and the first line begins so.
#[track_caller]
fn says(shop: &Shop, code: i32, sentence: &str) {
    let ran = shop.run(["status"]).ends_with(code);
    let first = ran.stdout.lines().next().unwrap_or_default();
    assert!(first.starts_with(sentence), "{ran:#?}");
    let (json_code, status) = shop.json(["status"]);
    assert_eq!(json_code, Some(code));
    // A second may pass between the two.
    let timeless =
        |text: &str| text.split(|c: char| c.is_ascii_digit()).map(str::to_owned).collect::<Vec<_>>().concat();
    let told = status["sentence"].as_str().map(timeless);
    assert_eq!(told, Some(timeless(first)), "one truth for people and programs");
    assert_eq!(status["met"], code == 0);
}

const SOURCE: &str = "[source.uploads]\nkind = \"files\"\npaths = [\"./uploads\"]\n";

#[test]
fn a_fresh_and_a_half_configured_application_are_unprotected() {
    let shop = Shop::new();
    shop.run(["status"]).ends_with(2).says(&["there is no config"]);
    shop.config("");
    says(&shop, 6, "Unprotected: the config names nothing to protect");
    shop.config(SOURCE);
    says(&shop, 6, "Unprotected: the config names no repository");
    shop.config(&format!("{SOURCE}[repository.local]\nurl = \"./backups\"\nkey = {{ file = \"./lastgood.key\" }}\n"));
    says(&shop, 6, "Unprotected: no good recovery point is known; repository local cannot be looked into: ");
    shop.run(["init"]).ok();
    says(&shop, 6, "Unprotected: there is no recovery point");
    shop.run(["backup"]).ok();
    says(&shop, 0, "Protected: the newest good point is ");
    // What was added to the config since is not in it.
    let text = fs_err::read_to_string(shop.path("lastgood.toml")).unwrap();
    shop.config(&format!("{text}[source.db]\nkind = \"sqlite\"\npath = \"./shop.db\"\n"));
    says(&shop, 6, "Unprotected: there is no good recovery point of db");
}

#[test]
fn a_stale_application_says_how_old_its_newest_good_point_is() {
    let shop = Shop::protected();
    let text = fs_err::read_to_string(shop.path("lastgood.toml")).unwrap();
    assert!(text.contains("[app]\n"), "{text}");
    shop.config(&text.replace("[app]\n", "[app]\nrpo = \"1s\"\n"));
    std::thread::sleep(std::time::Duration::from_secs(2));
    says(&shop, 6, "Stale: the newest good point is ");
    shop.run(["status"]).ends_with(6).says(&["and the rpo is 1 s", "Missing:"]);
    shop.config(&text.replace("[app]\n", "[app]\nrpo = \"1d\"\n"));
    says(&shop, 0, "Protected: ");
    // An incomplete point is none to rely on.
    fs_err::rename(shop.path("shop.db"), shop.path("away.db")).unwrap();
    shop.run(["backup"]).ends_with(3);
    shop.run(["status"]).ok().says(&["the newest point of ", "is incomplete"]);
}

#[test]
fn a_policy_is_met_by_facts_alone() {
    let shop = Shop::protected();
    let text = fs_err::read_to_string(shop.path("lastgood.toml")).unwrap();
    let ran = shop.run(["status"]).ok();
    ran.says(&["where the data is", "1 off-site copy is wanted, and there is none", "DRILLED", "has no `rpo`"]);
    let other = "[repository.other]\nurl = \"./other\"\nkey = { file = \"./lastgood.key\" }\n";
    let policy = "[policy]\ncopies = 2\noffsite = 1\nverified_within = \"1d\"\n";
    let write = |offsite: &str| shop.config(&format!("{text}\n{other}{offsite}\n{policy}"));
    write("");
    says(&shop, 6, "At risk: 2 current copies are wanted, and there is 1");
    shop.run(["status"]).ends_with(6).says(&["other cannot be looked into"]);
    shop.run(["init", "--repo", "other"]).ok();
    shop.run(["backup"]).ok();
    says(&shop, 6, "At risk: 1 off-site copy is wanted, and there is none");
    write("offsite = true");
    says(&shop, 6, "At risk: local was never verified");
    shop.run(["verify", "--repo", "local"]).ok();
    let (_, status) = shop.json(["status"]);
    let verified: Vec<bool> =
        status["repositories"].as_array().unwrap().iter().map(|r| r["verified_secs"].is_number()).collect();
    assert_eq!(verified, [true, false], "{status}");
    shop.run(["verify", "--repo", "other"]).ok();
    says(&shop, 0, "Healthy: the newest good point is ");
    let (_, status) = shop.json(["status"]);
    assert_eq!(status["repositories"][0]["immutable"], false);
    assert_eq!(status["repositories"][1]["offsite"], true);
    assert!(status["repositories"][0]["drilled"].is_string());
    // A repository that is gone is no copy.
    fs_err::rename(shop.path("other"), shop.path("gone")).unwrap();
    says(&shop, 6, "At risk: 2 current copies are wanted, and there is 1");
}

#[test]
fn size_growth_and_what_was_proven_are_told_and_a_quota_is_warned_of() {
    let shop = Shop::protected();
    let (code, status) = shop.json(["status"]);
    assert_eq!(code, Some(0), "{status}");
    let near = &status["repositories"][0];
    let packs: u64 = shop.objects("data").iter().map(|path| fs_err::metadata(path).unwrap().len()).sum();
    assert!(near["bytes"].as_u64().unwrap() > packs, "{near}");
    assert!(near["limit_bytes"].as_u64().unwrap() > near["bytes"].as_u64().unwrap(), "{near}");
    assert!(near["drilled"].is_string() && near["daily_bytes"].is_null(), "{near}");
    let config = fs_err::read_to_string(shop.path("lastgood.toml")).unwrap();
    assert!(!shop.run(["backup"]).ok().stderr.contains("soon be full"));
    shop.config(&config.replacen("[repository.local]", "[repository.local]\nquota = \"10KB\"", 1));
    let ran = shop.run(["backup"]).ok();
    assert!(
        ran.stderr.contains("local will soon be full") && ran.stderr.contains("full at 9.77 KiB"),
        "{}",
        ran.stderr
    );
    shop.run(["status"]).ok().says(&["local will soon be full"]);
    shop.config(&config.replacen("[repository.local]", "[repository.local]\nquota = \"lots\"", 1));
    shop.run(["status"]).says(&["quota", "500GB"]);
}
