//! Sessions over a real connection.

use super::fixture::*;
use super::hello::tests::hello;
use super::report::tests::observed;
use model::{NodeId, NodeRecord, ObservedState, Outcome, SessionRecord, Stop, key};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use store::memory::MemoryStore;
use store::sqlite::SqliteStore;
use store::{FolderBlobs, Revision, Store, Txn};
use tempfile::TempDir;
use tonic::Code;
use wire::v1;
use wire::v1::agent_message::Message as FromAgent;
use wire::v1::server_message::Message as FromServer;

const LEASE: Duration = Duration::from_secs(20);

struct World {
    port: Port,
    folder: TempDir,
}

impl World {
    async fn over(store: Arc<dyn Store>) -> Self {
        Self::with(store, LEASE).await
    }

    async fn with(store: Arc<dyn Store>, lease: Duration) -> Self {
        let folder = TempDir::new().unwrap();
        make_run(store.as_ref(), &["unit", "lint"]).await;
        let blobs = Arc::new(FolderBlobs::open(folder.path().join("blobs")).unwrap());
        Self {
            port: Port::open("s1", store, blobs, lease).await,
            folder,
        }
    }

    async fn new() -> Self {
        Self::over(Arc::new(MemoryStore::new())).await
    }

    fn store(&self) -> &dyn Store {
        self.port.store.as_ref()
    }

    async fn place(&self, counter: u32) {
        place(self.store(), &allocation(0, counter)).await;
    }

    async fn remove(&self, counter: u32) {
        let txn = Txn::new().delete(key::alloc(&node(), &alloc_id(0, counter)));
        self.store().commit(txn).await.unwrap();
    }

    async fn session(&self) -> Option<SessionRecord> {
        let entry = self.store().get(&key::session(&node())).await.unwrap()?;
        Some(entry.decode().unwrap())
    }
}

fn node() -> NodeId {
    NodeId::new("n1").unwrap()
}

#[tokio::test]
async fn a_node_registers_and_gets_all_that_stands() {
    let folder = TempDir::new().unwrap();
    for store in [
        Arc::new(MemoryStore::new()) as Arc<dyn Store>,
        Arc::new(SqliteStore::open(folder.path()).unwrap()),
    ] {
        let world = World::over(store).await;
        world.place(1).await;
        let (_agent, epoch, orders) = Agent::register(&world.port, &[]).await;
        assert_eq!(epoch, 1);
        let record: NodeRecord = world.store().get("node/n1").await.unwrap().unwrap().decode().unwrap();
        assert_eq!((record.epoch, record.slots, record.name.as_str()), (1, 16, "host-1"));
        let session = world.session().await.expect("the session is there");
        assert_eq!((session.server.as_str(), session.node_epoch), ("s1", 1));
        let [order] = orders.as_slice() else {
            panic!("{orders:?}")
        };
        assert_eq!(order.alloc_id, "01jd-0-1-1");
        assert_eq!(
            (order.run_number, order.stage.as_str(), order.stop.as_str()),
            (7, "build", "")
        );
        assert_eq!(
            (order.team.as_str(), order.pipeline.as_str(), order.attempt),
            ("default", "app", 1)
        );
        let def: model::StepDef = serde_json::from_str(&order.step_def_json).unwrap();
        assert_eq!(def.name.as_str(), "unit");
        let source: model::Source = serde_json::from_str(&order.source_json).unwrap();
        assert_eq!(source.branch(), Some("main"));
        assert_eq!(order.variables["V"], "1");
    }
}

