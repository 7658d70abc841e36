//! Wires the API's question behind `explain` to the scheduler that answers it.

use api::explain::{Explain, Waiting};
use async_trait::async_trait;
use model::RunId;
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
        // The sentence counts the nodes that pass each test; with a fleet of hundreds nobody reads a list.
        Some(Waiting {
            summary: explanation.sentence,
            nodes: Vec::new(),
        })
    }
}
