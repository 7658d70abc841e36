//! Keeps the view warm: reads each prefix page by page, then follows it by a watch.
//!
//! The watches of different prefixes are not in step with each other; the view does not mind.
//! Not here: what a change means.

use futures::FutureExt;
use futures::stream::{self, BoxStream, SelectAll, StreamExt};
use model::key;
use scheduler::{Cluster, Malformed, Taken};
use store::live::PAGE_MAX;
use store::{Change, Revision, Store, StoreError, Watch, WatchEvent};

/// What the scheduler looks at.
const PREFIXES: [&str; 7] = [
    key::CLUSTER_VERSION,
    key::NODES,
    key::SESSIONS,
    key::RUNS,
    key::ALLOCS,
    key::OBSERVED,
    key::REQUESTS,
];

/// The most events that are taken before the loop decides: what has arrived is batched, but a
/// flood does not keep it from deciding.
const DRAIN_MAX: usize = 1_000;

/// The watches have ended: the view has to be built anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Broken;

enum FeedEvent {
    Changes(Vec<Change>),
    Ended,
}

/// All watches as one stream.
pub(crate) struct Feed {
    events: SelectAll<BoxStream<'static, FeedEvent>>,
}

impl Feed {
    /// Reads everything into `cluster` and follows it from there.
    pub(crate) async fn open(store: &dyn Store, cluster: &mut Cluster) -> Result<Self, StoreError> {
        let mut events = SelectAll::new();
        for prefix in PREFIXES {
            let revision = load(store, prefix, cluster).await?;
            events.push(follow(store.watch(prefix, revision).await?));
        }
        Ok(Self { events })
    }

    /// Waits for the next change and takes it, with all that has arrived behind it.
    pub(crate) async fn take(&mut self, cluster: &mut Cluster) -> Result<(), Broken> {
        let first = self.events.next().await;
        apply(first, cluster)?;
        self.drain(cluster)
    }

    /// Takes what has arrived, without waiting.
    pub(crate) fn drain(&mut self, cluster: &mut Cluster) -> Result<(), Broken> {
        for _ in 0..DRAIN_MAX {
            let Some(event) = self.events.next().now_or_never() else {
                break;
            };
            apply(event, cluster)?;
        }
        Ok(())
    }
}

/// Reads a prefix page by page; answers the revision to watch from. Runs that have finished shrink
/// as they are read, so the whole history never is in memory.
async fn load(store: &dyn Store, prefix: &str, cluster: &mut Cluster) -> Result<Revision, StoreError> {
    let mut first_revision = None;
    let mut after: Option<String> = None;
    loop {
        let page = store.range(prefix, after.as_deref(), PAGE_MAX).await?;
        let revision = *first_revision.get_or_insert(page.revision);
        for entry in &page.entries {
            tell(cluster, &entry.key, Some(&entry.value), entry.mod_revision);
        }
        cluster.refresh();
        after = page.entries.into_iter().next_back().map(|e| e.key);
        if !page.more || after.is_none() {
            return Ok(revision);
        }
    }
}

/// Reads all orders at the beginning of a term.
pub(crate) async fn read_orders(store: &dyn Store, cluster: &mut Cluster) -> Result<(), StoreError> {
    let (entries, revision) = store::live::read_all(store, key::ALLOCS).await?;
    let orders = entries
        .iter()
        .map(|e| (e.key.as_str(), e.value.as_slice(), e.mod_revision.0));
    for malformed in cluster.on_all_orders(orders, revision.0) {
        kept_out(&malformed);
    }
    Ok(())
}

fn kept_out(malformed: &Malformed) {
    tracing::error!(key = %malformed.key, reason = %malformed.reason, "record kept out");
}

fn follow(watch: Watch) -> BoxStream<'static, FeedEvent> {
    let next = |watch: Option<Watch>| async {
        let mut watch = watch?;
        match watch.recv().await {
            Some(WatchEvent::Changes(changes)) => Some((FeedEvent::Changes(changes), Some(watch))),
            Some(WatchEvent::Resync) | None => Some((FeedEvent::Ended, None)),
        }
    };
    stream::unfold(Some(watch), next).boxed()
}

fn apply(event: Option<FeedEvent>, cluster: &mut Cluster) -> Result<(), Broken> {
    match event {
        Some(FeedEvent::Changes(changes)) => {
            for change in changes {
                tell(cluster, &change.key, change.value.as_deref(), change.revision);
            }
            Ok(())
        }
        Some(FeedEvent::Ended) | None => Err(Broken),
    }
}

/// Takes one change into the view; says once when a record is kept out.
pub(crate) fn tell(cluster: &mut Cluster, key: &str, value: Option<&[u8]>, revision: Revision) {
    match cluster.on_change(key, value, revision.0) {
        Ok(Taken::New | Taken::Stale | Taken::Foreign) => {}
        Err(malformed) => kept_out(&malformed),
    }
}
