//! What is counted about logs: bytes in, how long until they are stored, who reads.

use prometheus::{Histogram, HistogramOpts, IntCounter, IntGauge, Registry};

/// From a fast disk's flush to an object store that is in trouble, seconds.
const STORED_BUCKETS: [f64; 11] = [0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 1.5, 2.5, 5.0, 20.0, 60.0];

/// The numbers of one hub. Clones share them.
#[derive(Debug, Clone)]
pub struct LogMetrics {
    pub(super) bytes_in: IntCounter,
    pub(super) stored_seconds: Histogram,
    pub(super) store_failures: IntCounter,
    pub(super) turned_away: IntCounter,
    pub(super) open: IntGauge,
    pub(super) held_bytes: IntGauge,
    pub(super) readers: IntGauge,
    pub(super) merges: IntCounter,
}

impl LogMetrics {
    /// Fresh numbers, registered in `registry`.
    ///
    /// # Errors
    /// When `registry` has one of the names already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str| -> Result<IntCounter, prometheus::Error> {
            let made = IntCounter::new(name, help)?;
            registry.register(Box::new(made.clone()))?;
            Ok(made)
        };
        let gauge = |name: &str, help: &str| -> Result<IntGauge, prometheus::Error> {
            let made = IntGauge::new(name, help)?;
            registry.register(Box::new(made.clone()))?;
            Ok(made)
        };
        let stored_seconds = Histogram::with_opts(
            HistogramOpts::new(
                "buildflow_log_stored_seconds",
                "From the first byte of a chunk until it is stored.",
            )
            .buckets(STORED_BUCKETS.to_vec()),
        )?;
        registry.register(Box::new(stored_seconds.clone()))?;
        Ok(Self {
            bytes_in: counter("buildflow_log_received_bytes_total", "New bytes of logs from nodes.")?,
            stored_seconds,
            store_failures: counter(
                "buildflow_log_store_failures_total",
                "Chunks that could not be stored at the first try.",
            )?,
            turned_away: counter(
                "buildflow_log_turned_away_total",
                "Messages that found no room and were asked for again.",
            )?,
            open: gauge(
                "buildflow_logs_open",
                "Logs that a node writes or somebody reads at the moment.",
            )?,
            held_bytes: gauge("buildflow_log_held_bytes", "Bytes of logs in memory.")?,
            readers: gauge("buildflow_log_readers", "Readers of logs.")?,
            merges: counter(
                "buildflow_log_merged_blobs_total",
                "Small blobs that were merged into large ones.",
            )?,
        })
    }
}
