//! From "executed" to "in charge": own session, order read, log open, launcher told.
//!
//! Not here: anything that depends on the image.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;

use isolation::cgroup::Slice;
use isolation::handover::{Identity, READY, ShimOrder, write_whole};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::log::LogSink;
use crate::signals;

/// A shim in charge of one sandbox.
pub(crate) struct Shim {
    pub(crate) order: ShimOrder,
    pub(crate) log: LogSink,
    /// The cgroups through descriptors, which stay valid when the hierarchy is hidden.
    pub(crate) slice: Slice,
    _held: Vec<OwnedFd>,
}

/// Why the shim did not get that far; the launcher reads it from stderr.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {source}")]
pub(crate) struct TakeOverError {
    what: &'static str,
    source: io::Error,
}

fn failed<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> TakeOverError {
    move |error| TakeOverError {
        what,
        source: error.into(),
    }
}

/// Takes over the sandbox that the order on stdin describes.
pub(crate) fn take_over() -> Result<Shim, TakeOverError> {
    detach().map_err(failed("leaving the agent's session"))?;
    signals::block().map_err(failed("blocking signals"))?;
    let order = ShimOrder::decode(io::stdin().lock()).map_err(failed("reading the order"))?;
    let log = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&order.spec.log_path)
        .and_then(|file| LogSink::new(file, order.spec.limits.log_bytes_max))
        .map_err(failed("opening the log"))?;
    let (slice, held) = order.slice.pinned().map_err(failed("opening the cgroup slice"))?;
    let own = Identity::of(std::process::id().cast_signed())
        .ok_or(io::ErrorKind::NotFound)
        .map_err(failed("reading /proc/self/stat"))?;
    serde_json::to_vec(&own)
        .map_err(io::Error::from)
        .and_then(|identity| write_whole(&order.bundle.identity(), &identity))
        .map_err(failed("writing shim.json"))?;
    tell_ready().map_err(failed("closing stdin and stdout"))?;
    Ok(Shim {
        order,
        log,
        slice,
        _held: held,
    })
}

fn detach() -> nix::Result<()> {
    nix::unistd::setsid()?;
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    // The order holds the step's environment: no core file, no look into our memory.
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    nix::sys::prctl::set_dumpable(false)?;
    // Each layer of the image takes a descriptor for the moment of the mount.
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    nix::sys::prctl::set_name(c"buildflow-shim")?;
    // Whatever the runtime leaves behind becomes our child and can be reaped.
    nix::sys::prctl::set_child_subreaper(true)
}

/// Tells the launcher and lets go of what connects us to it.
fn tell_ready() -> io::Result<()> {
    let mut stdout = io::stdout();
    // An agent that died in this moment finds us by the bundle.
    let _ = stdout.write_all(READY).and_then(|()| stdout.flush());
    let null = File::options().read(true).write(true).open("/dev/null")?;
    for standard in [libc::STDIN_FILENO, libc::STDOUT_FILENO] {
        // SAFETY: both numbers are open descriptors; replacing our own stdin and stdout affects
        // no owner, as std treats them as borrowed for ever.
        if unsafe { libc::dup2(null.as_fd().as_raw_fd(), standard) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
