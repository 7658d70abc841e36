//! Reading: in pieces of bounded size, each of which must be exactly what was asked for.
//!
//! The SDK tries a request again; what it cannot see is an answer whose body breaks off, is shorter
//! than the blob, or of another version of it. Such a piece is fetched again, and given up with an
//! error; it is never passed on. Not here: what is done with the bytes.

use crate::fault::Fault;
use crate::{DIGEST, S3Blobs};
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use futures::stream;
use std::io::{self, ErrorKind};
use std::time::Duration;
use store::blob::BlobReader;
use store::whole::Whole;
use store::{BlobError, BlobName, Digest};
use tokio_util::io::StreamReader;

/// The most bytes of one request: what a stream holds in memory.
pub(crate) const PIECE: u64 = 8 * 1024 * 1024;

/// How often a piece is asked for whose body was not whole.
const ATTEMPTS: u32 = 4;

/// The longest pause before a broken piece is asked for again; it doubles.
const PAUSE: Duration = Duration::from_millis(100);

/// A part of a blob, and what the answer said of the whole.
#[derive(Debug)]
struct Piece {
    bytes: Vec<u8>,
    whole: WholeBlob,
}

/// One version of a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
struct WholeBlob {
    size: u64,
    etag: Option<String>,
    digest: Option<Digest>,
}

impl S3Blobs {
    pub(crate) async fn read_whole(&self, name: &BlobName) -> Result<Vec<u8>, BlobError> {
        let mut attempt = 1;
        loop {
            match self.read_once(name).await {
                // Only here it shows: a blob that is replaced meanwhile, or a body that was altered.
                Err(fault) if attempt < ATTEMPTS && is_torn(&fault) => {
                    tracing::debug!(blob = name.as_str(), fault = fault.text, attempt, "blob read again");
                    pause(attempt).await;
                    attempt += 1;
                }
                read => return read.map_err(|fault| fault.of(name.as_str())),
            }
        }
    }

    async fn read_once(&self, name: &BlobName) -> Result<Vec<u8>, Fault> {
        let first = self.piece(name, 0, PIECE, None).await?;
        let (mut bytes, whole) = (first.bytes, first.whole);
        while (bytes.len() as u64) < whole.size {
            let next = self.piece(name, bytes.len() as u64, PIECE, Some(&whole)).await?;
            bytes.extend_from_slice(&next.bytes);
        }
        match whole.digest {
            Some(stored) if Digest::of(&bytes) != stored => {
                let what = "its bytes do not have the digest that was stored with them";
                Err(self.place.broken(ErrorKind::InvalidData, what))
            }
            _ => Ok(bytes),
        }
    }

    pub(crate) async fn read_range(&self, name: &BlobName, offset: u64, len: u64) -> Result<Vec<u8>, BlobError> {
        let read = async {
            let first = self.piece(name, offset, len.min(PIECE), None).await?;
            let (mut bytes, whole) = (first.bytes, first.whole);
            let wanted = len.min(whole.size.saturating_sub(offset));
            while (bytes.len() as u64) < wanted {
                let have = bytes.len() as u64;
                let next = self.piece(name, offset + have, (wanted - have).min(PIECE), Some(&whole));
                bytes.extend_from_slice(&next.await?.bytes);
            }
            Ok(bytes)
        };
        read.await.map_err(|fault: Fault| fault.of(name.as_str()))
    }

    pub(crate) async fn read_stream(&self, name: &BlobName, offset: u64) -> Result<BlobReader, BlobError> {
        let first = self.piece(name, offset, PIECE, None).await;
        let first = first.map_err(|fault| fault.of(name.as_str()))?;
        let whole = first.whole;
        let length = whole.size.saturating_sub(offset);
        // Of a part of the blob the digest is not known.
        let digest = whole.digest.filter(|_| offset == 0);
        let start = Reading {
            blobs: self.clone(),
            name: name.clone(),
            size: whole.size,
            at: offset + first.bytes.len() as u64,
            whole,
            ready: Some(first.bytes),
        };
        let size = start.size;
        let pieces = stream::try_unfold(start, Reading::next);
        let bytes = StreamReader::new(Box::pin(pieces));
        Ok(BlobReader {
            size,
            bytes: Box::pin(Whole::new(bytes, length, digest)),
        })
    }

    /// Bytes `offset..offset+len`, fewer at the blob's end and only there. With `same` they are of
    /// that version of the blob.
    async fn piece(&self, name: &BlobName, offset: u64, len: u64, same: Option<&WholeBlob>) -> Result<Piece, Fault> {
        let mut attempt = 1;
        loop {
            match self.piece_once(name, offset, len, same).await {
                Err(fault) if attempt < ATTEMPTS && fault.is_cut() => {
                    tracing::debug!(
                        blob = name.as_str(),
                        fault = fault.text,
                        attempt,
                        "piece of a blob read again"
                    );
                    pause(attempt).await;
                    attempt += 1;
                }
                piece => return piece,
            }
        }
    }

