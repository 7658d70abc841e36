//! Blobs: immutable bytes under a name, e.g. the chunks of a log.
//!
//! Large ones are streamed. Who has no credentials reads or stores one by a [`SignedUrl`].
//! Not here: where they lie ([`crate::folder`], `store-s3`), and claims: "exactly one of" is the
//! live store's, never an object store's.

use crate::signed::OwnUrls;
use async_trait::async_trait;
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::pin::Pin;
use std::str::FromStr;
use std::time::Duration;
use tokio::io::AsyncRead;

/// The longest part of a blob's name, bytes: a file name may have 255, some of which are ours.
pub const NAME_PART_MAX: usize = 200;

/// The longest blob name, bytes: object stores allow 1,024, some of which may be a prefix of theirs.
pub const BLOB_NAME_MAX: usize = 900;

/// The most blobs that [`BlobStore::list`] answers: the chunks of the longest log. Whoever may meet
/// more asks for pages.
pub const LIST_MAX: usize = 200_000;

/// The longest page of a listing.
pub const LIST_PAGE_MAX: usize = 1_000;

/// The longest that a signed URL may be valid: what S3 allows.
pub const SIGNED_MAX: Duration = Duration::from_secs(7 * 24 * 3_600);

/// A blob's name: `/`-separated parts of `[A-Za-z0-9._-]`, none of them `.` or `..`. A blob may lie
/// below the name of another one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobName(String);

impl AsRef<str> for BlobName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

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
    /// The bytes to be stored could not be read from where they come; nothing was stored.
    #[error("blob `{name}` is not stored: its bytes cannot be read: {cause}")]
    Source {
        /// Which blob.
        name: String,
        /// What the reader said.
        cause: std::io::Error,
    },
    /// The bytes to be stored were not those that had been announced; nothing was stored.
    #[error("blob `{name}` is not stored: {broken}")]
    NotAsAnnounced {
        /// Which blob.
        name: String,
        /// In what they differ.
        broken: Broken,
    },
    /// More blobs than [`LIST_MAX`] begin with this prefix.
    #[error("more than {LIST_MAX} blobs begin with `{0}`; read the listing in pages")]
    TooMany(String),
    /// A URL cannot be signed; says how to mend it.
    #[error("no URL can be signed for blob `{name}`: {reason}")]
    NotSigned {
        /// Which blob.
        name: String,
        /// Why, and what to do.
        reason: String,
    },
    /// A setting is wrong, wherever the blob store is; says which and how to mend it.
    #[error("{0}")]
    Setting(String),
    /// The blob store cannot be used now, or not as it is configured; says where it is and how to mend it.
    #[error("{0}")]
    Unusable(String),
}

/// How bytes differ from what was announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// More bytes came.
    #[error("more than the announced {0} bytes came")]
    TooLong(u64),
    /// The bytes ended early.
    #[error("{came} of {length} announced bytes came")]
    TooShort {
        /// How many were announced.
        length: u64,
        /// How many came.
        came: u64,
    },
    /// Other bytes came.
    #[error("its bytes have SHA-256 {came}, announced was {announced}")]
    OtherBytes {
        /// What was announced.
        announced: Digest,
        /// What came.
        came: Digest,
    },
}

/// A SHA-256 digest; 64 lower-case hexadecimal digits as text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

/// The text is not 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a SHA-256 digest is 64 lower-case hexadecimal digits")]
pub struct NotADigest;

impl FromStr for Digest {
    type Err = NotADigest;

    fn from_str(text: &str) -> Result<Self, NotADigest> {
        let value = |digit: u8| match digit {
            b'0'..=b'9' => Ok(digit - b'0'),
            b'a'..=b'f' => Ok(digit - b'a' + 10),
            _ => Err(NotADigest),
        };
        let digits: &[u8; 64] = text.as_bytes().try_into().map_err(|_| NotADigest)?;
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = value(pair[0])? << 4 | value(pair[1])?;
        }
        Ok(Self(bytes))
    }
}

/// A blob as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobEntry {
    /// Its name.
    pub name: BlobName,
    /// Its size, bytes.
    pub size: u64,
}

/// A part of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobPage {
    /// In order of names.
    pub entries: Vec<BlobEntry>,
    /// After which name the next page begins; `None`: this was the last one.
    pub next: Option<BlobName>,
}

/// Where a blob's bytes come from or go to.
pub type Bytes = Pin<Box<dyn AsyncRead + Send>>;

/// A blob that is being read.
pub struct BlobReader {
    /// The size of the whole blob, bytes.
    pub size: u64,
    /// Its bytes from the wanted offset on. They end without an error only at the blob's own end;
    /// a read from the first byte on checks the digest before that, where one is stored.
    pub bytes: Bytes,
}

impl fmt::Debug for BlobReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlobReader")
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

