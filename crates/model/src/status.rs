//! Where an application stands: a judgement on facts, in one sentence, and what is missing.
//!
//! The measure is 3-2-1-1-0: three copies (of the data itself one, so two in repositories), on two media, one of them
//! elsewhere, one that nobody can change, and no error when all is verified. What is not known is never taken for met.

use crate::Time;
use std::fmt;

/// Yes, no, or not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// It is so.
    Yes,
    /// It is not so.
    No,
    /// Nobody can tell.
    Unknown,
}

impl fmt::Display for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Yes => "yes",
            Self::No => "no",
            Self::Unknown => "unknown",
        })
    }
}

/// What is known of one repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// Its name in the config.
    pub name: String,
    /// Why it cannot be looked into; all below is unknown then.
    pub trouble: Option<String>,
    /// The newest complete and readable point that has all configured sources.
    pub newest_good: Option<Time>,
    /// The newest point of all, and whether it is complete.
    pub newest: Option<(Time, bool)>,
    /// What it lies on, such as `disk 8:1` or `s3.example.com`. Two with the same text fail together.
    pub medium: String,
    /// Whether it lies where the data itself lies, so that both are lost at once.
    pub beside_data: Known,
    /// Whether it is in another place than the data.
    pub offsite: Known,
    /// Whether nobody can remove it for now.
    pub immutable: Known,
    /// Until when what came with the newest good point is locked, where locks are asked for and made.
    pub locked_until: Option<Time>,
    /// When a recovery point was last restored from it and compared.
    pub drilled: Option<Time>,
    /// How much is in it.
    pub usage: Option<Usage>,
    /// Seconds since every byte was last verified, counted from the one that waits longest; `None` when some never was.
    pub verified_secs: Option<u64>,
}

/// How much a repository holds, and how soon it is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of all its objects.
    pub bytes: u64,
    /// With so many it is full; `None` where nobody says.
    pub limit_bytes: Option<u64>,
    /// What recovery points of the last weeks added in a day; `None` before there is anything to tell from.
    pub daily_bytes: Option<u64>,
}

impl Usage {
    /// Days until it is full, when it goes on as it did.
    pub fn days_left(&self) -> Option<u64> {
        let (limit, daily) = (self.limit_bytes?, self.daily_bytes.filter(|daily| *daily > 0)?);
        Some(limit.saturating_sub(self.bytes) / daily)
    }

    /// True when there is cause to make room: nine tenths are taken, or a month is left.
    pub fn is_near_full(&self) -> bool {
        let is_nearly = |limit: u64| self.bytes >= limit - limit / 10;
        self.limit_bytes.is_some_and(is_nearly) || self.days_left().is_some_and(|days| days < 30)
    }
}

/// What is wanted. 0 and `None` ask for nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The newest good point is no older, in seconds.
    pub rpo_secs: Option<u64>,
    /// Repositories that have it.
    pub copies: u32,
    /// Media that these lie on.
    pub media: u32,
    /// Of them, elsewhere.
    pub offsite: u32,
    /// Of them, beyond anybody's reach.
    pub immutable: u32,
    /// Each verified as a whole within so many seconds.
    pub verified_secs: Option<u64>,
}

/// All that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Configured sources.
    pub sources: Vec<String>,
    /// Configured sources that the newest good point lacks, or that no point has whole.
    pub uncovered: Vec<String>,
    /// The repositories.
    pub copies: Vec<Copy>,
    /// This moment.
    pub now: Time,
    /// What the config asks for; `None` when it asks for nothing.
    pub wanted: Option<Wanted>,
    /// The rpo, which may stand without a policy.
    pub rpo_secs: Option<u64>,
}

/// The judgement in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// All that is asked for is there; where nothing is asked for, 3-2-1-1-0.
    Healthy,
    /// There are good points, and nothing that is asked for is missing; 3-2-1-1-0 is.
    Protected,
    /// Something that the policy asks for is missing.
    AtRisk,
    /// The newest good point is too old.
    Stale,
    /// There is no good point of something.
    Unprotected,
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Healthy => "Healthy",
            Self::Protected => "Protected",
            Self::AtRisk => "At risk",
            Self::Stale => "Stale",
            Self::Unprotected => "Unprotected",
        })
    }
}

