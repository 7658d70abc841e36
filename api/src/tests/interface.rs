//! What holds for every route: described, guarded, bounded, and wrong in one form only.

use super::mortal::Absent;
use super::stage::{ADMIN, NODE, PATIENCE, Stage};
use crate::limit::BODY_MAX;
use crate::rest;
use axum::body::Body;
use axum::http::{Request, header};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

const METHODS: [&str; 5] = ["get", "put", "post", "delete", "patch"];
const OPEN: [&str; 4] = ["/healthz", "/readyz", "/metrics", "/api/v1/openapi.json"];

/// The contract's routes, as it writes them.
const CONTRACT: &[&str] = &[
    "POST /pipelines/{team}/{pipeline}/runs",
    "GET /pipelines/{team}/{pipeline}/runs",
    "GET /pipelines/{team}/{pipeline}/runs/{run_id}",
    "GET /runs/{run_id}",
    "POST /runs/{run_id}/cancel",
    "POST /runs/{run_id}/retry",
    "POST /runs/{run_id}/steps/{step}/retry",
    "POST /runs/{run_id}/steps/{step}/approve",
    "POST /runs/{run_id}/steps/{step}/reject",
    "GET /runs/{run_id}/events",
    "GET /runs/{run_id}/logs",
    "GET /runs/{run_id}/steps/{step}/logs",
    "GET /runs/{run_id}/steps/{step}/explain",
    "POST /runs/{run_id}/artifacts",
    "GET /runs/{run_id}/artifacts",
    "GET /artifacts/{id}",
    "POST /events/push",
    "POST /webhooks/{forge}/{team}",
    "GET /nodes",
    "POST /nodes/{node}/drain",
    "POST /nodes/{node}/cordon",
    "POST /nodes/{node}/uncordon",
    "GET /caches",
    "GET /dead-letters",
    "POST /dead-letters/{id}/requeue",
    "GET /usage",
    "GET /top",
    "GET /audit",
    "POST /runs/{run_id}/steps/{step}/shell",
    "POST /pipelines/validate",
    "GET /badges/{team}/{badge}",
];

fn document() -> Value {
    serde_json::to_value(rest::openapi()).unwrap()
}

/// Every operation of the document: path template and method.
fn operations() -> Vec<(String, String)> {
    let document = document();
    let paths = document["paths"].as_object().unwrap();
    let of = |(path, item): (&String, &Value)| {
        let methods = METHODS.iter().filter(|m| item.get(**m).is_some());
        methods.map(|m| (path.clone(), (*m).to_owned())).collect::<Vec<_>>()
    };
    paths.iter().flat_map(of).collect()
}

/// A path that the template matches.
fn filled(template: &str) -> String {
    let part = |p: &str| {
        if p.starts_with('{') {
            "x".to_owned()
        } else {
            p.to_owned()
        }
    };
    template.split('/').map(part).collect::<Vec<_>>().join("/")
}

/// Routes that only our own programs ask: another server, an agent with a signed address.
const BETWEEN_OURSELVES: [&str; 2] = ["/api/v1/relay/logs/{alloc}", "/blobs/{*name}"];

/// What browsers open: views, and files.
fn is_of_the_page(template: &str) -> bool {
    crate::page::VIEWS.contains(&template) || template.starts_with("/assets/") || template == "/icon.svg"
}

/// The templates of the router itself, out of its debug form: the only way it tells them.
fn router_templates(stage: &Stage) -> BTreeSet<String> {
    let text = format!("{:?}", stage.router);
    let quoted = text.split('"').skip(1).step_by(2);
    let own = |t: &&str| {
        let is_named = *t != "/{*__private__axum_fallback}" && !BETWEEN_OURSELVES.contains(t);
        t.starts_with('/') && is_named && !is_of_the_page(t)
    };
    quoted.filter(own).map(str::to_owned).collect()
}

#[tokio::test]
async fn the_document_and_the_router_have_the_same_routes() {
    let stage = Stage::new().await;
    let mut described: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (path, method) in operations() {
        described.entry(path).or_default().insert(method);
    }
    let templates: BTreeSet<String> = described.keys().cloned().collect();
    assert_eq!(templates, router_templates(&stage));
    for (path, methods) in &described {
        for method in METHODS {
            let request = Stage::request(&method.to_uppercase(), &filled(path));
            let response = tower::ServiceExt::oneshot(stage.router.clone(), request.body(Body::empty()).unwrap());
            let code = tokio::time::timeout(PATIENCE, response)
                .await
                .unwrap()
                .unwrap()
                .status()
                .as_u16();
            assert_eq!(code != 405, methods.contains(method), "{method} {path}: {code}");
        }
    }
}

