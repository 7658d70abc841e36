//! The last steps of the sandbox's first process before it becomes the user's program.
//!
//! Everything that can be prepared is prepared in the shim; the filter comes last. A failure is
//! reported to the shim, which says what it means (`report`).

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, RawFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::rc::Rc;

use isolation::SandboxSpec;
use isolation::handover::now_ms;
use isolation::kernel::{Follow, open_beneath};
use isolation::seccomp::INSTRUCTION_BYTES;
use libcontainer::oci_spec::runtime::Spec;
use libcontainer::workload::{Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError};
use nix::errno::Errno;

use crate::report::{ExecFailure, HEAD_BYTES, Refusal};
use crate::signals;

/// Where programs are looked for if the environment does not say.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Exit code of a first process that did not become the program; never seen by users, because the
/// report comes first.
const NOT_EXECUTED: i32 = 127;
/// Where the report's descriptor is moved, so that all above it can be closed.
const REPORT_FD: RawFd = 3;
/// Under memory pressure on the whole node, steps die before the agent does.
const OOM_SCORE: &[u8] = b"500";

/// A program ready to be executed.
#[derive(Clone)]
pub(crate) struct Program(Rc<Prepared>);

struct Prepared {
    argv: Vec<CString>,
    env: Vec<CString>,
    /// Files to try, in this order.
    candidates: Vec<CString>,
    cwd: String,
    filters: Vec<Vec<u8>>,
    report: RawFd,
}

/// The environment of the program: what is given, the last of equal names, and what every
/// program expects.
pub(crate) fn environment(spec: &SandboxSpec, home: &str) -> Vec<(String, String)> {
    let expected = [
        ("PATH", DEFAULT_PATH),
        ("HOME", home),
        ("HOSTNAME", spec.hostname.as_str()),
    ];
    let expected = expected
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_string()));
    let mut env: Vec<(String, String)> = Vec::new();
    for (name, value) in expected.chain(spec.env.iter().cloned()) {
        match env.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = value,
            None => env.push((name, value)),
        }
    }
    env
}

/// The value of `PATH` in an environment.
pub(crate) fn search_path(env: &[(String, String)]) -> &str {
    env.iter()
        .find(|(name, _)| name == "PATH")
        .map_or("", |(_, value)| value)
}

/// The files that `program` may be.
fn candidates(program: &str, path: &str) -> Vec<String> {
    if program.contains('/') {
        return vec![program.to_owned()];
    }
    let folder = |folder: &str| match folder {
        "" => format!("./{program}"),
        folder => format!("{folder}/{program}"),
    };
    path.split(':').map(folder).collect()
}

fn c_strings(texts: impl IntoIterator<Item = String>) -> io::Result<Vec<CString>> {
    let texts = texts
        .into_iter()
        .map(|text| CString::new(text).map_err(io::Error::other));
    texts.collect()
}

impl Program {
    /// Prepares everything that allocates. `report` is open for as long as the program is used.
    pub(crate) fn new(
        spec: &SandboxSpec,
        env: &[(String, String)],
        filters: &[Vec<u8>],
        report: RawFd,
    ) -> io::Result<Program> {
        let whole = |filter: &Vec<u8>| !filter.is_empty() && filter.len().is_multiple_of(INSTRUCTION_BYTES);
        if filters.is_empty() || !filters.iter().all(whole) {
            return Err(io::Error::other("there is no seccomp filter to install"));
        }
        let program = spec.argv.first().map_or("", String::as_str);
        Ok(Program(Rc::new(Prepared {
            argv: c_strings(spec.argv.iter().cloned())?,
            env: c_strings(env.iter().map(|(name, value)| format!("{name}={value}")))?,
            candidates: c_strings(candidates(program, search_path(env)))?,
            cwd: spec.cwd.clone(),
            filters: filters.to_vec(),
            report,
        })))
    }
}

impl Executor for Program {
    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let foreign = spec.linux().as_ref().is_some_and(|linux| linux.seccomp().is_some());
        if foreign {
            return Err(ExecutorError::CantHandle("buildflow"));
        }
        let failure = self.0.execute();
        if let Ok(line) = serde_json::to_string(&failure) {
            let _ = report(&format!("{line}\n"));
        }
        // SAFETY: ends this process without running anything of the shim's, of which it is a copy.
        unsafe { libc::_exit(NOT_EXECUTED) }
    }

    fn validate(&self, _: &Spec) -> Result<(), ExecutorValidationError> {
        // Whether the program exists is found out by executing it, with the rights of its user.
        Ok(())
    }

    fn setup_envs(&self, _: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        // The environment is handed to exec; this process's own holds nothing but HOME.
        Ok(())
    }
}

/// Adds a line to the report.
fn report(line: &str) -> io::Result<()> {
    // SAFETY: execute() has moved the report to this number, and this process ends or is replaced
    // without closing it; ManuallyDrop keeps it open after the write.
    let mut pipe = std::mem::ManuallyDrop::new(unsafe { File::from_raw_fd(REPORT_FD) });
    pipe.write_all(line.as_bytes())
}

fn protect<T>(what: &str, result: nix::Result<T>) -> Result<T, ExecFailure> {
    result.map_err(|errno| ExecFailure::Protect {
        what: what.to_owned(),
        errno: errno as i32,
    })
}

fn last_errno<T: PartialOrd + Default>(result: T) -> nix::Result<()> {
    if result < T::default() {
        return Err(Errno::last());
    }
    Ok(())
}

impl Prepared {
    /// Becomes the program. Returns only if it cannot.
    fn execute(&self) -> ExecFailure {
        match self.protect_and_execute() {
            Ok(refusal) => ExecFailure::Exec(refusal),
            Err(failure) => failure,
        }
    }

