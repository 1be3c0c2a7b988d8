//! `copy`: recovery points into another repository.

use crate::args::CopyPoints;
use crate::errors::Outcome;
use crate::exit_code::ExitCode;
use crate::output::{json, object};
use crate::run::{Chosen, Run};
use crate::text;
use lastgood_model::selector::Selector;
use lastgood_model::{Error, Result, SnapshotId};
use lastgood_ops::copy::chosen as choose;
use lastgood_repo::Repository;
use lastgood_repo::copy::{CopyOptions, CopyReport, PointState, copy};
use serde_json::{Map, Value};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Points told one by one.
const TOLD_MAX: usize = 20;

pub(super) fn run(run: &Run, args: &CopyPoints) -> Outcome {
    if run.global.repo.is_some() {
        return Err(Error::invalid("--repo means nothing here")
            .with_hint("name both repositories: lastgood copy FROM TO")
            .into());
    }
    let config = run.config()?;
    let from = run.other(&args.from, config.as_ref(), args.from_key_file.as_deref())?;
    let to = run.other(&args.to, config.as_ref(), None)?;
    let selectors: Vec<Selector> = args.snapshots.iter().map(|text| text.parse()).collect::<Result<_>>()?;
    let target = run.open_named(&to)?;
    let source = run.open_named(&from)?;
    let app = config.as_ref().map(|config| config.app.as_str());
    let mut damaged: Vec<(SnapshotId, Error)> = Vec::new();
    let wanted = choose(&source, &selectors, app, |id, error| damaged.push((id, error)))?;
    let (report, took) = send(
        run,
        &source,
        &target,
        &wanted,
        CopyOptions { dry_run: args.dry_run, mend: args.mend, lock_wait: args.lock_wait },
    )?;
    if run.out.is_human() {
        tell(run, (&from, &to), &report, took)?;
    } else {
        let mut fields = fields(&from, &to, &report);
        let broken = damaged
            .iter()
            .map(|(id, error)| Value::Object(object([("id", json(id)), ("error", error.chain().into())])));
        fields.insert("damaged".into(), broken.collect::<Vec<_>>().into());
        fields.extend(object([("type", "lastgood.copy".into()), ("schema", 1.into())]));
        run.out.object(&fields)?;
    }
    for (id, error) in &damaged {
        run.out.note(format!("damaged: recovery point {} cannot be read: {}", id.short(), error.chain()));
    }
    let is_damaged = !damaged.is_empty() || report.count(PointState::Failed) > 0;
    Ok(if is_damaged { ExitCode::Damage } else { ExitCode::Ok })
}

/// Copies with progress shown.
pub(super) fn send(
    run: &Run,
    from: &Arc<Repository>,
    to: &Arc<Repository>,
    wanted: &[SnapshotId],
    options: CopyOptions,
) -> Result<(CopyReport, Duration)> {
    let monitor = run.monitor();
    let began = Instant::now();
    let progress = run.progress("Copying", &monitor);
    let outcome = copy(from, to, wanted, &monitor, options);
    drop(progress);
    Ok((outcome?, began.elapsed()))
}

/// For programs.
pub(super) fn fields(from: &Chosen, to: &Chosen, report: &CopyReport) -> Map<String, Value> {
    let mut fields = match json(report) {
        Value::Object(fields) => fields,
        _ => Map::new(),
    };
    fields.insert("from".into(), from.place.to_string().into());
    fields.insert("repository".into(), to.place.to_string().into());
    fields.insert("points_sent".into(), report.count(PointState::Sent).into());
    fields.insert("points_there".into(), report.count(PointState::There).into());
    fields.insert("points_failed".into(), report.count(PointState::Failed).into());
    fields
}

fn tell(run: &Run, (from, to): (&Chosen, &Chosen), report: &CopyReport, took: Duration) -> Result<()> {
    let sent = report.count(PointState::Sent);
    let there = text::counted(report.count(PointState::There) as u64, "recovery point");
    let points = text::counted(sent as u64, "recovery point");
    let what = match (sent, report.dry_run) {
        (0, _) => format!("Nothing to copy to {}: {there} there already", to.word()),
        (_, true) => format!("Would copy {points} from {} to {}; {there} there already", from.word(), to.word()),
        (_, false) => format!("Copied {points} from {} to {}; {there} there already", from.word(), to.word()),
    };
    run.out.line(what)?;
    for point in report.points.iter().filter(|point| point.state == PointState::Sent).rev().take(TOLD_MAX) {
        let id = match point.copy {
            Some(copy) if copy != point.snapshot => format!("{} as {}", point.snapshot.short(), copy.short()),
            _ => point.snapshot.short(),
        };
        run.out.line(format!("  {id}  {}", point.time.map(text::moment).unwrap_or_default()))?;
    }
    if sent > TOLD_MAX {
        run.out.line(format!("  and {} older", text::count((sent - TOLD_MAX) as u64)))?;
    }
    if sent > 0 || report.blobs > 0 {
        if sent == 0 {
            run.out.line(format!("Some of what {} had of them was lost there", to.word()))?;
        }
        run.out.line(traffic(report, took))?;
    }
    tell_failed(run, from, report)?;
    tell_mended(run, to, report)
}

/// How much was sent, in a line.
pub(super) fn traffic(report: &CopyReport, took: Duration) -> String {
    let how = match (report.same_key, report.packs_whole) {
        (true, 0) => ", as it was sealed".to_owned(),
        (true, packs) => format!(", {} of them whole", text::counted(packs, "pack")),
        (false, _) => ", sealed anew under the other key".to_owned(),
    };
    let sent = text::size(report.bytes);
    match report.dry_run {
        true => format!("To be sent: {sent} in {}.", text::counted(report.blobs, "blob")),
        false => format!("Sent {sent} in {}{how}, {}.", text::counted(report.blobs, "blob"), text::duration(took)),
    }
}

/// Points that could not be copied.
pub(super) fn tell_failed(run: &Run, from: &Chosen, report: &CopyReport) -> Result<()> {
    let failed = report.count(PointState::Failed);
    if failed == 0 {
        return Ok(());
    }
    run.out.line(format!("NOT copied: {}", text::counted(failed as u64, "recovery point")))?;
    for point in report.points.iter().filter(|point| point.state == PointState::Failed).take(TOLD_MAX) {
        let error = point.error.as_deref().unwrap_or_default();
        run.out.line(format!("  {}: {error}", point.snapshot.short()))?;
    }
    run.out.line(format!(
        "Next: `lastgood verify --repo {}` names all that is damaged there, and which recovery points are whole",
        from.word()
    ))
}

fn tell_mended(run: &Run, to: &Chosen, report: &CopyReport) -> Result<()> {
    let packs = text::counted(report.packs_adopted, "pack");
    if report.index_was_lost {
        run.out.line(format!(
            "WARNING: a part of the index of {} was damaged or gone. {} anew from {packs}. Look for the cause, such as a \
             failing disk, and run `lastgood check --repo {}`",
            to.word(),
            if report.dry_run { "The next copy or backup makes it" } else { "It was made" },
            to.word()
        ))?;
    } else if report.packs_adopted > 0 {
        run.out.note(format!(
            "note: {packs} that no index file listed, as an interrupted run leaves them, were taken over"
        ));
    }
    Ok(())
}
