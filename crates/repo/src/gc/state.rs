//! What pruners tell one another and every writer: lists of doomed packs, and claims, in `lastgood/gc/`.
//!
//! A list `doom-<generation>` names packs that nobody needed when it was made. From then on no writer of ours relies on
//! them. A claim `claim-<generation>` ends the time in which a list of that generation or an older one can still be
//! changed or begun: it is created, exclusively, by whoever carries the list out or puts it aside. A pruner that finds a
//! claim on its own generation, or on a later one, has lost, however long it slept; so of several one goes on.
//!
//! Where lists of objects may be stale, time is needed for everybody to see a list of doomed packs. A host that did not make
//! it notes in `seen-<generation>-<host>` when it first saw it: what another host's clock says proves nothing.

use crate::notes;
use crate::repository::{Repository, expand, seal_unpacked};
use crate::sha256::sha256;
use lastgood_model::store::{SideName, SidePut, SideStore};
use lastgood_model::{Context, Error, ErrorKind, Id, IndexId, PackId, Result, SnapshotId, Time};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;

/// The folder below `lastgood/`.
const FOLDER: &str = "gc";
const DOOM: &str = "doom-";
const CLAIM: &str = "claim-";
const SEEN: &str = "seen-";

/// A pack that is about to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct DoomedPack {
    pub(super) id: PackId,
    pub(super) bytes: u64,
}

/// Packs that are about to go, and what was known when that was decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct DoomList {
    pub(super) generation: u64,
    /// When it was made, by the clock of the host that made it; for people, and for a margin that is never the only belt.
    pub(super) published: Time,
    pub(super) hostname: String,
    pub(super) pid: u32,
    /// Tells this list from any other of the same generation.
    pub(super) nonce: Id,
    pub(super) packs: Vec<DoomedPack>,
    /// Packs into which what is still needed of doomed ones was moved.
    pub(super) moved_to: Vec<DoomedPack>,
    /// The recovery points that were followed.
    pub(super) snapshots: Vec<SnapshotId>,
    /// The index files that were there.
    pub(super) index_files: Vec<IndexId>,
    /// Locks of others that were there: their holders may rely on doomed packs, and are waited for.
    pub(super) locks: usize,
}

/// Who ended a generation.
#[derive(Debug, Serialize, Deserialize)]
struct Claim {
    generation: u64,
    hostname: String,
    pid: u32,
    nonce: Id,
}

/// When a host first saw a list.
#[derive(Debug, Serialize, Deserialize)]
struct Seen {
    since: Time,
    nonce: Id,
}

/// All lists and claims at one moment.
#[derive(Debug, Default)]
pub(super) struct State {
    /// Oldest first.
    pub(super) lists: Vec<DoomList>,
    /// The latest generation that was claimed.
    pub(super) claimed: Option<u64>,
    /// Generations of all claims.
    claims: Vec<u64>,
    /// The latest generation of all.
    latest: u64,
}

impl State {
    /// True when a list may be in the middle of being carried out, by whoever that was.
    pub(super) fn is_claimed(&self, list: &DoomList) -> bool {
        self.claimed.is_some_and(|claimed| claimed >= list.generation)
    }

    /// Every pack on any list.
    pub(super) fn doomed(&self) -> HashSet<PackId> {
        self.lists.iter().flat_map(|list| &list.packs).map(|pack| pack.id).collect()
    }

    /// Packs on lists that were begun: they may vanish at any moment, and never come back into use.
    pub(super) fn going(&self) -> HashSet<PackId> {
        let begun = self.lists.iter().filter(|list| self.is_claimed(list));
        begun.flat_map(|list| &list.packs).map(|pack| pack.id).collect()
    }
}

/// The lists and claims of a repository whose store has room for them.
pub(super) struct Ledger<'a> {
    repository: &'a Repository,
    side: &'a dyn SideStore,
}

impl<'a> Ledger<'a> {
    /// `None` where the store takes no objects beside the repository's own.
    pub(super) fn of(repository: &'a Repository) -> Option<Self> {
        repository.store.side().map(|side| Self { repository, side })
    }

