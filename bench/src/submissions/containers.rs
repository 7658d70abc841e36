//! From the submission to the first instruction of a real container: `buildflow dev`, one step a run,
//! whose first instruction prints the clock.
//!
//! One machine, so one clock on the wall for sender and step. Not here: simulated nodes.

use super::open_loop::{Submission, Submitted, ms, one, sorted, submit};
use super::repository::{Repository, Server};
use super::simulated::{heads, quantiles};
use super::{TriggerArguments, seconds};
use crate::BenchError;
use model::RunId;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

/// How long the program may take until it serves.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a run may take to end.
const RUN_TIMEOUT: Duration = Duration::from_secs(60);

/// Runs in flight while the machine's own rate of launches is measured.
const AT_ONCE: usize = 8;

/// How long that is measured.
const OWN_RATE_TIME: Duration = Duration::from_secs(15);

/// What a step of nothing takes of the node.
const RESOURCES: &str = "{ cpu: 0.05, memory: 32Mi, disk: 64Mi }";

/// `buildflow dev`, killed when dropped.
struct Dev {
    child: Child,
    server: Server,
    repository: Repository,
    _folder: tempfile::TempDir,
}

fn stopped(what: &str, cause: &dyn std::fmt::Display) -> BenchError {
    BenchError::Stopped(format!("{what}: {cause}"))
}

fn program(arguments: &TriggerArguments) -> Result<PathBuf, BenchError> {
    if let Some(program) = &arguments.program {
        return Ok(program.clone());
    }
    let own = std::env::current_exe().map_err(|e| stopped("this program", &e))?;
    if own.file_name().is_some_and(|name| name == "buildflow") {
        return Ok(own);
    }
    Err(BenchError::Arguments(
        "--program FILE: real containers need the program `buildflow`".to_owned(),
    ))
}

pub(super) async fn trigger(
    arguments: &TriggerArguments,
    images: &Path,
    out: &mut (dyn Write + Send),
) -> Result<(), BenchError> {
    let mut dev = Dev::start(arguments, images).await?;
    for _ in 0..3 {
        dev.first_instruction_of_one().await?;
    }
    let own_rate = dev.own_rate().await?;
    let time = seconds(arguments.seconds);
    writeln!(
        out,
        "\nreal containers, image `{}`; this machine starts {own_rate:.1} steps a second with {AT_ONCE} runs in flight",
        arguments.image
    )?;
    let mut table = heads("trigger, real containers, ms");
    let mut notes = Vec::new();
    for (what, rate) in [("1 a second", 1.0), ("half of that rate", (own_rate / 2.0).max(0.1))] {
        let submitted = submit(&dev.server, &dev.repository, 1, rate, time).await;
        let (row, lost) = dev.first_instructions(&submitted).await;
        table.row(quantiles(
            &format!("{what}: submitted -> answered"),
            &submitted.answers_ms(),
        ));
        table.row(quantiles(&format!("{what}: submitted -> first instruction"), &row));
        let count = submitted.all.len();
        notes.push(format!(
            "{what}: {count} submissions, {} failed, {lost} without an instruction",
            submitted.failures()
        ));
        notes.extend(submitted.first_failure().map(str::to_owned));
    }
    table.print(out)?;
    for note in notes {
        writeln!(out, "  {note}")?;
    }
    dev.stop().await
}

