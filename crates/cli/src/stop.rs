//! Everybody who has to hear the wish to stop. Each operation has a monitor of its own, so that its counters and problems
//! are its own; a stop reaches them all, those begun later included.

use lastgood_model::Monitor;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Hands out monitors and stops them together.
#[derive(Debug, Default)]
pub(crate) struct Stop(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    stopped: bool,
    monitors: Vec<Weak<Monitor>>,
}

impl Stop {
    /// A monitor for one operation.
    pub(crate) fn monitor(&self) -> Arc<Monitor> {
        let monitor = Arc::new(Monitor::new());
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.stopped {
            monitor.cancel();
        }
        state.monitors.retain(|weak| weak.strong_count() > 0);
        state.monitors.push(Arc::downgrade(&monitor));
        monitor
    }

    /// Asks all to stop; true when that was asked for before.
    pub(crate) fn stop(&self) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.monitors.iter().filter_map(Weak::upgrade).for_each(|monitor| monitor.cancel());
        std::mem::replace(&mut state.stopped, true)
    }

    /// True once a stop was asked for.
    pub(crate) fn is_stopped(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).stopped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_reaches_operations_under_way_and_those_begun_later() {
        let stop = Stop::default();
        let before = stop.monitor();
        assert!(!stop.stop());
        assert!(before.is_cancelled() && stop.monitor().is_cancelled() && stop.is_stopped());
        assert!(stop.stop());
    }
}
