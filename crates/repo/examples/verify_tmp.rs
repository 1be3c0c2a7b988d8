#![allow(clippy::all, clippy::print_stdout)]
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let store = std::sync::Arc::new(lastgood_stores::ReadOnlyStore::new(lastgood_stores::LocalStore::new(&a[1]).unwrap()));
    let password = lastgood_repo::crypto::Password::new(&fs_err::read_to_string(&a[2]).unwrap()).unwrap();
    let repo = lastgood_repo::Repository::open(store, &password, Default::default()).unwrap();
    let m = lastgood_model::Monitor::new();
    let t = std::time::Instant::now();
    if a.get(3).is_some_and(|s| s == "check") {
        let r = lastgood_repo::check::check(&repo, &m, &Default::default()).unwrap();
        println!("{:?} sound={} {:?} {:?}", t.elapsed(), r.is_sound(), r.counts, r.notes);
    } else {
        let r = lastgood_repo::check::verify(&repo, &m, &lastgood_repo::check::VerifyOptions::all()).unwrap();
        println!("{:?} sound={} {:?} {} {} {:?}", t.elapsed(), r.is_sound(), r.counts, r.blobs_verified, r.bytes_plain, r.notes);
    }
}
