//! What operators want of nodes: cordon, uncordon, drain.

mod world;

use model::{Eligibility, NodeId, ObservedState, Outcome, RequestKind, RetryOn, RunId, StepStatus, Stop, key};
use scheduler::{Action, Verdict};
use world::*;

fn cordon(node: &NodeId) -> RequestKind {
    RequestKind::Cordon { node: node.clone() }
}

fn uncordon(node: &NodeId) -> RequestKind {
    RequestKind::Uncordon { node: node.clone() }
}

fn drain(node: &NodeId, deadline_ms: Option<u64>) -> RequestKind {
    RequestKind::Drain {
        node: node.clone(),
        deadline_ms,
    }
}

/// A step of one retry for nothing has been placed on `n1`.
fn placed(idempotent: bool) -> (World, RunId, NodeId) {
    let mut world = World::new();
    world.lead();
    let n1 = world.add_node("n1", room(1_500, 16), 10, &[]);
    let mut a = retried(step("a", &[], ask(1_000, 1)), 0, &[]);
    a.idempotent = idempotent;
    let run = world.add_run("r1", 1, vec![a]);
    world.settle();
    (world, run, n1)
}

fn eligibility(world: &World, node: &NodeId) -> Option<Eligibility> {
    world.get(&key::eligibility(node))
}

#[test]
fn a_cordoned_node_gets_nothing_new_and_keeps_what_it_has() {
    let (mut world, run, n1) = placed(true);
    world.ask_for("q", cordon(&n1));
    let late = world.add_run("r2", 2, vec![step("b", &[], ask(400, 1))]);
    world.settle();
    assert!(!world.keys.contains_key(&key::request("q")));
    let written = eligibility(&world, &n1).expect("written");
    assert_eq!((written.cordoned_by.as_str(), &written.drain), ("alice", &None));
    assert_eq!(
        world.status(&late, 0),
        Some(StepStatus::Queued),
        "not even in the same plan"
    );
    let why = world.explain(&late, 0);
    assert_eq!(why.verdict, Verdict::Cordoned);
    assert_eq!(
        why.sentence,
        "no node that fits takes steps: n1: it is cordoned by alice"
    );
    assert_eq!(why.candidates[0].reason, "it is cordoned by alice");
    assert_eq!(
        why.nodes.map(|n| (n.connected, n.large_enough, n.eligible)),
        Some((1, 1, 0))
    );
    assert_eq!(world.order(&run, 0).stop, None);

    world.ask_for("again", cordon(&n1));
    world.settle();
    assert_eq!(
        eligibility(&world, &n1),
        Some(written),
        "nothing is written for what is so already"
    );
    world.ask_for("u", uncordon(&n1));
    world.settle();
    assert_eq!(eligibility(&world, &n1), None);
    assert_eq!(world.status(&late, 0), Some(StepStatus::Assigned));
    world.ask_for("u2", uncordon(&n1));
    world.settle();
    assert!(!world.keys.contains_key(&key::request("u2")));
}

#[test]
fn a_new_leader_knows_who_is_cordoned_from_the_store() {
    let (mut world, _, n1) = placed(true);
    world.ask_for("q", cordon(&n1));
    world.settle();
    world.take_over();
    let late = world.add_run("r2", 2, vec![step("b", &[], ask(400, 1))]);
    world.settle();
    assert_eq!(world.explain(&late, 0).verdict, Verdict::Cordoned);
}

#[test]
fn at_the_deadline_attempts_leave_and_come_back_elsewhere_without_counting() {
    let (mut world, run, n1) = placed(true);
    world.add_node("n2", room(4_000, 16), 10, &[]);
    world.report(&run, 0, ObservedState::Running, None);
    world.settle();
    let deadline = world.now_ms + 60_000;
    world.ask_for("q", drain(&n1, Some(deadline)));
    world.settle();
    assert_eq!(world.order(&run, 0).stop, None, "it may finish");
    assert_eq!(world.cluster.next_wake_ms(world.now_ms), Some(deadline - world.now_ms));
    let written = eligibility(&world, &n1).expect("written");
    assert_eq!(written.drain.and_then(|d| d.deadline_ms), Some(deadline));
    world.pass(deadline - world.now_ms - 2);
    assert!(world.settle().is_empty());
    assert_eq!(world.order(&run, 0).stop, None);
    world.pass(2);
    world.settle();
    let first = world.order(&run, 0);
    assert_eq!(first.stop, Some(Stop::Drained));
    assert_eq!(
        world.explain(&run, 0).sentence,
        "it has been told to leave its node on n1"
    );
    assert_eq!(world.order_count(), 1, "nothing is placed while it may be alive");

    world.report(&run, 0, ObservedState::Ended, Some(Outcome::Cancelled));
    world.settle();
    let record = world.step(&run, 0).expect("placed again");
    assert_eq!(
        (record.status, record.attempt, record.retry_at_ms),
        (StepStatus::Assigned, 2, None)
    );
    assert_eq!(record.node.as_ref().map(NodeId::as_str), Some("n2"));
    let kept = &record.earlier[0];
    assert_eq!((kept.counts, &kept.outcome, kept.log_bytes), (false, &None, Some(77)));
    assert_eq!(kept.reason, "was taken from n1, which is being drained");
}

