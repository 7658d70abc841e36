//! A node's stream as the server that holds it sees it: the node is taken in, hears its orders from
//! the real state machine over a watch that is late, repeats itself and is compacted, and is told
//! what it may forget.
//!
//! Not here: its reports ([`crate::filing`]), its logs ([`crate::hub`]), the server's process
//! ([`crate::server`]).

use crate::lie::Lie;
use crate::message::{AgentEvent, ServerEvent, Stream};
use crate::world::World;
use api_core::fleet::{Desired, Gone, Leaving, Word, is_folded};
use model::record::Unknown;
use model::{AllocId, Allocation, NodeRecord, Observed, SessionRecord, StepRecord, Stop, key};
use node_agent::{Order, Work};
use rand::Rng;
use std::collections::BTreeMap;
use store::{Change, Commit, Expect, LeaseId, Revision, Txn, WatchEvent};

/// A stream that a server holds.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) number: u64,
    pub(crate) lease: LeaseId,
    /// Of our own session record.
    revision: Revision,
    epoch: u64,
    /// What goes in order arrives no earlier than this.
    due_ms: u64,
    /// What the agent held when it registered.
    held: Vec<AllocId>,
    desired: Desired,
    /// Of the watch; `None`: the orders were not read yet.
    cursor: Option<Revision>,
    /// Changes are on their way.
    awaited: bool,
    /// The orders that stand, as the watch tells.
    pub(crate) standing: BTreeMap<AllocId, Option<Stop>>,
    pub(crate) leaving: Leaving,
    /// What is being prepared and was not filed.
    pub(crate) preparing: BTreeMap<AllocId, Observed>,
    pub(crate) logs: BTreeMap<AllocId, Slot>,
}

/// A log of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Slot {
    Opening,
    Open,
}

impl World {
    pub(crate) fn session_mut(&mut self, which: usize, stream: Stream) -> Option<&mut Session> {
        let session = self.servers[which].sessions.get_mut(&stream.machine)?;
        (session.number == stream.number).then_some(session)
    }

    /// As [`World::answer_agent`], and after everything that was said in order before.
    pub(crate) fn answer_in_order(&mut self, which: usize, stream: Stream, what: AgentEvent) {
        let due_ms = self.agenda.now_ms() + self.delay();
        let now_ms = self.agenda.now_ms();
        let Some(session) = self.session_mut(which, stream) else {
            return;
        };
        session.due_ms = session.due_ms.max(due_ms);
        let delay = session.due_ms - now_ms;
        self.answer_agent_after(which, stream.machine, delay, what);
    }

    /// Registers the node: its record under the next epoch, and its session under a new lease.
    pub(crate) fn take_in(&mut self, which: usize, stream: Stream, held: Vec<AllocId>) {
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
            lease: lease.0,
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
        // The newest registration with one server wins at once.
        if let Some(old) = self.servers[which].sessions.get(&stream.machine).map(|s| s.number) {
            let machine = stream.machine;
            self.end_stream(which, Stream { machine, number: old });
        }
        let session = Session {
            number: stream.number,
            lease,
            revision,
            epoch: record.epoch,
            due_ms: now_ms,
            held,
            desired: Desired::default(),
            cursor: None,
            awaited: false,
            standing: BTreeMap::new(),
            leaving: Leaving::default(),
            preparing: BTreeMap::new(),
            logs: BTreeMap::new(),
        };
        self.servers[which].sessions.insert(stream.machine, session);
        let welcome = AgentEvent::Welcome {
            stream: stream.number,
            lease_ms,
        };
        self.answer_in_order(which, stream, welcome);
        self.tell_server(which, 1, ServerEvent::FirstOrders { stream });
    }

    /// Forgets the session of a machine; what was received of its logs is still stored.
    fn end_session(&mut self, which: usize, machine: usize) {
        let Some(session) = self.servers[which].sessions.remove(&machine) else {
            return;
        };
        let stream = Stream {
            machine,
            number: session.number,
        };
        for alloc in self.servers[which].hub.let_go(stream) {
            self.tell_server(which, 0, ServerEvent::StoreLog { alloc });
        }
    }

    pub(crate) fn end_stream(&mut self, which: usize, stream: Stream) {
        self.end_session(which, stream.machine);
        self.answer_agent(which, stream.machine, AgentEvent::Broken { stream: stream.number });
    }

