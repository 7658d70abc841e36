//! The lease: a table of stories, and whatever order of events.

use node_agent::{Deadline, Lease, LeaseEffect, LeaseEvent, UNCONFIRMED_MAX};
use proptest::prelude::*;

const LEASE: u64 = 20_000;

const WELCOME: LeaseEvent = LeaseEvent::Welcome { lease_ms: LEASE };

fn ack(sequence: u64) -> LeaseEvent {
    LeaseEvent::RenewAck { sequence }
}

fn says(round: u64, server: usize, lost: bool) -> LeaseEvent {
    LeaseEvent::Quorum { round, server, lost }
}

fn word(effect: &LeaseEffect) -> String {
    match effect {
        LeaseEffect::Renew { sequence } => format!("renew {sequence}"),
        LeaseEffect::AskAll { round } => format!("ask {round}"),
        LeaseEffect::WriteDeadline(deadline) => format!("until {}", deadline.at_ms),
    }
}

/// Feeds events at their times, each with what it must lead to and the next moment that counts.
fn check(mut lease: Lease, story: &[(u64, LeaseEvent, &[&str], Option<u64>)]) -> Lease {
    for (ordinal, (now, event, expected, due)) in story.iter().enumerate() {
        let effects: Vec<String> = lease.on(*event, *now).iter().map(word).collect();
        assert_eq!(effects, *expected, "step {ordinal}: {event:?} at {now}");
        assert_eq!(lease.due_ms(*now), *due, "step {ordinal}: {event:?} at {now}");
    }
    lease
}

#[test]
fn the_deadline_follows_what_was_sent_not_what_was_answered() {
    let lease = check(
        Lease::new(3),
        &[
            (0, LeaseEvent::Tick, &[], None),
            (1_000, LeaseEvent::Hello, &[], None),
            (3_000, WELCOME, &["until 21000"], Some(8_000)),
            (8_000, LeaseEvent::Tick, &["renew 1"], Some(11_000)),
            (9_000, ack(1), &["until 28000"], Some(13_000)),
            (9_001, ack(1), &[], Some(13_000)),
            (13_000, LeaseEvent::Tick, &["renew 2"], Some(18_000)),
        ],
    );
    assert!(lease.is_valid(27_999) && !lease.is_valid(28_000));
    assert!(!Lease::new(3).is_valid(0), "without a lease nothing may start");
}

#[test]
fn what_is_late_or_was_never_asked_changes_nothing() {
    check(
        Lease::new(1),
        &[
            (0, WELCOME, &[], None),
            (0, ack(1), &[], None),
            (0, says(1, 0, true), &[], None),
            (0, LeaseEvent::Hello, &[], None),
            (100, WELCOME, &["until 20000"], Some(5_100)),
            (200, WELCOME, &[], Some(5_100)),
            (5_100, LeaseEvent::Tick, &["renew 1"], Some(10_000)),
            (5_200, LeaseEvent::Disconnected, &[], Some(10_000)),
            // Of the old stream.
            (5_300, ack(1), &[], Some(10_000)),
            (6_000, LeaseEvent::Hello, &[], Some(10_000)),
            (6_100, WELCOME, &["until 26000"], Some(11_100)),
            (6_200, ack(1), &[], Some(11_100)),
            (11_100, LeaseEvent::Tick, &["renew 2"], Some(16_000)),
            (16_000, LeaseEvent::Tick, &["ask 1"], Some(16_100)),
            // A later confirmation covers the earlier renewals.
            (16_100, LeaseEvent::Tick, &["renew 3"], Some(18_500)),
            (16_200, ack(3), &["until 36100"], Some(21_100)),
            (16_300, ack(2), &[], Some(21_100)),
            (16_400, says(1, 0, true), &[], Some(21_100)),
        ],
    );
}

