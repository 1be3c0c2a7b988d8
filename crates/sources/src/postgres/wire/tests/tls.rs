//! Encryption against a real server, with certificates that `openssl` makes here and now.

use super::server::{Server, failure};
use crate::postgres::wire::{Client, CopyRead, sqlstate};
use lastgood_model::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A folder with keys and certificates.
struct Certificates(tempfile::TempDir);

impl Certificates {
    fn new() -> Self {
        let made = Self(tempfile::tempdir().unwrap());
        made.authority("ca");
        made
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs_err::read(self.path(name)).unwrap()
    }

    fn openssl(&self, arguments: &str) {
        let words: Vec<&str> = arguments.split(' ').filter(|word| !word.is_empty()).collect();
        let done =
            Command::new("openssl").args(&words).current_dir(self.0.path()).output().expect("openssl is installed");
        assert!(done.status.success(), "{arguments}: {}", String::from_utf8_lossy(&done.stderr));
    }

    fn authority(&self, name: &str) {
        self.openssl(&format!(
            "req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN={name} -keyout {name}.key -out {name}.crt \
             -addext basicConstraints=critical,CA:TRUE -addext keyUsage=keyCertSign,cRLSign"
        ));
    }

    /// A certificate `name` by authority `by`: common name, alternative names, how it is signed.
    fn issue(&self, name: &str, by: &str, common_name: &str, alternative: Option<&str>, key: &str, signing: &str) {
        self.openssl(&format!(
            "req -new -newkey {key} -nodes -subj /CN={common_name} -keyout {name}.key -out {name}.csr"
        ));
        let extensions = alternative.map(|names| format!("subjectAltName={names}\n")).unwrap_or_default();
        fs_err::write(self.path("ext"), format!("basicConstraints=CA:FALSE\n{extensions}")).unwrap();
        self.openssl(&format!(
            "x509 -req -in {name}.csr -CA {by}.crt -CAkey {by}.key -CAcreateserial -days 30 -extfile ext -out {name}.crt {signing}"
        ));
        self.make_private(&format!("{name}.key"));
    }

