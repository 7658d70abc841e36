//! Where the lines of a log are: the pure answer to its bytes, in order, in pieces of any size.
//!
//! Of a log of any length only some places are kept ([`MARKS_MAX`]); whoever wants another line
//! reads on from the place before it. Where an entry's output begins is found by the line that the
//! node wrote above it. Not here: reading bytes (`counts`), how lines are shown (`excerpt`).

use memchr::{memchr, memchr_iter};
use std::collections::HashMap;

/// The most places that are kept of one log, 8 bytes each.
const MARKS_MAX: usize = 4_096;

/// Every so many lines a place is kept, until there are too many of them: a page of lines is found
/// after reading past some ten kilobytes at most.
const MARK_EVERY: u64 = 256;

/// No heading is longer, bytes: two hundred characters and what stands around them.
const HEADING_BYTES_MAX: usize = 4 * model::HEADING_CHARS_MAX + 16;

/// Where the lines of the bytes so far begin.
#[derive(Debug)]
pub(super) struct LineIndex {
    every: u64,
    /// Offsets of the lines 1, 1 + every, 1 + 2 · every, …
    marks: Vec<u64>,
    /// Line feeds so far.
    ended: u64,
    scanned: u64,
    /// Where the line begins whose end has not come.
    open_from: u64,
    headings: Headings,
}

impl LineIndex {
    /// The index of an empty log whose entries write these headings, in this order.
    pub(super) fn new(headings: &[String]) -> Self {
        Self {
            every: MARK_EVERY,
            marks: vec![0],
            ended: 0,
            scanned: 0,
            open_from: 0,
            headings: Headings::new(headings),
        }
    }

    /// How many bytes it has seen.
    pub(super) fn scanned(&self) -> u64 {
        self.scanned
    }

    /// How many lines there are, one without its end included.
    pub(super) fn lines(&self) -> u64 {
        self.ended + u64::from(self.scanned > self.open_from)
    }

    /// A place at or before the beginning of a line (from 1): the line that begins there, and its
    /// offset. Of a line that is not there: the last place.
    pub(super) fn place_before(&self, line: u64) -> (u64, u64) {
        let wanted = usize::try_from(line.saturating_sub(1) / self.every).unwrap_or(usize::MAX);
        let index = wanted.min(self.marks.len() - 1);
        (index as u64 * self.every + 1, self.marks[index])
    }

    /// Lines that head the output of an entry, and the ordinal of that entry.
    pub(super) fn sections(&self) -> &[(u64, usize)] {
        &self.headings.found
    }

    /// Takes the next bytes of the log.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let mut from = 0;
        for feed in memchr_iter(b'\n', bytes) {
            self.headings.line_ends(&bytes[from..feed], self.ended + 1);
            from = feed + 1;
            self.ended += 1;
            self.open_from = self.scanned + from as u64;
            if self.ended.is_multiple_of(self.every) {
                self.mark();
            }
        }
        self.headings.line_goes_on(&bytes[from..]);
        self.scanned += bytes.len() as u64;
    }

    fn mark(&mut self) {
        if self.marks.len() == MARKS_MAX {
            let mut index = 0;
            self.marks.retain(|_| {
                index += 1;
                index % 2 == 1
            });
            self.every *= 2;
            if !self.ended.is_multiple_of(self.every) {
                return;
            }
        }
        self.marks.push(self.open_from);
    }
}

/// Finds headings in their order. An entry may have been passed over, so a later heading is taken
/// too; a step that prints another entry's heading itself can mislead this, and nothing else.
#[derive(Debug)]
struct Headings {
    /// Where each text stands in the order, ascending.
    places: HashMap<Vec<u8>, Vec<usize>>,
    next: usize,
    /// The beginning of a line whose end has not come; longer than any heading once it cannot be one.
    carry: Vec<u8>,
    found: Vec<(u64, usize)>,
}

