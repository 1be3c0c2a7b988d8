//! From text and variables to settings that can be worked with: which keys there are, what each must look like, and what
//! to say of everything else.

use super::access;
use super::diagnostic::{Diagnostic, SourceText};
use super::read::{Findings, Found, Reading, Section, Show, quoted};
use super::tree::{self, Place as Written, Table};
use super::{
    Config, ConfigProblems, Digest, PolicyConfig, RepositoryConfig, SecretRef, SourceConfig, SourceSpec,
    VARIABLE_PREFIX, nearest,
};
use super::{keep, postgres};
use crate::text::{parse_duration, parse_size};
use crate::wiring::{Place, SECRET_NAMES};
use lastgood_model::manifest::Manifest;
use lastgood_model::node::is_safe_name;
use lastgood_model::retention::Policy;
use lastgood_repo::Compression;
use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Reads a config from its text and the variables over it.
pub(super) fn decode(
    source: &SourceText,
    variables: &[(String, String)],
    folder: PathBuf,
) -> Result<Config, ConfigProblems> {
    let mut table = match tree::parse(&source.text) {
        Ok(table) => table,
        Err(errors) => {
            let wrong = errors
                .iter()
                .map(|error| Diagnostic {
                    place: error.span().map_or(Written::Missing, Written::File),
                    message: format!("not TOML: {}", error.message().lines().collect::<Vec<_>>().join(", ")),
                    hint: None,
                    is_secret: false,
                })
                .collect::<Vec<_>>();
            return Err(problems(source, wrong));
        }
    };
    for (name, value) in variables {
        let path: Vec<&str> = name[VARIABLE_PREFIX.len()..].split("__").collect();
        table.lay_over(&path, value, name);
    }
    let reading = Reading { source, found: RefCell::new(Findings::default()) };
    let mut config = read_top(&reading, table, folder);
    let found = reading.found.into_inner();
    if found.wrong.is_empty() {
        config.settings = found.set;
        Ok(config)
    } else {
        Err(problems(source, found.wrong))
    }
}

fn problems(source: &SourceText, wrong: Vec<Diagnostic>) -> ConfigProblems {
    ConfigProblems {
        lines: wrong.iter().map(|d| d.line(source)).collect(),
        rendered: wrong.iter().map(|d| d.render(source)).collect(),
    }
}

fn read_top(reading: &Reading<'_>, table: Table, folder: PathBuf) -> Config {
    let mut top = Section::new(reading, "", table, Written::Missing);
    let default_app = || {
        let name = folder.file_name().map(|name| name.to_string_lossy().into_owned());
        name.filter(|name| !name.is_empty()).unwrap_or_else(|| "app".to_owned())
    };
    let (app, rpo) = match top.table("app", None) {
        Some(section) => read_app(section, default_app),
        None => {
            let app = default_app();
            top.default_below("app", "name", &quoted(&app));
            (app, None)
        }
    };
    let policy = top.table("policy", None).map(read_policy);
    let mut sources = Vec::new();
    for (name, section) in top.named_tables("source") {
        check_name(reading, &name, "source");
        let read = read_source(section, &name.name, &folder);
        sources.extend(read.map(|(spec, keep)| SourceConfig { name: name.name, spec, keep }));
    }
    let mut repositories = Vec::new();
    for (name, section) in top.named_tables("repository") {
        check_name(reading, &name, "repository");
        repositories.extend(read_repository(section, &name.name, &folder));
    }
    top.close(|key| match key {
        "schedule" => Some(not_yet("[schedule]", "run `lastgood backup` from cron or a systemd timer")),
        "sources" | "repositories" => Some((
            format!("unknown key `{key}` at the top of the config"),
            format!("write [{}.NAME]", if key == "sources" { "source" } else { "repository" }),
        )),
        _ => None,
    });
    Config { file: None, app, rpo, policy, sources, repositories, settings: Vec::new() }
}

/// What to say of a key that is meant for later: refused, so that nobody relies upon it.
fn not_yet(what: &str, instead: &str) -> (String, String) {
    (format!("{what} is not acted upon by this version"), format!("remove it, so that nobody relies on it; {instead}"))
}

