//! What the server role counts: the four golden signals of its requests, runs, logs and nodes.
//!
//! Every series has a bounded number of labels: routes are templates, never paths. Not here: the
//! numbers of other roles; their registries are added with [`Metrics::add_registry`].

use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};
use std::sync::{Arc, Mutex};

/// From half a millisecond to a minute.
const REQUEST_BUCKETS: [f64; 13] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 20.0, 60.0,
];

/// From a warm start of some tens of milliseconds to an hour in the queue.
const TRIGGER_BUCKETS: [f64; 15] = [
    0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0,
];

/// Counters and histograms of one server. Clones share them.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    others: Arc<Mutex<Vec<Registry>>>,
    /// Requests by route template, method and code.
    pub requests: IntCounterVec,
    /// Seconds until an answer began, by route template.
    pub request_seconds: HistogramVec,
    /// Requests that have no answer yet.
    pub in_flight: IntGauge,
    /// Open event and log streams.
    pub streams: IntGauge,
    /// Runs made by this server, by event and whether they got steps (`ok`, `failed`).
    pub runs_created: IntCounterVec,
    /// Triggers that led to a run that was there already.
    pub deduplicated: IntCounter,
    /// Accepted triggers that are not yet a run.
    pub inbox: IntGauge,
    /// Seconds from an accepted trigger to the run's header.
    pub intake_seconds: Histogram,
    /// Seconds from an accepted trigger to the first instruction of the run's first step.
    pub trigger_to_first_instruction_seconds: Histogram,
    /// Nodes whose stream this or another server holds.
    pub nodes_connected: IntGauge,
    /// 1 while this server leads, by its name.
    pub leader: IntGaugeVec,
    /// 1 while the live store answers.
    pub store_up: IntGauge,
    /// 1 while the live store has been silent for so long that nothing can be written.
    pub quorum_lost: IntGauge,
    /// When certificates end, seconds of the Unix epoch, by whose: `server`, `authority`.
    pub certificate_expiry: IntGaugeVec,
    /// Logs that are read from another server at the moment.
    pub proxied_logs: IntGauge,
    /// Bytes of logs that were read from other servers.
    pub proxied_bytes: IntCounter,
    /// Times that the view had to read everything anew.
    pub view_resyncs: IntCounter,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Fresh numbers in a registry of their own.
    ///
    /// # Panics
    /// Never: every name is legal and registered once.
    #[must_use]
    pub fn new() -> Self {
        let registry = Registry::new();
        let counter = |name: &str, help: &str| register(&registry, IntCounter::new(name, help));
        let gauge = |name: &str, help: &str| register(&registry, IntGauge::new(name, help));
        let counters = |name: &str, help: &str, labels: &[&str]| {
            register(&registry, IntCounterVec::new(Opts::new(name, help), labels))
        };
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            register(&registry, IntGaugeVec::new(Opts::new(name, help), labels))
        };
        let histogram = |name: &str, help: &str, buckets: &[f64]| {
            let opts = HistogramOpts::new(name, help).buckets(buckets.to_vec());
            register(&registry, Histogram::with_opts(opts))
        };
        let by_route = HistogramOpts::new("buildflow_http_request_duration_seconds", "Until an answer began.")
            .buckets(REQUEST_BUCKETS.to_vec());
        Self {
            requests: counters(
                "buildflow_http_requests_total",
                "Answered requests.",
                &["route", "method", "code"],
            ),
            request_seconds: register(&registry, HistogramVec::new(by_route, &["route"])),
            in_flight: gauge("buildflow_http_requests_in_flight", "Requests without an answer yet."),
            streams: gauge("buildflow_http_streams", "Open event and log streams."),
            runs_created: counters(
                "buildflow_runs_created_total",
                "Runs made by this server.",
                &["event", "result"],
            ),
            deduplicated: counter(
                "buildflow_triggers_deduplicated_total",
                "Triggers that led to a run that was there already.",
            ),
            inbox: gauge("buildflow_inbox_entries", "Accepted triggers that are not yet a run."),
            intake_seconds: histogram(
                "buildflow_intake_duration_seconds",
                "From an accepted trigger to its run.",
                &REQUEST_BUCKETS,
            ),
            trigger_to_first_instruction_seconds: histogram(
                "buildflow_trigger_to_first_instruction_seconds",
                "From an accepted trigger to the first instruction of the run's first step.",
                &TRIGGER_BUCKETS,
            ),
            nodes_connected: gauge("buildflow_nodes_connected", "Nodes whose stream a server holds."),
            leader: gauges("buildflow_leader", "1 while this server leads.", &["server"]),
            store_up: gauge("buildflow_store_up", "1 while the live store answers."),
            quorum_lost: gauge("buildflow_store_quorum_lost", "1 while it is silent for too long."),
            certificate_expiry: gauges(
                "buildflow_certificate_expiry_timestamp_seconds",
                "When this server's certificate ends, and the first of the authorities that it believes.",
                &["of"],
            ),
            proxied_logs: gauge(
                "buildflow_log_proxied",
                "Logs that this server reads from another one at the moment.",
            ),
            proxied_bytes: counter(
                "buildflow_log_proxied_bytes_total",
                "Bytes of logs that were read from other servers.",
            ),
            view_resyncs: counter(
                "buildflow_view_resyncs_total",
                "Times that the view read everything anew.",
            ),
            others: Arc::default(),
            registry,
        }
    }

    /// Where the numbers of this role's parts are registered.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Shows another role's numbers at `/metrics` too.
    pub fn add_registry(&self, registry: Registry) {
        lock(&self.others).push(registry);
    }

    /// All numbers as Prometheus text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut families = self.registry.gather();
        for other in lock(&self.others).iter() {
            families.extend(other.gather());
        }
        let mut out = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&families, &mut out) {
            tracing::warn!(%error, "metrics do not encode");
        }
        String::from_utf8_lossy(&out).into_owned()
    }
}

/// The list stays usable when a thread panicked while it held it: a push either happened or not.
fn lock(others: &Mutex<Vec<Registry>>) -> std::sync::MutexGuard<'_, Vec<Registry>> {
    others.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn register<C: prometheus::core::Collector + Clone + 'static>(registry: &Registry, made: prometheus::Result<C>) -> C {
    let collector = made.expect("the name is a legal constant");
    registry
        .register(Box::new(collector.clone()))
        .expect("every name is registered once");
    collector
}
