//! Every JSON form of the REST interface: what clients send and what they are answered.
//!
//! Requests refuse unknown fields; answers may grow fields, so a client ignores what it does not
//! know. Times are milliseconds of the Unix epoch (`*_ms`), durations milliseconds, sizes bytes.
//! Not here: how a form is made from the store's records (`rest`), log text (`logs`).

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// Where a run stands, as in [`model::RunStatus`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// No step has been placed.
    Queued,
    /// At least one step was placed and at least one has not ended.
    Running,
    /// Every step ended well, was allowed to fail, or was skipped.
    Success,
    /// A step failed, or the run never got steps.
    Failed,
    /// It was cancelled.
    Cancelled,
    /// A step reached its time-out and none failed otherwise.
    TimedOut,
}

impl From<model::RunStatus> for RunStatus {
    fn from(status: model::RunStatus) -> Self {
        match status {
            model::RunStatus::Queued => Self::Queued,
            model::RunStatus::Running => Self::Running,
            model::RunStatus::Success => Self::Success,
            model::RunStatus::Failed => Self::Failed,
            model::RunStatus::Cancelled => Self::Cancelled,
            model::RunStatus::TimedOut => Self::TimedOut,
        }
    }
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

    /// The status with this word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.as_str() == word)
    }

    /// Every status, in the order of a run's life.
    pub const ALL: [Self; 6] = [
        Self::Queued,
        Self::Running,
        Self::Success,
        Self::Failed,
        Self::Cancelled,
        Self::TimedOut,
    ];
}

/// Where a step stands, as in [`model::StepStatus`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StepStatus {
    /// Its needs have not ended.
    Pending,
    /// It could start and waits for a node.
    Queued,
    /// It has a node, which prepares it.
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
    /// Never started: something it needs failed.
    Skipped,
}

impl From<model::StepStatus> for StepStatus {
    fn from(status: model::StepStatus) -> Self {
        match status {
            model::StepStatus::Pending => Self::Pending,
            model::StepStatus::Queued => Self::Queued,
            model::StepStatus::Assigned => Self::Assigned,
            model::StepStatus::Running => Self::Running,
            model::StepStatus::Success => Self::Success,
            model::StepStatus::Failed => Self::Failed,
            model::StepStatus::Cancelled => Self::Cancelled,
            model::StepStatus::TimedOut => Self::TimedOut,
            model::StepStatus::Skipped => Self::Skipped,
        }
    }
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

    /// The word of the contract.
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
}

/// What caused a run, as in [`model::Event`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// Commits arrived on a branch.
    Push,
    /// A tag arrived.
    Tag,
    /// A person or a program asked for it.
    Manual,
}

impl From<model::Event> for Event {
    fn from(event: model::Event) -> Self {
        match event {
            model::Event::Push => Self::Push,
            model::Event::Tag => Self::Tag,
            model::Event::Manual => Self::Manual,
        }
    }
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

/// Body of `POST /pipelines/{team}/{pipeline}/runs`. At most one of `branch` and `tag`;
/// `commit_sha` alone, or together with the branch or tag that it is built for. Nothing at all:
/// the newest commit of the default branch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateRun {
    /// A branch's name, without `refs/heads/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// A commit's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit_sha: Option<String>,
    /// A tag's name, without `refs/tags/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// Values for the `on.manual.inputs` of the pipeline file, by name: texts, numbers, booleans.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub inputs: Option<BTreeMap<String, serde_json::Value>>,
    /// Extra environment of the run.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub variables: BTreeMap<String, String>,
    /// Makes a new run even if the same was asked for within the last minute.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
}

/// A run that a request has led to: 201 when it was made by it, 200 when it was there already.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RunCreated {
    /// The run.
    pub run_id: String,
    /// Counts the pipeline's runs from 1; null for the moment until its file has been read (202).
    pub number: Option<u64>,
    /// Where it stands.
    pub status: RunStatus,
    /// Its page.
    pub web_url: String,
    /// True when this request made it.
    pub created: bool,
}

