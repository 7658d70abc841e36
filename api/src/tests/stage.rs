//! What the tests stand on: a server with everything but its port, a repository, a way to ask.

use crate::explain::{Explain, Waiting};
use crate::intake::Sources;
use crate::state::{ApiConfig, Deps, Server, Shared};
use crate::{intake, rest, tokens};
use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode, header};
use git_mirror::{GitError, GitSettings, Mirrors, RefSpec, Resolved};
use http_body_util::BodyExt;
use model::record::Unknown;
use model::{Role, RunId, StepRecord, StepStatus, TeamName, TeamRecord, key};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use store::memory::MemoryStore;
use store::{FolderBlobs, SqliteHistory, Store, Txn};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// Long enough for a busy machine; nothing waits so long unless it fails.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

pub(super) const ADMIN: &str = "bf_admin";
pub(super) const NODE: &str = "bf_node";

pub(super) const FILE: &str = "\
stages:
  - name: build
    steps:
      - { name: compile, image: 'oci:base', run: make }
  - name: test
    steps:
      - { name: unit, image: 'oci:base', run: make test }
      - { name: lint, image: 'oci:base', run: make lint, allow_failure: true }
";

/// A git repository with a working tree.
pub(super) struct Repository {
    pub(super) path: PathBuf,
}

impl Repository {
    pub(super) fn new(path: PathBuf) -> Self {
        std::fs::create_dir_all(&path).unwrap();
        let repository = Self { path };
        repository.git(&["init", "-q", "-b", "main"]);
        repository
    }

    pub(super) fn git(&self, arguments: &[&str]) -> String {
        let output = Command::new("git")
            .args(arguments)
            .current_dir(&self.path)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", &self.path)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .envs([("GIT_AUTHOR_NAME", "Ada"), ("GIT_AUTHOR_EMAIL", "ada@example.org")])
            .envs([
                ("GIT_COMMITTER_NAME", "Ada"),
                ("GIT_COMMITTER_EMAIL", "ada@example.org"),
            ])
            .output()
            .unwrap();
        assert!(output.status.success(), "git {arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Commits `text` as the pipeline file and answers the commit's id.
    pub(super) fn commit(&self, text: &str, message: &str) -> String {
        std::fs::write(self.path.join(".buildflow.yml"), text).unwrap();
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "--allow-empty", "-m", message]);
        self.head()
    }

    pub(super) fn head(&self) -> String {
        self.git(&["rev-parse", "HEAD"])
    }

    pub(super) fn url(&self) -> String {
        format!("file://{}", self.path.display())
    }
}

/// Repositories that answer as told: the next `failures` calls fail as if the network was down.
pub(super) struct Moody {
    inner: Mirrors,
    pub(super) failures: AtomicUsize,
    pub(super) failed: AtomicUsize,
    pub(super) looks: AtomicUsize,
}

impl Moody {
    fn mood(&self, repository: &str) -> Result<(), GitError> {
        self.looks.fetch_add(1, Ordering::SeqCst);
        let take = |left: usize| left.checked_sub(1);
        if self
            .failures
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, take)
            .is_err()
        {
            return Ok(());
        }
        self.failed.fetch_add(1, Ordering::SeqCst);
        Err(GitError::Unreachable {
            repository: repository.to_owned(),
            said: "injected".to_owned(),
        })
    }
}

#[async_trait]
impl Sources for Moody {
    fn check_address(&self, repository: &str) -> Result<(), GitError> {
        Sources::check_address(&self.inner, repository)
    }
    async fn resolve(&self, repository: &str, wanted: &RefSpec) -> Result<Resolved, GitError> {
        self.mood(repository)?;
        Sources::resolve(&self.inner, repository, wanted).await
    }
    async fn commit(&self, repository: &str, git_ref: &str, commit: &str) -> Result<Resolved, GitError> {
        self.mood(repository)?;
        Sources::commit(&self.inner, repository, git_ref, commit).await
    }
    async fn read_file(&self, repository: &str, commit: &str, path: &str, max: usize) -> Result<Vec<u8>, GitError> {
        Sources::read_file(&self.inner, repository, commit, path, max).await
    }
    async fn default_branch(&self, repository: &str) -> Result<String, GitError> {
        Sources::default_branch(&self.inner, repository).await
    }
    async fn changed_files(&self, repository: &str, a: &str, b: &str) -> Result<Option<Vec<String>>, GitError> {
        Sources::changed_files(&self.inner, repository, a, b).await
    }
}