#[tokio::test]
async fn only_a_node_that_says_hello_properly_is_let_in() {
    let world = World::new().await;
    let good = || FromAgent::Hello(hello("n1"));
    let renew = FromAgent::Renew(v1::Renew { sequence: 1 });
    let bad = FromAgent::Hello(v1::Hello {
        slots: 0,
        ..hello("n1")
    });
    let cases = [
        (None, good(), Code::Unauthenticated, "Authorization: Bearer"),
        (Some("other"), good(), Code::Unauthenticated, "not known"),
        (Some("admin"), good(), Code::PermissionDenied, "role `node`"),
        (Some("node"), renew, Code::InvalidArgument, "must be Hello"),
        (Some("node"), bad, Code::InvalidArgument, "hello.slots: is 0"),
    ];
    for (token, first, code, text) in cases {
        let status = match Agent::open(&world.port, token, first).await {
            Ok(agent) => agent.end().await,
            Err(status) => status,
        };
        assert_eq!(status.code(), code, "{status:?}");
        assert!(status.message().contains(text), "{status:?}");
    }
    assert_eq!(world.session().await, None, "none of them left a trace");
    assert!(world.store().get("node/n1").await.unwrap().is_none());
}

#[tokio::test]
async fn a_message_that_breaks_the_rules_ends_the_session_and_says_why() {
    let world = World::new().await;
    let alloc = alloc_id(0, 1).to_string();
    let log = |alloc_id: &str, len: usize| {
        FromAgent::Log(v1::LogData {
            alloc_id: alloc_id.to_owned(),
            offset: 0,
            bytes: vec![0; len],
            end: false,
        })
    };
    let report = FromAgent::Report(v1::Report {
        alloc_id: alloc.clone(),
        fence: None,
        observed_json: String::new(),
    });
    let cases = [
        (FromAgent::Hello(hello("n1")), "Hello comes once"),
        (report, "the fence is missing"),
        (log("a/b", 1), "not a legal id"),
        (log(&alloc, wire::LOG_DATA_MAX + 1), "262145 bytes in one message"),
    ];
    for (message, text) in cases {
        let (agent, ..) = Agent::register(&world.port, &[]).await;
        agent.send(message).await;
        let status = agent.end().await;
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains(text), "{status:?}");
    }
}

#[tokio::test]
async fn orders_follow_the_store() {
    let world = World::new().await;
    let (mut agent, _, orders) = Agent::register(&world.port, &[]).await;
    assert!(orders.is_empty());
    world.place(1).await;
    let FromServer::Order(order) = agent.next().await else {
        panic!("an order")
    };
    assert_eq!((order.alloc_id.as_str(), order.stop.as_str()), ("01jd-0-1-1", ""));
    let stopped = model::Allocation {
        stop: Some(Stop::Cancelled),
        ..allocation(0, 1)
    };
    place(world.store(), &stopped).await;
    let FromServer::Order(order) = agent.next().await else {
        panic!("an order")
    };
    assert_eq!(order.stop, "cancelled");
    world.remove(1).await;
    let FromServer::Forget(forget) = agent.next().await else {
        panic!("it never ended")
    };
    assert_eq!(forget.alloc_id, "01jd-0-1-1");
    world.place(2).await;
    assert!(matches!(agent.next().await, FromServer::Order(_)));
    agent.report(&observed(2, ObservedState::Ended)).await;
    agent.report_ack().await;
    fold(world.store(), 0, 2, 0).await;
    world.place(3).await;
    let next = agent.next().await;
    assert!(
        matches!(next, FromServer::Order(_)),
        "what ended is not forgotten, even when the next attempt is there: {next:?}"
    );
}

#[tokio::test]
async fn what_an_agent_holds_and_nobody_wants_is_forgotten_at_once() {
    let world = World::new().await;
    world.place(2).await;
    place(world.store(), &allocation(1, 1)).await;
    fold(world.store(), 1, 1, 5).await;
    let held = [alloc_id(0, 1), alloc_id(0, 2), alloc_id(1, 1)];
    let (mut agent, _, orders) = Agent::register(&world.port, &held).await;
    assert_eq!(orders.len(), 1);
    let FromServer::Forget(forget) = agent.next().await else {
        panic!("the first attempt is gone")
    };
    assert_eq!(forget.alloc_id, held[0].as_str());
    agent.send(FromAgent::Renew(v1::Renew { sequence: 9 })).await;
    let next = agent.next().await;
    assert!(
        matches!(next, FromServer::RenewAck(v1::RenewAck { sequence: 9 })),
        "no other is: {next:?}"
    );
}

