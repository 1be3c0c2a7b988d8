//! An index of many blobs: what it takes to open a repository of hundreds of terabytes, in memory and time.
//!
//! The index files are real, sealed by the repository's key; what they list is not: packs are files with holes, of the
//! length that their blobs would make up. Only the index is looked at.

use super::Bench;
use super::measure::{Job, Samples, measure as time, prepare, remove};
use super::report::{Row, Table};
use crate::program::{Lastgood, Source};
use anyhow::{Context, Result};
use lastgood_model::{BlobId, Id, PackId};
use lastgood_repo::crypto::{MasterKey, Password, Sealer};
use lastgood_repo::format::pack::pack_size;
use lastgood_repo::format::{BlobKind, IndexBlob, KeyFile, encode_index, key_file::decode_master_key};
use lastgood_repo::sha256::sha256;
use lastgood_testkit::rng::Rng;
use std::num::NonZeroU32;
use std::path::Path;

/// What is to be held.
const BLOBS: u64 = 20_000_000;
const BLOBS_IN_PACK: u64 = 1000;
const BLOBS_IN_FILE: u64 = 50_000;
/// Stored length of a blob; 20 million make 400 GB.
const BLOB_BYTES: u32 = 20_000;
/// What memory may grow to: so much for each blob, and the rest of the program.
const BYTES_PER_BLOB: u64 = 28;
const BYTES_BESIDE: u64 = 64 << 20;
/// Opening from the local cache, in seconds.
const OPEN_S_MAX: f64 = 2.0;

pub(super) fn measure(bench: &Bench<'_>) -> Result<Table> {
    let blobs = BLOBS / bench.options.shrink;
    let folder = bench.fresh("lastgood")?;
    let small = folder.join("small");
    fs_err::create_dir_all(&small)?;
    fs_err::write(small.join("file"), "one file\n")?;
    let source = Source::Files { name: "small", paths: vec![small] };
    let repository = folder.join("repo");
    let lastgood = Lastgood::new(&bench.lastgood, &folder, &repository, &[source])?;
    prepare(&bench.lastgood(&lastgood, lastgood.init()))?;
    prepare(&bench.lastgood(&lastgood, lastgood.backup(false)))?;
    let opened = bench.lastgood(&lastgood, lastgood.list("latest"));
    // What the program takes to list one file where there is nothing else.
    let idle = run("list, empty index", &opened, bench, 3)?;
    eprintln!("making index files of {blobs} blobs");
    let index_bytes = make(&repository, &lastgood.key, blobs)?;

    let fetched = run("list, index read", &opened, bench, 1)?;
    let cached = run("list, index cached", &opened, bench, bench.options.runs.max(3))?;
    let backup = run("backup, index cached", &bench.lastgood(&lastgood, lastgood.backup(false)), bench, 1)?;
    remove(&repository)?;

    let mut opening = Row::time("opened from the local cache", &cached);
    opening = opening.beside_value("2 s for 20 million", OPEN_S_MAX * blobs as f64 / BLOBS as f64, Some(1.0));
    let mut rows = vec![opening, Row::memory("opened first, all index files read", &fetched)];
    rows.push(Row::memory("backup of one small file", &backup));
    rows.push(Row::size("index files", index_bytes as f64));
    let peak = blobs * BYTES_PER_BLOB + BYTES_BESIDE;
    let notes = vec![format!(
        "Time and memory are those of `lastgood ls` of a recovery point of one file; where the index is empty it takes {:.2} s \
         and {} MiB.",
        idle.wall_s(),
        idle.rss_bytes() >> 20
    )];
    let subject = format!(
        "A repository of {blobs} blobs in {} packs ({:.0} GB, were they there), listed by {} index files.",
        blobs / BLOBS_IN_PACK,
        blobs as f64 * f64::from(BLOB_BYTES) / 1e9,
        blobs / BLOBS_IN_FILE,
    );
    Ok(Table { name: "scale", subject, rows, notes, peak_bytes_max: peak })
}

fn run(label: &str, job: &Job, bench: &Bench<'_>, times: usize) -> Result<Samples> {
    let mut samples = Samples::default();
    for _ in 0..times {
        samples.push(time(label, job, bench.scratch, &[""; 0])?);
    }
    Ok(samples)
}

/// Writes index files and the packs that they list; gives the length of the former.
fn make(repository: &Path, key: &Path, blobs: u64) -> Result<u64> {
    let sealer = sealer(repository, key)?;
    let index = repository.join("index");
    let mut bytes = 0;
    for number in 0..blobs / BLOBS_IN_FILE {
        let mut rng = Rng::new(number + 1);
        let packs = (0..BLOBS_IN_FILE / BLOBS_IN_PACK).map(|_| pack(&mut rng)).collect::<Vec<_>>();
        for (id, blobs) in &packs {
            let name = id.0.to_string();
            let folder = repository.join("data").join(&name[..2]);
            fs_err::create_dir_all(&folder)?;
            fs_err::File::create(folder.join(name))?.set_len(pack_size(blobs))?;
        }
        let json = encode_index(packs.iter().map(|(id, blobs)| (*id, &blobs[..])));
        let mut plain = vec![2];
        plain.extend(zstd::bulk::compress(&json, 3)?);
        let sealed = sealer.seal(&plain)?;
        bytes += sealed.len() as u64;
        fs_err::write(index.join(Id(sha256(&sealed)).to_string()), sealed)?;
    }
    Ok(bytes)
}

fn pack(rng: &mut Rng) -> (PackId, Vec<IndexBlob>) {
    let mut id = || {
        let mut bytes = [0; 32];
        bytes.chunks_exact_mut(8).for_each(|chunk| chunk.copy_from_slice(&rng.next_u64().to_le_bytes()));
        Id(bytes)
    };
    let pack = PackId(id());
    let blob = |number: u64| IndexBlob {
        id: BlobId(id()).0,
        kind: BlobKind::Data,
        offset: number as u32 * BLOB_BYTES,
        length: BLOB_BYTES,
        uncompressed: NonZeroU32::new(2 * BLOB_BYTES),
    };
    (pack, (0..BLOBS_IN_PACK).map(blob).collect())
}

/// What seals the repository's objects.
fn sealer(repository: &Path, key: &Path) -> Result<Sealer> {
    let password = Password::new(fs_err::read_to_string(key)?.trim())?;
    let object = fs_err::read_dir(repository.join("keys"))?.next().context("the repository has no key")??;
    let file = KeyFile::decode(&fs_err::read(object.path())?)?;
    let derived = MasterKey::from_derived(&*password.derive(file.cost, &file.salt)?);
    let mut sealed = file.data;
    let json = Sealer::new(&derived)?.open_in_place(&mut sealed)?.to_vec();
    Ok(Sealer::new(&decode_master_key(&json)?)?)
}
