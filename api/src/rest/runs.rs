//! Runs: lists, one run with its steps, cancelling.
//!
//! Not here: making runs (`trigger`, `push`), following them (`events`).

use super::query::{Asking, Parameters, PathParts, no_pipeline, no_run, short};
use super::show::{detail, look_at, summary};
use crate::clock::now_ms;
use crate::dto::{CancelAccepted, RunDetail, RunList, RunStatus, RunSummary};
use crate::limit::{READ_BACK_TIMEOUT, SCAN_MAX};
use crate::problem::{Answer, Problem};
use crate::state::{Server, Shared};
use crate::view::{Picture, RunEntry};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use model::{Request, RequestKind, RunId, key};
use std::ops::Bound;
use store::{Commit, Expect, Txn};

/// What a list shows.
struct Filter {
    status: Option<RunStatus>,
    branch: Option<String>,
    limit: usize,
}

impl Filter {
    fn of(parameters: &Parameters) -> Answer<Self> {
        let status = match parameters.get("status") {
            None => None,
            Some(word) => Some(RunStatus::parse(word).ok_or_else(|| {
                let words: Vec<&str> = RunStatus::ALL.iter().map(|s| s.as_str()).collect();
                Problem::bad_field("status", format!("must be one of: {}", words.join(", ")))
            })?),
        };
        Ok(Self {
            status,
            branch: parameters.get("branch").map(str::to_owned),
            limit: parameters.limit()?,
        })
    }

    fn takes(&self, entry: &RunEntry) -> bool {
        let Some(header) = entry.header().filter(|_| entry.is_whole()) else {
            return false;
        };
        let status_fits = self.status.is_none_or(|s| s == entry.status().into());
        let branch_fits = self.branch.as_deref().is_none_or(|b| header.source.branch() == Some(b));
        status_fits && branch_fits
    }

    /// The page of what `runs` yields, newest first. Looks at [`SCAN_MAX`] runs at most.
    fn page<'a>(&self, server: &Server, runs: impl Iterator<Item = (String, &'a RunEntry)>) -> RunList {
        let mut page: Vec<RunSummary> = Vec::new();
        let mut last = None;
        for (seen, (cursor, entry)) in runs.enumerate() {
            if page.len() >= self.limit || seen >= SCAN_MAX {
                return RunList {
                    runs: page,
                    next_cursor: last,
                };
            }
            if let Some(header) = entry.header().filter(|_| self.takes(entry)) {
                page.push(summary(server, header, entry));
            }
            last = Some(cursor);
        }
        RunList {
            runs: page,
            next_cursor: None,
        }
    }
}

/// Runs of all pipelines, newest first.
#[utoipa::path(
    get, path = "/api/v1/runs", operation_id = "list_runs", tag = "runs",
    params(
        ("status" = Option<String>, Query, description = "Only runs in this status"),
        ("branch" = Option<String>, Query, description = "Only runs of this branch"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
        ("limit" = Option<usize>, Query, description = "1 to 500, 50 unless given")
    ),
    responses((status = 200, body = RunList), (status = 400, body = crate::dto::Problem))
)]
pub(super) async fn list(State(server): State<Shared>, parameters: Parameters) -> Answer<Json<RunList>> {
    let parameters = parameters.only(&["status", "branch", "cursor", "limit"])?;
    let filter = Filter::of(&parameters)?;
    let before = match parameters.get("cursor") {
        None => Bound::Unbounded,
        Some(cursor) => {
            let id = cursor.strip_prefix("r-").and_then(|id| RunId::new(id).ok());
            Bound::Excluded(id.ok_or_else(bad_cursor)?)
        }
    };
    let list = server.view.read(|picture| {
        let runs = picture.runs().range((Bound::Unbounded, before)).rev();
        filter.page(&server, runs.map(|(id, entry)| (format!("r-{id}"), entry)))
    });
    Ok(Json(list))
}

