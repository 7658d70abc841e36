//! Carries out what operators want of nodes: cordon, uncordon, drain, declare gone. Each request
//! becomes the node's eligibility and goes in the same transaction. When a drain's deadline has
//! passed, the node's attempts are told to end.
//!
//! Not here: how a drained attempt goes on ([`crate::fold`]), what becomes of a node that is gone
//! ([`crate::lost`]).

use crate::action::{Action, Expect, Plan};
use crate::cluster::Cluster;
use crate::run::Run;
use model::record::Unknown;
use model::{AllocId, Drain, Eligibility, NodeId, Request, RequestKind, Stop, key};

impl Cluster {
    /// Answers whether anything of this kind is proposed: what is placed meanwhile could land on a
    /// node that is being cordoned.
    pub(crate) fn plan_node_requests(&mut self, plan: &mut Plan, now_ms: u64) -> bool {
        let ids: Vec<String> = self.node_requests.iter().map(|(_, id)| id.clone()).collect();
        for id in ids {
            let action = self.node_request_action(&id, now_ms);
            if action.is_some_and(|action| !self.propose(plan, action)) {
                break;
            }
        }
        !self.busy_nodes.is_empty()
    }

    fn node_request_action(&self, id: &str, now_ms: u64) -> Option<Action> {
        let slot = self.requests.get(id).filter(|_| !self.busy_requests.contains(id))?;
        let request = slot.get()?;
        let node = node_of(&request.what).filter(|node| !self.busy_nodes.contains(node))?;
        // What is known here may be old, and a wish that is struck for nothing is lost: whatever speaks
        // against carrying it out is a guard.
        let drop = |record| Action::DropRequest {
            id: id.to_owned(),
            seen: slot.revision(),
            because: Some((key::node(node), record)),
        };
        let Some(known) = self.nodes.get(node).filter(|n| !n.record.is_absent()) else {
            return Some(drop(Expect::Absent));
        };
        let epoch = known.record.get().map(|r| r.epoch);
        let next = match wanted(request, node, known.eligibility.get(), epoch, now_ms) {
            Wanted::OfAnotherLife => return Some(drop(known.record.expect())),
            Wanted::Nothing => None,
            Wanted::These(next) => Some(next),
        };
        Some(Action::Attend {
            id: id.to_owned(),
            seen: slot.revision(),
            node: node.clone(),
            eligibility: known.eligibility.expect(),
            next,
        })
    }

    /// Attempts on nodes whose drain is over are told to end.
    pub(crate) fn plan_drains(&mut self, plan: &mut Plan, now_ms: u64) {
        for (node, revision) in self.drained_nodes(now_ms) {
            let orders: Vec<AllocId> = self.watchfulness.orders_on(&node).cloned().collect();
            for id in orders {
                let action = self.drain_action(&id, revision);
                if action.is_some_and(|action| !self.propose(plan, action)) {
                    return;
                }
            }
        }
    }

    fn drained_nodes(&self, now_ms: u64) -> Vec<(NodeId, u64)> {
        let settled = self
            .watchfulness
            .draining()
            .iter()
            .filter(|id| !self.busy_nodes.contains(*id));
        let overdue = settled.filter_map(|id| {
            let slot = &self.nodes.get(id)?.eligibility;
            let deadline_ms = slot.get()?.drain.as_ref()?.deadline_ms?;
            (deadline_ms <= now_ms).then(|| (id.clone(), slot.revision()))
        });
        overdue.collect()
    }

    fn drain_action(&self, id: &AllocId, eligibility: u64) -> Option<Action> {
        let slot = &self.allocs.get(id)?.slot;
        let alloc = slot.get().filter(|a| a.stop.is_none())?;
        let Run::Live(run) = self.runs.get(&alloc.run)? else {
            return None;
        };
        let serves = run
            .records
            .get(&alloc.step)
            .is_some_and(|r| r.alloc.as_ref() == Some(id));
        if !serves || run.busy.contains(&alloc.step) || self.cancels.contains_key(&alloc.run) {
            return None;
        }
        let mut alloc = Box::new(alloc.clone());
        alloc.stop = Some(Stop::Drained);
        Some(Action::Stop {
            alloc,
            seen: slot.revision(),
            eligibility: Some(eligibility),
        })
    }
}

fn node_of(what: &RequestKind) -> Option<&NodeId> {
    match what {
        RequestKind::Cancel { .. } | RequestKind::Start { .. } => None,
        RequestKind::Cordon { node }
        | RequestKind::Uncordon { node }
        | RequestKind::Drain { node, .. }
        | RequestKind::ConfirmGone { node, .. } => Some(node),
    }
}

/// What a node's eligibility is to be.
enum Wanted {
    /// The node has registered since: it is not what was meant.
    OfAnotherLife,
    Nothing,
    /// These, which it may hold already.
    These(Box<Eligibility>),
}

fn wanted(request: &Request, node: &NodeId, now: Option<&Eligibility>, epoch: Option<u64>, now_ms: u64) -> Wanted {
    let mut next = Box::new(now.cloned().unwrap_or_else(|| Eligibility {
        node: node.clone(),
        cordoned_by: request.requested_by.clone(),
        since_ms: now_ms,
        drain: None,
        gone_epoch: None,
        unknown: Unknown::new(),
    }));
    match &request.what {
        RequestKind::Uncordon { .. } => return Wanted::Nothing,
        RequestKind::Cordon { .. } | RequestKind::Cancel { .. } | RequestKind::Start { .. } => {}
        RequestKind::Drain { deadline_ms, .. } => {
            next.drain = Some(Drain {
                deadline_ms: *deadline_ms,
            });
        }
        RequestKind::ConfirmGone { node_epoch, .. } if epoch != Some(*node_epoch) => return Wanted::OfAnotherLife,
        RequestKind::ConfirmGone { node_epoch, .. } => next.gone_epoch = Some(*node_epoch),
    }
    Wanted::These(next)
}
