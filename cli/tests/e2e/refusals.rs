//! What cannot be done is said precisely, loses nothing, and leaves nothing.

use crate::cluster::{Cluster, step};
use crate::repository::Repository;
use serde_json::{Value, json};

/// A pipeline of one step `only` that runs `script` in `image`.
fn one_step(image: &str, script: &str, more: &str) -> String {
    format!(
        "stages:\n  - name: one\n    steps:\n      - name: only\n        image: \"{image}\"\n        resources: {{ memory: 64Mi, disk: 64Mi }}\n        run: '{script}'\n{more}"
    )
}

fn reason(run: &Value) -> &str {
    step(run, "only")["reason"]
        .as_str()
        .unwrap_or_else(|| panic!("no reason in {run:#}"))
}

#[test]
fn unknown_pipelines_branches_and_commits_are_answered_precisely() {
    if !crate::can_run("unknown_pipelines_branches_and_commits_are_answered_precisely") {
        return;
    }
    let cluster = Cluster::start("");
    let repository = Repository::new(&cluster.path().join("repository"));
    repository.commit(&[(".buildflow.yml", &one_step("oci:busybox", "true", ""))]);
    cluster.create_pipeline("known", &repository.url());
    let cases = [
        ("unknown", json!({ "branch": "main" }), 404, "unknown"),
        ("known", json!({ "branch": "no-such" }), 400, "no-such"),
        (
            "known",
            json!({ "commit_sha": "0123456789012345678901234567890123456789" }),
            400,
            "0123456789",
        ),
        ("known", json!({ "brunch": "main" }), 400, "brunch"),
        ("known", json!({ "branch": 7 }), 400, "branch"),
    ];
    for (pipeline, body, status, named) in cases {
        let (got, problem) = cluster.post(&format!("/api/v1/pipelines/default/{pipeline}/runs"), &body);
        assert_eq!(got, status, "{body}: {problem}");
        assert!(
            problem["detail"].as_str().is_some_and(|d| d.contains(named)),
            "{body}: {problem}"
        );
    }
    let (status, problem) = cluster.post("/api/v1/events/push", &json!({ "repository": "file:///no/such", "ref": "refs/heads/main", "commit": "0123456789012345678901234567890123456789" }));
    assert_eq!(status, 404, "{problem}");
    cluster.stop_clean();
}

#[test]
fn what_goes_wrong_before_the_first_step_is_a_visible_failed_run() {
    if !crate::can_run("what_goes_wrong_before_the_first_step_is_a_visible_failed_run") {
        return;
    }
    let cluster = Cluster::start("");
    let missing = format!("file://{}/gone", cluster.path().display());
    let gone = Repository::new(&cluster.path().join("gone"));
    let commit = gone.commit(&[("file", "no pipeline file")]);
    let no_file = Repository::new(&cluster.path().join("no-file"));
    let no_file_commit = no_file.commit(&[("file", "no pipeline file")]);
    let invalid = Repository::new(&cluster.path().join("invalid"));
    let invalid_commit = invalid.commit(&[(
        ".buildflow.yml",
        "stages:\n  - name: one\n    steps:\n      - { name: a, imagee: x, run: y, needs: [b] }\n",
    )]);
    for (name, url) in [
        ("gone", &missing),
        ("no-file", &no_file.url()),
        ("invalid", &invalid.url()),
    ] {
        cluster.create_pipeline(name, url);
    }
    std::fs::rename(cluster.path().join("gone"), cluster.path().join("moved")).expect("moved away");
    let cases = [
        (missing, commit, "gone", 0),
        (no_file.url(), no_file_commit, ".buildflow.yml", 0),
        (invalid.url(), invalid_commit, "", 2),
    ];
    for (url, commit, named, findings) in cases {
        let run = cluster.ended(&cluster.push(&url, &commit));
        assert_eq!(run["status"], json!("failed"), "{url}");
        assert!(
            run["error"].as_str().is_some_and(|m| m.contains(named)),
            "{url}: {run:#}"
        );
        assert!(
            run["findings"].as_array().map_or(0, Vec::len) >= findings,
            "{url}: {run:#}"
        );
    }
    cluster.stop_clean();
}

