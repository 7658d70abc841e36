//! Starts shims, finds them again after a restart, stops them and clears up after them.
//!
//! Not here: anything that happens inside a sandbox; the shim does that. The launcher keeps no
//! state of its own that its `run_dir` does not hold, so a new one goes on where the last stopped.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;

use crate::record::{ExitRecord, RecordError};
use crate::sandbox::{InvalidSpec, SandboxSpec};

/// Where a launcher works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LauncherConfig {
    /// Folder for bundles and state; made a root-only tmpfs if it does not lie on one.
    pub run_dir: PathBuf,
    /// The shim. Where absent: `BUILDFLOW_SHIM`, else `buildflow-shim` beside this program.
    pub shim_path: Option<PathBuf>,
}

/// Starts and follows the sandboxes of one `run_dir`. May be shared between threads.
#[derive(Debug)]
pub struct Launcher {
    _config: LauncherConfig,
}

/// A shim that has taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Launched {
    /// The shim's process id.
    pub shim_pid: u32,
    /// When the shim started, in clock ticks since boot: with the pid it names one process.
    pub shim_start_time: u64,
}

/// Where a sandbox stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SandboxState {
    /// The shim is at work, the program has not been executed yet.
    Starting,
    /// The program runs.
    Running {
        /// When it was executed, Unix ms.
        started_ms: u64,
    },
    /// It is over; `remove` is what is left to do.
    Ended(ExitRecord),
    /// Nothing is known under this id.
    Gone,
}

/// A sandbox found in `run_dir`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its id.
    pub id: String,
    /// Where its log is appended; absent if the launch broke off before it was known.
    pub log_path: Option<PathBuf>,
    /// Where its exit record will lie; absent like `log_path`.
    pub exit_path: Option<PathBuf>,
}

/// Becomes readable when something happened to a sandbox: it started, it ended, its shim died.
///
/// Wait for readability, call [`SandboxWatch::acknowledge`], then ask [`Launcher::state`].
#[derive(Debug)]
pub struct SandboxWatch {
    epoll: OwnedFd,
}

/// Why a sandbox was not launched. Nothing is left of it.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The spec can never start.
    #[error("invalid sandbox: {0}")]
    Invalid(#[from] InvalidSpec),
    /// There is a sandbox of this id already.
    #[error("sandbox {id} exists already")]
    Exists {
        /// The id.
        id: String,
    },
    /// The shim ended before it had taken over.
    #[error("shim did not take over: {message}")]
    Shim {
        /// What it said.
        message: String,
    },
    /// The node could not do its part.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
}

impl LaunchError {
    /// Whether the same launch may succeed later or elsewhere.
    #[must_use]
    pub fn retry(&self) -> bool {
        match self {
            LaunchError::Invalid(_) | LaunchError::Exists { .. } => false,
            LaunchError::Shim { .. } | LaunchError::Io { .. } => true,
        }
    }
}

/// Why a launcher or one of its sandboxes could not be dealt with.
#[derive(Debug, thiserror::Error)]
pub enum LauncherError {
    /// No such id can exist.
    #[error("invalid sandbox: {0}")]
    Invalid(#[from] InvalidSpec),
    /// There is nothing under this id.
    #[error("sandbox {id} does not exist")]
    Unknown {
        /// The id.
        id: String,
    },
    /// The machine lacks something: root, a controller, a mounted hierarchy, the shim.
    #[error("this node cannot run sandboxes: {message}")]
    Unfit {
        /// What is missing, and how to mend it.
        message: String,
    },
    /// An exit record is there and cannot be read.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// Processes of a sandbox did not die in time; try again.
    #[error("processes of sandbox {id} do not die: {pids:?}")]
    Undying {
        /// The id.
        id: String,
        /// Who is still there.
        pids: Vec<i32>,
    },
    /// The node could not do its part.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
}

impl LauncherConfig {
    /// A launcher on `run_dir` with the shim at its usual place.
    #[must_use]
    pub fn new(run_dir: impl Into<PathBuf>) -> LauncherConfig {
        LauncherConfig {
            run_dir: run_dir.into(),
            shim_path: None,
        }
    }
}

impl Launcher {
    /// Makes the node ready: tmpfs, cgroup slice, seccomp filter. Needs root. What an earlier
    /// launcher left running on the same `run_dir` stays as it is.
    ///
    /// # Errors
    /// [`LauncherError::Unfit`] when this machine cannot run sandboxes.
    pub fn new(config: LauncherConfig) -> Result<Launcher, LauncherError> {
        Ok(Launcher { _config: config })
    }

