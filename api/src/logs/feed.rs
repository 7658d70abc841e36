//! What a reader of logs must know of a run: its steps' names, which attempt is the newest, and
//! whether it has ended with how many bytes.
//!
//! All readers of a run share one watch of its step records. Not here: any byte of a log.

use super::name::LogId;
use crate::fleet::definitions::{Definition, DefinitionError, Definitions};
use model::{Fence, RunId, StepRecord, key};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use store::live::read_all;
use store::{Store, StoreError, WatchEvent};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// The pause before the store is asked again after it did not answer.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Where the log of a step stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepLog {
    /// The step was not placed yet.
    NotYet,
    /// The step has ended and never ran: there is no log.
    Never,
    /// It may grow.
    Growing {
        /// The ordinal of the try.
        attempt: u32,
        /// Its fence.
        fence: Fence,
    },
    /// The attempt has ended.
    Ended {
        /// The ordinal of the try.
        attempt: u32,
        /// Its fence.
        fence: Fence,
        /// The log's length; `None` when nobody can know it, e.g. with its node.
        total: Option<u64>,
    },
}

impl StepLog {
    /// Where the log of a step's newest attempt stands.
    #[must_use]
    pub fn of(record: Option<&StepRecord>) -> Self {
        let Some(record) = record else { return Self::NotYet };
        let (attempt, fence) = (record.attempt, record.fence);
        match (record.status.is_terminal(), &record.alloc) {
            (true, None) => Self::Never,
            (true, Some(_)) => Self::Ended {
                attempt,
                fence,
                total: record.log_bytes,
            },
            (false, None) => Self::NotYet,
            (false, Some(_)) => Self::Growing { attempt, fence },
        }
    }

    /// The attempt and fence, if there is one.
    #[must_use]
    pub fn attempt(&self) -> Option<(u32, Fence)> {
        match self {
            Self::NotYet | Self::Never => None,
            Self::Growing { attempt, fence } | Self::Ended { attempt, fence, .. } => Some((*attempt, *fence)),
        }
    }
}

/// A run as a reader of its logs sees it.
#[derive(Debug, Clone)]
pub struct Picture {
    /// Its header and definition.
    pub definition: Arc<Definition>,
    /// Where each step's log stands, by the step's ordinal.
    pub steps: Vec<StepLog>,
}

impl Picture {
    /// True when no log of the run grows any more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.steps
            .iter()
            .all(|s| matches!(s, StepLog::Never | StepLog::Ended { .. }))
    }

    /// The log of a step's newest attempt, if it has one.
    #[must_use]
    pub fn log(&self, step: usize) -> Option<LogId> {
        let (_, fence) = self.steps.get(step)?.attempt()?;
        Some(LogId {
            run: self.definition.header.id.clone(),
            step,
            fence,
        })
    }

    /// A step's name.
    #[must_use]
    pub fn name(&self, step: usize) -> &str {
        self.definition.def.steps.get(step).map_or("", |s| s.name.as_str())
    }
}

struct Feed {
    picture: watch::Receiver<Arc<Picture>>,
    _task: AbortOnDropHandle<()>,
}

/// A reader's hold on a run's picture; the watch behind it ends with the last one.
#[derive(Clone)]
pub struct Follow {
    feed: Arc<Feed>,
    picture: watch::Receiver<Arc<Picture>>,
}

impl Follow {
    /// The newest picture.
    pub fn now(&mut self) -> Arc<Picture> {
        self.picture.borrow_and_update().clone()
    }

    /// Waits for another picture. False: there will be none, the store is closed.
    pub async fn changed(&mut self) -> bool {
        // `feed` keeps the sender's task alive.
        let _ = &self.feed;
        self.picture.changed().await.is_ok()
    }
}

/// The runs that somebody follows.
#[derive(Default)]
pub struct Feeds {
    feeds: Mutex<HashMap<RunId, Weak<Feed>>>,
}

