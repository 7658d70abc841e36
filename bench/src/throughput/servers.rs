//! The servers of a measurement, started, watched, paused, killed and stopped from outside.
//!
//! Not here: what runs in them (`serving`).

use super::serving::SERVING;
use super::usage::Usage;
use crate::BenchError;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// How long a server may take to serve, on a loaded machine.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// How all servers are started.
#[derive(Debug, Clone)]
pub(crate) struct ServerSettings {
    /// etcd's members.
    pub(crate) etcd: Vec<String>,
    /// Where all folders of the servers lie.
    pub(crate) folder: PathBuf,
    /// How long an ended run stays in the live store.
    pub(crate) archive_after: Duration,
    /// How long a node is believed in without a renewal.
    pub(crate) lease: Duration,
}

/// A server's process. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct ServerProcess {
    pub(crate) name: String,
    pub(crate) url: String,
    child: Child,
}

fn stopped(name: &str, cause: &dyn std::fmt::Display) -> BenchError {
    BenchError::Stopped(format!("{name}: {cause}"))
}

/// The end of a server's own log.
fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(3).collect();
    lines.join(" | ")
}

impl ServerProcess {
    /// Starts one and waits until it serves.
    pub(crate) async fn start(settings: &ServerSettings, name: &str) -> Result<Self, BenchError> {
        let failed = |e: std::io::Error| stopped(name, &e);
        let program = std::env::current_exe().map_err(failed)?;
        let data = settings.folder.join(name);
        std::fs::create_dir_all(&data).map_err(failed)?;
        let log = settings.folder.join(format!("{name}.log"));
        let mut command = Command::new(&program);
        // The program `buildflow` has the experiments below one word.
        if program.file_name().is_some_and(|file| file == "buildflow") {
            command.arg("bench");
        }
        command.args(["throughput-server", "--name", name]);
        command.args(["--etcd", &settings.etcd.join(",")]);
        command.arg("--data").arg(&data);
        command.arg("--blobs").arg(settings.folder.join("blobs"));
        command.args(["--archive-after-ms", &settings.archive_after.as_millis().to_string()]);
        command.args(["--lease-ms", &settings.lease.as_millis().to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        command.stderr(File::create(&log).map_err(failed)?).kill_on_drop(true);
        let mut child = command.spawn().map_err(failed)?;
        let mut lines = BufReader::new(child.stdout.take().ok_or_else(|| stopped(name, &"no output"))?).lines();
        let line = tokio::time::timeout(START_TIMEOUT, lines.next_line()).await;
        let url = match line {
            Ok(Ok(Some(line))) => line.strip_prefix(SERVING).map(str::to_owned),
            _ => None,
        };
        let url = url.ok_or_else(|| stopped(name, &format!("does not serve: {}", tail(&log))))?;
        Ok(Self {
            name: name.to_owned(),
            url,
            child,
        })
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// `kill -9`, `kill -STOP`, `kill -CONT`, `kill -TERM`.
    pub(crate) fn signal(&self, signal: Signal) -> Result<(), BenchError> {
        let pid = self.pid().and_then(|pid| i32::try_from(pid).ok());
        let pid = pid.ok_or_else(|| stopped(&self.name, &"has ended"))?;
        kill(Pid::from_raw(pid), signal).map_err(|e| stopped(&self.name, &e))
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self) -> Result<(), BenchError> {
        let ended = tokio::time::timeout(START_TIMEOUT, self.child.wait()).await;
        match ended {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(e)) => Err(stopped(&self.name, &e)),
            Err(_) => Err(stopped(&self.name, &"does not end")),
        }
    }
}

/// What all of them have used.
pub(crate) fn usage(servers: &[ServerProcess]) -> Usage {
    let pids: Vec<u32> = servers.iter().filter_map(ServerProcess::pid).collect();
    Usage::of(&pids)
}
