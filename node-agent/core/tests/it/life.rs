//! One allocation, event by event.

use crate::orders::{order, stopped, unreadable};
use model::{ObservedState, Outcome, Phase, StartFailure, Stop, Usage};
use node_agent::{
    Effect, End, Entry, Event, Found, Kill, Life, Progress, REPORT_RESEND_MS, UNWANTED_LOG_MS, WRITE_RETRY_MS,
};

/// The effects, each in a word or two.
fn words(effects: &[Effect]) -> Vec<String> {
    effects.iter().map(word).collect()
}

fn word(effect: &Effect) -> String {
    match effect {
        Effect::Write(entry) => format!("write {}", progress(&entry.progress)),
        Effect::Prepare => "prepare".to_owned(),
        Effect::AbortPrepare => "abort".to_owned(),
        Effect::Launch => "launch".to_owned(),
        Effect::Kill(Kill::Cancelled) => "kill cancelled".to_owned(),
        Effect::Kill(Kill::Drained) => "kill drained".to_owned(),
        Effect::Kill(Kill::Disowned) => "kill disowned".to_owned(),
        Effect::CloseLog { line } => format!("close log: {}", line.as_deref().unwrap_or("")),
        Effect::ShipLog => "ship".to_owned(),
        Effect::SealLog { bytes } => format!("seal {bytes}"),
        Effect::Report(observed) => format!("report {:?}", observed.state).to_lowercase(),
        Effect::Clean => "clean".to_owned(),
        Effect::RemoveEntry => "remove entry".to_owned(),
        Effect::Gone => "gone".to_owned(),
    }
}

fn progress(progress: &Progress) -> &'static str {
    match progress {
        Progress::Accepted => "accepted",
        Progress::Running { .. } => "running",
        Progress::Ended(_) => "ended",
        Progress::Done(_) => "done",
    }
}

fn fresh() -> Life {
    Life::ordered(order(0, 1), "boot")
}

fn prepared() -> Event {
    Event::Prepared {
        phases: vec![phase("image")],
    }
}

fn phase(name: &str) -> Phase {
    Phase {
        name: name.to_owned(),
        ms: 5,
        bytes: 0,
    }
}

fn launched() -> Event {
    Event::Launched {
        started_ms: 50,
        phase: Some(phase("launch")),
    }
}

fn exited(code: i32) -> Event {
    Event::Ended {
        started_ms: Some(50),
        ended_ms: 90,
        outcome: Outcome::Exited { code },
        log_bytes: 7,
        usage: Usage::default(),
        left: model::Left::default(),
    }
}

fn ack(state: ObservedState, accepted: bool) -> Event {
    Event::Acked { state, accepted }
}

fn end(outcome: Outcome) -> Box<End> {
    Box::new(End {
        started_ms: Some(50),
        ended_ms: 90,
        phases: Vec::new(),
        outcome,
        log_bytes: 7,
        usage: Usage::default(),
        left: model::Left::default(),
    })
}

fn entry(progress: Progress) -> Entry {
    Entry {
        order: order(0, 1),
        boot_id: "boot".to_owned(),
        progress,
    }
}

fn running_entry() -> Entry {
    entry(Progress::Running {
        started_ms: 50,
        phases: vec![phase("image")],
    })
}

/// Feeds events, each with the effects that it must have.
fn check(mut life: Life, steps: &[(Event, &[&str])]) -> Life {
    for (ordinal, (event, expected)) in steps.iter().enumerate() {
        let effects = words(&life.on(event.clone(), 100));
        assert_eq!(effects, *expected, "step {ordinal}: {event:?}");
    }
    life
}

#[test]
fn a_step_from_its_order_to_its_removal() {
    let life = check(
        fresh(),
        &[
            (Event::Connected, &["prepare", "write accepted"]),
            (Event::Written, &["report preparing"]),
            (ack(ObservedState::Preparing, true), &[]),
            (prepared(), &["launch"]),
            (launched(), &["write running", "ship"]),
            (Event::Written, &["report running"]),
            (exited(3), &["write ended"]),
            (Event::Written, &["seal 7", "report ended"]),
            (Event::LogComplete, &[]),
            (ack(ObservedState::Ended, true), &["write done"]),
            (Event::Written, &["clean"]),
            (Event::Cleaned, &[]),
            (Event::Forget, &["remove entry"]),
            (Event::EntryRemoved, &["gone"]),
        ],
    );
    assert!(life.is_removed());
}

#[test]
fn nothing_is_launched_before_the_journal_knows_it() {
    check(
        fresh(),
        &[
            (Event::Connected, &["prepare", "write accepted"]),
            (prepared(), &[]),
            (Event::Written, &["launch", "report preparing"]),
        ],
    );
}