impl Feeds {
    /// Follows a run.
    ///
    /// # Errors
    /// [`DefinitionError`], e.g. when there is no such run.
    pub async fn follow(
        &self,
        store: &Arc<dyn Store>,
        definitions: &Definitions,
        run: &RunId,
    ) -> Result<Follow, DefinitionError> {
        if let Some(feed) = self.find(run) {
            return Ok(Follow::new(feed));
        }
        let definition = definitions.get(store.as_ref(), run).await?;
        let (picture, revision) = read(store.as_ref(), &definition).await?;
        let (sender, receiver) = watch::channel(Arc::new(picture));
        let task = tokio::spawn(keep_up(store.clone(), definition, sender, revision));
        let feed = Arc::new(Feed {
            picture: receiver,
            _task: AbortOnDropHandle::new(task),
        });
        let mut feeds = self.feeds.lock().unwrap_or_else(PoisonError::into_inner);
        feeds.retain(|_, feed| feed.strong_count() > 0);
        feeds.insert(run.clone(), Arc::downgrade(&feed));
        Ok(Follow::new(feed))
    }

    fn find(&self, run: &RunId) -> Option<Arc<Feed>> {
        let feeds = self.feeds.lock().unwrap_or_else(PoisonError::into_inner);
        feeds
            .get(run)
            .and_then(Weak::upgrade)
            .filter(|f| f.picture.has_changed().is_ok())
    }
}

impl Follow {
    fn new(feed: Arc<Feed>) -> Self {
        Self {
            picture: feed.picture.clone(),
            feed,
        }
    }
}

/// A run's picture as it is now, and the revision to watch from.
async fn read(store: &dyn Store, definition: &Arc<Definition>) -> Result<(Picture, store::Revision), StoreError> {
    let mut picture = Picture {
        steps: vec![StepLog::NotYet; definition.def.steps.len()],
        definition: definition.clone(),
    };
    let (entries, revision) = read_all(store, &prefix(&definition.header.id)).await?;
    for entry in entries {
        apply(&mut picture, &entry.key, Some(&entry.value));
    }
    Ok((picture, revision))
}

/// A run's picture without following it.
///
/// # Errors
/// [`DefinitionError`], e.g. when there is no such run.
pub(super) async fn picture(
    store: &dyn Store,
    definitions: &Definitions,
    run: &RunId,
) -> Result<Picture, DefinitionError> {
    let definition = definitions.get(store, run).await?;
    Ok(read(store, &definition).await?.0)
}

fn prefix(run: &RunId) -> String {
    format!("{}/step/", key::run(run))
}

fn apply(picture: &mut Picture, key: &str, value: Option<&[u8]>) {
    let Some(key::RunKey::Step(_, step)) = key::parse_run(key) else {
        return;
    };
    let record = match value.map(model::decode::<StepRecord>).transpose() {
        Ok(record) => record,
        Err(error) => {
            tracing::warn!(key, %error, "step record does not decode");
            return;
        }
    };
    if let Some(place) = picture.steps.get_mut(step) {
        *place = StepLog::of(record.as_ref());
    }
}

/// Follows the step records until the store is closed.
async fn keep_up(
    store: Arc<dyn Store>,
    definition: Arc<Definition>,
    sender: watch::Sender<Arc<Picture>>,
    mut revision: store::Revision,
) {
    let prefix = prefix(&definition.header.id);
    loop {
        match store.watch(&prefix, revision).await {
            Ok(mut watch) => loop {
                match watch.recv().await {
                    None => return,
                    Some(WatchEvent::Resync) => break,
                    Some(WatchEvent::Changes(changes)) => sender.send_modify(|picture| {
                        let picture = Arc::make_mut(picture);
                        for change in changes {
                            apply(picture, &change.key, change.value.as_deref());
                        }
                    }),
                }
            },
            Err(error) => {
                tracing::warn!(run_id = %definition.header.id, %error, "run cannot be watched, will be tried again");
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
        match read(store.as_ref(), &definition).await {
            Ok((picture, read_at)) => {
                revision = read_at;
                sender.send_replace(Arc::new(picture));
            }
            Err(error) => {
                tracing::warn!(run_id = %definition.header.id, %error, "run cannot be read, will be tried again");
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }
}
