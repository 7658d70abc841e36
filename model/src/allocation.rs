//! An allocation: an attempt bound to a node. What is ordered ([`Allocation`], written by the
//! leader) and what is reported ([`Observed`], written by the server that holds the node's stream)
//! never share a field.

use crate::id::{AllocId, Fence, NodeId, RunId};
use crate::record::{Record, Unknown};
use crate::resources::Resources;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The order: `alloc/<node>/<alloc>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allocation {
    /// Its own id.
    pub id: AllocId,
    /// The run that it serves.
    pub run: RunId,
    /// The step's ordinal in the run's definition.
    pub step: usize,
    /// The ordinal of the try, from 1.
    pub attempt: u32,
    /// Carried by every write on behalf of this attempt.
    pub fence: Fence,
    /// Where it runs.
    pub node: NodeId,
    /// The registration of the node that the plan saw.
    pub node_epoch: u64,
    /// What is taken from the node while this order stands.
    pub resources: Resources,
    /// When it was placed.
    pub created_ms: u64,
    /// Set once when the attempt is to end early.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<Stop>,
    /// Why, as one plain sentence, when it is not a person who cancelled the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_reason: Option<String>,
    /// Fields of a newer release.
    #[serde(flatten)]
    pub unknown: Unknown,
}

impl Record for Allocation {
    const KIND: &'static str = "alloc";
    const VERSION: u16 = 1;
}

/// Why an attempt is ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stop {
    /// The run was cancelled.
    Cancelled,
    /// The node is drained and its deadline has passed: the step is placed again elsewhere.
    Drained,
}

/// The report: `observed/<alloc>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed {
    /// Of which allocation.
    pub alloc: AllocId,
    /// The fence that the node was given with the order.
    pub fence: Fence,
    /// How far it is.
    pub state: ObservedState,
    /// First instruction, milliseconds of the Unix epoch by the node's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_ms: Option<u64>,
    /// Container gone, by the same clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_ms: Option<u64>,
    /// Where the time went before the first instruction.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub phases: Vec<Phase>,
    /// Set when `state` is `Ended`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// Length of the whole log, masked bytes; set when `state` is `Ended`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_bytes: Option<u64>,
    /// What it used; set when `state` is `Ended`.
    #[serde(default)]
    pub usage: Usage,
    /// What it left for others; set when `state` is `Ended`.
    #[serde(default, skip_serializing_if = "Left::is_empty")]
    pub left: Left,
    /// Fields of a newer release.
    #[serde(flatten)]
    pub unknown: Unknown,
}

impl Record for Observed {
    const KIND: &'static str = "observed";
    const VERSION: u16 = 1;
}

/// The most outputs of a step.
pub const OUTPUTS_MAX: usize = 64;

/// All names and values of a step's outputs together, bytes: a hundred reports with this much fit one
/// transaction of the store.
pub const OUTPUTS_BYTES_MAX: usize = 8 * 1024;

/// The longest name of an output, bytes.
pub const OUTPUT_NAME_MAX: usize = 128;

/// The largest summary of a step, bytes; it lies in the step's record.
pub const SUMMARY_MAX: usize = 16 * 1024;

/// What an attempt left for other steps and for people.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Left {
    /// What it wrote into `$BUILDFLOW_OUTPUT`: at most [`OUTPUTS_MAX`] entries of together
    /// [`OUTPUTS_BYTES_MAX`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub outputs: BTreeMap<String, String>,
    /// What it wrote into `$BUILDFLOW_SUMMARY`, Markdown, at most [`SUMMARY_MAX`] bytes.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub summary: String,
}

impl Left {
    /// True when it left nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.outputs.is_empty() && self.summary.is_empty()
    }

    /// True when it is within its bounds.
    #[must_use]
    pub fn fits(&self) -> bool {
        let bytes: usize = self.outputs.iter().map(|(key, text)| key.len() + text.len()).sum();
        self.outputs.len() <= OUTPUTS_MAX && bytes <= OUTPUTS_BYTES_MAX && self.summary.len() <= SUMMARY_MAX
    }
}

/// How far a node is with an allocation. Only ever grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ObservedState {
    /// Image, checkout and sandbox are being made ready.
    Preparing,
    /// The first instruction has run.
    Running,
    /// The container is gone and the outcome is known.
    Ended,
}

/// One part of a step's way to its first instruction, e.g. `image`, `checkout`, `launch`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phase {
    /// What was done.
    pub name: String,
    /// How long it took, milliseconds.
    pub ms: u64,
    /// How many bytes were fetched for it; 0 when everything was near.
    #[serde(default)]
    pub bytes: u64,
}

/// What a step used, as the kernel counted it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Highest memory, bytes.
    #[serde(default)]
    pub memory_peak_bytes: u64,
    /// CPU time, milliseconds.
    #[serde(default)]
    pub cpu_ms: u64,
    /// Time in which the CPU limit held it back, milliseconds.
    #[serde(default)]
    pub throttled_ms: u64,
}

