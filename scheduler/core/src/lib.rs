//! Decides what happens to every step: a view of the cluster goes in with the time, proposals come out.
//!
//! The view ([`Cluster`]) is built from the live store's records, whatever their order of arrival.
//! [`Cluster::plan`] proposes a closed list of [`Action`]s and reserves what they need;
//! [`Cluster::verify`] checks each again on the newest view and turns it into a [`Change`], a
//! guarded write; the shell commits it and answers with [`Cluster::confirm`] or
//! [`Cluster::refuse`]. [`Cluster::explain`] says why a step is where it is, or why not yet.
//!
//! Not here: the store, election, watches, timers, logging, clocks and chance. Nothing depends on
//! the order of a hash map, so the same inputs give the same plan.

mod action;
mod cluster;
pub mod estimate;
mod explain;
pub mod fit;
mod fold;
mod group;
mod keep;
pub mod lasting;
mod lost;
mod node;
mod pause;
mod plan;
mod queue;
mod run;
mod sanity;
mod sentence;
mod settle;
mod shape;
mod shelf;
mod slot;
mod supersede;
pub mod term;
mod wanted;
mod watchfulness;

pub use action::{
    Action, Change, Expect, Plan, Proposal, Refusal, Refused, SeenAlloc, SeenNode, StepWrite, Ticket, Transition,
    Verified, Write,
};
pub use cluster::{Cluster, Malformed, Taken};
pub use explain::{CANDIDATES_MAX, Candidate, Explanation, NodeCounts, Verdict};
pub use fold::{Folded, Policy, fold, lose};
pub use keep::{KEPT_MAX, OVERTAKEN_MAX_MS};
pub use pause::RETRY_PAUSE_MAX_MS;
pub use sanity::Breach;
pub use watchfulness::LeaseTimes;

/// The most actions of one plan: what one batch of the store may hold. The rest follows in the
/// next plan at once ([`Plan::more`]).
pub const PLAN_ACTIONS_MAX: usize = 1_000;

/// The most deleted keys whose revision is remembered, so that a late or repeated older change
/// does not bring them back. Watches deliver in order and repeat a few seconds at most.
pub const TOMBSTONES_MAX: usize = 65_536;

/// The most steps whose durations are remembered, about 60 bytes each: those of 30,000 pipelines.
pub const DURATIONS_MAX: usize = 262_144;

/// The most malformed records whose reason is kept for reports; more are kept out all the same.
pub const MALFORMED_MAX: usize = 1_000;

/// The most label selectors whose matching nodes are remembered; they are found anew beyond it.
pub const SELECTORS_MAX: usize = 1_024;

/// How long a cancel request waits for a run that is not there, milliseconds: its trigger may
/// still be in the inbox, where fetching a large repository takes its time.
pub const UNKNOWN_RUN_WAIT_MS: u64 = 600_000;

/// The newest format of the store that this release may write to.
pub const STORE_FORMAT: u32 = 1;
