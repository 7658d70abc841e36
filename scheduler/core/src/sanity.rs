//! Walks every cross-reference of the view. Property tests and the simulator call it after every
//! event; nothing at run time depends on it.

use crate::cluster::Cluster;
use crate::group::{Groups, Word};
use crate::node::{Grant, Node};
use crate::queue::{Queue, Shares};
use crate::run::Run;
use crate::slot::Slot;
use model::{NodeId, StepStatus};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A cross-reference that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the view contradicts itself: {0}")]
pub struct Breach(pub String);

fn demand(holds: bool, what: impl FnOnce() -> String) -> Result<(), Breach> {
    if holds { Ok(()) } else { Err(Breach(what())) }
}

impl Cluster {
    /// Compares all that is kept up step by step with what follows from the records.
    ///
    /// # Errors
    /// The first [`Breach`] found.
    pub fn sanity_check(&mut self) -> Result<(), Breach> {
        self.refresh();
        self.check_grants()?;
        self.check_index()?;
        self.check_queue()?;
        self.check_groups()?;
        self.check_shares()?;
        self.check_in_flight()?;
        let live = self.runs.values().filter(|r| matches!(r, Run::Live(_))).count();
        demand(self.live_runs() == live, || {
            format!("{} live runs, should be {live}", self.live_runs())
        })
    }

    fn reserved(&self) -> BTreeMap<&NodeId, Grant> {
        let mut reserved: BTreeMap<&NodeId, Grant> = BTreeMap::new();
        for in_flight in self.in_flight.values() {
            if let crate::Action::Place { alloc, .. } = &*in_flight.action {
                let sum = reserved.entry(&alloc.node).or_default();
                *sum = sum.plus(&Grant::one(&alloc.resources));
            }
        }
        reserved
    }

    /// Grants are the sum of the allocations and never exceed the capacity that they were granted on.
    fn check_grants(&self) -> Result<(), Breach> {
        let mut used: BTreeMap<&NodeId, Grant> = BTreeMap::new();
        let mut of_older_registration: BTreeMap<&NodeId, bool> = BTreeMap::new();
        for alloc in self.allocs.values().filter_map(|a| a.slot.get()) {
            let sum = used.entry(&alloc.node).or_default();
            *sum = sum.plus(&Grant::one(&alloc.resources));
            let record = self.nodes.get(&alloc.node).and_then(|n| n.record.get());
            if record.is_none_or(|r| r.epoch != alloc.node_epoch) {
                of_older_registration.insert(&alloc.node, true);
            }
        }
        let reserved = self.reserved();
        for (id, node) in self.nodes.table() {
            let nothing = Grant::default();
            let kept = self
                .keeps
                .values()
                .filter(|k| k.node == *id)
                .fold(nothing, |sum, k| sum.plus(&k.grant));
            demand(node.kept == kept, || {
                format!("node {id}: keeps {:?}, should keep {kept:?}", node.kept)
            })?;
            let (used, reserved) = (used.get(id).unwrap_or(&nothing), reserved.get(id).unwrap_or(&nothing));
            demand(node.used == *used, || {
                format!("node {id}: used {:?}, its allocations {used:?}", node.used)
            })?;
            demand(node.reserved == *reserved, || {
                format!("node {id}: reserved {:?}, in flight {reserved:?}", node.reserved)
            })?;
            // A node that came back smaller may hold more than it has until its attempts end.
            let may_exceed = of_older_registration.contains_key(id);
            demand(may_exceed || node.used.within(&node.capacity()), || {
                format!("node {id}: granted {:?} of {:?}", node.used, node.capacity())
            })?;
        }
        let unknown = used
            .keys()
            .chain(reserved.keys())
            .find(|id| self.nodes.get(id).is_none());
        demand(unknown.is_none(), || {
            format!("allocations on node {unknown:?}, which is not in the table")
        })
    }

    fn check_index(&self) -> Result<(), Breach> {
        for (id, node) in self.nodes.table() {
            let expected = node.eligible().map(|_| node.free().room());
            let found = self.nodes.indexed_room(id);
            demand(found == expected, || {
                format!("node {id}: indexed with {found:?}, has {expected:?}")
            })?;
        }
        let total = self.nodes.table().values().filter_map(Node::usable);
        let total = total.fold(Grant::default(), |sum, r| sum.plus(&Grant::one(&r.capacity)));
        demand(*self.nodes.total() == total.resources, || {
            "the total is not the sum of the usable nodes".to_owned()
        })
    }

    /// The queue holds exactly the ready steps for which nothing is proposed.
    fn check_queue(&self) -> Result<(), Breach> {
        let mut expected = Queue::default();
        for (id, run) in &self.runs {
            let Run::Live(run) = run else { continue };
            let (Some((def, shapes)), Some(header)) = (run.def(), run.header.get()) else {
                continue;
            };
            if self.cancels.contains_key(&**id) || run.damage().is_some() {
                continue;
            }
            if self.groups.of_run(id).is_some_and(|(word, _)| word != Word::Go) {
                continue;
            }
            let held = |step: usize| {
                self.groups
                    .of_steps(id)
                    .any(|(of, word, _)| of == step && word != Word::Go)
            };
            for step in pipeline::progress::ready_steps(header, def, &run.records) {
                if !run.busy.contains(&step) && !run.pauses(step, self.wall_ms) && !held(step) {
                    expected.insert(&header.team, &shapes[step], run.age(id, step));
                }
            }
        }
        demand(self.queue == expected, || {
            format!("the queue has {}, should have {}", self.queue.len(), expected.len())
        })
    }

