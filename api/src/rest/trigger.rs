//! `POST …/runs`: a person or a program asks for a run.
//!
//! The branch, tag or commit is looked up before the answer, so that a mistake is told at once.
//! Not here: how the trigger becomes a run (`intake`).

use super::body::Json as Body;
use super::query::{Asking, PathParts, no_pipeline};
use super::show::{Awaited, awaited};
use crate::dto::{CreateRun, RunCreated};
use crate::intake::{Accepted, Asked, Trigger, accept, fingerprint, known_by_key, wrong_inputs};
use crate::limit::{
    INPUTS_BYTES_MAX, INPUTS_MAX, RUN_WAIT, TEXT_MAX, VARIABLE_VALUE_MAX, VARIABLES_BYTES_MAX, VARIABLES_MAX,
};
use crate::problem::{Answer, Problem};
use crate::state::{Server, Shared};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use git_mirror::{GitError, RefSpec, Resolved};
use model::{Event, PipelineName, PipelineRecord, TeamName};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Starts a run.
#[utoipa::path(
    post, path = "/api/v1/pipelines/{team}/{pipeline}/runs", operation_id = "create_run", tag = "runs",
    params(("team" = String, Path), ("pipeline" = String, Path),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key leads to the same run for a day")),
    request_body = CreateRun,
    responses(
        (status = 201, body = RunCreated, description = "Made by this request"),
        (status = 200, body = RunCreated, description = "Made by the same request before"),
        (status = 202, body = RunCreated, description = "Accepted; its pipeline file is still being fetched"),
        (status = 400, body = crate::dto::Problem), (status = 404, body = crate::dto::Problem),
        (status = 409, body = crate::dto::Problem), (status = 413, body = crate::dto::Problem),
        (status = 415, body = crate::dto::Problem), (status = 503, body = crate::dto::Problem))
)]
pub(super) async fn create(
    State(server): State<Shared>,
    parts: PathParts,
    asking: Asking,
    Body(wish): Body<CreateRun>,
) -> Answer<(StatusCode, Json<RunCreated>)> {
    let (code, run) = submit(&server, parts.pipeline()?, wish, asking).await?;
    Ok((code, Json(run)))
}

/// Starts a run, or answers the one that the same wish has led to before.
///
/// # Errors
/// 400, 404, 409, 503.
pub(crate) async fn submit(
    server: &Server,
    (team, name): (TeamName, PipelineName),
    wish: CreateRun,
    asking: Asking,
) -> Answer<(StatusCode, RunCreated)> {
    let found = server.view.read(|p| p.pipeline(&team, &name).cloned());
    let pipeline = found.ok_or_else(|| no_pipeline(team.as_str(), name.as_str()))?;
    check(&wish)?;
    let asked = Asked {
        by: asking.by,
        request_id: asking.request_id,
        traceparent: asking.traceparent,
        key: asking.key,
        fingerprint: fingerprint(&wish),
        force: wish.force,
    };
    let known = known_by_key(server.store(), &asked, &team, &name).await?;
    let accepted = match known {
        Some(run) => Accepted { run, created: false },
        None => begin(server, &pipeline, wish, &asked).await?,
    };
    match awaited(server, &accepted, RUN_WAIT).await {
        Awaited::Whole(answer) => Ok((answer_code(true, accepted.created), answer)),
        Awaited::Pending(answer) => Ok((answer_code(false, accepted.created), answer)),
        // A person can always start a run; the same trigger may have come from elsewhere before.
        Awaited::Nothing => Err(Problem::bad_request(
            "the pipeline file makes no run of this event".to_owned(),
        )),
    }
}

/// 201 for a new run, 200 for one that was there, 202 for one whose file is still being fetched.
pub(super) fn answer_code(whole: bool, created: bool) -> StatusCode {
    match (whole, created) {
        (false, true) => StatusCode::ACCEPTED,
        (true, true) => StatusCode::CREATED,
        (_, false) => StatusCode::OK,
    }
}

async fn begin(server: &Server, pipeline: &Arc<PipelineRecord>, wish: CreateRun, asked: &Asked) -> Answer<Accepted> {
    let resolved = resolve(server, &pipeline.repository, &wish).await?;
    let trigger = Trigger {
        team: pipeline.team.clone(),
        pipeline: pipeline.name.clone(),
        git_ref: resolved.git_ref,
        commit: resolved.commit,
        event: Event::Manual,
        variables: wish.variables,
        inputs: wish.inputs.unwrap_or_default(),
        before: None,
    };
    if !trigger.inputs.is_empty() {
        let wrong = wrong_inputs(server, pipeline, &trigger).await;
        if !wrong.is_empty() {
            return Err(Problem::bad_field("inputs", wrong.join("; ")));
        }
    }
    Ok(accept(server, &trigger, asked).await?)
}

