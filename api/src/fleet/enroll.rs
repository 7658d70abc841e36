//! A registration in the store: the node's record under its next epoch, and the leased record of
//! who holds its stream, in one transaction.
//!
//! Not here: what the node said (`hello`), keeping the lease alive (`session`).

use super::end::End;
use super::hello::Registration;
use model::{NodeRecord, SessionRecord, key};
use std::time::Duration;
use store::{Commit, Expect, LeaseId, Store, StoreError, Txn};

/// How often a registration is tried when another server registers the same node meanwhile.
const TRIES_MAX: usize = 8;

/// What a registered node has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Enrolled {
    pub(super) epoch: u64,
    pub(super) lease: LeaseId,
}

/// Registers a node with this server.
pub(super) async fn enroll(
    store: &dyn Store,
    server: &str,
    lease: Duration,
    registration: &Registration,
    now_ms: u64,
) -> Result<Enrolled, End> {
    let ttl_ms = u64::try_from(lease.as_millis()).unwrap_or(u64::MAX);
    let lease = store.lease_grant(ttl_ms).await?;
    let enrolled = write(store, server, lease, registration, now_ms).await;
    if enrolled.is_err() {
        // An orphan would vanish with its time; this is only tidier.
        let _ = store.lease_revoke(lease).await;
    }
    enrolled
}

async fn write(
    store: &dyn Store,
    server: &str,
    lease: LeaseId,
    registration: &Registration,
    now_ms: u64,
) -> Result<Enrolled, End> {
    let node_key = key::node(&registration.node);
    for _ in 0..TRIES_MAX {
        let found = store.get(&node_key).await?;
        let before: Option<NodeRecord> = found.as_ref().map(store::Entry::decode).transpose().map_err(|error| {
            tracing::error!(node_id = %registration.node, %error, "node record does not decode");
            StoreError::Failed("the node's record does not decode".to_owned())
        })?;
        let expect = found.map_or(Expect::Absent, |e| Expect::Revision(e.mod_revision));
        let record = registration.record(before, now_ms);
        let session = SessionRecord {
            node: registration.node.clone(),
            server: server.to_owned(),
            node_epoch: record.epoch,
            address: String::new(),
            connected: true,
            unknown: model::record::Unknown::new(),
        };
        let txn = Txn::new()
            .expect(node_key.clone(), expect)
            .put(node_key.clone(), &record)
            .put_leased(key::session(&registration.node), &session, lease);
        if let Commit::Applied(_) = store.commit(txn).await? {
            return Ok(Enrolled {
                epoch: record.epoch,
                lease,
            });
        }
    }
    Err(End::Contended)
}
