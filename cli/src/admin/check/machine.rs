//! The machine itself: what the kernel offers is tried, not read from its version.
//!
//! Mounts are made in a mount namespace of one thread and vanish with it. Not here: networks.

use super::Report;
use isolation::cgroup::Layout;
use isolation::kernel::{MemoryFile, pidfd_open, sealed_memory_file};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::statvfs::statvfs;
use std::path::{Path, PathBuf};

/// Fewer open files than this and a server or a busy node runs out of them.
const OPEN_FILES_MIN: u64 = 65_536;

/// Less free room than this is warned of, bytes.
const ROOM_MIN: u64 = 5 << 30;

/// What a step is run in.
const NAMESPACES: [&str; 7] = ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"];

pub(super) fn root(report: &mut Report) {
    if nix::unistd::geteuid().is_root() {
        report.ok("user", "root");
    } else {
        report.failed(
            "user",
            "an agent needs root: it makes containers, cgroups and overlay mounts; run this with sudo",
        );
    }
}

pub(super) fn kernel(report: &mut Report) {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let missing: Vec<&str> = NAMESPACES
        .into_iter()
        .filter(|name| !Path::new("/proc/self/ns").join(name).exists())
        .collect();
    if !missing.is_empty() {
        let text = format!(
            "the kernel {} has no namespaces of the kinds {}",
            release.trim(),
            missing.join(", ")
        );
        return report.failed("kernel", text);
    }
    let own = i32::try_from(std::process::id()).unwrap_or(i32::MAX);
    if let Err(cause) = pidfd_open(own) {
        return report.failed("kernel", format!("pidfd_open: {cause}; Linux 5.10 or later is needed"));
    }
    if let Err(cause) = sealed_memory_file(c"buildflow-check", MemoryFile::Program, b"#!") {
        let text = format!("programs in memory files: {cause}; set vm.memfd_noexec to 0");
        return report.failed("kernel", text);
    }
    report.ok(
        "kernel",
        format!("{}, with every namespace that steps need", release.trim()),
    );
}

pub(super) fn cgroups(report: &mut Report) {
    let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let layout = Layout::from_mountinfo(&text);
    match layout.slice("check") {
        Ok(_) if layout.v1.is_empty() => report.ok("cgroups", "version 2"),
        Ok(_) => report.ok("cgroups", "version 1 or hybrid"),
        Err(error) => report.failed("cgroups", error.to_string()),
    }
}

/// Mounts an overlay on folders of the file system where the agent will have its own.
pub(super) fn overlay(report: &mut Report, data: &Path) {
    let base = nearest_folder(data);
    // A thread of its own: only it moves into the new mount namespace.
    let tried = std::thread::spawn(move || try_overlay(&base)).join();
    match tried {
        Ok(Ok(())) => report.ok("overlay", "mounts on the file system of the data folder"),
        Ok(Err(text)) => report.failed("overlay", text),
        Err(_) => report.failed("overlay", "the attempt crashed"),
    }
}

fn try_overlay(base: &Path) -> Result<(), String> {
    let place = Scratch::below(base).map_err(|cause| format!("{}: {cause}", base.display()))?;
    let failed = |what: &str, cause: nix::Error| {
        format!("{what}: {cause}; a file system such as ext4 or xfs is needed, and root")
    };
    unshare(CloneFlags::CLONE_NEWNS).map_err(|cause| failed("a mount namespace", cause))?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .map_err(|cause| failed("private mounts", cause))?;
    let at = |name: &str| place.0.join(name);
    for name in ["a", "b", "upper", "work", "merged"] {
        std::fs::create_dir(at(name)).map_err(|cause| format!("{}: {cause}", at(name).display()))?;
    }
    std::fs::write(at("b").join("x"), "x").map_err(|cause| cause.to_string())?;
    let show = |name: &str| at(name).display().to_string();
    let options = format!(
        "lowerdir={}:{},upperdir={},workdir={}",
        show("a"),
        show("b"),
        show("upper"),
        show("work")
    );
    mount(
        Some("overlay"),
        &at("merged"),
        Some("overlay"),
        MsFlags::empty(),
        Some(options.as_str()),
    )
    .map_err(|cause| failed("an overlay of two folders", cause))?;
    let seen = std::fs::read_to_string(at("merged").join("x")).map_err(|cause| cause.to_string());
    let unmounted = nix::mount::umount(&at("merged")).map_err(|cause| cause.to_string());
    seen.and(unmounted)
}

/// A folder that goes when it is dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn below(base: &Path) -> std::io::Result<Self> {
        let path = base.join(format!(".buildflow-check-{}", std::process::id()));
        std::fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Left behind it would be an empty folder.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The folder itself, or the nearest one above that is there.
fn nearest_folder(path: &Path) -> PathBuf {
    let there = path.ancestors().find(|p| p.is_dir());
    there.unwrap_or(Path::new("/")).to_owned()
}

pub(super) fn shim(report: &mut Report) {
    let beside = std::env::current_exe()
        .ok()
        .map(|exe| exe.with_file_name("buildflow-shim"));
    let named = std::env::var_os("BUILDFLOW_SHIM").map(PathBuf::from);
    match named.or(beside) {
        Some(path) if path.is_file() => report.ok("shim", path.display().to_string()),
        Some(path) => report.failed(
            "shim",
            format!(
                "{} is not there: install it beside `buildflow`, or name it with BUILDFLOW_SHIM",
                path.display()
            ),
        ),
        None => report.failed(
            "shim",
            "it cannot be found out where this program lies; set BUILDFLOW_SHIM",
        ),
    }
}

pub(super) fn open_files(report: &mut Report) {
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((_, hard)) if hard < OPEN_FILES_MIN => report.warning(
            "open files",
            format!("the hard limit is {hard}; raise it to {OPEN_FILES_MIN} (LimitNOFILE= of the unit, or ulimit -Hn)"),
        ),
        Ok((_, hard)) => report.ok("open files", format!("up to {hard}")),
        Err(cause) => report.warning("open files", cause.to_string()),
    }
}

pub(super) fn folder(report: &mut Report, what: &str, path: &Path) {
    let base = nearest_folder(path);
    if let Err(cause) = Scratch::below(&base) {
        return report.failed(what, format!("{} cannot be written: {cause}", base.display()));
    }
    match statvfs(&base) {
        Ok(stat) => {
            let free = stat.blocks_available().saturating_mul(stat.fragment_size());
            let text = format!("{}, {} MiB free", path.display(), free >> 20);
            if free < ROOM_MIN {
                report.warning(what, format!("{text}; that is little"));
            } else {
                report.ok(what, text);
            }
        }
        Err(cause) => report.failed(what, format!("{}: {cause}", base.display())),
    }
}
