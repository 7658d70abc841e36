//! Runs that leave the live store: nothing is lost on the way, whatever fails, and everything is found again.

use super::stage::{FILE, PATIENCE, Stage, record};
use crate::archive;
use crate::fleet::fixture::{FlakyBlobs, step_def};
use crate::rest;

use crate::state::Server;
use api_core::archive::cancel_request;
use async_trait::async_trait;
use axum::http::StatusCode;
use model::record::Unknown;
use model::run::{Event, Source, StageDef};
use model::{ArchivedRun, Leader, PipelineName, RunDef, RunHeader, RunId, StepStatus, TeamName, key};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use store::history::conformance::archived;
use store::history::{RunFilter, RunPage, RunQuery};
use store::memory::MemoryStore;
use store::{
    BlobName, BlobStore, Commit, Entry, Expect, Guard, History, HistoryError, LeaseId, Page, Revision, SqliteHistory,
    Store, StoreError, Txn, Watch,
};
use tokio::sync::watch;

/// History that can be away.
pub(super) struct Moody {
    pub(super) inner: SqliteHistory,
    pub(super) away: AtomicBool,
    /// It removes nothing.
    pub(super) clings: AtomicBool,
    refused: AtomicUsize,
}

impl Moody {
    fn here(&self) -> Result<&SqliteHistory, HistoryError> {
        if self.away.load(Ordering::SeqCst) {
            self.refused.fetch_add(1, Ordering::SeqCst);
            return Err(HistoryError::Unavailable("injected: secret-host".to_owned()));
        }
        Ok(&self.inner)
    }
}

#[async_trait]
impl History for Moody {
    async fn put_runs(&self, runs: &[ArchivedRun]) -> Result<(), HistoryError> {
        self.here()?.put_runs(runs).await
    }
    async fn get_run(&self, run: &RunId) -> Result<Option<ArchivedRun>, HistoryError> {
        self.here()?.get_run(run).await
    }
    async fn find_run(&self, t: &TeamName, p: &PipelineName, n: u64) -> Result<Option<ArchivedRun>, HistoryError> {
        self.here()?.find_run(t, p, n).await
    }
    async fn list_runs(&self, query: &RunQuery) -> Result<RunPage, HistoryError> {
        self.here()?.list_runs(query).await
    }
    async fn count_runs(&self, filter: &RunFilter) -> Result<u64, HistoryError> {
        self.here()?.count_runs(filter).await
    }
    async fn oldest_runs(
        &self,
        before_ms: u64,
        after: Option<(u64, &RunId)>,
        limit: usize,
    ) -> Result<Vec<store::history::Oldest>, HistoryError> {
        self.here()?.oldest_runs(before_ms, after, limit).await
    }
    async fn remove_runs(&self, runs: &[RunId]) -> Result<(), HistoryError> {
        if self.clings.load(Ordering::SeqCst) {
            return Err(HistoryError::Unavailable("injected: it clings".to_owned()));
        }
        self.here()?.remove_runs(runs).await
    }
    async fn check(&self) -> Result<String, HistoryError> {
        self.here()?.check().await
    }
}

/// A store whose next batches fail: before they are applied, or after, so that nobody knows.
pub(super) struct Doubtful {
    inner: Arc<MemoryStore>,
    before: AtomicUsize,
    after: AtomicUsize,
    failed: AtomicUsize,
}

impl Doubtful {
    fn fails(&self, left: &AtomicUsize) -> Result<(), StoreError> {
        let take = |left: usize| left.checked_sub(1);
        if left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_err() {
            return Ok(());
        }
        self.failed.fetch_add(1, Ordering::SeqCst);
        Err(StoreError::Unavailable("injected".to_owned()))
    }
}

