//! The routes of logs: downloads as plain text, and streams of server-sent events.
//!
//! Not here: how bytes become events (`frame`), where they come from (`tail`).

use super::cursor::Cursor;
use super::excerpt::{Excerpt, LINES_DEFAULT, MATCHES_DEFAULT, Sizes};
use super::feed::{Picture, StepLog, picture};
use super::hub::{LogError, LogHub};
use super::relay;
use super::search::{NEEDLE_MAX, Needle};
use super::tail::{Abroad, Part, Position, Scope, Tail, download, parts_of};
use crate::clock;
use crate::dto::{LogAnswer, LogMatches};
use crate::fleet::definitions::DefinitionError;
use crate::problem::{Answer, Problem};
use crate::state::Shared;
use api_core::logs::{LogId, fence_of, run_prefix, step_prefix};
use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use futures::{Stream, StreamExt};
use model::{Fence, RunId};
use std::fmt::Display;
use std::str::FromStr;
use std::sync::Arc;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes as handlers;

/// Offset of the first byte of a download.
const OFFSET_HEADER: &str = "x-log-offset";
/// `true` when the log ends with the download's last byte.
const COMPLETE_HEADER: &str = "x-log-complete";
/// `true` when the rest of the log was lost with its node.
const LOST_HEADER: &str = "x-log-lost";
/// Of which attempt the log is.
const ATTEMPT_HEADER: &str = "x-log-attempt";
/// Number of the first line of a download that was asked for by lines.
const LINE_HEADER: &str = "x-log-line";
/// How many lines the log has so far.
const LINES_HEADER: &str = "x-log-lines";
/// Where to search on.
const NEXT_LINE_HEADER: &str = "x-log-next-line";

/// The routes of logs. Whoever mounts them lets administrators in and nobody else.
pub fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(handlers!(step_logs))
        .routes(handlers!(run_logs))
        .route(relay::PATH, axum::routing::get(relay::relayed))
}

/// What a request for logs asks for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wish {
    attempt: Option<u32>,
    offset: Option<u64>,
    follow: Option<bool>,
    line: Option<u64>,
    count: Option<u64>,
    q: Option<String>,
    /// `Accept: text/event-stream`.
    events: bool,
    /// `Accept: application/json`.
    json: bool,
    last_id: Option<String>,
}

impl Wish {
    fn read(uri: &Uri, headers: &HeaderMap) -> Answer<Self> {
        let mut wish = Self::default();
        let unreadable = |_| Problem::bad_request("the parameters after `?` cannot be decoded");
        let pairs = Query::<Vec<(String, String)>>::try_from_uri(uri).map_err(unreadable)?.0;
        for (name, value) in &pairs {
            let (name, value) = (name.as_str(), value.as_str());
            match name {
                "attempt" => wish.attempt = Some(number(name, value, 1)?),
                "offset" => wish.offset = Some(number(name, value, 0)?),
                "follow" => wish.follow = Some(truth(name, value)?),
                "line" => wish.line = Some(number(name, value, 1)?),
                "count" => wish.count = Some(number(name, value, 0)?),
                "q" => wish.q = Some(needle(value)?),
                _ => {
                    let name: String = name.chars().take(40).collect();
                    let known = "is not a parameter of logs; these are: attempt, offset, line, count, q, follow";
                    return Err(Problem::bad_field(&name, known));
                }
            }
        }
        let text = |name: &header::HeaderName| headers.get(name).and_then(|v| v.to_str().ok());
        let accepts = |kind| text(&header::ACCEPT).is_some_and(|v| v.contains(kind));
        wish.events = accepts("text/event-stream");
        wish.json = accepts("application/json");
        wish.last_id = headers
            .get("last-event-id")
            .and_then(|v| v.to_str().ok())
            .map(str::to_owned);
        wish.by_lines_or_bytes()?;
        Ok(wish)
    }

