//! When a step is tried again, with which pause, where, and what is kept of the attempts before.

mod world;

use model::step::EARLIER_MAX;
use model::{Fence, ObservedState, Outcome, RequestKind, Retry, RetryOn, StartFailure, StepStatus, key};
use scheduler::Verdict;
use world::*;

fn lost() -> Outcome {
    Outcome::Lost {
        message: "rebooted".to_owned(),
    }
}

fn not_started(cause: StartFailure, lasting: bool) -> Outcome {
    Outcome::StartFailed {
        cause,
        message: "no image".to_owned(),
        lasting,
    }
}

fn end(world: &mut World, run: &model::RunId, outcome: &Outcome) {
    world.report(run, 0, ObservedState::Ended, Some(outcome.clone()));
    world.settle();
}

#[test]
fn what_is_covered_is_tried_again_and_nothing_else() {
    use RetryOn::{Exit, Failure, Infra, Oom, Timeout};
    let exit = |code| Outcome::Exited { code };
    let oom = Outcome::OutOfMemory { limit_bytes: 1 };
    let late = Outcome::TimedOut { timeout_ms: 1 };
    let missing = Outcome::CommandMissing {
        command: "x".to_owned(),
        message: "y".to_owned(),
    };
    let cases: Vec<(Outcome, Vec<RetryOn>, bool)> = vec![
        (lost(), vec![Infra], true),
        (lost(), vec![Oom, Timeout, Failure], false),
        (not_started(StartFailure::Image, false), vec![Infra], true),
        (not_started(StartFailure::Image, true), vec![Infra], false),
        (not_started(StartFailure::Spec, false), vec![Infra], false),
        (oom.clone(), vec![Oom], true),
        (oom, vec![Infra, Failure], false),
        (late.clone(), vec![Timeout], true),
        (late, vec![Failure], false),
        (exit(1), vec![Failure], true),
        (exit(1), vec![Infra], false),
        (exit(75), vec![Exit(75)], true),
        (exit(74), vec![Exit(75)], false),
        (Outcome::Signaled { signal: 9 }, vec![Failure], true),
        (exit(0), vec![Failure], false),
        (Outcome::Cancelled, vec![Infra, Oom, Timeout, Failure], false),
        (missing, vec![Infra, Failure], false),
    ];
    for (outcome, on, again) in cases {
        let mut world = World::new();
        world.add_node("n1", room(4_000, 16), 10, &[]);
        let run = world.add_run("r1", 1, vec![retried(step("a", &[], ask(1_000, 1)), 1, &on)]);
        world.settle();
        end(&mut world, &run, &outcome);
        let record = world.step(&run, 0).expect("placed");
        assert_eq!(record.earlier.len(), usize::from(again), "{outcome:?} on {on:?}");
        assert_eq!(record.status == StepStatus::Assigned, again, "{outcome:?} on {on:?}");
        if again {
            assert_eq!(
                (record.attempt, record.earlier[0].outcome.as_ref()),
                (2, Some(&outcome))
            );
            end(&mut world, &run, &outcome);
            let record = world.step(&run, 0).expect("ended");
            assert!(record.status.is_terminal(), "one retry, not two: {outcome:?}");
            assert!(record.reason.expect("said").ends_with("; it was tried 2 times"));
        }
    }
}

/// The attempt fails and is kept; answers its id and the pause until the next one.
fn fails_and_waits(world: &mut World, run: &model::RunId, attempt: u32) -> (model::AllocId, u64) {
    world.report(run, 0, ObservedState::Running, None);
    world.settle();
    let order = world.order(run, 0);
    let fence = Fence {
        epoch: 1,
        counter: attempt,
    };
    assert_eq!((order.attempt, order.fence), (attempt, fence));
    end(world, run, &Outcome::Exited { code: 75 });
    let record = world.step(run, 0).expect("waits");
    assert_eq!(
        (record.status, record.alloc, record.node),
        (StepStatus::Queued, None, None)
    );
    assert_eq!((record.outcome, record.log_bytes, record.phases.len()), (None, None, 0));
    let kept = record.earlier.last().expect("kept");
    assert_eq!(
        (kept.attempt, &kept.alloc, kept.node.as_str()),
        (attempt, &order.id, "n1")
    );
    assert_eq!((kept.counts, kept.log_bytes, kept.usage.cpu_ms), (true, Some(77), 6));
    assert_eq!(
        (kept.reason.as_str(), kept.times.started_ms),
        ("ended with exit code 75", Some(1_500_000))
    );
    for gone in [key::alloc(&order.node, &order.id), key::observed(&order.id)] {
        assert!(!world.keys.contains_key(&gone), "{gone} goes");
    }
    let pause = record.retry_at_ms.expect("a pause") - world.now_ms;
    assert_eq!(world.cluster.next_wake_ms(world.now_ms), Some(pause));
    let why = world.explain(run, 0);
    assert_eq!((why.verdict, why.status), (Verdict::Pauses, StepStatus::Queued));
    let said = format!(
        "attempt {attempt} ended with exit code 75; attempt {} follows in ",
        attempt + 1
    );
    assert!(why.sentence.starts_with(&said), "{why}");
    (order.id, pause)
}

