//! The way of a log's bytes from a node into blobs, and which of them are stored.
//!
//! | module | what |
//! |---|---|
//! | `name` | which log, under which blob names |
//! | `tape` | the offsets of one log on its way in |
//! | `cover` | which bytes a listing of blobs holds |
//! | `whole` | whether all logs of a run are stored |
//!
//! Not here: streams, blobs, readers, and memory budgets of more than one log.

mod cover;
mod name;
mod tape;
mod whole;

pub use cover::{Cover, Segment};
pub use name::{LogId, fence_of, offset_of, run_prefix, step_of, step_prefix};
pub use tape::{Batch, Tape, UNSTORED_MAX, Verdict};
pub use whole::OwedLogs;