/// Says what it was told to say.
#[derive(Default)]
pub(super) struct Oracle(pub(super) Mutex<Option<Waiting>>);

#[async_trait]
impl Explain for Oracle {
    async fn explain(&self, _: &RunId, _: usize) -> Option<Waiting> {
        self.0.lock().unwrap().clone()
    }
}

/// A server without a port.
pub(super) struct Stage {
    pub(super) server: Shared,
    pub(super) store: Arc<MemoryStore>,
    pub(super) sources: Arc<Moody>,
    pub(super) oracle: Arc<Oracle>,
    pub(super) router: Router,
    pub(super) loops: JoinSet<()>,
    pub(super) folder: TempDir,
}

/// An answer, its body read.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) code: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) json: Value,
    pub(super) text: String,
}

impl Reply {
    /// Checks that it is a problem of this status and word, and answers its detail.
    pub(super) fn problem(&self, code: u16, word: &str) -> &str {
        assert_eq!(self.code.as_u16(), code, "{self:?}");
        assert_eq!(
            self.headers[header::CONTENT_TYPE],
            "application/problem+json",
            "{self:?}"
        );
        assert_eq!(self.json["type"], format!("urn:buildflow:problem:{word}"), "{self:?}");
        assert_eq!(self.json["status"], code);
        assert_eq!(self.json["request_id"], self.headers["x-request-id"].to_str().unwrap());
        self.json["detail"].as_str().unwrap()
    }

    pub(super) fn run_id(&self) -> RunId {
        RunId::new(self.json["run_id"].as_str().unwrap_or_else(|| panic!("{self:?}"))).unwrap()
    }
}

impl Stage {
    /// A server whose loops run, with the team `default` and one token for each role.
    pub(super) async fn new() -> Self {
        let mut stage = Self::over(Arc::new(MemoryStore::new()), tempfile::tempdir().unwrap()).await;
        stage.start_view().await;
        stage.start_intake();
        stage
    }

    /// A server over a store that may have been used before; no loop runs.
    pub(super) async fn over(store: Arc<MemoryStore>, folder: TempDir) -> Self {
        let at = |name: &str| folder.path().join(name);
        let settings = GitSettings {
            allow_file: true,
            ..GitSettings::default()
        };
        let sources = Arc::new(Moody {
            inner: Mirrors::new(at(&format!("git-{}", ulid::Ulid::generate())), settings).unwrap(),
            failures: AtomicUsize::new(0),
            failed: AtomicUsize::new(0),
            looks: AtomicUsize::new(0),
        });
        let oracle = Arc::new(Oracle::default());
        let deps = Deps {
            store: store.clone(),
            blobs: Arc::new(FolderBlobs::open(at("blobs")).unwrap()),
            sources: sources.clone(),
            history: Arc::new(SqliteHistory::open(at("history")).unwrap()),
            explain: oracle.clone(),
            leading: tokio::sync::watch::channel(None).1,
            peers: reqwest::Client::new(),
            membership: None,
            shutdown: CancellationToken::new(),
        };
        let config = ApiConfig {
            server_name: "one".to_owned(),
            web_url: "http://ci.example".to_owned(),
            advertise: String::new(),
            node_lease_ms: 20_000,
            archive: crate::ArchiveTimes::default(),
            keep: crate::Keep::default(),
            allowance: crate::Allowance::default(),
        };
        let name = TeamName::new("default").unwrap();
        let team = TeamRecord {
            name: name.clone(),
            created_ms: 1,
            unknown: Unknown::new(),
        };
        store.commit(Txn::new().put(key::team(&name), &team)).await.unwrap();
        tokens::ensure(store.as_ref(), "root", Role::Admin, ADMIN)
            .await
            .unwrap();
        tokens::ensure(store.as_ref(), "agent", Role::Node, NODE).await.unwrap();
        let server = Server::new(config, deps);
        Self {
            router: rest::router(&server),
            server,
            store,
            sources,
            oracle,
            loops: JoinSet::new(),
            folder,
        }
    }

    pub(super) async fn start_view(&mut self) {
        let server = self.server.clone();
        self.loops.spawn(async move {
            let stop = server.deps.shutdown.clone();
            server.view.follow(server.store(), &server.definitions, &stop).await;
        });
        assert!(self.server.view.wait_until_current(PATIENCE).await);
    }

    pub(super) fn start_intake(&mut self) {
        self.loops.spawn(intake::work(self.server.clone()));
    }

