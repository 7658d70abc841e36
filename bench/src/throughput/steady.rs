//! The measurement under steady load: as many steps as go through with so many runs in flight, then a
//! tenth of that rate for the latency; etcd's own rate before and after.
//!
//! Not here: failures, a whole day.

use super::ThroughputArguments;
use super::etcd::{Counted, OwnRate};
use super::ledger::{Leg, quantile};
use super::load::Pace;
use super::stage::{Stage, Used};
use crate::BenchError;
use crate::plot::{self, Curve, Titles};
use crate::table::{Table, thousands};
use std::io::Write;
use std::time::{Duration, Instant};

/// The share of the most that goes through at which latency is measured.
const CALM: f64 = 0.1;

/// How long the rest of one part may take to end before the next one begins.
const DRAIN_MAX: Duration = Duration::from_secs(60);

/// What one part came to.
#[derive(Debug)]
struct Measured {
    steps_a_second: f64,
    legs: [Vec<f32>; 5],
    steps: f64,
    counted: Counted,
    /// Cores in use: etcd, servers, nodes and driver.
    cores: [f64; 3],
    used: Used,
    again: u64,
}

/// All of it for one size of etcd.
struct Outcome {
    members: usize,
    own: OwnRate,
    full: Measured,
    calm: Measured,
}

impl Outcome {
    fn writes_a_step(&self) -> f64 {
        (self.full.counted.puts + self.full.counted.deletes) / self.full.steps.max(1.0)
    }

    /// Steps a second that etcd could carry if it did nothing else.
    fn bound(&self) -> f64 {
        self.own.swaps / self.writes_a_step().max(f64::MIN_POSITIVE)
    }
}

pub(super) async fn run(arguments: &ThroughputArguments, out: &mut (dyn Write + Send)) -> Result<(), BenchError> {
    let mut outcomes = Vec::new();
    for members in &arguments.etcd {
        let outcome = measure(arguments, *members).await?;
        print(arguments, &outcome, out)?;
        outcomes.push(outcome);
    }
    if let Some(folder) = &arguments.out {
        std::fs::create_dir_all(folder)?;
        draw(folder, &outcomes)?;
    }
    Ok(())
}

async fn measure(arguments: &ThroughputArguments, members: usize) -> Result<Outcome, BenchError> {
    let etcd = super::etcd::start(members).await?;
    let before = OwnRate::measure(&etcd, arguments.in_flight).await?;
    let mut stage = Stage::set_on(arguments, etcd, members).await?;
    let full = part(arguments, &mut stage, Pace::Live(arguments.live)).await?;
    drain(&stage).await;
    let steps = stage.driver.shape.steps() as f64;
    let calm = part(arguments, &mut stage, Pace::Rate(full.steps_a_second * CALM / steps)).await?;
    stage.nodes.shutdown.cancel();
    stage.servers.clear();
    let after = OwnRate::measure(&stage.etcd, arguments.in_flight).await?;
    Ok(Outcome {
        members,
        own: OwnRate {
            swaps: f64::midpoint(before.swaps, after.swaps),
            puts: f64::midpoint(before.puts, after.puts),
        },
        full,
        calm,
    })
}

async fn part(arguments: &ThroughputArguments, stage: &mut Stage, pace: Pace) -> Result<Measured, BenchError> {
    let warm = Instant::now() + Duration::from_secs(arguments.warm_up);
    stage.driver.drive(pace, warm, u64::MAX).await?;
    let (counted, used) = (Counted::read(&stage.etcd).await?, stage.used());
    let (ended, again) = (stage.ledger.steps_ended(), stage.ledger.ordered_again());
    stage.ledger.begin();
    stage
        .driver
        .drive(pace, used.at + arguments.measured(), u64::MAX)
        .await?;
    let now = stage.used();
    let elapsed = now.at - used.at;
    let steps = (stage.ledger.steps_ended() - ended) as f64;
    Ok(Measured {
        steps_a_second: steps / elapsed.as_secs_f64(),
        legs: stage.ledger.take(),
        steps,
        counted: Counted::read(&stage.etcd).await?.since(&counted),
        cores: [
            now.etcd.cores_since(&used.etcd, elapsed),
            now.servers.cores_since(&used.servers, elapsed),
            now.own.cores_since(&used.own, elapsed),
        ],
        used: now,
        again: stage.ledger.ordered_again() - again,
    })
}

