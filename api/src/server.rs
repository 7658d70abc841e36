//! The server role's port: REST and gRPC side by side, and the loops that run behind them.
//!
//! Which of the two a request is for is told by its content type alone. Not here: what is answered.

use crate::doors::{Doors, Entered};
use crate::fleet::join::CertificateGate;
use crate::fleet::{Fleet, FleetConfig, FleetDeps, FleetMetrics, Gate};
use crate::limit::{CONNECTIONS_MAX, HEAD_MAX, HEAD_TIMEOUT};
use crate::state::{ApiConfig, Deps, Server, Shared};
use crate::{archive, intake, rest, rpc};
use axum::Router;
use axum::extract::Request;
use axum::http::header;
use axum::response::Response;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use pki::Peer;
use std::borrow::Borrow;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::{Service, ServiceExt, service_fn};

/// How long open requests may go on after the server was asked to stop. Streams end at once.
const GRACE: Duration = Duration::from_secs(10);

/// How long the port waits for the first picture of the store. Without one it opens all the same
/// and says that it is not ready.
const FIRST_PICTURE: Duration = Duration::from_secs(5);

/// The pause after the system refused a connection, e.g. because no file descriptors are left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often an HTTP/2 peer is asked whether it is still there; agents keep one stream for days.
const PING_EVERY: Duration = Duration::from_secs(10);

/// How long its answer may take.
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Most streams of one HTTP/2 connection: a browser's page with some logs open.
const HTTP2_STREAMS_MAX: u32 = 256;

/// Why the server stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A loop ended that must not end: a fault of the program.
    #[error("the server's {0} ended by itself")]
    LoopEnded(&'static str),
}

/// The server role: built from its deps, then served.
pub struct Api {
    server: Shared,
}

impl Api {
    /// Puts the parts together; nothing runs yet.
    #[must_use]
    pub fn new(config: ApiConfig, deps: Deps) -> Self {
        Self {
            server: Server::new(config, deps),
        }
    }

    /// What the parts share.
    #[must_use]
    pub fn shared(&self) -> &Shared {
        &self.server
    }

    /// Shows another role's numbers at `/metrics` too.
    pub fn add_metrics(&self, registry: prometheus::Registry) {
        self.server.metrics.add_registry(registry);
    }

    /// Serves until `shutdown` (or the deps' own token) is cancelled: then streams end, open
    /// requests get some seconds, and everything received of logs is stored.
    ///
    /// The deps' own token is cancelled as well when this returns.
    ///
    /// # Errors
    /// [`ServeError`] when a part of the server broke.
    pub async fn serve(self, listener: TcpListener, shutdown: CancellationToken) -> Result<(), ServeError> {
        let server = self.server;
        let stop = server.deps.shutdown.clone();
        let mut loops = JoinSet::new();
        loops.spawn(pass_on(shutdown, stop.clone()));
        loops.spawn(follow(server.clone()));
        loops.spawn(work(server.clone()));
        loops.spawn(keep(server.clone()));
        loops.spawn(retain(server.clone()));
        loops.spawn(probe(server.clone()));
        loops.spawn(watch_room(server.clone()));
        let fleet = start_fleet(&server);
        let port = Port {
            rest: rest::router(&server),
            grpc: rpc::router(&server, fleet.service()),
        };
        let accepting = async {
            // A caller of the first moment would hear that its token is not known.
            server.view.wait_until_current(FIRST_PICTURE).await;
            let tls = server.deps.membership.as_ref().map(|m| m.tls().clone());
            accept(listener, port, Doors::new(tls), stop.clone(), GRACE).await;
        };
        let broken = watch_over(&mut loops, &stop);
        // A loop that breaks stops the server in the same order as a signal does.
        let ((), result) = tokio::join!(accepting, async {
            let result = broken.await;
            stop.cancel();
            result
        });
        while loops.join_next().await.is_some() {}
        fleet.wait().await;
        server.logs.stop().await;
        result
    }
}

/// Ends when the server is to stop, or when a loop has ended before.
async fn watch_over(loops: &mut JoinSet<&'static str>, stop: &CancellationToken) -> Result<(), ServeError> {
    match loops.join_next().await {
        _ if stop.is_cancelled() => Ok(()),
        Some(Ok(name)) => Err(ServeError::LoopEnded(name)),
        Some(Err(error)) => {
            tracing::error!(%error, "a loop of the server crashed");
            Err(ServeError::LoopEnded("loop"))
        }
        None => Ok(()),
    }
}

async fn pass_on(shutdown: CancellationToken, stop: CancellationToken) -> &'static str {
    tokio::select! {
        () = shutdown.cancelled() => stop.cancel(),
        () = stop.cancelled() => {}
    }
    "shutdown"
}

async fn follow(server: Shared) -> &'static str {
    let stop = server.deps.shutdown.clone();
    server.view.shown_by(&server.config.server_name);
    server.view.follow(server.store(), &server.definitions, &stop).await;
    "view"
}

async fn probe(server: Shared) -> &'static str {
    server.probe.run(server.store(), &server.deps.shutdown).await;
    "probe"
}

async fn watch_room(server: Shared) -> &'static str {
    server.room.run(server.store(), &server.deps.shutdown).await;
    "room"
}

async fn work(server: Shared) -> &'static str {
    intake::work(server).await;
    "intake"
}

