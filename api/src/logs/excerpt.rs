//! Parts of a log by the numbers of its lines, and what is found in it.
//!
//! Whatever is asked for, an answer holds a bounded part of the log ([`LINES_MAX`],
//! [`LINES_BYTES_MAX`], [`MATCHES_MAX`]) and says where to go on. Not here: parameters and headers
//! (`rest`).

use super::counts::{Counts, SCAN_PIECE};
use super::hub::{LogError, LogHub};
use super::lines::{Cutter, Line};
use super::search::Needle;
use crate::dto::{LogCut, LogLines, LogMatch, LogMatches, LogSection};
use api_core::logs::LogId;
use model::StepDef;

/// The most lines of one answer.
pub(super) const LINES_MAX: u64 = 5_000;

/// How many lines are answered unless the request says it.
pub(super) const LINES_DEFAULT: u64 = 500;

/// The most bytes of the lines of one answer: one more line may begin below it.
const LINES_BYTES_MAX: usize = 1024 * 1024;

/// How much of a line is shown, bytes: more than a screen is wide, and some hundred of them are no burden.
const LINE_SHOWN_MAX: usize = 16 * 1024;

/// The most matches of one answer.
pub(super) const MATCHES_MAX: u64 = 1_000;

/// How many matches are answered unless the request says it.
pub(super) const MATCHES_DEFAULT: u64 = 100;

/// How many bytes one request searches: some tenths of a second of a core.
const SEARCHED_MAX: u64 = 64 * 1024 * 1024;

/// How much of a line is searched, bytes.
const LINE_SEARCHED_MAX: usize = 256 * 1024;

/// One attempt's log, to be looked at by its lines.
pub(super) struct Excerpt<'a> {
    pub(super) counts: &'a Counts,
    pub(super) hub: &'a LogHub,
    /// `None`: the step never ran, or not yet.
    pub(super) log: Option<LogId>,
    pub(super) step: &'a StepDef,
}

/// What is known of a log before any line is read.
pub(super) struct Sizes {
    pub(super) lines: u64,
    pub(super) bytes: u64,
    sections: Vec<LogSection>,
    /// Reading from this line and offset on finds the line that is wanted.
    place: (u64, u64),
}

impl Excerpt<'_> {
    /// How large the log is now, and where to begin to read for a line.
    pub(super) async fn sizes(&self, line: u64) -> Result<Sizes, LogError> {
        let Some(id) = &self.log else {
            return Ok(Sizes {
                lines: 0,
                bytes: 0,
                sections: Vec::new(),
                place: (1, 0),
            });
        };
        let step = self.step;
        let entries: Vec<_> = step.before.iter().chain(&step.run).chain(&step.after).collect();
        let headings: Vec<String> = entries.iter().map(|e| e.heading()).collect();
        let index = self.counts.index(self.hub, id, &headings).await?;
        let section = |(line, ordinal): &(u64, usize)| {
            let entry = entries.get(*ordinal)?;
            Some(LogSection {
                line: *line,
                title: entry.title(),
                named: entry.name.is_some(),
            })
        };
        Ok(Sizes {
            lines: index.lines(),
            bytes: index.scanned(),
            sections: index.sections().iter().filter_map(section).collect(),
            place: index.place_before(line),
        })
    }

    /// Lines from `line` (from 1) on.
    pub(super) async fn lines(&self, line: u64, count: u64) -> Result<LogLines, LogError> {
        let sizes = self.sizes(line).await?;
        let mut taken: Vec<Line> = Vec::new();
        let mut held = 0;
        if count > 0 {
            self.read(&sizes, line, LINE_SHOWN_MAX, |found| {
                held += found.bytes.len();
                taken.push(found);
                (taken.len() as u64) < count.min(LINES_MAX) && held < LINES_BYTES_MAX
            })
            .await?;
        }
        let cut = taken.iter().filter(|l| l.len > l.bytes.len() as u64);
        Ok(LogLines {
            attempt: 0,
            line: taken.first().map_or(line, |l| l.number),
            offset: taken.first().map_or(sizes.bytes, |l| l.offset),
            end_offset: taken.last().map_or(sizes.bytes, Line::end),
            ended: taken.last().is_none_or(|l| l.ended),
            cut: cut
                .map(|l| LogCut {
                    line: l.number,
                    bytes: l.len,
                })
                .collect(),
            lines: taken
                .iter()
                .map(|l| String::from_utf8_lossy(&l.bytes).into_owned())
                .collect(),
            total_lines: sizes.lines,
            total_bytes: sizes.bytes,
            complete: false,
            lost: false,
            sections: sizes.sections,
        })
    }

    /// The offsets of the beginning of `line` and of the end of the `count`-th line from there on,
    /// and the log's sizes; without `count` the log's end.
    pub(super) async fn range(&self, line: u64, count: Option<u64>) -> Result<(u64, u64, Sizes), LogError> {
        let sizes = self.sizes(line).await?;
        let last = count.map(|c| line.saturating_add(c));
        let (mut from, mut to) = (sizes.bytes, sizes.bytes);
        self.read(&sizes, line, 0, |found| {
            if found.number == line {
                (from, to) = (found.offset, found.offset);
            }
            let is_wanted = last.is_none_or(|l| found.number < l);
            if is_wanted {
                to = found.end();
            }
            is_wanted && last.is_some_and(|l| found.number + 1 < l)
        })
        .await?;
        let to = if last.is_none() { sizes.bytes } else { to };
        Ok((from, to, sizes))
    }

    /// Lines from `line` on that hold `needle`.
    pub(super) async fn search(&self, needle: &Needle, line: u64, count: u64) -> Result<LogMatches, LogError> {
        let sizes = self.sizes(line).await?;
        let _turn = self.counts.turn().await;
        let mut matches = Vec::new();
        let (mut lines_searched, mut bytes, mut next) = (0, 0, None);
        self.read(&sizes, line, LINE_SEARCHED_MAX, |found| {
            lines_searched += 1;
            bytes += found.len + 1;
            if let Some(text) = needle.find(&found.bytes) {
                matches.push(LogMatch {
                    line: found.number,
                    offset: found.offset,
                    text,
                });
            }
            let goes_on = (matches.len() as u64) < count.min(MATCHES_MAX) && bytes < SEARCHED_MAX;
            next = (!goes_on && found.number < sizes.lines).then_some(found.number + 1);
            goes_on
        })
        .await?;
        Ok(LogMatches {
            attempt: 0,
            matches,
            next_line: next,
            lines_searched,
            total_lines: sizes.lines,
        })
    }

    /// Gives lines from `line` on to `take` until it answers false or the sizes are reached.
    async fn read(
        &self,
        sizes: &Sizes,
        line: u64,
        kept_max: usize,
        mut take: impl FnMut(Line) -> bool,
    ) -> Result<(), LogError> {
        let Some(id) = &self.log else { return Ok(()) };
        let (at, offset) = sizes.place;
        let mut wanted = |found: Line| found.number < line || take(found);
        let mut cutter = Cutter::new(at, offset, kept_max);
        let mut reader = self.hub.reader(id, offset).in_pieces_of(SCAN_PIECE);
        while reader.offset() < sizes.bytes {
            let left = sizes.bytes - reader.offset();
            let Some(piece) = reader.next().await? else {
                return Err(LogError::Short {
                    log: id.clone(),
                    offset: reader.offset(),
                });
            };
            let len = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
            if !cutter.push(&piece[..len], &mut wanted) {
                return Ok(());
            }
        }
        if let Some(last) = cutter.finish() {
            wanted(last);
        }
        Ok(())
    }
}
