//! One look at the whole view: which reports to fold, what to cancel, skip and clean, what to place.
//!
//! Results come first, because they free room and make steps ready; placements last. Whatever is
//! proposed is held back until it is confirmed or refused, so planning again proposes nothing twice.
//!
//! Not here: how a node is found ([`crate::fit`]), whose turn it is ([`crate::queue`]), what a
//! report means ([`crate::fold`]).

use crate::action::{Action, Expect, Plan, Proposal, SeenAlloc, StepWrite, Ticket};
use crate::cluster::{Cluster, InFlight};
use crate::explain::placement_sentence;
use crate::fit::Best;
use crate::fold::{Folded, fold};
use crate::lasting::Expected;
use crate::node::{Grant, Wish};
use crate::queue::{Line, Turn};
use crate::run::{LiveRun, Run};
use crate::{PLAN_ACTIONS_MAX, STORE_FORMAT, UNKNOWN_RUN_WAIT_MS};
use model::{AllocId, Allocation, Fence, NodeId, Outcome, RunId, StepRecord, StepStatus, Stop, key};
use std::sync::Arc;

/// The most results of one plan while steps wait for a node.
const RESULTS_MAX: usize = PLAN_ACTIONS_MAX / 4 * 3;

impl Cluster {
    /// What is to be done now. Everything in the plan is reserved until its ticket is given to
    /// [`Cluster::confirm`] or [`Cluster::refuse`].
    pub fn plan(&mut self, now_ms: u64) -> Plan {
        self.refresh_at(now_ms);
        let mut plan = Plan::default();
        if !self.may_write() {
            return plan;
        }
        self.plan_reports(&mut plan, now_ms);
        let wishes = self.plan_node_requests(&mut plan, now_ms);
        self.plan_lost(&mut plan, now_ms);
        self.plan_cancels(&mut plan, now_ms);
        self.plan_drains(&mut plan, now_ms);
        self.plan_skips(&mut plan, now_ms);
        self.plan_ends(&mut plan, now_ms);
        self.plan_starts(&mut plan, now_ms);
        if wishes {
            plan.more = true;
        } else {
            self.plan_placements(&mut plan, now_ms);
        }
        plan
    }

    /// False until the store's format is known to be one that this release may write to.
    fn may_write(&self) -> bool {
        self.version.get().is_some_and(|v| v.format <= STORE_FORMAT)
    }

    /// Adds a proposal and holds what it touches; false when the plan is full.
    pub(crate) fn propose(&mut self, plan: &mut Plan, action: Action) -> bool {
        if plan.proposals.len() >= PLAN_ACTIONS_MAX {
            plan.more = true;
            return false;
        }
        self.last_ticket += 1;
        let ticket = Ticket(self.last_ticket);
        let action = Arc::new(action);
        let expected = match &*action {
            Action::Place { alloc, .. } => self.expected_of(alloc),
            _ => Expected::default(),
        };
        let team = self.hold(&action, expected);
        let held = InFlight {
            action: Arc::clone(&action),
            team,
            expected,
        };
        self.in_flight.insert(ticket, held);
        plan.proposals.push(Proposal { ticket, action });
        true
    }

    /// For one who does not lead: forgets which orders and reports have changed, as far as nothing
    /// is to be done about them, so that who begins to lead does not look at all of them.
    pub fn follow(&mut self, now_ms: u64) {
        self.refresh_at(now_ms);
        let changed = std::mem::take(&mut self.changed_allocs);
        let open = changed
            .into_iter()
            .filter(|id| self.action_for_alloc(id, now_ms).is_some());
        self.changed_allocs = open.collect();
    }

    /// While steps wait for a node, some of the plan is left to them: after a takeover there are many
    /// results to fold, and the next placement does not wait for all of them.
    fn plan_reports(&mut self, plan: &mut Plan, now_ms: u64) {
        let most = if self.queue.len() > 0 {
            RESULTS_MAX
        } else {
            PLAN_ACTIONS_MAX
        };
        let changed = std::mem::take(&mut self.changed_allocs);
        let mut left = changed.into_iter();
        for id in left.by_ref() {
            if plan.proposals.len() >= most {
                plan.more = true;
                self.changed_allocs.insert(id);
                break;
            }
            if self.busy_allocs.contains(&id) {
                continue;
            }
            let Some(action) = self.action_for_alloc(&id, now_ms) else {
                continue;
            };
            if !self.propose(plan, action) {
                self.changed_allocs.insert(id);
                break;
            }
        }
        self.changed_allocs.extend(left);
    }

