//! The archive's transactions: a run goes and its outbox entry comes, an outbox entry goes.
//!
//! Each is to be committed under the leader's own key besides, so that a deposed leader moves
//! nothing. Not here: when, and the store's own types, onto which a [`Change`] is mapped one to one.

use super::{Move, Told};
use model::{RunId, key};

/// What a guard demands of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// No such key.
    Absent,
    /// The key was last written at this revision.
    Revision(u64),
}

/// A write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Sets the value.
    Put {
        /// Which key.
        key: String,
        /// The encoded record.
        value: Vec<u8>,
    },
    /// Removes the key.
    Delete {
        /// Which key.
        key: String,
    },
    /// Removes every key that begins with the prefix.
    DeletePrefix {
        /// Which keys.
        prefix: String,
    },
}

/// One guarded transaction: applied whole or not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// All must hold.
    pub guards: Vec<(String, Expect)>,
    /// Applied together.
    pub writes: Vec<Write>,
}

/// The id of the request that ends a run: one for each run, however often it is asked for.
#[must_use]
pub fn cancel_request(run: &RunId) -> String {
    format!("cancel-{run}")
}

impl Move {
    /// Takes the run out of the live store: only if its header is as it was read and nobody has
    /// asked for its end meanwhile.
    #[must_use]
    pub fn change(&self) -> Change {
        let run = &self.record.summary.id;
        let header = key::run(run);
        let outbox = Write::Put {
            key: key::archive_outbox(run),
            value: model::encode(&self.record),
        };
        let parts = Write::DeletePrefix {
            prefix: key::run_parts(run),
        };
        Change {
            guards: vec![
                (header.clone(), Expect::Revision(self.header_revision)),
                (key::request(&cancel_request(run)), Expect::Absent),
            ],
            writes: vec![outbox, Write::Delete { key: header }, parts],
        }
    }
}

impl Told {
    /// Removes the outbox entry if it is still as history was told.
    #[must_use]
    pub fn change(&self) -> Change {
        let key = key::archive_outbox(&self.run);
        Change {
            guards: vec![(key.clone(), Expect::Revision(self.revision))],
            writes: vec![Write::Delete { key }],
        }
    }
}
