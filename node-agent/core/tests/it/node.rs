//! What only a whole node can see.

use crate::orders::{alloc, order, stopped};
use model::{ObservedState, Outcome, Usage};
use node_agent::{Act, Effect, End, Entry, Event, FENCES_MAX, Found, Kill, Node, Progress, TOMBSTONES_MAX};

fn prepares(acts: &[Act]) -> Vec<&str> {
    let prepared = acts.iter().filter(|act| act.effect == Effect::Prepare);
    prepared.map(|act| act.alloc.as_str()).collect()
}

fn kills(acts: &[Act]) -> usize {
    acts.iter().filter(|act| matches!(act.effect, Effect::Kill(_))).count()
}

fn running(step: usize, counter: u32) -> Node {
    let mut node = Node::new("boot");
    node.on_connected(0);
    node.on_order(order(step, counter), 0);
    let id = alloc(step, counter);
    node.on(&id, Event::Written, 0);
    node.on(&id, Event::Prepared { phases: Vec::new() }, 0);
    let launched = Event::Launched {
        started_ms: 1,
        phase: None,
    };
    node.on(&id, launched, 1);
    node
}

fn exited() -> Event {
    Event::Ended {
        started_ms: Some(1),
        ended_ms: 2,
        outcome: Outcome::Exited { code: 0 },
        log_bytes: 0,
        usage: Usage::default(),
        left: model::Left::default(),
    }
}

#[test]
fn an_order_that_is_repeated_runs_once() {
    let mut node = Node::new("boot");
    assert_eq!(prepares(&node.on_orders(vec![order(0, 1), order(1, 1)], 0)).len(), 2);
    assert_eq!(prepares(&node.on_orders(vec![order(0, 1), order(1, 1)], 0)).len(), 0);
    assert_eq!(prepares(&node.on_order(order(0, 1), 0)).len(), 0);
}

#[test]
fn an_order_of_an_earlier_attempt_is_refused() {
    let mut node = running(0, 2);
    assert_eq!(node.on_order(order(0, 1), 5), []);
    assert!(node.life(&alloc(0, 1)).is_none());
    assert_eq!(
        prepares(&node.on_order(order(1, 1), 5)).len(),
        1,
        "another step is no earlier attempt"
    );
}

#[test]
fn the_next_attempt_begins_once_the_earlier_one_is_gone() {
    let mut node = running(0, 1);
    let acts = node.on_orders(vec![order(0, 2)], 5);
    assert_eq!((kills(&acts), prepares(&acts).len()), (1, 0));
    assert!(!node.is_idle());
    let acts = node.on(&alloc(0, 1), exited(), 6);
    assert_eq!(prepares(&acts), [alloc(0, 2).as_str()]);
}

#[test]
fn a_waiting_attempt_that_is_withdrawn_never_begins() {
    for forget in [true, false] {
        let mut node = running(0, 1);
        node.on_order(order(0, 2), 5);
        if forget {
            node.on_forget(&alloc(0, 2), 5);
        } else {
            node.on_orders(Vec::new(), 5);
        }
        assert_eq!(prepares(&node.on(&alloc(0, 1), exited(), 6)).len(), 0);
    }
}

#[test]
fn a_waiting_attempt_that_is_stopped_ends_as_cancelled() {
    let mut node = running(0, 1);
    node.on_order(order(0, 2), 5);
    node.on_order(stopped(order(0, 2)), 5);
    let acts = node.on(&alloc(0, 1), exited(), 6);
    assert_eq!(prepares(&acts).len(), 0);
    assert!(
        acts.iter()
            .any(|act| matches!(&act.effect, Effect::CloseLog { line: Some(line) } if line.contains("cancelled")))
    );
}

#[test]
fn a_finished_allocation_that_still_stands_is_not_run_again() {
    let mut node = running(0, 1);
    let id = alloc(0, 1);
    node.on(&id, Event::Written, 2);
    for event in [exited(), Event::Written, Event::LogComplete] {
        node.on(&id, event, 3);
    }
    node.on_ack(&id, ObservedState::Ended, true, 4);
    node.on(&id, Event::Written, 5);
    node.on(&id, Event::Cleaned, 6);
    assert!(node.is_idle());
    assert_eq!(node.on_orders(vec![order(0, 1)], 7), []);
    let acts = node.on_orders(Vec::new(), 8);
    assert_eq!(acts.len(), 1);
    assert_eq!(acts[0].effect, Effect::RemoveEntry);
    node.on(&id, Event::EntryRemoved, 9);
    assert_eq!(node.lives().count(), 0);
}

