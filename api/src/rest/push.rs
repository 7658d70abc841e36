//! `POST /events/push`: an internal service, e.g. a `post-receive` hook, tells of a push.
//!
//! Every pipeline of the repository gets a run. The commit is not looked up before the answer: what
//! is wrong with it becomes a visible failed run. Not here: webhooks of forges.

use super::body::Json as Body;
use super::query::Asking;
use super::show::{Awaited, awaited};
use super::trigger::check_text;
use crate::dto::{PushAccepted, PushEvent, PushedRun};
use crate::intake::{Accepted, Asked, Trigger, accept, fingerprint};
use crate::limit::PUSH_WAIT;
use crate::problem::{Answer, Problem};
use crate::state::{Server, Shared};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use futures::future::join_all;
use model::{Event, PipelineRecord};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Tells of a push.
#[utoipa::path(
    post, path = "/api/v1/events/push", operation_id = "push_event", tag = "events",
    params(("Idempotency-Key" = Option<String>, Header, description = "The same key leads to the same runs for a day")),
    request_body = PushEvent,
    responses(
        (status = 201, body = PushAccepted, description = "Runs were made"),
        (status = 200, body = PushAccepted, description = "The runs were there already, or the event starts nothing"),
        (status = 202, body = PushAccepted, description = "Accepted; pipeline files are still being fetched"),
        (status = 400, body = crate::dto::Problem),
        (status = 404, body = crate::dto::Problem, description = "No pipeline builds this repository"),
        (status = 409, body = crate::dto::Problem), (status = 503, body = crate::dto::Problem))
)]
pub(super) async fn push(
    State(server): State<Shared>,
    asking: Asking,
    Body(event): Body<PushEvent>,
) -> Answer<(StatusCode, Json<PushAccepted>)> {
    let commit = check(&event)?;
    let pipelines = server.view.read(|p| p.pipelines_of(&event.repository));
    if pipelines.is_empty() {
        return Err(Problem::not_found(format!(
            "no pipeline builds the repository `{}`; register one with `buildflow pipeline create`",
            event.repository
        )));
    }
    let Some(kind) = kind(&event.git_ref) else {
        return Ok(ignored(format!(
            "`{}` is neither a branch nor a tag: nothing to run",
            event.git_ref
        )));
    };
    if commit.bytes().all(|b| b == b'0') {
        return Ok(ignored(format!("`{}` was deleted: nothing to run", event.git_ref)));
    }
    // All zeros: the ref is new, and what it changed is not known.
    let before = event.before.as_ref().map(|id| id.to_ascii_lowercase());
    let before = before.filter(|id| id.bytes().any(|b| b != b'0'));
    let asked = Asked {
        by: asking.by,
        request_id: asking.request_id,
        traceparent: asking.traceparent,
        key: asking.key,
        fingerprint: fingerprint(&event),
        force: false,
    };
    let begun = pipelines
        .iter()
        .map(|p| begin(&server, p, &event.git_ref, (before.as_deref(), &commit), kind, &asked));
    // Those that were accepted stand even if one is refused: sending the event again completes it.
    let accepted = join_all(begun).await.into_iter().collect::<Answer<Vec<Accepted>>>()?;
    Ok(answer(&server, &pipelines, accepted).await)
}

async fn begin(
    server: &Server,
    pipeline: &PipelineRecord,
    git_ref: &str,
    (before, commit): (Option<&str>, &str),
    event: Event,
    asked: &Asked,
) -> Answer<Accepted> {
    let trigger = Trigger {
        team: pipeline.team.clone(),
        pipeline: pipeline.name.clone(),
        git_ref: git_ref.to_owned(),
        commit: commit.to_owned(),
        event,
        variables: BTreeMap::new(),
        inputs: BTreeMap::new(),
        before: before.map(str::to_owned),
    };
    Ok(accept(server, &trigger, asked).await?)
}

/// Waits a moment for the runs, so that the usual answer names their numbers.
async fn answer(
    server: &Server,
    pipelines: &[Arc<PipelineRecord>],
    accepted: Vec<Accepted>,
) -> (StatusCode, Json<PushAccepted>) {
    let answers = join_all(accepted.iter().map(|a| awaited(server, a, PUSH_WAIT))).await;
    let all_whole = !answers.iter().any(|answer| matches!(answer, Awaited::Pending(_)));
    let any_new = accepted
        .iter()
        .zip(&answers)
        .any(|(a, answer)| a.created && !matches!(answer, Awaited::Nothing));
    let (mut runs, mut without_run) = (Vec::new(), Vec::new());
    for (pipeline, answer) in pipelines.iter().zip(answers) {
        let (team, name) = (pipeline.team.to_string(), pipeline.name.to_string());
        match answer {
            Awaited::Whole(run) | Awaited::Pending(run) => runs.push(PushedRun {
                team,
                pipeline: name,
                run,
            }),
            Awaited::Nothing => without_run.push(format!("{team}/{name}")),
        }
    }
    let message = match (all_whole, any_new) {
        _ if runs.is_empty() => "no pipeline file makes a run of this push",
        (true, true) => "runs were made",
        (false, _) => "accepted; pipeline files are still being fetched",
        (true, false) => "the same push was told before; its runs are these",
    };
    let code = super::trigger::answer_code(all_whole, any_new);
    let body = PushAccepted {
        message: message.to_owned(),
        runs,
        without_run,
    };
    (code, Json(body))
}

fn ignored(message: String) -> (StatusCode, Json<PushAccepted>) {
    (
        StatusCode::OK,
        Json(PushAccepted {
            message,
            runs: Vec::new(),
            without_run: Vec::new(),
        }),
    )
}

fn kind(git_ref: &str) -> Option<Event> {
    if git_ref.starts_with("refs/heads/") {
        Some(Event::Push)
    } else if git_ref.starts_with("refs/tags/") {
        Some(Event::Tag)
    } else {
        None
    }
}

/// Checks the event and answers its commit in small letters.
fn check(event: &PushEvent) -> Answer<String> {
    check_text("repository", &event.repository)?;
    check_text("ref", &event.git_ref)?;
    if !event.git_ref.starts_with("refs/") || event.git_ref.ends_with('/') {
        return Err(Problem::bad_field(
            "ref",
            "must be a full ref, e.g. refs/heads/main or refs/tags/v1.0",
        ));
    }
    let hex = event.commit.chars().all(|c| c.is_ascii_hexdigit());
    if !hex || !matches!(event.commit.len(), 40 | 64) {
        let rule = "must be a full commit id: 40 (or 64) hexadecimal digits";
        return Err(Problem::bad_field("commit", rule));
    }
    if let Some(before) = &event.before
        && !(before.bytes().all(|b| b.is_ascii_hexdigit()) && matches!(before.len(), 40 | 64))
    {
        let rule = "must be a full commit id: 40 (or 64) hexadecimal digits; all zeros for a new ref";
        return Err(Problem::bad_field("before", rule));
    }
    Ok(event.commit.to_ascii_lowercase())
}
