//! One node's stream from Hello to its end: what comes in is dealt with, what is due goes out.
//!
//! The parts (renewals, reports, orders, logs) run side by side and none waits for another; the
//! first that ends, ends the session. Not here: decisions (`hello`, `report`, `api_core::fleet`), the
//! store's transactions (`enroll`, `filing`), logs (`crate::logs`).

use super::Inner;
use super::desk::{Client, Visit};
use super::end::End;
use super::enroll::{Enrolled, Registrar};
use super::filing::{self, Filed};
use super::gate::{self, Admitted};
use super::hello::Registration;
use super::orders::{self, OrderError};
use super::report;
use super::standing::{Cause, Standing};
use crate::clock::now_ms;
use crate::logs::{Board, LogError, LogWriter, Reply};
use api_core::fleet::{Desired, Gathered, Gone, Leaving, Verdict, Word, state_word};
use futures::stream::{FuturesUnordered, StreamExt};
use model::{AllocId, Allocation, NodeId, Observed, ObservedState};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use store::live::read_all;
use store::{LeaseId, StoreError, Watch, WatchEvent};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, timeout};
use tonic::{Status, Streaming};
use wire::v1::{self, agent_message, server_message};

/// Messages that wait for a slow stream. Bounded by number because most are small; a large order
/// waits in the watch, not here.
pub(super) const OUTBOX_MAX: usize = 64;

/// How long a stream may take no message before it is given up.
const STUCK_AFTER: Duration = Duration::from_secs(10);

/// How long a stream may take to say Hello.
const HELLO_WAIT: Duration = Duration::from_secs(10);

/// The pauses before the store is asked again.
const RETRY_PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3));

/// How long one renewal may take before it is tried again.
const RENEW_WAIT: Duration = Duration::from_secs(5);

/// How long an allocation may be prepared before that is filed: nobody but a reader of `explain`
/// asks, and most steps run sooner.
const PREPARING_FILED_AFTER: Duration = Duration::from_secs(2);

/// Most logs that one node may have open: more than it can have allocations.
const LOGS_MAX: usize = 4_096;

/// Most logs that are being opened at once: each lists blobs.
const OPENING_MAX: usize = 16;

/// The way out.
pub(super) struct Outbox {
    sender: mpsc::Sender<Result<v1::ServerMessage, Status>>,
}

impl Outbox {
    pub(super) fn new(sender: mpsc::Sender<Result<v1::ServerMessage, Status>>) -> Self {
        Self { sender }
    }

    async fn send(&self, message: server_message::Message) -> Result<(), End> {
        let message = v1::ServerMessage { message: Some(message) };
        match timeout(STUCK_AFTER, self.sender.send(Ok(message))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(End::Left),
            Err(_) => Err(End::Stuck),
        }
    }

    /// The last word, if there is room for one.
    pub(super) fn close(self, end: &End) {
        if let Some(status) = end.status() {
            let _ = self.sender.try_send(Err(status));
        }
    }
}

/// A log of this node.
enum Slot {
    /// It is being found out what is stored.
    Opening,
    Open(LogWriter),
}

/// A registered node's session.
pub(super) struct Session<'a> {
    fleet: &'a Inner,
    node: NodeId,
    lease: LeaseId,
    outbox: &'a Outbox,
    standing: Arc<Standing>,
    /// Where its reports are filed.
    desk: Arc<Client>,
    /// What is being prepared, since when it is, and was not filed.
    preparing: Mutex<BTreeMap<AllocId, (Instant, Observed)>>,
    /// Something is being prepared.
    prepares: Notify,
    board: Arc<Board>,
    logs: Mutex<BTreeMap<AllocId, Slot>>,
    to_open: mpsc::UnboundedSender<AllocId>,
    /// The newest renewal and when it came.
    renewal: watch::Sender<(u64, Instant)>,
    /// What the agent had in its journal when it registered.
    held: BTreeSet<AllocId>,
    leaving: Mutex<Leaving>,
}

/// A session's whole life; answers why it ended.
pub(super) async fn run(
    fleet: &Inner,
    mut inbound: Streaming<v1::AgentMessage>,
    outbox: &Outbox,
    admitted: &Admitted,
    enrolled: &mut Option<Enrolled>,
) -> End {
    match open(fleet, &mut inbound, outbox, admitted, enrolled).await {
        Ok(end) | Err(end) => end,
    }
}

