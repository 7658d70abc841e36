//! Runs the pure scheduler against the live store: one server leads, all keep a warm view.
//!
//! Three parts: the election ([`election`](self)) holds the `leader` key under a lease; the feed
//! keeps a [`scheduler::Cluster`] up to date by watches; the loop plans, verifies, commits under the
//! leader's own key and confirms. Every commit is guarded by that key's revision, so a leader that
//! was paused and woke up commits nothing. The loop starts from the whole view and may run twice:
//! it wakes on changes and on a period.
//!
//! Not here: any decision (`scheduler`), nodes' streams and requests of people (`api`).

mod backoff;
mod clock;
mod commit;
mod compaction;
mod election;
mod feed;
mod metrics;
mod work;

pub use crate::clock::WallClock;
use crate::metrics::Metrics;
use crate::work::{Question, Work};
use model::{RunId, StepRecord, key};
pub use scheduler::LeaseTimes;
use scheduler::{Explanation, Verdict};
use std::sync::Arc;
use std::time::Duration;
use store::{Revision, Store};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

/// How long a leader that fell silent is believed in, milliseconds: the next placement after a
/// leader was killed comes within this and a little more.
pub const ELECTION_TTL_MS: u64 = 2_000;

/// The loop looks at everything at least this often, milliseconds, should a signal be lost.
pub const PERIOD_MS: u64 = 1_000;

/// What [`SchedulerConfig::handover_ms`] is where there are several servers: some times what a
/// successor needs under load.
pub const HANDOVER_MS: u64 = 1_000;

/// How long the rest of a server waits for its scheduler to end: a store that does not answer keeps
/// nobody.
const HANDOVER_TIMEOUT: Duration = Duration::from_secs(3);

/// The most questions that wait for the loop; more are answered with "not known".
pub const QUESTIONS_MAX: usize = 64;

/// How long a question waits for its answer.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(2);

/// How the scheduler of one server runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchedulerConfig {
    /// Written into the leader's key, for people.
    pub server_name: String,
    /// The election lease, milliseconds.
    pub election_ttl_ms: u64,
    /// The longest time between two looks at everything, milliseconds.
    pub period_ms: u64,
    /// What the nodes' agents go by: when a silent node is given up follows from it.
    pub lease: LeaseTimes,
    /// How long a leader that stops waits for the next one after it has given its key back,
    /// milliseconds: who ends the streams of nodes only then keeps their coming over out of the next
    /// leader's way. 0 where nobody else could lead.
    pub handover_ms: u64,
    /// Which clock stamps records.
    pub wall_clock: WallClock,
}

impl SchedulerConfig {
    /// The usual times for the server of this name.
    #[must_use]
    pub fn new(server_name: impl Into<String>) -> Self {
        Self {
            server_name: server_name.into(),
            election_ttl_ms: ELECTION_TTL_MS,
            period_ms: PERIOD_MS,
            lease: LeaseTimes::default(),
            handover_ms: 0,
            wall_clock: WallClock::System,
        }
    }
}

/// Starts the scheduler of a server.
#[derive(Debug, Clone, Copy)]
pub struct Scheduler;

impl Scheduler {
    /// Starts the tasks of this server's scheduler on the current tokio runtime; they end after
    /// `shutdown` is cancelled. The leader's key is given back then, so another server leads at once.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(store: Arc<dyn Store>, config: SchedulerConfig, shutdown: CancellationToken) -> SchedulerHandle {
        let metrics = Arc::new(Metrics::new());
        let (standing_in, standing) = watch::channel(None);
        let (leader_name_in, leader_name) = watch::channel(None);
        let (questions_in, questions) = mpsc::channel(QUESTIONS_MAX);
        let (ended_in, ended) = watch::channel(false);
        let (deposed_in, deposed) = watch::channel(Revision(0));
        let work_ended = CancellationToken::new();
        let election = election::Election {
            store: Arc::clone(&store),
            config: config.clone(),
            standing: standing_in,
            deposed,
            metrics: Arc::clone(&metrics),
            shutdown: shutdown.clone(),
            work_ended: work_ended.clone(),
        };
        let work = Work::new(
            Arc::clone(&store),
            config,
            Arc::clone(&metrics),
            work::Told {
                standing: standing.clone(),
                questions,
                shutdown,
            },
            work::Tells {
                deposed: deposed_in,
                leader_name: leader_name_in,
            },
        );
        tokio::spawn(async move {
            let elected = tokio::spawn(election.run());
            let worked = tokio::spawn(work.run()).await;
            work_ended.cancel();
            let elected = elected.await;
            for failed in [worked, elected].into_iter().filter_map(Result::err) {
                tracing::error!(error = %failed, "a task of the scheduler ended badly");
            }
            ended_in.send_replace(true);
        });
        SchedulerHandle {
            store,
            metrics,
            standing,
            leader_name,
            questions: questions_in,
            ended,
        }
    }
}

