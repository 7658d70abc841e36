//! Registering pipelines, and checking pipeline files.

use super::stage::{FILE, Stage};
use axum::body::Body;
use axum::http::header;
use serde_json::{Value, json};

#[tokio::test]
async fn a_pipeline_lives_from_its_registration_to_its_removal() {
    let stage = Stage::new().await;
    let body = json!({"name": "app", "repository": "https://example.org/app.git"});
    let made = stage.post("/api/v1/pipelines", &body).await;
    assert_eq!(made.code.as_u16(), 201);
    assert_eq!(made.json["team"], "default");
    assert_eq!(made.json["file"], ".buildflow.yml");
    assert_eq!(made.json["last_run"], Value::Null);
    stage.post("/api/v1/pipelines", &body).await.problem(409, "conflict");
    let at = "/api/v1/pipelines/default/app";
    assert_eq!(stage.get(at).await.json, made.json);
    let changed = stage
        .put(at, &json!({"repository": "git@example.org:app", "file": "ci/app.yml"}))
        .await;
    assert_eq!(
        (changed.code.as_u16(), changed.json["created_ms"].clone()),
        (200, made.json["created_ms"].clone())
    );
    assert_eq!(stage.get(at).await.json["file"], "ci/app.yml");
    let put = stage
        .put("/api/v1/pipelines/default/new", &json!({"repository": "/srv/git/new"}))
        .await;
    assert_eq!(put.code.as_u16(), 201);
    let list = stage.get("/api/v1/pipelines").await;
    let names: Vec<&str> = list.json["pipelines"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["app", "new"]);
    let delete = || stage.ask(Stage::request("DELETE", at).body(Body::empty()).unwrap());
    let gone = delete().await;
    assert_eq!((gone.code.as_u16(), gone.text.as_str()), (204, ""));
    delete().await.problem(404, "not-found");
    stage.get(at).await.problem(404, "not-found");
}

#[tokio::test]
async fn the_same_registration_under_a_key_is_answered_again() {
    let stage = Stage::new().await;
    let body = json!({"name": "app", "repository": "/srv/git/app"});
    let send = |body: Value| {
        let mut request = Stage::json("POST", "/api/v1/pipelines", &body);
        request.headers_mut().insert("idempotency-key", "k1".parse().unwrap());
        stage.ask(request)
    };
    assert_eq!(send(body.clone()).await.code.as_u16(), 201);
    assert_eq!(send(body).await.code.as_u16(), 200);
    let other = json!({"name": "app", "repository": "/srv/git/other"});
    send(other).await.problem(409, "conflict");
}

#[tokio::test]
async fn pages_of_pipelines_follow_each_other_without_gap() {
    let stage = Stage::new().await;
    for n in 0..7 {
        let body = json!({"name": format!("p{n}"), "repository": "/srv/git/app"});
        assert_eq!(stage.post("/api/v1/pipelines", &body).await.code.as_u16(), 201);
    }
    let mut names = Vec::new();
    let mut path = "/api/v1/pipelines?team=default&limit=3".to_owned();
    loop {
        let page = stage.get(&path).await;
        names.extend(
            page.json["pipelines"]
                .as_array()
                .unwrap()
                .iter()
                .map(|p| p["name"].as_str().unwrap().to_owned()),
        );
        let Some(cursor) = page.json["next_cursor"].as_str() else {
            break;
        };
        path = format!("/api/v1/pipelines?team=default&limit=3&cursor={cursor}");
    }
    assert_eq!(names, ["p0", "p1", "p2", "p3", "p4", "p5", "p6"]);
    assert_eq!(
        stage.get("/api/v1/pipelines?team=other").await.json["pipelines"],
        json!([])
    );
}

