//! The stream to a server: opened, watched, and opened again.
//!
//! Not here: what the messages mean.

use crate::config::AgentError;
use rand::Rng;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Endpoint;
use tonic::{Code, Request, Status};
use wire::v1::fleet_service_client::FleetServiceClient;
use wire::v1::{AgentMessage, ServerMessage, server_message};

/// Messages that are not logs and wait for the stream. A report and a question for each of some
/// thousand allocations fit; a stream on which more wait is dead, and is opened anew.
const CONTROL_QUEUE_MAX: usize = 8_192;

/// Pieces of logs that wait for the stream, each of at most [`wire::LOG_DATA_MAX`]: 1 MiB.
const LOG_QUEUE_MAX: usize = 4;

/// Messages that tonic has not taken yet: as few as possible, so that reports overtake logs.
const REQUEST_QUEUE_MAX: usize = 2;

const RENEW_EVERY: Duration = Duration::from_secs(5);

/// A server that has said nothing for this long, though it owes an answer to every renewal, is dead.
const SILENCE_MAX: Duration = Duration::from_secs(15);

/// For the connection, and again for the first message.
const OPEN_MAX: Duration = Duration::from_secs(10);

const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// A stream that held this long was a good one: the next attempt does not wait.
const GOOD_AFTER: Duration = Duration::from_secs(5);

/// What the stream tells the agent's loop, in order.
pub(crate) enum FromSession {
    /// A stream is to be opened: with what?
    Hello(oneshot::Sender<AgentMessage>),
    /// It is open.
    Up {
        out: Out,
        server: String,
        node_epoch: u64,
        lease_ms: u64,
    },
    Message(Box<server_message::Message>),
    /// It broke. Only after `Up`.
    Down,
}

/// The sending side of one stream. What is sent to a stream that broke is dropped.
#[derive(Clone)]
pub(crate) struct Out {
    control: mpsc::Sender<AgentMessage>,
    logs: mpsc::Sender<AgentMessage>,
    broken: CancellationToken,
}

impl Out {
    /// Sends at once, or gives the stream up when it does not keep up.
    pub(crate) fn control_now(&self, message: AgentMessage) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.control.try_send(message) {
            tracing::warn!("stream to the server does not keep up and is opened anew");
            self.broken.cancel();
        }
    }

    pub(crate) async fn control(&self, message: AgentMessage) {
        // A broken stream is told by `FromSession::Down`.
        let _ = self.control.send(message).await;
    }

    /// Room for one piece of a log: waited for before the piece is read, so that no more pieces
    /// are in memory than there is room for, however many logs there are. `None`: the stream broke.
    pub(crate) async fn room_for_log(&self) -> Option<mpsc::Permit<'_, AgentMessage>> {
        self.logs.reserve().await.ok()
    }
}

/// Where servers are and how the agent shows that it may speak to them.
pub(crate) struct Servers {
    endpoints: Vec<Endpoint>,
    authorization: MetadataValue<Ascii>,
}

impl Servers {
    pub(crate) fn new(addresses: &[String], token: &str) -> Result<Self, AgentError> {
        let setting = |setting, message| AgentError::Setting { setting, message };
        if addresses.is_empty() {
            return Err(setting(
                "servers",
                "name at least one, e.g. http://127.0.0.1:7890".to_owned(),
            ));
        }
        let endpoints = addresses
            .iter()
            .map(|address| endpoint(address))
            .collect::<Result<_, _>>();
        let authorization = format!("Bearer {token}").parse();
        Ok(Self {
            endpoints: endpoints.map_err(|message| setting("servers", message))?,
            authorization: authorization.map_err(|_| {
                let message = "it holds characters that no token has; copy it again".to_owned();
                setting("token", message)
            })?,
        })
    }

