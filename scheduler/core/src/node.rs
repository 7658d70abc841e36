//! The nodes: what each has, what is granted on it, and which may be chosen.
//!
//! A node is usable while it has a record and a session of the same registration. Its free room
//! is what it has minus what stands as an allocation minus what is proposed and not yet committed.
//! Not here: how the best one is found ([`crate::fit`]).

use crate::SELECTORS_MAX;
use crate::fit::{Allowed, Best, FitIndex, Position, Room};
use crate::shape::{Shape, carries};
use crate::slot::{Held, Slot};
use model::{Eligibility, NodeId, NodeRecord, Resources, SessionRecord};
use std::collections::BTreeMap;

/// What is wanted of a node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wish<'a> {
    pub(crate) shape: &'a Shape,
    /// Nodes that are taken only if no other one has room.
    pub(crate) away_from: &'a [NodeId],
}

impl<'a> Wish<'a> {
    /// Any node that fits.
    pub(crate) fn of(shape: &'a Shape) -> Self {
        Self { shape, away_from: &[] }
    }

    #[allow(dead_code, reason = "retries are planned from the next release on")]
    pub(crate) fn away_from(self, away_from: &'a [NodeId]) -> Self {
        Self { away_from, ..self }
    }
}

/// Resources and a number of slots that are taken from a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Grant {
    pub(crate) resources: Resources,
    pub(crate) slots: u64,
}

impl Grant {
    pub(crate) fn one(resources: &Resources) -> Self {
        Self {
            resources: *resources,
            slots: 1,
        }
    }

    pub(crate) fn plus(&self, other: &Self) -> Self {
        let (a, b) = (&self.resources, &other.resources);
        Self {
            resources: Resources {
                cpu_millis: a.cpu_millis.saturating_add(b.cpu_millis),
                memory_bytes: a.memory_bytes.saturating_add(b.memory_bytes),
                disk_bytes: a.disk_bytes.saturating_add(b.disk_bytes),
            },
            slots: self.slots.saturating_add(other.slots),
        }
    }

    pub(crate) fn minus(&self, other: &Self) -> Self {
        let (a, b) = (&self.resources, &other.resources);
        Self {
            resources: Resources {
                cpu_millis: a.cpu_millis.saturating_sub(b.cpu_millis),
                memory_bytes: a.memory_bytes.saturating_sub(b.memory_bytes),
                disk_bytes: a.disk_bytes.saturating_sub(b.disk_bytes),
            },
            slots: self.slots.saturating_sub(other.slots),
        }
    }

    pub(crate) fn within(&self, capacity: &Self) -> bool {
        capacity.resources.fits(&self.resources) && self.slots <= capacity.slots
    }

    pub(crate) fn room(&self) -> Room {
        let r = &self.resources;
        [r.cpu_millis, r.memory_bytes, r.disk_bytes, self.slots]
    }
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Node {
    pub(crate) record: Slot<NodeRecord>,
    pub(crate) session: Slot<SessionRecord>,
    /// There while it is cordoned.
    pub(crate) eligibility: Slot<Eligibility>,
    /// The sum of its allocations.
    pub(crate) used: Grant,
    /// The sum of placements that are proposed and not yet committed.
    pub(crate) reserved: Grant,
}

impl Node {
    /// Its record, while it is connected under that registration.
    pub(crate) fn usable(&self) -> Option<&NodeRecord> {
        let (record, session) = (self.record.get()?, self.session.get()?);
        (session.connected && record.epoch == session.node_epoch).then_some(record)
    }

    /// Its record, while steps may be placed on it. Damaged eligibility counts as a cordon.
    pub(crate) fn eligible(&self) -> Option<&NodeRecord> {
        self.usable().filter(|_| self.eligibility.is_absent())
    }

    pub(crate) fn capacity(&self) -> Grant {
        self.record.get().map_or_else(Grant::default, |record| Grant {
            resources: record.capacity,
            slots: u64::from(record.slots),
        })
    }

    /// What is neither granted nor reserved; 0 of a resource whose capacity shrank below its use.
    pub(crate) fn free(&self) -> Grant {
        self.capacity().minus(&self.used).minus(&self.reserved)
    }

    fn is_forgettable(&self) -> bool {
        let nothing = Grant::default();
        let unknown = self.record.is_absent() && self.session.is_absent() && self.eligibility.is_absent();
        unknown && self.used == nothing && self.reserved == nothing
    }
}

/// All nodes that anything is known of.
#[derive(Debug, Clone, Default)]
pub(crate) struct Nodes {
    table: BTreeMap<NodeId, Node>,
    /// Node ids in order: the index is the node's [`Position`].
    order: Vec<NodeId>,
    positions: BTreeMap<NodeId, Position>,
    index: FitIndex,
    /// What all usable nodes have.
    total: Resources,
    /// Labels that were asked for, and the nodes that carry them.
    selectors: BTreeMap<BTreeMap<String, String>, Allowed>,
    /// A record or session has changed since the index was made.
    stale: bool,
}

impl Nodes {
    pub(crate) fn table(&self) -> &BTreeMap<NodeId, Node> {
        &self.table
    }

    pub(crate) fn get(&self, id: &NodeId) -> Option<&Node> {
        self.table.get(id)
    }

    fn entry(&mut self, id: &NodeId) -> &mut Node {
        self.table.entry(id.clone()).or_default()
    }

    /// Takes a node's record; false for a stale change.
    pub(crate) fn take_record(&mut self, id: &NodeId, held: Held<NodeRecord>, revision: u64) -> bool {
        let taken = self.entry(id).record.take(held, revision).is_some();
        self.stale |= taken;
        taken
    }

