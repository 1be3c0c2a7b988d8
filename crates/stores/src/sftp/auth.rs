//! Who we are at the server: the key or password that the config names, else the agent's keys and those in `~/.ssh`.

use super::SftpPlace;
use super::known_hosts::fingerprint;
use super::ssh::Guard;
use crate::access::{Access, Secret};
use lastgood_model::{Error, ErrorKind, Result};
use russh::client::{AuthResult, Handle, KeyboardInteractiveAuthResponse};
use russh::keys::agent::client::AgentClient;
use russh::keys::{Algorithm, HashAlg, PrivateKey, PrivateKeyWithHashAlg, decode_secret_key};
use russh::{MethodKind, MethodSet};
use std::path::PathBuf;
use std::sync::Arc;

/// Key files that are tried when nothing is said, in this order.
const KEY_FILES: [&str; 3] = ["id_ed25519", "id_ecdsa", "id_rsa"];
/// Servers hang up after six.
const AGENT_KEYS_MAX: usize = 4;

/// What was tried, for the message when nothing served.
struct Tries {
    said: Vec<String>,
    /// What the server would still take.
    left: Option<MethodSet>,
}

impl Tries {
    fn add(&mut self, what: impl Into<String>) {
        self.said.push(what.into());
    }

    fn refused(&mut self, what: String, result: AuthResult) -> bool {
        match result {
            AuthResult::Success => true,
            AuthResult::Failure { remaining_methods, partial_success } => {
                let more =
                    if partial_success { "accepted, but the server wants more than one proof" } else { "refused" };
                self.add(format!("{what}: {more}"));
                self.left = Some(remaining_methods);
                false
            }
        }
    }

    fn may(&self, kind: MethodKind) -> bool {
        self.left.as_ref().is_none_or(|left| left.contains(&kind))
    }
}

