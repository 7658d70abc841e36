//! What holds for every history: the view does not depend on the order of arrival, grants stay
//! within capacity, placement is exact best fit, teams are served by their share.

mod world;

use model::{
    Concurrency, Condition, MatrixRules, NodeId, ObservedState, Outcome, Queue, RequestKind, Resources, RetryOn,
    RunDef, RunId, RunRules, StepStatus, key,
};
use proptest::prelude::*;
use proptest::sample::Index;
use scheduler::{Action, Cluster, Folded, Policy, fold};
use std::collections::BTreeMap;
use world::*;

/// Half cores, memory, whether it needs arm, its needs, whether it may run twice, its rule.
type StepDraft = (u64, u64, bool, Vec<Index>, bool, StepRule);

/// What a run asks for besides its steps.
#[derive(Debug, Clone, Copy)]
enum RunRule {
    None,
    Group(Queue, bool),
}

/// What a step asks for.
#[derive(Debug, Clone, Copy)]
enum StepRule {
    None,
    Group(Queue, bool),
    /// A cell of the run's only matrix: one at a time, and none after the first failure.
    Cell,
    /// It runs also after a failure.
    Always,
}

fn group((queue, cancel_in_progress): (Queue, bool)) -> Concurrency {
    Concurrency {
        group: "g".to_owned(),
        cancel_in_progress,
        queue,
    }
}

/// Something that happens to the world.
#[derive(Debug, Clone)]
enum Deed {
    AddNode {
        cpu: u64,
        memory: u64,
        slots: u32,
        arm: bool,
    },
    AddRun {
        team: u8,
        rule: RunRule,
        steps: Vec<StepDraft>,
    },
    Connection {
        node: Index,
    },
    /// The stream ends, or the node registers anew.
    Stream {
        node: Index,
    },
    /// 0: cordon, 1: uncordon, 2 and 3: drain with and without deadline, 4: gone.
    Wish {
        node: Index,
        kind: u8,
    },
    Pass {
        ms: u64,
    },
    /// Another server leads.
    TakeOver,
    /// The run, if it has finished, is archived.
    Archive {
        run: Index,
        header_first: bool,
    },
    Progress {
        step: Index,
        outcome: u8,
    },
    Cancel {
        run: Index,
    },
    StaleReport {
        step: Index,
    },
    Round,
    /// A plan whose answer comes later, or never.
    PlanOnly,
    Answer {
        refuse: bool,
    },
}

fn asked() -> impl Strategy<Value = (Queue, bool)> {
    (prop_oneof![Just(Queue::Latest), Just(Queue::All)], any::<bool>())
}

fn deed() -> impl Strategy<Value = Deed> {
    let step = (
        1_u64..9,
        0_u64..9,
        any::<bool>(),
        prop::collection::vec(any::<Index>(), 0..3),
        prop::bool::weighted(0.7),
        prop_oneof![
            6 => Just(StepRule::None),
            1 => asked().prop_map(|(queue, cancel)| StepRule::Group(queue, cancel)),
            1 => Just(StepRule::Cell),
            1 => Just(StepRule::Always),
        ],
    );
    let rule = prop_oneof![
        3 => Just(RunRule::None),
        1 => asked().prop_map(|(queue, cancel)| RunRule::Group(queue, cancel)),
    ];
    prop_oneof![
        2 => (1_u64..9, 1_u64..17, 1_u32..5, any::<bool>())
            .prop_map(|(cpu, memory, slots, arm)| Deed::AddNode { cpu, memory, slots, arm }),
        3 => (0_u8..3, rule, prop::collection::vec(step, 1..6))
            .prop_map(|(team, rule, steps)| Deed::AddRun { team, rule, steps }),
        1 => any::<Index>().prop_map(|node| Deed::Connection { node }),
        1 => any::<Index>().prop_map(|node| Deed::Stream { node }),
        1 => (any::<Index>(), 0_u8..5).prop_map(|(node, kind)| Deed::Wish { node, kind }),
        2 => prop_oneof![Just(1_u64), Just(6_000), Just(30_000)].prop_map(|ms| Deed::Pass { ms }),
        1 => Just(Deed::TakeOver),
        1 => (any::<Index>(), any::<bool>()).prop_map(|(run, header_first)| Deed::Archive { run, header_first }),
        6 => (any::<Index>(), 0_u8..10).prop_map(|(step, outcome)| Deed::Progress { step, outcome }),
        1 => any::<Index>().prop_map(|run| Deed::Cancel { run }),
        1 => any::<Index>().prop_map(|step| Deed::StaleReport { step }),
        6 => Just(Deed::Round),
        1 => Just(Deed::PlanOnly),
        2 => any::<bool>().prop_map(|refuse| Deed::Answer { refuse }),
    ]
}

