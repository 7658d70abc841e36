//! A server as nodes see it: it takes nodes in, renews their leases, passes orders down and files
//! reports, as far as it reaches the store; and it says whether the store has lost its quorum.
//!
//! Not here: the server's scheduler ([`crate::leading`]).

use crate::leading::Scheduler;
use crate::message::{AgentEvent, Event, ServerEvent, Stream};
use crate::network::Clock;
use crate::world::World;
use model::record::Unknown;
use model::{AllocId, Allocation, NodeRecord, Observed, SessionRecord, key};
use node_agent::{Order, Work};
use rand::Rng;
use scheduler::LeaseTimes;
use std::collections::BTreeMap;
use store::{Change, Commit, Expect, LeaseId, Revision, Txn};

/// What servers and nodes agree on with a store that takes no lease away before its time.
pub(crate) const PROMPT: LeaseTimes = LeaseTimes {
    lease_ms: 20_000,
    grace_ms: 5_000,
};

/// With a store that may take away a lease which was renewed a moment ago, as etcd before 3.4.31
/// does when its paused leader wakes: an absent session says nothing of what its node still
/// believes, so a whole lease is waited for besides.
pub(crate) const PATIENT: LeaseTimes = LeaseTimes {
    grace_ms: PROMPT.lease_ms + PROMPT.grace_ms,
    ..PROMPT
};

/// How often a server asks the store for a sign of life.
const PROBE_MS: u64 = 500;
/// For how long the store has not answered when a server says that its quorum is lost; longer than
/// the election's lease.
const LOST_AFTER_MS: u64 = 3_000;
/// When a server that cannot reach the store tries again.
const RETRY_MS: u64 = 400;

/// One server.
#[derive(Debug, Default)]
pub(crate) struct Server {
    /// Grows when the process is started or killed.
    pub(crate) life: u64,
    pub(crate) up: bool,
    pub(crate) paused_until_ms: u64,
    pub(crate) clock: Clock,
    pub(crate) scheduler: Scheduler,
    /// By the steady clock, when the store last answered.
    answered_ms: u64,
    /// The streams that it holds, by machine.
    pub(crate) sessions: BTreeMap<usize, Session>,
}

/// A stream that a server holds.
#[derive(Debug)]
pub(crate) struct Session {
    number: u64,
    pub(crate) lease: LeaseId,
    /// Of our own session record.
    revision: Revision,
    /// Orders on this stream arrive no earlier than this: a stream does not change their order.
    orders_due_ms: u64,
    reading: bool,
}

impl Server {
    pub(crate) fn new(clock: Clock) -> Self {
        Self {
            clock,
            ..Self::default()
        }
    }
}

impl World {
    pub(crate) fn tell_server(&mut self, which: usize, delay_ms: u64, what: ServerEvent) {
        let life = self.servers[which].life;
        self.agenda.after(delay_ms, Event::Server { which, life, what });
    }

    /// From a server to an agent, if the cable is whole.
    fn answer_agent(&mut self, which: usize, machine: usize, what: AgentEvent) {
        let delay = self.delay();
        self.answer_agent_after(which, machine, delay, what);
    }

    fn answer_agent_after(&mut self, which: usize, machine: usize, delay_ms: u64, what: AgentEvent) {
        if self.network.link(machine, which) {
            self.tell_agent(machine, delay_ms, what);
        }
    }

    pub(crate) fn start_server(&mut self, which: usize) {
        let steady_ms = self.steady_of(which);
        let server = &mut self.servers[which];
        server.up = true;
        server.life += 1;
        server.answered_ms = steady_ms;
        self.build_view(which);
        self.tell_server(which, 0, ServerEvent::Probe);
    }

    pub(crate) fn crash_server(&mut self, which: usize) {
        self.note(&format!("s{which}"), || "crashes".to_owned());
        let server = &mut self.servers[which];
        server.up = false;
        server.life += 1;
        server.scheduler.crash();
        for (machine, session) in std::mem::take(&mut server.sessions) {
            let delay = self.rng.random_range(0..10_000);
            let stream = session.number;
            self.tell_agent(machine, delay, AgentEvent::Broken { stream });
        }
        let delay = self.rng.random_range(0..5_000);
        self.agenda.after(delay, Event::StartServer { which });
    }

    pub(crate) fn on_server(&mut self, which: usize, life: u64, what: ServerEvent) {
        let server = &self.servers[which];
        if !server.up || server.life != life {
            return;
        }
        let now_ms = self.agenda.now_ms();
        if server.paused_until_ms > now_ms {
            let delay = server.paused_until_ms - now_ms;
            return self.agenda.after(delay, Event::Server { which, life, what });
        }
        match what {
            ServerEvent::Probe => self.probe(which),
            ServerEvent::Ask { machine, agent, round } => self.say_quorum(which, machine, agent, round),
            // Everything else needs the store, and is tried until it answers.
            what if !self.network.store(which) => self.tell_server(which, RETRY_MS, what),
            ServerEvent::Hello { stream } => self.take_in(which, stream),
            ServerEvent::Renew { stream, sequence } => self.renew(which, stream, sequence),
            ServerEvent::Report { stream, report } => self.file(which, stream, *report),
            ServerEvent::ReadOrders { stream } => self.read_orders(which, stream),
            ServerEvent::Gone { stream } => self.gone(which, stream),
            ServerEvent::Vanished { stream } => self.vanished(which, stream),
        }
    }

