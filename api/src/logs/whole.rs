//! Whether all of a run's logs are stored, by a listing of its blobs.
//!
//! Not here: what counts (`api_core::logs`), what to do if they are not.

use super::sized;
use api_core::logs::{OwedLogs, run_prefix};
use model::RunId;
use pipeline::progress::Records;
use store::{BlobError, BlobStore};

/// True when every attempt's log is stored up to the length that the attempt's end has told. One
/// listing for the whole run.
///
/// # Errors
/// [`BlobError`] when the blobs cannot be listed.
pub(crate) async fn are_whole(blobs: &dyn BlobStore, run: &RunId, records: &Records) -> Result<bool, BlobError> {
    let owed = OwedLogs::of(records);
    if owed.is_empty() {
        return Ok(true);
    }
    let listing = blobs.list(&run_prefix(run)).await?;
    Ok(owed.are_among(listing.into_iter().map(sized)))
}
