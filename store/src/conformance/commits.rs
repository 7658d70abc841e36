//! Guards, atomicity, batches, limits.

use super::{Fixture, applied, puts, refused, value};
use crate::live::{
    BATCH_MAX, Commit, Expect, Guard, KEY_MAX, LEASE_TTL_MAX_MS, Revision, StoreError, TXN_BYTES_MAX, TXN_OPS_MAX, Txn,
};

use std::collections::BTreeMap;

/// Each kind of guard against an absent key, a key at the expected revision and one at another.
pub async fn every_kind_of_guard(fixture: Fixture) {
    let store = &*fixture.store;
    let stale = applied(store, puts(&[("there", "1")])).await;
    let newest = applied(store, puts(&[("there", "2")])).await;
    let cases = [
        ("absent", Expect::Absent, true),
        ("absent", Expect::Present, false),
        ("absent", Expect::Revision(newest), false),
        ("absent", Expect::Revision(Revision(0)), false),
        ("there", Expect::Absent, false),
        ("there", Expect::Present, true),
        ("there", Expect::Revision(newest), true),
        ("there", Expect::Revision(stale), false),
        ("there", Expect::Revision(Revision(newest.0 + 1)), false),
    ];
    for (key, expect, holds) in cases {
        let commit = store
            .commit(Txn::new().expect(key, expect))
            .await
            .expect("the store answers");
        assert_eq!(commit.is_applied(), holds, "{key} {expect:?}: {commit:?}");
    }
}

/// The first guard in the order of the transaction that does not hold is the one that is told.
pub async fn a_refusal_tells_the_first_broken_guard_and_what_was_found(fixture: Fixture) {
    let store = &*fixture.store;
    let revision = applied(store, puts(&[("a", "1"), ("b", "2")])).await;
    let txn = Txn::new()
        .expect("a", Expect::Present)
        .expect("b", Expect::Absent)
        .expect("c", Expect::Present);
    let (key, expect, found) = refused(store, txn).await;
    let found = found.expect("b is there");
    assert_eq!((key.as_str(), expect), ("b", Expect::Absent));
    assert_eq!(
        (found.key.as_str(), found.value.as_slice(), found.mod_revision),
        ("b", b"2".as_slice(), revision)
    );
    let (key, _, found) = refused(store, Txn::new().expect("c", Expect::Present)).await;
    assert_eq!((key.as_str(), found), ("c", None));
}

/// One broken guard among good ones: no write stands and no revision passes.
pub async fn a_refused_transaction_writes_nothing(fixture: Fixture) {
    let store = &*fixture.store;
    let before = applied(store, puts(&[("a", "1"), ("b", "1")])).await;
    let txn = puts(&[("a", "2"), ("new", "2")])
        .delete("b")
        .expect("a", Expect::Present)
        .expect("b", Expect::Absent);
    refused(store, txn).await;
    let page = store.range("", None, 10).await.expect("the store answers");
    let left: Vec<&str> = page.entries.iter().map(|e| e.key.as_str()).collect();
    assert_eq!(left, ["a", "b"]);
    fixture.assert_stands(page.revision, before);
    assert_eq!(value(store, "a").await.as_deref(), Some("1"));
}

/// A revision is a change: guards alone and deletes of absent keys make none; writing the same value does.
pub async fn only_changes_make_revisions(fixture: Fixture) {
    let store = &*fixture.store;
    let first = applied(store, puts(&[("a", "1")])).await;
    fixture.assert_stands(applied(store, Txn::new().expect("a", Expect::Present)).await, first);
    fixture.assert_stands(applied(store, Txn::new().delete("never")).await, first);
    let same = applied(store, puts(&[("a", "1")])).await;
    assert!(same > first, "{same:?} > {first:?}");
    let entry = store.get("a").await.expect("the store answers").expect("a is there");
    assert_eq!(entry.mod_revision, same);
    let gone = applied(store, Txn::new().delete("a")).await;
    assert!(gone > same, "{gone:?} > {same:?}");
    assert_eq!(value(store, "a").await, None);
}

