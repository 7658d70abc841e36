//! Signed URLs of blobs among the other routes: no token is asked for, errors look like all others.

use super::stage::Stage;
use axum::body::Body;
use std::time::Duration;
use store::{BlobName, BlobStore as _, Digest, FolderBlobs, PutTerms, SignedUrl};
use tower::ServiceExt as _;

#[tokio::test]
async fn a_signed_url_needs_no_token_and_nothing_else_opens_blobs() {
    let stage = Stage::new().await;
    // The same folder has the same key.
    let blobs = FolderBlobs::open(stage.folder.path().join("blobs")).unwrap();
    let blobs = blobs.with_public_url("http://ci.example").unwrap();
    let name = BlobName::new("a/b").unwrap();
    let terms = PutTerms {
        length: 5,
        sha256: Digest::of(b"hello"),
    };
    let valid = Duration::from_secs(60);
    let put = blobs.sign_put(&name, terms, valid).await.unwrap();
    let get = blobs.sign_get(&name, valid).await.unwrap();
    let send = async |signed: &SignedUrl, url: &str, body: &'static str| {
        let path = url.strip_prefix("http://ci.example").unwrap();
        let request = axum::http::Request::builder().method(signed.method).uri(path);
        let request = request.body(Body::from(body)).unwrap();
        let answer = stage.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = answer.into_parts();
        let body = axum::body::to_bytes(body, 10_000).await.unwrap();
        (parts.status.as_u16(), String::from_utf8(body.to_vec()).unwrap())
    };
    assert_eq!(send(&put, &put.url, "hello").await, (200, String::new()));
    assert_eq!(send(&get, &get.url, "").await, (200, "hello".to_owned()));
    let bare = get.url.split('?').next().unwrap();
    let (status, problem) = send(&get, bare, "").await;
    assert_eq!(status, 403);
    let problem: serde_json::Value = serde_json::from_str(&problem).unwrap();
    assert_eq!(problem["instance"], "/blobs/a/b");
    assert!(problem["request_id"].is_string(), "{problem}");
}