/// The bytes that a signed URL lets somebody store: these and no others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PutTerms {
    /// How many.
    pub length: u64,
    /// Their digest.
    pub sha256: Digest,
}

/// A request that somebody without credentials may send until it expires.
///
/// Whoever knows it has its right: it belongs into no log.
#[derive(Clone, PartialEq, Eq)]
pub struct SignedUrl {
    /// `GET` or `PUT`.
    pub method: &'static str,
    /// Where to.
    pub url: String,
    /// Headers that must be sent just so, by lower-case names.
    pub headers: Vec<(String, String)>,
}

impl fmt::Debug for SignedUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let before_the_signature = self.url.split('?').next().unwrap_or_default();
        write!(f, "SignedUrl({} {before_the_signature})", self.method)
    }
}

/// Immutable bytes by name. Every method may be called concurrently.
#[async_trait]
pub trait BlobStore: Send + Sync + 'static {
    /// Stores `bytes` durably under `name`. Putting the same name again replaces it as a whole;
    /// a reader sees the old or the new bytes, never a part.
    async fn put(&self, name: &BlobName, bytes: Vec<u8>) -> Result<(), BlobError>;

    /// As [`BlobStore::put`], for blobs that memory must not hold: reads `bytes` to their end, and
    /// stores nothing unless there are `length` of them, with the digest `sha256` if one is given.
    /// Answers their digest. Dropping the future before `bytes` have ended stores nothing.
    async fn put_stream(
        &self,
        name: &BlobName,
        length: u64,
        sha256: Option<Digest>,
        bytes: Bytes,
    ) -> Result<Digest, BlobError>;

    /// The whole blob.
    async fn get(&self, name: &BlobName) -> Result<Vec<u8>, BlobError>;

    /// Bytes `offset..offset+len` of the blob, fewer at its end, none beyond it.
    async fn get_range(&self, name: &BlobName, offset: u64, len: u64) -> Result<Vec<u8>, BlobError>;

    /// The blob from `offset` on, piece by piece; none beyond its end. A blob that is replaced
    /// meanwhile gives its old bytes or an error.
    async fn get_stream(&self, name: &BlobName, offset: u64) -> Result<BlobReader, BlobError>;

    /// Blobs whose name begins with `prefix` (whole parts, ending in `/`; empty: all) and comes
    /// after `after`, in bytewise order of names: at most `limit`, and at most [`LIST_PAGE_MAX`].
    /// A page may be short, even empty, and not the last. A blob that comes or goes meanwhile may be missed.
    async fn list_page(&self, prefix: &str, after: Option<&BlobName>, limit: usize) -> Result<BlobPage, BlobError>;

    /// All blobs whose name begins with `prefix`, in order of names; [`BlobError::TooMany`] beyond
    /// [`LIST_MAX`]. None is no error.
    async fn list(&self, prefix: &str) -> Result<Vec<BlobEntry>, BlobError> {
        let mut page = self.list_page(prefix, None, LIST_PAGE_MAX).await?;
        let mut all = std::mem::take(&mut page.entries);
        while let Some(after) = page.next {
            page = self.list_page(prefix, Some(&after), LIST_PAGE_MAX).await?;
            all.append(&mut page.entries);
            if all.len() > LIST_MAX {
                return Err(BlobError::TooMany(prefix.to_owned()));
            }
        }
        Ok(all)
    }

    /// Removes a blob; no error if it is not there. After a crash it may be there again.
    async fn delete(&self, name: &BlobName) -> Result<(), BlobError>;

    /// A request by which anybody may read this blob for `valid_for` (at most [`SIGNED_MAX`]),
    /// whole or by a `Range` header. The blob need not be there yet.
    async fn sign_get(&self, name: &BlobName, valid_for: Duration) -> Result<SignedUrl, BlobError>;

    /// A request by which anybody may store under `name` just the bytes of `terms`, for `valid_for`
    /// (at most [`SIGNED_MAX`]), once or again.
    async fn sign_put(&self, name: &BlobName, terms: PutTerms, valid_for: Duration) -> Result<SignedUrl, BlobError>;

    /// What checks this store's signed URLs, if a server of ours answers them; `None` where the
    /// object store does it.
    fn own_urls(&self) -> Option<&OwnUrls>;
}

/// The parts of a listing's prefix; empty for all.
///
/// # Errors
/// [`BlobError::IllegalName`] for a prefix that is not of whole parts.
pub fn prefix_parts(prefix: &str) -> Result<String, BlobError> {
    match prefix.strip_suffix('/') {
        Some(parts) => Ok(BlobName::new(parts)?.0),
        None if prefix.is_empty() => Ok(String::new()),
        None => Err(BlobError::IllegalName(prefix.chars().take(80).collect())),
    }
}
