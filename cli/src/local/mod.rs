//! `buildflow run --local`: the pipeline of a folder runs here and now, uncommitted files included.
//!
//! What runs it is what `buildflow dev` is made of, on folders of its own that are gone afterwards:
//! the same compiler, scheduler, agent and sandbox, reached by a token that only this process knows.
//! Images stay for the next time.
//!
//! | module | what |
//! |---|---|
//! | `snapshot` | the folder as a commit of a repository of its own |
//! | `files` | which pipeline file is meant, and files of variables |
//!
//! Not here: how a run is started and followed (`client`).

mod files;
mod snapshot;

pub(crate) use files::variables_of;
pub(crate) use snapshot::{Name, Snapshot};

use crate::dev::{self, Everything};
use crate::error::Failure;
use crate::logging::LogFormat;
use crate::{agent, folder, limits, logging, signals};
use node_agent_shell::AgentMetrics;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How often another local run is looked for while it has the folder.
const LOCK_LOOK: Duration = Duration::from_millis(200);

/// How long everything may take to end.
const END_TIMEOUT: Duration = Duration::from_secs(30);

/// How long the agent may take to tell and to remove what is left of the run. The next local run finds what is
/// left then.
const REST_TIMEOUT: Duration = Duration::from_secs(10);

/// How often that is looked at.
const REST_LOOK: Duration = Duration::from_millis(10);

/// What is to be run.
#[derive(Debug)]
pub(crate) struct Wanted<'a> {
    /// The folder.
    pub(crate) path: &'a Path,
    /// The branch or tag as which it counts; `None`: the branch that is checked out.
    pub(crate) name: Option<Name>,
    /// The name of one of several pipeline files.
    pub(crate) pipeline: Option<&'a str>,
    /// Folders of image layouts.
    pub(crate) images: &'a [PathBuf],
}

/// A server and an agent for one run, and the folder's content in their repository.
pub(crate) struct Local {
    /// Where it is served.
    pub(crate) address: SocketAddr,
    /// A token for everything.
    pub(crate) token: String,
    /// What is to be run.
    pub(crate) snapshot: Snapshot,
    /// Path of the pipeline file in it.
    pub(crate) file: String,
    /// Cancelled by the first signal.
    pub(crate) interrupted: CancellationToken,
    agent: AgentMetrics,
    stop: CancellationToken,
    running: JoinHandle<Result<(), Failure>>,
    _temporary: TempDir,
    _lock: File,
}

impl Local {
    /// Takes the snapshot and starts everything. `say` is told what takes time.
    pub(crate) async fn start(wanted: &Wanted<'_>, say: impl Fn(&str)) -> Result<Self, Failure> {
        agent::require_root("run --local")?;
        let top = snapshot::top(wanted.path)?;
        let file = files::pipeline_file(&top, wanted.pipeline)?;
        logging::start(LogFormat::default(), "error");
        limits::raise_open_files();
        let interrupted = signals::shutdown_on_signal().map_err(|e| Failure::Internal(e.to_string()))?;
        let data = folder::prepare(&data_folder()?)?;
        let lock = locked(&data, &interrupted, &say).await?;
        let temporary = TempDir::with_prefix_in("run-", &data)
            .map_err(|e| Failure::Internal(format!("{}: {e}", data.display())))?;
        let repository = temporary.path().join("repository");
        let (name, taken) = (wanted.name.clone(), top.clone());
        let snapshot = tokio::task::spawn_blocking(move || Snapshot::take(&taken, &repository, name));
        let snapshot = snapshot.await.map_err(|e| Failure::Internal(e.to_string()))??;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.map_err(|e| Failure::Internal(format!("no port on the loopback: {e}")))?;
        let everything = Everything {
            server_data: folder::prepare(&temporary.path().join("server"))?,
            agent_data: folder::prepare(&data.join("agent"))?,
            images: wanted
                .images
                .iter()
                .map(|f| dev::absolute(f))
                .collect::<Result<_, _>>()?,
            cpu_millis: None,
            log: LogFormat::default(),
        };
        let stop = CancellationToken::new();
        let (reached, running) = everything.start(listener, stop.clone())?;
        Ok(Self {
            address: reached.address,
            token: reached.token,
            snapshot,
            file,
            interrupted,
            agent: reached.agent,
            stop,
            running: tokio::spawn(running),
            _temporary: temporary,
            _lock: lock,
        })
    }

    /// Ends everything; nothing of the run stays but its images.
    pub(crate) async fn end(self) -> Result<(), Failure> {
        let rest = Instant::now() + REST_TIMEOUT;
        while self.agent.holds_something() && Instant::now() < rest {
            tokio::time::sleep(REST_LOOK).await;
        }
        self.stop.cancel();
        match tokio::time::timeout(END_TIMEOUT, self.running).await {
            Ok(Ok(ended)) => ended,
            Ok(Err(crashed)) => Err(Failure::Internal(crashed.to_string())),
            Err(_) => Err(Failure::Internal("the agent does not end".to_owned())),
        }
    }
}

/// Two local runs would meet in the store of images.
async fn locked(data: &Path, interrupted: &CancellationToken, say: &impl Fn(&str)) -> Result<File, Failure> {
    let mut told = false;
    loop {
        match folder::lock(data) {
            Ok(lock) => return Ok(lock),
            Err(failure) if interrupted.is_cancelled() => return Err(failure),
            Err(_) => {}
        }
        if !std::mem::replace(&mut told, true) {
            say("another local run is going on; waiting for its end");
        }
        tokio::time::sleep(LOCK_LOOK).await;
    }
}

fn data_folder() -> Result<PathBuf, Failure> {
    let home = std::env::var_os("HOME").ok_or_else(|| Failure::Usage("HOME is not set".to_owned()))?;
    Ok(Path::new(&home).join(".local/share/buildflow/local"))
}
