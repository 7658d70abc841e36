//! What breaks, for how long, and how everything is healed in the end.
//!
//! Not here: what the parts do about it.

use crate::chance::Chance;
use crate::message::{Event, Mend};
use crate::world::World;
use model::{NodeRecord, RequestKind, SessionRecord, key};
use rand::Rng;
use store::LeaseId;

/// The longest outage, pause or cut: longer than a lease and its grace.
const LONGEST_MS: u64 = 40_000;

/// Kinds of faults, as [`World::break_something`] counts them.
const KINDS: usize = 23;

/// Those that end a node's lease: its agent sleeps, its cables are cut.
const SIEGE: [usize; 2] = [8, 9];

/// What is likely in a world: a few kinds of trouble that come often find more than all kinds that
/// come seldom.
#[derive(Debug)]
pub(crate) struct Mood {
    /// The faults that happen here.
    faults: Vec<usize>,
    /// Nodes are cut off from everybody or asleep for about as long as a lease, again and again.
    siege: bool,
    /// Steps last for up to this long, by themselves.
    pub(crate) step_ms: u64,
    /// Preparing takes up to this long.
    pub(crate) prepare_ms: u64,
    /// The most bytes of one message of a log.
    pub(crate) log_data_max: u64,
    /// How long an ended run stays in the live store.
    pub(crate) archive_after_ms: u64,
    /// How long an ended run waits for its logs.
    pub(crate) log_wait_ms: u64,
}

impl Mood {
    pub(crate) fn new(rng: &mut Chance) -> Self {
        let some = rng.random_range(0.15..=1.0);
        let faults = (0..KINDS).filter(|_| rng.random_bool(some)).collect();
        let siege = rng.random_bool(0.5);
        Self {
            faults,
            siege,
            step_ms: if siege {
                50_000
            } else {
                [2_000, 20_000][rng.random_range(0..2)]
            },
            prepare_ms: [20, 800, 10_000][rng.random_range(0..3)],
            log_data_max: [10, 50, 1_000][rng.random_range(0..3)],
            archive_after_ms: [0, 500, 5_000][rng.random_range(0..3)],
            log_wait_ms: [3_000, 60_000][rng.random_range(0..2)],
        }
    }

    fn fault(&self, rng: &mut Chance) -> Option<usize> {
        if self.siege && rng.random_bool(0.5) {
            return Some(SIEGE[rng.random_range(0..SIEGE.len())]);
        }
        (!self.faults.is_empty()).then(|| self.faults[rng.random_range(0..self.faults.len())])
    }
}

/// A random time from now on.
pub(crate) fn ends_after(rng: &mut Chance, longest_ms: u64) -> u64 {
    rng.random_range(0..longest_ms)
}

impl World {
    /// Breaks one thing, or asks for something that operators ask for in bad times.
    pub(crate) fn break_something(&mut self) {
        if !self.faulty {
            return;
        }
        let server = self.rng.random_range(0..self.servers.len());
        let machine = self.rng.random_range(0..self.machines.len());
        let Some(fault) = self.mood.fault(&mut self.rng) else {
            return;
        };
        match fault {
            0 | 1 if self.servers[server].up => self.crash_server(server),
            2 => self.pause_server(server),
            3 | 4 if self.machines[machine].agent.is_some() => {
                let down = ends_after(&mut self.rng, 10_000);
                self.note(&format!("n{machine}"), || format!("its agent crashes for {down} ms"));
                self.crash_agent(machine, down);
            }
            5 if self.machines[machine].agent.is_some() => self.lose_machine(machine),
            6 => self.break_stream(machine, true),
            7 => self.store.compact(self.store.revision()),
            8 => self.pause_agent(machine),
            9 | 10 => self.cut_machine(machine),
            11 => self.cut_server(server),
            12 => self.lose_quorum(),
            13 => self.drain(machine),
            14 => self.uncordon(machine),
            15 => {
                let node = self.machines[machine].record.id.clone();
                self.request(RequestKind::Cordon { node });
            }
            16 | 17 if self.hasty_store => self.take_leases_away(machine),
            16 => self.forget_leases(),
            18 | 19 => self.lose_blobs(),
            20 => self.lose_history(),
            21 | 22 => self.slow_watches(server),
            _ => {}
        }
    }

