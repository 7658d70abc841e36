//! A report and a step's record become the step's next record.
//!
//! The node's word on how an attempt ended is final: exit code 0 is a success, an end at the
//! time-out is a time-out, anything else of its own is a failure. An attempt that was told to stop
//! and ended well all the same **keeps its success**: what it did has been done, and the report may
//! have been on its way already. Any other end of a stopped attempt is a cancellation: a script
//! that dies of the signal we sent has not failed by itself. Its outcome is kept either way.
//!
//! Not here: whether the report belongs to the step's newest attempt ([`crate::plan`] looks).

use model::{Allocation, Observed, ObservedState, Outcome, StepRecord, StepStatus, Stop};

/// What a report means for a step.
#[derive(Debug, Clone, PartialEq)]
pub enum Folded {
    /// Nothing new.
    Unchanged,
    /// The step's next record.
    Changed(Box<StepRecord>),
}

/// Folds a report of the allocation that serves the step into the step's record. Folding the same
/// report into the result again changes nothing.
#[must_use]
pub fn fold(record: &StepRecord, alloc: &Allocation, report: &Observed, now_ms: u64) -> Folded {
    let mut next = record.clone();
    let status = match report.state {
        ObservedState::Preparing => return Folded::Unchanged,
        ObservedState::Running => StepStatus::Running,
        ObservedState::Ended => ended_status(alloc.stop, report.outcome.as_ref()),
    };
    if next.advance(status).is_err() {
        return Folded::Unchanged;
    }
    next.times.started_ms = report.started_ms.or(next.times.started_ms);
    if !report.phases.is_empty() {
        next.phases.clone_from(&report.phases);
    }
    if report.state == ObservedState::Ended {
        let outcome = report.outcome.clone().unwrap_or_else(|| Outcome::Lost {
            message: "the node reported its end without an outcome".to_owned(),
        });
        next.reason = reason(status, &outcome);
        next.outcome = Some(outcome);
        next.times.ended_ms = Some(report.ended_ms.unwrap_or(now_ms));
        // A reader of the log waits for this many bytes, so it has to be told a number.
        next.log_bytes = Some(report.log_bytes.unwrap_or(0));
        next.usage = report.usage;
    }
    Folded::Changed(Box::new(next))
}

fn ended_status(stop: Option<Stop>, outcome: Option<&Outcome>) -> StepStatus {
    match (stop, outcome) {
        (_, Some(outcome)) if outcome.is_success() => StepStatus::Success,
        (_, Some(Outcome::Cancelled)) | (Some(Stop::Cancelled), _) => StepStatus::Cancelled,
        (_, Some(Outcome::TimedOut { .. })) => StepStatus::TimedOut,
        (_, _) => StepStatus::Failed,
    }
}

fn reason(status: StepStatus, outcome: &Outcome) -> Option<String> {
    match (status, outcome) {
        (StepStatus::Success, _) => None,
        (StepStatus::Cancelled, Outcome::Cancelled) => Some(outcome.sentence()),
        (StepStatus::Cancelled, _) => Some(format!("was cancelled ({})", outcome.sentence())),
        _ => Some(outcome.sentence()),
    }
}
