//! What tests of sessions and logs stand on: a run in a store, a store and blobs that fail on
//! request, an agent over a real connection.

use super::{Fleet, FleetConfig, FleetDeps, FleetMetrics, Gate, definitions::Definitions};
use crate::auth::{AuthError, Caller};
use crate::logs::{Limits, LogHub, LogMetrics};
use async_trait::async_trait;
use model::record::Unknown;
use model::{
    AllocId, Allocation, Event, Fence, NodeId, Observed, Resources, Role, RunDef, RunHeader, RunId, Shell, Source,
    StageDef, StepDef, StepRecord, StepStatus, key,
};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use store::blob::{BlobError, BlobName, BlobPage, BlobReader, BlobStore, Bytes, Digest, PutTerms, SignedUrl};
use store::memory::MemoryStore;
use store::signed::OwnUrls;
use store::{Commit, Entry, FolderBlobs, Guard, LeaseId, Page, Revision, Store, StoreError, Txn, Watch, WatchEvent};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status, Streaming};
use wire::v1::agent_message::Message as FromAgent;
use wire::v1::fleet_service_client::FleetServiceClient;
use wire::v1::server_message::Message as FromServer;
use wire::v1::{self, AgentMessage, ServerMessage};

pub(crate) use super::report::tests::observed;

/// How long anything that must happen may take before the test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for `what` or fails.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("did not happen in time: {what}"))
}

pub(crate) fn run_id() -> RunId {
    RunId::new("01jd").unwrap()
}

pub(crate) fn alloc_id(step: usize, counter: u32) -> AllocId {
    AllocId::for_step(&run_id(), step, Fence { epoch: 1, counter })
}

pub(crate) fn step_def(name: &str) -> StepDef {
    StepDef {
        name: name.parse().unwrap(),
        title: None,
        stage: 0,
        needs: Vec::new(),
        image: "oci:/images/base".to_owned(),
        before: Vec::new(),
        run: vec![model::Entry {
            name: None,
            run: "make".to_owned(),
        }],
        after: Vec::new(),
        shell: Shell::Sh,
        working_directory: ".".to_owned(),
        checkout: None,
        user: None,
        env: BTreeMap::new(),
        timeout_ms: 60_000,
        allow_failure: false,
        resources: Resources::default(),
        pids: 100,
        shm_bytes: 1 << 20,
        labels: BTreeMap::new(),
        retry: model::Retry::default(),
        idempotent: true,
        rules: model::StepRules::default(),
    }
}

/// Makes run `01jd` with these steps, as the API would.
pub(crate) async fn make_run(store: &dyn Store, steps: &[&str]) {
    let def = RunDef {
        name: None,
        title: None,
        stages: vec![StageDef {
            name: "build".parse().unwrap(),
        }],
        steps: steps.iter().map(|name| step_def(name)).collect(),
        rules: model::RunRules::default(),
    };
    let chunks = def.to_chunks();
    let header = RunHeader {
        id: run_id(),
        team: "default".parse().unwrap(),
        pipeline: "app".parse().unwrap(),
        number: 7,
        attempt: 1,
        source: Source {
            repository: "file:///r".to_owned(),
            git_ref: "refs/heads/main".to_owned(),
            commit: "c".repeat(40),
            message: String::new(),
            author: String::new(),
            event: Event::Push,
        },
        variables: [("V".to_owned(), "1".to_owned())].into(),
        inputs: std::collections::BTreeMap::new(),
        created_ms: 1,
        def_chunks: chunks.len(),
        steps: steps.len(),
        error: None,
        request_id: "q".to_owned(),
        requested_by: "t".to_owned(),
        traceparent: None,
        unknown: Unknown::new(),
    };
    let mut txn = Txn::new().put(key::run(&run_id()), &header);
    for (i, chunk) in chunks.iter().enumerate() {
        txn = txn.put(key::run_def(&run_id(), i), chunk);
    }
    assert!(store.commit(txn).await.unwrap().is_applied());
}

/// An allocation of a step on node `n1`.
pub(crate) fn allocation(step: usize, counter: u32) -> Allocation {
    Allocation {
        id: alloc_id(step, counter),
        run: run_id(),
        step,
        attempt: counter,
        fence: Fence { epoch: 1, counter },
        node: NodeId::new("n1").unwrap(),
        node_epoch: 1,
        resources: Resources::default(),
        created_ms: 1,
        stop: None,
        stop_reason: None,
        unknown: Unknown::new(),
    }
}