    /// Keeps a stream open until it is dropped.
    pub(crate) async fn keep_open(self, agent: mpsc::Sender<FromSession>) {
        let mut backoff = BACKOFF_FIRST;
        for endpoint in self.endpoints.iter().cycle() {
            let began = Instant::now();
            let Err(e) = self.session(endpoint, &agent).await else {
                return;
            };
            log_end(endpoint, &e);
            if began.elapsed() >= GOOD_AFTER {
                backoff = BACKOFF_FIRST;
            }
            tokio::time::sleep(jittered(backoff)).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// One stream from its opening to its end; `Ok` when the agent's loop is gone.
    async fn session(&self, endpoint: &Endpoint, agent: &mpsc::Sender<FromSession>) -> Result<(), Status> {
        let channel = in_time(async { endpoint.connect().await.map_err(|e| unavailable(&e)) }).await?;
        let mut client = FleetServiceClient::new(channel)
            .max_decoding_message_size(wire::MESSAGE_MAX)
            .max_encoding_message_size(wire::MESSAGE_MAX);
        let (ask, hello) = oneshot::channel();
        if agent.send(FromSession::Hello(ask)).await.is_err() {
            return Ok(());
        }
        let Ok(hello) = hello.await else { return Ok(()) };
        let (requests, outgoing) = mpsc::channel(REQUEST_QUEUE_MAX);
        let _ = requests.send(hello).await;
        let mut request = Request::new(ReceiverStream::new(outgoing));
        request
            .metadata_mut()
            .insert("authorization", self.authorization.clone());
        let mut incoming = in_time(client.session(request)).await?.into_inner();
        let Some(server_message::Message::Welcome(welcome)) =
            in_time(incoming.message()).await?.and_then(|m| m.message)
        else {
            return Err(Status::failed_precondition("the server did not begin with Welcome"));
        };

        let (control, controls) = mpsc::channel(CONTROL_QUEUE_MAX);
        let (logs, pieces) = mpsc::channel(LOG_QUEUE_MAX);
        let broken = CancellationToken::new();
        let up = FromSession::Up {
            out: Out {
                control,
                logs,
                broken: broken.clone(),
            },
            server: welcome.server,
            node_epoch: welcome.node_epoch,
            lease_ms: welcome.lease_ms,
        };
        if agent.send(up).await.is_err() {
            return Ok(());
        }
        let ended = tokio::select! {
            ended = receive(incoming, agent) => ended,
            () = send(requests, controls, pieces) => Err(Status::unavailable("the stream takes no more messages")),
            () = broken.cancelled() => Err(Status::unavailable("the server does not take messages fast enough")),
        };
        if agent.send(FromSession::Down).await.is_err() {
            return Ok(());
        }
        ended
    }
}

fn endpoint(address: &str) -> Result<Endpoint, String> {
    if address.starts_with("https://") {
        return Err(format!("`{address}`: TLS is not available yet; use http://HOST:PORT"));
    }
    let full = if address.contains("://") {
        address.to_owned()
    } else {
        format!("http://{address}")
    };
    let endpoint = Endpoint::from_shared(full).map_err(|e| format!("`{address}`: {e}; use http://HOST:PORT"))?;
    Ok(endpoint
        .connect_timeout(OPEN_MAX)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(RENEW_EVERY)
        .keep_alive_timeout(RENEW_EVERY)
        .keep_alive_while_idle(true))
}

fn unavailable(e: &tonic::transport::Error) -> Status {
    let mut text = e.to_string();
    let mut cause = std::error::Error::source(e);
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    Status::unavailable(text)
}

async fn in_time<T>(work: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    let late = |_| Status::deadline_exceeded("the server did not answer in time");
    timeout(OPEN_MAX, work).await.map_err(late)?
}

fn log_end(endpoint: &Endpoint, e: &Status) {
    let (server, error) = (endpoint.uri(), e.message());
    match e.code() {
        Code::Unauthenticated | Code::PermissionDenied => {
            tracing::error!(%server, error, "server refuses this agent; check its token");
        }
        _ => tracing::warn!(%server, error, "no stream to the server"),
    }
}

/// Between half of it and all of it, so that agents of a server that died do not come back as one.
fn jittered(backoff: Duration) -> Duration {
    backoff.mul_f64(rand::rng().random_range(0.5..=1.0))
}

/// Passes messages on; an answer is owed to every renewal, so silence is the end.
async fn receive(
    mut incoming: tonic::Streaming<ServerMessage>,
    agent: &mpsc::Sender<FromSession>,
) -> Result<(), Status> {
    loop {
        let next = timeout(SILENCE_MAX, incoming.message()).await;
        let next = next.map_err(|_| Status::deadline_exceeded("the server has fallen silent"))??;
        let Some(message) = next else {
            return Err(Status::unavailable("the server closed the stream"));
        };
        let Some(message) = message.message else { continue };
        if agent.send(FromSession::Message(Box::new(message))).await.is_err() {
            return Ok(());
        }
    }
}

/// Sends renewals on time, then reports, then logs. Returns when the stream takes no more.
async fn send(
    requests: mpsc::Sender<AgentMessage>,
    mut controls: mpsc::Receiver<AgentMessage>,
    mut pieces: mpsc::Receiver<AgentMessage>,
) {
    let mut renew = tokio::time::interval(RENEW_EVERY);
    renew.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut sequence = 0;
    loop {
        let message = tokio::select! {
            biased;
            _ = renew.tick() => {
                sequence += 1;
                crate::wire_form::renew(sequence)
            }
            Some(message) = controls.recv() => message,
            Some(message) = pieces.recv() => message,
            else => return,
        };
        if requests.send(message).await.is_err() {
            return;
        }
    }
}
