//! The small records around runs: teams, tokens, triggers, requests, sessions, the cluster itself.

use crate::id::{NodeId, PipelineName, RunId, TeamName};
use crate::record::{Record, Unknown};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// `cluster/version`: gates what may be written while releases are mixed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterVersion {
    /// The format of the store; 1 so far.
    pub format: u32,
    /// Grows when the cluster is restored from a backup.
    pub epoch: u32,
    /// Fields of a newer release.
    #[serde(flatten)]
    pub unknown: Unknown,
}

impl Record for ClusterVersion {
    const KIND: &'static str = "cluster";
    const VERSION: u16 = 1;
}

/// `team/<name>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TeamRecord {
    /// Its own name.
    pub name: TeamName,
    /// When it was created.
    pub created_ms: u64,
    /// Fields of a newer release.
    #[serde(flatten)]
    pub unknown: Unknown,
}

impl Record for TeamRecord {
    const KIND: &'static str = "team";
    const VERSION: u16 = 1;
}

/// What a token allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Everything of the API.
    Admin,
    /// A node's stream and nothing else.
    Node,
}

/// `token/<hash>`: the text itself is shown once and never stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// Shown in lists and as the author of what is done with it.
    pub name: String,
    /// What it allows.
    pub role: Role,
    /// When it was made.
    pub created_ms: u64,
    /// Fields of a newer release.
    #[serde(flatten)]
    pub unknown: Unknown,
}

impl Record for TokenRecord {
    const KIND: &'static str = "token";
    const VERSION: u16 = 1;
}

/// `number/<team>/<pipeline>`: the number of the pipeline's newest run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NumberRecord {
    /// 0 before the first run.
    pub last: u64,
    /// Fields of a newer release.
    #[serde(flatten)]
    pub unknown: Unknown,
}

impl Record for NumberRecord {
    const KIND: &'static str = "number";
    const VERSION: u16 = 1;
}

/// `inbox/<delivery>`: a trigger that was accepted and is not yet a run. The run's id is chosen
/// here, so that working through the inbox twice makes one run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InboxEntry {
    /// The run that it becomes.
    pub run: RunId,
    /// Of which pipeline.
    pub team: TeamName,
    /// Of which pipeline.
    pub pipeline: PipelineName,
    /// The full ref.
    pub git_ref: String,
    /// The full commit id; empty: the newest of the ref.
    pub commit: String,
    /// What caused it.
    pub event: crate::run::Event,
    /// Extra environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub variables: BTreeMap<String, String>,
    /// What a person entered.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub inputs: BTreeMap<String, serde_json::Value>,
    /// The commit that the ref was at before; `None`: that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// When it was accepted.
    pub accepted_ms: u64,
    /// The request that brought it.
    pub request_id: String,
    /// The token's name.
    pub requested_by: String,
    /// W3C trace context of what caused it, handed on to every step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// Fields of a newer release.
    #[serde(flatten)]
    pub unknown: Unknown,
}

impl Record for InboxEntry {
    const KIND: &'static str = "inbox";
    const VERSION: u16 = 1;
}

/// `dedupe/<hash>`, leased: the run that this trigger has led to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DedupeRecord {
    /// The run.
    pub run: RunId,
    /// Hash of what was asked for, under a key that the caller chose; empty otherwise.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub fingerprint: String,
    /// Fields of a newer release.
    #[serde(flatten)]
    pub unknown: Unknown,
}

impl Record for DedupeRecord {
    const KIND: &'static str = "dedupe";
    const VERSION: u16 = 1;
}

/// `request/<id>`: written by the API, acted on and removed by the leader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// What is wanted.
    #[serde(flatten)]
    pub what: RequestKind,
    /// The token's name.
    pub requested_by: String,
    /// When it was accepted.
    pub created_ms: u64,
    /// The request that brought it.
    pub request_id: String,
}

/// What the API may ask the leader for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum RequestKind {
    /// End everything of this run.
    Cancel {
        /// Which run.
        run: RunId,
    },
    /// Start a step that waits for a person.
    Start {
        /// Of which run.
        run: RunId,
        /// The step's name.
        step: String,
    },
    /// Place nothing more on this node; what runs there goes on.
    Cordon {
        /// Which node.
        node: NodeId,
    },
    /// Place steps on this node again; ends a drain.
    Uncordon {
        /// Which node.
        node: NodeId,
    },
    /// Cordon the node and, after the deadline, place what still runs there elsewhere.
    Drain {
        /// Which node.
        node: NodeId,
        /// Milliseconds of the Unix epoch; `None`: wait for every step to end.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        deadline_ms: Option<u64>,
    },
    /// An operator knows that the machine is gone: its steps need not wait for its lease.
    ConfirmGone {
        /// Which node.
        node: NodeId,
        /// The registration that is gone; a later one is not meant.
        node_epoch: u64,
    },
}

impl Record for Request {
    const KIND: &'static str = "request";
    const VERSION: u16 = 1;
}

fn connected() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out a reference")]
fn is_connected(connected: &bool) -> bool {
    *connected
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out a reference")]
fn is_unsaid(lease: &i64) -> bool {
    *lease == 0
}

/// `session/<node>`, leased: which server holds the node's stream. The key is never removed by
/// hand: that it is gone means that the node's lease has run out since its last renewal, so its
/// agent has ended everything that it was not told to keep.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRecord {
    /// The node.
    pub node: NodeId,
    /// The server's name.
    pub server: String,
    /// Where other servers reach that server, e.g. `https://10.0.0.1:7420`: they proxy log readers
    /// to it. Empty when it stands alone.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub address: String,
    /// The node's registration number.
    pub node_epoch: u64,
    /// The lease that it was registered under, by the store's number: tells one registration from
    /// another. 0: written by a release that did not say.
    #[serde(default, skip_serializing_if = "is_unsaid")]
    pub lease: i64,
    /// False once the stream has ended: nothing new is placed, but the node may go on with what it
    /// has until the lease ends.
    #[serde(default = "connected", skip_serializing_if = "is_connected")]
    pub connected: bool,
    /// Fields of a newer release.
    #[serde(flatten)]
    pub unknown: Unknown,
}