    /// The first parameter that speaks of lines.
    fn of_lines(&self) -> Option<&'static str> {
        let given = [
            ("line", self.line.is_some()),
            ("count", self.count.is_some()),
            ("q", self.q.is_some()),
        ];
        given.iter().find(|(_, is_given)| *is_given).map(|(name, _)| *name)
    }

    fn by_lines_or_bytes(&self) -> Answer<()> {
        let Some(name) = self.of_lines() else { return Ok(()) };
        if self.mode().is_some() {
            let what = "is not for a stream of events, which begins at a byte: use `offset`";
            return Err(Problem::bad_field(name, what));
        }
        if self.offset.is_some() {
            return Err(Problem::bad_field(
                name,
                "counts lines and cannot be together with `offset`, which counts bytes",
            ));
        }
        Ok(())
    }

    /// As events, and if so, going on until the end.
    fn mode(&self) -> Option<bool> {
        match (self.events, self.follow) {
            (_, Some(true)) | (true, None) => Some(true),
            (true, Some(false)) => Some(false),
            (false, Some(false) | None) => None,
        }
    }
}

fn number<N: FromStr + PartialOrd + Display>(name: &str, value: &str, least: N) -> Answer<N> {
    match value.parse::<N>() {
        Ok(n) if n >= least => Ok(n),
        _ => Err(Problem::bad_field(
            name,
            format!("must be a whole number from {least} on"),
        )),
    }
}

fn needle(text: &str) -> Answer<String> {
    if text.is_empty() || text.len() > NEEDLE_MAX {
        return Err(Problem::bad_field("q", format!("must have 1 to {NEEDLE_MAX} bytes")));
    }
    if text.contains(['\n', '\r']) {
        return Err(Problem::bad_field("q", "must be within one line"));
    }
    Ok(text.to_owned())
}

fn truth(name: &str, value: &str) -> Answer<bool> {
    match value {
        "true" | "1" | "" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(Problem::bad_field(name, "must be `true` or `false`")),
    }
}

/// The log of one step.
///
/// As plain text (`text/plain`): the stored bytes and those that were not stored yet, exactly,
/// from `offset` on, with the headers `X-Log-Attempt`, `X-Log-Offset` (of the first byte) and
/// `X-Log-Complete` (`true` when the step has ended and all of its log is there); `X-Log-Lost: true`
/// says that the rest was lost with its node. Of a step that still runs with another server's node
/// the newest second may be missing; `follow` has it.
///
/// With `line` or `count` these lines only, and the headers `X-Log-Line` (number of the first) and
/// `X-Log-Lines` (how many the log has so far). With `q` the lines that hold this text, as
/// `number:line`, from `line` on and at most `count` (100 unless given, 1,000 at most); one request
/// searches a bounded part of the log, `X-Log-Next-Line` says where to go on. `q` is plain text;
/// without a capital letter it is found in capitals too; escape sequences of terminals are passed
/// over. With `Accept: application/json` both come as JSON, which also says what each entry printed
/// and bounds what it holds: 5,000 lines, a mebibyte, the first 16 KiB of a line.
///
/// With `follow=true` or `Accept: text/event-stream` as server-sent events:
///
/// | event | data |
/// |---|---|
/// | `step` | JSON `{"step","attempt","offset"}`: whose bytes follow |
/// | `log` | text whose UTF-8 bytes are the log's bytes, newlines included |
/// | `bytes` | base64 of bytes that are not such text (carriage returns, invalid UTF-8) |
/// | `end` | JSON `{"step","attempt","total","complete","lost"}`; `complete` false: the rest is not there; `lost` true: it was lost with its node |
/// | `done` | JSON `{}`: the stream ends; do not connect again |
///
/// Without `attempt` the stream goes on with each further attempt of the step: an `end` for the one,
/// a `step` for the next. The `id` of an event is the offset after its bytes, in a second or later
/// attempt `attempt.offset`; `Last-Event-ID` resumes there.
#[utoipa::path(
    get,
    path = "/api/v1/runs/{run}/steps/{step}/logs",
    tag = "logs",
    params(
        ("run" = String, Path, description = "The run's id."),
        ("step" = String, Path, description = "The step's name."),
        ("attempt" = Option<u32>, Query, description = "This attempt alone, from 1; if absent the newest, and with `follow` those after it."),
        ("offset" = Option<u64>, Query, description = "The first byte."),
        ("line" = Option<u64>, Query, description = "The first line, from 1."),
        ("count" = Option<u64>, Query, description = "The most lines, or matches."),
        ("q" = Option<String>, Query, description = "Only lines that hold this text."),
        ("follow" = Option<bool>, Query, description = "Go on until the step has ended."),
        ("Last-Event-ID" = Option<String>, Header, description = "Resumes a stream of events."),
    ),
    responses(
        (status = 200, description = "The log.", content(
            (String = "text/plain"),
            (String = "text/event-stream"),
            (LogAnswer = "application/json"),
        )),
        (status = 400, description = "A parameter is wrong.", body = crate::dto::Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such run, step or attempt.", body = crate::dto::Problem, content_type = "application/problem+json"),
        (status = 410, description = "It was kept long enough and is removed.", body = crate::dto::Problem, content_type = "application/problem+json"),
        (status = 416, description = "The log ends before `offset` or `line`.", body = crate::dto::Problem, content_type = "application/problem+json"),
    ),
)]
async fn step_logs(
    State(server): State<Shared>,
    Path((run, step)): Path<(String, String)>,
    uri: Uri,
    headers: HeaderMap,
) -> Answer<Response> {
    let wish = Wish::read(&uri, &headers)?;
    let run = run_id(&run)?;
    let hub = &server.logs;
    let picture = look(&server, &run).await?;
    let step = step_ordinal(&picture, &step)?;
    let fixed = match wish.attempt {
        Some(attempt) => earlier_attempt(&server, &picture, step, attempt).await?,
        None => None,
    };
    let log = fixed.clone().unwrap_or_else(|| picture.steps[step].clone());
    refuse_removed(&server, &picture, &step_prefix(&run, step), std::slice::from_ref(&log)).await?;
    if wish.of_lines().is_some() {
        return excerpt(&server, &picture, step, &log, &wish).await;
    }
    let Some(live) = wish.mode() else {
        return download_step(hub, &picture, step, &log, wish.offset.unwrap_or(0)).await;
    };
    let from = position(&wish, &log)?;
    let scope = Scope::Step {
        step,
        only: wish.attempt,
        fixed,
        from,
    };
    let mut response = events(&server, &run, scope, live, &headers).await?;
    attempt_header(&mut response, &log);
    Ok(response)
}

