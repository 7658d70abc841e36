//! The node's certificate: read for each connection, renewed while a third of its life is left.
//!
//! A renewed pair is one file that is replaced as a whole, so that no crash leaves a certificate
//! without its key. Not here: joining, which makes the first one.

use crate::blocking::blocking;
use crate::config::TlsFiles;
use crate::metrics::AgentMetrics;
use crate::servers::Servers;
use crate::session::jittered;
use pki::{Certificate, Client, Identity, PkiError, Trust};
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::timeout;
use tonic::Status;
use wire::v1::{RenewCertificateReply, RenewCertificateRequest};

/// How often the certificate is looked at: it may be replaced by hand, and its third lasts hours.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// The part of what is left of a certificate's life that passes before the next look, when that is
/// less.
const LOOK_SHARE: u32 = 10;

/// The shortest pause, so that a certificate that has ended or is away does not keep the agent busy.
const LOOK_LEAST: Duration = Duration::from_secs(1);

/// How long one server may take to certify a key: one transaction of the store.
const RENEW_MAX: Duration = Duration::from_secs(10);

/// Why the certificate is not renewed yet.
#[derive(Debug, thiserror::Error)]
enum RenewError {
    #[error(transparent)]
    Files(#[from] PkiError),
    #[error("{server}: {}", status.message())]
    Server { server: String, status: Status },
    #[error("the authority named another node than {expected}: {found}")]
    Other { expected: String, found: String },
}

/// A client with what lies on the disk now. Blocking.
pub(crate) fn client(files: &TlsFiles) -> Result<Client, PkiError> {
    let identity = identity(files)?;
    Client::new(Trust::read(&files.ca)?, Some(&identity))
}

/// The pair that is to be shown: the certificate's own file may hold its key.
fn identity(files: &TlsFiles) -> Result<Identity, PkiError> {
    Identity::read(&files.certificate).or_else(|_| Identity::read_two(&files.certificate, &files.key))
}

/// Keeps the certificate fresh until it is dropped.
pub(crate) async fn keep_fresh(files: TlsFiles, servers: Servers, metrics: AgentMetrics) {
    loop {
        let left_s = match look(&files, &servers).await {
            Ok(certificate) => {
                let expiry = i64::try_from(certificate.not_after_s).unwrap_or(i64::MAX);
                metrics.certificate_expiry.set(expiry);
                certificate.left_s(pki::now_s())
            }
            Err(error) => {
                tracing::error!(%error, "the node's certificate cannot be read");
                0
            }
        };
        let pause = Duration::from_secs(left_s) / LOOK_SHARE;
        tokio::time::sleep(jittered(pause.clamp(LOOK_LEAST, LOOK_EVERY))).await;
    }
}

/// The certificate that is there now, renewed if that is due and works.
async fn look(files: &TlsFiles, servers: &Servers) -> Result<Certificate, PkiError> {
    let read = files.clone();
    let current = blocking(move || identity(&read)).await?;
    let certificate = current.certificate().clone();
    if pki::now_s() < certificate.renew_at_s() {
        return Ok(certificate);
    }
    Ok(match renew(files, servers, &current).await {
        Ok(fresh) => fresh,
        Err(error) => {
            let left_s = certificate.left_s(pki::now_s());
            tracing::warn!(%error, left_s, "certificate is not renewed yet");
            certificate
        }
    })
}

/// A new key, certified by the first server that does.
async fn renew(files: &TlsFiles, servers: &Servers, current: &Identity) -> Result<Certificate, RenewError> {
    let name = current.certificate().name.clone();
    let request = pki::new_request(&name)?;
    let reply = ask(servers, &request.csr_pem).await?;
    let fresh = Identity::from_pems(&reply.certificate_pem, &request.key_pem)?;
    let found = fresh.certificate().clone();
    if found.name != name {
        return Err(RenewError::Other {
            expected: name,
            found: found.name,
        });
    }
    let trust = Trust::from_pem(&reply.authority_pem)?;
    let (authorities, pair): (PathBuf, PathBuf) = (files.ca.clone(), files.certificate.clone());
    // First whom to believe: a crash between the two leaves a pair that is still good.
    blocking(move || trust.write(&authorities).and_then(|()| fresh.write(&pair))).await?;
    tracing::info!(
        not_after = pki::rfc3339(found.not_after_s),
        fingerprint = found.fingerprint,
        "certificate renewed"
    );
    Ok(found)
}

/// Asks one server after the other; the last refusal if none certifies.
async fn ask(servers: &Servers, csr_pem: &str) -> Result<RenewCertificateReply, RenewError> {
    let mut refused = Status::unavailable("there is no server");
    let mut server = 0;
    for index in 0..servers.len() {
        let csr_pem = csr_pem.to_owned();
        let asked = async {
            let mut client = servers.connect(index).await?;
            let request = servers.authorized(RenewCertificateRequest { csr_pem });
            client.renew_certificate(request).await
        };
        let late = |_| Err(Status::deadline_exceeded("it did not answer in time"));
        match timeout(RENEW_MAX, asked).await.unwrap_or_else(late) {
            Ok(reply) => return Ok(reply.into_inner()),
            Err(status) => (refused, server) = (status, index),
        }
    }
    Err(RenewError::Server {
        server: servers.name(server).to_owned(),
        status: refused,
    })
}
