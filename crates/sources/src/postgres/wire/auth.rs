//! Signing in. Methods: none, password in the open, MD5, SCRAM-SHA-256, the last also bound to the TLS connection, so
//! that nobody in between can pass it on.

use super::super::conninfo::{ChannelBinding as Binding, Conninfo};
use super::errors::nonsense;
use super::link::Link;
use fallible_iterator::FallibleIterator;
use lastgood_model::{Error, ErrorKind, Result};
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256};
use postgres_protocol::message::backend::{self, Message};
use postgres_protocol::message::frontend;

/// Answers whatever the server asks, until it says that we are in.
pub(super) fn sign_in(link: &mut Link, info: &Conninfo) -> Result<()> {
    let mut is_asked = false;
    loop {
        let message = next(link)?;
        if !matches!(message, Message::AuthenticationOk) && std::mem::replace(&mut is_asked, true) {
            return Err(link.spoilt(nonsense("it asks to sign in a second time")));
        }
        let is_bound = match message {
            Message::AuthenticationOk => {
                // Without having been asked for anything: nothing was proved by either side.
                if !is_asked {
                    allow(info, "none")?;
                    require_binding(info, false)?;
                }
                return Ok(());
            }
            Message::AuthenticationCleartextPassword => {
                allow(info, "password")?;
                let password = password(info)?;
                link.put(|buffer| frontend::password_message(password.as_bytes(), buffer))?;
                false
            }
            Message::AuthenticationMd5Password(body) => {
                allow(info, "md5")?;
                let hash = md5_hash(info.user().as_bytes(), password(info)?.as_bytes(), body.salt());
                link.put(|buffer| frontend::password_message(hash.as_bytes(), buffer))?;
                false
            }
            Message::AuthenticationSasl(body) => {
                let mechanisms: Vec<String> = body
                    .mechanisms()
                    .map(|name| Ok(name.to_owned()))
                    .collect()
                    .map_err(|error| link.spoilt(nonsense(error)))?;
                scram(link, info, &mechanisms)?
            }
            Message::AuthenticationGss | Message::AuthenticationSspi | Message::AuthenticationKerberosV5 => {
                return Err(unsupported("Kerberos (GSSAPI)"));
            }
            _ => return Err(link.spoilt(nonsense("an answer to sign in that fits no question"))),
        };
        require_binding(info, is_bound)?;
        link.send()?;
    }
}

/// The next message about signing in.
fn next(link: &mut Link) -> Result<Message> {
    let frame = link.next()?;
    link.failure()?;
    match frame.tag {
        backend::AUTHENTICATION_TAG => link.parse(frame),
        tag => Err(link.spoilt(nonsense(format_args!("a message {:?} while signing in", char::from(tag))))),
    }
}

/// The exchange of SCRAM; true if it was bound to the TLS connection. Leaves the server's last word to the caller.
fn scram(link: &mut Link, info: &Conninfo, mechanisms: &[String]) -> Result<bool> {
    let has = |name: &str| mechanisms.iter().any(|mechanism| mechanism == name);
    if !has(SCRAM_SHA_256) && !has(SCRAM_SHA_256_PLUS) {
        let names = mechanisms.join(", ");
        return Err(unsupported(if names.is_empty() { "an unnamed SASL mechanism" } else { &names }));
    }
    allow(info, "scram-sha-256")?;
    let wanted = info.options.tls.channel_binding != Binding::Disable;
    let end_point = link.channel.session().filter(|_| wanted).and_then(super::tls::Session::end_point);
    let (mechanism, binding) = match end_point {
        Some(hash) if has(SCRAM_SHA_256_PLUS) => (SCRAM_SHA_256_PLUS, ChannelBinding::tls_server_end_point(hash)),
        // We could, and say so: if the server could too, somebody between has taken it out of its offer.
        Some(_) => (SCRAM_SHA_256, ChannelBinding::unrequested()),
        None => (SCRAM_SHA_256, ChannelBinding::unsupported()),
    };
    if !has(mechanism) {
        return Err(unsupported("SCRAM with channel binding only"));
    }
    let is_bound = mechanism == SCRAM_SHA_256_PLUS;
    require_binding(info, is_bound)?;
    let mut exchange = ScramSha256::new(password(info)?.as_bytes(), binding);
    link.put(|buffer| frontend::sasl_initial_response(mechanism, exchange.message(), buffer))?;
    link.send()?;
    let Message::AuthenticationSaslContinue(body) = next(link)? else {
        return Err(link.spoilt(nonsense("SCRAM goes on in another way")));
    };
    exchange.update(body.data()).map_err(|error| link.spoilt(nonsense(error)))?;
    link.put(|buffer| frontend::sasl_response(exchange.message(), buffer))?;
    link.send()?;
    let Message::AuthenticationSaslFinal(body) = next(link)? else {
        return Err(link.spoilt(nonsense("SCRAM ends in another way")));
    };
    exchange.finish(body.data()).map_err(|error| {
        link.spoilt(
            Error::new(ErrorKind::Denied, "the server could not prove that it knows the password")
                .with_source(error)
                .with_hint("this may be another server than you think"),
        )
    })?;
    Ok(is_bound)
}

fn password(info: &Conninfo) -> Result<&str> {
    info.password(&info.hosts()[0]).ok_or_else(|| {
        let hint = match info.password_note() {
            Some(note) => note.to_owned(),
            None => "put it into ~/.pgpass (mode 0600) or PGPASSWORD".to_owned(),
        };
        Error::new(
            ErrorKind::Denied,
            format!("the server asks for the password of {:?}, and none is given", info.user()),
        )
        .with_hint(hint)
    })
}

/// Fails unless `require_auth` allows the method.
fn allow(info: &Conninfo, method: &str) -> Result<()> {
    match &info.options.auth_methods {
        Some((methods, forbids)) if methods.iter().any(|it| it == method) == *forbids => {
            Err(Error::new(ErrorKind::Denied, format!("the server wants to sign in by {method:?}"))
                .with_hint("require_auth does not allow that method"))
        }
        _ => Ok(()),
    }
}

fn require_binding(info: &Conninfo, is_bound: bool) -> Result<()> {
    if is_bound || info.options.tls.channel_binding != Binding::Require {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Denied, "the server does not bind signing in to the TLS connection")
        .with_hint("channel_binding=require needs TLS and scram-sha-256 on the server"))
}

fn unsupported(method: &str) -> Error {
    Error::new(ErrorKind::Unsupported, format!("the server wants to sign in by {method}, which is not supported"))
        .with_hint("let pg_hba.conf ask this user for scram-sha-256")
}
