//! The side that is connected to: who it is, and who the other one is.

use crate::certificate::Certificate;
use crate::client::{Client, Live};
use crate::error::PkiError;
use crate::identity::Identity;
use crate::moment::now_s;
use crate::names::Role;
use crate::trust::{Pin, Trust};
use crate::verifier::AnyClient;
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::sync::{Arc, PoisonError, RwLock};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Who is at the other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// It has shown nothing: a person with a token, or a machine that joins.
    Anonymous,
    /// A member of this cluster; verified when it connected.
    Known(Certificate),
    /// It has shown something that is not believed.
    Refused(PkiError),
}

impl Peer {
    /// Its certificate, if it is one for this role and still goes.
    ///
    /// # Errors
    /// Why not.
    pub fn require(&self, needed: Role, now_s: u64) -> Result<&Certificate, PkiError> {
        match self {
            Self::Anonymous => Err(PkiError::Missing { needed }),
            Self::Refused(error) => Err(error.clone()),
            Self::Known(certificate) => {
                certificate.check_role(needed)?;
                certificate.check_time(now_s)?;
                Ok(certificate)
            }
        }
    }
}

/// What a server shows and believes at the moment.
struct Current {
    config: Arc<ServerConfig>,
    identity: Identity,
    trust: Trust,
    pin: Pin,
}

/// A server's TLS; what it shows and believes can be replaced while it serves.
pub struct ServerTls {
    current: Shared,
}

/// What is replaced as a whole.
#[derive(Clone)]
struct Shared(Arc<RwLock<Arc<Current>>>);

impl Shared {
    fn get(&self) -> Arc<Current> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Live for Shared {
    fn trust(&self) -> Trust {
        self.get().trust.clone()
    }

    fn key(&self) -> Arc<CertifiedKey> {
        self.get().identity.key().clone()
    }
}

impl std::fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerTls").finish_non_exhaustive()
    }
}

impl ServerTls {
    /// With a server's certificate that one of these authorities has made.
    ///
    /// # Errors
    /// What is wrong with the certificate, by the clock of this machine.
    pub fn new(identity: Identity, trust: Trust) -> Result<Self, PkiError> {
        Ok(Self {
            current: Shared(Arc::new(RwLock::new(Arc::new(Current::new(identity, trust, now_s())?)))),
        })
    }

    /// From now on these are shown and believed; connections that are open go on.
    ///
    /// # Errors
    /// As [`ServerTls::new`]; what was there stays.
    pub fn replace(&self, identity: Identity, trust: Trust) -> Result<(), PkiError> {
        let next = Arc::new(Current::new(identity, trust, now_s())?);
        *self.current.0.write().unwrap_or_else(PoisonError::into_inner) = next;
        Ok(())
    }

    fn current(&self) -> Arc<Current> {
        self.current.get()
    }

    /// What it shows.
    #[must_use]
    pub fn certificate(&self) -> Certificate {
        self.current().identity.certificate().clone()
    }

    /// What it believes.
    #[must_use]
    pub fn trust(&self) -> Trust {
        self.current().trust.clone()
    }

    /// The fingerprint of the authority that it shows: what join tokens carry.
    #[must_use]
    pub fn pin(&self) -> Pin {
        self.current().pin.clone()
    }

    /// Connects to other servers of the cluster with this server's own certificate: always the one
    /// of the moment.
    ///
    /// # Errors
    /// [`PkiError::Making`].
    pub fn client(&self) -> Result<Client, PkiError> {
        Client::live(Arc::new(self.current.clone()))
    }

    /// The handshake, without any limit of time.
    ///
    /// # Errors
    /// What TLS says.
    pub async fn accept<IO>(&self, io: IO) -> std::io::Result<(TlsStream<IO>, Peer)>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let current = self.current();
        let stream = TlsAcceptor::from(current.config.clone()).accept(io).await?;
        let peer = match stream.get_ref().1.peer_certificates() {
            None | Some([]) => Peer::Anonymous,
            Some([leaf, others @ ..]) => match current.trust.verify_member(leaf, others, now_s()) {
                Ok(certificate) => Peer::Known(certificate),
                Err(error) => Peer::Refused(error),
            },
        };
        Ok((stream, peer))
    }
}

impl Current {
    fn new(identity: Identity, trust: Trust, now_s: u64) -> Result<Self, PkiError> {
        trust.verify(identity.leaf(), &[], Role::Server, now_s)?;
        let authority = trust
            .issuer_of(identity.leaf())
            .ok_or_else(|| PkiError::WrongAuthority {
                subject: identity.certificate().subject(),
            })?;
        let shown = identity.shown_with(authority);
        let pin = crate::certificate::fingerprint(authority).parse()?;
        let provider = crate::provider();
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|cause| PkiError::Making {
                what: "a TLS server",
                cause: cause.to_string(),
            })?;
        let mut config = builder
            .with_client_cert_verifier(Arc::new(AnyClient::new(&trust, provider)))
            .with_cert_resolver(Arc::new(Shown(shown)));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self {
            config: Arc::new(config),
            identity,
            trust,
            pin,
        })
    }
}

#[derive(Debug)]
struct Shown(Arc<CertifiedKey>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}
