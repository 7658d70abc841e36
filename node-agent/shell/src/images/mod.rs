//! Images as overlay layers: fetched from a registry or read from an OCI layout, verified while
//! they stream, unpacked once into the node's store, and shared read-only by all steps.
//!
//! Not here: mounting, users by name (the sandbox reads the image's own `passwd`), running.

mod document;
mod error;
mod fetch;
mod layout;
mod reference;
mod registry;
mod settings;
pub(crate) mod shelf;
mod tarball;
#[cfg(test)]
mod tests;
mod tree;
mod unpack;

pub use error::ImageError;
pub use settings::{BYTES_MAX, Credentials, ImageSettings, LAYER_BYTES_MAX, Platform};

use crate::images::document::{Descriptor, Document, Manifest};
use crate::images::fetch::{Origin, Repository};
use crate::images::layout::{Layout, Stamp};
use crate::images::reference::Reference;
use crate::images::registry::Registries;
use crate::images::shelf::{Lasting, Lease, Shelf, ShelfSettings};
use futures::future::try_join_all;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tokio::sync::Semaphore;

/// How many images' documents are remembered, so that a warm `ensure` reads none of them.
const REMEMBERED_MAX: usize = 1_024;
/// Layers that are fetched and unpacked at once on a node: each takes a core and a stream.
const UNPACKS_AT_ONCE: usize = 4;
/// How deep indexes may name indexes.
const INDEX_DEPTH_MAX: usize = 3;
/// Images may hold this many entries in all before the least recently used are removed: inodes are
/// a budget of their own on ext4.
const ENTRIES_MAX: u64 = 20_000_000;

/// An image that can be mounted. Its layers are kept for as long as this value or a clone lives.
#[derive(Debug, Clone)]
pub struct ReadyImage {
    /// Folders to be used as overlay lower layers, the topmost first. Whiteouts are char devices
    /// 0:0, opaque folders carry `trusted.overlay.opaque`. Never the same folder twice.
    pub lowers: Vec<PathBuf>,
    /// What the image says about how it is to be run.
    pub config: ImageConfig,
    /// Digest of the image's manifest, `sha256:…`.
    pub digest: String,
    /// What had to be fetched or read for it, compressed bytes; 0 when everything was here.
    pub bytes_fetched: u64,
    /// Keeps the layers.
    pub lease: LayerLease,
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

/// Keeps layers from being removed for as long as it or a clone lives.
#[derive(Debug, Clone, Default)]
pub struct LayerLease {
    _leases: Vec<Lease>,
}

/// All images of one node. Clones share it.
#[derive(Debug, Clone)]
pub struct Images {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    settings: ImageSettings,
    shelf: Arc<Shelf>,
    registries: Registries,
    unpacks: Semaphore,
    remembered: Mutex<Remembered>,
}

/// Documents that were verified.
#[derive(Debug, Default)]
struct Remembered {
    /// By the digest of a manifest or of an index that leads to it.
    images: HashMap<String, Arc<Image>>,
    /// By what the user wrote and the state of the layout.
    layouts: HashMap<String, (Stamp, Arc<Image>)>,
}

/// An image as its documents describe it.
#[derive(Debug)]
struct Image {
    digest: String,
    config: ImageConfig,
    /// Lowest first, each with the digest of its contents.
    layers: Vec<(Descriptor, String)>,
}

impl Images {
    /// Opens the store, removes what an earlier process left half unpacked. Blocking.
    ///
    /// # Errors
    /// [`ImageError::Io`] when the folder cannot be made or read.
    pub fn open(settings: ImageSettings) -> Result<Self, ImageError> {
        let shelf = Shelf::open(ShelfSettings {
            root: settings.root.clone(),
            bytes_max: settings.bytes_max,
            entries_max: ENTRIES_MAX,
            lasting: Lasting::AcrossBoots,
        });
        let shelf = shelf.map_err(|e| ImageError::io("", &settings.root, &e))?;
        Ok(Self {
            shared: Arc::new(Shared {
                shelf: Arc::new(shelf),
                registries: Registries::new()?,
                unpacks: Semaphore::new(UNPACKS_AT_ONCE),
                remembered: Mutex::default(),
                settings,
            }),
        })
    }