/// A world and what a test needs to remember of it.
struct History {
    world: World,
    nodes: Vec<NodeId>,
    runs: Vec<(RunId, usize)>,
    waiting: Vec<scheduler::Plan>,
}

impl History {
    fn of(deeds: &[Deed]) -> Self {
        let mut history = Self {
            world: World::new(),
            nodes: Vec::new(),
            runs: Vec::new(),
            waiting: Vec::new(),
        };
        history.world.lead();
        for deed in deeds {
            history.now(deed);
            history
                .world
                .cluster
                .sanity_check()
                .expect("the view agrees with itself");
        }
        history
    }

    fn now(&mut self, deed: &Deed) {
        let world = &mut self.world;
        match deed {
            Deed::AddNode {
                cpu,
                memory,
                slots,
                arm,
            } => {
                let name = format!("n{}", self.nodes.len());
                let arch = if *arm { "arm64" } else { "amd64" };
                self.nodes
                    .push(world.add_node(&name, room(cpu * 1_000, *memory), *slots, &[("arch", arch)]));
            }
            Deed::AddRun { team, rule, steps } => self.add_run(*team, *rule, steps),
            Deed::Connection { node } => {
                if let Some(id) = pick(&self.nodes, node) {
                    if world.keys.contains_key(&key::session(id)) {
                        world.disconnect(id);
                    } else {
                        world.connect(id, 1);
                    }
                }
            }
            Deed::Stream { node } => {
                if let Some(id) = pick(&self.nodes, node) {
                    let session: Option<model::SessionRecord> = world.get(&key::session(id));
                    match session {
                        Some(session) if session.connected => world.cut_off(id),
                        _ => world.register_again(id),
                    }
                }
            }
            Deed::Wish { node, kind } => {
                if let Some(node) = pick(&self.nodes, node).cloned() {
                    world.ask_for(&format!("w{}", world.revision), wish(world, node, *kind));
                }
            }
            Deed::Pass { ms } => world.pass(*ms),
            Deed::TakeOver => {
                self.waiting.clear();
                world.take_over();
            }
            Deed::Archive { run, header_first } => self.archive(run, *header_first),
            Deed::Progress { step, outcome } => self.progress(step, *outcome),
            Deed::Cancel { run } => {
                if let Some((run, _)) = pick(&self.runs, run) {
                    world.cancel(&format!("q{}", world.revision), run);
                }
            }
            Deed::StaleReport { step } => {
                if let Some((run, step)) = pick(&self.active(), step) {
                    let world = &mut self.world;
                    let mut report =
                        world.report_of(run, *step, ObservedState::Ended, Some(Outcome::Exited { code: 0 }));
                    report.fence.counter += 1;
                    world.put(key::observed(&report.alloc), &report);
                }
            }
            Deed::Round => drop(world.round()),
            Deed::PlanOnly => self.waiting.push(world.cluster.plan(world.now_ms)),
            Deed::Answer { refuse } => self.answer(*refuse),
        }
    }

