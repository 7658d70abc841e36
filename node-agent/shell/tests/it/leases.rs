//! The node's lease at the agent's rim.

use crate::agents::{TestNode, alloc, order};
use crate::fake_sandboxes::FakeSandboxes;
use crate::fake_server::{Quorum, Server};
use isolation::lease::now_ms;
use model::{ObservedState, Outcome};
use std::time::Duration;

/// Short, so that tests see its end; long enough for a loaded machine to renew it.
const LEASE_MS: u64 = 4_000;

/// A node that is connected to a server with a short lease.
async fn leased(sandboxes: std::sync::Arc<FakeSandboxes>) -> TestNode {
    let mut node = TestNode::stopped(sandboxes).await;
    node.server.books().lease_ms = LEASE_MS;
    node.start_agent();
    node.server.connected(1).await;
    node.deadline_passes(0).await;
    node
}

async fn until_boot(at_ms: u64) {
    while now_ms() <= at_ms {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_confirmed_moves_the_deadline_and_past_it_nothing_is_launched() {
    let node = leased(FakeSandboxes::quick("", 0)).await;
    node.deadline_passes(node.deadline_ms()).await;
    node.deadline_passes(node.deadline_ms()).await;
    assert!(node.metric("buildflow_agent_lease_remaining_seconds") > 0.0);
    node.server.books().unconfirming = true;
    let latest = now_ms() + LEASE_MS;
    until_boot(latest).await;
    let deadline = node.deadline_ms();
    assert!(deadline <= latest, "nothing was confirmed");
    assert!(node.metric("buildflow_agent_lease_remaining_seconds").abs() < f64::EPSILON);
    // An order is prepared and waits.
    node.server.order(&order(0));
    node.server.reported(&alloc(0, 1), ObservedState::Preparing).await;
    until_boot(now_ms() + 500).await;
    assert_eq!(
        node.sandboxes.launches.lock().unwrap().len(),
        0,
        "launched without a lease"
    );
    assert_eq!(node.deadline_ms(), deadline);
    node.server.books().unconfirming = false;
    let ended = node.server.reported(&alloc(0, 1), ObservedState::Ended).await;
    assert_eq!(ended.outcome, Some(Outcome::Exited { code: 0 }));
    assert!(node.deadline_ms() > deadline);
    let launches = node.sandboxes.launches.lock().unwrap();
    assert_eq!(launches.len(), 1);
    assert_eq!(launches[0].lease_path, Some(node.folder.path().join("run/lease")));
}

/// Two servers: one holds the stream and sees no quorum, the other says this.
async fn with_other_server(quorum: Quorum) -> (TestNode, Server) {
    let mut node = TestNode::stopped(FakeSandboxes::new()).await;
    let other = Server::start().await;
    {
        let mut books = other.books();
        (books.shut, books.quorum) = (true, quorum);
    }
    node.server.books().lease_ms = LEASE_MS;
    node.addresses = vec![node.server.address.clone(), other.address.clone()];
    node.start_agent();
    node.server.connected(1).await;
    node.deadline_passes(0).await;
    let mut books = node.server.books();
    (books.unconfirming, books.shut, books.quorum) = (true, true, Quorum::Lost);
    drop(books);
    (node, other)
}

#[tokio::test(flavor = "multi_thread")]
async fn only_when_every_server_sees_no_quorum_the_steps_go_on() {
    let cases = [Quorum::Lost, Quorum::There, Quorum::Silent, Quorum::Unknown];
    let each = cases.map(|quorum| async move {
        let (node, other) = with_other_server(quorum).await;
        let latest = now_ms() + LEASE_MS;
        for server in [&node.server, &other] {
            let asked = |books: &crate::fake_server::Books| (books.asked >= 2).then_some(());
            server.until("two questions", asked).await;
        }
        if quorum == Quorum::Lost {
            // Again and again, for as long as it lasts.
            node.deadline_passes(latest + LEASE_MS).await;
            // Then one of them sees the quorum: that was the last time.
            other.books().quorum = Quorum::There;
            let latest = now_ms() + LEASE_MS;
            until_boot(latest).await;
            assert!(node.deadline_ms() <= latest);
        } else {
            until_boot(latest).await;
            assert!(node.deadline_ms() <= latest, "{quorum:?} let the steps go on");
        }
        assert!(node.metric("buildflow_agent_quorum_rounds_total") >= 2.0);
    });
    futures::future::join_all(each).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_was_killed_takes_the_lease_up_again() {
    let (mut node, other) = with_other_server(Quorum::Lost).await;
    node.kill_agent().await;
    let left = node.deadline_ms();
    assert!(left > now_ms(), "the lease still goes");
    node.start_agent();
    // It has no stream and is told of no lease: what it knows is in the file.
    node.deadline_passes(left).await;
    assert_eq!(node.server.books().hellos.len(), 1);
    assert!(other.books().asked > 0);
    node.end_agent().await;
    assert!(
        !node.folder.path().join("run/lease").exists(),
        "nothing runs, nothing is left"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_ended_with_the_lease_is_lost() {
    let node = leased(FakeSandboxes::new()).await;
    let id = alloc(0, 1);
    node.server.order(&order(0));
    node.sandboxes.wait(id.as_str());
    node.sandboxes.start(id.as_str());
    node.server.reported(&id, ObservedState::Running).await;
    node.sandboxes.end_with_the_lease(id.as_str());
    let ended = node.server.reported(&id, ObservedState::Ended).await;
    match ended.outcome {
        Some(Outcome::Lost { message }) => assert!(message.contains("lease"), "{message}"),
        other => panic!("{other:?}"),
    }
    assert!((node.metric("buildflow_agent_lost_attempts_total") - 1.0).abs() < f64::EPSILON);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_step_is_ended_and_says_why() {
    let node = leased(FakeSandboxes::new()).await;
    node.server.order(&order(0));
    node.sandboxes.wait(alloc(0, 1).as_str());
    node.sandboxes.start(alloc(0, 1).as_str());
    node.server.reported(&alloc(0, 1), ObservedState::Running).await;
    let mut slow = crate::agents::def();
    slow.image = "slow".to_owned();
    node.server.order(&crate::agents::order_of(1, 1, &slow));
    node.material.asked.notified().await;
    for step in 0..2 {
        let mut order = node.server.books().standing[alloc(step, 1).as_str()].clone();
        order.stop = "drained".to_owned();
        node.server.order(&order);
        let ended = node.server.reported(&alloc(step, 1), ObservedState::Ended).await;
        assert_eq!(ended.outcome, Some(Outcome::Cancelled), "the leader asked for it");
    }
    assert_eq!(node.sandboxes.stopped(alloc(0, 1).as_str()).as_deref(), Some("drained"));
    let log = node.server.whole_log(&alloc(1, 1)).await;
    assert!(String::from_utf8_lossy(&log).contains("drained"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_list_starts_nothing_that_has_ended_not_even_after_a_restart() {
    let mut node = leased(FakeSandboxes::quick("", 0)).await;
    let id = alloc(0, 1);
    node.server.order(&order(0));
    node.server.reported(&id, ObservedState::Ended).await;
    node.server.whole_log(&id).await;
    node.server.forget(&id);
    node.nothing_left().await;
    for restart in [false, true] {
        if restart {
            node.kill_agent().await;
            node.start_agent();
        }
        let reports = node.server.books().reports[id.as_str()].len();
        // The list of a server that is behind.
        node.server.order(&order(0));
        node.server.cut();
        let lost = |books: &crate::fake_server::Books| {
            let newer = &books.reports[id.as_str()][reports..];
            newer.iter().find_map(|report| report.outcome.clone())
        };
        match node.server.until("an answer to the late list", lost).await {
            Outcome::Lost { message } => assert!(message.contains("ended"), "{message}"),
            other => panic!("{other:?}"),
        }
        node.server.forget(&id);
        node.nothing_left().await;
    }
    assert_eq!(node.sandboxes.launches.lock().unwrap().len(), 1);
}
