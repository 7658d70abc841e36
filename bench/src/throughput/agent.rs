//! A simulated node: speaks the agents' stream as the agent does, and runs nothing.
//!
//! It registers, renews, takes orders, reports each step's states and its end, offers the log, and
//! keeps everything until it is told to forget it. A stream that breaks is opened anew, with the next
//! server. Not here: containers, the agent's journal, its lease's deadline.

use super::ledger::Ledger;
use super::serving::NODE_TOKEN;
use model::{AllocId, Fence, Observed, ObservedState, Outcome, RunId, Usage};
use rand::Rng;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status, Streaming};
use wire::v1::fleet_service_client::FleetServiceClient;
use wire::v1::{self, AgentMessage, ServerMessage, agent_message, server_message};

/// How often the lease is renewed.
const RENEW_EVERY: Duration = Duration::from_secs(5);

/// A server that has said nothing for so long is left.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// How long a server may take for the first word.
const WELCOME_MAX: Duration = Duration::from_secs(20);

/// How long a report waits for its acknowledgement, and a question for its answer, before they are
/// sent again.
const RESEND_AFTER: Duration = Duration::from_secs(10);

/// The pause before another server is tried.
const PAUSES_MS: std::ops::Range<u64> = 50..150;

/// What all simulated nodes have in common.
#[derive(Debug, Clone)]
pub(crate) struct NodeSettings {
    pub(crate) cpu_millis: u64,
    pub(crate) memory_bytes: u64,
    pub(crate) slots: u32,
    /// From the order to the first instruction.
    pub(crate) prepare: Duration,
    /// Bytes of each step's log.
    pub(crate) log_bytes: usize,
}

/// What all nodes share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) settings: NodeSettings,
    /// The longest a step runs, milliseconds; each runs a random part of it.
    pub(crate) run_ms: AtomicU64,
    pub(crate) servers: watch::Receiver<Vec<String>>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) connected: AtomicUsize,
    pub(crate) shutdown: CancellationToken,
}

/// An allocation that the node holds.
struct Held {
    run: RunId,
    step: usize,
    fence: Fence,
    state: ObservedState,
    outcome: Outcome,
    /// The end is acknowledged.
    filed: bool,
    /// From where the server wants the log; `None`: it has not said.
    log_from: Option<u64>,
    log_whole: bool,
    log_bytes: u64,
}

impl Held {
    fn report(&self, alloc: &AllocId) -> agent_message::Message {
        let ended = self.state == ObservedState::Ended;
        let now_ms = now_ms();
        let observed = Observed {
            alloc: alloc.clone(),
            fence: self.fence,
            state: self.state,
            started_ms: (self.state > ObservedState::Preparing).then_some(now_ms),
            ended_ms: ended.then_some(now_ms),
            phases: Vec::new(),
            outcome: ended.then(|| self.outcome.clone()),
            log_bytes: ended.then_some(self.log_bytes),
            usage: Usage::default(),
            left: model::Left::default(),
            unknown: model::record::Unknown::new(),
        };
        agent_message::Message::Report(v1::Report {
            alloc_id: alloc.to_string(),
            fence: Some(self.fence.into()),
            observed_json: serde_json::to_string(&observed).unwrap_or_default(),
        })
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// What happens to an allocation by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Start,
    End,
    /// Look whether the end is acknowledged and the log whole.
    Resend,
}

/// A node, over all its streams.
pub(crate) struct Node {
    number: usize,
    shared: Arc<Shared>,
    held: HashMap<AllocId, Held>,
    due: BinaryHeap<Reverse<(Instant, Due, AllocId)>>,
    registered: bool,
}

/// Why a stream is left: whatever broke it.
struct Broken;

impl<E: std::error::Error> From<E> for Broken {
    fn from(_: E) -> Self {
        Self
    }
}

type Out = mpsc::Sender<AgentMessage>;

async fn send(out: &Out, message: agent_message::Message) -> Result<(), Broken> {
    let message = AgentMessage { message: Some(message) };
    out.send(message).await.map_err(|_| Broken)
}

impl Node {
    pub(crate) fn new(number: usize, shared: Arc<Shared>) -> Self {
        Self {
            number,
            shared,
            held: HashMap::new(),
            due: BinaryHeap::new(),
            registered: false,
        }
    }

    /// Keeps a stream open until the shutdown.
    pub(crate) async fn run(mut self) {
        let shutdown = self.shared.shutdown.clone();
        let mut tries = self.number;
        while !shutdown.is_cancelled() {
            let servers = self.shared.servers.borrow().clone();
            if let Some(server) = servers.get(tries % servers.len().max(1)) {
                tokio::select! {
                    // Any end leads to the next server.
                    _ = self.stream(server.clone()) => {}
                    () = shutdown.cancelled() => {}
                }
            }
            if std::mem::take(&mut self.registered) {
                self.shared.connected.fetch_sub(1, Ordering::Relaxed);
            }
            tries += 1;
            let pause = Duration::from_millis(rand::rng().random_range(PAUSES_MS));
            tokio::time::sleep(pause).await;
        }
    }

