//! The files in which AWS's own programs keep profiles: `~/.aws/credentials` and `~/.aws/config`.

use crate::access::Secret;
use lastgood_model::{Context, Error, ErrorKind, Result};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What a profile says that we can use.
#[derive(Default)]
pub(super) struct Profile {
    pub(super) access_key_id: Option<String>,
    pub(super) secret_access_key: Option<Secret>,
    pub(super) session_token: Option<Secret>,
    pub(super) region: Option<String>,
}

/// Ways to credentials that a profile can name and that are not walked here, with what to do instead.
const OTHER_WAYS: [&str; 5] = ["sso_session", "sso_start_url", "role_arn", "credential_process", "login_session"];

/// Reads `named`, else the profile of the environment, else `default`. What is not there is empty, but a profile that
/// somebody named must be there.
///
/// # Errors
/// [`ErrorKind::Invalid`] for a named profile that is in neither file, and for one whose keys are to be had in a way
/// that is not walked here.
pub(super) fn read(named: Option<&str>, variable: &dyn Fn(&str) -> Option<String>) -> Result<Profile> {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    let wanted = named.map(str::to_owned).or_else(|| set("AWS_PROFILE"));
    let name = wanted.as_deref().unwrap_or("default");
    let home = set("HOME").map(|home| PathBuf::from(home).join(".aws"));
    let file =
        |variable: &str, below: &str| set(variable).map(PathBuf::from).or_else(|| Some(home.as_ref()?.join(below)));
    let mut keys = BTreeMap::new();
    for (variable, below, heading) in [
        // What stands in the first counts.
        ("AWS_SHARED_CREDENTIALS_FILE", "credentials", name.to_owned()),
        ("AWS_CONFIG_FILE", "config", if name == "default" { name.to_owned() } else { format!("profile {name}") }),
    ] {
        let Some(path) = file(variable, below) else { continue };
        match fs_err::read_to_string(&path) {
            Ok(text) => section(&Secret::new(text), &heading).into_iter().for_each(|(key, value)| {
                keys.entry(key).or_insert(value);
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).context("read AWS's profiles"),
        }
    }
    if keys.is_empty() {
        return match wanted {
            Some(name) => Err(Error::invalid(format!("there is no profile {name:?} in AWS's files"))
                .with_hint("correct `profile=` in the location or AWS_PROFILE, or give the keys by reference")),
            None => Ok(Profile::default()),
        };
    }
    if !keys.contains_key("aws_access_key_id")
        && let Some(way) = OTHER_WAYS.iter().find(|way| keys.contains_key(**way))
    {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!("AWS's profile {name:?} has its keys by `{way}`, which lastgood does not do"),
        )
        .with_hint(
            "let AWS's program do it: `access_key_id = { command = [\"aws\", \"configure\", \"export-credentials\", …] }`, \
             or `eval \"$(aws configure export-credentials --format env)\"` before",
        ));
    }
    let mut take = |key: &str| keys.remove(key);
    Ok(Profile {
        access_key_id: take("aws_access_key_id").map(|value| value.to_string()),
        secret_access_key: take("aws_secret_access_key"),
        session_token: take("aws_session_token"),
        region: take("region").map(|value| value.to_string()),
    })
}

/// The keys of one section. Nested settings, which are indented, are passed over.
fn section(text: &str, heading: &str) -> BTreeMap<String, Secret> {
    let mut found = BTreeMap::new();
    let mut inside = false;
    for line in text.lines() {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = trimmed.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            inside = name.0.split_whitespace().eq(heading.split_whitespace());
        } else if inside
            && !line.starts_with([' ', '\t'])
            && let Some((key, value)) = trimmed.split_once('=')
        {
            // As AWS's programs read it, a comment follows a blank.
            let value = value.split(" #").next().unwrap_or_default().trim();
            found.insert(key.trim().to_ascii_lowercase(), Secret::new(value.to_owned()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const CREDENTIALS: &str = "
[default]
aws_access_key_id = AKDEFAULT
aws_secret_access_key = s3cr=et # not this
[ backup ]
aws_access_key_id=AKBACKUP
aws_secret_access_key=other
aws_session_token=token
";
    const CONFIG: &str = "
[default]
region = eu-west-1
s3 =
  region = nowhere
[profile backup]
region = us-west-2
aws_access_key_id = NOT
[profile sso]
sso_session = corp
";

    fn profile(named: Option<&str>, variables: &[(&str, &str)]) -> Result<Profile> {
        let home = tempfile::tempdir().unwrap();
        fs_err::create_dir(home.path().join(".aws")).unwrap();
        fs_err::write(home.path().join(".aws/credentials"), CREDENTIALS).unwrap();
        fs_err::write(home.path().join(".aws/config"), CONFIG).unwrap();
        read(named, &|name| match name {
            "HOME" => Some(home.path().to_str().unwrap().to_owned()),
            name => variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned()),
        })
    }

    #[test]
    fn the_profile_is_that_of_the_location_else_of_the_environment_else_the_default() {
        let of = |named, variables: &[(&str, &str)]| {
            let profile = profile(named, variables).unwrap();
            let plain = |secret: Option<Secret>| secret.map(|s| s.to_string());
            (
                profile.access_key_id.unwrap(),
                plain(profile.secret_access_key).unwrap(),
                plain(profile.session_token),
                profile.region,
            )
        };
        let default = ("AKDEFAULT".to_owned(), "s3cr=et".to_owned(), None, Some("eu-west-1".to_owned()));
        let backup =
            ("AKBACKUP".to_owned(), "other".to_owned(), Some("token".to_owned()), Some("us-west-2".to_owned()));
        assert_eq!(of(None, &[]), default);
        assert_eq!(of(None, &[("AWS_PROFILE", "backup")]), backup);
        assert_eq!(of(Some("backup"), &[("AWS_PROFILE", "default")]), backup);
        assert_eq!(of(None, &[("AWS_CONFIG_FILE", "/nonexistent")]).3, None);
    }

    #[test]
    fn a_profile_that_was_named_must_be_there_and_be_readable_here() {
        assert_eq!(profile(Some("none"), &[]).err().unwrap().kind(), ErrorKind::Invalid);
        let error = profile(Some("sso"), &[]).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.message().contains("sso_session"), "{error}");
        let empty = read(None, &|_| None).unwrap();
        assert!(empty.access_key_id.is_none());
    }
}
