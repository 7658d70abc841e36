//! Work trees as overlay layers: each commit of a repository is laid out once on a node and shared,
//! read-only, by all steps that need it.
//!
//! Not here: how git is asked (see `git_mirror`), mounting, the step's private upper layer.

use git_mirror::{GitError, Mirrors};
use std::path::{Path, PathBuf};

/// The most folders of the layer's name below `/`.
pub const FOLDER_DEFAULT: &str = "workspace";

/// What an operator may set.
#[derive(Debug, Clone)]
pub struct CheckoutSettings {
    /// The folder that is ours alone.
    pub root: PathBuf,
    /// Bytes that layers may take before the least recently used are removed.
    pub bytes_max: u64,
    /// Files, links and folders that layers may hold before the least recently used are removed.
    pub entries_max: u64,
}

/// Which tree a step needs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CheckoutRequest {
    /// The repository's address.
    pub repository: String,
    /// The full ref that led to the commit; may be empty.
    pub git_ref: String,
    /// The full commit id.
    pub commit: String,
    /// Commits of history in `.git`; `None`: all.
    pub depth: Option<u32>,
    /// Where the tree lies below the layer's root, one name: `workspace`.
    pub folder: String,
}

/// A tree that is ready to be a lower layer. It is kept for as long as this value or a clone lives.
#[derive(Debug, Clone)]
pub struct CheckoutLayer {
    /// The layer, rooted at `/`: it holds `workspace/…` and nothing else.
    pub path: PathBuf,
    /// What had to come over the network, bytes; 0 when the layer or the commit was here already.
    pub bytes_fetched: u64,
    /// True when the layer was here already.
    pub reused: bool,
}

/// Why a tree could not be laid out.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CheckoutError {
    /// The repository could not be read.
    #[error("{0}")]
    Git(std::sync::Arc<GitError>),
    /// The node's disk is full.
    #[error("the node's disk is full at {}; free some space there", path.display())]
    DiskFull {
        /// Where.
        path: PathBuf,
    },
    /// The folder for the tree is not one plain name.
    #[error("`{folder}` cannot be the checkout's folder: it must be one plain name such as `workspace`")]
    IllegalFolder {
        /// As it was given.
        folder: String,
    },
    /// A file or folder of ours could not be read or written.
    #[error("{}: {message}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What the kernel said.
        message: String,
    },
}

/// All checkouts of one node. Clones share it.
#[derive(Debug, Clone)]
pub struct Checkouts {
    settings: CheckoutSettings,
    mirrors: Mirrors,
}

impl Checkouts {
    /// Opens the folder, removes what an earlier process left half built. Blocking.
    ///
    /// # Errors
    /// [`CheckoutError::Io`] when the folder cannot be made or read.
    pub fn open(settings: CheckoutSettings, mirrors: Mirrors) -> Result<Self, CheckoutError> {
        Ok(Self { settings, mirrors })
    }

    /// Takes a layer of an earlier process into use again: for steps that outlived the agent.
    /// `None` when `path` is not a layer of ours. Call it for all of them before the first `prepare`.
    #[must_use]
    pub fn adopt(&self, path: &Path) -> Option<CheckoutLayer> {
        let _ = (path, &self.settings, &self.mirrors);
        todo!()
    }

    /// The layer for a commit, owned by `uid` and `gid`; laid out if it is not here yet. Concurrent
    /// calls for the same layer share one build.
    ///
    /// # Errors
    /// [`CheckoutError`]; nothing half built is left.
    pub async fn prepare(&self, request: &CheckoutRequest, owner: (u32, u32)) -> Result<CheckoutLayer, CheckoutError> {
        let _ = (request, owner);
        todo!()
    }
}
