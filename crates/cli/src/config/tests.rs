use super::decode::KINDS;
use super::*;
use std::num::NonZeroUsize;

fn read(text: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigProblems> {
    let source = SourceText { name: "lastgood.toml".into(), text: text.into() };
    let variables: Vec<(String, String)> =
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    decode(&source, &variables, PathBuf::from("/srv/shop"))
}

const WHOLE: &str = r#"
[app]
name = "shop"
rpo = "6h"

[policy]
copies = 2
media = 2
offsite = 1
immutable = 1
verified_within = "30d"

[source.db]
kind = "sqlite"
path = "shop.db"
digest = "full"
keep = { within_daily = "1y" }

[source.uploads]
kind = "files"
paths = ["./uploads", "/etc/shop"]
exclude = ["cache/**"]
exclude_files = ["ignore"]
one_file_system = true
exclude_caches = true
exclude_larger_than = "1GiB"

[source.orders]
kind = "postgres"
url = { env = "DATABASE_URL" }
databases = ["shop", "books"]
tables = ["public.*"]
exclude_tables = ["*_log"]
schemas = ["public"]
exclude_schemas = ["tmp*"]
schema_only = true
data_only = false
jobs = 3
chunk = "files"
lock_timeout = "1m"
bin = "pg/bin"

[source.dump]
kind = "command"
command = ["pg_dump", "--password=hunter2", "shop"]
file = "shop.sql"
env = { PGPASSWORD = "hunter2" }
cwd = "work"
timeout = "10m"

[repository.local]
url = "./backups"
key = { file = "lastgood.key" }
compression = "max"
offsite = false

[repository.local.keep]
last = 3
hourly = 24
daily = 14
weekly = 8
monthly = 12
quarterly = 4
yearly = 3
within = "30d"
within_hourly = "2d"
tags = ["release", "a,b"]
time_zone = "Europe/Berlin"
"#;

#[test]
fn a_whole_config_is_read_with_paths_made_absolute() {
    let config = read(WHOLE, &[]).unwrap();
    assert_eq!(config.app, "shop");
    let names: Vec<_> = config.sources.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["db", "uploads", "orders", "dump"]);
    assert_eq!(config.sources[0].spec, SourceSpec::Sqlite { path: "/srv/shop/shop.db".into(), digest: Digest::Full });
    assert_eq!(
        config.sources[1].spec,
        SourceSpec::Files {
            paths: vec!["/srv/shop/uploads".into(), "/etc/shop".into()],
            exclude: vec!["cache/**".into()],
            exclude_files: vec!["/srv/shop/ignore".into()],
            one_file_system: true,
            exclude_caches: true,
            exclude_larger_than: Some(1 << 30),
        }
    );
    assert_eq!(
        config.sources[2].spec,
        SourceSpec::Postgres(Box::new(PostgresConfig {
            url: Url::Secret(SecretRef::Env("DATABASE_URL".into())),
            databases: Databases::Named(vec!["shop".into(), "books".into()]),
            tables: vec!["public.*".into()],
            exclude_tables: vec!["*_log".into()],
            schemas: vec!["public".into()],
            exclude_schemas: vec!["tmp*".into()],
            schema_only: true,
            data_only: false,
            jobs: NonZeroUsize::new(3),
            chunk: Cut::Files,
            lock_timeout: Some(Duration::from_secs(60)),
            bin: Some("/srv/shop/pg/bin".into()),
        }))
    );
    assert_eq!(
        config.sources[3].spec,
        SourceSpec::Command {
            argv: vec!["pg_dump".into(), "--password=hunter2".into(), "shop".into()],
            file: "shop.sql".into(),
            env: vec![("PGPASSWORD".into(), "hunter2".into())],
            cwd: "/srv/shop/work".into(),
            timeout: Some(Duration::from_secs(600)),
        }
    );
    assert_eq!(config.rpo, Some(Duration::from_secs(6 * 3600)));
    let within = Some(Duration::from_secs(30 * 86_400));
    let policy = PolicyConfig { copies: 2, media: 2, offsite: 1, immutable: 1, verified_within: within };
    assert_eq!(config.policy, Some(policy));
    let repository = config.repository("local").unwrap();
    assert_eq!(repository.offsite, Some(false));
    assert_eq!(repository.place.to_string(), "/srv/shop/backups");
    assert_eq!(repository.key, Some(SecretRef::File("/srv/shop/lastgood.key".into())));
    assert_eq!(repository.compression, Compression::Max);
    let keep = repository.keep.clone().unwrap();
    assert_eq!(keep.time_zone.as_deref(), Some("Europe/Berlin"));
    assert_eq!(
        keep.policy.describe(),
        "last 3, hourly 24, daily 14, weekly 8, monthly 12, quarterly 4, yearly 3, within 30d, hourly within 2d, \
         tag release, tag a,b"
    );
    let policies = config.policies(repository);
    assert_eq!(policies.of("db").describe(), "daily within 1y");
    assert_eq!(policies.of("uploads"), &keep.policy);
    let shown = format!("{:?}", config.settings);
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[test]
fn what_is_not_written_has_defaults_that_say_so() {
    let config = read("[repository.r]\nurl = '/r'\n", &[]).unwrap();
    assert_eq!(config.app, "shop", "the name of the folder");
    let origin = |key: &str| config.settings.iter().find(|s| s.key == key).map(|s| s.origin.as_str());
    assert_eq!(origin("app.name"), Some("default"));
    assert_eq!(origin("repository.r.compression"), Some("default"));
    assert_eq!(origin("repository.r.url"), Some("lastgood.toml:2"));
    assert_eq!(config.repositories[0].key, None);
}

#[test]
fn variables_go_over_the_file() {
    let config = read(
        WHOLE,
        &[
            ("LASTGOOD__APP__NAME", "blog"),
            ("LASTGOOD__REPOSITORY__LOCAL__URL", "/elsewhere"),
            ("LASTGOOD__REPOSITORY__LOCAL__KEY__ENV", "THE_KEY"),
            ("LASTGOOD__SOURCE__UPLOADS__PATHS", "[\"/a\", \"/b\"]"),
            ("LASTGOOD__SOURCE__UPLOADS__EXCLUDE", "*.tmp"),
            ("LASTGOOD__SOURCE__UPLOADS__EXCLUDE_CACHES", "false"),
        ],
    )
    .unwrap();
    assert_eq!(config.app, "blog");
    assert_eq!(config.repositories[0].place.to_string(), "/elsewhere");
    assert_eq!(config.repositories[0].key, Some(SecretRef::Env("THE_KEY".into())));
    let SourceSpec::Files { paths, exclude, exclude_caches, .. } = &config.sources[1].spec else { panic!() };
    assert_eq!(paths, &[PathBuf::from("/a"), "/b".into()]);
    assert_eq!(exclude, &["*.tmp"]);
    assert!(!exclude_caches);
    let setting = config.settings.iter().find(|s| s.key == "app.name").unwrap();
    assert_eq!(setting.origin, "environment variable LASTGOOD__APP__NAME");
}

#[test]
fn a_variable_that_is_wrong_is_named() {
    for (variable, value, word) in [
        ("LASTGOOD__REPOSITRY__LOCAL__URL", "/x", "did you mean `repository`"),
        ("LASTGOOD__SOURCE__DB__PATHS", "/x", "did you mean `path`"),
        ("LASTGOOD__SOURCE__UPLOADS__ONE_FILE_SYSTEM", "yes", "true or false"),
        ("LASTGOOD__REPOSITORY__LOCAL__KEY", "hunter2", "must not hold the secret itself"),
    ] {
        let problems = read(WHOLE, &[(variable, value)]).unwrap_err();
        let all = problems.rendered.join("\n");
        assert!(all.contains(word) && all.contains(variable), "{all}");
        assert!(!all.contains("hunter2"), "{all}");
    }
}

/// The config's text, and what must be in the one complaint about it.
#[track_caller]
fn check(text: &str, position: &str, words: &[&str]) {
    let problems = read(text, &[]).unwrap_err();
    assert_eq!(problems.lines.len(), 1, "{:#?}", problems.lines);
    assert!(problems.lines[0].starts_with(position), "{}", problems.lines[0]);
    for word in words {
        assert!(problems.rendered[0].contains(word), "{word:?} is not in:\n{}", problems.rendered[0]);
    }
}

#[test]
fn a_typo_is_shown_where_it_is_with_a_suggestion() {
    let problems =
        read("[source.uploads]\nkind = \"files\"\npaths = [\"/srv\"]\nexlude = [\"*.tmp\"]\n", &[]).unwrap_err();
    assert_eq!(
        problems.rendered,
        [
            "unknown key `exlude` in [source.uploads]\n --> lastgood.toml:4:1\n  |\n4 | exlude = [\"*.tmp\"]\n  | ^^^^^^\n  = help: did you mean `exclude`?"
        ]
    );
}

#[test]
fn everything_that_can_be_wrong_says_where_and_what_to_do() {
    check("[sorce.x]\n", "lastgood.toml:1:2:", &["unknown key `sorce`", "did you mean `source`"]);
    check("[app]\nnmae = 'x'\n", "lastgood.toml:2:1:", &["did you mean `name`"]);
    check("[app]\nname = 5\n", "lastgood.toml:2:8:", &["`app.name` is a number", "a string in quotes"]);
    check("[app]\nname = 'a/b'\n", "lastgood.toml:2:8:", &["neither `/`"]);
    check("app = 'x'\n", "lastgood.toml:1:7:", &["must be a table"]);
    check("[source.x]\npath = 'a'\n", "lastgood.toml:1:9:", &["`kind` is missing"]);
    check("[source.x]\nkind = 'sqlte'\n", "lastgood.toml:2:8:", &["did you mean \"sqlite\""]);
    check("[source.x]\nkind = 'mysql'\n", "lastgood.toml:2:8:", &["not in this version"]);
    check("[source.x]\nkind = 'postgresql'\n", "lastgood.toml:2:8:", &["write \"postgres\""]);
    check("[source.x]\nkind = 'sqlite'\n", "lastgood.toml:1:9:", &["`path` is missing"]);
    check(
        "[source.x]\nkind = 'sqlite'\npath = 'a'\npaths = ['a']\n",
        "lastgood.toml:4:1:",
        &["belongs to sources of kind \"files\"", "did you mean `path`"],
    );
    check(
        "[source.x]\nkind = 'sqlite'\npath = 'a'\ntimeout = '1m'\n",
        "lastgood.toml:4:1:",
        &["belongs to sources of kind \"command\""],
    );
    check(
        "[source.x]\nkind = 'sqlite'\npath = 'a'\ndigest = 'ful'\n",
        "lastgood.toml:4:10:",
        &["did you mean \"full\""],
    );
    check("[source.x]\nkind = 'files'\npaths = []\n", "lastgood.toml:3:9:", &["names nothing"]);
    check("[source.x]\nkind = 'files'\npaths = '/srv'\n", "lastgood.toml:3:9:", &["must be a list of strings"]);
    check("[source.x]\nkind = 'files'\npaths = ['a', 1]\n", "lastgood.toml:3:15:", &["must be a list of strings"]);
    check(
        "[source.x]\nkind = 'files'\npaths = ['a']\nexclude_larger_than = 'big'\n",
        "lastgood.toml:4:23:",
        &["a size such as"],
    );
    check(
        "[source.x]\nkind = 'files'\npaths = ['a']\nexclude_caches = 'yes'\n",
        "lastgood.toml:4:18:",
        &["without quotes"],
    );
    check("[source.x]\nkind = 'command'\ncommand = ['']\n", "lastgood.toml:3:11:", &["names no program"]);
    check("[source.x]\nkind = 'command'\ncommand = ['a']\nfile = 'a/b'\n", "lastgood.toml:4:8:", &["plain file name"]);
    check("[source.x]\nkind = 'command'\ncommand = ['a']\ntimeout = '5'\n", "lastgood.toml:4:11:", &["a span such as"]);
    check("[source.'a/b']\nkind = 'sqlite'\npath = 'a'\n", "lastgood.toml:1:9:", &["cannot be the name of a source"]);
    check("[source.'.lastgood']\nkind = 'sqlite'\npath = 'a'\n", "lastgood.toml:1:9:", &["own folder"]);
    check("[source]\nkind = 'sqlite'\n", "lastgood.toml:2:1:", &["must be a table", "[source.NAME]"]);
    check("[repository.r]\n", "lastgood.toml:1:13:", &["`url` is missing"]);
    check("[repository.r]\nurl = 'b2:b'\n", "lastgood.toml:2:7:", &["`b2:`"]);
    check("[repository.r]\nurl = 's3://b?style=odd'\n", "lastgood.toml:2:7:", &["`style`"]);
    let bucket = |line: &str| format!("[repository.r]\nurl = 's3://b'\n{line}\n");
    check(&bucket("access_key_id = 'AKIA'"), "lastgood.toml:3:17:", &["`repository.r.access_key_id`"]);
    check(&bucket("sas = { fil = 'x', env = 'S' }"), "lastgood.toml:3:9:", &["did you mean `file`"]);
    check(&bucket("lock = 'long'"), "lastgood.toml:3:8:", &["a span"]);
    check(&bucket("lock_mode = 'compliance'"), "lastgood.toml:3:13:", &["nothing says"]);
    for (url, line) in [
        ("/r", "lock = '30d'"),
        ("/r", "ca_file = 'x'"),
        ("/r", "private_key = { file = 'x' }"),
        ("sftp://u@h/r", "lock = '30d'"),
        ("sftp://u@h/r", "sas = { file = 'x' }"),
        ("rest:https://h/r", "lock_mode = 'compliance'"),
        ("rest:https://h/r", "known_hosts = 'x'"),
        ("s3://b", "password = { file = 'x' }"),
    ] {
        check(&format!("[repository.r]\nurl = '{url}'\n{line}\n"), "lastgood.toml:3:1:", &["means nothing"]);
    }
    check("[repository.r]\nurl = '/r'\ncompression = 'best'\n", "lastgood.toml:3:15:", &["it can be"]);
    check(
        "[repository.r]\nurl = '/r'\nkey = { fiel = 'k' , env = 'K' }\n",
        "lastgood.toml:3:9:",
        &["did you mean `file`"],
    );
    check(
        "[repository.r]\nurl = '/r'\nkey = { file = 'k', env = 'K' }\n",
        "lastgood.toml:3:7:",
        &["more than one way"],
    );
    check("[repository.r]\nurl = '/r'\nkey = {}\n", "lastgood.toml:3:7:", &["does not say where"]);
    check("[source.x]\nkind = 'files'\npaths = ['~/a']\n", "lastgood.toml:3:9:", &["`~` is not expanded"]);
    check("[repository.r]\nurl = '/r'\nkey = { file = '~/k' }\n", "lastgood.toml:3:16:", &["`~` is not expanded"]);
    check("x = [\n", "lastgood.toml:", &["not TOML"]);
}

#[test]
fn what_is_to_be_kept_is_judged() {
    let of = |keep: &str| format!("[repository.r]\nurl = '/r'\nkeep = {keep}\n");
    let at = "lastgood.toml:3:";
    check(&of("5"), at, &["must be a table"]);
    check(&of("{}"), at, &["has no rule", "keep everything"]);
    check(&of("{ time_zone = 'UTC' }"), at, &["has no rule"]);
    check(&of("{ daily = 0 }"), at, &["from 1 to 100000"]);
    check(&of("{ daly = 5, last = 1 }"), at, &["did you mean `daily`"]);
    check(&of("{ within = '5m' }"), at, &["a span such as"]);
    check(&of("{ within = '0d' }"), at, &["a span such as"]);
    check(&of("{ tags = ['a,,b'] }"), at, &["an empty tag"]);
    check(&of("{ last = 1, time_zone = 'Europe/Berlyn' }"), at, &["a time zone such as"]);
    check(
        "[source.x]\nkind = 'sqlite'\npath = 'a'\nkeep = { last = 1, time_zone = 'UTC' }\n",
        "lastgood.toml:4:",
        &["belongs to a repository"],
    );
    let read = read(&of("{ last = 1 }"), &[("LASTGOOD__REPOSITORY__R__KEEP__LAST", "7")]).unwrap();
    assert_eq!(read.repositories[0].keep.as_ref().unwrap().policy.last, 7);
}

#[test]
fn what_is_meant_for_later_is_refused_in_plain_words_and_not_as_a_typo() {
    for (text, position) in
        [("[app]\nrto = '15m'\n", "lastgood.toml:2:1:"), ("[schedule]\nevery = '6h'\n", "lastgood.toml:1:2:")]
    {
        check(text, position, &["is not acted upon by this version", "remove it"]);
    }
}

#[test]
fn a_secret_in_clear_is_refused_and_not_repeated() {
    for text in ["key = 'hunter2'", "key = hunter2", "key = ['hunter2']", "password = 'hunter2'", "ky = 'lg1-hunter2'"]
    {
        let problems = read(&format!("[repository.r]\nurl = '/r'\n{text}\n"), &[]).unwrap_err();
        let all = problems.rendered.join("\n") + &problems.lines.join("\n");
        assert!(!all.contains("hunter2"), "{all}");
    }
}

#[test]
fn several_mistakes_are_told_at_once() {
    let problems = read("[app]\nx = 1\n[source.y]\nkind = 'z'\n[w]\n", &[]).unwrap_err();
    assert_eq!(problems.lines.len(), 3, "{:?}", problems.lines);
}

/// The schema and the reader are written apart; this holds them together.
#[test]
fn the_schema_knows_exactly_the_keys_that_are_read() {
    let schema = schema::json();
    let defs = &schema["$defs"];
    let keys = |value: &serde_json::Value| -> Vec<String> {
        let mut keys: Vec<String> = value["properties"].as_object().unwrap().keys().cloned().collect();
        keys.sort();
        keys
    };
    assert_eq!(keys(&schema), ["app", "policy", "repository", "source"]);
    assert_eq!(keys(&defs["App"]), ["name", "rpo"]);
    assert_eq!(keys(&defs["Policy"]), ["copies", "immutable", "media", "offsite", "verified_within"]);
    let way = crate::wiring::SECRET_NAMES.iter().chain(super::access::SETTINGS).copied();
    let own = [
        "compression",
        "keep",
        "key",
        "limit_download",
        "limit_upload",
        "offsite",
        "patience",
        "quota",
        "timeout",
        "url",
    ];
    let way = way.chain(super::access::OTHERS);
    let mut repository: Vec<&str> = way.chain(own).collect();
    repository.sort_unstable();
    assert_eq!(keys(&defs["Repository"]), repository);
    assert_eq!(keys(&defs["Rules"]), keep::KEYS);
    let mut of_repository = [&keep::KEYS[..], &["time_zone"]].concat();
    of_repository.sort_unstable();
    assert_eq!(keys(&defs["Keep"]), of_repository);
    for variant in defs["Source"]["oneOf"].as_array().unwrap() {
        let kind = variant["properties"]["kind"]["const"].as_str().unwrap();
        let (_, known) = KINDS.iter().find(|(k, _)| *k == kind).unwrap();
        let mut known: Vec<String> =
            known.iter().map(|k| (*k).to_owned()).chain(["keep".to_owned(), "kind".to_owned()]).collect();
        known.sort();
        assert_eq!(keys(variant), known, "{kind}");
        assert_eq!(variant["additionalProperties"], false, "{kind}");
    }
    assert_eq!(defs["Source"]["oneOf"].as_array().unwrap().len(), KINDS.len());
    // Every key that KINDS lists is asked for by the reader: the whole config above has them all.
    let config = read(WHOLE, &[]).unwrap();
    for (kind, keys) in KINDS {
        let source = ["uploads", "db", "orders", "dump"][KINDS.iter().position(|(k, _)| *k == kind).unwrap()];
        for key in keys {
            let prefix = format!("source.{source}.{key}");
            assert!(config.settings.iter().any(|s| s.key.starts_with(&prefix)), "{prefix}");
        }
    }
}

/// A PostgreSQL source with one more line, after a URL.
fn with_line(line: &str) -> String {
    format!("[source.x]\nkind = 'postgres'\nurl = 'postgres://u@h/shop'\n{line}\n")
}

#[test]
fn the_settings_of_a_postgres_source_are_judged() {
    check("[source.x]\nkind = 'postgres'\n", "lastgood.toml:1:9:", &["`url` is missing", "postgres://"]);
    check("[source.x]\nkind = 'postgres'\nurl = 5\n", "lastgood.toml:3:7:", &["a table that says where it is"]);
    let at = "lastgood.toml:4:";
    check(&with_line("databases = []"), at, &["names nothing", "\"all\""]);
    check(&with_line("databases = ['em', 'x', 'em']"), at, &["names \"em\" twice"]);
    check(&with_line("databases = 'shop'"), at, &["cannot be \"shop\"", "[\"shop\"]"]);
    check(&with_line("database = ['shop']"), at, &["did you mean `databases`"]);
    check(&with_line("exclude_table = ['a']"), at, &["did you mean `exclude_tables`"]);
    check(&with_line("path = 'a'"), at, &["belongs to sources of kind \"sqlite\""]);
    check(&with_line("jobs = 0"), at, &["from 1 to 64"]);
    check(&with_line("jobs = '4'"), at, &["without quotes"]);
    check(&with_line("chunk = 'row'"), at, &["did you mean \"rows\""]);
    check(&with_line("lock_timeout = '0s'"), at, &["must not be zero"]);
    check(&with_line("bin = '~/pg'"), at, &["`~` is not expanded"]);
    check(&with_line("schema_only = true\ndata_only = true"), "lastgood.toml:1:9:", &["leave nothing"]);
    let of = |line: &str, variables: &[(&str, &str)]| match read(&with_line(line), variables).unwrap().sources[0].spec {
        SourceSpec::Postgres(ref config) => (**config).clone(),
        ref other => panic!("{other:?}"),
    };
    assert_eq!(of("", &[]).databases, Databases::OfUrl);
    assert_eq!(of("databases = 'all'", &[]).databases, Databases::All);
    assert_eq!(of("", &[("LASTGOOD__SOURCE__X__DATABASES", "all")]).databases, Databases::All);
    assert_eq!(of("", &[("LASTGOOD__SOURCE__X__JOBS", "7")]).jobs, NonZeroUsize::new(7));
    let from = of("", &[("LASTGOOD__SOURCE__X__URL__FILE", "/run/url")]);
    assert_eq!(from.url, Url::Secret(SecretRef::File("/run/url".into())));
}

#[test]
fn a_password_in_a_url_is_refused_and_not_repeated() {
    for url in [
        "postgres://u:hunter2@h/db",
        "postgres://u:hun/ter2@h/db",
        "host=h password=hunter2",
        "postgres://h?password=hunter2",
    ] {
        let text = format!("[source.x]\nkind = 'postgres'\nurl = '{url}'\n");
        let by_variable = [("LASTGOOD__SOURCE__X__URL", url)];
        for problems in [read(&text, &[]).unwrap_err(), read(&with_line(""), &by_variable).unwrap_err()] {
            let all = problems.rendered.join("\n") + &problems.lines.join("\n");
            assert!(all.contains("must not hold a password itself") && all.contains("{ env = "), "{all}");
            assert!(!all.contains("hunter2") && !all.contains("ter2"), "{all}");
        }
    }
}

#[test]
fn how_long_a_place_may_be_silent_is_read_and_is_never_nothing() {
    let with = |lines: &str| format!("[repository.x]\nurl = '/srv/r'\n{lines}\n");
    check(&with("timeout = '0s'"), "lastgood.toml:3:", &["must not be zero"]);
    check(&with("patience = '0s'"), "lastgood.toml:3:", &["must not be zero"]);
    check(&with("patience = 'long'"), "lastgood.toml:3:", &["a span such as"]);
    let found = format!("{:?}", read(&with("timeout = '5s'\npatience = '1m'"), &[]).unwrap().repositories);
    assert!(found.contains("timeout: Some(5s)") && found.contains("patience: Some(60s)"), "{found}");
}
