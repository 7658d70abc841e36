//! What becomes of a plan: each proposal is checked on the newest view, then confirmed or refused.
//!
//! A confirmed proposal changes the view as its writes changed the store, at the store's revision;
//! when the watch repeats them they are stale. A refused one leaves the view as if it had never
//! been proposed. Not here: the commit itself, and what a refusal makes the shell read again.

use crate::action::{
    Action, Expect, Plan, Refusal, Refused, SeenAlloc, SeenNode, StepWrite, Ticket, Transition, Verified,
};
use crate::cluster::{Cluster, InFlight};
use crate::node::Grant;
use crate::run::Run;
use crate::slot::{Held, Slot};
use model::{AllocId, Allocation, Eligibility, NodeId, RunId, key};

impl Cluster {
    /// Checks every proposal of a plan on the newest view. What is refused is released at once.
    pub fn verify(&mut self, plan: &Plan) -> (Vec<Verified>, Vec<Refused>) {
        let (mut verified, mut refused) = (Vec::new(), Vec::new());
        for proposal in &plan.proposals {
            let ticket = proposal.ticket;
            let standing = match self.in_flight.get(&ticket) {
                Some(in_flight) => self.check(&in_flight.action).map(|()| in_flight.action.change()),
                None => Err(Refusal::Unknown(ticket.0)),
            };
            match standing {
                Ok(change) => verified.push(Verified { ticket, change }),
                Err(refusal) => {
                    self.refuse(ticket);
                    refused.push(Refused { ticket, refusal });
                }
            }
        }
        (verified, refused)
    }

    fn check(&self, action: &Action) -> Result<(), Refusal> {
        match action {
            Action::Fold {
                write,
                alloc,
                observed_revision,
            } => {
                self.check_step(write)?;
                self.check_alloc(alloc)?;
                self.check_report(&alloc.alloc, *observed_revision)
            }
            Action::Lose {
                write,
                alloc,
                observed,
                node,
            } => {
                self.check_step(write)?;
                self.check_alloc(alloc)?;
                self.check_same_report(&alloc.alloc, *observed)?;
                self.check_lost(&alloc.node, node)
            }
            Action::End(write) => self.check_step(write),
            Action::Start { write, id, seen } => {
                self.check_step(write)?;
                self.check_request(id, *seen)
            }
            Action::Stop {
                alloc,
                seen,
                eligibility,
            } => {
                self.check_order(alloc, *seen)?;
                self.check_eligibility(&alloc.node, eligibility.map(Expect::Revision))
            }
            Action::Attend {
                id,
                seen,
                node,
                eligibility,
                ..
            } => {
                self.check_request(id, *seen)?;
                self.check_eligibility(node, Some(*eligibility))
            }
            Action::Place {
                write,
                alloc,
                node_revision,
                session_revision,
            } => self.check_place(write, alloc, (*node_revision, *session_revision)),
            Action::DropRequest { id, seen, .. } => self.check_request(id, *seen),
            Action::Clean {
                run,
                step,
                step_seen,
                alloc,
                observed,
                ..
            } => {
                self.check_cleaned(run, *step, *step_seen)?;
                alloc.iter().try_for_each(|a| self.check_alloc(a))?;
                observed
                    .iter()
                    .try_for_each(|(id, revision)| self.check_report(id, *revision))
            }
        }
    }

    fn check_place(&self, write: &StepWrite, alloc: &Allocation, (node, session): (u64, u64)) -> Result<(), Refusal> {
        self.check_step(write)?;
        if self.cancels.contains_key(&write.run) {
            return Err(Refusal::RunCancelled(write.run.clone()));
        }
        self.check_node(alloc, node, session)
    }

    fn check_cleaned(&self, run: &RunId, step: usize, seen: Option<Expect>) -> Result<(), Refusal> {
        let gone = matches!(self.runs.get(run), Some(Run::Gone(_)));
        let now = (!gone).then(|| self.step_expect(run, step));
        (now == seen).then_some(()).ok_or_else(|| step_changed(run, step))
    }

    fn check_order(&self, alloc: &Allocation, seen: u64) -> Result<(), Refusal> {
        let slot = self.allocs.get(&alloc.id).map(|a| &a.slot);
        let same = slot.is_some_and(|s| s.get().is_some() && s.revision() == seen);
        same.then_some(())
            .ok_or_else(|| Refusal::AllocChanged(alloc.id.clone()))
    }

