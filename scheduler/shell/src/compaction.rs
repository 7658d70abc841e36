//! The leader has the store forget its past: without this it would keep every version of every key.
//!
//! What is kept is the time between the last two looks, so a watch that was interrupted for a
//! moment goes on where it was. Not here: how an engine forgets.

use std::sync::Arc;
use std::time::Duration;
use store::{Revision, Store};
use tokio::time::Instant;

/// How often the past is forgotten. At least this much of it is kept, and at most twice as much: a
/// follower whose watch breaks for longer has to read everything anyhow.
const EVERY: Duration = Duration::from_secs(300);

/// How long the store may take for it.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Remembers how far the store had come.
#[derive(Debug)]
pub(crate) struct Compaction {
    next: Instant,
    /// What the store had come to one look ago.
    keep_from: Option<Revision>,
}

impl Compaction {
    pub(crate) fn new() -> Self {
        Self {
            next: Instant::now() + EVERY,
            keep_from: None,
        }
    }

    /// Looks whether it is time; what has to be done is done beside the caller.
    pub(crate) fn look(&mut self, store: &Arc<dyn Store>, newest: Revision) {
        if Instant::now() < self.next {
            return;
        }
        self.next = Instant::now() + EVERY;
        let Some(before) = self.keep_from.replace(newest).filter(|before| before.0 > 0) else {
            return;
        };
        let store = Arc::clone(store);
        tokio::spawn(async move {
            match tokio::time::timeout(TIMEOUT, store.compact(before)).await {
                Ok(Ok(())) => tracing::debug!(before = before.0, "the store has forgotten its past"),
                Ok(Err(cause)) => tracing::warn!(error = %cause, before = before.0, "the store was not compacted"),
                Err(_) => tracing::warn!(before = before.0, "the store was not compacted in time"),
            }
        });
    }
}
