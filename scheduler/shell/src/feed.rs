//! Keeps the view warm: reads each prefix page by page, then follows it by a watch. Besides, it
//! knows who leads and how far the store has come.
//!
//! The watches of different prefixes are not in step with each other; the view does not mind.
//! Not here: what a change means.

use futures::FutureExt;
use futures::stream::{self, BoxStream, SelectAll, StreamExt};
use model::{Leader, key};
use scheduler::{Cluster, Malformed, Taken};
use store::live::PAGE_MAX;
use store::{Change, Revision, Store, StoreError, Watch, WatchEvent};
use tokio::sync::watch;

/// What the scheduler looks at.
const PREFIXES: [&str; 9] = [
    key::LEADER,
    key::CLUSTER_VERSION,
    key::NODES,
    key::SESSIONS,
    key::ELIGIBILITIES,
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
    leader_name: watch::Sender<Option<String>>,
    newest: Revision,
    heard_bytes: u64,
}

impl Feed {
    /// Reads everything into `cluster` and follows it from there.
    pub(crate) async fn open(
        store: &dyn Store,
        cluster: &mut Cluster,
        leader_name: watch::Sender<Option<String>>,
    ) -> Result<Self, StoreError> {
        let mut feed = Self {
            events: SelectAll::new(),
            leader_name,
            newest: Revision(0),
            heard_bytes: 0,
        };
        feed.leader_name.send_replace(None);
        for prefix in PREFIXES {
            let revision = feed.load(store, prefix, cluster).await?;
            feed.events.push(follow(store.watch(prefix, revision).await?));
        }
        Ok(feed)
    }

    /// The newest revision that was heard of.
    pub(crate) fn newest(&self) -> Revision {
        self.newest
    }

    /// How much has been written since the view was opened, bytes of keys and values; what the view
    /// does not look at is left out.
    pub(crate) fn heard_bytes(&self) -> u64 {
        self.heard_bytes
    }

    /// Reads a prefix page by page; answers the revision to watch from. Runs that have finished shrink
    /// as they are read, so the whole history never is in memory.
    async fn load(&mut self, store: &dyn Store, prefix: &str, cluster: &mut Cluster) -> Result<Revision, StoreError> {
        let mut first_revision = None;
        let mut after: Option<String> = None;
        loop {
            let page = store.range(prefix, after.as_deref(), PAGE_MAX).await?;
            let revision = *first_revision.get_or_insert(page.revision);
            for entry in &page.entries {
                self.hear(cluster, &entry.key, Some(&entry.value), entry.mod_revision);
            }
            cluster.refresh();
            after = page.entries.into_iter().next_back().map(|e| e.key);
            if !page.more || after.is_none() {
                return Ok(revision);
            }
        }
    }

    fn hear(&mut self, cluster: &mut Cluster, key: &str, value: Option<&[u8]>, revision: Revision) {
        self.newest = self.newest.max(revision);
        self.heard_bytes += (key.len() + value.map_or(0, <[u8]>::len)) as u64;
        if key == key::LEADER {
            let leader = value.and_then(|bytes| model::decode::<Leader>(bytes).ok());
            self.leader_name.send_replace(leader.map(|l| l.server));
        } else {
            tell(cluster, key, value, revision);
        }
    }

    fn apply(&mut self, event: Option<FeedEvent>, cluster: &mut Cluster) -> Result<(), Broken> {
        match event {
            Some(FeedEvent::Changes(changes)) => {
                for change in changes {
                    self.hear(cluster, &change.key, change.value.as_deref(), change.revision);
                }
                Ok(())
            }
            Some(FeedEvent::Ended) | None => Err(Broken),
        }
    }

    /// Waits for the next change and takes it, with all that has arrived behind it.
    pub(crate) async fn take(&mut self, cluster: &mut Cluster) -> Result<(), Broken> {
        let first = self.events.next().await;
        self.apply(first, cluster)?;
        self.drain(cluster)
    }

    /// Takes what has arrived, without waiting.
    pub(crate) fn drain(&mut self, cluster: &mut Cluster) -> Result<(), Broken> {
        for _ in 0..DRAIN_MAX {
            let Some(event) = self.events.next().now_or_never() else {
                break;
            };
            self.apply(event, cluster)?;
        }
        Ok(())
    }
}

/// Reads what the leader before may have written without it having come by the watch: all orders,
/// since what is free follows from them, and what operators want of nodes.
pub(crate) async fn read_at_takeover(store: &dyn Store, cluster: &mut Cluster) -> Result<(), StoreError> {
    let (entries, revision) = store::live::read_all(store, key::ALLOCS).await?;
    let orders = entries
        .iter()
        .map(|e| (e.key.as_str(), e.value.as_slice(), e.mod_revision.0));
    for malformed in cluster.on_all_orders(orders, revision.0) {
        kept_out(&malformed);
    }
    for entry in store::live::read_all(store, key::ELIGIBILITIES).await?.0 {
        tell(cluster, &entry.key, Some(&entry.value), entry.mod_revision);
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

/// Takes one change into the view; says once when a record is kept out.
pub(crate) fn tell(cluster: &mut Cluster, key: &str, value: Option<&[u8]>, revision: Revision) {
    match cluster.on_change(key, value, revision.0) {
        Ok(Taken::New | Taken::Stale | Taken::Foreign) => {}
        Err(malformed) => kept_out(&malformed),
    }
}
