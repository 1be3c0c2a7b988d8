//! What the user left out on purpose, and how much of it there was.
//!
//! Patterns have the syntax and meaning of `.gitignore`: one without a slash matches a name at any depth, one with a
//! slash is anchored at each configured path, `!` takes back, the last match decides, and nothing below an excluded
//! directory can be taken back. They match bytes, so names that are not text match too.

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use lastgood_model::{Context, Error, Result};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// Compiled patterns.
#[derive(Debug)]
pub(super) struct Patterns {
    matcher: Gitignore,
    lines: Vec<String>,
}

impl Patterns {
    /// Compiles `lines` and then the lines of `files`, in this order.
    pub(super) fn new(lines: &[String], files: &[PathBuf]) -> Result<Self> {
        // An empty root: paths are matched as they are, relative to the top of their tree.
        let mut builder = GitignoreBuilder::new("");
        let mut all = Vec::new();
        for line in lines {
            add(&mut builder, &mut all, line).with_context(|| format!("read exclude pattern {line:?}"))?;
        }
        for file in files {
            let act = || format!("read exclude file {}", file.display());
            let bytes = fs_err::read(file).map_err(|error| unusable(act(), error))?;
            let text = str::from_utf8(&bytes)
                .map_err(|e| Error::invalid(act()).with_source(e).with_hint("save the file as UTF-8 text"))?;
            for (number, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
                add(&mut builder, &mut all, line).with_context(|| format!("{}, line {}", act(), number + 1))?;
            }
        }
        let matcher = builder.build().map_err(|e| Error::invalid("compile exclude patterns").with_source(e))?;
        Ok(Self { matcher, lines: all })
    }

    /// True when nothing can match.
    pub(super) fn is_empty(&self) -> bool {
        self.matcher.is_empty()
    }

    /// The patterns as written, comments and empty lines left out.
    pub(super) fn lines(&self) -> &[String] {
        &self.lines
    }

    /// The pattern that leaves out `path`, relative to the top of its tree, whose parents are not left out.
    pub(super) fn excluding(&self, path: &[u8], is_dir: bool) -> Option<&str> {
        match self.matcher.matched(Path::new(OsStr::from_bytes(path)), is_dir) {
            Match::Ignore(glob) => Some(glob.original()),
            Match::Whitelist(_) | Match::None => None,
        }
    }
}

/// An exclude file that is no file is a mistake in the settings; one that may not be read is not.
fn unusable(act: String, error: std::io::Error) -> Error {
    use std::io::ErrorKind::{IsADirectory, NotADirectory, NotFound};
    match error.kind() {
        NotFound | IsADirectory | NotADirectory => Error::invalid(act).with_source(error).with_hint(
            "correct `exclude_files` in the config, or make the file: what it names would be captured without it",
        ),
        _ => Error::io(act, error),
    }
}

fn add(builder: &mut GitignoreBuilder, all: &mut Vec<String>, line: &str) -> Result<()> {
    builder.add_line(None, line).map_err(|e| {
        Error::invalid("not a pattern in the syntax of .gitignore")
            .with_source(e)
            .with_hint("put a backslash before a bracket, brace or other special character that is meant literally")
    })?;
    if !line.trim().is_empty() && !line.starts_with('#') {
        all.push(line.trim_end().to_owned());
    }
    Ok(())
}

/// How many entries were left out, by the reason: a pattern as written, or a rule in words. A directory counts once,
/// whatever is below it.
#[derive(Debug, Default)]
pub(super) struct LeftOut(Mutex<BTreeMap<String, u64>>);

impl LeftOut {
    /// Counts one entry.
    pub(super) fn count(&self, reason: &str) {
        let mut counts = self.0.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(count) = counts.get_mut(reason) {
            *count += 1;
        } else {
            counts.insert(reason.to_owned(), 1);
        }
    }

