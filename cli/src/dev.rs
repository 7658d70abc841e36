//! `buildflow dev`: server and agent in one process on one folder. They talk gRPC even here.
//! `run --local` is made of the same two ([`Everything`]).

use crate::config::{DEFAULT_PORT, ServerFile, Span};
use crate::error::Failure;
use crate::logging::LogFormat;
use crate::{agent, folder, limits, logging, ports, server, signals};
use clap::Args;
use node_agent_shell::{AgentConfig, AgentMetrics};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// How long the server believes in the agent beside it: laptops sleep, and there is no other node
/// that its steps could go to.
const NODE_LEASE: Span = Span::seconds(600);

/// `buildflow dev`.
#[derive(Debug, Args)]
pub(crate) struct DevArguments {
    /// Where everything is kept; the next start goes on with it [default: ~/.local/share/buildflow/dev]
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// Where REST and gRPC are served; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value_t = SocketAddr::from(([127, 0, 0, 1], DEFAULT_PORT)))]
    listen: SocketAddr,
    /// A folder of OCI image layouts: `image: "oci:NAME"` is FOLDER/NAME; may be given several times
    #[arg(long, value_name = "FOLDER")]
    images: Vec<PathBuf>,
    /// CPU that steps may take in all, e.g. 8 or 0.5 [default: what the machine has]
    #[arg(long, value_name = "CORES", value_parser = cores)]
    cpu: Option<u64>,
    /// The form of its own log, on standard error
    #[arg(long, value_enum, default_value_t)]
    log_format: LogFormat,
}

fn cores(text: &str) -> Result<u64, String> {
    let cores: f64 = text.parse().map_err(|_| format!("`{text}` is not a number of cores"))?;
    if (0.001..=10_000.0).contains(&cores) {
        Ok((cores * 1000.0).round() as u64)
    } else {
        Err("between 0.001 and 10000".to_owned())
    }
}

/// Runs until SIGTERM or SIGINT.
pub(crate) async fn run(arguments: DevArguments) -> Result<(), Failure> {
    agent::require_root("dev")?;
    logging::start(arguments.log_format, "warn");
    limits::raise_open_files();
    let shutdown = signals::shutdown_on_signal().map_err(|e| Failure::Internal(e.to_string()))?;
    let data = folder::prepare(&arguments.data.clone().map_or_else(default_data, Ok)?)?;
    let _lock = folder::lock(&data)?;
    let images = arguments
        .images
        .iter()
        .map(|f| absolute(f))
        .collect::<Result<Vec<_>, _>>()?;

    let listener = ports::bind(arguments.listen, "--listen").await?;
    let everything = Everything {
        server_data: folder::prepare(&data.join("server"))?,
        agent_data: folder::prepare(&data.join("agent"))?,
        images,
        cpu_millis: arguments.cpu,
        log: arguments.log_format,
    };
    let (reached, running) = everything.start(listener, shutdown)?;
    announce(&data, reached.address, &reached.token)?;
    let ended = running.await;
    let _ = std::fs::remove_file(data.join("env"));
    ended
}

/// A server and an agent beside it.
#[derive(Debug)]
pub(crate) struct Everything {
    /// The server's folder.
    pub(crate) server_data: PathBuf,
    /// The agent's folder.
    pub(crate) agent_data: PathBuf,
    /// Folders of image layouts.
    pub(crate) images: Vec<PathBuf>,
    /// CPU that steps may take in all; `None`: what the machine has.
    pub(crate) cpu_millis: Option<u64>,
    /// The form of the log.
    pub(crate) log: LogFormat,
}

/// How the two are reached.
pub(crate) struct Reached {
    /// By REST and gRPC.
    pub(crate) address: SocketAddr,
    /// A token for everything.
    pub(crate) token: String,
    /// The numbers of the agent.
    pub(crate) agent: AgentMetrics,
}

/// What runs server and agent until they have ended.
pub(crate) type Running = Pin<Box<dyn Future<Output = Result<(), Failure>> + Send>>;

impl Everything {
    /// How it is reached, and what runs it until `shutdown`.
    pub(crate) fn start(
        self,
        listener: TcpListener,
        shutdown: CancellationToken,
    ) -> Result<(Reached, Running), Failure> {
        let mut address = listener.local_addr().map_err(|e| Failure::Internal(e.to_string()))?;
        if address.ip().is_unspecified() {
            // To listen at; on this machine itself it is reached by the loopback.
            address.set_ip(Ipv4Addr::LOCALHOST.into());
        }
        let mut file = ServerFile::alone(self.server_data.clone(), address, "dev");
        file.advertise = Some(format!("http://{address}"));
        file.node_lease = NODE_LEASE;
        file.file_repositories = true;
        file.log = self.log;
        let tokens = server::tokens_of(&file, &self.server_data)?;
        let mirrors = server::mirrors_of(&file, &self.server_data)?;
        let mut agent_config = self.agent_config(address, tokens.node.clone().unwrap_or_default());
        agent_config.mirrors = Some(mirrors.clone());
        let reached = Reached {
            address,
            token: tokens.admin.clone(),
            agent: agent_config.metrics.clone(),
        };
        let running = async move {
            let both = shutdown.child_token();
            let serving = server::serve(&file, &self.server_data, listener, &tokens, mirrors, both.clone());
            let running = agent::run(agent_config, both.clone());
            let (served, ran) = tokio::join!(ended(serving, &both), ended(running, &both));
            served.and(ran)
        };
        Ok((reached, Box::pin(running)))
    }

    fn agent_config(&self, server: SocketAddr, token: String) -> AgentConfig {
        let servers = vec![format!("http://{server}")];
        let run_folder = agent::run_folder(&self.agent_data);
        let mut config = AgentConfig::new(servers, token, &self.agent_data, run_folder);
        config.capacity.cpu_millis = self.cpu_millis;
        config.git.allow_file = true;
        config.images.layout_dirs.clone_from(&self.images);
        config
    }
}

/// When one of the two ends, the other is asked to end as well.
async fn ended(role: impl Future<Output = Result<(), Failure>>, both: &CancellationToken) -> Result<(), Failure> {
    let result = role.await;
    both.cancel();
    result
}

/// Tells the person at the terminal, and scripts through `<data>/env`, how to reach it.
fn announce(data: &Path, address: SocketAddr, token: &str) -> Result<(), Failure> {
    let env = data.join("env");
    folder::write_private(
        &env,
        &format!("export BUILDFLOW_ADDR=http://{address}\nexport BUILDFLOW_TOKEN={token}\n"),
    )?;
    println!("BuildFlow serves at   http://{address}");
    println!("token                 {token}");
    println!("in a browser          http://{address}/login#token={token}");
    println!("for the client verbs  . {}", env.display());
    println!("ctrl-c stops it; running steps go on and are found again at the next start");
    Ok(())
}

/// The folder's canonical path.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    path.canonicalize()
        .map_err(|cause| Failure::Usage(format!("--images {}: {cause}", path.display())))
}

fn default_data() -> Result<PathBuf, Failure> {
    let home = std::env::var_os("HOME")
        .ok_or_else(|| Failure::Usage("HOME is not set; name a folder with --data".to_owned()))?;
    Ok(Path::new(&home).join(".local/share/buildflow/dev"))
}
