//! The live store's contract: read with its revision, guarded transaction, watch, lease.
//!
//! Modelled on what etcd promises, so that etcd and the embedded engine are one to their callers:
//! a single order of revisions over all keys; a transaction is applied whole or not at all; a watch
//! delivers every change after a revision, in order, at least once.

use crate::room::Room;
use async_trait::async_trait;
use model::{Record, RecordError};
use tokio::sync::mpsc;

/// The most writes and guards of one [`Txn`] together (etcd's default limit of operations is 128).
pub const TXN_OPS_MAX: usize = 120;

/// The most bytes of keys and values in one [`Txn`] (etcd refuses requests over 1.5 MiB).
pub const TXN_BYTES_MAX: usize = 1_400_000;

/// The longest key, bytes.
pub const KEY_MAX: usize = 512;

/// The most entries a [`Store::range`] page may hold.
pub const PAGE_MAX: usize = 1_000;

/// A [`Store::range`] page ends early once its keys and values pass this many bytes, so that a page
/// of large values costs a reader megabytes and not a gigabyte. A page always holds one entry at least.
pub const PAGE_BYTES_MAX: usize = 4 << 20;

/// The most transactions of one [`Store::commit_batch`].
pub const BATCH_MAX: usize = 1_000;

/// The shortest lease, milliseconds: an engine whose disk stalls for a moment must not lose claims.
pub const LEASE_TTL_MIN_MS: u64 = 1_000;

/// The longest lease, milliseconds (30 days): a longer claim is not a claim of being alive.
pub const LEASE_TTL_MAX_MS: u64 = 30 * 24 * 3_600_000;

/// A point in the store's single order of changes; 0 is before the first. Grows with every transaction
/// (or part of a batch, see [`Store::commit_batch`]) that changed a key; one that changed nothing,
/// e.g. guards alone or the delete of an absent key, is applied at the revision that stands. An
/// engine that is shared with others may grow by what they write, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Revision(pub u64);

/// An expiring claim. Keys written under it vanish with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LeaseId(pub i64);

/// A stored value as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its key.
    pub key: String,
    /// Its bytes.
    pub value: Vec<u8>,
    /// The revision of its last write: what a [`Guard`] compares.
    pub mod_revision: Revision,
}

impl Entry {
    /// The value as a record.
    ///
    /// # Errors
    /// [`RecordError`] when it is not one of this kind.
    pub fn decode<R: Record>(&self) -> Result<R, RecordError> {
        model::decode(&self.value)
    }
}

/// One page of a range read. Whether keys follow is said by `more`, never by the number of entries.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// In order of keys.
    pub entries: Vec<Entry>,
    /// The store's revision at which the page was read: watch from here.
    pub revision: Revision,
    /// True when keys of the prefix follow after the last entry.
    pub more: bool,
}

/// What a transaction demands of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// No such key.
    Absent,
    /// The key is there, whatever its value.
    Present,
    /// The key was last written at this revision.
    Revision(Revision),
}

/// A condition of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guard {
    /// Of which key.
    pub key: String,
    /// What must hold.
    pub expect: Expect,
}

/// A change of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Sets the value; under a lease if one is named.
    Put {
        /// Which key.
        key: String,
        /// Its new bytes.
        value: Vec<u8>,
        /// The claim it vanishes with.
        lease: Option<LeaseId>,
    },
    /// Removes the key; no error if it is not there.
    Delete {
        /// Which key.
        key: String,
    },
    /// Removes every key that begins with the prefix; no error if there is none. One operation,
    /// however many keys it removes. A watch sees one removal for each key that was there, in order
    /// of keys.
    DeletePrefix {
        /// Which keys; not empty.
        prefix: String,
    },
}

impl Write {
    /// The key that is changed, or the prefix of those that are removed.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            Self::Put { key, .. } | Self::Delete { key } | Self::DeletePrefix { prefix: key } => key,
        }
    }
}

/// Guards and the writes that are applied together if all guards hold. No key is written twice, and
/// none is written below a prefix that is removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Txn {
    /// All must hold.
    pub guards: Vec<Guard>,
    /// Applied in one revision.
    pub writes: Vec<Write>,
}

impl Txn {
    /// An empty transaction.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a guard.
    #[must_use]
    pub fn expect(mut self, key: impl Into<String>, expect: Expect) -> Self {
        self.guards.push(Guard {
            key: key.into(),
            expect,
        });
        self
    }

