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

/// Gives a program about to be executed the signals it expects: all at their default, none held.
pub(crate) fn reset() -> nix::Result<()> {
    for number in Signal::iterator() {
        if matches!(number, Signal::SIGKILL | Signal::SIGSTOP) {
            continue;
        }
        // SAFETY: the default disposition runs no code of ours.
        unsafe { signal(number, SigHandler::SigDfl) }?;
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)
}
