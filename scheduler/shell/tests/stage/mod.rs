//! Servers with faulty ways to one store in memory, and records to put into it.

#![allow(dead_code, reason = "each test file uses its own part")]

use async_trait::async_trait;
use model::record::Unknown;
use model::{
    Allocation, Event, NodeFacts, NodeId, NodeRecord, Observed, ObservedState, Outcome, Resources, RunDef, RunHeader,
    RunId, SessionRecord, Shell, Source, StageDef, StepDef, StepName, StepRecord, TeamName, Usage, key,
};
use scheduler_shell::{Scheduler, SchedulerConfig, SchedulerHandle};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use store::memory::MemoryStore;
use store::{Commit, Entry, Guard, LeaseId, Page, Revision, Store, StoreError, Txn, Watch, WatchEvent};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// What a server's way to the store does at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Open,
    /// Nothing gets through.
    Cut,
    /// The next batch is applied, but its answer is lost.
    LosesAnswer,
    /// The next batch is said to have failed, and arrives half a second later.
    DelaysCommit,
    /// The next batch arrives, and is answered, half a second later.
    LingersCommit,
    /// Renewals are swallowed and answered with success: the server believes that it leads.
    LiesAboutLease,
    /// The next single transaction is applied, but its answer is lost.
    LosesClaim,
    /// The store has no room: it takes no writes, but answers and renews.
    Full,
}

/// One server's way to the store.
pub(crate) struct Path {
    store: Arc<MemoryStore>,
    way: Mutex<Way>,
    /// How often the way did what it was told to.
    faults: AtomicUsize,
    watches: Mutex<Vec<mpsc::Sender<WatchEvent>>>,
    /// How long each call takes besides.
    slow: Mutex<Duration>,
    /// The prefixes that were read.
    pub(crate) ranges: Mutex<Vec<String>>,
    /// The revisions up to which the past was forgotten.
    pub(crate) compacted: Mutex<Vec<Revision>>,
}

impl Path {
    pub(crate) fn to(store: &Arc<MemoryStore>) -> Arc<Self> {
        Arc::new(Self {
            store: Arc::clone(store),
            way: Mutex::new(Way::Open),
            faults: AtomicUsize::new(0),
            watches: Mutex::new(Vec::new()),
            slow: Mutex::default(),
            ranges: Mutex::default(),
            compacted: Mutex::default(),
        })
    }

    pub(crate) fn set(&self, way: Way) {
        *self.way.lock().expect("not poisoned") = way;
    }

    pub(crate) fn way(&self) -> Way {
        *self.way.lock().expect("not poisoned")
    }

    pub(crate) fn fault(&self) {
        self.faults.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn faults(&self) -> usize {
        self.faults.load(Ordering::Relaxed)
    }

    /// From now on every call takes this long.
    pub(crate) fn slow_down(&self, by: Duration) {
        *self.slow.lock().expect("not poisoned") = by;
    }

    async fn pass(&self) -> Result<(), StoreError> {
        let slow = *self.slow.lock().expect("not poisoned");
        if !slow.is_zero() {
            tokio::time::sleep(slow).await;
        }
        if self.way() == Way::Cut {
            self.fault();
            return Err(StoreError::Unavailable("the way is cut".to_owned()));
        }
        Ok(())
    }

    fn write(&self) -> Result<(), StoreError> {
        if self.way() == Way::Full {
            self.fault();
            return Err(StoreError::Full("for a test".to_owned()));
        }
        Ok(())
    }

    /// Tells every watch that it has to read anew.
    pub(crate) fn break_watches(&self) {
        for watch in self.watches.lock().expect("not poisoned").drain(..) {
            watch.try_send(WatchEvent::Resync).expect("there is room");
            self.fault();
        }
    }
}

#[async_trait]
impl Store for Path {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        self.pass().await?;
        self.store.get(key).await
    }

