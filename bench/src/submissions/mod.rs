//! `bench api` and `bench trigger`: runs submitted over REST in an open loop, as strangers do: nobody
//! waits for an answer before the next one submits, and a late start counts as latency.
//!
//! | module | what |
//! |---|---|
//! | `repository` | the git repository and the pipelines that are submitted |
//! | `open_loop` | submissions at a rate, and what became of each |
//! | `simulated` | servers over a real etcd, nodes that run nothing |
//! | `containers` | `buildflow dev` with real containers |
//!
//! Not here: the most steps that go through (`throughput`).

mod containers;
mod open_loop;
mod repository;
mod simulated;

use crate::BenchError;
use clap::{Args, Parser};
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

/// `bench api`.
#[derive(Debug, Clone, Args)]
pub struct ApiArguments {
    #[command(flatten)]
    cluster: ClusterArguments,
    /// Submissions a second
    #[arg(long, default_value_t = 300.0)]
    rate: f64,
    /// For how long, seconds
    #[arg(long, default_value_t = 300)]
    seconds: u64,
    /// Each further rate is so many times the one before, until it breaks; 1 looks for none
    #[arg(long, default_value_t = 1.5)]
    growth: f64,
    /// How long each further rate is kept, seconds
    #[arg(long, default_value_t = 15)]
    step_seconds: u64,
    /// Draw a plot into this folder
    #[arg(long)]
    out: Option<PathBuf>,
}

/// `bench trigger`.
#[derive(Debug, Clone, Args)]
pub struct TriggerArguments {
    #[command(flatten)]
    cluster: ClusterArguments,
    /// Submissions a second to simulated nodes
    #[arg(long, default_value_t = 300.0)]
    rate: f64,
    /// How long each part is measured, seconds
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// A folder of OCI image layouts, for the part with real containers; it needs root
    #[arg(long, value_name = "FOLDER")]
    images: Option<PathBuf>,
    /// The image layout in it that steps use; it has bash
    #[arg(long, default_value = "base")]
    image: String,
    /// The program `buildflow` for real containers [default: this one, when it is `buildflow`]
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
    /// Leave the simulated nodes out
    #[arg(long, requires = "images")]
    only_containers: bool,
}

/// What both stand on.
#[derive(Debug, Clone, Args)]
struct ClusterArguments {
    /// Members of etcd
    #[arg(long, default_value_t = 1)]
    etcd: usize,
    /// Servers; submissions go to them in turns
    #[arg(long, default_value_t = 1)]
    servers: usize,
    /// Simulated nodes
    #[arg(long, default_value_t = 1_200)]
    nodes: usize,
    /// Pipelines that submissions go to in turns
    #[arg(long, default_value_t = 50)]
    pipelines: usize,
    /// The longest that a step runs, milliseconds; each runs a random part of it
    #[arg(long, default_value_t = 500)]
    run_ms: u64,
    /// How long an ended run stays in the live store, seconds
    #[arg(long, default_value_t = 30)]
    archive_after: u64,
    /// Keep the servers' folders and logs here
    #[arg(long)]
    keep: Option<PathBuf>,
}

impl ClusterArguments {
    /// As the measurements of `throughput` take it.
    fn stage(&self) -> Result<crate::throughput::ThroughputArguments, BenchError> {
        #[derive(Debug, Parser)]
        struct Line {
            #[command(flatten)]
            arguments: crate::throughput::ThroughputArguments,
        }
        let mut words = vec!["throughput".to_owned()];
        let numbers = [
            ("--etcd", self.etcd as u64),
            ("--servers", self.servers as u64),
            ("--nodes", self.nodes as u64),
            ("--run-ms", self.run_ms),
            ("--archive-after", self.archive_after),
        ];
        for (name, number) in numbers {
            words.extend([name.to_owned(), number.to_string()]);
        }
        if let Some(keep) = &self.keep {
            words.extend(["--keep".to_owned(), keep.display().to_string()]);
        }
        let line = Line::try_parse_from(words).map_err(|e| BenchError::Arguments(e.to_string()))?;
        Ok(line.arguments)
    }

    fn check(&self) -> Result<(), BenchError> {
        if self.pipelines == 0 || self.pipelines > 10_000 {
            return Err(BenchError::Arguments("--pipelines: 1 to 10000".to_owned()));
        }
        Ok(())
    }
}

fn check_rate(rate: f64) -> Result<(), BenchError> {
    if (0.1..=100_000.0).contains(&rate) {
        return Ok(());
    }
    Err(BenchError::Arguments("--rate: 0.1 to 100000".to_owned()))
}

/// How soon submissions are answered, and where it breaks.
pub(crate) async fn api(arguments: &ApiArguments, out: &mut (dyn Write + Send)) -> Result<(), BenchError> {
    arguments.cluster.check()?;
    check_rate(arguments.rate)?;
    if !(1.0..=10.0).contains(&arguments.growth) {
        return Err(BenchError::Arguments("--growth: 1 to 10".to_owned()));
    }
    simulated::api(arguments, out).await
}

/// From the submission to the first instruction.
pub(crate) async fn trigger(arguments: &TriggerArguments, out: &mut (dyn Write + Send)) -> Result<(), BenchError> {
    arguments.cluster.check()?;
    check_rate(arguments.rate)?;
    if !arguments.only_containers {
        simulated::trigger(arguments, out).await?;
    }
    match &arguments.images {
        Some(images) => containers::trigger(arguments, images, out).await,
        None => {
            writeln!(
                out,
                "\nskipped: real containers; --images FOLDER names image layouts, `scripts/base-image FOLDER/base` makes one"
            )?;
            Ok(())
        }
    }
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count.max(1))
}
