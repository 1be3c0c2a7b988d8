//! A repository in a bucket, through the program, with restic as the judge.

use crate::support::Shop;
use lastgood_testkit::proxy::{Action, Proxy};
use lastgood_testkit::restic::Restic;
use lastgood_testkit::s3::S3Server;
use lastgood_testkit::s3::url_at;

/// restic on what is in the bucket, which the server keeps as files.
fn check_by_restic(server: &S3Server, shop: &Shop) {
    let restic = Restic::newest(server.bucket().join("shop"), shop.path("lastgood.key"));
    let output = restic.command().args(["check", "--read-data"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A config with one repository in the bucket, and its credentials in files.
fn config(shop: &Shop, url: &str) {
    fs_err::write(shop.path("s3.id"), format!("{}\n", S3Server::KEY_ID)).unwrap();
    fs_err::write(shop.path("s3.secret"), format!("{}\n", S3Server::SECRET)).unwrap();
    shop.config(&format!(
        "[source.db]\nkind = \"sqlite\"\npath = \"./shop.db\"\n\
         [source.uploads]\nkind = \"files\"\npaths = [\"./uploads\"]\n\
         [repository.offsite]\nurl = \"{url}\"\nkey = {{ file = \"./lastgood.key\" }}\n\
         access_key_id = {{ file = \"./s3.id\" }}\nsecret_access_key = {{ file = \"./s3.secret\" }}\n"
    ));
}

#[test]
fn a_bucket_is_backed_up_to_checked_and_restored_from() {
    let (server, shop) = (S3Server::start(), Shop::new());
    config(&shop, &server.url("shop"));
    shop.run(["init"]).ok();
    shop.run(["backup"]).ok();
    check_by_restic(&server, &shop);
    shop.sql("INSERT INTO orders (item) VALUES ('spoon')");
    shop.run(["backup"]).ok();
    assert_eq!(shop.snapshots().len(), 2);
    shop.run(["check"]).ok();
    shop.run(["verify"]).ok();
    shop.run(["doctor"]).ok().says(&["refuses names that are taken", "it can be written to"]);
    check_by_restic(&server, &shop);
    let to = shop.beside("restored");
    shop.run(["restore", "latest", "--to", to.to_str().unwrap()]).ok();
    assert_eq!(Shop::items(&to.join("db/shop.db")), ["tea", "cup", "pot", "spoon"]);
    assert_eq!(fs_err::read_to_string(shop.restored_upload(&to, "a.txt")).unwrap(), "first");
    // A second one is not laid over the first.
    shop.run(["init"]).says(&["already"]);
}

#[test]
fn protect_makes_and_proves_a_repository_in_a_bucket() {
    let (server, shop) = (S3Server::start(), Shop::new());
    let mut command = shop.command(["protect", "./shop.db", "./uploads", "--repo", &server.url("shop")]);
    command.env("AWS_ACCESS_KEY_ID", S3Server::KEY_ID).env("AWS_SECRET_ACCESS_KEY", S3Server::SECRET);
    crate::support::run(&mut command).ok();
    check_by_restic(&server, &shop);
    assert!(fs_err::read_to_string(shop.path("lastgood.toml")).unwrap().contains("s3://bucket/shop?endpoint="));
}

#[test]
fn wrong_credentials_say_what_to_do_and_tell_no_secret() {
    let (server, shop) = (S3Server::start(), Shop::new());
    config(&shop, &server.url("shop"));
    shop.run(["init"]).ok();
    fs_err::write(shop.path("s3.secret"), "hunter2hunter2\n").unwrap();
    let ran = shop.run(["backup"]);
    assert_ne!(ran.code, Some(0));
    assert!(ran.stderr.contains("check the credentials"), "{}", ran.stderr);
    assert!(!ran.stderr.contains("hunter2"), "{}", ran.stderr);
    shop.config("[repository.r]\nurl = \"s3://key:hunter2@bucket\"\n");
    let ran = shop.run(["config", "check"]);
    assert!(!ran.stderr.contains("hunter2") && !ran.stdout.contains("hunter2"), "{ran:?}");
}

#[test]
fn a_backup_goes_on_while_every_third_request_fails() {
    let (server, shop) = (S3Server::start(), Shop::new());
    let proxy = Proxy::start(server.address(), |head| match head.number % 6 {
        2 => Action::slow_down(0),
        5 => Action::LoseAnswer,
        _ => Action::Pass,
    });
    // Making one is tried anew as a whole, and takes more requests than ever succeed one after another here.
    config(&shop, &server.url("shop"));
    shop.run(["init"]).ok();
    config(&shop, &url_at(proxy.address(), "shop"));
    shop.run(["backup"]).ok();
    check_by_restic(&server, &shop);
    let to = shop.beside("restored");
    shop.run(["restore", "latest", "--to", to.to_str().unwrap()]).ok();
    assert_eq!(Shop::items(&to.join("db/shop.db")), ["tea", "cup", "pot"]);
}
