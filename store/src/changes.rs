//! The newest changes of a store, kept in memory within bounds, and the watches that follow them.
//!
//! Every engine has all its watchers in its own process, so what a watch may ask for need not outlive
//! that process: after a restart every watcher reads anew. The embedded engines publish what they
//! write, etcd's what it hears. Not here: keys and values as they stand, and durability.

use crate::live::{Change, Revision, Watch, WatchEvent};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use tokio::sync::mpsc::{self, OwnedPermit, Sender};

/// The most revisions that are kept for watches that begin in the past: several seconds of the
/// busiest store, which is longer than it takes to read it whole.
pub(crate) const KEPT_REVISIONS_MAX: usize = 10_000;

/// The most bytes of changes that are kept for the same purpose.
pub(crate) const KEPT_BYTES_MAX: usize = 64 << 20;

/// The most events that wait for one reader before it is told to read anew.
pub(crate) const WATCH_QUEUE_MAX: usize = 4_096;

/// The most bytes of changes that wait for one reader (a single larger event still passes).
pub(crate) const WATCH_QUEUE_BYTES_MAX: usize = 32 << 20;

/// Some of the changes that were asked for are no longer known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Compacted;

/// All changes after `compacted`, grouped by revision, in order.
#[derive(Debug, Default)]
pub(crate) struct ChangeLog {
    kept: VecDeque<Arc<[Change]>>,
    bytes: usize,
    compacted: Revision,
}

fn bytes_of(changes: &[Change]) -> usize {
    changes
        .iter()
        .map(|c| c.key.len() + c.value.as_ref().map_or(0, Vec::len))
        .sum()
}

fn revision_of(changes: &[Change]) -> Revision {
    changes.first().map_or(Revision(0), |c| c.revision)
}

fn matching(changes: &[Change], prefix: &str) -> Vec<Change> {
    changes.iter().filter(|c| c.key.starts_with(prefix)).cloned().collect()
}

impl ChangeLog {
    /// A log of a store that stands at `revision` and whose past is not known.
    pub(crate) fn starting_at(revision: Revision) -> Self {
        Self {
            compacted: revision,
            ..Self::default()
        }
    }

    /// Takes the changes of one revision; not empty, and newer than all before.
    pub(crate) fn push(&mut self, changes: Arc<[Change]>) {
        self.bytes += bytes_of(&changes);
        self.kept.push_back(changes);
        while self.kept.len() > KEPT_REVISIONS_MAX || (self.bytes > KEPT_BYTES_MAX && self.kept.len() > 1) {
            self.drop_oldest();
        }
    }

    /// Forgets everything up to and including `revision`.
    pub(crate) fn compact(&mut self, revision: Revision) {
        while self.kept.front().is_some_and(|c| revision_of(c) <= revision) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some(oldest) = self.kept.pop_front() {
            self.bytes -= bytes_of(&oldest);
            self.compacted = revision_of(&oldest);
        }
    }

    /// The changes of a prefix after a revision, grouped by revision.
    pub(crate) fn since(&self, after: Revision, prefix: &str) -> Result<Vec<Vec<Change>>, Compacted> {
        if after < self.compacted {
            return Err(Compacted);
        }
        let first = self.kept.partition_point(|c| revision_of(c) <= after);
        let groups = self.kept.range(first..).map(|c| matching(c, prefix));
        Ok(groups.filter(|g| !g.is_empty()).collect())
    }
}

/// The log and everyone who follows it. Never blocks: what a reader does not take in time is
/// replaced by a word to read anew.
#[derive(Debug, Default)]
pub struct WatchHub {
    log: ChangeLog,
    /// By what they watch, so that a change reaches those whom it concerns without a look at the others:
    /// a server has one for each node.
    watchers: BTreeMap<String, Vec<Watcher>>,
    /// The lengths of what is watched; a few that are watched no more do no harm.
    lengths: BTreeSet<usize>,
}

#[derive(Debug)]
struct Watcher {
    prefix: String,
    after: Revision,
    events: Sender<WatchEvent>,
    /// A place kept free from the beginning, so that the word to read anew always finds room.
    resync: OwnedPermit<WatchEvent>,
    /// The sizes of the newest events sent; those that were received are dropped lazily.
    sizes: VecDeque<usize>,
    waiting_bytes: usize,
}

/// Whether a watcher is kept.
#[derive(Debug, PartialEq, Eq)]
enum Delivery {
    Done,
    ReaderGone,
    TooSlow,
}

impl WatchHub {
    /// Of a store that stands at `revision` and whose past is not known.
    #[must_use]
    pub fn starting_at(revision: Revision) -> Self {
        Self {
            log: ChangeLog::starting_at(revision),
            ..Self::default()
        }
    }

