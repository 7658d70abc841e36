//! One watch of everything below the prefix, from which all watches of this process are served.
//!
//! A server follows nearly all of the store anyway, and its many small watches (one for each
//! connected node) would each cost etcd memory and a copy of every message. So etcd sends each
//! change once; the hub that the embedded engines have, too, keeps the newest ones, tells each
//! watcher what matches its prefix, and gives up on readers that are too slow.
//!
//! The feed stands at a position: everything up to it was published. When its stream breaks it is
//! opened again **at** the position, and what is not newer is dropped: opened just behind it, etcd
//! would not say that the change right there was removed by a compaction. Only what is lost for
//! good ends in a word to read anew.
//!
//! Not here: what the hub does with the changes (`store::changes`).

use crate::fault::{Fault, Kind};
use crate::keys::{Keys, number, revision};
use crate::members::Members;
use etcd_client::proto::{PbEvent, PbWatchResponse};
use etcd_client::{WatchOptions, WatchStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use store::changes::WatchHub;
use store::{Change, Revision, StoreError, Watch};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// How long a stream may take to be opened.
const OPEN_TIMEOUT: Duration = Duration::from_secs(3);

/// After this long without a message a member is asked for a sign of life.
const QUIET: Duration = Duration::from_secs(2);

/// How long it may take to give one before the stream counts as broken. A member that is busy
/// sending changes gives signs all the time.
const SIGN_TIMEOUT: Duration = Duration::from_secs(3);

/// The pause before a stream is opened again; grows from the first to the last of these.
const PAUSES: [Duration; 4] = [
    Duration::from_millis(20),
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_secs(1),
];

/// The largest message that is taken: etcd cuts messages at 2 MiB when asked to, except for a single
/// change, which has at most 1.5 MiB; both are more if its operator allows larger requests.
const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// The feed of a store. Dropping it ends every watch.
pub(crate) struct Feed {
    hub: Arc<Mutex<WatchHub>>,
    closed: CancellationToken,
}

fn lock(hub: &Mutex<WatchHub>) -> MutexGuard<'_, WatchHub> {
    hub.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Feed {
    /// Opens the stream and waits until it stands.
    pub(crate) async fn open(members: Arc<Members>, keys: Keys) -> Result<Self, StoreError> {
        let hub = Arc::new(Mutex::new(WatchHub::default()));
        let closed = CancellationToken::new();
        let (standing, stands) = oneshot::channel();
        let mut follower = Follower {
            members,
            hub: Arc::clone(&hub),
            collector: Collector::new(keys.clone()),
            keys,
            standing: Some(standing),
            last_fault: String::new(),
        };
        let feed = Self {
            hub,
            closed: closed.clone(),
        };
        tokio::spawn(async move {
            closed.run_until_cancelled(follower.run()).await;
        });
        // Several tries, as one member may be down.
        match timeout(3 * OPEN_TIMEOUT, stands).await {
            Ok(Ok(())) => Ok(feed),
            _ => Err(StoreError::Unavailable("no member of etcd opens a watch".to_owned())),
        }
    }

    pub(crate) fn watch(&self, prefix: &str, after: Revision) -> Watch {
        lock(&self.hub).watch(prefix, after)
    }

    pub(crate) fn compact(&self, before: Revision) {
        lock(&self.hub).compact(before);
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.closed.cancel();
        lock(&self.hub).close();
    }
}

/// The task that follows etcd.
struct Follower {
    members: Arc<Members>,
    hub: Arc<Mutex<WatchHub>>,
    keys: Keys,
    collector: Collector,
    /// Told when the first stream stands.
    standing: Option<oneshot::Sender<()>>,
    /// So that one and the same fault is logged once.
    last_fault: String,
}

/// Why a stream ended.
#[derive(Debug)]
enum Ended {
    /// It broke, or its member sees no leader.
    Broken(Fault),
    /// Changes after the position are forgotten.
    Compacted,
}

impl Follower {
    async fn run(&mut self) {
        let mut failures = 0;
        loop {
            let member = self.members.current();
            match self.follow(member, &mut failures).await {
                Ended::Compacted => {
                    tracing::warn!(position = ?self.collector.position, "changes were compacted before they were read");
                    self.collector.position = None;
                }
                Ended::Broken(fault) => {
                    if fault.text != self.last_fault {
                        tracing::warn!(endpoint = self.members.url(member), fault = %fault.text, "watch broke");
                        self.last_fault = fault.text;
                    }
                    self.members.move_on(member);
                }
            }
            let pause = PAUSES[usize::min(failures, PAUSES.len() - 1)];
            failures += 1;
            tokio::time::sleep(pause).await;
        }
    }

    /// Opens a stream and publishes what it brings until it ends.
    async fn follow(&mut self, member: usize, failures: &mut usize) -> Ended {
        self.collector.forget_open();
        let mut stream = match timeout(OPEN_TIMEOUT, self.open(member)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(fault)) => return Ended::Broken(fault),
            Err(_) => return Ended::Broken(Fault::silence(true)),
        };
        let mut watch_id = None;
        loop {
            let response = match next(&mut stream).await {
                Ok(response) => response,
                Err(fault) => return Ended::Broken(fault),
            };
            if let Some(ended) = ended(&response) {
                return ended;
            }
            if response.created {
                if let Err(fault) = self.stands(&response) {
                    return Ended::Broken(fault);
                }
                watch_id = Some(response.watch_id);
                *failures = 0;
                self.last_fault.clear();
            } else if watch_id == Some(response.watch_id) {
                let groups = self.collector.take(response);
                let mut hub = lock(&self.hub);
                for group in groups {
                    hub.publish(group);
                }
            }
        }
    }

    async fn open(&self, member: usize) -> Result<WatchStream, Fault> {
        let client = self.members.own_client(member).await?;
        let span = self.keys.span("", None);
        let options = WatchOptions::new()
            .with_range(span.end)
            .with_fragment()
            .with_progress_notify();
        // Without a position: from now on.
        let options = match self.collector.position {
            Some(position) => options.with_start_revision(number(position).max(1)),
            None => options,
        };
        let watching = client.watch_client().max_decoding_message_size(MESSAGE_BYTES_MAX);
        Ok({ watching }.watch(span.begin, Some(options)).await?)
    }

    /// Takes note of where a stream begins.
    fn stands(&mut self, created: &PbWatchResponse) -> Result<(), Fault> {
        let header = created.header.as_ref().ok_or_else(|| Fault::nonsense("a header"))?;
        self.members.check_cluster_id(header.cluster_id)?;
        if self.collector.position.is_none() {
            let position = revision(header.revision);
            self.collector.position = Some(position);
            lock(&self.hub).restart_at(position);
        }
        if let Some(standing) = self.standing.take() {
            // Nobody waits any more if it took too long.
            let _ = standing.send(());
        }
        Ok(())
    }
}

