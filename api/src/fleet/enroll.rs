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

/// A registration that was sent to the store.
#[derive(Debug, Clone)]
pub(super) struct Enrolled {
    pub(super) lease: LeaseId,
    /// The session as it stands in the store.
    session: SessionRecord,
    /// When it was written; `None`: the store did not say whether it was.
    revision: Option<Revision>,
}

impl Enrolled {
    pub(super) fn node(&self) -> &NodeId {
        &self.session.node
    }

    pub(super) fn epoch(&self) -> u64 {
        self.session.node_epoch
    }
}

/// Who registers nodes.
pub(super) struct Registrar<'a> {
    pub(super) store: &'a dyn Store,
    pub(super) metrics: &'a FleetMetrics,
    pub(super) server: &'a str,
    pub(super) address: &'a str,
    pub(super) lease: Duration,
    /// Only while the node is a member: where there are certificates, a node may be removed while it
    /// registers.
    pub(super) members_only: bool,
}

impl Registrar<'_> {
    /// Registers a node with this server; answers since when it is. What is left in `sent` is, or may
    /// be, in the store, also when this fails or is dropped: [`leave`] takes it back.
    pub(super) async fn enroll(
        &self,
        registration: &Registration,
        now_ms: u64,
        sent: &mut Option<Enrolled>,
    ) -> Result<Revision, End> {
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
            let session = self.session(&registration.node, record.epoch, lease);
            let older = self.store.get(&session_key).await?;
            let txn = Txn::new()
                .expect(node_key.clone(), expect)
                .put(node_key.clone(), &record)
                .put_leased(session_key.clone(), &session, lease);
            let txn = self.guard_member(txn, &registration.node);
            let kept = sent.insert(Enrolled {
                lease,
                session,
                revision: None,
            });
            match self.store.commit(txn).await? {
                Commit::Applied(revision) => {
                    kept.revision = Some(revision);
                    self.count_move(older.as_ref());
                    return Ok(revision);
                }
                Commit::Refused { guard, .. } => {
                    *sent = None;
                    if guard.key == key::member(&registration.node) {
                        return Err(End::Removed(registration.node.clone()));
                    }
                }
            }
        }
        Err(End::Contended)
    }

    fn guard_member(&self, txn: Txn, node: &NodeId) -> Txn {
        if self.members_only {
            txn.expect(key::member(node), Expect::Present)
        } else {
            txn
        }
    }

    fn session(&self, node: &NodeId, node_epoch: u64, lease: LeaseId) -> SessionRecord {
        SessionRecord {
            node: node.clone(),
            server: self.server.to_owned(),
            node_epoch,
            lease: lease.0,
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
/// it has until its lease ends or it registers again. Tries until the lease is over anyway. Where it
/// is not known whether the node was registered, that is found out first: a node that seems connected
/// would be given steps for which nobody listens.
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
            match tokio::time::timeout(TRY_WAIT, tell(store, enrolled)).await {
                Ok(Ok(true) | Err(StoreError::NoLease(_))) => return,
                // It may still be on its way to the store.
                Ok(Ok(false)) => tracing::debug!(node_id = %enrolled.node(), "registration not seen yet"),
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

/// One try; answers whether there is nothing left to say.
async fn tell(store: &dyn Store, enrolled: &Enrolled) -> Result<bool, StoreError> {
    let revision = match enrolled.revision {
        Some(revision) => revision,
        None => match whereabouts(store, enrolled).await? {
            Whereabouts::Written(revision) => revision,
            Whereabouts::Never => return Ok(true),
            Whereabouts::NotSeen => return Ok(false),
        },
    };
    // Refused: it has registered again, or an earlier try has told it after all.
    store.commit(last_word(enrolled, revision)).await?;
    Ok(true)
}

/// What became of a registration of which the store did not say.
enum Whereabouts {
    Written(Revision),
    /// The node has registered elsewhere: what this one was guarded by is no more.
    Never,
    NotSeen,
}

async fn whereabouts(store: &dyn Store, enrolled: &Enrolled) -> Result<Whereabouts, StoreError> {
    let Some(entry) = store.get(&key::session(enrolled.node())).await? else {
        return Ok(Whereabouts::NotSeen);
    };
    Ok(match entry.decode::<SessionRecord>() {
        Ok(there) if there.lease == enrolled.lease.0 => Whereabouts::Written(entry.mod_revision),
        Ok(there) if there.node_epoch < enrolled.epoch() => Whereabouts::NotSeen,
        Ok(_) | Err(_) => Whereabouts::Never,
    })
}

fn last_word(enrolled: &Enrolled, written: Revision) -> Txn {
    let key = key::session(enrolled.node());
    let record = SessionRecord {
        connected: false,
        ..enrolled.session.clone()
    };
    Txn::new()
        .expect(key.clone(), Expect::Revision(written))
        .put_leased(key, &record, enrolled.lease)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{Agent, Fate, Flaky, Port, soon};
    use super::super::hello::tests::hello;
    use super::*;
    use model::Member;
    use std::sync::Arc;
    use store::{FolderBlobs, WatchEvent};
    use tempfile::TempDir;
    use tonic::Code;
    use wire::v1::agent_message::Message as FromAgent;

    const LEASE: Duration = Duration::from_secs(600);

    async fn port(store: &Arc<Flaky>) -> (Port, TempDir) {
        let folder = TempDir::new().unwrap();
        let blobs = Arc::new(FolderBlobs::open(folder.path()).unwrap());
        (Port::open("s1", store.clone(), blobs, LEASE).await, folder)
    }

    /// Tries to register `n1`, and is told to try elsewhere.
    async fn fails(port: &Port) {
        let agent = Agent::open(port, Some("node"), FromAgent::Hello(hello("n1"))).await;
        let status = agent.unwrap().end().await;
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    }

    async fn session(store: &Flaky) -> SessionRecord {
        let entry = store.get("session/n1").await.unwrap().expect("there");
        entry.decode().unwrap()
    }

    #[tokio::test]
    async fn a_node_whose_registration_had_no_answer_does_not_seem_connected() {
        for late in [false, true] {
            let store = Flaky::new();
            let (port, _folder) = port(&store).await;
            let mut watch = store.watch("session/", Revision(0)).await.unwrap();
            store.next_commit(if late { Fate::Late } else { Fate::AnswerLost });
            fails(&port).await;
            if late {
                assert!(
                    store.arrive().await.is_applied(),
                    "it comes when nobody waits for it any more"
                );
            }
            for connected in [true, false] {
                let Some(WatchEvent::Changes(changes)) = soon("a change of the session", watch.recv()).await else {
                    panic!("the watch ended")
                };
                let record: SessionRecord = model::decode(changes[0].value.as_ref().expect("a put")).unwrap();
                assert_eq!((record.connected, record.node_epoch), (connected, 1), "late: {late}");
            }
        }
    }

    #[tokio::test]
    async fn a_registration_without_an_answer_disturbs_no_later_one() {
        let store = Flaky::new();
        let (port, _folder) = port(&store).await;
        store.next_commit(Fate::Late);
        fails(&port).await;
        let (_agent, epoch, _) = Agent::register(&port, &[]).await;
        assert_eq!(epoch, 1, "the first try was not seen");
        assert!(!store.arrive().await.is_applied(), "nor will it ever be");
        port.shutdown.cancel();
        soon("the end of all sessions", port.fleet.wait()).await;
        assert_eq!(session(&store).await.lease, store.newest_lease().0);
        assert!(!session(&store).await.connected, "the second one's last word");

        // What it finds of another registration under the same number it leaves alone.
        let mut other = session(&store).await;
        other.connected = true;
        let txn = Txn::new().put_leased("session/n1", &other, store.newest_lease());
        store.commit(txn).await.unwrap();
        let unknown = Enrolled {
            lease: LeaseId(4_711),
            session: other.clone(),
            revision: None,
        };
        let never = CancellationToken::new();
        let left = leave(store.as_ref(), &unknown, LEASE, &never);
        soon("nothing is left to say", left).await;
        assert_eq!(session(&store).await, other);
    }

    #[tokio::test]
    async fn a_node_that_is_removed_while_it_registers_is_no_node() {
        let store = Flaky::new();
        let metrics = FleetMetrics::new(&prometheus::Registry::new()).unwrap();
        let registrar = Registrar {
            store: store.as_ref(),
            metrics: &metrics,
            server: "s1",
            address: "",
            lease: LEASE,
            members_only: true,
        };
        let message = wire::v1::AgentMessage {
            message: Some(FromAgent::Hello(hello("n1"))),
        };
        let registration = Registration::read(message).unwrap();
        let mut sent = None;
        let end = registrar
            .enroll(&registration, 1, &mut sent)
            .await
            .expect_err("removed");
        assert!(matches!(end, End::Removed(_)) && sent.is_none(), "{end}");
        assert_eq!(end.status().expect("it is told").code(), Code::PermissionDenied);
        for key in ["node/n1", "session/n1"] {
            assert_eq!(store.get(key).await.unwrap(), None, "{key}");
        }
        let member = Member {
            certificate_ends_ms: None,
            node: NodeId::new("n1").unwrap(),
            name: "host".to_owned(),
            token: "rack".to_owned(),
            joined_ms: 1,
            unknown: model::record::Unknown::new(),
        };
        let txn = Txn::new().put(key::member(&member.node), &member);
        store.commit(txn).await.unwrap();
        assert!(registrar.enroll(&registration, 1, &mut sent).await.is_ok());
    }
}
