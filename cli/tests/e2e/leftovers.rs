//! What a test left on the machine: cgroups, mounts, processes and folders that carry its mark.

use sha2::{Digest, Sha256};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// Everything on this machine that names `mark`, a part of a path that only this test uses.
pub(crate) fn find(mark: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    found.extend(
        mounts
            .lines()
            .filter(|l| l.contains(mark))
            .map(|l| format!("mount: {l}")),
    );
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

/// Proves that the folder for bundles of the agent with this data folder is gone, and with it its
/// cgroups, which an agent removes before.
pub(crate) fn expect_no_run_folder(agent_data: &Path) {
    let data = agent_data.canonicalize().expect("the agent made it");
    let digest = hex::encode(Sha256::digest(data.as_os_str().as_encoded_bytes()));
    let folder = Path::new("/run/buildflow").join(&digest[..12]);
    assert!(!folder.exists(), "{} is left", folder.display());
}

/// Waits until `check` answers nothing; fails with what is left after half a minute.
pub(crate) fn expect_none(what: &str, check: impl Fn() -> Vec<String>) {
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
