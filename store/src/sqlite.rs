//! The live store in one folder: SQLite with a write-ahead log, one writer, many readers.
//!
//! One thread owns all writes. It takes every transaction that waits, applies them in one SQLite
//! transaction and answers them all after one fsync: a lone commit costs one fsync, and a crowd
//! shares it. Readers have connections of their own and never wait for the writer.
//!
//! **Leases and clocks.** The disk holds which leases there are and their time to live, but no
//! moment of expiry. While the process runs, leases are counted on a monotonic clock; when a store
//! is opened each lease that was alive begins its whole time anew. So a wall clock that stops,
//! jumps or was wrong during the restart can never end a claim early; the price is that a claim
//! whose holder died together with the store lasts up to one time to live longer. Renewing a lease
//! needs no write.
//!
//! **Watches** are served from the newest changes in memory. All watchers live in this process, so
//! after a restart each reads anew, and one that asks for a revision of before is told so.
//!
//! Not here: more than one process on one folder (a second one is refused), and blobs.

mod leases;
mod reader;
mod schema;
mod writer;

use crate::changes::WatchHub;
use crate::durable::make_folder;
use crate::legal;
use crate::live::{Commit, Entry, Guard, LeaseId, Page, Revision, Store, StoreError, Txn, Watch};
use async_trait::async_trait;
use leases::LeaseTable;
use reader::Readers;
use std::fs::{File, TryLockError};
use std::io::{Read, Seek, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use tokio::sync::{Semaphore, oneshot};
use writer::{Ask, Job, Writer};

/// The most calls that wait for the writer; more wait for a place, which slows their callers down.
const WAITING_MAX: usize = 1_024;

/// The database's file in the store's folder.
const DATABASE_FILE: &str = "live.db";

/// The file that is locked while a process has the folder open; it holds that process's id.
const LOCK_FILE: &str = "live.lock";

/// The embedded engine. See the module's text.
#[derive(Debug)]
pub struct SqliteStore {
    asks: Option<mpsc::Sender<Job>>,
    places: Arc<Semaphore>,
    readers: Arc<Readers>,
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

/// What the writer and the callers both touch, never across a disk access.
#[derive(Debug)]
struct Shared {
    hub: Mutex<WatchHub>,
    leases: Mutex<LeaseTable>,
    durable_writes: AtomicU64,
}

impl Shared {
    fn hub(&self) -> MutexGuard<'_, WatchHub> {
        self.hub.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leases(&self) -> MutexGuard<'_, LeaseTable> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The folder's lock; dropping it frees the folder.
#[derive(Debug)]
struct FolderLock {
    _file: File,
}

impl SqliteStore {
    /// Opens the store in `folder`, making both if they are not there. Blocks for some fsyncs.
    ///
    /// # Errors
    /// [`StoreError::Failed`] that says what to do: another process has the folder open, the file
    /// is damaged, of a newer release or not ours, the folder cannot be written.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self, StoreError> {
        let folder = folder.as_ref();
        let lock = lock_folder(folder)?;
        let file = folder.join(DATABASE_FILE);
        let connection = schema::open_for_writing(&file)?;
        let state = schema::load(&connection, &file)?;
        let shared = Arc::new(Shared {
            hub: Mutex::new(WatchHub::starting_at(state.revision)),
            leases: Mutex::new(LeaseTable::restarted(&state.leases)),
            durable_writes: AtomicU64::new(0),
        });
        let readers = Arc::new(Readers::open(&file)?);
        let (asks, waiting) = mpsc::channel();
        let writer = Writer::new(connection, file, Arc::clone(&shared), state);
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || {
                writer.run(&waiting);
                drop(lock);
            })
            .map_err(|e| StoreError::Failed(format!("no thread for the store: {e}")))?;
        Ok(Self {
            asks: Some(asks),
            places: Arc::new(Semaphore::new(WAITING_MAX)),
            readers,
            shared,
            writer: Some(thread),
        })
    }

    /// How many times the disk was waited for since the store was opened: with many writers far
    /// fewer than transactions.
    #[must_use]
    pub fn durable_writes(&self) -> u64 {
        self.shared.durable_writes.load(Ordering::Relaxed)
    }

    /// Hands a call to the writer and waits for its answer.
    async fn ask<T>(
        &self,
        make: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Ask + Send,
    ) -> Result<T, StoreError> {
        let stopped = || StoreError::Unavailable("it is shutting down".to_owned());
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(|_| stopped())?;
        let (answer, answered) = oneshot::channel();
        let job = Job {
            ask: make(answer),
            _place: place,
        };
        let asks = self.asks.as_ref().ok_or_else(stopped)?;
        asks.send(job).map_err(|_| stopped())?;
        answered.await.map_err(|_| stopped())?
    }
}

impl Drop for SqliteStore {
    /// Waits for the writer to finish what it was asked, so that the folder is free afterwards.
    fn drop(&mut self) {
        self.asks = None;
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("store writer panicked");
        }
        self.shared.hub().close();
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        legal::key(key)?;
        let key = key.to_owned();
        self.readers.read(move |c| reader::get(c, &key)).await
    }

    async fn range(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page, StoreError> {
        legal::range(prefix, after, limit)?;
        let (prefix, after) = (prefix.to_owned(), after.map(str::to_owned));
        self.readers
            .read(move |c| reader::range(c, &prefix, after.as_deref(), limit))
            .await
    }

    async fn commit(&self, txn: Txn) -> Result<Commit, StoreError> {
        let mut commits = self.commit_batch(Vec::new(), vec![txn]).await?;
        Ok(commits.remove(0))
    }

    async fn commit_batch(&self, outer: Vec<Guard>, txns: Vec<Txn>) -> Result<Vec<Commit>, StoreError> {
        legal::batch(&outer, &txns)?;
        self.ask(|answer| Ask::Commit { outer, txns, answer }).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, StoreError> {
        legal::prefix(prefix)?;
        Ok(self.shared.hub().watch(prefix, after))
    }

    async fn compact(&self, before: Revision) -> Result<(), StoreError> {
        self.shared.hub().compact(before);
        Ok(())
    }

    async fn lease_grant(&self, ttl_ms: u64) -> Result<LeaseId, StoreError> {
        legal::ttl(ttl_ms)?;
        self.ask(|answer| Ask::Grant { ttl_ms, answer }).await
    }

    async fn lease_keep_alive(&self, lease: LeaseId) -> Result<u64, StoreError> {
        self.shared.leases().keep_alive(lease).ok_or(StoreError::NoLease(lease))
    }

    async fn lease_revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.ask(|answer| Ask::Revoke { lease, answer }).await
    }
}

/// Takes the folder for this process.
fn lock_folder(folder: &Path) -> Result<FolderLock, StoreError> {
    let failed = |what: &str, path: &Path, e: &std::io::Error| {
        StoreError::Failed(format!("cannot {what} {}: {e}", path.display()))
    };
    make_folder(folder).map_err(|e| failed("make the folder", folder, &e))?;
    let path: PathBuf = folder.join(LOCK_FILE);
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(|e| failed("open the lock file", &path, &e))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(in_use(folder, &mut file)),
        Err(TryLockError::Error(e)) => return Err(failed("lock", &path, &e)),
    }
    let write_id = |file: &mut File| {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())
    };
    // The id is for people only: on a full disk the lock holds without it.
    if let Err(e) = write_id(&mut file) {
        tracing::warn!(error = %e, "cannot write the process id into the lock file");
    }
    Ok(FolderLock { _file: file })
}

fn in_use(folder: &Path, file: &mut File) -> StoreError {
    let mut holder = String::new();
    let known = Read::by_ref(file).take(20).read_to_string(&mut holder).is_ok() && !holder.trim().is_empty();
    let who = if known {
        format!("process {}", holder.trim())
    } else {
        "another process".to_owned()
    };
    StoreError::Failed(format!(
        "{} is in use by {who}; stop it or choose another data folder",
        folder.display()
    ))
}