/// The judgement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// In a word.
    pub standing: Standing,
    /// Why, in half a sentence.
    pub because: String,
    /// What is asked for and missing.
    pub unmet: Vec<String>,
    /// What 3-2-1-1-0 would have beyond that.
    pub lacking: Vec<String>,
}

impl Judgement {
    /// False when something is missing that the config asks for, or that no protection can be without.
    pub fn is_met(&self) -> bool {
        matches!(self.standing, Standing::Healthy | Standing::Protected)
    }
}

/// Two repositories have the same state when their newest good points are no further apart than this, or than the rpo
/// where that is longer.
pub const SAME_STATE_SECS: i64 = 86_400;

/// Those copies that have the newest good state.
pub fn current(facts: &Facts) -> Vec<&Copy> {
    let newest = facts.copies.iter().filter_map(|copy| copy.newest_good).max();
    let apart = facts.rpo_secs.and_then(|rpo| i64::try_from(rpo).ok()).unwrap_or(0).max(SAME_STATE_SECS);
    let has = |copy: &&Copy| match (copy.newest_good, newest) {
        (Some(own), Some(newest)) => newest.secs.saturating_sub(own.secs) <= apart,
        _ => false,
    };
    facts.copies.iter().filter(has).collect()
}

/// Judges.
pub fn judge(facts: &Facts) -> Judgement {
    if let Some(because) = unprotected(facts) {
        let unmet = vec![because.clone()];
        return Judgement { standing: Standing::Unprotected, because, unmet, lacking: Vec::new() };
    }
    let newest = facts.copies.iter().filter_map(|copy| copy.newest_good).max().unwrap_or_default();
    let age = facts.now.secs.saturating_sub(newest.secs);
    let mut unmet = Vec::new();
    let stale = facts.rpo_secs.filter(|rpo| age.max(0) as u64 > *rpo);
    if let Some(rpo) = stale {
        unmet.push(format!("the newest good point is {} old, and the rpo is {}", span(age), span(rpo as i64)));
    }
    let wanted = facts.wanted.clone().unwrap_or_default();
    unmet.extend(missing(facts, &wanted));
    let ideal =
        Wanted { rpo_secs: None, copies: 2, media: 2, offsite: 1, immutable: 1, verified_secs: Some(30 * 86_400) };
    let lacking: Vec<String> = missing(facts, &ideal).into_iter().filter(|lack| !unmet.contains(lack)).collect();
    let state = format!("the newest good point is {} old, in {}", span(age), copies(current(facts).len()));
    let (standing, because) = match (stale.is_some(), unmet.first(), facts.wanted.is_some(), lacking.first()) {
        (true, Some(first), ..) => (Standing::Stale, first.clone()),
        (false, Some(first), ..) => (Standing::AtRisk, first.clone()),
        (_, None, true, _) => (Standing::Healthy, format!("{state}, and all that the policy asks for is there")),
        (_, None, false, None) => (Standing::Healthy, state),
        (_, None, false, Some(first)) => (Standing::Protected, format!("{state}; but {first}")),
    };
    Judgement { standing, because, unmet, lacking }
}

fn unprotected(facts: &Facts) -> Option<String> {
    if facts.sources.is_empty() {
        return Some("the config names nothing to protect".to_owned());
    }
    if facts.copies.is_empty() {
        return Some("the config names no repository".to_owned());
    }
    if facts.copies.iter().all(|copy| copy.newest_good.is_none()) {
        let trouble = facts.copies.iter().find_map(|copy| Some((&copy.name, copy.trouble.as_ref()?)));
        let incomplete = facts.copies.iter().any(|copy| copy.newest.is_some());
        return Some(match (trouble, incomplete) {
            (Some((name, trouble)), false) => {
                format!("no good recovery point is known; repository {name} cannot be looked into: {trouble}")
            }
            (_, true) if !facts.uncovered.is_empty() => {
                format!("there is no good recovery point of {}", facts.uncovered.join(", "))
            }
            (_, true) => "no recovery point is complete".to_owned(),
            (None, false) => "there is no recovery point".to_owned(),
        });
    }
    (!facts.uncovered.is_empty()).then(|| format!("there is no good recovery point of {}", facts.uncovered.join(", ")))
}

