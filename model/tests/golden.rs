//! Records that were written by each release are read by this one, and come out as they went in.
//!
//! `golden/<release>/<kind>[.<variant>].json` is what that release wrote, with a field of a newer
//! one added. A golden file is never changed; a release that writes a record differently gets a
//! folder of its own. The newest folder holds every kind.

use model::record::{Record, RecordError, decode, encode};
use model::{
    Allocation, ArchivedRun, ClusterAuthority, ClusterVersion, DedupeRecord, DefChunk, Eligibility, InboxEntry,
    JoinToken, Leader, Member, NodeRecord, NumberRecord, Observed, PipelineRecord, Request, Retention, RunDef,
    RunHeader, SessionRecord, StepRecord, TeamRecord, TokenRecord,
};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The folder of the newest release.
const NEWEST: &str = "v0.1";

/// The field that stands for what a newer release may add.
const NEWER: &str = "from_a_newer_release";

/// What the test knows of a kind.
struct Kind {
    kind: &'static str,
    version: u16,
    type_name: &'static str,
    /// Decodes and encodes again.
    reread: fn(&[u8]) -> Result<Vec<u8>, RecordError>,
    /// Whether fields of a newer release are written back. Only a record that is never rewritten
    /// may lose them.
    keeps_unknown: bool,
}

fn reread<R: Record>(bytes: &[u8]) -> Result<Vec<u8>, RecordError> {
    decode::<R>(bytes).map(|record| encode(&record))
}

macro_rules! kinds {
    ($($record:ident $keeps:literal),* $(,)?) => {
        vec![$(Kind {
            kind: <$record as Record>::KIND,
            version: <$record as Record>::VERSION,
            type_name: stringify!($record),
            reread: reread::<$record>,
            keeps_unknown: $keeps,
        }),*]
    };
}

fn kinds() -> Vec<Kind> {
    kinds![
        Allocation true,
        ArchivedRun true,
        ClusterAuthority true,
        ClusterVersion true,
        DedupeRecord true,
        DefChunk true,
        Eligibility true,
        InboxEntry true,
        JoinToken true,
        Leader true,
        Member true,
        NodeRecord true,
        NumberRecord true,
        Observed true,
        PipelineRecord true,
        // Written once by the API and removed by the leader.
        Request false,
        Retention true,
        RunHeader true,
        SessionRecord true,
        StepRecord true,
        TeamRecord true,
        TokenRecord true,
    ]
}

fn here(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(relative)
}

/// Every golden file of every release, with the kind that its name says.
fn golden_files() -> Vec<(PathBuf, Kind)> {
    let mut files = Vec::new();
    for release in fs::read_dir(here("tests/golden")).expect("the golden folder") {
        for file in fs::read_dir(release.expect("readable").path()).expect("a release's folder") {
            let path = file.expect("readable").path();
            let name = path.file_name().and_then(|n| n.to_str()).expect("a text name");
            let stem = name.split('.').next().expect("split gives one at least");
            let kind = kinds().into_iter().find(|k| k.kind == stem);
            files.push((
                path.clone(),
                kind.unwrap_or_else(|| panic!("{}: no such kind", path.display())),
            ));
        }
    }
    files
}

