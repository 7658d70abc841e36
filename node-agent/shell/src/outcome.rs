//! What the end of a sandbox means for a step.
//!
//! Not here: how the end was found out.

use crate::left;
use isolation::{End, ExitRecord, KilledBy, LaunchError};
use model::{Outcome, Shell, StartFailure, StepDef, Usage};
use node_agent::Event;
use std::path::Path;

/// The word that is handed to the launcher when a run was cancelled.
pub(crate) const CANCELLED: &str = "cancelled";

/// The word for a step that is taken from a drained node. Its outcome is a cancelled one too: the
/// leader, who asked for it, knows why.
pub(crate) const DRAINED: &str = "drained";

/// The word for an allocation that does not stand any more.
pub(crate) const DISOWNED: &str = "disowned";

/// What is said of a step whose node was cut off for longer than its lease.
const LEASE_ENDED: &str = "its node could not reach a server before its lease ended, so its container was killed";

const SIGKILL: i32 = 9;

/// What a shell exits with when the kernel killed its command with SIGKILL.
const KILLED_EXIT: i32 = 128 + SIGKILL;

/// The end of a step's sandbox, with what it left in its upper layer. Blocking.
pub(crate) fn ended(record: &ExitRecord, def: &StepDef, upper: &Path) -> Event {
    let (left, refused) = left::read(upper);
    Event::Ended {
        started_ms: record.started_ms,
        ended_ms: record.ended_ms,
        outcome: left::judged(outcome(record, def), refused),
        log_bytes: record.log_bytes,
        usage: Usage {
            memory_peak_bytes: record.usage.memory_peak_bytes,
            cpu_ms: record.usage.cpu_ms,
            throttled_ms: record.usage.throttled_ms,
        },
        left,
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
        Some(KilledBy::Lease) => {
            return Outcome::Lost {
                message: LEASE_ENDED.to_owned(),
            };
        }
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
    Outcome::StartFailed {
        cause,
        message,
        lasting: cause == StartFailure::Spec,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_orders::step_def;

    fn record(end: End, killed_by_us: Option<KilledBy>, oom_kills: u64) -> ExitRecord {
        ExitRecord {
            started_ms: Some(1),
            ended_ms: 2,
            end,
            killed_by_us,
            oom_kills,
            log_bytes: 3,
            log_truncated: false,
            usage: isolation::Usage::default(),
        }
    }

    fn stopped() -> Option<KilledBy> {
        Some(KilledBy::Stopped {
            reason: CANCELLED.to_owned(),
        })
    }

    #[test]
    fn every_end_has_its_outcome() {
        let oom = Outcome::OutOfMemory { limit_bytes: 64 << 20 };
        let late = Outcome::TimedOut { timeout_ms: 90_000 };
        let exited = |code| Outcome::Exited { code };
        let killed = Outcome::Signaled { signal: 9 };
        let cases = [
            (End::Exited { code: 0 }, None, 0, exited(0)),
            (End::Exited { code: 3 }, None, 1, exited(3)),
            (End::Exited { code: 137 }, None, 0, exited(137)),
            (End::Exited { code: 137 }, None, 1, oom.clone()),
            (End::Signaled { signal: 9 }, None, 1, oom),
            (End::Signaled { signal: 9 }, None, 0, killed),
            (End::Signaled { signal: 11 }, None, 1, Outcome::Signaled { signal: 11 }),
            (End::Signaled { signal: 9 }, Some(KilledBy::Timeout), 0, late.clone()),
            (End::Exited { code: 0 }, Some(KilledBy::Timeout), 0, late),
            (End::Exited { code: 143 }, stopped(), 0, Outcome::Cancelled),
        ];
        for (end, killed, oom_kills, expected) in cases {
            let record = record(end, killed, oom_kills);
            assert_eq!(outcome(&record, &step_def()), expected, "{record:?}");
        }
    }

    #[test]
    fn what_was_not_started_says_why_and_how_to_mend_it() {
        let node = |message: &str| End::SandboxFailed {
            message: message.to_owned(),
        };
        let cases = [
            (
                End::SpecRefused {
                    message: "no user `x`".to_owned(),
                },
                StartFailure::Spec,
                "no user `x`",
            ),
            (node("overlay"), StartFailure::Sandbox, "see the agent's log"),
            (
                node("write: No space left on device"),
                StartFailure::Disk,
                "free some space",
            ),
        ];
        for (end, expected, part) in cases {
            match outcome(&record(end, None, 0), &step_def()) {
                Outcome::StartFailed { cause, message, .. } => {
                    assert_eq!(cause, expected);
                    assert!(message.contains(part), "{message}");
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(matches!(
            outcome(&record(End::ShimDied, None, 0), &step_def()),
            Outcome::Lost { .. }
        ));
        let full = LaunchError::Io {
            what: "bundle".to_owned(),
            source: std::io::ErrorKind::StorageFull.into(),
        };
        let cause = |e: &LaunchError| match not_launched(e) {
            Outcome::StartFailed { cause, .. } => cause,
            other => panic!("{other:?}"),
        };
        assert_eq!(cause(&full), StartFailure::Disk);
        let id = "x".to_owned();
        assert_eq!(cause(&LaunchError::Exists { id }), StartFailure::Sandbox);
    }
}
