//! The seam in the other direction: what a source has saved in a recovery point, for whoever puts it back.
//!
//! A restore into files is the engine's own business. A restore into a database server is the source's, which knows the
//! server and not the repository; it reads through this.

use crate::{Node, Result};

/// One source's folder in one recovery point.
pub trait SavedFiles: Sync {
    /// The entries of a directory in ascending byte order of names; `path` has its components joined by `/`, and is empty
    /// for the source's folder itself. Equal content has equal [`Node::content`].
    ///
    /// # Errors
    /// [`crate::ErrorKind::Absent`] when there is no such directory.
    fn list(&self, path: &[u8]) -> Result<Vec<Node>>;

    /// A regular file, to be read once from start to end.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Absent`] when there is no such file.
    fn open(&self, path: &[u8]) -> Result<Box<dyn SavedReader + '_>>;

    /// The whole of a file that is known to be small.
    fn read(&self, path: &[u8]) -> Result<Vec<u8>> {
        let (mut reader, mut bytes) = (self.open(path)?, Vec::new());
        while reader.read(&mut bytes)? {}
        Ok(bytes)
    }
}

/// The verified content of one saved file, in order.
pub trait SavedReader: Send {
    /// Appends the next piece to `out`, of no certain length (some MiB at most); `false` at the end of the file, when
    /// nothing was appended.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Corrupt`] when the repository does not have it as it was saved.
    fn read(&mut self, out: &mut Vec<u8>) -> Result<bool>;
}
