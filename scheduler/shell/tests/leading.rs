//! The shell against the in-memory store on tokio's paused clock: one leads, the others are ready,
//! and whatever the store does no step is placed twice.

use async_trait::async_trait;
use model::record::Unknown;
use model::{
    Allocation, ClusterVersion, Event, NodeFacts, NodeId, NodeRecord, Observed, ObservedState, Outcome, Resources,
    RunDef, RunHeader, RunId, SessionRecord, Shell, Source, StageDef, StepDef, StepName, StepRecord, StepStatus,
    TeamName, Usage, key,
};
use scheduler::Verdict;
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
enum Way {
    Open,
    /// Nothing gets through.
    Cut,
    /// The next batch is applied, but its answer is lost.
    LosesAnswer,
    /// The next batch is said to have failed, and arrives half a second later.
    DelaysCommit,
    /// Renewals are swallowed and answered with success: the server believes that it leads.
    LiesAboutLease,
}

/// One server's way to the store.
struct Path {
    store: Arc<MemoryStore>,
    way: Mutex<Way>,
    /// How often the way did what it was told to.
    faults: AtomicUsize,
    watches: Mutex<Vec<mpsc::Sender<WatchEvent>>>,
}

impl Path {
    fn to(store: &Arc<MemoryStore>) -> Arc<Self> {
        Arc::new(Self {
            store: Arc::clone(store),
            way: Mutex::new(Way::Open),
            faults: AtomicUsize::new(0),
            watches: Mutex::new(Vec::new()),
        })
    }

    fn set(&self, way: Way) {
        *self.way.lock().expect("not poisoned") = way;
    }

    fn way(&self) -> Way {
        *self.way.lock().expect("not poisoned")
    }

    fn fault(&self) {
        self.faults.fetch_add(1, Ordering::Relaxed);
    }

    fn faults(&self) -> usize {
        self.faults.load(Ordering::Relaxed)
    }

    fn pass(&self) -> Result<(), StoreError> {
        if self.way() == Way::Cut {
            self.fault();
            return Err(StoreError::Unavailable("the way is cut".to_owned()));
        }
        Ok(())
    }

    /// Tells every watch that it has to read anew.
    fn break_watches(&self) {
        for watch in self.watches.lock().expect("not poisoned").drain(..) {
            watch.try_send(WatchEvent::Resync).expect("there is room");
            self.fault();
        }
    }
}

#[async_trait]
impl Store for Path {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        self.pass()?;
        self.store.get(key).await
    }

    async fn range(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page, StoreError> {
        self.pass()?;
        // Short pages, so that paging is exercised.
        self.store.range(prefix, after, limit.min(3)).await
    }

    async fn commit(&self, txn: Txn) -> Result<Commit, StoreError> {
        self.pass()?;
        self.store.commit(txn).await
    }

    async fn commit_batch(&self, outer: Vec<Guard>, txns: Vec<Txn>) -> Result<Vec<Commit>, StoreError> {
        self.pass()?;
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
        let answer = self.store.commit_batch(outer, txns).await;
        if self.way() == Way::LosesAnswer {
            self.fault();
            self.set(Way::Open);
            return Err(StoreError::Unavailable("the answer was lost".to_owned()));
        }
        answer
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, StoreError> {
        self.pass()?;
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
        self.pass()?;
        self.store.compact(before).await
    }

    async fn lease_grant(&self, ttl_ms: u64) -> Result<LeaseId, StoreError> {
        self.pass()?;
        self.store.lease_grant(ttl_ms).await
    }

    async fn lease_keep_alive(&self, lease: LeaseId) -> Result<u64, StoreError> {
        self.pass()?;
        if self.way() == Way::LiesAboutLease {
            self.fault();
            return Ok(2_000);
        }
        self.store.lease_keep_alive(lease).await
    }

    async fn lease_revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.pass()?;
        self.store.lease_revoke(lease).await
    }
}

/// A server's scheduler, its way to the store, and the token that stops it.
struct Server {
    path: Arc<Path>,
    handle: SchedulerHandle,
    stop: CancellationToken,
}

fn server(store: &Arc<MemoryStore>, name: &str) -> Server {
    let path = Path::to(store);
    let stop = CancellationToken::new();
    let handle = Scheduler::start(
        Arc::clone(&path) as Arc<dyn Store>,
        SchedulerConfig::new(name),
        stop.clone(),
    );
    Server { path, handle, stop }
}

