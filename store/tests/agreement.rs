//! SQLite and memory give the same answers, revisions and watches to the same calls in the same order.

use proptest::prelude::*;
use store::live::{Expect, Guard, LEASE_TTL_MAX_MS, LeaseId, Write};
use store::memory::MemoryCore;
use store::sqlite::SqliteStore;
use store::{Revision, Store, Txn, WatchEvent};

#[derive(Debug, Clone)]
enum Call {
    Batch(Vec<Guard>, Vec<Txn>),
    Get(String),
    Range(String, Option<String>, usize),
    Grant,
    Renew(LeaseId),
    Revoke(LeaseId),
}

fn key() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "a/", "a/1", "a/2", "a0", "b"]).prop_map(str::to_owned)
}

fn lease() -> impl Strategy<Value = LeaseId> {
    (1..5i64).prop_map(LeaseId)
}

fn guard() -> impl Strategy<Value = Guard> {
    let expect = prop_oneof![
        Just(Expect::Absent),
        Just(Expect::Present),
        (0..20u64).prop_map(|r| Expect::Revision(Revision(r))),
    ];
    (key(), expect).prop_map(|(key, expect)| Guard { key, expect })
}

fn write() -> impl Strategy<Value = Write> {
    prop_oneof![
        3 => (key(), prop::collection::vec(any::<u8>(), 0..4), prop::option::weighted(0.3, lease()))
            .prop_map(|(key, value, lease)| Write::Put { key, value, lease }),
        1 => key().prop_map(|key| Write::Delete { key }),
        1 => key().prop_map(|prefix| Write::DeletePrefix { prefix }),
    ]
}

fn txn() -> impl Strategy<Value = Txn> {
    (
        prop::collection::vec(guard(), 0..2),
        prop::collection::vec(write(), 0..3),
    )
        .prop_map(|(guards, writes)| Txn { guards, writes })
}

fn call() -> impl Strategy<Value = Call> {
    prop_oneof![
        5 => txn().prop_map(|t| Call::Batch(Vec::new(), vec![t])),
        2 => (prop::collection::vec(guard(), 0..2), prop::collection::vec(txn(), 0..3))
            .prop_map(|(outer, txns)| Call::Batch(outer, txns)),
        1 => key().prop_map(Call::Get),
        2 => (prop::sample::select(vec!["", "a", "a/", "c"]), prop::option::of(key()), 1..4usize)
            .prop_map(|(prefix, after, limit)| Call::Range(prefix.to_owned(), after, limit)),
        1 => Just(Call::Grant),
        1 => lease().prop_map(Call::Renew),
        1 => lease().prop_map(Call::Revoke),
    ]
}

/// Everything an answer says, as text: values, revisions and error messages.
async fn ask_sqlite(store: &SqliteStore, call: Call) -> String {
    match call {
        Call::Batch(outer, txns) => format!("{:?}", store.commit_batch(outer, txns).await),
        Call::Get(key) => format!("{:?}", store.get(&key).await),
        Call::Range(prefix, after, limit) => format!("{:?}", store.range(&prefix, after.as_deref(), limit).await),
        Call::Grant => format!("{:?}", store.lease_grant(LEASE_TTL_MAX_MS).await),
        Call::Renew(lease) => format!("{:?}", store.lease_keep_alive(lease).await),
        Call::Revoke(lease) => format!("{:?}", store.lease_revoke(lease).await),
    }
}

fn ask_memory(core: &mut MemoryCore, call: Call) -> String {
    match call {
        Call::Batch(outer, txns) => format!("{:?}", core.commit_batch(&outer, txns, 0)),
        Call::Get(key) => format!("{:?}", core.get(&key)),
        Call::Range(prefix, after, limit) => format!("{:?}", core.range(&prefix, after.as_deref(), limit)),
        Call::Grant => format!("{:?}", core.lease_grant(LEASE_TTL_MAX_MS, 0)),
        Call::Renew(lease) => format!("{:?}", core.lease_keep_alive(lease, 0)),
        Call::Revoke(lease) => {
            core.lease_revoke(lease, 0);
            "Ok(())".to_owned()
        }
    }
}

async fn agree(calls: Vec<Call>) {
    let folder = tempfile::tempdir().expect("a folder");
    let sqlite = SqliteStore::open(folder.path()).expect("it opens");
    let mut memory = MemoryCore::new();
    for call in calls {
        let expected = ask_memory(&mut memory, call.clone());
        assert_eq!(ask_sqlite(&sqlite, call.clone()).await, expected, "{call:?}");
    }
    for prefix in ["", "a/"] {
        let mut watch = sqlite.watch(prefix, Revision(0)).await.expect("the store answers");
        let mut seen: Vec<WatchEvent> = Vec::new();
        while let Ok(event) = watch.try_recv() {
            seen.push(event);
        }
        assert_eq!(seen, memory.changes_since(Revision(0), prefix), "watch of {prefix:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn sqlite_answers_as_memory_does(calls in prop::collection::vec(call(), 1..40)) {
        tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime")
            .block_on(agree(calls));
    }
}
