//! A registration in the store: the node's record under its next epoch, and the leased record of
//! who holds its stream, in one transaction; and, when the stream has ended, the word that it has.
//!
//! The lease is never revoked and the session's key never removed: that the key is gone means that
//! the lease has run out since it was last renewed, and so that the node's agent has ended
//! everything. Whoever registers last wins; an older session's last word is guarded by its own
//! revision. Not here: what the node said (`hello`), keeping the lease alive (`session`).

use super::end::End;
use super::hello::Registration;
use super::metrics::FleetMetrics;
use super::session::Pauses;
use model::{NodeId, NodeRecord, SessionRecord, key};
use std::time::Duration;
use store::{Commit, Expect, LeaseId, Revision, Store, StoreError, Txn};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How often a registration is tried when another server registers the same node meanwhile.
const TRIES_MAX: usize = 8;

/// How long a server that stops tries to say that a stream has ended.
const STOP_WAIT: Duration = Duration::from_secs(2);

/// How long one try may take before it is made again.
const TRY_WAIT: Duration = Duration::from_secs(2);

/// What a registered node has.
#[derive(Debug, Clone)]
pub(super) struct Enrolled {
    pub(super) lease: LeaseId,
    /// The session as it stands in the store.
    pub(super) session: SessionRecord,
    /// When it was written.
    revision: Revision,
}

impl Enrolled {
    pub(super) fn node(&self) -> &NodeId {
        &self.session.node
    }

    pub(super) fn epoch(&self) -> u64 {
        self.session.node_epoch
    }

    pub(super) fn revision(&self) -> Revision {
        self.revision
    }
}

/// Who registers nodes.
pub(super) struct Registrar<'a> {
    pub(super) store: &'a dyn Store,
    pub(super) metrics: &'a FleetMetrics,
    pub(super) server: &'a str,
    pub(super) address: &'a str,
    pub(super) lease: Duration,
}

impl Registrar<'_> {
    /// Registers a node with this server.
    pub(super) async fn enroll(&self, registration: &Registration, now_ms: u64) -> Result<Enrolled, End> {
        let ttl_ms = u64::try_from(self.lease.as_millis()).unwrap_or(u64::MAX);
        // Whatever fails after this: the lease ends with its time. A try of unknown outcome may
        // have put the session under it.
        let lease = self.store.lease_grant(ttl_ms).await?;
        let node_key = key::node(&registration.node);
        let session_key = key::session(&registration.node);
        for _ in 0..TRIES_MAX {
            let found = self.store.get(&node_key).await?;
            let before: Option<NodeRecord> = found.as_ref().map(store::Entry::decode).transpose().map_err(|error| {
                tracing::error!(node_id = %registration.node, %error, "node record does not decode");
                StoreError::Failed("the node's record does not decode".to_owned())
            })?;
            let expect = found.map_or(Expect::Absent, |e| Expect::Revision(e.mod_revision));
            let record = registration.record(before, now_ms);
            let session = self.session(&registration.node, record.epoch);
            let older = self.store.get(&session_key).await?;
            let txn = Txn::new()
                .expect(node_key.clone(), expect)
                .put(node_key.clone(), &record)
                .put_leased(session_key.clone(), &session, lease);
            if let Commit::Applied(revision) = self.store.commit(txn).await? {
                self.count_move(older.as_ref());
                return Ok(Enrolled {
                    lease,
                    session,
                    revision,
                });
            }
        }
        Err(End::Contended)
    }

    fn session(&self, node: &NodeId, node_epoch: u64) -> SessionRecord {
        SessionRecord {
            node: node.clone(),
            server: self.server.to_owned(),
            node_epoch,
            address: self.address.to_owned(),
            connected: true,
            unknown: model::record::Unknown::new(),
        }
    }

    fn count_move(&self, older: Option<&store::Entry>) {
        let from: Option<SessionRecord> = older.and_then(|entry| entry.decode().ok());
        if let Some(from) = from.filter(|older| older.server != self.server) {
            self.metrics.moves.inc();
            tracing::info!(node_id = %from.node, from = from.server, to = self.server, "node moved");
        }
    }
}

/// Says that the stream has ended: nothing new is to be placed on the node, which goes on with what
/// it has until its lease ends or it registers again. Tries until the lease is over anyway.
pub(super) async fn leave(store: &dyn Store, enrolled: &Enrolled, lease: Duration, stopping: &CancellationToken) {
    let began = Instant::now();
    let mut pauses = Pauses::default();
    let patience = async {
        let stopped = async {
            stopping.cancelled().await;
            tokio::time::sleep(STOP_WAIT).await;
        };
        tokio::select! {
            () = tokio::time::sleep_until(began + lease) => {}
            () = stopped => {}
        }
    };
    let said = async {
        loop {
            match tokio::time::timeout(TRY_WAIT, store.commit(last_word(enrolled))).await {
                // Refused: it has registered again, or an earlier try has told it after all.
                Ok(Ok(_) | Err(StoreError::NoLease(_))) => return,
                Ok(Err(error)) => tracing::debug!(node_id = %enrolled.node(), %error, "session's end not told yet"),
                Err(_) => tracing::debug!(node_id = %enrolled.node(), "session's end not told in time"),
            }
            pauses.wait().await;
        }
    };
    tokio::select! {
        () = said => {}
        () = patience => {
            tracing::warn!(node_id = %enrolled.node(), "session's end not told, it shows with the end of its lease");
        }
    }
}

fn last_word(enrolled: &Enrolled) -> Txn {
    let key = key::session(enrolled.node());
    let record = SessionRecord {
        connected: false,
        ..enrolled.session.clone()
    };
    Txn::new()
        .expect(key.clone(), Expect::Revision(enrolled.revision))
        .put_leased(key, &record, enrolled.lease)
}
