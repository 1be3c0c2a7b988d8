//! What is written, handed over piece by piece, so that slow can be told from stuck.

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

/// Bytes in a piece.
const PIECE_BYTES: usize = 256 << 10;
/// How often it is looked whether pieces were taken.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The parts of an object, in order.
pub(super) struct Pieces {
    left: VecDeque<Bytes>,
    bytes: u64,
    taken: Arc<AtomicU64>,
}

impl Pieces {
    /// A copy of `parts`, and how many bytes of it were taken so far.
    pub(super) fn new(parts: &[&[u8]]) -> (Self, Arc<AtomicU64>) {
        let bytes = parts.iter().map(|part| part.len() as u64).sum();
        let left = match parts {
            // Small parts go together.
            parts if bytes <= PIECE_BYTES as u64 => VecDeque::from([Bytes::from(parts.concat())]),
            parts => parts.iter().flat_map(|part| part.chunks(PIECE_BYTES)).map(Bytes::copy_from_slice).collect(),
        };
        let left = left.into_iter().filter(|piece| !piece.is_empty()).collect();
        let taken = Arc::new(AtomicU64::new(0));
        (Self { left, bytes, taken: taken.clone() }, taken)
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        let next = this.left.pop_front();
        if let Some(piece) = &next {
            this.bytes -= piece.len() as u64;
            this.taken.fetch_add(piece.len() as u64, Ordering::Relaxed);
        }
        Poll::Ready(next.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes)
    }
}
