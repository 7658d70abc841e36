//! An agent's process: the real core of the node and of its lease, and a stream to some server.
//!
//! Not here: what outlives the process ([`crate::machine`]), and the server's side of the stream
//! ([`crate::server`]).

use crate::machine::{Sandbox, ended};
use crate::message::{AgentEvent, Event, MachineEvent, ServerEvent, Stream};
use crate::world::World;
use model::{AllocId, Observed, ObservedState, StartFailure};
use node_agent::{Act, Effect, Found, Kill, Lease, LeaseEffect, LeaseEvent, LogShip, Node};
use rand::Rng;
use std::collections::BTreeMap;

const TICK_MS: u64 = 500;

/// A stream on which nothing has come for this long is given up.
const SILENCE_MS: u64 = 15_000;

/// How long a disk may take to write an entry of the journal when it is busy.
const SLOW_WRITE_MS: u64 = 5_000;

/// A server that has not answered Hello for this long is given up.
const OPEN_MAX_MS: u64 = 10_000;

/// One agent.
#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) node: Node,
    pub(crate) lease: Lease,
    pub(crate) link: Option<Link>,
    /// The logs that are on their way.
    pub(crate) ships: BTreeMap<AllocId, LogShip>,
}

impl Agent {
    /// Its stream was answered and it has not heard that it broke.
    pub(crate) fn is_welcome(&self) -> bool {
        self.link.is_some_and(|link| link.welcome)
    }
}

/// The agent's side of a stream.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Link {
    pub(crate) number: u64,
    pub(crate) server: usize,
    pub(crate) welcome: bool,
    /// What is sent in order arrives no earlier than this.
    due_ms: u64,
}

impl World {
    pub(crate) fn tell_agent(&mut self, which: usize, delay_ms: u64, what: AgentEvent) {
        let life = self.machines[which].life;
        self.agenda.after(delay_ms, Event::Agent { which, life, what });
    }

    pub(crate) fn crash_agent(&mut self, which: usize, down_ms: u64) {
        let machine = &mut self.machines[which];
        let link = machine.agent.take().and_then(|a| a.link);
        machine.life += 1;
        if let Some(link) = link {
            self.server_loses(which, link);
        }
        self.tell_machine(which, down_ms, MachineEvent::StartAgent);
    }

    /// The server finds the stream broken at once, or when no renewal has come for a while.
    fn server_loses(&mut self, machine: usize, link: Link) {
        let reset = self.network.link(machine, link.server) && self.rng.random_bool(0.7);
        let delay = self.rng.random_range(0..if reset { 500 } else { 20_000 });
        let number = link.number;
        let stream = Stream { machine, number };
        self.tell_server(link.server, delay, ServerEvent::Gone { stream });
    }

    /// The stream breaks, e.g. because a cable is pulled: the agent finds out some time.
    pub(crate) fn break_stream(&mut self, which: usize, at_once: bool) {
        let Some(link) = self.machines[which].agent.as_ref().and_then(|a| a.link) else {
            return;
        };
        let delay = if at_once {
            0
        } else {
            self.rng.random_range(5_000..SILENCE_MS)
        };
        let stream = link.number;
        self.tell_agent(which, delay, AgentEvent::Broken { stream });
        self.server_loses(which, link);
    }

    /// Whether the agent's stream goes to this server.
    pub(crate) fn streams_to(&self, which: usize, server: usize) -> bool {
        let link = self.machines[which].agent.as_ref().and_then(|a| a.link);
        link.is_some_and(|link| link.server == server)
    }

