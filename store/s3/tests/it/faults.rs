//! Whatever happens between us and the object store: it is tried again, or said; never believed by half.

use crate::proxy::{Break, Proxy};
use crate::server::S3Server;
use std::time::{Duration, Instant};
use store::{BlobError, BlobName, BlobStore};
use store_s3::{Patience, S3Blobs, S3Config};
use tokio::io::AsyncReadExt as _;

/// Short enough to see a time-out, long enough for a loaded machine to answer what is not broken.
fn patience() -> Patience {
    Patience {
        connect: Duration::from_secs(5),
        read: Duration::from_secs(5),
        body: Duration::from_secs(5),
        operation: Duration::from_secs(60),
    }
}

struct World {
    server: S3Server,
    proxy: Proxy,
    blobs: S3Blobs,
}

impl World {
    async fn new(patience: Patience) -> Option<Self> {
        let server = S3Server::start()?;
        let proxy = Proxy::start(server.address());
        let blobs = server.blobs_over(proxy.endpoint(), patience).await;
        proxy.passed();
        Some(Self { server, proxy, blobs })
    }

    /// An error says where.
    fn assert_named(&self, error: &BlobError) {
        let text = error.to_string();
        let (endpoint, bucket) = (self.proxy.endpoint(), self.server.config().bucket);
        assert!(text.contains(&endpoint) && text.contains(&bucket), "{text}");
    }
}

fn name(text: &str) -> BlobName {
    BlobName::new(text).expect("a legal name")
}

fn bytes() -> Vec<u8> {
    (0..200_000_u32).map(|i| (i % 251) as u8).collect()
}

/// Reads a stream to its end.
async fn streamed(blobs: &S3Blobs, text: &str) -> Result<Vec<u8>, String> {
    let mut reader = blobs.get_stream(&name(text), 0).await.map_err(|e| e.to_string())?;
    let mut read = Vec::new();
    match reader.bytes.read_to_end(&mut read).await {
        Ok(_) => Ok(read),
        Err(error) => Err(error.to_string()),
    }
}

const OVERLOAD: Break = Break::Status(503, "SlowDown");
const FAILURE: Break = Break::Status(500, "InternalError");

/// Every call goes through although the first answers are no answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_for_a_moment_is_tried_again() {
    let Some(world) = World::new(patience()).await else {
        return;
    };
    let blobs = &world.blobs;
    for how in [FAILURE, OVERLOAD, Break::LoseAnswer] {
        let broken_twice = |has: &'static str| world.proxy.will(how, has, 2);
        broken_twice("PUT ");
        blobs.put(&name("a/b"), bytes()).await.expect("it is stored");
        broken_twice("GET ");
        assert!(blobs.get(&name("a/b")).await.expect("it is read") == bytes());
        broken_twice("GET ");
        assert!(streamed(blobs, "a/b").await.expect("it is read") == bytes());
        broken_twice("GET ");
        assert_eq!(blobs.list("a/").await.expect("it is listed").len(), 1);
        broken_twice("DELETE ");
        blobs.delete(&name("a/b")).await.expect("it is removed");
        assert_eq!(world.proxy.broken(), 10, "{how:?}");
        assert!(matches!(blobs.get(&name("a/b")).await, Err(BlobError::NotFound(_))));
    }
}

/// A call gives up, says where, and what was there is there when it is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_for_long_is_said() {
    let Some(world) = World::new(patience()).await else {
        return;
    };
    let blobs = &world.blobs;
    blobs.put(&name("a"), bytes()).await.expect("it is stored");
    for (how, word) in [
        (FAILURE, "500 InternalError"),
        (OVERLOAD, "503 SlowDown"),
        (Break::LoseAnswer, "endpoint"),
    ] {
        world.proxy.broken();
        world.proxy.will(how, "", u64::MAX);
        let errors = [
            blobs.get(&name("a")).await.map(drop),
            blobs.get_range(&name("a"), 5, 5).await.map(drop),
            blobs.put(&name("b"), bytes()).await,
            blobs.list("").await.map(drop),
            blobs.delete(&name("a")).await,
        ];
        for error in errors {
            let error = error.expect_err("nothing gets through");
            world.assert_named(&error);
            assert!(error.to_string().contains(word), "{error}");
        }
        let attempts = world.proxy.broken();
        assert!((5..=5 * 4).contains(&attempts), "{attempts} attempts for 5 calls");
        world.proxy.heal();
        if how == Break::LoseAnswer {
            // It was done all the same.
            blobs.put(&name("a"), bytes()).await.expect("it is stored");
        }
        assert!(blobs.get(&name("a")).await.expect("it is read") == bytes(), "{how:?}");
    }
}

