//! The plan of a run as a tree for people: what `validate` prints.
//!
//! Not here: what has happened to the steps, and any width of a terminal.

use crate::syntax::shown;
use crate::value::{cpu_text, duration_text, size_text};
use model::{Retry, RunDef, StepDef, StepRules};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// The most names of needs on a line.
const NEEDS_SHOWN: usize = 8;

/// Stages and steps as a tree, one line each, ending with a line break; `open` are, for each step,
/// the keys whose value depends on what the run is made for ([`crate::Compiled::open`]):
///
/// ```text
/// backend: The service (3 steps in 2 stages)
/// ├─ build
/// │  └─ compile  rust:1.95  cpu 2, memory 2Gi, timeout 30m
/// └─ test
///    ├─ unit  rust:1.95  cpu 1, memory 1Gi, timeout 30m  needs compile
///    └─ lint  rust:1.95  cpu 1, memory 1Gi, timeout 30m  needs compile  may fail
/// ```
#[must_use]
pub fn plan_tree(def: &RunDef, open: &[BTreeMap<&'static str, String>]) -> String {
    let none = BTreeMap::new();
    let mut out = String::new();
    let name = def.name.as_deref().unwrap_or("pipeline");
    let title = def
        .title
        .as_deref()
        .map(|title| format!(": {title}"))
        .unwrap_or_default();
    let size = format!(
        "{} in {}",
        counted(def.steps.len(), "step"),
        counted(def.stages.len(), "stage")
    );
    write_line(&mut out, &format!("{name}{title} ({size})"));
    for (number, stage) in def.stages.iter().enumerate() {
        let last_stage = number + 1 == def.stages.len();
        let (branch, below) = if last_stage {
            ("└─", "   ")
        } else {
            ("├─", "│  ")
        };
        write_line(&mut out, &format!("{branch} {}", stage.name));
        let steps = def.steps.iter().enumerate();
        let mut steps = steps.filter(|(_, step)| step.stage == number).peekable();
        while let Some((ordinal, step)) = steps.next() {
            let branch = if steps.peek().is_none() { "└─" } else { "├─" };
            let open = open.get(ordinal).unwrap_or(&none);
            write_line(&mut out, &format!("{below}{branch} {}", step_line(def, step, open)));
        }
    }
    out
}

fn write_line(out: &mut String, line: &str) {
    writeln!(out, "{line}").expect("a String takes every write");
}

fn counted(count: usize, noun: &str) -> String {
    if count == 1 {
        format!("1 {noun}")
    } else {
        format!("{count} {noun}s")
    }
}

/// `open` are the keys whose value depends on what the run is made for.
fn step_line(def: &RunDef, step: &StepDef, open: &BTreeMap<&'static str, String>) -> String {
    let or_open = |key: &str, made: String| open.get(key).cloned().unwrap_or(made);
    let asks = format!(
        "cpu {}, memory {}, timeout {}",
        or_open("resources.cpu", cpu_text(step.resources.cpu_millis)),
        or_open("resources.memory", size_text(step.resources.memory_bytes)),
        or_open("timeout", duration_text(step.timeout_ms))
    );
    let mut parts = vec![step.name.to_string(), step.image.clone(), asks];
    if !step.labels.is_empty() {
        let labels: Vec<String> = step
            .labels
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        parts.push(format!("on {}", labels.join(",")));
    }
    if !step.needs.is_empty() {
        parts.push(format!("needs {}", needs_text(def, step)));
    }
    parts.extend(rules_text(&step.rules));
    match open.get("allow_failure") {
        Some(text) => parts.push(format!("may fail if {text}")),
        None if step.allow_failure => parts.push("may fail".to_owned()),
        None => {}
    }
    if step.retry != Retry::default() {
        parts.push(retry_text(&step.retry));
    }
    if !step.idempotent {
        parts.push("never started twice".to_owned());
    }
    parts.join("  ")
}

fn rules_text(rules: &StepRules) -> Vec<String> {
    let mut parts = Vec::new();
    match &rules.condition {
        Some(condition) if condition.expression == "false" => parts.push(format!("skipped: {}", condition.skipped)),
        Some(condition) => parts.push(format!("if {}", shown(&condition.expression))),
        None => {}
    }
    if rules.manual {
        parts.push("manual".to_owned());
    }
    if let Some(group) = &rules.concurrency {
        parts.push(format!("one at a time in {}", shown(&group.group)));
    }
    if let Some(priority) = rules.priority {
        parts.push(format!("priority {}", priority.as_str()));
    }
    parts
}

fn retry_text(retry: &Retry) -> String {
    if retry.max == 0 {
        return "no retries".to_owned();
    }
    let ends: Vec<String> = retry.on.iter().map(|end| String::from(*end)).collect();
    let retries = match retry.max {
        1 => "1 retry".to_owned(),
        max => format!("{max} retries"),
    };
    format!("{retries} on {}", ends.join(", "))
}

/// The names of the needs, or "all of STAGE" when they are just that.
fn needs_text(def: &RunDef, step: &StepDef) -> String {
    let stage_of = |need: &usize| def.steps.get(*need).map(|s| s.stage);
    let first = step.needs.first().and_then(stage_of);
    if step.needs.len() > 1
        && let Some(stage) = first
        && step.needs.iter().all(|need| stage_of(need) == first)
        && def.steps.iter().filter(|s| s.stage == stage).count() == step.needs.len()
        && let Some(stage) = def.stages.get(stage)
    {
        return format!("all of {}", stage.name);
    }
    let names: Vec<&str> = step
        .needs
        .iter()
        .filter_map(|need| def.steps.get(*need))
        .map(|s| s.name.as_str())
        .collect();
    let more = names.len().saturating_sub(NEEDS_SHOWN);
    let shown = names[..names.len() - more].join(", ");
    if more > 0 {
        format!("{shown} and {more} more")
    } else {
        shown
    }
}
