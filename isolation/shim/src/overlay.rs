//! The sandbox's file system: one overlay, mounted in the shim's own mount namespace.
//!
//! It vanishes with the last process of that namespace, so nobody has to unmount it. Not here:
//! what lies in the layers.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use isolation::RootFs;

/// Options of every overlay. `redirect_dir`: folders of a layer can be renamed. `volatile`: a
/// step's fsync waits for nothing, because what a crash leaves of a step is thrown away.
const OPTIONS: [(&CStr, &CStr); 3] = [(c"redirect_dir", c"on"), (c"index", c"off"), (c"metacopy", c"off")];

/// Most of the kernel's messages that are repeated; it keeps eight.
const MESSAGES_MAX: usize = 8;

/// Why there is no file system.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OverlayError {
    /// A layer cannot be opened.
    #[error("{what} {path} cannot be opened: {source}")]
    Layer {
        what: &'static str,
        path: String,
        source: io::Error,
    },
    /// The kernel refused.
    #[error("overlay cannot be mounted ({what}): {source}")]
    Mount { what: &'static str, source: io::Error },
}

/// The layers through descriptors: names of any length and with any character fit into options
/// which the kernel limits to 255 bytes.
struct Layers {
    lowers: Vec<File>,
    upper: File,
    work: File,
}

fn open_layer(what: &'static str, path: &Path) -> Result<File, OverlayError> {
    let opened = File::options()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_DIRECTORY)
        .open(path);
    opened.map_err(|source| OverlayError::Layer {
        what,
        path: path.display().to_string(),
        source,
    })
}

fn name(file: &File) -> CString {
    CString::new(format!("/proc/self/fd/{}", file.as_raw_fd())).expect("digits hold no NUL")
}

fn failed(what: &'static str) -> impl FnOnce(io::Error) -> OverlayError {
    move |source| OverlayError::Mount { what, source }
}

/// Mounts the layers at `target`, without devices and without set-user-id.
pub(crate) fn mount(rootfs: &RootFs, target: &Path) -> Result<(), OverlayError> {
    let lowers = rootfs.lowers.iter().map(|lower| open_layer("layer", lower));
    let layers = Layers {
        lowers: lowers.collect::<Result<_, _>>()?,
        upper: open_layer("upper", &rootfs.upper)?,
        work: open_layer("work", &rootfs.work)?,
    };
    let mounted = match configure(&layers, Joined::No) {
        // Kernels before 6.5 take the lower layers in one string only.
        Err(OverlayError::Mount { what: LOWER, source }) if source.raw_os_error() == Some(libc::EINVAL) => {
            configure(&layers, Joined::Yes)?
        }
        other => other?,
    };
    attach(&mounted, target).map_err(failed("attaching it"))
}

/// The option that newer kernels take once per lower layer.
const LOWER: &str = "lowerdir+";

/// How the lower layers are named.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Joined {
    No,
    Yes,
}

fn configure(layers: &Layers, joined: Joined) -> Result<OwnedFd, OverlayError> {
    let context = fsopen(c"overlay").map_err(failed("fsopen"))?;
    let set = |key: &CStr, value: &CStr| set_string(&context, key, value);
    set(c"source", c"buildflow").map_err(failed("source"))?;
    match joined {
        Joined::No => layers
            .lowers
            .iter()
            .try_for_each(|lower| set(c"lowerdir+", &name(lower)))
            .map_err(failed(LOWER))?,
        Joined::Yes => {
            let names: Vec<CString> = layers.lowers.iter().map(name).collect();
            let names: Vec<&[u8]> = names.iter().map(|name| name.to_bytes()).collect();
            let all = CString::new(names.join(&b':')).expect("names hold no NUL");
            set(c"lowerdir", &all).map_err(failed("lowerdir; Linux 6.5 takes more layers"))?;
        }
    }
    set(c"upperdir", &name(&layers.upper)).map_err(failed("upperdir"))?;
    set(c"workdir", &name(&layers.work)).map_err(failed("workdir"))?;
    for (key, value) in OPTIONS {
        set(key, value).map_err(failed("options"))?;
    }
    set_flag(&context, c"volatile").map_err(failed("volatile"))?;
    create(&context).map_err(|error| OverlayError::Mount {
        what: "creating it",
        source: explained(&context, error),
    })?;
    fsmount(&context).map_err(failed("fsmount"))
}

/// The error together with what the kernel wrote about it, if it did.
fn explained(context: &OwnedFd, error: io::Error) -> io::Error {
    let mut said = Vec::new();
    let mut message = [0; 512];
    // One message a read; an error when there is none left.
    while let Ok(count @ 1..) = nix::unistd::read(context, &mut message) {
        said.push(String::from_utf8_lossy(&message[..count]).trim_end().to_owned());
        if said.len() == MESSAGES_MAX {
            break;
        }
    }
    if said.is_empty() {
        return error;
    }
    io::Error::new(error.kind(), format!("{error}: {}", said.join("; ")))
}

/// Owns what a system call made, or takes its error.
fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    let raw = i32::try_from(check(result)?).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

const FSOPEN_CLOEXEC: libc::c_uint = 1;
const FSCONFIG_SET_FLAG: libc::c_uint = 0;
const FSCONFIG_SET_STRING: libc::c_uint = 1;
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;
const FSMOUNT_CLOEXEC: libc::c_uint = 1;

fn fsopen(kind: &CStr) -> io::Result<OwnedFd> {
    // SAFETY: a valid C string and flags.
    owned(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), FSOPEN_CLOEXEC) })
}

fn fsconfig(context: &OwnedFd, command: libc::c_uint, key: Option<&CStr>, value: Option<&CStr>) -> io::Result<()> {
    let pointer = |text: Option<&CStr>| text.map_or(std::ptr::null(), CStr::as_ptr);
    let (key, value) = (pointer(key), pointer(value));
    // SAFETY: key and value are valid C strings or null, as the command wants them.
    let result = unsafe { libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), command, key, value, 0) };
    check(result).map(|_| ())
}

fn set_string(context: &OwnedFd, key: &CStr, value: &CStr) -> io::Result<()> {
    fsconfig(context, FSCONFIG_SET_STRING, Some(key), Some(value))
}

fn set_flag(context: &OwnedFd, key: &CStr) -> io::Result<()> {
    fsconfig(context, FSCONFIG_SET_FLAG, Some(key), None)
}

fn create(context: &OwnedFd) -> io::Result<()> {
    fsconfig(context, FSCONFIG_CMD_CREATE, None, None)
}

fn fsmount(context: &OwnedFd) -> io::Result<OwnedFd> {
    let attributes = libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOSUID;
    let raw = context.as_raw_fd();
    // SAFETY: a descriptor and two sets of flags.
    owned(unsafe { libc::syscall(libc::SYS_fsmount, raw, FSMOUNT_CLOEXEC, attributes) })
}

fn attach(mount: &OwnedFd, target: &Path) -> io::Result<()> {
    let target = CString::new(target.as_os_str().as_bytes()).map_err(io::Error::other)?;
    // SAFETY: two descriptors and two valid C strings, the first empty as the flag demands.
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            target.as_ptr(),
            libc::MOVE_MOUNT_F_EMPTY_PATH,
        )
    };
    check(result).map(|_| ())
}
