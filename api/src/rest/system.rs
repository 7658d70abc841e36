//! What operators and tools ask: is it alive, is it ready, what does it count, what can it do.
//!
//! Answered without a token. Not here: anything about teams and runs.

use crate::dto::{Health, Readiness};
use crate::state::{Server, Shared};
use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use model::{Leader, key};
use std::sync::OnceLock;
use std::time::Duration;

/// A store that takes longer than this is not well.
const STORE_WAIT: Duration = Duration::from_secs(2);

/// Below this there are no blobs: to ask for them costs one small listing.
const BLOBS_ASKED: &str = "readyz/";

/// Whether the process runs.
#[utoipa::path(get, path = "/healthz", operation_id = "healthz", tag = "system",
    responses((status = 200, body = Health)))]
pub(super) async fn healthz() -> Json<Health> {
    Json(Health {
        status: "ok".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    })
}

/// Whether this server can do its work, and who leads.
#[utoipa::path(get, path = "/readyz", operation_id = "readyz", tag = "system",
    responses((status = 200, body = Readiness), (status = 503, body = Readiness)))]
pub(super) async fn readyz(State(server): State<Shared>) -> (StatusCode, Json<Readiness>) {
    let readiness = readiness(&server).await;
    let code = if readiness.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (code, Json(readiness))
}

/// Asks everything that the server stands on.
pub(crate) async fn readiness(server: &Server) -> Readiness {
    let asked = tokio::time::timeout(STORE_WAIT, server.store().get(key::LEADER));
    let blobs = tokio::time::timeout(STORE_WAIT, server.deps.blobs.list_page(BLOBS_ASKED, None, 1));
    let history = tokio::time::timeout(STORE_WAIT, server.deps.history.check());
    let (asked, blobs, history) = tokio::join!(asked, blobs, history);
    let mut problems = Vec::new();
    let (store, leader) = match asked {
        Ok(Ok(entry)) => (true, entry.and_then(|e| e.decode::<Leader>().ok()).map(|l| l.server)),
        Ok(Err(error)) => {
            tracing::warn!(%error, "store is not well");
            problems.push("the store does not answer as it should; the server's log has the cause".to_owned());
            (false, None)
        }
        Err(_late) => {
            problems.push(format!("the store has not answered within {} s", STORE_WAIT.as_secs()));
            (false, None)
        }
    };
    let view = server.view.is_current();
    if !view {
        problems.push("the picture of the store's state is still being read".to_owned());
    }
    if store && leader.is_none() {
        problems.push("nobody leads: accepted runs wait until a scheduler does".to_owned());
    }
    problems.extend(server.room.complaint());
    let blobs = matches!(blobs, Ok(Ok(_)));
    if !blobs {
        problems.push("blobs cannot be read: builds go on, logs wait on their nodes, archiving waits".to_owned());
    }
    let history = matches!(history, Ok(Ok(_)));
    if !history {
        problems.push("history cannot be asked: builds go on, finished runs cannot be searched for now".to_owned());
    }
    // Without a leader, blobs or history this server still accepts runs and shows them.
    Readiness {
        ready: store && view,
        server: server.config.server_name.clone(),
        leader,
        store,
        view,
        leads: server.deps.leading.borrow().is_some(),
        quorum_lost: server.probe.is_lost(),
        blobs,
        history,
        problems,
    }
}

/// What is counted, as Prometheus text.
#[utoipa::path(get, path = "/metrics", operation_id = "metrics", tag = "system",
    responses((status = 200, body = String, content_type = "text/plain")))]
pub(super) async fn metrics(State(server): State<Shared>) -> impl IntoResponse {
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    let leads = server.deps.leading.borrow().is_some();
    let name = server.config.server_name.as_str();
    let metrics = &server.metrics;
    metrics.leader.with_label_values(&[name]).set(i64::from(leads));
    metrics.store_up.set(i64::from(server.probe.silent_for().is_none()));
    metrics.quorum_lost.set(i64::from(server.probe.is_lost()));
    if let Some(membership) = &server.deps.membership {
        let end = |of: &str, seconds: u64| {
            let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
            metrics.certificate_expiry.with_label_values(&[of]).set(seconds);
        };
        let tls = membership.tls();
        end("server", tls.certificate().not_after_s);
        let first = tls.trust().authorities().map(|authority| authority.not_after_s).min();
        end("authority", first.unwrap_or_default());
    }
    (kind, metrics.text())
}

/// This document.
#[utoipa::path(get, path = "/api/v1/openapi.json", operation_id = "openapi", tag = "system",
    responses((status = 200, body = Object, content_type = "application/json")))]
pub(super) async fn openapi() -> impl IntoResponse {
    static TEXT: OnceLock<String> = OnceLock::new();
    let text = TEXT.get_or_init(|| super::openapi().to_json().expect("the document has string keys only"));
    ([(header::CONTENT_TYPE, "application/json")], text.as_str())
}
