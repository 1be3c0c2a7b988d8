//! Lists of objects: version 2 of the protocol tells sizes, version 1 names alone.

use super::RestStore;
use super::answer::Act;
use crate::bridge::Pulse;
use crate::together::together;
use lastgood_model::store::{ObjectKind, StoreKey};
use lastgood_model::{Error, ErrorKind, Id, Result};

/// Sizes asked for at once where the list does not tell them.
const SIZES_AT_ONCE: usize = 16;

#[derive(serde::Deserialize)]
struct Entry {
    name: String,
    size: u64,
}

/// Ids and sizes; names that are no ids are passed over.
pub(super) fn with_sizes(text: &[u8]) -> Result<Vec<(Id, u64)>> {
    let entries: Option<Vec<Entry>> = serde_json::from_slice(text).map_err(no_list)?;
    let entries = entries.unwrap_or_default().into_iter();
    Ok(entries.filter_map(|entry| Some((id(&entry.name)?, entry.size))).collect())
}

/// Ids alone.
pub(super) fn names(text: &[u8]) -> Result<Vec<Id>> {
    let names: Option<Vec<String>> = serde_json::from_slice(text).map_err(no_list)?;
    Ok(names.unwrap_or_default().iter().filter_map(|name| id(name)).collect())
}

/// An answer that is no list says nothing about what is there.
fn no_list(error: serde_json::Error) -> Error {
    Error::new(ErrorKind::Retry, "the answer is no list of objects").with_source(error)
}

fn id(name: &str) -> Option<Id> {
    // Ids are written in lower case; another name for the same id would be another object.
    name.parse::<Id>().ok().filter(|id| id.to_string() == name)
}

impl RestStore {
    /// Asks for the size of each. What vanished since it was listed is left out.
    pub(super) async fn sizes(&self, kind: ObjectKind, ids: Vec<Id>, pulse: &Pulse) -> Result<Vec<(Id, u64)>> {
        let mut found = Vec::with_capacity(ids.len());
        for some in ids.chunks(SIZES_AT_ONCE) {
            let asked = some.iter().map(|id| async move {
                let key = StoreKey::new(kind, *id);
                self.look(Act("examine", &key), &key, pulse).await.map(|size| size.map(|size| (*id, size)))
            });
            for size in together(asked.collect()).await {
                found.extend(size?);
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_of_a_list_are_read_and_foreign_names_passed_over() {
        let hex = "ab".repeat(32);
        let text = format!(
            r#"[{{"name":"{hex}","size":7}},{{"name":"README","size":1}},{{"name":"{}","size":1}}]"#,
            hex.to_uppercase()
        );
        assert_eq!(with_sizes(text.as_bytes()).unwrap(), [(Id([0xab; 32]), 7)]);
        assert_eq!(names(format!(r#"["{hex}","x"]"#).as_bytes()).unwrap(), [Id([0xab; 32])]);
        assert_eq!(with_sizes(b"null").unwrap(), []);
        assert!(with_sizes(b"<html>").is_err());
    }
}