#[tokio::test]
async fn an_order_that_cannot_be_written_fails_its_step() {
    let world = World::new().await;
    let txn = Txn::new().delete(key::run_def(&run_id(), 0));
    world.store().commit(txn).await.unwrap();
    let mut watch = world.store().watch("observed/", Revision(0)).await.unwrap();
    world.place(1).await;
    let (_agent, _, orders) = Agent::register(&world.port, &[]).await;
    assert!(orders.is_empty());
    soon("a report", watch.recv()).await;
    let filed = filed(world.store(), &alloc_id(0, 1)).await.expect("filed");
    let Some(Outcome::StartFailed { message, .. }) = filed.outcome else {
        panic!("{filed:?}")
    };
    assert!(message.contains("chunk 0 of the definition is missing"), "{message}");
    assert_eq!((filed.state, filed.log_bytes), (ObservedState::Ended, Some(0)));
}

#[tokio::test]
async fn reports_grow_are_filed_once_and_answered_every_time() {
    use ObservedState::{Ended, Preparing, Running};
    let world = World::new().await;
    world.place(1).await;
    let (mut agent, ..) = Agent::register(&world.port, &[]).await;
    let mut last = None;
    for (sent, stands) in [
        (Running, Running),
        (Preparing, Running),
        (Running, Running),
        (Ended, Ended),
        (Ended, Ended),
        (Running, Ended),
    ] {
        agent.report(&observed(1, sent)).await;
        let word = serde_json::to_value(sent).unwrap();
        assert_eq!(agent.report_ack().await, (word.as_str().unwrap().to_owned(), true));
        let entry = world
            .store()
            .get(&key::observed(&alloc_id(0, 1)))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(entry.decode::<model::Observed>().unwrap(), observed(1, stands));
        if let Some((state, revision)) = last
            && state == stands
        {
            assert_eq!(entry.mod_revision, revision, "nothing is written twice");
        }
        last = Some((stands, entry.mod_revision));
    }
    fold(world.store(), 0, 1, 12).await;
    agent.report(&observed(1, Ended)).await;
    assert_eq!(agent.report_ack().await, ("ended".to_owned(), true), "it was folded");
    assert_eq!(
        filed(world.store(), &alloc_id(0, 1)).await,
        None,
        "and is not filed again"
    );
}

#[tokio::test]
async fn a_report_of_what_does_not_stand_is_refused() {
    let world = World::new().await;
    world.place(2).await;
    let (mut agent, ..) = Agent::register(&world.port, &[]).await;
    for (case, report) in [
        ("an earlier attempt", observed(1, ObservedState::Ended)),
        ("a later one than there is", observed(3, ObservedState::Running)),
        ("no allocation of ours", {
            let mut report = observed(1, ObservedState::Running);
            report.alloc = model::AllocId::new("stray").unwrap();
            report
        }),
        ("another fence", {
            let mut report = observed(2, ObservedState::Running);
            report.fence.epoch = 9;
            report
        }),
    ] {
        agent.report(&report).await;
        assert!(!agent.report_ack().await.1, "{case}");
        assert_eq!(filed(world.store(), &report.alloc).await, None, "{case}");
    }
}

