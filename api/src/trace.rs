//! W3C trace context: read where a trigger comes in, made where there is none, handed on unchanged.
//!
//! Only the `traceparent` of version 00 and what later versions keep of it. Not here: `tracestate`,
//! and any span of our own: a run is a part of its caller's trace.

use rand::Rng;

/// Of a legal `traceparent` of version 00, bytes.
const LEN: usize = 55;

/// A legal `traceparent` in the form of version 00; `None` for anything else.
#[must_use]
pub fn parse(text: &str) -> Option<String> {
    let text = text.trim();
    let head = text.get(..LEN)?;
    let mut parts = head.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let hex = |part: &str, len: usize| {
        let lower = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        part.len() == len && part.bytes().all(lower)
    };
    let zero = |part: &str| part.bytes().all(|b| b == b'0');
    let legal = hex(version, 2) && hex(trace, 32) && hex(span, 16) && hex(flags, 2) && parts.next().is_none();
    let rest_ok = match version {
        "ff" => false,
        "00" => text.len() == LEN,
        // Later versions may add fields.
        _ => text.len() == LEN || text[LEN..].starts_with('-'),
    };
    (legal && rest_ok && !zero(trace) && !zero(span)).then(|| format!("00-{trace}-{span}-{flags}"))
}

/// A new trace.
#[must_use]
pub fn begin() -> String {
    let mut rng = rand::rng();
    let trace: u128 = rng.random_range(1..=u128::MAX);
    let span: u64 = rng.random_range(1..=u64::MAX);
    format!("00-{trace:032x}-{span:016x}-01")
}

/// The trace of a `traceparent`, for log lines; empty if there is none.
#[must_use]
pub fn trace_id(traceparent: &str) -> &str {
    traceparent.split('-').nth(1).unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_recommendation_allows_is_taken() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let later = "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        for (text, expect) in [
            (good.to_owned(), Some(good)),
            (format!(" {good} "), Some(good)),
            (format!("{later}-what-follows"), Some(good)),
            (later.to_owned(), Some(good)),
            (format!("{good}-x"), None),
            (format!("{later}x"), None),
            (good.replace("00-", "ff-"), None),
            (good.to_uppercase(), None),
            (good.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)), None),
            (good.replace("b7ad6b7169203331", &"0".repeat(16)), None),
            (good.replace('-', "_"), None),
            (good[..54].to_owned(), None),
            ("ä".repeat(40), None),
            (String::new(), None),
        ] {
            assert_eq!(parse(&text).as_deref(), expect, "{text}");
        }
    }

    #[test]
    fn a_new_trace_is_legal_and_has_its_id() {
        let made = begin();
        assert_eq!(parse(&made).as_ref(), Some(&made));
        assert_eq!(trace_id(&made).len(), 32);
        assert_ne!(begin(), made);
        assert_eq!(trace_id(""), "");
    }
}
