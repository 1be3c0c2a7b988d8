//! A recovery point in a second repository: copied, beside taking it once more from its source.

use super::measure::{Samples, bytes_of, measure as time, prepare};
use super::report::{PEAK_BYTES_MAX, Row, Table};
use super::{Bench, corpus};
use crate::program::{Lastgood, Source};
use anyhow::Result;

pub(super) fn measure(bench: &Bench<'_>) -> Result<Table> {
    let corpus = corpus::tree(&bench.options.tree, &bench.corpus, bench.options.shrink)?;
    let (mut first, mut same, mut other, mut restics) =
        (Samples::default(), Samples::default(), Samples::default(), Samples::default());
    let mut bytes = 0;
    for run in 0..bench.options.runs {
        eprintln!("run {} of {}", run + 1, bench.options.runs);
        let folder = bench.fresh("lastgood")?;
        let source = Source::Files { name: "tree", paths: corpus.paths.clone() };
        let lastgood = Lastgood::new(&bench.lastgood, &folder, &folder.join("repo"), &[source])?;
        prepare(&bench.lastgood(&lastgood, lastgood.init()))?;
        first.push(time(
            "lastgood, first",
            &bench.lastgood(&lastgood, lastgood.backup(false)),
            bench.scratch,
            &corpus.paths,
        )?);
        bytes = bytes_of(&lastgood.repository)?;
        let warm = [&lastgood.repository];
        let twin = folder.join("same");
        prepare(&bench.lastgood(&lastgood, lastgood.init_twin(&twin)))?;
        same.push(time("copy, same key", &bench.lastgood(&lastgood, lastgood.copy_to(&twin)), bench.scratch, &warm)?);
        let stranger = folder.join("other");
        prepare(&bench.lastgood(&lastgood, lastgood.init_at(&stranger)))?;
        other.push(time(
            "copy, other key",
            &bench.lastgood(&lastgood, lastgood.copy_to(&stranger)),
            bench.scratch,
            &warm,
        )?);
        let restic = folder.join("restic");
        prepare(&bench.restic(&restic, &["init"])?)?;
        let from = lastgood.repository.to_string_lossy().into_owned();
        let key = lastgood.key.to_string_lossy().into_owned();
        let words = ["copy", "--from-repo", &from, "--from-password-file", &key];
        restics.push(time("restic, copy", &bench.restic(&restic, &words)?, bench.scratch, &warm)?);
    }
    let rows = vec![
        Row::time("copy, same key material", &same).beside("reading the source again", &first, Some(0.2)).beside(
            "restic copy",
            &restics,
            None,
        ),
        Row::time("copy, another key", &other).beside("reading the source again", &first, Some(0.6)).beside(
            "restic copy",
            &restics,
            None,
        ),
    ];
    let subject = format!(
        "A recovery point of {} entries and {:.2} GB, {:.2} GB in the repository, copied into an empty one on the same disk.",
        corpus.entries,
        corpus.bytes as f64 / 1e9,
        bytes as f64 / 1e9
    );
    Ok(Table { name: "copies", subject, rows, notes: Vec::new(), peak_bytes_max: PEAK_BYTES_MAX })
}
