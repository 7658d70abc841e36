//! `kill -9` of the agent, of the server, of both, with twenty steps running: all go on, are found
//! again, end with their own exit codes, and their logs are whole.

use crate::cluster::{Cluster, step};
use serde_json::json;

const STEPS: usize = 20;

/// Twenty steps that print numbered lines until a file outside says stop; step `i` exits with `i`.
fn pipeline() -> String {
    let steps: String = (0..STEPS)
        .map(|i| format!("      - {{ name: s{i}, allow_failure: true, run: 'n=0; while [ $n -lt 120 ]; do n=$((n+1)); echo \"step {i} line $n\"; sleep 0.05; done; exit {i}' }}\n"))
        .collect();
    format!(
        "defaults: {{ image: \"oci:busybox\", resources: {{ cpu: 50m, memory: 32Mi, disk: 16Mi }} }}\nstages:\n  - name: many\n    steps:\n{steps}"
    )
}

fn twenty_survive(test: &str, crash: impl Fn(&mut Cluster)) {
    if !crate::can_run(test) {
        return;
    }
    let mut cluster = Cluster::start("");
    let run = cluster.submit("many", &pipeline());
    cluster.until("all twenty run", |c| {
        let shown = c.run(&run)?;
        (0..STEPS)
            .all(|i| step(&shown, &format!("s{i}"))["status"] == json!("running"))
            .then_some(())
    });
    let before = cluster.run(&run).expect("shown");
    crash(&mut cluster);
    let after = cluster.ended(&run);
    for i in 0..STEPS {
        let name = format!("s{i}");
        let (was, is) = (step(&before, &name), step(&after, &name));
        assert_eq!(is["attempt"], json!(1), "{name} was not started again");
        assert_eq!(is["times"]["started_ms"], was["times"]["started_ms"], "{name} went on");
        assert_eq!(
            is["status"],
            json!(if i == 0 { "success" } else { "failed" }),
            "{name}: {is}"
        );
        if i > 0 {
            assert_eq!(is["exit_code"], json!(i), "{name}: {is}");
        }
        let log = String::from_utf8(cluster.whole_log(&after, &name)).expect("UTF-8");
        let lines: Vec<&str> = log.lines().filter(|l| l.starts_with("step ")).collect();
        let expected: Vec<String> = (1..=120).map(|n| format!("step {i} line {n}")).collect();
        assert_eq!(lines, expected, "{name}: no gap, no line twice");
    }
    cluster.stop_clean();
}

#[test]
fn twenty_steps_survive_the_agent() {
    twenty_survive("twenty_steps_survive_the_agent", |c| {
        c.kill_agent();
        c.start_agent();
    });
}

#[test]
fn twenty_steps_survive_the_server() {
    twenty_survive("twenty_steps_survive_the_server", |c| {
        c.kill_server();
        c.start_server();
    });
}

#[test]
fn twenty_steps_survive_both() {
    twenty_survive("twenty_steps_survive_both", |c| {
        c.kill_agent();
        c.kill_server();
        c.start_server();
        c.start_agent();
    });
}

#[test]
fn steps_that_end_while_the_agent_is_away_keep_their_exit_codes() {
    twenty_survive("steps_that_end_while_the_agent_is_away_keep_their_exit_codes", |c| {
        c.kill_agent();
        // All twenty print for six seconds; each exit record is written by its shim, without an agent.
        let allocs = c.path().join("agent/alloc");
        c.until("all twenty have ended", |_| {
            let ended = std::fs::read_dir(&allocs)
                .ok()?
                .flatten()
                .filter(|e| e.path().join("exit.json").exists())
                .count();
            (ended == STEPS).then_some(())
        });
        c.start_agent();
    });
}
