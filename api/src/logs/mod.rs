//! Logs: bytes by offset from the agents into blobs, and from there and from memory to readers.
//!
//! | file | what |
//! |---|---|
//! | `board` | what is to be said to a node about its logs, newest word only |
//! | `hub` | the open logs: writers, storing, live bytes, memory bounds |
//! | `merge` | many small blobs of an ended log into few |
//! | `window`, `relay` | logs whose nodes are with other servers |
//! | `reader` | one reader's way through blobs and live bytes |
//! | `feed` | what a reader must know of a run: names of steps, which attempt, whether it ended |
//! | `frame` | bytes as events, server-sent or not (pure) |
//! | `cursor` | where a reader of all logs of a run is, as an event's id (pure) |
//! | `lines`, `search` | where lines are, and what they hold (pure) |
//! | `counts`, `excerpt` | the same of a stored or growing log, within bounds |
//! | `tail`, `rest` | streams of events, downloads, and their routes |
//! | `open` | what is found, or refused, before either begins |
//!
//! **When is a log whole?** The node reports a step's end with the log's length, which the leader
//! keeps in the step's record (`log_bytes`); the log is whole when so many bytes are stored. There
//! is no end marker among the blobs, so an empty log needs none. A node hears `complete` once it
//! has sent the end and everything before it is stored; after a lost answer it sends the end
//! again, without bytes, and hears it again.
//!
//! What is decided stands in `api_core::logs`: names, offsets, which bytes are stored.
//! Not here: masking (the shim), shipping (the agent), how long logs are kept.

mod board;
mod counts;
mod cursor;
mod excerpt;
mod feed;
mod frame;
mod hub;
mod lines;
mod merge;
mod metrics;
mod open;
mod reader;
mod relay;
mod rest;
#[cfg(test)]
mod rest_tests;
mod search;
mod tail;
#[cfg(test)]
mod tests;
mod whole;
mod window;

pub use api_core::logs::LogId;
pub use board::{Board, Reply};
pub use counts::Counts;
pub use feed::{Feeds, Picture, StepLog};
pub(crate) use frame::Piece;
#[cfg(test)]
pub(crate) use frame::reading::{Event as LogEvent, events as events_of};
pub use hub::{Limits, LogError, LogHub, LogWriter};
pub use metrics::LogMetrics;
pub(crate) use open::{After, StepLogs, logs_of_run, open_tail, scope_of_run};
pub use reader::LogReader;
pub use relay::Relays;
pub use rest::routes;
pub(crate) use whole::are_whole;

use store::{BlobEntry, BlobName};

/// What of a log is stored, by a listing of its blobs.
type Cover = api_core::logs::Cover<BlobName>;

/// A blob of a listing: its name and its size.
fn sized(entry: BlobEntry) -> (BlobName, u64) {
    (entry.name, entry.size)
}
