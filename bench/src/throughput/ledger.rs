//! What is known of the runs in flight, and how long each leg of a step's way took.
//!
//! All of it is seen from outside: when the driver wrote, when an agent had an order in its hand,
//! when it reported and what it was answered. One process holds driver and agents, so one clock
//! measures. Not here: who writes and who runs.

use model::RunId;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::Notify;

/// So many parts that 1,200 agents seldom wait for each other.
const SHARDS: usize = 64;

/// A part of a step's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leg {
    /// The run's write was begun → its first order is in an agent's hand.
    SubmitToHand,
    /// The run is durable → an order of a step without needs is in an agent's hand.
    ReadyToHand,
    /// The last need's end was reported → the order is in an agent's hand: filed, folded, placed, sent.
    EndToNext,
    /// The end was reported → it is acknowledged: durable in etcd.
    EndToFiled,
    /// The end was reported → the agent may forget it: folded into the step, its log whole.
    EndToFolded,
}

impl Leg {
    pub(crate) const ALL: [Self; 5] = [
        Self::SubmitToHand,
        Self::ReadyToHand,
        Self::EndToNext,
        Self::EndToFiled,
        Self::EndToFolded,
    ];

    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::SubmitToHand => "run submitted -> first order in an agent's hand",
            Self::ReadyToHand => "run durable -> order in an agent's hand",
            Self::EndToNext => "last need's end reported -> next order in an agent's hand",
            Self::EndToFiled => "end reported -> acknowledged (durable)",
            Self::EndToFolded => "end reported -> folded, agent may forget",
        }
    }
}

#[derive(Debug, Clone, Default)]
struct StepTrace {
    needs: Vec<usize>,
    ordered: bool,
    reported: Option<Instant>,
    folded: bool,
}

#[derive(Debug)]
struct RunTrace {
    submitted: Instant,
    durable: Option<Instant>,
    started: bool,
    steps: Vec<StepTrace>,
    left: usize,
}

#[derive(Debug, Default)]
struct Shard {
    runs: HashMap<RunId, RunTrace>,
    /// When the first order of a run came that the driver did not write.
    strangers: HashMap<RunId, Instant>,
    legs: [Vec<f32>; 5],
}

impl Shard {
    fn add(&mut self, leg: Leg, from: Instant, to: Instant) {
        self.legs[leg as usize].push(to.saturating_duration_since(from).as_secs_f32() * 1_000.0);
    }
}

/// Shared by the driver and all agents.
#[derive(Debug)]
pub(crate) struct Ledger {
    shards: Vec<Mutex<Shard>>,
    hasher: RandomState,
    steps_ended: AtomicU64,
    again: AtomicU64,
    runs_left: AtomicUsize,
    runs_ended: AtomicU64,
    /// Told when a run has ended.
    pub(crate) run_ended: Notify,
}