    /// The store ends leases that were renewed in time: those of one node's streams, or all.
    fn take_leases_away(&mut self, machine: usize) {
        if self.network.store_down {
            return;
        }
        let all = self.rng.random_bool(0.3);
        let mut taken: Vec<LeaseId> = Vec::new();
        for server in &self.servers {
            let sessions = server.sessions.iter().filter(|(of, _)| all || **of == machine);
            taken.extend(sessions.map(|(_, session)| session.lease));
            taken.extend(server.scheduler.lease.filter(|_| all));
        }
        self.report.taken_leases += taken.len();
        for lease in taken {
            self.note("store", || format!("takes lease {} away before its time", lease.0));
            self.store.lease_revoke(lease, self.agenda.now_ms());
        }
    }

    /// The store is restored from what it had a moment ago, without its leases: nobody leads, and
    /// every node's session is gone although its agent may have renewed it just now.
    fn forget_leases(&mut self) {
        if self.network.store_down {
            return;
        }
        self.report.restores += 1;
        self.note("store", || "is restored without its leases".to_owned());
        self.store.forget_leases();
    }

    fn lose_blobs(&mut self) {
        if !self.blobs.down {
            self.blobs.down = true;
            let lasts = ends_after(&mut self.rng, LONGEST_MS);
            self.note("blobs", || format!("are away for {lasts} ms"));
            self.agenda.after(lasts, Event::Mend(Mend::Blobs));
        }
    }

    /// The watches of one server's scheduler are slow; it may be elected all the same.
    fn slow_watches(&mut self, server: usize) {
        let lasts = ends_after(&mut self.rng, LONGEST_MS);
        self.report.slow_watches += 1;
        self.note(&format!("s{server}"), || format!("hears of no change for {lasts} ms"));
        let until_ms = self.agenda.now_ms() + lasts;
        let lags = &mut self.servers[server].lags_until_ms;
        *lags = until_ms.max(*lags);
    }

    fn lose_history(&mut self) {
        if !self.history.down {
            self.history.down = true;
            let lasts = ends_after(&mut self.rng, LONGEST_MS);
            self.note("history", || format!("is away for {lasts} ms"));
            self.agenda.after(lasts, Event::Mend(Mend::History));
        }
    }

    fn pause_server(&mut self, server: usize) {
        let pause = ends_after(&mut self.rng, 20_000);
        self.note(&format!("s{server}"), || format!("is paused for {pause} ms"));
        let until_ms = self.agenda.now_ms() + pause;
        let paused = &mut self.servers[server].paused_until_ms;
        *paused = until_ms.max(*paused);
        let nodes: Vec<usize> = self.servers[server].sessions.keys().copied().collect();
        for machine in nodes {
            // Agents give up a silent server.
            if pause > 15_000 && self.streams_to(machine, server) {
                self.break_stream(machine, false);
            }
        }
    }

    fn pause_agent(&mut self, machine: usize) {
        let pause = self.siege_ms();
        self.note(&format!("n{machine}"), || format!("its agent is paused for {pause} ms"));
        let until_ms = self.agenda.now_ms() + pause;
        let paused = &mut self.machines[machine].paused_until_ms;
        *paused = until_ms.max(*paused);
        if pause > 15_000 {
            self.break_stream(machine, false);
        }
    }

    /// How long a node is cut off or asleep.
    fn siege_ms(&mut self) -> u64 {
        let shortest = if self.mood.siege { LONGEST_MS / 2 } else { 0 };
        self.rng.random_range(shortest..LONGEST_MS)
    }