#[test]
fn an_attempt_that_is_to_leave_ends_as_it_deserves() {
    let begun = "was ended because n1 is being drained; it is not started again because it is marked `idempotent: false` and had begun";
    let exited = |code| Outcome::Exited { code };
    // Idempotent, whether it ran, how it ended, what becomes of it.
    let cases = [
        (true, true, exited(0), StepStatus::Success, None),
        (true, true, exited(143), StepStatus::Queued, None),
        (true, false, Outcome::Cancelled, StepStatus::Queued, None),
        (false, true, exited(0), StepStatus::Success, None),
        (false, true, Outcome::Cancelled, StepStatus::Failed, Some(begun)),
        (false, true, exited(143), StepStatus::Failed, Some(begun)),
        (false, false, Outcome::Cancelled, StepStatus::Queued, None),
    ];
    for (idempotent, ran, outcome, status, reason) in cases {
        let (mut world, run, n1) = placed(idempotent);
        if ran {
            world.report(&run, 0, ObservedState::Running, None);
            world.settle();
        }
        world.ask_for("q", drain(&n1, Some(world.now_ms)));
        world.settle();
        let mut report = world.report_of(&run, 0, ObservedState::Ended, Some(outcome.clone()));
        report.started_ms = report.started_ms.filter(|_| ran);
        world.put(key::observed(&report.alloc), &report);
        world.settle();
        let record = world.step(&run, 0).expect("there");
        assert_eq!(record.status, status, "{idempotent} {ran} {outcome:?}");
        if reason.is_some() {
            assert_eq!(record.reason.as_deref(), reason);
        }
    }
}

#[test]
fn a_drain_without_a_deadline_waits_for_every_step() {
    let (mut world, run, n1) = placed(true);
    world.ask_for("q", drain(&n1, None));
    world.settle();
    world.pass(10_000_000);
    assert!(world.settle().is_empty());
    assert_eq!(
        (world.order(&run, 0).stop, world.cluster.next_wake_ms(world.now_ms)),
        (None, None)
    );
    let late = world.add_run("r2", 2, vec![step("b", &[], ask(400, 1))]);
    world.settle();
    assert_eq!(
        world.explain(&late, 0).candidates[0].reason,
        "it drains until all of its steps have ended; it is cordoned by alice"
    );
    // A second request sets the deadline; the author of the cordon stays.
    world.ask_for("q2", drain(&n1, Some(1_700_000_000_000)));
    world.settle();
    assert_eq!(
        world.explain(&late, 0).candidates[0].reason,
        "it drains until 2023-11-14 22:13:20 UTC; it is cordoned by alice"
    );
}

#[test]
fn a_drain_that_is_called_off_starts_nothing_twice() {
    // Called off before the deadline, and after the attempts were told to leave.
    for after in [false, true] {
        let (mut world, run, n1) = placed(true);
        world.ask_for("q", drain(&n1, Some(world.now_ms + 1_000)));
        world.settle();
        if after {
            world.pass(1_000);
            world.settle();
        }
        world.ask_for("u", uncordon(&n1));
        world.settle();
        world.pass(10_000);
        world.settle();
        let order = world.order(&run, 0);
        assert_eq!((order.attempt, order.stop.is_some()), (1, after));
        assert_eq!(world.order_count(), 1);
        world.report(&run, 0, ObservedState::Ended, Some(Outcome::Cancelled));
        world.settle();
        let expect = if after {
            StepStatus::Assigned
        } else {
            StepStatus::Cancelled
        };
        assert_eq!(world.status(&run, 0), Some(expect));
        assert_eq!(world.order_count(), usize::from(after));
    }
}

#[test]
fn a_cancel_overrules_a_drain() {
    for lost in [false, true] {
        let (mut world, run, n1) = placed(true);
        world.ask_for("q", drain(&n1, Some(world.now_ms)));
        world.settle();
        assert_eq!(world.order(&run, 0).stop, Some(Stop::Drained));
        world.cancel("c", &run);
        world.settle();
        assert_eq!(world.order(&run, 0).stop, Some(Stop::Cancelled));
        assert!(!world.keys.contains_key(&key::request("c")));
        if lost {
            world.disconnect(&n1);
            world.settle();
            world.pass(25_000);
        } else {
            world.report(&run, 0, ObservedState::Ended, Some(Outcome::Exited { code: 143 }));
        }
        world.settle();
        assert_eq!(world.status(&run, 0), Some(StepStatus::Cancelled), "lost: {lost}");
    }
}

#[test]
fn a_drained_node_that_is_lost_gives_its_steps_back_without_counting() {
    let (mut world, run, n1) = placed(true);
    world.ask_for("q", drain(&n1, Some(world.now_ms)));
    world.settle();
    world.disconnect(&n1);
    world.settle();
    world.pass(25_000);
    world.settle();
    let record = world.step(&run, 0).expect("waits");
    assert_eq!((record.status, record.earlier[0].counts), (StepStatus::Queued, false));
}

