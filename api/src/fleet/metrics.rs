//! What is counted about the agents' streams.

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// From one commit on a fast disk to a store that is in trouble, seconds.
const FILED_BUCKETS: [f64; 11] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5, 10.0, 60.0];

/// The numbers of one server's streams. Clones share them.
#[derive(Debug, Clone)]
pub struct FleetMetrics {
    pub(super) sessions: IntGauge,
    pub(super) ended: IntCounterVec,
    pub(super) renewals: IntCounter,
    pub(super) orders: IntCounter,
    pub(super) reports: IntCounterVec,
    pub(super) filed_seconds: Histogram,
    pub(super) filing_batches: IntCounter,
    pub(super) filing_txns: IntCounter,
    pub(super) filing_read: IntCounter,
    pub(super) moves: IntCounter,
    pub(super) certificate_expiry: IntGauge,
}

impl FleetMetrics {
    /// Fresh numbers, registered in `registry`.
    ///
    /// # Errors
    /// When `registry` has one of the names already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let made = Self {
            sessions: IntGauge::new("buildflow_fleet_sessions", "Nodes whose stream this server holds.")?,
            ended: IntCounterVec::new(
                Opts::new("buildflow_fleet_sessions_ended_total", "Streams that ended, by reason."),
                &["reason"],
            )?,
            renewals: IntCounter::new("buildflow_fleet_renewals_total", "Leases that were renewed.")?,
            orders: IntCounter::new("buildflow_fleet_orders_total", "Orders that were sent to nodes.")?,
            reports: IntCounterVec::new(
                Opts::new("buildflow_fleet_reports_total", "Answered reports, by result."),
                &["result"],
            )?,
            filed_seconds: Histogram::with_opts(
                HistogramOpts::new(
                    "buildflow_fleet_report_filed_seconds",
                    "From taking reports up to their being filed.",
                )
                .buckets(FILED_BUCKETS.to_vec()),
            )?,
            filing_batches: IntCounter::new(
                "buildflow_fleet_filing_batches_total",
                "Round trips to the store that filed reports.",
            )?,
            filing_txns: IntCounter::new(
                "buildflow_fleet_filing_transactions_total",
                "Reports in those round trips.",
            )?,
            filing_read: IntCounter::new(
                "buildflow_fleet_filing_reads_total",
                "Reports that could not be judged without reading the store.",
            )?,
            moves: IntCounter::new(
                "buildflow_fleet_session_moves_total",
                "Nodes that came from another server.",
            )?,
            certificate_expiry: IntGauge::new(
                "buildflow_fleet_certificate_expiry_timestamp_seconds",
                "When the first of the certificates ends with which nodes are connected here; a node that has renewed \
                 its own shows it at its next stream. 0: none.",
            )?,
        };
        registry.register(Box::new(made.certificate_expiry.clone()))?;
        registry.register(Box::new(made.sessions.clone()))?;
        registry.register(Box::new(made.ended.clone()))?;
        registry.register(Box::new(made.renewals.clone()))?;
        registry.register(Box::new(made.orders.clone()))?;
        registry.register(Box::new(made.reports.clone()))?;
        registry.register(Box::new(made.filed_seconds.clone()))?;
        for counter in [&made.filing_batches, &made.filing_txns, &made.filing_read, &made.moves] {
            registry.register(Box::new(counter.clone()))?;
        }
        Ok(made)
    }
}