/// A read that begins after an answer sees what the answer promised.
pub async fn a_write_is_seen_at_once(fixture: Fixture) {
    let store = &*fixture.store;
    for round in 0..50 {
        let text = round.to_string();
        let revision = applied(store, puts(&[("k", &text)])).await;
        let entry = store.get("k").await.expect("the store answers").expect("just written");
        assert_eq!((entry.value, entry.mod_revision), (text.into_bytes(), revision));
        let page = store.range("k", None, 1).await.expect("the store answers");
        assert_eq!(page.entries[0].mod_revision, revision);
        fixture.assert_stands(page.revision, revision);
    }
}

fn guard(key: &str, expect: Expect) -> Guard {
    Guard {
        key: key.to_owned(),
        expect,
    }
}

/// Who has lost the lead writes nothing, and is told so in each answer.
pub async fn an_outer_guard_refuses_the_whole_batch(fixture: Fixture) {
    let store = &*fixture.store;
    applied(store, puts(&[("leader", "other")])).await;
    let outer = vec![guard("leader", Expect::Absent)];
    let txns = vec![puts(&[("a", "1")]), puts(&[("b", "1")])];
    let commits = store
        .commit_batch(outer.clone(), txns)
        .await
        .expect("the store answers");
    assert_eq!(commits.len(), 2);
    for commit in commits {
        let Commit::Refused { guard, found } = commit else {
            panic!("expected a refusal: {commit:?}");
        };
        assert_eq!(guard, outer[0]);
        assert_eq!(found.map(|e| e.value), Some(b"other".to_vec()));
    }
    assert_eq!((value(store, "a").await, value(store, "b").await), (None, None));
}

/// Each transaction of a batch stands or falls alone, and the answers are in order.
pub async fn a_stale_inner_guard_leaves_the_others(fixture: Fixture) {
    let store = &*fixture.store;
    applied(store, puts(&[("leader", "me"), ("b", "0")])).await;
    let txns = ["a", "b", "c"]
        .map(|key| puts(&[(key, "1")]).expect(key, Expect::Absent))
        .to_vec();
    let outer = vec![guard("leader", Expect::Present)];
    let commits = store.commit_batch(outer, txns).await.expect("the store answers");
    let standing: Vec<bool> = commits.iter().map(Commit::is_applied).collect();
    assert_eq!(standing, [true, false, true]);
    assert_eq!(value(store, "a").await.as_deref(), Some("1"));
    assert_eq!(value(store, "b").await.as_deref(), Some("0"));
    assert_eq!(value(store, "c").await.as_deref(), Some("1"));
    assert_eq!(
        store
            .commit_batch(Vec::new(), Vec::new())
            .await
            .expect("the store answers"),
        []
    );
}

/// However many parts it was applied in: a watch sees each revision once, with all that stands at it, in
/// the order of the batch.
pub async fn a_batch_is_seen_as_it_stands(fixture: Fixture) {
    const TXNS: usize = 250;
    let store = &*fixture.store;
    let mut watch = store
        .watch("k/", super::begin(store).await)
        .await
        .expect("the store answers");
    let key = |n: usize| format!("k/{n:03}");
    let txns = (0..TXNS).map(|n| puts(&[(&key(n), "1")])).collect();
    let commits = store.commit_batch(Vec::new(), txns).await.expect("the store answers");
    let mut expected: BTreeMap<Revision, Vec<String>> = BTreeMap::new();
    for (n, commit) in commits.iter().enumerate() {
        let Commit::Applied(revision) = commit else {
            panic!("expected to be applied: {commit:?}");
        };
        expected.entry(*revision).or_default().push(format!("{}=1", key(n)));
    }
    for (revision, written) in expected {
        let changes = super::next_changes(&mut watch).await;
        assert_eq!(super::shown(&changes), written);
        assert!(
            changes.iter().all(|c| c.revision == revision),
            "{revision:?}: {changes:?}"
        );
    }
}

