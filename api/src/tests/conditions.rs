//! What stands in a request's head: conditions, keys, encodings, and how much a token may ask for.

use super::served::serve_with;
use super::stage::{ADMIN, FILE, PATIENCE, Stage};
use crate::Allowance;
use axum::body::Body;
use axum::http::{HeaderMap, Method, header};
use flate2::Compression;
use flate2::write::GzEncoder;
use model::StepStatus;
use serde_json::{Value, json};
use std::io::Write;

async fn with(
    stage: &Stage,
    method: &str,
    path: &str,
    body: Option<&Value>,
    head: &[(&str, &str)],
) -> super::stage::Reply {
    let mut request = match body {
        Some(body) => Stage::json(method, path, body),
        None => Stage::request(method, path).body(Body::empty()).unwrap(),
    };
    for (name, value) in head {
        let name: header::HeaderName = name.parse().unwrap();
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    stage.ask(request).await
}

fn tag(headers: &HeaderMap) -> String {
    headers[header::ETAG].to_str().unwrap().to_owned()
}

#[tokio::test]
async fn what_has_not_changed_is_not_sent_again() {
    let stage = Stage::new().await;
    stage.pipeline("app", FILE).await;
    let run = stage.run("app").await;
    for path in [
        format!("/api/v1/runs/{run}"),
        format!("/api/v1/pipelines/default/app/runs/{run}"),
        "/api/v1/runs".to_owned(),
        "/api/v1/pipelines/default/app/runs?limit=1".to_owned(),
        "/api/v1/pipelines".to_owned(),
        "/api/v1/pipelines/default/app".to_owned(),
        "/api/v1/nodes".to_owned(),
        "/api/v1/openapi.json".to_owned(),
    ] {
        let first = stage.get(&path).await;
        let tag = tag(&first.headers);
        assert!(tag.starts_with('"') && tag.ends_with('"'), "{path}: {tag}");
        for known in [tag.clone(), format!("\"x\", W/{tag}"), "*".to_owned()] {
            let again = with(&stage, "GET", &path, None, &[("if-none-match", &known)]).await;
            assert_eq!((again.code.as_u16(), again.text.as_str()), (304, ""), "{path}");
            assert_eq!(again.headers[header::ETAG], tag.as_str(), "{path}");
        }
        let other = with(&stage, "GET", &path, None, &[("if-none-match", "\"x\"")]).await;
        assert_eq!((other.code.as_u16(), other.text), (200, first.text), "{path}");
    }
    let path = format!("/api/v1/runs/{run}");
    let before = tag(&stage.get(&path).await.headers);
    stage.lead(&run, 0, StepStatus::Running).await;
    let after = with(&stage, "GET", &path, None, &[("if-none-match", &before)]).await;
    assert_eq!(after.code.as_u16(), 200);
    assert_ne!(tag(&after.headers), before);
    let gone = with(&stage, "GET", "/api/v1/runs/none", None, &[("if-none-match", "*")]).await;
    gone.problem(404, "not-found");
}

#[tokio::test]
async fn a_pipeline_is_written_only_if_it_is_as_the_writer_believes() {
    let stage = Stage::new().await;
    let path = "/api/v1/pipelines/default/app";
    let (one, two) = (
        json!({"repository": "file:///srv/one"}),
        json!({"repository": "file:///srv/two"}),
    );
    with(&stage, "PUT", path, Some(&one), &[("if-match", "*")])
        .await
        .problem(412, "precondition-failed");
    let made = with(&stage, "PUT", path, Some(&one), &[("if-none-match", "*")]).await;
    assert_eq!(made.code.as_u16(), 201, "{made:?}");
    with(&stage, "PUT", path, Some(&two), &[("if-none-match", "*")])
        .await
        .problem(412, "precondition-failed");
    let read = tag(&stage.get(path).await.headers);
    let changed = with(&stage, "PUT", path, Some(&two), &[("if-match", &read)]).await;
    assert_eq!(changed.code.as_u16(), 200, "{changed:?}");
    // The tag of an answer to a write does as well as one that was read.
    let late = with(&stage, "PUT", path, Some(&one), &[("if-match", &read)]).await;
    assert!(late.problem(412, "precondition-failed").contains("somebody else"));
    with(&stage, "DELETE", path, None, &[("if-match", &read)])
        .await
        .problem(412, "precondition-failed");
    assert_eq!(stage.get(path).await.json["repository"], "file:///srv/two");
    let newest = tag(&changed.headers);
    let removed = with(&stage, "DELETE", path, None, &[("if-match", &newest)]).await;
    assert_eq!(removed.code.as_u16(), 204, "{removed:?}");
}

#[tokio::test]
async fn a_new_run_does_not_change_what_a_writer_of_the_pipeline_believes() {
    let stage = Stage::new().await;
    let repository = stage.pipeline("app", FILE).await;
    let path = "/api/v1/pipelines/default/app";
    let read = tag(&stage.get(path).await.headers);
    stage.run("app").await;
    assert_ne!(tag(&stage.get(path).await.headers), read, "readers are told of the run");
    let body = json!({"repository": repository.url(), "file": "other.yml"});
    let changed = with(&stage, "PUT", path, Some(&body), &[("if-match", &read)]).await;
    assert_eq!(changed.code.as_u16(), 200, "{changed:?}");
}

#[tokio::test]
async fn a_condition_that_no_route_knows_fails() {
    let stage = Stage::new().await;
    stage.pipeline("app", FILE).await;
    let run = stage.run("app").await;
    let cancel = format!("/api/v1/runs/{run}/cancel");
    for (method, path, head) in [
        ("POST", cancel.as_str(), ("if-match", "\"x\"")),
        ("POST", "/api/v1/pipelines", ("if-none-match", "*")),
        ("DELETE", "/api/v1/nodes/n", ("if-match", "*")),
        (
            "DELETE",
            "/api/v1/pipelines/default/app",
            ("if-unmodified-since", "Sun, 22 Nov 2026 00:00:00 GMT"),
        ),
    ] {
        let refused = with(&stage, method, path, Some(&json!({})), &[head]).await;
        assert!(
            refused.problem(412, "precondition-failed").contains(head.0),
            "{method} {path}"
        );
    }
    assert_eq!(
        stage.get(&format!("/api/v1/runs/{run}")).await.json["cancel_requested"],
        false
    );
}

#[tokio::test]
async fn a_compressed_body_is_refused_unread() {
    let stage = Stage::new().await;
    let mut bomb = GzEncoder::new(Vec::new(), Compression::best());
    for _ in 0..256 {
        bomb.write_all(&[b' '; 1024 * 1024]).unwrap();
    }
    let bomb = bomb.finish().unwrap();
    assert!(
        bomb.len() < 1024 * 1024,
        "a quarter of a gibibyte in {} bytes",
        bomb.len()
    );
    for encoding in ["gzip", "br", "zstd", "deflate", "GZIP", "gzip, gzip"] {
        for path in [
            "/api/v1/pipelines/validate",
            "/api/v1/events/push",
            "/api/v1/pipelines/default/app/runs",
        ] {
            let request = Stage::request("POST", path)
                .header(header::CONTENT_TYPE, "application/json")
                .header(header::CONTENT_ENCODING, encoding)
                .body(Body::from(bomb.clone()))
                .unwrap();
            let refused = stage.ask(request).await;
            assert!(
                refused
                    .problem(415, "unsupported-media-type")
                    .contains("content-encoding"),
                "{encoding}"
            );
            assert_eq!(refused.headers[header::ACCEPT_ENCODING], "identity");
        }
    }
    let (path, body) = ("/api/v1/pipelines/validate", json!({"text": "x"}));
    let plain = with(&stage, "POST", path, Some(&body), &[("content-encoding", "identity")]).await;
    assert_eq!(plain.code.as_u16(), 200);
}

#[tokio::test]
async fn a_key_that_cannot_be_one_is_refused_by_every_post() {
    let stage = Stage::new().await;
    for path in [
        "/api/v1/pipelines/validate",
        "/api/v1/session",
        "/api/v1/join-tokens",
        "/api/v1/runs/x/cancel",
    ] {
        for key in ["", "a b", &"x".repeat(129)] {
            let refused = with(&stage, "POST", path, Some(&json!({})), &[("idempotency-key", key)]).await;
            assert!(
                refused.problem(400, "bad-request").contains("Idempotency-Key"),
                "{path} {key}"
            );
        }
    }
}

#[tokio::test]
async fn under_a_key_the_same_request_is_done_once() {
    let stage = Stage::new().await;
    let repository = stage.pipeline("app", FILE).await;
    let key = |of: &'static str| [("idempotency-key", of)];
    let body = json!({"name": "new", "repository": repository.url()});
    let create = |body: Value, of| {
        let stage = &stage;
        async move { with(stage, "POST", "/api/v1/pipelines", Some(&body), &key(of)).await }
    };
    assert_eq!(create(body.clone(), "k").await.code.as_u16(), 201);
    let again = create(body.clone(), "k").await;
    assert_eq!((again.code.as_u16(), again.json["name"].as_str()), (200, Some("new")));
    create(json!({"name": "other", "repository": repository.url()}), "k")
        .await
        .problem(409, "conflict");
    create(body.clone(), "another").await.problem(409, "conflict");
    assert_eq!(
        with(&stage, "DELETE", "/api/v1/pipelines/default/new", None, &[])
            .await
            .code
            .as_u16(),
        204
    );
    assert!(
        create(body, "k")
            .await
            .problem(409, "conflict")
            .contains("removed since")
    );

    let run = stage.run("app").await;
    let path = format!("/api/v1/runs/{run}/cancel");
    assert_eq!(with(&stage, "POST", &path, None, &key("c")).await.code.as_u16(), 202);
    for step in 0..3 {
        stage.lead(&run, step, StepStatus::Success).await;
    }
    // It has ended otherwise since; the same request is answered as it was.
    let again = with(&stage, "POST", &path, None, &key("c")).await;
    assert_eq!(
        (again.code.as_u16(), again.json["status"].as_str()),
        (202, Some("success")),
        "{again:?}"
    );
    with(&stage, "POST", &path, None, &key("d"))
        .await
        .problem(409, "conflict");
}

#[tokio::test]
async fn one_token_is_refused_beyond_its_share_and_the_next_is_not() {
    let allowance = Allowance {
        per_second: 1,
        burst: 3,
        ..Allowance::default()
    };
    let served = serve_with(allowance).await;
    let client = reqwest::Client::new();
    let ask = |token: &'static str, path: &str| {
        let request = client
            .get(format!("http://{}{path}", served.address))
            .bearer_auth(token);
        async move { tokio::time::timeout(PATIENCE, request.send()).await.unwrap().unwrap() }
    };
    crate::tokens::ensure(served.server.store(), "second", model::Role::Admin, "bf_second")
        .await
        .unwrap();
    let known = |p: &crate::view::Picture| p.token(&crate::tokens::hash("bf_second")).is_some();
    assert!(served.server.view.wait_until(known, PATIENCE).await);
    let mut refused = None;
    for _ in 0..20 {
        let answer = ask(ADMIN, "/api/v1/nodes").await;
        if answer.status().as_u16() == 429 {
            refused = Some(answer);
            break;
        }
        assert_eq!(answer.status().as_u16(), 200);
    }
    let refused = refused.expect("twenty at once are too many");
    let wait: u64 = refused.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=2).contains(&wait), "{wait}");
    let problem: Value = serde_json::from_str(&refused.text().await.unwrap()).unwrap();
    assert_eq!(problem["type"], "urn:buildflow:problem:too-many-requests");
    assert!(
        problem["detail"].as_str().unwrap().contains("1 requests a second"),
        "{problem}"
    );
    assert_eq!(ask("bf_second", "/api/v1/nodes").await.status().as_u16(), 200);
    assert_eq!(ask("none", "/healthz").await.status().as_u16(), 200);
    // Whoever waits as long as it was told is served.
    tokio::time::sleep(std::time::Duration::from_secs(wait)).await;
    assert_eq!(ask(ADMIN, "/api/v1/nodes").await.status().as_u16(), 200);
    served.end().await;
}

