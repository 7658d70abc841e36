//! Submissions to real servers over a real etcd, whose steps go to simulated nodes.
//!
//! Not here: containers.

use super::open_loop::{Submitted, ms, sorted, submit};
use super::repository::{Repository, Server};
use super::{ApiArguments, ClusterArguments, TriggerArguments, seconds};
use crate::BenchError;
use crate::plot::{self, Curve, Titles};
use crate::table::{Table, thousands};
use crate::throughput::ledger::quantile;
use crate::throughput::serving::{ADMIN_TOKEN, TEAM};
use crate::throughput::stage::{Stage, Used};
use std::io::Write;
use std::time::{Duration, Instant};

/// One step, as most of what is submitted to find out how soon something starts.
const FILE: &str = "stages:\n  - name: build\n    steps:\n      - { name: compile, image: 'registry.example.org/team/build:1.95', run: make }\n";

/// Before a measurement.
const WARM_UP: Duration = Duration::from_secs(5);

/// How long the last orders may take to come.
const LAST_ORDERS: Duration = Duration::from_secs(30);

/// A rate has broken when so much of it fails,
const FAILURES_MAX: f64 = 0.01;

/// or when 99 of 100 answers take longer than this, milliseconds,
const ANSWER_MAX_MS: f64 = 1_000.0;

/// Further rates that are tried.
const RATES_MAX: usize = 20;

struct Cluster {
    stage: Stage,
    server: Server,
    repository: Repository,
    pipelines: usize,
    _folder: tempfile::TempDir,
}

impl Cluster {
    async fn set(arguments: &ClusterArguments) -> Result<Self, BenchError> {
        let stopped = |what: &str, cause: &dyn std::fmt::Display| BenchError::Stopped(format!("{what}: {cause}"));
        let folder = tempfile::TempDir::with_prefix("bench-submissions-").map_err(|e| stopped("a folder", &e))?;
        let repository = Repository::make(folder.path(), FILE)?;
        crate::throughput::raise_open_files();
        let stage = Stage::set(&arguments.stage()?, arguments.etcd).await?;
        let server = Server {
            http: reqwest::Client::builder()
                .build()
                .map_err(|e| stopped("a client", &e))?,
            urls: stage.servers.iter().map(|s| s.url.clone()).collect(),
            token: ADMIN_TOKEN.to_owned(),
            team: TEAM.to_owned(),
        };
        repository.register(&server, arguments.pipelines).await?;
        let this = Self {
            stage,
            server,
            repository,
            pipelines: arguments.pipelines,
            _folder: folder,
        };
        this.submit(20.0, WARM_UP).await;
        Ok(this)
    }

    async fn submit(&self, rate: f64, time: Duration) -> Submitted {
        submit(&self.server, &self.repository, self.pipelines, rate, time).await
    }

