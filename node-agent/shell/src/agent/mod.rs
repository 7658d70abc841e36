//! The agent's loop: one owner of all state machines, fed by events, performing effects.
//!
//! Everything that takes time runs in tasks of two kinds. *Deeds* must not be cut off when the
//! agent is told to end (a write of the journal, a launch, a removal); *watches* may be cut off at
//! any moment (preparing, following, shipping), because the next agent takes them up again.
//!
//! Not here: what to do next, which `node_agent::Node` decides.

mod doing;
mod hearing;
mod inheritance;
mod leasing;

use crate::blocking::{blocking, now_ms};
use crate::certificate;
use crate::checkout::Checkouts;
use crate::config::{AgentConfig, AgentError, TlsFiles};
use crate::data_folder::DataFolder;
use crate::ended::Ended;
use crate::facts::Machine;
use crate::images::Images;
use crate::journal::Journal;
use crate::logs::{Shipment, Tails};
use crate::material::{Keep, Material, Stores};
use crate::metrics::AgentMetrics;
use crate::prepare::{Prepared, Preparer};
use crate::quorum::Answer;
use crate::sandboxes::Sandboxes;
use crate::servers::Servers;
use crate::session::{self, Out};
use crate::trash::Trash;
use inheritance::inherit;
use isolation::{Launcher, LauncherConfig};
use model::{AllocId, NodeId, Phase};
use node_agent::{Event, Lease, LeaseEvent, Node};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::Span;

/// Events that wait for the loop. Tasks wait for room; the loop never waits for tasks.
const EVENTS_MAX: usize = 1_024;

/// Messages of a server that wait for the loop; the server waits for room.
const MESSAGES_MAX: usize = 64;

/// How often the loop looks at everything although nothing happened.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// How long an agent that is told to end waits for its deeds.
const FAREWELL_MAX: Duration = Duration::from_secs(20);

/// Runs an agent until it is told to end. What runs then goes on, and is found by the next agent
/// on the same folders; the same holds when this future is dropped, or the process killed.
///
/// It goes on until the node's lease ends, some 15 to 20 s with the lease of 20 s that is usual: an
/// agent that is upgraded has to be back and connected by then, or the shims kill what runs.
///
/// # Errors
/// [`AgentError`] when it cannot start: a setting, another agent on the folder, a machine that
/// cannot run sandboxes. A server that cannot be reached is no error.
pub async fn run(config: AgentConfig, shutdown: CancellationToken) -> Result<(), AgentError> {
    let footing = Footing::open(config).await?;
    let launcher = LauncherConfig {
        run_dir: footing.config.run_dir.clone(),
        shim_path: footing.config.shim_path.clone(),
    };
    let launcher = Arc::new(blocking(move || Launcher::new(launcher)).await?);
    let started = match footing.stores().await {
        Ok(stores) => Agent::start(footing, launcher.clone(), Arc::new(stores)).await,
        Err(e) => Err(e),
    };
    match started {
        Ok(agent) => agent.run(shutdown).await,
        Err(e) => {
            // The mounts and cgroups of a launcher that nobody will use; the first error is the one to tell.
            let _ = blocking(move || launcher.shutdown_if_idle()).await;
            Err(e)
        }
    }
}

/// [`run`] with another way to run sandboxes and another source of layers, for tests.
///
/// # Errors
/// As [`run`].
pub async fn run_with(
    config: AgentConfig,
    sandboxes: Arc<dyn Sandboxes>,
    material: Arc<dyn Material>,
    shutdown: CancellationToken,
) -> Result<(), AgentError> {
    let footing = Footing::open(config).await?;
    Agent::start(footing, sandboxes, material).await?.run(shutdown).await
}

/// What an agent stands on: settings that can be used, and a data folder that is its own.
struct Footing {
    config: AgentConfig,
    servers: Servers,
    data: Arc<DataFolder>,
}

impl Footing {
    async fn open(config: AgentConfig) -> Result<Self, AgentError> {
        let servers = Servers::new(&config)?;
        let data_dir = config.data_dir.clone();
        let data = blocking(move || DataFolder::open(&data_dir)).await?;
        Ok(Self {
            config,
            servers,
            data: Arc::new(data),
        })
    }

