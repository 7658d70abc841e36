//! The live store in etcd, behind [`store::Store`]: what a cluster of servers shares.
//!
//! Every call has a time-out, and another member is asked when one fails; a write that may have been
//! applied is [`StoreError::Unavailable`] and never repeated. All watches of a process are served
//! from one stream, a batch of transactions goes in as few proposals as etcd's limits allow, and
//! leases are renewed over a few streams. Made for etcd 3.4, 3.5 and 3.6.
//!
//! Not here: the rules of the trait (`store`), what the records mean (`model`), when the past is
//! forgotten (the leader decides).

mod commits;
mod config;
mod fault;
mod feed;
mod keys;
mod leases;
mod members;
mod pages;
#[cfg(feature = "process")]
pub mod process;
mod request;
mod status;

pub use config::{DEFAULT_PREFIX, DEFAULT_QUOTA_BYTES, EtcdConfig, EtcdTls};
pub use status::{EndpointStatus, EtcdStatus, MemberStatus};

use async_trait::async_trait;
use fault::{Fault, Kind};
use feed::Feed;
use keys::{Keys, number};
use leases::Renewals;
use members::Members;
use pages::Sizes;
use std::sync::Arc;
use store::legal;
use store::{Commit, Entry, Guard, LeaseId, Page, Revision, Room, Store, StoreError, Txn, Watch};

/// The key that is read to see whether a quorum answers; nobody writes it.
const PROBE_KEY: &str = "probe";

/// The store of a cluster. Dropping it ends its watches.
pub struct EtcdStore {
    members: Arc<Members>,
    keys: Keys,
    sizes: Sizes,
    renewals: Renewals,
    feed: Feed,
    /// As it was configured.
    quota_bytes: u64,
}

impl std::fmt::Debug for EtcdStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EtcdStore")
            .field("keys", &self.keys)
            .field("endpoint", &self.members.url(self.members.current()))
            .finish_non_exhaustive()
    }
}

impl EtcdStore {
    /// Connects, and proves that a quorum answers and that the prefix may be read. Takes at most
    /// about 20 s; endpoints that do not answer are used once they do, as long as one does now.
    ///
    /// # Errors
    /// [`StoreError::Illegal`] for a configuration that cannot be right, [`StoreError::Unavailable`]
    /// when nothing answers (worth trying again), [`StoreError::Failed`] when what answers cannot be
    /// used: too old, a wrong password, another cluster. Each names the endpoints.
    pub async fn connect(config: EtcdConfig) -> Result<Self, StoreError> {
        let members = Arc::new(Members::connect(&config).await?);
        let keys = Keys::new(&config.prefix);
        let probe = pages::entry(&members, &keys, PROBE_KEY, None).await;
        probe.map_err(|fault| members.told(fault))?;
        let feed = Feed::open(Arc::clone(&members), keys.clone()).await?;
        Ok(Self {
            members,
            keys,
            sizes: Sizes::default(),
            renewals: Renewals::default(),
            feed,
            quota_bytes: config.quota_bytes,
        })
    }

    /// What each member says of itself, and what etcd raises the alarm about. Takes at most about
    /// 10 s, whatever is down.
    pub async fn status(&self) -> EtcdStatus {
        status::status(&self.members, &self.keys).await
    }

    /// Makes etcd forget everything up to a revision; quiet when it has already.
    async fn compact_etcd(&self, before: Revision) -> Result<(), (Fault, usize)> {
        let answer = self
            .members
            .ask_for(|mut via| async move {
                let answer = via.client.compact(number(before), None).await?;
                self.members.check_cluster(answer.header())
            })
            .await;
        match answer {
            Err((fault, _)) if fault.kind == Kind::Compacted => Ok(()),
            answer => answer,
        }
    }
}

#[async_trait]
impl Store for EtcdStore {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        legal::key(key)?;
        let entry = pages::entry(&self.members, &self.keys, key, None).await;
        entry.map_err(|fault| self.members.told(fault))
    }

    async fn range(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page, StoreError> {
        legal::range(prefix, after, limit)?;
        pages::range(&self.members, &self.keys, &self.sizes, prefix, after, limit).await
    }

    async fn commit(&self, txn: Txn) -> Result<Commit, StoreError> {
        legal::batch(&[], std::slice::from_ref(&txn))?;
        commits::commit(&self.members, &self.keys, &txn).await
    }

    async fn commit_batch(&self, outer: Vec<Guard>, txns: Vec<Txn>) -> Result<Vec<Commit>, StoreError> {
        legal::batch(&outer, &txns)?;
        commits::commit_batch(&self.members, &self.keys, &outer, &txns).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, StoreError> {
        legal::prefix(prefix)?;
        Ok(self.feed.watch(prefix, after))
    }

    /// Concerns all of etcd, so also others that share it. Stay well behind the newest revision: etcd
    /// before 3.4.31 and 3.5.13 may pass changes over in a watch that a compaction overtakes.
    async fn compact(&self, before: Revision) -> Result<(), StoreError> {
        let mut answer = self.compact_etcd(before).await;
        if answer.as_ref().is_err_and(|(fault, _)| fault.kind == Kind::Future) {
            let newest = self.range("", None, 1).await?.revision;
            answer = self.compact_etcd(newest).await;
        }
        answer.map_err(|fault| self.members.told(fault))?;
        self.feed.compact(before);
        Ok(())
    }

    async fn lease_grant(&self, ttl_ms: u64) -> Result<LeaseId, StoreError> {
        legal::ttl(ttl_ms)?;
        leases::grant(&self.members, ttl_ms).await
    }

    async fn lease_keep_alive(&self, lease: LeaseId) -> Result<u64, StoreError> {
        self.renewals.renew(&self.members, lease).await
    }

    async fn lease_keep_alive_all(&self, leases: &[LeaseId]) -> Vec<Result<u64, StoreError>> {
        self.renewals.renew_all(&self.members, leases).await
    }

    async fn lease_revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        leases::revoke(&self.members, lease).await
    }

    async fn room(&self) -> Result<Room, StoreError> {
        let status = self.status().await;
        status.room(self.quota_bytes).map_err(StoreError::Unavailable)
    }
}
