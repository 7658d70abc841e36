//! The life of steps as cases: placed, run, ended, skipped, cancelled, explained.

mod world;

use model::{Fence, ObservedState, Outcome, StartFailure, StepStatus, Stop, key};
use scheduler::{Action, Verdict};
use world::*;

fn one_node_one_run(steps: Vec<model::StepDef>) -> (World, model::RunId) {
    let mut world = World::new();
    world.add_node("n1", room(4_000, 16), 10, &[("arch", "amd64")]);
    let run = world.add_run("r1", 999_000, steps);
    world.settle();
    (world, run)
}

#[test]
fn a_step_is_placed_runs_and_frees_its_node() {
    let (mut world, run) = one_node_one_run(vec![step("a", &[], ask(3_000, 1)), step("b", &[0], ask(3_000, 1))]);
    let record = world.step(&run, 0).expect("placed");
    let order = world.order(&run, 0);
    assert_eq!((record.status, record.attempt), (StepStatus::Assigned, 1));
    assert_eq!(record.fence, Fence { epoch: 1, counter: 1 });
    assert_eq!(
        (order.id.as_str(), order.node_epoch, order.resources),
        ("r1-0-1-1", 1, ask(3_000, 1))
    );
    assert_eq!(record.times.queued_ms, Some(999_000));
    assert!(
        record
            .placement
            .expect("explained")
            .contains("best fit: n1 costs the least")
    );
    assert_eq!(world.status(&run, 1), Some(StepStatus::Pending));

    world.report(&run, 0, ObservedState::Preparing, None);
    assert!(world.settle().is_empty(), "preparing is not written");
    world.report(&run, 0, ObservedState::Running, None);
    world.settle();
    let record = world.step(&run, 0).expect("runs");
    assert_eq!(
        (record.status, record.times.started_ms),
        (StepStatus::Running, Some(1_500_000))
    );

    world.exit(&run, 0, 0);
    world.settle();
    let record = world.step(&run, 0).expect("ended");
    assert_eq!(
        (record.status, record.log_bytes, record.usage.cpu_ms),
        (StepStatus::Success, Some(77), 6)
    );
    assert_eq!(
        (record.times.ended_ms, record.phases.len(), record.reason),
        (Some(1_600_000), 1, None)
    );
    assert!(
        !world.keys.contains_key(&key::observed(&order.id))
            && !world.keys.contains_key(&key::alloc(&order.node, &order.id))
    );
    assert_eq!(
        world.status(&run, 1),
        Some(StepStatus::Assigned),
        "the dependent follows"
    );
}

#[test]
fn every_outcome_gives_its_status_whether_or_not_running_was_reported() {
    let failed = StepStatus::Failed;
    let cases = [
        (Outcome::Exited { code: 0 }, StepStatus::Success),
        (Outcome::Exited { code: 3 }, failed),
        (Outcome::Signaled { signal: 11 }, failed),
        (Outcome::OutOfMemory { limit_bytes: GIB }, failed),
        (Outcome::TimedOut { timeout_ms: 5 }, StepStatus::TimedOut),
        (Outcome::Cancelled, StepStatus::Cancelled),
        (
            Outcome::Lost {
                message: "reboot".to_owned(),
            },
            failed,
        ),
        (
            Outcome::CommandMissing {
                command: "bash".to_owned(),
                message: "no such file".to_owned(),
            },
            failed,
        ),
        (
            Outcome::StartFailed {
                cause: StartFailure::Image,
                message: "no such image".to_owned(),
                lasting: true,
            },
            failed,
        ),
    ];
    for (outcome, status) in cases {
        for ran in [true, false] {
            let (mut world, run) = one_node_one_run(vec![retried(step("a", &[], ask(1_000, 1)), 0, &[])]);
            if ran {
                world.report(&run, 0, ObservedState::Running, None);
                world.settle();
            }
            world.report(&run, 0, ObservedState::Ended, Some(outcome.clone()));
            world.settle();
            let record = world.step(&run, 0).expect("ended");
            assert_eq!((record.status, record.outcome.as_ref()), (status, Some(&outcome)));
            assert_eq!(record.reason.is_none(), status == StepStatus::Success, "{outcome:?}");
        }
    }
}

