//! What happened under a seed, so that tests can demand that something did.
//!
//! Not here: what may not happen ([`crate::invariants`]).

use std::ops::AddAssign;

/// Counts of what happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Events in all.
    pub events: usize,
    /// Runs that were triggered; all have ended.
    pub runs: usize,
    /// Containers that were started.
    pub launched: usize,
    /// Times a server won the election.
    pub leaders: usize,
    /// Times a server learned from a refused commit that it does not lead.
    pub deposed: usize,
    /// Commits that the store refused because something had changed.
    pub refused: usize,
    /// Commits whose answer was lost.
    pub lost_answers: usize,
    /// Commits that were applied after their sender had crashed or lost its view.
    pub commits_of_the_dead: usize,
    /// Views that were built anew because a watch had fallen behind.
    pub resyncs: usize,
    /// Containers that a restarted agent found.
    pub readopted: usize,
    /// Reports that arrived when their attempt's end was in its step already.
    pub late_reports: usize,
    /// Reports that were refused: of attempts that neither stand nor are remembered in their step.
    /// A step remembers more attempts than one has here, so there should be none.
    pub stale_reports: usize,
    /// Streams that went from one server to another.
    pub moved: usize,
    /// Containers that the shims killed at their node's deadline.
    pub killed_by_lease: usize,
    /// Deadlines that were put off because every server had said that the quorum was lost.
    pub quorum_extensions: usize,
    /// Steps that were tried again: because their node was lost, was drained, or otherwise.
    pub tried_again: [usize; 3],
    /// Times an operator said that a node would not come back.
    pub declared_gone: usize,
    /// Leases that the store took away before their time.
    pub taken_leases: usize,
    /// Times the store lost its quorum.
    pub outages: usize,
    /// Cables that were pulled.
    pub cuts: usize,
    /// Steps that ended well, failed, timed out, were cancelled, were skipped.
    pub ended: [usize; 5],
}

impl Report {
    /// Everything that a test of the invariants wants to have happened, by name: each is to be more
    /// than 0 over enough seeds, or they were not put to the test.
    #[must_use]
    pub fn troubles(&self) -> [(&'static str, usize); 24] {
        let [lost, drained, otherwise] = self.tried_again;
        let [success, failed, timed_out, cancelled, skipped] = self.ended;
        [
            ("launched", self.launched),
            ("leaders", self.leaders),
            ("deposed", self.deposed),
            ("refused", self.refused),
            ("lost_answers", self.lost_answers),
            ("commits_of_the_dead", self.commits_of_the_dead),
            ("resyncs", self.resyncs),
            ("readopted", self.readopted),
            ("late_reports", self.late_reports),
            ("moved", self.moved),
            ("killed_by_lease", self.killed_by_lease),
            ("quorum_extensions", self.quorum_extensions),
            ("tried_again: lost", lost),
            ("tried_again: drained", drained),
            ("tried_again: otherwise", otherwise),
            ("declared_gone", self.declared_gone),
            ("taken_leases", self.taken_leases),
            ("outages", self.outages),
            ("cuts", self.cuts),
            ("ended: success", success),
            ("ended: failed", failed),
            ("ended: timed_out", timed_out),
            ("ended: cancelled", cancelled),
            ("ended: skipped", skipped),
        ]
    }
}

impl AddAssign for Report {
    fn add_assign(&mut self, other: Self) {
        let Self {
            events,
            runs,
            launched,
            leaders,
            deposed,
            refused,
            lost_answers,
            commits_of_the_dead,
            resyncs,
            readopted,
            late_reports,
            stale_reports,
            moved,
            killed_by_lease,
            quorum_extensions,
            tried_again,
            declared_gone,
            taken_leases,
            outages,
            cuts,
            ended,
        } = other;
        let counts = [
            (&mut self.events, events),
            (&mut self.runs, runs),
            (&mut self.launched, launched),
            (&mut self.leaders, leaders),
            (&mut self.deposed, deposed),
            (&mut self.refused, refused),
            (&mut self.lost_answers, lost_answers),
            (&mut self.commits_of_the_dead, commits_of_the_dead),
            (&mut self.resyncs, resyncs),
            (&mut self.readopted, readopted),
            (&mut self.late_reports, late_reports),
            (&mut self.stale_reports, stale_reports),
            (&mut self.moved, moved),
            (&mut self.killed_by_lease, killed_by_lease),
            (&mut self.quorum_extensions, quorum_extensions),
            (&mut self.declared_gone, declared_gone),
            (&mut self.taken_leases, taken_leases),
            (&mut self.outages, outages),
            (&mut self.cuts, cuts),
        ];
        let several = self.tried_again.iter_mut().zip(tried_again);
        let several = several.chain(self.ended.iter_mut().zip(ended));
        for (sum, count) in counts.into_iter().chain(several) {
            *sum += count;
        }
    }
}
