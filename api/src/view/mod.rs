//! A warm picture of the store: what every read of the interface is answered from.
//!
//! Filled by one watch over all keys, in the store's own order, so that it always is some past
//! state of the store as a whole; a request that has written waits until its write is in it
//! ([`View::wait_for`]). Not here: any write, and what is shown of the picture to whom.

mod picture;
mod run;

pub use picture::{Picture, PipelineKey};
pub use run::{EVENTS_KEPT, EventId, RunEntry, RunEvent, RunEventKind};

use crate::fleet::definitions::{DefinitionError, Definitions};
use crate::metrics::Metrics;
use model::{Allocation, NodeId, NodeRecord, RunDef, RunHeader, RunId, StepRecord, TokenRecord};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::Duration;
use store::live::PAGE_MAX;
use store::{Revision, Store, StoreError, WatchEvent};
use tokio::sync::{Notify, broadcast, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The most changes of one run that wait for one slow reader; it then gets a fresh snapshot.
const RUN_QUEUE: usize = 256;

/// The first wait before the store is asked again after it failed.
const RETRY_MIN: Duration = Duration::from_millis(100);

/// The longest wait before the store is asked again.
const RETRY_MAX: Duration = Duration::from_secs(5);

/// How long a fresh picture waits for the changes that happened while it was read. They are in the
/// watch already, so this is never reached unless the store stalls.
const CATCH_UP: Duration = Duration::from_secs(1);

/// The picture, kept up to date. Clones show the same one.
#[derive(Clone)]
pub struct View {
    inner: Arc<Inner>,
}

struct Inner {
    picture: RwLock<Picture>,
    seen: watch::Sender<Revision>,
    current: AtomicBool,
    readers: Mutex<HashMap<RunId, broadcast::Sender<Arc<RunEvent>>>>,
    inbox: Notify,
    metrics: Metrics,
    /// The server that shows the picture; none: it stands alone.
    server: OnceLock<String>,
}

/// Why following ended.
enum Ended {
    Shutdown,
    Resync,
}

impl View {
    /// An empty picture; [`View::follow`] fills it.
    #[must_use]
    pub fn new(metrics: Metrics) -> Self {
        let (seen, _) = watch::channel(Revision(0));
        Self {
            inner: Arc::new(Inner {
                picture: RwLock::new(Picture::new()),
                seen,
                current: AtomicBool::new(false),
                readers: Mutex::default(),
                inbox: Notify::new(),
                metrics,
                server: OnceLock::new(),
            }),
        }
    }

    /// Says which of several servers shows the picture: what is counted once in the cluster is
    /// counted by the server that holds the node's stream.
    pub fn shown_by(&self, server: &str) {
        // Said once; a second time it is the same.
        let _ = self.inner.server.set(server.to_owned());
    }

    /// Looks at the picture; `look` must be short, for the writer waits meanwhile.
    pub fn read<T>(&self, look: impl FnOnce(&Picture) -> T) -> T {
        look(&self.inner.picture.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// True while the picture is complete and follows the store.
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.inner.current.load(Ordering::Acquire)
    }

    /// The record of the token with this hash.
    #[must_use]
    pub fn token(&self, hash: &str) -> Option<TokenRecord> {
        self.read(|p| p.token(hash).cloned())
    }

    /// A run's header, once the run is whole.
    #[must_use]
    pub fn header(&self, run: &RunId) -> Option<Arc<RunHeader>> {
        self.read(|p| p.run(run)?.header().cloned())
    }

    /// What happened to a step of a run; `None` while nothing has.
    #[must_use]
    pub fn step(&self, run: &RunId, step: usize) -> Option<StepRecord> {
        self.read(|p| p.run(run)?.records().get(&step).cloned())
    }

    /// A run's definition, if the run goes on; the definition of an ended run is read from the
    /// store (`crate::fleet::definitions`).
    #[must_use]
    pub fn held_def(&self, run: &RunId) -> Option<Arc<RunDef>> {
        self.read(|p| p.run(run)?.held_def().cloned())
    }

    /// A run's header and definition, if the run goes on and is whole.
    #[must_use]
    pub fn shown(&self, run: &RunId) -> Option<(Arc<RunHeader>, Arc<RunDef>)> {
        self.read(|p| {
            let run = p.run(run)?;
            Some((run.header()?.clone(), run.held_def()?.clone()))
        })
    }

    /// A node's record.
    #[must_use]
    pub fn node(&self, node: &NodeId) -> Option<Arc<NodeRecord>> {
        self.read(|p| p.nodes().get(node).cloned())
    }

    /// A standing allocation.
    #[must_use]
    pub fn alloc(&self, node: &NodeId, alloc: &str) -> Option<Arc<Allocation>> {
        self.read(|p| p.allocs(node).find(|a| a.id.as_str() == alloc).cloned())
    }

    /// Waits until the picture is complete; false when that takes longer than `at_most`.
    pub async fn wait_until_current(&self, at_most: Duration) -> bool {
        let mut seen = self.inner.seen.subscribe();
        let waited = tokio::time::timeout(at_most, seen.wait_for(|_| self.is_current())).await;
        matches!(waited, Ok(Ok(_)))
    }

    /// Waits until the picture shows `revision`; false when that takes longer than `at_most`.
    pub async fn wait_for(&self, revision: Revision, at_most: Duration) -> bool {
        let mut seen = self.inner.seen.subscribe();
        let waited = tokio::time::timeout(at_most, seen.wait_for(|r| *r >= revision)).await;
        matches!(waited, Ok(Ok(_)))
    }

    /// Waits until the picture is as wanted; false when that takes longer than `at_most`.
    pub async fn wait_until(&self, wanted: impl Fn(&Picture) -> bool, at_most: Duration) -> bool {
        let mut seen = self.inner.seen.subscribe();
        let waited = tokio::time::timeout(at_most, seen.wait_for(|_| self.read(&wanted))).await;
        matches!(waited, Ok(Ok(_)))
    }

    /// Waits until the run is whole; false when that takes longer than `at_most`.
    pub async fn wait_for_run(&self, run: &RunId, at_most: Duration) -> bool {
        let deadline = Instant::now() + at_most;
        loop {
            let mut reader = self.subscribe(run);
            if self.read(|p| p.run(run).is_some()) {
                return true;
            }
            // Whatever comes, also a lagging or a closed reader, means: look again.
            if tokio::time::timeout_at(deadline, reader.recv()).await.is_err() {
                return self.read(|p| p.run(run).is_some());
            }
        }
    }

    /// Waits until triggers have arrived.
    pub async fn inbox_grew(&self) {
        self.inner.inbox.notified().await;
    }

    /// Every change of a run from now on. To miss nothing, subscribe first and look at the picture
    /// afterwards.
    #[must_use]
    pub fn subscribe(&self, run: &RunId) -> RunReader {
        let mut readers = self.inner.readers();
        let sender = readers
            .entry(run.clone())
            .or_insert_with(|| broadcast::channel(RUN_QUEUE).0);
        RunReader {
            events: Some(sender.subscribe()),
            run: run.clone(),
            inner: Arc::clone(&self.inner),
        }
    }

    /// Fills the picture and keeps it up to date until `shutdown`. One task does this.
    pub async fn follow(&self, store: &dyn Store, definitions: &Definitions, shutdown: &CancellationToken) {
        let mut wait = RETRY_MIN;
        loop {
            let ended = tokio::select! {
                () = shutdown.cancelled() => Ok(Ended::Shutdown),
                ended = self.follow_once(store, definitions, &mut wait) => ended,
            };
            self.inner.current.store(false, Ordering::Release);
            match ended {
                Ok(Ended::Shutdown) => return,
                Ok(Ended::Resync) => {
                    self.inner.metrics.view_resyncs.inc();
                    tracing::info!("view reads the store anew");
                }
                Err(error) => {
                    tracing::warn!(%error, "view cannot follow the store");
                    tokio::select! {
                        () = shutdown.cancelled() => return,
                        () = tokio::time::sleep(wait) => {}
                    }
                    wait = (wait * 2).min(RETRY_MAX);
                }
            }
        }
    }

    async fn follow_once(
        &self,
        store: &dyn Store,
        definitions: &Definitions,
        wait: &mut Duration,
    ) -> Result<Ended, StoreError> {
        let (mut picture, first, last) = load(store).await?;
        let mut changes = store.watch("", first).await?;
        let deadline = Instant::now() + CATCH_UP;
        while picture.revision() < last {
            match tokio::time::timeout_at(deadline, changes.recv()).await {
                Ok(Some(WatchEvent::Changes(batch))) => apply(&mut picture, batch),
                Ok(Some(WatchEvent::Resync)) => return Ok(Ended::Resync),
                Ok(None) => return Err(closed()),
                Err(_late) => break,
            }
        }
        picture.begin_here(last);
        self.replace(picture);
        self.fetch_defs(store, definitions).await?;
        self.inner.current.store(true, Ordering::Release);
        *wait = RETRY_MIN;
        self.inner.tell_seen();
        loop {
            match changes.recv().await {
                Some(WatchEvent::Changes(batch)) => {
                    self.inner.change(|picture| apply(picture, batch));
                    self.fetch_defs(store, definitions).await?;
                    self.inner.tell_seen();
                }
                Some(WatchEvent::Resync) => return Ok(Ended::Resync),
                None => return Err(closed()),
            }
        }
    }

    fn replace(&self, fresh: Picture) {
        *self.inner.picture.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        // Readers of runs find their channel closed and look at the whole run again.
        self.inner.readers().clear();
        self.inner.inbox.notify_one();
    }

    /// Reads the definitions of runs that cannot be settled without, e.g. because an ended run moved.
    async fn fetch_defs(&self, store: &dyn Store, definitions: &Definitions) -> Result<(), StoreError> {
        for run in self.read(Picture::wanted_defs) {
            let def = match definitions.get(store, &run).await {
                Ok(found) => Some(found.def.clone()),
                Err(DefinitionError::Store(error)) => return Err(error),
                Err(error) => {
                    tracing::error!(run_id = %run, %error, "run definition cannot be used");
                    None
                }
            };
            self.inner.change(|picture| picture.put_def(&run, def));
        }
        Ok(())
    }
}

impl Inner {
    fn readers(&self) -> MutexGuard<'_, HashMap<RunId, broadcast::Sender<Arc<RunEvent>>>> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the picture and tells the readers of the runs that moved.
    fn change(&self, change: impl FnOnce(&mut Picture)) {
        let (events, inbox_grew) = {
            let mut picture = self.picture.write().unwrap_or_else(PoisonError::into_inner);
            change(&mut picture);
            let events = picture.settle();
            for seconds in picture.take_first_instructions(self.server.get()) {
                self.metrics.trigger_to_first_instruction_seconds.observe(seconds);
            }
            (events, picture.take_inbox_grew())
        };
        if inbox_grew {
            self.inbox.notify_one();
        }
        let readers = self.readers();
        for (run, events) in events {
            let Some(sender) = readers.get(&run) else { continue };
            for event in events {
                // Fails only when nobody listens any more.
                let _ = sender.send(event);
            }
        }
    }

    fn tell_seen(&self) {
        let picture = self.picture.read().unwrap_or_else(PoisonError::into_inner);
        self.metrics.inbox.set(to_gauge(picture.inbox().len()));
        self.metrics.nodes_connected.set(to_gauge(picture.connected()));
        self.seen.send_replace(picture.revision());
    }
}

fn to_gauge(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// A subscription to one run's changes.
pub struct RunReader {
    /// Taken only when dropped.
    events: Option<broadcast::Receiver<Arc<RunEvent>>>,
    run: RunId,
    inner: Arc<Inner>,
}

/// The reader has missed changes: look at the whole run again, with a new reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Missed;

impl RunReader {
    /// The next change.
    ///
    /// # Errors
    /// [`Missed`] when this reader was too slow or the picture was read anew.
    pub async fn recv(&mut self) -> Result<Arc<RunEvent>, Missed> {
        match &mut self.events {
            Some(events) => events.recv().await.map_err(|_| Missed),
            None => Err(Missed),
        }
    }
}

impl Drop for RunReader {
    fn drop(&mut self) {
        let mut readers = self.inner.readers();
        self.events = None;
        if readers.get(&self.run).is_some_and(|s| s.receiver_count() == 0) {
            readers.remove(&self.run);
        }
    }
}

fn closed() -> StoreError {
    StoreError::Unavailable("the watch has ended".to_owned())
}

fn apply(picture: &mut Picture, batch: Vec<store::Change>) {
    let already = picture.revision();
    for change in batch {
        // A watch may deliver a change more than once.
        if change.revision > already {
            picture.apply(&change.key, change.value.as_deref(), change.revision);
        }
    }
}

/// Reads everything, page by page, keeping only what the picture keeps. Answers the revisions of
/// the first page, from which to watch, and of the last one, before which the picture is not one
/// state of the store.
async fn load(store: &dyn Store) -> Result<(Picture, Revision, Revision), StoreError> {
    let mut picture = Picture::new();
    let (mut first, mut after) = (None, None);
    loop {
        let page = store.range("", after.as_deref(), PAGE_MAX).await?;
        let from = *first.get_or_insert(page.revision);
        for entry in &page.entries {
            picture.apply_read(entry, from);
        }
        after = page.entries.last().map(|e| e.key.clone());
        if !page.more || after.is_none() {
            return Ok((picture, from, page.revision));
        }
    }
}
