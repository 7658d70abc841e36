//! The JSON Schema and the compiler accept the same keys, and the schema never refuses a file that
//! compiles.

use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// What is wrong with `value` by `schema`, as a path and a word; `None` when nothing is. Knows the
/// words that our schema uses and panics on any other, so that none is passed over.
fn violation(root: &Value, schema: &Value, value: &Value, path: &str) -> Option<String> {
    let schema = match schema {
        Value::Bool(true) => return None,
        Value::Bool(false) => return Some(format!("{path}: not allowed")),
        Value::Object(schema) => schema,
        other => panic!("{other} is no schema"),
    };
    schema.iter().find_map(|(word, rule)| {
        check_word(root, schema, word, rule, value, path).map(|found| format!("{found} ({word})"))
    })
}

fn check_word(
    root: &Value,
    schema: &Map<String, Value>,
    word: &str,
    rule: &Value,
    value: &Value,
    path: &str,
) -> Option<String> {
    let failed = |is: bool| (!is).then(|| path.to_owned());
    match word {
        "$schema" | "$defs" | "title" | "description" => None,
        "$ref" => {
            let pointer = rule
                .as_str()
                .and_then(|r| r.strip_prefix('#'))
                .expect("a local reference");
            violation(root, root.pointer(pointer).expect("it exists"), value, path)
        }
        "type" => {
            let allowed: Vec<&str> = match rule {
                Value::String(one) => vec![one],
                Value::Array(many) => many.iter().filter_map(Value::as_str).collect(),
                other => panic!("{other}"),
            };
            failed(allowed.iter().any(|kind| is_kind(kind, value)))
        }
        "enum" => failed(rule.as_array().expect("a list").contains(value)),
        "anyOf" => {
            let some = rule
                .as_array()
                .expect("a list")
                .iter()
                .any(|one| violation(root, one, value, path).is_none());
            failed(some)
        }
        "pattern" if rule == "\\$\\{\\{" => failed(value.as_str().is_none_or(|text| text.contains("${{"))),
        // Checked by an engine of regular expressions in an editor; here by the shapes below.
        "pattern" | "propertyNames" => None,
        "minLength" | "maxLength" | "minimum" | "maximum" | "minItems" | "maxItems" | "minProperties"
        | "maxProperties" => failed(is_bounded(word, rule.as_f64().expect("a number"), value)),
        "uniqueItems" => {
            let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
            let distinct: BTreeSet<String> = items.iter().map(Value::to_string).collect();
            failed(distinct.len() == items.len())
        }
        "items" => {
            let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
            items
                .iter()
                .enumerate()
                .find_map(|(n, item)| violation(root, rule, item, &format!("{path}/{n}")))
        }
        "required" => {
            let object = value.as_object()?;
            let missing = rule
                .as_array()
                .expect("a list")
                .iter()
                .filter_map(Value::as_str)
                .find(|k| !object.contains_key(*k));
            missing.map(|key| format!("{path}/{key} is missing"))
        }
        "properties" | "patternProperties" => None,
        "additionalProperties" => value.as_object()?.iter().find_map(|(key, below)| {
            let rules = schemas_of(schema, key, rule);
            rules
                .into_iter()
                .find_map(|rule| violation(root, rule, below, &format!("{path}/{key}")))
        }),
        other => panic!("the schema uses `{other}`, which this test does not know"),
    }
}

/// Whether a value keeps to a bound; one of another kind does.
#[expect(clippy::cast_precision_loss, reason = "counts of a few characters and elements")]
fn is_bounded(word: &str, bound: f64, value: &Value) -> bool {
    let measured = match &word[3..] {
        "imum" => value.as_f64(),
        "Length" => value.as_str().map(|text| text.chars().count() as f64),
        "Items" => value.as_array().map(|items| items.len() as f64),
        _ => value.as_object().map(|object| object.len() as f64),
    };
    measured.is_none_or(|measured| {
        if word.starts_with("min") {
            measured >= bound
        } else {
            measured <= bound
        }
    })
}

/// All schemas that hold for one key of a mapping.
fn schemas_of<'s>(schema: &'s Map<String, Value>, key: &str, otherwise: &'s Value) -> Vec<&'s Value> {
    let mut rules: Vec<&Value> = schema.get("properties").and_then(|p| p.get(key)).into_iter().collect();
    let patterns = schema.get("patternProperties").and_then(Value::as_object);
    for (pattern, rule) in patterns.into_iter().flatten() {
        let ignored = key.starts_with("x-");
        let matches = match pattern.as_str() {
            "^x-" => ignored,
            "^(?!x-)[a-z0-9][a-z0-9._-]{0,62}$" => !ignored && model::id::check_name(key).is_ok(),
            "^(?!x-)[A-Za-z_][A-Za-z0-9_-]{0,62}$" => !ignored,
            other => panic!("the pattern `{other}` is not known"),
        };
        if matches {
            rules.push(rule);
        }
    }
    if rules.is_empty() {
        rules.push(otherwise);
    }
    rules
}

