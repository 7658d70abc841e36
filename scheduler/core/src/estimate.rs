//! How long a step will run, told from its earlier runs.
//!
//! Of the newest few durations of a step the second longest counts: a step that ends sooner than
//! expected leaves room on a node that stays busy, one that ends later keeps a node busy for itself.
//! Steps are known by a hash of team, pipeline and step name; those not seen for longest are
//! forgotten, half of all at once, so memory is bounded.
//!
//! Not here: what an expectation is used for ([`crate::fit`]). A wrong one costs room, never correctness.

use crate::DURATIONS_MAX;
use model::{PipelineName, StepName, TeamName};
use std::collections::BTreeMap;

/// How many durations of a step are kept; the oldest is replaced. As many as show the spread, few
/// enough to follow a change of the step within a day.
const KEPT: usize = 8;

/// What is expected of a step that has not run yet, milliseconds.
pub const UNKNOWN_MS: u64 = 60_000;

/// Names a step across runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StepKey(u64);

impl StepKey {
    /// The step of this name in a pipeline. Two that share a hash share their durations.
    #[must_use]
    pub fn of(team: &TeamName, pipeline: &PipelineName, step: &StepName) -> Self {
        // FNV-1a: the same in every process, unlike the hashes of the standard library.
        let parts = [team.as_str(), pipeline.as_str(), step.as_str()];
        let bytes = parts.iter().flat_map(|part| part.bytes().chain([0]));
        Self(bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        }))
    }
}

/// The newest durations of one step, milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Seen {
    newest: [u32; KEPT],
    /// How many were ever learned, up to `u32::MAX`.
    count: u32,
}

impl Seen {
    fn learn(&mut self, ms: u64) {
        self.newest[self.count as usize % KEPT] = u32::try_from(ms).unwrap_or(u32::MAX);
        self.count = self.count.saturating_add(1);
    }

    /// The second longest of those kept; the longest while there are fewer than four.
    fn expected(&self) -> u64 {
        let kept = (self.count as usize).min(KEPT);
        let (mut longest, mut second) = (0, 0);
        for ms in &self.newest[..kept] {
            if *ms >= longest {
                (longest, second) = (*ms, longest);
            } else {
                second = second.max(*ms);
            }
        }
        u64::from(if kept < 4 { longest } else { second })
    }
}

/// What is known of the durations of steps.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Durations {
    /// Learned of since the last time that half was forgotten.
    recent: BTreeMap<StepKey, Seen>,
    /// Learned of before.
    earlier: BTreeMap<StepKey, Seen>,
}

impl Durations {
    /// A step has run for so long, milliseconds.
    pub fn learn(&mut self, key: StepKey, ms: u64) {
        let before = self.earlier.remove(&key);
        self.recent.entry(key).or_insert(before.unwrap_or_default()).learn(ms);
        if self.recent.len() >= DURATIONS_MAX / 2 {
            self.earlier = std::mem::take(&mut self.recent);
        }
    }

    /// How long the step is expected to run, milliseconds; `None` if it never has.
    #[must_use]
    pub fn expected(&self, key: StepKey) -> Option<u64> {
        let seen = self.recent.get(&key).or_else(|| self.earlier.get(&key))?;
        Some(seen.expected())
    }

    /// How many steps are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.recent.len() + self.earlier.len()
    }

    /// True when no step is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(step: &str) -> StepKey {
        let (team, pipeline) = (TeamName::new("t"), PipelineName::new("p"));
        StepKey::of(
            &team.expect("legal"),
            &pipeline.expect("legal"),
            &StepName::new(step).expect("legal"),
        )
    }

    #[test]
    fn the_second_longest_of_the_newest_counts() {
        let cases: [(&[u64], Option<u64>); 6] = [
            (&[], None),
            (&[70], Some(70)),
            (&[70, 90, 80], Some(90)),
            (&[10, 900, 20, 30], Some(30)),
            (&[50, 50, 50, 50], Some(50)),
            (&[9_000, 9_000, 1, 2, 3, 4, 5, 6, 7, 8], Some(7)),
        ];
        for (durations, expected) in cases {
            let mut known = Durations::default();
            durations.iter().for_each(|ms| known.learn(key("s"), *ms));
            assert_eq!(known.expected(key("s")), expected, "{durations:?}");
            assert_eq!(known.expected(key("other")), None);
        }
    }

    #[test]
    fn what_is_known_is_bounded_and_what_ran_last_stays_known() {
        let mut known = Durations::default();
        let often = key("often");
        known.learn(often, 5);
        for n in 0..(3 * DURATIONS_MAX as u64) {
            known.learn(StepKey(n), n);
            if n % 1_000 == 0 {
                known.learn(often, 5);
            }
            assert!(known.len() <= DURATIONS_MAX, "{}", known.len());
        }
        assert_eq!(known.expected(often), Some(5));
        assert_eq!(known.expected(StepKey(0)), None);
    }
}
