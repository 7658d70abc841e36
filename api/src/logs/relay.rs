//! Logs across servers: a reader here follows a log whose node holds its stream with another server.
//!
//! For each log that somebody here follows live, one stream of frames comes from the server that
//! `session/<node>` names, however many readers there are; they take its bytes from memory and
//! everything older from blobs, by offset, so that nothing is lost or doubled when that server dies
//! or the node moves. It is opened with the authorization of a reader. The other server answers
//! from its own node only and never asks a third one. Not here: the stretch of bytes (`window`).
//!
//! A frame is the offset of its first byte (8 bytes), its length (4), both big-endian, and the
//! bytes; one of length 0 says that the stream lives.

use super::hub::OpenLog;
use super::reader::{LogReader, PIECE_MAX};
use crate::metrics::Metrics;
use crate::problem::{Answer, Problem};
use crate::state::Shared;
use crate::view::Picture;
use api_core::logs::LogId;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use futures::{Stream, StreamExt, stream::unfold};
use model::{AllocId, SessionRecord};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// Says which server asks; whoever is asked so asks no further one.
pub(super) const RELAY_HEADER: HeaderName = HeaderName::from_static("x-buildflow-relay");

/// Where another server is asked, with the allocation's id.
pub(super) const PATH: &str = "/api/v1/relay/logs/{alloc}";

/// Most logs that are read from other servers at once; each holds some 256 KiB. Readers of further
/// ones read blobs, a second behind.
const RELAYS_MAX: usize = 512;

/// How long another server may take to begin its answer.
const ANSWER_WAIT: Duration = Duration::from_secs(5);

/// How often a stream without bytes says that it lives.
const ALIVE_EVERY: Duration = Duration::from_secs(2);

/// A stream that says nothing for so long is given up.
const SILENT_MAX: Duration = Duration::from_secs(6);

/// How often it is looked where the node is.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// The longest pause before another server is asked again.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// How long a server that is asked waits for a node that does not send the log (yet, or any more).
const NODE_WAIT: Duration = Duration::from_secs(10);

/// Bytes before those of a frame.
const FRAME_HEAD: usize = 12;

/// The logs that are read from other servers.
#[derive(Default)]
pub struct Relays {
    open: Mutex<HashMap<LogId, Weak<Relay>>>,
}

/// A hold on a log that is read from another server; it ends with the last one.
pub(super) struct Relay {
    authorization: Arc<Mutex<HeaderValue>>,
    _task: AbortOnDropHandle<()>,
}

/// Reads a log from wherever its node is, as long as that is another server, with a reader's
/// authorization. `None`: too many are read already.
pub(super) fn hold(server: &Shared, id: &LogId, authorization: &HeaderValue) -> Option<Arc<Relay>> {
    let mut open = lock(&server.relays.open);
    if let Some(relay) = open.get(id).and_then(Weak::upgrade) {
        lock(&relay.authorization).clone_from(authorization);
        return Some(relay);
    }
    open.retain(|_, relay| relay.strong_count() > 0);
    if open.len() >= RELAYS_MAX {
        return None;
    }
    let authorization = Arc::new(Mutex::new(authorization.clone()));
    let follower = Follower {
        log: server.logs.log(id),
        server: server.clone(),
        authorization: authorization.clone(),
    };
    let relay = Arc::new(Relay {
        authorization,
        _task: AbortOnDropHandle::new(tokio::spawn(follower.run())),
    });
    open.insert(id.clone(), Arc::downgrade(&relay));
    Some(relay)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why a stream of another server ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("it cannot be asked: {0}")]
    Asked(reqwest::Error),
    #[error("it answered {0}")]
    Refused(StatusCode),
    #[error("it broke: {0}")]
    Broken(reqwest::Error),
    #[error("it was silent")]
    Silent,
    #[error("it is not a stream of frames")]
    Frames,
    #[error("it ended")]
    Over,
    #[error("the node is elsewhere")]
    Moved,
    #[error("the blobs cannot be listed: {0}")]
    Blobs(#[from] store::BlobError),
}

/// Follows one log.
struct Follower {
    server: Shared,
    log: Arc<OpenLog>,
    authorization: Arc<Mutex<HeaderValue>>,
}

/// Takes the stretch away with the stream that it came by: whoever is behind reads blobs.
struct Stretch<'a>(&'a OpenLog);

