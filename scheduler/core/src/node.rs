//! The nodes: what each has, what is granted on it, and which may be chosen.
//!
//! A node is usable while it has a record and a session of the same registration. Its free room
//! is what it has minus what stands as an allocation minus what is proposed and not yet committed.
//! Not here: how the best one is found ([`crate::fit`]).

use crate::SELECTORS_MAX;
use crate::estimate::UNKNOWN_MS;
use crate::fit::{Ask, Best, Chosen, FitIndex, KINDS_MAX, Position, Room, Seat};
use crate::lasting::{Expectations, Expected, class_of};
use crate::shape::{Shape, carries};
use crate::slot::{Held, Slot};
use model::{Eligibility, NodeId, NodeRecord, Resources, SessionRecord};
use std::collections::BTreeMap;

/// What is wanted of a node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wish<'a> {
    pub(crate) shape: &'a Shape,
    /// How long the step is expected to last, milliseconds.
    pub(crate) lasts_ms: u64,
    /// Nodes that are taken only if no other one has room.
    pub(crate) away_from: &'a [NodeId],
}

impl<'a> Wish<'a> {
    /// Any node that fits.
    pub(crate) fn of(shape: &'a Shape) -> Self {
        Self {
            shape,
            lasts_ms: UNKNOWN_MS,
            away_from: &[],
        }
    }

    pub(crate) fn lasting(self, lasts_ms: u64) -> Self {
        Self { lasts_ms, ..self }
    }

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

    fn is_saturated(&self) -> bool {
        let r = &self.resources;
        [r.cpu_millis, r.memory_bytes, r.disk_bytes].contains(&u64::MAX)
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
    /// What is kept free for steps that were overtaken too long.
    pub(crate) kept: Grant,
    /// How long all of these are expected to last.
    pub(crate) expected: Expectations,
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

    /// What is neither granted nor reserved nor kept; 0 of a resource whose capacity shrank below its use.
    pub(crate) fn free(&self) -> Grant {
        self.capacity()
            .minus(&self.used)
            .minus(&self.reserved)
            .minus(&self.kept)
    }

    fn is_forgettable(&self) -> bool {
        let nothing = Grant::default();
        let unknown = self.record.is_absent() && self.session.is_absent() && self.eligibility.is_absent();
        unknown && self.used == nothing && self.reserved == nothing && self.kept == nothing
    }
}

/// Nodes that carry some labels.
#[derive(Debug, Clone)]
enum Carriers {
    /// All nodes of these kinds, and no others.
    Kinds(u64),
    /// Found among all kinds.
    Chosen(Chosen),
}

/// The most label selectors by which nodes are told apart in kinds. Each search looks at all kinds
/// that match, so a selector that is one of many, e.g. by host name, is not worth its own.
const KIND_SELECTORS_MAX: usize = 12;

/// All nodes that anything is known of.
#[derive(Debug, Clone, Default)]
pub(crate) struct Nodes {
    table: BTreeMap<NodeId, Node>,
    /// Node ids in order: the index is the node's [`Position`].
    order: Vec<NodeId>,
    positions: BTreeMap<NodeId, Position>,
    /// The kind of each position.
    kinds: Vec<u8>,
    index: FitIndex,
    now_ms: u64,
    /// What all usable nodes have.
    total: Resources,
    /// Labels that were asked for, and the nodes that carry them.
    selectors: BTreeMap<BTreeMap<String, String>, Carriers>,
    /// Labels by which nodes are told apart in kinds.
    kind_selectors: Vec<BTreeMap<String, String>>,
    /// One more selector would make too many kinds.
    kinds_full: bool,
    /// The index has to be made anew.
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
        if !self.table.contains_key(id) {
            self.stale = true;
        }
        self.table.entry(id.clone()).or_default()
    }

    /// Takes a node's record; false for a stale change.
    pub(crate) fn take_record(&mut self, id: &NodeId, held: Held<NodeRecord>, revision: u64) -> bool {
        let node = self.entry(id);
        let before = node.record.get().map(|r| (r.capacity, r.slots, r.labels.clone()));
        let was_usable = node.usable().is_some();
        let taken = node.record.take(held, revision).is_some();
        let after = node.record.get().map(|r| (r.capacity, r.slots, r.labels.clone()));
        self.stale |= before != after;
        self.tell_usable(id, was_usable);
        taken
    }

    /// Takes a node's session; false for a stale change.
    pub(crate) fn take_session(&mut self, id: &NodeId, held: Held<SessionRecord>, revision: u64) -> bool {
        let node = self.entry(id);
        let was_usable = node.usable().is_some();
        let taken = node.session.take(held, revision).is_some();
        self.tell_usable(id, was_usable);
        taken
    }

