//! The command line as it is written. What it means is decided later, together with config and environment.

mod retention;

pub(crate) use retention::{Forget, Hold};

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use lastgood_model::PackId;
use lastgood_repo::gc::MaxUnused;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

const EXAMPLES: &str = "\
Examples:
  lastgood protect ./shop.db ./uploads         write a config, take the first recovery point, prove it
  lastgood protect postgres://localhost/shop   the same with a PostgreSQL database
  lastgood backup                              take the next recovery point
  lastgood snapshots                           list recovery points
  lastgood restore latest --to ./restored      restore the newest into a folder
  lastgood restore latest --in-place           restore it to where it came from, after showing a plan
  lastgood verify                              read every byte in the repository

From nothing but a repository and its key, on an empty machine:
  lastgood restore latest --repo /mnt/backups --key-file lastgood.key --to ./restored";

/// Protects an application's databases and files as one recovery point, and proves that it can be restored.
#[derive(Debug, Parser)]
#[command(name = "lastgood", version, after_help = EXAMPLES, propagate_version = true, max_term_width = 110)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Options for every command")]
pub(crate) struct Global {
    /// The config file [default: $LASTGOOD_CONFIG, ./lastgood.toml, then the user's and the system's]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The repository: a name from the config, or a path or URL
    #[arg(long, visible_alias = "repository", global = true, value_name = "NAME|URL")]
    pub(crate) repo: Option<OsString>,
    /// The file with the repository's key [env: LASTGOOD_KEY_FILE, or the key itself in LASTGOOD_KEY]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) key_file: Option<PathBuf>,
    /// How results are printed; everything else goes to standard error
    #[arg(long, global = true, value_enum, default_value_t = Format::Human, value_name = "FORMAT")]
    pub(crate) output: Format,
    /// Say more; twice for even more
    #[arg(short, long, global = true, action = clap::ArgAction::Count, conflicts_with = "quiet")]
    pub(crate) verbose: u8,
    /// Say nothing but results and errors
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// Keep no local cache of the repository's index
    #[arg(long, global = true)]
    pub(crate) no_cache: bool,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Human,
    /// One JSON document.
    Json,
    /// One JSON object a line.
    Ndjson,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start here: protect these databases and folders now, and prove that they can be restored
    Protect(Protect),
    /// Make the repository, and the key file when there is none
    Init(Init),
    /// Take a recovery point of every source
    Backup(Backup),
    /// Restore a recovery point, or part of one
    Restore(Restore),
    /// Copy recovery points into another repository, sending only what is missing there
    Copy(CopyPoints),
    /// List recovery points
    Snapshots(Snapshots),
    /// List what is in a recovery point
    Ls(Ls),
    /// Write a file of a recovery point to standard output
    Cat(Cat),
    /// Find entries by name in recovery points
    Find(Find),
    /// Show what differs between two recovery points
    Diff(Diff),
    /// Check the repository's structure and every reference, without reading all data
    Check(Check),
    /// Read and verify every byte in the repository
    Verify(Verify),
    /// Remove recovery points that no rule keeps, or those that are named
    Forget(Box<Forget>),
    /// Keep single recovery points whatever the rules say
    #[command(subcommand)]
    Hold(Hold),
    /// Say in one sentence how well the application is protected, and what is missing
    Status,
    /// Remove from the repository what no recovery point needs any more
    Prune(Prune),
    /// Save what can be saved of a damaged repository; only ever adds to it
    #[command(subcommand)]
    Repair(Repair),
    /// Manage the repository's keys
    #[command(subcommand)]
    Key(Key),
    /// Check and show the config
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Look for whatever could stand in the way of the next backup or restore
    Doctor(Doctor),
    /// Print a completion script for a shell
    Completions(Completions),
}

/// `protect`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lastgood protect ./shop.db ./uploads
  lastgood protect postgres://shop@db.example/shop ./uploads
  lastgood protect ./shop.db --repo /mnt/backups/shop

A URL that holds a password is kept in a file of its own, readable for its owner alone; the config names that file.
Running it again takes another recovery point, and adds what is new to the config.")]
pub(crate) struct Protect {
    /// SQLite databases, folders and files; URLs of PostgreSQL databases
    #[arg(required = true, value_name = "PATH|URL")]
    pub(crate) paths: Vec<OsString>,
    /// Where to restore to for the proof [default: beside the repository]
    #[arg(long, value_name = "DIR")]
    pub(crate) scratch: Option<PathBuf>,
}

