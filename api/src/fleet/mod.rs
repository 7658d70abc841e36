//! The agents' streams: one session for each connected node.

pub mod definitions;