    /// Takes a node's cordon or drain; false for a stale change.
    pub(crate) fn take_eligibility(&mut self, id: &NodeId, held: Held<Eligibility>, revision: u64) -> bool {
        let taken = self.entry(id).eligibility.take(held, revision).is_some();
        self.tell_seat(id);
        taken
    }

    /// Keeps the total up to date while a node of unchanged size comes and goes.
    fn tell_usable(&mut self, id: &NodeId, was_usable: bool) {
        let usable = self.table.get(id).and_then(Node::usable).map(|r| r.capacity);
        if usable.is_some() != was_usable {
            let capacity = self.table.get(id).map(Node::capacity).unwrap_or_default();
            let before = Grant::one(&self.total);
            let after = if was_usable {
                before.minus(&capacity)
            } else {
                before.plus(&capacity)
            };
            self.total = after.resources;
            // A sum that did not fit does not tell what is left without one of its parts.
            self.stale |= before.is_saturated() || after.is_saturated();
        }
        self.tell_seat(id);
    }

    /// Forgets a node of which nothing is left but revisions.
    pub(crate) fn forget(&mut self, id: &NodeId) {
        if self.table.get(id).is_some_and(Node::is_forgettable) {
            self.table.remove(id);
            self.stale = true;
        }
    }

    pub(crate) fn add_used(&mut self, id: &NodeId, grant: &Grant, expected: Expected) {
        let node = self.entry(id);
        node.used = node.used.plus(grant);
        node.expected.add(expected);
        self.tell_seat(id);
    }

    pub(crate) fn drop_used(&mut self, id: &NodeId, grant: &Grant, expected: Expected) {
        let node = self.entry(id);
        node.used = node.used.minus(grant);
        node.expected.drop(expected);
        self.tell_seat(id);
    }

    pub(crate) fn reserve(&mut self, id: &NodeId, grant: &Grant, expected: Expected) {
        let node = self.entry(id);
        node.reserved = node.reserved.plus(grant);
        node.expected.add(expected);
        self.tell_seat(id);
    }

    pub(crate) fn unreserve(&mut self, id: &NodeId, grant: &Grant, expected: Expected) {
        let node = self.entry(id);
        node.reserved = node.reserved.minus(grant);
        node.expected.drop(expected);
        self.tell_seat(id);
    }

    /// Keeps this much of a node from everybody, whether or not it is free already.
    pub(crate) fn keep(&mut self, id: &NodeId, grant: &Grant) {
        let node = self.entry(id);
        node.kept = node.kept.plus(grant);
        self.tell_seat(id);
    }

    pub(crate) fn stop_keeping(&mut self, id: &NodeId, grant: &Grant) {
        let node = self.entry(id);
        node.kept = node.kept.minus(grant);
        self.tell_seat(id);
    }

    fn seat(&self, id: &NodeId, position: Position) -> Option<Seat> {
        let node = self.table.get(id).filter(|n| n.eligible().is_some())?;
        Some(Seat {
            room: node.free().room(),
            horizon: node.expected.horizon(self.now_ms),
            kind: self.kinds.get(position as usize).copied().unwrap_or(0),
        })
    }

    fn tell_seat(&mut self, id: &NodeId) {
        if self.stale {
            return;
        }
        if let Some(position) = self.positions.get(id) {
            let seat = self.seat(id, *position);
            self.index.set(*position, seat);
        }
    }

    /// Lets time pass: expected ends come nearer.
    pub(crate) fn advance(&mut self, now_ms: u64) {
        self.now_ms = self.now_ms.max(now_ms);
        while let Some(position) = self.index.pop_due(self.now_ms) {
            let seat = self.order.get(position as usize).and_then(|id| self.seat(id, position));
            self.index.set(position, seat);
        }
    }

    /// Makes the index anew if nodes have come, gone or changed in size or labels.
    pub(crate) fn refresh(&mut self) {
        if !self.stale {
            return;
        }
        self.stale = false;
        self.order = self.table.keys().cloned().collect();
        self.positions = self.order.iter().cloned().zip(0..).collect();
        self.selectors.clear();
        self.tell_kinds();
        let mut largest = [0_u64; 3];
        for has in self.table.values().map(|n| n.capacity().resources) {
            let parts = [has.cpu_millis, has.memory_bytes, has.disk_bytes];
            largest
                .iter_mut()
                .zip(parts)
                .for_each(|(most, has)| *most = (*most).max(has));
        }
        let usable = self.table.values().filter_map(Node::usable);
        let total = usable.fold(Grant::default(), |sum, r| sum.plus(&Grant::one(&r.capacity)));
        self.total = total.resources;
        let seats: Vec<Option<Seat>> = self.order.iter().zip(0..).map(|(id, p)| self.seat(id, p)).collect();
        self.index = FitIndex::new(largest, &seats);
    }

