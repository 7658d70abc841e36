//! How much room the live store has, looked at again and again and told before writes are refused.
//!
//! Not here: making room (the leader's compaction, the store's operator), what is answered while there
//! is none (`problem`).

use prometheus::{IntGauge, Registry};
use std::time::Duration;
use store::{Room, Store};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How often the store is asked: at the highest rate of writes that was measured its file does not
/// grow by the quarter of the quota that is left in this time.
const EVERY: Duration = Duration::from_secs(15);

/// How long the store may take to say it.
const WAIT: Duration = Duration::from_secs(12);

/// What the live store says of its room.
#[derive(Debug)]
pub struct RoomWatch {
    newest: watch::Sender<Option<Room>>,
    metrics: RoomMetrics,
}

#[derive(Debug)]
struct RoomMetrics {
    file: IntGauge,
    used: IntGauge,
    quota: IntGauge,
    full: IntGauge,
}

impl RoomMetrics {
    fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| -> Result<IntGauge, prometheus::Error> {
            let made = IntGauge::new(name, help)?;
            registry.register(Box::new(made.clone()))?;
            Ok(made)
        };
        Ok(Self {
            file: gauge(
                "buildflow_store_file_bytes",
                "Size of the live store's file, of several the largest; this counts against the quota.",
            )?,
            used: gauge("buildflow_store_used_bytes", "How much of it holds something.")?,
            quota: gauge(
                "buildflow_store_quota_bytes",
                "Where the live store stops to take writes; 0: it has no such limit.",
            )?,
            full: gauge(
                "buildflow_store_full",
                "1 while the live store takes no writes for want of room.",
            )?,
        })
    }
}

impl RoomWatch {
    /// Nothing was asked yet; [`RoomWatch::run`] asks.
    ///
    /// # Errors
    /// When `registry` has one of the names already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        Ok(Self {
            newest: watch::Sender::new(None),
            metrics: RoomMetrics::new(registry)?,
        })
    }

    /// What is wrong with the store's room, in one sentence.
    #[must_use]
    pub fn complaint(&self) -> Option<String> {
        let newest = self.newest.borrow();
        let said = newest.as_ref()?.complaint()?;
        Some(format!("the store has little room left: {said}"))
    }

    /// Asks until `shutdown`.
    pub async fn run(&self, store: &dyn Store, shutdown: &CancellationToken) {
        loop {
            let asked = tokio::time::timeout(WAIT, store.room());
            tokio::select! {
                () = shutdown.cancelled() => return,
                asked = asked => match asked {
                    Ok(Ok(room)) => self.take(room),
                    // Whether it answers at all is told elsewhere; what it said last stands.
                    Ok(Err(error)) => tracing::debug!(%error, "store does not say how much room it has"),
                    Err(_late) => tracing::debug!("store does not say in time how much room it has"),
                },
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(EVERY) => {}
            }
        }
    }

    fn take(&self, room: Room) {
        let metrics = &self.metrics;
        metrics.file.set(gauge(room.file_bytes));
        metrics.used.set(gauge(room.used_bytes));
        metrics.quota.set(gauge(room.quota_bytes.unwrap_or_default()));
        metrics.full.set(i64::from(!room.refuses.is_empty()));
        let before = self.newest.send_replace(Some(room.clone()));
        let state = |room: &Room| (room.is_tight(), room.refuses.is_empty());
        if before.as_ref().map(state) == Some(state(&room)) {
            return;
        }
        match room.complaint() {
            Some(complaint) => tracing::warn!(complaint, "live store has little room left"),
            None if before.is_some() => tracing::info!("live store has room again"),
            None => {}
        }
    }
}

fn gauge(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
