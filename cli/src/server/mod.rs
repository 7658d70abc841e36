//! The role `server`: its engines, the scheduler, and the API on one port.
//!
//! | module | what |
//! |---|---|
//! | `engines` | live store, blobs, history, opened as the file says |
//! | `certificates` | what the server shows, kept fresh |
//!
//! Not here: what any of them does.

mod certificates;
pub(crate) mod engines;

use crate::config::{RoleArguments, ServerFile, StoreFile, only_checked, read, read_secret};
use crate::error::Failure;
use crate::explaining::Explaining;
use crate::{folder, limits, logging, ports, signals};
use api::fleet::join::Membership;
use api::{Api, ApiConfig, ArchiveTimes, Deps, tokens};
use engines::{Engines, NotYet, Reasons, until_there};
use git_mirror::{GitSettings, Mirrors};
use model::record::Unknown;
use model::{ClusterAuthority, Role, TeamName, TeamRecord, key};
use scheduler::LeaseTimes;
use scheduler_shell::{Scheduler, SchedulerConfig, SchedulerHandle};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use store::{Expect, Store, StoreError, Txn};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The team that everything belongs to until teams can be made.
const DEFAULT_TEAM: &str = "default";

/// How long a connection to another server may take to be made.
const PEER_CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// The tokens of this server's own folder.
pub(crate) struct Tokens {
    /// For people: everything of the API.
    pub(crate) admin: String,
    /// For agents: their stream only; `None` where nodes have certificates.
    pub(crate) node: Option<String>,
}

/// `buildflow server --config FILE`.
pub(crate) async fn run_role(arguments: RoleArguments) -> Result<(), Failure> {
    let file: ServerFile = read(&arguments.config)?;
    if only_checked(&arguments, &file)? {
        return Ok(());
    }
    logging::start(file.log, "info");
    limits::raise_open_files();
    limits::small_pages();
    let shutdown = signals::shutdown_on_signal().map_err(|e| Failure::Internal(e.to_string()))?;
    let data = folder::prepare(&file.data)?;
    let _lock = folder::lock(&data)?;
    let listener = ports::bind(file.listen, "`listen`").await?;
    let tokens = tokens_of(&file, &data)?;
    let mirrors = mirrors_of(&file, &data)?;
    serve(&file, &data, listener, &tokens, mirrors, shutdown).await
}

/// The mirrors of the repositories whose pipelines this server reads.
pub(crate) fn mirrors_of(file: &ServerFile, data: &Path) -> Result<Mirrors, Failure> {
    let git = GitSettings {
        allow_file: file.file_repositories,
        ..Default::default()
    };
    Mirrors::new(data.join("git"), git).map_err(|e| Failure::Internal(format!("the git mirrors: {e}")))
}

/// This server's tokens: named by its file, or made in its folder at its first start.
pub(crate) fn tokens_of(file: &ServerFile, data: &Path) -> Result<Tokens, Failure> {
    let admin = match &file.admin_token_file {
        Some(path) => read_secret(path)?,
        None => folder::secret(&data.join("admin-token"), tokens::random)?,
    };
    let node = match &file.tls {
        Some(_) => None,
        None => Some(folder::secret(&data.join("node-token"), tokens::random)?),
    };
    Ok(Tokens { admin, node })
}

/// Serves until `shutdown`; steps that run go on meanwhile.
pub(crate) async fn serve(
    file: &ServerFile,
    data: &Path,
    listener: TcpListener,
    tokens: &Tokens,
    mirrors: Mirrors,
    shutdown: CancellationToken,
) -> Result<(), Failure> {
    let internal = |what: &str, cause: &dyn std::fmt::Display| Failure::Internal(format!("{what}: {cause}"));
    let address = listener.local_addr().map_err(|e| internal("the listener", &e))?;
    let membership = certificates::membership(file, address)?;
    let opened = open(file, data, &listener, address, tokens, membership.clone(), &shutdown).await?;
    let Some(engines) = opened else { return Ok(()) };

    let scheduler = Scheduler::start(Arc::clone(&engines.store), scheduler_config(file), shutdown.clone());
    // Nodes come over to other servers only when one of those leads.
    let handed_over = scheduler.when_handed_over(shutdown.clone());
    let deps = deps(engines, mirrors, &scheduler, membership.clone(), &handed_over)?;
    let advertise = file.advertised(address);
    let config = ApiConfig {
        server_name: file.name.clone(),
        web_url: file.url.clone().unwrap_or_else(|| advertise.clone()),
        advertise,
        node_lease_ms: file.node_lease.ms(),
        archive: ArchiveTimes::default(),
        keep: file.keep.clone().into(),
        allowance: file.per_token.clone().into(),
    };
    let api = Api::new(config, deps);
    api.add_metrics(scheduler.registry());
    let fresh = file
        .tls
        .clone()
        .zip(membership)
        .map(|(tls, membership)| tokio::spawn(certificates::keep_fresh(tls, membership, shutdown.clone())));
    tracing::info!(%address, server = %file.name, tls = file.tls.is_some(), "serving");
    let served = api.serve(listener, handed_over).await;
    shutdown.cancel();
    scheduler.wait().await;
    if let Some(fresh) = fresh {
        // It ends with the token, or has panicked, which was told.
        let _ = fresh.await;
    }
    served.map_err(|e| internal("the server", &e))
}