    fn add_run(&mut self, team: u8, rule: RunRule, steps: &[StepDraft]) {
        let world = &mut self.world;
        let id = format!("r{}", world.revision);
        let made = steps
            .iter()
            .enumerate()
            .map(|(n, (cpu, memory, arm, needs, idempotent, rule))| {
                let mut needs: Vec<usize> = needs.iter().filter(|_| n > 0).map(|i| i.index(n.max(1))).collect();
                needs.sort_unstable();
                needs.dedup();
                let mut step = step(&format!("s{n}"), &needs, ask(cpu * 500, *memory));
                step.idempotent = *idempotent;
                step.retry.on = vec![RetryOn::Infra, RetryOn::Timeout, RetryOn::Exit(75)];
                match *rule {
                    StepRule::None => {}
                    StepRule::Group(queue, cancel) => step.rules.concurrency = Some(group((queue, cancel))),
                    StepRule::Cell => step.rules.matrix = Some(0),
                    StepRule::Always => {
                        step.rules.condition = Some(Condition {
                            expression: "always()".to_owned(),
                            whatever_ends: true,
                            skipped: String::new(),
                        });
                    }
                }
                if *arm {
                    labelled(step, &[("arch", "arm64")])
                } else {
                    step
                }
            });
        let made: Vec<_> = made.collect();
        let count = made.len();
        let created = world.revision;
        let cells = made.iter().any(|step| step.rules.matrix.is_some());
        let rules = RunRules {
            concurrency: match rule {
                RunRule::None => None,
                RunRule::Group(queue, cancel) => Some(group((queue, cancel))),
            },
            matrices: cells.then(one_at_a_time).into_iter().collect(),
        };
        let run = world.add_ruled_of(&format!("team{team}"), &id, created, rules, made);
        self.runs.push((run, count));
    }

    fn archive(&mut self, run: &Index, header_first: bool) {
        let Some((run, count)) = pick(&self.runs, run).cloned() else {
            return;
        };
        let ended = |step| {
            self.world
                .step(&run, step)
                .is_some_and(|r: model::StepRecord| r.status.is_terminal())
        };
        if !(0..count).all(ended) {
            return;
        }
        let mut keys = vec![key::run(&run), key::run_def(&run, 0)];
        keys.extend((0..count).map(|step| key::step(&run, step)));
        if !header_first {
            keys.reverse();
        }
        for key in keys {
            self.world.put_bytes(key, None);
        }
        self.runs.retain(|(id, _)| *id != run);
    }

    fn answer(&mut self, refuse: bool) {
        let Some(plan) = self.waiting.pop() else { return };
        let (verified, _) = self.world.cluster.verify(&plan);
        for verified in verified {
            if !refuse && self.world.commit(&verified.change) {
                self.world.cluster.confirm(verified.ticket, self.world.revision);
            } else {
                self.world.cluster.refuse(verified.ticket);
            }
        }
    }

    /// Steps that have an order.
    fn active(&self) -> Vec<(RunId, usize)> {
        let steps = self
            .runs
            .iter()
            .flat_map(|(run, count)| (0..*count).map(move |s| (run.clone(), s)));
        let is_active = |(run, step): &(RunId, usize)| {
            let status = self.world.step(run, *step).map(|r| r.status);
            matches!(status, Some(StepStatus::Assigned | StepStatus::Running))
        };
        steps.filter(is_active).collect()
    }

    fn progress(&mut self, which: &Index, outcome: u8) {
        let active = self.active();
        let Some((run, step)) = pick(&active, which) else {
            return;
        };
        let world = &mut self.world;
        match outcome {
            0 => world.report(run, *step, ObservedState::Preparing, None),
            1 => world.report(run, *step, ObservedState::Running, None),
            2 => world.exit(run, *step, 1),
            3 => world.report(
                run,
                *step,
                ObservedState::Ended,
                Some(Outcome::TimedOut { timeout_ms: 1 }),
            ),
            4 => world.exit(run, *step, 75),
            5 => world.report(run, *step, ObservedState::Ended, Some(lost())),
            6 => world.report(run, *step, ObservedState::Ended, Some(not_started())),
            _ => world.exit(run, *step, 0),
        }
    }
}

fn one_at_a_time() -> MatrixRules {
    MatrixRules {
        step: "cells".to_owned(),
        fail_fast: true,
        max_parallel: Some(1),
    }
}

fn lost() -> Outcome {
    Outcome::Lost {
        message: "rebooted".to_owned(),
    }
}

fn not_started() -> Outcome {
    Outcome::StartFailed {
        cause: model::StartFailure::Image,
        message: "busy".to_owned(),
        lasting: false,
    }
}

fn wish(world: &World, node: NodeId, kind: u8) -> RequestKind {
    let deadline_ms = Some(world.now_ms + 3_000);
    match kind {
        0 => RequestKind::Cordon { node },
        1 => RequestKind::Uncordon { node },
        2 => RequestKind::Drain { node, deadline_ms },
        3 => RequestKind::Drain {
            node,
            deadline_ms: None,
        },
        _ => RequestKind::ConfirmGone { node, node_epoch: 1 },
    }
}

