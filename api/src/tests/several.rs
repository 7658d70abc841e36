//! Several servers over one store, with real gRPC and HTTP on loopback: they are killed, and their
//! store goes away.

use super::stage::{ADMIN, NODE, PATIENCE, Stage};
use crate::fleet::fixture::{Agent, alloc_id, allocation, filed, fold, make_run, place, soon};
use crate::server::Api;
use async_trait::async_trait;
use futures::{Stream, StreamExt};
use model::{AllocId, ObservedState, SessionRecord, key};
use serde_json::{Value, json};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use store::memory::MemoryStore;
use store::{Commit, Entry, FolderBlobs, Guard, LeaseId, Page, Revision, Store, StoreError, Txn, Watch, WatchEvent};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use wire::v1;
use wire::v1::agent_message::Message as FromAgent;
use wire::v1::fleet_service_client::FleetServiceClient;
use wire::v1::server_message::Message as FromServer;

/// One server's way to the store: it can be cut, and then hangs as long as a store without a
/// quorum does before it says so.
struct Way {
    store: Arc<MemoryStore>,
    cut: AtomicBool,
    refused: AtomicU64,
}

impl Way {
    async fn pass(&self) -> Result<(), StoreError> {
        if self.cut.load(Ordering::SeqCst) {
            self.refused.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_secs(5)).await;
            return Err(StoreError::Unavailable("no quorum, for a test".to_owned()));
        }
        Ok(())
    }
}

#[async_trait]
impl Store for Way {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        self.pass().await?;
        self.store.get(key).await
    }
    async fn range(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page, StoreError> {
        self.pass().await?;
        self.store.range(prefix, after, limit).await
    }
    async fn commit(&self, txn: Txn) -> Result<Commit, StoreError> {
        self.pass().await?;
        self.store.commit(txn).await
    }
    async fn commit_batch(&self, outer: Vec<Guard>, txns: Vec<Txn>) -> Result<Vec<Commit>, StoreError> {
        self.pass().await?;
        self.store.commit_batch(outer, txns).await
    }
    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, StoreError> {
        self.pass().await?;
        self.store.watch(prefix, after).await
    }
    async fn lease_grant(&self, ttl_ms: u64) -> Result<LeaseId, StoreError> {
        self.pass().await?;
        self.store.lease_grant(ttl_ms).await
    }
    async fn lease_keep_alive(&self, lease: LeaseId) -> Result<u64, StoreError> {
        self.pass().await?;
        self.store.lease_keep_alive(lease).await
    }
    async fn lease_revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.pass().await?;
        self.store.lease_revoke(lease).await
    }
    async fn compact(&self, before: Revision) -> Result<(), StoreError> {
        self.pass().await?;
        self.store.compact(before).await
    }
}

/// What all servers share.
struct Several {
    stage: Stage,
    http: reqwest::Client,
}

/// One server, in threads of its own so that it can be killed.
struct One {
    runtime: Option<Runtime>,
    address: String,
    way: Arc<Way>,
    leads: watch::Sender<Option<Revision>>,
}

impl One {
    /// Ends it in the midst of whatever it does: no farewell to anybody.
    fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            self.way.cut.store(true, Ordering::SeqCst);
            runtime.shutdown_background();
        }
    }
}

impl Drop for One {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Several {
    async fn new() -> Self {
        let stage = Stage::over(Arc::new(MemoryStore::new()), tempfile::tempdir().unwrap()).await;
        make_run(stage.store.as_ref(), &["unit", "lint"]).await;
        Self {
            stage,
            http: reqwest::Client::new(),
        }
    }

    fn store(&self) -> &MemoryStore {
        self.stage.store.as_ref()
    }

    async fn server(&self, name: &str) -> One {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let way = Arc::new(Way {
            store: self.stage.store.clone(),
            cut: AtomicBool::new(false),
            refused: AtomicU64::new(0),
        });
        let leads = watch::Sender::new(None);
        let mut deps = self.stage.server.deps.clone();
        deps.store = way.clone();
        deps.blobs = Arc::new(FolderBlobs::open(self.stage.folder.path().join("blobs")).unwrap());
        deps.leading = leads.subscribe();
        deps.shutdown = CancellationToken::new();
        let mut config = self.stage.server.config.clone();
        name.clone_into(&mut config.server_name);
        config.advertise.clone_from(&address);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        runtime.spawn(async move {
            let api = Api::new(config, deps);
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            api.serve(listener, CancellationToken::new()).await
        });
        let one = One {
            runtime: Some(runtime),
            address,
            way,
            leads,
        };
        self.until("the server knows the run", &one, "/api/v1/runs/01jd", |code, _| {
            code == 200
        })
        .await;
        one
    }

