//! How a machine becomes a node, and stays one: join tokens, members, and their certificates.
//!
//! A member is a record; a certificate alone opens nothing. Removing the record shuts a node out
//! at its next stream or renewal, and its certificate ends within a day. Not here: what a member
//! does on its stream (`session`), TLS itself (`pki`).

use super::end::End;
use super::gate::{Admitted, Gate};
use crate::auth::{AuthError, Caller};
use crate::clock::now_ms;
use model::record::Unknown;
use model::{JoinToken, Member, NodeId, Role, key};
use pki::{Authority, JoinTokenText, Peer, ServerTls};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use store::{Commit, Expect, Store, StoreError, Txn};
use tonic::Status;
use wire::v1::{JoinReply, JoinRequest, RenewCertificateReply, RenewCertificateRequest};

/// How often a use of a token is taken when others take theirs at the same moment.
const TRIES_MAX: usize = 16;

/// The longest name of a host (DNS).
const HOST_MAX: usize = 253;

/// What makes a server part of a cluster with certificates.
pub struct Membership {
    tls: Arc<ServerTls>,
    authority: RwLock<Option<Arc<Authority>>>,
    node_life: Duration,
    servers: Vec<String>,
}

impl Membership {
    /// `authority`: to certify nodes with, if this server has its key. `servers`: what nodes that
    /// join are told to connect to.
    #[must_use]
    pub fn new(tls: Arc<ServerTls>, authority: Option<Authority>, node_life: Duration, servers: Vec<String>) -> Self {
        Self {
            tls,
            authority: RwLock::new(authority.map(Arc::new)),
            node_life,
            servers,
        }
    }

    /// What this server shows and believes.
    #[must_use]
    pub fn tls(&self) -> &Arc<ServerTls> {
        &self.tls
    }

    /// Certifies with this authority from now on.
    pub fn replace_authority(&self, authority: Option<Authority>) {
        *self.authority.write().unwrap_or_else(PoisonError::into_inner) = authority.map(Arc::new);
    }

    fn authority(&self) -> Result<Arc<Authority>, Status> {
        let found = self.authority.read().unwrap_or_else(PoisonError::into_inner).clone();
        found.ok_or_else(|| Status::failed_precondition("this server has no key of the authority; ask another server"))
    }

    fn certify(&self, csr_pem: &str, node: &NodeId) -> Result<String, Status> {
        let authority = self.authority()?;
        authority
            .certify_node(csr_pem, node.as_str(), pki::now_s(), self.node_life)
            .map_err(|error| Status::invalid_argument(error.to_string()))
    }

    /// Whether a token's fingerprint is that of an authority of this cluster.
    fn knows(&self, token: &JoinTokenText) -> bool {
        let trust = self.tls.trust();
        let pin = token.pin().as_str();
        trust.authorities().any(|authority| authority.fingerprint == pin)
    }
}

/// Admits members with their certificates. There is no other way in where there are certificates.
pub struct CertificateGate {
    /// Whose certificates.
    pub membership: Arc<Membership>,
    /// Where members are recorded.
    pub store: Arc<dyn Store>,
}

#[tonic::async_trait]
impl Gate for CertificateGate {
    fn admit(&self, _authorization: Option<&str>) -> Result<Caller, AuthError> {
        Err(AuthError::Missing)
    }

    async fn admit_peer(&self, peer: &Peer, _authorization: Option<&str>) -> Result<Admitted, Status> {
        member(self.store.as_ref(), peer).await
    }

    fn recognise(&self, peer: &Peer, _authorization: Option<&str>) -> Result<(), Status> {
        let known = peer.require(pki::Role::Node, pki::now_s());
        known
            .map(drop)
            .map_err(|error| Status::unauthenticated(error.to_string()))
    }

    fn membership(&self) -> Option<&Arc<Membership>> {
        Some(&self.membership)
    }
}

