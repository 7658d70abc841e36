//! The document of an archived run: a golden one decodes, keeps what it does not know, and is
//! written as it was.

use api_core::archive::{Form, blob_name, summary};
use model::{RunStatus, StepStatus};

const GOLDEN: &str = include_str!("golden/v0.1/archive.json");

#[test]
fn a_golden_document_is_read_and_written_as_it_was() {
    let form: Form = model::decode(GOLDEN.as_bytes()).expect("it decodes");
    let written: serde_json::Value = serde_json::from_slice(&model::encode(&form)).expect("JSON");
    let golden: serde_json::Value = serde_json::from_str(GOLDEN).expect("JSON");
    assert_eq!(written, golden);
    assert!(form.unknown.contains_key("from_a_newer_release"));
    assert_eq!(blob_name(&form.header), "archive/01jdc8m4v5w6x7y8z9a0b1c2d3/1.json.zst");
    let records = form.records();
    assert_eq!(records[&0].earlier.len(), 1);
    assert_eq!(records[&0].log_bytes, Some(12));
    let summary = summary(&form.header, form.definition.as_ref(), &records).expect("it has ended");
    assert_eq!(
        (summary.status, summary.ended_ms, summary.started_ms),
        (RunStatus::Failed, 40, Some(30))
    );
    // While a step goes on there is nothing to archive.
    let mut going = records.clone();
    going.get_mut(&0).expect("there").status = StepStatus::Running;
    assert_eq!(
        api_core::archive::summary(&form.header, form.definition.as_ref(), &going),
        None
    );
}

#[test]
fn a_document_of_another_kind_or_a_newer_version_is_refused() {
    for (from, to) in [("\"kind\": \"archive\"", "\"kind\": \"run\""), ("\"v\": 1", "\"v\": 2")] {
        let changed = GOLDEN.replacen(from, to, 1);
        assert_ne!(changed, GOLDEN);
        assert!(model::decode::<Form>(changed.as_bytes()).is_err(), "{to}");
    }
}
