//! The view: everything the scheduler knows, kept up by single changes of the store's keys.
//!
//! Each key remembers the revision of its newest change, so changes may arrive in any order and
//! any number of times: a step's record before its run's header, an allocation before its node.
//! A record that cannot be read, or stands under a key that contradicts it, is kept out of every
//! decision and its reason reported. What follows from the records (progress, queue, room) is
//! brought up to date by [`Cluster::refresh`], once for many changes.
//!
//! Not here: decisions ([`crate::plan`]) and their results ([`crate::settle`]).

use crate::action::{Action, Expect, Ticket};
use crate::estimate::{Durations, StepKey, UNKNOWN_MS};
use crate::group::{Groups, Word};
use crate::keep::Keeps;
use crate::lasting::Expected;
use crate::node::{Grant, Nodes};
use crate::queue::{Queue, Shares};
use crate::run::{LiveRun, Run};
use crate::slot::{Held, Slot};
use crate::watchfulness::Watchfulness;
use crate::{MALFORMED_MAX, TOMBSTONES_MAX};
use model::key::{self, RunKey};
use model::{
    AllocId, Allocation, ClusterVersion, DefChunk, Eligibility, NodeId, NodeRecord, Observed, Record, Request,
    RequestKind, RunHeader, RunId, SessionRecord, StepRecord, StepStatus, TeamName,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// What became of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It is now part of the view.
    New,
    /// It was known, or a newer one was.
    Stale,
    /// The key is none that the scheduler looks at.
    Foreign,
}

/// A record that is kept out of every decision.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the record under `{key}` is kept out: {reason}")]
pub struct Malformed {
    /// Where it stands.
    pub key: String,
    /// What is wrong with it.
    pub reason: String,
}

/// An allocation and the team that it is charged to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct AllocState {
    pub(crate) slot: Slot<Allocation>,
    pub(crate) team: Option<TeamName>,
    /// What its node was told to expect of it.
    pub(crate) expected: Expected,
}

/// A proposal that waits for its answer, and the team that its reservation is charged to.
#[derive(Debug, Clone)]
pub(crate) struct InFlight {
    pub(crate) action: Arc<Action>,
    pub(crate) team: Option<TeamName>,
    /// What the node of a placement was told to expect of it.
    pub(crate) expected: Expected,
}

/// The scheduler's view of the cluster.
#[derive(Debug, Clone, Default)]
pub struct Cluster {
    pub(crate) version: Slot<ClusterVersion>,
    pub(crate) runs: BTreeMap<Arc<RunId>, Run>,
    pub(crate) nodes: Nodes,
    pub(crate) allocs: BTreeMap<AllocId, AllocState>,
    pub(crate) reports: BTreeMap<AllocId, Slot<Observed>>,
    pub(crate) requests: BTreeMap<String, Slot<Request>>,
    /// Runs that are to be cancelled, by the requests that say so.
    pub(crate) cancels: BTreeMap<RunId, BTreeSet<String>>,
    /// Requests about nodes, by age.
    pub(crate) node_requests: BTreeSet<(u64, String)>,
    /// Steps that wait for their next attempt, by the time when they may have it.
    pub(crate) waiting: BTreeSet<(u64, Arc<RunId>, usize)>,
    /// The latest wall-clock time that was told.
    pub(crate) wall_ms: u64,
    /// What is known of nodes that may be lost or are drained.
    pub(crate) watchfulness: Watchfulness,
    pub(crate) queue: Queue,
    pub(crate) shares: Shares,
    /// Room that is kept for steps that were overtaken too long.
    pub(crate) keeps: Keeps,
    /// How long steps ran before.
    pub(crate) durations: Durations,
    /// Runs of which something has changed since the last refresh.
    pub(crate) changed_runs: BTreeSet<Arc<RunId>>,
    /// Runs with steps that can never start and are not yet recorded so.
    pub(crate) doomed_runs: BTreeSet<Arc<RunId>>,
    /// Runs that are to be ended, whole or in part, because of others or of their own steps.
    pub(crate) ending_runs: BTreeSet<Arc<RunId>>,
    pub(crate) groups: Groups,
    /// Steps that somebody has asked to start, by the requests that say so.
    pub(crate) starts: BTreeMap<RunId, BTreeMap<String, String>>,
    /// Allocations whose order, report or step has changed since they were last looked at.
    pub(crate) changed_allocs: BTreeSet<AllocId>,
    pub(crate) in_flight: BTreeMap<Ticket, InFlight>,
    pub(crate) busy_allocs: BTreeSet<AllocId>,
    pub(crate) busy_requests: BTreeSet<String>,
    /// Nodes whose eligibility is about to be written.
    pub(crate) busy_nodes: BTreeSet<NodeId>,
    pub(crate) last_ticket: u64,
    /// All orders were read at this revision: an older one that was not among them is gone, although
    /// a watch that lags behind may still tell of it.
    orders_read: u64,
    /// How many of the runs have finished or are gone.
    passed_runs: usize,
    malformed: BTreeMap<String, String>,
    tombstones: VecDeque<(String, u64)>,
}