    fn make_private(&self, name: &str) {
        fs_err::set_permissions(self.path(name), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    }

    fn server(&self, name: &str, settings: &[(&str, &str)], rules: Option<&str>) -> Server {
        let mut settings = settings.to_vec();
        settings.extend([("ssl", "on"), ("ssl_ca_file", "ca.crt")]);
        let files: [(&str, &[u8]); 3] = [
            ("server.crt", &self.read(&format!("{name}.crt"))),
            ("server.key", &self.read(&format!("{name}.key"))),
            ("ca.crt", &self.read("ca.crt")),
        ];
        Server::start(&settings, rules, &files)
    }
}

fn shown(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// What came of an attempt: the encryption, or what the error says.
fn outcome(server: &Server, text: &str) -> Result<Option<String>, String> {
    match Client::connect(&server.info(text)) {
        Ok(mut client) => {
            assert_eq!(client.query("SELECT 1").unwrap().len(), 1);
            Ok(client.encryption())
        }
        Err(error) => Err(format!("{:?}: {}", error.kind(), error.chain())),
    }
}

#[test]
fn every_mode_does_what_it_promises() {
    let certificates = Certificates::new();
    certificates.authority("stranger");
    certificates.issue("server", "ca", "ignored", Some("DNS:localhost,IP:127.0.0.1"), "rsa:2048", "-sha256");
    let encrypted = certificates.server("server", &[], None);
    let plain = Server::plain();
    let ca = format!("sslrootcert={}", shown(&certificates.path("ca.crt")));
    let stranger = format!("sslrootcert={}", shown(&certificates.path("stranger.crt")));
    let (ca, stranger) = (ca.as_str(), stranger.as_str());
    // Settings; encrypted with a server that can; what a server says that cannot.
    let table = [
        ("host=localhost sslmode=disable", Ok(false), Ok(())),
        ("host=localhost sslmode=allow", Ok(false), Ok(())),
        ("host=localhost", Ok(true), Ok(())),
        ("host=localhost sslmode=require", Ok(true), Err("does not offer TLS")),
        ("host=localhost sslmode=verify-ca", Err("no file of trusted"), Err("does not offer TLS")),
        (&format!("host=localhost sslmode=verify-ca {ca}"), Ok(true), Err("does not offer TLS")),
        (&format!("host=localhost sslmode=verify-full {ca}"), Ok(true), Err("does not offer TLS")),
        (&format!("host=127.0.0.1 sslmode=verify-full {ca}"), Ok(true), Err("does not offer TLS")),
        (&format!("host=elsewhere hostaddr=127.0.0.1 sslmode=verify-ca {ca}"), Ok(true), Err("does not offer TLS")),
        (
            &format!("host=elsewhere hostaddr=127.0.0.1 sslmode=verify-full {ca}"),
            Err("not valid for name"),
            Err("offer"),
        ),
        (&format!("host=localhost sslmode=require {stranger}"), Err("UnknownIssuer"), Err("does not offer TLS")),
        (&format!("host=localhost sslmode=verify-full {stranger}"), Err("UnknownIssuer"), Err("does not offer TLS")),
        // As with libpq: what cannot be trusted is no reason not to go on without.
        (&format!("host=localhost sslmode=prefer {stranger}"), Ok(false), Ok(())),
        ("host=localhost sslmode=verify-full sslrootcert=system", Err("UnknownIssuer"), Err("does not offer TLS")),
        ("host=localhost sslmode=verify-full sslrootcert=/nowhere", Err("read sslrootcert"), Err("does not offer TLS")),
        ("host=127.0.0.1 sslmode=require ssl_min_protocol_version=TLSv1.3", Ok(true), Err("does not offer TLS")),
        ("host=127.0.0.1 sslmode=require ssl_max_protocol_version=TLSv1.2", Ok(true), Err("does not offer TLS")),
        ("host=127.0.0.1 sslmode=require sslnegotiation=direct connect_timeout=5", Err("TLS"), Err("TLS")),
    ];
    for (text, with, without) in table {
        match (outcome(&encrypted, text), with) {
            (Ok(found), Ok(expected)) => assert_eq!(found.is_some(), expected, "{text}: {found:?}"),
            (Err(found), Err(expected)) => assert!(found.contains(expected), "{text}: {found}"),
            (found, expected) => panic!("{text}: {found:?} where {expected:?} was expected"),
        }
        match (outcome(&plain, text), without) {
            (Ok(found), Ok(())) => assert_eq!(found, None, "{text}"),
            (Err(found), Err(expected)) => assert!(found.contains(expected), "{text}: {found}"),
            (found, expected) => panic!("{text}, no TLS: {found:?} where {expected:?} was expected"),
        }
    }
    let version = |text: &str| outcome(&encrypted, &format!("host=localhost {text}")).unwrap().unwrap();
    assert!(version("ssl_max_protocol_version=TLSv1.2").starts_with("TLS 1.2"), "{}", version(""));
    assert!(version("").starts_with("TLS 1.3"), "{}", version(""));
    // A Unix socket is never encrypted, whatever is asked for.
    let socket = format!("host={} sslmode=verify-full", encrypted.folder().display());
    assert_eq!(outcome(&encrypted, &socket), Ok(None));
}

#[test]
fn names_are_found_in_all_the_ways_certificates_are_made() {
    let certificates = Certificates::new();
    let ca = shown(&certificates.path("ca.crt"));
    certificates.issue("common", "ca", "localhost", None, "rsa:2048", "-sha256");
    certificates.issue("other", "ca", "localhost", Some("DNS:other.example"), "rsa:2048", "-sha256");
    certificates.openssl("req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=localhost -keyout own.key -out own.crt");
    certificates.make_private("own.key");
    // As tutorials do it: without a file of extensions, which gives version 1.
    certificates.openssl("req -new -newkey rsa:2048 -nodes -subj /CN=localhost -keyout old.key -out old.csr");
    certificates.openssl("x509 -req -in old.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -out old.crt");
    certificates.make_private("old.key");
    let own = shown(&certificates.path("own.crt"));
    let table = [
        ("common", &ca, "verify-full", None),
        ("other", &ca, "verify-ca", None),
        ("other", &ca, "verify-full", Some("not valid for name")),
        ("own", &own, "verify-full", None),
        ("own", &own, "require", None),
        ("own", &ca, "verify-ca", Some("certificate")),
        ("old", &ca, "verify-ca", Some("UnsupportedCertVersion")),
    ];
    for name in ["common", "other", "own", "old"] {
        let server = certificates.server(name, &[], None);
        for (_, root, mode, expected) in table.iter().filter(|(it, ..)| *it == name) {
            let found = outcome(&server, &format!("host=localhost sslmode={mode} sslrootcert={root}"));
            match expected {
                None => assert!(found.as_ref().is_ok_and(Option::is_some), "{name} {mode}: {found:?}"),
                Some(words) => {
                    assert!(found.as_ref().is_err_and(|text| text.contains(words)), "{name} {mode}: {found:?}")
                }
            }
        }
        for version in ["TLSv1.2", "TLSv1.3"] {
            let text = format!(
                "host=localhost sslmode=require ssl_min_protocol_version={version} ssl_max_protocol_version={version}"
            );
            assert!(outcome(&server, &text).unwrap().is_some(), "{name}: nothing is verified");
        }
        if name == "own" {
            let text = format!("host=elsewhere hostaddr=127.0.0.1 sslmode=verify-full sslrootcert={own}");
            assert!(outcome(&server, &text).unwrap_err().contains("not valid for name"));
        }
    }
}

#[test]
fn signing_in_is_bound_to_the_connection_where_that_is_possible() {
    let certificates = Certificates::new();
    let table = [
        ("rsa:2048", "-sha256", true),
        ("rsa:2048", "-sha384", true),
        ("rsa:2048", "-sha512", true),
        // The hash of such a signature is a parameter, which older servers do not look up.
        ("rsa:2048", "-sha256 -sigopt rsa_padding_mode:pss", false),
    ];
    for (key, signing, can_bind) in table {
        certificates.issue("server", "ca", "localhost", Some("DNS:localhost"), key, signing);
        let server = certificates.server("server", &[], Some("local all all trust\nhost all all all scram-sha-256\n"));
        server.client().batch("CREATE ROLE sc LOGIN PASSWORD 'secret'").unwrap();
        let text = "host=localhost user=sc password=secret sslmode=require";
        let bound = outcome(&server, &format!("{text} channel_binding=require"));
        assert_eq!(bound.is_ok(), can_bind, "{signing}: {bound:?}");
        if can_bind {
            assert!(outcome(&server, text).is_ok());
            assert!(outcome(&server, &format!("{text} channel_binding=disable")).is_ok());
            let wrong = outcome(&server, "host=localhost user=sc password=wrong sslmode=require").unwrap_err();
            assert!(wrong.contains("28P01"), "{wrong}");
        }
    }
}

#[test]
fn our_own_certificate_lets_us_in_if_its_key_is_kept_well() {
    let certificates = Certificates::new();
    certificates.issue("server", "ca", "localhost", Some("DNS:localhost"), "rsa:2048", "-sha256");
    certificates.issue("us", "ca", "us", None, "rsa:2048", "-sha256");
    certificates.issue("them", "ca", "them", None, "rsa:2048", "-sha256");
    let rules =
        "local all all trust\nhostssl all us all cert\nhostnossl all free all trust\nhostssl all enc all trust\n";
    let server = certificates.server("server", &[], Some(rules));
    server.client().batch("CREATE ROLE us LOGIN; CREATE ROLE free LOGIN; CREATE ROLE enc LOGIN").unwrap();
    let with = |name: &str, key: &str| {
        let (certificate, key) = (certificates.path(&format!("{name}.crt")), certificates.path(key));
        format!("host=localhost user=us sslmode=require sslcert={} sslkey={}", shown(&certificate), shown(&key))
    };
    assert!(outcome(&server, &with("us", "us.key")).unwrap().is_some());
    assert!(outcome(&server, &with("them", "them.key")).unwrap_err().contains("28000"));
    assert!(outcome(&server, &with("us", "them.key")).unwrap_err().contains("use our certificate"));
    assert!(outcome(&server, "host=localhost user=us sslmode=require").unwrap_err().starts_with("Denied"));
    fs_err::set_permissions(certificates.path("us.key"), std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    assert!(outcome(&server, &with("us", "us.key")).unwrap_err().contains("can be read by others"));
    certificates.openssl("pkey -in them.key -aes128 -passout pass:x -out locked.key");
    certificates.make_private("locked.key");
    assert!(outcome(&server, &with("them", "locked.key")).unwrap_err().contains("is encrypted"));

    // Rules for one kind of connection: the modes in between try the other.
    assert_eq!(outcome(&server, "host=localhost user=free"), Ok(None));
    assert!(outcome(&server, "host=localhost user=enc sslmode=allow").unwrap().is_some());
    assert!(outcome(&server, "host=localhost user=free sslmode=require").unwrap_err().contains("28000"));
    assert!(outcome(&server, "host=localhost user=enc sslmode=disable").unwrap_err().contains("28000"));

    certificates.openssl("req -new -newkey rsa:2048 -nodes -subj /CN=x -keyout x.key -out x.csr");
    let config = "[ca]\ndefault_ca=a\n[a]\ndatabase=db.txt\ndefault_md=sha256\ndefault_crl_days=30\n\
                  crlnumber=number\ncrl_extensions=x\n[x]\nauthorityKeyIdentifier=keyid\n";
    fs_err::write(certificates.path("number"), "01\n").unwrap();
    fs_err::write(certificates.path("ca.conf"), config).unwrap();
    fs_err::write(certificates.path("db.txt"), "").unwrap();
    certificates.openssl("ca -config ca.conf -gencrl -keyfile ca.key -cert ca.crt -out none.crl");
    certificates.openssl("ca -config ca.conf -revoke server.crt -keyfile ca.key -cert ca.crt");
    certificates.openssl("ca -config ca.conf -gencrl -keyfile ca.key -cert ca.crt -out some.crl");
    let lists = |name: &str| {
        let (ca, list) = (certificates.path("ca.crt"), certificates.path(name));
        format!("host=localhost user=enc sslmode=verify-full sslrootcert={} sslcrl={}", shown(&ca), shown(&list))
    };
    assert!(outcome(&server, &lists("none.crl")).unwrap().is_some());
    assert!(outcome(&server, &lists("some.crl")).unwrap_err().contains("Revoked"));
}

#[test]
fn bulk_data_and_cancelling_work_encrypted() {
    let certificates = Certificates::new();
    certificates.issue("server", "ca", "localhost", Some("DNS:localhost"), "rsa:2048", "-sha256");
    let server = certificates.server("server", &[], Some("local all all trust\nhostssl all all all trust\n"));
    let info =
        server.info(&format!("host=localhost sslmode=verify-full sslrootcert={}", shown(&certificates.path("ca.crt"))));
    for version in ["TLSv1.2", "TLSv1.3"] {
        let info = server.info(&format!("{} ssl_max_protocol_version={version}", "host=localhost sslmode=require"));
        let mut client = Client::connect(&info).unwrap();
        client.batch("CREATE TABLE IF NOT EXISTS t (a text); TRUNCATE t").unwrap();
        let mut into = client.copy_in("COPY t FROM STDIN").unwrap();
        let line = format!("{}\n", "x".repeat(999));
        (0..40_000).for_each(|_| into.write(line.as_bytes()).unwrap());
        assert_eq!(into.finish().unwrap(), 40_000);
        let (mut bytes, mut buffer) = (0, Vec::new());
        let began = std::time::Instant::now();
        let mut out = client.copy_out("COPY t TO STDOUT").unwrap();
        let end = loop {
            buffer.clear();
            let read = out.read(&mut buffer, 1 << 20).unwrap();
            bytes += buffer.len();
            if read != CopyRead::More {
                break read;
            }
        };
        println!("{version}: {bytes} bytes in {:?}", began.elapsed());
        assert_eq!((bytes, end), (40_000_000, CopyRead::End { rows: Some(40_000) }));
    }
    let mut client = Client::connect(&info).unwrap();
    let canceller = client.canceller();
    let waiting = std::thread::spawn(move || client.batch("SELECT pg_sleep(60)").unwrap_err());
    let mut other = server.client();
    while other.query("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'").unwrap().is_empty() {}
    canceller.cancel().unwrap();
    let error = waiting.join().unwrap();
    assert_eq!((error.kind(), sqlstate(&error)), (ErrorKind::Cancelled, Some("57014")));

    let mut client = Client::connect(&info).unwrap();
    let out = client.copy_out("COPY (SELECT generate_series(1, 1000000000), repeat('x', 1000)) TO STDOUT").unwrap();
    drop(out);
    assert_eq!(client.query("SELECT 1").unwrap().len(), 1, "cancelled and drained over TLS");
    let mut out = client.copy_out("COPY (SELECT generate_series(1, 1000000000), repeat('x', 1000)) TO STDOUT").unwrap();
    out.read(&mut Vec::new(), 1000).unwrap();
    server.kill();
    std::thread::sleep(Duration::from_millis(100));
    let error = loop {
        match out.read(&mut Vec::new(), 1 << 20) {
            Ok(read) => assert_eq!(read, CopyRead::More),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::Retry, "{error:?}");
    drop(out);
    assert_eq!(failure(client.batch("SELECT 1")).0, ErrorKind::Retry);
}
