//! The loop: take what has changed; if we lead, plan, verify, commit and confirm until there is
//! nothing left to do; wait for the next change or the period.
//!
//! A commit whose outcome is unknown, a broken watch or a failing store all have the same cure: the
//! view is thrown away and built anew from the store.
//!
//! What may be on its way at a time, and what ends a term, are the rules of [`scheduler::term`].
//!
//! Not here: any decision.

use crate::SchedulerConfig;
use crate::backoff::Backoff;
use crate::clock::Clocks;
use crate::commit::{Answer, Broken, commit};
use crate::compaction::Compaction;
use crate::feed::{self, Feed, read_at_takeover, tell};
use crate::metrics::Metrics;
use futures::future::BoxFuture;
use futures::stream::{self, FuturesUnordered};
use futures::{FutureExt, StreamExt};
use model::RunId;
use scheduler::term::{BATCHES_MAX, Heard, May, Term};
use scheduler::{Action, Cluster, Explanation, Ticket, Transition};
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::{Guard, Revision, Store, StoreError};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// After so many plans in a row that were refused throughout, although what stood in their way was
/// read again each time, the loop waits for the next change or the period.
const FRUITLESS_MAX: u32 = 3;

/// Keys that are read again at the same moment.
const READS_IN_FLIGHT: usize = 16;

/// A batch whose answer has come.
struct Sent {
    tickets: Vec<Ticket>,
    started: Instant,
    answer: Result<Answer, StoreError>,
}

type Commits = FuturesUnordered<BoxFuture<'static, Sent>>;

/// What became of a plan at first.
enum Next {
    /// It is on its way.
    Sent(BoxFuture<'static, Sent>),
    /// Nothing of it stood up to the newest view.
    Refused,
    /// There is nothing to do, or it is not ours to do.
    Nothing,
}

/// Somebody wants to know where a step is.
pub(crate) struct Question {
    pub(crate) run: RunId,
    pub(crate) step: usize,
    pub(crate) answer: oneshot::Sender<Option<Explanation>>,
}

/// Why the view has to be built anew.
enum Interrupted {
    Feed,
    Store(StoreError),
}

impl From<feed::Broken> for Interrupted {
    fn from(_: feed::Broken) -> Self {
        Self::Feed
    }
}

impl From<StoreError> for Interrupted {
    fn from(cause: StoreError) -> Self {
        Self::Store(cause)
    }
}

/// What the loop is told from outside.
pub(crate) struct Told {
    /// The revision of our own key while we hold it.
    pub(crate) standing: watch::Receiver<Option<Revision>>,
    pub(crate) questions: mpsc::Receiver<Question>,
    pub(crate) shutdown: CancellationToken,
}

/// What the loop tells.
pub(crate) struct Tells {
    /// The key of this revision is of no use any more.
    pub(crate) deposed: watch::Sender<Revision>,
    /// Who leads.
    pub(crate) leader_name: watch::Sender<Option<String>>,
}

/// The loop of one server's scheduler.
pub(crate) struct Work {
    store: Arc<dyn Store>,
    config: SchedulerConfig,
    metrics: Arc<Metrics>,
    told: Told,
    tells: Tells,
    clocks: Clocks,
    compaction: Compaction,
    cluster: Cluster,
    backoff: Backoff,
    term: Term,
}

impl Work {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        config: SchedulerConfig,
        metrics: Arc<Metrics>,
        told: Told,
        tells: Tells,
    ) -> Self {
        Self {
            clocks: Clocks::start(config.wall_clock),
            compaction: Compaction::new(),
            store,
            config,
            metrics,
            told,
            tells,
            cluster: Cluster::new(),
            backoff: Backoff::new(),
            term: Term::default(),
        }
    }

