//! `find`: entries by name or path, in one recovery point or all.

use super::entry;
use crate::args::Find;
use crate::errors::Outcome;
use crate::exit_code::ExitCode;
use crate::output::{json, object};
use crate::run::Run;
use crate::text;
use globset::{GlobBuilder, GlobMatcher};
use lastgood_model::manifest::Manifest;
use lastgood_model::{Error, ErrorKind, Result, SnapshotId};
use lastgood_ops::browse::{Descend, walk};
use lastgood_ops::snapshots::manifest;
use serde_json::Value;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

pub(super) fn run(run: &Run, args: &Find) -> Outcome {
    let pattern = Pattern::new(&args.pattern, args.ignore_case)?;
    let is_all = args.snapshot == "all";
    let named = [args.snapshot.as_str()];
    let held = run.open_with(if is_all { &[] } else { &named })?;
    let repository = held.repository;
    let mut damaged: Vec<(SnapshotId, Error)> = Vec::new();
    let snapshots = if is_all {
        let mut all = repository.snapshots(|id, error| damaged.push((id, error)))?;
        // Newest first: what is looked for was most often deleted not long ago.
        all.reverse();
        all
    } else {
        held.snapshots
    };
    let reader = repository.reader()?;
    let monitor = run.monitor();
    let mut list = run.out.list(
        "lastgood.found",
        "lastgood.match",
        "matches",
        object([("pattern", args.pattern.as_str().into())]),
    )?;
    let mut found = 0u64;
    for (id, error) in &damaged {
        run.out.note(format!("damaged: recovery point {} cannot be read: {}", id.short(), error.chain()));
    }
    let unreadable = damaged.len();
    for snapshot in &snapshots {
        let mut named = snapshots.len() == 1;
        // Where databases came from stands only in the manifest; without it they are found by their names alone.
        let manifest = if pattern.is_absolute { manifest(&reader, snapshot).unwrap_or_default() } else { None };
        let databases = originals(manifest.as_ref());
        let walked = walk(&reader, snapshot.file.tree, b"", &monitor, |walked| {
            if run.out.is_closed() {
                return Err(Error::new(ErrorKind::Cancelled, "standard output was closed"));
            }
            if pattern.fits(walked.path, &walked.node.name, &databases) {
                found += 1;
                if !std::mem::replace(&mut named, true) && run.out.is_human() {
                    run.out.line(format!("{}  {}", snapshot.id.short(), text::moment(snapshot.file.time)))?;
                }
                let fields = || {
                    let mut fields = entry::fields(walked.path, walked.node);
                    fields.insert("snapshot".into(), json(&snapshot.id));
                    fields.insert("time".into(), json(&snapshot.file.time));
                    fields
                };
                list.item(fields, || Some(entry::long(walked.path, walked.node)))?;
            }
            Ok(Descend::Yes)
        });
        if run.out.is_closed() {
            break;
        }
        match walked {
            // One damaged recovery point must not hide what is in the others.
            Err(error) if error.kind() == ErrorKind::Corrupt && snapshots.len() > 1 => {
                run.out.note(format!("damaged: recovery point {}: {}", snapshot.id.short(), error.chain()));
                damaged.push((snapshot.id, error));
            }
            walked => walked?,
        }
    }
    let broken: Vec<Value> = damaged
        .iter()
        .map(|(id, error)| Value::Object(object([("id", json(id)), ("error", error.chain().into())])))
        .collect();
    list.end(object([("snapshots_searched", snapshots.len().into()), ("damaged", broken.into())]))?;
    if found == 0 && run.out.is_human() {
        run.out.note(format!(
            "nothing fits {:?} in {}",
            args.pattern,
            text::counted(snapshots.len() as u64, "recovery point")
        ));
    }
    if damaged.is_empty() {
        return Ok(ExitCode::Ok);
    }
    run.out.note(format!(
        "{} could not be searched{}; `lastgood check` tells all that is damaged",
        text::counted(damaged.len() as u64, "recovery point"),
        if damaged.len() > unreadable { " in full" } else { "" }
    ));
    Ok(ExitCode::Damage)
}

/// Original paths of databases, by the names of their sources.
type Originals = HashMap<Vec<u8>, Vec<String>>;

fn originals(manifest: Option<&Manifest>) -> Originals {
    let databases = manifest.iter().flat_map(|m| &m.sources).filter(|source| source.kind == "sqlite");
    databases.map(|source| (source.name.clone().into_bytes(), source.origins.clone())).collect()
}

/// A pattern for names, or with a slash in it for whole paths: `source/…` or the original absolute path.
struct Pattern {
    matcher: GlobMatcher,
    is_path: bool,
    is_absolute: bool,
}

impl Pattern {
    fn new(text: &str, ignore_case: bool) -> Result<Self> {
        let is_path = text.contains('/');
        let glob =
            GlobBuilder::new(text).literal_separator(true).case_insensitive(ignore_case).build().map_err(|e| {
                Error::invalid(format!("not a pattern: {text:?}"))
                    .with_source(e)
                    .with_hint("put a backslash before a bracket or brace that is meant literally")
            })?;
        Ok(Self { matcher: glob.compile_matcher(), is_path, is_absolute: text.starts_with('/') })
    }

    fn fits(&self, path: &[u8], name: &[u8], databases: &Originals) -> bool {
        let fits = |bytes: &[u8]| self.matcher.is_match(Path::new(OsStr::from_bytes(bytes)));
        if !self.is_path {
            return fits(name);
        }
        if !self.is_absolute {
            return fits(path);
        }
        // The original path is what comes after the source's name, but for a database, which is its source's only file.
        let Some(slash) = path.iter().position(|b| *b == b'/') else { return false };
        match databases.get(&path[..slash]) {
            Some(origins) => origins.iter().any(|origin| fits(origin.as_bytes())),
            None => fits(&path[slash..]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_names_paths_and_original_paths() {
        let databases = Originals::from([(b"db".to_vec(), vec!["/srv/shop.db".to_owned()])]);
        let cases: [(&str, &[u8], bool); 13] = [
            ("/srv/shop.db", b"db/shop.db", true),
            ("/srv/*", b"db/shop.db", true),
            ("/shop.db", b"db/shop.db", false),
            ("*.jpg", b"uploads/srv/a.jpg", true),
            ("*.jpg", b"uploads/srv/a.jpg/b", false),
            ("a?", b"uploads/a\xff", true),
            ("uploads/**/a.jpg", b"uploads/srv/x/a.jpg", true),
            ("uploads/*/a.jpg", b"uploads/srv/x/a.jpg", false),
            ("/srv/*.jpg", b"uploads/srv/a.jpg", true),
            ("/srv/*.jpg", b"uploads/srv/x/a.jpg", false),
            ("/**/a.jpg", b"uploads/srv/x/a.jpg", true),
            ("{a,b}.txt", b"x/b.txt", true),
            ("A.JPG", b"x/a.jpg", false),
        ];
        for (pattern, path, want) in cases {
            let name = path.rsplit(|b| *b == b'/').next().unwrap();
            assert_eq!(
                Pattern::new(pattern, false).unwrap().fits(path, name, &databases),
                want,
                "{pattern} {}",
                path.escape_ascii()
            );
        }
        assert!(Pattern::new("A.JPG", true).unwrap().fits(b"x/a.jpg", b"a.jpg", &databases));
        assert!(Pattern::new("[", false).is_err());
    }
}
