//! Many small blobs of a log that has ended become few large ones.
//!
//! A step that prints something every second for an hour leaves 3,600 blobs. A merged blob is
//! stored before its sources are removed, so a crash at any moment leaves every byte under at least
//! one name; a reader whose listing is older lists again. Not here: when a log has ended.

use super::hub::Inner;
use super::{Cover, sized};
use api_core::logs::{LogId, offset_of};
use store::{BlobError, BlobName, BlobStore};

/// The most bytes of a merged blob: what one merge holds in memory.
const MERGED_MAX: u64 = 4 * 1024 * 1024;

/// Merges the blobs of `id` if there are more than `above`. A failure is logged and left: the log
/// is whole as it is.
pub(super) async fn after_end(hub: &Inner, id: &LogId, above: usize) {
    let merged = async {
        let _one_at_a_time = hub.merges.acquire().await;
        merge(hub.blobs.as_ref(), id, above).await
    };
    let merged = tokio::select! {
        merged = merged => merged,
        // Cut off at any point, the log is whole.
        () = hub.stopping.cancelled() => return,
    };
    match merged {
        Ok(0) => {}
        Ok(merged) => {
            hub.metrics.merges.inc_by(merged);
            tracing::debug!(log = %id, merged, "log blobs merged");
        }
        Err(error) => tracing::warn!(log = %id, %error, "log blobs not merged"),
    }
}

/// Answers how many blobs were replaced.
async fn merge(blobs: &dyn BlobStore, id: &LogId, above: usize) -> Result<u64, BlobError> {
    let entries = blobs.list(&id.prefix()).await?;
    if entries.len() <= above {
        return Ok(0);
    }
    let all: Vec<BlobName> = entries.iter().map(|e| e.name.clone()).collect();
    let cover = Cover::of(entries.into_iter().map(sized));
    let mut kept: Vec<BlobName> = Vec::new();
    for group in groups(&cover.segments) {
        kept.push(merge_group(blobs, id, group).await?);
    }
    let mut removed = 0;
    // What lies behind a gap is left alone: it is not part of the log that was merged.
    let covered = |name: &BlobName| offset_of(name.as_str()).is_some_and(|o| o < cover.len());
    for name in all.iter().filter(|n| !kept.contains(n) && covered(n)) {
        blobs.delete(name).await?;
        removed += 1;
    }
    Ok(removed)
}

type Segment = api_core::logs::Segment<BlobName>;

/// Neighbours that fit one merged blob.
fn groups(segments: &[Segment]) -> Vec<&[Segment]> {
    let mut groups = Vec::new();
    let mut from = 0;
    for i in 1..=segments.len() {
        let full = i < segments.len() && segments[i].end() - segments[from].at > MERGED_MAX;
        if i == segments.len() || full {
            groups.push(&segments[from..i]);
            from = i;
        }
    }
    groups
}

/// Stores a group as one blob and answers its name. A group of one whole blob stays as it is.
async fn merge_group(blobs: &dyn BlobStore, id: &LogId, group: &[Segment]) -> Result<BlobName, BlobError> {
    if let [only] = group
        && only.skip == 0
    {
        return Ok(only.blob.clone());
    }
    let mut bytes = Vec::new();
    for segment in group {
        let part = blobs.get_range(&segment.blob, segment.skip, segment.len).await?;
        if part.len() as u64 != segment.len {
            return Err(short(&segment.blob));
        }
        bytes.extend_from_slice(&part);
    }
    let name = BlobName::new(id.blob(group[0].at, bytes.len() as u64))?;
    blobs.put(&name, bytes).await?;
    Ok(name)
}

/// A blob that gives fewer bytes than its listing said must never take the place of its sources.
fn short(blob: &BlobName) -> BlobError {
    BlobError::Io {
        name: blob.as_str().to_owned(),
        cause: std::io::Error::other("the blob is shorter than its listing says"),
    }
}
