//! Stays with a running sandbox: empties its output, counts its time, sees its end.
//!
//! One loop over descriptors; nothing in it waits for anything else than the kernel and the disk.
//! Not here: what the end means.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::time::Duration;

use isolation::handover::{now_ms, read_text, write_whole};
use isolation::{End, KilledBy};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::signalfd::SignalFd;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::time::{ClockId as Clock, clock_gettime};
use nix::unistd::Pid;

use crate::lease::Lease;
use crate::report::{REPORT_BYTES_MAX, Report, explain};
use crate::setup::{Failure, Sandbox, patience};
use crate::signals;
use crate::take_over::Shim;

/// Size of one read of output.
const CHUNK_BYTES: usize = 256 << 10;
/// Reads of output before signals and time are looked at again: 4 MiB, some milliseconds.
const CHUNKS_AT_ONCE: usize = 16;
/// How long output is read after the last process ended. Everything in the pid namespace is dead
/// then and the pipe holds 1 MiB at most, so the end of file comes at once; this is for a kernel
/// that proves us wrong.
const DRAIN_PATIENCE: Duration = Duration::from_secs(2);
/// How often killing is repeated until the first process is gone.
const KILL_AGAIN: Duration = Duration::from_secs(1);

/// How a sandbox ended, as far as this loop saw it.
pub(crate) struct Outcome {
    pub(crate) started_ms: Option<u64>,
    pub(crate) ended_ms: u64,
    pub(crate) end: End,
    pub(crate) killed_by_us: Option<KilledBy>,
}

/// Time since boot, suspended time included: a step's time goes on while its node sleeps.
pub(crate) fn now() -> Duration {
    // The clock exists on every kernel that can run a sandbox.
    clock_gettime(Clock::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}

/// What comes next by the clock.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Deadline {
    /// The program has to be executed by then.
    Execute(Duration),
    /// The time-out, which begins with the program.
    Timeout(Duration),
    /// The end of the grace after SIGTERM, then repeated.
    Kill(Duration),
}

impl Deadline {
    fn at(self) -> Duration {
        match self {
            Deadline::Execute(at) | Deadline::Timeout(at) | Deadline::Kill(at) => at,
        }
    }
}

struct Supervisor<'a> {
    shim: &'a mut Shim,
    sandbox: Sandbox,
    output: Option<File>,
    report: Option<File>,
    report_text: Vec<u8>,
    started_ms: Option<u64>,
    deadline: Deadline,
    /// The node's own deadline, which knows no grace.
    lease: Lease,
    timer: TimerFd,
    killed_by_us: Option<KilledBy>,
    /// Whether the program was not executed in time.
    too_late: bool,
    ended: Option<(WaitStatus, u64)>,
    buffer: Vec<u8>,
}

/// Follows the sandbox to its end.
pub(crate) fn supervise(shim: &mut Shim, sandbox: Sandbox) -> Outcome {
    let init = sandbox.init;
    match Supervisor::new(shim, sandbox).and_then(|mut supervisor| {
        supervisor.run()?;
        Ok(supervisor.outcome())
    }) {
        Ok(outcome) => outcome,
        Err(error) => {
            // Without its eyes the shim cannot go on, so neither may the sandbox.
            let _ = kill(init, Signal::SIGKILL);
            let _ = waitpid(init, None);
            Outcome {
                started_ms: None,
                ended_ms: now_ms(),
                end: End::SandboxFailed {
                    message: format!("the shim could not watch the sandbox: {error}"),
                },
                killed_by_us: None,
            }
        }
    }
}