/// Body of `POST /events/push`: what a `post-receive` hook is given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PushEvent {
    /// The repository's address, as the pipeline names it; a path and its `file://` form are the
    /// same, so are addresses with and without a trailing `/` or `.git`.
    pub repository: String,
    /// The full ref, e.g. `refs/heads/main`.
    #[serde(rename = "ref")]
    pub git_ref: String,
    /// The full id of the ref's new commit; all zeros when the ref was deleted.
    pub commit: String,
    /// The full id of the commit that the ref was at before; all zeros when the ref is new. Without it
    /// `paths`, `changes` and `changed()` do not know what changed, and take everything for changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
}

/// Answer of `POST …/steps/{step}/start`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StartAccepted {
    /// The run.
    pub run_id: String,
    /// The step.
    pub step: String,
    /// One plain sentence.
    pub message: String,
}

/// What became of a push event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PushAccepted {
    /// One plain sentence.
    pub message: String,
    /// One for each pipeline of the repository whose file means the event.
    pub runs: Vec<PushedRun>,
    /// The pipelines, as `team/pipeline`, whose file makes no run of the event.
    #[serde(default)]
    pub without_run: Vec<String>,
}

/// One run of a push event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PushedRun {
    /// The pipeline's team.
    pub team: String,
    /// The pipeline.
    pub pipeline: String,
    /// The run.
    #[serde(flatten)]
    pub run: RunCreated,
}

/// A run in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RunSummary {
    /// The run.
    pub run_id: String,
    /// Counts the pipeline's runs from 1; null for the moment until its file has been read.
    pub number: Option<u64>,
    /// The tenant.
    pub team: String,
    /// The pipeline.
    pub pipeline: String,
    /// Where it stands.
    pub status: RunStatus,
    /// What caused it.
    pub event: Event,
    /// The full ref.
    #[serde(rename = "ref")]
    pub git_ref: String,
    /// The branch, when the ref is one.
    pub branch: Option<String>,
    /// The tag, when the ref is one.
    pub tag: Option<String>,
    /// The full commit id; empty when it could not be resolved.
    pub commit: String,
    /// First line of the commit's message.
    pub message: String,
    /// The commit's author.
    pub author: String,
    /// The token that asked for it.
    pub requested_by: String,
    /// How many steps it has.
    pub steps: usize,
    /// Why it never got steps.
    pub error: Option<String>,
    /// When its trigger was accepted.
    pub created_ms: u64,
    /// First instruction of its first step.
    pub started_ms: Option<u64>,
    /// End of its last step, once the run has ended.
    pub ended_ms: Option<u64>,
    /// Its page.
    pub web_url: String,
}

/// A page of runs, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RunList {
    /// The page. It may be shorter than `limit` although more follow.
    pub runs: Vec<RunSummary>,
    /// Give it as `cursor` for the next page; null at the end.
    pub next_cursor: Option<String>,
    /// Set when the list is not whole: finished runs of some seconds ago and older are missing
    /// while their database does not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

/// A run with all its steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RunDetail {
    /// What a list shows.
    #[serde(flatten)]
    pub summary: RunSummary,
    /// The pipeline file's `title`.
    pub title: Option<String>,
    /// A person's retry makes it 2.
    pub attempt: u32,
    /// The repository's address.
    pub repository: String,
    /// Extra environment of the run.
    pub variables: BTreeMap<String, String>,
    /// One line for each finding in the pipeline file: `line:column: what, and how to mend it`.
    pub findings: Vec<String>,
    /// True when somebody asked to cancel it.
    pub cancel_requested: bool,
    /// The request that caused it.
    pub request_id: String,
    /// In order.
    pub stages: Vec<StageDetail>,
}

/// A stage of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StageDetail {
    /// Its name.
    pub name: String,
    /// Its steps, in the order of the file.
    pub steps: Vec<StepDetail>,
}