/// A silent server costs no more than the time-outs say.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_server_is_left_in_time() {
    let hasty = Patience {
        read: Duration::from_millis(500),
        connect: Duration::from_millis(500),
        body: Duration::from_millis(500),
        operation: Duration::from_secs(3),
    };
    let Some(world) = World::new(patience()).await else {
        return;
    };
    let stored = world.blobs.put(&name("a"), bytes()).await;
    stored.expect("it is stored");
    let blobs = world.server.blobs_over(world.proxy.endpoint(), hasty).await;
    for how in [Break::Stall, Break::StallBody] {
        world.proxy.broken();
        world.proxy.will(how, "", u64::MAX);
        let begun = Instant::now();
        let error = blobs.get(&name("a")).await.expect_err("nothing comes");
        world.assert_named(&error);
        assert!(error.to_string().contains("in time"), "{error}");
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "{how:?} took {:?}",
            begun.elapsed()
        );
        assert!(world.proxy.broken() >= 1, "{how:?}");
        world.proxy.heal();
    }
    assert!(world.blobs.get(&name("a")).await.expect("it is read") == bytes());
    // One slow answer is waited out by asking again.
    world.proxy.will(Break::Stall, "GET ", 1);
    assert!(world.blobs.get(&name("a")).await.expect("it is read") == bytes());
    assert_eq!(world.proxy.broken(), 1);
}

/// Cut, shortened, or altered: read again while that may help, then refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_never_passes_for_the_whole() {
    let Some(world) = World::new(patience()).await else {
        return;
    };
    let blobs = &world.blobs;
    blobs.put(&name("a"), bytes()).await.expect("it is stored");
    let broken = [
        Break::CutBody(0),
        Break::CutBody(1_000),
        Break::ShortLength(0),
        Break::ShortLength(1_000),
        Break::ShortObject(1_000),
        Break::Alter,
    ];
    for how in broken {
        world.proxy.will(how, "GET ", 1);
        assert!(
            blobs.get(&name("a")).await.expect("it is read again") == bytes(),
            "{how:?}"
        );
        assert_eq!(world.proxy.broken(), 1, "{how:?}");
        world.proxy.will(how, "GET ", u64::MAX);
        let got = blobs.get(&name("a")).await;
        world.assert_named(&got.expect_err("a part is no blob"));
        assert!(world.proxy.broken() > 1, "{how:?}");
        let got = streamed(blobs, "a").await;
        assert!(got.is_err(), "{how:?}: {} bytes", got.map_or(0, |b| b.len()));
        assert!(world.proxy.broken() >= 1, "{how:?}");
        // Of a range it shows by the length alone.
        if matches!(how, Break::CutBody(_) | Break::ShortLength(_)) {
            let got = blobs.get_range(&name("a"), 10, 5_000).await;
            world.assert_named(&got.expect_err("a part is no range"));
            assert!(world.proxy.broken() > 1, "{how:?}");
        }
        world.proxy.heal();
    }
    assert!(blobs.get(&name("a")).await.expect("it is read") == bytes());
}

/// Nobody listens; later somebody does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_may_go_and_come_back() {
    let Some(world) = World::new(patience()).await else {
        return;
    };
    let blobs = &world.blobs;
    blobs.put(&name("a"), bytes()).await.expect("it is stored");
    for _ in 0..2 {
        world.proxy.go_away();
        world.proxy.passed();
        let errors = [
            blobs.get(&name("a")).await.map(drop),
            blobs.put(&name("b"), bytes()).await,
            blobs.list("").await.map(drop),
        ];
        for error in errors {
            let error = error.expect_err("nobody is there");
            world.assert_named(&error);
            assert!(
                error.to_string().contains("check that the object store runs"),
                "{error}"
            );
        }
        assert_eq!(world.proxy.passed(), 0, "it was away");
        world.proxy.come_back();
        assert!(blobs.get(&name("a")).await.expect("it is read") == bytes());
        assert!(world.proxy.passed() >= 1);
    }
    // A call that began while nobody was there ends well if somebody comes in time.
    world.proxy.go_away();
    let blob = name("a");
    let (got, ()) = tokio::join!(blobs.get(&blob), async {
        tokio::task::yield_now().await;
        world.proxy.come_back();
    });
    assert!(got.expect("it is read") == bytes());
}

/// At the start, with what to mend.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_configuration_says_what_to_mend() {
    let Some(server) = S3Server::start() else { return };
    let proxy = Proxy::start(server.address());
    let over = |endpoint: String| S3Config {
        endpoint: Some(endpoint),
        ..server.config()
    };
    let away = Proxy::start(server.address());
    away.go_away();
    let cases = [
        (over(away.endpoint()), "check that the object store runs"),
        (
            S3Config {
                bucket: "absent".to_owned(),
                ..over(proxy.endpoint())
            },
            "`absent`",
        ),
        (
            S3Config {
                secret_key: "wrong".to_owned(),
                ..over(proxy.endpoint())
            },
            "check the access key",
        ),
    ];
    for (config, mend) in cases {
        let endpoint = config.endpoint.clone().expect("set");
        let refused = S3Blobs::connect(config).await.expect_err("it is wrong");
        assert!(matches!(refused, BlobError::Unusable(_)), "{refused:?}");
        let text = refused.to_string();
        assert!(text.contains(mend) && text.contains(&endpoint), "{text}");
    }
    proxy.will(Break::Status(403, "RequestTimeTooSkewed"), "GET ", 1);
    let blobs = server.blobs_over(proxy.endpoint(), patience()).await;
    let refused = blobs.get(&name("a")).await.expect_err("the clock is wrong").to_string();
    assert!(refused.contains("set this machine's clock"), "{refused}");
    assert_eq!(proxy.broken(), 1);
}