/// Opens the engines and writes the first records, while the port already says what is missing.
/// `None`: the server is to stop.
async fn open(
    file: &ServerFile,
    data: &Path,
    listener: &TcpListener,
    address: SocketAddr,
    tokens: &Tokens,
    membership: Option<Arc<Membership>>,
    shutdown: &CancellationToken,
) -> Result<Option<Engines>, Failure> {
    let (reasons, shown) = watch::channel(Vec::new());
    let there = shutdown.child_token();
    let tls = membership.as_ref().map(|m| m.tls().clone());
    let answering = api::answer_while_waiting(listener, tls, &file.name, shown, there.clone());
    let opening = async {
        let _ends_the_waiting = there.clone().drop_guard();
        let url = file.advertised(address);
        let Some(engines) = Engines::open(file, data, &url, &reasons, shutdown).await? else {
            return Ok(None);
        };
        let written = prepare(
            engines.store.as_ref(),
            tokens,
            membership.as_deref(),
            &reasons,
            shutdown,
        )
        .await?;
        Ok(written.map(|()| engines))
    };
    let ((), opened) = tokio::join!(answering, opening);
    opened
}

fn scheduler_config(file: &ServerFile) -> SchedulerConfig {
    let mut config = SchedulerConfig::new(&file.name);
    config.election_ttl_ms = file.election_lease.ms();
    config.handover_ms = match file.store {
        StoreFile::Etcd(_) => scheduler_shell::HANDOVER_MS,
        StoreFile::Embedded => 0,
    };
    config.lease = LeaseTimes {
        lease_ms: file.node_lease.ms(),
        grace_ms: file.node_grace.ms(),
    };
    config
}

fn deps(
    engines: Engines,
    mirrors: Mirrors,
    scheduler: &SchedulerHandle,
    membership: Option<Arc<Membership>>,
    shutdown: &CancellationToken,
) -> Result<Deps, Failure> {
    Ok(Deps {
        store: engines.store,
        blobs: engines.blobs,
        history: engines.history,
        sources: Arc::new(mirrors),
        explain: Arc::new(Explaining::new(scheduler.clone())),
        leading: scheduler.leading(),
        peers: peers(membership.as_deref())?,
        membership,
        shutdown: shutdown.clone(),
    })
}

/// Speaks to the other servers: shows this one's certificate and believes theirs alone.
fn peers(membership: Option<&Membership>) -> Result<reqwest::Client, Failure> {
    let failed = |cause: &dyn std::fmt::Display| Failure::Internal(format!("the client for other servers: {cause}"));
    let builder = reqwest::Client::builder()
        .connect_timeout(PEER_CONNECT_TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy();
    let builder = match membership {
        None => builder,
        Some(membership) => {
            let client = membership.tls().client().map_err(|e| failed(&e))?;
            builder.tls_backend_preconfigured(client.config())
        }
    };
    builder.build().map_err(|e| failed(&e))
}

/// What must be there before the first request: the default team and this folder's tokens. A store
/// of another cluster is refused.
async fn prepare(
    store: &dyn Store,
    tokens: &Tokens,
    membership: Option<&Membership>,
    reasons: &Reasons,
    shutdown: &CancellationToken,
) -> Result<Option<()>, Failure> {
    let cluster = membership.map(|m| m.tls().trust().cluster().to_string());
    until_there("the live store", reasons, shutdown, || async {
        let written = async {
            if let Some(cluster) = &cluster {
                claim(store, cluster).await?;
            }
            first_records(store, tokens).await.map_err(of_store)
        };
        written.await
    })
    .await
}

/// A store without room is waited for: its operator makes some while this server stands.
fn of_store(error: StoreError) -> NotYet {
    if error.retry() || matches!(error, StoreError::Full(_)) {
        NotYet::Unreachable(error.to_string())
    } else {
        NotYet::Wrong(Failure::Internal(format!("the live store: {error}")))
    }
}

/// Writes whose store this is, or finds that it is another cluster's.
async fn claim(store: &dyn Store, cluster: &str) -> Result<(), NotYet> {
    let record = ClusterAuthority {
        cluster: cluster.to_owned(),
        unknown: Unknown::new(),
    };
    let txn = Txn::new()
        .expect(key::CLUSTER_AUTHORITY, Expect::Absent)
        .put(key::CLUSTER_AUTHORITY, &record);
    store.commit(txn).await.map_err(of_store)?;
    let found = store.get(key::CLUSTER_AUTHORITY).await.map_err(of_store)?;
    let found = found.and_then(|entry| entry.decode::<ClusterAuthority>().ok());
    match found {
        Some(found) if found.cluster == cluster => Ok(()),
        found => {
            let theirs = found.map_or_else(|| "an unknown one".to_owned(), |f| f.cluster);
            Err(NotYet::Wrong(Failure::Usage(format!(
                "store: it holds the state of the cluster {theirs}, this server's certificate is of {cluster}; \
                 give each cluster a `prefix` of its own"
            ))))
        }
    }
}

async fn first_records(store: &dyn Store, tokens: &Tokens) -> Result<(), StoreError> {
    let name = TeamName::new(DEFAULT_TEAM).expect("a legal name");
    let created_ms = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_millis() as u64);
    let team = TeamRecord {
        name: name.clone(),
        created_ms,
        unknown: Unknown::new(),
    };
    // Refused when it is there already, which is as good.
    store
        .commit(
            Txn::new()
                .expect(key::team(&name), Expect::Absent)
                .put(key::team(&name), &team),
        )
        .await?;
    tokens::ensure(store, "admin", Role::Admin, &tokens.admin).await?;
    match &tokens.node {
        Some(node) => tokens::ensure(store, "node", Role::Node, node).await,
        None => Ok(()),
    }
}
