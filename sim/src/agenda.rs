//! What happens when: events in the order of the virtual clock, first come first served within a
//! millisecond.

use std::collections::BTreeMap;

/// The events to come.
#[derive(Debug)]
pub(crate) struct Agenda<E> {
    now_ms: u64,
    entered: u64,
    events: BTreeMap<(u64, u64), E>,
}

impl<E> Agenda<E> {
    pub(crate) fn starting_at(now_ms: u64) -> Self {
        Self {
            now_ms,
            entered: 0,
            events: BTreeMap::new(),
        }
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// Enters an event `delay_ms` from now.
    pub(crate) fn after(&mut self, delay_ms: u64, event: E) {
        self.entered += 1;
        self.events.insert((self.now_ms + delay_ms, self.entered), event);
    }

    /// The events to come, the next one first.
    pub(crate) fn to_come(&self) -> impl Iterator<Item = &E> {
        self.events.values()
    }

    /// The next event; the clock goes on to it.
    pub(crate) fn next(&mut self) -> Option<E> {
        let ((at_ms, _), event) = self.events.pop_first()?;
        self.now_ms = at_ms;
        Some(event)
    }
}
