//! The JSON Schema of the pipeline file, for editors: made from the same tables of keys as the
//! compiler.
//!
//! Not here: what a schema cannot say (names that need each other, templates, sums). The schema
//! never refuses a file that the compiler accepts.

use crate::cel::EXPRESSION_MAX;
use crate::glob::{GLOB_MAX, GLOBS_MAX};
use crate::keys::{
    CHECKOUT_KEYS, CONCURRENCY_KEYS, ENTRY_KEYS, FILE_KEYS, INCLUDE_KEYS, INPUT_KEYS, Key, MANUAL_KEYS, MATRIX_KEYS,
    ON_KEYS, PULL_REQUEST_KEYS, PUSH_KEYS, RESOURCE_KEYS, RETRY_KEYS, SCHEDULE_KEYS, STAGE_KEYS, STEP_KEYS, Shape,
    StepKey, Takes, UPSTREAM_KEYS,
};
use crate::limits::{
    CELLS_MAX, ENTRIES_MAX, ENV_ENTRIES_MAX, GROUP_MAX, IMAGE_MAX, INCLUDES_MAX, INPUTS_MAX, LABEL_MAX, LABELS_MAX,
    SCHEDULES_MAX, TEMPLATES_MAX,
};
use model::run::STEPS_MAX;
use serde_json::{Map, Value, json};

/// A name by the contract.
const NAME: &str = "^[a-z0-9][a-z0-9._-]{0,62}$";

/// A name that is not ignored.
const TEMPLATE_NAME: &str = "^(?!x-)[a-z0-9][a-z0-9._-]{0,62}$";

/// An end of an attempt that may be tried again.
const END: &str = "^(infra|oom|timeout|failure|exit:([1-9]|[1-9][0-9]|1[0-9]{2}|2[0-4][0-9]|25[0-5]))$";

/// What starts with `x-` is ignored.
const IGNORED: &str = "^x-";

/// JSON Schema, draft 2020-12, of what [`crate::compile`] accepts.
#[must_use]
pub fn schema() -> Value {
    // A file that includes others may have its stages there.
    let mut root = mapping(FILE_KEYS, &[], &[]);
    root["anyOf"] = json!([{ "required": ["stages"] }, { "required": ["include"] }]);
    let about = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "BuildFlow pipeline file",
        "description": "`.buildflow.yml`, or any of `.buildflow/*.yml`",
        "$defs": definitions(),
    });
    if let (Value::Object(root), Value::Object(about)) = (&mut root, about) {
        root.extend(about);
    }
    root
}

fn definitions() -> Value {
    json!({
        "text": { "type": ["string", "integer", "boolean"] },
        "expression": { "type": "string", "pattern": "\\$\\{\\{" },
        "condition": { "type": ["string", "boolean"], "maxLength": EXPRESSION_MAX + 16 },
        "glob": { "type": ["string", "integer", "boolean"], "minLength": 1, "maxLength": GLOB_MAX + 1 },
        "globs": {
            "anyOf": [
                { "$ref": "#/$defs/glob" },
                { "type": "array", "items": { "$ref": "#/$defs/glob" }, "minItems": 1, "maxItems": GLOBS_MAX },
            ],
        },
        "name": { "type": ["string", "integer", "boolean"], "pattern": NAME },
        "step": mapping(STEP_KEYS, &["name"], &[]),
        "template": mapping(STEP_KEYS, &[], &[StepKey::Name]),
        "stage": mapping(STAGE_KEYS, &["name", "steps"], &[]),
        "entry": mapping(ENTRY_KEYS, &["run"], &[]),
        "commands": {
            "anyOf": [
                { "$ref": "#/$defs/text" },
                {
                    "type": "array",
                    "maxItems": ENTRIES_MAX,
                    "items": { "anyOf": [{ "$ref": "#/$defs/text" }, { "$ref": "#/$defs/entry" }] },
                },
            ],
        },
        "env": {
            "type": "object",
            "maxProperties": ENV_ENTRIES_MAX,
            "propertyNames": { "pattern": "^(?!(BUILDFLOW_.*|BUILDFLOW|CI|TRACEPARENT)$)[A-Za-z_][A-Za-z0-9_]*$" },
            "additionalProperties": { "$ref": "#/$defs/text" },
        },
    })
}