#[async_trait]
impl Store for Doubtful {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        self.inner.get(key).await
    }
    async fn range(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page, StoreError> {
        self.inner.range(prefix, after, limit).await
    }
    async fn commit(&self, txn: Txn) -> Result<Commit, StoreError> {
        self.inner.commit(txn).await
    }
    async fn commit_batch(&self, outer: Vec<Guard>, txns: Vec<Txn>) -> Result<Vec<Commit>, StoreError> {
        self.fails(&self.before)?;
        let committed = self.inner.commit_batch(outer, txns).await?;
        self.fails(&self.after)?;
        Ok(committed)
    }
    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, StoreError> {
        self.inner.watch(prefix, after).await
    }
    async fn compact(&self, before: Revision) -> Result<(), StoreError> {
        self.inner.compact(before).await
    }
    async fn lease_grant(&self, ttl_ms: u64) -> Result<LeaseId, StoreError> {
        self.inner.lease_grant(ttl_ms).await
    }
    async fn lease_keep_alive(&self, lease: LeaseId) -> Result<u64, StoreError> {
        self.inner.lease_keep_alive(lease).await
    }
    async fn lease_revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.inner.lease_revoke(lease).await
    }
}

/// A stage with everything that can fail, and the leader's key in the test's hand.
pub(super) struct Yard {
    pub(super) stage: Stage,
    pub(super) store: Arc<Doubtful>,
    pub(super) blobs: Arc<FlakyBlobs>,
    pub(super) history: Arc<Moody>,
    leading: watch::Sender<Option<Revision>>,
}

impl Yard {
    pub(super) async fn new() -> Self {
        let inner = Arc::new(MemoryStore::new());
        let mut stage = Stage::over(inner.clone(), tempfile::tempdir().unwrap()).await;
        let store = Arc::new(Doubtful {
            inner,
            before: AtomicUsize::new(0),
            after: AtomicUsize::new(0),
            failed: AtomicUsize::new(0),
        });
        let blobs = FlakyBlobs::open(&stage.folder.path().join("yard"));
        let history = Arc::new(Moody {
            inner: SqliteHistory::open(stage.folder.path().join("past")).unwrap(),
            away: AtomicBool::new(false),
            clings: AtomicBool::new(false),
            refused: AtomicUsize::new(0),
        });
        let (leading, led) = watch::channel(None);
        let mut deps = stage.server.deps.clone();
        deps.store = store.clone();
        deps.blobs = blobs.clone();
        deps.history = history.clone();
        deps.leading = led;
        let mut config = stage.server.config.clone();
        config.archive.after_ms = 50;
        config.archive.log_wait_ms = 3_000;
        stage.server = Server::new(config, deps);
        stage.router = rest::router(&stage.server);
        stage.start_view().await;
        stage.start_intake();
        stage.loops.spawn(archive::keep(stage.server.clone()));
        Self {
            stage,
            store,
            blobs,
            history,
            leading,
        }
    }

    /// Removes what is old from now on. Runs of most tests are.
    pub(super) fn retain(&mut self) {
        self.stage.loops.spawn(archive::retain(self.stage.server.clone()));
    }

    /// Begins a term.
    pub(super) async fn lead(&self) {
        let leader = Leader {
            server: "one".to_owned(),
            unknown: Unknown::new(),
        };
        match self.store.commit(Txn::new().put(key::LEADER, &leader)).await.unwrap() {
            Commit::Applied(revision) => self.leading.send_replace(Some(revision)),
            Commit::Refused { .. } => unreachable!("no guard"),
        };
    }

