//! restic is the judge of our cuts for files.

use lastgood_model::source::Chunking;
use lastgood_repo::chunk::{ChunkParams, Cutter, Polynomial, ZERO_CHUNK_BYTES};
use serde_json::Value;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// `$LASTGOOD_RESTIC`, what `cargo xtask setup` installed, or restic on the PATH.
fn restic() -> PathBuf {
    if let Some(given) = std::env::var_os("LASTGOOD_RESTIC") {
        return given.into();
    }
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools/restic");
    if installed.exists() {
        return installed;
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|dir| dir.join("restic"))
        .find(|file| file.exists())
        .expect("restic is needed for this test: run `cargo xtask setup`, or set LASTGOOD_RESTIC")
}

struct Repository {
    dir: tempfile::TempDir,
}

impl Repository {
    fn run(&self, args: &[&str]) -> Vec<u8> {
        let output = Command::new(restic())
            .args(["--quiet", "--no-cache", "--repo", "repo"])
            .args(args)
            .current_dir(self.dir.path())
            .env("RESTIC_PASSWORD", "test")
            .output()
            .unwrap();
        assert!(output.status.success(), "restic {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    fn json(&self, args: &[&str]) -> Value {
        serde_json::from_slice(&self.run(args)).unwrap()
    }

    /// The plaintext length of each blob, from the index files. (Asking for the blobs one by one would derive the key
    /// from the password each time.)
    fn blob_lengths(&self) -> HashMap<String, usize> {
        const SEAL_BYTES: u64 = 32;
        let list = String::from_utf8(self.run(&["list", "index"])).unwrap();
        let mut lengths = HashMap::new();
        for id in list.split_whitespace() {
            let index = self.json(&["cat", "index", id]);
            for blob in index["packs"].as_array().unwrap().iter().flat_map(|pack| pack["blobs"].as_array().unwrap()) {
                let length = blob["uncompressed_length"].as_u64();
                let length = length.unwrap_or_else(|| blob["length"].as_u64().unwrap() - SEAL_BYTES);
                lengths.insert(blob["id"].as_str().unwrap().to_owned(), usize::try_from(length).unwrap());
            }
        }
        lengths
    }

    /// Name and chunk lengths of each file below a tree.
    fn chunks(&self, tree: &str, known: &HashMap<String, usize>, out: &mut Vec<(String, Vec<usize>)>) {
        for node in self.json(&["cat", "blob", tree])["nodes"].as_array().unwrap() {
            if let Some(subtree) = node["subtree"].as_str() {
                self.chunks(subtree, known, out);
            } else {
                let ids = node["content"].as_array().unwrap();
                let lengths = ids.iter().map(|id| known[id.as_str().unwrap()]);
                out.push((node["name"].as_str().unwrap().to_owned(), lengths.collect()));
            }
        }
    }
}

fn ours(data: &[u8], params: &ChunkParams) -> Vec<usize> {
    let mut cutter = Cutter::new(Chunking::Files, params).unwrap();
    let mut lengths = Vec::new();
    for piece in data.chunks(1_000_000) {
        let mut rest = piece;
        loop {
            let before = cutter.pending();
            let Some(cut) = cutter.next_cut(rest) else { break };
            lengths.push(before + cut);
            rest = &rest[cut..];
        }
    }
    lengths.extend((cutter.pending() > 0).then(|| cutter.pending()));
    lengths
}

fn noise(length: usize) -> Vec<u8> {
    let mut state = 42_u64;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    })
    .take(length)
    .collect()
}

#[test]
fn restic_cuts_the_same_files_at_the_same_places() {
    let repository = Repository { dir: tempfile::tempdir().unwrap() };
    let random = noise(64 << 20);
    let few_values = random[..24 << 20].iter().map(|byte| b"ab\n"[usize::from(*byte) % 3]).collect();
    let mut holes = random[..9 << 20].to_vec();
    holes[1_000_000..7_000_000].fill(0);
    let files = [
        ("holes", holes),
        ("low-entropy", few_values),
        ("one-value", vec![b'x'; 20_000_000]),
        ("random", random),
        ("zeros", vec![0; 5 * ZERO_CHUNK_BYTES / 2]),
    ];
    let input = repository.dir.path().join("input");
    fs_err::create_dir(&input).unwrap();
    for (name, data) in &files {
        fs_err::write(input.join(name), data).unwrap();
    }
    repository.run(&["init"]);
    repository.run(&["backup", "input"]);

    let polynomial: Polynomial =
        repository.json(&["cat", "config"])["chunker_polynomial"].as_str().unwrap().parse().unwrap();
    let params = ChunkParams::new(polynomial, &[0; 32]).unwrap();
    let mut theirs = Vec::new();
    let snapshots = repository.json(&["snapshots", "--json"]);
    repository.chunks(snapshots[0]["tree"].as_str().unwrap(), &repository.blob_lengths(), &mut theirs);

    let ours: Vec<_> = files.iter().map(|(name, data)| ((*name).to_owned(), ours(data, &params))).collect();
    assert_eq!(ours, theirs, "polynomial {polynomial}");
    assert!(theirs[3].1.len() > 20, "{theirs:?}");
}
