//! Which bytes of a log are stored: the pure answer to a listing of its blobs.
//!
//! Blobs may overlap (a server was killed before it acknowledged what it had stored, a merge left
//! its sources behind); the bytes at an offset are the same in all of them. What lies behind a gap
//! does not count. Not here: reading.

use super::name::offset_of;
use store::BlobName;
use store::blob::BlobEntry;

/// A stretch of the log and the blob that it is read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    /// Where the stretch begins in the log.
    pub(super) at: u64,
    /// How many bytes it has; more than 0.
    pub(super) len: u64,
    /// The blob.
    pub(super) blob: BlobName,
    /// How many bytes of the blob come before the stretch.
    pub(super) skip: u64,
}

impl Segment {
    /// The offset after its last byte.
    pub(super) fn end(&self) -> u64 {
        self.at + self.len
    }
}

/// The log from its first byte on without gap or overlap.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Cover {
    /// In order; each begins where the one before ends.
    pub(super) segments: Vec<Segment>,
}

impl Cover {
    /// The cover of the blobs of one log, in any order.
    pub(super) fn of(entries: Vec<BlobEntry>) -> Self {
        let mut spans: Vec<(u64, u64, BlobName)> = entries
            .into_iter()
            .filter_map(|e| {
                let offset = offset_of(&e.name)?;
                Some((offset, offset.checked_add(e.size)?, e.name))
            })
            .collect();
        spans.sort();
        let mut cover = Self::default();
        let mut spans = spans.into_iter().peekable();
        loop {
            let at = cover.len();
            let mut best: Option<(u64, u64, BlobName)> = None;
            while let Some(span) = spans.next_if(|span| span.0 <= at) {
                if span.1 > best.as_ref().map_or(at, |b| b.1) {
                    best = Some(span);
                }
            }
            // Of those that begin at or before the end none reaches farther: a gap, or all is there.
            let Some((from, to, blob)) = best else { return cover };
            cover.segments.push(Segment {
                at,
                len: to - at,
                blob,
                skip: at - from,
            });
        }
    }

    /// How many bytes are stored without a gap.
    pub(super) fn len(&self) -> u64 {
        self.segments.last().map_or(0, Segment::end)
    }

    /// The stretch that holds the byte at `offset`.
    pub(super) fn find(&self, offset: u64) -> Option<&Segment> {
        let index = self.segments.partition_point(|s| s.end() <= offset);
        self.segments.get(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entries(spans: &[(u64, u64)]) -> Vec<BlobEntry> {
        spans
            .iter()
            .map(|(offset, len)| BlobEntry {
                name: BlobName::new(format!("log/r/0/1.1/{offset:020}-{len}")).unwrap(),
                size: *len,
            })
            .collect()
    }

    fn check(spans: &[(u64, u64)], expect: &[(u64, u64, u64)]) {
        let cover = Cover::of(entries(spans));
        let got: Vec<_> = cover.segments.iter().map(|s| (s.at, s.len, s.skip)).collect();
        assert_eq!(got, expect, "{spans:?}");
    }

    #[test]
    fn overlaps_are_trimmed_and_gaps_end_the_log() {
        check(&[], &[]);
        check(&[(0, 0)], &[]);
        check(&[(5, 5)], &[]);
        check(&[(0, 5), (5, 5)], &[(0, 5, 0), (5, 5, 0)]);
        check(&[(0, 5), (3, 5)], &[(0, 5, 0), (5, 3, 2)]);
        check(&[(0, 5), (6, 5)], &[(0, 5, 0)]);
        check(&[(0, 10), (2, 3), (5, 5)], &[(0, 10, 0)]);
        check(&[(0, 5), (5, 5), (5, 9), (10, 2)], &[(0, 5, 0), (5, 9, 0)]);
        check(&[(0, 5), (1, 9), (2, 3), (10, 1)], &[(0, 5, 0), (5, 5, 4), (10, 1, 0)]);
    }

    proptest! {
        #[test]
        fn the_cover_is_exactly_what_can_be_reached_from_zero(
            spans in proptest::collection::vec((0u64..60, 0u64..20), 0..12)
        ) {
            let cover = Cover::of(entries(&spans));
            let mut reach = 0;
            while let Some(next) = spans.iter().filter(|(o, l)| *o <= reach && o + l > reach).map(|(o, l)| o + l).max() {
                reach = next;
            }
            prop_assert_eq!(cover.len(), reach);
            let mut at = 0;
            for s in &cover.segments {
                prop_assert_eq!(s.at, at);
                prop_assert!(s.len > 0);
                let (offset, size) = (offset_of(&s.blob).unwrap(), s.blob.as_str().rsplit('-').next().unwrap().parse::<u64>().unwrap());
                prop_assert_eq!(offset + s.skip, s.at);
                prop_assert!(s.skip + s.len <= size);
                at = s.end();
            }
            for offset in 0..reach {
                let s = cover.find(offset).unwrap();
                prop_assert!(s.at <= offset && offset < s.end());
            }
            prop_assert_eq!(cover.find(reach), None);
        }
    }
}
