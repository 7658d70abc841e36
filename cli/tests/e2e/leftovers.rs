//! What a test left on the machine: cgroups, mounts, processes and folders that carry its mark.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// Everything on this machine that names `mark`, a part of a path that only this test uses.
pub fn find(mark: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    found.extend(mounts.lines().filter(|l| l.contains(mark)).map(|l| format!("mount: {l}")));
    for process in fs::read_dir("/proc").expect("proc").flatten() {
        let path = process.path();
        let command = fs::read(path.join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        if command.contains(mark) {
            found.push(format!("process {}: {command}", path.display()));
        }
    }
    found
}

/// All cgroup folders below a folder named `buildflow`, in every hierarchy.
pub fn cgroups() -> Vec<String> {
    fn walk(folder: &Path, below_ours: bool, found: &mut Vec<String>, depth: usize) {
        let Ok(entries) = fs::read_dir(folder) else { return };
        for entry in entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())) {
            let path = entry.path();
            let ours = below_ours || entry.file_name().to_string_lossy().contains("buildflow");
            if ours {
                found.push(path.display().to_string());
            }
            if depth < 8 {
                walk(&path, ours, found, depth + 1);
            }
        }
    }
    let mut found = Vec::new();
    walk(Path::new("/sys/fs/cgroup"), false, &mut found, 0);
    found.sort();
    found
}

/// Waits until `check` answers nothing; fails with what is left after half a minute.
pub fn expect_none(what: &str, check: impl Fn() -> Vec<String>) {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let left = check();
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < end, "{what} left behind:\n{}", left.join("\n"));
        std::thread::sleep(Duration::from_millis(50));
    }
}
