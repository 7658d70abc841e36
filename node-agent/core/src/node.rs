//! All allocations of a node and what a server says about them.
//!
//! Three rules hold here because no single life can see them: an order older than one that is held
//! for the same step is refused, an attempt does not begin before the earlier attempt of its step is
//! gone from this node, and one that has ended here is never begun again, whatever a late list says.
//!
//! Not here: the wire, what happens to one allocation ([`Life`]), and until when the node has its
//! lease ([`crate::Lease`]).

use crate::entry::Entry;
use crate::fences::Fences;
use crate::life::{Effect, Event, Found, Life};
use crate::order::Order;
use model::{AllocId, ObservedState, RunId};
use std::collections::{BTreeMap, BTreeSet};

/// The most finished allocations whose ids are kept for servers that have not forgotten them. A
/// server forgets within seconds; past this many, the oldest ids are dropped so that the journal
/// stays small.
pub const TOMBSTONES_MAX: usize = 4_096;

/// An effect and the allocation that it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Act {
    /// Which.
    pub alloc: AllocId,
    /// What to do.
    pub effect: Effect,
}

/// All allocations of a node.
#[derive(Debug, Clone)]
pub struct Node {
    boot_id: String,
    connected: bool,
    lives: BTreeMap<AllocId, Life>,
    /// Orders whose step has an earlier attempt that is not gone yet.
    waiting: BTreeMap<AllocId, Order>,
    /// No server has said yet on this stream which orders stand.
    unlisted: bool,
    /// What has ended here and is held no more.
    ended: Fences,
    may_launch: bool,
}

/// Why an order is not begun that has ended here before.
const ENDED_BEFORE: &str = "this attempt had ended on its node before and was not wanted any more";

impl Node {
    /// A node that holds nothing, in this boot. It may launch until [`Node::on_lease`] says
    /// otherwise: whoever keeps a lease says so first.
    #[must_use]
    pub fn new(boot_id: impl Into<String>) -> Self {
        Self {
            boot_id: boot_id.into(),
            connected: false,
            lives: BTreeMap::new(),
            waiting: BTreeMap::new(),
            unlisted: false,
            ended: Fences::default(),
            may_launch: true,
        }
    }

    /// An allocation that has ended here, as an earlier agent knew. Before any other event, the
    /// latest last.
    pub fn remember(&mut self, ended: &AllocId) {
        self.ended.remember(ended);
    }

    /// Takes up an allocation of the journal. Before any other event.
    pub fn readopt(&mut self, entry: Entry, found: Found, now_ms: u64) -> Vec<Act> {
        let life = Life::readopt(entry, &self.boot_id, found, now_ms);
        self.hold(life, now_ms)
    }

    /// Every allocation that is held, in order of ids.
    pub fn lives(&self) -> impl Iterator<Item = &Life> {
        self.lives.values()
    }

    /// One of them.
    #[must_use]
    pub fn life(&self, alloc: &AllocId) -> Option<&Life> {
        self.lives.get(alloc)
    }

