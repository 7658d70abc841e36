//! The agents' streams: a node registers, gets its orders, reports, and ships its logs.
//!
//! | file | what |
//! |---|---|
//! | `hello` | what a node says of itself, checked (pure) |
//! | `enroll` | its registration: record, epoch, lease, and the word that its stream has ended |
//! | `gate` | who may open a stream |
//! | `join` | how a machine becomes a node, and stays one |
//! | `seats` | one session for each node; the newest wins |
//! | `session` | one stream from Hello to its end |
//! | `beat` | the renewals of all sessions, together |
//! | `orders` | what an order says |
//! | `standing` | which orders stand and what was filed of them |
//! | `report` | reports read and checked (pure) |
//! | `desk` | the filing stage that all sessions share |
//! | `filing` | reports into the store, guarded |
//! | `definitions` | runs' definitions, read once |
//! | `end` | why a session ended |
//!
//! Which orders and removals a node is to hear, what becomes of its reports, when it may forget:
//! `api_core::fleet`. Not here: placing and folding (the leader), the bytes of logs (`crate::logs`).

mod beat;
pub mod definitions;
mod desk;
mod end;
mod enroll;
mod filing;
#[cfg(test)]
pub(crate) mod fixture;
pub mod gate;
mod hello;
pub mod join;
mod metrics;
mod orders;
mod report;
mod seats;
mod session;
mod standing;
#[cfg(test)]
mod tests;

pub use metrics::FleetMetrics;

use crate::auth::Caller;
use crate::logs::LogHub;
use crate::probe::Probe;
use beat::Beat;
use definitions::Definitions;
use desk::Desk;
use end::End;
use enroll::Enrolled;
pub use gate::Gate;
use join::Membership;
use model::{NodeId, SessionRecord, key};
use pki::Peer;
use seats::Seats;
use session::{OUTBOX_MAX, Outbox};
use std::sync::Arc;
use std::time::Duration;
use store::live::read_all;
use store::{Revision, Store, StoreError, WatchEvent};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};
use wire::v1::fleet_service_server::{FleetService, FleetServiceServer};
use wire::v1::{
    AgentMessage, JoinReply, JoinRequest, QuorumReply, QuorumRequest, RenewCertificateReply, RenewCertificateRequest,
    ServerMessage,
};

/// The pause before the sessions of other servers are watched again.
const WATCH_PAUSE: Duration = Duration::from_secs(1);

/// What is set about the streams.
#[derive(Debug, Clone)]
pub struct FleetConfig {
    /// This server's name.
    pub server_name: String,
    /// Where other servers reach this one; empty when it stands alone.
    pub address: String,
    /// How long the server believes in a node without a renewal.
    pub lease: Duration,
}

/// What the streams are built from.
pub struct FleetDeps {
    /// Live state.
    pub store: Arc<dyn Store>,
    /// Where logs go.
    pub logs: LogHub,
    /// Runs' definitions.
    pub definitions: Definitions,
    /// Who may open a stream.
    pub gate: Arc<dyn Gate>,
    /// What is counted.
    pub metrics: FleetMetrics,
    /// Whether the live store answers.
    pub probe: Probe,
    /// The revision of this server's own election key while it leads.
    pub leading: watch::Receiver<Option<Revision>>,
    /// Ends every session, cleanly.
    pub shutdown: CancellationToken,
}

/// The service behind the agents' streams. Clones share it.
#[derive(Clone)]
pub struct Fleet {
    inner: Arc<Inner>,
    tasks: TaskTracker,
}

pub(crate) struct Inner {
    config: FleetConfig,
    store: Arc<dyn Store>,
    logs: LogHub,
    definitions: Definitions,
    gate: Arc<dyn Gate>,
    metrics: FleetMetrics,
    seats: Arc<Seats>,
    desk: Arc<Desk>,
    beat: Beat,
    probe: Probe,
    leading: watch::Receiver<Option<Revision>>,
    shutdown: CancellationToken,
}

impl Fleet {
    /// Starts to watch for nodes that register elsewhere; streams come through [`Fleet::service`].
    /// To be called within a tokio runtime.
    #[must_use]
    pub fn start(config: FleetConfig, deps: FleetDeps) -> Self {
        let desk = Desk::new(deps.store.clone(), deps.metrics.clone());
        let (beat, beats) = Beat::new(deps.store.clone());
        let inner = Arc::new(Inner {
            config,
            store: deps.store,
            logs: deps.logs,
            definitions: deps.definitions,
            gate: deps.gate,
            metrics: deps.metrics,
            seats: Arc::default(),
            desk: desk.clone(),
            beat,
            probe: deps.probe,
            leading: deps.leading,
            shutdown: deps.shutdown,
        });
        let tasks = TaskTracker::new();
        tasks.spawn(watch_sessions(inner.clone()));
        tasks.spawn(desk.work(inner.shutdown.clone()));
        tasks.spawn(beats.work(inner.shutdown.clone()));
        Self { inner, tasks }
    }

    /// The gRPC service, with the limits of the wire.
    #[must_use]
    pub fn service(&self) -> FleetServiceServer<Self> {
        FleetServiceServer::new(self.clone())
            .max_decoding_message_size(wire::MESSAGE_MAX)
            .max_encoding_message_size(wire::MESSAGE_MAX)
    }

