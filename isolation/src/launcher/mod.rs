//! Starts shims, finds them again after a restart, stops them and clears up after them.
//!
//! Not here: anything that happens inside a sandbox; the shim does that. The launcher keeps no
//! state of its own that its `run_dir` does not hold, so a new one goes on where the last stopped.

mod process;
mod run_dir;
mod start;
mod watch;

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::cgroup::{KillError, Layout, LayoutError, Slice};
use crate::handover::{self, Bundle, Identity, Paths};
use crate::kernel;
use crate::record::{End, ExitRecord, KilledBy, RecordError};
use crate::sandbox::{InvalidSpec, validate_id};
use crate::seccomp::FilterPrograms;
use run_dir::RunDir;

pub use watch::SandboxWatch;

/// How long killed processes may take to go. Longer ones hang in the kernel; the next call looks
/// again.
const KILL_PATIENCE: Duration = Duration::from_secs(5);
/// How long a shim may take to write its record once its sandbox was killed: two flushes to disk.
const SHIM_PATIENCE: Duration = Duration::from_secs(10);
/// How long making a sandbox may take: milliseconds, and seconds on an overloaded disk.
const SETUP_PATIENCE: Duration = Duration::from_secs(60);
/// How long a shim that holds its bundle open may take to say who it is: its first act.
const IDENTITY_PATIENCE: Duration = Duration::from_secs(2);
/// Longest reason of `stop` that is kept.
const REASON_BYTES_MAX: usize = 1_024;

/// Where a launcher works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LauncherConfig {
    /// Folder for bundles and state; made a root-only tmpfs if it does not lie on one.
    pub run_dir: PathBuf,
    /// The shim. Where absent: `BUILDFLOW_SHIM`, else `buildflow-shim` beside this program.
    pub shim_path: Option<PathBuf>,
}

