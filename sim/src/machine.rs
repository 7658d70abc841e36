//! A machine: its disk, its containers with their shims, and its cables to the servers.
//!
//! A crash of the agent leaves journal, containers and deadline; a reboot leaves the journal alone.
//! The shims kill everything at the deadline, whether or not an agent lives. Not here: the agent's
//! process ([`crate::agent`]).

use crate::agent::Agent;
use crate::lie::Lie;
use crate::message::{AgentEvent, MachineEvent};
use crate::network::Clock;
use crate::world::World;
use model::{AllocId, NodeRecord, Observed, Outcome, Usage};
use node_agent::{Deadline, Entry};
use rand::Rng;
use std::collections::{BTreeMap, BTreeSet};

/// How late a shim may be: its timer, a busy machine.
const KILL_LATE_MS: u64 = 200;

/// A container.
#[derive(Debug, Clone)]
pub(crate) struct Sandbox {
    pub(crate) started_ms: u64,
    /// What it will have done when it ends by itself.
    pub(crate) outcome: Outcome,
    pub(crate) ended_ms: Option<u64>,
    /// The length of its log when it ended.
    pub(crate) log_bytes: u64,
}

/// One machine.
#[derive(Debug)]
pub(crate) struct Machine {
    /// What it says of itself; the epoch is the servers' business.
    pub(crate) record: NodeRecord,
    pub(crate) clock: Clock,
    pub(crate) boot: u64,
    pub(crate) journal: BTreeMap<AllocId, Entry>,
    /// What has ended here and is held no more, as the disk remembers it.
    pub(crate) ended: Vec<AllocId>,
    pub(crate) sandboxes: BTreeMap<AllocId, Sandbox>,
    /// The logs' files.
    pub(crate) files: BTreeMap<AllocId, Vec<u8>>,
    /// The file that the shims read.
    pub(crate) deadline: Option<Deadline>,
    pub(crate) agent: Option<Agent>,
    /// Grows when the agent is started or killed.
    pub(crate) life: u64,
    pub(crate) paused_until_ms: u64,
}

impl Machine {
    pub(crate) fn new(record: NodeRecord, clock: Clock) -> Self {
        Self {
            record,
            clock,
            boot: 1,
            journal: BTreeMap::new(),
            ended: Vec::new(),
            sandboxes: BTreeMap::new(),
            files: BTreeMap::new(),
            deadline: None,
            agent: None,
            life: 0,
            paused_until_ms: 0,
        }
    }

    /// Containers that are alive.
    pub(crate) fn alive(&self) -> impl Iterator<Item = &AllocId> {
        self.sandboxes
            .iter()
            .filter(|(_, s)| s.ended_ms.is_none())
            .map(|(id, _)| id)
    }
}

impl World {
    pub(crate) fn tell_machine(&mut self, which: usize, delay_ms: u64, what: MachineEvent) {
        self.agenda
            .after(delay_ms, crate::message::Event::Machine { which, what });
    }

    /// What this machine's steady clock shows.
    pub(crate) fn boottime_of(&self, which: usize) -> u64 {
        self.machines[which].clock.shows(self.agenda.now_ms())
    }

    pub(crate) fn reboot(&mut self, which: usize, down_ms: u64) {
        self.lose_tails(which);
        let machine = &mut self.machines[which];
        machine.boot += 1;
        machine.sandboxes.clear();
        machine.deadline = None;
        self.crash_agent(which, down_ms);
    }

    pub(crate) fn on_machine(&mut self, which: usize, what: MachineEvent) {
        match what {
            MachineEvent::StartAgent => self.start_agent(which),
            MachineEvent::Prints { alloc, boot } => {
                let machine = &self.machines[which];
                let alive = machine.sandboxes.get(&alloc).is_some_and(|s| s.ended_ms.is_none());
                if machine.boot == boot && alive {
                    self.print_something(which, &alloc);
                }
            }
            MachineEvent::SandboxEnds { alloc, boot } => {
                if self.machines[which].boot == boot {
                    self.sandbox_ends(which, &alloc);
                }
            }
            MachineEvent::Deadline { boot } => {
                if self.machines[which].boot == boot {
                    self.deadline_passes(which);
                }
            }
        }
    }

