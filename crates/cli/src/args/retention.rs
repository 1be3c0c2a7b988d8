//! The words of `forget` and `hold`.

use clap::{Args, Subcommand};
use lastgood_model::retention::{Policy, Span, Unit};
use std::num::NonZeroU32;

/// `forget`
#[derive(Debug, Args)]
#[command(after_help = "\
What is kept stands in the config, as `keep` of each repository; --keep-… go in its place. The last good recovery point
of each set of sources always stays, and so does what is held.

Examples:
  lastgood forget --dry-run                    what would go, and why all else stays
  lastgood forget --yes                        as the config says
  lastgood forget --keep-daily 14 --keep-monthly 12
  lastgood forget --simulate 400d              which points there will be
  lastgood forget 1a2b3c4d                     this one, whatever the rules say")]
pub(crate) struct Forget {
    /// These recovery points, whatever the rules say [default: those that no rule keeps]
    #[arg(value_name = "SNAPSHOT")]
    pub(crate) snapshots: Vec<String>,
    #[command(flatten)]
    pub(crate) keep: KeepFlags,
    /// Of this application [default: the config's]
    #[arg(long, value_name = "NAME")]
    pub(crate) app: Option<String>,
    /// Show which recovery points there will be until then, such as 400d; remove nothing
    #[arg(long, value_name = "SPAN", value_parser = calendar_span, conflicts_with_all = ["yes", "dry_run", "snapshots"])]
    pub(crate) simulate: Option<Span>,
    /// With --simulate: how often a recovery point is taken [default: as often as until now]
    #[arg(long, value_name = "SPAN", value_parser = super::span, requires = "simulate")]
    pub(crate) every: Option<std::time::Duration>,
    /// Show the plan, remove nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Do what the plan says without asking
    #[arg(long)]
    pub(crate) yes: bool,
    /// Free the space that only they took, too
    #[arg(long, conflicts_with = "simulate")]
    pub(crate) prune: bool,
    /// Do it although the newest points look wrong, or it is the last good one: the application's or repository's name
    #[arg(long, value_name = "NAME")]
    pub(crate) even_though: Option<String>,
}

/// What to keep, in place of what the config says.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "What to keep, in place of what the config says")]
pub(crate) struct KeepFlags {
    /// The newest so many
    #[arg(long, value_name = "N", conflicts_with = "snapshots")]
    pub(crate) keep_last: Option<NonZeroU32>,
    /// One for each of so many hours that have any
    #[arg(long, value_name = "N", conflicts_with = "snapshots")]
    pub(crate) keep_hourly: Option<NonZeroU32>,
    /// One for each of so many days
    #[arg(long, value_name = "N", conflicts_with = "snapshots")]
    pub(crate) keep_daily: Option<NonZeroU32>,
    /// One for each of so many ISO weeks
    #[arg(long, value_name = "N", conflicts_with = "snapshots")]
    pub(crate) keep_weekly: Option<NonZeroU32>,
    /// One for each of so many months
    #[arg(long, value_name = "N", conflicts_with = "snapshots")]
    pub(crate) keep_monthly: Option<NonZeroU32>,
    /// One for each of so many quarters
    #[arg(long, value_name = "N", conflicts_with = "snapshots")]
    pub(crate) keep_quarterly: Option<NonZeroU32>,
    /// One for each of so many years
    #[arg(long, value_name = "N", conflicts_with = "snapshots")]
    pub(crate) keep_yearly: Option<NonZeroU32>,
    /// All that are older than the newest by less than this, such as 30d or 6mo
    #[arg(long, value_name = "SPAN", value_parser = calendar_span, conflicts_with = "snapshots")]
    pub(crate) keep_within: Option<Span>,
    /// Those with this tag; with `a,b` those that have both. May be given several times
    #[arg(long, value_name = "TAG", conflicts_with = "snapshots")]
    pub(crate) keep_tag: Vec<String>,
    /// The zone whose calendar counts [default: as configured, else that of this machine]
    #[arg(long, value_name = "ZONE")]
    pub(crate) time_zone: Option<String>,
}

impl KeepFlags {
    /// The rules that were given.
    pub(crate) fn policy(&self) -> Policy {
        let mut policy = Policy {
            last: self.keep_last.map_or(0, NonZeroU32::get),
            within: self.keep_within,
            tags: self.keep_tag.clone(),
            ..Policy::default()
        };
        for (unit, count) in [
            (Unit::Hour, self.keep_hourly),
            (Unit::Day, self.keep_daily),
            (Unit::Week, self.keep_weekly),
            (Unit::Month, self.keep_monthly),
            (Unit::Quarter, self.keep_quarterly),
            (Unit::Year, self.keep_yearly),
        ] {
            if let Some(count) = count {
                policy.counts.insert(unit, count.get());
            }
        }
        policy
    }
}

/// `hold …`
#[derive(Debug, Subcommand)]
pub(crate) enum Hold {
    /// Keep a recovery point whatever the rules say
    Add {
        /// Which recovery point
        #[arg(value_name = "SNAPSHOT")]
        snapshot: String,
        /// Why
        #[arg(long, value_name = "TEXT")]
        reason: String,
        /// Until the beginning of this day, such as 2027-01-31, or this moment [default: for good]
        #[arg(long, value_name = "DATE", conflicts_with = "for_span")]
        until: Option<String>,
        /// For so long, such as 90d
        #[arg(long = "for", id = "for_span", value_name = "SPAN", value_parser = calendar_span)]
        span: Option<Span>,
    },
    /// List holds
    List,
    /// Lift the hold on a recovery point
    Remove {
        /// Which recovery point
        #[arg(value_name = "SNAPSHOT")]
        snapshot: String,
    },
}

fn calendar_span(text: &str) -> Result<Span, String> {
    match text.parse::<Span>() {
        Ok(span) if !span.is_zero() => Ok(span),
        Ok(_) => Err("it must not be zero".to_owned()),
        Err(error) => Err(error.hint().unwrap_or_default().to_owned()),
    }
}