#[test]
fn a_step_that_ends_before_its_start_was_seen_is_reported_once_whole() {
    check(
        fresh(),
        &[
            (Event::Connected, &["prepare", "write accepted"]),
            (Event::Written, &["report preparing"]),
            (prepared(), &["launch"]),
            (exited(0), &["write ended"]),
            (Event::Written, &["ship", "seal 7", "report ended"]),
        ],
    );
}

#[test]
fn the_last_report_tells_everything() {
    let mut life = fresh();
    for event in [
        Event::Connected,
        Event::Written,
        prepared(),
        launched(),
        Event::Written,
        exited(3),
    ] {
        life.on(event, 100);
    }
    let effects = life.on(Event::Written, 100);
    let report = |effect| match effect {
        Effect::Report(observed) => Some(observed),
        _ => None,
    };
    let observed = effects.into_iter().find_map(report).expect("a report");
    assert_eq!(observed.state, ObservedState::Ended);
    assert_eq!(observed.outcome, Some(Outcome::Exited { code: 3 }));
    assert_eq!(
        (observed.started_ms, observed.ended_ms, observed.log_bytes),
        (Some(50), Some(90), Some(7))
    );
    assert_eq!(observed.phases, [phase("image"), phase("launch")]);
    assert_eq!(observed.fence, crate::orders::fence(1));
}

/// The exit record is lost with the machine's power. What knows nothing of the end appends a line to
/// the log, which a server would never take that was told of the end before.
#[test]
fn where_a_log_ends_is_told_once_that_is_durable() {
    check(
        fresh(),
        &[
            (Event::Connected, &["prepare", "write accepted"]),
            (Event::Written, &["report preparing"]),
            (prepared(), &["launch"]),
            (launched(), &["write running", "ship"]),
            (Event::WriteFailed, &[]),
            (exited(0), &[]),
        ],
    );
    check(
        Life::readopt(entry(Progress::Accepted), "another boot", Found::Nothing, 100),
        &[
            (
                Event::Connected,
                &[
                    "close log: buildflow: the step was lost: the node was started anew while the step ran",
                    "report preparing",
                ],
            ),
            (Event::LogClosed { bytes: 90 }, &["write ended"]),
            (Event::Written, &["ship", "seal 90", "report ended"]),
        ],
    );
}

#[test]
fn a_failure_before_the_launch_is_a_line_in_the_log_and_an_end() {
    let failed = Event::PrepareFailed {
        cause: StartFailure::Image,
        message: "no such image".to_owned(),
        phases: Vec::new(),
        lasting: false,
    };
    check(
        fresh(),
        &[
            (Event::Connected, &["prepare", "write accepted"]),
            (Event::Written, &["report preparing"]),
            (
                failed,
                &["close log: buildflow: the step could not start: no such image"],
            ),
            (Event::LogClosed { bytes: 30 }, &["write ended"]),
            (Event::Written, &["ship", "seal 30", "report ended"]),
        ],
    );
}

#[test]
fn a_command_that_is_missing_leaves_a_line_in_the_log() {
    let missing = Event::Ended {
        started_ms: None,
        ended_ms: 60,
        outcome: Outcome::CommandMissing {
            command: "bash".to_owned(),
            message: "not found".to_owned(),
        },
        log_bytes: 0,
        usage: Usage::default(),
        left: model::Left::default(),
    };
    check(
        fresh(),
        &[
            (Event::Connected, &["prepare", "write accepted"]),
            (Event::Written, &["report preparing"]),
            (prepared(), &["launch"]),
            (
                missing,
                &["close log: buildflow: the step could not start: `bash`: not found"],
            ),
            (Event::LogClosed { bytes: 9 }, &["write ended"]),
        ],
    );
}

#[test]
fn an_order_that_cannot_be_read_ends_with_the_reason() {
    check(
        Life::ordered(unreadable(order(0, 1)), "boot"),
        &[
            (
                Event::Connected,
                &["close log: buildflow: the step could not start: newer"],
            ),
            (Event::LogClosed { bytes: 4 }, &["write ended"]),
            (Event::Written, &["ship", "seal 4", "report ended"]),
        ],
    );
}

