//! Everything that a measurement stands on: etcd, servers, nodes, a driver.
//!
//! Not here: what is measured.

use super::agent::{Node, NodeSettings, Shared};
use super::ledger::Ledger;
use super::load::{Driver, Shape};
use super::servers::{ServerProcess, ServerSettings};
use super::usage::Usage;
use super::{ThroughputArguments, etcd, servers};
use crate::BenchError;
use model::Resources;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use store_etcd::process::Etcd;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How long all nodes may take to register.
const REGISTER_TIMEOUT: Duration = Duration::from_secs(120);

/// How long a node is believed in without a renewal: the default of the servers.
const LEASE: Duration = Duration::from_secs(20);

/// What a step asks for: a slot's share of a node.
const STEP: Resources = Resources {
    cpu_millis: 1_000,
    memory_bytes: 2 << 30,
    disk_bytes: 1 << 30,
};

/// Running processes and nodes. Dropping it ends them all.
pub(crate) struct Stage {
    pub(crate) etcd: Etcd,
    pub(crate) members: usize,
    pub(crate) servers: Vec<ServerProcess>,
    pub(crate) settings: ServerSettings,
    pub(crate) nodes: Arc<Shared>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) driver: Driver,
    addresses: watch::Sender<Vec<String>>,
    _folder: Option<tempfile::TempDir>,
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.nodes.shutdown.cancel();
    }
}

/// CPU and memory of the three kinds of processes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Used {
    pub(crate) at: Instant,
    pub(crate) etcd: Usage,
    pub(crate) servers: Usage,
    /// This process: the nodes and the driver.
    pub(crate) own: Usage,
}

impl Stage {
    /// Starts everything and waits until every node is registered.
    pub(crate) async fn set(arguments: &ThroughputArguments, members: usize) -> Result<Self, BenchError> {
        let etcd = etcd::start(members).await?;
        Self::set_on(arguments, etcd, members).await
    }

    /// The same over an etcd that runs.
    pub(crate) async fn set_on(
        arguments: &ThroughputArguments,
        etcd: Etcd,
        members: usize,
    ) -> Result<Self, BenchError> {
        let (folder, temporary) = folder(arguments)?;
        let settings = ServerSettings {
            etcd: etcd.endpoints(),
            folder,
            archive_after: Duration::from_secs(arguments.archive_after),
            lease: LEASE,
        };
        let mut servers = Vec::new();
        for number in 0..arguments.servers {
            servers.push(ServerProcess::start(&settings, &format!("server-{}", number + 1)).await?);
        }
        let ledger = Arc::new(Ledger::new());
        let urls = servers.iter().map(|s| s.url.clone()).collect();
        let (addresses, shown) = watch::channel(urls);
        let nodes = Arc::new(Shared {
            settings: node_settings(arguments),
            run_ms: AtomicU64::new(arguments.run_ms),
            servers: shown,
            ledger: Arc::clone(&ledger),
            connected: AtomicUsize::new(0),
            shutdown: CancellationToken::new(),
        });
        let store = Arc::new(etcd::connect(&etcd, etcd::PREFIX).await?);
        let shape = Shape::new(&arguments.stages, STEP)?;
        let stage = Self {
            etcd,
            members,
            servers,
            settings,
            driver: Driver::new(store, shape, Arc::clone(&ledger)),
            nodes,
            ledger,
            addresses,
            _folder: temporary,
        };
        stage.register(arguments.nodes).await?;
        Ok(stage)
    }

    async fn register(&self, count: usize) -> Result<(), BenchError> {
        for number in 0..count {
            tokio::spawn(Node::new(number, Arc::clone(&self.nodes)).run());
        }
        let deadline = Instant::now() + REGISTER_TIMEOUT;
        while self.connected() < count {
            if Instant::now() > deadline {
                let message = format!("only {} of {count} nodes are registered", self.connected());
                return Err(BenchError::Stopped(message));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Nodes with a stream.
    pub(crate) fn connected(&self) -> usize {
        self.nodes.connected.load(Ordering::Relaxed)
    }

    /// Where nodes find servers from now on.
    pub(crate) fn announce(&self) {
        self.addresses
            .send_replace(self.servers.iter().map(|s| s.url.clone()).collect());
    }

    /// What all processes have used so far.
    pub(crate) fn used(&self) -> Used {
        Used {
            at: Instant::now(),
            etcd: etcd::usage(&self.etcd, self.members),
            servers: servers::usage(&self.servers),
            own: Usage::of(&[std::process::id()]),
        }
    }
}

fn folder(arguments: &ThroughputArguments) -> Result<(PathBuf, Option<tempfile::TempDir>), BenchError> {
    let failed = |cause: std::io::Error| BenchError::Stopped(format!("a folder for the servers: {cause}"));
    match &arguments.keep {
        Some(folder) => {
            std::fs::create_dir_all(folder).map_err(failed)?;
            Ok((folder.clone(), None))
        }
        None => {
            let folder = tempfile::TempDir::with_prefix("bench-throughput-").map_err(failed)?;
            Ok((folder.path().to_owned(), Some(folder)))
        }
    }
}

fn node_settings(arguments: &ThroughputArguments) -> NodeSettings {
    NodeSettings {
        cpu_millis: u64::from(arguments.slots) * STEP.cpu_millis,
        memory_bytes: u64::from(arguments.slots) * 4 * (1 << 30),
        slots: arguments.slots,
        prepare: Duration::from_millis(arguments.prepare_ms),
        log_bytes: arguments.log_bytes,
    }
}
