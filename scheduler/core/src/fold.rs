//! A report and a step's record become the step's next record: it runs, it has ended, or it goes
//! back to the queue for another attempt.
//!
//! The node's word on how an attempt ended is final: exit code 0 is a success, an end at the
//! time-out is a time-out, anything else of its own is a failure. An attempt that was told to stop
//! and ended well all the same **keeps its success**: what it did has been done, and the report may
//! have been on its way already. Any other end of a cancelled attempt is a cancellation: a script
//! that dies of the signal we sent has not failed by itself. Its outcome is kept either way.
//!
//! An end that [`Retry`] covers gives another attempt while retries are left; one that a drain
//! brought about gives another one that does not count. A step that must not run twice goes back
//! only if its first instruction cannot have run.
//!
//! Not here: whether the report belongs to the step's newest attempt ([`crate::plan`] looks), and
//! how long the pause is ([`crate::pause`]).

use crate::pause::pause_ms;
use model::step::EARLIER_MAX;
use model::{
    Allocation, Attempt, Left, Observed, ObservedState, Outcome, Phase, Retry, StepRecord, StepStatus, Stop, Times,
    Usage,
};

/// What the definition and the run say about a further attempt.
#[derive(Debug, Clone, Copy)]
pub struct Policy<'a> {
    /// `None`: never, because the definition cannot be read.
    pub retry: Option<&'a Retry>,
    /// Whether the step may run a second time although it may have begun.
    pub idempotent: bool,
    /// Its run is being cancelled.
    pub cancelled: bool,
    /// The name of the attempt's node, for people.
    pub node: &'a str,
}

/// What a report means for a step.
#[derive(Debug, Clone, PartialEq)]
pub enum Folded {
    /// Nothing new.
    Unchanged,
    /// The step's next record. Unless it says that the step runs, the attempt is over: its order
    /// and report go.
    Changed(Box<StepRecord>),
}

/// Folds a report of the allocation that serves the step into the step's record. Folding the same
/// report into the result again changes nothing.
#[must_use]
pub fn fold(record: &StepRecord, alloc: &Allocation, policy: Policy<'_>, report: &Observed, now_ms: u64) -> Folded {
    if record.alloc.as_ref() != Some(&alloc.id) || record.status.is_terminal() {
        return Folded::Unchanged;
    }
    match report.state {
        ObservedState::Preparing => Folded::Unchanged,
        ObservedState::Running => {
            let mut next = record.clone();
            if next.advance(StepStatus::Running).is_err() {
                return Folded::Unchanged;
            }
            learn(&mut next, report.started_ms, &report.phases);
            Folded::Changed(Box::new(next))
        }
        ObservedState::Ended => {
            let mut next = record.clone();
            learn(&mut next, report.started_ms, &report.phases);
            next.times.ended_ms = Some(report.ended_ms.unwrap_or(now_ms));
            // A reader of the log waits for this many bytes, so it has to be told a number.
            next.log_bytes = Some(report.log_bytes.unwrap_or(0));
            next.usage = report.usage;
            next.left.clone_from(&report.left);
            let outcome = report.outcome.clone().unwrap_or_else(|| Outcome::Lost {
                message: "the node reported its end without an outcome".to_owned(),
            });
            changed(end(next, alloc, policy, outcome, now_ms))
        }
    }
}

/// The step's next record when its attempt is lost with its node, and `message` says why.
#[must_use]
pub fn lose(record: &StepRecord, alloc: &Allocation, policy: Policy<'_>, message: String, now_ms: u64) -> Folded {
    if record.alloc.as_ref() != Some(&alloc.id) || record.status.is_terminal() {
        return Folded::Unchanged;
    }
    let mut next = record.clone();
    next.times.ended_ms = Some(now_ms);
    // Nobody will ever know how much it wrote.
    next.log_bytes = None;
    next.usage = Usage::default();
    changed(end(next, alloc, policy, Outcome::Lost { message }, now_ms))
}

fn changed(next: Option<StepRecord>) -> Folded {
    next.map_or(Folded::Unchanged, |next| Folded::Changed(Box::new(next)))
}

fn learn(record: &mut StepRecord, started_ms: Option<u64>, phases: &[Phase]) {
    record.times.started_ms = started_ms.or(record.times.started_ms);
    if !phases.is_empty() {
        phases.clone_into(&mut record.phases);
    }
}

/// What comes after an attempt.
enum Next {
    Ends(StepStatus, Option<String>),
    Again(Again),
}

struct Again {
    /// Why there is another attempt.
    reason: String,
    /// It uses up one of the retries.
    counts: bool,
    pause_ms: Option<u64>,
}

/// `next` knows everything of the attempt but its outcome. `None` when its status forbids an end.
fn end(
    mut next: StepRecord,
    alloc: &Allocation,
    policy: Policy<'_>,
    outcome: Outcome,
    now_ms: u64,
) -> Option<StepRecord> {
    match what_follows(&next, alloc, policy, &outcome) {
        Next::Ends(status, reason) => {
            next.advance(status).ok()?;
            next.reason = reason;
            next.outcome = Some(outcome);
        }
        Next::Again(again) => {
            next.advance(StepStatus::Queued).ok()?;
            let drained = alloc.stop == Some(Stop::Drained);
            let outcome = Some(outcome).filter(|_| !drained);
            back_to_queue(&mut next, alloc, again, outcome, now_ms);
        }
    }
    Some(next)
}

