//! What a process has used, as the kernel counts it. Not here: whose processes they are.

use std::fs;
use std::time::Duration;

/// Ticks of `/proc/PID/stat` in a second; 100 on every Linux that is in use.
const TICKS_A_SECOND: u64 = 100;

/// What some processes have used together.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Usage {
    /// CPU time since their start.
    pub(crate) cpu: Duration,
    /// Resident memory now, bytes.
    pub(crate) resident: u64,
}

impl Usage {
    /// Of all these processes; one that is gone counts as nothing.
    pub(crate) fn of(pids: &[u32]) -> Self {
        pids.iter()
            .filter_map(|pid| Self::of_one(*pid))
            .fold(Self::default(), |sum, one| Self {
                cpu: sum.cpu + one.cpu,
                resident: sum.resident + one.resident,
            })
    }

    fn of_one(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        Some(Self {
            cpu: cpu(&stat)?,
            resident: resident(&status)?,
        })
    }

    /// Cores in use on average between an earlier look and this one.
    pub(crate) fn cores_since(&self, before: &Self, elapsed: Duration) -> f64 {
        self.cpu.saturating_sub(before.cpu).as_secs_f64() / elapsed.as_secs_f64().max(1e-9)
    }
}

/// User and system time of `/proc/PID/stat`; the program's name in it may hold anything.
fn cpu(stat: &str) -> Option<Duration> {
    let (_, fields) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(Duration::from_millis(ticks * 1_000 / TICKS_A_SECOND))
}

/// A process that has ended and was not waited for has no such line.
fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_time_count_and_a_name_may_hold_anything() {
        let stat = "42 (a ) b) S 1 42 42 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 4 0 100 0 0";
        assert_eq!(cpu(stat), Some(Duration::from_secs(2)));
        assert_eq!(resident("Name:\tx\nVmRSS:\t  2048 kB\n"), Some(2 << 20));
        assert_eq!(cpu("42 (x) S"), None);
    }

    #[test]
    fn this_process_uses_something_and_no_process_uses_nothing() {
        assert!(Usage::of(&[std::process::id()]).resident > 0);
        assert_eq!(Usage::of(&[]), Usage::default());
    }
}
