//! Whether all of a run's logs are stored, as far as their lengths are known.
//!
//! Not here: what to do if they are not.

use super::cover::Cover;
use super::name::{fence_of, step_of};
use model::Fence;
use pipeline::progress::Records;
use std::collections::BTreeMap;

/// The logs that a run's attempts have told the length of, but for the empty ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwedLogs(BTreeMap<(usize, Fence), u64>);

impl OwedLogs {
    /// Those of the steps' newest attempts and of all earlier ones that are remembered.
    #[must_use]
    pub fn of(records: &Records) -> Self {
        let mut owed = BTreeMap::new();
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
        Self(owed)
    }

    /// True when there is none: nothing has to be listed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// True when each is stored up to its length, by a listing of all blobs below
    /// [`run_prefix`](super::run_prefix), each a name and a size.
    pub fn are_among<B: AsRef<str> + Ord>(&self, blobs: impl IntoIterator<Item = (B, u64)>) -> bool {
        let mut stored: BTreeMap<(usize, Fence), Vec<(B, u64)>> = BTreeMap::new();
        for (name, size) in blobs {
            if let (Some(step), Some(fence)) = (step_of(name.as_ref()), fence_of(name.as_ref())) {
                stored.entry((step, fence)).or_default().push((name, size));
            }
        }
        self.0.iter().all(|(log, len)| {
            let found = stored.remove(log).unwrap_or_default();
            Cover::of(found).len() >= *len
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{AllocId, RunId, StepRecord, StepStatus};

    fn record(counter: u32, log_bytes: Option<u64>) -> StepRecord {
        let fence = Fence { epoch: 1, counter };
        StepRecord {
            fence,
            alloc: Some(AllocId::for_step(&RunId::new("01jd").unwrap(), 0, fence)),
            log_bytes,
            ..StepRecord::first(StepStatus::Success)
        }
    }

    #[test]
    fn a_log_is_whole_when_its_attempts_bytes_are_stored_without_a_gap() {
        let owed = OwedLogs::of(&Records::from([(0, record(2, Some(9)))]));
        for (blobs, whole) in [
            (vec![], false),
            (vec![("log/01jd/0/1.2/00000000000000000000-9", 9)], true),
            (vec![("log/01jd/0/1.1/00000000000000000000-9", 9)], false),
            (vec![("log/01jd/1/1.2/00000000000000000000-9", 9)], false),
            (
                vec![
                    ("log/01jd/0/1.2/00000000000000000000-4", 4),
                    ("log/01jd/0/1.2/00000000000000000005-4", 4),
                ],
                false,
            ),
            (
                vec![
                    ("log/01jd/0/1.2/00000000000000000003-6", 6),
                    ("log/01jd/0/1.2/00000000000000000000-4", 4),
                ],
                true,
            ),
        ] {
            assert_eq!(owed.are_among(blobs.clone()), whole, "{blobs:?}");
        }
    }

    #[test]
    fn an_unknown_or_empty_log_is_not_waited_for() {
        for log_bytes in [None, Some(0)] {
            assert!(OwedLogs::of(&Records::from([(0, record(1, log_bytes))])).is_empty());
        }
    }
}
