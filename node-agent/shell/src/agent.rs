//! The agent's loop: one owner of all state machines, fed by events, performing effects.
//!
//! Everything that takes time runs in tasks of two kinds. *Deeds* must not be cut off when the
//! agent is told to end (a write of the journal, a launch, a removal); *watches* may be cut off at
//! any moment (preparing, following, shipping), because the next agent takes them up again.
//!
//! Not here: what to do next, which `node_agent::Node` decides.

use crate::blocking::{blocking, now_ms};
use crate::checkout::Checkouts;
use crate::config::{AgentConfig, AgentError};
use crate::data_folder::DataFolder;
use crate::facts::Machine;
use crate::follow::{self, Follow};
use crate::images::Images;
use crate::journal::{Journal, Read};
use crate::logs::{self, Shipment, Tails};
use crate::material::{Keep, Material, Stores};
use crate::metrics::AgentMetrics;
use crate::outcome::{CANCELLED, DISOWNED, DRAINED};
use crate::prepare::{Prepared, Preparer, layers_of};
use crate::sandboxes::Sandboxes;
use crate::session::{FromSession, Out, Servers};
use crate::trash::Trash;
use crate::wire_form;
use isolation::{Launcher, LauncherConfig, LauncherError};
use model::{AllocId, NodeId, Phase, StartFailure};
use node_agent::{Act, Effect, Event, Found, Kill, Node, Order, Work};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use wire::v1::server_message::Message;

/// Events that wait for the loop. Tasks wait for room; the loop never waits for tasks.
const EVENTS_MAX: usize = 1_024;

/// Messages of a server that wait for the loop; the server waits for room.
const MESSAGES_MAX: usize = 64;

/// How long a removal or a stop that failed rests.
const AGAIN: Duration = Duration::from_secs(1);

/// How often the loop looks at everything although nothing happened.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// How long an agent that is told to end waits for its deeds.
const FAREWELL_MAX: Duration = Duration::from_secs(20);

/// Runs an agent until it is told to end. What runs then goes on, and is found by the next agent
/// on the same folders; the same holds when this future is dropped, or the process killed.
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
        let servers = Servers::new(&config.servers, &config.token)?;
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
    servers: Option<Servers>,
    node: Node,
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

/// What an earlier agent left, found before anything else is done.
struct Inheritance {
    entries: Vec<(Read, Found)>,
    keeps: HashMap<AllocId, Keep>,
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
        let (tell, told) = mpsc::channel(EVENTS_MAX);
        let mut agent = Self {
            id: data.node_id()?,
            node: Node::new(machine.facts.boot_id.clone()),
            machine,
            preparer: Preparer {
                material,
                data: data.clone(),
                trash: trash.clone(),
                log_bytes_max: config.log_bytes_max,
            },
            data,
            journal,
            trash,
            sandboxes,
            metrics: config.metrics,
            servers: Some(servers),
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
        agent.take_over(inheritance);
        Ok(agent)
    }

    fn take_over(&mut self, mut inheritance: Inheritance) {
        for (read, found) in inheritance.entries {
            let entry = match read {
                Read::Entry(entry) => entry,
                Read::Damaged { entry, message } => {
                    tracing::error!(alloc_id = %entry.order.alloc, message, "journal entry is damaged");
                    entry
                }
            };
            let alloc = entry.order.alloc.clone();
            tracing::info!(alloc_id = %alloc, found = ?found, "allocation found in the journal");
            let mut room = Room::default();
            room.keeps.extend(inheritance.keeps.remove(&alloc));
            self.rooms.insert(alloc.clone(), room);
            let acts = self.node.readopt(*entry, found, now_ms());
            if self.node.life(&alloc).is_some_and(|life| life.is_alive()) {
                self.follow(&alloc);
            }
            self.perform(acts);
        }
    }