    /// In no group do two go on, unless both had begun before they could be told.
    fn check_groups(&self) -> Result<(), Breach> {
        let mut expected = Groups::default();
        for (id, run) in &self.runs {
            if let Run::Live(run) = run {
                expected.set(id, run.memberships());
            }
        }
        demand(self.groups == expected, || {
            format!("the groups are {:?}, should be {expected:?}", self.groups)
        })
    }

    fn check_shares(&self) -> Result<(), Breach> {
        let mut expected = Shares::default();
        for state in self.allocs.values() {
            if let (Some(alloc), Some(team)) = (state.slot.get(), &state.team) {
                expected.add(team, &alloc.resources);
            }
        }
        for in_flight in self.in_flight.values() {
            if let (crate::Action::Place { alloc, .. }, Some(team)) = (&*in_flight.action, &in_flight.team) {
                expected.add(team, &alloc.resources);
            }
        }
        demand(self.shares == expected, || {
            format!("shares {:?}, should be {:?}", self.shares.held(), expected.held())
        })
    }

    /// Every busy mark belongs to one proposal, and every proposal has its mark.
    fn check_in_flight(&self) -> Result<(), Breach> {
        let mut steps = std::collections::BTreeSet::new();
        for (ticket, in_flight) in &self.in_flight {
            let Some((run, step)) = in_flight.action.step() else {
                continue;
            };
            if !matches!(*in_flight.action, crate::Action::Clean { .. }) {
                demand(steps.insert((run, step)), || {
                    format!("two proposals for step {step} of {run}")
                })?;
            }
            if let Some(Run::Live(live)) = self.runs.get(run) {
                demand(live.busy.contains(&step), || {
                    format!("proposal {} holds no mark", ticket.0)
                })?;
            }
        }
        let marks = self.runs.iter().filter_map(|(id, run)| match run {
            Run::Live(live) => Some((id, &live.busy)),
            Run::Finished(_) | Run::Gone(_) => None,
        });
        for (run, busy) in marks {
            for step in busy {
                let held = self.in_flight.values().any(|f| f.action.step() == Some((run, *step)));
                demand(held, || {
                    format!("step {step} of {run} is marked and nothing is proposed for it")
                })?;
            }
        }
        Ok(())
    }

    /// What must hold besides when the view has caught up with the store: every attempt that has
    /// not ended has its order, and every order its attempt.
    ///
    /// # Errors
    /// The first [`Breach`] found.
    pub fn check_complete(&self) -> Result<(), Breach> {
        for (id, run) in &self.runs {
            let Run::Live(run) = run else { continue };
            for (step, record) in &run.records {
                let active = matches!(record.status, StepStatus::Assigned | StepStatus::Running);
                let order = record
                    .alloc
                    .as_ref()
                    .and_then(|a| self.allocs.get(a))
                    .and_then(|a| a.slot.get());
                demand(!active || order.is_some_and(|a| a.fence == record.fence), || {
                    format!("step {step} of {id} is {} without its order", record.status.as_str())
                })?;
            }
        }
        for alloc in self.allocs.values().filter_map(|a| a.slot.get()) {
            let record = match self.runs.get(&alloc.run) {
                Some(Run::Live(run)) => run.records.get(&alloc.step),
                Some(Run::Finished(_) | Run::Gone(_)) | None => None,
            };
            let serves = record.is_some_and(|r| r.alloc.as_ref() == Some(&alloc.id) && !r.status.is_terminal());
            demand(serves, || format!("allocation {} serves no step", alloc.id))?;
        }
        Ok(())
    }

    /// Everything that follows from the records, as text: equal for equal views, whatever the order
    /// in which they learned of the changes.
    #[must_use]
    pub fn fingerprint(&mut self) -> String {
        fn known<K: std::fmt::Debug, T: std::fmt::Debug>(slots: &BTreeMap<K, Slot<T>>) -> Vec<(&K, &T)> {
            slots.iter().filter_map(|(k, s)| Some((k, s.get()?))).collect()
        }
        self.refresh();
        let runs: Vec<(&Arc<model::RunId>, &Run)> = self.runs.iter().collect();
        let allocs: Vec<_> = self
            .allocs
            .values()
            .filter_map(|a| Some((a.slot.get()?, a.slot.revision(), &a.team)))
            .collect();
        let nodes: Vec<_> = self
            .nodes
            .table()
            .iter()
            .map(|(id, n)| (id, n.usable(), n.free()))
            .collect();
        format!(
            "{runs:#?}\n{allocs:#?}\n{nodes:#?}\n{:#?}\n{:#?}\n{:#?}\n{:#?}\n{:#?}",
            known(&self.reports),
            known(&self.requests),
            self.queue,
            self.shares,
            self.version.get()
        )
    }
}