/// The bytes under a key as a record that agrees with its key.
fn read<R: Record>(value: Option<&[u8]>, agrees: impl Fn(&R) -> bool) -> (Held<R>, Option<String>) {
    let Some(bytes) = value else {
        return (Held::Absent, None);
    };
    match model::decode::<R>(bytes) {
        Ok(record) if agrees(&record) => (Held::Present(record), None),
        Ok(_) => (Held::Malformed, Some("it contradicts its own key".to_owned())),
        Err(cause) => (Held::Malformed, Some(cause.to_string())),
    }
}

fn node_id(text: &str) -> Option<NodeId> {
    NodeId::new(text).ok()
}

impl Cluster {
    /// A view that knows nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes one change of the store: the key's new bytes, or `None` when it was removed.
    ///
    /// # Errors
    /// [`Malformed`] when the record cannot be used; the view then treats the key as damaged.
    pub fn on_change(&mut self, key: &str, value: Option<&[u8]>, revision: u64) -> Result<Taken, Malformed> {
        let Some((taken, fault)) = self.dispatch(key, value, revision) else {
            return Ok(Taken::Foreign);
        };
        if !taken {
            return Ok(Taken::Stale);
        }
        self.malformed.remove(key);
        if value.is_none() {
            self.bury(key, revision);
        }
        let Some(reason) = fault else {
            return Ok(Taken::New);
        };
        if self.malformed.len() < MALFORMED_MAX {
            self.malformed.insert(key.to_owned(), reason.clone());
        }
        let key = key.to_owned();
        Err(Malformed { key, reason })
    }

