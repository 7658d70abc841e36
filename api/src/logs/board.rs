//! What is to be said to a node about its logs: only the newest word for each, so that a slow
//! stream never makes a queue and storing never waits for a node.
//!
//! Not here: the stream; its session takes the words with [`Board::next`].

use model::AllocId;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use tokio::sync::Notify;

/// A word to the node about one log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// Send from here on: everything before is stored.
    From {
        /// Of which allocation.
        alloc: AllocId,
        /// The offset.
        offset: u64,
    },
    /// Everything before this is stored.
    Ack {
        /// Of which allocation.
        alloc: AllocId,
        /// The offset.
        offset: u64,
        /// The end is stored too.
        complete: bool,
    },
}

#[derive(Debug, Default, Clone, Copy)]
struct Due {
    from: Option<u64>,
    ack: Option<(u64, bool)>,
}

/// The words that wait for one node's stream. At most two for each of its open logs.
#[derive(Debug, Default)]
pub struct Board {
    due: Mutex<BTreeMap<AllocId, Due>>,
    wake: Notify,
}

impl Board {
    /// Pins a word; it takes the place of an older one of its kind.
    pub fn post(&self, reply: Reply) {
        {
            let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
            match reply {
                Reply::From { alloc, offset } => due.entry(alloc).or_default().from = Some(offset),
                Reply::Ack {
                    alloc,
                    offset,
                    complete,
                } => due.entry(alloc).or_default().ack = Some((offset, complete)),
            }
        }
        self.wake.notify_one();
    }

    /// All words that wait; waits for one if there is none. Of one log, `From` comes first: what is
    /// acknowledged after it was asked for is not asked for again.
    pub async fn next(&self) -> Vec<Reply> {
        loop {
            let due = std::mem::take(&mut *self.due.lock().unwrap_or_else(PoisonError::into_inner));
            if !due.is_empty() {
                return due.into_iter().flat_map(|(alloc, due)| replies(&alloc, due)).collect();
            }
            self.wake.notified().await;
        }
    }
}

fn replies(alloc: &AllocId, due: Due) -> impl Iterator<Item = Reply> + use<> {
    let from = due.from.map(|offset| Reply::From {
        alloc: alloc.clone(),
        offset,
    });
    let ack = due.ack.map(|(offset, complete)| Reply::Ack {
        alloc: alloc.clone(),
        offset,
        complete,
    });
    from.into_iter().chain(ack)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_newest_word_of_each_kind_is_said() {
        let board = Board::default();
        let (a, b) = (AllocId::new("a").unwrap(), AllocId::new("b").unwrap());
        let ack = |alloc: &AllocId, offset| Reply::Ack {
            alloc: alloc.clone(),
            offset,
            complete: false,
        };
        for offset in 0..1_000 {
            board.post(ack(&b, offset));
            board.post(ack(&a, offset));
        }
        let from = Reply::From {
            alloc: a.clone(),
            offset: 5,
        };
        board.post(from.clone());
        assert_eq!(board.next().await, [from, ack(&a, 999), ack(&b, 999)]);
        board.post(ack(&a, 1_000));
        assert_eq!(board.next().await, [ack(&a, 1_000)]);
    }
}
