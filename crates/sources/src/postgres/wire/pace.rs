//! How eagerly to take bytes from a server that sends without end.
//!
//! PostgreSQL sends 8 KiB at a time. Whoever waits for each of them is woken a hundred thousand times for a gigabyte, and
//! being waited for costs the server a sixth of its time in `COPY`. So while much is coming, a reader that found little
//! sleeps for a moment and lets it gather: long enough to find some dozens of kilobytes, and never so long that the
//! socket's buffer fills and the server has to wait.

use std::time::Duration;

/// Before so much has come there is no hurry to save anything: a small table should not wait at all.
const FROM_BYTES: u64 = 512 * 1024;
/// Less than this is little; what the socket's buffer holds is 208 KiB where nobody has changed it, with its own costs.
const FEW_BYTES: usize = 48 * 1024;
/// More than this is more than there should be.
const MANY_BYTES: usize = 96 * 1024;
const SHORTEST: Duration = Duration::from_micros(60);
const LONGEST: Duration = Duration::from_micros(1000);

/// Paces the reading of one `COPY`.
#[derive(Debug)]
pub(super) struct Pace {
    received: u64,
    step: Duration,
    next: Option<Duration>,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self { received: 0, step: SHORTEST, next: None }
    }

    /// Takes note of how much was there.
    pub(super) fn received(&mut self, bytes: usize) {
        self.received += bytes as u64;
        if self.received < FROM_BYTES {
            return;
        }
        if bytes < FEW_BYTES {
            self.step = (self.step * 3 / 2).min(LONGEST);
        } else if bytes > MANY_BYTES {
            self.step = (self.step / 2).max(SHORTEST);
        }
        self.next = (bytes <= MANY_BYTES).then_some(self.step);
    }

    /// How long to leave the server alone before looking again. Told once.
    pub(super) fn pause(&mut self) -> Option<Duration> {
        self.next.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(pace: &mut Pace, bytes: usize) -> Option<Duration> {
        pace.received(bytes);
        pace.pause()
    }

    #[test]
    fn small_answers_are_not_waited_for() {
        let mut pace = Pace::new();
        assert!((0..63).all(|_| after(&mut pace, 8192).is_none()));
        assert!(after(&mut pace, 8192).is_some());
        assert_eq!(pace.pause(), None);
    }

    #[test]
    fn a_slow_server_is_left_alone_longer_and_a_fast_one_is_not_kept_waiting() {
        let mut pace = Pace::new();
        let pauses: Vec<_> = (0..200).filter_map(|_| after(&mut pace, 8192)).collect();
        assert!(pauses.is_sorted() && pauses.last() == Some(&LONGEST));
        assert_eq!(after(&mut pace, 200 * 1024), None);
        assert_eq!(after(&mut pace, 64 * 1024), Some(LONGEST / 2));
        (0..20).for_each(|_| pace.received(200 * 1024));
        assert_eq!(after(&mut pace, 64 * 1024), Some(SHORTEST));
    }
}
