use super::*;
use lastgood_model::ErrorKind;
use proptest::prelude::*;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// A person's home with nothing in it, and nothing in the environment but what is given.
struct Place {
    home: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { home: tempfile::tempdir().unwrap() }
    }

    fn file(&self, name: &str, text: &str, mode: u32) -> String {
        let path = self.home.path().join(name);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(&path, text).unwrap();
        fs_err::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn parse(&self, url: &str, variables: &[(&str, &str)]) -> Result<Conninfo> {
        let home = self.home.path().to_str().unwrap();
        let system = self.home.path().join("system");
        Conninfo::parse(url, &|name| match variables.iter().find(|(variable, _)| *variable == name) {
            Some((_, value)) => Some((*value).to_owned()),
            None if name == "HOME" => Some(home.to_owned()),
            None if name == "PGSYSCONFDIR" => Some(system.to_str().unwrap().to_owned()),
            None => None,
        })
    }
}

fn parse(url: &str) -> Result<Conninfo> {
    Place::new().parse(url, &[("PGUSER", "me")])
}

/// Host, user, database and password of a connection, as one line.
fn told(info: &Conninfo) -> String {
    let password = info.password(&info.hosts()[0]).unwrap_or("-");
    format!("{} {} {} {password}", info.host_shown(), info.user(), info.database())
}

#[test]
fn urls_are_read_as_libpq_reads_them() {
    let table = [
        ("postgresql://h", "h:5432 me me -"),
        ("postgres://h", "h:5432 me me -"),
        ("postgresql://h:5433", "h:5433 me me -"),
        ("postgresql://h/db", "h:5432 me db -"),
        ("postgresql://u@h", "h:5432 u u -"),
        ("postgresql://u:p@h/db", "h:5432 u db p"),
        ("postgresql://u:@h/db", "h:5432 u db -"),
        ("postgresql://@h/db", "h:5432 me db -"),
        ("postgresql://u%40x:p%2F%3A%25@h/d%20b", "h:5432 u@x d b p/:%"),
        ("postgresql://u:p:q@h", "h:5432 u u p:q"),
        ("postgresql://h1:1,h2:2,h3/db", "h1:1, h2:2, h3:5432 me db -"),
        ("postgresql://h1,h2:5433/db", "h1:5432, h2:5433 me db -"),
        ("postgresql://h1,h2/db?port=7", "h1:7, h2:7 me db -"),
        ("postgresql://[::1]:5433/db", "[::1]:5433 me db -"),
        ("postgresql://[2001:db8::1]/db", "[2001:db8::1]:5432 me db -"),
        ("postgresql://%2Fvar%2Flib%2Fpg/db", "/var/lib/pg/.s.PGSQL.5432 me db -"),
        ("postgresql:///db?host=/tmp/x&port=5", "/tmp/x/.s.PGSQL.5 me db -"),
        ("postgresql:///db?host=@abstract", "@abstract/.s.PGSQL.5432 me db -"),
        ("postgresql://h/db?user=u&password=p", "h:5432 u db p"),
        ("postgresql://h/one?dbname=two", "h:5432 me two -"),
        ("postgresql://h/db?", "h:5432 me db -"),
        ("postgresql://h?connect_timeout=10", "h:5432 me me -"),
        ("postgresql://name/db?hostaddr=127.0.0.1", "name:5432 me db -"),
        ("hostaddr=127.0.0.1 dbname=db", "127.0.0.1:5432 me db -"),
        ("host=h port=5433 user=u dbname=db", "h:5433 u db -"),
        (" host = h  dbname = 'a b' ", "h:5432 me a b -"),
        (r"host=h password='it\'s \\ so'", r"h:5432 me me it's \ so"),
        (r"host=h password=a\ b", "h:5432 me me a b"),
        ("host=h dbname=''", "h:5432 me me -"),
        ("host=h dbname=one dbname=two", "h:5432 me two -"),
        ("host=a,b port=1,2", "a:1, b:2 me me -"),
    ];
    for (url, expected) in table {
        assert_eq!(told(&parse(url).unwrap_or_else(|e| panic!("{url}: {e:?}"))), expected, "{url}");
    }
}

