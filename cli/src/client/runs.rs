//! `runs`, `show`, `cancel`, `explain`.

use super::arguments::{RunName, RunsArguments};
use super::failure::{Exit, Failure};
use super::http::{Api, Parameter};
use super::output::Output;
use super::resolve;
use super::table::{Cell, Colour, Paint, ago, cores, counted, duration, fields, now_ms, printable, size, table};
use api::dto::{
    AttemptDetail, CancelAccepted, RunDetail, RunList, RunSummary, StartAccepted, StepDetail, StepExplained,
};
use serde_json::{Value, json};

/// The most steps that `explain` explains at once.
const EXPLAINED_MAX: usize = 20;

/// The length of a shown commit id.
const COMMIT_SHOWN: usize = 10;

pub(super) async fn list(api: &Api, arguments: RunsArguments, output: &mut Output) -> Result<Exit, Failure> {
    let (runs, raw, more) = pages(api, &arguments).await?;
    if output.is_json() {
        output.json(&json!({ "runs": raw, "next_cursor": more }))?;
        return Ok(Exit::Success);
    }
    if runs.is_empty() {
        output.talk.say("no runs; `buildflow run` starts one");
        return Ok(Exit::Success);
    }
    let now = now_ms();
    let rows: Vec<Vec<Cell>> = runs.iter().map(|r| row(r, now)).collect();
    let heading = ["RUN", "STATUS", "REF", "COMMIT", "STARTED", "TOOK", "ID", "MESSAGE"];
    output.text(&table(output.paint, &heading, &rows))?;
    if more.is_some() {
        output.talk.say("there are more; --limit shows them");
    }
    Ok(Exit::Success)
}

/// Runs up to the wished number, as what they mean and as they came, and where the next page begins.
async fn pages(api: &Api, arguments: &RunsArguments) -> Result<(Vec<RunSummary>, Vec<Value>, Option<String>), Failure> {
    let path: Vec<&str> = match &arguments.pipeline {
        Some(p) => vec!["pipelines", &p.team, &p.name, "runs"],
        None => vec!["runs"],
    };
    let mut filter: Vec<Parameter> = Vec::new();
    filter.extend(arguments.status.map(|s| ("status", s.as_str().to_owned())));
    filter.extend(arguments.branch.clone().map(|b| ("branch", b)));
    let wished = usize::try_from(arguments.limit).unwrap_or(usize::MAX);
    let (mut runs, mut raw, mut cursor) = (Vec::new(), Vec::new(), None::<String>);
    loop {
        let mut query = filter.clone();
        query.push(("limit", (wished - runs.len()).to_string()));
        query.extend(cursor.take().map(|c| ("cursor", c)));
        let page = api.get::<RunList>(&path, &query).await?;
        raw.extend(page.raw["runs"].as_array().cloned().unwrap_or_default());
        runs.extend(page.body.runs);
        cursor = page.body.next_cursor;
        if cursor.is_none() || runs.len() >= wished {
            return Ok((runs, raw, cursor));
        }
    }
}

fn name(run: &RunSummary) -> String {
    let number = run.number.map_or_else(|| "#?".to_owned(), |n| format!("#{n}"));
    format!("{}/{}{number}", run.team, run.pipeline)
}

fn reference(run: &RunSummary) -> &str {
    run.branch.as_deref().or(run.tag.as_deref()).unwrap_or(&run.git_ref)
}

fn took(started_ms: Option<u64>, ended_ms: Option<u64>, now: u64) -> String {
    started_ms.map_or_else(String::new, |s| duration(ended_ms.unwrap_or(now).saturating_sub(s)))
}

fn row(run: &RunSummary, now: u64) -> Vec<Cell> {
    let commit: String = run.commit.chars().take(COMMIT_SHOWN).collect();
    vec![
        name(run).into(),
        Cell::coloured(Colour::of_run(run.status), run.status.as_str()),
        reference(run).into(),
        commit.into(),
        ago(run.created_ms, now).into(),
        took(run.started_ms, run.ended_ms, now).into(),
        run.run_id.as_str().into(),
        run.error.as_deref().unwrap_or(&run.message).into(),
    ]
}

pub(super) async fn show(api: &Api, run: &RunName, output: &mut Output) -> Result<Exit, Failure> {
    let id = resolve::run_id(api, run).await?;
    let run = api.get::<RunDetail>(&["runs", &id], &[]).await?;
    if output.is_json() {
        output.json(&run.raw)?;
    } else {
        let paint = output.paint;
        output.text(&detail(paint, &run.body, now_ms()))?;
    }
    Ok(Exit::Success)
}