    async fn stores(&self) -> Result<Stores, AgentError> {
        let (images, checkouts) = (self.config.images.clone(), self.config.checkouts.clone());
        let (shared, git) = (self.config.mirrors.clone(), self.config.git.clone());
        let own = self.data.root().join("git");
        blocking(move || {
            let mirrors = shared.map_or_else(|| git_mirror::Mirrors::new(own, git), Ok)?;
            Ok(Stores {
                images: Images::open(images)?,
                checkouts: Checkouts::open(checkouts, mirrors)?,
            })
        })
        .await
    }
}

/// What the shell keeps for one allocation beside its life.
#[derive(Default)]
struct Room {
    /// Cancelled to stop preparing.
    abort: CancellationToken,
    /// Cancelled when its log is wanted no more.
    unwanted: CancellationToken,
    prepared: Option<Prepared>,
    /// Hold the layers that its container uses.
    keeps: Vec<Keep>,
    shipment: Option<Arc<Shipment>>,
    ordered_at: Option<Instant>,
    ready_at: Option<Instant>,
    launch_began_ms: Option<u64>,
    /// In which everything about it is logged; made once its order is known.
    span: Option<Span>,
    /// The state that was logged last.
    logged: &'static str,
}

/// What a task tells the loop.
enum Told {
    Event(Event),
    Prepared(Vec<Phase>, Box<Prepared>),
    /// The launcher has taken over: follow it.
    Handed,
}

struct Agent {
    id: NodeId,
    machine: Machine,
    data: Arc<DataFolder>,
    journal: Journal,
    trash: Trash,
    sandboxes: Arc<dyn Sandboxes>,
    preparer: Preparer,
    metrics: AgentMetrics,
    servers: Servers,
    tls: Option<TlsFiles>,
    node: Node,
    ended: Ended,
    lease: Lease,
    lease_path: PathBuf,
    /// As the node was told last.
    lease_valid: bool,
    ask: mpsc::Sender<Answer>,
    answers: mpsc::Receiver<Answer>,
    rooms: HashMap<AllocId, Room>,
    out: Option<Out>,
    ever_connected: bool,
    ending: bool,
    tell: mpsc::Sender<(AllocId, Told)>,
    told: mpsc::Receiver<(AllocId, Told)>,
    tails: Tails,
    deeds: JoinSet<()>,
    watches: JoinSet<()>,
}

impl Agent {
    async fn start(
        footing: Footing,
        sandboxes: Arc<dyn Sandboxes>,
        material: Arc<dyn Material>,
    ) -> Result<Self, AgentError> {
        let Footing { config, servers, data } = footing;
        let (machine, config) = blocking(move || (Machine::find(&config), config)).await;
        let journal = Journal::new(data.journal(), data.reserve());
        let trash = Trash::new(data.trash());
        let inheritance = {
            let (journal, data, trash) = (journal.clone(), data.clone(), trash.clone());
            let (sandboxes, material) = (sandboxes.clone(), material.clone());
            blocking(move || inherit(&journal, &data, &trash, &*sandboxes, &*material)).await?
        };
        let lease_path = leasing::path_in(&config.run_dir);
        std::fs::create_dir_all(&config.run_dir).map_err(AgentError::io(&config.run_dir))?;
        let (tell, told) = mpsc::channel(EVENTS_MAX);
        let (ask, answers) = mpsc::channel(EVENTS_MAX);
        let mut agent = Self {
            id: data.node_id(config.node_id.as_ref())?,
            node: Node::new(machine.facts.boot_id.clone()),
            machine,
            preparer: Preparer {
                material,
                data: data.clone(),
                trash: trash.clone(),
                log_bytes_max: config.log_bytes_max,
                lease_path: lease_path.clone(),
            },
            ended: Ended::new(data.ended()),
            data,
            journal,
            trash,
            sandboxes,
            metrics: config.metrics,
            lease: leasing::take_up(&lease_path, servers.len()),
            lease_path,
            lease_valid: false,
            ask,
            answers,
            servers,
            tls: config.tls,
            rooms: HashMap::new(),
            out: None,
            ever_connected: false,
            ending: false,
            tell,
            told,
            tails: Tails::new(),
            deeds: JoinSet::new(),
            watches: JoinSet::new(),
        };
        // First what may not be begun again, and whether anything may be begun at all.
        agent.node.on_lease(false, now_ms());
        for id in &agent.ended.take_up() {
            agent.node.remember(id);
        }
        agent.on_lease(LeaseEvent::Tick);
        agent.take_over(inheritance);
        Ok(agent)
    }

