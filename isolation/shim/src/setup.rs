//! Makes the sandbox: cgroups, namespaces, file system, and the runtime's part of it.
//!
//! The order matters. The cgroups are made and entered by this process itself, and hidden from
//! the runtime, because its own way of entering them waits for the kernel. Not here: what happens
//! after the first process has been told to go on.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd};
use std::path::Path;
use std::time::Duration;

use isolation::handover::ShimOrder;
use isolation::kernel::{Follow, open_beneath};
use isolation::oci::{NodeFacts, oci_spec};
use isolation::user::{self, ResolvedUser};
use isolation::{Network, SandboxSpec};
use libcontainer::container::Container;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, getrlimit};

use crate::exec::{self, Program};
use crate::lease::Lease;
use crate::overlay::{self, OverlayError};
use crate::supervise::now;
use crate::take_over::Shim;
use crate::watchdog::Watchdog;

/// Largest `/etc/passwd` or `/etc/group` that is read; tens of thousands of accounts fit.
const ACCOUNTS_BYTES_MAX: u64 = 4 << 20;
/// Room in the output pipe, so that a fast writer is not woken for every page. Most that an
/// ordinary node allows.
const PIPE_BYTES: i32 = 1 << 20;

/// How long what a failed set-up left may take to die.
const KILL_PATIENCE: Duration = Duration::from_secs(5);

/// How long making the sandbox may take, twice: the runtime's part, then the last steps to exec.
pub(crate) fn patience(order: &ShimOrder) -> Duration {
    Duration::from_millis(order.setup_patience_ms.max(1))
}

/// Why there is no sandbox.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The spec does not fit the image.
    #[error("{0}")]
    Refused(String),
    /// The node could not do its part.
    #[error("{0}")]
    Broken(String),
    /// Nothing may live any more on this node.
    #[error("the node's lease had ended before the program was executed")]
    LeaseEnded,
}

impl Failure {
    /// What may take only so long has taken longer.
    pub(crate) fn too_slow(patience: Duration) -> Failure {
        Failure::Broken(format!("making the sandbox took longer than {patience:?}"))
    }
}

/// A sandbox whose first process is on its way to the user's program.
pub(crate) struct Sandbox {
    /// The first process, our child.
    pub(crate) init: nix::unistd::Pid,
    /// Its stdout and stderr.
    pub(crate) output: OwnedFd,
    /// Its report; closes when it becomes the program.
    pub(crate) report: OwnedFd,
    /// Where the program was looked for, for messages.
    pub(crate) search_path: String,
}

fn broken<E: std::fmt::Display>(what: &str) -> impl FnOnce(E) -> Failure {
    move |error| Failure::Broken(format!("{what}: {error}"))
}

impl From<OverlayError> for Failure {
    fn from(error: OverlayError) -> Failure {
        Failure::Broken(error.to_string())
    }
}

/// Makes the sandbox of `shim` and lets its first process go.
pub(crate) fn start(shim: &Shim) -> Result<Sandbox, Failure> {
    let spec = &shim.order.spec;
    check_lease(shim)?;
    shim.slice
        .create(&spec.id, &spec.limits)
        .map_err(broken("making the cgroups"))?;
    own_namespaces(spec.network).map_err(broken("making namespaces"))?;
    let rootfs = shim.order.bundle.rootfs();
    overlay::mount(&spec.rootfs, &rootfs)?;
    hide_cgroups().map_err(broken("hiding the cgroups"))?;
    let user = resolve_user(spec, &rootfs)?;
    write_config(&shim.order, &user)?;
    let env = exec::environment(spec, &user.home);
    let (output, output_writer) = pipe().map_err(broken("making a pipe"))?;
    // A node with a lower limit keeps its default, which only costs speed.
    let _ = fcntl(&output, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES));
    let (report, report_writer) = pipe().map_err(broken("making a pipe"))?;
    let filters = &shim.order.filters;
    let program =
        Program::new(spec, &env, filters, report_writer.as_raw_fd()).map_err(broken("preparing the program"))?;
    let init = build(shim, program, output_writer).inspect_err(|_| {
        // What is left of it would hold the cgroups; the launcher kills what resists here.
        let _ = shim.slice.kill(&spec.id, KILL_PATIENCE);
        reap_all();
    })?;
    drop(report_writer);
    Ok(Sandbox {
        init,
        output,
        report,
        search_path: exec::search_path(&env).to_owned(),
    })
}

/// Calls the runtime, from within the sandbox's cgroups, under the eye of the watchdog.
fn build(shim: &Shim, program: Program, output: OwnedFd) -> Result<nix::unistd::Pid, Failure> {
    let order = &shim.order;
    let id = &order.spec.id;
    let errors = output.try_clone().map_err(broken("making a pipe"))?;
    let watchdog =
        Watchdog::start(&shim.slice.procs_file(id), patience(order)).map_err(broken("starting the watchdog"))?;
    shim.slice.enter(id).map_err(broken("entering the cgroups"))?;
    let built = ContainerBuilder::new(id.clone(), SyscallType::default())
        .with_root_path(&order.state_dir)
        .map(|builder| builder.with_executor(program).with_stdout(output).with_stderr(errors))
        .and_then(|builder| {
            builder
                .as_init(&order.bundle.dir)
                .with_systemd(false)
                .with_detach(true)
                .build()
        });
    // Out again, whatever came of it, before anything of the user's runs: our memory and our
    // process do not count in the sandbox, and its end is not ours.
    let left = shim.slice.leave();
    let mut container = built.map_err(|error| explain(shim, &watchdog, &error))?;
    left.map_err(broken("leaving the cgroups"))?;
    // It may have taken long.
    check_lease(shim)?;
    release(&mut container).map_err(|error| explain(shim, &watchdog, &error))
}

