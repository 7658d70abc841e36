//! The whole cluster and the loop over its events.

use crate::agenda::Agenda;
use crate::archived::{History, Picture};
use crate::blobs::Blobs;
use crate::chance::Chance;
use crate::faults::{Mood, ends_after};
use crate::invariants::Watcher;
use crate::leading::PREFIXES;
use crate::lie::Lie;
use crate::machine::Machine;
use crate::message::{Event, MachineEvent};
use crate::network::{Clock, Network};
use crate::printed::Printed;
use crate::report::Report;
use crate::server::{PATIENT, PROMPT, Server};
use crate::trace::Trace;
use crate::workload::{self, Planned};
use api_core::archive::cancel_request;
use model::{AllocId, Observed, Request, RequestKind, RunId, StepRecord, StepStatus, key};
use rand::Rng;
use scheduler::LeaseTimes;
use std::collections::{BTreeMap, BTreeSet};
use store::memory::MemoryCore;
use store::{Expect, Revision, Txn, WatchEvent};

/// The virtual clock begins here; any time after the request's waiting time does.
const START_MS: u64 = 1_000_000;
/// Faults happen for this long: several leases.
const FAULTY_MS: u64 = 120_000;
/// By then every run must have ended, counted from the healing: a session may have to expire and
/// a hundred steps of up to 20 s may have to go through one slot, some of them several times.
const PROGRESS_MS: u64 = 3_600_000;
/// Who sleeps or is without power when everything is healed is back by then.
const SLEEPERS_MS: u64 = 80_000;
/// How long nothing at all may happen while a run has not ended.
const STILL_MAX_MS: u64 = 60_000;
/// How often something breaks, on average.
const FAULT_EVERY_MS: u64 = 2_500;

/// The cluster.
pub(crate) struct World {
    pub(crate) agenda: Agenda<Event>,
    pub(crate) rng: Chance,
    pub(crate) store: MemoryCore,
    pub(crate) network: Network,
    pub(crate) servers: Vec<Server>,
    pub(crate) machines: Vec<Machine>,
    pub(crate) runs: Vec<Planned>,
    pub(crate) watcher: Watcher,
    /// The end that a node told for each allocation.
    pub(crate) truth: BTreeMap<AllocId, Observed>,
    pub(crate) blobs: Blobs,
    pub(crate) history: History,
    pub(crate) picture: Picture,
    pub(crate) printed: Printed,
    /// Runs that were archived whether or not their logs were whole, after the longest wait.
    pub(crate) waited_for: BTreeSet<RunId>,
    /// How often a container was started for each step.
    pub(crate) starts: BTreeMap<(RunId, usize), usize>,
    /// Streams that agents have opened.
    pub(crate) streams: u64,
    /// Requests that were made; their ids are in order.
    requests: u64,
    /// Things break.
    pub(crate) faulty: bool,
    pub(crate) report: Report,
    /// The store's engine is one that takes leases away which were renewed; the cluster is set up
    /// for that.
    pub(crate) hasty_store: bool,
    pub(crate) mood: Mood,
    /// A rule that does not hold here.
    pub(crate) lie: Option<Lie>,
    /// When the store last changed.
    changed_ms: u64,
    seen: Revision,
    pub(crate) trace: Trace,
}

/// Lives through a seed: two minutes in which things break, then until every run has ended.
///
/// # Panics
/// When an invariant does not hold. The history is lived through a second time then, and its last
/// events and the seed are printed.
#[must_use]
pub fn run(seed: u64) -> Report {
    live(World::new(seed, None)).unwrap_or_else(|(_, panic)| {
        let mut again = World::new(seed, None);
        again.trace = Trace::wanted();
        if let Err((world, _)) = live(again) {
            for line in world.trace.lines() {
                eprintln!("{line}");
            }
        }
        eprintln!("this was seed {seed}: SIM_SEED={seed} cargo test -p sim --test seeds -- --nocapture replays it");
        std::panic::resume_unwind(panic)
    })
}

/// Lives through a seed in a world that breaks a rule.
///
/// # Errors
/// What an invariant says that does not hold.
pub fn run_with(seed: u64, lie: Lie) -> Result<Report, String> {
    live(World::new(seed, Some(lie))).map_err(|(_, panic)| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string))
            .unwrap_or_default()
    })
}

