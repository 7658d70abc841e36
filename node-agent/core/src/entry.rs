//! What of an allocation is on disk: enough to go on after the agent was killed at any moment.
//!
//! Not here: files. An entry is written whole, durably, before the effects that rest on it:
//!
//! | durable | before |
//! |---|---|
//! | [`Progress::Accepted`] | the container is launched, `Preparing` is reported |
//! | [`Progress::Running`] | `Running` is reported |
//! | [`Progress::Ended`] | `Ended` is reported |
//! | [`Progress::Done`] | the log and the folders are removed |

use crate::order::Order;
use model::{Left, Outcome, Phase, Usage};
use serde::{Deserialize, Serialize};

/// One allocation in the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// What was ordered.
    pub order: Order,
    /// The boot in which it was accepted: nothing that ran outlives it.
    pub boot_id: String,
    /// How far it is.
    pub progress: Progress,
}

/// How far an allocation is, as far as a restarted agent must know. Only ever grows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Progress {
    /// It may have been launched; the launcher's traces say whether it was.
    Accepted,
    /// The first instruction has run.
    Running {
        /// When, milliseconds of the Unix epoch.
        started_ms: u64,
        /// Where the time before it went.
        phases: Vec<Phase>,
    },
    /// The container is gone, or never was, and the outcome is known.
    Ended(Box<End>),
    /// The server has everything; only the id is kept, so that a late order does not start it again.
    Done(Box<End>),
}

impl Progress {
    pub(crate) fn rank(&self) -> u8 {
        match self {
            Self::Accepted => 0,
            Self::Running { .. } => 1,
            Self::Ended(_) => 2,
            Self::Done(_) => 3,
        }
    }
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// The first instruction, if there was one.
    pub started_ms: Option<u64>,
    /// Container gone, or the failure before it.
    pub ended_ms: u64,
    /// Where the time before the first instruction went.
    pub phases: Vec<Phase>,
    /// What became of it.
    pub outcome: Outcome,
    /// Length of the whole log.
    pub log_bytes: u64,
    /// What it used.
    pub usage: Usage,
    /// What it left for others.
    #[serde(default)]
    pub left: Left,
}
