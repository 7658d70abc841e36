//! An engine goes away while steps run and end on a real node: what is promised goes on, it is told what
//! does not, and when the engine is back nothing is missing: not a result, not a byte of a log.
//!
//! Not here: engines that are away when a server starts, and what routes answer meanwhile (`waiting`).

use crate::cluster::{Cluster, step};
use crate::s3::S3;
use serde_json::{Value, json};
use store_etcd::process::{Etcd, EtcdOptions, installed};
use store_postgres::process::PostgresServer;

/// Steps of one run.
const STEPS: usize = 4;

/// What each of them prints, over some seconds.
const LINES: usize = 160;

/// Steps that print numbered lines for eight seconds and more, enough for several chunks of a log.
fn pipeline() -> String {
    let steps: String = (0..STEPS)
        .map(|i| {
            let line = format!("step {i} line $n of {LINES}, with some more to store");
            format!(
                "      - {{ name: s{i}, run: 'n=0; while [ $n -lt {LINES} ]; do n=$((n+1)); echo \"{line}\"; sleep 0.05; done' }}\n"
            )
        })
        .collect();
    format!(
        "defaults: {{ image: \"oci:busybox\", resources: {{ cpu: 50m, memory: 32Mi, disk: 16Mi }} }}\nstages:\n  - name: many\n    steps:\n{steps}"
    )
}

fn names() -> impl Iterator<Item = String> {
    (0..STEPS).map(|i| format!("s{i}"))
}

/// A run all of whose steps run.
fn running(cluster: &Cluster, name: &str) -> String {
    let run = cluster.submit(name, &pipeline());
    cluster.until("all steps run", |c| {
        let shown = c.run(&run)?;
        names()
            .all(|name| step(&shown, &name)["status"] == json!("running"))
            .then_some(())
    });
    run
}

/// The run ended well, each step at its first attempt.
fn expect_success(run: &Value) {
    assert_eq!(run["status"], json!("success"), "{run:#}");
    for name in names() {
        assert_eq!(step(run, &name)["attempt"], json!(1), "{name}: {run:#}");
    }
}

/// Every byte of every log is stored, once.
fn expect_logs(cluster: &Cluster, run: &Value) {
    for (i, name) in names().enumerate() {
        let log = String::from_utf8(cluster.whole_log(run, &name)).expect("UTF-8");
        let lines: Vec<&str> = log.lines().filter(|l| l.starts_with("step ")).collect();
        let expected: Vec<String> = (1..=LINES)
            .map(|n| format!("step {i} line {n} of {LINES}, with some more to store"))
            .collect();
        assert_eq!(lines, expected, "{name}: no gap, no line twice");
    }
}

/// What `/readyz` answers once `seen` says so of status and body.
fn readyz(cluster: &Cluster, what: &str, seen: impl Fn(u16, &Value) -> bool) -> (u16, Value) {
    cluster.until(what, |c| {
        c.answer("/readyz").filter(|(status, body)| seen(*status, body))
    })
}

fn metric(cluster: &Cluster, name: &str) -> f64 {
    let text = cluster.get("/metrics").expect("it answers");
    let text = text.as_str().expect("text");
    let line = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in {text}"))
        .parse()
        .expect("a number")
}

/// Allocations of which the agent keeps something.
fn kept_by_the_agent(cluster: &Cluster) -> usize {
    std::fs::read_dir(cluster.path().join("agent/alloc"))
        .into_iter()
        .flatten()
        .count()
}

/// Steps run when the object store is killed, end while it is away, and so does a run that is submitted
/// only then. `meanwhile` is what else fails before the object store is back.
fn logs_wait_for_the_object_store(test: &str, meanwhile: impl FnOnce(&mut Cluster, &mut S3)) {
    if !crate::can_run(test) {
        return;
    }
    let Some(mut s3) = S3::start() else {
        eprintln!("SKIPPED {test}: the S3 server is not installed: scripts/setup test");
        return;
    };
    let mut cluster = Cluster::start_with_server(&s3.lines());
    assert_eq!(cluster.answer("/readyz").expect("it answers").1["blobs"], json!(true));
    let early = running(&cluster, "early");
    cluster.until("something of a log is stored", |c| {
        (metric(c, "buildflow_log_received_bytes_total") > 0.0).then_some(())
    });

    s3.down();
    let (status, told) = readyz(&cluster, "it tells that blobs are away", |_, body| {
        body["blobs"] == json!(false)
    });
    assert_eq!((status, &told["ready"]), (200, &json!(true)), "{told}");
    assert!(
        told["problems"].to_string().contains("logs wait on their nodes"),
        "{told}"
    );
    let late = running(&cluster, "late");
    let ended = [cluster.ended(&early), cluster.ended(&late)];
    ended.iter().for_each(expect_success);
    cluster.until("what is not stored is counted", |c| {
        (metric(c, "buildflow_log_store_failures_total") > 0.0).then_some(())
    });
    let said = std::fs::read_to_string(cluster.path().join("server.txt")).expect("its output");
    assert!(said.contains("log chunk not stored, will be tried again"), "{said}");
    assert_eq!(
        kept_by_the_agent(&cluster),
        2 * STEPS,
        "the node keeps all logs that are not stored"
    );

    meanwhile(&mut cluster, &mut s3);
    readyz(&cluster, "blobs are back", |_, body| body["blobs"] == json!(true));
    ended.iter().for_each(|run| expect_logs(&cluster, run));
    cluster.stop_clean();
}

