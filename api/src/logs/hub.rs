//! The logs that somebody writes or reads at the moment, and their way into blobs.
//!
//! Bytes of a node are shown to readers at once, stored in chunks, and acknowledged when they are
//! stored. Memory is bounded for each log and in all: what finds no room is dropped and asked for
//! again by its offset, so that a slow blob store never holds up a node's renewals. Not here: the
//! offsets themselves (`api_core::logs`), who may write (`fleet`), the readers' way (`reader`).

use super::board::{Board, Reply};
use super::metrics::LogMetrics;
use super::window::Window;
use super::{Cover, merge, reader::LogReader, sized};
use api_core::logs::{LogId, Tape, Verdict};
use axum::body::Bytes;
use model::AllocId;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use store::{BlobError, BlobName, BlobStore};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Most chunks that are being stored at once: enough to fill a disk's queue or an object store's
/// latency, and few enough not to keep every thread busy.
const PUTS_MAX: usize = 64;

/// The most bytes of one blob while a log grows: what has piled up is stored in few blobs.
const CHUNK_MAX: u64 = 1024 * 1024;

/// How many stored bytes stay in memory for the readers of a log, so that one who follows live
/// does not read blobs.
const KEEP_FOR_READERS: u64 = 512 * 1024;

/// The first and the longest pause after a chunk could not be stored.
const RETRY_PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// How often a log that had no room looks for some.
const ROOM_POLL: Duration = Duration::from_millis(200);

/// How long [`LogHub::stop`] waits for the last chunks.
const STOP_WAIT: Duration = Duration::from_secs(8);

/// How often a chunk is tried once the hub is being stopped.
const STOP_TRIES: u32 = 5;

/// What bounds a hub.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// A chunk is stored when it has so many bytes …
    pub chunk_bytes: u64,
    /// … or is so old.
    pub chunk_age: Duration,
    /// Most bytes of all logs in memory.
    pub held_bytes: u64,
    /// A log with more blobs than this is merged when it has ended.
    pub merge_above: usize,
}

impl Default for Limits {
    /// 256 KiB, 1 s, 256 MiB, 16 blobs.
    fn default() -> Self {
        Self {
            chunk_bytes: 256 * 1024,
            chunk_age: Duration::from_secs(1),
            held_bytes: 256 * 1024 * 1024,
            merge_above: 16,
        }
    }
}

/// Why a log could not be opened or read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Not an allocation of ours.
    #[error("`{0}` is not the id of an allocation")]
    NoAllocation(AllocId),
    /// The blobs failed.
    #[error(transparent)]
    Blobs(#[from] BlobError),
    /// Bytes that were there when the reading began are not there any more.
    #[error("log {log} has no bytes from {offset} on any more")]
    Short {
        /// Which log.
        log: LogId,
        /// From where on.
        offset: u64,
    },
}

/// The open logs of one server. Clones share them.
#[derive(Clone)]
pub struct LogHub {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) blobs: Arc<dyn BlobStore>,
    open: Mutex<HashMap<LogId, Weak<OpenLog>>>,
    held: AtomicU64,
    puts: Semaphore,
    pub(super) merges: Semaphore,
    pub(super) metrics: LogMetrics,
    limits: Limits,
    pub(super) stopping: CancellationToken,
    tasks: TaskTracker,
    serials: AtomicU64,
}

/// A log that somebody writes or reads. It leaves the hub with its last user.
pub(super) struct OpenLog {
    id: LogId,
    hub: Weak<Inner>,
    state: Mutex<State>,
    /// One at a time finds out what is stored.
    loading: tokio::sync::Mutex<()>,
    /// Grows with every change that a reader may care for.
    changed: watch::Sender<u64>,
    /// Wakes the storing task.
    wake: Notify,
    readers: AtomicUsize,
    /// What is stored, for readers, and when it was listed.
    listed: tokio::sync::Mutex<Option<(Instant, Arc<Cover>)>>,
}

