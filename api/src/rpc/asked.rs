//! What a call asks for, in the forms of the interface.
//!
//! Not here: whether it makes sense; the functions behind REST say that.

use crate::dto::{CreateRun, RunStatus};
use crate::problem::{Answer, Problem};
use crate::rest::query::{Parameters, no_pipeline, no_run};
use model::{PipelineName, RunId, TeamName};
use std::collections::BTreeMap;
use wire::v1::{ListRunsRequest, SubmitRunRequest};
use wire::{Struct, Value, value};

/// How deep a value may be: inputs are texts, numbers and booleans, and what is deeper is refused later.
const DEPTH_MAX: usize = 8;

pub(super) fn run_id(text: &str) -> Answer<RunId> {
    RunId::new(text).map_err(|_| no_run(text))
}

pub(super) fn pipeline(team: &str, name: &str) -> Answer<(TeamName, PipelineName)> {
    match (TeamName::new(team), PipelineName::new(name)) {
        (Ok(team), Ok(name)) => Ok((team, name)),
        _ => Err(no_pipeline(team, name)),
    }
}

pub(super) fn create_run(asked: SubmitRunRequest) -> Answer<CreateRun> {
    Ok(CreateRun {
        branch: asked.branch,
        commit_sha: asked.commit_sha,
        tag: asked.tag,
        inputs: asked.inputs.map(inputs).transpose()?,
        variables: asked.variables.into_iter().collect(),
        force: asked.force,
    })
}

fn inputs(given: Struct) -> Answer<BTreeMap<String, serde_json::Value>> {
    let read = |(name, value): (String, Value)| match json(value, DEPTH_MAX) {
        Some(value) => Ok((name, value)),
        None => {
            let field = format!("inputs.{}", name.chars().take(80).collect::<String>());
            Err(Problem::bad_field(&field, "must be a text, a number or a boolean"))
        }
    };
    given.fields.into_iter().map(read).collect()
}

/// The same value as JSON; `None` for what JSON does not have, and for what is too deep.
fn json(value: Value, depth: usize) -> Option<serde_json::Value> {
    let depth = depth.checked_sub(1)?;
    Some(match value.kind? {
        value::Kind::NullValue(_) => serde_json::Value::Null,
        value::Kind::BoolValue(truth) => truth.into(),
        value::Kind::StringValue(text) => text.into(),
        value::Kind::NumberValue(number) => number_of(number)?,
        value::Kind::ListValue(list) => {
            let items = list.values.into_iter().map(|item| json(item, depth));
            serde_json::Value::Array(items.collect::<Option<_>>()?)
        }
        value::Kind::StructValue(object) => {
            let fields = object.fields.into_iter();
            let fields = fields.map(|(name, value)| Some((name, json(value, depth)?)));
            serde_json::Value::Object(fields.collect::<Option<_>>()?)
        }
    })
}

/// Protobuf's values know only one kind of number; a whole one is meant as such.
fn number_of(number: f64) -> Option<serde_json::Value> {
    /// Up to here every whole number has its own value.
    const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;
    if number.fract() == 0.0 && number.abs() <= WHOLE_MAX {
        #[expect(clippy::cast_possible_truncation, reason = "it is whole and within the range")]
        let whole = number as i64;
        return Some(whole.into());
    }
    serde_json::Number::from_f64(number).map(serde_json::Value::Number)
}

/// The filters of a list, as REST has them.
pub(super) fn parameters(asked: &ListRunsRequest) -> Answer<Parameters> {
    let status = match wire::v1::RunStatus::try_from(asked.status) {
        Ok(wire::v1::RunStatus::Unspecified) => String::new(),
        Ok(wire::v1::RunStatus::Queued) => RunStatus::Queued.as_str().to_owned(),
        Ok(wire::v1::RunStatus::Running) => RunStatus::Running.as_str().to_owned(),
        Ok(wire::v1::RunStatus::Success) => RunStatus::Success.as_str().to_owned(),
        Ok(wire::v1::RunStatus::Failed) => RunStatus::Failed.as_str().to_owned(),
        Ok(wire::v1::RunStatus::Cancelled) => RunStatus::Cancelled.as_str().to_owned(),
        Ok(wire::v1::RunStatus::TimedOut) => RunStatus::TimedOut.as_str().to_owned(),
        Err(_) => {
            return Err(Problem::bad_field(
                "status",
                "is not a status of runs that this server knows",
            ));
        }
    };
    let number = |n: Option<u64>| n.map(|n| n.to_string()).unwrap_or_default();
    let limit = if asked.limit == 0 {
        String::new()
    } else {
        asked.limit.to_string()
    };
    let given = Parameters::of([
        ("status", status),
        ("branch", asked.branch.clone()),
        ("commit", asked.commit.clone()),
        ("person", asked.person.clone()),
        ("since", number(asked.since)),
        ("until", number(asked.until)),
        ("limit", limit),
        ("cursor", asked.cursor.clone()),
    ]);
    given.bounded()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(kind: value::Kind) -> Value {
        Value { kind: Some(kind) }
    }

    #[test]
    fn inputs_are_what_json_would_have_been() {
        for (kind, expect) in [
            (value::Kind::StringValue("x".to_owned()), Some(serde_json::json!("x"))),
            (value::Kind::BoolValue(true), Some(serde_json::json!(true))),
            (value::Kind::NumberValue(3.0), Some(serde_json::json!(3))),
            (value::Kind::NumberValue(-2.5), Some(serde_json::json!(-2.5))),
            (value::Kind::NumberValue(1e300), Some(serde_json::json!(1e300))),
            (value::Kind::NumberValue(f64::NAN), None),
            (value::Kind::NullValue(0), Some(serde_json::Value::Null)),
        ] {
            assert_eq!(json(value(kind.clone()), DEPTH_MAX), expect, "{kind:?}");
        }
        assert_eq!(json(Value { kind: None }, DEPTH_MAX), None);
    }

    #[test]
    fn a_value_that_is_too_deep_is_refused() {
        let mut deep = value(value::Kind::BoolValue(true));
        for _ in 0..DEPTH_MAX {
            deep = value(value::Kind::ListValue(wire::ListValue { values: vec![deep] }));
        }
        let refused = inputs(Struct {
            fields: [("a".to_owned(), deep)].into(),
        });
        assert!(refused.unwrap_err().detail().contains("inputs.a"));
    }
}
