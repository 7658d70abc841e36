//! `buildflow dev`: server and agent in one process on one folder. They talk gRPC even here.

use crate::config::{DEFAULT_PORT, ServerFile, Span};
use crate::error::Failure;
use crate::logging::LogFormat;
use crate::{agent, folder, limits, logging, ports, server, signals};
use clap::Args;
use node_agent_shell::AgentConfig;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
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
    let mut address = listener.local_addr().map_err(|e| Failure::Internal(e.to_string()))?;
    let server_data = folder::prepare(&data.join("server"))?;
    if address.ip().is_unspecified() {
        // To listen at; on this machine itself it is reached by the loopback.
        address.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    let mut file = ServerFile::alone(server_data.clone(), address, "dev");
    file.advertise = Some(format!("http://{address}"));
    file.node_lease = NODE_LEASE;
    file.file_repositories = true;
    file.log = arguments.log_format;
    let tokens = server::tokens_of(&file, &server_data)?;
    let node_token = tokens.node.clone().unwrap_or_default();
    let mut agent_config = agent_config(&arguments, &data, address, &node_token, images)?;
    let mirrors = server::mirrors_of(&file, &server_data)?;
    agent_config.mirrors = Some(mirrors.clone());
    announce(&data, address, &tokens.admin)?;

    let both = shutdown.child_token();
    let serving = server::serve(&file, &server_data, listener, &tokens, mirrors, both.clone());
    let running = agent::run(agent_config, both.clone());
    let (served, ran) = tokio::join!(ended(serving, &both), ended(running, &both));
    let _ = std::fs::remove_file(data.join("env"));
    served.and(ran)
}

/// When one of the two ends, the other is asked to end as well.
async fn ended(role: impl Future<Output = Result<(), Failure>>, both: &CancellationToken) -> Result<(), Failure> {
    let result = role.await;
    both.cancel();
    result
}

fn agent_config(
    arguments: &DevArguments,
    data: &Path,
    server: SocketAddr,
    token: &str,
    images: Vec<PathBuf>,
) -> Result<AgentConfig, Failure> {
    let agent_data = folder::prepare(&data.join("agent"))?;
    let mut config = AgentConfig::new(
        vec![format!("http://{server}")],
        token,
        &agent_data,
        agent::run_folder(&agent_data),
    );
    config.capacity.cpu_millis = arguments.cpu;
    config.git.allow_file = true;
    config.images.layout_dirs = images;
    Ok(config)
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

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    path.canonicalize()
        .map_err(|cause| Failure::Usage(format!("--images {}: {cause}", path.display())))
}

fn default_data() -> Result<PathBuf, Failure> {
    let home = std::env::var_os("HOME")
        .ok_or_else(|| Failure::Usage("HOME is not set; name a folder with --data".to_owned()))?;
    Ok(Path::new(&home).join(".local/share/buildflow/dev"))
}
