//! Settings as text, gathered from everywhere in the order of precedence: what was written, then the service, then the
//! environment. An empty value counts as given, and means the default.

use super::{keywords, service};
use lastgood_model::{Error, Result};
use std::collections::BTreeMap;
use zeroize::Zeroizing;

/// Parameter names and what was given for them. The names are all of [`keywords::KEYWORDS`].
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Settings(BTreeMap<&'static str, Zeroizing<String>>);

impl Settings {
    /// Sets or replaces. Text with a NUL cannot be sent to any server.
    pub(super) fn set(&mut self, name: &'static str, value: String) -> Result<()> {
        if value.contains('\0') {
            return Err(Error::invalid(format!("connection parameter {name} contains a NUL character")));
        }
        self.0.insert(name, Zeroizing::new(value));
        Ok(())
    }

    /// Sets unless something stronger did.
    pub(super) fn set_default(&mut self, name: &'static str, value: String) -> Result<()> {
        if self.0.contains_key(name) { Ok(()) } else { self.set(name, value) }
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.0.remove(name);
    }

    /// The value, if there is one and it says anything.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|value| value.as_str()).filter(|value| !value.is_empty())
    }

    /// All that say anything, by name.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0.iter().map(|(name, value)| (*name, value.as_str())).filter(|(_, value)| !value.is_empty())
    }

    /// Fills up from the service, if one is named, and then from the environment.
    pub(super) fn complete(&mut self, environment: &dyn Fn(&str) -> Option<String>, home: Option<&str>) -> Result<()> {
        let named = self.get("service").map(str::to_owned).or_else(|| environment("PGSERVICE"));
        if let Some(name) = named.filter(|name| !name.is_empty()) {
            for (keyword, value) in service::read(&name, self.get("servicefile"), environment, home)? {
                self.set_default(keyword, value)?;
            }
        }
        // What the service says is in the settings now; a child process must not look for it again.
        self.remove("service");
        self.remove("servicefile");
        for keyword in keywords::KEYWORDS.iter().filter(|keyword| keyword.name != "service") {
            if let Some(value) = keyword.variable.and_then(environment) {
                self.set_default(keyword.name, value)?;
            }
        }
        // The variable's old form, which PostgreSQL still reads.
        if environment("PGREQUIRESSL").is_some_and(|value| value.starts_with('1')) {
            self.set_default("sslmode", "require".to_owned())?;
        }
        Ok(())
    }
}
