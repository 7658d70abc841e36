//! What the port says while the server cannot work yet: alive, not ready, and why.
//!
//! Not here: what it waits for.

use crate::doors::Doors;
use crate::dto::Problem;
use crate::problem::{MEDIA_TYPE, TYPE_PREFIX};
use crate::server::{Port, accept};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Router, routing::get};
use pki::ServerTls;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How long connections that are open then may go on: nothing takes long here, and somebody who
/// only holds one open must not keep the server from starting.
const GRACE: Duration = Duration::from_millis(500);

/// Answers on the port until `until`: `/healthz` 200, everything else 503 with `reasons`. The
/// listener is the caller's again afterwards, and nobody was turned away by it.
pub async fn answer_while_waiting(
    listener: &TcpListener,
    tls: Option<Arc<ServerTls>>,
    server: &str,
    reasons: watch::Receiver<Vec<String>>,
    until: CancellationToken,
) {
    let waiting = Waiting {
        server: server.to_owned(),
        reasons,
    };
    let readiness = waiting.clone();
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(move || async move { readiness.readiness() }))
        .fallback(move || async move { waiting.problem() });
    let port = Port {
        rest: router.clone(),
        grpc: router,
    };
    accept(listener, port, Doors::new(tls), until, GRACE).await;
}

#[derive(Clone)]
struct Waiting {
    server: String,
    reasons: watch::Receiver<Vec<String>>,
}

impl Waiting {
    fn readiness(&self) -> Response {
        let body = serde_json::json!({
            "ready": false,
            "server": self.server,
            "leader": null,
            "leads": false,
            "store": false,
            "view": false,
            "problems": *self.reasons.borrow(),
        });
        let headers = [(header::CONTENT_TYPE, "application/json"), (header::RETRY_AFTER, "2")];
        (StatusCode::SERVICE_UNAVAILABLE, headers, body.to_string()).into_response()
    }

    fn problem(&self) -> Response {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        let body = Problem {
            kind: format!("{TYPE_PREFIX}unavailable"),
            title: "The server cannot do this at the moment".to_owned(),
            status: status.as_u16(),
            detail: Some(format!("the server is starting: {}", self.reasons.borrow().join("; "))),
            instance: None,
            request_id: None,
            errors: Vec::new(),
        };
        let body = serde_json::to_vec(&body).expect("strings and numbers always encode");
        let headers = [(header::CONTENT_TYPE, MEDIA_TYPE), (header::RETRY_AFTER, "2")];
        (status, headers, body).into_response()
    }
}