    fn check_same_report(&self, id: &AllocId, seen: Expect) -> Result<(), Refusal> {
        let now = self.reports.get(id).map_or(Expect::Absent, Slot::expect);
        (now == seen)
            .then_some(())
            .ok_or_else(|| Refusal::ReportChanged(id.clone()))
    }

    fn check_step(&self, write: &StepWrite) -> Result<(), Refusal> {
        let same = self.step_expect(&write.run, write.step) == write.seen;
        same.then_some(()).ok_or_else(|| step_changed(&write.run, write.step))
    }

    fn check_alloc(&self, seen: &SeenAlloc) -> Result<(), Refusal> {
        let same = self
            .allocs
            .get(&seen.alloc)
            .is_some_and(|a| a.slot.expect() == seen.seen);
        same.then_some(())
            .ok_or_else(|| Refusal::AllocChanged(seen.alloc.clone()))
    }

    fn check_report(&self, id: &AllocId, revision: u64) -> Result<(), Refusal> {
        let same = self
            .reports
            .get(id)
            .is_some_and(|r| !r.is_absent() && r.revision() == revision);
        same.then_some(()).ok_or_else(|| Refusal::ReportChanged(id.clone()))
    }

    fn check_request(&self, id: &str, seen: u64) -> Result<(), Refusal> {
        let same = self.requests.get(id).is_some_and(|s| s.revision() == seen);
        same.then_some(()).ok_or_else(|| Refusal::RequestChanged(id.to_owned()))
    }

    fn check_eligibility(&self, node: &NodeId, seen: Option<Expect>) -> Result<(), Refusal> {
        let now = self.nodes.get(node).map_or(Expect::Absent, |n| n.eligibility.expect());
        let same = seen.is_none_or(|seen| seen == now);
        same.then_some(()).ok_or_else(|| Refusal::NodeChanged(node.clone()))
    }

    fn check_lost(&self, id: &NodeId, seen: &SeenNode) -> Result<(), Refusal> {
        let changed = || Refusal::NodeChanged(id.clone());
        let node = self.nodes.get(id).ok_or_else(changed)?;
        let same = node.record.expect() == seen.record && node.session.expect() == seen.session;
        same.then_some(()).ok_or_else(changed)?;
        self.check_eligibility(id, seen.eligibility.map(Expect::Revision))
    }

    fn check_node(&self, alloc: &Allocation, record: u64, session: u64) -> Result<(), Refusal> {
        let node = self.nodes.get(&alloc.node).filter(|n| n.eligible().is_some());
        let same = node.filter(|n| n.record.revision() == record && n.session.revision() == session);
        let node = same.ok_or_else(|| Refusal::NodeChanged(alloc.node.clone()))?;
        // The proposal itself is among what is reserved.
        let granted = node.used.plus(&node.reserved);
        let full = || Refusal::NodeFull(alloc.node.clone());
        granted.within(&node.capacity()).then_some(()).ok_or_else(full)
    }

    /// The proposal was committed at `revision`: the view becomes what the store now is. Answers
    /// the step's transition if it made one.
    pub fn confirm(&mut self, ticket: Ticket, revision: u64) -> Option<Transition> {
        let in_flight = self.in_flight.remove(&ticket)?;
        self.release(&in_flight);
        match &*in_flight.action {
            Action::Fold { write, alloc, .. } => {
                self.wrote(write, revision);
                if write.ends_attempt() {
                    self.removed_alloc(alloc, revision);
                    self.removed_report(&alloc.alloc, revision);
                }
                transition(write)
            }
            Action::Lose { write, alloc, .. } => {
                self.wrote(write, revision);
                self.removed_alloc(alloc, revision);
                self.removed_report(&alloc.alloc, revision);
                transition(write)
            }
            Action::Attend { id, node, next, .. } => {
                self.removed_request(id, revision);
                let gone = next.is_none();
                let held = next
                    .as_ref()
                    .map_or(Held::Absent, |next| Held::Present(Eligibility::clone(next)));
                if self.on_eligibility(node, held, revision) && gone {
                    self.bury(&key::eligibility(node), revision);
                }
                None
            }
            Action::End(write) => {
                self.wrote(write, revision);
                transition(write)
            }
            Action::Start { write, id, .. } => {
                self.removed_request(id, revision);
                self.wrote(write, revision);
                transition(write)
            }
            Action::Stop { alloc, .. } => {
                self.on_alloc(
                    &alloc.node,
                    &alloc.id,
                    Held::Present(Allocation::clone(alloc)),
                    revision,
                );
                None
            }
            Action::Place { write, alloc, .. } => {
                self.wrote(write, revision);
                self.on_alloc(
                    &alloc.node,
                    &alloc.id,
                    Held::Present(Allocation::clone(alloc)),
                    revision,
                );
                transition(write)
            }
            Action::DropRequest { id, .. } => {
                self.removed_request(id, revision);
                None
            }
            Action::Clean { alloc, observed, .. } => {
                if let Some(alloc) = alloc {
                    self.removed_alloc(alloc, revision);
                }
                if let Some((id, _)) = observed {
                    self.removed_report(id, revision);
                }
                None
            }
        }
    }

