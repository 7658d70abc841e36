//! The whole program on this machine: real processes, real git, real containers. Needs root; says
//! loudly that it was skipped without.

mod attacks;
mod cluster;
mod crashes;
mod dev;
mod engines;
mod guide;
mod image;
mod joining;
mod language;
mod leftovers;
mod local;
mod main_path;
mod refusals;
mod repository;
mod s3;
mod strangers;
mod waiting;

/// True when containers can be started here; otherwise says on standard error what is missing.
fn can_run(test: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    let busybox = std::path::Path::new("/bin/busybox").exists();
    if !root || !busybox {
        eprintln!("SKIPPED {test}: needs root ({root}) and busybox-static's /bin/busybox ({busybox})");
    }
    root && busybox
}
