//! Bytes on their way in and out, with an end for every peer that dawdles.
//!
//! Not here: which bytes.

use super::STALL;
use axum::body::{Body, Bytes};
use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};
use std::io::{self, ErrorKind};
use std::time::Duration;
use store::BlobName;
use tokio::io::AsyncReadExt as _;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::io::StreamReader;

/// The slowest that a transfer may be in the mean, bytes a second: 5 GB pass in six hours.
const SLOWEST: u64 = 256 * 1024;

/// How much is read at once, bytes.
const PIECE: usize = 128 * 1024;

/// Pieces that wait for the peer.
const AHEAD: usize = 2;

/// How much of the body of a refused request is read, bytes, so that the peer reads the refusal
/// before it notices that nobody listens.
const DRAINED: usize = 1024 * 1024;

/// How long that may take.
const DRAIN_TIME: Duration = Duration::from_secs(2);

/// The longest that a transfer of so many bytes may take.
pub(super) fn longest(bytes: u64) -> Duration {
    STALL + Duration::from_secs(bytes / SLOWEST)
}

/// `length` bytes of a blob as an answer's body. The file and the permit are let go when the peer
/// does not take them in time.
pub(super) fn body(name: BlobName, bytes: store::blob::Bytes, length: u64, permit: OwnedSemaphorePermit) -> Body {
    let (sender, receiver) = mpsc::channel(AHEAD);
    tokio::spawn(async move {
        let _held_until_the_end = permit;
        if tokio::time::timeout(longest(length), send(bytes.take(length), &sender)).await != Ok(Ok(())) {
            tracing::debug!(blob = name.as_str(), "blob not read to its end");
        }
    });
    Body::from_stream(ReceiverStream::new(receiver))
}

/// The peer is gone, or takes nothing.
#[derive(Debug, PartialEq, Eq)]
struct GivenUp;

async fn send(
    mut bytes: tokio::io::Take<store::blob::Bytes>,
    sender: &mpsc::Sender<io::Result<Bytes>>,
) -> Result<(), GivenUp> {
    loop {
        let mut piece = Vec::with_capacity(PIECE);
        let read = bytes.read_buf(&mut piece).await;
        let missing = bytes.limit() > 0;
        let piece = match read {
            Ok(0) if missing => Err(ErrorKind::UnexpectedEof.into()),
            Ok(0) => return Ok(()),
            Ok(_) => Ok(Bytes::from(piece)),
            Err(error) => Err(error),
        };
        let broken = piece.is_err();
        let sent = tokio::time::timeout(STALL, sender.send(piece)).await;
        if broken || !matches!(sent, Ok(Ok(()))) {
            return Err(GivenUp);
        }
    }
}

/// A request's body as a source of bytes; one that stands still is an error.
pub(super) fn reader(body: Body) -> store::blob::Bytes {
    Box::pin(StreamReader::new(Box::pin(moving(body))))
}

fn moving(body: Body) -> impl Stream<Item = io::Result<Bytes>> + Send {
    let pieces = body.into_data_stream().map_err(io::Error::other);
    stream::try_unfold(pieces, |mut pieces| async move {
        match tokio::time::timeout(STALL, pieces.next()).await {
            Ok(Some(piece)) => piece.map(|piece| Some((piece, pieces))),
            Ok(None) => Ok(None),
            Err(_elapsed) => Err(ErrorKind::TimedOut.into()),
        }
    })
}

/// Reads what a refused peer still sends, for a moment.
pub(super) async fn drain(body: Body) {
    let mut pieces = body.into_data_stream();
    let drained = async {
        let mut read = 0;
        while let Some(Ok(piece)) = pieces.next().await {
            read += piece.len();
            if read > DRAINED {
                break;
            }
        }
    };
    // Whether or not it came to an end, the refusal is what counts.
    drop(tokio::time::timeout(DRAIN_TIME, drained).await);
}
