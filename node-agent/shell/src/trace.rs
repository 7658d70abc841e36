//! What ties a step to the request that caused it: W3C trace context and the fields of its log lines.
//!
//! Not here: where a trace is sent; a step that wants to be in it reads `TRACEPARENT`.

use model::AllocId;
use node_agent::{Order, Work};
use sha2::{Digest, Sha256};
use tracing::Span;

/// The trace context of one attempt: the trace of the request, under a span of its own that is the
/// same whenever the agent comes back to the attempt. `None` for a text that is no trace context.
pub(crate) fn child(traceparent: &str, alloc: &AllocId) -> Option<String> {
    let (version, trace, flags) = parts(traceparent)?;
    let digest = Sha256::digest(alloc.as_str().as_bytes());
    // Zeros alone would be no span; a digest that begins with eight of them was never seen.
    Some(format!("{version}-{trace}-{}-{flags}", hex::encode(&digest[..8])))
}

/// Version, trace id and flags.
fn parts(traceparent: &str) -> Option<(&str, &str, &str)> {
    let mut parts = traceparent.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let lengths = [(version, 2), (trace, 32), (span, 16), (flags, 2)];
    let hexadecimal = |text: &str| text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let legal = lengths
        .iter()
        .all(|(text, len)| text.len() == *len && hexadecimal(text));
    let zero = |text: &str| text.bytes().all(|b| b == b'0');
    let known = version == "00" && parts.next().is_none();
    (legal && known && !zero(trace) && !zero(span)).then_some((version, trace, flags))
}

/// The span in which everything about an allocation is logged.
pub(crate) fn span(order: &Order) -> Span {
    let Work::Step {
        run,
        def,
        attempt,
        request_id,
        traceparent,
        ..
    } = &*order.work
    else {
        return tracing::info_span!(parent: None, "allocation", alloc_id = %order.alloc);
    };
    let trace_id = traceparent.as_deref().and_then(parts).map(|(_, trace, _)| trace);
    tracing::info_span!(
        parent: None,
        "allocation",
        run_id = %run,
        step = %def.name,
        attempt,
        alloc_id = %order.alloc,
        request_id,
        trace_id
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_is_a_span_of_the_same_trace() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        let given = format!("00-{trace}-00f067aa0ba902b7-01");
        let [first, second] = ["01jd-1-1-1", "01jd-1-1-2"].map(|id| AllocId::new(id).unwrap());
        let made = child(&given, &first).unwrap();
        assert!(
            made.starts_with(&format!("00-{trace}-")) && made.ends_with("-01"),
            "{made}"
        );
        assert!(parts(&made).is_some() && made != given, "{made}");
        assert_eq!(
            child(&given, &first),
            Some(made.clone()),
            "the same for the same attempt"
        );
        assert_ne!(child(&given, &second), Some(made));
    }

    #[test]
    fn what_is_no_trace_context_is_not_handed_on() {
        let alloc = AllocId::new("01jd-1-1-1").unwrap();
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        let cases = [
            String::new(),
            "00".to_owned(),
            format!("00-{trace}-00f067aa0ba902b7"),
            format!("00-{trace}-00f067aa0ba902b7-01-more"),
            format!("ff-{trace}-00f067aa0ba902b7-01"),
            format!("00-{}-00f067aa0ba902b7-01", trace.to_uppercase()),
            format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)),
            format!("00-{trace}-0000000000000000-01"),
            format!("00-{trace}-00f067aa0ba902b7-0\n"),
        ];
        for case in cases {
            assert_eq!(child(&case, &alloc), None, "{case}");
        }
    }
}
