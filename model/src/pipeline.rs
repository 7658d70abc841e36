//! A registered pipeline: which repository, which file.

use crate::id::{PipelineName, TeamName};
use crate::record::{Record, Unknown};
use serde::{Deserialize, Serialize};

/// The pipeline file's path unless the pipeline says another.
pub const DEFAULT_FILE: &str = ".buildflow.yml";

/// `pipeline/<team>/<name>`: written by the API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PipelineRecord {
    /// The tenant.
    pub team: TeamName,
    /// Unique within the team.
    pub name: PipelineName,
    /// Where the sources are: `file:///…`, `http(s)://…`, `ssh://…` or `user@host:path`.
    pub repository: String,
    /// Path of the pipeline file inside the repository.
    pub file: String,
    /// When it was created.
    pub created_ms: u64,
    /// Fields of a newer release.
    #[serde(flatten)]
    pub unknown: Unknown,
}

impl Record for PipelineRecord {
    const KIND: &'static str = "pipeline";
    const VERSION: u16 = 1;
}
