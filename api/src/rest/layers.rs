//! What stands around every route: the request's id and span, the count, the time-out, the guard,
//! and problems in place of bare errors and panics.
//!
//! Not here: what any route does.

use crate::auth::{Caller, authorise};
use crate::limit::{KEY_MAX, REQUEST_TIMEOUT};
use crate::page;
use crate::problem::Problem;
use crate::rpc;
use crate::state::Shared;
use crate::trace;
use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use model::Role;
use std::any::Any;
use std::time::Instant;
use tracing::Instrument;

/// In and out.
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// In and out: the trace that a run belongs to.
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Out, while the live store does not answer: how old what is shown may be.
const X_STALE_MS: HeaderName = HeaderName::from_static("x-buildflow-stale-ms");

/// A POST that changes nothing.
const VALIDATE: &str = "/api/v1/pipelines/validate";

/// The label of requests that no route matches: never the path, of which there are endlessly many.
const NO_ROUTE: &str = "none";

/// The id of a request, in its extensions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RequestId(pub(crate) String);

impl RequestId {
    /// The caller's, if it is harmless; else a new one.
    fn of(headers: &HeaderMap) -> Self {
        let given = headers.get(&X_REQUEST_ID).and_then(|v| v.to_str().ok());
        let harmless = |id: &&str| {
            let legal = |c: char| c.is_ascii_alphanumeric() || "._:-".contains(c);
            !id.is_empty() && id.len() <= KEY_MAX && id.chars().all(legal)
        };
        match given.filter(harmless) {
            Some(id) => Self(id.to_owned()),
            None => Self(ulid::Ulid::generate().to_string().to_ascii_lowercase()),
        }
    }
}

/// The W3C trace context of a request, in its extensions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trace(pub(crate) String);

impl Trace {
    /// The caller's, if it is legal; else a new one.
    fn of(headers: &HeaderMap) -> Self {
        let given = headers.get(&TRACEPARENT).and_then(|v| v.to_str().ok());
        Self(given.and_then(trace::parse).unwrap_or_else(trace::begin))
    }
}

/// The outermost layer: id, span, counts, and the last word on how an error looks.
pub(super) async fn observe(State(server): State<Shared>, request: Request, next: Next) -> Response {
    observed(server, request, next, finish).await
}

/// Gives a request its id, span and trace and counts it; `finish` has the last word on its answer.
pub(crate) async fn observed(
    server: Shared,
    mut request: Request,
    next: Next,
    finish: fn(Response, &str, &RequestId) -> Response,
) -> Response {
    let id = RequestId::of(request.headers());
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or(NO_ROUTE.to_owned(), |m| m.as_str().to_owned());
    request.extensions_mut().insert(id.clone());
    let trace = Trace::of(request.headers());
    request.extensions_mut().insert(trace.clone());
    let trace_id = trace::trace_id(&trace.0);
    let span = tracing::info_span!("request", request_id = id.0, trace_id, %method, path);
    let begun = Instant::now();
    let _in_flight = InFlight::new(&server);
    let response = next.run(request).instrument(span.clone()).await;
    let mut response = finish(response, &path, &id);
    if let Ok(value) = HeaderValue::from_str(&trace.0) {
        response.headers_mut().insert(TRACEPARENT, value);
    }
    let code = code_label(&response);
    let took = begun.elapsed();
    let metrics = &server.metrics;
    let labels = [route.as_str(), method_label(&method), code.as_str()];
    metrics.requests.with_label_values(&labels).inc();
    metrics
        .request_seconds
        .with_label_values(&[&route])
        .observe(took.as_secs_f64());
    span.in_scope(|| {
        let ms = took.as_secs_f64() * 1000.0;
        tracing::debug!(code, ms, "request answered");
    });
    response
}

/// The status, of a refused gRPC call its own: `grpc-5`.
fn code_label(response: &Response) -> String {
    let of_grpc = response.headers().get("grpc-status").and_then(|v| v.to_str().ok());
    match of_grpc.filter(|code| *code != "0") {
        Some(code) => format!("grpc-{code}"),
        None => response.status().as_str().to_owned(),
    }
}

/// A method of its own for every known word; callers may invent others without end.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::PATCH => "PATCH",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

/// Counts a request from its arrival until it is answered or given up.
struct InFlight(Shared);

