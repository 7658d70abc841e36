//! What a node was told to run, as a state machine over the store's words: a first reading, then
//! changes in order and at least once, then, after a gap, a whole reading again.
//!
//! Not here: what an order says, whether a removed allocation had ended.

use model::{AllocId, Allocation};
use std::collections::BTreeMap;
use store::{Change, Entry, Revision};

/// What the node is to hear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Word {
    /// New or changed.
    Order(Box<Allocation>),
    /// The allocation was removed.
    Vanished(AllocId),
}

/// The allocations of a node as it was told.
#[derive(Debug, Default)]
pub(super) struct Desired {
    /// With the revision of the order that was sent last.
    known: BTreeMap<AllocId, Revision>,
    /// Changes up to here were dealt with.
    seen: Revision,
}

impl Desired {
    /// A reading of everything; changes are watched from `revision` on.
    pub(super) fn whole(&mut self, entries: Vec<Entry>, revision: Revision) -> Vec<Word> {
        let mut words = Vec::new();
        let mut now = BTreeMap::new();
        for entry in entries {
            let Some(allocation) = decode(&entry.key, &entry.value) else {
                continue;
            };
            now.insert(allocation.id.clone(), entry.mod_revision);
            if self.known.get(&allocation.id) != Some(&entry.mod_revision) {
                words.push(Word::Order(Box::new(allocation)));
            }
        }
        let gone = self.known.keys().filter(|id| !now.contains_key(*id));
        words.extend(gone.cloned().map(Word::Vanished));
        self.known = now;
        self.seen = revision;
        words
    }

    /// Changes of one or more revisions, in order.
    pub(super) fn changes(&mut self, changes: Vec<Change>) -> Vec<Word> {
        let newest = changes.iter().map(|c| c.revision).max().unwrap_or_default();
        let seen = self.seen;
        let words = changes
            .into_iter()
            .filter(|c| c.revision > seen)
            .filter_map(|c| self.change(c))
            .collect();
        self.seen = seen.max(newest);
        words
    }

    fn change(&mut self, change: Change) -> Option<Word> {
        let Some(value) = change.value else {
            let id = AllocId::new(change.key.rsplit('/').next()?).ok()?;
            // A reading that was newer than the watch's start may show the next of the same name.
            let stale = self.known.get(&id).is_none_or(|known| *known > change.revision);
            return (!stale && self.known.remove(&id).is_some()).then_some(Word::Vanished(id));
        };
        let allocation = decode(&change.key, &value)?;
        let known = self.known.entry(allocation.id.clone()).or_default();
        if *known >= change.revision {
            return None;
        }
        *known = change.revision;
        Some(Word::Order(Box::new(allocation)))
    }
}

fn decode(key: &str, value: &[u8]) -> Option<Allocation> {
    model::decode(value)
        .inspect_err(|error| tracing::error!(key, %error, "allocation record does not decode, its order is not sent"))
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Fence, NodeId, Resources, RunId, Stop, key};

    fn allocation(counter: u32, stop: Option<Stop>) -> Allocation {
        let run = RunId::new("01jd").unwrap();
        let fence = Fence { epoch: 1, counter };
        Allocation {
            id: AllocId::for_step(&run, 0, fence),
            run,
            step: 0,
            attempt: counter,
            fence,
            node: NodeId::new("n1").unwrap(),
            node_epoch: 1,
            resources: Resources::default(),
            created_ms: 0,
            stop,
            unknown: model::record::Unknown::new(),
        }
    }

    fn entry(a: &Allocation, revision: u64) -> Entry {
        Entry {
            key: key::alloc(&a.node, &a.id),
            value: model::encode(a),
            mod_revision: Revision(revision),
        }
    }

    fn put(a: &Allocation, revision: u64) -> Change {
        Change {
            key: key::alloc(&a.node, &a.id),
            value: Some(model::encode(a)),
            revision: Revision(revision),
        }
    }

    fn delete(a: &Allocation, revision: u64) -> Change {
        Change {
            value: None,
            ..put(a, revision)
        }
    }

    fn order(a: &Allocation) -> Word {
        Word::Order(Box::new(a.clone()))
    }

    #[test]
    fn changes_are_told_once_and_in_order() {
        let (a, stopped, b) = (
            allocation(1, None),
            allocation(1, Some(Stop::Cancelled)),
            allocation(2, None),
        );
        let mut desired = Desired::default();
        assert_eq!(desired.whole(vec![entry(&a, 3)], Revision(4)), [order(&a)]);
        assert_eq!(desired.changes(vec![put(&a, 3)]), [], "older than the reading");
        assert_eq!(
            desired.changes(vec![put(&stopped, 5), put(&b, 6)]),
            [order(&stopped), order(&b)]
        );
        assert_eq!(desired.changes(vec![put(&stopped, 5), put(&b, 6)]), [], "a repetition");
        assert_eq!(desired.changes(vec![delete(&a, 7)]), [Word::Vanished(a.id.clone())]);
        assert_eq!(desired.changes(vec![delete(&a, 7), put(&b, 6)]), [], "a repetition");
        assert_eq!(desired.changes(vec![delete(&a, 8)]), [], "it was gone");
    }

    #[test]
    fn after_a_gap_only_the_difference_is_told() {
        let (a, b, c) = (allocation(1, None), allocation(2, None), allocation(3, None));
        let mut desired = Desired::default();
        desired.whole(vec![entry(&a, 3), entry(&b, 3)], Revision(4));
        let words = desired.whole(vec![entry(&b, 3), entry(&c, 9)], Revision(9));
        assert_eq!(words, [order(&c), Word::Vanished(a.id.clone())]);
    }

    #[test]
    fn a_reading_of_several_pages_may_be_ahead_of_its_revision() {
        let a = allocation(1, None);
        let mut desired = Desired::default();
        desired.whole(vec![entry(&a, 8)], Revision(4));
        assert_eq!(desired.changes(vec![delete(&a, 6), put(&a, 8)]), []);
    }

    #[test]
    fn a_record_that_does_not_decode_is_passed_over() {
        let a = allocation(1, None);
        let mut bad = entry(&a, 3);
        bad.value = b"{}".to_vec();
        assert_eq!(Desired::default().whole(vec![bad], Revision(4)), []);
    }
}