    pub(crate) fn start_agent(&mut self, which: usize) {
        let now_ms = self.agenda.now_ms();
        let shown = self.boottime_of(which);
        let servers = self.servers.len();
        let machine = &mut self.machines[which];
        if machine.agent.is_some() {
            return;
        }
        machine.life += 1;
        let mut node = Node::new(format!("boot{}", machine.boot));
        let lease = match machine.deadline {
            Some(left) => Lease::resume(servers, left, shown),
            None => Lease::new(servers),
        };
        let mut acts = node.on_lease(lease.is_valid(shown), now_ms);
        for alloc in &machine.ended {
            node.remember(alloc);
        }
        let mut found_alive = Vec::new();
        for (id, entry) in &machine.journal {
            let sandbox = machine.sandboxes.get(id);
            let found = match sandbox {
                None => Found::Nothing,
                Some(sandbox) if sandbox.ended_ms.is_none() => Found::Alive,
                Some(_) => Found::Gone,
            };
            found_alive.extend(sandbox.map(|s| (id.clone(), s.clone())));
            acts.extend(node.readopt(entry.clone(), found, now_ms));
        }
        machine.agent = Some(Agent {
            node,
            lease,
            link: None,
            ships: BTreeMap::new(),
        });
        self.report.readopted += found_alive.len();
        self.perform(which, acts);
        self.tell_of_found(which, found_alive);
        self.tell_agent(which, 0, AgentEvent::Tick);
        let delay = self.rng.random_range(0..1_000);
        self.tell_agent(which, delay, AgentEvent::Connect);
    }

    fn tell_of_found(&mut self, which: usize, found: Vec<(AllocId, Sandbox)>) {
        for (id, sandbox) in found {
            let started_ms = sandbox.started_ms;
            let launched = node_agent::Event::Launched {
                started_ms,
                phase: None,
            };
            self.learned(which, 1, &id, launched);
            if sandbox.ended_ms.is_some() {
                self.learned(which, 2, &id, ended(&sandbox));
            }
        }
    }

    pub(crate) fn on_agent(&mut self, which: usize, life: u64, what: AgentEvent) {
        let now_ms = self.agenda.now_ms();
        let machine = &mut self.machines[which];
        if machine.life != life || machine.agent.is_none() {
            return;
        }
        if machine.paused_until_ms > now_ms {
            let delay = machine.paused_until_ms - now_ms;
            return self.agenda.after(delay, Event::Agent { which, life, what });
        }
        match what {
            AgentEvent::Connect => self.connect(which),
            AgentEvent::Broken { stream } => self.stream_broke(which, stream),
            AgentEvent::Welcome { stream, lease_ms } => self.welcomed(which, stream, lease_ms),
            AgentEvent::RenewAck { stream, sequence } => {
                if self.is_open(which, stream) {
                    self.on_lease(which, LeaseEvent::RenewAck { sequence });
                }
            }
            AgentEvent::Quorum { round, server, lost } => {
                let before = self.machines[which].deadline.map(|d| d.at_ms);
                self.on_lease(which, LeaseEvent::Quorum { round, server, lost });
                let after = self.machines[which].deadline.map(|d| d.at_ms);
                self.report.quorum_extensions += usize::from(after > before);
            }
            AgentEvent::Launch { alloc, until_ms } => self.launch(which, &alloc, until_ms),
            AgentEvent::Tick => {
                self.on_lease(which, LeaseEvent::Tick);
                self.with_node(which, |node| node.on_tick(now_ms));
                self.tell_ships(which, |_| {});
                self.tell_agent(which, TICK_MS, AgentEvent::Tick);
            }
            AgentEvent::Orders { stream, .. }
            | AgentEvent::Order { stream, .. }
            | AgentEvent::Forget { stream, .. }
            | AgentEvent::LogFrom { stream, .. }
            | AgentEvent::LogAck { stream, .. }
            | AgentEvent::Ack { stream, .. }
                if !self.is_open(which, stream) => {}
            AgentEvent::Orders { orders, .. } => self.with_node(which, |node| node.on_orders(orders, now_ms)),
            AgentEvent::Order { order, .. } => self.with_node(which, |node| node.on_order(*order, now_ms)),
            AgentEvent::Forget { alloc, .. } => self.with_node(which, |node| node.on_forget(&alloc, now_ms)),
            AgentEvent::LogFrom { alloc, offset, .. } => self.tell_ship(which, &alloc, |ship| ship.from(offset)),
            AgentEvent::LogAck {
                alloc,
                offset,
                complete,
                ..
            } => self.tell_ship(which, &alloc, |ship| ship.acked(offset, complete)),
            AgentEvent::LogGrew { alloc } => self.tell_ship(which, &alloc, |_| {}),
            AgentEvent::Ack {
                alloc, state, accepted, ..
            } => self.with_node(which, |node| node.on_ack(&alloc, state, accepted, now_ms)),
            AgentEvent::Written { alloc, entry } => {
                self.machines[which].journal.insert(alloc.clone(), *entry);
                self.with_node(which, |node| node.on(&alloc, node_agent::Event::Written, now_ms));
            }
            AgentEvent::EntryRemoved { alloc } => {
                let machine = &mut self.machines[which];
                machine.journal.remove(&alloc);
                machine.ended.push(alloc.clone());
                self.with_node(which, |node| node.on(&alloc, node_agent::Event::EntryRemoved, now_ms));
            }
            AgentEvent::Told { alloc, event } => self.with_node(which, |node| node.on(&alloc, *event, now_ms)),
        }
    }

