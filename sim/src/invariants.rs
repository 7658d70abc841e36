//! What must hold after every event, read from the store's own history and from the machines.
//!
//! I2: one terminal result a step, legal transitions, fences that only grow. I4: no step is placed
//! before its needs ended well. I5: orders never exceed a node's capacity.

use crate::workload::Planned;
use model::key::{self, RunKey};
use model::{Allocation, NodeId, NodeRecord, Observed, Outcome, Resources, RunId, StepRecord, StepStatus};
use pipeline::progress::{Progress, Records};
use std::collections::BTreeMap;
use store::Change;

/// The store as its changes tell it.
#[derive(Debug, Default)]
pub(crate) struct Watcher {
    definitions: BTreeMap<RunId, Planned>,
    records: BTreeMap<RunId, Records>,
    nodes: BTreeMap<NodeId, NodeRecord>,
    orders: BTreeMap<String, Allocation>,
    /// How many steps ended, by status.
    pub(crate) ended: BTreeMap<StepStatusWord, usize>,
}

type StepStatusWord = &'static str;

impl Watcher {
    pub(crate) fn triggered(&mut self, planned: &Planned) {
        self.definitions.insert(planned.header.id.clone(), planned.clone());
    }

    /// Takes the changes of one revision, in which a placement writes step and order together.
    pub(crate) fn on_revision(&mut self, changes: &[Change]) {
        for change in changes {
            self.on_change(change);
        }
        for change in changes.iter().filter(|c| c.key.starts_with(key::ALLOCS)) {
            if let Some(order) = self.orders.get(&change.key) {
                let node = order.node.clone();
                self.check_capacity(&node);
            }
        }
    }

    fn on_change(&mut self, change: &Change) {
        if let Some(RunKey::Step(run, step)) = key::parse_run(&change.key) {
            // What removes it is checked where runs leave the live store.
            let Some(value) = change.value.as_deref() else { return };
            let record: StepRecord = model::decode(value).expect("a step's record");
            self.on_step(&run, step, record);
        } else if change.key.starts_with(key::NODES) {
            let value = change.value.as_deref().expect("a node is never removed");
            let node: NodeRecord = model::decode(value).expect("a node's record");
            self.nodes.insert(node.id.clone(), node);
        } else if change.key.starts_with(key::ALLOCS) {
            match change.value.as_deref() {
                Some(value) => self
                    .orders
                    .insert(change.key.clone(), model::decode(value).expect("an order")),
                None => self.orders.remove(&change.key),
            };
        }
    }

    fn on_step(&mut self, run: &RunId, step: usize, record: StepRecord) {
        let planned = self.definitions.get(run).expect("a run that was triggered");
        let records = self.records.entry(run.clone()).or_default();
        let before = records.get(&step).map_or(StepStatus::Pending, |r| r.status);
        if record.status == StepStatus::Assigned {
            let ready = Progress::of(&planned.header, &planned.def, records);
            assert!(
                ready.ready().contains(&step),
                "I4: step {step} of {run} was placed and is not ready"
            );
        }
        check_attempts(run, step, records.get(&step), &record);
        check_accepted(run, step, records.get(&step), &record);
        if record.status.is_terminal() {
            *self.ended.entry(record.status.as_str()).or_default() += 1;
        }
        let from = if before == StepStatus::Pending && record.status == StepStatus::Assigned {
            StepStatus::Queued
        } else {
            before
        };
        let to = record.status;
        assert!(
            from.may_become(to),
            "I2: step {step} of {run} went from {} to {}",
            from.as_str(),
            to.as_str()
        );
        let fence = records.get(&step).map(|r| r.fence).unwrap_or_default();
        assert!(record.fence >= fence, "I2: the fence of step {step} of {run} fell");
        records.insert(step, record);
    }

