//! `init`: the repository, and the key file when there is none.

use crate::args::Init;
use crate::config::{SecretRef, secret};
use crate::errors::{Failure, Outcome};
use crate::exit_code::ExitCode;
use crate::output::{json, object};
use crate::run::{Chosen, Run};
use crate::wiring;
use lastgood_model::{Error, ErrorKind, Result};
use lastgood_repo::Repository;
use std::path::{Path, PathBuf};

pub(super) fn run(run: &Run, args: &Init) -> Outcome {
    let config = run.config()?;
    let mut all = run.repositories(config.as_ref())?;
    let origin = match &args.copy_of {
        Some(text) => Some(run.other(text, config.as_ref(), args.from_key_file.as_deref())?),
        None => None,
    };
    if let Some(origin) = &origin {
        all.retain(|chosen| !chosen.place.is_where(&origin.place));
        if all.is_empty() {
            return Err(Error::invalid("nothing says which repository is to be made")
                .with_hint("name it with --repo, or add a [repository.NAME] section for it")
                .into());
        }
    }
    let like = origin.as_ref().map(|origin| run.open_named(origin)).transpose()?;
    let single = all.len() == 1;
    let mut made = Vec::new();
    let mut code = ExitCode::Ok;
    for chosen in &all {
        match make(run, chosen, like.as_deref(), args.dry_run) {
            Ok(outcome) => made.push((chosen, outcome)),
            Err(error) if single => return Err(error.into()),
            Err(error) => {
                let failure =
                    Failure::Error(error.context(format!("make repository {}", chosen.name.as_deref().unwrap_or("?"))));
                code = code.or(failure.exit_code());
                failure.tell(&run.out, None);
            }
        }
    }
    let mut list = if run.out.is_human() || single {
        None
    } else {
        Some(run.out.list("lastgood.inits", "lastgood.init", "repositories", object([]))?)
    };
    for (chosen, outcome) in made {
        let fields = object([
            ("repository", chosen.place.to_string().into()),
            ("id", json(&outcome.id)),
            ("key_file", json(&outcome.key_made)),
            ("copy_of", json(&origin.as_ref().map(|origin| origin.place.to_string()))),
            ("dry_run", args.dry_run.into()),
        ]);
        if let Some(list) = &mut list {
            list.item(|| fields, || None)?;
        } else if !run.out.is_human() {
            let mut fields = fields;
            fields.extend(object([("type", "lastgood.init".into()), ("schema", 1.into())]));
            run.out.object(&fields)?;
        } else {
            tell(run, chosen, &outcome, args.dry_run)?;
            if let Some(origin) = &origin {
                run.out.line(format!(
                    "It shares the master key of {}: copies between the two move as they are sealed, and whoever gets hold of \
                     the key of either can read both",
                    origin.place
                ))?;
            }
        }
    }
    if let Some(list) = list {
        list.end(object([]))?;
    }
    Ok(code)
}

fn tell(run: &Run, chosen: &Chosen, outcome: &Made, dry_run: bool) -> Result<()> {
    let (made, key_made) = if dry_run { ("Would make", "would be made") } else { ("Made", "was made") };
    run.out.line(format!("{made} a repository at {}", chosen.place))?;
    if let Some(key) = &outcome.key_made {
        run.out.line(format!("Its key {key_made}: {}", key.display()))?;
        run.out.line(KEY_WARNING)?;
    }
    Ok(())
}

/// What everybody has to be told once.
pub(super) const KEY_WARNING: &str = "Without this key nobody can read the backups, not even you. Copy it to another place now, such as a password manager.";

/// What was made.
pub(super) struct Made {
    id: Option<lastgood_model::Id>,
    /// The key file, when it was made, too.
    pub(super) key_made: Option<PathBuf>,
}

/// Makes a repository, and its key file unless that exists; with the master key of `like` when there is one.
pub(super) fn make(run: &Run, chosen: &Chosen, like: Option<&Repository>, dry_run: bool) -> Result<Made> {
    let key = chosen.key()?;
    if let Some(folder) = chosen.place.folder() {
        if folder.join("config").exists() {
            return Err(Error::new(ErrorKind::Conflict, format!("there is a repository at {} already", chosen.place))
                .with_hint("use it as it is, or choose another place"));
        }
        wiring::refuse_foreign_folder(folder)?;
    }
    let store = chosen.place.store(&run.monitor())?;
    // One that has only lost its config gets no new key beside it.
    Repository::exists(&*store)?;
    let new_key = missing_key_file(key);
    if dry_run {
        return Ok(Made { id: None, key_made: new_key });
    }
    let password = match &new_key {
        Some(path) => secret::generate(path)?,
        None => key.resolve()?,
    };
    let repository = match like {
        Some(like) => Repository::init_copy_of(like, store, &password, run.open_options())?,
        None => Repository::init(store, &password, run.open_options())?,
    };
    Ok(Made { id: Some(repository.id()), key_made: new_key })
}

/// The key file, when that is where the key is to be and there is none.
pub(super) fn missing_key_file(key: &SecretRef) -> Option<PathBuf> {
    let SecretRef::File(path) = key else { return None };
    is_missing(path).then(|| path.clone())
}

/// True when there is nothing at all by that name.
pub(super) fn is_missing(path: &Path) -> bool {
    fs_err::symlink_metadata(path).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
}