    /// What is to be done about an order and its report: fold, clean, or nothing (yet).
    fn action_for_alloc(&self, id: &AllocId, now_ms: u64) -> Option<Action> {
        let (run_id, step, fence) = id.parts()?;
        match self.runs.get(&run_id)? {
            Run::Finished(finished) => {
                let ended = finished.steps.get(step)?;
                (fence <= ended.fence).then(|| self.clean(id, "its run has finished"))?
            }
            Run::Gone(_) => self.clean(id, "its run has been archived or removed"),
            Run::Live(run) => {
                let record = run.records.get(&step).filter(|_| !run.busy.contains(&step))?;
                if record.alloc.as_ref() == Some(id) && is_active(record.status) {
                    return self.fold_or_clean(id, run, step, record, now_ms);
                }
                // Under a later fence, the step's own record is on its way.
                (fence <= record.fence).then(|| self.clean(id, "its step has gone on without it"))?
            }
        }
    }

    /// Folds the report of a step's current attempt, or removes one that carries another fence.
    fn fold_or_clean(
        &self,
        id: &AllocId,
        run: &LiveRun,
        step: usize,
        record: &StepRecord,
        now_ms: u64,
    ) -> Option<Action> {
        let alloc = self.allocs.get(id)?.slot.get()?;
        let report_slot = self.reports.get(id)?;
        let report = report_slot.get()?;
        if report.fence != alloc.fence {
            return Some(Action::Clean {
                run: alloc.run.clone(),
                step,
                step_seen: Some(self.step_expect(&alloc.run, step)),
                alloc: None,
                observed: Some((id.clone(), report_slot.revision())),
                reason: "the report carries another fence than its order",
            });
        }
        let policy = self.policy(&alloc.run, run, alloc)?;
        let Folded::Changed(next) = fold(record, alloc, policy, report, now_ms) else {
            return None;
        };
        Some(Action::Fold {
            write: self.step_write(&alloc.run, run, step, record.status, *next),
            alloc: self.seen_alloc(id)?,
            observed_revision: report_slot.revision(),
        })
    }

    pub(crate) fn seen_alloc(&self, id: &AllocId) -> Option<SeenAlloc> {
        let slot = &self.allocs.get(id)?.slot;
        Some(SeenAlloc {
            node: slot.get()?.node.clone(),
            alloc: id.clone(),
            seen: slot.expect(),
        })
    }

    fn clean(&self, id: &AllocId, reason: &'static str) -> Option<Action> {
        let (run, step, _) = id.parts()?;
        let alloc = self.seen_alloc(id);
        let report = self.reports.get(id).filter(|r| !r.is_absent());
        let observed = report.map(|r| (id.clone(), r.revision()));
        if alloc.is_none() && observed.is_none() {
            return None;
        }
        let gone = matches!(self.runs.get(&run), Some(Run::Gone(_)));
        Some(Action::Clean {
            step_seen: (!gone).then(|| self.step_expect(&run, step)),
            run,
            step,
            alloc,
            observed,
            reason,
        })
    }

    pub(crate) fn step_write(
        &self,
        id: &RunId,
        run: &LiveRun,
        step: usize,
        from: StepStatus,
        record: StepRecord,
    ) -> StepWrite {
        let name = run.def().and_then(|(def, _)| def.steps.get(step));
        StepWrite {
            run: id.clone(),
            step,
            name: name.map(|s| s.name.to_string()).unwrap_or_default(),
            from,
            record,
            seen: self.step_expect(id, step),
        }
    }

    fn plan_cancels(&mut self, plan: &mut Plan, now_ms: u64) {
        let runs: Vec<RunId> = self.cancels.keys().cloned().collect();
        for run in runs {
            let actions = self.cancel_actions(&run, now_ms);
            for action in actions {
                if !self.propose(plan, action) {
                    return;
                }
            }
        }
    }

