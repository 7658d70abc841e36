//! A bare mirror for each repository address, kept by the `git` program: what a ref points at,
//! a file at a commit, a whole tree with its history, fetched once and only when it is missing.
//!
//! Not here: pipelines, runs, teams, caching of the trees that are exported, and any trust in what
//! a repository contains. No hook, filter, submodule or configuration of a repository is ever run
//! or read; every process has a time-out, a bound on its output and an environment of our own.

mod address;
mod error;
mod settings;

pub use address::{Address, AddressError};
pub use error::GitError;
pub use settings::{GitSettings, HostKeys, SshSettings};

use std::path::{Path, PathBuf};

/// What to look up in a repository.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RefSpec {
    /// The newest commit of a branch, named without `refs/heads/`.
    Branch(String),
    /// The commit of a tag, named without `refs/tags/`.
    Tag(String),
    /// A ref by its whole name, e.g. `refs/heads/main`.
    FullRef(String),
    /// A commit by its whole id, 40 or 64 hexadecimal digits.
    Commit(String),
    /// The newest commit of whatever branch the repository calls its default.
    DefaultBranch,
}

/// A commit, and the ref that led to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The full ref; empty when a commit was asked for by its id.
    pub git_ref: String,
    /// The full commit id.
    pub commit: String,
    /// First line of the commit's message, at most [`MESSAGE_MAX`] bytes.
    pub message: String,
    /// The author as `Name <mail>`, at most [`AUTHOR_MAX`] bytes.
    pub author: String,
}

/// The most bytes of a commit's first line that are kept: a list shows one line.
pub const MESSAGE_MAX: usize = 512;
/// The most bytes of an author that are kept.
pub const AUTHOR_MAX: usize = 256;

/// What [`Mirrors::ensure_commit`] had to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ensured {
    /// False when the commit was there already.
    pub fetched: bool,
    /// Growth of the mirror on disk, bytes.
    pub bytes_fetched: u64,
}

/// A tree to lay out in a folder.
#[derive(Debug, Clone)]
pub struct Export<'a> {
    /// The repository's address.
    pub repository: &'a str,
    /// The full ref that HEAD is to name when it is a branch; may be empty.
    pub git_ref: &'a str,
    /// The full commit id.
    pub commit: &'a str,
    /// Commits of history in `.git`; `None`: all, and the tags that point into it.
    pub depth: Option<u32>,
    /// An empty or absent folder; becomes the work tree.
    pub into: &'a Path,
    /// Owner of everything in it: uid and gid.
    pub owner: (u32, u32),
}

/// What [`Mirrors::export`] made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Exported {
    /// Growth of the mirror because of it, bytes.
    pub bytes_fetched: u64,
    /// Files, links and folders in the tree.
    pub entries: u64,
    /// Bytes of the files of the tree, without `.git`.
    pub bytes: u64,
}

/// All mirrors of one folder. Clones share it.
#[derive(Debug, Clone)]
pub struct Mirrors {
    root: PathBuf,
    settings: GitSettings,
}

impl Mirrors {
    /// Opens the folder of mirrors, making it if it is not there. One process at a time may have it.
    ///
    /// # Errors
    /// [`GitError::RootInUse`] when another process has it, [`GitError::Io`] when it cannot be made.
    pub fn new(root: impl Into<PathBuf>, settings: GitSettings) -> Result<Self, GitError> {
        Ok(Self {
            root: root.into(),
            settings,
        })
    }

    /// Checks an address without touching the repository, for use when a pipeline is registered.
    ///
    /// # Errors
    /// [`GitError::IllegalAddress`] with the reason and what to write instead.
    pub fn check_address(&self, repository: &str) -> Result<(), GitError> {
        Address::parse(repository, self.settings.allow_file)?;
        Ok(())
    }

    /// Asks the repository what `wanted` is now and makes that commit present.
    ///
    /// # Errors
    /// [`GitError::NoSuchRef`], [`GitError::NoSuchCommit`], [`GitError::Unreachable`] and the like.
    pub async fn resolve(&self, repository: &str, wanted: &RefSpec) -> Result<Resolved, GitError> {
        let _ = (repository, wanted, &self.root);
        todo!()
    }

    /// Makes `commit` present; costs no process and no network when it is there already.
    /// `git_ref` is where it most likely is to be found; may be empty.
    ///
    /// # Errors
    /// [`GitError::NoSuchCommit`], [`GitError::Unreachable`] and the like.
    pub async fn ensure_commit(&self, repository: &str, git_ref: &str, commit: &str) -> Result<Ensured, GitError> {
        let _ = (repository, git_ref, commit);
        todo!()
    }

    /// The message and author of a commit that is present (see [`Mirrors::ensure_commit`]).
    ///
    /// # Errors
    /// [`GitError::NoSuchCommit`] when it is not present.
    pub async fn describe(&self, repository: &str, git_ref: &str, commit: &str) -> Result<Resolved, GitError> {
        let _ = (repository, git_ref, commit);
        todo!()
    }

    /// A file's bytes at a commit that is present (see [`Mirrors::ensure_commit`]).
    /// Links inside the repository are followed.
    ///
    /// # Errors
    /// [`GitError::NoSuchFile`], [`GitError::TooLarge`] above `max_bytes`, [`GitError::NoSuchCommit`].
    pub async fn read_file(
        &self,
        repository: &str,
        commit: &str,
        path: &str,
        max_bytes: usize,
    ) -> Result<Vec<u8>, GitError> {
        let _ = (repository, commit, path, max_bytes);
        todo!()
    }

    /// Lays out a commit's tree with a working `.git`, fetching what is missing.
    ///
    /// # Errors
    /// As [`Mirrors::ensure_commit`], and [`GitError::TooLarge`], [`GitError::DiskFull`]. What was
    /// begun in `into` is then left for the caller to remove.
    pub async fn export(&self, export: &Export<'_>) -> Result<Exported, GitError> {
        let _ = export;
        todo!()
    }
}
