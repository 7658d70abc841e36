//! What a leader does by the clock, and how leadership passes: silent nodes, retries, drains, hand-over,
//! claims of unknown outcome, what is read at a takeover, compaction.

mod stage;

use model::{Outcome, Request, RequestKind, RunId, StartFailure, StepStatus, Stop, key};
use scheduler_shell::{LeaseTimes, SchedulerConfig, WallClock};
use stage::*;
use std::sync::Arc;
use std::time::Duration;
use store::memory::MemoryStore;
use store::{LeaseId, Store};
use tokio::time::Instant;

/// A server that looks at everything once an hour only: what happens sooner happens by itself.
fn unhurried(store: &Arc<MemoryStore>, name: &str) -> Server {
    server_of(
        store,
        SchedulerConfig {
            period_ms: 3_600_000,
            wall_clock: WallClock::Tokio,
            ..SchedulerConfig::new(name)
        },
    )
}

async fn queued_again(store: &MemoryStore, run: &RunId) -> Instant {
    until("the step is tried again", async || {
        step_record(store, run, 0).await.filter(|r| !r.earlier.is_empty())
    })
    .await;
    Instant::now()
}

/// Within a few milliseconds of the paused clock.
#[track_caller]
fn assert_close(took: Duration, expect_ms: u64) {
    let took_ms = u64::try_from(took.as_millis()).expect("short");
    assert!(
        (expect_ms..expect_ms + 20).contains(&took_ms),
        "{took_ms} ms instead of {expect_ms}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_silent_node_is_given_up_at_its_very_moment() {
    for (lasted_ms, expect_ms) in [(60_000, 5_000), (10_000, 15_000)] {
        let store = Arc::new(MemoryStore::new());
        add_node(&store).await;
        let server = unhurried(&store, "a");
        server.handle.wait_for_leadership().await;
        let began = Instant::now();
        let run = add_run(&store, "r1", 1).await;
        placed(&store, &run, 0).await;
        tokio::time::sleep_until(began + Duration::from_millis(lasted_ms)).await;
        let silent = Instant::now();
        end_session(&store).await;
        let lost = queued_again(&store, &run).await;
        assert_close(lost - silent, expect_ms);
        assert_eq!(
            step_record(&store, &run, 0).await.map(|r| r.status),
            Some(StepStatus::Queued)
        );
        assert!(orders(&store).await.is_empty());
        server.stop.cancel();
        server.handle.wait().await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_lease_is_that_of_the_configuration_and_survives_a_view_that_is_built_anew() {
    let store = Arc::new(MemoryStore::new());
    add_node(&store).await;
    let lease = LeaseTimes {
        lease_ms: 40_000,
        grace_ms: 1_000,
    };
    let config = SchedulerConfig {
        lease,
        wall_clock: WallClock::Tokio,
        ..SchedulerConfig::new("a")
    };
    let server = server_of(&store, config);
    server.handle.wait_for_leadership().await;
    let began = Instant::now();
    let run = add_run(&store, "r1", 1).await;
    placed(&store, &run, 0).await;
    end_session(&store).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    server.path.break_watches();
    assert!(server.path.faults() > 0);
    let lost = queued_again(&store, &run).await;
    assert_close(lost - began, 41_000);
    server.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_retry_comes_when_its_pause_is_over() {
    let store = Arc::new(MemoryStore::new());
    add_node(&store).await;
    let server = unhurried(&store, "a");
    server.handle.wait_for_leadership().await;
    let run = add_run(&store, "r1", 1).await;
    placed(&store, &run, 0).await;
    let failed = Instant::now();
    let outcome = Outcome::StartFailed {
        cause: StartFailure::Image,
        message: "the registry is busy".to_owned(),
        lasting: false,
    };
    end_with(&store, &run, 0, outcome).await;
    queued_again(&store, &run).await;
    let waits = step_record(&store, &run, 0).await.expect("waits");
    assert_eq!(waits.status, StepStatus::Queued);
    let pause_ms = waits.retry_at_ms.expect("a pause") - waits.earlier[0].times.assigned_ms.expect("placed");
    assert!((5_000..7_600).contains(&pause_ms), "{pause_ms}");
    placed(&store, &run, 0).await;
    let took = u64::try_from(failed.elapsed().as_millis()).expect("short");
    assert!(took.abs_diff(pause_ms) < 20, "{took} instead of {pause_ms}");
    end_well(&store, &run, 0).await;
    assert_eq!(ended(&store, &run, 0).await.attempt, 2);
    server.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_drain_tells_attempts_to_leave_at_its_deadline() {
    let store = Arc::new(MemoryStore::new());
    add_node(&store).await;
    let server = unhurried(&store, "a");
    server.handle.wait_for_leadership().await;
    let run = add_run(&store, "r1", 1).await;
    let now_ms = placed(&store, &run, 0).await.times.assigned_ms.expect("placed");
    let request = Request {
        what: RequestKind::Drain {
            node: node_id(),
            deadline_ms: Some(now_ms + 90_000),
        },
        requested_by: "alice".to_owned(),
        created_ms: now_ms,
        request_id: "r".to_owned(),
    };
    let asked = Instant::now();
    put(&store, key::request("q"), &request).await;
    until("the request is carried out", async || {
        let left = store.get(&key::request("q")).await.expect("in memory");
        left.is_none().then_some(())
    })
    .await;
    assert!(
        store
            .get(&key::eligibility(&node_id()))
            .await
            .expect("in memory")
            .is_some()
    );
    tokio::time::sleep(Duration::from_secs(80)).await;
    assert_eq!(orders(&store).await[0].stop, None);
    until("it is told to leave", async || {
        (orders(&store).await[0].stop == Some(Stop::Drained)).then_some(())
    })
    .await;
    assert_close(asked.elapsed(), 90_000 - 5);
    server.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn everybody_knows_who_leads() {
    let store = Arc::new(MemoryStore::new());
    let first = server(&store, "a");
    first.handle.wait_for_leadership().await;
    let second = server(&store, "b");
    let mut leading = second.handle.leading();
    assert_eq!(*leading.borrow(), None);
    for server in [&first, &second] {
        until("the name is known", async || {
            server.handle.leader_name().filter(|n| n == "a")
        })
        .await;
    }
    let key = store.get(key::LEADER).await.expect("in memory").expect("held");
    assert_eq!(*first.handle.leading().borrow(), Some(key.mod_revision));
    first.stop.cancel();
    leading.wait_for(Option::is_some).await.expect("it leads");
    until("the name is known", async || {
        second.handle.leader_name().filter(|n| n == "b")
    })
    .await;
    second.stop.cancel();
    second.handle.wait().await;
}

#[tokio::test(start_paused = true)]
async fn a_clean_stop_hands_over_at_once_also_when_the_store_is_slow() {
    let store = Arc::new(MemoryStore::new());
    add_node(&store).await;
    let first = server(&store, "a");
    first.handle.wait_for_leadership().await;
    let second = server(&store, "b");
    let run = add_run(&store, "r1", 2).await;
    placed(&store, &run, 0).await;
    until("the second is ready", async || second.handle.leader_name()).await;
    for server in [&first, &second] {
        server.path.slow_down(Duration::from_millis(5));
    }
    let before = Instant::now();
    first.stop.cancel();
    end_well(&store, &run, 0).await;
    placed(&store, &run, 1).await;
    assert!(
        before.elapsed() < Duration::from_millis(200),
        "took {:?}",
        before.elapsed()
    );
    assert!(second.handle.is_leader());
    second.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_server_does_not_wait_for_itself_when_the_answer_to_its_claim_is_lost() {
    let store = Arc::new(MemoryStore::new());
    add_node(&store).await;
    let server = server(&store, "a");
    server.path.set(Way::LosesClaim);
    let before = Instant::now();
    server.handle.wait_for_leadership().await;
    assert_eq!(server.path.faults(), 1);
    assert!(before.elapsed() < Duration::from_secs(1), "took {:?}", before.elapsed());
    let run = add_run(&store, "r1", 1).await;
    assert_eq!(placed(&store, &run, 0).await.attempt, 1);
    server.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_takeover_reads_orders_and_eligibilities_and_nothing_else() {
    let store = Arc::new(MemoryStore::new());
    add_node(&store).await;
    let first = server(&store, "a");
    first.handle.wait_for_leadership().await;
    let second = server(&store, "b");
    let run = add_run(&store, "r1", 2).await;
    placed(&store, &run, 0).await;
    until("the second is ready", async || second.handle.explain(&run, 0).await).await;
    second.path.ranges.lock().expect("not poisoned").clear();
    first.stop.cancel();
    end_well(&store, &run, 0).await;
    placed(&store, &run, 1).await;
    let read = second.path.ranges.lock().expect("not poisoned").clone();
    assert_eq!(read, [key::ALLOCS, key::ELIGIBILITIES]);
    second.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_finds_no_lease_ends_the_term_at_once() {
    let store = Arc::new(MemoryStore::new());
    let server = server(&store, "a");
    server.handle.wait_for_leadership().await;
    let first = server.handle.leading().borrow().expect("leads");
    // Leases count from 1 in this store; somebody takes away the only one.
    for lease in 1..10 {
        store.lease_revoke(LeaseId(lease)).await.expect("in memory");
    }
    let mut leading = server.handle.leading();
    leading
        .wait_for(|l| l.is_some_and(|l| l != first))
        .await
        .expect("it leads again");
    assert!(store.get(key::LEADER).await.expect("in memory").is_some());
    server.stop.cancel();
    server.handle.wait().await;
}

#[tokio::test(start_paused = true)]
async fn a_full_store_ends_no_term_and_is_made_to_forget_sooner() {
    let store = Arc::new(MemoryStore::new());
    add_node(&store).await;
    let server = server(&store, "a");
    server.handle.wait_for_leadership().await;
    let term = *server.handle.leading().borrow();
    server.path.set(Way::Full);
    let run = add_run(&store, "r", 1).await;
    let began = Instant::now();
    until("the past is forgotten twice", async || {
        let compacted = server.path.compacted.lock().expect("not poisoned").len();
        (compacted >= 2).then_some(())
    })
    .await;
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    assert!(server.path.faults() >= 3, "it was really full");
    assert_eq!(*server.handle.leading().borrow(), term, "it leads on");
    assert!(step_record(&store, &run, 0).await.is_none(), "nothing was written");
    server.path.set(Way::Open);
    placed(&store, &run, 0).await;
    assert_eq!(*server.handle.leading().borrow(), term);
    server.stop.cancel();
    server.handle.wait().await;
}

#[tokio::test(start_paused = true)]
async fn the_leader_has_the_past_forgotten_and_a_follower_does_not() {
    let store = Arc::new(MemoryStore::new());
    add_node(&store).await;
    let first = server(&store, "a");
    first.handle.wait_for_leadership().await;
    let second = server(&store, "b");
    for n in 0..16 {
        let run = add_run(&store, &format!("r{n}"), 1).await;
        end_well(&store, &run, 0).await;
        ended(&store, &run, 0).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
    let compacted = first.path.compacted.lock().expect("not poisoned").clone();
    assert_eq!(compacted.len(), 2, "every five minutes, from the second on");
    assert!(compacted[0] < compacted[1]);
    let newest = store
        .get(key::LEADER)
        .await
        .expect("in memory")
        .expect("held")
        .mod_revision;
    assert!(
        compacted[0] > newest,
        "what has happened since the beginning is forgotten"
    );
    assert!(second.path.compacted.lock().expect("not poisoned").is_empty());
    for server in [first, second] {
        server.stop.cancel();
        server.handle.wait().await;
    }
}

/// A server that waits for its successor.
fn polite(store: &Arc<MemoryStore>, name: &str) -> Server {
    server_of(
        store,
        SchedulerConfig {
            handover_ms: 1_000,
            ..SchedulerConfig::new(name)
        },
    )
}

#[tokio::test(start_paused = true)]
async fn what_serves_nodes_ends_once_a_successor_leads() {
    let store = Arc::new(MemoryStore::new());
    let first = polite(&store, "a");
    first.handle.wait_for_leadership().await;
    let handed_over = first.handle.when_handed_over(first.stop.clone());
    let second = polite(&store, "b");
    // The successor needs a while: each of its calls does.
    second.path.slow_down(Duration::from_millis(100));
    until("the second watches", async || second.handle.leader_name()).await;
    let before = Instant::now();
    first.stop.cancel();
    handed_over.cancelled().await;
    let leader: model::Leader = store.get(model::key::LEADER).await.unwrap().unwrap().decode().unwrap();
    assert_eq!(leader.server, "b", "handed over while nobody led");
    assert!(
        before.elapsed() < Duration::from_millis(1_000),
        "took {:?}",
        before.elapsed()
    );
    second.stop.cancel();
}

#[tokio::test(start_paused = true)]
async fn one_that_has_no_successor_does_not_wait_for_ever() {
    let store = Arc::new(MemoryStore::new());
    let alone = polite(&store, "a");
    alone.handle.wait_for_leadership().await;
    let handed_over = alone.handle.when_handed_over(alone.stop.clone());
    let before = Instant::now();
    alone.stop.cancel();
    handed_over.cancelled().await;
    assert_close(before.elapsed(), 1_000);
}
