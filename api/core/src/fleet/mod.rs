//! A node's session as the server decides it: which orders the node is to hear, what becomes of its
//! reports, and when it is to forget an allocation.
//!
//! Not here: streams, the store, and what an order says.

mod desired;
mod leaving;
mod report;

pub use desired::{Desired, Word};
pub use leaving::{Gone, LEAVING_MAX, Leaving};
pub use report::{Gathered, Held, Verdict, is_folded, judge, state_word};
