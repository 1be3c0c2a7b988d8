//! Repositories on other machines, real servers behind them: backed up to, restored from, and judged by restic, which
//! goes there by its own client.

use crate::support::Shop;
use lastgood_testkit::rest_server::{RestOptions, RestServer};
use lastgood_testkit::restic::Restic;
use lastgood_testkit::sshd::Sshd;
use std::ffi::OsStr;
use std::process::Command;

const SOURCES: &str = "[app]\nname = 'shop'\n[source.db]\nkind = 'sqlite'\npath = './shop.db'\n\
    [source.uploads]\nkind = 'files'\npaths = ['./uploads']\n";

/// A config with one repository, far away.
fn config(shop: &Shop, url: &str, more: &str) {
    let repository = format!("[repository.far]\nurl = '{url}'\nkey = {{ file = './lastgood.key' }}\n{more}\n");
    shop.config(&format!("{SOURCES}{repository}"));
}

/// Everything that is done with a repository, with these variables in the environment.
fn walk(shop: &Shop, url: &str, variables: &[(&str, &str)]) {
    let run = |words: &[&str]| {
        let mut command = shop.command(words);
        command.envs(variables.iter().copied());
        crate::support::run(&mut command)
    };
    run(&["init"]).ok().says(&[url]);
    run(&["init"]).ends_with(4).says(&["already"]);
    run(&["backup"]).ok();
    fs_err::write(shop.path("uploads/new.txt"), "second").unwrap();
    run(&["backup"]).ok();
    run(&["snapshots"]).ok();
    run(&["check"]).ok();
    run(&["verify"]).ok();
    run(&["doctor"]).says(&["it can be written to"]);
    run(&["restore", "latest", "--to", "restored"]).ok();
    let to = shop.path("restored");
    assert_eq!(fs_err::read_to_string(shop.restored_upload(&to, "new.txt")).unwrap(), "second");
    assert_eq!(Shop::items(&to.join("db/shop.db")), ["tea", "cup", "pot"]);
    fs_err::remove_dir_all(to).unwrap();
    // A machine that has but the place and the key.
    fs_err::rename(shop.path("lastgood.toml"), shop.path("config-put-away")).unwrap();
}

