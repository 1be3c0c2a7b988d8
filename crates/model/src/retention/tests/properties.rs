use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const YEARS_10: i64 = 10 * 366 * 86_400;
const ZONES: [&str; 6] =
    ["UTC", "Europe/Berlin", "Africa/Cairo", "America/Havana", "Australia/Lord_Howe", "America/St_Johns"];

fn any_span() -> impl Strategy<Value = Span> {
    (0u16..2, 0u16..4, 0u32..40, 0u32..50).prop_map(|(years, months, days, hours)| Span { years, months, days, hours })
}

fn any_policy() -> impl Strategy<Value = Policy> {
    let unit = prop::sample::select(Unit::ALL.to_vec());
    (
        prop_oneof![Just(0u32), 0u32..6],
        prop::collection::btree_map(unit.clone(), 0u32..6, 0..4),
        prop::option::of(any_span()),
        prop::collection::btree_map(unit, any_span(), 0..2),
        prop::sample::subsequence(vec!["a".to_owned(), "b".to_owned(), "a,b".to_owned()], 0..2),
    )
        .prop_map(|(last, counts, within, within_each, tags)| Policy { last, counts, within, within_each, tags })
}

fn any_points(count: usize) -> impl Strategy<Value = Vec<Point>> {
    // Gaps from seconds to months, so that periods of every kind are shared and left out.
    let gap = prop_oneof![0i64..90, 60i64..7200, 3600i64..200_000, 86_400i64..8_000_000];
    let one = (gap, 0u8..10, 0u8..8, 0u8..4);
    prop::collection::vec(one, 1..count).prop_map(|gaps| {
        let mut secs = NOW;
        let mut points = Vec::new();
        for (n, (gap, state, other_sources, tags)) in gaps.into_iter().enumerate() {
            secs -= gap;
            let mut point = point(n as u64 + 1, secs);
            match state {
                0 | 1 => point = incomplete(point, "db"),
                2 => point = incomplete(point, "files"),
                3 => point.damaged = true,
                _ => {}
            }
            if other_sources == 0 {
                point.sources.pop();
            }
            point.tags =
                ["a", "b"].iter().enumerate().filter(|(b, _)| tags & (1 << b) != 0).map(|(_, t)| (*t).into()).collect();
            points.push(point);
        }
        points
    })
}

fn asked(points: Vec<Point>, policies: Policies, zone_name: &str) -> Asked {
    Asked { policies, zone: zone(zone_name), ..Asked::new(points, Policy::default()) }
}

fn any_policies() -> impl Strategy<Value = Policies> {
    (any_policy(), prop::option::of(any_policy())).prop_map(|(repository, db)| Policies {
        repository,
        sources: db.map(|policy| ("db".to_owned(), policy)).into_iter().collect(),
    })
}