/// A run for people.
pub(super) fn detail(paint: Paint, run: &RunDetail, now: u64) -> String {
    let summary = &run.summary;
    let mut status = summary.status.as_str().to_owned();
    if run.cancel_requested && !summary.status.is_terminal() {
        status.push_str(", to be cancelled");
    }
    let variables: Vec<String> = run.variables.iter().map(|(k, v)| format!("{k}={v}")).collect();
    let pairs = [
        ("run", format!("{}  {}", name(summary), summary.run_id)),
        ("title", run.title.clone().unwrap_or_default()),
        ("status", status),
        ("error", summary.error.clone().unwrap_or_default()),
        (
            "cause",
            format!(
                "{} of {} by {}",
                summary.event.as_str(),
                reference(summary),
                summary.requested_by
            ),
        ),
        (
            "commit",
            format!("{} {}", summary.commit, summary.message).trim().to_owned(),
        ),
        ("author", summary.author.clone()),
        ("repository", run.repository.clone()),
        ("variables", variables.join(", ")),
        ("created", ago(summary.created_ms, now)),
        ("took", took(summary.started_ms, summary.ended_ms, now)),
    ];
    let mut text = fields(&pairs);
    for finding in &run.findings {
        text.push_str(&format!("  {}\n", printable(finding)));
    }
    let rows: Vec<Vec<Cell>> = run
        .stages
        .iter()
        .flat_map(|stage| stage.steps.iter().map(|step| step_row(&stage.name, step, now)))
        .collect();
    if !rows.is_empty() {
        text.push('\n');
        text.push_str(&table(
            paint,
            &["STAGE", "STEP", "STATUS", "NODE", "TOOK", "MEMORY", "REASON"],
            &rows,
        ));
    }
    text.push_str(&attempts(paint, run, now));
    text
}

/// Every try of the steps that had several, oldest first.
fn attempts(paint: Paint, run: &RunDetail, now: u64) -> String {
    let steps = run.stages.iter().flat_map(|stage| &stage.steps);
    let tried_again = steps.filter(|step| step.attempts.len() > 1);
    let rows: Vec<Vec<Cell>> = tried_again
        .flat_map(|step| {
            step.attempts
                .iter()
                .map(|attempt| attempt_row(&step.name, attempt, now))
        })
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    let heading = ["STEP", "ATTEMPT", "NODE", "OUTCOME", "TOOK", "REASON"];
    format!("\n{}", table(paint, &heading, &rows))
}

fn attempt_row(step: &str, attempt: &AttemptDetail, now: u64) -> Vec<Cell> {
    let node = attempt.node_name.as_deref().or(attempt.node.as_deref());
    let counted = if attempt.counts { "" } else { " (not counted)" };
    vec![
        step.into(),
        format!("{}{counted}", attempt.attempt).into(),
        node.unwrap_or("").into(),
        attempt.outcome.as_deref().unwrap_or("").into(),
        took(attempt.times.started_ms, attempt.times.ended_ms, now).into(),
        attempt.reason.as_deref().unwrap_or("").into(),
    ]
}

/// A step's status, and whether its failure was allowed.
pub(super) fn status_words(step: &StepDetail) -> String {
    use api::dto::StepStatus::{Failed, TimedOut};
    let allowed = step.allow_failure && matches!(step.status, Failed | TimedOut);
    let suffix = if allowed { ", allowed" } else { "" };
    format!("{}{suffix}", step.status.as_str())
}

fn step_row(stage: &str, step: &StepDetail, now: u64) -> Vec<Cell> {
    let attempt = if step.attempt > 1 {
        format!(" (attempt {})", step.attempt)
    } else {
        String::new()
    };
    let status = format!("{}{attempt}", status_words(step));
    vec![
        stage.into(),
        step.name.as_str().into(),
        Cell::coloured(Colour::of_step(step.status), &status),
        step.node_name.as_deref().or(step.node.as_deref()).unwrap_or("").into(),
        took(step.times.started_ms, step.times.ended_ms, now).into(),
        step.usage
            .map_or_else(String::new, |u| size(u.memory_peak_bytes))
            .into(),
        step.reason.as_deref().unwrap_or("").into(),
    ]
}

