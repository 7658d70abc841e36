//! The line indexes of the logs that were looked at last, kept up to date by reading on.
//!
//! An index is made by reading a log once; after that only what has come since is read. Not here:
//! the index itself (`lines`), what is done with it (`excerpt`).

use super::hub::{LogError, LogHub};
use super::lines::LineIndex;
use api_core::logs::LogId;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OwnedMutexGuard, Semaphore, SemaphorePermit};

/// Most logs whose index is kept; each takes some 40 KiB at most, so 20 MiB in all.
const KEPT_MAX: usize = 512;

/// Most logs that are read through at once, for an index or a search: reading one keeps a core busy.
const SCANS_MAX: usize = 4;

/// How much of a log is read at once by one who reads it through.
pub(super) const SCAN_PIECE: u64 = 1024 * 1024;

/// The indexes of one server.
pub struct Counts {
    kept: Mutex<Kept>,
    scans: Semaphore,
}

#[derive(Default)]
struct Kept {
    indexes: HashMap<LogId, Used>,
    uses: u64,
}

struct Used {
    last: u64,
    index: Arc<tokio::sync::Mutex<LineIndex>>,
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            kept: Mutex::default(),
            scans: Semaphore::new(SCANS_MAX),
        }
    }
}

impl Counts {
    /// A turn to read through a log.
    pub(super) async fn turn(&self) -> SemaphorePermit<'_> {
        self.scans.acquire().await.expect("the semaphore is never closed")
    }

    /// The index of a log, up to what is there now. Whoever gives up waiting leaves it as far as it
    /// has come.
    ///
    /// # Errors
    /// [`LogError::Blobs`].
    pub(super) async fn index(
        &self,
        hub: &LogHub,
        id: &LogId,
        headings: &[String],
    ) -> Result<OwnedMutexGuard<LineIndex>, LogError> {
        let mut index = self.entry(id, headings).lock_owned().await;
        let _turn = self.turn().await;
        let mut reader = hub.reader(id, index.scanned()).in_pieces_of(SCAN_PIECE);
        while let Some(piece) = reader.next().await? {
            index.push(&piece);
        }
        Ok(index)
    }

    fn entry(&self, id: &LogId, headings: &[String]) -> Arc<tokio::sync::Mutex<LineIndex>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.uses += 1;
        let now = kept.uses;
        if let Some(used) = kept.indexes.get_mut(id) {
            used.last = now;
            return used.index.clone();
        }
        if kept.indexes.len() >= KEPT_MAX {
            let oldest = kept.indexes.iter().min_by_key(|(_, used)| used.last);
            if let Some(oldest) = oldest.map(|(id, _)| id.clone()) {
                kept.indexes.remove(&oldest);
            }
        }
        let index = Arc::new(tokio::sync::Mutex::new(LineIndex::new(headings)));
        let used = Used {
            last: now,
            index: index.clone(),
        };
        kept.indexes.insert(id.clone(), used);
        index
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Fence, RunId};

    #[test]
    fn the_logs_that_were_used_last_are_kept() {
        let counts = Counts::default();
        let id = |step| LogId {
            run: RunId::new("01jd").unwrap(),
            step,
            fence: Fence { epoch: 1, counter: 1 },
        };
        let first = counts.entry(&id(0), &[]);
        for step in 1..KEPT_MAX {
            counts.entry(&id(step), &[]);
        }
        assert!(Arc::ptr_eq(&first, &counts.entry(&id(0), &[])));
        counts.entry(&id(KEPT_MAX), &[]);
        let kept = counts.kept.lock().unwrap();
        assert_eq!(kept.indexes.len(), KEPT_MAX);
        assert!(kept.indexes.contains_key(&id(0)) && !kept.indexes.contains_key(&id(1)));
    }
}
