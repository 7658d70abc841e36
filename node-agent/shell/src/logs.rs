//! Ships each step's log from its file to the server as it grows.
//!
//! The file is the only buffer: a piece of at most [`wire::LOG_DATA_MAX`] bytes is read when the
//! stream has room for it, whatever steps print and however slow the server is.
//!
//! Not here: which bytes are to be sent (`node_agent::LogShip`), and who writes the file.

use crate::blocking::{blocking, now_ms};
use crate::metrics::AgentMetrics;
use crate::readable::Readable;
use crate::session::Out;
use crate::wire_form;
use model::{AllocId, Fence};
use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use node_agent::{LogShip, LogStep};
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// How long a file is believed not to have grown without looking, in case a signal was lost.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// The same where the kernel has no watch left to give.
const LOOK_AGAIN_UNWATCHED: Duration = Duration::from_millis(200);

/// How long a file that cannot be read rests.
const READ_AGAIN: Duration = Duration::from_secs(1);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tells of files that grow. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Tails(Option<Arc<Watcher>>);

struct Watcher {
    inotify: Readable<Inotify>,
    wakes: Mutex<HashMap<WatchDescriptor, Arc<Notify>>>,
}

/// Ends the watch of a file when it is dropped.
struct Tail(Option<(Arc<Watcher>, WatchDescriptor)>);

impl Drop for Tail {
    fn drop(&mut self) {
        if let Some((watcher, watch)) = &self.0 {
            lock(&watcher.wakes).remove(watch);
            // It is gone already when the file was removed.
            let _ = watcher.inotify.get().rm_watch(*watch);
        }
    }
}

impl Tails {
    /// One kernel object for all files. Without it, files are looked at instead.
    pub(crate) fn new() -> Self {
        let init = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC);
        match init.map_err(io::Error::from).and_then(Readable::new) {
            Ok(inotify) => Self(Some(Arc::new(Watcher {
                inotify,
                wakes: Mutex::default(),
            }))),
            Err(e) => {
                tracing::warn!(error = %e, "logs cannot be watched, they are looked at; raise fs.inotify.max_user_instances");
                Self(None)
            }
        }
    }

    /// Passes signals on for as long as it is polled.
    pub(crate) async fn keep_watching(self) {
        let Some(watcher) = self.0 else { return };
        while let Ok(mut ready) = watcher.inotify.readable().await {
            match watcher.inotify.get().read_events() {
                Ok(events) => {
                    let wakes = lock(&watcher.wakes);
                    if events.iter().any(|e| e.mask.contains(AddWatchFlags::IN_Q_OVERFLOW)) {
                        wakes.values().for_each(|wake| wake.notify_one());
                    }
                    for wake in events.iter().filter_map(|event| wakes.get(&event.wd)) {
                        wake.notify_one();
                    }
                }
                Err(Errno::EAGAIN) => ready.clear_ready(),
                Err(Errno::EINTR) => {}
                Err(e) => {
                    tracing::error!(error = %e, "watch of the logs failed");
                    return;
                }
            }
        }
    }

    fn watch(&self, path: &Path, wake: Arc<Notify>) -> Tail {
        let Some(watcher) = &self.0 else { return Tail(None) };
        let mut wakes = lock(&watcher.wakes);
        let flags = AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CLOSE_WRITE;
        match watcher.inotify.get().add_watch(path, flags) {
            Ok(watch) => {
                wakes.insert(watch, wake);
                Tail(Some((watcher.clone(), watch)))
            }
            Err(e) => {
                if e != Errno::ENOENT {
                    tracing::warn!(path = %path.display(), error = %e, "log cannot be watched, it is looked at");
                }
                Tail(None)
            }
        }
    }
}

/// One log on its way. The agent's loop tells it what the server says; its task sends.
pub(crate) struct Shipment {
    alloc: AllocId,
    fence: Fence,
    path: PathBuf,
    state: Mutex<State>,
    wake: Arc<Notify>,
}

#[derive(Default)]
struct State {
    ship: LogShip,
    /// The stream that `ship` speaks of.
    out: Option<Out>,
}

impl Shipment {
    pub(crate) fn new(alloc: AllocId, fence: Fence, path: PathBuf) -> Self {
        Self {
            alloc,
            fence,
            path,
            state: Mutex::default(),
            wake: Arc::new(Notify::new()),
        }
    }

    fn tell(&self, change: impl FnOnce(&mut State)) {
        change(&mut lock(&self.state));
        self.wake.notify_one();
    }

