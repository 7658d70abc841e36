//! A small world in which an agent is killed, its machine restarted, its stream broken, its server
//! forgetful, late and repetitive, its lease coming and going, at any moment and in any order; then it heals, and nothing is left.

use crate::orders::{alloc, order, stopped};
use model::{AllocId, Observed, ObservedState, Outcome, StartFailure, Usage};
use node_agent::{Act, Effect, Entry, Event, Found, Node, Order, Progress};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// Steps and attempts of each in one world.
const STEPS: usize = 3;
const ATTEMPTS: u32 = 3;

/// What the agent has begun and not finished.
#[derive(Debug, Clone)]
enum Deed {
    Write(Box<Entry>),
    Prepare(AllocId, bool),
    Launch(AllocId),
    Kill(AllocId),
    CloseLog(AllocId),
    Clean(AllocId),
    RemoveEntry(AllocId),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Container {
    Starting,
    Running,
    Exited,
    /// Its shim was killed.
    Broken,
}

struct World {
    now_ms: u64,
    boot: u32,
    node: Node,
    connected: bool,
    lease: bool,
    // What outlives the agent.
    journal: BTreeMap<AllocId, Entry>,
    containers: BTreeMap<AllocId, Container>,
    /// In order, as the shell lists them before an entry is removed.
    ended: Vec<AllocId>,
    // What does not.
    deeds: Vec<Deed>,
    followed: BTreeSet<AllocId>,
    shipped: BTreeSet<AllocId>,
    sealed: BTreeSet<AllocId>,
    // The server.
    standing: BTreeMap<AllocId, Order>,
    /// Lists that were true once.
    lists: Vec<Vec<Order>>,
    stored: BTreeSet<AllocId>,
    on_the_wire: Vec<Observed>,
    // What must hold.
    launches: BTreeMap<AllocId, u32>,
    reported: BTreeMap<AllocId, Observed>,
    past: Vec<(AllocId, Event)>,
}

impl World {
    fn new() -> Self {
        Self {
            now_ms: 0,
            boot: 0,
            node: Node::new("boot 0"),
            connected: false,
            lease: true,
            journal: BTreeMap::new(),
            containers: BTreeMap::new(),
            ended: Vec::new(),
            deeds: Vec::new(),
            followed: BTreeSet::new(),
            shipped: BTreeSet::new(),
            sealed: BTreeSet::new(),
            standing: BTreeMap::new(),
            lists: Vec::new(),
            stored: BTreeSet::new(),
            on_the_wire: Vec::new(),
            launches: BTreeMap::new(),
            reported: BTreeMap::new(),
            past: Vec::new(),
        }
    }

    // ---- the agent's shell ----

    fn tell(&mut self, alloc: &AllocId, event: Event) {
        self.past.push((alloc.clone(), event.clone()));
        let acts = self.node.on(alloc, event, self.now_ms);
        self.perform(acts);
    }

    fn perform(&mut self, acts: Vec<Act>) {
        for Act { alloc, effect } in acts {
            match effect {
                Effect::Write(entry) => self.deeds.push(Deed::Write(entry)),
                Effect::Prepare => self.deeds.push(Deed::Prepare(alloc, true)),
                Effect::AbortPrepare => {
                    for deed in &mut self.deeds {
                        if let Deed::Prepare(id, good) = deed
                            && *id == alloc
                        {
                            *good = false;
                        }
                    }
                }
                Effect::Launch => {
                    assert!(self.journal.contains_key(&alloc), "launched and not journalled");
                    assert!(self.lease, "launched without a lease");
                    self.deeds.push(Deed::Launch(alloc));
                }
                Effect::Kill(_) => self.deeds.push(Deed::Kill(alloc)),
                Effect::CloseLog { .. } => self.deeds.push(Deed::CloseLog(alloc)),
                Effect::ShipLog => {
                    self.shipped.insert(alloc);
                }
                Effect::SealLog { .. } => {
                    assert!(self.shipped.contains(&alloc), "sealed and never shipped");
                    self.sealed.insert(alloc);
                }
                Effect::Report(observed) => self.report(*observed),
                Effect::Clean => self.deeds.push(Deed::Clean(alloc)),
                Effect::RemoveEntry => {
                    assert!(
                        !self.containers.contains_key(&alloc),
                        "forgotten with its container there"
                    );
                    self.deeds.push(Deed::RemoveEntry(alloc));
                }
                Effect::Gone => assert!(!self.journal.contains_key(&alloc), "gone and still journalled"),
            }
        }
    }