    async fn stream(&mut self, server: String) -> Result<(), Broken> {
        let channel = timeout(SILENCE_MAX, tonic::transport::Endpoint::from_shared(server)?.connect()).await??;
        let mut client = FleetServiceClient::new(channel).max_decoding_message_size(wire::MESSAGE_MAX);
        let (out, outgoing) = mpsc::channel(1_024);
        send(&out, self.hello()).await?;
        let mut request = Request::new(ReceiverStream::new(outgoing));
        let token = format!("Bearer {NODE_TOKEN}").parse()?;
        request.metadata_mut().insert("authorization", token);
        let mut inbound = timeout(WELCOME_MAX, client.session(request)).await??.into_inner();
        match timeout(WELCOME_MAX, inbound.message()).await?? {
            Some(ServerMessage {
                message: Some(server_message::Message::Welcome(_)),
            }) => {}
            _ => return Err(Broken),
        }
        self.registered = true;
        self.shared.connected.fetch_add(1, Ordering::Relaxed);
        self.converse(&mut inbound, &out).await
    }

    fn hello(&self) -> agent_message::Message {
        let settings = &self.shared.settings;
        agent_message::Message::Hello(v1::Hello {
            node_id: format!("sim-{:05}", self.number),
            name: format!("sim-{:05}", self.number),
            capacity: Some(v1::Resources {
                cpu_millis: settings.cpu_millis,
                memory_bytes: settings.memory_bytes,
                disk_bytes: 1 << 40,
            }),
            slots: settings.slots,
            labels: std::collections::HashMap::new(),
            kernel: "6.1".to_owned(),
            cgroups: "v2".to_owned(),
            agent_version: "bench".to_owned(),
            boot_id: "bench".to_owned(),
            alloc_ids: self.held.keys().map(ToString::to_string).collect(),
        })
    }

