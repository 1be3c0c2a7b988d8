//! Reading when there are several repositories: which one serves, and what is said about the others.
//!
//! Near ones come before distant ones, and else the order of the config counts. One that cannot be opened is named and
//! passed over: that is what the others are for.

use crate::config::Config;
use crate::errors::Failure;
use crate::run::{Chosen, Run};
use lastgood_model::selector::Selector;
use lastgood_model::{Error, ErrorKind, Result};
use lastgood_ops::snapshots::{pick, pick_among};
use lastgood_repo::copy::is_same_point;
use lastgood_repo::{Repository, Snapshot};
use std::sync::Arc;

/// A repository that is open.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) chosen: Chosen,
    pub(crate) repository: Arc<Repository>,
}

/// The repository that holds the recovery points that were named.
#[derive(Debug)]
pub(crate) struct Holding {
    pub(crate) chosen: Chosen,
    pub(crate) repository: Arc<Repository>,
    /// As many as selectors, in their order.
    pub(crate) snapshots: Vec<Snapshot>,
    /// The config's application.
    pub(crate) app: Option<String>,
    /// Names of other repositories that hold them, too.
    pub(crate) also: Vec<String>,
}

impl Holding {
    /// The only recovery point.
    pub(crate) fn one(mut self) -> Result<(Self, Snapshot)> {
        match self.snapshots.pop() {
            Some(snapshot) => Ok((self, snapshot)),
            None => Err(Error::new(ErrorKind::Bug, "no recovery point was picked")),
        }
    }
}

/// Near ones first.
pub(crate) fn near_first(mut all: Vec<Chosen>) -> Vec<Chosen> {
    all.sort_by_key(|chosen| chosen.place.folder().is_none());
    all
}

/// Repositories that could be opened, and those that could not, with what is the matter.
pub(crate) type Reachable = (Vec<Opened>, Vec<(Chosen, Error)>);

impl Run {
    /// Opens those of several repositories that can be opened; the others come with what is the matter.
    pub(crate) fn open_reachable(&self, all: Vec<Chosen>) -> Result<Reachable> {
        let (mut opened, mut failed) = (Vec::new(), Vec::new());
        for chosen in near_first(all) {
            match self.open(&chosen) {
                Ok(repository) => opened.push(Opened { chosen, repository }),
                Err(error) if error.kind() == ErrorKind::Cancelled => return Err(error),
                Err(error) => failed.push((chosen, error)),
            }
        }
        if let Some(first) = opened.first() {
            self.remember_repository(&first.repository);
        }
        Ok((opened, failed))
    }

    /// Opens the first repository that holds every recovery point that `selectors` name, with the one that `--repo` names
    /// as the only choice. What `latest` means is asked of all that can be reached.
    pub(crate) fn open_holding(&self, config: Option<&Config>, selectors: &[&str]) -> Result<Holding, Failure> {
        let all = self.repositories(config)?;
        let app = config.map(|config| config.app.clone());
        let selectors: Vec<Selector> = selectors.iter().map(|text| text.parse()).collect::<Result<_>>()?;
        if let [chosen] = all.as_slice() {
            let repository = self.open(chosen)?;
            let snapshots = selectors.iter().map(|selector| pick(&repository, selector, app.as_deref()));
            let snapshots = snapshots.collect::<Result<Vec<_>>>()?;
            self.remember_picked(&snapshots);
            return Ok(Holding { chosen: chosen.clone(), repository, snapshots, app, also: Vec::new() });
        }
        let (opened, failed) = self.open_reachable(all)?;
        let reachable: Vec<&Repository> = opened.iter().map(|opened| &*opened.repository).collect();
        self.tell_unreachable(&failed);
        if opened.is_empty() {
            return Err(none_reachable(failed).into());
        }
        let damaged = |repository: &Repository, id: lastgood_model::SnapshotId, error: Error| {
            let at = repository.location();
            self.out.note(format!("damaged: recovery point {} at {at} cannot be read: {}", id.short(), error.chain()));
        };
        let mut wanted = Vec::new();
        for selector in &selectors {
            wanted.push(pick_among(&reachable, selector, app.as_deref(), damaged)?);
        }
        let mut holders = Vec::new();
        for opened in opened {
            let there = opened.repository.snapshots(|_, _| {})?;
            let held = wanted.iter().map(|point| there.iter().find(|other| is_same_point(other, point)).cloned());
            holders.extend(held.collect::<Option<Vec<_>>>().map(|snapshots| (opened, snapshots)));
        }
        let mut holders = holders.into_iter();
        if let Some((Opened { chosen, repository }, snapshots)) = holders.next() {
            self.out.note(format!("note: read from {}", chosen.describe()));
            self.remember_picked(&snapshots);
            self.remember_repository(&repository);
            let also = holders.map(|(opened, _)| opened.chosen.word()).collect();
            return Ok(Holding { chosen, repository, snapshots, app, also });
        }
        let ids: Vec<String> = wanted.iter().map(|point| point.id.short()).collect();
        Err(Error::new(ErrorKind::Absent, format!("no repository has all of {}", ids.join(", ")))
            .with_hint("bring them together first with `lastgood copy FROM TO`")
            .into())
    }

    /// The config's and the command line's answer to where a recovery point is, for commands that need only one.
    pub(crate) fn open_with(&self, selectors: &[&str]) -> Result<Holding, Failure> {
        let config = self.config()?;
        self.open_holding(config.as_ref(), selectors)
    }

    /// Says which repositories could not be asked.
    pub(crate) fn tell_unreachable(&self, failed: &[(Chosen, Error)]) {
        for (chosen, error) in failed {
            self.out.note(format!("warning: {} cannot be used: {}", chosen.describe(), error.chain()));
        }
    }
}

/// One error for all; the first is the nearest.
pub(crate) fn none_reachable(failed: Vec<(Chosen, Error)>) -> Error {
    let count = failed.len();
    match failed.into_iter().next() {
        Some((chosen, error)) => {
            error.context(format!("none of {count} repositories can be used; {}", chosen.describe()))
        }
        None => Error::invalid("the config names no repository"),
    }
}
