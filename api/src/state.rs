//! What every part of the server is handed: the deps it was built with and what it keeps in memory.
//!
//! Not here: any behaviour.

use crate::allowance::{Allowance, Allowances};
use crate::archive::{ArchiveTimes, Archives, Keep};
use crate::auth::Caller;
use crate::explain::Explain;
use crate::fleet::definitions::Definitions;
use crate::fleet::join::Membership;
use crate::intake::{Leases, Sources};
use crate::limit::STREAMS_MAX;
use crate::logs::{Counts, Feeds, Limits, LogHub, LogMetrics, Relays};
use crate::metrics::Metrics;
use crate::probe::Probe;
use crate::problem::{Answer, Problem};
use crate::room::RoomWatch;
use crate::view::View;
use prometheus::IntGauge;
use std::sync::Arc;
use store::{BlobStore, History, Revision, Store};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;

/// What an operator sets about the interface.
#[derive(Debug, Clone)]
pub struct ApiConfig {
    /// This server's name, unique in the cluster.
    pub server_name: String,
    /// Where people reach this server, without a trailing `/`: the beginning of every `web_url`.
    pub web_url: String,
    /// Where the other servers reach this one, e.g. `https://10.0.0.1:7420`, without a trailing
    /// `/`; empty when it stands alone.
    pub advertise: String,
    /// How long the server believes in a node without a renewal, milliseconds.
    pub node_lease_ms: u64,
    /// When ended runs leave the live store.
    pub archive: ArchiveTimes,
    /// How long finished runs and their logs are kept.
    pub keep: Keep,
    /// What each token may ask for.
    pub allowance: Allowance,
}

/// What the server is built from.
#[derive(Clone)]
pub struct Deps {
    /// Live state.
    pub store: Arc<dyn Store>,
    /// Log chunks and archived runs.
    pub blobs: Arc<dyn BlobStore>,
    /// Finished runs that have left the live store.
    pub history: Arc<dyn History>,
    /// Reads repositories: a [`git_mirror::Mirrors`], which serves `file://` addresses only where
    /// the operator says so.
    pub sources: Arc<dyn Sources>,
    /// Answers why a step has no node yet.
    pub explain: Arc<dyn Explain>,
    /// The revision of this server's own election key while it leads (`SchedulerHandle::leading`).
    pub leading: watch::Receiver<Option<Revision>>,
    /// Asks the other servers: trusts their certificates, shows our own.
    pub peers: reqwest::Client,
    /// Certificates, and how machines join; `None`: plain text, and tokens alone.
    pub membership: Option<Arc<Membership>>,
    /// Ends everything that this server has started.
    pub shutdown: CancellationToken,
}

/// Everything that handlers, sessions and loops share.
pub struct Server {
    /// As it was configured.
    pub config: ApiConfig,
    /// What it was built from.
    pub deps: Deps,
    /// The warm picture of the store.
    pub view: View,
    /// Logs that are still growing.
    pub logs: LogHub,
    /// Logs whose nodes are with other servers.
    pub relays: Relays,
    /// Runs whose logs somebody follows.
    pub feeds: Feeds,
    /// Where the lines of the logs are that were looked at last.
    pub counts: Counts,
    /// Definitions that were used last.
    pub definitions: Definitions,
    /// Runs that have left the live store.
    pub archives: Archives,
    /// What is counted.
    pub metrics: Metrics,
    /// Under which the records of recent triggers stand.
    pub leases: Leases,
    /// Whether the live store answers.
    pub probe: Probe,
    /// How much room the live store has.
    pub room: RoomWatch,
    /// What tokens use of it.
    pub(crate) allowances: Allowances,
    /// One permit for each open event or log stream.
    pub streams: Arc<Semaphore>,
}

/// A place for an open stream of events or logs; it is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct StreamPlace {
    open: IntGauge,
    _of_the_server: OwnedSemaphorePermit,
    _of_the_token: Option<OwnedSemaphorePermit>,
}

impl Drop for StreamPlace {
    fn drop(&mut self) {
        self.open.dec();
    }
}

/// The server, shared.
pub type Shared = Arc<Server>;

impl Server {
    /// Puts the parts together; nothing runs yet.
    ///
    /// # Panics
    /// Never: the registry is fresh, so no name is in it twice.
    #[must_use]
    pub fn new(config: ApiConfig, deps: Deps) -> Shared {
        let metrics = Metrics::new();
        let log_metrics = LogMetrics::new(metrics.registry()).expect("every name is registered once");
        let room = RoomWatch::new(metrics.registry()).expect("every name is registered once");
        let view = View::new(metrics.clone());
        Arc::new(Self {
            archives: Archives::new(view.clone(), deps.history.clone(), deps.blobs.clone()),
            definitions: Definitions::shown_by(view.clone()),
            view,
            logs: LogHub::new(deps.blobs.clone(), Limits::default(), log_metrics),
            relays: Relays::default(),
            feeds: Feeds::default(),
            counts: Counts::default(),
            metrics,
            leases: Leases::default(),
            probe: Probe::new(),
            room,
            allowances: Allowances::new(config.allowance),
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
            config,
            deps,
        })
    }

    /// The live store.
    #[must_use]
    pub fn store(&self) -> &dyn Store {
        self.deps.store.as_ref()
    }

    /// A place for one more stream; a caller that is not known holds none of a token's.
    ///
    /// # Errors
    /// 429 when the token has as many as it may, 503 when the server has.
    pub(crate) fn place_for_stream(&self, caller: Option<&Caller>) -> Answer<StreamPlace> {
        let of_the_token = caller.map(|c| self.allowances.stream(&c.name)).transpose()?;
        let of_the_server = self.streams.clone().try_acquire_owned().map_err(|_| {
            Problem::unavailable("this server has as many open streams as it can bear; try again, or another server")
        })?;
        let open = self.metrics.streams.clone();
        open.inc();
        Ok(StreamPlace {
            open,
            _of_the_server: of_the_server,
            _of_the_token: of_the_token,
        })
    }

    /// The page of a run.
    #[must_use]
    pub fn web_url(&self, run: &model::RunId) -> String {
        format!("{}/runs/{run}", self.config.web_url)
    }
}
