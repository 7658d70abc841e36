//! A push becomes a run, its steps run in containers, the log is whole.

use crate::cluster::{Cluster, step};
use serde_json::json;

const PIPELINE: &str = r#"
name: hello
env: { GREETING: hello }
defaults: { image: "oci:busybox", resources: { cpu: 100m, memory: 64Mi, disk: 64Mi } }
stages:
  - name: first
    steps:
      - name: greet
        run:
          - export NAME=world
          - { name: say it, run: 'echo "$GREETING $NAME from $BUILDFLOW_STEP"' }
      - name: look
        before: [echo before]
        run: [pwd, cat file.txt, 'test "$BUILDFLOW_COMMIT" != ""', 'hostname']
        after: [echo after]
  - name: second
    steps:
      - name: shaky
        allow_failure: true
        run: exit 3
      - name: check
        needs: [greet]
        env: { GREETING: goodbye }
        run: 'test "$GREETING" = goodbye'
"#;

#[test]
fn a_push_runs_to_its_end() {
    if !crate::can_run("a_push_runs_to_its_end") {
        return;
    }
    let cluster = Cluster::start("");
    let repository = crate::repository::Repository::new(&cluster.path().join("repository"));
    let commit = repository.commit(&[(".buildflow.yml", PIPELINE), ("file.txt", "from the repository\n")]);
    cluster.create_pipeline("hello", &repository.url());
    let id = cluster.push(&repository.url(), &commit);
    assert_eq!(
        cluster.push(&repository.url(), &commit),
        id,
        "the same push again is the same run"
    );

    let run = cluster.ended(&id);
    assert_eq!(run["status"], json!("success"), "{run:#}");
    assert_eq!(run["number"], json!(1));
    for (name, status) in [
        ("greet", "success"),
        ("look", "success"),
        ("shaky", "failed"),
        ("check", "success"),
    ] {
        assert_eq!(step(&run, name)["status"], json!(status), "{name}");
    }
    let log = |name: &str| String::from_utf8(cluster.whole_log(&run, name)).expect("UTF-8");
    assert!(
        log("greet").contains("hello world from greet\n"),
        "one shell for all entries: {}",
        log("greet")
    );
    assert!(
        log("greet").contains("say it"),
        "a named entry heads its section: {}",
        log("greet")
    );
    let look = log("look");
    for part in ["before\n", "/workspace\n", "from the repository\n", "after\n"] {
        assert!(look.contains(part), "{part:?} in {look}");
    }
    cluster.stop_clean();
}

#[test]
fn the_command_line_follows_a_run_and_exits_with_its_result() {
    if !crate::can_run("the_command_line_follows_a_run_and_exits_with_its_result") {
        return;
    }
    let cluster = Cluster::start("");
    let lines = "defaults: { image: \"oci:busybox\", resources: { memory: 64Mi, disk: 64Mi } }\nstages:\n  - name: only\n    steps:\n      - { name: count, run: 'for i in $(seq 1 5); do echo line $i; sleep 0.2; done; exit ";
    for (name, code) in [("good", 0), ("bad", 1)] {
        let run = cluster.submit(name, &format!("{lines}{code}' }}\n"));
        let output = cluster.client(&["logs", &run, "--follow"]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!((1..=5).all(|i| text.contains(&format!("line {i}"))), "{text}");
        assert_eq!(
            output.status.code(),
            Some(code),
            "{text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let shown = cluster.client(&["runs", "--output", "json"]);
    let listed: serde_json::Value = serde_json::from_slice(&shown.stdout).expect("JSON");
    assert_eq!(listed["runs"].as_array().map(Vec::len), Some(2), "{listed}");
    cluster.stop_clean();
}

#[test]
fn a_cancelled_run_ends_at_once_and_what_waits_never_starts() {
    if !crate::can_run("a_cancelled_run_ends_at_once_and_what_waits_never_starts") {
        return;
    }
    let cluster = Cluster::start("");
    let run = cluster.submit(
        "long",
        "defaults: { image: \"oci:busybox\", resources: { memory: 64Mi, disk: 64Mi } }\nstages:\n  - { name: a, steps: [{ name: wait, run: sleep 600 }] }\n  - { name: b, steps: [{ name: never, run: echo no }] }\n",
    );
    cluster.until("the step runs", |c| {
        (step(&c.run(&run)?, "wait")["status"] == json!("running")).then_some(())
    });
    let output = cluster.client(&["cancel", &run]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let shown = cluster.ended(&run);
    assert_eq!(shown["status"], json!("cancelled"), "{shown:#}");
    assert_eq!(step(&shown, "wait")["status"], json!("cancelled"));
    assert_eq!(step(&shown, "never")["status"], json!("cancelled"));
    cluster.stop_clean();
}
