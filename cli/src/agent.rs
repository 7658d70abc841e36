//! The role `agent`: one node.

use crate::config::{AgentFile, AgentTlsFile, RoleArguments, only_checked, read, read_secret};
use crate::error::Failure;
use crate::{folder, limits, logging, ports, signals};
use clap::Args;
use model::NodeId;
use node_agent_shell::images::Credentials;
use node_agent_shell::{AgentConfig, TlsFiles};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use tokio_util::sync::CancellationToken;

/// `buildflow agent`.
#[derive(Debug, Args)]
pub(crate) struct AgentArguments {
    #[command(flatten)]
    role: RoleArguments,
}

/// `buildflow agent --config FILE`.
pub(crate) async fn run_role(arguments: AgentArguments) -> Result<(), Failure> {
    let file: AgentFile = read(&arguments.role.config)?;
    if only_checked(&arguments.role, &file)? {
        return Ok(());
    }
    require_root("agent")?;
    logging::start(file.log, "info");
    limits::raise_open_files();
    let shutdown = signals::shutdown_on_signal().map_err(|e| Failure::Internal(e.to_string()))?;
    let config = config_of(&file)?;
    if let Some(address) = file.metrics_listen {
        let listener = ports::bind(address, "`metrics_listen`").await?;
        tokio::spawn(ports::serve_agent_metrics(
            listener,
            config.metrics.clone(),
            shutdown.clone(),
        ));
    }
    run(config, shutdown).await
}

/// Runs an agent until `shutdown`.
pub(crate) async fn run(config: AgentConfig, shutdown: CancellationToken) -> Result<(), Failure> {
    // git takes the modes of a work tree from it, and a step's user must be able to read its sources.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    let run_folder = config.run_dir.clone();
    let result = node_agent_shell::run(config, shutdown).await;
    // The agent removes its own folder when nothing runs; the last one of the machine also this one.
    let _ = run_folder.parent().map(std::fs::remove_dir);
    result.map_err(|e| Failure::Internal(format!("agent: {e}")))
}

/// Containers, cgroups and overlay mounts are root's.
pub(crate) fn require_root(role: &str) -> Result<(), Failure> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    Err(Failure::NotAllowed(format!(
        "{role} needs root: it makes containers, cgroups and overlay mounts; run it with sudo"
    )))
}

/// The agent's settings from its file.
fn config_of(file: &AgentFile) -> Result<AgentConfig, Failure> {
    let data = folder::prepare(&file.data)?;
    let token = file
        .token_file
        .as_deref()
        .map(read_secret)
        .transpose()?
        .unwrap_or_default();
    let mut config = AgentConfig::new(file.servers.clone(), token, &data, run_folder(&data));
    if let Some(tls) = &file.tls {
        show_certificate(&mut config, tls)?;
    }
    config.name.clone_from(&file.name);
    config.capacity.cpu_millis = file.capacity.cpu_millis;
    config.capacity.memory_bytes = file.capacity.memory_bytes;
    config.capacity.disk_bytes = file.capacity.disk_bytes;
    config.slots = file.capacity.slots;
    config.labels.clone_from(&file.labels);
    config.git.allow_file = file.file_repositories;
    config.images.layout_dirs.clone_from(&file.images.folders);
    config.images.insecure_registries = file.images.insecure.iter().cloned().collect();
    for (host, credential) in &file.images.credentials {
        let credentials = Credentials {
            user: credential.user.clone(),
            password: read_secret(&credential.password_file)?,
        };
        config.images.registries.insert(host.clone(), credentials);
    }
    Ok(config)
}

/// The node's certificate says who it is. One that has ended is no reason not to start: the clock
/// may be wrong at boot, and the servers say what is to be done.
fn show_certificate(config: &mut AgentConfig, tls: &AgentTlsFile) -> Result<(), Failure> {
    let identity = pki::Identity::read(&tls.identity).map_err(|cause| Failure::Usage(format!("tls: {cause}")))?;
    let certificate = identity.certificate();
    certificate
        .check_role(pki::Role::Node)
        .map_err(|cause| Failure::Usage(format!("tls: {cause}")))?;
    let node = NodeId::new(certificate.name.as_str()).map_err(|cause| Failure::Usage(format!("tls: {cause}")))?;
    config.node_id = Some(node);
    config.tls = Some(TlsFiles {
        ca: tls.authority.clone(),
        certificate: tls.identity.clone(),
        key: tls.identity.clone(),
    });
    Ok(())
}

/// Where the agent's bundles lie: below `/run`, one folder for each data folder, short enough for
/// the paths of sockets in it.
pub(crate) fn run_folder(data: &Path) -> PathBuf {
    let digest = hex::encode(Sha256::digest(data.as_os_str().as_encoded_bytes()));
    Path::new("/run/buildflow").join(&digest[..12])
}