#[derive(Default)]
struct State {
    /// While a node writes: from its opening until it is complete, or the node is gone and
    /// everything received is stored.
    tape: Option<Tape>,
    /// While it comes from another server.
    relayed: Option<Window>,
    writer: Option<Writer>,
    /// When the oldest byte came that is not stored.
    oldest: Option<Instant>,
    /// What of `Inner::held` is this log's.
    held: u64,
}

struct Writer {
    serial: u64,
    alloc: AllocId,
    board: Arc<Board>,
}

impl Writer {
    fn ack(&self, tape: &Tape) {
        self.board.post(Reply::Ack {
            alloc: self.alloc.clone(),
            offset: tape.stored_to(),
            complete: tape.is_complete(),
        });
    }

    fn from(&self, offset: u64) {
        self.board.post(Reply::From {
            alloc: self.alloc.clone(),
            offset,
        });
    }
}

/// What may be stored of a log that is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stored {
    Unknown,
    Nothing,
}

/// What the storing task does next.
enum Plan {
    /// Take a chunk now.
    Store,
    /// Take one then, if nothing happens before.
    At(Instant),
    /// Wait for bytes.
    Idle,
    /// Nothing is left to store and nobody writes.
    Done {
        /// The log is whole.
        complete: bool,
    },
}

impl LogHub {
    /// An empty hub over `blobs`.
    #[must_use]
    pub fn new(blobs: Arc<dyn BlobStore>, limits: Limits, metrics: LogMetrics) -> Self {
        Self {
            inner: Arc::new(Inner {
                blobs,
                open: Mutex::default(),
                held: AtomicU64::new(0),
                puts: Semaphore::new(PUTS_MAX),
                merges: Semaphore::new(1),
                metrics,
                limits,
                stopping: CancellationToken::new(),
                tasks: TaskTracker::new(),
                serials: AtomicU64::new(0),
            }),
        }
    }

    /// Opens an allocation's log for the node that writes it. The offset to send from is posted to
    /// `board`, as is every acknowledgement. A newer writer of the same log takes its place.
    ///
    /// # Errors
    /// [`LogError`] when what is stored cannot be listed; opening again later may succeed.
    pub async fn open(&self, alloc: &AllocId, board: Arc<Board>) -> Result<LogWriter, LogError> {
        self.open_with(alloc, board, Stored::Unknown).await
    }

    /// As [`LogHub::open`], for a log of which nobody can have stored anything yet: most logs, and
    /// what is stored need not be looked up.
    ///
    /// # Errors
    /// As [`LogHub::open`].
    pub async fn open_first(&self, alloc: &AllocId, board: Arc<Board>) -> Result<LogWriter, LogError> {
        self.open_with(alloc, board, Stored::Nothing).await
    }

    async fn open_with(&self, alloc: &AllocId, board: Arc<Board>, stored: Stored) -> Result<LogWriter, LogError> {
        let id = LogId::of(alloc).ok_or_else(|| LogError::NoAllocation(alloc.clone()))?;
        let log = self.inner.entry(&id);
        let _one_at_a_time = log.loading.lock().await;
        let serial = self.inner.serials.fetch_add(1, Ordering::Relaxed);
        let writer = Writer {
            serial,
            alloc: alloc.clone(),
            board,
        };
        let hand = LogWriter {
            hub: self.inner.clone(),
            log: log.clone(),
            serial,
        };
        let Some(writer) = log.take_over(writer) else {
            return Ok(hand);
        };
        let stored = match stored {
            Stored::Nothing => 0,
            Stored::Unknown => Cover::of(self.inner.blobs.list(&id.prefix()).await?.into_iter().map(sized)).len(),
        };
        log.state().tape = Some(Tape::new(stored));
        log.take_over(writer);
        self.inner.tasks.spawn(store_chunks(self.inner.clone(), log.clone()));
        Ok(hand)
    }

    /// A log that somebody reads or writes here.
    pub(super) fn log(&self, id: &LogId) -> Arc<OpenLog> {
        self.inner.entry(id)
    }