#[test]
fn an_end_without_an_outcome_is_a_failure_that_says_so() {
    let (mut world, run) = one_node_one_run(vec![retried(step("a", &[], ask(1_000, 1)), 0, &[])]);
    world.report(&run, 0, ObservedState::Ended, None);
    world.settle();
    let record = world.step(&run, 0).expect("ended");
    assert_eq!(record.status, StepStatus::Failed);
    assert_eq!(
        record.reason.as_deref(),
        Some("was lost: the node reported its end without an outcome")
    );
}

#[test]
fn what_needs_a_failed_step_is_skipped_and_the_rest_goes_on() {
    let steps = vec![
        step("a", &[], ask(1_000, 1)),
        step("b", &[0], ask(1_000, 1)),
        step("c", &[1], ask(1_000, 1)),
        step("d", &[], ask(1_000, 1)),
    ];
    let (mut world, run) = one_node_one_run(steps);
    world.exit(&run, 0, 1);
    world.settle();
    let statuses: Vec<_> = (0..4).map(|s| world.status(&run, s)).collect();
    let (skipped, assigned) = (Some(StepStatus::Skipped), Some(StepStatus::Assigned));
    assert_eq!(statuses, [Some(StepStatus::Failed), skipped, skipped, assigned]);
    assert_eq!(
        world.step(&run, 1).and_then(|r| r.reason).as_deref(),
        Some("needs `a`, which failed")
    );
}

#[test]
fn a_cancelled_run_ends_its_unstarted_steps_and_stops_the_others() {
    let steps = vec![
        step("a", &[], ask(1_000, 1)),
        step("b", &[], ask(64_000, 1)),
        step("c", &[0], ask(1_000, 1)),
    ];
    let (mut world, run) = one_node_one_run(steps);
    world.cancel("q1", &run);
    world.cancel("q2", &run);
    world.settle();
    let cancelled = Some(StepStatus::Cancelled);
    assert_eq!((world.status(&run, 1), world.status(&run, 2)), (cancelled, cancelled));
    assert_eq!(
        world.step(&run, 1).and_then(|r| r.reason).as_deref(),
        Some("was cancelled by alice before it started")
    );
    assert_eq!(world.order(&run, 0).stop, Some(Stop::Cancelled));
    assert_eq!(world.explain(&run, 0).sentence, "it has been told to stop on n1");
    assert!(!world.keys.contains_key(&key::request("q1")) && !world.keys.contains_key(&key::request("q2")));
    world.report(&run, 0, ObservedState::Ended, Some(Outcome::Cancelled));
    world.settle();
    assert_eq!(world.status(&run, 0), cancelled);
}

#[test]
fn a_stopped_attempt_keeps_its_success_and_no_other_end() {
    let cases = [
        (Outcome::Exited { code: 0 }, StepStatus::Success, None),
        (
            Outcome::Exited { code: 143 },
            StepStatus::Cancelled,
            Some("was cancelled (ended with exit code 143)"),
        ),
        (Outcome::Cancelled, StepStatus::Cancelled, Some("was cancelled")),
    ];
    for (outcome, status, reason) in cases {
        let (mut world, run) = one_node_one_run(vec![step("a", &[], ask(1_000, 1))]);
        world.cancel("q", &run);
        world.settle();
        world.report(&run, 0, ObservedState::Ended, Some(outcome.clone()));
        world.settle();
        let record = world.step(&run, 0).expect("ended");
        assert_eq!(
            (record.status, record.reason.as_deref()),
            (status, reason),
            "{outcome:?}"
        );
    }
}

#[test]
fn a_report_that_arrived_before_the_cancel_counts_first() {
    let (mut world, run) = one_node_one_run(vec![step("a", &[], ask(1_000, 1))]);
    world.exit(&run, 0, 7);
    world.cancel("q", &run);
    world.settle();
    assert_eq!(world.status(&run, 0), Some(StepStatus::Failed));
    assert!(!world.keys.contains_key(&key::request("q")));
}

#[test]
fn a_cancel_waits_for_a_run_that_is_still_in_the_inbox_but_not_for_ever() {
    let mut world = World::new();
    let run = model::RunId::new("later").expect("legal");
    world.cancel("q", &run);
    world.settle();
    assert!(world.keys.contains_key(&key::request("q")), "the run may come");
    world.add_run("later", 999_000, vec![step("a", &[], ask(1, 1))]);
    world.settle();
    assert_eq!(world.status(&run, 0), Some(StepStatus::Cancelled));
    assert!(!world.keys.contains_key(&key::request("q")));

    world.cancel("q", &model::RunId::new("never").expect("legal"));
    world.now_ms += scheduler::UNKNOWN_RUN_WAIT_MS + 2;
    world.settle();
    assert!(!world.keys.contains_key(&key::request("q")));
}

