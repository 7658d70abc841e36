//! Wires the API's question behind `explain` to the scheduler that answers it.

use api::dto::NodeVerdict;
use api::explain::{Explain, Waiting};
use async_trait::async_trait;
use model::RunId;
use scheduler::Candidate;
use scheduler_shell::SchedulerHandle;

/// Asks this process's scheduler.
pub(crate) struct Explaining {
    scheduler: SchedulerHandle,
}

impl Explaining {
    pub(crate) fn new(scheduler: SchedulerHandle) -> Self {
        Self { scheduler }
    }
}

#[async_trait]
impl Explain for Explaining {
    async fn explain(&self, run: &RunId, step: usize) -> Option<Waiting> {
        let explanation = self.scheduler.explain(run, step).await?;
        Some(Waiting {
            summary: explanation.sentence,
            nodes: explanation.candidates.into_iter().map(verdict).collect(),
        })
    }
}

fn verdict(candidate: Candidate) -> NodeVerdict {
    NodeVerdict {
        node: candidate.node.to_string(),
        name: candidate.name,
        feasible: candidate.feasible,
        reason: candidate.reason,
        // At most `scheduler::fit::SCORE_MAX`, which fits.
        score: candidate.score.and_then(|score| i64::try_from(score).ok()),
    }
}
