//! Removes what is older than it is to be kept: first the logs of finished runs, then the runs with all
//! that is left of them.
//!
//! On the leading server only, and every part is harmless to repeat. A run's blobs go before its row,
//! so that a crash leaves a row that is found again, never blobs that nothing points to. Up to where
//! logs have been removed stands in the live store (`cluster/retention`), written when they are gone.
//! A run that is in the live store is left alone. Not here: how long what is kept (`api_core::archive`).

use super::metrics::RetentionMetrics;
use crate::clock;
use crate::state::{Server, Shared};
use api_core::archive::Keep;
use futures::stream::{self, TryStreamExt};
use model::{Retention, RunId, SweptTo, key};
use std::time::Duration;
use store::blob::LIST_PAGE_MAX;
use store::history::Oldest;
use store::{BlobEntry, BlobError, Commit, Expect, HistoryError, Revision, StoreError, Txn};

/// How often it is looked whether something is old enough: what is kept is counted in days.
const LOOK_EVERY: Duration = Duration::from_secs(600);

/// The pause after something failed.
const AGAIN_AFTER: Duration = Duration::from_secs(60);

/// The pause between two pages of one sweep, so that a first sweep over a long past leaves room for others.
const BREATH: Duration = Duration::from_millis(50);

/// Runs of one page: what a crash makes be done again.
const PAGE: usize = 100;

/// Runs whose blobs are removed at the same time.
const RUNS_AT_ONCE: usize = 4;

/// Blobs of a run that are removed at the same time.
const BLOBS_AT_ONCE: usize = 8;

