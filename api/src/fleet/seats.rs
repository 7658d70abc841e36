//! Which nodes have a session on this server: one each, the newest registration wins.
//!
//! Not here: the store's record of it.

use super::end::End;
use model::NodeId;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio_util::sync::CancellationToken;

/// Most nodes on one server.
const SEATS_MAX: usize = 4_096;

#[derive(Debug, Default)]
pub(super) struct Seats {
    taken: Mutex<HashMap<NodeId, (u64, CancellationToken)>>,
}

/// A session's place; leaving it is dropping it.
#[derive(Debug)]
pub(super) struct Seat {
    seats: Arc<Seats>,
    node: NodeId,
    epoch: u64,
    /// Cancelled when a newer session takes over.
    pub(super) replaced: CancellationToken,
}

impl Seats {
    fn taken(&self) -> MutexGuard<'_, HashMap<NodeId, (u64, CancellationToken)>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A seat for a node under its `epoch`; an older session of the node ends.
    pub(super) fn take(self: &Arc<Self>, node: &NodeId, epoch: u64) -> Result<Seat, End> {
        let mut taken = self.taken();
        if taken.get(node).is_some_and(|(there, _)| *there > epoch) {
            return Err(End::Replaced);
        }
        if taken.len() >= SEATS_MAX && !taken.contains_key(node) {
            return Err(End::Crowded);
        }
        let replaced = CancellationToken::new();
        if let Some((_, older)) = taken.insert(node.clone(), (epoch, replaced.clone())) {
            older.cancel();
        }
        Ok(Seat {
            seats: self.clone(),
            node: node.clone(),
            epoch,
            replaced,
        })
    }

    /// A session of the node was opened under `epoch`, here or on another server.
    pub(super) fn supersede(&self, node: &NodeId, epoch: u64) {
        if let Some((there, session)) = self.taken().get(node)
            && *there < epoch
        {
            session.cancel();
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken();
        if taken.get(&self.node).is_some_and(|(epoch, _)| *epoch == self.epoch) {
            taken.remove(&self.node);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_registration_has_the_seat() {
        let seats = Arc::new(Seats::default());
        let node = NodeId::new("n1").unwrap();
        let first = seats.take(&node, 1).unwrap();
        let third = seats.take(&node, 3).unwrap();
        assert!(first.replaced.is_cancelled() && !third.replaced.is_cancelled());
        assert!(matches!(seats.take(&node, 2), Err(End::Replaced)));
        drop(first);
        assert_eq!(
            seats.taken().len(),
            1,
            "an older session's end leaves the newer one's seat"
        );
        seats.supersede(&node, 3);
        assert!(!third.replaced.is_cancelled());
        seats.supersede(&node, 4);
        assert!(third.replaced.is_cancelled());
        drop(third);
        assert!(seats.taken().is_empty());
    }

    #[test]
    fn a_full_server_takes_no_further_node_but_lets_its_own_come_back() {
        let seats = Arc::new(Seats::default());
        let node = |i: usize| NodeId::new(format!("n{i}")).unwrap();
        let _held: Vec<Seat> = (0..SEATS_MAX).map(|i| seats.take(&node(i), 1).unwrap()).collect();
        assert!(matches!(seats.take(&node(SEATS_MAX), 1), Err(End::Crowded)));
        assert!(seats.take(&node(0), 2).is_ok());
    }
}