/// At every revision a step has one order at most, and one that must not run twice never gets
/// another one once its first instruction may have run.
fn check_attempts(world: &World) {
    let mut standing: BTreeMap<(RunId, usize), String> = BTreeMap::new();
    let mut once: BTreeMap<(RunId, usize), bool> = BTreeMap::new();
    for told in &world.history {
        if let (Some(value), Some(key::RunKey::Def(run, 0))) = (&told.value, key::parse_run(&told.key)) {
            let chunk: model::DefChunk = model::decode(value).expect("ours");
            let def = model::RunDef::from_chunks(&[chunk]).expect("ours");
            for (step, def) in def.steps.iter().enumerate() {
                once.insert((run.clone(), step), !def.idempotent);
            }
        }
        if let (Some(value), Some(key::RunKey::Step(run, step))) = (&told.value, key::parse_run(&told.key)) {
            let record: model::StepRecord = model::decode(value).expect("ours");
            let begun = record.earlier.iter().filter(|a| match &a.outcome {
                Some(Outcome::StartFailed { .. }) => false,
                Some(_) => true,
                None => a.times.started_ms.is_some(),
            });
            let count = begun.count();
            assert!(
                count == 0 || !once[&(run.clone(), step)],
                "step {step} of {run} began {count} times before"
            );
        }
        let Some(id) = told
            .key
            .strip_prefix(key::ALLOCS)
            .and_then(|k| k.split_once('/'))
            .map(|(_, id)| id)
        else {
            continue;
        };
        let (run, step, _) = model::AllocId::new(id).ok().and_then(|id| id.parts()).expect("ours");
        match (&told.value, standing.get(&(run.clone(), step))) {
            (Some(_), Some(other)) => assert_eq!(other, id, "two orders for step {step} of {run}"),
            (Some(_), None) => drop(standing.insert((run, step), id.to_owned())),
            (None, _) => drop(standing.remove(&(run, step))),
        }
    }
}

/// At no revision have two runs of a group orders, nor two steps of one, nor two cells of a matrix
/// that allows one.
fn check_groups(world: &World) {
    let mut teams: BTreeMap<RunId, String> = BTreeMap::new();
    let mut defs: BTreeMap<RunId, RunDef> = BTreeMap::new();
    let mut holders: BTreeMap<String, (RunId, usize)> = BTreeMap::new();
    for told in &world.history {
        match (key::parse_run(&told.key), &told.value) {
            (Some(key::RunKey::Def(run, 0)), Some(value)) => {
                let chunk: model::DefChunk = model::decode(value).expect("ours");
                defs.insert(run, RunDef::from_chunks(&[chunk]).expect("ours"));
            }
            (Some(key::RunKey::Header(run)), Some(value)) => {
                let header: model::RunHeader = model::decode(value).expect("ours");
                teams.insert(run, header.team.to_string());
            }
            _ => {}
        }
        let Some((_, id)) = told.key.strip_prefix(key::ALLOCS).and_then(|k| k.split_once('/')) else {
            continue;
        };
        let (run, step, _) = model::AllocId::new(id).ok().and_then(|id| id.parts()).expect("ours");
        match &told.value {
            Some(_) => drop(holders.insert(id.to_owned(), (run, step))),
            None => drop(holders.remove(id)),
        }
        let (mut runs, mut steps, mut cells) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for (run, step) in holders.values() {
            let (def, team) = (&defs[run], &teams[run]);
            if let Some(rules) = &def.rules.concurrency {
                let other = runs.insert((team, &rules.group), run);
                assert!(other.is_none_or(|other| other == run), "{run} beside {other:?}");
            }
            if let Some(rules) = &def.steps[*step].rules.concurrency {
                let other = steps.insert((team, &rules.group), (run, step));
                assert_eq!(other, None, "beside step {step} of {run}");
            }
            if def.steps[*step].rules.matrix.is_some() {
                let other = cells.insert(run, step);
                assert_eq!(other, None, "beside cell {step} of {run}");
            }
        }
    }
}

