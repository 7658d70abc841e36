//! Behaviour of the state machines: named cases, and a small world in which anything may happen.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod lease;
mod life;
mod log_ship;
mod node;
mod orders;
mod world;
