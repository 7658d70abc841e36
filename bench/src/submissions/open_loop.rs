//! Submissions at a rate, each at its own moment whatever became of those before, and what became of
//! each of them.
//!
//! Latency counts from the moment at which a submission was due, so that a sender that falls behind
//! makes the figures worse, not better. Not here: what is looked up afterwards.

use super::repository::{Repository, Server, pipeline};
use crate::throughput::ledger::quantile;
use model::RunId;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};
use tokio::task::JoinSet;

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// Submissions in flight; beyond it one counts as failed, as it would for a sender without more sockets.
const IN_FLIGHT_MAX: usize = 10_000;

/// Makes what is submitted differ, so that the 60-second rule never answers an older run.
static SUBMITTED: AtomicU64 = AtomicU64::new(0);

/// One submission.
#[derive(Debug, Clone)]
pub(super) struct Submission {
    /// When it was due.
    pub(super) due: Instant,
    /// The same by the clock on the wall.
    pub(super) due_at: SystemTime,
    /// When the answer was there.
    pub(super) answered: Instant,
    /// The run; or why there is none.
    pub(super) run: Result<RunId, String>,
}

/// What became of all submissions at a rate.
#[derive(Debug, Clone)]
pub(super) struct Submitted {
    pub(super) rate: f64,
    pub(super) took: Duration,
    pub(super) all: Vec<Submission>,
}

impl Submitted {
    pub(super) fn failures(&self) -> usize {
        self.all.iter().filter(|s| s.run.is_err()).count()
    }

    /// The first failure, in words.
    pub(super) fn first_failure(&self) -> Option<&str> {
        self.all.iter().find_map(|s| s.run.as_ref().err()).map(String::as_str)
    }

    /// From the due moment to the answer, milliseconds, sorted.
    pub(super) fn answers_ms(&self) -> Vec<f32> {
        let kept = self.all.iter().filter(|s| s.run.is_ok());
        sorted(kept.map(|s| ms(s.answered.saturating_duration_since(s.due))).collect())
    }

    /// Median, 95 and 99 of a hundred of [`Self::answers_ms`], and the longest.
    pub(super) fn answered(&self) -> [f64; 4] {
        let row = self.answers_ms();
        [0.5, 0.95, 0.99, 1.0].map(|share| quantile(&row, share))
    }
}

pub(super) fn ms(time: Duration) -> f32 {
    time.as_secs_f32() * 1_000.0
}

pub(super) fn sorted(mut row: Vec<f32>) -> Vec<f32> {
    row.sort_by(f32::total_cmp);
    row
}

/// Submits at this rate for this time, and waits for all answers.
pub(super) async fn submit(
    server: &Server,
    repository: &Repository,
    pipelines: usize,
    rate: f64,
    time: Duration,
) -> Submitted {
    let server = Arc::new((server.clone(), repository.clone()));
    let (began, began_at) = (Instant::now(), SystemTime::now());
    let count = (rate * time.as_secs_f64()).round().max(1.0) as u64;
    let mut tasks = JoinSet::new();
    let mut all = Vec::new();
    for number in 0..count {
        let after = Duration::from_secs_f64(number as f64 / rate);
        let due = began + after;
        tokio::time::sleep_until(due.into()).await;
        while let Some(done) = tasks.try_join_next() {
            all.extend(done.ok());
        }
        let due_at = began_at + after;
        if tasks.len() >= IN_FLIGHT_MAX {
            let run = Err(format!("{IN_FLIGHT_MAX} submissions had no answer yet"));
            let answered = Instant::now();
            all.push(Submission {
                due,
                due_at,
                answered,
                run,
            });
            continue;
        }
        let server = Arc::clone(&server);
        tasks.spawn(async move {
            let run = one(&server.0, &server.1, pipelines).await;
            Submission {
                due,
                due_at,
                answered: Instant::now(),
                run,
            }
        });
    }
    let took = began.elapsed();
    while let Some(done) = tasks.join_next().await {
        all.extend(done.ok());
    }
    Submitted { rate, took, all }
}

/// Submits once.
pub(super) async fn one(server: &Server, repository: &Repository, pipelines: usize) -> Result<RunId, String> {
    let number = SUBMITTED.fetch_add(1, Ordering::Relaxed);
    let at = |count: usize| usize::try_from(number % count.max(1) as u64).unwrap_or(0);
    let url = &server.urls[at(server.urls.len())];
    let path = format!("/api/v1/pipelines/{}/{}/runs", server.team, pipeline(at(pipelines)));
    let variables = serde_json::json!({ "SUBMISSION": number.to_string() });
    let body = serde_json::json!({ "commit_sha": repository.commit, "variables": variables });
    let request = server.http.post(format!("{url}{path}")).json(&body).timeout(PATIENCE);
    let answer = request.bearer_auth(&server.token).send().await;
    let answer = answer.map_err(|e| format!("no answer: {e}"))?;
    let code = answer.status();
    let text = answer.text().await.map_err(|e| format!("no answer: {e}"))?;
    if !code.is_success() {
        return Err(format!("{code}: {text}"));
    }
    let json: serde_json::Value = serde_json::from_str(&text).map_err(|e| format!("{code}: {e}"))?;
    let run = json["run_id"].as_str().and_then(|run| RunId::new(run).ok());
    run.ok_or_else(|| format!("{code}: an answer without a run: {text}"))
}