fn is_kind(kind: &str, value: &Value) -> bool {
    match kind {
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("the type `{other}` is not known"),
    }
}

/// What an editor sees of a file.
fn as_json(text: &str) -> Value {
    let mut yaml: serde_yaml::Value = serde_yaml::from_str(text).expect("valid YAML");
    yaml.apply_merge().expect("mappings");
    serde_json::to_value(yaml).expect("string keys")
}

/// Both say yes or both say no.
#[track_caller]
fn check(text: &str, accepted: bool) {
    let schema = pipeline::schema();
    let compiled = pipeline::compile(text)
        .map(|_| ())
        .map_err(|findings| findings.to_string());
    let found = violation(&schema, &schema, &as_json(text), "");
    assert_eq!(compiled.is_ok(), accepted, "{compiled:?}\n{text}");
    assert_eq!(found.is_none(), accepted, "{found:?}\n{text}");
}

fn keys_at(pointer: &str) -> BTreeSet<String> {
    let schema = pipeline::schema();
    let properties = schema.pointer(pointer).and_then(Value::as_object).expect("it exists");
    properties.keys().cloned().collect()
}

/// A value of each key of a step that both must accept.
fn right_values() -> Vec<(&'static str, &'static str)> {
    vec![
        ("name", "b"),
        ("title", "Some text"),
        ("extends", "t"),
        ("needs", "[other]"),
        ("run", "[a, {name: b, run: c}]"),
        ("shell", "bash"),
        ("before", "x"),
        ("after", "[x]"),
        ("working_directory", "sub"),
        ("checkout", "{depth: 3}"),
        ("image", "debian:13"),
        ("user", "1000"),
        ("env", "{A: 1, B: true, C: x}"),
        ("timeout", "5m"),
        ("allow_failure", "true"),
        ("resources", "{cpu: 0.5, memory: 1Gi, disk: 1Gi, pids: 100, shm: 1Mi}"),
        ("labels", "{arch: amd64}"),
        ("retry", "{max: 3, on: [infra, 'exit:75'], backoff: 10s}"),
        ("idempotent", "false"),
        (
            "matrix",
            "{v: ['1', '2'], exclude: [{v: '2'}], fail_fast: true, max_parallel: 1}",
        ),
        ("if", "git.branch == 'main'"),
        ("changes", "[src/, '!src/x']"),
        ("manual", "true"),
        ("concurrency", "{group: g, queue: all, cancel_in_progress: true}"),
        ("priority", "low"),
    ]
}

fn step_with(key: &str, value: &str) -> String {
    let mut step = format!("{{{key}: {value}");
    for (name, usual) in [("name", "a"), ("image", "i"), ("run", "r")] {
        if name != key {
            step.push_str(&format!(", {name}: {usual}"));
        }
    }
    let other = "{name: other, image: i, run: r, needs: []}";
    format!("templates: {{t: {{}}}}\nstages: [{{name: s, steps: [{other}, {step}}}]}}]\n")
}

#[test]
fn every_key_of_the_schema_is_accepted_by_the_compiler_and_no_other() {
    let right = right_values();
    let known: BTreeSet<String> = right.iter().map(|(key, _)| (*key).to_owned()).collect();
    assert_eq!(keys_at("/$defs/step/properties"), known);
    for (key, value) in &right {
        check(&step_with(key, value), true);
    }
    let mut template = known.clone();
    template.remove("name");
    assert_eq!(keys_at("/$defs/template/properties"), template);
    for key in ["cache", "privileged", "script", "uses", "foo", "Name", "stages"] {
        check(&step_with(key, "x"), false);
        check(&step_with("x-any", "{a: [1.90]}"), true);
    }
    let names = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(
        keys_at("/properties"),
        names(&[
            "name",
            "title",
            "include",
            "on",
            "concurrency",
            "env",
            "templates",
            "defaults",
            "stages"
        ])
    );
    assert_eq!(keys_at("/$defs/stage/properties"), names(&["name", "steps"]));
    assert_eq!(keys_at("/$defs/entry/properties"), names(&["name", "run", "if"]));
    assert_eq!(
        keys_at("/$defs/step/properties/checkout/anyOf/0/anyOf/1/properties"),
        names(&["depth"])
    );
    assert_eq!(
        keys_at("/$defs/step/properties/resources/properties"),
        names(&["cpu", "memory", "disk", "pids", "shm"])
    );
    assert_eq!(
        keys_at("/$defs/step/properties/retry/properties"),
        names(&["max", "on", "backoff"])
    );
}

#[test]
fn every_key_has_a_description() {
    fn look(schema: &Value, path: &str) {
        if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
            for (key, below) in properties {
                let about = below.get("description").and_then(Value::as_str).unwrap_or_default();
                assert!(about.len() >= 10 && about.ends_with('.'), "{path}/{key}: {about:?}");
            }
        }
        match schema {
            Value::Object(map) => map
                .iter()
                .for_each(|(key, below)| look(below, &format!("{path}/{key}"))),
            Value::Array(list) => list.iter().for_each(|below| look(below, path)),
            _ => {}
        }
    }
    look(&pipeline::schema(), "");
    assert_eq!(
        pipeline::schema()["$schema"],
        json!("https://json-schema.org/draft/2020-12/schema")
    );
}