async fn open(
    fleet: &Inner,
    inbound: &mut Streaming<v1::AgentMessage>,
    outbox: &Outbox,
    admitted: &Admitted,
    kept: &mut Option<Enrolled>,
) -> Result<End, End> {
    let stopping = fleet.shutdown.clone();
    let opened = async {
        let registration = hello(inbound).await?;
        admitted.check(&registration.node)?;
        let registrar = Registrar {
            store: fleet.store.as_ref(),
            metrics: &fleet.metrics,
            server: &fleet.config.server_name,
            address: &fleet.config.address,
            lease: fleet.config.lease,
            members_only: fleet.gate.membership().is_some(),
        };
        let revision = registrar.enroll(&registration, now_ms(), kept).await?;
        Ok::<_, End>((registration, revision))
    };
    let (registration, revision) = tokio::select! {
        opened = opened => opened?,
        () = stopping.cancelled() => return Err(End::Stopping),
    };
    let enrolled = kept.as_ref().ok_or(End::Contended)?;
    let seat = fleet
        .seats
        .take(&registration.node, enrolled.epoch(), revision, admitted.until_s)?;
    fleet.tell_certificates();
    tracing::info!(node_id = %registration.node, node_epoch = enrolled.epoch(), "node registered");
    let _counted = Counted::new(fleet);
    let (to_open, opens) = mpsc::unbounded_channel();
    let standing = Arc::new(Standing::default());
    let visit = Visit(fleet.desk.client(&registration.node, standing.clone()));
    let session = Session {
        fleet,
        node: registration.node,
        lease: enrolled.lease,
        outbox,
        standing,
        desk: visit.0.clone(),
        preparing: Mutex::default(),
        prepares: Notify::new(),
        board: Arc::default(),
        logs: Mutex::default(),
        to_open,
        renewal: watch::Sender::new((0, Instant::now())),
        held: registration.held,
        leaving: Mutex::default(),
    };
    let welcome = server_message::Message::Welcome(v1::Welcome {
        server: fleet.config.server_name.clone(),
        node_epoch: enrolled.epoch(),
        lease_ms: u64::try_from(fleet.config.lease.as_millis()).unwrap_or(u64::MAX),
    });
    outbox.send(welcome).await?;
    let end = tokio::select! {
        biased;
        () = stopping.cancelled() => End::Stopping,
        () = seat.replaced.cancelled() => End::Replaced,
        () = seat.lapsed.cancelled() => End::LeaseLost,
        () = gate::ended(admitted.until_s) => End::CertificateEnded,
        end = session.renew() => end,
        end = session.receive(inbound) => end,
        end = session.answer_reports() => end,
        () = session.file_preparing() => End::Stopping,
        end = session.order() => end,
        end = session.open_logs(opens) => end,
        end = session.tell_of_logs() => end,
    };
    Ok(end)
}

async fn hello(inbound: &mut Streaming<v1::AgentMessage>) -> Result<Registration, End> {
    let first = timeout(HELLO_WAIT, inbound.message()).await.map_err(|_| End::NoHello)?;
    let first = first.map_err(End::Broken)?.ok_or(End::Left)?;
    Ok(Registration::read(first)?)
}

