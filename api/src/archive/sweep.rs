//! What else a live store would gather over the months, and what removes it.
//!
//! | keys | what bounds them |
//! |---|---|
//! | `run/` | ended runs leave it; parts without a header are removed here |
//! | `inbox/` | an entry goes in the transaction that makes its run |
//! | `dedupe/` | leased |
//! | `request/`, `observed/`, `alloc/` | the leader removes them |
//! | `outbox/archive/` | history takes them |
//! | `cluster/` | a few keys |
//! | `number/` | one for each pipeline that ever was, a hundred bytes each: they stay, so that no number is given twice |
//!
//! Parts without a header: a server that wrote the chunks of a definition, fell asleep, and never
//! wrote the header because another server had made the run. Not here: the past of the store, which
//! the leader's compaction forgets.

use super::metrics::ArchiveMetrics;
use crate::state::Server;
use model::{RunId, key};
use std::collections::BTreeSet;
use store::{Expect, Guard, Revision, Txn};

/// How long parts must have been without a header and a trigger, seconds: far longer than a server
/// takes from the first chunk to the header.
pub(super) const LEFT_FOR_SECONDS: u64 = 600;

/// The most leftovers that are removed at once; the others follow.
const SWEEP_MAX: usize = 100;

/// Leftovers, seen twice.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    seen: BTreeSet<RunId>,
}

impl Sweep {
    /// Removes the parts that had no header when this was called before and have none now.
    pub(super) async fn again(&mut self, server: &Server, term: Revision, metrics: &ArchiveMetrics) {
        let headless: BTreeSet<RunId> = server.view.read(|picture| {
            let runs = picture.runs().iter().filter(|(_, r)| r.header().is_none());
            let without_trigger = runs.filter(|(run, _)| picture.inbox_of(run).is_none());
            without_trigger.map(|(run, _)| run.clone()).collect()
        });
        let left: Vec<&RunId> = headless.intersection(&self.seen).take(SWEEP_MAX).collect();
        if !left.is_empty() {
            let leads = Guard {
                key: key::LEADER.to_owned(),
                expect: Expect::Revision(term),
            };
            let remove = |run: &&RunId| {
                Txn::new()
                    .expect(key::run(run), Expect::Absent)
                    .delete_prefix(key::run_parts(run))
            };
            match server
                .store()
                .commit_batch(vec![leads], left.iter().map(remove).collect())
                .await
            {
                Ok(commits) => {
                    let removed = commits.iter().filter(|c| c.is_applied()).count();
                    metrics.swept.inc_by(removed as u64);
                    tracing::info!(runs = removed, "leftovers of runs that never began removed");
                }
                Err(error) => tracing::warn!(%error, "leftovers not removed, will be tried again"),
            }
        }
        self.seen = headless;
    }
}
