//! Transactions sent and their answers made whole.
//!
//! A transaction by itself is one proposal; a batch is as few as the limits of etcd allow
//! (`request`), several of them in flight at once. Not here: which ones are legal (`store::legal`).

use crate::fault::{Fault, Kind};
use crate::keys::{Keys, number, revision};
use crate::members::Members;
use crate::pages;
use crate::request::{self, Verdict};
use etcd_client::proto::PbTxnResponse;
use futures::stream::{self, StreamExt};
use std::collections::BTreeSet;
use store::{Commit, Entry, Guard, LeaseId, Revision, StoreError, Txn, Write};

/// How many proposals of one batch are in flight at once: all of the largest batch, for etcd waits once
/// for its disk for all that has arrived, and on a slow disk a second wait is what a batch costs.
const PROPOSALS_IN_FLIGHT: usize = 16;

/// The most leases that are asked for after one of a proposal was missing.
const LEASES_ASKED_MAX: usize = 16;

/// As [`store::Store::commit`], for a legal transaction.
pub(crate) async fn commit(members: &Members, keys: &Keys, txn: &Txn) -> Result<Commit, StoreError> {
    let sent = request::single(keys, txn);
    let one = std::slice::from_ref(txn);
    let answer = propose(members, sent, one).await?;
    let verdict = request::verdict(txn, &answer.1).map_err(|fault| members.told((fault, members.current())))?;
    finish(members, keys, answer.0, verdict).await
}

/// As [`store::Store::commit_batch`], for a legal batch.
pub(crate) async fn commit_batch(
    members: &Members,
    keys: &Keys,
    outer: &[Guard],
    txns: &[Txn],
) -> Result<Vec<Commit>, StoreError> {
    let parts = request::proposals(keys, outer, txns);
    let sent = parts
        .into_iter()
        .map(|part| commit_part(members, keys, outer, &txns[part]));
    // All are waited for, whatever the first says: nothing is in flight after the answer.
    let answers: Vec<Result<Vec<Commit>, StoreError>> =
        stream::iter(sent).buffered(PROPOSALS_IN_FLIGHT).collect().await;
    let mut commits = Vec::with_capacity(txns.len());
    let mut error: Option<StoreError> = None;
    for answer in answers {
        match answer {
            Ok(part) => commits.extend(part),
            // An unknown outcome outweighs a known one.
            Err(cause) if error.is_none() || cause.retry() => error = Some(cause),
            Err(_) => {}
        }
    }
    error.map_or(Ok(commits), Err)
}

async fn commit_part(members: &Members, keys: &Keys, outer: &[Guard], txns: &[Txn]) -> Result<Vec<Commit>, StoreError> {
    let sent = request::proposal(keys, outer, txns);
    let (at, answer) = propose(members, sent, txns).await?;
    let verdicts = request::verdicts(outer, txns, &answer).map_err(|fault| members.told((fault, members.current())))?;
    if !answer.succeeded {
        let Some(first) = verdicts.into_iter().next() else {
            return Ok(Vec::new());
        };
        return Ok(vec![finish(members, keys, at, first).await?; txns.len()]);
    }
    let finished = verdicts.into_iter().map(|v| finish(members, keys, at, v));
    let finished: Vec<Result<Commit, StoreError>> =
        stream::iter(finished).buffered(PROPOSALS_IN_FLIGHT).collect().await;
    finished.into_iter().collect()
}

/// Sends one proposal; answers the revision at which it was decided, and its results.
async fn propose(
    members: &Members,
    sent: etcd_client::Txn,
    txns: &[Txn],
) -> Result<(Revision, PbTxnResponse), StoreError> {
    let answer = members
        .send(|via| {
            let sent = sent.clone();
            async move {
                let answer = pages::kv(&via).txn(sent).await?;
                members.check_cluster(answer.header())?;
                let at = answer.header().ok_or_else(|| Fault::nonsense("a header"))?.revision();
                Ok((revision(at), answer.0))
            }
        })
        .await;
    match answer {
        Ok(answer) => Ok(answer),
        Err((fault, _)) if fault.kind == Kind::NoLease => Err(StoreError::NoLease(missing_lease(members, txns).await)),
        Err(fault) => Err(members.told(fault)),
    }
}

/// Which lease is not there; etcd does not say. One that cannot be found out is any of them.
async fn missing_lease(members: &Members, txns: &[Txn]) -> LeaseId {
    let named: BTreeSet<i64> = txns
        .iter()
        .flat_map(|t| &t.writes)
        .filter_map(lease_of)
        .map(|l| l.0)
        .collect();
    let first = named.first().copied().unwrap_or_default();
    if named.len() > 1 {
        for id in named.into_iter().take(LEASES_ASKED_MAX) {
            let left = members
                .ask(|via| async move { Ok(via.client.lease_client().time_to_live(id, None).await?.ttl()) })
                .await;
            if left.is_ok_and(|ttl| ttl <= 0) {
                return LeaseId(id);
            }
        }
    }
    LeaseId(first)
}

fn lease_of(write: &Write) -> Option<LeaseId> {
    match write {
        Write::Put { lease, .. } => *lease,
        Write::Delete { .. } | Write::DeletePrefix { .. } => None,
    }
}

/// A verdict as the trait's answer: with the value that was found, read at the revision of the verdict.
async fn finish(members: &Members, keys: &Keys, at: Revision, verdict: Verdict) -> Result<Commit, StoreError> {
    let (guard, found) = match verdict {
        Verdict::Applied => return Ok(Commit::Applied(at)),
        Verdict::Refused { guard, found } => (guard, found),
    };
    let found = match found {
        Some(_) => found_at(members, keys, &guard.key, at).await?,
        None => None,
    };
    Ok(Commit::Refused { guard, found })
}

/// The value of a key at a revision. If that is already forgotten, the newest one that is there.
async fn found_at(members: &Members, keys: &Keys, key: &str, at: Revision) -> Result<Option<Entry>, StoreError> {
    match pages::entry(members, keys, key, Some(number(at))).await {
        Err((fault, _)) if fault.kind == Kind::Compacted => {
            let newest = pages::entry(members, keys, key, None).await;
            newest.map_err(|fault| members.told(fault))
        }
        found => found.map_err(|fault| members.told(fault)),
    }
}