    async fn run(mut self, shutdown: CancellationToken) -> Result<(), AgentError> {
        let (from_session, mut session) = mpsc::channel(MESSAGES_MAX);
        let servers = self
            .servers
            .take()
            .ok_or_else(|| AgentError::Broken("started twice".to_owned()))?;
        self.watches.spawn(servers.keep_open(from_session));
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
                Some(done) = self.deeds.join_next() => survived(done)?,
                Some(done) = self.watches.join_next() => survived(done)?,
                () = tokio::time::sleep(tick) => {
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
        due.unwrap_or(LOOK_AGAIN).min(LOOK_AGAIN)
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
            Ok(true) => tracing::info!("agent ended, nothing runs"),
            Ok(false) => tracing::info!("agent ended, steps go on"),
            Err(e) => tracing::warn!(error = %e, "agent ended, its cgroups or mounts are left"),
        }
        Ok(())
    }

    // ---- what is heard ----

    fn hear(&mut self, alloc: AllocId, told: Told) {
        let event = match told {
            Told::Event(event) => event,
            Told::Handed => {
                self.follow(&alloc);
                return;
            }
            Told::Prepared(phases, prepared) => {
                if let Some(room) = self.rooms.get_mut(&alloc) {
                    room.prepared = Some(*prepared);
                }
                Event::Prepared { phases }
            }
        };
        self.time(&alloc, &event);
        self.event(&alloc, event);
    }

    fn time(&mut self, alloc: &AllocId, event: &Event) {
        let Some(room) = self.rooms.get_mut(alloc) else { return };
        match event {
            Event::Prepared { .. } => {
                room.ready_at = Some(Instant::now());
                if let Some(at) = room.ordered_at.take() {
                    self.metrics.prepare_seconds.observe(at.elapsed().as_secs_f64());
                }
            }
            Event::Launched { .. } => {
                if let Some(at) = room.ready_at.take() {
                    self.metrics.launch_seconds.observe(at.elapsed().as_secs_f64());
                }
            }
            _ => {}
        }
    }

    fn event(&mut self, alloc: &AllocId, event: Event) {
        let acts = self.node.on(alloc, event, now_ms());
        self.log_transition(alloc);
        self.perform(acts);
    }

    /// The one place where an allocation's way is logged.
    fn log_transition(&mut self, alloc: &AllocId) {
        let Some(state) = self.node.life(alloc).map(|life| life.state_name()) else {
            return;
        };
        let room = self.room(alloc);
        let before = std::mem::replace(&mut room.logged, state);
        if before != state {
            tracing::info!(alloc_id = %alloc, from = before, to = state, "allocation changed");
        }
    }

    fn listen(&mut self, message: FromSession) {
        match message {
            FromSession::Hello(answer) => {
                let held = self.node.lives().map(|life| life.alloc().to_string()).collect();
                // The stream that asked may be gone already.
                let _ = answer.send(wire_form::hello(&self.id, &self.machine, held));
            }
            FromSession::Up {
                out,
                server,
                node_epoch,
                lease_ms,
            } => {
                tracing::info!(server, node_epoch, lease_ms, "connected");
                if std::mem::replace(&mut self.ever_connected, true) {
                    self.metrics.reconnects.inc();
                }
                self.metrics.connected.set(1);
                for room in self.rooms.values() {
                    if let Some(shipment) = &room.shipment {
                        shipment.connected(out.clone());
                    }
                }
                self.out = Some(out);
                let acts = self.node.on_connected(now_ms());
                self.perform(acts);
            }
            FromSession::Down => {
                self.metrics.connected.set(0);
                self.out = None;
                for shipment in self.rooms.values().filter_map(|room| room.shipment.as_ref()) {
                    shipment.disconnected();
                }
                let acts = self.node.on_disconnected(now_ms());
                self.perform(acts);
            }
            FromSession::Message(message) => self.obey(*message),
        }
    }