#[test]
fn a_report_with_another_fence_is_removed_and_changes_nothing() {
    let (mut world, run) = one_node_one_run(vec![step("a", &[], ask(1_000, 1))]);
    let mut stale = world.report_of(&run, 0, ObservedState::Ended, Some(Outcome::Exited { code: 0 }));
    stale.fence.counter = 9;
    world.put(key::observed(&stale.alloc), &stale);
    world.settle();
    assert_eq!(world.status(&run, 0), Some(StepStatus::Assigned));
    assert!(!world.keys.contains_key(&key::observed(&stale.alloc)));
}

#[test]
fn orders_and_reports_of_a_step_that_has_ended_are_removed() {
    for run_finishes in [true, false] {
        let other = if run_finishes { ask(1_000, 1) } else { ask(64_000, 1) };
        let (mut world, run) = one_node_one_run(vec![step("a", &[], ask(1_000, 1)), step("b", &[], other)]);
        let order = world.order(&run, 0);
        let report = world.report_of(&run, 0, ObservedState::Ended, Some(Outcome::Exited { code: 1 }));
        world.exit(&run, 0, 0);
        if run_finishes {
            world.exit(&run, 1, 0);
        }
        world.settle();
        // A hand that puts back what is over.
        world.put(key::observed(&report.alloc), &report);
        world.put(key::alloc(&order.node, &order.id), &order);
        world.settle();
        assert_eq!(world.status(&run, 0), Some(StepStatus::Success));
        assert!(
            !world.keys.contains_key(&key::observed(&order.id)),
            "finished: {run_finishes}"
        );
    }
}

#[test]
fn what_is_in_flight_is_not_proposed_again_and_a_refusal_gives_it_back() {
    let mut world = World::new();
    world.add_node("n1", room(1_000, 16), 10, &[]);
    world.add_run(
        "r1",
        1,
        vec![step("a", &[], ask(1_000, 1)), step("b", &[], ask(1_000, 1))],
    );
    let plan = world.cluster.plan(world.now_ms);
    assert_eq!(placements(&plan).len(), 1);
    assert!(
        world.cluster.plan(world.now_ms).proposals.is_empty(),
        "its room is reserved"
    );
    world.cluster.sanity_check().expect("holds while in flight");
    world.cluster.refuse(plan.proposals[0].ticket);
    let again = world.cluster.plan(world.now_ms);
    assert_eq!(placements(&again)[0].step, placements(&plan)[0].step);
}

#[test]
fn verify_refuses_what_the_newest_view_contradicts() {
    type Disturb = fn(&mut World, &model::RunId);
    let cases: [(&str, Disturb); 4] = [
        ("node n1 has changed", |w, _| {
            w.disconnect(&model::NodeId::new("n1").expect("legal"))
        }),
        ("node n1 has changed", |w, _| {
            let record = node("n1", 2, room(1_000, 1), 1, &[]);
            w.put(key::node(&record.id), &record);
            w.connect(&record.id, 2);
        }),
        ("run r1 is being cancelled", |w, run| w.cancel("q", run)),
        ("step 0 of run r1 has changed", |w, run| {
            w.put(key::step(run, 0), &model::StepRecord::first(StepStatus::Skipped));
        }),
    ];
    for (reason, disturb) in cases {
        let mut world = World::new();
        world.add_node("n1", room(4_000, 16), 10, &[]);
        let run = world.add_run("r1", 1, vec![step("a", &[], ask(1_000, 1))]);
        let plan = world.cluster.plan(world.now_ms);
        assert_eq!(plan.proposals.len(), 1);
        disturb(&mut world, &run);
        let (verified, refused) = world.cluster.verify(&plan);
        assert!(verified.is_empty());
        assert_eq!(refused[0].refusal.to_string(), reason);
        assert_eq!(world.cluster.in_flight(), 0, "the reservation is gone");
        world.cluster.sanity_check().expect("holds");
    }
}

