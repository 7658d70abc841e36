//! Agents for tests, and orders for them.

use crate::fake_material::FakeMaterial;
use crate::fake_sandboxes::FakeSandboxes;
use crate::fake_server::{Server, TOKEN};
use isolation::lease::Deadline;
use model::{AllocId, Checkout, Entry, Event, Fence, Resources, RunId, Shell, Source, StepDef};
use node_agent_shell::{AgentConfig, AgentError, AgentMetrics, TlsFiles, run_with};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use wire::v1;

/// A node: what is on its disk, its sandboxes, and the agent that runs now.
pub(crate) struct TestNode {
    pub(crate) server: Server,
    pub(crate) folder: TempDir,
    pub(crate) sandboxes: Arc<FakeSandboxes>,
    pub(crate) material: Arc<FakeMaterial>,
    pub(crate) metrics: AgentMetrics,
    /// Where the agent looks for servers, if not at `server` alone.
    pub(crate) addresses: Vec<String>,
    pub(crate) tls: Option<TlsFiles>,
    agent: Option<(JoinHandle<Result<(), AgentError>>, CancellationToken)>,
}

impl TestNode {
    /// A node with its agent started.
    pub(crate) async fn start(sandboxes: Arc<FakeSandboxes>) -> Self {
        let mut node = Self::stopped(sandboxes).await;
        node.start_agent();
        node
    }

    pub(crate) async fn stopped(sandboxes: Arc<FakeSandboxes>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            server: Server::start().await,
            sandboxes,
            material: FakeMaterial::new(folder.path()),
            folder,
            metrics: AgentMetrics::new(),
            addresses: Vec::new(),
            tls: None,
            agent: None,
        }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The deadline that shims would read.
    pub(crate) fn deadline_ms(&self) -> u64 {
        let file = self.folder.path().join("run/lease");
        Deadline::read(&file).unwrap().map_or(0, |deadline| deadline.at_ms)
    }

    /// Waits until the deadline is later than this.
    pub(crate) async fn deadline_passes(&self, at_ms: u64) {
        let until = tokio::time::Instant::now() + Duration::from_secs(30);
        while self.deadline_ms() <= at_ms {
            assert!(
                tokio::time::Instant::now() < until,
                "the deadline never moved past {at_ms}"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// One of the agent's numbers.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let text = self.metrics.metrics_text();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
    }

    pub(crate) fn config(&self) -> AgentConfig {
        let servers = match self.addresses.as_slice() {
            [] => vec![self.server.address.clone()],
            some => some.to_vec(),
        };
        let mut config = AgentConfig::new(servers, TOKEN, self.data(), self.folder.path().join("run"));
        config.metrics = self.metrics.clone();
        config.tls = self.tls.clone();
        config
    }

    pub(crate) fn start_agent(&mut self) {
        let shutdown = CancellationToken::new();
        let run = run_with(
            self.config(),
            self.sandboxes.clone(),
            self.material.clone(),
            shutdown.clone(),
        );
        self.agent = Some((tokio::spawn(run), shutdown));
    }

    /// As `kill -9` would: nothing is finished, nothing is told.
    pub(crate) async fn kill_agent(&mut self) {
        let (agent, _) = self.agent.take().unwrap();
        agent.abort();
        let ended = agent.await;
        assert!(ended.unwrap_err().is_cancelled(), "the agent had ended by itself");
    }

    pub(crate) async fn end_agent(&mut self) {
        let (agent, shutdown) = self.agent.take().unwrap();
        shutdown.cancel();
        let ended = tokio::time::timeout(Duration::from_secs(30), agent).await;
        ended.expect("the agent ends when told to").unwrap().unwrap();
    }

    /// Nothing of any allocation is left on the node.
    pub(crate) async fn nothing_left(&self) {
        let folders = ["journal", "alloc", "trash"].map(|part| self.data().join(part));
        let left = || -> Vec<PathBuf> { folders.iter().flat_map(|folder| names(folder)).collect() };
        let until = tokio::time::Instant::now() + Duration::from_secs(30);
        while !left().is_empty() || !self.sandboxes.ids().is_empty() {
            assert!(
                tokio::time::Instant::now() < until,
                "left: {:?} {:?}",
                left(),
                self.sandboxes.ids()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

pub(crate) fn names(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    entries.map(|entry| entry.unwrap().path()).collect()
}

fn run() -> RunId {
    "01jdzzzzzzzzzzzzzzzzzzzzzz".parse().unwrap()
}

pub(crate) fn alloc(step: usize, counter: u32) -> AllocId {
    AllocId::for_step(&run(), step, Fence { epoch: 1, counter })
}

/// The first attempt of a step that runs `true` without a checkout.
pub(crate) fn order(step: usize) -> v1::Order {
    order_of(step, 1, &def())
}

pub(crate) fn order_of(step: usize, counter: u32, def: &StepDef) -> v1::Order {
    let source = Source {
        repository: "file:///r".to_owned(),
        git_ref: "refs/heads/main".to_owned(),
        commit: "0".repeat(40),
        message: String::new(),
        author: String::new(),
        event: Event::Push,
    };
    v1::Order {
        alloc_id: alloc(step, counter).to_string(),
        fence: Some(v1::Fence { epoch: 1, counter }),
        run_id: run().to_string(),
        run_number: 1,
        team: "default".to_owned(),
        pipeline: "app".to_owned(),
        step: u32::try_from(step).unwrap(),
        attempt: counter,
        stop: String::new(),
        step_def_json: serde_json::to_string(def).unwrap(),
        source_json: serde_json::to_string(&source).unwrap(),
        variables: std::iter::once(("VARIABLE".to_owned(), "v".to_owned())).collect(),
        stage: "build".to_owned(),
        traceparent: String::new(),
        request_id: "r1".to_owned(),
    }
}

pub(crate) fn def() -> StepDef {
    StepDef {
        name: "compile".parse().unwrap(),
        title: None,
        stage: 0,
        needs: Vec::new(),
        image: "base".to_owned(),
        before: Vec::new(),
        run: vec![Entry {
            name: None,
            run: "true".to_owned(),
        }],
        after: Vec::new(),
        shell: Shell::Sh,
        working_directory: ".".to_owned(),
        checkout: None,
        user: None,
        env: BTreeMap::new(),
        timeout_ms: 60_000,
        allow_failure: false,
        resources: Resources {
            cpu_millis: 500,
            memory_bytes: 64 << 20,
            disk_bytes: 1 << 20,
        },
        pids: 64,
        shm_bytes: 1 << 20,
        labels: BTreeMap::new(),
        retry: model::Retry::default(),
        idempotent: true,
        rules: model::StepRules::default(),
    }
}

pub(crate) fn with_checkout(def: StepDef) -> StepDef {
    StepDef {
        checkout: Some(Checkout { depth: Some(1) }),
        ..def
    }
}
