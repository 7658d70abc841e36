//! The nouns of BuildFlow and their legal transitions: plain data that every role agrees on.
//!
//! Not here: IO, clocks, randomness, async. Times are inputs (`*_ms`, milliseconds of the Unix
//! epoch), ids are handed in. What is stored under which key is said in [`key`]; how a value is
//! written, and what a reader of an older or newer release does with it, in [`record`].

pub mod allocation;
pub mod cluster;
mod envelope;
pub mod id;
pub mod key;
pub mod node;
pub mod pipeline;
pub mod record;
pub mod resources;
pub mod rules;
pub mod run;
pub mod step;

pub use allocation::{Allocation, Left, Observed, ObservedState, Outcome, Phase, StartFailure, Stop, Usage};
pub use cluster::{
    ArchivedRun, ClusterAuthority, ClusterVersion, DedupeRecord, Drain, Eligibility, InboxEntry, JoinToken, Leader,
    Member, NumberRecord, Request, RequestKind, Retention, Role, RunSummary, SessionRecord, SweptTo, TeamRecord,
    TokenRecord,
};
pub use id::{AllocId, Fence, IdError, NodeId, PipelineName, RunId, StepName, TeamName};
pub use node::{NodeFacts, NodeRecord};
pub use pipeline::PipelineRecord;
pub use record::{Record, RecordError, decode, encode};
pub use resources::{CpuMillis, Resources};
pub use rules::{Concurrency, Condition, MatrixRules, Piece, Priority, Queue, RunRules, StepRules};
pub use run::{DefChunk, Event, RunDef, RunError, RunHeader, RunStatus, Source, StageDef};
pub use step::{
    Attempt, Checkout, Entry, HEADING_CHARS_MAX, IllegalTransition, Retry, RetryOn, Shell, StepDef, StepRecord,
    StepStatus, Times,
};
