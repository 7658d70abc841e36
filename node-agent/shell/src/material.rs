//! What a step is built on: the layers of its image and of its checkout.
//!
//! Not here: how they come about ([`crate::images`], [`crate::checkout`]).

use crate::checkout::{CheckoutError, CheckoutRequest, Checkouts};
use crate::images::{ImageConfig, ImageError, Images};
use async_trait::async_trait;
use git_mirror::GitError;
use model::StartFailure;
use std::any::Any;
use std::path::PathBuf;

/// Keeps layers in the node's store for as long as it lives.
pub type Keep = Box<dyn Any + Send + Sync>;

/// An image that is ready.
pub struct Ground {
    /// Overlay layers, the topmost first.
    pub lowers: Vec<PathBuf>,
    /// What the image says about how it is to be run.
    pub config: ImageConfig,
    /// What had to be fetched, bytes.
    pub bytes: u64,
    /// Holds the layers.
    pub keep: Keep,
}

/// A checkout that is ready.
pub struct Tree {
    /// An overlay layer that holds `workspace/…`.
    pub lower: PathBuf,
    /// What had to be fetched, bytes.
    pub bytes: u64,
    /// Holds the layer.
    pub keep: Keep,
}

/// Why material is not to be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaterialFailure {
    /// The kind of it.
    pub cause: StartFailure,
    /// What went wrong and how to mend it.
    pub message: String,
    /// The next try would fail the same way, here and elsewhere.
    pub lasting: bool,
}

/// Where material comes from. Methods may be called concurrently; dropping a future gives up.
#[async_trait]
pub trait Material: Send + Sync + 'static {
    /// An image by its reference.
    ///
    /// # Errors
    /// [`MaterialFailure`].
    async fn image(&self, reference: &str) -> Result<Ground, MaterialFailure>;

    /// A tree, owned by user and group `owner`.
    ///
    /// # Errors
    /// [`MaterialFailure`].
    async fn tree(&self, request: &CheckoutRequest, owner: (u32, u32)) -> Result<Tree, MaterialFailure>;

    /// Layers that a step of an earlier process still uses: nothing may remove them while what is
    /// returned lives. Called before anything else. Blocking.
    fn adopt(&self, lowers: &[PathBuf]) -> Keep;
}

/// The node's own stores.
pub(crate) struct Stores {
    pub(crate) images: Images,
    pub(crate) checkouts: Checkouts,
}

#[async_trait]
impl Material for Stores {
    async fn image(&self, reference: &str) -> Result<Ground, MaterialFailure> {
        let image = self.images.ensure(reference).await.map_err(|e| image_failure(&e))?;
        Ok(Ground {
            lowers: image.lowers.clone(),
            config: image.config.clone(),
            bytes: image.bytes_fetched,
            keep: Box::new(image),
        })
    }

    async fn tree(&self, request: &CheckoutRequest, owner: (u32, u32)) -> Result<Tree, MaterialFailure> {
        let layer = self.checkouts.prepare(request, owner).await;
        let layer = layer.map_err(|e| checkout_failure(&e))?;
        Ok(Tree {
            lower: layer.path.clone(),
            bytes: layer.bytes_fetched,
            keep: Box::new(layer),
        })
    }

    fn adopt(&self, lowers: &[PathBuf]) -> Keep {
        let images = self.images.adopt(lowers);
        let trees: Vec<_> = lowers.iter().filter_map(|lower| self.checkouts.adopt(lower)).collect();
        Box::new((images, trees))
    }
}

fn image_failure(e: &ImageError) -> MaterialFailure {
    let cause = match e {
        ImageError::DiskFull { .. } => StartFailure::Disk,
        _ => StartFailure::Image,
    };
    MaterialFailure {
        cause,
        message: e.to_string(),
        lasting: image_stays_away(e),
    }
}