/// What of this is not there, or not known to be.
fn missing(facts: &Facts, wanted: &Wanted) -> Vec<String> {
    let current = current(facts);
    let mut missing = Vec::new();
    let mut ask = |want: u32, have: usize, unknown: usize, noun: &str, are: &str| {
        if have < want as usize {
            let unknown = match unknown {
                0 => String::new(),
                1 => "; of 1 it is unknown".to_owned(),
                several => format!("; of {several} it is unknown"),
            };
            missing.push(format!("{want} {noun} {are} wanted, and there {}{unknown}", counted(have)));
        }
    };
    let are = |want: u32| if want == 1 { "is" } else { "are" };
    let nouns = |want: u32, one: &'static str, several: &'static str| if want == 1 { one } else { several };
    ask(wanted.copies, current.len(), 0, nouns(wanted.copies, "current copy", "current copies"), are(wanted.copies));
    let mut media: Vec<&str> = current.iter().map(|copy| copy.medium.as_str()).collect();
    media.sort_unstable();
    media.dedup();
    ask(wanted.media, media.len(), 0, nouns(wanted.media, "medium", "media"), are(wanted.media));
    let count = |of: &dyn Fn(&Copy) -> Known, known: Known| current.iter().filter(|copy| of(copy) == known).count();
    let offsite = |copy: &Copy| copy.offsite;
    let immutable = |copy: &Copy| copy.immutable;
    ask(
        wanted.offsite,
        count(&offsite, Known::Yes),
        count(&offsite, Known::Unknown),
        nouns(wanted.offsite, "off-site copy", "off-site copies"),
        are(wanted.offsite),
    );
    ask(
        wanted.immutable,
        count(&immutable, Known::Yes),
        count(&immutable, Known::Unknown),
        nouns(wanted.immutable, "immutable copy", "immutable copies"),
        are(wanted.immutable),
    );
    if let Some(within) = wanted.verified_secs {
        for copy in &current {
            match copy.verified_secs {
                None => missing.push(format!("{} was never verified as a whole from this machine", copy.name)),
                Some(secs) if secs > within => {
                    missing.push(format!("parts of {} were last verified {} ago", copy.name, span(secs as i64)));
                }
                Some(_) => {}
            }
        }
    }
    missing
}

fn counted(have: usize) -> String {
    match have {
        0 => "is none".to_owned(),
        1 => "is 1".to_owned(),
        several => format!("are {several}"),
    }
}

fn copies(count: usize) -> String {
    if count == 1 { "1 repository".to_owned() } else { format!("{count} repositories") }
}

