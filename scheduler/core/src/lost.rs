//! Gives up the orders of nodes that are lost: each attempt ends as lost, in a transaction that
//! proves that the node has neither come back nor reported since.
//!
//! A session's lease is never revoked, so an absent session means that the node's lease has run out
//! and that its agent has ended everything. The wait beyond it is for clocks that run at different
//! speed. A node that an operator declared gone is not waited for.
//!
//! Not here: when a node is lost ([`crate::watchfulness`]), what becomes of its steps ([`crate::fold`]).

use crate::action::{Action, Expect, Plan, SeenNode};
use crate::cluster::Cluster;
use crate::fold::{Folded, Policy, lose};
use crate::node::Node;
use crate::run::{Definition, LiveRun, Run};
use crate::slot::Slot;
use model::{AllocId, Allocation, NodeId, Observed, ObservedState, RunId};

impl Cluster {
    pub(crate) fn plan_lost(&mut self, plan: &mut Plan, now_ms: u64) {
        for (node, seen, why) in self.lost_nodes() {
            let orders: Vec<AllocId> = self.watchfulness.orders_on(&node).cloned().collect();
            for id in orders {
                let action = self.lose_action(&id, &seen, &why, now_ms);
                if action.is_some_and(|action| !self.propose(plan, action)) {
                    return;
                }
            }
        }
    }

    /// The nodes that are lost now, with what says so and why, for people.
    fn lost_nodes(&self) -> Vec<(NodeId, SeenNode, String)> {
        let watch = &self.watchfulness;
        let known = |id: &NodeId| self.nodes.get(id).filter(|_| !self.busy_nodes.contains(id)).cloned();
        let gone = watch.gone().iter().filter_map(|id| {
            let node = known(id).filter(is_known_to_be_gone)?;
            let eligibility = Some(node.eligibility.revision());
            let why = format!(
                "an operator declared that its node, {}, is gone",
                node_name(Some(&node), id)
            );
            Some((id.clone(), seen(&node, eligibility), why))
        });
        let due = |id: &&NodeId| watch.lost_at(id).is_some_and(|at| at <= watch.steady_ms);
        let silent = watch.silent().filter(due).filter_map(|id| {
            let node = known(id).filter(|n| n.session.is_absent())?;
            let why = format!(
                "its node, {}, fell silent and its lease has run out",
                node_name(Some(&node), id)
            );
            Some((id.clone(), seen(&node, None), why))
        });
        gone.chain(silent).collect()
    }

    fn lose_action(&self, id: &AllocId, node: &SeenNode, why: &str, now_ms: u64) -> Option<Action> {
        let alloc = self.allocs.get(id)?.slot.get()?;
        let Run::Live(run) = self.runs.get(&alloc.run)? else {
            return None;
        };
        let record = run
            .records
            .get(&alloc.step)
            .filter(|_| !run.busy.contains(&alloc.step))?;
        let report = self.reports.get(id);
        if report.and_then(Slot::get).is_some_and(|r| says_the_end(r, alloc)) {
            // What it did is known: it counts, whatever became of the node.
            return None;
        }
        let policy = self.policy(&alloc.run, run, alloc)?;
        let Folded::Changed(next) = lose(record, alloc, policy, why.to_owned(), now_ms) else {
            return None;
        };
        Some(Action::Lose {
            write: self.step_write(&alloc.run, run, alloc.step, record.status, *next),
            alloc: self.seen_alloc(id)?,
            observed: report.map_or(Expect::Absent, Slot::expect),
            node: node.clone(),
        })
    }

    /// What may become of an attempt; `None` until the definition is known.
    pub(crate) fn policy<'a>(&'a self, id: &RunId, run: &'a LiveRun, alloc: &'a Allocation) -> Option<Policy<'a>> {
        let def = match &run.definition {
            Definition::Incomplete => return None,
            Definition::Ready { def, .. } => def.steps.get(alloc.step),
            Definition::Damaged(_) => None,
        };
        Some(Policy {
            retry: def.map(|d| &d.retry),
            idempotent: def.is_some_and(|d| d.idempotent),
            cancelled: self.cancels.contains_key(id),
            node: node_name(self.nodes.get(&alloc.node), &alloc.node),
        })
    }
}

fn says_the_end(report: &Observed, alloc: &Allocation) -> bool {
    report.state == ObservedState::Ended && report.fence == alloc.fence
}

fn seen(node: &Node, eligibility: Option<u64>) -> SeenNode {
    SeenNode {
        record: node.record.expect(),
        session: node.session.expect(),
        eligibility,
    }
}

/// The registration that was declared gone is the newest one, and no stream belies it.
fn is_known_to_be_gone(node: &Node) -> bool {
    let epoch = node.eligibility.get().and_then(|e| e.gone_epoch);
    let same = node.record.get().is_some_and(|r| Some(r.epoch) == epoch);
    let connected = node.session.get().is_some_and(|s| s.connected) || node.session.is_malformed();
    same && !connected
}

/// The host's name, for people.
pub(crate) fn node_name<'a>(node: Option<&'a Node>, id: &'a NodeId) -> &'a str {
    node.and_then(|n| n.record.get())
        .map_or(id.as_str(), |r| r.name.as_str())
}
