//! What damage means: the snapshots and paths that are lost, all of them and no others.

use super::{Files, Fixture, about, some_files};
use lastgood_model::store::{ObjectKind, Store};
use lastgood_repo::check::{DamageKind, PATHS_MAX};
use lastgood_testkit::rng::Rng;

#[test]
fn a_damaged_blob_spoils_the_snapshots_and_files_that_need_it_and_no_others() {
    let fixture = Fixture::two();
    let [first, second] = fixture.snapshots[..] else { panic!() };
    let cases: [(&str, &[_], &[&str]); 5] = [
        ("new", &[second], &["/files/new"]),
        ("docs/changed", &[second], &["/files/docs/changed"]),
        ("same", &[first, second], &["/files/same"]),
        ("docs/deep/er/odd\n\u{1b}", &[first, second], &["/files/docs/deep/er/odd\\n\\u{1b}"]),
        // A directory stands for all that is below it.
        ("docs/deep", &[first, second], &["/files/docs/deep"]),
    ];
    for (path, snapshots, paths) in cases {
        let (pack, range) = fixture.place_of(path);
        let whole = fixture.store.get(&pack).unwrap();
        fixture.flip(&pack, range.end - 1);
        let report = fixture.verify();
        assert_eq!(report.damage_total, 1, "{:#?}", report.damage);
        let found = about(&report.damage, &pack.path());
        assert_eq!(&*found.snapshots, snapshots, "{path:?}");
        // Also where both snapshots have a directory `docs` of their own, and so two places where it is named.
        assert_eq!(found.paths, paths, "{path:?}");
        assert_eq!(found.paths_total, found.paths.len() as u64);
        assert_eq!(report.snapshots_affected, snapshots);
        fixture.mend(&pack, &whole);
    }
    let root = fixture.repository.snapshot(second).unwrap().file.tree;
    let reader = fixture.repository.reader().unwrap();
    let place = reader.index.find(root).unwrap();
    let pack = lastgood_model::store::StoreKey::new(ObjectKind::Pack, reader.index.pack(place.pack));
    fixture.flip(&pack, place.offset as usize + 20);
    for damage in [fixture.verify().damage, fixture.check().damage] {
        let found = about(&damage, &pack.path());
        assert_eq!((&*found.snapshots, &found.paths[..]), (&[second][..], &["/".to_owned()][..]));
    }
}

#[test]
fn a_missing_pack_spoils_all_that_is_in_it() {
    let fixture = Fixture::two();
    let [first, second] = fixture.snapshots[..] else { panic!() };
    let pack = fixture.pack_of("same");
    fixture.store.remove(&pack).unwrap();
    let report = fixture.check();
    let found = about(&report.damage, &pack.path());
    assert_eq!((found.what, &*found.snapshots), (DamageKind::Missing, &[first, second][..]));
    for path in ["/files/a", "/files/docs/changed", "/files/docs/deep/plain", "/files/same", "/.lastgood/RESTORE.md"] {
        assert!(found.paths.iter().any(|p| p == path), "{path} is not in {:?}", found.paths);
    }
    assert!(!found.paths.iter().any(|p| p == "/files/new" || p == "/files/empty"));
}

#[test]
fn a_lost_index_file_is_told_and_spoils_nothing_since_the_data_is_there() {
    let fixture = Fixture::two();
    let indexes = fixture.keys_of(ObjectKind::Index);
    for key in &indexes {
        let whole = fixture.store.get(key).unwrap();
        fixture.flip(key, 30);
        let damaged = fixture.verify();
        let found = about(&damaged.damage, &key.path());
        assert_eq!((damaged.damage_total, found.what), (1, DamageKind::WrongHash), "{:#?}", damaged.damage);
        assert!(found.hint.as_ref().unwrap().contains("lists them anew"));
        assert!(damaged.snapshots_affected.is_empty() && found.paths.is_empty(), "all can be restored: {found:#?}");
        assert!(damaged.notes.iter().any(|n| n.contains("in no readable index file")));

        fixture.store.remove(key).unwrap();
        let missing = fixture.check();
        assert!(!missing.is_sound());
        assert!(missing.damage.iter().all(|d| d.what == DamageKind::Unindexed), "{:#?}", missing.damage);
        assert!(missing.snapshots_affected.is_empty());
        fixture.mend(key, &whole);
    }
    for key in &indexes {
        fixture.store.remove(key).unwrap();
    }
    let report = fixture.verify();
    assert!(!report.is_sound() && report.snapshots_affected.is_empty());
    assert!(report.damage.iter().all(|d| d.what == DamageKind::Unindexed), "{:#?}", report.damage);
    assert_eq!(report.packs_verified, report.counts.packs, "packs known by their own lists are verified too");
}

