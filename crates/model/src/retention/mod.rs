//! Which recovery points stay and which may go, and why: pure decisions, without a clock, a disk or a zone of their own.
//!
//! Promised of every plan:
//! - The last good point of each group stays, whatever the rules say, and what is held stays.
//! - More rules, and larger numbers in them, never let a point go that fewer would keep.
//! - Points that are incomplete, or whose dates may be forged, never let another point go.
//! - Carried out, the same plan removes nothing the second time.
//!
//! A group is an application with one set of sources. Each point is judged among those of its group, by the rules of the
//! repository, and where a source has rules of its own also by those: it stays when any of them wants it.

pub mod calendar;
mod judge;
mod plan;
mod policy;
mod rules;
mod simulate;
mod span;
#[cfg(test)]
mod tests;

pub use calendar::{Period, Unit};
pub use judge::{Doubt, FORERUNNERS};
pub use plan::{Group, Hold, Plan, Point, PointSource, Reason, Request, Verdict, has_run_out, plan};
pub use policy::{Policies, Policy};
pub use simulate::{Simulation, Step, rhythm, simulate};
pub use span::{SPAN_FORM, Span};

/// A date that is later than now by more seconds than this has not come yet; clocks may differ by less.
pub const FUTURE_SECS: i64 = 5 * 60;
/// A point that was not there so many seconds after its date did not come when it says. Long captures end days after
/// their date.
pub const LATE_SECS: i64 = 2 * 86_400;
