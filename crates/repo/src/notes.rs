//! Notes beside the repository's own objects: small JSON texts in the side directory, sealed with the repository's key.
//!
//! A note says its own name within the seal, so that nobody without the key can pass one off as another by moving it.
//! What nobody can promise is that it is still there: who may remove objects may remove notes.

use crate::crypto::Sealer;
use crate::repository::Repository;
use lastgood_model::store::{SideName, SidePut, SideStore};
use lastgood_model::{Context, Error, ErrorKind, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// No note is longer; what a stranger puts there must not fill memory.
const NOTE_BYTES_MAX: u64 = 16 << 20;

#[derive(Serialize)]
struct Written<'a, T> {
    name: String,
    note: &'a T,
}

#[derive(Deserialize)]
struct Read<T> {
    name: String,
    note: T,
}

/// The stored form of a note.
pub(crate) fn seal(sealer: &Sealer, name: &SideName, note: &impl Serialize) -> Result<Vec<u8>> {
    let json = serde_json::to_vec(&Written { name: name.path(), note })
        .map_err(|e| Error::new(ErrorKind::Bug, "encode note").with_source(e))?;
    sealer.seal(&json)
}

/// The note in what [`seal`] made. [`ErrorKind::Corrupt`] when it is damaged or of another name.
pub(crate) fn open<T: DeserializeOwned>(sealer: &Sealer, name: &SideName, mut sealed: Vec<u8>) -> Result<T> {
    let act = || format!("read {name}");
    let json = sealer.open_in_place(&mut sealed).with_context(act)?;
    let read: Read<T> = serde_json::from_slice(json).with_context(act)?;
    if read.name != name.path() {
        return Err(Error::corrupt(format!("{name} says that it is {}: somebody has moved it", read.name)));
    }
    Ok(read.note)
}

impl Repository {
    /// Whether the store takes notes at all.
    pub fn takes_notes(&self) -> bool {
        self.store.side().is_some()
    }

    fn notes_store(&self) -> Result<&dyn SideStore> {
        self.store.side().ok_or_else(|| {
            Error::new(
                ErrorKind::Unsupported,
                format!("the store at {} takes no objects beside the repository's own", self.store.location()),
            )
            .with_hint("restic's REST protocol has no room for them; any other kind of store has")
        })
    }

    /// Writes a note, durably on return.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] for one that exists and is to be created, [`ErrorKind::Unsupported`] where the store takes
    /// none.
    pub fn put_note(&self, folder: &str, name: &str, note: &impl Serialize, how: SidePut) -> Result<()> {
        let side = SideName::new(folder, name)?;
        let sealed = seal(&self.sealer, &side, note)?;
        self.notes_store()?.put_side(&side, &sealed, how).with_context(|| format!("write {side}"))
    }

    /// Reads a note.
    ///
    /// # Errors
    /// [`ErrorKind::Absent`] when there is none, [`ErrorKind::Corrupt`] for one that is damaged or of another name.
    pub fn note<T: DeserializeOwned>(&self, folder: &str, name: &str) -> Result<T> {
        let side = SideName::new(folder, name)?;
        let sealed = self.notes_store()?.get_side(&side).with_context(|| format!("read {side}"))?;
        open(&self.sealer, &side, sealed)
    }

    /// All notes in a folder by name, sorted. One that cannot be read goes to `damaged`. None where the store takes none.
    pub fn notes<T: DeserializeOwned>(
        &self,
        folder: &str,
        mut damaged: impl FnMut(&str, Error),
    ) -> Result<Vec<(String, T)>> {
        let Some(side) = self.store.side() else { return Ok(Vec::new()) };
        let mut listed = side.list_side(folder).with_context(|| format!("list {}/{folder}", SideName::ROOT))?;
        listed.sort();
        let mut notes = Vec::with_capacity(listed.len());
        for (name, size) in listed {
            let read = match size <= NOTE_BYTES_MAX {
                true => self.note(folder, name.name()),
                false => Err(Error::corrupt(format!("{name} is longer than any note"))),
            };
            match read {
                Ok(note) => notes.push((name.name().to_owned(), note)),
                // Removed by somebody else since the listing.
                Err(error) if error.kind() == ErrorKind::Absent => {}
                Err(error) if error.kind() == ErrorKind::Corrupt => damaged(name.name(), error),
                Err(error) => return Err(error),
            }
        }
        Ok(notes)
    }

    /// Removes a note; removing what is not there succeeds.
    pub fn remove_note(&self, folder: &str, name: &str) -> Result<()> {
        let side = SideName::new(folder, name)?;
        self.notes_store()?.remove_side(&side).with_context(|| format!("remove {side}"))
    }
}
