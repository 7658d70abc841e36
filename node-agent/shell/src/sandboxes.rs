//! The launcher as the agent sees it, so that tests need no container.
//!
//! Every method may be called from any thread and blocks at most for the work that it names; the
//! state of a sandbox lives outside of this process, so a new value finds what an old one left.

use isolation::{LaunchError, Launcher, LauncherError, SandboxSpec, SandboxState, SandboxWatch};
use std::os::fd::{AsFd, BorrowedFd};

/// Starts, follows, stops and removes sandboxes: [`isolation::Launcher`] or a fake of it.
pub trait Sandboxes: Send + Sync + 'static {
    /// See [`Launcher::launch`].
    ///
    /// # Errors
    /// [`LaunchError`]; nothing is left then.
    fn launch(&self, spec: &SandboxSpec) -> Result<(), LaunchError>;

    /// See [`Launcher::state`].
    ///
    /// # Errors
    /// [`LauncherError`]: ask again later.
    fn state(&self, id: &str) -> Result<SandboxState, LauncherError>;

    /// See [`Launcher::watch`].
    ///
    /// # Errors
    /// [`LauncherError::Unknown`] when there is no such sandbox.
    fn watch(&self, id: &str) -> Result<Box<dyn Watch>, LauncherError>;

    /// See [`Launcher::stop`].
    ///
    /// # Errors
    /// [`LauncherError`]: try again.
    fn stop(&self, id: &str, reason: &str) -> Result<(), LauncherError>;

    /// See [`Launcher::remove`].
    ///
    /// # Errors
    /// [`LauncherError`]: try again.
    fn remove(&self, id: &str) -> Result<(), LauncherError>;

    /// The ids of all sandboxes of which something is there.
    ///
    /// # Errors
    /// [`LauncherError`].
    fn list(&self) -> Result<Vec<String>, LauncherError>;

    /// See [`Launcher::shutdown_if_idle`].
    ///
    /// # Errors
    /// [`LauncherError`].
    fn shutdown_if_idle(&self) -> Result<bool, LauncherError>;
}

/// A descriptor that becomes readable with each change of a sandbox's state.
pub trait Watch: AsFd + Send + Sync {
    /// See [`SandboxWatch::acknowledge`].
    fn acknowledge(&self);
}

impl Watch for SandboxWatch {
    fn acknowledge(&self) {
        Self::acknowledge(self);
    }
}

/// A watch as the event loop takes it.
pub(crate) struct Watched(pub(crate) Box<dyn Watch>);

impl AsFd for Watched {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Sandboxes for Launcher {
    fn launch(&self, spec: &SandboxSpec) -> Result<(), LaunchError> {
        Self::launch(self, spec).map(|_| ())
    }

    fn state(&self, id: &str) -> Result<SandboxState, LauncherError> {
        Self::state(self, id)
    }

    fn watch(&self, id: &str) -> Result<Box<dyn Watch>, LauncherError> {
        Ok(Box::new(Self::watch(self, id)?))
    }

    fn stop(&self, id: &str, reason: &str) -> Result<(), LauncherError> {
        Self::stop(self, id, reason)
    }

    fn remove(&self, id: &str) -> Result<(), LauncherError> {
        Self::remove(self, id)
    }

    fn list(&self) -> Result<Vec<String>, LauncherError> {
        Ok(Self::list(self)?.into_iter().map(|found| found.id).collect())
    }

    fn shutdown_if_idle(&self) -> Result<bool, LauncherError> {
        Self::shutdown_if_idle(self)
    }
}