/// A step of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StepDetail {
    /// Its name, unique within the run.
    pub name: String,
    /// Free text for people.
    pub title: Option<String>,
    /// Its place in the pipeline file, from 0.
    pub ordinal: usize,
    /// Where it stands.
    pub status: StepStatus,
    /// The ordinal of the newest try, from 1; 0 before the first.
    pub attempt: u32,
    /// The node's id.
    pub node: Option<String>,
    /// The node's host name, while the node is known.
    pub node_name: Option<String>,
    /// One plain sentence: why it is in this status.
    pub reason: Option<String>,
    /// The script's exit code, when it ended by itself.
    pub exit_code: Option<i32>,
    /// How it ended: `exited`, `signaled`, `out_of_memory`, `timed_out`, `cancelled`,
    /// `command_missing`, `start_failed`, `lost`, `output_refused`.
    pub outcome: Option<String>,
    /// The names of the steps that it waits for.
    pub needs: Vec<String>,
    /// A failure of it does not fail the run.
    pub allow_failure: bool,
    /// The image.
    pub image: String,
    /// From its first instruction to the kill.
    pub timeout_ms: u64,
    /// What is reserved for it and enforced as limits.
    pub resources: Resources,
    /// Where the time before its first instruction went, in order.
    pub phases: Vec<Phase>,
    /// What it used; null until it has ended.
    #[serde(rename = "use")]
    pub usage: Option<Usage>,
    /// When it did what.
    pub times: Times,
    /// Length of its whole log; null until it has ended.
    pub log_bytes: Option<u64>,
    /// Not to be placed again before this time: the pause before a retry.
    pub retry_at_ms: Option<u64>,
    /// It starts only when a person says so: `POST …/steps/{step}/start`.
    #[serde(default)]
    pub manual: bool,
    /// What it wrote into `$BUILDFLOW_OUTPUT`, by key.
    #[serde(default)]
    pub outputs: BTreeMap<String, String>,
    /// What it wrote into `$BUILDFLOW_SUMMARY`: Markdown, not to be trusted as HTML.
    #[serde(default)]
    pub summary: Option<String>,
    /// Every try, oldest first, the newest among them; of very many the oldest are left out.
    pub attempts: Vec<AttemptDetail>,
}

/// A try of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AttemptDetail {
    /// Its ordinal, from 1.
    pub attempt: u32,
    /// The node's id.
    pub node: Option<String>,
    /// The node's host name, while the node is known.
    pub node_name: Option<String>,
    /// How it ended, as in [`StepDetail::outcome`]; null until then, and for one that was taken
    /// from a drained node.
    pub outcome: Option<String>,
    /// The script's exit code, when it ended by itself.
    pub exit_code: Option<i32>,
    /// One plain sentence: why it ended, or why there was another one.
    pub reason: Option<String>,
    /// True when it has ended.
    pub ended: bool,
    /// True when it counts against `retry.max`; a drain does not.
    pub counts: bool,
    /// When it did what.
    pub times: Times,
    /// What it used; null until it has ended.
    #[serde(rename = "use")]
    pub usage: Option<Usage>,
    /// Length of its whole log; null until it has ended, and when its tail was lost with its node.
    pub log_bytes: Option<u64>,
    /// True when the rest of its log was lost with its node.
    pub log_lost: bool,
}

/// An amount of each resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Resources {
    /// Thousandths of a core.
    pub cpu_millis: u64,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Bytes of the writable layer.
    pub disk_bytes: u64,
}

impl From<model::Resources> for Resources {
    fn from(r: model::Resources) -> Self {
        Self {
            cpu_millis: r.cpu_millis,
            memory_bytes: r.memory_bytes,
            disk_bytes: r.disk_bytes,
        }
    }
}

/// One part of a step's way to its first instruction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Phase {
    /// What was done, e.g. `image`, `checkout`, `launch`.
    pub name: String,
    /// How long it took.
    pub ms: u64,
    /// How many bytes were fetched for it.
    pub bytes: u64,
}

/// What a step used, as the kernel counted it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Usage {
    /// Highest memory.
    pub memory_peak_bytes: u64,
    /// CPU time.
    pub cpu_ms: u64,
    /// Time in which the CPU limit held it back.
    pub throttled_ms: u64,
}

/// When a step did what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Times {
    /// Its needs were satisfied.
    pub queued_ms: Option<u64>,
    /// It got its node.
    pub assigned_ms: Option<u64>,
    /// The first instruction of its process, by the node's clock.
    pub started_ms: Option<u64>,
    /// Its container was gone, by the node's clock.
    pub ended_ms: Option<u64>,
}

