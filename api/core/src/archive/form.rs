//! What is kept of a run when it has left the live store: all of it but its logs, in one document.
//!
//! A record as every other: it names its kind and version, and fields of a newer release are kept.
//! Not here: compression, and where the document lies.

use model::record::{Record, Unknown};
use model::{RunDef, RunHeader, RunStatus, RunSummary, StepRecord};
use pipeline::progress::{self, Records};
use serde::{Deserialize, Serialize};

/// The document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Form {
    /// The run's header.
    pub header: RunHeader,
    /// Its definition; `None` when it never got one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definition: Option<RunDef>,
    /// What happened to its steps, with all attempts, in order of their ordinals.
    pub steps: Vec<FormStep>,
    /// Fields of a newer release.
    #[serde(flatten)]
    pub unknown: Unknown,
}

/// What happened to a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FormStep {
    /// The step's ordinal in the definition.
    pub ordinal: usize,
    /// Its record.
    pub record: StepRecord,
}

impl Record for Form {
    const KIND: &'static str = "archive";
    const VERSION: u16 = 1;
}

impl Form {
    /// The document of a run.
    #[must_use]
    pub fn of(header: RunHeader, definition: Option<RunDef>, records: Records) -> Self {
        let steps = records.into_iter();
        Self {
            header,
            definition,
            steps: steps.map(|(ordinal, record)| FormStep { ordinal, record }).collect(),
            unknown: Unknown::new(),
        }
    }

    /// What happened to its steps, by ordinal.
    #[must_use]
    pub fn records(&self) -> Records {
        self.steps.iter().map(|s| (s.ordinal, s.record.clone())).collect()
    }
}

/// The blob of a run's attempt. The name is the same whoever archives it.
#[must_use]
pub fn blob_name(header: &RunHeader) -> String {
    format!("archive/{}/{}.json.zst", header.id, header.attempt)
}

/// What is searched and listed of a run; `None` while it goes on. The same conclusions as those
/// that are shown of a live run.
#[must_use]
pub fn summary(header: &RunHeader, definition: Option<&RunDef>, records: &Records) -> Option<RunSummary> {
    let status = match definition {
        Some(def) => progress::run_status(header, def, records),
        None => RunStatus::Failed,
    };
    if !status.is_terminal() {
        return None;
    }
    let last_end = records.values().filter_map(|r| r.times.ended_ms).max();
    Some(RunSummary {
        id: header.id.clone(),
        team: header.team.clone(),
        pipeline: header.pipeline.clone(),
        number: header.number,
        attempt: header.attempt,
        status,
        source: header.source.clone(),
        created_ms: header.created_ms,
        started_ms: records.values().filter_map(|r| r.times.started_ms).min(),
        ended_ms: last_end.unwrap_or(header.created_ms),
        steps: header.steps,
        requested_by: header.requested_by.clone(),
        error: header.error.clone(),
    })
}