/// Lets what is in flight end.
async fn drain(stage: &Stage) {
    let deadline = Instant::now() + DRAIN_MAX;
    while stage.ledger.runs_left() > 0 && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn print(arguments: &ThroughputArguments, outcome: &Outcome, out: &mut dyn Write) -> Result<(), BenchError> {
    let (full, calm) = (&outcome.full, &outcome.calm);
    writeln!(
        out,
        "\netcd with {} member(s), {} server(s), {} nodes of {} slots, {} runs of {:?} steps in flight, steps of 0-{} ms",
        outcome.members,
        arguments.servers,
        arguments.nodes,
        arguments.slots,
        arguments.live,
        arguments.stages,
        arguments.run_ms
    )?;
    let mut table = Table::with_heads(&["end to end", "", "", ""]);
    let mut line = |what: &str, value: String| table.row(vec![what.to_owned(), value]);
    line("steps a second", thousands(full.steps_a_second));
    line(
        "keys written a step (put + deleted)",
        format!("{:.2}", outcome.writes_a_step()),
    );
    line(
        "proposals a step",
        format!("{:.3}", full.counted.proposals / full.steps.max(1.0)),
    );
    line(
        "waits for the disk a step",
        format!("{:.3}", full.counted.syncs / full.steps.max(1.0)),
    );
    line(
        "etcd alone, 100 nested compare-and-swaps, keys/s",
        thousands(outcome.own.swaps),
    );
    line(
        "etcd alone, transactions of 100 puts, keys/s",
        thousands(outcome.own.puts),
    );
    line("steps a second that etcd could carry", thousands(outcome.bound()));
    line(
        "share of it",
        format!("{:.0} %", 100.0 * full.steps_a_second / outcome.bound()),
    );
    line("steps ordered twice", full.again.to_string());
    table.print(out)?;

    let mut table = Table::with_heads(&["cores in use; memory, MiB", "etcd", "servers", "nodes + driver"]);
    for (what, part) in [("full", full), ("a tenth", calm)] {
        let mut row = vec![what.to_owned()];
        row.extend(part.cores.iter().map(|cores| format!("{cores:.2}")));
        table.row(row);
    }
    let resident = [full.used.etcd, full.used.servers, full.used.own].map(|u| thousands((u.resident >> 20) as f64));
    table.row([vec!["memory".to_owned()], resident.to_vec()].concat());
    table.print(out)?;

    let mut table = Table::with_heads(&["latency, ms", "full p50", "full p99", "a tenth p50", "a tenth p99"]);
    for leg in Leg::ALL {
        let of = |part: &Measured, share: f64| format!("{:.1}", quantile(&part.legs[leg as usize], share));
        table.row(vec![
            leg.words().to_owned(),
            of(full, 0.5),
            of(full, 0.99),
            of(calm, 0.5),
            of(calm, 0.99),
        ]);
    }
    table.print(out)?;
    Ok(())
}

/// Latency at a tenth of the full rate, as the share of steps that were quicker.
fn draw(folder: &std::path::Path, outcomes: &[Outcome]) -> Result<(), BenchError> {
    for outcome in outcomes {
        let curves: Vec<Curve> = Leg::ALL
            .iter()
            .map(|leg| {
                let row = &outcome.calm.legs[*leg as usize];
                let points = (1..=99).map(|percent| {
                    let share = f64::from(percent) / 100.0;
                    (quantile(row, share).max(0.1), 100.0 * share)
                });
                Curve {
                    name: leg.words().to_owned(),
                    points: points.collect(),
                }
            })
            .collect();
        let title = format!(
            "{} steps/s, etcd with {} member(s)",
            thousands(outcome.calm.steps_a_second),
            outcome.members
        );
        let titles = Titles {
            title: &title,
            x: "milliseconds",
            y: "per cent of steps that were quicker",
        };
        plot::curves(
            &folder.join(format!("throughput-{}.svg", outcome.members)),
            titles,
            &curves,
        )?;
    }
    Ok(())
}