#[tokio::test]
async fn while_the_store_is_down_nothing_is_acknowledged_and_nothing_is_lost() {
    let store = Flaky::new();
    let world = World::over(store.clone()).await;
    world.place(1).await;
    let (mut agent, ..) = Agent::register(&world.port, &[]).await;
    store.set_down(true);
    agent.report(&observed(1, ObservedState::Running)).await;
    agent.send(FromAgent::Renew(v1::Renew { sequence: 5 })).await;
    soon("refused calls", async {
        while store.refused.load(Ordering::SeqCst) < 6 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    agent.report(&observed(1, ObservedState::Ended)).await;
    store.set_down(false);
    let mut answers = Vec::new();
    for _ in 0..3 {
        answers.push(match agent.next().await {
            FromServer::ReportAck(ack) => (ack.state, ack.accepted),
            FromServer::RenewAck(ack) => (ack.sequence.to_string(), true),
            other => panic!("{other:?}"),
        });
    }
    answers.sort();
    assert_eq!(
        answers,
        [("5", true), ("ended", true), ("running", true)].map(|(w, a)| (w.to_owned(), a))
    );
    assert_eq!(
        filed(world.store(), &alloc_id(0, 1)).await,
        Some(observed(1, ObservedState::Ended))
    );
}

#[tokio::test]
async fn a_node_that_comes_back_gets_the_next_epoch_and_the_same_orders() {
    let world = World::new().await;
    world.place(1).await;
    let (agent, first, orders) = Agent::register(&world.port, &[]).await;
    drop(agent);
    let (_agent, second, again) = Agent::register(&world.port, &[alloc_id(0, 1)]).await;
    assert_eq!((first, second), (1, 2));
    assert_eq!(orders, again);
    assert_eq!(world.session().await.unwrap().node_epoch, 2);
}

#[tokio::test]
async fn of_two_streams_of_a_node_the_newer_one_stays() {
    let store = Flaky::new();
    let world = World::over(store.clone()).await;
    let (older, ..) = Agent::register(&world.port, &[]).await;
    let lease = store.newest_lease();
    let (mut newer, ..) = Agent::register(&world.port, &[]).await;
    let status = older.end().await;
    assert_eq!(status.code(), Code::Aborted, "{status:?}");
    let session = world.session().await.unwrap();
    assert_eq!(
        (session.node_epoch, session.connected),
        (2, true),
        "the older one's last word is not heard"
    );
    assert!(store.lease_keep_alive(lease).await.is_ok(), "a lease is never revoked");

    let blobs = Arc::new(FolderBlobs::open(world.folder.path().join("blobs")).unwrap());
    let other = Port::open("s2", world.port.store.clone(), blobs, LEASE).await;
    newer.send(FromAgent::Renew(v1::Renew { sequence: 1 })).await;
    assert!(matches!(newer.next().await, FromServer::RenewAck(_)));
    let (_newest, epoch, _) = Agent::register(&other, &[]).await;
    assert_eq!(epoch, 3);
    let status = newer.end().await;
    assert_eq!(
        status.code(),
        Code::Aborted,
        "another server has the node now: {status:?}"
    );
    assert_eq!(world.session().await.unwrap().server, "s2");
}

#[tokio::test]
async fn a_node_that_falls_silent_is_given_up_with_its_lease() {
    let folder = TempDir::new().unwrap();
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let blobs = Arc::new(FolderBlobs::open(folder.path()).unwrap());
    let port = Port::open("s1", store.clone(), blobs, Duration::from_secs(1)).await;
    let (agent, ..) = Agent::register(&port, &[]).await;
    let revision = store.get("session/n1").await.unwrap().unwrap().mod_revision;
    // The silence is noticed here, or the lease's end in the store, whichever comes first.
    let status = agent.end().await;
    assert!(
        matches!(status.code(), Code::DeadlineExceeded | Code::Unavailable),
        "{status:?}"
    );
    removed(store.as_ref(), "session/n1", revision).await;
    assert!(store.get("node/n1").await.unwrap().is_some(), "the node's record stays");
}

#[tokio::test]
async fn a_renewal_is_answered_only_while_the_lease_lives() {
    let store = Flaky::new();
    let world = World::over(store.clone()).await;
    let (mut agent, ..) = Agent::register(&world.port, &[]).await;
    for sequence in 1..4 {
        agent.send(FromAgent::Renew(v1::Renew { sequence })).await;
        let FromServer::RenewAck(ack) = agent.next().await else {
            panic!("an answer")
        };
        assert_eq!(ack.sequence, sequence);
    }
    store.lease_revoke(store.newest_lease()).await.unwrap();
    assert_eq!(world.session().await, None, "the lease was revoked");
    agent.send(FromAgent::Renew(v1::Renew { sequence: 9 })).await;
    let status = agent.end().await;
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("lease has expired"), "{status:?}");
}

#[tokio::test]
async fn a_server_that_stops_says_so_and_leaves_the_node_its_lease() {
    let store = Flaky::new();
    let world = World::over(store.clone()).await;
    let (agent, ..) = Agent::register(&world.port, &[]).await;
    world.port.shutdown.cancel();
    let status = agent.end().await;
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("stopping"), "{status:?}");
    soon("the end of all sessions", world.port.fleet.wait()).await;
    let session = world.session().await.expect("the node has its lease");
    assert!(!session.connected, "{session:?}");
    assert!(store.lease_keep_alive(store.newest_lease()).await.is_ok());
}

