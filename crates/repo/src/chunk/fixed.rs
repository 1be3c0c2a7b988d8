//! Fixed extents, for page files whose pages never shift: a changed page changes one extent and no boundary.

/// Finds the ends of extents of one size; the last of a stream may be shorter.
#[derive(Clone, Debug)]
pub struct Fixed {
    size: usize,
    count: usize,
}

impl Fixed {
    /// A cutter at the start of a stream, for extents of `size` bytes, which must not be zero.
    pub(super) fn new(size: usize) -> Self {
        debug_assert!(size > 0);
        Self { size, count: 0 }
    }

    /// The size of an extent in bytes.
    pub fn size(&self) -> usize {
        self.size
    }

    /// As [`super::Cutter::next_cut`].
    pub fn next_cut(&mut self, data: &[u8]) -> Option<usize> {
        let left = self.size - self.count;
        if data.len() < left {
            self.count += data.len();
            return None;
        }
        self.count = 0;
        Some(left)
    }

    /// Bytes of the current extent seen so far.
    pub fn pending(&self) -> usize {
        self.count
    }

    /// Forgets the current extent, as after a cut.
    pub fn reset(&mut self) {
        self.count = 0;
    }
}
