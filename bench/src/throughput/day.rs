//! A day of runs in compressed time: through one leader, with archiving on; does etcd stay small, and
//! does a step that finds room wait?
//!
//! Not here: the most that goes through (`steady`).

use super::ThroughputArguments;
use super::etcd::Counted;
use super::ledger::{Leg, quantile};
use super::load::Pace;
use super::stage::Stage;
use crate::BenchError;
use crate::plot::{self, Curve, Titles};
use crate::table::{Table, thousands};
use std::io::Write;
use std::time::{Duration, Instant};

/// Looks during the day.
const LOOKS: u64 = 20;

/// How long an ended run stays in the live store.
const ARCHIVE_AFTER_S: u64 = 1;

/// How long the last runs may take to end and to be archived.
const EVENING: Duration = Duration::from_secs(120);

/// One look.
#[derive(Debug)]
struct Look {
    runs: u64,
    seconds: f64,
    wait_p99_ms: f64,
    counted: Counted,
    servers_mib: f64,
    keys: usize,
}

pub(super) async fn run(
    arguments: &ThroughputArguments,
    runs: u64,
    out: &mut (dyn Write + Send),
) -> Result<(), BenchError> {
    let members = arguments.etcd.first().copied().unwrap_or(1);
    let arguments = ThroughputArguments {
        archive_after: ARCHIVE_AFTER_S,
        ..arguments.clone()
    };
    let mut stage = Stage::set(&arguments, members).await?;
    let pace = match arguments.rate {
        Some(rate) => Pace::Rate(rate),
        None => Pace::Live(arguments.live),
    };
    writeln!(
        out,
        "\na day: {} runs of {:?} steps, {} nodes, {} server(s), etcd with {members} member(s)",
        thousands(runs as f64),
        arguments.stages,
        arguments.nodes,
        arguments.servers
    )?;
    let began = Instant::now();
    let until = began + Duration::from_secs(arguments.at_most);
    let mut looks = vec![look(&stage, began).await?];
    let mut written = 0;
    while written < runs && Instant::now() < until {
        let part = (runs / LOOKS).max(1).min(runs - written);
        stage.driver.drive(pace, until, part).await?;
        written += part;
        looks.push(look(&stage, began).await?);
    }
    let evening = Instant::now() + EVENING;
    while stage.ledger.runs_left() > 0 && Instant::now() < evening {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    tokio::time::sleep(Duration::from_secs(5 * ARCHIVE_AFTER_S)).await;
    looks.push(look(&stage, began).await?);
    print(&stage, &looks, out)?;
    match &arguments.out {
        Some(folder) => draw(folder, &looks),
        None => Ok(()),
    }
}

async fn look(stage: &Stage, began: Instant) -> Result<Look, BenchError> {
    let legs = stage.ledger.take();
    let counted = Counted::read(&stage.etcd).await?;
    Ok(Look {
        runs: stage.ledger.runs_ended(),
        seconds: began.elapsed().as_secs_f64(),
        wait_p99_ms: quantile(&legs[Leg::ReadyToHand as usize], 0.99),
        counted,
        servers_mib: stage.used().servers.resident as f64 / f64::from(1 << 20),
        keys: stage.ledger.runs_left(),
    })
}

fn print(stage: &Stage, looks: &[Look], out: &mut dyn Write) -> Result<(), BenchError> {
    let mut table = Table::with_heads(&[
        "runs ended",
        "seconds",
        "in flight",
        "wait p99, ms",
        "etcd in use, MiB",
        "etcd's file, MiB",
        "servers, MiB",
    ]);
    let mib = |bytes: f64| format!("{:.0}", bytes / f64::from(1 << 20));
    for look in looks {
        table.row(vec![
            thousands(look.runs as f64),
            format!("{:.0}", look.seconds),
            look.keys.to_string(),
            format!("{:.1}", look.wait_p99_ms),
            mib(look.counted.used_bytes),
            mib(look.counted.file_bytes),
            format!("{:.0}", look.servers_mib),
        ]);
    }
    table.print(out)?;
    let last = looks.last().map_or(0.0, |l| l.seconds).max(1e-9);
    let steps = stage.ledger.steps_ended() as f64;
    writeln!(
        out,
        "  {} steps in {last:.0} s: {} a second; {} ordered twice; a day of 86,400 s would hold {} runs",
        thousands(steps),
        thousands(steps / last),
        stage.ledger.ordered_again(),
        thousands(stage.ledger.runs_ended() as f64 / last * 86_400.0)
    )?;
    Ok(())
}

fn draw(folder: &std::path::Path, looks: &[Look]) -> Result<(), BenchError> {
    std::fs::create_dir_all(folder)?;
    let curve = |name: &str, of: fn(&Look) -> f64| Curve {
        name: name.to_owned(),
        points: looks
            .iter()
            .map(|l| ((l.runs as f64).max(1.0), of(l) / f64::from(1 << 20)))
            .collect(),
    };
    let curves = [
        curve("in use", |l| l.counted.used_bytes),
        curve("file", |l| l.counted.file_bytes),
    ];
    let titles = Titles {
        title: "etcd over a day of runs",
        x: "runs ended",
        y: "MiB",
    };
    plot::curves(&folder.join("day.svg"), titles, &curves)
}
