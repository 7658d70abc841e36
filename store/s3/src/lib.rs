//! Blobs in an S3 object store, behind [`store::BlobStore`].
//!
//! A blob `log/a/0` under the prefix `ci` is the object `ci/log/a/0!`: `!` is in no blob's name and
//! sorts before everything that is, so listings keep their order and a server that keeps objects as
//! files never wants one path for an object and for a folder.
//!
//! | file | what |
//! |---|---|
//! | `config` | what an operator sets, and the SDK's client made of it |
//! | `fault` | the SDK's errors in our words |
//! | `read` | bytes in pieces, each checked, broken ones fetched again |
//! | `write` | one request for a small blob, parts for a large one |
//!
//! Not here: claims. S3's conditional puts are not the same everywhere; "exactly one of" is the live store's.

mod config;
mod fault;
mod read;
mod write;

pub use config::{Patience, S3Config};

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::presigning::{PresignedRequest, PresigningConfig};
use aws_sdk_s3::types::Object;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fault::Place;
use std::io;
use std::time::Duration;
use store::blob::{BlobReader, Bytes, LIST_PAGE_MAX, prefix_parts};
use store::signed::{OwnUrls, check_validity};
use store::{BlobEntry, BlobError, BlobName, BlobPage, BlobStore, Digest, PutTerms, SignedUrl};

/// Ends every key; sorts before all that may be in a blob's name.
const MARK: char = '!';

/// Under this name an object's metadata have the SHA-256 of its bytes.
const DIGEST: &str = "sha256";

/// Blobs in a bucket. Cheap to clone.
#[derive(Debug, Clone)]
pub struct S3Blobs {
    client: Client,
    place: Place,
    /// Empty, or ends in `/`.
    prefix: String,
    patience: Patience,
}

impl S3Blobs {
    /// Connects, and proves that the bucket is there and that the key opens it.
    ///
    /// # Errors
    /// [`BlobError::Setting`] for a setting that is wrong by itself, [`BlobError::Unusable`] where asking
    /// tells; both name endpoint and bucket and say what to mend.
    pub async fn connect(config: S3Config) -> Result<Self, BlobError> {
        Self::connect_with(config, Patience::default()).await
    }

    /// As [`S3Blobs::connect`], with other time-outs.
    ///
    /// # Errors
    /// As there.
    pub async fn connect_with(config: S3Config, patience: Patience) -> Result<Self, BlobError> {
        let blobs = Self::unproved(config, patience)?;
        let asked = blobs.client.head_bucket().bucket(&blobs.place.bucket).send().await;
        match asked {
            Ok(_) => Ok(blobs),
            Err(error) => Err(BlobError::Unusable(
                blobs.place.fault("the bucket cannot be used", &error).text,
            )),
        }
    }

    fn unproved(config: S3Config, patience: Patience) -> Result<Self, BlobError> {
        let prefix = config.prefix()?;
        let place = Place {
            endpoint: config.endpoint.clone().unwrap_or_else(|| "AWS".to_owned()),
            bucket: config.bucket.clone(),
        };
        Ok(Self {
            client: config.client(&patience)?,
            place,
            prefix,
            patience,
        })
    }

    fn key(&self, name: &BlobName) -> String {
        format!("{}{}{MARK}", self.prefix, name.as_str())
    }

    /// `None` for an object that is not ours.
    fn entry(&self, object: &Object) -> Option<BlobEntry> {
        let name = object.key()?.strip_prefix(&self.prefix)?.strip_suffix(MARK)?;
        Some(BlobEntry {
            name: BlobName::new(name).ok()?,
            size: u64::try_from(object.size()?).ok()?,
        })
    }
}

#[async_trait]
impl BlobStore for S3Blobs {
    async fn put(&self, name: &BlobName, bytes: Vec<u8>) -> Result<(), BlobError> {
        if bytes.len() > write::PART {
            let (length, sha256) = (bytes.len() as u64, Digest::of(&bytes));
            let bytes = Box::pin(io::Cursor::new(bytes));
            self.put_parts(name, length, Some(sha256), bytes).await.map(drop)
        } else {
            self.put_whole(name, bytes).await.map(drop)
        }
    }

    async fn put_stream(
        &self,
        name: &BlobName,
        length: u64,
        sha256: Option<Digest>,
        bytes: Bytes,
    ) -> Result<Digest, BlobError> {
        if length > write::PART as u64 {
            self.put_parts(name, length, sha256, bytes).await
        } else {
            self.put_short_stream(name, length, sha256, bytes).await
        }
    }

