//! Nodes in the order of their free room, in blocks that know the most each holds of every resource.
//!
//! The first entry that fits is the one with the least room to spare. Whole blocks of full nodes are
//! passed over at one look; an update touches one block.
//!
//! Not here: which shelf a node stands on and which shelves are searched ([`crate::fit`]).

use crate::fit::{Position, Room};

/// A block is split above this. A block's entries are looked through for one update and its maxima
/// for one search, so about the square root of a fleet keeps both short.
const BLOCK_MAX: usize = 64;

/// A node on a shelf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    /// How much free room counts; the shelf is ordered by it, then by position.
    pub(crate) weight: u64,
    pub(crate) node: Position,
    pub(crate) room: Room,
}

impl Entry {
    fn key(&self) -> (u64, Position) {
        (self.weight, self.node)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
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

    fn head(&self) -> Option<(u64, Position)> {
        self.entries.first().map(Entry::key)
    }
}

fn raise(most: &mut Room, room: &Room) {
    for (most, room) in most.iter_mut().zip(room) {
        *most = (*most).max(*room);
    }
}

/// Whether a node with this room takes the step.
pub(crate) fn fits(room: &Room, ask: &Room) -> bool {
    // Without branches: which resource is short is not predictable.
    (room[0] >= ask[0]) & (room[1] >= ask[1]) & (room[2] >= ask[2]) & (room[3] >= ask[3])
}

/// Nodes in the order of their free room.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Shelf {
    blocks: Vec<Block>,
}

impl Shelf {
    pub(crate) fn of(mut entries: Vec<Entry>) -> Self {
        entries.sort_unstable_by_key(Entry::key);
        let blocks = entries.chunks(BLOCK_MAX / 2).map(|c| Block::of(c.to_vec())).collect();
        Self { blocks }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// The block in which this key stands or would stand: the last one that begins at or before it.
    fn block_of(&self, key: (u64, Position)) -> usize {
        let after = self
            .blocks
            .partition_point(|b| b.head().is_some_and(|head| head <= key));
        after.saturating_sub(1)
    }

    pub(crate) fn insert(&mut self, entry: Entry) {
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

    /// Takes the node off that stands here under this weight, if it does.
    pub(crate) fn remove(&mut self, weight: u64, node: Position) {
        let at = self.block_of((weight, node));
        let Some(block) = self.blocks.get_mut(at) else { return };
        let Ok(place) = block.entries.binary_search_by_key(&(weight, node), Entry::key) else {
            return;
        };
        let gone = block.entries.remove(place);
        if block.entries.is_empty() {
            self.blocks.remove(at);
        } else if gone.room.iter().zip(&block.most).any(|(room, most)| room == most) {
            block.count_most();
        }
    }

    /// The entries that fit, the least room first; none that weighs less than `taken`, which is the
    /// weight of what is asked, can be among them.
    pub(crate) fn fitting<'a>(&'a self, ask: &'a Room, taken: u64) -> impl Iterator<Item = &'a Entry> {
        let first = self.block_of((taken, 0));
        let blocks = self.blocks.get(first..).unwrap_or_default();
        let blocks = blocks.iter().filter(|block| fits(&block.most, ask));
        blocks
            .flat_map(|block| &block.entries)
            .filter(|entry| fits(&entry.room, ask))
    }
}
