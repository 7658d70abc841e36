//! Large blobs go in parts; an upload that fails leaves none of them.

use crate::proxy::{Break, Proxy};
use crate::server::S3Server;
use std::io::Cursor;
use std::time::{Duration, Instant};
use store::{BlobError, BlobName, BlobStore, Digest};
use store_s3::{Patience, S3Blobs};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Three parts, the last of them short.
const LARGE: usize = 32 * 1024 * 1024 + 5;

const PATIENCE: Duration = Duration::from_secs(60);

async fn world() -> Option<(S3Server, Proxy, S3Blobs)> {
    let server = S3Server::start()?;
    let proxy = Proxy::start(server.address());
    let blobs = server.blobs_over(proxy.endpoint(), Patience::default()).await;
    Some((server, proxy, blobs))
}

fn name() -> BlobName {
    BlobName::new("large").expect("a legal name")
}

fn bytes() -> Vec<u8> {
    (0..LARGE).map(|i| (i % 251) as u8).collect()
}

async fn put(blobs: &S3Blobs) -> Result<Digest, BlobError> {
    let source = Box::pin(Cursor::new(bytes()));
    blobs.put_stream(&name(), LARGE as u64, None, source).await
}

async fn assert_nothing_left(server: &S3Server, blobs: &S3Blobs) {
    let got = blobs.get(&name()).await;
    assert!(matches!(got, Err(BlobError::NotFound(_))), "no blob");
    let begun = Instant::now();
    while !server.left_of_uploads().is_empty() {
        assert!(begun.elapsed() < PATIENCE, "left: {:?}", server.left_of_uploads());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A part may be sent again, and so may what joins them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_survives_what_passes() {
    let Some((server, proxy, blobs)) = world().await else {
        return;
    };
    proxy.will(Break::Status(500, "InternalError"), "partNumber=2", 2);
    proxy.will(Break::LoseAnswer, "partNumber=3", 1);
    // The parts are joined, and nobody hears of it; when it is asked again, there is no such upload.
    proxy.will(Break::LoseAnswer, "POST /blobs/some/prefix/large%21?uploadId", 1);
    let stored = put(&blobs).await.expect("it is stored");
    if server.is_own() {
        assert_eq!(proxy.broken(), 4);
    }
    assert_eq!(stored, Digest::of(&bytes()));
    assert!(blobs.get(&name()).await.expect("it is there") == bytes());
    assert_eq!(server.left_of_uploads(), Vec::<String>::new());
}

/// Whichever step fails for good.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_upload_leaves_nothing() {
    let Some((server, proxy, blobs)) = world().await else {
        return;
    };
    for at in ["?uploads", "partNumber=1", "partNumber=3", "POST"] {
        proxy.will(Break::Status(500, "InternalError"), at, u64::MAX);
        let error = put(&blobs).await.expect_err("it cannot be stored").to_string();
        assert!(error.contains(&proxy.endpoint()), "{error}");
        assert!(proxy.broken() >= 1, "{at}");
        proxy.heal();
        assert_nothing_left(&server, &blobs).await;
    }
    let wrong = Some(Digest::of(b"other"));
    let source = Box::pin(Cursor::new(bytes()));
    let stored = blobs.put_stream(&name(), LARGE as u64, wrong, source).await;
    assert!(matches!(stored, Err(BlobError::NotAsAnnounced { .. })), "{stored:?}");
    assert_nothing_left(&server, &blobs).await;
}

/// The caller goes away in the middle.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_is_given_up_leaves_nothing() {
    let Some((server, proxy, blobs)) = world().await else {
        return;
    };
    let (mut giver, source) = tokio::io::duplex(1024 * 1024);
    let upload = tokio::spawn({
        let blobs = blobs.clone();
        async move { blobs.put_stream(&name(), LARGE as u64, None, Box::pin(source)).await }
    });
    proxy.passed();
    giver
        .write_all(&bytes()[..20 * 1024 * 1024])
        .await
        .expect("it is taken");
    let begun = Instant::now();
    let mut requests = 0;
    while requests < 2 {
        requests += proxy.passed();
        assert!(begun.elapsed() < PATIENCE, "the upload has begun and has a part");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    upload.abort();
    assert!(upload.await.is_err_and(|e| e.is_cancelled()));
    assert_nothing_left(&server, &blobs).await;
}

/// A stream sees one version of a blob, or an error.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blob_that_is_replaced_is_not_mixed() {
    let Some((_server, _proxy, blobs)) = world().await else {
        return;
    };
    put(&blobs).await.expect("it is stored");
    let mut reader = blobs.get_stream(&name(), 0).await.expect("it is there");
    let mut first = vec![0; 1024 * 1024];
    reader.bytes.read_exact(&mut first).await.expect("the first piece");
    let other: Vec<u8> = bytes().iter().map(|byte| byte ^ 1).collect();
    blobs.put(&name(), other.clone()).await.expect("it is replaced");
    let mut rest = Vec::new();
    let read = reader.bytes.read_to_end(&mut rest).await;
    let error = read.expect_err("the rest is of another blob").to_string();
    assert!(error.contains("replaced"), "{error}");
    assert!(blobs.get(&name()).await.expect("it is there") == other);
}
