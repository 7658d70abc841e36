//! `POST /events/push`.

use super::stage::{FILE, Reply, Stage, file_url};
use serde_json::{Value, json};
use std::collections::BTreeSet;

const AT: &str = "/api/v1/events/push";

fn event(repository: &str, commit: &str) -> Value {
    json!({"repository": repository, "ref": "refs/heads/main", "commit": commit})
}

fn runs(reply: &Reply) -> Vec<&Value> {
    reply.json["runs"]
        .as_array()
        .unwrap_or_else(|| panic!("{reply:?}"))
        .iter()
        .collect()
}

#[tokio::test]
async fn a_push_becomes_a_run_of_its_commit() {
    let stage = Stage::new().await;
    let repository = stage.pipeline("app", FILE).await;
    let commit = repository.commit(FILE, "second thoughts\n\nand a body");
    let reply = stage.post(AT, &event(&repository.url(), &commit)).await;
    assert_eq!(reply.code.as_u16(), 201, "{reply:?}");
    let run = runs(&reply)[0];
    assert_eq!(
        (&run["number"], &run["status"], &run["created"]),
        (&json!(1), &json!("queued"), &json!(true))
    );
    assert_eq!(
        run["web_url"],
        format!("http://ci.example/runs/{}", run["run_id"].as_str().unwrap())
    );
    let shown = stage
        .get(&format!("/api/v1/runs/{}", run["run_id"].as_str().unwrap()))
        .await
        .json;
    assert_eq!(shown["commit"], commit);
    assert_eq!(shown["event"], "push");
    assert_eq!(shown["branch"], "main");
    assert_eq!(shown["message"], "second thoughts");
    assert!(shown["author"].as_str().unwrap().starts_with("Ada"));
    assert_eq!(shown["requested_by"], "root");
    assert_eq!(shown["request_id"], reply.headers["x-request-id"].to_str().unwrap());
    assert_eq!(shown["stages"][0]["steps"][0]["status"], "queued");
    assert_eq!(shown["stages"][1]["steps"][0]["status"], "pending");
}