fn json_of(path: &Path) -> Value {
    let text = fs::read(path).expect("a golden file");
    serde_json::from_slice(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn bytes(value: &Value) -> Vec<u8> {
    serde_json::to_vec(value).expect("JSON")
}

#[test]
fn every_golden_record_comes_out_as_it_went_in() {
    for (path, kind) in golden_files() {
        let golden = json_of(&path);
        let again = (kind.reread)(&bytes(&golden)).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let again: Value = serde_json::from_slice(&again).expect("JSON");
        assert_eq!(again, golden, "{}", path.display());
    }
}

#[test]
fn fields_of_a_newer_release_are_kept() {
    for (path, kind) in golden_files() {
        let mut golden = json_of(&path);
        assert_eq!(golden.get(NEWER).is_some(), kind.keeps_unknown, "{}", path.display());
        golden["newer_still"] = json!({ "a": [true, 1.5] });
        let again = (kind.reread)(&bytes(&golden)).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let again: Value = serde_json::from_slice(&again).expect("JSON");
        let kept = again.get("newer_still") == golden.get("newer_still");
        assert_eq!(kept, kind.keeps_unknown, "{}", path.display());
    }
}

#[test]
fn a_newer_version_is_refused_with_both_versions() {
    for (path, kind) in golden_files() {
        let mut golden = json_of(&path);
        golden["v"] = json!(kind.version + 1);
        let refusal = (kind.reread)(&bytes(&golden));
        assert!(
            matches!(refusal, Err(RecordError::TooNew { found, newest, .. })
                if found == kind.version + 1 && newest == kind.version),
            "{}: {refusal:?}",
            path.display()
        );
    }
}

#[test]
fn another_kind_is_refused_by_name() {
    for (path, kind) in golden_files() {
        for other in kinds().into_iter().filter(|k| k.kind != kind.kind) {
            let refusal = (other.reread)(&bytes(&json_of(&path)));
            assert!(
                matches!(&refusal, Err(RecordError::WrongKind { expected, found })
                    if *expected == other.kind && found == kind.kind),
                "{} as {}: {refusal:?}",
                path.display(),
                other.kind
            );
        }
    }
}

/// Without any one of its fields a record is read as it was, or refused with the kind's name; never anything else.
#[test]
fn a_record_that_lacks_a_field_is_read_or_refused_plainly() {
    for (path, kind) in golden_files() {
        let golden = json_of(&path);
        for field in golden.as_object().expect("an object").keys() {
            let mut less = golden.clone();
            less.as_object_mut().expect("an object").remove(field);
            match (kind.reread)(&bytes(&less)) {
                Ok(_) => assert!(field != "kind" && field != "v", "{} without {field}", path.display()),
                Err(e) => assert!(
                    e.to_string().contains(&format!("`{}`", kind.kind)) && e.to_string().contains(field.as_str()),
                    "{} without {field}: {e}",
                    path.display()
                ),
            }
        }
    }
}

#[test]
fn the_golden_definition_is_a_definition() {
    let golden = bytes(&json_of(&here(&format!("tests/golden/{NEWEST}/def.json"))));
    let chunk: DefChunk = decode(&golden).expect("a chunk");
    let def = RunDef::from_chunks(std::slice::from_ref(&chunk)).expect("a definition");
    assert_eq!(def.steps.len(), 2);
    let again: String = def.to_chunks().into_iter().map(|c| c.text).collect();
    let (again, first): (Value, Value) = (
        serde_json::from_str(&again).expect("JSON"),
        serde_json::from_str(&chunk.text).expect("JSON"),
    );
    assert_eq!(again, first);
}

/// Every record of the sources, found by its `impl Record for`, is known here and has a golden file.
#[test]
fn a_new_kind_needs_a_golden_file() {
    let known = kinds();
    let names: BTreeSet<&str> = known.iter().map(|k| k.kind).collect();
    assert_eq!(names.len(), known.len(), "two records share a kind");
    let types: BTreeSet<String> = known.iter().map(|k| k.type_name.to_owned()).collect();
    assert_eq!(
        records_in_the_sources(),
        types,
        "the sources' records and those that are tested here"
    );
    for kind in known {
        let present = golden_files()
            .iter()
            .any(|(path, k)| k.kind == kind.kind && path.parent().is_some_and(|p| p.ends_with(NEWEST)));
        assert!(present, "tests/golden/{NEWEST}/{}.json is missing", kind.kind);
    }
}

fn records_in_the_sources() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for file in fs::read_dir(here("src")).expect("the sources") {
        let text = fs::read_to_string(file.expect("readable").path()).expect("a source file");
        for line in text.lines() {
            if let Some((_, rest)) = line.split_once("Record for ")
                && line.starts_with("impl")
            {
                found.insert(rest.trim_end_matches('{').trim().to_owned());
            }
        }
    }
    found
}