/// What the trait forbids of batches is refused whole.
pub async fn an_illegal_batch_writes_nothing(fixture: Fixture) {
    let store = &*fixture.store;
    let cases: [(&str, Vec<Txn>); 4] = [
        ("two write one key", vec![puts(&[("a", "1")]), puts(&[("a", "2")])]),
        (
            "one guards what another writes",
            vec![puts(&[("a", "1")]), puts(&[("b", "1")]).expect("a", Expect::Absent)],
        ),
        (
            "one is illegal by itself",
            vec![puts(&[("a", "1")]), puts(&[("b", "1"), ("b", "2")])],
        ),
        (
            "too many",
            (0..=BATCH_MAX).map(|n| Txn::new().delete(n.to_string())).collect(),
        ),
    ];
    for (what, txns) in cases {
        let answer = store.commit_batch(Vec::new(), txns).await;
        assert!(matches!(answer, Err(StoreError::Illegal(_))), "{what}: {answer:?}");
        assert_eq!(value(store, "a").await, None, "{what}");
    }
    let most: Vec<Txn> = (0..BATCH_MAX).map(|n| puts(&[(&format!("k{n}"), "1")])).collect();
    let commits = store
        .commit_batch(Vec::new(), most)
        .await
        .expect("as many as are allowed");
    assert!(commits.len() == BATCH_MAX && commits.iter().all(Commit::is_applied));
}

/// An outer guard may name what the batch writes: it is compared before.
pub async fn guards_see_the_state_before_the_batch(fixture: Fixture) {
    let store = &*fixture.store;
    let outer = vec![guard("leader", Expect::Absent)];
    let txns = vec![puts(&[("leader", "me")]), puts(&[("a", "1")])];
    let commits = store.commit_batch(outer, txns).await.expect("the store answers");
    assert!(commits.iter().all(Commit::is_applied), "{commits:?}");
}

/// Operations, bytes and the length of keys: the most that is allowed passes, one more does not.
pub async fn limits_are_reached_and_not_passed(fixture: Fixture) {
    let store = &*fixture.store;
    let of_ops = |n: usize| (0..n).fold(Txn::new(), |t, i| t.put_bytes(format!("o/{i}"), Vec::new(), None));
    applied(store, of_ops(TXN_OPS_MAX)).await;
    applied(store, of_ops(TXN_OPS_MAX - 1).expect("absent", Expect::Absent)).await;
    let of_bytes = |n: usize| Txn::new().put_bytes("k", vec![7; n - 1], None);
    applied(store, of_bytes(TXN_BYTES_MAX)).await;
    let of_key = |n: usize| Txn::new().put_bytes("k".repeat(n), Vec::new(), None);
    applied(store, of_key(KEY_MAX)).await;
    let beyond = [
        of_ops(TXN_OPS_MAX + 1),
        of_ops(TXN_OPS_MAX).expect("absent", Expect::Absent),
        of_bytes(TXN_BYTES_MAX + 1),
        of_key(KEY_MAX + 1),
    ];
    for txn in beyond {
        let answer = store.commit(txn).await;
        assert!(matches!(answer, Err(StoreError::Illegal(_))), "{answer:?}");
    }
    let outer = vec![guard("absent", Expect::Absent)];
    let answer = store.commit_batch(outer, vec![of_ops(TXN_OPS_MAX)]).await;
    assert!(
        matches!(answer, Err(StoreError::Illegal(_))),
        "outer guards count: {answer:?}"
    );
}

