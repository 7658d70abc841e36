//! A server's certificates while it serves: files that change are taken over, its own certificate
//! is renewed by itself where it has the means.
//!
//! Not here: what a certificate is (`pki`), nodes' certificates (the server's rim).

use crate::config::{Certificates, ServerFile, TlsFile};
use crate::error::Failure;
use api::fleet::join::Membership;
use pki::{Authority, Certificate, Identity, PkiError, SERVER_LIFE, ServerTls, Trust};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// From then on a certificate that nobody renews is warned of.
const WARN_BEFORE: Duration = Duration::from_secs(14 * 86_400);

/// How often it is warned of.
const WARN_EVERY: Duration = Duration::from_secs(6 * 3_600);

/// What a server shows, and how machines join through it.
pub(crate) fn membership(file: &ServerFile, address: SocketAddr) -> Result<Option<Arc<Membership>>, Failure> {
    let Some(tls) = &file.tls else { return Ok(None) };
    let loaded = tls.load().map_err(|cause| Failure::Usage(format!("tls: {cause}")))?;
    let shown = ServerTls::new(loaded.identity, loaded.trust).map_err(|e| Failure::Usage(format!("tls: {e}")))?;
    Ok(Some(Arc::new(Membership::new(
        Arc::new(shown),
        loaded.authority,
        file.node_certificate.0,
        file.all_servers(address),
    ))))
}

/// Watches the files until `shutdown`.
pub(crate) async fn keep_fresh(tls: TlsFile, membership: Arc<Membership>, shutdown: CancellationToken) {
    let mut keeper = Keeper {
        seen: None,
        refused: None,
        warned: None,
        tls,
        membership,
    };
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => keeper.look(),
        }
    }
}

struct Keeper {
    tls: TlsFile,
    membership: Arc<Membership>,
    /// What was taken over last.
    seen: Option<Seen>,
    /// The last refusal, so that it is told once.
    refused: Option<PkiError>,
    warned: Option<std::time::Instant>,
}

/// What tells two states of the files apart.
#[derive(PartialEq, Eq)]
struct Seen {
    certificate: String,
    trust: String,
    authority: Option<String>,
}

impl Keeper {
    fn look(&mut self) {
        match self.take_over() {
            Ok(()) => self.refused = None,
            Err(error) => {
                if self.refused.as_ref() != Some(&error) {
                    tracing::warn!(%error, "the certificates on disk are not taken over");
                }
                self.refused = Some(error);
            }
        }
        self.warn();
    }

    fn take_over(&mut self) -> Result<(), PkiError> {
        let loaded = fresh(&self.tls)?;
        let seen = Seen {
            certificate: loaded.identity.certificate().fingerprint.clone(),
            trust: loaded.trust.pem(),
            authority: loaded.authority.as_ref().map(|a| a.certificate().fingerprint.clone()),
        };
        if self.seen.as_ref() == Some(&seen) {
            return Ok(());
        }
        let until = pki::rfc3339(loaded.identity.certificate().not_after_s);
        self.membership.tls().replace(loaded.identity, loaded.trust)?;
        self.membership.replace_authority(loaded.authority);
        if self.seen.replace(seen).is_some() {
            tracing::info!(until, "certificates taken over");
        }
        Ok(())
    }

    fn warn(&mut self) {
        let certificate = self.membership.tls().certificate();
        let soon = certificate.left_s(pki::now_s()) < WARN_BEFORE.as_secs();
        if soon && self.warned.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
            let until = pki::rfc3339(certificate.not_after_s);
            tracing::warn!(
                until,
                "this server's certificate ends soon: buildflow admin certs rotate"
            );
            self.warned = Some(std::time::Instant::now());
        }
    }
}

/// What lies on the disk; the server's own certificate is renewed first where it is time and the
/// means are there, also when it has ended while the server was off.
fn fresh(tls: &TlsFile) -> Result<Certificates, PkiError> {
    let mut read = tls.read()?;
    if tls.key.is_none()
        && let Some(authority) = &read.authority
        && let Some(identity) = renewed(read.identity.certificate(), authority, &read.trust, pki::now_s())?
    {
        identity.write(&tls.certificate)?;
        read.identity = identity;
    }
    Ok(read)
}

