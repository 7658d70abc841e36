//! gRPC for programs: `buildflow.v1.RunService`, the health of the server, and reflection.
//!
//! A call passes the same layers as a request of the REST interface (id and span, guard, allowance,
//! quorum) and is answered by the same functions; here its words are translated.
//!
//! | file | what |
//! |---|---|
//! | `runs` | the service |
//! | `asked`, `shown` | its messages from and to the forms of the interface (pure) |
//! | `refusal` | a problem as a status (pure) |
//! | `deadline` | until when a call may go on |
//! | `health` | the standard health service |
//!
//! Not here: the agents' service (`crate::fleet`).

mod asked;
mod deadline;
mod health;
mod refusal;
mod runs;
mod shown;

use crate::fleet::Fleet;
use crate::limit::RPC_MESSAGE_MAX;
use crate::rest::RequestId;
use crate::rest::layers::{self, X_REQUEST_ID};
use crate::state::Shared;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::HeaderValue;
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::Response;
use health::HealthOf;
use runs::Runs;
use tonic::Status;
use tonic::service::Routes;
use tonic_health::pb::health_server::HealthServer;
use tower_http::catch_panic::CatchPanicLayer;
use wire::v1::fleet_service_server::FleetServiceServer;
use wire::v1::run_service_server::RunServiceServer;

/// The calls of the service that change nothing, and those that change something.
const READS: [&str; 4] = ["GetRun", "ListRuns", "WatchRun", "TailLogs"];
const WRITES: [&str; 3] = ["SubmitRun", "CancelRun", "RetryRun"];

/// What the paths of its calls begin with.
const SERVICE: &str = "/buildflow.v1.RunService/";

/// True for the path of a call that changes nothing.
pub(crate) fn only_reads(path: &str) -> bool {
    path.strip_prefix(SERVICE).is_some_and(|call| READS.contains(&call))
}

/// All gRPC of the port.
pub(crate) fn router(server: &Shared, fleet: FleetServiceServer<Fleet>) -> Router {
    Routes::new(fleet)
        .prepare()
        .into_axum_router()
        .merge(run_routes(server))
        .merge(open_routes(server))
}

/// What needs an administrator's token.
fn run_routes(server: &Shared) -> Router {
    let service = RunServiceServer::new(Runs::new(server.clone()))
        .max_decoding_message_size(crate::limit::BODY_MAX)
        .max_encoding_message_size(RPC_MESSAGE_MAX);
    let calls = READS.iter().chain(&WRITES);
    let router = calls.fold(Router::new(), |router, call| {
        router.route_service(&format!("{SERVICE}{call}"), service.clone())
    });
    let with = |router: Router| around(server, router);
    with(
        router
            .route_layer(from_fn_with_state(server.clone(), layers::quorum))
            .route_layer(from_fn_with_state(server.clone(), layers::allowed))
            .route_layer(from_fn_with_state(server.clone(), layers::guard))
            .layer(from_fn(deadline::keep)),
    )
}

/// What anybody may ask: is the server well, and what does it know.
fn open_routes(server: &Shared) -> Router {
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(wire::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let broken = "the descriptions were written by the compiler of the proto files";
    let router = Router::new()
        .route_service(
            "/grpc.health.v1.Health/{call}",
            HealthServer::new(HealthOf::new(server.clone())),
        )
        .route_service(
            "/grpc.reflection.v1.ServerReflection/{call}",
            reflection().build_v1().expect(broken),
        )
        .route_service(
            "/grpc.reflection.v1alpha.ServerReflection/{call}",
            reflection().build_v1alpha().expect(broken),
        )
        .layer(from_fn_with_state(
            deadline::Strangers::default(),
            deadline::of_strangers,
        ));
    around(server, router)
}

fn around(server: &Shared, router: Router) -> Router {
    router
        .layer(CatchPanicLayer::custom(layers::panicked))
        .layer(from_fn_with_state(server.clone(), observe))
}

async fn observe(State(server): State<Shared>, request: Request, next: Next) -> Response {
    layers::observed(server, request, next, finish).await
}

/// Makes a status of a problem, and adds the request's id.
fn finish(mut response: Response, _path: &str, id: &RequestId) -> Response {
    if let Some(problem) = response.extensions_mut().remove::<crate::problem::Problem>() {
        response = Status::from(problem).into_http();
    }
    if let Ok(value) = HeaderValue::from_str(&id.0) {
        response.headers_mut().insert(X_REQUEST_ID, value);
    }
    response
}
