//! Where a reader of all logs of a run is, as the id of a server-sent event.
//!
//! `0-57.60;58:1:1024,59:2:77`: steps 0 to 57 and 60 are done; of step 58 the first attempt was
//! read up to byte 1024. Ids stay short because steps end roughly in order. Not here: reading.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// Where a reader is in each step.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Cursor {
    /// Steps of which everything was read.
    pub(super) done: BTreeSet<usize>,
    /// Of the others: the attempt, and the offset of the next byte.
    pub(super) at: BTreeMap<usize, (u32, u64)>,
}

impl Cursor {
    /// The cursor as an id.
    pub(super) fn id(&self) -> String {
        let mut text = String::new();
        for (from, to) in ranges(&self.done) {
            let dot = if text.is_empty() { "" } else { "." };
            let end = if from == to { String::new() } else { format!("-{to}") };
            let _ = write!(text, "{dot}{from}{end}");
        }
        text.push(';');
        for (i, (step, (attempt, offset))) in self.at.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            let _ = write!(text, "{comma}{step}:{attempt}:{offset}");
        }
        text
    }

    /// Reads what [`Cursor::id`] wrote; `None` for anything else. Steps from `steps` on are left out.
    pub(super) fn parse(text: &str, steps: usize) -> Option<Self> {
        let (done, at) = text.split_once(';')?;
        let mut cursor = Self::default();
        for part in done.split('.').filter(|p| !p.is_empty()) {
            let (from, to) = part.split_once('-').unwrap_or((part, part));
            let (from, to): (usize, usize) = (from.parse().ok()?, to.parse().ok()?);
            cursor.done.extend(from..to.saturating_add(1).min(steps));
        }
        for part in at.split(',').filter(|p| !p.is_empty()) {
            let mut numbers = part.splitn(3, ':');
            let step: usize = numbers.next()?.parse().ok()?;
            let attempt = numbers.next()?.parse().ok()?;
            let offset = numbers.next()?.parse().ok()?;
            if step < steps {
                cursor.at.insert(step, (attempt, offset));
            }
        }
        Some(cursor)
    }
}

fn ranges(steps: &BTreeSet<usize>) -> Vec<(usize, usize)> {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for &step in steps {
        match ranges.last_mut() {
            Some((_, to)) if *to + 1 == step => *to = step,
            _ => ranges.push((step, step)),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_id_is_short_and_says_everything() {
        let cursor = Cursor {
            done: (0..58).chain([60]).collect(),
            at: [(58, (1, 1024)), (59, (2, 77))].into(),
        };
        assert_eq!(cursor.id(), "0-57.60;58:1:1024,59:2:77");
        assert_eq!(Cursor::parse(";", 5), Some(Cursor::default()));
    }

    #[test]
    fn a_strange_id_is_refused_and_a_huge_range_is_bounded() {
        for text in ["", "1", "x;", ";1", ";1:2", ";a:1:1", "1-;", ";1:1:1:1"] {
            assert_eq!(Cursor::parse(text, 5), None, "{text}");
        }
        let cursor = Cursor::parse("0-18446744073709551615;99:1:1", 3).unwrap();
        assert_eq!((cursor.done.len(), cursor.at.len()), (3, 0));
    }

    proptest! {
        #[test]
        fn ids_round_trip(
            done in proptest::collection::btree_set(0usize..40, 0..20),
            at in proptest::collection::btree_map(0usize..40, (any::<u32>(), any::<u64>()), 0..10),
        ) {
            let cursor = Cursor { done, at };
            prop_assert_eq!(Cursor::parse(&cursor.id(), 40), Some(cursor));
        }
    }
}
