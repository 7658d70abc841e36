//! A bare mirror for each repository address, kept by the `git` program: what a ref points at,
//! a file at a commit, a whole tree with its history, fetched once and only when it is missing.
//!
//! Not here: pipelines, runs, teams, caching of the trees that are exported, and any trust in what
//! a repository contains. No hook, filter, submodule or configuration of a repository is ever run
//! or read; every process has a time-out, a bound on its output and an environment of our own.

mod address;
mod changes;
mod commit;
mod complaint;
mod error;
mod export;
mod mirror;
mod name;
mod process;
mod reader;
mod settings;

pub use address::{Address, AddressError};
pub use changes::CHANGED_FILES_MAX;
pub use error::GitError;
pub use settings::{GitSettings, HostKeys, SshSettings};

use crate::mirror::{Mirror, keep};
use crate::process::Git;
use crate::reader::Found;
use sha2::{Digest, Sha256};
use std::collections::{HashMap, VecDeque};
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

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

/// Repositories for which a process waits to be asked; beyond it the one unused for longest ends.
const READERS_MAX: usize = 32;
/// How long a process that was ended may take to let go of its folder.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);
/// A commit's author and first line stand in its first bytes.
const COMMIT_HEAD_MAX: u64 = 64 * 1024;

/// All mirrors of one folder. Clones share it.
#[derive(Debug, Clone)]
pub struct Mirrors {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    root: PathBuf,
    git: Arc<Git>,
    mirrors: Mutex<HashMap<String, Arc<Mirror>>>,
    /// Those that may have a process waiting, the latest used last.
    warm: Mutex<VecDeque<String>>,
    _lock: File,
}

impl Mirrors {
    /// Opens the folder of mirrors, making it if it is not there. One process at a time may have
    /// it. Blocking, but quick.
    ///
    /// # Errors
    /// [`GitError::RootInUse`] when another process has it, [`GitError::Io`] when it cannot be made.
    pub fn new(root: impl Into<PathBuf>, settings: GitSettings) -> Result<Self, GitError> {
        let root = root.into();
        let io = |e| GitError::io(&root, e);
        std::fs::create_dir_all(root.join("mirrors")).map_err(io)?;
        let root = root.canonicalize().map_err(io)?;
        let lock = File::create(root.join("lock")).map_err(|e| GitError::io(&root, e))?;
        take(&lock).map_err(|_| GitError::RootInUse { path: root.clone() })?;
        let trash = root.join("temporary");
        if trash.exists() {
            std::fs::remove_dir_all(&trash).map_err(|e| GitError::io(&trash, e))?;
        }
        std::fs::create_dir_all(&trash).map_err(|e| GitError::io(&trash, e))?;
        let git = Arc::new(Git::new(&root, settings)?);
        Ok(Self {
            shared: Arc::new(Shared {
                root,
                git,
                mirrors: Mutex::default(),
                warm: Mutex::default(),
                _lock: lock,
            }),
        })
    }

    /// Checks an address without touching the repository, for use when a pipeline is registered.
    ///
    /// # Errors
    /// [`GitError::IllegalAddress`] with the reason and what to write instead.
    pub fn check_address(&self, repository: &str) -> Result<Address, GitError> {
        Ok(Address::parse(repository, self.shared.git.settings.allow_file)?)
    }

    /// Asks the repository what `wanted` is now and makes that commit present. Calls for the same
    /// ref at the same time share one fetch; a commit that is here already costs none.
    ///
    /// # Errors
    /// [`GitError::NoSuchRef`], [`GitError::NoSuchCommit`], [`GitError::Unreachable`] and the like.
    pub async fn resolve(&self, repository: &str, wanted: &RefSpec) -> Result<Resolved, GitError> {
        let mirror = self.mirror(repository)?;
        let git_ref = match wanted {
            RefSpec::Branch(branch) => format!("refs/heads/{branch}"),
            RefSpec::Tag(tag) => format!("refs/tags/{tag}"),
            RefSpec::FullRef(name) => name.clone(),
            RefSpec::DefaultBranch => default_branch(&mirror).await?,
            RefSpec::Commit(commit) => {
                self.ensure_commit(repository, "", commit).await?;
                return self.describe(repository, "", commit).await;
            }
        };
        name::check_ref(&git_ref)?;
        mirror.refresh(&keep(&git_ref)).await?;
        let kept = format!("{}^{{commit}}", name::kept_ref(&git_ref));
        let found = match mirror.info(&kept).await? {
            Found::Missing => {
                // Fetched and yet not readable: the mirror says it has what it has not.
                mirror.heal().await?;
                mirror.refresh(&keep(&git_ref)).await?;
                mirror.info(&kept).await?
            }
            found => found,
        };
        match found {
            Found::Object { id, .. } => self.describe(repository, &git_ref, &id).await,
            Found::Missing | Found::StrayLink => Err(GitError::NoSuchCommit {
                repository: mirror.address.shown().to_owned(),
                commit: git_ref,
            }),
        }
    }

