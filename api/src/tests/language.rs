//! What the pipeline language asks of the server: events that make no run, inputs, included files,
//! steps that wait for a person, and what steps leave behind.

use super::stage::{FILE, Reply, Repository, Stage, record};
use model::{Left, RunId, StepStatus};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const PUSH: &str = "/api/v1/events/push";
const RUNS: &str = "/api/v1/pipelines/default/app/runs";

fn file(top: &str, keys: &str) -> String {
    format!("{top}\nstages: [{{name: s, steps: [{{name: a, image: 'oci:base', run: r, {keys}}}]}}]\n")
}

fn event(repository: &Repository, branch: &str, before: Option<&str>) -> Value {
    let mut event =
        json!({"repository": repository.url(), "ref": format!("refs/heads/{branch}"), "commit": repository.head()});
    if let Some(before) = before {
        event["before"] = json!(before);
    }
    event
}

async fn first_step(stage: &Stage, run: &RunId) -> Value {
    let shown = stage.get(&format!("/api/v1/runs/{run}")).await.json;
    assert_eq!(shown["error"], json!(null), "{shown}");
    shown["stages"][0]["steps"][0].clone()
}

fn pushed(reply: &Reply) -> (u16, usize, &Value) {
    let runs = reply.json["runs"].as_array().unwrap_or_else(|| panic!("{reply:?}"));
    (reply.code.as_u16(), runs.len(), &reply.json["without_run"])
}

#[tokio::test]
async fn a_push_that_the_file_does_not_want_makes_no_run_and_is_told() {
    let stage = Stage::new().await;
    let text = file("on: {push: {branches: ['release/*']}}", "");
    let repository = stage.pipeline("app", &text).await;
    let reply = stage.post(PUSH, &event(&repository, "main", None)).await;
    assert_eq!(pushed(&reply), (200, 0, &json!(["default/app"])), "{reply:?}");
    assert!(
        reply.json["message"].as_str().unwrap().contains("no pipeline file"),
        "{reply:?}"
    );
    assert_eq!(stage.get(RUNS).await.json["runs"], json!([]));
    let wanted = stage.post(PUSH, &event(&repository, "release/1", None)).await;
    assert_eq!((wanted.code.as_u16(), pushed(&wanted).1), (201, 1), "{wanted:?}");
    assert_eq!(
        wanted.json["runs"][0]["number"], 1,
        "a push without a run takes no number"
    );
    let manual = stage.post(RUNS, &json!({"branch": "main"})).await;
    assert_eq!(manual.code.as_u16(), 201, "a person may always: {manual:?}");
}

#[tokio::test]
async fn what_a_push_changed_decides_about_the_run_and_its_steps() {
    let stage = Stage::new().await;
    let text = file("on: {push: {paths: ['src/**', .buildflow.yml]}}", "changes: ['src/**']");
    let repository = stage.pipeline("app", &text).await;
    let mut before = repository.head();
    let mut push = async |name: &str| {
        std::fs::create_dir_all(repository.path.join("src")).unwrap();
        std::fs::write(repository.path.join(name), &before).unwrap();
        repository.git(&["add", "-A"]);
        repository.git(&["commit", "-q", "-m", name]);
        let reply = stage.post(PUSH, &event(&repository, "main", Some(&before))).await;
        before = repository.head();
        reply
    };
    let docs = push("README.md").await;
    assert_eq!(pushed(&docs).1, 0, "{docs:?}");
    let source = push("src/main.rs").await;
    assert_eq!(pushed(&source).1, 1, "{source:?}");
    let run = RunId::new(source.json["runs"][0]["run_id"].as_str().unwrap()).unwrap();
    assert_eq!(first_step(&stage, &run).await["status"], "queued");
    std::fs::write(repository.path.join(".buildflow.yml"), format!("{text}# more\n")).unwrap();
    repository.git(&["commit", "-q", "-am", "the file"]);
    let own = stage.post(PUSH, &event(&repository, "main", Some(&before))).await;
    let run = RunId::new(own.json["runs"][0]["run_id"].as_str().unwrap()).unwrap();
    // Whoever leads writes that it is skipped; that it does not start, and why, is known before.
    assert_eq!(first_step(&stage, &run).await["status"], "pending");
    let explained = stage.get(&format!("/api/v1/runs/{run}/steps/a/explain")).await;
    assert!(explained.text.contains("changed"), "{explained:?}");
    // What is not known counts as changed: a new branch, and a commit that is gone after a forced push.
    for unknown in ["0".repeat(40), "12345678".repeat(5)] {
        repository.git(&["commit", "-q", "--allow-empty", "-m", &unknown]);
        let reply = stage.post(PUSH, &event(&repository, "main", Some(&unknown))).await;
        assert_eq!(pushed(&reply).1, 1, "{reply:?}");
    }
    let wrong = stage.post(PUSH, &event(&repository, "main", Some("HEAD~1"))).await;
    assert!(wrong.problem(400, "bad-request").contains("before"));
}