#[tokio::test]
async fn a_token_may_hold_so_many_streams_and_the_next_one_too() {
    let mut stage = Stage::new().await;
    let config = crate::ApiConfig {
        allowance: Allowance {
            streams: 2,
            ..Allowance::default()
        },
        ..stage.server.config.clone()
    };
    let server = crate::state::Server::new(config, stage.server.deps.clone());
    stage.loops.shutdown().await;
    stage.router = crate::rest::router(&server);
    stage.server = server;
    stage.start_view().await;
    stage.start_intake();
    stage.pipeline("app", FILE).await;
    let run = stage.run("app").await;
    let open = |path: String| {
        let request = Stage::request("GET", &path).body(Body::empty()).unwrap();
        tower::ServiceExt::oneshot(stage.router.clone(), request)
    };
    let first = open(format!("/api/v1/runs/{run}/events")).await.unwrap();
    let second = open(format!("/api/v1/runs/{run}/logs?follow=true")).await.unwrap();
    for path in ["events", "logs?follow=true", "steps/compile/logs?follow=true"] {
        let refused = stage.get(&format!("/api/v1/runs/{run}/{path}")).await;
        assert!(
            refused.problem(429, "too-many-requests").contains("2 streams"),
            "{path}"
        );
        assert!(refused.headers.contains_key(header::RETRY_AFTER));
    }
    drop((first, second));
    let again = open(format!("/api/v1/runs/{run}/events")).await.unwrap();
    assert_eq!(
        again.status().as_u16(),
        200,
        "a stream that is closed gives its place back"
    );
}

#[tokio::test]
async fn texts_in_the_address_are_bounded() {
    let stage = Stage::new().await;
    stage.pipeline("app", FILE).await;
    let long = "x".repeat(2_000);
    for name in ["branch", "person", "commit", "cursor", "status"] {
        let reply = stage.get(&format!("/api/v1/runs?{name}={long}")).await;
        assert!(reply.problem(400, "bad-request").contains(name), "{name}");
    }
    for path in [format!("/api/v1/runs/{long}"), format!("/api/v1/nodes/{long}")] {
        assert!(stage.get(&path).await.problem(404, "not-found").len() < 400, "{path}");
    }
    let methods = [Method::GET, Method::POST];
    for method in methods {
        let reply = with(&stage, method.as_str(), "/api/v1/runs/%ff%fe/cancel", None, &[]).await;
        assert!(matches!(reply.code.as_u16(), 400 | 405), "{reply:?}");
    }
}