/// `init`
#[derive(Debug, Args)]
#[command(after_help = "\
With --copy-of both repositories share one master key, so that copies between them move as they are sealed.
Each has a key of its own, and yet: whoever gets hold of one of the two keys can read both repositories.

Examples:
  lastgood init
  lastgood init --repo offsite --copy-of local")]
pub(crate) struct Init {
    /// Share the master key, and where files are cut, with this repository: a name from the config, or a path or URL
    #[arg(long, value_name = "NAME|URL")]
    pub(crate) copy_of: Option<OsString>,
    /// The file with the key of that other repository [default: as configured, else the same as for the new one]
    #[arg(long, value_name = "FILE", requires = "copy_of")]
    pub(crate) from_key_file: Option<PathBuf>,
    /// Say what would be made, make nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// `backup`
#[derive(Debug, Args)]
#[command(after_help = "\
A recovery point in which something is missing is kept and marked incomplete; the exit code is then 3.

Examples:
  lastgood backup
  lastgood backup db --reason 'before the migration'
  lastgood backup --force --compression max")]
pub(crate) struct Backup {
    /// Only these sources [default: all]
    #[arg(value_name = "SOURCE")]
    pub(crate) sources: Vec<String>,
    /// Read every file, also those that seem unchanged
    #[arg(long)]
    pub(crate) force: bool,
    /// Why this recovery point is taken; kept in it
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
    /// A tag for it; may be given several times
    #[arg(long = "tag", value_name = "TAG")]
    pub(crate) tags: Vec<String>,
    /// Read and count, store nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// How hard to compress [default: as configured, else balanced]
    #[arg(long, value_enum, value_name = "LEVEL")]
    pub(crate) compression: Option<CompressionLevel>,
    /// How long to wait while somebody removes things from the repository
    #[arg(long, value_name = "SPAN", default_value = LOCK_WAIT, value_parser = wait)]
    pub(crate) lock_wait: Duration,
}

/// How long writers wait for whoever deletes; it does so briefly.
const LOCK_WAIT: &str = "5m";
/// The same where nobody was asked.
pub(crate) const LOCK_WAIT_DEFAULT: Duration = Duration::from_secs(300);

/// How hard to compress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CompressionLevel {
    /// Least work.
    Fast,
    /// A good ratio at the speed of most disks.
    Balanced,
    /// Smallest.
    Max,
    /// None.
    Off,
}

/// `restore`
#[derive(Debug, Args)]
#[command(after_help = "\
A recovery point is named by `latest`, `latest~2`, the beginning of its id, `before:2026-05-01T10:00Z`, or `app:NAME`.

Examples:
  lastgood restore latest --to ./restored
  lastgood restore latest --to ./restored --path /srv/shop/uploads/logo.png
  lastgood restore before:2026-05-01 --in-place
  lastgood restore latest --source db --to postgres://localhost/shop_restored
  lastgood restore latest --source db --to postgres://localhost/shop --table orders --as orders_yesterday
  lastgood restore latest --repo /mnt/backups --key-file lastgood.key --to ./restored")]
pub(crate) struct Restore {
    /// Which recovery point
    #[arg(value_name = "SNAPSHOT")]
    pub(crate) snapshot: String,
    /// Restore below this folder, as DIR/<source>/…; or into this database of a PostgreSQL server
    #[arg(long, value_name = "DIR|URL", conflicts_with = "in_place")]
    pub(crate) to: Option<PathBuf>,
    /// Restore to where everything came from; shows a plan first
    #[arg(long)]
    pub(crate) in_place: bool,
    /// Only this source; may be given several times
    #[arg(long = "source", value_name = "SOURCE")]
    pub(crate) sources: Vec<String>,
    /// Only this path and what is below it: the original absolute path, or `<source>/…`; may be given several times
    #[arg(long = "path", value_name = "PATH")]
    pub(crate) paths: Vec<OsString>,
    /// Overwrite what is there and differs
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// Remove what is there and not in the recovery point, within restored folders
    #[arg(long)]
    pub(crate) delete: bool,
    /// Do what the plan says without asking
    #[arg(long)]
    pub(crate) yes: bool,
    /// Replace a database although a process has it open
    #[arg(long)]
    pub(crate) force: bool,
    /// Show the plan, restore nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Whom restored files belong to [default: numeric for root, skip for anyone else]
    #[arg(long, value_enum, value_name = "HOW")]
    pub(crate) owners: Option<Owners>,
    #[command(flatten)]
    pub(crate) server: RestoreServer,
}

