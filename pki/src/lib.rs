//! The certificates of a cluster: its authority, its servers, its nodes, and TLS that is built on them.
//!
//! | module | what |
//! |---|---|
//! | `names` | cluster, role and name, and the URI that carries them in a certificate (pure) |
//! | `moment` | seconds of the Unix epoch, for people (pure) |
//! | `certificate` | what a certificate says (pure) |
//! | `trust` | which authorities are believed, and why a certificate is not (pure) |
//! | `authority` | making and loading an authority; it certifies servers and nodes |
//! | `request` | a new key and the request to certify it |
//! | `identity` | a certificate with its key |
//! | `files` | where they lie: one file each, replaced as a whole |
//! | `join_token` | the text with which a machine joins (pure) |
//! | `verifier` | rustls asks `trust` |
//! | `server`, `client` | the two sides of a connection |
//!
//! How an agent keeps its certificate fresh:
//!
//! ```no_run
//! # async fn call(_: &str) -> (String, String) { unreachable!() }
//! # async fn renew(identity_file: &std::path::Path, authority_file: &std::path::Path) -> Result<(), pki::PkiError> {
//! let identity = pki::Identity::read(identity_file)?;
//! let trust = pki::Trust::read(authority_file)?;
//! let client = pki::Client::new(trust, Some(&identity))?;
//! // let stream = client.connect(&"https://10.0.0.1:7420".parse()?).await?;   // for tonic's connector
//! if pki::now_s() >= identity.certificate().renew_at_s() {
//!     let fresh = pki::new_request(&identity.certificate().name)?;
//!     let (certificate_pem, authority_pem) = call(&fresh.csr_pem).await; // rpc RenewCertificate
//!     pki::Trust::from_pem(&authority_pem)?.write(authority_file)?;
//!     pki::Identity::from_pems(&certificate_pem, &fresh.key_pem)?.write(identity_file)?;
//! }
//! # Ok(()) }
//! ```
//!
//! Not here: who may join (the server's rim), what a node may do, any other key of the project.

mod address;
mod authority;
mod certificate;
mod client;
mod error;
mod files;
mod identity;
mod join_token;
mod moment;
mod names;
mod request;
mod server;
mod trust;
mod verifier;

pub use address::Address;
pub use authority::{AUTHORITY_LIFE, Authority, NODE_LIFE, SERVER_LIFE};
pub use certificate::Certificate;
pub use client::{Client, reason};
pub use error::PkiError;
pub use files::{read_text, write_private};
pub use identity::Identity;
pub use join_token::JoinTokenText;
pub use moment::{now_s, rfc3339};
pub use names::{ClusterId, Host, Role};
pub use request::{NewRequest, new_request};
pub use server::{Peer, ServerTls};
pub use trust::{Pin, Trust};

use rustls::crypto::CryptoProvider;
use std::sync::Arc;

/// The one provider of cryptography of the program.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Makes that provider the process' default, for crates that ask for one; to be called once, before
/// any of them does. A second call changes nothing.
pub fn install_provider() {
    // Refused when there is one already, which is then this one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}
