//! The question behind `explain`, asked of whoever leads.
//!
//! The scheduler's inside is none of this crate's business: the program that assembles the roles
//! wires this trait to the scheduler's handle. Not here: which needs a step waits for, and where it
//! was placed in the end; those stand in the store.

use crate::dto::NodeVerdict;
use async_trait::async_trait;
use model::RunId;

/// What the scheduler thinks of a step that is not placed yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// One plain sentence: why it has no node yet.
    pub summary: String,
    /// What is held against, or for, each node.
    pub nodes: Vec<NodeVerdict>,
}

/// Answers why a step has no node yet. Every method may be called concurrently; an answer is a
/// snapshot and changes nothing.
#[async_trait]
pub trait Explain: Send + Sync + 'static {
    /// What this server's scheduler knows of the step with this ordinal; `None` when it does not
    /// lead, or knows nothing of the step.
    async fn explain(&self, run: &RunId, step: usize) -> Option<Waiting>;
}

/// For a server without a scheduler: knows nothing of any step.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoExplain;

#[async_trait]
impl Explain for NoExplain {
    async fn explain(&self, _run: &RunId, _step: usize) -> Option<Waiting> {
        None
    }
}