impl Drop for Stretch<'_> {
    fn drop(&mut self) {
        self.0.relay_end();
    }
}

impl Follower {
    async fn run(self) {
        let mut pause = LOOK_EVERY;
        loop {
            let holder = self.holder().filter(|_| self.log.live_len().is_none());
            let Some(holder) = holder else {
                tokio::time::sleep(LOOK_EVERY).await;
                continue;
            };
            let began = Instant::now();
            let ended = self.copy(&holder).await;
            let log = self.log.id();
            tracing::debug!(%log, server = holder.server, reason = %ended, "log of another server ended");
            pause = if began.elapsed() > PAUSE_MAX {
                LOOK_EVERY
            } else {
                (pause * 2).min(PAUSE_MAX)
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// The session of the log's node, if another server that can be asked holds its stream.
    fn holder(&self) -> Option<SessionRecord> {
        self.server.view.read(|picture| {
            let session = session_of(picture, self.log.id())?;
            let other =
                session.connected && session.server != self.server.config.server_name && !session.address.is_empty();
            other.then(|| session.clone())
        })
    }

    async fn copy(&self, holder: &SessionRecord) -> Ended {
        match self.try_copy(holder).await {
            Ok(ended) | Err(ended) => ended,
        }
    }

    async fn try_copy(&self, holder: &SessionRecord) -> Result<Ended, Ended> {
        // Everything before is among the blobs.
        let from = self
            .log
            .cover(self.server.deps.blobs.as_ref(), Duration::ZERO)
            .await?
            .len();
        let id = self.log.id();
        let alloc = AllocId::for_step(&id.run, id.step, id.fence);
        let path = PATH.replace("{alloc}", alloc.as_str());
        let asked = self
            .server
            .deps
            .peers
            .get(format!("{}{path}?offset={from}", holder.address))
            .header(RELAY_HEADER, self.server.config.server_name.as_str())
            .header(header::AUTHORIZATION, lock(&self.authorization).clone())
            .send();
        let answer = timeout(ANSWER_WAIT, asked)
            .await
            .map_err(|_| Ended::Silent)?
            .map_err(Ended::Asked)?;
        if answer.status() != StatusCode::OK {
            return Err(Ended::Refused(answer.status()));
        }
        let metrics = &self.server.metrics;
        let _counted = Counted::new(metrics);
        self.log.relay_begin(from);
        let _stretch = Stretch(&self.log);
        let mut bytes = answer.bytes_stream();
        let mut frames = Frames::default();
        let mut heard = Instant::now();
        loop {
            match timeout(LOOK_EVERY, bytes.next()).await {
                Ok(Some(Ok(chunk))) => {
                    heard = Instant::now();
                    metrics.proxied_bytes.inc_by(chunk.len() as u64);
                    frames.take(&chunk, |offset, piece| self.log.relay_push(offset, piece))?;
                }
                Ok(Some(Err(error))) => return Err(Ended::Broken(error)),
                Ok(None) => return Ok(Ended::Over),
                Err(_) if heard.elapsed() >= SILENT_MAX => return Ok(Ended::Silent),
                Err(_) => {}
            }
            let same = |now: SessionRecord| now.server == holder.server && now.node_epoch == holder.node_epoch;
            if !self.holder().is_some_and(same) {
                return Ok(Ended::Moved);
            }
        }
    }
}

fn session_of<'a>(picture: &'a Picture, id: &LogId) -> Option<&'a SessionRecord> {
    let record = picture.run(&id.run)?.records().get(&id.step)?;
    let node = if record.fence == id.fence {
        record.node.as_ref()
    } else {
        record.earlier.iter().find(|e| e.fence == id.fence).map(|e| &e.node)
    };
    picture.session(node?)
}

struct Counted<'a>(&'a Metrics);

impl<'a> Counted<'a> {
    fn new(metrics: &'a Metrics) -> Self {
        metrics.proxied_logs.inc();
        Self(metrics)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.proxied_logs.dec();
    }
}

/// Takes frames out of chunks of any size.
#[derive(Default)]
struct Frames {
    rest: Vec<u8>,
}

