//! From a layer's compressed bytes to a verified folder, in one pass: digest, decompression,
//! second digest and layout all work on the stream as it arrives.

use crate::images::error::ImageError;
use crate::images::shelf::Size;
use crate::images::tree::{self, Fault};
use sha2::{Digest as _, Sha256};
use std::io::{self, Cursor, Read};
use std::path::Path;

/// The window that a zstd stream may ask for, as a power of two: 128 MiB.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// What a layer must turn out to be.
#[derive(Debug, Clone)]
pub(crate) struct Expected {
    /// Digest and length of the bytes that are fetched.
    pub(crate) digest: String,
    pub(crate) size: u64,
    /// Digest of the tar inside.
    pub(crate) diff_id: String,
    /// The most bytes that the tar may have.
    pub(crate) bytes_max: u64,
}

/// Bytes that arrive from somewhere; after a failed read, why it failed.
pub(crate) trait Source: Read {
    /// Why the source broke off, if it did.
    fn failure(&mut self) -> Option<ImageError>;
}

/// Lays out a layer in `into`. Nothing in there may be used unless this returns Ok.
pub(crate) fn unpack(
    image: &str,
    source: &mut dyn Source,
    expected: &Expected,
    into: &Path,
) -> Result<Size, ImageError> {
    let mut packed = Metered::new(&mut *source, expected.size);
    let laid_out = lay_out(&mut packed, expected, into);
    if let Err(Fault::Io(e)) = &laid_out
        && disk_full(e)
    {
        return Err(ImageError::DiskFull {
            image: image.to_owned(),
            path: into.to_owned(),
        });
    }
    // Whatever went wrong with the contents: if they are not what the image names, that is why.
    let drained = io::copy(&mut packed, &mut io::sink());
    let (found, count, overlong) = packed.finish();
    if let Some(failure) = source.failure() {
        return Err(failure);
    }
    drained.map_err(|e| malformed(image, &e.to_string()))?;
    let mismatch = |what: &str, expected: &str, found: String| ImageError::DigestMismatch {
        image: image.to_owned(),
        what: what.to_owned(),
        expected: expected.to_owned(),
        found,
    };
    if overlong {
        return Err(malformed(
            image,
            &format!("layer {} is longer than its {} bytes", expected.digest, expected.size),
        ));
    }
    if found != expected.digest {
        let what = format!("a layer ({count} of {} bytes)", expected.size);
        return Err(mismatch(&what, &expected.digest, found));
    }
    let (size, diff_id) = laid_out.map_err(|fault| explain(image, expected, into, fault))?;
    if diff_id != expected.diff_id {
        return Err(mismatch("the unpacked form of a layer", &expected.diff_id, diff_id));
    }
    Ok(size)
}

fn lay_out(packed: &mut dyn Read, expected: &Expected, into: &Path) -> Result<(Size, String), Fault> {
    let mut plain = Metered::new(decompress(packed)?, expected.bytes_max);
    let laid_out = tree::lay_out(&mut plain, into);
    let drained = laid_out.and_then(|size| {
        io::copy(&mut plain, &mut io::sink())?;
        Ok(size)
    });
    let (diff_id, _, overlong) = plain.finish();
    if overlong {
        return Err(Fault::TooLarge {
            what: format!("the unpacked size of layer {}", expected.digest),
            limit: format!("{} bytes", expected.bytes_max),
        });
    }
    Ok((drained?, diff_id))
}

/// By what the bytes are, not by what they are called.
fn decompress<'a>(mut packed: &'a mut dyn Read) -> io::Result<Box<dyn Read + 'a>> {
    let mut head = Vec::new();
    (&mut packed).take(4).read_to_end(&mut head)?;
    let (gzip, zstd) = (head.starts_with(&[0x1f, 0x8b]), head == [0x28, 0xb5, 0x2f, 0xfd]);
    let whole = Cursor::new(head).chain(packed);
    if gzip {
        return Ok(Box::new(flate2::read::MultiGzDecoder::new(whole)));
    }
    if zstd {
        let mut decoder = zstd::stream::read::Decoder::new(whole)?;
        decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
        return Ok(Box::new(decoder));
    }
    Ok(Box::new(whole))
}

/// Digests and counts what passes, and ends at a bound.
struct Metered<R> {
    from: R,
    hash: Sha256,
    count: u64,
    max: u64,
    overlong: bool,
}

impl<R: Read> Metered<R> {
    fn new(from: R, max: u64) -> Self {
        Self {
            from,
            hash: Sha256::new(),
            count: 0,
            max,
            overlong: false,
        }
    }

    /// The digest, the count, and whether there was more than the bound.
    fn finish(self) -> (String, u64, bool) {
        (
            format!("sha256:{}", hex::encode(self.hash.finalize())),
            self.count,
            self.overlong,
        )
    }
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.count == self.max || self.overlong {
            self.overlong |= self.from.read(&mut [0])? > 0;
            return Ok(0);
        }
        let most = usize::try_from(self.max - self.count)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let n = self.from.read(&mut buffer[..most])?;
        self.hash.update(&buffer[..n]);
        self.count += n as u64;
        Ok(n)
    }
}

fn explain(image: &str, expected: &Expected, into: &Path, fault: Fault) -> ImageError {
    let image = image.to_owned();
    match fault {
        Fault::Hostile { entry, why } => ImageError::Hostile { image, entry, why },
        Fault::TooLarge { what, limit } => ImageError::TooLarge { image, what, limit },
        Fault::Broken(why) => malformed(&image, &format!("layer {}: {why}", expected.digest)),
        // Decoders say in these words that their input makes no sense; the rest is the disk's.
        Fault::Io(e)
            if matches!(
                e.kind(),
                io::ErrorKind::InvalidData
                    | io::ErrorKind::InvalidInput
                    | io::ErrorKind::UnexpectedEof
                    | io::ErrorKind::Other
            ) && e.raw_os_error().is_none() =>
        {
            malformed(
                &image,
                &format!("layer {} cannot be decompressed: {e}", expected.digest),
            )
        }
        Fault::Io(e) => ImageError::io(&image, into, &e),
    }
}

fn malformed(image: &str, why: &str) -> ImageError {
    ImageError::Malformed {
        image: image.to_owned(),
        why: why.to_owned(),
    }
}

pub(crate) fn disk_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
