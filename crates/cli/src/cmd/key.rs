//! `key`: who can open the repository.

use super::plan;
use crate::args::Key;
use crate::config::{SecretRef, nearest, secret};
use crate::errors::Outcome;
use crate::exit_code::ExitCode;
use crate::output::{json, object, table};
use crate::run::{Chosen, Run};
use crate::text;
use lastgood_model::node::display_path;
use lastgood_model::{Error, ErrorKind, Result, Time};
use lastgood_repo::Repository;
use lastgood_repo::crypto::Password;
use lastgood_repo::repository::KeyInfo;
use std::path::Path;

pub(super) fn run(run: &Run, command: Key) -> Outcome {
    match command {
        Key::Generate { file } => generate(run, &file)?,
        Key::List => {
            let (repository, _) = run.open_one()?;
            return Ok(list(run, &repository)?);
        }
        Key::Add { file } => {
            let config = run.config()?;
            let chosen = run.repository(config.as_ref())?;
            let repository = run.open(&chosen)?;
            add(run, &chosen, &repository, &file)?;
        }
        Key::Remove { id, yes } => {
            let (repository, _) = run.open_one()?;
            remove(run, &repository, &id, yes)?;
        }
    }
    Ok(ExitCode::Ok)
}

fn generate(run: &Run, file: &Path) -> Result<()> {
    secret::generate(file)?;
    if run.out.is_human() {
        run.out.line(format!("Made a key: {}", file.display()))?;
        return run.out.line(super::init::KEY_WARNING);
    }
    run.out.object(&object([("type", "lastgood.key-file".into()), ("schema", 1.into()), ("file", json(&file))]))
}

fn list(run: &Run, repository: &Repository) -> Result<ExitCode> {
    let keys = repository.keys()?;
    let damaged: Vec<&KeyInfo> = keys.iter().filter(|key| key.damaged.is_some()).collect();
    let code = if damaged.is_empty() { ExitCode::Ok } else { ExitCode::Damage };
    if run.out.is_human() {
        let rows = keys
            .iter()
            .map(|key| {
                if key.damaged.is_some() {
                    return vec![key.id.short(), String::new(), String::new(), "DAMAGED".to_owned()];
                }
                let created = Time::parse_rfc3339(&key.created).map_or_else(|| key.created.clone(), text::moment);
                let who = if key.username.is_empty() {
                    key.hostname.clone()
                } else {
                    format!("{}@{}", key.username, key.hostname)
                };
                let current = if key.current { "in use" } else { "" };
                vec![key.id.short(), created, display_path(who.as_bytes()), current.to_owned()]
            })
            .collect();
        run.out.line(table(&["ID", "MADE", "BY", ""], rows, &[]))?;
        for key in damaged {
            run.out.note(format!("damaged: key {}: {}", key.id.short(), key.damaged.as_deref().unwrap_or_default()));
            run.out.note(format!(
                "next: put the object keys/{} back from another copy of the repository; without one, `lastgood key remove {}` takes it away",
                key.id,
                key.id.short()
            ));
        }
        return Ok(code);
    }
    let mut list = run.out.list("lastgood.keys", "lastgood.key", "keys", object([]))?;
    for key in &keys {
        list.item(|| fields(key), || None)?;
    }
    list.end(object([]))?;
    Ok(code)
}

fn fields(key: &KeyInfo) -> serde_json::Map<String, serde_json::Value> {
    object([
        ("id", json(&key.id)),
        ("created", key.created.as_str().into()),
        ("user", key.username.as_str().into()),
        ("host", key.hostname.as_str().into()),
        ("current", key.current.into()),
        ("damaged", json(&key.damaged)),
    ])
}