#[test]
fn nothing_is_placed_before_the_epoch_is_known_or_in_a_newer_format() {
    let mut world = World::new();
    world.add_node("n1", room(4_000, 16), 10, &[]);
    world.add_run("r1", 1, vec![step("a", &[], ask(1_000, 1))]);
    world.put(
        key::CLUSTER_VERSION,
        &model::ClusterVersion {
            format: 2,
            epoch: 1,
            unknown: model::record::Unknown::new(),
        },
    );
    assert!(world.cluster.plan(world.now_ms).proposals.is_empty());
    world.put_bytes(key::CLUSTER_VERSION, None);
    assert!(world.cluster.plan(world.now_ms).proposals.is_empty());
}

#[test]
fn a_later_epoch_begins_its_own_count_of_fences() {
    let mut world = World::new();
    world.add_node("n1", room(4_000, 16), 10, &[]);
    let run = world.add_run("r1", 1, vec![step("a", &[], ask(1_000, 1))]);
    let mut back_in_queue = model::StepRecord::first(StepStatus::Queued);
    back_in_queue.attempt = 4;
    back_in_queue.fence = Fence { epoch: 1, counter: 6 };
    for (epoch, fence) in [(1, Fence { epoch: 1, counter: 7 }), (2, Fence { epoch: 2, counter: 1 })] {
        let mut world = World::new();
        world.add_node("n1", room(4_000, 16), 10, &[]);
        world.add_run("r1", 1, vec![step("a", &[], ask(1_000, 1))]);
        world.put(
            key::CLUSTER_VERSION,
            &model::ClusterVersion {
                format: 1,
                epoch,
                unknown: model::record::Unknown::new(),
            },
        );
        world.put(key::step(&run, 0), &back_in_queue);
        world.settle();
        assert_eq!((world.order(&run, 0).fence, world.order(&run, 0).attempt), (fence, 5));
    }
}

#[test]
fn damaged_records_are_kept_out_with_a_reason_and_mended_by_a_good_one() {
    let mut world = World::new();
    world.add_node("n1", room(4_000, 16), 10, &[]);
    let run = world.add_run("r1", 1, vec![step("a", &[], ask(1_000, 1))]);
    let broken: [(String, &[u8]); 9] = [
        (key::step(&run, 0), b"not json"),
        (
            key::node(&model::NodeId::new("n2").expect("legal")),
            b"{\"kind\":\"team\",\"v\":1}",
        ),
        ("session/n1x".to_owned(), b"{\"kind\":\"session\",\"v\":99}"),
        ("alloc/n1/r1-0-1-1".to_owned(), b"[]"),
        ("observed/r1-0-1-1".to_owned(), b"{}"),
        ("request/q".to_owned(), b"\xff\xfe"),
        ("run/r2".to_owned(), b"null"),
        ("run/r2/def/0000".to_owned(), b"0"),
        ("run/r3/step/0000".to_owned(), &[0; 100_000]),
    ];
    for (key, bytes) in &broken {
        world.put_bytes(key.clone(), Some(bytes.to_vec()));
        assert!(world.cluster.malformed().contains_key(key), "{key}");
    }
    world.settle();
    assert_eq!(world.explain(&run, 0).verdict, Verdict::Damaged);
    assert!(world.order_count() == 0, "nothing of a damaged run is placed");
    world.put_bytes(key::step(&run, 0), None);
    world.put_bytes("alloc/n1/r1-0-1-1", None);
    world.settle();
    assert_eq!(world.status(&run, 0), Some(StepStatus::Assigned));
    for foreign in ["team/default", "run/r1/else", "node/ü", "alloc/x", "leader", "zzz", ""] {
        world.put_bytes(foreign, Some(b"x".to_vec()));
        assert!(!world.cluster.malformed().contains_key(foreign), "{foreign}");
    }
}