    fn with_node(&mut self, which: usize, work: impl FnOnce(&mut Node) -> Vec<Act>) {
        if let Some(agent) = &mut self.machines[which].agent {
            let acts = work(&mut agent.node);
            self.perform(which, acts);
        }
    }

    fn on_lease(&mut self, which: usize, event: LeaseEvent) {
        let now_ms = self.agenda.now_ms();
        let shown = self.boottime_of(which);
        let Some(agent) = &mut self.machines[which].agent else {
            return;
        };
        let effects = agent.lease.on(event, shown);
        let valid = agent.lease.is_valid(shown);
        for effect in effects {
            self.perform_lease(which, effect);
        }
        self.with_node(which, |node| node.on_lease(valid, now_ms));
    }

    fn perform_lease(&mut self, which: usize, effect: LeaseEffect) {
        match effect {
            LeaseEffect::WriteDeadline(deadline) => self.write_deadline(which, deadline),
            LeaseEffect::Renew { sequence } => {
                self.send(which, |stream| ServerEvent::Renew { stream, sequence });
            }
            LeaseEffect::AskAll { round } => {
                let (machine, agent) = (which, self.machines[which].life);
                for server in 0..self.servers.len() {
                    if self.network.link(machine, server) {
                        let delay = self.delay();
                        self.tell_server(server, delay, ServerEvent::Ask { machine, agent, round });
                    }
                }
            }
        }
    }

    /// As [`World::send`], and after everything that was sent in order before.
    pub(crate) fn send_in_order(&mut self, which: usize, what: impl FnOnce(Stream) -> ServerEvent) {
        let now_ms = self.agenda.now_ms();
        let due_ms = now_ms + self.delay();
        let agent = self.machines[which].agent.as_mut();
        let Some(link) = agent.and_then(|a| a.link.as_mut()) else {
            return;
        };
        link.due_ms = link.due_ms.max(due_ms);
        let (delay, server) = (link.due_ms - now_ms, link.server);
        let stream = Stream {
            machine: which,
            number: link.number,
        };
        if self.network.link(which, server) {
            self.tell_server(server, delay, what(stream));
        }
    }

    /// To the server that holds the agent's stream, if the cable is whole.
    fn send(&mut self, which: usize, what: impl FnOnce(Stream) -> ServerEvent) {
        let Some(link) = self.machines[which].agent.as_ref().and_then(|a| a.link) else {
            return;
        };
        if self.network.link(which, link.server) {
            let stream = Stream {
                machine: which,
                number: link.number,
            };
            let delay = self.delay();
            self.tell_server(link.server, delay, what(stream));
        }
    }

    fn connect(&mut self, which: usize) {
        let server = self.rng.random_range(0..self.servers.len());
        self.streams += 1;
        let number = self.streams;
        let Some(agent) = &mut self.machines[which].agent else {
            return;
        };
        if agent.link.is_some() {
            return;
        }
        agent.link = Some(Link {
            number,
            server,
            welcome: false,
            due_ms: 0,
        });
        let held: Vec<AllocId> = agent.node.lives().map(|life| life.alloc().clone()).collect();
        self.on_lease(which, LeaseEvent::Hello);
        let reachable = self.network.link(which, server) && self.servers[server].up;
        if reachable {
            self.send(which, |stream| ServerEvent::Hello { stream, held });
        }
        // Given up if nobody answers; harmless when somebody does.
        let patience = if reachable { OPEN_MAX_MS } else { self.delay() };
        self.tell_agent(
            which,
            patience,
            AgentEvent::Broken {
                stream: number | UNOPENED,
            },
        );
    }

    fn is_open(&self, which: usize, stream: u64) -> bool {
        let link = self.machines[which].agent.as_ref().and_then(|a| a.link);
        link.is_some_and(|link| link.welcome && link.number == stream)
    }

