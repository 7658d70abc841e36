//! When a silent node is given up, and what becomes of its steps.

mod world;

use model::{NodeId, ObservedState, Outcome, RequestKind, RunId, StepStatus, key};
use scheduler::{Cluster, LeaseTimes, Verdict};
use world::*;

const LEASE_MS: u64 = 20_000;
const GRACE_MS: u64 = 5_000;

/// A step runs on `n1`; `n2` has room for it but fits worse.
fn running() -> (World, RunId, NodeId) {
    let mut world = World::new();
    world.steady_ms = 7_000_000;
    world.lead();
    let n1 = world.add_node("n1", room(1_500, 16), 10, &[]);
    world.add_node("n2", room(4_000, 16), 10, &[]);
    let run = world.add_run("r1", 1, vec![step("a", &[], ask(1_000, 1))]);
    world.settle();
    world.report(&run, 0, ObservedState::Running, None);
    world.settle();
    assert_eq!(world.order(&run, 0).node, n1);
    (world, run, n1)
}

/// What the step is like after `ms` more, when everything due was done at every millisecond before
/// the last.
fn is_lost_exactly_after(world: &mut World, run: &RunId, ms: u64) {
    assert_eq!(world.cluster.next_wake_ms(world.now_ms), Some(ms));
    world.pass(ms - 1);
    assert!(world.settle().is_empty(), "not a moment too early");
    world.pass(1);
    world.settle();
    assert_eq!(world.step(run, 0).map(|r| r.earlier.len()), Some(1), "lost");
}

#[test]
fn a_node_is_lost_after_lease_and_grace_of_the_term_and_the_grace_of_its_silence() {
    // How long the term has lasted when the session vanishes, and how long it takes from then.
    let cases = [
        (0, LEASE_MS + GRACE_MS),
        (1_000, LEASE_MS + GRACE_MS - 1_000),
        (LEASE_MS, GRACE_MS),
        (LEASE_MS + 1, GRACE_MS),
        (3_600_000, GRACE_MS),
    ];
    for (lasted, wait) in cases {
        let (mut world, run, n1) = running();
        world.pass(lasted);
        world.disconnect(&n1);
        world.settle();
        is_lost_exactly_after(&mut world, &run, wait);
        let record = world.step(&run, 0).expect("placed again");
        assert_eq!((record.status, record.attempt), (StepStatus::Assigned, 2));
        assert_eq!(record.node.as_ref().map(NodeId::as_str), Some("n2"), "and elsewhere");
        let kept = &record.earlier[0];
        assert_eq!(
            (kept.counts, kept.log_bytes, kept.times.started_ms),
            (true, None, Some(1_500_000))
        );
        assert_eq!(
            kept.reason,
            "was lost: its node, n1, fell silent and its lease has run out"
        );
        assert_eq!(world.order_count(), 1, "at most one attempt is ordered");
    }
}

#[test]
fn the_times_are_those_of_the_configuration() {
    let (mut world, run, n1) = running();
    world.cluster = Cluster::with_lease(LeaseTimes {
        lease_ms: 600_000,
        grace_ms: 1_000,
    });
    for told in world.history.clone() {
        let _ = world.cluster.on_change(&told.key, told.value.as_deref(), told.revision);
    }
    world.lead();
    world.disconnect(&n1);
    world.settle();
    is_lost_exactly_after(&mut world, &run, 601_000);
}

#[test]
fn nobody_is_given_up_by_one_who_does_not_lead() {
    let (mut world, run, n1) = running();
    world.cluster = Cluster::new();
    for told in world.history.clone() {
        let _ = world.cluster.on_change(&told.key, told.value.as_deref(), told.revision);
    }
    world.disconnect(&n1);
    world.pass(10_000_000);
    assert!(world.settle().is_empty());
    assert_eq!(world.status(&run, 0), Some(StepStatus::Running));
}

#[test]
fn a_new_leader_waits_anew() {
    let (mut world, run, n1) = running();
    world.disconnect(&n1);
    world.settle();
    world.pass(LEASE_MS + GRACE_MS - 1);
    world.take_over();
    world.settle();
    is_lost_exactly_after(&mut world, &run, LEASE_MS + GRACE_MS);
}