/// Data of the SSE event `step`: a step changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StepChanged {
    /// The run.
    pub run_id: String,
    /// The step's name.
    pub step: String,
    /// The step's place in the pipeline file, from 0.
    pub ordinal: usize,
    /// Where it stands now.
    pub status: StepStatus,
    /// The ordinal of the newest try.
    pub attempt: u32,
    /// The node's id.
    pub node: Option<String>,
    /// One plain sentence: why.
    pub reason: Option<String>,
    /// Length of its whole log, once it has ended.
    pub log_bytes: Option<u64>,
}

/// Data of the SSE events `run` (the run's status changed) and `end` (nothing follows).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RunChanged {
    /// The run.
    pub run_id: String,
    /// Where it stands now.
    pub status: RunStatus,
}

/// Answer of `POST /runs/{run_id}/cancel`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CancelAccepted {
    /// The run.
    pub run_id: String,
    /// Where it stands now: cancelling takes a moment.
    pub status: RunStatus,
    /// One plain sentence.
    pub message: String,
}

/// Answer of `GET /runs/{run_id}/steps/{step}/explain`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StepExplained {
    /// The run.
    pub run_id: String,
    /// The step's name.
    pub step: String,
    /// Where it stands.
    pub status: StepStatus,
    /// One plain sentence: why here, or why not yet.
    pub summary: String,
    /// Needed steps that have not ended.
    pub waits_for: Vec<String>,
    /// What it asks for.
    pub resources: Resources,
    /// The labels that it asks for.
    pub labels: BTreeMap<String, String>,
    /// Why it was placed where it was, in the scheduler's words.
    pub placement: Option<String>,
    /// What the scheduler holds against, or for, each node; empty once it is placed.
    pub nodes: Vec<NodeVerdict>,
}

/// What the scheduler says of one node for one step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeVerdict {
    /// The node's id.
    pub node: String,
    /// The node's host name.
    pub name: String,
    /// True when the step could run there.
    pub feasible: bool,
    /// One plain sentence: what is missing, or why it fits.
    pub reason: String,
    /// The greater the better; null when it is not feasible.
    pub score: Option<i64>,
}

/// Body of `POST /pipelines`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreatePipeline {
    /// The team; `default` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub team: Option<String>,
    /// Unique within the team; `[a-z0-9][a-z0-9._-]{0,62}`.
    pub name: String,
    /// `file:///…`, an absolute path, `http(s)://…`, `ssh://…` or `user@host:path`.
    pub repository: String,
    /// Path of the pipeline file inside the repository; `.buildflow.yml` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

/// Body of `PUT /pipelines/{team}/{pipeline}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PutPipeline {
    /// As in [`CreatePipeline`].
    pub repository: String,
    /// As in [`CreatePipeline`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

/// A registered pipeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Pipeline {
    /// The tenant.
    pub team: String,
    /// Unique within the team.
    pub name: String,
    /// Where the sources are.
    pub repository: String,
    /// Path of the pipeline file inside the repository.
    pub file: String,
    /// When it was registered.
    pub created_ms: u64,
    /// Its newest run.
    pub last_run: Option<RunSummary>,
}

/// A page of pipelines, in order of team and name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PipelineList {
    /// The page.
    pub pipelines: Vec<Pipeline>,
    /// Give it as `cursor` for the next page; null at the end.
    pub next_cursor: Option<String>,
}

/// JSON body of `POST /pipelines/validate`; the file itself as `application/yaml` or `text/plain` does as well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ValidatePipeline {
    /// The pipeline file's text.
    pub text: String,
    /// Files of the same repository that it includes, by path. Files of other repositories cannot be
    /// checked here.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, String>,
    /// What the run would be made for. Without it only the file is looked at, and what depends on an
    /// event stays open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<ValidateEvent>,
    /// Whether to say what each expression is.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub explain: bool,
}

/// An event for which a pipeline file is checked.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ValidateEvent {
    /// `push`, `tag`, `manual`, `pull_request`, `merge_group`, `schedule` or `pipeline`.
    pub event: String,
    /// The branch; for `tag` the tag.
    pub branch: String,
    /// The commit.
    pub commit: String,
    /// The author of the commit.
    pub author: String,
    /// First line of the commit's message.
    pub message: String,
    /// The default branch of the repository; `main` when empty.
    pub default_branch: String,
    /// The branch that a pull request wants to go into.
    pub base: String,
    /// What a person entered.
    #[schema(value_type = Object)]
    pub inputs: BTreeMap<String, serde_json::Value>,
    /// Extra environment of the run.
    pub variables: BTreeMap<String, String>,
    /// The files that changed; null: that is not known.
    pub changed: Option<Vec<String>>,
}