/// A running scheduler. Clones speak of the same one.
#[derive(Clone)]
pub struct SchedulerHandle {
    store: Arc<dyn Store>,
    metrics: Arc<Metrics>,
    standing: watch::Receiver<Option<Revision>>,
    leader_name: watch::Receiver<Option<String>>,
    questions: mpsc::Sender<Question>,
    ended: watch::Receiver<bool>,
}

impl std::fmt::Debug for SchedulerHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SchedulerHandle")
            .field("leads", &self.is_leader())
            .finish_non_exhaustive()
    }
}

impl SchedulerHandle {
    /// True while this server holds the leader's key, as far as it knows.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.standing.borrow().is_some()
    }

    /// The revision of this server's own election key while it holds it.
    #[must_use]
    pub fn leading(&self) -> watch::Receiver<Option<Revision>> {
        self.standing.clone()
    }

    /// Who leads, as the leader's key says it: the name of its server; `None` while nobody does.
    #[must_use]
    pub fn leader_name(&self) -> Option<String> {
        self.leader_name.borrow().clone()
    }

    /// Why the step with this ordinal is where it is, or why not yet; `None` when it is not known
    /// here, or this server is busy rebuilding its view. Every server can answer, also one that
    /// does not lead.
    pub async fn explain(&self, run: &RunId, step: usize) -> Option<Explanation> {
        let (answer_in, answer) = oneshot::channel();
        let question = Question {
            run: run.clone(),
            step,
            answer: answer_in,
        };
        self.questions.try_send(question).ok()?;
        let explanation = tokio::time::timeout(QUESTION_TIMEOUT, answer).await.ok()?.ok()??;
        if explanation.verdict == Verdict::Ended
            && let Ok(Some(entry)) = self.store.get(&key::step(run, step)).await
            && let Ok(record) = entry.decode::<StepRecord>()
        {
            let name = explanation.name;
            let explanation = Explanation::of_ended(run, step, &record);
            return Some(Explanation { name, ..explanation });
        }
        Some(explanation)
    }

    /// The scheduler's metrics, to be gathered with those of the server. Cheap to call.
    #[must_use]
    pub fn registry(&self) -> prometheus::Registry {
        self.metrics.registry()
    }

    /// A token that is cancelled after `shutdown`, once the scheduler has ended and, where
    /// [`SchedulerConfig::handover_ms`] says so, somebody else leads; or when that takes too long. What
    /// serves nodes and people ends with it.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn when_handed_over(&self, shutdown: CancellationToken) -> CancellationToken {
        let handed_over = CancellationToken::new();
        let (scheduler, token) = (self.clone(), handed_over.clone());
        tokio::spawn(async move {
            shutdown.cancelled().await;
            if tokio::time::timeout(HANDOVER_TIMEOUT, scheduler.wait()).await.is_err() {
                tracing::warn!("the scheduler takes long to end, everything else ends before it");
            }
            token.cancel();
        });
        handed_over
    }

    /// Returns when the scheduler has ended and given the leader's key back.
    pub async fn wait(&self) {
        // An error means that the task is gone, which is an end too.
        let _ = self.ended.clone().wait_for(|ended| *ended).await;
    }

    /// Returns when this server leads. For tests and for readiness.
    pub async fn wait_for_leadership(&self) {
        let _ = self.standing.clone().wait_for(Option::is_some).await;
    }
}