#[test]
fn only_so_many_finished_allocations_are_remembered() {
    let mut node = Node::new("boot");
    for step in 0..TOMBSTONES_MAX + 3 {
        let end = End {
            started_ms: None,
            ended_ms: 1,
            phases: Vec::new(),
            outcome: Outcome::Cancelled,
            log_bytes: 0,
            usage: Usage::default(),
            left: model::Left::default(),
        };
        let entry = Entry {
            order: order(step, 1),
            boot_id: "boot".to_owned(),
            progress: Progress::Done(Box::new(end)),
        };
        node.readopt(entry, Found::Nothing, 0);
        node.on(&alloc(step, 1), Event::Cleaned, 0);
    }
    let removed = node
        .on_tick(1)
        .into_iter()
        .filter(|act| act.effect == Effect::RemoveEntry);
    assert_eq!(removed.count(), 3);
}

#[test]
fn words_about_what_is_not_held_change_nothing() {
    let mut node = running(0, 1);
    assert_eq!(node.on_forget(&alloc(7, 1), 5), []);
    assert_eq!(node.on_ack(&alloc(7, 1), ObservedState::Ended, false, 5), []);
    assert_eq!(node.on(&alloc(7, 1), exited(), 5), []);
}

fn words(acts: &[Act]) -> Vec<&'static str> {
    let word = |act: &Act| match &act.effect {
        Effect::Write(_) => "write",
        Effect::Prepare => "prepare",
        Effect::Launch => "launch",
        Effect::Kill(Kill::Drained) => "kill drained",
        Effect::Kill(_) => "kill",
        Effect::CloseLog { .. } => "close log",
        Effect::Report(_) => "report",
        Effect::Clean => "clean",
        _ => "other",
    };
    acts.iter().map(word).collect()
}

#[test]
fn without_its_lease_a_node_prepares_and_does_not_launch() {
    let mut node = Node::new("boot");
    assert_eq!(node.on_lease(false, 0), []);
    let id = alloc(0, 1);
    assert_eq!(words(&node.on_order(order(0, 1), 0)), ["prepare", "write"]);
    node.on(&id, Event::Written, 0);
    assert_eq!(node.on(&id, Event::Prepared { phases: Vec::new() }, 0), []);
    assert_eq!(node.on_tick(1), []);
    assert_eq!(words(&node.on_lease(true, 2)), ["launch"]);
    assert_eq!(node.on_lease(true, 3), [], "once");
    assert_eq!(node.on_lease(false, 4), [], "what runs is the shim's to end");
    // The other way round: it was there when the lease came.
    let id = alloc(1, 1);
    node.on_order(order(1, 1), 5);
    node.on_lease(true, 5);
    node.on(&id, Event::Written, 5);
    assert_eq!(
        words(&node.on(&id, Event::Prepared { phases: Vec::new() }, 5)),
        ["launch"]
    );
}

#[test]
fn what_waits_for_the_lease_can_be_stopped_and_withdrawn() {
    for stop in [true, false] {
        let mut node = Node::new("boot");
        node.on_lease(false, 0);
        let id = alloc(0, 1);
        node.on_order(order(0, 1), 0);
        node.on(&id, Event::Written, 0);
        node.on(&id, Event::Prepared { phases: Vec::new() }, 0);
        let acts = if stop {
            node.on_order(stopped(order(0, 1)), 1)
        } else {
            node.on_orders(Vec::new(), 1)
        };
        assert_eq!(words(&acts), [if stop { "close log" } else { "clean" }]);
        assert!(!words(&node.on_lease(true, 2)).contains(&"launch"));
    }
}

#[test]
fn a_drained_attempt_is_ended_as_such() {
    let mut node = running(0, 1);
    let drained = node_agent::Order {
        stop: Some(model::Stop::Drained),
        ..order(0, 1)
    };
    assert_eq!(words(&node.on_order(drained.clone(), 2)), ["kill drained"]);
    assert_eq!(node.on_order(drained, 3), [], "once");
}