/// A new certificate of the same server, if it is time.
fn renewed(
    current: &Certificate,
    authority: &Authority,
    trust: &Trust,
    now_s: u64,
) -> Result<Option<Identity>, PkiError> {
    // One that is not ours to renew is refused later, with its reason.
    let ours = current.role == pki::Role::Server && current.cluster == authority.certificate().cluster;
    if !ours || now_s < current.renew_at_s() {
        return Ok(None);
    }
    let hosts = current
        .names
        .iter()
        .map(|name| name.parse())
        .collect::<Result<Vec<_>, _>>()?;
    let fresh = authority.certify_server(&current.name, &hosts, now_s, SERVER_LIFE)?;
    trust.verify_own(&fresh, pki::Role::Server, now_s)?;
    tracing::info!(
        until = pki::rfc3339(fresh.certificate().not_after_s),
        "this server's certificate is renewed"
    );
    Ok(Some(fresh))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TlsFile;

    struct Files {
        folder: tempfile::TempDir,
        authority: Authority,
    }

    impl Files {
        fn new() -> Self {
            let cluster = pki::ClusterId::random().expect("random");
            let (authority, _) = Authority::create(&cluster, pki::now_s(), SERVER_LIFE).expect("made");
            let files = Self {
                folder: tempfile::tempdir().expect("folder"),
                authority,
            };
            let trust = files.authority.trust().expect("trust");
            trust.write(&files.tls().authority).expect("written");
            files
                .authority
                .write_key(&files.folder.path().join("authority.key"))
                .expect("written");
            files
        }

        fn tls(&self) -> TlsFile {
            let at = |name: &str| self.folder.path().join(name);
            TlsFile {
                certificate: at("server.pem"),
                key: None,
                authority: at("authority.pem"),
                authority_key: Some(at("authority.key")),
            }
        }

        fn issue(&self, made_at_s: u64) -> Identity {
            let hosts = ["127.0.0.1".parse().expect("host")];
            let identity = self.authority.certify_server("s1", &hosts, made_at_s, SERVER_LIFE);
            let identity = identity.expect("certified");
            identity.write(&self.tls().certificate).expect("written");
            identity
        }

        fn keeper(&self) -> Keeper {
            let mut file = ServerFile::alone("/x".into(), ([127, 0, 0, 1], 1).into(), "s1");
            file.tls = Some(self.tls());
            let membership = membership(&file, file.listen).expect("loads").expect("set");
            Keeper {
                tls: self.tls(),
                membership,
                seen: None,
                refused: None,
                warned: None,
            }
        }
    }

    #[test]
    fn what_changes_on_disk_is_shown_and_what_is_broken_is_not() {
        let files = Files::new();
        files.issue(pki::now_s());
        let mut keeper = files.keeper();
        keeper.look();
        let next = files.issue(pki::now_s());
        keeper.look();
        let shown = |keeper: &Keeper| keeper.membership.tls().certificate().fingerprint;
        assert_eq!(shown(&keeper), next.certificate().fingerprint);
        std::fs::write(&files.tls().certificate, "half a fi").expect("written");
        keeper.look();
        assert_eq!(shown(&keeper), next.certificate().fingerprint, "what was there stays");
        assert!(keeper.refused.is_some());
        let repaired = files.issue(pki::now_s());
        keeper.look();
        assert_eq!(
            (shown(&keeper), &keeper.refused),
            (repaired.certificate().fingerprint.clone(), &None)
        );
    }

    #[test]
    fn a_server_with_the_authoritys_key_renews_its_own_certificate() {
        let files = Files::new();
        let old = files.issue(pki::now_s() - SERVER_LIFE.as_secs() / 4 * 3);
        let mut keeper = files.keeper();
        keeper.look();
        let shown = keeper.membership.tls().certificate();
        assert_ne!(shown.fingerprint, old.certificate().fingerprint);
        assert_eq!(
            (shown.name.as_str(), shown.names.as_slice()),
            ("s1", ["127.0.0.1".to_owned()].as_slice())
        );
        assert!(shown.not_after_s > old.certificate().not_after_s);
        let stored = Identity::read(&files.tls().certificate).expect("whole");
        assert_eq!(stored.certificate(), &shown);
    }

    #[test]
    fn a_server_without_that_key_keeps_what_it_has() {
        let files = Files::new();
        let old = files.issue(pki::now_s() - SERVER_LIFE.as_secs() / 4 * 3);
        let mut keeper = files.keeper();
        keeper.tls.authority_key = None;
        keeper.look();
        assert_eq!(&keeper.membership.tls().certificate(), old.certificate());
    }
}