/// Proves who we are.
pub(super) async fn authenticate(ssh: &mut Handle<Guard>, place: &SftpPlace, access: &Access) -> Result<()> {
    let (private_key, passphrase) = (access.secret("private_key")?, access.secret("passphrase")?);
    let password = access.secret("password")?;
    let mut tries = Tries { said: Vec::new(), left: None };
    let user = place.user();
    // Tells what the server takes; some let everyone in.
    match told(ssh.authenticate_none(&user).await)? {
        AuthResult::Success => return Ok(()),
        AuthResult::Failure { remaining_methods, .. } => tries.left = Some(remaining_methods),
    }
    if let Some(text) = &private_key {
        let key = decode(text, passphrase.as_ref()).map_err(|why| {
            Error::invalid(format!("`private_key` for {place} cannot be used: {why}"))
                .with_hint("give a private key of kind ed25519 or ecdsa, with its `passphrase` if it has one")
        })?;
        if with_key(ssh, &user, key, "the config's key", &mut tries).await? {
            return Ok(());
        }
    }
    if let Some(password) = &password
        && with_password(ssh, &user, password, &mut tries).await?
    {
        return Ok(());
    }
    if private_key.is_none()
        && password.is_none()
        && (with_agent(ssh, &user, &mut tries).await?
            || with_files(ssh, &user, passphrase.as_ref(), &mut tries).await?)
    {
        return Ok(());
    }
    let takes = match &tries.left {
        Some(left) if !left.is_empty() => {
            let names: Vec<&str> = left.iter().map(<&'static str>::from).collect();
            format!("; it takes {}", names.join(", "))
        }
        _ => String::new(),
    };
    let tried = if tries.said.is_empty() { "nothing could be tried".to_owned() } else { tries.said.join("; ") };
    Err(Error::new(ErrorKind::Denied, format!("the server does not let user {user:?} in at {place}: {tried}{takes}"))
        .with_hint("add the key to ~/.ssh/authorized_keys there; or name another with `private_key`, or a `password`, in the config; or use what ssh uses with transport = \"openssh\""))
}

/// Trouble with the connection is no answer.
fn told<T>(result: std::result::Result<T, russh::Error>) -> Result<T> {
    result.map_err(|error| Error::new(ErrorKind::Retry, "prove who we are at the SSH server").with_source(error))
}

fn decode(text: &Secret, passphrase: Option<&Secret>) -> std::result::Result<PrivateKey, String> {
    // The last line must be a whole one.
    let text = Secret::new(format!("{}\n", text.trim()));
    let key = decode_secret_key(&text, passphrase.map(|text| text.as_str())).map_err(|error| match error {
        russh::keys::Error::KeyIsEncrypted => "it is locked with a passphrase".to_owned(),
        // What the text is says nothing that helps, and might show some of it.
        _ if passphrase.is_some() => "it is no private key, or the passphrase is wrong".to_owned(),
        _ => "it is no private key, or of a kind that is not supported".to_owned(),
    })?;
    match key.algorithm() {
        Algorithm::Rsa { .. } => Err("RSA keys are used from an agent, or by transport = \"openssh\"".to_owned()),
        _ if key.is_encrypted() => Err("it is locked with a passphrase".to_owned()),
        _ => Ok(key),
    }
}

async fn with_key(ssh: &mut Handle<Guard>, user: &str, key: PrivateKey, what: &str, tries: &mut Tries) -> Result<bool> {
    let what = format!("{what} ({} {})", key.algorithm(), fingerprint(key.public_key()));
    if !tries.may(MethodKind::PublicKey) {
        tries.add(format!("{what}: the server takes no keys"));
        return Ok(false);
    }
    let key = PrivateKeyWithHashAlg::new(Arc::new(key), None);
    let result = told(ssh.authenticate_publickey(user, key).await)?;
    Ok(tries.refused(what, result))
}

async fn with_password(ssh: &mut Handle<Guard>, user: &str, password: &Secret, tries: &mut Tries) -> Result<bool> {
    if tries.may(MethodKind::Password) {
        let result = told(ssh.authenticate_password(user, password.as_str()).await)?;
        if tries.refused("password".to_owned(), result) {
            return Ok(true);
        }
    }
    if !tries.may(MethodKind::KeyboardInteractive) {
        return Ok(false);
    }
    // Many servers ask for the password in this way only. One hidden prompt can be meant.
    let mut answer = told(ssh.authenticate_keyboard_interactive_start(user, None::<String>).await)?;
    for _ in 0..3 {
        let prompts = match answer {
            KeyboardInteractiveAuthResponse::Success => return Ok(true),
            KeyboardInteractiveAuthResponse::Failure { .. } => break,
            KeyboardInteractiveAuthResponse::InfoRequest { prompts, .. } => prompts,
        };
        let replies: Vec<String> = prompts
            .iter()
            .map(|prompt| if prompt.echo { String::new() } else { password.as_str().to_owned() })
            .collect();
        answer = told(ssh.authenticate_keyboard_interactive_respond(replies).await)?;
    }
    tries.add("password, by the server's prompt: refused");
    Ok(false)
}

async fn with_agent(ssh: &mut Handle<Guard>, user: &str, tries: &mut Tries) -> Result<bool> {
    if std::env::var_os("SSH_AUTH_SOCK").is_none_or(|socket| socket.is_empty()) {
        tries.add("agent: SSH_AUTH_SOCK is not set");
        return Ok(false);
    }
    if !tries.may(MethodKind::PublicKey) {
        tries.add("agent: the server takes no keys");
        return Ok(false);
    }
    let identities = match AgentClient::connect_env().await {
        Ok(mut agent) => agent.request_identities().await.map(|identities| (agent, identities)),
        Err(error) => Err(error),
    };
    let (mut agent, identities) = match identities {
        Ok(found) => found,
        Err(error) => {
            tries.add(format!("agent: {error}"));
            return Ok(false);
        }
    };
    if identities.is_empty() {
        tries.add("agent: it holds no keys");
    }
    for identity in identities.iter().take(AGENT_KEYS_MAX) {
        let key = identity.public_key().into_owned();
        let what = format!("agent's key {} ({} {})", identity.comment(), key.algorithm(), fingerprint(&key));
        let hash = matches!(key.algorithm(), Algorithm::Rsa { .. }).then_some(HashAlg::Sha512);
        match ssh.authenticate_publickey_with(user, key, hash, &mut agent).await {
            Ok(result) => {
                if tries.refused(what, result) {
                    return Ok(true);
                }
            }
            Err(error) => tries.add(format!("{what}: {error}")),
        }
    }
    Ok(false)
}

async fn with_files(
    ssh: &mut Handle<Guard>,
    user: &str,
    passphrase: Option<&Secret>,
    tries: &mut Tries,
) -> Result<bool> {
    let Some(folder) = home().map(|home| home.join(".ssh")) else { return Ok(false) };
    for name in KEY_FILES {
        let file = folder.join(name);
        let text = match fs_err::read_to_string(&file) {
            Ok(text) => Secret::new(text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => {
                tries.add(error.to_string());
                continue;
            }
        };
        match decode(&text, passphrase) {
            Ok(key) => {
                if with_key(ssh, user, key, &file.display().to_string(), tries).await? {
                    return Ok(true);
                }
            }
            Err(why) => tries.add(format!("{}: {why}", file.display())),
        }
    }
    Ok(false)
}

pub(super) fn home() -> Option<PathBuf> {
    std::env::home_dir().filter(|home| !home.as_os_str().is_empty())
}
