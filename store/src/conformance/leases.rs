//! Leases: claims that end by themselves and take their keys with them.

use super::{Fixture, applied, next_changes, puts, refused, shown, value};
use crate::live::{Commit, Expect, Guard, LEASE_TTL_MAX_MS, LEASE_TTL_MIN_MS, LeaseId, Store, StoreError, Txn};
use std::time::{Duration, Instant};

/// The coarsest unit in which an engine counts times to live.
const COARSEST_MS: u64 = 1_000;

fn leased(keys: &[&str], lease: LeaseId) -> Txn {
    keys.iter()
        .fold(Txn::new(), |t, key| t.put_bytes(*key, b"1".to_vec(), Some(lease)))
}

async fn grant(store: &dyn Store) -> LeaseId {
    store.lease_grant(LEASE_TTL_MIN_MS).await.expect("the store answers")
}

/// Not before its time, all keys in one revision, and watches are told.
pub async fn an_expired_lease_takes_its_keys(fixture: Fixture) {
    let store = &*fixture.store;
    let granted = Instant::now();
    let lease = grant(store).await;
    let written = applied(
        store,
        leased(&["session/b", "session/a"], lease).put_bytes("stays", vec![], None),
    )
    .await;
    let mut watch = store.watch("s", written).await.expect("the store answers");
    assert_eq!(
        shown(&next_changes(&mut watch).await),
        ["session/a gone", "session/b gone"]
    );
    let lived = granted.elapsed();
    assert!(lived >= Duration::from_millis(LEASE_TTL_MIN_MS), "{lived:?}");
    assert_eq!(value(store, "session/a").await, None);
    assert!(store.get("stays").await.expect("the store answers").is_some());
    let answer = store.commit(leased(&["session/c"], lease)).await;
    assert!(
        matches!(answer, Err(StoreError::NoLease(l)) if l == lease),
        "{answer:?}"
    );
}

/// Each has its own answer, in order, also beside leases that have gone and one that is named twice.
pub async fn many_leases_are_renewed_together(fixture: Fixture) {
    let store = &*fixture.store;
    let mut leases = Vec::new();
    for _ in 0..300 {
        leases.push(store.lease_grant(60_000).await.expect("the store answers"));
    }
    let gone = [0, 7, 299];
    for n in gone {
        store.lease_revoke(leases[n]).await.expect("the store answers");
    }
    leases.push(leases[1]);
    // The second time over what the first one has opened.
    for _ in 0..2 {
        let answers = store.lease_keep_alive_all(&leases).await;
        assert_eq!(answers.len(), leases.len());
        for (n, (lease, answer)) in leases.iter().zip(answers).enumerate() {
            match answer {
                Ok(left) => assert!(!gone.contains(&n) && left > 30_000, "{n}: {left}"),
                Err(StoreError::NoLease(named)) => assert!(gone.contains(&n) && named == *lease, "{n}"),
                Err(error) => panic!("{n}: {error}"),
            }
        }
    }
    assert!(store.lease_keep_alive_all(&[]).await.is_empty());
}

/// Kept alive three times as long as it would live.
pub async fn a_renewed_lease_lives_on(fixture: Fixture) {
    let store = &*fixture.store;
    let lease = grant(store).await;
    let neglected = grant(store).await;
    let written = applied(store, leased(&["kept"], lease)).await;
    applied(store, leased(&["neglected"], neglected)).await;
    let mut watch = store.watch("", written).await.expect("the store answers");
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(3 * LEASE_TTL_MIN_MS) {
        let left = store.lease_keep_alive(lease).await.expect("it is renewed in time");
        assert!(left > 0 && left <= LEASE_TTL_MIN_MS + COARSEST_MS, "{left}");
        tokio::time::sleep(Duration::from_millis(LEASE_TTL_MIN_MS / 10)).await;
    }
    assert!(value(store, "kept").await.is_some());
    assert_eq!(shown(&next_changes(&mut watch).await), ["neglected=1"]);
    assert_eq!(
        shown(&next_changes(&mut watch).await),
        ["neglected gone"],
        "the clock did run"
    );
}