    async fn piece_once(
        &self,
        name: &BlobName,
        offset: u64,
        len: u64,
        same: Option<&WholeBlob>,
    ) -> Result<Piece, Fault> {
        if len == 0 || i64::try_from(offset).is_err() {
            return self.nothing_of(name).await;
        }
        let last = offset.saturating_add(len - 1);
        let request = self.client.get_object().bucket(&self.place.bucket).key(self.key(name));
        let answer = request
            .range(format!("bytes={offset}-{last}"))
            .set_if_match(same.and_then(|whole| whole.etag.clone()))
            .send()
            .await;
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => match self.place.fault("it cannot be read", &error) {
                fault if fault.is_beyond() && same.is_none() => return self.nothing_of(name).await,
                fault if fault.is_replaced() => return Err(self.replaced()),
                fault => return Err(fault),
            },
        };
        let whole = WholeBlob {
            size: self.size_of(&answer, offset)?,
            etag: answer.e_tag().map(str::to_owned),
            digest: digest_of(answer.metadata()),
        };
        if same.is_some_and(|before| *before != whole) {
            return Err(self.replaced());
        }
        let wanted = len.min(whole.size.saturating_sub(offset));
        let bytes = self.body_of(answer, wanted).await?;
        Ok(Piece { bytes, whole })
    }

    /// The size of the whole blob.
    fn size_of(&self, answer: &GetObjectOutput, offset: u64) -> Result<u64, Fault> {
        match answer.content_range() {
            Some(range) => {
                let parsed = parse_range(range).filter(|(first, _)| *first == offset);
                let other = || format!("another range came than was asked for: `{range}` from {offset} on");
                parsed
                    .map(|(_, size)| size)
                    .ok_or_else(|| self.place.broken(ErrorKind::InvalidData, &other()))
            }
            // The whole blob came, as stores may answer that know no ranges.
            None if offset == 0 => {
                let size = answer.content_length().and_then(|length| u64::try_from(length).ok());
                size.ok_or_else(|| {
                    self.place
                        .broken(ErrorKind::InvalidData, "the answer does not say its length")
                })
            }
            None => Err(self
                .place
                .broken(ErrorKind::Unsupported, "the object store answers no ranges")),
        }
    }

    /// Just `wanted` bytes of an answer's body.
    async fn body_of(&self, mut answer: GetObjectOutput, wanted: u64) -> Result<Vec<u8>, Fault> {
        let cut = |what: String| self.place.broken(ErrorKind::UnexpectedEof, &what);
        let mut bytes = Vec::with_capacity(usize::try_from(wanted.min(PIECE)).unwrap_or(0));
        let read = async {
            while let Some(part) = answer.body.next().await {
                let part = part.map_err(|e| {
                    cut(format!(
                        "the body broke off after {} bytes: {}",
                        bytes.len(),
                        crate::fault::chain(&e)
                    ))
                })?;
                bytes.extend_from_slice(&part);
                if bytes.len() as u64 >= wanted {
                    break;
                }
            }
            Ok::<_, Fault>(())
        };
        match tokio::time::timeout(self.patience.body, read).await {
            Ok(read) => read?,
            Err(_) => return Err(self.place.broken(ErrorKind::TimedOut, "the body did not come in time")),
        }
        if (bytes.len() as u64) < wanted {
            return Err(cut(format!("{} of {wanted} bytes came", bytes.len())));
        }
        bytes.truncate(usize::try_from(wanted).unwrap_or(usize::MAX));
        Ok(bytes)
    }

    /// Proves that the blob is there.
    async fn nothing_of(&self, name: &BlobName) -> Result<Piece, Fault> {
        let request = self.client.head_object().bucket(&self.place.bucket).key(self.key(name));
        let answer = request
            .send()
            .await
            .map_err(|e| self.place.fault("it cannot be looked up", &e))?;
        let size = answer.content_length().and_then(|length| u64::try_from(length).ok());
        let unsized_ = || {
            self.place
                .broken(ErrorKind::InvalidData, "the answer does not say its length")
        };
        Ok(Piece {
            bytes: Vec::new(),
            whole: WholeBlob {
                size: size.ok_or_else(unsized_)?,
                etag: answer.e_tag().map(str::to_owned),
                digest: digest_of(answer.metadata()),
            },
        })
    }

    fn replaced(&self) -> Fault {
        let what = "the blob was replaced while it was read";
        self.place.broken(ErrorKind::StaleNetworkFileHandle, what)
    }
}

/// Where a stream is.
struct Reading {
    blobs: S3Blobs,
    name: BlobName,
    size: u64,
    at: u64,
    whole: WholeBlob,
    /// The first piece, which came already.
    ready: Option<Vec<u8>>,
}

impl Reading {
    async fn next(mut self) -> io::Result<Option<(io::Cursor<Vec<u8>>, Self)>> {
        if let Some(bytes) = self.ready.take() {
            return Ok(Some((io::Cursor::new(bytes), self)));
        }
        if self.at >= self.size {
            return Ok(None);
        }
        let piece = self.blobs.piece(&self.name, self.at, PIECE, Some(&self.whole)).await;
        let bytes = piece
            .map_err(|fault| io::Error::other(fault.of(self.name.as_str())))?
            .bytes;
        self.at += bytes.len() as u64;
        Ok(Some((io::Cursor::new(bytes), self)))
    }
}

/// Whether reading the whole blob again may help.
fn is_torn(fault: &Fault) -> bool {
    fault.is_replaced() || fault.is_damaged()
}

fn digest_of(metadata: Option<&std::collections::HashMap<String, String>>) -> Option<Digest> {
    metadata?.get(DIGEST)?.parse().ok()
}

/// First byte and whole size of `bytes 5-9/10`.
fn parse_range(text: &str) -> Option<(u64, u64)> {
    let (range, size) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, _last) = range.split_once('-')?;
    Some((first.parse().ok()?, size.parse().ok()?))
}

async fn pause(attempt: u32) {
    let longest = PAUSE * 2_u32.pow(attempt.min(8) - 1);
    let pause = longest.mul_f64(rand::random_range(0.5..1.0));
    tokio::time::sleep(pause).await;
}