#[test]
fn every_route_of_the_contract_is_described() {
    let described: BTreeSet<String> = operations()
        .iter()
        .map(|(path, method)| format!("{} {}", method.to_uppercase(), filled(path)))
        .collect();
    for route in CONTRACT {
        let (method, path) = route.split_once(' ').unwrap();
        let wanted = format!("{method} /api/v1{}", filled(path));
        assert!(described.contains(&wanted), "{route}");
    }
}

#[test]
fn the_document_is_openapi_3_1_and_complete_in_itself() {
    let document = document();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    let text = document.to_string();
    let references = text
        .split("\"#/components/schemas/")
        .skip(1)
        .map(|r| r.split('"').next().unwrap());
    let mut seen = 0;
    for name in references {
        seen += 1;
        assert!(document["components"]["schemas"].get(name).is_some(), "{name}");
    }
    assert!(seen > 30, "{seen}");
    let mut ids = BTreeSet::new();
    for (path, method) in operations() {
        let responses = document["paths"][&path][&method]["responses"].as_object().unwrap();
        for (code, response) in responses {
            // Many are described once, by name.
            let named = response["$ref"]
                .as_str()
                .and_then(|r| r.strip_prefix("#/components/responses/"));
            let response = named.map_or(response, |name| &document["components"]["responses"][name]);
            let at = format!("{method} {path} {code}");
            assert!(!response["description"].as_str().unwrap_or_default().is_empty(), "{at}");
            let is_problem = response["content"].get("application/problem+json").is_some();
            assert_eq!(is_problem, code.as_str() >= "400" && path != "/readyz", "{at}");
        }
        if let Some(id) = document["paths"][&path][&method]["operationId"].as_str() {
            assert!(ids.insert(id.to_owned()), "{id} twice");
        }
    }
}

#[tokio::test]
async fn every_route_wants_an_administrators_token_unless_it_is_open() {
    let stage = Stage::new().await;
    for (path, method) in operations() {
        let ask = |token: Option<&str>| {
            let mut request = Request::builder()
                .method(method.to_uppercase().as_str())
                .uri(filled(&path));
            if let Some(token) = token {
                request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
            }
            stage.ask(request.body(Body::empty()).unwrap())
        };
        let without = ask(None).await;
        if OPEN.contains(&path.as_str()) {
            assert_eq!(without.code.as_u16(), 200, "{path}");
            continue;
        }
        assert_eq!(without.code.as_u16(), 401, "{method} {path}");
        without.problem(401, "unauthorized");
        assert!(without.headers.contains_key(header::WWW_AUTHENTICATE), "{path}");
        ask(Some("bf_unknown")).await.problem(401, "unauthorized");
        let node = ask(Some(NODE)).await;
        node.problem(403, "forbidden");
        assert!(
            node.headers[header::WWW_AUTHENTICATE]
                .to_str()
                .unwrap()
                .contains("insufficient_scope")
        );
        assert!(
            !matches!(ask(Some(ADMIN)).await.code.as_u16(), 401 | 403),
            "{method} {path}"
        );
    }
}

#[tokio::test]
async fn what_is_not_built_yet_says_so_by_name() {
    let stage = Stage::new().await;
    let reply = stage.post("/api/v1/runs/01jd/retry", &json!({})).await;
    assert!(reply.problem(501, "not-supported-yet").contains("retrying a run"));
    let reply = stage.get("/api/v1/usage").await;
    assert!(reply.problem(501, "not-supported-yet").contains("usage"));
}

#[tokio::test]
async fn unknown_routes_and_methods_are_problems_too() {
    let stage = Stage::new().await;
    assert!(
        stage
            .get("/api/v1/nothing")
            .await
            .problem(404, "not-found")
            .contains("/api/v1/nothing")
    );
    assert!(stage.get("/x").await.problem(404, "not-found").contains("openapi.json"));
    let reply = stage.put("/api/v1/nodes", &json!({})).await;
    reply.problem(405, "method-not-allowed");
    assert!(reply.headers[header::ALLOW].to_str().unwrap().contains("GET"));
    let odd = Request::builder()
        .method("FROBNICATE")
        .uri("/healthz")
        .body(Body::empty())
        .unwrap();
    stage.ask(odd).await.problem(405, "method-not-allowed");
}

