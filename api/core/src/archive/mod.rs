//! How finished runs leave the live store and reach history.
//!
//! [`Form`] is what is kept of a run; [`Archiver`] decides when which run is stored, moved and told
//! to history. The way of one run, each part harmless to repeat:
//!
//! 1. its blob is put: the whole run, under a name that the same run and attempt always have;
//! 2. in one transaction under the leader's key, and only if its header is as it was read, the run
//!    goes from the live store and its outbox entry comes;
//! 3. history takes the entry's record, as often as it is told;
//! 4. the outbox entry goes, if it is still the one that history was told.
//!
//! [`Keep`] says how long it is kept then. Not here: who carries the parts out.

mod archiver;
mod change;
mod form;
mod keep;

pub use archiver::{
    Archiver, BATCH_MAX, Effect, Event, IN_FLIGHT_MAX, Move, MoveResult, PutResult, StoreResult, TELL_MAX, Times, Told,
};
pub use change::{Change, Expect, Write, cancel_request};
pub use form::{Form, FormStep, blob_name, summary};
pub use keep::Keep;