impl Dev {
    async fn start(arguments: &TriggerArguments, images: &Path) -> Result<Self, BenchError> {
        let folder = tempfile::TempDir::with_prefix("bench-trigger-").map_err(|e| stopped("a folder", &e))?;
        let sources = folder.path().join("repository");
        std::fs::create_dir(&sources)?;
        let file = format!(
            "stages:\n  - name: build\n    steps:\n      - name: first\n        image: 'oci:{}'\n        shell: bash\n        run: echo $EPOCHREALTIME\n        resources: {RESOURCES}\n",
            arguments.image
        );
        let repository = Repository::make(&sources, &file)?;
        let data = folder.path().join("data");
        let log = File::create(folder.path().join("dev.log"))?;
        let mut command = Command::new(program(arguments)?);
        command
            .arg("dev")
            .arg("--data")
            .arg(&data)
            .args(["--listen", "127.0.0.1:0"]);
        command.arg("--images").arg(images);
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true);
        let mut child = command.spawn().map_err(|e| stopped("buildflow dev", &e))?;
        let (url, token) = serving(&mut child, &data, &folder.path().join("dev.log")).await?;
        let server = Server {
            http: reqwest::Client::new(),
            urls: vec![url],
            token,
            team: "default".to_owned(),
        };
        repository.register(&server, 1).await?;
        Ok(Self {
            child,
            server,
            repository,
            _folder: folder,
        })
    }

    /// Submits, waits for the end, and tells when the first instruction was.
    async fn first_instruction_of_one(&self) -> Result<SystemTime, BenchError> {
        let run = one(&self.server, &self.repository, 1).await;
        let run = run.map_err(|e| stopped("a submission", &e))?;
        first_instruction(&self.server, &run).await
    }

    /// Steps a second with [`AT_ONCE`] runs in flight.
    async fn own_rate(&self) -> Result<f64, BenchError> {
        let (began, mut ended) = (Instant::now(), 0_u32);
        let mut tasks = JoinSet::new();
        loop {
            while tasks.len() < AT_ONCE && began.elapsed() < OWN_RATE_TIME {
                let (server, repository) = (self.server.clone(), self.repository.clone());
                tasks.spawn(async move {
                    let run = one(&server, &repository, 1)
                        .await
                        .map_err(|e| stopped("a submission", &e))?;
                    first_instruction(&server, &run).await
                });
            }
            match tasks.join_next().await {
                Some(done) => {
                    done.map_err(|e| stopped("a run", &e))??;
                    ended += 1;
                }
                None => return Ok(f64::from(ended) / began.elapsed().as_secs_f64()),
            }
        }
    }

    /// From the due moment to the first instruction, milliseconds, sorted; and how many had none.
    async fn first_instructions(&self, submitted: &Submitted) -> (Vec<f32>, usize) {
        let (mut row, mut lost) = (Vec::new(), 0);
        for submission in &submitted.all {
            let Submission {
                run: Ok(run), due_at, ..
            } = submission
            else {
                continue;
            };
            match first_instruction(&self.server, run).await {
                Ok(at) => row.push(ms(at.duration_since(*due_at).unwrap_or_default())),
                Err(_) => lost += 1,
            }
        }
        (sorted(row), lost)
    }

    async fn stop(&mut self) -> Result<(), BenchError> {
        let pid = self.child.id().and_then(|pid| i32::try_from(pid).ok());
        if let Some(pid) = pid {
            let pid = nix::unistd::Pid::from_raw(pid);
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).map_err(|e| stopped("buildflow dev", &e))?;
        }
        let ended = tokio::time::timeout(START_TIMEOUT, self.child.wait()).await;
        ended.map_err(|_| stopped("buildflow dev", &"does not end"))??;
        Ok(())
    }
}

/// Waits until the program serves; its address and a token.
async fn serving(child: &mut Child, data: &Path, log: &Path) -> Result<(String, String), BenchError> {
    let deadline = Instant::now() + START_TIMEOUT;
    let said = || std::fs::read_to_string(log).unwrap_or_default();
    while Instant::now() < deadline {
        if child.try_wait()?.is_some() {
            break;
        }
        let text = std::fs::read_to_string(data.join("env")).unwrap_or_default();
        let value = |name: &str| {
            let line = text
                .lines()
                .find_map(|l| l.trim_start_matches("export ").strip_prefix(name))?;
            Some(line.trim_matches(['"', '\'']).to_owned())
        };
        if let (Some(url), Some(token)) = (value("BUILDFLOW_ADDR="), value("BUILDFLOW_TOKEN=")) {
            let ready = reqwest::get(format!("{url}/readyz")).await;
            if ready.is_ok_and(|answer| answer.status().is_success()) {
                return Ok((url, token));
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err(stopped("buildflow dev does not serve", &said().trim()))
}

/// What the run's only step printed: its clock.
async fn first_instruction(server: &Server, run: &RunId) -> Result<SystemTime, BenchError> {
    let url = format!("{}/api/v1/runs/{run}/logs?follow=true", server.urls[0]);
    let request = server.http.get(url).header("Accept", "text/plain").timeout(RUN_TIMEOUT);
    let answer = request.bearer_auth(&server.token).send().await;
    let text = match answer {
        Ok(answer) => answer.text().await,
        Err(error) => Err(error),
    };
    let text = text.map_err(|e| stopped("a log", &e))?;
    let clock = text.split_whitespace().rev().find_map(|word| {
        let (seconds, parts) = word.split_once('.')?;
        let whole = seconds.len() == 10 && parts.len() == 6;
        whole.then(|| word.parse::<f64>().ok()).flatten()
    });
    let clock = clock.ok_or_else(|| stopped("a log without the clock", &text))?;
    Ok(UNIX_EPOCH + Duration::from_secs_f64(clock))
}