#[tokio::test]
async fn what_is_wrong_with_a_registration_is_told() {
    let stage = Stage::new().await;
    let long = "x".repeat(2000);
    let cases = [
        (json!({"name": "A b", "repository": "/srv/a"}), "legal name"),
        (json!({"name": "", "repository": "/srv/a"}), "legal name"),
        (
            json!({"name": "a", "team": "../x", "repository": "/srv/a"}),
            "legal name",
        ),
        (
            json!({"name": "a", "team": "nobody", "repository": "/srv/a"}),
            "no team `nobody`",
        ),
        (json!({"name": "a", "repository": ""}), "`repository`"),
        (json!({"name": "a", "repository": "srv/a"}), "`repository`"),
        (json!({"name": "a", "repository": "ext::sh -c x"}), "`repository`"),
        (json!({"name": "a", "repository": "--upload-pack=x"}), "`repository`"),
        (json!({"name": "a", "repository": long}), "`repository`"),
        (json!({"name": "a", "repository": "/srv/a", "file": "../x"}), "`file`"),
        (
            json!({"name": "a", "repository": "/srv/a", "file": "/etc/passwd"}),
            "`file`",
        ),
        (
            json!({"name": "a", "repository": "/srv/a", "file": ".git/config"}),
            "`file`",
        ),
        (
            json!({"name": "a", "repository": "/srv/a", "file": "a\u{0}b"}),
            "`file`",
        ),
        (json!({"name": "a"}), "missing field `repository`"),
        (
            json!({"name": "a", "repository": "/srv/a", "branch": "x"}),
            "unknown field `branch`",
        ),
    ];
    for (body, expected) in cases {
        let reply = stage.post("/api/v1/pipelines", &body).await;
        let detail = reply.problem(400, "bad-request");
        assert!(detail.contains(expected), "{body}: {detail}");
    }
}

#[tokio::test]
async fn what_is_wrong_with_an_address_is_told() {
    let stage = Stage::new().await;
    stage
        .put("/api/v1/pipelines/default/UPPER", &json!({"repository": "/srv/a"}))
        .await
        .problem(400, "bad-request");
    stage
        .put("/api/v1/pipelines/nobody/p", &json!({"repository": "/srv/a"}))
        .await
        .problem(400, "bad-request");
    stage
        .get("/api/v1/pipelines/default/%00")
        .await
        .problem(404, "not-found");
    stage
        .get("/api/v1/pipelines/default/%ff")
        .await
        .problem(400, "bad-request");
    stage
        .get("/api/v1/pipelines?colour=red")
        .await
        .problem(400, "bad-request");
    stage.get("/api/v1/pipelines?limit=0").await.problem(400, "bad-request");
    stage
        .get("/api/v1/pipelines?limit=501")
        .await
        .problem(400, "bad-request");
    stage
        .get("/api/v1/pipelines?cursor=x")
        .await
        .problem(400, "bad-request");
}

#[tokio::test]
async fn a_pipeline_file_is_checked_as_json_or_as_it_is() {
    let stage = Stage::new().await;
    let at = "/api/v1/pipelines/validate";
    let good = stage.post(at, &json!({"text": FILE})).await;
    assert_eq!(good.json["valid"], true, "{good:?}");
    let stages = &good.json["plan"]["stages"];
    assert_eq!(stages[1]["steps"][0]["name"], "unit");
    assert_eq!(stages[1]["steps"][0]["needs"], json!(["compile"]));
    let bad = "stages:\n  - name: build\n    steps:\n      - { name: a, image: x, script: make }\n";
    let as_yaml = Stage::request("POST", at).header(header::CONTENT_TYPE, "application/yaml; charset=utf-8");
    let reply = stage.ask(as_yaml.body(Body::from(bad)).unwrap()).await;
    assert_eq!((reply.code.as_u16(), reply.json["valid"].clone()), (200, json!(false)));
    assert_eq!(reply.json["findings"][0]["line"], 4, "{reply:?}");
    assert_eq!(reply.json["plan"], Value::Null);
    let kind = Stage::request("POST", at).header(header::CONTENT_TYPE, "image/png");
    stage
        .ask(kind.body(Body::from("x")).unwrap())
        .await
        .problem(415, "unsupported-media-type");
    stage.post(at, &json!({"yaml": "x"})).await.problem(400, "bad-request");
    let over = json!({"text": "#".repeat(1024 * 1024 + 1)});
    assert_eq!(stage.post(at, &over).await.json["valid"], false);
    let huge = json!({"text": "#".repeat(crate::limit::VALIDATE_BODY_MAX)});
    stage.post(at, &huge).await.problem(413, "too-large");
}