    /// A reader of a log from `offset` on.
    #[must_use]
    pub fn reader(&self, id: &LogId, offset: u64) -> LogReader {
        LogReader::new(self.inner.clone(), self.inner.entry(id), offset)
    }

    /// Stores everything that was received and ends the storing tasks; waits for it, at most some
    /// seconds. Close the nodes' sessions before.
    pub async fn stop(&self) {
        self.inner.stopping.cancel();
        self.inner.tasks.close();
        if tokio::time::timeout(STOP_WAIT, self.inner.tasks.wait()).await.is_err() {
            tracing::warn!(
                held_bytes = self.inner.held.load(Ordering::Relaxed),
                "some log bytes could not be stored before the end; the nodes will send them again"
            );
        }
    }
}

impl Inner {
    fn entry(self: &Arc<Self>, id: &LogId) -> Arc<OpenLog> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(log) = open.get(id).and_then(Weak::upgrade) {
            return log;
        }
        let log = Arc::new(OpenLog {
            id: id.clone(),
            hub: Arc::downgrade(self),
            state: Mutex::default(),
            loading: tokio::sync::Mutex::new(()),
            changed: watch::Sender::new(0),
            wake: Notify::new(),
            readers: AtomicUsize::new(0),
            listed: tokio::sync::Mutex::new(None),
        });
        open.insert(id.clone(), Arc::downgrade(&log));
        self.metrics.open.set(i64::try_from(open.len()).unwrap_or(i64::MAX));
        log
    }

    fn has_room(&self) -> bool {
        self.held.load(Ordering::Relaxed) < self.limits.held_bytes && !self.stopping.is_cancelled()
    }

    /// How many stored bytes of a log stay in memory.
    fn keep(&self, log: &OpenLog) -> u64 {
        let plenty = self.held.load(Ordering::Relaxed) < self.limits.held_bytes / 2;
        if plenty && log.readers.load(Ordering::Relaxed) > 0 {
            KEEP_FOR_READERS
        } else {
            0
        }
    }

    /// Takes note of what a log holds in memory now.
    fn account(&self, state: &mut State) {
        let now = state.tape.as_ref().map_or(0, Tape::held);
        let before = std::mem::replace(&mut state.held, now);
        self.held.fetch_add(now.wrapping_sub(before), Ordering::Relaxed);
        self.metrics
            .held_bytes
            .set(i64::try_from(self.held.load(Ordering::Relaxed)).unwrap_or(i64::MAX));
    }
}

impl OpenLog {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes `writer` the one whose bytes count, and tells it where to begin; gives it back when
    /// it is not known what is stored.
    fn take_over(&self, writer: Writer) -> Option<Writer> {
        let mut state = self.state();
        let Some(tape) = state.tape.as_mut() else {
            return Some(writer);
        };
        writer.from(tape.reopened());
        state.writer = Some(writer);
        drop(state);
        self.wake.notify_one();
        None
    }

    pub(super) fn id(&self) -> &LogId {
        &self.id
    }

    fn changed(&self) {
        self.changed.send_modify(|n| *n = n.wrapping_add(1));
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.readers.fetch_add(1, Ordering::Relaxed);
        self.changed.subscribe()
    }

    pub(super) fn unsubscribe(&self) {
        self.readers.fetch_sub(1, Ordering::Relaxed);
    }

    /// Live bytes from `offset` on: `Some(Some(_))`; `Some(None)`: the reader is at the live end;
    /// `None`: they are, if anywhere, among the blobs.
    pub(super) fn live(&self, offset: u64, max: u64) -> Option<Option<Bytes>> {
        let state = self.state();
        let Some(tape) = state.tape.as_ref() else {
            let window = state.relayed.as_ref()?;
            let at_end = (offset == window.to()).then_some(None);
            return window.piece(offset, max).map(Some).or(at_end);
        };
        match tape.piece(offset, max) {
            Some(piece) => Some(Some(piece)),
            None if offset >= tape.received_to() => Some(None),
            None => None,
        }
    }