fn read_app(mut section: Section<'_>, default: impl Fn() -> String) -> (String, Option<Duration>) {
    let name = match section.text("name") {
        Some(found) => {
            if found.value.is_empty() || found.value.contains('/') || found.value.chars().any(char::is_control) {
                let hint = Some("it is used in selectors such as app:shop".to_owned());
                section.wrong(
                    &found.place,
                    "`app.name` must not be empty, and hold neither `/` nor control characters",
                    hint,
                );
            }
            found.value
        }
        None => {
            let app = default();
            section.default("name", &quoted(&app));
            app
        }
    };
    let rpo = read_span(&mut section, "rpo", "a span such as \"15m\", \"6h\" or \"1d\"");
    section.close(|key| match key {
        "rto" => Some(not_yet("`app.rto`", "`lastgood protect` tells how long its restore took")),
        _ => None,
    });
    (name, rpo)
}

/// A span that is not zero.
fn read_span(section: &mut Section<'_>, key: &'static str, want: &str) -> Option<Duration> {
    section.parsed(key, want, |text| parse_duration(text).filter(|span| !span.is_zero())).map(|found| found.value)
}

fn read_policy(mut section: Section<'_>) -> PolicyConfig {
    let mut count = |key| section.number(key, 100).map_or(0, |found| found.value);
    let policy = PolicyConfig {
        copies: count("copies"),
        media: count("media"),
        offsite: count("offsite"),
        immutable: count("immutable"),
        verified_within: read_span(&mut section, "verified_within", "a span such as \"30d\""),
    };
    section.close(|_| None);
    policy
}

fn check_name(reading: &Reading<'_>, key: &tree::Key, what: &str) {
    let name = &key.name;
    let message = if !is_safe_name(name.as_bytes()) || name.chars().any(char::is_control) {
        format!("{} cannot be the name of a {what}: it must be usable as the name of a folder", quoted(name))
    } else if name == Manifest::FOLDER {
        format!("{} cannot be the name of a {what}: it is lastgood's own folder", quoted(name))
    } else {
        return;
    };
    reading.wrong(&key.place, message, Some("use letters, digits, - and _".to_owned()));
}

pub(super) const KINDS: [(&str, &[&str]); 4] = [
    ("files", &["paths", "exclude", "exclude_files", "one_file_system", "exclude_caches", "exclude_larger_than"]),
    ("sqlite", &["path", "digest"]),
    ("postgres", postgres::KEYS),
    ("command", &["command", "file", "env", "cwd", "timeout"]),
];

/// Kinds of source that are meant for later.
const KINDS_LATER: [&str; 5] = ["mysql", "mongodb", "firestore", "bucket", "settings"];

fn read_source(mut section: Section<'_>, name: &str, folder: &Path) -> Option<(SourceSpec, Option<Policy>)> {
    let kind = section.text("kind");
    let Some(kind) = kind else {
        section.missing("kind", "\"files\"");
        return None;
    };
    let spec = match kind.value.as_str() {
        "files" => read_files(&mut section, folder),
        "sqlite" => read_sqlite(&mut section, folder),
        "postgres" => postgres::read(&mut section, folder).map(|spec| SourceSpec::Postgres(Box::new(spec))),
        "postgresql" => {
            section.wrong(&kind.place, "unknown kind of source \"postgresql\"", Some("write \"postgres\"".to_owned()));
            return None;
        }
        "command" => read_command(&mut section, folder),
        later if KINDS_LATER.contains(&later) => {
            let hint = "protect a dump of it meanwhile, with kind = \"command\"".to_owned();
            section.wrong(
                &kind.place,
                format!("sources of kind {} are not in this version", quoted(later)),
                Some(hint),
            );
            return None;
        }
        other => {
            let known = KINDS.iter().map(|(kind, _)| *kind);
            let hint = match nearest(other, known.clone()) {
                Some(kind) => format!("did you mean {}?", quoted(kind)),
                None => format!("known kinds: {}", known.collect::<Vec<_>>().join(", ")),
            };
            section.wrong(&kind.place, format!("unknown kind of source {}", quoted(other)), Some(hint));
            return None;
        }
    };
    let keep = keep::of_source(&mut section);
    section.close(|key| {
        let (other, _) = KINDS.iter().find(|(_, keys)| keys.contains(&key))?;
        // What is but a slip for a key of this kind gets its suggestion from the caller.
        let own = KINDS.iter().find(|(k, _)| *k == kind.value).map_or(&[][..], |(_, keys)| keys);
        let hint = match nearest(key, own.iter().copied()) {
            Some(word) => format!("did you mean `{word}`?"),
            None => format!("remove it, or make a source of kind {} of its own for it", quoted(other)),
        };
        Some((
            format!(
                "`{key}` belongs to sources of kind {}, but source {} is of kind {}",
                quoted(other),
                quoted(name),
                quoted(&kind.value)
            ),
            hint,
        ))
    });
    spec.map(|spec| (spec, keep))
}