impl InFlight {
    fn new(server: &Shared) -> Self {
        server.metrics.in_flight.inc();
        Self(server.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.metrics.in_flight.dec();
    }
}

/// Adds the path and the id to a problem, and makes one of an error that is none yet.
fn finish(mut response: Response, path: &str, id: &RequestId) -> Response {
    let status = response.status();
    let headers = std::mem::take(response.headers_mut());
    let is_error = status.is_client_error() || status.is_server_error();
    let mut finished = match response.extensions_mut().remove::<Problem>() {
        Some(problem) => problem.response(Some(path), Some(&id.0)),
        None if is_error && is_bare(&headers) => {
            let detail = status.canonical_reason().unwrap_or("the request was refused");
            Problem::from_status(status, detail).response(Some(path), Some(&id.0))
        }
        None => {
            *response.headers_mut() = headers.clone();
            response
        }
    };
    if let Some(allow) = headers.get(header::ALLOW) {
        finished.headers_mut().insert(header::ALLOW, allow.clone());
    }
    if let Ok(value) = HeaderValue::from_str(&id.0) {
        finished.headers_mut().insert(X_REQUEST_ID, value);
    }
    finished
}

/// An error of the web framework itself: no body, or a line of text.
fn is_bare(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE);
    kind.is_none_or(|v| v.as_bytes().starts_with(b"text/plain"))
}

/// Ends a request whose answer does not begin in time; the body of an answer may take for ever.
pub(super) async fn timeout(request: Request, next: Next) -> Response {
    match tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_elapsed) => {
            let seconds = REQUEST_TIMEOUT.as_secs();
            Problem::unavailable(format!("the request took longer than {seconds} s; try again")).into_response()
        }
    }
}

/// While the live store has no quorum writes are refused at once, also those that have begun to
/// wait for it; reads go on from the picture and say how old it may be.
pub(crate) async fn quorum(State(server): State<Shared>, request: Request, next: Next) -> Response {
    if !changes(&request) {
        let mut response = next.run(request).await;
        if let Some(silent) = server.probe.silent_for() {
            let age = u64::try_from(silent.as_millis()).unwrap_or(u64::MAX);
            response.headers_mut().insert(X_STALE_MS, HeaderValue::from(age));
        }
        return response;
    }
    tokio::select! {
        biased;
        () = server.probe.lost() => {
            let silent = server.probe.silent_for().unwrap_or_default();
            Problem::no_quorum(silent).into_response()
        }
        response = next.run(request) => response,
    }
}

/// True for a request that writes.
fn changes(request: &Request) -> bool {
    let path = request.uri().path();
    let reads = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    !(reads || path == VALIDATE || rpc::only_reads(path))
}

/// Lets so many requests of a token pass as it may have.
pub(crate) async fn allowed(State(server): State<Shared>, request: Request, next: Next) -> Response {
    let Some(caller) = request.extensions().get::<Caller>() else {
        return next.run(request).await;
    };
    match server.allowances.request(&caller.name) {
        Ok(_until_the_answer_begins) => next.run(request).await,
        Err(refused) => refused.into_response(),
    }
}

/// Answers for a handler that panicked.
pub(crate) fn panicked(cause: Box<dyn Any + Send + 'static>) -> axum::http::Response<Body> {
    let text = cause
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| cause.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    tracing::error!(panic = text, "request crashed");
    Problem::internal().into_response()
}

/// Lets administrators pass, once the picture that tokens are looked up in is complete.
pub(crate) async fn guard(State(server): State<Shared>, mut request: Request, next: Next) -> Response {
    if let Err(refused) = page::session::admit(&mut request) {
        return refused.into_response();
    }
    match authorise(&server.view, request.headers(), Role::Admin) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(_) if !server.view.is_current() => {
            Problem::unavailable("the server is starting, or cannot reach its store; try again").into_response()
        }
        Err(refused) => Problem::from(refused).into_response(),
    }
}

pub(super) async fn no_such_route(request: Request) -> Response {
    if page::is_for_people(&request) {
        return page::lost(request.headers());
    }
    let problem = Problem::not_found(format!(
        "there is no route `{}`; the routes are listed in /api/v1/openapi.json",
        shown(request.uri().path())
    ));
    problem.into_response()
}

pub(super) async fn method_not_allowed(request: Request) -> Problem {
    Problem::from_status(
        StatusCode::METHOD_NOT_ALLOWED,
        format!(
            "`{}` does not know the method {}; the header `Allow` lists those that it knows",
            shown(request.uri().path()),
            shown(request.method().as_str())
        ),
    )
}

fn shown(text: &str) -> String {
    text.chars().take(200).collect()
}