#[test]
fn a_stop_ends_it_wherever_it_is() {
    let stop = Event::Ordered {
        stop: Some(Stop::Cancelled),
    };
    let failed = Event::PrepareFailed {
        cause: StartFailure::Sandbox,
        message: "stopped".to_owned(),
        phases: Vec::new(),
        lasting: false,
    };
    let cancelled = "close log: buildflow: the step was cancelled";
    // Before anything.
    check(
        Life::ordered(stopped(order(0, 1)), "boot"),
        &[
            (Event::Connected, &[cancelled]),
            (Event::LogClosed { bytes: 1 }, &["write ended"]),
        ],
    );
    // While it is prepared: the failure that the abort causes is not what the user reads.
    check(
        fresh(),
        &[
            (Event::Connected, &["prepare", "write accepted"]),
            (stop.clone(), &["abort"]),
            (stop.clone(), &[]),
            (failed, &[cancelled]),
        ],
    );
    // Prepared, but the journal does not know it yet.
    check(
        fresh(),
        &[
            (Event::Connected, &["prepare", "write accepted"]),
            (prepared(), &[]),
            (stop.clone(), &[cancelled]),
            (Event::Written, &["report preparing"]),
        ],
    );
    // While it is launched, and while it runs: once each.
    check(
        fresh(),
        &[
            (Event::Connected, &["prepare", "write accepted"]),
            (Event::Written, &["report preparing"]),
            (prepared(), &["launch"]),
            (stop.clone(), &[]),
            (launched(), &["kill cancelled", "write running", "ship"]),
            (stop.clone(), &[]),
            (exited(143), &[]),
            (Event::Written, &["write ended", "report running"]),
            (Event::Written, &["seal 7", "report ended"]),
        ],
    );
}

#[test]
fn what_does_not_stand_is_ended_and_leaves_nothing() {
    for news in [Event::Unlisted, Event::Forget, ack(ObservedState::Running, false)] {
        check(
            fresh(),
            &[
                (Event::Connected, &["prepare", "write accepted"]),
                (Event::Written, &["report preparing"]),
                (prepared(), &["launch"]),
                (launched(), &["write running", "ship"]),
                (Event::Written, &["report running"]),
                (news, &["kill disowned"]),
                (exited(0), &["write ended"]),
                (Event::Written, &["clean"]),
                (Event::Cleaned, &["remove entry"]),
                (Event::EntryRemoved, &["gone"]),
            ],
        );
    }
}

#[test]
fn the_log_of_an_end_is_offered_although_it_does_not_stand_any_more() {
    let ended = || {
        let life = Life::readopt(
            entry(Progress::Ended(end(Outcome::Exited { code: 0 }))),
            "boot",
            Found::Gone,
            100,
        );
        check(
            life,
            &[
                (Event::Connected, &["ship", "seal 7", "report ended"]),
                (Event::Unlisted, &[]),
                (Event::Disconnected, &[]),
                (Event::Connected, &[]),
            ],
        )
    };
    check(
        ended(),
        &[(Event::LogComplete, &["clean"]), (Event::Cleaned, &["remove entry"])],
    );
    check(
        ended(),
        &[(Event::Forget, &["clean"]), (Event::Cleaned, &["remove entry"])],
    );
    // Nobody asked for it.
    let mut life = ended();
    assert_eq!(life.deadline_ms(), Some(100 + UNWANTED_LOG_MS));
    assert_eq!(words(&life.on(Event::Tick, 99 + UNWANTED_LOG_MS)), [""; 0]);
    assert_eq!(words(&life.on(Event::Tick, 100 + UNWANTED_LOG_MS)), ["clean"]);
}

#[test]
fn a_report_is_sent_again_until_it_is_acknowledged() {
    let mut life = fresh();
    life.on(Event::Connected, 0);
    assert_eq!(words(&life.on(Event::Written, 10)), ["report preparing"]);
    assert_eq!(life.deadline_ms(), Some(10 + REPORT_RESEND_MS));
    assert_eq!(words(&life.on(Event::Tick, 9 + REPORT_RESEND_MS)), [""; 0]);
    assert_eq!(
        words(&life.on(Event::Tick, 10 + REPORT_RESEND_MS)),
        ["report preparing"]
    );
    life.on(Event::Disconnected, 20_000);
    assert_eq!(words(&life.on(Event::Tick, 90_000)), [""; 0], "no stream");
    assert_eq!(words(&life.on(Event::Connected, 90_000)), ["report preparing"]);
    life.on(ack(ObservedState::Preparing, true), 90_001);
    life.on(Event::Disconnected, 90_002);
    assert_eq!(words(&life.on(Event::Connected, 90_003)), [""; 0], "acknowledged");
    assert_eq!(life.deadline_ms(), None);
}

