//! What the scheduler may do: a closed list. Each action carries what it saw, so that its guards
//! follow from it, and what it writes.
//!
//! Not here: whether an action is wise ([`crate::plan`]), what it does to the view
//! ([`crate::settle`]), and the store's own types: the shell maps a [`Change`] onto them one to one.

use model::{AllocId, Allocation, Eligibility, Fence, NodeId, RunId, StepRecord, StepStatus, key};
use std::sync::Arc;

/// What a guard demands of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// No such key.
    Absent,
    /// The key is there.
    Present,
    /// The key was last written at this revision.
    Revision(u64),
}

/// A write of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Sets the value.
    Put {
        /// Which key.
        key: String,
        /// The encoded record.
        value: Vec<u8>,
    },
    /// Removes the key.
    Delete {
        /// Which key.
        key: String,
    },
}

/// One guarded transaction: applied whole or not at all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Change {
    /// All must hold.
    pub guards: Vec<(String, Expect)>,
    /// Applied together.
    pub writes: Vec<Write>,
}

impl Change {
    fn guard(mut self, key: String, expect: Expect) -> Self {
        self.guards.push((key, expect));
        self
    }

    /// The step's key is as it was seen. A step that has no record is given its first one only in a run
    /// that is there: one that has been archived since has left no keys behind, and no records either.
    fn guard_step(self, write: &StepWrite) -> Self {
        let change = self.guard(write.key(), write.seen);
        match write.seen {
            Expect::Absent => change.guard(key::run(&write.run), Expect::Present),
            Expect::Present | Expect::Revision(_) => change,
        }
    }

    fn guard_eligibility(self, node: &NodeId, seen: Option<u64>) -> Self {
        match seen {
            Some(revision) => self.guard(key::eligibility(node), Expect::Revision(revision)),
            None => self,
        }
    }

    fn put<R: model::Record>(mut self, key: String, record: &R) -> Self {
        let value = model::encode(record);
        self.writes.push(Write::Put { key, value });
        self
    }

    fn delete(mut self, key: String) -> Self {
        self.writes.push(Write::Delete { key });
        self
    }
}

/// Names a proposal until it is confirmed or refused. Never repeats within one view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// A step's new record and what its key held when it was decided.
#[derive(Debug, Clone, PartialEq)]
pub struct StepWrite {
    /// Of which run.
    pub run: RunId,
    /// Which step.
    pub step: usize,
    /// The step's name.
    pub name: String,
    /// The status before.
    pub from: StepStatus,
    /// What is written.
    pub record: StepRecord,
    /// What the step's key held.
    pub seen: Expect,
}

impl StepWrite {
    fn key(&self) -> String {
        key::step(&self.run, self.step)
    }

    /// The attempt is over with this write: the step has ended or goes back to the queue, and the
    /// attempt's order and report go in the same transaction.
    #[must_use]
    pub fn ends_attempt(&self) -> bool {
        !matches!(self.record.status, StepStatus::Assigned | StepStatus::Running)
    }
}

/// An allocation's key as it was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenAlloc {
    /// Its node.
    pub node: NodeId,
    /// Its id.
    pub alloc: AllocId,
    /// What its key held.
    pub seen: Expect,
}

/// What the keys of a lost node held when it was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenNode {
    /// Its record: a registration since then keeps its orders.
    pub record: Expect,
    /// Its session, absent or not connected.
    pub session: Expect,
    /// Its eligibility, when that says that it is gone.
    pub eligibility: Option<u64>,
}

/// A proposal of the scheduler.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// A report is folded into its step; when the attempt has ended, the order and the report go.
    Fold {
        /// The step's new record.
        write: StepWrite,
        /// The order.
        alloc: SeenAlloc,
        /// The revision of the report.
        observed_revision: u64,
    },
    /// The attempt is given up with its node: the step goes back to the queue or ends, and the
    /// order goes with what was reported of it.
    Lose {
        /// The step's new record.
        write: StepWrite,
        /// The order.
        alloc: SeenAlloc,
        /// What the key of the report held.
        observed: Expect,
        /// The node.
        node: SeenNode,
    },
    /// A step that can never start gets its final status: skipped, or cancelled with its run.
    End(StepWrite),
    /// An attempt is told to end early.
    Stop {
        /// The order, with `stop` set.
        alloc: Box<Allocation>,
        /// The revision of the order.
        seen: u64,
        /// The revision of the node's eligibility, when a drain is the reason.
        eligibility: Option<u64>,
    },
    /// What is wanted of a node is written down, and the request removed.
    Attend {
        /// The request's id.
        id: String,
        /// The revision of the request.
        seen: u64,
        /// Which node.
        node: NodeId,
        /// What the key of its eligibility held.
        eligibility: Expect,
        /// What it will hold; `None`: nothing, the node takes steps.
        next: Option<Box<Eligibility>>,
    },
    /// A step gets an allocation.
    Place {
        /// The step's new record.
        write: StepWrite,
        /// The order.
        alloc: Box<Allocation>,
        /// The revision of the node's record.
        node_revision: u64,
        /// The revision of the node's session.
        session_revision: u64,
    },
    /// A step that waited for a person may be placed, and the request is removed.
    Start {
        /// The step's new record.
        write: StepWrite,
        /// The request's id.
        id: String,
        /// The revision of the request.
        seen: u64,
    },
    /// A request has been carried out, or what it is about does not exist.
    DropRequest {
        /// Its id.
        id: String,
        /// The revision of the request.
        seen: u64,
        /// What has to hold of the run or node that it is about, for the view may be old.
        because: Option<(String, Expect)>,
    },
    /// An order or a report that no step stands behind is removed.
    Clean {
        /// The step that would stand behind it.
        run: RunId,
        /// Its ordinal.
        step: usize,
        /// What the step's key held; `None`: the whole run is gone.
        step_seen: Option<Expect>,
        /// The order to remove.
        alloc: Option<SeenAlloc>,
        /// The report to remove.
        observed: Option<(AllocId, u64)>,
        /// Why.
        reason: &'static str,
    },
}

