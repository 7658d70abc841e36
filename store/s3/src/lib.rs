//! Blobs in an S3 object store, behind [`store::BlobStore`].
