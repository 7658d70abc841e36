//! What a reader of logs must know of a run: its steps' names, which attempt is the newest, and
//! whether it has ended with how many bytes.
//!
//! All readers of a run share one watch of its step records. Not here: any byte of a log.

use crate::archive::{Archive, Archives};
use crate::fleet::definitions::{Definition, DefinitionError, Definitions};
use crate::view::View;
use api_core::logs::LogId;
use model::{Fence, RunId, StepRecord, key};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use store::live::read_all;
use store::{Revision, Store, StoreError, WatchEvent};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// The pause before the store is asked again after it did not answer.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// How long the store may take before the view is asked instead.
const STORE_WAIT: Duration = Duration::from_secs(2);

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

fn earlier_logs(record: &StepRecord) -> Vec<StepLog> {
    let ended = record.earlier.iter().map(|e| StepLog::Ended {
        attempt: e.attempt,
        fence: e.fence,
        total: e.log_bytes,
    });
    ended.collect()
}

/// A run as a reader of its logs sees it.
#[derive(Debug, Clone)]
pub struct Picture {
    /// Its header and definition.
    pub definition: Arc<Definition>,
    /// Where each step's log stands, by the step's ordinal.
    pub steps: Vec<StepLog>,
    /// Where the logs of its attempts that ended before stand, oldest first.
    pub earlier: Vec<Vec<StepLog>>,
}

impl Picture {
    /// A picture without anything of its steps.
    fn new(definition: Arc<Definition>) -> Self {
        let steps = definition.def.steps.len();
        Self {
            definition,
            steps: vec![StepLog::NotYet; steps],
            earlier: vec![Vec::new(); steps],
        }
    }

    fn set(&mut self, step: usize, record: Option<&StepRecord>) {
        if let (Some(newest), Some(earlier)) = (self.steps.get_mut(step), self.earlier.get_mut(step)) {
            *newest = StepLog::of(record);
            *earlier = record.map(earlier_logs).unwrap_or_default();
        }
    }

    /// The picture of a run that has left the live store.
    fn of_archived(archive: &Archive) -> Self {
        let empty = || {
            Arc::new(model::RunDef {
                name: None,
                title: None,
                stages: Vec::new(),
                steps: Vec::new(),
                rules: model::RunRules::default(),
            })
        };
        let mut picture = Self::new(Arc::new(Definition {
            header: archive.header.clone(),
            def: archive.definition.clone().unwrap_or_else(empty),
        }));
        for (step, record) in &archive.steps {
            picture.set(*step, Some(record));
        }
        picture
    }

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

    /// Where the log of an attempt stands that was followed by another one, as far as it is known.
    #[must_use]
    pub fn earlier(&self, step: usize, attempt: u32) -> Option<&StepLog> {
        let of = |log: &&StepLog| log.attempt().is_some_and(|(a, _)| a == attempt);
        self.earlier.get(step)?.iter().find(of)
    }

    fn has_ended(&self, step: usize) -> bool {
        let log = self.steps.get(step);
        matches!(log, Some(StepLog::Never | StepLog::Ended { .. }))
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
        archives: &Archives,
        run: &RunId,
    ) -> Result<Follow, DefinitionError> {
        if let Some(feed) = self.find(run) {
            return Ok(Follow::new(feed));
        }
        let (picture, revision) = here_or_archived(store.as_ref(), definitions, archives, run).await?;
        let (sender, receiver) = watch::channel(Arc::new(picture));
        let source = Source {
            store: store.clone(),
            definitions: definitions.clone(),
            archives: archives.clone(),
            run: run.clone(),
        };
        let task = tokio::spawn(keep_up(source, sender, revision));
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

/// Where a run's picture comes from.
struct Source {
    store: Arc<dyn Store>,
    definitions: Definitions,
    archives: Archives,
    run: RunId,
}

/// A run's picture as it is now, wherever the run is, and the revision to watch from; an archived
/// run changes no more, so there is none.
async fn here_or_archived(
    store: &dyn Store,
    definitions: &Definitions,
    archives: &Archives,
    run: &RunId,
) -> Result<(Picture, Option<Revision>), DefinitionError> {
    let late = |_| Err(StoreError::Unavailable("the run was not read in time".to_owned()).into());
    let read = tokio::time::timeout(STORE_WAIT, here(store, definitions, run));
    match read.await.unwrap_or_else(late) {
        Ok((picture, revision)) => Ok((picture, Some(revision))),
        Err(DefinitionError::Store(error)) if error.retry() => match warm(archives.view(), definitions, run) {
            Some((picture, revision)) => Ok((picture, Some(revision))),
            None => Err(error.into()),
        },
        Err(DefinitionError::NoRun(run)) => match archives.open(&run).await? {
            Some(archive) => Ok((Picture::of_archived(&archive), None)),
            None => Err(DefinitionError::NoRun(run)),
        },
        Err(error) => Err(error),
    }
}

/// What the view knows of a run while the store does not answer; `None`: nothing, or too little.
fn warm(view: &View, definitions: &Definitions, run: &RunId) -> Option<(Picture, Revision)> {
    view.read(|all| {
        let entry = all.run(run)?;
        let definition = match (definitions.kept(run), entry.held_def()) {
            (Some(kept), _) => kept,
            (None, Some(held)) => Arc::new(Definition {
                header: entry.header()?.clone(),
                def: held.clone(),
            }),
            (None, None) => return None,
        };
        let mut picture = Picture::new(definition);
        for (step, record) in entry.records() {
            picture.set(*step, Some(record));
        }
        Some((picture, all.revision()))
    })
}

/// The picture of a run of the live store.
async fn here(
    store: &dyn Store,
    definitions: &Definitions,
    run: &RunId,
) -> Result<(Picture, Revision), DefinitionError> {
    let definition = definitions.get(store, run).await?;
    let read = read(store, &definition).await?;
    // The definition may have been in memory, and the steps may have gone while they were read.
    if store.get(&key::run(run)).await?.is_none() {
        return Err(DefinitionError::NoRun(run.clone()));
    }
    Ok(read)
}

/// A run's picture as it is now, and the revision to watch from.
async fn read(store: &dyn Store, definition: &Arc<Definition>) -> Result<(Picture, Revision), StoreError> {
    let mut picture = Picture::new(definition.clone());
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
    archives: &Archives,
    run: &RunId,
) -> Result<Picture, DefinitionError> {
    Ok(here_or_archived(store, definitions, archives, run).await?.0)
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
    // The records of a run that is archived go; what they said stays true.
    if record.is_some() || !picture.has_ended(step) {
        picture.set(step, record.as_ref());
    }
}

/// Follows the step records until the store is closed, or the run is archived: then nothing
/// changes any more, but readers go on.
async fn keep_up(source: Source, sender: watch::Sender<Arc<Picture>>, revision: Option<Revision>) {
    let (store, run) = (source.store.as_ref(), &source.run);
    let prefix = prefix(run);
    let mut next = revision;
    while let Some(revision) = next {
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
                tracing::warn!(run_id = %run, %error, "run cannot be watched, will be tried again");
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
        match here_or_archived(store, &source.definitions, &source.archives, run).await {
            Ok((picture, read_at)) => {
                next = read_at;
                sender.send_replace(Arc::new(picture));
            }
            Err(error) => {
                tracing::warn!(run_id = %run, %error, "run cannot be read, will be tried again");
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }
    sender.closed().await;
}