/// Whether nothing but another image, name or setting helps.
fn image_stays_away(e: &ImageError) -> bool {
    match e {
        ImageError::IllegalReference { .. }
        | ImageError::NotFound { .. }
        // Registries say so of names that do not exist as well.
        | ImageError::Unauthorised { .. }
        | ImageError::DigestMismatch { .. }
        | ImageError::Hostile { .. }
        | ImageError::TooLarge { .. }
        | ImageError::Malformed { .. }
        | ImageError::NoPlatform { .. } => true,
        ImageError::Unreachable { .. } | ImageError::DiskFull { .. } | ImageError::Io { .. } => false,
    }
}

fn checkout_failure(e: &CheckoutError) -> MaterialFailure {
    let (cause, lasting) = match e {
        CheckoutError::DiskFull { .. } => (StartFailure::Disk, false),
        CheckoutError::Git(e) if is_disk_full(e) => (StartFailure::Disk, false),
        CheckoutError::Git(e) => (StartFailure::Checkout, commit_stays_away(e)),
        CheckoutError::IllegalFolder { .. } => (StartFailure::Checkout, true),
        CheckoutError::Io { .. } => (StartFailure::Checkout, false),
    };
    MaterialFailure {
        cause,
        message: e.to_string(),
        lasting,
    }
}

/// Whether nothing but a push or another address, ref or limit helps.
fn commit_stays_away(e: &GitError) -> bool {
    match e {
        GitError::IllegalAddress(_)
        | GitError::IllegalRef { .. }
        | GitError::IllegalCommit { .. }
        | GitError::IllegalPath { .. }
        | GitError::NoSuchRef { .. }
        | GitError::NoSuchCommit { .. }
        | GitError::NoSuchFile { .. }
        | GitError::TooLarge { .. } => true,
        GitError::Unreachable { .. }
        | GitError::TimedOut { .. }
        | GitError::DiskFull { .. }
        | GitError::RootInUse { .. }
        | GitError::NoGit { .. }
        | GitError::Failed { .. }
        | GitError::Io { .. } => false,
    }
}

fn is_disk_full(e: &GitError) -> bool {
    matches!(e, GitError::DiskFull { .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_would_fail_again_is_lasting() {
        let image = || "registry.example/app:1".to_owned();
        let why = || "404".to_owned();
        let lasting = [
            ImageError::IllegalReference {
                reference: image(),
                why: why(),
            },
            ImageError::NotFound {
                image: image(),
                why: why(),
            },
            ImageError::DigestMismatch {
                image: image(),
                what: "the manifest".to_owned(),
                expected: "sha256:1".to_owned(),
                found: "sha256:2".to_owned(),
            },
            ImageError::Malformed {
                image: image(),
                why: why(),
            },
        ];
        let passing = [
            ImageError::Unreachable {
                image: image(),
                why: "503".to_owned(),
            },
            ImageError::DiskFull {
                image: image(),
                path: PathBuf::from("/x"),
            },
            ImageError::Io {
                path: PathBuf::from("/x"),
                why: "EIO".to_owned(),
            },
        ];
        for (errors, expected) in [(&lasting[..], true), (&passing[..], false)] {
            for error in errors {
                assert_eq!(image_failure(error).lasting, expected, "{error}");
            }
        }
        assert_eq!(image_failure(&passing[1]).cause, StartFailure::Disk);
        let commit = GitError::NoSuchCommit {
            repository: image(),
            commit: "0".repeat(40),
        };
        let away = GitError::Unreachable {
            repository: image(),
            said: "refused".to_owned(),
        };
        let full = GitError::DiskFull {
            path: PathBuf::from("/x"),
        };
        for (error, cause, expected) in [
            (commit, StartFailure::Checkout, true),
            (away, StartFailure::Checkout, false),
            (full, StartFailure::Disk, false),
        ] {
            let failure = checkout_failure(&CheckoutError::Git(std::sync::Arc::new(error)));
            assert_eq!(
                (failure.cause, failure.lasting),
                (cause, expected),
                "{}",
                failure.message
            );
        }
    }
}