#[tokio::test]
async fn the_end_of_a_stream_is_told_under_the_same_lease_and_ends_with_it() {
    let folder = TempDir::new().unwrap();
    let store = Flaky::new();
    let blobs = Arc::new(FolderBlobs::open(folder.path()).unwrap());
    let port = Port::open("s1", store.clone(), blobs, Duration::from_secs(3)).await;
    let (agent, epoch, _) = Agent::register(&port, &[]).await;
    let before = store.get("session/n1").await.unwrap().unwrap();
    // The store is away when the stream breaks: it is told later.
    store.set_down(true);
    drop(agent);
    soon("a try that fails", async {
        while store.refused.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    store.set_down(false);
    let mut watch = store.watch("session/", before.mod_revision).await.unwrap();
    let change = soon("the last word", watch.recv()).await;
    let Some(store::WatchEvent::Changes(changes)) = change else {
        panic!("{change:?}")
    };
    let record: SessionRecord = model::decode(changes[0].value.as_ref().expect("a put, no removal")).unwrap();
    assert_eq!(
        (record.connected, record.node_epoch, record.server.as_str()),
        (false, epoch, "s1")
    );
    removed(store.as_ref(), "session/n1", changes[0].revision).await;
    assert!(
        store.lease_keep_alive(store.newest_lease()).await.is_err(),
        "it went with its lease"
    );
}

#[tokio::test]
async fn a_log_is_taken_from_where_it_is_stored_whatever_breaks() {
    let world = World::new().await;
    world.place(1).await;
    let alloc = alloc_id(0, 1);
    let (mut agent, ..) = Agent::register(&world.port, &[]).await;
    agent.log_open(&alloc).await;
    assert_eq!(agent.log_from().await, 0);
    agent.log(&alloc, 0, b"hello ", false).await;
    assert!(!agent.log_ack(6).await);
    agent.log(&alloc, 9, b"gap", false).await;
    assert_eq!(agent.log_from().await, 6);
    agent.log(&alloc, 3, b"lo wor", false).await;
    assert!(!agent.log_ack(9).await);
    drop(agent);

    let blobs = Arc::new(FolderBlobs::open(world.folder.path().join("blobs")).unwrap());
    let other = Port::open("s2", world.port.store.clone(), blobs, LEASE).await;
    let (mut agent, ..) = Agent::register(&other, std::slice::from_ref(&alloc)).await;
    fold(world.store(), 0, 1, 11).await;
    agent.log_open(&alloc).await;
    assert_eq!(agent.log_from().await, 9, "the new server knows what is stored");
    agent.log(&alloc, 9, b"ld", true).await;
    assert!(agent.log_ack(11).await, "folded or not, the log becomes whole");
    agent.log_open(&alloc).await;
    assert_eq!(agent.log_from().await, 11);
    agent.log(&alloc, 11, b"", true).await;
    assert!(agent.log_ack(11).await, "an answer that was lost is given again");
    assert_eq!(read_log(&other, &alloc).await, b"hello world");
}

#[tokio::test]
async fn bytes_before_the_opening_are_asked_for_and_an_empty_log_is_whole() {
    let world = World::new().await;
    world.place(1).await;
    let alloc = alloc_id(0, 1);
    let (mut agent, ..) = Agent::register(&world.port, &[]).await;
    agent.log(&alloc, 0, b"too soon", false).await;
    assert_eq!(agent.log_from().await, 0);
    agent.log(&alloc, 0, b"", true).await;
    assert!(agent.log_ack(0).await);
    assert_eq!(read_log(&world.port, &alloc).await, b"");
}

#[tokio::test]
async fn nobody_writes_a_log_that_is_not_its_own() {
    let world = World::new().await;
    place(
        world.store(),
        &model::Allocation {
            node: NodeId::new("n2").unwrap(),
            ..allocation(0, 1)
        },
    )
    .await;
    let mut record = step_record(0, 1, model::StepStatus::Running);
    record.node = Some(NodeId::new("n2").unwrap());
    let txn = Txn::new().put(key::step(&run_id(), 0), &record);
    world.store().commit(txn).await.unwrap();
    let (mut agent, ..) = Agent::register(&world.port, &[]).await;
    for alloc in [alloc_id(0, 1), alloc_id(0, 2), model::AllocId::new("stray").unwrap()] {
        agent.log_open(&alloc).await;
        let FromServer::Forget(forget) = agent.next().await else {
            panic!("refused")
        };
        assert_eq!(forget.alloc_id, alloc.as_str());
    }
}

async fn read_log(port: &Port, alloc: &model::AllocId) -> Vec<u8> {
    let mut reader = port.logs.reader(&crate::logs::LogId::of(alloc).unwrap(), 0);
    let mut bytes = Vec::new();
    while let Some(piece) = reader.next().await.unwrap() {
        bytes.extend_from_slice(&piece);
    }
    bytes
}

/// How many nodes report at the same moment.
const CROWD: u32 = 500;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_reports_of_many_nodes_are_filed_in_few_batches_and_without_reading() {
    let store = Flaky::slow(Duration::from_millis(4));
    // Nobody renews while the crowd comes in.
    let world = World::with(store.clone(), Duration::from_secs(600)).await;
    let nodes: Vec<String> = (0..CROWD).map(|i| format!("n{i}")).collect();
    for (i, name) in (1..).zip(&nodes) {
        let order = model::Allocation {
            node: NodeId::new(name.as_str()).unwrap(),
            ..allocation(0, i)
        };
        let txn = Txn::new().put(key::alloc(&order.node, &order.id), &order);
        world.store().commit(txn).await.unwrap();
    }
    let mut agents = Vec::new();
    for (i, name) in (1..).zip(&nodes) {
        let (agent, _, orders) = Agent::register_at(&world.port.address, "node", name, &[]).await;
        assert_eq!(orders.len(), 1);
        agents.push((i, agent));
    }
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::SeqCst);
    let (commits, reads) = (count(&store.commits), count(&store.reads));
    for (i, agent) in &agents {
        for state in [ObservedState::Preparing, ObservedState::Running, ObservedState::Ended] {
            agent.report(&observed(*i, state)).await;
        }
    }
    for (_, agent) in &mut agents {
        let mut acknowledged = std::collections::BTreeSet::new();
        while acknowledged.len() < 3 {
            let (state, accepted) = agent.report_ack().await;
            assert!(accepted, "{state}");
            acknowledged.insert(state);
        }
    }
    for i in 1..=CROWD {
        assert_eq!(
            filed(world.store(), &alloc_id(0, i)).await,
            Some(observed(i, ObservedState::Ended))
        );
    }
    let (batches, written) = (count(&store.batches), count(&store.batched));
    let crowd = u64::from(CROWD);
    println!("{crowd} steps: {written} puts in {batches} batches");
    assert_eq!(count(&store.commits), commits, "nothing outside of batches");
    assert_eq!(count(&store.reads), reads + crowd, "nothing was read but by this test");
    assert!(
        (crowd..=2 * crowd).contains(&written),
        "one or two writes a step: {written}"
    );
    assert!(batches <= crowd / 5, "{batches} batches for {crowd} steps");
}

#[tokio::test]
async fn an_end_that_overtakes_the_beginning_costs_one_write() {
    let store = Flaky::slow(Duration::from_millis(100));
    let world = World::over(store.clone()).await;
    for counter in 1..=5 {
        world.place(counter).await;
    }
    let (mut agent, ..) = Agent::register(&world.port, &[]).await;
    // These keep all filers busy, one after the other, so that the last one's reports meet.
    for counter in 1..=4 {
        agent.report(&observed(counter, ObservedState::Ended)).await;
        soon("a batch", async {
            while store.batches.load(Ordering::SeqCst) < u64::from(counter) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
    }
    agent.report(&observed(5, ObservedState::Running)).await;
    agent.report(&observed(5, ObservedState::Ended)).await;
    let mut answers = Vec::new();
    for _ in 0..6 {
        answers.push(agent.report_ack().await);
    }
    assert!(answers.iter().all(|(_, accepted)| *accepted), "{answers:?}");
    assert_eq!(answers.iter().filter(|(state, _)| state == "running").count(), 1);
    assert_eq!(store.batched.load(Ordering::SeqCst), 5, "one write for each");
}

#[tokio::test]
async fn what_is_prepared_for_long_is_filed_and_what_is_not_is_only_answered() {
    let store = Flaky::new();
    let world = World::over(store.clone()).await;
    world.place(1).await;
    let (mut agent, ..) = Agent::register(&world.port, &[]).await;
    agent.report(&observed(1, ObservedState::Preparing)).await;
    assert_eq!(agent.report_ack().await, ("preparing".to_owned(), true));
    assert_eq!(store.batches.load(Ordering::SeqCst), 0, "nobody asks yet");
    soon("the report is filed", async {
        while filed(world.store(), &alloc_id(0, 1)).await.is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_eq!(
        filed(world.store(), &alloc_id(0, 1)).await,
        Some(observed(1, ObservedState::Preparing))
    );
}

#[tokio::test]
async fn the_log_of_an_earlier_attempt_is_wanted_until_it_is_whole() {
    let world = World::new().await;
    world.place(1).await;
    let (mut agent, ..) = Agent::register(&world.port, &[]).await;
    let first = alloc_id(0, 1);
    // The first attempt failed and was folded, the second one is placed; the first one's log is not whole.
    let mut record = step_record(0, 2, model::StepStatus::Assigned);
    record.earlier.push(model::Attempt {
        attempt: 1,
        fence: allocation(0, 1).fence,
        alloc: first.clone(),
        node: node(),
        outcome: Some(Outcome::Exited { code: 1 }),
        reason: "ended with exit code 1".to_owned(),
        counts: true,
        log_bytes: Some(5),
        times: model::Times::default(),
        usage: model::Usage::default(),
    });
    let txn = Txn::new()
        .put(key::step(&run_id(), 0), &record)
        .delete(key::alloc(&node(), &first));
    world.store().commit(txn).await.unwrap();
    agent.report(&observed(1, ObservedState::Ended)).await;
    assert_eq!(agent.report_ack().await, ("ended".to_owned(), true));
    // Nor is it forgotten by a server that sees it for the first time.
    drop(agent);
    let (mut agent, ..) = Agent::register(&world.port, std::slice::from_ref(&first)).await;
    agent.log_open(&first).await;
    assert_eq!(agent.log_from().await, 0, "no Forget");
    agent.log(&first, 0, b"hello", true).await;
    assert!(agent.log_ack(5).await);
    assert_eq!(read_log(&world.port, &first).await, b"hello");
}