    fn probe(&mut self, which: usize) {
        if self.network.store(which) {
            self.servers[which].answered_ms = self.steady_of(which);
        }
        self.tell_server(which, PROBE_MS, ServerEvent::Probe);
    }

    fn say_quorum(&mut self, which: usize, machine: usize, agent: u64, round: u64) {
        let server = &self.servers[which];
        let silent_ms = self.steady_of(which).saturating_sub(server.answered_ms);
        let lost = server.scheduler.leads.is_none() && silent_ms >= LOST_AFTER_MS;
        if self.machines[machine].life == agent {
            let server = which;
            self.answer_agent(which, machine, AgentEvent::Quorum { round, server, lost });
        }
    }

    fn session(&self, which: usize, stream: Stream) -> Option<&Session> {
        let session = self.servers[which].sessions.get(&stream.machine)?;
        (session.number == stream.number).then_some(session)
    }

    /// Registers the node: its record under the next epoch, and its session under a new lease.
    fn take_in(&mut self, which: usize, stream: Stream) {
        let now_ms = self.agenda.now_ms();
        let lease_ms = self.lease_times().lease_ms;
        let machine = &self.machines[stream.machine];
        let node = machine.record.id.clone();
        let lease = self.store.lease_grant(lease_ms, now_ms).expect("legal");
        let found = self.store.get(&key::node(&node)).expect("legal");
        let before = found.as_ref().map(|f| f.decode::<NodeRecord>().expect("a node"));
        let record = NodeRecord {
            epoch: before.map_or(0, |b| b.epoch) + 1,
            ..machine.record.clone()
        };
        let session = SessionRecord {
            lease: 0,
            node: node.clone(),
            server: format!("s{which}"),
            address: String::new(),
            node_epoch: record.epoch,
            connected: true,
            unknown: Unknown::new(),
        };
        let txn = Txn::new()
            .put(key::node(&node), &record)
            .put_leased(key::session(&node), &session, lease);
        let Commit::Applied(revision) = self.store.commit(txn, now_ms).expect("legal") else {
            panic!("it has no guard");
        };
        self.supersede(which, stream);
        let delay = self.delay();
        let session = Session {
            number: stream.number,
            lease,
            revision,
            orders_due_ms: now_ms + delay,
            reading: false,
        };
        self.servers[which].sessions.insert(stream.machine, session);
        let welcome = AgentEvent::Welcome {
            stream: stream.number,
            lease_ms,
        };
        self.answer_agent_after(which, stream.machine, delay, welcome);
        self.orders_changed(stream.machine);
    }

    /// The newest registration wins: other streams of the node are ended.
    fn supersede(&mut self, which: usize, stream: Stream) {
        for other in 0..self.servers.len() {
            let Some(old) = self.servers[other].sessions.remove(&stream.machine) else {
                continue;
            };
            let broken = AgentEvent::Broken { stream: old.number };
            if old.number != stream.number && self.network.link(stream.machine, other) {
                self.report.moved += usize::from(other != which);
                let delay = self.delay();
                self.tell_agent(stream.machine, delay, broken);
            }
        }
    }

    fn renew(&mut self, which: usize, stream: Stream, sequence: u64) {
        let now_ms = self.agenda.now_ms();
        let Some(lease) = self.session(which, stream).map(|s| s.lease) else {
            return;
        };
        if self.store.lease_keep_alive(lease, now_ms).is_ok() {
            let stream_number = stream.number;
            let ack = AgentEvent::RenewAck {
                stream: stream_number,
                sequence,
            };
            return self.answer_agent(which, stream.machine, ack);
        }
        self.end_stream(which, stream);
    }

    fn end_stream(&mut self, which: usize, stream: Stream) {
        self.servers[which].sessions.remove(&stream.machine);
        self.answer_agent(which, stream.machine, AgentEvent::Broken { stream: stream.number });
    }

    /// The servers that hold a stream of this node hear, some time, that its session is gone.
    pub(crate) fn session_changed(&mut self, change: &Change) {
        let Some(node) = change
            .key
            .strip_prefix(key::SESSIONS)
            .filter(|_| change.value.is_none())
        else {
            return;
        };
        let Some(machine) = self.machines.iter().position(|m| m.record.id.as_str() == node) else {
            return;
        };
        for which in 0..self.servers.len() {
            let number = self.servers[which].sessions.get(&machine).map(|s| s.number);
            if let Some(number) = number {
                let delay = self.delay();
                let stream = Stream { machine, number };
                self.tell_server(which, delay, ServerEvent::Vanished { stream });
            }
        }
    }