#[test]
fn a_definition_that_contradicts_itself_stops_its_run_only_and_it_can_be_cancelled() {
    type Damage = fn(&mut model::RunHeader, &mut model::RunDef);
    let cases: [(&str, Damage); 4] = [
        ("its definition has 2 steps, its header says 3", |h, _| h.steps = 3),
        ("step 1 needs step 7 of 2", |_, d| d.steps[1].needs = vec![7]),
        ("step 1 needs step 1 of 2", |_, d| d.steps[1].needs = vec![1]),
        ("its definition cannot be read", |_, d| {
            d.steps[0].title = Some("cut".to_owned())
        }),
    ];
    for (reason, damage) in cases {
        let mut world = World::new();
        world.add_node("n1", room(4_000, 16), 10, &[]);
        let (mut header, mut def) = run(
            "default",
            "bad",
            1,
            vec![step("a", &[], ask(1, 1)), step("b", &[0], ask(1, 1))],
        );
        damage(&mut header, &mut def);
        let mut chunks = def.to_chunks();
        if reason.contains("cannot be read") {
            chunks[0].text.truncate(50);
        }
        world.put(key::run_def(&header.id, 0), &chunks[0]);
        world.put(key::run(&header.id), &header);
        let good = world.add_run("good", 2, vec![step("a", &[], ask(1, 1))]);
        world.settle();
        let explanation = world.explain(&header.id, 0);
        assert_eq!(explanation.verdict, Verdict::Damaged);
        assert!(
            explanation.sentence.contains(reason),
            "{} / {reason}",
            explanation.sentence
        );
        assert_eq!(world.status(&good, 0), Some(StepStatus::Assigned));
        world.cancel("q", &header.id);
        world.settle();
        assert_eq!(world.status(&header.id, 0), Some(StepStatus::Cancelled));
    }
}

#[test]
fn a_run_that_failed_before_it_had_steps_takes_no_room_in_the_view() {
    let mut world = World::new();
    let (mut header, _) = run("default", "r1", 1, Vec::new());
    header.def_chunks = 0;
    header.error = Some(model::RunError {
        message: "no such branch".to_owned(),
        findings: Vec::new(),
    });
    world.put(key::run(&header.id), &header);
    world.settle();
    assert_eq!(world.cluster.live_runs(), 0);
    assert!(world.cluster.explain(&header.id, 0, 1).is_none());
}

#[test]
fn a_plan_holds_so_many_actions_and_says_that_there_are_more() {
    let mut world = World::new();
    let huge = model::Resources {
        disk_bytes: 5_000 * GIB,
        ..room(5_000_000, 5_000)
    };
    world.add_node("n1", huge, 5_000, &[]);
    for run in ["r1", "r2"] {
        let steps = (0..1_000).map(|n| step(&format!("s{n}"), &[], ask(1, 0))).collect();
        world.add_run(run, 1, steps);
    }
    let plan = world.cluster.plan(1);
    assert_eq!((plan.proposals.len(), plan.more), (scheduler::PLAN_ACTIONS_MAX, true));
    let rest = world.cluster.plan(1);
    assert_eq!((rest.proposals.len(), rest.more), (1_000, false));
}

#[test]
fn a_step_that_has_room_does_not_wait_until_every_result_is_folded() {
    let mut world = World::new();
    let huge = model::Resources {
        disk_bytes: 5_000 * GIB,
        ..room(5_000_000, 5_000)
    };
    world.add_node("n1", huge, 5_000, &[]);
    let live = ["r1", "r2"].map(|id| {
        let steps = (0..1_000).map(|n| step(&format!("s{n}"), &[], ask(1, 0))).collect();
        world.add_run(id, 1, steps)
    });
    world.settle();
    for run in &live {
        (0..1_000).for_each(|step| world.exit(run, step, 0));
    }
    world.add_run("r3", 1, vec![step("next", &[], ask(1, 0))]);
    let plan = world.cluster.plan(1);
    assert_eq!(placements(&plan).len(), 1);
    assert!(plan.proposals.len() > 500 && plan.more);
}

#[test]
fn cancelling_a_thousand_steps_takes_one_plan_and_one_more_for_the_request() {
    let mut world = World::new();
    let steps = (0..1_000).map(|n| step(&format!("s{n}"), &[], ask(1, 0))).collect();
    let run = world.add_run("r1", 1, steps);
    world.cancel("q", &run);
    let (plan, ..) = world.round();
    assert_eq!(plan.proposals.len(), 1_000);
    let (plan, ..) = world.round();
    assert!(matches!(&*plan.proposals[0].action, Action::DropRequest { id, .. } if id == "q"));
    assert_eq!(world.cluster.live_runs(), 0);
}