#[test]
fn the_object_store_is_lost_in_flight_and_logs_wait() {
    logs_wait_for_the_object_store("the_object_store_is_lost_in_flight_and_logs_wait", |_, s3| s3.up());
}

#[test]
fn the_object_store_and_then_the_server_are_lost_and_logs_wait() {
    logs_wait_for_the_object_store(
        "the_object_store_and_then_the_server_are_lost_and_logs_wait",
        |cluster, s3| {
            // With it goes all that it held of the logs in its memory.
            cluster.kill_server();
            s3.up();
            cluster.start_server();
        },
    );
}

#[test]
fn the_database_is_lost_in_flight_and_finished_runs_wait() {
    const TEST: &str = "the_database_is_lost_in_flight_and_finished_runs_wait";
    if !crate::can_run(TEST) {
        return;
    }
    let Some(mut postgres) = PostgresServer::start() else {
        eprintln!("SKIPPED {TEST}: PostgreSQL cannot be started here");
        return;
    };
    let secrets = tempfile::tempdir().expect("folder");
    let url = secrets.path().join("url");
    std::fs::write(&url, postgres.url("postgres")).expect("written");
    let cluster = Cluster::start_with_server(&format!(
        "history: {{ postgres: {{ url_file: '{}' }} }}\n",
        url.display()
    ));
    let early = running(&cluster, "early");

    postgres.down();
    let (status, told) = readyz(&cluster, "it tells that history is away", |_, body| {
        body["history"] == json!(false)
    });
    assert_eq!((status, &told["ready"]), (200, &json!(true)), "{told}");
    let late = running(&cluster, "late");
    let ended = [cluster.ended(&early), cluster.ended(&late)];
    ended.iter().for_each(expect_success);
    ended.iter().for_each(|run| expect_logs(&cluster, run));
    cluster.until("both wait in the outbox", |c| {
        (metric(c, "buildflow_archive_outbox_entries") >= 2.0).then_some(())
    });
    for run in [&early, &late] {
        let shown = cluster.until("it is still shown", |c| c.run(run));
        assert_eq!(shown["status"], json!("success"), "{shown:#}");
    }

    postgres.up();
    cluster.until("history has taken both", |c| {
        (metric(c, "buildflow_archive_outbox_entries") == 0.0).then_some(())
    });
    readyz(&cluster, "history is back", |_, body| body["history"] == json!(true));
    let listed = cluster.get("/api/v1/runs").expect("listed");
    let ids: Vec<&str> = listed["runs"]
        .as_array()
        .expect("runs")
        .iter()
        .map(|r| r["run_id"].as_str().expect("an id"))
        .collect();
    assert_eq!(ids.len(), 2, "each once: {listed}");
    for run in [&early, &late] {
        assert!(ids.contains(&run.as_str()), "{run}: {listed}");
        let shown = cluster.run(run).expect("shown");
        expect_success(&shown);
        expect_logs(&cluster, &shown);
    }
    cluster.stop_clean();
}

#[test]
fn etcd_is_lost_in_flight_and_results_wait() {
    const TEST: &str = "etcd_is_lost_in_flight_and_results_wait";
    if !crate::can_run(TEST) {
        return;
    }
    if !installed() {
        eprintln!("SKIPPED {TEST}: etcd is not installed (etcd-server)");
        return;
    }
    let mut etcd = Etcd::start(EtcdOptions::default()).expect("etcd");
    // A server tells some seconds after etcd has gone that it sees no quorum, and a busy machine takes its time:
    // a lease that ends before that is lost.
    let cluster = Cluster::start_with_server(&format!(
        "store: {{ etcd: {{ endpoints: ['{}'] }} }}\nblobs: {{ folder: {{ shared: true }} }}\n\
         node_lease: 15s\nnode_grace: 2s\n",
        etcd.endpoint(0)
    ));
    let run = running(&cluster, "early");

    etcd.kill(0).expect("killed");
    readyz(&cluster, "it tells that nothing can be written", |status, body| {
        status == 503 && body["quorum_lost"] == json!(true)
    });
    let allocs = cluster.path().join("agent/alloc");
    cluster.until("all steps have ended", |_| {
        let all = std::fs::read_dir(&allocs).ok()?.flatten();
        (all.filter(|e| e.path().join("exit.json").exists()).count() == STEPS).then_some(())
    });
    let (status, metrics) = cluster.answer("/metrics").expect("it answers");
    let metrics = metrics.to_string();
    assert_eq!(status, 200, "{metrics}");
    assert!(metrics.contains("buildflow_store_quorum_lost 1"), "{metrics}");
    let shown = cluster.run(&run).expect("what is in memory is shown");
    assert_eq!(shown["status"], json!("running"), "no result without etcd: {shown:#}");

    etcd.restart(0).expect("restarted");
    let ended = cluster.ended(&run);
    expect_success(&ended);
    expect_logs(&cluster, &ended);
    let late = running(&cluster, "late");
    let ended = cluster.ended(&late);
    expect_success(&ended);
    expect_logs(&cluster, &ended);
    cluster.stop_clean();
}
