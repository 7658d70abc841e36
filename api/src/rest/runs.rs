//! Runs: lists, one run with its steps, cancelling.
//!
//! Not here: making runs (`trigger`, `push`), following them (`events`).

use super::listing::{Filter, PARAMETERS, Part};
use super::query::{Asking, Parameters, PathParts, no_pipeline, no_run, short};
use super::show::{detail, find};
use crate::archive::ArchiveError;
use crate::clock::now_ms;
use crate::dto::{CancelAccepted, RunDetail, RunList, RunStatus};
use crate::intake::{KeptRequest, commit_kept, fingerprint, keep_request, kept_request};
use crate::limit::{READ_BACK_TIMEOUT, SCAN_MAX};
use crate::problem::{Answer, Problem};
use crate::state::{Server, Shared};
use api_core::archive::cancel_request;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use model::{ArchivedRun, PipelineName, Request, RequestKind, RunId, TeamName, key};
use std::collections::BTreeMap;
use std::ops::Bound;
use store::history::{RunFilter, RunOrder};
use store::{Commit, Expect, Txn};

/// Runs of all pipelines, newest first.
#[utoipa::path(
    get, path = "/api/v1/runs", operation_id = "list_runs", tag = "runs",
    params(
        ("status" = Option<String>, Query, description = "Only runs in this status"),
        ("branch" = Option<String>, Query, description = "Only runs of this branch"),
        ("commit" = Option<String>, Query, description = "Only runs of this commit, the full id"),
        ("person" = Option<String>, Query, description = "Only runs whose author's name, or the name of the token that asked for them, holds this text"),
        ("since" = Option<u64>, Query, description = "Only runs triggered at this time or later, ms of the Unix epoch"),
        ("until" = Option<u64>, Query, description = "Only runs triggered before this time, ms of the Unix epoch"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
        ("limit" = Option<usize>, Query, description = "1 to 500, 50 unless given")
    ),
    responses((status = 200, body = RunList), (status = 400, body = crate::dto::Problem))
)]
pub(super) async fn list(State(server): State<Shared>, parameters: Parameters) -> Answer<Json<RunList>> {
    page(&server, parameters).await.map(Json)
}

/// A page of the runs of all pipelines.
///
/// # Errors
/// 400.
pub(crate) async fn page(server: &Server, parameters: Parameters) -> Answer<RunList> {
    let parameters = parameters.only(&PARAMETERS)?;
    let filter = Filter::of(&parameters)?;
    let before = match parameters.get("cursor") {
        None => Bound::Unbounded,
        Some(cursor) => {
            let id = cursor.strip_prefix("r-").and_then(|id| RunId::new(id).ok());
            Bound::Excluded(id.ok_or_else(bad_cursor)?)
        }
    };
    let part = server.view.read(|picture| {
        let range = (Bound::Unbounded, before.clone());
        let live = picture.runs().range(range.clone()).rev();
        let waiting = picture.outbox().range(range).rev();
        let waiting = waiting.map(|(id, (_, run))| (id.clone(), &**run));
        Part::of_picture(server, &filter, live.map(|(id, e)| (id.clone(), e)), waiting)
    });
    let order = RunOrder::Id {
        before: excluded(before),
    };
    let place = |run: &ArchivedRun| run.summary.id.clone();
    let everywhere = RunFilter::default();
    let list = part.with_history(server, &filter, &everywhere, order, place, |id| format!("r-{id}"));
    Ok(list.await)
}

fn excluded<K>(before: Bound<K>) -> Option<K> {
    match before {
        Bound::Excluded(key) => Some(key),
        Bound::Included(_) | Bound::Unbounded => None,
    }
}

/// Runs of one pipeline, newest first.
#[utoipa::path(
    get, path = "/api/v1/pipelines/{team}/{pipeline}/runs", operation_id = "list_pipeline_runs", tag = "runs",
    params(
        ("team" = String, Path), ("pipeline" = String, Path),
        ("status" = Option<String>, Query, description = "Only runs in this status"),
        ("branch" = Option<String>, Query, description = "Only runs of this branch"),
        ("commit" = Option<String>, Query, description = "Only runs of this commit, the full id"),
        ("person" = Option<String>, Query, description = "Only runs whose author's name, or the name of the token that asked for them, holds this text"),
        ("since" = Option<u64>, Query, description = "Only runs triggered at this time or later, ms of the Unix epoch"),
        ("until" = Option<u64>, Query, description = "Only runs triggered before this time, ms of the Unix epoch"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
        ("limit" = Option<usize>, Query, description = "1 to 500, 50 unless given")
    ),
    responses((status = 200, body = RunList), (status = 400, body = crate::dto::Problem),
        (status = 404, body = crate::dto::Problem))
)]
pub(super) async fn list_of_pipeline(
    State(server): State<Shared>,
    parts: PathParts,
    parameters: Parameters,
) -> Answer<Json<RunList>> {
    page_of_pipeline(&server, parts.pipeline()?, parameters).await.map(Json)
}