#[test]
fn a_node_that_is_only_cut_off_gets_nothing_new_and_keeps_what_it_has() {
    let (mut world, run, n1) = running();
    world.pass(LEASE_MS + GRACE_MS);
    world.cut_off(&n1);
    let other = world.add_run("r2", 2, vec![labelled(step("b", &[], ask(400, 1)), &[])]);
    world.settle();
    assert_eq!(world.order(&other, 0).node.as_str(), "n2");
    let why = world.explain(&run, 0);
    assert_eq!(why.verdict, Verdict::NodeAway);
    assert!(
        why.sentence
            .ends_with("it waits for the node to return or its lease to run out")
    );
    world.pass(3_600_000);
    assert!(
        world.settle().is_empty(),
        "its lease is renewed or will run out: the store says it"
    );
    world.disconnect(&n1);
    world.settle();
    assert_eq!(
        world.explain(&run, 0).sentence,
        "it runs on n1, which is not connected; unless the node returns it is given up in 5 s"
    );
    is_lost_exactly_after(&mut world, &run, GRACE_MS);
}

#[test]
fn a_node_that_registers_in_time_keeps_its_orders() {
    let (mut world, run, n1) = running();
    world.disconnect(&n1);
    world.settle();
    world.pass(LEASE_MS + GRACE_MS - 1);
    world.register_again(&n1);
    world.settle();
    world.pass(3_600_000);
    assert!(world.settle().is_empty());
    assert_eq!(world.cluster.next_wake_ms(world.now_ms), None);
    world.exit(&run, 0, 0);
    world.settle();
    assert_eq!(world.status(&run, 0), Some(StepStatus::Success));
}

#[test]
fn a_return_that_the_view_has_not_heard_of_refuses_the_loss() {
    type Happens = fn(&mut World, &NodeId, &RunId);
    let cases: [Happens; 3] = [
        |w, n1, _| w.connect(n1, 1),
        |w, n1, _| {
            // Came back and fell silent again: a new lease that has only just run out.
            w.register_again(n1);
            w.disconnect(n1);
        },
        |w, _, run| w.exit(run, 0, 0),
    ];
    for happens in cases {
        let (mut world, run, n1) = running();
        world.disconnect(&n1);
        world.settle();
        world.pass(LEASE_MS + GRACE_MS);
        world.cluster.tick(world.steady_ms);
        let plan = world.cluster.plan(world.now_ms);
        let (verified, refused) = world.cluster.verify(&plan);
        assert_eq!((verified.len(), refused.len()), (1, 0));
        let told = world.cluster.clone();
        happens(&mut world, &n1, &run);
        world.cluster = told;
        assert!(!world.commit(&verified[0].change), "the store knows better");
    }
}

#[test]
fn verify_refuses_the_loss_of_a_node_that_is_back() {
    let (mut world, _, n1) = running();
    world.disconnect(&n1);
    world.settle();
    world.pass(LEASE_MS + GRACE_MS);
    world.cluster.tick(world.steady_ms);
    let plan = world.cluster.plan(world.now_ms);
    world.connect(&n1, 1);
    let (verified, refused) = world.cluster.verify(&plan);
    assert!(verified.is_empty());
    assert_eq!(refused[0].refusal.to_string(), "node n1 has changed");
    world.cluster.sanity_check().expect("holds");
}

#[test]
fn an_end_that_was_reported_counts_although_the_node_is_away() {
    let (mut world, run, n1) = running();
    world.disconnect(&n1);
    world.settle();
    world.pass(LEASE_MS + GRACE_MS);
    world.exit(&run, 0, 0);
    world.settle();
    let record = world.step(&run, 0).expect("ended");
    assert_eq!((record.status, record.attempt), (StepStatus::Success, 1));
    assert_eq!(world.order_count(), 0);
}

#[test]
fn what_a_lost_node_says_later_changes_nothing() {
    let (mut world, run, n1) = running();
    let late = world.report_of(&run, 0, ObservedState::Ended, Some(Outcome::Exited { code: 0 }));
    world.disconnect(&n1);
    world.settle();
    world.pass(LEASE_MS + GRACE_MS);
    world.settle();
    world.put(key::observed(&late.alloc), &late);
    world.settle();
    assert_eq!(
        world.status(&run, 0),
        Some(StepStatus::Assigned),
        "the second attempt stands"
    );
    assert!(!world.keys.contains_key(&key::observed(&late.alloc)));
}

#[test]
fn a_cancelled_step_on_a_lost_node_is_cancelled_when_it_is_lost() {
    for lost_first in [true, false] {
        let (mut world, run, n1) = running();
        if lost_first {
            world.disconnect(&n1);
            world.settle();
        }
        world.cancel("q", &run);
        world.settle();
        assert_eq!(
            world.status(&run, 0),
            Some(StepStatus::Running),
            "it may still be alive"
        );
        if !lost_first {
            world.disconnect(&n1);
            world.settle();
        }
        world.pass(LEASE_MS + GRACE_MS);
        world.settle();
        let record = world.step(&run, 0).expect("ended");
        assert_eq!((record.status, record.earlier.len()), (StepStatus::Cancelled, 0));
        assert_eq!(
            record.reason.as_deref(),
            Some("was cancelled (was lost: its node, n1, fell silent and its lease has run out)")
        );
        assert_eq!(world.order_count(), 0);
    }
}

