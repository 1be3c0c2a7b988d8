//! What is protected in measurements: the system's own files, or files made from a seed where there are too few.

use super::measure::remove;
use anyhow::Result;
use lastgood_testkit::rng::Rng;
use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The least a tree must hold for its figures to say something.
const TREE_BYTES_MIN: u64 = 4_000_000_000;
const TREE_FILES_MIN: u64 = 100_000;

/// Trees to protect.
pub(super) struct Corpus {
    /// Their tops.
    pub(super) paths: Vec<PathBuf>,
    /// Bytes of their files, each hard linked one once.
    pub(super) bytes: u64,
    /// How many entries.
    pub(super) entries: u64,
}

/// What was asked for, else the system's files, else made ones in `dir`, smaller by `shrink`.
pub(super) fn tree(asked: &[PathBuf], dir: &Path, shrink: u64) -> Result<Corpus> {
    if !asked.is_empty() {
        return asked
            .iter()
            .map(fs_err::canonicalize)
            .collect::<Result<Vec<_>, _>>()
            .map_err(Into::into)
            .and_then(count);
    }
    let system = ["/usr/lib", "/usr/share"].map(PathBuf::from).to_vec();
    if shrink == 1 && system.iter().all(|path| path.is_dir()) {
        let corpus = count(system)?;
        if corpus.bytes >= TREE_BYTES_MIN && corpus.entries >= TREE_FILES_MIN {
            return Ok(corpus);
        }
    }
    let top = dir.join(format!("tree-1-{shrink}"));
    let done = dir.join(format!("tree-1-{shrink}.done"));
    if !done.exists() {
        remove(&top)?;
        eprintln!("making a tree in {}", top.display());
        make(&top, TREE_FILES_MIN * 11 / 10 / shrink, TREE_BYTES_MIN * 21 / 20 / shrink)?;
        fs_err::write(&done, "")?;
    }
    count(vec![top])
}

/// A made tree of about so many bytes.
pub(super) fn made(dir: &Path, bytes: u64) -> Result<Corpus> {
    let top = dir.join(format!("made-1-{bytes}"));
    let done = dir.join(format!("made-1-{bytes}.done"));
    if !done.exists() {
        remove(&top)?;
        eprintln!("making a tree in {}", top.display());
        let files = (TREE_FILES_MIN as f64 * bytes as f64 / TREE_BYTES_MIN as f64) as u64;
        make(&top, files.max(100), bytes)?;
        fs_err::write(&done, "")?;
    }
    count(vec![top])
}

fn count(paths: Vec<PathBuf>) -> Result<Corpus> {
    let (mut bytes, mut entries, mut seen) = (0, 0, HashSet::new());
    let mut folders = paths.clone();
    while let Some(folder) = folders.pop() {
        for entry in fs_err::read_dir(&folder)? {
            let path = entry?.path();
            let metadata = fs_err::symlink_metadata(&path)?;
            entries += 1;
            if metadata.is_dir() {
                folders.push(path);
            } else if metadata.is_file() && (metadata.nlink() == 1 || seen.insert((metadata.dev(), metadata.ino()))) {
                bytes += metadata.len();
            }
        }
    }
    Ok(Corpus { paths, bytes, entries })
}

/// Files of sizes as they are found: many small ones, few that hold most bytes; a third text, a third structured, a
/// third that does not compress; some twice.
fn make(top: &Path, files: u64, bytes: u64) -> Result<()> {
    let mut rng = Rng::new(1);
    let mean = bytes as f64 / files as f64;
    let text = rng.text(8 << 20);
    let noise = rng.bytes(8 << 20);
    let mut content = Vec::new();
    for number in 0..files {
        let folder = top.join(format!("{:02}/{:02}", number / 6400, number / 80 % 80));
        if number % 80 == 0 {
            fs_err::create_dir_all(&folder)?;
        }
        // Log-uniform over five decades, scaled to the wanted mean: the mean of 10^(5u) is 99999 / ln(100000).
        let scale = mean * (100_000f64).ln() / 99_999.0;
        let mut length = (10f64.powf(5.0 * rng.unit()) * scale) as usize;
        content.clear();
        while length > 0 {
            let piece = length.min(1 + rng.below(60_000) as usize);
            let at = rng.below((text.len() - piece) as u64) as usize;
            match number % 3 {
                0 => content.extend_from_slice(&text[at..at + piece]),
                1 => content
                    .extend(text[at..at + piece].iter().zip(&noise[at..]).map(|(t, n)| if *n < 90 { *n } else { *t })),
                _ => {
                    let start = content.len();
                    content.resize(start + piece, 0);
                    rng.fill(&mut content[start..]);
                }
            }
            length -= piece;
        }
        fs_err::write(folder.join(format!("file-{number:06}")), &content)?;
        if number % 50 == 0 {
            fs_err::write(folder.join(format!("copy-{number:06}")), &content)?;
        }
    }
    Ok(())
}
