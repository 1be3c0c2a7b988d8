//! Room set aside on a disk, so that a repository that has filled it can still be pruned: a lock, a list and an index
//! file must be written before anything can go.

use crate::repository::Repository;
use lastgood_model::store::{SideName, SidePut};
use lastgood_model::{ErrorKind, Result};

/// At most so much is set aside.
const BYTES_MAX: u64 = 4 << 20;
/// And at most this part of the repository.
const SHARE: u64 = 100;

fn name() -> Result<SideName> {
    SideName::new("reserve", "ballast")
}

/// Gives the room up; true when there was any.
pub(super) fn give_up(repository: &Repository) -> Result<bool> {
    let Some(side) = repository.store.side() else { return Ok(false) };
    let name = name()?;
    if !side.list_side(name.folder())?.iter().any(|(other, _)| *other == name) {
        return Ok(false);
    }
    side.remove_side(&name)?;
    tracing::info!("the store is full; the room that was set aside in {name} is used now");
    Ok(true)
}

/// Sets room aside where there is some. Failing to is no failure.
pub(super) fn set_aside(repository: &Repository, repository_bytes: u64) {
    let length = (repository_bytes / SHARE).min(BYTES_MAX);
    let (Some(side), true, Ok(name)) = (repository.store.side(), repository.store.fills_up(), name()) else { return };
    if length == 0 || side.list_side(name.folder()).is_ok_and(|there| there.iter().any(|(other, _)| *other == name)) {
        return;
    }
    // Not zeros: a file system that compresses would set nothing aside.
    let mut bytes = vec![0; length as usize];
    let filled = crate::crypto::random(&mut bytes).and_then(|()| side.put_side(&name, &bytes, SidePut::Create));
    match filled {
        Err(error) if error.kind() != ErrorKind::Conflict => {
            tracing::debug!(error = %error.chain(), "no room is set aside");
        }
        _ => {}
    }
}
