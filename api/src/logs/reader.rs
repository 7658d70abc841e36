//! One reader's way through a log: from blobs where it is behind, from memory where it is live.
//!
//! A reader keeps its own offset and takes shared bytes, so none is ever lost to a slow one and
//! none is copied for a fast one. Not here: whether a log has ended; `feed` knows that.

use super::Cover;
use super::hub::{Inner, LogError, OpenLog};
use api_core::logs::LogId;
use axum::body::Bytes;
use std::sync::Arc;
use std::time::Duration;
use store::BlobError;
use tokio::sync::watch;

/// The most bytes that a reader takes at once: two thousand readers of old logs hold 128 MiB.
pub(super) const PIECE_MAX: u64 = 64 * 1024;

/// How old a listing may be that shows nothing more: another server may have stored more since.
const LISTING_AGE: Duration = Duration::from_millis(500);

/// How often one call looks for the next bytes: between two looks a log may end, or its blobs be
/// merged; each happens once.
const LOOKS_MAX: usize = 4;

/// How often a reader looks among the blobs for bytes that no node sends to this server.
const POLL: Duration = Duration::from_secs(1);

/// A reader of one attempt's log.
pub struct LogReader {
    hub: Arc<Inner>,
    log: Arc<OpenLog>,
    changed: watch::Receiver<u64>,
    at: u64,
    cover: Option<Arc<Cover>>,
    piece: u64,
}

impl LogReader {
    pub(super) fn new(hub: Arc<Inner>, log: Arc<OpenLog>, at: u64) -> Self {
        hub.metrics.readers.inc();
        Self {
            changed: log.subscribe(),
            hub,
            log,
            at,
            cover: None,
            piece: PIECE_MAX,
        }
    }

    /// The same, with at most `bytes` at once: fewer requests of an object store for one who reads
    /// the whole log through.
    pub(super) fn in_pieces_of(mut self, bytes: u64) -> Self {
        self.piece = bytes;
        self
    }

    /// Which log.
    #[must_use]
    pub fn id(&self) -> &LogId {
        self.log.id()
    }

    /// The offset of the next byte.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.at
    }

    /// How many bytes the log has so far.
    ///
    /// # Errors
    /// [`LogError::Blobs`].
    pub async fn length(&self) -> Result<u64, LogError> {
        let live = self.log.live_len();
        match live {
            Some(len) => Ok(len),
            None => Ok(self.list(Duration::ZERO).await?.len()),
        }
    }

    /// The next bytes; `None` when there are none at the moment ([`LogReader::changed`] waits).
    ///
    /// # Errors
    /// [`LogError::Blobs`]; reading again later may succeed.
    pub async fn next(&mut self) -> Result<Option<Bytes>, LogError> {
        self.changed.borrow_and_update();
        for _ in 0..LOOKS_MAX {
            match self.log.live(self.at, self.piece) {
                Some(Some(piece)) => return Ok(Some(self.step(piece))),
                Some(None) => return Ok(None),
                None => {}
            }
            let gone = match self.read_blob().await? {
                Read::Piece(piece) => return Ok(Some(self.step(piece))),
                Read::Gone => true,
                Read::Beyond => false,
            };
            let must_be_there = gone || self.log.live_len().is_some_and(|len| len > self.at);
            let cover = self
                .list(if must_be_there { Duration::ZERO } else { LISTING_AGE })
                .await?;
            let found = cover.find(self.at).is_some();
            self.cover = Some(cover);
            if !found && !must_be_there {
                return Ok(None);
            }
        }
        Ok(None)
    }

    /// Waits until there may be more: at once when something came since the last
    /// [`LogReader::next`], and after a second in any case, for the node's stream may be another
    /// server's.
    pub async fn changed(&mut self) {
        // The sender lives in `self.log`, so an error cannot be.
        let _ = tokio::time::timeout(POLL, self.changed.changed()).await;
    }

    fn step(&mut self, piece: Bytes) -> Bytes {
        self.at += piece.len() as u64;
        piece
    }

    async fn list(&self, age: Duration) -> Result<Arc<Cover>, BlobError> {
        self.log.cover(self.hub.blobs.as_ref(), age).await
    }

    async fn read_blob(&self) -> Result<Read, BlobError> {
        let Some(segment) = self.cover.as_ref().and_then(|c| c.find(self.at)) else {
            return Ok(Read::Beyond);
        };
        let within = self.at - segment.at;
        let len = (segment.len - within).min(self.piece);
        match self
            .hub
            .blobs
            .get_range(&segment.blob, segment.skip + within, len)
            .await
        {
            Ok(bytes) if !bytes.is_empty() => Ok(Read::Piece(Bytes::from(bytes))),
            // Merged into another blob since it was listed.
            Ok(_) | Err(BlobError::NotFound(_)) => Ok(Read::Gone),
            Err(error) => Err(error),
        }
    }
}

enum Read {
    Piece(Bytes),
    /// The listing does not reach so far.
    Beyond,
    /// The blob of the listing is not there any more.
    Gone,
}

impl Drop for LogReader {
    fn drop(&mut self) {
        self.log.unsubscribe();
        self.hub.metrics.readers.dec();
    }
}