/// Runs of one pipeline, newest first.
#[utoipa::path(
    get, path = "/api/v1/pipelines/{team}/{pipeline}/runs", operation_id = "list_pipeline_runs", tag = "runs",
    params(
        ("team" = String, Path), ("pipeline" = String, Path),
        ("status" = Option<String>, Query, description = "Only runs in this status"),
        ("branch" = Option<String>, Query, description = "Only runs of this branch"),
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
    let (team, name) = parts.pipeline()?;
    let parameters = parameters.only(&["status", "branch", "cursor", "limit"])?;
    let filter = Filter::of(&parameters)?;
    let before = match parameters.get("cursor") {
        None => Bound::Unbounded,
        Some(cursor) => {
            let number = cursor.strip_prefix("n-").and_then(|n| n.parse::<u64>().ok());
            Bound::Excluded(number.ok_or_else(bad_cursor)?)
        }
    };
    let list = server.view.read(|picture| {
        let Some(numbers) = picture.numbers(&team, &name) else {
            let known = picture.pipeline(&team, &name).is_some();
            return known.then(|| RunList {
                runs: Vec::new(),
                next_cursor: None,
            });
        };
        let runs = numbers.range((Bound::Unbounded, before)).rev();
        let entries = runs.filter_map(|(n, id)| Some((format!("n-{n}"), picture.runs().get(id)?)));
        Some(filter.page(&server, entries))
    });
    list.map(Json).ok_or_else(|| no_pipeline(team.as_str(), name.as_str()))
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
    let look = look_at(&server, &parts.run_id()?)?;
    Ok(Json(detail(&server, look).await?))
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
    let by_number = |picture: &Picture| picture.numbers(&team, &name)?.get(&text.parse().ok()?).cloned();
    let run = match server.view.read(by_number) {
        Some(run) => run,
        None if text.parse::<u64>().is_ok() => return Err(no_run(&format!("{team}/{name}#{text}"))),
        None => parts.run_id()?,
    };
    let look = look_at(&server, &run)?;
    if look.summary.team != team.as_str() || look.summary.pipeline != name.as_str() {
        return Err(no_run(text));
    }
    Ok(Json(detail(&server, look).await?))
}

/// Asks for the end of a run. It takes a moment: follow its events, or read it again.
#[utoipa::path(
    post, path = "/api/v1/runs/{run_id}/cancel", operation_id = "cancel_run", tag = "runs",
    params(("run_id" = String, Path)),
    responses((status = 202, body = CancelAccepted), (status = 200, body = CancelAccepted,
        description = "It was cancelled already"), (status = 404, body = crate::dto::Problem),
        (status = 409, body = crate::dto::Problem, description = "It has ended"))
)]
pub(super) async fn cancel(
    State(server): State<Shared>,
    parts: PathParts,
    asking: Asking,
) -> Answer<(StatusCode, Json<CancelAccepted>)> {
    let run = parts.run_id()?;
    let mut look = look_at(&server, &run)?;
    if look.header.is_none() {
        server.view.wait_for_run(&run, READ_BACK_TIMEOUT).await;
        look = look_at(&server, &run)?;
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
        RunStatus::Cancelled => return Ok((StatusCode::OK, Json(answer(status, "the run was cancelled already")))),
        RunStatus::Success | RunStatus::Failed | RunStatus::TimedOut => {
            let word = status.as_str();
            return Err(Problem::conflict(format!(
                "the run has ended ({word}); nothing is left to cancel"
            )));
        }
        RunStatus::Queued | RunStatus::Running => {}
    }
    ask_to_cancel(&server, &run, asking).await?;
    let message = "the run's steps are being ended";
    Ok((StatusCode::ACCEPTED, Json(answer(status, message))))
}

/// One request for each run, however often it is asked for.
async fn ask_to_cancel(server: &Server, run: &RunId, asking: Asking) -> Answer<()> {
    let request = Request {
        what: RequestKind::Cancel { run: run.clone() },
        requested_by: asking.by,
        created_ms: now_ms(),
        request_id: asking.request_id,
    };
    let key = key::request(&format!("cancel-{run}"));
    let txn = Txn::new()
        .expect(&key, Expect::Absent)
        .expect(key::run(run), Expect::Present)
        .put(&key, &request);
    match server.store().commit(txn).await? {
        Commit::Applied(revision) => {
            tracing::info!(run_id = %run, by = request.requested_by, "run asked to be cancelled");
            server.view.wait_for(revision, READ_BACK_TIMEOUT).await;
            Ok(())
        }
        Commit::Refused { found: Some(_), .. } => Ok(()),
        Commit::Refused { found: None, .. } => Err(no_run(&short(run.as_str()))),
    }
}