/// What only a restore into a server takes.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Options for a restore into a PostgreSQL server")]
pub(crate) struct RestoreServer {
    /// Which database of the source, when it has several
    #[arg(long, value_name = "NAME")]
    pub(crate) database: Option<String>,
    /// Only this table, with its indexes and constraints: `table` or `schema.table`; may be given several times
    #[arg(long = "table", value_name = "TABLE")]
    pub(crate) tables: Vec<String>,
    /// Restore the one table that --table names under this name, beside the old one
    #[arg(long = "as", value_name = "NAME", requires = "tables")]
    pub(crate) rename: Option<String>,
    /// Only this schema; may be given several times
    #[arg(long = "schema", value_name = "SCHEMA")]
    pub(crate) schemas: Vec<String>,
    /// Not this table; may be given several times
    #[arg(long = "exclude-table", value_name = "TABLE")]
    pub(crate) exclude_tables: Vec<String>,
    /// No rows
    #[arg(long, conflicts_with = "data_only")]
    pub(crate) schema_only: bool,
    /// Only rows, into tables that are there
    #[arg(long)]
    pub(crate) data_only: bool,
    /// Everything belongs to the role that restores
    #[arg(long)]
    pub(crate) no_owner: bool,
    /// No privileges
    #[arg(long)]
    pub(crate) no_acl: bool,
    /// Make roles that the server lacks, as they were saved
    #[arg(long)]
    pub(crate) roles: bool,
    /// Go on past definitions that fail once the rows are there, and name them at the end (exit code 3)
    #[arg(long)]
    pub(crate) continue_past_errors: bool,
    /// How many connections work at once [default: the number of cores, at least 2 and at most 8]
    #[arg(long, value_name = "N")]
    pub(crate) jobs: Option<std::num::NonZeroUsize>,
}

impl RestoreServer {
    /// The flags that were given, as they are written.
    pub(crate) fn given(&self) -> Vec<&'static str> {
        [
            ("--database", self.database.is_some()),
            ("--table", !self.tables.is_empty()),
            ("--as", self.rename.is_some()),
            ("--schema", !self.schemas.is_empty()),
            ("--exclude-table", !self.exclude_tables.is_empty()),
            ("--schema-only", self.schema_only),
            ("--data-only", self.data_only),
            ("--no-owner", self.no_owner),
            ("--no-acl", self.no_acl),
            ("--roles", self.roles),
            ("--continue-past-errors", self.continue_past_errors),
            ("--jobs", self.jobs.is_some()),
        ]
        .into_iter()
        .filter_map(|(flag, given)| given.then_some(flag))
        .collect()
    }
}

/// Whom restored files belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Owners {
    /// The recorded numbers.
    Numeric,
    /// The recorded names as this host knows them.
    Names,
    /// Whoever restores.
    Skip,
}

/// `copy`
#[derive(Debug, Args)]
#[command(after_help = "\
Points that are there already are not sent again, and of the others only what is lacking there.
A copy that was interrupted is continued by running it again.

Examples:
  lastgood copy local offsite                    whatever offsite lacks
  lastgood copy local offsite latest             only the newest recovery point
  lastgood copy offsite ./rebuilt --key-file k   into a repository that the config does not name")]
pub(crate) struct CopyPoints {
    /// Where recovery points are taken from: a name from the config, or a path or URL
    #[arg(value_name = "FROM")]
    pub(crate) from: OsString,
    /// Where they are copied to: a name from the config, or a path or URL
    #[arg(value_name = "TO")]
    pub(crate) to: OsString,
    /// Which recovery points [default: all that are missing there]
    #[arg(value_name = "SNAPSHOT")]
    pub(crate) snapshots: Vec<String>,
    /// The file with the key of FROM [default: as configured, else the same as for TO]
    #[arg(long, value_name = "FILE")]
    pub(crate) from_key_file: Option<PathBuf>,
    /// Send also what TO has lost of recovery points that it has: packs that are gone or cut short
    #[arg(long)]
    pub(crate) mend: bool,
    /// Tell what would be sent, send nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// How long to wait while somebody removes things from TO
    #[arg(long, value_name = "SPAN", default_value = LOCK_WAIT, value_parser = wait)]
    pub(crate) lock_wait: Duration,
}

/// `snapshots`
#[derive(Debug, Args)]
pub(crate) struct Snapshots {
    /// Only those of this application
    #[arg(long, value_name = "NAME")]
    pub(crate) app: Option<String>,
    /// Only the newest so many
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
    /// Those that `forget` has removed: what they were, when they went, by whom and why
    #[arg(long)]
    pub(crate) removed: bool,
}

