//! REST: the routes of the contract, what stands around each of them, and how records are shown.
//!
//! Every route is declared once, together with its description, so that the OpenAPI document and
//! the router cannot differ. Not here: gRPC, log bytes, intake of triggers.

mod body;
mod certificates;
mod conditions;
mod describe;
pub(crate) mod events;
mod explain;
mod joining;
mod later;
pub(crate) mod layers;
mod listing;
mod nodes;
mod pipelines;
mod push;
pub(crate) mod query;
pub(crate) mod runs;
mod show;
mod start;
pub(crate) mod system;
pub(crate) mod trigger;

use crate::page::{self, session};
use crate::state::Shared;
use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use utoipa::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(crate) use later::not_yet;
pub(crate) use layers::{RequestId, Trace};

/// The head of the OpenAPI document.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "BuildFlow",
        description = "Runs pipelines: a push becomes a run, its steps run in containers, the log is live.\n\n\
            Every error is RFC 9457 `application/problem+json`. Send `X-Request-Id` to find a request in the log again.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0")
    ),
    components(schemas(crate::dto::Problem, crate::dto::StepChanged, crate::dto::RunChanged))
)]
struct Head;

/// Everything but logs that needs an administrator's token.
fn admin_routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(push::push))
        .routes(routes!(pipelines::list, pipelines::create))
        .routes(routes!(pipelines::validate))
        .routes(routes!(pipelines::get, pipelines::put, pipelines::delete))
        .routes(routes!(runs::list_of_pipeline, trigger::create))
        .routes(routes!(runs::get_of_pipeline))
        .routes(routes!(runs::list))
        .routes(routes!(runs::get))
        .routes(routes!(runs::cancel))
        .routes(routes!(events::events))
        .routes(routes!(explain::explain))
        .routes(routes!(start::start))
        .routes(routes!(nodes::list))
        .routes(routes!(nodes::get, nodes::delete))
        .routes(routes!(nodes::cordon))
        .routes(routes!(nodes::uncordon))
        .routes(routes!(nodes::drain))
        .routes(routes!(nodes::confirm_gone))
        .routes(routes!(joining::list, joining::create))
        .routes(routes!(joining::delete))
        .routes(routes!(certificates::list))
        .routes(routes!(session::get, session::create, session::delete))
}

/// What anybody may ask.
fn open_routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(system::healthz))
        .routes(routes!(system::readyz))
        .routes(routes!(system::metrics))
        .routes(routes!(system::openapi))
}

/// All routes and their description, without what stands around them.
fn described() -> (OpenApiRouter<Shared>, OpenApiRouter<Shared>) {
    let admin = admin_routes().merge(crate::logs::routes()).merge(later::routes());
    (open_routes(), admin)
}

/// The OpenAPI 3.1 document.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    let (open, admin) = described();
    let mut admin = admin.into_openapi();
    describe::guarded(&mut admin);
    let mut document = Head::openapi();
    env!("CARGO_PKG_VERSION").clone_into(&mut document.info.version);
    document.merge(open.into_openapi());
    document.merge(admin);
    describe::completed(&mut document);
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
    let components = document.components.get_or_insert_default();
    components.add_security_scheme("token", SecurityScheme::Http(bearer));
    document
}

/// The whole REST interface.
pub fn router(server: &Shared) -> Router {
    let (open, admin) = described();
    let guard = from_fn_with_state(server.clone(), layers::guard);
    let allowed = from_fn_with_state(server.clone(), layers::allowed);
    let quorum = from_fn_with_state(server.clone(), layers::quorum);
    let admin = admin.split_for_parts().0;
    let admin = admin
        .route_layer(from_fn(conditions::tagged))
        .route_layer(quorum)
        .route_layer(from_fn(conditions::understood))
        .route_layer(allowed)
        .route_layer(guard);
    let open = open.split_for_parts().0.route_layer(from_fn(conditions::tagged));
    open.merge(admin)
        .merge(page::routes())
        .fallback(layers::no_such_route)
        .method_not_allowed_fallback(layers::method_not_allowed)
        .layer(from_fn(layers::timeout))
        // Large blobs take longer; the route has time-outs of its own.
        .merge(crate::blobs::router(server.deps.blobs.clone()))
        .layer(tower_http::catch_panic::CatchPanicLayer::custom(layers::panicked))
        .layer(from_fn_with_state(server.clone(), layers::observe))
        .with_state(server.clone())
}
