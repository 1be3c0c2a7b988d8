//! lastgood beside its peers, restic and PostgreSQL's own programs, and beside the limit: what the plain tools of the
//! system need for the same work.
//!
//! Everything compared is measured in one run on one machine, as whole processes, in turns (A B C A B C), with the file
//! cache warm and the disk's queue empty at the start of each. Ratios of medians are what counts; seconds belong to the
//! machine.

mod copies;
mod corpus;
mod files;
mod large;
mod many;
mod measure;
mod postgres;
mod prune;
mod report;
mod scale;
mod sqlite;
mod stores;

use crate::{program, setup, shell};
use anyhow::{Context, Result};
use report::Table;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// What to measure.
    #[arg(value_enum)]
    what: What,
    /// Trees to protect instead of /usr/lib and /usr/share.
    #[arg(long, num_args = 1..)]
    tree: Vec<PathBuf>,
    /// How often to measure each.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Print figures as JSON, every single run included.
    #[arg(long)]
    json: bool,
    /// With `files`: also two million small files, for memory alone. Takes 10 GB and some minutes.
    #[arg(long)]
    many: bool,
    /// With `postgres`: how many megabytes of rows, as COPY writes them. A second database with half of that in one
    /// table is made beside it; the disk needs about ten times as much.
    #[arg(long, default_value_t = 2200)]
    size_mb: u64,
    /// With `postgres`: also every way of cutting rows into blobs, with 1 % of the rows changed.
    #[arg(long)]
    chunks: bool,
    /// With `stores`: how many gigabytes to protect.
    #[arg(long, default_value_t = 2.0)]
    gb: f64,
    /// With `stores`: this place alone.
    #[arg(long)]
    only: Option<stores::Place>,
    /// Write the table into this file, between `<!-- bench:… -->` and `<!-- /bench:… -->`.
    #[arg(long)]
    write: Option<PathBuf>,
    /// Folder for trees, databases and repositories, on the disk to be measured.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Measure this program instead of building one.
    #[arg(long)]
    binary: Option<PathBuf>,
    /// Smaller by this factor, to try the measurement itself; the figures mean nothing then.
    #[arg(long, default_value_t = 1)]
    shrink: u64,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum What {
    /// A tree of many files.
    Files,
    /// One large file.
    Large,
    /// An SQLite database.
    Sqlite,
    /// PostgreSQL databases.
    Postgres,
    /// Two million small files.
    Many,
    /// An index of twenty million blobs.
    Scale,
    /// Two hundred recovery points, of which some are forgotten and pruned.
    Prune,
    /// A recovery point copied into a second repository.
    Copies,
    /// Repositories on servers: S3, near and far, and SFTP.
    Stores,
}

/// What every measurement is given.
struct Bench<'a> {
    options: &'a Options,
    lastgood: PathBuf,
    restic: PathBuf,
    /// Kept between runs: trees and databases.
    corpus: PathBuf,
    /// Of this run alone.
    scratch: &'a Path,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let tools = setup::run(&setup::Options::PRESENT)?;
    let lastgood = match &options.binary {
        Some(binary) => fs_err::canonicalize(binary)?,
        None => program::build()?,
    };
    let dir = options.dir.clone().unwrap_or_else(|| shell::target().join("bench"));
    fs_err::create_dir_all(&dir)?;
    let dir = fs_err::canonicalize(dir)?;
    let scratch = tempfile::Builder::new().prefix("run-").tempdir_in(&dir)?;
    let bench = Bench { options, lastgood, restic: tools.restic, corpus: dir, scratch: scratch.path() };
    let mut tables = Vec::new();
    match options.what {
        What::Files => {
            tables.push(files::measure(&bench)?);
            if options.many {
                tables.push(many::measure(&bench)?);
            }
        }
        What::Large => tables.push(large::measure(&bench)?),
        What::Sqlite => tables.push(sqlite::measure(&bench)?),
        What::Postgres => tables.extend(postgres::measure(&bench)?),
        What::Many => tables.push(many::measure(&bench)?),
        What::Scale => tables.push(scale::measure(&bench)?),
        What::Prune => tables.push(prune::measure(&bench)?),
        What::Copies => tables.push(copies::measure(&bench)?),
        What::Stores => tables.push(stores::measure(&bench)?),
    }
    let machine = report::machine(&bench)?;
    for table in &tables {
        if options.json {
            println!("{}", table.json(&machine));
        } else {
            println!("\n{}", table.markdown(&machine));
        }
        if let Some(path) = &options.write {
            report::write(path, table, &machine).with_context(|| format!("write {}", path.display()))?;
        }
    }
    let missed: Vec<&str> = tables.iter().flat_map(Table::missed).collect();
    if missed.is_empty() {
        eprintln!("all targets met");
    } else {
        eprintln!("above target: {}", missed.join(", "));
    }
    Ok(())
}

impl Bench<'_> {
    /// A folder in this run's scratch space, made anew.
    fn fresh(&self, name: &str) -> Result<PathBuf> {
        let path = self.scratch.join(name);
        measure::remove(&path)?;
        fs_err::create_dir_all(&path)?;
        Ok(path)
    }

    /// restic on a repository, with a cache of its own as it has in use.
    fn restic(&self, repository: &Path, arguments: &[&str]) -> Result<measure::Job> {
        let password = self.scratch.join("restic.password");
        if !password.exists() {
            fs_err::write(&password, "the password of the measurement\n")?;
        }
        let mut words: Vec<OsString> = vec![self.restic.clone().into(), "--repo".into(), repository.into()];
        words.extend(["--password-file".into(), password.into(), "--quiet".into()]);
        words.extend(arguments.iter().map(OsString::from));
        let cache = repository.with_extension("cache");
        Ok(measure::Job::new(words).env("RESTIC_CACHE_DIR", cache))
    }

    /// The same with a repository on a server; `cache` is a folder.
    fn restic_at(&self, url: &str, cache: &Path, arguments: &[&str]) -> Result<measure::Job> {
        Ok(self.restic(Path::new(url), arguments)?.env("RESTIC_CACHE_DIR", cache))
    }

    /// lastgood with a config.
    fn lastgood(&self, lastgood: &program::Lastgood, words: Vec<OsString>) -> measure::Job {
        lastgood.environment().into_iter().fold(measure::Job::new(words), |job, (key, value)| job.env(key, value))
    }
}
