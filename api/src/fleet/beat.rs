//! The renewals of all sessions, gathered for a moment and asked for together: a thousand nodes cost the
//! store a few messages a second.
//!
//! An agent counts its lease from the moment it sent the renewal, so that the moment costs it nothing
//! but itself. Not here: when a node renews, and what becomes of one that does not (`session`).

use std::sync::Arc;
use std::time::Duration;
use store::{LeaseId, Store, StoreError};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long renewals gather: a hundredth of the usual lease.
const GATHER: Duration = Duration::from_millis(200);

/// Renewals of one call of the store.
const TOGETHER_MAX: usize = 1_000;

type Wish = (LeaseId, oneshot::Sender<Result<u64, StoreError>>);

/// Where sessions have their leases renewed. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Beat {
    /// Unbounded in form only: each session waits for its answer, and there are so many seats.
    wishes: mpsc::UnboundedSender<Wish>,
}

/// The other side of a [`Beat`].
pub(super) struct Beats {
    wishes: mpsc::UnboundedReceiver<Wish>,
    store: Arc<dyn Store>,
}

impl Beat {
    pub(super) fn new(store: Arc<dyn Store>) -> (Self, Beats) {
        let (sender, wishes) = mpsc::unbounded_channel();
        (Self { wishes: sender }, Beats { wishes, store })
    }

    /// As [`Store::lease_keep_alive`].
    pub(super) async fn renew(&self, lease: LeaseId) -> Result<u64, StoreError> {
        let ended = || StoreError::Unavailable("the server is stopping".to_owned());
        let (answer, answered) = oneshot::channel();
        self.wishes.send((lease, answer)).map_err(|_| ended())?;
        answered.await.map_err(|_| ended())?
    }
}

impl Beats {
    /// Renews until `stop`.
    pub(super) async fn work(mut self, stop: CancellationToken) {
        let tasks = TaskTracker::new();
        let mut gathered = Vec::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                count = self.wishes.recv_many(&mut gathered, TOGETHER_MAX) => if count == 0 {
                    return;
                },
            }
            tokio::time::sleep(GATHER).await;
            while gathered.len() < TOGETHER_MAX
                && let Ok(wish) = self.wishes.try_recv()
            {
                gathered.push(wish);
            }
            // Those that come meanwhile do not wait for the answer.
            tasks.spawn(renew(self.store.clone(), std::mem::take(&mut gathered)));
        }
    }
}

async fn renew(store: Arc<dyn Store>, wishes: Vec<Wish>) {
    let leases: Vec<LeaseId> = wishes.iter().map(|(lease, _)| *lease).collect();
    let results = store.lease_keep_alive_all(&leases).await;
    for ((_, answer), result) in wishes.into_iter().zip(results) {
        // The session may have ended meanwhile.
        let _ = answer.send(result);
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{Flaky, soon};
    use super::*;
    use futures::future::join_all;
    use std::sync::atomic::Ordering;

    #[tokio::test]
    async fn renewals_of_a_moment_are_one_call_and_each_has_its_own_answer() {
        let store = Flaky::new();
        let (beat, beats) = Beat::new(store.clone());
        let stop = CancellationToken::new();
        let work = tokio::spawn(beats.work(stop.clone()));
        let mut leases = Vec::new();
        for _ in 0..100 {
            leases.push(store.lease_grant(60_000).await.unwrap());
        }
        store.lease_revoke(leases[7]).await.unwrap();
        let answers = soon("all answers", join_all(leases.iter().map(|lease| beat.renew(*lease)))).await;
        for (n, answer) in answers.iter().enumerate() {
            match answer {
                Ok(left) => assert!(n != 7 && *left > 0),
                Err(error) => assert!(n == 7 && matches!(error, StoreError::NoLease(l) if *l == leases[7])),
            }
        }
        let calls = store.together.load(Ordering::SeqCst);
        assert!((1..=3).contains(&calls), "{calls} calls");
        store.set_down(true);
        assert!(matches!(beat.renew(leases[0]).await, Err(StoreError::Unavailable(_))));
        stop.cancel();
        soon("its end", work).await.unwrap();
        assert!(matches!(beat.renew(leases[0]).await, Err(StoreError::Unavailable(_))));
    }
}
