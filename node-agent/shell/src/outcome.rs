//! What the end of a sandbox means for a step.
//!
//! Not here: how the end was found out.

use isolation::{End, ExitRecord, KilledBy, LaunchError};
use model::{Outcome, Shell, StartFailure, StepDef, Usage};
use node_agent::Event;

/// The word that is handed to the launcher when a run was cancelled.
pub(crate) const CANCELLED: &str = "cancelled";

/// The word for an allocation that does not stand any more.
pub(crate) const DISOWNED: &str = "disowned";

const SIGKILL: i32 = 9;

/// What a shell exits with when the kernel killed its command with SIGKILL.
const KILLED_EXIT: i32 = 128 + SIGKILL;

/// The end of a step's sandbox.
pub(crate) fn ended(record: &ExitRecord, def: &StepDef) -> Event {
    Event::Ended {
        started_ms: record.started_ms,
        ended_ms: record.ended_ms,
        outcome: outcome(record, def),
        log_bytes: record.log_bytes,
        usage: Usage {
            memory_peak_bytes: record.usage.memory_peak_bytes,
            cpu_ms: record.usage.cpu_ms,
            throttled_ms: record.usage.throttled_ms,
        },
    }
}

fn outcome(record: &ExitRecord, def: &StepDef) -> Outcome {
    match &record.killed_by_us {
        Some(KilledBy::Timeout) => {
            return Outcome::TimedOut {
                timeout_ms: def.timeout_ms,
            };
        }
        Some(KilledBy::Stopped { .. }) => return Outcome::Cancelled,
        None => {}
    }
    let starved = record.oom_kills > 0;
    match &record.end {
        End::Exited { code: KILLED_EXIT } | End::Signaled { signal: SIGKILL } if starved => Outcome::OutOfMemory {
            limit_bytes: def.resources.memory_bytes,
        },
        End::Exited { code } => Outcome::Exited { code: *code },
        End::Signaled { signal } => Outcome::Signaled { signal: *signal },
        End::CommandMissing { command, message } => Outcome::CommandMissing {
            command: command.clone(),
            message: format!("{message}; {}", shell_hint(def)),
        },
        End::SpecRefused { message } => failed(StartFailure::Spec, message.clone()),
        End::SandboxFailed { message } => node_failed(message),
        End::ShimDied => Outcome::Lost {
            message: "the process that watched over its container died; whatever still ran was killed".to_owned(),
        },
    }
}

fn shell_hint(def: &StepDef) -> &'static str {
    match def.shell {
        Shell::Sh => "use an image that has a shell for this machine",
        Shell::Bash => "use an image that has bash for this machine, or `shell: sh`",
    }
}

/// A sandbox that was not launched.
pub(crate) fn not_launched(e: &LaunchError) -> Outcome {
    match e {
        LaunchError::Invalid(e) => failed(
            StartFailure::Spec,
            format!("the step asks for what no sandbox has: {e}"),
        ),
        LaunchError::Io { source, .. } if crate::journal::is_full(source) => disk_full(&e.to_string()),
        LaunchError::Exists { .. } | LaunchError::Shim { .. } | LaunchError::Io { .. } => node_failed(&e.to_string()),
    }
}

/// A fault of the node, told by a text alone.
fn node_failed(message: &str) -> Outcome {
    if message.contains("No space left on device") || message.contains("ENOSPC") {
        return disk_full(message);
    }
    let message = format!("the node could not make its container: {message}; see the agent's log");
    failed(StartFailure::Sandbox, message)
}

fn disk_full(message: &str) -> Outcome {
    let message = format!("the node's disk is full: {message}; free some space in the agent's data folder");
    failed(StartFailure::Disk, message)
}

fn failed(cause: StartFailure, message: String) -> Outcome {
    Outcome::StartFailed { cause, message }
}
