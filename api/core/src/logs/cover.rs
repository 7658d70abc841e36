//! Which bytes of a log are stored: the pure answer to a listing of its blobs.
//!
//! Blobs may overlap (a server was killed before it acknowledged what it had stored, a merge left
//! its sources behind); the bytes at an offset are the same in all of them. What lies behind a gap
//! does not count. Not here: reading.

use super::name::offset_of;

/// A stretch of the log and the blob that it is read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment<B> {
    /// Where the stretch begins in the log.
    pub at: u64,
    /// How many bytes it has; more than 0.
    pub len: u64,
    /// The blob.
    pub blob: B,
    /// How many bytes of the blob come before the stretch.
    pub skip: u64,
}

impl<B> Segment<B> {
    /// The offset after its last byte.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.at + self.len
    }
}

/// The log from its first byte on without gap or overlap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cover<B> {
    /// In order; each begins where the one before ends.
    pub segments: Vec<Segment<B>>,
}

impl<B: AsRef<str> + Ord> Cover<B> {
    /// The cover of the blobs of one log, each a name and a size, in any order.
    pub fn of(blobs: impl IntoIterator<Item = (B, u64)>) -> Self {
        let mut spans: Vec<(u64, u64, B)> = blobs
            .into_iter()
            .filter_map(|(name, size)| {
                let offset = offset_of(name.as_ref())?;
                Some((offset, offset.checked_add(size)?, name))
            })
            .collect();
        spans.sort();
        let mut cover = Self { segments: Vec::new() };
        let mut spans = spans.into_iter().peekable();
        loop {
            let at = cover.len();
            let mut best: Option<(u64, u64, B)> = None;
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

    /// True when not even the first byte is stored.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// How many bytes are stored without a gap.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.segments.last().map_or(0, Segment::end)
    }

    /// The stretch that holds the byte at `offset`.
    #[must_use]
    pub fn find(&self, offset: u64) -> Option<&Segment<B>> {
        let index = self.segments.partition_point(|s| s.end() <= offset);
        self.segments.get(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn blobs(spans: &[(u64, u64)]) -> impl Iterator<Item = (String, u64)> {
        let blob = |(offset, len): &(u64, u64)| (format!("log/r/0/1.1/{offset:020}-{len}"), *len);
        spans.iter().map(blob)
    }

    fn check(spans: &[(u64, u64)], expect: &[(u64, u64, u64)]) {
        let cover = Cover::of(blobs(spans));
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
            let cover = Cover::of(blobs(&spans));
            let mut reach = 0;
            while let Some(next) = spans.iter().filter(|(o, l)| *o <= reach && o + l > reach).map(|(o, l)| o + l).max() {
                reach = next;
            }
            prop_assert_eq!(cover.len(), reach);
            let mut at = 0;
            for s in &cover.segments {
                prop_assert_eq!(s.at, at);
                prop_assert!(s.len > 0);
                let (offset, size) = (offset_of(&s.blob).unwrap(), s.blob.rsplit('-').next().unwrap().parse::<u64>().unwrap());
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
