//! Watches: whole, in order, bounded.

use super::{Fixture, applied, next, next_changes, puts, refused, shown};
use crate::live::{Expect, Revision, Txn, WatchEvent, read_all};
use std::collections::BTreeMap;

/// What happened after a revision is delivered first, then what happens.
pub async fn a_watch_from_the_past_delivers_it(fixture: Fixture) {
    let store = &*fixture.store;
    let begin = super::begin(store).await;
    let first = applied(store, puts(&[("a", "1")])).await;
    applied(store, puts(&[("a", "2")])).await;
    applied(store, Txn::new().delete("a")).await;
    let mut whole = store.watch("a", begin).await.expect("the store answers");
    let mut later = store.watch("a", first).await.expect("the store answers");
    let last = applied(store, puts(&[("a", "3")])).await;
    for expected in ["a=1", "a=2", "a gone", "a=3"] {
        assert_eq!(shown(&next_changes(&mut whole).await), [expected]);
    }
    for expected in ["a=2", "a gone"] {
        assert_eq!(shown(&next_changes(&mut later).await), [expected]);
    }
    let changes = next_changes(&mut later).await;
    assert_eq!((shown(&changes), changes[0].revision), (vec!["a=3".to_owned()], last));
    let mut newest = store.watch("a", last).await.expect("the store answers");
    applied(store, puts(&[("a", "4")])).await;
    assert_eq!(shown(&next_changes(&mut newest).await), ["a=4"], "nothing of before");
}

/// One event for a revision, its changes in the order of the transaction's writes.
pub async fn events_keep_the_order_of_the_transaction(fixture: Fixture) {
    let store = &*fixture.store;
    let begin = super::begin(store).await;
    applied(store, puts(&[("k/gone", "0")])).await;
    let mut watch = store.watch("k/", begin).await.expect("the store answers");
    next_changes(&mut watch).await;
    let txn = puts(&[("k/z", "1"), ("other", "1"), ("k/a", "1")])
        .delete("k/gone")
        .delete("k/never");
    let revision = applied(store, txn).await;
    let changes = next_changes(&mut watch).await;
    assert_eq!(shown(&changes), ["k/z=1", "k/a=1", "k/gone gone"]);
    assert!(changes.iter().all(|c| c.revision == revision), "{changes:?}");
}

/// Many writers at once: a watch sees each applied write once, revisions only grow, and what it saw
/// adds up to what stands.
pub async fn nothing_is_lost_under_concurrent_writers(fixture: Fixture) {
    const WRITERS: usize = 8;
    const WRITES: usize = 100;
    let store = &*fixture.store;
    let begin = super::begin(store).await;
    let mut watch = store.watch("w/", begin).await.expect("the store answers");
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let store = fixture.store.clone();
            tokio::spawn(async move {
                for n in 0..WRITES {
                    applied(&*store, puts(&[(&format!("w/{writer}/{}", n % 7), &n.to_string())])).await;
                }
            })
        })
        .collect();
    let mut seen: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut last = Revision(0);
    for _ in 0..WRITERS * WRITES {
        let changes = next_changes(&mut watch).await;
        assert_eq!(changes.len(), 1, "each commit has its own revision");
        assert!(changes[0].revision > last, "{:?} after {last:?}", changes[0].revision);
        last = changes[0].revision;
        seen.insert(changes[0].key.clone(), changes[0].value.clone().expect("only puts"));
    }
    for writer in writers {
        writer.await.expect("no writer panics");
    }
    let (entries, revision) = read_all(store, "w/").await.expect("the store answers");
    let standing: BTreeMap<String, Vec<u8>> = entries.into_iter().map(|e| (e.key, e.value)).collect();
    assert_eq!(seen, standing);
    fixture.assert_stands(revision, last);
}

/// Neighbouring prefixes and refused transactions do not appear.
pub async fn a_watch_sees_its_prefix_only(fixture: Fixture) {
    let store = &*fixture.store;
    let begin = super::begin(store).await;
    let mut watch = store.watch("run/", begin).await.expect("the store answers");
    let mut all = store.watch("", begin).await.expect("the store answers");
    applied(store, puts(&[("run", "1"), ("run0", "1"), ("run.", "1")])).await;
    refused(store, puts(&[("run/refused", "1")]).expect("run", Expect::Absent)).await;
    applied(store, Txn::new().expect("run", Expect::Present)).await;
    applied(store, puts(&[("run/x", "1")])).await;
    assert_eq!(shown(&next_changes(&mut watch).await), ["run/x=1"]);
    assert_eq!(next_changes(&mut all).await.len(), 3);
    assert_eq!(shown(&next_changes(&mut all).await), ["run/x=1"]);
}

