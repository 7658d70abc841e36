//! Blobs: immutable bytes under a name, e.g. the chunks of a log.
//!
//! Not here: where they lie ([`crate::folder`]), and claims: "exactly one of" is the live store's.

use async_trait::async_trait;

/// The longest part of a blob's name, bytes: a file name may have 255, some of which are ours.
pub const NAME_PART_MAX: usize = 200;

/// The longest blob name, bytes: object stores allow 1,024, some of which may be a prefix of theirs.
pub const BLOB_NAME_MAX: usize = 900;

/// A blob's name: `/`-separated parts of `[A-Za-z0-9._-]`, none of them `.` or `..`. A blob may lie
/// below the name of another one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobName(String);

impl BlobName {
    /// Checks and wraps a name.
    ///
    /// # Errors
    /// [`BlobError::IllegalName`].
    pub fn new(name: impl Into<String>) -> Result<Self, BlobError> {
        let name = name.into();
        let part_ok = |part: &str| {
            !part.is_empty()
                && part != "."
                && part != ".."
                && part.len() <= NAME_PART_MAX
                && part.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
        };
        if name.len() <= BLOB_NAME_MAX && name.split('/').all(part_ok) {
            Ok(Self(name))
        } else {
            Err(BlobError::IllegalName(name.chars().take(80).collect()))
        }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why a blob could not be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// Not a legal name.
    #[error("`{0}` is not a legal blob name")]
    IllegalName(String),
    /// There is no such blob.
    #[error("no blob `{0}`")]
    NotFound(String),
    /// The folder or the object store failed.
    #[error("blob `{name}`: {cause}")]
    Io {
        /// Which blob.
        name: String,
        /// What the system said.
        cause: std::io::Error,
    },
}

/// A blob as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobEntry {
    /// Its name.
    pub name: BlobName,
    /// Its size, bytes.
    pub size: u64,
}

/// Immutable bytes by name. Every method may be called concurrently.
#[async_trait]
pub trait BlobStore: Send + Sync + 'static {
    /// Stores `bytes` durably under `name`. Putting the same name again replaces it as a whole;
    /// a reader sees the old or the new bytes, never a part.
    async fn put(&self, name: &BlobName, bytes: Vec<u8>) -> Result<(), BlobError>;

    /// The whole blob.
    async fn get(&self, name: &BlobName) -> Result<Vec<u8>, BlobError>;

    /// Bytes `offset..offset+len` of the blob, fewer at its end, none beyond it.
    async fn get_range(&self, name: &BlobName, offset: u64, len: u64) -> Result<Vec<u8>, BlobError>;

    /// All blobs whose name begins with `prefix` (whole parts, ending in `/`; empty: all), in order
    /// of names. None is no error.
    async fn list(&self, prefix: &str) -> Result<Vec<BlobEntry>, BlobError>;

    /// Removes a blob; no error if it is not there. After a crash it may be there again.
    async fn delete(&self, name: &BlobName) -> Result<(), BlobError>;
}
