//! The wall clock, read at the rim and handed to whatever decides.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds of the Unix epoch; 0 on a machine whose clock stands before it.
#[must_use]
pub(crate) fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}