fn read_files(section: &mut Section<'_>, folder: &Path) -> Option<SourceSpec> {
    let paths = section.list("paths", Show::All);
    let exclude = section.list("exclude", Show::All).map(|f| f.value).unwrap_or_default();
    let exclude_files = section.list("exclude_files", Show::All).map(|f| f.value).unwrap_or_default();
    let one_file_system = section.flag("one_file_system");
    let exclude_caches = section.flag("exclude_caches");
    let larger = section.parsed("exclude_larger_than", "a size such as \"1GiB\" or \"500MB\"", parse_size);
    let Some(paths) = paths else {
        section.missing("paths", "[\"/srv/app/uploads\"]");
        return None;
    };
    paths.value.iter().for_each(|path| refuse_tilde(section, path, &paths.place));
    if paths.value.is_empty() {
        section.wrong(&paths.place, format!("`{}` names nothing", section.path_of("paths")), None);
    }
    Some(SourceSpec::Files {
        paths: paths.value.iter().map(|p| folder.join(p)).map(tidied).map(without_upwards).collect(),
        exclude,
        exclude_files: exclude_files.iter().map(|p| folder.join(p)).map(tidied).collect(),
        one_file_system,
        exclude_caches,
        exclude_larger_than: larger.map(|f| f.value),
    })
}

/// Shells expand `~`; here it would be a folder of that name.
pub(super) fn refuse_tilde(section: &Section<'_>, path: &str, place: &Written) {
    if path == "~" || path.starts_with("~/") {
        section.wrong(
            place,
            format!("`~` is not expanded in {}", quoted(path)),
            Some("write the whole path".to_owned()),
        );
    }
}

fn read_sqlite(section: &mut Section<'_>, folder: &Path) -> Option<SourceSpec> {
    let path = section.text("path");
    let choices = [("schema", Digest::Schema), ("image", Digest::Image), ("full", Digest::Full)];
    let digest = section.choice("digest", &choices).map(|f| f.value);
    let Some(path) = path else {
        section.missing("path", "\"/srv/app/app.db\"");
        return None;
    };
    refuse_tilde(section, &path.value, &path.place);
    if digest.is_none() {
        section.default("digest", "\"image\"");
    }
    Some(SourceSpec::Sqlite { path: tidied(folder.join(path.value)), digest: digest.unwrap_or_default() })
}

fn read_command(section: &mut Section<'_>, folder: &Path) -> Option<SourceSpec> {
    let argv = section.list("command", Show::FirstOnly);
    let file = section.text("file");
    let env = section.pairs("env");
    let cwd = section.text("cwd");
    let timeout = section.parsed("timeout", "a span such as \"10m\" or \"2h\"", parse_duration);
    if file.is_none() {
        section.default("file", "\"output\"");
    }
    let Some(argv) = argv else {
        section.missing("command", "[\"pg_dump\", \"--format=plain\", \"shop\"]");
        return None;
    };
    if argv.value.first().is_none_or(String::is_empty) {
        section.wrong(&argv.place, format!("`{}` names no program", section.path_of("command")), None);
    }
    if let Some(found) = file.as_ref().filter(|f| !is_safe_name(f.value.as_bytes())) {
        let message = format!("`{}` must be a plain file name, without `/`", section.path_of("file"));
        section.wrong(&found.place, message, None);
    }
    Some(SourceSpec::Command {
        argv: argv.value,
        file: file.map_or_else(|| "output".to_owned(), |f| f.value),
        env,
        cwd: cwd.map_or_else(|| folder.to_owned(), |f| tidied(folder.join(f.value))),
        timeout: timeout.map(|f| f.value),
    })
}