/// The next message; asks for a sign of life when none comes.
async fn next(stream: &mut WatchStream) -> Result<PbWatchResponse, Fault> {
    let broken = || Fault {
        kind: Kind::Unknown,
        text: "the watch was closed".to_owned(),
    };
    let message = match timeout(QUIET, stream.message()).await {
        Ok(message) => message,
        Err(_) => {
            timeout(SIGN_TIMEOUT, stream.request_progress())
                .await
                .map_err(|_| Fault::silence(true))??;
            timeout(SIGN_TIMEOUT, stream.message())
                .await
                .map_err(|_| Fault::silence(true))?
        }
    };
    Ok(message?.ok_or_else(broken)?.0)
}

/// Whether a message ends the watch.
fn ended(response: &PbWatchResponse) -> Option<Ended> {
    if response.compact_revision > 0 {
        return Some(Ended::Compacted);
    }
    response.canceled.then(|| {
        Ended::Broken(Fault {
            kind: Kind::Unknown,
            text: format!("the watch was refused: {}", response.cancel_reason),
        })
    })
}

/// Puts the changes of a revision together again, however etcd cuts its messages.
#[derive(Debug)]
struct Collector {
    keys: Keys,
    /// Everything up to here was handed out; `None` before the first stream and after a loss.
    position: Option<Revision>,
    /// The changes of the newest revision, until it is known that no more follow.
    open: Vec<Change>,
}

impl Collector {
    fn new(keys: Keys) -> Self {
        Self {
            keys,
            position: None,
            open: Vec::new(),
        }
    }

    /// A new stream brings them again.
    fn forget_open(&mut self) {
        self.open.clear();
    }

    /// The revisions that are whole with this message, each with its changes.
    fn take(&mut self, response: PbWatchResponse) -> Vec<Vec<Change>> {
        let mut whole = Vec::new();
        let quiet = response.events.is_empty();
        for event in response.events {
            let Some(change) = change(&self.keys, event) else {
                continue;
            };
            if self.position.is_some_and(|position| change.revision <= position) {
                continue;
            }
            if self.open.last().is_some_and(|open| open.revision != change.revision) {
                self.close(&mut whole);
            }
            self.open.push(change);
        }
        if !response.fragment {
            self.close(&mut whole);
        }
        // A member says at times how far it is, so that a quiet watch does not fall behind a compaction.
        if quiet && let Some(header) = response.header {
            self.position = self.position.max(Some(revision(header.revision)));
        }
        whole
    }

    fn close(&mut self, whole: &mut Vec<Vec<Change>>) {
        if let Some(last) = self.open.last() {
            self.position = Some(last.revision);
            whole.push(std::mem::take(&mut self.open));
        }
    }
}

