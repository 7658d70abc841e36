//! Writing: one request for a small blob, parts for a large one, and nothing left behind.
//!
//! Bodies are held in memory, so every request can be sent again, and its signature covers the
//! body, so the object store refuses altered bytes. Parts of an upload that fails, or whose caller
//! goes away, are removed. Not here: parts of a process that was killed; a lifecycle rule of the
//! bucket removes those.

use crate::{DIGEST, S3Blobs};
use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};
use std::io::{self, ErrorKind};
use store::blob::{Broken, Bytes};
use store::{BlobError, BlobName, Digest};
use tokio::io::AsyncReadExt as _;

/// The size of a part, bytes: what an upload holds in memory. 5 GB are 320 of them.
pub(crate) const PART: usize = 16 * 1024 * 1024;

/// The most parts of an upload: S3's limit.
const PARTS_MAX: u64 = 10_000;

/// Under this name an object's metadata tell which upload it is of.
const UPLOAD: &str = "upload";

impl S3Blobs {
    pub(crate) async fn put_whole(&self, name: &BlobName, bytes: Vec<u8>) -> Result<Digest, BlobError> {
        let digest = Digest::of(&bytes);
        self.client
            .put_object()
            .bucket(&self.place.bucket)
            .key(self.key(name))
            .content_length(i64::try_from(bytes.len()).unwrap_or(i64::MAX))
            .checksum_sha256(STANDARD.encode(digest.0))
            .metadata(DIGEST, digest.to_string())
            .body(ByteStream::from(bytes))
            .send()
            .await
            .map_err(|e| self.place.fault("it cannot be stored", &e).of(name.as_str()))?;
        Ok(digest)
    }

    /// Of at most [`PART`] bytes.
    pub(crate) async fn put_short_stream(
        &self,
        name: &BlobName,
        length: u64,
        sha256: Option<Digest>,
        bytes: Bytes,
    ) -> Result<Digest, BlobError> {
        let mut source = Source::new(name, length, bytes);
        let part = source.part().await?;
        source.check(sha256).await?;
        self.put_whole(name, part).await
    }

    /// In parts; they become the blob when all of them are there and are what was announced.
    pub(crate) async fn put_parts(
        &self,
        name: &BlobName,
        length: u64,
        sha256: Option<Digest>,
        bytes: Bytes,
    ) -> Result<Digest, BlobError> {
        if length > PARTS_MAX * PART as u64 {
            let text = format!("{length} bytes are more than an object may have");
            return Err(BlobError::Io {
                name: name.as_str().to_owned(),
                cause: io::Error::new(ErrorKind::FileTooLarge, text),
            });
        }
        let upload = self.begin(name, sha256).await?;
        let mut source = Source::new(name, length, bytes);
        let stored = self.fill(&upload, &mut source, sha256).await;
        match stored {
            Ok(digest) => {
                upload.done();
                Ok(digest)
            }
            Err(error) => {
                upload.abort().await;
                Err(error)
            }
        }
    }

    async fn begin(&self, name: &BlobName, sha256: Option<Digest>) -> Result<Upload, BlobError> {
        let mark = format!("{:032x}", rand::random::<u128>());
        let mut request = self
            .client
            .create_multipart_upload()
            .bucket(&self.place.bucket)
            .key(self.key(name))
            .metadata(UPLOAD, &mark);
        if let Some(digest) = sha256 {
            request = request.metadata(DIGEST, digest.to_string());
        }
        let begun = request.send().await;
        let begun = begun.map_err(|e| self.place.fault("its upload cannot be begun", &e).of(name.as_str()))?;
        let id = begun.upload_id().ok_or_else(|| {
            let what = "its upload was begun without an id";
            self.place.broken(ErrorKind::InvalidData, what).of(name.as_str())
        })?;
        Ok(Upload {
            client: self.client.clone(),
            bucket: self.place.bucket.clone(),
            key: self.key(name),
            id: id.to_owned(),
            mark,
            open: true,
        })
    }

    async fn fill(
        &self,
        upload: &Upload,
        source: &mut Source<'_>,
        sha256: Option<Digest>,
    ) -> Result<Digest, BlobError> {
        let name = source.name.as_str();
        let mut parts = Vec::new();
        while source.missing() > 0 {
            let number = i32::try_from(parts.len() + 1).unwrap_or(i32::MAX);
            let bytes = source.part().await?;
            let sent = self
                .client
                .upload_part()
                .bucket(&upload.bucket)
                .key(&upload.key)
                .upload_id(&upload.id)
                .part_number(number)
                .content_length(i64::try_from(bytes.len()).unwrap_or(i64::MAX))
                .body(ByteStream::from(bytes))
                .send()
                .await;
            let sent = sent.map_err(|e| self.place.fault("a part cannot be stored", &e).of(name))?;
            let part = CompletedPart::builder().part_number(number);
            parts.push(part.set_e_tag(sent.e_tag().map(str::to_owned)).build());
        }
        let digest = source.check(sha256).await?;
        self.complete(upload, source.name, source.length, parts).await?;
        Ok(digest)
    }

