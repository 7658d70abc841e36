//! Who can reach whom, and how fast each machine's clock runs.
//!
//! Not here: how long a message takes, and what happens when one does not arrive.

use std::collections::BTreeSet;

/// The cables.
#[derive(Debug, Default)]
pub(crate) struct Network {
    /// The store has no quorum: it answers nobody, and no lease runs out meanwhile.
    pub(crate) store_down: bool,
    /// Servers that cannot reach the store.
    from_store: BTreeSet<usize>,
    /// Machines and servers that cannot reach each other.
    between: BTreeSet<(usize, usize)>,
}

impl Network {
    /// Whether this server gets answers from the store.
    pub(crate) fn store(&self, server: usize) -> bool {
        !self.store_down && !self.from_store.contains(&server)
    }

    /// Whether this machine and this server hear each other.
    pub(crate) fn link(&self, machine: usize, server: usize) -> bool {
        !self.between.contains(&(machine, server))
    }

    pub(crate) fn cut_store(&mut self, server: usize) {
        self.from_store.insert(server);
    }

    pub(crate) fn mend_store(&mut self, server: usize) {
        self.from_store.remove(&server);
    }

    pub(crate) fn cut(&mut self, machine: usize, server: usize) {
        self.between.insert((machine, server));
    }

    pub(crate) fn mend(&mut self, machine: usize, server: usize) {
        self.between.remove(&(machine, server));
    }

    pub(crate) fn mend_all(&mut self) {
        self.from_store.clear();
        self.between.clear();
    }
}

/// A clock that never jumps and runs a little too fast or too slow.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    /// Its milliseconds in each true second.
    per_second: u64,
}

impl Default for Clock {
    fn default() -> Self {
        Self::running_at(1_000)
    }
}

impl Clock {
    pub(crate) fn running_at(per_second: u64) -> Self {
        Self { per_second }
    }

    /// What it shows.
    pub(crate) fn shows(self, true_ms: u64) -> u64 {
        true_ms * self.per_second / 1_000
    }

    /// When it will show this at the earliest.
    pub(crate) fn when(self, shown_ms: u64) -> u64 {
        (shown_ms * 1_000).div_ceil(self.per_second)
    }
}
