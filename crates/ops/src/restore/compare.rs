//! Comparing a file that is there with what it should be, blob by blob, so that only differences are fetched.

use super::window::Pending;
use lastgood_model::Result;
use lastgood_repo::sha256::sha256;
use lastgood_sources::files::target::FileHandle;

/// Which blobs of `file` are not already in place. A read error counts as a difference: the blob is written again.
pub(super) fn differing(file: &Pending, handle: &FileHandle, buffer: &mut Vec<u8>) -> Result<Vec<bool>> {
    let content = file.node.content.as_deref().unwrap_or_default();
    let length = handle.len()?;
    let mut differs = vec![true; content.len()];
    for (i, id) in content.iter().enumerate() {
        let (start, end) = (file.offsets[i], file.offsets[i + 1]);
        if end > length || start == end {
            continue;
        }
        buffer.resize((end - start) as usize, 0);
        let whole = matches!(handle.read_at(start, buffer), Ok(n) if n == buffer.len());
        differs[i] = !whole || sha256(buffer) != id.0.0;
    }
    Ok(differs)
}
