//! Ends that are nobody's failure and nobody's wish: a member of a group of concurrency whose place
//! another takes, and the cells of a matrix of which one has failed. And the beginning of a step that
//! waits for a person.
//!
//! Not here: who takes whose place ([`crate::group`]), which cells have to end
//! ([`pipeline::progress`]).

use crate::action::{Action, Expect, Plan};
use crate::cluster::Cluster;
use crate::group::{Word, superseded_sentence};
use crate::plan::is_active;
use crate::run::{LiveRun, Run};
use model::{RunId, StepRecord, StepStatus, Stop, key};
use std::collections::BTreeMap;
use std::sync::Arc;

impl Cluster {
    pub(crate) fn plan_ends(&mut self, plan: &mut Plan, now_ms: u64) {
        let runs: Vec<Arc<RunId>> = self.ending_runs.iter().cloned().collect();
        for id in runs {
            for action in self.end_actions(&id, now_ms) {
                if !self.propose(plan, action) {
                    return;
                }
            }
        }
    }

    fn end_actions(&self, id: &Arc<RunId>, now_ms: u64) -> Vec<Action> {
        let Some(Run::Live(run)) = self.runs.get(id) else {
            return Vec::new();
        };
        self.to_end(id, run)
            .into_iter()
            .filter(|(step, _)| !run.busy.contains(step))
            .filter_map(|(step, why)| match run.records.get(&step) {
                Some(record) if record.status.is_terminal() => None,
                Some(record) if is_active(record.status) => self.stop_for(record, why),
                old => Some(self.end_unstarted(id, run, (step, old), &why, now_ms)),
            })
            .collect()
    }

    /// The steps that have to end, and why.
    fn to_end(&self, id: &Arc<RunId>, run: &LiveRun) -> BTreeMap<usize, String> {
        if let Some((Word::End(by), group)) = self.groups.of_run(id) {
            let why = superseded_sentence(by, group);
            return (0..run.step_count()).map(|step| (step, why.clone())).collect();
        }
        let mut ends = BTreeMap::new();
        for (step, word, group) in self.groups.of_steps(id) {
            if let Word::End(by) = word {
                ends.insert(step, superseded_sentence(by, group));
            }
        }
        let stops = run.progress.iter().flat_map(|progress| progress.stops());
        ends.extend(stops.map(|step| {
            (
                *step,
                "another cell of its matrix failed, and `fail_fast` is set".to_owned(),
            )
        }));
        ends
    }

    fn stop_for(&self, record: &StepRecord, why: String) -> Option<Action> {
        let slot = &self.allocs.get(record.alloc.as_ref()?)?.slot;
        let alloc = slot.get().filter(|alloc| alloc.stop != Some(Stop::Cancelled))?;
        let mut alloc = Box::new(alloc.clone());
        alloc.stop = Some(Stop::Cancelled);
        alloc.stop_reason = Some(why);
        Some(Action::Stop {
            alloc,
            seen: slot.revision(),
            eligibility: None,
        })
    }

    fn end_unstarted(
        &self,
        id: &RunId,
        run: &LiveRun,
        (step, old): (usize, Option<&StepRecord>),
        why: &str,
        now_ms: u64,
    ) -> Action {
        let from = run.status(step).unwrap_or(StepStatus::Pending);
        let mut record = old.cloned().unwrap_or_else(|| StepRecord::first(StepStatus::Cancelled));
        record.status = StepStatus::Cancelled;
        record.reason = Some(format!("was cancelled: {why}"));
        record.retry_at_ms = None;
        record.times.ended_ms = Some(now_ms);
        Action::End(self.step_write(id, run, step, from, record))
    }

    /// Steps that somebody has asked to start.
    pub(crate) fn plan_starts(&mut self, plan: &mut Plan, now_ms: u64) {
        let asked: Vec<(RunId, String, String)> = self
            .starts
            .iter()
            .flat_map(|(run, all)| {
                all.iter()
                    .map(move |(id, step)| (run.clone(), id.clone(), step.clone()))
            })
            .filter(|(_, id, _)| !self.busy_requests.contains(id))
            .collect();
        for (run, id, step) in asked {
            if let Some(action) = self.start_action(&run, &id, &step, now_ms)
                && !self.propose(plan, action)
            {
                return;
            }
        }
    }

    /// The step's beginning; or, when it is not offered, the end of the request.
    fn start_action(&self, id: &RunId, request_id: &str, name: &str, now_ms: u64) -> Option<Action> {
        let slot = self.requests.get(request_id)?;
        let request = slot.get()?;
        let drop_it = |because| {
            Some(Action::DropRequest {
                id: request_id.to_owned(),
                seen: slot.revision(),
                because,
            })
        };
        let run = match self.runs.get(id) {
            Some(Run::Live(run)) => run,
            Some(Run::Finished(_)) => return drop_it(None),
            Some(Run::Gone(_)) => return drop_it(Some((key::run(id), Expect::Absent))),
            None => {
                let waited = now_ms.saturating_sub(request.created_ms) > crate::UNKNOWN_RUN_WAIT_MS;
                return waited.then(|| drop_it(Some((key::run(id), Expect::Absent)))).flatten();
            }
        };
        let (progress, (def, _)) = (run.progress.as_ref()?, run.def()?);
        let step = def.step_index(name);
        let offered = step.filter(|step| progress.offered().contains(step) && !self.cancels.contains_key(id));
        let Some(step) = offered else {
            // The view may be old: the step has to be as it was seen.
            return drop_it(step.map(|step| (key::step(id, step), self.step_expect(id, step))));
        };
        if run.busy.contains(&step) {
            return None;
        }
        let mut record = StepRecord::first(StepStatus::Queued);
        record.reason = Some(format!("was started by {}", request.requested_by));
        record.times.queued_ms = Some(now_ms);
        Some(Action::Start {
            write: self.step_write(id, run, step, StepStatus::Pending, record),
            id: request_id.to_owned(),
            seen: slot.revision(),
        })
    }
}