impl Headings {
    fn new(headings: &[String]) -> Self {
        let mut places: HashMap<Vec<u8>, Vec<usize>> = HashMap::new();
        for (ordinal, heading) in headings.iter().enumerate() {
            places.entry(heading.clone().into_bytes()).or_default().push(ordinal);
        }
        Self {
            places,
            next: 0,
            carry: Vec::new(),
            found: Vec::new(),
        }
    }

    fn line_ends(&mut self, rest: &[u8], line: u64) {
        if self.carry.is_empty() {
            if is_candidate(rest) {
                self.look(rest.to_vec(), line);
            }
            return;
        }
        self.line_goes_on(rest);
        let whole = std::mem::take(&mut self.carry);
        if is_candidate(&whole) {
            self.look(whole, line);
        }
    }

    fn line_goes_on(&mut self, part: &[u8]) {
        let room = (HEADING_BYTES_MAX + 1).saturating_sub(self.carry.len());
        self.carry.extend_from_slice(&part[..part.len().min(room)]);
    }

    fn look(&mut self, text: Vec<u8>, line: u64) {
        let Some(places) = self.places.get(&text) else { return };
        let Some(ordinal) = places.iter().find(|p| **p >= self.next) else {
            return;
        };
        self.next = ordinal + 1;
        self.found.push((line, *ordinal));
    }
}

fn is_candidate(line: &[u8]) -> bool {
    line.len() <= HEADING_BYTES_MAX && (line.starts_with(b"==> ") || line.starts_with(b"$ "))
}

/// A line as it was taken out of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// From 1.
    pub(super) number: u64,
    /// Of its first byte.
    pub(super) offset: u64,
    /// Its bytes without the line feed, at most as many as were asked for.
    pub(super) bytes: Vec<u8>,
    /// How many it has in all.
    pub(super) len: u64,
    /// True when its line feed has come.
    pub(super) ended: bool,
}

impl Line {
    /// The offset after it and its line feed.
    pub(super) fn end(&self) -> u64 {
        self.offset + self.len + u64::from(self.ended)
    }
}

/// Cuts bytes into lines, of each of which at most so many bytes are kept.
#[derive(Debug)]
pub(super) struct Cutter {
    open: Line,
    kept_max: usize,
}

impl Cutter {
    /// The bytes that come begin with this line.
    pub(super) fn new(number: u64, offset: u64, kept_max: usize) -> Self {
        Self {
            open: Self::begin(number, offset),
            kept_max,
        }
    }

    fn begin(number: u64, offset: u64) -> Line {
        Line {
            number,
            offset,
            bytes: Vec::new(),
            len: 0,
            ended: false,
        }
    }

    /// Gives every line that ends in these bytes to `take`, until it answers false. True: go on.
    pub(super) fn push(&mut self, bytes: &[u8], mut take: impl FnMut(Line) -> bool) -> bool {
        let mut rest = bytes;
        while let Some(feed) = memchr(b'\n', rest) {
            self.grow(&rest[..feed]);
            rest = &rest[feed + 1..];
            let mut line = std::mem::replace(&mut self.open, Self::begin(0, 0));
            line.ended = true;
            self.open = Self::begin(line.number + 1, line.end());
            if !take(line) {
                return false;
            }
        }
        self.grow(rest);
        true
    }

    /// The bytes end here: the line that has no end yet, if it has any bytes.
    pub(super) fn finish(self) -> Option<Line> {
        (self.open.len > 0).then_some(self.open)
    }

