//! Exact best fit over all nodes without looking at all of them.
//!
//! The score of a placement is what the node keeps free afterwards, as a weighted sum of shares of
//! the largest node: the less, the better. Of that sum, what the step takes is the same for every
//! node, so **the order of the nodes by score is the order by free room, whatever is asked**. The
//! nodes are kept in that order, in blocks that know the most each holds of every resource: the
//! first node that fits is the best one, and whole blocks of full nodes are passed over at once.
//! With blocks of about the square root of the nodes, a search and an update both cost that much.
//!
//! Not here: which nodes are usable and what their labels say ([`crate::node`]).

/// Free CPU (millis), memory (bytes), disk (bytes), slots.
pub(crate) type Room = [u64; 4];

/// The share of the largest node is counted in millionths.
const SHARE_SCALE: u128 = 1_000_000;

/// How much CPU, memory and disk count in the score: CPU and memory are what nodes run out of,
/// disk breaks ties among nodes of the same kind.
const WEIGHTS: [u64; 3] = [4, 4, 1];

/// The score of a placement that leaves nothing free.
pub(crate) const SCORE_MAX: u64 = 9 * SHARE_SCALE as u64;

/// A block is split above this; 64 entries are a few cache lines of weights to scan.
const BLOCK_MAX: usize = 64;

/// A node's place in the order of ids, so that ties fall to the lowest id.
pub(crate) type Position = u32;

/// A node that has room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fit {
    pub(crate) node: Position,
    /// [`SCORE_MAX`] less what the node keeps free, in millionths of the largest node times
    /// [`WEIGHTS`]; more is better.
    pub(crate) score: u64,
    /// Its room before the placement.
    pub(crate) room: Room,
}

/// The best node and, for the explanation, the one after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Best {
    pub(crate) best: Fit,
    pub(crate) next: Option<Fit>,
}

/// Which nodes may be chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Allowed {
    All,
    /// One bit for each position.
    Bits(Vec<u64>),
}

impl Allowed {
    /// The positions for which `test` holds.
    pub(crate) fn of(count: usize, test: impl Fn(usize) -> bool) -> Self {
        let mut bits = vec![0_u64; count.div_ceil(64)];
        for position in (0..count).filter(|p| test(*p)) {
            bits[position / 64] |= 1 << (position % 64);
        }
        Self::Bits(bits)
    }