impl Action {
    /// The guarded transaction that carries it out.
    #[must_use]
    pub fn change(&self) -> Change {
        let change = Change::default();
        match self {
            Self::Fold {
                write,
                alloc,
                observed_revision,
            } => fold(change, write, alloc, *observed_revision),
            Self::Lose {
                write,
                alloc,
                observed,
                node,
            } => lose(change, write, alloc, *observed, node),
            Self::End(write) => change.guard_step(write).put(write.key(), &write.record),
            Self::Stop {
                alloc,
                seen,
                eligibility,
            } => {
                let key = key::alloc(&alloc.node, &alloc.id);
                change
                    .guard(key.clone(), Expect::Revision(*seen))
                    .guard_eligibility(&alloc.node, *eligibility)
                    .put(key, &**alloc)
            }
            Self::Attend {
                id,
                seen,
                node,
                eligibility,
                next,
            } => {
                let request = key::request(id);
                let change = change.guard(request.clone(), Expect::Revision(*seen)).delete(request);
                attend(change, node, *eligibility, next.as_deref())
            }
            Self::Place {
                write,
                alloc,
                node_revision,
                session_revision,
            } => place(change, write, alloc, (*node_revision, *session_revision)),
            Self::Start { write, id, seen } => start(change, write, key::request(id), *seen),
            Self::DropRequest { id, seen, because } => {
                let key = key::request(id);
                let change = change.guard(key.clone(), Expect::Revision(*seen)).delete(key);
                match because {
                    Some((key, expect)) => change.guard(key.clone(), *expect),
                    None => change,
                }
            }
            Self::Clean {
                run,
                step,
                step_seen,
                alloc,
                observed,
                ..
            } => {
                let guarded = match step_seen {
                    Some(seen) => change.guard(key::step(run, *step), *seen),
                    None => change.guard(key::run(run), Expect::Absent),
                };
                clean(guarded, alloc.as_ref(), observed.as_ref())
            }
        }
    }

    /// The step that it changes, if it changes one.
    #[must_use]
    pub fn step(&self) -> Option<(&RunId, usize)> {
        match self {
            Self::Fold { write, .. }
            | Self::Lose { write, .. }
            | Self::End(write)
            | Self::Start { write, .. }
            | Self::Place { write, .. } => Some((&write.run, write.step)),
            Self::Stop { alloc, .. } => Some((&alloc.run, alloc.step)),
            Self::Clean { run, step, .. } => Some((run, *step)),
            Self::Attend { .. } | Self::DropRequest { .. } => None,
        }
    }
}

fn fold(change: Change, write: &StepWrite, alloc: &SeenAlloc, observed: u64) -> Change {
    let (alloc_key, observed_key) = (key::alloc(&alloc.node, &alloc.alloc), key::observed(&alloc.alloc));
    // A report only grows: that a step has begun stays true when its end is reported meanwhile, and
    // that end is folded next. Only what removes the report must have seen the last of it.
    let reported = if write.ends_attempt() {
        Expect::Revision(observed)
    } else {
        Expect::Present
    };
    let change = change
        .guard_step(write)
        .guard(alloc_key.clone(), alloc.seen)
        .guard(observed_key.clone(), reported)
        .put(write.key(), &write.record);
    if write.ends_attempt() {
        change.delete(alloc_key).delete(observed_key)
    } else {
        change
    }
}

fn attend(change: Change, node: &NodeId, seen: Expect, next: Option<&Eligibility>) -> Change {
    let key = key::eligibility(node);
    let change = change.guard(key.clone(), seen);
    match next {
        Some(next) => change.put(key, next),
        None => change.delete(key),
    }
}