    /// Takes layers of an earlier process into use again: for steps that outlived the agent. Paths
    /// that are not layers of ours are left out. Call it for all of them before the first `ensure`.
    #[must_use]
    pub fn adopt(&self, lowers: &[PathBuf]) -> LayerLease {
        let shelf = &self.shared.shelf;
        let keys = lowers.iter().filter_map(|path| shelf.key_of(path));
        LayerLease {
            _leases: keys.filter_map(|key| shelf.lease(&key)).collect(),
        }
    }

    /// The image behind `reference`, fetched and unpacked if it is not here. A tag is looked up
    /// again every time. Concurrent calls for the same layer share one fetch.
    ///
    /// # Errors
    /// [`ImageError`], each a plain sentence; nothing half unpacked is left.
    pub async fn ensure(&self, reference: &str) -> Result<ReadyImage, ImageError> {
        match reference::parse(reference)? {
            Reference::Layout(text) => self.layout_image(reference, &text).await,
            Reference::Registry(parsed) => self.registry_image(reference, parsed).await,
        }
    }

    /// The store's own folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        self.shared.shelf.root()
    }

    async fn layout_image(&self, written: &str, text: &str) -> Result<ReadyImage, ImageError> {
        let settings = &self.shared.settings;
        let (path, tag) = layout::find(text, &settings.layout_dirs)?;
        let stamp = layout::stamp(&path).map_err(|e| ImageError::NotFound {
            image: written.to_owned(),
            why: format!("{} is not an OCI image layout: {e}", path.display()),
        })?;
        if let Some(ready) = self
            .remembered_layout(written, &stamp)
            .and_then(|image| self.at_hand(&image))
        {
            return Ok(ready);
        }
        let name = written.to_owned();
        let opened = tokio::task::spawn_blocking(move || {
            let layout = Layout::open(&name, &path)?;
            let index = layout.index(&name)?;
            Ok((layout, index))
        });
        let (layout, index) = opened.await.unwrap_or_else(|e| Err(broken(written, &e)))?;
        let origin = Origin::Layout(Arc::new(layout));
        let manifests = match document::parse(written, &index)? {
            Document::Index(manifests) => manifests,
            Document::Manifest(_) => return Err(malformed(written, "its index.json is a manifest")),
        };
        let chosen = document::choose(written, manifests, tag.as_deref(), &settings.platform)?;
        let image = self.describe(written, &origin, &chosen.digest).await?;
        self.remember(|known| {
            known.layouts.insert(written.to_owned(), (stamp, image.clone()));
        });
        self.assemble(written, &origin, &image).await
    }

    fn remembered_layout(&self, written: &str, stamp: &Stamp) -> Option<Arc<Image>> {
        let remembered = self.remembered();
        let (at, image) = remembered.layouts.get(written)?;
        (at == stamp).then(|| image.clone())
    }

    /// Adds to what is known, throwing it all away when it is too much.
    fn remember(&self, add: impl FnOnce(&mut Remembered)) {
        let mut remembered = self.remembered();
        if remembered.layouts.len().max(remembered.images.len()) >= REMEMBERED_MAX {
            *remembered = Remembered::default();
        }
        add(&mut remembered);
    }

    async fn registry_image(&self, written: &str, reference: oci_client::Reference) -> Result<ReadyImage, ImageError> {
        let repository = Repository {
            reference,
            written: written.to_owned(),
            shared: self.shared.clone(),
        };
        let (at, reference) = (repository.at(), &repository.reference);
        let origin = Origin::Registry(repository.clone());
        let digest = match reference.digest() {
            Some(digest) => Some(digest.to_owned()),
            None => self.shared.registries.digest(&at).await?,
        };
        if let Some(digest) = &digest {
            document::check_digest(written, digest)?;
            let known = self.remembered().images.get(digest).cloned();
            if let Some(image) = known {
                return self.assemble(written, &origin, &image).await;
            }
        }
        let digest = match digest {
            Some(digest) => digest,
            // Some registries tell a tag's digest only by handing out the document.
            None => {
                let tag = reference.tag().unwrap_or("latest");
                document::digest_of(&self.shared.registries.manifest(&at, tag).await?)
            }
        };
        let image = self.describe(written, &origin, &digest).await?;
        self.remember(|known| {
            known.images.insert(digest, image.clone());
        });
        self.assemble(written, &origin, &image).await
    }

