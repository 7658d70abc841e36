//! An end to waiting for the runtime: after a while everything in the new sandbox is killed.
//!
//! libcontainer waits for its own children without a limit. When they die, its wait ends and it
//! returns an error. Not here: the time-out of the step, which begins with its first instruction.

use std::ffi::CString;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU32, Ordering};
use std::time::Duration;

/// How often the killing is repeated, once a second, before the shim gives up; the launcher then
/// clears up after it.
const STRIKES_MAX: u32 = 10;

/// Path of the file that lists the sandbox's processes; leaked, as a handler may use it any time.
static PROCS: AtomicPtr<libc::c_char> = AtomicPtr::new(std::ptr::null_mut());
static OWN_PID: AtomicI32 = AtomicI32::new(0);
static STRIKES: AtomicU32 = AtomicU32::new(0);

/// A watchdog that bites unless it is dropped in time.
pub(crate) struct Watchdog(());

impl Watchdog {
    /// Watches over the processes listed in `procs`.
    pub(crate) fn start(procs: &Path, patience: Duration) -> io::Result<Watchdog> {
        use std::os::unix::ffi::OsStrExt as _;
        let path = CString::new(procs.as_os_str().as_bytes()).map_err(io::Error::other)?;
        PROCS.store(path.into_raw(), Ordering::SeqCst);
        OWN_PID.store(std::process::id().cast_signed(), Ordering::SeqCst);
        // SAFETY: all zeros is a valid sigaction; the handler below is async-signal-safe.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = bite as *const () as libc::sighandler_t;
            action.sa_flags = libc::SA_RESTART;
            if libc::sigaction(libc::SIGALRM, &raw const action, std::ptr::null_mut()) != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        arm(patience, Duration::from_secs(1))?;
        Ok(Watchdog(()))
    }

    /// Whether it has bitten.
    pub(crate) fn bit(&self) -> bool {
        STRIKES.load(Ordering::SeqCst) > 0
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        // Disarming cannot fail: the arguments are valid.
        let _ = arm(Duration::ZERO, Duration::ZERO);
    }
}

fn arm(first: Duration, again: Duration) -> io::Result<()> {
    let time = |duration: Duration| libc::timeval {
        tv_sec: libc::time_t::try_from(duration.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_usec: libc::suseconds_t::from(duration.subsec_micros().cast_signed()),
    };
    let timer = libc::itimerval {
        it_value: time(first),
        it_interval: time(again),
    };
    // SAFETY: a valid timer is passed by reference and nothing is returned.
    if unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Kills whatever is listed, without allocating: it may interrupt anything.
extern "C" fn bite(_: libc::c_int) {
    if STRIKES.fetch_add(1, Ordering::SeqCst) >= STRIKES_MAX {
        // SAFETY: ends this process without running anything else.
        unsafe { libc::_exit(70) };
    }
    let own = OWN_PID.load(Ordering::SeqCst);
    let mut text = [0u8; 4096];
    // SAFETY: open, read, close and kill are async-signal-safe; the path is a leaked C string,
    // the buffer is on this stack, and its length is passed. errno is put back for the
    // interrupted code.
    unsafe {
        let errno = *libc::__errno_location();
        let file = libc::open(PROCS.load(Ordering::SeqCst), libc::O_RDONLY | libc::O_CLOEXEC);
        if file >= 0 {
            let count = libc::read(file, text.as_mut_ptr().cast(), text.len());
            libc::close(file);
            let text = &text[..usize::try_from(count).unwrap_or(0)];
            for pid in Numbers(text) {
                if pid > 1 && pid != own {
                    libc::kill(pid, libc::SIGKILL);
                }
            }
        }
        *libc::__errno_location() = errno;
    }
}

/// The numbers of a text of one number per line, the last line only if it is whole.
struct Numbers<'a>(&'a [u8]);

impl Iterator for Numbers<'_> {
    type Item = i32;

    fn next(&mut self) -> Option<i32> {
        let end = self.0.iter().position(|byte| *byte == b'\n')?;
        let line = &self.0[..end];
        self.0 = &self.0[end + 1..];
        let digit = |number: i32, byte: &u8| number.wrapping_mul(10).wrapping_add(i32::from(byte.wrapping_sub(b'0')));
        Some(line.iter().fold(0, digit))
    }
}

#[cfg(test)]
mod tests {
    use super::Numbers;

    #[test]
    fn only_whole_lines_are_numbers() {
        let cases: [(&[u8], &[i32]); 4] = [(b"", &[]), (b"12\n345\n", &[12, 345]), (b"12\n34", &[12]), (b"7", &[])];
        for (text, expected) in cases {
            assert_eq!(Numbers(text).collect::<Vec<_>>(), expected);
        }
    }
}
