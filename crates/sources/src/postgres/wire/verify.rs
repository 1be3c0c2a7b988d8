//! Judging a server's certificate as libpq does, on top of what the TLS library's own judge says.
//!
//! Beyond that judge, accepted are: a certificate that stands itself in the trusted file (how most self-signed servers
//! are set up), a common name where a certificate lists no names, and, where nothing is to be verified, anything at all
//! whose owner has its key.

use super::der::Certificate;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};
use std::sync::Arc;

/// The judge of one connection.
#[derive(Debug)]
pub(super) struct Verifier {
    /// Judges chains; `None` where nothing is to be verified.
    pub(super) chain: Option<Arc<WebPkiServerVerifier>>,
    /// The trusted file's certificates as they are.
    pub(super) trusted: Vec<CertificateDer<'static>>,
    /// Whether the name must fit, and the host's name as it was asked for.
    pub(super) name: Option<String>,
    pub(super) algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        let verdict = if self.trusted.iter().any(|trusted| trusted.as_ref() == end_entity.as_ref()) {
            trusted_itself(end_entity, server_name, now)
        } else {
            // Looks at names only once the chain is found good, so an error about the name says that the rest is.
            chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now).map(drop)
        };
        match (verdict, &self.name) {
            (Ok(()), _) => {}
            (Err(error), None) if is_about_name(&error) => {}
            (Err(error), Some(name)) if is_about_name(&error) && common_name_fits(end_entity, name) => {}
            (Err(error), _) => return Err(error),
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match (&self.chain, verify_tls12_signature(message, cert, dss, &self.algorithms)) {
            (None, Err(Error::InvalidCertificate(_))) => self.verify_by_key(message, cert, dss),
            (_, verdict) => verdict,
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match (&self.chain, verify_tls13_signature(message, cert, dss, &self.algorithms)) {
            (None, Err(Error::InvalidCertificate(_))) => self.verify_by_key(message, cert, dss),
            (_, verdict) => verdict,
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl Verifier {
    /// The signature of the handshake with the certificate's key, for certificates of the old version 1 (as tutorials
    /// make them), which the library refuses to read. Only where nothing else is verified.
    fn verify_by_key(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let bad = || Error::InvalidCertificate(CertificateError::BadSignature);
        let certificate = Certificate::parse(cert).ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))?;
        let known = self.algorithms.mapping.iter().find(|(scheme, _)| *scheme == dss.scheme).ok_or_else(bad)?;
        let fits = known.1.iter().any(|algorithm| {
            algorithm.public_key_alg_id().as_ref() == certificate.key_algorithm
                && algorithm.verify_signature(certificate.public_key, message, dss.signature()).is_ok()
        });
        if fits { Ok(HandshakeSignatureValid::assertion()) } else { Err(bad()) }
    }
}

/// A certificate that is trusted by itself must still be within its time and have the right name.
fn trusted_itself(end_entity: &CertificateDer<'_>, name: &ServerName<'_>, now: UnixTime) -> Result<(), Error> {
    let certificate = Certificate::parse(end_entity).ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))?;
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    if now < certificate.valid.0 {
        return Err(CertificateError::NotValidYet.into());
    }
    if now > certificate.valid.1 {
        return Err(CertificateError::Expired.into());
    }
    match ParsedCertificate::try_from(end_entity) {
        Ok(parsed) => rustls::client::verify_server_name(&parsed, name),
        // Version 1: it cannot list names.
        Err(_) => Err(CertificateError::NotValidForName.into()),
    }
}

fn is_about_name(error: &Error) -> bool {
    matches!(
        error,
        Error::InvalidCertificate(CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. })
    )
}

/// Whether a certificate that lists no names carries `host` as its common name; `*.` stands for one label.
fn common_name_fits(certificate: &CertificateDer<'_>, host: &str) -> bool {
    let Some(certificate) = Certificate::parse(certificate).filter(|it| !it.has_alternative_names()) else {
        return false;
    };
    let Some(pattern) = certificate.common_name() else { return false };
    match pattern.strip_prefix("*.") {
        None => pattern.eq_ignore_ascii_case(host),
        Some(parent) => host.split_once('.').is_some_and(|(label, rest)| {
            !label.is_empty() && parent.contains('.') && rest.eq_ignore_ascii_case(parent)
        }),
    }
}
