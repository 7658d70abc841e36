//! Reports into the store: each guarded by its allocation and by what was filed before, many in one
//! round trip.
//!
//! Not here: the judgement (`api_core::fleet`), waiting and answering (`desk`).

use api_core::fleet::{Held, Verdict, is_folded, judge};
use futures::future::try_join_all;
use model::{AllocId, Allocation, NodeId, Observed, ObservedState, Outcome, Record, StartFailure, StepRecord, key};
use store::{Commit, Entry, Expect, Revision, Store, StoreError, Txn};

/// How often a report is judged anew when its keys change meanwhile. The node sends it again.
const TRIES_MAX: usize = 4;

/// What became of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Filed {
    /// It stands, or as much as it says.
    Accepted(Verdict),
    /// Its allocation does not.
    Refused,
    /// It is not known; the node asks again.
    Undecided,
}

/// A report's result, and what the store holds of its allocation's reports now, as far as that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Looked {
    pub(super) filed: Filed,
    pub(super) stored: Option<(ObservedState, Revision)>,
}

/// The transaction that files a report of this node, if what was filed before is as expected.
pub(super) fn txn(node: &NodeId, report: &Observed, before: Expect) -> Txn {
    let observed_key = key::observed(&report.alloc);
    Txn::new()
        .expect(key::alloc(node, &report.alloc), Expect::Present)
        .expect(observed_key.clone(), before)
        .put(observed_key, report)
}

/// Files reports on what the store holds now, each of another allocation; answers one result for
/// each, in order.
pub(super) async fn file(store: &dyn Store, reports: &[(&NodeId, &Observed)]) -> Result<Vec<Looked>, StoreError> {
    let unknown = Looked {
        filed: Filed::Undecided,
        stored: None,
    };
    let mut results = vec![unknown; reports.len()];
    let mut open: Vec<usize> = (0..reports.len()).collect();
    for _ in 0..TRIES_MAX {
        let examined = open.iter().map(|&i| examine(store, reports[i].0, reports[i].1));
        let examined = try_join_all(examined).await?;
        let (mut txns, mut filing) = (Vec::new(), Vec::new());
        for (&index, Examined { verdict, txn, stored }) in open.iter().zip(examined) {
            results[index].stored = stored;
            match (verdict, txn) {
                (Verdict::File, Some(txn)) => {
                    txns.push(txn);
                    filing.push(index);
                }
                (Verdict::Refused, _) => results[index].filed = Filed::Refused,
                (verdict, _) => results[index].filed = Filed::Accepted(verdict),
            }
        }
        if txns.is_empty() {
            return Ok(results);
        }
        let commits = store.commit_batch(Vec::new(), txns).await?;
        open.clear();
        for (index, commit) in filing.into_iter().zip(commits) {
            match commit {
                Commit::Applied(revision) => {
                    results[index].filed = Filed::Accepted(Verdict::File);
                    results[index].stored = Some((reports[index].1.state, revision));
                }
                Commit::Refused { .. } => open.push(index),
            }
        }
        if open.is_empty() {
            return Ok(results);
        }
    }
    Ok(results)
}

struct Examined {
    verdict: Verdict,
    /// If it is to be filed.
    txn: Option<Txn>,
    stored: Option<(ObservedState, Revision)>,
}

/// Judges a report on what the store holds now.
async fn examine(store: &dyn Store, node: &NodeId, report: &Observed) -> Result<Examined, StoreError> {
    // Filed before the order: the leader removes both at once, so an order that is read after its
    // observation cannot be older than it.
    let filed_entry = store.get(&key::observed(&report.alloc)).await?;
    let order_entry = store.get(&key::alloc(node, &report.alloc)).await?;
    let order: Option<Allocation> = decoded(order_entry.as_ref());
    let filed: Option<Observed> = decoded(filed_entry.as_ref());
    let step = match order_entry {
        Some(_) => None,
        None => step_of(store, &report.alloc).await?,
    };
    let held = Held {
        order: order.as_ref(),
        filed: filed.as_ref(),
        step: step.as_ref(),
    };
    let verdict = judge(report, &held);
    let revision = filed_entry.map(|e| e.mod_revision);
    let before = revision.map_or(Expect::Absent, Expect::Revision);
    Ok(Examined {
        verdict,
        txn: (verdict == Verdict::File).then(|| txn(node, report, before)),
        stored: filed.map(|f| f.state).zip(revision),
    })
}

/// A record that does not decode counts as absent: a report of what a newer release ordered is
/// refused, and one in the place of a damaged report is filed.
fn decoded<R: Record>(entry: Option<&Entry>) -> Option<R> {
    let entry = entry?;
    entry
        .decode()
        .inspect_err(|error| tracing::error!(key = entry.key, %error, "record does not decode"))
        .ok()
}

async fn step_of(store: &dyn Store, alloc: &AllocId) -> Result<Option<StepRecord>, StoreError> {
    let Some((run, step, _)) = alloc.parts() else {
        return Ok(None);
    };
    Ok(decoded(store.get(&key::step(&run, step)).await?.as_ref()))
}

/// True when an allocation that is not ordered any more ended and was folded into its step, so that
/// the node may still owe its log.
pub(super) async fn was_folded(store: &dyn Store, alloc: &AllocId) -> Result<bool, StoreError> {
    Ok(step_of(store, alloc).await?.is_some_and(|step| is_folded(&step, alloc)))
}

/// True when the node has the allocation, or had it as one of its step's attempts: it may write its log.
pub(super) async fn may_write_log(store: &dyn Store, node: &NodeId, alloc: &AllocId) -> Result<bool, StoreError> {
    if store.get(&key::alloc(node, alloc)).await?.is_some() {
        return Ok(true);
    }
    let step = step_of(store, alloc).await?;
    Ok(step.is_some_and(|step| {
        let newest = step.alloc.as_ref() == Some(alloc) && step.node.as_ref() == Some(node);
        newest || step.earlier.iter().any(|e| e.alloc == *alloc && e.node == *node)
    }))
}

/// Files that an allocation failed because its order cannot be sent, so that nobody waits for it.
pub(super) async fn file_undeliverable(
    store: &dyn Store,
    allocation: &Allocation,
    message: String,
    now_ms: u64,
) -> Result<(), StoreError> {
    let observed = Observed {
        alloc: allocation.id.clone(),
        fence: allocation.fence,
        state: ObservedState::Ended,
        started_ms: None,
        ended_ms: Some(now_ms),
        phases: Vec::new(),
        outcome: Some(Outcome::StartFailed {
            cause: StartFailure::Spec,
            message,
            lasting: true,
        }),
        log_bytes: Some(0),
        usage: model::Usage::default(),
        left: model::Left::default(),
        unknown: model::record::Unknown::new(),
    };
    file(store, &[(&allocation.node, &observed)]).await.map(drop)
}