    /// Reads everything there is. A list that is damaged is passed over with a warning: it dooms nothing then.
    pub(super) fn read(&self) -> Result<State> {
        let mut state = State::default();
        for (name, _) in self.side.list_side(FOLDER).context("list doomed packs")? {
            if let Some(generation) = generation_in(&name, CLAIM) {
                state.claims.push(generation);
                state.claimed = state.claimed.max(Some(generation));
                state.latest = state.latest.max(generation);
            } else if let Some(generation) = generation_in(&name, DOOM) {
                state.latest = state.latest.max(generation);
                match self.get(&name) {
                    Ok(list) => state.lists.push(list),
                    // Finished by somebody else since the listing.
                    Err(error) if error.kind() == ErrorKind::Absent => {}
                    Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported) => {
                        tracing::warn!("{name} is damaged and dooms nothing: {}", error.chain());
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        state.lists.sort_by_key(|list| list.generation);
        Ok(state)
    }

    fn get(&self, name: &SideName) -> Result<DoomList> {
        let mut sealed = self.side.get_side(name)?;
        let plain = self.repository.sealer.open_in_place(&mut sealed).with_context(|| format!("open {name}"))?;
        let list: DoomList = serde_json::from_slice(&expand(name, plain)?).with_context(|| format!("read {name}"))?;
        if Some(list.generation) != generation_in(name, DOOM) {
            return Err(Error::corrupt(format!("{name} holds the list of generation {}", list.generation)));
        }
        Ok(list)
    }

    /// Publishes a list under the next free generation, which it gets.
    pub(super) fn publish(&self, list: &mut DoomList) -> Result<()> {
        let mut next = self.read()?.latest + 1;
        loop {
            list.generation = next;
            match self.side.put_side(&name(DOOM, next)?, &self.seal(list)?, SidePut::Create) {
                // Another pruner was faster. Both lists hold.
                Err(error) if error.kind() == ErrorKind::Conflict => next += 1,
                outcome => return outcome.context("publish the list of doomed packs"),
            }
        }
    }

    /// Puts a changed list in the place of its old self.
    pub(super) fn replace(&self, list: &DoomList) -> Result<()> {
        let put = self.side.put_side(&name(DOOM, list.generation)?, &self.seal(list)?, SidePut::Replace);
        put.context("write the list of doomed packs")
    }

    /// True when this very list is there and nobody has begun it, or a later one.
    pub(super) fn is_open(&self, list: &DoomList) -> Result<bool> {
        let state = self.read()?;
        Ok(!state.is_claimed(list) && state.lists.iter().any(|other| other.nonce == list.nonce))
    }

    /// Ends the generation of `list` and all before it, for whoever else might still want to begin or change one of them.
    /// False when somebody else was faster.
    pub(super) fn claim(&self, list: &DoomList) -> Result<bool> {
        let claim = Claim {
            generation: list.generation,
            hostname: crate::lock::hostname(),
            pid: std::process::id(),
            nonce: random_id()?,
        };
        let json = serde_json::to_vec(&claim).map_err(|e| Error::new(ErrorKind::Bug, "encode claim").with_source(e))?;
        let sealed = seal_unpacked(&self.repository.sealer, &json)?;
        match self.side.put_side(&name(CLAIM, list.generation)?, &sealed, SidePut::Create) {
            Err(error) if error.kind() == ErrorKind::Conflict => return Ok(false),
            outcome => outcome.context("claim the list of doomed packs")?,
        }
        let state = self.read()?;
        if state.claimed != Some(list.generation) {
            return Ok(false);
        }
        // The latest alone is asked for.
        for old in state.claims.into_iter().filter(|old| *old < list.generation) {
            self.side.remove_side(&name(CLAIM, old)?)?;
        }
        Ok(true)
    }

    /// For how many seconds this host has known a list, by its own clock alone. If that is from now on, it is noted.
    pub(super) fn known_for(&self, list: &DoomList) -> Result<i64> {
        let (now, host) = ((self.repository.options.clock)(), self.repository.hostname());
        if list.hostname == host && list.published <= now {
            return Ok(now.secs.saturating_sub(list.published.secs));
        }
        let host = Id(sha256(host.as_bytes())).to_string();
        let name = SideName::new(FOLDER, &format!("{SEEN}{:016x}-{}", list.generation, &host[..16]))?;
        match self.side.get_side(&name).and_then(|sealed| notes::open::<Seen>(&self.repository.sealer, &name, sealed)) {
            Ok(seen) if seen.nonce == list.nonce && seen.since <= now => {
                return Ok(now.secs.saturating_sub(seen.since.secs));
            }
            // It is about another list, or this host's clock was ahead and was set right.
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::Absent | ErrorKind::Corrupt) => {}
            Err(error) => return Err(error.context("read since when doomed packs are known")),
        }
        let sealed = notes::seal(&self.repository.sealer, &name, &Seen { since: now, nonce: list.nonce })?;
        self.side.put_side(&name, &sealed, SidePut::Replace).context("note since when doomed packs are known")?;
        Ok(0)
    }

    /// Removes a list of which nothing is left to do.
    pub(super) fn remove(&self, generation: u64) -> Result<()> {
        self.side.remove_side(&name(DOOM, generation)?)?;
        let capabilities = self.repository.store.capabilities();
        if capabilities.list_after_write && capabilities.exclusive_create {
            return Ok(());
        }
        let seen = format!("{SEEN}{generation:016x}-");
        for (name, _) in self.side.list_side(FOLDER)? {
            if name.name().starts_with(&seen) {
                self.side.remove_side(&name)?;
            }
        }
        Ok(())
    }

    fn seal(&self, list: &DoomList) -> Result<Vec<u8>> {
        let json = serde_json::to_vec(list).map_err(|e| Error::new(ErrorKind::Bug, "encode list").with_source(e))?;
        seal_unpacked(&self.repository.sealer, &json)
    }
}

/// Any 32 bytes, each time others.
pub(super) fn random_id() -> Result<Id> {
    let mut bytes = [0; 32];
    crate::crypto::random(&mut bytes)?;
    Ok(Id(bytes))
}

fn name(prefix: &str, generation: u64) -> Result<SideName> {
    SideName::new(FOLDER, &format!("{prefix}{generation:016x}"))
}

fn generation_in(name: &SideName, prefix: &str) -> Option<u64> {
    let digits = name.name().strip_prefix(prefix)?;
    if digits.len() == 16 { u64::from_str_radix(digits, 16).ok() } else { None }
}
