//! `POST …/steps/{step}/start`: a person starts a step that waits for one.
//!
//! Not here: when a step is offered (`pipeline::progress`), and the leader who starts it.

use super::query::{Asking, PathParts, no_run, short};
use super::show::{RunLook, definition, find};
use crate::clock::now_ms;
use crate::dto::StartAccepted;
use crate::intake::{KeptRequest, commit_kept, fingerprint, keep_request, kept_request};
use crate::limit::READ_BACK_TIMEOUT;
use crate::problem::{Answer, Problem};
use crate::state::{Server, Shared};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use model::{Request, RequestKind, RunDef, RunId, key};
use pipeline::progress::Progress;
use store::{Commit, Expect, Txn};

/// Starts a step that waits for a person.
#[utoipa::path(
    post, path = "/api/v1/runs/{run_id}/steps/{step}/start", operation_id = "start_step", tag = "runs",
    params(("run_id" = String, Path), ("step" = String, Path, description = "The step's name")),
    responses((status = 202, body = StartAccepted, description = "The step is being started"),
        (status = 404, body = crate::dto::Problem),
        (status = 409, body = crate::dto::Problem, description = "The step does not wait for a person"),
        (status = 503, body = crate::dto::Problem))
)]
pub(super) async fn start(
    State(server): State<Shared>,
    parts: PathParts,
    asking: Asking,
) -> Answer<(StatusCode, Json<StartAccepted>)> {
    let run = parts.run_id()?;
    let look = find(&server, &run).await?;
    let no_steps = || Problem::not_found("the run has no steps yet; try again in a moment");
    let def = definition(&server, &look).await?.ok_or_else(no_steps)?;
    let name = parts.text("step").to_owned();
    let print = fingerprint(&("start", &run, &name));
    let asked_by = (asking.by.as_str(), asking.key.as_deref());
    if let KeptRequest::Known(_) = kept_request(server.store(), asked_by, &print).await? {
        return Ok(accepted(&run, name));
    }
    check(&look, &def, &run, &name)?;
    let request = Request {
        what: RequestKind::Start {
            run: run.clone(),
            step: name.clone(),
        },
        requested_by: asking.by.clone(),
        created_ms: now_ms(),
        request_id: asking.request_id.clone(),
    };
    let key = key::request(&format!("start-{run}-{name}"));
    let txn = Txn::new()
        .expect(&key, Expect::Absent)
        .expect(key::run(&run), Expect::Present)
        .put(&key, &request);
    let txn = keep_request(&server, txn, asked_by, &print, &run).await?;
    ask(&server, &run, &name, &request.requested_by, txn).await?;
    Ok(accepted(&run, name))
}

fn accepted(run: &RunId, step: String) -> (StatusCode, Json<StartAccepted>) {
    let answer = StartAccepted {
        run_id: run.to_string(),
        step,
        message: "the step is being started".to_owned(),
    };
    (StatusCode::ACCEPTED, Json(answer))
}

fn check(look: &RunLook, def: &RunDef, run: &RunId, name: &str) -> Answer<()> {
    let ordinal = def.step_index(name).ok_or_else(|| {
        Problem::not_found(format!(
            "the run has no step `{}`; `buildflow show {run}` lists them",
            short(name)
        ))
    })?;
    if !def.steps[ordinal].rules.manual {
        return Err(Problem::conflict(format!(
            "the step `{name}` starts by itself: it is not `manual`"
        )));
    }
    let offered = look
        .header()
        .is_some_and(|header| Progress::of(header, def, look.records()).offered().contains(&ordinal));
    if offered {
        return Ok(());
    }
    let status = look.statuses(def)[ordinal];
    Err(Problem::conflict(format!(
        "the step `{name}` is {} and does not wait for a person",
        status.as_str()
    )))
}

/// One request for each step, however often it is asked for.
async fn ask(server: &Server, run: &RunId, step: &str, by: &str, txn: Txn) -> Answer<()> {
    match commit_kept(server, txn).await? {
        Commit::Applied(revision) => {
            tracing::info!(run_id = %run, step, by, "step asked to be started");
            server.view.wait_for(revision, READ_BACK_TIMEOUT).await;
            Ok(())
        }
        Commit::Refused { found: Some(_), .. } => Ok(()),
        Commit::Refused { found: None, .. } => Err(no_run(&short(run.as_str()))),
    }
}
