//! `config check`, `config show`, `config schema`.

use super::findings::Findings;
use crate::args::ConfigCommand;
use crate::config::{Config, RepositoryConfig, SecretRef, schema};
use crate::errors::Outcome;
use crate::exit_code::ExitCode;
use crate::output::{json, object};
use crate::run::Run;
use crate::wiring;
use lastgood_model::Result;
use lastgood_repo::Repository;
use std::path::{Path, PathBuf};

pub(super) fn run(run: &Run, command: &ConfigCommand) -> Outcome {
    match command {
        ConfigCommand::Schema => {
            run.out.line(format!("{:#}", schema::json()))?;
            Ok(ExitCode::Ok)
        }
        ConfigCommand::Show => {
            show(run, &run.need_config()?)?;
            Ok(ExitCode::Ok)
        }
        ConfigCommand::Check => {
            let config = run.need_config()?;
            let mut findings = Findings::default();
            findings.ok("config", format!("{} can be used", file(&config)));
            examine(&config, Some(run), &mut findings);
            Ok(findings.tell(run, "lastgood.config-check", ExitCode::Usage)?)
        }
    }
}

/// Where the config is, in words.
pub(super) fn file(config: &Config) -> String {
    match &config.file {
        Some(path) => path.display().to_string(),
        None => "the config in environment variables".to_owned(),
    }
}

/// Looks at every source and every key of a config, and with `run` at every repository's place, too.
pub(super) fn examine(config: &Config, run: Option<&Run>, findings: &mut Findings) {
    if config.sources.is_empty() {
        findings.failure(
            "sources",
            "there is nothing to protect",
            Some("add a [source.NAME] section, or use `lastgood protect PATH…`"),
        );
    }
    let places = config.repositories.iter().filter_map(|r| r.place.folder().map(PathBuf::from));
    let keys = config.repositories.iter().filter_map(|r| r.key.as_ref()?.file());
    let never: Vec<PathBuf> = places.chain(keys).collect();
    for source in &config.sources {
        let about = format!("source {}", source.name);
        match wiring::source_of(config, source, &never).and_then(|source| source.examine()) {
            Ok(found) => findings.extend(&about, found),
            Err(error) => findings.error(&about, &error),
        }
    }
    if config.repositories.is_empty() {
        findings.failure(
            "repositories",
            "there is no repository to back up into",
            Some("add a [repository.NAME] section with `url` and `key`"),
        );
    }
    for repository in &config.repositories {
        let about = format!("repository {}", repository.name);
        let has_key = examine_key(repository, &about, findings);
        if let Some(run) = run {
            place(run, repository, has_key, &about, findings);
        }
    }
}

/// Looks at a repository's key; true when it is there.
fn examine_key(repository: &RepositoryConfig, about: &str, findings: &mut Findings) -> bool {
    let Some(key) = &repository.key else {
        findings.warning(
            about,
            "the config does not say where its key is",
            "add `key = { file = \"…\" }`, or name it in every run",
        );
        return false;
    };
    let resolved = key.resolve();
    match &resolved {
        Ok(password) => {
            findings.ok(about, format!("the key is there: {}", key.describe()));
            if !password.is_generated() {
                findings.warning(
                    about,
                    "the key is a password that a person chose, so every run takes about half a second longer to open the repository",
                    "`lastgood key add FILE` adds a generated one",
                );
            }
        }
        Err(_) if is_to_be_made(repository, key) => {
            let message = format!("its key is not there yet: {}", key.describe());
            findings.warning(about, message, "`lastgood init` makes it, and the repository with it");
        }
        Err(error) => findings.error(about, error),
    }
    if let Some((message, hint)) = key.exposure() {
        findings.warning(about, message, hint);
    }
    resolved.is_ok()
}

/// Looks whether a repository of a config is there. `has_key` is true when its key is.
fn place(run: &Run, repository: &RepositoryConfig, has_key: bool, about: &str, findings: &mut Findings) {
    let place = &repository.place;
    match place.store(&run.monitor()).and_then(|store| Repository::exists(&*store)) {
        Ok(true) => findings.ok(about, format!("there is a repository at {place}")),
        Ok(false) => {
            // With its key there, most likely there was one.
            let hint = if has_key { place.hint_of_absence(true) } else { None };
            let hint = hint.unwrap_or_else(|| "`lastgood init` makes it, and its key file with it".to_owned());
            findings.warning(about, format!("there is no repository at {place} yet: nothing can be backed up"), hint);
        }
        Err(error) => findings.error(about, &error),
    }
}

/// True when neither a repository nor its key file was made yet.
fn is_to_be_made(repository: &RepositoryConfig, key: &SecretRef) -> bool {
    let is_empty = |folder: &Path| fs_err::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none());
    let is_absent = |folder: &Path| super::init::is_missing(folder) || is_empty(folder);
    super::init::missing_key_file(key).is_some() && repository.place.folder().is_some_and(is_absent)
}

fn show(run: &Run, config: &Config) -> Result<()> {
    if !run.out.is_human() {
        let head = object([("file", json(&config.file)), ("app", config.app.as_str().into())]);
        let mut list = run.out.list("lastgood.config", "lastgood.setting", "settings", head)?;
        for setting in &config.settings {
            let fields = object([
                ("key", setting.key.as_str().into()),
                ("value", setting.value.as_str().into()),
                ("origin", setting.origin.as_str().into()),
            ]);
            list.item(|| fields, || None)?;
        }
        return list.end(object([]));
    }
    run.out.line(format!("# {}; secrets are not shown", file(config)))?;
    let mut section = String::new();
    for setting in sorted(config) {
        let (table, key) = setting.key.rsplit_once('.').unwrap_or(("", &setting.key));
        // `key`, `url` and `env` are tables inside a section; in one line they read as people write them.
        let (table, key) = match table.rsplit_once('.') {
            Some((outer, inner @ ("key" | "env" | "url"))) if outer.contains('.') => (outer, format!("{inner}.{key}")),
            _ => (table, key.to_owned()),
        };
        if table != section {
            run.out.line(format!("\n[{table}]"))?;
            section = table.to_owned();
        }
        let line = format!("{key} = {}", setting.value);
        run.out.line(format!("{line:<60} # {}", setting.origin))?;
    }
    Ok(())
}

/// Settings with those of one section together.
fn sorted(config: &Config) -> Vec<&crate::config::Setting> {
    let section = |key: &str| key.split('.').take(2).collect::<Vec<_>>().join(".");
    let mut order: Vec<String> = Vec::new();
    for setting in &config.settings {
        let section = section(&setting.key);
        if !order.contains(&section) {
            order.push(section);
        }
    }
    let mut settings: Vec<_> = config.settings.iter().collect();
    settings.sort_by_key(|s| order.iter().position(|o| *o == section(&s.key)));
    settings
}
