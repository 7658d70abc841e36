//! A store that ends its user's life at a chosen commit, just before or just after it is applied.

use async_trait::async_trait;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use store::memory::MemoryStore;
use store::{Commit, Entry, Guard, LeaseId, Page, Revision, Store, StoreError, Txn, Watch};
use tokio_util::sync::CancellationToken;

/// On which side of the commit the end comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Before,
    After,
}

/// Lets so many commits pass; the next one never returns.
pub(super) struct Mortal {
    inner: Arc<MemoryStore>,
    left: AtomicUsize,
    side: Side,
    /// Cancelled when the end has come.
    pub(super) died: CancellationToken,
}

impl Mortal {
    pub(super) fn new(inner: Arc<MemoryStore>, commits: usize, side: Side) -> Self {
        Self {
            inner,
            left: AtomicUsize::new(commits),
            side,
            died: CancellationToken::new(),
        }
    }

    async fn die(&self) {
        self.died.cancel();
        std::future::pending::<()>().await;
    }
}

#[async_trait]
impl Store for Mortal {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        self.inner.get(key).await
    }
    async fn range(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page, StoreError> {
        self.inner.range(prefix, after, limit).await
    }
    async fn commit(&self, txn: Txn) -> Result<Commit, StoreError> {
        let take = |left: usize| left.checked_sub(1);
        if self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_ok() {
            return self.inner.commit(txn).await;
        }
        if self.side == Side::After && !self.died.is_cancelled() {
            self.inner.commit(txn).await?;
        }
        self.die().await;
        Err(StoreError::Unavailable("dead".to_owned()))
    }
    async fn commit_batch(&self, outer: Vec<Guard>, txns: Vec<Txn>) -> Result<Vec<Commit>, StoreError> {
        self.inner.commit_batch(outer, txns).await
    }
    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, StoreError> {
        self.inner.watch(prefix, after).await
    }
    async fn compact(&self, before: Revision) -> Result<(), StoreError> {
        self.inner.compact(before).await
    }
    async fn lease_grant(&self, ttl_ms: u64) -> Result<LeaseId, StoreError> {
        self.inner.lease_grant(ttl_ms).await
    }
    async fn lease_keep_alive(&self, lease: LeaseId) -> Result<u64, StoreError> {
        self.inner.lease_keep_alive(lease).await
    }
    async fn lease_revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.inner.lease_revoke(lease).await
    }
}

/// A store that answers nothing, as without a quorum, while `away` is not zero.
pub(super) struct Absent {
    inner: Arc<MemoryStore>,
    pub(super) away: AtomicUsize,
}

impl Absent {
    pub(super) fn new(inner: Arc<MemoryStore>) -> Self {
        Self {
            inner,
            away: AtomicUsize::new(0),
        }
    }

    fn here(&self) -> Result<&MemoryStore, StoreError> {
        if self.away.load(Ordering::SeqCst) == 0 {
            Ok(&self.inner)
        } else {
            Err(StoreError::Unavailable("injected: secret-host:2379".to_owned()))
        }
    }
}

#[async_trait]
impl Store for Absent {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        self.here()?.get(key).await
    }
    async fn range(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page, StoreError> {
        self.here()?.range(prefix, after, limit).await
    }
    async fn commit(&self, txn: Txn) -> Result<Commit, StoreError> {
        self.here()?.commit(txn).await
    }
    async fn commit_batch(&self, outer: Vec<Guard>, txns: Vec<Txn>) -> Result<Vec<Commit>, StoreError> {
        self.here()?.commit_batch(outer, txns).await
    }
    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, StoreError> {
        self.here()?.watch(prefix, after).await
    }
    async fn compact(&self, before: Revision) -> Result<(), StoreError> {
        self.here()?.compact(before).await
    }
    async fn lease_grant(&self, ttl_ms: u64) -> Result<LeaseId, StoreError> {
        self.here()?.lease_grant(ttl_ms).await
    }
    async fn lease_keep_alive(&self, lease: LeaseId) -> Result<u64, StoreError> {
        self.here()?.lease_keep_alive(lease).await
    }
    async fn lease_revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.here()?.lease_revoke(lease).await
    }
}