#[tokio::test]
async fn a_body_that_cannot_be_read_is_refused_with_its_place() {
    let stage = Stage::new().await;
    let send = |kind: &str, body: String| {
        let request = Stage::request("POST", "/api/v1/events/push").header(header::CONTENT_TYPE, kind);
        stage.ask(request.body(Body::from(body)).unwrap())
    };
    let cases = [
        ("", "empty"),
        ("{", "line 1 column 1"),
        ("{\"repository\": \"r\",\n \"ref\": 5}", "line 2 column 9, field `ref`"),
        (
            "{\"repository\": \"r\", \"ref\": \"r\", \"commit\": \"c\", \"sha\": 1}",
            "unknown field `sha`",
        ),
        ("{\"repository\": \"r\", \"repository\": \"r\"}", "duplicate field"),
        ("{} {}", "missing field"),
        ("[1, 2]", "line 1"),
        (" [\"file:///r\", \"refs/heads/main\", \"c\"]", "expected an object"),
        ("null", "line 1 column 4: invalid type: null, expected an object"),
        ("nonsense", "line 1 column 2"),
    ];
    for (body, expected) in cases {
        let reply = send("application/json", body.to_owned()).await;
        let detail = reply.problem(400, "bad-request");
        assert!(detail.contains(expected), "{body}: {detail}");
    }
    let deep = format!("{{\"repository\": {}", "[".repeat(100_000));
    send("application/json", deep).await.problem(400, "bad-request");
    let reply = send("application/json", "{\"repository\": \"r\",\n \"ref\": 5}".to_owned()).await;
    assert_eq!(reply.json["errors"][0]["line"], 2);
    assert_eq!(reply.json["errors"][0]["column"], 9);
    assert_eq!(reply.json["errors"][0]["field"], "ref");
    send("text/html", "{}".to_owned())
        .await
        .problem(415, "unsupported-media-type");
    let large = format!("{{\"repository\": \"{}\"}}", "x".repeat(BODY_MAX));
    send("application/json", large).await.problem(413, "too-large");
    let not_utf8 = Stage::request("POST", "/api/v1/events/push").header(header::CONTENT_TYPE, "application/json");
    stage
        .ask(not_utf8.body(Body::from(vec![b'"', 0xff, b'"'])).unwrap())
        .await
        .problem(400, "bad-request");
}

#[tokio::test]
async fn a_request_id_goes_in_and_out_if_it_is_harmless() {
    let stage = Stage::new().await;
    let ask = |id: &'static str| {
        let request = Stage::request("GET", "/api/v1/nodes").header("x-request-id", id);
        stage.ask(request.body(Body::empty()).unwrap())
    };
    assert_eq!(ask("abc-1.2_3:4").await.headers["x-request-id"], "abc-1.2_3:4");
    let long: &'static str = Box::leak("x".repeat(200).into_boxed_str());
    for bad in ["a b", "x\"y", "", long] {
        let id = ask(bad).await.headers["x-request-id"].to_str().unwrap().to_owned();
        assert!(id != bad && id.len() == 26, "{id}");
    }
}

#[tokio::test]
async fn the_state_of_the_server_is_told() {
    let stage = Stage::new().await;
    let health = stage.get("/healthz").await;
    assert_eq!(health.json["status"], "ok");
    let ready = stage.get("/readyz").await;
    assert_eq!(ready.code.as_u16(), 200);
    assert_eq!(ready.json["leader"], Value::Null);
    assert!(ready.json["problems"][0].as_str().unwrap().contains("nobody leads"));
    let leader = model::Leader {
        server: "two".to_owned(),
        unknown: model::record::Unknown::new(),
    };
    stage.write(store::Txn::new().put(model::key::LEADER, &leader)).await;
    let ready = stage.get("/readyz").await;
    assert_eq!(ready.json["leader"], "two");
    assert_eq!(ready.json["server"], "one");
    assert_eq!(ready.json["problems"], json!([]));
}

#[tokio::test]
async fn a_server_without_a_picture_is_not_ready_and_says_so() {
    let stage = Stage::over(std::sync::Arc::default(), tempfile::tempdir().unwrap()).await;
    let ready = stage.get("/readyz").await;
    assert_eq!(ready.code.as_u16(), 503);
    assert_eq!(ready.json["view"], false);
    let reply = stage.get("/api/v1/runs").await;
    reply.problem(503, "unavailable");
    assert!(reply.headers.contains_key(header::RETRY_AFTER));
}