/// Answer of `POST /pipelines/validate`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PipelineValidated {
    /// True when there are no findings.
    pub valid: bool,
    /// All that is wrong, in order of lines.
    pub findings: Vec<Finding>,
    /// What would run; null when it is not valid.
    pub plan: Option<Plan>,
    /// Why the event makes no run of the file; null when it makes one.
    #[serde(default)]
    pub without_run: Option<String>,
    /// What else should be known, one sentence each.
    #[serde(default)]
    pub notes: Vec<String>,
    /// What each expression is, if that was asked for.
    #[serde(default)]
    pub explained: Vec<ExplainedExpression>,
}

/// What an expression of a pipeline file is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExplainedExpression {
    /// The included file in which it stands; null: the file itself.
    pub file: Option<String>,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// The step for which it was evaluated; null: it stands in a key of the file.
    pub step: Option<String>,
    /// The key that it stands in.
    pub key: String,
    /// As it is written.
    pub expression: String,
    /// Its value; when that is known only later, what is left of the expression.
    pub value: String,
    /// Whether it is known when the run is made.
    pub known: bool,
}

/// Something wrong in a pipeline file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Finding {
    /// The included file that it is about; null: the file itself.
    #[serde(default)]
    pub file: Option<String>,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// How to mend it.
    pub help: Option<String>,
}

/// What a pipeline file would run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Plan {
    /// The file's `name`.
    pub name: Option<String>,
    /// In order.
    pub stages: Vec<PlanStage>,
}

/// A stage of a [`Plan`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlanStage {
    /// Its name.
    pub name: String,
    /// Its steps.
    pub steps: Vec<PlanStep>,
}

/// A step of a [`Plan`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlanStep {
    /// Its name.
    pub name: String,
    /// The image.
    pub image: String,
    /// The names of the steps that it waits for.
    pub needs: Vec<String>,
    /// From its first instruction to the kill.
    pub timeout_ms: u64,
    /// What is reserved for it.
    pub resources: Resources,
    /// What is asked when its needs have ended; null: whether they have ended well.
    #[serde(default)]
    pub condition: Option<String>,
    /// Why it will be skipped, when that is certain.
    #[serde(default)]
    pub skipped: Option<String>,
    /// It waits for a person to start it.
    #[serde(default)]
    pub manual: bool,
    /// Keys whose value depends on the event, with what is written there.
    #[serde(default)]
    pub open: BTreeMap<String, String>,
}

/// A registered node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Node {
    /// Its id.
    pub node_id: String,
    /// The host's name.
    pub name: String,
    /// True while a server holds its stream.
    pub connected: bool,
    /// The server that holds its stream, or held it last; null once its lease has run out.
    pub server: Option<String>,
    /// Whether it may go on with what it has.
    pub lease: NodeLease,
    /// Whether it takes steps.
    pub eligibility: NodeEligibility,
    /// Who cordoned or drained it.
    pub cordoned_by: Option<String>,
    /// Since when it is cordoned.
    pub cordoned_ms: Option<u64>,
    /// How far its drain is, while it is drained.
    pub drain: Option<DrainProgress>,
    /// What was asked of it and is not in force yet, e.g. `cordon`; oldest first.
    pub asked: Vec<String>,
    /// Grows with every registration.
    pub epoch: u64,
    /// What steps may take in all.
    pub capacity: Resources,
    /// What is left of it, by the allocations that stand.
    pub free: Resources,
    /// Most allocations at once.
    pub slots: u32,
    /// Allocations that stand.
    pub allocations: usize,
    /// What a step's `labels` are matched against.
    pub labels: BTreeMap<String, String>,
    /// What the agent found on the machine.
    pub facts: NodeFacts,
    /// When it last registered.
    pub registered_ms: u64,
}

/// Whether a node may go on with what it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NodeLease {
    /// Its agent is connected and renews it.
    Renewed,
    /// Its stream has ended: it goes on until the lease ends or it connects again.
    RunningOut,
    /// Its agent has ended everything; its steps are placed elsewhere.
    Expired,
}

