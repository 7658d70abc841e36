//! The control groups of sandboxes: one slice per launcher, one leaf per sandbox, one for shims.
//!
//! A slice is plain paths, so that tests use a folder and the shim uses descriptors that it opened
//! before it hid the hierarchy. Not here: which processes run in a leaf.

mod layout;
mod v1;
mod v2;

use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::kernel;
use crate::record::Usage;
use crate::sandbox::Limits;

pub use layout::{Layout, LayoutError};
pub use v1::V1Slice;
pub use v2::V2Slice;

/// The leaf in which shims live; no sandbox can have this id, as ids begin with letter or digit.
const SHIMS: &str = "_shims";
/// Period over which the CPU limit is counted, in µs: the kernel's own default.
const CPU_PERIOD_US: u64 = 100_000;
/// How often the folder above all slices may vanish while a slice is made in it.
const PREPARE_TRIES: u32 = 20;
/// Pause between looking again whether killed processes are gone.
const KILL_PAUSE: Duration = Duration::from_millis(2);
/// Processes that are held open at a time: a sandbox may have thousands, and whoever signals them
/// has other files to open meanwhile.
const PIDFDS_MAX: usize = 64;
/// How long an empty cgroup may stay busy before its removal is given up; the kernel takes some
/// milliseconds to let go of processes that have just been reaped.
const REMOVE_PATIENCE: Duration = Duration::from_secs(2);

/// What the kernel counted in a sandbox.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Readings {
    /// What it used.
    pub usage: Usage,
    /// Processes killed for want of memory.
    pub oom_kills: u64,
}

/// One slice, whichever version of cgroups it lies in. Names are sandbox ids.
pub trait Hierarchy {
    /// Makes the slice itself and the leaf of the shims. Idempotent.
    ///
    /// # Errors
    /// When a controller cannot be had.
    fn prepare(&self) -> io::Result<()>;
    /// Makes the leaf `name` with its limits. Fails if it exists.
    ///
    /// # Errors
    /// When the kernel refuses a limit; the leaf may then exist in part.
    fn create(&self, name: &str, limits: &Limits) -> io::Result<()>;
    /// Moves the calling process, which has one thread, into the leaf `name`.
    ///
    /// # Errors
    /// When the leaf does not exist.
    fn enter(&self, name: &str) -> io::Result<()>;
    /// Allows no further process in `name`. Those that are there go on.
    ///
    /// # Errors
    /// When the leaf cannot be written.
    fn seal(&self, name: &str) -> io::Result<()>;
    /// What has been counted in `name` so far. What cannot be read counts as zero.
    fn readings(&self, name: &str) -> Readings;
    /// The folders of the slice, the one that counts processes first.
    fn dirs(&self) -> Vec<&Path>;
}

/// A slice as it is handed to the shim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Slice {
    /// One folder per controller.
    V1(V1Slice),
    /// One folder.
    V2(V2Slice),
}

/// Processes that did not die in time.
#[derive(Debug, thiserror::Error)]
pub enum KillError {
    /// They are still there.
    #[error("processes do not die: {0:?}")]
    Undying(Vec<i32>),
    /// The cgroup cannot be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Slice {
    fn hierarchy(&self) -> &dyn Hierarchy {
        match self {
            Slice::V1(slice) => slice,
            Slice::V2(slice) => slice,
        }
    }

    /// See [`Hierarchy::prepare`].
    ///
    /// # Errors
    /// As there.
    pub fn prepare(&self) -> io::Result<()> {
        for _ in 1..PREPARE_TRIES {
            match self.hierarchy().prepare() {
                // Another launcher's `dissolve` has just removed the folder above.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                other => return other,
            }
        }
        self.hierarchy().prepare()
    }

    /// See [`Hierarchy::create`].
    ///
    /// # Errors
    /// As there.
    pub fn create(&self, name: &str, limits: &Limits) -> io::Result<()> {
        self.hierarchy().create(name, limits)
    }

