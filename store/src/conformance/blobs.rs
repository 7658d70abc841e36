//! Blobs: whole, replaceable, listed in order.

use crate::blob::{BlobError, BlobName, BlobStore, Broken, Digest, NAME_PART_MAX};
use std::io::Cursor;
use std::sync::Arc;
use tokio::io::AsyncReadExt as _;

/// More than an object store takes in one request of ours, and no round number.
const LARGE: usize = 33 * 1024 * 1024 + 7;

fn name(text: &str) -> BlobName {
    BlobName::new(text).expect("a legal name")
}

async fn put(blobs: &dyn BlobStore, text: &str, bytes: &[u8]) {
    blobs.put(&name(text), bytes.to_vec()).await.expect("it is stored");
}

async fn listed(blobs: &dyn BlobStore, prefix: &str) -> Vec<String> {
    let entries = blobs.list(prefix).await.expect("it is listed");
    entries
        .iter()
        .map(|e| format!("{}:{}", e.name.as_str(), e.size))
        .collect()
}

/// Of any size, under names of any legal shape.
pub async fn what_is_put_is_read(blobs: Arc<dyn BlobStore>) {
    for text in ["a", "log/01jd/3/1.1/00000000000000000000", "A.b_c-D", "..a/.b/c.."] {
        for size in [0, 1, 300_000] {
            let bytes: Vec<u8> = (0..size).map(|i: u32| (i % 251) as u8).collect();
            put(&*blobs, text, &bytes).await;
            assert!(
                blobs.get(&name(text)).await.expect("it is there") == bytes,
                "{text} of {size}"
            );
        }
    }
}

/// Up to the limits.
pub async fn long_names_are_kept(blobs: Arc<dyn BlobStore>) {
    let part = |letter: &str| letter.repeat(NAME_PART_MAX);
    let longest = [part("a"), part("b"), part("c"), part("d"), "e".repeat(96)].join("/");
    for text in [format!("{}/{}/x", part("a"), part("b")), longest] {
        put(&*blobs, &text, b"here").await;
        assert_eq!(blobs.get(&name(&text)).await.expect("it is there"), b"here");
    }
    assert_eq!(blobs.list("").await.expect("it is listed").len(), 2);
}

/// Reading what is not there says which.
pub async fn a_missing_blob_is_named(blobs: Arc<dyn BlobStore>) {
    put(&*blobs, "a/b", b"1").await;
    for missing in ["x", "a", "a/c", "a/b/c", "x/y"] {
        let got = blobs.get(&name(missing)).await;
        assert!(
            matches!(&got, Err(BlobError::NotFound(n)) if n == missing),
            "{missing}: {got:?}"
        );
        let got = blobs.get_range(&name(missing), 0, 1).await;
        assert!(
            matches!(&got, Err(BlobError::NotFound(n)) if n == missing),
            "{missing}: {got:?}"
        );
    }
}

/// Beyond the end there is nothing, and that is no error.
pub async fn ranges_end_with_the_blob(blobs: Arc<dyn BlobStore>) {
    put(&*blobs, "r", b"0123456789").await;
    let cases: [(u64, u64, &[u8]); 8] = [
        (0, 10, b"0123456789"),
        (0, u64::MAX, b"0123456789"),
        (3, 4, b"3456"),
        (8, 5, b"89"),
        (10, 5, b""),
        (1_000_000, 5, b""),
        (2, 0, b""),
        (u64::MAX, u64::MAX, b""),
    ];
    for (offset, len, expected) in cases {
        let got = blobs.get_range(&name("r"), offset, len).await.expect("it is there");
        assert_eq!(got, expected, "{offset}+{len}");
    }
}

/// The second put wins, longer or shorter.
pub async fn a_put_replaces_the_whole_blob(blobs: Arc<dyn BlobStore>) {
    for bytes in [b"first".as_slice(), b"the second, longer", b"3"] {
        put(&*blobs, "k/x", bytes).await;
        assert_eq!(blobs.get(&name("k/x")).await.expect("it is there"), bytes);
    }
    assert_eq!(listed(&*blobs, "k/").await, ["k/x:1"]);
}

/// While a blob is replaced again and again, every read is one of its whole values.
pub async fn a_reader_never_sees_a_part(blobs: Arc<dyn BlobStore>) {
    put(&*blobs, "k", &[0; 50_000]).await;
    let writer = tokio::spawn({
        let blobs = blobs.clone();
        async move {
            for n in 0..100u8 {
                put(&*blobs, "k", &vec![n; 50_000 + usize::from(n)]).await;
            }
        }
    });
    while !writer.is_finished() {
        let bytes = blobs.get(&name("k")).await.expect("it is there");
        assert_eq!(bytes.len(), 50_000 + usize::from(bytes[0]));
        assert!(bytes.iter().all(|b| *b == bytes[0]), "one value");
    }
    writer.await.expect("the writer does not panic");
}

