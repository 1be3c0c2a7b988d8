use super::*;

#[test]
fn a_view_sees_what_is_there_and_follows_no_link() {
    let place = Place::new();
    fs_err::create_dir_all(place.root().join("a/b")).unwrap();
    fs_err::write(place.root().join("a/b/file"), "content").unwrap();
    std::os::unix::fs::symlink(place.outside(), place.root().join("link")).unwrap();
    let mut view = TreeView::open(&place.root()).unwrap().unwrap();
    let dir = view.dir(b"a/b").unwrap().unwrap();
    assert_eq!((dir.look(b"file").unwrap().unwrap().size, dir.look(b"none").unwrap()), (7, None));
    let mut content = String::new();
    std::io::Read::read_to_string(&mut dir.open_file(b"file").unwrap(), &mut content).unwrap();
    assert_eq!(content, "content");
    let top = view.dir(b"").unwrap().unwrap();
    assert_eq!(top.names().unwrap(), [b"a".to_vec(), b"link".to_vec()]);
    assert_eq!(top.look(b"link").unwrap().unwrap().kind, NodeKind::Symlink);
    assert_eq!(top.read_link(b"link").unwrap(), place.outside().as_os_str().as_bytes());
    assert_eq!(kind_of(top.open_file(b"link")), ErrorKind::Conflict);
    for none in ["link", "link/secret", "a/b/file", "none/below", "..", "a/../../outside"] {
        assert!(view.dir(none.as_bytes()).unwrap().is_none(), "{none}");
    }
    assert!(TreeView::open(&place.root().join("a/b/file")).unwrap().is_none());
}

#[test]
fn a_view_finds_its_way_in_a_tree_deeper_than_it_holds_open() {
    const LEVELS: usize = 3000;
    let place = Place::new();
    let target = place.target(Overwrite::Never, true);
    let path = vec!["0123456789"; LEVELS].join("/").into_bytes();
    let bottom = target.dir(&path).unwrap();
    target.write_small(&bottom, &file("f"), &[b"x"], &Monitor::new()).unwrap();
    drop(bottom);
    let mut view = TreeView::open(&place.root()).unwrap().unwrap();
    // Down, up again level by level, and straight down once more.
    let ends = (0..=LEVELS).rev().step_by(100).map(|level| (level * 11).saturating_sub(1));
    for end in ends.chain([path.len()]) {
        let dir = view.dir(&path[..end]).unwrap().unwrap();
        let name: &[u8] = if end == path.len() { b"f" } else { b"0123456789" };
        assert!(dir.look(name).unwrap().is_some(), "{end}");
    }
    remove::remove_tree(target.root().fd.as_fd(), b"0123456789").unwrap();
}

#[test]
fn removing_a_tree_ends_when_nobody_wants_it_any_more() {
    let place = Place::new();
    let scratch = Scratch::create(&place.root(), "drill").unwrap();
    let path = scratch.path().to_owned();
    for n in 0..2000 {
        fs_err::write(path.join(n.to_string()), "").unwrap();
    }
    let mut asked = Vec::new();
    let outcome = scratch.remove_while(&mut |entries| {
        asked.push(entries);
        entries < 700
    });
    assert_eq!(kind_of(outcome), ErrorKind::Cancelled);
    let left = fs_err::read_dir(&path).unwrap().count();
    assert!((1000..1300).contains(&left) && asked.is_sorted(), "{left} {asked:?}");
    let name = path.file_name().unwrap().as_bytes();
    assert_eq!(remove_left_behind(&place.root(), name, &mut |_| true).unwrap(), left as u64 + 1);
    assert_eq!(remove_left_behind(&place.root(), name, &mut |_| true).unwrap(), 0);
    assert_eq!(kind_of(remove_left_behind(&place.root(), b"..", &mut |_| true)), ErrorKind::Invalid);
}
