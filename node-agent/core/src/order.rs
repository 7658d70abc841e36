//! An order as the agent keeps it: everything that is needed to run an attempt without asking again.
//!
//! Not here: the wire's form, which the shell reads.

use model::{AllocId, Fence, PipelineName, RunId, Source, StepDef, Stop, TeamName};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Run this.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Which allocation.
    pub alloc: AllocId,
    /// Carried by every report.
    pub fence: Fence,
    /// Set once when the attempt is to end early.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<Stop>,
    /// What to run, or why this node cannot know.
    pub work: Box<Work>,
}

/// What an order asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Work {
    /// A step.
    Step {
        /// The run.
        run: RunId,
        /// Counts the pipeline's runs.
        run_number: u64,
        /// The tenant.
        team: TeamName,
        /// The pipeline.
        pipeline: PipelineName,
        /// The name of the step's stage.
        stage: String,
        /// The step's ordinal in the run.
        step: usize,
        /// The ordinal of the try, from 1.
        attempt: u32,
        /// The step itself.
        def: Box<StepDef>,
        /// What is built.
        source: Box<Source>,
        /// Extra environment of the run.
        variables: BTreeMap<String, String>,
        /// W3C trace context, handed on to the step.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        traceparent: Option<String>,
        /// Of the request that caused the run: found again in every log line.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        request_id: String,
    },
    /// The order does not decode, e.g. because the server is of a newer release. The attempt ends
    /// with this message instead of waiting for ever.
    Unreadable {
        /// What did not decode and how to mend it.
        message: String,
    },
}