#[test]
fn what_neither_the_index_nor_any_pack_has_is_told_blob_by_blob() {
    let fixture = Fixture::two();
    let [_, second] = fixture.snapshots[..] else { panic!() };
    let reader = fixture.repository.reader().unwrap();
    let root = fixture.repository.snapshot(second).unwrap().file.tree;
    let files = reader.tree(root).unwrap().into_iter().find(|n| n.name == b"files").unwrap().subtree.unwrap();
    let new = reader.tree(files).unwrap().into_iter().find(|n| n.name == b"new").unwrap().content.unwrap()[0];
    let pack = fixture.pack_of("new");
    // The index file of the second run, found by what it hides.
    for key in fixture.keys_of(ObjectKind::Index) {
        let whole = fixture.store.get(&key).unwrap();
        fixture.store.remove(&key).unwrap();
        if fixture.check().damage.iter().any(|d| d.object.to_string() == pack.path()) {
            break;
        }
        fixture.mend(&key, &whole);
    }
    fixture.store.remove(&pack).unwrap();
    let report = fixture.check();
    let found = about(&report.damage, &format!("data blob {new}"));
    assert_eq!((found.what, &*found.snapshots), (DamageKind::MissingBlob, &[second][..]));
    assert_eq!((&found.paths[..], found.paths_total), (&["/files/new".to_owned()][..], 1));
    assert_eq!(report.snapshots_affected, [second]);
}

#[test]
fn paths_are_sampled_and_counted_and_the_newest_snapshot_comes_first() {
    let mut fixture = Fixture::empty();
    let content = Rng::new(9).bytes(100);
    let files: Files = (0..200).map(|n| (format!("d{}/f{n:03}", n % 7), content.clone())).collect();
    fixture.backup(&files);
    fixture.backup(&[("last".to_owned(), content)].into());
    let (pack, range) = fixture.place_of("last");
    fixture.flip(&pack, range.start);
    let report = fixture.verify();
    let found = about(&report.damage, &pack.path());
    assert_eq!((found.paths.len(), found.paths_total), (PATHS_MAX, 201));
    assert_eq!(found.paths[0], "/files/last");
    assert_eq!(found.snapshots.len(), 2);
}

#[test]
fn an_unreadable_snapshot_object_is_told_beside_other_damage() {
    let mut fixture = Fixture::two();
    fixture.backup(&some_files());
    let [first, second, third] = fixture.snapshots[..] else { panic!() };
    fixture.flip(&lastgood_model::store::StoreKey::new(ObjectKind::Snapshot, third), 9);
    let (pack, range) = fixture.place_of_in(second, "new");
    fixture.flip(&pack, range.start);
    let report = fixture.verify();
    assert_eq!(report.damage_total, 2);
    assert_eq!(&*about(&report.damage, &format!("snapshots/{third}")).snapshots, [third]);
    assert_eq!(&*about(&report.damage, &pack.path()).snapshots, [second]);
    assert_eq!(report.snapshots_affected, [second, third]);
    assert!(!report.snapshots_affected.contains(&first));
}

#[test]
fn reports_are_json_with_type_and_schema() {
    let fixture = Fixture::two();
    let pack = fixture.pack_of("new");
    fixture.store.remove(&pack).unwrap();
    let json = serde_json::to_value(fixture.check()).unwrap();
    assert_eq!((&json["type"], &json["schema"]), (&"lastgood.check".into(), &1.into()));
    assert_eq!(json["damage"][0]["object"], pack.path());
    assert_eq!(json["damage"][0]["what"], "missing");
    assert_eq!(json["damage"][0]["snapshots"][0], fixture.snapshots[1].to_string());
    let json = serde_json::to_value(fixture.verify()).unwrap();
    assert_eq!((&json["type"], &json["schema"]), (&"lastgood.verify".into(), &1.into()));
}
