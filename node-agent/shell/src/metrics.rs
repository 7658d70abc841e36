//! What an agent counts. Clones share the numbers; whoever starts the agent keeps one to serve it.
//!
//! Not here: HTTP.

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Encoder, Gauge, Histogram, HistogramOpts, IntCounter, IntGauge, Registry, TextEncoder};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// From a warm start to a large image over a slow line, seconds.
const PREPARE_BUCKETS: [f64; 14] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0, 30.0, 120.0, 600.0,
];

/// From a spare shim to a machine that thrashes, seconds.
const LAUNCH_BUCKETS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 1.0, 5.0, 30.0];

/// The numbers of one agent.
#[derive(Clone)]
pub struct AgentMetrics {
    registry: Registry,
    /// Allocations that are held, finished ones included until the server forgot them.
    pub(crate) allocations: IntGauge,
    /// Allocations whose container runs.
    pub(crate) running: IntGauge,
    /// Seconds from the order to image and checkout being ready.
    pub(crate) prepare_seconds: Histogram,
    /// Seconds from there to the first instruction.
    pub(crate) launch_seconds: Histogram,
    /// Bytes of logs that were sent, repeated ones included.
    pub(crate) log_bytes: IntCounter,
    /// Streams that were opened after the first one.
    pub(crate) reconnects: IntCounter,
    /// 1 while a server is connected.
    pub(crate) connected: IntGauge,
    /// Writes of the journal that failed.
    pub(crate) journal_failures: IntCounter,
    /// Attempts of which the node does not know how they ended, or that its lease ended.
    pub(crate) lost: IntCounter,
    /// Rounds in which every server was asked whether the store has lost its quorum.
    pub(crate) quorum_rounds: IntCounter,
    /// When the node's certificate ends, seconds of the Unix epoch; 0 without one.
    pub(crate) certificate_expiry: IntGauge,
    pub(crate) lease: LeaseGauge,
}

/// What is left of the node's lease at the moment of being asked.
#[derive(Clone)]
pub(crate) struct LeaseGauge {
    /// Milliseconds since boot; 0: none.
    deadline_ms: Arc<AtomicU64>,
    remaining: Gauge,
}

impl LeaseGauge {
    fn new() -> Self {
        let name = "buildflow_agent_lease_remaining_seconds";
        let help = "until the shims end what runs, unless a server confirms the lease";
        Self {
            deadline_ms: Arc::default(),
            remaining: Gauge::new(name, help).expect("a legal metric name"),
        }
    }

    /// The lease ends at this moment, milliseconds since boot.
    pub(crate) fn set(&self, deadline_ms: u64) {
        self.deadline_ms.store(deadline_ms, Ordering::Relaxed);
    }
}

impl Collector for LeaseGauge {
    fn desc(&self) -> Vec<&Desc> {
        self.remaining.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let deadline = self.deadline_ms.load(Ordering::Relaxed);
        let left_ms = deadline.saturating_sub(isolation::lease::now_ms());
        self.remaining.set(left_ms as f64 / 1000.0);
        self.remaining.collect()
    }
}

impl Default for AgentMetrics {
    fn default() -> Self {
        Self::new()
    }
}

impl AgentMetrics {
    /// Fresh numbers in a registry of their own.
    ///
    /// # Panics
    /// Never: the names are legal and each is registered once.
    #[must_use]
    pub fn new() -> Self {
        let registry = Registry::new();
        let gauge = |name, help| {
            let gauge = IntGauge::new(name, help).expect("a legal metric name");
            registry
                .register(Box::new(gauge.clone()))
                .expect("each name is registered once");
            gauge
        };
        let counter = |name, help| {
            let counter = IntCounter::new(name, help).expect("a legal metric name");
            registry
                .register(Box::new(counter.clone()))
                .expect("each name is registered once");
            counter
        };
        let histogram = |name, help, buckets: &[f64]| {
            let opts = HistogramOpts::new(name, help).buckets(buckets.to_vec());
            let histogram = Histogram::with_opts(opts).expect("a legal metric name");
            registry
                .register(Box::new(histogram.clone()))
                .expect("each name is registered once");
            histogram
        };
        let lease = LeaseGauge::new();
        registry
            .register(Box::new(lease.clone()))
            .expect("each name is registered once");
        Self {
            lost: counter(
                "buildflow_agent_lost_attempts_total",
                "attempts of which the node does not know how they ended, or that its lease ended",
            ),
            quorum_rounds: counter(
                "buildflow_agent_quorum_rounds_total",
                "rounds in which every server was asked whether the store has lost its quorum",
            ),
            certificate_expiry: gauge(
                "buildflow_agent_certificate_expiry_timestamp_seconds",
                "when the node's certificate ends, seconds of the Unix epoch",
            ),
            lease,
            allocations: gauge("buildflow_agent_allocations", "allocations that the agent holds"),
            running: gauge(
                "buildflow_agent_running_allocations",
                "allocations whose container runs",
            ),
            prepare_seconds: histogram(
                "buildflow_agent_prepare_seconds",
                "from the order to image and checkout being ready",
                &PREPARE_BUCKETS,
            ),
            launch_seconds: histogram(
                "buildflow_agent_launch_seconds",
                "from image and checkout being ready to the first instruction",
                &LAUNCH_BUCKETS,
            ),
            log_bytes: counter("buildflow_agent_log_bytes_total", "bytes of logs that were sent"),
            reconnects: counter("buildflow_agent_reconnects_total", "streams opened after the first one"),
            connected: gauge("buildflow_agent_connected", "1 while a server is connected"),
            journal_failures: counter(
                "buildflow_agent_journal_failures_total",
                "writes of the journal that failed",
            ),
            registry,
        }
    }

    /// The registry, to be served together with others.
    #[must_use]
    pub fn registry(&self) -> Registry {
        self.registry.clone()
    }

    /// True while the agent holds something: a step that runs, or one that has ended and of which something is
    /// still to be told or removed.
    #[must_use]
    pub fn holds_something(&self) -> bool {
        self.allocations.get() > 0
    }

    /// The numbers in Prometheus' text form.
    #[must_use]
    pub fn metrics_text(&self) -> String {
        let mut text = Vec::new();
        // Only a sink that fails can fail the encoder, and a vector does not.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut text);
        String::from_utf8_lossy(&text).into_owned()
    }
}
