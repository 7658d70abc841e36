//! What can go wrong between a repository and us, each a sentence that says how to mend it.

use crate::address::AddressError;
use std::path::PathBuf;

/// Why a repository could not be read.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// The address is of no kind that is allowed here.
    #[error(transparent)]
    IllegalAddress(#[from] AddressError),
    /// A ref whose name git does not allow.
    #[error("`{name}` is not a legal git ref: {why}")]
    IllegalRef {
        /// As it was given.
        name: String,
        /// The rule that it breaks.
        why: &'static str,
    },
    /// Not a full commit id.
    #[error("`{commit}` is not a commit id: write all 40 (or 64) hexadecimal digits")]
    IllegalCommit {
        /// As it was given.
        commit: String,
    },
    /// A path that cannot be inside a repository.
    #[error("`{path}` is not a path inside a repository: {why}")]
    IllegalPath {
        /// As it was given.
        path: String,
        /// The rule that it breaks.
        why: &'static str,
    },
    /// The repository did not answer, is not there, or refused us.
    #[error(
        "the repository {repository} cannot be read: {said}; check the address, the network and this server's access"
    )]
    Unreachable {
        /// Its address without credentials.
        repository: String,
        /// The last useful line that git wrote.
        said: String,
    },
    /// The repository has no such branch, tag or ref.
    #[error("{repository} has no ref `{git_ref}`; check its name, or push it first")]
    NoSuchRef {
        /// Its address without credentials.
        repository: String,
        /// The full ref.
        git_ref: String,
    },
    /// The repository does not give out such a commit.
    #[error("{repository} has no commit {commit}; push it first, or check that it was not removed by a forced push")]
    NoSuchCommit {
        /// Its address without credentials.
        repository: String,
        /// The full commit id.
        commit: String,
    },
    /// The commit has no such file.
    #[error("there is no file `{path}` at commit {commit}{hint}")]
    NoSuchFile {
        /// The path inside the repository.
        path: String,
        /// The full commit id.
        commit: String,
        /// Empty, or what is there instead.
        hint: String,
    },
    /// A file, a tree or an answer passes its limit.
    #[error("{what} has {found} {unit}; the limit is {limit}: {mend}")]
    TooLarge {
        /// What passes the limit.
        what: String,
        /// How much was found; for a tree: at least.
        found: u64,
        /// Bytes or entries.
        unit: &'static str,
        /// The limit.
        limit: u64,
        /// What to do.
        mend: &'static str,
    },
    /// git was ended because it took too long.
    #[error("{doing} {repository} took longer than {seconds} s and was ended; try again, or raise git's time-out")]
    TimedOut {
        /// What git was doing.
        doing: &'static str,
        /// Its address without credentials.
        repository: String,
        /// The limit, seconds.
        seconds: u64,
    },
    /// No space left where mirrors or work trees are kept.
    #[error("the disk is full at {}; free some space there", path.display())]
    DiskFull {
        /// Where.
        path: PathBuf,
    },
    /// Another process keeps its mirrors in this folder.
    #[error("{} is used by another process; give each its own folder", path.display())]
    RootInUse {
        /// The folder.
        path: PathBuf,
    },
    /// The `git` program is not there or too old.
    #[error("the program `{program}` cannot be used: {why}; install git 2.36 or newer")]
    NoGit {
        /// What was started.
        program: PathBuf,
        /// What happened.
        why: String,
    },
    /// git failed in a way that has no name here.
    #[error("git failed while {doing} {repository}: {said}")]
    Failed {
        /// What git was doing.
        doing: &'static str,
        /// Its address without credentials.
        repository: String,
        /// The last useful line that it wrote.
        said: String,
    },
    /// A file or folder of ours could not be read or written.
    #[error("{}: {cause}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What the kernel said.
        cause: std::io::Error,
    },
}

impl GitError {
    /// True when the same call may well succeed a little later without anybody changing anything.
    #[must_use]
    pub fn retry(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::TimedOut { .. })
    }

    pub(crate) fn io(path: impl Into<PathBuf>, cause: std::io::Error) -> Self {
        let path = path.into();
        if matches!(
            cause.kind(),
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded
        ) {
            return Self::DiskFull { path };
        }
        Self::Io { path, cause }
    }
}
