//! A run: one execution of a pipeline at a commit. Its header, its immutable definition in chunks,
//! and the words for its status.

use crate::id::{PipelineName, RunId, StepName, TeamName};
use crate::record::{Record, Unknown};
use crate::rules::RunRules;
use crate::step::StepDef;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The most steps that a run may have.
pub const STEPS_MAX: usize = 1_000;

/// The most bytes of a run's definition that go into one record, so that a few chunks and the
/// header stay below the store's limit of 1.5 MiB a transaction.
pub const DEF_CHUNK_MAX: usize = 512 * 1024;

/// `run/<id>`: written by the API, last, and never changed. It makes the run exist.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunHeader {
    /// Its own id.
    pub id: RunId,
    /// The tenant.
    pub team: TeamName,
    /// The pipeline.
    pub pipeline: PipelineName,
    /// Counts the runs of the pipeline, from 1, without gaps.
    pub number: u64,
    /// A person's retry makes it 2.
    pub attempt: u32,
    /// What was built and why.
    pub source: Source,
    /// Extra environment of this run.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub variables: BTreeMap<String, String>,
    /// What a person entered.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub inputs: BTreeMap<String, serde_json::Value>,
    /// When the trigger was accepted.
    pub created_ms: u64,
    /// How many definition chunks there are; 0 when `error` is set.
    pub def_chunks: usize,
    /// How many steps the definition holds, so that a list needs no definition.
    pub steps: usize,
    /// Why the run failed before it had steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<RunError>,
    /// The request that caused it, found again in every log line.
    pub request_id: String,
    /// Who asked: a token's name.
    pub requested_by: String,
    /// W3C trace context of what caused it, handed on to every step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// Fields of a newer release.
    #[serde(flatten)]
    pub unknown: Unknown,
}

impl Record for RunHeader {
    const KIND: &'static str = "run";
    const VERSION: u16 = 1;
}

/// Why a run never got steps: an unreachable repository, a missing or invalid pipeline file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunError {
    /// One plain sentence.
    pub message: String,
    /// One line for each finding in the file: `line:column: what, and how to mend it`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<String>,
}

/// What is built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The address that the nodes fetch from.
    pub repository: String,
    /// The full ref, e.g. `refs/heads/main`.
    pub git_ref: String,
    /// The full commit id; empty when it could not be resolved.
    pub commit: String,
    /// First line of the commit's message.
    #[serde(default)]
    pub message: String,
    /// The commit's author.
    #[serde(default)]
    pub author: String,
    /// What caused the run.
    pub event: Event,
}

impl Source {
    /// The branch, when the ref is one.
    #[must_use]
    pub fn branch(&self) -> Option<&str> {
        self.git_ref.strip_prefix("refs/heads/")
    }

    /// The tag, when the ref is one.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.git_ref.strip_prefix("refs/tags/")
    }
}

/// What caused a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// Commits arrived on a branch.
    Push,
    /// A tag arrived.
    Tag,
    /// A person or a program asked for it.
    Manual,
}

impl Event {
    /// The word of the contract.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::Tag => "tag",
            Self::Manual => "manual",
        }
    }
}

/// A compiled pipeline file: a checked DAG.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunDef {
    /// The file's `name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The file's `title`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// In order.
    pub stages: Vec<StageDef>,
    /// In the order of the file; the index is the step's ordinal everywhere.
    pub steps: Vec<StepDef>,
    /// What holds for the run as a whole.
    #[serde(default, skip_serializing_if = "RunRules::is_empty")]
    pub rules: RunRules,
}

/// A stage's name; which steps are in it is said by [`StepDef::stage`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageDef {
    /// Unique within the run.
    pub name: StepName,
}

/// `run/<id>/def/<n>`: a slice of the definition's JSON text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DefChunk {
    /// At most [`DEF_CHUNK_MAX`] bytes.
    pub text: String,
    /// Fields of a newer release.
    #[serde(flatten)]
    pub unknown: Unknown,
}

impl Record for DefChunk {
    const KIND: &'static str = "def";
    const VERSION: u16 = 1;
}

impl RunDef {
    /// The definition as chunks for the store.
    ///
    /// # Panics
    /// Never: a definition has string keys only, which always encode.
    #[must_use]
    pub fn to_chunks(&self) -> Vec<DefChunk> {
        let text = serde_json::to_string(self).expect("a definition has string keys only");
        let mut chunks = Vec::new();
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let mut end = rest.len().min(DEF_CHUNK_MAX);
            while !rest.is_char_boundary(end) {
                end -= 1;
            }
            let (head, tail) = rest.split_at(end);
            chunks.push(DefChunk {
                text: head.to_owned(),
                unknown: Unknown::new(),
            });
            rest = tail;
        }
        chunks
    }

    /// The definition from all its chunks in order.
    ///
    /// # Errors
    /// What the JSON reader says when a chunk is missing or damaged.
    pub fn from_chunks(chunks: &[DefChunk]) -> Result<Self, serde_json::Error> {
        let text: String = chunks.iter().map(|c| c.text.as_str()).collect();
        serde_json::from_str(&text)
    }

    /// The ordinal of the step with this name.
    #[must_use]
    pub fn step_index(&self, name: &str) -> Option<usize> {
        self.steps.iter().position(|s| s.name.as_str() == name)
    }
}

/// Where a run stands: derived from its steps, never stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// No step has been placed.
    Queued,
    /// At least one step was placed and at least one has not ended.
    Running,
    /// Every step ended well, or was allowed to fail, or was skipped.
    Success,
    /// A step failed.
    Failed,
    /// It was cancelled.
    Cancelled,
    /// A step reached its time-out and none failed otherwise.
    TimedOut,
}

impl RunStatus {
    /// True when nothing more happens by itself.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        !matches!(self, Self::Queued | Self::Running)
    }

    /// The word of the contract.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Success => "success",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::TimedOut => "timed_out",
        }
    }
}
