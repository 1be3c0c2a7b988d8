//! How a session is set up before it loads anything: as `pg_dump` sets up its scripts.

use super::super::toc::Toc;
use lastgood_model::{Error, Result};

/// What a session that loads objects of one table of contents needs.
#[derive(Clone, Debug)]
pub(in super::super) struct Session {
    /// Statements to run first, each with its semicolon.
    pub(in super::super) settings: Vec<String>,
    /// `standard_conforming_strings`: a backslash in a plain literal is only a backslash.
    pub(in super::super) standard_strings: bool,
    /// Definitions name everything with its schema. Not so in archives of servers from before 2018; there each needs
    /// its own `search_path`.
    pub(in super::super) is_qualified: bool,
}

impl Session {
    pub(in super::super) fn of(toc: &Toc) -> Result<Self> {
        let special = |desc: &str| toc.entries.iter().find(|entry| entry.desc == desc).map(|entry| entry.definition());
        let quoted = |defn: &str| defn.split('\'').nth(1).map(str::to_owned);
        let encoding = match special("ENCODING") {
            None => None,
            Some(defn) => {
                let name = quoted(defn).filter(|name| name.bytes().all(|byte| byte.is_ascii_graphic()));
                Some(name.ok_or_else(|| Error::corrupt(format!("the encoding is told as {defn:?}")))?)
            }
        };
        let standard_strings = match special("STDSTRINGS").map(|defn| (quoted(defn), defn)) {
            None => true,
            Some((Some(value), _)) if value == "on" => true,
            Some((Some(value), _)) if value == "off" => false,
            Some((_, defn)) => return Err(Error::corrupt(format!("the form of strings is told as {defn:?}"))),
        };
        let is_qualified = special("SEARCHPATH").is_some();
        let mut settings: Vec<String> = ["statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"]
            .map(|name| format!("SET {name} = 0;"))
            .to_vec();
        // Known from version 17 on; elsewhere this changes nothing.
        settings.push(
            "SELECT pg_catalog.set_config(name, '0', false) FROM pg_catalog.pg_settings \
             WHERE name = 'transaction_timeout';"
                .to_owned(),
        );
        settings.extend(encoding.map(|name| format!("SET client_encoding = '{name}';")));
        settings.push(format!("SET standard_conforming_strings = {};", if standard_strings { "on" } else { "off" }));
        if is_qualified {
            settings.push("SELECT pg_catalog.set_config('search_path', '', false);".to_owned());
        }
        settings.push("SET check_function_bodies = false;".to_owned());
        settings.push("SET xmloption = content;".to_owned());
        settings.push("SET client_min_messages = warning;".to_owned());
        if !standard_strings {
            settings.push("SET escape_string_warning = off;".to_owned());
        }
        settings.push("SET row_security = off;".to_owned());
        Ok(Self { settings, standard_strings, is_qualified })
    }
}