#[test]
fn a_node_away_keeps_its_steps_and_gets_no_more() {
    let (mut world, run) = one_node_one_run(vec![step("a", &[], ask(1_000, 1)), step("b", &[0], ask(1_000, 1))]);
    let n1 = model::NodeId::new("n1").expect("legal");
    world.disconnect(&n1);
    world.settle();
    let explanation = world.explain(&run, 0);
    assert_eq!(explanation.verdict, Verdict::NodeAway);
    assert!(
        explanation.sentence.contains("n1, which is not connected"),
        "{explanation}"
    );
    world.exit(&run, 0, 0);
    world.settle();
    assert_eq!(
        world.explain(&run, 1).sentence,
        "no node is connected; 1 registered earlier and are away"
    );
    // The node returns under its next registration; a session of the old one does not count.
    let again = node("n1", 2, room(4_000, 16), 10, &[]);
    world.put(key::node(&n1), &again);
    world.connect(&n1, 1);
    world.settle();
    assert_eq!(world.explain(&run, 1).verdict, Verdict::NoNode);
    world.connect(&n1, 2);
    world.settle();
    assert_eq!(world.order(&run, 1).node_epoch, 2);
}

#[test]
fn a_node_that_comes_back_smaller_gets_nothing_until_there_is_room() {
    let (mut world, run) = one_node_one_run(vec![step("a", &[], ask(3_000, 1)), step("b", &[0], ask(1_000, 1))]);
    let n1 = model::NodeId::new("n1").expect("legal");
    world.put(key::node(&n1), &node("n1", 2, room(2_000, 16), 10, &[]));
    world.connect(&n1, 2);
    let more = world.add_run("r2", 1, vec![step("c", &[], ask(500, 1))]);
    world.settle();
    assert_eq!(world.explain(&more, 0).verdict, Verdict::NodesFull);
    world.exit(&run, 0, 0);
    world.settle();
    assert_eq!(world.status(&more, 0), Some(StepStatus::Assigned));
}

#[test]
fn explain_says_why_not_yet_in_one_sentence() {
    let big = |cpu| step("s", &[], ask(cpu, 1));
    let cases: Vec<(Vec<model::StepDef>, usize, Verdict, &str)> = vec![
        (
            vec![step("a", &[], ask(1_000, 1)), step("b", &[0], ask(1_000, 1))],
            1,
            Verdict::WaitsForSteps,
            "waits for `a` (assigned)",
        ),
        (
            vec![labelled(big(1_000), &[("arch", "arm64")])],
            0,
            Verdict::NoLabel,
            "no connected node has the label arch=arm64",
        ),
        (
            vec![labelled(big(1_000), &[("arch", "amd64"), ("gpu", "yes")])],
            0,
            Verdict::NoLabel,
            "no connected node has all of the labels arch=amd64, gpu=yes",
        ),
        (
            vec![big(8_000)],
            0,
            Verdict::TooLarge,
            "needs 8 cpu, the largest node has 4 cpu",
        ),
        (
            vec![step("s", &[], ask(4_000, 16))],
            0,
            Verdict::TooLarge,
            "no single node has 4 cpu, 16 GiB memory, 1 GiB disk and a slot, even when empty",
        ),
        (
            vec![step("s", &[], ask(9_000, 99))],
            0,
            Verdict::TooLarge,
            "needs 9 cpu, the largest node has 4 cpu; needs 99 GiB memory, the largest node has 16 GiB",
        ),
        (
            vec![big(4_000), big(2_500)],
            1,
            Verdict::NodesFull,
            "1 node fits in size but is full: it needs 2.5 cpu, 1 GiB memory, 1 GiB disk; the freest, n1, has 0 cpu, 7 GiB memory, 99 GiB disk and 9 slots",
        ),
    ];
    for (steps, which, verdict, sentence) in cases {
        let mut world = World::new();
        world.add_node("n1", room(4_000, 8), 10, &[("arch", "amd64")]);
        world.add_node("n2", room(2_000, 16), 10, &[("gpu", "yes")]);
        let run = world.add_run("r1", 999_500, steps);
        world.settle();
        let explanation = world.explain(&run, which);
        assert_eq!(
            (explanation.verdict, explanation.sentence.as_str()),
            (verdict, sentence)
        );
        if verdict != Verdict::WaitsForSteps {
            assert_eq!(
                (explanation.queue_position, explanation.queue_length),
                (Some(1), Some(1))
            );
            assert_eq!(explanation.candidates.len(), 2);
            assert!(
                explanation
                    .candidates
                    .iter()
                    .all(|c| !c.feasible && !c.reason.is_empty())
            );
        }
    }
}

