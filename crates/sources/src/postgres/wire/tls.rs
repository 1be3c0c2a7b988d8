//! Encryption: settings made into a configuration, and a session on a socket that does not block.

use super::super::conninfo::{Host, Place, SslMode, SslNegotiation, SslRoot, Tls, TlsVersion};
use super::connect::TLS_FAILED;
use super::der::Certificate;
use super::socket::{Patience, Socket};
use super::verify::Verifier;
use lastgood_model::{Error, ErrorKind, Result};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName};
use rustls::{CertificateError, ClientConfig, ClientConnection, RootCertStore};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

/// Encrypted bytes taken from the socket at a time: several TLS records of 16 KiB.
const RAW_BYTES: usize = 128 * 1024;
/// Larger files are no certificates.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// The protocol's name in TLS, which servers that start with TLS at once insist on.
const PROTOCOL_NAME: &[u8] = b"postgresql";

/// An encrypted connection over a [`Socket`].
pub(super) struct Session {
    connection: ClientConnection,
    raw: Vec<u8>,
    /// Within `raw`, what was read and not decrypted yet.
    held: std::ops::Range<usize>,
}

impl Session {
    /// Shakes hands.
    pub(super) fn begin(socket: &Socket, host: &Host, tls: &Tls, patience: &Patience) -> Result<Self> {
        let Place::Tcp { name, .. } = &host.place else {
            return Err(Error::new(ErrorKind::Bug, "TLS over a Unix socket"));
        };
        let (server_name, is_real) = match ServerName::try_from(name.clone()) {
            Ok(server_name) => (server_name, true),
            Err(_) if tls.mode < SslMode::VerifyFull => {
                (ServerName::from(std::net::Ipv4Addr::UNSPECIFIED).to_owned(), false)
            }
            Err(_) => return Err(Error::invalid(format!("no certificate can be for a host called {name:?}"))),
        };
        let mut config = config(tls, name)?;
        config.enable_sni = tls.names_host && is_real;
        let connection = ClientConnection::new(Arc::new(config), server_name)
            .map_err(|error| Error::new(ErrorKind::Unsupported, "begin TLS").with_source(error))?;
        let mut session = Self { connection, raw: vec![0; RAW_BYTES], held: 0..0 };
        while session.connection.is_handshaking() {
            session.step(socket, patience).map_err(|error| refused(error, host))?;
        }
        if tls.negotiation == SslNegotiation::Direct && session.connection.alpn_protocol() != Some(PROTOCOL_NAME) {
            return Err(Error::new(ErrorKind::Unsupported, "the server did not agree to speak PostgreSQL over TLS")
                .with_hint("sslnegotiation=direct needs PostgreSQL 17 or newer"));
        }
        Ok(session)
    }

