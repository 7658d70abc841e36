//! The cluster in one thread under one seed and one virtual clock: the real store engine (in memory),
//! the real scheduler core, the real agent core; only machines, messages and faults are made up.
//!
//! [`run`] lives through one seed: runs with random graphs, cancels and drains; servers that crash,
//! pause, lose answers and lose sight of the store; a store that loses its quorum; nodes whose agents
//! crash, pause, reboot and are cut off from some servers or all, whose clocks run too fast or too
//! slow; a store that takes leases away which were renewed; reports that are late, repeated and out of order. The invariants are asserted after every
//! event; then everything is healed and every run must end. The same seed gives the same history, to
//! the byte.
//!
//! Not here: real time, sockets, containers, SQLite, and the API's intake.

mod agenda;
mod agent;
mod archived;
mod archiving;
mod blobs;
mod chance;
mod faults;
mod filing;
mod hub;
mod invariants;
mod leading;
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

pub use report::Report;
pub use world::run;
