//! The stream to a server: opened, watched, and opened again.
//!
//! Not here: what the messages mean.

use crate::servers::Servers;
use rand::Rng;
use rand::seq::SliceRandom;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};
use wire::v1::{AgentMessage, ServerMessage, server_message};

/// Messages that are not logs and wait for the stream. A report and a question for each of some
/// thousand allocations fit; a stream on which more wait is dead, and is opened anew.
const CONTROL_QUEUE_MAX: usize = 8_192;

/// Renewals that wait for the stream: more than one wait only when it is stuck.
const RENEWAL_QUEUE_MAX: usize = 4;

/// Pieces of logs that wait for the stream, each of at most [`wire::LOG_DATA_MAX`]: 1 MiB.
const LOG_QUEUE_MAX: usize = 4;

/// Messages that tonic has not taken yet: as few as possible, so that reports overtake logs.
const REQUEST_QUEUE_MAX: usize = 2;

/// A server that has said nothing for this long, though it owes an answer to a renewal every five
/// seconds, hangs or has no way to the store: another one may have.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// For the first message on a fresh stream: two writes of the store.
const WELCOME_MAX: Duration = Duration::from_secs(5);

const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// A stream that held this long was a good one: the pauses begin anew.
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
    renewals: mpsc::Sender<AgentMessage>,
    control: mpsc::Sender<AgentMessage>,
    logs: mpsc::Sender<AgentMessage>,
    broken: CancellationToken,
}

impl Out {
    /// Sends before all else that waits. One that does not fit is not sent: those before it are
    /// stuck already.
    pub(crate) fn renew(&self, sequence: u64) {
        let _ = self.renewals.try_send(crate::wire_form::renew(sequence));
    }

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

/// Keeps a stream open to one of the servers until it is dropped: first to any of them, then, when
/// that breaks, to the next.
pub(crate) async fn keep_open(servers: Servers, agent: mpsc::Sender<FromSession>) {
    let mut order: Vec<usize> = (0..servers.len()).collect();
    order.shuffle(&mut rand::rng());
    let mut failures = 0;
    for server in order.into_iter().cycle() {
        let began = Instant::now();
        let Err(e) = session(&servers, server, &agent).await else {
            return;
        };
        log_end(servers.name(server), &e);
        if began.elapsed() >= GOOD_AFTER {
            failures = 0;
        }
        tokio::time::sleep(jittered(pause(failures, servers.len()))).await;
        failures += 1;
    }
}

/// The pause after so many failures in a row: short until each server was tried once, then twice as
/// long with each round.
fn pause(failures: usize, servers: usize) -> Duration {
    let rounds = u32::try_from(failures / servers.max(1)).unwrap_or(u32::MAX);
    BACKOFF_FIRST
        .saturating_mul(2u32.saturating_pow(rounds))
        .min(BACKOFF_MAX)
}

/// One stream from its opening to its end; `Ok` when the agent's loop is gone.
async fn session(servers: &Servers, server: usize, agent: &mpsc::Sender<FromSession>) -> Result<(), Status> {
    let mut client = servers.connect(server).await?;
    let (ask, hello) = oneshot::channel();
    if agent.send(FromSession::Hello(ask)).await.is_err() {
        return Ok(());
    }
    let Ok(hello) = hello.await else { return Ok(()) };
    let (requests, outgoing) = mpsc::channel(REQUEST_QUEUE_MAX);
    let _ = requests.send(hello).await;
    let request = servers.authorized(ReceiverStream::new(outgoing));
    let opened = async {
        let mut incoming = client.session(request).await?.into_inner();
        let first = incoming.message().await?.and_then(|m| m.message);
        Ok((incoming, first))
    };
    let late = |_| Err(Status::deadline_exceeded("the server did not answer in time"));
    let (incoming, first) = timeout(WELCOME_MAX, opened).await.unwrap_or_else(late)?;
    let Some(server_message::Message::Welcome(welcome)) = first else {
        return Err(Status::failed_precondition("the server did not begin with Welcome"));
    };

    let (renewals, renewed) = mpsc::channel(RENEWAL_QUEUE_MAX);
    let (control, controls) = mpsc::channel(CONTROL_QUEUE_MAX);
    let (logs, pieces) = mpsc::channel(LOG_QUEUE_MAX);
    let broken = CancellationToken::new();
    let up = FromSession::Up {
        out: Out {
            renewals,
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
    let waiting = Waiting {
        renewals: renewed,
        controls,
        pieces,
    };
    let ended = tokio::select! {
        ended = receive(incoming, agent) => ended,
        () = send(requests, waiting) => Err(Status::unavailable("the stream takes no more messages")),
        () = broken.cancelled() => Err(Status::unavailable("the server does not take messages fast enough")),
    };
    if agent.send(FromSession::Down).await.is_err() {
        return Ok(());
    }
    ended
}

fn log_end(server: &str, e: &Status) {
    let error = e.message();
    match e.code() {
        Code::Unauthenticated | Code::PermissionDenied => {
            tracing::error!(
                server,
                error,
                "server refuses this agent; check its token or certificate"
            );
        }
        _ => tracing::warn!(server, error, "no stream to the server"),
    }
}

/// Between half of it and all of it, so that agents of a server that died do not come back as one.
pub(crate) fn jittered(backoff: Duration) -> Duration {
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

/// What waits for the stream, the most urgent first.
struct Waiting {
    renewals: mpsc::Receiver<AgentMessage>,
    controls: mpsc::Receiver<AgentMessage>,
    pieces: mpsc::Receiver<AgentMessage>,
}

/// Sends renewals, then reports, then logs. Returns when the stream takes no more.
async fn send(requests: mpsc::Sender<AgentMessage>, mut waiting: Waiting) {
    loop {
        let message = tokio::select! {
            biased;
            Some(message) = waiting.renewals.recv() => message,
            Some(message) = waiting.controls.recv() => message,
            Some(message) = waiting.pieces.recv() => message,
            else => return,
        };
        if requests.send(message).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_server_is_tried_before_the_pauses_grow() {
        let cases = [
            (0, 3, 100),
            (2, 3, 100),
            (3, 3, 200),
            (6, 3, 400),
            (1, 1, 200),
            (5, 1, 3_200),
            (6, 1, 5_000),
            (usize::MAX, 1, 5_000),
        ];
        for (failures, servers, ms) in cases {
            assert_eq!(
                pause(failures, servers),
                Duration::from_millis(ms),
                "{failures} of {servers}"
            );
        }
    }
}
