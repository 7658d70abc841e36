//! What can go wrong in an experiment, in words that say how to mend it.

use std::path::PathBuf;

/// Why an experiment has no result.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// A file of the trace cannot be read.
    #[error(
        "cannot read the trace file {path}: {cause}; --trace names a folder with prow/k8s_prow_job_requests.csv and pytorch_ci/pytorch_test_file_times.csv"
    )]
    Trace {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        cause: std::io::Error,
    },
    /// A line of the trace is not as it should be.
    #[error("{path}:{line}: {what}")]
    Line {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1; 0 for the file as a whole.
        line: usize,
        /// What is wrong with it.
        what: String,
    },
    /// Standard output or a plot cannot be written.
    #[error("cannot write {what}: {cause}")]
    Write {
        /// Which file.
        what: String,
        /// Why.
        cause: String,
    },
    /// Arguments that cannot be measured.
    #[error("{0}")]
    Arguments(String),
    /// The experiment did not come to its end.
    #[error("the experiment stopped: {0}")]
    Stopped(String),
}

impl From<std::io::Error> for BenchError {
    fn from(cause: std::io::Error) -> Self {
        Self::Write {
            what: "standard output".to_owned(),
            cause: cause.to_string(),
        }
    }
}