/// The record of a step whose newest allocation is this one.
pub(crate) fn step_record(step: usize, counter: u32, status: StepStatus) -> StepRecord {
    StepRecord {
        attempt: counter,
        fence: Fence { epoch: 1, counter },
        alloc: Some(alloc_id(step, counter)),
        node: Some(NodeId::new("n1").unwrap()),
        ..StepRecord::first(status)
    }
}

/// Places or changes an allocation, as the leader would.
pub(crate) async fn place(store: &dyn Store, allocation: &Allocation) {
    let record = step_record(allocation.step, allocation.attempt, StepStatus::Assigned);
    let txn = Txn::new()
        .put(key::alloc(&allocation.node, &allocation.id), allocation)
        .put(key::step(&allocation.run, allocation.step), &record);
    assert!(store.commit(txn).await.unwrap().is_applied());
}

/// Folds an allocation's end into its step, as the leader would.
pub(crate) async fn fold(store: &dyn Store, step: usize, counter: u32, log_bytes: u64) {
    let mut record = step_record(step, counter, StepStatus::Success);
    record.log_bytes = Some(log_bytes);
    let alloc = alloc_id(step, counter);
    let txn = Txn::new()
        .put(key::step(&run_id(), step), &record)
        .delete(key::alloc(&NodeId::new("n1").unwrap(), &alloc))
        .delete(key::observed(&alloc));
    assert!(store.commit(txn).await.unwrap().is_applied());
}

/// What is filed about an allocation.
pub(crate) async fn filed(store: &dyn Store, alloc: &AllocId) -> Option<Observed> {
    let entry = store.get(&key::observed(alloc)).await.unwrap()?;
    Some(entry.decode().unwrap())
}

/// A store that answers nothing while it is down.
pub(crate) struct Flaky {
    inner: MemoryStore,
    down: AtomicBool,
    /// Calls that were refused because it was down.
    pub(crate) refused: AtomicU64,
    /// Batches of transactions.
    pub(crate) batches: AtomicU64,
    /// Transactions in batches.
    pub(crate) batched: AtomicU64,
    /// Transactions of their own.
    pub(crate) commits: AtomicU64,
    /// Reads.
    pub(crate) reads: AtomicU64,
    /// Calls that renewed several leases.
    pub(crate) together: AtomicU64,
    /// The newest lease.
    granted: Mutex<Option<LeaseId>>,
    batch_takes: Duration,
    /// What becomes of the next transaction of its own.
    fate: Mutex<Fate>,
}

/// What becomes of a transaction.
#[derive(Default)]
pub(crate) enum Fate {
    /// It is answered.
    #[default]
    Answered,
    /// It is applied, and the answer is lost.
    AnswerLost,
    /// Its caller gives it up, it is on its way still.
    Late,
    /// One that is on its way.
    OnItsWay(Txn),
}

impl Flaky {
    pub(crate) fn next_commit(&self, fate: Fate) {
        *self.fate.lock().unwrap() = fate;
    }

    /// What was on its way arrives.
    pub(crate) async fn arrive(&self) -> Commit {
        let fate = std::mem::take(&mut *self.fate.lock().unwrap());
        let Fate::OnItsWay(txn) = fate else {
            panic!("nothing is on its way")
        };
        self.inner.commit(txn).await.unwrap()
    }

    pub(crate) fn newest_lease(&self) -> LeaseId {
        self.granted.lock().unwrap().expect("a lease was granted")
    }

    pub(crate) fn new() -> Arc<Self> {
        Self::slow(Duration::ZERO)
    }

    /// One that takes so long for each batch.
    pub(crate) fn slow(batch_takes: Duration) -> Arc<Self> {
        Arc::new(Self {
            batch_takes,
            inner: MemoryStore::new(),
            down: AtomicBool::new(false),
            refused: AtomicU64::new(0),
            batches: AtomicU64::new(0),
            batched: AtomicU64::new(0),
            commits: AtomicU64::new(0),
            reads: AtomicU64::new(0),
            together: AtomicU64::new(0),
            granted: Mutex::default(),
            fate: Mutex::default(),
        })
    }

