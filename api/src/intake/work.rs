//! The loop that turns accepted triggers into runs.
//!
//! It starts from the whole inbox every time, wakes when a trigger arrives and once in a while, and
//! may be ended at any point. Triggers of one pipeline are worked in order, those of different
//! pipelines at the same time. Of several servers the one that leads works it, so that no
//! repository is read in vain; while nobody leads all do, and the guards of `write` choose one.

use super::draft::{Drafted, TryAgain, draft, failed};
use super::write::{Written, write};
use crate::clock::now_ms;
use crate::limit::READ_BACK_TIMEOUT;
use crate::state::{Server, Shared};
use crate::trace::trace_id;
use crate::view::PipelineKey;
use model::{InboxEntry, PipelineRecord, key};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use store::{Commit, Expect, StoreError, Txn};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::Instrument;

/// Pipelines that are worked at the same time: each holds a git process for a moment.
const PARALLEL: usize = 16;

/// How often a repository that does not answer is asked before the run fails.
const FETCH_TRIES: u32 = 3;

/// The wait after the first failure; doubles each time.
const FETCH_WAIT: Duration = Duration::from_secs(1);

/// The wait after the store failed.
const STORE_WAIT: Duration = Duration::from_secs(1);

/// The loop looks at the inbox at least this often: also how soon a trigger is worked when the
/// leader is gone and nobody leads.
const PERIOD: Duration = Duration::from_secs(2);

/// How a trigger fared.
enum Fared {
    Done,
    Later { not_before: Instant, fetch_failed: bool },
}

struct Finished {
    pipeline: PipelineKey,
    delivery: String,
    fared: Fared,
}

/// What the loop remembers of triggers that have to wait; nothing is lost when it is forgotten.
#[derive(Default)]
struct Memory {
    busy: HashSet<PipelineKey>,
    waiting: HashMap<String, Waiting>,
}

struct Waiting {
    fetch_tries: u32,
    not_before: Instant,
}

/// Works the inbox until the server is shut down.
pub async fn work(server: Shared) {
    let mut memory = Memory::default();
    let mut running: JoinSet<Finished> = JoinSet::new();
    let shutdown = server.deps.shutdown.clone();
    let mut leading = server.deps.leading.clone();
    loop {
        server
            .view
            .read(|p| memory.waiting.retain(|delivery, _| p.inbox().contains_key(delivery)));
        for (delivery, entry) in pick(&server, &memory, running.len()) {
            let pipeline = (entry.team.clone(), entry.pipeline.clone());
            memory.busy.insert(pipeline.clone());
            let tries = memory.waiting.get(&delivery).map_or(0, |w| w.fetch_tries);
            let trace_id = trace_id(entry.traceparent.as_deref().unwrap_or_default());
            let span = tracing::info_span!("intake", run_id = %entry.run, request_id = entry.request_id, trace_id);
            let one = one(server.clone(), pipeline, delivery, entry, tries);
            running.spawn(one.instrument(span));
        }
        let wake = memory.next_wake();
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = server.view.inbox_grew() => {}
            Ok(()) = leading.changed() => {}
            () = tokio::time::sleep_until(wake) => {}
            Some(ended) = running.join_next() => match ended {
                Ok(finished) => memory.note(finished),
                Err(crash) => {
                    // Which one it was is not known: look at all of them again.
                    tracing::error!(error = %crash, "intake of a trigger crashed");
                    running.abort_all();
                    while running.join_next().await.is_some() {}
                    memory.busy.clear();
                    tokio::time::sleep(STORE_WAIT).await;
                }
            },
        }
    }
}

/// The triggers to begin now: the oldest of each pipeline that is not being worked.
fn pick(server: &Server, memory: &Memory, running: usize) -> Vec<(String, Arc<InboxEntry>)> {
    let now = Instant::now();
    let mut taken: HashSet<PipelineKey> = HashSet::new();
    let leads = server.deps.leading.borrow().is_some();
    server.view.read(|picture| {
        let mut picked = Vec::new();
        if !leads && picture.leader().is_some() {
            return picked;
        }
        for (delivery, entry) in picture.inbox() {
            if running + picked.len() >= PARALLEL {
                break;
            }
            let pipeline = (entry.team.clone(), entry.pipeline.clone());
            let first = !memory.busy.contains(&pipeline) && taken.insert(pipeline);
            let due = memory.waiting.get(delivery).is_none_or(|w| w.not_before <= now);
            if first && due {
                picked.push((delivery.clone(), entry.clone()));
            }
        }
        picked
    })
}

