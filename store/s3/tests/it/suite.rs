//! The suites that blobs in a folder pass too.

use crate::server::S3Server;
use async_trait::async_trait;
use std::sync::Arc;
use store::BlobStore;
use store::conformance::urls::{Answer, Client, Fixture};
use tokio::runtime::Handle;
use tokio::task::block_in_place;

fn connected(server: S3Server) -> (Arc<dyn BlobStore>, S3Server) {
    let blobs = block_in_place(|| Handle::current().block_on(server.blobs()));
    (Arc::new(blobs), server)
}

fn portable() -> Option<(Arc<dyn BlobStore>, S3Server)> {
    S3Server::start().map(connected)
}

fn demanding() -> Option<(Arc<dyn BlobStore>, S3Server)> {
    S3Server::demanding().map(connected)
}

/// Sends by a client that knows nothing of S3.
struct Stranger(reqwest::Client);

#[async_trait]
impl Client for Stranger {
    async fn send(&self, method: &str, url: &str, headers: &[(String, String)], body: Vec<u8>) -> Answer {
        let method = reqwest::Method::from_bytes(method.as_bytes()).expect("a method");
        let mut request = self.0.request(method, url);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        if !body.is_empty() {
            request = request.body(body);
        }
        let answer = request.send().await.expect("an answer");
        Answer {
            status: answer.status().as_u16(),
            body: answer.bytes().await.expect("a body").to_vec(),
        }
    }
}

fn with_stranger() -> Option<Fixture> {
    let (blobs, server) = portable()?;
    Some(Fixture {
        blobs,
        client: Box::new(Stranger(reqwest::Client::new())),
        stores_what_it_refuses: server.is_own(),
        keep: Box::new(server),
    })
}

mod blobs {
    store::blob_conformance_tests!(portable super::portable);
    store::blob_conformance_tests!(demanding super::demanding);
}

mod urls {
    store::signed_url_conformance_tests!(super::with_stranger);
}