/// Waits until `found` answers, or fails after a minute of the paused clock.
async fn until<T>(what: &str, mut found: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = found().await {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: did not happen");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn put<R: model::Record>(store: &MemoryStore, key: String, record: &R) {
    store.commit(Txn::new().put(key, record)).await.expect("in memory");
}

async fn step_record(store: &MemoryStore, run: &RunId, step: usize) -> Option<StepRecord> {
    let entry = store.get(&key::step(run, step)).await.expect("in memory")?;
    Some(entry.decode().expect("ours"))
}

async fn placed(store: &MemoryStore, run: &RunId, step: usize) -> StepRecord {
    let what = format!("step {step} of {run} is placed");
    until(&what, async || {
        step_record(store, run, step).await.filter(|r| r.alloc.is_some())
    })
    .await
}

async fn ended(store: &MemoryStore, run: &RunId, step: usize) -> StepRecord {
    let what = format!("step {step} of {run} ends");
    until(&what, async || {
        step_record(store, run, step).await.filter(|r| r.status.is_terminal())
    })
    .await
}

fn node_id() -> NodeId {
    NodeId::new("n1").expect("legal")
}

async fn add_node(store: &MemoryStore) {
    let capacity = Resources {
        cpu_millis: 8_000,
        memory_bytes: 8 << 30,
        disk_bytes: 8 << 30,
    };
    let node = NodeRecord {
        id: node_id(),
        name: "n1".to_owned(),
        epoch: 1,
        capacity,
        slots: 100,
        labels: BTreeMap::new(),
        facts: NodeFacts::default(),
        registered_ms: 0,
        unknown: Unknown::new(),
    };
    let session = SessionRecord {
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

fn steps(count: usize) -> Vec<StepDef> {
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
    };
    (0..count).map(step).collect()
}

/// A run whose steps follow each other.
async fn add_run(store: &MemoryStore, id: &str, count: usize) -> RunId {
    let def = RunDef {
        name: None,
        title: None,
        stages: vec![StageDef {
            name: StepName::new("main").expect("legal"),
        }],
        steps: steps(count),
    };
    let header = RunHeader {
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
        created_ms: 1,
        def_chunks: 1,
        steps: count,
        error: None,
        request_id: "r".to_owned(),
        requested_by: "t".to_owned(),
        traceparent: None,
        unknown: Unknown::new(),
    };
    put(store, key::run_def(&header.id, 0), &def.to_chunks()[0]).await;
    put(store, key::run(&header.id), &header).await;
    header.id
}

/// The node reports that the step's attempt ended well, as its server would.
async fn end_well(store: &MemoryStore, run: &RunId, step: usize) {
    let record = placed(store, run, step).await;
    let alloc = record.alloc.expect("placed");
    let report = Observed {
        alloc: alloc.clone(),
        fence: record.fence,
        state: ObservedState::Ended,
        started_ms: Some(1),
        ended_ms: Some(2),
        phases: Vec::new(),
        outcome: Some(Outcome::Exited { code: 0 }),
        log_bytes: Some(3),
        usage: Usage::default(),
        unknown: Unknown::new(),
    };
    let order = key::alloc(&node_id(), &alloc);
    let txn = Txn::new()
        .expect(order, store::Expect::Present)
        .put(key::observed(&alloc), &report);
    let commit = store.commit(txn).await.expect("in memory");
    assert!(commit.is_applied(), "the order stands");
}

async fn orders(store: &MemoryStore) -> Vec<Allocation> {
    let (entries, _) = store::live::read_all(store, key::ALLOCS).await.expect("in memory");
    entries.iter().map(|e| e.decode().expect("ours")).collect()
}

fn metric(handle: &SchedulerHandle, name: &str) -> f64 {
    let families = handle.registry().gather();
    let family = families
        .iter()
        .find(|f| f.name() == name)
        .unwrap_or_else(|| panic!("no metric {name}"));
    let metric = &family.get_metric()[0];
    metric.get_counter().get_value() + metric.get_gauge().get_value() + metric.get_histogram().get_sample_count() as f64
}

#[tokio::test(start_paused = true)]
async fn a_run_goes_through_and_is_measured_and_explained() {
    let store = Arc::new(MemoryStore::new());
    let server = server(&store, "a");
    let run = add_run(&store, "r1", 2).await;
    server.handle.wait_for_leadership().await;
    let waits = until("explained", async || server.handle.explain(&run, 0).await).await;
    assert_eq!((waits.verdict, waits.name.as_str()), (Verdict::NoNode, "s0"));
    add_node(&store).await;
    placed(&store, &run, 0).await;
    let here = server.handle.explain(&run, 0).await.expect("known");
    assert_eq!((here.verdict, here.node), (Verdict::Placed, Some(node_id())));
    for step in 0..2 {
        end_well(&store, &run, step).await;
        assert_eq!(ended(&store, &run, step).await.status, StepStatus::Success);
    }
    assert!(orders(&store).await.is_empty());
    let over = until("finished", async || server.handle.explain(&run, 1).await).await;
    assert_eq!((over.verdict, over.node), (Verdict::Ended, Some(node_id())));
    assert!(over.placement.is_some(), "the record is read from the store");
    assert!(
        server
            .handle
            .explain(&RunId::new("none").expect("legal"), 0)
            .await
            .is_none()
    );
    for (name, value) in [
        ("buildflow_scheduler_leader", 1.0),
        ("buildflow_scheduler_placements_total", 2.0),
        ("buildflow_scheduler_placement_seconds", 2.0),
        ("buildflow_scheduler_queue_wait_seconds", 2.0),
        ("buildflow_scheduler_queue_length", 0.0),
        ("buildflow_scheduler_steps_ended_total", 2.0),
        ("buildflow_scheduler_refused_commits_total", 0.0),
        ("buildflow_scheduler_view_rebuilds_total", 0.0),
    ] {
        assert_eq!(metric(&server.handle, name), value, "{name}");
    }
    server.stop.cancel();
    server.handle.wait().await;
    assert!(!server.handle.is_leader());
    assert!(
        store.get(key::LEADER).await.expect("in memory").is_none(),
        "the key is given back"
    );
}

#[tokio::test(start_paused = true)]
async fn a_placement_comes_at_once_and_not_with_the_period() {
    let store = Arc::new(MemoryStore::new());
    let server = server(&store, "a");
    server.handle.wait_for_leadership().await;
    add_node(&store).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let before = Instant::now();
    let run = add_run(&store, "r1", 1).await;
    placed(&store, &run, 0).await;
    assert!(
        before.elapsed() < Duration::from_millis(20),
        "took {:?}",
        before.elapsed()
    );
    server.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn the_first_leader_founds_the_cluster_and_later_ones_leave_it() {
    let store = Arc::new(MemoryStore::new());
    for epoch in [1, 7] {
        let server = server(&store, "a");
        server.handle.wait_for_leadership().await;
        let entry = store
            .get(key::CLUSTER_VERSION)
            .await
            .expect("in memory")
            .expect("written");
        let mut version: ClusterVersion = entry.decode().expect("ours");
        assert_eq!((version.format, version.epoch), (1, epoch));
        version.epoch = 7;
        put(&store, key::CLUSTER_VERSION.to_owned(), &version).await;
        server.stop.cancel();
        server.handle.wait().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_of_a_newer_format_is_not_led() {
    let store = Arc::new(MemoryStore::new());
    let version = ClusterVersion {
        format: 2,
        epoch: 1,
        unknown: Unknown::new(),
    };
    put(&store, key::CLUSTER_VERSION.to_owned(), &version).await;
    let server = server(&store, "a");
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(!server.handle.is_leader());
    assert!(store.get(key::LEADER).await.expect("in memory").is_none());
    server.stop.cancel();
    server.handle.wait().await;
}

/// Two servers; the first leads and has placed the first step of a run of two.
async fn two_servers() -> (Arc<MemoryStore>, Server, Server, RunId) {
    let store = Arc::new(MemoryStore::new());
    add_node(&store).await;
    let first = server(&store, "a");
    first.handle.wait_for_leadership().await;
    let second = server(&store, "b");
    let run = add_run(&store, "r1", 2).await;
    placed(&store, &run, 0).await;
    assert!(!second.handle.is_leader());
    (store, first, second, run)
}

#[tokio::test(start_paused = true)]
async fn a_clean_stop_hands_over_at_once() {
    let (store, first, second, run) = two_servers().await;
    assert!(
        second.handle.explain(&run, 0).await.is_some(),
        "one that does not lead can explain too"
    );
    let before = Instant::now();
    first.stop.cancel();
    first.handle.wait().await;
    second.handle.wait_for_leadership().await;
    end_well(&store, &run, 0).await;
    placed(&store, &run, 1).await;
    assert!(
        before.elapsed() < Duration::from_millis(200),
        "took {:?}",
        before.elapsed()
    );
    second.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_cut_off_is_replaced_within_three_seconds() {
    let (store, first, second, run) = two_servers().await;
    let before = Instant::now();
    first.path.set(Way::Cut);
    end_well(&store, &run, 0).await;
    placed(&store, &run, 1).await;
    assert!(before.elapsed() < Duration::from_secs(3), "took {:?}", before.elapsed());
    assert!(second.handle.is_leader());
    until("the first steps down", async || {
        (!first.handle.is_leader()).then_some(())
    })
    .await;
    assert!(first.path.faults() > 0);
    // Once it is back it follows.
    first.path.set(Way::Open);
    end_well(&store, &run, 1).await;
    let known = async || {
        first
            .handle
            .explain(&run, 1)
            .await
            .filter(|e| e.verdict == Verdict::Ended)
    };
    until("the first knows", known).await;
    assert!(!first.handle.is_leader());
    for server in [first, second] {
        server.stop.cancel();
        server.handle.wait().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_does_not_know_of_its_end_commits_nothing() {
    let (store, first, second, run) = two_servers().await;
    first.path.set(Way::LiesAboutLease);
    second.handle.wait_for_leadership().await;
    assert!(
        first.path.faults() > 0 && first.handle.is_leader(),
        "both believe to lead"
    );
    end_well(&store, &run, 0).await;
    end_well(&store, &run, 1).await;
    ended(&store, &run, 1).await;
    until("the first learns of it", async || {
        (!first.handle.is_leader()).then_some(())
    })
    .await;
    assert!(second.handle.is_leader());
    let records = [step_record(&store, &run, 0).await, step_record(&store, &run, 1).await];
    assert!(
        records.iter().flatten().all(|r| r.attempt == 1),
        "no step was placed twice"
    );
    for server in [first, second] {
        server.stop.cancel();
        server.handle.wait().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_commit_whose_answer_is_lost_is_found_in_the_store() {
    let store = Arc::new(MemoryStore::new());
    add_node(&store).await;
    let server = server(&store, "a");
    server.handle.wait_for_leadership().await;
    server.path.set(Way::LosesAnswer);
    let run = add_run(&store, "r1", 3).await;
    for step in 0..3 {
        let record = placed(&store, &run, step).await;
        assert_eq!(record.attempt, 1);
        // The end of the middle step is folded, and that answer is lost as well.
        if step == 1 {
            server.path.set(Way::LosesAnswer);
        }
        end_well(&store, &run, step).await;
        assert_eq!(ended(&store, &run, step).await.attempt, 1);
    }
    assert_eq!(server.path.faults(), 2);
    assert_eq!(metric(&server.handle, "buildflow_scheduler_view_rebuilds_total"), 2.0);
    server.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_arrives_late_takes_no_room_that_was_given_away() {
    let store = Arc::new(MemoryStore::new());
    add_node(&store).await;
    let server = server(&store, "a");
    server.handle.wait_for_leadership().await;
    let sum = async || orders(&store).await.iter().map(|o| o.resources.cpu_millis).sum::<u64>();
    // Nine steps of 1 cpu for a node of 8. The commit that places one of them lingers; the other
    // eight go before it when the view is built anew, so nothing but its key is in its way.
    server.path.set(Way::DelaysCommit);
    add_run(&store, "z", 1).await;
    until("the commit lingers", async || (server.path.faults() == 1).then_some(())).await;
    for n in 1..9 {
        add_run(&store, &format!("r{n}"), 1).await;
    }
    until("the node is full", async || (sum().await >= 8_000).then_some(())).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(sum().await, 8_000);
    assert!(server.handle.is_leader());
    server.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_view_that_fell_behind_is_built_anew() {
    let store = Arc::new(MemoryStore::new());
    add_node(&store).await;
    let server = server(&store, "a");
    server.handle.wait_for_leadership().await;
    let run = add_run(&store, "r1", 2).await;
    placed(&store, &run, 0).await;
    server.path.break_watches();
    end_well(&store, &run, 0).await;
    placed(&store, &run, 1).await;
    assert!(server.path.faults() > 0);
    assert_eq!(metric(&server.handle, "buildflow_scheduler_view_rebuilds_total"), 1.0);
    server.stop.cancel();
}