    /// One move of the handshake.
    fn step(&mut self, mut socket: &Socket, patience: &Patience) -> io::Result<()> {
        if self.connection.wants_write() {
            return match self.connection.write_tls(&mut socket) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => socket.wait(true, patience),
                result => result.map(drop),
            };
        }
        match self.take(socket) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => socket.wait(false, patience),
            Ok(true) => Ok(()),
            Ok(false) => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) => {
                // Tells the server why, if it listens; the reason itself is what counts here.
                let _ = self.connection.write_tls(&mut socket);
                Err(error)
            }
        }
    }

    /// Takes encrypted bytes from the socket and decrypts them. False at the end.
    fn take(&mut self, mut socket: &Socket) -> io::Result<bool> {
        if self.held.is_empty() {
            self.held = 0..socket.read(&mut self.raw)?;
        }
        let taken = self.connection.read_tls(&mut &self.raw[self.held.clone()])?;
        self.held.start += taken;
        self.connection.process_new_packets().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Ok(taken > 0)
    }

    /// Reads what was decrypted, or more from the socket. 0 at the end; `WouldBlock` when there is nothing now.
    pub(super) fn read(&mut self, mut socket: &Socket, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.connection.reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // Without a proper goodbye it is still only an end, which means nothing by itself.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                result => return result,
            }
            if !self.take(socket)? {
                return Ok(0);
            }
            if self.connection.wants_write() {
                // New keys and the like; if there is no room now they go with the next data.
                let _ = self.connection.write_tls(&mut socket);
            }
        }
    }

    /// Encrypts as much of `bytes` as there is room for and sends it. `WouldBlock` when there is none.
    pub(super) fn write(&mut self, socket: &Socket, bytes: &[u8]) -> io::Result<usize> {
        self.push(socket)?;
        let taken = self.connection.writer().write(bytes)?;
        match self.push(socket) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(taken),
        }
    }

    /// Sends what is encrypted already.
    pub(super) fn push(&mut self, mut socket: &Socket) -> io::Result<()> {
        while self.connection.wants_write() {
            self.connection.write_tls(&mut socket)?;
        }
        Ok(())
    }

    /// Says goodbye, if there is room for it.
    pub(super) fn close(&mut self, socket: &Socket) {
        self.connection.send_close_notify();
        let _ = self.push(socket);
    }

    /// What authentication can be bound to: the hash of the server's certificate (RFC 5929, `tls-server-end-point`).
    /// `None` where the certificate's signature names no hash.
    pub(super) fn end_point(&self) -> Option<Vec<u8>> {
        use aws_lc_rs::digest::{SHA224, SHA256, SHA384, SHA512, digest};
        let certificate = self.connection.peer_certificates()?.first()?;
        let algorithm = match Certificate::parse(certificate)?.signature_oid {
            // RSA: MD5 and SHA-1 count as SHA-256.
            [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, last] => match last {
                4 | 5 | 11 => &SHA256,
                12 => &SHA384,
                13 => &SHA512,
                14 => &SHA224,
                _ => return None,
            },
            // ECDSA with SHA-1, and with the SHA-2 family.
            [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x01] => &SHA256,
            [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, last] => match last {
                1 => &SHA224,
                2 => &SHA256,
                3 => &SHA384,
                4 => &SHA512,
                _ => return None,
            },
            _ => return None,
        };
        Some(digest(algorithm, certificate).as_ref().to_vec())
    }

    /// Version and cipher, for people.
    pub(super) fn shown(&self) -> String {
        let version = self.connection.protocol_version().and_then(|version| version.as_str()).unwrap_or("TLS");
        let suite = self.connection.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str());
        format!("{version} {}", suite.unwrap_or_default()).trim_end().replace("TLSv1_", "TLS 1.")
    }
}