    /// From the due moment to an order in an agent's hand, milliseconds, sorted; and how many had none.
    async fn in_hand(&self, submitted: &Submitted) -> (Vec<f32>, usize) {
        let deadline = Instant::now() + LAST_ORDERS;
        let (mut row, mut missing) = (Vec::new(), 0);
        for submission in &submitted.all {
            let Ok(run) = &submission.run else { continue };
            loop {
                if let Some(at) = self.stage.ledger.stranger_in_hand(run) {
                    row.push(ms(at.saturating_duration_since(submission.due)));
                    break;
                }
                if Instant::now() > deadline {
                    missing += 1;
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        (sorted(row), missing)
    }
}

pub(super) async fn trigger(arguments: &TriggerArguments, out: &mut (dyn Write + Send)) -> Result<(), BenchError> {
    let cluster = Cluster::set(&arguments.cluster).await?;
    say(&arguments.cluster, out)?;
    let before = cluster.stage.used();
    let submitted = cluster.submit(arguments.rate, seconds(arguments.seconds)).await;
    let used = cluster.stage.used();
    let (hand, missing) = cluster.in_hand(&submitted).await;
    let mut table = heads("trigger, simulated nodes, ms");
    table.row(quantiles("submitted -> answered", &submitted.answers_ms()));
    table.row(quantiles("submitted -> order in a node's hand", &hand));
    table.print(out)?;
    writeln!(
        out,
        "  {} submissions at {} a second; {} failed; {missing} without an order",
        thousands(submitted.all.len() as f64),
        arguments.rate,
        submitted.failures()
    )?;
    cores(&before, &used, out)?;
    failure(&submitted, out)
}

pub(super) async fn api(arguments: &ApiArguments, out: &mut (dyn Write + Send)) -> Result<(), BenchError> {
    let cluster = Cluster::set(&arguments.cluster).await?;
    say(&arguments.cluster, out)?;
    let mut table = Table::with_heads(&[
        "submissions a second",
        "seconds",
        "p50, ms",
        "p95, ms",
        "p99, ms",
        "most, ms",
        "failed",
        "in hand p50, ms",
        "p99, ms",
    ]);
    let mut tried = Vec::new();
    let (mut rate, mut time) = (arguments.rate, seconds(arguments.seconds));
    let before = cluster.stage.used();
    let mut used = None;
    let broke = loop {
        let submitted = cluster.submit(rate, time).await;
        used.get_or_insert_with(|| cluster.stage.used());
        let (hand, missing) = cluster.in_hand(&submitted).await;
        table.row(row(&submitted, &hand));
        let broken = breaks(&submitted, missing);
        tried.push(submitted);
        if broken.is_some() || tried.len() > RATES_MAX || arguments.growth <= 1.0 {
            break broken;
        }
        rate *= arguments.growth;
        time = seconds(arguments.step_seconds);
    };
    table.print(out)?;
    match broke {
        Some(why) => writeln!(out, "  breaks at {} a second: {why}", thousands(rate))?,
        None => writeln!(out, "  {} a second did not break it", thousands(rate))?,
    }
    if let Some(used) = used {
        cores(&before, &used, out)?;
    }
    for submitted in &tried {
        failure(submitted, out)?;
    }
    match &arguments.out {
        Some(folder) => draw(folder, &tried),
        None => Ok(()),
    }
}

/// Why a rate is more than can be served.
fn breaks(submitted: &Submitted, missing: usize) -> Option<String> {
    let count = submitted.all.len().max(1) as f64;
    let failed = (submitted.failures() + missing) as f64 / count;
    if failed > FAILURES_MAX {
        return Some(format!("{:.1} % failed or came to no node", 100.0 * failed));
    }
    let [_, _, p99, _] = submitted.answered();
    (p99 > ANSWER_MAX_MS).then(|| format!("1 of 100 answers takes longer than {ANSWER_MAX_MS} ms"))
}

fn row(submitted: &Submitted, hand: &[f32]) -> Vec<String> {
    let mut row = vec![
        thousands(submitted.rate),
        format!("{:.0}", submitted.took.as_secs_f64()),
    ];
    row.extend(submitted.answered().map(|ms| format!("{ms:.1}")));
    row.push(submitted.failures().to_string());
    row.extend([0.5, 0.99].map(|share| format!("{:.1}", quantile(hand, share))));
    row
}

pub(super) fn heads(what: &str) -> Table {
    Table::with_heads(&[what, "p50", "p95", "p99", "most"])
}

pub(super) fn quantiles(what: &str, row: &[f32]) -> Vec<String> {
    let mut cells = vec![what.to_owned()];
    cells.extend([0.5, 0.95, 0.99, 1.0].map(|share| format!("{:.1}", quantile(row, share))));
    cells
}

fn say(arguments: &ClusterArguments, out: &mut dyn Write) -> Result<(), BenchError> {
    writeln!(
        out,
        "\netcd with {} member(s), {} server(s), {} simulated nodes, {} pipelines of one step of 0-{} ms",
        arguments.etcd, arguments.servers, arguments.nodes, arguments.pipelines, arguments.run_ms
    )?;
    Ok(())
}

fn cores(before: &Used, after: &Used, out: &mut dyn Write) -> Result<(), BenchError> {
    let elapsed = after.at - before.at;
    writeln!(
        out,
        "  cores in use: etcd {:.2}, servers {:.2}, nodes and senders {:.2}",
        after.etcd.cores_since(&before.etcd, elapsed),
        after.servers.cores_since(&before.servers, elapsed),
        after.own.cores_since(&before.own, elapsed)
    )?;
    Ok(())
}

fn failure(submitted: &Submitted, out: &mut dyn Write) -> Result<(), BenchError> {
    if let Some(text) = submitted.first_failure() {
        writeln!(out, "  first failure at {} a second: {text}", thousands(submitted.rate))?;
    }
    Ok(())
}

fn draw(folder: &std::path::Path, tried: &[Submitted]) -> Result<(), BenchError> {
    std::fs::create_dir_all(folder)?;
    let curve = |name: &str, at: usize| Curve {
        name: name.to_owned(),
        points: tried.iter().map(|s| (s.rate, s.answered()[at])).collect(),
    };
    let curves = [curve("p50", 0), curve("p95", 1), curve("p99", 2)];
    let titles = Titles {
        title: "submissions over REST, open loop",
        x: "submissions a second",
        y: "milliseconds to the answer",
    };
    plot::curves(&folder.join("api.svg"), titles, &curves)
}