/// `log/1/` takes what lies below it and not its neighbours; names are in bytewise order.
pub async fn listings_are_whole_parts_in_order(blobs: Arc<dyn BlobStore>) {
    for text in ["log/1/b", "log/1/a/x", "log/1/a", "log/1/a-b", "log/10/c", "log/1", "z"] {
        put(&*blobs, text, b"12").await;
    }
    let of_one = ["log/1/a:2", "log/1/a-b:2", "log/1/a/x:2", "log/1/b:2"];
    assert_eq!(listed(&*blobs, "log/1/").await, of_one);
    assert_eq!(listed(&*blobs, "log/1/a/").await, ["log/1/a/x:2"]);
    assert_eq!(listed(&*blobs, "nothing/").await, Vec::<String>::new());
    assert_eq!(listed(&*blobs, "z/").await, Vec::<String>::new());
    let all = blobs.list("").await.expect("it is listed");
    let names: Vec<&str> = all.iter().map(|e| e.name.as_str()).collect();
    assert_eq!((names.len(), names.is_sorted()), (7, true), "{names:?}");
}

/// Pages of any length show the same as the whole listing, also after names that are not there.
pub async fn pages_join_without_gap_or_repeat(blobs: Arc<dyn BlobStore>) {
    for text in ["p/a", "p/a-b", "p/a.b", "p/a/x", "p/a/y/z", "p/a0", "p/b", "q", "o/z"] {
        put(&*blobs, text, b"12").await;
    }
    for (prefix, count) in [("p/", 7), ("", 9), ("p/a/", 2), ("none/", 0)] {
        let whole = blobs.list(prefix).await.expect("it is listed");
        assert_eq!(whole.len(), count, "{prefix}");
        for limit in [1, 2, 3, 100, usize::MAX] {
            let (mut joined, mut after, mut pages) = (Vec::new(), None, 0);
            loop {
                let page = blobs.list_page(prefix, after.as_ref(), limit).await;
                let page = page.expect("it is listed");
                assert!(page.entries.len() <= limit);
                joined.extend(page.entries);
                pages += 1;
                assert!(pages <= count + 1, "pages end");
                match page.next {
                    Some(next) => after = Some(next),
                    None => break,
                }
            }
            assert_eq!(joined, whole, "{prefix} by {limit}");
        }
    }
    for (after, first) in [
        ("p/a", "p/a-b"),
        ("p/a/x", "p/a/y/z"),
        ("p/a/k", "p/a/x"),
        ("a", "p/a"),
        ("p/aa", "p/b"),
    ] {
        let page = blobs
            .list_page("p/", Some(&name(after)), 1)
            .await
            .expect("it is listed");
        assert_eq!(page.entries[0].name.as_str(), first, "after {after}");
    }
    let page = blobs.list_page("p/", Some(&name("z")), 5).await.expect("it is listed");
    assert!(page.entries.is_empty() && page.next.is_none());
}

/// In and out, whole and by range; and as one value.
pub async fn large_blobs_are_streamed(blobs: Arc<dyn BlobStore>) {
    let bytes: Vec<u8> = (0..LARGE).map(|i| (i % 251) as u8).collect();
    let digest = Digest::of(&bytes);
    let (large, length) = (name("large/streamed"), LARGE as u64);
    for announced in [None, Some(digest)] {
        let source = Box::pin(Cursor::new(bytes.clone()));
        let stored = blobs.put_stream(&large, length, announced, source).await;
        assert_eq!(stored.expect("it is stored"), digest);
        let mut reader = blobs.get_stream(&large, 0).await.expect("it is there");
        let mut read = Vec::new();
        reader.bytes.read_to_end(&mut read).await.expect("it is read");
        assert!(reader.size == length && read == bytes, "{} bytes", read.len());
    }
    let at = length - 5_000_000;
    let part = blobs.get_range(&large, at, u64::MAX).await.expect("it is there");
    assert!(part == bytes[LARGE - 5_000_000..]);
    let whole = name("large/whole");
    blobs.put(&whole, bytes.clone()).await.expect("it is stored");
    assert!(blobs.get(&whole).await.expect("it is there") == bytes);
    let sizes: Vec<u64> = blobs
        .list("large/")
        .await
        .expect("it is listed")
        .iter()
        .map(|e| e.size)
        .collect();
    assert_eq!(sizes, [length, length]);
}

/// From the first byte to beyond the last.
pub async fn a_stream_begins_anywhere(blobs: Arc<dyn BlobStore>) {
    put(&*blobs, "s", b"0123456789").await;
    put(&*blobs, "empty", b"").await;
    let cases: [(&str, u64, &[u8]); 6] = [
        ("s", 0, b"0123456789"),
        ("s", 7, b"789"),
        ("s", 10, b""),
        ("s", 1_000, b""),
        ("s", u64::MAX, b""),
        ("empty", 0, b""),
    ];
    for (text, offset, expected) in cases {
        let mut reader = blobs.get_stream(&name(text), offset).await.expect("it is there");
        let mut read = Vec::new();
        reader.bytes.read_to_end(&mut read).await.expect("it is read");
        assert_eq!(read, expected, "{text} from {offset}");
        assert_eq!(reader.size, if text == "s" { 10 } else { 0 });
    }
    let missing = blobs.get_stream(&name("no"), 0).await;
    assert!(
        matches!(&missing, Err(BlobError::NotFound(n)) if n == "no"),
        "{missing:?}"
    );
}

