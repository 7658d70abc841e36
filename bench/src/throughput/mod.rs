//! `bench throughput`: steps a second, durable from end to end, beside what etcd carries by itself in
//! the same run.
//!
//! Real servers (scheduler and API, each a process of its own) over a real etcd whose writes wait for
//! the disk; simulated nodes in this process speak the agents' stream. Nothing is left out between
//! the run's write and the step's folded end but the container.
//!
//! | module | what |
//! |---|---|
//! | `etcd` | etcd's members, what they count, their own rate |
//! | `serving`, `servers` | a server's process, from inside and from outside |
//! | `agent` | a simulated node |
//! | `load` | runs, written as intake writes them |
//! | `ledger` | what is in flight, and how long each leg took |
//! | `stage` | all of it together |
//! | `steady` | the measurement under steady load |
//! | `standby` | what standing by costs |
//! | `failover` | the leader killed, paused, stopped |
//! | `day` | a day of runs in compressed time |
//! | `usage` | CPU and memory of processes |
//!
//! Not here: containers, webhooks, repositories, TLS.

mod agent;
mod day;
mod etcd;
mod failover;
pub(crate) mod ledger;
mod load;
mod servers;
pub(crate) mod serving;
pub(crate) mod stage;
mod standby;
mod steady;
pub(crate) mod usage;

pub use serving::ServerArguments;

use crate::BenchError;
use clap::{Args, ValueEnum};
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

pub(crate) use serving::serve;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// As many steps as go through, then a tenth of it, for the latency
    Steady,
    /// Memory and CPU of a server without nodes and with all of them
    Standby,
    /// The leader is killed, paused, stopped: how long until the next placement
    Failover,
}

/// `bench throughput`.
#[derive(Debug, Clone, Args)]
pub struct ThroughputArguments {
    /// What is measured
    #[arg(long, value_enum, default_value = "steady")]
    only: Part,
    /// The same as `--only standby`
    #[arg(long)]
    idle: bool,
    /// The same as `--only failover`
    #[arg(long)]
    failover: bool,
    /// So many runs through one leader, archived as they end: does etcd stay small?
    #[arg(long, value_name = "RUNS")]
    day: Option<u64>,
    /// Runs a second of `--day`; without it as many as go through with `--live` in flight
    #[arg(long)]
    rate: Option<f64>,
    /// How long `--day` may take, seconds
    #[arg(long, default_value_t = 900)]
    at_most: u64,
    /// How often each fault of `--failover` happens
    #[arg(long, default_value_t = 5)]
    repetitions: usize,
    /// Live steps during the takeovers of `--failover`
    #[arg(long, default_value_t = 20_000)]
    live_steps: usize,
    /// The process of a running agent, to be watched by `--idle`
    #[arg(long, value_name = "PID")]
    agent: Vec<u32>,
    /// Teams that are registered in the last part of `--idle`
    #[arg(long, default_value_t = 5_000)]
    teams: usize,
    /// Pipelines that are registered in the last part of `--idle`
    #[arg(long, default_value_t = 50_000)]
    pipelines: usize,
    /// Members of etcd
    #[arg(long, value_delimiter = ',', default_value = "1,3")]
    etcd: Vec<usize>,
    /// Servers
    #[arg(long, default_value_t = 1)]
    servers: usize,
    /// Simulated nodes
    #[arg(long, default_value_t = 1_200)]
    nodes: usize,
    /// Steps at once on a node
    #[arg(long, default_value_t = 16)]
    slots: u32,
    /// Steps in each stage of a run
    #[arg(long, value_delimiter = ',', default_value = "1,3,3,1")]
    stages: Vec<usize>,
    /// Runs in flight
    #[arg(long, default_value_t = 2_000)]
    live: usize,
    /// From the order to the first instruction, milliseconds
    #[arg(long, default_value_t = 5)]
    prepare_ms: u64,
    /// The longest that a step runs, milliseconds; each runs a random part of it
    #[arg(long, default_value_t = 500)]
    run_ms: u64,
    /// Bytes of each step's log
    #[arg(long, default_value_t = 0)]
    log_bytes: usize,
    /// How long each part is measured, seconds
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// How long it runs before that, seconds
    #[arg(long, default_value_t = 5)]
    warm_up: u64,
    /// Proposals in flight when etcd's own rate is measured
    #[arg(long, default_value_t = 16)]
    in_flight: usize,
    /// How long an ended run stays in the live store, seconds
    #[arg(long, default_value_t = 3_600)]
    archive_after: u64,
    /// Draw plots into this folder
    #[arg(long)]
    out: Option<PathBuf>,
    /// Keep the servers' folders and logs here
    #[arg(long)]
    keep: Option<PathBuf>,
}

impl ThroughputArguments {
    fn check(&self) -> Result<(), BenchError> {
        let wrong = |text: &str| Err(BenchError::Arguments(text.to_owned()));
        if self.servers == 0 || self.nodes == 0 || self.slots == 0 || self.repetitions == 0 {
            return wrong("--servers, --nodes, --slots and --repetitions: at least 1");
        }
        if self.stages.iter().sum::<usize>() == 0 || self.stages.contains(&0) {
            return wrong("--stages: at least one step in each stage");
        }
        if self.etcd.iter().any(|members| !(1..=7).contains(members)) {
            return wrong("--etcd: 1 to 7 members");
        }
        Ok(())
    }

    fn part(&self) -> Part {
        match (self.idle, self.failover) {
            (true, _) => Part::Standby,
            (false, true) => Part::Failover,
            (false, false) => self.only,
        }
    }

    fn measured(&self) -> Duration {
        Duration::from_secs(self.seconds.max(1))
    }
}

/// Measures and prints.
pub(crate) async fn run(arguments: &ThroughputArguments, out: &mut (dyn Write + Send)) -> Result<(), BenchError> {
    arguments.check()?;
    raise_open_files();
    if cfg!(debug_assertions) {
        writeln!(out, "not a release build: these speeds mean nothing")?;
    }
    if let Some(runs) = arguments.day {
        return day::run(arguments, runs, out).await;
    }
    match arguments.part() {
        Part::Steady => steady::run(arguments, out).await,
        Part::Standby => standby::run(arguments, out).await,
        Part::Failover => failover::run(arguments, out).await,
    }
}

/// A connection for each node: as many as the system lets this process have.
pub(crate) fn raise_open_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised =
        getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, most)| setrlimit(Resource::RLIMIT_NOFILE, most, most));
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}