    pub(crate) fn connected(&self, out: Out) {
        self.tell(|state| {
            state.ship.connected();
            state.out = Some(out);
        });
    }

    pub(crate) fn disconnected(&self) {
        self.tell(|state| {
            state.ship.disconnected();
            state.out = None;
        });
    }

    pub(crate) fn from(&self, offset: u64) {
        self.tell(|state| state.ship.from(offset));
    }

    pub(crate) fn acked(&self, offset: u64, complete: bool) {
        self.tell(|state| state.ship.acked(offset, complete));
    }

    pub(crate) fn sealed(&self, bytes: u64) {
        self.tell(|state| state.ship.sealed(bytes));
    }

    /// Sends until the server has the whole log.
    pub(crate) async fn ship(&self, tails: Tails, metrics: AgentMetrics) {
        let mut file = None;
        let mut tail = Tail(None);
        loop {
            if file.is_none() {
                // Watched before it is looked at: what comes between wakes us.
                tail = tails.watch(&self.path, self.wake.clone());
                file = File::open(&self.path).ok().map(Arc::new);
            }
            let size = file
                .as_ref()
                .and_then(|file| file.metadata().ok())
                .map_or(0, |m| m.len());
            let (step, deadline_ms, out) = self.next(size);
            match (step, out) {
                (LogStep::Complete, _) => return,
                (LogStep::Open, Some(out)) => out.control(wire_form::log_open(&self.alloc, self.fence)).await,
                (LogStep::Send { offset, len, end }, Some(out)) => {
                    let Some(room) = out.room_for_log().await else { continue };
                    match read(file.as_ref(), offset, len).await {
                        Ok(bytes) => {
                            metrics.log_bytes.inc_by(len);
                            room.send(wire_form::log_data(&self.alloc, offset, bytes, end));
                        }
                        Err(e) => self.start_over(&e).await,
                    }
                }
                _ => self.wait(deadline_ms, tail.0.is_some()).await,
            }
        }
    }

    fn next(&self, size: u64) -> (LogStep, Option<u64>, Option<Out>) {
        let mut state = lock(&self.state);
        state.ship.grown(size);
        let step = state.ship.next(now_ms(), wire::LOG_DATA_MAX as u64);
        (step, state.ship.deadline_ms(), state.out.clone())
    }

    async fn wait(&self, deadline_ms: Option<u64>, watched: bool) {
        let look = if watched { LOOK_AGAIN } else { LOOK_AGAIN_UNWATCHED };
        let until = deadline_ms.map_or(look, |at| {
            look.min(Duration::from_millis(at.saturating_sub(now_ms()) + 1))
        });
        // Time is no error here: looking again is what it is for.
        let _ = tokio::time::timeout(until, self.wake.notified()).await;
    }

    /// Bytes that were counted as sent were not: ask the server anew where it stands.
    async fn start_over(&self, e: &io::Error) {
        tracing::error!(alloc_id = %self.alloc, path = %self.path.display(), error = %e, "log cannot be read");
        tokio::time::sleep(READ_AGAIN).await;
        let mut state = lock(&self.state);
        if state.out.is_some() {
            state.ship.connected();
        }
    }
}

async fn read(file: Option<&Arc<File>>, offset: u64, len: u64) -> io::Result<Vec<u8>> {
    if len == 0 {
        return Ok(Vec::new());
    }
    let file = file.ok_or(io::ErrorKind::NotFound)?.clone();
    let len = usize::try_from(len).map_err(io::Error::other)?;
    blocking(move || {
        let mut bytes = vec![0; len];
        file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    })
    .await
}

/// Ends a log that nobody writes to any more, with a line of ours if one is given, and tells its
/// length. The log is made if there is none. What cannot be written is left out. Blocking.
pub(crate) fn close(path: &Path, line: Option<&str>) -> u64 {
    if let Err(e) = line.map_or(Ok(()), |line| append(path, line)) {
        tracing::warn!(path = %path.display(), error = %e, "last line of the log cannot be written");
    }
    std::fs::metadata(path).map_or(0, |m| m.len())
}

fn append(path: &Path, line: &str) -> io::Result<()> {
    use std::io::Write;
    let mut file = File::options().append(true).read(true).create(true).open(path)?;
    let size = file.metadata()?.len();
    let mut last = [b'\n'];
    if size > 0 {
        file.read_exact_at(&mut last, size - 1)?;
    }
    let start = if last == [b'\n'] { "" } else { "\n" };
    file.write_all(format!("{start}{line}\n").as_bytes())?;
    file.sync_all()
}
