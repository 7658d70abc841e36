//! What a certificate of a cluster says. Not here: whether it is believed (`trust`).

use crate::error::PkiError;
use crate::names::{ClusterId, Role, parse_uri};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use sha2::{Digest, Sha256};
use std::net::IpAddr;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Most certificates that are read from one text: two authorities while they are rotated, and then some.
const CERTIFICATES_MAX: usize = 16;

/// A certificate, taken apart. Nothing of it is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Of which cluster.
    pub cluster: ClusterId,
    /// What it is for.
    pub role: Role,
    /// The server's name, the node's id, or the authority's.
    pub name: String,
    /// DNS names and addresses of a server.
    pub names: Vec<String>,
    /// Its begin, seconds of the Unix epoch.
    pub not_before_s: u64,
    /// Its end, seconds of the Unix epoch.
    pub not_after_s: u64,
    /// Lower-case hex SHA-256 of the whole certificate.
    pub fingerprint: String,
}

impl Certificate {
    /// The first certificate of a text.
    ///
    /// # Errors
    /// [`PkiError::Malformed`], [`PkiError::NotOurs`].
    pub fn from_pem(pem: &str) -> Result<Self, PkiError> {
        let all = ders(pem)?;
        Self::from_der(&all[0])
    }

    /// Takes one apart.
    ///
    /// # Errors
    /// [`PkiError::Malformed`], [`PkiError::NotOurs`].
    pub fn from_der(der: &CertificateDer<'_>) -> Result<Self, PkiError> {
        let (_, parsed) = X509Certificate::from_der(der).map_err(|e| PkiError::malformed("certificate", e))?;
        let alternatives = parsed.subject_alternative_name().ok().flatten();
        let alternatives = alternatives.map_or(&[][..], |found| &found.value.general_names);
        let ours = alternatives.iter().find_map(|name| match name {
            GeneralName::URI(uri) => parse_uri(uri),
            _ => None,
        });
        let (cluster, role, name) = ours.ok_or_else(|| PkiError::NotOurs {
            subject: printable(&parsed.subject().to_string()),
        })?;
        let seconds = |time: x509_parser::time::ASN1Time| u64::try_from(time.timestamp()).unwrap_or(0);
        Ok(Self {
            cluster,
            role,
            name,
            names: alternatives.iter().filter_map(shown).collect(),
            not_before_s: seconds(parsed.validity().not_before),
            not_after_s: seconds(parsed.validity().not_after),
            fingerprint: fingerprint(der),
        })
    }

    /// Who it is for, in words, e.g. `node n1`.
    #[must_use]
    pub fn subject(&self) -> String {
        format!("{} {}", self.role, self.name)
    }

    /// When it should be renewed, seconds of the Unix epoch: after two thirds of its life, so that
    /// a third of it remains for trying.
    #[must_use]
    pub fn renew_at_s(&self) -> u64 {
        self.not_before_s + self.not_after_s.saturating_sub(self.not_before_s) / 3 * 2
    }

    /// How long it still goes, seconds; 0 when it has ended.
    #[must_use]
    pub fn left_s(&self, now_s: u64) -> u64 {
        self.not_after_s.saturating_sub(now_s)
    }

    /// Whether the clock is within its life.
    ///
    /// # Errors
    /// [`PkiError::Expired`], [`PkiError::NotYetValid`].
    pub fn check_time(&self, now_s: u64) -> Result<(), PkiError> {
        if now_s < self.not_before_s {
            return Err(PkiError::NotYetValid {
                subject: self.subject(),
                not_before_s: self.not_before_s,
                now_s,
            });
        }
        if now_s > self.not_after_s {
            return Err(PkiError::Expired {
                subject: self.subject(),
                not_after_s: self.not_after_s,
                now_s,
            });
        }
        Ok(())
    }

    /// Whether it is for this.
    ///
    /// # Errors
    /// [`PkiError::WrongRole`].
    pub fn check_role(&self, needed: Role) -> Result<(), PkiError> {
        if self.role == needed {
            return Ok(());
        }
        Err(PkiError::WrongRole {
            subject: self.name.clone(),
            found: self.role,
            needed,
        })
    }
}

fn shown(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(printable(name)),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
            let v6 = || <[u8; 16]>::try_from(*bytes).map(IpAddr::from);
            v4.or_else(|_| v6()).ok().map(|ip| ip.to_string())
        }
        _ => None,
    }
}

/// A stranger's text, cut short and without control characters.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(128).collect()
}

/// Lower-case hex SHA-256 of a certificate.
pub(crate) fn fingerprint(der: &CertificateDer<'_>) -> String {
    hex::encode(Sha256::digest(der))
}

/// All certificates of a text, at least one.
pub(crate) fn ders(pem: &str) -> Result<Vec<CertificateDer<'static>>, PkiError> {
    let mut found = Vec::new();
    for der in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        found.push(der.map_err(|e| PkiError::malformed("certificate", e))?);
        if found.len() > CERTIFICATES_MAX {
            let cause = format!("there are more than {CERTIFICATES_MAX} in one text");
            return Err(PkiError::malformed("certificate", cause));
        }
    }
    if found.is_empty() {
        return Err(PkiError::malformed("certificate", "there is none in the text (PEM)"));
    }
    Ok(found)
}

/// Certificates as text.
pub(crate) fn pem(ders: &[CertificateDer<'_>]) -> String {
    use base64::Engine as _;
    let mut text = String::new();
    for der in ders {
        let body = base64::engine::general_purpose::STANDARD.encode(der);
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        for line in body.as_bytes().chunks(64) {
            text.push_str(&String::from_utf8_lossy(line));
            text.push('\n');
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    text
}