async fn keep(server: Shared) -> &'static str {
    archive::keep(server).await;
    "archive"
}

async fn retain(server: Shared) -> &'static str {
    archive::retain(server).await;
    "retention"
}

/// The two routers of the port.
#[derive(Clone)]
pub(crate) struct Port {
    pub(crate) rest: Router,
    pub(crate) grpc: Router,
}

/// Where there are certificates, they are the only way in for nodes.
fn gate(server: &Shared) -> Arc<dyn Gate> {
    match &server.deps.membership {
        None => Arc::new(server.view.clone()),
        Some(membership) => Arc::new(CertificateGate {
            membership: membership.clone(),
            store: server.deps.store.clone(),
        }),
    }
}

fn start_fleet(server: &Shared) -> Fleet {
    let metrics = FleetMetrics::new(server.metrics.registry()).expect("every name is registered once");
    let config = FleetConfig {
        server_name: server.config.server_name.clone(),
        address: server.config.advertise.clone(),
        lease: Duration::from_millis(server.config.node_lease_ms),
    };
    let deps = FleetDeps {
        store: server.deps.store.clone(),
        logs: server.logs.clone(),
        definitions: server.definitions.clone(),
        gate: gate(server),
        metrics,
        probe: server.probe.clone(),
        leading: server.deps.leading.clone(),
        shutdown: server.deps.shutdown.clone(),
    };
    Fleet::start(config, deps)
}

impl Port {
    async fn answer(self, request: Request) -> Result<Response, Infallible> {
        let kind = request.headers().get(header::CONTENT_TYPE);
        let is_grpc = kind.is_some_and(|v| v.as_bytes().starts_with(b"application/grpc"));
        let router = if is_grpc { self.grpc } else { self.rest };
        router.oneshot(request).await
    }
}

/// Takes connections until `stop`, lets go of the listener (which closes the port if it is given
/// and not lent), then waits for the open connections, at most `grace`.
pub(crate) async fn accept(
    listener: impl Borrow<TcpListener> + Send + Sync,
    port: Port,
    doors: Doors,
    stop: CancellationToken,
    grace: Duration,
) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = accept_one(listener.borrow(), &room) => accepted,
            Some(_ended) = connections.join_next() => continue,
        };
        let (stream, permit) = accepted;
        let (port, watcher, doors) = (port.clone(), graceful.watcher(), doors.clone());
        connections.spawn(async move {
            match doors.enter(stream).await {
                Some(Entered::Plain(stream)) => converse(stream, port, Peer::Anonymous, watcher).await,
                Some(Entered::Tls(stream, peer)) => converse(*stream, port, peer, watcher).await,
                None => {}
            }
            drop(permit);
        });
    }
    drop(listener);
    let _in_time = tokio::time::timeout(grace, graceful.shutdown()).await;
    connections.shutdown().await;
}

/// Serves one connection until either side ends it.
async fn converse<IO>(io: IO, port: Port, peer: Peer, watcher: Watcher)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let started = Arc::new(AtomicBool::new(false));
    let builder = builder();
    let service = service(port, peer, started.clone());
    let connection = builder.serve_connection(TokioIo::new(io), service).into_owned();
    tokio::select! {
        result = watcher.watch(connection) => if let Err(error) = result {
            tracing::debug!(error = %error, "connection broke");
        },
        () = silent(&started) => tracing::debug!("connection sent no request"),
    }
}

async fn accept_one(listener: &TcpListener, room: &Arc<Semaphore>) -> (TcpStream, tokio::sync::OwnedSemaphorePermit) {
    let permit = room
        .clone()
        .acquire_owned()
        .await
        .expect("the semaphore is never closed");
    loop {
        match listener.accept().await {
            Ok((stream, _peer)) => {
                // A log line must not wait for the next one.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "connection without nodelay");
                }
                return (stream, permit);
            }
            Err(error) => {
                tracing::warn!(%error, "connection cannot be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Ends when the connection has brought no request in time; hyper's own time-out begins only after
/// it knows which protocol is spoken.
async fn silent(started: &AtomicBool) {
    tokio::time::sleep(HEAD_TIMEOUT).await;
    if started.load(Ordering::Relaxed) {
        std::future::pending::<()>().await;
    }
}

fn service(
    port: Port,
    peer: Peer,
    started: Arc<AtomicBool>,
) -> TowerToHyperService<
    impl Service<axum::http::Request<hyper::body::Incoming>, Response = Response, Error = Infallible, Future: Send>
    + Clone
    + Send,
> {
    TowerToHyperService::new(service_fn(
        move |request: axum::http::Request<hyper::body::Incoming>| {
            started.store(true, Ordering::Relaxed);
            let mut request = request.map(axum::body::Body::new);
            request.extensions_mut().insert(peer.clone());
            port.clone().answer(request)
        },
    ))
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT)
        .max_concurrent_streams(HTTP2_STREAMS_MAX)
        .max_header_list_size(u32::try_from(HEAD_MAX).unwrap_or(u32::MAX));
    builder
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn only_a_connection_without_a_request_is_ended_in_time() {
        let begun = Instant::now();
        silent(&AtomicBool::new(false)).await;
        assert_eq!(begun.elapsed(), HEAD_TIMEOUT);
        let started = AtomicBool::new(true);
        let ended = tokio::time::timeout(HEAD_TIMEOUT * 10, silent(&started)).await;
        assert!(ended.is_err());
    }
}
