//! The shell against the in-memory store on tokio's paused clock: one leads, the others are ready,
//! and whatever the store does no step is placed twice.

mod stage;

use model::record::Unknown;
use model::{ClusterVersion, RunId, StepStatus, key};
use scheduler::Verdict;
use stage::*;
use std::sync::Arc;
use std::time::Duration;
use store::Store;
use store::memory::MemoryStore;
use tokio::time::Instant;

#[tokio::test(start_paused = true)]
async fn a_run_goes_through_and_is_measured_and_explained() {
    let store = Arc::new(MemoryStore::new());
    let server = server(&store, "a");
    let run = add_run(&store, "r1", 2).await;
    server.handle.wait_for_leadership().await;
    let waits = until("explained", async || server.handle.explain(&run, 0).await).await;
    assert_eq!((waits.verdict, waits.name.as_str()), (Verdict::NoNode, "s0"));
    add_node(&store).await;
    placed(&store, &run, 0).await;
    let here = server.handle.explain(&run, 0).await.expect("known");
    assert_eq!((here.verdict, here.node), (Verdict::Placed, Some(node_id())));
    for step in 0..2 {
        end_well(&store, &run, step).await;
        assert_eq!(ended(&store, &run, step).await.status, StepStatus::Success);
    }
    assert!(orders(&store).await.is_empty());
    let over = until("finished", async || server.handle.explain(&run, 1).await).await;
    assert_eq!((over.verdict, over.node), (Verdict::Ended, Some(node_id())));
    assert!(over.placement.is_some(), "the record is read from the store");
    assert!(
        server
            .handle
            .explain(&RunId::new("none").expect("legal"), 0)
            .await
            .is_none()
    );
    for (name, value) in [
        ("buildflow_scheduler_leader", 1.0),
        ("buildflow_scheduler_placements_total", 2.0),
        ("buildflow_scheduler_placement_seconds", 2.0),
        ("buildflow_scheduler_queue_wait_seconds", 2.0),
        ("buildflow_scheduler_queue_length", 0.0),
        ("buildflow_scheduler_steps_ended_total", 2.0),
        ("buildflow_scheduler_refused_commits_total", 0.0),
        ("buildflow_scheduler_view_rebuilds_total", 0.0),
    ] {
        assert_eq!(metric(&server.handle, name), value, "{name}");
    }
    server.stop.cancel();
    server.handle.wait().await;
    assert!(!server.handle.is_leader());
    assert!(
        store.get(key::LEADER).await.expect("in memory").is_none(),
        "the key is given back"
    );
}

