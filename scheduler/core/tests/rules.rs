//! Rules of runs and steps as cases: conditions, groups of concurrency, cells of a matrix, steps that
//! wait for a person.

mod world;

use model::{
    Concurrency, Condition, MatrixRules, ObservedState, Outcome, Queue, RequestKind, RunId, RunRules, StepDef,
    StepStatus, key,
};
use scheduler::Verdict;
use world::*;

fn group(name: &str, cancel_in_progress: bool, queue: Queue) -> Concurrency {
    Concurrency {
        group: name.to_owned(),
        cancel_in_progress,
        queue,
    }
}

fn whole(name: &str, cancel_in_progress: bool, queue: Queue) -> RunRules {
    RunRules {
        concurrency: Some(group(name, cancel_in_progress, queue)),
        ..RunRules::default()
    }
}

fn two_steps() -> Vec<StepDef> {
    vec![step("a", &[], ask(100, 1)), step("b", &[0], ask(100, 1))]
}

fn world() -> World {
    let mut world = World::new();
    world.add_node("n1", room(64_000, 64), 100, &[]);
    world
}

/// A letter for each step: `-` pending, `q`ueued, `a`ssigned, `r`unning, `s`uccess, `f`ailed,
/// `c`ancelled, s`k`ipped.
fn letters(world: &mut World, run: &RunId, count: usize) -> String {
    let letter = |status| match status {
        None | Some(StepStatus::Pending) => '-',
        Some(StepStatus::Queued) => 'q',
        Some(StepStatus::Assigned) => 'a',
        Some(StepStatus::Running) => 'r',
        Some(StepStatus::Success) => 's',
        Some(StepStatus::Failed) => 'f',
        Some(StepStatus::Cancelled) => 'c',
        Some(StepStatus::TimedOut) => 't',
        Some(StepStatus::Skipped) => 'k',
    };
    (0..count).map(|step| letter(world.status(run, step))).collect()
}

fn reason(world: &World, run: &RunId, step: usize) -> String {
    world
        .step(run, step)
        .and_then(|record| record.reason)
        .unwrap_or_default()
}

fn end_all(world: &mut World, run: &RunId, count: usize) {
    for step in 0..count {
        world.settle();
        if world
            .step(run, step)
            .is_some_and(|record| record.status == StepStatus::Assigned)
        {
            world.exit(run, step, 0);
        }
    }
    world.settle();
}

#[test]
fn of_the_runs_of_a_group_one_goes_on_and_the_newest_waits() {
    let mut world = world();
    let rules = || whole("ci", false, Queue::Latest);
    let first = world.add_ruled("r1", 1, rules(), two_steps());
    world.settle();
    let second = world.add_ruled("r2", 2, rules(), two_steps());
    world.settle();
    assert_eq!(
        (letters(&mut world, &first, 2), letters(&mut world, &second, 2)),
        ("a-".into(), "q-".into())
    );
    let why = world.explain(&second, 0);
    assert_eq!(why.verdict, Verdict::WaitsForGroup);
    assert_eq!(
        why.sentence,
        "it waits for run 1, which goes on in the concurrency group `ci`"
    );

    // Another group, and no group at all, have nothing to do with it.
    let apart = world.add_ruled("r3", 3, whole("other", false, Queue::Latest), two_steps());
    let free = world.add_run("r4", 4, two_steps());
    world.settle();
    assert_eq!(
        (letters(&mut world, &apart, 2), letters(&mut world, &free, 2)),
        ("a-".into(), "a-".into())
    );

    let third = world.add_ruled("r5", 5, rules(), two_steps());
    world.settle();
    assert_eq!(
        (letters(&mut world, &second, 2), letters(&mut world, &third, 2)),
        ("cc".into(), "q-".into())
    );
    assert_eq!(
        reason(&world, &second, 1),
        "was cancelled: run 5 took its place in the concurrency group `ci`"
    );
    assert_eq!(letters(&mut world, &first, 2), "a-", "what goes on is left alone");
    end_all(&mut world, &first, 2);
    assert_eq!(letters(&mut world, &third, 2), "a-");
}

