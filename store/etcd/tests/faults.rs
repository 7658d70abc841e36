//! etcd dies, stops, loses its quorum, or is cut off in the middle of writes and watches: nothing that
//! was acknowledged is lost, no watch has a gap, and every call ends in time.

mod proxy;
mod witness;

use proxy::{Proxy, Way};
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::{Commit, Expect, Revision, Store, StoreError, Txn, WatchEvent};
use store_etcd::EtcdStore;
use store_etcd::process::{Etcd, EtcdOptions, installed};
use tokio::task::block_in_place;
use witness::{PATIENCE, Witness, connect, until};

/// No call may take longer, whatever is broken: its own budget, and what a loaded machine adds.
const CALL_MAX: Duration = Duration::from_secs(20);

fn start(members: usize) -> Option<Etcd> {
    let options = EtcdOptions {
        members,
        heartbeat_ms: 100,
        ..EtcdOptions::default()
    };
    installed().then(|| block_in_place(|| Etcd::start(options)).expect("etcd starts"))
}

fn put(key: &str, value: &str) -> Txn {
    Txn::new().put_bytes(key, value.as_bytes().to_vec(), None)
}

/// Which member leads.
async fn leader(store: &EtcdStore) -> usize {
    let leads = |status: store_etcd::EtcdStatus| {
        let mut answers = status.endpoints.into_iter().map(|e| e.answer);
        answers.position(|a| a.is_ok_and(|m| m.leader))
    };
    until("a member leads", || async { leads(store.status().await).is_some() }).await;
    leads(store.status().await).expect("it has just led")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_member_is_killed_and_started_again() {
    let Some(mut etcd) = start(1) else { return };
    let store = connect(etcd.endpoints()).await;
    let lease = store.lease_grant(60_000).await.expect("it stands");
    let witness = Witness::begin(Arc::clone(&store)).await;
    for _ in 0..3 {
        witness.go_on(50).await;
        block_in_place(|| etcd.kill(0)).expect("it is killed");
        witness.falter().await;
        block_in_place(|| etcd.restart(0)).expect("it starts again");
    }
    witness.go_on(50).await;
    let found = witness.finish().await;
    assert!(found.failed >= 3, "{found:?}");
    store.lease_keep_alive(lease).await.expect("the lease outlived it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_of_three_is_killed() {
    let Some(mut etcd) = start(3) else { return };
    let store = connect(etcd.endpoints()).await;
    let lease = store.lease_grant(60_000).await.expect("it stands");
    let held = Txn::new().put_bytes("session", Vec::new(), Some(lease));
    store.commit(held).await.expect("it stands");
    let witness = Witness::begin(Arc::clone(&store)).await;
    for _ in 0..2 {
        witness.go_on(50).await;
        let killed = leader(&store).await;
        block_in_place(|| etcd.kill(killed)).expect("it is killed");
        let renewed = store.lease_keep_alive(lease).await;
        assert!(
            matches!(renewed, Ok(1..) | Err(StoreError::Unavailable(_))),
            "{renewed:?}"
        );
        witness.go_on(50).await;
        block_in_place(|| etcd.restart(killed)).expect("it starts again");
    }
    witness.finish().await;
    store
        .lease_keep_alive(lease)
        .await
        .expect("the lease survived two elections");
    assert!(store.get("session").await.expect("it stands").is_some());
}

/// The member that the store speaks to stands still, with all its connections open.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_member_in_use_is_paused() {
    let Some(etcd) = start(3) else { return };
    let store = connect(etcd.endpoints()).await;
    let witness = Witness::begin(Arc::clone(&store)).await;
    witness.go_on(50).await;
    etcd.pause(0).expect("it is paused");
    let begun = Instant::now();
    store.get("any").await.expect("another member answers");
    assert!(begun.elapsed() < CALL_MAX, "{:?}", begun.elapsed());
    witness.go_on(50).await;
    etcd.resume(0).expect("it goes on");
    witness.go_on(50).await;
    witness.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_quorum_is_said_in_time() {
    let Some(mut etcd) = start(3) else { return };
    let store = connect(etcd.endpoints()).await;
    let lease = store.lease_grant(120_000).await.expect("it stands");
    let witness = Witness::begin(Arc::clone(&store)).await;
    witness.go_on(50).await;
    block_in_place(|| etcd.kill(0).and_then(|()| etcd.kill(1))).expect("two of three are killed");
    witness.falter().await;
    let calls: [(&str, Result<(), StoreError>, Duration); 7] = [
        timed("get", store.get("k")).await,
        timed("range", store.range("w/", None, 10)).await,
        timed("commit", store.commit(put("k", "1"))).await,
        timed(
            "batch",
            store.commit_batch(Vec::new(), vec![put("k", "1"), put("l", "1")]),
        )
        .await,
        timed("grant", store.lease_grant(10_000)).await,
        timed("keep alive", store.lease_keep_alive(lease)).await,
        timed("compact", store.compact(Revision(1))).await,
    ];
    for (what, answer, took) in calls {
        assert!(matches!(answer, Err(StoreError::Unavailable(_))), "{what}: {answer:?}");
        assert!(took < CALL_MAX, "{what} took {took:?}");
    }
    let status = store.status().await;
    let answering = status.endpoints.iter().filter(|e| e.answer.is_ok()).count();
    assert!(answering == 1 && !status.healthy(), "{status:?}");
    for member in [0, 1] {
        etcd.spawn(member).expect("it starts again");
    }
    witness.go_on(50).await;
    let found = witness.finish().await;
    assert!(found.failed > 0, "{found:?}");
    store
        .lease_keep_alive(lease)
        .await
        .expect("no lease ends while nobody can renew it");
}

async fn timed<T>(
    what: &str,
    call: impl Future<Output = Result<T, StoreError>>,
) -> (&str, Result<(), StoreError>, Duration) {
    let begun = Instant::now();
    let answer = tokio::time::timeout(PATIENCE, call).await;
    let answer = answer.unwrap_or_else(|_| panic!("{what} hangs"));
    (what, answer.map(|_| ()), begun.elapsed())
}

/// The write is applied, its answer is lost: it is not known, not repeated, and there once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_whose_answer_is_lost_is_unknown_and_not_repeated() {
    let Some(etcd) = start(1) else { return };
    let direct = connect(etcd.endpoints()).await;
    let proxy = Proxy::start(etcd.port(0)).await;
    let store = connect(vec![proxy.endpoint()]).await;
    let from = direct.range("", None, 1).await.expect("it stands").revision;
    let mut watch = direct.watch("", from).await.expect("it stands");
    proxy.set(Way::SwallowsAnswers);
    let writing = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.commit_batch(Vec::new(), vec![put("a", "1"), put("b", "1")]).await }
    });
    let applied = || async { direct.get("b").await.expect("it stands").is_some() };
    until("the write is applied", applied).await;
    proxy.cut();
    let answer = tokio::time::timeout(CALL_MAX, writing)
        .await
        .expect("in time")
        .expect("no panic");
    assert!(matches!(answer, Err(StoreError::Unavailable(_))), "{answer:?}");
    assert!(proxy.faults() >= 2, "answers were swallowed and the connection cut");
    proxy.set(Way::Open);
    until("the way is open again", || async {
        store.commit(put("end", "1")).await.is_ok()
    })
    .await;
    let mut seen = Vec::new();
    while seen.last().is_none_or(|key| key != "end") {
        match tokio::time::timeout(PATIENCE, watch.recv())
            .await
            .expect("the end is seen")
        {
            Some(WatchEvent::Changes(changes)) => seen.extend(changes.into_iter().map(|c| c.key)),
            ended => panic!("{ended:?}"),
        }
    }
    assert_eq!(seen, ["a", "b", "end"], "each once");
}