    pub(crate) fn renew(&mut self, which: usize, stream: Stream, sequence: u64) {
        let now_ms = self.agenda.now_ms();
        let Some(lease) = self.session_mut(which, stream).map(|s| s.lease) else {
            return;
        };
        if self.store.lease_keep_alive(lease, now_ms).is_err() {
            return self.end_stream(which, stream);
        }
        let stream_number = stream.number;
        let ack = AgentEvent::RenewAck {
            stream: stream_number,
            sequence,
        };
        self.answer_agent(which, stream.machine, ack);
    }

    /// The servers that hold a stream of this node hear, some time, that its session is gone, or
    /// that it has registered anew.
    pub(crate) fn session_changed(&mut self, change: &Change) {
        let Some(node) = change.key.strip_prefix(key::SESSIONS) else {
            return;
        };
        let Some(machine) = self.machines.iter().position(|m| m.record.id.as_str() == node) else {
            return;
        };
        let newest = change.value.as_deref().map(model::decode::<SessionRecord>);
        let newest = newest.map(|record| record.expect("a session").node_epoch);
        for which in 0..self.servers.len() {
            let Some(session) = self.servers[which].sessions.get(&machine) else {
                continue;
            };
            let number = session.number;
            let stream = Stream { machine, number };
            let what = match newest {
                None => ServerEvent::Vanished { stream },
                Some(epoch) if epoch > session.epoch => ServerEvent::Superseded { stream },
                Some(_) => continue,
            };
            let delay = self.delay();
            self.tell_server(which, delay, what);
        }
    }

    pub(crate) fn superseded(&mut self, which: usize, stream: Stream) {
        if self.session_mut(which, stream).is_some() {
            self.report.moved += 1;
            self.end_stream(which, stream);
        }
    }

    /// If the lease is gone with the session, the node is to register again before it is missed.
    pub(crate) fn vanished(&mut self, which: usize, stream: Stream) {
        let now_ms = self.agenda.now_ms();
        let Some(lease) = self.session_mut(which, stream).map(|s| s.lease) else {
            return;
        };
        if self.store.lease_keep_alive(lease, now_ms).is_err() {
            self.end_stream(which, stream);
        }
    }