impl Session<'_> {
    /// Deals with what comes in. Never waits for anything but the stream.
    async fn receive(&self, inbound: &mut Streaming<v1::AgentMessage>) -> End {
        loop {
            let message = match inbound.message().await {
                Ok(Some(message)) => message,
                Ok(None) => return End::Left,
                Err(status) => return End::Broken(status),
            };
            if let Err(end) = self.on_message(message) {
                return end;
            }
        }
    }

    fn on_message(&self, message: v1::AgentMessage) -> Result<(), End> {
        use agent_message::Message;
        match message.message {
            Some(Message::Hello(_)) => return Err(End::Message("Hello comes once, as the first message".to_owned())),
            Some(Message::Renew(renew)) => {
                self.renewal.send_replace((renew.sequence, Instant::now()));
            }
            Some(Message::Report(report)) => {
                let observed = report::read(&report)?;
                if observed.state == ObservedState::Ended {
                    self.leaving().ended(&observed.alloc);
                }
                self.on_report(observed);
            }
            Some(Message::LogOpen(open)) => self.open_log(&open.alloc_id)?,
            Some(Message::Log(data)) => self.on_log(data)?,
            None => tracing::debug!(node_id = %self.node, "message of a newer release passed over"),
        }
        Ok(())
    }

    fn on_report(&self, observed: Observed) {
        let mut preparing = self.preparing();
        if observed.state == ObservedState::Preparing && self.standing.stands(&observed.alloc) {
            let since = (Instant::now(), observed.clone());
            preparing.entry(observed.alloc.clone()).or_insert(since);
            self.prepares.notify_one();
            self.desk
                .answer(Gathered::new(observed), Filed::Accepted(Verdict::Known));
            return;
        }
        preparing.remove(&observed.alloc);
        drop(preparing);
        if !self.fleet.desk.add(&self.desk, observed) {
            tracing::warn!(node_id = %self.node, "too many reports wait, one was left to come again");
        }
    }

    /// Files what has been prepared for long.
    async fn file_preparing(&self) {
        loop {
            let oldest = self.preparing().values().map(|(since, _)| *since).min();
            match oldest {
                Some(since) => tokio::time::sleep_until(since + PREPARING_FILED_AFTER).await,
                // A session without anything to do never wakes up by itself.
                None => self.prepares.notified().await,
            }
            let mut preparing = self.preparing();
            let late = preparing.extract_if(.., |alloc, (since, _)| {
                since.elapsed() >= PREPARING_FILED_AFTER || !self.standing.stands(alloc)
            });
            for (alloc, (_, report)) in late {
                if self.standing.stands(&alloc) {
                    self.fleet.desk.add(&self.desk, report);
                }
            }
        }
    }

    fn preparing(&self) -> MutexGuard<'_, BTreeMap<AllocId, (Instant, Observed)>> {
        self.preparing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leaving(&self) -> MutexGuard<'_, Leaving> {
        self.leaving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn logs(&self) -> MutexGuard<'_, BTreeMap<AllocId, Slot>> {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open_log(&self, alloc_id: &str) -> Result<(), End> {
        let alloc = AllocId::new(alloc_id).map_err(|e| End::Message(format!("log: {e}")))?;
        let mut logs = self.logs();
        match logs.get(&alloc) {
            Some(Slot::Open(writer)) => writer.resume(),
            Some(Slot::Opening) => {}
            None if logs.len() >= LOGS_MAX => {
                return Err(End::Message(format!("more than {LOGS_MAX} logs are open")));
            }
            None => {
                logs.insert(alloc.clone(), Slot::Opening);
                // The receiver lives as long as the session; each log is in it once.
                let _ = self.to_open.send(alloc);
            }
        }
        Ok(())
    }

    fn on_log(&self, data: v1::LogData) -> Result<(), End> {
        if data.bytes.len() > wire::LOG_DATA_MAX {
            let (len, most) = (data.bytes.len(), wire::LOG_DATA_MAX);
            return Err(End::Message(format!("log: {len} bytes in one message; {most} at most")));
        }
        let alloc = AllocId::new(data.alloc_id.as_str()).map_err(|e| End::Message(format!("log: {e}")))?;
        if let Some(Slot::Open(writer)) = self.logs().get(&alloc) {
            writer.data(data.offset, data.bytes.into(), data.end);
            return Ok(());
        }
        // What comes before the log is open comes again: the node is told from where to send.
        self.open_log(&data.alloc_id)
    }

    /// Renews the lease for every Renew; ends when none comes.
    async fn renew(&self) -> End {
        let mut renewals = self.renewal.subscribe();
        let mut renewed = 0;
        loop {
            let (sequence, came) = *renewals.borrow_and_update();
            let deadline = came + self.fleet.config.lease;
            if sequence != renewed {
                match timeout(RENEW_WAIT, self.fleet.beat.renew(self.lease)).await {
                    Ok(Ok(0) | Err(StoreError::NoLease(_))) => return End::LeaseLost,
                    Ok(Ok(_)) => {
                        renewed = sequence;
                        self.fleet.metrics.renewals.inc();
                        let ack = server_message::Message::RenewAck(v1::RenewAck { sequence });
                        if let Err(end) = self.outbox.send(ack).await {
                            return end;
                        }
                        continue;
                    }
                    Ok(Err(error)) => tracing::warn!(node_id = %self.node, %error, "lease not renewed yet"),
                    Err(_) => tracing::warn!(node_id = %self.node, "lease not renewed yet, the store is slow"),
                }
            }
            let pause = if sequence == renewed {
                deadline
            } else {
                deadline.min(Instant::now() + RETRY_PAUSES.0)
            };
            tokio::select! {
                _ = renewals.changed() => {}
                () = tokio::time::sleep_until(pause) => {
                    if Instant::now() >= deadline {
                        return End::Silent;
                    }
                }
            }
        }
    }

    /// Answers reports that were filed. While the store does not answer, nobody is answered.
    async fn answer_reports(&self) -> End {
        loop {
            for (gathered, filed) in self.desk.answers().await {
                if let Err(end) = self.answer(&gathered, filed).await {
                    return end;
                }
            }
        }
    }

    async fn answer(&self, gathered: &Gathered, result: Filed) -> Result<(), End> {
        let (word, accepted) = match result {
            Filed::Accepted(Verdict::File) => ("filed", true),
            Filed::Accepted(_) => ("known", true),
            Filed::Refused => ("refused", false),
            Filed::Undecided => return Ok(()),
        };
        self.fleet.metrics.reports.with_label_values(&[word]).inc();
        let alloc = &gathered.report.alloc;
        let cause = self.standing.cause(alloc);
        tracing::debug!(alloc_id = %alloc, state = state_word(gathered.report.state), result = word,
            request_id = cause.request_id, trace_id = cause.trace_id, "report answered");
        for state in &gathered.states {
            let ack = v1::ReportAck {
                alloc_id: alloc.to_string(),
                state: state_word(*state).to_owned(),
                accepted,
            };
            self.outbox.send(server_message::Message::ReportAck(ack)).await?;
        }
        Ok(())
    }

    /// Sends all orders that stand, then every change.
    async fn order(&self) -> End {
        match self.order_until_it_ends().await {
            Ok(end) | Err(end) => end,
        }
    }

    async fn order_until_it_ends(&self) -> Result<End, End> {
        let mut desired = Desired::default();
        let mut watch = self.first_orders(&mut desired).await?;
        loop {
            let words = match watch.recv().await {
                None => return Ok(End::Stopping),
                Some(WatchEvent::Changes(changes)) => desired.changes(changes.iter().map(told)),
                Some(WatchEvent::Resync) => {
                    let (words, again) = self.read_orders(&mut desired).await;
                    watch = again;
                    words
                }
            };
            for word in words {
                match word {
                    Word::Order(allocation) => {
                        self.stand(&allocation);
                        self.send_order(&allocation).await?;
                    }
                    Word::Vanished(alloc) => {
                        self.standing.vanished(&alloc);
                        self.on_vanished(alloc).await?;
                    }
                    Word::Unreadable { key, error } => unreadable(&key, &error),
                }
            }
        }
    }

    async fn first_orders(&self, desired: &mut Desired) -> Result<Watch, End> {
        let (words, watch) = self.read_orders(desired).await;
        let mut standing = BTreeSet::new();
        let mut orders = Vec::new();
        for word in words {
            let allocation = match word {
                Word::Order(allocation) => allocation,
                Word::Unreadable { key, error } => {
                    unreadable(&key, &error);
                    continue;
                }
                Word::Vanished(_) => continue,
            };
            standing.insert(allocation.id.clone());
            self.stand(&allocation);
            orders.extend(self.compose(&allocation).await);
        }
        self.fleet.metrics.orders.inc_by(orders.len() as u64);
        let (first, later) = orders::split(orders, &self.held);
        let first = server_message::Message::Orders(v1::Orders { orders: first });
        self.outbox.send(first).await?;
        for order in later {
            self.outbox.send(server_message::Message::Order(order)).await?;
        }
        for alloc in self.held.iter().filter(|a| !standing.contains(*a)) {
            self.forget_unless_folded(alloc.clone()).await?;
        }
        Ok(watch)
    }

    /// Reads all orders and watches from there; tries until the store answers.
    async fn read_orders(&self, desired: &mut Desired) -> (Vec<Word>, Watch) {
        let store = self.fleet.store.as_ref();
        let prefix = model::key::allocs_of(&self.node);
        let mut pauses = Pauses::default();
        loop {
            let read = async {
                let (entries, revision) = read_all(store, &prefix).await?;
                let watch = store.watch(&prefix, revision).await?;
                Ok::<_, StoreError>((entries, revision, watch))
            };
            match read.await {
                Ok((entries, revision, watch)) => {
                    let records = entries
                        .iter()
                        .map(|e| (e.key.as_str(), e.value.as_slice(), e.mod_revision.0));
                    return (desired.whole(records, revision.0), watch);
                }
                Err(error) => {
                    tracing::warn!(node_id = %self.node, %error, "orders not read yet");
                    pauses.wait().await;
                }
            }
        }
    }

    /// From here on reports of the order are filed without reading the store, unless an earlier
    /// session may have filed some.
    fn stand(&self, allocation: &Allocation) {
        self.standing.order(allocation, self.held.contains(&allocation.id));
    }

    async fn send_order(&self, allocation: &Allocation) -> Result<(), End> {
        if let Some(order) = self.compose(allocation).await {
            self.fleet.metrics.orders.inc();
            self.outbox.send(server_message::Message::Order(order)).await?;
        }
        Ok(())
    }

    /// The order for an allocation; `None` when it never can be written, which is then filed.
    async fn compose(&self, allocation: &Allocation) -> Option<v1::Order> {
        let store = self.fleet.store.as_ref();
        let mut pauses = Pauses::default();
        loop {
            let tried = match orders::compose(store, &self.fleet.definitions, allocation).await {
                Ok(order) => {
                    self.log_order(&order, allocation);
                    return Some(order);
                }
                Err(OrderError::Undeliverable(_)) if self.held.contains(&allocation.id) => {
                    return Some(orders::brief(allocation));
                }
                Err(OrderError::Undeliverable(message)) => {
                    tracing::error!(alloc_id = %allocation.id, message, "order cannot be sent");
                    filing::file_undeliverable(store, allocation, message, now_ms()).await
                }
                Err(OrderError::Store(error)) => Err(error),
            };
            let Err(error) = tried else { return None };
            tracing::warn!(alloc_id = %allocation.id, %error, "order not written yet");
            pauses.wait().await;
        }
    }

    fn log_order(&self, order: &v1::Order, allocation: &Allocation) {
        let cause = Cause {
            request_id: order.request_id.clone(),
            trace_id: crate::trace::trace_id(&order.traceparent).to_owned(),
        };
        tracing::info!(node_id = %self.node, run_id = %allocation.run, step = allocation.step, alloc_id = %allocation.id,
            stop = order.stop, request_id = cause.request_id, trace_id = cause.trace_id, "order goes to its node");
        self.standing.caused(&allocation.id, cause);
    }

    /// An allocation is not ordered any more: the agent drops it, unless it owes its log.
    async fn on_vanished(&self, alloc: AllocId) -> Result<(), End> {
        let known = self.leaving().vanished(&alloc);
        match known {
            Gone::Finished => self.forget(&alloc).await,
            Gone::OwesLog => Ok(()),
            Gone::Unknown => self.forget_unless_folded(alloc).await,
        }
    }

    /// Drops what never ended. What did may owe its log, and the agent offers that by itself.
    async fn forget_unless_folded(&self, alloc: AllocId) -> Result<(), End> {
        let mut pauses = Pauses::default();
        let folded = loop {
            match filing::was_folded(self.fleet.store.as_ref(), &alloc).await {
                Ok(folded) => break folded,
                Err(error) => {
                    tracing::warn!(alloc_id = %alloc, %error, "step not read yet");
                    pauses.wait().await;
                }
            }
        };
        if folded { Ok(()) } else { self.forget(&alloc).await }
    }

    async fn forget(&self, alloc: &AllocId) -> Result<(), End> {
        let forget = v1::Forget {
            alloc_id: alloc.to_string(),
        };
        self.outbox.send(server_message::Message::Forget(forget)).await
    }

    /// Opens logs, several at once.
    async fn open_logs(&self, mut opens: mpsc::UnboundedReceiver<AllocId>) -> End {
        let mut opening = FuturesUnordered::new();
        loop {
            tokio::select! {
                Some(alloc) = opens.recv(), if opening.len() < OPENING_MAX => opening.push(self.open_one(alloc)),
                Some(opened) = opening.next() => if let Err(end) = opened {
                    return end;
                },
                else => return End::Left,
            }
        }
    }

    async fn open_one(&self, alloc: AllocId) -> Result<(), End> {
        let mut pauses = Pauses::default();
        loop {
            match self.may_write_log(&alloc).await {
                Ok(true) => match self.open_in_hub(&alloc).await {
                    Ok(writer) => {
                        self.logs().insert(alloc, Slot::Open(writer));
                        return Ok(());
                    }
                    Err(error @ (LogError::Blobs(_) | LogError::Short { .. })) => {
                        tracing::warn!(alloc_id = %alloc, %error, "log not opened yet");
                    }
                    Err(LogError::NoAllocation(_)) => break,
                },
                Ok(false) => break,
                Err(error) => tracing::warn!(alloc_id = %alloc, %error, "log not opened yet"),
            }
            pauses.wait().await;
        }
        self.logs().remove(&alloc);
        self.forget(&alloc).await
    }

    async fn open_in_hub(&self, alloc: &AllocId) -> Result<LogWriter, LogError> {
        if self.standing.takes_new_log(alloc) {
            self.fleet.logs.open_first(alloc, self.board.clone()).await
        } else {
            self.fleet.logs.open(alloc, self.board.clone()).await
        }
    }

    async fn may_write_log(&self, alloc: &AllocId) -> Result<bool, StoreError> {
        if self.standing.stands(alloc) {
            return Ok(true);
        }
        filing::may_write_log(self.fleet.store.as_ref(), &self.node, alloc).await
    }

    /// Tells the node what is stored of its logs.
    async fn tell_of_logs(&self) -> End {
        loop {
            for reply in self.board.next().await {
                let mut finished = None;
                let message = match reply {
                    Reply::From { alloc, offset } => server_message::Message::LogFrom(v1::LogFrom {
                        alloc_id: alloc.to_string(),
                        offset,
                    }),
                    Reply::Ack {
                        alloc,
                        offset,
                        complete,
                    } => {
                        if complete {
                            self.logs().remove(&alloc);
                            finished = self.leaving().whole(&alloc).then(|| alloc.clone());
                        }
                        server_message::Message::LogAck(v1::LogAck {
                            alloc_id: alloc.to_string(),
                            offset,
                            complete,
                        })
                    }
                };
                if let Err(end) = self.tell(message, finished).await {
                    return end;
                }
            }
        }
    }

    async fn tell(&self, message: server_message::Message, finished: Option<AllocId>) -> Result<(), End> {
        self.outbox.send(message).await?;
        match finished {
            Some(alloc) => self.forget(&alloc).await,
            None => Ok(()),
        }
    }
}