#[test]
fn what_cannot_be_meant_is_refused_with_a_word_why() {
    let table = [
        ("postgresql://h:x", "the port is no number"),
        ("postgresql://h:0", "the port is no number"),
        ("postgresql://h:65536", "the port is no number"),
        ("postgresql://u:p/w@h", "the port is no number"),
        ("postgresql://[::1", "no closing bracket"),
        ("postgresql://[]", "address is empty"),
        ("postgresql://[::1]x", "behind the bracket"),
        ("postgresql://h/%zz", "two hexadecimal digits"),
        ("postgresql://h/%4", "two hexadecimal digits"),
        ("postgresql://h/%00", "%00"),
        ("postgresql://h/%ff", "not UTF-8"),
        ("postgresql://h?sslmode", "no \"=\""),
        ("postgresql://h?options=-ca=b", "a second \"=\""),
        ("postgresql://h?sslmod=require", "unknown connection parameter \"sslmod\""),
        ("postgresql://h?sslmode=yes", "sslmode cannot be \"yes\""),
        ("mysql://h/db", "no PostgreSQL URL"),
        ("just words", "no \"=\""),
        ("host=h password='open", "no closing quote"),
        ("host=a,b hostaddr=1.2.3.4", "2 host names do not go with 1"),
        ("host=a,b,c port=1,2", "2 ports do not go with 3 hosts"),
        ("hostaddr=nowhere", "no IP address"),
        ("host=h connect_timeout=soon", "connect_timeout is no whole number"),
        ("host=h target_session_attrs=master", "target_session_attrs cannot be"),
        ("host=h sslnegotiation=direct", "at least sslmode=require"),
        ("host=h sslrootcert=system sslmode=require", "weaker sslmode"),
        ("host=h ssl_min_protocol_version=TLSv1.3 ssl_max_protocol_version=TLSv1.2", "is above"),
        ("host=h require_auth=md5,!none", "mixes"),
        ("host=h gssencmode=require", "not supported"),
        ("host=h sslcrldir=/x", "not supported"),
    ];
    for (url, expected) in table {
        let error = parse(url).unwrap_err();
        assert!(error.chain().contains(expected), "{url}: {error:?}");
        assert!(error.hint().is_some() || !expected.contains("URL"), "{url}");
    }
}

#[test]
fn a_misspelt_parameter_is_answered_with_the_right_one() {
    for (wrong, right) in [
        ("sslmod", "sslmode"),
        ("ssl_mode", "sslmode"),
        ("database", "dbname"),
        ("username", "user"),
        ("aplication_name", "application_name"),
        ("sslrootcrt", "sslrootcert"),
    ] {
        let error = parse(&format!("postgresql://h?{wrong}=x")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.hint().unwrap().contains(&format!("{right:?}")), "{wrong}: {:?}", error.hint());
    }
}

#[test]
fn what_is_written_outranks_the_service_and_that_the_environment() {
    let place = Place::new();
    let services = place.file(".pg_service.conf", "[s]\nhost=from-service\nport=1\ndbname=from-service\n", 0o644);
    let variables = [("PGHOST", "from-env"), ("PGPORT", "2"), ("PGUSER", "from-env"), ("PGDATABASE", "from-env")];
    let info = |url: &str| told(&place.parse(url, &variables).unwrap());
    assert_eq!(info(""), "from-env:2 from-env from-env -");
    assert_eq!(info("service=s"), "from-service:1 from-env from-service -");
    assert_eq!(info("service=s host=written"), "written:1 from-env from-service -");
    assert_eq!(info("postgresql:///d?service=s"), "from-service:1 from-env d -");
    let by_variable = [("PGSERVICE", "s"), ("PGSERVICEFILE", services.as_str()), ("PGUSER", "u")];
    assert_eq!(told(&place.parse("", &by_variable).unwrap()), "from-service:1 u from-service -");
}

