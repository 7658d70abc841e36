//! One server leads: it holds the `leader` key under a lease and renews it.
//!
//! The key's revision is the guard of everything the leader writes, so leading is never a matter of
//! belief: whoever lost the key commits nothing, however late it learns of it. A clean stop revokes
//! the lease, and the next server leads at once; a killed leader's key vanishes with its lease.
//!
//! A claim whose outcome is unknown may stand: its lease is revoked before the next one, so that
//! the server does not wait for itself. If that fails too the lease expires unrenewed.
//!
//! Not here: what a leader does.

use crate::SchedulerConfig;
use crate::backoff::Backoff;
use crate::metrics::Metrics;
use model::record::Unknown;
use model::{ClusterVersion, Leader, key};
use scheduler::STORE_FORMAT;
use std::sync::Arc;
use std::time::Duration;
use store::{Commit, Entry, Expect, Guard, LeaseId, Revision, Store, StoreError, Txn, WatchEvent};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A lease is renewed this many times within its time to live.
const RENEWALS_PER_TTL: u32 = 4;

/// How long one call of the store may take before its outcome counts as unknown.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the store may take to give up a lease; it expires by itself if this fails.
const REVOKE_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a server that may not write to this store waits before it looks again.
const REFUSED_FORMAT_WAIT: Duration = Duration::from_secs(10);

/// How a try to lead went.
enum Campaign {
    /// The key is ours.
    Won { lease: LeaseId, revision: Revision },
    /// Somebody else's; watch from there.
    Held { revision: Revision },
    /// Somebody else was quicker, and has left since.
    Missed,
    /// The store is of a newer format.
    TooNew { format: u32 },
}

/// The election task of one server.
pub(crate) struct Election {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) config: SchedulerConfig,
    /// The revision of our own key while we hold it.
    pub(crate) standing: watch::Sender<Option<Revision>>,
    /// Told by the loop that the key of this revision is of no use any more: a commit showed that it
    /// is not ours, or has an unknown outcome.
    pub(crate) deposed: watch::Receiver<Revision>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) shutdown: CancellationToken,
    /// The loop has ended: nothing will be written under the key any more.
    pub(crate) work_ended: CancellationToken,
}

impl Election {
    /// Campaigns and leads until the shutdown.
    pub(crate) async fn run(self) {
        let mut backoff = Backoff::new();
        while !self.shutdown.is_cancelled() {
            let wait = match self.campaign().await {
                Ok(Campaign::Won { lease, revision }) => {
                    backoff.worked();
                    self.lead(lease, revision).await;
                    Duration::ZERO
                }
                Ok(Campaign::Held { revision }) => {
                    backoff.worked();
                    self.wait_for_vacancy(revision).await;
                    Duration::ZERO
                }
                Ok(Campaign::Missed) => Duration::ZERO,
                Ok(Campaign::TooNew { format }) => {
                    tracing::error!(
                        format,
                        newest = STORE_FORMAT,
                        "the store is of a newer format, this server does not lead: upgrade it"
                    );
                    REFUSED_FORMAT_WAIT
                }
                Err(cause) => {
                    let wait = backoff.failed();
                    tracing::warn!(error = %cause, "campaign failed");
                    wait
                }
            };
            self.pause(wait).await;
        }
    }