    fn check_capacity(&self, node: &NodeId) {
        let Some(record) = self.nodes.get(node) else {
            panic!("an order for node {node}, which never registered");
        };
        let here = self.orders.values().filter(|o| o.node == *node);
        let sum = here.clone().fold(Resources::default(), |sum, o| {
            sum.checked_add(&o.resources).expect("small")
        });
        let count = here.count();
        assert!(
            record.capacity.fits(&sum) && count <= record.slots as usize,
            "I5: node {node} has {:?} and {} slots, granted are {sum:?} and {count}",
            record.capacity,
            record.slots
        );
    }

    /// The step's needs ended well: whoever starts it now is right to do so.
    pub(crate) fn check_start(&self, order: &Allocation) {
        let planned = self.definitions.get(&order.run).expect("a run that was triggered");
        let records = &self.records[&order.run];
        let mut before = records.clone();
        before.remove(&order.step);
        let progress = Progress::of(&planned.header, &planned.def, &before);
        assert!(
            progress.ready().contains(&order.step),
            "I4: {} was started too early",
            order.id
        );
    }

    /// Whether every step of the run has ended.
    pub(crate) fn is_over(&self, run: &RunId) -> bool {
        let (Some(planned), Some(records)) = (self.definitions.get(run), self.records.get(run)) else {
            return false;
        };
        (0..planned.def.steps.len()).all(|s| records.get(&s).is_some_and(|r| r.status.is_terminal()))
    }

    pub(crate) fn orders(&self) -> impl Iterator<Item = &Allocation> {
        self.orders.values()
    }

    /// What happened to the steps of a run, as far as the store has ever said.
    pub(crate) fn records(&self, run: &RunId) -> Option<&Records> {
        self.records.get(run)
    }

    pub(crate) fn record(&self, run: &RunId, step: usize) -> Option<&StepRecord> {
        self.records.get(run)?.get(&step)
    }

    /// The accepted result is the one that the node reported for exactly this attempt.
    pub(crate) fn check_result(&self, run: &RunId, step: usize, truth: &BTreeMap<model::AllocId, Observed>) {
        let record = self.record(run, step).expect("the step has ended");
        let Some(alloc) = &record.alloc else {
            assert!(
                matches!(record.status, StepStatus::Skipped | StepStatus::Cancelled),
                "step {step} of {run} is {} without an attempt",
                record.status.as_str()
            );
            return;
        };
        if matches!(record.outcome, Some(Outcome::Lost { .. })) {
            // The leader's word: the node may never have told.
            return;
        }
        let reported = truth
            .get(alloc)
            .unwrap_or_else(|| panic!("{alloc} never reported its end"));
        assert_eq!(record.outcome, reported.outcome, "the outcome of {alloc}");
        assert_eq!(record.fence, reported.fence, "the fence of {alloc}");
        assert_eq!(record.log_bytes, reported.log_bytes, "the log of {alloc}");
    }
}

/// What has been accepted of an attempt is never changed: neither the result of a step nor what
/// became of an earlier attempt.
fn check_accepted(run: &RunId, step: usize, before: Option<&StepRecord>, after: &StepRecord) {
    let Some(before) = before else { return };
    assert!(
        !before.status.is_terminal(),
        "I2: step {step} of {run} has ended and is written again"
    );
    let kept = before
        .earlier
        .iter()
        .filter(|b| after.earlier.iter().any(|a| a.alloc == b.alloc));
    for earlier in kept {
        assert!(
            after.earlier.contains(earlier),
            "I2: what became of {} was changed",
            earlier.alloc
        );
    }
}

/// A step's attempts are numbered without a gap, and none is forgotten while there is room.
fn check_attempts(run: &RunId, step: usize, before: Option<&StepRecord>, after: &StepRecord) {
    let placed = usize::from(after.status == StepStatus::Assigned);
    let counted = before.map_or(0, |b| b.attempt as usize) + placed;
    assert_eq!(
        after.attempt as usize, counted,
        "I2: the attempts of step {step} of {run}"
    );
    let again = usize::from(after.status == StepStatus::Queued);
    let kept = before.map_or(0, |b| b.earlier.len()) + again;
    let most = model::step::EARLIER_MAX;
    assert_eq!(
        after.earlier.len(),
        kept.min(most),
        "the earlier attempts of step {step} of {run}"
    );
}
