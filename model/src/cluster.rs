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
    /// When it was accepted.
    pub accepted_ms: u64,
    /// The request that brought it.
    pub request_id: String,
    /// The token's name.
    pub requested_by: String,
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
}

impl Record for Request {
    const KIND: &'static str = "request";
    const VERSION: u16 = 1;
}

/// `session/<node>`, leased: which server holds the node's stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRecord {
    /// The node.
    pub node: NodeId,
    /// The server's name; other servers proxy log readers to it.
    pub server: String,
    /// The node's registration number.
    pub node_epoch: u64,
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