fn what_follows(record: &StepRecord, alloc: &Allocation, policy: Policy<'_>, outcome: &Outcome) -> Next {
    let lost = matches!(outcome, Outcome::Lost { .. });
    let drained = alloc.stop == Some(Stop::Drained);
    if outcome.is_success() {
        return Next::Ends(StepStatus::Success, None);
    }
    let told = alloc.stop == Some(Stop::Cancelled) || (policy.cancelled && (lost || drained));
    if told || (*outcome == Outcome::Cancelled && !drained) {
        let told = alloc
            .stop_reason
            .as_ref()
            .filter(|_| alloc.stop == Some(Stop::Cancelled));
        let reason = match (outcome, told) {
            (Outcome::Cancelled, None) => outcome.sentence(),
            (Outcome::Cancelled, Some(why)) => format!("was cancelled: {why}"),
            (_, None) => format!("was cancelled ({})", outcome.sentence()),
            (_, Some(why)) => format!("was cancelled: {why} ({})", outcome.sentence()),
        };
        return Next::Ends(StepStatus::Cancelled, Some(reason));
    }
    let may_run_again = policy.idempotent || !may_have_begun(record, outcome);
    if drained {
        return after_drain(policy, may_run_again);
    }
    let used = counted(record);
    let left = policy.retry.filter(|r| used < r.max && !policy.cancelled);
    let worth = left.filter(|r| r.on.iter().any(|on| on.covers(outcome)));
    match worth {
        Some(retry) if may_run_again => Next::Again(Again {
            reason: outcome.sentence(),
            counts: true,
            pause_ms: (!lost).then(|| pause_ms(retry.backoff_ms, used, &alloc.id)),
        }),
        Some(_) => Next::Ends(
            ended_status(outcome),
            Some(format!(
                "{}; it is not started again because it is marked `idempotent: false` and may have begun",
                outcome.sentence()
            )),
        ),
        None => Next::Ends(ended_status(outcome), Some(last_sentence(outcome, used))),
    }
}

fn after_drain(policy: Policy<'_>, may_run_again: bool) -> Next {
    let node = policy.node;
    if may_run_again {
        Next::Again(Again {
            reason: format!("was taken from {node}, which is being drained"),
            counts: false,
            pause_ms: None,
        })
    } else {
        let reason = format!(
            "was ended because {node} is being drained; it is not started again because it is marked `idempotent: false` and had begun"
        );
        Next::Ends(StepStatus::Failed, Some(reason))
    }
}

/// False only when the first instruction cannot have run.
fn may_have_begun(record: &StepRecord, outcome: &Outcome) -> bool {
    match outcome {
        Outcome::StartFailed { .. } => false,
        Outcome::Cancelled | Outcome::CommandMissing { .. } => {
            record.status == StepStatus::Running || record.times.started_ms.is_some()
        }
        _ => true,
    }
}

/// How many retries are used up.
fn counted(record: &StepRecord) -> u32 {
    let used = record.earlier.iter().filter(|a| a.counts).count();
    u32::try_from(used).unwrap_or(u32::MAX)
}

fn ended_status(outcome: &Outcome) -> StepStatus {
    match outcome {
        Outcome::TimedOut { .. } => StepStatus::TimedOut,
        _ => StepStatus::Failed,
    }
}

fn last_sentence(outcome: &Outcome, used: u32) -> String {
    match used {
        0 => outcome.sentence(),
        used => format!("{}; it was tried {} times", outcome.sentence(), used.saturating_add(1)),
    }
}

/// The attempt becomes an earlier one, and the record that of a step which waits for a node. Which
/// fence and ordinal were the last stays in it.
fn back_to_queue(record: &mut StepRecord, alloc: &Allocation, again: Again, outcome: Option<Outcome>, now_ms: u64) {
    let retry_at_ms = again.pause_ms.map(|pause| now_ms.saturating_add(pause));
    record.earlier.push(Attempt {
        attempt: record.attempt,
        fence: record.fence,
        alloc: alloc.id.clone(),
        node: alloc.node.clone(),
        outcome,
        reason: again.reason.clone(),
        counts: again.counts,
        log_bytes: record.log_bytes,
        times: record.times,
        usage: record.usage,
    });
    while record.earlier.len() > EARLIER_MAX {
        // What counts is kept as long as possible: there are never more of them than retries.
        let oldest = record.earlier.iter().position(|a| !a.counts).unwrap_or(0);
        record.earlier.remove(oldest);
    }
    record.alloc = None;
    record.node = None;
    record.outcome = None;
    record.log_bytes = None;
    record.phases = Vec::new();
    record.usage = Usage::default();
    record.placement = None;
    record.left = Left::default();
    record.reason = Some(format!("attempt {} {}", record.attempt, again.reason));
    record.retry_at_ms = retry_at_ms;
    record.times = Times {
        queued_ms: Some(retry_at_ms.unwrap_or(now_ms)),
        ..Times::default()
    };
}
