//! What every description in the OpenAPI document has in common, added in one place: the token,
//! what the guard refuses, and the form of errors.
//!
//! Not here: the routes' own descriptions, which stand at their handlers.

use crate::problem::MEDIA_TYPE;
use axum::http::StatusCode;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::security::SecurityRequirement;
use utoipa::openapi::{Content, OpenApi, Ref, RefOr, Response};

const PROBLEM: &str = "#/components/schemas/Problem";

/// Adds what the guard does.
pub(super) fn guarded(document: &mut OpenApi) {
    for operation in operations(document) {
        let scopes: [&str; 0] = [];
        operation.security = Some(vec![SecurityRequirement::new("token", scopes)]);
        for code in [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN] {
            let responses = &mut operation.responses.responses;
            let refused = RefOr::T(Response::new(""));
            responses.entry(code.as_str().to_owned()).or_insert(refused);
        }
    }
}

/// Gives every response a description, and every error the form of a problem.
pub(super) fn completed(document: &mut OpenApi) {
    for operation in operations(document) {
        for (code, response) in &mut operation.responses.responses {
            if let RefOr::T(response) = response {
                complete(code, response);
            }
        }
    }
}

fn complete(code: &str, response: &mut Response) {
    let status = code.parse::<StatusCode>().unwrap_or(StatusCode::OK);
    if response.description.is_empty() {
        let reason = status.canonical_reason().unwrap_or("answered");
        reason.clone_into(&mut response.description);
    }
    let is_error = status.is_client_error() || status.is_server_error();
    let own_form = response.content.values().any(|c| !is_problem(c));
    if is_error && !own_form {
        let content = Content::new(Some(Ref::new(PROBLEM)));
        response.content.clear();
        response.content.insert(MEDIA_TYPE.to_owned(), RefOr::T(content));
    }
}

fn is_problem(content: &RefOr<Content>) -> bool {
    let RefOr::T(content) = content else { return false };
    matches!(&content.schema, Some(RefOr::Ref(to)) if to.ref_location == PROBLEM)
}

fn operations(document: &mut OpenApi) -> impl Iterator<Item = &mut Operation> {
    document.paths.paths.values_mut().flat_map(of_item)
}

fn of_item(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let all = [
        &mut item.get,
        &mut item.put,
        &mut item.post,
        &mut item.delete,
        &mut item.patch,
    ];
    all.into_iter().flatten()
}
