//! How a verb ends: the documented exit codes, and one plain sentence when it could not do its work.

use api::dto::{Problem, RunStatus};
use std::io::Write as _;

/// The documented exit codes; 130 and 141 are what every shell expects of an interrupted program
/// and of one whose reader has gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exit {
    Success,
    RunFailed,
    Usage,
    Cancelled,
    TimedOut,
    Unreachable,
    NotAllowed,
    Interrupted,
    OutputClosed,
}

impl Exit {
    pub(super) fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::RunFailed => 1,
            Self::Usage => 2,
            Self::Cancelled => 3,
            Self::TimedOut => 4,
            Self::Unreachable => 5,
            Self::NotAllowed => 6,
            Self::Interrupted => 130,
            Self::OutputClosed => 141,
        }
    }

    /// What a followed run's end means for the program.
    pub(super) fn of_run(status: RunStatus) -> Self {
        match status {
            RunStatus::Success => Self::Success,
            RunStatus::Failed => Self::RunFailed,
            RunStatus::Cancelled => Self::Cancelled,
            RunStatus::TimedOut => Self::TimedOut,
            // Nothing follows a run that has not ended; whoever asks for its end has lost it.
            RunStatus::Queued | RunStatus::Running => Self::Unreachable,
        }
    }
}

/// Why a verb could not do its work.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// Wrong arguments, a name that is not there, an invalid file.
    #[error("{0}")]
    Usage(String),
    /// It contradicts what is there.
    #[error("{0}")]
    Conflict(String),
    /// Everything was said already, e.g. the findings of a file.
    #[error("")]
    UsageToldAlready,
    /// The server cannot be reached, or it failed.
    #[error("{0}")]
    Unreachable(String),
    /// No token, a wrong one, or one that does not allow this.
    #[error("{0}")]
    NotAllowed(String),
    /// Ctrl-C.
    #[error("interrupted; what runs on the server goes on")]
    Interrupted,
    /// Whoever read our output has gone.
    #[error("")]
    OutputClosed,
    /// Standard output cannot be written, e.g. its disk is full.
    #[error("cannot write the output: {0}")]
    Output(std::io::Error),
}

impl Failure {
    pub(super) fn not_supported_yet(what: &str) -> Self {
        Self::Usage(format!("{what} is not supported yet by this release"))
    }

    /// The server's refusal of `path`. `status` is the one of HTTP, whatever the body says.
    pub(super) fn refused(status: u16, problem: Option<&Problem>, path: &str) -> Self {
        let text = refusal_text(status, problem, path);
        let id = problem.and_then(|p| p.request_id.as_deref());
        match status {
            // The server speaks of headers here, which nobody at a terminal writes.
            401 => Self::NotAllowed("a valid token is needed: set BUILDFLOW_TOKEN, or token in config.toml".to_owned()),
            409 => Self::Conflict(text),
            403 => Self::NotAllowed(text),
            429 => Self::Unreachable(format!("{text}; try again in a moment")),
            // The contract's routes of later releases.
            501 => Self::Usage(text),
            500.. => Self::Unreachable(id.map_or_else(|| text.clone(), |id| format!("{text} (request {id})"))),
            _ => Self::Usage(text),
        }
    }

    pub(super) fn exit(&self) -> Exit {
        match self {
            Self::Usage(_) | Self::Conflict(_) | Self::UsageToldAlready => Exit::Usage,
            Self::Unreachable(_) | Self::Output(_) => Exit::Unreachable,
            Self::NotAllowed(_) => Exit::NotAllowed,
            Self::Interrupted => Exit::Interrupted,
            Self::OutputClosed => Exit::OutputClosed,
        }
    }

    /// Says it on standard error, if there is something to say and somebody to hear it.
    pub(super) fn tell(&self) {
        let text = super::table::printable_lines(&self.to_string());
        if !text.is_empty() {
            // A closed standard error leaves nobody to tell.
            drop(writeln!(std::io::stderr(), "buildflow: {text}"));
        }
    }
}

/// The problem's own words, and its faulty places unless the words name them already.
fn refusal_text(status: u16, problem: Option<&Problem>, path: &str) -> String {
    let Some(problem) = problem else {
        return format!("the server answered {status} to {path}; is it a BuildFlow server?");
    };
    let mut text = problem.detail.clone().unwrap_or_else(|| problem.title.clone());
    for place in &problem.errors {
        if !text.contains(&place.message) {
            let field = place.field.as_ref().map(|f| format!("`{f}`: ")).unwrap_or_default();
            text.push_str("\n  ");
            text.push_str(&field);
            text.push_str(&place.message);
        }
    }
    text
}

impl From<std::io::Error> for Failure {
    /// For writes to standard output only.
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            Self::OutputClosed
        } else {
            Self::Output(error)
        }
    }
}