impl<'a> Supervisor<'a> {
    fn new(shim: &'a mut Shim, mut sandbox: Sandbox) -> io::Result<Supervisor<'a>> {
        let null = || File::open("/dev/null");
        let output = std::mem::replace(&mut sandbox.output, null()?.into());
        let report = std::mem::replace(&mut sandbox.report, null()?.into());
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        Ok(Supervisor {
            sandbox,
            output: Some(output.into()),
            report: Some(report.into()),
            report_text: Vec::new(),
            started_ms: None,
            deadline: Deadline::Execute(now().saturating_add(patience(&shim.order))),
            lease: Lease::new(shim.order.spec.lease_path.clone(), now()),
            timer: TimerFd::new(ClockId::CLOCK_BOOTTIME, flags)?,
            killed_by_us: None,
            too_late: false,
            ended: None,
            buffer: vec![0; CHUNK_BYTES],
            shim,
        })
    }

    fn run(&mut self) -> io::Result<()> {
        let signals = signals::descriptor()?;
        self.set_deadline(self.deadline);
        // It may have ended before there was a descriptor to tell us.
        self.reap()?;
        while self.ended.is_none() {
            self.wait(&signals)?;
            self.read_report();
            self.read_output(CHUNKS_AT_ONCE);
            self.take_signals(&signals)?;
            self.check_deadline();
        }
        self.read_report();
        self.drain();
        Ok(())
    }

    /// Sleeps until something is to be done.
    fn wait(&self, signals: &SignalFd) -> io::Result<()> {
        let mut polled = vec![
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.timer.as_fd(), PollFlags::POLLIN),
        ];
        for file in [&self.output, &self.report].into_iter().flatten() {
            polled.push(PollFd::new(file.as_fd(), PollFlags::POLLIN));
        }
        match poll(&mut polled, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Reads what the first process says; its end of file is the program's beginning.
    fn read_report(&mut self) {
        let Some(report) = &mut self.report else {
            return;
        };
        let mut piece = [0; 4096];
        loop {
            match report.read(&mut piece) {
                Ok(0) => break,
                Ok(count) if self.report_text.len() + count <= REPORT_BYTES_MAX => {
                    self.report_text.extend_from_slice(&piece[..count]);
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => break,
            }
        }
        self.report = None;
        let report = self.parsed_report();
        if let (Some(executed_ms), None) = (report.executed_ms, report.failure) {
            self.begin(executed_ms);
        }
    }

    fn parsed_report(&self) -> Report {
        Report::parse(&String::from_utf8_lossy(&self.report_text))
    }

    /// The program has been executed: its time begins.
    fn begin(&mut self, executed_ms: u64) {
        self.started_ms = Some(executed_ms);
        let started = self.shim.order.bundle.started();
        if let Err(error) = write_whole(&started, executed_ms.to_string().as_bytes()) {
            eprintln!("start cannot be told: {error}");
        }
        if matches!(self.deadline, Deadline::Execute(_)) {
            let timeout = self.shim.order.spec.timeout;
            self.set_deadline(Deadline::Timeout(now().saturating_add(timeout)));
        }
    }

    fn set_deadline(&mut self, deadline: Deadline) {
        self.deadline = deadline;
        self.arm();
    }

    /// Sets the timer to what comes next; that it has fired is forgotten.
    fn arm(&self) {
        let next = self.deadline.at().min(self.lease.wake_at());
        let at = TimeSpec::from_duration(next.max(Duration::from_nanos(1)));
        if let Err(errno) = self
            .timer
            .set(Expiration::OneShot(at), TimerSetTimeFlags::TFD_TIMER_ABSTIME)
        {
            eprintln!("timer cannot be set: {errno}");
        }
    }

    fn read_output(&mut self, chunks: usize) {
        let Some(output) = &mut self.output else {
            return;
        };
        for _ in 0..chunks {
            match output.read(&mut self.buffer) {
                Ok(0) => {
                    self.output = None;
                    return;
                }
                Ok(count) => self.shim.log.accept(&self.buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    eprintln!("output cannot be read: {error}");
                    self.output = None;
                    return;
                }
            }
        }
    }

    /// Reads what is left after the last process ended.
    fn drain(&mut self) {
        let until = now() + DRAIN_PATIENCE;
        self.read_output(CHUNKS_AT_ONCE);
        while let Some(output) = &self.output {
            let left = until.saturating_sub(now());
            if left.is_zero() {
                return;
            }
            let ms = u16::try_from(left.as_millis() + 1).unwrap_or(u16::MAX);
            let mut polled = [PollFd::new(output.as_fd(), PollFlags::POLLIN)];
            let _ = poll(&mut polled, PollTimeout::from(ms));
            self.read_output(CHUNKS_AT_ONCE);
        }
    }

    fn take_signals(&mut self, signals: &SignalFd) -> io::Result<()> {
        let mut stop = false;
        while let Some(signal) = signals.read_signal()? {
            stop |= signal.ssi_signo != Signal::SIGCHLD as u32;
        }
        self.reap()?;
        if stop && self.ended.is_none() {
            let reason = read_text(&self.shim.order.bundle.stop()).ok().flatten();
            let reason = reason.unwrap_or_else(|| "the shim was told to end".into());
            self.stop(KilledBy::Stopped { reason });
        }
        Ok(())
    }

    /// Collects every child that ended; what a killed set-up left becomes ours too.
    fn reap(&mut self) -> io::Result<()> {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(()),
                Ok(status) => {
                    if status.pid() == Some(self.sandbox.init) {
                        self.ended = Some((status, now_ms()));
                    }
                }
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    fn check_deadline(&mut self) {
        let now = now();
        if self.ended.is_some() || now < self.deadline.at().min(self.lease.wake_at()) {
            return;
        }
        if self.lease.has_passed(now) {
            // Whoever ended it first is named; it dies now all the same.
            self.killed_by_us.get_or_insert(KilledBy::Lease);
            self.kill_all();
            self.set_deadline(Deadline::Kill(now + KILL_AGAIN));
            return;
        }
        match self.deadline {
            _ if now < self.deadline.at() => self.arm(),
            Deadline::Timeout(_) => self.stop(KilledBy::Timeout),
            Deadline::Execute(_) | Deadline::Kill(_) => {
                self.too_late |= matches!(self.deadline, Deadline::Execute(_));
                self.kill_all();
                self.set_deadline(Deadline::Kill(now + KILL_AGAIN));
            }
        }
    }

    /// Asks everything in the sandbox to end, and sets the time after which it is made to.
    fn stop(&mut self, why: KilledBy) {
        if self.killed_by_us.is_some() {
            return;
        }
        self.killed_by_us = Some(why);
        let spec = &self.shim.order.spec;
        if let Err(error) = self.shim.slice.signal(&spec.id, libc::SIGTERM) {
            eprintln!("sandbox cannot be told to end: {error}");
        }
        let at = now().saturating_add(spec.kill_grace);
        self.set_deadline(Deadline::Kill(at));
    }

    /// Kills the first process, and with it its whole pid namespace.
    fn kill_all(&self) {
        // Our child, not yet waited for: the number cannot be anybody else's.
        let init: Pid = self.sandbox.init;
        if let Err(errno) = kill(init, Signal::SIGKILL) {
            eprintln!("sandbox cannot be killed: {errno}");
        }
    }

    fn outcome(&self) -> Outcome {
        let report = self.parsed_report();
        let (status, ended_ms) = self.ended.unwrap_or((WaitStatus::StillAlive, now_ms()));
        Outcome {
            started_ms: self.started_ms,
            ended_ms,
            end: self.end(&report, status),
            killed_by_us: self.killed_by_us.clone(),
        }
    }

    fn end(&self, report: &Report, status: WaitStatus) -> End {
        let spec = &self.shim.order.spec;
        if let Some(failure) = &report.failure {
            let program = spec.argv.first().map_or("", String::as_str);
            return explain(failure, program, &spec.cwd, &self.sandbox.search_path);
        }
        if self.too_late {
            let failure = Failure::too_slow(patience(&self.shim.order));
            return failure.into();
        }
        match status {
            WaitStatus::Exited(_, code) if self.started_ms.is_some() => End::Exited { code },
            WaitStatus::Signaled(_, signal, _) if self.started_ms.is_some() => End::Signaled { signal: signal as i32 },
            status => End::SandboxFailed {
                message: format!("the first process ended before it became the program: {status:?}"),
            },
        }
    }
}