    async fn converse(&mut self, inbound: &mut Streaming<ServerMessage>, out: &Out) -> Result<(), Broken> {
        // Spread, as nodes do not start at the same moment.
        let phase = RENEW_EVERY.mul_f64(rand::rng().random());
        let mut renewals = tokio::time::interval_at(Instant::now() + phase, RENEW_EVERY);
        let mut sequence = 0;
        let mut heard = Instant::now();
        loop {
            let next = self.due.peek().map(|Reverse((at, ..))| *at);
            let moment = async {
                match next {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                message = inbound.message() => {
                    heard = Instant::now();
                    let message: Result<Option<ServerMessage>, Status> = message;
                    let message = message?.and_then(|m| m.message).ok_or(Broken)?;
                    self.hear(message, out).await?;
                }
                () = moment => self.act(out).await?,
                _ = renewals.tick() => {
                    if heard.elapsed() > SILENCE_MAX {
                        return Err(Broken);
                    }
                    sequence += 1;
                    send(out, agent_message::Message::Renew(v1::Renew { sequence })).await?;
                }
            }
        }
    }

    async fn hear(&mut self, message: server_message::Message, out: &Out) -> Result<(), Broken> {
        use server_message::Message;
        match message {
            Message::Orders(orders) => {
                let listed: Vec<AllocId> = orders
                    .orders
                    .iter()
                    .filter_map(|o| AllocId::new(&*o.alloc_id).ok())
                    .collect();
                self.held
                    .retain(|alloc, held| listed.contains(alloc) || held.state == ObservedState::Ended);
                for order in orders.orders {
                    self.order(order, out).await?;
                }
                self.say_all_again(out).await
            }
            Message::Order(order) => self.order(order, out).await,
            Message::ReportAck(ack) => {
                self.on_ack(&ack);
                Ok(())
            }
            Message::LogFrom(from) => {
                let Ok(alloc) = AllocId::new(from.alloc_id) else {
                    return Ok(());
                };
                if let Some(held) = self.held.get_mut(&alloc) {
                    held.log_from = Some(from.offset);
                }
                self.send_log(&alloc, out).await
            }
            Message::LogAck(ack) => {
                let alloc = AllocId::new(ack.alloc_id).ok();
                if let Some(held) = alloc.and_then(|alloc| self.held.get_mut(&alloc)) {
                    held.log_whole |= ack.complete;
                }
                Ok(())
            }
            Message::Forget(forget) => {
                let alloc = AllocId::new(forget.alloc_id).ok();
                if let Some(held) = alloc.and_then(|alloc| self.held.remove(&alloc))
                    && held.state == ObservedState::Ended
                {
                    self.shared.ledger.folded(&held.run, held.step);
                }
                Ok(())
            }
            Message::Welcome(_) | Message::RenewAck(_) => Ok(()),
        }
    }

    async fn order(&mut self, order: v1::Order, out: &Out) -> Result<(), Broken> {
        let (Ok(alloc), Ok(run)) = (AllocId::new(order.alloc_id), RunId::new(order.run_id)) else {
            return Ok(());
        };
        if let Some(held) = self.held.get_mut(&alloc) {
            if !order.stop.is_empty() && held.state != ObservedState::Ended {
                held.outcome = Outcome::Cancelled;
                self.due.push(Reverse((Instant::now(), Due::End, alloc)));
            }
            return Ok(());
        }
        let step = order.step as usize;
        self.shared.ledger.in_hand(&run, step);
        let held = Held {
            run,
            step,
            fence: order.fence.unwrap_or_default().into(),
            state: ObservedState::Preparing,
            outcome: Outcome::Exited { code: 0 },
            filed: false,
            log_from: None,
            log_whole: false,
            log_bytes: self.shared.settings.log_bytes as u64,
        };
        let report = held.report(&alloc);
        self.held.insert(alloc.clone(), held);
        let start = Instant::now() + self.shared.settings.prepare;
        self.due.push(Reverse((start, Due::Start, alloc)));
        send(out, report).await
    }

    fn on_ack(&mut self, ack: &v1::ReportAck) {
        let Ok(alloc) = AllocId::new(&*ack.alloc_id) else {
            return;
        };
        if !ack.accepted {
            self.held.remove(&alloc);
            return;
        }
        let Some(held) = self.held.get_mut(&alloc) else { return };
        if ack.state == "ended" && !std::mem::replace(&mut held.filed, true) {
            self.shared.ledger.filed(&held.run, held.step);
        }
    }

    /// Everything that is due by now.
    async fn act(&mut self, out: &Out) -> Result<(), Broken> {
        while let Some(Reverse((at, due, alloc))) = self.due.peek().cloned() {
            if at > Instant::now() {
                break;
            }
            self.due.pop();
            let Some(held) = self.held.get_mut(&alloc) else {
                continue;
            };
            match due {
                Due::Start if held.state == ObservedState::Preparing => {
                    held.state = ObservedState::Running;
                    let report = held.report(&alloc);
                    let open = log_open(&alloc, held.fence);
                    let longest = Duration::from_millis(self.shared.run_ms.load(Ordering::Relaxed));
                    let runs = longest.mul_f64(rand::rng().random());
                    self.due.push(Reverse((Instant::now() + runs, Due::End, alloc)));
                    send(out, report).await?;
                    send(out, open).await?;
                }
                Due::End if held.state != ObservedState::Ended => {
                    held.state = ObservedState::Ended;
                    self.shared.ledger.reported(&held.run, held.step);
                    let report = held.report(&alloc);
                    send(out, report).await?;
                    self.send_log(&alloc, out).await?;
                    self.due
                        .push(Reverse((Instant::now() + RESEND_AFTER, Due::Resend, alloc)));
                }
                Due::Resend => {
                    self.say_again(&alloc, out).await?;
                    self.due
                        .push(Reverse((Instant::now() + RESEND_AFTER, Due::Resend, alloc)));
                }
                Due::Start | Due::End => {}
            }
        }
        Ok(())
    }

    /// The whole log, once the step has ended and the server has said from where.
    async fn send_log(&self, alloc: &AllocId, out: &Out) -> Result<(), Broken> {
        let Some(held) = self.held.get(alloc) else {
            return Ok(());
        };
        let Some(offset) = held
            .log_from
            .filter(|_| held.state == ObservedState::Ended && !held.log_whole)
        else {
            return Ok(());
        };
        let whole = self.shared.settings.log_bytes;
        let sent = usize::try_from(offset).unwrap_or(whole).min(whole);
        let data = v1::LogData {
            alloc_id: alloc.to_string(),
            offset,
            bytes: vec![b'x'; whole - sent],
            end: true,
        };
        send(out, agent_message::Message::Log(data)).await
    }

    async fn say_again(&self, alloc: &AllocId, out: &Out) -> Result<(), Broken> {
        let Some(held) = self.held.get(alloc) else {
            return Ok(());
        };
        if !held.filed {
            send(out, held.report(alloc)).await?;
        }
        if !held.log_whole && held.state > ObservedState::Preparing {
            send(out, log_open(alloc, held.fence)).await?;
        }
        Ok(())
    }

    /// A new stream: what the one before has heard is not known.
    async fn say_all_again(&self, out: &Out) -> Result<(), Broken> {
        for alloc in self.held.keys() {
            self.say_again(alloc, out).await?;
        }
        Ok(())
    }
}

fn log_open(alloc: &AllocId, fence: Fence) -> agent_message::Message {
    agent_message::Message::LogOpen(v1::LogOpen {
        alloc_id: alloc.to_string(),
        fence: Some(fence.into()),
    })
}