    /// Works until the shutdown.
    pub(crate) async fn run(mut self) {
        while !self.told.shutdown.is_cancelled() {
            let Err(interrupted) = self.work_on_a_view().await else {
                return;
            };
            let spent = self.term.drop_view();
            self.give_up(spent);
            let wait = match interrupted {
                Interrupted::Feed => {
                    tracing::warn!("the view fell behind the store, building it anew");
                    Duration::ZERO
                }
                Interrupted::Store(cause) => {
                    tracing::warn!(error = %cause, "the store failed, building the view anew");
                    self.backoff.failed()
                }
            };
            self.metrics.rebuilds.inc();
            tokio::select! {
                () = self.told.shutdown.cancelled() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Builds a view and works on it; returns `Ok` at the shutdown.
    async fn work_on_a_view(&mut self) -> Result<(), Interrupted> {
        self.cluster = Cluster::with_lease(self.config.lease);
        let shutdown = self.told.shutdown.clone();
        let leader_name = self.tells.leader_name.clone();
        let mut feed = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            feed = Feed::open(self.store.as_ref(), &mut self.cluster, leader_name) => feed?,
        };
        let mut period = tokio::time::interval(Duration::from_millis(self.config.period_ms));
        period.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let moment = self.next_moment();
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                taken = feed.take(&mut self.cluster) => taken?,
                Some(question) = self.told.questions.recv() => self.answer(question),
                changed = self.told.standing.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                }
                () = moment => {}
                _ = period.tick() => {}
            }
            self.act(&mut feed).await?;
            self.tell_metrics();
        }
    }

    /// Returns when something is to be done although nothing changes; never for one who does not lead.
    fn next_moment(&self) -> impl Future<Output = ()> + use<> {
        let leads = self.term.has_begun(self.told.standing.borrow().map(|key| key.0));
        let wake_ms = self.cluster.next_wake_ms(self.clocks.wall_ms()).filter(|_| leads);
        async move {
            match wake_ms {
                Some(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
                None => std::future::pending().await,
            }
        }
    }

    /// Everything that can be done now, if we lead.
    ///
    /// While one batch is on its way the next one is planned on what is confirmed and reserved by
    /// then, and goes after it without waiting; what comes meanwhile gathers for the one after that.
    async fn act(&mut self, feed: &mut Feed) -> Result<(), Interrupted> {
        self.cluster.tick(self.clocks.steady_ms());
        if self.told.standing.borrow().is_none() {
            self.cluster.follow(self.clocks.wall_ms());
        }
        let mut commits = Commits::new();
        let worked = self.commit_all(feed, &mut commits).await;
        if matches!(worked, Err(Interrupted::Store(StoreError::Full(_)))) {
            // What is still on its way is answered soon, and nothing of it comes later: the term goes on,
            // for who would have the store forget its past if nobody led?
            while let Some(sent) = commits.next().await {
                // Told already; an outcome that is unknown ends the term all the same.
                drop(self.settle(sent).await);
            }
        }
        worked
    }

    async fn commit_all(&mut self, feed: &mut Feed, commits: &mut Commits) -> Result<(), Interrupted> {
        let mut fruitless = 0;
        loop {
            while fruitless < FRUITLESS_MAX {
                match self.next_commit(feed).await? {
                    Next::Sent(commit) => commits.push(commit),
                    Next::Refused => fruitless += 1,
                    Next::Nothing => break,
                }
            }
            let room = commits.len() < BATCHES_MAX;
            tokio::select! {
                biased;
                sent = commits.next() => {
                    let Some(sent) = sent else { return Ok(()) };
                    let progress = self.settle(sent).await?;
                    fruitless = if progress == 0 { fruitless + 1 } else { 0 };
                    self.tell_metrics();
                }
                taken = feed.take(&mut self.cluster), if room => taken?,
            }
            feed.drain(&mut self.cluster)?;
            while let Ok(question) = self.told.questions.try_recv() {
                self.answer(question);
            }
        }
    }

    /// Plans, and begins to commit what stands up to the newest view.
    async fn next_commit(&mut self, feed: &mut Feed) -> Result<Next, Interrupted> {
        if self.told.shutdown.is_cancelled() {
            return Ok(Next::Nothing);
        }
        let standing = *self.told.standing.borrow_and_update();
        let leader = match self.term.may(standing.map(|key| key.0)) {
            May::Nothing => return Ok(Next::Nothing),
            May::Begin(key) => {
                self.begin_term(key).await?;
                Revision(key)
            }
            May::Commit(key) => Revision(key),
        };
        self.compaction.look(&self.store, feed.newest(), feed.heard_bytes());
        let started = Instant::now();
        self.cluster.tick(self.clocks.steady_ms());
        let plan = self.cluster.plan(self.clocks.wall_ms());
        if plan.proposals.is_empty() {
            return Ok(Next::Nothing);
        }
        feed.drain(&mut self.cluster)?;
        let (verified, refused) = self.cluster.verify(&plan);
        for refused in &refused {
            self.metrics.refused.inc();
            tracing::debug!(reason = %refused.refusal, "proposal refused by the newest view");
        }
        if verified.is_empty() {
            return Ok(Next::Refused);
        }
        let tickets = verified.iter().map(|v| v.ticket).collect();
        let store = Arc::clone(&self.store);
        let commit = async move {
            let answer = commit(store.as_ref(), leader, verified).await;
            Sent {
                tickets,
                started,
                answer,
            }
        };
        self.term.sent();
        Ok(Next::Sent(commit.boxed()))
    }

    /// Reads what only a leader has to know. Everything else is in the view already.
    async fn begin_term(&mut self, key: u64) -> Result<(), StoreError> {
        let started = Instant::now();
        read_at_takeover(self.store.as_ref(), &mut self.cluster).await?;
        let began_ms = self.term.begin(key, self.clocks.steady_ms());
        self.cluster.begin_term(began_ms);
        self.metrics.takeover_seconds.observe(started.elapsed().as_secs_f64());
        Ok(())
    }

    /// Has the election give the key of this revision back, if there is one.
    fn give_up(&self, key: Option<u64>) {
        if let Some(key) = key {
            self.tells.deposed.send_replace(Revision(key));
        }
    }

    /// Takes the answer to a batch into the view; answers how many of its actions were applied.
    async fn settle(&mut self, sent: Sent) -> Result<usize, Interrupted> {
        let heard = heard(&sent.answer);
        if heard == Heard::Full {
            self.compaction.hurry();
        }
        let spent = self.term.heard(heard);
        self.give_up(spent);
        match sent.answer? {
            Answer::Deposed => {
                self.metrics.refused.inc_by(sent.tickets.len() as u64);
                tracing::warn!("the leader's key is not ours any more");
                for ticket in sent.tickets {
                    self.cluster.refuse(ticket);
                }
                Ok(0)
            }
            Answer::Each(each) => {
                self.backoff.worked();
                let elapsed = sent.started.elapsed();
                let mut applied = 0;
                let mut doubtful = Vec::new();
                for (ticket, result) in each {
                    match result {
                        Ok(revision) => {
                            applied += 1;
                            self.confirm(ticket, revision, elapsed);
                        }
                        Err(broken) => {
                            self.metrics.refused.inc();
                            self.cluster.refuse(ticket);
                            doubtful.extend(self.learn(broken));
                        }
                    }
                }
                self.read_again(doubtful).await?;
                Ok(applied)
            }
        }
    }

    /// Takes what was found under the key of a broken guard, so that the next plan knows; answers the
    /// guard if nothing was, for then it is not known since when.
    fn learn(&mut self, Broken { guard, found }: Broken) -> Option<Guard> {
        let Some(found) = found else { return Some(guard) };
        tell(&mut self.cluster, &found.key, Some(&found.value), found.mod_revision);
        None
    }

    fn confirm(&mut self, ticket: Ticket, revision: Revision, elapsed: Duration) {
        match self.cluster.proposed(ticket) {
            Some(Action::Clean { run, step, reason, .. }) => {
                tracing::warn!(run_id = %run, step, reason, "stale order or report removed");
            }
            Some(Action::Stop { alloc, .. }) => {
                let (run, node) = (&alloc.run, &alloc.node);
                tracing::info!(run_id = %run, step = alloc.step, alloc_id = %alloc.id, node_id = %node, "attempt told to stop");
            }
            Some(Action::DropRequest { id, .. }) => tracing::info!(request = id, "request carried out"),
            Some(Action::Attend { id, node, next, .. }) => {
                let (cordoned, drained) = (next.is_some(), next.as_ref().is_some_and(|n| n.drain.is_some()));
                tracing::info!(request = id, node_id = %node, cordoned, drained, "node request carried out");
            }
            Some(Action::Lose { alloc, .. }) => {
                tracing::warn!(node_id = %alloc.node, alloc_id = %alloc.alloc, "attempt given up with its node");
            }
            Some(Action::Fold { .. } | Action::End(_) | Action::Start { .. } | Action::Place { .. }) | None => {}
        }
        if let Some(transition) = self.cluster.confirm(ticket, revision.0) {
            self.metrics.count(&transition);
            if transition.waited_ms.is_some() {
                self.metrics.placement_seconds.observe(elapsed.as_secs_f64());
            }
            log(&transition);
        }
    }

    /// Reads what stands under the keys of broken guards, so that the next plan knows.
    async fn read_again(&mut self, mut guards: Vec<Guard>) -> Result<(), StoreError> {
        guards.sort_by(|a, b| a.key.cmp(&b.key));
        guards.dedup_by(|a, b| a.key == b.key);
        let store = Arc::clone(&self.store);
        let reads = guards.into_iter().map(|Guard { key, expect }| {
            tracing::debug!(key, ?expect, "commit refused, reading the key again");
            let store = Arc::clone(&store);
            async move { store.range(&key, None, 1).await.map(|page| (key, page)) }
        });
        let mut reads = stream::iter(reads).buffer_unordered(READS_IN_FLIGHT);
        while let Some(read) = reads.next().await {
            let (key, page) = read?;
            match page.entries.first().filter(|e| e.key == key) {
                Some(entry) => tell(&mut self.cluster, &key, Some(&entry.value), entry.mod_revision),
                None => tell(&mut self.cluster, &key, None, page.revision),
            }
        }
        Ok(())
    }

    fn answer(&mut self, question: Question) {
        let explanation = self
            .cluster
            .explain(&question.run, question.step, self.clocks.wall_ms());
        // Who asked may have gone.
        let _ = question.answer.send(explanation);
    }

    fn tell_metrics(&self) {
        let gauge = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        self.metrics.queue_length.set(gauge(self.cluster.queue_len()));
        self.metrics.live_runs.set(gauge(self.cluster.live_runs()));
        self.metrics.malformed.set(gauge(self.cluster.malformed().len()));
    }
}

fn heard(answer: &Result<Answer, StoreError>) -> Heard {
    match answer {
        Ok(Answer::Each(_)) => Heard::Answer,
        Ok(Answer::Deposed) => Heard::Deposed,
        Err(StoreError::Full(_)) => Heard::Full,
        Err(_) => Heard::Unknown,
    }
}

/// One line for each transition of a step.
fn log(transition: &Transition) {
    let Transition {
        run,
        step,
        name,
        from,
        to,
        attempt,
        alloc,
        node,
        reason,
        ..
    } = transition;
    tracing::info!(
        run_id = %run,
        step,
        name,
        from = from.as_str(),
        to = to.as_str(),
        attempt,
        alloc_id = alloc.as_ref().map(tracing::field::display),
        node_id = node.as_ref().map(tracing::field::display),
        reason = reason.as_deref(),
        "step changed status"
    );
}
