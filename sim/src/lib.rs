//! The cluster in one thread under one seed and one virtual clock: the real store engine (in memory),
//! the real scheduler core, the real agent core; only machines, messages and faults are made up.
//!
//! [`run`] lives through one seed: runs with random graphs, cancels, two scheduler replicas that
//! crash, pause and lose answers, nodes whose agents crash, reboot and lose their stream, reports
//! that are late, repeated and out of order. The invariants are asserted after every event; then
//! everything is healed and every run must end. The same seed gives the same history, to the byte.
//!
//! Not here: real time, sockets, containers, SQLite, and the API's intake.

mod agenda;
mod invariants;
mod machine;
mod message;
mod replica;
mod workload;
mod world;

pub use world::{Report, run};