/// `ls`
#[derive(Debug, Args)]
pub(crate) struct Ls {
    /// Which recovery point
    #[arg(value_name = "SNAPSHOT")]
    pub(crate) snapshot: String,
    /// What to list: `<source>/…` or an original absolute path [default: the sources]
    #[arg(value_name = "PATH")]
    pub(crate) path: Option<OsString>,
    /// Modes, owners, sizes and times
    #[arg(short, long)]
    pub(crate) long: bool,
    /// Everything below, too
    #[arg(short = 'R', long)]
    pub(crate) recursive: bool,
}

/// `cat`
#[derive(Debug, Args)]
pub(crate) struct Cat {
    /// Which recovery point
    #[arg(value_name = "SNAPSHOT")]
    pub(crate) snapshot: String,
    /// The file: `<source>/…` or its original absolute path
    #[arg(value_name = "PATH")]
    pub(crate) path: OsString,
}

/// `find`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lastgood find '*.jpg'                            by name, in the newest recovery point
  lastgood find 'uploads/**/2026/*' --snapshot all by path, in all of them
  lastgood find '/srv/shop/uploads/**'             by original path")]
pub(crate) struct Find {
    /// A pattern with *, ?, [..] and {a,b}. With a slash it must fit the whole path, else the name
    #[arg(value_name = "PATTERN")]
    pub(crate) pattern: String,
    /// Where to look: a recovery point, or `all`
    #[arg(long, value_name = "SNAPSHOT", default_value = "latest")]
    pub(crate) snapshot: String,
    /// Upper and lower case are the same
    #[arg(short, long)]
    pub(crate) ignore_case: bool,
}

/// `diff`
#[derive(Debug, Args)]
#[command(after_help = "\
Each line begins with + (added), - (removed), M (content differs), U (only metadata differs) or T (another kind).
With --source NAME of a PostgreSQL source, tables and other objects are compared instead of files.")]
pub(crate) struct Diff {
    /// The older recovery point
    #[arg(value_name = "A")]
    pub(crate) old: String,
    /// The newer recovery point
    #[arg(value_name = "B")]
    pub(crate) new: String,
    /// Only below this path: `<source>/…` or an original absolute path
    #[arg(value_name = "PATH", conflicts_with = "source")]
    pub(crate) path: Option<OsString>,
    /// Only this source; of a PostgreSQL source, its tables with their rows and whatever else its schema has
    #[arg(long, value_name = "SOURCE")]
    pub(crate) source: Option<String>,
    /// Only the totals
    #[arg(long)]
    pub(crate) stat: bool,
}

/// `check`
#[derive(Debug, Args)]
pub(crate) struct Check {}

/// `verify`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  lastgood verify                        read everything
  lastgood verify --sample 5%            read a random part
  lastgood verify --within 30d           read what is due, so that daily runs cover everything in 30 days")]
pub(crate) struct Verify {
    /// Read only a random part of the repository, such as 5%
    #[arg(long, value_name = "PERCENT", conflicts_with = "within", value_parser = percent)]
    pub(crate) sample: Option<f64>,
    /// Read what has not been read for so long that it would not be read again within this time
    #[arg(long, value_name = "SPAN", value_parser = span)]
    pub(crate) within: Option<std::time::Duration>,
}

/// `prune`
#[derive(Debug, Args)]
#[command(after_help = "\
It runs beside backups. Only at its end must it be alone for a moment: while a backup runs, what is to go is listed, and
the next prune removes it.

Examples:
  lastgood prune --dry-run                     say what would go
  lastgood prune                               remove it
  lastgood prune --max-unused unlimited        remove only what needs nothing to be moved
  lastgood prune --max-repack 10GiB --max-time 1h")]
pub(crate) struct Prune {
    /// Say what would be removed and moved, do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// How much may stay that nobody needs: a share of the repository, a size, or `unlimited`
    #[arg(long, value_name = "AMOUNT", default_value = "5%", value_parser = max_unused)]
    pub(crate) max_unused: MaxUnused,
    /// Move at most so many bytes out of packs that are mostly not needed
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) max_repack: Option<u64>,
    /// Begin nothing more to be moved after this time
    #[arg(long, value_name = "SPAN", value_parser = span)]
    pub(crate) max_time: Option<Duration>,
    /// How long to wait for others who are at work in the repository
    #[arg(long, value_name = "SPAN", default_value = "10s", value_parser = wait)]
    pub(crate) lock_wait: Duration,
}

