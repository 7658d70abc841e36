//! What every engine of the live store and every blob store must do, as cases that each engine is put through.
//!
//! [`conformance_tests!`](crate::conformance_tests),
//! [`blob_conformance_tests!`](crate::blob_conformance_tests) and
//! [`signed_url_conformance_tests!`](crate::signed_url_conformance_tests) make one test of each case. A case
//! panics with what it expected. Not here: what only some engines promise, e.g. what survives a crash.

pub mod agreement;
pub mod blobs;
pub mod commits;
pub mod compaction;
pub mod leases;
pub mod ranges;
pub mod urls;
pub mod watches;

use crate::live::{Change, Commit, Entry, Expect, Revision, Store, Txn, Watch, WatchEvent};
use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

/// Longer than anything here takes; a case that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// An empty store of the engine under test.
pub struct Fixture {
    /// The store.
    pub store: Arc<dyn Store>,
    /// True if nobody else makes the store's revision grow.
    pub alone: bool,
    /// What must live as long as the store, e.g. its folder.
    pub keep: Box<dyn Any + Send + Sync>,
}

/// Makes one test of each case for an engine. Takes the path of a function that gives a new
/// [`Fixture`], and of one that nobody else uses, if that is another one: some cases make the engine
/// forget all of its past, or count its revisions. Both may give an `Option` of one.
#[macro_export]
macro_rules! conformance_tests {
    ($fresh:path) => {
        $crate::conformance_tests! { $fresh, $fresh }
    };
    ($fresh:path, $own_past:path) => {
        $crate::conformance_tests! { @each $fresh; commits:
            every_kind_of_guard, a_refusal_tells_the_first_broken_guard_and_what_was_found,
            a_refused_transaction_writes_nothing, only_changes_make_revisions, a_write_is_seen_at_once,
            an_outer_guard_refuses_the_whole_batch, a_stale_inner_guard_leaves_the_others,
            a_batch_is_seen_as_it_stands, an_illegal_batch_writes_nothing, guards_see_the_state_before_the_batch,
            a_removed_prefix_takes_its_keys_and_no_others, a_removed_prefix_is_one_operation,
            a_removed_prefix_counts_as_writing_below_it, limits_are_reached_and_not_passed, the_largest_transaction_passes, illegal_transactions_are_refused,
            one_of_many_writers_wins_each_round
        }
        $crate::conformance_tests! { @each $fresh; ranges:
            pages_join_without_gap_or_repeat, prefixes_are_exact, a_page_is_bounded_in_bytes, odd_keys_are_kept,
            illegal_reads_are_refused
        }
        $crate::conformance_tests! { @each $fresh; watches:
            a_watch_from_the_past_delivers_it, events_keep_the_order_of_the_transaction,
            nothing_is_lost_under_concurrent_writers, a_watch_sees_its_prefix_only, watches_are_independent,
            a_slow_reader_is_told_to_read_anew,
            a_first_read_and_its_watch_leave_no_gap, a_closed_store_ends_its_watches
        }
        $crate::conformance_tests! { @each $fresh; leases:
            an_expired_lease_takes_its_keys, a_renewed_lease_lives_on, many_leases_are_renewed_together, an_expired_lease_cannot_be_renewed,
            a_revoked_lease_takes_its_keys_in_one_revision, a_put_under_a_missing_lease_writes_nothing,
            a_rewritten_key_leaves_its_lease, a_lease_that_is_not_there_is_revoked_quietly,
            times_to_live_are_bounded, revoking_and_putting_at_once_leaves_no_orphan,
            who_slept_through_its_lease_writes_nothing
        }
        $crate::conformance_tests! { @each $own_past; agreement:
            it_answers_as_memory_does
        }
        $crate::conformance_tests! { @each $own_past; compaction:
            the_compacted_past_is_a_resync, a_removal_at_the_end_of_the_past_is_not_lost,
            what_stands_is_not_compacted, compacting_again_or_the_future_is_quiet
        }
    };
    (@each $fresh:path; $group:ident: $($case:ident),+ $(,)?) => {
        mod $group {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    // `None`: what the engine needs is not installed, and it was said so.
                    let fixture: Option<$crate::conformance::Fixture> = $fresh().into();
                    if let Some(fixture) = fixture {
                        $crate::conformance::$group::$case(fixture).await;
                    }
                }
            )+
        }
    };
}