#[test]
fn all_that_wait_get_their_turn_in_order() {
    let mut world = world();
    let runs: Vec<RunId> = (1..=4)
        .map(|n| world.add_ruled(&format!("r{n}"), n, whole("ci", false, Queue::All), two_steps()))
        .collect();
    for turn in 0..runs.len() {
        world.settle();
        let now: Vec<String> = runs.iter().map(|run| letters(&mut world, run, 2)).collect();
        let expect: Vec<&str> = (0..runs.len())
            .map(|n| match n.cmp(&turn) {
                std::cmp::Ordering::Less => "ss",
                std::cmp::Ordering::Equal => "a-",
                std::cmp::Ordering::Greater => "q-",
            })
            .collect();
        assert_eq!(now, expect);
        end_all(&mut world, &runs[turn], 2);
    }
}

#[test]
fn who_comes_later_ends_what_goes_on_if_it_says_so() {
    let mut world = world();
    let first = world.add_ruled("r1", 1, whole("ci", true, Queue::Latest), two_steps());
    world.settle();
    world.report(&first, 0, ObservedState::Running, None);
    world.settle();
    let second = world.add_ruled("r2", 2, whole("ci", true, Queue::Latest), two_steps());
    world.settle();
    assert_eq!(
        (letters(&mut world, &first, 2), letters(&mut world, &second, 2)),
        ("rc".into(), "q-".into())
    );
    let order = world.order(&first, 0);
    assert_eq!(
        (order.stop, order.stop_reason.as_deref()),
        (
            Some(model::Stop::Cancelled),
            Some("run 2 took its place in the concurrency group `ci`")
        )
    );
    assert_eq!(world.explain(&first, 1).verdict, Verdict::Ended);
    world.report(&first, 0, ObservedState::Ended, Some(Outcome::Cancelled));
    world.settle();
    assert_eq!(
        (letters(&mut world, &first, 2), letters(&mut world, &second, 2)),
        ("cc".into(), "a-".into())
    );
    assert_eq!(
        reason(&world, &first, 0),
        "was cancelled: run 2 took its place in the concurrency group `ci`"
    );
}

#[test]
fn a_new_leader_lets_no_second_one_go_on() {
    let mut world = world();
    let first = world.add_ruled("r1", 1, whole("ci", false, Queue::All), two_steps());
    world.settle();
    let second = world.add_ruled("r2", 2, whole("ci", false, Queue::All), two_steps());
    world.take_over();
    world.settle();
    assert_eq!(
        (letters(&mut world, &first, 2), letters(&mut world, &second, 2)),
        ("a-".into(), "q-".into())
    );
    // Between two steps of the first, too.
    world.exit(&first, 0, 0);
    world.settle();
    world.take_over();
    world.settle();
    assert_eq!(
        (letters(&mut world, &first, 2), letters(&mut world, &second, 2)),
        ("sa".into(), "q-".into())
    );
    // An older run that comes late waits for the one that goes on.
    end_all(&mut world, &first, 2);
    let late = world.add_ruled("r0", 3, whole("ci", false, Queue::All), two_steps());
    world.settle();
    assert_eq!(
        (letters(&mut world, &second, 2), letters(&mut world, &late, 2)),
        ("a-".into(), "q-".into())
    );
}

#[test]
fn a_placement_that_is_not_committed_yet_holds_the_place() {
    let mut world = world();
    let second = world.add_ruled("r2", 2, whole("ci", false, Queue::All), two_steps());
    let plan = world.cluster.plan(world.now_ms);
    assert_eq!(placements(&plan).len(), 1);
    let first = world.add_ruled("r1", 1, whole("ci", false, Queue::All), two_steps());
    assert!(placements(&world.cluster.plan(world.now_ms)).is_empty());
    let (verified, refused) = world.cluster.verify(&plan);
    assert!(refused.is_empty());
    for verified in verified {
        assert!(world.commit(&verified.change));
        world.cluster.confirm(verified.ticket, world.revision);
    }
    world.settle();
    assert_eq!(
        (letters(&mut world, &first, 2), letters(&mut world, &second, 2)),
        ("q-".into(), "a-".into())
    );
}

fn grouped(mut step: StepDef, cancel_in_progress: bool, queue: Queue) -> StepDef {
    step.rules.concurrency = Some(group("production", cancel_in_progress, queue));
    step
}