/// A watch that is dropped, or not read, leaves the others whole.
pub async fn watches_are_independent(fixture: Fixture) {
    let store = &*fixture.store;
    let begin = super::begin(store).await;
    let _unread = store.watch("", begin).await.expect("the store answers");
    let dropped = store.watch("", begin).await.expect("the store answers");
    let mut read = store.watch("", begin).await.expect("the store answers");
    applied(store, puts(&[("a", "1")])).await;
    drop(dropped);
    applied(store, puts(&[("a", "2")])).await;
    assert_eq!(shown(&next_changes(&mut read).await), ["a=1"]);
    assert_eq!(shown(&next_changes(&mut read).await), ["a=2"]);
}

/// Who does not read is told to read anew instead of filling the memory, after whole events in order.
pub async fn a_slow_reader_is_told_to_read_anew(fixture: Fixture) {
    let store = &*fixture.store;
    let begin = super::begin(store).await;
    let mut slow = store.watch("big", begin).await.expect("the store answers");
    let mut brisk = store.watch("mark", begin).await.expect("the store answers");
    for n in 0..64u32 {
        let txn = Txn::new()
            .put_bytes("big", vec![0; 1 << 20], None)
            .put_bytes("mark", n.to_be_bytes().to_vec(), None);
        let revision = applied(store, txn).await;
        assert_eq!(
            next_changes(&mut brisk).await[0].revision,
            revision,
            "others are served"
        );
    }
    let mut kept = 0;
    let mut last = Revision(0);
    loop {
        match next(&mut slow).await {
            Some(WatchEvent::Changes(changes)) => {
                assert!(changes[0].revision > last, "in order");
                last = changes[0].revision;
                kept += 1;
            }
            Some(WatchEvent::Resync) => break,
            None => panic!("the watch ended without a word"),
        }
    }
    assert!(kept < 50, "{kept} MiB waited for one reader");
    assert_eq!(next(&mut slow).await, None, "nothing follows");
}

/// Pages that are read while others write, and the watch from the first page's revision, add up.
pub async fn a_first_read_and_its_watch_leave_no_gap(fixture: Fixture) {
    let store = &*fixture.store;
    let fill = (0..100).fold(Txn::new(), |t, n| t.put_bytes(format!("k/{n:03}"), b"0".to_vec(), None));
    applied(store, fill).await;
    let writing = fixture.store.clone();
    let writer = tokio::spawn(async move {
        for n in 0..200 {
            let key = format!("k/{:03}", (n * 37) % 120);
            let txn = if n % 3 == 0 {
                Txn::new().delete(key)
            } else {
                puts(&[(&key, &n.to_string())])
            };
            applied(&*writing, txn).await;
        }
    });
    let mut seen: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut from = None;
    loop {
        let after = seen.keys().next_back().cloned();
        let page = store.range("k/", after.as_deref(), 9).await.expect("the store answers");
        from.get_or_insert(page.revision);
        seen.extend(page.entries.into_iter().map(|e| (e.key, e.value)));
        if !page.more {
            break;
        }
    }
    let mut watch = store
        .watch("k/", from.expect("one page at least"))
        .await
        .expect("the store answers");
    writer.await.expect("the writer does not panic");
    applied(store, puts(&[("k/end", "")])).await;
    while !seen.contains_key("k/end") {
        for change in next_changes(&mut watch).await {
            match change.value {
                Some(value) => drop(seen.insert(change.key, value)),
                None => drop(seen.remove(&change.key)),
            }
        }
    }
    let (entries, _) = read_all(store, "k/").await.expect("the store answers");
    assert_eq!(seen, entries.into_iter().map(|e| (e.key, e.value)).collect());
}

/// The end of the store is the end of its watches, after what waited.
pub async fn a_closed_store_ends_its_watches(fixture: Fixture) {
    let begin = super::begin(&*fixture.store).await;
    let mut watch = fixture.store.watch("", begin).await.expect("the store answers");
    let mut other = fixture.store.watch("a", begin).await.expect("the store answers");
    applied(&*fixture.store, puts(&[("a", "1")])).await;
    next_changes(&mut other).await;
    drop(fixture);
    assert_eq!(shown(&next_changes(&mut watch).await), ["a=1"]);
    assert_eq!(next(&mut watch).await, None);
    assert_eq!(next(&mut other).await, None);
}
