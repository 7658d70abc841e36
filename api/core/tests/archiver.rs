//! The archive's machine in a world where every part may fail, be done without an answer, or be
//! done twice: no run is lost, and in the end history has all of them.

use api_core::archive::{Archiver, Effect, Event, Move, MoveResult, PutResult, StoreResult, Times, Told};
use api_core::archive::{BATCH_MAX, IN_FLIGHT_MAX};
use model::record::Unknown;
use model::run::{Event as Cause, RunStatus, Source};
use model::{ArchivedRun, RunId, RunSummary};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

fn run(n: usize) -> RunId {
    RunId::new(format!("01jd{n:04}")).expect("legal")
}

fn record(run: &RunId) -> ArchivedRun {
    ArchivedRun {
        summary: RunSummary {
            id: run.clone(),
            team: "default".parse().expect("legal"),
            pipeline: "web".parse().expect("legal"),
            number: 1,
            attempt: 1,
            status: RunStatus::Success,
            source: Source {
                repository: String::new(),
                git_ref: String::new(),
                commit: String::new(),
                message: String::new(),
                author: String::new(),
                event: Cause::Push,
            },
            created_ms: 1,
            started_ms: None,
            ended_ms: 2,
            steps: 1,
            requested_by: String::new(),
            error: None,
        },
        blob: format!("archive/{run}"),
        archived_ms: 3,
        unknown: Unknown::new(),
    }
}

/// What becomes of an effect.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    Done,
    /// Nothing was done.
    Failed,
    /// It was done, and nobody knows.
    Doubtful,
}

/// The stores around the machine.
#[derive(Default)]
struct World {
    revision: u64,
    live: BTreeMap<RunId, u64>,
    blobs: BTreeSet<RunId>,
    outbox: BTreeMap<RunId, u64>,
    history: BTreeSet<RunId>,
    all: BTreeSet<RunId>,
}

impl World {
    fn of(runs: usize) -> Self {
        let mut world = Self::default();
        for n in 0..runs {
            world.revision += 1;
            world.live.insert(run(n), world.revision);
            world.all.insert(run(n));
        }
        world
    }

    fn seen(&self) -> Event {
        Event::Seen {
            revision: self.revision,
            ended: self.live.keys().cloned().collect(),
            outbox: self
                .outbox
                .iter()
                .map(|(run, revision)| Told {
                    run: run.clone(),
                    revision: *revision,
                })
                .collect(),
        }
    }

    fn move_one(&mut self, moved: &Move) -> MoveResult {
        let run = &moved.record.summary.id;
        assert!(self.blobs.contains(run), "{run} is moved without its blob");
        if self.live.get(run) != Some(&moved.header_revision) {
            return MoveResult::Refused;
        }
        self.live.remove(run);
        self.revision += 1;
        self.outbox.insert(run.clone(), self.revision);
        MoveResult::Done(self.revision)
    }

    /// Carries an effect out, or not, and answers what the machine hears.
    fn carry_out(&mut self, effect: &Effect, fate: Fate) -> Event {
        let done = fate != Fate::Failed;
        match effect {
            Effect::Store { ticket, run, .. } => {
                let Some(revision) = self.live.get(run).copied() else {
                    return Event::Stored(*ticket, StoreResult::NotDue);
                };
                if done {
                    self.blobs.insert(run.clone());
                }
                Event::Stored(
                    *ticket,
                    match fate {
                        Fate::Done => StoreResult::Done(Box::new(Move {
                            header_revision: revision,
                            record: record(run),
                        })),
                        Fate::Failed | Fate::Doubtful => StoreResult::Failed,
                    },
                )
            }
            Effect::Move { ticket, moves } => {
                let results: Vec<MoveResult> = moves
                    .iter()
                    .map(|m| if done { self.move_one(m) } else { MoveResult::Unknown })
                    .collect();
                let unknown = vec![MoveResult::Unknown; moves.len()];
                Event::Moved(*ticket, if fate == Fate::Done { results } else { unknown })
            }
            Effect::Put { ticket, runs } => {
                if done {
                    self.history.extend(runs.iter().map(|t| t.run.clone()));
                }
                Event::Put(
                    *ticket,
                    if fate == Fate::Done {
                        PutResult::Done
                    } else {
                        PutResult::Away
                    },
                )
            }
            Effect::Clear { ticket, runs } => {
                if done {
                    self.revision += 1;
                    for told in runs {
                        if self.outbox.get(&told.run) == Some(&told.revision) {
                            assert!(self.history.contains(&told.run), "{} is nowhere", told.run);
                            self.outbox.remove(&told.run);
                        }
                    }
                }
                Event::Cleared(*ticket, (fate == Fate::Done).then_some(self.revision))
            }
        }
    }