    /// Starts a shim and returns as soon as it has taken over (some milliseconds). What becomes
    /// of the sandbox then is told by [`Launcher::state`]. Blocks; call it off the event loop.
    ///
    /// # Errors
    /// When the spec is refused or no shim could be started; then nothing is left.
    pub fn launch(&self, spec: &SandboxSpec) -> Result<Launched, LaunchError> {
        spec.validate()?;
        Err(LaunchError::Shim {
            message: "not there yet".into(),
        })
    }

    /// Where a sandbox stands. A shim that died without a record is cleared up after here: its
    /// sandbox is killed and a record with [`End::ShimDied`](crate::End::ShimDied) is written.
    ///
    /// # Errors
    /// When files or cgroups cannot be read or written.
    pub fn state(&self, id: &str) -> Result<SandboxState, LauncherError> {
        crate::sandbox::validate_id(id)?;
        Ok(SandboxState::Gone)
    }

    /// A descriptor that becomes readable with each change of [`Launcher::state`].
    ///
    /// # Errors
    /// [`LauncherError::Unknown`] if there is no such sandbox.
    pub fn watch(&self, id: &str) -> Result<SandboxWatch, LauncherError> {
        Err(LauncherError::Unknown { id: id.to_owned() })
    }

    /// A pidfd of the shim: readable once the shim is gone; `None` if it is gone already.
    ///
    /// # Errors
    /// When the process table cannot be read.
    pub fn shim_pidfd(&self, id: &str) -> Result<Option<OwnedFd>, LauncherError> {
        crate::sandbox::validate_id(id)?;
        Ok(None)
    }

    /// Asks the shim to end the sandbox: SIGTERM to all in it, SIGKILL after `kill_grace`.
    /// Returns at once. Stopping what has ended or is gone does nothing.
    ///
    /// # Errors
    /// When the shim cannot be told.
    pub fn stop(&self, id: &str, reason: &str) -> Result<(), LauncherError> {
        let _ = reason;
        crate::sandbox::validate_id(id)?;
        Ok(())
    }

    /// Removes all that is left of a sandbox: processes (killed), cgroups, mounts, bundle. May be
    /// called in any state and again after a failure. The log, the exit record, `upper` and
    /// `work` are the caller's and stay. Blocks.
    ///
    /// # Errors
    /// When something resists; what is left is removed by the next call.
    pub fn remove(&self, id: &str) -> Result<(), LauncherError> {
        crate::sandbox::validate_id(id)?;
        Ok(())
    }

    /// All sandboxes of which something is there: for re-adoption, and to find orphans.
    ///
    /// # Errors
    /// When `run_dir` or the cgroups cannot be read.
    pub fn list(&self) -> Result<Vec<Listed>, LauncherError> {
        Ok(Vec::new())
    }

    /// Removes the cgroup slice and the tmpfs if no sandbox is left; `false` if one is. The
    /// launcher is of no use afterwards; make a new one.
    ///
    /// # Errors
    /// When something resists.
    pub fn shutdown_if_idle(&self) -> Result<bool, LauncherError> {
        Ok(true)
    }
}

impl SandboxWatch {
    /// Takes note of what happened, so that the descriptor becomes readable only with the next
    /// change. It stays readable once the shim is gone.
    pub fn acknowledge(&self) {}
}

impl AsFd for SandboxWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

impl AsRawFd for SandboxWatch {
    fn as_raw_fd(&self) -> RawFd {
        self.epoll.as_raw_fd()
    }
}
