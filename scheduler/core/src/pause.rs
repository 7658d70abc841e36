//! How long a step waits before its next attempt: the backoff, doubled for each retry that was used
//! up, and a random part, so that steps that failed together do not come back together. Chance is
//! an input: the random part follows from the id of the allocation that ended.
//!
//! Not here: whether there is another attempt ([`crate::fold`]).

use model::AllocId;

/// The longest pause before a retry, milliseconds (one hour), the random part aside: doubling ten
/// minutes ten times would be days, and nobody waits for that.
pub const RETRY_PAUSE_MAX_MS: u64 = 3_600_000;

/// The pause after the allocation `ended`, when `used` retries were used up before it: between one
/// and one and a half times `backoff_ms` doubled `used` times.
pub(crate) fn pause_ms(backoff_ms: u64, used: u32, ended: &AllocId) -> u64 {
    let factor = 1_u64.checked_shl(used).unwrap_or(u64::MAX);
    let pause = backoff_ms.saturating_mul(factor).min(RETRY_PAUSE_MAX_MS);
    pause + spread(ended.as_str()) % (pause / 2 + 1)
}

/// A number that looks random and follows from the text (FNV-1a, then mixed).
fn spread(text: &str) -> u64 {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Fence, RunId};

    fn alloc(counter: u32) -> AllocId {
        let run = RunId::new("01jd").expect("legal");
        AllocId::for_step(&run, 3, Fence { epoch: 1, counter })
    }

    #[test]
    fn pauses_double_up_to_an_hour_and_hold_a_random_part_that_follows_from_the_id() {
        for (backoff, used, least) in [
            (5_000, 0, 5_000),
            (5_000, 1, 10_000),
            (5_000, 3, 40_000),
            (600_000, 9, RETRY_PAUSE_MAX_MS),
            (0, 5, 0),
            (1, 200, RETRY_PAUSE_MAX_MS),
        ] {
            for counter in 1..50 {
                let pause = pause_ms(backoff, used, &alloc(counter));
                assert!(
                    (least..=least + least / 2).contains(&pause),
                    "{backoff} {used}: {pause}"
                );
                assert_eq!(pause, pause_ms(backoff, used, &alloc(counter)));
            }
        }
        let distinct: std::collections::BTreeSet<u64> = (1..50).map(|n| pause_ms(5_000, 0, &alloc(n))).collect();
        assert!(distinct.len() > 40, "they hardly ever meet");
    }
}
