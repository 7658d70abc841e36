//! How long a node will be busy, as far as its steps' expected durations tell.
//!
//! A step that outlives what was expected of it is expected to last twice as long, then four times,
//! as long steps do. The time that is left is told in classes, each twice as long as the one
//! before: between 20 and 30 minutes there is no difference that an estimate could tell.
//!
//! Not here: where expectations come from ([`crate::estimate`]), what a class is worth ([`crate::fit`]).

/// How many classes of remaining time there are: below 1 s, 1 s, 2 s, 4 s, … 2,048 s and more.
pub const CLASSES: usize = 13;

/// Nothing is expected to end sooner, milliseconds: what is shorter makes no difference to a node.
const LASTS_MIN_MS: u64 = 1_000;

/// The class of a remaining time in milliseconds.
#[must_use]
pub fn class_of(left_ms: u64) -> usize {
    let seconds = left_ms / 1_000;
    let bits = (u64::BITS - seconds.leading_zeros()) as usize;
    bits.min(CLASSES - 1)
}

/// The shortest remaining time of a class, milliseconds.
fn least_of(class: usize) -> u64 {
    match class {
        0 => 0,
        class => 1_000 << (class - 1),
    }
}

/// When one step began to hold its room and how long it is expected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Expected {
    /// Milliseconds of the Unix epoch.
    pub began_ms: u64,
    /// Milliseconds.
    pub lasts_ms: u64,
}

impl Expected {
    /// The end that is expected now: later than now.
    fn ends_after(&self, now_ms: u64) -> u64 {
        let mut lasts = self.lasts_ms.max(LASTS_MIN_MS);
        loop {
            let end = self.began_ms.saturating_add(lasts);
            if end > now_ms || end == u64::MAX {
                return end;
            }
            lasts = lasts.saturating_mul(2);
        }
    }
}

/// When a node is expected to be empty, and when to look again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Horizon {
    /// The class of the time that is left.
    pub class: usize,
    /// From then on the class may be another one, milliseconds of the Unix epoch.
    pub until_ms: u64,
}

/// What is expected of all steps of one node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Expectations {
    /// In no order; a node holds a few dozen steps at most.
    steps: Vec<Expected>,
}

impl Expectations {
    /// One more step.
    pub fn add(&mut self, step: Expected) {
        self.steps.push(step);
    }

    /// One step less.
    pub fn drop(&mut self, step: Expected) {
        if let Some(place) = self.steps.iter().position(|s| *s == step) {
            self.steps.swap_remove(place);
        }
    }

    /// When the last of the steps is expected to end; `None` without any.
    #[must_use]
    pub fn horizon(&self, now_ms: u64) -> Option<Horizon> {
        let ends = self.steps.iter().map(|step| step.ends_after(now_ms));
        let (first, last) = ends.fold((u64::MAX, 0), |(first, last), end| (first.min(end), last.max(end)));
        if self.steps.is_empty() {
            return None;
        }
        let class = class_of(last - now_ms);
        // One millisecond past the class's shortest time it is in the class below; and a step that
        // outlives its expectation may become the last one.
        let falls = last.saturating_sub(least_of(class)).saturating_add(1);
        let until_ms = if class == 0 { first } else { falls.min(first) };
        Some(Horizon { class, until_ms })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn expected(began_ms: u64, lasts_ms: u64) -> Expected {
        Expected { began_ms, lasts_ms }
    }

    #[test]
    fn each_class_is_twice_as_long_as_the_one_before() {
        let cases = [
            (0, 0),
            (999, 0),
            (1_000, 1),
            (1_999, 1),
            (2_000, 2),
            (1_800_000, 11),
            (2_048_000, 12),
            (u64::MAX, 12),
        ];
        for (left_ms, class) in cases {
            assert_eq!(class_of(left_ms), class, "{left_ms}");
        }
    }

    #[test]
    fn a_step_that_outlives_its_expectation_is_expected_to_last_twice_as_long() {
        let step = expected(5_000, 10_000);
        for (now_ms, end_ms) in [
            (5_000, 15_000),
            (14_999, 15_000),
            (15_000, 25_000),
            (25_000, 45_000),
            (1_000_000, 1_285_000),
        ] {
            assert_eq!(step.ends_after(now_ms), end_ms, "at {now_ms}");
        }
        assert_eq!(expected(u64::MAX - 1, u64::MAX).ends_after(u64::MAX), u64::MAX);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]
        #[test]
        fn the_class_stays_until_it_was_said_to(
            steps in prop::collection::vec((0_u64..5_000_000, 0_u64..3_000_000), 1..6),
            now_ms in 5_000_000_u64..9_000_000,
            part in 0.0_f64..1.0,
        ) {
            let mut all = Expectations::default();
            steps.iter().for_each(|(began, lasts)| all.add(expected(*began, *lasts)));
            let horizon = all.horizon(now_ms).expect("it has steps");
            prop_assert!(horizon.until_ms > now_ms);
            let within = now_ms + ((horizon.until_ms - 1 - now_ms) as f64 * part) as u64;
            prop_assert_eq!(all.horizon(within).map(|h| h.class), Some(horizon.class));
            steps.iter().for_each(|(began, lasts)| all.drop(expected(*began, *lasts)));
            prop_assert_eq!(all.horizon(now_ms), None);
        }
    }
}
