//! Pipelines: registering, listing, removing, and checking a pipeline file.
//!
//! Not here: runs.

use super::body::{self, Json as Body};
use super::conditions::{self, Conditions};
use super::query::{Asking, Parameters, PathParts, no_pipeline};
use super::show::summary;
use super::trigger::check_text;
use crate::clock::now_ms;
use crate::dto::{CreatePipeline, Pipeline, PipelineList, PipelineValidated, PutPipeline, ValidatePipeline};
use crate::intake::{KeptRequest, commit_kept, fingerprint, keep_request, kept_request, new_run_id};
use crate::limit::{READ_BACK_TIMEOUT, VALIDATE_BODY_MAX};
use crate::problem::{Answer, Problem};
use crate::repository::shown;
use crate::state::{Server, Shared};
use crate::validating;
use crate::view::Picture;
use axum::Json;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use model::pipeline::DEFAULT_FILE;
use model::record::Unknown;
use model::{PipelineName, PipelineRecord, TeamName, key};
use std::ops::Bound;
use store::{Commit, Expect, Txn};

/// The team of whoever names none.
const DEFAULT_TEAM: &str = "default";

/// Registered pipelines.
#[utoipa::path(
    get, path = "/api/v1/pipelines", operation_id = "list_pipelines", tag = "pipelines",
    params(
        ("team" = Option<String>, Query, description = "Only pipelines of this team"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
        ("limit" = Option<usize>, Query, description = "1 to 500, 50 unless given")
    ),
    responses((status = 200, body = PipelineList), (status = 400, body = crate::dto::Problem))
)]
pub(super) async fn list(State(server): State<Shared>, parameters: Parameters) -> Answer<Json<PipelineList>> {
    let parameters = parameters.only(&["team", "cursor", "limit"])?;
    let limit = parameters.limit()?;
    let team = parameters.get("team");
    let after = match parameters.get("cursor") {
        None => Bound::Unbounded,
        Some(cursor) => Bound::Excluded(full_name(cursor).ok_or_else(|| {
            Problem::bad_field("cursor", "must be the `next_cursor` of another page of the same list")
        })?),
    };
    let list = server.view.read(|picture| {
        let of_team = |p: &&std::sync::Arc<PipelineRecord>| team.is_none_or(|t| p.team.as_str() == t);
        let mut found = picture
            .pipelines()
            .range((after, Bound::Unbounded))
            .map(|(_, p)| p)
            .filter(of_team);
        let page: Vec<Pipeline> = found.by_ref().take(limit).map(|p| show(&server, picture, p)).collect();
        let last = page.last().map(|p| format!("{}/{}", p.team, p.name));
        let next_cursor = found.next().and(last);
        PipelineList {
            pipelines: page,
            next_cursor,
        }
    });
    Ok(Json(list))
}

fn full_name(text: &str) -> Option<(TeamName, PipelineName)> {
    let (team, name) = text.split_once('/')?;
    Some((TeamName::new(team).ok()?, PipelineName::new(name).ok()?))
}

fn show(server: &Server, picture: &Picture, record: &PipelineRecord) -> Pipeline {
    let newest = picture
        .numbers(&record.team, &record.name)
        .and_then(|n| n.values().next_back());
    let last_run = newest.and_then(|id| {
        let entry = picture.run(id)?;
        Some(summary(server, entry.header()?, entry))
    });
    Pipeline {
        team: record.team.to_string(),
        name: record.name.to_string(),
        repository: shown(&record.repository),
        file: record.file.clone(),
        created_ms: record.created_ms,
        last_run,
    }
}

/// Registers a pipeline.
#[utoipa::path(
    post, path = "/api/v1/pipelines", operation_id = "create_pipeline", tag = "pipelines",
    request_body = CreatePipeline,
    responses((status = 201, body = Pipeline), (status = 200, body = Pipeline,
        description = "Made by the same request before, under the same Idempotency-Key"),
        (status = 400, body = crate::dto::Problem), (status = 409, body = crate::dto::Problem))
)]
pub(super) async fn create(
    State(server): State<Shared>,
    asking: Asking,
    Body(wish): Body<CreatePipeline>,
) -> Answer<(StatusCode, Json<Pipeline>)> {
    let team = wish.team.as_deref().unwrap_or(DEFAULT_TEAM);
    let team = TeamName::new(team).map_err(|e| Problem::bad_field("team", e.to_string()))?;
    let name = PipelineName::new(wish.name).map_err(|e| Problem::bad_field("name", e.to_string()))?;
    let record = check(&server, team, name, wish.repository, wish.file)?;
    let asked_by = (asking.by.as_str(), asking.key.as_deref());
    let print = fingerprint(&(&record.team, &record.name, &record.repository, &record.file));
    if let KeptRequest::Known(_) = kept_request(server.store(), asked_by, &print).await? {
        return made_before(&server, &record);
    }
    let key = key::pipeline(&record.team, &record.name);
    let txn = Txn::new()
        .expect(key::team(&record.team), Expect::Present)
        .expect(&key, Expect::Absent)
        .put(&key, &record);
    let txn = keep_request(&server, txn, asked_by, &print, &new_run_id()).await?;
    match commit_kept(&server, txn).await? {
        Commit::Applied(revision) => {
            tracing::info!(team = %record.team, pipeline = %record.name, by = asking.by, "pipeline registered");
            server.view.wait_for(revision, READ_BACK_TIMEOUT).await;
            let shown = server.view.read(|p| show(&server, p, &record));
            Ok((StatusCode::CREATED, Json(shown)))
        }
        Commit::Refused { found: None, .. } => Err(no_team(&record.team)),
        // The same request under the same key may have been faster.
        Commit::Refused { .. } => match kept_request(server.store(), asked_by, &print).await? {
            KeptRequest::Known(_) => made_before(&server, &record),
            KeptRequest::New => Err(Problem::conflict(format!(
                "there is a pipeline {}/{} already; change it with PUT",
                record.team, record.name
            ))),
        },
    }
}

