//! What a step asks for and a node has: CPU, memory, disk, process slots.

use serde::{Deserialize, Serialize};

/// CPU in thousandths of a core.
pub type CpuMillis = u64;

/// An amount of each resource that is packed onto nodes; all integers, so that sums are exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Resources {
    /// Thousandths of a core.
    pub cpu_millis: CpuMillis,
    /// Bytes of memory, the page cache and tmpfs of the step included.
    pub memory_bytes: u64,
    /// Bytes of the writable layer.
    pub disk_bytes: u64,
}

impl Resources {
    /// True when `self` holds at least `ask` of every resource.
    #[must_use]
    pub fn fits(&self, ask: &Self) -> bool {
        self.cpu_millis >= ask.cpu_millis && self.memory_bytes >= ask.memory_bytes && self.disk_bytes >= ask.disk_bytes
    }

    /// `self + other`, or `None` on overflow of any part.
    #[must_use]
    pub fn checked_add(&self, other: &Self) -> Option<Self> {
        Some(Self {
            cpu_millis: self.cpu_millis.checked_add(other.cpu_millis)?,
            memory_bytes: self.memory_bytes.checked_add(other.memory_bytes)?,
            disk_bytes: self.disk_bytes.checked_add(other.disk_bytes)?,
        })
    }

    /// `self - other`, or `None` if any part would fall below zero.
    #[must_use]
    pub fn checked_sub(&self, other: &Self) -> Option<Self> {
        Some(Self {
            cpu_millis: self.cpu_millis.checked_sub(other.cpu_millis)?,
            memory_bytes: self.memory_bytes.checked_sub(other.memory_bytes)?,
            disk_bytes: self.disk_bytes.checked_sub(other.disk_bytes)?,
        })
    }
}