    /// The shims look again when the new deadline has come.
    pub(crate) fn write_deadline(&mut self, which: usize, deadline: Deadline) {
        let left_ms = deadline.at_ms.saturating_sub(self.boottime_of(which));
        let at_ms = self.elapsed_ms();
        let who = format!("n{which}");
        self.trace
            .routine(at_ms, &who, || format!("has a deadline in {left_ms} ms"));
        let machine = &mut self.machines[which];
        machine.deadline = Some(deadline);
        let boot = machine.boot;
        let at_ms = machine.clock.when(deadline.at_ms);
        let late = self.rng.random_range(0..KILL_LATE_MS);
        let delay = at_ms.saturating_sub(self.agenda.now_ms()) + late;
        self.tell_machine(which, delay, MachineEvent::Deadline { boot });
    }

    fn lease_is_over(&self, which: usize) -> bool {
        let shown = self.boottime_of(which);
        self.machines[which].deadline.is_none_or(|d| d.at_ms <= shown)
    }

    fn deadline_passes(&mut self, which: usize) {
        if !self.lease_is_over(which) || self.lie == Some(Lie::OutlivesLeases) {
            return;
        }
        let alive: Vec<AllocId> = self.machines[which].alive().cloned().collect();
        self.report.killed_by_lease += alive.len();
        for alloc in alive {
            if let Some(sandbox) = self.machines[which].sandboxes.get_mut(&alloc) {
                sandbox.outcome = lost("its node could not renew its lease");
            }
            self.sandbox_ends(which, &alloc);
        }
    }

    pub(crate) fn launch(&mut self, which: usize, alloc: &AllocId, until_ms: u64) {
        let now_ms = self.agenda.now_ms();
        if self.lease_is_over(which) || self.boottime_of(which) >= until_ms {
            // The shim reads the file before it starts anything.
            let event = node_agent::Event::LaunchFailed {
                outcome: lost("its node could not renew its lease"),
            };
            return self.learned(which, 1, alloc, event);
        }
        let outcome = match self.rng.random_range(0..10) {
            0 => Outcome::Exited { code: 3 },
            1 => Outcome::TimedOut { timeout_ms: 60_000 },
            _ => Outcome::Exited { code: 0 },
        };
        let sandbox = Sandbox {
            started_ms: now_ms,
            outcome,
            ended_ms: None,
            log_bytes: 0,
        };
        if let Some(order) = self.watcher.orders().find(|o| o.id == *alloc) {
            self.watcher.check_start(order);
        }
        let before = self.machines[which].sandboxes.insert(alloc.clone(), sandbox);
        assert!(before.is_none(), "{alloc} was launched twice on one machine");
        self.check_starts(alloc);
        let boot = self.machines[which].boot;
        let long = self.rng.random_bool(if self.mood.step_ms > 20_000 { 0.8 } else { 0.3 });
        let lasts = if long { self.mood.step_ms } else { 2_000 };
        let lasts = self.rng.random_range(1..lasts);
        let ends = MachineEvent::SandboxEnds {
            alloc: alloc.clone(),
            boot,
        };
        self.tell_machine(which, lasts, ends);
        for _ in 0..self.rng.random_range(0..4) {
            let alloc = alloc.clone();
            let at = self.rng.random_range(0..=lasts);
            self.tell_machine(which, at, MachineEvent::Prints { alloc, boot });
        }
        let launched = node_agent::Event::Launched {
            started_ms: now_ms,
            phase: None,
        };
        self.learned(which, 1, alloc, launched);
    }

    /// I3: of all attempts of a step one is alive, and never a second one of a step that must not
    /// be started twice.
    fn check_starts(&mut self, alloc: &AllocId) {
        let (run, step, _) = alloc.parts().expect("an order of ours");
        let same = |id: &&AllocId| id.parts().is_some_and(|(r, s, _)| (&r, s) == (&run, step));
        let machines = self.machines.iter().flat_map(crate::machine::Machine::alive);
        let alive: BTreeSet<&AllocId> = machines.filter(same).collect();
        assert_eq!(alive.len(), 1, "I3: several attempts of one step are alive: {alive:?}");
        let starts = self.starts.entry((run.clone(), step)).or_default();
        *starts += 1;
        let planned = self.runs.iter().find(|r| r.header.id == run).expect("a run of ours");
        let def = &planned.def.steps[step];
        assert!(
            def.idempotent || *starts == 1,
            "{alloc}: a step that is not idempotent was started twice"
        );
        self.report.launched += 1;
    }

