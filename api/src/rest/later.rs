//! The part of the contract that does not work yet: each route is there, described, and refuses by name.
//!
//! A route leaves this table when it is built.

use crate::problem::Problem;
use crate::state::Shared;
use axum::routing::{MethodRouter, on};
use utoipa::openapi::path::{OperationBuilder, ParameterBuilder, ParameterIn, Paths};
use utoipa::openapi::{HttpMethod, Required, ResponseBuilder};
use utoipa_axum::PathItemExt;
use utoipa_axum::router::OpenApiRouter;

use HttpMethod::{Delete, Get, Post, Put};

/// Method, path below `/api/v1`, what it will do.
pub(super) const LATER: &[(HttpMethod, &str, &str)] = &[
    (Post, "/runs/{run_id}/retry", "retrying a run"),
    (Post, "/runs/{run_id}/steps/{step}/retry", "retrying a step"),
    (Post, "/runs/{run_id}/steps/{step}/approve", "approving a step"),
    (Post, "/runs/{run_id}/steps/{step}/reject", "rejecting a step"),
    (Post, "/runs/{run_id}/steps/{step}/shell", "a shell in a step"),
    (Post, "/runs/{run_id}/artifacts", "storing artifacts"),
    (Get, "/runs/{run_id}/artifacts", "listing artifacts"),
    (Get, "/artifacts/{id}", "fetching an artifact"),
    (Post, "/webhooks/{forge}/{team}", "webhooks of forges"),
    (Get, "/teams", "listing teams"),
    (Get, "/teams/{team}", "showing a team"),
    (Put, "/teams/{team}", "changing a team"),
    (Delete, "/teams/{team}", "removing a team"),
    (Get, "/tokens", "listing tokens"),
    (Post, "/tokens", "making tokens"),
    (Put, "/tokens/{token}", "changing a token"),
    (Delete, "/tokens/{token}", "revoking a token"),
    (Get, "/secrets/{team}", "listing secrets"),
    (Put, "/secrets/{team}/{secret}", "storing a secret"),
    (Delete, "/secrets/{team}/{secret}", "removing a secret"),
    (Get, "/environments/{team}", "listing environments"),
    (Get, "/environments/{team}/{environment}", "showing an environment"),
    (Put, "/environments/{team}/{environment}", "changing an environment"),
    (Delete, "/environments/{team}/{environment}", "removing an environment"),
    (Get, "/registries", "listing registries"),
    (Get, "/registries/{host}", "showing a registry"),
    (Put, "/registries/{host}", "changing a registry"),
    (Delete, "/registries/{host}", "removing a registry"),
    (Get, "/caches", "listing caches"),
    (Get, "/dead-letters", "listing dead letters"),
    (Post, "/dead-letters/{id}/requeue", "requeueing a dead letter"),
    (Get, "/usage", "usage"),
    (Get, "/top", "live usage by team and node"),
    (Get, "/audit", "the audit log"),
    (Get, "/badges/{team}/{badge}", "badges"),
];

/// What this release refuses, as `METHOD /path` below `/api/v1`.
pub(crate) fn not_yet() -> Vec<String> {
    let shown = LATER.iter().map(|(method, path, _)| format!("{} {path}", word(method)));
    shown.collect()
}

fn word(method: &HttpMethod) -> &'static str {
    match method {
        Get => "GET",
        Post => "POST",
        Put => "PUT",
        Delete => "DELETE",
        HttpMethod::Options => "OPTIONS",
        HttpMethod::Head => "HEAD",
        HttpMethod::Patch => "PATCH",
        HttpMethod::Trace => "TRACE",
    }
}

/// All of them.
pub(super) fn routes() -> OpenApiRouter<Shared> {
    LATER.iter().fold(OpenApiRouter::new(), |router, (method, path, what)| {
        let path = format!("/api/v1{path}");
        let refuse = move || async move { Problem::not_supported_yet(what) };
        let handler: MethodRouter<Shared> = on(method.to_method_filter(), refuse);
        router.routes((Vec::new(), described(method, &path, what), handler))
    })
}

fn described(method: &HttpMethod, path: &str, what: &str) -> Paths {
    let refused = ResponseBuilder::new()
        .description("Not supported yet by this release")
        .build();
    let mut operation = OperationBuilder::new()
        .summary(Some(format!("Not supported yet: {what}")))
        .tag("later")
        .response("501", refused);
    let parts = path.split('/').filter_map(|p| p.strip_prefix('{')?.strip_suffix('}'));
    for part in parts {
        let parameter = ParameterBuilder::new()
            .name(part)
            .parameter_in(ParameterIn::Path)
            .required(Required::True)
            .schema(Some(utoipa::schema!(String)));
        operation = operation.parameter(parameter);
    }
    let mut paths = Paths::new();
    paths.add_path_operation(path, vec![method.clone()], operation.build());
    paths
}
