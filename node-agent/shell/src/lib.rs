//! The agent's rim: its stream to a server, its journal, its sandboxes and its log files.
//!
//! [`run`] is the whole role. It performs what the state machines of the crate `node-agent` decide,
//! and feeds back what came of it; each module here is one kind of thing that it touches.
//!
//! Not here: what happens to an allocation next (`node-agent`), how a container is made
//! (`isolation`), HTTP: whoever starts the agent serves [`AgentMetrics`].

mod agent;
mod blocking;
mod certificate;
pub mod checkout;
mod config;
mod data_folder;
mod ended;
mod environment;
mod facts;
mod follow;
pub mod images;
mod journal;
mod left;
mod logs;
mod material;
mod metrics;
mod outcome;
mod owner;
mod prepare;
mod quorum;
mod readable;
mod sandboxes;
mod script;
mod servers;
mod session;
#[cfg(test)]
mod test_orders;
mod trace;
mod trash;
mod wire_form;

pub use agent::{run, run_with};
pub use config::{AgentConfig, AgentError, CapacityOverride, LOG_BYTES_MAX, SLOTS_DEFAULT, TlsFiles};
pub use material::{Ground, Keep, Material, MaterialFailure, Tree};
pub use metrics::AgentMetrics;
pub use sandboxes::{Sandboxes, Watch};
