//! Images as overlay layers: fetched from a registry or read from an OCI layout, verified while
//! they stream, unpacked once into the node's store, and shared read-only by all steps.
//!
//! Not here: mounting, users by name (the sandbox reads the image's own `passwd`), running.

mod error;
mod settings;
pub(crate) mod shelf;

pub use error::ImageError;
pub use settings::{Credentials, ImageSettings, Platform};

use std::path::{Path, PathBuf};

/// An image that can be mounted. Its layers are kept for as long as this value or a clone lives.
#[derive(Debug, Clone)]
pub struct ReadyImage {
    /// Folders to be used as overlay lower layers, the topmost first. Whiteouts are char devices
    /// 0:0, opaque folders carry `trusted.overlay.opaque`.
    pub lowers: Vec<PathBuf>,
    /// What the image says about how it is to be run.
    pub config: ImageConfig,
    /// Digest of the image's manifest, `sha256:…`.
    pub digest: String,
    /// What had to be fetched or read for it, compressed bytes; 0 when everything was here.
    pub bytes_fetched: u64,
}

/// What an image says about how it is to be run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImageConfig {
    /// `NAME=value`, in the image's order.
    pub env: Vec<String>,
    /// `user`, `uid`, `user:group` or `uid:gid`; empty: root.
    pub user: String,
    /// Absolute; empty: `/`.
    pub working_dir: String,
}

/// All images of one node. Clones share it.
#[derive(Debug, Clone)]
pub struct Images {
    settings: ImageSettings,
}

impl Images {
    /// Opens the store, removes what an earlier process left half unpacked. Blocking.
    ///
    /// # Errors
    /// [`ImageError::Io`] when the folder cannot be made or read.
    pub fn open(settings: ImageSettings) -> Result<Self, ImageError> {
        Ok(Self { settings })
    }

    /// Takes layers of an earlier process into use again: for steps that outlived the agent. Paths
    /// that are not layers of ours are left out. Call it for all of them before the first `ensure`.
    #[must_use]
    pub fn adopt(&self, lowers: &[PathBuf]) -> LayerLease {
        let _ = (lowers, &self.settings);
        todo!()
    }

    /// The image behind `reference`, fetched and unpacked if it is not here. A tag is looked up
    /// again every time. Concurrent calls for the same layer share one fetch.
    ///
    /// # Errors
    /// [`ImageError`], each a plain sentence; nothing half unpacked is left.
    pub async fn ensure(&self, reference: &str) -> Result<ReadyImage, ImageError> {
        let _ = reference;
        todo!()
    }

    /// The store's own folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.settings.root
    }
}

/// Keeps layers from being removed for as long as it or a clone lives.
#[derive(Debug, Clone)]
pub struct LayerLease {}
