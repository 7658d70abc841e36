//! Signed URLs: they give just the right that was signed, to somebody without credentials.
//!
//! Not here: how a request is sent; the fixture brings a client, so that real HTTP is spoken.

use crate::blob::{BlobError, BlobName, BlobStore, Digest, PutTerms, SIGNED_MAX, SignedUrl};
use async_trait::async_trait;
use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Long enough for any case.
const VALID: Duration = Duration::from_secs(600);

/// A case that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
}

/// Sends HTTP requests without any credentials.
#[async_trait]
pub trait Client: Send + Sync {
    /// Sends one request with just these headers, besides what HTTP itself needs.
    async fn send(&self, method: &str, url: &str, headers: &[(String, String)], body: Vec<u8>) -> Answer;
}

/// A blob store whose URLs somebody answers.
pub struct Fixture {
    /// The blobs, empty.
    pub blobs: Arc<dyn BlobStore>,
    /// A stranger.
    pub client: Box<dyn Client>,
    /// The server gives bytes their name before it checks them, and then refuses them: only the
    /// refusal can be tested.
    pub stores_what_it_refuses: bool,
    /// What must live as long.
    pub keep: Box<dyn Any + Send + Sync>,
}

/// Makes one test of each case of signed URLs for a blob store. Takes the path of a function that
/// gives a new [`Fixture`]; `None` skips, and the function says why.
#[macro_export]
macro_rules! signed_url_conformance_tests {
    ($fresh:path) => {
        $crate::signed_url_conformance_tests! { @each $fresh:
            a_signed_get_reads_that_blob, a_signed_put_stores_those_bytes, other_bytes_are_refused,
            other_lengths_are_refused, another_name_is_refused, an_expired_url_is_refused,
            a_tampered_url_is_refused, a_url_serves_its_method_only, a_blob_that_is_not_there_is_missing,
            strange_validities_are_not_signed
        }
    };
    (@each $fresh:path: $($case:ident),+ $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                if let Some(fixture) = $fresh() {
                    $crate::conformance::urls::$case(fixture).await;
                }
            }
        )+
    };
}

fn name(text: &str) -> BlobName {
    BlobName::new(text).expect("a legal name")
}

impl Fixture {
    async fn send(&self, signed: &SignedUrl, body: &[u8]) -> Answer {
        self.client
            .send(signed.method, &signed.url, &signed.headers, body.to_vec())
            .await
    }

    async fn sign_get(&self, text: &str) -> SignedUrl {
        self.blobs.sign_get(&name(text), VALID).await.expect("it is signed")
    }

    async fn sign_put(&self, text: &str, bytes: &[u8]) -> SignedUrl {
        self.blobs
            .sign_put(&name(text), terms(bytes), VALID)
            .await
            .expect("it is signed")
    }

    async fn nothing_at(&self, text: &str) {
        if !self.stores_what_it_refuses {
            let got = self.blobs.get(&name(text)).await;
            assert!(matches!(got, Err(BlobError::NotFound(_))), "{text}: {got:?}");
        }
    }
}

fn terms(bytes: &[u8]) -> PutTerms {
    PutTerms {
        length: bytes.len() as u64,
        sha256: Digest::of(bytes),
    }
}

fn assert_refused(answer: &Answer, what: &str) {
    let text = String::from_utf8_lossy(&answer.body);
    assert!((400..500).contains(&answer.status), "{what}: {} {text}", answer.status);
}

fn assert_done(answer: &Answer) {
    let text = String::from_utf8_lossy(&answer.body);
    assert!((200..300).contains(&answer.status), "{} {text}", answer.status);
}

/// With other values under the same names.
fn with_header(signed: &SignedUrl, header: &str, value: &str) -> SignedUrl {
    let mut other = signed.clone();
    for (_, old) in other.headers.iter_mut().filter(|(name, _)| name == header) {
        value.clone_into(old);
    }
    other
}

/// Whole and in part.
pub async fn a_signed_get_reads_that_blob(fixture: Fixture) {
    let bytes: Vec<u8> = (0..100_000_u32).map(|i| (i % 251) as u8).collect();
    fixture
        .blobs
        .put(&name("urls/a-b_c.d"), bytes.clone())
        .await
        .expect("it is stored");
    let signed = fixture.sign_get("urls/a-b_c.d").await;
    let whole = fixture.send(&signed, b"").await;
    assert_eq!((whole.status, whole.body == bytes), (200, true));
    let mut part = signed.clone();
    part.headers.push(("range".to_owned(), "bytes=10-19".to_owned()));
    let part = fixture.send(&part, b"").await;
    assert_eq!((part.status, part.body.as_slice()), (206, &bytes[10..20]));
}

/// More than once, and empty ones too.
pub async fn a_signed_put_stores_those_bytes(fixture: Fixture) {
    for (text, bytes) in [
        ("urls/few", b"hello".to_vec()),
        ("urls/many", vec![7; 300_000]),
        ("urls/none", Vec::new()),
    ] {
        let signed = fixture.sign_put(text, &bytes).await;
        for _ in 0..2 {
            assert_done(&fixture.send(&signed, &bytes).await);
            let stored = fixture.blobs.get(&name(text)).await.expect("it is there");
            assert!(stored == bytes, "{text}");
        }
    }
}

/// Of the same length.
pub async fn other_bytes_are_refused(fixture: Fixture) {
    let signed = fixture.sign_put("urls/other", b"hello").await;
    assert_refused(&fixture.send(&signed, b"jello").await, "other bytes");
    fixture.nothing_at("urls/other").await;
    assert_done(&fixture.send(&signed, b"hello").await);
    let stored = fixture.blobs.get(&name("urls/other")).await.expect("it is there");
    assert_eq!(stored, b"hello");
}

