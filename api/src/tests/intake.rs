//! Triggers become runs exactly once, wherever the server is ended, and fail visibly when they must.

use super::mortal::{Mortal, Side};
use super::stage::{FILE, PATIENCE, Stage, record};
use crate::intake::{Asked, Trigger, accept};
use crate::limit::INBOX_MAX;
use model::record::Unknown;
use model::{DefChunk, Event, InboxEntry, NumberRecord, PipelineName, StepStatus, TeamName, key};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use store::{Expect, Store, Txn};

fn trigger(commit: &str) -> Trigger {
    Trigger {
        team: TeamName::new("default").unwrap(),
        pipeline: PipelineName::new("app").unwrap(),
        git_ref: "refs/heads/main".to_owned(),
        commit: commit.to_owned(),
        event: Event::Push,
        variables: BTreeMap::new(),
        inputs: BTreeMap::new(),
        before: None,
    }
}

fn asked() -> Asked {
    Asked {
        by: "root".to_owned(),
        request_id: "r1".to_owned(),
        traceparent: crate::trace::begin(),
        key: None,
        fingerprint: String::new(),
        force: false,
    }
}

async fn count(stage: &Stage, prefix: &str) -> usize {
    store::live::read_all(stage.store.as_ref(), prefix)
        .await
        .unwrap()
        .0
        .len()
}

#[tokio::test]
async fn a_server_that_ends_after_it_accepted_a_trigger_makes_the_run_at_its_next_start() {
    let mut stage = Stage::over(Arc::default(), tempfile::tempdir().unwrap()).await;
    stage.start_view().await;
    let repository = stage.pipeline("app", FILE).await;
    let accepted = accept(&stage.server, &trigger(&repository.head()), &asked())
        .await
        .unwrap();
    let pending = stage.get(&format!("/api/v1/runs/{}", accepted.run)).await.json;
    assert_eq!(
        (&pending["status"], &pending["number"]),
        (&json!("queued"), &json!(null))
    );
    assert_eq!(pending["stages"], json!([]));
    assert_eq!(count(&stage, key::INBOX).await, 1);
    let stage = stage.recovered().await;
    assert!(stage.server.view.wait_for_run(&accepted.run, PATIENCE).await);
    let shown = stage.get(&format!("/api/v1/runs/{}", accepted.run)).await.json;
    assert_eq!((&shown["number"], &shown["request_id"]), (&json!(1), &json!("r1")));
    assert_eq!(count(&stage, key::INBOX).await, 0);
    let again = accept(&stage.server, &trigger(&repository.head()), &asked())
        .await
        .unwrap();
    assert_eq!((again.run, again.created), (accepted.run, false));
}

#[tokio::test]
async fn half_a_definition_from_before_a_crash_is_written_anew() {
    let mut stage = Stage::over(Arc::default(), tempfile::tempdir().unwrap()).await;
    stage.start_view().await;
    let repository = stage.pipeline("app", FILE).await;
    let accepted = accept(&stage.server, &trigger(&repository.head()), &asked())
        .await
        .unwrap();
    // As a server leaves it that was ended between two chunks, and one of another release.
    let stale = DefChunk {
        text: "{\"stages\":[],\"st".to_owned(),
        unknown: Unknown::new(),
    };
    stage
        .write(Txn::new().put(key::run_def(&accepted.run, 0), &stale))
        .await;
    assert!(
        stage.server.view.header(&accepted.run).is_none(),
        "a run without a header is not there"
    );
    let stage = stage.recovered().await;
    assert!(stage.server.view.wait_for_run(&accepted.run, PATIENCE).await);
    let shown = stage.get(&format!("/api/v1/runs/{}", accepted.run)).await.json;
    assert_eq!(shown["stages"][1]["steps"][0]["name"], "unit");
    assert_eq!(count(&stage, key::INBOX).await, 0);
}

/// A pipeline of twelve steps with this many bytes of environment each.
fn twelve_steps(bytes: usize) -> String {
    let value = "x".repeat(bytes);
    let step = |n: usize| format!("      - {{ name: s{n}, image: 'oci:base', run: make, env: {{ A: {value} }} }}\n");
    let steps: String = (0..12).map(step).collect();
    format!("stages:\n  - name: all\n    steps:\n{steps}")
}

