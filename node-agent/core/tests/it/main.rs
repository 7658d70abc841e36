//! Behaviour of the state machines: named cases, and a small world in which anything may happen.

mod life;
mod log_ship;
mod node;
mod orders;
mod world;
