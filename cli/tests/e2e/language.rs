//! What the pipeline language promises, in real containers: cells, outputs, conditions, a step that waits for
//! a person, and runs of one group.

use crate::cluster::{Cluster, step};
use serde_json::{Value, json};

const PIPELINE: &str = r#"
include: [ci/base.yml]
concurrency: { group: "${{ git.ref }}", cancel_in_progress: true }
defaults: { extends: base }
stages:
  - name: make
    steps:
      - name: count
        matrix: { n: [1, 2, 3], max_parallel: 2 }
        env: { N: "${{ matrix.n }}" }
        run: 'echo "cell=$N" >> "$BUILDFLOW_OUTPUT"'
      - name: version
        run: ['echo "full=1.2 beta" >> "$BUILDFLOW_OUTPUT"', 'echo "**built**" >> "$BUILDFLOW_SUMMARY"']
  - name: use
    steps:
      - name: use
        needs: [count, version]
        env: { VERSION: "${{ needs.version.outputs.full }}", CELL: "${{ needs['count(2)'].outputs.cell }}" }
        run:
          - echo "version $VERSION of cell $CELL"
          - { name: not for this version, if: env.VERSION == '0', run: exit 9 }
      - { name: never, needs: [version], if: needs.version.outputs.full == '0', run: exit 9 }
      - { name: broken, needs: [version], allow_failure: true, run: 'echo "no equals sign" >> "$BUILDFLOW_OUTPUT"' }
      - { name: ship, needs: [version], manual: true, run: echo shipped }
      - { name: hold, needs: [version], run: sleep 600 }
  - name: after
    steps:
      - { name: goes-on, needs: [never], run: 'true' }
"#;

const BASE: &str = "templates: {base: {image: 'oci:busybox', resources: {cpu: 50m, memory: 64Mi, disk: 64Mi}}}\n";

#[test]
fn cells_outputs_conditions_people_and_groups() {
    if !crate::can_run("cells_outputs_conditions_people_and_groups") {
        return;
    }
    let cluster = Cluster::start("");
    let repository = crate::repository::Repository::new(&cluster.path().join("repository"));
    let commit = |text: &str| repository.commit(&[(".buildflow.yml", PIPELINE), ("ci/base.yml", BASE), ("text", text)]);
    let first = commit("one");
    cluster.create_pipeline("language", &repository.url());
    let run = cluster.push(&repository.url(), &first);
    let status = |shown: &Value, name: &str| step(shown, name)["status"].as_str().unwrap_or_default().to_owned();
    let shown = cluster.until("all has ended but what waits", |c| {
        let shown = c.run(&run)?;
        let ends = [
            ("use", "success"),
            ("never", "skipped"),
            ("broken", "failed"),
            ("goes-on", "success"),
        ];
        (ends.iter().all(|(name, end)| status(&shown, name) == *end) && status(&shown, "hold") == "running")
            .then_some(shown)
    });
    assert_eq!(step(&shown, "count(3)")["outputs"], json!({ "cell": "3" }));
    let version = step(&shown, "version");
    assert_eq!(
        (&version["outputs"]["full"], &version["summary"]),
        (&json!("1.2 beta"), &json!("**built**\n"))
    );
    let broken = step(&shown, "broken");
    assert_eq!(broken["outcome"], json!("output_refused"), "{broken}");
    let log = String::from_utf8(cluster.whole_log(&shown, "use")).expect("UTF-8");
    assert!(
        log.contains("version 1.2 beta of cell 2\n") && !log.contains("not for this"),
        "{log}"
    );

    assert_eq!(status(&shown, "ship"), "pending");
    let started = cluster.client(&["start", &run, "ship"]);
    assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
    cluster.until("it was shipped", |c| {
        (status(&c.run(&run)?, "ship") == "success").then_some(())
    });
    let again = cluster.client(&["start", &run, "ship"]);
    assert!(!again.status.success() && String::from_utf8_lossy(&again.stderr).contains("does not wait for a person"));

    let next = cluster.push(&repository.url(), &commit("two"));
    let ended = cluster.ended(&run);
    assert_eq!(ended["status"], json!("cancelled"), "{ended:#}");
    let reason = step(&ended, "hold")["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("run 2 took its place"), "{reason}");
    cluster.until("the next one goes on", |c| {
        (status(&c.run(&next)?, "hold") == "running").then_some(())
    });
    let cancelled = cluster.client(&["cancel", &next]);
    assert!(
        cancelled.status.success(),
        "{}",
        String::from_utf8_lossy(&cancelled.stderr)
    );
    cluster.ended(&next);
    cluster.stop_clean();
}
