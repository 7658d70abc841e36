//! Triggers become runs: accepted durably at once, worked through afterwards.
//!
//! [`accept`] writes the trigger and answers the id of the run that it becomes; [`work`] fetches
//! the pipeline file, compiles it and writes the run. Between the two only the store remembers, so
//! that a crash at any point loses nothing and makes nothing twice: the run's header appears in the
//! transaction that removes the trigger. Not here: HTTP, placing of steps.

mod accept;
mod compile;
mod draft;
mod sources;
mod work;
mod write;

pub use accept::{AcceptError, Accepted, Asked, Leases, Trigger, accept, known_by_key, new_run_id};
pub(crate) use accept::{KeptRequest, commit_kept, fingerprint, keep_request, kept_request};
pub(crate) use compile::wrong_inputs;
pub use sources::Sources;
pub use work::work;
