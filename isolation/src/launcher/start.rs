//! From a spec to a shim that has taken over.
//!
//! The shim is executed without a fork of this process: the agent may be large, and has threads.

use std::env;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::run_dir::NewBundle;
use super::{KILL_PATIENCE, LaunchError, Launched, Launcher, LauncherError, locked, watch};
use crate::handover::{self, Bundle, Identity, Paths, READY, ShimOrder};
use crate::kernel::{MemoryFile, sealed_memory_file};
use crate::sandbox::{InvalidSpec, SandboxSpec};

/// How long a shim may take to take over. It opens a few files; a second is a very slow disk.
const TAKE_OVER_PATIENCE: Duration = Duration::from_secs(30);
/// How much of a failed shim's words goes into an error.
const WORDS_BYTES_MAX: usize = 2_048;
/// Name of the shim's program.
const SHIM: &str = "buildflow-shim";
/// Names the shim's program where it is at no usual place.
const SHIM_VARIABLE: &str = "BUILDFLOW_SHIM";

/// Reads the shim's program into sealed memory.
pub(super) fn load_shim(configured: Option<PathBuf>) -> Result<File, LauncherError> {
    let path = match configured.or_else(|| env::var_os(SHIM_VARIABLE).map(PathBuf::from)) {
        Some(path) => path,
        None => beside_this_program().ok_or_else(|| LauncherError::Unfit {
            message: format!("{SHIM} is not beside this program; put it there or name it in {SHIM_VARIABLE}"),
        })?,
    };
    let unfit = |error: io::Error| LauncherError::Unfit {
        message: format!("the shim {} cannot be loaded: {error}", path.display()),
    };
    let program = fs::read(&path).map_err(unfit)?;
    sealed_memory_file(c"buildflow-shim", MemoryFile::Program, &program).map_err(unfit)
}

/// Beside this program, or one folder up, where cargo puts programs of which tests are built.
fn beside_this_program() -> Option<PathBuf> {
    let own = env::current_exe().ok()?;
    let folders = own.ancestors().skip(1).take(2);
    folders.map(|folder| folder.join(SHIM)).find(|shim| shim.is_file())
}

fn io_error(what: &str) -> impl FnOnce(io::Error) -> LaunchError {
    move |source| LaunchError::Io {
        what: what.to_owned(),
        source,
    }
}

/// What has to be there and must not be there on the disk.
fn check_paths(spec: &SandboxSpec) -> Result<(), InvalidSpec> {
    let missing = |field, folder: Option<&Path>| InvalidSpec {
        field,
        message: format!(
            "the folder {} does not exist",
            folder.unwrap_or(Path::new("")).display()
        ),
    };
    for (field, path) in [("log_path", &spec.log_path), ("exit_path", &spec.exit_path)] {
        if !path.parent().is_some_and(Path::is_dir) {
            return Err(missing(field, path.parent()));
        }
    }
    if spec.exit_path.exists() {
        return Err(InvalidSpec {
            field: "exit_path",
            message: format!("{} is there already", spec.exit_path.display()),
        });
    }
    Ok(())
}

impl Launcher {
    /// Starts a shim and returns as soon as it has taken over (some milliseconds). What becomes
    /// of the sandbox then is told by [`Launcher::state`]. The shim and its sandbox outlive this
    /// process. Blocks; call it off the event loop.
    ///
    /// # Errors
    /// When the spec is refused or no shim could be started; then nothing is left.
    pub fn launch(&self, spec: &SandboxSpec) -> Result<Launched, LaunchError> {
        spec.validate()?;
        check_paths(spec)?;
        let paths = Paths {
            log_path: spec.log_path.clone(),
            exit_path: spec.exit_path.clone(),
        };
        let made = self.run_dir.make_bundle(&spec.id, &paths).map_err(|error| {
            if error.kind() == io::ErrorKind::AlreadyExists {
                return LaunchError::Exists { id: spec.id.clone() };
            }
            io_error("making the bundle")(error)
        })?;
        let NewBundle { bundle, errors } = made;
        self.spawn(spec, &bundle, errors).inspect_err(|_| {
            // The error that matters is the launch's; what is left is found by `list`.
            let _ = self.remove(&spec.id);
        })
    }