    /// The counts so far.
    pub(super) fn counts(&self) -> BTreeMap<String, u64> {
        self.0.lock().unwrap_or_else(|e| e.into_inner()).clone()
    }
}

/// The first bytes of a `CACHEDIR.TAG` that marks its directory as a cache (Cache Directory Tagging Specification 0.6).
pub(super) const CACHE_SIGNATURE: &[u8; 43] = b"Signature: 8a477f597d28d172789f06886806bc55";

/// The name of the file that marks a cache directory.
pub(super) const CACHE_TAG: &[u8] = b"CACHEDIR.TAG";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_what_they_mean_in_a_gitignore_file() {
        // Patterns, path, is a directory, excluded.
        let table: &[(&[&str], &[u8], bool, bool)] = &[
            (&["*.tmp"], b"x.tmp", false, true),
            (&["*.tmp"], b"a/b/x.tmp", false, true),
            (&["*.tmp"], b"a/b/x.tmp2", false, false),
            (&["*.tmp"], b"\xff\xfe.tmp", false, true),
            (&["*.tmp"], b"two\nlines.tmp", false, true),
            (&["*.tmp"], b"a\nb/two\nlines.tmp", false, true),
            (&["*.tmp", "!keep.tmp"], b"a/keep.tmp", false, false),
            (&["!keep.tmp", "*.tmp"], b"a/keep.tmp", false, true),
            (&["/cache"], b"cache", true, true),
            (&["/cache"], b"a/cache", true, false),
            (&["cache/"], b"a/cache", true, true),
            (&["cache/"], b"a/cache", false, false),
            (&["cache/**"], b"cache", true, false),
            (&["cache/**"], b"cache/a/b", false, true),
            (&["cache/**"], b"x/cache/a", false, false),
            (&["**/cache/*.o"], b"x/y/cache/a.o", false, true),
            (&["a/*/c"], b"a/b/c", false, true),
            (&["a/*/c"], b"a/b/b/c", false, false),
            (&["\\#x", "# *", "", "   "], b"#x", false, true),
            (&["\\#x", "# *", "", "   "], b"other", false, false),
            (&["[ab]?"], b"bz", false, true),
            (&["[!ab]?"], b"bz", false, false),
            (&["name with space "], b"name with space", false, true),
            (&["\\!x"], b"!x", false, true),
        ];
        for (patterns, path, is_dir, want) in table {
            let lines: Vec<String> = patterns.iter().map(|&p| p.to_owned()).collect();
            let got = Patterns::new(&lines, &[]).unwrap().excluding(path, *is_dir).is_some();
            assert_eq!(got, *want, "{patterns:?} on {}", path.escape_ascii());
        }
    }

    #[test]
    fn exclude_files_come_after_lines_and_an_unusable_one_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ex clude");
        fs_err::write(&file, "\u{feff}*.a\r\n# note\r\n!b.a\n").unwrap();
        let patterns = Patterns::new(&["b.a".into()], std::slice::from_ref(&file)).unwrap();
        assert_eq!(patterns.lines(), ["b.a", "*.a", "!b.a"]);
        assert_eq!(patterns.excluding(b"x.a", false), Some("*.a"));
        assert_eq!(patterns.excluding(b"b.a", false), None);

        fs_err::write(&file, "ok\nx[b-a]\n").unwrap();
        let error = Patterns::new(&[], std::slice::from_ref(&file)).unwrap_err();
        assert!(error.chain().contains("line 2"), "{}", error.chain());
        assert_eq!(error.kind(), lastgood_model::ErrorKind::Invalid);
        let missing = Patterns::new(&[], &[folder.path().join("none")]).unwrap_err();
        assert_eq!(missing.kind(), lastgood_model::ErrorKind::Invalid);
        let folder = Patterns::new(&[], &[folder.path().to_owned()]).unwrap_err();
        assert_eq!(folder.kind(), lastgood_model::ErrorKind::Invalid);
    }
}