    /// If the lease is gone with the session, the node is to register again before it is missed.
    fn vanished(&mut self, which: usize, stream: Stream) {
        let now_ms = self.agenda.now_ms();
        let Some(lease) = self.session(which, stream).map(|s| s.lease) else {
            return;
        };
        if self.store.lease_keep_alive(lease, now_ms).is_err() {
            self.end_stream(which, stream);
        }
    }

    /// The stream is broken: nothing new goes there, but its lease runs to its end.
    fn gone(&mut self, which: usize, stream: Stream) {
        let now_ms = self.agenda.now_ms();
        let Some(session) = self.session(which, stream) else {
            return;
        };
        let (lease, revision) = (session.lease, session.revision);
        self.servers[which].sessions.remove(&stream.machine);
        let node = self.machines[stream.machine].record.id.clone();
        let key = key::session(&node);
        let Some(found) = self.store.get(&key).expect("legal") else {
            return;
        };
        let mut record: SessionRecord = found.decode().expect("a session");
        record.connected = false;
        let txn = Txn::new()
            .expect(key.clone(), Expect::Revision(revision))
            .put_leased(key, &record, lease);
        // An expired lease has taken the key with it.
        let _ = self.store.commit(txn, now_ms);
    }

    /// The server that holds the stream will look again.
    pub(crate) fn orders_changed(&mut self, machine: usize) {
        for which in 0..self.servers.len() {
            let delay = self.delay();
            let Some(session) = self.servers[which].sessions.get_mut(&machine) else {
                continue;
            };
            if !std::mem::replace(&mut session.reading, true) {
                let number = session.number;
                let stream = Stream { machine, number };
                self.tell_server(which, delay, ServerEvent::ReadOrders { stream });
            }
        }
    }

    fn read_orders(&mut self, which: usize, stream: Stream) {
        if self.session(which, stream).is_none() {
            return;
        }
        let prefix = key::allocs_of(&self.machines[stream.machine].record.id);
        let page = self.store.range(&prefix, None, 1_000).expect("legal");
        let allocs = page.entries.iter().map(|e| e.decode::<Allocation>().expect("an order"));
        let orders: Vec<Order> = allocs.map(|a| self.order(&a)).collect();
        let now_ms = self.agenda.now_ms();
        let delay = self.delay();
        let linked = self.network.link(stream.machine, which);
        let Some(session) = self.servers[which].sessions.get_mut(&stream.machine) else {
            return;
        };
        session.reading = false;
        session.orders_due_ms = session.orders_due_ms.max(now_ms + delay);
        let delay = session.orders_due_ms - now_ms;
        if linked {
            let stream_number = stream.number;
            let what = AgentEvent::Orders {
                stream: stream_number,
                orders,
            };
            self.tell_agent(stream.machine, delay, what);
        }
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

    /// Writes the report if the order stands, never one that says less than the last.
    fn file(&mut self, which: usize, stream: Stream, report: Observed) {
        let now_ms = self.agenda.now_ms();
        let node = self.machines[stream.machine].record.id.clone();
        let observed_key = key::observed(&report.alloc);
        let found = self.store.get(&observed_key).expect("legal");
        let says_less = found.as_ref().is_some_and(|f| {
            let last: Observed = f.decode().expect("a report");
            last.state >= report.state
        });
        let expect = found.map_or(Expect::Absent, |f| Expect::Revision(f.mod_revision));
        let order_key = key::alloc(&node, &report.alloc);
        let filed = says_less || {
            let txn = Txn::new()
                .expect(order_key, Expect::Present)
                .expect(observed_key.clone(), expect)
                .put(observed_key, &report);
            self.store.commit(txn, now_ms).expect("legal").is_applied()
        };
        let folded = self.was_folded(&report.alloc);
        self.report.late_reports += usize::from(!filed && folded);
        self.report.stale_reports += usize::from(!filed && !folded);
        let ack = AgentEvent::Ack {
            stream: stream.number,
            alloc: report.alloc,
            state: report.state,
            accepted: filed || folded,
        };
        // The answer is lost now and then: the report is repeated.
        if !self.faulty || self.rng.random_bool(0.95) {
            self.answer_agent(which, stream.machine, ack);
        }
    }

    /// The attempt's end is in its step already: its report is as good as accepted.
    fn was_folded(&self, alloc: &AllocId) -> bool {
        let Some((run, step, _)) = alloc.parts() else {
            return false;
        };
        self.watcher.record(&run, step).is_some_and(|record| {
            let newest = record.alloc.as_ref() == Some(alloc) && record.status.is_terminal();
            newest || record.earlier.iter().any(|attempt| attempt.alloc == *alloc)
        })
    }
}