    pub(crate) fn kill(&mut self, which: usize, alloc: &AllocId) {
        let machine = &mut self.machines[which];
        let boot = machine.boot;
        if let Some(sandbox) = machine.sandboxes.get_mut(alloc).filter(|s| s.ended_ms.is_none()) {
            // Half of the scripts end well although they were told to stop.
            if self.rng.random_bool(0.5) {
                sandbox.outcome = Outcome::Cancelled;
            }
            let delay = self.rng.random_range(1..300);
            let alloc = alloc.clone();
            self.tell_machine(which, delay, MachineEvent::SandboxEnds { alloc, boot });
        }
    }

    /// What a machine that loses its power had not written to its disk is gone from the logs of what
    /// ran there; when a container ends, its log is made durable.
    fn lose_tails(&mut self, which: usize) {
        let alive: Vec<AllocId> = self.machines[which].alive().cloned().collect();
        for alloc in alive {
            let Some(file) = self.machines[which].files.get_mut(&alloc) else {
                continue;
            };
            let len = self.rng.random_range(0..=file.len());
            if len < file.len() {
                file.truncate(len);
                self.printed.cut(&alloc, len);
                self.report.lost_tails += 1;
            }
        }
    }

    /// Appends to a log; answers its length.
    pub(crate) fn print(&mut self, which: usize, alloc: &AllocId, bytes: &[u8]) -> u64 {
        self.printed.append(alloc, bytes);
        let file = self.machines[which].files.entry(alloc.clone()).or_default();
        file.extend_from_slice(bytes);
        let len = file.len() as u64;
        let grew = AgentEvent::LogGrew { alloc: alloc.clone() };
        self.tell_agent(which, 1, grew);
        len
    }

    fn print_something(&mut self, which: usize, alloc: &AllocId) -> u64 {
        let mut bytes = vec![0; self.rng.random_range(0..=120)];
        self.rng.fill(&mut bytes[..]);
        self.print(which, alloc, &bytes)
    }

    fn sandbox_ends(&mut self, which: usize, alloc: &AllocId) {
        let now_ms = self.agenda.now_ms();
        let alive = self.machines[which].alive().any(|a| a == alloc);
        if !alive {
            return;
        }
        let log_bytes = self.print_something(which, alloc);
        let machine = &mut self.machines[which];
        let Some(sandbox) = machine.sandboxes.get_mut(alloc).filter(|s| s.ended_ms.is_none()) else {
            return;
        };
        sandbox.ended_ms = Some(now_ms);
        sandbox.log_bytes = log_bytes;
        let event = ended(sandbox);
        self.learned(which, 1, alloc, event);
    }

    pub(crate) fn learned(&mut self, which: usize, delay_ms: u64, alloc: &AllocId, event: node_agent::Event) {
        let (alloc, event) = (alloc.clone(), Box::new(event));
        self.tell_agent(which, delay_ms, AgentEvent::Told { alloc, event });
    }

    /// What the node says first is the truth of this attempt. An agent that has forgotten all but
    /// that it ended may add that it knows no more; by then the first word has been accepted.
    pub(crate) fn note_truth(&mut self, which: usize, report: &Observed) {
        let truth = self.truth.entry(report.alloc.clone()).or_insert_with(|| report.clone());
        let forgotten = self.machines[which].ended.contains(&report.alloc);
        if forgotten && matches!(report.outcome, Some(Outcome::Lost { .. })) {
            return;
        }
        assert_eq!(truth.outcome, report.outcome, "{} tells two ends", report.alloc);
    }
}

pub(crate) fn lost(message: &str) -> Outcome {
    let message = message.to_owned();
    Outcome::Lost { message }
}

pub(crate) fn ended(sandbox: &Sandbox) -> node_agent::Event {
    node_agent::Event::Ended {
        started_ms: Some(sandbox.started_ms),
        ended_ms: sandbox.ended_ms.unwrap_or(sandbox.started_ms),
        outcome: sandbox.outcome.clone(),
        log_bytes: sandbox.log_bytes,
        usage: Usage::default(),
        left: model::Left::default(),
    }
}