/// A page of the runs of one pipeline.
///
/// # Errors
/// 400, 404.
pub(crate) async fn page_of_pipeline(
    server: &Server,
    (team, name): (TeamName, PipelineName),
    parameters: Parameters,
) -> Answer<RunList> {
    let parameters = parameters.only(&PARAMETERS)?;
    let filter = Filter::of(&parameters)?;
    let before = match parameters.get("cursor") {
        None => Bound::Unbounded,
        Some(cursor) => {
            let number = cursor.strip_prefix("n-").and_then(|n| n.parse::<u64>().ok());
            Bound::Excluded(number.ok_or_else(bad_cursor)?)
        }
    };
    let (known, part) = server.view.read(|picture| {
        let range = (Bound::Unbounded, before);
        let numbers = |of: Option<&'_ BTreeMap<u64, RunId>>| -> Vec<(u64, RunId)> {
            let newest = of.into_iter().flat_map(|n| n.range(range).rev());
            newest.take(SCAN_MAX).map(|(n, id)| (*n, id.clone())).collect()
        };
        let (live, waiting) = (picture.numbers(&team, &name), picture.outbox_numbers(&team, &name));
        let known = live.is_some() || waiting.is_some() || picture.pipeline(&team, &name).is_some();
        let (live, waiting) = (numbers(live), numbers(waiting));
        let live = live.iter().filter_map(|(n, id)| Some((*n, picture.runs().get(id)?)));
        let waiting = waiting
            .iter()
            .filter_map(|(n, id)| Some((*n, &*picture.outbox().get(id)?.1)));
        (known, Part::of_picture(server, &filter, live, waiting))
    });
    let order = RunOrder::Number {
        before: excluded(before),
    };
    let place = |run: &ArchivedRun| run.summary.number;
    let scope = RunFilter {
        team: Some(team.clone()),
        pipeline: Some(name.clone()),
        ..RunFilter::default()
    };
    let list = part.with_history(server, &filter, &scope, order, place, |n| format!("n-{n}"));
    let list = list.await;
    // Of a pipeline that was deleted the finished runs are still there.
    if known || !list.runs.is_empty() || list.warning.is_some() {
        return Ok(list);
    }
    match server.archives.history().count_runs(&scope).await {
        Ok(0) => Err(no_pipeline(team.as_str(), name.as_str())),
        Ok(_) => Ok(list),
        Err(error) => Err(ArchiveError::History(error).into()),
    }
}

fn bad_cursor() -> Problem {
    Problem::bad_field("cursor", "must be the `next_cursor` of another page of the same list")
}

/// A run with all its steps.
#[utoipa::path(
    get, path = "/api/v1/runs/{run_id}", operation_id = "get_run", tag = "runs",
    params(("run_id" = String, Path)),
    responses((status = 200, body = RunDetail), (status = 404, body = crate::dto::Problem))
)]
pub(super) async fn get(State(server): State<Shared>, parts: PathParts) -> Answer<Json<RunDetail>> {
    one(&server, &parts.run_id()?).await.map(Json)
}

/// A run with all its steps.
///
/// # Errors
/// 404.
pub(crate) async fn one(server: &Server, run: &RunId) -> Answer<RunDetail> {
    let look = find(server, run).await?;
    detail(server, look).await
}

/// A run with all its steps, by its id or its number in the pipeline.
#[utoipa::path(
    get, path = "/api/v1/pipelines/{team}/{pipeline}/runs/{run_id}", operation_id = "get_pipeline_run", tag = "runs",
    params(("team" = String, Path), ("pipeline" = String, Path),
        ("run_id" = String, Path, description = "The run's id or number")),
    responses((status = 200, body = RunDetail), (status = 404, body = crate::dto::Problem))
)]
pub(super) async fn get_of_pipeline(State(server): State<Shared>, parts: PathParts) -> Answer<Json<RunDetail>> {
    let (team, name) = parts.pipeline()?;
    let text = parts.text("run_id");
    let run = match text.parse::<u64>() {
        Ok(number) => numbered(&server, &team, &name, number).await?,
        Err(_) => parts.run_id()?,
    };
    let look = find(&server, &run).await?;
    if look.summary.team != team.as_str() || look.summary.pipeline != name.as_str() {
        return Err(no_run(text));
    }
    Ok(Json(detail(&server, look).await?))
}

