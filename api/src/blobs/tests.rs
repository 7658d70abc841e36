//! The signed route over real HTTP: the suite that S3 passes too, and what only this route promises.

use super::*;
use async_trait::async_trait;
use futures::StreamExt as _;
use std::time::Instant;
use store::conformance::urls::{Answer as Seen, Client, Fixture};
use store::{Digest, FolderBlobs, SignedUrl};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

const VALID: Duration = Duration::from_secs(600);

/// A server of a folder's blobs; it ends when it is dropped.
struct World {
    blobs: Arc<dyn BlobStore>,
    address: std::net::SocketAddr,
    folder: TempDir,
    _serving: JoinSet<()>,
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let blobs = FolderBlobs::open(folder.path().join("blobs")).unwrap();
        let blobs: Arc<dyn BlobStore> = Arc::new(blobs.with_public_url(&format!("http://{address}/")).unwrap());
        let mut serving = JoinSet::new();
        let router: Router = router(blobs.clone());
        serving.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            blobs,
            address,
            folder,
            _serving: serving,
        }
    }

    async fn sign_put(&self, text: &str, bytes: &[u8]) -> SignedUrl {
        let terms = PutTerms {
            length: bytes.len() as u64,
            sha256: Digest::of(bytes),
        };
        self.blobs.sign_put(&name(text), terms, VALID).await.unwrap()
    }

    /// Sends bytes just so; answers the head of what comes back.
    async fn raw(&self, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// Half-written files.
    fn unfinished(&self) -> usize {
        std::fs::read_dir(self.folder.path().join("blobs/@new"))
            .unwrap()
            .count()
    }
}

fn name(text: &str) -> BlobName {
    BlobName::new(text).unwrap()
}

fn path(signed: &SignedUrl) -> String {
    let (_, rest) = signed.url.split_once("://").unwrap();
    rest[rest.find('/').unwrap()..].to_owned()
}

struct Stranger(reqwest::Client);

#[async_trait]
impl Client for Stranger {
    async fn send(&self, method: &str, url: &str, headers: &[(String, String)], body: Vec<u8>) -> Seen {
        let mut request = self.0.request(method.parse().unwrap(), url);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        if !body.is_empty() {
            request = request.body(body);
        }
        let answer = request.send().await.unwrap();
        Seen {
            status: answer.status().as_u16(),
            body: answer.bytes().await.unwrap().to_vec(),
        }
    }
}

fn fixture() -> Option<Fixture> {
    let world = tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(World::new()));
    Some(Fixture {
        blobs: world.blobs.clone(),
        client: Box::new(Stranger(reqwest::Client::new())),
        stores_what_it_refuses: false,
        keep: Box::new(world),
    })
}

store::signed_url_conformance_tests!(fixture);

#[tokio::test]
async fn bytes_of_strangers_are_files_and_nothing_else() {
    let world = World::new().await;
    let page = b"<script>alert(1)</script>".to_vec();
    world.blobs.put(&name("a/page.html"), page.clone()).await.unwrap();
    let signed = world.blobs.sign_get(&name("a/page.html"), VALID).await.unwrap();
    let client = reqwest::Client::new();
    for method in [Method::GET, Method::HEAD] {
        let answer = client.request(method.clone(), &signed.url).send().await.unwrap();
        let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(header("content-type"), "application/octet-stream");
        assert_eq!(header("x-content-type-options"), "nosniff");
        assert_eq!(header("content-disposition"), "attachment; filename=\"page.html\"");
        assert_eq!(header("content-length"), page.len().to_string());
        assert_eq!(answer.bytes().await.unwrap().is_empty(), method == Method::HEAD);
    }
}

#[tokio::test]
async fn ranges_say_where_they_are() {
    let world = World::new().await;
    world.blobs.put(&name("r"), b"0123456789".to_vec()).await.unwrap();
    let signed = world.blobs.sign_get(&name("r"), VALID).await.unwrap();
    let cases = [
        ("range", "bytes=-3", 206, "bytes 7-9/10", "789"),
        ("range", "bytes=2-", 206, "bytes 2-9/10", "23456789"),
        ("range", "bytes=0-0,2-3", 200, "", "0123456789"),
        ("range", "bytes=10-", 416, "bytes */10", ""),
    ];
    for (header, value, status, range, body) in cases {
        let answer = reqwest::Client::new()
            .get(&signed.url)
            .header(header, value)
            .send()
            .await
            .unwrap();
        let said = answer
            .headers()
            .get("content-range")
            .map_or("", |v| v.to_str().unwrap())
            .to_owned();
        assert_eq!((answer.status().as_u16(), said.as_str()), (status, range), "{value}");
        if status < 300 {
            assert_eq!(answer.text().await.unwrap(), body, "{value}");
        }
    }
    let request = reqwest::Client::new().get(&signed.url).header("range", "bytes=2-3");
    let answer = request.header("if-range", "\"x\"").send().await.unwrap();
    assert_eq!(answer.status(), 200, "the part of an unknown version is the whole");
}