    /// See [`Hierarchy::enter`].
    ///
    /// # Errors
    /// As there.
    pub fn enter(&self, name: &str) -> io::Result<()> {
        self.hierarchy().enter(name)
    }

    /// Moves the calling process, which has one thread, out of its sandbox's leaf.
    ///
    /// # Errors
    /// When the slice has not been prepared.
    pub fn leave(&self) -> io::Result<()> {
        self.hierarchy().enter(SHIMS)
    }

    /// See [`Hierarchy::readings`].
    #[must_use]
    pub fn readings(&self, name: &str) -> Readings {
        self.hierarchy().readings(name)
    }

    /// Ids of all processes in `name` and below it; none if it does not exist.
    ///
    /// # Errors
    /// When the cgroup cannot be read.
    pub fn pids(&self, name: &str) -> io::Result<Vec<i32>> {
        let mut pids = Vec::new();
        for dir in self.hierarchy().dirs() {
            collect_pids(&dir.join(name), &mut pids)?;
        }
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }

    /// Sends `signal` to every process in `name` except the calling one.
    ///
    /// # Errors
    /// When the cgroup cannot be read.
    pub fn signal(&self, name: &str, signal: i32) -> io::Result<()> {
        let own = std::process::id().cast_signed();
        let candidates: Vec<i32> = self.pids(name)?.into_iter().filter(|pid| *pid != own).collect();
        for some in candidates.chunks(PIDFDS_MAX) {
            self.signal_listed(name, some, signal)?;
        }
        Ok(())
    }

    /// Sends `signal` to those of `candidates` that are in `name`.
    fn signal_listed(&self, name: &str, candidates: &[i32], signal: i32) -> io::Result<()> {
        let opened: Vec<(i32, OwnedFd)> = candidates
            .iter()
            .filter_map(|pid| kernel::pidfd_open(*pid).ok().map(|pidfd| (*pid, pidfd)))
            .collect();
        // A number may have been given to a stranger between reading and opening: only those
        // that are still listed are meant.
        let confirmed = self.pids(name)?;
        for (pid, pidfd) in opened {
            if confirmed.binary_search(&pid).is_ok() {
                use std::os::fd::AsFd as _;
                // The process may have ended by itself; that is what was wanted.
                let _ = kernel::pidfd_send_signal(pidfd.as_fd(), signal);
            }
        }
        Ok(())
    }

    /// Kills every process in `name` and waits until they are gone. Nothing to do if there is no
    /// such leaf.
    ///
    /// # Errors
    /// [`KillError::Undying`] after `patience`.
    pub fn kill(&self, name: &str, patience: Duration) -> Result<(), KillError> {
        if self.pids(name)?.is_empty() {
            return Ok(());
        }
        match self.hierarchy().seal(name) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
        let until = Instant::now() + patience;
        loop {
            self.signal(name, libc::SIGKILL)?;
            let left = self.pids(name)?;
            if left.is_empty() {
                return Ok(());
            }
            if Instant::now() >= until {
                return Err(KillError::Undying(left));
            }
            thread::sleep(KILL_PAUSE);
        }
    }