#[test]
fn schema_and_compiler_agree_on_steps() {
    let cases = [
        (step_with("needs", "other"), true),
        (step_with("needs", "[]"), true),
        (step_with("needs", "[other, other]"), false),
        (step_with("needs", "{a: b}"), false),
        (step_with("run", "true"), true),
        (step_with("run", "1.5"), false),
        (step_with("run", "[[a]]"), false),
        (step_with("run", "[{name: a}]"), false),
        (step_with("before", "[]"), true),
        (step_with("shell", "zsh"), false),
        (step_with("checkout", "false"), true),
        (step_with("checkout", "{}"), true),
        (step_with("checkout", "{depth: -1}"), false),
        (step_with("checkout", "{lfs: true}"), false),
        (step_with("checkout", "[]"), false),
        (step_with("allow_failure", "yes"), false),
        (step_with("timeout", "30"), false),
        (step_with("resources", "{cpu: 2}"), true),
        (step_with("resources", "{cpu: 500m}"), true),
        (step_with("resources", "{memory: 512}"), false),
        (step_with("resources", "{pids: 1}"), false),
        (step_with("resources", "{gpu: 1}"), false),
        (step_with("labels", "{a: 1.5}"), false),
        (step_with("labels", "[a]"), false),
        (step_with("retry", "{}"), true),
        (step_with("retry", "{on: oom}"), true),
        (step_with("retry", "2"), false),
        (step_with("retry", "{max: 11}"), false),
        (step_with("retry", "{on: []}"), false),
        (step_with("retry", "{on: [oom, oom]}"), false),
        (step_with("retry", "{times: 1}"), false),
        (step_with("idempotent", "maybe"), false),
        (step_with("allow_failure", "\"${{ event == 'push' }}\""), true),
        (step_with("timeout", "\"${{ git.sha }}\""), true),
        (step_with("if", "[a]"), false),
        (step_with("if", "true"), true),
        (step_with("changes", "[]"), false),
        (step_with("matrix", "{}"), false),
        (step_with("matrix", "{a: x}"), false),
        (step_with("matrix", "{include: [{a: x}]}"), true),
        (step_with("concurrency", "g"), true),
        (step_with("concurrency", "{queue: all}"), false),
        (step_with("priority", "critical"), false),
    ];
    for (text, accepted) in cases {
        check(&text, accepted);
    }
}

#[test]
fn schema_and_compiler_agree_on_files() {
    let ok = "stages: [{name: s, steps: [{name: a, image: i, run: r}]}]";
    let rest = format!("\n{ok}\n");
    let cases = [
        (ok.to_owned(), true),
        (
            format!("name: n\ntitle: t\nenv: {{A: b}}\ndefaults: {{timeout: 1m}}\nx-y: 1.90{rest}"),
            true,
        ),
        (format!("x-a: &a {{A: b}}\nenv: {{<<: *a, C: d}}{rest}"), true),
        (
            format!("templates: {{t: {{extends: u}}, u: {{image: i}}, x-v: 1}}{rest}"),
            true,
        ),
        ("name: n".to_owned(), false),
        ("stages: []".to_owned(), false),
        ("stages: [{name: s, steps: []}]".to_owned(), false),
        ("stages: [{steps: [{name: a, image: i, run: r}]}]".to_owned(), false),
        ("stages: [{name: s, steps: [{image: i, run: r}]}]".to_owned(), false),
        (format!("jobs: {{}}{rest}"), false),
        (format!("env: [a]{rest}"), false),
        (format!("env: {{A: 1.5}}{rest}"), false),
        (format!("env: {{A: ~}}{rest}"), false),
        (format!("defaults: {{name: x}}{rest}"), false),
        (format!("title: ''{rest}"), false),
        (format!("on: push{rest}"), true),
        (format!("on: [push, tag]{rest}"), true),
        (format!("on: nothing{rest}"), false),
        (
            format!("on: {{push: {{branches: [main]}}, tag: ~, manual: {{inputs: {{a: {{options: [b]}}}}}}}}{rest}"),
            true,
        ),
        (format!("on: {{push: {{branch: [main]}}}}{rest}"), false),
        (
            format!("on: {{schedule: [{{cron: '0 3 * * *'}}], merge_group: {{}}, pipeline: {{name: a/b}}}}{rest}"),
            true,
        ),
        (format!("on: {{schedule: []}}{rest}"), false),
    ];
    for (text, accepted) in cases {
        check(&text, accepted);
    }
    for kind in pipeline::StarterKind::ALL {
        check(pipeline::starter(kind), true);
    }
}

/// The page in the tree is what `buildflow schema --reference` writes.
#[test]
fn the_reference_in_the_tree_is_current() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/pipeline.md");
    let stored = std::fs::read_to_string(&path).expect("docs/reference/pipeline.md");
    assert!(
        stored == pipeline::reference(),
        "write it anew: buildflow schema --reference > docs/reference/pipeline.md"
    );
}