#[test]
fn of_the_steps_of_a_group_one_runs() {
    let mut world = world();
    let steps = |queue| {
        vec![
            step("build", &[], ask(100, 1)),
            grouped(step("ship", &[0], ask(100, 1)), false, queue),
        ]
    };
    let first = world.add_ruled("r1", 1, RunRules::default(), steps(Queue::Latest));
    let second = world.add_ruled("r2", 2, RunRules::default(), steps(Queue::Latest));
    world.settle();
    assert_eq!(
        (letters(&mut world, &first, 2), letters(&mut world, &second, 2)),
        ("a-".into(), "a-".into())
    );
    world.exit(&second, 0, 0);
    world.settle();
    world.exit(&first, 0, 0);
    world.settle();
    assert_eq!(
        (letters(&mut world, &first, 2), letters(&mut world, &second, 2)),
        ("sq".into(), "sa".into())
    );
    assert_eq!(
        world.explain(&first, 1).sentence,
        "it waits for run 2, which goes on in the concurrency group `production`"
    );
    let third = world.add_ruled("r3", 3, RunRules::default(), steps(Queue::Latest));
    world.settle();
    world.exit(&third, 0, 0);
    world.settle();
    assert_eq!(
        letters(&mut world, &first, 2),
        "sc",
        "the newest of those that wait stays"
    );
    world.exit(&second, 1, 0);
    world.settle();
    assert_eq!(letters(&mut world, &third, 2), "sa");
}

#[test]
fn steps_of_one_run_in_a_group_run_one_after_the_other() {
    let mut world = world();
    let cells: Vec<StepDef> = (0..3)
        .map(|n| grouped(step(&format!("s{n}"), &[], ask(100, 1)), false, Queue::Latest))
        .collect();
    let run = world.add_ruled("r1", 1, RunRules::default(), cells);
    for expect in ["aqq", "saq", "ssa"] {
        world.settle();
        assert_eq!(letters(&mut world, &run, 3), expect);
        let active = expect.find('a').expect("one");
        world.exit(&run, active, 0);
    }
    world.settle();
    assert_eq!(letters(&mut world, &run, 3), "sss");
}

fn matrix(count: usize, fail_fast: bool, max_parallel: Option<u32>) -> (RunRules, Vec<StepDef>) {
    let rules = RunRules {
        matrices: vec![MatrixRules {
            step: "unit".to_owned(),
            fail_fast,
            max_parallel,
        }],
        ..RunRules::default()
    };
    let cell = |n: usize| {
        let mut cell = step(&format!("unit({n})"), &[], ask(100, 1));
        cell.rules.matrix = Some(0);
        cell.retry.max = 0;
        cell
    };
    (rules, (0..count).map(cell).collect())
}

#[test]
fn only_so_many_cells_run() {
    let mut world = world();
    let (rules, mut steps) = matrix(4, false, Some(2));
    steps.push(step("after", &[0, 1, 2, 3], ask(100, 1)));
    let run = world.add_ruled("r1", 1, rules, steps);
    for expect in ["aa---", "saa--", "ssaa-", "sssa-", "ssssa"] {
        world.settle();
        assert_eq!(letters(&mut world, &run, 5), expect);
        if expect == "aa---" {
            let why = world.explain(&run, 3);
            assert_eq!(why.verdict, Verdict::WaitsForCells);
            assert_eq!(
                why.sentence,
                "it waits for other cells of `unit`: 2 may run at the same time"
            );
        }
        let active = expect.find('a').expect("one");
        world.exit(&run, active, 0);
    }
}

#[test]
fn the_first_failed_cell_ends_the_others() {
    let mut world = world();
    let (rules, mut steps) = matrix(4, true, Some(2));
    steps.push(step("after", &[0, 1, 2, 3], ask(100, 1)));
    let run = world.add_ruled("r1", 1, rules, steps);
    world.settle();
    world.exit(&run, 0, 1);
    world.settle();
    assert_eq!(letters(&mut world, &run, 5), "fakkk");
    assert_eq!(
        reason(&world, &run, 2),
        "another cell of its matrix, `unit(0)`, failed, and `fail_fast` is set"
    );
    let order = world.order(&run, 1);
    assert_eq!(order.stop, Some(model::Stop::Cancelled));
    world.report(&run, 1, ObservedState::Ended, Some(Outcome::Cancelled));
    world.settle();
    assert_eq!(letters(&mut world, &run, 5), "fckkk");
    assert!(
        reason(&world, &run, 1).contains("fail_fast"),
        "{}",
        reason(&world, &run, 1)
    );
    // Without it the others go on.
    let (rules, steps) = matrix(3, false, None);
    let run = world.add_ruled("r2", 2, rules, steps);
    world.settle();
    world.exit(&run, 0, 1);
    world.settle();
    assert_eq!(letters(&mut world, &run, 3), "faa");
}