#[test]
fn attempts_are_kept_and_pauses_grow() {
    let mut world = World::new();
    world.add_node("n1", room(4_000, 16), 10, &[]);
    let mut a = step("a", &[], ask(1_000, 1));
    a.retry = Retry {
        max: 2,
        on: vec![RetryOn::Exit(75)],
        backoff_ms: 10_000,
    };
    let run = world.add_run("r1", 1, vec![a, step("b", &[0], ask(1_000, 1))]);
    world.settle();
    let mut allocs = Vec::new();
    for (attempt, least) in [(1, 10_000), (2, 20_000)] {
        let (alloc, pause) = fails_and_waits(&mut world, &run, attempt);
        allocs.push(alloc);
        assert!(
            (least - 5..=least + least / 2).contains(&pause),
            "{pause} after attempt {attempt}"
        );
        assert_eq!(world.status(&run, 1), Some(StepStatus::Pending), "it has not ended");
        let at = world.now_ms + pause;
        // A new leader knows it from the store.
        world.take_over();
        world.pass(pause - 3);
        assert!(world.settle().is_empty(), "not before its time");
        world.pass(4);
        world.settle();
        assert_eq!(world.status(&run, 0), Some(StepStatus::Assigned));
        assert_eq!(world.step(&run, 0).expect("placed").times.queued_ms, Some(at));
    }
    // What an earlier attempt still says changes nothing.
    let mut late = world.report_of(&run, 0, ObservedState::Ended, Some(Outcome::Exited { code: 0 }));
    late.alloc = allocs[0].clone();
    late.fence = Fence { epoch: 1, counter: 1 };
    world.put(key::observed(&late.alloc), &late);
    world.settle();
    assert_eq!(world.status(&run, 0), Some(StepStatus::Assigned));
    assert!(!world.keys.contains_key(&key::observed(&late.alloc)));
    end(&mut world, &run, &Outcome::Exited { code: 75 });
    let record = world.step(&run, 0).expect("ended");
    assert_eq!(record.status, StepStatus::Failed);
    assert_eq!(
        record.reason.as_deref(),
        Some("ended with exit code 75; it was tried 3 times")
    );
    assert_eq!(world.status(&run, 1), Some(StepStatus::Skipped));
}

#[test]
fn a_step_that_must_not_run_twice_is_tried_again_only_if_it_cannot_have_begun() {
    let sentence = "; it is not started again because it is marked `idempotent: false` and may have begun";
    let cases = [
        (lost(), Some("was lost: rebooted")),
        (Outcome::Exited { code: 75 }, Some("ended with exit code 75")),
        (not_started(StartFailure::Sandbox, false), None),
    ];
    for (outcome, failure) in cases {
        let mut world = World::new();
        world.add_node("n1", room(4_000, 16), 10, &[]);
        let mut a = retried(step("a", &[], ask(1_000, 1)), 5, &[RetryOn::Infra, RetryOn::Exit(75)]);
        a.idempotent = false;
        let run = world.add_run("r1", 1, vec![a]);
        world.settle();
        end(&mut world, &run, &outcome);
        let record = world.step(&run, 0).expect("there");
        match failure {
            Some(failure) => {
                assert_eq!(record.status, StepStatus::Failed);
                assert_eq!(record.reason, Some(format!("{failure}{sentence}")));
            }
            None => assert_eq!((record.status, record.attempt), (StepStatus::Assigned, 2)),
        }
    }
}

