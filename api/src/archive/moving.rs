//! The transactions of the archive: a run goes and its outbox entry comes, an outbox entry goes.
//!
//! Each under the leader's own key, so that a deposed leader moves nothing. Not here: when.

use crate::rest::cancel_key;
use api_core::archive::{Move, MoveResult, Told};
use model::key;
use std::time::Duration;
use store::{Commit, Expect, Guard, Revision, Store, StoreError, Txn};

/// How long a batch may take. One that takes longer may have been applied.
const TIMEOUT: Duration = Duration::from_secs(20);

fn leads(term: Revision) -> Vec<Guard> {
    vec![Guard {
        key: key::LEADER.to_owned(),
        expect: Expect::Revision(term),
    }]
}

async fn commit(store: &dyn Store, term: Revision, txns: Vec<Txn>) -> Result<Vec<Commit>, StoreError> {
    let committed = tokio::time::timeout(TIMEOUT, store.commit_batch(leads(term), txns)).await;
    committed.unwrap_or_else(|_| Err(StoreError::Unavailable("no answer in time".to_owned())))
}

/// The transaction that takes a run out of the live store: only if its header is as it was read
/// and nobody has asked for its end meanwhile.
fn leave(moved: &Move) -> Txn {
    let run = &moved.record.summary.id;
    Txn::new()
        .expect(key::run(run), Expect::Revision(Revision(moved.header_revision)))
        .expect(key::request(&cancel_key(run)), Expect::Absent)
        .put(key::archive_outbox(run), &moved.record)
        .delete(key::run(run))
        .delete_prefix(key::run_parts(run))
}

/// Moves runs, each in a transaction of its own.
pub(super) async fn move_out(store: &dyn Store, term: Revision, moves: &[Move]) -> Vec<MoveResult> {
    match commit(store, term, moves.iter().map(leave).collect()).await {
        Ok(commits) => commits
            .into_iter()
            .map(|c| match c {
                Commit::Applied(revision) => MoveResult::Done(revision.0),
                Commit::Refused { .. } => MoveResult::Refused,
            })
            .collect(),
        Err(error) => {
            tracing::warn!(runs = moves.len(), %error, "runs not moved to the outbox, will be tried again");
            vec![MoveResult::Unknown; moves.len()]
        }
    }
}

/// Removes outbox entries that are still as history was told. Answers the revision as of which
/// none of them is as it was; `None` when that is not known.
pub(super) async fn clear(store: &dyn Store, term: Revision, runs: &[Told]) -> Option<u64> {
    let txn = |told: &Told| {
        let key = key::archive_outbox(&told.run);
        Txn::new()
            .expect(&key, Expect::Revision(Revision(told.revision)))
            .delete(key)
    };
    let commits = match commit(store, term, runs.iter().map(txn).collect()).await {
        Ok(commits) => commits,
        Err(error) => {
            tracing::warn!(runs = runs.len(), %error, "outbox not cleared, will be tried again");
            return None;
        }
    };
    let (mut newest, mut changed) = (0, false);
    for commit in commits {
        match commit {
            Commit::Applied(revision) => newest = newest.max(revision.0),
            Commit::Refused { guard, .. } if guard.key == key::LEADER => return None,
            // Told anew meanwhile: the picture will show it.
            Commit::Refused { found, .. } => changed |= found.is_some(),
        }
    }
    Some(newest).filter(|_| !changed)
}
