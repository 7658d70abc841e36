//! What a leader may have on its way to the store, and what ends its term.
//!
//! What is free on a node follows from all its orders, and no guard of a placement compares those.
//! So only one who knows every order may place, which takes two rules. A *term* is the time under
//! one revision of the leader's key; at its **beginning all orders are read**, since those of the
//! leader before may not have come by the watch yet. And a batch that **nobody waits for any more
//! ends the term**: its outcome is unknown, or the view that it was planned on is thrown away. It may
//! still be on its way, and only the loss of the key it is guarded by keeps it from being applied
//! behind the back of the next view.
//!
//! Up to [`BATCHES_MAX`] batches are on their way at a time, all of the same term. Each is planned
//! on what is confirmed and reserved by then, so it does not matter in which order they arrive or
//! are answered.
//!
//! Not here: who holds the key, what a batch contains, and what its answer means for the view.

/// Batches on their way at the same moment. The second hides what it takes to plan and to take
/// answers in; more would make batches smaller, and the store's work more.
pub const BATCHES_MAX: usize = 2;

/// What may be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum May {
    /// Nothing: it is not ours to lead, the key is of no use any more, or enough is on its way.
    Nothing,
    /// Read all orders into the view, and then [`Term::begin`] under the key of this revision.
    Begin(u64),
    /// Commit a batch under the key of this revision, and say so by [`Term::sent`].
    Commit(u64),
}

/// What was heard of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// What was applied and what was refused. The view knows it from now on.
    Answer,
    /// The key was not ours when the batch arrived.
    Deposed,
    /// The store took it not, or not all of it, for want of room, and nothing of it comes later.
    Full,
    /// Nothing: it may have been applied, or may be yet.
    Unknown,
}

/// One server's terms, over all its views. Born with the process, in no term.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Term {
    /// The key under which all orders have been read into the view.
    begun: Option<u64>,
    /// A key that is of no use any more.
    spent: Option<u64>,
    /// Batches of the term that has begun which are on their way and waited for.
    on_their_way: usize,
    /// The newest term, and when it began.
    began: Option<(u64, u64)>,
}

impl Term {
    /// What may be done while the key of the revision `held` is ours. A new term begins only when
    /// nothing is on its way under the one before.
    #[must_use]
    pub fn may(&self, held: Option<u64>) -> May {
        match held.filter(|_| held != self.spent) {
            Some(key) if self.begun != held && self.on_their_way == 0 => May::Begin(key),
            Some(key) if self.begun == held && self.on_their_way < BATCHES_MAX => May::Commit(key),
            Some(_) | None => May::Nothing,
        }
    }

    /// True when the key of the revision `held` is ours and its term has begun on this view.
    #[must_use]
    pub fn has_begun(&self, held: Option<u64>) -> bool {
        held.is_some() && self.begun == held
    }

    /// All orders have been read under this key at `now_ms` of a steady clock. Answers when the term
    /// began: earlier if this is another view in the same term.
    pub fn begin(&mut self, key: u64, now_ms: u64) -> u64 {
        let (_, began_ms) = self.began.filter(|(term, _)| *term == key).unwrap_or((key, now_ms));
        self.began = Some((key, began_ms));
        self.begun = Some(key);
        began_ms
    }

    /// A batch goes to the store.
    pub fn sent(&mut self) {
        self.on_their_way += 1;
    }

    /// What came of a batch. Answers the key that has to be given up, if it is of no use any more.
    #[must_use = "a key that is of no use has to be given up"]
    pub fn heard(&mut self, heard: Heard) -> Option<u64> {
        self.on_their_way = self.on_their_way.saturating_sub(1);
        match heard {
            Heard::Answer | Heard::Full => None,
            Heard::Deposed | Heard::Unknown => self.spend(),
        }
    }

