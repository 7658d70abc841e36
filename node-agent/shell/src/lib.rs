//! The agent's rim: its stream to a server, its journal, its sandboxes and log files.
//!
//! Not here: what happens to an allocation next (crate `node-agent`), how a container is made
//! (crate `isolation`).

pub mod checkout;
pub mod images;