    fn report(&mut self, observed: Observed) {
        assert!(self.connected, "reported without a stream");
        let journalled = match self.journal.get(&observed.alloc).map(|entry| &entry.progress) {
            None => panic!("reported and not journalled"),
            Some(Progress::Accepted) => ObservedState::Preparing,
            Some(Progress::Running { .. }) => ObservedState::Running,
            Some(Progress::Ended(_) | Progress::Done(_)) => ObservedState::Ended,
        };
        assert!(observed.state <= journalled, "reported more than is journalled");
        if let Some(earlier) = self.reported.get(&observed.alloc) {
            assert!(earlier.state <= observed.state, "a report went back");
            // What has ended and is asked for again is refused as lost.
            if earlier.state == ObservedState::Ended && !self.ended.contains(&observed.alloc) {
                assert_eq!(*earlier, observed, "an end was told twice, differently");
            }
        }
        self.reported.insert(observed.alloc.clone(), observed.clone());
        self.on_the_wire.push(observed);
    }

    fn do_one(&mut self, index: usize) {
        if self.deeds.is_empty() {
            return;
        }
        let deed = self.deeds.remove(index % self.deeds.len());
        let told = self.carry_out(&deed);
        if let Some((alloc, event)) = told {
            self.tell(&alloc, event);
        }
    }

    /// What a deed does to what outlives the agent, and what it then tells.
    fn carry_out(&mut self, deed: &Deed) -> Option<(AllocId, Event)> {
        match deed {
            Deed::Write(entry) => {
                let alloc = entry.order.alloc.clone();
                self.journal.insert(alloc.clone(), (**entry).clone());
                Some((alloc, Event::Written))
            }
            Deed::Prepare(alloc, true) => Some((alloc.clone(), Event::Prepared { phases: Vec::new() })),
            Deed::Prepare(alloc, false) => Some((
                alloc.clone(),
                Event::PrepareFailed {
                    cause: StartFailure::Image,
                    message: String::new(),
                    phases: Vec::new(),
                    lasting: false,
                },
            )),
            Deed::Launch(alloc) => {
                *self.launches.entry(alloc.clone()).or_default() += 1;
                assert_eq!(self.launches[alloc], 1, "launched twice");
                self.containers.insert(alloc.clone(), Container::Starting);
                self.followed.insert(alloc.clone());
                self.one_attempt_alive();
                None
            }
            Deed::Kill(alloc) => {
                if let Some(container) = self.containers.get_mut(alloc)
                    && *container != Container::Broken
                {
                    *container = Container::Exited;
                }
                None
            }
            Deed::CloseLog(alloc) => Some((alloc.clone(), Event::LogClosed { bytes: 1 })),
            Deed::Clean(alloc) => {
                self.containers.remove(alloc);
                Some((alloc.clone(), Event::Cleaned))
            }
            Deed::RemoveEntry(alloc) => {
                self.ended.push(alloc.clone());
                self.journal.remove(alloc);
                Some((alloc.clone(), Event::EntryRemoved))
            }
        }
    }

    fn one_attempt_alive(&self) {
        let alive = |c: &Container| matches!(c, Container::Starting | Container::Running);
        let steps: Vec<usize> = (self.containers.iter())
            .filter(|(_, container)| alive(container))
            .filter_map(|(alloc, _)| alloc.parts().map(|(_, step, _)| step))
            .collect();
        let different: BTreeSet<&usize> = steps.iter().collect();
        assert_eq!(different.len(), steps.len(), "two attempts of a step are alive");
    }

    /// A container goes on by itself, and whoever follows it is told.
    fn container(&mut self, index: usize, broken: bool) {
        let Some((alloc, container)) = self.containers.iter_mut().nth(index % STEPS) else {
            return;
        };
        *container = match container {
            Container::Broken => Container::Broken,
            _ if broken => Container::Broken,
            Container::Starting => Container::Running,
            Container::Running | Container::Exited => Container::Exited,
        };
        let alloc = alloc.clone();
        self.tell_container(&alloc);
    }

    fn tell_container(&mut self, alloc: &AllocId) {
        if !self.followed.contains(alloc) {
            return;
        }
        let event = match self.containers.get(alloc) {
            None | Some(Container::Starting) => return,
            Some(Container::Running) => Event::Launched {
                started_ms: 5,
                phase: None,
            },
            Some(Container::Exited) => Event::Ended {
                started_ms: Some(5),
                ended_ms: 6,
                outcome: Outcome::Exited { code: 0 },
                log_bytes: 3,
                usage: Usage::default(),
                left: model::Left::default(),
            },
            Some(Container::Broken) => Event::Vanished { message: String::new() },
        };
        self.tell(alloc, event);
    }