    /// Every run is in the live store, or out of it and found by its blob and the outbox or history.
    fn check(&self) {
        for run in &self.all {
            let live = self.live.contains_key(run);
            let out = self.outbox.contains_key(run) || self.history.contains(run);
            assert!(live != out, "{run}: live {live}, out {out}");
            assert!(live || self.blobs.contains(run), "{run} has no blob");
        }
    }
}

/// Lets the machine run with these fates, then without any fault, until nothing is left.
fn play(runs: usize, fates: &[Fate], deposed_at: &[usize]) {
    let mut world = World::of(runs);
    let mut machine = Archiver::new(Times::default());
    let (mut now, mut step, mut waiting) = (0, 0, VecDeque::new());
    waiting.extend(machine.on(Event::Leads, now));
    loop {
        assert!(step < 20_000, "it comes to no end: {machine:?}");
        step += 1;
        if deposed_at.contains(&step) {
            // Answers of the old term come all the same, late.
            assert_eq!(machine.on(Event::Deposed, now), []);
            assert_eq!(machine.wake_at_ms(), None);
            waiting.extend(machine.on(Event::Leads, now));
        }
        waiting.extend(machine.on(world.seen(), now));
        let storing = waiting.iter().filter(|e| matches!(e, Effect::Store { .. })).count();
        assert!(!deposed_at.is_empty() || storing <= IN_FLIGHT_MAX);
        let Some(effect) = waiting.pop_front() else {
            if world.live.is_empty() && world.outbox.is_empty() {
                break;
            }
            let wake = machine.wake_at_ms().expect("something is left, so something is due");
            assert!(wake >= now, "it would spin at {now}: {wake}");
            now = wake.max(now + 1);
            waiting.extend(machine.on(Event::Tick, now));
            continue;
        };
        let fate = fates.get(step).copied().unwrap_or(Fate::Done);
        let heard = world.carry_out(&effect, fate);
        world.check();
        waiting.extend(machine.on(heard.clone(), now));
        // An answer that is heard twice changes nothing.
        let before = machine.clone();
        assert_eq!(machine.on(heard, now), []);
        assert_eq!(machine, before);
        now += 7;
    }
    assert_eq!(world.history, world.all);
}

#[test]
fn without_faults_every_run_reaches_history() {
    for runs in [0, 1, IN_FLIGHT_MAX, BATCH_MAX + 1, 500] {
        play(runs, &[], &[]);
    }
}

proptest! {
    #[test]
    fn no_run_is_lost_whatever_fails(
        runs in 0usize..40,
        fates in proptest::collection::vec(prop_oneof![Just(Fate::Done), Just(Fate::Failed), Just(Fate::Doubtful)], 0..200),
        deposed_at in proptest::collection::vec(0usize..200, 0..4),
    ) {
        play(runs, &fates, &deposed_at);
    }
}

fn told(n: usize) -> Told {
    Told {
        run: run(n),
        revision: n as u64 + 1,
    }
}

fn outbox(runs: usize) -> Event {
    Event::Seen {
        revision: 10_000,
        ended: Vec::new(),
        outbox: (0..runs).map(told).collect(),
    }
}

#[test]
fn an_ended_run_stays_a_moment_and_is_waited_for_while_its_log_is_short() {
    let times = Times {
        after_ms: 5_000,
        log_wait_ms: 6_000,
    };
    let mut machine = Archiver::new(times);
    machine.on(Event::Leads, 0);
    let seen = |revision| Event::Seen {
        revision,
        ended: vec![run(0)],
        outbox: Vec::new(),
    };
    assert_eq!(machine.on(seen(1), 100), []);
    assert_eq!(machine.wake_at_ms(), Some(5_100));
    assert_eq!(machine.on(seen(2), 5_099), []);
    let store = |ticket, with_short_logs| {
        [Effect::Store {
            ticket,
            run: run(0),
            with_short_logs,
        }]
    };
    assert_eq!(machine.on(Event::Tick, 5_100), store(1, false));
    assert_eq!(machine.on(Event::Stored(1, StoreResult::NotYet), 5_200), []);
    assert_eq!(machine.on(Event::Tick, 7_200), store(2, true));
}

