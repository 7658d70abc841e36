//! Which authorities are believed, and why a certificate is not.
//!
//! There are two while the authority is rotated, one otherwise. Not here: connections (`verifier`).

use crate::certificate::{Certificate, ders, fingerprint, pem};
use crate::error::PkiError;
use crate::files::{read_text, write_public};
use crate::identity::Identity;
use crate::names::{ClusterId, Role};
use rustls::RootCertStore;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::server::ParsedCertificate;
use rustls_pki_types::{CertificateDer, UnixTime};
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// The fingerprint of an authority: lower-case hex SHA-256 of its certificate.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pin(String);

impl Pin {
    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The authority with this fingerprint among certificates that a server shows; nothing else is
    /// believed of them.
    ///
    /// # Errors
    /// [`PkiError::WrongPin`], or what is wrong with that authority.
    pub fn pick(&self, shown: &[CertificateDer<'_>]) -> Result<Trust, PkiError> {
        let found = shown.iter().find(|der| fingerprint(der) == self.0);
        let found = found.ok_or_else(|| PkiError::WrongPin { pin: self.0.clone() })?;
        Trust::from_ders(vec![found.clone().into_owned()])
    }
}

impl FromStr for Pin {
    type Err = PkiError;

    fn from_str(text: &str) -> Result<Self, PkiError> {
        let digits = text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if digits && text.len() == 64 {
            Ok(Self(text.to_owned()))
        } else {
            Err(PkiError::malformed(
                "fingerprint",
                "it must be 64 lower-case hexadecimal digits",
            ))
        }
    }
}

/// The authorities of one cluster.
#[derive(Clone)]
pub struct Trust {
    cluster: ClusterId,
    authorities: Vec<(Certificate, CertificateDer<'static>)>,
    roots: Arc<RootCertStore>,
}

impl std::fmt::Debug for Trust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let fingerprints: Vec<&str> = self.authorities.iter().map(|(c, _)| c.fingerprint.as_str()).collect();
        f.debug_struct("Trust")
            .field("cluster", &self.cluster)
            .field("authorities", &fingerprints)
            .finish()
    }
}

impl Trust {
    /// Reads the authority file.
    ///
    /// # Errors
    /// [`PkiError::File`] with what is wrong.
    pub fn read(path: &Path) -> Result<Self, PkiError> {
        Self::from_pem(&read_text(path)?).map_err(|cause| PkiError::File {
            path: path.display().to_string(),
            cause: cause.to_string(),
        })
    }

    /// All authorities of a text.
    ///
    /// # Errors
    /// When one is no authority, or of another cluster than the first.
    pub fn from_pem(pem: &str) -> Result<Self, PkiError> {
        Self::from_ders(ders(pem)?)
    }

