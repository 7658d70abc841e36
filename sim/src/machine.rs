//! A machine: its disk, its containers and, while it runs, the real core of the agent; and the
//! server that holds its stream.
//!
//! A crash of the agent leaves journal and containers; a reboot leaves the journal alone. The
//! stream delivers orders in order; reports may be late, repeated and out of order, as they are
//! when an old stream's server is slow.

use crate::message::{AgentEvent, Event, MachineEvent};
use crate::world::World;
use model::record::Unknown;
use model::{
    AllocId, Allocation, NodeRecord, Observed, ObservedState, Outcome, SessionRecord, StartFailure, Usage, key,
};
use node_agent::{Act, Effect, Entry, Found, Kill, Node, Order, Work};
use rand::Rng;
use std::collections::BTreeMap;
use store::{Expect, LeaseId, Txn};

const SESSION_TTL_MS: u64 = 20_000;
const SESSION_RENEW_MS: u64 = 5_000;
const TICK_MS: u64 = 1_000;

/// A container.
#[derive(Debug, Clone)]
pub(crate) struct Sandbox {
    started_ms: u64,
    /// What it will have done when it ends by itself.
    outcome: Outcome,
    ended_ms: Option<u64>,
}

/// One machine.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) record: NodeRecord,
    pub(crate) boot: u64,
    journal: BTreeMap<AllocId, Entry>,
    sandboxes: BTreeMap<AllocId, Sandbox>,
    pub(crate) agent: Option<Node>,
    /// Grows when the agent is started or killed.
    pub(crate) life: u64,
    /// The stream, while there is one.
    pub(crate) connection: Option<u64>,
    lease: Option<LeaseId>,
    /// Orders on this stream arrive no earlier than this.
    orders_due_ms: u64,
    reading: bool,
}

