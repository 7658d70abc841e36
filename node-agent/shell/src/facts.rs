//! What is found on the machine: what steps may take, and what operators want to know.
//!
//! Not here: settings that override it.

use crate::config::{AgentConfig, SLOTS_DEFAULT};
use model::{NodeFacts, Resources};
use std::collections::BTreeMap;
use std::path::Path;

/// Memory that is left for the kernel, the agent and its shims: at most this, and at most a tenth.
const MEMORY_RESERVED_BYTES: u64 = 1 << 30;

/// What the agent tells the server about its node.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    pub(crate) name: String,
    pub(crate) capacity: Resources,
    pub(crate) slots: u32,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) facts: NodeFacts,
}

impl Machine {
    /// Looks around. Blocking.
    pub(crate) fn find(config: &AgentConfig) -> Self {
        let hostname = hostname();
        let mut labels = BTreeMap::from([
            ("arch".to_owned(), arch().to_owned()),
            ("os".to_owned(), std::env::consts::OS.to_owned()),
            ("hostname".to_owned(), hostname.clone()),
        ]);
        labels.extend(config.labels.clone());
        let asked = config.capacity;
        Self {
            name: config.name.clone().unwrap_or(hostname),
            capacity: Resources {
                cpu_millis: asked.cpu_millis.unwrap_or_else(cpu_millis),
                memory_bytes: asked.memory_bytes.unwrap_or_else(memory_bytes),
                disk_bytes: asked.disk_bytes.unwrap_or_else(|| disk_bytes(&config.data_dir)),
            },
            slots: config.slots.unwrap_or(SLOTS_DEFAULT),
            labels,
            facts: NodeFacts {
                kernel: first_line("/proc/sys/kernel/osrelease"),
                cgroups: cgroups(Path::new("/sys/fs/cgroup")).to_owned(),
                agent_version: env!("CARGO_PKG_VERSION").to_owned(),
                boot_id: first_line("/proc/sys/kernel/random/boot_id"),
            },
        }
    }
}

fn first_line(path: &str) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().next().unwrap_or_default().to_owned()
}

fn hostname() -> String {
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    name.filter(|name| !name.is_empty())
        .unwrap_or_else(|| "node".to_owned())
}

/// The processor in the words of images.
fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The cores that this process may use.
fn cpu_millis() -> u64 {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as u64 * 1000
}

fn memory_bytes() -> u64 {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    steps_memory(total_memory(&meminfo).unwrap_or(0))
}

fn total_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

fn steps_memory(total: u64) -> u64 {
    total - (total / 10).min(MEMORY_RESERVED_BYTES)
}

/// Nine tenths of what is free where the data folder lies.
fn disk_bytes(data_dir: &Path) -> u64 {
    nix::sys::statvfs::statvfs(data_dir).map_or(0, |fs| fs.blocks_available() * fs.fragment_size() / 10 * 9)
}

fn cgroups(mount: &Path) -> &'static str {
    if mount.join("cgroup.controllers").exists() {
        "v2"
    } else if mount.join("unified/cgroup.controllers").exists() {
        "hybrid"
    } else {
        "v1"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_leaves_a_tenth_but_at_most_a_gibibyte() {
        assert_eq!(total_memory("MemFree: 3 kB\nMemTotal:       2048 kB\n"), Some(2 << 20));
        assert_eq!(total_memory("MemTotal: many"), None);
        assert_eq!(steps_memory(1000), 900);
        assert_eq!(steps_memory(64 << 30), 63 << 30);
    }

    #[test]
    fn the_cgroup_layout_is_told_by_its_files() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(cgroups(folder.path()), "v1");
        std::fs::create_dir(folder.path().join("unified")).unwrap();
        std::fs::write(folder.path().join("unified/cgroup.controllers"), "").unwrap();
        assert_eq!(cgroups(folder.path()), "hybrid");
        std::fs::write(folder.path().join("cgroup.controllers"), "").unwrap();
        assert_eq!(cgroups(folder.path()), "v2");
    }
}