    /// From here on its bytes come from another server.
    pub(super) fn relay_begin(&self, from: u64) {
        self.state().relayed = Some(Window::new(from));
        self.changed();
    }

    /// Bytes from another server.
    pub(super) fn relay_push(&self, offset: u64, bytes: Bytes) {
        if let Some(window) = self.state().relayed.as_mut() {
            window.push(offset, bytes);
        }
        self.changed();
    }

    /// Nothing more comes from there.
    pub(super) fn relay_end(&self) {
        self.state().relayed = None;
        self.changed();
    }

    /// The length that a node has sent so far; `None` when none writes at the moment.
    pub(super) fn live_len(&self) -> Option<u64> {
        self.state().tape.as_ref().map(Tape::received_to)
    }

    /// What is stored, listed at most `age` ago.
    pub(super) async fn cover(&self, blobs: &dyn BlobStore, age: Duration) -> Result<Arc<Cover>, BlobError> {
        let mut listed = self.listed.lock().await;
        if let Some((at, cover)) = listed.as_ref()
            && at.elapsed() < age
        {
            return Ok(cover.clone());
        }
        let cover = Arc::new(Cover::of(blobs.list(&self.id.prefix()).await?.into_iter().map(sized)));
        *listed = Some((Instant::now(), cover.clone()));
        Ok(cover)
    }

    fn plan(&self, hub: &Inner) -> Plan {
        let mut state = self.state();
        let State {
            tape, writer, oldest, ..
        } = &mut *state;
        let Some(open) = tape.as_mut() else {
            return Plan::Done { complete: false };
        };
        if let Some(writer) = writer
            && open.quench(hub.has_room())
        {
            writer.from(open.stored_to());
        }
        let stopping = hub.stopping.is_cancelled();
        if open.unstored() == 0 {
            let complete = open.is_complete();
            if !complete && !stopping && writer.is_some() {
                return Plan::Idle;
            }
            *tape = None;
            *oldest = None;
            hub.account(&mut state);
            return Plan::Done { complete };
        }
        let due = oldest.map_or_else(Instant::now, |t| t + hub.limits.chunk_age);
        let now = open.unstored() >= hub.limits.chunk_bytes
            || open.is_ended()
            || writer.is_none()
            || stopping
            || due <= Instant::now();
        if now { Plan::Store } else { Plan::At(due) }
    }

    fn is_thirsty(&self) -> bool {
        self.state().tape.as_ref().is_some_and(Tape::is_thirsty)
    }
}

impl Drop for OpenLog {
    fn drop(&mut self) {
        let Some(hub) = self.hub.upgrade() else { return };
        hub.held.fetch_sub(self.state().held, Ordering::Relaxed);
        let mut open = hub.open.lock().unwrap_or_else(PoisonError::into_inner);
        // A new one may have taken its place between the last user's end and now.
        if open.get(&self.id).is_some_and(|log| log.strong_count() == 0) {
            open.remove(&self.id);
        }
        hub.metrics.open.set(i64::try_from(open.len()).unwrap_or(i64::MAX));
    }
}

/// A node's hand on a log. Dropping it lets go; what was received is still stored.
pub struct LogWriter {
    hub: Arc<Inner>,
    log: Arc<OpenLog>,
    serial: u64,
}

impl LogWriter {
    /// Bytes from the node, `offset` being that of the first one; with `end` the log ends with them.
    /// Never waits: what finds no room is asked for again.
    pub fn data(&self, offset: u64, bytes: Bytes, end: bool) {
        let room = self.hub.has_room();
        let mut state = self.log.state();
        let State {
            tape: Some(tape),
            writer: Some(writer),
            oldest,
            ..
        } = &mut *state
        else {
            return;
        };
        if writer.serial != self.serial {
            return;
        }
        match tape.accept(offset, bytes, end, room) {
            Verdict::Fresh(count) => {
                self.hub.metrics.bytes_in.inc_by(count);
                oldest.get_or_insert_with(Instant::now);
            }
            Verdict::Known => writer.ack(tape),
            Verdict::Gap => writer.from(tape.stored_to()),
            Verdict::Waiting => return,
            Verdict::Full => self.hub.metrics.turned_away.inc(),
        }
        self.hub.account(&mut state);
        drop(state);
        self.log.changed();
        self.log.wake.notify_one();
    }