impl Memory {
    fn note(&mut self, finished: Finished) {
        self.busy.remove(&finished.pipeline);
        match finished.fared {
            Fared::Done => drop(self.waiting.remove(&finished.delivery)),
            Fared::Later {
                not_before,
                fetch_failed,
            } => {
                let waiting = self.waiting.entry(finished.delivery).or_insert(Waiting {
                    fetch_tries: 0,
                    not_before,
                });
                waiting.not_before = not_before;
                waiting.fetch_tries += u32::from(fetch_failed);
            }
        }
    }

    fn next_wake(&self) -> Instant {
        let now = Instant::now();
        let soonest = self.waiting.values().map(|w| w.not_before).filter(|t| *t > now).min();
        soonest.unwrap_or(now + PERIOD).min(now + PERIOD)
    }
}

async fn one(
    server: Shared,
    pipeline: PipelineKey,
    delivery: String,
    entry: Arc<InboxEntry>,
    fetch_tries: u32,
) -> Finished {
    let fared = match make(&server, &delivery, &entry, fetch_tries).await {
        Ok(fared) => fared,
        Err(error) => {
            tracing::warn!(%error, "trigger waits for the store");
            Fared::Later {
                not_before: Instant::now() + STORE_WAIT,
                fetch_failed: false,
            }
        }
    };
    Finished {
        pipeline,
        delivery,
        fared,
    }
}

async fn make(server: &Server, delivery: &str, entry: &InboxEntry, fetch_tries: u32) -> Result<Fared, StoreError> {
    let store = server.store();
    let found = store.get(&key::pipeline(&entry.team, &entry.pipeline)).await?;
    let pipeline: Option<PipelineRecord> = match found.map(|f| f.decode()).transpose() {
        Ok(pipeline) => pipeline,
        Err(error) => return Err(StoreError::Failed(error.to_string())),
    };
    let draft = match draft(server, entry, pipeline.as_ref()).await {
        Ok(Drafted::Run(draft)) => *draft,
        Ok(Drafted::Nothing(why)) => {
            tracing::info!(why, "trigger makes no run");
            let event = entry.event.as_str();
            server.metrics.runs_created.with_label_values(&[event, "nothing"]).inc();
            drop_trigger(server, delivery).await?;
            return Ok(Fared::Done);
        }
        Err(TryAgain { error }) if fetch_tries + 1 < FETCH_TRIES => {
            tracing::warn!(%error, tries = fetch_tries + 1, "repository cannot be read, will be tried again");
            let not_before = Instant::now() + FETCH_WAIT * 2_u32.pow(fetch_tries);
            return Ok(Fared::Later {
                not_before,
                fetch_failed: true,
            });
        }
        Err(TryAgain { error }) => {
            let repository = pipeline.as_ref().map_or("", |p| p.repository.as_str());
            failed(entry, repository, format!("{error} (tried {FETCH_TRIES} times)"))
        }
    };
    let event = entry.event.as_str();
    let result = if draft.made.is_ok() { "ok" } else { "failed" };
    match write(store, delivery, entry, &draft).await? {
        Written::Made { number, revision } => {
            server.metrics.runs_created.with_label_values(&[event, result]).inc();
            let took_ms = now_ms().saturating_sub(entry.accepted_ms);
            server.metrics.intake_seconds.observe(took_ms as f64 / 1000.0);
            tracing::info!(number, result, took_ms, "run created");
            // The next look at the inbox must not find this trigger again.
            server.view.wait_for(revision, READ_BACK_TIMEOUT).await;
        }
        Written::Gone => tracing::debug!("trigger was worked by another server"),
    }
    Ok(Fared::Done)
}

/// Removes a trigger that leads to no run.
async fn drop_trigger(server: &Server, delivery: &str) -> Result<(), StoreError> {
    let key = key::inbox(delivery);
    let txn = Txn::new().expect(&key, Expect::Present).delete(&key);
    if let Commit::Applied(revision) = server.store().commit(txn).await? {
        server.view.wait_for(revision, READ_BACK_TIMEOUT).await;
    }
    Ok(())
}