#[test]
fn explain_says_where_a_step_is_and_how_it_ended() {
    let (mut world, run) = one_node_one_run(vec![step("a", &[], ask(1_000, 1)), step("b", &[], ask(64_000, 1))]);
    assert_eq!(
        world.explain(&run, 0).sentence,
        "it has been handed over and is not yet confirmed on n1"
    );
    world.report(&run, 0, ObservedState::Preparing, None);
    assert_eq!(world.explain(&run, 0).sentence, "it is being prepared on n1");
    world.report(&run, 0, ObservedState::Running, None);
    world.settle();
    let explanation = world.explain(&run, 0);
    assert_eq!(
        (explanation.verdict, explanation.to_string().as_str()),
        (Verdict::Placed, "it runs on n1")
    );
    assert!(
        explanation
            .placement
            .is_some_and(|p| p.contains("no other node has the room"))
    );
    world.exit(&run, 0, 4);
    world.settle();
    assert_eq!(
        world.explain(&run, 0).sentence,
        "it has ended: failed; it ended with exit code 4"
    );
    assert!(world.cluster.explain(&run, 2, 1).is_none());
}

#[test]
fn an_empty_cluster_is_explained() {
    let mut world = World::new();
    let run = world.add_run("r1", 1, vec![step("a", &[], ask(1, 1))]);
    assert_eq!(
        world.explain(&run, 0).sentence,
        "no node is connected: none has ever registered"
    );
}

#[test]
fn a_reading_of_all_orders_adds_what_is_missing_and_removes_what_is_gone() {
    let (mut world, run) = one_node_one_run(vec![step("a", &[], ask(3_000, 1)), step("b", &[], ask(1_000, 1))]);
    let mut late = scheduler::Cluster::new();
    // It has not heard of any order, but of everything else.
    for told in world.history.iter().filter(|t| !t.key.starts_with(key::ALLOCS)) {
        late.on_change(&told.key, told.value.as_deref(), told.revision)
            .expect("ours");
    }
    let read = |world: &World, cluster: &mut scheduler::Cluster| {
        let orders = world.keys.iter().filter(|(k, _)| k.starts_with(key::ALLOCS));
        let orders: Vec<_> = orders.map(|(k, (v, r))| (k.as_str(), v.as_slice(), *r)).collect();
        assert!(cluster.on_all_orders(orders.into_iter(), world.revision).is_empty());
        cluster.sanity_check().expect("holds");
    };
    read(&world, &mut late);
    assert_eq!(late.fingerprint(), world.cluster.fingerprint());
    // One order goes; the reading tells although the watch has not.
    world.exit(&run, 0, 0);
    world.settle();
    read(&world, &mut late);
    late.check_complete().expect_err("the step's end has not come yet");
    for told in &world.history {
        late.on_change(&told.key, told.value.as_deref(), told.revision)
            .expect("ours");
    }
    assert_eq!(late.fingerprint(), world.cluster.fingerprint());
}

#[test]
fn nothing_is_written_of_a_run_that_has_left_the_store_unseen() {
    type Prepare = fn(&mut World, &model::RunId);
    let cases: [(&str, Prepare); 2] = [
        ("a placement", |_, _| {}),
        ("the end of a step that never began", |world, run| {
            world.cancel("c", run)
        }),
    ];
    for (what, prepare) in cases {
        let mut world = World::new();
        world.add_node("n1", room(4_000, 16), 10, &[("arch", "amd64")]);
        let run = world.add_run("r1", 999_000, vec![step("a", &[], ask(1_000, 1))]);
        prepare(&mut world, &run);
        let plan = world.cluster.plan(world.now_ms);
        let (verified, _) = world.cluster.verify(&plan);
        let about_the_step = |c: &&scheduler::Change| {
            let step_key = key::step(&run, 0);
            c.writes
                .iter()
                .any(|w| matches!(w, scheduler::Write::Put { key, .. } if *key == step_key))
        };
        let changes: Vec<scheduler::Change> = verified.into_iter().map(|v| v.change).collect();
        let change = changes.iter().find(about_the_step).expect(what).clone();
        // Another leader has seen it through and archived it; none of this has come by the watch.
        let keys: Vec<String> = world
            .keys
            .keys()
            .filter(|k| k.starts_with(key::RUNS))
            .cloned()
            .collect();
        for key in keys {
            world.keys.remove(&key);
        }
        assert!(!world.commit(&change), "{what}: {change:?}");
        assert_eq!(world.step(&run, 0), None, "{what}");
    }
}
