//! Version 1, alone or beside an empty version 2: one hierarchy per controller.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{CPU_PERIOD_US, Hierarchy, Readings, SHIMS, read_keyed, read_number, set, set_if_present};
use crate::record::Usage;
use crate::sandbox::Limits;

/// Controllers without which a sandbox would not be one.
pub(super) const NEEDED: [&str; 4] = ["pids", "memory", "cpu", "devices"];
/// Controllers that are used where they are there.
pub(super) const WANTED: [&str; 1] = ["cpuacct"];

/// Devices that may be used inside: all may be named, only the harmless ones opened.
const DEVICES: [&str; 10] = [
    "c *:* m",
    "b *:* m",
    "c 1:3 rwm",   // null
    "c 1:5 rwm",   // zero
    "c 1:7 rwm",   // full
    "c 1:8 rwm",   // random
    "c 1:9 rwm",   // urandom
    "c 5:0 rwm",   // tty
    "c 5:2 rwm",   // ptmx
    "c 136:* rwm", // pts
];

/// A slice of version 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct V1Slice {
    /// Controller to the slice's folder in that controller's hierarchy. Hierarchies that hold
    /// several controllers stand here several times, with the same folder.
    pub dirs: BTreeMap<String, PathBuf>,
}

impl V1Slice {
    pub(super) fn map_dirs(&self, pin: &mut impl FnMut(&Path) -> io::Result<PathBuf>) -> io::Result<V1Slice> {
        let mut known: BTreeMap<&Path, PathBuf> = BTreeMap::new();
        let mut dirs = BTreeMap::new();
        for (controller, dir) in &self.dirs {
            let pinned = match known.get(dir.as_path()) {
                Some(pinned) => pinned.clone(),
                None => pin(dir)?,
            };
            known.insert(dir, pinned.clone());
            dirs.insert(controller.clone(), pinned);
        }
        Ok(V1Slice { dirs })
    }

    fn leaf(&self, controller: &str, name: &str) -> Option<PathBuf> {
        self.dirs.get(controller).map(|dir| dir.join(name))
    }
}

fn apply(controller: &str, leaf: &Path, limits: &Limits) -> io::Result<()> {
    match controller {
        "pids" => set(leaf, "pids.max", &limits.pids.to_string()),
        "memory" => {
            let bytes = limits.memory_bytes.to_string();
            set(leaf, "memory.limit_in_bytes", &bytes)?;
            // Memory and swap together may be as much as memory alone: there is no swap.
            set_if_present(leaf, "memory.memsw.limit_in_bytes", &bytes)?;
            set_if_present(leaf, "memory.swappiness", "0")
        }
        "cpu" => {
            let quota = u64::from(limits.cpu_millis) * CPU_PERIOD_US / 1_000;
            let shares = (u64::from(limits.cpu_millis) * 1_024 / 1_000).max(2);
            set(leaf, "cpu.cfs_period_us", &CPU_PERIOD_US.to_string())?;
            set(leaf, "cpu.cfs_quota_us", &quota.to_string())?;
            set(leaf, "cpu.shares", &shares.to_string())
        }
        "devices" => {
            set(leaf, "devices.deny", "a")?;
            DEVICES.iter().try_for_each(|rule| set(leaf, "devices.allow", rule))
        }
        _ => Ok(()),
    }
}

impl Hierarchy for V1Slice {
    fn prepare(&self) -> io::Result<()> {
        self.dirs()
            .into_iter()
            .try_for_each(|dir| fs::create_dir_all(dir.join(SHIMS)))
    }

    fn create(&self, name: &str, limits: &Limits) -> io::Result<()> {
        for dir in self.dirs() {
            fs::create_dir(dir.join(name))?;
        }
        for (controller, dir) in &self.dirs {
            apply(controller, &dir.join(name), limits)?;
        }
        Ok(())
    }

    fn enter(&self, name: &str) -> io::Result<()> {
        // `0` in `tasks` moves the calling thread only. Unlike a move through `cgroup.procs` it
        // does not wait for a grace period of the kernel, which takes up to 12 ms.
        self.dirs()
            .into_iter()
            .try_for_each(|dir| set(&dir.join(name), "tasks", "0"))
    }

    fn seal(&self, name: &str) -> io::Result<()> {
        match self.leaf("pids", name) {
            Some(leaf) => set(&leaf, "pids.max", "0"),
            None => Ok(()),
        }
    }

    fn readings(&self, name: &str) -> Readings {
        let read =
            |controller: &str, value: fn(&Path) -> u64| self.leaf(controller, name).map_or(0, |leaf| value(&leaf));
        Readings {
            usage: Usage {
                memory_peak_bytes: read("memory", |leaf| read_number(leaf, "memory.max_usage_in_bytes")),
                cpu_ms: read("cpuacct", |leaf| read_number(leaf, "cpuacct.usage")) / 1_000_000,
                throttled_ms: read("cpu", |leaf| read_keyed(leaf, "cpu.stat", "throttled_time")) / 1_000_000,
            },
            oom_kills: read("memory", |leaf| read_keyed(leaf, "memory.oom_control", "oom_kill")),
        }
    }

    fn dirs(&self) -> Vec<&Path> {
        let mut dirs: Vec<&Path> = Vec::new();
        for controller in NEEDED.iter().chain(&WANTED) {
            if let Some(dir) = self.dirs.get(*controller)
                && !dirs.contains(&dir.as_path())
            {
                dirs.push(dir);
            }
        }
        dirs
    }
}