/// How an attempt ended, told apart as far as the node can.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Outcome {
    /// The script's own exit.
    Exited {
        /// 0 to 255.
        code: i32,
    },
    /// Killed by a signal that we did not send.
    Signaled {
        /// The signal's number.
        signal: i32,
    },
    /// The kernel killed it because it passed its memory limit.
    OutOfMemory {
        /// The limit, bytes.
        limit_bytes: u64,
    },
    /// We killed it at its time-out.
    TimedOut {
        /// The time-out, milliseconds.
        timeout_ms: u64,
    },
    /// We killed it because its run was cancelled.
    Cancelled,
    /// It ended well, but what it wrote into `$BUILDFLOW_OUTPUT` cannot be used.
    OutputRefused {
        /// What is wrong with it.
        message: String,
    },
    /// The shell or command is not in the image, or is not a program of this machine.
    CommandMissing {
        /// What was to be executed.
        command: String,
        /// The kernel's word for it.
        message: String,
    },
    /// Nothing of the user's ran.
    StartFailed {
        /// What could not be made ready.
        cause: StartFailure,
        /// What went wrong and how to mend it.
        message: String,
        /// The next try would fail the same way, e.g. because the registry says that there is no
        /// such image.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        lasting: bool,
    },
    /// The node is gone, or no longer knows what became of it, e.g. after a reboot.
    Lost {
        /// What the node found.
        message: String,
    },
}

/// What could not be made ready for a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StartFailure {
    /// The image could not be fetched, verified or unpacked.
    Image,
    /// The repository could not be fetched or checked out.
    Checkout,
    /// The node's disk is full.
    Disk,
    /// The step asks for something that its image or the node does not have, e.g. an unknown user.
    Spec,
    /// The container could not be made: a fault of the node.
    Sandbox,
}

impl Outcome {
    /// True for an exit with code 0.
    #[must_use]
    pub fn is_success(&self) -> bool {
        matches!(self, Self::Exited { code: 0 })
    }

    /// One plain sentence for the person whose step it was.
    #[must_use]
    pub fn sentence(&self) -> String {
        match self {
            Self::Exited { code: 0 } => "ended with exit code 0".to_owned(),
            Self::Exited { code: 126 } => "ended with exit code 126: a command could not be executed".to_owned(),
            Self::Exited { code: 127 } => "ended with exit code 127: the shell did not find a command".to_owned(),
            Self::Exited { code } => format!("ended with exit code {code}"),
            Self::Signaled { signal } => format!("was ended by signal {signal}{}", signal_name(*signal)),
            Self::OutOfMemory { limit_bytes } => {
                format!(
                    "was killed because it needed more than its memory limit of {} MiB; raise resources.memory",
                    limit_bytes >> 20
                )
            }
            Self::TimedOut { timeout_ms } => {
                format!("was ended at its time-out of {}; raise timeout", seconds(*timeout_ms))
            }
            Self::Cancelled => "was cancelled".to_owned(),
            Self::OutputRefused { message } => format!("ended well, but its outputs cannot be used: {message}"),
            Self::CommandMissing { command, message } => format!("could not start: `{command}`: {message}"),
            Self::StartFailed { message, .. } => format!("could not start: {message}"),
            Self::Lost { message } => format!("was lost: {message}"),
        }
    }
}

fn seconds(ms: u64) -> String {
    if ms.is_multiple_of(60_000) {
        format!("{} min", ms / 60_000)
    } else {
        format!("{} s", ms as f64 / 1000.0)
    }
}

fn signal_name(signal: i32) -> &'static str {
    match signal {
        1 => " (SIGHUP)",
        2 => " (SIGINT)",
        3 => " (SIGQUIT)",
        4 => " (SIGILL)",
        6 => " (SIGABRT)",
        7 => " (SIGBUS)",
        8 => " (SIGFPE)",
        9 => " (SIGKILL)",
        11 => " (SIGSEGV)",
        13 => " (SIGPIPE)",
        14 => " (SIGALRM)",
        15 => " (SIGTERM)",
        24 => " (SIGXCPU)",
        25 => " (SIGXFSZ)",
        31 => " (SIGSYS)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_is_one_sentence_that_says_what_to_do() {
        let cases = [
            (Outcome::Exited { code: 3 }, "ended with exit code 3"),
            (
                Outcome::Exited { code: 127 },
                "ended with exit code 127: the shell did not find a command",
            ),
            (Outcome::Signaled { signal: 11 }, "was ended by signal 11 (SIGSEGV)"),
            (
                Outcome::OutOfMemory { limit_bytes: 512 << 20 },
                "was killed because it needed more than its memory limit of 512 MiB; raise resources.memory",
            ),
            (
                Outcome::TimedOut { timeout_ms: 1_800_000 },
                "was ended at its time-out of 30 min; raise timeout",
            ),
            (
                Outcome::TimedOut { timeout_ms: 1_500 },
                "was ended at its time-out of 1.5 s; raise timeout",
            ),
        ];
        for (outcome, sentence) in cases {
            assert_eq!(outcome.sentence(), sentence);
        }
    }
}