type Panic = Box<dyn std::any::Any + Send>;

fn live(mut world: World) -> Result<Report, (Box<World>, Panic)> {
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.live())) {
        Ok(()) => Ok(world.report),
        Err(panic) => Err((Box::new(world), panic)),
    }
}

impl World {
    fn new(seed: u64, lie: Option<Lie>) -> Self {
        let mut rng = Chance::of(seed);
        let clock = |rng: &mut Chance| Clock::running_at(rng.random_range(950..=1_050));
        let machines = (0..rng.random_range(1..=4))
            .map(|n| Machine::new(workload::node(n, &mut rng), clock(&mut rng)))
            .collect();
        let servers = (0..rng.random_range(1..=3))
            .map(|_| Server::new(clock(&mut rng)))
            .collect();
        let hasty_store = rng.random_bool(0.2);
        let mood = Mood::new(&mut rng);
        Self {
            agenda: Agenda::starting_at(START_MS),
            store: MemoryCore::new(),
            network: Network::default(),
            servers,
            machines,
            runs: Vec::new(),
            watcher: Watcher::default(),
            truth: BTreeMap::new(),
            blobs: Blobs::default(),
            history: History::default(),
            picture: Picture::default(),
            printed: Printed::default(),
            waited_for: BTreeSet::new(),
            starts: BTreeMap::new(),
            streams: 0,
            requests: 0,
            faulty: true,
            report: Report::default(),
            hasty_store,
            lie,
            changed_ms: START_MS,
            mood,
            seen: Revision(0),
            trace: Trace::default(),
            rng,
        }
    }

    /// How long a message takes.
    pub(crate) fn delay(&mut self) -> u64 {
        let slow = self.faulty && self.rng.random_bool(0.05);
        self.rng.random_range(0..if slow { 4_000 } else { 30 })
    }

    fn plan_history(&mut self) {
        for which in 0..self.servers.len() {
            self.agenda.after(0, Event::StartServer { which });
        }
        for which in 0..self.machines.len() {
            let what = MachineEvent::StartAgent;
            self.agenda
                .after(self.rng.random_range(0..5_000), Event::Machine { which, what });
        }
        for run in 0..self.rng.random_range(1..=8) {
            let at = self.rng.random_range(0..FAULTY_MS);
            let planned = workload::run(run, START_MS + at, &mut self.rng);
            self.runs.push(planned);
            self.agenda.after(at, Event::Trigger { run });
            if self.rng.random_bool(0.3) {
                let later = at
                    .saturating_add(self.rng.random_range(0..20_000))
                    .saturating_sub(1_000);
                self.agenda.after(later, Event::Cancel { run });
            }
        }
        self.agenda
            .after(self.rng.random_range(0..FAULT_EVERY_MS * 2), Event::Fault);
        self.agenda.after(FAULTY_MS, Event::Heal);
    }

    fn live(&mut self) {
        self.plan_history();
        let mut next_period = START_MS;
        while let Some(event) = self.agenda.next() {
            self.report.events += 1;
            let at_ms = self.elapsed_ms();
            self.trace.event(at_ms, &event);
            self.happen(event);
            self.look();
            if self.agenda.now_ms() >= next_period {
                next_period = self.agenda.now_ms() + Self::period_ms();
                // Without its quorum the store lets no lease run out.
                if !self.network.store_down {
                    self.store.expire(self.agenda.now_ms());
                }
                self.look_at_everything();
                self.check_progress();
            }
            if !self.faulty && self.is_over() {
                return self.conclude();
            }
            let limit = START_MS + FAULTY_MS + PROGRESS_MS;
            assert!(self.agenda.now_ms() < limit, "no end in sight: {}", self.what_waits());
        }
    }