    /// The agent is killed, its machine perhaps too, and started again. Of what it had begun, each
    /// part was done or not.
    fn crash(&mut self, luck: usize, reboot: bool) {
        self.disconnect();
        let deeds = std::mem::take(&mut self.deeds);
        for (bit, deed) in deeds.iter().enumerate() {
            if luck >> (bit % 16) & 1 == 1 {
                self.carry_out(deed);
            }
        }
        if reboot {
            self.boot += 1;
            self.containers.clear();
        }
        self.followed.clear();
        self.shipped.clear();
        self.sealed.clear();
        self.past.clear();
        self.node = Node::new(format!("boot {}", self.boot));
        self.lease = false;
        self.node.on_lease(false, self.now_ms);
        for alloc in &self.ended {
            self.node.remember(alloc);
        }
        let named: BTreeSet<AllocId> = self.journal.keys().cloned().collect();
        self.containers.retain(|alloc, _| named.contains(alloc));
        for entry in self.journal.clone().into_values() {
            let alloc = entry.order.alloc.clone();
            let found = match self.containers.get(&alloc) {
                None => Found::Nothing,
                Some(Container::Starting | Container::Running) => Found::Alive,
                Some(Container::Exited) => Found::Gone,
                Some(Container::Broken) => Found::Broken { message: String::new() },
            };
            let acts = self.node.readopt(entry, found, self.now_ms);
            if self.node.life(&alloc).is_some_and(|life| life.is_alive()) {
                self.followed.insert(alloc.clone());
            }
            self.perform(acts);
        }
    }

    // ---- the server ----

    fn connect(&mut self) {
        self.disconnect();
        self.connected = true;
        let acts = self.node.on_connected(self.now_ms);
        self.perform(acts);
        self.all_orders();
    }

    fn disconnect(&mut self) {
        if self.connected {
            self.connected = false;
            self.on_the_wire.clear();
            let acts = self.node.on_disconnected(self.now_ms);
            self.perform(acts);
        }
    }

    fn all_orders(&mut self) {
        if self.connected {
            let orders: Vec<Order> = self.standing.values().cloned().collect();
            self.lists.push(orders.clone());
            let acts = self.node.on_orders(orders, self.now_ms);
            self.perform(acts);
        }
    }

    /// A server that is behind lists what stood once.
    fn late_list(&mut self, index: usize) {
        if self.connected && !self.lists.is_empty() {
            let orders = self.lists[index % self.lists.len()].clone();
            let acts = self.node.on_orders(orders, self.now_ms);
            self.perform(acts);
        }
    }

    fn lease(&mut self, valid: bool) {
        self.lease = valid;
        let acts = self.node.on_lease(valid, self.now_ms);
        self.perform(acts);
    }

    fn one_order(&mut self, index: usize, stop: bool) {
        let Some(standing) = self.standing.values_mut().nth(index % STEPS) else {
            return;
        };
        if stop {
            *standing = stopped(standing.clone());
        }
        let again = standing.clone();
        if self.connected {
            let acts = self.node.on_order(again, self.now_ms);
            self.perform(acts);
        }
    }

    /// The leader places the next attempt of a step, with or without the end of the one before.
    fn place(&mut self, step: usize) {
        let step = step % STEPS;
        let counters = (self.standing.keys())
            .chain(self.journal.keys())
            .chain(self.reported.keys())
            .chain(self.launches.keys())
            .filter_map(AllocId::parts)
            .filter(|(_, of, _)| *of == step);
        let last = counters.map(|(_, _, fence)| fence.counter).max().unwrap_or(0);
        if last < ATTEMPTS {
            self.standing
                .retain(|id, _| id.parts().is_none_or(|(_, of, _)| of != step));
            self.standing.insert(alloc(step, last + 1), order(step, last + 1));
            self.one_order_of(step);
        }
    }

    fn one_order_of(&mut self, step: usize) {
        let position = self
            .standing
            .keys()
            .position(|id| id.parts().is_some_and(|(_, of, _)| of == step));
        if let Some(position) = position {
            self.one_order(position, false);
        }
    }

    /// Answers a report, perhaps not for the last time.
    fn ack(&mut self, index: usize, again: bool) {
        if self.on_the_wire.is_empty() {
            return;
        }
        let index = index % self.on_the_wire.len();
        let observed = self.on_the_wire[index].clone();
        if !again {
            self.on_the_wire.remove(index);
        }
        let accepted = self.standing.contains_key(&observed.alloc);
        let acts = self.node.on_ack(&observed.alloc, observed.state, accepted, self.now_ms);
        self.perform(acts);
    }

