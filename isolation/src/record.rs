//! How a sandbox ended: the one file that the shim leaves behind.
//!
//! Not here: what the end means for a step. A non-zero exit code is no judgement.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// Largest exit record that is read; ours have some hundred bytes.
const RECORD_BYTES_MAX: u64 = 64 << 10;

/// The end of a sandbox, written once, by temporary file, fsync and rename.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// When the program was executed, Unix ms; absent if it never was.
    pub started_ms: Option<u64>,
    /// When the program was seen to have ended, Unix ms.
    pub ended_ms: u64,
    /// How it ended.
    pub end: End,
    /// Whether we ended it. The end then tells how the program took it.
    pub killed_by_us: Option<KilledBy>,
    /// Processes killed for want of memory, however the program itself ended.
    pub oom_kills: u64,
    /// Length of the log file in bytes; all of it is on the disk.
    pub log_bytes: u64,
    /// Whether output was thrown away (limit reached, or the disk was full).
    pub log_truncated: bool,
    /// What it used.
    pub usage: Usage,
}

/// How the program of a sandbox ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum End {
    /// It exited by itself, 0 to 255.
    Exited {
        /// The exit code.
        code: i32,
    },
    /// A signal ended it.
    Signaled {
        /// The signal's number.
        signal: i32,
    },
    /// It could not be executed: absent, not executable, made for another machine, or its
    /// interpreter is absent.
    CommandMissing {
        /// The program as it was asked for.
        command: String,
        /// What was found instead.
        message: String,
    },
    /// The spec does not fit the image: unknown user, working directory that does not exist.
    SpecRefused {
        /// What does not fit.
        message: String,
    },
    /// The node could not make the sandbox; trying again elsewhere may help.
    SandboxFailed {
        /// What failed.
        message: String,
    },
    /// The shim vanished without a record; everything in the sandbox was killed.
    ShimDied,
}

/// Why we ended a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum KilledBy {
    /// Its time was over.
    Timeout,
    /// `Launcher::stop` asked for it.
    Stopped {
        /// What the caller of `stop` gave as the reason.
        reason: String,
    },
    /// The node's lease had ended.
    Lease,
}

/// What a sandbox used, as far as the kernel told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Highest use of memory in bytes, page cache included.
    pub memory_peak_bytes: u64,
    /// CPU time in ms, user and system.
    pub cpu_ms: u64,
    /// Time in ms for which its CPU limit held it back.
    pub throttled_ms: u64,
}

/// An exit record that is there and cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The file cannot be read.
    #[error("cannot read exit record: {0}")]
    Io(#[from] io::Error),
    /// The file is no exit record.
    #[error("exit record is damaged: {0}")]
    Damaged(#[from] serde_json::Error),
}

impl ExitRecord {
    /// Writes the record by temporary file, fsync and rename.
    ///
    /// # Errors
    /// When the disk does not take it; then nothing is left.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        crate::handover::write_durably(path, &serde_json::to_vec(self)?)
    }

    /// Reads the record at `path`; `None` if there is none.
    ///
    /// # Errors
    /// When the file cannot be read or is no record.
    pub fn read(path: &Path) -> Result<Option<ExitRecord>, RecordError> {
        use io::Read as _;
        let file = match std::fs::File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mut text = Vec::new();
        file.take(RECORD_BYTES_MAX).read_to_end(&mut text)?;
        Ok(Some(serde_json::from_slice(&text)?))
    }
}
