//! A step: its definition inside a run, the record of what happened to it, and its legal transitions.

use crate::allocation::{Outcome, Phase, Usage};
use crate::id::{AllocId, Fence, NodeId, StepName};
use crate::record::{Record, Unknown};
use crate::resources::Resources;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One step as the compiler left it: everything a node needs to run it, nothing that happens later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepDef {
    /// Unique within the run.
    pub name: StepName,
    /// Free text for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Index into [`crate::RunDef::stages`].
    pub stage: usize,
    /// Ordinals of the steps that must have ended well before this one starts; sorted, no duplicates,
    /// never its own. Acyclic over the whole run.
    pub needs: Vec<usize>,
    /// A registry reference by tag or digest, or `oci:PATH`.
    pub image: String,
    /// What runs before the entries, in the same shell.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub before: Vec<Entry>,
    /// The entries, in order, in one shell.
    pub run: Vec<Entry>,
    /// What always runs after the entries, whatever their outcome.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<Entry>,
    /// Which shell reads the entries.
    pub shell: Shell,
    /// Relative to `/workspace`, or absolute.
    pub working_directory: String,
    /// `None`: an empty workspace.
    pub checkout: Option<Checkout>,
    /// `user`, `uid`, `user:group` or `uid:gid`; `None`: as the image says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The step's own variables, those of the run and pipeline merged in.
    pub env: BTreeMap<String, String>,
    /// From the first instruction to the kill, milliseconds.
    pub timeout_ms: u64,
    /// A failure does not fail the run and counts as satisfied for those that need it.
    pub allow_failure: bool,
    /// What is reserved on the node and enforced as limits.
    pub resources: Resources,
    /// Most processes and threads at once.
    pub pids: u64,
    /// Size of `/dev/shm`, bytes; counts as the step's memory.
    pub shm_bytes: u64,
    /// A node must carry all of these.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// One element of `run`, `before` or `after`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Heads a section of the log; `None`: the command itself is shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Shell text.
    pub run: String,
}

/// The interpreter of a step's entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shell {
    /// `sh -e`
    Sh,
    /// `bash -eo pipefail`
    Bash,
}

/// How the repository is laid into the workspace.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Checkout {
    /// Commits of history that the workspace's `.git` holds; `None`: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub depth: Option<u32>,
}

/// Where a step stands. `Queued` is never stored: it is what a step without a record is called
/// once its needs are satisfied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepStatus {
    /// Its needs have not ended.
    Pending,
    /// It could start and waits for a node.
    Queued,
    /// It has an allocation; the node prepares it.
    Assigned,
    /// Its first instruction has run.
    Running,
    /// Exit code 0.
    Success,
    /// Any other end of its own.
    Failed,
    /// Ended because a person or a rule said so.
    Cancelled,
    /// Ended at its time-out.
    TimedOut,
    /// Never started: something it needs failed, or the run was cancelled before.
    Skipped,
}

impl StepStatus {
    /// True when nothing more happens to the step by itself.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        match self {
            Self::Success | Self::Failed | Self::Cancelled | Self::TimedOut | Self::Skipped => true,
            Self::Pending | Self::Queued | Self::Assigned | Self::Running => false,
        }
    }

    /// The word that the API, the CLI and the log use.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Queued => "queued",
            Self::Assigned => "assigned",
            Self::Running => "running",
            Self::Success => "success",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::TimedOut => "timed_out",
            Self::Skipped => "skipped",
        }
    }

    /// Whether a step may go from `self` to `next`. A terminal status is never left; a repeated
    /// one is not a transition.
    #[must_use]
    pub fn may_become(self, next: Self) -> bool {
        use StepStatus::{Assigned, Cancelled, Failed, Pending, Queued, Running, Skipped, Success, TimedOut};
        match self {
            Pending => matches!(next, Queued | Skipped | Cancelled),
            Queued => matches!(next, Assigned | Skipped | Cancelled),
            // A node that dies takes the step back to the queue.
            Assigned => matches!(next, Running | Success | Failed | Cancelled | TimedOut | Queued),
            Running => matches!(next, Success | Failed | Cancelled | TimedOut | Queued),
            Success | Failed | Cancelled | TimedOut | Skipped => false,
        }
    }
}

