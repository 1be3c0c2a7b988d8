//! A command that looks at every repository: one after the other, each with its own verdict.

use crate::errors::{Failure, Outcome};
use crate::exit_code::ExitCode;
use crate::output::{List, object};
use crate::run::Run;
use lastgood_model::Result;
use lastgood_repo::Repository;
use serde::Serialize;
use serde_json::Value;
use std::sync::Arc;

/// Where a verdict for programs goes: a document of its own, or an item of the list of all.
pub(super) struct Told<'o> {
    run: &'o Run,
    list: Option<List<'o>>,
    /// Where the repository at hand is.
    place: String,
}

impl Told<'_> {
    /// Hands over a verdict.
    pub(super) fn object(&mut self, verdict: &impl Serialize) -> Result<()> {
        let Some(list) = &mut self.list else { return self.run.out.object(verdict) };
        let mut fields = match crate::output::json(verdict) {
            Value::Object(fields) => fields,
            _ => serde_json::Map::new(),
        };
        fields.insert("repository".into(), self.place.as_str().into());
        list.item(|| fields, || None)
    }
}

/// Calls `look` for every repository that is meant. One that cannot be looked at does not keep it from the others.
pub(super) fn over_all(
    run: &Run,
    list_type: &'static str,
    item_type: &'static str,
    look: impl Fn(&Arc<Repository>, Option<&str>, &mut Told<'_>) -> Result<ExitCode>,
) -> Outcome {
    let config = run.config()?;
    let app = config.as_ref().map(|config| config.app.as_str());
    let all = run.repositories(config.as_ref())?;
    if let [chosen] = all.as_slice() {
        let repository = run.open(chosen)?;
        return Ok(look(&repository, app, &mut Told { run, list: None, place: String::new() })?);
    }
    let list = match run.out.is_human() {
        true => None,
        false => Some(run.out.list(list_type, item_type, "repositories", object([]))?),
    };
    let mut told = Told { run, list, place: String::new() };
    let mut code = ExitCode::Ok;
    for chosen in &all {
        if run.stop.is_stopped() {
            code = code.or(ExitCode::Interrupted);
            break;
        }
        told.place = chosen.place.to_string();
        if run.out.is_human() {
            run.out.line(format!("{}: {}", chosen.word(), chosen.place))?;
        }
        match run.open(chosen).and_then(|repository| look(&repository, app, &mut told)) {
            Ok(one) => code = code.or(one),
            Err(error) => {
                let failure = Failure::Error(error.context(format!("look at {}", chosen.describe())));
                code = code.or(failure.exit_code());
                match &mut told.list {
                    Some(list) => {
                        let mut fields = failure.object(None);
                        fields.insert("repository".into(), chosen.place.to_string().into());
                        list.item(|| fields, || None)?;
                    }
                    None => failure.tell(&run.out, None),
                }
            }
        }
    }
    if let Some(list) = told.list {
        list.end(object([("exit_code", code.number().into())]))?;
    }
    Ok(code)
}
