//! History: finished runs, searched and listed long after they have left the live store.
//!
//! What is kept of a run is its [`ArchivedRun`]: the summary that lists show, and the name of the
//! blob that holds the rest. Every engine passes the same suite ([`conformance`]). Not here: when a
//! run is taken out of the live store, and what lies in the blob (the API's archive); the engine in
//! PostgreSQL (package `store-postgres`).

pub mod conformance;
pub mod row;
pub mod sqlite;

pub use sqlite::SqliteHistory;

use async_trait::async_trait;
use model::{ArchivedRun, PipelineName, RunId, RunStatus, TeamName};

/// The most runs of one [`History::put_runs`]: some hundred kilobytes, one round trip.
pub const PUT_MAX: usize = 500;

/// The longest page of [`History::list_runs`].
pub const PAGE_MAX: usize = 1_000;

/// [`History::count_runs`] counts no further: a count walks over every row that it counts.
pub const COUNT_MAX: u64 = 10_000;

/// The longest branch or commit that is searched for, bytes. What git accepts is shorter, and an
/// index holds keys of some kilobytes only. A longer one stands in the record and is found by no filter.
pub const SEARCHED_MAX: usize = 1_024;

/// Which runs are meant; all conditions together. The default: every run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunFilter {
    /// Of this team.
    pub team: Option<TeamName>,
    /// Of the pipeline with this name.
    pub pipeline: Option<PipelineName>,
    /// That ended so.
    pub status: Option<RunStatus>,
    /// Of this branch, without `refs/heads/`.
    pub branch: Option<String>,
    /// Of this commit, the full id.
    pub commit: Option<String>,
    /// Triggered at this time or later, milliseconds of the Unix epoch.
    pub created_from_ms: Option<u64>,
    /// Triggered before this time, milliseconds of the Unix epoch.
    pub created_before_ms: Option<u64>,
}

impl RunFilter {
    /// Whether a run is meant.
    #[must_use]
    pub fn takes(&self, run: &model::RunSummary) -> bool {
        self.team.as_ref().is_none_or(|t| *t == run.team)
            && self.pipeline.as_ref().is_none_or(|p| *p == run.pipeline)
            && self.status.is_none_or(|s| s == run.status)
            && self.branch.is_none_or_eq(run.source.branch())
            && self.commit.is_none_or_eq(Some(&run.source.commit))
            && self.created_from_ms.is_none_or(|from| run.created_ms >= from)
            && self.created_before_ms.is_none_or(|before| run.created_ms < before)
    }
}

trait Wanted {
    fn is_none_or_eq(&self, found: Option<&str>) -> bool;
}

impl Wanted for Option<String> {
    /// Nothing is wanted, or just this, and it can be searched for.
    fn is_none_or_eq(&self, found: Option<&str>) -> bool {
        self.as_deref()
            .is_none_or(|wanted| row::searched(wanted).is_some() && found == Some(wanted))
    }
}

/// In which order runs are listed, always newest first, and where the page begins. Both orders are
/// over values of a run that never change, so a cursor stays right while runs arrive: one that
/// arrives is on a later page, or before those that were shown, and none is shown twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunOrder {
    /// By id, which is by the time of the trigger.
    Id {
        /// Only ids below this one.
        before: Option<RunId>,
    },
    /// By the number in the pipeline; for a filter that names team and pipeline.
    Number {
        /// Only numbers below this one.
        before: Option<u64>,
    },
}

/// A question for a page of runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunQuery {
    /// Which runs.
    pub filter: RunFilter,
    /// In which order, and from where.
    pub order: RunOrder,
    /// The longest page, 1 to [`PAGE_MAX`].
    pub limit: usize,
}

impl RunQuery {
    /// Refuses what no engine answers.
    ///
    /// # Errors
    /// [`HistoryError::Illegal`].
    pub fn check(&self) -> Result<(), HistoryError> {
        check_page(self.limit)?;
        let of_pipeline = self.filter.team.is_some() && self.filter.pipeline.is_some();
        if matches!(self.order, RunOrder::Number { .. }) && !of_pipeline {
            return Err(HistoryError::Illegal(
                "an order by number without a pipeline".to_owned(),
            ));
        }
        Ok(())
    }
}

/// The oldest runs are asked for from there on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Oldest {
    /// When the run was triggered, milliseconds of the Unix epoch.
    pub created_ms: u64,
    /// Which run.
    pub run: RunId,
    /// Of which branch, if that can be searched for.
    pub branch: Option<String>,
}

