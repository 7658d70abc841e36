//! One node's allocations as state machines: `(state, event, now) -> effects`.
//!
//! [`Life`] is one allocation from its order to its removal; [`Node`] is all of them and what a
//! server says about them; [`Lease`] is until when they may run; [`LogShip`] is the offsets of one log on its way to the server;
//! [`Entry`] is what of an allocation is on disk. Everything works from whole states: an effect is
//! emitted when what it needs is true, whatever the order of events that made it true.
//!
//! Not here: files, processes, sockets, clocks. The shell performs effects and feeds back events.

mod entry;
mod fences;
mod lease;
mod life;
mod log_ship;
mod node;
mod order;

pub use entry::{End, Entry, Progress};
pub use fences::FENCES_MAX;
pub use lease::{
    ASK_EVERY_MAX_MS, Deadline, LEASE_MAX_MS, Lease, LeaseEffect, LeaseEvent, RENEW_EVERY_MAX_MS, UNCONFIRMED_MAX,
};
pub use life::{Effect, Event, Found, Kill, Life, REPORT_RESEND_MS, UNWANTED_LOG_MS, WRITE_RETRY_MS};
pub use log_ship::{LogShip, LogStep, OPEN_RESEND_MS, WINDOW_MAX};
pub use node::{Act, Node, TOMBSTONES_MAX};
pub use order::{Order, Work};
