//! Which nodes need looking after: those that fell silent while they had orders, those that are
//! drained, those that are known to be gone.
//!
//! Time here is **steady**: milliseconds of a clock that never jumps, told by [`Cluster::tick`] and
//! [`Cluster::begin_term`], and compared with itself alone. What the wall clock says is for records.
//!
//! Not here: what is done about such a node ([`crate::lost`], [`crate::wanted`]).

use crate::cluster::Cluster;
use model::{AllocId, Eligibility, NodeId};
use std::collections::{BTreeMap, BTreeSet};

/// How long a node's agent is believed to be alive, milliseconds; the same for servers and agents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseTimes {
    /// From the sending of a renewal that was confirmed to the moment when the node has ended
    /// everything of its own accord.
    pub lease_ms: u64,
    /// What is waited besides, for clocks that run at different speed.
    pub grace_ms: u64,
}

impl Default for LeaseTimes {
    fn default() -> Self {
        Self {
            lease_ms: 20_000,
            grace_ms: 5_000,
        }
    }
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub(crate) struct Watchfulness {
    pub(crate) lease: LeaseTimes,
    /// The newest steady time.
    pub(crate) steady_ms: u64,
    /// When this server began to lead; `None`: it does not, and gives up nobody.
    term_ms: Option<u64>,
    /// The orders of each node that has any.
    orders: BTreeMap<NodeId, BTreeSet<AllocId>>,
    /// Nodes whose session or orders have changed since the last tick.
    changed: BTreeSet<NodeId>,
    /// Nodes with orders and without a session, and since when.
    silent: BTreeMap<NodeId, u64>,
    draining: BTreeSet<NodeId>,
    gone: BTreeSet<NodeId>,
}

impl Watchfulness {
    /// Something of the node has changed.
    pub(crate) fn mark(&mut self, node: &NodeId) {
        if self.orders.contains_key(node) || self.silent.contains_key(node) {
            self.changed.insert(node.clone());
        }
    }

    pub(crate) fn added(&mut self, node: &NodeId, order: &AllocId) {
        if !self.orders.contains_key(node) {
            self.changed.insert(node.clone());
        }
        self.orders.entry(node.clone()).or_default().insert(order.clone());
    }

    pub(crate) fn removed(&mut self, node: &NodeId, order: &AllocId) {
        let Some(orders) = self.orders.get_mut(node) else {
            return;
        };
        orders.remove(order);
        if orders.is_empty() {
            self.orders.remove(node);
            self.changed.insert(node.clone());
        }
    }

    /// An operator wants something else of the node.
    pub(crate) fn wanted(&mut self, node: &NodeId, eligibility: Option<&Eligibility>) {
        if eligibility.is_some_and(|e| e.drain.is_some()) {
            self.draining.insert(node.clone());
        } else {
            self.draining.remove(node);
        }
        if eligibility.is_some_and(|e| e.gone_epoch.is_some()) {
            self.gone.insert(node.clone());
        } else {
            self.gone.remove(node);
        }
    }

    pub(crate) fn orders_on(&self, node: &NodeId) -> impl Iterator<Item = &AllocId> {
        self.orders.get(node).into_iter().flatten()
    }

    pub(crate) fn draining(&self) -> &BTreeSet<NodeId> {
        &self.draining
    }

    pub(crate) fn gone(&self) -> &BTreeSet<NodeId> {
        &self.gone
    }

    pub(crate) fn silent(&self) -> impl Iterator<Item = &NodeId> {
        self.silent.keys()
    }

    /// When a silent node is given up, in steady time; `None` while it is not silent, or nobody leads here.
    pub(crate) fn lost_at(&self, node: &NodeId) -> Option<u64> {
        let LeaseTimes { lease_ms, grace_ms } = self.lease;
        let after_silence = self.silent.get(node)?.saturating_add(grace_ms);
        let after_takeover = self.term_ms?.saturating_add(lease_ms).saturating_add(grace_ms);
        Some(after_silence.max(after_takeover))
    }
}

impl Cluster {
    /// An empty view of a cluster whose nodes hold leases of these times.
    #[must_use]
    pub fn with_lease(lease: LeaseTimes) -> Self {
        let mut cluster = Self::new();
        cluster.watchfulness.lease = lease;
        cluster
    }

    /// This server leads since `steady_ms`. Nobody is given up before a lease and the grace have
    /// passed from then: what the leader before knew of renewals is not known here.
    pub fn begin_term(&mut self, steady_ms: u64) {
        self.watchfulness.term_ms = Some(steady_ms);
        self.tick(steady_ms);
    }

    /// It is `steady_ms` by the clock that never jumps. Tell it after changes and before
    /// [`Cluster::plan`]: silence is counted from the tick that finds it. An earlier time than the
    /// one before is taken for that one.
    pub fn tick(&mut self, steady_ms: u64) {
        let watch = &mut self.watchfulness;
        watch.steady_ms = watch.steady_ms.max(steady_ms);
        for node in std::mem::take(&mut watch.changed) {
            let has_orders = watch.orders.contains_key(&node);
            let silent = self.nodes.get(&node).is_none_or(|n| n.session.is_absent());
            if has_orders && silent {
                watch.silent.entry(node).or_insert(watch.steady_ms);
            } else {
                watch.silent.remove(&node);
            }
        }
    }

    /// In how many milliseconds something is to be done although nothing changes: a pause before a
    /// retry ends, a silent node is lost, a drain's deadline passes. `None`: nothing is known to
    /// come. Counted from `now_ms` by the wall clock and from the last tick by the steady one.
    #[must_use]
    pub fn next_wake_ms(&self, now_ms: u64) -> Option<u64> {
        let retry = self.waiting.iter().map(|(at, ..)| *at).find(|at| *at > now_ms);
        let deadlines = self
            .watchfulness
            .draining
            .iter()
            .filter_map(|id| self.drain_deadline(id));
        let deadline = deadlines.filter(|at| *at > now_ms).min();
        let by_wall = retry.into_iter().chain(deadline).map(|at| at - now_ms);
        let steady_ms = self.watchfulness.steady_ms;
        let lost = self
            .watchfulness
            .silent()
            .filter_map(|id| self.watchfulness.lost_at(id));
        let by_steady = lost.filter(|at| *at > steady_ms).map(|at| at - steady_ms);
        by_wall.chain(by_steady).min()
    }

    fn drain_deadline(&self, node: &NodeId) -> Option<u64> {
        self.nodes.get(node)?.eligibility.get()?.drain.as_ref()?.deadline_ms
    }
}
