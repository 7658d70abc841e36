//! A certificate with its key: who this process is. Both lie in one file, so that no crash parts them.

use crate::certificate::{Certificate, ders};
use crate::error::PkiError;
use crate::files::{read_text, write_private};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use std::path::Path;
use std::sync::Arc;

/// A certificate, what stands behind it, and its key.
#[derive(Clone)]
pub struct Identity {
    certificate: Certificate,
    key: Arc<CertifiedKey>,
    pem: String,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity")
            .field("certificate", &self.certificate)
            .finish_non_exhaustive()
    }
}

impl Identity {
    /// Reads a file that holds both.
    ///
    /// # Errors
    /// [`PkiError::File`] with what is wrong.
    pub fn read(path: &Path) -> Result<Self, PkiError> {
        Self::read_two(path, path)
    }

    /// Reads certificate and key from a file each, which may be the same.
    ///
    /// # Errors
    /// [`PkiError::File`] with what is wrong.
    pub fn read_two(certificate: &Path, key: &Path) -> Result<Self, PkiError> {
        Self::from_pems(&read_text(certificate)?, &read_text(key)?).map_err(|cause| PkiError::File {
            path: certificate.display().to_string(),
            cause: cause.to_string(),
        })
    }

    /// From text.
    ///
    /// # Errors
    /// [`PkiError::Malformed`], [`PkiError::NotOurs`], [`PkiError::KeyMismatch`].
    pub fn from_pems(certificates: &str, key: &str) -> Result<Self, PkiError> {
        let chain = ders(certificates)?;
        let certificate = Certificate::from_der(&chain[0])?;
        let der = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|e| PkiError::malformed("key", e))?;
        let certified =
            CertifiedKey::from_der(chain.clone(), der, &crate::provider()).map_err(|cause| match cause {
                rustls::Error::InconsistentKeys(_) => PkiError::KeyMismatch {
                    subject: certificate.subject(),
                },
                other => PkiError::malformed("key", other),
            })?;
        let key_text = key_part(key);
        Ok(Self {
            certificate,
            key: Arc::new(certified),
            pem: format!("{}{key_text}", crate::certificate::pem(&chain)),
        })
    }

    /// Writes both into one file, for this user alone, replaced as a whole.
    ///
    /// # Errors
    /// [`PkiError::File`].
    pub fn write(&self, path: &Path) -> Result<(), PkiError> {
        write_private(path, &self.pem)
    }

    /// What its certificate says.
    #[must_use]
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    pub(crate) fn key(&self) -> &Arc<CertifiedKey> {
        &self.key
    }

    pub(crate) fn leaf(&self) -> &CertificateDer<'static> {
        &self.key.cert[0]
    }

    /// The same with this certificate at the end of what is shown, unless it is there.
    pub(crate) fn shown_with(&self, authority: &CertificateDer<'static>) -> Arc<CertifiedKey> {
        if self.key.cert.contains(authority) {
            return self.key.clone();
        }
        let mut chain = self.key.cert.clone();
        chain.push(authority.clone());
        Arc::new(CertifiedKey::new(chain, self.key.key.clone()))
    }
}

/// The part of a text that is the key; the rest are certificates.
fn key_part(pem: &str) -> String {
    let mut part = String::new();
    let mut inside = false;
    for line in pem.lines() {
        let edge = line.contains("PRIVATE KEY-----");
        if edge || inside {
            part.push_str(line);
            part.push('\n');
        }
        if edge {
            inside = line.starts_with("-----BEGIN");
        }
    }
    part
}
