//! A plan for people and for programs.

use crate::output::{json, object, table};
use crate::run::{Chosen, Run};
use crate::text;
use lastgood_model::Result;
use lastgood_model::retention::{Group, Reason, Verdict};
use lastgood_ops::forget::{ForgetPlan, groups};
use serde_json::{Map, Value};

/// The rules in words.
pub(super) fn rules(prepared: &ForgetPlan) -> String {
    let request = prepared.request();
    let own = request.policies.sources.iter().map(|(name, policy)| format!("; of {name}: {}", policy.describe()));
    format!("{}{}", request.policies.repository.describe(), own.collect::<String>())
}

/// The zone by name.
pub(super) fn zone(prepared: &ForgetPlan) -> String {
    prepared.request().zone.iana_name().map_or_else(|| "this machine".to_owned(), str::to_owned)
}

/// The plan as tables, a group after the other.
pub(super) fn plan(run: &Run, chosen: &Chosen, prepared: &ForgetPlan) -> Result<()> {
    let app = &prepared.request().app;
    let all = prepared.plan.verdicts().count();
    if all == 0 {
        return run.out.line(format!("There is no recovery point of {app} in {}", chosen.place));
    }
    match prepared.request().named {
        Some(_) => run.out.line(format!("{app} in {}: what is named goes", chosen.place))?,
        None => run.out.line(format!(
            "{app} in {}: keep {}; calendar of {}",
            chosen.place,
            rules(prepared),
            zone(prepared)
        ))?,
    }
    let several = prepared.plan.groups.len() > 1;
    for group in groups(&prepared.plan) {
        if several {
            run.out.line("")?;
            run.out.line(format!("Points of {}:", sources(group)))?;
        }
        let rows = group.verdicts.iter().map(row).collect();
        run.out.line(table(&["ID", "TIME", "", "WHY"], rows, &[]))?;
    }
    let goes = prepared.plan.removals().len();
    run.out.line("")?;
    run.out.line(format!("{goes} of {} would go, {} stay", text::counted(all as u64, "recovery point"), all - goes))
}

fn sources(group: &Group) -> String {
    if group.sources.is_empty() { "unknown sources".to_owned() } else { group.sources.join(", ") }
}

fn row(verdict: &Verdict) -> Vec<String> {
    let what = if verdict.keep { "stays" } else { "GOES" };
    vec![verdict.id.short(), text::moment(verdict.time), what.to_owned(), why(verdict)]
}

fn why(verdict: &Verdict) -> String {
    verdict.reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// What is beside the plan: holds that have run out, doubts that do not stand in the way, and what is no part of it.
pub(super) fn notes(run: &Run, prepared: &ForgetPlan) {
    for hold in &prepared.run_out {
        let until = hold.until.map_or_else(String::new, text::moment);
        run.out.note(format!(
            "note: the hold on {} ({}) ran out on {until} and counts no more; `lastgood hold remove {}` takes it off the list",
            hold.snapshot.short(),
            hold.reason,
            hold.snapshot.short()
        ));
    }
    if prepared.obstacles().is_empty() {
        for doubt in prepared.plan.doubts() {
            run.out.note(format!("warning: {doubt}"));
        }
    }
    for (id, error) in &prepared.points.damaged {
        run.out.note(format!("damaged: snapshot {} cannot be read and is left alone: {}", id.short(), error.chain()));
    }
    if prepared.points.others > 0 && prepared.request().named.is_none() {
        let others = text::counted(prepared.points.others as u64, "recovery point");
        tracing::info!("{others} of other applications or programs are left alone");
    }
}

/// Why named points stay all the same.
pub(super) fn refusals(prepared: &ForgetPlan) -> Vec<String> {
    let app = text::shell_word(&prepared.request().app);
    let refused = prepared.plan.verdicts().filter(|verdict| verdict.refused);
    refused
        .map(|verdict| {
            let held = verdict.reasons.iter().any(|reason| matches!(reason, Reason::Held { .. }));
            let id = verdict.id.short();
            let next = match held {
                true => format!("lift the hold first: `lastgood hold remove {id}`"),
                false => format!("to remove it all the same: --even-though {app}"),
            };
            format!("{id} is {}; {next}", why(verdict))
        })
        .collect()
}

/// The plan as data.
pub(super) fn fields(chosen: &Chosen, prepared: &ForgetPlan) -> Map<String, Value> {
    let request = prepared.request();
    let told = groups(&prepared.plan).map(|group| {
        let points = group.verdicts.iter().map(|verdict| {
            Value::Object(object([
                ("id", json(&verdict.id)),
                ("time", json(&verdict.time)),
                ("keep", verdict.keep.into()),
                ("reasons", verdict.reasons.iter().map(ToString::to_string).collect::<Vec<_>>().into()),
            ]))
        });
        Value::Object(object([
            ("sources", json(&group.sources)),
            ("doubts", group.doubts.iter().map(ToString::to_string).collect::<Vec<_>>().into()),
            ("points", points.collect::<Vec<_>>().into()),
        ]))
    });
    let obstacles: Vec<String> = prepared.obstacles().into_iter().chain(refusals(prepared)).collect();
    object([
        ("repository", chosen.place.to_string().into()),
        ("app", request.app.as_str().into()),
        ("rules", if request.named.is_some() { "named".into() } else { rules(prepared).into() }),
        ("time_zone", json(&request.zone.iana_name())),
        ("groups", told.collect::<Vec<_>>().into()),
        ("removals", json(&prepared.plan.removals())),
        ("refused", (!obstacles.is_empty()).into()),
        ("obstacles", obstacles.into()),
    ])
}