/// While blobs are away no log can become whole: that time is not taken for waiting.
#[test]
fn logs_are_waited_for_anew_when_blobs_are_back() {
    let mut machine = Archiver::new(Times {
        after_ms: 0,
        log_wait_ms: 60_000,
    });
    machine.on(Event::Leads, 0);
    let seen = Event::Seen {
        revision: 1,
        ended: vec![run(0)],
        outbox: Vec::new(),
    };
    let mut effects = machine.on(seen, 0);
    let mut now = 0;
    let mut answer = |machine: &mut Archiver, result| {
        let [
            Effect::Store {
                ticket,
                with_short_logs,
                ..
            },
        ] = effects[..]
        else {
            panic!("{effects:?}")
        };
        assert_eq!(machine.on(Event::Stored(ticket, result), now), []);
        now = machine.wake_at_ms().expect("it is tried again");
        effects = machine.on(Event::Tick, now);
        (now, with_short_logs)
    };
    // Away for ten minutes, long after the logs would have been given up.
    let mut back_ms = 0;
    while back_ms < 600_000 {
        let (next_ms, short) = answer(&mut machine, StoreResult::Failed);
        assert!(!short, "given up while blobs were away, before {next_ms} ms");
        back_ms = next_ms;
    }
    loop {
        let (next_ms, short) = answer(&mut machine, StoreResult::NotYet);
        if short {
            break;
        }
        assert!(next_ms < back_ms + 70_000, "waited for ever");
    }
    assert!(
        now >= back_ms + 30_000,
        "given up at {now} ms, blobs were back at {back_ms} ms"
    );
}

#[test]
fn history_that_is_away_is_asked_more_and_more_rarely() {
    let mut machine = Archiver::new(Times::default());
    machine.on(Event::Leads, 0);
    let mut effects = machine.on(outbox(3), 0);
    let (mut now, mut pauses) = (0, Vec::new());
    for _ in 0..9 {
        let [Effect::Put { ticket, runs }] = effects.as_slice() else {
            panic!("{effects:?}")
        };
        assert_eq!(runs.len(), 3);
        assert_eq!(machine.on(Event::Put(*ticket, PutResult::Away), now), []);
        let wake = machine.wake_at_ms().expect("it is asked again");
        pauses.push(wake - now);
        now = wake;
        effects = machine.on(Event::Tick, now);
    }
    assert_eq!(
        pauses,
        [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000]
    );
}

/// One record that history refuses does not hold up the others.
#[test]
fn the_one_that_is_refused_is_found_and_set_aside() {
    let mut machine = Archiver::new(Times::default());
    machine.on(Event::Leads, 0);
    let mut effects = VecDeque::from(machine.on(outbox(50), 0));
    let (mut taken, mut now, mut puts) = (BTreeSet::new(), 0, 0);
    while taken.len() < 49 {
        puts += 1;
        assert!(puts < 200, "it finds the one");
        let next = match effects.pop_front() {
            Some(Effect::Put { ticket, runs }) if runs.contains(&told(17)) => {
                machine.on(Event::Put(ticket, PutResult::Refused), now)
            }
            Some(Effect::Put { ticket, runs }) => {
                taken.extend(runs.into_iter().map(|t| t.run));
                machine.on(Event::Put(ticket, PutResult::Done), now)
            }
            Some(Effect::Clear { ticket, .. }) => machine.on(Event::Cleared(ticket, Some(10_001)), now),
            Some(other) => panic!("{other:?}"),
            None => {
                now = machine.wake_at_ms().expect("there are more");
                machine.on(Event::Tick, now)
            }
        };
        effects.extend(next);
    }
    assert!(!taken.contains(&run(17)));
    assert!(machine.outbox_len() >= 1);
}