#[tokio::test]
async fn inputs_reach_expressions_and_wrong_ones_are_told() {
    let stage = Stage::new().await;
    let inputs = "on: {manual: {inputs: {target: {type: choice, options: [staging, production], default: staging}, n: {type: number, required: true}}}}";
    let text = file(inputs, "title: \"to ${{ inputs.target }} by ${{ inputs.n + 1 }}\"");
    stage.pipeline("app", &text).await;
    let made = stage
        .post(
            RUNS,
            &json!({"branch": "main", "inputs": {"target": "production", "n": 2}}),
        )
        .await;
    assert_eq!(made.code.as_u16(), 201, "{made:?}");
    assert_eq!(first_step(&stage, &made.run_id()).await["title"], "to production by 3");
    let other = stage.post(RUNS, &json!({"branch": "main", "inputs": {"n": 2}})).await;
    assert_ne!(other.run_id(), made.run_id(), "other inputs are another run");
    assert_eq!(first_step(&stage, &other.run_id()).await["title"], "to staging by 3");
    for (inputs, expected) in [
        (json!({"target": "moon", "n": 1}), "target"),
        (json!({"n": 1, "targt": "staging"}), "targt"),
        (json!({"target": "staging"}), "`n`"),
    ] {
        let reply = stage.post(RUNS, &json!({"branch": "main", "inputs": inputs})).await;
        let detail = reply.problem(400, "bad-request");
        assert!(detail.contains(expected), "{inputs}: {detail}");
    }
    let none = stage.run("app").await;
    let shown = stage.get(&format!("/api/v1/runs/{none}")).await.json;
    assert_eq!((&shown["status"], &shown["stages"]), (&json!("failed"), &json!([])));
    assert!(shown["findings"][0].as_str().unwrap().contains("`n`"), "{shown}");
    let many: BTreeMap<String, u32> = (0..200).map(|n| (format!("i{n}"), n)).collect();
    let reply = stage.post(RUNS, &json!({"branch": "main", "inputs": many})).await;
    assert!(reply.problem(400, "bad-request").contains("inputs"));
}

