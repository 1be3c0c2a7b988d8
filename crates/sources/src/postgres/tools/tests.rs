//! Programs that are found, chosen and run: small scripts where only their behaviour matters, a real server otherwise.

use super::super::testing::Server;
use super::*;
use lastgood_model::Context;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

fn installed(version: u32) -> Installation {
    Installation { bin: PathBuf::from(format!("/pg/{version}")), version: Version(version) }
}

fn script(folder: &Path, name: &str, text: &str) {
    fs_err::create_dir_all(folder).unwrap();
    let path = folder.join(name);
    fs_err::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs_err::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

fn sh(text: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", text]);
    command
}

fn never() -> bool {
    false
}

#[test]
fn versions_are_read_from_what_programs_say() {
    let check = |said: &str, number, shown: &str| {
        let version = Version::parse(said).unwrap();
        assert_eq!((version.0, version.to_string().as_str()), (number, shown), "{said}");
    };
    check("pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n", 150_018, "15.18");
    check("pg_dump (PostgreSQL) 9.6.24\n", 90_624, "9.6.24");
    check("pg_dump (PostgreSQL) 19devel\n", 190_000, "19.0");
    check("pg_dump (PostgreSQL) 18beta2\n", 180_000, "18.0");
    for said in ["", "pg_dump", "pg_dump (PostgreSQL)", "pg_dump (PostgreSQL) x"] {
        assert_eq!(Version::parse(said), None, "{said}");
    }
    assert_eq!((Version(150_018).major(), Version(90_624).major()), (15, 906));
}

#[test]
fn the_same_major_version_is_chosen_and_else_the_oldest_newer_one() {
    let tools = Tools { installations: [150_004, 180_001, 150_018, 160_002, 90_624].map(installed).to_vec() };
    for (server, chosen) in
        [(150_020, 150_018), (150_001, 150_018), (130_000, 150_018), (170_000, 180_001), (90_500, 90_624)]
    {
        assert_eq!(tools.choose(server).unwrap().version.0, chosen, "{server}");
    }
}

#[test]
fn when_all_are_too_old_each_is_named_with_what_to_install() {
    let tools = Tools { installations: [150_004, 160_002].map(installed).to_vec() };
    let error = tools.choose(170_003).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert_eq!(
        error.message(),
        "every pg_dump here is older than the server's 17.3: 15.4 in /pg/150004, 16.2 in /pg/160002"
    );
    assert!(error.hint().unwrap().contains("postgresql-client-17"), "{:?}", error.hint());
    let error = Tools::default().choose(150_000).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Absent);
    assert!(error.hint().unwrap().contains("postgresql-client-15"), "{:?}", error.hint());
}

#[test]
fn links_are_followed_and_wrappers_and_broken_programs_are_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    script(&at("real"), "pg_dump", "echo 'pg_dump (PostgreSQL) 16.3'");
    script(&at("wrapper"), "pg_wrapper", "echo 'pg_dump (PostgreSQL) 14.1'");
    script(&at("broken"), "pg_dump", "echo 'pg_dump (PostgreSQL) 12.1'; exit 1");
    for (name, target) in [("linked", "real/pg_dump"), ("wrapped", "wrapper/pg_wrapper")] {
        fs_err::create_dir_all(at(name)).unwrap();
        std::os::unix::fs::symlink(at(target), at(name).join("pg_dump")).unwrap();
    }
    let tools = Tools::look_into(["broken", "wrapped", "linked", "real", "none"].map(at));
    let real = fs_err::canonicalize(at("real")).unwrap();
    assert_eq!(tools.installations, [Installation { bin: real, version: Version(160_003) }]);
    let error = tools.installations[0].program(Program::Psql).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Absent);
    assert_eq!(Tools::find(Some(&at("broken"))).unwrap_err().kind(), ErrorKind::Absent);
    assert_eq!(Tools::find(Some(&at("real"))).unwrap().installations.len(), 1);
}

#[test]
fn output_counts_only_after_exit_status_0() {
    let run = |text| child::run(sh(text), &[], &never, |out| child::take_all(out, 100));
    assert_eq!(run("printf abc; echo words >&2").unwrap(), b"abc");
    let error = run("printf abc; echo 'why\u{1b}[1m' >&2; exit 3").unwrap_err();
    assert_eq!(error.chain(), "sh ended with exit status 3: why\\u{1b}[1m");
    let error = run("kill -9 $$").unwrap_err();
    assert!(error.chain().contains("killed by signal 9"), "{error:?}");
}

