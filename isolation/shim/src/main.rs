//! One process per sandbox: it makes the sandbox, holds its output, and writes how it ended.
//!
//! It is executed afresh with one thread and nothing secret but its order, because libcontainer
//! forks, changes folders and environment, and copies what it finds in memory. Not here: which
//! sandboxes exist (the launcher), and any word to a server.
//!
//! It runs dynamically linked; for a node it is better linked statically, which starts faster:
//! `cargo rustc --release -p buildflow-shim --bin buildflow-shim -- -C target-feature=+crt-static`.
#![allow(
    unsafe_code,
    reason = "this program is the boundary to the kernel; each block says why it is sound"
)]

mod exec;
mod lease;
mod log;
mod overlay;
mod report;
mod setup;
mod signals;
mod supervise;
mod take_over;
mod watchdog;

use std::process::ExitCode;

use isolation::handover::{now_ms, write_whole};
use isolation::{End, ExitRecord, KilledBy};

use setup::Failure;
use supervise::Outcome;
use take_over::Shim;

fn main() -> ExitCode {
    let mut shim = match take_over::take_over() {
        Ok(shim) => shim,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = run(&mut shim);
    finish(shim, outcome)
}

/// Makes the sandbox and stays with it to its end.
fn run(shim: &mut Shim) -> Outcome {
    match setup::start(shim) {
        Ok(sandbox) => supervise::supervise(shim, sandbox),
        Err(failure) => Outcome {
            started_ms: None,
            ended_ms: now_ms(),
            killed_by_us: matches!(failure, Failure::LeaseEnded).then_some(KilledBy::Lease),
            end: failure.into(),
        },
    }
}

impl From<Failure> for End {
    fn from(failure: Failure) -> End {
        let message = failure.to_string();
        match failure {
            Failure::Refused(_) => End::SpecRefused { message },
            Failure::Broken(_) | Failure::LeaseEnded => End::SandboxFailed { message },
        }
    }
}

/// Puts the record on the disk. Cgroups and bundle are removed by the launcher, which alone knows
/// whether the id is in use again.
fn finish(mut shim: Shim, outcome: Outcome) -> ExitCode {
    let order = &shim.order;
    let readings = shim.slice.readings(&order.spec.id);
    if let Err(error) = shim.log.sync() {
        eprintln!("log cannot be flushed: {error}");
    }
    let record = ExitRecord {
        started_ms: outcome.started_ms,
        ended_ms: outcome.ended_ms,
        end: outcome.end,
        killed_by_us: outcome.killed_by_us,
        oom_kills: readings.oom_kills,
        log_bytes: shim.log.bytes(),
        log_truncated: shim.log.truncated(),
        usage: readings.usage,
    };
    let written = record.write(&order.spec.exit_path).or_else(|error| {
        eprintln!("exit record is kept in memory: {error}");
        record.write(&order.bundle.exit())
    });
    let told = written.and_then(|()| write_whole(&order.bundle.ended(), b""));
    match told {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("no exit record: {error}");
            ExitCode::FAILURE
        }
    }
}