/// Ends the first server at its commit number `commits` and looks what the second one makes of it.
async fn ended_at(commits: usize, side: Side, text: &str) {
    let mut stage = Stage::over(Arc::default(), tempfile::tempdir().unwrap()).await;
    stage.start_view().await;
    let repository = stage.pipeline("app", text).await;
    let wanted = trigger(&repository.head());
    let mortal = Arc::new(Mortal::new(stage.store.clone(), commits, side));
    let mut stage = stage.reborn(mortal.clone()).await;
    stage.start_view().await;
    stage.start_intake();
    let (server, first) = (stage.server.clone(), wanted.clone());
    stage.loops.spawn(async move {
        accept(&server, &first, &asked()).await.unwrap();
    });
    tokio::time::timeout(PATIENCE, mortal.died.cancelled())
        .await
        .expect("the fault was injected");
    let stage = stage.recovered().await;
    // The caller heard nothing and asks again.
    let accepted = accept(&stage.server, &wanted, &asked()).await.unwrap();
    let at = format!("{commits} {side:?}");
    assert_eq!(accepted.created, commits == 0 && side == Side::Before, "{at}");
    assert!(stage.server.view.wait_for_run(&accepted.run, PATIENCE).await, "{at}");
    let list = stage.get("/api/v1/runs").await.json;
    assert_eq!(list["runs"].as_array().unwrap().len(), 1, "{at}: {list}");
    assert_eq!(
        (&list["runs"][0]["number"], &list["runs"][0]["status"]),
        (&json!(1), &json!("queued")),
        "{at}"
    );
    let shown = stage.get(&format!("/api/v1/runs/{}", accepted.run)).await.json;
    assert_eq!(shown["stages"][0]["steps"].as_array().unwrap().len(), 12, "{at}");
    assert_eq!(count(&stage, key::INBOX).await, 0, "{at}");
}

#[tokio::test]
async fn a_server_ended_at_any_commit_still_makes_one_run_of_a_trigger() {
    // The trigger, two chunks of the definition, the header; a small definition goes with the header.
    for (commits, bytes) in [(4, 60_000), (2, 10)] {
        let text = twelve_steps(bytes);
        for commit in 0..commits {
            for side in [Side::Before, Side::After] {
                ended_at(commit, side, &text).await;
            }
        }
    }
}