/// Nothing is begun that the supervisor would kill at once.
fn check_lease(shim: &Shim) -> Result<(), Failure> {
    let spec = &shim.order.spec;
    let too_late = spec
        .begin_before_ms
        .is_some_and(|at_ms| now() >= Duration::from_millis(at_ms));
    if too_late || Lease::new(spec.lease_path.clone(), now()).has_passed(now()) {
        return Err(Failure::LeaseEnded);
    }
    Ok(())
}

/// Lets the first process go on to the user's program.
fn release(container: &mut Container) -> Result<nix::unistd::Pid, libcontainer::error::LibcontainerError> {
    container.start()?;
    let pid = container
        .pid()
        .ok_or_else(|| libcontainer::error::LibcontainerError::Other("the first process has no id".into()))?;
    Ok(nix::unistd::Pid::from_raw(pid.as_raw()))
}

fn explain(shim: &Shim, watchdog: &Watchdog, error: &dyn std::error::Error) -> Failure {
    if watchdog.bit() {
        return Failure::too_slow(patience(&shim.order));
    }
    if shim.slice.readings(&shim.order.spec.id).oom_kills > 0 {
        let limit = shim.order.spec.limits.memory_bytes;
        return Failure::Refused(format!(
            "limits.memory_bytes: {limit} is too little to make the sandbox in"
        ));
    }
    let mut message = format!("the container runtime failed: {error}");
    let mut cause = error.source();
    while let Some(deeper) = cause {
        let text = deeper.to_string();
        if !message.contains(&text) {
            message = format!("{message}: {text}");
        }
        cause = deeper.source();
    }
    Failure::Broken(message)
}

/// Collects whatever children a failed set-up left; they have been killed.
fn reap_all() {
    use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
    while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        if status == WaitStatus::StillAlive {
            break;
        }
    }
}

/// A pipe of which our end does not block; the other belongs to a program that expects it to.
fn pipe() -> nix::Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    fcntl(&reader, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok((reader, writer))
}

/// Own mounts, invisible to the node and vanishing with us, and a network of its own.
fn own_namespaces(network: Network) -> io::Result<()> {
    let network = match network {
        Network::LoopbackOnly => CloneFlags::CLONE_NEWNET,
    };
    unshare(CloneFlags::CLONE_NEWNS | network)?;
    let none: Option<&str> = None;
    // What the node unmounts vanishes here too; what we mount stays here.
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none)?;
    raise_loopback()
}

fn raise_loopback() -> io::Result<()> {
    // SAFETY: makes a socket; the result is checked below.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just made, and owned by nobody else.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    // SAFETY: ifreq is plain data, for which all zeros is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = from.cast_signed();
    }
    let flags = libc::IFF_UP | libc::IFF_RUNNING;
    request.ifr_ifru.ifru_flags = i16::try_from(flags).map_err(io::Error::other)?;
    // SAFETY: the request is what SIOCSIFFLAGS expects and lives through the call.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Covers the cgroup hierarchy with an empty folder: the runtime then leaves cgroups alone.
fn hide_cgroups() -> io::Result<()> {
    let point = "/sys/fs/cgroup";
    match umount2(point, MntFlags::MNT_DETACH) {
        // Not mounted there: covering is enough.
        Ok(()) | Err(nix::errno::Errno::EINVAL) => {}
        Err(errno) => return Err(errno.into()),
    }
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    Ok(mount(Some("tmpfs"), point, Some("tmpfs"), flags, None::<&str>)?)
}

fn resolve_user(spec: &SandboxSpec, rootfs: &Path) -> Result<ResolvedUser, Failure> {
    let passwd = read_in_image(rootfs, "etc/passwd")?;
    let group = read_in_image(rootfs, "etc/group")?;
    user::resolve(spec.user.as_deref(), &passwd, &group).map_err(|error| Failure::Refused(error.to_string()))
}

/// Reads a file of the image without following anything out of it; absent ones are empty.
fn read_in_image(rootfs: &Path, path: &str) -> Result<String, Failure> {
    let refused = |why: String| Failure::Refused(format!("/{path} of the image: {why}"));
    let root = File::open(rootfs).map_err(broken("opening the root"))?;
    // Not blocking: it may be a pipe.
    let flags = libc::O_RDONLY | libc::O_NONBLOCK;
    let file = match open_beneath(root.as_fd(), Path::new(path), flags, Follow::InRoot) {
        Ok(file) => File::from(file),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(String::new()),
        Err(error) => return Err(refused(error.to_string())),
    };
    if !file.metadata().is_ok_and(|metadata| metadata.is_file()) {
        return Err(refused("is no ordinary file".into()));
    }
    let mut bytes = Vec::new();
    file.take(ACCOUNTS_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| refused(error.to_string()))?;
    if bytes.len() as u64 > ACCOUNTS_BYTES_MAX {
        return Err(refused(format!("is larger than {ACCOUNTS_BYTES_MAX} bytes")));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn write_config(order: &ShimOrder, user: &ResolvedUser) -> Result<(), Failure> {
    let (_, nofile_hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(broken("reading resource limits"))?;
    let spec = oci_spec(
        &order.spec,
        user,
        &NodeFacts {
            rootfs: &order.bundle.rootfs(),
            cgroups_path: &format!("/buildflow/{}", order.spec.id),
            nofile_hard,
        },
    );
    serde_json::to_vec(&spec)
        .map_err(io::Error::from)
        .and_then(|json| std::fs::write(order.bundle.config(), json))
        .map_err(broken("writing config.json"))
}
