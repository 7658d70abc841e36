//! Parts of sentences for people: moments, lengths of time, what operators want of a node.
//!
//! Not here: which of them is said ([`crate::explain`]).

use model::Eligibility;

const DAY_S: u64 = 86_400;

/// `2026-03-01 04:05:06 UTC`.
pub(crate) fn moment(ms: u64) -> String {
    let seconds = ms / 1_000;
    let (year, month, day) = civil(seconds / DAY_S);
    let rest = seconds % DAY_S;
    let (hour, minute, second) = (rest / 3_600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

/// Year, month and day of a day since 1970-01-01, in years that begin in March, so that the leap
/// day is the last of its year.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

/// `90 s`, `5 min`; begun seconds count.
pub(crate) fn length(ms: u64) -> String {
    let seconds = ms.div_ceil(1_000);
    if seconds >= 120 && seconds.is_multiple_of(60) {
        format!("{} min", seconds / 60)
    } else if seconds >= 600 {
        format!("{} min", seconds.div_ceil(60))
    } else {
        format!("{seconds} s")
    }
}

/// "it is cordoned by …"; what stands in an eligibility that cannot be read is taken for a cordon.
pub(crate) fn cordon(eligibility: Option<&Eligibility>, now_ms: u64) -> String {
    let Some(wanted) = eligibility else {
        return "its eligibility cannot be read, so it counts as cordoned".to_owned();
    };
    let by = &wanted.cordoned_by;
    if wanted.gone_epoch.is_some() {
        return format!("it was declared gone; it is cordoned by {by}");
    }
    match wanted.drain.as_ref().map(|d| d.deadline_ms) {
        None => format!("it is cordoned by {by}"),
        Some(None) => format!("it drains until all of its steps have ended; it is cordoned by {by}"),
        Some(Some(at)) if at > now_ms => format!("it drains until {}; it is cordoned by {by}", moment(at)),
        Some(Some(at)) => format!("it was drained until {}; it is cordoned by {by}", moment(at)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_those_of_the_calendar() {
        for (s, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_399, "2000-02-28 23:59:59 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (951_868_800, "2000-03-01 00:00:00 UTC"),
            (1_709_251_199, "2024-02-29 23:59:59 UTC"),
            (1_735_689_599, "2024-12-31 23:59:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
        ] {
            assert_eq!(moment(s * 1_000 + 999), text);
        }
    }

    #[test]
    fn lengths_are_short() {
        for (ms, text) in [
            (1, "1 s"),
            (20_000, "20 s"),
            (90_000, "90 s"),
            (300_000, "5 min"),
            (3_599_001, "60 min"),
            (601_000, "11 min"),
        ] {
            assert_eq!(length(ms), text);
        }
    }
}