/// Too few, too many, others, or none that can be read: the old blob stays, or none.
pub async fn a_stream_is_stored_as_announced_or_not_at_all(blobs: Arc<dyn BlobStore>) {
    put(&*blobs, "old", b"old").await;
    let other = Some(Digest::of(b"other"));
    for (size, text) in [(5_usize, "old"), (5, "new"), (LARGE, "old"), (LARGE, "new")] {
        let bytes = vec![7; size];
        let length = size as u64;
        for (announced, sha256) in [(length + 1, None), (length - 1, None), (length, other)] {
            let source = Box::pin(Cursor::new(bytes.clone()));
            let stored = blobs.put_stream(&name(text), announced, sha256, source).await;
            let Err(BlobError::NotAsAnnounced { broken, .. }) = stored else {
                panic!("{size} announced as {announced}: {stored:?}");
            };
            let right = match broken {
                Broken::TooShort { came, .. } => announced > length && came == length,
                Broken::TooLong(of) => announced < length && of == announced,
                Broken::OtherBytes { came, .. } => sha256.is_some() && came == Digest::of(&bytes),
            };
            assert!(right, "{size} announced as {announced}: {broken}");
        }
        let torn = Cursor::new(bytes.clone()).chain(Torn);
        let stored = blobs.put_stream(&name(text), length + 1, None, Box::pin(torn)).await;
        assert!(matches!(stored, Err(BlobError::Source { .. })), "{stored:?}");
    }
    assert_eq!(blobs.get(&name("old")).await.expect("it is there"), b"old");
    assert_eq!(listed(&*blobs, "").await, ["old:3"]);
}

/// A source that fails.
struct Torn;

impl tokio::io::AsyncRead for Torn {
    fn poll_read(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        _: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Err(std::io::Error::other("torn")))
    }
}

/// A name may continue another one's.
pub async fn a_blob_may_lie_below_another(blobs: Arc<dyn BlobStore>) {
    put(&*blobs, "a", b"1").await;
    put(&*blobs, "a/b/c", b"2").await;
    put(&*blobs, "a/b", b"3").await;
    for (text, bytes) in [("a", b"1"), ("a/b/c", b"2"), ("a/b", b"3")] {
        assert_eq!(blobs.get(&name(text)).await.expect("it is there"), bytes);
    }
    blobs.delete(&name("a")).await.expect("it is deleted");
    assert_eq!(listed(&*blobs, "").await, ["a/b:1", "a/b/c:1"]);
}

/// What was deleted is gone; what was not there is no error; neighbours stay.
pub async fn deleting_is_quiet_and_complete(blobs: Arc<dyn BlobStore>) {
    put(&*blobs, "a/b/c", b"1").await;
    put(&*blobs, "a/d", b"1").await;
    for gone in ["a/b/c", "a/b/c", "never", "a/b", "a/d/never", "x/y/z"] {
        blobs.delete(&name(gone)).await.expect("no error");
    }
    assert_eq!(listed(&*blobs, "").await, ["a/d:1"]);
    put(&*blobs, "a/b/c", b"2").await;
    assert_eq!(blobs.get(&name("a/b/c")).await.expect("it is there"), b"2");
}

/// Puts below a name that is emptied all the time.
pub async fn deletes_and_puts_do_not_disturb_each_other(blobs: Arc<dyn BlobStore>) {
    let workers: Vec<_> = (0..4)
        .map(|worker| {
            let blobs = blobs.clone();
            tokio::spawn(async move {
                for n in 0..25 {
                    let text = format!("deep/er/{worker}");
                    put(&*blobs, &text, &[n]).await;
                    assert_eq!(blobs.get(&name(&text)).await.expect("own blob is there"), [n]);
                    blobs.delete(&name(&text)).await.expect("it is deleted");
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.expect("no worker panics");
    }
    assert_eq!(listed(&*blobs, "").await, Vec::<String>::new());
}

/// Nothing leads out of the store, and prefixes are whole parts.
pub async fn illegal_names_are_refused(blobs: Arc<dyn BlobStore>) {
    let long_part = "x".repeat(NAME_PART_MAX + 1);
    let long = vec!["x".repeat(NAME_PART_MAX); 5].join("/");
    for text in [
        "", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "a/.", "a@", "a b", "ü", "a\0", "a\\b", &long_part, &long,
    ] {
        let made = BlobName::new(text);
        assert!(matches!(made, Err(BlobError::IllegalName(_))), "{text}: {made:?}");
    }
    for prefix in ["a", "/", "../", "a//", "a/../"] {
        let got = blobs.list(prefix).await;
        assert!(matches!(got, Err(BlobError::IllegalName(_))), "{prefix}: {got:?}");
    }
}
