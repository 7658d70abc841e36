//! Runs, written into the live store as intake writes them: definition and header in one transaction
//! each, many transactions in one batch.
//!
//! Not here: webhooks, repositories and pipeline files, whose cost is that of the trigger.

use super::ledger::Ledger;
use super::serving::TEAM;
use crate::BenchError;
use api::intake::new_run_id;
use model::record::Unknown;
use model::{DefChunk, Event, PipelineName, Resources, RunDef, RunHeader, RunId, Source, TeamName, key};
use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use store::{Commit, Expect, Store, StoreError, Txn};
use tokio::time::timeout;

/// Most runs of one batch: two writes each.
const BATCH: usize = 50;

/// How often the driver looks for ended runs when nobody tells it.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How long a batch may take before it is written again: a run that is there already is left alone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// What the runs look like.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    def: RunDef,
    chunks: Vec<DefChunk>,
    needs: Vec<Vec<usize>>,
    team: TeamName,
    pipeline: PipelineName,
}

fn stopped(what: &str, cause: &dyn std::fmt::Display) -> BenchError {
    BenchError::Stopped(format!("{what}: {cause}"))
}

impl Shape {
    /// A pipeline with so many steps in each of its stages; each stage waits for the one before.
    pub(crate) fn new(stages: &[usize], resources: Resources) -> Result<Self, BenchError> {
        let mut text = String::from("stages:\n");
        for (stage, steps) in stages.iter().enumerate() {
            // Writing to a string never fails.
            let _ = writeln!(text, "  - name: stage-{stage}\n    steps:");
            for step in 0..*steps {
                let _ = writeln!(
                    text,
                    "      - {{ name: step-{stage}-{step}, image: 'registry.example.org/team/build:1.95', run: make part-{stage}-{step} }}"
                );
            }
        }
        let mut def = pipeline::compile(&text).map_err(|e| stopped("the pipeline", &e))?;
        for step in &mut def.steps {
            step.resources = resources;
        }
        Ok(Self {
            chunks: def.to_chunks(),
            needs: def.steps.iter().map(|s| s.needs.clone()).collect(),
            team: TeamName::new(TEAM).map_err(|e| stopped("the team", &e))?,
            pipeline: PipelineName::new("pipeline").map_err(|e| stopped("the pipeline", &e))?,
            def,
        })
    }

    /// Steps of a run.
    pub(crate) fn steps(&self) -> usize {
        self.def.steps.len()
    }

    fn header(&self, run: &RunId, number: u64) -> RunHeader {
        RunHeader {
            id: run.clone(),
            team: self.team.clone(),
            pipeline: self.pipeline.clone(),
            number,
            attempt: 1,
            source: Source {
                repository: "https://git.example.org/team/project.git".to_owned(),
                git_ref: "refs/heads/main".to_owned(),
                commit: "0123456789abcdef0123456789abcdef01234567".to_owned(),
                message: "a change".to_owned(),
                author: "Ada".to_owned(),
                event: Event::Push,
            },
            variables: std::collections::BTreeMap::new(),
            inputs: std::collections::BTreeMap::new(),
            created_ms: now_ms(),
            def_chunks: self.chunks.len(),
            steps: self.def.steps.len(),
            error: None,
            request_id: format!("bench-{number}"),
            requested_by: "bench".to_owned(),
            traceparent: None,
            unknown: Unknown::new(),
        }
    }

    fn txn(&self, run: &RunId, number: u64) -> Txn {
        let header_key = key::run(run);
        let txn = Txn::new().expect(&header_key, Expect::Absent);
        let chunks = self.chunks.iter().enumerate();
        chunks
            .fold(txn, |txn, (n, chunk)| txn.put(key::run_def(run, n), chunk))
            .put(header_key, &self.header(run, number))
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// When runs are written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Pace {
    /// So many are kept in flight.
    Live(usize),
    /// So many a second, whatever happens to them.
    Rate(f64),
}

/// Writes runs.
pub(crate) struct Driver {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) shape: Shape,
    pub(crate) ledger: Arc<Ledger>,
    written: u64,
}

impl Driver {
    pub(crate) fn new(store: Arc<dyn Store>, shape: Shape, ledger: Arc<Ledger>) -> Self {
        Self {
            store,
            shape,
            ledger,
            written: 0,
        }
    }

    /// Writes runs at this pace until `until`, or until so many are written.
    pub(crate) async fn drive(&mut self, pace: Pace, until: Instant, at_most: u64) -> Result<(), BenchError> {
        let (began, first) = (Instant::now(), self.written);
        while Instant::now() < until && self.written - first < at_most {
            let wanted = match pace {
                Pace::Live(live) => live.saturating_sub(self.ledger.runs_left()),
                Pace::Rate(rate) => {
                    let due = (began.elapsed().as_secs_f64() * rate) as u64;
                    usize::try_from(due.saturating_sub(self.written - first)).unwrap_or(0)
                }
            };
            let most = usize::try_from(at_most - (self.written - first)).unwrap_or(usize::MAX);
            let count = wanted.min(BATCH).min(most);
            if count > 0 {
                self.write(count).await?;
                continue;
            }
            let look = match pace {
                Pace::Live(_) => LOOK_EVERY,
                Pace::Rate(_) => Duration::from_millis(1),
            };
            // Either way it looks again.
            let _ = timeout(look, self.ledger.run_ended.notified()).await;
        }
        Ok(())
    }

    /// Writes so many runs at once.
    pub(crate) async fn write(&mut self, count: usize) -> Result<(), BenchError> {
        let runs: Vec<RunId> = (0..count).map(|_| new_run_id()).collect();
        let mut txns = Vec::with_capacity(count);
        for run in &runs {
            self.written += 1;
            txns.push(self.shape.txn(run, self.written));
            self.ledger.submit(run, &self.shape.needs);
        }
        loop {
            let answer = timeout(WRITE_TIMEOUT, self.store.commit_batch(Vec::new(), txns.clone())).await;
            match answer {
                // Refused: a batch before was applied, although nobody said so.
                Ok(Ok(commits)) => {
                    debug_assert!(
                        commits
                            .iter()
                            .all(|c| matches!(c, Commit::Applied(_) | Commit::Refused { .. }))
                    );
                    break;
                }
                Ok(Err(StoreError::Unavailable(_))) | Err(_) => {}
                Ok(Err(error)) => return Err(stopped("runs are not written", &error)),
            }
        }
        for run in &runs {
            self.ledger.durable(run);
        }
        Ok(())
    }
}
