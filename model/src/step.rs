//! A step: its definition inside a run, the record of what happened to it, and its legal transitions.

use crate::allocation::{Left, Outcome, Phase, StartFailure, Usage};
use crate::id::{AllocId, Fence, NodeId, StepName};
use crate::record::{Record, Unknown};
use crate::resources::Resources;
use crate::rules::StepRules;
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
    /// When it is tried again by itself.
    #[serde(default, skip_serializing_if = "Retry::is_default")]
    pub retry: Retry,
    /// False: once its first instruction may have run it is never started again by itself.
    #[serde(default = "idempotent", skip_serializing_if = "is_true")]
    pub idempotent: bool,
    /// What decides whether and when it starts, besides its needs.
    #[serde(default, skip_serializing_if = "StepRules::is_empty")]
    pub rules: StepRules,
}

fn idempotent() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out a reference")]
fn is_true(flag: &bool) -> bool {
    *flag
}

/// The most retries that a step may ask for.
pub const RETRY_MAX: u32 = 10;

/// The longest first pause before a retry, milliseconds (10 minutes).
pub const RETRY_BACKOFF_MAX_MS: u64 = 600_000;

/// When a step is tried again by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retry {
    /// How many more tries there may be after the first; 0 to [`RETRY_MAX`].
    pub max: u32,
    /// Ends that are worth another try.
    pub on: Vec<RetryOn>,
    /// The pause before the second try, milliseconds, up to [`RETRY_BACKOFF_MAX_MS`]; each further
    /// pause is twice as long, with a random part. A lost node's step does not wait: it goes elsewhere.
    pub backoff_ms: u64,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            max: 2,
            on: vec![RetryOn::Infra],
            backoff_ms: 5_000,
        }
    }
}

impl Retry {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// An end of an attempt that is worth another try; written `infra`, `oom`, `timeout`, `failure`, `exit:75`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum RetryOn {
    /// The node or what it needs failed: lost, or not started for a reason that may pass.
    Infra,
    /// Killed at its memory limit.
    Oom,
    /// Ended at its time-out.
    Timeout,
    /// Any exit code but 0, or a signal.
    Failure,
    /// This exit code, 1 to 255.
    Exit(u8),
}

/// A text that names no end of an attempt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is none of infra, oom, timeout, failure, exit:1 to exit:255")]
pub struct RetryOnError(String);

impl RetryOn {
    /// Whether an attempt that ended so is to be tried again.
    #[must_use]
    pub fn covers(self, outcome: &Outcome) -> bool {
        match (self, outcome) {
            (Self::Infra, Outcome::Lost { .. }) | (Self::Oom, Outcome::OutOfMemory { .. }) => true,
            (Self::Infra, Outcome::StartFailed { cause, lasting, .. }) => !lasting && *cause != StartFailure::Spec,
            (Self::Timeout, Outcome::TimedOut { .. })
            | (Self::Failure, Outcome::Signaled { .. } | Outcome::OutputRefused { .. }) => true,
            (Self::Failure, Outcome::Exited { code }) => *code != 0,
            (Self::Exit(wanted), Outcome::Exited { code }) => i32::from(wanted) == *code,
            _ => false,
        }
    }
}

impl TryFrom<String> for RetryOn {
    type Error = RetryOnError;

    fn try_from(text: String) -> Result<Self, RetryOnError> {
        let code = |text: &str| text.strip_prefix("exit:")?.parse().ok().filter(|code| *code > 0);
        match text.as_str() {
            "infra" => Ok(Self::Infra),
            "oom" => Ok(Self::Oom),
            "timeout" => Ok(Self::Timeout),
            "failure" => Ok(Self::Failure),
            other => code(other).map(Self::Exit).ok_or(RetryOnError(text)),
        }
    }
}

impl From<RetryOn> for String {
    fn from(on: RetryOn) -> Self {
        match on {
            RetryOn::Infra => "infra".to_owned(),
            RetryOn::Oom => "oom".to_owned(),
            RetryOn::Timeout => "timeout".to_owned(),
            RetryOn::Failure => "failure".to_owned(),
            RetryOn::Exit(code) => format!("exit:{code}"),
        }
    }
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

/// The most characters of a command that are shown above its output.
pub const HEADING_CHARS_MAX: usize = 200;

impl Entry {
    /// The line that stands above the entry's output in the log: `==> name`, or `$ command`. The
    /// node writes it, and whoever shows the log finds the entry's section by it.
    #[must_use]
    pub fn heading(&self) -> String {
        match &self.name {
            Some(_) => format!("==> {}", self.title()),
            None => format!("$ {}", self.title()),
        }
    }

    /// The entry in a line: its name, or the beginning of its command; nothing in it moves a
    /// terminal's cursor.
    #[must_use]
    pub fn title(&self) -> String {
        if let Some(name) = &self.name {
            return plain(name);
        }
        let text = self.run.trim();
        let first = text.lines().next().unwrap_or_default();
        let shown = plain(first);
        let more = shown.chars().count() < first.chars().count() || text.lines().nth(1).is_some();
        format!("{shown}{}", if more { " …" } else { "" })
    }
}

fn plain(text: &str) -> String {
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    plain.take(HEADING_CHARS_MAX).collect()
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
    /// Never started: something it needs failed, or a rule of its own said so.
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
            // Without an attempt a step fails only by a rule of its own that cannot be asked.
            Pending => matches!(next, Queued | Skipped | Cancelled | Failed),
            Queued => matches!(next, Assigned | Skipped | Cancelled | Failed),
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
    /// What its newest attempt left for others.
    #[serde(default, skip_serializing_if = "Left::is_empty")]
    pub left: Left,
    /// Not to be placed before this time, milliseconds of the Unix epoch: the pause before a retry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_at_ms: Option<u64>,
    /// The attempts before the newest one, oldest first; at most [`EARLIER_MAX`], the oldest dropped.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<Attempt>,
    /// Fields of a newer release.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// The most earlier attempts that a step's record keeps: all retries and as many drains again.
pub const EARLIER_MAX: usize = 2 * RETRY_MAX as usize;

/// An attempt that ended and was followed by another one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// Its ordinal, from 1.
    pub attempt: u32,
    /// Its fence.
    pub fence: Fence,
    /// Its allocation.
    pub alloc: AllocId,
    /// Where it was.
    pub node: NodeId,
    /// How it ended; `None` when it was taken from a drained node before it had ended by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// One plain sentence: why there was another attempt.
    pub reason: String,
    /// Counts against [`Retry::max`]. A drain does not.
    pub counts: bool,
    /// Length of its whole log; `None` when its node is gone and its tail with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_bytes: Option<u64>,
    /// When it did what.
    #[serde(default)]
    pub times: Times,
    /// What it used.
    #[serde(default)]
    pub usage: Usage,
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
            left: Left::default(),
            retry_at_ms: None,
            earlier: Vec::new(),
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