fn pick<'a, T>(all: &'a [T], which: &Index) -> Option<&'a T> {
    if all.is_empty() { None } else { Some(which.get(all)) }
}

fn told_in(order: impl Iterator<Item = Told>) -> Cluster {
    let mut cluster = Cluster::new();
    for told in order {
        let _ = cluster.on_change(&told.key, told.value.as_deref(), told.revision);
        cluster.refresh();
    }
    cluster
}

/// After each revision, no node holds more orders than it has room for.
fn check_capacity(world: &World) {
    let mut capacity: BTreeMap<String, (Resources, u32)> = BTreeMap::new();
    let mut orders: BTreeMap<String, model::Allocation> = BTreeMap::new();
    for told in &world.history {
        if let (true, Some(value)) = (told.key.starts_with(key::NODES), &told.value) {
            let node: model::NodeRecord = model::decode(value).expect("ours");
            capacity.insert(node.id.to_string(), (node.capacity, node.slots));
        }
        if told.key.starts_with(key::ALLOCS) {
            match &told.value {
                Some(value) => orders.insert(told.key.clone(), model::decode(value).expect("ours")),
                None => orders.remove(&told.key),
            };
        }
        for (node, (room, slots)) in &capacity {
            let here = orders.values().filter(|o| o.node.as_str() == node);
            let sum = here.clone().fold(Resources::default(), |sum, o| {
                sum.checked_add(&o.resources).expect("small")
            });
            assert!(
                room.fits(&sum) && here.count() <= *slots as usize,
                "{node} at revision {}",
                told.revision
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(120))]

    #[test]
    fn any_order_and_any_repetition_of_the_changes_leads_to_the_same_view(
        deeds in prop::collection::vec(deed(), 1..60),
        order in any::<u64>(),
    ) {
        let world = History::of(&deeds).world;
        let mut in_order = told_in(world.history.iter().cloned());
        // Every change twice, in an order that depends on `order` alone.
        let mut shuffled: Vec<(u64, Told)> = world.history.iter().chain(&world.history).enumerate()
            .map(|(n, told)| (mix(order ^ (n as u64)), told.clone()))
            .collect();
        shuffled.sort_by_key(|(at, _)| *at);
        let mut out_of_order = told_in(shuffled.into_iter().map(|(_, told)| told));
        prop_assert_eq!(in_order.fingerprint(), out_of_order.fingerprint());
        in_order.sanity_check().expect("in order");
        out_of_order.sanity_check().expect("out of order");
        let (a, b) = (in_order.plan(world.now_ms + 1), out_of_order.plan(world.now_ms + 1));
        prop_assert_eq!(a, b, "the same view gives the same plan");
    }

    #[test]
    fn whatever_happens_grants_stay_within_capacity_and_the_cluster_comes_to_rest(
        deeds in prop::collection::vec(deed(), 1..80),
    ) {
        let mut history = History::of(&deeds);
        while !history.waiting.is_empty() {
            history.answer(true);
        }
        history.world.settle();
        check_capacity(&history.world);
        check_attempts(&history.world);
        check_groups(&history.world);
        // Once all nodes are back and every attempt ends, whatever fits somewhere ends.
        for node in history.nodes.clone() {
            history.world.ask_for(&format!("last-{node}"), RequestKind::Uncordon { node: node.clone() });
            history.world.register_again(&node);
        }
        history.world.settle();
        history.world.pass(100_000);
        history.world.settle();
        let mut active = history.active();
        while !active.is_empty() {
            for (run, step) in active {
                history.world.exit(&run, step, 0);
            }
            history.world.settle();
            active = history.active();
        }
        check_capacity(&history.world);
        check_groups(&history.world);
        for (run, count) in history.runs.clone() {
            for step in 0..count {
                if history.world.status(&run, step).is_some_and(|s| s == StepStatus::Queued) {
                    let explanation = history.world.explain(&run, step);
                    // Behind one that waits for a node in vain, the others of its group wait as well.
                    let hopeless = matches!(
                        explanation.verdict,
                        scheduler::Verdict::NoNode
                            | scheduler::Verdict::NoLabel
                            | scheduler::Verdict::TooLarge
                            | scheduler::Verdict::WaitsForGroup
                    );
                    prop_assert!(hopeless, "{} waits although {}", step, explanation);
                }
            }
        }
    }

    #[test]
    fn a_step_is_placed_on_the_busy_node_that_keeps_the_least(
        nodes in prop::collection::vec((1_u64..9, 1_u64..17, 0_u32..3, any::<bool>()), 1..40),
        fill in prop::collection::vec((1_u64..5, 0_u64..5), 0..30),
        wanted in (1_u64..9, 0_u64..17, any::<bool>()),
    ) {
        let mut world = World::new();
        for (n, (cpu, memory, slots, arm)) in nodes.iter().enumerate() {
            let arch = if *arm { "arm64" } else { "amd64" };
            world.add_node(&format!("n{n:02}"), room(cpu * 1_000, *memory), *slots, &[("arch", arch)]);
        }
        let steps = fill.iter().enumerate().map(|(n, (cpu, memory))| step(&format!("s{n}"), &[], ask(cpu * 1_000, *memory)));
        if !fill.is_empty() {
            world.add_run("fill", world.now_ms, steps.collect());
            world.settle();
        }
        let (cpu, memory, arm) = wanted;
        let asked = ask(cpu * 1_000, memory);
        let mut wanted = step("wanted", &[], asked);
        if arm {
            wanted = labelled(wanted, &[("arch", "arm64")]);
        }
        let run = world.add_run("wanted", world.now_ms + 1, vec![wanted]);
        let best = naive_best(&world, &asked, arm);
        let plan = world.cluster.plan(world.now_ms);
        let found = placements(&plan).into_iter().find(|o| o.run == run).map(|o| o.node.clone());
        prop_assert_eq!(found, best);
    }

    #[test]
    fn the_team_with_the_smallest_share_is_served_first_and_within_it_the_oldest(
        runs in prop::collection::vec((0_usize..3, 0_u64..5, prop::collection::vec((1_u64..4, 1_u64..4), 1..5)), 1..12),
    ) {
        let mut world = World::new();
        // Room for all: what happens to those for which there is none is another property.
        let total = Resources { disk_bytes: 1_000 * GIB, ..room(200_000, 200) };
        world.add_node("n", total, 1_000, &[]);
        for (n, (team, created, steps)) in runs.iter().enumerate() {
            let steps = steps.iter().enumerate().map(|(s, (cpu, memory))| step(&format!("s{s}"), &[], ask(cpu * 1_000, *memory)));
            world.add_run_of(&format!("team{team}"), &format!("r{n:02}"), *created, steps.collect());
        }
        let plan = world.cluster.plan(world.now_ms);
        let mut held = [(0_u64, 0_u64, 0_u64); 3];
        let mut waiting: Vec<(usize, (u64, usize, usize))> = runs.iter().enumerate()
            .flat_map(|(n, (team, created, steps))| (0..steps.len()).map(move |s| (*team, (*created, n, s))))
            .collect();
        for order in placements(&plan) {
            let share = |team: usize| {
                let (cpu, memory, disk) = held[team];
                let part = |held: u64, all: u64| u128::from(held) * 1_000_000_000 / u128::from(all);
                part(cpu, total.cpu_millis).max(part(memory, total.memory_bytes)).max(part(disk, total.disk_bytes))
            };
            let next = waiting.iter().min_by_key(|(team, age)| {
                let oldest = waiting.iter().filter(|(t, _)| t == team).map(|(_, a)| *a).min();
                (share(*team), oldest, *team, *age)
            }).copied().expect("as many as were placed");
            waiting.retain(|w| *w != next);
            let (team, (_, run, step)) = next;
            prop_assert_eq!((order.run.to_string(), order.step), (format!("r{run:02}"), step));
            held[team].0 += order.resources.cpu_millis;
            held[team].1 += order.resources.memory_bytes;
            held[team].2 += order.resources.disk_bytes;
        }
        prop_assert!(waiting.is_empty(), "there was room for all");
    }

    #[test]
    fn folding_the_same_report_again_changes_nothing(
        started in any::<bool>(), outcome in 0_u8..4, stop in any::<bool>(), state in 0_u8..3,
        retries in 0_u8..2, idempotent in any::<bool>(),
    ) {
        let mut world = World::new();
        world.add_node("n1", room(4_000, 16), 10, &[]);
        let run = world.add_run("r1", 1, vec![step("a", &[], ask(1_000, 1))]);
        world.settle();
        if started {
            world.report(&run, 0, ObservedState::Running, None);
            world.settle();
        }
        let mut order = world.order(&run, 0);
        order.stop = stop.then_some(model::Stop::Cancelled);
        let state = [ObservedState::Preparing, ObservedState::Running, ObservedState::Ended][usize::from(state)];
        let outcome = [None, Some(Outcome::Exited { code: 0 }), Some(Outcome::Cancelled), Some(Outcome::Exited { code: 1 })][usize::from(outcome)].clone();
        let report = world.report_of(&run, 0, state, outcome);
        let record = world.step(&run, 0).expect("placed");
        let retry = model::Retry { max: u32::from(retries), on: vec![model::RetryOn::Failure], backoff_ms: 5 };
        let policy = Policy { retry: Some(&retry), idempotent, cancelled: stop, node: "n1" };
        if let Folded::Changed(next) = fold(&record, &order, policy, &report, 5) {
            prop_assert!(record.status.may_become(next.status));
            prop_assert_eq!(fold(&next, &order, policy, &report, 6), Folded::Unchanged);
            prop_assert_eq!(next.status.is_terminal(), next.outcome.is_some() && next.log_bytes.is_some());
        }
    }
}

/// Looks at every node in the plainest way.
fn naive_best(world: &World, asked: &Resources, arm: bool) -> Option<NodeId> {
    let nodes: Vec<model::NodeRecord> = all(world, key::NODES);
    let orders: Vec<model::Allocation> = all(world, key::ALLOCS);
    let largest = |part: fn(&Resources) -> u64| nodes.iter().map(|n| part(&n.capacity)).max().unwrap_or(1);
    let (cpu, memory, disk) = (
        largest(|r| r.cpu_millis),
        largest(|r| r.memory_bytes),
        largest(|r| r.disk_bytes),
    );
    let share = |part: u64, of: u64| u128::from(part) * 1_000_000 / u128::from(of);
    // All steps are expected to last as long, so only an empty node differs by time.
    let weight = |r: &Resources| {
        let (cpu, memory) = (share(r.cpu_millis, cpu), share(r.memory_bytes, memory));
        100 * cpu.min(memory) + cpu + memory + share(r.disk_bytes, disk)
    };
    let candidates = nodes.iter().filter_map(|node| {
        let here = orders.iter().filter(|o| o.node == node.id);
        let free = here
            .clone()
            .try_fold(node.capacity, |free, o| free.checked_sub(&o.resources))?;
        let carries = !arm || node.labels["arch"] == "arm64";
        let held = here.count();
        let fits = carries && held < node.slots as usize && free.fits(asked);
        fits.then(|| (held == 0, weight(&free), node.id.clone()))
    });
    candidates.min().map(|(_, _, id)| id)
}

fn all<R: model::Record>(world: &World, prefix: &str) -> Vec<R> {
    let of = world
        .keys
        .range(prefix.to_owned()..)
        .take_while(|(k, _)| k.starts_with(prefix));
    of.map(|(_, (bytes, _))| model::decode(bytes).expect("ours")).collect()
}

/// A number that looks random (splitmix64).
fn mix(n: u64) -> u64 {
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

#[test]
fn a_flood_of_one_team_does_not_hold_up_another() {
    let mut world = World::new();
    world.add_node("n", room(10_000, 100), 100, &[]);
    let flood: Vec<_> = (0..500).map(|n| step(&format!("s{n}"), &[], ask(1_000, 1))).collect();
    world.add_run_of("flood", "r1", 1, flood);
    world.add_run_of(
        "small",
        "r2",
        2,
        vec![step("a", &[], ask(1_000, 1)), step("b", &[], ask(1_000, 1))],
    );
    let plan = world.cluster.plan(world.now_ms);
    let of_small = placements(&plan)
        .iter()
        .take(4)
        .filter(|o| o.run.as_str() == "r2")
        .count();
    assert_eq!(of_small, 2, "its two steps are among the first four");
    assert_eq!(placements(&plan).len(), 10);
    assert!(
        plan.proposals
            .iter()
            .all(|p| matches!(&*p.action, Action::Place { .. }))
    );
}