    /// The leader folds an end.
    fn fold(&mut self) {
        let ended = |alloc: &AllocId| {
            self.reported
                .get(alloc)
                .is_some_and(|o| o.state == ObservedState::Ended)
        };
        let folded: Vec<AllocId> = self.standing.keys().filter(|alloc| ended(alloc)).cloned().collect();
        self.standing.retain(|alloc, _| !folded.contains(alloc));
    }

    fn store_log(&mut self, index: usize) {
        let alloc = self.sealed.iter().nth(index % STEPS).cloned();
        if let Some(alloc) = alloc.filter(|_| self.connected) {
            self.stored.insert(alloc.clone());
            self.tell(&alloc, Event::LogComplete);
        }
    }

    fn forget(&mut self, index: usize) {
        let held: Vec<AllocId> = self.node.lives().map(|life| life.alloc().clone()).collect();
        let over: Vec<&AllocId> = held.iter().filter(|id| !self.standing.contains_key(*id)).collect();
        if self.connected && !over.is_empty() {
            let alloc = over[index % over.len()].clone();
            let acts = self.node.on_forget(&alloc, self.now_ms);
            self.perform(acts);
        }
    }

    fn repeat(&mut self, index: usize) {
        if self.past.is_empty() {
            return;
        }
        let (alloc, event) = self.past[index % self.past.len()].clone();
        // A deed tells its end once: only what comes from outside may come twice.
        let outside = matches!(event, Event::Launched { .. } | Event::Ended { .. } | Event::LogComplete);
        if outside && self.followed.contains(&alloc) {
            let acts = self.node.on(&alloc, event, self.now_ms);
            self.perform(acts);
        }
    }

    fn fail_write(&mut self) {
        let write = self.deeds.iter().position(|deed| matches!(deed, Deed::Write(_)));
        if let Some(Deed::Write(entry)) = write.map(|index| self.deeds.remove(index)) {
            self.tell(&entry.order.alloc, Event::WriteFailed);
        }
    }

    fn tick(&mut self, ms: u64) {
        self.now_ms += ms;
        let acts = self.node.on_tick(self.now_ms);
        self.perform(acts);
    }

    // ---- the test ----

    fn chance(&mut self, draw: u16) {
        let what = usize::from(draw >> 4);
        match draw % 18 {
            0 => self.place(what),
            1 => self.connect(),
            2 if what % 4 == 0 => self.disconnect(),
            3 => self.all_orders(),
            4 => self.one_order(what, what % 5 == 0),
            5 => self.ack(what, what % 3 == 0),
            6 => self.fold(),
            7 => self.store_log(what),
            8 if what % 3 == 0 => self.forget(what),
            9 => self.repeat(what),
            10 if what % 3 == 0 => self.crash(what, what % 7 == 0),
            11 => self.container(what, what % 11 == 0),
            12 if what % 5 == 0 => self.fail_write(),
            13 => self.tick(what as u64 * 10),
            16 => self.lease(what % 3 != 0),
            17 if what % 3 == 0 => self.late_list(what),
            _ => self.do_one(what),
        }
    }

    fn heal(&mut self) {
        self.lease(true);
        self.connect();
        for _ in 0..100 {
            while !self.deeds.is_empty() {
                self.do_one(0);
            }
            for alloc in self.containers.keys().cloned().collect::<Vec<_>>() {
                let container = self.containers.get_mut(&alloc).expect("listed a moment ago");
                if *container != Container::Broken {
                    *container = Container::Exited;
                }
                self.tell_container(&alloc);
            }
            while !self.on_the_wire.is_empty() {
                self.ack(0, false);
            }
            self.fold();
            for alloc in self.sealed.clone() {
                self.stored.insert(alloc.clone());
                self.tell(&alloc, Event::LogComplete);
            }
            self.tick(10_000);
            self.all_orders();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_nothing_is_left_in_the_end(draws in prop::collection::vec(any::<u16>(), 0..250)) {
        let mut world = World::new();
        for draw in draws {
            world.chance(draw);
        }
        world.heal();
        let left: Vec<_> = world.node.lives().map(|life| (life.alloc().clone(), life.state_name())).collect();
        prop_assert!(left.is_empty(), "lives left: {left:?}");
        prop_assert!(world.containers.is_empty(), "containers left: {:?}", world.containers);
        prop_assert!(world.journal.is_empty(), "entries left: {:?}", world.journal.keys());
        prop_assert!(world.standing.is_empty(), "orders left: {:?}", world.standing.keys());
        prop_assert!(world.node.is_idle());
    }
}
