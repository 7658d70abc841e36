//! The routes of logs: downloads as plain text, and streams of server-sent events.
//!
//! Not here: how bytes become events (`frame`), where they come from (`tail`), what is found and refused
//! before (`open`).

use super::excerpt::{Excerpt, LINES_DEFAULT, MATCHES_DEFAULT, Sizes};
use super::feed::{Picture, StepLog};
use super::hub::{LogError, LogHub};
use super::open::{After, StepLogs, beyond, log_problem, logs_of_run, open_tail, scope_of_run};
use super::relay;
use super::search::{NEEDLE_MAX, Needle};
use super::tail::{Part, Scope, download, parts_of};
use crate::auth::Caller;
use crate::dto::{LogAnswer, LogMatches};
use crate::problem::{Answer, Problem};
use crate::state::Shared;
use api_core::logs::LogId;
use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{FromRequestParts, Path, Query, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use futures::{Stream, StreamExt};
use model::RunId;
use std::convert::Infallible;
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

/// Who asks for logs, and how.
struct Reader {
    uri: Uri,
    headers: HeaderMap,
    caller: Option<Caller>,
}

impl<S: Send + Sync> FromRequestParts<S> for Reader {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self {
            uri: parts.uri.clone(),
            headers: parts.headers.clone(),
            caller: parts.extensions.get::<Caller>().cloned(),
        })
    }
}

impl Wish {
    fn after(&self) -> Option<After<'_>> {
        let id = self.last_id.as_deref()?;
        Some(After {
            named: "Last-Event-ID",
            id,
        })
    }

    fn read(Reader { uri, headers, .. }: &Reader) -> Answer<Self> {
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
    reader: Reader,
) -> Answer<Response> {
    let wish = Wish::read(&reader)?;
    let of = StepLogs::find(&server, &run, &step, wish.attempt).await?;
    if wish.of_lines().is_some() {
        return excerpt(&server, &of.picture, of.step, &of.log, &wish).await;
    }
    let Some(live) = wish.mode() else {
        return download_step(&server.logs, &of.picture, of.step, &of.log, wish.offset.unwrap_or(0)).await;
    };
    let scope = of.scope(wish.offset, wish.after())?;
    let mut response = events(&server, of.run(), scope, live, &reader).await?;
    attempt_header(&mut response, &of.log);
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
async fn run_logs(State(server): State<Shared>, Path(run): Path<String>, reader: Reader) -> Answer<Response> {
    let wish = Wish::read(&reader)?;
    let attempt = wish.attempt.map(|_| "attempt");
    let offset = wish.offset.map(|_| "offset");
    if let Some(field) = attempt.or(offset).or(wish.of_lines()) {
        return Err(Problem::bad_field(
            field,
            "is for the log of one step: …/steps/{step}/logs",
        ));
    }
    let picture = Arc::new(logs_of_run(&server, &run).await?);
    let run = &picture.definition.header.id;
    let Some(live) = wish.mode() else {
        let complete = picture.is_over();
        let body = stream_body(run, download(server.logs.clone(), parts_of(&picture)));
        let mut response = plain(body);
        response
            .headers_mut()
            .insert(COMPLETE_HEADER, HeaderValue::from_static(word(complete)));
        return Ok(response);
    };
    let scope = scope_of_run(&picture, wish.after())?;
    events(&server, run, scope, live, &reader).await
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

async fn events(server: &Shared, run: &RunId, scope: Scope, live: bool, reader: &Reader) -> Answer<Response> {
    let place = server.place_for_stream(reader.caller.as_ref())?;
    let tail = open_tail(server, run, scope, live, &reader.headers).await?;
    let tail = tail.into_stream().map(move |item| {
        let _held_as_long_as_the_stream = &place;
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
