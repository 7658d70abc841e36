//! Which bytes a `Range` header asks for (RFC 9110). Pure.
//!
//! Not here: several ranges at once; such a header is passed over, as the standard allows.

use std::ops::Range;

/// What is to be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// Everything.
    Whole,
    /// These bytes, at least one.
    Bytes(Range<u64>),
    /// Nothing lies there.
    Beyond,
}

/// The part of `size` bytes that `header` asks for.
pub(super) fn part(header: Option<&str>, size: u64) -> Part {
    let Some((first, last)) = header
        .and_then(|h| h.strip_prefix("bytes="))
        .and_then(|r| r.split_once('-'))
    else {
        return Part::Whole;
    };
    let range = match (first.trim().parse::<u64>(), last.trim()) {
        (Ok(first), "") => first..size,
        (Ok(first), last) => match last.parse::<u64>() {
            Ok(last) if last >= first => first..size.min(last.saturating_add(1)),
            _ => return Part::Whole,
        },
        (Err(_), last) if first.trim().is_empty() => match last.parse::<u64>() {
            Ok(count) => size.saturating_sub(count)..size,
            Err(_) => return Part::Whole,
        },
        (Err(_), _) => return Part::Whole,
    };
    if range.is_empty() {
        Part::Beyond
    } else {
        Part::Bytes(range)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_asks_for_one_part() {
        let cases = [
            (None, 10, Part::Whole),
            (Some("bytes=0-"), 10, Part::Bytes(0..10)),
            (Some("bytes=2-4"), 10, Part::Bytes(2..5)),
            (Some("bytes=2-2"), 10, Part::Bytes(2..3)),
            (Some("bytes=2-400"), 10, Part::Bytes(2..10)),
            (Some("bytes=0-18446744073709551615"), 10, Part::Bytes(0..10)),
            (Some("bytes=-3"), 10, Part::Bytes(7..10)),
            (Some("bytes=-30"), 10, Part::Bytes(0..10)),
            (Some("bytes=-0"), 10, Part::Beyond),
            (Some("bytes=10-"), 10, Part::Beyond),
            (Some("bytes=10-20"), 10, Part::Beyond),
            (Some("bytes=0-"), 0, Part::Beyond),
            (Some("bytes=-5"), 0, Part::Beyond),
            (Some("bytes=4-2"), 10, Part::Whole),
            (Some("bytes=1-2,5-6"), 10, Part::Whole),
            (Some("bytes=a-b"), 10, Part::Whole),
            (Some("bytes=-"), 10, Part::Whole),
            (Some("lines=1-2"), 10, Part::Whole),
            (Some("99999999999999999999-"), 10, Part::Whole),
        ];
        for (header, size, expected) in cases {
            assert_eq!(part(header, size), expected, "{header:?} of {size}");
        }
    }
}
