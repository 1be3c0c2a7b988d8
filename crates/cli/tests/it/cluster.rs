//! A repository on a cluster of machines, of which one dies in the midst of a run.

use crate::support::Shop;
use lastgood_model::{Monitor, Result, Time};
use lastgood_repo::crypto::Password;
use lastgood_repo::gc::{PruneOptions, prune};
use lastgood_repo::lock::system_clock;
use lastgood_repo::{OpenOptions, Repository};
use lastgood_stores::{Access, RetryPolicy, RetryStore, Secret, Secrets, parse_location};
use lastgood_testkit::garage::Cluster;
use lastgood_testkit::proxy::{Action, Proxy};
use lastgood_testkit::restic::Restic;
use lastgood_testkit::rng::Rng;
use lastgood_testkit::s3::url_at;
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex};

/// Holds back the first request of a kind until something else has been done.
#[derive(Default)]
struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    is_reached: bool,
    is_open: bool,
}

impl Gate {
    /// In the proxy.
    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.is_reached = true;
        self.changed.notify_all();
        while !state.is_open {
            state = self.changed.wait(state).unwrap();
        }
    }

    /// Waits until a request is there, does something, and lets it through.
    fn meanwhile(&self, mut has_ended: impl FnMut() -> bool, act: impl FnOnce()) {
        let mut state = self.state.lock().unwrap();
        while !state.is_reached {
            assert!(!has_ended(), "the run ended before it came so far");
            state = self.changed.wait_timeout(state, std::time::Duration::from_millis(100)).unwrap().0;
        }
        act();
        state.is_open = true;
        self.changed.notify_all();
    }
}

/// A way to the cluster on which the first request with this method for a pack waits at a gate.
fn gated(address: SocketAddr, method: &'static str) -> (Proxy, Arc<Gate>) {
    let gate = Arc::new(Gate::default());
    let held = gate.clone();
    let proxy = Proxy::start(address, move |head| {
        if head.method == method && head.target.contains("/data/") {
            held.pass();
        }
        Action::Pass
    });
    (proxy, gate)
}

fn config(shop: &Shop, url: &str) {
    fs_err::write(shop.path("s3.id"), Cluster::KEY_ID).unwrap();
    fs_err::write(shop.path("s3.secret"), Cluster::SECRET).unwrap();
    shop.config(&format!(
        "[source.db]\nkind = \"sqlite\"\npath = \"./shop.db\"\n\
         [source.uploads]\nkind = \"files\"\npaths = [\"./uploads\"]\n\
         [repository.cluster]\nurl = \"{url}\"\nkey = {{ file = \"./lastgood.key\" }}\n\
         access_key_id = {{ file = \"./s3.id\" }}\nsecret_access_key = {{ file = \"./s3.secret\" }}\n"
    ));
}

fn url_through(proxy: &Proxy) -> String {
    url_at(proxy.address(), "shop").replace("us-east-1", "garage")
}

/// restic, over the network itself. Without locks: a node that was away lists those that were removed meanwhile until the
/// nodes compare what they have, and restic does not go on where what is listed cannot be read.
fn check_by_restic(cluster: &Cluster, shop: &Shop, node: usize) {
    let place = format!("s3:http://{}/bucket/shop", cluster.address(node));
    let restic = Restic::newest(place, shop.path("lastgood.key"));
    let mut command = restic.command();
    command.env("AWS_ACCESS_KEY_ID", Cluster::KEY_ID).env("AWS_SECRET_ACCESS_KEY", Cluster::SECRET);
    let output =
        command.env("AWS_DEFAULT_REGION", "garage").args(["check", "--read-data", "--no-lock"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The key of the cluster.
struct Key;

impl Secrets for Key {
    fn get(&self, name: &str) -> Result<Option<Secret>> {
        Ok(match name {
            "access_key_id" => Some(Secret::new(Cluster::KEY_ID.to_owned())),
            "secret_access_key" => Some(Secret::new(Cluster::SECRET.to_owned())),
            _ => None,
        })
    }
    fn has(&self, name: &str) -> bool {
        matches!(name, "access_key_id" | "secret_access_key")
    }
}

/// The repository as somebody opens it whose clock says so.
fn two_days_later(shop: &Shop, url: &str) -> Repository {
    let access = Access { secrets: Some(Arc::new(Key)), ..Access::default() };
    let store = parse_location(url).unwrap().open(&access).unwrap();
    let now = system_clock();
    let clock = Arc::new(move || Time::new(now().secs + 2 * 86_400, 0));
    let password = Password::new(&shop.key()).unwrap();
    Repository::open(
        Arc::new(RetryStore::new(store, RetryPolicy::default())),
        &password,
        OpenOptions { clock, ..OpenOptions::default() },
    )
    .unwrap()
}

/// Content that cannot be compressed, in many packs.
fn fill(shop: &Shop, name: &str, seed: u64) {
    fs_err::write(shop.path(format!("uploads/{name}")), Rng::new(seed).bytes(40 << 20)).unwrap();
}

#[test]
fn a_node_that_dies_during_a_backup_and_during_a_prune_costs_nothing() {
    let mut cluster = Cluster::start();
    let shop = Shop::new();
    fill(&shop, "old", 1);
    config(&shop, &cluster.url("shop", 0));
    shop.run(["init"]).ok();
    shop.run(["doctor"]).ok().says(&["takes a condition on what may be written and ignores it"]);

    let (proxy, gate) = gated(cluster.address(0), "PUT");
    config(&shop, &url_through(&proxy));
    let mut backup = shop.command(["backup"]).spawn().unwrap();
    gate.meanwhile(|| backup.try_wait().unwrap().is_some(), || cluster.kill(2));
    assert_eq!(backup.wait().unwrap().code(), Some(0));

    // Two of three are enough, for whoever asks.
    config(&shop, &cluster.url("shop", 1));
    shop.run(["check"]).ok();
    check_by_restic(&cluster, &shop, 0);
    let to = shop.beside("restored");
    shop.run(["restore", "latest", "--to", to.to_str().unwrap()]).ok();
    assert_eq!(Shop::items(&to.join("db/shop.db")), ["tea", "cup", "pot"]);
    let old = fs_err::read(shop.path("uploads/old")).unwrap();
    assert!(fs_err::read(shop.restored_upload(&to, "old")).unwrap() == old);

    cluster.revive(2);
    let first = shop.snapshots();
    fs_err::remove_file(shop.path("uploads/old")).unwrap();
    fill(&shop, "new", 2);
    shop.run(["backup"]).ok();
    shop.run(["forget", &first[0], "--yes"]).ok();

    // Two programs are not kept apart here, so a first run only says what is to go.
    shop.run(["prune"]).ok().says(&["packs are removed a day later"]);
    let (proxy, gate) = gated(cluster.address(0), "DELETE");
    let repository = two_days_later(&shop, &url_through(&proxy));
    let pruning = std::thread::spawn(move || prune(&repository, &Monitor::new(), &PruneOptions::default()));
    gate.meanwhile(|| pruning.is_finished(), || cluster.kill(1));
    let report = pruning.join().unwrap().unwrap();
    // 40 MiB are at least two packs.
    assert!(report.packs_removed >= 2 && report.deferred.is_none(), "{report:?}");

    config(&shop, &cluster.url("shop", 2));
    shop.run(["check"]).ok();
    check_by_restic(&cluster, &shop, 0);
    cluster.revive(1);
    // What it missed comes to it in time: until then its lists show what is gone, and it is asked all the same.
    config(&shop, &cluster.url("shop", 1));
    shop.run(["backup"]).ok();
    shop.run(["check"]).ok();
}
