//! scratch
use lastgood_model::*;
use lastgood_repo::{crypto::Password, *};
use lastgood_sources::{files::*, sqlite::SqliteSource};
use std::sync::Arc;
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let store = lastgood_stores::open_url(&a[2]).unwrap();
    let key = std::path::Path::new("/tmp/w/key");
    if !key.exists() {
        std::fs::write(key, Password::generate().unwrap().reveal()).unwrap();
    }
    let pw = Password::new(&std::fs::read_to_string(key).unwrap()).unwrap();
    let mon = Arc::new(Monitor::new());
    let opts = OpenOptions { cache: std::env::var("E2E_CACHE").ok().map(Into::into), ..Default::default() };
    match a[1].as_str() {
        "init" => {
            Repository::init(store, &pw, opts).unwrap();
        }
        "backup" | "force" => {
            let repo = Arc::new(Repository::open(store, &pw, opts).unwrap());
            let mut sources: Vec<Box<dyn source::Source>> = vec![];
            let paths: Vec<std::path::PathBuf> = a[3..].iter().map(Into::into).collect();
            if a[3].ends_with(".db") {
                sources.push(Box::new(SqliteSource::new("db", &a[3])));
            } else {
                sources.push(Box::new(FilesSource::new("tree", paths, FilesOptions::default()).unwrap()));
            }
            let o = lastgood_ops::backup::BackupOptions { force: a[1] == "force", ..Default::default() };
            let r = lastgood_ops::backup::run(&repo, "e2e", &sources, &mon, &o).unwrap();
            println!("{:?} files {} unchanged {} bytes {} read {} new {} stored {} problems {} {:?}", r.snapshot, r.files, r.files_unchanged, r.bytes, r.bytes_read, r.bytes_new, r.bytes_stored, r.problems_total, r.problems.first());
        }
        "restore" => {
            let repo = Arc::new(Repository::open(store, &pw, opts).unwrap());
            let s = lastgood_ops::snapshots::pick(&repo, &"latest".parse().unwrap(), None).unwrap();
            let p = lastgood_ops::restore::plan(&repo, s, lastgood_ops::restore::RestoreRequest::all_to(&a[3]), &mon).unwrap();
            let r = p.execute(&mon).unwrap();
            println!("files {} dirs {} bytes {} failures {} {:?} problems {} {:?}", r.files, r.dirs, r.bytes, r.failures_total, r.failures.first(), r.problems_total, r.problems.first());
        }
        "prove" => {
            let repo = Arc::new(Repository::open(store, &pw, opts).unwrap());
            let s = lastgood_ops::snapshots::pick(&repo, &"latest".parse().unwrap(), None).unwrap();
            let r = lastgood_ops::prove::prove(&repo, s, std::path::Path::new(&a[3]), &mon).unwrap();
            println!("{r:?}");
        }
        _ => {}
    }
}
