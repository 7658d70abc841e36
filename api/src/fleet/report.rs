//! A node's report as it was sent: read, checked, and cut to its bounds.
//!
//! Not here: what becomes of it (`api_core::fleet`), reading and writing the store (`filing`),
//! waiting for it (`desk`).

use model::{AllocId, Fence, Observed, ObservedState, Outcome};
use wire::v1;

/// The longest report that is filed, bytes of JSON: an outcome's message and some dozen phases.
const REPORT_MAX: usize = 64 * 1024;

/// The longest text of an outcome; what is longer is cut, for the end of a step must be heard.
const TEXT_MAX: usize = 8 * 1024;

/// Most phases of a report; later ones are left out.
const PHASES_MAX: usize = 64;

/// Why a report was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("report of `{alloc}`: {message}")]
pub(super) struct ReportError {
    /// Of which allocation, as it was sent.
    alloc: String,
    message: String,
}

/// Checks a report.
pub(super) fn read(report: &v1::Report) -> Result<Observed, ReportError> {
    let wrong = |message: String| ReportError {
        alloc: report.alloc_id.chars().take(80).collect(),
        message,
    };
    let alloc = AllocId::new(report.alloc_id.as_str()).map_err(|e| wrong(e.to_string()))?;
    let fence = Fence::from(report.fence.ok_or_else(|| wrong("the fence is missing".to_owned()))?);
    let mut observed: Observed =
        serde_json::from_str(&report.observed_json).map_err(|e| wrong(format!("observed_json: {e}")))?;
    if observed.alloc != alloc || observed.fence != fence {
        return Err(wrong("observed_json is of another allocation or fence".to_owned()));
    }
    if observed.state == ObservedState::Ended && (observed.outcome.is_none() || observed.log_bytes.is_none()) {
        return Err(wrong("an ended allocation needs `outcome` and `log_bytes`".to_owned()));
    }
    // These two are the record's own.
    observed.unknown.remove("kind");
    observed.unknown.remove("v");
    shorten(&mut observed);
    if !observed.left.fits() {
        return Err(wrong(
            "its outputs or its summary are larger than they may be".to_owned(),
        ));
    }
    if report.observed_json.len() > REPORT_MAX && encoded_len(&observed) > REPORT_MAX {
        return Err(wrong(format!("has more than {REPORT_MAX} bytes")));
    }
    Ok(observed)
}

fn shorten(observed: &mut Observed) {
    observed.phases.truncate(PHASES_MAX);
    for phase in &mut observed.phases {
        cut(&mut phase.name);
    }
    match &mut observed.outcome {
        Some(Outcome::CommandMissing { command, message }) => {
            cut(command);
            cut(message);
        }
        Some(Outcome::StartFailed { message, .. } | Outcome::Lost { message } | Outcome::OutputRefused { message }) => {
            cut(message)
        }
        Some(
            Outcome::Exited { .. }
            | Outcome::Signaled { .. }
            | Outcome::OutOfMemory { .. }
            | Outcome::TimedOut { .. }
            | Outcome::Cancelled,
        )
        | None => {}
    }
}

fn cut(text: &mut String) {
    if text.len() > TEXT_MAX {
        text.truncate(text.floor_char_boundary(TEXT_MAX));
        text.push('…');
    }
}

fn encoded_len(observed: &Observed) -> usize {
    serde_json::to_vec(observed).map_or(usize::MAX, |json| json.len())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use ObservedState::{Ended, Running};
    use model::{RunId, StartFailure, Usage};

    /// A report of the `counter`-th allocation of step 0 of run `01jd`.
    pub(crate) fn observed(counter: u32, state: ObservedState) -> Observed {
        let fence = Fence { epoch: 1, counter };
        let ended = state == Ended;
        Observed {
            alloc: AllocId::for_step(&RunId::new("01jd").unwrap(), 0, fence),
            fence,
            state,
            started_ms: None,
            ended_ms: None,
            phases: Vec::new(),
            outcome: ended.then_some(Outcome::Exited { code: 0 }),
            log_bytes: ended.then_some(12),
            usage: Usage::default(),
            left: model::Left::default(),
            unknown: model::record::Unknown::new(),
        }
    }

    /// A report as it is sent.
    pub(crate) fn message(observed: &Observed) -> v1::Report {
        v1::Report {
            alloc_id: observed.alloc.to_string(),
            fence: Some(observed.fence.into()),
            observed_json: serde_json::to_string(observed).unwrap(),
        }
    }

    #[test]
    fn a_wrong_report_is_told_what_is_wrong() {
        type Spoil = fn(&mut v1::Report);
        let cases: [(&str, Spoil); 7] = [
            ("not a legal id", |r| r.alloc_id = "a/b".to_owned()),
            ("the fence is missing", |r| r.fence = None),
            ("of another allocation or fence", |r| {
                r.fence.as_mut().unwrap().counter = 9
            }),
            ("of another allocation or fence", |r| {
                r.alloc_id = "01jd-0-1-9".to_owned()
            }),
            ("observed_json: ", |r| r.observed_json = "{".to_owned()),
            ("has more than 65536 bytes", |r| {
                let long = format!(r#"{{"later":"{}","#, "x".repeat(REPORT_MAX));
                r.observed_json = r.observed_json.replacen('{', &long, 1);
            }),
            ("needs `outcome` and `log_bytes`", |r| {
                r.observed_json = r.observed_json.replace("log_bytes", "log_byte");
            }),
        ];
        for (expect, spoil) in cases {
            let mut report = message(&observed(1, Ended));
            spoil(&mut report);
            let error = read(&report).expect_err(expect).to_string();
            assert!(error.contains(expect), "{error} / {expect}");
        }
        assert_eq!(read(&message(&observed(1, Ended))), Ok(observed(1, Ended)));
    }

    #[test]
    fn a_long_message_is_cut_and_the_end_is_heard() {
        let mut long = observed(1, Ended);
        long.outcome = Some(Outcome::StartFailed {
            cause: StartFailure::Image,
            message: "ü".repeat(1 << 20),
            lasting: false,
        });
        long.phases = vec![
            model::Phase {
                name: "p".to_owned(),
                ms: 1,
                bytes: 0
            };
            100_000
        ];
        let read = read(&message(&long)).unwrap();
        let Some(Outcome::StartFailed { message, .. }) = &read.outcome else {
            panic!("{read:?}")
        };
        assert_eq!(message.chars().count(), TEXT_MAX / 2 + 1);
        assert_eq!(read.phases.len(), PHASES_MAX);
    }

    #[test]
    fn a_report_cannot_forge_the_head_of_its_record() {
        let mut report = message(&observed(1, Running));
        report.observed_json = report
            .observed_json
            .replacen('{', r#"{"kind":"leader","v":9,"later":1,"#, 1);
        let read = read(&report).unwrap();
        let stored: Observed = model::decode(&model::encode(&read)).unwrap();
        assert_eq!(stored.unknown.keys().collect::<Vec<_>>(), ["later"]);
    }
}
