//! The server's rim: REST, the agents' gRPC streams, intake of triggers, logs, authentication.
//!
//! Everything here is stateless but for what can be rebuilt from the store: the [`view`] is a warm
//! picture of it, kept by one watch. Not here: placing steps and folding reports (the scheduler),
//! containers (the agents), reading pipeline files (`pipeline`), how the store keeps things.

pub mod allowance;
pub mod archive;
pub mod auth;
mod blobs;
mod clock;
mod doors;
pub mod dto;
pub mod explain;
pub mod fleet;
pub mod intake;
pub mod limit;
pub mod logs;
pub mod metrics;
mod page;
pub mod probe;
pub mod problem;
mod repository;
pub mod rest;
pub mod room;
mod rpc;
pub mod server;
pub mod state;
pub mod tokens;
pub mod trace;
pub mod validating;
pub mod view;
mod waiting;

#[cfg(test)]
mod tests;

pub use allowance::Allowance;
pub use archive::{ArchiveTimes, Keep};
pub use explain::{Explain, NoExplain};
pub use server::{Api, ServeError};
pub use state::{ApiConfig, Deps, Shared};
pub use waiting::answer_while_waiting;
