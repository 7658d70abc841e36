//! A fleet of equal nodes, packed by the scheduler's own index.
//!
//! Not here: names, records and sessions of nodes; [`super::growth`] measures the whole view.

use scheduler::fit::{Ask, Best, FitIndex, Position, Room, Seat};
use scheduler::lasting::{Expectations, Expected};

/// CPU, memory, disk and slots of a node: 16 cores, 64 GiB.
pub(crate) const NODE: Room = [16_000, 64 << 30, 500 << 30, 1_000];

/// The nodes and their index.
#[derive(Debug, Clone)]
pub(crate) struct Fleet {
    index: FitIndex,
    nodes: Vec<Node>,
    now_ms: u64,
}

#[derive(Debug, Clone)]
struct Node {
    room: Room,
    expected: Expectations,
    kind: u8,
}

impl Node {
    fn seat(&self, now_ms: u64) -> Seat {
        Seat {
            room: self.room,
            horizon: self.expected.horizon(now_ms),
            kind: self.kind,
        }
    }
}

impl Fleet {
    /// Empty nodes of so many kinds.
    pub(crate) fn new(count: usize, kinds: u8) -> Self {
        let node = |n: usize| Node {
            room: NODE,
            expected: Expectations::default(),
            kind: (n % usize::from(kinds.max(1))) as u8,
        };
        let nodes: Vec<Node> = (0..count).map(node).collect();
        let seats: Vec<Option<Seat>> = nodes.iter().map(|node| Some(node.seat(0))).collect();
        let [cpu, memory, disk, _] = NODE;
        Self {
            index: FitIndex::new([cpu, memory, disk], &seats),
            nodes,
            now_ms: 0,
        }
    }

    pub(crate) fn room(&self, node: Position) -> Room {
        self.nodes[node as usize].room
    }

    #[cfg(test)]
    pub(crate) fn kind(&self, node: Position) -> u8 {
        self.nodes[node as usize].kind
    }

    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(crate) fn advance(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
        while let Some(node) = self.index.pop_due(now_ms) {
            self.tell(node);
        }
    }

    pub(crate) fn best(&self, ask: &Ask<'_>) -> Option<Best> {
        self.index.best(ask)
    }

    pub(crate) fn place(&mut self, node: Position, asked: &Room, expected: Expected) {
        let held = &mut self.nodes[node as usize];
        held.room.iter_mut().zip(asked).for_each(|(room, asked)| *room -= asked);
        held.expected.add(expected);
        self.tell(node);
    }

    pub(crate) fn release(&mut self, node: Position, asked: &Room, expected: Expected) {
        let held = &mut self.nodes[node as usize];
        held.room.iter_mut().zip(asked).for_each(|(room, asked)| *room += asked);
        held.expected.drop(expected);
        self.tell(node);
    }

    fn tell(&mut self, node: Position) {
        let seat = self.nodes[node as usize].seat(self.now_ms);
        self.index.set(node, Some(seat));
    }
}