/// The run with this number in the pipeline, wherever it is.
async fn numbered(server: &Server, team: &TeamName, name: &PipelineName, number: u64) -> Answer<RunId> {
    let here = server.view.read(|picture| {
        let live = picture.numbers(team, name).and_then(|n| n.get(&number));
        let waiting = || picture.outbox_numbers(team, name).and_then(|n| n.get(&number));
        live.or_else(waiting).cloned()
    });
    if let Some(run) = here {
        return Ok(run);
    }
    let found = server.archives.history().find_run(team, name, number).await;
    let found = found.map_err(ArchiveError::History)?;
    let run = found.ok_or_else(|| no_run(&format!("{team}/{name}#{number}")))?;
    Ok(run.summary.id)
}

/// Asks for the end of a run. It takes a moment: follow its events, or read it again.
#[utoipa::path(
    post, path = "/api/v1/runs/{run_id}/cancel", operation_id = "cancel_run", tag = "runs",
    params(("run_id" = String, Path)),
    responses((status = 202, body = CancelAccepted, description = "It is being cancelled"), (status = 200, body = CancelAccepted,
        description = "It was cancelled already"), (status = 404, body = crate::dto::Problem),
        (status = 409, body = crate::dto::Problem, description = "It has ended"))
)]
pub(super) async fn cancel(
    State(server): State<Shared>,
    parts: PathParts,
    asking: Asking,
) -> Answer<(StatusCode, Json<CancelAccepted>)> {
    let (code, accepted) = end_run(&server, parts.run_id()?, asking).await?;
    Ok((code, Json(accepted)))
}

/// Asks for the end of a run; 200 when it was cancelled already.
///
/// # Errors
/// 404, 409 when it has ended otherwise, 503.
pub(crate) async fn end_run(server: &Server, run: RunId, asking: Asking) -> Answer<(StatusCode, CancelAccepted)> {
    let print = fingerprint(&("cancel", &run));
    let asked_by = (asking.by.as_str(), asking.key.as_deref());
    let known = kept_request(server.store(), asked_by, &print).await?;
    let mut look = find(server, &run).await?;
    if look.header.is_none() {
        server.view.wait_for_run(&run, READ_BACK_TIMEOUT).await;
        look = find(server, &run).await?;
    }
    if look.header.is_none() {
        return Err(Problem::unavailable(
            "the run's pipeline file is still being fetched; try again in a moment",
        ));
    }
    let status = look.summary.status;
    let answer = |status, message: &str| CancelAccepted {
        run_id: run.to_string(),
        status,
        message: message.to_owned(),
    };
    match status {
        _ if matches!(known, KeptRequest::Known(_)) => {
            return Ok((StatusCode::ACCEPTED, answer(status, "this request was made before")));
        }
        RunStatus::Cancelled => return Ok((StatusCode::OK, answer(status, "the run was cancelled already"))),
        RunStatus::Success | RunStatus::Failed | RunStatus::TimedOut => {
            let word = status.as_str();
            return Err(Problem::conflict(format!(
                "the run has ended ({word}); nothing is left to cancel"
            )));
        }
        RunStatus::Queued | RunStatus::Running => {}
    }
    ask_to_cancel(server, &run, &print, asking).await?;
    let message = "the run's steps are being ended";
    Ok((StatusCode::ACCEPTED, answer(status, message)))
}

/// One request for each run, however often it is asked for.
async fn ask_to_cancel(server: &Server, run: &RunId, print: &str, asking: Asking) -> Answer<()> {
    let request = Request {
        what: RequestKind::Cancel { run: run.clone() },
        requested_by: asking.by.clone(),
        created_ms: now_ms(),
        request_id: asking.request_id,
    };
    let key = key::request(&cancel_request(run));
    let txn = Txn::new()
        .expect(&key, Expect::Absent)
        .expect(key::run(run), Expect::Present)
        .put(&key, &request);
    let txn = keep_request(server, txn, (&asking.by, asking.key.as_deref()), print, run).await?;
    match commit_kept(server, txn).await? {
        Commit::Applied(revision) => {
            tracing::info!(run_id = %run, by = request.requested_by, "run asked to be cancelled");
            server.view.wait_for(revision, READ_BACK_TIMEOUT).await;
            Ok(())
        }
        Commit::Refused { found: Some(_), .. } => Ok(()),
        Commit::Refused { found: None, .. } => Err(no_run(&short(run.as_str()))),
    }
}
