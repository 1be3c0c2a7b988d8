//! What to connect to: URL or `key=value` text, service files, password files and `PG*` variables, read by the rules of
//! PostgreSQL's own library (libpq, "Connection Strings" and following in its documentation), so that whatever works
//! with `psql` works here.
//!
//! Where this differs on purpose: a connection parameter that cannot be honoured and matters for safety is refused and
//! not passed over; without `connect_timeout` an attempt ends after [`CONNECT_TIMEOUT_DEFAULT`]; and TCP keepalives are
//! sent early enough that a server that is gone is noticed in minutes and not hours.

mod keywords;
mod options;
mod passfile;
mod service;
mod settings;
mod show;
mod text;

pub use options::{
    ChannelBinding, Host, Keepalives, Place, SslMode, SslNegotiation, SslRoot, TargetSession, Timeout, Tls, TlsVersion,
};

use lastgood_model::{Error, Result};
use passfile::Passfile;
use settings::Settings;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How long an attempt to connect to one address may take when nothing was said.
pub const CONNECT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);

/// A connection as it was asked for, complete: hosts, user, database, secrets and how to protect it.
///
/// `Debug` and every text made from it leave secrets out, except [`Conninfo::to_environment`].
#[derive(Clone)]
pub struct Conninfo {
    settings: Settings,
    hosts: Vec<Host>,
    user: String,
    database: String,
    passfile: Arc<Passfile>,
    pub(super) options: options::Options,
}

impl Conninfo {
    /// Reads what a person wrote, then the service it names, then the environment, in falling precedence.
    ///
    /// `environment` answers for variables; a test hands in its own. An empty `url` means that the environment says
    /// all. Errors are [`lastgood_model::ErrorKind::Invalid`] for text, `Absent` for a service that is not defined, and
    /// `Unsupported` for what this client cannot honour. They never show values that could be secrets.
    pub fn parse(url: &str, environment: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        let mut settings = text::parse(url)?;
        let passwd = || fs_err::read_to_string("/etc/passwd").unwrap_or_default();
        let home = environment("HOME")
            .filter(|home| !home.is_empty())
            .or_else(|| passwd_field(&passwd(), rustix::process::geteuid().as_raw(), 5));
        settings.complete(environment, home.as_deref())?;
        if settings.get("user").is_none() {
            let user = passwd_field(&passwd(), rustix::process::geteuid().as_raw(), 0)
                .or_else(|| environment("USER").filter(|name| !name.is_empty()))
                .ok_or_else(|| Error::invalid("no PostgreSQL user is named").with_hint("write postgresql://USER@…"))?;
            settings.set("user", user)?;
        }
        Self::from_settings(settings, home.as_deref())
    }

    fn from_settings(settings: Settings, home: Option<&str>) -> Result<Self> {
        let user = settings.get("user").unwrap_or_default().to_owned();
        let database = settings.get("dbname").unwrap_or(&user).to_owned();
        let path = match settings.get("passfile") {
            Some(path) => Some(PathBuf::from(path)),
            None => home.map(|home| PathBuf::from(home).join(".pgpass")),
        };
        let passfile = Arc::new(path.map(|path| Passfile::read(&path)).unwrap_or_default());
        Ok(Self {
            hosts: options::hosts(&settings)?,
            options: options::Options::read(&settings, home)?,
            user,
            database,
            passfile,
            settings,
        })
    }

    /// The same server and user, another database; the password is looked up anew.
    #[must_use]
    pub fn with_database(&self, name: &str) -> Self {
        let mut other = self.clone();
        name.clone_into(&mut other.database);
        // A name with a NUL exists nowhere: the server's refusal says so better than an error here.
        if other.settings.set("dbname", name.to_owned()).is_err() {
            other.settings.remove("dbname");
        }
        other
    }

    /// The same server and database as another role, whose password is in no text that was given.
    ///
    /// # Errors
    /// [`lastgood_model::ErrorKind::Invalid`] for a name that holds a NUL.
    pub fn with_user(&self, name: &str) -> Result<Self> {
        let mut other = self.clone();
        other.settings.set("user", name.to_owned())?;
        other.settings.remove("password");
        name.clone_into(&mut other.user);
        Ok(other)
    }

    /// The same, with only host number `index` of [`Self::hosts`]; out of range changes nothing. For a second
    /// connection, or a child process, that must reach the same server as the first.
    #[must_use]
    pub fn with_only_host(&self, index: usize) -> Self {
        let mut other = self.clone();
        if let Some(host) = self.hosts.get(index) {
            other.hosts = vec![host.clone()];
            for (name, value) in host.settings() {
                match value {
                    // None of these can hold a NUL: they are pieces of a setting, which was checked.
                    Some(value) => drop(other.settings.set(name, value)),
                    None => other.settings.remove(name),
                }
            }
        }
        other
    }

    /// The same, with the password `password`, which outranks a password file.
    pub fn with_password(&self, password: &str) -> Result<Self> {
        let mut other = self.clone();
        other.settings.set("password", password.to_owned())?;
        Ok(other)
    }

    /// Servers in the order in which they are tried; never empty.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// The database.
    pub fn database(&self) -> &str {
        &self.database
    }

    /// The user (role).
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Where the server is, for people: `db.example:5432`, a socket's folder, or several with commas.
    pub fn host_shown(&self) -> String {
        let hosts: Vec<String> = self.hosts.iter().map(Host::to_string).collect();
        hosts.join(", ")
    }

    /// The password for a host: the one given, or the one that the password file has for it.
    pub(super) fn password(&self, host: &Host) -> Option<&str> {
        self.settings.get("password").or_else(|| {
            let database = if self.is_physical_replication() { "replication" } else { &self.database };
            self.passfile.find(&host.passfile_name(), host.port, database, &self.user)
        })
    }

    /// Why the password file was not used, if it was not.
    pub(super) fn password_note(&self) -> Option<&str> {
        self.passfile.note.as_deref()
    }

    fn is_physical_replication(&self) -> bool {
        matches!(self.settings.get("replication"), Some("true" | "on" | "yes" | "1"))
    }

    /// What we are called on the server.
    pub(super) fn application_name(&self) -> &str {
        let name = self.settings.get("application_name").or_else(|| self.settings.get("fallback_application_name"));
        name.unwrap_or("lastgood")
    }

    /// What the startup message says, in pairs. `client_encoding` is UTF-8 unless something else was asked for.
    pub(super) fn startup(&self) -> Vec<(&'static str, &str)> {
        let mut out = vec![("user", self.user.as_str()), ("database", self.database.as_str())];
        out.push((
            "client_encoding",
            self.settings.get("client_encoding").filter(|it| *it != "auto").unwrap_or("UTF8"),
        ));
        out.push(("application_name", self.application_name()));
        for name in ["options", "replication"] {
            out.extend(self.settings.get(name).map(|value| (name, value)));
        }
        out
    }
}

/// A field of the line of user `uid` in a file like `/etc/passwd`. The C library knows more ways to find a user, but
/// none that needs no `unsafe`.
fn passwd_field(passwd: &str, uid: u32, field: usize) -> Option<String> {
    let uid = uid.to_string();
    passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.get(2) == Some(&uid.as_str()))
        .and_then(|fields| fields.get(field).map(|text| (*text).to_owned()))
        .filter(|text| !text.is_empty())
}

/// The name of OS user `uid`, for `requirepeer`.
pub(super) fn user_name(uid: u32) -> Option<String> {
    passwd_field(&fs_err::read_to_string("/etc/passwd").ok()?, uid, 0)
}

#[cfg(test)]
mod tests;
