//! Signals as something to wait for, not as something that interrupts.
//!
//! SIGTERM means "stop the sandbox"; SIGHUP means nothing, as no terminal of ours can go away.

use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};

fn waited_for() -> SigSet {
    [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT].into_iter().collect()
}

/// Holds the signals back until they are read. Children inherit this: see [`reset`].
pub(crate) fn block() -> nix::Result<()> {
    // SAFETY: ignoring a signal installs no handler.
    unsafe { signal(Signal::SIGHUP, SigHandler::SigIgn) }?;
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&waited_for()), None)
}

/// A descriptor that yields the signals held back.
pub(crate) fn descriptor() -> nix::Result<SignalFd> {
    SignalFd::with_flags(&waited_for(), SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
}

/// Number of signals that the kernel knows, real-time ones included.
const SIGNALS: libc::c_int = 64;
/// Size of the kernel's own set of signals in bytes; not that of the C library's.
const KERNEL_SET_BYTES: usize = 8;

/// Gives a program about to be executed the signals it expects: all at their default, none held.
pub(crate) fn reset() -> nix::Result<()> {
    // The kernel's sigaction is at most this long, and all zeros in it mean: default, no flags.
    let default = [0_u64; 4];
    let nowhere = std::ptr::null_mut::<u64>();
    for number in 1..=SIGNALS {
        // The C library hides two signals that it uses itself, hence the plain call. It fails for
        // the two which cannot be changed.
        // SAFETY: the action outlives the call, is long enough, and installs no handler.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                number,
                default.as_ptr(),
                nowhere,
                KERNEL_SET_BYTES,
            );
        }
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)
}
