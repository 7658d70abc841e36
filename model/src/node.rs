//! A node: a machine whose agent has registered.

use crate::id::NodeId;
use crate::record::{Record, Unknown};
use crate::resources::Resources;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// `node/<id>`: written by the server that holds the node's stream, when the agent registers.
/// Free room is derived from the allocations, never stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Its own id.
    pub id: NodeId,
    /// The host's name, for people.
    pub name: String,
    /// Grows by one with every registration.
    pub epoch: u64,
    /// What steps may take in all.
    pub capacity: Resources,
    /// Most allocations at once.
    pub slots: u32,
    /// What a step's `labels` are matched against; `arch`, `os` and `hostname` are always there.
    pub labels: BTreeMap<String, String>,
    /// What the agent found on the machine.
    pub facts: NodeFacts,
    /// When it last registered.
    pub registered_ms: u64,
    /// Fields of a newer release.
    #[serde(flatten)]
    pub unknown: Unknown,
}

impl Record for NodeRecord {
    const KIND: &'static str = "node";
    const VERSION: u16 = 1;
}

/// What an agent found on its machine, for operators.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NodeFacts {
    /// `uname -r`.
    pub kernel: String,
    /// `v1`, `hybrid` or `v2`.
    pub cgroups: String,
    /// The agent's release.
    pub agent_version: String,
    /// Identifies the boot: running steps cannot outlive it.
    pub boot_id: String,
}