fn read_repository(mut section: Section<'_>, name: &str, folder: &Path) -> Option<RepositoryConfig> {
    let url = section.text("url");
    let key = section.table("key", Some(SECRET_HINT)).and_then(|key| read_secret(key, folder, SECRET_HINT));
    let choices = [
        ("fast", Compression::Fast),
        ("balanced", Compression::Balanced),
        ("max", Compression::Max),
        ("off", Compression::Off),
    ];
    let compression = section.choice("compression", &choices).map(|f| f.value);
    if compression.is_none() {
        section.default("compression", "\"balanced\"");
    }
    let place = match url {
        None => {
            section.missing("url", "\"/var/backups/app\"");
            None
        }
        Some(Found { value, place }) => match Place::parse(value.as_ref(), folder) {
            Ok(parsed) if parsed.holds_secret() => {
                let message = format!("`{}` must not hold a password itself", section.path_of("url"));
                let hint =
                    "leave it out there, and write password = { file = \"path\" } or { env = \"VARIABLE\" } beside it";
                section.wrong_secret(&place, message, Some(hint.to_owned()));
                None
            }
            Ok(parsed) => Some(parsed),
            Err(error) => {
                let message = format!("`{}`: {}", section.path_of("url"), error.chain());
                // What is wrong may be what stands around a password.
                match value.contains('@') {
                    true => section.wrong_secret(&place, message, error.hint().map(str::to_owned)),
                    false => section.wrong(&place, message, error.hint().map(str::to_owned)),
                }
                None
            }
        },
    };
    let keep = keep::of_repository(&mut section);
    let offsite = section.maybe("offsite");
    let quota_bytes = section.parsed("quota", "a size such as \"500GB\"", parse_size).map(|found| found.value);
    let access = access::read(&mut section, place.as_ref(), folder);
    let is_local = place.as_ref().is_some_and(|place| place.folder().is_some());
    section.close(|key| match key {
        "password_file" | "key_file" => Some((format!("unknown key `{key}`"), SECRET_HINT.to_owned())),
        "password" if is_local => Some((format!("unknown key `{key}`"), SECRET_HINT.to_owned())),
        _ if SECRET_NAMES.iter().chain(access::SETTINGS).chain(&access::OTHERS).any(|name| *name == key) => Some((
            format!("`{key}` means nothing for a repository at such a `url`"),
            "remove it, or correct `url`".to_owned(),
        )),
        _ => None,
    });
    place.map(|place| RepositoryConfig {
        name: name.to_owned(),
        place: place.with_access(access),
        key,
        compression: compression.unwrap_or_default(),
        keep,
        offsite,
        quota_bytes,
    })
}

const SECRET_HINT: &str = "write key = { file = \"path\" }, { env = \"VARIABLE\" }, { command = [\"program\", …] } or { systemd = \"credential\" }";

/// Where a secret is. `hint` says how that is written.
pub(super) fn read_secret(mut section: Section<'_>, folder: &Path, hint: &str) -> Option<SecretRef> {
    let place = section.place.clone();
    let mut ways = Vec::new();
    if let Some(file) = section.text("file") {
        refuse_tilde(&section, &file.value, &file.place);
        ways.push(SecretRef::File(tidied(folder.join(file.value))));
    }
    ways.extend(section.text("env").map(|f| SecretRef::Env(f.value)));
    ways.extend(section.list("command", Show::FirstOnly).map(|f| SecretRef::Command(f.value)));
    ways.extend(section.text("systemd").map(|f| SecretRef::Systemd(f.value)));
    if ways.len() > 1 {
        section.wrong(
            &place,
            format!("`{}` names more than one way to the secret", section.path),
            Some(hint.to_owned()),
        );
    } else if ways.is_empty() {
        section.wrong(&place, format!("`{}` does not say where the secret is", section.path), Some(hint.to_owned()));
    }
    section.close(|_| None);
    ways.into_iter().next()
}

/// Without `.` components, so that paths read as people write them.
pub(super) fn tidied(path: PathBuf) -> PathBuf {
    path.components().filter(|c| *c != std::path::Component::CurDir).collect()
}

/// A path with `..` as one without. What is behind a `..` depends on the links before it, so the system is asked; where
/// nothing is there to ask about, the path stays as it is and the source refuses it.
fn without_upwards(path: PathBuf) -> PathBuf {
    use std::path::Component::ParentDir;
    let parts: Vec<_> = path.components().collect();
    let Some(last) = parts.iter().rposition(|part| *part == ParentDir) else { return path };
    let above: PathBuf = parts[..=last].iter().collect();
    match fs_err::canonicalize(above) {
        Ok(real) => real.join(parts[last + 1..].iter().collect::<PathBuf>()),
        Err(_) => path,
    }
}
