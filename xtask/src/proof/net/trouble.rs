//! What goes wrong between a store and its server, and when.

use super::ground::Kind;
use lastgood_testkit::line::{Break, Line};
use lastgood_testkit::proxy::{Action, Head, Proxy};
use lastgood_testkit::rng::Rng;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// What stands between, and counts what it broke.
pub(super) enum Between {
    Http(Proxy, Arc<AtomicUsize>),
    Line(Line),
}

impl Between {
    pub(super) fn address(&self) -> SocketAddr {
        match self {
            Self::Http(proxy, _) => proxy.address(),
            Self::Line(line) => line.address(),
        }
    }

    /// How often something was broken.
    pub(super) fn struck(&self) -> usize {
        match self {
            Self::Http(_, struck) => struck.load(Ordering::SeqCst),
            Self::Line(line) => line.broken(),
        }
    }
}

/// How long trouble lasts.
#[derive(Clone, Copy, Debug)]
enum Span {
    /// So many requests, or connections, from this one on.
    Window(usize, usize),
    /// All from this one on.
    From(usize),
    /// One in so many, drawn by chance.
    Some(u64),
}

/// Answers that announce less than comes, and so are cut without a sign of it.
pub(super) const SHORT: &str = "length too short";

/// Trouble for one run.
pub(super) struct Trouble {
    /// For counting.
    pub(super) name: &'static str,
    action: Option<Action>,
    broken: Option<Break>,
    span: Span,
    seed: u64,
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?}", self.name, self.span)?;
        if let Some(action) = &self.action { write!(f, " {action:?}") } else { Ok(()) }
    }
}

impl Trouble {
    /// Draws one that can happen to a store of this kind.
    pub(super) fn draw(kind: Kind, rng: &mut Rng) -> Self {
        let span = match rng.below(8) {
            0..=2 => Span::Window(rng.below(30) as usize, 1),
            3..=4 => Span::Window(rng.below(30) as usize, 2 + rng.below(4) as usize),
            5..=6 => Span::From(rng.below(30) as usize),
            _ => Span::Some(2 + rng.below(6)),
        };
        let seed = rng.next_u64();
        if kind == Kind::Sftp {
            let (name, broken) = *rng.pick(&[("stall", Break::Stall), ("cut", Break::Cut), ("reset", Break::Reset)]);
            // Connections are few.
            let span = match span {
                Span::Window(_, times) => Span::Window(0, times),
                Span::From(_) => Span::From(0),
                some => some,
            };
            return Self { name, action: None, broken: Some(broken), span, seed };
        }
        let bytes = 1 + (10f64.powf(4.5 * rng.unit())) as usize;
        let page = "<html>log in to this network</html>".to_owned();
        let (name, action) = match rng.below(18) {
            0 => ("stall", Action::Stall),
            1 => ("stall of an upload", Action::StallUpload),
            2 => ("stall in an answer", Action::StallAfter(bytes)),
            3 => ("reset", Action::Reset),
            4 | 5 => ("answer cut short", Action::CutAfter(bytes)),
            6 => ("answer lost", Action::LoseAnswer),
            7 => ("length too long", Action::PromiseMore(bytes)),
            8 => (SHORT, Action::PromiseLess(bytes)),
            9 => ("500", Action::error(500, "InternalError")),
            10 => ("500 that tells all", Action::Echo),
            11 => ("502", Action::Answer(502, Vec::new(), "<html>bad gateway</html>".to_owned())),
            12 => ("503", Action::error(503, "SlowDown")),
            13 => ("503 with a time", Action::slow_down(1)),
            14 => ("503 with a long time", Action::slow_down(3600)),
            15 => ("slow answer", Action::Delay(Duration::from_millis(200))),
            16 => ("dripping answer", Action::Drip(Duration::from_millis(2))),
            _ => ("a page of somebody else", Action::Answer(200, vec![("content-type", "text/html".to_owned())], page)),
        };
        if rng.below(7) == 0 {
            return Self { name: "expired credentials", action: Some(expired(kind)), broken: None, span, seed };
        }
        Self { name, action: Some(action), broken: None, span, seed }
    }

    /// Stands before a server.
    pub(super) fn before(self, server: SocketAddr) -> Between {
        let is_hit = move |number: usize, span: Span, seed: u64| match span {
            Span::Window(from, times) => (from..from + times).contains(&number),
            Span::From(from) => number >= from,
            Span::Some(of) => Rng::new(seed ^ number as u64).below(of) == 0,
        };
        let (span, seed) = (self.span, self.seed);
        match (self.action, self.broken) {
            (Some(action), _) => {
                let struck = Arc::new(AtomicUsize::new(0));
                let counted = struck.clone();
                let plan = move |head: &Head| {
                    if !is_hit(head.number, span, seed) {
                        return Action::Pass;
                    }
                    counted.fetch_add(1, Ordering::SeqCst);
                    action.clone()
                };
                Between::Http(Proxy::start(server, plan), struck)
            }
            (None, broken) => {
                let plan = move |number: usize| {
                    let mut rng = Rng::new(seed ^ (number as u64) << 8);
                    let after = (10f64.powf(6.0 * rng.unit())) as u64;
                    broken.filter(|_| is_hit(number, span, seed)).map(|broken| (after, broken))
                };
                Between::Line(Line::start(server, Duration::ZERO, plan))
            }
        }
    }
}

/// What a server says to credentials that were good once.
fn expired(kind: Kind) -> Action {
    match kind {
        Kind::S3 => Action::error(403, "ExpiredToken"),
        Kind::Azure => Action::error(403, "AuthenticationFailed"),
        Kind::Gcs => Action::error(401, "AuthenticationRequired"),
        Kind::Sftp | Kind::Rest => Action::Answer(401, Vec::new(), "Unauthorized".to_owned()),
    }
}
