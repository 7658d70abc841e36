//! What the scheduler tells of itself, in Prometheus' form and base units. Not here: the endpoint.

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};
use scheduler::Transition;

/// From a tenth of a millisecond to a second: a placement is a plan and a durable commit.
const PLACEMENT_BUCKETS: [f64; 11] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0];

/// From a millisecond to an hour: a queue may be long.
const WAIT_BUCKETS: [f64; 14] = [
    0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0,
];

/// The scheduler's own registry and what is in it.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    /// 1 while this server leads.
    pub(crate) leader: IntGauge,
    /// Steps that got an allocation.
    pub(crate) placements: IntCounter,
    /// From the beginning of a plan to the commit of its placements.
    pub(crate) placement_seconds: Histogram,
    /// From the moment a step's needs were satisfied to its allocation.
    pub(crate) queue_wait_seconds: Histogram,
    /// From the leader's key to the first plan.
    pub(crate) takeover_seconds: Histogram,
    /// Ready steps without a node.
    pub(crate) queue_length: IntGauge,
    /// Runs that have not finished.
    pub(crate) live_runs: IntGauge,
    /// Proposals that the newest view or the store refused.
    pub(crate) refused: IntCounter,
    /// Steps that ended, by status.
    pub(crate) steps_ended: IntCounterVec,
    /// Records that are kept out.
    pub(crate) malformed: IntGauge,
    /// Times the view was built anew.
    pub(crate) rebuilds: IntCounter,
}

impl Metrics {
    /// # Panics
    /// Never: the names are constant, legal and distinct.
    pub(crate) fn new() -> Self {
        let registry = Registry::new();
        let legal = "constant, legal and distinct names";
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help).expect(legal);
            registry.register(Box::new(counter.clone())).expect(legal);
            counter
        };
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help).expect(legal);
            registry.register(Box::new(gauge.clone())).expect(legal);
            gauge
        };
        let histogram = |name: &str, help: &str, buckets: &[f64]| {
            let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
            let histogram = Histogram::with_opts(options).expect(legal);
            registry.register(Box::new(histogram.clone())).expect(legal);
            histogram
        };
        let ended = Opts::new("buildflow_scheduler_steps_ended_total", "Steps that ended, by status.");
        let steps_ended = IntCounterVec::new(ended, &["status"]).expect(legal);
        registry.register(Box::new(steps_ended.clone())).expect(legal);
        Self {
            leader: gauge("buildflow_scheduler_leader", "1 while this server leads."),
            placements: counter("buildflow_scheduler_placements_total", "Steps that got an allocation."),
            placement_seconds: histogram(
                "buildflow_scheduler_placement_seconds",
                "From the beginning of a plan to the commit of its placements.",
                &PLACEMENT_BUCKETS,
            ),
            queue_wait_seconds: histogram(
                "buildflow_scheduler_queue_wait_seconds",
                "From the moment a step's needs were satisfied to its allocation.",
                &WAIT_BUCKETS,
            ),
            takeover_seconds: histogram(
                "buildflow_scheduler_takeover_seconds",
                "From holding the leader's key to knowing all that a leader has to know.",
                &PLACEMENT_BUCKETS,
            ),
            queue_length: gauge("buildflow_scheduler_queue_length", "Ready steps without a node."),
            live_runs: gauge("buildflow_scheduler_live_runs", "Runs that have not finished."),
            refused: counter(
                "buildflow_scheduler_refused_commits_total",
                "Proposals that the newest view or the store refused.",
            ),
            malformed: gauge(
                "buildflow_scheduler_malformed_records",
                "Records that are kept out of every decision.",
            ),
            rebuilds: counter(
                "buildflow_scheduler_view_rebuilds_total",
                "Times the view was built anew.",
            ),
            steps_ended,
            registry,
        }
    }

    pub(crate) fn registry(&self) -> Registry {
        self.registry.clone()
    }

    /// Counts a committed transition.
    pub(crate) fn count(&self, transition: &Transition) {
        if let Some(waited_ms) = transition.waited_ms {
            self.placements.inc();
            self.queue_wait_seconds.observe(waited_ms as f64 / 1_000.0);
        }
        if transition.to.is_terminal() {
            self.steps_ended.with_label_values(&[transition.to.as_str()]).inc();
        }
    }
}