/// Whether a node takes steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NodeEligibility {
    /// It does, while it is connected.
    Eligible,
    /// It finishes what it has.
    Cordoned,
    /// It finishes what it has, until the deadline of its drain.
    Draining,
    /// An operator has confirmed that this registration is gone.
    Gone,
}

/// How far a drain is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DrainProgress {
    /// When what still runs is placed elsewhere, milliseconds of the Unix epoch; null: never.
    pub deadline_ms: Option<u64>,
    /// Steps that are still on it.
    pub orders_left: usize,
}

/// Body of `POST /nodes/{node}/drain`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DrainNode {
    /// How long its steps may go on, e.g. `45m`, `90s`, `2h`; what runs longer is placed elsewhere.
    /// Absent: every step ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<String>,
}

/// Answer of the routes that change a node: 200 when it is in force, 202 when the leader has yet
/// to act.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeChange {
    /// One plain sentence.
    pub message: String,
    /// The node as it is now.
    pub node: Node,
}

/// What an agent found on its machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeFacts {
    /// `uname -r`.
    pub kernel: String,
    /// `v1`, `hybrid` or `v2`.
    pub cgroups: String,
    /// The agent's release.
    pub agent_version: String,
    /// Identifies the boot.
    pub boot_id: String,
}

/// All nodes, in order of names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeList {
    /// The nodes.
    pub nodes: Vec<Node>,
}

/// A node and what runs on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeDetail {
    /// What the list shows.
    #[serde(flatten)]
    pub node: Node,
    /// What stands on it, oldest first.
    pub running: Vec<NodeAllocation>,
}

/// A step that has room on a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeAllocation {
    /// The allocation.
    pub alloc_id: String,
    /// The run.
    pub run_id: String,
    /// The run's team.
    pub team: Option<String>,
    /// The run's pipeline.
    pub pipeline: Option<String>,
    /// The run's number.
    pub number: Option<u64>,
    /// The step's place in the pipeline file, from 0.
    pub ordinal: usize,
    /// The step's name.
    pub step: Option<String>,
    /// Where the step stands.
    pub status: Option<StepStatus>,
    /// The ordinal of the try.
    pub attempt: u32,
    /// What is reserved for it.
    pub resources: Resources,
    /// When it was placed.
    pub created_ms: u64,
    /// True when it is to end early.
    pub stopping: bool,
}

/// Answer of `GET /healthz`: the process runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// Always `ok`.
    pub status: String,
    /// The program's release.
    pub version: String,
}

/// Answer of `GET /readyz`: whether this server can do its work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Readiness {
    /// True when everything below is well.
    pub ready: bool,
    /// This server's name.
    pub server: String,
    /// The server that leads; null while nobody does.
    pub leader: Option<String>,
    /// True when the store has just answered.
    pub store: bool,
    /// True when the picture of the store's state is complete and follows it.
    pub view: bool,
    /// True when this server leads.
    pub leads: bool,
    /// True when the store has not answered for so long that nothing can be written.
    pub quorum_lost: bool,
    /// True when blobs can be read. Without them builds go on and logs wait on the nodes.
    pub blobs: bool,
    /// True when finished runs can be searched. Without history builds go on and archiving waits.
    pub history: bool,
    /// What is not well, in plain sentences.
    pub problems: Vec<String>,
}

/// Answer of `GET` and `POST /session`: who is logged in, and what this server can do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Session {
    /// The token's name.
    pub name: String,
    /// What the token allows.
    pub role: String,
    /// This server's name.
    pub server: String,
    /// The program's release.
    pub version: String,
    /// What this release does not support yet, as `METHOD /path` below `/api/v1`.
    pub not_yet: Vec<String>,
}

/// Some lines of a log. Bytes that are not UTF-8 are shown as `U+FFFD`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogLines {
    /// Of which attempt.
    pub attempt: u32,
    /// The number of the first line, from 1.
    pub line: u64,
    /// The offset of its first byte.
    pub offset: u64,
    /// The offset after the last line and its line feed.
    pub end_offset: u64,
    /// The lines without their line feeds. There may be fewer than were asked for; the next ones
    /// are asked for by number. The last line of a log may grow.
    pub lines: Vec<String>,
    /// True when the last of them ends with a line feed.
    pub ended: bool,
    /// Lines of which only the beginning is shown.
    pub cut: Vec<LogCut>,
    /// How many lines the log has so far, an unfinished one included.
    pub total_lines: u64,
    /// How many bytes it has so far.
    pub total_bytes: u64,
    /// True when the step has ended and all of its log is there.
    pub complete: bool,
    /// True when the rest of it was lost with its node.
    pub lost: bool,
    /// Where the output of each entry of `before`, `run` and `after` begins, as far as they have.
    pub sections: Vec<LogSection>,
}