    async fn get(&self, one: &One, path: &str) -> reqwest::Response {
        let url = format!("{}{path}", one.address);
        let asked = self.http.get(url).bearer_auth(ADMIN).send();
        soon("an answer", asked).await.unwrap()
    }

    async fn until(&self, what: &str, one: &One, path: &str, wanted: impl Fn(u16, &str) -> bool) -> String {
        let began = Instant::now();
        loop {
            let answer = self
                .http
                .get(format!("{}{path}", one.address))
                .bearer_auth(ADMIN)
                .send();
            if let Ok(Ok(answer)) = tokio::time::timeout(PATIENCE, answer).await {
                let code = answer.status().as_u16();
                let text = answer.text().await.unwrap_or_default();
                if wanted(code, &text) {
                    return text;
                }
                assert!(began.elapsed() < PATIENCE, "{what}: {code} {text}");
            }
            assert!(began.elapsed() < PATIENCE, "{what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn session(&self) -> SessionRecord {
        let entry = self.store().get("session/n1").await.unwrap();
        entry.expect("the session is there").decode().unwrap()
    }

    async fn cordon(&self, one: &One) -> reqwest::Response {
        let url = format!("{}/api/v1/nodes/n1/cordon", one.address);
        soon("an answer", self.http.post(url).bearer_auth(ADMIN).send())
            .await
            .unwrap()
    }

    async fn quorum_is_lost(&self, one: &One) -> bool {
        let mut client = FleetServiceClient::connect(one.address.clone()).await.unwrap();
        let mut request = tonic::Request::new(v1::QuorumRequest {});
        let token = format!("Bearer {NODE}").parse().unwrap();
        request.metadata_mut().insert("authorization", token);
        soon("an answer", client.quorum(request))
            .await
            .unwrap()
            .into_inner()
            .lost
    }

    async fn follow(&self, one: &One, path: &str) -> Follower {
        let url = format!("{}{path}?follow=true", one.address);
        let answer = self.http.get(url).bearer_auth(ADMIN).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        Follower {
            bytes: Box::pin(answer.bytes_stream()),
            rest: String::new(),
            log: String::new(),
            end: None,
        }
    }
}

/// A reader of a log's events.
struct Follower {
    bytes: Pin<Box<dyn Stream<Item = reqwest::Result<axum::body::Bytes>> + Send>>,
    rest: String,
    log: String,
    end: Option<Value>,
}

impl Follower {
    /// Reads on until the log says this, or until its end.
    async fn until(&mut self, wanted: Option<&str>) {
        let what = format!("the log shows {wanted:?}");
        soon(&what, async {
            while self.end.is_none() && !wanted.is_some_and(|wanted| self.log.contains(wanted)) {
                let chunk = self.bytes.next().await.expect("the stream goes on").expect("bytes");
                self.rest
                    .push_str(std::str::from_utf8(&chunk).expect("whole characters"));
                while let Some(end) = self.rest.find("\n\n") {
                    let event: String = self.rest.drain(..end + 2).collect();
                    self.take(event.trim_end_matches('\n'));
                }
            }
        })
        .await;
    }

    fn take(&mut self, event: &str) {
        let data: Vec<&str> = event.lines().filter_map(|l| l.strip_prefix("data: ")).collect();
        let data = data.join("\n");
        match event.lines().next() {
            Some("event: log") => self.log.push_str(&data),
            Some("event: end") => self.end = Some(serde_json::from_str(&data).unwrap()),
            _ => {}
        }
    }
}

fn lines(from: usize, to: usize) -> String {
    (from..to).map(|n| format!("line {n} of the step\n")).collect()
}

async fn ship(agent: &Agent, alloc: &AllocId, log: &str, from: usize, to: usize, end: bool) {
    // In small pieces, as a step writes.
    let mut at = from;
    while at < to {
        let next = (at + 100).min(to);
        agent
            .log(alloc, at as u64, &log.as_bytes()[at..next], end && next == to)
            .await;
        at = next;
    }
}

/// Waits for the offset from which a server wants the log, passing over what else it says.
async fn log_from(agent: &mut Agent) -> u64 {
    loop {
        if let FromServer::LogFrom(from) = agent.next().await {
            return from.offset;
        }
    }
}

async fn log_whole(agent: &mut Agent) {
    loop {
        match agent.next().await {
            FromServer::LogAck(ack) if ack.complete => return,
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_moves_when_its_server_dies_and_nothing_is_lost_or_doubled() {
    let all = Several::new().await;
    let mut sessions = all.store().watch("session/", Revision(0)).await.unwrap();
    let mut reports = all.store().watch("observed/", Revision(0)).await.unwrap();
    let (mut a, b) = (all.server("a").await, all.server("b").await);
    place(all.store(), &allocation(0, 1)).await;
    let alloc = alloc_id(0, 1);
    let (mut agent, epoch, orders) = Agent::register_at(&a.address, NODE, "n1", &[]).await;
    assert_eq!((epoch, orders.len()), (1, 1));
    agent
        .report(&crate::fleet::fixture::observed(1, ObservedState::Running))
        .await;
    assert_eq!(agent.report_ack().await, ("running".to_owned(), true));
    a.kill();
    soon("the stream breaks", agent.end()).await;
    let session = all.session().await;
    assert_eq!(
        (session.server.as_str(), session.connected),
        ("a", true),
        "a dead server says nothing"
    );

    let (mut agent, epoch, again) = Agent::register_at(&b.address, NODE, "n1", std::slice::from_ref(&alloc)).await;
    assert_eq!(epoch, 2);
    assert_eq!(again, orders);
    let session = all.session().await;
    assert_eq!(
        (session.server.as_str(), session.address.as_str(), session.connected),
        ("b", b.address.as_str(), true)
    );
    let ended = crate::fleet::fixture::observed(1, ObservedState::Ended);
    for report in [
        &crate::fleet::fixture::observed(1, ObservedState::Running),
        &ended,
        &ended,
    ] {
        agent.report(report).await;
        assert!(agent.report_ack().await.1);
    }
    assert_eq!(filed(all.store(), &alloc).await, Some(ended));
    drop(agent);
    all.until("the node has left", &b, "/api/v1/nodes/n1", |_, text| {
        text.contains("\"lease\":\"running_out\"")
    })
    .await;

    let mut told = Vec::new();
    while let Ok(WatchEvent::Changes(changes)) = sessions.try_recv() {
        for change in changes {
            let record: Option<SessionRecord> = change.value.map(|v| model::decode(&v).unwrap());
            let record = record.expect("no session is ever removed by hand");
            told.push((record.server, record.node_epoch, record.connected));
        }
    }
    let word = |server: &str, epoch, connected| (server.to_owned(), epoch, connected);
    assert_eq!(told, [word("a", 1, true), word("b", 2, true), word("b", 2, false)]);
    let mut puts = 0;
    while let Ok(WatchEvent::Changes(changes)) = reports.try_recv() {
        puts += changes.len();
    }
    assert_eq!(puts, 2, "running and ended, once each");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_is_followed_across_servers_while_one_of_them_dies() {
    let all = Several::new().await;
    let (a, mut b, c) = (all.server("a").await, all.server("b").await, all.server("c").await);
    let log = lines(0, 600);
    let (cut, second) = (lines(0, 200).len(), lines(0, 400).len());
    place(all.store(), &allocation(0, 1)).await;
    let alloc = alloc_id(0, 1);
    let (mut agent, ..) = Agent::register_at(&b.address, NODE, "n1", &[]).await;
    agent.log_open(&alloc).await;
    assert_eq!(log_from(&mut agent).await, 0);
    let mut one = all.follow(&a, "/api/v1/runs/01jd/steps/unit/logs").await;
    let mut whole = all.follow(&a, "/api/v1/runs/01jd/logs").await;
    ship(&agent, &alloc, &log, 0, cut, false).await;
    one.until(Some("line 199 ")).await;
    whole.until(Some("line 199 ")).await;
    all.until("it comes from the other server", &a, "/metrics", |_, text| {
        text.contains("buildflow_log_proxied 1\n")
    })
    .await;

    // Some of this the readers have seen and nobody has stored when the server dies.
    ship(&agent, &alloc, &log, cut, second, false).await;
    one.until(Some("line 399 ")).await;
    b.kill();
    soon("the stream breaks", agent.end()).await;
    let (mut agent, ..) = Agent::register_at(&c.address, NODE, "n1", std::slice::from_ref(&alloc)).await;
    agent.log_open(&alloc).await;
    let from = usize::try_from(log_from(&mut agent).await).unwrap();
    assert!(from <= second);
    ship(&agent, &alloc, &log, from, log.len(), true).await;
    one.until(Some("line 599 ")).await;
    log_whole(&mut agent).await;
    fold(all.store(), 0, 1, log.len() as u64).await;
    one.until(None).await;
    whole.until(None).await;
    for follower in [&one, &whole] {
        assert_eq!(follower.log, log, "no gap, nothing twice");
        let end = follower.end.as_ref().expect("the end");
        assert_eq!((&end["complete"], &end["total"]), (&json!(true), &json!(log.len())));
    }
    all.until("the relay ends with its readers", &a, "/metrics", |_, text| {
        text.contains("buildflow_log_proxied 0\n") && !text.contains("buildflow_log_proxied_bytes_total 0\n")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_asks_no_third_one_and_lets_nobody_in_without_a_token() {
    let all = Several::new().await;
    let (a, b) = (all.server("a").await, all.server("b").await);
    place(all.store(), &allocation(0, 1)).await;
    let (agent, ..) = Agent::register_at(&b.address, NODE, "n1", &[]).await;
    let path = format!("{}/api/v1/relay/logs/{}", a.address, alloc_id(0, 1));
    let plain = all.http.get(&path).bearer_auth(ADMIN).send().await.unwrap();
    assert_eq!(plain.status(), 400, "for servers only");
    let stranger = all
        .http
        .get(&path)
        .header("x-buildflow-relay", "x")
        .send()
        .await
        .unwrap();
    assert_eq!(stranger.status(), 401);
    let asked = all.http.get(&path).header("x-buildflow-relay", "x").bearer_auth(ADMIN);
    let answer = asked.send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let mut bytes = answer.bytes_stream();
    let first = soon("a sign of life", bytes.next()).await.unwrap().unwrap();
    assert_eq!(first.len(), 12, "a frame without bytes");
    let metrics = all.get(&a, "/metrics").await.text().await.unwrap();
    assert!(
        metrics.contains("buildflow_log_proxied 0\n"),
        "it did not go on to the node's server"
    );
    drop(agent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_writes_are_refused_soon_reads_and_streams_go_on_and_it_recovers() {
    let all = Several::new().await;
    let servers = [all.server("a").await, all.server("b").await];
    let [a, b] = &servers;
    b.leads.send_replace(Some(Revision(1)));
    let (mut agent, ..) = Agent::register_at(&a.address, NODE, "n1", &[]).await;
    all.until("the node is there", a, "/api/v1/nodes/n1", |code, _| code == 200)
        .await;
    let mut events = all.http.get(format!("{}/api/v1/runs/01jd/events", a.address));
    events = events.bearer_auth(ADMIN);
    let mut events = events.send().await.unwrap().bytes_stream();
    soon("a snapshot", events.next()).await.unwrap().unwrap();
    for one in &servers {
        assert!(!all.quorum_is_lost(one).await);
        one.way.cut.store(true, Ordering::SeqCst);
    }
    agent.send(FromAgent::Renew(v1::Renew { sequence: 1 })).await;

    for case in ["one that waits already", "one that comes later"] {
        let refused = all.cordon(a).await;
        assert_eq!(refused.status(), 503, "{case}");
        assert!(refused.headers().contains_key("retry-after"), "{case}");
        assert_eq!(refused.headers()["content-type"], "application/problem+json");
        let problem: Value = refused.json().await.unwrap();
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains("the live store has not answered"), "{detail}");
    }
    let began = Instant::now();
    all.cordon(a).await;
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "refused at once, not by a time-out of the store"
    );
    let read = all.get(a, "/api/v1/nodes/n1").await;
    assert_eq!(read.status(), 200);
    let age: u64 = read.headers()["x-buildflow-stale-ms"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!(age >= 3_000, "{age}");
    assert_eq!(all.get(a, "/readyz").await.status(), 503);
    let logs = all.get(a, "/api/v1/runs/01jd/steps/unit/logs").await;
    assert_eq!(logs.status(), 200, "logs are read by what the view knows of the run");
    assert!(all.quorum_is_lost(a).await);
    all.until("the other sees it too", b, "/metrics", |_, text| {
        text.contains("buildflow_store_quorum_lost 1\n") && text.contains("buildflow_leader{server=\"b\"} 1\n")
    })
    .await;
    assert!(!all.quorum_is_lost(b).await, "a leader never says so");
    b.leads.send_replace(None);
    assert!(all.quorum_is_lost(b).await);
    assert!(servers.iter().all(|one| one.way.refused.load(Ordering::SeqCst) > 0));

    for one in &servers {
        one.way.cut.store(false, Ordering::SeqCst);
    }
    loop {
        if let FromServer::RenewAck(ack) = agent.next().await {
            assert_eq!(ack.sequence, 1, "the stream has stayed");
            break;
        }
    }
    all.until("the store answers", a, "/metrics", |_, text| {
        text.contains("buildflow_store_up 1\n")
    })
    .await;
    assert!(!all.quorum_is_lost(a).await);
    assert_eq!(all.cordon(a).await.status(), 202, "nobody leads in this test");
    let read = all.get(a, "/api/v1/nodes/n1").await;
    assert!(!read.headers().contains_key("x-buildflow-stale-ms"));
    // The event stream has stayed too: it hears what happens now.
    place(all.store(), &allocation(1, 1)).await;
    soon("an event", hear(events, "\"step\":\"lint\"")).await;
}

async fn hear(mut events: impl Stream<Item = reqwest::Result<axum::body::Bytes>> + Unpin, wanted: &str) {
    loop {
        let chunk = events.next().await.expect("the stream goes on").expect("bytes");
        if String::from_utf8_lossy(&chunk).contains(wanted) {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_several_servers_the_leader_alone_works_the_inbox() {
    let all = Several::new().await;
    let servers = [all.server("a").await, all.server("b").await, all.server("c").await];
    let repository = super::stage::Repository::new(all.stage.folder.path().join("app"));
    repository.commit(super::stage::FILE, "first");
    let [a, b, c] = &servers;
    let post = |one: &One, path: &str, body: Value| {
        let request = all.http.post(format!("{}{path}", one.address)).bearer_auth(ADMIN);
        request
            .header("content-type", "application/json")
            .body(body.to_string())
            .send()
    };
    let made = post(
        a,
        "/api/v1/pipelines",
        json!({"name": "app", "repository": repository.url()}),
    )
    .await;
    assert_eq!(made.unwrap().status(), 201);
    let leader = model::Leader {
        server: "b".to_owned(),
        unknown: model::record::Unknown::new(),
    };
    all.store().commit(Txn::new().put(key::LEADER, &leader)).await.unwrap();
    b.leads.send_replace(Some(Revision(1)));
    for one in &servers {
        all.until(
            "all know the leader and the pipeline",
            one,
            "/api/v1/pipelines/default/app",
            |code, _| code == 200,
        )
        .await;
        all.until("who leads", one, "/readyz", |_, text| text.contains("\"leader\":\"b\""))
            .await;
    }
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let before = all.stage.sources.looks.load(Ordering::SeqCst);
    const RUNS: usize = 5;
    for n in 0..RUNS {
        let request = all
            .http
            .post(format!("{}/api/v1/pipelines/default/app/runs", c.address));
        let body = json!({"branch": "main", "force": true}).to_string();
        let request = request.bearer_auth(ADMIN).header("traceparent", trace);
        let answer = request.header("content-type", "application/json").body(body).send();
        let answer = soon("a run", answer).await.unwrap();
        assert_eq!(answer.status(), 201, "{n}");
        assert_eq!(answer.headers()["traceparent"], trace);
        let run: Value = answer.json().await.unwrap();
        let entry = all
            .store()
            .get(&format!("run/{}", run["run_id"].as_str().unwrap()))
            .await;
        let header: model::RunHeader = entry.unwrap().unwrap().decode().unwrap();
        assert_eq!(header.traceparent.as_deref(), Some(trace));
    }
    // Each run is looked up once to answer whether there is such a branch, and once to be made.
    let looks = all.stage.sources.looks.load(Ordering::SeqCst) - before;
    assert_eq!(looks, 2 * RUNS, "no server worked in vain");
}
