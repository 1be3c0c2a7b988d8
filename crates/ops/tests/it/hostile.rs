//! Recovery points that wish us ill: whatever they say, nothing is written, changed or read outside the target.

use crate::forge::{Forge, dir, file, link, tree_of};
use crate::rig::{Rig, restore_with};
use lastgood_model::{ErrorKind, Id, Monitor, TreeId};
use lastgood_ops::restore::{Destination, RestoreRequest};
use lastgood_repo::sha256::sha256;
use lastgood_sources::files::target::Scratch;
use lastgood_testkit::compare::scan;
use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::sync::Arc;

impl Rig {
    pub(crate) fn smith(&self) -> Forge {
        Forge::new(self.store.clone(), &self.password)
    }
}

#[test]
fn names_and_links_that_lead_out_write_nothing_outside() {
    let (rig, _) = Rig::in_memory();
    let forge = rig.smith();
    fs_err::create_dir_all(rig.path("outside/deep")).unwrap();
    fs_err::write(rig.path("outside/file"), "outside").unwrap();
    let before = scan(&rig.path("outside")).unwrap();
    let evil = forge.data(&[b"evil"])[0];
    let outside = rig.path("outside").display().to_string();
    let inner = forge.tree(&[file("file", 4, &[evil]), file("new", 4, &[evil])]);
    let honest = String::from_utf8(tree_of(&[file("aa", 4, &[evil])])).unwrap();
    let twice = |nodes: [lastgood_model::Node; 2]| {
        String::from_utf8(tree_of(&nodes)).unwrap().replace(r#""name":"tp""#, r#""name":"to""#).into_bytes()
    };
    let mut trees = vec![
        // A link, and a directory of the same name to be filled through it.
        twice([dir("to", inner), link("tp", &outside)]),
        twice([link("to", &outside), dir("tp", inner)]),
        // Fine by themselves; a second restore over them meets the links of the first.
        tree_of(&[link("to", &outside)]),
        tree_of(&[dir("to", inner)]),
        tree_of(&[link("file", &format!("{outside}/file"))]),
        tree_of(&[file("file", 4, &[evil])]),
    ];
    for name in ["..", ".", "/", "../outside/file", "../../outside/file", &format!("{outside}/file"), "a/b", ""] {
        trees.push(honest.replace(r#""name":"aa""#, &format!(r#""name":"{name}""#)).into_bytes());
    }
    for (i, json) in trees.iter().enumerate() {
        let below = forge.tree_json(json);
        // As the snapshot's own top, and one and two levels down.
        for top in [below, forge.tree(&[dir("x", below)]), forge.tree(&[dir("x", forge.tree(&[dir("y", below)]))])] {
            let id = forge.snapshot(top);
            for overwrite in [false, true] {
                let delete_extra = overwrite;
                let request = RestoreRequest { overwrite, delete_extra, ..RestoreRequest::all_to(rig.path("to")) };
                if let Err(error) = restore_with(&rig.open(), id, request) {
                    assert!(
                        matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Absent | ErrorKind::Conflict),
                        "{error:?}"
                    );
                }
                assert!(scan(&rig.path("outside")).unwrap() == before, "tree {i} changed something outside");
                for stray in ["file", "new", "aa", "a"] {
                    assert!(!rig.path(stray).exists(), "tree {i} left {stray} beside the target");
                }
            }
        }
    }
}

#[test]
fn links_planted_in_the_target_are_not_written_through() {
    let (rig, _) = Rig::in_memory();
    let tree = rig.plant(&[("a/b", b"content"), ("c", b"more")]);
    let id = rig.backup_tree().snapshot.unwrap();
    fs_err::create_dir_all(rig.path("outside")).unwrap();
    fs_err::write(rig.path("outside/precious"), "precious").unwrap();
    let before = scan(&rig.path("outside")).unwrap();
    let request = |overwrite| RestoreRequest { overwrite, ..RestoreRequest::all_to(rig.path("to")) };

    // A link where the mark of a restore is written, and where it is prepared.
    fs_err::create_dir_all(rig.path("to")).unwrap();
    let pid = std::process::id();
    for name in [".lastgood-restore".to_owned(), format!(".lastgood-restore.{pid}")] {
        symlink(rig.path("outside/precious"), rig.path("to").join(name)).unwrap();
    }
    let _ = restore_with(&rig.open(), id, request(true));
    assert!(scan(&rig.path("outside")).unwrap() == before, "the mark was written through a link");
    for name in [".lastgood-restore".to_owned(), format!(".lastgood-restore.{pid}")] {
        let _ = fs_err::remove_file(rig.path("to").join(name));
    }

    // A link where a directory of the point belongs.
    let at = rig.restored("to", "files", &tree);
    restore_with(&rig.open(), id, request(true)).unwrap();
    fs_err::remove_dir_all(at.join("a")).unwrap();
    symlink(rig.path("outside"), at.join("a")).unwrap();
    for overwrite in [false, true] {
        let _ = restore_with(&rig.open(), id, request(overwrite));
        assert!(scan(&rig.path("outside")).unwrap() == before, "a directory was filled through a link");
    }
}

#[test]
fn five_thousand_levels_are_restored_and_removed_again() {
    let (rig, _) = Rig::in_memory();
    let forge = rig.smith();
    let leaf = forge.data(&[b"at the bottom"])[0];
    let mut trees = vec![tree_of(&[file("bottom", 13, &[leaf])])];
    for _ in 0..5000 {
        let below = TreeId(Id(sha256(trees.last().unwrap())));
        trees.push(tree_of(&[dir("d", below)]));
    }
    forge.trees(&trees);
    let id = forge.snapshot(TreeId(Id(sha256(trees.last().unwrap()))));
    // Something that can remove it again.
    let scratch = Scratch::create(rig.dir.path(), "deep").unwrap();
    let report = restore_with(&rig.open(), id, RestoreRequest::all_to(scratch.path())).unwrap();
    assert_eq!((report.dirs, report.files, report.failures_total), (5000, 1, 0), "{report:?}");
    assert!(scratch.remove().unwrap() >= 5001);
}

#[test]
fn a_manifest_that_names_places_elsewhere_is_not_followed() {
    let (rig, _) = Rig::in_memory();
    let forge = rig.smith();
    // A database outside that nobody asked for.
    fs_err::create_dir_all(rig.path("outside")).unwrap();
    crate::rig::make_database(&rig.path("outside/app.db"), 5);
    let before = scan(&rig.path("outside")).unwrap();
    let leaf = forge.data(&[b"x"])[0];
    let manifest = |name: &str, kind: &str, origin: &str| {
        let time = "2026-01-02T03:04:05Z";
        serde_json::json!({
            "type": "lastgood.manifest", "schema": 1, "app": "shop", "program": "0", "host": "h",
            "started": time, "finished": time, "complete": true,
            "sources": [{"name": name, "kind": kind, "origins": [origin], "outcome": {"state": "complete"},
                         "started": time, "finished": time, "facts": {}}],
        })
        .to_string()
        .into_bytes()
    };
    let point = |json: &[u8]| {
        let id = forge.data(&[json])[0];
        let own = forge.tree(&[file("manifest.json", json.len() as u64, &[id])]);
        let below = forge.tree(&[file("app.db", 1, &[leaf])]);
        forge.snapshot(forge.tree(&[dir(".lastgood", own), dir("db", below)]))
    };
    let far = format!("{}/app.db", rig.path("outside").display());
    for name in ["../../outside", "..", "", "/", "a/b", &rig.path("outside").display().to_string()] {
        let id = point(&manifest(name, "sqlite", &far));
        let repository = rig.open();
        let snapshot = repository.snapshot(id).unwrap();
        let proof = lastgood_ops::prove::prove(&repository, snapshot, rig.dir.path(), &BTreeMap::new(), &mut |_| {
            Arc::new(Monitor::new())
        });
        assert!(!proof.is_ok_and(|report| report.is_proven()), "{name:?}");
        let in_place = RestoreRequest { to: Destination::InPlace, ..RestoreRequest::all_to("/") };
        assert!(restore_with(&rig.open(), id, in_place).is_err(), "{name:?}");
        assert!(scan(&rig.path("outside")).unwrap() == before, "{name:?}");
        // Into a folder it can be restored like any other.
        let to = rig.path("to");
        restore_with(&rig.open(), id, RestoreRequest::all_to(&to)).unwrap();
        assert_eq!(fs_err::read(to.join("db/app.db")).unwrap(), b"x");
        fs_err::remove_dir_all(&to).unwrap();
    }
    // A database that is none does not replace one that is.
    let id = point(&manifest("db", "sqlite", &far));
    let in_place = RestoreRequest { to: Destination::InPlace, ..RestoreRequest::all_to("/") };
    let outcome = restore_with(&rig.open(), id, in_place);
    assert!(outcome.is_err(), "{outcome:?}");
    assert_eq!(crate::rig::count_rows(&rig.path("outside/app.db")), 5);
    for garbage in [&b""[..], b"{", b"[]", b"{\"schema\":1}", b"\xff"] {
        let id = point(garbage);
        let report = restore_with(&rig.open(), id, RestoreRequest::all_to(rig.path("to"))).unwrap();
        assert_eq!((report.files, report.failures_total, report.problems_total), (1, 0, 1), "{report:?}");
        fs_err::remove_dir_all(rig.path("to")).unwrap();
    }
}

#[test]
fn sizes_beyond_everything_take_no_memory_and_end_in_a_report() {
    let (rig, _) = Rig::in_memory();
    let forge = rig.smith();
    let id = forge.data(&[b"small"])[0];
    let most = i64::MAX as u64;
    let nodes: Vec<_> = ["a", "b", "c"].iter().map(|name| file(name, most, &[id])).collect();
    let point = forge.snapshot(forge.tree(&[dir("x", forge.tree(&nodes))]));
    let repository = rig.open();
    let snapshot = repository.snapshot(point).unwrap();
    let plan = lastgood_ops::restore::plan(
        &repository,
        snapshot.clone(),
        RestoreRequest::all_to(rig.path("to")),
        &Monitor::new(),
    );
    let report = plan.unwrap().execute(&Arc::new(Monitor::new())).unwrap();
    assert_eq!((report.files, report.problems_total), (3, 3), "{report:?}");
    let proof = lastgood_ops::prove::prove(&repository, snapshot, rig.dir.path(), &BTreeMap::new(), &mut |_| {
        Arc::new(Monitor::new())
    })
    .unwrap();
    assert!(!proof.is_proven());
}
