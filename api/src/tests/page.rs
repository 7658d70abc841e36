//! The page's files, its addresses, and the cookie of who is logged in.

use super::stage::{ADMIN, NODE, Reply, Stage};
use crate::page::VIEWS;
use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use serde_json::{Value, json};

async fn ask(stage: &Stage, method: &str, path: &str, headers: &[(&str, &str)]) -> Reply {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    stage.ask(request.body(Body::empty()).unwrap()).await
}

fn cookie_of(reply: &Reply) -> String {
    let set = reply.headers[header::SET_COOKIE].to_str().unwrap();
    set.split(';').next().unwrap().to_owned()
}

#[tokio::test]
async fn every_view_is_the_same_document_with_strict_rules() {
    let stage = Stage::new().await;
    for view in VIEWS {
        let path = view.replace(['{', '}'], "");
        let reply = ask(&stage, "GET", &path, &[]).await;
        assert_eq!(reply.code, StatusCode::OK, "{path}");
        assert_eq!(reply.headers[header::CONTENT_TYPE], "text/html; charset=utf-8");
        let policy = reply.headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        for rule in [
            "default-src 'none'",
            "script-src 'self'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
        ] {
            assert!(policy.contains(rule), "{policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(reply.headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
        assert_eq!(reply.headers[header::X_FRAME_OPTIONS], "DENY");
        assert!(
            !reply.text.contains("<script>") && !reply.text.contains("onload="),
            "nothing is inline"
        );
    }
}

#[tokio::test]
async fn the_address_of_a_run_is_a_view() {
    let stage = Stage::new().await;
    stage.pipeline("app", super::stage::FILE).await;
    let run = stage.run("app").await;
    let address = stage.get(&format!("/api/v1/runs/{run}")).await.json["web_url"].clone();
    let path = address
        .as_str()
        .unwrap()
        .strip_prefix("http://ci.example")
        .unwrap()
        .to_owned();
    let reply = ask(&stage, "GET", &path, &[("accept", "text/html")]).await;
    assert_eq!(reply.code, StatusCode::OK, "{address}");
    assert!(reply.text.starts_with("<!doctype html>"));
}

#[tokio::test]
async fn a_browser_at_no_view_is_shown_the_page_and_a_program_a_problem() {
    let stage = Stage::new().await;
    for path in ["/nothing", "/runs/x/steps", "/pipelines/one"] {
        let person = ask(&stage, "GET", path, &[("accept", "text/html,*/*")]).await;
        assert_eq!(person.code, StatusCode::NOT_FOUND);
        assert!(person.text.starts_with("<!doctype html>"), "{}", person.text);
        ask(&stage, "GET", path, &[("accept", "*/*")])
            .await
            .problem(404, "not-found");
    }
    let missing = ask(&stage, "GET", "/api/v1/nothing", &[("accept", "text/html")]).await;
    missing.problem(404, "not-found");
    let asset = ask(&stage, "GET", "/assets/none.js", &[("accept", "*/*")]).await;
    assert_eq!(asset.code, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn logging_in_sets_a_cookie_that_no_script_can_read() {
    let stage = Stage::new().await;
    let bearer = format!("Bearer {ADMIN}");
    let headers = [("authorization", bearer.as_str()), ("host", "ci.example:7420")];
    let made = ask(&stage, "POST", "/api/v1/session", &headers).await;
    assert_eq!(made.json["name"], "root");
    let not_yet = made.json["not_yet"].as_array().unwrap();
    assert!(not_yet.contains(&json!("POST /webhooks/{forge}/{team}")), "{not_yet:?}");
    let set = made.headers[header::SET_COOKIE].to_str().unwrap();
    for part in [
        "buildflow-7420=",
        "; HttpOnly",
        "; SameSite=Strict",
        "; Path=/api/",
        "; Max-Age=604800",
    ] {
        assert!(set.contains(part), "{set}");
    }
    assert!(!set.contains("Secure"), "plain HTTP would never send it back");
    assert_eq!(made.headers[header::CACHE_CONTROL], "no-store");

    let cookie = format!("other=1; {}", cookie_of(&made));
    let with = [("cookie", cookie.as_str()), ("host", "ci.example:7420")];
    let known = ask(&stage, "GET", "/api/v1/session", &with).await;
    assert_eq!(known.json["name"], "root");
    assert!(known.headers.contains_key(header::SET_COOKIE), "a week from now on");
    assert_eq!(ask(&stage, "GET", "/api/v1/runs", &with).await.code, StatusCode::OK);
    // Another port of the same machine is another server.
    let other = [("cookie", cookie.as_str()), ("host", "ci.example:7421")];
    ask(&stage, "GET", "/api/v1/runs", &other)
        .await
        .problem(401, "unauthorized");

    let forwarded = [headers[0], headers[1], ("x-forwarded-proto", "https")];
    let made = ask(&stage, "POST", "/api/v1/session", &forwarded).await;
    let set = made.headers[header::SET_COOKIE].to_str().unwrap();
    assert!(set.ends_with("; Secure"), "{set}");
}

#[tokio::test]
async fn with_the_cookie_alone_nothing_is_changed_unless_the_page_asks() {
    let stage = Stage::new().await;
    let cookie = format!("buildflow={ADMIN}");
    let bare = [("cookie", cookie.as_str())];
    let page = [("cookie", cookie.as_str()), ("x-buildflow-page", "1")];
    for (method, path) in [
        ("POST", "/api/v1/runs/01jd/cancel"),
        ("POST", "/api/v1/session"),
        ("DELETE", "/api/v1/pipelines/default/x"),
        ("PUT", "/api/v1/pipelines/default/x"),
    ] {
        ask(&stage, method, path, &bare).await.problem(403, "forbidden");
        let code = ask(&stage, method, path, &page).await.code;
        assert!(!matches!(code.as_u16(), 401 | 403), "{method} {path}: {code}");
    }
    let gone = ask(&stage, "DELETE", "/api/v1/session", &page).await;
    assert_eq!(gone.code, StatusCode::NO_CONTENT);
    assert!(
        gone.headers[header::SET_COOKIE]
            .to_str()
            .unwrap()
            .contains("buildflow=; Path=/api/; Max-Age=0")
    );
    // A header is believed, and a cookie beside it is not looked at.
    let wrong = [bare[0], ("authorization", "Bearer bf_unknown")];
    ask(&stage, "GET", "/api/v1/runs", &wrong)
        .await
        .problem(401, "unauthorized");
    let node = format!("buildflow={NODE}");
    ask(&stage, "GET", "/api/v1/runs", &[("cookie", &node)])
        .await
        .problem(403, "forbidden");
    for broken in ["buildflow=", "buildflow", "=x", ";;;", "buildflow=a b\"c"] {
        let reply = ask(&stage, "GET", "/api/v1/runs", &[("cookie", broken)]).await;
        reply.problem(401, "unauthorized");
    }
}

#[tokio::test]
async fn runs_are_found_by_the_person_that_caused_them() {
    let stage = Stage::new().await;
    stage.pipeline("app", super::stage::FILE).await;
    let run = stage.run("app").await;
    let all = stage.get("/api/v1/runs").await;
    let author = all.json["runs"][0]["author"].as_str().unwrap();
    let author = author.split(' ').next().unwrap().to_uppercase();
    assert!(author.len() > 2, "{author}");
    for (person, count) in [(author.as_str(), 1), ("roo", 1), ("nobody-at-all", 0)] {
        for list in ["/api/v1/runs", "/api/v1/pipelines/default/app/runs"] {
            let found = stage.get(&format!("{list}?person={person}")).await;
            let runs = found.json["runs"].as_array().unwrap();
            assert_eq!(runs.len(), count, "{list} {person}");
            assert!(runs.iter().all(|r| r["run_id"] == run.as_str()));
            assert_eq!(found.json["next_cursor"], Value::Null);
        }
    }
}