#[test]
fn the_servers_are_asked_from_half_of_the_lease_on_and_all_have_to_agree() {
    let begun = || {
        check(
            Lease::new(2),
            &[
                (0, LeaseEvent::Hello, &[], None),
                (0, WELCOME, &["until 20000"], Some(5_000)),
                (1, LeaseEvent::Disconnected, &[], Some(10_000)),
                (10_000, LeaseEvent::Tick, &["ask 1"], Some(12_500)),
            ],
        )
    };
    // All of them, again and again.
    check(
        begun(),
        &[
            (10_100, says(1, 0, true), &[], Some(12_500)),
            (10_200, says(1, 0, true), &[], Some(12_500)),
            (11_900, says(1, 1, true), &["until 30000"], Some(12_500)),
            (12_500, LeaseEvent::Tick, &["ask 2"], Some(15_000)),
            // Of the round before: it was asked earlier.
            (12_600, says(1, 1, true), &[], Some(15_000)),
            (12_700, says(2, 0, true), &[], Some(15_000)),
            (15_000, LeaseEvent::Tick, &["ask 3"], Some(17_500)),
            (15_100, says(3, 0, true), &[], Some(17_500)),
            (15_100, says(3, 1, true), &["until 35000"], Some(17_500)),
        ],
    );
    // One does not, one is nobody, one changes its mind.
    for answers in [
        &[says(1, 0, true)][..],
        &[says(1, 0, true), says(1, 1, false)],
        &[says(1, 1, false), says(1, 0, true), says(1, 1, true)],
        &[says(1, 0, true), says(1, 7, true)],
        &[says(9, 0, true), says(9, 1, true)],
    ] {
        let mut lease = begun();
        for answer in answers {
            assert_eq!(lease.on(*answer, 11_000), []);
        }
        assert_eq!(lease.deadline_ms(), Some(20_000), "{answers:?}");
        assert!(!lease.is_valid(20_000));
    }
}

#[test]
fn a_lease_that_has_ended_comes_back_by_confirmation_alone() {
    let mut lease = Lease::new(1);
    lease.on(LeaseEvent::Hello, 0);
    lease.on(WELCOME, 0);
    lease.on(LeaseEvent::Disconnected, 1);
    assert_eq!(lease.on(LeaseEvent::Tick, 19_999).len(), 1);
    assert_eq!(lease.on(says(1, 0, true), 20_000), [], "too late");
    assert_eq!(lease.on(LeaseEvent::Tick, 30_000), [], "nobody is asked any more");
    assert_eq!(lease.due_ms(30_000), None);
    lease.on(LeaseEvent::Hello, 31_000);
    assert_eq!(word(&lease.on(WELCOME, 31_500)[0]), "until 51000");
}

#[test]
fn a_shorter_lease_is_not_topped_up_by_an_earlier_longer_one() {
    let mut lease = Lease::new(1);
    lease.on(LeaseEvent::Hello, 0);
    lease.on(LeaseEvent::Welcome { lease_ms: 600_000 }, 0);
    lease.on(LeaseEvent::Hello, 10_000);
    let written = lease.on(WELCOME, 10_001);
    let deadline = Deadline {
        at_ms: 30_000,
        lease_ms: LEASE,
    };
    assert_eq!(written, [LeaseEffect::WriteDeadline(deadline)]);
}

#[test]
fn a_restarted_agent_takes_up_what_can_be_of_this_boot() {
    let cases = [
        // deadline, lease, now -> valid, due
        (50_000, LEASE, 35_000, true, Some(40_000)),
        (50_000, LEASE, 45_000, true, Some(45_000 - 5_000)),
        (50_000, LEASE, 50_000, false, None),
        (50_000, LEASE, 29_999, false, None),
        (u64::MAX, u64::MAX, 5, false, None),
        (0, 0, 5, false, None),
    ];
    for (at_ms, lease_ms, now, valid, due) in cases {
        let lease = Lease::resume(2, Deadline { at_ms, lease_ms }, now);
        assert_eq!(
            (lease.is_valid(now), lease.due_ms(now)),
            (valid, due),
            "{at_ms} {lease_ms} {now}"
        );
    }
    let left = Deadline {
        at_ms: 50_000,
        lease_ms: LEASE,
    };
    check(
        Lease::resume(1, left, 41_000),
        &[
            (41_000, LeaseEvent::Tick, &["ask 1"], Some(43_500)),
            (41_100, says(1, 0, true), &["until 61000"], Some(43_500)),
        ],
    );
}

#[test]
fn renewals_that_nobody_confirms_are_bounded() {
    let mut lease = Lease::new(0);
    lease.on(LeaseEvent::Hello, 0);
    lease.on(WELCOME, 0);
    for ordinal in 1..=UNCONFIRMED_MAX as u64 + 1 {
        assert_eq!(lease.on(LeaseEvent::Tick, ordinal * 5_000).len(), 1);
    }
    assert_eq!(
        lease.on(ack(1), 400_000),
        [LeaseEffect::Renew { sequence: 66 }],
        "it was forgotten"
    );
    assert_eq!(lease.on(ack(65), 400_001).len(), 1);
}

/// One thing that may happen.
#[derive(Debug, Clone, Copy)]
enum Draw {
    Wait(u64),
    Hello,
    Welcome(u64),
    Ack(usize),
    Break,
    Answer { back: u64, server: usize, lost: bool },
}