/// The logs of all steps of a run.
///
/// As plain text: one step after the other, each under a line `==> name, attempt 1 <==`. With
/// `follow=true` or `Accept: text/event-stream` as server-sent events, interleaved as the bytes
/// come: a `step` event names the step whose `log` and `bytes` events follow. The `id` says how far
/// each step was read; `Last-Event-ID` resumes there. The events are those of one step's log.
#[utoipa::path(
    get,
    path = "/api/v1/runs/{run}/logs",
    tag = "logs",
    params(
        ("run" = String, Path, description = "The run's id."),
        ("follow" = Option<bool>, Query, description = "Go on until the run has ended."),
        ("Last-Event-ID" = Option<String>, Header, description = "Resumes a stream of events."),
    ),
    responses(
        (status = 200, description = "The logs.", content(
            (String = "text/plain"),
            (String = "text/event-stream"),
        )),
        (status = 400, description = "A parameter is wrong or not supported yet.", body = crate::dto::Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such run.", body = crate::dto::Problem, content_type = "application/problem+json"),
        (status = 410, description = "They were kept long enough and are removed.", body = crate::dto::Problem, content_type = "application/problem+json"),
    ),
)]
async fn run_logs(
    State(server): State<Shared>,
    Path(run): Path<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Answer<Response> {
    let wish = Wish::read(&uri, &headers)?;
    let attempt = wish.attempt.map(|_| "attempt");
    let offset = wish.offset.map(|_| "offset");
    if let Some(field) = attempt.or(offset).or(wish.of_lines()) {
        return Err(Problem::bad_field(
            field,
            "is for the log of one step: …/steps/{step}/logs",
        ));
    }
    let run = run_id(&run)?;
    let picture = Arc::new(look(&server, &run).await?);
    refuse_removed(&server, &picture, &run_prefix(&run), &picture.steps).await?;
    let Some(live) = wish.mode() else {
        let complete = picture.is_over();
        let body = stream_body(&run, download(server.logs.clone(), parts_of(&picture)));
        let mut response = plain(body);
        response
            .headers_mut()
            .insert(COMPLETE_HEADER, HeaderValue::from_static(word(complete)));
        return Ok(response);
    };
    let cursor = match &wish.last_id {
        None => Cursor::default(),
        Some(id) => Cursor::parse(id, picture.steps.len())
            .ok_or_else(|| Problem::bad_field("Last-Event-ID", "is not an id of this stream"))?,
    };
    events(&server, &run, Scope::Run(cursor), live, &headers).await
}

/// Where a stream of one step begins; `log` is the one that is asked for, or the newest.
fn position(wish: &Wish, log: &StepLog) -> Answer<Position> {
    let asked = log.attempt().map_or(0, |(attempt, _)| attempt);
    let mut from = match &wish.last_id {
        Some(id) => Position::parse(id).ok_or_else(|| {
            Problem::bad_field(
                "Last-Event-ID",
                "must be an offset, or attempt.offset, as the stream's ids are",
            )
        })?,
        None => Position {
            attempt: 0,
            offset: wish.offset.unwrap_or(0),
        },
    };
    if wish.attempt.is_some() || from.attempt == asked {
        from.attempt = 0;
    }
    match log {
        StepLog::Ended { total: Some(total), .. } if from.attempt == 0 && from.offset > *total => {
            Err(beyond(from.offset, *total))
        }
        _ => Ok(from),
    }
}

fn run_id(text: &str) -> Answer<RunId> {
    // What cannot be an id is the id of no run.
    RunId::new(text).map_err(|_| no_run(text))
}

fn no_run(run: &str) -> Problem {
    let shown: String = run.chars().take(80).collect();
    Problem::not_found(format!("there is no run `{shown}`"))
}

async fn look(server: &Shared, run: &RunId) -> Answer<Picture> {
    picture(server.store(), &server.definitions, &server.archives, run)
        .await
        .map_err(definition_problem)
}

/// Refuses logs that had bytes, were kept for as long as logs are, and have been removed.
async fn refuse_removed(server: &Shared, picture: &Picture, prefix: &str, logs: &[StepLog]) -> Answer<()> {
    let had_bytes = |log: &StepLog| matches!(log, StepLog::Ended { total, .. } if *total != Some(0));
    if !logs.iter().any(had_bytes) {
        return Ok(());
    }
    let header = &picture.definition.header;
    let (keep, branch) = (&server.config.keep, header.source.branch());
    if !picture.is_over() || !keep.logs_are_over(branch, header.created_ms, clock::now_ms()) {
        return Ok(());
    }
    let there = server.deps.blobs.list_page(prefix, None, 1).await;
    if !there.map_err(|e| log_problem(&e.into()))?.entries.is_empty() {
        return Ok(());
    }
    let days = keep.logs_of_ms(branch) / 86_400_000;
    Err(Problem::from_status(
        StatusCode::GONE,
        format!("the log was removed: logs of such runs are kept for {days} days"),
    ))
}

fn definition_problem(error: DefinitionError) -> Problem {
    match error {
        DefinitionError::NoRun(run) => no_run(run.as_str()),
        DefinitionError::Store(error) => Problem::from(error),
        DefinitionError::Archive(error) => Problem::from(error),
        DefinitionError::NoChunk { .. } | DefinitionError::Record { .. } | DefinitionError::Definition { .. } => {
            tracing::error!(%error, "run definition cannot be read");
            Problem::internal()
        }
    }
}

fn log_problem(error: &LogError) -> Problem {
    tracing::warn!(%error, "log cannot be read");
    Problem::unavailable("the log cannot be read at the moment; nothing is lost, try again")
}

fn step_ordinal(picture: &Picture, name: &str) -> Answer<usize> {
    picture.definition.def.step_index(name).ok_or_else(|| {
        let shown: String = name.chars().take(80).collect();
        Problem::not_found(format!("the run has no step `{shown}`"))
    })
}

/// Where the log of an attempt stands that is not the newest; `None`: it is the newest.
async fn earlier_attempt(server: &Shared, picture: &Picture, step: usize, attempt: u32) -> Answer<Option<StepLog>> {
    let newest = picture.steps[step].attempt().map_or(0, |(a, _)| a);
    if let Some(earlier) = picture.earlier(step, attempt) {
        return Ok(Some(earlier.clone()));
    }
    if attempt == newest || (newest == 0 && attempt == 1) {
        return Ok(None);
    }
    let absent = || Problem::not_found(format!("the step has no attempt {attempt}; the newest is {newest}"));
    if attempt > newest {
        return Err(absent());
    }
    let prefix = step_prefix(&picture.definition.header.id, step);
    let blobs = server
        .deps
        .blobs
        .list(&prefix)
        .await
        .map_err(|e| log_problem(&e.into()))?;
    let fence: Option<Fence> = blobs
        .iter()
        .filter_map(|b| fence_of(b.name.as_str()))
        .find(|f| f.counter == attempt);
    let total = None;
    fence
        .map(|fence| Some(StepLog::Ended { attempt, fence, total }))
        .ok_or_else(absent)
}

async fn download_step(hub: &LogHub, picture: &Picture, step: usize, log: &StepLog, offset: u64) -> Answer<Response> {
    let id = log.attempt().map(|(_, fence)| LogId {
        run: picture.definition.header.id.clone(),
        step,
        fence,
    });
    let len = match &id {
        Some(id) => hub.reader(id, offset).length().await.map_err(|e| log_problem(&e))?,
        None => 0,
    };
    if offset > len {
        return Err(beyond(offset, len));
    }
    let complete = is_complete(log, len);
    let part = Part {
        heading: String::new(),
        log: id,
        from: offset,
        to: Some(len),
    };
    let body = stream_body(&picture.definition.header.id, download(hub.clone(), [part]));
    let mut response = plain(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(len - offset));
    headers.insert(OFFSET_HEADER, HeaderValue::from(offset));
    headers.insert(COMPLETE_HEADER, HeaderValue::from_static(word(complete)));
    if is_lost(log) {
        headers.insert(LOST_HEADER, HeaderValue::from_static("true"));
    }
    attempt_header(&mut response, log);
    Ok(response)
}

/// True when a log with so many bytes is all that its step printed.
fn is_complete(log: &StepLog, len: u64) -> bool {
    match log {
        StepLog::Never => true,
        StepLog::Ended { total: Some(total), .. } => len >= *total,
        StepLog::NotYet | StepLog::Growing { .. } | StepLog::Ended { total: None, .. } => false,
    }
}

/// Some lines of a log, or what was found in it.
async fn excerpt(server: &Shared, picture: &Picture, step: usize, log: &StepLog, wish: &Wish) -> Answer<Response> {
    let attempt = log.attempt();
    let excerpt = Excerpt {
        counts: &server.counts,
        hub: &server.logs,
        log: attempt.map(|(_, fence)| LogId {
            run: picture.definition.header.id.clone(),
            step,
            fence,
        }),
        step: &picture.definition.def.steps[step],
    };
    let line = wish.line.unwrap_or(1);
    let attempt = attempt.map_or(0, |(a, _)| a);
    let mut response = match (&wish.q, wish.json) {
        (Some(q), json) => {
            let count = wish.count.unwrap_or(MATCHES_DEFAULT).max(1);
            let found = excerpt.search(&Needle::new(q), line, count).await;
            let mut found = found.map_err(|e| log_problem(&e))?;
            found.attempt = attempt;
            if json {
                Json(LogAnswer::Matches(found)).into_response()
            } else {
                matches_as_text(&found)
            }
        }
        (None, true) => {
            let lines = excerpt.lines(line, wish.count.unwrap_or(LINES_DEFAULT)).await;
            let mut lines = lines.map_err(|e| log_problem(&e))?;
            if line > lines.total_lines + 1 {
                return Err(beyond_lines(line, lines.total_lines));
            }
            lines.attempt = attempt;
            lines.complete = is_complete(log, lines.total_bytes);
            lines.lost = is_lost(log);
            Json(LogAnswer::Lines(lines)).into_response()
        }
        (None, false) => {
            let range = excerpt.range(line, wish.count).await;
            let (from, to, sizes) = range.map_err(|e| log_problem(&e))?;
            if line > sizes.lines + 1 {
                return Err(beyond_lines(line, sizes.lines));
            }
            lines_as_text(&server.logs, &excerpt, log, (from, to), line, &sizes)
        }
    };
    attempt_header(&mut response, log);
    let cached = HeaderValue::from_static("no-cache");
    response.headers_mut().insert(header::CACHE_CONTROL, cached);
    Ok(response)
}

fn lines_as_text(
    hub: &LogHub,
    excerpt: &Excerpt<'_>,
    log: &StepLog,
    (from, to): (u64, u64),
    line: u64,
    sizes: &Sizes,
) -> Response {
    let part = Part {
        heading: String::new(),
        log: excerpt.log.clone().filter(|_| to > from),
        from,
        to: Some(to),
    };
    let bytes = download(hub.clone(), [part]);
    let mut response = plain(match &excerpt.log {
        Some(id) => stream_body(&id.run, bytes),
        None => Body::empty(),
    });
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(to - from));
    headers.insert(OFFSET_HEADER, HeaderValue::from(from));
    headers.insert(LINE_HEADER, HeaderValue::from(line));
    headers.insert(LINES_HEADER, HeaderValue::from(sizes.lines));
    let complete = is_complete(log, sizes.bytes);
    headers.insert(COMPLETE_HEADER, HeaderValue::from_static(word(complete)));
    if is_lost(log) {
        headers.insert(LOST_HEADER, HeaderValue::from_static("true"));
    }
    response
}