    async fn complete(
        &self,
        upload: &Upload,
        name: &BlobName,
        length: u64,
        parts: Vec<CompletedPart>,
    ) -> Result<(), BlobError> {
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        let request = self.client.complete_multipart_upload();
        let request = request.bucket(&upload.bucket).key(&upload.key).upload_id(&upload.id);
        let completed = request.multipart_upload(parts).send().await;
        let fault = match (completed, self.stored_by(upload).await) {
            // Even after an error: an answer was lost, and the upload not known any more when it was asked again.
            (_, Ok(Some(stored))) if stored == length => return Ok(()),
            (Err(error), _) => self.place.fault("its parts cannot be joined", &error),
            (Ok(_), Ok(stored)) => {
                let what = format!("of {length} bytes {} were stored", stored.unwrap_or(0));
                self.place.broken(ErrorKind::UnexpectedEof, &what)
            }
            (Ok(_), Err(fault)) => fault,
        };
        Err(fault.of(name.as_str()))
    }

    /// How long the object is that this upload has made; `None` if there is none.
    async fn stored_by(&self, upload: &Upload) -> Result<Option<u64>, crate::fault::Fault> {
        let request = self.client.head_object().bucket(&upload.bucket).key(&upload.key);
        match request.send().await {
            Ok(answer) => {
                let mark = answer.metadata().and_then(|metadata| metadata.get(UPLOAD));
                let length = answer.content_length().and_then(|length| u64::try_from(length).ok());
                Ok(length.filter(|_| mark == Some(&upload.mark)))
            }
            Err(error) => match self.place.fault("it cannot be looked up", &error) {
                fault if fault.is_missing() => Ok(None),
                fault => Err(fault),
            },
        }
    }
}

/// Announced bytes on their way in.
struct Source<'a> {
    name: &'a BlobName,
    length: u64,
    came: u64,
    digest: Sha256,
    bytes: Bytes,
}

impl<'a> Source<'a> {
    fn new(name: &'a BlobName, length: u64, bytes: Bytes) -> Self {
        Self {
            name,
            length,
            came: 0,
            digest: Sha256::new(),
            bytes,
        }
    }

    fn missing(&self) -> u64 {
        self.length - self.came
    }

    /// The next bytes: [`PART`], or what is missing.
    async fn part(&mut self) -> Result<Vec<u8>, BlobError> {
        let wanted = self.missing().min(PART as u64);
        let mut part = Vec::with_capacity(usize::try_from(wanted).unwrap_or(0));
        let read = (&mut self.bytes).take(wanted).read_to_end(&mut part).await;
        read.map_err(|cause| self.unreadable(cause))?;
        self.came += part.len() as u64;
        self.digest.update(&part);
        if (part.len() as u64) < wanted {
            let (length, came) = (self.length, self.came);
            return Err(self.refused(Broken::TooShort { length, came }));
        }
        Ok(part)
    }

    /// Once all have come: that nothing follows, and that they have the digest.
    async fn check(&mut self, announced: Option<Digest>) -> Result<Digest, BlobError> {
        let mut beyond = [0];
        let read = self.bytes.read(&mut beyond).await;
        if read.map_err(|cause| self.unreadable(cause))? > 0 {
            return Err(self.refused(Broken::TooLong(self.length)));
        }
        let came = Digest(self.digest.clone().finalize().into());
        match announced {
            Some(announced) if announced != came => Err(self.refused(Broken::OtherBytes { announced, came })),
            _ => Ok(came),
        }
    }

    fn refused(&self, broken: Broken) -> BlobError {
        BlobError::NotAsAnnounced {
            name: self.name.as_str().to_owned(),
            broken,
        }
    }

    fn unreadable(&self, cause: io::Error) -> BlobError {
        BlobError::Source {
            name: self.name.as_str().to_owned(),
            cause,
        }
    }
}

/// An upload whose parts go again unless it is done.
struct Upload {
    client: Client,
    bucket: String,
    key: String,
    id: String,
    /// Told by the object that comes of it.
    mark: String,
    open: bool,
}

impl Upload {
    fn done(mut self) {
        self.open = false;
    }

    async fn abort(mut self) {
        self.open = false;
        self.removal().await;
    }

    fn removal(&self) -> impl Future<Output = ()> + Send + 'static {
        let request = self.client.abort_multipart_upload();
        let request = request.bucket(&self.bucket).key(&self.key).upload_id(&self.id);
        let key = self.key.clone();
        async move {
            if let Err(error) = request.send().await {
                let error = crate::fault::chain(&error);
                tracing::warn!(
                    key,
                    error,
                    "parts of a failed upload stay; a lifecycle rule may remove them"
                );
            }
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if self.open
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(self.removal());
        }
    }
}