#[test]
fn requests_about_one_node_are_carried_out_in_their_order_one_at_a_time() {
    let (mut world, _, n1) = placed(true);
    world.ask_for("z", cordon(&n1));
    world.now_ms += 1;
    world.ask_for("y", drain(&n1, None));
    world.now_ms += 1;
    world.ask_for("x", uncordon(&n1));
    for (left, drained) in [(2, false), (1, true)] {
        let (plan, ..) = world.round();
        assert_eq!(plan.proposals.len(), 1, "one writer of a key in each batch");
        assert!(plan.more);
        let requests = world.keys.keys().filter(|k| k.starts_with(key::REQUESTS)).count();
        let is_drained = eligibility(&world, &n1).expect("cordoned").drain.is_some();
        assert_eq!((requests, is_drained), (left, drained));
    }
    world.settle();
    assert_eq!(eligibility(&world, &n1), None);
}

#[test]
fn a_request_about_an_unknown_node_is_dropped_unless_it_has_come_since() {
    let mut world = World::new();
    let nobody = NodeId::new("nobody").expect("legal");
    world.ask_for("q", cordon(&nobody));
    let plan = world.cluster.plan(world.now_ms);
    let change = plan.proposals[0].action.change();
    assert!(
        change
            .guards
            .iter()
            .any(|(key, expect)| *key == key::node(&nobody) && *expect == scheduler::Expect::Absent)
    );
    world.cluster.refuse(plan.proposals[0].ticket);
    world.settle();
    assert!(!world.keys.contains_key(&key::request("q")));
    assert!(!world.keys.contains_key(&key::eligibility(&nobody)));
}

#[test]
fn requests_of_a_newer_release_are_neither_carried_out_nor_lost() {
    let mut world = World::new();
    let n1 = world.add_node("n1", room(4_000, 16), 10, &[]);
    let newer = br#"{"kind":"request","v":1,"request":"repave","node":"n1","requested_by":"a","created_ms":1,"request_id":"r"}"#;
    world.put_bytes(key::request("newer"), Some(newer.to_vec()));
    let mut known: serde_json::Value = serde_json::from_slice(&model::encode(&model::Request {
        what: cordon(&n1),
        requested_by: "bob".to_owned(),
        created_ms: 5,
        request_id: "r".to_owned(),
    }))
    .expect("JSON");
    known["why"] = "a field of a newer release".into();
    world.put_bytes(key::request("known"), Some(known.to_string().into_bytes()));
    world.settle();
    assert!(world.keys.contains_key(&key::request("newer")));
    assert_eq!(world.cluster.malformed().len(), 1);
    assert!(!world.keys.contains_key(&key::request("known")));
    assert_eq!(eligibility(&world, &n1).expect("carried out").cordoned_by, "bob");
}

#[test]
fn an_eligibility_that_cannot_be_read_counts_as_a_cordon_and_can_be_lifted() {
    let (mut world, _, n1) = placed(true);
    world.put_bytes(key::eligibility(&n1), Some(b"{".to_vec()));
    let late = world.add_run("r2", 2, vec![step("b", &[], ask(400, 1))]);
    world.settle();
    assert!(
        world
            .explain(&late, 0)
            .sentence
            .contains("its eligibility cannot be read")
    );
    world.ask_for("u", uncordon(&n1));
    world.settle();
    assert_eq!(world.status(&late, 0), Some(StepStatus::Assigned));
}

#[test]
fn a_stop_is_refused_when_the_drain_is_called_off_meanwhile() {
    let (mut world, _, n1) = placed(true);
    world.ask_for("q", drain(&n1, Some(world.now_ms + 10)));
    world.settle();
    world.pass(20);
    let plan = world.cluster.plan(world.now_ms);
    assert!(matches!(&*plan.proposals[0].action, Action::Stop { .. }));
    world.put_bytes(key::eligibility(&n1), None);
    let (verified, refused) = world.cluster.verify(&plan);
    assert!(verified.is_empty());
    assert_eq!(refused[0].refusal.to_string(), "node n1 has changed");
}

#[test]
fn a_drained_step_with_retries_left_keeps_them() {
    let mut world = World::new();
    let n1 = world.add_node("n1", room(4_000, 16), 10, &[]);
    let run = world.add_run(
        "r1",
        1,
        vec![retried(step("a", &[], ask(1_000, 1)), 1, &[RetryOn::Failure])],
    );
    world.settle();
    world.ask_for("q", drain(&n1, Some(world.now_ms)));
    world.settle();
    world.report(&run, 0, ObservedState::Ended, Some(Outcome::Exited { code: 1 }));
    world.ask_for("u", uncordon(&n1));
    world.settle();
    for (code, status) in [(1, StepStatus::Assigned), (1, StepStatus::Failed)] {
        world.exit(&run, 0, code);
        world.settle();
        assert_eq!(world.status(&run, 0), Some(status));
    }
}
