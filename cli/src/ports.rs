//! The listening side of a role: binding an address with an error that says what to do, and the
//! agent's small metrics endpoint.

use crate::error::Failure;
use axum::{Router, routing::get};
use node_agent_shell::AgentMetrics;
use std::net::SocketAddr;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Binds `address`; the refusal names it and how to choose another.
pub(crate) async fn bind(address: SocketAddr, setting: &str) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|cause| {
        Failure::Internal(format!(
            "cannot listen on {address}: {cause}; choose another address with {setting}"
        ))
    })
}

/// Serves the agent's `/metrics` and `/healthz` until `shutdown`.
pub(crate) async fn serve_agent_metrics(listener: TcpListener, metrics: AgentMetrics, shutdown: CancellationToken) {
    let router = Router::new()
        .route("/metrics", get(move || async move { metrics.metrics_text() }))
        .route("/healthz", get(|| async { "ok\n" }));
    let served = axum::serve(listener, router)
        .with_graceful_shutdown(shutdown.cancelled_owned())
        .await;
    if let Err(cause) = served {
        tracing::warn!(error = %cause, "the metrics endpoint ended");
    }
}