fn add(run: &Run, chosen: &Chosen, repository: &Repository, file: &Path) -> Result<()> {
    let made = super::init::is_missing(file);
    let password = if made { secret::generate(file)? } else { SecretRef::File(file.to_owned()).resolve()? };
    if !made {
        refuse_blanks(&password, file)?;
        refuse_known(run, chosen, &password, file)?;
    }
    let id = repository.add_key(&password).inspect_err(|_| {
        // A key that opens nothing would only be taken for one that does.
        if made && let Err(error) = fs_err::remove_file(file) {
            tracing::warn!("the new key opens nothing, and its file stays: {error}");
        }
    })?;
    if run.out.is_human() {
        let how = if made { "a new key" } else { "the key" };
        return run.out.line(format!("Added {how} in {} as {}", file.display(), id.short()));
    }
    let fields = [
        ("type", "lastgood.key-added".into()),
        ("schema", 1.into()),
        ("id", json(&id)),
        ("file", json(&file)),
        ("made", made.into()),
    ];
    run.out.object(&object(fields))
}

/// restic drops spaces around a password that it reads from a file, so that such a key would open nothing there.
fn refuse_blanks(password: &Password, file: &Path) -> Result<()> {
    if !secret::has_blanks_around(password) {
        return Ok(());
    }
    Err(Error::invalid(format!("there are spaces before or after the key in {}", file.display()))
        .with_hint("remove them: they would count as part of the key, and nobody sees them"))
}

/// A second object for a key that opens the repository already would only be one to forget when the key is removed.
fn refuse_known(run: &Run, chosen: &Chosen, password: &Password, file: &Path) -> Result<()> {
    let known = match Repository::open(chosen.place.store(&run.monitor())?, password, run.open_options()) {
        Ok(known) => known,
        // Also when some key object is damaged: it cannot be told then, and one more does no harm.
        Err(error) if matches!(error.kind(), ErrorKind::WrongKey | ErrorKind::Corrupt) => return Ok(()),
        Err(error) => return Err(error),
    };
    let id = known.keys()?.into_iter().find(|key| key.current).map(|key| key.id.short()).unwrap_or_default();
    Err(Error::new(
        ErrorKind::Conflict,
        format!("the key in {} opens this repository already: it is {id}", file.display()),
    )
    .with_hint(
        "nothing was added; `lastgood key list` shows all keys, and a file that does not exist yet gets a new one",
    ))
}

fn remove(run: &Run, repository: &Repository, prefix: &str, yes: bool) -> Result<()> {
    let keys = repository.keys()?;
    let fitting: Vec<&KeyInfo> = keys.iter().filter(|key| key.id.to_string().starts_with(prefix)).collect();
    let key = match fitting.as_slice() {
        [key] if !prefix.is_empty() => key,
        [] => {
            let ids: Vec<String> = keys.iter().map(|key| key.id.short()).collect();
            let hint = match nearest(prefix, ids.iter().map(String::as_str)) {
                Some(id) => format!("did you mean {id}?"),
                None => format!("the repository has: {}", ids.join(", ")),
            };
            return Err(Error::new(ErrorKind::Absent, format!("there is no key {prefix:?}")).with_hint(hint));
        }
        _ => {
            return Err(Error::invalid(format!("{prefix:?} fits {} keys", fitting.len()))
                .with_hint("give more digits of the id"));
        }
    };
    if key.current {
        // Refused here, so that nobody is asked about what cannot be done.
        return repository.remove_key(key.id);
    }
    if run.out.is_human() {
        let plan = match &key.damaged {
            Some(_) => format!(
                "Plan: remove key {}, which is damaged and opens nothing; whoever has only that key needs another one, or \
                 this object from another copy of the repository",
                key.id.short()
            ),
            None => format!(
                "Plan: remove key {} made by {} on {}; whoever has only that key cannot open the repository any more",
                key.id.short(),
                display_path(key.username.as_bytes()),
                display_path(key.hostname.as_bytes())
            ),
        };
        run.out.line(plan)?;
    }
    plan::confirm(&run.out, yes, "Do it?")?;
    repository.remove_key(key.id)?;
    if run.out.is_human() {
        return run.out.line(format!("Removed key {}", key.id.short()));
    }
    run.out.object(&object([("type", "lastgood.key-removed".into()), ("schema", 1.into()), ("id", json(&key.id))]))
}
