//! Turns verified proposals into one guarded batch of the store. Not here: what a result means for
//! the view.

use model::key;
use scheduler::{Change, Expect, PLAN_ACTIONS_MAX, Ticket, Verified, Write};
use std::time::Duration;
use store::live::BATCH_MAX;
use store::{Commit, Entry, Guard, Revision, Store, StoreError, Txn};

/// How long a commit may take before its outcome counts as unknown.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(10);

// One plan is one batch.
const _: () = assert!(PLAN_ACTIONS_MAX <= BATCH_MAX, "a plan must fit into a batch");

/// What the store said of each proposal.
#[derive(Debug)]
pub(crate) enum Answer {
    /// Each stands or falls alone.
    Each(Vec<(Ticket, Result<Revision, Broken>)>),
    /// Our own key is not ours any more. What was written before it went is repeated by the watch.
    Deposed,
}

/// A guard that did not hold.
#[derive(Debug)]
pub(crate) struct Broken {
    pub(crate) guard: Guard,
    /// What stands under its key; `None`: nothing.
    pub(crate) found: Option<Entry>,
}

/// Commits under the leader's own key.
pub(crate) async fn commit(store: &dyn Store, leader: Revision, verified: Vec<Verified>) -> Result<Answer, StoreError> {
    let tickets: Vec<Ticket> = verified.iter().map(|v| v.ticket).collect();
    let txns: Vec<Txn> = verified.into_iter().map(|v| txn(v.change)).collect();
    let batch = store.commit_batch(vec![own_key(leader)], txns.clone());
    let commits = match tokio::time::timeout(COMMIT_TIMEOUT, batch).await {
        Err(_) => return Err(StoreError::Unavailable("the commit took too long".to_owned())),
        Ok(Err(StoreError::Illegal(cause))) => {
            // A fault of ours, but one bad transaction must not hold up the others.
            tracing::error!(error = %cause, "batch refused as illegal, committing one by one");
            one_by_one(store, leader, txns).await?
        }
        Ok(commits) => commits?,
    };
    let mut each = Vec::with_capacity(commits.len());
    for (ticket, commit) in tickets.into_iter().zip(commits) {
        match commit {
            Commit::Applied(revision) => each.push((ticket, Ok(revision))),
            Commit::Refused { guard, .. } if guard.key == key::LEADER => return Ok(Answer::Deposed),
            Commit::Refused { guard, found } => each.push((ticket, Err(Broken { guard, found }))),
        }
    }
    Ok(Answer::Each(each))
}

async fn one_by_one(store: &dyn Store, leader: Revision, txns: Vec<Txn>) -> Result<Vec<Commit>, StoreError> {
    let mut commits = Vec::with_capacity(txns.len());
    for txn in txns {
        let first = txn.guards.first().cloned();
        match store.commit_batch(vec![own_key(leader)], vec![txn]).await {
            Ok(commit) => commits.extend(commit),
            Err(StoreError::Illegal(cause)) => {
                tracing::error!(error = %cause, guard = ?first, "transaction refused as illegal");
                let guard = first.unwrap_or_else(|| own_key(leader));
                commits.push(Commit::Refused { guard, found: None });
            }
            Err(cause) => return Err(cause),
        }
    }
    Ok(commits)
}

fn own_key(leader: Revision) -> Guard {
    Guard {
        key: key::LEADER.to_owned(),
        expect: store::Expect::Revision(leader),
    }
}

/// The same transaction in the store's words.
fn txn(change: Change) -> Txn {
    let guarded = change.guards.into_iter().fold(Txn::new(), |txn, (key, expect)| {
        let expect = match expect {
            Expect::Absent => store::Expect::Absent,
            Expect::Present => store::Expect::Present,
            Expect::Revision(revision) => store::Expect::Revision(Revision(revision)),
        };
        txn.expect(key, expect)
    });
    change.writes.into_iter().fold(guarded, |txn, write| match write {
        Write::Put { key, value } => txn.put_bytes(key, value, None),
        Write::Delete { key } => txn.delete(key),
    })
}