/// A write that reached nobody is sent to another member, without a word.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_was_not_sent_goes_another_way() {
    let Some(etcd) = start(1) else { return };
    let (first, second) = (Proxy::start(etcd.port(0)).await, Proxy::start(etcd.port(0)).await);
    let store = connect(vec![first.endpoint(), second.endpoint()]).await;
    for round in 0..6 {
        let (shut, open) = if round % 2 == 0 {
            (&first, &second)
        } else {
            (&second, &first)
        };
        shut.set(Way::Refuses);
        open.set(Way::Open);
        shut.cut();
        // The first call over a connection that has just been cut may be lost; the next ones never.
        let _ = store.get("k").await;
        let answer = store.commit(put("k", &round.to_string())).await;
        assert!(matches!(answer, Ok(Commit::Applied(_))), "round {round}: {answer:?}");
    }
    assert!(first.faults() > 0 && second.faults() > 0);
}

/// The stream of changes breaks after three megabytes (a message has up to two), again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_keeps_breaking_has_no_gap() {
    const WRITES: usize = 300;
    let Some(etcd) = start(1) else { return };
    let direct = connect(etcd.endpoints()).await;
    let proxy = Proxy::start(etcd.port(0)).await;
    let store = connect(vec![proxy.endpoint()]).await;
    let from = direct.range("", None, 1).await.expect("it stands").revision;
    let mut watch = store.watch("k/", from).await.expect("it stands");
    proxy.set(Way::CutsAfter(3_000_000));
    proxy.cut();
    let writer = tokio::spawn(async move {
        for n in 0..WRITES {
            // Two keys of one revision, which arrive together or not at all.
            let txn = [format!("k/{n:04}/a"), format!("k/{n:04}/b")].into_iter();
            let txn = txn.fold(Txn::new(), |t, key| t.put_bytes(key, vec![b'x'; 40_000], None));
            direct.commit(txn).await.expect("it stands");
        }
    });
    let mut last = from;
    for n in 0..WRITES {
        let event = tokio::time::timeout(PATIENCE, watch.recv()).await.expect("it goes on");
        let Some(WatchEvent::Changes(changes)) = event else {
            panic!("{event:?}")
        };
        let keys: Vec<&str> = changes.iter().map(|c| c.key.as_str()).collect();
        assert_eq!(keys, [format!("k/{n:04}/a"), format!("k/{n:04}/b")]);
        assert!(changes[0].revision > last && changes[1].revision == changes[0].revision);
        last = changes[0].revision;
    }
    writer.await.expect("no panic");
    assert!(proxy.faults() > 5, "{} cuts", proxy.faults());
}