/// A transition that [`StepStatus::may_become`] forbids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a step cannot go from {} to {}", from.as_str(), to.as_str())]
pub struct IllegalTransition {
    /// Where it stands.
    pub from: StepStatus,
    /// Where it was asked to go.
    pub to: StepStatus,
}

/// What has happened to a step: `run/<id>/step/<n>`. Written by the leader only.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Never `Pending`: a step to which nothing happened has no record.
    pub status: StepStatus,
    /// The ordinal of the newest try, from 1; 0 for a step that was never placed.
    pub attempt: u32,
    /// Of the newest allocation.
    pub fence: Fence,
    /// The newest allocation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alloc: Option<AllocId>,
    /// Where that allocation is or was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
    /// How it ended; `None` until then, and for a skipped step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// One plain sentence: why it is in this status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Length of the whole log in masked bytes; known when the step has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_bytes: Option<u64>,
    /// When it did what.
    #[serde(default)]
    pub times: Times,
    /// Where the time before the first instruction went, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub phases: Vec<Phase>,
    /// What it used; known when it has ended.
    #[serde(default)]
    pub usage: Usage,
    /// Why it was placed where it was: the scheduler's explanation, kept for `explain`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<String>,
    /// Fields of a newer release.
    #[serde(flatten)]
    pub unknown: Unknown,
}

impl Record for StepRecord {
    const KIND: &'static str = "step";
    const VERSION: u16 = 1;
}

impl StepRecord {
    /// The record of a step that gets its first status.
    #[must_use]
    pub fn first(status: StepStatus) -> Self {
        Self {
            status,
            attempt: 0,
            fence: Fence::default(),
            alloc: None,
            node: None,
            outcome: None,
            reason: None,
            log_bytes: None,
            times: Times::default(),
            phases: Vec::new(),
            usage: Usage::default(),
            placement: None,
            unknown: Unknown::new(),
        }
    }

    /// Moves to `next`.
    ///
    /// # Errors
    /// [`IllegalTransition`] when [`StepStatus::may_become`] forbids it; the record is unchanged.
    pub fn advance(&mut self, next: StepStatus) -> Result<(), IllegalTransition> {
        if !self.status.may_become(next) {
            return Err(IllegalTransition {
                from: self.status,
                to: next,
            });
        }
        self.status = next;
        Ok(())
    }
}

/// When a step did what, milliseconds of the Unix epoch; the last two by the node's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Times {
    /// Its needs were satisfied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queued_ms: Option<u64>,
    /// It got its allocation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assigned_ms: Option<u64>,
    /// The first instruction of its process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_ms: Option<u64>,
    /// Its container was gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_ms: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [StepStatus; 9] = [
        StepStatus::Pending,
        StepStatus::Queued,
        StepStatus::Assigned,
        StepStatus::Running,
        StepStatus::Success,
        StepStatus::Failed,
        StepStatus::Cancelled,
        StepStatus::TimedOut,
        StepStatus::Skipped,
    ];

    #[test]
    fn a_terminal_status_is_never_left() {
        for from in ALL.into_iter().filter(|s| s.is_terminal()) {
            for to in ALL {
                assert!(!from.may_become(to), "{from:?} -> {to:?}");
            }
        }
    }

    #[test]
    fn every_status_that_is_not_terminal_can_be_cancelled_and_none_repeats() {
        for from in ALL {
            assert!(!from.may_become(from), "{from:?}");
            assert_eq!(from.may_become(StepStatus::Cancelled), !from.is_terminal(), "{from:?}");
        }
    }

    #[test]
    fn a_refused_transition_changes_nothing() {
        let mut record = StepRecord::first(StepStatus::Success);
        let before = record.clone();
        let refused = record.advance(StepStatus::Running).expect_err("success is terminal");
        assert_eq!(refused.to_string(), "a step cannot go from success to running");
        assert_eq!(record, before);
    }
}