    /// Takes a node's session; false for a stale change.
    pub(crate) fn take_session(&mut self, id: &NodeId, held: Held<SessionRecord>, revision: u64) -> bool {
        let taken = self.entry(id).session.take(held, revision).is_some();
        self.stale |= taken;
        taken
    }

    /// Takes a node's cordon or drain; false for a stale change.
    #[allow(dead_code, reason = "requests to cordon are acted on from the next release on")]
    pub(crate) fn take_eligibility(&mut self, id: &NodeId, held: Held<Eligibility>, revision: u64) -> bool {
        let taken = self.entry(id).eligibility.take(held, revision).is_some();
        self.stale |= taken;
        taken
    }

    /// Forgets a node of which nothing is left but revisions.
    pub(crate) fn forget(&mut self, id: &NodeId) {
        if self.table.get(id).is_some_and(Node::is_forgettable) {
            self.table.remove(id);
            self.stale = true;
        }
    }

    pub(crate) fn add_used(&mut self, id: &NodeId, grant: &Grant) {
        let node = self.entry(id);
        node.used = node.used.plus(grant);
        self.tell_room(id);
    }

    pub(crate) fn drop_used(&mut self, id: &NodeId, grant: &Grant) {
        let node = self.entry(id);
        node.used = node.used.minus(grant);
        self.tell_room(id);
    }

    pub(crate) fn reserve(&mut self, id: &NodeId, grant: &Grant) {
        let node = self.entry(id);
        node.reserved = node.reserved.plus(grant);
        self.tell_room(id);
    }

    pub(crate) fn unreserve(&mut self, id: &NodeId, grant: &Grant) {
        let node = self.entry(id);
        node.reserved = node.reserved.minus(grant);
        self.tell_room(id);
    }

    fn tell_room(&mut self, id: &NodeId) {
        if self.stale {
            return;
        }
        let node = self.table.get(id).filter(|n| n.eligible().is_some());
        if let (Some(node), Some(position)) = (node, self.positions.get(id)) {
            self.index.set(*position, node.free().room());
        }
    }

    /// Makes the index anew if records or sessions have changed.
    pub(crate) fn refresh(&mut self) {
        if !self.stale {
            return;
        }
        self.stale = false;
        self.order = self.table.keys().cloned().collect();
        self.positions = self.order.iter().cloned().zip(0..).collect();
        self.selectors.clear();
        let mut largest = [0_u64; 3];
        let mut total = Grant::default();
        for record in self.table.values().filter_map(Node::usable) {
            let has = &record.capacity;
            for (largest, has) in largest
                .iter_mut()
                .zip([has.cpu_millis, has.memory_bytes, has.disk_bytes])
            {
                *largest = (*largest).max(has);
            }
            total = total.plus(&Grant::one(has));
        }
        self.total = total.resources;
        let rooms: Vec<Option<Room>> = self
            .table
            .values()
            .map(|n| n.eligible().map(|_| n.free().room()))
            .collect();
        self.index = FitIndex::new(largest, &rooms);
    }

    /// What all usable nodes have, as of the last [`Nodes::refresh`].
    pub(crate) fn total(&self) -> &Resources {
        &self.total
    }

    /// The best eligible node, as of the last [`Nodes::refresh`].
    pub(crate) fn best(&mut self, wish: &Wish<'_>) -> Option<Best> {
        let shape = wish.shape;
        let ask = Grant::one(&shape.resources()).room();
        self.know_selector(shape);
        let allowed = if shape.labels().is_empty() {
            &Allowed::All
        } else {
            self.selectors.get(shape.labels())?
        };
        let avoided = wish.away_from.iter().filter_map(|id| self.positions.get(id).copied());
        let avoided: Vec<Position> = avoided.collect();
        let elsewhere = self.index.best(&ask, allowed, &avoided);
        elsewhere.or_else(|| (!avoided.is_empty()).then(|| self.index.best(&ask, allowed, &[]))?)
    }

    fn know_selector(&mut self, shape: &Shape) {
        if shape.labels().is_empty() || self.selectors.contains_key(shape.labels()) {
            return;
        }
        if self.selectors.len() >= SELECTORS_MAX {
            self.selectors.clear();
        }
        let carriers: Vec<bool> = self.table.values().map(|n| labels_match(n, shape)).collect();
        let allowed = Allowed::of(carriers.len(), |p| carriers[p]);
        self.selectors.insert(shape.labels().clone(), allowed);
    }

    /// The node at a position that [`Nodes::best`] answered.
    pub(crate) fn at(&self, position: Position) -> Option<(&NodeId, &Node)> {
        let id = self.order.get(position as usize)?;
        Some((id, self.table.get(id)?))
    }

    /// The room under which the index knows a node.
    pub(crate) fn indexed_room(&self, id: &NodeId) -> Option<Room> {
        self.index.room(*self.positions.get(id)?)
    }

    /// The score that a placement on this node would get.
    pub(crate) fn score(&self, node: &Node, ask: &Grant) -> u64 {
        self.index.score(&node.free().room(), &ask.room())
    }

    /// A number that orders nodes by free room; only for telling people.
    pub(crate) fn weight_of_free(&self, node: &Node) -> u64 {
        self.index.weight(&node.free().room())
    }
}

fn labels_match(node: &Node, shape: &Shape) -> bool {
    node.record.get().is_some_and(|r| carries(&r.labels, shape.labels()))
}
