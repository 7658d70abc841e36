//! Times of the clock as `cron` writes them, and names of time zones: whether they are well formed.
//!
//! Not here: when the next one is.

use crate::report::Problem;
use crate::syntax::shown;

/// Name, least and most of each field.
const FIELDS: [(&str, u32, u32); 5] = [
    ("minute", 0, 59),
    ("hour", 0, 23),
    ("day of the month", 1, 31),
    ("month", 1, 12),
    ("day of the week", 0, 7),
];

const MONTHS: [&str; 12] = [
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];

const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// The longest expression, bytes.
const CRON_MAX: usize = 256;

/// Checks `minute hour day month weekday`.
pub(crate) fn check(text: &str) -> Result<(), Problem> {
    let wrong = |what: String| Problem::new(format!("`{}` is no time of the clock: {what}", shown(text)));
    let like = "write minute, hour, day of the month, month and day of the week: `0 3 * * *` is every night at three";
    if text.len() > CRON_MAX {
        return Err(wrong(format!("it has more than {CRON_MAX} bytes")));
    }
    let fields: Vec<&str> = text.split_ascii_whitespace().collect();
    if fields.len() != FIELDS.len() {
        return Err(wrong(format!("it has {} fields instead of 5", fields.len())).help(like));
    }
    for (field, (name, least, most)) in fields.iter().zip(FIELDS) {
        for part in field.split(',') {
            if !is_part(part, name, least, most) {
                let range = format!("`{}` is no {name}, which is {least} to {most}", shown(part));
                return Err(wrong(range).help(like));
            }
        }
    }
    Ok(())
}

/// `*`, `3`, `1-5`, `*/10`, `mon-fri/2`
fn is_part(part: &str, name: &str, least: u32, most: u32) -> bool {
    let (range, step) = part
        .split_once('/')
        .map_or((part, None), |(range, step)| (range, Some(step)));
    let step_ok = step.is_none_or(|step| number(step).is_some_and(|step| (1..=most).contains(&step)));
    let value = |text: &str| {
        let names: &[&str] = match name {
            "month" => &MONTHS,
            "day of the week" => &DAYS,
            _ => &[],
        };
        let named = names.iter().position(|n| n.eq_ignore_ascii_case(text));
        let named = named.and_then(|n| u32::try_from(n).ok()).map(|n| n + least);
        named.or_else(|| number(text)).filter(|n| (least..=most).contains(n))
    };
    let range_ok = match range.split_once('-') {
        Some((from, to)) => matches!((value(from), value(to)), (Some(from), Some(to)) if from <= to),
        None => range == "*" || value(range).is_some(),
    };
    step_ok && range_ok
}

fn number(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.len() <= 3 && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// Checks the form of `Europe/Berlin`. Whether there is such a zone is known to the server that fires.
pub(crate) fn check_timezone(text: &str) -> Result<(), Problem> {
    let word = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_uppercase())
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"_+-".contains(&b))
    };
    if text.len() <= 64 && text.split('/').all(word) {
        return Ok(());
    }
    Err(Problem::new(format!("`{}` is no time zone", shown(text)))
        .help("write a name of the IANA database, such as `Europe/Berlin` or `UTC`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_zones_are_well_formed_or_not() {
        for good in [
            "0 3 * * *",
            "*/10 0-6,20 1 jan-mar MON-fri",
            "59 23 31 12 7",
            "0 0 * * 0/2",
        ] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "0 3 * *",
            "0 3 * * * *",
            "60 * * * *",
            "* 24 * * *",
            "* * 0 * *",
            "* * * 13 *",
            "* * * * 8",
            "5-1 * * * *",
            "*/0 * * * *",
            "1,, * * * *",
            "a * * * *",
            "- * * * *",
            "@daily",
            "1/2/3 * * * *",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
        assert!(check(&"1,".repeat(200)).is_err());
        for good in ["UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires", "Etc/GMT+1"] {
            assert!(check_timezone(good).is_ok(), "{good}");
        }
        for bad in ["", "berlin", "Europe/", "Europe Berlin", "../etc"] {
            assert!(check_timezone(bad).is_err(), "{bad}");
        }
    }
}
