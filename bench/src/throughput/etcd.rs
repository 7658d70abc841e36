//! The etcd of a measurement: its members, what they have counted, and what they carry by themselves.
//!
//! Its data lies in the temporary folder, and every write waits for that disk. Not here: what
//! BuildFlow writes.

use super::usage::Usage;
use crate::BenchError;
use futures::future::try_join_all;
use std::time::{Duration, Instant};
use store::{Commit, Expect, Store, StoreError, Txn};
use store_etcd::process::{Etcd, EtcdOptions};
use store_etcd::{EtcdConfig, EtcdStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Between signs of life of etcd's leader, milliseconds: its own default, for here it shares its cores
/// with all that is measured.
const HEARTBEAT_MS: u64 = 100;

/// Room for a day of runs: etcd's largest suggested size.
const QUOTA: &str = "--quota-backend-bytes=8589934592";

/// Transactions of one proposal.
const BATCH: usize = 100;

/// Bytes of a value: about those of a step's record.
const VALUE_BYTES: usize = 400;

/// How long each of etcd's own rates is measured.
const RATE_TIME: Duration = Duration::from_secs(3);

/// What every key of the servers begins with.
pub(crate) const PREFIX: &str = "buildflow/";

/// What every key of etcd's own rates begins with.
const RATES_PREFIX: &str = "rates/";

fn stopped(what: &str, cause: &dyn std::fmt::Display) -> BenchError {
    BenchError::Stopped(format!("{what}: {cause}"))
}

/// Starts so many members. Blocks some seconds.
pub(crate) async fn start(members: usize) -> Result<Etcd, BenchError> {
    let options = EtcdOptions {
        members,
        fsync: true,
        heartbeat_ms: HEARTBEAT_MS,
        arguments: vec![QUOTA.to_owned()],
        tls: None,
    };
    let started = tokio::task::spawn_blocking(|| Etcd::start(options)).await;
    let started = started.map_err(|e| stopped("etcd", &e))?;
    started.map_err(|e| stopped("etcd does not start (apt install etcd-server)", &e))
}

/// A store below `prefix`.
pub(crate) async fn connect(etcd: &Etcd, prefix: &str) -> Result<EtcdStore, BenchError> {
    let config = EtcdConfig {
        prefix: prefix.to_owned(),
        ..EtcdConfig::plain(etcd.endpoints())
    };
    EtcdStore::connect(config).await.map_err(|e| stopped("etcd", &e))
}

/// What all members have used.
pub(crate) fn usage(etcd: &Etcd, members: usize) -> Usage {
    let pids: Vec<u32> = (0..members).filter_map(|member| etcd.pid(member)).collect();
    Usage::of(&pids)
}

/// What a member has counted since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Counted {
    /// Keys put.
    pub(crate) puts: f64,
    /// Keys deleted.
    pub(crate) deletes: f64,
    /// Proposals of its raft: what is agreed upon and made durable as one.
    pub(crate) proposals: f64,
    /// Waits for the disk of its log.
    pub(crate) syncs: f64,
    /// How long those took together, seconds.
    pub(crate) sync_seconds: f64,
    /// Bytes of its database file that are in use.
    pub(crate) used_bytes: f64,
    /// Bytes of its database file.
    pub(crate) file_bytes: f64,
}

impl Counted {
    /// Asks the first member: every member applies every write.
    pub(crate) async fn read(etcd: &Etcd) -> Result<Self, BenchError> {
        let text = page(etcd.port(0)).await.map_err(|e| stopped("etcd's metrics", &e))?;
        let of = |name: &str| value(&text, name).unwrap_or(0.0);
        Ok(Self {
            puts: of("etcd_mvcc_put_total").max(of("etcd_debugging_mvcc_put_total")),
            deletes: of("etcd_mvcc_delete_total").max(of("etcd_debugging_mvcc_delete_total")),
            proposals: of("etcd_server_proposals_committed_total"),
            syncs: of("etcd_disk_wal_fsync_duration_seconds_count"),
            sync_seconds: of("etcd_disk_wal_fsync_duration_seconds_sum"),
            used_bytes: of("etcd_mvcc_db_total_size_in_use_in_bytes"),
            file_bytes: of("etcd_mvcc_db_total_size_in_bytes"),
        })
    }

