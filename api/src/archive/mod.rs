//! Finished runs: how they leave the live store, and how they are read again.
//!
//! What is decided stands in `api_core::archive`; here it is carried out, on the leading server
//! only ([`keeper`]), and read on every server ([`reading`]); what is old goes ([`retention`]). Logs stay where they are: their blobs
//! do not move, only who knows how long they are. Not here: how runs are shown (`rest`).

mod blob;
mod keeper;
mod metrics;
mod moving;
mod reading;
mod retention;
mod storing;
mod sweep;

pub use api_core::archive::{Keep, Times as ArchiveTimes};
pub use reading::{Archive, ArchiveError, Archives};

pub(crate) use keeper::keep;
pub(crate) use retention::retain;