    /// The machine loses its power; sometimes for long, and then an operator may say so.
    fn lose_machine(&mut self, machine: usize) {
        let long = self.rng.random_bool(0.5);
        let down = ends_after(&mut self.rng, if long { 2 * LONGEST_MS } else { 10_000 });
        self.note(&format!("n{machine}"), || format!("loses its power for {down} ms"));
        let node = self.machines[machine].record.id.clone();
        self.reboot(machine, down);
        if !long || self.network.store_down || self.rng.random_bool(0.5) {
            return;
        }
        // Refused by the API while the session is connected.
        let session = self.store.get(&key::session(&node)).expect("legal");
        let connected = session.is_some_and(|s| s.decode::<SessionRecord>().expect("a session").connected);
        if let (Some(found), false) = (self.store.get(&key::node(&node)).expect("legal"), connected) {
            let node_epoch = found.decode::<NodeRecord>().expect("a node").epoch;
            self.report.declared_gone += 1;
            self.request(RequestKind::ConfirmGone { node, node_epoch });
        }
    }

    /// Pulls the cables to one server or to all.
    fn cut_machine(&mut self, machine: usize) {
        self.report.cuts += 1;
        let all = self.mood.siege || self.rng.random_bool(0.5);
        let one = self.rng.random_range(0..self.servers.len());
        let lasts = self.siege_ms();
        for server in 0..self.servers.len() {
            if !all && server != one {
                continue;
            }
            self.network.cut(machine, server);
            self.note(&format!("n{machine}"), || {
                format!("is cut off from s{server} for {lasts} ms")
            });
            if self.streams_to(machine, server) {
                let at_once = self.rng.random_bool(0.3);
                self.break_stream(machine, at_once);
            }
            self.agenda.after(lasts, Event::Mend(Mend::Link { machine, server }));
        }
    }

    fn cut_server(&mut self, server: usize) {
        self.report.cuts += 1;
        self.network.cut_store(server);
        let lasts = ends_after(&mut self.rng, LONGEST_MS);
        self.note(&format!("s{server}"), || {
            format!("is cut off from the store for {lasts} ms")
        });
        self.agenda.after(lasts, Event::Mend(Mend::ServerToStore(server)));
    }

    fn lose_quorum(&mut self) {
        if !self.network.store_down {
            self.report.outages += 1;
            self.network.store_down = true;
            let lasts = ends_after(&mut self.rng, LONGEST_MS);
            self.note("store", || format!("has lost its quorum for {lasts} ms"));
            self.agenda.after(lasts, Event::Mend(Mend::Store));
        }
    }

    fn drain(&mut self, machine: usize) {
        let node = self.machines[machine].record.id.clone();
        let soon = self.agenda.now_ms() + ends_after(&mut self.rng, 20_000);
        let deadline_ms = self.rng.random_bool(0.8).then_some(soon);
        self.request(RequestKind::Drain { node, deadline_ms });
    }

    fn uncordon(&mut self, machine: usize) {
        let node = self.machines[machine].record.id.clone();
        self.request(RequestKind::Uncordon { node });
    }

    pub(crate) fn mend(&mut self, mend: Mend) {
        match mend {
            Mend::Store => self.regain_quorum(),
            Mend::ServerToStore(server) => self.network.mend_store(server),
            Mend::Link { machine, server } => self.network.mend(machine, server),
            Mend::Blobs => self.blobs.down = false,
            Mend::History => self.history.down = false,
        }
    }

    /// The store's next leader gives every lease its whole time again.
    fn regain_quorum(&mut self) {
        if std::mem::take(&mut self.network.store_down) {
            self.store.renew_all(self.agenda.now_ms());
        }
    }

    /// Pauses end by themselves: what waits for a sleeper stays in order.
    pub(crate) fn heal(&mut self) {
        self.faulty = false;
        self.regain_quorum();
        self.network.mend_all();
        self.blobs.down = false;
        self.history.down = false;
        for server in &mut self.servers {
            server.lags_until_ms = 0;
        }
        for machine in 0..self.machines.len() {
            self.uncordon(machine);
        }
    }
}
