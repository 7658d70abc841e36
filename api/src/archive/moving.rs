//! The transactions of the archive, each under the leader's own key.
//!
//! Not here: what is in them, and when (`api_core::archive`).

use api_core::archive::{self, Change, Move, MoveResult, Told};
use model::key;
use std::time::Duration;
use store::{Commit, Expect, Guard, Revision, Store, StoreError, Txn, Write};

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

fn txn(change: Change) -> Txn {
    let guards = change.guards.into_iter().map(|(key, expect)| Guard {
        key,
        expect: match expect {
            archive::Expect::Absent => Expect::Absent,
            archive::Expect::Revision(revision) => Expect::Revision(Revision(revision)),
        },
    });
    let writes = change.writes.into_iter().map(|write| match write {
        archive::Write::Put { key, value } => Write::Put {
            key,
            value,
            lease: None,
        },
        archive::Write::Delete { key } => Write::Delete { key },
        archive::Write::DeletePrefix { prefix } => Write::DeletePrefix { prefix },
    });
    Txn {
        guards: guards.collect(),
        writes: writes.collect(),
    }
}

/// Moves runs, each in a transaction of its own.
pub(super) async fn move_out(store: &dyn Store, term: Revision, moves: &[Move]) -> Vec<MoveResult> {
    match commit(store, term, moves.iter().map(|m| txn(m.change())).collect()).await {
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
    let commits = match commit(store, term, runs.iter().map(|t| txn(t.change())).collect()).await {
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