    /// Makes `commit` present; costs no process and no network when it is there already.
    /// `git_ref` is where it most likely is to be found; may be empty.
    ///
    /// # Errors
    /// [`GitError::NoSuchCommit`], [`GitError::Unreachable`] and the like.
    pub async fn ensure_commit(&self, repository: &str, git_ref: &str, commit: &str) -> Result<Ensured, GitError> {
        let mirror = self.mirror(repository)?;
        let commit = name::check_commit(commit)?;
        if !git_ref.is_empty() {
            name::check_ref(git_ref)?;
        }
        let bytes = mirror.ensure(git_ref, &commit).await?;
        Ok(Ensured {
            fetched: bytes.is_some(),
            bytes_fetched: bytes.unwrap_or(0),
        })
    }

    /// The message and author of a commit that is present (see [`Mirrors::ensure_commit`]);
    /// `git_ref` is handed back as it is.
    ///
    /// # Errors
    /// [`GitError::NoSuchCommit`] when it is not present.
    pub async fn describe(&self, repository: &str, git_ref: &str, commit: &str) -> Result<Resolved, GitError> {
        let mirror = self.mirror(repository)?;
        let commit = name::check_commit(commit)?;
        match mirror.info(&commit).await? {
            Found::Object { kind, .. } if kind == "commit" => {}
            _ => return Err(no_such_commit(&mirror, &commit)),
        }
        let (_, head) = mirror.contents(&commit, COMMIT_HEAD_MAX).await?;
        let parsed = commit::parse(&head, AUTHOR_MAX, MESSAGE_MAX);
        Ok(Resolved {
            git_ref: git_ref.to_owned(),
            commit,
            message: parsed.message,
            author: parsed.author,
        })
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
        let mirror = self.mirror(repository)?;
        let commit = name::check_commit(commit)?;
        name::check_path(path)?;
        let no_such_file = |hint: &str| GitError::NoSuchFile {
            path: path.to_owned(),
            commit: commit.clone(),
            hint: hint.to_owned(),
        };
        let object = format!("{commit}:{path}");
        match mirror.info(&object).await? {
            Found::Object { kind, size, .. } if kind == "blob" && size > max_bytes as u64 => Err(GitError::TooLarge {
                what: format!("the file `{path}` at commit {commit}"),
                found: size,
                unit: "bytes",
                limit: max_bytes as u64,
                mend: "make it smaller",
            }),
            Found::Object { kind, .. } if kind == "blob" => Ok(mirror.contents(&object, max_bytes as u64).await?.1),
            Found::Object { .. } => Err(no_such_file(": it is a folder or a submodule")),
            Found::StrayLink => Err(no_such_file(": it is a link that leads nowhere inside the repository")),
            Found::Missing if mirror.has(&commit).await? => Err(no_such_file("")),
            Found::Missing => Err(no_such_commit(&mirror, &commit)),
        }
    }

    /// The name of the branch that the repository calls its default, as it is now.
    ///
    /// # Errors
    /// [`GitError::Unreachable`] and the like; [`GitError::NoSuchRef`] when it names none.
    pub async fn default_branch(&self, repository: &str) -> Result<String, GitError> {
        let full = default_branch(&*self.mirror(repository)?).await?;
        Ok(full.strip_prefix("refs/heads/").unwrap_or(&full).to_owned())
    }

    /// The files that differ between two commits, fetching them if need be; `None` when they are more
    /// than [`CHANGED_FILES_MAX`], or cannot be told.
    ///
    /// # Errors
    /// [`GitError::NoSuchCommit`], [`GitError::Unreachable`] and the like.
    pub async fn changed_files(
        &self,
        repository: &str,
        before: &str,
        after: &str,
    ) -> Result<Option<Vec<String>>, GitError> {
        let mirror = self.mirror(repository)?;
        let (before, after) = (name::check_commit(before)?, name::check_commit(after)?);
        mirror.ensure("", &before).await?;
        mirror.ensure("", &after).await?;
        changes::changed(&mirror, &before, &after).await
    }