/// restic's own verdict.
fn judge<A: AsRef<OsStr>>(shop: &Shop, repository: &str, options: &[A], environment: &[(&str, &str)]) {
    let restic = Restic::newest(repository, shop.path("lastgood.key"));
    let run = |words: &[&str]| -> String {
        let mut command: Command = restic.command();
        command.args(options).args(words).envs(environment.iter().copied());
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&[output.stdout.clone(), output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{command:?}\n{said}");
        String::from_utf8(output.stdout).unwrap()
    };
    run(&["check", "--read-data"]);
    assert_eq!(run(&["snapshots", "--json"]).matches("\"short_id\"").count(), 2);
}

#[test]
fn a_repository_behind_sftp_is_a_whole_one() {
    let (shop, sshd) = (Shop::new(), Sshd::start());
    let folder = shop.beside("far/repo");
    let url = sshd.url(&folder);
    let way = format!(
        "private_key = {{ file = '{}' }}\nknown_hosts = '{}'\nlimit_upload = '100MiB'\n",
        sshd.client_key().display(),
        sshd.known_hosts().display()
    );
    config(&shop, &url, &way);
    shop.run(["config", "show"]).ok().says(&["known_hosts", "private_key"]);
    walk(&shop, &url, &[]);
    let option = sshd.restic_option();
    judge(&shop, &format!("sftp:{}:{}", Sshd::ALIAS, folder.display()), &["-o", &option], &[]);

    // By the user's own ssh: keys and known hosts where they usually are.
    let ssh = shop.beside("home/.ssh");
    fs_err::create_dir_all(&ssh).unwrap();
    fs_err::copy(sshd.client_key(), ssh.join("id_ed25519")).unwrap();
    fs_err::copy(sshd.known_hosts(), ssh.join("known_hosts")).unwrap();
    shop.run(["restore", "latest", "--repo", &url, "--key-file", "lastgood.key", "--to", "again"]).ok();
    assert_eq!(Shop::items(&shop.path("again/db/shop.db")), ["tea", "cup", "pot"]);
}

#[test]
fn a_server_that_is_not_known_gets_no_backup() {
    let (shop, sshd) = (Shop::new(), Sshd::start());
    let url = sshd.url(&shop.beside("far"));
    config(&shop, &url, &format!("private_key = {{ file = '{}' }}\n", sshd.client_key().display()));
    let fingerprint = sshd.fingerprint();
    shop.run(["init"]).ends_with(15).says(&["is not known", &fingerprint, "ssh-keyscan"]);
    config(
        &shop,
        &url,
        &format!("host_key = '{fingerprint}'\nprivate_key = {{ file = '{}' }}\n", sshd.client_key().display()),
    );
    shop.run(["init"]).ok();
}

#[test]
fn a_repository_behind_the_systems_ssh_is_a_whole_one() {
    let (shop, sshd) = (Shop::new(), Sshd::start());
    let folder = shop.beside("far/repo");
    let url = format!("sftp://{}/{}", Sshd::ALIAS, folder.display());
    config(&shop, &url, &format!("transport = 'openssh'\nssh_config = '{}'\n", sshd.ssh_config().display()));
    walk(&shop, &url, &[]);
    let option = sshd.restic_option();
    judge(&shop, &format!("sftp:{}:{}", Sshd::ALIAS, folder.display()), &["-o", &option], &[]);
}

#[test]
fn a_repository_behind_a_rest_server_is_a_whole_one() {
    let shop = Shop::new();
    let server = RestServer::in_memory(RestOptions { append_only: false, login: Some(("shop", "hunter2")) });
    config(&shop, &server.url("shop"), "password = { env = 'REST_PASSWORD' }\n");
    shop.run(["init"]).ends_with(2).says(&["REST_PASSWORD", "is not set"]);
    walk(&shop, &server.url("shop"), &[("REST_PASSWORD", "hunter2")]);
    let url = server.url_with_password("shop");
    judge::<&str>(&shop, &url, &[], &[]);
    let mut command = shop.command(["snapshots", "--repo", &server.url("shop"), "--key-file", "lastgood.key"]);
    crate::support::run(command.env("RESTIC_REST_USERNAME", "shop").env("RESTIC_REST_PASSWORD", "hunter2")).ok();
    let mut command = shop.command(["snapshots", "--repo", &server.url("shop"), "--key-file", "lastgood.key"]);
    let denied = crate::support::run(command.env("RESTIC_REST_PASSWORD", "wrong")).says(&["401"]);
    assert_ne!(denied.code, Some(0));
}

#[test]
fn a_server_that_only_appends_takes_backups() {
    let shop = Shop::new();
    let server = RestServer::in_memory(RestOptions { append_only: true, login: None });
    config(&shop, &server.url("shop"), "");
    walk(&shop, &server.url("shop"), &[]);
    judge::<&str>(&shop, &server.url("shop"), &[], &[]);
}

#[test]
fn a_password_in_the_config_is_refused_and_not_repeated() {
    let shop = Shop::new();
    for url in ["rest:https://user:hunter2@host/x", "rest:https://user:hunter2@/x?y", "sftp://user:hunter2@host//x"] {
        config(&shop, url, "");
        let ran = shop.run(["config", "check"]);
        assert_ne!(ran.code, Some(0), "{ran:?}");
        assert!(!format!("{}{}", ran.stdout, ran.stderr).contains("hunter2"), "{ran:?}");
    }
    config(&shop, "./backups", "host_key = 'SHA256:x'\n");
    shop.run(["config", "check"]).says(&["`host_key` means nothing"]);
    config(&shop, "sftp://host//x", "private_key = 'hunter2'\n");
    let ran = shop.run(["config", "check"]).says(&["must not hold the secret itself"]);
    assert!(!format!("{}{}", ran.stdout, ran.stderr).contains("hunter2"), "{ran:?}");
}