/// The member at the other end, if its certificate goes and it was not removed.
async fn member(store: &dyn Store, peer: &Peer) -> Result<Admitted, Status> {
    let certificate = peer.require(pki::Role::Node, pki::now_s()).map_err(|error| {
        tracing::info!(%error, "a node's certificate is refused");
        Status::unauthenticated(error.to_string())
    })?;
    let node = NodeId::new(certificate.name.as_str()).map_err(|e| Status::unauthenticated(e.to_string()))?;
    let found = store.get(&key::member(&node)).await.map_err(|e| unavailable(&e))?;
    if found.is_none() {
        tracing::info!(node_id = %node, "a node that is no member is refused");
        let removed = End::Removed(node);
        return Err(Status::permission_denied(removed.to_string()));
    }
    Ok(Admitted {
        caller: Caller {
            name: format!("node {node}"),
            role: Role::Node,
        },
        node: Some(node),
        until_s: Some(certificate.not_after_s),
    })
}

fn unavailable(error: &StoreError) -> Status {
    tracing::warn!(%error, "store not available for a node");
    Status::unavailable("the store does not answer; try again")
}

/// Why a machine may not join.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Refusal {
    #[error("{0}")]
    Token(pki::PkiError),
    #[error("the join token belongs to another cluster, this one is {0}; check the server's address")]
    OtherCluster(String),
    #[error("the join token is not known; it was revoked, or never made here")]
    Unknown,
    #[error("the join token has ended at {0}; have a new one made: buildflow node join-token create")]
    Expired(String),
    #[error("the join token is used up; have a new one made: buildflow node join-token create")]
    UsedUp,
    #[error("the host's name must have 1 to {HOST_MAX} bytes and no control characters")]
    HostName,
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        tracing::info!(reason = %refusal, "a machine may not join");
        match refusal {
            Refusal::Token(_) | Refusal::HostName => Self::invalid_argument(refusal.to_string()),
            _ => Self::permission_denied(refusal.to_string()),
        }
    }
}

/// The token as it is after one more use; plain data in and out.
fn used(token: Option<JoinToken>, now_ms: u64) -> Result<JoinToken, Refusal> {
    let mut token = token.ok_or(Refusal::Unknown)?;
    if token.expires_ms <= now_ms {
        return Err(Refusal::Expired(pki::rfc3339(token.expires_ms / 1_000)));
    }
    if let Some(left) = &mut token.uses_left {
        *left = left.checked_sub(1).ok_or(Refusal::UsedUp)?;
    }
    Ok(token)
}

/// rpc Join: takes one use of the token and makes a member, in one transaction.
pub(super) async fn join(
    store: &dyn Store,
    membership: &Membership,
    request: JoinRequest,
) -> Result<JoinReply, Status> {
    let text: JoinTokenText = request.token.parse().map_err(Refusal::Token)?;
    if !membership.knows(&text) {
        return Err(Refusal::OtherCluster(membership.tls.trust().cluster().to_string()).into());
    }
    let legal = (1..=HOST_MAX).contains(&request.name.len()) && !request.name.chars().any(char::is_control);
    if !legal {
        return Err(Refusal::HostName.into());
    }
    let node = new_node();
    for _ in 0..TRIES_MAX {
        let token_key = key::join_token(&text.hash());
        let found = store.get(&token_key).await.map_err(|e| unavailable(&e))?;
        let revision = found.as_ref().map(|e| e.mod_revision);
        let before = found.as_ref().map(store::Entry::decode).transpose();
        let before = before.map_err(|error| {
            tracing::error!(%error, "join token does not decode");
            Status::internal("the join token's record is damaged; have a new one made")
        })?;
        let token = used(before, now_ms())?;
        let certificate_pem = membership.certify(&request.csr_pem, &node)?;
        let member = Member {
            node: node.clone(),
            name: request.name.clone(),
            token: token.name.clone(),
            joined_ms: now_ms(),
            certificate_ends_ms: ends_ms(&certificate_pem),
            unknown: Unknown::new(),
        };
        let txn = Txn::new()
            .expect(&token_key, revision.map_or(Expect::Absent, Expect::Revision))
            .expect(key::member(&node), Expect::Absent)
            .put(&token_key, &token)
            .put(key::member(&node), &member);
        if let Commit::Applied(_) = store.commit(txn).await.map_err(|e| unavailable(&e))? {
            tracing::info!(node_id = %node, name = request.name, token = token.name, "a machine has joined");
            return Ok(JoinReply {
                node_id: node.to_string(),
                certificate_pem,
                authority_pem: membership.tls.trust().pem(),
                servers: membership.servers.clone(),
            });
        }
    }
    Err(Status::aborted(
        "too many machines join with this token at once; try again",
    ))
}

