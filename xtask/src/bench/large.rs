//! One large file: a tar archive of the tree, as real content in one piece.

use super::measure::{Job, Samples, bytes_of, measure as time, median, prepare};
use super::report::{PEAK_BYTES_MAX, Row, Table};
use super::{Bench, corpus};
use crate::program::{Lastgood, Source};
use anyhow::{Context, Result};
use std::path::PathBuf;

/// How much of the archive is taken.
const LARGE_BYTES: u64 = 2 << 30;

pub(super) fn measure(bench: &Bench<'_>) -> Result<Table> {
    let corpus = corpus::tree(&bench.options.tree, &bench.corpus, bench.options.shrink)?;
    let file = bench.scratch.join("large.tar");
    let mut arguments = vec![file.clone(), (LARGE_BYTES / bench.options.shrink).to_string().into()];
    arguments.extend(corpus.paths.iter().cloned());
    // `head` closes the pipe before tar is through, which is no failure here.
    let line = "out=$1; size=$2; shift 2; set +o pipefail; tar -cf - \"$@\" 2>/dev/null | head -c \"$size\" > \"$out\"";
    prepare(&Job::shell(line, &arguments))?;
    let text = file.to_str().context("the scratch folder's path is not text")?;

    let (mut ours, mut restics, mut limits) = (Samples::default(), Samples::default(), Samples::default());
    let (mut bytes, mut restic_bytes, mut limit_bytes) = (Vec::new(), Vec::new(), Vec::new());
    let mut restored = Samples::default();
    let mut copied = Samples::default();
    for _ in 0..bench.options.runs {
        let folder = bench.fresh("lastgood")?;
        let source = Source::Files { name: "large", paths: vec![file.clone()] };
        let lastgood = Lastgood::new(&bench.lastgood, &folder, &folder.join("repo"), &[source])?;
        prepare(&bench.lastgood(&lastgood, lastgood.init()))?;
        let repository = bench.fresh("restic")?.join("repo");
        prepare(&bench.restic(&repository, &["init"])?)?;
        let plain = bench.fresh("plain")?;
        let go = |label: &str, job: &Job, read: &PathBuf| time(label, job, bench.scratch, &[read]);
        ours.push(go("lastgood, large file", &bench.lastgood(&lastgood, lastgood.backup(false)), &file)?);
        restics.push(go("restic, large file", &bench.restic(&repository, &["backup", text])?, &file)?);
        let packed = plain.join("large.zst");
        limits.push(go("zstd, large file", &Job::shell("zstd -q -3 -T2 \"$1\" -o \"$2\"", [&file, &packed]), &file)?);
        bytes.push(bytes_of(&lastgood.repository)? as f64);
        restic_bytes.push(bytes_of(&repository)? as f64);
        limit_bytes.push(bytes_of(&packed)? as f64);
        let target = plain.join("to");
        restored.push(go(
            "lastgood, large file restored",
            &bench.lastgood(&lastgood, lastgood.restore("latest", &target)),
            &lastgood.repository,
        )?);
        let back = Lastgood::restored_tree(&target, "large", &file);
        prepare(&Job::shell("cmp \"$1\" \"$2\"", [&file, &back]))?;
        copied.push(go("cp, large file", &Job::shell("cp -a \"$1\" \"$2\"", [&file, &plain.join("copy")]), &file)?);
    }
    let rows = vec![
        Row::time("one large file, first", &ours)
            .beside("zstd -3 -T2", &limits, Some(1.15))
            .beside("restic", &restics, None),
        Row::size("repository", median(bytes)).beside_value("restic", median(restic_bytes), None).beside_value(
            "zstd -3 -T2",
            median(limit_bytes),
            None,
        ),
        Row::time("one large file, restore", &restored).beside("cp -a", &copied, None),
    ];
    let subject =
        format!("One file of {:.2} GB, the begin of a tar archive of the tree.", bytes_of(&file)? as f64 / 1e9);
    Ok(Table { name: "large", subject, rows, notes: Vec::new(), peak_bytes_max: PEAK_BYTES_MAX })
}