#[test]
fn a_lost_step_that_must_not_run_twice_fails_with_its_node() {
    let mut world = World::new();
    world.lead();
    let n1 = world.add_node("n1", room(4_000, 16), 10, &[]);
    let mut a = step("a", &[], ask(1_000, 1));
    a.idempotent = false;
    let run = world.add_run("r1", 1, vec![a]);
    world.settle();
    world.disconnect(&n1);
    world.settle();
    world.pass(LEASE_MS + GRACE_MS);
    world.settle();
    let record = world.step(&run, 0).expect("ended");
    assert_eq!((record.status, record.log_bytes), (StepStatus::Failed, None));
    let reason = record.reason.expect("said");
    assert!(
        reason.starts_with("was lost: its node, n1, fell silent") && reason.contains("`idempotent: false`"),
        "{reason}"
    );
}

#[test]
fn a_node_that_an_operator_declares_gone_is_not_waited_for() {
    let (mut world, run, n1) = running();
    let gone = |node_epoch| RequestKind::ConfirmGone {
        node: NodeId::new("n1").expect("legal"),
        node_epoch,
    };
    world.ask_for("old", gone(7));
    world.settle();
    assert!(
        !world.keys.contains_key(&key::request("old")),
        "another registration is not meant"
    );
    assert!(!world.keys.contains_key(&key::eligibility(&n1)));

    world.ask_for("q", gone(1));
    world.settle();
    assert!(!world.keys.contains_key(&key::request("q")));
    let written: model::Eligibility = world.get(&key::eligibility(&n1)).expect("written");
    assert_eq!((written.gone_epoch, written.cordoned_by.as_str()), (Some(1), "alice"));
    assert_eq!(world.status(&run, 0), Some(StepStatus::Running), "its stream belies it");
    world.cut_off(&n1);
    world.settle();
    let record = world.step(&run, 0).expect("placed again at once");
    assert_eq!(
        (record.attempt, record.node.as_ref().map(NodeId::as_str)),
        (2, Some("n2"))
    );
    assert_eq!(
        record.earlier[0].reason,
        "was lost: an operator declared that its node, n1, is gone"
    );
    // Its next life is not gone, but takes no steps before it is uncordoned.
    world.register_again(&n1);
    world.ask_for("u", RequestKind::Uncordon { node: n1.clone() });
    world.settle();
    assert!(!world.keys.contains_key(&key::eligibility(&n1)));
}

#[test]
fn a_declaration_is_not_struck_on_an_old_view_of_the_node() {
    let (mut world, _, n1) = running();
    world.cut_off(&n1);
    world.settle();
    // The store has the node's next life and the wish about it; the view has heard of the wish only.
    let mut record: model::NodeRecord = world.get(&key::node(&n1)).expect("it registered");
    record.epoch += 1;
    let bytes = model::encode(&record);
    world.revision += 1;
    let registered = world.revision;
    world.keys.insert(key::node(&n1), (bytes.clone(), registered));
    let node_epoch = record.epoch;
    let node = n1.clone();
    world.ask_for("q", RequestKind::ConfirmGone { node, node_epoch });
    world.round();
    assert!(world.keys.contains_key(&key::request("q")), "the store knows better");
    let _ = world.cluster.on_change(&key::node(&n1), Some(&bytes), registered);
    world.settle();
    assert!(!world.keys.contains_key(&key::request("q")));
    let written: model::Eligibility = world.get(&key::eligibility(&n1)).expect("written");
    assert_eq!(written.gone_epoch, Some(node_epoch));
}

#[test]
fn a_thousand_lost_steps_are_given_up_in_a_few_plans() {
    let mut world = World::new();
    world.lead();
    let big = model::Resources {
        disk_bytes: 10_000 * GIB,
        ..room(2_000_000, 10_000)
    };
    let n1 = world.add_node("n1", big, 5_000, &[]);
    for run in 0..3 {
        let steps = (0..500).map(|n| step(&format!("s{n}"), &[], ask(100, 0))).collect();
        world.add_run(&format!("r{run}"), 1, steps);
    }
    world.settle();
    assert_eq!(world.order_count(), 1_500);
    world.disconnect(&n1);
    world.settle();
    world.pass(LEASE_MS + GRACE_MS);
    let (first, ..) = world.round();
    assert_eq!((first.proposals.len(), first.more), (scheduler::PLAN_ACTIONS_MAX, true));
    world.settle();
    assert_eq!(world.order_count(), 0);
}