fn matches_as_text(found: &LogMatches) -> Response {
    let lines = found.matches.iter().map(|m| format!("{}:{}\n", m.line, m.text));
    let mut response = plain(Body::from(lines.collect::<String>()));
    let headers = response.headers_mut();
    headers.insert(LINES_HEADER, HeaderValue::from(found.total_lines));
    if let Some(next) = found.next_line {
        headers.insert(NEXT_LINE_HEADER, HeaderValue::from(next));
    }
    response
}

fn is_lost(log: &StepLog) -> bool {
    matches!(log, StepLog::Ended { total: None, .. })
}

fn beyond_lines(line: u64, lines: u64) -> Problem {
    Problem::from_status(
        StatusCode::RANGE_NOT_SATISFIABLE,
        format!("`line` is {line}, but the log has {lines} lines"),
    )
}

fn beyond(offset: u64, len: u64) -> Problem {
    Problem::from_status(
        StatusCode::RANGE_NOT_SATISFIABLE,
        format!("`offset` is {offset}, but the log has {len} bytes"),
    )
}

async fn events(server: &Shared, run: &RunId, scope: Scope, live: bool, headers: &HeaderMap) -> Answer<Response> {
    let permit = server.streams.clone().try_acquire_owned().map_err(|_| {
        Problem::unavailable("this server has as many open streams as it can bear; try again, or another server")
    })?;
    let hub = server.logs.clone();
    let follow = server
        .feeds
        .follow(&server.deps.store, &server.definitions, &server.archives, run);
    let follow = follow.await.map_err(definition_problem)?;
    let abroad = headers.get(header::AUTHORIZATION).map(|authorization| Abroad {
        server: server.clone(),
        authorization: authorization.clone(),
    });
    let tail = Tail::new(hub, follow, scope, live, server.deps.shutdown.clone()).abroad(abroad);
    let tail = tail.into_stream().map(move |item| {
        let _held_as_long_as_the_stream = &permit;
        item
    });
    let mut response = Response::new(stream_body(run, tail));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Says to proxies that collect answers that this one is to be passed on as it comes.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

fn stream_body(run: &RunId, bytes: impl Stream<Item = Result<Bytes, LogError>> + Send + 'static) -> Body {
    let run = run.clone();
    Body::from_stream(bytes.inspect(move |item| {
        if let Err(error) = item {
            tracing::warn!(run_id = %run, %error, "log stream ended early");
        }
    }))
}

fn plain(body: Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    // What a step prints is never to be read as a page.
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

fn attempt_header(response: &mut Response, log: &StepLog) {
    if let Some((attempt, _)) = log.attempt() {
        response
            .headers_mut()
            .insert(ATTEMPT_HEADER, HeaderValue::from(attempt));
    }
}

fn word(truth: bool) -> &'static str {
    if truth { "true" } else { "false" }
}
