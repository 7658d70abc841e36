//! The authority of a cluster: made once, loaded by servers, certifies servers and nodes.
//!
//! Not here: who is to be certified.

use crate::certificate::{Certificate, ders};
use crate::error::PkiError;
use crate::files::{read_text, write_private};
use crate::identity::Identity;
use crate::names::{ClusterId, Host, Role, check_name, random, uri};
use crate::request::Requested;
use crate::trust::{Pin, Trust};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use std::path::Path;
use std::time::Duration;

/// How long an authority goes. It is rotated with an overlap, by hand.
pub const AUTHORITY_LIFE: Duration = Duration::from_secs(10 * 365 * 86_400);

/// How long a server's certificate goes.
pub const SERVER_LIFE: Duration = Duration::from_secs(90 * 86_400);

/// How long a node's certificate goes: a machine that was removed or copied is shut out after at
/// most a day even where nobody can be asked.
pub const NODE_LIFE: Duration = Duration::from_secs(86_400);

/// How far certificates are dated back, so that a machine whose clock is slow believes in them.
const BACKDATED_MAX: Duration = Duration::from_secs(300);

/// ... but no more than this part of their life.
const BACKDATED_PART: u32 = 10;

/// The last moment that a certificate's time can say: 9999-12-31.
const LATEST_S: u64 = 253_402_214_400;

/// An authority with its key.
pub struct Authority {
    certificate: Certificate,
    certificate_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority")
            .field("certificate", &self.certificate)
            .finish_non_exhaustive()
    }
}

/// Begin and end.
#[derive(Debug, Clone, Copy)]
struct Life {
    from_s: u64,
    to_s: u64,
}

impl Life {
    fn new(now_s: u64, life: Duration) -> Self {
        let back = (life / BACKDATED_PART).min(BACKDATED_MAX);
        Self {
            from_s: now_s.saturating_sub(back.as_secs()),
            to_s: now_s.saturating_add(life.as_secs()).min(LATEST_S),
        }
    }
}

impl Authority {
    /// A new one; answers it and its key (PEM), which is nowhere else.
    ///
    /// # Errors
    /// [`PkiError::Making`].
    pub fn create(cluster: &ClusterId, now_s: u64, life: Duration) -> Result<(Self, String), PkiError> {
        let making = PkiError::making;
        let key = KeyPair::generate().map_err(making("the authority's key"))?;
        // Two authorities of one cluster must not have the same name.
        let name = format!("authority-{}", hex::encode(random::<4>()?));
        let mut params = params(cluster, Role::Authority, &name, &[], Life::new(now_s, life))?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let certificate = params.self_signed(&key).map_err(making("the authority"))?;
        let key_pem = key.serialize_pem();
        Ok((Self::from_pems(&certificate.pem(), &key_pem)?, key_pem))
    }

    /// Reads its certificate and its key. Of several certificates the one that the key belongs to
    /// is taken: while an authority is rotated, both stand in the file.
    ///
    /// # Errors
    /// [`PkiError::File`], [`PkiError::KeyMismatch`].
    pub fn read(certificate: &Path, key: &Path) -> Result<Self, PkiError> {
        Self::from_pems(&read_text(certificate)?, &read_text(key)?).map_err(|cause| PkiError::File {
            path: key.display().to_string(),
            cause: cause.to_string(),
        })
    }

