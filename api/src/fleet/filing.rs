//! Reports into the store: each guarded by its allocation and by what was filed before, many in one
//! round trip.
//!
//! Not here: the judgement (`report`), waiting and answering (`session`).

use super::report::{Gathered, Held, Verdict, is_folded, judge};
use futures::future::try_join_all;
use model::{AllocId, Allocation, NodeId, Observed, ObservedState, Outcome, Record, StartFailure, StepRecord, key};
use store::{Commit, Entry, Expect, Store, StoreError, Txn};

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

/// Files the reports of a node; answers one result for each, in order.
pub(super) async fn file(store: &dyn Store, node: &NodeId, reports: &[Gathered]) -> Result<Vec<Filed>, StoreError> {
    let mut results = vec![Filed::Undecided; reports.len()];
    let mut open: Vec<usize> = (0..reports.len()).collect();
    for _ in 0..TRIES_MAX {
        let judged = open.iter().map(|&i| examine(store, node, &reports[i].report));
        let judged = try_join_all(judged).await?;
        let mut txns = Vec::new();
        let mut filing = Vec::new();
        for (&index, (verdict, txn)) in open.iter().zip(judged) {
            match (verdict, txn) {
                (Verdict::File, Some(txn)) => {
                    txns.push(txn);
                    filing.push(index);
                }
                (Verdict::Refused, _) => results[index] = Filed::Refused,
                (verdict, _) => results[index] = Filed::Accepted(verdict),
            }
        }
        if txns.is_empty() {
            return Ok(results);
        }
        let commits = store.commit_batch(Vec::new(), txns).await?;
        open.clear();
        for (index, commit) in filing.into_iter().zip(commits) {
            match commit {
                Commit::Applied(_) => results[index] = Filed::Accepted(Verdict::File),
                Commit::Refused { .. } => open.push(index),
            }
        }
        if open.is_empty() {
            return Ok(results);
        }
    }
    Ok(results)
}

/// Judges a report on what the store holds now; with the transaction, if it is to be filed.
async fn examine(store: &dyn Store, node: &NodeId, report: &Observed) -> Result<(Verdict, Option<Txn>), StoreError> {
    let alloc_key = key::alloc(node, &report.alloc);
    let observed_key = key::observed(&report.alloc);
    // Filed before the order: the leader removes both at once, so an order that is read after its
    // observation cannot be older than it.
    let filed_entry = store.get(&observed_key).await?;
    let order_entry = store.get(&alloc_key).await?;
    let order: Option<Allocation> = decoded(order_entry.as_ref());
    let filed: Option<Observed> = decoded(filed_entry.as_ref());
    let step = match order_entry {
        Some(_) => None,
        None => step_of(store, &report.alloc).await?,
    };
    let verdict = judge(
        report,
        &Held {
            order: order.as_ref(),
            filed: filed.as_ref(),
            step: step.as_ref(),
        },
    );
    let txn = (verdict == Verdict::File).then(|| {
        let before = filed_entry.map_or(Expect::Absent, |e| Expect::Revision(e.mod_revision));
        Txn::new()
            .expect(alloc_key, Expect::Present)
            .expect(observed_key.clone(), before)
            .put(observed_key, report)
    });
    Ok((verdict, txn))
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

/// True when the node has the allocation, or had it as its step's newest: it may write its log.
pub(super) async fn may_write_log(store: &dyn Store, node: &NodeId, alloc: &AllocId) -> Result<bool, StoreError> {
    if store.get(&key::alloc(node, alloc)).await?.is_some() {
        return Ok(true);
    }
    let step = step_of(store, alloc).await?;
    Ok(step.is_some_and(|s| s.alloc.as_ref() == Some(alloc) && s.node.as_ref() == Some(node)))
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
        unknown: model::record::Unknown::new(),
    };
    let gathered = Gathered {
        states: [observed.state].into(),
        report: observed,
    };
    file(store, &allocation.node, &[gathered]).await.map(drop)
}
