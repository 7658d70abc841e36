//! A node's reports, gathered for each allocation and judged against what the store holds.
//!
//! An observation only ever grows, is filed only while its allocation stands under the same fence,
//! and is answered `accepted` after the allocation is gone only if this very allocation was folded
//! into its step, as its newest attempt or an earlier one. Not here: reading what a node sent,
//! reading and writing the store.

use model::{AllocId, Allocation, Observed, ObservedState, Outcome, StepRecord};
use std::collections::BTreeSet;

/// What the store holds about a report's allocation.
#[derive(Debug, Default)]
pub struct Held<'a> {
    /// The order, if it stands.
    pub order: Option<&'a Allocation>,
    /// What was filed.
    pub filed: Option<&'a Observed>,
    /// The step's record.
    pub step: Option<&'a StepRecord>,
}

/// What becomes of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is news and the allocation stands.
    File,
    /// As much or more is filed.
    Known,
    /// The allocation is gone because its end was folded into the step.
    Folded,
    /// The allocation does not stand.
    Refused,
}

/// Judges a report.
#[must_use]
pub fn judge(report: &Observed, held: &Held<'_>) -> Verdict {
    let Some(order) = held.order else {
        return if held.step.is_some_and(|step| is_folded(step, &report.alloc)) {
            Verdict::Folded
        } else {
            Verdict::Refused
        };
    };
    if order.fence != report.fence {
        return Verdict::Refused;
    }
    match held.filed {
        Some(filed) if filed.state >= report.state => Verdict::Known,
        Some(_) | None => Verdict::File,
    }
}

/// True when this very allocation's end is the step's end, or that of an earlier attempt: its log
/// is wanted until it is whole.
#[must_use]
pub fn is_folded(step: &StepRecord, alloc: &AllocId) -> bool {
    let newest = step.alloc.as_ref() == Some(alloc) && step.status.is_terminal();
    newest || step.earlier.iter().any(|e| e.alloc == *alloc)
}

/// What waits for one allocation: the farthest report, and every state that is to be acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gathered {
    /// The farthest.
    pub report: Observed,
    /// To be acknowledged.
    pub states: BTreeSet<ObservedState>,
}

impl Gathered {
    /// A report that nothing was gathered with yet.
    #[must_use]
    pub fn new(report: Observed) -> Self {
        Self {
            states: [report.state].into(),
            report,
        }
    }

    /// Adds another report of the same allocation.
    pub fn merge(&mut self, report: Observed) {
        self.states.insert(report.state);
        if report.state > self.report.state || report.fence != self.report.fence {
            self.report = report;
        }
    }

    /// What it costs in memory and in a transaction, bytes, roughly.
    #[must_use]
    pub fn size(&self) -> usize {
        let text = match &self.report.outcome {
            Some(
                Outcome::StartFailed { message, .. } | Outcome::Lost { message } | Outcome::OutputRefused { message },
            ) => message.len(),
            Some(Outcome::CommandMissing { command, message }) => command.len() + message.len(),
            _ => 0,
        };
        let phases: usize = self.report.phases.iter().map(|p| p.name.len() + 40).sum();
        let outputs = self.report.left.outputs.iter();
        let outputs: usize = outputs.map(|(key, text)| key.len() + text.len() + 8).sum();
        400 + text + phases + outputs + self.report.left.summary.len()
    }
}

/// The word of an acknowledgement.
#[must_use]
pub fn state_word(state: ObservedState) -> &'static str {
    match state {
        ObservedState::Preparing => "preparing",
        ObservedState::Running => "running",
        ObservedState::Ended => "ended",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ObservedState::{Ended, Preparing, Running};
    use model::{Fence, NodeId, Resources, RunId, StepStatus, Usage};

    /// A report of the `counter`-th allocation of step 0 of run `01jd`.
    fn observed(counter: u32, state: ObservedState) -> Observed {
        let fence = Fence { epoch: 1, counter };
        let ended = state == Ended;
        Observed {
            alloc: AllocId::for_step(&RunId::new("01jd").unwrap(), 0, fence),
            fence,
            state,
            started_ms: None,
            ended_ms: None,
            phases: Vec::new(),
            outcome: ended.then_some(Outcome::Exited { code: 0 }),
            log_bytes: ended.then_some(12),
            usage: Usage::default(),
            left: model::Left::default(),
            unknown: model::record::Unknown::new(),
        }
    }

    fn allocation(counter: u32) -> Allocation {
        let report = observed(counter, Preparing);
        Allocation {
            id: report.alloc,
            run: RunId::new("01jd").unwrap(),
            step: 0,
            attempt: counter,
            fence: report.fence,
            node: NodeId::new("n1").unwrap(),
            node_epoch: 1,
            resources: Resources::default(),
            created_ms: 0,
            stop: None,
            stop_reason: None,
            unknown: model::record::Unknown::new(),
        }
    }

    fn step(counter: u32, status: StepStatus) -> StepRecord {
        StepRecord {
            alloc: Some(observed(counter, Ended).alloc),
            ..StepRecord::first(status)
        }
    }

    /// A step whose newest attempt is the second one, after this one.
    fn retried(earlier: u32) -> StepRecord {
        let first = observed(earlier, Ended);
        StepRecord {
            earlier: vec![model::Attempt {
                attempt: earlier,
                fence: first.fence,
                alloc: first.alloc,
                node: NodeId::new("n1").unwrap(),
                outcome: first.outcome,
                reason: "ended with exit code 1".to_owned(),
                counts: true,
                log_bytes: Some(12),
                times: model::Times::default(),
                usage: Usage::default(),
            }],
            ..step(2, StepStatus::Running)
        }
    }

    #[test]
    fn an_observation_grows_and_never_falls_back() {
        let order = allocation(1);
        for (filed, sent, verdict) in [
            (None, Preparing, Verdict::File),
            (None, Ended, Verdict::File),
            (Some(Preparing), Running, Verdict::File),
            (Some(Preparing), Preparing, Verdict::Known),
            (Some(Running), Preparing, Verdict::Known),
            (Some(Ended), Running, Verdict::Known),
            (Some(Ended), Ended, Verdict::Known),
        ] {
            let filed = filed.map(|state| observed(1, state));
            let held = Held {
                order: Some(&order),
                filed: filed.as_ref(),
                step: None,
            };
            assert_eq!(judge(&observed(1, sent), &held), verdict, "{filed:?} {sent:?}");
        }
    }

    #[test]
    fn without_its_allocation_a_report_counts_only_if_it_was_folded() {
        for (step, verdict) in [
            (None, Verdict::Refused),
            (Some(step(1, StepStatus::Success)), Verdict::Folded),
            (Some(step(1, StepStatus::Queued)), Verdict::Refused),
            (Some(step(2, StepStatus::Success)), Verdict::Refused),
            (Some(step(2, StepStatus::Running)), Verdict::Refused),
            (Some(retried(1)), Verdict::Folded),
            (Some(retried(3)), Verdict::Refused),
        ] {
            let held = Held {
                step: step.as_ref(),
                ..Held::default()
            };
            assert_eq!(judge(&observed(1, Ended), &held), verdict, "{step:?}");
        }
    }

    #[test]
    fn another_fence_is_refused() {
        let order = allocation(1);
        let mut report = observed(1, Ended);
        report.fence.counter = 2;
        let held = Held {
            order: Some(&order),
            ..Held::default()
        };
        assert_eq!(judge(&report, &held), Verdict::Refused);
    }
}