/// Fewer and more, said honestly.
pub async fn other_lengths_are_refused(fixture: Fixture) {
    let signed = fixture.sign_put("urls/length", b"hello").await;
    for bytes in [b"hell".as_slice(), b"hello, world", b""] {
        let other = with_header(&signed, "content-length", &bytes.len().to_string());
        assert_refused(&fixture.send(&other, bytes).await, "another length");
    }
    fixture.nothing_at("urls/length").await;
}

/// For reading and for storing.
pub async fn another_name_is_refused(fixture: Fixture) {
    for text in ["urls/one", "urls/two"] {
        fixture.blobs.put(&name(text), text.into()).await.expect("it is stored");
    }
    for signed in [
        fixture.sign_get("urls/one").await,
        fixture.sign_put("urls/one", b"new").await,
    ] {
        let other = SignedUrl {
            url: signed.url.replace("urls/one", "urls/two"),
            ..signed.clone()
        };
        let body: &[u8] = if signed.method == "PUT" { b"new" } else { b"" };
        assert_refused(&fixture.send(&other, body).await, "another name");
        assert_done(&fixture.send(&signed, body).await);
    }
    let kept = fixture.blobs.get(&name("urls/two")).await.expect("it is there");
    assert_eq!(kept, b"urls/two");
}

/// Right at first, and never again once its time is over.
pub async fn an_expired_url_is_refused(fixture: Fixture) {
    let blob = name("urls/soon");
    fixture.blobs.put(&blob, b"x".to_vec()).await.expect("it is stored");
    let short = Duration::from_secs(1);
    let get = fixture.blobs.sign_get(&blob, short).await.expect("it is signed");
    let late = name("urls/late");
    let put = fixture.blobs.sign_put(&late, terms(b"late"), short).await;
    let put = put.expect("it is signed");
    let begun = Instant::now();
    while fixture.send(&get, b"").await.status == 200 {
        assert!(begun.elapsed() < PATIENCE, "it expires");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_refused(&fixture.send(&get, b"").await, "an expired URL to read");
    assert_refused(&fixture.send(&put, b"late").await, "an expired URL to store");
    fixture.nothing_at("urls/late").await;
}

/// In the signature, in the time, or without any.
pub async fn a_tampered_url_is_refused(fixture: Fixture) {
    let blob = name("urls/t");
    fixture.blobs.put(&blob, b"x".to_vec()).await.expect("it is stored");
    let signed = fixture.sign_get("urls/t").await;
    let (path, query) = signed.url.split_once('?').expect("a query");
    let pairs: Vec<&str> = query.split('&').collect();
    let is = |pair: &str, end: &str| {
        pair.split('=')
            .next()
            .is_some_and(|key| key.to_lowercase().ends_with(end))
    };
    let change = |end: &str, change: &dyn Fn(&str) -> String| {
        let one = |pair: &&str| {
            if is(pair, end) {
                change(pair)
            } else {
                (*pair).to_owned()
            }
        };
        let changed: Vec<String> = pairs.iter().map(one).collect();
        format!("{path}?{}", changed.join("&"))
    };
    let last = |pair: &str| {
        let (kept, last) = pair.split_at(pair.len() - 1);
        format!("{kept}{}", if last == "0" { "1" } else { "0" })
    };
    let urls = [
        change("signature", &last),
        change("expires", &|pair| format!("{pair}0")),
        path.to_owned(),
    ];
    for url in urls {
        assert_ne!(url, signed.url);
        let tampered = SignedUrl { url, ..signed.clone() };
        assert_refused(&fixture.send(&tampered, b"").await, "a tampered URL");
    }
    assert_done(&fixture.send(&signed, b"").await);
}

/// Who may read may not store, nor remove; who may store may not read.
pub async fn a_url_serves_its_method_only(fixture: Fixture) {
    fixture
        .blobs
        .put(&name("urls/m"), b"kept".to_vec())
        .await
        .expect("it is stored");
    let get = fixture.sign_get("urls/m").await;
    let put = fixture.sign_put("urls/m", b"other").await;
    for (signed, method, body) in [
        (&get, "PUT", b"other".as_slice()),
        (&get, "DELETE", b""),
        (&put, "GET", b""),
        (&put, "DELETE", b""),
    ] {
        let headers: &[(String, String)] = if body.is_empty() { &[] } else { &put.headers };
        let answer = fixture.client.send(method, &signed.url, headers, body.to_vec()).await;
        assert_refused(&answer, method);
    }
    let kept = fixture.blobs.get(&name("urls/m")).await.expect("it is there");
    assert_eq!(kept, b"kept");
}

/// A URL may be signed before the blob is there.
pub async fn a_blob_that_is_not_there_is_missing(fixture: Fixture) {
    let signed = fixture.sign_get("urls/absent").await;
    assert_eq!(fixture.send(&signed, b"").await.status, 404);
}

/// For no time, and for ever.
pub async fn strange_validities_are_not_signed(fixture: Fixture) {
    for validity in [Duration::ZERO, Duration::from_millis(999), SIGNED_MAX + VALID] {
        let get = fixture.blobs.sign_get(&name("a"), validity).await;
        let put = fixture.blobs.sign_put(&name("a"), terms(b""), validity).await;
        for signed in [get, put] {
            assert!(matches!(signed, Err(BlobError::NotSigned { .. })), "{signed:?}");
        }
    }
}