    /// A message of the server. What cannot be read is logged and left: the server repeats it or
    /// learns from the next report.
    fn obey(&mut self, message: Message) {
        let now = now_ms();
        let acts = match message {
            Message::Welcome(_) | Message::RenewAck(_) => Vec::new(),
            Message::Orders(orders) => {
                let orders = orders.orders.into_iter().filter_map(readable).collect();
                self.node.on_orders(orders, now)
            }
            Message::Order(order) => readable(order).map_or_else(Vec::new, |order| self.node.on_order(order, now)),
            Message::ReportAck(ack) => match (AllocId::new(ack.alloc_id), wire_form::observed_state(&ack.state)) {
                (Ok(alloc), Ok(state)) => self.node.on_ack(&alloc, state, ack.accepted, now),
                // A refusal is clear enough without the state that it refuses.
                (Ok(alloc), Err(_)) if !ack.accepted => {
                    self.node.on_ack(&alloc, model::ObservedState::Ended, false, now)
                }
                (alloc, state) => {
                    tracing::warn!(alloc = ?alloc, state = ?state, "acknowledgement cannot be read");
                    Vec::new()
                }
            },
            Message::Forget(forget) => {
                AllocId::new(forget.alloc_id).map_or_else(|_| Vec::new(), |alloc| self.node.on_forget(&alloc, now))
            }
            Message::LogFrom(from) => {
                self.with_shipment(&from.alloc_id, |shipment| shipment.from(from.offset));
                Vec::new()
            }
            Message::LogAck(ack) => {
                self.with_shipment(&ack.alloc_id, |shipment| shipment.acked(ack.offset, ack.complete));
                Vec::new()
            }
        };
        self.perform(acts);
    }

    fn with_shipment(&self, alloc: &str, tell: impl FnOnce(&Shipment)) {
        let shipment = AllocId::new(alloc)
            .ok()
            .and_then(|alloc| self.rooms.get(&alloc)?.shipment.as_ref());
        if let Some(shipment) = shipment {
            tell(shipment);
        }
    }

    // ---- what is done ----

    fn perform(&mut self, acts: Vec<Act>) {
        for Act { alloc, effect } in acts {
            self.log_transition(&alloc);
            self.effect(alloc, effect);
        }
    }

    fn effect(&mut self, alloc: AllocId, effect: Effect) {
        match effect {
            Effect::Write(entry) => self.write(alloc, entry),
            Effect::Prepare => self.prepare(alloc),
            Effect::AbortPrepare => self.room(&alloc).abort.cancel(),
            Effect::Launch => self.launch(alloc),
            Effect::Kill(kill) => self.kill(alloc, kill),
            Effect::CloseLog { line } => {
                let path = self.data.alloc(&alloc).log();
                self.deed(alloc, async move {
                    let bytes = blocking(move || logs::close(&path, line.as_deref())).await;
                    Event::LogClosed { bytes }
                });
            }
            Effect::ShipLog => self.ship(alloc),
            Effect::SealLog { bytes } => {
                if let Some(shipment) = &self.room(&alloc).shipment {
                    shipment.sealed(bytes);
                }
            }
            Effect::Report(observed) => {
                tracing::debug!(alloc_id = %alloc, state = ?observed.state, "report");
                if let Some(out) = &self.out {
                    out.control_now(wire_form::report(&observed));
                }
            }
            Effect::Clean => self.clean(alloc),
            Effect::RemoveEntry => {
                let journal = self.journal.clone();
                let name = alloc.clone();
                self.deed(alloc, async move {
                    until_done("journal entry cannot be removed", name, move |alloc| {
                        journal.remove(alloc)
                    })
                    .await;
                    Event::EntryRemoved
                });
            }
            Effect::Gone => {
                self.rooms.remove(&alloc);
            }
        }
    }

    fn room(&mut self, alloc: &AllocId) -> &mut Room {
        self.rooms.entry(alloc.clone()).or_default()
    }

    /// Work that is not cut off and ends in an event.
    fn deed(&mut self, alloc: AllocId, work: impl Future<Output = Event> + Send + 'static) {
        let tell = self.tell.clone();
        self.deeds.spawn(async move {
            let event = work.await;
            // The loop is gone only when the whole agent is.
            let _ = tell.send((alloc, Told::Event(event))).await;
        });
    }

    fn write(&mut self, alloc: AllocId, entry: Box<node_agent::Entry>) {
        let (journal, metrics) = (self.journal.clone(), self.metrics.clone());
        self.deed(alloc, async move {
            match blocking(move || (journal.write(&entry), entry)).await {
                (Ok(()), _) => Event::Written,
                (Err(e), entry) => {
                    metrics.journal_failures.inc();
                    tracing::error!(alloc_id = %entry.order.alloc, error = %e, "journal cannot be written");
                    Event::WriteFailed
                }
            }
        });
    }