#[tokio::test]
async fn every_pipeline_of_the_repository_runs_however_its_address_is_written() {
    let stage = Stage::new().await;
    let repository = stage.pipeline("one", FILE).await;
    let path = repository.path.display().to_string();
    for (name, address) in [("two", format!("{path}/")), ("three", path.clone())] {
        let body = json!({"name": name, "repository": address});
        assert_eq!(stage.post("/api/v1/pipelines", &body).await.code.as_u16(), 201);
    }
    let reply = stage.post(AT, &event(&format!("{path}.git"), &repository.head())).await;
    assert_eq!(reply.code.as_u16(), 201, "{reply:?}");
    let names: BTreeSet<&str> = runs(&reply).iter().map(|r| r["pipeline"].as_str().unwrap()).collect();
    assert_eq!(names, BTreeSet::from(["one", "two", "three"]));
    let ids: BTreeSet<&str> = runs(&reply).iter().map(|r| r["run_id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 3);
}

#[tokio::test]
async fn what_a_push_cannot_start_is_told() {
    let stage = Stage::new().await;
    let repository = stage.pipeline("app", FILE).await;
    let (url, head) = (repository.url(), repository.head());
    let unknown = stage.post(AT, &event(&file_url(stage.folder.path()), &head)).await;
    assert!(
        unknown
            .problem(404, "not-found")
            .contains("no pipeline builds the repository")
    );
    let zeros = stage.post(AT, &event(&url, &"0".repeat(40))).await;
    assert_eq!((zeros.code.as_u16(), runs(&zeros).len()), (200, 0));
    assert!(zeros.json["message"].as_str().unwrap().contains("deleted"));
    let notes = json!({"repository": url, "ref": "refs/notes/commits", "commit": head});
    let notes = stage.post(AT, &notes).await;
    assert_eq!((notes.code.as_u16(), runs(&notes).len()), (200, 0));
    let cases = [
        (json!({"repository": url, "ref": "main", "commit": head}), "full ref"),
        (
            json!({"repository": url, "ref": "refs/heads/", "commit": head}),
            "full ref",
        ),
        (json!({"repository": url, "ref": "", "commit": head}), "`ref`"),
        (
            json!({"repository": url, "ref": "refs/heads/a\nb", "commit": head}),
            "`ref`",
        ),
        (
            json!({"repository": "", "ref": "refs/heads/main", "commit": head}),
            "`repository`",
        ),
        (event(&url, "HEAD"), "full commit id"),
        (event(&url, &head[..12]), "full commit id"),
        (
            json!({"repository": url, "ref": "refs/heads/main"}),
            "missing field `commit`",
        ),
    ];
    for (body, expected) in cases {
        let reply = stage.post(AT, &body).await;
        let detail = reply.problem(400, "bad-request");
        assert!(detail.contains(expected), "{body}: {detail}");
    }
    assert_eq!(stage.get("/api/v1/runs").await.json["runs"], json!([]));
}

#[tokio::test]
async fn a_tag_is_its_own_event() {
    let stage = Stage::new().await;
    let repository = stage.pipeline("app", FILE).await;
    repository.git(&["tag", "v1"]);
    let body = json!({"repository": repository.url(), "ref": "refs/tags/v1", "commit": repository.head()});
    let reply = stage.post(AT, &body).await;
    assert_eq!(reply.code.as_u16(), 201, "{reply:?}");
    let shown = stage
        .get(&format!("/api/v1/runs/{}", runs(&reply)[0]["run_id"].as_str().unwrap()))
        .await
        .json;
    assert_eq!(
        (&shown["event"], &shown["tag"], &shown["branch"]),
        (&json!("tag"), &json!("v1"), &Value::Null)
    );
}

#[tokio::test]
async fn what_is_wrong_with_the_commit_becomes_a_visible_failed_run() {
    let stage = Stage::new().await;
    let repository = stage.pipeline("app", FILE).await;
    let no_such = "1234567890123456789012345678901234567890";
    let invalid = repository.commit("stages:\n  - nome: x\n", "broken file");
    repository.git(&["rm", "-q", ".buildflow.yml"]);
    repository.git(&["commit", "-q", "-m", "no file"]);
    let without = repository.head();
    for (number, (commit, message)) in [
        (no_such, "has no commit 1234567890123456789012345678901234567890"),
        (invalid.as_str(), "the pipeline file `.buildflow.yml` at commit"),
        (without.as_str(), "there is no file `.buildflow.yml` at commit"),
    ]
    .into_iter()
    .enumerate()
    {
        let reply = stage.post(AT, &event(&repository.url(), commit)).await;
        assert_eq!(reply.code.as_u16(), 201, "{reply:?}");
        let run = runs(&reply)[0];
        assert_eq!(
            (&run["number"], &run["status"]),
            (&json!(number + 1), &json!("failed")),
            "{reply:?}"
        );
        let shown = stage
            .get(&format!("/api/v1/runs/{}", run["run_id"].as_str().unwrap()))
            .await
            .json;
        let error = shown["error"].as_str().unwrap();
        assert!(error.contains(message), "{error}");
        assert_eq!(shown["stages"], json!([]));
        let findings = shown["findings"].as_array().unwrap();
        assert_eq!(findings.is_empty(), commit != invalid, "{shown}");
    }
}

#[tokio::test]
async fn the_same_push_is_one_run_and_another_commit_another() {
    let stage = Stage::new().await;
    let repository = stage.pipeline("app", FILE).await;
    let first = repository.head();
    let made = stage.post(AT, &event(&repository.url(), &first)).await;
    let again = stage.post(AT, &event(&repository.url(), &first.to_uppercase())).await;
    assert_eq!((made.code.as_u16(), again.code.as_u16()), (201, 200));
    assert_eq!(runs(&made)[0]["run_id"], runs(&again)[0]["run_id"]);
    assert_eq!(
        (&runs(&again)[0]["number"], &runs(&again)[0]["created"]),
        (&json!(1), &json!(false))
    );
    let second = repository.commit(FILE, "second");
    let other = stage.post(AT, &event(&repository.url(), &second)).await;
    assert_eq!((other.code.as_u16(), &runs(&other)[0]["number"]), (201, &json!(2)));
}