    fn welcomed(&mut self, which: usize, stream: u64, lease_ms: u64) {
        let now_ms = self.agenda.now_ms();
        let Some(link) = self.machines[which].agent.as_mut().and_then(|a| a.link.as_mut()) else {
            return;
        };
        if link.number != stream || link.welcome {
            return;
        }
        link.welcome = true;
        self.on_lease(which, LeaseEvent::Welcome { lease_ms });
        self.tell_ships(which, LogShip::connected);
        self.with_node(which, |node| node.on_connected(now_ms));
    }

    fn stream_broke(&mut self, which: usize, stream: u64) {
        let now_ms = self.agenda.now_ms();
        let Some(agent) = &mut self.machines[which].agent else {
            return;
        };
        let number = stream & !UNOPENED;
        let broken = agent
            .link
            .filter(|link| link.number == number && (stream == number || !link.welcome));
        let Some(link) = broken else { return };
        agent.link = None;
        self.on_lease(which, LeaseEvent::Disconnected);
        if link.welcome {
            self.tell_ships(which, LogShip::disconnected);
            self.with_node(which, |node| node.on_disconnected(now_ms));
        }
        let delay = self.rng.random_range(50..3_000);
        self.tell_agent(which, delay, AgentEvent::Connect);
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
            Effect::Write(entry) => {
                let slow = self.faulty && self.rng.random_bool(0.05);
                self.report.slow_writes += usize::from(slow);
                let delay = self.rng.random_range(1..if slow { SLOW_WRITE_MS } else { 5 });
                self.tell_agent(which, delay, AgentEvent::Written { alloc, entry });
            }
            Effect::RemoveEntry => self.tell_agent(which, soon, AgentEvent::EntryRemoved { alloc }),
            Effect::Launch => {
                let until_ms = self.machines[which].deadline.map_or(0, |d| d.at_ms);
                self.tell_agent(which, soon, AgentEvent::Launch { alloc, until_ms });
            }
            Effect::Prepare => {
                let delay = self.rng.random_range(1..self.mood.prepare_ms);
                let event = match self.rng.random_range(0..40) {
                    0 => prepare_failed("no such image", true),
                    1 => prepare_failed("the registry does not answer", false),
                    _ => Told::Prepared { phases: Vec::new() },
                };
                self.learned(which, delay, &alloc, event);
            }
            Effect::AbortPrepare => self.learned(which, soon, &alloc, prepare_failed("aborted", false)),
            Effect::Kill(Kill::Cancelled | Kill::Drained | Kill::Disowned) => self.kill(which, &alloc),
            Effect::CloseLog { line } => {
                let line = line.unwrap_or_default();
                let bytes = self.print(which, &alloc, line.as_bytes());
                self.learned(which, soon, &alloc, Told::LogClosed { bytes });
            }
            Effect::ShipLog => self.begin_to_ship(which, &alloc),
            Effect::SealLog { bytes } => self.tell_ship(which, &alloc, |ship| ship.sealed(bytes)),
            Effect::Report(report) => self.send_report(which, *report),
            Effect::Clean => {
                self.log_is_dropped(which, &alloc);
                let machine = &mut self.machines[which];
                machine.sandboxes.remove(&alloc);
                machine.files.remove(&alloc);
                if let Some(agent) = &mut machine.agent {
                    agent.ships.remove(&alloc);
                }
                self.learned(which, soon, &alloc, Told::Cleaned);
            }
            Effect::Gone => {}
        }
    }

    fn send_report(&mut self, which: usize, report: Observed) {
        if report.state == ObservedState::Ended {
            self.note_truth(which, &report);
        }
        let copies = if self.faulty && self.rng.random_bool(0.2) { 2 } else { 1 };
        for _ in 0..copies {
            let report = Box::new(report.clone());
            self.send(which, |stream| ServerEvent::Report { stream, report });
        }
    }
}

/// Marks the end of the patience with a stream that nobody has answered.
const UNOPENED: u64 = 1 << 63;

fn prepare_failed(message: &str, lasting: bool) -> node_agent::Event {
    node_agent::Event::PrepareFailed {
        cause: StartFailure::Image,
        message: message.to_owned(),
        phases: Vec::new(),
        lasting,
    }
}