    /// Takes a whole reading of all orders that began at `revision`: those that are known and not
    /// among them are gone. Answers the records that are kept out.
    ///
    /// What is free on a node follows from all its orders, and no guard of a placement compares
    /// those, so **who begins to lead reads them once after the leader's key is held**, whatever the
    /// watches have told so far; and who does not know what became of a commit gives up that key
    /// first, so that the commit cannot be applied behind the back of the reading.
    pub fn on_all_orders<'a>(
        &mut self,
        orders: impl Iterator<Item = (&'a str, &'a [u8], u64)>,
        revision: u64,
    ) -> Vec<Malformed> {
        let mut listed = BTreeSet::new();
        let mut malformed = Vec::new();
        self.orders_read = 0;
        for (key, value, mod_revision) in orders {
            // A warm view knows nearly all of them: what it knows is not read again.
            if !self.knows_order(key, mod_revision) {
                malformed.extend(self.on_change(key, Some(value), mod_revision).err());
            }
            listed.insert(key);
        }
        let known = self
            .allocs
            .values()
            .filter_map(|a| Some((a.slot.get()?, a.slot.revision())));
        let gone = known.filter(|(_, known_at)| *known_at <= revision);
        let gone: Vec<String> = gone.map(|(a, _)| key::alloc(&a.node, &a.id)).collect();
        for key in gone.iter().filter(|key| !listed.contains(key.as_str())) {
            // One that is known from this very revision stands at it; its removal comes by the watch.
            malformed.extend(self.on_change(key, None, revision).err());
        }
        self.orders_read = revision;
        malformed
    }

    fn knows_order(&self, key: &str, revision: u64) -> bool {
        let id = key.rsplit_once('/').and_then(|(_, id)| AllocId::new(id).ok());
        let state = id.and_then(|id| self.allocs.get(&id));
        state.is_some_and(|s| s.slot.revision() == revision && s.slot.get().is_some())
    }

    /// True when a change of this step's key says nothing: the leader knows what it wrote long before
    /// the watch repeats it, and most changes are its own.
    fn knows_step(&self, run: &RunId, step: usize, revision: u64) -> bool {
        match self.runs.get(run) {
            Some(Run::Live(live)) => live.steps.get(&step).is_some_and(|s| s.revision() >= revision),
            Some(Run::Finished(_)) => true,
            Some(Run::Gone(at)) => revision <= *at,
            None => false,
        }
    }

    /// Whether the change was taken, and what is wrong with its record; `None` for a foreign key. What
    /// is known already is not even read.
    fn dispatch(&mut self, key: &str, value: Option<&[u8]>, revision: u64) -> Option<(bool, Option<String>)> {
        if key.starts_with(key::RUNS) {
            return self.dispatch_run(key::parse_run(key)?, value, revision);
        }
        if let Some(rest) = key.strip_prefix(key::ALLOCS) {
            let (node, alloc) = rest.split_once('/')?;
            let (node, id) = (node_id(node)?, AllocId::new(alloc).ok()?);
            if self.allocs.get(&id).is_some_and(|a| a.slot.revision() >= revision) {
                return Some((false, None));
            }
            let (held, fault) = read(value, |a: &Allocation| {
                a.node == node && a.id == id && is_named_by_parts(a)
            });
            return Some((self.on_alloc(&node, &id, held, revision), fault));
        }
        if let Some(alloc) = key.strip_prefix(key::OBSERVED) {
            let id = AllocId::new(alloc).ok()?;
            if self.reports.get(&id).is_some_and(|r| r.revision() >= revision) {
                return Some((false, None));
            }
            let (held, fault) = read(value, |o: &Observed| o.alloc == id);
            return Some((self.on_observed(&id, held, revision), fault));
        }
        if let Some(node) = key.strip_prefix(key::NODES) {
            let id = node_id(node)?;
            let (held, fault) = read(value, |n: &NodeRecord| n.id == id);
            return Some((self.on_node(&id, held, revision), fault));
        }
        if let Some(node) = key.strip_prefix(key::SESSIONS) {
            let id = node_id(node)?;
            let (held, fault) = read(value, |s: &SessionRecord| s.node == id);
            return Some((self.on_session(&id, held, revision), fault));
        }
        if let Some(node) = key.strip_prefix(key::ELIGIBILITIES) {
            let id = node_id(node)?;
            let (held, fault) = read(value, |e: &Eligibility| e.node == id);
            return Some((self.on_eligibility(&id, held, revision), fault));
        }
        if let Some(id) = key.strip_prefix(key::REQUESTS) {
            let (held, fault) = read(value, |_: &Request| true);
            return Some((self.on_request(id, held, revision), fault));
        }
        if key == key::CLUSTER_VERSION {
            let (held, fault) = read(value, |_: &ClusterVersion| true);
            return Some((self.on_version(held, revision), fault));
        }
        None
    }

    fn dispatch_run(&mut self, key: RunKey, value: Option<&[u8]>, revision: u64) -> Option<(bool, Option<String>)> {
        let (taken, fault) = match key {
            RunKey::Header(run) => {
                let (held, fault) = read(value, |h: &RunHeader| h.id == run);
                (self.on_header(&run, held, revision), fault)
            }
            RunKey::Def(run, chunk) => {
                if !self.wants_chunk(&run) {
                    return Some((false, None));
                }
                let (held, fault) = read(value, |_: &DefChunk| true);
                (self.on_def_chunk(&run, chunk, held, revision), fault)
            }
            RunKey::Step(run, step) => {
                if self.knows_step(&run, step, revision) {
                    return Some((false, None));
                }
                let (held, fault) = read(value, |_: &StepRecord| true);
                (self.on_step(&run, step, held, revision), fault)
            }
        };
        Some((taken, fault))
    }

    /// The run in its live form, for a change of one of its keys; `None` when the change says
    /// nothing, because the run has finished, or is gone since then.
    fn touched<T>(&mut self, run: &RunId, held: &Held<T>, revision: u64) -> Option<&mut LiveRun> {
        match self.runs.get(run) {
            Some(Run::Live(_)) => {}
            Some(Run::Finished(_)) => return None,
            Some(Run::Gone(at)) if matches!(held, Held::Absent) || revision <= *at => return None,
            // It is put back under its old id.
            Some(Run::Gone(at)) => {
                let live = LiveRun::after_removal(*at);
                self.set_run(run, Run::Live(Box::new(live)));
            }
            None => self.set_run(run, Run::Live(Box::default())),
        }
        match self.runs.get_mut(run)? {
            Run::Live(live) => Some(live),
            Run::Finished(_) | Run::Gone(_) => None,
        }
    }

    fn set_run(&mut self, id: &RunId, run: Run) {
        let passed = |run: &Run| usize::from(!matches!(run, Run::Live(_)));
        let after = passed(&run);
        let before = match self.runs.get_mut(id) {
            Some(there) => passed(&std::mem::replace(there, run)),
            None => {
                self.runs.insert(Arc::new(id.clone()), run);
                0
            }
        };
        self.passed_runs = self.passed_runs + after - before;
    }

    fn remove_run(&mut self, id: &RunId) {
        if let Some(run) = self.runs.remove(id) {
            self.passed_runs -= usize::from(!matches!(run, Run::Live(_)));
        }
    }

    /// False when the run's definition has been read already, or is not needed any more.
    #[must_use]
    pub fn wants_chunk(&self, run: &RunId) -> bool {
        match self.runs.get(run) {
            None | Some(Run::Gone(_)) => true,
            Some(Run::Live(live)) => live.definition == crate::run::Definition::Incomplete,
            Some(Run::Finished(_)) => false,
        }
    }

    pub(crate) fn mark_run(&mut self, run: &RunId) {
        if let Some((run, _)) = self.runs.get_key_value(run) {
            self.changed_runs.insert(Arc::clone(run));
        }
    }

    /// A run's header came or went. Without it there is no run: what else is known of it is
    /// dropped, and what comes later of its other keys says nothing.
    pub(crate) fn on_header(&mut self, run: &RunId, held: Held<RunHeader>, revision: u64) -> bool {
        let known_at = match self.runs.get(run) {
            Some(Run::Live(live)) => live.header.revision(),
            Some(Run::Finished(finished)) => finished.header_revision,
            Some(Run::Gone(at)) => *at,
            None => 0,
        };
        if revision <= known_at {
            return false;
        }
        if held == Held::Absent {
            self.drop_run(run, revision);
            return true;
        }
        let taken = self
            .touched(run, &held, revision)
            .is_some_and(|live| live.take_header(held, revision));
        if taken {
            self.charge_allocs_of(run);
            self.on_definition(run);
        }
        taken
    }

    fn drop_run(&mut self, run: &RunId, revision: u64) {
        if let Some((id, _)) = self.runs.get_key_value(run) {
            let id = Arc::clone(id);
            self.dequeue_all(&id);
            self.leave_groups(&id);
        }
        self.set_run(run, Run::Gone(revision));
        self.changed_runs.remove(run);
        self.mark_allocs(&format!("{run}-"));
    }

    /// The run's definition may be known by now, and with it what its reports mean.
    fn on_definition(&mut self, run: &RunId) {
        self.mark_run(run);
        if matches!(self.runs.get(run), Some(Run::Live(live)) if live.def().is_some()) {
            self.mark_allocs(&format!("{run}-"));
            self.learn_durations(run);
        }
    }

    /// A chunk of a run's definition came or went.
    pub(crate) fn on_def_chunk(&mut self, run: &RunId, chunk: usize, held: Held<DefChunk>, revision: u64) -> bool {
        let taken = self
            .touched(run, &held, revision)
            .is_some_and(|live| live.take_chunk(chunk, held, revision));
        if taken {
            self.on_definition(run);
        }
        taken
    }

    /// A step's record came or went.
    pub(crate) fn on_step(&mut self, run: &RunId, step: usize, held: Held<StepRecord>, revision: u64) -> bool {
        let taken = self
            .touched(run, &held, revision)
            .is_some_and(|live| live.take_step(step, held, revision));
        if taken {
            self.learn_duration(run, step);
            self.mark_run(run);
            self.mark_allocs(&format!("{run}-{step}-"));
        }
        taken
    }

    /// A node registered or was removed.
    pub(crate) fn on_node(&mut self, node: &NodeId, held: Held<NodeRecord>, revision: u64) -> bool {
        let taken = self.nodes.take_record(node, held, revision);
        if taken {
            self.watchfulness.mark(node);
        }
        taken
    }

    /// A node's stream came or went.
    pub(crate) fn on_session(&mut self, node: &NodeId, held: Held<SessionRecord>, revision: u64) -> bool {
        let taken = self.nodes.take_session(node, held, revision);
        if taken {
            self.watchfulness.mark(node);
        }
        taken
    }

    /// What is wanted of a node came, changed or went.
    pub(crate) fn on_eligibility(&mut self, node: &NodeId, held: Held<Eligibility>, revision: u64) -> bool {
        let taken = self.nodes.take_eligibility(node, held, revision);
        if taken {
            let eligibility = self.nodes.get(node).and_then(|n| n.eligibility.get());
            self.watchfulness.wanted(node, eligibility);
        }
        taken
    }

    /// An order came, changed or went.
    pub(crate) fn on_alloc(&mut self, node: &NodeId, id: &AllocId, held: Held<Allocation>, revision: u64) -> bool {
        if held != Held::Absent && revision <= self.orders_read {
            return false;
        }
        let expected = self.expected_of_order(&held);
        let state = self.allocs.entry(id.clone()).or_default();
        if state.slot.get().is_some_and(|a| a.node != *node) {
            // An id holds its fence, so the same id on a second node was not written by a leader.
            return false;
        }
        let Some(old) = state.slot.take(held, revision) else {
            return false;
        };
        let old_team = state.team.take();
        let old_expected = std::mem::replace(&mut state.expected, expected);
        let new = state.slot.get().map(|a| (Grant::one(&a.resources), a.run.clone()));
        if let Held::Present(old) = old {
            self.nodes
                .drop_used(&old.node, &Grant::one(&old.resources), old_expected);
            self.watchfulness.removed(&old.node, id);
            if let Some(team) = &old_team {
                self.shares.subtract(team, &old.resources);
            }
        }
        if let Some((grant, run)) = new {
            self.nodes.add_used(node, &grant, expected);
            self.watchfulness.added(node, id);
            self.charge(id, &run);
        }
        self.changed_allocs.insert(id.clone());
        true
    }

    /// A report came, changed or went.
    pub(crate) fn on_observed(&mut self, id: &AllocId, held: Held<Observed>, revision: u64) -> bool {
        let taken = self
            .reports
            .entry(id.clone())
            .or_default()
            .take(held, revision)
            .is_some();
        if taken {
            self.changed_allocs.insert(id.clone());
        }
        taken
    }

    /// A request came or went.
    pub(crate) fn on_request(&mut self, id: &str, held: Held<Request>, revision: u64) -> bool {
        let slot = self.requests.entry(id.to_owned()).or_default();
        let Some(old) = slot.take(held, revision) else {
            return false;
        };
        let new = slot.get().map(|r| (r.what.clone(), r.created_ms));
        if let Held::Present(old) = old {
            self.forget_request(id, &old);
        }
        match new {
            Some((RequestKind::Cancel { run }, _)) => {
                self.mark_run(&run);
                self.cancels.entry(run).or_default().insert(id.to_owned());
            }
            Some((RequestKind::Start { run, step }, _)) => {
                self.starts.entry(run).or_default().insert(id.to_owned(), step);
            }
            Some((_, created_ms)) => {
                self.node_requests.insert((created_ms, id.to_owned()));
            }
            None => {}
        }
        true
    }

    fn forget_request(&mut self, id: &str, old: &Request) {
        if let RequestKind::Start { run, .. } = &old.what {
            if let Some(starts) = self.starts.get_mut(run) {
                starts.remove(id);
                if starts.is_empty() {
                    self.starts.remove(run);
                }
            }
            return;
        }
        let RequestKind::Cancel { run } = &old.what else {
            self.node_requests.remove(&(old.created_ms, id.to_owned()));
            return;
        };
        if let Some(ids) = self.cancels.get_mut(run) {
            ids.remove(id);
            if ids.is_empty() {
                self.cancels.remove(run);
            }
        }
        self.mark_run(run);
    }

    /// The cluster's format and epoch came.
    pub(crate) fn on_version(&mut self, held: Held<ClusterVersion>, revision: u64) -> bool {
        self.version.take(held, revision).is_some()
    }

    fn step_key(&self, run: &RunId, step: usize) -> Option<(StepKey, u64)> {
        let Some(Run::Live(live)) = self.runs.get(run) else {
            return None;
        };
        let (header, (def, _)) = (live.header.get()?, live.def()?);
        let step = def.steps.get(step)?;
        Some((StepKey::of(&header.team, &header.pipeline, &step.name), step.timeout_ms))
    }

    /// How long the step is expected to run, milliseconds.
    pub(crate) fn expected_ms(&self, run: &RunId, step: usize) -> u64 {
        let Some((key, timeout_ms)) = self.step_key(run, step) else {
            return UNKNOWN_MS;
        };
        self.durations.expected(key).unwrap_or(UNKNOWN_MS).min(timeout_ms)
    }

    /// What the node of an order is told to expect of it.
    pub(crate) fn expected_of(&self, order: &Allocation) -> Expected {
        Expected {
            began_ms: order.created_ms,
            lasts_ms: self.expected_ms(&order.run, order.step),
        }
    }

    fn expected_of_order(&self, held: &Held<Allocation>) -> Expected {
        match held {
            Held::Present(order) => self.expected_of(order),
            Held::Absent | Held::Malformed => Expected::default(),
        }
    }

    /// Remembers how long a step ran that ended by itself.
    fn learn_duration(&mut self, run: &RunId, step: usize) {
        let Some(Run::Live(live)) = self.runs.get(run) else {
            return;
        };
        let Some(record) = live.records.get(&step) else { return };
        let by_itself = matches!(
            record.status,
            StepStatus::Success | StepStatus::Failed | StepStatus::TimedOut
        );
        let (Some(started), Some(ended)) = (record.times.started_ms, record.times.ended_ms) else {
            return;
        };
        if let (true, Some((key, _))) = (by_itself, self.step_key(run, step)) {
            self.durations.learn(key, ended.saturating_sub(started));
        }
    }

    /// Remembers how long the steps ran whose records came before their definition.
    fn learn_durations(&mut self, run: &RunId) {
        let Some(Run::Live(live)) = self.runs.get(run) else {
            return;
        };
        let ended = live.records.iter().filter(|(_, record)| record.status.is_terminal());
        let ended: Vec<usize> = ended.map(|(step, _)| *step).collect();
        for step in ended {
            self.learn_duration(run, step);
        }
    }

    fn team_of(&self, run: &RunId) -> Option<&TeamName> {
        match self.runs.get(run)? {
            Run::Live(live) => Some(&live.header.get()?.team),
            Run::Finished(_) | Run::Gone(_) => None,
        }
    }

    /// Counts an allocation to its run's team, once the run is known.
    fn charge(&mut self, id: &AllocId, run: &RunId) {
        let Some(team) = self.team_of(run).cloned() else { return };
        let Some(state) = self.allocs.get_mut(id) else { return };
        let (None, Some(alloc)) = (&state.team, state.slot.get()) else {
            return;
        };
        self.shares.add(&team, &alloc.resources);
        state.team = Some(team);
    }

    fn charge_allocs_of(&mut self, run: &RunId) {
        for id in self.alloc_ids(&format!("{run}-")) {
            self.charge(&id, run);
        }
    }

    /// Has the allocations and reports whose ids begin so looked at again.
    pub(crate) fn mark_allocs(&mut self, prefix: &str) {
        let ids = self.alloc_ids(prefix);
        self.changed_allocs.extend(ids);
    }

    /// The allocations and reports whose ids begin so. Ids begin with their run and step.
    fn alloc_ids(&self, prefix: &str) -> Vec<AllocId> {
        let Ok(first) = AllocId::new(prefix) else {
            return Vec::new();
        };
        let matches = |id: &&AllocId| id.as_str().starts_with(prefix);
        let orders = self.allocs.range(&first..).map(|(id, _)| id).take_while(matches);
        let reports = self.reports.range(&first..).map(|(id, _)| id).take_while(matches);
        orders.chain(reports).cloned().collect()
    }

    /// Remembers a removed key for a while, so that an older change does not bring it back.
    pub(crate) fn bury(&mut self, key: &str, revision: u64) {
        self.tombstones.push_back((key.to_owned(), revision));
        while self.tombstones.len() > TOMBSTONES_MAX {
            if let Some((key, revision)) = self.tombstones.pop_front() {
                self.forget(&key, revision);
            }
        }
    }

    fn forget(&mut self, key: &str, revision: u64) {
        fn is_gone<T>(slot: &Slot<T>, revision: u64) -> bool {
            slot.is_absent() && slot.revision() == revision
        }
        if let Some(rest) = key.strip_prefix(key::ALLOCS) {
            let id = rest.split_once('/').and_then(|(_, id)| AllocId::new(id).ok());
            if let Some(id) = id.filter(|id| self.allocs.get(id).is_some_and(|s| is_gone(&s.slot, revision))) {
                self.allocs.remove(&id);
            }
        } else if let Some(id) = key.strip_prefix(key::OBSERVED).and_then(|id| AllocId::new(id).ok()) {
            if self.reports.get(&id).is_some_and(|s| is_gone(s, revision)) {
                self.reports.remove(&id);
            }
        } else if let Some(id) = key.strip_prefix(key::REQUESTS) {
            if self.requests.get(id).is_some_and(|s| is_gone(s, revision)) {
                self.requests.remove(id);
            }
        } else if let Some(run) = key::parse_run(key) {
            self.forget_run(run, revision);
        } else {
            let of_nodes = [key::NODES, key::SESSIONS, key::ELIGIBILITIES];
            let node = of_nodes.iter().find_map(|prefix| key.strip_prefix(prefix));
            if let Some(node) = node.and_then(node_id) {
                self.nodes.forget(&node);
            }
        }
    }

    fn forget_run(&mut self, key: RunKey, revision: u64) {
        let (RunKey::Header(run) | RunKey::Def(run, _) | RunKey::Step(run, _)) = &key;
        let nothing_left = match (self.runs.get_mut(run), &key) {
            (Some(Run::Gone(at)), RunKey::Header(_)) => *at == revision,
            (Some(Run::Live(live)), RunKey::Def(_, chunk)) => live.forget_chunk(*chunk, revision),
            (Some(Run::Live(live)), RunKey::Step(_, step)) => live.forget_step(*step, revision),
            _ => false,
        };
        if nothing_left {
            self.remove_run(run);
        }
    }

    /// Brings everything that follows from the records up to date. [`Cluster::plan`] and
    /// [`Cluster::explain`] do it themselves; who does not plan calls it after changes, so that
    /// finished runs shrink.
    pub fn refresh(&mut self) {
        self.nodes.refresh();
        // What one run is to its groups may change what another may do.
        while let Some(run) = self.changed_runs.pop_first() {
            self.refresh_run(&run);
        }
    }

    /// [`Cluster::refresh`] at this time: steps whose pause is over wait for a node now.
    pub(crate) fn refresh_at(&mut self, now_ms: u64) {
        self.wall_ms = self.wall_ms.max(now_ms);
        while let Some((_, run, _)) = self.waiting.first().filter(|(at, ..)| *at <= self.wall_ms) {
            let run = Arc::clone(run);
            self.waiting.pop_first();
            self.changed_runs.insert(run);
        }
        self.refresh();
        self.nodes.advance(self.wall_ms);
    }

    fn refresh_run(&mut self, id: &Arc<RunId>) {
        let cancelled = self.cancels.contains_key(&**id);
        let wall_ms = self.wall_ms;
        let Some(Run::Live(run)) = self.runs.get_mut(id) else {
            return;
        };
        run.judge();
        let moved = self.groups.set(id, run.memberships());
        self.changed_runs.extend(moved);
        let word = self.groups.of_run(id).map_or(Word::Go, |(word, _)| word);
        let held: BTreeSet<usize> = self
            .groups
            .of_steps(id)
            .filter(|(_, word, _)| *word != Word::Go)
            .map(|(step, ..)| step)
            .collect();
        let ended = self
            .groups
            .of_steps(id)
            .any(|(_, word, _)| matches!(word, Word::End(_)));
        let progress = run.progress.as_ref();
        let whole = run.header.get().is_some() && !cancelled && run.damage().is_none();
        let open = whole && word == Word::Go;
        let ready = progress.iter().filter(|_| open).flat_map(|p| p.ready().iter().copied());
        let free = ready.filter(|step| !run.busy.contains(step) && !held.contains(step));
        let (later, wanted): (BTreeSet<usize>, BTreeSet<usize>) = free.partition(|step| run.pauses(*step, wall_ms));
        for step in &later {
            if let Some(at) = run.retry_at_ms(*step) {
                self.waiting.insert((at, Arc::clone(id), *step));
            }
        }
        let doomed = open && progress.is_some_and(|p| !p.skips().is_empty());
        let stops = progress.is_some_and(|p| !p.stops().is_empty());
        let ending = whole && (ended || stops || matches!(word, Word::End(_)));
        let before = std::mem::replace(&mut run.queued, wanted.clone());
        if let (Some((_, shapes)), Some(header)) = (run.def(), run.header.get()) {
            for step in before.difference(&wanted) {
                self.queue.remove(&header.team, &shapes[*step], &run.age(id, *step));
            }
            for step in wanted.difference(&before) {
                self.queue.insert(&header.team, &shapes[*step], run.age(id, *step));
            }
        }
        if doomed {
            self.doomed_runs.insert(Arc::clone(id));
        } else {
            self.doomed_runs.remove(id);
        }
        if ending {
            self.ending_runs.insert(Arc::clone(id));
        } else {
            self.ending_runs.remove(id);
        }
        if let Some(finished) = run.finished() {
            self.leave_groups(id);
            self.set_run(id, Run::Finished(finished));
            self.mark_allocs(&format!("{id}-"));
        }
    }

    fn leave_groups(&mut self, id: &Arc<RunId>) {
        self.ending_runs.remove(id);
        let moved = self.groups.set(id, BTreeMap::new());
        self.changed_runs.extend(moved);
    }

    /// Takes all steps of a run out of the queue.
    fn dequeue_all(&mut self, id: &Arc<RunId>) {
        self.doomed_runs.remove(id);
        let Some(Run::Live(run)) = self.runs.get_mut(id) else {
            return;
        };
        let queued = std::mem::take(&mut run.queued);
        if let (Some((_, shapes)), Some(header)) = (run.def(), run.header.get()) {
            for step in queued {
                self.queue.remove(&header.team, &shapes[step], &run.age(id, step));
            }
        }
    }

    /// What the step's key holds, as far as the view knows.
    pub(crate) fn step_expect(&self, run: &RunId, step: usize) -> Expect {
        match self.runs.get(run) {
            Some(Run::Live(live)) => live.steps.get(&step).map_or(Expect::Absent, Slot::expect),
            Some(Run::Finished(finished)) => match finished.steps.get(step) {
                Some(ended) => Expect::Revision(ended.revision),
                None => Expect::Absent,
            },
            Some(Run::Gone(_)) | None => Expect::Absent,
        }
    }

    /// Records that are kept out, with the reason, by key; at most [`MALFORMED_MAX`].
    #[must_use]
    pub fn malformed(&self) -> &BTreeMap<String, String> {
        &self.malformed
    }

    /// How many steps are ready and wait for a node, as of the last plan.
    #[must_use]
    pub fn queue_len(&self) -> usize {
        self.queue.len()
    }

    /// The store's format and the cluster's epoch, once they are known.
    #[must_use]
    pub fn version(&self) -> Option<&ClusterVersion> {
        self.version.get()
    }

    /// How many runs have not finished.
    #[must_use]
    pub fn live_runs(&self) -> usize {
        self.runs.len() - self.passed_runs
    }

    /// The status of a step; `None` when the run is not known, or not well enough. Readiness is as
    /// of the last plan.
    #[must_use]
    pub fn status(&self, run: &RunId, step: usize) -> Option<StepStatus> {
        match self.runs.get(run)? {
            Run::Live(live) => live.status(step),
            Run::Finished(finished) => finished.steps.get(step).map(|s| s.status),
            Run::Gone(_) => None,
        }
    }
}

/// The id of an order says which step it serves under which fence.
fn is_named_by_parts(alloc: &Allocation) -> bool {
    alloc.id.parts() == Some((alloc.run.clone(), alloc.step, alloc.fence))
}
