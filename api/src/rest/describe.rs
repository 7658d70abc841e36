//! What every description in the OpenAPI document has in common, added in one place: the token,
//! what the guard refuses, and the form of errors.
//!
//! Not here: the routes' own descriptions, which stand at their handlers.

use super::conditions;
use crate::problem::MEDIA_TYPE;
use axum::http::{Method, StatusCode};
use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn, PathItem};
use utoipa::openapi::security::SecurityRequirement;
use utoipa::openapi::{Content, HeaderBuilder, OpenApi, Ref, RefOr, Required, Response};

const IDEMPOTENCY_KEY: &str = "Idempotency-Key";

/// What a tag is for.
const TAG: &str = "For `If-None-Match`, and for `If-Match` where the route knows it";

const PROBLEM: &str = "#/components/schemas/Problem";

/// Adds what the layers around every guarded route do.
pub(super) fn guarded(document: &mut OpenApi) {
    for (path, item) in &mut document.paths.paths {
        for (method, operation) in of_item(item) {
            let scopes: [&str; 0] = [];
            operation.security = Some(vec![SecurityRequirement::new("token", scopes)]);
            let has_body = operation.request_body.is_some();
            let mut refuses = vec![400, 401, 403, 415, 429, 503];
            if has_body {
                refuses.push(413);
            }
            if path.contains('{') {
                refuses.push(404);
            }
            let conditional = conditions::CONDITIONAL.iter().any(|(m, p)| *m == method && path == p);
            if method != Method::GET && !conditional {
                refuses.push(412);
            }
            if method == Method::POST {
                header_of(operation, IDEMPOTENCY_KEY, "The same key is the same request for a day");
                refuses.push(409);
            }
            if method == Method::GET && answers_json(operation) {
                header_of(operation, "If-None-Match", "An `ETag`: 304 if nothing has changed");
                refuses.push(304);
            }
            for code in refuses {
                let responses = &mut operation.responses.responses;
                responses.entry(code.to_string()).or_insert(RefOr::T(Response::new("")));
            }
        }
    }
}

/// Describes a header of the request, if the route does not itself.
fn header_of(operation: &mut Operation, name: &str, what: &str) {
    let parameters = operation.parameters.get_or_insert_default();
    let is = |p: &RefOr<Parameter>| matches!(p, RefOr::T(p) if p.name.eq_ignore_ascii_case(name));
    if parameters.iter().any(is) {
        return;
    }
    let parameter = ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(what))
        .schema(Some(utoipa::schema!(String)));
    parameters.push(RefOr::T(parameter.build()));
}

fn answers_json(operation: &Operation) -> bool {
    let ok = operation.responses.responses.get("200");
    matches!(ok, Some(RefOr::T(response)) if response.content.contains_key("application/json"))
}

/// What is answered by many routes in the same way, by name.
fn shared() -> [(&'static str, Response); 3] {
    let problem = || {
        let mut response = Response::new("Refused: `detail` says why, and how to mend it");
        response
            .content
            .insert(MEDIA_TYPE.to_owned(), RefOr::T(Content::new(Some(Ref::new(PROBLEM)))));
        header_out(&mut response, "X-Request-Id", "Names the request in the server's log");
        response
    };
    let mut for_now = problem();
    "Refused for now".clone_into(&mut for_now.description);
    header_out(&mut for_now, "Retry-After", "When to ask again, seconds");
    let mut unchanged = Response::new("It is as the caller has it");
    header_out(&mut unchanged, "ETag", TAG);
    [
        ("Refused", problem()),
        ("RefusedForNow", for_now),
        ("Unchanged", unchanged),
    ]
}

/// Gives every response a description, and every error the form of a problem.
pub(super) fn completed(document: &mut OpenApi) {
    for (_, operation) in document.paths.paths.values_mut().flat_map(of_item) {
        for (code, response) in &mut operation.responses.responses {
            if let RefOr::T(own) = response
                && let Some(name) = complete(code, own)
            {
                *response = RefOr::Ref(Ref::from_response_name(name));
            }
        }
    }
    let components = document.components.get_or_insert_default();
    let shared = shared().map(|(name, response)| (name.to_owned(), RefOr::T(response)));
    components.responses.extend(shared);
}

/// The name of the shared response that says the same, if there is one; else it is completed itself.
fn complete(code: &str, response: &mut Response) -> Option<&'static str> {
    let status = code.parse::<StatusCode>().unwrap_or(StatusCode::OK);
    let is_error = status.is_client_error() || status.is_server_error();
    let own_form = response.content.values().any(|c| !is_problem(c));
    let says_more = own_form || !response.description.is_empty();
    match status.as_u16() {
        304 => return Some("Unchanged"),
        429 | 503 if !says_more => return Some("RefusedForNow"),
        _ if is_error && !says_more => return Some("Refused"),
        _ => {}
    }
    if response.description.is_empty() {
        let reason = status.canonical_reason().unwrap_or("answered");
        reason.clone_into(&mut response.description);
    }
    if status == StatusCode::OK && response.content.contains_key("application/json") {
        header_out(response, "ETag", TAG);
    }
    if is_error && !own_form {
        let content = Content::new(Some(Ref::new(PROBLEM)));
        response.content.clear();
        response.content.insert(MEDIA_TYPE.to_owned(), RefOr::T(content));
    }
    None
}

fn header_out(response: &mut Response, name: &str, what: &str) {
    let header = HeaderBuilder::new()
        .schema(Some(utoipa::schema!(String)))
        .description(Some(what))
        .build();
    response.headers.entry(name.to_owned()).or_insert(RefOr::T(header));
}

fn is_problem(content: &RefOr<Content>) -> bool {
    let RefOr::T(content) = content else { return false };
    matches!(&content.schema, Some(RefOr::Ref(to)) if to.ref_location == PROBLEM)
}

fn of_item(item: &mut PathItem) -> impl Iterator<Item = (Method, &mut Operation)> {
    let all = [
        (Method::GET, &mut item.get),
        (Method::PUT, &mut item.put),
        (Method::POST, &mut item.post),
        (Method::DELETE, &mut item.delete),
        (Method::PATCH, &mut item.patch),
    ];
    all.into_iter()
        .filter_map(|(method, operation)| Some((method, operation.as_mut()?)))
}
