//! The live store in memory: the same answers as every other engine, nothing durable.
//!
//! [`MemoryCore`] is synchronous and takes the time as an input, so that a seed replays it;
//! [`MemoryStore`] puts the trait around it. Not here: durability, and blobs.

use crate::changes::WatchHub;
use crate::legal;
use crate::live::{
    Change, Commit, Entry, Expect, Guard, LeaseId, PAGE_BYTES_MAX, Page, Revision, Store, StoreError, Txn, Watch,
    WatchEvent, Write,
};
use async_trait::async_trait;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::time::Instant;

#[derive(Debug)]
struct Stored {
    value: Vec<u8>,
    mod_revision: Revision,
    lease: Option<LeaseId>,
}

#[derive(Debug)]
struct Lease {
    ttl_ms: u64,
    expires_ms: u64,
    keys: BTreeSet<String>,
}

/// The store as plain data. Every method that changes something takes `now_ms`, milliseconds of any
/// clock that never goes back, and first removes what has expired by then.
#[derive(Debug, Default)]
pub struct MemoryCore {
    revision: Revision,
    keys: BTreeMap<String, Stored>,
    leases: BTreeMap<i64, Lease>,
    granted: i64,
    hub: WatchHub,
}

impl MemoryCore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The revision of the newest change.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// As [`Store::get`].
    ///
    /// # Errors
    /// [`StoreError::Illegal`].
    pub fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        legal::key(key)?;
        Ok(self.entry(key))
    }

    /// As [`Store::range`].
    ///
    /// # Errors
    /// [`StoreError::Illegal`].
    pub fn range(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page, StoreError> {
        legal::range(prefix, after, limit)?;
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let mut page = Page {
            revision: self.revision,
            ..Page::default()
        };
        let mut bytes = 0;
        for (key, stored) in self.keys.range::<str, _>((start, Bound::Unbounded)) {
            if !key.starts_with(prefix) {
                break;
            }
            if page.entries.len() == limit || bytes > PAGE_BYTES_MAX {
                page.more = true;
                break;
            }
            bytes += key.len() + stored.value.len();
            page.entries.push(entry_of(key, stored));
        }
        Ok(page)
    }

    /// As [`Store::commit`].
    ///
    /// # Errors
    /// As there.
    pub fn commit(&mut self, txn: Txn, now_ms: u64) -> Result<Commit, StoreError> {
        let mut commits = self.commit_batch(&[], vec![txn], now_ms)?;
        Ok(commits.remove(0))
    }

    /// As [`Store::commit_batch`].
    ///
    /// # Errors
    /// As there.
    pub fn commit_batch(&mut self, outer: &[Guard], txns: Vec<Txn>, now_ms: u64) -> Result<Vec<Commit>, StoreError> {
        legal::batch(outer, &txns)?;
        self.expire(now_ms);
        if let Some(refusal) = self.refusal(outer) {
            return Ok(vec![refusal; txns.len()]);
        }
        let refusals: Vec<Option<Commit>> = txns.iter().map(|t| self.refusal(&t.guards)).collect();
        let standing = || txns.iter().zip(&refusals).filter(|(_, r)| r.is_none()).map(|(t, _)| t);
        for write in standing().flat_map(|t| &t.writes) {
            if let Write::Put { lease: Some(lease), .. } = write
                && !self.leases.contains_key(&lease.0)
            {
                return Err(StoreError::NoLease(*lease));
            }
        }
        let applied = Commit::Applied(self.apply(standing().flat_map(|t| t.writes.clone()).collect()));
        Ok(refusals
            .into_iter()
            .map(|r| r.unwrap_or_else(|| applied.clone()))
            .collect())
    }

    /// What a watch of `prefix` from `after` has to deliver so far: the changes, one event for each
    /// revision, or the word to read anew if some are no longer known.
    #[must_use]
    pub fn changes_since(&self, after: Revision, prefix: &str) -> Vec<WatchEvent> {
        match self.hub.log().since(after, prefix) {
            Ok(groups) => groups.into_iter().map(WatchEvent::Changes).collect(),
            Err(_) => vec![WatchEvent::Resync],
        }
    }

    /// Forgets the changes up to and including `revision`; watches from before it must read anew.
    pub fn compact(&mut self, revision: Revision) {
        self.hub.compact(revision.min(self.revision));
    }

    /// As [`Store::lease_grant`].
    ///
    /// # Errors
    /// [`StoreError::Illegal`].
    pub fn lease_grant(&mut self, ttl_ms: u64, now_ms: u64) -> Result<LeaseId, StoreError> {
        legal::ttl(ttl_ms)?;
        self.expire(now_ms);
        self.granted += 1;
        let lease = Lease {
            ttl_ms,
            expires_ms: now_ms.saturating_add(ttl_ms),
            keys: BTreeSet::new(),
        };
        self.leases.insert(self.granted, lease);
        Ok(LeaseId(self.granted))
    }

    /// As [`Store::lease_keep_alive`].
    ///
    /// # Errors
    /// [`StoreError::NoLease`].
    pub fn lease_keep_alive(&mut self, lease: LeaseId, now_ms: u64) -> Result<u64, StoreError> {
        self.expire(now_ms);
        let found = self.leases.get_mut(&lease.0).ok_or(StoreError::NoLease(lease))?;
        found.expires_ms = now_ms.saturating_add(found.ttl_ms);
        Ok(found.ttl_ms)
    }

    /// As [`Store::lease_revoke`].
    pub fn lease_revoke(&mut self, lease: LeaseId, now_ms: u64) {
        self.expire(now_ms);
        self.end_lease(lease.0);
    }

    /// Removes what has expired by `now_ms`, each lease with its keys in one revision.
    pub fn expire(&mut self, now_ms: u64) {
        let mut expired: Vec<(u64, i64)> = Vec::new();
        for (id, lease) in &self.leases {
            if lease.expires_ms <= now_ms {
                expired.push((lease.expires_ms, *id));
            }
        }
        expired.sort_unstable();
        for (_, id) in expired {
            self.end_lease(id);
        }
    }

    /// Gives every lease its whole time again, as a new leader of an etcd cluster does: what has run
    /// out while there was none has not expired.
    pub fn renew_all(&mut self, now_ms: u64) {
        for lease in self.leases.values_mut() {
            lease.expires_ms = now_ms.saturating_add(lease.ttl_ms);
        }
    }

    /// Ends every lease with its keys, however lately it was renewed, as a store does that is restored
    /// without them.
    pub fn forget_leases(&mut self) {
        for id in self.leases.keys().copied().collect::<Vec<_>>() {
            self.end_lease(id);
        }
    }

    /// When the next lease expires if it is not renewed.
    #[must_use]
    pub fn next_expiry_ms(&self) -> Option<u64> {
        self.leases.values().map(|l| l.expires_ms).min()
    }

    fn end_lease(&mut self, id: i64) {
        if let Some(lease) = self.leases.remove(&id) {
            self.apply(lease.keys.into_iter().map(|key| Write::Delete { key }).collect());
        }
    }

    fn entry(&self, key: &str) -> Option<Entry> {
        self.keys.get(key).map(|stored| entry_of(key, stored))
    }

    /// The first guard that does not hold, as the answer to its transaction.
    fn refusal(&self, guards: &[Guard]) -> Option<Commit> {
        let broken = guards.iter().find(|g| {
            let found = self.keys.get(&g.key).map(|s| s.mod_revision);
            !g.expect.holds(found)
        })?;
        Some(Commit::Refused {
            guard: broken.clone(),
            found: self.entry(&broken.key),
        })
    }

    /// Writes under the next revision, if anything changes; answers the revision that then stands.
    fn apply(&mut self, writes: Vec<Write>) -> Revision {
        let revision = Revision(self.revision.0 + 1);
        let changes: Vec<Change> = writes.into_iter().flat_map(|w| self.write(w, revision)).collect();
        if !changes.is_empty() {
            self.revision = revision;
            self.hub.publish(changes);
        }
        self.revision
    }

    fn write(&mut self, write: Write, revision: Revision) -> Vec<Change> {
        match write {
            Write::Put { key, value, lease } => self.set(key, Some(value), lease, revision).into_iter().collect(),
            Write::Delete { key } => self.set(key, None, None, revision).into_iter().collect(),
            Write::DeletePrefix { prefix } => self
                .keys_below(&prefix)
                .into_iter()
                .filter_map(|key| self.set(key, None, None, revision))
                .collect(),
        }
    }

    fn keys_below(&self, prefix: &str) -> Vec<String> {
        let from = (Bound::Included(prefix), Bound::Unbounded);
        let keys = self.keys.range::<str, _>(from).map(|(key, _)| key);
        keys.take_while(|key| key.starts_with(prefix)).cloned().collect()
    }

    /// Sets or removes one key; `None` if nothing changed.
    fn set(
        &mut self,
        key: String,
        value: Option<Vec<u8>>,
        lease: Option<LeaseId>,
        revision: Revision,
    ) -> Option<Change> {
        let before = self.keys.remove(&key);
        if let Some(old) = before.as_ref().and_then(|b| b.lease)
            && let Some(lease) = self.leases.get_mut(&old.0)
        {
            lease.keys.remove(&key);
        }
        if let Some(value) = &value {
            if let Some(lease) = lease.and_then(|l| self.leases.get_mut(&l.0)) {
                lease.keys.insert(key.clone());
            }
            let stored = Stored {
                value: value.clone(),
                mod_revision: revision,
                lease,
            };
            self.keys.insert(key.clone(), stored);
        } else if before.is_none() {
            return None;
        }
        Some(Change { key, value, revision })
    }
}