    /// True when nothing runs or is about to.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.lives.values().all(Life::is_tombstone)
    }

    /// The whole of what is wanted of this node.
    pub fn on_orders(&mut self, orders: Vec<Order>, now_ms: u64) -> Vec<Act> {
        let listed: BTreeSet<AllocId> = orders.iter().map(|o| o.alloc.clone()).collect();
        self.unlisted = false;
        self.waiting.retain(|alloc, _| listed.contains(alloc));
        let unlisted: Vec<AllocId> = self.lives.keys().filter(|id| !listed.contains(*id)).cloned().collect();
        let mut acts = Vec::new();
        for alloc in unlisted {
            acts.extend(self.on(&alloc, Event::Unlisted, now_ms));
        }
        for order in orders {
            acts.extend(self.on_order(order, now_ms));
        }
        acts.extend(self.start_waiting(now_ms));
        acts
    }

    /// One order, new, repeated or changed.
    pub fn on_order(&mut self, order: Order, now_ms: u64) -> Vec<Act> {
        if self.lives.contains_key(&order.alloc) {
            return self.on(&order.alloc.clone(), Event::Ordered { stop: order.stop }, now_ms);
        }
        if let Some(waiting) = self.waiting.get_mut(&order.alloc) {
            waiting.stop = waiting.stop.or(order.stop);
            return Vec::new();
        }
        if self.is_stale(&order) {
            return Vec::new();
        }
        if self.ended.of_step(&order.alloc) == Some(order.fence) {
            let life = Life::refused(order, self.boot_id.clone(), ENDED_BEFORE, now_ms);
            return self.hold(life, now_ms);
        }
        // Not stale, so those of its step are earlier attempts, of which none began.
        self.waiting.retain(|_, other| !same_step(other, &order));
        self.waiting.insert(order.alloc.clone(), order);
        let mut acts = self.disown_earlier(now_ms);
        acts.extend(self.start_waiting(now_ms));
        acts
    }

    /// The server wants nothing more of an allocation.
    pub fn on_forget(&mut self, alloc: &AllocId, now_ms: u64) -> Vec<Act> {
        self.waiting.remove(alloc);
        self.ended.remember(alloc);
        self.on(alloc, Event::Forget, now_ms)
    }

    /// A report was answered.
    pub fn on_ack(&mut self, alloc: &AllocId, state: ObservedState, accepted: bool, now_ms: u64) -> Vec<Act> {
        self.on(alloc, Event::Acked { state, accepted }, now_ms)
    }

    /// A stream to a server is there.
    pub fn on_connected(&mut self, now_ms: u64) -> Vec<Act> {
        self.connected = true;
        self.on_all(&Event::Connected, now_ms)
    }

    /// It broke.
    pub fn on_disconnected(&mut self, now_ms: u64) -> Vec<Act> {
        self.connected = false;
        self.unlisted = true;
        self.on_all(&Event::Disconnected, now_ms)
    }

    /// The lease stands, or has ended. While it does not stand nothing is launched; all else goes on.
    /// To be told before any other event whenever it has changed.
    pub fn on_lease(&mut self, valid: bool, now_ms: u64) -> Vec<Act> {
        if std::mem::replace(&mut self.may_launch, valid) == valid {
            return Vec::new();
        }
        self.on_all(&Event::Lease { valid }, now_ms)
    }

    /// Time went by: due at [`Node::deadline_ms`] at the latest.
    pub fn on_tick(&mut self, now_ms: u64) -> Vec<Act> {
        let mut acts = self.on_all(&Event::Tick, now_ms);
        let graves: Vec<AllocId> = (self
            .lives
            .values()
            .filter(|l| l.is_tombstone())
            .map(|l| l.alloc().clone()))
        .collect();
        for alloc in graves.iter().take(graves.len().saturating_sub(TOMBSTONES_MAX)) {
            acts.extend(self.on(alloc, Event::Forget, now_ms));
        }
        acts
    }

    /// When [`Node::on_tick`] is to come at the latest.
    #[must_use]
    pub fn deadline_ms(&self) -> Option<u64> {
        self.lives.values().filter_map(Life::deadline_ms).min()
    }

    /// Something happened to one allocation. One that is not held (any more) is nobody's concern.
    pub fn on(&mut self, alloc: &AllocId, event: Event, now_ms: u64) -> Vec<Act> {
        let Some(life) = self.lives.get_mut(alloc) else {
            return Vec::new();
        };
        let effects = life.on(event, now_ms);
        let removed = life.is_removed();
        let mut acts = acts_of(alloc, effects);
        if removed {
            self.lives.remove(alloc);
            self.ended.remember(alloc);
        }
        if !self.waiting.is_empty() && !self.unlisted {
            acts.extend(self.start_waiting(now_ms));
        }
        acts
    }

    fn on_all(&mut self, event: &Event, now_ms: u64) -> Vec<Act> {
        let all: Vec<AllocId> = self.lives.keys().cloned().collect();
        all.iter()
            .flat_map(|alloc| self.on(alloc, event.clone(), now_ms))
            .collect()
    }

    /// A later attempt of the same step is held or has ended here: this order is a late one.
    fn is_stale(&self, order: &Order) -> bool {
        let held = self.lives.values().map(Life::order).chain(self.waiting.values());
        let later_held = (held.filter(|other| same_step(other, order))).any(|other| other.fence > order.fence);
        later_held
            || self
                .ended
                .of_step(&order.alloc)
                .is_some_and(|fence| fence > order.fence)
    }

    /// An earlier attempt of a step that is ordered again does not stand any more.
    fn disown_earlier(&mut self, now_ms: u64) -> Vec<Act> {
        let earlier: Vec<AllocId> = (self.lives.values())
            .filter(|life| !life.is_tombstone())
            .filter(|life| self.waiting.values().any(|order| same_step(life.order(), order)))
            .map(|life| life.alloc().clone())
            .collect();
        earlier
            .iter()
            .flat_map(|alloc| self.on(alloc, Event::Unlisted, now_ms))
            .collect()
    }

    fn start_waiting(&mut self, now_ms: u64) -> Vec<Act> {
        let free: Vec<AllocId> = (self.waiting.values())
            .filter(|order| {
                !self
                    .lives
                    .values()
                    .any(|l| l.blocks_next() && same_step(l.order(), order))
            })
            .map(|order| order.alloc.clone())
            .collect();
        let mut acts = Vec::new();
        for alloc in free {
            let Some(order) = self.waiting.remove(&alloc) else {
                continue;
            };
            acts.extend(self.hold(Life::ordered(order, self.boot_id.clone()), now_ms));
        }
        acts
    }

    /// Takes a new life in and tells it how things stand.
    fn hold(&mut self, mut life: Life, now_ms: u64) -> Vec<Act> {
        let alloc = life.alloc().clone();
        let valid = self.may_launch;
        let first = if self.connected { Event::Connected } else { Event::Tick };
        let mut effects = Vec::new();
        for event in [Event::Lease { valid }, first] {
            effects.extend(life.on(event, now_ms));
        }
        self.lives.insert(alloc.clone(), life);
        acts_of(&alloc, effects)
    }
}

fn acts_of(alloc: &AllocId, effects: Vec<Effect>) -> Vec<Act> {
    let act = |effect| Act {
        alloc: alloc.clone(),
        effect,
    };
    effects.into_iter().map(act).collect()
}

fn step_of(alloc: &AllocId) -> Option<(RunId, usize)> {
    alloc.parts().map(|(run, step, _)| (run, step))
}

fn same_step(a: &Order, b: &Order) -> bool {
    a.alloc != b.alloc && step_of(&a.alloc).is_some() && step_of(&a.alloc) == step_of(&b.alloc)
}