    fn prepare(&mut self, alloc: AllocId) {
        if self.ending {
            return;
        }
        let Some(order) = self.node.life(&alloc).map(|life| life.order().clone()) else {
            return;
        };
        let room = self.room(&alloc);
        room.ordered_at = Some(Instant::now());
        let abort = room.abort.clone();
        let (preparer, tell) = (self.preparer.clone(), self.tell.clone());
        self.watches.spawn(async move {
            let told = tokio::select! {
                prepared = preparer.prepare(&order) => match prepared {
                    (phases, Ok(prepared)) => Told::Prepared(phases, Box::new(prepared)),
                    (phases, Err(failure)) => Told::Event(Event::PrepareFailed {
                        cause: failure.cause,
                        message: failure.message,
                        phases,
                        lasting: failure.lasting,
                    }),
                },
                () = abort.cancelled() => Told::Event(Event::PrepareFailed {
                    cause: StartFailure::Sandbox,
                    message: "it was stopped before it began".to_owned(),
                    phases: Vec::new(),
                    lasting: false,
                }),
            };
            let _ = tell.send((alloc, told)).await;
        });
    }

    fn launch(&mut self, alloc: AllocId) {
        if self.ending {
            return;
        }
        let room = self.room(&alloc);
        let Some(prepared) = room.prepared.take() else { return };
        room.keeps = prepared.keeps;
        room.launch_began_ms = Some(now_ms());
        let (sandboxes, tell) = (self.sandboxes.clone(), self.tell.clone());
        self.deeds.spawn(async move {
            let told = match follow::launch(sandboxes, prepared.spec).await {
                Ok(()) => Told::Handed,
                Err(event) => Told::Event(event),
            };
            let _ = tell.send((alloc, told)).await;
        });
    }

    fn follow(&mut self, alloc: &AllocId) {
        let Some(life) = self.node.life(alloc) else { return };
        let Work::Step { def, .. } = &*life.order().work else {
            return;
        };
        let job = Follow {
            sandboxes: self.sandboxes.clone(),
            id: alloc.to_string(),
            exit_path: self.data.alloc(alloc).exit(),
            def: def.clone(),
            began_ms: self.rooms.get(alloc).and_then(|room| room.launch_began_ms),
        };
        let (alloc, tell) = (alloc.clone(), self.tell.clone());
        self.watches.spawn(async move {
            let (events, mut heard) = mpsc::channel(1);
            let following = follow::follow(job, events);
            let passing = async {
                while let Some(event) = heard.recv().await {
                    let _ = tell.send((alloc.clone(), Told::Event(event))).await;
                }
            };
            tokio::join!(following, passing);
        });
    }

    fn kill(&mut self, alloc: AllocId, kill: Kill) {
        let reason = match kill {
            Kill::Cancelled => CANCELLED,
            Kill::Drained => DRAINED,
            Kill::Disowned => DISOWNED,
        };
        let sandboxes = self.sandboxes.clone();
        self.deeds.spawn(async move {
            until_done("sandbox cannot be stopped", alloc, move |alloc| {
                match sandboxes.stop(alloc.as_str(), reason) {
                    Err(LauncherError::Unknown { .. }) => Ok(()),
                    stopped => stopped,
                }
            })
            .await;
        });
    }

    fn ship(&mut self, alloc: AllocId) {
        let Some(fence) = self.node.life(&alloc).map(|life| life.fence()) else {
            return;
        };
        let path = self.data.alloc(&alloc).log();
        let shipment = Arc::new(Shipment::new(alloc.clone(), fence, path));
        if let Some(out) = &self.out {
            shipment.connected(out.clone());
        }
        let room = self.room(&alloc);
        room.shipment = Some(shipment.clone());
        let unwanted = room.unwanted.clone();
        let (tails, metrics, tell) = (self.tails.clone(), self.metrics.clone(), self.tell.clone());
        self.watches.spawn(async move {
            tokio::select! {
                () = shipment.ship(tails, metrics) => {
                    let _ = tell.send((alloc, Told::Event(Event::LogComplete))).await;
                }
                () = unwanted.cancelled() => {}
            }
        });
    }