/// What is over stays over, even if nobody has taken its keys yet.
pub async fn an_expired_lease_cannot_be_renewed(fixture: Fixture) {
    let store = &*fixture.store;
    let lease = grant(store).await;
    let left = store.lease_keep_alive(lease).await.expect("it is alive");
    tokio::time::sleep(Duration::from_millis(left + 50)).await;
    let answer = store.lease_keep_alive(lease).await;
    assert!(
        matches!(answer, Err(StoreError::NoLease(l)) if l == lease),
        "{answer:?}"
    );
    let never = store.lease_keep_alive(LeaseId(424_242)).await;
    assert!(matches!(never, Err(StoreError::NoLease(_))), "{never:?}");
}

/// At once, in order of keys, without the keys of other leases.
pub async fn a_revoked_lease_takes_its_keys_in_one_revision(fixture: Fixture) {
    let store = &*fixture.store;
    let (lease, other) = (grant(store).await, grant(store).await);
    assert_ne!(lease, other);
    applied(store, leased(&["b", "a"], lease)).await;
    let written = applied(store, leased(&["other"], other)).await;
    let mut watch = store.watch("", written).await.expect("the store answers");
    store.lease_revoke(lease).await.expect("the store answers");
    assert_eq!((value(store, "a").await, value(store, "b").await), (None, None));
    assert!(value(store, "other").await.is_some());
    assert_eq!(shown(&next_changes(&mut watch).await), ["a gone", "b gone"]);
    let answer = store.lease_keep_alive(lease).await;
    assert!(matches!(answer, Err(StoreError::NoLease(_))), "{answer:?}");
}

/// A missing lease fails the transaction, or the batch, whole; a broken guard is told first.
pub async fn a_put_under_a_missing_lease_writes_nothing(fixture: Fixture) {
    let store = &*fixture.store;
    let missing = LeaseId(424_242);
    let begin = super::begin(store).await;
    let answer = store
        .commit(leased(&["leased"], missing).put_bytes("plain", vec![], None))
        .await;
    assert!(
        matches!(answer, Err(StoreError::NoLease(l)) if l == missing),
        "{answer:?}"
    );
    let batch = vec![puts(&[("plain", "1")]), leased(&["leased"], missing)];
    let answer = store.commit_batch(Vec::new(), batch).await;
    assert!(
        matches!(answer, Err(StoreError::NoLease(l)) if l == missing),
        "{answer:?}"
    );
    let page = store.range("", None, 1).await.expect("the store answers");
    assert_eq!(page.entries, []);
    fixture.assert_stands(page.revision, begin);
    let never_granted = store.commit(leased(&["leased"], LeaseId(0))).await;
    assert!(
        matches!(never_granted, Err(StoreError::NoLease(_))),
        "{never_granted:?}"
    );
    refused(store, leased(&["leased"], missing).expect("absent", Expect::Present)).await;
}

/// A key belongs to the lease of its newest write, or to none.
pub async fn a_rewritten_key_leaves_its_lease(fixture: Fixture) {
    let store = &*fixture.store;
    let (first, second) = (grant(store).await, grant(store).await);
    applied(store, leased(&["freed", "moved", "again", "left"], first)).await;
    applied(store, puts(&[("freed", "2")])).await;
    applied(store, leased(&["moved"], second)).await;
    applied(store, Txn::new().delete("again")).await;
    applied(store, puts(&[("again", "2")])).await;
    store.lease_revoke(first).await.expect("the store answers");
    for (key, there) in [("freed", true), ("moved", true), ("again", true), ("left", false)] {
        assert_eq!(value(store, key).await.is_some(), there, "{key}");
    }
    store.lease_revoke(second).await.expect("the store answers");
    assert_eq!(value(store, "moved").await, None);
}