fn entry_of(key: &str, stored: &Stored) -> Entry {
    Entry {
        key: key.to_owned(),
        value: stored.value.clone(),
        mod_revision: stored.mod_revision,
    }
}

impl Expect {
    /// Whether a key whose newest write is `found` satisfies this.
    #[must_use]
    pub fn holds(self, found: Option<Revision>) -> bool {
        match self {
            Self::Absent => found.is_none(),
            Self::Present => found.is_some(),
            Self::Revision(expected) => found == Some(expected),
        }
    }
}

/// [`MemoryCore`] behind the trait, on tokio's clock. For tests: what it holds is gone with it.
#[derive(Debug)]
pub struct MemoryStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    core: Mutex<MemoryCore>,
    start: Instant,
}

impl Shared {
    fn core(&self) -> MutexGuard<'_, MemoryCore> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self {
            shared: Arc::new(Shared {
                core: Mutex::new(MemoryCore::new()),
                start: Instant::now(),
            }),
        }
    }
}

impl Drop for MemoryStore {
    fn drop(&mut self) {
        self.shared.core().hub.close();
    }
}

/// Removes one lease's keys once it is no longer renewed; ends with the lease or the store.
async fn expire_in_time(shared: Weak<Shared>, lease: LeaseId) {
    loop {
        let Some(strong) = shared.upgrade() else { return };
        let now_ms = strong.now_ms();
        let wait = {
            let mut core = strong.core();
            core.expire(now_ms);
            match core.leases.get(&lease.0) {
                Some(found) => found.expires_ms.saturating_sub(now_ms),
                None => return,
            }
        };
        drop(strong);
        tokio::time::sleep(Duration::from_millis(wait.max(1))).await;
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        self.shared.core().get(key)
    }

    async fn range(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page, StoreError> {
        self.shared.core().range(prefix, after, limit)
    }

    async fn commit(&self, txn: Txn) -> Result<Commit, StoreError> {
        self.shared.core().commit(txn, self.shared.now_ms())
    }

    async fn commit_batch(&self, outer: Vec<Guard>, txns: Vec<Txn>) -> Result<Vec<Commit>, StoreError> {
        self.shared.core().commit_batch(&outer, txns, self.shared.now_ms())
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, StoreError> {
        legal::prefix(prefix)?;
        Ok(self.shared.core().hub.watch(prefix, after))
    }

    async fn compact(&self, before: Revision) -> Result<(), StoreError> {
        self.shared.core().compact(before);
        Ok(())
    }

    async fn lease_grant(&self, ttl_ms: u64) -> Result<LeaseId, StoreError> {
        let lease = self.shared.core().lease_grant(ttl_ms, self.shared.now_ms())?;
        tokio::spawn(expire_in_time(Arc::downgrade(&self.shared), lease));
        Ok(lease)
    }

    async fn lease_keep_alive(&self, lease: LeaseId) -> Result<u64, StoreError> {
        self.shared.core().lease_keep_alive(lease, self.shared.now_ms())
    }

    async fn lease_revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.shared.core().lease_revoke(lease, self.shared.now_ms());
        Ok(())
    }
}
