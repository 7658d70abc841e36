//! Lengths of time in configuration files and arguments: `500ms`, `20s`, `45m`, `24h`, `90d`.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A length of time, written with its unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Span(pub(crate) Duration);

/// Unit and its length, milliseconds; the longest first.
const UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

impl Span {
    pub(crate) const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    pub(crate) fn ms(self) -> u64 {
        u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX)
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || format!("{text:?} is no length of time; write it as 20s, 45m or 24h");
        let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, unit) = text.split_at(digits);
        let (_, each) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(refused)?;
        let number: u64 = number.parse().map_err(|_| refused())?;
        let ms = number.checked_mul(*each).ok_or_else(refused)?;
        Ok(Self(Duration::from_millis(ms)))
    }
}

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.ms();
        let fits = |(_, each): &&(&str, u64)| ms >= *each && ms.is_multiple_of(*each);
        match UNITS.iter().find(fits) {
            Some((unit, each)) => write!(f, "{}{unit}", ms / each),
            None => f.write_str("0s"),
        }
    }
}

impl From<Span> for String {
    fn from(span: Span) -> Self {
        span.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_and_written() {
        for (text, ms) in [
            ("500ms", 500),
            ("20s", 20_000),
            ("45m", 2_700_000),
            ("1d", 86_400_000),
            ("0s", 0),
        ] {
            let span: Span = text.parse().expect(text);
            assert_eq!((span.ms(), span.to_string().as_str()), (ms, text));
        }
        assert_eq!("24h".parse::<Span>().expect("legal").to_string(), "1d");
        for text in ["", "20", "s", "-1s", "1.5s", "20 s", "99999999999999999d", "1w"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }
}
