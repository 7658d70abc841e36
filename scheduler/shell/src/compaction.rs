//! The leader has the store forget its past: without this it would keep every version of every key.
//!
//! What is kept is what was written between the last two times, so a watch that was interrupted for a
//! moment goes on where it was. The busier the store, the sooner: etcd stops taking writes when its
//! file has 2 GiB, unless its operator allows more. Not here: how an engine forgets.

use std::sync::Arc;
use std::time::Duration;
use store::{Revision, Store};
use tokio::time::Instant;

/// How often the past is forgotten. At least this much of it is kept, and at most twice as much: a
/// follower whose watch breaks for longer has to read everything anyhow.
const EVERY: Duration = Duration::from_secs(300);

/// How much may be written before the past is forgotten earlier, bytes: with as much again that is
/// kept, and what etcd needs beside keys and values, well below its limit.
const BYTES: u64 = 256 << 20;

/// But not more often than this: longer than a watch is interrupted by an election of etcd.
const SELDOM: Duration = Duration::from_secs(15);

/// How long the store may take for it.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Remembers how far the store had come.
#[derive(Debug)]
pub(crate) struct Compaction {
    last: Instant,
    /// How much had been heard of then.
    heard_bytes: u64,
    /// What the store had come to then.
    keep_from: Option<Revision>,
    /// The store is full.
    urgent: bool,
}

impl Compaction {
    pub(crate) fn new() -> Self {
        Self {
            last: Instant::now(),
            heard_bytes: 0,
            keep_from: None,
            urgent: false,
        }
    }

    /// The store takes no writes for want of room: the next look is not put off.
    pub(crate) fn hurry(&mut self) {
        self.urgent = true;
    }

    /// Looks whether it is time; what has to be done is done beside the caller.
    pub(crate) fn look(&mut self, store: &Arc<dyn Store>, newest: Revision, heard_bytes: u64) {
        // A view that was opened anew counts from zero.
        let written = heard_bytes.checked_sub(self.heard_bytes).unwrap_or(heard_bytes);
        let passed = self.last.elapsed();
        if passed < EVERY && (passed < SELDOM || (written < BYTES && !self.urgent)) {
            return;
        }
        self.urgent = false;
        self.last = Instant::now();
        self.heard_bytes = heard_bytes;
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
