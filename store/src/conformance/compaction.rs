//! The past is forgotten, what stands is not.

use super::{Fixture, applied, next, next_changes, puts, refused, shown, value};
use crate::live::{Expect, Revision, Txn, WatchEvent};

/// Who asks for what is no longer kept is told to read anew; who needs nothing of it is not.
pub async fn the_compacted_past_is_a_resync(fixture: Fixture) {
    let store = &*fixture.store;
    let begin = super::begin(store).await;
    let mut running = store.watch("", begin).await.expect("the store answers");
    let first = applied(store, puts(&[("a", "1")])).await;
    let second = applied(store, puts(&[("a", "2")])).await;
    let third = applied(store, puts(&[("a", "3")])).await;
    store.compact(second).await.expect("the store answers");
    for (after, lost) in [(begin, true), (first, true), (second, false), (third, false)] {
        let mut watch = store.watch("a", after).await.expect("the store answers");
        if lost {
            assert_eq!(next(&mut watch).await, Some(WatchEvent::Resync), "after {after:?}");
            assert_eq!(next(&mut watch).await, None, "nothing follows");
        } else if after == second {
            assert_eq!(shown(&next_changes(&mut watch).await), ["a=3"]);
        }
    }
    for expected in ["a=1", "a=2", "a=3"] {
        assert_eq!(
            shown(&next_changes(&mut running).await),
            [expected],
            "a running watch is not disturbed"
        );
    }
}

/// The last thing that happened before the past ends, and the first after it, is a removal: a watch
/// delivers it or says that it cannot, and never passes it over.
pub async fn a_removal_at_the_end_of_the_past_is_not_lost(fixture: Fixture) {
    let store = &*fixture.store;
    applied(store, puts(&[("a", "1"), ("b", "1")])).await;
    let before = applied(store, puts(&[("c", "1")])).await;
    let first = applied(store, Txn::new().delete("a")).await;
    let second = applied(store, Txn::new().delete_prefix("b")).await;
    applied(store, puts(&[("d", "1")])).await;
    for (forgotten, after, seen) in [
        (before, before, Some(vec!["a gone"])),
        (first, before, None),
        (first, first, Some(vec!["b gone"])),
        (second, first, None),
        (second, second, Some(vec!["d=1"])),
    ] {
        store.compact(forgotten).await.expect("the store answers");
        let mut watch = store.watch("", after).await.expect("the store answers");
        match (next(&mut watch).await, seen) {
            (Some(WatchEvent::Changes(changes)), Some(seen)) => assert_eq!(shown(&changes), seen),
            (Some(WatchEvent::Resync), None) => {}
            (event, seen) => panic!("after {after:?} without {forgotten:?}: {event:?}, expected {seen:?}"),
        }
    }
}

/// Keys, their revisions as guards, and leases outlive the changes that made them.
pub async fn what_stands_is_not_compacted(fixture: Fixture) {
    let store = &*fixture.store;
    let lease = store.lease_grant(60_000).await.expect("the store answers");
    let leased = Txn::new().put_bytes("leased", b"1".to_vec(), Some(lease));
    applied(store, leased).await;
    let written = applied(store, puts(&[("a", "1")])).await;
    let newest = applied(store, puts(&[("b", "1")])).await;
    store.compact(newest).await.expect("the store answers");
    assert_eq!(value(store, "a").await.as_deref(), Some("1"));
    applied(store, puts(&[("a", "2")]).expect("a", Expect::Revision(written))).await;
    let (_, _, found) = refused(store, puts(&[("a", "3")]).expect("a", Expect::Revision(written))).await;
    assert_eq!(found.map(|e| e.value), Some(b"2".to_vec()));
    store.lease_revoke(lease).await.expect("the store answers");
    assert_eq!(value(store, "leased").await, None);
    let page = store.range("", None, 10).await.expect("the store answers");
    assert_eq!(page.entries.len(), 2);
}

/// Twice, less than before, more than there is, nothing: none is an error.
pub async fn compacting_again_or_the_future_is_quiet(fixture: Fixture) {
    let store = &*fixture.store;
    let first = applied(store, puts(&[("a", "1")])).await;
    let second = applied(store, puts(&[("a", "2")])).await;
    for before in [
        second,
        second,
        first,
        Revision(0),
        Revision(second.0 + 1_000),
        Revision(u64::MAX),
    ] {
        store.compact(before).await.expect("no error");
    }
    let after = store.range("", None, 1).await.expect("the store answers").revision;
    let mut watch = store.watch("", after).await.expect("the store answers");
    applied(store, puts(&[("a", "3")])).await;
    assert_eq!(shown(&next_changes(&mut watch).await), ["a=3"]);
}