#[tokio::test]
async fn two_servers_at_the_same_inbox_make_one_run_of_each_trigger() {
    let mut stage = Stage::over(Arc::default(), tempfile::tempdir().unwrap()).await;
    stage.start_view().await;
    let repository = stage.pipeline("app", FILE).await;
    let other_folder = tempfile::tempdir().unwrap();
    let mut other = Stage::over(stage.store.clone(), other_folder).await;
    other.start_view().await;
    stage.start_intake();
    other.start_intake();
    let mut runs = Vec::new();
    for n in 0..10 {
        let commit = repository.commit(FILE, &format!("change {n}"));
        let server = if n % 2 == 0 { &stage.server } else { &other.server };
        runs.push(accept(server, &trigger(&commit), &asked()).await.unwrap().run);
    }
    for run in &runs {
        assert!(stage.server.view.wait_for_run(run, PATIENCE).await);
        assert!(other.server.view.wait_for_run(run, PATIENCE).await);
        let shown = other.get(&format!("/api/v1/runs/{run}")).await.json;
        assert_eq!(shown["stages"][0]["steps"][0]["name"], "compile");
    }
    let list = stage.get("/api/v1/runs").await.json;
    let mut numbers: Vec<u64> = list["runs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r["number"].as_u64().unwrap())
        .collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=10).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_full_inbox_tells_callers_to_come_back() {
    let mut stage = Stage::over(Arc::default(), tempfile::tempdir().unwrap()).await;
    stage.start_view().await;
    let repository = stage.pipeline("app", FILE).await;
    accept(&stage.server, &trigger(&repository.head()), &asked())
        .await
        .unwrap();
    let (entries, _) = store::live::read_all(stage.store.as_ref(), key::INBOX).await.unwrap();
    let waiting: InboxEntry = entries[0].decode().unwrap();
    for batch in 0..INBOX_MAX / 100 {
        let keys = (0..100).map(|n| key::inbox(&format!("z{batch}-{n}")));
        stage
            .write(keys.fold(Txn::new(), |txn, key| txn.put(key, &waiting)))
            .await;
    }
    let body = json!({"branch": "main", "force": true});
    let reply = stage.post("/api/v1/pipelines/default/app/runs", &body).await;
    assert!(reply.problem(503, "unavailable").contains("10000 triggers wait"));
    assert_eq!(count(&stage, key::INBOX).await, INBOX_MAX + 1);
}

#[tokio::test]
async fn a_repository_that_comes_back_in_time_delays_the_run_only() {
    let stage = Stage::new().await;
    let repository = stage.pipeline("app", FILE).await;
    stage.sources.failures.store(1, Ordering::SeqCst);
    let accepted = accept(&stage.server, &trigger(&repository.head()), &asked())
        .await
        .unwrap();
    assert!(stage.server.view.wait_for_run(&accepted.run, PATIENCE).await);
    assert_eq!(stage.sources.failed.load(Ordering::SeqCst), 1, "the fault was injected");
    let shown = stage.get(&format!("/api/v1/runs/{}", accepted.run)).await.json;
    assert_eq!((&shown["status"], &shown["error"]), (&json!("queued"), &json!(null)));
}

#[tokio::test]
async fn a_repository_that_stays_away_fails_the_run_visibly() {
    let stage = Stage::new().await;
    let repository = stage.pipeline("app", FILE).await;
    stage.sources.failures.store(usize::MAX, Ordering::SeqCst);
    let accepted = accept(&stage.server, &trigger(&repository.head()), &asked())
        .await
        .unwrap();
    assert!(stage.server.view.wait_for_run(&accepted.run, PATIENCE).await);
    assert_eq!(stage.sources.failed.load(Ordering::SeqCst), 3);
    let shown = stage.get(&format!("/api/v1/runs/{}", accepted.run)).await.json;
    assert_eq!((&shown["status"], &shown["number"]), (&json!("failed"), &json!(1)));
    assert!(shown["error"].as_str().unwrap().contains("injected"), "{shown}");
    let explained = stage
        .get(&format!("/api/v1/runs/{}/steps/compile/explain", accepted.run))
        .await;
    assert!(explained.problem(404, "not-found").contains("injected"));
}

#[tokio::test]
async fn a_pipeline_that_is_removed_meanwhile_fails_the_run_visibly() {
    let mut stage = Stage::over(Arc::default(), tempfile::tempdir().unwrap()).await;
    stage.start_view().await;
    let repository = stage.pipeline("app", FILE).await;
    let accepted = accept(&stage.server, &trigger(&repository.head()), &asked())
        .await
        .unwrap();
    let name = PipelineName::new("app").unwrap();
    stage
        .write(Txn::new().delete(key::pipeline(&TeamName::new("default").unwrap(), &name)))
        .await;
    stage.start_intake();
    assert!(stage.server.view.wait_for_run(&accepted.run, PATIENCE).await);
    let shown = stage.get(&format!("/api/v1/runs/{}", accepted.run)).await.json;
    assert!(shown["error"].as_str().unwrap().contains("was deleted"), "{shown}");
}

#[tokio::test]
async fn a_number_taken_by_another_server_is_not_used_twice() {
    let stage = Stage::new().await;
    stage.pipeline("app", FILE).await;
    assert_eq!(stage.run("app").await.as_str().len(), 26);
    let (team, name) = (TeamName::new("default").unwrap(), PipelineName::new("app").unwrap());
    let taken = NumberRecord {
        last: 41,
        unknown: Unknown::new(),
    };
    stage
        .write(
            Txn::new()
                .expect(key::number(&team, &name), Expect::Present)
                .put(key::number(&team, &name), &taken),
        )
        .await;
    let run = stage.run("app").await;
    assert_eq!(stage.server.view.header(&run).unwrap().number, 42);
}

#[tokio::test]
async fn a_run_of_a_thousand_steps_works_and_spans_chunks() {
    let stage = Stage::new().await;
    let fat = "x".repeat(1000);
    let steps: String = (0..1000)
        .map(|n| format!("      - {{ name: s{n}, image: 'oci:base', run: make, env: {{ A: {fat} }} }}\n"))
        .collect();
    // The file itself stays below its limit of 1 MiB.
    let steps = steps.replace(&fat, &"x".repeat(700));
    stage
        .pipeline("app", &format!("stages:\n  - name: all\n    steps:\n{steps}"))
        .await;
    let run = stage.run("app").await;
    let header = stage.server.view.header(&run).unwrap();
    assert_eq!(header.error, None);
    assert!(header.def_chunks > 1 && header.steps == 1000, "{}", header.def_chunks);
    let shown = stage.get(&format!("/api/v1/runs/{run}")).await.json;
    assert_eq!(shown["stages"][0]["steps"].as_array().unwrap().len(), 1000);
    stage.lead(&run, 999, StepStatus::Running).await;
    assert_eq!(
        stage.get(&format!("/api/v1/runs/{run}")).await.json["status"],
        "running"
    );
}

#[tokio::test]
async fn a_definition_that_grows_out_of_a_small_file_is_refused() {
    let stage = Stage::new().await;
    let steps: String = (0..1000)
        .map(|n| format!("      - {{ name: s{n}, image: 'oci:base', run: make }}\n"))
        .collect();
    let value = "x".repeat(60_000);
    let text = format!("env: {{ A: {value} }}\nstages:\n  - name: all\n    steps:\n{steps}");
    stage.pipeline("app", &text).await;
    let run = stage.run("app").await;
    let header = stage.server.view.header(&run).unwrap();
    let error = header
        .error
        .as_ref()
        .unwrap_or_else(|| panic!("{} chunks", header.def_chunks));
    assert!(!error.message.is_empty());
    assert_eq!(header.def_chunks, 0);
}

#[tokio::test]
async fn a_record_that_does_not_decode_harms_no_other() {
    let stage = Stage::new().await;
    stage.pipeline("app", FILE).await;
    let run = stage.run("app").await;
    let junk = Txn::new()
        .put_bytes(key::step(&run, 1), b"{".to_vec(), None)
        .put_bytes(key::inbox("junk"), b"junk".to_vec(), None)
        .put_bytes("node/junk", b"junk".to_vec(), None)
        .put(key::step(&run, 0), &record(StepStatus::Running));
    stage.write(junk).await;
    let shown = stage.get(&format!("/api/v1/runs/{run}")).await.json;
    assert_eq!(shown["stages"][0]["steps"][0]["status"], "running");
    let second = stage.run("app").await;
    assert_eq!(stage.server.view.header(&second).unwrap().number, 2);
    assert!(
        stage.store.get(&key::inbox("junk")).await.unwrap().is_some(),
        "it is left for people to look at"
    );
}
