//! Version 2: one hierarchy with all controllers. Processes live in leaves only.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{CPU_PERIOD_US, Hierarchy, Readings, SHIMS, read_keyed, read_number, set, set_if_present};
use crate::record::Usage;
use crate::sandbox::Limits;

/// Controllers without which a sandbox would not be one. Devices have none here: the sandbox has
/// no `CAP_MKNOD`, and its file system is mounted without devices.
pub(super) const NEEDED: [&str; 3] = ["cpu", "memory", "pids"];

/// A slice of version 2.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct V2Slice {
    /// The slice's folder.
    pub dir: PathBuf,
}

/// Hands the needed controllers down to the children of `dir`.
fn delegate(dir: &Path) -> io::Result<()> {
    let handed = fs::read_to_string(dir.join("cgroup.subtree_control")).unwrap_or_default();
    let missing: Vec<String> = NEEDED
        .iter()
        .filter(|needed| !handed.split_whitespace().any(|have| have == **needed))
        .map(|needed| format!("+{needed}"))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    set(dir, "cgroup.subtree_control", &missing.join(" "))
}

impl Hierarchy for V2Slice {
    fn prepare(&self) -> io::Result<()> {
        let above: Vec<&Path> = self.dir.ancestors().skip(1).take(2).collect();
        for dir in above.into_iter().rev() {
            fs::create_dir_all(dir)?;
            delegate(dir)?;
        }
        fs::create_dir_all(&self.dir)?;
        delegate(&self.dir)?;
        fs::create_dir_all(self.dir.join(SHIMS))
    }

    fn create(&self, name: &str, limits: &Limits) -> io::Result<()> {
        let leaf = self.dir.join(name);
        fs::create_dir(&leaf)?;
        let quota = u64::from(limits.cpu_millis) * CPU_PERIOD_US / 1_000;
        // 100 is the weight of one whole CPU; the kernel takes 1 to 10,000.
        let weight = (u64::from(limits.cpu_millis) / 10).clamp(1, 10_000);
        set(&leaf, "cpu.max", &format!("{quota} {CPU_PERIOD_US}"))?;
        set(&leaf, "cpu.weight", &weight.to_string())?;
        set(&leaf, "memory.max", &limits.memory_bytes.to_string())?;
        set_if_present(&leaf, "memory.swap.max", "0")?;
        set(&leaf, "pids.max", &limits.pids.to_string())
    }

    fn enter(&self, name: &str) -> io::Result<()> {
        set(&self.dir.join(name), "cgroup.procs", "0")
    }

    fn seal(&self, name: &str) -> io::Result<()> {
        set(&self.dir.join(name), "pids.max", "0")
    }

    fn readings(&self, name: &str) -> Readings {
        let leaf = self.dir.join(name);
        Readings {
            usage: Usage {
                memory_peak_bytes: read_number(&leaf, "memory.peak"),
                cpu_ms: read_keyed(&leaf, "cpu.stat", "usage_usec") / 1_000,
                throttled_ms: read_keyed(&leaf, "cpu.stat", "throttled_usec") / 1_000,
            },
            oom_kills: read_keyed(&leaf, "memory.events", "oom_kill"),
        }
    }

    fn dirs(&self) -> Vec<&Path> {
        vec![&self.dir]
    }
}