fn with_condition(mut step: StepDef, expression: &str, whatever_ends: bool) -> StepDef {
    step.rules.condition = Some(Condition {
        expression: expression.to_owned(),
        whatever_ends,
        skipped: "its `if` is false".to_owned(),
    });
    step
}

#[test]
fn conditions_are_asked_when_the_needs_have_ended() {
    let mut world = world();
    let steps = || {
        vec![
            step("a", &[], ask(100, 1)),
            with_condition(step("yes", &[0], ask(100, 1)), "needs.a.outputs.go == 'yes'", false),
            with_condition(step("no", &[0], ask(100, 1)), "needs.a.outputs.go != 'yes'", false),
            with_condition(step("broken", &[0], ask(100, 1)), "int(needs.a.outputs.go) > 1", false),
            with_condition(step("mended", &[0], ask(100, 1)), "failure()", true),
            step("behind", &[2], ask(100, 1)),
        ]
    };
    let run = world.add_ruled("r1", 1, RunRules::default(), steps());
    world.settle();
    assert_eq!(letters(&mut world, &run, 6), "a-----");
    let mut report = world.report_of(&run, 0, ObservedState::Ended, Some(Outcome::Exited { code: 0 }));
    report.left.outputs.insert("go".to_owned(), "yes".to_owned());
    world.put(key::observed(&report.alloc), &report);
    world.settle();
    assert_eq!(letters(&mut world, &run, 6), "sakfka");
    assert_eq!(world.step(&run, 0).expect("ended").left.outputs["go"], "yes");
    assert_eq!(reason(&world, &run, 2), "its `if` is false");
    assert_eq!(
        reason(&world, &run, 3),
        "its `if` has no value: `int` cannot make a number of 'yes'"
    );
    let failed = world.add_ruled("r2", 2, RunRules::default(), steps());
    world.settle();
    world.exit(&failed, 0, 1);
    world.settle();
    assert_eq!(letters(&mut world, &failed, 6), "fkkkak");
}

#[test]
fn a_manual_step_waits_for_a_person_and_the_run_for_nobody() {
    let mut world = world();
    let steps = || {
        let mut ship = step("ship", &[0], ask(100, 1));
        ship.rules.manual = true;
        vec![
            step("build", &[], ask(100, 1)),
            ship,
            step("tell", &[1], ask(100, 1)),
            step("other", &[0], ask(100, 1)),
        ]
    };
    let run = world.add_ruled("r1", 1, RunRules::default(), steps());
    world.settle();
    let start = |world: &mut World, id: &str, run: &RunId| {
        let what = RequestKind::Start {
            run: run.clone(),
            step: "ship".to_owned(),
        };
        world.ask_for(id, what);
        world.settle();
        assert!(!world.keys.contains_key(&key::request(id)), "it is answered");
    };
    // Too early: it is not offered yet.
    start(&mut world, "q0", &run);
    world.exit(&run, 0, 0);
    world.settle();
    assert_eq!(letters(&mut world, &run, 4), "s--a");
    assert_eq!(world.explain(&run, 1).verdict, Verdict::WaitsForPerson);
    start(&mut world, "q1", &run);
    assert_eq!(letters(&mut world, &run, 4), "sa-a");
    assert_eq!(world.step(&run, 1).expect("placed").attempt, 1);
    world.exit(&run, 1, 0);
    world.settle();
    assert_eq!(letters(&mut world, &run, 4), "ssaa");

    let alone = world.add_ruled("r2", 2, RunRules::default(), steps());
    world.settle();
    world.exit(&alone, 0, 0);
    world.settle();
    world.exit(&alone, 3, 0);
    world.settle();
    assert_eq!(letters(&mut world, &alone, 4), "skks", "the run ends without it");
    assert_eq!(
        reason(&world, &alone, 1),
        "is started by hand, and nobody did before the run ended"
    );
    assert_eq!(reason(&world, &alone, 2), "needs `ship`, which was not run");
    start(&mut world, "q2", &alone);
    assert_eq!(letters(&mut world, &alone, 4), "skks");
}