/// A page of runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunPage {
    /// Newest first.
    pub runs: Vec<ArchivedRun>,
    /// True when runs follow after the last one.
    pub more: bool,
}

/// Why history could not take or answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HistoryError {
    /// The call broke a limit or rule of this trait: a fault of the caller.
    #[error("illegal call of history: {0}")]
    Illegal(String),
    /// The engine cannot be reached or has no time; whether runs were taken is unknown.
    #[error("history is not available: {0}")]
    Unavailable(String),
    /// Somebody has to mend something first: the text says what.
    #[error("history failed: {0}")]
    Failed(String),
}

impl HistoryError {
    /// True when the same call may succeed later without anyone mending anything.
    #[must_use]
    pub fn retry(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

/// Finished runs. Every method may be called concurrently, and answers, one way or the other,
/// within a bounded time.
#[async_trait]
pub trait History: Send + Sync + 'static {
    /// Takes runs, durably, all of them or none. At most [`PUT_MAX`]. Of the same run the greater
    /// `summary.attempt` is kept; what is there already with the same or a greater one is left as it is.
    ///
    /// # Errors
    /// After [`HistoryError::Unavailable`] the runs may have been taken: give them again.
    async fn put_runs(&self, runs: &[ArchivedRun]) -> Result<(), HistoryError>;

    /// A run by its id.
    async fn get_run(&self, run: &RunId) -> Result<Option<ArchivedRun>, HistoryError>;

    /// A run by its number in the pipeline.
    async fn find_run(
        &self,
        team: &TeamName,
        pipeline: &PipelineName,
        number: u64,
    ) -> Result<Option<ArchivedRun>, HistoryError>;

    /// A page of runs. A run that was taken before the call began is in it if it belongs there.
    /// One whose record cannot be read is passed over and logged.
    ///
    /// # Errors
    /// [`HistoryError::Illegal`] as [`RunQuery::check`] says.
    async fn list_runs(&self, query: &RunQuery) -> Result<RunPage, HistoryError>;

    /// How many runs there are, up to [`COUNT_MAX`].
    async fn count_runs(&self, filter: &RunFilter) -> Result<u64, HistoryError>;

    /// The first runs by the time of their trigger, then by id, that were triggered before a moment and
    /// come after a run; at most `limit` ([`PAGE_MAX`] at most). Also those whose record cannot be read.
    async fn oldest_runs(
        &self,
        created_before_ms: u64,
        after: Option<(u64, &RunId)>,
        limit: usize,
    ) -> Result<Vec<Oldest>, HistoryError>;

    /// Forgets runs, durably, all of them or none; one that is not there is no error. At most
    /// [`PUT_MAX`]. Whoever calls has removed what they point to.
    async fn remove_runs(&self, runs: &[RunId]) -> Result<(), HistoryError>;

    /// Tries whether runs can be taken and read, changing nothing. Answers one sentence that says
    /// what is there; the error says what to mend.
    async fn check(&self) -> Result<String, HistoryError>;
}

/// Refuses a question for the oldest runs that no engine answers.
///
/// # Errors
/// [`HistoryError::Illegal`].
pub fn check_page(limit: usize) -> Result<(), HistoryError> {
    if (1..=PAGE_MAX).contains(&limit) {
        return Ok(());
    }
    Err(HistoryError::Illegal(format!(
        "a page of {limit} runs; it may have 1 to {PAGE_MAX}"
    )))
}

/// Refuses a removal that no engine makes.
///
/// # Errors
/// [`HistoryError::Illegal`].
pub fn check_removal(runs: &[RunId]) -> Result<(), HistoryError> {
    if runs.len() > PUT_MAX {
        let count = runs.len();
        return Err(HistoryError::Illegal(format!(
            "{count} runs at once; {PUT_MAX} are the most"
        )));
    }
    Ok(())
}

/// Refuses a put that no engine takes.
///
/// # Errors
/// [`HistoryError::Illegal`].
pub fn check_put(runs: &[ArchivedRun]) -> Result<(), HistoryError> {
    if runs.len() > PUT_MAX {
        let count = runs.len();
        return Err(HistoryError::Illegal(format!(
            "{count} runs at once; {PUT_MAX} are the most"
        )));
    }
    Ok(())
}
