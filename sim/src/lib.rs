//! The cluster in one thread under one seed and one virtual clock: the real store engine (in memory),
//! the real scheduler, what an API server decides of sessions, logs and the archive, and the real agent;
//! only machines, messages and faults are made up.
//!
//! [`run`] lives through one seed: runs with random graphs, cancels and drains; servers that crash,
//! pause, lose answers and lose sight of the store, with two batches of their leader on their way at a
//! time; a store that runs full, loses its quorum, takes leases away that were renewed, or is restored
//! without them; blobs and history that are late, away, and do what they say they have not done; nodes
//! whose agents crash, pause, lose their power and are cut off from some servers or all, whose clocks
//! run too fast or too slow; whatever is said between them late,
//! repeated and out of order. The invariants I2 to I7 are asserted after every event; then everything
//! is healed, every run must end and reach history, and nothing may be left. The same seed gives the
//! same history, to the byte. [`run_with`] lives in a world that breaks a rule, to show that it is noticed.
//!
//! # When a seed fails
//!
//! The history is lived through a second time and its last part told in words, one line an event: the
//! time since the beginning, who (`s0` a server, `n0` a node, `store`, `blobs`), and what. A history that
//! does not end says what everything waits for. The last line names the seed:
//!
//! ```text
//! SIM_SEED=4711 cargo test -p sim --test seeds -- --nocapture    # lives through this seed again
//! SIM_SEEDS=20000 cargo test -p sim --test seeds                 # tries that many
//! ```
//!
//! Not here: real time, sockets, containers, SQLite, the API's intake (I1) and its readers of logs, and
//! how long things take.

mod agenda;
mod agent;
mod archived;
mod archiving;
mod blobs;
mod chance;
mod committing;
mod election;
mod faults;
mod filing;
mod hub;
mod invariants;
mod leading;
mod lie;
mod machine;
mod message;
mod network;
mod printed;
mod report;
mod server;
mod session;
mod shipping;
mod trace;
mod waiting;
mod workload;
mod world;

pub use lie::Lie;
pub use report::Report;
pub use world::{run, run_with};