#[tokio::test(start_paused = true)]
async fn a_placement_comes_at_once_and_not_with_the_period() {
    let store = Arc::new(MemoryStore::new());
    let server = server(&store, "a");
    server.handle.wait_for_leadership().await;
    add_node(&store).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let before = Instant::now();
    let run = add_run(&store, "r1", 1).await;
    placed(&store, &run, 0).await;
    assert!(
        before.elapsed() < Duration::from_millis(20),
        "took {:?}",
        before.elapsed()
    );
    server.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn the_first_leader_founds_the_cluster_and_later_ones_leave_it() {
    let store = Arc::new(MemoryStore::new());
    for epoch in [1, 7] {
        let server = server(&store, "a");
        server.handle.wait_for_leadership().await;
        let entry = store
            .get(key::CLUSTER_VERSION)
            .await
            .expect("in memory")
            .expect("written");
        let mut version: ClusterVersion = entry.decode().expect("ours");
        assert_eq!((version.format, version.epoch), (1, epoch));
        version.epoch = 7;
        put(&store, key::CLUSTER_VERSION.to_owned(), &version).await;
        server.stop.cancel();
        server.handle.wait().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_of_a_newer_format_is_not_led() {
    let store = Arc::new(MemoryStore::new());
    let version = ClusterVersion {
        format: 2,
        epoch: 1,
        unknown: Unknown::new(),
    };
    put(&store, key::CLUSTER_VERSION.to_owned(), &version).await;
    let server = server(&store, "a");
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(!server.handle.is_leader());
    assert!(store.get(key::LEADER).await.expect("in memory").is_none());
    server.stop.cancel();
    server.handle.wait().await;
}

/// Two servers; the first leads and has placed the first step of a run of two.
async fn two_servers() -> (Arc<MemoryStore>, Server, Server, RunId) {
    let store = Arc::new(MemoryStore::new());
    add_node(&store).await;
    let first = server(&store, "a");
    first.handle.wait_for_leadership().await;
    let second = server(&store, "b");
    let run = add_run(&store, "r1", 2).await;
    placed(&store, &run, 0).await;
    assert!(!second.handle.is_leader());
    (store, first, second, run)
}

#[tokio::test(start_paused = true)]
async fn a_clean_stop_hands_over_at_once() {
    let (store, first, second, run) = two_servers().await;
    assert!(
        second.handle.explain(&run, 0).await.is_some(),
        "one that does not lead can explain too"
    );
    let before = Instant::now();
    first.stop.cancel();
    first.handle.wait().await;
    second.handle.wait_for_leadership().await;
    end_well(&store, &run, 0).await;
    placed(&store, &run, 1).await;
    assert!(
        before.elapsed() < Duration::from_millis(200),
        "took {:?}",
        before.elapsed()
    );
    second.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_cut_off_is_replaced_within_three_seconds() {
    let (store, first, second, run) = two_servers().await;
    let before = Instant::now();
    first.path.set(Way::Cut);
    end_well(&store, &run, 0).await;
    placed(&store, &run, 1).await;
    assert!(before.elapsed() < Duration::from_secs(3), "took {:?}", before.elapsed());
    assert!(second.handle.is_leader());
    until("the first steps down", async || {
        (!first.handle.is_leader()).then_some(())
    })
    .await;
    assert!(first.path.faults() > 0);
    // Once it is back it follows.
    first.path.set(Way::Open);
    end_well(&store, &run, 1).await;
    let known = async || {
        first
            .handle
            .explain(&run, 1)
            .await
            .filter(|e| e.verdict == Verdict::Ended)
    };
    until("the first knows", known).await;
    assert!(!first.handle.is_leader());
    for server in [first, second] {
        server.stop.cancel();
        server.handle.wait().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_does_not_know_of_its_end_commits_nothing() {
    let (store, first, second, run) = two_servers().await;
    first.path.set(Way::LiesAboutLease);
    second.handle.wait_for_leadership().await;
    assert!(
        first.path.faults() > 0 && first.handle.is_leader(),
        "both believe to lead"
    );
    end_well(&store, &run, 0).await;
    end_well(&store, &run, 1).await;
    ended(&store, &run, 1).await;
    until("the first learns of it", async || {
        (!first.handle.is_leader()).then_some(())
    })
    .await;
    assert!(second.handle.is_leader());
    let records = [step_record(&store, &run, 0).await, step_record(&store, &run, 1).await];
    assert!(
        records.iter().flatten().all(|r| r.attempt == 1),
        "no step was placed twice"
    );
    for server in [first, second] {
        server.stop.cancel();
        server.handle.wait().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_commit_whose_answer_is_lost_is_found_in_the_store() {
    let store = Arc::new(MemoryStore::new());
    add_node(&store).await;
    let server = server(&store, "a");
    server.handle.wait_for_leadership().await;
    server.path.set(Way::LosesAnswer);
    let run = add_run(&store, "r1", 3).await;
    for step in 0..3 {
        let record = placed(&store, &run, step).await;
        assert_eq!(record.attempt, 1);
        // The end of the middle step is folded, and that answer is lost as well.
        if step == 1 {
            server.path.set(Way::LosesAnswer);
        }
        end_well(&store, &run, step).await;
        assert_eq!(ended(&store, &run, step).await.attempt, 1);
    }
    assert_eq!(server.path.faults(), 2);
    assert_eq!(metric(&server.handle, "buildflow_scheduler_view_rebuilds_total"), 2.0);
    server.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_arrives_late_takes_no_room_that_was_given_away() {
    let store = Arc::new(MemoryStore::new());
    add_node(&store).await;
    let server = server(&store, "a");
    server.handle.wait_for_leadership().await;
    let sum = async || orders(&store).await.iter().map(|o| o.resources.cpu_millis).sum::<u64>();
    // Nine steps of 1 cpu for a node of 8. The commit that places one of them lingers; the other
    // eight go before it when the view is built anew, so nothing but its key is in its way.
    server.path.set(Way::DelaysCommit);
    add_run(&store, "z", 1).await;
    until("the commit lingers", async || (server.path.faults() == 1).then_some(())).await;
    for n in 1..9 {
        add_run(&store, &format!("r{n}"), 1).await;
    }
    until("the node is full", async || (sum().await >= 8_000).then_some(())).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(sum().await, 8_000);
    assert!(server.handle.is_leader());
    server.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_is_on_its_way_when_the_view_breaks_takes_no_room_that_was_given_away() {
    let store = Arc::new(MemoryStore::new());
    add_node(&store).await;
    let server = server(&store, "a");
    server.handle.wait_for_leadership().await;
    server.path.set(Way::LingersCommit);
    add_run(&store, "z", 1).await;
    until("the commit lingers", async || (server.path.faults() == 1).then_some(())).await;
    server.path.break_watches();
    for n in 1..9 {
        add_run(&store, &format!("r{n}"), 1).await;
    }
    let granted = async || orders(&store).await.iter().map(|o| o.resources.cpu_millis).sum::<u64>();
    until("the node is full", async || (granted().await >= 8_000).then_some(())).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(granted().await, 8_000);
    assert!(server.handle.is_leader());
    assert_eq!(metric(&server.handle, "buildflow_scheduler_view_rebuilds_total"), 1.0);
    server.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn the_next_batch_does_not_wait_for_the_one_on_its_way() {
    let store = Arc::new(MemoryStore::new());
    add_node(&store).await;
    let server = server(&store, "a");
    server.handle.wait_for_leadership().await;
    server.path.set(Way::LingersCommit);
    let slow = add_run(&store, "r1", 1).await;
    until("the commit lingers", async || (server.path.faults() == 1).then_some(())).await;
    let quick = add_run(&store, "r2", 1).await;
    placed(&store, &quick, 0).await;
    assert_eq!(orders(&store).await.len(), 1, "the first is still on its way");
    placed(&store, &slow, 0).await;
    server.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_view_that_fell_behind_is_built_anew() {
    let store = Arc::new(MemoryStore::new());
    add_node(&store).await;
    let server = server(&store, "a");
    server.handle.wait_for_leadership().await;
    let run = add_run(&store, "r1", 2).await;
    placed(&store, &run, 0).await;
    server.path.break_watches();
    end_well(&store, &run, 0).await;
    placed(&store, &run, 1).await;
    assert!(server.path.faults() > 0);
    assert_eq!(metric(&server.handle, "buildflow_scheduler_view_rebuilds_total"), 1.0);
    server.stop.cancel();
}