/// The pipeline that the same request has made.
fn made_before(server: &Server, record: &PipelineRecord) -> Answer<(StatusCode, Json<Pipeline>)> {
    let shown = server.view.read(|picture| {
        let there = picture.pipeline(&record.team, &record.name)?;
        Some(show(server, picture, there))
    });
    match shown {
        Some(shown) => Ok((StatusCode::OK, Json(shown))),
        None => Err(Problem::conflict(
            "this Idempotency-Key has made the pipeline before, and it was removed since; use a new key",
        )),
    }
}

fn no_team(team: &TeamName) -> Problem {
    Problem::bad_field("team", format!("there is no team `{team}`"))
}

/// A registered pipeline.
#[utoipa::path(
    get, path = "/api/v1/pipelines/{team}/{pipeline}", operation_id = "get_pipeline", tag = "pipelines",
    params(("team" = String, Path), ("pipeline" = String, Path)),
    responses((status = 200, body = Pipeline), (status = 404, body = crate::dto::Problem))
)]
pub(super) async fn get(State(server): State<Shared>, parts: PathParts) -> Answer<(Tag, Json<Pipeline>)> {
    let (team, name) = parts.pipeline()?;
    let shown = server.view.read(|picture| {
        let record = picture.pipeline(&team, &name)?;
        Some((tag(record), Json(show(&server, picture, record))))
    });
    shown.ok_or_else(|| no_pipeline(team.as_str(), name.as_str()))
}

/// The header with the state of a pipeline.
type Tag = [(header::HeaderName, String); 1];

fn tag(record: &PipelineRecord) -> Tag {
    [(header::ETAG, format!("\"{}\"", state(record)))]
}

/// Names what can be written of a pipeline, as it is.
fn state(record: &PipelineRecord) -> String {
    let what = (&record.repository, &record.file, record.created_ms);
    conditions::hash(&serde_json::to_vec(&what).expect("texts and numbers always encode"))
}

/// Registers a pipeline or changes it. Runs that are there keep what they were made with.
#[utoipa::path(
    put, path = "/api/v1/pipelines/{team}/{pipeline}", operation_id = "put_pipeline", tag = "pipelines",
    params(("team" = String, Path), ("pipeline" = String, Path),
        ("If-Match" = Option<String>, Header, description = "Only if it is as it was with this `ETag`; `*`: only if it is there"),
        ("If-None-Match" = Option<String>, Header, description = "`*`: only if it is not there")),
    request_body = PutPipeline,
    responses((status = 201, body = Pipeline), (status = 200, body = Pipeline),
        (status = 400, body = crate::dto::Problem),
        (status = 409, body = crate::dto::Problem, description = "Somebody else changed it at the same moment"),
        (status = 412, body = crate::dto::Problem, description = "It is not as `If-Match` or `If-None-Match` says"))
)]
pub(super) async fn put(
    State(server): State<Shared>,
    parts: PathParts,
    asking: Asking,
    conditions: Conditions,
    Body(wish): Body<PutPipeline>,
) -> Answer<(StatusCode, Tag, Json<Pipeline>)> {
    let (team, name) = parts.new_pipeline()?;
    let mut record = check(&server, team, name, wish.repository, wish.file)?;
    let key = key::pipeline(&record.team, &record.name);
    let there = server.store().get(&key).await?;
    let code = match &there {
        None => {
            conditions.check(None)?;
            StatusCode::CREATED
        }
        Some(entry) => {
            let old: PipelineRecord = entry.decode().map_err(|_| Problem::internal())?;
            conditions.check(Some(&state(&old)))?;
            record.created_ms = old.created_ms;
            record.unknown = old.unknown;
            StatusCode::OK
        }
    };
    let txn = Txn::new()
        .expect(&key, there.map_or(Expect::Absent, |e| Expect::Revision(e.mod_revision)))
        .expect(key::team(&record.team), Expect::Present)
        .put(&key, &record);
    match server.store().commit(txn).await? {
        Commit::Applied(revision) => {
            tracing::info!(team = %record.team, pipeline = %record.name, by = asking.by, "pipeline changed");
            server.view.wait_for(revision, READ_BACK_TIMEOUT).await;
            let shown = server.view.read(|p| show(&server, p, &record));
            Ok((code, tag(&record), Json(shown)))
        }
        Commit::Refused { guard, .. } if guard.key == key::team(&record.team) => Err(no_team(&record.team)),
        Commit::Refused { .. } => Err(Problem::conflict(
            "somebody else changed the pipeline at the same moment; try again",
        )),
    }
}

