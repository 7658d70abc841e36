//! `GET …/explain`: why a step is where it is, or why it is nowhere yet.
//!
//! Not here: the scheduler's reasons, which it gives itself ([`crate::explain::Explain`]).

use super::query::{PathParts, short};
use super::show::{RunLook, definition, find};
use crate::dto::{StepExplained, StepStatus};
use crate::explain::Waiting;
use crate::problem::{Answer, Problem};
use crate::state::{Server, Shared};
use axum::Json;
use axum::extract::State;
use model::{RunDef, RunHeader, StepDef, StepRecord};
use pipeline::progress::{Progress, Records};

/// Why a step is where it is, or why not yet.
#[utoipa::path(
    get, path = "/api/v1/runs/{run_id}/steps/{step}/explain", operation_id = "explain_step", tag = "runs",
    params(("run_id" = String, Path), ("step" = String, Path, description = "The step's name")),
    responses((status = 200, body = StepExplained), (status = 404, body = crate::dto::Problem))
)]
pub(super) async fn explain(State(server): State<Shared>, parts: PathParts) -> Answer<Json<StepExplained>> {
    let run = parts.run_id()?;
    let look = find(&server, &run).await?;
    let def = definition(&server, &look).await?.ok_or_else(|| no_steps(&look))?;
    let name = parts.text("step");
    let ordinal = def.step_index(name).ok_or_else(|| {
        Problem::not_found(format!(
            "the run has no step `{}`; `buildflow show {run}` lists them",
            short(name)
        ))
    })?;
    let statuses = look.statuses(&def);
    let status: StepStatus = statuses[ordinal].into();
    let record = look.records().get(&ordinal);
    let waiting = match status {
        StepStatus::Queued => server.deps.explain.explain(&run, ordinal).await,
        _ => None,
    };
    let step = &def.steps[ordinal];
    let rule = look
        .header()
        .and_then(|header| rule(header, &def, look.records(), ordinal));
    let waits_for: Vec<String> = unended(&def, step, &statuses).collect();
    Ok(Json(StepExplained {
        run_id: run.to_string(),
        step: name.to_owned(),
        status,
        summary: rule
            .unwrap_or_else(|| sentence(status, &waits_for, record, waiting.as_ref(), &place_of(&server, record))),
        waits_for,
        resources: step.resources.into(),
        labels: step.labels.clone(),
        placement: record.and_then(|r| r.placement.clone()),
        nodes: waiting.map(|w| w.nodes).unwrap_or_default(),
    }))
}

/// The rule of its own that keeps a step from being queued although its needs have ended.
fn rule(header: &RunHeader, def: &RunDef, records: &Records, ordinal: usize) -> Option<String> {
    let progress = Progress::of(header, def, records);
    if progress.offered().contains(&ordinal) {
        return Some("waits for a person to start it; the run ends without it".to_owned());
    }
    if let Some(skip) = progress.skips().iter().find(|skip| skip.step == ordinal) {
        let end = skip.status.as_str();
        return Some(format!("is about to end as {end}: {}", skip.reason));
    }
    let matrix = def.rules.matrices.get(def.steps.get(ordinal)?.rules.matrix?)?;
    let most = matrix.max_parallel.filter(|_| progress.held().contains(&ordinal))?;
    Some(format!(
        "waits for other cells of `{}`: {most} may run at the same time",
        matrix.step
    ))
}

/// Where a step is, in words: a node that is not connected can neither go on nor be told to stop.
fn place_of(server: &Server, record: Option<&StepRecord>) -> String {
    let Some(node) = record.and_then(|r| r.node.as_ref()) else {
        return "a node".to_owned();
    };
    server.view.read(|picture| {
        let name = picture.nodes().get(node).map_or(node.as_str(), |n| n.name.as_str());
        match picture.session(node) {
            Some(session) if session.connected => format!("node {name}"),
            Some(_) => format!(
                "node {name}, which is not connected: it goes on until its lease ends, or longer if its agent comes back"
            ),
            None => format!("node {name}, whose lease has run out: the step is about to be placed elsewhere"),
        }
    })
}

fn no_steps(look: &RunLook) -> Problem {
    match &look.summary.error {
        Some(error) => Problem::not_found(format!("the run has no steps: {error}")),
        None => Problem::not_found("the run has no steps yet: its pipeline file is being fetched; try again"),
    }
}

fn unended<'a>(
    def: &'a RunDef,
    step: &'a StepDef,
    statuses: &'a [model::StepStatus],
) -> impl Iterator<Item = String> + 'a {
    let open = |n: &&usize| statuses.get(**n).is_some_and(|s| !s.is_terminal());
    step.needs.iter().filter(open).map(|n| def.steps[*n].name.to_string())
}

fn sentence(
    status: StepStatus,
    waits_for: &[String],
    record: Option<&StepRecord>,
    waiting: Option<&Waiting>,
    place: &str,
) -> String {
    let reason = record.and_then(|r| r.reason.as_deref());
    match status {
        StepStatus::Pending if waits_for.is_empty() => "is about to be skipped or queued".to_owned(),
        StepStatus::Pending => format!("waits for {}", waits_for.join(", ")),
        StepStatus::Queued => match waiting {
            Some(waiting) => waiting.summary.clone(),
            None => "waits for a node; the scheduler has not looked at it yet, or another server leads".to_owned(),
        },
        StepStatus::Assigned | StepStatus::Running => format!("is {} on {place}", status.as_str()),
        StepStatus::Success
        | StepStatus::Failed
        | StepStatus::Cancelled
        | StepStatus::TimedOut
        | StepStatus::Skipped => match reason {
            Some(reason) => format!("{}: {reason}", status.as_str()),
            None => format!("has ended: {}", status.as_str()),
        },
    }
}
