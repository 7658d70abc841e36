//! One sandbox in OCI's own words: a pure function from our spec to a runtime spec.
//!
//! Left out on purpose: `linux.resources` (the shim makes the cgroups itself, which saves the
//! runtime's wait), `linux.seccomp` (a ready-made filter is installed just before exec), the
//! network namespace (the shim has entered it before), and the environment (never in a file).

use std::path::Path;

use oci_spec::runtime::Spec;
use serde_json::json;

use crate::sandbox::SandboxSpec;
use crate::user::ResolvedUser;

/// What root inside keeps: enough for package managers and `make install`. Not: devices, raw
/// sockets, audit, anything of the node's.
const CAPABILITIES: [&str; 10] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// Kernel files that nobody inside may read. Beyond the usual list, those which would be open to
/// root although they are about the whole node: the switches of kernel messages, and the state of
/// every page of memory.
const MASKED_PATHS: [&str; 17] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/dynamic_debug",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/kmsg",
    "/proc/kpagecgroup",
    "/proc/kpagecount",
    "/proc/kpageflags",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Kernel files that nobody inside may write.
const READONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// What the node adds to a spec.
#[derive(Debug, Clone, Copy)]
pub struct NodeFacts<'a> {
    /// Where the overlay is mounted.
    pub rootfs: &'a Path,
    /// The cgroup as the runtime may name it; absolute.
    pub cgroups_path: &'a str,
    /// The most open files that this node can allow without further privilege.
    pub nofile_hard: u64,
}

/// The runtime spec of a sandbox.
#[must_use]
pub fn oci_spec(spec: &SandboxSpec, user: &ResolvedUser, node: &NodeFacts<'_>) -> Spec {
    let value = json!({
        "ociVersion": "1.0.2",
        "hostname": spec.hostname,
        "root": { "path": node.rootfs, "readonly": false },
        "process": process(spec, user, node),
        "mounts": mounts(spec),
        "linux": {
            "cgroupsPath": node.cgroups_path,
            "namespaces": [
                { "type": "pid" },
                { "type": "mount" },
                { "type": "ipc" },
                { "type": "uts" },
                { "type": "cgroup" },
            ],
            "maskedPaths": MASKED_PATHS,
            "readonlyPaths": READONLY_PATHS,
        },
    });
    serde_json::from_value(value).expect("the literal above has the shape of an OCI spec")
}

fn process(spec: &SandboxSpec, user: &ResolvedUser, node: &NodeFacts<'_>) -> serde_json::Value {
    let nofile = spec.limits.nofile.min(node.nofile_hard);
    // Whoever is not root keeps nothing, but may regain up to the bounding set what a program
    // with file capabilities would give; no-new-privileges forbids that as well.
    let held: &[&str] = if user.uid == 0 { &CAPABILITIES } else { &[] };
    json!({
        "terminal": false,
        "user": { "uid": user.uid, "gid": user.gid, "additionalGids": user.groups },
        "args": spec.argv,
        // HOME has to be there, or the runtime would load the image's name service modules.
        "env": ["HOME=/"],
        // The real one is entered by the shim just before exec, as the sandbox's own user.
        "cwd": "/",
        "noNewPrivileges": true,
        "capabilities": {
            "bounding": CAPABILITIES,
            "effective": held,
            "permitted": held,
            "inheritable": [],
            "ambient": [],
        },
        "rlimits": [
            { "type": "RLIMIT_NOFILE", "soft": nofile, "hard": nofile },
            { "type": "RLIMIT_CORE", "soft": 0, "hard": 0 },
        ],
    })
}

fn mounts(spec: &SandboxSpec) -> serde_json::Value {
    // To the kernel a size of 0 is no limit at all.
    let shm_size = format!("size={}", spec.limits.shm_bytes.max(1));
    json!([
        {
            "destination": "/proc", "type": "proc", "source": "proc",
            "options": ["nosuid", "noexec", "nodev"],
        },
        {
            "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
        },
        {
            "destination": "/dev/pts", "type": "devpts", "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        },
        {
            "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
            "options": ["nosuid", "noexec", "nodev", "mode=1777", shm_size],
        },
        {
            "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
            "options": ["nosuid", "noexec", "nodev"],
        },
        {
            "destination": "/sys", "type": "sysfs", "source": "sysfs",
            "options": ["nosuid", "noexec", "nodev", "ro"],
        },
    ])
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::sandbox::tests::example as spec;

    fn user(uid: u32) -> ResolvedUser {
        ResolvedUser {
            uid,
            gid: uid,
            groups: vec![uid + 1],
            home: "/".into(),
        }
    }

    fn built(spec: &SandboxSpec, uid: u32, nofile_hard: u64) -> Spec {
        let node = NodeFacts {
            rootfs: Path::new("/run/buildflow/bundles/one/rootfs"),
            cgroups_path: "/buildflow/test/one",
            nofile_hard,
        };
        oci_spec(spec, &user(uid), &node)
    }

    /// A spec in an order that does not depend on the hash of its capabilities.
    fn sorted(value: impl serde::Serialize) -> serde_json::Value {
        let mut value = serde_json::to_value(value).unwrap();
        for process in ["/process/capabilities", "/capabilities"] {
            let sets = value.pointer_mut(process).and_then(|sets| sets.as_object_mut());
            for set in sets.into_iter().flatten().filter_map(|(_, set)| set.as_array_mut()) {
                set.sort_by_key(ToString::to_string);
            }
        }
        value
    }

    #[test]
    fn the_spec_of_root() {
        insta::assert_json_snapshot!(sorted(built(&spec(), 0, 20_000)));
    }

    #[test]
    fn who_is_not_root_holds_no_capability() {
        let spec = built(&spec(), 1_000, 20_000);
        insta::assert_json_snapshot!(sorted(spec.process()));
    }

    #[test]
    fn the_environment_is_never_in_the_spec() {
        let text = serde_json::to_string(&built(&spec(), 0, 20_000)).unwrap();
        assert!(!text.contains("hunter2") && !text.contains("TOKEN"), "{text}");
        assert!(text.contains("HOME=/"), "{text}");
    }

    #[test]
    fn open_files_never_exceed_what_the_node_can_give() {
        for (asked, hard, given) in [(1_024, 20_000, 1_024), (1 << 20, 4_096, 4_096)] {
            let mut spec = spec();
            spec.limits.nofile = asked;
            let built = built(&spec, 0, hard);
            let limits = built.process().as_ref().unwrap().rlimits().clone().unwrap();
            assert_eq!((limits[0].soft(), limits[0].hard()), (given, given));
        }
    }

    #[test]
    fn neither_resources_nor_seccomp_are_left_to_the_runtime() {
        let built = built(&spec(), 0, 20_000);
        let linux = built.linux().as_ref().unwrap();
        assert!(linux.resources().is_none() && linux.seccomp().is_none());
    }
}