#[test]
fn a_program_that_failed_explains_its_half_output_better_than_the_parser() {
    let parse = |out: &mut dyn Read| super::super::toc::Toc::read_archive(out);
    let error = child::run(sh("printf PGDMP; sleep 0.05; echo 'server is gone' >&2; exit 1"), &[], &never, parse);
    assert_eq!(error.unwrap_err().chain(), "sh ended with exit status 1: server is gone");
    let error = child::run(sh("printf nonsense"), &[], &never, parse).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

#[test]
fn a_program_that_hangs_is_killed_with_its_children_when_a_stop_is_wanted() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pid");
    let started = Instant::now();
    let is_cancelled = || file.exists() && started.elapsed() > Duration::from_millis(200);
    let text = format!("sleep 100 & echo $! > '{}'; wait", file.display());
    for consume_first in [true, false] {
        let error = child::run(sh(&text), &[], &is_cancelled, |out| {
            if consume_first { child::take_all(out, 100) } else { Ok(Vec::new()) }
        });
        assert_eq!(error.unwrap_err().kind(), ErrorKind::Cancelled);
        assert!(started.elapsed() < Duration::from_secs(10));
        let pid: i32 = fs_err::read_to_string(&file).unwrap().trim().parse().unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        let gone = || {
            let stat = fs_err::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
            stat.is_empty() || stat.contains(") Z ")
        };
        while !gone() {
            assert!(started.elapsed() < Duration::from_secs(10), "its child still runs");
            std::thread::sleep(Duration::from_millis(10));
        }
        fs_err::remove_file(&file).unwrap();
    }
}

#[test]
fn many_messages_neither_block_the_program_nor_grow_without_bound() {
    let text = "i=0; while [ $i -lt 3000 ]; do echo 0123456789012345678901234567890123456789012345678901234 >&2; \
                i=$((i+1)); done; printf x; echo last >&2; exit 1";
    let error = child::run(sh(text), &[], &never, |out| child::take_all(out, 100)).unwrap_err();
    assert!(error.chain().ends_with("\nlast"));
    assert!(error.chain().len() < 70_000);
}

#[test]
fn the_connection_is_what_we_say_and_no_secret_is_in_the_arguments() {
    let env = [("PGHOST", "here".to_owned()), ("PGPASSWORD", "pass word".to_owned())];
    let text = "printf '%s|%s|%s|%s|%s|%s' \"$PGHOST\" \"$PGPASSWORD\" \"$PGOPTIONS\" \"$LC_ALL\" \"$0\" \"$#\"";
    let mut command = sh(text);
    command.env("PGHOST", "there");
    let out = child::run(command, &env, &never, |out| child::take_all(out, 1000)).unwrap();
    assert_eq!(String::from_utf8(out).unwrap(), "here|pass word||C|sh|0");
    // A program that prints its environment cannot put it into our error either: only its messages are told.
    let error = child::run(sh("env; exit 1"), &env, &never, |out| child::take_all(out, 100_000)).unwrap_err();
    assert!(!format!("{error:?}").contains("pass word"));
}

#[test]
fn a_real_database_and_its_server_are_described() -> Result<()> {
    let server = Server::start();
    server.create("shop");
    server.must(
        "shop",
        "CREATE TABLE t (a integer PRIMARY KEY); CREATE ROLE clerk LOGIN PASSWORD 'x'; CREATE ROLE plain LOGIN;",
    );
    let env = server.env("shop");
    let toc = dump_schema(&server.tools, &env, &DumpOptions::default(), &never)?;
    assert_eq!(toc.database, "shop");
    assert!(toc.server_version.starts_with(&server.tools.version.to_string()), "{}", toc.server_version);
    assert!(toc.entries.iter().any(|entry| entry.desc == "CONSTRAINT" && entry.tag == "t t_pkey"));
    assert_eq!(toc, dump_schema(&server.tools, &env, &DumpOptions::default(), &never)?);

    let globals = dump_globals(&server.tools, &env, true, &never)?;
    let text = String::from_utf8_lossy(&globals.sql).into_owned();
    assert!(globals.has_passwords && text.contains("SCRAM-SHA-256") && !text.contains("restrict "), "{text}");
    assert!(!format!("{globals:?}").contains("SCRAM"));
    let mut env = env;
    env[1].1 = "plain".to_owned();
    let globals = dump_globals(&server.tools, &env, true, &never)?;
    let text = String::from_utf8_lossy(&globals.sql).into_owned();
    assert!(!globals.has_passwords && text.contains("clerk") && !text.contains("SCRAM"), "{text}");
    assert!(!dump_globals(&server.tools, &env, false, &never)?.has_passwords);

    let options = DumpOptions { snapshot: Some("00000003-0000001B-1".into()), ..DumpOptions::default() };
    let error = dump_schema(&server.tools, &env, &options, &never).unwrap_err();
    assert!(error.chain().contains("snapshot"), "{error:?}");
    env[2].1 = "nowhere".to_owned();
    let error = dump_globals(&server.tools, &env, true, &never).context("describe").unwrap_err();
    assert!(error.chain().contains("\"nowhere\""), "{error:?}");
    Ok(())
}
