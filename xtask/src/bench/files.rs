//! A tree of many files: first, unchanged, read again, restored, verified.

use super::measure::{Job, Samples, bytes_of, measure as time, median, prepare, remove};
use super::report::{PEAK_BYTES_MAX, Row, Table};
use super::{Bench, corpus};
use crate::program::{Lastgood, Source};
use anyhow::{Context, Result, bail};
use lastgood_testkit::compare;
use std::path::PathBuf;

/// One contender's samples, in the order of the steps.
#[derive(Default)]
struct Steps {
    first: Samples,
    unchanged: Samples,
    force: Samples,
    restore: Samples,
    verify: Samples,
    bytes: Vec<f64>,
}

pub(super) fn measure(bench: &Bench<'_>) -> Result<Table> {
    let corpus = corpus::tree(&bench.options.tree, &bench.corpus, bench.options.shrink)?;
    let paths = &corpus.paths;
    eprintln!("{} entries, {:.2} GB in {paths:?}", corpus.entries, corpus.bytes as f64 / 1e9);
    let (mut ours, mut restics, mut limits) = (Steps::default(), Steps::default(), Steps::default());
    for run in 0..bench.options.runs {
        eprintln!("run {} of {}", run + 1, bench.options.runs);
        let folder = bench.fresh("lastgood")?;
        let source = Source::Files { name: "tree", paths: paths.clone() };
        let lastgood = Lastgood::new(&bench.lastgood, &folder, &folder.join("repo"), &[source])?;
        prepare(&bench.lastgood(&lastgood, lastgood.init()))?;
        let repository = bench.fresh("restic")?.join("repo");
        prepare(&bench.restic(&repository, &["init"])?)?;
        let plain = bench.fresh("plain")?;
        let go = |label: &str, job: &Job| time(label, job, bench.scratch, paths);
        let go_from = |label: &str, job: &Job, read: &PathBuf| time(label, job, bench.scratch, &[read]);
        let backup = |more: &[&str]| {
            let mut arguments = vec!["backup"];
            arguments.extend(more);
            arguments.extend(paths.iter().filter_map(|path| path.to_str()));
            bench.restic(&repository, &arguments)
        };

        ours.first.push(go("lastgood, first", &bench.lastgood(&lastgood, lastgood.backup(false)))?);
        restics.first.push(go("restic, first", &backup(&[])?)?);
        let archive = plain.join("tree.tar.zst");
        let mut arguments = vec![archive.clone()];
        arguments.extend(paths.iter().cloned());
        let pack = "out=$1; shift; tar -cf - \"$@\" 2>/dev/null | zstd -q -3 -T2 > \"$out\"";
        limits.first.push(go("tar | zstd, first", &Job::shell(pack, &arguments))?);
        ours.bytes.push(bytes_of(&lastgood.repository)? as f64);
        restics.bytes.push(bytes_of(&repository)? as f64);
        limits.bytes.push(bytes_of(&archive)? as f64);

        ours.unchanged.push(go("lastgood, unchanged", &bench.lastgood(&lastgood, lastgood.backup(false)))?);
        restics.unchanged.push(go("restic, unchanged", &backup(&[])?)?);
        ours.force.push(go("lastgood, --force", &bench.lastgood(&lastgood, lastgood.backup(true)))?);
        restics.force.push(go("restic, --force", &backup(&["--force"])?)?);

        let target = bench.fresh("restored")?.join("to");
        ours.restore.push(go_from(
            "lastgood, restore",
            &bench.lastgood(&lastgood, lastgood.restore("latest", &target)),
            &lastgood.repository,
        )?);
        if run == 0 {
            compare_restored(paths, &target)?;
        }
        remove(&target)?;
        let text = target.to_str().context("the scratch folder's path is not text")?;
        restics.restore.push(go_from(
            "restic, restore",
            &bench.restic(&repository, &["restore", "latest", "--target", text])?,
            &repository,
        )?);
        remove(&target)?;
        fs_err::create_dir_all(&target)?;
        let mut arguments = vec![target.clone()];
        arguments.extend(paths.iter().cloned());
        let copy = "to=$1; shift; for path; do mkdir -p \"$to${path%/*}\"; cp -a \"$path\" \"$to${path%/*}\"; done";
        limits.restore.push(go("cp -a", &Job::shell(copy, &arguments))?);
        remove(&target)?;

        ours.verify.push(go_from(
            "lastgood, verify",
            &bench.lastgood(&lastgood, lastgood.verify()),
            &lastgood.repository,
        )?);
        restics.verify.push(go_from(
            "restic, check --read-data",
            &bench.restic(&repository, &["check", "--read-data"])?,
            &repository,
        )?);
    }
    let archive = "tar \\| zstd -3 -T2";
    let rows = vec![
        Row::time("files, first", &ours.first).beside(archive, &limits.first, Some(1.1)).beside(
            "restic",
            &restics.first,
            None,
        ),
        Row::size("repository", median(ours.bytes))
            .beside_value("restic", median(restics.bytes), Some(1.02))
            .beside_value(archive, median(limits.bytes), None),
        Row::time("files, unchanged", &ours.unchanged).beside("restic", &restics.unchanged, Some(0.3)),
        Row::time("files, --force", &ours.force).beside("restic", &restics.force, Some(0.35)),
        Row::time("files, restore", &ours.restore).beside("cp -a", &limits.restore, Some(1.1)).beside(
            "restic",
            &restics.restore,
            Some(0.5),
        ),
        Row::time("verify", &ours.verify).beside("restic check --read-data", &restics.verify, Some(0.5)),
    ];
    let subject = format!(
        "A tree of {} entries and {:.2} GB, caches warm, repository on the same disk.",
        corpus.entries,
        corpus.bytes as f64 / 1e9
    );
    let notes =
        vec!["What lastgood restored was compared with the original, entry by entry, in the first run.".to_owned()];
    Ok(Table { name: "files", subject, rows, notes, peak_bytes_max: PEAK_BYTES_MAX })
}

/// A measurement of a restore that restores something else is worth nothing.
fn compare_restored(paths: &[PathBuf], target: &std::path::Path) -> Result<()> {
    for path in paths {
        let restored = Lastgood::restored_tree(target, "tree", path);
        let differences = compare::compare_trees(path, &restored).map_err(|e| anyhow::anyhow!("{}", e.chain()))?;
        if !differences.is_empty() {
            bail!("{} was restored differently:\n{}", path.display(), compare::describe(&differences));
        }
    }
    Ok(())
}