    /// Adds a put of a record.
    #[must_use]
    pub fn put<R: Record>(self, key: impl Into<String>, record: &R) -> Self {
        self.put_bytes(key, model::encode(record), None)
    }

    /// Adds a put of a record under a lease.
    #[must_use]
    pub fn put_leased<R: Record>(self, key: impl Into<String>, record: &R, lease: LeaseId) -> Self {
        self.put_bytes(key, model::encode(record), Some(lease))
    }

    /// Adds a put of bytes.
    #[must_use]
    pub fn put_bytes(mut self, key: impl Into<String>, value: Vec<u8>, lease: Option<LeaseId>) -> Self {
        self.writes.push(Write::Put {
            key: key.into(),
            value,
            lease,
        });
        self
    }

    /// Adds a delete.
    #[must_use]
    pub fn delete(mut self, key: impl Into<String>) -> Self {
        self.writes.push(Write::Delete { key: key.into() });
        self
    }

    /// Adds a delete of every key that begins with the prefix.
    #[must_use]
    pub fn delete_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.writes.push(Write::DeletePrefix { prefix: prefix.into() });
        self
    }
}

/// What became of a transaction. A refusal is an ordinary result: read again and decide anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Commit {
    /// All writes stand, durably, at this revision.
    Applied(Revision),
    /// Nothing was written.
    Refused {
        /// The first guard that did not hold.
        guard: Guard,
        /// What was found under its key instead.
        found: Option<Entry>,
    },
}

impl Commit {
    /// True when the writes stand.
    #[must_use]
    pub fn is_applied(&self) -> bool {
        matches!(self, Self::Applied(_))
    }
}

/// One change seen by a watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Which key.
    pub key: String,
    /// Its new bytes; `None`: it was removed, or its lease expired.
    pub value: Option<Vec<u8>>,
    /// The revision of the change.
    pub revision: Revision,
}

/// What a watch delivers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchEvent {
    /// All changes of one revision that match the prefix, in the order of the transaction.
    Changes(Vec<Change>),
    /// Changes were lost to compaction or to a reader that was too slow: read the whole range
    /// again and watch from the page's revision. Nothing follows.
    Resync,
}

/// A running watch; dropping it ends it. Ends with `None` when the store is closed.
pub type Watch = mpsc::Receiver<WatchEvent>;

/// Why the store could not answer. Refused guards are not errors ([`Commit::Refused`]).
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The call broke a limit or rule of this trait: a fault of the caller.
    #[error("illegal call of the store: {0}")]
    Illegal(String),
    /// The lease is not there (any more).
    #[error("lease {} is not there", .0.0)]
    NoLease(LeaseId),
    /// The engine cannot be reached or has no quorum; whether a write was applied is unknown.
    #[error("the store is not available: {0}")]
    Unavailable(String),
    /// The engine has no room left and takes no writes until somebody has made some, as the text says;
    /// reads, renewals of leases and removals work. The write that reached the limit may have been
    /// applied, as the next read shows; nothing is applied later.
    #[error("the store is full: {0}")]
    Full(String),
    /// The engine failed: a full disk, a damaged file. A write that failed so is not seen by any
    /// reader of this process, but may be there after a crash and a restart.
    #[error("the store failed: {0}")]
    Failed(String),
}