    fn clean(&mut self, alloc: AllocId) {
        let folder = self.data.alloc(&alloc).0;
        let (sandboxes, trash) = (self.sandboxes.clone(), self.trash.clone());
        let room = self.room(&alloc);
        room.unwanted.cancel();
        room.shipment = None;
        room.prepared = None;
        let keeps = std::mem::take(&mut room.keeps);
        let name = alloc.clone();
        self.deed(alloc, async move {
            until_done("sandbox cannot be removed", name.clone(), move |alloc| {
                sandboxes.remove(alloc.as_str())
            })
            .await;
            // Its mounts are gone: the layers may go too.
            drop(keeps);
            until_done("folder cannot be removed", name, move |_| trash.discard(&folder)).await;
            Event::Cleaned
        });
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

fn readable(order: wire::v1::Order) -> Option<Order> {
    wire_form::order(order)
        .map_err(|error| tracing::error!(error, "order cannot be read"))
        .ok()
}

/// Tries blocking work until it succeeds.
async fn until_done<E: std::fmt::Display + Send + 'static>(
    failing: &'static str,
    alloc: AllocId,
    work: impl Fn(&AllocId) -> Result<(), E> + Send + Sync + 'static,
) {
    let work = Arc::new(work);
    loop {
        let (again, name) = (work.clone(), alloc.clone());
        match blocking(move || again(&name)).await {
            Ok(()) => return,
            Err(e) => tracing::error!(alloc_id = %alloc, error = %e, "{failing}"),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Finds what an earlier agent left and removes what no entry of the journal names. Blocking.
fn inherit(
    journal: &Journal,
    data: &DataFolder,
    trash: &Trash,
    sandboxes: &dyn Sandboxes,
    material: &dyn Material,
) -> Result<Inheritance, AgentError> {
    let read = journal.read_all()?;
    let mut keeps = HashMap::new();
    let mut entries = Vec::new();
    let mut named = BTreeSet::new();
    for read in read {
        let (Read::Entry(entry) | Read::Damaged { entry, .. }) = &read;
        let alloc = entry.order.alloc.clone();
        let folder = data.alloc(&alloc);
        let layers = layers_of(&folder);
        if !layers.is_empty() {
            keeps.insert(alloc.clone(), material.adopt(&layers));
        }
        let found = match &read {
            Read::Entry(_) => follow::find(sandboxes, alloc.as_str(), &folder.exit())?,
            Read::Damaged { message, .. } => {
                remove_or_tell(sandboxes, alloc.as_str());
                Found::Broken {
                    message: message.clone(),
                }
            }
        };
        named.insert(alloc.to_string());
        entries.push((read, found));
    }
    remove_strays(&named, data, trash, sandboxes)?;
    Ok(Inheritance { entries, keeps })
}

/// A process that is stuck in the kernel must not keep the whole node from serving: its sandbox is
/// tried again at the next start.
fn remove_or_tell(sandboxes: &dyn Sandboxes, id: &str) {
    if let Err(error) = sandboxes.remove(id) {
        tracing::error!(alloc_id = id, %error, "sandbox cannot be removed, the next start tries again");
    }
}

fn remove_strays(
    named: &BTreeSet<String>,
    data: &DataFolder,
    trash: &Trash,
    sandboxes: &dyn Sandboxes,
) -> Result<(), AgentError> {
    for id in sandboxes.list()?.into_iter().filter(|id| !named.contains(id)) {
        tracing::warn!(alloc_id = id, "sandbox that the journal does not name is removed");
        remove_or_tell(sandboxes, &id);
    }
    let folder = data.allocs();
    for entry in std::fs::read_dir(&folder).map_err(AgentError::io(&folder))? {
        let path = entry.map_err(AgentError::io(&folder))?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        if !name.is_some_and(|name| named.contains(&name)) {
            trash.discard(&path).map_err(AgentError::io(&path))?;
        }
    }
    Ok(())
}
