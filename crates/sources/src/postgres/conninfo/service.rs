//! Service files: sections of connection parameters under a name, as PostgreSQL's "The Connection Service File" has it.

use super::keywords;
use lastgood_model::{Context, Error, ErrorKind, Result};
use std::path::PathBuf;

/// Where Debian's packages look when `PGSYSCONFDIR` says nothing, and then where others do.
const SYSTEM_FOLDERS: [&str; 2] = ["/etc/postgresql-common", "/etc"];

/// The parameters of service `name`. A person's own file is asked first, and if it lacks the service, the system's.
pub(super) fn read(
    name: &str,
    file: Option<&str>,
    environment: &dyn Fn(&str) -> Option<String>,
    home: Option<&str>,
) -> Result<Vec<(&'static str, String)>> {
    let named = file.map(str::to_owned).or_else(|| environment("PGSERVICEFILE")).map(PathBuf::from);
    let must_exist = named.is_some();
    let own = named.or_else(|| home.map(|home| PathBuf::from(home).join(".pg_service.conf")));
    let system = match environment("PGSYSCONFDIR") {
        Some(folder) => vec![PathBuf::from(folder)],
        None => SYSTEM_FOLDERS.iter().map(PathBuf::from).collect(),
    };
    let system = system.into_iter().map(|folder| folder.join("pg_service.conf"));
    let mut looked = Vec::new();
    for (path, must_exist) in own.map(|path| (path, must_exist)).into_iter().chain(system.map(|path| (path, false))) {
        let text = match fs_err::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !must_exist => continue,
            Err(error) => return Err(Error::io("read the service file", error)),
        };
        if let Some(found) = section(&text, name).with_context(|| format!("read service file {}", path.display()))? {
            return Ok(found);
        }
        looked.push(path.display().to_string());
    }
    let place = if looked.is_empty() { "there is no service file".to_owned() } else { looked.join(", ") };
    Err(Error::new(ErrorKind::Absent, format!("PostgreSQL service {name:?} is not defined ({place})"))
        .with_hint("define it in ~/.pg_service.conf, or point PGSERVICEFILE to the file that does"))
}

/// The lines of the first section called `name`; `None` if there is none. Within it the first of two equal keys counts.
fn section(text: &str, name: &str) -> Result<Option<Vec<(&'static str, String)>>> {
    let mut found: Option<Vec<(&'static str, String)>> = None;
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if line.starts_with('[') {
            if found.is_some() {
                break;
            }
            if line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) == Some(name) {
                found = Some(Vec::new());
            }
            continue;
        }
        let Some(found) = &mut found else { continue };
        if line.starts_with("ldap") {
            return Err(Error::new(ErrorKind::Unsupported, format!("line {number} refers to an LDAP server")));
        }
        let Some((key, value)) = line.split_once('=') else {
            return Err(Error::invalid(format!("line {number} has no \"=\"")));
        };
        if matches!(key, "service" | "servicefile") {
            return Err(Error::invalid(format!("line {number} names another service, which is not allowed")));
        }
        let keyword = keywords::find(key).with_context(|| format!("line {number}"))?.name;
        if !found.iter().any(|(earlier, _)| *earlier == keyword) {
            found.push((keyword, value.to_owned()));
        }
    }
    Ok(found)
}