    /// Waits until every session has ended and the store was told. Cancel the shutdown token before.
    pub async fn wait(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

#[tonic::async_trait]
impl FleetService for Fleet {
    type SessionStream = ReceiverStream<Result<ServerMessage, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let peer = peer_of(&request);
        let admitted = self.inner.gate.admit_peer(&peer, authorization_of(&request)).await?;
        if self.inner.shutdown.is_cancelled() {
            return Err(End::Stopping
                .status()
                .unwrap_or_else(|| Status::unavailable("stopping")));
        }
        let (sender, receiver) = mpsc::channel(OUTBOX_MAX);
        let inner = self.inner.clone();
        self.tasks.spawn(async move {
            let outbox = Outbox::new(sender);
            let mut ended = None;
            let end = session::run(&inner, request.into_inner(), &outbox, &admitted, &mut ended).await;
            outbox.close(&end);
            finish(&inner, &admitted.caller, ended, &end).await;
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn quorum(&self, request: Request<QuorumRequest>) -> Result<Response<QuorumReply>, Status> {
        self.inner
            .gate
            .recognise(&peer_of(&request), authorization_of(&request))?;
        let leads = self.inner.leading.borrow().is_some();
        let lost = !leads && self.inner.probe.is_lost();
        Ok(Response::new(QuorumReply { lost }))
    }

    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinReply>, Status> {
        let membership = self.membership()?;
        let reply = join::join(self.inner.store.as_ref(), membership, request.into_inner()).await?;
        Ok(Response::new(reply))
    }

    async fn renew_certificate(
        &self,
        request: Request<RenewCertificateRequest>,
    ) -> Result<Response<RenewCertificateReply>, Status> {
        let membership = self.membership()?;
        let peer = peer_of(&request);
        let (node, reply) = join::renew(self.inner.store.as_ref(), membership, &peer, request.into_inner()).await?;
        if let Ok(certificate) = pki::Certificate::from_pem(&reply.certificate_pem) {
            self.inner.seats.renewed(&node, certificate.not_after_s);
            self.inner.tell_certificates();
        }
        Ok(Response::new(reply))
    }
}

impl Inner {
    /// Brings up to date when the first certificate of a connected node ends.
    fn tell_certificates(&self) {
        let first = self.seats.first_end_s().unwrap_or_default();
        let first = i64::try_from(first).unwrap_or(i64::MAX);
        self.metrics.certificate_expiry.set(first);
    }
}

impl Fleet {
    fn membership(&self) -> Result<&Arc<Membership>, Status> {
        self.inner.gate.membership().ok_or_else(|| {
            Status::failed_precondition(
                "this server has no certificates: agents show the node token of its data folder; see `token_file`",
            )
        })
    }
}

/// Who is at the other end, as the listener has found out; a connection without TLS shows nothing.
fn peer_of<T>(request: &Request<T>) -> Peer {
    request.extensions().get::<Peer>().cloned().unwrap_or(Peer::Anonymous)
}

fn authorization_of<T>(request: &Request<T>) -> Option<&str> {
    request.metadata().get("authorization").and_then(|v| v.to_str().ok())
}

async fn finish(inner: &Inner, caller: &Caller, enrolled: Option<Enrolled>, end: &End) {
    inner.metrics.ended.with_label_values(&[end.word()]).inc();
    inner.tell_certificates();
    let node = enrolled.as_ref().map_or("", |e| e.node().as_str());
    tracing::info!(node_id = node, token = caller.name, reason = end.word(), detail = %end, "session ended");
    if let Some(enrolled) = enrolled {
        enroll::leave(inner.store.as_ref(), &enrolled, inner.config.lease, &inner.shutdown).await;
    }
}

/// Ends sessions of nodes that registered anew with another server.
async fn watch_sessions(inner: Arc<Inner>) {
    loop {
        tokio::select! {
            () = inner.shutdown.cancelled() => return,
            watched = watch_until_gap(&inner) => match watched {
                Ok(Gap::Closed) => return,
                Ok(Gap::Resync) => {}
                Err(error) => {
                    tracing::warn!(%error, "sessions cannot be watched, will be tried again");
                    tokio::time::sleep(WATCH_PAUSE).await;
                }
            },
        }
    }
}

enum Gap {
    Resync,
    Closed,
}

async fn watch_until_gap(inner: &Inner) -> Result<Gap, StoreError> {
    let (entries, revision) = read_all(inner.store.as_ref(), key::SESSIONS).await?;
    for entry in entries {
        supersede(inner, &entry.key, &entry.value);
    }
    let mut watch = inner.store.watch(key::SESSIONS, revision).await?;
    loop {
        match watch.recv().await {
            None => return Ok(Gap::Closed),
            Some(WatchEvent::Resync) => return Ok(Gap::Resync),
            Some(WatchEvent::Changes(changes)) => {
                for change in changes {
                    match change.value {
                        Some(value) => supersede(inner, &change.key, &value),
                        None => lapse(inner, &change.key, change.revision),
                    }
                }
            }
        }
    }
}

fn lapse(inner: &Inner, key: &str, revision: Revision) {
    if let Some(Ok(node)) = key.strip_prefix(key::SESSIONS).map(NodeId::new) {
        inner.seats.lapse(&node, revision);
    }
}

fn supersede(inner: &Inner, key: &str, value: &[u8]) {
    match model::decode::<SessionRecord>(value) {
        Ok(record) => inner.seats.supersede(&record.node, record.node_epoch),
        Err(error) => tracing::warn!(key, %error, "session record does not decode"),
    }
}
