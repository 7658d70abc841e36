//! A descriptor of exactly one process: a number and the moment of its start.
//!
//! Not here: which process is a shim; the bundle tells.

use std::io;
use std::os::fd::OwnedFd;

use crate::handover::Identity;
use crate::kernel;

/// A descriptor of exactly this process; `None` if it is gone, a zombie included.
pub(crate) fn open(identity: Identity) -> io::Result<Option<OwnedFd>> {
    let pidfd = match kernel::pidfd_open(identity.pid) {
        Ok(pidfd) => pidfd,
        // The last two: the number belongs to a thread now, by older and by newer kernels.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ESRCH | libc::EINVAL | libc::ENOENT)) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    // Only now: what has this start time while the descriptor is open is what it names.
    Ok((Identity::of(identity.pid) == Some(identity)).then_some(pidfd))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_used_again_is_another_process() {
        let own = Identity::of(std::process::id().cast_signed()).unwrap();
        assert!(open(own).unwrap().is_some());
        let earlier = Identity {
            start_time: own.start_time - 1,
            ..own
        };
        assert!(open(earlier).unwrap().is_none());
    }

    #[test]
    fn a_number_that_a_thread_has_now_is_another_process() {
        let (tell, told) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            tell.send(nix::unistd::gettid().as_raw()).unwrap();
            let _ = ended.recv();
        });
        let pid = told.recv().unwrap();
        assert!(Identity::of(pid).is_some(), "it can be looked up like a process");
        let found = open(Identity { pid, start_time: 1 });
        drop(end);
        thread.join().unwrap();
        assert!(found.unwrap().is_none());
    }
}