    fn protect_and_execute(&self) -> Result<Refusal, ExecFailure> {
        protect("closing descriptors", self.keep_only_report())?;
        protect("resetting signals", signals::reset())?;
        // Best effort: a kernel that is told otherwise forbids it.
        let _ = std::fs::write("/proc/self/oom_score_adj", OOM_SCORE);
        self.enter_cwd()
            .map_err(|errno| ExecFailure::Cwd { errno: errno as i32 })?;
        let argv = pointers(&self.argv);
        let env = pointers(&self.env);
        protect("tying the sandbox to its shim", die_with_shim())?;
        let _ = report(&format!("{}\n", now_ms()));
        for filter in &self.filters {
            protect("installing the seccomp filter", install(filter))?;
        }
        let mut denied = None;
        for path in &self.candidates {
            // SAFETY: path is a valid C string; argv and env are arrays of valid C strings that
            // end with null; all of them outlive the call, which returns only on failure.
            unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), env.as_ptr()) };
            match Errno::last() {
                // As execvp does: go on looking, and remember what was there and forbidden.
                Errno::ENOENT | Errno::ENOTDIR if self.candidates.len() > 1 && !exists(path) => {}
                errno @ Errno::EACCES => denied = denied.or(Some((path, errno))),
                errno => return Ok(refusal(path, errno)),
            }
        }
        Ok(match denied {
            Some((path, errno)) => refusal(path, errno),
            None => Refusal {
                path: None,
                errno: Errno::ENOENT as i32,
                head: None,
            },
        })
    }

    /// Closes everything but the standard three and the report: neither a working directory nor a
    /// program can then be named through a descriptor of the shim's.
    fn keep_only_report(&self) -> nix::Result<()> {
        if self.report == REPORT_FD {
            // SAFETY: sets a flag on an open descriptor.
            last_errno(unsafe { libc::fcntl(REPORT_FD, libc::F_SETFD, libc::FD_CLOEXEC) })?;
        } else {
            // SAFETY: whatever had the number 3 is not used any more: this process is about to be
            // replaced and runs nothing but this function's caller.
            last_errno(unsafe { libc::dup3(self.report, REPORT_FD, libc::O_CLOEXEC) })?;
        }
        // SAFETY: as above, for all higher numbers.
        let closed = unsafe { libc::syscall(libc::SYS_close_range, REPORT_FD + 1, libc::c_uint::MAX, 0) };
        last_errno(closed)
    }

    /// Enters the working directory as the sandbox's user, through no link of the kernel's.
    fn enter_cwd(&self) -> nix::Result<()> {
        let errno = |error: io::Error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO));
        let root = File::options()
            .read(true)
            .custom_flags(libc::O_PATH | libc::O_DIRECTORY)
            .open("/")
            .map_err(errno)?;
        let flags = libc::O_PATH | libc::O_DIRECTORY;
        let cwd = open_beneath(root.as_fd(), Path::new(&self.cwd), flags, Follow::NoMagicLinks).map_err(errno)?;
        // SAFETY: an open descriptor of a folder.
        last_errno(unsafe { libc::fchdir(cwd.as_raw_fd()) })
    }
}

fn pointers(texts: &[CString]) -> Vec<*const libc::c_char> {
    let ends = std::iter::once(std::ptr::null());
    texts.iter().map(|text| text.as_ptr()).chain(ends).collect()
}

/// The kernel kills the sandbox when the shim dies, however it dies.
fn die_with_shim() -> nix::Result<()> {
    // SAFETY: integers only.
    last_errno(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) })
}

/// Installs one filter, which needs no-new-privileges and refuses to go on without it.
fn install(filter: &[u8]) -> nix::Result<()> {
    // SAFETY: asks for a flag of this process.
    if unsafe { libc::prctl(libc::PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) } != 1 {
        return Err(Errno::EPERM);
    }
    let instructions: Vec<libc::sock_filter> = filter
        .chunks_exact(INSTRUCTION_BYTES)
        .map(|one| libc::sock_filter {
            code: u16::from_ne_bytes([one[0], one[1]]),
            jt: one[2],
            jf: one[3],
            k: u32::from_ne_bytes([one[4], one[5], one[6], one[7]]),
        })
        .collect();
    let program = libc::sock_fprog {
        len: u16::try_from(instructions.len()).map_err(|_| Errno::EINVAL)?,
        filter: instructions.as_ptr().cast_mut(),
    };
    // SAFETY: the program points to `len` instructions which live through the call; the kernel
    // copies them.
    last_errno(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) })
}

fn exists(path: &CStr) -> bool {
    // SAFETY: a valid C string.
    unsafe { libc::faccessat(libc::AT_FDCWD, path.as_ptr(), libc::F_OK, 0) == 0 }
}

fn refusal(path: &CStr, errno: Errno) -> Refusal {
    let path = path.to_string_lossy().into_owned();
    let head = read_head(Path::new(&path)).ok();
    Refusal {
        path: Some(path),
        errno: errno as i32,
        head,
    }
}

/// The beginning of a file, of whatever kind it is: a pipe is not waited for.
fn read_head(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut head = Vec::new();
    file.take(HEAD_BYTES as u64).read_to_end(&mut head)?;
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::candidates;

    #[test]
    fn programs_are_looked_up_as_execvp_does() {
        let cases: [(&str, &str, &[&str]); 4] = [
            ("/bin/sh", "/usr/bin", &["/bin/sh"]),
            ("./run", "/usr/bin", &["./run"]),
            ("make", "/usr/bin:/bin", &["/usr/bin/make", "/bin/make"]),
            ("make", ":/bin", &["./make", "/bin/make"]),
        ];
        for (program, path, expected) in cases {
            assert_eq!(candidates(program, path), expected);
        }
    }
}