    /// Lays out a commit's tree with a working `.git`, fetching what is missing. It is not seen
    /// safe on the disk: after a loss of power it may be damaged and must not be used any more.
    ///
    /// # Errors
    /// As [`Mirrors::ensure_commit`], and [`GitError::TooLarge`], [`GitError::DiskFull`]. What was
    /// begun in `into` is then left for the caller to remove.
    pub async fn export(&self, order: &Export<'_>) -> Result<Exported, GitError> {
        let ensured = self
            .ensure_commit(order.repository, order.git_ref, order.commit)
            .await?;
        let mirror = self.mirror(order.repository)?;
        let commit = name::check_commit(order.commit)?;
        if order.depth.is_none() {
            mirror.refresh("+refs/tags/*:refs/tags/*").await?;
        }
        let made = match export::export(&mirror, order, &commit).await {
            Err(GitError::Failed { said, .. }) => {
                // Something that the commit needs cannot be read: make the mirror anew, once.
                tracing::warn!(
                    repository = mirror.address.shown(),
                    error = said,
                    "checkout failed, mirror made anew"
                );
                empty(order.into)?;
                mirror.heal().await?;
                self.ensure_commit(order.repository, order.git_ref, &commit).await?;
                if order.depth.is_none() {
                    mirror.refresh("+refs/tags/*:refs/tags/*").await?;
                }
                export::export(&mirror, order, &commit).await?
            }
            other => other?,
        };
        Ok(Exported {
            bytes_fetched: ensured.bytes_fetched,
            ..made
        })
    }

    fn mirror(&self, repository: &str) -> Result<Arc<Mirror>, GitError> {
        let address = self.check_address(repository)?;
        let key = hex::encode(Sha256::digest(address.url()));
        self.keep_warm(&key);
        let mut mirrors = self.shared.mirrors.lock().expect("no panic while it is held");
        let mirror = mirrors.entry(key).or_insert_with_key(|key| {
            let dir = self.shared.root.join("mirrors").join(key);
            let trash = self.shared.root.join("temporary");
            Arc::new(Mirror::new(address, dir, trash, self.shared.git.clone()))
        });
        Ok(mirror.clone())
    }

    /// Notes the use of a mirror and ends the waiting process of the one that was unused longest.
    fn keep_warm(&self, key: &str) {
        let mut warm = self.shared.warm.lock().expect("no panic while it is held");
        if warm.back().is_some_and(|last| last == key) {
            return;
        }
        warm.retain(|other| other != key);
        warm.push_back(key.to_owned());
        let cold = (warm.len() > READERS_MAX).then(|| warm.pop_front()).flatten();
        drop(warm);
        let mirrors = self.shared.mirrors.lock().expect("no panic while it is held");
        if let Some(mirror) = cold.and_then(|key| mirrors.get(&key)) {
            mirror.close_reader();
        }
    }
}

/// Takes the lock, waiting a moment for a process that is just ending.
fn take(lock: &File) -> Result<(), TryLockError> {
    let patient_until = Instant::now() + LOCK_PATIENCE;
    loop {
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) if Instant::now() < patient_until => {
                std::thread::sleep(Duration::from_millis(10));
            }
            other => return other,
        }
    }
}

/// What HEAD of the repository points at.
async fn default_branch(mirror: &Mirror) -> Result<String, GitError> {
    let listed = mirror.ls_remote("HEAD").await?;
    let head = listed
        .lines()
        .find_map(|line| line.strip_prefix("ref: ")?.strip_suffix("\tHEAD"));
    head.map(str::to_owned).ok_or_else(|| GitError::NoSuchRef {
        repository: mirror.address.shown().to_owned(),
        git_ref: "HEAD".to_owned(),
    })
}

fn no_such_commit(mirror: &Mirror, commit: &str) -> GitError {
    GitError::NoSuchCommit {
        repository: mirror.address.shown().to_owned(),
        commit: commit.to_owned(),
    }
}

fn empty(folder: &Path) -> Result<(), GitError> {
    std::fs::remove_dir_all(folder)
        .and_then(|()| std::fs::create_dir(folder))
        .map_err(|e| GitError::io(folder, e))
}