impl StoreError {
    /// True when the same call may succeed later without anyone mending anything.
    #[must_use]
    pub fn retry(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

/// The live store. Cheap to clone behind an `Arc`; every method may be called concurrently.
///
/// Dropping a future of [`Store::commit`] does not take the transaction back: it may have been applied.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The newest value of a key (linearizable).
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError>;

    /// Up to `limit` (at most [`PAGE_MAX`]) entries whose keys begin with `prefix`, in order of
    /// keys (bytewise), after the key `after` if one is given; fewer when the page passes
    /// [`PAGE_BYTES_MAX`]. Each page is consistent in itself; pages may differ in their revision, so a reader that needs one picture watches from the **first**
    /// page's revision and applies what changed meanwhile.
    async fn range(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page, StoreError>;

    /// Applies a transaction whole or not at all. When it answers `Applied`, it survives a crash.
    /// All guards are compared before anything is written.
    ///
    /// # Errors
    /// [`StoreError::NoLease`] when the guards hold and a put names a lease that is not there;
    /// nothing was written then.
    async fn commit(&self, txn: Txn) -> Result<Commit, StoreError>;

    /// Applies several transactions under common guards in as few round trips as the engine can.
    /// Each stands or falls alone: it is applied, whole, if and only if all outer guards and all of
    /// its own held in one and the same state. A broken outer guard is told before a broken one of
    /// its own. Answers one [`Commit`] for each, in order.
    ///
    /// An engine may apply a batch in several parts, at once or in any order, each compared with
    /// the outer guards of its own. Transactions of one part share a revision and are seen by a
    /// watch in the order of the batch; those of different parts have different revisions. So when
    /// an outer guard breaks meanwhile, some results may be its refusal and others not.
    /// At most [`BATCH_MAX`] transactions; the outer guards count among the operations of each.
    /// No key is written by two of them, and none guards a key that another one writes (a removed
    /// prefix writes every key below it): every guard is compared with the state before the batch,
    /// so such a guard would prove nothing.
    /// A batch that breaks this is [`StoreError::Illegal`] as a whole.
    ///
    /// # Errors
    /// As [`Store::commit`]. After [`StoreError::Illegal`] nothing of the batch was written. After
    /// [`StoreError::NoLease`] nothing of the part that names the lease was, other parts may have
    /// been; put what is leased into batches of its own if that matters. After any other error
    /// each transaction may have been applied or not.
    async fn commit_batch(&self, outer: Vec<Guard>, txns: Vec<Txn>) -> Result<Vec<Commit>, StoreError>;

    /// Every change of keys that begin with `prefix` after revision `after`. Delivered in order
    /// and at least once, across whatever happens to the connection with the engine. What waits for
    /// a slow reader is bounded: one that falls too far behind gets [`WatchEvent::Resync`], as does
    /// one that asks for what is no longer kept, e.g. a revision that was not read from this very
    /// store since it was opened.
    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, StoreError>;

    /// Forgets the changes up to and including `before`, so that the past takes no room: a watch
    /// from an earlier revision gets [`WatchEvent::Resync`]. Keys and values as they stand are not
    /// touched, nor are running watches. An engine without a need may keep more. A revision that
    /// is forgotten already is no error, and one of the future means the newest.
    async fn compact(&self, before: Revision) -> Result<(), StoreError>;

    /// A new lease with this time to live, milliseconds ([`LEASE_TTL_MIN_MS`] to [`LEASE_TTL_MAX_MS`]).
    /// A lease may last longer than this, e.g. by the time the engine was down, but never shorter.
    async fn lease_grant(&self, ttl_ms: u64) -> Result<LeaseId, StoreError>;

    /// Renews a lease; answers the remaining time, milliseconds, > 0. It is counted from a moment
    /// between this call and its answer, and is longer than what was asked for if the engine counts
    /// in coarser units.
    ///
    /// # Errors
    /// [`StoreError::NoLease`] when it has expired or was revoked.
    async fn lease_keep_alive(&self, lease: LeaseId) -> Result<u64, StoreError>;

    /// As [`Store::lease_keep_alive`] for many leases, in as few round trips as the engine can; one result
    /// for each, in order. One that has expired keeps the others waiting for a moment at most.
    async fn lease_keep_alive_all(&self, leases: &[LeaseId]) -> Vec<Result<u64, StoreError>> {
        let mut results = Vec::with_capacity(leases.len());
        for lease in leases {
            results.push(self.lease_keep_alive(*lease).await);
        }
        results
    }

    /// Ends a lease now; its keys vanish. No error if it is not there.
    async fn lease_revoke(&self, lease: LeaseId) -> Result<(), StoreError>;

    /// How much room there is. May cost a connection to each member of the engine.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when no member says anything of itself.
    async fn room(&self) -> Result<Room, StoreError> {
        Ok(Room::default())
    }
}

/// Every entry of a prefix and the revision to watch from, read page by page.
///
/// # Errors
/// As [`Store::range`].
pub async fn read_all(store: &dyn Store, prefix: &str) -> Result<(Vec<Entry>, Revision), StoreError> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut first_revision = None;
    loop {
        let after = entries.last().map(|e| e.key.clone());
        let page = store.range(prefix, after.as_deref(), PAGE_MAX).await?;
        first_revision.get_or_insert(page.revision);
        let empty = page.entries.is_empty();
        entries.extend(page.entries);
        if !page.more || empty {
            return Ok((entries, first_revision.unwrap_or_default()));
        }
    }
}
