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
    }
}

fn checkout_failure(e: &CheckoutError) -> MaterialFailure {
    let cause = match e {
        CheckoutError::DiskFull { .. } => StartFailure::Disk,
        CheckoutError::Git(e) if is_disk_full(e) => StartFailure::Disk,
        CheckoutError::Git(_) | CheckoutError::IllegalFolder { .. } | CheckoutError::Io { .. } => {
            StartFailure::Checkout
        }
    };
    MaterialFailure {
        cause,
        message: e.to_string(),
    }
}

fn is_disk_full(e: &GitError) -> bool {
    matches!(e, GitError::DiskFull { .. })
}