    fn from_ders(ders: Vec<CertificateDer<'static>>) -> Result<Self, PkiError> {
        let mut roots = RootCertStore::empty();
        let mut authorities: Vec<(Certificate, CertificateDer<'static>)> = Vec::new();
        for der in ders {
            let certificate = Certificate::from_der(&der)?;
            certificate.check_role(Role::Authority)?;
            if let Some((first, _)) = authorities.first()
                && first.cluster != certificate.cluster
            {
                return Err(PkiError::WrongCluster {
                    subject: certificate.subject(),
                    theirs: certificate.cluster.to_string(),
                    ours: first.cluster.to_string(),
                });
            }
            let unusable = |e: rustls::Error| PkiError::malformed("authority", e);
            roots.add(der.clone()).map_err(unusable)?;
            authorities.push((certificate, der));
        }
        let Some((first, _)) = authorities.first() else {
            return Err(PkiError::malformed("authority", "there is none"));
        };
        Ok(Self {
            cluster: first.cluster.clone(),
            roots: Arc::new(roots),
            authorities,
        })
    }

    /// Both, without repeating any: what is believed while an authority is rotated.
    ///
    /// # Errors
    /// When they are of different clusters.
    pub fn and(&self, other: &Self) -> Result<Self, PkiError> {
        let mut ders: Vec<_> = self.authorities.iter().map(|(_, der)| der.clone()).collect();
        let more = other.authorities.iter().map(|(_, der)| der.clone());
        for der in more {
            if !ders.contains(&der) {
                ders.push(der);
            }
        }
        Self::from_ders(ders)
    }

    /// Writes the authority file, as a whole.
    ///
    /// # Errors
    /// [`PkiError::File`].
    pub fn write(&self, path: &Path) -> Result<(), PkiError> {
        write_public(path, &self.pem())
    }

    /// As text.
    #[must_use]
    pub fn pem(&self) -> String {
        let ders: Vec<_> = self.authorities.iter().map(|(_, der)| der.clone()).collect();
        pem(&ders)
    }

    /// Whose authorities these are.
    #[must_use]
    pub fn cluster(&self) -> &ClusterId {
        &self.cluster
    }

    /// The authorities.
    pub fn authorities(&self) -> impl Iterator<Item = &Certificate> {
        self.authorities.iter().map(|(certificate, _)| certificate)
    }

    pub(crate) fn roots(&self) -> &Arc<RootCertStore> {
        &self.roots
    }

    /// The authority that signed this one.
    pub(crate) fn issuer_of(&self, der: &CertificateDer<'_>) -> Option<&CertificateDer<'static>> {
        let signed_by = |authority: &CertificateDer<'static>| {
            let alone = Self::from_ders(vec![authority.clone()]).ok()?;
            let certificate = Certificate::from_der(der).ok()?;
            alone.check_signature(der, &[], certificate.not_before_s).ok()
        };
        let mut ders = self.authorities.iter().map(|(_, der)| der);
        ders.find(|authority| signed_by(authority).is_some())
    }

    /// Verifies what a peer has shown: made by one of these authorities, of this cluster, within
    /// its life, for this role.
    ///
    /// # Errors
    /// The first that is wrong.
    pub fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        needed: Role,
        now_s: u64,
    ) -> Result<Certificate, PkiError> {
        let certificate = self.verify_member(leaf, others, now_s)?;
        certificate.check_role(needed)?;
        Ok(certificate)
    }

    /// The same for one's own certificate.
    ///
    /// # Errors
    /// The first that is wrong.
    pub fn verify_own(&self, own: &Identity, needed: Role, now_s: u64) -> Result<(), PkiError> {
        self.verify(own.leaf(), &[], needed, now_s).map(drop)
    }

    /// The same for any role.
    ///
    /// # Errors
    /// The first that is wrong.
    pub fn verify_member(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now_s: u64,
    ) -> Result<Certificate, PkiError> {
        let certificate = Certificate::from_der(leaf)?;
        if certificate.cluster != self.cluster {
            return Err(PkiError::WrongCluster {
                subject: certificate.subject(),
                theirs: certificate.cluster.to_string(),
                ours: self.cluster.to_string(),
            });
        }
        certificate.check_time(now_s)?;
        self.check_signature(leaf, others, now_s)
            .map_err(|_| PkiError::WrongAuthority {
                subject: certificate.subject(),
            })?;
        Ok(certificate)
    }

    /// The signature, by whichever of the two uses the certificate allows.
    fn check_signature(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now_s: u64,
    ) -> Result<(), rustls::Error> {
        let provider = crate::provider();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now_s));
        let parsed = ParsedCertificate::try_from(leaf)?;
        let algorithms = provider.signature_verification_algorithms.all;
        let as_server = verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, others, now, algorithms);
        as_server.or_else(|_| {
            let builder = rustls::server::WebPkiClientVerifier::builder_with_provider(self.roots.clone(), provider);
            let verifier = builder.build().map_err(|e| rustls::Error::General(e.to_string()))?;
            verifier.verify_client_cert(leaf, others, now).map(drop)
        })
    }
}