/// Removes a pipeline. Its runs stay, and go on.
#[utoipa::path(
    delete, path = "/api/v1/pipelines/{team}/{pipeline}", operation_id = "delete_pipeline", tag = "pipelines",
    params(("team" = String, Path), ("pipeline" = String, Path),
        ("If-Match" = Option<String>, Header, description = "Only if it is as it was with this `ETag`")),
    responses((status = 204), (status = 404, body = crate::dto::Problem),
        (status = 409, body = crate::dto::Problem, description = "Somebody else changed it at the same moment"),
        (status = 412, body = crate::dto::Problem, description = "It is not as `If-Match` says"))
)]
pub(super) async fn delete(
    State(server): State<Shared>,
    parts: PathParts,
    asking: Asking,
    conditions: Conditions,
) -> Answer<StatusCode> {
    let (team, name) = parts.pipeline()?;
    let key = key::pipeline(&team, &name);
    let absent = || no_pipeline(team.as_str(), name.as_str());
    let there = server.store().get(&key).await?.ok_or_else(absent)?;
    let record: PipelineRecord = there.decode().map_err(|_| Problem::internal())?;
    conditions.check(Some(&state(&record)))?;
    let txn = Txn::new()
        .expect(&key, Expect::Revision(there.mod_revision))
        .delete(&key);
    match server.store().commit(txn).await? {
        Commit::Applied(revision) => {
            tracing::info!(%team, pipeline = %name, by = asking.by, "pipeline removed");
            server.view.wait_for(revision, READ_BACK_TIMEOUT).await;
            Ok(StatusCode::NO_CONTENT)
        }
        Commit::Refused { found: None, .. } => Err(absent()),
        Commit::Refused { found: Some(_), .. } => Err(Problem::conflict(
            "somebody else changed the pipeline at the same moment; try again",
        )),
    }
}

fn check(
    server: &Server,
    team: TeamName,
    name: PipelineName,
    repository: String,
    file: Option<String>,
) -> Answer<PipelineRecord> {
    check_text("repository", &repository)?;
    let legal = server.deps.sources.check_address(&repository);
    legal.map_err(|e| Problem::bad_field("repository", e.to_string()))?;
    let file = file.unwrap_or_else(|| DEFAULT_FILE.to_owned());
    check_text("file", &file)?;
    let inside = |part: &str| !matches!(part, "" | "." | ".." | ".git");
    if !file.split('/').all(inside) {
        let rule = "must be a path inside the repository, e.g. .buildflow.yml or .buildflow/release.yml";
        return Err(Problem::bad_field("file", rule));
    }
    Ok(PipelineRecord {
        team,
        name,
        repository,
        file,
        created_ms: now_ms(),
        unknown: Unknown::new(),
    })
}

/// Checks a pipeline file without registering anything.
#[utoipa::path(
    post, path = "/api/v1/pipelines/validate", operation_id = "validate_pipeline", tag = "pipelines",
    request_body(content(
        (ValidatePipeline = "application/json"), (String = "application/yaml"), (String = "text/plain"))),
    responses((status = 200, body = PipelineValidated), (status = 400, body = crate::dto::Problem),
        (status = 413, body = crate::dto::Problem), (status = 415, body = crate::dto::Problem))
)]
pub(super) async fn validate(request: Request) -> Answer<Json<PipelineValidated>> {
    let kind = body::media_type(&request);
    let plain = [
        "application/yaml",
        "application/x-yaml",
        "text/yaml",
        "text/x-yaml",
        "text/plain",
    ];
    let asked = if body::is_json(&kind) {
        let bytes = body::bytes(request, VALIDATE_BODY_MAX).await?;
        Asked::As(Box::new(body::parse::<ValidatePipeline>(&bytes)?))
    } else if plain.contains(&kind.as_str()) {
        Asked::File(body::bytes(request, VALIDATE_BODY_MAX).await?.to_vec())
    } else {
        return Err(Problem::unsupported_media_type(
            &kind,
            "application/json (or application/yaml)",
        ));
    };
    // Away from the threads that serve requests: a hostile file may take a while.
    let validated = tokio::task::spawn_blocking(move || match asked {
        Asked::As(asked) => validating::validated(&asked),
        Asked::File(bytes) => {
            let alone = |_: &pipeline::FileRef| Err("it was not handed over with the pipeline file".to_owned());
            let compiled = validating::compiled(&bytes, pipeline::Files::new(), None, pipeline::Explain::No, alone);
            validating::shown(&compiled)
        }
    });
    let validated = validated.await.map_err(|crash| {
        tracing::error!(error = %crash, "compiler crashed on a pipeline file");
        Problem::internal()
    })?;
    Ok(Json(validated))
}

/// What a request to check a file holds.
enum Asked {
    /// The file alone; it may not be UTF-8.
    File(Vec<u8>),
    As(Box<ValidatePipeline>),
}
