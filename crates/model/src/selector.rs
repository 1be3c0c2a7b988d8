//! Snapshot selectors: `latest`, an id prefix, `latest~2`, `before:2026-05-01T10:00Z`, `app:shop`, and combinations such
//! as `app:shop/latest~1`.

use crate::{Error, ErrorKind, Result, SnapshotId, Time};
use std::str::FromStr;

/// What a selector looks at in a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The snapshot.
    pub id: SnapshotId,
    /// When it was taken.
    pub time: Time,
    /// The application it belongs to, when lastgood wrote it.
    pub app: Option<String>,
}

/// A parsed selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector {
    app: Option<String>,
    which: Which,
    text: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Which {
    /// Newest first, so many steps back, at or before a moment if given.
    Nth {
        back: usize,
        before: Option<Time>,
    },
    Prefix(String),
}

impl Selector {
    /// The newest snapshot.
    pub fn latest() -> Self {
        Self { app: None, which: Which::Nth { back: 0, before: None }, text: "latest".into() }
    }

    /// True when it says which application it is about.
    pub fn names_app(&self) -> bool {
        self.app.is_some()
    }

    /// True when it names a snapshot by its id, not by its time.
    pub fn is_id(&self) -> bool {
        matches!(self.which, Which::Prefix(_))
    }

    /// The beginning of the id that it names, in lower case, when it names one.
    pub fn id_prefix(&self) -> Option<&str> {
        match &self.which {
            Which::Prefix(prefix) => Some(prefix),
            Which::Nth { .. } => None,
        }
    }

    /// The selector as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Picks the snapshot meant. [`ErrorKind::Absent`] when there is none, [`ErrorKind::Invalid`] when a prefix fits
    /// several.
    pub fn pick(&self, candidates: &[Candidate]) -> Result<SnapshotId> {
        let mut fitting: Vec<&Candidate> =
            candidates.iter().filter(|c| self.app.is_none() || c.app == self.app).collect();
        fitting.sort_by_key(|c| std::cmp::Reverse((c.time, c.id)));
        match &self.which {
            Which::Nth { back, before } => fitting
                .iter()
                .filter(|c| before.is_none_or(|limit| c.time <= limit))
                .nth(*back)
                .map(|c| c.id)
                .ok_or_else(|| self.absent(&fitting, candidates.len())),
            Which::Prefix(prefix) => {
                let hits: Vec<_> = fitting.iter().filter(|c| c.id.to_string().starts_with(prefix.as_str())).collect();
                match hits.as_slice() {
                    [one] => Ok(one.id),
                    [] => Err(self.absent(&fitting, candidates.len())),
                    several => {
                        let names: Vec<_> = several.iter().take(4).map(|c| c.id.to_string()[..12].to_owned()).collect();
                        Err(Error::invalid(format!(
                            "{prefix:?} fits {} snapshots: {}",
                            several.len(),
                            names.join(", ")
                        ))
                        .with_hint("give more digits of the id"))
                    }
                }
            }
        }
    }

    fn absent(&self, fitting: &[&Candidate], all: usize) -> Error {
        let error = Error::new(ErrorKind::Absent, format!("no snapshot fits {:?}", self.text));
        match fitting {
            [] if all > 0 => {
                error.with_hint(format!("the repository holds {all} of other applications; see `lastgood snapshots`"))
            }
            [] => error.with_hint("the repository holds no snapshot yet; take one with `lastgood backup`"),
            [newest, ..] => error.with_hint(format!(
                "there are {}, the newest {} of {}; see `lastgood snapshots`",
                fitting.len(),
                newest.id.short(),
                newest.time
            )),
        }
    }
}

impl FromStr for Selector {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let usage = || {
            Error::invalid(format!("not a snapshot selector: {text:?}"))
                .with_hint("use `latest`, `latest~2`, an id prefix, `before:2026-05-01T10:00Z` or `app:NAME`, optionally `app:NAME/SELECTOR`")
        };
        let (app, rest) = match text.strip_prefix("app:") {
            Some(rest) => match rest.split_once('/') {
                Some((app, rest)) => (Some(app.to_owned()), rest),
                None => (Some(rest.to_owned()), "latest"),
            },
            None => (None, text),
        };
        if app.as_deref() == Some("") {
            return Err(usage());
        }
        let (base, back) = match rest.rsplit_once('~') {
            Some((base, steps)) => (base, steps.parse().map_err(|_| usage())?),
            None => (rest, 0),
        };
        let which = if base == "latest" {
            Which::Nth { back, before: None }
        } else if let Some(moment) = base.strip_prefix("before:") {
            Which::Nth { back, before: Some(parse_moment(moment).ok_or_else(usage)?) }
        } else if back == 0
            && !rest.contains('~')
            && (4..=64).contains(&base.len())
            && base.bytes().all(|b| b.is_ascii_hexdigit())
        {
            Which::Prefix(base.to_ascii_lowercase())
        } else {
            return Err(usage());
        };
        Ok(Self { app, which, text: text.to_owned() })
    }
}

/// A moment as people write it: RFC 3339, also without seconds, or a date alone (its first instant, UTC).
fn parse_moment(text: &str) -> Option<Time> {
    let moment = text.replacen(' ', "T", 1);
    Time::parse_rfc3339(&moment)
        .or_else(|| {
            (moment.is_ascii() && moment.len() > 16)
                .then(|| Time::parse_rfc3339(&format!("{}:00{}", &moment[..16], &moment[16..])))?
        })
        .or_else(|| Time::parse_rfc3339(&format!("{moment}T00:00:00Z")))
        .or_else(|| Time::parse_rfc3339(&format!("{moment}Z")))
        .or_else(|| Time::parse_rfc3339(&format!("{moment}:00Z")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates() -> Vec<Candidate> {
        [(1, 10, "shop"), (2, 20, "blog"), (3, 30, "shop")]
            .map(|(byte, secs, app)| {
                let mut id = [0xab; 32];
                id[3] = byte;
                Candidate { id: SnapshotId(crate::Id(id)), time: Time::new(secs, 0), app: Some(app.into()) }
            })
            .to_vec()
    }

    #[test]
    fn selectors_pick_what_they_say() {
        let all = candidates();
        let cases = [
            ("latest", Some(2)),
            ("latest~1", Some(1)),
            ("latest~3", None),
            ("app:shop", Some(2)),
            ("app:shop/latest~1", Some(0)),
            ("app:none", None),
            ("before:1970-01-01T00:00:25Z", Some(1)),
            ("before:1970-01-01T00:00:25Z~1", Some(0)),
            ("before:1970-01-01", None),
            ("before:1970-01-01T00:01Z", Some(2)),
            ("before:1970-01-01 00:01", Some(2)),
            ("ababab02", Some(1)),
            ("ABABAB03", Some(2)),
            ("abababff", None),
        ];
        for (text, want) in cases {
            let got = text.parse::<Selector>().unwrap().pick(&all).ok();
            assert_eq!(got, want.map(|i: usize| all[i].id), "{text}");
        }
        assert_eq!("abab".parse::<Selector>().unwrap().pick(&all).unwrap_err().kind(), ErrorKind::Invalid);
    }

    #[test]
    fn what_is_not_a_selector_is_refused_with_the_forms() {
        for bad in
            ["", "newest", "latest~x", "before:", "before:soon", "before:2031-02-30", "app:", "abc", "~2", "abcd~1"]
        {
            assert!(bad.parse::<Selector>().unwrap_err().hint().is_some(), "{bad}");
        }
    }
}
