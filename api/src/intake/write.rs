//! A draft becomes a run: its definition chunk by chunk, then the header, the pipeline's number and
//! the removal of the trigger in one transaction; a small definition is part of that transaction.
//!
//! Guards make it one run, whoever else works at the same trigger: the trigger is still there, the
//! number is the next, every chunk is the one that was written here. Not here: what is in a draft.

use super::draft::{Draft, header};
use model::record::Unknown;
use model::{DefChunk, InboxEntry, NumberRecord, RunHeader, key};
use store::{Commit, Expect, Guard, Revision, Store, StoreError, Txn};

/// How often another server may take the number, or write the chunks, before this one gives up
/// for now.
const TRIES: usize = 50;

/// A definition up to this many bytes is written in the header's own transaction, which spares
/// a wait for the disk. Escaped at its worst it still leaves room for the rest of the transaction.
const TOGETHER_MAX: usize = 128 * 1024;

/// What became of a draft.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    /// It is a run, with this number, as of this revision.
    Made {
        /// The pipeline's run number.
        number: u64,
        /// When it became visible.
        revision: Revision,
    },
    /// The trigger is gone: somebody else has made the run.
    Gone,
}

/// Writes the run of a trigger.
pub(super) async fn write(
    store: &dyn Store,
    delivery: &str,
    entry: &InboxEntry,
    draft: &Draft,
) -> Result<Written, StoreError> {
    let chunks = draft.made.as_ref().map(model::RunDef::to_chunks).unwrap_or_default();
    let together = chunks.len() == 1 && chunks[0].text.len() <= TOGETHER_MAX;
    let (inside, before) = if together {
        (&*chunks, &[][..])
    } else {
        (&[][..], &*chunks)
    };
    let mut guards = write_chunks(store, delivery, entry, before).await?;
    for _ in 0..TRIES {
        let (number, number_guard) = next_number(store, entry).await?;
        // As when they are apart: whoever watches learns of the definition before the header.
        let definition = inside.iter().enumerate().fold(Txn::new(), |txn, (n, chunk)| {
            txn.put(key::run_def(&entry.run, n), chunk)
        });
        let header = header(entry, draft, number, chunks.len());
        let mut txn = header_txn(definition, delivery, entry, number_guard, &header);
        txn.guards.extend(guards.iter().cloned());
        match store.commit(txn).await? {
            Commit::Applied(revision) => return Ok(Written::Made { number, revision }),
            Commit::Refused { guard, .. } if guard.key == key::inbox(delivery) => return Ok(Written::Gone),
            Commit::Refused { guard, .. } if guard.key == key::run(&entry.run) => {
                // Never seen: the header appears in the transaction that removes the trigger.
                let leftover = Txn::new()
                    .expect(key::run(&entry.run), Expect::Present)
                    .delete(key::inbox(delivery));
                store.commit(leftover).await?;
                return Ok(Written::Gone);
            }
            Commit::Refused { guard, .. } if guards.contains(&guard) => {
                guards = write_chunks(store, delivery, entry, before).await?;
            }
            // Somebody else took the number.
            Commit::Refused { .. } => {}
        }
    }
    Err(StoreError::Unavailable(
        "the pipeline's number is taken again and again".to_owned(),
    ))
}

/// Each chunk in a transaction of its own, only while the trigger stands. Answers the guards that
/// say that they are still ours.
async fn write_chunks(
    store: &dyn Store,
    delivery: &str,
    entry: &InboxEntry,
    chunks: &[DefChunk],
) -> Result<Vec<Guard>, StoreError> {
    let mut guards = Vec::with_capacity(chunks.len());
    for (n, chunk) in chunks.iter().enumerate() {
        let key = key::run_def(&entry.run, n);
        // A definition never changes once its header is there; and once the run is archived, the
        // header is gone, but so is the trigger.
        let txn = Txn::new()
            .expect(key::inbox(delivery), Expect::Present)
            .expect(key::run(&entry.run), Expect::Absent)
            .put(&key, chunk);
        let expect = match store.commit(txn).await? {
            Commit::Applied(revision) => Expect::Revision(revision),
            Commit::Refused { .. } => Expect::Present,
        };
        guards.push(Guard { key, expect });
    }
    Ok(guards)
}

async fn next_number(store: &dyn Store, entry: &InboxEntry) -> Result<(u64, Guard), StoreError> {
    let key = key::number(&entry.team, &entry.pipeline);
    let Some(found) = store.get(&key).await? else {
        return Ok((
            1,
            Guard {
                key,
                expect: Expect::Absent,
            },
        ));
    };
    let record: NumberRecord = found.decode().map_err(|e| StoreError::Failed(e.to_string()))?;
    let expect = Expect::Revision(found.mod_revision);
    Ok((record.last + 1, Guard { key, expect }))
}

/// Adds the header to the transaction, and all but the guards of a definition that is written already.
fn header_txn(txn: Txn, delivery: &str, entry: &InboxEntry, number_guard: Guard, header: &RunHeader) -> Txn {
    let next = NumberRecord {
        last: header.number,
        unknown: Unknown::new(),
    };
    let number_key = number_guard.key.clone();
    let mut txn = txn
        .expect(key::inbox(delivery), Expect::Present)
        .expect(key::run(&entry.run), Expect::Absent)
        .put(key::run(&entry.run), header)
        .put(number_key, &next)
        .delete(key::inbox(delivery));
    txn.guards.push(number_guard);
    txn
}