#[test]
fn services_are_looked_up_in_the_own_file_and_then_in_the_systems() {
    let place = Place::new();
    place.file(".pg_service.conf", "# mine\n[a]\nhost=mine\nhost=second\n\n[b]\nhost=b\n[a]\nport=9\n", 0o644);
    place.file("system/pg_service.conf", "[a]\nhost=system\n[c]\n host=c\n", 0o644);
    let user = [("PGUSER", "u")];
    let host = |service: &str| place.parse(&format!("service={service}"), &user).map(|info| info.host_shown());
    assert_eq!(host("a").unwrap(), "mine:5432", "the first section and the first line count");
    assert_eq!(host("b").unwrap(), "b:5432");
    assert_eq!(host("c").unwrap(), "c:5432");
    let missing = host("d").unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::Absent);
    assert!(missing.message().contains("\"d\""), "{missing:?}");

    let bad = place.file("bad.conf", "[x]\nhostt=h\n[y]\nhost\n[z]\nservice=x\n[l]\nldap://x\n", 0o644);
    for (service, expected) in [
        ("x", "line 2: unknown connection parameter \"hostt\""),
        ("y", "line 4 has no"),
        ("z", "line 6 names another service"),
        ("l", "LDAP"),
    ] {
        let error = place.parse("", &[("PGSERVICE", service), ("PGSERVICEFILE", &bad)]).unwrap_err();
        assert!(error.chain().contains(expected), "{error:?}");
    }
    let gone = place.parse("service=a servicefile=/nowhere/at/all", &user).unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::Absent);
}

#[test]
fn password_files_are_matched_field_by_field() {
    let place = Place::new();
    let lines = [
        "# comment:1:2:3:4",
        "too:few:fields",
        "h:5432:db:u:plain",
        "h:5433:*:u:any database",
        r"h:5434:a\:b:u:with \: and \\ and : cut",
        r"h:5435:\*:u:a real star",
        "[no]:1:1:1:1",
        "localhost:5432:db:u:for the socket",
        "/own/socket:5432:db:u:for that socket",
        "127.0.0.9:5432:*:*:by address",
        "::1:5432:*:*:never, the colons cut it",
        r"\:\:1:5432:*:*:by v6 address",
        "h:5436:replication:u:for replication",
        "*:5437:*:*:the last resort",
        "h:5438:db:u:",
        "h:5439:db:u:with return\r",
    ];
    place.file(".pgpass", &(lines.join("\n") + "\n"), 0o600);
    let table = [
        ("host=h dbname=db user=u", "plain"),
        ("host=h dbname=other user=u", "-"),
        ("host=h dbname=db user=v", "-"),
        ("host=h port=5433 dbname=whatever user=u", "any database"),
        ("host=h port=5434 dbname=a:b user=u", r"with : and \ and "),
        ("host=h port=5435 dbname=x user=u", "-"),
        ("host=h port=5435 dbname=* user=u", "a real star"),
        ("host=/var/run/postgresql dbname=db user=u", "for the socket"),
        ("host=/own/socket dbname=db user=u", "for that socket"),
        ("hostaddr=127.0.0.9 user=u", "by address"),
        ("host=::1 user=u", "by v6 address"),
        ("host=h port=5436 dbname=db user=u replication=true", "for replication"),
        ("host=h port=5436 dbname=db user=u replication=database", "-"),
        ("host=elsewhere port=5437 user=u", "the last resort"),
        ("host=h port=5438 dbname=db user=u", "-"),
        ("host=h port=5439 dbname=db user=u", "with return"),
        ("host=h dbname=db user=u password=written", "written"),
    ];
    for (text, expected) in table {
        let info = place.parse(text, &[]).unwrap();
        assert_eq!(info.password(&info.hosts()[0]).unwrap_or("-"), expected, "{text}");
    }
    let info = place.parse("host=h user=u dbname=other", &[]).unwrap();
    let same = info.with_database("db");
    assert_eq!((same.database(), same.password(&same.hosts()[0])), ("db", Some("plain")));
}

#[test]
fn a_password_file_that_others_can_read_is_not_used_and_the_reason_is_kept() {
    let place = Place::new();
    for (mode, is_used) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false), (0o666, false)] {
        let path = place.file("pass", "*:*:*:*:secret\n", mode);
        let info = place.parse("host=h user=u", &[("PGPASSFILE", &path)]).unwrap();
        assert_eq!(info.password(&info.hosts()[0]).is_some(), is_used, "{mode:o}");
        assert_eq!(info.password_note().is_some_and(|note| note.contains("chmod 0600")), !is_used, "{mode:o}");
        let written = place.parse(&format!("host=h user=u passfile={path}"), &[]).unwrap();
        assert_eq!(written.password(&written.hosts()[0]).is_some(), is_used);
    }
    let folder = place.home.path().to_str().unwrap();
    let info = place.parse("host=h user=u", &[("PGPASSFILE", folder)]).unwrap();
    assert!(info.password_note().unwrap().contains("no plain file"));
    let missing = place.parse("host=h user=u passfile=/nowhere", &[]).unwrap();
    assert_eq!(missing.password_note(), None);
}