/// The attempt ends, is refused and cleaned away.
fn refused(node: &mut Node, step: usize, counter: u32) {
    let id = alloc(step, counter);
    node.on(&id, Event::Written, 2);
    node.on(&id, exited(), 3);
    node.on(&id, Event::Written, 3);
    node.on_ack(&id, ObservedState::Ended, false, 4);
    node.on(&id, Event::LogComplete, 4);
    node.on(&id, Event::Cleaned, 5);
    node.on(&id, Event::EntryRemoved, 6);
    assert!(node.life(&id).is_none(), "nothing of it is left");
}

#[test]
fn a_late_list_starts_nothing_that_has_ended_here() {
    let mut node = running(0, 2);
    refused(&mut node, 0, 2);
    assert_eq!(node.on_orders(vec![order(0, 1)], 7), [], "an earlier attempt");
    let acts = node.on_orders(vec![order(0, 2)], 8);
    assert_eq!(
        words(&acts),
        ["close log"],
        "it is not begun, and whoever lists it is told"
    );
    let id = alloc(0, 2);
    node.on(&id, Event::LogClosed { bytes: 1 }, 9);
    let reports = node.on(&id, Event::Written, 9);
    let lost = reports.iter().any(|act| {
        matches!(&act.effect, Effect::Report(o) if matches!(o.outcome, Some(Outcome::Lost { .. })) && o.started_ms.is_none())
    });
    assert!(lost, "{reports:?}");
    let acts = node.on_orders(vec![order(0, 3)], 10);
    assert!(words(&acts).contains(&"prepare"), "the next attempt is another matter");
}

#[test]
fn what_an_earlier_agent_knew_is_known_and_only_so_much_of_it() {
    let mut node = Node::new("boot");
    for step in 0..=FENCES_MAX {
        node.remember(&alloc(step, 1));
    }
    assert!(!words(&node.on_order(order(1, 1), 0)).contains(&"prepare"));
    assert!(!words(&node.on_order(order(FENCES_MAX, 1), 0)).contains(&"prepare"));
    assert!(
        words(&node.on_order(order(0, 1), 0)).contains(&"prepare"),
        "the oldest was dropped"
    );
    assert!(words(&node.on_order(order(2, 2), 0)).contains(&"prepare"));
}

fn launches(acts: &[Act]) -> usize {
    acts.iter().filter(|act| act.effect == Effect::Launch).count()
}

/// A prepared order whose node lost its lease may have gone elsewhere by the time the lease is back.
#[test]
fn a_new_stream_launches_nothing_before_it_says_what_stands() {
    let mut node = Node::new("boot");
    node.on_connected(0);
    node.on_orders(vec![order(0, 1), order(1, 1)], 0);
    for step in [0, 1] {
        node.on(&alloc(step, 1), Event::Written, 0);
    }
    node.on_disconnected(1);
    node.on_lease(false, 2);
    for step in [0, 1] {
        let prepared = Event::Prepared { phases: Vec::new() };
        assert_eq!(launches(&node.on(&alloc(step, 1), prepared, 3)), 0);
    }
    assert_eq!(launches(&node.on_lease(true, 4)), 0);
    assert_eq!(launches(&node.on_connected(4)), 0);
    let acts = node.on_orders(vec![order(0, 1)], 5);
    assert_eq!(launches(&acts), 1, "the one that stands");
    assert!(
        node.life(&alloc(1, 1))
            .is_none_or(|life| life.state_name() != "launching")
    );
}

#[test]
fn an_order_that_waited_for_an_earlier_attempt_waits_for_the_list_of_a_new_stream() {
    let mut node = running(0, 1);
    assert_eq!(
        prepares(&node.on_order(order(0, 2), 2)).len(),
        0,
        "the first attempt is there"
    );
    node.on_disconnected(3);
    node.on(&alloc(0, 1), exited(), 4);
    let mut acts = Vec::new();
    for event in [Event::Written, Event::LogComplete, Event::Cleaned, Event::EntryRemoved] {
        acts.extend(node.on(&alloc(0, 1), event, 5));
    }
    node.on_connected(6);
    assert_eq!(prepares(&acts).len(), 0);
    assert_eq!(prepares(&node.on_orders(vec![order(0, 2)], 7)).len(), 1);
}