    /// A repository with one commit of `text`, registered as the pipeline `default/<name>`.
    pub(super) async fn pipeline(&self, name: &str, text: &str) -> Repository {
        let repository = Repository::new(self.folder.path().join(name));
        repository.commit(text, "first");
        let body = json!({"name": name, "repository": repository.url()});
        let reply = self.post("/api/v1/pipelines", &body).await;
        assert_eq!(reply.code, StatusCode::CREATED, "{reply:?}");
        repository
    }

    pub(super) async fn get(&self, path: &str) -> Reply {
        self.ask(Self::request("GET", path).body(Body::empty()).unwrap()).await
    }

    pub(super) async fn post(&self, path: &str, body: &Value) -> Reply {
        self.ask(Self::json("POST", path, body)).await
    }

    pub(super) async fn put(&self, path: &str, body: &Value) -> Reply {
        self.ask(Self::json("PUT", path, body)).await
    }

    pub(super) fn request(method: &str, path: &str) -> axum::http::request::Builder {
        Request::builder()
            .method(method)
            .uri(path)
            .header(header::AUTHORIZATION, format!("Bearer {ADMIN}"))
    }

    pub(super) fn json(method: &str, path: &str, body: &Value) -> Request<Body> {
        let request = Self::request(method, path).header(header::CONTENT_TYPE, "application/json");
        request.body(Body::from(body.to_string())).unwrap()
    }

    pub(super) async fn ask(&self, request: Request<Body>) -> Reply {
        let asked = self.router.clone().oneshot(request);
        let response = tokio::time::timeout(PATIENCE, asked)
            .await
            .expect("an answer in time")
            .unwrap();
        let (parts, body) = response.into_parts();
        let collected = tokio::time::timeout(PATIENCE, body.collect())
            .await
            .expect("a body in time");
        let text = String::from_utf8(collected.unwrap().to_bytes().to_vec()).unwrap();
        let json = serde_json::from_str(&text).unwrap_or(Value::Null);
        Reply {
            code: parts.status,
            headers: parts.headers,
            json,
            text,
        }
    }

    /// Starts a run of the newest commit of `main`.
    pub(super) async fn run(&self, pipeline: &str) -> RunId {
        let reply = self
            .post(
                &format!("/api/v1/pipelines/default/{pipeline}/runs"),
                &json!({"branch": "main", "force": true}),
            )
            .await;
        assert_eq!(reply.code, StatusCode::CREATED, "{reply:?}");
        reply.run_id()
    }

    /// Writes a step's record as the leader would, and waits until the view has it.
    pub(super) async fn lead(&self, run: &RunId, step: usize, status: StepStatus) {
        self.lead_record(run, step, record(status)).await;
    }

    pub(super) async fn lead_record(&self, run: &RunId, step: usize, record: StepRecord) {
        self.write(Txn::new().put(key::step(run, step), &record)).await;
    }

    /// Commits and waits until the view has it.
    pub(super) async fn write(&self, txn: Txn) {
        match self.store.commit(txn).await.unwrap() {
            store::Commit::Applied(revision) => assert!(self.server.view.wait_for(revision, PATIENCE).await),
            refused @ store::Commit::Refused { .. } => panic!("{refused:?}"),
        }
    }

    /// Ends the loops as a crash would, wherever they are; a new server begins with what `live` holds.
    pub(super) async fn reborn(mut self, live: Arc<dyn Store>) -> Self {
        self.loops.shutdown().await;
        let mut deps = self.server.deps.clone();
        deps.store = live;
        deps.shutdown = CancellationToken::new();
        self.server = Server::new(self.server.config.clone(), deps);
        self.router = rest::router(&self.server);
        self
    }

    /// A crash and a new start on the same store, with all loops.
    pub(super) async fn recovered(self) -> Self {
        let store = self.store.clone();
        let mut stage = self.reborn(store).await;
        stage.start_view().await;
        stage.start_intake();
        stage
    }
}

/// A step's record with this status, placed once and started at its own time.
pub(super) fn record(status: StepStatus) -> StepRecord {
    let mut record = StepRecord::first(status);
    if !matches!(status, StepStatus::Skipped) {
        record.attempt = 1;
    }
    if matches!(status, StepStatus::Running | StepStatus::Success | StepStatus::Failed) {
        record.times.started_ms = Some(crate::clock::now_ms());
    }
    if status.is_terminal() {
        record.times.ended_ms = Some(crate::clock::now_ms());
        record.log_bytes = Some(0);
    }
    record
}

/// The path of a folder's parent-less name, for addresses.
pub(super) fn file_url(path: &Path) -> String {
    format!("file://{}", path.display())
}
