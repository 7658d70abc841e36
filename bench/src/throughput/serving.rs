//! The server of a measurement, as a process of its own: the scheduler and the API over etcd, put
//! together as the role `server` does it, with blobs and history in a folder.
//!
//! It ends with its standard input, so never outlives the measurement. Not here: the role's
//! configuration, certificates, S3 and PostgreSQL.

use crate::BenchError;
use api::{Api, ApiConfig, ArchiveTimes, Deps, NoExplain, tokens};
use clap::Args;
use git_mirror::{GitSettings, Mirrors};
use model::record::Unknown;
use model::{Role, TeamName, TeamRecord, key};
use scheduler_shell::{LeaseTimes, Scheduler, SchedulerConfig};
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use store::{Expect, FolderBlobs, SqliteHistory, Store, Txn};
use store_etcd::{EtcdConfig, EtcdStore};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// The token of the simulated nodes; the store is thrown away afterwards.
pub(super) const NODE_TOKEN: &str = "bf_bench_node";

/// The token of the driver.
pub(crate) const ADMIN_TOKEN: &str = "bf_bench_admin";

/// The team of all runs.
pub(crate) const TEAM: &str = "bench";

/// What the first line of standard output begins with; the address follows.
pub(super) const SERVING: &str = "serving ";

/// A server for a measurement: started by `throughput`.
#[derive(Debug, Clone, Args)]
pub struct ServerArguments {
    /// Its name.
    #[arg(long)]
    pub(super) name: String,
    /// etcd's members.
    #[arg(long, value_delimiter = ',')]
    pub(super) etcd: Vec<String>,
    /// Its folder.
    #[arg(long)]
    pub(super) data: PathBuf,
    /// The folder of blobs that all servers share.
    #[arg(long)]
    pub(super) blobs: PathBuf,
    /// How long an ended run stays in the live store.
    #[arg(long)]
    pub(super) archive_after_ms: u64,
    /// How long a node is believed in without a renewal.
    #[arg(long)]
    pub(super) lease_ms: u64,
}

fn stopped(what: &str, cause: &dyn std::fmt::Display) -> BenchError {
    BenchError::Stopped(format!("the server's {what}: {cause}"))
}

/// Serves until standard input ends (at once) or SIGTERM comes (cleanly).
pub(crate) async fn serve(arguments: ServerArguments) -> Result<(), BenchError> {
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_from_env("BUILDFLOW_LOG").unwrap_or_else(|_| EnvFilter::new("info")))
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(false)
        .init();
    super::raise_open_files();
    // As the role does.
    nix::sys::prctl::set_thp_disable(true).map_err(|e| stopped("memory", &e))?;
    std::thread::spawn(|| {
        // Any end of it is the end of the measurement.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    let shutdown = CancellationToken::new();
    let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
        .map_err(|e| stopped("signals", &e))?;
    let stop = shutdown.clone();
    tokio::spawn(async move {
        terminated.recv().await;
        stop.cancel();
    });
    let listener = TcpListener::bind(("127.0.0.1", 0))
        .await
        .map_err(|e| stopped("port", &e))?;
    let address = listener.local_addr().map_err(|e| stopped("port", &e))?;
    let url = format!("http://{address}");
    let store = open_store(&arguments).await?;
    let scheduler = Scheduler::start(Arc::clone(&store), scheduler_config(&arguments), shutdown.clone());
    let handed_over = scheduler.when_handed_over(shutdown.clone());
    let api = assemble(&arguments, &url, store, &scheduler, &handed_over)?;
    println!("{SERVING}{url}");
    let served = api.serve(listener, handed_over).await;
    shutdown.cancel();
    scheduler.wait().await;
    served.map_err(|e| stopped("port", &e))
}

async fn open_store(arguments: &ServerArguments) -> Result<Arc<dyn Store>, BenchError> {
    let config = EtcdConfig {
        prefix: super::etcd::PREFIX.to_owned(),
        ..EtcdConfig::plain(arguments.etcd.clone())
    };
    let store: Arc<dyn Store> = Arc::new(EtcdStore::connect(config).await.map_err(|e| stopped("store", &e))?);
    first_records(store.as_ref()).await?;
    Ok(store)
}

fn scheduler_config(arguments: &ServerArguments) -> SchedulerConfig {
    let mut config = SchedulerConfig::new(&arguments.name);
    config.handover_ms = scheduler_shell::HANDOVER_MS;
    config.lease = LeaseTimes {
        lease_ms: arguments.lease_ms,
        ..LeaseTimes::default()
    };
    config
}

fn assemble(
    arguments: &ServerArguments,
    url: &str,
    store: Arc<dyn Store>,
    scheduler: &scheduler_shell::SchedulerHandle,
    shutdown: &CancellationToken,
) -> Result<Api, BenchError> {
    let blobs = FolderBlobs::open(&arguments.blobs).and_then(|blobs| blobs.with_public_url(url));
    let history = SqliteHistory::open(arguments.data.join("history")).map_err(|e| stopped("history", &e))?;
    let sources = Mirrors::new(arguments.data.join("git"), git_settings());
    let api = Api::new(
        ApiConfig {
            server_name: arguments.name.clone(),
            web_url: url.to_owned(),
            advertise: url.to_owned(),
            node_lease_ms: arguments.lease_ms,
            archive: ArchiveTimes {
                after_ms: arguments.archive_after_ms,
                ..ArchiveTimes::default()
            },
            keep: api::Keep::default(),
            // What the server can bear is looked for, not what one token may ask of it.
            allowance: api::Allowance {
                per_second: 1_000_000,
                burst: 1_000_000,
                at_once: 1_000_000,
                streams: 1_000_000,
            },
        },
        Deps {
            store,
            blobs: Arc::new(blobs.map_err(|e| stopped("blobs", &e))?),
            history: Arc::new(history),
            sources: Arc::new(sources.map_err(|e| stopped("mirrors", &e))?),
            explain: Arc::new(NoExplain),
            leading: scheduler.leading(),
            peers: reqwest::Client::new(),
            membership: None,
            shutdown: shutdown.clone(),
        },
    );
    api.add_metrics(scheduler.registry());
    Ok(api)
}

/// The repositories of a measurement lie on this machine.
fn git_settings() -> GitSettings {
    GitSettings {
        allow_file: true,
        ..GitSettings::default()
    }
}

async fn first_records(store: &dyn Store) -> Result<(), BenchError> {
    let failed = |e: store::StoreError| stopped("store", &e);
    let name = TeamName::new(TEAM).map_err(|e| stopped("team", &e))?;
    let team = TeamRecord {
        name: name.clone(),
        created_ms: 0,
        unknown: Unknown::new(),
    };
    let txn = Txn::new()
        .expect(key::team(&name), Expect::Absent)
        .put(key::team(&name), &team);
    store.commit(txn).await.map_err(failed)?;
    tokens::ensure(store, "admin", Role::Admin, ADMIN_TOKEN)
        .await
        .map_err(failed)?;
    tokens::ensure(store, "node", Role::Node, NODE_TOKEN)
        .await
        .map_err(failed)
}