    pub(crate) fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
    }

    fn check(&self) -> Result<(), StoreError> {
        if self.down.load(Ordering::SeqCst) {
            self.refused.fetch_add(1, Ordering::SeqCst);
            return Err(StoreError::Unavailable("down for a test".to_owned()));
        }
        Ok(())
    }
}

#[async_trait]
impl Store for Flaky {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        self.check()?;
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.inner.get(key).await
    }

    async fn range(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page, StoreError> {
        self.check()?;
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.inner.range(prefix, after, limit).await
    }

    async fn commit(&self, txn: Txn) -> Result<Commit, StoreError> {
        self.check()?;
        self.commits.fetch_add(1, Ordering::SeqCst);
        let lost = StoreError::Unavailable("no answer, for a test".to_owned());
        let fate = std::mem::take(&mut *self.fate.lock().unwrap());
        match fate {
            Fate::Answered => self.inner.commit(txn).await,
            Fate::AnswerLost => self.inner.commit(txn).await.and(Err(lost)),
            Fate::Late => {
                self.next_commit(Fate::OnItsWay(txn));
                Err(lost)
            }
            late @ Fate::OnItsWay(_) => {
                self.next_commit(late);
                self.inner.commit(txn).await
            }
        }
    }

    async fn commit_batch(&self, outer: Vec<Guard>, txns: Vec<Txn>) -> Result<Vec<Commit>, StoreError> {
        self.check()?;
        self.batches.fetch_add(1, Ordering::SeqCst);
        self.batched.fetch_add(txns.len() as u64, Ordering::SeqCst);
        // As long as a round trip to a store of three members takes.
        tokio::time::sleep(self.batch_takes).await;
        self.inner.commit_batch(outer, txns).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, StoreError> {
        self.check()?;
        self.inner.watch(prefix, after).await
    }

    async fn compact(&self, before: Revision) -> Result<(), StoreError> {
        self.check()?;
        self.inner.compact(before).await
    }

    async fn lease_grant(&self, ttl_ms: u64) -> Result<LeaseId, StoreError> {
        self.check()?;
        let lease = self.inner.lease_grant(ttl_ms).await?;
        *self.granted.lock().unwrap() = Some(lease);
        Ok(lease)
    }

    async fn lease_keep_alive(&self, lease: LeaseId) -> Result<u64, StoreError> {
        self.check()?;
        self.inner.lease_keep_alive(lease).await
    }

    async fn lease_keep_alive_all(&self, leases: &[LeaseId]) -> Vec<Result<u64, StoreError>> {
        self.together.fetch_add(1, Ordering::SeqCst);
        futures::future::join_all(leases.iter().map(|lease| self.lease_keep_alive(*lease))).await
    }

    async fn lease_revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.check()?;
        self.inner.lease_revoke(lease).await
    }
}

/// Blobs in a folder that fail while they are told to.
pub(crate) struct FlakyBlobs {
    inner: FolderBlobs,
    failing: AtomicBool,
    /// Puts that were refused.
    pub(crate) refused: AtomicU64,
    /// Puts that were done.
    pub(crate) puts: AtomicU64,
    /// Parts that were read.
    pub(crate) reads: AtomicU64,
}

impl FlakyBlobs {
    pub(crate) fn open(folder: &std::path::Path) -> Arc<Self> {
        Arc::new(Self {
            inner: FolderBlobs::open(folder).unwrap(),
            failing: AtomicBool::new(false),
            refused: AtomicU64::new(0),
            puts: AtomicU64::new(0),
            reads: AtomicU64::new(0),
        })
    }

    pub(crate) fn set_failing(&self, failing: bool) {
        self.failing.store(failing, Ordering::SeqCst);
    }
}

#[async_trait]
impl BlobStore for FlakyBlobs {
    async fn put(&self, name: &BlobName, bytes: Vec<u8>) -> Result<(), BlobError> {
        if self.failing.load(Ordering::SeqCst) {
            self.refused.fetch_add(1, Ordering::SeqCst);
            let cause = std::io::Error::other("full for a test");
            return Err(BlobError::Io {
                name: name.as_str().to_owned(),
                cause,
            });
        }
        self.puts.fetch_add(1, Ordering::SeqCst);
        self.inner.put(name, bytes).await
    }

    async fn get(&self, name: &BlobName) -> Result<Vec<u8>, BlobError> {
        self.inner.get(name).await
    }

