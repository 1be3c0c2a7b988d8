//! The system's own `ssh` as the connection, for what it knows and we do not: jump hosts, names and options from
//! `ssh_config`, hardware keys, certificates.

use super::channel::Channel;
use super::{SftpOptions, SftpPlace, ssh};
use crate::lock;
use lastgood_model::{Error, ErrorKind, Result};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};

/// How much of what it says is kept.
const WORDS_BYTES_MAX: usize = 4 << 10;

/// A conversation through a program, which ends with it.
pub(super) async fn open(place: &SftpPlace, options: &SftpOptions) -> Result<(Channel, Child)> {
    let patience = ssh::patience(options);
    let mut command = Command::new("ssh");
    // Nobody is there to answer questions.
    command.args([
        "-oBatchMode=yes",
        "-oServerAliveInterval=15",
        "-oServerAliveCountMax=3",
        "-oClearAllForwardings=yes",
    ]);
    command.arg(format!("-oConnectTimeout={}", patience.as_secs().max(1)));
    if let Some(config) = &options.ssh_config {
        command.arg("-F").arg(config);
    }
    if let Some(port) = place.port {
        command.args(["-p", &port.to_string()]);
    }
    if let Some(user) = &place.user {
        command.args(["-l", user]);
    }
    command.args(["-s", "--", &place.host, "sftp"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| {
        Error::io("start `ssh`", error).with_hint("install OpenSSH's client, or leave out transport = \"openssh\"")
    })?;
    let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(stdin), Some(stdout), Some(mut stderr)) = pipes else {
        return Err(Error::new(ErrorKind::Bug, "the pipes of `ssh` are not there"));
    };
    let words = Arc::new(Mutex::new(Vec::new()));
    let heard = words.clone();
    let listening = tokio::spawn(async move {
        let mut piece = [0; 1024];
        while let Ok(count @ 1..) = stderr.read(&mut piece).await {
            let mut words = lock(&heard);
            let room = WORDS_BYTES_MAX.saturating_sub(words.len());
            words.extend_from_slice(&piece[..count.min(room)]);
        }
    });
    let stream = tokio::io::join(stdout, stdin);
    let limit = patience.saturating_mul(2);
    match tokio::time::timeout(limit, Channel::begin(stream)).await {
        Ok(Ok(channel)) => Ok((channel, child)),
        Ok(Err(error)) => {
            // It has ended or is about to; its last words say why.
            let _ = tokio::time::timeout(Duration::from_secs(1), listening).await;
            let words = lock(&words).clone();
            Err(explain(place, error, &String::from_utf8_lossy(&words)))
        }
        Err(_) => Err(Error::new(ErrorKind::Retry, format!("`ssh` did not reach {place} within {limit:?}"))),
    }
}

fn explain(place: &SftpPlace, error: Error, words: &str) -> Error {
    let words: Vec<&str> = words.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    if words.is_empty() {
        return error;
    }
    let all = words.join("; ");
    let final_ones = [
        "Permission denied",
        "Host key verification failed",
        "REMOTE HOST IDENTIFICATION",
        "Bad configuration",
        "Too many authentication",
    ];
    let kind = if final_ones.iter().any(|end| all.contains(end)) { ErrorKind::Denied } else { ErrorKind::Retry };
    Error::new(kind, format!("`ssh` could not reach {place}: {all}"))
        .with_hint(format!("try it by hand: ssh {}", place.host))
}