    /// The view is thrown away, and with it whatever is on its way: nobody takes its answer. Answers
    /// the key that has to be given up if there was anything.
    #[must_use = "a key that is of no use has to be given up"]
    pub fn drop_view(&mut self) -> Option<u64> {
        let key = if self.on_their_way > 0 { self.spend() } else { None };
        self.on_their_way = 0;
        self.begun = None;
        key
    }

    /// Nothing is begun under this key any more.
    fn spend(&mut self) -> Option<u64> {
        self.spent = self.begun.or(self.spent);
        self.begun
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A term under key 7 with so many batches on their way.
    fn leading(batches: usize) -> Term {
        let mut term = Term::default();
        assert_eq!(term.may(None), May::Nothing);
        assert_eq!(term.may(Some(7)), May::Begin(7));
        assert_eq!(term.begin(7, 100), 100);
        for _ in 0..batches {
            assert_eq!(term.may(Some(7)), May::Commit(7));
            term.sent();
        }
        term
    }

    #[test]
    fn so_many_are_on_their_way_and_no_more() {
        let mut term = leading(BATCHES_MAX);
        assert_eq!(term.may(Some(7)), May::Nothing);
        assert_eq!(term.heard(Heard::Answer), None);
        assert_eq!(term.may(Some(7)), May::Commit(7));
    }

    #[test]
    fn what_nobody_waits_for_spends_the_key() {
        type Drop = fn(&mut Term) -> Option<u64>;
        let cases: [(&str, usize, Drop, Option<u64>); 7] = [
            ("an answer", 2, |t| t.heard(Heard::Answer), None),
            ("a full store", 2, |t| t.heard(Heard::Full), None),
            ("not our key", 2, |t| t.heard(Heard::Deposed), Some(7)),
            ("no answer", 1, |t| t.heard(Heard::Unknown), Some(7)),
            ("one without answer, one dropped", 2, unheard_then_dropped, Some(7)),
            ("a dropped view, nothing on its way", 0, Term::drop_view, None),
            ("a dropped view, one on its way", 1, Term::drop_view, Some(7)),
        ];
        for (name, batches, drop, expect) in cases {
            let mut term = leading(batches);
            assert_eq!(drop(&mut term), expect, "{name}");
            let _ = term.drop_view();
            let after = term.may(Some(7));
            let may = if expect.is_some() || batches == 2 {
                May::Nothing
            } else {
                May::Begin(7)
            };
            assert_eq!(after, may, "{name}");
            assert_eq!(term.may(Some(9)), May::Begin(9), "{name}: another key is another term");
        }
    }

    fn unheard_then_dropped(term: &mut Term) -> Option<u64> {
        let key = term.heard(Heard::Unknown);
        assert_eq!(term.drop_view(), key);
        key
    }

    #[test]
    fn a_full_store_ends_no_term_once_everything_is_answered() {
        let mut term = leading(2);
        assert_eq!(term.heard(Heard::Full), None);
        assert_eq!(term.heard(Heard::Answer), None);
        assert_eq!(term.drop_view(), None);
        assert_eq!(term.may(Some(7)), May::Begin(7));
    }

    #[test]
    fn a_new_term_waits_for_what_is_on_its_way_under_the_old_key() {
        let mut term = leading(1);
        assert_eq!(term.may(Some(9)), May::Nothing);
        assert!(!term.has_begun(Some(9)));
        // It arrives after the key has gone.
        assert_eq!(term.heard(Heard::Deposed), Some(7));
        assert_eq!(term.may(Some(9)), May::Begin(9));
        assert_eq!(term.begin(9, 500), 500);
        assert!(term.has_begun(Some(9)));
    }

    #[test]
    fn a_view_that_is_built_anew_begins_no_new_time() {
        let mut term = leading(0);
        assert_eq!(term.drop_view(), None);
        assert!(!term.has_begun(Some(7)) && !term.has_begun(None));
        assert_eq!(term.begin(7, 900), 100, "the same term");
        assert_eq!(term.drop_view(), None);
        assert_eq!(term.begin(8, 900), 900, "the next one");
    }
}
