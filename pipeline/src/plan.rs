//! The plan of a run as a tree for people: what `validate` prints.
//!
//! Not here: what has happened to the steps, and any width of a terminal.

use crate::value::{cpu_text, duration_text, size_text};
use model::{Retry, RunDef, StepDef};
use std::fmt::Write as _;

/// The most names of needs on a line.
const NEEDS_SHOWN: usize = 8;

/// Stages and steps as a tree, one line each, ending with a line break:
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
pub fn plan_tree(def: &RunDef) -> String {
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
        let mut steps = def.steps.iter().filter(|step| step.stage == number).peekable();
        while let Some(step) = steps.next() {
            let branch = if steps.peek().is_none() { "└─" } else { "├─" };
            write_line(&mut out, &format!("{below}{branch} {}", step_line(def, step)));
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

fn step_line(def: &RunDef, step: &StepDef) -> String {
    let asks = format!(
        "cpu {}, memory {}, timeout {}",
        cpu_text(step.resources.cpu_millis),
        size_text(step.resources.memory_bytes),
        duration_text(step.timeout_ms)
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
    if step.allow_failure {
        parts.push("may fail".to_owned());
    }
    if step.retry != Retry::default() {
        parts.push(retry_text(&step.retry));
    }
    if !step.idempotent {
        parts.push("never started twice".to_owned());
    }
    parts.join("  ")
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
