//! A new key and the request to certify it (PKCS #10).

use crate::error::PkiError;
use rcgen::{CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType, KeyPair, PublicKeyData};

/// The longest request, bytes: one with the largest key that is certified has a tenth of it.
const REQUEST_MAX: usize = 8 * 1024;

/// A key of this machine and what an authority is sent of it.
pub struct NewRequest {
    /// PKCS #8, PEM. Never leaves the machine.
    pub key_pem: String,
    /// PKCS #10, PEM.
    pub csr_pem: String,
}

impl std::fmt::Debug for NewRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewRequest").finish_non_exhaustive()
    }
}

/// Makes a key and a request for it. The name is for people: the authority writes its own.
///
/// # Errors
/// [`PkiError::Making`].
pub fn new_request(name: &str) -> Result<NewRequest, PkiError> {
    let key = KeyPair::generate().map_err(PkiError::making("a key"))?;
    let mut params = CertificateParams::default();
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    params.distinguished_name = subject;
    let request = params.serialize_request(&key).and_then(|r| r.pem());
    Ok(NewRequest {
        key_pem: key.serialize_pem(),
        csr_pem: request.map_err(PkiError::making("a request"))?,
    })
}

/// The key of a request that was signed with it.
pub(crate) struct Requested {
    pub(crate) key: rcgen::PublicKey,
}

impl Requested {
    pub(crate) fn read(csr_pem: &str) -> Result<Self, PkiError> {
        let refused = |cause: String| PkiError::malformed("certificate request", cause);
        if csr_pem.len() > REQUEST_MAX {
            let cause = format!("it has {} bytes, {REQUEST_MAX} at most", csr_pem.len());
            return Err(refused(cause));
        }
        let request = CertificateSigningRequestParams::from_pem(csr_pem).map_err(|e| refused(e.to_string()))?;
        let key = request.public_key;
        let kinds = [
            &rcgen::PKCS_ECDSA_P256_SHA256,
            &rcgen::PKCS_ECDSA_P384_SHA384,
            &rcgen::PKCS_ED25519,
        ];
        if !kinds.iter().any(|kind| *PublicKeyData::algorithm(&key) == **kind) {
            return Err(refused(
                "its key must be of the kind P-256, P-384 or Ed25519".to_owned(),
            ));
        }
        Ok(Self { key })
    }
}