#[test]
fn modes_and_roots_of_tls_have_libpqs_defaults() {
    let place = Place::new();
    let tls = |text: &str| place.parse(&format!("host=h user=u {text}"), &[]).unwrap().options.tls;
    assert_eq!((tls("").mode, tls("").root), (SslMode::Prefer, SslRoot::Missing));
    assert_eq!(tls("sslrootcert=system").mode, SslMode::VerifyFull);
    assert_eq!(tls("sslrootcert=/x").root, SslRoot::File(PathBuf::from("/x")));
    assert_eq!(tls("sslmode=verify-ca").mode, SslMode::VerifyCa);
    assert!(tls("").own.is_none());
    let root = place.file(".postgresql/root.crt", "", 0o644);
    let certificate = place.file(".postgresql/postgresql.crt", "", 0o644);
    let key = place.home.path().join(".postgresql/postgresql.key");
    assert_eq!(tls("").root, SslRoot::Own(PathBuf::from(root)));
    assert_eq!(tls("").own, Some((PathBuf::from(certificate), key.clone(), false)));
    assert_eq!(tls("sslcert=/c").own, Some((PathBuf::from("/c"), key, true)));
    assert!(tls("sslcertmode=disable").own.is_none());
    let url = place.parse("postgresql://u@h?ssl=true", &[]).unwrap();
    assert_eq!(url.options.tls.mode, SslMode::Require);
    let old = place.parse("host=h user=u", &[("PGREQUIRESSL", "1")]).unwrap();
    assert_eq!(old.options.tls.mode, SslMode::Require);
}

#[test]
fn times_are_in_seconds_and_zero_means_for_ever() {
    let options = |text: &str| parse(&format!("host=h {text}")).unwrap().options;
    for (text, expected) in [
        ("", Some(CONNECT_TIMEOUT_DEFAULT)),
        ("connect_timeout=0", None),
        ("connect_timeout=-1", None),
        ("connect_timeout=1", Some(Duration::from_secs(2))),
        ("connect_timeout=7", Some(Duration::from_secs(7))),
    ] {
        assert_eq!(options(text).connect_timeout, expected, "{text}");
    }
    let keepalives = options("keepalives_idle=5 keepalives_interval=0 keepalives_count=3").keepalives;
    assert_eq!(
        (keepalives.is_on, keepalives.idle, keepalives.interval, keepalives.count),
        (true, Some(Duration::from_secs(5)), None, Some(3))
    );
    assert!(!options("keepalives=0").keepalives.is_on);
    assert_eq!(options("tcp_user_timeout=1500").tcp_user_timeout, Some(Duration::from_millis(1500)));
    assert_eq!(options("").tcp_user_timeout, None);
}

#[test]
fn the_user_is_the_operating_systems_when_none_is_named() {
    let place = Place::new();
    let info = place.parse("host=h", &[]).unwrap();
    let expected = user_name(rustix::process::geteuid().as_raw());
    assert_eq!(Some(info.user().to_owned()), expected);
    assert_eq!(info.database(), info.user());
}