/// A change of a key of ours; whatever else is there was written by somebody else.
fn change(keys: &Keys, event: PbEvent) -> Option<Change> {
    let kv = event.kv?;
    let Some(key) = keys.own(&kv.key) else {
        tracing::warn!(key = ?kv.key, "key below the prefix is not ours");
        return None;
    };
    let value = match event.r#type {
        PUT => Some(kv.value),
        DELETE => None,
        kind => {
            tracing::error!(kind, key, "event of etcd is of a kind that is not known");
            return None;
        }
    };
    Some(Change {
        key,
        value,
        revision: revision(kv.mod_revision),
    })
}

/// The kinds of events, by their numbers: the client's own accessor panics on any other.
const PUT: i32 = etcd_client::EventType::Put as i32;
const DELETE: i32 = etcd_client::EventType::Delete as i32;

#[cfg(test)]
mod tests {
    use super::*;
    use etcd_client::proto::{PbKeyValue, PbResponseHeader};

    fn event(kind: i32, key: &str, mod_revision: i64) -> PbEvent {
        let kv = PbKeyValue {
            key: key.as_bytes().to_vec(),
            value: b"v".to_vec(),
            mod_revision,
            ..PbKeyValue::default()
        };
        PbEvent {
            r#type: kind,
            kv: Some(kv),
            prev_kv: None,
        }
    }

    fn message(fragment: bool, events: Vec<PbEvent>) -> PbWatchResponse {
        PbWatchResponse {
            fragment,
            events,
            ..PbWatchResponse::default()
        }
    }

    fn progress(revision: i64) -> PbWatchResponse {
        PbWatchResponse {
            header: Some(PbResponseHeader {
                revision,
                ..PbResponseHeader::default()
            }),
            ..PbWatchResponse::default()
        }
    }

    fn shown(groups: &[Vec<Change>]) -> Vec<String> {
        let one = |c: &Change| {
            format!(
                "{}{}@{}",
                c.key,
                if c.value.is_some() { "" } else { " gone" },
                c.revision.0
            )
        };
        groups
            .iter()
            .map(|g| g.iter().map(one).collect::<Vec<_>>().join(","))
            .collect()
    }

    fn at(position: u64) -> Collector {
        Collector {
            position: Some(Revision(position)),
            ..Collector::new(Keys::new("bf/"))
        }
    }

    #[test]
    fn a_revision_is_one_group_however_it_is_cut() {
        let mut collector = at(1);
        let first = message(true, vec![event(PUT, "bf/a", 2), event(PUT, "bf/b", 3)]);
        assert_eq!(shown(&collector.take(first)), ["a@2"]);
        let second = message(true, vec![event(DELETE, "bf/c", 3)]);
        assert_eq!(shown(&collector.take(second)), [""; 0]);
        let third = message(false, vec![event(PUT, "bf/d", 3), event(PUT, "bf/a", 4)]);
        assert_eq!(shown(&collector.take(third)), ["b@3,c gone@3,d@3", "a@4"]);
        assert_eq!(collector.position, Some(Revision(4)));
    }

    #[test]
    fn what_a_new_stream_repeats_is_dropped_and_what_was_open_comes_again() {
        let mut collector = at(1);
        let cut = message(true, vec![event(PUT, "bf/a", 2), event(PUT, "bf/b", 3)]);
        collector.take(cut);
        collector.forget_open();
        let again = message(
            false,
            vec![event(PUT, "bf/a", 2), event(PUT, "bf/b", 3), event(PUT, "bf/c", 3)],
        );
        assert_eq!(shown(&collector.take(again)), ["b@3,c@3"]);
        let repeated = message(false, vec![event(PUT, "bf/c", 3)]);
        assert_eq!(shown(&collector.take(repeated)), [""; 0]);
    }

    #[test]
    fn foreign_keys_and_unknown_kinds_are_left_out() {
        let mut collector = at(1);
        let nothing = PbEvent {
            r#type: PUT,
            kv: None,
            prev_kv: None,
        };
        let events = vec![
            event(PUT, "other", 2),
            event(9, "bf/x", 2),
            nothing,
            event(PUT, "bf/a", 2),
        ];
        assert_eq!(shown(&collector.take(message(false, events))), ["a@2"]);
    }

    #[test]
    fn a_quiet_watch_moves_with_the_store_and_never_back() {
        let mut collector = at(5);
        assert_eq!(shown(&collector.take(progress(9))), [""; 0]);
        assert_eq!(collector.position, Some(Revision(9)));
        collector.take(progress(7));
        assert_eq!(collector.position, Some(Revision(9)));
    }

    #[test]
    fn endings_are_told_apart() {
        let compacted = PbWatchResponse {
            canceled: true,
            compact_revision: 7,
            ..PbWatchResponse::default()
        };
        assert!(matches!(ended(&compacted), Some(Ended::Compacted)));
        let no_leader = PbWatchResponse {
            canceled: true,
            cancel_reason: "etcdserver: no leader".to_owned(),
            ..PbWatchResponse::default()
        };
        assert!(matches!(ended(&no_leader), Some(Ended::Broken(f)) if f.text.contains("no leader")));
        assert!(ended(&progress(1)).is_none());
    }
}