/// How a followed run has ended, in a few lines.
pub(super) fn summary(run: &RunDetail) -> String {
    let summary = &run.summary;
    let time = took(summary.started_ms, summary.ended_ms, now_ms());
    let time = if time.is_empty() {
        time
    } else {
        format!(" after {time}")
    };
    let mut text = format!("{}: {}{time}", name(summary), summary.status.as_str());
    if let Some(error) = &summary.error {
        text.push_str(&format!(": {error}"));
    }
    for finding in &run.findings {
        text.push_str(&format!("\n  {finding}"));
    }
    let steps = run.stages.iter().flat_map(|s| &s.steps);
    let unhappy = |s: &&StepDetail| !matches!(s.status, api::dto::StepStatus::Success);
    for step in steps.filter(unhappy) {
        let reason = step.reason.as_ref().map(|r| format!(": {r}")).unwrap_or_default();
        text.push_str(&format!("\n  {} {}{reason}", step.name, status_words(step)));
    }
    text
}

pub(super) async fn cancel(api: &Api, run: &RunName, output: &mut Output) -> Result<Exit, Failure> {
    let id = resolve::run_id(api, run).await?;
    let accepted = api
        .post::<CancelAccepted>(&["runs", &id, "cancel"], None::<&()>)
        .await?;
    if output.is_json() {
        output.json(&accepted.raw)?;
    } else {
        output.line(&printable(&accepted.body.message))?;
    }
    Ok(Exit::Success)
}

pub(super) async fn start(api: &Api, run: &RunName, step: &str, output: &mut Output) -> Result<Exit, Failure> {
    let id = resolve::run_id(api, run).await?;
    let accepted = api
        .post::<StartAccepted>(&["runs", &id, "steps", step, "start"], None::<&()>)
        .await?;
    if output.is_json() {
        output.json(&accepted.raw)?;
    } else {
        output.line(&printable(&accepted.body.message))?;
    }
    Ok(Exit::Success)
}

pub(super) async fn explain(
    api: &Api,
    run: &RunName,
    step: Option<&str>,
    output: &mut Output,
) -> Result<Exit, Failure> {
    let id = resolve::run_id(api, run).await?;
    if let Some(step) = step {
        let one = api
            .get::<StepExplained>(&["runs", &id, "steps", step, "explain"], &[])
            .await?;
        if output.is_json() {
            output.json(&one.raw)?;
        } else {
            output.text(&explanation(output.paint, &one.body))?;
        }
        return Ok(Exit::Success);
    }
    let run = api.get::<RunDetail>(&["runs", &id], &[]).await?.body;
    let steps = run.stages.iter().flat_map(|s| &s.steps);
    let waiting: Vec<&str> = steps
        .filter(|s| !s.status.is_terminal() || run.summary.status.is_terminal())
        .map(|s| s.name.as_str())
        .collect();
    let mut all = Vec::new();
    for step in waiting.iter().take(EXPLAINED_MAX) {
        let one = api
            .get::<StepExplained>(&["runs", &id, "steps", step, "explain"], &[])
            .await?;
        if output.is_json() {
            all.push(one.raw);
        } else {
            output.text(&explanation(output.paint, &one.body))?;
        }
    }
    if output.is_json() {
        output.json(&json!({ "steps": all }))?;
    }
    if waiting.len() > EXPLAINED_MAX {
        let left = counted(waiting.len() - EXPLAINED_MAX, "more step");
        output.talk.say(&format!("{left}; name one to have it explained"));
    } else if waiting.is_empty() {
        output.talk.say(
            run.summary
                .error
                .as_deref()
                .unwrap_or("the run has no steps to explain"),
        );
    }
    Ok(Exit::Success)
}

/// Why a step is where it is.
fn explanation(paint: Paint, step: &StepExplained) -> String {
    let status = paint.text(Colour::of_step(step.status), step.status.as_str());
    let mut text = format!("{} ({status}): {}\n", printable(&step.step), printable(&step.summary));
    let asks = format!(
        "{} CPU, {} memory, {} disk",
        cores(step.resources.cpu_millis),
        size(step.resources.memory_bytes),
        size(step.resources.disk_bytes)
    );
    let labels: Vec<String> = step.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
    let pairs = [
        ("  asks for", asks),
        ("  labels", labels.join(", ")),
        ("  waits for", step.waits_for.join(", ")),
        ("  placement", step.placement.clone().unwrap_or_default()),
    ];
    text.push_str(&fields(&pairs));
    let rows: Vec<Vec<Cell>> = step
        .nodes
        .iter()
        .map(|n| {
            let (colour, word) = if n.feasible {
                (Colour::Green, "yes")
            } else {
                (Colour::Red, "no")
            };
            let score = n.score.map(|s| s.to_string()).unwrap_or_default();
            vec![
                n.name.as_str().into(),
                Cell::coloured(colour, word),
                score.into(),
                n.reason.as_str().into(),
            ]
        })
        .collect();
    if !rows.is_empty() {
        text.push_str(&table(paint, &["NODE", "COULD RUN IT", "SCORE", "REASON"], &rows));
    }
    text
}