    pub(super) async fn until(&self, what: &str, holds: impl AsyncFn(&Self) -> bool) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !holds(self).await {
            assert!(tokio::time::Instant::now() < deadline, "not in time: {what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn keys(&self, prefix: &str) -> usize {
        store::live::read_all(self.store.as_ref(), prefix)
            .await
            .unwrap()
            .0
            .len()
    }

    /// Waits until the live store and the outbox are empty and history has so many.
    async fn until_in_history(&self, runs: u64) {
        self.until("all runs are in history", async |yard| {
            yard.history.inner.count_runs(&RunFilter::default()).await == Ok(runs)
                && yard.keys(key::RUNS).await == 0
                && yard.keys(key::ARCHIVE_OUTBOX).await == 0
        })
        .await;
        self.until("the picture shows it", async |yard| {
            yard.stage
                .server
                .view
                .read(|p| p.runs().is_empty() && p.outbox().is_empty())
        })
        .await;
    }

    /// A run that has ended, written at once as it would be left.
    async fn ended(&self, id: &str, number: u64, steps: usize) -> RunId {
        self.written(id, number, steps, StepStatus::Success).await
    }

    /// A run that goes on.
    pub(super) async fn running(&self, id: &str) -> RunId {
        self.written(id, 1, 1, StepStatus::Running).await
    }

    async fn written(&self, id: &str, number: u64, steps: usize, status: StepStatus) -> RunId {
        let run = RunId::new(id).unwrap();
        let names = (0..steps).map(|n| step_def(&format!("s{n}")));
        let def = RunDef {
            name: None,
            title: None,
            stages: vec![StageDef {
                name: "build".parse().unwrap(),
            }],
            steps: names.collect(),
            rules: model::RunRules::default(),
        };
        let chunks = def.to_chunks();
        for (n, chunk) in chunks.iter().enumerate() {
            self.stage.write(Txn::new().put(key::run_def(&run, n), chunk)).await;
        }
        for part in (0..steps).collect::<Vec<_>>().chunks(100) {
            let done = record(status);
            let txn = part
                .iter()
                .fold(Txn::new(), |txn, n| txn.put(key::step(&run, *n), &done));
            self.stage.write(txn).await;
        }
        let header = RunHeader {
            id: run.clone(),
            team: "default".parse().unwrap(),
            pipeline: "web".parse().unwrap(),
            number,
            attempt: 1,
            source: Source {
                repository: "file:///r".to_owned(),
                git_ref: "refs/heads/main".to_owned(),
                commit: "c".repeat(40),
                message: String::new(),
                author: String::new(),
                event: Event::Push,
            },
            variables: [].into(),
            inputs: std::collections::BTreeMap::new(),
            created_ms: 1_000 + number,
            def_chunks: chunks.len(),
            steps,
            error: None,
            request_id: "q".to_owned(),
            requested_by: "t".to_owned(),
            traceparent: None,
            unknown: Unknown::new(),
        };
        self.stage.write(Txn::new().put(key::run(&run), &header)).await;
        run
    }

    async fn listed(&self, path: &str) -> (Vec<String>, Value) {
        let (mut all, mut cursor, mut last) = (Vec::new(), String::new(), Value::Null);
        loop {
            let reply = self.stage.get(&format!("{path}{cursor}")).await;
            assert_eq!(reply.code, StatusCode::OK, "{reply:?}");
            let runs = reply.json["runs"].as_array().unwrap();
            all.extend(runs.iter().map(|r| r["run_id"].as_str().unwrap().to_owned()));
            last = if reply.json["warning"].is_null() {
                last
            } else {
                reply.json["warning"].clone()
            };
            match reply.json["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return (all, last),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_leaves_the_live_store_and_is_shown_as_before() {
    let yard = Yard::new().await;
    let _repository = yard.stage.pipeline("web", FILE).await;
    let begin = Stage::json("POST", "/api/v1/pipelines/default/web/runs", &json!({"branch": "main"}));
    let (mut parts, body) = begin.into_parts();
    parts.headers.insert("idempotency-key", "k1".parse().unwrap());
    let run = yard
        .stage
        .ask(axum::http::Request::from_parts(parts.clone(), body))
        .await
        .run_id();
    for (step, status) in [
        (0, StepStatus::Success),
        (1, StepStatus::Failed),
        (2, StepStatus::Success),
    ] {
        yard.stage.lead(&run, step, status).await;
    }
    let paths = [
        format!("/api/v1/runs/{run}"),
        "/api/v1/pipelines/default/web/runs/1".to_owned(),
        format!("/api/v1/pipelines/default/web/runs/{run}"),
        format!("/api/v1/runs/{run}/steps/unit/explain"),
        "/api/v1/runs?status=failed".to_owned(),
        "/api/v1/runs?branch=main&limit=1".to_owned(),
        "/api/v1/pipelines/default/web/runs?status=failed".to_owned(),
        format!("/api/v1/runs/{run}/logs"),
        format!("/api/v1/runs/{run}/steps/unit/logs"),
    ];
    let mut before = Vec::new();
    for path in &paths {
        let reply = yard.stage.get(path).await;
        assert_eq!(reply.code, StatusCode::OK, "{path}: {reply:?}");
        before.push(reply.text);
    }
    yard.lead().await;
    yard.until_in_history(1).await;
    for (path, before) in paths.iter().zip(&before) {
        let reply = yard.stage.get(path).await;
        assert_eq!((reply.code, &reply.text), (StatusCode::OK, before), "{path}");
    }
    let events = yard.stage.get(&format!("/api/v1/runs/{run}/events")).await.text;
    assert_eq!(events.matches("event: snapshot").count(), 1, "{events}");
    assert_eq!(events.matches("event: end").count(), 1, "{events}");
    let end = events
        .lines()
        .filter_map(|l| l.strip_prefix("id: "))
        .next_back()
        .unwrap();
    let again = Stage::request("GET", &format!("/api/v1/runs/{run}/events")).header("last-event-id", end);
    let again = yard.stage.ask(again.body(axum::body::Body::empty()).unwrap()).await;
    assert_eq!(again.code, StatusCode::NO_CONTENT);
    let cancelled = yard.stage.post(&format!("/api/v1/runs/{run}/cancel"), &json!({})).await;
    cancelled.problem(409, "conflict");
    // The same request again: the same run, at once.
    let body = axum::body::Body::from(json!({"branch": "main"}).to_string());
    let asked = tokio::time::Instant::now();
    let same = yard.stage.ask(axum::http::Request::from_parts(parts, body)).await;
    assert_eq!((same.code, same.run_id()), (StatusCode::OK, run.clone()), "{same:?}");
    assert_eq!(
        (&same.json["status"], &same.json["number"]),
        (&json!("failed"), &json!(1))
    );
    assert!(asked.elapsed() < crate::limit::RUN_WAIT);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_past_of_a_deleted_pipeline_stays() {
    let yard = Yard::new().await;
    let _repository = yard.stage.pipeline("web", FILE).await;
    let run = yard.ended("01jda", 1, 1).await;
    yard.lead().await;
    yard.until_in_history(1).await;
    for missing in ["/api/v1/runs/01jdnothere", "/api/v1/pipelines/default/web/runs/2"] {
        yard.stage.get(missing).await.problem(404, "not-found");
    }
    let delete = Stage::request("DELETE", "/api/v1/pipelines/default/web").body(axum::body::Body::empty());
    assert!(yard.stage.ask(delete.unwrap()).await.code.is_success());
    assert_eq!(
        yard.listed("/api/v1/pipelines/default/web/runs?limit=5").await.0,
        [run.to_string()]
    );
    yard.stage
        .get("/api/v1/pipelines/default/other/runs")
        .await
        .problem(404, "not-found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_of_a_thousand_steps_is_archived_whole() {
    let yard = Yard::new().await;
    let run = yard.ended("01jda", 1, 1_000).await;
    let path = format!("/api/v1/runs/{run}");
    let before = yard.stage.get(&path).await;
    assert_eq!(before.json["stages"][0]["steps"].as_array().unwrap().len(), 1_000);
    yard.lead().await;
    yard.until_in_history(1).await;
    assert!(yard.stage.get(&path).await.text == before.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_leader_archives_and_only_what_has_ended() {
    let yard = Yard::new().await;
    let ended = yard.ended("01jda", 1, 2).await;
    let going = yard.ended("01jdb", 2, 2).await;
    yard.stage.lead(&going, 1, StepStatus::Running).await;
    // A key that another server has taken since: what is written under it is refused.
    yard.leading.send_replace(Some(Revision(1)));
    yard.until("a move was refused", async |yard| {
        yard.stage
            .server
            .metrics
            .text()
            .contains("buildflow_archive_failures_total{part=\"move\"}")
    })
    .await;
    assert!(yard.store.get(&key::run(&ended)).await.unwrap().is_some());
    assert_eq!(yard.keys(key::ARCHIVE_OUTBOX).await, 0);
    yard.lead().await;
    yard.until("the ended one is gone", async |yard| {
        yard.store.get(&key::run(&ended)).await.unwrap().is_none()
    })
    .await;
    assert!(yard.store.get(&key::run(&going)).await.unwrap().is_some());
    yard.stage.lead(&going, 1, StepStatus::Success).await;
    yard.until_in_history(2).await;
}

/// What fails on the way, how it is injected, and how it is seen that it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_whatever_fails() {
    for fault in ["blobs", "before", "after", "history", "leader"] {
        let yard = Yard::new().await;
        for n in 0..20 {
            yard.ended(&format!("01jd{n:02}"), n, 3).await;
        }
        match fault {
            "blobs" => yard.blobs.set_failing(true),
            "before" => yard.store.before.store(3, Ordering::SeqCst),
            "after" => yard.store.after.store(5, Ordering::SeqCst),
            "history" => yard.history.away.store(true, Ordering::SeqCst),
            _ => {}
        }
        yard.lead().await;
        match fault {
            "blobs" => {
                yard.until("refused", async |y| y.blobs.refused.load(Ordering::SeqCst) > 8)
                    .await;
                assert_eq!(yard.keys(key::ARCHIVE_OUTBOX).await, 0);
                yard.blobs.set_failing(false);
            }
            "before" | "after" => {
                let times = if fault == "before" { 3 } else { 5 };
                yard.until("failed", async |y| y.store.failed.load(Ordering::SeqCst) == times)
                    .await;
            }
            "history" => {
                yard.until("all wait", async |y| {
                    y.keys(key::RUNS).await == 0 && y.history.refused.load(Ordering::SeqCst) > 2
                })
                .await;
                assert_eq!(yard.keys(key::ARCHIVE_OUTBOX).await, 20);
                yard.history.away.store(false, Ordering::SeqCst);
            }
            _ => {
                for _ in 0..10 {
                    yard.leading.send_replace(None);
                    tokio::task::yield_now().await;
                    yard.lead().await;
                    tokio::time::sleep(Duration::from_millis(60)).await;
                }
            }
        }
        yard.until_in_history(20).await;
        let (listed, warning) = yard.listed("/api/v1/runs?limit=3").await;
        let expected: Vec<String> = (0..20).rev().map(|n| format!("01jd{n:02}")).collect();
        assert_eq!((listed, warning), (expected, Value::Null), "{fault}");
        for n in 0..20 {
            let reply = yard.stage.get(&format!("/api/v1/runs/01jd{n:02}")).await;
            assert_eq!(reply.json["number"], n, "{fault}: {reply:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_history_is_away_the_answers_say_so() {
    let yard = Yard::new().await;
    let old = archived("01jc0", 1);
    yard.history.put_runs(std::slice::from_ref(&old)).await.unwrap();
    yard.history.away.store(true, Ordering::SeqCst);
    let waiting = yard.ended("01jda", 2, 1).await;
    yard.lead().await;
    yard.until("it waits in the outbox", async |y| {
        y.stage.server.view.read(|p| !p.outbox().is_empty())
    })
    .await;
    let live = yard.ended("01jdb", 3, 1).await;
    yard.stage.lead(&live, 0, StepStatus::Running).await;
    for path in ["/api/v1/runs?limit=1", "/api/v1/pipelines/default/web/runs?limit=1"] {
        let (listed, warning) = yard.listed(path).await;
        assert_eq!(listed, [live.as_str(), waiting.as_str()], "{path}");
        let warning = warning.as_str().unwrap();
        assert!(
            warning.contains("older runs are missing") && !warning.contains("secret"),
            "{warning}"
        );
    }
    for path in [
        "/api/v1/runs/01jda",
        "/api/v1/pipelines/default/web/runs/2",
        "/api/v1/runs/01jdb",
    ] {
        assert_eq!(yard.stage.get(path).await.code, StatusCode::OK, "{path}");
    }
    for path in [
        "/api/v1/runs/01jc0",
        "/api/v1/pipelines/default/web/runs/1",
        "/api/v1/runs/01jc0/logs",
    ] {
        let reply = yard.stage.get(path).await;
        let detail = reply.problem(503, "unavailable");
        assert!(detail.contains("older runs") && !detail.contains("secret"), "{detail}");
        assert!(reply.headers.contains_key("retry-after"), "{path}");
    }
    yard.history.away.store(false, Ordering::SeqCst);
    yard.until("all three are listed", async |y| {
        y.listed("/api/v1/runs?limit=1").await.0.len() == 3
    })
    .await;
    assert_eq!(yard.listed("/api/v1/runs?limit=2").await.1, Value::Null);
}

/// Readers page through thousands while runs move from place to place: none is missed, none shown twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_are_right_while_runs_move() {
    let yard = Yard::new().await;
    let past: Vec<ArchivedRun> = (0..5_000).map(|n| archived(&format!("01jc{n:05}"), n)).collect();
    for part in past.chunks(500) {
        yard.history.put_runs(part).await.unwrap();
    }
    for n in 0..100 {
        yard.ended(&format!("01jd{n:05}"), 5_000 + n, 2).await;
    }
    yard.lead().await;
    let must: BTreeSet<String> = past
        .iter()
        .map(|r| r.summary.id.to_string())
        .chain((0..100).map(|n| format!("01jd{n:05}")))
        .collect();
    let mut rounds = 0;
    loop {
        let moved = yard.keys(key::RUNS).await == 0 && yard.keys(key::ARCHIVE_OUTBOX).await == 0;
        if !moved {
            yard.ended(&format!("01je{rounds:05}"), 6_000 + rounds, 1).await;
        }
        for path in ["/api/v1/runs?limit=500", "/api/v1/pipelines/default/web/runs?limit=500"] {
            let (listed, warning) = yard.listed(path).await;
            assert_eq!(warning, Value::Null);
            assert!(listed.is_sorted_by(|a, b| a > b), "newest first, none twice");
            let listed: BTreeSet<String> = listed.into_iter().collect();
            let missed: Vec<&String> = must.difference(&listed).collect();
            assert!(missed.is_empty(), "round {rounds}: {missed:?}");
        }
        rounds += 1;
        if moved || rounds > 200 {
            break;
        }
    }
    yard.until("all have moved", async |y| y.keys(key::RUNS).await == 0)
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_waits_for_its_logs_but_not_for_ever() {
    let yard = Yard::new().await;
    let run = yard.ended("01jda", 1, 1).await;
    let mut short = record(StepStatus::Success);
    short.fence = model::Fence { epoch: 1, counter: 1 };
    short.alloc = Some(model::AllocId::for_step(&run, 0, short.fence));
    short.log_bytes = Some(5);
    yard.stage.lead_record(&run, 0, short).await;
    let begun = tokio::time::Instant::now();
    yard.lead().await;
    yard.until_in_history(1).await;
    assert!(
        begun.elapsed() >= Duration::from_millis(3_000),
        "it waited: {:?}",
        begun.elapsed()
    );
    // What is stored later is read later.
    let name = BlobName::new(format!("log/{run}/0/1.1/{:020}-5", 0)).unwrap();
    yard.blobs.put(&name, b"late\n".to_vec()).await.unwrap();
    let log = yard.stage.get(&format!("/api/v1/runs/{run}/steps/s0/logs")).await;
    assert_eq!(
        (log.text.as_str(), log.headers["x-log-complete"].to_str().unwrap()),
        ("late\n", "true")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_waits_keeps_the_run_here() {
    let yard = Yard::new().await;
    let run = yard.ended("01jda", 1, 1).await;
    let wish = model::Request {
        what: model::RequestKind::Cancel { run: run.clone() },
        requested_by: "ann".to_owned(),
        created_ms: 1,
        request_id: "q".to_owned(),
    };
    let wish_key = key::request(&cancel_request(&run));
    yard.stage.write(Txn::new().put(&wish_key, &wish)).await;
    yard.lead().await;
    let other = yard.ended("01jdb", 2, 1).await;
    yard.until("the other one is gone", async |y| {
        y.store.get(&key::run(&other)).await.unwrap().is_none()
    })
    .await;
    assert!(yard.store.get(&key::run(&run)).await.unwrap().is_some());
    yard.stage
        .write(Txn::new().expect(&wish_key, Expect::Present).delete(&wish_key))
        .await;
    yard.until_in_history(2).await;
}
