//! The blob of an archived run: its document, compressed.
//!
//! Not here: what is in the document (`api_core::archive::Form`).

use api_core::archive::Form;
use std::io::Read;

/// The most bytes that a blob is unpacked to: many times a run of a thousand steps. One that holds
/// more was not written by us.
pub(super) const UNPACKED_MAX: usize = 256 * 1024 * 1024;

/// How hard is tried to make it small. Beyond this level time grows faster than size shrinks.
const LEVEL: i32 = 3;

/// Why a blob cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreadable {
    /// It is not compressed as ours are.
    #[error("it cannot be unpacked: {0}")]
    Packed(std::io::Error),
    /// It unpacks to more than [`UNPACKED_MAX`].
    #[error("it unpacks to more than {UNPACKED_MAX} bytes")]
    TooLarge,
    /// It is no document of a run, or of a newer release.
    #[error(transparent)]
    Record(#[from] model::RecordError),
}

/// The bytes of a blob.
pub(super) fn pack(form: &Form) -> std::io::Result<Vec<u8>> {
    zstd::encode_all(model::encode(form).as_slice(), LEVEL)
}

/// The document in a blob, and how many bytes it has unpacked.
pub(super) fn unpack(bytes: &[u8]) -> Result<(Form, usize), Unreadable> {
    let mut text = Vec::new();
    let decoder = zstd::Decoder::new(bytes).map_err(Unreadable::Packed)?;
    let most = UNPACKED_MAX as u64 + 1;
    decoder.take(most).read_to_end(&mut text).map_err(Unreadable::Packed)?;
    if text.len() > UNPACKED_MAX {
        return Err(Unreadable::TooLarge);
    }
    Ok((model::decode(&text)?, text.len()))
}
