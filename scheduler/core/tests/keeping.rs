//! A large step does not starve behind small ones, and nobody else pays for that; what is archived
//! leaves the view.

mod world;

use model::{RunId, StepStatus, key};
use scheduler::{Cluster, KEPT_MAX, OVERTAKEN_MAX_MS, Verdict};
use world::*;

/// A node of four cores where one-core steps, each a run of its own, follow each other; a step of
/// three cores waits since the beginning.
struct Stream {
    world: World,
    small: Vec<RunId>,
    large: RunId,
    made: usize,
}

impl Stream {
    fn new() -> Self {
        let mut world = World::new();
        world.add_node("n1", room(4_000, 100), 100, &[]);
        let mut stream = Self {
            world,
            small: Vec::new(),
            large: RunId::new("large").expect("legal"),
            made: 0,
        };
        for _ in 0..4 {
            stream.add_small();
        }
        stream.world.settle();
        let now = stream.world.now_ms;
        stream
            .world
            .add_run_of("big", "large", now, vec![step("a", &[], ask(3_000, 1))]);
        stream
    }

    fn add_small(&mut self) {
        self.made += 1;
        let (team, run, now) = (
            format!("t{}", self.made % 7),
            format!("s{:05}", self.made),
            self.world.now_ms,
        );
        self.small.push(
            self.world
                .add_run_of(&team, &run, now, vec![step("a", &[], ask(1_000, 1))]),
        );
    }

    /// One small step waits at every time, and the oldest one that runs ends.
    fn turn_over(&mut self) {
        self.add_small();
        self.world.settle();
        let world = &mut self.world;
        let running = self.small.iter().position(|run| {
            let record = world.step(run, 0);
            record.is_some_and(|r| r.status == StepStatus::Assigned)
        });
        let run = self.small.remove(running.expect("one runs"));
        world.exit(&run, 0, 0);
        world.settle();
        world.pass(1_000);
    }
}

#[test]
fn a_large_step_is_overtaken_for_a_minute_and_then_gets_its_room() {
    let mut stream = Stream::new();
    let mut turns = 0;
    while stream.world.status(&stream.large, 0) == Some(StepStatus::Queued) {
        stream.turn_over();
        turns += 1;
        assert!(turns < 100, "the large step starves");
        let why = stream.world.explain(&stream.large.clone(), 0);
        if why.sentence.contains("kept free") {
            assert_eq!(why.verdict, Verdict::NodesFull);
            assert!(
                why.sentence.ends_with("; what it needs is kept free for it on n1"),
                "{why}"
            );
            let small = stream.small.last().expect("one waits").clone();
            let held_back = stream.world.explain(&small, 0);
            let reason = &held_back.candidates[0].reason;
            assert!(
                reason.ends_with("besides what is kept for a step that has waited longer"),
                "{reason}"
            );
        }
    }
    let seconds = OVERTAKEN_MAX_MS as usize / 1_000;
    assert!((seconds..seconds + 10).contains(&turns), "placed after {turns} s");
    assert_eq!(stream.world.status(&stream.large, 0), Some(StepStatus::Assigned));
    stream.world.cluster.sanity_check().expect("nothing is kept any more");
    // What was kept is free again once the large step has ended.
    stream.world.exit(&stream.large.clone(), 0, 0);
    stream.add_small();
    stream.world.settle();
    assert_eq!(
        stream.world.order_count(),
        4,
        "the small steps have the whole node again"
    );
}

#[test]
fn what_is_kept_is_given_free_when_its_step_is_cancelled_or_its_node_cordoned() {
    for cordoned in [false, true] {
        let mut stream = Stream::new();
        while !stream
            .world
            .explain(&stream.large.clone(), 0)
            .sentence
            .contains("kept free")
        {
            stream.turn_over();
        }
        let before = stream.world.order_count();
        if cordoned {
            let n1 = model::NodeId::new("n1").expect("legal");
            stream
                .world
                .ask_for("q", model::RequestKind::Cordon { node: n1.clone() });
            stream.world.settle();
            stream.world.ask_for("u", model::RequestKind::Uncordon { node: n1 });
            let small = stream.small.pop().expect("one");
            stream.world.cancel("c", &small);
        } else {
            stream.world.cancel("c", &stream.large.clone());
        }
        stream.world.settle();
        stream
            .world
            .cluster
            .sanity_check()
            .expect("what is kept is kept for somebody");
        if !cordoned {
            assert!(stream.world.order_count() > before, "the small ones go on");
        }
    }
}

#[test]
fn steps_of_one_size_keep_nothing_however_long_they_wait() {
    let mut world = World::new();
    world.add_node("n1", room(4_000, 100), 100, &[]);
    let steps = (0..50).map(|n| step(&format!("s{n}"), &[], ask(1_000, 1))).collect();
    let run = world.add_run("r1", 1, steps);
    world.settle();
    world.pass(10 * OVERTAKEN_MAX_MS);
    world.exit(&run, 0, 0);
    world.settle();
    assert_eq!(world.order_count(), 4);
    assert!(!world.explain(&run, 40).sentence.contains("kept"));
}