    /// I6: when everything is healed something happens within a minute, until every run has ended. A
    /// step that runs, or that pauses before it is tried again, may take its time.
    fn check_progress(&mut self) {
        let now_ms = self.agenda.now_ms();
        let begun_ms = self.changed_ms.max(START_MS + FAULTY_MS + SLEEPERS_MS);
        if self.faulty || now_ms < begun_ms + STILL_MAX_MS {
            return;
        }
        let pauses = |record: &StepRecord| record.retry_at_ms.is_some_and(|at| at + STILL_MAX_MS > now_ms);
        let may_wait = |run: &RunId| self.watcher.records(run).is_some_and(|r| r.values().any(pauses));
        let mut open = self.runs.iter().map(|r| &r.header.id);
        let mut open_too = open.clone();
        let stands_still = open.any(|r| !self.watcher.is_over(r)) && !open_too.any(may_wait);
        let busy = self.machines.iter().any(|m| m.alive().next().is_some());
        assert!(
            busy || !stands_still,
            "I6: nothing has happened for {} s: {}",
            (now_ms - self.changed_ms) / 1_000,
            self.what_waits()
        );
    }

    /// What servers and nodes agree on.
    pub(crate) fn lease_times(&self) -> LeaseTimes {
        if self.hasty_store { PATIENT } else { PROMPT }
    }

    /// Since the beginning.
    pub(crate) fn elapsed_ms(&self) -> u64 {
        self.agenda.now_ms() - START_MS
    }