impl Machine {
    pub(crate) fn new(record: NodeRecord) -> Self {
        Self {
            record,
            boot: 1,
            journal: BTreeMap::new(),
            sandboxes: BTreeMap::new(),
            agent: None,
            life: 0,
            connection: None,
            lease: None,
            orders_due_ms: 0,
            reading: false,
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
    fn tell_agent(&mut self, which: usize, delay_ms: u64, what: AgentEvent) {
        let life = self.machines[which].life;
        self.agenda.after(delay_ms, Event::Agent { which, life, what });
    }

    fn tell_machine(&mut self, which: usize, delay_ms: u64, what: MachineEvent) {
        self.agenda.after(delay_ms, Event::Machine { which, what });
    }

    fn learned(&mut self, which: usize, delay_ms: u64, alloc: &AllocId, event: node_agent::Event) {
        let (alloc, event) = (alloc.clone(), Box::new(event));
        self.tell_agent(which, delay_ms, AgentEvent::Told { alloc, event });
    }

    pub(crate) fn crash_agent(&mut self, which: usize) {
        self.disconnect(which);
        let machine = &mut self.machines[which];
        machine.agent = None;
        machine.life += 1;
        let delay = self.rng.random_range(0..10_000);
        self.tell_machine(which, delay, MachineEvent::StartAgent);
    }

    pub(crate) fn reboot(&mut self, which: usize) {
        let machine = &mut self.machines[which];
        machine.boot += 1;
        machine.sandboxes.clear();
        self.crash_agent(which);
    }

    /// The stream breaks. Its server notices at once, or when the lease has expired.
    pub(crate) fn disconnect(&mut self, which: usize) {
        let now_ms = self.agenda.now_ms();
        let machine = &mut self.machines[which];
        if machine.connection.take().is_none() {
            return;
        }
        if let Some(lease) = machine.lease.take()
            && self.rng.random_bool(0.5)
        {
            let delay = self.rng.random_range(0..500);
            self.tell_machine(which, delay, MachineEvent::EndSession { lease: lease.0 });
        }
        let machine = &mut self.machines[which];
        if let Some(agent) = &mut machine.agent {
            let acts = agent.on_disconnected(now_ms);
            self.perform(which, acts);
            let delay = self.rng.random_range(0..3_000);
            self.tell_agent(which, delay, AgentEvent::Connect);
        }
    }

    pub(crate) fn on_machine(&mut self, which: usize, what: MachineEvent) {
        let now_ms = self.agenda.now_ms();
        match what {
            MachineEvent::StartAgent => self.start_agent(which),
            MachineEvent::SandboxEnds { alloc, boot } => self.sandbox_ends(which, &alloc, boot),
            MachineEvent::ReportArrives { connection, report } => self.report_arrives(which, connection, *report),
            MachineEvent::ReadOrders { connection } => self.read_orders(which, connection),
            MachineEvent::KeepSession { connection } => {
                let machine = &self.machines[which];
                if let (true, Some(lease)) = (machine.connection == Some(connection), machine.lease) {
                    // An expired session ends its stream, as the server would.
                    if self.store.lease_keep_alive(lease, now_ms).is_err() {
                        return self.disconnect(which);
                    }
                    self.tell_machine(which, SESSION_RENEW_MS, MachineEvent::KeepSession { connection });
                }
            }
            MachineEvent::EndSession { lease } => self.store.lease_revoke(LeaseId(lease), now_ms),
        }
    }

    fn start_agent(&mut self, which: usize) {
        let now_ms = self.agenda.now_ms();
        let machine = &mut self.machines[which];
        if machine.agent.is_some() {
            return;
        }
        machine.life += 1;
        let boot = format!("boot{}", machine.boot);
        let mut agent = Node::new(boot);
        let mut acts = Vec::new();
        let mut found_alive = Vec::new();
        for (id, entry) in &machine.journal {
            let sandbox = machine.sandboxes.get(id);
            let found = match sandbox {
                None => Found::Nothing,
                Some(sandbox) if sandbox.ended_ms.is_none() => Found::Alive,
                Some(_) => Found::Gone,
            };
            if let Some(sandbox) = sandbox {
                found_alive.push((id.clone(), sandbox.clone()));
            }
            acts.extend(agent.readopt(entry.clone(), found, now_ms));
        }
        self.report.readopted += found_alive.len();
        machine.agent = Some(agent);
        self.perform(which, acts);
        for (id, sandbox) in found_alive {
            let started_ms = sandbox.started_ms;
            self.learned(
                which,
                1,
                &id,
                node_agent::Event::Launched {
                    started_ms,
                    phase: None,
                },
            );
            if sandbox.ended_ms.is_some() {
                self.learned(which, 2, &id, ended(&sandbox));
            }
        }
        let delay = self.rng.random_range(0..500);
        self.tell_agent(which, delay, AgentEvent::Connect);
        self.tell_agent(which, TICK_MS, AgentEvent::Tick);
    }

    pub(crate) fn on_agent(&mut self, which: usize, life: u64, what: AgentEvent) {
        let now_ms = self.agenda.now_ms();
        let machine = &mut self.machines[which];
        if machine.life != life {
            return;
        }
        let Some(agent) = &mut machine.agent else { return };
        let acts = match what {
            AgentEvent::Connect => return self.connect(which),
            AgentEvent::Orders { connection, orders } => {
                if machine.connection != Some(connection) {
                    return;
                }
                let listed: Vec<AllocId> = orders.iter().map(|o| o.alloc.clone()).collect();
                let mut acts = agent.on_orders(orders, now_ms);
                let graves = agent
                    .lives()
                    .filter(|l| l.is_tombstone() && !listed.contains(l.alloc()));
                let graves: Vec<AllocId> = graves.map(|l| l.alloc().clone()).collect();
                for alloc in graves {
                    acts.extend(agent.on_forget(&alloc, now_ms));
                }
                acts
            }
            AgentEvent::Ack {
                connection,
                alloc,
                state,
                accepted,
            } => {
                if machine.connection != Some(connection) {
                    return;
                }
                agent.on_ack(&alloc, state, accepted, now_ms)
            }
            AgentEvent::Written { alloc, entry } => {
                machine.journal.insert(alloc.clone(), *entry);
                agent.on(&alloc, node_agent::Event::Written, now_ms)
            }
            AgentEvent::EntryRemoved { alloc } => {
                machine.journal.remove(&alloc);
                agent.on(&alloc, node_agent::Event::EntryRemoved, now_ms)
            }
            AgentEvent::Launch { alloc } => return self.launch(which, &alloc),
            AgentEvent::Told { alloc, event } => agent.on(&alloc, *event, now_ms),
            AgentEvent::Tick => {
                let acts = agent.on_tick(now_ms);
                self.tell_agent(which, TICK_MS, AgentEvent::Tick);
                acts
            }
        };
        self.perform(which, acts);
    }

    /// The server writes the node's record under its next epoch, and its session.
    fn connect(&mut self, which: usize) {
        let now_ms = self.agenda.now_ms();
        if self.machines[which].connection.is_some() {
            return;
        }
        self.connections += 1;
        let connection = self.connections;
        let lease = self.store.lease_grant(SESSION_TTL_MS, now_ms).expect("legal");
        let machine = &mut self.machines[which];
        machine.record.epoch += 1;
        machine.connection = Some(connection);
        machine.lease = Some(lease);
        machine.orders_due_ms = now_ms;
        machine.reading = false;
        let id = machine.record.id.clone();
        let session = SessionRecord {
            node: id.clone(),
            server: "s".to_owned(),
            node_epoch: machine.record.epoch,
            address: String::new(),
            connected: true,
            unknown: Unknown::new(),
        };
        let txn = Txn::new()
            .put(key::node(&id), &machine.record)
            .put_leased(key::session(&id), &session, lease);
        self.store.commit(txn, now_ms).expect("legal");
        if let Some(agent) = &mut self.machines[which].agent {
            let acts = agent.on_connected(now_ms);
            self.perform(which, acts);
        }
        self.orders_changed(which);
        self.tell_machine(which, SESSION_RENEW_MS, MachineEvent::KeepSession { connection });
    }

    /// The server that holds the stream will look again.
    pub(crate) fn orders_changed(&mut self, which: usize) {
        let delay = self.delay();
        let machine = &mut self.machines[which];
        if let Some(connection) = machine.connection.filter(|_| !machine.reading) {
            machine.reading = true;
            self.tell_machine(which, delay, MachineEvent::ReadOrders { connection });
        }
    }

    fn read_orders(&mut self, which: usize, connection: u64) {
        if self.machines[which].connection != Some(connection) {
            return;
        }
        let prefix = key::allocs_of(&self.machines[which].record.id);
        let page = self.store.range(&prefix, None, 1_000).expect("legal");
        let allocs = page.entries.iter().map(|e| e.decode::<Allocation>().expect("an order"));
        let orders: Vec<Order> = allocs.map(|a| self.order(&a)).collect();
        let now_ms = self.agenda.now_ms();
        let delay = self.delay();
        let machine = &mut self.machines[which];
        machine.reading = false;
        // A stream does not change the order of its messages.
        machine.orders_due_ms = machine.orders_due_ms.max(now_ms + delay);
        let delay = machine.orders_due_ms - now_ms;
        self.tell_agent(which, delay, AgentEvent::Orders { connection, orders });
    }

    fn order(&self, alloc: &Allocation) -> Order {
        let planned = self
            .runs
            .iter()
            .find(|r| r.header.id == alloc.run)
            .expect("a run of ours");
        let work = Work::Step {
            run: alloc.run.clone(),
            run_number: planned.header.number,
            team: planned.header.team.clone(),
            pipeline: planned.header.pipeline.clone(),
            stage: "main".to_owned(),
            step: alloc.step,
            attempt: alloc.attempt,
            def: Box::new(planned.def.steps[alloc.step].clone()),
            source: Box::new(planned.header.source.clone()),
            variables: BTreeMap::new(),
            traceparent: None,
            request_id: String::new(),
        };
        Order {
            alloc: alloc.id.clone(),
            fence: alloc.fence,
            stop: alloc.stop,
            work: Box::new(work),
        }
    }

    fn perform(&mut self, which: usize, acts: Vec<Act>) {
        for Act { alloc, effect } in acts {
            self.perform_one(which, alloc, effect);
        }
    }

    fn perform_one(&mut self, which: usize, alloc: AllocId, effect: Effect) {
        use node_agent::Event as Told;
        let soon = self.rng.random_range(1..5);
        match effect {
            Effect::Write(_) if self.faulty && self.rng.random_bool(0.02) => {
                self.learned(which, soon, &alloc, Told::WriteFailed);
            }
            Effect::Write(entry) => self.tell_agent(which, soon, AgentEvent::Written { alloc, entry }),
            Effect::RemoveEntry => self.tell_agent(which, soon, AgentEvent::EntryRemoved { alloc }),
            Effect::Launch => self.tell_agent(which, soon, AgentEvent::Launch { alloc }),
            Effect::Prepare => {
                let delay = self.rng.random_range(1..800);
                let event = if self.rng.random_bool(0.05) {
                    prepare_failed(StartFailure::Image, "no such image")
                } else {
                    Told::Prepared { phases: Vec::new() }
                };
                self.learned(which, delay, &alloc, event);
            }
            Effect::AbortPrepare => self.learned(which, soon, &alloc, prepare_failed(StartFailure::Image, "aborted")),
            Effect::Kill(Kill::Cancelled | Kill::Drained | Kill::Disowned) => self.kill(which, &alloc),
            Effect::CloseLog { .. } => self.learned(which, soon, &alloc, Told::LogClosed { bytes: 9 }),
            Effect::ShipLog => {
                let delay = self.rng.random_range(1..2_000);
                self.learned(which, delay, &alloc, Told::LogComplete);
            }
            Effect::Report(report) => self.send(which, *report),
            Effect::Clean => {
                self.machines[which].sandboxes.remove(&alloc);
                self.learned(which, soon, &alloc, Told::Cleaned);
            }
            Effect::SealLog { .. } | Effect::Gone => {}
        }
    }

    fn launch(&mut self, which: usize, alloc: &AllocId) {
        let now_ms = self.agenda.now_ms();
        let outcome = match self.rng.random_range(0..10) {
            0 => Outcome::Exited { code: 3 },
            1 => Outcome::TimedOut { timeout_ms: 60_000 },
            _ => Outcome::Exited { code: 0 },
        };
        let sandbox = Sandbox {
            started_ms: now_ms,
            outcome,
            ended_ms: None,
        };
        if let Some(order) = self.watcher.orders().find(|o| o.id == *alloc) {
            self.watcher.check_start(order);
        }
        let machine = &mut self.machines[which];
        let before = machine.sandboxes.insert(alloc.clone(), sandbox);
        assert!(before.is_none(), "{alloc} was launched twice on one machine");
        let boot = machine.boot;
        self.check_one_alive(alloc);
        self.report.launched += 1;
        let lasts = if self.rng.random_bool(0.2) { 20_000 } else { 2_000 };
        let lasts = self.rng.random_range(1..lasts);
        let ends = MachineEvent::SandboxEnds {
            alloc: alloc.clone(),
            boot,
        };
        self.tell_machine(which, lasts, ends);
        let started_ms = now_ms;
        self.learned(
            which,
            1,
            alloc,
            node_agent::Event::Launched {
                started_ms,
                phase: None,
            },
        );
    }

    /// I3 as far as it goes here: an attempt is the only one of its step that is alive.
    fn check_one_alive(&self, alloc: &AllocId) {
        let step = |id: &AllocId| id.parts().map(|(run, step, _)| (run, step));
        let alive = self
            .machines
            .iter()
            .flat_map(Machine::alive)
            .filter(|id| step(id) == step(alloc));
        assert_eq!(alive.count(), 1, "I3: a second attempt of the step of {alloc} is alive");
    }

    fn kill(&mut self, which: usize, alloc: &AllocId) {
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

    fn sandbox_ends(&mut self, which: usize, alloc: &AllocId, boot: u64) {
        let now_ms = self.agenda.now_ms();
        let machine = &mut self.machines[which];
        if machine.boot != boot {
            return;
        }
        let Some(sandbox) = machine.sandboxes.get_mut(alloc).filter(|s| s.ended_ms.is_none()) else {
            return;
        };
        sandbox.ended_ms = Some(now_ms);
        let event = ended(sandbox);
        self.learned(which, 1, alloc, event);
    }

    fn send(&mut self, which: usize, report: Observed) {
        let Some(connection) = self.machines[which].connection else {
            return;
        };
        if report.state == ObservedState::Ended {
            // What the node says first is the truth of this attempt.
            let truth = self.truth.entry(report.alloc.clone()).or_insert_with(|| report.clone());
            assert_eq!(truth.outcome, report.outcome, "{} tells two ends", report.alloc);
        }
        let copies = if self.faulty && self.rng.random_bool(0.2) { 2 } else { 1 };
        for _ in 0..copies {
            let late = self.faulty && self.rng.random_bool(0.1);
            let delay = if late {
                self.rng.random_range(0..5_000)
            } else {
                self.delay()
            };
            let report = Box::new(report.clone());
            self.tell_machine(which, delay, MachineEvent::ReportArrives { connection, report });
        }
    }

    /// The server writes the report if the order stands, never one that says less than the last.
    fn report_arrives(&mut self, which: usize, connection: u64, report: Observed) {
        let now_ms = self.agenda.now_ms();
        let node = self.machines[which].record.id.clone();
        let observed_key = key::observed(&report.alloc);
        let found = self.store.get(&observed_key).expect("legal");
        let says_less = found.as_ref().is_some_and(|f| {
            let last: Observed = f.decode().expect("a report");
            last.state >= report.state
        });
        let expect = found.map_or(Expect::Absent, |f| Expect::Revision(f.mod_revision));
        let order_key = key::alloc(&node, &report.alloc);
        let accepted = if says_less {
            true
        } else {
            let txn = Txn::new()
                .expect(order_key, Expect::Present)
                .expect(observed_key.clone(), expect)
                .put(observed_key, &report);
            self.store.commit(txn, now_ms).expect("legal").is_applied()
        };
        // One whose end is in its step already is as good as accepted.
        let (run, step, _) = report.alloc.parts().expect("an order of ours");
        let record = self.watcher.record(&run, step);
        let folded = record.is_some_and(|r| r.alloc.as_ref() == Some(&report.alloc) && r.status.is_terminal());
        if !accepted {
            assert!(folded, "{} has neither an order nor a result", report.alloc);
            self.report.late_reports += 1;
        }
        let accepted = accepted || folded;
        let ack = AgentEvent::Ack {
            connection,
            alloc: report.alloc,
            state: report.state,
            accepted,
        };
        let delay = self.delay();
        self.tell_agent(which, delay, ack);
    }
}

fn ended(sandbox: &Sandbox) -> node_agent::Event {
    node_agent::Event::Ended {
        started_ms: Some(sandbox.started_ms),
        ended_ms: sandbox.ended_ms.unwrap_or(sandbox.started_ms),
        outcome: sandbox.outcome.clone(),
        log_bytes: 7,
        usage: Usage::default(),
    }
}

fn prepare_failed(cause: StartFailure, message: &str) -> node_agent::Event {
    node_agent::Event::PrepareFailed {
        cause,
        message: message.to_owned(),
        phases: Vec::new(),
        lasting: false,
    }
}