#[test]
fn a_child_is_given_the_same_connection_and_nothing_to_look_up() {
    let place = Place::new();
    place.file(".pg_service.conf", "[s]\nhost=h\nsslmode=require\n", 0o644);
    place.file(".pgpass", "h:5432:db:u:from file\n", 0o600);
    let info = place.parse("service=s dbname=db user=u options='-c x=y'", &[]).unwrap();
    let expected = [
        ("PGUSER", "u"),
        ("PGPASSWORD", "from file"),
        ("PGDATABASE", "db"),
        ("PGHOST", "h"),
        ("PGPORT", "5432"),
        ("PGOPTIONS", "-c x=y"),
        ("PGSSLMODE", "require"),
    ];
    let given = info.to_environment();
    assert_eq!(given, expected.map(|(name, value)| (name, value.to_owned())));
    assert!(Conninfo::variables().any(|name| name == "PGSERVICE"));
    assert!(given.iter().all(|(name, _)| Conninfo::variables().any(|variable| variable == *name)));

    let several = place.parse("host=a,/tmp/b hostaddr=1.1.1.1, port=1,2 user=u", &[]).unwrap();
    let second = several.with_only_host(1);
    assert_eq!(second.host_shown(), "/tmp/b/.s.PGSQL.2");
    let given = second.to_environment();
    let value = |name: &str| given.iter().find(|(it, _)| *it == name).map(|(_, value)| value.as_str());
    assert_eq!((value("PGHOST"), value("PGPORT"), value("PGHOSTADDR")), (Some("/tmp/b"), Some("2"), None));
    assert_eq!(several.with_only_host(0).host_shown(), "a:1");
}

#[test]
fn secrets_are_shown_nowhere() {
    let url = "postgresql://u:hunter2@h/db?sslpassword=hunter2&oauth_client_secret=hunter2&sslmode=require";
    let info = parse(url).unwrap();
    let shown = info.to_string_without_secrets();
    assert_eq!(shown, "postgresql://u@h/db?sslmode=require");
    assert!(!format!("{info:?} {info:#?}").contains("hunter2"));
    for bad in [
        "postgresql://u:hunter2/@h/db",
        "postgresql://u:hunter2@h/db?nonsense=1",
        "postgresql://u:hunter2%@h/db",
        "host=h password=hunter2 hunter2",
        "host=h password='hunter2",
    ] {
        let error = parse(bad).unwrap_err();
        let all = format!("{error:?} {:?}", error.hint());
        assert!(!all.contains("hunter2"), "{all}");
    }
}

#[test]
fn a_url_for_people_reads_back_as_the_same_connection() {
    for url in [
        "postgresql://h/db",
        "postgresql://a%2Fb@h:5433/d%3Fb%2F%25?application_name=x%20y%26z",
        "postgresql://[::1]:5433/db?options=-c%20a%3Db",
        "postgresql:///db?host=/tmp&port=5",
        "postgresql://a:1,b:2/db?target_session_attrs=primary",
        "host=h sslrootcert='/a b/c' user=u",
    ] {
        let info = parse(url).unwrap();
        let again = parse(&info.to_string_without_secrets()).unwrap();
        assert_eq!(told(&again), told(&info), "{url}");
        assert_eq!(again.to_string_without_secrets(), info.to_string_without_secrets(), "{url}");
    }
}

#[test]
fn the_default_socket_folder_is_one_that_exists() {
    let info = parse("user=u").unwrap();
    let Host { place: super::Place::Unix(folder), port: 5432 } = &info.hosts()[0] else { panic!("{info:?}") };
    assert!(folder == Path::new("/var/run/postgresql") || folder == Path::new("/tmp"));
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "(postgresql://)?[a-z@:/?&=,%\\[\\]' \\\\0-9]{0,60}") {
        if let Ok(info) = parse(&text) {
            let shown = info.to_string_without_secrets();
            let again = parse(&shown).unwrap_or_else(|e| panic!("{text} became {shown}: {e:?}"));
            prop_assert_eq!(again.user(), info.user());
            prop_assert_eq!(again.database(), info.database());
            prop_assert_eq!(again.host_shown(), info.host_shown());
        }
    }

    #[test]
    fn any_value_survives_both_forms(user in "[^\0]{1,20}", database in "[^\0]{1,20}", password in "[^\0]{1,20}") {
        let quote = |text: &str| text.replace('\\', "\\\\").replace('\'', "\\'");
        let text = format!("host=h user='{}' dbname='{}' password='{}'", quote(&user), quote(&database), quote(&password));
        let info = parse(&text).unwrap();
        prop_assert_eq!((info.user(), info.database()), (user.as_str(), database.as_str()));
        prop_assert_eq!(info.password(&info.hosts()[0]), Some(password.as_str()));
        let again = parse(&info.to_string_without_secrets()).unwrap();
        prop_assert_eq!((again.user(), again.database()), (user.as_str(), database.as_str()));
    }
}