/// 1.4 MB in several values, read back byte by byte and seen by a watch.
pub async fn the_largest_transaction_passes(fixture: Fixture) {
    let store = &*fixture.store;
    let mut watch = store
        .watch("run/", super::begin(store).await)
        .await
        .expect("the store answers");
    let keys: Vec<String> = (0..100).map(|n| format!("run/x/def/{n:04}")).collect();
    let size = TXN_BYTES_MAX / keys.len() - keys[0].len();
    let of = |n: usize| -> Vec<u8> { (0..size).map(|i| (i.wrapping_mul(31) ^ n) as u8).collect() };
    let put = |txn: Txn, (n, key): (usize, &String)| txn.put_bytes(key.clone(), of(n), None);
    applied(store, keys.iter().enumerate().fold(Txn::new(), put)).await;
    let changes = super::next_changes(&mut watch).await;
    for (n, key) in keys.iter().enumerate() {
        let entry = store.get(key).await.expect("the store answers").expect("written");
        assert!(entry.value == of(n), "{key} reads back as written");
        assert!(
            changes[n].key == *key && changes[n].value.as_ref() == Some(&entry.value),
            "{key} is watched"
        );
    }
}

/// Calls that no engine may take.
pub async fn illegal_transactions_are_refused(fixture: Fixture) {
    let store = &*fixture.store;
    let cases = [
        ("one key twice", puts(&[("a", "1"), ("a", "2")])),
        ("put and delete", puts(&[("a", "1")]).delete("a")),
        ("an empty key", puts(&[("", "1")])),
        ("an empty guard", Txn::new().expect("", Expect::Absent)),
    ];
    for (what, txn) in cases {
        let answer = store.commit(txn).await;
        assert!(matches!(answer, Err(StoreError::Illegal(_))), "{what}: {answer:?}");
    }
    assert_eq!(value(store, "a").await, None);
}

/// 64 writers on one key, each guarding what all have seen: exactly one wins each round.
pub async fn one_of_many_writers_wins_each_round(fixture: Fixture) {
    const WRITERS: usize = 64;
    let mut expect = Expect::Absent;
    for round in 0..10 {
        let rivals = (0..WRITERS).map(|writer| {
            let store = fixture.store.clone();
            let txn = puts(&[("lock", &format!("{round}/{writer}"))]).expect("lock", expect);
            tokio::spawn(async move { store.commit(txn).await.expect("the store answers") })
        });
        let rivals: Vec<_> = rivals.collect();
        let mut winners = Vec::new();
        for (writer, rival) in rivals.into_iter().enumerate() {
            if let Commit::Applied(revision) = rival.await.expect("no writer panics") {
                winners.push((writer, revision));
            }
        }
        assert_eq!(winners.len(), 1, "round {round}: {winners:?}");
        let (writer, revision) = winners[0];
        assert_eq!(value(&*fixture.store, "lock").await, Some(format!("{round}/{writer}")));
        expect = Expect::Revision(revision);
    }
}

/// Exactly the keys that begin with it, under whatever lease, each told in order of keys.
pub async fn a_removed_prefix_takes_its_keys_and_no_others(fixture: Fixture) {
    let store = &*fixture.store;
    let lease = store.lease_grant(LEASE_TTL_MAX_MS).await.expect("the store answers");
    let keys = ["run", "run/", "run/b", "run/a/x", "run/\u{10ffff}x", "run0"];
    let written = applied(
        store,
        puts(&keys.map(|k| (k, "1"))).put_bytes("run/leased", Vec::new(), Some(lease)),
    )
    .await;
    let mut watch = store.watch("", written).await.expect("the store answers");
    refused(store, Txn::new().delete_prefix("run/").expect("run", Expect::Absent)).await;
    let txn = puts(&[("z", "1")]).delete_prefix("run/").delete_prefix("nothing/");
    let revision = applied(store, txn.expect("run/b", Expect::Present)).await;
    let changes = super::next_changes(&mut watch).await;
    let expected = [
        "z=1",
        "run/ gone",
        "run/a/x gone",
        "run/b gone",
        "run/leased gone",
        "run/\u{10ffff}x gone",
    ];
    assert_eq!(super::shown(&changes), expected);
    assert!(changes.iter().all(|c| c.revision == revision), "{changes:?}");
    let page = store.range("", None, 10).await.expect("the store answers");
    let left: Vec<&str> = page.entries.iter().map(|e| e.key.as_str()).collect();
    assert_eq!(left, ["run", "run0", "z"]);
    applied(store, puts(&[("run/leased", "2")])).await;
    store.lease_revoke(lease).await.expect("the store answers");
    assert_eq!(
        value(store, "run/leased").await.as_deref(),
        Some("2"),
        "it left its lease"
    );
}

