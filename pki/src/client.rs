//! The side that connects: it believes in servers of its cluster only, and shows who it is.

use crate::address::Address;
use crate::error::PkiError;
use crate::identity::Identity;
use crate::names::Host;
use crate::trust::{Pin, Trust};
use crate::verifier::{Belief, ServerVerifier};
use rustls::client::ResolvesClientCert;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, SignatureScheme};
use rustls_pki_types::ServerName;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Connects to servers of one cluster. Clones share it; a renewed certificate takes a new one.
#[derive(Clone)]
pub struct Client {
    config: Arc<ClientConfig>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

impl Client {
    /// Believes in these authorities and shows this certificate.
    ///
    /// # Errors
    /// [`PkiError::Making`].
    pub fn new(trust: Trust, identity: Option<&Identity>) -> Result<Self, PkiError> {
        Self::with(Belief::Trust(trust), identity)
    }

    /// Believes in the one authority with this fingerprint and shows nothing: for a machine that joins.
    ///
    /// # Errors
    /// [`PkiError::Making`].
    pub fn pinned(pin: Pin) -> Result<Self, PkiError> {
        Self::with(Belief::Pin(pin), None)
    }

    /// Believes and shows what is current at each connection.
    pub(crate) fn live(of: Arc<dyn Live>) -> Result<Self, PkiError> {
        Self::showing(Belief::Live(of.clone()), Some(Arc::new(Current(of))))
    }

    fn with(belief: Belief, identity: Option<&Identity>) -> Result<Self, PkiError> {
        let shown = identity.map(|i| Arc::new(Always(i.key().clone())) as Arc<dyn ResolvesClientCert>);
        Self::showing(belief, shown)
    }

    fn showing(belief: Belief, shown: Option<Arc<dyn ResolvesClientCert>>) -> Result<Self, PkiError> {
        let provider = crate::provider();
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|cause| PkiError::Making {
                what: "a TLS client",
                cause: cause.to_string(),
            })?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(ServerVerifier::new(belief, provider)));
        let mut config = match shown {
            Some(shown) => builder.with_client_cert_resolver(shown),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self {
            config: Arc::new(config),
        })
    }

    /// The same settings for another HTTP client, which chooses between HTTP/2 and HTTP/1.1 itself.
    #[must_use]
    pub fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::clone(&self.config);
        config.alpn_protocols.clear();
        config
    }

    /// A connection for HTTP/2. To be put below a gRPC channel: its own address must then begin
    /// with `http://`, because TLS is done here.
    ///
    /// # Errors
    /// What the system or TLS says; [`reason`] finds the refusal of a certificate in it.
    pub async fn connect(&self, address: &Address) -> std::io::Result<TlsStream<TcpStream>> {
        let host = address.host.to_string();
        let stream = TcpStream::connect((host.as_str(), address.port)).await?;
        stream.set_nodelay(true)?;
        let name = match &address.host {
            Host::Ip(ip) => ServerName::from(*ip),
            Host::Dns(name) => ServerName::try_from(name.clone()).map_err(std::io::Error::other)?,
        };
        TlsConnector::from(self.config.clone()).connect(name, stream).await
    }
}

/// Shows one certificate, whatever the server hints at: it then says in words why it refuses it.
#[derive(Debug)]
struct Always(Arc<CertifiedKey>);

impl ResolvesClientCert for Always {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// What a member shows and believes, replaced while it goes on.
pub(crate) trait Live: std::fmt::Debug + Send + Sync {
    fn trust(&self) -> Trust;
    fn key(&self) -> Arc<CertifiedKey>;
}

/// Shows what is current.
#[derive(Debug)]
struct Current(Arc<dyn Live>);

impl ResolvesClientCert for Current {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.key())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// The refusal of a certificate behind a failed connection, however deep it lies.
#[must_use]
pub fn reason<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a PkiError> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<PkiError>() {
            return Some(found);
        }
        if let Some(rustls::Error::InvalidCertificate(rustls::CertificateError::Other(other))) =
            error.downcast_ref::<rustls::Error>()
        {
            return other.0.downcast_ref::<PkiError>();
        }
        // An I/O error's source is the source of what it wraps, not that itself.
        let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        next = match wrapped {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}
