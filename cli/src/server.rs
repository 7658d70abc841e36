//! The role `server`: the embedded store, the scheduler, and the API on one port.

use crate::config::{RoleArguments, ServerFile, only_checked, read};
use crate::error::Failure;
use crate::explaining::Explaining;
use crate::{folder, limits, logging, ports, signals};
use api::{Api, ApiConfig, Deps, tokens};
use git_mirror::{GitSettings, Mirrors};
use model::{Role, TeamName, TeamRecord, key, record::Unknown};
use scheduler_shell::{Scheduler, SchedulerConfig};
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use store::sqlite::SqliteStore;
use store::{BlobStore, Expect, FolderBlobs, Store, Txn};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// The team that everything belongs to until teams can be made.
const DEFAULT_TEAM: &str = "default";

/// How long a server believes in a silent node, milliseconds.
const NODE_LEASE_MS: u64 = 20_000;

/// The tokens of this server's own folder.
pub(crate) struct Tokens {
    /// For people: everything of the API.
    pub(crate) admin: String,
    /// For agents: their stream only.
    pub(crate) node: String,
}

/// `buildflow server --config FILE`.
pub(crate) async fn run_role(arguments: RoleArguments) -> Result<(), Failure> {
    let file: ServerFile = read(&arguments.config)?;
    if only_checked(&arguments, &file)? {
        return Ok(());
    }
    logging::start(file.log, "info");
    limits::raise_open_files();
    let shutdown = signals::shutdown_on_signal().map_err(|e| Failure::Internal(e.to_string()))?;
    let data = folder::prepare(&file.data)?;
    let _lock = folder::lock(&data)?;
    let listener = ports::bind(file.listen, "`listen`").await?;
    let tokens = tokens_of(&data)?;
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

/// Reads this server's tokens, made at its first start: `admin-token` and `node-token`.
pub(crate) fn tokens_of(data: &Path) -> Result<Tokens, Failure> {
    Ok(Tokens {
        admin: folder::secret(&data.join("admin-token"), tokens::random)?,
        node: folder::secret(&data.join("node-token"), tokens::random)?,
    })
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
    let store = open_store(data)?;
    let blobs: Arc<dyn BlobStore> =
        Arc::new(FolderBlobs::open(data.join("blobs")).map_err(|e| internal("the blob folder", &e))?);
    first_records(store.as_ref(), tokens)
        .await
        .map_err(|e| internal("the store", &e))?;

    let address = listener.local_addr().map_err(|e| internal("the listener", &e))?;
    let web_url = file.url.clone().unwrap_or_else(|| format!("http://{address}"));
    let scheduler = Scheduler::start(Arc::clone(&store), SchedulerConfig::new(&file.name), shutdown.clone());
    let deps = Deps {
        store,
        blobs,
        sources: Arc::new(mirrors),
        explain: Arc::new(Explaining::new(scheduler.clone())),
        leading: scheduler.leading(),
        peers: reqwest::Client::new(),
        shutdown: shutdown.clone(),
    };
    let config = ApiConfig {
        server_name: file.name.clone(),
        web_url,
        advertise: String::new(),
        node_lease_ms: NODE_LEASE_MS,
    };
    let api = Api::new(config, deps);
    api.add_metrics(scheduler.registry());
    tracing::info!(%address, server = %file.name, "serving");
    let served = api.serve(listener, shutdown.clone()).await;
    shutdown.cancel();
    scheduler.wait().await;
    served.map_err(|e| internal("the server", &e))
}

fn open_store(data: &Path) -> Result<Arc<dyn Store>, Failure> {
    let store = SqliteStore::open(data.join("store")).map_err(|e| Failure::Internal(e.to_string()))?;
    Ok(Arc::new(store))
}

/// What must be there before the first request: the default team and this folder's tokens.
async fn first_records(store: &dyn Store, tokens: &Tokens) -> Result<(), store::StoreError> {
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
    tokens::ensure(store, "node", Role::Node, &tokens.node).await
}