#[test]
fn a_write_that_failed_is_tried_again_and_nothing_rests_on_it() {
    let mut life = fresh();
    life.on(Event::Connected, 0);
    assert_eq!(words(&life.on(Event::WriteFailed, 10)), [""; 0]);
    assert_eq!(words(&life.on(prepared(), 11)), [""; 0], "not launched");
    assert_eq!(life.deadline_ms(), Some(10 + WRITE_RETRY_MS));
    assert_eq!(words(&life.on(Event::Tick, 10 + WRITE_RETRY_MS)), ["write accepted"]);
    assert_eq!(words(&life.on(Event::Written, 2_000)), ["launch", "report preparing"]);
}

#[test]
fn a_restarted_agent_goes_on_where_it_was() {
    type Steps<'a> = &'a [(Event, &'a [&'a str])];
    let cases: [(&str, Entry, Found, Steps); 6] = [
        (
            "never launched",
            entry(Progress::Accepted),
            Found::Nothing,
            &[
                (Event::Connected, &["report preparing"]),
                (Event::Ordered { stop: None }, &["prepare"]),
            ],
        ),
        (
            "launched, start not seen",
            entry(Progress::Accepted),
            Found::Alive,
            &[(Event::Tick, &[]), (launched(), &["write running", "ship"])],
        ),
        (
            "runs",
            running_entry(),
            Found::Alive,
            &[(Event::Tick, &["ship"]), (launched(), &[])],
        ),
        (
            "ended meanwhile",
            running_entry(),
            Found::Gone,
            &[(Event::Tick, &["ship"]), (exited(5), &["write ended"])],
        ),
        (
            "ended and known",
            entry(Progress::Ended(end(Outcome::Exited { code: 0 }))),
            Found::Gone,
            &[(Event::Connected, &["ship", "seal 7", "report ended"])],
        ),
        (
            "done, not yet cleaned",
            entry(Progress::Done(end(Outcome::Exited { code: 0 }))),
            Found::Gone,
            &[
                (Event::Connected, &["clean"]),
                (Event::Cleaned, &[]),
                (Event::Unlisted, &["remove entry"]),
            ],
        ),
    ];
    for (name, entry, found, steps) in cases {
        println!("{name}");
        check(Life::readopt(entry, "boot", found, 100), steps);
    }
}

#[test]
fn what_cannot_be_known_any_more_is_lost() {
    let broken = Found::Broken {
        message: "its shim died".to_owned(),
    };
    let cases = [
        (
            "boot",
            running_entry(),
            Found::Nothing,
            "nothing of its container is left on the node",
        ),
        ("boot", running_entry(), broken.clone(), "its shim died"),
        ("boot", entry(Progress::Accepted), broken, "its shim died"),
        (
            "next boot",
            running_entry(),
            Found::Nothing,
            "the node was started anew while the step ran",
        ),
        (
            "next boot",
            entry(Progress::Accepted),
            Found::Nothing,
            "the node was started anew while the step ran",
        ),
    ];
    for (boot, entry, found, message) in cases {
        let mut life = Life::readopt(entry, boot, found.clone(), 100);
        let line = format!("close log: buildflow: the step was lost: {message}");
        assert_eq!(words(&life.on(Event::Tick, 100)), [line], "{boot} {found:?}");
        let Some(Effect::Write(entry)) = life.on(Event::LogClosed { bytes: 9 }, 100).into_iter().next() else {
            panic!("the end is not written");
        };
        let Progress::Ended(end) = entry.progress else {
            panic!("no end")
        };
        let message = message.to_owned();
        assert_eq!(end.outcome, Outcome::Lost { message });
    }
}

#[test]
fn of_a_damaged_entry_only_the_end_is_reported() {
    let damaged = Entry {
        order: unreadable(order(0, 1)),
        ..entry(Progress::Accepted)
    };
    let message = "damaged".to_owned();
    let life = Life::readopt(damaged, "boot", Found::Broken { message }, 100);
    check(
        life,
        &[
            (Event::Connected, &["close log: buildflow: the step was lost: damaged"]),
            (Event::LogClosed { bytes: 9 }, &["write ended"]),
            (Event::Written, &["ship", "seal 9", "report ended"]),
        ],
    );
}

#[test]
fn late_and_repeated_events_change_nothing() {
    let all = [
        prepared(),
        launched(),
        exited(1),
        Event::Vanished { message: String::new() },
        Event::LogClosed { bytes: 1 },
        Event::Cleaned,
        Event::EntryRemoved,
        Event::Written,
    ];
    let mut life = fresh();
    for event in [
        Event::Connected,
        Event::Written,
        prepared(),
        launched(),
        Event::Written,
        exited(3),
        Event::Written,
    ] {
        life.on(event, 100);
    }
    for event in all {
        assert_eq!(words(&life.on(event.clone(), 101)), [""; 0], "{event:?}");
    }
}
