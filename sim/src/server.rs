//! A server's process: it starts and crashes, finds out whether the store answers, and deals with
//! what comes from nodes as far as it reaches the store.
//!
//! Not here: what it does for a node ([`crate::session`], [`crate::filing`], [`crate::hub`]), its
//! scheduler ([`crate::leading`]) and its archive ([`crate::archiving`]).

use crate::archiving::Archive;
use crate::hub::Hub;
use crate::leading::Scheduler;
use crate::message::{AgentEvent, ElectionEvent, Event, PutOf, ServerEvent};
use crate::network::Clock;
use crate::session::Session;
use crate::world::World;
use rand::Rng;
use scheduler::LeaseTimes;
use std::collections::BTreeMap;

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
    /// Nothing that its scheduler watches arrives before this.
    pub(crate) lags_until_ms: u64,
    pub(crate) clock: Clock,
    pub(crate) scheduler: Scheduler,
    /// By the steady clock, when the store last answered.
    answered_ms: u64,
    /// The streams that it holds, by machine.
    pub(crate) sessions: BTreeMap<usize, Session>,
    pub(crate) hub: Hub,
    pub(crate) archive: Archive,
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
    pub(crate) fn answer_agent(&mut self, which: usize, machine: usize, what: AgentEvent) {
        let delay = self.delay();
        self.answer_agent_after(which, machine, delay, what);
    }

    pub(crate) fn answer_agent_after(&mut self, which: usize, machine: usize, delay_ms: u64, what: AgentEvent) {
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
        self.tell_election(which, 0, ElectionEvent::Campaign);
        self.tell_server(which, 0, ServerEvent::Probe);
    }

    pub(crate) fn crash_server(&mut self, which: usize) {
        self.note(&format!("s{which}"), || "crashes".to_owned());
        let server = &mut self.servers[which];
        server.up = false;
        server.life += 1;
        server.scheduler.crash();
        server.archive.crash();
        server.hub = Hub::default();
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
            ServerEvent::Report { stream, report } => self.on_report(which, stream, report),
            ServerEvent::Filed { stream, report } => self.answer_report(which, stream, &report, true),
            ServerEvent::Superseded { stream } => self.superseded(which, stream),
            ServerEvent::LogOpen { stream, alloc } => self.on_log_open(which, stream, alloc),
            ServerEvent::LogData {
                stream,
                alloc,
                offset,
                bytes,
                end,
            } => self.on_log_data(which, stream, alloc, (offset, bytes, end)),
            ServerEvent::LogListed { stream, alloc, stored } => self.log_listed(which, stream, alloc, stored),
            ServerEvent::StoreLog { alloc } => self.store_log(which, alloc),
            ServerEvent::PutAgain { put } => self.put_blob(which, *put),
            ServerEvent::BlobAnswer { put, stored } => match put.of.clone() {
                PutOf::Log(alloc) => self.chunk_answered(which, alloc, put, stored),
                PutOf::Run { term, ticket, moved } => self.run_stored(which, term, ticket, moved, stored),
            },
            // Everything else needs the store, and is tried until it answers.
            what if !self.network.store(which) => self.tell_server(which, RETRY_MS, what),
            what => self.on_server_with_store(which, what),
        }
    }

    fn on_server_with_store(&mut self, which: usize, what: ServerEvent) {
        match what {
            ServerEvent::Hello { stream, held } => self.take_in(which, stream, held),
            ServerEvent::Renew { stream, sequence } => self.renew(which, stream, sequence),
            ServerEvent::Judge { stream, report, tries } => self.judge_report(which, stream, report, tries),
            ServerEvent::FilePreparing { stream, alloc } => self.file_preparing(which, stream, &alloc),
            ServerEvent::FirstOrders { stream } => self.first_orders(which, stream),
            ServerEvent::OrdersChanged { stream } => self.deliver_orders(which, stream),
            ServerEvent::Gone { stream } => self.gone(which, stream),
            ServerEvent::Vanished { stream } => self.vanished(which, stream),
            ServerEvent::FindLog { stream, alloc } => self.find_log(which, stream, alloc),
            what => unreachable!("{what:?} needs no store"),
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
}
