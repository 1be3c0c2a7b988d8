use super::*;

const DAY: i64 = 86_400;

fn daily(count: u32) -> Policy {
    Policy::default().with(Unit::Day, count)
}

#[test]
fn each_point_says_why_it_stays_or_goes() {
    let mut points: Vec<Point> = [
        "2026-05-03T10:00:00Z",
        "2026-05-02T22:00:00Z",
        "2026-05-02T10:00:00Z",
        "2026-05-01T10:00:00Z",
        "2026-04-30T10:00:00Z",
    ]
    .iter()
    .enumerate()
    .map(|(n, text)| Point { time: at(text), ..point(n as u64 + 1, 0) })
    .collect();
    points[4].tags.push("release".into());
    let asked = Asked::new(points, Policy { tags: vec!["release".into()], ..daily(2) });
    assert_eq!(asked.kept(), [1, 2, 5]);
    assert_eq!(asked.why(1), ["daily 1 of 2: 2026-05-03", "last good"]);
    assert_eq!(asked.why(2), ["daily 2 of 2: 2026-05-02"]);
    assert_eq!(asked.why(3), [format!("daily: 2026-05-02 has {}", id(2).short())]);
    assert_eq!(asked.why(4), ["daily: older than its 2"]);
    assert_eq!(asked.why(5), ["tag release"]);
}

#[test]
fn without_rules_everything_stays() {
    let asked = Asked::new(row(5, 60), Policy::default());
    assert_eq!(asked.kept().len(), 5);
    assert_eq!(asked.why(3), ["no rule says what to keep"]);
}

#[test]
fn an_incomplete_point_takes_no_complete_ones_place() {
    // Two a day; the later of each day is incomplete.
    let points: Vec<Point> = row(20, DAY / 2)
        .into_iter()
        .map(|p| if (NOW - p.time.secs) / (DAY / 2) % 2 == 0 { incomplete(p, "db") } else { p })
        .collect();
    let kept = Asked::new(points, daily(3)).plan();
    let stays: Vec<&Verdict> = kept.verdicts().filter(|v| v.keep).collect();
    let whole = |v: &&&Verdict| number(v.id).is_multiple_of(2);
    assert_eq!(stays.iter().filter(whole).count(), 3, "{stays:#?}");
    // Where a period has nothing else, an incomplete one is better than none, and does not use up the counts.
    let mut points = row(6, DAY);
    points[0] = incomplete(points[0].clone(), "db");
    points[1] = incomplete(points[1].clone(), "db");
    assert_eq!(Asked::new(points, daily(2)).kept(), [1, 2, 3, 4]);
}

#[test]
fn the_last_good_point_of_each_group_stays_whatever_the_rules_say() {
    let mut points = row(4, DAY);
    points[0] = incomplete(points[0].clone(), "db");
    points[1] = incomplete(points[1].clone(), "db");
    points[2].damaged = true;
    let mut other = point(9, NOW - 900 * DAY);
    other.sources.pop();
    points.push(other);
    let none_fits = Policy { tags: vec!["none".into()], ..Policy::default() };
    let asked = Asked::new(points, none_fits);
    // 1 is the last with all of `files`, 3 cannot be read, 4 is complete, 9 is another group's.
    assert_eq!(asked.kept(), [1, 3, 4, 9]);
    assert_eq!(asked.why(4), ["last good"]);
    assert_eq!(asked.why(1), ["last with all of files"]);
    assert_eq!(asked.why(2), ["has none of the tags"]);
    assert_eq!(asked.why(3), ["cannot be read, so no rule removes it"]);
}

#[test]
fn a_source_with_rules_of_its_own_keeps_what_it_wants() {
    let mut asked = Asked::new(row(10, DAY), daily(2));
    asked.policies.sources.insert("db".into(), daily(4));
    assert_eq!(asked.kept(), [1, 2, 3, 4]);
    assert_eq!(asked.why(1)[0], format!("db: daily 1 of 4: {}", "2026-05-28"));
    assert_eq!(asked.why(3), ["db: daily 3 of 4: 2026-05-26"]);
    // What is whole in the source is whole for its rules.
    asked.points[0] = incomplete(asked.points[0].clone(), "files");
    assert_eq!(asked.kept(), [1, 2, 3, 4]);
}

#[test]
fn holds_keep_until_their_moment_and_a_clock_that_jumped_lifts_none() {
    let mut asked = Asked::new(row(10, DAY), last(1));
    let hold = |n: u64, until: Option<i64>| Hold {
        snapshot: id(n),
        reason: "audit".into(),
        until: until.map(|secs| Time::new(secs, 0)),
    };
    asked.holds = vec![hold(5, None), hold(6, Some(NOW + 1)), hold(7, Some(NOW - DAY))];
    assert_eq!(asked.kept(), [1, 5, 6]);
    assert_eq!(asked.why(5), ["held: audit"]);
    assert_eq!(asked.why(6), ["held until 2026-05-28 20:26 +00:00: audit"]);
    asked.now = Time::new(NOW + 3650 * DAY, 0);
    assert_eq!(asked.kept(), [1, 5, 6], "no point is newer than the hold's end");
}