/// A span for people, rounded down.
fn span(secs: i64) -> String {
    match secs {
        ..0 => "0 s".to_owned(),
        0..60 => format!("{secs} s"),
        60..3600 => format!("{} min", secs / 60),
        3600..172_800 => format!("{} h", secs / 3600),
        _ => format!("{} d", secs / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_780_000_000;

    fn copy(name: &str, age: i64) -> Copy {
        let time = Time::new(NOW - age, 0);
        Copy {
            name: name.into(),
            trouble: None,
            newest_good: Some(time),
            newest: Some((time, true)),
            medium: name.into(),
            beside_data: Known::No,
            offsite: Known::No,
            immutable: Known::No,
            locked_until: None,
            drilled: None,
            usage: None,
            verified_secs: Some(60),
        }
    }

    fn facts(copies: Vec<Copy>) -> Facts {
        let sources = vec!["db".to_owned()];
        Facts { sources, uncovered: Vec::new(), copies, now: Time::new(NOW, 0), wanted: None, rpo_secs: None }
    }

    #[track_caller]
    fn says(facts: &Facts, standing: Standing, words: &str) {
        let judged = judge(facts);
        assert_eq!(judged.standing, standing, "{judged:#?}");
        assert!(judged.because.contains(words), "{judged:#?}");
    }

    #[test]
    fn what_has_no_good_point_is_unprotected() {
        let mut none = facts(vec![copy("local", 60)]);
        none.sources.clear();
        says(&none, Standing::Unprotected, "nothing to protect");
        says(&facts(Vec::new()), Standing::Unprotected, "names no repository");
        let empty = Copy { newest_good: None, newest: None, ..copy("local", 0) };
        says(&facts(vec![empty.clone()]), Standing::Unprotected, "there is no recovery point");
        let away = Copy { trouble: Some("gone".into()), ..empty.clone() };
        says(&facts(vec![away, empty]), Standing::Unprotected, "local cannot be looked into: gone");
        let broken = Copy { newest_good: None, ..copy("local", 9) };
        says(&facts(vec![broken]), Standing::Unprotected, "no recovery point is complete");
        let uncovered = Facts { uncovered: vec!["db".into()], ..facts(vec![copy("local", 9)]) };
        says(&uncovered, Standing::Unprotected, "no good recovery point of db");
        assert!(!judge(&uncovered).is_met());
    }

    #[test]
    fn what_is_too_old_is_stale() {
        let old = Facts { rpo_secs: Some(3600), ..facts(vec![copy("local", 7200)]) };
        says(&old, Standing::Stale, "is 2 h old, and the rpo is 1 h");
        assert!(!judge(&old).is_met());
        let none = facts(vec![copy("local", 720_000)]);
        says(&none, Standing::Protected, "8 d old");
    }

    #[test]
    fn one_copy_protects_and_says_what_it_does_not() {
        let judged = judge(&facts(vec![copy("local", 60)]));
        assert_eq!(judged.standing, Standing::Protected);
        assert!(judged.is_met() && judged.unmet.is_empty());
        assert_eq!(
            judged.lacking,
            [
                "2 current copies are wanted, and there is 1",
                "2 media are wanted, and there is 1",
                "1 off-site copy is wanted, and there is none",
                "1 immutable copy is wanted, and there is none",
            ]
        );
    }

    #[test]
    fn a_policy_is_met_by_what_is_known_alone() {
        let wanted = Wanted { copies: 2, media: 2, offsite: 1, verified_secs: Some(3600), ..Wanted::default() };
        let mut asked = facts(vec![copy("local", 60), Copy { offsite: Known::Yes, ..copy("away", 90) }]);
        asked.wanted = Some(wanted);
        says(&asked, Standing::Healthy, "all that the policy asks for is there");
        asked.copies[1].offsite = Known::Unknown;
        says(&asked, Standing::AtRisk, "1 off-site copy is wanted, and there is none; of 1 it is unknown");
        asked.copies[1].offsite = Known::Yes;
        asked.copies[1].medium = "local".into();
        says(&asked, Standing::AtRisk, "2 media are wanted");
        asked.copies[1].medium = "away".into();
        asked.copies[1].verified_secs = None;
        says(&asked, Standing::AtRisk, "away was never verified");
        asked.copies[1].verified_secs = Some(7200);
        says(&asked, Standing::AtRisk, "parts of away were last verified 2 h ago");
        asked.copies[1].verified_secs = Some(60);
        // A copy that is days behind is none of the newest state.
        asked.copies[1].newest_good = Some(Time::new(NOW - 3 * 86_400, 0));
        says(&asked, Standing::AtRisk, "2 current copies are wanted, and there is 1");
    }

    #[test]
    fn all_of_3_2_1_1_0_is_healthy_without_a_policy() {
        let away = Copy { offsite: Known::Yes, immutable: Known::Yes, ..copy("away", 90) };
        says(&facts(vec![copy("local", 60), away]), Standing::Healthy, "in 2 repositories");
    }

    #[test]
    fn what_grows_is_told_to_be_full_in_time() {
        let usage = |bytes, limit, daily| Usage { bytes, limit_bytes: limit, daily_bytes: daily };
        assert_eq!(usage(50, Some(100), Some(5)).days_left(), Some(10));
        assert_eq!(usage(200, Some(100), Some(5)).days_left(), Some(0));
        for (left, near) in [
            (usage(50, Some(1000), Some(5)), false),
            (usage(50, Some(199), Some(5)), true),
            (usage(50, Some(200), Some(5)), false),
            (usage(900, Some(1000), Some(0)), true),
            (usage(899, Some(1000), None), false),
            (usage(u64::MAX, None, Some(5)), false),
            (usage(1, Some(0), None), true),
        ] {
            assert_eq!(left.is_near_full(), near, "{left:?}");
        }
    }
}
