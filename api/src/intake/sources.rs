//! What intake asks of repositories, as a trait, so that tests can let it fail at will.
//!
//! Not here: how it is done (`git_mirror`).

use async_trait::async_trait;
use git_mirror::{GitError, Mirrors, RefSpec, Resolved};

/// Reads repositories. Every method may be called concurrently and changes nothing but what is
/// kept of a repository on this machine.
#[async_trait]
pub trait Sources: Send + Sync + 'static {
    /// Refuses an address that could never be read, without touching the repository.
    fn check_address(&self, repository: &str) -> Result<(), GitError>;

    /// What `wanted` is at this moment.
    async fn resolve(&self, repository: &str, wanted: &RefSpec) -> Result<Resolved, GitError>;

    /// The message and author of a commit, fetched if need be; `git_ref` says where to look first.
    async fn commit(&self, repository: &str, git_ref: &str, commit: &str) -> Result<Resolved, GitError>;

    /// A file at a commit that [`Sources::commit`] has found.
    async fn read_file(
        &self,
        repository: &str,
        commit: &str,
        path: &str,
        max_bytes: usize,
    ) -> Result<Vec<u8>, GitError>;

    /// The name of the branch that the repository calls its default.
    async fn default_branch(&self, repository: &str) -> Result<String, GitError>;

    /// The files that differ between two commits; `None` when that cannot be told.
    async fn changed_files(&self, repository: &str, before: &str, after: &str)
    -> Result<Option<Vec<String>>, GitError>;
}

#[async_trait]
impl Sources for Mirrors {
    fn check_address(&self, repository: &str) -> Result<(), GitError> {
        Mirrors::check_address(self, repository).map(|_| ())
    }

    async fn resolve(&self, repository: &str, wanted: &RefSpec) -> Result<Resolved, GitError> {
        Mirrors::resolve(self, repository, wanted).await
    }

    async fn commit(&self, repository: &str, git_ref: &str, commit: &str) -> Result<Resolved, GitError> {
        self.ensure_commit(repository, git_ref, commit).await?;
        self.describe(repository, git_ref, commit).await
    }

    async fn read_file(
        &self,
        repository: &str,
        commit: &str,
        path: &str,
        max_bytes: usize,
    ) -> Result<Vec<u8>, GitError> {
        Mirrors::read_file(self, repository, commit, path, max_bytes).await
    }

    async fn default_branch(&self, repository: &str) -> Result<String, GitError> {
        Mirrors::default_branch(self, repository).await
    }

    async fn changed_files(
        &self,
        repository: &str,
        before: &str,
        after: &str,
    ) -> Result<Option<Vec<String>>, GitError> {
        Mirrors::changed_files(self, repository, before, after).await
    }
}
