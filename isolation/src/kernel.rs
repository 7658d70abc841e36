//! The few system calls that neither std nor nix offers, each behind a safe function.
//!
//! Not here: any decision. Everything returns the kernel's own error.
#![allow(unsafe_code, reason = "raw system calls; each block says why it is sound")]

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// Turns the result of a raw call which makes a descriptor into an owned one.
fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let raw = i32::try_from(result).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// A descriptor that names the process `pid`, whatever becomes of the number.
///
/// # Errors
/// `ESRCH` if there is no such process.
pub fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: takes two integers and touches no memory of ours.
    owned(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })
}

/// Sends `signal` to the process that `pidfd` names.
///
/// # Errors
/// `ESRCH` if it is gone.
pub fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    let info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a null siginfo is allowed and means what kill(2) would send.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, info, 0) };
    if result == 0 {
        return Ok(());
    }
    Err(io::Error::last_os_error())
}

/// What a memory file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryFile {
    /// Data to be read.
    Data,
    /// A program to be executed.
    Program,
}

/// A memory file with `content` that nobody can change any more, positioned at its beginning.
///
/// # Errors
/// When the kernel forbids executable memory files (`vm.memfd_noexec`), or memory is short.
pub fn sealed_memory_file(name: &CStr, kind: MemoryFile, content: &[u8]) -> io::Result<File> {
    use std::io::Seek as _;
    let base = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    let wanted = match kind {
        MemoryFile::Data => base | libc::MFD_NOEXEC_SEAL,
        MemoryFile::Program => base | libc::MFD_EXEC,
    };
    let mut file = match memory_file(name, wanted) {
        // Kernels before 6.3 do not know the two flags about execution.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => memory_file(name, base)?,
        other => other?,
    };
    file.write_all(content)?;
    file.rewind()?;
    let seals = libc::F_SEAL_SEAL | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE;
    // SAFETY: an integer argument; the descriptor is open for as long as `file` lives.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(file)
}

fn memory_file(name: &CStr, flags: libc::c_uint) -> io::Result<File> {
    // SAFETY: `name` is a valid C string for the length of the call.
    owned(unsafe { libc::syscall(libc::SYS_memfd_create, name.as_ptr(), flags) }).map(File::from)
}

/// How a path is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follow {
    /// As if the starting folder were `/`: neither `..` nor a link leads out of it.
    InRoot,
    /// Like every program does, but not through the kernel's own links (`/proc/self/fd/…`).
    NoMagicLinks,
}

/// Opens `path` from the folder `dir`, following it only as `follow` allows.
///
/// # Errors
/// `ELOOP` or `EXDEV` where the path is not allowed, and what open(2) says.
pub fn open_beneath(dir: BorrowedFd<'_>, path: &Path, flags: i32, follow: Follow) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)?;
    // SAFETY: open_how is plain integers, for which all zeros is a valid value.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = u64::from((flags | libc::O_CLOEXEC).cast_unsigned());
    how.resolve = match follow {
        Follow::InRoot => libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_MAGICLINKS,
        Follow::NoMagicLinks => libc::RESOLVE_NO_MAGICLINKS,
    };
    let size = std::mem::size_of::<libc::open_how>();
    // SAFETY: path and how live through the call, and size is the size of how.
    owned(unsafe { libc::syscall(libc::SYS_openat2, dir.as_raw_fd(), path.as_ptr(), &raw const how, size) })
}