fn draw() -> impl Strategy<Value = Draw> {
    prop_oneof![
        4 => (0..4_000_u64).prop_map(Draw::Wait),
        1 => Just(Draw::Hello),
        1 => prop_oneof![Just(0), Just(1), Just(LEASE), 1..40_000_u64].prop_map(Draw::Welcome),
        3 => (0..6_usize).prop_map(Draw::Ack),
        1 => Just(Draw::Break),
        4 => (0..3_u64, 0..4_usize, prop::bool::weighted(0.8))
            .prop_map(|(back, server, lost)| Draw::Answer { back, server, lost }),
    ]
}

/// What an observer knows that sees every word in both directions.
#[derive(Default)]
struct Witness {
    now: u64,
    lease_ms: u64,
    hello: Option<u64>,
    sent: Vec<(u64, u64)>,
    round: (u64, u64),
    /// Who said what in the newest round.
    said: Vec<(usize, bool)>,
    /// The latest moment that any confirmation justifies.
    justified: Option<u64>,
}

impl Witness {
    fn see(&mut self, effects: &[LeaseEffect], lease: &Lease) {
        for effect in effects {
            match effect {
                LeaseEffect::Renew { sequence } => {
                    assert!(
                        self.sent.iter().all(|(seen, _)| seen < sequence),
                        "a number is used twice"
                    );
                    self.sent.push((*sequence, self.now));
                }
                LeaseEffect::AskAll { round } => {
                    assert!(lease.is_valid(self.now), "asked without a lease");
                    self.round = (*round, self.now);
                    self.said.clear();
                }
                LeaseEffect::WriteDeadline(written) => assert_eq!(Some(written.at_ms), lease.deadline_ms()),
            }
        }
        assert!(
            lease.deadline_ms() <= self.justified,
            "{:?} at {} is not justified: {:?}",
            lease.deadline_ms(),
            self.now,
            self.justified
        );
    }

    fn justify(&mut self, from: u64) {
        self.justified = self.justified.max(Some(from + self.lease_ms));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn no_order_of_events_moves_the_deadline_further_than_a_confirmation_allows(
        draws in prop::collection::vec(draw(), 0..120),
    ) {
        const SERVERS: usize = 2;
        let mut lease = Lease::new(SERVERS);
        let mut seen = Witness::default();
        for draw in draws {
            let event = match draw {
                Draw::Wait(ms) => {
                    seen.now += ms;
                    LeaseEvent::Tick
                }
                Draw::Hello => {
                    seen.hello = Some(seen.now);
                    seen.sent.clear();
                    LeaseEvent::Hello
                }
                Draw::Welcome(lease_ms) => {
                    if let Some(hello) = seen.hello.take() {
                        if lease_ms < seen.lease_ms {
                            seen.justified = None;
                        }
                        seen.lease_ms = lease_ms;
                        seen.justify(hello);
                    }
                    LeaseEvent::Welcome { lease_ms }
                }
                Draw::Ack(index) => {
                    let sent = seen.sent.get(index).copied();
                    if let Some((_, at)) = sent {
                        seen.justify(at);
                    }
                    LeaseEvent::RenewAck { sequence: sent.map_or(u64::MAX, |(sequence, _)| sequence) }
                }
                Draw::Break => {
                    seen.hello = None;
                    LeaseEvent::Disconnected
                }
                Draw::Answer { back, server, lost } => {
                    let round = seen.round.0.saturating_sub(back);
                    if round == seen.round.0 {
                        seen.said.push((server, lost));
                        let all = (0..SERVERS).all(|one| seen.said.contains(&(one, true)));
                        if all && seen.said.iter().all(|(_, lost)| *lost) && lease.is_valid(seen.now) {
                            seen.justify(seen.round.1);
                        }
                    }
                    LeaseEvent::Quorum { round, server, lost }
                }
            };
            let before = lease.deadline_ms();
            let effects = lease.on(event, seen.now);
            seen.see(&effects, &lease);
            let wrote = effects.iter().any(|effect| matches!(effect, LeaseEffect::WriteDeadline(_)));
            prop_assert_eq!(wrote, before != lease.deadline_ms(), "what moves is written, and nothing else");
            // The same word again is no news.
            let again = lease.on(event, seen.now);
            if !matches!(event, LeaseEvent::Tick | LeaseEvent::Hello | LeaseEvent::Disconnected) {
                prop_assert!(again.is_empty(), "{:?} twice: {:?}", event, again);
            }
        }
    }
}
