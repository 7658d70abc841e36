//! Whether the live store answers: one small linearizable read, again and again.
//!
//! An answer is what the store said, even "there is no such key"; silence and "not available" are
//! none. All waits are on the steady clock, and a process that slept has to fail anew before it
//! says that the store is lost. Not here: what is refused meanwhile (`rest::layers`), who leads.

use model::key;
use std::sync::Arc;
use std::time::Duration;
use store::{Store, StoreError};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The pause between two questions. Short even while all is well: the silence is counted from the
/// last answer, and one read costs the store nothing.
const EVERY: Duration = Duration::from_millis(500);

/// How long one question waits for its answer.
const WAIT: Duration = Duration::from_secs(1);

/// A store that was silent for so long is lost: longer than an election lease, and longer than a
/// store of three members needs to choose another leader (2 s).
pub const LOST_AFTER: Duration = Duration::from_secs(3);

/// So many questions in a row must have had no answer: a process that slept has asked none.
const FAILURES_MIN: u32 = 2;

/// What the questions have shown so far.
#[derive(Debug, Clone, Copy)]
struct Seen {
    /// When the newest answer came.
    answered: Instant,
    /// Questions without an answer since then.
    failures: u32,
    /// When the newest of them was given up.
    failed: Instant,
}

impl Seen {
    fn new(now: Instant) -> Self {
        Self {
            answered: now,
            failures: 0,
            failed: now,
        }
    }

    fn take(&mut self, answered: bool, now: Instant) {
        if answered {
            *self = Self::new(now);
        } else {
            self.failures += 1;
            self.failed = now;
        }
    }

    /// True when the store has been silent for long, and that was seen just now.
    fn is_lost(&self, now: Instant) -> bool {
        let fresh = now.saturating_duration_since(self.failed) <= EVERY + WAIT + WAIT;
        let silent = now.saturating_duration_since(self.answered) >= LOST_AFTER;
        self.failures >= FAILURES_MIN && fresh && silent
    }
}

/// The questions' result, kept up to date. Clones show the same one.
#[derive(Debug, Clone)]
pub struct Probe {
    seen: Arc<watch::Sender<Seen>>,
}

impl Default for Probe {
    fn default() -> Self {
        Self::new()
    }
}

impl Probe {
    /// Nothing was asked yet; [`Probe::run`] asks.
    #[must_use]
    pub fn new() -> Self {
        Self {
            seen: Arc::new(watch::Sender::new(Seen::new(Instant::now()))),
        }
    }

    /// True when the live store has not answered for [`LOST_AFTER`].
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.seen.borrow().is_lost(Instant::now())
    }

    /// How long the store has been silent; `None` while it answers.
    #[must_use]
    pub fn silent_for(&self) -> Option<Duration> {
        let seen = *self.seen.borrow();
        (seen.failures > 0).then(|| seen.answered.elapsed())
    }

    /// Waits until the store is lost.
    pub async fn lost(&self) {
        let mut seen = self.seen.subscribe();
        // The sender lives in `self`.
        let _ = seen.wait_for(|seen| seen.is_lost(Instant::now())).await;
    }

    /// Asks until `shutdown`.
    pub async fn run(&self, store: &dyn Store, shutdown: &CancellationToken) {
        loop {
            let asked = tokio::time::timeout(WAIT, store.get(key::LEADER));
            let answered = tokio::select! {
                () = shutdown.cancelled() => return,
                asked = asked => !matches!(asked, Err(_) | Ok(Err(StoreError::Unavailable(_)))),
            };
            self.take(answered);
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(EVERY) => {}
            }
        }
    }

    fn take(&self, answered: bool) {
        let now = Instant::now();
        let before = *self.seen.borrow();
        self.seen.send_modify(|seen| seen.take(answered, now));
        if answered && before.failures >= FAILURES_MIN {
            tracing::info!(
                silent_ms = before.answered.elapsed().as_millis(),
                "live store answers again"
            );
        } else if before.failures + 1 == FAILURES_MIN && !answered {
            tracing::warn!("live store does not answer");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_counts_from_the_last_answer_and_must_have_been_seen() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        // (answered, when it was known), then whether the store is lost at a moment.
        type Case = (&'static [(bool, u64)], u64, bool);
        let cases: [Case; 7] = [
            (&[], 60_000, false),
            (&[(true, 500)], 60_000, false),
            (&[(false, 1_000), (false, 2_500)], 2_900, false),
            (&[(false, 1_000), (false, 2_500)], 3_000, true),
            (&[(false, 1_000), (false, 2_500), (true, 3_100)], 3_200, false),
            // One failure after a long sleep says nothing yet, nor do failures of long ago.
            (&[(true, 500), (false, 30_000)], 30_001, false),
            (&[(false, 1_000), (false, 2_500)], 30_000, false),
        ];
        for (asked, now, lost) in cases {
            let mut seen = Seen::new(start);
            for (answered, when) in asked {
                seen.take(*answered, at(*when));
            }
            assert_eq!(seen.is_lost(at(now)), lost, "{asked:?} at {now}");
        }
    }
}
