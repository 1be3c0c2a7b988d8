//! The rules of retention against restic's own, on snapshots with random dates and tags.

use crate::forge::Forge;
use lastgood_model::retention::{Point, Policies, Policy, Reason, Request, Span, Unit, plan};
use lastgood_model::store::ObjectKind;
use lastgood_model::{Id, SnapshotId, Time};
use lastgood_repo::crypto::Password;
use lastgood_repo::{OpenOptions, Repository};
use lastgood_stores::LocalStore;
use lastgood_testkit::restic::Restic;
use lastgood_testkit::rng::Rng;
use std::collections::BTreeSet;
use std::sync::Arc;

const ROUNDS: u64 = 14;
/// 2026-05-14T12:00:00Z: no month back from there is shorter, which restic and calendars see differently.
const NEWEST: i64 = 1_778_760_000;
const UNITS: [(Unit, &str); 5] = [
    (Unit::Hour, "hourly"),
    (Unit::Day, "daily"),
    (Unit::Week, "weekly"),
    (Unit::Month, "monthly"),
    (Unit::Year, "yearly"),
];

#[test]
fn every_rule_that_restic_has_keeps_what_restic_keeps() {
    let (mut kept, mut all) = (0, 0);
    for seed in 0..ROUNDS {
        let (more_kept, more) = round(seed);
        (kept, all) = (kept + more_kept, all + more);
    }
    assert!((all / 10..all * 9 / 10).contains(&kept), "{kept} of {all} tell little");
}

/// How many of how many points stay by both.
fn round(seed: u64) -> (usize, usize) {
    let mut rng = Rng::new(seed);
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(LocalStore::new(dir.path().join("repo")).unwrap());
    let password = Password::generate().unwrap();
    fs_err::write(dir.path().join("password"), password.reveal()).unwrap();
    Repository::init(store.clone(), &password, OpenOptions::default()).unwrap();
    let forge = Forge::new(store, &password);
    let gap_max = [7200, 100_000, 2_000_000][seed as usize % 3];
    let mut points = Vec::new();
    let mut secs = NEWEST;
    for _ in 0..50 {
        let tags: Vec<String> = ["a", "b"].iter().filter(|_| rng.below(4) == 0).map(|tag| (*tag).to_owned()).collect();
        let json = format!(
            r#"{{"time":"{}","tree":"{}","paths":["/p"],"hostname":"h","tags":{}}}"#,
            Time::new(secs, 0),
            Id([1; 32]),
            serde_json::to_string(&tags).unwrap()
        );
        let id = SnapshotId(forge.put_sealed(ObjectKind::Snapshot, json.as_bytes()).id);
        points.push(Point {
            id,
            time: Time::new(secs, 0),
            app: "shop".into(),
            tags,
            sources: Vec::new(),
            complete: true,
            damaged: false,
            bytes: None,
            files: None,
            absent_at: None,
        });
        secs -= 1 + rng.below(gap_max) as i64;
    }
    let (policy, flags) = random_policy(&mut rng);
    let restic = Restic::newest(dir.path().join("repo"), dir.path().join("password"));
    let mut command = restic.command();
    command.args(["forget", "--dry-run", "--json", "--no-lock", "--group-by", ""]).args(&flags).env("TZ", "UTC");
    let output = command.output().unwrap();
    assert!(output.status.success(), "{flags:?}: {}", String::from_utf8_lossy(&output.stderr));
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let kept_by_restic: BTreeSet<String> = answer[0]["keep"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|snapshot| snapshot["id"].as_str().unwrap().to_owned())
        .collect();

    let policies = Policies::all(policy);
    let decided = plan(&Request {
        points: &points,
        policies: &policies,
        holds: &[],
        zone: &jiff::tz::TimeZone::UTC,
        now: Time::new(NEWEST + 60, 0),
        named: None,
        even_last_good: false,
    });
    // The last good one stays here also where restic would let it go.
    let by_rule = |reasons: &[Reason]| reasons.iter().any(|reason| *reason != Reason::LastGood);
    let kept: BTreeSet<String> =
        decided.verdicts().filter(|v| v.keep && by_rule(&v.reasons)).map(|v| v.id.to_string()).collect();
    assert_eq!(kept, kept_by_restic, "seed {seed}: {flags:?}");
    (kept.len(), points.len())
}

/// At least one rule, and what restic calls it.
fn random_policy(rng: &mut Rng) -> (Policy, Vec<String>) {
    let (mut policy, mut flags) = (Policy::default(), Vec::new());
    while flags.is_empty() {
        if rng.below(3) == 0 {
            policy.last = 1 + rng.below(5) as u32;
            flags.push(format!("--keep-last={}", policy.last));
        }
        for (unit, name) in UNITS {
            if rng.below(3) == 0 {
                let count = 1 + rng.below(6) as u32;
                policy.counts.insert(unit, count);
                flags.push(format!("--keep-{name}={count}"));
            }
            if rng.below(6) == 0 {
                let span = random_span(rng);
                policy.within_each.insert(unit, span);
                flags.push(format!("--keep-within-{name}={}", restics(span)));
            }
        }
        if rng.below(4) == 0 {
            let span = random_span(rng);
            policy.within = Some(span);
            flags.push(format!("--keep-within={}", restics(span)));
        }
        if rng.below(3) == 0 {
            policy.tags.push(["a", "a,b"][rng.below(2) as usize].to_owned());
            flags.push(format!("--keep-tag={}", policy.tags[0]));
        }
    }
    (policy, flags)
}

fn random_span(rng: &mut Rng) -> Span {
    Span {
        years: rng.below(2) as u16,
        months: rng.below(4) as u16,
        days: rng.below(20) as u32,
        hours: 1 + rng.below(30) as u32,
    }
}

fn restics(span: Span) -> String {
    format!("{}y{}m{}d{}h", span.years, span.months, span.days, span.hours)
}