#[test]
fn a_step_that_cannot_start_says_why() {
    if !crate::can_run("a_step_that_cannot_start_says_why") {
        return;
    }
    let cluster = Cluster::start("");
    let wrong = cluster.path().join("images/wrong-digest");
    crate::image::write_layout(&wrong, &crate::image::busybox_layer());
    let blobs: Vec<_> = std::fs::read_dir(wrong.join("blobs/sha256"))
        .expect("blobs")
        .flatten()
        .collect();
    let layer = blobs
        .iter()
        .max_by_key(|b| b.metadata().expect("size").len())
        .expect("a layer")
        .path();
    let mut bytes = std::fs::read(&layer).expect("layer");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&layer, bytes).expect("flipped a bit");

    let cases = [
        ("no-image", one_step("oci:no-such-image", "true", ""), "no-such-image"),
        ("wrong-digest", one_step("oci:wrong-digest", "true", ""), "digest"),
        (
            "no-shell",
            one_step("oci:busybox", "true", "        shell: bash\n"),
            "bash",
        ),
        (
            "no-user",
            one_step("oci:busybox", "true", "        user: nobody-here\n"),
            "nobody-here",
        ),
        ("no-registry", one_step("127.0.0.1:1/none:1", "true", ""), "127.0.0.1:1"),
    ];
    for (name, pipeline, named) in cases {
        let run = cluster.ended(&cluster.submit(name, &pipeline));
        assert_eq!(run["status"], json!("failed"), "{name}");
        assert!(reason(&run).contains(named), "{name}: {}", reason(&run));
    }
    cluster.stop_clean();
}

#[test]
fn a_step_that_no_node_has_room_for_is_explained() {
    if !crate::can_run("a_step_that_no_node_has_room_for_is_explained") {
        return;
    }
    let cluster = Cluster::start("");
    let pipeline = "stages:\n  - name: one\n    steps:\n      - { name: only, image: \"oci:busybox\", run: \"true\", resources: { cpu: 500 } }\n      - { name: arm, image: \"oci:busybox\", run: \"true\", labels: { arch: riscv64 } }\n";
    let run = cluster.submit("big", pipeline);
    for (name, parts) in [("only", ["500", "64"]), ("arm", ["arch", "riscv64"])] {
        let text = cluster.until("it is explained", |c| {
            let explained = c.get(&format!("/api/v1/runs/{run}/steps/{name}/explain"))?.to_string();
            parts.iter().all(|p| explained.contains(p)).then_some(explained)
        });
        let output = cluster.client(&["explain", &run, name]);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(parts.iter().all(|p| said.contains(p)), "{said}\n{text}");
    }
    assert!(cluster.client(&["cancel", &run]).status.success());
    cluster.ended(&run);
    cluster.stop_clean();
}

#[test]
fn steps_that_misbehave_are_ended_and_told_apart() {
    if !crate::can_run("steps_that_misbehave_are_ended_and_told_apart") {
        return;
    }
    let cluster = Cluster::start("");
    let cases = [
        (
            "ignores-term",
            one_step(
                "oci:busybox",
                "trap \"\" TERM; while true; do sleep 1; done",
                "        timeout: 2s\n",
            ),
            "timed_out",
            "timed_out",
        ),
        (
            "memory",
            one_step(
                "oci:busybox",
                "head -c 300000000 /dev/zero | tail -c 299999999 | wc -c; x=$(yes | head -c 200000000); echo no",
                "",
            ),
            "failed",
            "out_of_memory",
        ),
        (
            "signal",
            one_step("oci:busybox", "kill -SEGV $$; sleep 1; sh -c \"kill -9 \\$\\$\"", ""),
            "failed",
            "exited",
        ),
        ("code", one_step("oci:busybox", "exit 42", ""), "failed", "exited"),
    ];
    for (name, pipeline, status, kind) in cases {
        let run = cluster.ended(&cluster.submit(name, &pipeline));
        assert_eq!(step(&run, "only")["status"], json!(status), "{name}: {run:#}");
        assert_eq!(step(&run, "only")["outcome"], json!(kind), "{name}: {run:#}");
    }
    cluster.stop_clean();
}

#[test]
fn a_hundred_megabytes_in_one_line_are_kept_byte_for_byte() {
    if !crate::can_run("a_hundred_megabytes_in_one_line_are_kept_byte_for_byte") {
        return;
    }
    let cluster = Cluster::start("");
    let run = cluster.submit(
        "line",
        &one_step("oci:busybox", "head -c 104857600 /dev/zero | tr \"\\0\" x", ""),
    );
    let shown = cluster.ended(&run);
    assert_eq!(shown["status"], json!("success"), "{shown:#}");
    let log = cluster.whole_log(&shown, "only");
    assert_eq!(
        log.iter().filter(|b| **b == b'x').count() / 1_000_000,
        104,
        "{} bytes",
        log.len()
    );
    let longest = log.split(|b| *b == b'\n').map(<[u8]>::len).max();
    assert_eq!(longest, Some(104_857_600));
    cluster.stop_clean();
}