#[tokio::test]
async fn files_of_the_same_and_of_another_repository_are_included() {
    let stage = Stage::new().await;
    let templates = Repository::new(stage.folder.path().join("templates"));
    std::fs::write(
        templates.path.join("rust.yml"),
        "templates: {rust: {image: 'oci:rust', env: {FROM: templates}}}\n",
    )
    .unwrap();
    let pin = templates.commit(FILE, "templates");
    templates.git(&["rm", "-q", "rust.yml"]);
    templates.git(&["commit", "-q", "-m", "gone from the branch, not from the pin"]);
    let body = json!({"name": "templates", "repository": templates.url()});
    assert_eq!(stage.post("/api/v1/pipelines", &body).await.code.as_u16(), 201);
    let text = |include: &str| {
        format!("include: [{include}]\nstages: [{{name: s, steps: [{{name: a, extends: rust, run: r}}]}}]\n")
    };
    let both = text(&format!(
        "ci/env.yml, {{repo: default/templates, ref: {pin}, file: rust.yml}}"
    ));
    let repository = stage.pipeline("app", &both).await;
    std::fs::create_dir_all(repository.path.join("ci")).unwrap();
    std::fs::write(repository.path.join("ci/env.yml"), "env: {LOCAL: yes it is}\n").unwrap();
    repository.commit(&both, "with env");
    let run = stage.run("app").await;
    assert_eq!(first_step(&stage, &run).await["image"], "oci:rust");
    for (include, expected) in [
        ("ci/nothing.yml".to_owned(), "ci/nothing.yml"),
        (
            format!("{{repo: default/other, ref: {pin}, file: rust.yml}}"),
            "no pipeline `default/other`",
        ),
        (
            format!("{{repo: other/templates, ref: {pin}, file: rust.yml}}"),
            "no pipeline `other/templates`",
        ),
        (
            format!(
                "{{repo: default/templates, ref: {}, file: rust.yml}}",
                "12345678".repeat(5)
            ),
            "rust.yml",
        ),
        (
            "{repo: default/templates, ref: main, file: rust.yml}".to_owned(),
            "full commit id",
        ),
    ] {
        repository.commit(&text(&include), &include);
        let run = stage.run("app").await;
        let shown = stage.get(&format!("/api/v1/runs/{run}")).await.json;
        assert_eq!(shown["status"], "failed", "{include}: {shown}");
        assert!(shown["findings"].to_string().contains(expected), "{include}: {shown}");
    }
}

#[tokio::test]
async fn a_step_that_waits_for_a_person_is_started_once_and_only_then() {
    let stage = Stage::new().await;
    let text = "stages: [{name: s, steps: [{name: a, image: 'oci:b', run: r}, {name: ship, needs: [a], manual: true, image: 'oci:b', run: r}, {name: long, image: 'oci:b', run: r}]}]";
    stage.pipeline("app", text).await;
    let run = stage.run("app").await;
    let start = |step: &str| format!("/api/v1/runs/{run}/steps/{step}/start");
    let early = stage.post(&start("ship"), &json!({})).await;
    assert!(early.problem(409, "conflict").contains("does not wait for a person"));
    let other = stage.post(&start("a"), &json!({})).await;
    assert!(other.problem(409, "conflict").contains("not `manual`"));
    stage.post(&start("nope"), &json!({})).await.problem(404, "not-found");
    stage.lead(&run, 0, StepStatus::Success).await;
    for _ in 0..2 {
        let reply = stage.post(&start("ship"), &json!({})).await;
        assert_eq!(reply.code.as_u16(), 202, "{reply:?}");
    }
    let (requests, _) = store::live::read_all(stage.store.as_ref(), model::key::REQUESTS)
        .await
        .unwrap();
    assert_eq!(requests.len(), 1, "asked twice, wanted once");
    // The run ends without it.
    stage.lead(&run, 2, StepStatus::Success).await;
    let late = stage.post(&start("ship"), &json!({})).await;
    assert!(late.problem(409, "conflict").contains("does not wait for a person"));
}

#[tokio::test]
async fn outputs_and_the_summary_of_a_step_are_shown() {
    let stage = Stage::new().await;
    stage.pipeline("app", &file("", "")).await;
    let run = stage.run("app").await;
    let step = first_step(&stage, &run).await;
    assert_eq!(
        (&step["outputs"], step.get("summary")),
        (&json!({}), Some(&json!(null)))
    );
    let mut ended = record(StepStatus::Success);
    ended.left = Left {
        outputs: BTreeMap::from([("version".to_owned(), "1.2".to_owned())]),
        summary: "# Fine\n".to_owned(),
    };
    stage.lead_record(&run, 0, ended).await;
    let step = first_step(&stage, &run).await;
    assert_eq!(
        (&step["outputs"], &step["summary"]),
        (&json!({"version": "1.2"}), &json!("# Fine\n"))
    );
}