    fn wrote(&mut self, write: &StepWrite, revision: u64) {
        self.on_step(&write.run, write.step, Held::Present(write.record.clone()), revision);
    }

    fn removed_request(&mut self, id: &str, revision: u64) {
        if self.on_request(id, Held::Absent, revision) {
            self.bury(&key::request(id), revision);
        }
    }

    fn removed_alloc(&mut self, alloc: &SeenAlloc, revision: u64) {
        if self.on_alloc(&alloc.node, &alloc.alloc, Held::Absent, revision) {
            self.bury(&key::alloc(&alloc.node, &alloc.alloc), revision);
        }
    }

    fn removed_report(&mut self, id: &AllocId, revision: u64) {
        if self.on_observed(id, Held::Absent, revision) {
            self.bury(&key::observed(id), revision);
        }
    }

    /// The proposal was not committed: its reservation is dropped and what it was about is looked
    /// at again. The caller feeds in what stands in the store instead, or the next plan proposes
    /// the same.
    pub fn refuse(&mut self, ticket: Ticket) {
        if let Some(in_flight) = self.in_flight.remove(&ticket) {
            self.release(&in_flight);
        }
    }

    /// The proposal, while it waits for its answer.
    #[must_use]
    pub fn proposed(&self, ticket: Ticket) -> Option<&Action> {
        self.in_flight.get(&ticket).map(|f| &*f.action)
    }

    /// How many proposals wait for their answer.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Undoes what holding the action did.
    fn release(&mut self, in_flight: &InFlight) {
        let action = &*in_flight.action;
        match action {
            Action::DropRequest { id, .. } | Action::Start { id, .. } => {
                self.busy_requests.remove(id);
            }
            Action::Attend { id, node, .. } => {
                self.busy_requests.remove(id);
                self.busy_nodes.remove(node);
            }
            Action::Clean { alloc, observed, .. } => {
                let ids = alloc.iter().map(|a| &a.alloc).chain(observed.iter().map(|(id, _)| id));
                for id in ids {
                    self.busy_allocs.remove(id);
                    self.changed_allocs.insert(id.clone());
                }
            }
            Action::Place { alloc, .. } => {
                let grant = Grant::one(&alloc.resources);
                self.nodes.unreserve(&alloc.node, &grant, in_flight.expected);
                if let Some(team) = &in_flight.team {
                    self.shares.subtract(team, &alloc.resources);
                }
            }
            Action::Fold { .. } | Action::Lose { .. } | Action::End(_) | Action::Stop { .. } => {}
        }
        if let Some((run, step)) = action.step() {
            if let Some(Run::Live(live)) = self.runs.get_mut(run) {
                live.busy.remove(&step);
                live.placing.remove(&step);
            }
            self.mark_run(run);
            self.mark_allocs(&format!("{run}-{step}-"));
        }
    }

    /// The revision of the step's newest known record; 0 if none is known.
    #[must_use]
    pub fn step_revision(&self, run: &RunId, step: usize) -> u64 {
        match self.runs.get(run) {
            Some(Run::Live(live)) => live.steps.get(&step).map_or(0, Slot::revision),
            Some(Run::Finished(finished)) => finished.steps.get(step).map_or(0, |s| s.revision),
            Some(Run::Gone(_)) | None => 0,
        }
    }
}

fn step_changed(run: &RunId, step: usize) -> Refusal {
    Refusal::StepChanged { run: run.clone(), step }
}

fn transition(write: &StepWrite) -> Option<Transition> {
    let record = &write.record;
    let placed = matches!(record.status, model::StepStatus::Assigned);
    let waited = || Some(record.times.assigned_ms?.saturating_sub(record.times.queued_ms?));
    (write.from != record.status).then(|| Transition {
        run: write.run.clone(),
        step: write.step,
        name: write.name.clone(),
        from: write.from,
        to: record.status,
        attempt: record.attempt,
        fence: record.fence,
        alloc: record.alloc.clone(),
        node: record.node.clone(),
        reason: record.reason.clone(),
        waited_ms: if placed { waited() } else { None },
    })
}
