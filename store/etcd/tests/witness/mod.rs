//! Writes and watches while something breaks, and then says whether anything was lost.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use store::live::read_all;
use store::{Commit, Revision, Store, StoreError, Txn, WatchEvent};
use store_etcd::{EtcdConfig, EtcdStore};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Longer than anything here takes on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// The key that is written last.
const END: &str = "w/end";

/// Connects to what has just been started.
pub(crate) async fn connect(endpoints: Vec<String>) -> Arc<EtcdStore> {
    let store = EtcdStore::connect(EtcdConfig::plain(endpoints)).await;
    Arc::new(store.expect("etcd stands"))
}

/// Waits until something holds.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, holds: impl Fn() -> F) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A writer and a watcher of one store.
pub(crate) struct Witness {
    store: Arc<EtcdStore>,
    progress: Arc<Progress>,
    stop: CancellationToken,
    writer: JoinHandle<BTreeSet<String>>,
    watcher: JoinHandle<Vec<(Revision, String)>>,
}

#[derive(Default)]
struct Progress {
    acknowledged: AtomicUsize,
    failed: AtomicUsize,
    seen: AtomicUsize,
}

/// What was found at the end.
#[derive(Debug)]
pub(crate) struct Found {
    /// Writes whose outcome was not known.
    pub(crate) failed: usize,
}

impl Witness {
    pub(crate) async fn begin(store: Arc<EtcdStore>) -> Self {
        let from = store.range("", None, 1).await.expect("it stands").revision;
        let progress = Arc::new(Progress::default());
        let stop = CancellationToken::new();
        let writer = tokio::spawn(write(Arc::clone(&store), Arc::clone(&progress), stop.clone()));
        let watcher = tokio::spawn(watch(Arc::clone(&store), Arc::clone(&progress), from));
        Self {
            store,
            progress,
            stop,
            writer,
            watcher,
        }
    }

    /// Waits for so many more writes that are acknowledged and as many that are seen.
    pub(crate) async fn go_on(&self, count: usize) {
        let of = |counter: &AtomicUsize| counter.load(Ordering::SeqCst);
        let (acknowledged, seen) = (of(&self.progress.acknowledged), of(&self.progress.seen));
        until("writes are acknowledged and seen", || async {
            of(&self.progress.acknowledged) >= acknowledged + count && of(&self.progress.seen) >= seen + count
        })
        .await;
    }

    /// Waits for a write that fails.
    pub(crate) async fn falter(&self) {
        let failed = self.progress.failed.load(Ordering::SeqCst);
        until("a write fails", || async {
            self.progress.failed.load(Ordering::SeqCst) > failed
        })
        .await;
    }

    /// Every acknowledged write is there, and what is there was seen, once and in order.
    pub(crate) async fn finish(self) -> Found {
        self.stop.cancel();
        let acknowledged = self.writer.await.expect("the writer does not panic");
        let put_end = || async {
            let end = Txn::new().put_bytes(END, Vec::new(), None);
            self.store.commit(end).await.is_ok()
        };
        until("the last write stands", put_end).await;
        let seen = tokio::time::timeout(PATIENCE, self.watcher)
            .await
            .expect("the end is seen");
        let seen = seen.expect("the watcher does not panic");
        let (standing, _) = read_all(&*self.store, "w/").await.expect("it stands");
        let standing: BTreeSet<String> = standing.into_iter().map(|e| e.key).collect();
        let lost: Vec<&String> = acknowledged.difference(&standing).collect();
        assert!(lost.is_empty(), "acknowledged and not there: {lost:?}");
        assert!(seen.is_sorted_by(|a, b| a.0 < b.0), "revisions only grow");
        let seen: BTreeSet<String> = seen.into_iter().map(|(_, key)| key).collect();
        let missed: Vec<&String> = standing.difference(&seen).collect();
        assert!(missed.is_empty(), "there and not seen: {missed:?}");
        Found {
            failed: self.progress.failed.load(Ordering::SeqCst),
        }
    }
}

async fn write(store: Arc<EtcdStore>, progress: Arc<Progress>, stop: CancellationToken) -> BTreeSet<String> {
    let mut acknowledged = BTreeSet::new();
    let mut n = 0;
    while !stop.is_cancelled() {
        n += 1;
        let key = format!("w/{n:06}");
        match store.commit(Txn::new().put_bytes(&key, b"1".to_vec(), None)).await {
            Ok(Commit::Applied(_)) => {
                acknowledged.insert(key);
                progress.acknowledged.fetch_add(1, Ordering::SeqCst);
            }
            Err(StoreError::Unavailable(_)) => {
                progress.failed.fetch_add(1, Ordering::SeqCst);
            }
            other => panic!("{key}: {other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    acknowledged
}

async fn watch(store: Arc<EtcdStore>, progress: Arc<Progress>, from: Revision) -> Vec<(Revision, String)> {
    let mut watch = store.watch("w/", from).await.expect("it stands");
    drop(store);
    let mut seen = Vec::new();
    loop {
        match watch.recv().await {
            Some(WatchEvent::Changes(changes)) => {
                for change in changes {
                    let end = change.key == END;
                    seen.push((change.revision, change.key));
                    progress.seen.fetch_add(1, Ordering::SeqCst);
                    if end {
                        return seen;
                    }
                }
            }
            ended => panic!("a watch that was never slow ended: {ended:?}"),
        }
    }
}