/// A line that is shown in part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogCut {
    /// Its number.
    pub line: u64,
    /// How many bytes it has in all.
    pub bytes: u64,
}

/// What one entry printed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogSection {
    /// The number of the line above its output.
    pub line: u64,
    /// The entry's name, or the beginning of its command.
    pub title: String,
    /// True when the pipeline file names it.
    pub named: bool,
}

/// What was found in a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogMatches {
    /// In the log of which attempt.
    pub attempt: u32,
    /// In order of lines.
    pub matches: Vec<LogMatch>,
    /// Give it as `line` to search on; null when the log's end was reached.
    pub next_line: Option<u64>,
    /// How many lines were searched.
    pub lines_searched: u64,
    /// How many lines the log has so far.
    pub total_lines: u64,
}

/// A line that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogMatch {
    /// Its number, from 1.
    pub line: u64,
    /// The offset of its first byte.
    pub offset: u64,
    /// The line without escape sequences, or what stands around the first match in a long one.
    pub text: String,
}

/// A log as JSON: lines, or what was found with `q`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum LogAnswer {
    /// With `line` or `count`.
    Lines(LogLines),
    /// With `q`.
    Matches(LogMatches),
}

/// Body of `POST /join-tokens`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateJoinToken {
    /// Shown in lists; `join` unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How long it goes, seconds: 1 to 2592000, 3600 unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in_s: Option<u64>,
    /// How many machines may join with it; any number unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses: Option<u32>,
}

/// A join token, without its text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JoinToken {
    /// Names it for `DELETE /join-tokens/{id}`.
    pub id: String,
    /// As it was given.
    pub name: String,
    /// When it was made, milliseconds of the Unix epoch.
    pub created_ms: u64,
    /// When it ends, milliseconds of the Unix epoch.
    pub expires_ms: u64,
    /// How many machines may still join with it; null: any number.
    pub uses_left: Option<u32>,
}

/// Answer of `POST /join-tokens`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JoinTokenCreated {
    /// The text for `buildflow node join`. It is shown once.
    pub token: String,
    /// The rest of it.
    #[serde(flatten)]
    pub about: JoinToken,
}

/// Answer of `GET /join-tokens`, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JoinTokenList {
    /// The tokens, without their texts.
    pub join_tokens: Vec<JoinToken>,
}

/// Answer of `GET /node-certificates`: when the certificates of nodes end, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeCertificates {
    /// Machines that have joined and were not removed.
    pub members: usize,
    /// Of these, those whose certificate has ended: they have to join again.
    pub ended: usize,
    /// Of these, those of whose certificate the end is not known before they renew it.
    pub unknown: usize,
    /// Those that end first, at most 100, the first one first; also those that have ended.
    pub nearest: Vec<NodeCertificate>,
}

/// When a node's newest certificate ends. Its agent renews it after two thirds of its life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeCertificate {
    /// The node.
    pub node_id: String,
    /// The host's name when it joined.
    pub name: String,
    /// Milliseconds of the Unix epoch.
    pub ends_ms: u64,
}

/// Every error: RFC 9457 `application/problem+json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// `urn:buildflow:problem:<word>`; the word is stable and made for programs.
    #[serde(rename = "type")]
    pub kind: String,
    /// What kind of problem it is, in a few words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What was wrong with this request, and how to mend it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The path that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// As in the header `X-Request-Id`: quote it when asking for help.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Where exactly, when the fault lies in parts of the request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<ProblemPlace>,
}

/// One faulty part of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProblemPlace {
    /// The field, e.g. `variables.A B`, or the parameter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Line of the body, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// Column of the body, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<usize>,
    /// What is wrong and how to mend it.
    pub message: String,
}
