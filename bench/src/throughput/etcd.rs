//! The etcd of a measurement: its members, what they have counted, and what they carry by themselves.
//!
//! Its data lies in the temporary folder, and every write waits for that disk. Not here: what
//! BuildFlow writes.

use super::usage::Usage;
use crate::BenchError;
use futures::stream::{StreamExt, TryStreamExt};
use std::time::{Duration, Instant};
use store::{Expect, Store, StoreError, Txn};
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
        endpoints: etcd.endpoints(),
        prefix: prefix.to_owned(),
        tls: None,
        user: None,
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

/// What etcd carries when nothing else is asked of it, keys a second.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct OwnRate {
    /// Each guarded by itself, 100 nested in a proposal, as the servers write.
    pub(crate) swaps: f64,
    /// Unguarded, 100 in a proposal.
    pub(crate) puts: f64,
}

impl OwnRate {
    /// Measures both with so many proposals in flight. What is written is removed again.
    pub(crate) async fn measure(etcd: &Etcd, in_flight: usize) -> Result<Self, BenchError> {
        let store = connect(etcd, RATES_PREFIX).await?;
        let failed = |e: StoreError| stopped("etcd's own rate", &e);
        let swaps = rate(in_flight, |n| swaps(&store, n)).await.map_err(failed)?;
        let puts = rate(in_flight, |n| puts(&store, n)).await.map_err(failed)?;
        for prefix in ["swap/", "put/"] {
            let txn = Txn::new().delete_prefix(prefix);
            store.commit(txn).await.map_err(failed)?;
        }
        Ok(Self { swaps, puts })
    }
}

/// Keys a second of proposals that each write [`BATCH`] keys.
async fn rate<F>(in_flight: usize, propose: impl Fn(usize) -> F) -> Result<f64, StoreError>
where
    F: Future<Output = Result<(), StoreError>>,
{
    let began = Instant::now();
    let numbers = (0..usize::MAX).take_while(|_| began.elapsed() < RATE_TIME);
    let proposals = futures::stream::iter(numbers.map(propose));
    let done = proposals
        .buffer_unordered(in_flight)
        .try_fold(0_usize, |n, ()| async move { Ok(n + 1) })
        .await?;
    Ok((done * BATCH) as f64 / began.elapsed().as_secs_f64())
}

async fn swaps(store: &EtcdStore, number: usize) -> Result<(), StoreError> {
    let one = |n: usize| {
        let key = format!("swap/{number}/{n}");
        Txn::new()
            .expect(key.clone(), Expect::Absent)
            .put_bytes(key, vec![b'x'; VALUE_BYTES], None)
    };
    store
        .commit_batch(Vec::new(), (0..BATCH).map(one).collect())
        .await
        .map(drop)
}

async fn puts(store: &EtcdStore, number: usize) -> Result<(), StoreError> {
    let txn = (0..BATCH).fold(Txn::new(), |txn, n| {
        txn.put_bytes(format!("put/{number}/{n}"), vec![b'x'; VALUE_BYTES], None)
    });
    store.commit(txn).await.map(drop)
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
