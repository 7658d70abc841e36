//! Archived runs are found again: in the outbox first, then in history; the whole of one in its blob.
//!
//! The picture is always asked before history: a run goes from the outbox only after history has
//! it, so whoever looks in this order misses none. Not here: lists (`rest`).

use super::blob::{self, Unreadable};
use crate::problem::Problem;
use crate::view::View;
use api_core::archive::Form;
use model::{ArchivedRun, RunDef, RunId};
use pipeline::progress::Records;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use store::{BlobError, BlobName, BlobStore, History, HistoryError};

/// Most archives that are kept unpacked: what people look at at the same time.
const KEPT_MAX: usize = 64;

/// Most bytes of unpacked archives that are kept together.
const KEPT_BYTES_MAX: usize = 32 * 1024 * 1024;

/// How long reading a blob may take.
const READ_TIMEOUT: Duration = Duration::from_secs(20);

/// An archived run, whole.
#[derive(Debug)]
pub struct Archive {
    /// What lists show.
    pub record: ArchivedRun,
    /// Its header.
    pub header: Arc<model::RunHeader>,
    /// Its definition; `None` when it never got one.
    pub definition: Option<Arc<RunDef>>,
    /// What happened to its steps, by ordinal.
    pub steps: Records,
}

/// Why an archived run could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// History did not answer, so nobody knows whether there is such a run.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// Its blob could not be read.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// Reading its blob took too long.
    #[error("blob `{0}` did not come in time")]
    Late(String),
    /// Its blob is damaged or of a newer release.
    #[error("blob `{blob}`: {why}")]
    Unreadable {
        /// Which blob.
        blob: String,
        /// What is wrong with it.
        why: String,
    },
}

/// Finds archived runs. Clones share what is kept.
#[derive(Clone)]
pub struct Archives {
    view: View,
    history: Arc<dyn History>,
    blobs: Arc<dyn BlobStore>,
    kept: Arc<Mutex<Kept>>,
}

/// The newest at the back, each with the bytes that it has unpacked.
type Kept = VecDeque<(Arc<Archive>, usize)>;

impl Archives {
    /// Nothing is kept yet.
    #[must_use]
    pub fn new(view: View, history: Arc<dyn History>, blobs: Arc<dyn BlobStore>) -> Self {
        Self {
            view,
            history,
            blobs,
            kept: Arc::default(),
        }
    }

    /// The warm picture of the live store.
    #[must_use]
    pub(crate) fn view(&self) -> &View {
        &self.view
    }

    /// History itself.
    #[must_use]
    pub fn history(&self) -> &dyn History {
        self.history.as_ref()
    }

    /// What lists show of an archived run.
    ///
    /// # Errors
    /// [`ArchiveError::History`]: it may be there.
    pub async fn record(&self, run: &RunId) -> Result<Option<ArchivedRun>, ArchiveError> {
        let waiting = self
            .view
            .read(|p| p.outbox().get(run).map(|(_, record)| record.clone()));
        if let Some(record) = waiting {
            return Ok(Some(ArchivedRun::clone(&record)));
        }
        match self.history.get_run(run).await {
            Ok(record) => Ok(record),
            // What was read a moment ago is still right: only a person's retry changes it.
            Err(error) if error.retry() => match self.find(|a| a.record.summary.id == *run) {
                Some(kept) => Ok(Some(kept.record.clone())),
                None => Err(error.into()),
            },
            Err(error) => Err(error.into()),
        }
    }

    /// An archived run, whole. `None`: there is no such run.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub async fn open(&self, run: &RunId) -> Result<Option<Arc<Archive>>, ArchiveError> {
        let Some(record) = self.record(run).await? else {
            return Ok(None);
        };
        if let Some(kept) = self.find(|a| a.record.blob == record.blob) {
            return Ok(Some(kept));
        }
        let name = BlobName::new(record.blob.as_str())?;
        let late = |_| ArchiveError::Late(record.blob.clone());
        let read = tokio::time::timeout(READ_TIMEOUT, self.blobs.get(&name));
        let packed = read.await.map_err(late)??;
        let unpacked = tokio::task::spawn_blocking(move || blob::unpack(&packed)).await;
        let unreadable = |why: String| ArchiveError::Unreadable {
            blob: record.blob.clone(),
            why,
        };
        let unpacked: Result<(Form, usize), Unreadable> = unpacked.map_err(|e| unreadable(e.to_string()))?;
        let (form, bytes) = unpacked.map_err(|e| unreadable(e.to_string()))?;
        let archive = Arc::new(Archive {
            steps: form.records(),
            header: Arc::new(form.header),
            definition: form.definition.map(Arc::new),
            record,
        });
        self.keep(archive.clone(), bytes);
        Ok(Some(archive))
    }

    fn find(&self, wanted: impl Fn(&Archive) -> bool) -> Option<Arc<Archive>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let index = kept.iter().rposition(|(a, _)| wanted(a))?;
        let entry = kept.remove(index)?;
        let found = entry.0.clone();
        kept.push_back(entry);
        Some(found)
    }

    fn keep(&self, archive: Arc<Archive>, bytes: usize) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|(a, _)| a.record.summary.id != archive.record.summary.id);
        kept.push_back((archive, bytes));
        let mut total: usize = kept.iter().map(|(_, bytes)| bytes).sum();
        while kept.len() > KEPT_MAX || (total > KEPT_BYTES_MAX && kept.len() > 1) {
            total -= kept.pop_front().map_or(0, |(_, bytes)| bytes);
        }
    }
}

impl From<ArchiveError> for Problem {
    /// The engines' own words stay in our log: they may name paths and hosts.
    fn from(error: ArchiveError) -> Self {
        match &error {
            ArchiveError::History(HistoryError::Unavailable(_) | HistoryError::Failed(_)) => {
                tracing::warn!(%error, "history not available for a request");
                Self::unavailable(
                    "older runs cannot be looked up at the moment: their database does not answer; \
                     runs that go on are not affected, try again",
                )
            }
            ArchiveError::Blob(BlobError::Io { .. }) | ArchiveError::Late(_) => {
                tracing::warn!(%error, "archived run cannot be read");
                Self::unavailable("the archived run cannot be read at the moment; nothing is lost, try again")
            }
            ArchiveError::History(HistoryError::Illegal(_))
            | ArchiveError::Blob(_)
            | ArchiveError::Unreadable { .. } => {
                tracing::error!(%error, "archived run cannot be read");
                Self::internal()
            }
        }
    }
}
