//! A sandbox is data until the shim makes it real: a spec goes in, an exit record comes out.
//!
//! This crate knows containers and nothing of runs, steps or allocations. It never forks: the
//! [`Launcher`] executes the shim, the only program that calls libcontainer. There is no async
//! runtime here either; [`SandboxWatch`] and [`Launcher::shim_pidfd`] are descriptors which any
//! event loop can wait on.

pub mod cgroup;
pub mod handover;
pub mod kernel;
mod launcher;
pub mod lease;
pub mod oci;
mod record;
mod sandbox;
pub mod seccomp;
pub mod user;

pub use launcher::{
    LaunchError, Launched, Launcher, LauncherConfig, LauncherError, Listed, SandboxState, SandboxWatch,
};
pub use record::{End, ExitRecord, KilledBy, RecordError, Usage};
pub use sandbox::{InvalidSpec, Limits, Network, RootFs, SandboxSpec};