    /// The same from text.
    ///
    /// # Errors
    /// [`PkiError::Malformed`], [`PkiError::KeyMismatch`].
    pub fn from_pems(certificates: &str, key: &str) -> Result<Self, PkiError> {
        let key = KeyPair::from_pem(key).map_err(|e| PkiError::malformed("key of the authority", e))?;
        let wanted = key.subject_public_key_info();
        let all = ders(certificates)?;
        let owns = |der: &rustls_pki_types::CertificateDer<'_>| {
            let parsed = x509_parser::parse_x509_certificate(der).ok();
            parsed.is_some_and(|(_, c)| c.public_key().raw == wanted)
        };
        let Some(der) = all.iter().find(|der| owns(der)) else {
            let first = Certificate::from_der(&all[0])?;
            return Err(PkiError::KeyMismatch {
                subject: first.subject(),
            });
        };
        let certificate = Certificate::from_der(der)?;
        certificate.check_role(Role::Authority)?;
        Ok(Self {
            certificate,
            certificate_pem: crate::certificate::pem(std::slice::from_ref(der)),
            issuer: Issuer::from_ca_cert_der(der, key).map_err(|e| PkiError::malformed("authority", e))?,
        })
    }

    /// Writes its key, for this user alone.
    ///
    /// # Errors
    /// [`PkiError::File`].
    pub fn write_key(&self, path: &Path) -> Result<(), PkiError> {
        write_private(path, &self.issuer.key().serialize_pem())
    }

    /// What its certificate says.
    #[must_use]
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// Its certificate as text.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Belief in this authority alone.
    ///
    /// # Errors
    /// Never for an authority that was loaded.
    pub fn trust(&self) -> Result<Trust, PkiError> {
        Trust::from_pem(&self.certificate_pem)
    }

    /// Its fingerprint.
    ///
    /// # Errors
    /// Never for an authority that was loaded.
    pub fn pin(&self) -> Result<Pin, PkiError> {
        self.certificate.fingerprint.parse()
    }

    /// A new key and certificate for a server that is reached under these names.
    ///
    /// # Errors
    /// [`PkiError::Malformed`] for its name, [`PkiError::Making`].
    pub fn certify_server(&self, name: &str, hosts: &[Host], now_s: u64, life: Duration) -> Result<Identity, PkiError> {
        let key = KeyPair::generate().map_err(PkiError::making("the server's key"))?;
        let mut params = params(
            &self.certificate.cluster,
            Role::Server,
            name,
            hosts,
            Life::new(now_s, life),
        )?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let signed = params.signed_by(&key, &self.issuer);
        let signed = signed.map_err(PkiError::making("the server's certificate"))?;
        // The authority goes along: a machine that joins knows only its fingerprint.
        let chain = format!("{}{}", signed.pem(), self.certificate_pem);
        Identity::from_pems(&chain, &key.serialize_pem())
    }

    /// Certifies the key of a request for a node; nothing else of the request counts. Answers the
    /// certificate (PEM).
    ///
    /// # Errors
    /// [`PkiError::Malformed`] for a request that is not signed by its own key or whose key is of
    /// another kind than P-256, P-384 or Ed25519; [`PkiError::Making`].
    pub fn certify_node(&self, csr_pem: &str, node: &str, now_s: u64, life: Duration) -> Result<String, PkiError> {
        let requested = Requested::read(csr_pem)?;
        let mut params = params(&self.certificate.cluster, Role::Node, node, &[], Life::new(now_s, life))?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let signed = params.signed_by(&requested.key, &self.issuer);
        Ok(signed.map_err(PkiError::making("the node's certificate"))?.pem())
    }
}

fn params(
    cluster: &ClusterId,
    role: Role,
    name: &str,
    hosts: &[Host],
    life: Life,
) -> Result<CertificateParams, PkiError> {
    check_name(name)?;
    let text = |t: String| t.try_into().map_err(PkiError::making("a name"));
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(text(uri(cluster, role, name))?)];
    for host in hosts {
        params.subject_alt_names.push(match host {
            Host::Ip(ip) => SanType::IpAddress(*ip),
            Host::Dns(name) => SanType::DnsName(text(name.clone())?),
        });
    }
    let mut subject = DistinguishedName::new();
    subject.push(DnType::OrganizationName, format!("buildflow {cluster}"));
    subject.push(DnType::CommonName, name);
    params.distinguished_name = subject;
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + Duration::from_secs(life.from_s);
    params.not_after = epoch + Duration::from_secs(life.to_s);
    params.serial_number = Some(SerialNumber::from_slice(&serial()?));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// A random serial number: positive, and no two are alike.
fn serial() -> Result<[u8; 16], PkiError> {
    let mut bytes = random::<16>()?;
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(bytes)
}
