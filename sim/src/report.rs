//! What happened under a seed, so that tests can demand that something did.
//!
//! Not here: what may not happen ([`crate::invariants`]).

use std::ops::AddAssign;

/// A struct of counts that can be added up and listed by name.
macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counts of what happened.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct Report {
            $($(#[$doc])* pub $name: usize,)*
        }

        impl Report {
            /// Every count by its name. A test of the invariants wants each to be more than 0 over enough
            /// seeds, or they were not put to the test.
            #[must_use]
            pub fn troubles(&self) -> Vec<(&'static str, usize)> {
                vec![$((stringify!($name), self.$name)),*]
            }
        }

        impl AddAssign for Report {
            fn add_assign(&mut self, other: Self) {
                $(self.$name += other.$name;)*
            }
        }
    };
}

counts! {
    /// Events in all.
    events,
    /// Runs that were triggered; all have ended.
    runs,
    /// Containers that were started.
    launched,
    /// Times a server won the election.
    leaders,
    /// Times a server learned from a refused commit that it does not lead.
    deposed,
    /// Commits that the store refused because something had changed.
    refused,
    /// Commits whose answer was lost.
    lost_answers,
    /// Batches that were sent while another one was on its way.
    batches_at_once,
    /// Batches that arrived before one that was sent before them, or whose answers did.
    batches_overtaken,
    /// Batches that arrived when nobody waited for them any more.
    late_batches,
    /// Batches for which the store said that it has no room.
    full_stores,
    /// Keys that were given up because of what was on its way under them.
    spent_terms,
    /// Commits that were applied after their sender had crashed or lost its view.
    commits_of_the_dead,
    /// Views that were built anew because a watch had fallen behind.
    resyncs,
    /// Containers that a restarted agent found.
    readopted,
    /// Reports that arrived when their attempt's end was in its step already.
    late_reports,
    /// Reports that were refused: of attempts that do not stand, whose run is not there any more.
    stale_reports,
    /// Streams that went from one server to another.
    moved,
    /// Containers that the shims killed at their node's deadline.
    killed_by_lease,
    /// Deadlines that were put off because every server had said that the quorum was lost.
    quorum_extensions,
    /// Steps that were tried again because their node was lost.
    tried_again_lost,
    /// Steps that were tried again because it was drained.
    tried_again_drained,
    /// Steps that were tried again for another reason.
    tried_again_otherwise,
    /// Times an operator said that a node would not come back.
    declared_gone,
    /// Leases that the store took away before their time.
    taken_leases,
    /// Times the store lost its quorum.
    outages,
    /// Times a scheduler heard of no change for long.
    slow_watches,
    /// Cables that were pulled.
    cuts,
    /// Parts of logs that were stored.
    chunks,
    /// Of these, parts that begin within what was stored already.
    overlaps,
    /// Logs that a server had a beginning of when it was asked from where to send.
    logs_resumed,
    /// Logs that a server did not want, because nothing is left of their attempt.
    unwanted_logs,
    /// Messages of logs for which a server had no room.
    turned_away,
    /// Logs that lost their end with their machine's power.
    lost_tails,
    /// Logs of accepted attempts that are whole in the end.
    whole_logs,
    /// Logs of accepted attempts that lack their end, in runs that waited for it for as long as they may.
    short_logs,
    /// Times the blob store did not answer.
    blob_failures,
    /// Blobs that were stored although the sender was told that they were not.
    blob_lies,
    /// Blobs that were stored after their sender had crashed.
    blobs_of_the_dead,
    /// Blobs that were stored again.
    blobs_again,
    /// Entries of a journal that took long to write.
    slow_writes,
    /// Allocations that an agent was told to forget.
    forgotten,
    /// Watches of orders that had fallen behind.
    orders_read_anew,
    /// Reports that were filed after their server had crashed.
    reports_of_the_dead,
    /// Reports whose keys had changed while they were on their way into the store.
    reports_judged_anew,
    /// Runs that left the live store.
    archived,
    /// Times an ended run waited for a log.
    archive_waits,
    /// Runs that were not moved because something had changed, or another server leads.
    moves_refused,
    /// Batches of an archive whose answer was lost.
    moves_unanswered,
    /// Batches of an archive that were applied after its server had crashed or lost the election.
    moves_of_the_dead,
    /// Times history did not answer.
    history_away,
    /// Times history refused what it was told.
    history_refusals,
    /// Runs that history was told again.
    history_repeats,
    /// Times the store was restored without its leases.
    restores,
    /// Steps that ended well.
    ended_success,
    /// Steps that failed.
    ended_failed,
    /// Steps that took too long.
    ended_timed_out,
    /// Steps that were cancelled.
    ended_cancelled,
    /// Steps that were skipped.
    ended_skipped,
}
