//! When a node may forget an allocation: its order is gone and its log is whole, in either order.
//!
//! Not here: who folds its end, and the log's offsets.

use model::AllocId;
use std::collections::BTreeSet;

/// The most allocations that are kept in mind for one node: more than it can have.
pub const LEAVING_MAX: usize = 4_096;

/// Allocations that have ended, on their way out. The agent keeps each one's id until it is told to
/// forget it, which is when both its order is gone and its log is whole, in either order.
#[derive(Debug, Default)]
pub struct Leaving {
    /// Of which the agent said that they ended, until their log is whole: never to be forgotten
    /// unasked, for the step may have another attempt by the time they are removed.
    ended: BTreeSet<AllocId>,
    /// Of these the order is gone, their log is not whole yet.
    vanished: BTreeSet<AllocId>,
    /// Of these the log is whole, their order still stands.
    whole: BTreeSet<AllocId>,
}

impl Leaving {
    /// The agent said that it ended.
    pub fn ended(&mut self, alloc: &AllocId) {
        if self.ended.len() < LEAVING_MAX {
            self.ended.insert(alloc.clone());
        }
    }

    /// Its order is gone.
    pub fn vanished(&mut self, alloc: &AllocId) -> Gone {
        if self.whole.remove(alloc) {
            Gone::Finished
        } else if self.ended.contains(alloc) {
            self.vanished.insert(alloc.clone());
            Gone::OwesLog
        } else {
            Gone::Unknown
        }
    }

    /// Its log is whole; true when its order is gone too.
    pub fn whole(&mut self, alloc: &AllocId) -> bool {
        self.ended.remove(alloc);
        let vanished = self.vanished.remove(alloc);
        if !vanished && self.whole.len() < LEAVING_MAX {
            self.whole.insert(alloc.clone());
        }
        vanished
    }
}

/// What is known of an allocation whose order is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gone {
    /// It ended and its log is whole.
    Finished,
    /// It ended and its log is not whole.
    OwesLog,
    /// Its end was not told in this session.
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allocation_is_forgotten_once_its_order_is_gone_and_its_log_is_whole() {
        let alloc = AllocId::new("01jd-0-1-1").expect("legal");
        let mut order_first = Leaving::default();
        order_first.ended(&alloc);
        assert!(matches!(order_first.vanished(&alloc), Gone::OwesLog));
        assert!(order_first.whole(&alloc), "both, the log last");
        let mut log_first = Leaving::default();
        log_first.ended(&alloc);
        assert!(!log_first.whole(&alloc), "its order still stands");
        assert!(matches!(log_first.vanished(&alloc), Gone::Finished));
        assert!(
            matches!(log_first.vanished(&alloc), Gone::Unknown),
            "nothing is kept of it"
        );
    }
}
