//! What the API server decides by itself, as plain state machines: (state, event, now) → effects.
//!
//! Time is an input, milliseconds of a steady clock, so that a seed replays a whole cluster. Not
//! here: the store, blobs, sockets and every clock; the crate `api` carries the effects out.

pub mod archive;
pub mod fleet;
pub mod logs;