/// Revoking twice, or what never was, is no error and no revision.
pub async fn a_lease_that_is_not_there_is_revoked_quietly(fixture: Fixture) {
    let store = &*fixture.store;
    let begin = super::begin(store).await;
    let lease = grant(store).await;
    for lease in [lease, lease, LeaseId(424_242)] {
        store.lease_revoke(lease).await.expect("no error");
    }
    fixture.assert_stands(super::begin(store).await, begin);
}

/// Too short and too long are refused.
pub async fn times_to_live_are_bounded(fixture: Fixture) {
    let store = &*fixture.store;
    for ttl_ms in [0, LEASE_TTL_MIN_MS - 1, LEASE_TTL_MAX_MS + 1, u64::MAX] {
        let answer = store.lease_grant(ttl_ms).await;
        assert!(matches!(answer, Err(StoreError::Illegal(_))), "{ttl_ms}: {answer:?}");
    }
    let longest = store
        .lease_grant(LEASE_TTL_MAX_MS)
        .await
        .expect("the longest is allowed");
    let left = store.lease_keep_alive(longest).await.expect("it is alive");
    assert_eq!(left, LEASE_TTL_MAX_MS);
}

/// A put that races with the end of its lease is refused, or its key goes with the lease.
pub async fn revoking_and_putting_at_once_leaves_no_orphan(fixture: Fixture) {
    for round in 0..30 {
        let store = fixture.store.clone();
        let lease = grant(&*store).await;
        let key = format!("k/{round}");
        let revoking = tokio::spawn({
            let store = store.clone();
            async move { store.lease_revoke(lease).await }
        });
        let putting = tokio::spawn({
            let (store, key) = (store.clone(), key.clone());
            async move { store.commit(leased(&[&key], lease)).await }
        });
        revoking.await.expect("no panic").expect("the store answers");
        match putting.await.expect("no panic") {
            Ok(Commit::Applied(_)) | Err(StoreError::NoLease(_)) => {}
            other => panic!("{other:?}"),
        }
        assert_eq!(value(&*store, &key).await, None, "round {round}");
    }
}

/// The clock of a holder stopped, e.g. its machine was paused, while its lease ran out and another one
/// took over: nothing that it guards with its own key is written any more, even though the key is
/// there again with the same value.
pub async fn who_slept_through_its_lease_writes_nothing(fixture: Fixture) {
    let store = &*fixture.store;
    let lease = grant(store).await;
    let held = applied(store, leased(&["leader"], lease).expect("leader", Expect::Absent)).await;
    let own_key = |txn: Txn| txn.expect("leader", Expect::Revision(held));
    applied(store, own_key(puts(&[("work", "mine")]))).await;
    let mut watch = store.watch("leader", held).await.expect("the store answers");
    assert_eq!(shown(&next_changes(&mut watch).await), ["leader gone"]);
    let (_, _, found) = refused(store, own_key(puts(&[("work", "late")]))).await;
    assert_eq!(found, None);
    let successor = store.lease_grant(LEASE_TTL_MAX_MS).await.expect("the store answers");
    let taken = applied(store, leased(&["leader"], successor).expect("leader", Expect::Absent)).await;
    let (_, _, found) = refused(store, own_key(puts(&[("work", "late")]))).await;
    assert_eq!(found.map(|e| e.mod_revision), Some(taken));
    let guard = Guard {
        key: "leader".to_owned(),
        expect: Expect::Revision(held),
    };
    let batch = vec![puts(&[("work", "late")]), puts(&[("more", "late")])];
    let commits = store.commit_batch(vec![guard], batch).await.expect("the store answers");
    assert!(commits.iter().all(|c| !c.is_applied()), "{commits:?}");
    let renewed = store.lease_keep_alive(lease).await;
    assert!(matches!(renewed, Err(StoreError::NoLease(_))), "{renewed:?}");
    assert_eq!(value(store, "work").await.as_deref(), Some("mine"));
    assert_eq!(value(store, "more").await, None);
}