/// A mapping of the keys of `table`, without those of `leave_out`.
fn mapping<I: Copy + PartialEq>(table: &[Key<I>], required: &[&str], leave_out: &[I]) -> Value {
    let properties: Map<String, Value> = table
        .iter()
        .filter(|key| !leave_out.contains(&key.id))
        .map(|key| (key.name.to_owned(), described(with_expressions(key), key.doc)))
        .collect();
    let mut schema = json!({
        "type": "object",
        "properties": properties,
        "patternProperties": { IGNORED: true },
        "additionalProperties": false,
    });
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

/// What may stand behind a key, and an expression where it takes one.
fn with_expressions<I>(key: &Key<I>) -> Value {
    let plain = value_of(key.shape);
    let scalar = !matches!(key.shape, Shape::Env | Shape::Labels | Shape::Condition);
    match key.takes {
        Takes::Made | Takes::Late if scalar => json!({ "anyOf": [plain, reference("expression")] }),
        Takes::Nothing | Takes::Made | Takes::Late | Takes::Condition => plain,
    }
}

/// Nothing, or a mapping of these keys.
fn or_nothing<I: Copy + PartialEq>(table: &[Key<I>]) -> Value {
    json!({ "anyOf": [{ "type": "null" }, mapping(table, &[], &[])] })
}

fn words(words: &[&str]) -> Value {
    json!({ "enum": words })
}

fn described(mut schema: Value, doc: &str) -> Value {
    schema["description"] = json!(doc);
    schema
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/$defs/{name}") })
}

/// What may stand behind a key of this shape.
fn value_of(shape: Shape) -> Value {
    match shape {
        Shape::Name => reference("name"),
        Shape::Line { max } => json!({ "type": ["string", "integer", "boolean"], "minLength": 1, "maxLength": max }),
        Shape::Text => reference("text"),
        Shape::Names => json!({
            "anyOf": [
                reference("name"),
                { "type": "array", "items": reference("name"), "maxItems": STEPS_MAX, "uniqueItems": true },
            ],
        }),
        Shape::Commands => reference("commands"),
        Shape::Env => reference("env"),
        Shape::Labels => {
            let pattern = format!("^[A-Za-z0-9._/:+-]{{1,{LABEL_MAX}}}$");
            json!({
                "type": "object",
                "maxProperties": LABELS_MAX,
                "propertyNames": { "pattern": pattern },
                "additionalProperties": {
                    "anyOf": [{ "type": ["string", "integer", "boolean"], "pattern": pattern }, reference("expression")],
                },
            })
        }
        Shape::Shell => json!({ "enum": ["sh", "bash"] }),
        Shape::Image => json!({ "type": ["string", "integer", "boolean"], "minLength": 1, "maxLength": IMAGE_MAX }),
        Shape::User => json!({
            "type": ["string", "integer", "boolean"],
            "pattern": "^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,63})?$",
        }),
        Shape::Duration => json!({ "type": "string", "pattern": "^([0-9]+h)?([0-9]+m)?([0-9]+s)?$", "minLength": 2 }),
        Shape::Flag => json!({ "type": "boolean" }),
        Shape::Size => json!({ "type": "string", "pattern": "^[0-9]+(\\.[0-9]{1,3})?(Ki|Mi|Gi|Ti|k|M|G|T)$" }),
        Shape::Cpu => json!({ "type": ["number", "string"], "pattern": "^([0-9]+m|[0-9]+(\\.[0-9]{1,3})?)$" }),
        Shape::Count { min, max } => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Shape::Checkout => json!({ "anyOf": [{ "type": "boolean" }, mapping(CHECKOUT_KEYS, &[], &[])] }),
        Shape::Resources => mapping(RESOURCE_KEYS, &[], &[]),
        Shape::Retry => mapping(RETRY_KEYS, &[], &[]),
        Shape::Ends => {
            let end = json!({ "type": "string", "pattern": END });
            json!({ "anyOf": [end, { "type": "array", "items": end, "minItems": 1, "uniqueItems": true }] })
        }
        Shape::Templates => json!({
            "type": "object",
            "maxProperties": TEMPLATES_MAX,
            "patternProperties": { IGNORED: true, TEMPLATE_NAME: reference("template") },
            "additionalProperties": false,
        }),
        Shape::Defaults => reference("template"),
        Shape::Stages { max } => json!({
            "type": "array",
            "items": reference("stage"),
            "minItems": 1,
            "maxItems": max,
        }),
        Shape::Steps => json!({
            "type": "array",
            "items": reference("step"),
            "minItems": 1,
            "maxItems": STEPS_MAX,
        }),
        Shape::Condition => reference("condition"),
        Shape::Globs => reference("globs"),
        _ => value_of_rules(shape),
    }
}

/// The same for triggers and rules.
fn value_of_rules(shape: Shape) -> Value {
    match shape {
        Shape::Matrix => matrix(),
        Shape::Cells => json!({
            "type": "array",
            "maxItems": CELLS_MAX,
            "items": { "type": "object", "minProperties": 1, "additionalProperties": reference("text") },
        }),
        Shape::Concurrency => json!({
            "anyOf": [
                { "type": ["string", "integer", "boolean"], "minLength": 1, "maxLength": GROUP_MAX },
                mapping(CONCURRENCY_KEYS, &["group"], &[]),
            ],
        }),
        Shape::Queue => words(&["latest", "all"]),
        Shape::Priority => words(&["high", "normal", "low"]),
        Shape::Includes => {
            let one = json!({ "anyOf": [value_of(Shape::Path), mapping(INCLUDE_KEYS, &["file"], &[])] });
            json!({ "anyOf": [one, { "type": "array", "items": one, "maxItems": INCLUDES_MAX }] })
        }
        Shape::On => {
            let word = words(&["push", "pull_request", "tag", "merge_group", "manual"]);
            json!({ "anyOf": [word, { "type": "array", "items": word }, mapping(ON_KEYS, &[], &[])] })
        }
        Shape::Push => or_nothing(PUSH_KEYS),
        Shape::PullRequest => or_nothing(PULL_REQUEST_KEYS),
        Shape::PullRequestTypes => {
            let type_ = words(&crate::on::TYPE_WORDS);
            json!({ "anyOf": [type_, { "type": "array", "items": type_ }] })
        }
        Shape::TagGlobs => json!({
            "anyOf": [{ "type": "null" }, { "type": "object", "maxProperties": 0 }, reference("globs")],
        }),
        Shape::Nothing => json!({ "anyOf": [{ "type": "null" }, mapping::<()>(&[], &[], &[])] }),
        Shape::Schedules => json!({
            "type": "array",
            "items": mapping(SCHEDULE_KEYS, &["cron"], &[]),
            "minItems": 1,
            "maxItems": SCHEDULES_MAX,
        }),
        Shape::Cron => json!({ "type": "string", "pattern": "^ *[^ ]+( +[^ ]+){4} *$" }),
        Shape::Timezone => json!({ "type": "string", "pattern": "^[A-Z][A-Za-z0-9_+-]*(/[A-Z][A-Za-z0-9_+-]*)*$" }),
        Shape::Upstream => mapping(UPSTREAM_KEYS, &["name"], &[]),
        Shape::PipelinePath => {
            json!({ "type": "string", "pattern": "^[a-z0-9][a-z0-9._-]{0,62}/[a-z0-9][a-z0-9._-]{0,62}$" })
        }
        Shape::RunStatus => words(&["success", "failed", "cancelled", "timed_out", "any"]),
        Shape::Manual => or_nothing(MANUAL_KEYS),
        Shape::Inputs => json!({
            "type": "object",
            "maxProperties": INPUTS_MAX,
            "patternProperties": { IGNORED: true, "^(?!x-)[A-Za-z_][A-Za-z0-9_-]{0,62}$": mapping(INPUT_KEYS, &[], &[]) },
            "additionalProperties": false,
        }),
        Shape::InputType => words(&["string", "choice", "boolean", "number"]),
        Shape::Options => {
            json!({ "anyOf": [reference("text"), { "type": "array", "items": reference("text"), "minItems": 1 }] })
        }
        Shape::Scalar => json!({ "type": ["string", "number", "boolean"] }),
        Shape::Commit => json!({ "type": ["string", "integer"], "pattern": "^([0-9a-fA-F]{40}|[0-9a-fA-F]{64})$" }),
        Shape::Path => json!({ "type": ["string", "integer", "boolean"], "minLength": 1 }),
        _ => json!(true),
    }
}

fn matrix() -> Value {
    let mut schema = mapping(MATRIX_KEYS, &[], &[]);
    schema["minProperties"] = json!(1);
    schema["patternProperties"] = json!({ IGNORED: true });
    schema["additionalProperties"] =
        json!({ "type": "array", "items": reference("text"), "minItems": 1, "maxItems": CELLS_MAX });
    schema
}
