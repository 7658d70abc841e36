//! The newest finished attempt of each step, remembered after everything else about it is gone.
//!
//! A list of orders that is late may name an attempt that has ended here and was forgotten; its
//! fence tells. Not here: attempts that are still held ([`crate::Node`]).

use model::{AllocId, Fence, RunId};
use std::collections::{BTreeMap, VecDeque};

/// The most steps of which the newest finished attempt is remembered: an hour of a node that ends
/// four steps each second. A list that is later than that names none of them.
pub const FENCES_MAX: usize = 16_384;

/// Fences by step; the one learned first is dropped first.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fences {
    newest: BTreeMap<(RunId, usize), Fence>,
    learned: VecDeque<(RunId, usize)>,
}

impl Fences {
    /// An attempt has ended and is wanted no more. An id of another form names no step.
    pub(crate) fn remember(&mut self, alloc: &AllocId) {
        let Some((run, step, fence)) = alloc.parts() else {
            return;
        };
        let key = (run, step);
        if let Some(known) = self.newest.get_mut(&key) {
            *known = fence.max(*known);
            return;
        }
        if self.learned.len() == FENCES_MAX
            && let Some(oldest) = self.learned.pop_front()
        {
            self.newest.remove(&oldest);
        }
        self.learned.push_back(key.clone());
        self.newest.insert(key, fence);
    }

    /// The newest finished attempt of this allocation's step.
    pub(crate) fn of_step(&self, alloc: &AllocId) -> Option<Fence> {
        let (run, step, _) = alloc.parts()?;
        self.newest.get(&(run, step)).copied()
    }
}