    fn grow(&mut self, part: &[u8]) {
        let room = self.kept_max.saturating_sub(self.open.bytes.len());
        self.open.bytes.extend_from_slice(&part[..part.len().min(room)]);
        self.open.len += part.len() as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn index(log: &[u8], piece: usize, headings: &[&str]) -> LineIndex {
        let headings: Vec<String> = headings.iter().map(|h| (*h).to_owned()).collect();
        let mut index = LineIndex::new(&headings);
        for part in log.chunks(piece) {
            index.push(part);
        }
        index
    }

    #[test]
    fn lines_are_counted_with_one_that_has_no_end() {
        for (log, lines) in [("", 0), ("a", 1), ("a\n", 1), ("a\nb", 2), ("\n\n", 2), ("\n\n\r", 3)] {
            for piece in 1..4 {
                assert_eq!(index(log.as_bytes(), piece, &[]).lines(), lines, "{log:?} in {piece}s");
            }
        }
    }

    #[test]
    fn however_many_lines_there_are_the_places_are_bounded_and_near() {
        let mut index = LineIndex::new(&[]);
        let piece = b"ab\n".repeat(100_000);
        for _ in 0..30 {
            index.push(&piece);
        }
        assert_eq!(index.lines(), 3_000_000);
        assert!(index.marks.len() <= MARKS_MAX && index.marks.len() > MARKS_MAX / 3);
        for line in [1, 2, 1_024, 1_025, 1_500_000, 3_000_000, 3_000_001, u64::MAX] {
            let (at, offset) = index.place_before(line);
            assert_eq!(offset, (at - 1) * 3, "{line}");
            assert!(
                at <= line && (line > 3_000_000 || line - at < index.every),
                "{line}: {at}"
            );
        }
    }

    #[test]
    fn headings_are_found_in_their_order_only() {
        let log = b"$ make\nx\n==> strip\n$ make\n==> strip\n==> never\n$ last";
        let expected = ["$ make", "==> strip", "==> strip", "$ last"];
        for piece in [1, 3, 7, 100] {
            let index = index(log, piece, &expected);
            assert_eq!(index.sections(), [(1, 0), (3, 1), (5, 2)], "{piece}");
        }
        // `if` passed over the first one; the last line has no end yet.
        assert_eq!(index(b"==> b\n$ c", 4, &["==> a", "==> b", "$ c"]).sections(), [(1, 1)]);
    }

    #[test]
    fn a_line_that_is_longer_than_every_heading_is_none() {
        let long = format!("$ {}\n", "x".repeat(5_000));
        let index = index(long.as_bytes(), 1_000, &[&long[..HEADING_BYTES_MAX]]);
        assert_eq!(index.sections(), []);
        assert!(index.headings.carry.capacity() <= 2 * HEADING_BYTES_MAX + 64);
    }

    #[test]
    fn a_cutter_keeps_the_beginning_of_a_long_line_and_its_length() {
        let mut cutter = Cutter::new(7, 100, 3);
        let mut lines = Vec::new();
        assert!(cutter.push(b"abcdef\n\nx", |l| {
            lines.push(l);
            true
        }));
        lines.extend(cutter.finish());
        let seen: Vec<_> = lines
            .iter()
            .map(|l| (l.number, l.offset, l.bytes.as_slice(), l.len, l.ended, l.end()))
            .collect();
        assert_eq!(
            seen,
            [
                (7, 100, &b"abc"[..], 6, true, 107),
                (8, 107, b"", 0, true, 108),
                (9, 108, b"x", 1, false, 109)
            ]
        );
    }

    proptest! {
        #[test]
        fn index_and_cutter_agree_with_plain_splitting(
            log in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'$'), Just(b' '), Just(b'a')], 0..2_000),
            piece in 1usize..64,
        ) {
            let index = index(&log, piece, &["$ a", "$ "]);
            let mut expected: Vec<&[u8]> = log.split(|b| *b == b'\n').collect();
            if expected.last().is_some_and(|l| l.is_empty()) {
                expected.pop();
            }
            prop_assert_eq!(index.lines(), expected.len() as u64);
            let mut cutter = Cutter::new(1, 0, 4_096);
            let mut lines = Vec::new();
            for part in log.chunks(piece) {
                cutter.push(part, |l| { lines.push(l); true });
            }
            lines.extend(cutter.finish());
            let bytes: Vec<&[u8]> = lines.iter().map(|l| l.bytes.as_slice()).collect();
            prop_assert_eq!(bytes, expected);
            prop_assert!(lines.windows(2).all(|w| w[0].end() == w[1].offset && w[0].number + 1 == w[1].number));
        }
    }
}
