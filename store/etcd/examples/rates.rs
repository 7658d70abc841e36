//! How much etcd takes on this machine through this crate: the latency of a put, and guarded
//! transactions a second when a hundred of them share a proposal.
//!
//! `cargo run --release -p store-etcd --features process --example rates [SECONDS]`; each line is
//! measured for that long (3 s). One member, then three, every write on disk before it is answered.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::{Commit, Expect, Guard, Revision, Store, Txn};
use store_etcd::process::{Etcd, EtcdOptions};
use store_etcd::{EtcdConfig, EtcdStore};

/// Transactions of one proposal.
const NESTED: usize = 100;

/// Bytes of a value: about what a step's record has.
const VALUE_BYTES: usize = 300;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> Outcome<()> {
    let seconds = std::env::args().nth(1).map_or(Ok(3), |s| s.parse())?;
    let each = Duration::from_secs(seconds);
    let runtime = tokio::runtime::Runtime::new()?;
    for members in [1, 3] {
        let etcd = Etcd::start(EtcdOptions {
            members,
            fsync: true,
            heartbeat_ms: 100,
            ..EtcdOptions::default()
        })?;
        let store = Arc::new(runtime.block_on(EtcdStore::connect(EtcdConfig::plain(etcd.endpoints())))?);
        println!("{members} member(s)");
        runtime.block_on(one_after_another(&store, each))?;
        for in_flight in [1, 2, 4, 16] {
            runtime.block_on(batches(&store, in_flight, each))?;
        }
    }
    Ok(())
}

async fn one_after_another(store: &EtcdStore, each: Duration) -> Outcome<()> {
    let begun = Instant::now();
    let mut took = Vec::new();
    while begun.elapsed() < each {
        let asked = Instant::now();
        let put = Txn::new().put_bytes("put", vec![b'x'; VALUE_BYTES], None);
        store.commit(put).await?;
        took.push(asked.elapsed());
    }
    let (median, late) = percentiles(took);
    println!("  put, one after another: median {median:.2?}, p99 {late:.2?}");
    Ok(())
}

async fn batches(store: &Arc<EtcdStore>, in_flight: usize, each: Duration) -> Outcome<()> {
    let leader = Txn::new().put_bytes("leader", Vec::new(), None);
    let Commit::Applied(leader) = store.commit(leader).await? else {
        return Err("the leader's key was refused".into());
    };
    let begun = Instant::now();
    let senders = (0..in_flight).map(|sender| tokio::spawn(send(Arc::clone(store), leader, sender, begun + each)));
    let mut took = Vec::new();
    for sender in senders.collect::<Vec<_>>() {
        took.extend(sender.await??);
    }
    let rate = (took.len() * NESTED) as f64 / begun.elapsed().as_secs_f64();
    let (median, late) = percentiles(took);
    println!("  {NESTED} nested, {in_flight:>2} in flight: {rate:>7.0}/s, median {median:.2?}, p99 {late:.2?}");
    Ok(())
}

/// Sends one proposal after another, each guarded by what the one before has written.
async fn send(store: Arc<EtcdStore>, leader: Revision, sender: usize, until: Instant) -> Outcome<Vec<Duration>> {
    let outer = vec![Guard {
        key: "leader".to_owned(),
        expect: Expect::Revision(leader),
    }];
    let mut expect = store
        .get(&key(sender, 0))
        .await?
        .map_or(Expect::Absent, |e| Expect::Revision(e.mod_revision));
    let mut took = Vec::new();
    while Instant::now() < until {
        let txn = |n| {
            Txn::new()
                .expect(key(sender, n), expect)
                .put_bytes(key(sender, n), vec![b'x'; VALUE_BYTES], None)
        };
        let asked = Instant::now();
        let commits = store
            .commit_batch(outer.clone(), (0..NESTED).map(txn).collect())
            .await?;
        took.push(asked.elapsed());
        match commits.first() {
            Some(Commit::Applied(revision)) => expect = Expect::Revision(*revision),
            refused => return Err(format!("expected to be applied: {refused:?}").into()),
        }
    }
    Ok(took)
}

fn key(sender: usize, n: usize) -> String {
    format!("run/{sender:02}/step/{n:04}")
}

/// The median and the one that 99 of 100 do not exceed.
fn percentiles(mut took: Vec<Duration>) -> (Duration, Duration) {
    took.sort_unstable();
    let at = |percent: usize| took.get(took.len() * percent / 100).copied().unwrap_or_default();
    (at(50), at(99))
}
