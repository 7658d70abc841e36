//! The whole agent against a server and sandboxes that the tests command.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod agents;
mod fake_material;
mod fake_sandboxes;
mod fake_server;
mod front;
mod leases;
mod real;
mod scenarios;
mod servers;
