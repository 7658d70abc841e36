//! Which leases are alive and until when, on this process's monotonic clock.
//!
//! Not here: their keys and their durable part, which the writer keeps.

use crate::live::LeaseId;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

#[derive(Debug, Clone, Copy)]
struct Alive {
    ttl_ms: u64,
    until: Instant,
}

impl Alive {
    fn from_now(ttl_ms: u64) -> Self {
        Self {
            ttl_ms,
            until: Instant::now() + Duration::from_millis(ttl_ms),
        }
    }
}

/// The leases that can be renewed. A lease that is taken out can never come back.
#[derive(Debug, Default)]
pub(super) struct LeaseTable {
    alive: BTreeMap<i64, Alive>,
}

impl LeaseTable {
    /// The leases of a store that was just opened: each begins its whole time anew.
    pub(super) fn restarted(leases: &[(i64, u64)]) -> Self {
        Self {
            alive: leases.iter().map(|(id, ttl)| (*id, Alive::from_now(*ttl))).collect(),
        }
    }

    pub(super) fn insert(&mut self, lease: LeaseId, ttl_ms: u64) {
        self.alive.insert(lease.0, Alive::from_now(ttl_ms));
    }

    pub(super) fn remove(&mut self, lease: LeaseId) {
        self.alive.remove(&lease.0);
    }

    pub(super) fn is_alive(&self, lease: LeaseId) -> bool {
        self.alive.get(&lease.0).is_some_and(|l| l.until > Instant::now())
    }

    /// Renews; answers the remaining milliseconds, or `None` for a lease whose time has passed.
    pub(super) fn keep_alive(&mut self, lease: LeaseId) -> Option<u64> {
        let found = self.alive.get_mut(&lease.0).filter(|l| l.until > Instant::now())?;
        *found = Alive::from_now(found.ttl_ms);
        Some(found.ttl_ms)
    }

    /// Takes out the leases whose time has passed.
    pub(super) fn take_expired(&mut self) -> Vec<LeaseId> {
        let now = Instant::now();
        let expired: Vec<i64> = self
            .alive
            .iter()
            .filter(|(_, l)| l.until <= now)
            .map(|(id, _)| *id)
            .collect();
        for id in &expired {
            self.alive.remove(id);
        }
        expired.into_iter().map(LeaseId).collect()
    }

    /// How long until the next one expires if it is not renewed.
    pub(super) fn next_expiry(&self) -> Option<Duration> {
        let soonest = self.alive.values().map(|l| l.until).min()?;
        Some(soonest.saturating_duration_since(Instant::now()))
    }
}
