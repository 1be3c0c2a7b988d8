//! A connection told onwards: to people as a URL without secrets, to a child process as variables with them.

use super::text::encode;
use super::{Conninfo, keywords};
use std::fmt;

impl Conninfo {
    /// A URL for people. Read back it means the same connection, but for its secrets.
    pub fn to_string_without_secrets(&self) -> String {
        let hosts = self.settings.get("host").unwrap_or_default();
        let ports = self.settings.get("port").unwrap_or_default();
        // Only plain names can stand before the slash; folders and lists are clearer as parameters.
        let is_plain = !hosts.is_empty() && !hosts.contains(['/', '@', ',']) && !ports.contains(',');
        let mut out = format!("postgresql://{}@", encode(&self.user, ""));
        if is_plain && hosts.contains(':') {
            out.push_str(&format!("[{}]", encode(hosts, ":")));
        } else if is_plain {
            out.push_str(&encode(hosts, ""));
        }
        if is_plain && !ports.is_empty() {
            out.push_str(&format!(":{}", encode(ports, "")));
        }
        out.push_str(&format!("/{}", encode(&self.database, "")));
        let mut separator = '?';
        for (name, value) in self.settings.iter() {
            let is_told = matches!(name, "user" | "dbname") || (is_plain && matches!(name, "host" | "port"));
            if is_told || keywords::KEYWORDS.iter().any(|keyword| keyword.name == name && keyword.is_secret) {
                continue;
            }
            out.push_str(&format!("{separator}{name}={}", encode(value, "/:,@ ").replace(' ', "%20")));
            separator = '&';
        }
        out
    }

    /// Variables that make a child process such as `pg_dump` connect in the same way, secrets included. The child must
    /// inherit none of [`Self::variables`] beside them. What has no variable (keepalives, `tcp_user_timeout`,
    /// `sslpassword`) is left out.
    ///
    /// The password is the one for the first host; see [`Self::with_only_host`].
    pub fn to_environment(&self) -> Vec<(&'static str, String)> {
        let mut out = Vec::new();
        let host = &self.hosts[0];
        // Said outright what would otherwise be guessed: the child's guess might be another.
        let first = host.settings().into_iter().filter(|_| self.hosts.len() == 1);
        let told: Vec<(&str, String)> = [("user", self.user.clone()), ("dbname", self.database.clone())]
            .into_iter()
            .chain(first.filter_map(|(name, value)| value.map(|value| (name, value))))
            .chain(self.password(host).map(|password| ("password", password.to_owned())))
            .collect();
        for keyword in keywords::KEYWORDS {
            let Some(variable) = keyword.variable else { continue };
            let value = told.iter().find(|(name, _)| *name == keyword.name).map(|(_, value)| value.clone());
            let value = value.or_else(|| self.settings.get(keyword.name).map(str::to_owned));
            out.extend(value.map(|value| (variable, value)));
        }
        out
    }

    /// Every variable that could change how a child process connects.
    pub fn variables() -> impl Iterator<Item = &'static str> {
        keywords::KEYWORDS.iter().filter_map(|keyword| keyword.variable).chain([
            "PGSERVICEFILE",
            "PGSYSCONFDIR",
            "PGREQUIRESSL",
        ])
    }
}

impl fmt::Debug for Conninfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Conninfo({})", self.to_string_without_secrets())
    }
}
