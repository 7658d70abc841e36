//! How long to wait after a failure: longer each time, within bounds. Not here: what is tried again.

use std::time::Duration;

/// After the first failure.
const FIRST: Duration = Duration::from_millis(100);

/// The longest wait: a store that comes back is used again within this.
const LONGEST: Duration = Duration::from_secs(2);

/// Grows with each failure until something works.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
}

impl Backoff {
    pub(crate) fn new() -> Self {
        Self { next: FIRST }
    }

    /// How long to wait now.
    pub(crate) fn failed(&mut self) -> Duration {
        let wait = self.next;
        self.next = (self.next * 2).min(LONGEST);
        wait
    }

    /// Begin small again.
    pub(crate) fn worked(&mut self) {
        self.next = FIRST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound_and_begin_anew_after_a_success() {
        let mut backoff = Backoff::new();
        let waits: Vec<u128> = (0..7).map(|_| backoff.failed().as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1_600, 2_000, 2_000]);
        backoff.worked();
        assert_eq!(backoff.failed(), FIRST);
    }
}
