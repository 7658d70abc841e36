//! A run as a tree of a few lines, for a terminal; pure.
//!
//! Stages that have ended are one line each, so that what goes on stays in sight; what is still too long
//! for the terminal is counted. Not here: drawing over what was drawn before (`watch`).

use super::runs::status_words;
use super::table::{Colour, Paint, counted, duration, printable};
use api::dto::{RunDetail, StageDetail, StepDetail, StepStatus};
use std::collections::BTreeMap;

/// The fewest lines that a tree is given.
const LINES_MIN: usize = 4;

/// The newest line of each step's log.
pub(super) type Newest = BTreeMap<String, String>;

/// At most `most` lines of the tree.
pub(super) fn lines(paint: Paint, run: &RunDetail, newest: &Newest, now_ms: u64, most: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for stage in &run.stages {
        lines.push(stage_line(paint, stage, now_ms));
        let done = stage.steps.iter().all(|step| happy(step.status));
        if done {
            continue;
        }
        let width = stage.steps.iter().map(|s| s.name.chars().count()).max().unwrap_or(0);
        for step in &stage.steps {
            lines.push(step_line(paint, step, width, now_ms));
            let newest = newest.get(&step.name).filter(|_| step.status == StepStatus::Running);
            if let Some(line) = newest {
                lines.push(format!("      {}", paint.text(Colour::Grey, line)));
            }
        }
    }
    let most = most.max(LINES_MIN);
    if lines.len() > most {
        let left = counted(lines.len() - (most - 1), "more line");
        lines.truncate(most - 1);
        lines.push(paint.text(Colour::Grey, &format!("  … {left}; `buildflow show` has them all")));
    }
    lines
}

fn happy(status: StepStatus) -> bool {
    matches!(status, StepStatus::Success | StepStatus::Skipped)
}

fn sign(paint: Paint, status: StepStatus) -> String {
    let sign = match status {
        StepStatus::Pending => "·",
        StepStatus::Queued => "…",
        StepStatus::Assigned | StepStatus::Running => "▶",
        StepStatus::Success => "✓",
        StepStatus::Failed | StepStatus::TimedOut => "✗",
        StepStatus::Cancelled => "■",
        StepStatus::Skipped => "-",
    };
    paint.text(Colour::of_step(status), sign)
}

/// Where a stage stands: as the worst, else the busiest of its steps.
fn stage_status(stage: &StageDetail) -> StepStatus {
    let any = |wanted: &[StepStatus]| stage.steps.iter().map(|s| s.status).find(|s| wanted.contains(s));
    any(&[StepStatus::Failed, StepStatus::TimedOut])
        .or_else(|| any(&[StepStatus::Cancelled]))
        .or_else(|| any(&[StepStatus::Running, StepStatus::Assigned]))
        .or_else(|| any(&[StepStatus::Queued]))
        .or_else(|| any(&[StepStatus::Pending]))
        .or_else(|| any(&[StepStatus::Success]))
        .unwrap_or(StepStatus::Skipped)
}

fn stage_line(paint: Paint, stage: &StageDetail, now_ms: u64) -> String {
    let ended = stage.steps.iter().filter(|s| s.status.is_terminal()).count();
    let all = stage.steps.len();
    let count = if ended == all {
        counted(all, "step")
    } else {
        format!("{ended} of {}", counted(all, "step"))
    };
    let began = stage.steps.iter().filter_map(|s| s.times.started_ms).min();
    let until = if ended == all {
        stage.steps.iter().filter_map(|s| s.times.ended_ms).max()
    } else {
        Some(now_ms)
    };
    let time = began.zip(until).map(|(from, to)| duration(to.saturating_sub(from)));
    let name = paint.text(Colour::Bold, &printable(&stage.name));
    let sign = sign(paint, stage_status(stage));
    format!("{sign} {name}  {count}  {}", time.unwrap_or_default())
        .trim_end()
        .to_owned()
}

fn step_line(paint: Paint, step: &StepDetail, width: usize, now_ms: u64) -> String {
    let name = printable(&step.name);
    let from = step.times.started_ms;
    let to = step.times.ended_ms.unwrap_or(now_ms);
    let time = from.map_or_else(String::new, |from| duration(to.saturating_sub(from)));
    let words = match step.status {
        StepStatus::Success => String::new(),
        _ => status_words(step),
    };
    let attempt = if step.attempt > 1 {
        format!("attempt {}", step.attempt)
    } else {
        String::new()
    };
    let reason = step.reason.as_deref().filter(|_| !happy(step.status)).map(printable);
    let parts = [time, words, attempt, reason.unwrap_or_default()];
    let parts: Vec<&str> = parts.iter().map(String::as_str).filter(|p| !p.is_empty()).collect();
    let sign = sign(paint, step.status);
    format!("  {sign} {name:width$}  {}", parts.join("  "))
        .trim_end()
        .to_owned()
}