/// The same form as an agent gives itself where there are no certificates.
fn new_node() -> NodeId {
    let id = format!("n{}", ulid::Ulid::generate().to_string().to_ascii_lowercase());
    NodeId::new(id).expect("a letter and a ULID are a legal id")
}

/// When a certificate ends that was just made, milliseconds of the Unix epoch.
fn ends_ms(certificate_pem: &str) -> Option<u64> {
    let certificate = pki::Certificate::from_pem(certificate_pem).ok()?;
    Some(certificate.not_after_s.saturating_mul(1_000))
}

/// rpc RenewCertificate: for the member at the other end, and for nobody else. When the certificate
/// ends is written down before it is handed over.
pub(super) async fn renew(
    store: &dyn Store,
    membership: &Membership,
    peer: &Peer,
    request: RenewCertificateRequest,
) -> Result<(NodeId, RenewCertificateReply), Status> {
    let admitted = member(store, peer).await?;
    let node = admitted.node.ok_or_else(|| Status::unauthenticated("no node"))?;
    let certificate_pem = membership.certify(&request.csr_pem, &node)?;
    write_down(store, &node, ends_ms(&certificate_pem)).await?;
    tracing::info!(node_id = %node, "certificate renewed");
    let reply = RenewCertificateReply {
        certificate_pem,
        authority_pem: membership.tls.trust().pem(),
    };
    Ok((node, reply))
}

/// A member that was removed meanwhile stays removed.
async fn write_down(store: &dyn Store, node: &NodeId, ends_ms: Option<u64>) -> Result<(), Status> {
    for _ in 0..TRIES_MAX {
        let found = store.get(&key::member(node)).await.map_err(|e| unavailable(&e))?;
        let Some(entry) = found else {
            return Err(Status::permission_denied(End::Removed(node.clone()).to_string()));
        };
        let mut member: Member = entry.decode().map_err(|error| {
            tracing::error!(%error, node_id = %node, "member does not decode");
            Status::internal("the node's record is damaged; remove the node, and have the machine join again")
        })?;
        member.certificate_ends_ms = ends_ms;
        let txn = Txn::new()
            .expect(&entry.key, Expect::Revision(entry.mod_revision))
            .put(&entry.key, &member);
        if let Commit::Applied(_) = store.commit(txn).await.map_err(|e| unavailable(&e))? {
            return Ok(());
        }
    }
    Err(Status::aborted("the node's record changes all the time; try again"))
}

#[cfg(test)]
mod tests {
    use super::super::fixture::soon;
    use super::*;
    use async_trait::async_trait;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use store::memory::MemoryStore;
    use store::{Entry, Guard, LeaseId, Page, Revision, Watch};
    use tokio::sync::Barrier;

    /// A store whose first readers all see the same, before any of them writes.
    struct Together {
        inner: MemoryStore,
        readers: AtomicUsize,
        barrier: Barrier,
    }

    impl Together {
        fn of(count: usize) -> Self {
            Self {
                inner: MemoryStore::new(),
                readers: AtomicUsize::new(count),
                barrier: Barrier::new(count),
            }
        }
    }

