//! What the tests and measurements need beside Rust and a C compiler, installed for a machine that has nothing else.
//!
//! Idempotent: everything is looked at first, and where it is already as wanted nothing is downloaded or asked. Programs
//! that the distribution has too old go to `target/tools`, never into the system.

mod apt;
mod azurite;
mod debian;
mod garage;
mod postgres;
mod restic;
mod rustic;

use crate::shell::{self, first_line};
use anyhow::{Context, Result, bail};
use std::path::PathBuf;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Look for a newer restic and PostgreSQL although they are there.
    #[arg(long)]
    refresh: bool,
}

impl Options {
    /// What a test run needs.
    pub(crate) const PRESENT: Self = Self { refresh: false };
}

/// The programs, all of them there.
#[derive(Debug)]
pub(crate) struct Tools {
    /// The newest restic.
    pub(crate) restic: PathBuf,
    /// The distribution's restic.
    pub(crate) restic_old: PathBuf,
    /// rustic.
    pub(crate) rustic: PathBuf,
    /// SQLite's program.
    pub(crate) sqlite3: PathBuf,
    /// The folder with the programs of PostgreSQL 15.
    pub(crate) postgres_15: PathBuf,
    /// The folder with the programs of PostgreSQL 18.
    pub(crate) postgres_18: PathBuf,
    /// Azurite's server of blobs.
    pub(crate) azurite: PathBuf,
    /// Garage.
    pub(crate) garage: PathBuf,
    /// Whether `cargo nextest` can be run, with [`bin`] on the search path.
    pub(crate) has_nextest: bool,
}

/// Where the programs go.
pub(crate) fn bin() -> PathBuf {
    shell::target().join("tools/bin")
}

/// The search path with [`bin`] in front.
pub(crate) fn search_path() -> Result<std::ffi::OsString> {
    let rest = std::env::var_os("PATH").unwrap_or_default();
    std::env::join_paths(std::iter::once(bin()).chain(std::env::split_paths(&rest))).context("join search path")
}

/// Installs what is missing.
pub(crate) fn run(options: &Options) -> Result<Tools> {
    fs_err::create_dir_all(bin())?;
    apt::install_missing()?;

    let restic = match chosen("LASTGOOD_RESTIC")? {
        Some(path) => path,
        None => restic::install(&bin(), options.refresh).context("install the newest restic")?,
    };
    let restic_old = match chosen("LASTGOOD_RESTIC_OLD")? {
        Some(path) => path,
        None => shell::which("restic").context("find the distribution's restic on the search path")?,
    };
    let rustic = match chosen("LASTGOOD_RUSTIC")? {
        Some(path) => path,
        None => rustic::install(&shell::target().join("tools")).context("install rustic")?,
    };
    let sqlite3 = match chosen("LASTGOOD_SQLITE3")? {
        Some(path) => path,
        None => shell::which("sqlite3").context("find sqlite3 on the search path")?,
    };
    let postgres = |variable: &str, version: &postgres::Version| match chosen_folder(variable)? {
        Some(path) => Ok(path),
        None => postgres::install(version, &shell::target().join("tools"), options.refresh),
    };
    let postgres_15 = postgres("LASTGOOD_POSTGRES_15", &postgres::V15).context("install PostgreSQL 15")?;
    let postgres_18 = postgres("LASTGOOD_POSTGRES_18", &postgres::V18).context("install PostgreSQL 18")?;
    let azurite = match chosen("LASTGOOD_AZURITE")? {
        Some(path) => path,
        None => azurite::install(&shell::target().join("tools")).context("install Azurite")?,
    };
    let garage = match chosen("LASTGOOD_GARAGE")? {
        Some(path) => path,
        None => garage::install(&shell::target().join("tools")).context("install Garage")?,
    };
    let has_nextest = nextest();
    let tools = Tools { restic, restic_old, rustic, sqlite3, postgres_15, postgres_18, azurite, garage, has_nextest };
    for (what, program, arguments) in [
        ("restic", tools.restic.clone(), "version"),
        ("restic, older", tools.restic_old.clone(), "version"),
        ("rustic", tools.rustic.clone(), "--version"),
        ("sqlite3", tools.sqlite3.clone(), "--version"),
        ("postgres 15", tools.postgres_15.join("postgres"), "--version"),
        ("postgres 18", tools.postgres_18.join("postgres"), "--version"),
        ("azurite", tools.azurite.clone(), "--version"),
        ("garage", tools.garage.clone(), "--version"),
    ] {
        let Some(version) = first_line(&program, &[arguments]) else {
            bail!("{} is there but does not run", program.display());
        };
        let version: String = version.chars().take(40).collect();
        eprintln!("have {what:<14} {version:<40} {}", program.display());
    }
    Ok(tools)
}

/// A program chosen by hand; it must be there.
fn chosen(variable: &str) -> Result<Option<PathBuf>> {
    match path_in(variable) {
        Some(path) if !path.is_file() => bail!("{variable} names {}, which is not there", path.display()),
        path => Ok(path),
    }
}

/// A folder of programs chosen by hand; it must be there.
fn chosen_folder(variable: &str) -> Result<Option<PathBuf>> {
    match path_in(variable) {
        Some(path) if !path.is_dir() => bail!("{variable} names {}, which is no folder", path.display()),
        path => Ok(path),
    }
}

fn path_in(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// Looks for cargo-nextest and builds it when it is missing. Without it `cargo test` serves, so failing is no end.
fn nextest() -> bool {
    let there = || {
        let path = search_path().ok()?;
        shell::output(shell::cargo(["nextest", "--version"]).env("PATH", path)).ok()
    };
    if there().is_none() {
        eprintln!("cargo-nextest is missing; it is built now, once (some minutes)");
        let tools = shell::target().join("tools");
        let mut install = rustic::quick_install(&tools, "cargo-nextest", NEXTEST_VERSION);
        if let Err(error) = shell::run(&mut install) {
            eprintln!("cargo-nextest could not be built, `cargo test` is used instead: {error:#}");
        }
    }
    match there() {
        Some(version) => {
            eprintln!("have {:<14} {}", "nextest", version.lines().next().unwrap_or_default());
            true
        }
        None => false,
    }
}

/// The test runner's version that the project is tested with; an installed one of any version is taken as it is.
const NEXTEST_VERSION: &str = "0.9.143";
