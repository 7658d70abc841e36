//! The filing stage that all sessions of a server share: reports of many nodes go into the store in
//! few transactions.
//!
//! A report is filed at once while the store is quick; while it is busy, what comes meanwhile waits
//! here, one entry for each allocation however often its node repeats itself, and goes with the
//! next batch. An end that arrives before the beginning was filed costs one write. Not here: what
//! a single report needs (`filing`, `standing`), what the node is told (`session`).

use super::filing::{self, Filed, Looked};
use super::metrics::FleetMetrics;
use super::session::Pauses;
use super::standing::{Quick, Standing};
use api_core::fleet::{Gathered, Verdict};
use model::{AllocId, NodeId, Observed};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use store::{Commit, Store, StoreError, Txn};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Most batches in flight: with more the batches only get smaller, on an engine that orders all writes.
const FILERS: usize = 2;

/// Most reports of one batch.
const BATCH: usize = 1_000;

/// Most bytes of reports in one batch, roughly: one may have 64 KiB.
const BATCH_BYTES: usize = 4 << 20;

/// Most allocations of one node of which reports or answers wait, so that a hostile node costs
/// 64 MiB at most. What is dropped comes again.
const WAITING_MAX: usize = 1_024;

/// How long a batch may take before it is tried again; it may have been applied.
const COMMIT_WAIT: Duration = Duration::from_secs(10);

/// One session's place at the desk.
pub(super) struct Client {
    serial: u64,
    node: NodeId,
    standing: Arc<Standing>,
    /// Entries that wait or are being filed.
    open: AtomicUsize,
    gone: AtomicBool,
    answers: Mutex<BTreeMap<AllocId, (Gathered, Filed)>>,
    wake: Notify,
}

impl Client {
    /// Adds what the node is to be told of a report; a newer word on the same allocation wins.
    pub(super) fn answer(&self, gathered: Gathered, filed: Filed) {
        {
            let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((there, word)) = answers.get_mut(&gathered.report.alloc) {
                there.states.extend(gathered.states);
                *word = filed;
            } else if answers.len() < 2 * WAITING_MAX {
                answers.insert(gathered.report.alloc.clone(), (gathered, filed));
            }
        }
        self.wake.notify_one();
    }

    /// All answers that wait; waits for one if there is none.
    pub(super) async fn answers(&self) -> Vec<(Gathered, Filed)> {
        loop {
            let taken = std::mem::take(&mut *self.answers.lock().unwrap_or_else(PoisonError::into_inner));
            if !taken.is_empty() {
                return taken.into_values().collect();
            }
            self.wake.notified().await;
        }
    }
}

/// A session's hold on the desk; what waits is dropped with it.
pub(super) struct Visit(pub(super) Arc<Client>);

impl Drop for Visit {
    fn drop(&mut self) {
        self.0.gone.store(true, Ordering::Relaxed);
    }
}

type Slot = (u64, AllocId);

struct Paper {
    client: Arc<Client>,
    gathered: Gathered,
}

#[derive(Default)]
struct Queue {
    papers: HashMap<Slot, Paper>,
    /// Oldest first.
    order: VecDeque<Slot>,
    /// Of these one is being filed: the next must know what became of it.
    busy: HashSet<AllocId>,
    /// What waits for those.
    parked: HashMap<AllocId, Vec<Slot>>,
}

/// The stage.
pub(super) struct Desk {
    store: Arc<dyn Store>,
    metrics: FleetMetrics,
    queue: Mutex<Queue>,
    wake: Notify,
    serials: AtomicU64,
}

