//! What rustls asks about certificates, answered by `trust` in its own words.

use crate::certificate::Certificate;
use crate::client::Live;
use crate::error::PkiError;
use crate::names::Role;
use crate::trust::{Pin, Trust};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::sync::Arc;

fn refused(error: PkiError) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
}

/// Whom a client believes.
#[derive(Debug, Clone)]
pub(crate) enum Belief {
    /// Servers of these authorities.
    Trust(Trust),
    /// Servers of the one authority with this fingerprint, which they show.
    Pin(Pin),
    /// Servers of the authorities of the moment.
    Live(Arc<dyn Live>),
}

/// The client's side.
#[derive(Debug)]
pub(crate) struct ServerVerifier {
    belief: Belief,
    provider: Arc<CryptoProvider>,
}

impl ServerVerifier {
    pub(crate) fn new(belief: Belief, provider: Arc<CryptoProvider>) -> Self {
        Self { belief, provider }
    }

    fn check(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), PkiError> {
        let trust = match &self.belief {
            Belief::Trust(trust) => trust.clone(),
            Belief::Pin(pin) => pin.pick(others)?,
            Belief::Live(of) => of.trust(),
        };
        let certificate = trust.verify(leaf, others, Role::Server, now.as_secs())?;
        check_name(&certificate, leaf, name)
    }
}

fn check_name(certificate: &Certificate, leaf: &CertificateDer<'_>, name: &ServerName<'_>) -> Result<(), PkiError> {
    let parsed = ParsedCertificate::try_from(leaf).map_err(|e| PkiError::malformed("certificate", e))?;
    verify_server_name(&parsed, name).map_err(|_| PkiError::WrongName {
        subject: certificate.subject(),
        reached: name.to_str().into_owned(),
        names: certificate.names.join(", "),
    })
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(end_entity, intermediates, server_name, now)
            .map(|()| ServerCertVerified::assertion())
            .map_err(refused)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The server's side: a peer must own the key of what it shows, and that is all that the handshake
/// asks. Whether it is believed is found out when the handshake is done (`Peer`): so a peer
/// that is refused hears why, in words, and a browser with a certificate of its own is served.
#[derive(Debug)]
pub(crate) struct AnyClient {
    provider: Arc<CryptoProvider>,
    hints: Vec<DistinguishedName>,
}

impl AnyClient {
    pub(crate) fn new(trust: &Trust, provider: Arc<CryptoProvider>) -> Self {
        Self {
            provider,
            hints: trust.roots().subjects(),
        }
    }
}

impl ClientCertVerifier for AnyClient {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