/// Starts and follows the sandboxes of one `run_dir`. May be shared between threads.
///
/// Shims are meant to outlive the agent. A service manager that ends everything in the agent's own
/// cgroup has to be told (systemd: `KillMode=process`, `Delegate=yes`).
#[derive(Debug)]
pub struct Launcher {
    run_dir: RunDir,
    slice: Slice,
    filters: FilterPrograms,
    setup_patience: Duration,
    /// The shim's program in sealed memory: what runs inside a sandbox can reach the file that
    /// its first process was executed from, and must not be able to overwrite it.
    program: File,
    /// Shims that are children of this process, to be reaped.
    children: Mutex<HashMap<String, Child>>,
    /// Held while a dead shim's sandbox is cleared up, so that one caller does it.
    burial: Mutex<()>,
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

/// Names what was tried, for an error of the system.
fn io_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> LauncherError {
    |source| LauncherError::Io {
        what: what.into(),
        source,
    }
}

impl From<LayoutError> for LauncherError {
    fn from(error: LayoutError) -> LauncherError {
        LauncherError::Unfit {
            message: error.to_string(),
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What these locks protect is whole at every moment; a panic elsewhere does not spoil it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A name for the slice that only this folder gives.
fn slice_name(run_dir: &Path) -> String {
    use std::os::unix::ffi::OsStrExt as _;
    // FNV-1a: the same in every version of this program, which std's hasher does not promise.
    let hash = run_dir
        .as_os_str()
        .as_bytes()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
    format!("{hash:016x}")
}

impl Launcher {
    /// Makes the node ready: tmpfs, cgroup slice, seccomp filter. Needs root. What an earlier
    /// launcher left running on the same `run_dir` stays as it is.
    ///
    /// # Errors
    /// [`LauncherError::Unfit`] when this machine cannot run sandboxes.
    pub fn new(config: LauncherConfig) -> Result<Launcher, LauncherError> {
        if !nix::unistd::geteuid().is_root() {
            return Err(LauncherError::Unfit {
                message: "starting containers needs root; run the agent as root".into(),
            });
        }
        if !config.run_dir.is_absolute() || config.run_dir.to_str().is_none() {
            return Err(LauncherError::Unfit {
                message: format!("run_dir {} must be an absolute path in UTF-8", config.run_dir.display()),
            });
        }
        let program = start::load_shim(config.shim_path)?;
        let filters = crate::seccomp::compile().map_err(|error| LauncherError::Unfit {
            message: error.to_string(),
        })?;
        let run_dir =
            RunDir::open(&config.run_dir).map_err(io_error(format!("preparing {}", config.run_dir.display())))?;
        let mountinfo = fs::read_to_string("/proc/self/mountinfo").map_err(io_error("reading /proc/self/mountinfo"))?;
        let slice = Layout::from_mountinfo(&mountinfo).slice(&slice_name(run_dir.root()))?;
        slice.prepare().map_err(io_error("making the cgroup slice"))?;
        Ok(Launcher {
            run_dir,
            slice,
            filters,
            setup_patience: SETUP_PATIENCE,
            program,
            children: Mutex::default(),
            burial: Mutex::default(),
        })
    }

    /// How long making a sandbox may take before it is given up as failed; a minute otherwise.
    #[must_use]
    pub fn with_setup_patience(mut self, patience: Duration) -> Launcher {
        self.setup_patience = patience;
        self
    }

    /// Where a sandbox stands. A shim that died without a record is cleared up after here: its
    /// sandbox is killed and a record with [`End::ShimDied`] is written. May block for some
    /// seconds in that case only.
    ///
    /// # Errors
    /// When files or cgroups cannot be read or written.
    pub fn state(&self, id: &str) -> Result<SandboxState, LauncherError> {
        validate_id(id)?;
        self.reap(id);
        let bundle = self.run_dir.bundle(id);
        if !bundle.dir.is_dir() {
            return Ok(SandboxState::Gone);
        }
        if let Some(record) = read_record(&bundle)? {
            return Ok(SandboxState::Ended(record));
        }
        if shim_lives(&bundle)? {
            let started = handover::read_text(&bundle.started()).map_err(io_error("reading `started`"))?;
            return Ok(match started.and_then(|text| text.trim().parse().ok()) {
                Some(started_ms) => SandboxState::Running { started_ms },
                None => SandboxState::Starting,
            });
        }
        self.bury(id, &bundle).map(SandboxState::Ended)
    }

    /// Clears up after a shim that is gone, unless it wrote its record at the last moment.
    fn bury(&self, id: &str, bundle: &Bundle) -> Result<ExitRecord, LauncherError> {
        let _one_at_a_time = locked(&self.burial);
        if let Some(record) = read_record(bundle)? {
            return Ok(record);
        }
        self.kill(id)?;
        let readings = self.slice.readings(id);
        let text = |path: PathBuf| handover::read_text(&path).ok().flatten();
        let paths = read_paths(bundle)?;
        let log_bytes = paths.as_ref().and_then(|paths| fs::metadata(&paths.log_path).ok());
        let record = ExitRecord {
            started_ms: text(bundle.started()).and_then(|text| text.trim().parse().ok()),
            ended_ms: handover::now_ms(),
            end: End::ShimDied,
            killed_by_us: text(bundle.stop()).map(|reason| KilledBy::Stopped { reason }),
            oom_kills: readings.oom_kills,
            log_bytes: log_bytes.map_or(0, |log| log.len()),
            log_truncated: false,
            usage: readings.usage,
        };
        match &paths {
            Some(paths) => record.write(&paths.exit_path),
            None => Err(io::ErrorKind::NotFound.into()),
        }
        .or_else(|_| record.write(&bundle.exit()))
        .map_err(io_error("writing the exit record of a dead shim"))?;
        Ok(record)
    }

    fn kill(&self, id: &str) -> Result<(), LauncherError> {
        self.slice.kill(id, KILL_PATIENCE).map_err(|error| match error {
            KillError::Undying(pids) => LauncherError::Undying {
                id: id.to_owned(),
                pids,
            },
            KillError::Io(source) => io_error("killing a sandbox")(source),
        })
    }

    /// Reaps the shim if it was a child of this process and has ended.
    fn reap(&self, id: &str) {
        let mut children = locked(&self.children);
        if let Some(child) = children.get_mut(id)
            && !matches!(child.try_wait(), Ok(None))
        {
            children.remove(id);
        }
    }

    /// A descriptor that becomes readable with each change of [`Launcher::state`].
    ///
    /// # Errors
    /// [`LauncherError::Unknown`] if there is no such sandbox.
    pub fn watch(&self, id: &str) -> Result<SandboxWatch, LauncherError> {
        validate_id(id)?;
        let bundle = self.run_dir.bundle(id);
        if !bundle.dir.is_dir() {
            return Err(LauncherError::Unknown { id: id.to_owned() });
        }
        let pidfd = self.shim_pidfd(id)?;
        SandboxWatch::new(&bundle, pidfd).map_err(io_error("watching a sandbox"))
    }

    /// A pidfd of the shim: readable once the shim is gone; `None` if it is gone already.
    ///
    /// # Errors
    /// When the process table cannot be read.
    pub fn shim_pidfd(&self, id: &str) -> Result<Option<OwnedFd>, LauncherError> {
        validate_id(id)?;
        let bundle = self.run_dir.bundle(id);
        match read_identity(&bundle)? {
            Some(shim) => process::open(shim).map_err(io_error("opening the shim's pidfd")),
            None => Ok(None),
        }
    }

    /// Asks the shim to end the sandbox: SIGTERM to all in it, SIGKILL after `kill_grace`.
    /// Returns at once. Stopping what has ended or is gone does nothing. The first reason counts.
    ///
    /// # Errors
    /// When the shim cannot be told.
    pub fn stop(&self, id: &str, reason: &str) -> Result<(), LauncherError> {
        let Some(pidfd) = self.shim_pidfd(id)? else {
            return Ok(());
        };
        let bundle = self.run_dir.bundle(id);
        if !bundle.stop().exists() {
            let mut end = reason.len().min(REASON_BYTES_MAX);
            while !reason.is_char_boundary(end) {
                end -= 1;
            }
            handover::write_whole(&bundle.stop(), &reason.as_bytes()[..end])
                .map_err(io_error("writing the reason to stop"))?;
        }
        match kernel::pidfd_send_signal(pidfd.as_fd(), libc::SIGTERM) {
            Err(error) if error.raw_os_error() != Some(libc::ESRCH) => Err(io_error("telling the shim to stop")(error)),
            _ => Ok(()),
        }
    }

    /// Removes all that is left of a sandbox: processes (killed), cgroups, mounts, bundle. May be
    /// called in any state and again after a failure. The log, the exit record, `upper` and
    /// `work` are the caller's and stay. Blocks.
    ///
    /// # Errors
    /// When something resists; what is left is removed by the next call.
    pub fn remove(&self, id: &str) -> Result<(), LauncherError> {
        validate_id(id)?;
        if self.shim_pidfd(id)?.is_some() && !self.run_dir.bundle(id).ended().exists() {
            self.stop(id, "removed")?;
            self.kill(id)?;
        }
        self.await_shim(id)?;
        self.kill(id)?;
        self.slice
            .remove(id)
            .map_err(io_error(format!("removing the cgroups of {id}")))?;
        self.run_dir
            .remove(id)
            .map_err(io_error(format!("removing the bundle of {id}")))
    }

    /// Waits until the shim is gone; kills it if it does not go by itself.
    fn await_shim(&self, id: &str) -> Result<(), LauncherError> {
        await_identity(&self.run_dir.bundle(id))?;
        if let Some(pidfd) = self.shim_pidfd(id)? {
            let waiting = io_error("waiting for the shim");
            let gone = watch::wait_readable(pidfd.as_fd(), SHIM_PATIENCE).map_err(waiting)?;
            if !gone {
                // ESRCH: it went in this moment.
                let _ = kernel::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL);
                watch::wait_readable(pidfd.as_fd(), KILL_PATIENCE).map_err(io_error("waiting for the shim"))?;
            }
        }
        let child = locked(&self.children).remove(id);
        if let Some(mut child) = child {
            // It is gone, unless it hangs before it has said who it is.
            child.kill().map_err(io_error("killing the shim"))?;
            child.wait().map_err(io_error("reaping the shim"))?;
        }
        Ok(())
    }

    /// All sandboxes of which something is there: for re-adoption, and to find orphans.
    ///
    /// # Errors
    /// When `run_dir` or the cgroups cannot be read.
    pub fn list(&self) -> Result<Vec<Listed>, LauncherError> {
        let mut ids = self.run_dir.ids().map_err(io_error("reading run_dir"))?;
        ids.extend(self.slice.names().map_err(io_error("reading the cgroup slice"))?);
        ids.sort_unstable();
        ids.dedup();
        let mut listed = Vec::new();
        for id in ids.into_iter().filter(|id| validate_id(id).is_ok()) {
            let paths = read_paths(&self.run_dir.bundle(&id))?;
            let (log_path, exit_path) = match paths {
                Some(paths) => (Some(paths.log_path), Some(paths.exit_path)),
                None => (None, None),
            };
            listed.push(Listed {
                id,
                log_path,
                exit_path,
            });
        }
        Ok(listed)
    }

    /// Removes the cgroup slice and the tmpfs if no sandbox is left; `false` if one is. The
    /// launcher is of no use afterwards; make a new one.
    ///
    /// # Errors
    /// When something resists.
    pub fn shutdown_if_idle(&self) -> Result<bool, LauncherError> {
        if !self.list()?.is_empty() {
            return Ok(false);
        }
        self.slice.dissolve().map_err(io_error("removing the cgroup slice"))?;
        self.run_dir.dissolve().map_err(io_error("removing run_dir"))?;
        Ok(true)
    }
}

fn read_paths(bundle: &Bundle) -> Result<Option<Paths>, LauncherError> {
    handover::read_json(&bundle.paths()).map_err(io_error("reading paths.json"))
}

fn read_identity(bundle: &Bundle) -> Result<Option<Identity>, LauncherError> {
    handover::read_json(&bundle.identity()).map_err(io_error("reading shim.json"))
}

/// The exit record, from the disk or, if that was full, from the bundle.
fn read_record(bundle: &Bundle) -> Result<Option<ExitRecord>, LauncherError> {
    if let Some(paths) = read_paths(bundle)?
        && let Some(record) = ExitRecord::read(&paths.exit_path)?
    {
        return Ok(Some(record));
    }
    Ok(ExitRecord::read(&bundle.exit())?)
}

/// A shim that is about to take over is given the moment it needs to say who it is.
fn await_identity(bundle: &Bundle) -> Result<(), LauncherError> {
    let until = Instant::now() + IDENTITY_PATIENCE;
    while read_identity(bundle)?.is_none() && shim_lives(bundle)? && Instant::now() < until {
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Whether there is a shim, or one that is just being started.
fn shim_lives(bundle: &Bundle) -> Result<bool, LauncherError> {
    match read_identity(bundle)? {
        Some(shim) => Ok(process::open(shim)
            .map_err(io_error("opening the shim's pidfd"))?
            .is_some()),
        // It has not written who it is; whoever holds the bundle open is about to.
        None => run_dir::is_locked(bundle).map_err(io_error("looking at the bundle's lock")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_launcher_may_be_shared_between_threads() {
        fn shared<T: Send + Sync>() {}
        shared::<Launcher>();
        shared::<SandboxWatch>();
    }

    #[test]
    fn the_name_of_a_slice_never_changes() {
        // Sandboxes of an older agent are found by it.
        assert_eq!(slice_name(Path::new("/run/buildflow")), "0b35c3fe15001380");
    }
}
