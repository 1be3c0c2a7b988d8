//! What a failure means for the data: which recovery point is the last good one, and what is unprotected since.

use crate::text;
use lastgood_model::{Result, SnapshotId, Time};
use lastgood_ops::snapshots::app_of;
use lastgood_repo::{Repository, Snapshot};
use serde::Serialize;

/// The tag of a recovery point in which something is missing.
pub(crate) const INCOMPLETE_TAG: &str = "incomplete";

/// The newest recovery point that is complete.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct LastGood {
    /// It.
    pub(crate) snapshot: SnapshotId,
    /// Its moment.
    pub(crate) time: Time,
}

/// Where things stand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Protection {
    /// The newest complete recovery point, when there is one.
    pub(crate) last_good: Option<LastGood>,
    /// What is not protected, in words; `None` when that is not known.
    pub(crate) unprotected: Option<String>,
}

impl LastGood {
    /// For people.
    pub(crate) fn describe(&self) -> String {
        format!("{} of {} ({})", self.snapshot.short(), text::moment(self.time), text::age(self.time, now()))
    }
}

impl Protection {
    /// Looks at a repository. `app` narrows it to the points of one application, `sources` names what it consists of, and
    /// none of `doubtful` counts as good.
    pub(crate) fn of(
        repository: &Repository,
        app: Option<&str>,
        sources: &[String],
        doubtful: &[SnapshotId],
    ) -> Result<Self> {
        let last_good = last_good_but(repository, app, doubtful)?;
        let unprotected = (!sources.is_empty()).then(|| match &last_good {
            Some(_) => format!("whatever changed since then in {}", sources.join(", ")),
            None => format!("everything: {}", sources.join(", ")),
        });
        Ok(Self { last_good, unprotected })
    }

    /// What is known when no repository could be opened.
    pub(crate) fn unknown(sources: &[String]) -> Option<Self> {
        (!sources.is_empty()).then(|| Self {
            last_good: None,
            unprotected: Some(format!(
                "whatever changed since the last recovery point in {}; the repository could not be asked which that is",
                sources.join(", ")
            )),
        })
    }

    /// For people.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        match &self.last_good {
            Some(last) => lines.push(format!("last good recovery point: {}", last.describe())),
            None if self.unprotected.as_ref().is_some_and(|u| u.starts_with("everything")) => {
                lines.push("last good recovery point: none".to_owned());
            }
            None => {}
        }
        if let Some(unprotected) = &self.unprotected {
            lines.push(format!("unprotected now: {unprotected}"));
        }
        lines
    }
}

/// The newest complete recovery point. One that another program wrote counts where no application is named.
pub(crate) fn last_good(repository: &Repository, app: Option<&str>) -> Result<Option<LastGood>> {
    last_good_but(repository, app, &[])
}

/// The newest complete recovery point that is none of `damaged`.
pub(crate) fn last_good_but(
    repository: &Repository,
    app: Option<&str>,
    damaged: &[SnapshotId],
) -> Result<Option<LastGood>> {
    // A damaged snapshot is no good one; whoever wants to know of it asks `snapshots` or `check`.
    let snapshots = repository.snapshots(|_, _| {})?;
    let is_good = |s: &&Snapshot| {
        !damaged.contains(&s.id)
            && !s.file.tags.iter().any(|tag| tag == INCOMPLETE_TAG)
            && (app.is_none() || app_of(&s.file).as_deref() == app)
    };
    let newest = snapshots.iter().rev().find(is_good);
    Ok(newest.map(|s| LastGood { snapshot: s.id, time: s.file.time }))
}

/// This moment.
pub(crate) fn now() -> Time {
    lastgood_repo::lock::system_clock()()
}