    async fn get_range(&self, name: &BlobName, offset: u64, len: u64) -> Result<Vec<u8>, BlobError> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.inner.get_range(name, offset, len).await
    }

    async fn put_stream(
        &self,
        name: &BlobName,
        length: u64,
        sha256: Option<Digest>,
        bytes: Bytes,
    ) -> Result<Digest, BlobError> {
        self.inner.put_stream(name, length, sha256, bytes).await
    }

    async fn get_stream(&self, name: &BlobName, offset: u64) -> Result<BlobReader, BlobError> {
        self.inner.get_stream(name, offset).await
    }

    async fn list_page(&self, prefix: &str, after: Option<&BlobName>, limit: usize) -> Result<BlobPage, BlobError> {
        self.inner.list_page(prefix, after, limit).await
    }

    async fn sign_get(&self, name: &BlobName, valid_for: Duration) -> Result<SignedUrl, BlobError> {
        self.inner.sign_get(name, valid_for).await
    }

    async fn sign_put(&self, name: &BlobName, terms: PutTerms, valid_for: Duration) -> Result<SignedUrl, BlobError> {
        self.inner.sign_put(name, terms, valid_for).await
    }

    fn own_urls(&self) -> Option<&OwnUrls> {
        self.inner.own_urls()
    }

    async fn delete(&self, name: &BlobName) -> Result<(), BlobError> {
        self.inner.delete(name).await
    }
}

/// A hub over `blobs` that stores soon.
pub(crate) fn hub(blobs: Arc<dyn BlobStore>) -> LogHub {
    let limits = Limits {
        chunk_age: Duration::from_millis(20),
        ..Limits::default()
    };
    LogHub::new(blobs, limits, LogMetrics::new(&prometheus::Registry::new()).unwrap())
}

struct TestGate;

impl Gate for TestGate {
    fn admit(&self, authorization: Option<&str>) -> Result<Caller, AuthError> {
        let caller = |role| Caller {
            name: "test".to_owned(),
            role,
        };
        match authorization.and_then(crate::auth::bearer) {
            None => Err(AuthError::Missing),
            Some("node") => Ok(caller(Role::Node)),
            Some("admin") => crate::auth::require(caller(Role::Admin), Role::Node),
            Some(_) => Err(AuthError::Unknown),
        }
    }
}

/// One server with its port.
pub(crate) struct Port {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) address: String,
    pub(crate) logs: LogHub,
    pub(crate) shutdown: CancellationToken,
    pub(crate) fleet: Fleet,
}

impl Port {
    /// Serves `store` and `blobs` under a name; nodes are believed in for `lease`.
    pub(crate) async fn open(name: &str, store: Arc<dyn Store>, blobs: Arc<dyn BlobStore>, lease: Duration) -> Self {
        let logs = hub(blobs);
        let shutdown = CancellationToken::new();
        let config = FleetConfig {
            server_name: name.to_owned(),
            address: String::new(),
            lease,
        };
        let deps = FleetDeps {
            store: store.clone(),
            logs: logs.clone(),
            definitions: Definitions::default(),
            gate: Arc::new(TestGate),
            metrics: FleetMetrics::new(&prometheus::Registry::new()).unwrap(),
            probe: crate::probe::Probe::new(),
            leading: tokio::sync::watch::channel(None).1,
            shutdown: shutdown.clone(),
        };
        let fleet = Fleet::start(config, deps);
        let incoming = tonic::transport::server::TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = format!("http://{}", incoming.local_addr().unwrap());
        let server = tonic::transport::Server::builder().add_service(fleet.service());
        let stop = shutdown.clone();
        tokio::spawn(async move { server.serve_with_incoming_shutdown(incoming, stop.cancelled()).await });
        Self {
            store,
            address,
            logs,
            shutdown,
            fleet,
        }
    }
}

/// An agent, as the protocol has it.
pub(crate) struct Agent {
    to: mpsc::Sender<AgentMessage>,
    from: Streaming<ServerMessage>,
}

impl Agent {
    /// Opens a stream with this token and this first message.
    pub(crate) async fn open(port: &Port, token: Option<&str>, first: FromAgent) -> Result<Self, Status> {
        Self::open_at(&port.address, token, first).await
    }

