//! What a node was told to run, as a state machine over the store's words: a first reading, then
//! changes in order and at least once, then, after a gap, a whole reading again.
//!
//! Not here: what an order says, whether a removed allocation had ended.

use model::{AllocId, Allocation, RecordError};
use std::collections::BTreeMap;

/// What the node is to hear.
#[derive(Debug)]
pub enum Word {
    /// New or changed.
    Order(Box<Allocation>),
    /// The allocation was removed.
    Vanished(AllocId),
    /// Nothing: the record under this key does not decode, so that its order cannot be sent.
    Unreadable {
        /// The key.
        key: String,
        /// What is wrong with the record.
        error: RecordError,
    },
}

/// The allocations of a node as it was told.
#[derive(Debug, Default)]
pub struct Desired {
    /// With the revision of the order that was sent last.
    known: BTreeMap<AllocId, u64>,
    /// Changes up to here were dealt with.
    seen: u64,
}

impl Desired {
    /// A reading of everything, each record with its key and the revision of its last change;
    /// changes are watched from `revision` on.
    pub fn whole<'a>(
        &mut self,
        records: impl IntoIterator<Item = (&'a str, &'a [u8], u64)>,
        revision: u64,
    ) -> Vec<Word> {
        let mut words = Vec::new();
        let mut now = BTreeMap::new();
        for (key, value, changed) in records {
            let allocation = match decode(key, value) {
                Ok(allocation) => allocation,
                Err(unreadable) => {
                    words.push(unreadable);
                    continue;
                }
            };
            now.insert(allocation.id.clone(), changed);
            if self.known.get(&allocation.id) != Some(&changed) {
                words.push(Word::Order(Box::new(allocation)));
            }
        }
        let gone = self.known.keys().filter(|id| !now.contains_key(*id));
        words.extend(gone.cloned().map(Word::Vanished));
        self.known = now;
        self.seen = revision;
        words
    }

    /// Changes of one or more revisions, in order: the key, its new value or that it is gone, and the
    /// revision of the change.
    pub fn changes<'a>(&mut self, changes: impl IntoIterator<Item = (&'a str, Option<&'a [u8]>, u64)>) -> Vec<Word> {
        let seen = self.seen;
        let mut words = Vec::new();
        for (key, value, revision) in changes {
            if revision > seen {
                words.extend(self.change(key, value, revision));
            }
            self.seen = self.seen.max(revision);
        }
        words
    }

    fn change(&mut self, key: &str, value: Option<&[u8]>, revision: u64) -> Option<Word> {
        let Some(value) = value else {
            let id = AllocId::new(key.rsplit('/').next()?).ok()?;
            // A reading that was newer than the watch's start may show the next of the same name.
            let stale = self.known.get(&id).is_none_or(|known| *known > revision);
            return (!stale && self.known.remove(&id).is_some()).then_some(Word::Vanished(id));
        };
        let allocation = match decode(key, value) {
            Ok(allocation) => allocation,
            Err(unreadable) => return Some(unreadable),
        };
        let known = self.known.entry(allocation.id.clone()).or_default();
        if *known >= revision {
            return None;
        }
        *known = revision;
        Some(Word::Order(Box::new(allocation)))
    }
}

fn decode(key: &str, value: &[u8]) -> Result<Allocation, Word> {
    model::decode(value).map_err(|error| Word::Unreadable {
        key: key.to_owned(),
        error,
    })
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
            stop_reason: None,
            unknown: model::record::Unknown::new(),
        }
    }

    /// A change: the record's new value, or that it is gone.
    type Told = (String, Option<Vec<u8>>, u64);

    fn put(a: &Allocation, revision: u64) -> Told {
        (key::alloc(&a.node, &a.id), Some(model::encode(a)), revision)
    }

    fn delete(a: &Allocation, revision: u64) -> Told {
        (key::alloc(&a.node, &a.id), None, revision)
    }

    fn whole(desired: &mut Desired, records: &[Told], revision: u64) -> Vec<String> {
        let records = records.iter().map(|(k, v, r)| (k.as_str(), v.as_deref().unwrap(), *r));
        words(desired.whole(records, revision))
    }

    fn changes(desired: &mut Desired, changes: &[Told]) -> Vec<String> {
        let changes = changes.iter().map(|(k, v, r)| (k.as_str(), v.as_deref(), *r));
        words(desired.changes(changes))
    }

    /// The words as a reader of a failure wants them.
    fn words(words: Vec<Word>) -> Vec<String> {
        let word = |word| match word {
            Word::Order(a) => order(&a),
            Word::Vanished(id) => vanished(&id),
            Word::Unreadable { key, .. } => format!("{key} is unreadable"),
        };
        words.into_iter().map(word).collect()
    }

    fn order(a: &Allocation) -> String {
        format!("order {}, stop: {:?}", a.id, a.stop)
    }

    fn vanished(id: &AllocId) -> String {
        format!("{id} has vanished")
    }

    #[test]
    fn changes_are_told_once_and_in_order() {
        let (a, stopped, b) = (
            allocation(1, None),
            allocation(1, Some(Stop::Cancelled)),
            allocation(2, None),
        );
        let mut desired = Desired::default();
        assert_eq!(whole(&mut desired, &[put(&a, 3)], 4), [order(&a)]);
        assert_eq!(changes(&mut desired, &[put(&a, 3)]), [""; 0], "older than the reading");
        assert_eq!(
            changes(&mut desired, &[put(&stopped, 5), put(&b, 6)]),
            [order(&stopped), order(&b)]
        );
        assert_eq!(
            changes(&mut desired, &[put(&stopped, 5), put(&b, 6)]),
            [""; 0],
            "a repetition"
        );
        assert_eq!(changes(&mut desired, &[delete(&a, 7)]), [vanished(&a.id)]);
        assert_eq!(
            changes(&mut desired, &[delete(&a, 7), put(&b, 6)]),
            [""; 0],
            "a repetition"
        );
        assert_eq!(changes(&mut desired, &[delete(&a, 8)]), [""; 0], "it was gone");
    }

    #[test]
    fn after_a_gap_only_the_difference_is_told() {
        let (a, b, c) = (allocation(1, None), allocation(2, None), allocation(3, None));
        let mut desired = Desired::default();
        whole(&mut desired, &[put(&a, 3), put(&b, 3)], 4);
        let words = whole(&mut desired, &[put(&b, 3), put(&c, 9)], 9);
        assert_eq!(words, [order(&c), vanished(&a.id)]);
    }

    #[test]
    fn a_reading_of_several_pages_may_be_ahead_of_its_revision() {
        let a = allocation(1, None);
        let mut desired = Desired::default();
        whole(&mut desired, &[put(&a, 8)], 4);
        assert_eq!(changes(&mut desired, &[delete(&a, 6), put(&a, 8)]), [""; 0]);
    }

    #[test]
    fn a_record_that_does_not_decode_is_passed_over() {
        let a = allocation(1, None);
        let mut bad = (key::alloc(&a.node, &a.id), Some(b"{}".to_vec()), 3);
        let unreadable = format!("{} is unreadable", bad.0);
        let mut desired = Desired::default();
        let read = whole(&mut desired, &[bad.clone(), put(&a, 3)], 3);
        assert_eq!(read, [unreadable.clone(), order(&a)]);
        let later = put(&allocation(2, None), 5);
        bad.2 = 4;
        let read = changes(&mut desired, &[bad, later]);
        assert_eq!(read, [unreadable, order(&allocation(2, None))]);
    }
}