fn config(tls: &Tls, host: &str) -> Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let algorithms = provider.signature_verification_algorithms;
    let (roots, trusted) = roots(tls)?;
    let chain = match roots {
        None => None,
        Some(roots) => {
            let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone());
            let builder = match &tls.revoked_file {
                None => builder,
                Some(path) => {
                    let lists = pem_items::<CertificateRevocationListDer<'static>>(&read(path, "sslcrl")?, path)?;
                    builder.with_crls(lists)
                }
            };
            Some(builder.build().map_err(|error| {
                Error::invalid("use the trusted certificates")
                    .with_source(error)
                    .with_hint("lists of revoked certificates must have version 2, as those with a number have")
            })?)
        }
    };
    let name = (tls.mode == SslMode::VerifyFull).then(|| host.to_owned());
    let verifier = Arc::new(Verifier { chain, trusted, name, algorithms });
    let versions: &[&rustls::SupportedProtocolVersion] = match (tls.version_min, tls.version_max) {
        (TlsVersion::V13, _) => &[&rustls::version::TLS13],
        (_, TlsVersion::V12) => &[&rustls::version::TLS12],
        _ => &[&rustls::version::TLS13, &rustls::version::TLS12],
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .map_err(|error| Error::new(ErrorKind::Bug, "choose TLS versions").with_source(error))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match own_certificate(tls)? {
        None => builder.with_no_client_auth(),
        Some((certificates, key)) => builder.with_client_auth_cert(certificates, key).map_err(|error| {
            Error::invalid("use our certificate").with_source(error).with_hint("do sslcert and sslkey belong together?")
        })?,
    };
    config.alpn_protocols = vec![PROTOCOL_NAME.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// Whom to trust; `None` where nothing is to be verified. Beside it, the trusted file's certificates as they are.
fn roots(tls: &Tls) -> Result<(Option<RootCertStore>, Vec<CertificateDer<'static>>)> {
    let mut store = RootCertStore::empty();
    let (path, certificates) = match &tls.root {
        SslRoot::System => {
            let found = rustls_native_certs::load_native_certs();
            if found.certs.is_empty() {
                let error = Error::new(ErrorKind::Absent, "this system has no certificates of authorities");
                return Err(error.with_hint("install the package ca-certificates"));
            }
            (None, found.certs)
        }
        SslRoot::Missing if tls.mode < SslMode::VerifyCa => return Ok((None, Vec::new())),
        SslRoot::Missing => {
            return Err(Error::new(ErrorKind::Absent, "there is no file of trusted certificates").with_hint(
                "name it in sslrootcert or put it at ~/.postgresql/root.crt; sslrootcert=system trusts what the system does",
            ));
        }
        // With less than verify-ca nothing is verified unless there is a file, named or the person's own.
        SslRoot::File(path) | SslRoot::Own(path) if tls.mode < SslMode::VerifyCa && !path.exists() => {
            return Ok((None, Vec::new()));
        }
        SslRoot::File(path) | SslRoot::Own(path) => (Some(path), pem_items(&read(path, "sslrootcert")?, path)?),
    };
    let (usable, _) = store.add_parsable_certificates(certificates.iter().cloned());
    if let Some(path) = path.filter(|_| usable == 0) {
        return Err(Error::invalid(format!("{} holds no certificate that can be used", path.display())));
    }
    Ok((Some(store), if path.is_some() { certificates } else { Vec::new() }))
}

fn own_certificate(tls: &Tls) -> Result<Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>> {
    let Some((certificate, key, must_exist)) = &tls.own else { return Ok(None) };
    if !certificate.exists() && !must_exist {
        return Ok(None);
    }
    let certificates = pem_items(&read(certificate, "sslcert")?, certificate)?;
    let key_text = zeroize::Zeroizing::new(read(key, "sslkey")?);
    let facts = fs_err::metadata(key).map_err(|error| Error::io("look at sslkey", error))?;
    // As libpq: nobody else may read it, except that a key of root's may be readable for a group.
    let forbidden = if facts.uid() == 0 && rustix::process::geteuid().as_raw() != 0 { 0o037 } else { 0o077 };
    if facts.mode() & forbidden != 0 {
        return Err(Error::new(ErrorKind::Denied, format!("private key {} can be read by others", key.display()))
            .with_hint(format!("chmod 0600 {}", key.display())));
    }
    let is_encrypted = String::from_utf8_lossy(&key_text).contains("ENCRYPTED");
    let parsed = PrivateKeyDer::from_pem_slice(&key_text).map_err(|_| {
        let why = if is_encrypted { "is encrypted, which is not supported" } else { "is no PEM file with a key" };
        Error::new(ErrorKind::Unsupported, format!("private key {} {why}", key.display()))
            .with_hint("decrypt it with `openssl pkey`, keep it in a file with mode 0600, and name that in sslkey")
    })?;
    Ok(Some((certificates, parsed)))
}

fn read(path: &Path, what: &str) -> Result<Vec<u8>> {
    let act = || format!("read {what}");
    let file = fs_err::File::open(path).map_err(|error| Error::io(act(), error))?;
    let mut out = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut out).map_err(|error| Error::io(act(), error))?;
    Ok(out)
}

fn pem_items<T: PemObject>(text: &[u8], path: &Path) -> Result<Vec<T>> {
    let items: std::result::Result<Vec<T>, _> = T::pem_slice_iter(text).collect();
    match items {
        Ok(items) if !items.is_empty() => Ok(items),
        _ => Err(Error::invalid(format!("{} is no PEM file of the kind expected", path.display()))),
    }
}

/// Why the handshake failed.
fn refused(error: io::Error, host: &Host) -> Error {
    let message = format!("{TLS_FAILED} with {host}");
    let reason = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let (kind, hint) = match reason {
        Some(rustls::Error::InvalidCertificate(certificate)) => (
            ErrorKind::Denied,
            match certificate {
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                    "the certificate is for another host: connect by the name in it, or use sslmode=verify-ca"
                }
                CertificateError::UnknownIssuer => "name the authority's certificate in sslrootcert",
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                    "the certificate must be renewed"
                }
                CertificateError::Other(_) => {
                    "a certificate must have version 3, and an authority's cannot be a server's"
                }
                _ => "the server's certificate is not accepted",
            },
        ),
        Some(rustls::Error::AlertReceived(_)) => (ErrorKind::Denied, "does the server want a certificate of ours?"),
        Some(_) => (ErrorKind::Unsupported, "do both sides know a TLS version in common?"),
        None if error.kind() == io::ErrorKind::Interrupted => (ErrorKind::Cancelled, "asked to stop"),
        None => (ErrorKind::Retry, "the connection broke, or something between refuses TLS"),
    };
    Error::new(kind, message).with_source(error).with_hint(hint)
}