    /// For whoever reads the trace of a failure.
    pub(crate) fn note(&mut self, who: &str, what: impl FnOnce() -> String) {
        let at_ms = self.elapsed_ms();
        self.trace.note(at_ms, who, what);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Trigger { run } => self.trigger(run),
            Event::Cancel { run } => self.cancel(run),
            Event::Fault => {
                self.break_something();
                let next = ends_after(&mut self.rng, FAULT_EVERY_MS * 2);
                if self.faulty {
                    self.agenda.after(next, Event::Fault);
                }
            }
            Event::Mend(mend) => self.mend(mend),
            Event::Heal => self.heal(),
            Event::Scheduler { which, view, what } => self.on_scheduler(which, view, what),
            Event::Election { which, life, what } => self.on_election(which, life, what),
            Event::Commit(batch) => self.commit(batch),
            Event::FileReport { which, life, filing } => self.file_report(which, life, *filing),
            Event::Put { which, life, put } => self.blob_arrives(which, life, put),
            Event::Archive { which, term, what } => self.on_archive(which, term, what),
            Event::ArchiveCommit {
                which,
                term,
                leader,
                what,
            } => self.archive_commit(which, term, leader, what),
            Event::TellHistory {
                which,
                term,
                ticket,
                runs,
            } => self.tell_history(which, term, ticket, &runs),
            Event::StartServer { which } => {
                if !self.servers[which].up {
                    self.start_server(which);
                }
            }
            Event::Server { which, life, what } => self.on_server(which, life, what),
            Event::Machine { which, what } => self.on_machine(which, what),
            Event::Agent { which, life, what } => self.on_agent(which, life, what),
        }
    }

    fn trigger(&mut self, run: usize) {
        if self.network.store_down {
            // Refused for now, and asked for again.
            return self.agenda.after(1_000, Event::Trigger { run });
        }
        let Planned { header, def } = self.runs[run].clone();
        self.watcher.triggered(&self.runs[run]);
        self.report.runs += 1;
        let now_ms = self.agenda.now_ms();
        for (n, chunk) in def.to_chunks().iter().enumerate() {
            let txn = Txn::new().put(key::run_def(&header.id, n), chunk);
            self.store.commit(txn, now_ms).expect("legal");
        }
        let txn = Txn::new()
            .expect(key::run(&header.id), Expect::Absent)
            .put(key::run(&header.id), &header);
        self.store.commit(txn, now_ms).expect("legal");
    }

    fn cancel(&mut self, run: usize) {
        let run = self.runs[run].header.id.clone();
        let id = cancel_request(&run);
        self.request_as(&id, RequestKind::Cancel { run });
    }

    /// Somebody asks the leader for something; without a store nobody can.
    pub(crate) fn request(&mut self, what: RequestKind) {
        self.requests += 1;
        let id = format!("q{:08}", self.requests);
        self.request_as(&id, what);
    }

    fn request_as(&mut self, id: &str, what: RequestKind) {
        if self.network.store_down {
            return;
        }
        let now_ms = self.agenda.now_ms();
        let request = Request {
            what,
            requested_by: "sim".to_owned(),
            created_ms: now_ms,
            request_id: String::new(),
        };
        let key = key::request(id);
        self.store.commit(Txn::new().put(key, &request), now_ms).expect("legal");
    }

    /// Shows the changes since the last event to the invariants and to those who watch.
    fn look(&mut self) {
        if self.seen == self.store.revision() {
            return;
        }
        let mut changed = [false; PREFIXES.len()];
        let mut revisions: BTreeMap<Revision, Vec<store::Change>> = BTreeMap::new();
        for (n, prefix) in PREFIXES.iter().chain([&key::ARCHIVE_OUTBOX]).enumerate() {
            for event in self.store.changes_since(self.seen, prefix) {
                let WatchEvent::Changes(changes) = event else {
                    // Compacted up to what has been seen.
                    continue;
                };
                if let Some(changed) = changed.get_mut(n) {
                    *changed = true;
                }
                revisions.entry(changes[0].revision).or_default().extend(changes);
            }
        }
        self.seen = self.store.revision();
        self.changed_ms = self.agenda.now_ms();
        for changes in revisions.values() {
            self.watcher.on_revision(changes);
            self.picture_changes(changes);
            for change in changes {
                self.trace.change(self.agenda.now_ms() - START_MS, change);
                self.count_again(change);
                self.session_changed(change);
                let node = change.key.strip_prefix(key::ALLOCS).and_then(|k| k.split('/').next());
                let machine = self.machines.iter().position(|m| Some(m.record.id.as_str()) == node);
                if let Some(which) = machine {
                    self.orders_changed(which);
                }
            }
        }
        self.announce(&changed);
    }

    fn count_again(&mut self, change: &store::Change) {
        let Some(key::RunKey::Step(..)) = key::parse_run(&change.key) else {
            return;
        };
        let record = change.value.as_deref().map(model::decode::<model::StepRecord>);
        let Some(Ok(record)) = record else { return };
        if let (StepStatus::Queued, Some(last)) = (record.status, record.earlier.last()) {
            let lost = matches!(last.outcome, Some(model::Outcome::Lost { .. }));
            *match (last.counts, lost) {
                (false, _) => &mut self.report.tried_again_drained,
                (true, true) => &mut self.report.tried_again_lost,
                (true, false) => &mut self.report.tried_again_otherwise,
            } += 1;
        }
    }

    fn is_over(&self) -> bool {
        let settled = |prefix| {
            let page = self.store.range(prefix, None, 1).expect("legal");
            page.entries.is_empty()
        };
        self.report.runs == self.runs.len()
            && self.runs.iter().all(|r| self.watcher.is_over(&r.header.id))
            && self.picture.is_empty()
            && [key::ALLOCS, key::OBSERVED, key::REQUESTS].into_iter().all(settled)
            && self
                .machines
                .iter()
                .all(|m| m.agent.as_ref().is_some_and(|a| a.node.is_idle()))
    }

    fn conclude(&mut self) {
        for planned in &self.runs {
            for step in 0..planned.def.steps.len() {
                self.watcher.check_result(&planned.header.id, step, &self.truth);
            }
        }
        self.check_history();
        let runs: Vec<RunId> = self.runs.iter().map(|r| r.header.id.clone()).collect();
        for run in runs {
            let short = self.waited_for.contains(&run);
            for record in self.watcher.records(&run).cloned().unwrap_or_default().values() {
                self.check_logs(record, short);
            }
        }
        for machine in &self.machines {
            assert_eq!(
                machine.alive().count(),
                0,
                "a container is left on {}",
                machine.record.id
            );
        }
        let ended = |status: StepStatus| self.watcher.ended.get(status.as_str()).copied().unwrap_or(0);
        self.report.ended_success = ended(StepStatus::Success);
        self.report.ended_failed = ended(StepStatus::Failed);
        self.report.ended_timed_out = ended(StepStatus::TimedOut);
        self.report.ended_cancelled = ended(StepStatus::Cancelled);
        self.report.ended_skipped = ended(StepStatus::Skipped);
    }
}