    /// One round of a cancellation: unstarted steps are ended, attempts are told to stop, and when
    /// neither is left the requests go.
    fn cancel_actions(&self, id: &RunId, now_ms: u64) -> Vec<Action> {
        let run = match self.runs.get(id) {
            Some(Run::Live(run)) if run.header.get().is_some() => run,
            Some(Run::Finished(_)) => return self.drop_requests(id, |_| true, None),
            Some(Run::Live(run)) if run.header.is_malformed() => return Vec::new(),
            Some(Run::Live(_) | Run::Gone(_)) | None => {
                let waited = |created: u64| now_ms.saturating_sub(created) > UNKNOWN_RUN_WAIT_MS;
                return self.drop_requests(id, waited, Some((key::run(id), Expect::Absent)));
            }
        };
        let mut actions = Vec::new();
        let mut settled = run.busy.is_empty();
        for step in (0..run.step_count()).filter(|s| !run.busy.contains(s)) {
            if run.steps.get(&step).is_some_and(crate::slot::Slot::is_malformed) {
                continue;
            }
            match run.records.get(&step) {
                Some(record) if record.status.is_terminal() => {}
                Some(record) if is_active(record.status) => {
                    let (stop, stopped) = self.stop_of(record);
                    settled &= stopped;
                    actions.extend(stop);
                }
                record => actions.push(Action::End(self.cancelled(id, run, step, record, now_ms))),
            }
        }
        if actions.is_empty() && settled {
            return self.drop_requests(id, |_| true, None);
        }
        actions
    }

    /// The order to stop a step's attempt, and whether it stands already.
    fn stop_of(&self, record: &StepRecord) -> (Option<Action>, bool) {
        let slot = record
            .alloc
            .as_ref()
            .and_then(|id| self.allocs.get(id))
            .map(|a| &a.slot);
        let Some((slot, alloc)) = slot.and_then(|s| Some((s, s.get()?))) else {
            return (None, false);
        };
        if alloc.stop == Some(Stop::Cancelled) {
            return (None, true);
        }
        // One that was told to leave its node would come back elsewhere.
        let mut alloc = Box::new(alloc.clone());
        alloc.stop = Some(Stop::Cancelled);
        let stop = Action::Stop {
            alloc,
            seen: slot.revision(),
            eligibility: None,
        };
        (Some(stop), false)
    }

    fn cancelled(&self, id: &RunId, run: &LiveRun, step: usize, old: Option<&StepRecord>, now_ms: u64) -> StepWrite {
        let from = run.status(step).unwrap_or(StepStatus::Pending);
        let mut record = old.cloned().unwrap_or_else(|| StepRecord::first(StepStatus::Cancelled));
        record.status = StepStatus::Cancelled;
        let request = self
            .cancels
            .get(id)
            .and_then(|ids| ids.first())
            .and_then(|r| self.requests.get(r)?.get());
        let moment = if record.attempt == 0 {
            "it started"
        } else {
            "its next attempt"
        };
        record.reason = Some(match request {
            Some(request) => format!("was cancelled by {} before {moment}", request.requested_by),
            None => format!("was cancelled before {moment}"),
        });
        record.retry_at_ms = None;
        record.times.ended_ms = Some(now_ms);
        self.step_write(id, run, step, from, record)
    }

    fn drop_requests(&self, run: &RunId, due: impl Fn(u64) -> bool, because: Option<(String, Expect)>) -> Vec<Action> {
        let ids = self.cancels.get(run).into_iter().flatten();
        let open = ids.filter(|id| !self.busy_requests.contains(*id));
        let slots = open.filter_map(|id| Some((id, self.requests.get(id)?)));
        slots
            .filter(|(_, slot)| slot.get().is_some_and(|r| due(r.created_ms)))
            .map(|(id, slot)| Action::DropRequest {
                id: id.clone(),
                seen: slot.revision(),
                because: because.clone(),
            })
            .collect()
    }