/// A change as the state machine takes it.
fn told(change: &store::Change) -> (&str, Option<&[u8]>, u64) {
    (&change.key, change.value.as_deref(), change.revision.0)
}

fn unreadable(key: &str, error: &model::RecordError) {
    tracing::error!(key, %error, "allocation record does not decode, its order is not sent");
}

/// Growing pauses between tries.
#[derive(Default)]
pub(super) struct Pauses {
    last: Option<Duration>,
}

impl Pauses {
    pub(super) async fn wait(&mut self) {
        let (first, longest) = RETRY_PAUSES;
        let pause = self.last.map_or(first, |last| (last * 2).min(longest));
        self.last = Some(pause);
        tokio::time::sleep(pause).await;
    }
}

/// Counts a session while it lasts.
struct Counted<'a>(&'a Inner);

impl<'a> Counted<'a> {
    fn new(fleet: &'a Inner) -> Self {
        fleet.metrics.sessions.inc();
        Self(fleet)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.metrics.sessions.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_takes_nothing_is_given_up() {
        let (sender, mut receiver) = mpsc::channel(1);
        let outbox = Outbox::new(sender);
        let message = || server_message::Message::RenewAck(v1::RenewAck { sequence: 1 });
        assert!(outbox.send(message()).await.is_ok());
        let began = Instant::now();
        let end = outbox.send(message()).await.expect_err("nobody reads");
        assert!(matches!(end, End::Stuck) && began.elapsed() >= STUCK_AFTER, "{end}");
        receiver.recv().await;
        outbox.close(&end);
        let last = receiver.recv().await.expect("the reason").expect_err("a status");
        assert_eq!(last.code(), tonic::Code::ResourceExhausted);
    }
}
