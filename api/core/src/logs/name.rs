//! Which log, and under which blob names its bytes lie.
//!
//! A log's blobs are `log/<run>/<step>/<epoch>.<counter>/<offset, 20 digits>-<length>`. The length
//! is in the name so that two servers which hold a moved node's stream for a moment can never
//! replace each other's bytes: the same offset with other bytes is another name.
//! Not here: what the bytes are, and which of overlapping blobs counts (`cover`).

use model::{AllocId, Fence, RunId};
use std::fmt;

/// One attempt's log.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LogId {
    /// The run.
    pub run: RunId,
    /// The step's ordinal in the run.
    pub step: usize,
    /// The attempt's fence: a stale attempt writes under another name.
    pub fence: Fence,
}

impl LogId {
    /// The log of an allocation; `None` for an id that no leader made.
    #[must_use]
    pub fn of(alloc: &AllocId) -> Option<Self> {
        let (run, step, fence) = alloc.parts()?;
        Some(Self { run, step, fence })
    }

    /// The prefix of its blobs.
    #[must_use]
    pub fn prefix(&self) -> String {
        format!("{}{}/", step_prefix(&self.run, self.step), self.fence)
    }

    /// The name of the blob that holds `len` bytes from `offset` on.
    #[must_use]
    pub fn blob(&self, offset: u64, len: u64) -> String {
        format!("{}{offset:020}-{len}", self.prefix())
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.run, self.step, self.fence)
    }
}

/// The prefix of the blobs of all steps of a run.
#[must_use]
pub fn run_prefix(run: &RunId) -> String {
    format!("log/{run}/")
}

/// The ordinal of the step to which a blob below [`run_prefix`] belongs.
#[must_use]
pub fn step_of(blob: &str) -> Option<usize> {
    blob.split('/').nth(2)?.parse().ok()
}

/// The prefix of the blobs of all attempts of a step.
#[must_use]
pub fn step_prefix(run: &RunId, step: usize) -> String {
    format!("log/{run}/{step}/")
}

/// The fence of the attempt to which a blob below [`step_prefix`] belongs.
#[must_use]
pub fn fence_of(blob: &str) -> Option<Fence> {
    let folder = blob.rsplit('/').nth(1)?;
    let (epoch, counter) = folder.split_once('.')?;
    Some(Fence {
        epoch: epoch.parse().ok()?,
        counter: counter.parse().ok()?,
    })
}

/// The offset of a blob's first byte; `None` for a name that is not a log's.
#[must_use]
pub fn offset_of(blob: &str) -> Option<u64> {
    let last = blob.rsplit('/').next()?;
    let digits = last.split_once('-').map_or(last, |(offset, _)| offset);
    if digits.len() == 20 { digits.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_name_tells_its_fence_and_offset() {
        let fence = Fence { epoch: 1, counter: 7 };
        let alloc = AllocId::for_step(&RunId::new("01jd").unwrap(), 3, fence);
        let log = LogId::of(&alloc).unwrap();
        let blob = log.blob(4096, 10);
        assert_eq!(blob, "log/01jd/3/1.7/00000000000000004096-10");
        assert_eq!(fence_of(&blob), Some(fence));
        assert_eq!(offset_of(&blob), Some(4096));
        assert_eq!(LogId::of(&AllocId::new("stray").unwrap()), None);
    }

    #[test]
    fn a_strange_name_has_no_offset() {
        for name in ["log/a/0/1.1/12", "log/a/0/1.1/x", "log/a/0/1.1/99999999999999999999-1"] {
            assert_eq!(offset_of(name), None, "{name}");
        }
    }
}
