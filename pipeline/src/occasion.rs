//! What a run is made for: the event, the commit, what a person entered.
//!
//! Not here: who says so. Everything is handed in.

use serde_json::Value as Json;
use std::collections::BTreeMap;

/// What is known when a run is made from a pipeline file.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Occasion {
    /// `push`, `tag`, `manual`, …: the word of the contract.
    pub event: String,
    /// What is built.
    pub git: Git,
    /// The tenant.
    pub team: String,
    /// The pipeline.
    pub pipeline: String,
    /// The run's id.
    pub run_id: String,
    /// What a person entered, by the names under `on.manual.inputs`.
    pub inputs: BTreeMap<String, Json>,
    /// Extra environment of the run.
    pub variables: BTreeMap<String, String>,
    /// Files that the event changed; `None`: that is not known.
    pub changed: Option<Vec<String>>,
}

/// The commit and where it comes from.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Git {
    /// The full ref, e.g. `refs/heads/main`.
    pub git_ref: String,
    /// The full commit id.
    pub sha: String,
    /// The commit's author.
    pub author: String,
    /// First line of the commit's message.
    pub message: String,
    /// The repository's default branch; empty when it is not known.
    pub default_branch: String,
    /// The pull request, for events of one.
    pub pull_request: Option<PullRequest>,
}

/// A pull request.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PullRequest {
    /// Its number.
    pub number: u64,
    /// The branch that it wants to go into.
    pub base: String,
    /// Its labels.
    pub labels: Vec<String>,
    /// It comes from another repository.
    pub fork: bool,
}

impl Git {
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
