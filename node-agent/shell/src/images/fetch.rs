//! Brings one layer from where it is into the store: one fetch for all who wait for it, begun anew
//! when the registry breaks off, unpacked while it arrives.

use crate::images::document::{self, Descriptor};
use crate::images::error::ImageError;
use crate::images::layout::Layout;
use crate::images::registry::{At, BLOB_TRIES, chain, pause};
use crate::images::shelf::Lease;
use crate::images::unpack::{Expected, Source, unpack};
use crate::images::{Shared, broken};
use std::io::{self, Read};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Pieces of a blob that wait to be unpacked: enough to ride out a slow write, some MiB at most.
const PIECES_AHEAD: usize = 64;

/// Where an image's documents and layers come from.
#[derive(Debug, Clone)]
pub(crate) enum Origin {
    Layout(Arc<Layout>),
    Registry(Repository),
}

/// A registry's repository.
#[derive(Debug, Clone)]
pub(crate) struct Repository {
    pub(crate) reference: oci_client::Reference,
    /// As the user wrote it.
    pub(crate) written: String,
    pub(crate) shared: Arc<Shared>,
}

impl Repository {
    pub(crate) fn at(&self) -> At<'_> {
        At {
            reference: &self.reference,
            settings: &self.shared.settings,
            written: &self.written,
        }
    }
}

impl Origin {
    /// A manifest or index, not verified.
    pub(crate) async fn manifest(&self, image: &str, digest: &str) -> Result<Vec<u8>, ImageError> {
        match self {
            Self::Layout(_) => self.small_blob(image, digest).await,
            Self::Registry(at) => at.shared.registries.manifest(&at.at(), digest).await,
        }
    }

    /// A small blob, not verified.
    pub(crate) async fn small_blob(&self, image: &str, digest: &str) -> Result<Vec<u8>, ImageError> {
        match self {
            Self::Layout(layout) => {
                let hex = document::check_digest(image, digest)?.to_owned();
                let (layout, name) = (layout.clone(), image.to_owned());
                let answer = tokio::task::spawn_blocking(move || layout.small_blob(&name, &hex)).await;
                answer.unwrap_or_else(|e| Err(broken(image, &e)))
            }
            Self::Registry(at) => at.shared.registries.small_blob(&at.at(), digest).await,
        }
    }
}

impl Shared {
    /// Takes a layer into use, fetching it if it is not here. Returns how many bytes were fetched.
    pub(crate) async fn layer(
        self: &Arc<Self>,
        image: &str,
        origin: &Origin,
        layer: &Descriptor,
        diff_id: &str,
    ) -> Result<(Lease, u64), ImageError> {
        let key = document::check_digest(image, diff_id)?;
        if let Some(lease) = self.shelf.lease(key) {
            return Ok((lease, 0));
        }
        let _building = self.shelf.build_lock(key).await;
        if let Some(lease) = self.shelf.lease(key) {
            return Ok((lease, 0));
        }
        let _turn = self.unpacks.acquire().await.map_err(|e| broken(image, &e))?;
        let expected = Expected {
            digest: layer.digest.clone(),
            size: layer.size,
            diff_id: diff_id.to_owned(),
            bytes_max: self.settings.layer_bytes_max,
        };
        let lease = match origin {
            Origin::Layout(layout) => {
                let hex = document::check_digest(image, &layer.digest)?;
                self.unpack_from(image, layout.blob(image, hex)?, &expected, key)
                    .await?
            }
            Origin::Registry(at) => self.download(image, at, &expected, key).await?,
        };
        Ok((lease, layer.size))
    }

    async fn download(
        self: &Arc<Self>,
        image: &str,
        from: &Repository,
        expected: &Expected,
        key: &str,
    ) -> Result<Lease, ImageError> {
        let mut attempt = 0;
        loop {
            let result = self.download_once(image, from, expected, key).await;
            attempt += 1;
            match result {
                Err(error) if error.retry() && attempt < BLOB_TRIES => {
                    tracing::debug!(image, attempt, %error, "layer broke off");
                    pause(attempt, None).await;
                }
                result => return result,
            }
        }
    }

    async fn download_once(
        self: &Arc<Self>,
        image: &str,
        from: &Repository,
        expected: &Expected,
        key: &str,
    ) -> Result<Lease, ImageError> {
        let at = from.at();
        let mut answer = self.registries.blob(&at, &expected.digest).await?;
        let (send, receive) = mpsc::channel(PIECES_AHEAD);
        let pump = async move {
            let mut left = expected.size.saturating_add(1);
            while left > 0 {
                let piece = match answer.chunk().await {
                    Ok(Some(piece)) => Ok(piece.to_vec()),
                    Ok(None) => return,
                    Err(e) => Err(at.unreachable(chain(&e))),
                };
                left = left.saturating_sub(piece.as_ref().map_or(u64::MAX, |piece| piece.len() as u64));
                if send.send(piece).await.is_err() {
                    return;
                }
            }
        };
        let source = Pieces {
            receive,
            current: io::Cursor::default(),
            failure: None,
        };
        let (lease, ()) = tokio::join!(self.unpack_from(image, source, expected, key), pump);
        lease
    }

    async fn unpack_from(
        self: &Arc<Self>,
        image: &str,
        mut source: impl Source + Send + 'static,
        expected: &Expected,
        key: &str,
    ) -> Result<Lease, ImageError> {
        let (shared, name, expected, key) = (self.clone(), image.to_owned(), expected.clone(), key.to_owned());
        let work = move || {
            let failed = |e: io::Error| ImageError::io(&name, shared.shelf.root(), &e);
            let draft = shared.shelf.draft().map_err(failed)?;
            let size = unpack(&name, &mut source, &expected, draft.path())?;
            shared.shelf.put(&key, draft, size).map_err(failed)
        };
        let done = tokio::task::spawn_blocking(work).await;
        done.unwrap_or_else(|e| Err(broken(image, &e)))
    }
}

/// A blob as it arrives from a registry.
struct Pieces {
    receive: mpsc::Receiver<Result<Vec<u8>, ImageError>>,
    current: io::Cursor<Vec<u8>>,
    failure: Option<ImageError>,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let n = self.current.read(buffer)?;
            if n > 0 || buffer.is_empty() {
                return Ok(n);
            }
            match self.receive.blocking_recv() {
                Some(Ok(piece)) => self.current = io::Cursor::new(piece),
                Some(Err(failure)) => {
                    self.failure = Some(failure);
                    return Err(io::ErrorKind::ConnectionAborted.into());
                }
                None => return Ok(0),
            }
        }
    }
}

impl Source for Pieces {
    fn failure(&mut self) -> Option<ImageError> {
        self.failure.take()
    }
}