    pub(crate) fn log(&self) -> &ChangeLog {
        &self.log
    }

    /// Begins anew at `revision` after changes were lost: everyone is told to read anew.
    pub fn restart_at(&mut self, revision: Revision) {
        self.log = ChangeLog::starting_at(revision);
        for watcher in std::mem::take(&mut self.watchers).into_values().flatten() {
            watcher.end_with_resync();
        }
    }

    /// Forgets the past up to `revision`; running watches are not disturbed.
    pub fn compact(&mut self, revision: Revision) {
        self.log.compact(revision);
    }

    /// Tells everyone of the changes of one revision, which is newer than all before.
    pub fn publish(&mut self, changes: Vec<Change>) {
        if changes.is_empty() {
            return;
        }
        let changes: Arc<[Change]> = changes.into();
        self.log.push(Arc::clone(&changes));
        for prefix in self.watched_prefixes(&changes) {
            if let Some(watchers) = self.watchers.get_mut(prefix) {
                tell(watchers, &changes);
            }
        }
    }

    /// What is watched and concerns some of these changes.
    fn watched_prefixes<'c>(&self, changes: &'c [Change]) -> BTreeSet<&'c str> {
        let prefixes = changes
            .iter()
            .flat_map(|c| self.lengths.iter().filter_map(|len| c.key.get(..*len)));
        prefixes.filter(|prefix| self.watchers.contains_key(*prefix)).collect()
    }

    /// Begins a watch after a revision, with what is known of the past.
    pub fn watch(&mut self, prefix: &str, after: Revision) -> Watch {
        self.forget_the_gone();
        let (events, watch) = mpsc::channel(WATCH_QUEUE_MAX + 1);
        let resync = events
            .clone()
            .try_reserve_owned()
            .expect("a new channel has room and its receiver is here");
        let mut watcher = Watcher {
            prefix: prefix.to_owned(),
            after,
            events,
            resync,
            sizes: VecDeque::new(),
            waiting_bytes: 0,
        };
        match self.log.since(after, prefix) {
            Err(Compacted) => watcher.end_with_resync(),
            Ok(past) => {
                if past.into_iter().all(|group| watcher.send(group) == Delivery::Done) {
                    self.lengths.insert(prefix.len());
                    self.watchers.entry(prefix.to_owned()).or_default().push(watcher);
                } else {
                    watcher.end_with_resync();
                }
            }
        }
        watch
    }

    /// Drops what is left of watches whose readers are gone.
    fn forget_the_gone(&mut self) {
        self.watchers.retain(|_, watchers| {
            watchers.retain(|w| !w.events.is_closed());
            !watchers.is_empty()
        });
        self.lengths = self.watchers.keys().map(String::len).collect();
    }

    /// Ends all watches: their readers get `None` after what they have not yet taken.
    pub fn close(&mut self) {
        self.watchers.clear();
    }
}

/// Hands the changes of one revision to everyone who watches one and the same prefix.
fn tell(watchers: &mut Vec<Watcher>, changes: &[Change]) {
    let mut at = 0;
    while at < watchers.len() {
        match watchers[at].deliver(changes) {
            Delivery::Done => at += 1,
            Delivery::ReaderGone => drop(watchers.swap_remove(at)),
            Delivery::TooSlow => watchers.swap_remove(at).end_with_resync(),
        }
    }
}

impl Watcher {
    fn deliver(&mut self, changes: &[Change]) -> Delivery {
        if revision_of(changes) <= self.after {
            return Delivery::Done;
        }
        self.send(matching(changes, &self.prefix))
    }

    fn send(&mut self, changes: Vec<Change>) -> Delivery {
        // The reserved place counts as taken, hence the one.
        let waiting = (WATCH_QUEUE_MAX + 1) - self.events.capacity() - 1;
        while self.sizes.len() > waiting {
            self.waiting_bytes -= self.sizes.pop_front().unwrap_or(0);
        }
        let size = bytes_of(&changes);
        if waiting > 0 && self.waiting_bytes + size > WATCH_QUEUE_BYTES_MAX {
            return Delivery::TooSlow;
        }
        match self.events.try_send(WatchEvent::Changes(changes)) {
            Ok(()) => {
                self.sizes.push_back(size);
                self.waiting_bytes += size;
                Delivery::Done
            }
            Err(mpsc::error::TrySendError::Full(_)) => Delivery::TooSlow,
            Err(mpsc::error::TrySendError::Closed(_)) => Delivery::ReaderGone,
        }
    }

    fn end_with_resync(self) {
        self.resync.send(WatchEvent::Resync);
    }
}