impl Ledger {
    pub(crate) fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            steps_ended: AtomicU64::new(0),
            again: AtomicU64::new(0),
            runs_left: AtomicUsize::new(0),
            runs_ended: AtomicU64::new(0),
            run_ended: Notify::new(),
        }
    }

    fn shard(&self, run: &RunId) -> MutexGuard<'_, Shard> {
        let at = usize::try_from(self.hasher.hash_one(run) % SHARDS as u64).unwrap_or(0);
        self.shards[at].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The run is about to be written; `needs` are those of each of its steps.
    pub(crate) fn submit(&self, run: &RunId, needs: &[Vec<usize>]) {
        let steps = needs.iter().map(|needs| StepTrace {
            needs: needs.clone(),
            ..StepTrace::default()
        });
        let trace = RunTrace {
            submitted: Instant::now(),
            durable: None,
            started: false,
            steps: steps.collect(),
            left: needs.len(),
        };
        self.shard(run).runs.insert(run.clone(), trace);
        self.runs_left.fetch_add(1, Ordering::Relaxed);
    }

    /// The run's write is durable.
    pub(crate) fn durable(&self, run: &RunId) {
        if let Some(trace) = self.shard(run).runs.get_mut(run) {
            trace.durable = Some(Instant::now());
        }
    }

    /// When an agent first had an order of a run that the driver did not write; told once.
    pub(crate) fn stranger_in_hand(&self, run: &RunId) -> Option<Instant> {
        self.shard(run).strangers.remove(run)
    }

    /// An agent has the order of a step.
    pub(crate) fn in_hand(&self, run: &RunId, step: usize) {
        let now = Instant::now();
        let mut shard = self.shard(run);
        let Some(trace) = shard.runs.get_mut(run) else {
            shard.strangers.entry(run.clone()).or_insert(now);
            return;
        };
        let Some(own) = trace.steps.get_mut(step) else { return };
        if std::mem::replace(&mut own.ordered, true) {
            self.again.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let needs = own.needs.clone();
        let first = !std::mem::replace(&mut trace.started, true);
        let submitted = trace.submitted;
        let ready = trace.durable;
        let last = needs.iter().filter_map(|n| trace.steps.get(*n)?.reported).max();
        if first {
            shard.add(Leg::SubmitToHand, submitted, now);
        }
        match (needs.is_empty(), ready, last) {
            // An order may overtake the answer to the run's own write.
            (true, ready, _) => shard.add(Leg::ReadyToHand, ready.unwrap_or(now), now),
            (false, _, Some(last)) => shard.add(Leg::EndToNext, last, now),
            (false, _, None) => {}
        }
    }

    /// An agent reports a step's end.
    pub(crate) fn reported(&self, run: &RunId, step: usize) {
        if let Some(own) = self.shard(run).runs.get_mut(run).and_then(|t| t.steps.get_mut(step)) {
            own.reported.get_or_insert_with(Instant::now);
        }
    }

    /// The report of its end is acknowledged.
    pub(crate) fn filed(&self, run: &RunId, step: usize) {
        let now = Instant::now();
        let mut shard = self.shard(run);
        let reported = shard.runs.get(run).and_then(|t| t.steps.get(step)?.reported);
        if let Some(reported) = reported {
            shard.add(Leg::EndToFiled, reported, now);
        }
    }

    /// Its agent may forget it.
    pub(crate) fn folded(&self, run: &RunId, step: usize) {
        let now = Instant::now();
        let mut shard = self.shard(run);
        let Some(trace) = shard.runs.get_mut(run) else { return };
        let Some(own) = trace.steps.get_mut(step) else { return };
        if std::mem::replace(&mut own.folded, true) {
            return;
        }
        let reported = own.reported;
        trace.left -= 1;
        let ended = trace.left == 0;
        if let Some(reported) = reported {
            shard.add(Leg::EndToFolded, reported, now);
        }
        if ended {
            shard.runs.remove(run);
        }
        drop(shard);
        self.steps_ended.fetch_add(1, Ordering::Relaxed);
        if ended {
            self.runs_left.fetch_sub(1, Ordering::Relaxed);
            self.runs_ended.fetch_add(1, Ordering::Relaxed);
            self.run_ended.notify_one();
        }
    }

    /// Forgets the legs so far.
    pub(crate) fn begin(&self) {
        self.take();
    }

    /// The legs since the last look, milliseconds, in the order of [`Leg::ALL`], each sorted.
    pub(crate) fn take(&self) -> [Vec<f32>; 5] {
        let mut all: [Vec<f32>; 5] = Default::default();
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            for (all, one) in all.iter_mut().zip(&mut shard.legs) {
                all.append(one);
            }
        }
        for leg in &mut all {
            leg.sort_by(f32::total_cmp);
        }
        all
    }

    /// Steps that ended so far.
    pub(crate) fn steps_ended(&self) -> u64 {
        self.steps_ended.load(Ordering::Relaxed)
    }

    /// Steps that were ordered a second time so far: further attempts.
    pub(crate) fn ordered_again(&self) -> u64 {
        self.again.load(Ordering::Relaxed)
    }

    /// Runs that have not ended.
    pub(crate) fn runs_left(&self) -> usize {
        self.runs_left.load(Ordering::Relaxed)
    }

    /// Runs that have ended so far.
    pub(crate) fn runs_ended(&self) -> u64 {
        self.runs_ended.load(Ordering::Relaxed)
    }
}

/// The value below which this share of a sorted row lies; 0 for an empty one.
pub(crate) fn quantile(sorted: &[f32], share: f64) -> f64 {
    let at = (sorted.len() as f64 * share) as usize;
    sorted
        .get(at.min(sorted.len().saturating_sub(1)))
        .map_or(0.0, |v| f64::from(*v))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_ends_with_its_last_step_and_each_leg_is_counted_once() {
        let ledger = Ledger::new();
        let run = RunId::new("01jd").expect("legal");
        ledger.submit(&run, &[vec![], vec![0]]);
        ledger.durable(&run);
        for step in 0..2 {
            ledger.in_hand(&run, step);
            ledger.reported(&run, step);
            ledger.filed(&run, step);
            ledger.folded(&run, step);
            ledger.folded(&run, step);
        }
        let counts = ledger.take().map(|leg| leg.len());
        assert_eq!(counts, [1, 1, 1, 2, 2]);
        assert_eq!(
            (ledger.steps_ended(), ledger.runs_ended(), ledger.runs_left()),
            (2, 1, 0)
        );
        assert_eq!(ledger.ordered_again(), 0);
        ledger.submit(&run, &[vec![]]);
        ledger.in_hand(&run, 0);
        ledger.in_hand(&run, 0);
        assert_eq!(ledger.ordered_again(), 1, "a second attempt");
    }

    #[test]
    fn the_first_order_of_a_run_that_others_wrote_is_told_once() {
        let ledger = Ledger::new();
        let run = RunId::new("01jd").expect("legal");
        assert_eq!(ledger.stranger_in_hand(&run), None);
        ledger.in_hand(&run, 0);
        assert!(ledger.stranger_in_hand(&run).is_some());
        assert_eq!(ledger.stranger_in_hand(&run), None);
    }

    #[test]
    fn quantiles_of_a_row() {
        let row: Vec<f32> = (0..100).map(|n| n as f32).collect();
        assert_eq!(
            (quantile(&row, 0.5), quantile(&row, 0.99), quantile(&row, 1.0)),
            (50.0, 99.0, 99.0)
        );
        assert!(quantile(&[], 0.5).abs() < f64::EPSILON);
    }
}