    /// Reads the documents from a manifest or index down, each verified against its digest.
    async fn describe(&self, image: &str, origin: &Origin, digest: &str) -> Result<Arc<Image>, ImageError> {
        let mut digest = digest.to_owned();
        for _ in 0..INDEX_DEPTH_MAX {
            let bytes = origin.manifest(image, &digest).await?;
            document::verify(image, "the manifest", &digest, &bytes)?;
            match document::parse(image, &bytes)? {
                Document::Index(manifests) => {
                    digest = document::pick(image, &manifests, &self.shared.settings.platform)?
                        .digest
                        .clone();
                }
                Document::Manifest(manifest) => return self.configure(image, origin, digest, &manifest).await,
            }
        }
        Err(malformed(image, "its indexes name one another too deeply"))
    }

    async fn configure(
        &self,
        image: &str,
        origin: &Origin,
        digest: String,
        manifest: &Manifest,
    ) -> Result<Arc<Image>, ImageError> {
        let bytes = origin.small_blob(image, &manifest.config.digest).await?;
        document::verify(image, "the configuration", &manifest.config.digest, &bytes)?;
        let (config, layers) = document::parse_config(image, &bytes, manifest, &self.shared.settings.platform)?;
        let runtime = config.config.unwrap_or_default();
        Ok(Arc::new(Image {
            digest,
            config: ImageConfig {
                env: runtime.env.unwrap_or_default(),
                user: runtime.user.unwrap_or_default(),
                working_dir: runtime.working_dir.unwrap_or_default(),
            },
            layers,
        }))
    }

    /// The image if all its layers are here.
    fn at_hand(&self, image: &Image) -> Option<ReadyImage> {
        let shelf = &self.shared.shelf;
        let leases: Option<Vec<Lease>> = image.keys().map(|key| shelf.lease(key)).collect();
        Some(self.ready(image, leases?, 0))
    }

    /// Takes every layer into use, fetching those that are not here, several at a time.
    async fn assemble(&self, written: &str, origin: &Origin, image: &Image) -> Result<ReadyImage, ImageError> {
        if let Some(ready) = self.at_hand(image) {
            return Ok(ready);
        }
        let mut seen = HashSet::new();
        let wanted = image.layers.iter().filter(|(_, diff_id)| seen.insert(diff_id.as_str()));
        let fetched = wanted.map(|(layer, diff_id)| self.shared.layer(written, origin, layer, diff_id));
        let fetched = try_join_all(fetched).await?;
        let bytes = fetched.iter().map(|(_, bytes)| bytes).sum();
        let leases = fetched.into_iter().map(|(lease, _)| lease).collect();
        let ready = self.ready(image, leases, bytes);
        if bytes > 0 {
            self.shared.shelf.trim().await;
            tracing::info!(image = written, digest = image.digest, bytes, "image unpacked");
        }
        Ok(ready)
    }

    fn ready(&self, image: &Image, leases: Vec<Lease>, bytes_fetched: u64) -> ReadyImage {
        let (mut lowers, mut seen) = (Vec::new(), HashSet::new());
        for key in image.keys().collect::<Vec<_>>().into_iter().rev() {
            // Overlay refuses the same folder twice; what a lower copy shows, the upper shows too.
            if !seen.insert(key) {
                continue;
            }
            let path = self.shared.shelf.path(key);
            let hides_all_below = rustix::fs::lgetxattr(&path, tree::OPAQUE, &mut [0u8; 1][..]).is_ok();
            lowers.push(path);
            if hides_all_below {
                // Overlay merges the roots of all layers whatever they carry.
                break;
            }
        }
        ReadyImage {
            lowers,
            config: image.config.clone(),
            digest: image.digest.clone(),
            bytes_fetched,
            lease: LayerLease { _leases: leases },
        }
    }

    fn remembered(&self) -> std::sync::MutexGuard<'_, Remembered> {
        self.shared.remembered.lock().expect("no panic while it is held")
    }
}

impl Image {
    /// The layers' names in the store, lowest first.
    fn keys(&self) -> impl Iterator<Item = &str> {
        self.layers
            .iter()
            .map(|(_, diff_id)| diff_id.strip_prefix("sha256:").unwrap_or(diff_id))
    }
}

fn malformed(image: &str, why: &str) -> ImageError {
    ImageError::Malformed {
        image: image.to_owned(),
        why: why.to_owned(),
    }
}

fn broken(image: &str, cause: &dyn std::fmt::Display) -> ImageError {
    ImageError::Io {
        path: PathBuf::new(),
        why: format!("preparing {image}: {cause}"),
    }
}
