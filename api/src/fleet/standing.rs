//! What a session knows of its node's orders: which stand, and what was filed of each; with it most
//! reports are filed without a question to the store.
//!
//! It may lag behind the store, never the other way round: whatever it lets pass is guarded, and
//! what a guard refuses is judged anew on what the store holds. Not here: that judgement (`api_core::fleet`).

use model::{AllocId, Allocation, Fence, Observed, ObservedState};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use store::{Expect, Revision};

/// What is known of the filed reports of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// Nothing was filed by anybody.
    Nothing,
    /// Another session may have filed something.
    Unsure,
    /// This was filed, then.
    Filed(ObservedState, Revision),
}

/// What a step's log lines carry: the request that caused its run, and its trace.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Cause {
    pub(super) request_id: String,
    pub(super) trace_id: String,
}

#[derive(Debug)]
struct Stand {
    fence: Fence,
    known: Known,
    /// Nobody can have stored anything of its log: only this session's stream brought its order to
    /// the node, and has not brought its log yet.
    log_is_new: bool,
    cause: Arc<Cause>,
}

/// How a report is dealt with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Quick {
    /// As much or more is filed.
    Known,
    /// It is news if what was filed is as expected.
    File(Expect),
    /// The store has to be read.
    Read,
}

/// The orders of one node that stand.
#[derive(Debug, Default)]
pub(super) struct Standing {
    orders: Mutex<HashMap<AllocId, Stand>>,
}

impl Standing {
    fn orders(&self) -> MutexGuard<'_, HashMap<AllocId, Stand>> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The order stands; with `held` an earlier session may have filed something of it.
    pub(super) fn order(&self, allocation: &Allocation, held: bool) {
        let known = if held { Known::Unsure } else { Known::Nothing };
        self.orders().entry(allocation.id.clone()).or_insert_with(|| Stand {
            fence: allocation.fence,
            known,
            log_is_new: !held,
            cause: Arc::default(),
        });
    }

    /// What caused the order's run.
    pub(super) fn caused(&self, alloc: &AllocId, cause: Cause) {
        if let Some(stand) = self.orders().get_mut(alloc) {
            stand.cause = Arc::new(cause);
        }
    }

    /// What caused the order's run; empty when it does not stand.
    pub(super) fn cause(&self, alloc: &AllocId) -> Arc<Cause> {
        let orders = self.orders();
        orders.get(alloc).map(|stand| stand.cause.clone()).unwrap_or_default()
    }

    /// The order is gone.
    pub(super) fn vanished(&self, alloc: &AllocId) {
        self.orders().remove(alloc);
    }

    /// This much was found to be filed of the order, or was filed now.
    pub(super) fn filed(&self, alloc: &AllocId, state: ObservedState, revision: Revision) {
        if let Some(stand) = self.orders().get_mut(alloc) {
            stand.known = Known::Filed(state, revision);
        }
    }

    /// True when the order stands.
    pub(super) fn stands(&self, alloc: &AllocId) -> bool {
        self.orders().contains_key(alloc)
    }

    /// True, once, when nobody can have stored anything of the order's log.
    pub(super) fn takes_new_log(&self, alloc: &AllocId) -> bool {
        let mut orders = self.orders();
        orders
            .get_mut(alloc)
            .is_some_and(|stand| std::mem::take(&mut stand.log_is_new))
    }

    /// How a report is dealt with.
    pub(super) fn quick(&self, report: &Observed) -> Quick {
        let orders = self.orders();
        let Some(stand) = orders.get(&report.alloc).filter(|s| s.fence == report.fence) else {
            return Quick::Read;
        };
        match stand.known {
            Known::Unsure => Quick::Read,
            Known::Nothing => Quick::File(Expect::Absent),
            Known::Filed(state, _) if state >= report.state => Quick::Known,
            Known::Filed(_, revision) => Quick::File(Expect::Revision(revision)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::allocation;
    use super::super::report::tests::observed;
    use super::*;
    use ObservedState::{Ended, Preparing, Running};

    #[test]
    fn a_log_is_new_once_and_never_if_an_earlier_session_may_have_written_it() {
        let standing = Standing::default();
        let (fresh, held) = (allocation(0, 1), allocation(0, 2));
        assert!(!standing.takes_new_log(&fresh.id), "no order");
        standing.order(&fresh, false);
        standing.order(&held, true);
        assert!(standing.takes_new_log(&fresh.id));
        standing.order(&fresh, false);
        assert!(!standing.takes_new_log(&fresh.id), "opened before");
        assert!(!standing.takes_new_log(&held.id));
    }

    #[test]
    fn only_what_is_known_for_sure_needs_no_reading() {
        let standing = Standing::default();
        assert_eq!(standing.quick(&observed(1, Running)), Quick::Read, "no order");
        standing.order(&allocation(0, 1), false);
        assert_eq!(standing.quick(&observed(1, Running)), Quick::File(Expect::Absent));
        standing.filed(&observed(1, Running).alloc, Running, Revision(7));
        standing.order(&allocation(0, 1), false);
        for (state, quick) in [
            (Preparing, Quick::Known),
            (Running, Quick::Known),
            (Ended, Quick::File(Expect::Revision(Revision(7)))),
        ] {
            assert_eq!(standing.quick(&observed(1, state)), quick, "{state:?}");
        }
        let mut forged = observed(1, Ended);
        forged.fence.epoch = 9;
        assert_eq!(standing.quick(&forged), Quick::Read, "another fence");
        standing.vanished(&observed(1, Running).alloc);
        assert_eq!(standing.quick(&observed(1, Ended)), Quick::Read);
        standing.order(&allocation(0, 2), true);
        assert_eq!(standing.quick(&observed(2, Ended)), Quick::Read, "held from before");
    }
}