/// `repair …`
#[derive(Debug, Subcommand)]
pub(crate) enum Repair {
    /// List packs in an index file again that no readable one lists
    Index,
    /// Save what can still be read of damaged packs into new ones
    Packs {
        /// The damaged packs [default: those that reading the whole repository finds]
        #[arg(value_name = "PACK")]
        packs: Vec<PackId>,
    },
    /// Make a recovery point beside each damaged one, without what cannot be read
    Snapshots {
        /// Read all content, not only directories
        #[arg(long)]
        read_data: bool,
    },
}

/// `key …`
#[derive(Debug, Subcommand)]
pub(crate) enum Key {
    /// List the keys that open the repository
    List,
    /// Add a key, made anew unless the file exists, that opens the same repository
    Add {
        /// The file with the new key
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Remove a key; the one in use stays
    Remove {
        /// The beginning of its id
        #[arg(value_name = "ID")]
        id: String,
        /// Do it without asking
        #[arg(long)]
        yes: bool,
    },
    /// Make a new key file, for a repository to be made
    Generate {
        /// The file to write
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

/// `config …`
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Check the config, every source in it, and every key
    Check,
    /// Print the effective config, and where each value came from
    Show,
    /// Print the JSON Schema of the config file
    Schema,
}

/// `doctor`
#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Print SQL that makes a role which may capture this PostgreSQL source, and nothing more
    #[arg(long, value_name = "SOURCE")]
    pub(crate) grants: Option<String>,
    /// With --grants: how the role is called, `lastgood_backup` when not given
    #[arg(long, value_name = "NAME", requires = "grants")]
    pub(crate) role: Option<String>,
}

/// `completions`
#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// Which shell
    #[arg(value_name = "SHELL", value_enum)]
    pub(crate) shell: Shell,
}

/// A share such as `5%` or `5`, in percent.
fn percent(text: &str) -> Result<f64, String> {
    let number: f64 =
        text.trim_end_matches('%').trim().parse().map_err(|_| "write a percentage such as 5%".to_owned())?;
    if number > 0.0 && number <= 100.0 { Ok(number) } else { Err("it must be above 0% and at most 100%".to_owned()) }
}

fn max_unused(text: &str) -> Result<MaxUnused, String> {
    if text == "unlimited" {
        return Ok(MaxUnused::Unlimited);
    }
    if let Some(share) = text.strip_suffix('%') {
        let share: f64 = share.trim().parse().map_err(|_| "write a percentage such as 5%".to_owned())?;
        return if (0.0..=100.0).contains(&share) {
            Ok(MaxUnused::Percent(share))
        } else {
            Err("at most 100%".to_owned())
        };
    }
    size(text)
        .map(MaxUnused::Bytes)
        .map_err(|_| "write a share such as 5%, a size such as 10GiB, or unlimited".to_owned())
}

fn size(text: &str) -> Result<u64, String> {
    crate::text::parse_size(text).ok_or_else(|| "write a size such as 10GiB".to_owned())
}

/// A span that may be none.
fn wait(text: &str) -> Result<Duration, String> {
    crate::text::parse_duration(text).ok_or_else(|| "write a span such as 5m, or 0s".to_owned())
}

fn span(text: &str) -> Result<std::time::Duration, String> {
    match crate::text::parse_duration(text) {
        Some(span) if !span.is_zero() => Ok(span),
        _ => Err("write a span such as 30d, 12h or 90m".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn shares_and_spans_are_read_or_refused() {
        assert_eq!(percent("5%"), Ok(5.0));
        assert_eq!(percent("100"), Ok(100.0));
        for bad in ["0", "101%", "x", "", "-5%", "NaN"] {
            assert!(percent(bad).is_err(), "{bad}");
        }
        assert!(span("0d").is_err());
        assert_eq!(wait("0s"), Ok(Duration::ZERO));
        assert_eq!(wait(LOCK_WAIT), Ok(LOCK_WAIT_DEFAULT));
        assert_eq!(max_unused("5%"), Ok(MaxUnused::Percent(5.0)));
        assert_eq!(max_unused("0%"), Ok(MaxUnused::Percent(0.0)));
        assert_eq!(max_unused("1GiB"), Ok(MaxUnused::Bytes(1 << 30)));
        assert_eq!(max_unused("unlimited"), Ok(MaxUnused::Unlimited));
        for bad in ["101%", "-1%", "NaN%", "x", ""] {
            assert!(max_unused(bad).is_err(), "{bad}");
        }
    }
}