/// What happened while the stream was away is forgotten: the watch says so, and a new one works.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_that_were_compacted_meanwhile_are_a_resync() {
    let Some(etcd) = start(1) else { return };
    let direct = connect(etcd.endpoints()).await;
    let proxy = Proxy::start(etcd.port(0)).await;
    let store = connect(vec![proxy.endpoint()]).await;
    let from = store.range("", None, 1).await.expect("it stands").revision;
    let mut watch = store.watch("", from).await.expect("it stands");
    proxy.set(Way::Refuses);
    proxy.cut();
    for n in 0..3 {
        direct.commit(put("k", &n.to_string())).await.expect("it stands");
    }
    let newest = direct.range("", None, 1).await.expect("it stands").revision;
    direct.compact(newest).await.expect("it stands");
    proxy.set(Way::Open);
    let event = tokio::time::timeout(PATIENCE, watch.recv()).await.expect("it is told");
    assert_eq!(event, Some(WatchEvent::Resync));
    assert_eq!(watch.recv().await, None);
    let page = store.range("", None, 10).await.expect("it stands");
    let mut watch = store.watch("", page.revision).await.expect("it stands");
    let written = put("k", "new").expect("k", Expect::Revision(page.entries[0].mod_revision));
    store.commit(written).await.expect("it stands");
    let event = tokio::time::timeout(PATIENCE, watch.recv()).await.expect("it is told");
    assert!(matches!(event, Some(WatchEvent::Changes(c)) if c[0].value.as_deref() == Some(b"new")));
}

/// A counter of a member's calls of one kind, by its beginning in the text form.
fn counted(etcd: &Etcd, counter: &str) -> u64 {
    let metrics = block_in_place(|| etcd.metrics(0)).expect("it counts");
    let mut lines = metrics
        .lines()
        .filter(|l| l.starts_with(counter) && l.contains("grpc_method=\"Watch\""));
    let last = lines
        .next()
        .and_then(|l| l.rsplit(' ').next())
        .expect("the counter is there");
    last.parse().expect("a number")
}

/// When nothing happens the member is asked for a sign of life and gives it: the stream stays, and
/// however many watches there are, it is the only one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quiet_stream_stays_open_and_serves_all() {
    const WATCHES: usize = 500;
    let Some(etcd) = start(1) else { return };
    let store = connect(etcd.endpoints()).await;
    let from = store.range("", None, 1).await.expect("it stands").revision;
    let mut watches = Vec::new();
    for n in 0..WATCHES {
        watches.push(store.watch(&format!("alloc/{n}/"), from).await.expect("it stands"));
    }
    // One message opens the watch, the others ask.
    until("it was asked several times", || async {
        counted(&etcd, "grpc_server_msg_received_total") > 3
    })
    .await;
    for (n, watch) in watches.iter_mut().enumerate() {
        store
            .commit(put(&format!("alloc/{n}/x"), "1"))
            .await
            .expect("it stands");
        let event = tokio::time::timeout(PATIENCE, watch.recv()).await.expect("it is told");
        assert!(matches!(event, Some(WatchEvent::Changes(c)) if c.len() == 1), "{n}");
    }
    assert_eq!(counted(&etcd, "grpc_server_started_total"), 1);
}