    async fn range(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page, StoreError> {
        self.pass().await?;
        self.ranges.lock().expect("not poisoned").push(prefix.to_owned());
        // Short pages, so that paging is exercised.
        self.store.range(prefix, after, limit.min(3)).await
    }

    async fn commit(&self, txn: Txn) -> Result<Commit, StoreError> {
        self.pass().await?;
        self.write()?;
        let answer = self.store.commit(txn).await;
        if self.way() == Way::LosesClaim {
            self.fault();
            self.set(Way::Open);
            return Err(StoreError::Unavailable("the answer was lost".to_owned()));
        }
        answer
    }

    async fn commit_batch(&self, outer: Vec<Guard>, txns: Vec<Txn>) -> Result<Vec<Commit>, StoreError> {
        self.pass().await?;
        self.write()?;
        if self.way() == Way::DelaysCommit {
            self.fault();
            self.set(Way::Open);
            let store = Arc::clone(&self.store);
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(500)).await;
                store.commit_batch(outer, txns).await
            });
            return Err(StoreError::Unavailable("no answer".to_owned()));
        }
        if self.way() == Way::LingersCommit {
            self.fault();
            self.set(Way::Open);
            let store = Arc::clone(&self.store);
            let arrives = tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(500)).await;
                store.commit_batch(outer, txns).await
            });
            return arrives.await.expect("it does not panic");
        }
        let answer = self.store.commit_batch(outer, txns).await;
        if self.way() == Way::LosesAnswer {
            self.fault();
            self.set(Way::Open);
            return Err(StoreError::Unavailable("the answer was lost".to_owned()));
        }
        answer
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, StoreError> {
        self.pass().await?;
        let mut from = self.store.watch(prefix, after).await?;
        let (to, watch) = mpsc::channel(4_096);
        self.watches.lock().expect("not poisoned").push(to.clone());
        tokio::spawn(async move {
            while let Some(event) = from.recv().await {
                if to.send(event).await.is_err() {
                    return;
                }
            }
        });
        Ok(watch)
    }

    async fn compact(&self, before: Revision) -> Result<(), StoreError> {
        self.pass().await?;
        self.compacted.lock().expect("not poisoned").push(before);
        self.store.compact(before).await
    }

    async fn lease_grant(&self, ttl_ms: u64) -> Result<LeaseId, StoreError> {
        self.pass().await?;
        self.store.lease_grant(ttl_ms).await
    }

    async fn lease_keep_alive(&self, lease: LeaseId) -> Result<u64, StoreError> {
        self.pass().await?;
        if self.way() == Way::LiesAboutLease {
            self.fault();
            return Ok(2_000);
        }
        self.store.lease_keep_alive(lease).await
    }

    async fn lease_revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.pass().await?;
        self.store.lease_revoke(lease).await
    }
}

/// A server's scheduler, its way to the store, and the token that stops it.
pub(crate) struct Server {
    pub(crate) path: Arc<Path>,
    pub(crate) handle: SchedulerHandle,
    pub(crate) stop: CancellationToken,
}

pub(crate) fn server(store: &Arc<MemoryStore>, name: &str) -> Server {
    server_of(store, SchedulerConfig::new(name))
}

pub(crate) fn server_of(store: &Arc<MemoryStore>, config: SchedulerConfig) -> Server {
    let path = Path::to(store);
    let stop = CancellationToken::new();
    let handle = Scheduler::start(Arc::clone(&path) as Arc<dyn Store>, config, stop.clone());
    Server { path, handle, stop }
}