    fn plan_skips(&mut self, plan: &mut Plan, now_ms: u64) {
        let runs: Vec<Arc<RunId>> = self.doomed_runs.iter().cloned().collect();
        for id in runs {
            for action in self.skip_actions(&id, now_ms) {
                if !self.propose(plan, action) {
                    return;
                }
            }
        }
    }

    fn skip_actions(&self, id: &RunId, now_ms: u64) -> Vec<Action> {
        let Some(Run::Live(run)) = self.runs.get(id) else {
            return Vec::new();
        };
        let skips = run.progress.iter().flat_map(|p| p.skips());
        skips
            .filter(|skip| !run.busy.contains(&skip.step))
            .map(|skip| {
                let old = run.records.get(&skip.step);
                let from = run.status(skip.step).unwrap_or(StepStatus::Pending);
                let mut record = old.cloned().unwrap_or_else(|| StepRecord::first(StepStatus::Skipped));
                record.status = skip.status;
                record.reason = Some(skip.reason.clone());
                record.times.ended_ms = Some(now_ms);
                Action::End(self.step_write(id, run, skip.step, from, record))
            })
            .collect()
    }

    fn plan_placements(&mut self, plan: &mut Plan, now_ms: u64) {
        let Some(epoch) = self.version.get().map(|v| v.epoch) else {
            return;
        };
        for turn in self.kept_turns() {
            if !self.place_kept(plan, &turn, epoch, now_ms) {
                return;
            }
        }
        let mut line = Line::new(&self.queue, |team| self.shares.dominant(team, self.nodes.total()));
        let mut overtaken = Vec::new();
        while let Some(turn) = line.next() {
            let mut action = self.placement(&turn, epoch, now_ms);
            if action.is_some() && !overtaken.is_empty() {
                // What is placed now would overtake them once more.
                std::mem::take(&mut overtaken)
                    .into_iter()
                    .for_each(|t| self.keep_room_for(t));
                action = self.placement(&turn, epoch, now_ms);
            }
            let placed = action.is_some();
            if action.is_some_and(|action| !self.propose(plan, action)) {
                return;
            }
            let share = self.shares.dominant(&turn.team, self.nodes.total());
            if placed {
                line.placed(&self.queue, &turn, share);
                continue;
            }
            if self.has_waited_long(&turn, now_ms) {
                overtaken.push(turn.clone());
            }
            line.blocked(turn, share);
        }
    }

    /// A step for which room is kept takes it as soon as it is there; false when the plan is full.
    fn place_kept(&mut self, plan: &mut Plan, turn: &Turn, epoch: u32, now_ms: u64) -> bool {
        let Some(kept) = self.stop_keeping(&turn.age) else {
            return true;
        };
        match self.placement(turn, epoch, now_ms) {
            Some(action) => self.propose(plan, action),
            None => {
                self.keep(turn.age.clone(), kept);
                true
            }
        }
    }

    /// The step on the best node that has the room.
    fn placement(&mut self, turn: &Turn, epoch: u32, now_ms: u64) -> Option<Action> {
        let lost_on = self.lost_on(turn);
        let lasts_ms = self.expected_ms(&turn.age.run, turn.age.step);
        let wish = Wish::of(&turn.shape).lasting(lasts_ms).away_from(&lost_on);
        let best = self.nodes.best(&wish)?;
        self.place(turn, &best, epoch, now_ms)
    }

    /// The nodes on which an attempt of this step was lost.
    fn lost_on(&self, turn: &Turn) -> Vec<NodeId> {
        let record = match self.runs.get(&turn.age.run) {
            Some(Run::Live(run)) => run.records.get(&turn.age.step),
            _ => None,
        };
        let earlier = record.map(|r| r.earlier.as_slice()).unwrap_or_default();
        let lost = earlier
            .iter()
            .filter(|a| matches!(a.outcome, Some(Outcome::Lost { .. })));
        lost.map(|a| a.node.clone()).collect()
    }

