//! What goes wrong.

use super::proxy::{Proxy, Weather};
use super::shop::Shop;
use anyhow::{Context, Result, bail};
use lastgood_testkit::rng::Rng;
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::process::Child;
use std::time::Duration;

/// A kind of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(super) enum Harm {
    /// lastgood is killed with SIGKILL.
    KillClient,
    /// lastgood is asked to end.
    StopClient,
    /// A process of the server that works for lastgood is killed, and all others end with it.
    KillBackend,
    /// The server ends at once, as in a crash, and is started again.
    CrashServer,
    /// The server is stopped in order, and started again.
    RestartServer,
    /// All connections are hung up.
    Cut,
    /// One connection is hung up.
    CutOne,
    /// All connections break.
    Reset,
    /// One connection breaks.
    ResetOne,
    /// Nothing passes any more, and nobody is told.
    Stall,
    /// The same for one connection.
    StallOne,
    /// Nothing passes for a while.
    Pause,
    /// The session that holds the snapshot, or any that waits for lastgood, is ended.
    TerminateIdle,
    /// A session that works is ended.
    TerminateBusy,
    /// A statement is cancelled.
    Cancel,
    /// Others change definitions all the time.
    Definitions,
    /// The repository's disk is full.
    Disk,
}

/// What is going on when it comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    Backup,
    Restore,
}

impl Phase {
    pub(super) fn is_restore(self) -> bool {
        self == Self::Restore
    }
}

impl Harm {
    const ALL: [Self; 17] = [
        Self::KillClient,
        Self::StopClient,
        Self::KillBackend,
        Self::CrashServer,
        Self::RestartServer,
        Self::Cut,
        Self::CutOne,
        Self::Reset,
        Self::ResetOne,
        Self::Stall,
        Self::StallOne,
        Self::Pause,
        Self::TerminateIdle,
        Self::TerminateBusy,
        Self::Cancel,
        Self::Definitions,
        Self::Disk,
    ];

    /// All that can happen in a phase, in a random order.
    pub(super) fn some(phase: Phase, rng: &mut Rng) -> Vec<Self> {
        let fits = |harm: &Self| !phase.is_restore() || !matches!(harm, Self::Definitions | Self::Disk);
        let can = |harm: &Self| *harm != Self::Disk || super::disk::can_be_made();
        let mut all: Vec<Self> = Self::ALL.into_iter().filter(|harm| fits(harm) && can(harm)).collect();
        for at in (1..all.len()).rev() {
            all.swap(at, rng.below(at as u64 + 1) as usize);
        }
        all
    }

    /// Whether a run that it comes to must succeed all the same.
    pub(super) fn is_harmless(self) -> bool {
        self == Self::Pause
    }
}

/// Does it to a run. False when there was nothing to hit.
pub(super) fn strike(harm: Harm, child: &mut Child, shop: &mut Shop, proxy: &Proxy, rng: &mut Rng) -> Result<bool> {
    let draw = rng.next_u64() >> 1;
    let signal_client =
        |child: &Child, signal| -> Result<bool> { Ok(kill_process(Pid::from_child(child), signal).is_ok()) };
    match harm {
        Harm::KillClient => signal_client(child, Signal::KILL),
        Harm::StopClient => signal_client(child, Signal::TERM),
        Harm::KillBackend => {
            let Some(pid) = session(shop, "", draw)? else { return Ok(false) };
            Ok(kill_process(pid, Signal::KILL).is_ok())
        }
        Harm::CrashServer => {
            let Some(&first) = shop.server.processes().first() else { bail!("the server does not run") };
            let first = Pid::from_raw(first).context("the server's process")?;
            kill_process(first, Signal::QUIT)?;
            std::thread::sleep(Duration::from_millis(draw % 500));
            shop.server.restart();
            Ok(true)
        }
        Harm::RestartServer => {
            shop.server.stop();
            std::thread::sleep(Duration::from_millis(draw % 500));
            shop.server.restart();
            Ok(true)
        }
        Harm::Cut => Ok(proxy.change(Weather::Cut, None)),
        Harm::CutOne => Ok(proxy.change(Weather::Cut, Some(draw))),
        Harm::Reset => Ok(proxy.change(Weather::Reset, None)),
        Harm::ResetOne => Ok(proxy.change(Weather::Reset, Some(draw))),
        Harm::Stall => Ok(proxy.change(Weather::Stalled, None)),
        Harm::StallOne => Ok(proxy.change(Weather::Stalled, Some(draw))),
        Harm::Pause => {
            let is_felt = proxy.change(Weather::Stalled, None);
            std::thread::sleep(Duration::from_millis(100 + draw % 700));
            proxy.change(Weather::Fair, None);
            Ok(is_felt)
        }
        Harm::TerminateIdle => tell(shop, "pg_terminate_backend", "AND state <> 'active'", draw),
        Harm::TerminateBusy => tell(shop, "pg_terminate_backend", "AND state = 'active'", draw),
        Harm::Cancel => tell(shop, "pg_cancel_backend", "AND state = 'active'", draw),
        Harm::Definitions | Harm::Disk => bail!("{harm:?} is no event"),
    }
}

/// A session of lastgood, chosen by `draw`.
fn session(shop: &Shop, which: &str, draw: u64) -> Result<Option<Pid>> {
    let sql = format!(
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'lastgood' AND backend_type = 'client backend' {which} \
         ORDER BY backend_start"
    );
    let found = shop.sql("postgres", &sql)?;
    let pids: Vec<i32> = found.lines().filter_map(|line| line.parse().ok()).collect();
    Ok(pids.get(draw as usize % pids.len().max(1)).and_then(|&pid| Pid::from_raw(pid)))
}

fn tell(shop: &Shop, what: &str, which: &str, draw: u64) -> Result<bool> {
    let Some(pid) = session(shop, which, draw)? else { return Ok(false) };
    Ok(shop.sql("postgres", &format!("SELECT {what}({})", pid.as_raw_nonzero()))? == "t")
}

/// How often each happened in each phase.
pub(super) fn counts(done: impl Iterator<Item = (Phase, Harm)>) -> BTreeMap<String, u64> {
    let mut out = BTreeMap::new();
    for (phase, harm) in done {
        *out.entry(format!("{phase:?}.{harm:?}").to_lowercase()).or_default() += 1;
    }
    out
}