/// What of a log's line can be shown beside others: nothing that steers the terminal.
pub(super) fn calm(line: &str) -> String {
    let mut text = String::new();
    let mut rest = line.trim_end_matches(['\r', '\n']);
    // Whatever a progress bar has drawn over is gone.
    if let Some((_, last)) = rest.rsplit_once('\r') {
        rest = last;
    }
    let mut chars = rest.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\x1b' => skip_escape(&mut chars),
            '\t' => text.push(' '),
            c => text.push(c),
        }
    }
    printable(text.trim())
}

/// Skips the rest of an escape sequence: a CSI up to its final letter, anything else one character.
fn skip_escape(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    if chars.next() != Some('[') {
        return;
    }
    // Up to its final letter.
    chars.find(|c| ('@'..='~').contains(c));
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn step(
        name: &str,
        status: &str,
        from: Option<u64>,
        to: Option<u64>,
        more: &serde_json::Value,
    ) -> serde_json::Value {
        let mut step = json!({
            "name": name, "title": null, "ordinal": 0, "status": status, "attempt": 1, "node": null,
            "node_name": null, "reason": null, "exit_code": null, "outcome": null, "needs": [],
            "allow_failure": false, "image": "", "timeout_ms": 1,
            "resources": { "cpu_millis": 1, "memory_bytes": 1, "disk_bytes": 1 }, "phases": [], "use": null,
            "times": { "queued_ms": null, "assigned_ms": null, "started_ms": from, "ended_ms": to },
            "log_bytes": null, "retry_at_ms": null, "manual": false, "outputs": {}, "summary": null,
            "attempts": []
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            step[key] = value.clone();
        }
        step
    }

    fn run(stages: &serde_json::Value) -> RunDetail {
        let text = json!({
            "run_id": "r", "number": 1, "team": "default", "pipeline": "app", "status": "running",
            "event": "push", "ref": "refs/heads/main", "branch": "main", "tag": null, "commit": "c",
            "message": "", "author": "", "created_ms": 0, "started_ms": null, "ended_ms": null, "error": null,
            "requested_by": "", "steps": 4, "web_url": "", "title": null, "attempt": 1, "repository": "", "variables": {},
            "findings": [], "cancel_requested": false, "request_id": "", "stages": stages
        });
        serde_json::from_value(text).expect("a run")
    }

    fn example() -> RunDetail {
        run(&json!([
            { "name": "build", "steps": [step("compile", "success", Some(1_000), Some(3_500), &json!({}))] },
            { "name": "test", "steps": [
                step("unit", "running", Some(4_000), None, &json!({"attempt": 2})),
                step("lint", "failed", Some(4_000), Some(4_200), &json!({"reason": "the script ended with exit code 1"})),
            ] },
            { "name": "ship", "steps": [step("publish", "pending", None, None, &json!({}))] }
        ]))
    }

    #[test]
    fn ended_stages_are_one_line_and_what_runs_shows_its_newest_line() {
        let newest = Newest::from([("unit".to_owned(), "test 12 of 40".to_owned())]);
        let shown = lines(Paint::Plain, &example(), &newest, 6_000, 50);
        assert_eq!(
            shown,
            [
                "✓ build  1 step  2.5s",
                "✗ test  1 of 2 steps  2.0s",
                "  ▶ unit  2.0s  running  attempt 2",
                "      test 12 of 40",
                "  ✗ lint  200ms  failed  the script ended with exit code 1",
                "· ship  0 of 1 step",
                "  · publish  pending",
            ]
        );
    }

    #[test]
    fn a_low_terminal_counts_what_it_leaves_out() {
        let shown = lines(Paint::Plain, &example(), &Newest::new(), 6_000, 4);
        assert_eq!(shown.len(), 4);
        assert!(shown[3].contains("3 more lines"), "{shown:?}");
    }

    #[test]
    fn lines_of_logs_steer_nothing() {
        for (line, expected) in [
            ("plain\n", "plain"),
            ("\x1b[31mred\x1b[0m and\ttab", "red and tab"),
            ("10 %\r50 %\r100 %\r\n", "100 %"),
            ("\x1b]0;title\x07x", "0;title\u{fffd}x"),
            ("\x1b", ""),
            ("a\u{202e}b", "a\u{fffd}b"),
        ] {
            assert_eq!(calm(line), expected, "{line:?}");
        }
    }
}
