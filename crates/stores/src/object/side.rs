//! Objects beside the repository's own, in a bucket.

use super::{Bucket, How, Keep, taken};
use bytes::Bytes;
use lastgood_model::store::{SideName, SidePut, SideStore};
use lastgood_model::{Error, ErrorKind, Result};

impl SideStore for Bucket {
    fn put_side(&self, name: &SideName, bytes: &[u8], how: SidePut) -> Result<()> {
        let below = name.path();
        let bytes = Bytes::copy_from_slice(bytes);
        let how = match how {
            SidePut::Create => How::Create,
            SidePut::Replace => How::Replace,
        };
        // Never locked: most of them are to be replaced or removed soon.
        if self.write(&below, &bytes, how, Keep::default())? {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Conflict, taken(&below, &self.shown).message()))
    }

    fn get_side(&self, name: &SideName) -> Result<Vec<u8>> {
        self.read(&name.path())
    }

    fn list_side(&self, folder: &str) -> Result<Vec<(SideName, u64)>> {
        if !SideName::is_part(folder.as_bytes()) {
            return Ok(Vec::new());
        }
        let found = self.listed(&format!("{}/{folder}", SideName::ROOT))?;
        Ok(found
            .into_iter()
            .filter_map(|(below, meta)| Some((SideName::new(folder, &below).ok()?, meta.size)))
            .collect())
    }

    fn remove_side(&self, name: &SideName) -> Result<()> {
        self.remove_below(&name.path())
    }
}