impl Desk {
    pub(super) fn new(store: Arc<dyn Store>, metrics: FleetMetrics) -> Arc<Self> {
        Arc::new(Self {
            store,
            metrics,
            queue: Mutex::default(),
            wake: Notify::new(),
            serials: AtomicU64::new(0),
        })
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a session.
    pub(super) fn client(&self, node: &NodeId, standing: Arc<Standing>) -> Arc<Client> {
        Arc::new(Client {
            serial: self.serials.fetch_add(1, Ordering::Relaxed),
            node: node.clone(),
            standing,
            open: AtomicUsize::new(0),
            gone: AtomicBool::new(false),
            answers: Mutex::default(),
            wake: Notify::new(),
        })
    }

    /// Adds a report. False: there is no room; the node sends it again.
    pub(super) fn add(&self, client: &Arc<Client>, report: Observed) -> bool {
        let slot = (client.serial, report.alloc.clone());
        let mut queue = self.queue();
        if let Some(paper) = queue.papers.get_mut(&slot) {
            paper.gathered.merge(report);
            return true;
        }
        if client.open.load(Ordering::Relaxed) >= WAITING_MAX {
            return false;
        }
        client.open.fetch_add(1, Ordering::Relaxed);
        let gathered = Gathered::new(report);
        let client = client.clone();
        queue.papers.insert(slot.clone(), Paper { client, gathered });
        queue.order.push_back(slot);
        drop(queue);
        self.wake.notify_one();
        true
    }

    /// Files until `shutdown`; what waits then comes again, to another server.
    pub(super) async fn work(self: Arc<Self>, shutdown: CancellationToken) {
        let filers = (0..FILERS).map(|_| self.file_on());
        tokio::select! {
            () = shutdown.cancelled() => {}
            _ = futures::future::join_all(filers) => {}
        }
    }

    async fn file_on(&self) {
        loop {
            let papers = self.take();
            if papers.is_empty() {
                self.wake.notified().await;
                continue;
            }
            // There may be more than one filer takes.
            self.wake.notify_one();
            self.file(papers).await;
        }
    }

    fn take(&self) -> Vec<Paper> {
        let mut queue = self.queue();
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while taken.len() < BATCH && bytes < BATCH_BYTES {
            let Some(slot) = queue.order.pop_front() else { break };
            if queue.busy.contains(&slot.1) {
                queue.parked.entry(slot.1.clone()).or_default().push(slot);
                continue;
            }
            let Some(paper) = queue.papers.remove(&slot) else {
                continue;
            };
            paper.client.open.fetch_sub(1, Ordering::Relaxed);
            if paper.client.gone.load(Ordering::Relaxed) {
                continue;
            }
            bytes += paper.gathered.size();
            queue.busy.insert(slot.1);
            taken.push(paper);
        }
        taken
    }

    /// Lets the next report of these allocations be taken.
    fn release(&self, allocs: &[AllocId]) {
        let mut queue = self.queue();
        for alloc in allocs {
            queue.busy.remove(alloc);
            let parked = queue.parked.remove(alloc).unwrap_or_default();
            queue.order.extend(parked);
        }
        drop(queue);
        self.wake.notify_one();
    }

    /// Files and answers; tries until the store answers.
    async fn file(&self, papers: Vec<Paper>) {
        let allocs: Vec<AllocId> = papers.iter().map(|p| p.gathered.report.alloc.clone()).collect();
        let timer = self.metrics.filed_seconds.start_timer();
        let mut pauses = Pauses::default();
        let mut left = papers;
        while !left.is_empty() {
            left.retain(|paper| !paper.client.gone.load(Ordering::Relaxed));
            match self.file_once(&left).await {
                Ok(results) => {
                    for (paper, filed) in left.drain(..).zip(results) {
                        paper.client.answer(paper.gathered, filed);
                    }
                }
                Err(error) => {
                    tracing::warn!(reports = left.len(), %error, "reports not filed yet");
                    pauses.wait().await;
                }
            }
        }
        timer.observe_duration();
        self.release(&allocs);
    }

    async fn file_once(&self, papers: &[Paper]) -> Result<Vec<Filed>, StoreError> {
        let mut results = vec![Filed::Undecided; papers.len()];
        let (mut txns, mut quick, mut slow) = (Vec::new(), Vec::new(), Vec::new());
        for (index, paper) in papers.iter().enumerate() {
            let report = &paper.gathered.report;
            match paper.client.standing.quick(report) {
                Quick::Known => results[index] = Filed::Accepted(Verdict::Known),
                Quick::File(before) => {
                    txns.push(filing::txn(&paper.client.node, report, before));
                    quick.push(index);
                }
                Quick::Read => slow.push(index),
            }
        }
        let commits = self.commit(txns).await?;
        for (index, commit) in quick.into_iter().zip(commits) {
            match commit {
                Commit::Applied(revision) => {
                    papers[index].filed(revision);
                    results[index] = Filed::Accepted(Verdict::File);
                }
                Commit::Refused { .. } => slow.push(index),
            }
        }
        if slow.is_empty() {
            return Ok(results);
        }
        self.metrics.filing_read.inc_by(slow.len() as u64);
        let asked: Vec<_> = slow.iter().map(|&i| papers[i].question()).collect();
        let looked = filing::file(self.store.as_ref(), &asked).await?;
        for (index, Looked { filed, stored }) in slow.into_iter().zip(looked) {
            if let Some((state, revision)) = stored {
                let paper = &papers[index];
                paper
                    .client
                    .standing
                    .filed(&paper.gathered.report.alloc, state, revision);
            }
            results[index] = filed;
        }
        Ok(results)
    }

    async fn commit(&self, txns: Vec<Txn>) -> Result<Vec<Commit>, StoreError> {
        if txns.is_empty() {
            return Ok(Vec::new());
        }
        self.metrics.filing_batches.inc();
        self.metrics.filing_txns.inc_by(txns.len() as u64);
        let committed = tokio::time::timeout(COMMIT_WAIT, self.store.commit_batch(Vec::new(), txns)).await;
        committed.unwrap_or_else(|_| Err(StoreError::Unavailable("filing took too long".to_owned())))
    }
}

impl Paper {
    fn question(&self) -> (&NodeId, &Observed) {
        (&self.client.node, &self.gathered.report)
    }

    fn filed(&self, revision: store::Revision) {
        let report = &self.gathered.report;
        self.client.standing.filed(&report.alloc, report.state, revision);
    }
}