#[tokio::test]
async fn requests_are_counted_by_template_never_by_path() {
    let stage = Stage::new().await;
    stage.get("/api/v1/runs/01jd").await.problem(404, "not-found");
    stage.get("/api/v1/anything/else").await.problem(404, "not-found");
    let text = stage.get("/metrics").await.text;
    let line = |needle: &str| text.lines().any(|l| l.starts_with(needle));
    assert!(
        line("buildflow_http_requests_total{code=\"404\",method=\"GET\",route=\"/api/v1/runs/{run_id}\"} 1"),
        "{text}"
    );
    assert!(
        line("buildflow_http_requests_total{code=\"404\",method=\"GET\",route=\"none\"} 1"),
        "{text}"
    );
    assert!(line("buildflow_http_requests_in_flight 1"), "{text}");
    assert!(!text.contains("anything"));
    let other = prometheus::Registry::new();
    let counter = prometheus::IntCounter::new("buildflow_other_total", "Another role's.").unwrap();
    other.register(Box::new(counter)).unwrap();
    stage.server.metrics.add_registry(other);
    assert!(stage.get("/metrics").await.text.contains("buildflow_other_total 0"));
}

#[tokio::test]
async fn a_handler_that_panics_answers_500_and_the_server_lives() {
    let stage = Stage::new().await;
    struct Fuse;
    #[async_trait::async_trait]
    impl crate::explain::Explain for Fuse {
        async fn explain(&self, _: &model::RunId, _: usize) -> Option<crate::explain::Waiting> {
            panic!("injected");
        }
    }
    let mut deps = stage.server.deps.clone();
    deps.explain = std::sync::Arc::new(Fuse);
    let server = crate::state::Server::new(stage.server.config.clone(), deps);
    let follower = server.clone();
    let task = tokio::spawn(async move {
        let stop = follower.deps.shutdown.clone();
        follower
            .view
            .follow(follower.store(), &follower.definitions, &stop)
            .await;
    });
    assert!(server.view.wait_until_current(PATIENCE).await);
    stage.pipeline("p", super::stage::FILE).await;
    let run = stage.run("p").await;
    assert!(server.view.wait_for_run(&run, PATIENCE).await);
    let router = rest::router(&server);
    let broken = Stage { router, ..stage };
    let reply = broken.get(&format!("/api/v1/runs/{run}/steps/compile/explain")).await;
    assert!(!reply.problem(500, "internal").contains("injected"));
    assert_eq!(broken.get("/healthz").await.code.as_u16(), 200);
    task.abort();
}

#[tokio::test]
async fn without_its_store_the_server_shows_what_it_knows_and_refuses_the_rest_for_now() {
    let stage = Stage::new().await;
    let repository = stage.pipeline("app", super::stage::FILE).await;
    let absent = std::sync::Arc::new(Absent::new(stage.store.clone()));
    let mut stage = stage.reborn(absent.clone()).await;
    stage.start_view().await;
    stage.start_intake();
    let run = stage.run("app").await;
    absent.away.store(1, std::sync::atomic::Ordering::SeqCst);
    let commit = repository.head();
    let push = json!({"repository": repository.url(), "ref": "refs/heads/main", "commit": commit});
    for (path, body) in [
        ("/api/v1/events/push", push),
        ("/api/v1/pipelines/default/app/runs", json!({"force": true})),
        ("/api/v1/pipelines", json!({"name": "new", "repository": "/srv/new"})),
        (&format!("/api/v1/runs/{run}/cancel"), json!({})),
    ] {
        let reply = stage.post(path, &body).await;
        let detail = reply.problem(503, "unavailable");
        assert!(!detail.contains("secret-host"), "{detail}");
        assert!(reply.headers.contains_key(header::RETRY_AFTER), "{path}");
    }
    let ready = stage.get("/readyz").await;
    assert_eq!((ready.code.as_u16(), &ready.json["store"]), (503, &json!(false)));
    assert_eq!(stage.get("/api/v1/runs").await.json["runs"][0]["run_id"], run.as_str());
    absent.away.store(0, std::sync::atomic::Ordering::SeqCst);
    stage.run("app").await;
}
