//! What is counted about the archive.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// The numbers of one server. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct ArchiveMetrics {
    /// Runs that this server has taken out of the live store.
    pub(super) archived: IntCounter,
    /// What failed and is tried again, by part.
    pub(super) failures: IntCounterVec,
    /// Ended runs that are still in the live store.
    pub(super) waiting: IntGauge,
    /// Runs that history has not taken yet.
    pub(super) outbox: IntGauge,
    /// The age of the oldest of them, seconds.
    pub(super) outbox_age: IntGauge,
    /// Leftovers of runs that were removed.
    pub(super) swept: IntCounter,
}

impl ArchiveMetrics {
    /// Fresh numbers, registered in `registry`.
    ///
    /// # Errors
    /// When `registry` has one of the names already.
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
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
        let failures = Opts::new(
            "buildflow_archive_failures_total",
            "What failed and is tried again, by part: store, move, history, outbox.",
        );
        let failures = IntCounterVec::new(failures, &["part"])?;
        registry.register(Box::new(failures.clone()))?;
        Ok(Self {
            failures,
            archived: counter(
                "buildflow_archive_runs_total",
                "Runs that this server has taken out of the live store.",
            )?,
            waiting: gauge(
                "buildflow_archive_waiting_runs",
                "Ended runs that are still in the live store.",
            )?,
            outbox: gauge(
                "buildflow_archive_outbox_entries",
                "Archived runs that history has not taken yet.",
            )?,
            outbox_age: gauge(
                "buildflow_archive_outbox_oldest_age_seconds",
                "Since when the oldest of these waits.",
            )?,
            swept: counter(
                "buildflow_archive_leftovers_removed_total",
                "Leftovers of runs that never began, removed from the live store.",
            )?,
        })
    }

    /// Counts a failure.
    pub(super) fn failed(&self, part: &str) {
        self.failures.with_label_values(&[part]).inc();
    }
}

/// What is counted about removing what is old. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct RetentionMetrics {
    /// Runs that were removed.
    pub(super) runs: IntCounter,
    /// Runs whose logs were removed before them.
    pub(super) logs: IntCounter,
    /// Blobs that were removed.
    pub(super) blobs: IntCounter,
    /// Their bytes.
    pub(super) bytes: IntCounter,
    /// Sweeps that failed and are tried again.
    pub(super) failures: IntCounter,
}

impl RetentionMetrics {
    /// Fresh numbers, registered in `registry`.
    ///
    /// # Errors
    /// When `registry` has one of the names already.
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str| -> Result<IntCounter, prometheus::Error> {
            let made = IntCounter::new(name, help)?;
            registry.register(Box::new(made.clone()))?;
            Ok(made)
        };
        Ok(Self {
            runs: counter(
                "buildflow_retention_runs_removed_total",
                "Finished runs that were kept long enough.",
            )?,
            logs: counter(
                "buildflow_retention_logs_removed_total",
                "Runs whose logs were kept long enough.",
            )?,
            blobs: counter("buildflow_retention_blobs_removed_total", "Blobs that went with them.")?,
            bytes: counter("buildflow_retention_bytes_removed_total", "The bytes of these blobs.")?,
            failures: counter(
                "buildflow_retention_failures_total",
                "Sweeps that failed and are tried again.",
            )?,
        })
    }
}