    /// As [`Agent::open`], with any server.
    pub(crate) async fn open_at(address: &str, token: Option<&str>, first: FromAgent) -> Result<Self, Status> {
        let client = soon("a connection", FleetServiceClient::connect(address.to_owned())).await;
        let mut client = client.unwrap().max_decoding_message_size(wire::MESSAGE_MAX);
        let (to, outgoing) = mpsc::channel(16);
        to.send(AgentMessage { message: Some(first) }).await.unwrap();
        let mut request = Request::new(ReceiverStream::new(outgoing));
        if let Some(token) = token {
            let value = format!("Bearer {token}").parse().unwrap();
            request.metadata_mut().insert("authorization", value);
        }
        let from = soon("the stream's opening", client.session(request))
            .await?
            .into_inner();
        Ok(Self { to, from })
    }

    /// Registers node `n1` that holds these allocations; answers the agent, its epoch and orders.
    pub(crate) async fn register(port: &Port, held: &[AllocId]) -> (Self, u64, Vec<v1::Order>) {
        Self::register_at(&port.address, "node", "n1", held).await
    }

    /// As [`Agent::register`], with any server, token and node.
    pub(crate) async fn register_at(
        address: &str,
        token: &str,
        node: &str,
        held: &[AllocId],
    ) -> (Self, u64, Vec<v1::Order>) {
        let hello = v1::Hello {
            alloc_ids: held.iter().map(ToString::to_string).collect(),
            ..super::hello::tests::hello(node)
        };
        let mut agent = Self::open_at(address, Some(token), FromAgent::Hello(hello))
            .await
            .unwrap();
        let FromServer::Welcome(welcome) = agent.next().await else {
            panic!("the first message is Welcome");
        };
        let FromServer::Orders(orders) = agent.next().await else {
            panic!("the second message is Orders");
        };
        (agent, welcome.node_epoch, orders.orders)
    }

    pub(crate) async fn send(&self, message: FromAgent) {
        self.to.send(AgentMessage { message: Some(message) }).await.unwrap();
    }

    pub(crate) async fn report(&self, observed: &Observed) {
        self.send(FromAgent::Report(super::report::tests::message(observed)))
            .await;
    }

    pub(crate) async fn log_open(&self, alloc: &AllocId) {
        self.send(FromAgent::LogOpen(v1::LogOpen {
            alloc_id: alloc.to_string(),
            fence: None,
        }))
        .await;
    }

    pub(crate) async fn log(&self, alloc: &AllocId, offset: u64, bytes: &[u8], end: bool) {
        self.send(FromAgent::Log(v1::LogData {
            alloc_id: alloc.to_string(),
            offset,
            bytes: bytes.to_vec(),
            end,
        }))
        .await;
    }

    /// The next message.
    pub(crate) async fn next(&mut self) -> FromServer {
        let message = soon("a message of the server", self.from.message()).await;
        message
            .unwrap()
            .expect("the stream goes on")
            .message
            .expect("a known message")
    }

    /// How the stream ends, whatever comes before.
    pub(crate) async fn end(mut self) -> Status {
        loop {
            match soon("the end of the stream", self.from.message()).await {
                Ok(Some(_)) => {}
                Ok(None) => return Status::ok(""),
                Err(status) => return status,
            }
        }
    }

    /// The acknowledgement of a report: its state and whether it was accepted.
    pub(crate) async fn report_ack(&mut self) -> (String, bool) {
        match self.next().await {
            FromServer::ReportAck(ack) => (ack.state, ack.accepted),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn log_from(&mut self) -> u64 {
        match self.next().await {
            FromServer::LogFrom(from) => from.offset,
            other => panic!("{other:?}"),
        }
    }

    /// Acknowledgements until one is for `offset`; whether that one says that the log is complete.
    pub(crate) async fn log_ack(&mut self, offset: u64) -> bool {
        loop {
            match self.next().await {
                FromServer::LogAck(ack) if ack.offset == offset => return ack.complete,
                FromServer::LogAck(ack) => assert!(ack.offset < offset && !ack.complete),
                other => panic!("{other:?}"),
            }
        }
    }
}

/// Waits until a key is removed after `revision`.
pub(crate) async fn removed(store: &dyn Store, key: &str, revision: Revision) {
    let mut watch = store.watch(key, revision).await.unwrap();
    soon("the removal of a key", async {
        while let Some(WatchEvent::Changes(changes)) = watch.recv().await {
            if changes.iter().any(|c| c.key == key && c.value.is_none()) {
                return;
            }
        }
        panic!("the watch of {key} ended");
    })
    .await;
}