#[test]
fn the_next_attempt_goes_away_from_where_one_was_lost_if_it_can() {
    for (elsewhere, expect) in [(4_000, "n2"), (500, "n1")] {
        let mut world = World::new();
        world.add_node("n1", room(1_500, 16), 10, &[]);
        world.add_node("n2", room(elsewhere, 16), 10, &[]);
        let run = world.add_run("r1", 1, vec![step("a", &[], ask(1_000, 1))]);
        world.settle();
        assert_eq!(world.order(&run, 0).node.as_str(), "n1", "the better fit");
        end(&mut world, &run, &lost());
        let record = world.step(&run, 0).expect("placed again at once");
        assert_eq!((record.attempt, record.status), (2, StepStatus::Assigned));
        assert_eq!(record.node.expect("placed").as_str(), expect, "n2 has {elsewhere}");
    }
}

#[test]
fn a_step_that_waits_for_its_next_attempt_is_cancelled_at_once() {
    let mut world = World::new();
    world.add_node("n1", room(4_000, 16), 10, &[]);
    let mut a = step("a", &[], ask(1_000, 1));
    a.retry.on = vec![RetryOn::Failure];
    let run = world.add_run("r1", 1, vec![a]);
    world.settle();
    end(&mut world, &run, &Outcome::Exited { code: 1 });
    assert_eq!(world.status(&run, 0), Some(StepStatus::Queued));
    world.cancel("q", &run);
    world.settle();
    let record = world.step(&run, 0).expect("ended");
    assert_eq!(
        (record.status, record.retry_at_ms, record.earlier.len()),
        (StepStatus::Cancelled, None, 1)
    );
    assert_eq!(
        record.reason.as_deref(),
        Some("was cancelled by alice before its next attempt")
    );
    assert!(!world.keys.contains_key(&key::request("q")));
    world.pass(60_000);
    assert!(world.settle().is_empty());
}

#[test]
fn an_end_that_meets_a_cancel_is_not_tried_again() {
    for (outcome, status) in [
        (lost(), StepStatus::Cancelled),
        (Outcome::Exited { code: 1 }, StepStatus::Failed),
    ] {
        let mut world = World::new();
        world.add_node("n1", room(4_000, 16), 10, &[]);
        let on = [RetryOn::Infra, RetryOn::Failure];
        let run = world.add_run("r1", 1, vec![retried(step("a", &[], ask(1_000, 1)), 2, &on)]);
        world.settle();
        world.report(&run, 0, ObservedState::Ended, Some(outcome));
        world.cancel("q", &run);
        world.settle();
        assert_eq!(world.status(&run, 0), Some(status));
        assert!(!world.keys.contains_key(&key::request("q")));
    }
}

#[test]
fn as_many_attempts_are_kept_as_the_limit_says_and_those_that_count_the_longest() {
    let mut world = World::new();
    let node = world.add_node("n1", room(4_000, 16), 10, &[]);
    let run = world.add_run(
        "r1",
        1,
        vec![retried(step("a", &[], ask(1_000, 1)), 1, &[RetryOn::Failure])],
    );
    world.settle();
    end(&mut world, &run, &Outcome::Exited { code: 1 });
    for drain in 0..EARLIER_MAX + 5 {
        let deadline_ms = Some(world.now_ms);
        world.ask_for(
            &format!("d{drain}"),
            RequestKind::Drain {
                node: node.clone(),
                deadline_ms,
            },
        );
        world.settle();
        world.report(&run, 0, ObservedState::Ended, Some(Outcome::Cancelled));
        world.ask_for(&format!("u{drain}"), RequestKind::Uncordon { node: node.clone() });
        world.settle();
    }
    let record = world.step(&run, 0).expect("placed");
    assert_eq!(
        (record.earlier.len(), record.status),
        (EARLIER_MAX, StepStatus::Assigned)
    );
    assert_eq!(record.attempt as usize, EARLIER_MAX + 7);
    assert!(record.earlier[0].counts && record.earlier[1..].iter().all(|a| !a.counts));
    end(&mut world, &run, &Outcome::Exited { code: 1 });
    assert_eq!(
        world.status(&run, 0),
        Some(StepStatus::Failed),
        "its one retry is not forgotten"
    );
}