    /// The stream is broken: nothing new goes there, but its lease runs to its end.
    pub(crate) fn gone(&mut self, which: usize, stream: Stream) {
        let now_ms = self.agenda.now_ms();
        let Some(session) = self.session_mut(which, stream) else {
            return;
        };
        let (lease, revision) = (session.lease, session.revision);
        self.end_session(which, stream.machine);
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

    /// The servers that hold the node's streams will hear of it.
    pub(crate) fn orders_changed(&mut self, machine: usize) {
        for which in 0..self.servers.len() {
            let delay = self.delay();
            let Some(session) = self.servers[which].sessions.get_mut(&machine) else {
                continue;
            };
            if session.cursor.is_some() && !std::mem::replace(&mut session.awaited, true) {
                let number = session.number;
                let stream = Stream { machine, number };
                self.tell_server(which, delay, ServerEvent::OrdersChanged { stream });
            }
        }
    }

    /// Reads all orders and sends them in one message; what the agent holds besides it may forget,
    /// unless it owes a log.
    pub(crate) fn first_orders(&mut self, which: usize, stream: Stream) {
        let words = self.read_orders(which, stream);
        let mut orders = Vec::new();
        for word in words {
            if let Word::Order(alloc) = word {
                orders.extend(self.order(&alloc));
                if let Some(session) = self.session_mut(which, stream) {
                    session.standing.insert(alloc.id, alloc.stop);
                }
            }
        }
        let Some(session) = self.session_mut(which, stream) else {
            return;
        };
        let (held, standing) = (session.held.clone(), session.standing.clone());
        let number = stream.number;
        let what = AgentEvent::Orders { stream: number, orders };
        self.answer_in_order(which, stream, what);
        for alloc in held.into_iter().filter(|a| !standing.contains_key(a)) {
            self.forget_unless_folded(which, stream, alloc);
        }
    }

    fn read_orders(&mut self, which: usize, stream: Stream) -> Vec<Word> {
        let prefix = key::allocs_of(&self.machines[stream.machine].record.id);
        let page = self.store.range(&prefix, None, 1_000).expect("legal");
        let Some(session) = self.session_mut(which, stream) else {
            return Vec::new();
        };
        session.cursor = Some(page.revision);
        let records = page.entries.iter();
        let records = records.map(|e| (e.key.as_str(), e.value.as_slice(), e.mod_revision.0));
        session.desired.whole(records, page.revision.0)
    }

    /// Some of the changes arrive, now and then all of them once more.
    pub(crate) fn deliver_orders(&mut self, which: usize, stream: Stream) {
        let prefix = key::allocs_of(&self.machines[stream.machine].record.id);
        let Some(session) = self.session_mut(which, stream) else {
            return;
        };
        session.awaited = false;
        let Some(before) = session.cursor else { return };
        let events = self.store.changes_since(before, &prefix);
        if events.is_empty() {
            return;
        }
        let count = self.rng.random_range(1..=events.len());
        let left = events.len() - count;
        let again = self.faulty && self.rng.random_bool(0.1);
        let mut words = Vec::new();
        for event in events.into_iter().take(count) {
            let WatchEvent::Changes(changes) = event else {
                self.report.orders_read_anew += 1;
                let words = self.read_orders(which, stream);
                self.tell_words(which, stream, words);
                return self.check_told(which, stream);
            };
            let Some(session) = self.session_mut(which, stream) else {
                return;
            };
            session.cursor = changes.last().map(|c| c.revision).max(session.cursor);
            let changes = changes.iter();
            let told = changes.map(|c| (c.key.as_str(), c.value.as_deref(), c.revision.0));
            words.extend(session.desired.changes(told));
        }
        if let Some(session) = self.session_mut(which, stream) {
            if again {
                session.cursor = Some(before);
            }
            if left > 0 || again {
                session.awaited = true;
                let delay = self.delay();
                self.tell_server(which, delay, ServerEvent::OrdersChanged { stream });
            }
        }
        self.tell_words(which, stream, words);
        if left == 0 && !again {
            self.check_told(which, stream);
        }
    }

    fn tell_words(&mut self, which: usize, stream: Stream, words: Vec<Word>) {
        for word in words {
            let Some(session) = self.session_mut(which, stream) else {
                return;
            };
            match word {
                Word::Order(alloc) => {
                    session.standing.insert(alloc.id.clone(), alloc.stop);
                    let number = stream.number;
                    if let Some(order) = self.order(&alloc) {
                        let order = Box::new(order);
                        self.answer_in_order(which, stream, AgentEvent::Order { stream: number, order });
                    }
                }
                Word::Vanished(alloc) => {
                    session.standing.remove(&alloc);
                    let known = session.leaving.vanished(&alloc);
                    match known {
                        _ if self.lie == Some(Lie::ForgetsEarly) => self.forget(which, stream, alloc),
                        Gone::Finished => self.forget(which, stream, alloc),
                        Gone::OwesLog => {}
                        Gone::Unknown => self.forget_unless_folded(which, stream, alloc),
                    }
                }
                Word::Unreadable { key, error } => panic!("{key}: {error}"),
            }
        }
    }

    /// Drops what never ended. What did may owe its log, and the agent offers that by itself.
    fn forget_unless_folded(&mut self, which: usize, stream: Stream, alloc: AllocId) {
        let folded = self.step_of(&alloc).is_some_and(|step| is_folded(&step, &alloc));
        if !folded {
            self.forget(which, stream, alloc);
        }
    }

    pub(crate) fn forget(&mut self, which: usize, to: Stream, alloc: AllocId) {
        self.report.forgotten += 1;
        let stream = to.number;
        self.answer_in_order(which, to, AgentEvent::Forget { stream, alloc });
    }

    /// A server that has heard of every change has told the node what stands: each order, and whether it
    /// is to end early.
    fn check_told(&self, which: usize, stream: Stream) {
        let Some(session) = self.servers[which].sessions.get(&stream.machine) else {
            return;
        };
        let prefix = key::allocs_of(&self.machines[stream.machine].record.id);
        let page = self.store.range(&prefix, None, 1_000).expect("legal");
        let orders = page.entries.iter().map(|e| e.decode().expect("an order"));
        let orders: BTreeMap<AllocId, Option<Stop>> = orders.map(|o: Allocation| (o.id, o.stop)).collect();
        assert_eq!(
            session.standing, orders,
            "s{which} has heard of all changes and told n{} of other orders than stand",
            stream.machine
        );
    }

    /// The record of an allocation's step, while its run is in the live store.
    pub(crate) fn step_of(&self, alloc: &AllocId) -> Option<StepRecord> {
        let (run, step, _) = alloc.parts()?;
        let found = self.store.get(&key::step(&run, step)).expect("legal")?;
        Some(found.decode().expect("a step's record"))
    }

    fn order(&self, alloc: &Allocation) -> Option<Order> {
        let planned = self.runs.iter().find(|r| r.header.id == alloc.run)?;
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
        Some(Order {
            alloc: alloc.id.clone(),
            fence: alloc.fence,
            stop: alloc.stop,
            work: Box::new(work),
        })
    }
}
