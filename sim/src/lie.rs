//! Rules that are broken on purpose, so that a test can see that the invariants notice.
//!
//! Each is one that some part of the product keeps, and is broken where the simulator stands around
//! that part. Not here: faults, which break no rule ([`crate::faults`]).

/// A rule that is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// Servers acknowledge what they have received of a log, before it is stored.
    AcknowledgesEarly,
    /// The blob store says that it has stored what it has not.
    LosesBlobs,
    /// Servers let nodes forget an allocation whose order is gone, whether or not its log is whole.
    ForgetsEarly,
    /// Reports are filed whatever the store holds.
    FilesAnything,
    /// What leaders write is not guarded.
    CommitsUnguarded,
    /// Leaders go on under their key when nobody waits any more for a batch of theirs.
    GoesOnAfterDrop,
    /// What archives write is not guarded.
    MovesUnguarded,
    /// Archives take a history that is away for one that has been told.
    TellsNobody,
    /// Leaders wait for the grace alone after a takeover, not for a whole lease.
    ForgetsLeases,
    /// Leaders give up a node at once when its session is gone.
    WaitsForNoGrace,
    /// Shims do not look at their node's deadline.
    OutlivesLeases,
}