async fn resolve(server: &Server, repository: &str, wish: &CreateRun) -> Answer<Resolved> {
    let sources = server.deps.sources.as_ref();
    let named = match (&wish.branch, &wish.tag) {
        (Some(branch), _) => Some(RefSpec::Branch(branch.clone())),
        (None, Some(tag)) => Some(RefSpec::Tag(tag.clone())),
        (None, None) if wish.commit_sha.is_none() => Some(RefSpec::DefaultBranch),
        (None, None) => None,
    };
    let of_ref = match &named {
        Some(named) => Some(
            sources
                .resolve(repository, named)
                .await
                .map_err(|e| unresolved(e, wish))?,
        ),
        None => None,
    };
    let Some(commit) = &wish.commit_sha else {
        return of_ref.ok_or_else(Problem::internal);
    };
    let mut resolved = sources
        .resolve(repository, &RefSpec::Commit(commit.to_ascii_lowercase()))
        .await
        .map_err(|e| unresolved(e, wish))?;
    if let Some(of_ref) = of_ref {
        resolved.git_ref = of_ref.git_ref;
    }
    Ok(resolved)
}

/// What cannot be looked up in the repository, as an answer.
fn unresolved(error: GitError, wish: &CreateRun) -> Problem {
    let ref_field = if wish.tag.is_some() { "tag" } else { "branch" };
    match &error {
        GitError::IllegalRef { .. } | GitError::NoSuchRef { .. } => Problem::bad_field(ref_field, error.to_string()),
        GitError::IllegalCommit { .. } | GitError::NoSuchCommit { .. } => {
            Problem::bad_field("commit_sha", error.to_string())
        }
        GitError::TimedOut { .. } => Problem::unavailable(error.to_string()),
        // The pipeline names an address that cannot be used: for the caller to mend.
        GitError::IllegalAddress(_) | GitError::Unreachable { .. } => Problem::bad_request(error.to_string()),
        _ => {
            tracing::error!(%error, "repository cannot be read");
            Problem::unavailable("this server cannot read repositories at the moment; its log has the cause")
        }
    }
}

fn check(wish: &CreateRun) -> Answer<()> {
    if wish.branch.is_some() && wish.tag.is_some() {
        return Err(Problem::bad_field("tag", "name a branch or a tag, not both"));
    }
    check_inputs(wish.inputs.as_ref())?;
    let texts = [
        ("branch", &wish.branch),
        ("tag", &wish.tag),
        ("commit_sha", &wish.commit_sha),
    ];
    for (field, text) in texts {
        if let Some(text) = text {
            check_text(field, text)?;
        }
    }
    check_variables(&wish.variables)
}

/// A text that is not empty, not too long, and free of control characters.
pub(super) fn check_text(field: &str, text: &str) -> Answer<()> {
    if text.is_empty() || text.len() > TEXT_MAX || text.chars().any(char::is_control) {
        let rule = format!("must have 1 to {TEXT_MAX} bytes and no control characters");
        return Err(Problem::bad_field(field, rule));
    }
    Ok(())
}

/// What can be said of inputs before the pipeline file is read.
fn check_inputs(inputs: Option<&BTreeMap<String, serde_json::Value>>) -> Answer<()> {
    let inputs = inputs.into_iter().flatten();
    let bytes: usize = inputs
        .clone()
        .map(|(name, value)| name.len() + value.to_string().len())
        .sum();
    if inputs.count() > INPUTS_MAX || bytes > INPUTS_BYTES_MAX {
        let rule = format!("at most {INPUTS_MAX} inputs of together {INPUTS_BYTES_MAX} bytes");
        return Err(Problem::bad_field("inputs", rule));
    }
    Ok(())
}

fn check_variables(variables: &BTreeMap<String, String>) -> Answer<()> {
    if variables.len() > VARIABLES_MAX {
        let found = variables.len();
        return Err(Problem::bad_field(
            "variables",
            format!("holds {found} variables; at most {VARIABLES_MAX}"),
        ));
    }
    for (name, value) in variables {
        let field = format!("variables.{}", name.chars().take(80).collect::<String>());
        let head_ok = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        let tail_ok = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !head_ok || !tail_ok || name.len() > 128 {
            let rule = "a variable's name must match [A-Za-z_][A-Za-z0-9_]* and have 128 characters at most";
            return Err(Problem::bad_field(&field, rule));
        }
        if name.starts_with("BUILDFLOW_") || name == "BUILDFLOW" || name == "CI" {
            return Err(Problem::bad_field(
                &field,
                "is set by BuildFlow itself; choose another name",
            ));
        }
        if value.len() > VARIABLE_VALUE_MAX || value.contains('\0') {
            let rule = format!("must have {VARIABLE_VALUE_MAX} bytes at most and no NUL");
            return Err(Problem::bad_field(&field, rule));
        }
    }
    let bytes: usize = variables.iter().map(|(n, v)| n.len() + v.len()).sum();
    if bytes > VARIABLES_BYTES_MAX {
        let rule = format!("names and values together have {bytes} bytes; at most {VARIABLES_BYTES_MAX}");
        return Err(Problem::bad_field("variables", rule));
    }
    Ok(())
}
