//! Whether all of a run's logs are stored, as far as their lengths are known.
//!
//! Not here: what to do if they are not.

use super::cover::Cover;
use super::name::{fence_of, run_prefix, step_of};
use model::{Fence, RunId};
use pipeline::progress::Records;
use std::collections::BTreeMap;
use store::{BlobEntry, BlobError, BlobStore};

/// True when every attempt's log is stored up to the length that the attempt's end has told. One
/// listing for the whole run.
///
/// # Errors
/// [`BlobError`] when the blobs cannot be listed.
pub(crate) async fn are_whole(blobs: &dyn BlobStore, run: &RunId, records: &Records) -> Result<bool, BlobError> {
    let mut owed: BTreeMap<(usize, Fence), u64> = BTreeMap::new();
    for (step, record) in records {
        let newest = record
            .log_bytes
            .filter(|_| record.alloc.is_some())
            .map(|len| (record.fence, len));
        let earlier = record.earlier.iter().filter_map(|a| Some((a.fence, a.log_bytes?)));
        for (fence, len) in earlier.chain(newest).filter(|(_, len)| *len > 0) {
            owed.insert((*step, fence), len);
        }
    }
    if owed.is_empty() {
        return Ok(true);
    }
    let mut stored: BTreeMap<(usize, Fence), Vec<BlobEntry>> = BTreeMap::new();
    for entry in blobs.list(&run_prefix(run)).await? {
        if let (Some(step), Some(fence)) = (step_of(&entry.name), fence_of(&entry.name)) {
            stored.entry((step, fence)).or_default().push(entry);
        }
    }
    let is_whole = |((step, fence), len): (&(usize, Fence), &u64)| {
        let found = stored.remove(&(*step, *fence)).unwrap_or_default();
        Cover::of(found).len() >= *len
    };
    Ok(owed.iter().all(is_whole))
}
