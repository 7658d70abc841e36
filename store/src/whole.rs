//! A reader that never takes a part of a blob for the whole.
//!
//! Not here: where the bytes come from.

use crate::blob::Digest;
use sha2::{Digest as _, Sha256};
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncReadExt as _, ReadBuf, Take};

/// Passes on just so many bytes. An early end is an error; bytes with another digest are an error
/// in place of the last of them.
pub struct Whole<R> {
    inner: Take<R>,
    digest: Option<(Sha256, Digest)>,
}

impl<R: AsyncRead + Unpin> Whole<R> {
    /// Expects `length` bytes, with this digest if one is given.
    pub fn new(inner: R, length: u64, digest: Option<Digest>) -> Self {
        Self {
            inner: inner.take(length),
            digest: digest.map(|digest| (Sha256::new(), digest)),
        }
    }

    /// What stands against the bytes that just came.
    fn fault(&mut self, came: &[u8]) -> Option<io::Error> {
        if let Some((so_far, _)) = &mut self.digest {
            so_far.update(came);
        }
        let missing = self.inner.limit();
        if came.is_empty() && missing > 0 {
            let text = format!("the blob ended {missing} bytes early");
            return Some(io::Error::new(ErrorKind::UnexpectedEof, text));
        }
        if missing > 0 {
            return None;
        }
        let (so_far, expected) = self.digest.take()?;
        let found = Digest(so_far.finalize().into());
        (found != expected).then(|| {
            let text = format!("the blob has SHA-256 {found}, stored was {expected}");
            io::Error::new(ErrorKind::InvalidData, text)
        })
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Whole<R> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        match Pin::new(&mut this.inner).poll_read(cx, buf) {
            Poll::Ready(Ok(())) => match this.fault(&buf.filled()[before..]) {
                Some(fault) => {
                    buf.set_filled(before);
                    Poll::Ready(Err(fault))
                }
                None => Poll::Ready(Ok(())),
            },
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(bytes: &[u8], length: u64, digest: Option<Digest>) -> (Vec<u8>, Option<ErrorKind>) {
        let mut came = Vec::new();
        let result = Whole::new(bytes, length, digest).read_to_end(&mut came).await;
        (came, result.err().map(|e| e.kind()))
    }

    #[tokio::test]
    async fn a_part_is_never_taken_for_the_whole() {
        let hello = Some(Digest::of(b"hello"));
        assert_eq!(read(b"hello", 5, None).await, (b"hello".to_vec(), None));
        assert_eq!(read(b"hello", 5, hello).await, (b"hello".to_vec(), None));
        assert_eq!(read(b"", 0, Some(Digest::of(b""))).await, (Vec::new(), None));
        let (came, error) = read(b"hell", 5, hello).await;
        assert_eq!((came.as_slice(), error), (&b"hell"[..], Some(ErrorKind::UnexpectedEof)));
        // The bytes came at once, so none of them is passed on.
        assert_eq!(
            read(b"jello", 5, hello).await,
            (Vec::new(), Some(ErrorKind::InvalidData))
        );
        assert_eq!(read(b"", 0, hello).await, (Vec::new(), Some(ErrorKind::InvalidData)));
    }
}
