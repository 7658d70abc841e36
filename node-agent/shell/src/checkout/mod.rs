//! Work trees as overlay layers: each commit of a repository is laid out once on a node and shared,
//! read-only, by all steps that need it.
//!
//! Not here: how git is asked (crate `git-mirror`), mounting, the step's private upper layer.

#[cfg(test)]
mod tests;

use crate::images::shelf::{Lasting, Lease, Shelf, ShelfSettings, Size, measure};
use git_mirror::{Export, GitError, Mirrors};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The folder of a tree below its layer's root, and so below `/` of a step.
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

impl CheckoutSettings {
    /// 20 GiB and five million entries below `root`.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            bytes_max: 20 << 30,
            entries_max: 5_000_000,
        }
    }
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
    /// Where the tree lies below the layer's root, one name, as a rule [`FOLDER_DEFAULT`].
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
    _lease: Lease,
}

/// Why a tree could not be laid out. Cheap to clone: callers that waited for the same build all get it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CheckoutError {
    /// The repository could not be read.
    #[error("{0}")]
    Git(Arc<GitError>),
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
    #[error("{}: {why}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What the kernel said.
        why: String,
    },
}

impl CheckoutError {
    /// True when the same call may well succeed a little later without anybody changing anything.
    #[must_use]
    pub fn retry(&self) -> bool {
        matches!(self, Self::Git(cause) if cause.retry())
    }

    fn io(path: &Path, cause: &std::io::Error) -> Self {
        match cause.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                Self::DiskFull { path: path.to_owned() }
            }
            _ => Self::Io {
                path: path.to_owned(),
                why: cause.to_string(),
            },
        }
    }
}

impl From<GitError> for CheckoutError {
    fn from(error: GitError) -> Self {
        match error {
            GitError::DiskFull { path } => Self::DiskFull { path },
            other => Self::Git(Arc::new(other)),
        }
    }
}

/// All checkouts of one node. Clones share it.
#[derive(Debug, Clone)]
pub struct Checkouts {
    shelf: Arc<Shelf>,
    mirrors: Mirrors,
}

impl Checkouts {
    /// Opens the folder, removes what an earlier process left half built. Blocking.
    ///
    /// # Errors
    /// [`CheckoutError::Io`] when the folder cannot be made or read.
    pub fn open(settings: CheckoutSettings, mirrors: Mirrors) -> Result<Self, CheckoutError> {
        let root = settings.root.clone();
        let shelf = Shelf::open(ShelfSettings {
            root: settings.root,
            bytes_max: settings.bytes_max,
            entries_max: settings.entries_max,
            lasting: Lasting::ThisBoot,
        });
        Ok(Self {
            shelf: Arc::new(shelf.map_err(|e| CheckoutError::io(&root, &e))?),
            mirrors,
        })
    }

    /// Takes a layer of an earlier process into use again: for steps that outlived the agent.
    /// `None` when `path` is not a layer of ours. Call it for all of them before the first `prepare`.
    #[must_use]
    pub fn adopt(&self, path: &Path) -> Option<CheckoutLayer> {
        let key = self.shelf.key_of(path)?;
        Some(CheckoutLayer {
            path: path.to_owned(),
            bytes_fetched: 0,
            reused: true,
            _lease: self.shelf.lease(&key)?,
        })
    }

    /// The layer for a commit, its files owned by `owner` (uid, gid); laid out if it is not here
    /// yet. Concurrent calls for the same layer share one build.
    ///
    /// # Errors
    /// [`CheckoutError`]; nothing half built is left.
    pub async fn prepare(&self, request: &CheckoutRequest, owner: (u32, u32)) -> Result<CheckoutLayer, CheckoutError> {
        check_folder(&request.folder)?;
        let key = key(request, owner);
        if let Some(lease) = self.shelf.lease(&key) {
            return Ok(self.layer(&key, lease, 0, true));
        }
        let _building = self.shelf.build_lock(&key).await;
        if let Some(lease) = self.shelf.lease(&key) {
            return Ok(self.layer(&key, lease, 0, true));
        }
        let (lease, bytes_fetched) = self.build(&key, request, owner).await?;
        self.shelf.trim().await;
        Ok(self.layer(&key, lease, bytes_fetched, false))
    }

    fn layer(&self, key: &str, lease: Lease, bytes_fetched: u64, reused: bool) -> CheckoutLayer {
        CheckoutLayer {
            path: self.shelf.path(key),
            bytes_fetched,
            reused,
            _lease: lease,
        }
    }

    async fn build(
        &self,
        key: &str,
        request: &CheckoutRequest,
        owner: (u32, u32),
    ) -> Result<(Lease, u64), CheckoutError> {
        let failed = |e: std::io::Error| CheckoutError::io(self.shelf.root(), &e);
        let draft = self.shelf.draft().map_err(failed)?;
        let into = draft.path().join(&request.folder);
        std::fs::create_dir(&into).map_err(|e| CheckoutError::io(&into, &e))?;
        let made = self
            .mirrors
            .export(&Export {
                repository: &request.repository,
                git_ref: &request.git_ref,
                commit: &request.commit,
                depth: request.depth,
                into: &into,
                owner,
            })
            .await?;
        let git = measure(&into.join(".git"));
        let size = Size {
            bytes: git.bytes + made.bytes,
            entries: git.entries + made.entries,
        };
        let lease = self.shelf.put(key, draft, size).map_err(failed)?;
        tracing::info!(
            commit = request.commit,
            entries = made.entries,
            bytes = made.bytes,
            bytes_fetched = made.bytes_fetched,
            "checkout laid out"
        );
        Ok((lease, made.bytes_fetched))
    }
}

fn check_folder(folder: &str) -> Result<(), CheckoutError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let legal =
        !folder.is_empty() && folder.len() <= 64 && !folder.starts_with(['.', '-']) && folder.chars().all(plain);
    if legal {
        return Ok(());
    }
    Err(CheckoutError::IllegalFolder {
        folder: folder.chars().take(100).collect(),
    })
}

/// The layer's name: everything that makes its contents what they are.
fn key(request: &CheckoutRequest, owner: (u32, u32)) -> String {
    let mut hash = Sha256::new();
    let depth = request
        .depth
        .map_or_else(|| "all".to_owned(), |depth| depth.to_string());
    let (uid, gid) = (owner.0.to_string(), owner.1.to_string());
    let parts = [
        request.repository.as_str(),
        &request.git_ref,
        &request.commit.to_ascii_lowercase(),
        &depth,
        &request.folder,
        &uid,
        &gid,
    ];
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hex::encode(hash.finalize())
}
