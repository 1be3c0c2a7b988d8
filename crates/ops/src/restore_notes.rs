//! `RESTORE.md`: how to get everything back with restic and the databases' own clients alone. It lies in every recovery
//! point, so that the point can outlive lastgood.

use lastgood_model::manifest::{Manifest, SourceOutcome, SourceRecord};
use lastgood_sources::postgres::{DatabaseFacts, Facts, Globals};
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
            "postgres" => "databases of a PostgreSQL server, as SQL and COPY's text format; below is how to load them".to_owned(),
            other => format!("a source of kind {other}"),
        };
        let part = if source.outcome == SourceOutcome::Partial {
            " Something in it could not be read; see the manifest."
        } else {
            ""
        };
        let _ = writeln!(w, "- `/{name}` (from {origins}): {how}.{part}");
    }
    for source in manifest.sources.iter().filter(|source| source.kind == "postgres") {
        if !matches!(source.outcome, SourceOutcome::Failed { .. }) {
            postgres(w, source);
        }
    }
    if !manifest.complete {
        let _ = writeln!(
            w,
            "\nThis point is INCOMPLETE; `problems` and `sources` in `manifest.json` say what is not in it."
        );
    }
    out
}

/// How the databases of a server are loaded with `psql` alone.
fn postgres(w: &mut String, source: &SourceRecord) {
    let name = &source.name;
    // A manifest that was written by another version still names the folders.
    let facts = Facts::from_map(&source.facts).unwrap_or_default();
    let _ = writeln!(w, "\n## Loading `{name}` with psql\n");
    let _ = writeln!(
        w,
        "It was a server of PostgreSQL {}. Into one of that version or newer; psql finds it by PGHOST, PGPORT, PGUSER and PGPASSWORD or ~/.pgpass. In the folder that was restored (FOLDER above), in bash:\n",
        if facts.server_version.is_empty() { "an unknown version" } else { &facts.server_version }
    );
    let folder = word(name);
    if facts.globals != Globals::LeftOut {
        let passwords = match facts.globals {
            Globals::WithoutPasswords => "; they have no passwords: set them with \\password",
            _ => "",
        };
        let _ = writeln!(
            w,
            "First the roles and tablespaces. Errors that a role exists already may be passed over{passwords}. A tablespace needs its folder on the new server; to do without, remove the lines that begin with `SET default_tablespace` from the files below.\n\n    psql -d postgres -f {folder}/globals.sql\n"
        );
    }
    for database in &facts.databases {
        database_notes(w, &folder, database, facts.pg_dump_version_num.is_some());
    }
}

fn database_notes(w: &mut String, folder: &str, database: &DatabaseFacts, has_schema: bool) {
    let name = word(&database.name);
    let here = format!("{folder}/{}", word(&database.folder));
    // It finds the database by PGDATABASE: after -d a name with `=` would be taken for more than a name.
    let psql = "psql -X -q -v ON_ERROR_STOP=1";
    let _ = writeln!(
        w,
        "Then database `{}`; it was seen at {} of {}. The last line says whether all of it is loaded; if not, remove the half-made database with `dropdb`, mend the cause, and begin anew:\n",
        database.name, database.lsn, database.snapshot_time
    );
    let locale = |value: Option<&str>, other: &str| word(value.unwrap_or(other));
    let provider = match database.provider.as_str() {
        "icu" => {
            let rules = database.icu_rules.as_ref().map(|rules| format!(" --icu-rules={}", word(rules)));
            let locale = locale(database.locale.as_deref(), "und");
            format!(" --locale-provider=icu --icu-locale={locale}{}", rules.unwrap_or_default())
        }
        "builtin" => format!(" --locale-provider=builtin --builtin-locale={}", locale(database.locale.as_deref(), "C")),
        _ => String::new(),
    };
    let create = format!(
        "createdb --template=template0 --encoding={}{provider} --lc-collate={} --lc-ctype={} -- {name}",
        word(&database.encoding),
        word(&database.collation),
        word(&database.ctype)
    );
    // The names in the files are in UTF-8 whatever the database's encoding is; without one they are as they were.
    let encoding = if database.encoding == "SQL_ASCII" { "SQL_ASCII" } else { "UTF8" };
    // Not `( … ) && echo`: bash passes over `set -e` on the left of `&&`.
    let _ = writeln!(
        w,
        "    (set -euo pipefail\n    trap 'test $? = 0 && echo \"All of it is loaded.\" || echo \"STOPPED: NOT all of it is loaded.\"' EXIT\n    export PGDATABASE={name} PGCLIENTENCODING={encoding}"
    );
    let is_everywhere = matches!(database.name.as_str(), "postgres" | "template1");
    if has_schema && is_everywhere {
        let _ = writeln!(w, "    # Every server has this database from the beginning; there must be nothing in it.");
        let _ = writeln!(w, "    {psql} -f {here}/pre-data.sql");
    } else if has_schema {
        let _ = writeln!(w, "    {create}\n    {psql} -f {here}/pre-data.sql");
    } else {
        let _ = writeln!(w, "    # Only rows were kept: the database and its tables must be there.");
    }
    if database.tables > 0 {
        let _ = writeln!(
            w,
            "    for table in {here}/data/*/; do\n        (cat \"$table\"copy.sql \"$table\"*.copy; echo '\\.') | {psql} > /dev/null\n    done"
        );
    }
    if database.long_rows > 0 {
        // Rows that are too long for a text: each is a whole input of COPY in its binary format.
        let _ = writeln!(
            w,
            "    for row in {here}/data/*/*.binary; do\n        statement=$(sed '$s/(ENCODING \\([^()]*\\));$/(FORMAT binary, ENCODING \\1);/' \"${{row%/*}}\"/copy.sql)\n        {psql} -c \"$statement\" < \"$row\"\n    done"
        );
    }
    if database.large_objects.is_some_and(|objects| objects.objects > 0) {
        let _ = writeln!(
            w,
            "    {psql} -f {here}/large-objects.sql > /dev/null\n    (echo 'CREATE TEMP TABLE piece (object oid, at bigint, bytes bytea);'\n     echo 'COPY piece FROM STDIN;'; cat {here}/large-objects.copy; echo '\\.'\n     echo 'SELECT count(lo_put(object, at, bytes)) FROM piece;') | {psql} > /dev/null"
        );
    }
    if database.sequences > 0 {
        let _ = writeln!(w, "    {psql} -f {here}/sequences.sql > /dev/null");
    }
    if has_schema {
        let _ = writeln!(
            w,
            "    {psql} -f {here}/post-data.sql > /dev/null\n    # The database's own settings, privileges, comment and owner:\n    {psql} -f {here}/database.sql > /dev/null"
        );
    }
    let _ = writeln!(w, "    )");
    let _ = writeln!(
        w,
        "\n`{here}/tables.json` says of each table which folder in `data` it has, and how many rows that are.\n"
    );
}

/// A word as a shell takes it literally.
fn word(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./%+,:@".contains(c);
    match !text.is_empty() && text.chars().all(is_plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', "'\\''")),
    }
}
