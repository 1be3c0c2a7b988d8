//! A scratch database for the proof that a recovery point can be restored: made for it, and taken away again.
//!
//! It is told from others by its name, and a live one from one that a killed run has left by a connection that bears the
//! database's name as long as its run lives. Only scratch databases that the role itself may drop are ever touched.

use super::conninfo::Conninfo;
use super::restore::{SUCCESSOR, drop_subscriptions};
use super::sql::{literal, quote};
use super::wire::Client;
use lastgood_model::{Context, Error, ErrorKind, Result};
use std::fmt::Write;

/// Their names begin so; sixteen hexadecimal digits follow.
pub const PREFIX: &str = "lastgood_proof_";

/// A name that nobody else uses, and the promise to take away the database that is made under it.
#[derive(Debug)]
pub struct ScratchDatabase {
    name: String,
    info: Conninfo,
    /// Says to others that this run is alive.
    holder: Client,
    /// Databases of dead runs that were taken away.
    swept: Vec<String>,
    is_superuser: bool,
}

impl ScratchDatabase {
    /// Takes away what dead runs have left on the server, and chooses a name. The database itself is for the restore to
    /// make.
    ///
    /// # Errors
    /// [`ErrorKind::Denied`] when the role may make no database, [`ErrorKind::Unsupported`] on a standby, and those of the
    /// connection.
    pub fn reserve(info: &Conninfo) -> Result<Self> {
        let mut random = [0; 8];
        aws_lc_rs::rand::fill(&mut random)
            .map_err(|_| Error::new(ErrorKind::Bug, "the system gives no random bytes"))?;
        let mut name = PREFIX.to_owned();
        for byte in random {
            // Writing to a string cannot fail.
            let _ = write!(name, "{byte:02x}");
        }
        let mut holder = Client::connect(info)?;
        let rows = holder
            .query(
                "SELECT pg_catalog.pg_is_in_recovery(), r.rolcreatedb OR r.rolsuper, r.rolsuper \
                 FROM pg_catalog.pg_roles r WHERE r.rolname = current_user",
            )
            .context("look what the role may do")?;
        let row = rows.only()?;
        if row.is_true(0)? {
            return Err(Error::new(ErrorKind::Unsupported, "the server is a standby and takes no new database"));
        }
        if !row.is_true(1)? {
            let message = format!("role {:?} may not create databases", info.user());
            return Err(Error::new(ErrorKind::Denied, message));
        }
        let is_superuser = row.is_true(2)?;
        holder
            .batch(&format!(
                "SET default_transaction_read_only = off; SET statement_timeout = 0; SET application_name = {}",
                literal(&name)
            ))
            .context("begin the proof")?;
        holder.watch().context("begin the proof")?;
        let mut scratch = Self { name, info: info.clone(), holder, swept: Vec::new(), is_superuser };
        scratch.sweep()?;
        Ok(scratch)
    }

    fn sweep(&mut self) -> Result<()> {
        let sql = format!(
            "SELECT d.datname FROM pg_catalog.pg_database d, \
               LATERAL (SELECT pg_catalog.replace(d.datname, '{SUCCESSOR}', '') AS of_run) r \
             WHERE r.of_run OPERATOR(pg_catalog.~) '^{PREFIX}[0-9a-f]{{16}}$' \
               AND pg_catalog.pg_has_role(d.datdba, 'USAGE') \
               AND NOT EXISTS (SELECT FROM pg_catalog.pg_stat_activity a \
                 WHERE a.application_name = r.of_run OR a.datname = r.of_run)"
        );
        let mut found = Vec::new();
        self.holder
            .for_each_row(&sql, |row| {
                found.push(row.text(0)?.to_owned());
                Ok(())
            })
            .context("look for what killed proofs have left")?;
        for name in found {
            self.free(&name)?;
            let dropped = self.holder.batch(&format!("DROP DATABASE IF EXISTS {}", quote(&name)));
            dropped.with_context(|| format!("drop {name}, which a killed proof has left"))?;
            self.swept.push(name);
        }
        Ok(())
    }

    /// Takes out what keeps a database from being dropped, if it is there.
    fn free(&self, name: &str) -> Result<()> {
        match drop_subscriptions(&self.info.with_database(name)) {
            Err(error) if error.kind() == ErrorKind::Absent => Ok(()),
            done => done.with_context(|| format!("drop the subscriptions of {name}")),
        }
    }

    /// How to reach it, once it is made.
    pub fn conninfo(&self) -> Conninfo {
        self.info.with_database(&self.name)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Databases of killed runs that were taken away.
    pub fn swept(&self) -> &[String] {
        &self.swept
    }

    /// Whether the role may do everything.
    pub fn is_superuser(&self) -> bool {
        self.is_superuser
    }

    /// Takes the database away, made or not, with whoever is connected to it.
    ///
    /// # Errors
    /// What the server said; the hint names what stays.
    pub fn remove(mut self) -> Result<()> {
        if self.holder.is_broken() {
            // The server may have been restarted meanwhile.
            self.holder = Client::connect(&self.info)?;
            self.holder.watch()?;
        }
        let version = self.holder.server_version();
        let force = if version >= 130_000 { " WITH (FORCE)" } else { "" };
        // One that was stopped while it was made has another name.
        for name in [self.name.clone(), format!("{}{SUCCESSOR}", self.name)] {
            self.free(&name)
                .and_then(|()| self.holder.batch(&format!("DROP DATABASE IF EXISTS {}{force}", quote(&name))))
                .with_context(|| format!("drop the scratch database {name}"))
                .map_err(|error| {
                    error.with_hint(format!("database {name} stays on the server; the next proof there drops it"))
                })?;
        }
        Ok(())
    }
}