fn place(change: Change, write: &StepWrite, alloc: &Allocation, (node, session): (u64, u64)) -> Change {
    change
        .guard_step(write)
        .guard(key::node(&alloc.node), Expect::Revision(node))
        .guard(key::session(&alloc.node), Expect::Revision(session))
        .put(write.key(), &write.record)
        .put(key::alloc(&alloc.node, &alloc.id), alloc)
}

fn start(change: Change, write: &StepWrite, request: String, seen: u64) -> Change {
    change
        .guard_step(write)
        .guard(request.clone(), Expect::Revision(seen))
        .put(write.key(), &write.record)
        .delete(request)
}

fn lose(change: Change, write: &StepWrite, alloc: &SeenAlloc, observed: Expect, node: &SeenNode) -> Change {
    let (alloc_key, observed_key) = (key::alloc(&alloc.node, &alloc.alloc), key::observed(&alloc.alloc));
    let change = change
        .guard_step(write)
        .guard(alloc_key.clone(), alloc.seen)
        .guard(observed_key.clone(), observed)
        .guard(key::node(&alloc.node), node.record)
        .guard(key::session(&alloc.node), node.session)
        .guard_eligibility(&alloc.node, node.eligibility)
        .put(write.key(), &write.record)
        .delete(alloc_key);
    if observed == Expect::Absent {
        change
    } else {
        change.delete(observed_key)
    }
}

fn clean(change: Change, alloc: Option<&SeenAlloc>, observed: Option<&(AllocId, u64)>) -> Change {
    let change = match alloc {
        Some(alloc) => {
            let key = key::alloc(&alloc.node, &alloc.alloc);
            change.guard(key.clone(), alloc.seen).delete(key)
        }
        None => change,
    };
    match observed {
        Some((alloc, revision)) => {
            let key = key::observed(alloc);
            change.guard(key.clone(), Expect::Revision(*revision)).delete(key)
        }
        None => change,
    }
}

/// An action that waits for its answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Proposal {
    /// Its name.
    pub ticket: Ticket,
    /// What is proposed.
    pub action: Arc<Action>,
}

/// What the scheduler wants to do now. Everything in it is reserved in the view until it is
/// confirmed or refused.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Plan {
    /// At most [`crate::PLAN_ACTIONS_MAX`].
    pub proposals: Vec<Proposal>,
    /// There is more to do than one plan holds: plan again at once.
    pub more: bool,
}

/// A proposal that stood up to the newest view.
#[derive(Debug, Clone, PartialEq)]
pub struct Verified {
    /// Its name.
    pub ticket: Ticket,
    /// To be committed under the leader's own key.
    pub change: Change,
}

/// A proposal that the newest view refuses. Its reservation is already dropped.
#[derive(Debug, Clone, PartialEq)]
pub struct Refused {
    /// Its name.
    pub ticket: Ticket,
    /// Why.
    pub refusal: Refusal,
}

/// Why the newest view refuses a proposal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The step was written since.
    #[error("step {step} of run {run} has changed")]
    StepChanged {
        /// Of which run.
        run: RunId,
        /// Which step.
        step: usize,
    },
    /// The order was written or removed since.
    #[error("allocation {0} has changed")]
    AllocChanged(AllocId),
    /// The report was written or removed since.
    #[error("the report of allocation {0} has changed")]
    ReportChanged(AllocId),
    /// The node registered anew, came back, lost its session, or something else is wanted of it.
    #[error("node {0} has changed")]
    NodeChanged(NodeId),
    /// The node no longer has the room.
    #[error("node {0} no longer has the room")]
    NodeFull(NodeId),
    /// The request was removed since.
    #[error("request {0} has changed")]
    RequestChanged(String),
    /// The run was cancelled since.
    #[error("run {0} is being cancelled")]
    RunCancelled(RunId),
    /// There is no such proposal (any more).
    #[error("proposal {0} is not in flight")]
    Unknown(u64),
}

/// A step's move from one status to another, committed: one log line each.
#[derive(Debug, Clone, PartialEq)]
pub struct Transition {
    /// Of which run.
    pub run: RunId,
    /// Which step.
    pub step: usize,
    /// The step's name.
    pub name: String,
    /// The status before.
    pub from: StepStatus,
    /// The status after.
    pub to: StepStatus,
    /// The ordinal of the newest try.
    pub attempt: u32,
    /// Of the newest allocation.
    pub fence: Fence,
    /// The newest allocation.
    pub alloc: Option<AllocId>,
    /// Its node.
    pub node: Option<NodeId>,
    /// Why.
    pub reason: Option<String>,
    /// For a step that was placed: how long it was ready before, milliseconds.
    pub waited_ms: Option<u64>,
}
