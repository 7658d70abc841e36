//! What decides whether and when a step of a run starts, besides its needs: conditions, groups of
//! concurrency, cells of a matrix; and what of a step is known only when it is ready.
//!
//! Not here: how an expression is read, and when it is asked (`pipeline`).

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Rules of a whole run.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RunRules {
    /// Runs of the same pipeline in the same group do not go on at the same time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<Concurrency>,
    /// The matrices, in the order of the file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub matrices: Vec<MatrixRules>,
}

impl RunRules {
    /// True when it says nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Rules of one step.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StepRules {
    /// Asked when the needs have ended; `None`: they must have ended well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<Condition>,
    /// Starts only when a person says so; the run ends without it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub manual: bool,
    /// The step is a cell of this matrix: an ordinal of [`RunRules::matrices`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matrix: Option<usize>,
    /// Steps of runs of the same pipeline in the same group do not run at the same time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<Concurrency>,
    /// How urgent it is among the steps of its team; `None`: by the trigger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<Priority>,
    /// Variables whose values are known when the step is ready. None of them is in [`crate::StepDef::env`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub late_env: BTreeMap<String, Vec<Piece>>,
    /// Entries of [`crate::StepDef::run`], by ordinal, that run only if this is true when the step is ready.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub entry_conditions: BTreeMap<usize, String>,
}

impl StepRules {
    /// True when it says nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What is asked when the needs of a step have ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// An expression over `needs`, `run.number`, `run.attempt` and how the needs have ended; `false`
    /// when it was decided when the run was made.
    pub expression: String,
    /// It is asked also when a need has ended badly.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub whatever_ends: bool,
    /// One plain sentence for a step that is skipped because it is false.
    pub skipped: String,
}

/// A part of a text that is known only when a step is ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Piece {
    /// Characters.
    Text(String),
    /// An expression, as in [`Condition::expression`].
    Expression(String),
}

/// Membership in a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Concurrency {
    /// The group's name within the pipeline.
    pub group: String,
    /// Who comes later ends what goes on in the group.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cancel_in_progress: bool,
    /// What becomes of those that wait.
    #[serde(default)]
    pub queue: Queue,
}

/// Who of those that wait for a group may stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Queue {
    /// Only the newest: an older one that waits is cancelled when a newer one comes.
    #[default]
    Latest,
    /// All, the oldest first.
    All,
}

/// How urgent a step is among the steps of its team.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// Nightly work.
    Low,
    /// Pushes to branches.
    Normal,
    /// The default branch.
    High,
    /// A hotfix: has to be granted by an operator.
    Critical,
}

impl Priority {
    /// The word of the contract.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

/// What holds for the cells of one matrix together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MatrixRules {
    /// The name of the step as it stands in the file.
    pub step: String,
    /// The first cell that fails ends the others.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fail_fast: bool,
    /// How many cells may run at the same time; `None`: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_parallel: Option<u32>,
}