/// The same rules with some made to keep more.
fn widen(policy: &Policy, more: &Policy) -> Policy {
    let mut wide = policy.clone();
    // A policy without rules keeps everything: it has no more to give.
    if policy.is_empty() {
        return wide;
    }
    wide.last += more.last;
    for (unit, count) in &more.counts {
        *wide.counts.entry(*unit).or_default() += count;
    }
    let longer = |a: Span, b: Span| Span {
        years: a.years + b.years,
        months: a.months + b.months,
        days: a.days + b.days,
        hours: a.hours + b.hours,
    };
    wide.within = match (policy.within, more.within) {
        (Some(a), Some(b)) => Some(longer(a, b)),
        (a, b) => a.or(b),
    };
    for (unit, span) in &more.within_each {
        let known = wide.within_each.entry(*unit).or_default();
        *known = longer(*known, *span);
    }
    wide.tags.extend(more.tags.iter().cloned());
    wide
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn more_rules_never_let_a_point_go_that_fewer_keep(
        points in any_points(60), policies in any_policies(), more in any_policy(), zone in prop::sample::select(ZONES.to_vec())
    ) {
        let narrow = asked(points.clone(), policies.clone(), zone);
        let wide = Policies {
            repository: widen(&policies.repository, &more),
            sources: policies.sources.iter().map(|(name, policy)| (name.clone(), widen(policy, &more))).collect(),
        };
        let wide = asked(points, wide, zone);
        let (kept, kept_wide): (BTreeSet<u64>, BTreeSet<u64>) = (narrow.kept().into_iter().collect(), wide.kept().into_iter().collect());
        prop_assert!(kept.is_subset(&kept_wide), "lost {:?}", kept.difference(&kept_wide).collect::<Vec<_>>());
    }

    #[test]
    fn of_each_period_that_stays_the_newest_good_point_stays(
        points in any_points(60), zone_name in prop::sample::select(ZONES.to_vec()),
        unit in prop::sample::select(Unit::ALL.to_vec()), count in 1u32..8
    ) {
        let asked = asked(points, Policies::all(Policy::default().with(unit, count)), zone_name);
        for group in asked.plan().groups {
            // Naively: the newest good one of every period, newest periods first.
            let mut best: BTreeMap<Period, (crate::Time, u64)> = BTreeMap::new();
            let good = |n: u64| asked.points.iter().any(|p| p.id == id(n) && p.complete && !p.damaged);
            for verdict in &group.verdicts {
                if good(number(verdict.id)) {
                    let period = calendar::Civil::of(verdict.time, &asked.zone).period(unit);
                    let newest = best.entry(period).or_insert((verdict.time, number(verdict.id)));
                    *newest = (*newest).max((verdict.time, number(verdict.id)));
                }
            }
            let mut order: Vec<(crate::Time, u64)> = best.into_values().collect();
            order.sort_unstable_by_key(|key| std::cmp::Reverse(*key));
            for (_, n) in order.into_iter().take(count as usize) {
                prop_assert!(group.verdicts.iter().any(|v| v.id == id(n) && v.keep), "{n} goes");
            }
        }
    }

    #[test]
    fn what_was_done_once_finds_nothing_the_second_time(
        points in any_points(60), policies in any_policies(), zone in prop::sample::select(ZONES.to_vec())
    ) {
        let mut asked = asked(points, policies, zone);
        let kept: BTreeSet<u64> = asked.kept().into_iter().collect();
        asked.points.retain(|point| kept.contains(&number(point.id)));
        prop_assert_eq!(asked.plan().removals(), Vec::new());
    }

    #[test]
    fn there_is_always_a_good_point_left_and_every_point_says_why(
        points in any_points(40), policies in any_policies(), zone in prop::sample::select(ZONES.to_vec())
    ) {
        let asked = asked(points, policies, zone);
        for group in asked.plan().groups {
            let of = |v: &Verdict| asked.points.iter().find(|p| p.id == v.id).unwrap();
            let newest_good = group.verdicts.iter().find(|v| of(v).complete && !of(v).damaged);
            prop_assert!(newest_good.is_none_or(|v| v.keep));
            prop_assert!(group.verdicts.iter().all(|v| !v.reasons.is_empty()));
        }
    }

    /// An attacker who may add but not remove dates points around the good ones, so that rules would let those go.
    #[test]
    fn forged_dates_never_let_a_good_point_go(
        points in any_points(40), policies in any_policies(), zone in prop::sample::select(ZONES.to_vec()),
        dates in prop::collection::vec((-YEARS_10..YEARS_10, any::<bool>()), 1..60)
    ) {
        let before = asked(points.clone(), policies.clone(), zone);
        let mut all = points;
        for (n, (shift, near)) in dates.into_iter().enumerate() {
            // Near ones lie in the same periods as good ones, a moment later.
            let secs = if near { all[n % all.len()].time.secs + 1 + shift.rem_euclid(3000) } else { NOW + shift };
            let mut forged = point(10_000 + n as u64, secs);
            // Somebody has looked since: it was not there when its date was the present.
            forged.absent_at = Some(crate::Time::new(NOW.max(secs + LATE_SECS + 1), 0));
            all.push(forged);
        }
        let after = asked(all, policies, zone);
        let kept: BTreeSet<u64> = before.kept().into_iter().collect();
        let kept_after: BTreeSet<u64> = after.kept().into_iter().collect();
        prop_assert!(kept.is_subset(&kept_after), "lost {:?}", kept.difference(&kept_after).collect::<Vec<_>>());
    }

    /// The same without anybody who has looked before: dates in the future are known to be wrong by themselves.
    #[test]
    fn dates_in_the_future_never_let_a_good_point_go_and_are_doubted(
        points in any_points(40), policies in any_policies(), dates in prop::collection::vec(FUTURE_SECS + 1..YEARS_10, 1..40)
    ) {
        let before = asked(points.clone(), policies.clone(), "Europe/Berlin");
        let forged = dates.into_iter().enumerate().map(|(n, shift)| point(10_000 + n as u64, NOW + shift));
        let after = asked(points.into_iter().chain(forged).collect(), policies, "Europe/Berlin");
        let kept: BTreeSet<u64> = before.kept().into_iter().collect();
        let kept_after: BTreeSet<u64> = after.kept().into_iter().collect();
        prop_assert!(kept.is_subset(&kept_after), "lost {:?}", kept.difference(&kept_after).collect::<Vec<_>>());
        prop_assert!(!after.plan().doubts().is_empty());
    }
}
