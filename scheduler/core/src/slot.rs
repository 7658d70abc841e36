//! A key's newest known state: the change with the highest revision wins, whatever arrives when.

use crate::action::Expect;

/// What a key holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum Held<T> {
    /// Never written, or removed.
    #[default]
    Absent,
    /// A record.
    Present(T),
    /// Something that is not the record it should be; kept out of every decision.
    Malformed,
}

/// One key of the store as the view knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Slot<T> {
    revision: u64,
    held: Held<T>,
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self {
            revision: 0,
            held: Held::Absent,
        }
    }
}

impl<T> Slot<T> {
    /// Takes a change unless a newer one, or the same, was taken before. Answers what stood
    /// there until now, or `None` for a stale change.
    pub(crate) fn take(&mut self, held: Held<T>, revision: u64) -> Option<Held<T>> {
        if revision <= self.revision {
            return None;
        }
        self.revision = revision;
        Some(std::mem::replace(&mut self.held, held))
    }

    /// The record, if there is one that could be read.
    pub(crate) fn get(&self) -> Option<&T> {
        match &self.held {
            Held::Present(value) => Some(value),
            Held::Absent | Held::Malformed => None,
        }
    }

    /// The revision of the newest known change; 0 if none is known.
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    /// True when the key holds something that could not be read.
    pub(crate) fn is_malformed(&self) -> bool {
        matches!(self.held, Held::Malformed)
    }

    /// True when the key is not in the store.
    pub(crate) fn is_absent(&self) -> bool {
        matches!(self.held, Held::Absent)
    }

    /// What a guard on this key has to demand so that nobody wrote it since.
    pub(crate) fn expect(&self) -> Expect {
        if self.is_absent() {
            Expect::Absent
        } else {
            Expect::Revision(self.revision)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_revision_wins_in_any_order_and_a_repeated_change_is_stale() {
        let mut slot = Slot::default();
        assert_eq!(slot.take(Held::Absent, 9), Some(Held::Absent));
        assert_eq!(slot.take(Held::Present("older"), 7), None);
        assert_eq!(slot.expect(), Expect::Absent);
        assert_eq!(slot.take(Held::Present("newer"), 12), Some(Held::Absent));
        assert_eq!(slot.take(Held::Present("newer"), 12), None);
        assert_eq!((slot.get(), slot.expect()), (Some(&"newer"), Expect::Revision(12)));
    }
}
