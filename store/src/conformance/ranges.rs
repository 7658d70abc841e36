//! Reads of ranges: pages, prefixes, bounds.

use super::{Fixture, applied, puts};
use crate::live::{KEY_MAX, PAGE_BYTES_MAX, PAGE_MAX, StoreError, Txn, read_all};

fn keys(entries: &[crate::live::Entry]) -> Vec<&str> {
    entries.iter().map(|e| e.key.as_str()).collect()
}

/// Pages of every size join to the whole, in order, and the last one says that it is the last.
pub async fn pages_join_without_gap_or_repeat(fixture: Fixture) {
    let store = &*fixture.store;
    let all: Vec<String> = (0..100).map(|n| format!("p/{n:03}")).collect();
    let txn = all
        .iter()
        .rev()
        .fold(Txn::new(), |t, k| t.put_bytes(k.clone(), Vec::new(), None));
    let revision = applied(store, txn).await;
    for limit in [1, 7, 50, 99, 100, 101, PAGE_MAX] {
        let mut joined: Vec<String> = Vec::new();
        loop {
            let after = joined.last().cloned();
            let page = store
                .range("p/", after.as_deref(), limit)
                .await
                .expect("the store answers");
            fixture.assert_stands(page.revision, revision);
            joined.extend(page.entries.into_iter().map(|e| e.key));
            assert_eq!(page.more, joined.len() < all.len(), "limit {limit} after {after:?}");
            if !page.more {
                break;
            }
        }
        assert_eq!(joined, all, "limit {limit}");
    }
}

/// A prefix takes exactly the keys that begin with it; the neighbours of every kind stay out.
pub async fn prefixes_are_exact(fixture: Fixture) {
    let store = &*fixture.store;
    let all = [
        "run",
        "run.",
        "run/",
        "run/a",
        "run/a/step/0000",
        "run/b",
        "run/\u{10ffff}",
        "run/\u{10ffff}x",
        "run0",
        "runs/a",
    ];
    applied(
        store,
        all.iter().fold(Txn::new(), |t, k| t.put_bytes(*k, Vec::new(), None)),
    )
    .await;
    let cases: [(&str, Option<&str>, &[&str]); 9] = [
        ("run/", None, &all[2..8]),
        ("run/a", None, &["run/a", "run/a/step/0000"]),
        ("run/a/", None, &["run/a/step/0000"]),
        ("run/\u{10ffff}", None, &["run/\u{10ffff}", "run/\u{10ffff}x"]),
        (
            "run/",
            Some("run/a"),
            &["run/a/step/0000", "run/b", "run/\u{10ffff}", "run/\u{10ffff}x"],
        ),
        ("run/", Some("a key before the prefix"), &all[2..8]),
        ("run/", Some("run0"), &[]),
        ("nothing/", None, &[]),
        ("", None, &all),
    ];
    for (prefix, after, expected) in cases {
        let page = store.range(prefix, after, PAGE_MAX).await.expect("the store answers");
        assert_eq!(keys(&page.entries), expected, "{prefix:?} after {after:?}");
        assert!(!page.more, "{prefix:?} after {after:?}");
    }
    let page = store.range("run/a", None, 1).await.expect("the store answers");
    assert_eq!((keys(&page.entries), page.more), (vec!["run/a"], true));
    let page = store.range("run/a", Some("run/a"), 1).await.expect("the store answers");
    assert!(!page.more, "what follows does not begin with the prefix");
}

/// Large values make short pages, and `read_all` joins them.
pub async fn a_page_is_bounded_in_bytes(fixture: Fixture) {
    let store = &*fixture.store;
    let size = 1 << 20;
    for n in 0..8 {
        applied(store, Txn::new().put_bytes(format!("big/{n}"), vec![n; size], None)).await;
    }
    let page = store.range("big/", None, PAGE_MAX).await.expect("the store answers");
    let bytes: usize = page.entries.iter().map(|e| e.value.len()).sum();
    assert!(page.more && !page.entries.is_empty(), "{} entries", page.entries.len());
    assert!(bytes <= PAGE_BYTES_MAX + size, "{bytes}");
    let (all, _) = read_all(store, "big/").await.expect("the store answers");
    let whole: Vec<(u8, usize)> = all.iter().map(|e| (e.value[0], e.value.len())).collect();
    assert_eq!(whole, (0..8).map(|n| (n, size)).collect::<Vec<_>>());
}

/// Any text is a key and any bytes are a value.
pub async fn odd_keys_are_kept(fixture: Fixture) {
    let store = &*fixture.store;
    let longest = "é".repeat(KEY_MAX / 2);
    let odd = [
        "\0",
        "a\0b",
        "%",
        "_",
        "'",
        "\u{7f}",
        "\u{ffff}",
        "ÄÖ",
        longest.as_str(),
    ];
    let value: Vec<u8> = (0..=255).collect();
    let txn = odd.iter().fold(Txn::new(), |t, k| t.put_bytes(*k, value.clone(), None));
    applied(store, txn).await;
    for key in odd {
        let entry = store.get(key).await.expect("the store answers").expect("written");
        assert_eq!((entry.key.as_str(), &entry.value), (key, &value));
    }
    let page = store.range("", None, PAGE_MAX).await.expect("the store answers");
    let mut sorted = odd.to_vec();
    sorted.sort_unstable();
    assert_eq!(keys(&page.entries), sorted, "bytewise order");
    applied(store, puts(&[("ÄÖ", "")])).await;
    let empty = store
        .get("ÄÖ")
        .await
        .expect("the store answers")
        .expect("an empty value is a value");
    assert_eq!(empty.value, b"");
}

/// Reads beyond the limits are refused.
pub async fn illegal_reads_are_refused(fixture: Fixture) {
    let store = &*fixture.store;
    let too_long = "k".repeat(KEY_MAX + 1);
    let mut refused = Vec::new();
    for key in ["", too_long.as_str()] {
        refused.push(store.get(key).await.map(|_| ()));
    }
    for limit in [0, PAGE_MAX + 1] {
        refused.push(store.range("a", None, limit).await.map(|_| ()));
    }
    refused.push(store.range(&too_long, None, 1).await.map(|_| ()));
    refused.push(store.watch(&too_long, crate::live::Revision(0)).await.map(|_| ()));
    for answer in refused {
        assert!(matches!(answer, Err(StoreError::Illegal(_))), "{answer:?}");
    }
}
