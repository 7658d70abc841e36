//! One descriptor that tells of every change of a sandbox.
//!
//! Not here: what changed; ask `Launcher::state`.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use crate::handover::Bundle;

/// Becomes readable when something happened to a sandbox: it started, it ended, its shim died.
///
/// Make the watch, ask [`Launcher::state`](crate::Launcher::state), and as long as it is not over:
/// wait for readability, call [`SandboxWatch::acknowledge`], ask again. Works with level- and
/// with edge-triggered event loops.
#[derive(Debug)]
pub struct SandboxWatch {
    epoll: Epoll,
    files: Inotify,
    /// Kept open as a member of `epoll`.
    _shim: Option<OwnedFd>,
}

impl SandboxWatch {
    pub(super) fn new(bundle: &Bundle, shim: Option<OwnedFd>) -> io::Result<SandboxWatch> {
        let files = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let appears = AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_DELETE_SELF;
        files.add_watch(&bundle.dir, appears)?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&files, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
        if let Some(shim) = &shim {
            epoll.add(shim, EpollEvent::new(EpollFlags::EPOLLIN, 1))?;
        }
        Ok(SandboxWatch {
            epoll,
            files,
            _shim: shim,
        })
    }

    /// Takes note of what happened, so that the descriptor becomes readable only with the next
    /// change. Once the shim is gone it stays readable.
    pub fn acknowledge(&self) {
        // Which files they were is of no interest; WouldBlock ends the queue, and a read that
        // failed otherwise leaves the descriptor readable.
        while self.files.read_events().is_ok() {}
    }

    /// Blocks until something happens, or until `timeout` is over: `false`.
    ///
    /// # Errors
    /// When the kernel cannot wait.
    pub fn wait(&self, timeout: Duration) -> io::Result<bool> {
        wait_readable(self.as_fd(), timeout)
    }
}

impl AsFd for SandboxWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }
}

impl AsRawFd for SandboxWatch {
    fn as_raw_fd(&self) -> RawFd {
        self.epoll.0.as_raw_fd()
    }
}

/// Waits until a descriptor is readable; `false` when `timeout` is over.
pub(super) fn wait_readable(fd: BorrowedFd<'_>, timeout: Duration) -> io::Result<bool> {
    let until = Instant::now() + timeout;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let ms = u16::try_from(left.as_millis()).unwrap_or(u16::MAX);
        let mut polled = [PollFd::new(fd, PollFlags::POLLIN)];
        match poll(&mut polled, PollTimeout::from(ms)) {
            Ok(0) if left.is_zero() || u128::from(ms) == left.as_millis() => return Ok(false),
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return Ok(true),
            Err(errno) => return Err(errno.into()),
        }
    }
}