    async fn pause(&self, wait: Duration) {
        tokio::select! {
            () = self.shutdown.cancelled() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }

    async fn campaign(&self) -> Result<Campaign, StoreError> {
        let both = async { tokio::try_join!(self.store.get(key::CLUSTER_VERSION), self.store.get(key::LEADER)) };
        let (version, held) = in_time(both).await?;
        if let Some(format) = version.as_ref().and_then(newer_format) {
            return Ok(Campaign::TooNew { format });
        }
        if let Some(held) = held {
            return Ok(held_by(&held));
        }
        let lease = in_time(self.store.lease_grant(self.config.election_ttl_ms)).await?;
        let claimed = self.claim(lease, version.is_none()).await;
        if !matches!(claimed, Ok(Campaign::Won { .. })) {
            self.revoke(lease).await;
        }
        claimed
    }

    async fn claim(&self, lease: LeaseId, new_cluster: bool) -> Result<Campaign, StoreError> {
        let leader = Leader {
            server: self.config.server_name.clone(),
            unknown: Unknown::new(),
        };
        let claim = Txn::new()
            .expect(key::LEADER, Expect::Absent)
            .put_leased(key::LEADER, &leader, lease);
        match in_time(self.store.commit(claim)).await? {
            Commit::Applied(revision) => {
                if new_cluster {
                    self.found_cluster(revision).await?;
                }
                Ok(Campaign::Won { lease, revision })
            }
            Commit::Refused { found: Some(held), .. } => Ok(held_by(&held)),
            Commit::Refused { found: None, .. } => Ok(Campaign::Missed),
        }
    }

    async fn revoke(&self, lease: LeaseId) {
        match tokio::time::timeout(REVOKE_TIMEOUT, self.store.lease_revoke(lease)).await {
            Ok(Ok(())) => {}
            Ok(Err(cause)) => tracing::warn!(error = %cause, "the leader's lease was not revoked and will expire"),
            Err(_) => tracing::warn!("the leader's lease was not revoked in time and will expire"),
        }
    }

    /// The first leader of a cluster writes its format and epoch.
    async fn found_cluster(&self, revision: Revision) -> Result<(), StoreError> {
        let version = ClusterVersion {
            format: STORE_FORMAT,
            epoch: 1,
            unknown: Unknown::new(),
        };
        let own_key = Guard {
            key: key::LEADER.to_owned(),
            expect: Expect::Revision(revision),
        };
        let first = Txn::new()
            .expect(key::CLUSTER_VERSION, Expect::Absent)
            .put(key::CLUSTER_VERSION, &version);
        // Refused when it is there already, which is as good.
        in_time(self.store.commit_batch(vec![own_key], vec![first]))
            .await
            .map(|_| ())
    }

    /// Holds the key until it is lost or the server stops.
    async fn lead(&self, lease: LeaseId, revision: Revision) {
        tracing::info!(server = %self.config.server_name, revision = revision.0, "leads");
        self.metrics.leader.set(1);
        self.standing.send_replace(Some(revision));
        let stopped = self.renew(lease, revision).await;
        if stopped == Ended::Shutdown {
            self.work_ended.cancelled().await;
        }
        self.standing.send_replace(None);
        self.metrics.leader.set(0);
        self.revoke(lease).await;
        tracing::info!(server = %self.config.server_name, why = ?stopped, "leads no longer");
        if stopped == Ended::Shutdown && self.config.handover_ms > 0 {
            let longest = Duration::from_millis(self.config.handover_ms);
            // Nobody may be there to take over.
            let _ = tokio::time::timeout(longest, self.successor(revision)).await;
        }
    }

    /// Returns when somebody leads after the key of this revision; at once if that cannot be seen.
    async fn successor(&self, revision: Revision) {
        let Ok(mut watch) = self.store.watch(key::LEADER, revision).await else {
            return;
        };
        while let Some(WatchEvent::Changes(changes)) = watch.recv().await {
            if changes.iter().any(|c| c.key == key::LEADER && c.value.is_some()) {
                return;
            }
        }
    }

    async fn renew(&self, lease: LeaseId, revision: Revision) -> Ended {
        let mut deposed = self.deposed.clone();
        let ttl = Duration::from_millis(self.config.election_ttl_ms);
        let every = ttl / RENEWALS_PER_TTL;
        let mut renewed = Instant::now();
        loop {
            tokio::select! {
                () = self.shutdown.cancelled() => return Ended::Shutdown,
                Ok(_) = deposed.wait_for(|lost| *lost == revision) => return Ended::Deposed,
                () = tokio::time::sleep(every) => {}
            }
            let asked = Instant::now();
            let left = ttl.saturating_sub(renewed.elapsed());
            match tokio::time::timeout(left.min(ttl / 2), self.store.lease_keep_alive(lease)).await {
                Ok(Ok(_)) => renewed = asked,
                Ok(Err(StoreError::NoLease(_))) => return Ended::LeaseExpired,
                Ok(Err(cause)) => tracing::warn!(error = %cause, "the leader's lease was not renewed"),
                Err(_) => tracing::warn!("the leader's lease was not renewed in time"),
            }
            if renewed.elapsed() >= ttl {
                return Ended::LeaseExpired;
            }
        }
    }

    /// Returns when the key may have become free: it was removed, or a while has passed.
    async fn wait_for_vacancy(&self, revision: Revision) {
        let Ok(mut watch) = self.store.watch(key::LEADER, revision).await else {
            return self.pause(Duration::from_millis(self.config.period_ms)).await;
        };
        let vacant = async {
            while let Some(WatchEvent::Changes(changes)) = watch.recv().await {
                if changes.iter().any(|c| c.key == key::LEADER && c.value.is_none()) {
                    return;
                }
            }
            // The watch broke: look again, but not at once for ever.
            tokio::time::sleep(Duration::from_millis(self.config.period_ms)).await;
        };
        tokio::select! {
            () = self.shutdown.cancelled() => {}
            () = vacant => {}
            () = tokio::time::sleep(Duration::from_millis(self.config.election_ttl_ms)) => {}
        }
    }
}

/// Why a server leads no longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Shutdown,
    LeaseExpired,
    Deposed,
}

/// The outcome of a call that takes too long is unknown, as if its answer were lost.
async fn in_time<T>(call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    let late = |_| Err(StoreError::Unavailable("the call took too long".to_owned()));
    tokio::time::timeout(CALL_TIMEOUT, call).await.unwrap_or_else(late)
}

/// The store's format if this release may not write to it.
fn newer_format(entry: &Entry) -> Option<u32> {
    match entry.decode::<ClusterVersion>() {
        Ok(version) => Some(version.format).filter(|f| *f > STORE_FORMAT),
        // What cannot be read is taken for newer: nothing may be written then.
        Err(_) => Some(u32::MAX),
    }
}

fn held_by(entry: &Entry) -> Campaign {
    Campaign::Held {
        revision: entry.mod_revision,
    }
}