impl Frames {
    fn take(&mut self, chunk: &[u8], mut frame: impl FnMut(u64, Bytes)) -> Result<(), Ended> {
        self.rest.extend_from_slice(chunk);
        let mut at = 0;
        while let Some((head, behind)) = self.rest[at..].split_first_chunk::<FRAME_HEAD>() {
            let (offset, len) = head.split_at(8);
            let offset = u64::from_be_bytes(offset.try_into().map_err(|_| Ended::Frames)?);
            let len = u32::from_be_bytes(len.try_into().map_err(|_| Ended::Frames)?);
            if u64::from(len) > PIECE_MAX {
                return Err(Ended::Frames);
            }
            let Some(bytes) = behind.get(..len as usize) else { break };
            if !bytes.is_empty() {
                frame(offset, Bytes::copy_from_slice(bytes));
            }
            at += FRAME_HEAD + bytes.len();
        }
        self.rest.drain(..at);
        Ok(())
    }
}

fn frame(offset: u64, bytes: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(FRAME_HEAD + bytes.len());
    out.extend_from_slice(&offset.to_be_bytes());
    out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(bytes);
    Bytes::from(out)
}

/// Where another server wants to begin.
#[derive(serde::Deserialize)]
pub(super) struct From {
    #[serde(default)]
    offset: u64,
}

/// What another server is answered: the log of a node whose stream is held here, from an offset on.
pub(super) async fn relayed(
    State(server): State<Shared>,
    Path(alloc): Path<String>,
    Query(from): Query<From>,
    headers: HeaderMap,
) -> Answer<Response> {
    if !headers.contains_key(&RELAY_HEADER) {
        return Err(Problem::bad_request(
            "this route is for other servers; read logs below /api/v1/runs",
        ));
    }
    let id = AllocId::new(alloc).ok().and_then(|alloc| LogId::of(&alloc));
    let id = id.ok_or_else(|| Problem::not_found("there is no such allocation"))?;
    let permit = server.streams.clone().try_acquire_owned();
    let permit = permit.map_err(|_| Problem::unavailable("too many streams are open on this server; try again"))?;
    let source = Source {
        reader: server.logs.reader(&id, from.offset),
        log: server.logs.log(&id),
        live: Instant::now(),
        stop: server.deps.shutdown.clone(),
    };
    let frames = source.into_stream().map(move |item| {
        let _held_as_long_as_the_stream = &permit;
        item
    });
    let mut response = Response::new(Body::from_stream(frames));
    let kind = HeaderValue::from_static("application/octet-stream");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(response)
}

/// A log on its way to another server.
struct Source {
    reader: LogReader,
    log: Arc<OpenLog>,
    /// When a node was last seen to send it.
    live: Instant,
    stop: CancellationToken,
}

impl Source {
    fn into_stream(self) -> impl Stream<Item = Result<Bytes, super::LogError>> + Send {
        unfold(Some(self), |source| async move {
            let mut source = source?;
            match source.next().await {
                Ok(Some(frame)) => Some((Ok(frame), Some(source))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
    }

    async fn next(&mut self) -> Result<Option<Bytes>, super::LogError> {
        let alive_at = Instant::now() + ALIVE_EVERY;
        loop {
            let offset = self.reader.offset();
            if let Some(bytes) = self.reader.next().await? {
                return Ok(Some(frame(offset, &bytes)));
            }
            if self.log.live_len().is_some() {
                self.live = Instant::now();
            } else if self.live.elapsed() > NODE_WAIT {
                return Ok(None);
            }
            tokio::select! {
                () = self.reader.changed() => {}
                () = self.stop.cancelled() => return Ok(None),
                () = tokio::time::sleep_until(alive_at) => return Ok(Some(frame(offset, &[]))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_found_however_they_are_cut() {
        let sent = [frame(5, b"hello"), frame(10, b""), frame(10, b" world")].concat();
        for size in [1, 2, 7, 12, 13, 100] {
            let mut frames = Frames::default();
            let mut got = Vec::new();
            for chunk in sent.chunks(size) {
                let taken = frames.take(chunk, |offset, bytes| got.push((offset, bytes.to_vec())));
                assert!(taken.is_ok(), "{size}");
            }
            assert_eq!(got, [(5, b"hello".to_vec()), (10, b" world".to_vec())], "{size}");
            assert!(frames.rest.is_empty());
        }
    }

    #[test]
    fn what_is_no_frame_ends_the_stream_and_fills_no_memory() {
        let mut frames = Frames::default();
        let taken = frames.take(&[0xff; 64], |_, _| panic!("no frame"));
        assert!(matches!(taken, Err(Ended::Frames)));
    }
}
