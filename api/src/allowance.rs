//! How much one token may ask for: so many requests a second, so many at once, so many open streams; so
//! that one client cannot starve the others.
//!
//! What passes is refused with 429 and the time after which it will not be. Not here: what the whole
//! server can bear (`limit`), and who a token belongs to (`auth`).

use crate::limit::STREAMS_MAX;
use crate::problem::{Answer, Problem};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// From so many tokens on, those that ask for nothing are let go of.
const TOKENS_KEPT: usize = 1_024;

/// What each token may ask for on one server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// Requests a second, on average; at least 1.
    pub per_second: u32,
    /// Requests that may come at the same moment after a pause; at least 1.
    pub burst: u32,
    /// Requests that have no answer yet.
    pub at_once: usize,
    /// Open streams of events and logs.
    pub streams: usize,
}

impl Default for Allowance {
    /// Three times the largest burst of triggers that one service is expected to send, each of which may take
    /// three seconds; and half of a server's streams.
    fn default() -> Self {
        Self {
            per_second: 1_000,
            burst: 2_000,
            at_once: 1_000,
            streams: STREAMS_MAX / 2,
        }
    }
}

/// When a token's next request is due: the generic cell rate algorithm.
#[derive(Debug, Default)]
struct Pace {
    due: Duration,
}

impl Pace {
    /// Takes a turn, or says for how long there is none.
    fn take(&mut self, now: Duration, allowance: &Allowance) -> Result<(), Duration> {
        let interval = Duration::from_secs(1) / allowance.per_second.max(1);
        let ahead = interval * (allowance.burst.max(1) - 1);
        let due = self.due.max(now);
        match due.checked_sub(now + ahead) {
            Some(wait) if wait > Duration::ZERO => Err(wait),
            _ => {
                self.due = due + interval;
                Ok(())
            }
        }
    }

    /// True when it has forgotten everything.
    fn is_fresh(&self, now: Duration) -> bool {
        self.due <= now
    }
}

/// What one token uses.
#[derive(Debug)]
struct Share {
    pace: Mutex<Pace>,
    at_once: Arc<Semaphore>,
    streams: Arc<Semaphore>,
}

impl Share {
    fn new(allowance: &Allowance) -> Self {
        Self {
            pace: Mutex::default(),
            at_once: Arc::new(Semaphore::new(allowance.at_once)),
            streams: Arc::new(Semaphore::new(allowance.streams)),
        }
    }

    fn is_idle(&self, allowance: &Allowance, now: Duration) -> bool {
        self.at_once.available_permits() == allowance.at_once
            && self.streams.available_permits() == allowance.streams
            && locked(&self.pace).is_fresh(now)
    }
}

/// What all tokens use of this server.
#[derive(Debug)]
pub(crate) struct Allowances {
    each: Allowance,
    begun: Instant,
    shares: Mutex<HashMap<String, Arc<Share>>>,
}

impl Allowances {
    pub(crate) fn new(each: Allowance) -> Self {
        Self {
            each,
            begun: Instant::now(),
            shares: Mutex::default(),
        }
    }

    /// Takes one request of a token in, until the answer lets go of it.
    ///
    /// # Errors
    /// 429.
    pub(crate) fn request(&self, token: &str) -> Answer<OwnedSemaphorePermit> {
        let now = self.begun.elapsed();
        let share = self.share(token, now);
        let each = &self.each;
        locked(&share.pace).take(now, each).map_err(|wait| {
            let rule = format!(
                "this token sends more than {} requests a second (or {} at the same moment)",
                each.per_second, each.burst
            );
            Problem::too_many_requests(rule, wait)
        })?;
        share.at_once.clone().try_acquire_owned().map_err(|_| {
            let rule = format!("{} requests of this token have no answer yet", each.at_once);
            Problem::too_many_requests(rule, Duration::from_secs(1))
        })
    }

    /// Takes one stream of a token in, until its end.
    ///
    /// # Errors
    /// 429.
    pub(crate) fn stream(&self, token: &str) -> Answer<OwnedSemaphorePermit> {
        let share = self.share(token, self.begun.elapsed());
        share.streams.clone().try_acquire_owned().map_err(|_| {
            let rule = format!("{} streams of this token are open on this server", self.each.streams);
            Problem::too_many_requests(rule, Duration::from_secs(5))
        })
    }

    fn share(&self, token: &str, now: Duration) -> Arc<Share> {
        let mut shares = locked(&self.shares);
        if let Some(share) = shares.get(token) {
            return share.clone();
        }
        if shares.len() >= TOKENS_KEPT {
            shares.retain(|_, share| Arc::strong_count(share) > 1 || !share.is_idle(&self.each, now));
        }
        let share = Arc::new(Share::new(&self.each));
        shares.insert(token.to_owned(), share.clone());
        share
    }
}

/// What is behind it is whole also after a thread panicked while it held it.
fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EACH: Allowance = Allowance {
        per_second: 10,
        burst: 3,
        at_once: 2,
        streams: 1,
    };

    #[test]
    fn a_burst_passes_and_then_so_many_a_second() {
        let mut pace = Pace::default();
        let ms = Duration::from_millis;
        // At which moment, and for how long there is no turn.
        for (at, wait) in [
            (0, None),
            (0, None),
            (0, None),
            (0, Some(100)),
            (99, Some(1)),
            (100, None),
            (100, Some(100)),
            (5_000, None),
            (5_000, None),
            (5_000, None),
            (5_000, Some(100)),
            (5_200, None),
            (5_200, None),
            (5_200, Some(100)),
        ] {
            assert_eq!(pace.take(ms(at), &EACH).err(), wait.map(ms), "at {at}");
        }
    }

    #[test]
    fn in_a_minute_of_hammering_no_more_than_the_average_and_a_burst_pass() {
        let mut pace = Pace::default();
        let taken = (0..60_000).filter(|at| pace.take(Duration::from_millis(*at), &EACH).is_ok());
        assert_eq!(taken.count(), 60 * 10 + 2);
    }

    #[test]
    fn one_token_uses_up_its_own_share_only() {
        let allowances = Allowances::new(EACH);
        let held: Vec<_> = (0..2).map(|_| allowances.request("a").unwrap()).collect();
        let refused = allowances.request("a").unwrap_err();
        assert_eq!(refused.status().as_u16(), 429);
        assert!(refused.detail().contains("2 requests of this token"), "{refused:?}");
        assert!(allowances.request("b").is_ok());
        drop(held);
        let hammered = (0..100).filter(|_| allowances.request("a").is_ok()).count();
        assert!(hammered < 5, "{hammered}");
        let stream = allowances.stream("a").unwrap();
        assert_eq!(allowances.stream("a").unwrap_err().status().as_u16(), 429);
        assert!(allowances.stream("b").is_ok());
        drop(stream);
        assert!(allowances.stream("a").is_ok());
    }

    #[test]
    fn tokens_that_ask_for_nothing_are_forgotten_and_those_that_hold_something_are_not() {
        let allowances = Allowances::new(EACH);
        let _held = allowances.stream("held").unwrap();
        for i in 0..2 * TOKENS_KEPT {
            let _ = allowances.stream(&format!("t{i}"));
        }
        assert!(locked(&allowances.shares).len() <= TOKENS_KEPT);
        assert_eq!(allowances.stream("held").unwrap_err().status().as_u16(), 429);
    }
}