/// Makes one test of each case for a blob store. Takes the path of a function that gives an empty
/// [`BlobStore`](crate::BlobStore) behind an `Arc` and what must live as long; `None` skips, and the
/// function says why.
///
/// `portable` leaves out what a server that keeps objects as files cannot: long names, and bytes
/// and metadata that change in one instant.
#[macro_export]
macro_rules! blob_conformance_tests {
    ($fresh:path) => {
        $crate::blob_conformance_tests! { portable $fresh }
        $crate::blob_conformance_tests! { demanding $fresh }
    };
    (portable $fresh:path) => {
        $crate::blob_conformance_tests! { @each $fresh:
            what_is_put_is_read, a_missing_blob_is_named, ranges_end_with_the_blob, a_put_replaces_the_whole_blob,
            listings_are_whole_parts_in_order, pages_join_without_gap_or_repeat, a_blob_may_lie_below_another,
            deleting_is_quiet_and_complete, deletes_and_puts_do_not_disturb_each_other, illegal_names_are_refused,
            large_blobs_are_streamed, a_stream_begins_anywhere, a_stream_is_stored_as_announced_or_not_at_all
        }
    };
    (demanding $fresh:path) => {
        $crate::blob_conformance_tests! { @each $fresh: long_names_are_kept, a_reader_never_sees_a_part }
    };
    (@each $fresh:path: $($case:ident),+ $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                if let Some((blobs, _keep)) = $fresh() {
                    $crate::conformance::blobs::$case(blobs).await;
                }
            }
        )+
    };
}

impl Fixture {
    /// The store stands where it should; one that is shared may have gone further.
    fn assert_stands(&self, at: Revision, expected: Revision) {
        assert!(at >= expected, "{at:?} is before {expected:?}");
        assert!(at == expected || !self.alone, "{at:?} is beyond {expected:?}");
    }
}

/// Where a store that is still empty stands.
async fn begin(store: &dyn Store) -> Revision {
    let page = store.range("", None, 1).await.expect("the store answers");
    assert_eq!(page.entries, [], "a new store is empty");
    page.revision
}

/// A transaction that puts short values.
fn puts(pairs: &[(&str, &str)]) -> Txn {
    pairs.iter().fold(Txn::new(), |txn, (key, value)| {
        txn.put_bytes(*key, value.as_bytes().to_vec(), None)
    })
}

/// Commits what must be applied; answers its revision.
async fn applied(store: &dyn Store, txn: Txn) -> Revision {
    match store.commit(txn).await.expect("the store answers") {
        Commit::Applied(revision) => revision,
        refused @ Commit::Refused { .. } => panic!("expected to be applied: {refused:?}"),
    }
}

/// Commits what must be refused.
async fn refused(store: &dyn Store, txn: Txn) -> (String, Expect, Option<Entry>) {
    match store.commit(txn).await.expect("the store answers") {
        Commit::Refused { guard, found } => (guard.key, guard.expect, found),
        Commit::Applied(revision) => panic!("expected a refusal, was applied at {revision:?}"),
    }
}

/// A key's value as text.
async fn value(store: &dyn Store, key: &str) -> Option<String> {
    let entry = store.get(key).await.expect("the store answers")?;
    Some(String::from_utf8(entry.value).expect("text"))
}

/// The next event, which must come soon; `None` when the watch has ended.
async fn next(watch: &mut Watch) -> Option<WatchEvent> {
    tokio::time::timeout(PATIENCE, watch.recv())
        .await
        .expect("an event within the patience of the suite")
}

/// The next changes, as keys and values.
async fn next_changes(watch: &mut Watch) -> Vec<Change> {
    match next(watch).await {
        Some(WatchEvent::Changes(changes)) => changes,
        other => panic!("expected changes, got {other:?}"),
    }
}

/// Changes as `key=value` or `key gone`.
fn shown(changes: &[Change]) -> Vec<String> {
    let one = |c: &Change| match &c.value {
        Some(value) => format!("{}={}", c.key, String::from_utf8_lossy(value)),
        None => format!("{} gone", c.key),
    };
    changes.iter().map(one).collect()
}
