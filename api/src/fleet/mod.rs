//! The agents' streams: a node registers, gets its orders, reports, and ships its logs.
//!
//! | file | what |
//! |---|---|
//! | `hello` | what a node says of itself, checked (pure) |
//! | `enroll` | its registration: record, epoch, lease |
//! | `seats` | one session for each node; the newest wins |
//! | `session` | one stream from Hello to its end |
//! | `desired` | which orders and removals a node is to hear (pure) |
//! | `orders` | what an order says |
//! | `report` | reports gathered and judged (pure) |
//! | `filing` | reports into the store, guarded |
//! | `definitions` | runs' definitions, read once |
//! | `end` | why a session ended |
//!
//! Not here: placing and folding (the leader), the bytes of logs (`crate::logs`).

pub mod definitions;
mod desired;
mod end;
mod enroll;
mod filing;
#[cfg(test)]
pub(crate) mod fixture;
mod hello;
mod metrics;
mod orders;
mod report;
mod seats;
mod session;
#[cfg(test)]
mod tests;

pub use metrics::FleetMetrics;

use crate::auth::{AuthError, Caller, authenticate, require};
use crate::logs::LogHub;
use crate::view::View;
use definitions::Definitions;
use end::End;
use model::{Role, SessionRecord, key};
use seats::Seats;
use session::{OUTBOX_MAX, Outbox};
use std::sync::Arc;
use std::time::Duration;
use store::live::read_all;
use store::{LeaseId, Store, StoreError, WatchEvent};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};
use wire::v1::fleet_service_server::{FleetService, FleetServiceServer};
use wire::v1::{
    AgentMessage, JoinReply, JoinRequest, QuorumReply, QuorumRequest, RenewCertificateReply, RenewCertificateRequest,
    ServerMessage,
};

/// How long the end of a lease may take when a session ends.
const REVOKE_WAIT: Duration = Duration::from_secs(2);

/// The pause before the sessions of other servers are watched again.
const WATCH_PAUSE: Duration = Duration::from_secs(1);

/// Says who may open a node's stream.
pub trait Gate: Send + Sync + 'static {
    /// The caller behind an `Authorization` value, if it may.
    ///
    /// # Errors
    /// [`AuthError`].
    fn admit(&self, authorization: Option<&str>) -> Result<Caller, AuthError>;
}

impl Gate for View {
    fn admit(&self, authorization: Option<&str>) -> Result<Caller, AuthError> {
        require(authenticate(self, authorization)?, Role::Node)
    }
}

/// What is set about the streams.
#[derive(Debug, Clone)]
pub struct FleetConfig {
    /// This server's name.
    pub server_name: String,
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
    shutdown: CancellationToken,
}

impl Fleet {
    /// Starts to watch for nodes that register elsewhere; streams come through [`Fleet::service`].
    /// To be called within a tokio runtime.
    #[must_use]
    pub fn start(config: FleetConfig, deps: FleetDeps) -> Self {
        let inner = Arc::new(Inner {
            config,
            store: deps.store,
            logs: deps.logs,
            definitions: deps.definitions,
            gate: deps.gate,
            metrics: deps.metrics,
            seats: Arc::default(),
            shutdown: deps.shutdown,
        });
        let tasks = TaskTracker::new();
        tasks.spawn(watch_sessions(inner.clone()));
        Self { inner, tasks }
    }

    /// The gRPC service, with the limits of the wire.
    #[must_use]
    pub fn service(&self) -> FleetServiceServer<Self> {
        FleetServiceServer::new(self.clone())
            .max_decoding_message_size(wire::MESSAGE_MAX)
            .max_encoding_message_size(wire::MESSAGE_MAX)
    }

    /// Waits until every session has ended and its lease with it. Cancel the shutdown token before.
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
        let authorization = request.metadata().get("authorization").and_then(|v| v.to_str().ok());
        let caller = self.inner.gate.admit(authorization).map_err(|e| refusal(&e))?;
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
            let end = session::run(&inner, request.into_inner(), &outbox, &mut ended).await;
            outbox.close(&end);
            finish(&inner, &caller, ended, &end).await;
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn quorum(&self, _: Request<QuorumRequest>) -> Result<Response<QuorumReply>, Status> {
        Err(Status::unimplemented("quorum"))
    }

    async fn join(&self, _: Request<JoinRequest>) -> Result<Response<JoinReply>, Status> {
        Err(Status::unimplemented("join"))
    }

    async fn renew_certificate(
        &self,
        _: Request<RenewCertificateRequest>,
    ) -> Result<Response<RenewCertificateReply>, Status> {
        Err(Status::unimplemented("renewal of certificates"))
    }
}

fn refusal(error: &AuthError) -> Status {
    match error {
        AuthError::Missing | AuthError::Unknown => Status::unauthenticated(error.to_string()),
        AuthError::Role { .. } => Status::permission_denied(error.to_string()),
    }
}

async fn finish(inner: &Inner, caller: &Caller, ended: Option<(model::NodeId, LeaseId)>, end: &End) {
    inner.metrics.ended.with_label_values(&[end.word()]).inc();
    let node = ended.as_ref().map_or("", |(node, _)| node.as_str());
    tracing::info!(node_id = node, token = caller.name, reason = end.word(), detail = %end, "session ended");
    let Some((_, lease)) = ended.filter(|_| end.revokes()) else {
        return;
    };
    match tokio::time::timeout(REVOKE_WAIT, inner.store.lease_revoke(lease)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "lease not revoked, it ends with its time"),
        Err(_) => tracing::warn!("lease not revoked in time, it ends by itself"),
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
                    if let Some(value) = change.value {
                        supersede(inner, &change.key, &value);
                    }
                }
            }
        }
    }
}

fn supersede(inner: &Inner, key: &str, value: &[u8]) {
    match model::decode::<SessionRecord>(value) {
        Ok(record) => inner.seats.supersede(&record.node, record.node_epoch),
        Err(error) => tracing::warn!(key, %error, "session record does not decode"),
    }
}
