//! Findings as they come in from several threads. Each has a number, by which snapshots and paths are added later.

use super::report::{DAMAGE_MAX, Damage, DamageKind, DamagedObject};
use lastgood_model::store::StoreKey;
use lastgood_model::{Error, ErrorKind};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Collects damage.
#[derive(Debug, Default)]
pub(super) struct Findings {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    damage: Vec<Damage>,
    total: u64,
}

impl Findings {
    /// Adds a finding and returns its number. Beyond the bound all share the number of one catch-all.
    pub(super) fn add(&self, damage: Damage) -> u32 {
        let mut state = lock(&self.state);
        state.total += 1;
        if state.damage.len() == DAMAGE_MAX {
            state.damage.push(Damage::new(DamagedObject::Further, damage.what, ""));
        }
        if state.damage.len() < DAMAGE_MAX {
            state.damage.push(damage);
        }
        state.damage.len() as u32 - 1
    }

    pub(super) fn len(&self) -> usize {
        lock(&self.state).damage.len()
    }

    /// Changes one finding.
    pub(super) fn amend(&self, number: u32, change: impl FnOnce(&mut Damage)) {
        if let Some(damage) = lock(&self.state).damage.get_mut(number as usize) {
            change(damage);
        }
    }

    /// All findings by object, and how many there were.
    pub(super) fn into_list(self) -> (Vec<Damage>, u64) {
        let State { mut damage, total } = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(further) = damage.get_mut(DAMAGE_MAX) {
            further.message = format!("{} more are damaged", total - DAMAGE_MAX as u64);
        }
        damage.sort_by_key(|d| (d.object, d.what));
        (damage, total)
    }
}

/// One thing wrong with one object, before it is known what that means.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    pub(super) what: DamageKind,
    pub(super) message: String,
}

impl Fault {
    pub(super) fn new(what: DamageKind, message: impl Into<String>) -> Self {
        Self { what, message: message.into() }
    }

    /// The finding about a stored object.
    pub(super) fn on(self, key: StoreKey) -> Damage {
        Damage::new(DamagedObject::Stored(key), self.what, self.message)
    }
}

/// Tells damage from trouble that says nothing about the repository: a store that cannot be reached, or a wish to stop,
/// ends the run with an error instead.
pub(super) fn fault_of(error: Error) -> Result<Fault, Error> {
    match error.kind() {
        ErrorKind::Retry | ErrorKind::NoRepository | ErrorKind::Cancelled | ErrorKind::Bug => Err(error),
        ErrorKind::Absent => Ok(Fault::new(DamageKind::Missing, "it is not in the store")),
        ErrorKind::Corrupt => Ok(Fault::new(DamageKind::BadContent, error.chain())),
        _ => Ok(Fault::new(DamageKind::Unreadable, error.chain())),
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lastgood_model::Id;
    use lastgood_model::store::ObjectKind;

    #[test]
    fn findings_beyond_the_bound_are_counted_and_share_one_entry() {
        let findings = Findings::default();
        let key = |n: usize| {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&(n as u64).to_be_bytes());
            StoreKey::new(ObjectKind::Pack, Id(id))
        };
        let last = (0..DAMAGE_MAX + 5).map(|n| findings.add(Fault::new(DamageKind::Missing, "gone").on(key(n)))).last();
        assert_eq!(last, Some(DAMAGE_MAX as u32));
        let (list, total) = findings.into_list();
        assert_eq!((list.len(), total), (DAMAGE_MAX + 1, DAMAGE_MAX as u64 + 5));
        assert_eq!(
            (list[DAMAGE_MAX].object, &*list[DAMAGE_MAX].message),
            (DamagedObject::Further, "5 more are damaged")
        );
    }

    #[test]
    fn a_store_out_of_reach_is_no_damage() {
        for kind in [ErrorKind::Retry, ErrorKind::NoRepository, ErrorKind::Cancelled] {
            assert_eq!(fault_of(Error::new(kind, "x")).unwrap_err().kind(), kind);
        }
        assert_eq!(fault_of(Error::new(ErrorKind::Io, "x")).unwrap().what, DamageKind::Unreadable);
    }
}