    fn place(&self, turn: &Turn, best: &Best, epoch: u32, now_ms: u64) -> Option<Action> {
        let step = turn.age.step;
        let Run::Live(run) = self.runs.get(&turn.age.run)? else {
            return None;
        };
        let (node_id, node) = self.nodes.at(best.best.node)?;
        let usable = node.eligible()?;
        let mut record = match run.records.get(&step) {
            Some(record) => record.clone(),
            None => StepRecord::first(StepStatus::Queued),
        };
        let fence = next_fence(record.fence, epoch);
        let alloc = Allocation {
            id: AllocId::for_step(&turn.age.run, step, fence),
            run: RunId::clone(&turn.age.run),
            step,
            attempt: record.attempt.saturating_add(1),
            fence,
            node: node_id.clone(),
            node_epoch: usable.epoch,
            resources: turn.shape.resources(),
            created_ms: now_ms,
            stop: None,
            stop_reason: None,
            unknown: model::record::Unknown::new(),
        };
        record.status = StepStatus::Assigned;
        record.attempt = alloc.attempt;
        record.fence = fence;
        record.alloc = Some(alloc.id.clone());
        record.node = Some(node_id.clone());
        record.reason = None;
        record.retry_at_ms = None;
        record.times.queued_ms = Some(run.ready_since_ms(step).min(now_ms));
        record.times.assigned_ms = Some(now_ms);
        let next = best
            .next
            .and_then(|n| self.nodes.at(n.node))
            .and_then(|(_, n)| n.record.get());
        record.placement = Some(placement_sentence(
            usable,
            best,
            next.map(|r| r.name.as_str()),
            &turn.shape,
        ));
        Some(Action::Place {
            write: self.step_write(&turn.age.run, run, step, StepStatus::Queued, record),
            alloc: Box::new(alloc),
            node_revision: node.record.revision(),
            session_revision: node.session.revision(),
        })
    }

    /// Marks what an action touches as taken; answers the team whose share it raises.
    fn hold(&mut self, action: &Action, expected: Expected) -> Option<model::TeamName> {
        match action {
            Action::DropRequest { id, .. } | Action::Start { id, .. } => {
                self.busy_requests.insert(id.clone());
            }
            Action::Attend { id, node, .. } => {
                self.busy_requests.insert(id.clone());
                self.busy_nodes.insert(node.clone());
            }
            Action::Clean { alloc, observed, .. } => {
                let ids = alloc.iter().map(|a| &a.alloc).chain(observed.iter().map(|(id, _)| id));
                self.busy_allocs.extend(ids.cloned());
            }
            Action::Fold { .. } | Action::Lose { .. } | Action::End(_) | Action::Stop { .. } | Action::Place { .. } => {
            }
        }
        let (run_id, step) = action.step()?;
        let Some(Run::Live(run)) = self.runs.get_mut(run_id) else {
            return None;
        };
        run.busy.insert(step);
        if matches!(action, Action::Place { .. }) {
            run.placing.insert(step);
        }
        let team = run.header.get().map(|h| h.team.clone())?;
        if let Action::Place { alloc, .. } = action {
            self.nodes.reserve(&alloc.node, &Grant::one(&alloc.resources), expected);
            self.shares.add(&team, &alloc.resources);
        }
        let Some((id, Run::Live(run))) = self.runs.get_key_value(run_id) else {
            return None;
        };
        if let (Some((_, shapes)), true) = (run.def(), run.queued.contains(&step)) {
            self.queue.remove(&team, &shapes[step], &run.age(id, step));
        }
        if let Some(Run::Live(run)) = self.runs.get_mut(run_id) {
            run.queued.remove(&step);
        }
        if matches!(action, Action::Place { .. }) && self.groups.has(run_id) {
            // It goes on from now: nobody else of its group may.
            self.mark_run(run_id);
        }
        matches!(action, Action::Place { .. }).then_some(team)
    }
}

pub(crate) fn is_active(status: StepStatus) -> bool {
    matches!(status, StepStatus::Assigned | StepStatus::Running)
}

/// The fence of the next attempt: the counter goes on within an epoch and begins anew with the next.
fn next_fence(last: Fence, epoch: u32) -> Fence {
    let counter = if last.epoch == epoch {
        last.counter.saturating_add(1)
    } else {
        1
    };
    Fence { epoch, counter }
}