impl Record for SessionRecord {
    const KIND: &'static str = "session";
    const VERSION: u16 = 1;
}

/// `leader`, leased: who leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leader {
    /// The server's name.
    pub server: String,
    /// Fields of a newer release.
    #[serde(flatten)]
    pub unknown: Unknown,
}

impl Record for Leader {
    const KIND: &'static str = "leader";
    const VERSION: u16 = 1;
}

/// `eligibility/<node>`: what an operator wants of a node, as the leader carries it out. Absent:
/// the node takes steps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Eligibility {
    /// The node.
    pub node: NodeId,
    /// Who cordoned it: the token's name. Always set, a drain cordons too.
    pub cordoned_by: String,
    /// Since when, milliseconds of the Unix epoch.
    pub since_ms: u64,
    /// It is being drained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<Drain>,
    /// The registration that is known to be gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone_epoch: Option<u64>,
    /// Fields of a newer release.
    #[serde(flatten)]
    pub unknown: Unknown,
}

impl Record for Eligibility {
    const KIND: &'static str = "eligibility";
    const VERSION: u16 = 1;
}

/// A drain that has been asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    /// When what still runs is placed elsewhere, milliseconds of the Unix epoch; `None`: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
}

/// `join/<hash>`: lets a machine become a node. The text itself is shown once and never stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinToken {
    /// Shown in lists.
    pub name: String,
    /// When it was made.
    pub created_ms: u64,
    /// When it ends, milliseconds of the Unix epoch.
    pub expires_ms: u64,
    /// How many machines may still join with it; `None`: any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses_left: Option<u32>,
    /// Fields of a newer release.
    #[serde(flatten)]
    pub unknown: Unknown,
}

impl Record for JoinToken {
    const KIND: &'static str = "join";
    const VERSION: u16 = 1;
}

/// `member/<node>`: a machine that has joined with a certificate. Whoever is not among them is
/// refused, however good its certificate: removing this shuts a node out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The node.
    pub node: NodeId,
    /// The host's name when it joined.
    pub name: String,
    /// The join token's name.
    pub token: String,
    /// When it joined, milliseconds of the Unix epoch.
    pub joined_ms: u64,
    /// When the newest certificate ends that it was given, milliseconds of the Unix epoch; not known of
    /// one that has not renewed its certificate since this is written down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_ends_ms: Option<u64>,
    /// Fields of a newer release.
    #[serde(flatten)]
    pub unknown: Unknown,
}

impl Record for Member {
    const KIND: &'static str = "member";
    const VERSION: u16 = 1;
}

/// `cluster/authority`: whose certificates the servers of this store show. A server of another
/// cluster that is given the address of this store is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterAuthority {
    /// The cluster's id, as the certificates have it.
    pub cluster: String,
    /// Fields of a newer release.
    #[serde(flatten)]
    pub unknown: Unknown,
}

impl Record for ClusterAuthority {
    const KIND: &'static str = "cluster_authority";
    const VERSION: u16 = 1;
}

/// `cluster/retention`: up to where the logs of finished runs have been removed, so that a sweep begins
/// where the one before has ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retention {
    /// Of runs whose logs are kept for long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logs: Option<SweptTo>,
    /// Of all others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch_logs: Option<SweptTo>,
    /// Fields of a newer release.
    #[serde(flatten)]
    pub unknown: Unknown,
}

impl Record for Retention {
    const KIND: &'static str = "retention";
    const VERSION: u16 = 1;
}

/// The last run of a sweep.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SweptTo {
    /// When it was triggered, milliseconds of the Unix epoch.
    pub created_ms: u64,
    /// Which it is.
    pub run: RunId,
}

/// `outbox/archive/<run>`: a run that has left the live store and that history has to take. The
/// whole of it lies in the blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchivedRun {
    /// The run as lists show it; the greater `attempt` of the same run wins.
    pub summary: RunSummary,
    /// The blob that holds header, definition and steps.
    pub blob: String,
    /// When it was archived.
    pub archived_ms: u64,
    /// Fields of a newer release.
    #[serde(flatten)]
    pub unknown: Unknown,
}

impl Record for ArchivedRun {
    const KIND: &'static str = "archived";
    const VERSION: u16 = 1;
}

/// What is searched and listed of a finished run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunSummary {
    /// Its id; ids sort by the time of the trigger.
    pub id: RunId,
    /// The tenant.
    pub team: TeamName,
    /// The pipeline.
    pub pipeline: PipelineName,
    /// Counts the pipeline's runs.
    pub number: u64,
    /// The run's own attempt.
    pub attempt: u32,
    /// How it ended.
    pub status: crate::run::RunStatus,
    /// What was built and why.
    pub source: crate::run::Source,
    /// When the trigger was accepted.
    pub created_ms: u64,
    /// The first instruction of its first step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_ms: Option<u64>,
    /// The end of its last step.
    pub ended_ms: u64,
    /// How many steps it has.
    pub steps: usize,
    /// Who asked for it.
    pub requested_by: String,
    /// Why it failed before it had steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<crate::run::RunError>,
}