/// Why a sweep did not get further.
#[derive(Debug, thiserror::Error)]
enum RetentionError {
    #[error(transparent)]
    History(#[from] HistoryError),
    #[error(transparent)]
    Blob(#[from] BlobError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("how far was swept cannot be read: {0}")]
    Record(#[from] model::RecordError),
    #[error("another server leads")]
    Deposed,
}

/// Sweeps while this server leads, until the shutdown.
pub(crate) async fn retain(server: Shared) {
    let metrics = RetentionMetrics::new(server.metrics.registry()).expect("every name is registered once");
    let mut leading = server.deps.leading.clone();
    let shutdown = server.deps.shutdown.clone();
    loop {
        let term = *leading.borrow_and_update();
        let swept = async {
            match term {
                Some(term) => sweep_on(&server, term, &metrics).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = swept => {}
            changed = leading.changed() => if changed.is_err() {
                shutdown.cancelled().await;
                return;
            },
        }
    }
}

async fn sweep_on(server: &Server, term: Revision, metrics: &RetentionMetrics) {
    let sweep = Sweep { server, term, metrics };
    loop {
        let pause = match sweep.page(clock::now_ms()).await {
            Ok(true) => BREATH,
            Ok(false) => LOOK_EVERY,
            Err(error) => {
                metrics.failures.inc();
                tracing::warn!(%error, "what is old was not removed, will be tried again");
                AGAIN_AFTER
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// Whose logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Main,
    Others,
}

impl Class {
    const ALL: [Self; 2] = [Self::Main, Self::Others];

    fn holds(self, keep: &Keep, run: &Oldest) -> bool {
        keep.is_main(run.branch.as_deref()) == (self == Self::Main)
    }

    fn kept_ms(self, keep: &Keep) -> u64 {
        let kept_ms = match self {
            Self::Main => keep.logs_ms,
            Self::Others => keep.branch_logs_ms,
        };
        kept_ms.min(keep.runs_ms)
    }

    fn mark(self, of: &mut Retention) -> &mut Option<SweptTo> {
        match self {
            Self::Main => &mut of.logs,
            Self::Others => &mut of.branch_logs,
        }
    }
}

pub(super) struct Sweep<'a> {
    pub(super) server: &'a Server,
    pub(super) term: Revision,
    pub(super) metrics: &'a RetentionMetrics,
}

impl Sweep<'_> {
    /// One page of everything; true when there is more.
    async fn page(&self, now_ms: u64) -> Result<bool, RetentionError> {
        let mut more = self.remove_runs(now_ms).await?;
        for class in Class::ALL {
            more |= self.remove_logs(class, now_ms).await?;
        }
        Ok(more)
    }

    fn keep(&self) -> &Keep {
        &self.server.config.keep
    }

    /// Runs that somebody works with are not touched.
    fn is_live(&self, run: &RunId) -> bool {
        self.server
            .view
            .read(|picture| picture.run(run).is_some() || picture.outbox().contains_key(run))
    }

    async fn remove_runs(&self, now_ms: u64) -> Result<bool, RetentionError> {
        let before_ms = now_ms.saturating_sub(self.keep().runs_ms);
        let history = &self.server.deps.history;
        let page = history.oldest_runs(before_ms, None, PAGE).await?;
        let old: Vec<RunId> = page
            .iter()
            .map(|o| o.run.clone())
            .filter(|r| !self.is_live(r))
            .collect();
        if old.is_empty() {
            return Ok(false);
        }
        self.each(&old, |run| [format!("log/{run}/"), format!("archive/{run}/")].into())
            .await?;
        history.remove_runs(&old).await?;
        self.metrics.runs.inc_by(old.len() as u64);
        tracing::info!(runs = old.len(), "finished runs removed, they were kept long enough");
        Ok(page.len() == PAGE)
    }

    async fn remove_logs(&self, class: Class, now_ms: u64) -> Result<bool, RetentionError> {
        let store = self.server.store();
        let found = store.get(key::CLUSTER_RETENTION).await?;
        let mut record: Retention = found
            .as_ref()
            .map(store::Entry::decode)
            .transpose()?
            .unwrap_or_default();
        let before_ms = now_ms.saturating_sub(class.kept_ms(self.keep()));
        let mark = class.mark(&mut record);
        let after = mark.as_ref().map(|swept| (swept.created_ms, &swept.run));
        let page = self.server.deps.history.oldest_runs(before_ms, after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(false) };
        let due = page
            .iter()
            .filter(|o| class.holds(self.keep(), o) && !self.is_live(&o.run));
        let due: Vec<RunId> = due.map(|o| o.run.clone()).collect();
        self.each(&due, |run| [format!("log/{run}/")].into()).await?;
        *mark = Some(SweptTo {
            created_ms: last.created_ms,
            run: last.run.clone(),
        });
        let expect = found.map_or(Expect::Absent, |entry| Expect::Revision(entry.mod_revision));
        let txn = Txn::new()
            .expect(key::LEADER, Expect::Revision(self.term))
            .expect(key::CLUSTER_RETENTION, expect)
            .put(key::CLUSTER_RETENTION, &record);
        match store.commit(txn).await? {
            Commit::Applied(_) => {}
            Commit::Refused { .. } => return Err(RetentionError::Deposed),
        }
        self.metrics.logs.inc_by(due.len() as u64);
        Ok(page.len() == PAGE)
    }

    /// Removes what lies below some prefixes of each run.
    async fn each(&self, runs: &[RunId], prefixes: impl Fn(&RunId) -> Vec<String>) -> Result<(), RetentionError> {
        let all: Vec<String> = runs.iter().flat_map(prefixes).collect();
        stream::iter(all.into_iter().map(Ok))
            .try_for_each_concurrent(RUNS_AT_ONCE, |prefix| self.remove_below(prefix))
            .await
    }

    async fn remove_below(&self, prefix: String) -> Result<(), RetentionError> {
        loop {
            let page = self.server.deps.blobs.list_page(&prefix, None, LIST_PAGE_MAX).await?;
            stream::iter(page.entries.into_iter().map(Ok))
                .try_for_each_concurrent(BLOBS_AT_ONCE, |entry| self.remove_blob(entry))
                .await?;
            if page.next.is_none() {
                return Ok(());
            }
        }
    }

    async fn remove_blob(&self, entry: BlobEntry) -> Result<(), BlobError> {
        self.server.deps.blobs.delete(&entry.name).await?;
        self.metrics.blobs.inc();
        self.metrics.bytes.inc_by(entry.size);
        Ok(())
    }
}