    /// Nodes that match the same of the selectors are of one kind. Selectors that would make more
    /// than [`KINDS_MAX`] kinds are not among those by which nodes are told apart.
    fn tell_kinds(&mut self) {
        let mut known = self.number_kinds();
        while known.len() > KINDS_MAX {
            self.kind_selectors.pop();
            self.kinds_full = true;
            known = self.number_kinds();
        }
        for (n, selector) in self.kind_selectors.iter().enumerate() {
            let matching = known.iter().filter(|(signature, _)| *signature >> n & 1 == 1);
            let kinds = matching.fold(0_u64, |sum, (_, kind)| sum | 1 << kind);
            self.selectors.insert(selector.clone(), Carriers::Kinds(kinds));
        }
    }

    /// Gives every node the number of its kind; answers the number for each set of selectors.
    fn number_kinds(&mut self) -> BTreeMap<u64, u8> {
        let mut known: BTreeMap<u64, u8> = BTreeMap::new();
        self.kinds.clear();
        for node in self.table.values() {
            let selectors = self.kind_selectors.iter().zip(0_u32..);
            let signature = selectors.fold(0_u64, |sum, (s, n)| sum | u64::from(labels_match(node, s)) << n);
            let next = u8::try_from(known.len()).unwrap_or(u8::MAX);
            self.kinds.push(*known.entry(signature).or_insert(next));
        }
        known
    }

    /// What all usable nodes have, as of the last [`Nodes::refresh`].
    pub(crate) fn total(&self) -> &Resources {
        &self.total
    }

    /// The best eligible node, as of the last [`Nodes::refresh`] and [`Nodes::advance`].
    pub(crate) fn best(&mut self, wish: &Wish<'_>) -> Option<Best> {
        self.know_selector(wish.shape);
        let avoided: Vec<Position> = wish
            .away_from
            .iter()
            .filter_map(|id| self.positions.get(id).copied())
            .collect();
        let ask = self.ask(wish, &avoided)?;
        let anywhere = || self.index.best(&Ask { without: &[], ..ask });
        self.index
            .best(&ask)
            .or_else(|| if avoided.is_empty() { None } else { anywhere() })
    }

    fn ask<'a>(&'a self, wish: &Wish<'_>, without: &'a [Position]) -> Option<Ask<'a>> {
        let room = Grant::one(&wish.shape.resources()).room();
        let any = Ask {
            without,
            ..Ask::any(room, class_of(wish.lasts_ms))
        };
        if wish.shape.labels().is_empty() {
            return Some(any);
        }
        Some(match self.selectors.get(wish.shape.labels())? {
            Carriers::Kinds(kinds) => Ask { kinds: *kinds, ..any },
            Carriers::Chosen(only) => Ask {
                only: Some(only),
                ..any
            },
        })
    }

    fn know_selector(&mut self, shape: &Shape) {
        let labels = shape.labels();
        if labels.is_empty() || self.selectors.contains_key(labels) {
            return;
        }
        if self.selectors.len() >= SELECTORS_MAX {
            self.selectors
                .retain(|_, carriers| matches!(carriers, Carriers::Kinds(_)));
        }
        if !self.kinds_full && self.kind_selectors.len() < KIND_SELECTORS_MAX && !labels.contains_key(HOST_LABEL) {
            self.kind_selectors.push(labels.clone());
            self.stale = true;
            self.refresh();
        }
        if !self.selectors.contains_key(labels) {
            let carriers: Vec<bool> = self.table.values().map(|n| labels_match(n, labels)).collect();
            let chosen = Chosen::of(carriers.len(), |p| carriers[p]);
            self.selectors.insert(labels.clone(), Carriers::Chosen(chosen));
        }
    }

    /// The node at a position that [`Nodes::best`] answered.
    pub(crate) fn at(&self, position: Position) -> Option<(&NodeId, &Node)> {
        let id = self.order.get(position as usize)?;
        Some((id, self.table.get(id)?))
    }

    /// The room under which the index knows a node.
    pub(crate) fn indexed_room(&self, id: &NodeId) -> Option<Room> {
        self.index.seat(*self.positions.get(id)?).map(|seat| seat.room)
    }

    /// The score that a placement on this node would get; `None` while it is not eligible.
    pub(crate) fn score(&self, id: &NodeId, wish: &Wish<'_>) -> Option<u64> {
        let room = Grant::one(&wish.shape.resources()).room();
        let position = *self.positions.get(id)?;
        self.index.score(position, &Ask::any(room, class_of(wish.lasts_ms)))
    }

    /// A number that orders nodes by free room; only for telling people.
    pub(crate) fn weight_of_free(&self, node: &Node) -> u64 {
        self.index.weight(&node.free().room())
    }
}

/// The label that every node has for itself alone; steps that name it are few.
const HOST_LABEL: &str = "hostname";

fn labels_match(node: &Node, labels: &BTreeMap<String, String>) -> bool {
    node.record.get().is_some_and(|r| carries(&r.labels, labels))
}