    async fn run(mut self, shutdown: CancellationToken) -> Result<(), AgentError> {
        let (from_session, mut session) = mpsc::channel(MESSAGES_MAX);
        self.watches
            .spawn(session::keep_open(self.servers.clone(), from_session));
        if let Some(files) = self.tls.take() {
            let (servers, metrics) = (self.servers.clone(), self.metrics.clone());
            self.watches.spawn(certificate::keep_fresh(files, servers, metrics));
        }
        self.watches.spawn(self.trash.clone().keep_empty());
        self.watches.spawn(self.tails.clone().keep_watching());
        self.keep_reserve();
        tracing::info!(node_id = %self.id, node = self.machine.name, "agent started");
        loop {
            self.count();
            let tick = self.next_tick();
            tokio::select! {
                () = shutdown.cancelled() => break,
                Some((alloc, told)) = self.told.recv() => self.hear(alloc, told),
                Some(message) = session.recv() => self.listen(message),
                Some(answer) = self.answers.recv() => self.on_answer(answer),
                Some(done) = self.deeds.join_next() => survived(done)?,
                Some(done) = self.watches.join_next() => survived(done)?,
                () = tokio::time::sleep(tick) => {
                    self.on_lease(LeaseEvent::Tick);
                    let acts = self.node.on_tick(now_ms());
                    self.perform(acts);
                    self.keep_reserve();
                }
            }
        }
        drop(session);
        self.farewell().await
    }

    /// Until the next thing that is due by time alone.
    fn next_tick(&self) -> Duration {
        let due = self
            .node
            .deadline_ms()
            .map(|at| Duration::from_millis(at.saturating_sub(now_ms())));
        let waits = [due, self.next_lease_tick(), Some(LOOK_AGAIN)];
        waits.into_iter().flatten().min().unwrap_or(LOOK_AGAIN)
    }

    fn keep_reserve(&mut self) {
        let journal = self.journal.clone();
        self.deeds.spawn(blocking(move || journal.reserve()));
    }

    fn count(&self) {
        let gauge = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        self.metrics.allocations.set(gauge(self.node.lives().count()));
        let running = self.node.lives().filter(|life| life.is_running()).count();
        self.metrics.running.set(gauge(running));
    }

    /// Ends deeds that were begun, begins nothing, and leaves what runs to its shims.
    async fn farewell(mut self) -> Result<(), AgentError> {
        tracing::info!("agent is ending; running steps go on");
        self.ending = true;
        self.watches.shutdown().await;
        let deadline = tokio::time::Instant::now() + FAREWELL_MAX;
        while !self.deeds.is_empty() || !self.told.is_empty() {
            tokio::select! {
                Some((alloc, told)) = self.told.recv() => self.hear(alloc, told),
                Some(done) = self.deeds.join_next() => survived(done)?,
                () = tokio::time::sleep_until(deadline) => {
                    tracing::warn!(deeds = self.deeds.len(), "agent ends although not everything is done");
                    break;
                }
            }
        }
        self.metrics.connected.set(0);
        let (sandboxes, trash) = (self.sandboxes.clone(), self.trash.clone());
        // What is left of it the next agent removes.
        let emptied = tokio::time::timeout(FAREWELL_MAX, blocking(move || trash.empty())).await;
        if !matches!(emptied, Ok(Ok(()))) {
            tracing::warn!(outcome = ?emptied, "trash is not empty yet");
        }
        match blocking(move || sandboxes.shutdown_if_idle()).await {
            Ok(true) => {
                let path = self.lease_path;
                blocking(move || leasing::give_up(&path)).await;
                tracing::info!("agent ended, nothing runs");
            }
            Ok(false) => tracing::info!("agent ended, steps go on"),
            Err(e) => tracing::warn!(error = %e, "agent ended, its cgroups or mounts are left"),
        }
        Ok(())
    }
}

/// A task that panicked is a fault of ours, and an agent that lost a part of itself is worse than
/// one that is started anew: everything is taken up again then.
fn survived(done: Result<(), tokio::task::JoinError>) -> Result<(), AgentError> {
    match done {
        Err(e) if e.is_panic() => Err(AgentError::Broken(e.to_string())),
        _ => Ok(()),
    }
}