/// However many keys there are: a run of a thousand steps goes in one transaction.
pub async fn a_removed_prefix_is_one_operation(fixture: Fixture) {
    let store = &*fixture.store;
    let keys = 10 * TXN_OPS_MAX;
    for first in (0..keys).step_by(TXN_OPS_MAX) {
        let many = (first..first + TXN_OPS_MAX).fold(Txn::new(), |t, n| {
            t.put_bytes(format!("run/1/step/{n:04}"), vec![0; 100], None)
        });
        applied(store, many).await;
    }
    let from = store.range("", None, 1).await.expect("the store answers").revision;
    let mut watch = store.watch("run/", from).await.expect("the store answers");
    let full = (1..TXN_OPS_MAX).fold(Txn::new().delete_prefix("run/1/"), |t, n| {
        t.put_bytes(format!("o/{n}"), Vec::new(), None)
    });
    let revision = applied(store, full).await;
    let changes = super::next_changes(&mut watch).await;
    assert_eq!((changes.len(), changes[0].revision), (keys, revision));
    assert!(changes.is_sorted_by(|a, b| a.key < b.key) && changes.iter().all(|c| c.value.is_none()));
    let page = store.range("run/", None, 1).await.expect("the store answers");
    assert_eq!((page.entries, page.more), (vec![], false));
}

/// What may not be written twice or guarded by another may not lie below a removed prefix either.
pub async fn a_removed_prefix_counts_as_writing_below_it(fixture: Fixture) {
    let store = &*fixture.store;
    applied(store, puts(&[("a/1", "1")])).await;
    let removes = |prefix: &str| Txn::new().delete_prefix(prefix);
    let cases = [
        ("an empty prefix", vec![removes("")]),
        ("a long prefix", vec![removes(&"a".repeat(KEY_MAX + 1))]),
        ("a put below", vec![removes("a/").put_bytes("a/1", Vec::new(), None)]),
        ("the prefix as a key", vec![removes("a/").delete("a/")]),
        ("a prefix below", vec![removes("a/").delete_prefix("a/b")]),
        ("the prefix twice", vec![removes("a/").delete_prefix("a/")]),
        ("another one's put", vec![puts(&[("a/1", "2")]), removes("a/")]),
        ("another one's prefix", vec![removes("a"), removes("a/")]),
        (
            "another one's guard",
            vec![Txn::new().expect("a/1", Expect::Present), removes("a/")],
        ),
        (
            "another one's guard of the prefix",
            vec![removes("a/"), Txn::new().expect("a/", Expect::Absent)],
        ),
    ];
    for (what, txns) in cases {
        let answer = store.commit_batch(Vec::new(), txns).await;
        assert!(matches!(answer, Err(StoreError::Illegal(_))), "{what}: {answer:?}");
        assert_eq!(value(store, "a/1").await.as_deref(), Some("1"), "{what}");
    }
    let legal = vec![
        removes("a/")
            .expect("a/1", Expect::Present)
            .delete("a")
            .delete_prefix("a0"),
        puts(&[("b", "1")])
            .expect("a.", Expect::Absent)
            .expect("a1", Expect::Absent),
    ];
    let commits = store
        .commit_batch(vec![guard("a/1", Expect::Present)], legal)
        .await
        .expect("it is legal");
    assert!(commits.iter().all(Commit::is_applied), "{commits:?}");
    assert_eq!(value(store, "a/1").await, None);
}