    fn holds(&self, node: Position) -> bool {
        match self {
            Self::All => true,
            Self::Bits(bits) => bits
                .get(node as usize / 64)
                .is_some_and(|word| word >> (node % 64) & 1 == 1),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    weight: u64,
    node: Position,
    room: Room,
}

impl Entry {
    fn key(&self) -> (u64, Position) {
        (self.weight, self.node)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Block {
    /// The most of each resource that any entry has.
    most: Room,
    entries: Vec<Entry>,
}

impl Block {
    fn of(entries: Vec<Entry>) -> Self {
        let mut block = Self { most: [0; 4], entries };
        block.count_most();
        block
    }

    fn count_most(&mut self) {
        self.most = [0; 4];
        for entry in &self.entries {
            raise(&mut self.most, &entry.room);
        }
    }
}

fn score(weight: u64, taken: u64) -> u64 {
    SCORE_MAX.saturating_sub(weight.saturating_sub(taken))
}

fn raise(most: &mut Room, room: &Room) {
    for (most, room) in most.iter_mut().zip(room) {
        *most = (*most).max(*room);
    }
}

fn fits(room: &Room, ask: &Room) -> bool {
    room.iter().zip(ask).all(|(room, ask)| room >= ask)
}

/// The usable nodes, ordered by free room.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct FitIndex {
    /// The largest node's CPU, memory and disk.
    largest: [u64; 3],
    /// The weight under which each position stands in a block, if it does.
    weights: Vec<Option<u64>>,
    blocks: Vec<Block>,
}

impl FitIndex {
    /// An index of nodes none of which is larger than `largest` in any resource.
    pub(crate) fn new(largest: [u64; 3], rooms: &[Option<Room>]) -> Self {
        let mut index = Self {
            largest,
            weights: vec![None; rooms.len()],
            blocks: Vec::new(),
        };
        let mut entries: Vec<Entry> = (0..)
            .zip(rooms)
            .filter_map(|(n, r)| Some(index.entry(n, (*r)?)))
            .collect();
        entries.sort_unstable_by_key(Entry::key);
        for entry in &entries {
            index.weights[entry.node as usize] = Some(entry.weight);
        }
        index.blocks = entries.chunks(BLOCK_MAX / 2).map(|c| Block::of(c.to_vec())).collect();
        index
    }

    fn entry(&self, node: Position, room: Room) -> Entry {
        Entry {
            weight: self.weight(&room),
            node,
            room,
        }
    }

    /// The weighted sum of shares of the largest node. Never falls when any part of `room` grows.
    pub(crate) fn weight(&self, room: &Room) -> u64 {
        let parts = room.iter().zip(&self.largest).zip(WEIGHTS);
        parts.fold(0, |sum: u64, ((room, largest), weight)| {
            let share = u128::from(*room) * SHARE_SCALE / u128::from(*largest).max(1);
            sum.saturating_add(u64::try_from(share).unwrap_or(u64::MAX).saturating_mul(weight))
        })
    }

    /// The score of placing `ask` on a node with this room.
    pub(crate) fn score(&self, room: &Room, ask: &Room) -> u64 {
        score(self.weight(room), self.weight(ask))
    }

    /// Tells the room of a node anew; positions that were not given to [`FitIndex::new`] are not there.
    pub(crate) fn set(&mut self, node: Position, room: Room) {
        self.remove(node);
        if (node as usize) < self.weights.len() {
            let entry = self.entry(node, room);
            self.insert(entry);
        }
    }

    fn insert(&mut self, entry: Entry) {
        self.weights[entry.node as usize] = Some(entry.weight);
        let at = self.block_of(entry.key());
        let Some(block) = self.blocks.get_mut(at) else {
            self.blocks.push(Block::of(vec![entry]));
            return;
        };
        let place = block.entries.partition_point(|e| e.key() < entry.key());
        block.entries.insert(place, entry);
        raise(&mut block.most, &entry.room);
        if block.entries.len() > BLOCK_MAX {
            let upper = block.entries.split_off(BLOCK_MAX / 2);
            block.count_most();
            self.blocks.insert(at + 1, Block::of(upper));
        }
    }

    fn remove(&mut self, node: Position) {
        let Some(weight) = self.weights.get_mut(node as usize).and_then(Option::take) else {
            return;
        };
        let at = self.block_of((weight, node));
        let block = &mut self.blocks[at];
        block.entries.retain(|e| e.node != node);
        if block.entries.is_empty() {
            self.blocks.remove(at);
        } else {
            block.count_most();
        }
    }

    /// The block in which this key stands or would stand: the last one that begins at or before it.
    fn block_of(&self, key: (u64, Position)) -> usize {
        let after = self.blocks.partition_point(|b| b.entries[0].key() <= key);
        after.saturating_sub(1)
    }

    /// The best node for `ask` among those allowed and not avoided.
    pub(crate) fn best(&self, ask: &Room, allowed: &Allowed, avoided: &[Position]) -> Option<Best> {
        let taken = self.weight(ask);
        // A node that fits holds at least what is asked, so it weighs at least as much.
        let first = self.block_of((taken, 0));
        let mut found = self
            .blocks
            .get(first..)
            .unwrap_or_default()
            .iter()
            .filter(|block| fits(&block.most, ask))
            .flat_map(|block| &block.entries)
            .filter(|entry| fits(&entry.room, ask) && allowed.holds(entry.node))
            .filter(|entry| !avoided.contains(&entry.node))
            .map(|entry| Fit {
                node: entry.node,
                score: score(entry.weight, taken),
                room: entry.room,
            });
        Some(Best {
            best: found.next()?,
            next: found.next(),
        })
    }

    /// The room under which a node stands in the index.
    pub(crate) fn room(&self, node: Position) -> Option<Room> {
        let weight = (*self.weights.get(node as usize)?)?;
        let block = &self.blocks[self.block_of((weight, node))];
        block.entries.iter().find(|e| e.node == node).map(|e| e.room)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cmp::Reverse;

    const LARGEST: [u64; 3] = [16_000, 64 << 30, 500 << 30];

    /// Looks at every node.
    fn oracle(
        index: &FitIndex,
        rooms: &[Option<Room>],
        ask: &Room,
        allowed: &Allowed,
    ) -> Vec<(Reverse<u64>, Position)> {
        let mut all: Vec<(Reverse<u64>, Position)> = (0..)
            .zip(rooms)
            .filter_map(|(node, room)| Some((node, (*room)?)))
            .filter(|(node, room)| fits(room, ask) && allowed.holds(*node))
            .map(|(node, room)| (Reverse(SCORE_MAX - (index.weight(&room) - index.weight(ask))), node))
            .collect();
        all.sort_unstable();
        all
    }

    fn room() -> impl Strategy<Value = Room> {
        // Few distinct values, so that ties and near misses are common.
        (0_u64..=16, 0_u64..=16, 0_u64..=4, 0_u64..=3)
            .prop_map(|(cpu, memory, disk, slots)| [cpu * 1_000, memory << 32, disk * (125 << 30), slots])
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn best_is_what_a_look_at_every_node_finds(
            start in prop::collection::vec(prop::option::of(room()), 1..300),
            updates in prop::collection::vec((any::<prop::sample::Index>(), room()), 0..300),
            asks in prop::collection::vec((room(), any::<u64>()), 1..20),
        ) {
            let mut rooms = start;
            let mut index = FitIndex::new(LARGEST, &rooms);
            for (which, room) in updates {
                let node = which.index(rooms.len());
                rooms[node] = Some(room);
                index.set(node as Position, room);
                prop_assert_eq!(index.room(node as Position), Some(room));
            }
            for (ask, mask) in asks {
                for allowed in [Allowed::All, Allowed::of(rooms.len(), |p| mask >> (p % 64) & 1 == 1)] {
                    let wanted = oracle(&index, &rooms, &ask, &allowed);
                    let found = index.best(&ask, &allowed, &[]);
                    let in_order: Vec<(Reverse<u64>, Position)> = found
                        .iter()
                        .flat_map(|b| [Some(b.best), b.next])
                        .flatten()
                        .map(|f| (Reverse(f.score), f.node))
                        .collect();
                    prop_assert_eq!(in_order.as_slice(), &wanted[..wanted.len().min(2)]);
                }
            }
        }

        #[test]
        fn rooms_of_any_size_are_weighed_without_overflow(a in any::<Room>(), b in any::<Room>()) {
            let index = FitIndex::new([1, u64::MAX, 7], &[Some(a), Some(b)]);
            let (wide, narrow) = ([a[0].max(b[0]), a[1].max(b[1]), a[2].max(b[2]), 1], [a[0].min(b[0]), a[1].min(b[1]), a[2].min(b[2]), 1]);
            prop_assert!(index.weight(&wide) >= index.weight(&narrow));
        }
    }
}
