//! `RESTORE.md`: how to get everything back with restic and the databases' own clients alone. It lies in every recovery
//! point, so that the point can outlive lastgood.

use lastgood_model::manifest::{Manifest, SourceOutcome};
use std::fmt::Write;

/// The notes for one recovery point.
pub(crate) fn write(manifest: &Manifest, location: &str) -> String {
    let mut out = String::new();
    let w = &mut out;
    // Writing to a string cannot fail.
    let _ = writeln!(w, "# How to restore this recovery point of `{}`\n", manifest.app);
    let _ = writeln!(
        w,
        "Taken by lastgood {} on host {} at {}. The repository is in restic's format, version 2: lastgood is not needed to read it.\n",
        manifest.program, manifest.host, manifest.started
    );
    let _ =
        writeln!(w, "With lastgood:\n\n    lastgood restore latest --repo '{location}' --key-file KEY --to FOLDER\n");
    let _ = writeln!(
        w,
        "With restic alone (KEY is the key file; its single line is the repository's password):\n\n    restic -r '{location}' --password-file KEY snapshots\n    restic -r '{location}' --password-file KEY restore SNAPSHOT --target FOLDER\n"
    );
    let _ = writeln!(w, "## What is where\n");
    for source in &manifest.sources {
        let name = &source.name;
        let origins = source.origins.join(", ");
        if let SourceOutcome::Failed { error } = &source.outcome {
            let _ = writeln!(w, "- `{name}` ({}, from {origins}) is MISSING from this point: {error}", source.kind);
            continue;
        }
        let how = match source.kind.as_str() {
            "sqlite" => "a plain SQLite database file. Stop the application, move the old file and its `-wal`, `-shm` and `-journal` aside together, put this one in place".to_owned(),
            "files" => format!("a file tree under its original absolute path: `/{name}/<original path>`"),
            "command" => "the standard output of a command, as it was printed".to_owned(),
            other => format!("a source of kind {other}"),
        };
        let part = if source.outcome == SourceOutcome::Partial {
            " Something in it could not be read; see the manifest."
        } else {
            ""
        };
        let _ = writeln!(w, "- `/{name}` (from {origins}): {how}.{part}");
    }
    if !manifest.complete {
        let _ = writeln!(
            w,
            "\nThis point is INCOMPLETE; `problems` and `sources` in `manifest.json` say what is not in it."
        );
    }
    out
}