    /// Removes the leaf `name` and all below it. Nothing to do if there is none.
    ///
    /// # Errors
    /// When processes are left in it.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        for dir in self.hierarchy().dirs() {
            remove_tree(&dir.join(name))?;
        }
        Ok(())
    }

    /// Names of all leaves of sandboxes.
    ///
    /// # Errors
    /// When the slice cannot be read.
    pub fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for dir in self.hierarchy().dirs() {
            for name in sub_folders(dir)? {
                if let Some(name) = name.file_name().and_then(|name| name.to_str()) {
                    names.push(name.to_owned());
                }
            }
        }
        names.sort_unstable();
        names.dedup();
        names.retain(|name| name != SHIMS);
        Ok(names)
    }

    /// Removes the slice and, if nobody else uses it, the folder above it.
    ///
    /// # Errors
    /// When a sandbox or a shim is left in it.
    pub fn dissolve(&self) -> io::Result<()> {
        for dir in self.hierarchy().dirs() {
            remove_tree(&dir.join(SHIMS))?;
            remove_tree(dir)?;
            if let Some(parent) = dir.parent() {
                // Other launchers may have their slices there.
                let _ = fs::remove_dir(parent);
            }
        }
        Ok(())
    }

    /// The same slice through descriptors: it stays usable when the hierarchy is unmounted. The
    /// descriptors must be kept for as long as the result is used.
    ///
    /// # Errors
    /// When a folder cannot be opened.
    pub fn pinned(&self) -> io::Result<(Slice, Vec<OwnedFd>)> {
        let mut held = Vec::new();
        let mut pin = |dir: &Path| -> io::Result<PathBuf> {
            use std::os::unix::fs::OpenOptionsExt as _;
            let file = fs::OpenOptions::new()
                .read(true)
                .custom_flags(libc::O_PATH | libc::O_DIRECTORY)
                .open(dir)?;
            let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
            held.push(OwnedFd::from(file));
            Ok(path)
        };
        let pinned = match self {
            Slice::V1(slice) => Slice::V1(slice.map_dirs(&mut pin)?),
            Slice::V2(slice) => Slice::V2(V2Slice { dir: pin(&slice.dir)? }),
        };
        Ok((pinned, held))
    }

    /// The file that lists the processes of `name`.
    #[must_use]
    pub fn procs_file(&self, name: &str) -> PathBuf {
        let dirs = self.hierarchy().dirs();
        let first = dirs.first().expect("a slice has at least one folder");
        first.join(name).join("cgroup.procs")
    }
}

fn sub_folders(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

fn collect_pids(dir: &Path, pids: &mut Vec<i32>) -> io::Result<()> {
    let text = match fs::read_to_string(dir.join("cgroup.procs")) {
        Ok(text) => text,
        // ENODEV: the cgroup was removed between opening and reading.
        Err(error) if error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV) => {
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    // A process of a pid namespace that we cannot see reads as 0.
    pids.extend(
        text.lines()
            .filter_map(|line| line.parse().ok())
            .filter(|pid: &i32| *pid > 0),
    );
    for below in sub_folders(dir)? {
        collect_pids(&below, pids)?;
    }
    Ok(())
}

/// Removes a cgroup and all below it, deepest first. Only folders: the kernel's files go along.
fn remove_tree(dir: &Path) -> io::Result<()> {
    for below in sub_folders(dir)? {
        remove_tree(&below)?;
    }
    let until = Instant::now() + REMOVE_PATIENCE;
    loop {
        match fs::remove_dir(dir) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == ErrorKind::ResourceBusy && Instant::now() < until => {
                thread::sleep(KILL_PAUSE);
            }
            Err(error) => return Err(error),
        }
    }
}

/// Writes one setting; the error names the file.
fn set(dir: &Path, file: &str, value: &str) -> io::Result<()> {
    fs::write(dir.join(file), value).map_err(|error| io::Error::new(error.kind(), format!("{file} = {value}: {error}")))
}

/// Writes one setting if the kernel has it.
fn set_if_present(dir: &Path, file: &str, value: &str) -> io::Result<()> {
    if dir.join(file).exists() {
        return set(dir, file, value);
    }
    Ok(())
}

/// A file that holds one number; 0 if it cannot be read.
fn read_number(dir: &Path, file: &str) -> u64 {
    fs::read_to_string(dir.join(file))
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0)
}

/// The number behind `key` in a file of `key number` lines; 0 if it cannot be read.
fn read_keyed(dir: &Path, file: &str, key: &str) -> u64 {
    let text = fs::read_to_string(dir.join(file)).unwrap_or_default();
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(name, _)| *name == key)
        .and_then(|(_, value)| value.trim().parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests;
