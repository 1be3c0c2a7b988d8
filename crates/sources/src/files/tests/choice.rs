use super::walk::{take, try_take};
use crate::files::FilesOptions;
use lastgood_model::ErrorKind;
use std::path::Path;

fn plant(top: &Path, files: &[&str]) {
    for file in files {
        let path = top.join(file);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        if !file.ends_with('/') {
            fs_err::write(path, file).unwrap();
        }
    }
}

fn options(exclude: &[&str]) -> FilesOptions {
    FilesOptions { exclude: exclude.iter().map(|&p| p.into()).collect(), ..FilesOptions::default() }
}

#[test]
fn excluded_entries_are_left_out_and_counted_and_others_stay() {
    let folder = tempfile::tempdir().unwrap();
    plant(
        folder.path(),
        &["a.tmp", "keep.tmp", "sub/b.tmp", "cache/x/y", "sub/cache/z", "node/cache", "empty/f", "sub/plain"],
    );
    let taken = take(folder.path(), options(&["*.tmp", "!keep.tmp", "/cache", "empty/**", "!cache/x/y"]));
    let names = ["empty", "keep.tmp", "node", "node/cache", "sub", "sub/cache", "sub/cache/z", "sub/plain"];
    assert_eq!(taken.names(), names);
    assert!(taken.problems.is_empty(), "left out silently");
    let counts = &taken.captured.facts["left_out"];
    assert_eq!(counts, &serde_json::json!({"*.tmp": 2, "/cache": 1, "empty/**": 1}));
}

#[test]
fn patterns_are_anchored_at_each_configured_path() {
    let folder = tempfile::tempdir().unwrap();
    plant(folder.path(), &["a/log/1", "a/sub/log/1", "b/log/1", "b/x"]);
    let paths = ["a", "b"].map(|p| folder.path().join(p)).to_vec();
    let taken = try_take(paths, options(&["/log"])).unwrap();
    let top = folder.path().to_str().unwrap().trim_start_matches('/');
    let names: Vec<String> =
        taken.kept.keys().map(|k| String::from_utf8(k[top.len() + 1..].to_vec()).unwrap()).collect();
    assert_eq!(names, ["a", "a/sub", "a/sub/log", "a/sub/log/1", "b", "b/x"]);
}

#[test]
fn of_a_marked_cache_only_the_mark_stays() {
    let folder = tempfile::tempdir().unwrap();
    plant(folder.path(), &["c/data", "c/sub/data", "fake/data", "short/data", "folder/CACHEDIR.TAG/x", "link/data"]);
    let signature = "Signature: 8a477f597d28d172789f06886806bc55";
    fs_err::write(folder.path().join("c/CACHEDIR.TAG"), format!("{signature}\n# more")).unwrap();
    fs_err::write(folder.path().join("fake/CACHEDIR.TAG"), signature.to_uppercase()).unwrap();
    fs_err::write(folder.path().join("short/CACHEDIR.TAG"), &signature[..42]).unwrap();
    std::os::unix::fs::symlink("../c/CACHEDIR.TAG", folder.path().join("link/CACHEDIR.TAG")).unwrap();
    let on = FilesOptions { exclude_caches: true, ..FilesOptions::default() };
    let taken = take(folder.path(), on);
    assert!(taken.find("c/CACHEDIR.TAG").is_some());
    assert!(taken.find("c/data").is_none() && taken.find("c/sub").is_none());
    for real in ["fake/data", "short/data", "folder/CACHEDIR.TAG/x", "link/data"] {
        assert!(taken.find(real).is_some(), "{real}");
    }
    assert_eq!(
        taken.captured.facts["left_out"],
        serde_json::json!({"content of directories marked by CACHEDIR.TAG": 1})
    );
    assert!(take(folder.path(), FilesOptions::default()).find("c/data").is_some(), "only when asked for");
}

#[test]
fn files_above_the_limit_are_left_out_and_those_at_it_stay() {
    let folder = tempfile::tempdir().unwrap();
    fs_err::write(folder.path().join("at"), [0; 100]).unwrap();
    fs_err::write(folder.path().join("above"), [0; 101]).unwrap();
    let taken = take(folder.path(), FilesOptions { exclude_larger_than: Some(100), ..FilesOptions::default() });
    assert_eq!(taken.names(), ["at"]);
    assert_eq!(taken.captured.facts["left_out"], serde_json::json!({"files larger than the limit": 1}));
}

#[test]
fn the_repository_itself_is_never_captured_under_whatever_name() {
    let folder = tempfile::tempdir().unwrap();
    plant(folder.path(), &["repo/data/x", "key", "other"]);
    fs_err::hard_link(folder.path().join("key"), folder.path().join("key again")).unwrap();
    let never = vec![folder.path().join("repo"), folder.path().join("key"), folder.path().join("not there")];
    let taken = take(folder.path(), FilesOptions { never: never.clone(), ..FilesOptions::default() });
    assert_eq!(taken.names(), ["other"]);
    assert_eq!(taken.captured.facts["left_out"], serde_json::json!({"the repository and its key": 3}));
    let inside = try_take(vec![folder.path().join("repo")], FilesOptions { never, ..FilesOptions::default() });
    assert_eq!(inside.unwrap_err().kind(), ErrorKind::Invalid);
}
