//! The loop of the leading server that takes ended runs out of the live store.
//!
//! It shows the machine the view's picture, carries its effects out, each in a task of its own, and
//! brings back what became of them. Every task ends within a bounded time. Not here: any decision.

use super::metrics::ArchiveMetrics;
use super::storing::Budget;
use super::sweep::{LEFT_FOR_SECONDS, Sweep};
use super::{moving, storing};
use crate::clock;
use crate::state::{Server, Shared};
use api_core::archive::{Archiver, Effect, Event, MoveResult, PutResult, Told};
use model::ArchivedRun;
use std::time::Duration;
use store::{HistoryError, Revision};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// How often the picture is looked at while this server leads.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// The most ended runs and outbox entries of one look, oldest first; the others follow when these
/// have gone. So a look costs the same however long an object store or a database was away.
const LOOK_MAX: usize = 5_000;

/// How long history may take for a batch before it counts as away. Engines have time-outs of their
/// own, which are shorter and say more.
const PUT_TIMEOUT: Duration = Duration::from_secs(60);

/// Archives while this server leads, until the shutdown.
pub(crate) async fn keep(server: Shared) {
    let metrics = ArchiveMetrics::new(server.metrics.registry()).expect("every name is registered once");
    let mut leading = server.deps.leading.clone();
    let shutdown = server.deps.shutdown.clone();
    loop {
        let term = *leading.borrow_and_update();
        let led = async {
            match term {
                Some(term) => Keeper::new(server.clone(), term, metrics.clone()).run().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            // Dropping the keeper ends its tasks; what they had begun may be done again.
            () = led => {}
            changed = leading.changed() => if changed.is_err() {
                // Nobody will ever lead here, e.g. in a server without a scheduler.
                shutdown.cancelled().await;
                return;
            },
        }
    }
}

/// One term.
struct Keeper {
    server: Shared,
    term: Revision,
    machine: Archiver,
    tasks: JoinSet<Event>,
    budget: Budget,
    metrics: ArchiveMetrics,
    begun: Instant,
    looked: Revision,
    sweep: Sweep,
    swept: Instant,
}

impl Keeper {
    fn new(server: Shared, term: Revision, metrics: ArchiveMetrics) -> Self {
        let now = Instant::now();
        Self {
            machine: Archiver::new(server.config.archive),
            server,
            term,
            tasks: JoinSet::new(),
            budget: Budget::default(),
            metrics,
            begun: now,
            looked: Revision(0),
            sweep: Sweep::default(),
            swept: now,
        }
    }

    async fn run(mut self) {
        self.take(Event::Leads);
        loop {
            self.look();
            if self.swept.elapsed() >= Duration::from_secs(LEFT_FOR_SECONDS) {
                self.swept = Instant::now();
                self.sweep.again(&self.server, self.term, &self.metrics).await;
            }
            let wake = self.begun + Duration::from_millis(self.machine.wake_at_ms().unwrap_or(u64::MAX / 2));
            let next_look = Instant::now() + LOOK_EVERY;
            let event = tokio::select! {
                Some(ended) = self.tasks.join_next() => ended.unwrap_or_else(|error| {
                    tracing::error!(%error, "a task of the archive crashed");
                    Event::Leads
                }),
                () = tokio::time::sleep_until(wake.min(next_look)) => Event::Tick,
            };
            self.take(event);
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Shows the machine the picture, if it has changed.
    fn look(&mut self) {
        let server = self.server.clone();
        let (event, revision) = server.view.read(|picture| {
            let now = clock::now_ms();
            let oldest = picture.outbox().values().next().map_or(now, |(_, r)| r.archived_ms);
            self.metrics.waiting.set(gauge(picture.ended().len()));
            self.metrics.outbox.set(gauge(picture.outbox().len()));
            let age = now.saturating_sub(oldest) / 1000;
            self.metrics.outbox_age.set(i64::try_from(age).unwrap_or(i64::MAX));
            let revision = picture.revision();
            if revision == self.looked || !server.view.is_current() {
                return (None, self.looked);
            }
            let outbox = picture.outbox().iter().take(LOOK_MAX);
            let seen = Event::Seen {
                revision: revision.0,
                ended: picture.ended().iter().take(LOOK_MAX).cloned().collect(),
                outbox: outbox.map(|(run, (at, _))| told(run, *at)).collect(),
            };
            (Some(seen), revision)
        });
        self.looked = revision;
        if let Some(event) = event {
            self.take(event);
        }
    }

    fn take(&mut self, event: Event) {
        self.count(&event);
        let restarted = event == Event::Leads;
        let now = self.now_ms();
        let effects = self.machine.on(event, now);
        if restarted {
            self.looked = Revision(0);
        }
        for effect in effects {
            self.carry_out(effect);
        }
    }

    fn count(&self, event: &Event) {
        use api_core::archive::StoreResult;
        match event {
            Event::Stored(_, StoreResult::Failed) => self.metrics.failed("store"),
            Event::Moved(_, results) => {
                let done = results.iter().filter(|r| matches!(r, MoveResult::Done(_))).count();
                self.metrics.archived.inc_by(done as u64);
                if done < results.len() {
                    self.metrics.failed("move");
                }
            }
            Event::Put(_, PutResult::Away | PutResult::Refused) => self.metrics.failed("history"),
            Event::Cleared(_, None) => self.metrics.failed("outbox"),
            _ => {}
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        let (server, term) = (self.server.clone(), self.term);
        match effect {
            Effect::Store {
                ticket,
                run,
                with_short_logs,
            } => {
                let budget = self.budget.clone();
                self.tasks.spawn(async move {
                    let _held = budget.hold(&server, &run).await;
                    Event::Stored(ticket, storing::store(&server, &run, with_short_logs).await)
                })
            }
            Effect::Move { ticket, moves } => self.tasks.spawn(async move {
                let results = moving::move_out(server.store(), term, &moves).await;
                for (moved, result) in moves.iter().zip(&results) {
                    if let MoveResult::Done(revision) = result {
                        let summary = &moved.record.summary;
                        tracing::info!(run_id = %summary.id, status = summary.status.as_str(), revision, "run archived");
                    }
                }
                Event::Moved(ticket, results)
            }),
            Effect::Put { ticket, runs } => {
                self.tasks.spawn(async move { Event::Put(ticket, put(&server, &runs).await) })
            }
            Effect::Clear { ticket, runs } => self
                .tasks
                .spawn(async move { Event::Cleared(ticket, moving::clear(server.store(), term, &runs).await) }),
        };
    }
}

fn told(run: &model::RunId, at: Revision) -> Told {
    Told {
        run: run.clone(),
        revision: at.0,
    }
}

/// Tells history of outbox entries as they are now: one that has changed since it was chosen is
/// told anew, and its older revision is not removed.
async fn put(server: &Server, runs: &[Told]) -> PutResult {
    let records: Vec<ArchivedRun> = server.view.read(|picture| {
        let entries = runs.iter().filter_map(|told| picture.outbox().get(&told.run));
        entries.map(|(_, record)| ArchivedRun::clone(record)).collect()
    });
    let put = tokio::time::timeout(PUT_TIMEOUT, server.deps.history.put_runs(&records)).await;
    match put.unwrap_or_else(|_| Err(HistoryError::Unavailable("no answer in time".to_owned()))) {
        Ok(()) => PutResult::Done,
        Err(error @ HistoryError::Illegal(_)) => {
            let first = runs.first().map(|t| t.run.as_str());
            tracing::error!(runs = runs.len(), first, %error, "history refuses archived runs");
            PutResult::Refused
        }
        Err(error) => {
            tracing::warn!(runs = runs.len(), %error, "history has not taken archived runs, will be tried again");
            PutResult::Away
        }
    }
}

fn gauge(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