    #[async_trait]
    impl Store for Together {
        async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
            let found = self.inner.get(key).await;
            let count = |left: usize| left.checked_sub(1);
            if self
                .readers
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, count)
                .is_ok()
            {
                self.barrier.wait().await;
            }
            found
        }
        async fn range(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page, StoreError> {
            self.inner.range(prefix, after, limit).await
        }
        async fn commit(&self, txn: Txn) -> Result<Commit, StoreError> {
            self.inner.commit(txn).await
        }
        async fn commit_batch(&self, outer: Vec<Guard>, txns: Vec<Txn>) -> Result<Vec<Commit>, StoreError> {
            self.inner.commit_batch(outer, txns).await
        }
        async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, StoreError> {
            self.inner.watch(prefix, after).await
        }
        async fn compact(&self, before: Revision) -> Result<(), StoreError> {
            self.inner.compact(before).await
        }
        async fn lease_grant(&self, ttl_ms: u64) -> Result<LeaseId, StoreError> {
            self.inner.lease_grant(ttl_ms).await
        }
        async fn lease_keep_alive(&self, lease: LeaseId) -> Result<u64, StoreError> {
            self.inner.lease_keep_alive(lease).await
        }
        async fn lease_revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
            self.inner.lease_revoke(lease).await
        }
    }

    #[tokio::test]
    async fn of_machines_that_race_for_the_last_use_of_a_token_one_joins() {
        const MACHINES: usize = 6;
        let cluster = pki::ClusterId::random().unwrap();
        let (authority, _) = Authority::create(&cluster, pki::now_s(), pki::SERVER_LIFE).unwrap();
        let hosts = ["127.0.0.1".parse().unwrap()];
        let identity = authority.certify_server("s1", &hosts, pki::now_s(), pki::SERVER_LIFE);
        let tls = ServerTls::new(identity.unwrap(), authority.trust().unwrap()).unwrap();
        let membership = Membership::new(Arc::new(tls), Some(authority), pki::NODE_LIFE, Vec::new());
        let text = JoinTokenText::random(membership.tls().pin()).unwrap();
        let store = Together::of(MACHINES);
        let record = token(u64::MAX, Some(1));
        let made = Txn::new().put(key::join_token(&text.hash()), &record);
        store.commit(made).await.unwrap();
        let ask = |n: usize| {
            let request = JoinRequest {
                token: text.reveal(),
                name: format!("host-{n}"),
                csr_pem: pki::new_request("node").unwrap().csr_pem,
            };
            join(&store, &membership, request)
        };
        let racing = futures::future::join_all((0..MACHINES).map(ask));
        let (joined, refused): (Vec<_>, Vec<_>) = soon("all are answered", racing)
            .await
            .into_iter()
            .partition(Result::is_ok);
        assert_eq!((joined.len(), refused.len()), (1, MACHINES - 1));
        for status in refused.into_iter().filter_map(Result::err) {
            assert!(status.message().contains("used up"), "{status:?}");
        }
        let members = store.range(key::MEMBERS, None, 10).await.unwrap().entries;
        assert_eq!(members.len(), 1, "and one is a member");
        assert_eq!(
            members[0].decode::<Member>().unwrap().node.as_str(),
            joined[0].as_ref().unwrap().node_id
        );
    }

    fn token(expires_ms: u64, uses_left: Option<u32>) -> JoinToken {
        JoinToken {
            name: "rack".to_owned(),
            created_ms: 0,
            expires_ms,
            uses_left,
            unknown: Unknown::new(),
        }
    }

    #[test]
    fn each_refusal_of_a_token_says_why() {
        let cases = [
            (None, "the join token is not known"),
            (
                Some(token(10_000, None)),
                "the join token has ended at 1970-01-01T00:00:10Z",
            ),
            (Some(token(20_000, Some(0))), "the join token is used up"),
            (Some(token(9_000, Some(0))), "the join token has ended"),
        ];
        for (token, expected) in cases {
            let refusal = used(token, 10_000).expect_err(expected);
            assert!(refusal.to_string().starts_with(expected), "{refusal}");
        }
        assert_eq!(used(Some(token(20_000, Some(2))), 1).unwrap().uses_left, Some(1));
        assert_eq!(used(Some(token(20_000, None)), 1).unwrap().uses_left, None);
    }
}