#[test]
fn a_named_point_goes_unless_it_is_held_or_the_last_good_one() {
    let mut asked = Asked::new(row(4, DAY), last(1));
    asked.named = Some([id(1), id(2), id(3)].into());
    asked.holds = vec![Hold { snapshot: id(3), reason: "audit".into(), until: None }];
    let plan = asked.plan();
    assert_eq!(plan.removals(), [id(2)]);
    let refused: Vec<u64> = plan.verdicts().filter(|v| v.refused).map(|v| number(v.id)).collect();
    assert_eq!(refused, [1, 3]);
    assert_eq!(asked.why(4), ["not named"]);
    asked.points[0] = incomplete(asked.points[0].clone(), "db");
    assert_eq!(asked.plan().removals(), [id(1)], "an incomplete point, while there is a complete one");
    asked.even = true;
    assert_eq!(asked.plan().removals(), [id(1), id(2)], "a hold is lifted by nobody's name");
}

#[test]
fn newest_points_that_look_wrong_are_doubted() {
    let doubts = |points: Vec<Point>| {
        let plan = Asked::new(points, daily(2)).plan();
        plan.doubts().iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let fresh = row(8, DAY);
    assert_eq!(doubts(fresh.clone()), [""; 0]);
    let mut points = fresh.clone();
    points[0] = incomplete(points[0].clone(), "db");
    assert_eq!(doubts(points), [format!("the newest point, {}, is incomplete", id(1).short())]);
    let mut points = fresh.clone();
    points[0].sources[1].bytes = 499;
    points[0].sources[0].files = 50;
    assert_eq!(
        doubts(points),
        [format!(
            "the newest point, {}, has 499 bytes in source files, less than half of 1000 in the median of those before it",
            id(1).short()
        )]
    );
    let mut points = fresh.clone();
    points.push(point(99, NOW + 301));
    assert!(doubts(points)[0].contains("in the future"));
    let mut points = fresh;
    points.push(point(99, NOW + 299));
    assert_eq!(doubts(points), [""; 0], "clocks may differ a little");
    // A set of sources that is no longer in use.
    let mut points = row(40, DAY);
    for old in &mut points[35..] {
        *old = incomplete(old.clone(), "db");
        old.sources.push(PointSource { name: "third".into(), complete: false, bytes: 0, files: 0 });
    }
    assert_eq!(doubts(points), [""; 0]);
}

#[test]
fn a_doubtful_point_that_is_named_is_no_obstacle_to_its_own_removal() {
    let mut points = row(4, DAY);
    points.push(point(9, NOW + 400 * DAY));
    let mut asked = Asked::new(points, last(1));
    assert_eq!(asked.plan().doubts().len(), 1);
    asked.named = Some([id(9)].into());
    assert_eq!(asked.plan().doubts().len(), 0);
    assert_eq!(asked.plan().removals(), [id(9)]);
}

#[test]
fn days_have_the_length_that_the_zone_gives_them() {
    // Berlin turns its clocks back on 2026-10-25 at 03:00, so that the day has 25 hours.
    let berlin = zone("Europe/Berlin");
    let hours: Vec<Point> = (0..30)
        .map(|n| Point { time: Time::new(at("2026-10-24T21:30:00Z").secs + n * 3600, 0), ..point(n as u64 + 1, 0) })
        .collect();
    let mut asked = Asked::new(hours, Policy::default().with(Unit::Hour, 100));
    asked.zone = berlin.clone();
    asked.now = at("2026-10-27T00:00:00Z");
    assert_eq!(asked.kept().len(), 30, "an hour that is struck twice is two");
    let of_day: Vec<String> =
        (1..=30).filter(|n| asked.why(*n)[0].contains("2026-10-25 02h")).map(|n| asked.why(n)[0].clone()).collect();
    assert_eq!(of_day.len(), 2, "{of_day:?}");
    asked.policies = Policies::all(daily(1));
    asked.points.truncate(26);
    // 22:00Z to 22:59Z is the first hour of the 25th; 21:30Z is still the 24th, 22:30Z the last hour of the 25th.
    assert_eq!(asked.kept(), [26]);
    assert!(asked.why(2)[0].contains("2026-10-25 has"), "{:?}", asked.why(2));
    assert_eq!(asked.why(1), ["daily: older than its 1"]);
}

#[test]
fn days_without_a_midnight_and_hours_left_out_are_days_like_others() {
    for (name, texts, day) in [
        // Cairo puts its clocks forward at 00:00 on the last Friday of April.
        ("Africa/Cairo", ["2026-04-23T21:59:00Z", "2026-04-23T22:01:00Z", "2026-04-24T20:59:00Z"], "2026-04-24"),
        // Havana does so on the second Sunday of March.
        ("America/Havana", ["2026-03-08T04:59:00Z", "2026-03-08T05:01:00Z", "2026-03-09T03:59:00Z"], "2026-03-08"),
    ] {
        let points = texts.iter().enumerate().map(|(n, t)| Point { time: at(t), ..point(n as u64 + 1, 0) }).collect();
        let mut asked = Asked::new(points, daily(2));
        asked.zone = zone(name);
        assert_eq!(asked.kept(), [1, 3], "{name}");
        assert_eq!(asked.why(2), [format!("daily: {day} has {}", id(3).short())], "{name}");
        let start = calendar::start_of_day(day, &asked.zone).unwrap();
        assert_eq!(start.secs, at(texts[1]).secs - 60, "{name}: its first moment is 01:00");
    }
    // A span back into what the zone leaves out: 30 days before 02:30 is 02:30, which Berlin does not have that day.
    let berlin = zone("Europe/Berlin");
    assert_eq!(Span::days(30).before(at("2026-04-28T00:30:00Z"), &berlin), at("2026-03-29T01:30:00Z"));
    assert_eq!("1mo".parse::<Span>().unwrap().before(at("2026-03-31T12:00:00Z"), &berlin), at("2026-02-28T13:00:00Z"));
    assert_eq!("36h".parse::<Span>().unwrap().before(at("2026-03-30T00:00:00Z"), &berlin), at("2026-03-28T12:00:00Z"));
}

#[test]
fn weeks_are_those_of_iso_8601() {
    let civil = |text: &str| calendar::Civil::of(at(text), &utc());
    for (text, week) in [
        ("2026-01-01T00:00:00Z", "2026-W01"),
        ("2027-01-01T00:00:00Z", "2026-W53"),
        ("2024-12-30T00:00:00Z", "2025-W01"),
        ("2023-01-01T23:59:59Z", "2022-W52"),
    ] {
        assert_eq!(civil(text).period(Unit::Week).to_string(), week, "{text}");
    }
    assert_eq!(civil("2026-05-31T23:59:59Z").period(Unit::Quarter).to_string(), "2026-Q2");
    assert_eq!(civil("2026-05-31T23:59:59Z").period(Unit::Year).to_string(), "2026");
}

#[test]
fn a_day_that_comes_twice_is_one() {
    // St John's turned its clocks back at 00:01, so that the old day came again for 59 minutes.
    let texts = ["2010-11-07T02:30:30Z", "2010-11-07T02:31:30Z", "2010-11-07T03:31:30Z"];
    let points = texts.iter().enumerate().map(|(n, t)| Point { time: at(t), ..point(n as u64 + 1, 0) }).collect();
    let mut asked = Asked::new(points, daily(2));
    asked.zone = zone("America/St_Johns");
    assert_eq!(asked.why(3)[0], "daily 1 of 2: 2010-11-07");
    assert_eq!(asked.why(2)[0], "daily 2 of 2: 2010-11-06");
    assert_eq!(asked.why(1)[0], format!("daily: 2010-11-07 has {}", id(3).short()));
}

#[test]
fn spans_are_read_as_they_are_written() {
    for (text, told) in [("30d", "30d"), ("2w", "14d"), ("1y6mo", "1y6mo"), (" 1 d 12 h ", "1d12h")] {
        assert_eq!(text.parse::<Span>().unwrap().to_string(), told);
    }
    for bad in ["", "30", "d", "5m", "1.5d", "99999999999d", "70000y", "3 fortnights"] {
        assert!(bad.parse::<Span>().unwrap_err().hint().is_some(), "{bad}");
    }
    let zone = utc();
    let far: Span = "65535y".parse().unwrap();
    assert_eq!(far.before(Time::new(NOW, 0), &zone).secs, i64::MIN);
    assert_eq!(Span::days(1).before(Time::new(-5, 250), &zone), Time::new(-5 - DAY, 250));
}

#[test]
fn the_future_is_shown_with_the_rhythm_that_points_have_now() {
    let policy = Policy::default().with(Unit::Day, 7).with(Unit::Month, 3);
    let mut asked = Asked::new(row(30, DAY), policy);
    asked.holds = vec![Hold { snapshot: id(20), reason: "audit".into(), until: Some(Time::new(NOW + 50 * DAY, 0)) }];
    let request = asked.request();
    assert_eq!(rhythm(&request), Some(DAY));
    let seen = simulate(&request, DAY, Span::days(400));
    assert_eq!(seen.steps.first().unwrap().at, asked.now);
    let last = seen.steps.last().unwrap();
    assert_eq!(last.at, Time::new(NOW + 400 * DAY, 0));
    assert_eq!(last.points.len(), 7 + 1, "seven days, in which June ends, and the end of May");
    let held = seen.gone.iter().find(|(gone, _)| *gone == id(20)).unwrap();
    assert!(held.1.secs > NOW + 50 * DAY && held.1.secs <= NOW + 52 * DAY, "{held:?}");
    assert_eq!(seen.gone.len(), 30, "none of today's is left after 400 days");
    assert_eq!(rhythm(&Asked::new(row(1, 1), last_one()).request()), None);
}

fn last_one() -> Policy {
    last(1)
}