    async fn get(&self, name: &BlobName) -> Result<Vec<u8>, BlobError> {
        self.read_whole(name).await
    }

    async fn get_range(&self, name: &BlobName, offset: u64, len: u64) -> Result<Vec<u8>, BlobError> {
        self.read_range(name, offset, len).await
    }

    async fn get_stream(&self, name: &BlobName, offset: u64) -> Result<BlobReader, BlobError> {
        self.read_stream(name, offset).await
    }

    async fn list_page(&self, prefix: &str, after: Option<&BlobName>, limit: usize) -> Result<BlobPage, BlobError> {
        prefix_parts(prefix)?;
        let limit = limit.clamp(1, LIST_PAGE_MAX);
        let mut after = after.map(|name| self.key(name));
        let mut entries: Vec<BlobEntry> = Vec::new();
        loop {
            let missing = i32::try_from(limit - entries.len()).unwrap_or(i32::MAX);
            let listed = self
                .client
                .list_objects_v2()
                .bucket(&self.place.bucket)
                .prefix(format!("{}{prefix}", self.prefix))
                .set_start_after(after.take())
                .max_keys(missing)
                .send()
                .await
                .map_err(|e| self.place.fault("it cannot be listed", &e).of(prefix))?;
            let objects = listed.contents();
            entries.extend(objects.iter().filter_map(|object| self.entry(object)));
            let Some(last) = objects.last().filter(|_| listed.is_truncated() == Some(true)) else {
                return Ok(BlobPage { entries, next: None });
            };
            if entries.len() >= limit {
                let next = entries.last().map(|entry| entry.name.clone());
                return Ok(BlobPage { entries, next });
            }
            // Objects of others were among them.
            after = last.key().map(str::to_owned);
        }
    }

    async fn delete(&self, name: &BlobName) -> Result<(), BlobError> {
        let request = self
            .client
            .delete_object()
            .bucket(&self.place.bucket)
            .key(self.key(name));
        match request.send().await {
            Ok(_) => Ok(()),
            Err(error) => match self.place.fault("it cannot be removed", &error) {
                fault if fault.is_missing() => Ok(()),
                fault => Err(fault.of(name.as_str())),
            },
        }
    }

    async fn sign_get(&self, name: &BlobName, valid_for: Duration) -> Result<SignedUrl, BlobError> {
        let terms = validity(name, valid_for)?;
        let request = self.client.get_object().bucket(&self.place.bucket).key(self.key(name));
        let signed = request.presigned(terms).await;
        signed.map(|s| url("GET", &s)).map_err(|e| not_signed(name, &e))
    }

    async fn sign_put(&self, name: &BlobName, terms: PutTerms, valid_for: Duration) -> Result<SignedUrl, BlobError> {
        let valid = validity(name, valid_for)?;
        let length = i64::try_from(terms.length).map_err(|e| not_signed(name, &e))?;
        let request = self.client.put_object().bucket(&self.place.bucket).key(self.key(name));
        let signed = request
            .content_length(length)
            .checksum_sha256(STANDARD.encode(terms.sha256.0))
            .metadata(DIGEST, terms.sha256.to_string())
            .presigned(valid)
            .await;
        signed.map(|s| url("PUT", &s)).map_err(|e| not_signed(name, &e))
    }

    fn own_urls(&self) -> Option<&OwnUrls> {
        None
    }
}

/// Whole seconds, in favour of the client.
fn validity(name: &BlobName, valid_for: Duration) -> Result<PresigningConfig, BlobError> {
    check_validity(name, valid_for)?;
    let seconds = valid_for.as_secs() + u64::from(valid_for.subsec_nanos() > 0);
    PresigningConfig::expires_in(Duration::from_secs(seconds)).map_err(|e| not_signed(name, &e))
}

fn url(method: &'static str, signed: &PresignedRequest) -> SignedUrl {
    let header = |(name, value): (&str, &str)| (name.to_ascii_lowercase(), value.to_owned());
    SignedUrl {
        method,
        url: signed.uri().to_owned(),
        headers: signed.headers().map(header).collect(),
    }
}

fn not_signed(name: &BlobName, error: &dyn std::error::Error) -> BlobError {
    BlobError::NotSigned {
        name: name.as_str().to_owned(),
        reason: fault::chain(error),
    }
}