    /// What was counted after `before`; sizes as they are now.
    pub(crate) fn since(&self, before: &Self) -> Self {
        Self {
            puts: self.puts - before.puts,
            deletes: self.deletes - before.deletes,
            proposals: self.proposals - before.proposals,
            syncs: self.syncs - before.syncs,
            sync_seconds: self.sync_seconds - before.sync_seconds,
            ..*self
        }
    }
}

async fn page(port: u16) -> std::io::Result<String> {
    let mut connection = TcpStream::connect(("127.0.0.1", port)).await?;
    connection.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await?;
    let mut text = Vec::new();
    connection.read_to_end(&mut text).await?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn value(text: &str, name: &str) -> Option<f64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    line.trim().parse().ok()
}

/// What etcd carries when nothing else is asked of it, keys a second. One watch hears of it all, as
/// one does of each server.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct OwnRate {
    /// Each guarded by itself, 100 nested in a proposal, as the servers write.
    pub(crate) swaps: f64,
    /// Unguarded, 100 in a proposal.
    pub(crate) puts: f64,
}

impl OwnRate {
    /// Measures both with so many proposals in flight, each of keys of its own that are written again
    /// and again. Nothing is removed: etcd takes minutes to tell a watch of some 100,000 keys that go at
    /// the same revision.
    pub(crate) async fn measure(etcd: &Etcd, in_flight: usize) -> Result<Self, BenchError> {
        let store = connect(etcd, RATES_PREFIX).await?;
        let failed = |e: StoreError| stopped("etcd's own rate", &e);
        let swaps = rate(in_flight, |n, until| swaps(&store, n, until))
            .await
            .map_err(failed)?;
        let puts = rate(in_flight, |n, until| puts(&store, n, until))
            .await
            .map_err(failed)?;
        Ok(Self { swaps, puts })
    }
}

/// Keys a second of some proposers, each of which answers how many proposals it had accepted.
async fn rate<F>(proposers: usize, propose: impl Fn(usize, Instant) -> F) -> Result<f64, StoreError>
where
    F: Future<Output = Result<usize, StoreError>>,
{
    let began = Instant::now();
    let done = try_join_all((0..proposers).map(|n| propose(n, began + RATE_TIME))).await?;
    Ok((done.iter().sum::<usize>() * BATCH) as f64 / began.elapsed().as_secs_f64())
}

async fn swaps(store: &EtcdStore, proposer: usize, until: Instant) -> Result<usize, StoreError> {
    let keys: Vec<String> = (0..BATCH).map(|n| format!("swap/{proposer}/{n}")).collect();
    let known = store.range(&format!("swap/{proposer}/"), None, BATCH).await?.entries;
    let mut expected = vec![Expect::Absent; BATCH];
    for entry in known {
        if let Some(at) = keys.iter().position(|key| *key == entry.key) {
            expected[at] = Expect::Revision(entry.mod_revision);
        }
    }
    let mut done = 0;
    while Instant::now() < until {
        let swap = |(key, expect): (&String, &Expect)| {
            Txn::new()
                .expect(key, *expect)
                .put_bytes(key, vec![b'x'; VALUE_BYTES], None)
        };
        let txns = keys.iter().zip(&expected).map(swap).collect();
        for (expect, commit) in expected.iter_mut().zip(store.commit_batch(Vec::new(), txns).await?) {
            match commit {
                Commit::Applied(revision) => *expect = Expect::Revision(revision),
                Commit::Refused { guard, .. } => return Err(StoreError::Failed(format!("{} was written", guard.key))),
            }
        }
        done += 1;
    }
    Ok(done)
}

async fn puts(store: &EtcdStore, proposer: usize, until: Instant) -> Result<usize, StoreError> {
    let mut done = 0;
    while Instant::now() < until {
        let txn = (0..BATCH).fold(Txn::new(), |txn, n| {
            txn.put_bytes(format!("put/{proposer}/{n}"), vec![b'x'; VALUE_BYTES], None)
        });
        store.commit(txn).await?;
        done += 1;
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_found_by_its_whole_name() {
        let text = "# TYPE etcd_mvcc_put_total counter\netcd_mvcc_put_total_other 3\netcd_mvcc_put_total 1.5e+06\n";
        assert_eq!(value(text, "etcd_mvcc_put_total"), Some(1_500_000.0));
        assert_eq!(value(text, "etcd_mvcc_put"), None);
    }
}