    /// Removes what a sandbox of this id left of which the bundle is lost, as after its tmpfs was
    /// unmounted by hand.
    fn forget(&self, id: &str) -> Result<(), LaunchError> {
        let in_the_way = |error: &dyn std::fmt::Display| LaunchError::Shim {
            message: format!("an earlier sandbox {id} is in the way: {error}"),
        };
        self.slice.kill(id, KILL_PATIENCE).map_err(|error| in_the_way(&error))?;
        self.slice.remove(id).map_err(|error| in_the_way(&error))?;
        self.run_dir.remove_state(id).map_err(|error| in_the_way(&error))
    }

    fn spawn(&self, spec: &SandboxSpec, bundle: &Bundle, errors: File) -> Result<Launched, LaunchError> {
        self.forget(&spec.id)?;
        let patience = self.setup_patience.as_millis();
        let order = ShimOrder {
            spec: spec.clone(),
            bundle: bundle.clone(),
            state_dir: self.run_dir.state(),
            slice: self.slice.clone(),
            setup_patience_ms: u64::try_from(patience).unwrap_or(u64::MAX),
            filters: self.filters.0.clone(),
        };
        let bytes = order.encode().map_err(|error| InvalidSpec {
            field: "rootfs",
            message: error.to_string(),
        })?;
        let memory = sealed_memory_file(c"buildflow-order", MemoryFile::Data, &bytes)
            .map_err(io_error("handing the order over"))?;
        let (reader, writer) = io::pipe().map_err(io_error("making a pipe"))?;
        let child = Command::new(format!("/proc/self/fd/{}", self.program.as_raw_fd()))
            .arg0(SHIM)
            .env_clear()
            // Without it the runtime would look for it in the image's name service modules.
            .env("HOME", "/")
            .stdin(Stdio::from(memory))
            .stdout(Stdio::from(writer))
            .stderr(Stdio::from(errors))
            .spawn()
            .map_err(io_error("executing the shim"))?;
        locked(&self.children).insert(spec.id.clone(), child);
        await_ready(reader).map_err(|why| LaunchError::Shim {
            message: last_words(bundle, &why),
        })?;
        let shim: Option<Identity> = handover::read_json(&bundle.identity()).map_err(io_error("reading shim.json"))?;
        let shim = shim.ok_or_else(|| LaunchError::Shim {
            message: "it did not say who it is".into(),
        })?;
        Ok(Launched {
            shim_pid: shim.pid.cast_unsigned(),
            shim_start_time: shim.start_time,
        })
    }
}

/// Waits for the shim's word; the error says what came instead.
fn await_ready(mut reader: io::PipeReader) -> Result<(), String> {
    let until = Instant::now() + TAKE_OVER_PATIENCE;
    let mut word = Vec::new();
    while word.len() < READY.len() {
        let left = until.saturating_duration_since(Instant::now());
        match watch::wait_readable(reader.as_fd(), left) {
            Ok(true) => {}
            Ok(false) => return Err(format!("nothing came within {TAKE_OVER_PATIENCE:?}")),
            Err(error) => return Err(error.to_string()),
        }
        let mut some = [0; READY.len()];
        match reader.read(&mut some) {
            Ok(0) => return Err("it ended".into()),
            Ok(count) => word.extend_from_slice(&some[..count]),
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(())
}

/// What the shim said before it ended.
fn last_words(bundle: &Bundle, why: &str) -> String {
    let said = handover::read_text(&bundle.errors()).ok().flatten().unwrap_or_default();
    let said = said.trim();
    if said.is_empty() {
        return why.to_owned();
    }
    let mut from = said.len().saturating_sub(WORDS_BYTES_MAX);
    while !said.is_char_boundary(from) {
        from += 1;
    }
    format!("{why}: {}", &said[from..])
}