    /// Asks the node again to send from what is stored.
    pub fn resume(&self) {
        let mut state = self.log.state();
        if let State {
            tape: Some(tape),
            writer: Some(writer),
            ..
        } = &mut *state
            && writer.serial == self.serial
        {
            writer.from(tape.reopened());
        }
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        let mut state = self.log.state();
        if state.writer.as_ref().is_some_and(|w| w.serial == self.serial) {
            state.writer = None;
            drop(state);
            self.log.wake.notify_one();
        }
    }
}

/// Stores one log's chunks until nothing is left to store and nobody writes.
async fn store_chunks(hub: Arc<Inner>, log: Arc<OpenLog>) {
    loop {
        match log.plan(&hub) {
            Plan::Store => store_chunk(&hub, &log).await,
            Plan::At(due) => tokio::select! {
                () = log.wake.notified() => {}
                () = tokio::time::sleep_until(due) => {}
                () = hub.stopping.cancelled() => {}
            },
            Plan::Idle => {
                let poll = async {
                    if log.is_thirsty() {
                        tokio::time::sleep(ROOM_POLL).await;
                    } else {
                        std::future::pending::<()>().await;
                    }
                };
                tokio::select! {
                    () = log.wake.notified() => {}
                    () = poll => {}
                    () = hub.stopping.cancelled() => {}
                }
            }
            Plan::Done { complete } => {
                *log.listed.lock().await = None;
                log.changed();
                if complete && !hub.stopping.is_cancelled() {
                    merge::after_end(&hub, &log.id, hub.limits.merge_above).await;
                }
                return;
            }
        }
    }
}

async fn store_chunk(hub: &Inner, log: &OpenLog) {
    let (batch, since) = {
        let mut state = log.state();
        let since = state.oldest.take().unwrap_or_else(Instant::now);
        (state.tape.as_mut().and_then(|tape| tape.take(CHUNK_MAX)), since)
    };
    let Some(batch) = batch else { return };
    let stored = put_until_stored(hub, &log.id, batch.offset, batch.bytes).await;
    let mut state = log.state();
    let keep = hub.keep(log);
    if stored {
        hub.metrics.stored_seconds.observe(since.elapsed().as_secs_f64());
        if let Some(tape) = state.tape.as_mut() {
            tape.stored();
            tape.trim(keep);
            if tape.unstored() > 0 && state.oldest.is_none() {
                state.oldest = Some(Instant::now());
            }
        }
        if let State {
            tape: Some(tape),
            writer: Some(writer),
            ..
        } = &*state
        {
            writer.ack(tape);
        }
    } else {
        // The hub ends and the blobs fail: nothing of this was acknowledged, the node has it.
        state.tape = None;
    }
    hub.account(&mut state);
}

/// Tries until the bytes are stored; gives up only while the hub is being stopped.
async fn put_until_stored(hub: &Inner, id: &LogId, offset: u64, bytes: Vec<u8>) -> bool {
    let (mut pause, longest) = RETRY_PAUSES;
    let mut tries = 0;
    loop {
        let result = match BlobName::new(id.blob(offset, bytes.len() as u64)) {
            Ok(name) => {
                let _permit = hub.puts.acquire().await;
                hub.blobs.put(&name, bytes.clone()).await
            }
            Err(error) => Err(error),
        };
        let Err(error) = result else { return true };
        tries += 1;
        if tries == 1 {
            hub.metrics.store_failures.inc();
        }
        tracing::warn!(log = %id, offset, tries, %error, "log chunk not stored, will be tried again");
        if hub.stopping.is_cancelled() && tries >= STOP_TRIES {
            return false;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(longest);
    }
}