/// Waits until `found` answers, or fails after a minute of the paused clock.
pub(crate) async fn until<T>(what: &str, mut found: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = found().await {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: did not happen");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

pub(crate) async fn put<R: model::Record>(store: &MemoryStore, key: String, record: &R) {
    store.commit(Txn::new().put(key, record)).await.expect("in memory");
}

pub(crate) async fn step_record(store: &MemoryStore, run: &RunId, step: usize) -> Option<StepRecord> {
    let entry = store.get(&key::step(run, step)).await.expect("in memory")?;
    Some(entry.decode().expect("ours"))
}

pub(crate) async fn placed(store: &MemoryStore, run: &RunId, step: usize) -> StepRecord {
    let what = format!("step {step} of {run} is placed");
    until(&what, async || {
        step_record(store, run, step).await.filter(|r| r.alloc.is_some())
    })
    .await
}

pub(crate) async fn ended(store: &MemoryStore, run: &RunId, step: usize) -> StepRecord {
    let what = format!("step {step} of {run} ends");
    until(&what, async || {
        step_record(store, run, step).await.filter(|r| r.status.is_terminal())
    })
    .await
}

/// The node's lease has run out.
pub(crate) async fn end_session(store: &MemoryStore) {
    let txn = Txn::new().delete(key::session(&node_id()));
    store.commit(txn).await.expect("in memory");
}

pub(crate) fn node_id() -> NodeId {
    NodeId::new("n1").expect("legal")
}

pub(crate) async fn add_node(store: &MemoryStore) {
    let capacity = Resources {
        cpu_millis: 8_000,
        memory_bytes: 8 << 30,
        disk_bytes: 8 << 30,
    };
    add_node_of(store, capacity, 100).await;
}

/// A node that holds tens of thousands of steps.
pub(crate) async fn add_large_node(store: &MemoryStore) {
    let capacity = Resources {
        cpu_millis: 100_000_000,
        memory_bytes: 1 << 50,
        disk_bytes: 1 << 50,
    };
    add_node_of(store, capacity, 100_000).await;
}

async fn add_node_of(store: &MemoryStore, capacity: Resources, slots: u32) {
    let node = NodeRecord {
        id: node_id(),
        name: "n1".to_owned(),
        epoch: 1,
        capacity,
        slots,
        labels: BTreeMap::new(),
        facts: NodeFacts::default(),
        registered_ms: 0,
        unknown: Unknown::new(),
    };
    let session = SessionRecord {
        lease: 0,
        node: node_id(),
        server: "a".to_owned(),
        node_epoch: 1,
        address: String::new(),
        connected: true,
        unknown: Unknown::new(),
    };
    put(store, key::node(&node.id), &node).await;
    put(store, key::session(&node.id), &session).await;
}

pub(crate) fn steps(count: usize) -> Vec<StepDef> {
    let step = |n: usize| StepDef {
        name: StepName::new(format!("s{n}")).expect("legal"),
        title: None,
        stage: 0,
        needs: n.checked_sub(1).into_iter().collect(),
        image: "oci:base".to_owned(),
        before: Vec::new(),
        run: Vec::new(),
        after: Vec::new(),
        shell: Shell::Sh,
        working_directory: ".".to_owned(),
        checkout: None,
        user: None,
        env: BTreeMap::new(),
        timeout_ms: 1_000,
        allow_failure: false,
        resources: Resources {
            cpu_millis: 1_000,
            memory_bytes: 1 << 20,
            disk_bytes: 1 << 20,
        },
        pids: 10,
        shm_bytes: 0,
        labels: BTreeMap::new(),
        retry: model::Retry::default(),
        idempotent: true,
        rules: model::StepRules::default(),
    };
    (0..count).map(step).collect()
}

/// A run whose steps follow each other.
pub(crate) async fn add_run(store: &MemoryStore, id: &str, count: usize) -> RunId {
    let def = RunDef {
        name: None,
        title: None,
        stages: vec![StageDef {
            name: StepName::new("main").expect("legal"),
        }],
        steps: steps(count),
        rules: model::RunRules::default(),
    };
    let header = header(id, count);
    put(store, key::run_def(&header.id, 0), &def.to_chunks()[0]).await;
    put(store, key::run(&header.id), &header).await;
    header.id
}

/// The node reports that the step's attempt ended well, as its server would.
pub(crate) async fn end_well(store: &MemoryStore, run: &RunId, step: usize) {
    end_with(store, run, step, Outcome::Exited { code: 0 }).await;
}

/// The node reports how the step's attempt ended.
pub(crate) async fn end_with(store: &MemoryStore, run: &RunId, step: usize, outcome: Outcome) {
    let record = placed(store, run, step).await;
    let alloc = record.alloc.expect("placed");
    let report = Observed {
        alloc: alloc.clone(),
        fence: record.fence,
        state: ObservedState::Ended,
        started_ms: Some(1),
        ended_ms: Some(2),
        phases: Vec::new(),
        outcome: Some(outcome),
        log_bytes: Some(3),
        usage: Usage::default(),
        left: model::Left::default(),
        unknown: Unknown::new(),
    };
    let order = key::alloc(&node_id(), &alloc);
    let txn = Txn::new()
        .expect(order, store::Expect::Present)
        .put(key::observed(&alloc), &report);
    let commit = store.commit(txn).await.expect("in memory");
    assert!(commit.is_applied(), "the order stands");
}

pub(crate) async fn orders(store: &MemoryStore) -> Vec<Allocation> {
    let (entries, _) = store::live::read_all(store, key::ALLOCS).await.expect("in memory");
    entries.iter().map(|e| e.decode().expect("ours")).collect()
}

pub(crate) fn metric(handle: &SchedulerHandle, name: &str) -> f64 {
    let families = handle.registry().gather();
    let family = families
        .iter()
        .find(|f| f.name() == name)
        .unwrap_or_else(|| panic!("no metric {name}"));
    let metric = &family.get_metric()[0];
    metric.get_counter().get_value() + metric.get_gauge().get_value() + metric.get_histogram().get_sample_count() as f64
}

pub(crate) fn header(id: &str, count: usize) -> RunHeader {
    RunHeader {
        id: RunId::new(id).expect("legal"),
        team: TeamName::new("default").expect("legal"),
        pipeline: model::PipelineName::new("p").expect("legal"),
        number: 1,
        attempt: 1,
        source: Source {
            repository: "file:///r".to_owned(),
            git_ref: "refs/heads/main".to_owned(),
            commit: "c".to_owned(),
            message: String::new(),
            author: String::new(),
            event: Event::Push,
        },
        variables: BTreeMap::new(),
        inputs: std::collections::BTreeMap::new(),
        created_ms: 1,
        def_chunks: 1,
        steps: count,
        error: None,
        request_id: "r".to_owned(),
        requested_by: "t".to_owned(),
        traceparent: None,
        unknown: Unknown::new(),
    }
}

/// A server whose way to the store has no faults and pages of the usual size.
pub(crate) fn undisturbed(store: &Arc<MemoryStore>, name: &str) -> Undisturbed {
    let stop = CancellationToken::new();
    let config = SchedulerConfig::new(name);
    let handle = Scheduler::start(Arc::clone(store) as Arc<dyn Store>, config, stop.clone());
    Undisturbed { handle, stop }
}

/// See [`undisturbed`].
pub(crate) struct Undisturbed {
    pub(crate) handle: SchedulerHandle,
    pub(crate) stop: CancellationToken,
}

/// Waits until `found` answers, by the real clock.
pub(crate) async fn until_real<T>(what: &str, bound: Duration, mut found: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + bound;
    loop {
        if let Some(found) = found().await {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: did not happen");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