#[test]
fn room_is_kept_for_so_many_steps_and_no_more() {
    let mut world = World::new();
    for n in 0..KEPT_MAX + 4 {
        world.add_node(&format!("n{n:02}"), room(4_000, 100), 100, &[]);
    }
    let small = |count: usize| (0..count).map(|n| step(&format!("s{n}"), &[], ask(2_000, 1))).collect();
    let filled = world.add_run("fill", world.now_ms, small(2 * (KEPT_MAX + 4)));
    world.settle();
    for n in 0..KEPT_MAX + 4 {
        // Of different sizes, since one that is blocked stands for all of its size.
        let ask = ask(4_000 - n as u64, 1);
        world.add_run_of(
            &format!("t{n}"),
            &format!("large{n:02}"),
            world.now_ms,
            vec![step("a", &[], ask)],
        );
    }
    world.settle();
    world.pass(OVERTAKEN_MAX_MS);
    let late = world.add_run("late", world.now_ms, small(2 * (KEPT_MAX + 4)));
    for n in 0..KEPT_MAX + 4 {
        world.exit(&filled, 2 * n, 0);
    }
    world.settle();
    let explained = |world: &mut World, n: usize| {
        let run = RunId::new(format!("large{n:02}")).expect("legal");
        world.explain(&run, 0).sentence.contains("kept free")
    };
    let kept = (0..KEPT_MAX + 4).filter(|n| explained(&mut world, *n)).count();
    assert!((1..=KEPT_MAX).contains(&kept), "{kept}");
    let passed = (0..2 * (KEPT_MAX + 4))
        .filter(|s| world.step(&late, *s).is_some())
        .count();
    assert!(passed > 0, "the rest of the nodes serves the others");
}

/// The keys of a finished run with two steps.
fn finished() -> (World, RunId, Vec<String>) {
    let mut world = World::new();
    world.add_node("n1", room(4_000, 16), 10, &[]);
    let run = world.add_run(
        "r1",
        1,
        vec![step("a", &[], ask(1_000, 1)), step("b", &[], ask(1_000, 1))],
    );
    world.settle();
    world.exit(&run, 0, 0);
    world.exit(&run, 1, 1);
    world.settle();
    let keys = vec![
        key::run(&run),
        key::run_def(&run, 0),
        key::step(&run, 0),
        key::step(&run, 1),
    ];
    assert!(keys.iter().all(|key| world.keys.contains_key(key)));
    (world, run, keys)
}

#[test]
fn an_archived_run_leaves_the_view_in_whatever_order_its_keys_go() {
    let orders = [[0, 1, 2, 3], [3, 2, 1, 0], [1, 2, 0, 3], [2, 0, 3, 1]];
    for order in orders {
        let (mut world, run, keys) = finished();
        assert_eq!(
            (world.cluster.live_runs(), world.status(&run, 1)),
            (0, Some(StepStatus::Failed))
        );
        for which in order {
            world.put_bytes(keys[which].clone(), None);
            world.cluster.sanity_check().expect("holds");
        }
        assert_eq!(
            (world.cluster.live_runs(), world.status(&run, 1)),
            (0, None),
            "{order:?}"
        );
        assert!(world.cluster.explain(&run, 0, world.now_ms).is_none());
        assert!(world.settle().is_empty());
        // One that learns of it in any other order, and twice, knows the same.
        let mut told = Cluster::new();
        for change in world.history.iter().rev().chain(&world.history) {
            let _ = told.on_change(&change.key, change.value.as_deref(), change.revision);
        }
        assert_eq!(told.fingerprint(), world.cluster.fingerprint(), "{order:?}");
    }
}

#[test]
fn a_removed_run_that_had_not_finished_leaves_no_order_behind() {
    let mut world = World::new();
    world.add_node("n1", room(1_000, 16), 10, &[]);
    let run = world.add_run(
        "r1",
        1,
        vec![step("a", &[], ask(1_000, 1)), step("b", &[], ask(1_000, 1))],
    );
    world.settle();
    assert_eq!((world.order_count(), world.cluster.queue_len()), (1, 1));
    for key in [key::run(&run), key::run_def(&run, 0), key::step(&run, 0)] {
        world.put_bytes(key, None);
    }
    world.settle();
    assert_eq!(
        (
            world.order_count(),
            world.cluster.queue_len(),
            world.cluster.live_runs()
        ),
        (0, 0, 0)
    );
}

#[test]
fn a_run_that_is_put_back_under_its_old_id_goes_on() {
    let (mut world, run, keys) = finished();
    let kept: Vec<(String, Vec<u8>)> = keys.iter().map(|k| (k.clone(), world.keys[k].0.clone())).collect();
    for key in &keys {
        world.put_bytes(key.clone(), None);
    }
    // All but the failed step comes back, the header last.
    for (key, value) in kept.iter().filter(|(key, _)| *key != keys[0] && *key != keys[3]) {
        world.put_bytes(key.clone(), Some(value.clone()));
    }
    assert_eq!(world.cluster.live_runs(), 1);
    world.put_bytes(keys[0].clone(), Some(kept[0].1.clone()));
    world.settle();
    assert_eq!(world.status(&run, 0), Some(StepStatus::Success));
    assert_eq!(world.status(&run, 1), Some(StepStatus::Assigned), "it is tried again");
}