/// Without a length in the head, and with one that the body does not keep.
#[tokio::test]
async fn a_body_is_counted_while_it_comes() {
    let world = World::new().await;
    let signed = world.sign_put("c", b"hello").await;
    let path = path(&signed);
    let chunked = |chunks: &str| {
        format!("PUT {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n{chunks}")
    };
    let cases = [
        (chunked("b\r\nhello world\r\n0\r\n\r\n"), "413"),
        (chunked("4\r\nhell\r\n0\r\n\r\n"), "400"),
        (chunked("5\r\njello\r\n0\r\n\r\n"), "400"),
        (chunked("5\r\nhello\r\nzz\r\n"), "400"),
        (chunked("3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"), "200"),
    ];
    for (request, status) in cases {
        let missing = world.blobs.get(&name("c")).await;
        assert!(matches!(missing, Err(BlobError::NotFound(_))), "{missing:?}");
        let answer = world.raw(request.as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{request}\n{answer}");
        assert_eq!(world.unfinished(), 0, "{request}");
    }
    assert_eq!(world.blobs.get(&name("c")).await.unwrap(), b"hello");
}

#[tokio::test]
async fn an_upload_that_breaks_off_leaves_nothing() {
    let world = World::new().await;
    let signed = world.sign_put("b", &[7; 1_000_000]).await;
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    let head = format!(
        "PUT {} HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n",
        path(&signed)
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&[7; 500_000]).await.unwrap();
    let until = |wanted: usize| {
        let world = &world;
        async move {
            let begun = Instant::now();
            while world.unfinished() != wanted {
                assert!(begun.elapsed() < Duration::from_secs(30), "{wanted} unfinished files");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    };
    until(1).await;
    drop(stream);
    until(0).await;
    assert!(world.blobs.get(&name("b")).await.is_err());
}

/// Both ways: the file and the room are let go.
#[tokio::test(start_paused = true)]
async fn a_peer_that_stands_still_is_left() {
    let pieces = futures::stream::iter([Ok::<_, std::io::Error>("hel")]).chain(futures::stream::pending());
    let mut still = transfer::reader(Body::from_stream(pieces));
    let begun = tokio::time::Instant::now();
    let mut read = Vec::new();
    let error = still.read_to_end(&mut read).await.unwrap_err();
    assert_eq!(
        (error.kind(), read.as_slice()),
        (std::io::ErrorKind::TimedOut, &b"hel"[..])
    );
    assert!(begun.elapsed() >= STALL);

    let room = Arc::new(Semaphore::new(1));
    let permit = room.clone().acquire_owned().await.unwrap();
    let endless = Box::pin(tokio::io::repeat(7));
    let body = transfer::body(name("a"), endless, 1 << 30, permit);
    let begun = tokio::time::Instant::now();
    let _again = room.acquire().await.unwrap();
    assert!(begun.elapsed() >= STALL, "the permit is held until then");
    drop(body);
}

#[tokio::test]
async fn there_is_room_for_so_many() {
    let world = World::new().await;
    world.blobs.put(&name("a"), vec![7; 10]).await.unwrap();
    let state = Blobs {
        blobs: world.blobs.clone(),
        room: Arc::new(Semaphore::new(0)),
    };
    assert_eq!(state.admit().unwrap_err().status(), StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn a_refusal_says_why_in_a_problem() {
    let world = World::new().await;
    let signed = world.blobs.sign_get(&name("a"), VALID).await.unwrap();
    let cases = [
        (signed.url.clone(), 404),
        (format!("{}0", signed.url), 403),
        (signed.url.replace("/a?", "/a%2e?"), 403),
        (signed.url.replace("/a?", "/../a?"), 404),
        (signed.url.replace("expires", "expiry"), 403),
    ];
    for (url, status) in cases {
        let answer = reqwest::get(&url).await.unwrap();
        assert_eq!(answer.status(), status, "{url}");
        if status == 403 {
            assert_eq!(answer.headers()["content-type"], "application/problem+json");
            let problem: serde_json::Value = answer.json().await.unwrap();
            assert_eq!(problem["type"], "urn:buildflow:problem:bad-signature");
            assert!(!problem["detail"].as_str().unwrap().is_empty());
        }
    }
}
