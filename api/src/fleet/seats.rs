//! Which nodes have a session on this server: one each, the newest registration wins.
//!
//! Not here: the store's record of it.

use super::end::End;
use model::NodeId;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use store::Revision;
use tokio_util::sync::CancellationToken;

/// Most nodes on one server.
const SEATS_MAX: usize = 4_096;

#[derive(Debug, Default)]
pub(super) struct Seats {
    taken: Mutex<HashMap<NodeId, Taken>>,
}

#[derive(Debug)]
struct Taken {
    epoch: u64,
    /// Of the session's record as it was written at the registration.
    registered: Revision,
    /// When the certificate ends with which it came, seconds of the Unix epoch.
    until_s: Option<u64>,
    replaced: CancellationToken,
    lapsed: CancellationToken,
}

/// A session's place; leaving it is dropping it.
#[derive(Debug)]
pub(super) struct Seat {
    seats: Arc<Seats>,
    node: NodeId,
    epoch: u64,
    /// Cancelled when a newer session takes over.
    pub(super) replaced: CancellationToken,
    /// Cancelled when the session's record is gone from the store although the stream lives.
    pub(super) lapsed: CancellationToken,
}

impl Seats {
    fn taken(&self) -> MutexGuard<'_, HashMap<NodeId, Taken>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A seat for a node under its `epoch`, whose record was written at `registered`; an older
    /// session of the node ends.
    pub(super) fn take(
        self: &Arc<Self>,
        node: &NodeId,
        epoch: u64,
        registered: Revision,
        until_s: Option<u64>,
    ) -> Result<Seat, End> {
        let mut taken = self.taken();
        if taken.get(node).is_some_and(|there| there.epoch > epoch) {
            return Err(End::Replaced);
        }
        if taken.len() >= SEATS_MAX && !taken.contains_key(node) {
            return Err(End::Crowded);
        }
        let (replaced, lapsed) = (CancellationToken::new(), CancellationToken::new());
        let entry = Taken {
            epoch,
            registered,
            until_s,
            replaced: replaced.clone(),
            lapsed: lapsed.clone(),
        };
        if let Some(older) = taken.insert(node.clone(), entry) {
            older.replaced.cancel();
        }
        Ok(Seat {
            seats: self.clone(),
            node: node.clone(),
            epoch,
            replaced,
            lapsed,
        })
    }

    /// When the first certificate of those that sit here ends, seconds of the Unix epoch.
    pub(super) fn first_end_s(&self) -> Option<u64> {
        self.taken().values().filter_map(|there| there.until_s).min()
    }

    /// The node has got a certificate until then: its stream is opened anew in time.
    pub(super) fn renewed(&self, node: &NodeId, until_s: u64) {
        if let Some(there) = self.taken().get_mut(node) {
            there.until_s = Some(until_s);
        }
    }

    /// A session of the node was opened under `epoch`, here or on another server.
    pub(super) fn supersede(&self, node: &NodeId, epoch: u64) {
        if let Some(there) = self.taken().get(node)
            && there.epoch < epoch
        {
            there.replaced.cancel();
        }
    }

    /// The record of the node's session went at `revision`: its lease has run out. An etcd whose
    /// leader was paused may even take back a lease that was renewed (etcd issue 15247), and the
    /// scheduler gives a node up soon after, so the agent is to register again at once and not
    /// only at its next renewal.
    pub(super) fn lapse(&self, node: &NodeId, revision: Revision) {
        if let Some(there) = self.taken().get(node)
            && there.registered < revision
        {
            there.lapsed.cancel();
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken();
        if taken.get(&self.node).is_some_and(|there| there.epoch == self.epoch) {
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
        let first = seats.take(&node, 1, Revision(10), None).unwrap();
        let third = seats.take(&node, 3, Revision(30), None).unwrap();
        assert!(first.replaced.is_cancelled() && !third.replaced.is_cancelled());
        assert!(matches!(seats.take(&node, 2, Revision(20), None), Err(End::Replaced)));
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
    fn a_session_whose_record_goes_later_than_it_came_has_lapsed() {
        let seats = Arc::new(Seats::default());
        let node = NodeId::new("n1").unwrap();
        let seat = seats.take(&node, 1, Revision(10), None).unwrap();
        seats.lapse(&node, Revision(9));
        assert!(!seat.lapsed.is_cancelled(), "an earlier session's record");
        seats.lapse(&node, Revision(11));
        assert!(seat.lapsed.is_cancelled() && !seat.replaced.is_cancelled());
    }

    #[test]
    fn the_first_certificate_to_end_is_known() {
        let seats = Arc::new(Seats::default());
        let node = |name: &str| NodeId::new(name).unwrap();
        assert_eq!(seats.first_end_s(), None);
        let sit = |name: &str, until_s| seats.take(&node(name), 1, Revision(1), until_s).unwrap();
        let (_a, b, _c) = (sit("a", Some(500)), sit("b", Some(300)), sit("c", None));
        assert_eq!(seats.first_end_s(), Some(300));
        seats.renewed(&node("b"), 900);
        assert_eq!(seats.first_end_s(), Some(500));
        seats.renewed(&node("a"), 1_000);
        drop(b);
        assert_eq!(seats.first_end_s(), Some(1_000));
    }

    #[test]
    fn a_full_server_takes_no_further_node_but_lets_its_own_come_back() {
        let seats = Arc::new(Seats::default());
        let node = |i: usize| NodeId::new(format!("n{i}")).unwrap();
        let _held: Vec<Seat> = (0..SEATS_MAX)
            .map(|i| seats.take(&node(i), 1, Revision(1), None).unwrap())
            .collect();
        assert!(matches!(
            seats.take(&node(SEATS_MAX), 1, Revision(1), None),
            Err(End::Crowded)
        ));
        assert!(seats.take(&node(0), 2, Revision(2), None).is_ok());
    }
}
