//! One log's offsets.

use node_agent::{LogShip, LogStep, OPEN_RESEND_MS, WINDOW_MAX};
use proptest::prelude::*;

const CHUNK: u64 = 256 * 1024;

fn send(offset: u64, len: u64, end: bool) -> LogStep {
    LogStep::Send { offset, len, end }
}

#[test]
fn bytes_are_sent_as_they_appear_and_then_the_end() {
    let mut ship = LogShip::new();
    assert_eq!(ship.next(0, CHUNK), LogStep::Wait, "no stream");
    ship.connected();
    ship.grown(5);
    assert_eq!(ship.next(0, CHUNK), LogStep::Open);
    assert_eq!(ship.next(0, CHUNK), LogStep::Wait, "the server has not said where");
    ship.from(0);
    assert_eq!(ship.next(0, CHUNK), send(0, 5, false));
    assert_eq!(ship.next(0, CHUNK), LogStep::Wait);
    ship.grown(9);
    assert_eq!(ship.next(0, CHUNK), send(5, 4, false));
    ship.sealed(9);
    assert_eq!(ship.next(0, CHUNK), send(9, 0, true));
    assert_eq!(ship.next(0, CHUNK), LogStep::Wait);
    ship.acked(9, false);
    assert_eq!(ship.next(0, CHUNK), LogStep::Wait);
    ship.acked(9, true);
    assert_eq!(ship.next(0, CHUNK), LogStep::Complete);
}

#[test]
fn an_empty_log_is_an_end_alone() {
    let mut ship = LogShip::new();
    ship.sealed(0);
    ship.connected();
    ship.next(0, CHUNK);
    ship.from(0);
    assert_eq!(ship.next(0, CHUNK), send(0, 0, true));
}

#[test]
fn no_more_is_on_the_way_than_the_window() {
    let mut ship = LogShip::new();
    ship.connected();
    ship.grown(WINDOW_MAX * 10);
    ship.next(0, CHUNK);
    ship.from(0);
    let mut sent = 0;
    while let LogStep::Send { len, .. } = ship.next(0, CHUNK) {
        sent += len;
    }
    assert_eq!(sent, WINDOW_MAX);
    ship.acked(10, false);
    assert_eq!(ship.next(0, CHUNK), send(WINDOW_MAX, 10, false));
}

#[test]
fn a_new_stream_goes_on_where_the_server_says() {
    let mut ship = LogShip::new();
    ship.connected();
    ship.sealed(100);
    ship.next(0, CHUNK);
    ship.from(0);
    assert_eq!(ship.next(0, CHUNK), send(0, 100, true));
    ship.disconnected();
    ship.from(50);
    assert_eq!(
        ship.next(0, CHUNK),
        LogStep::Wait,
        "a late answer of the stream that broke"
    );
    ship.connected();
    assert_eq!(ship.next(0, CHUNK), LogStep::Open);
    ship.from(40);
    assert_eq!(ship.next(0, CHUNK), send(40, 60, true));
}

#[test]
fn an_unanswered_question_is_asked_again() {
    let mut ship = LogShip::new();
    ship.connected();
    assert_eq!(ship.next(5, CHUNK), LogStep::Open);
    assert_eq!(ship.deadline_ms(), Some(5 + OPEN_RESEND_MS));
    assert_eq!(ship.next(4 + OPEN_RESEND_MS, CHUNK), LogStep::Wait);
    assert_eq!(ship.next(5 + OPEN_RESEND_MS, CHUNK), LogStep::Open);
}

#[test]
fn a_server_that_has_more_than_the_file_gets_the_end_at_its_offset() {
    let mut ship = LogShip::new();
    ship.connected();
    ship.sealed(60);
    ship.next(0, CHUNK);
    ship.from(100);
    assert_eq!(ship.next(0, CHUNK), send(100, 0, true));
}

#[test]
fn a_server_that_has_all_is_believed_before_it_says_where() {
    let mut ship = LogShip::new();
    ship.connected();
    ship.next(0, CHUNK);
    ship.acked(60, true);
    assert!(!ship.is_complete(), "more may come as long as the end is not known");
    ship.sealed(60);
    assert_eq!(ship.next(0, CHUNK), LogStep::Complete);
}

#[derive(Debug, Clone)]
enum Move {
    Grow(u64),
    Next(u64),
    Break,
    Store,
    Answer,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        (1..700_000u64).prop_map(Move::Grow),
        (1..CHUNK).prop_map(Move::Next),
        Just(Move::Break),
        Just(Move::Store),
        Just(Move::Answer),
    ];
    prop::collection::vec(one, 0..300)
}

/// A server that takes only what fits, and stores some of it.
#[derive(Default)]
struct Server {
    connected: bool,
    received: u64,
    stored: u64,
    end: Option<u64>,
}

impl Server {
    fn take(&mut self, step: LogStep) -> bool {
        match step {
            LogStep::Open => self.received = self.stored,
            LogStep::Send { offset, len, end } => {
                assert_eq!(offset, self.received, "a gap or a duplicate within one stream");
                self.received += len;
                assert!(self.received - self.stored <= WINDOW_MAX);
                if end {
                    self.end = Some(self.received);
                }
            }
            LogStep::Wait | LogStep::Complete => return false,
        }
        true
    }

    fn store(&mut self, ship: &mut LogShip) {
        self.stored = self.received;
        if self.connected {
            ship.acked(self.stored, self.end == Some(self.stored));
        }
    }
}

proptest! {
    #[test]
    fn every_byte_arrives_once_in_order_whatever_breaks(moves in moves()) {
        let mut ship = LogShip::new();
        let mut server = Server::default();
        let mut size = 0;
        let mut opened = false;
        for step in moves {
            match step {
                Move::Grow(bytes) => {
                    size += bytes;
                    ship.grown(size);
                }
                Move::Next(chunk) => {
                    let next = ship.next(0, chunk);
                    opened |= next == LogStep::Open;
                    server.take(next);
                }
                Move::Break if server.connected => {
                    ship.disconnected();
                    server.connected = false;
                    opened = false;
                }
                Move::Break => {
                    ship.connected();
                    server.connected = true;
                }
                Move::Store => server.store(&mut ship),
                Move::Answer if opened => {
                    server.received = server.stored;
                    ship.from(server.stored);
                }
                Move::Answer => {}
            }
        }
        // Heal: a stream that holds, and an end.
        ship.sealed(size);
        ship.disconnected();
        ship.connected();
        server.connected = true;
        for round in 0..10_000 {
            let next = ship.next(round * OPEN_RESEND_MS, CHUNK);
            match next {
                LogStep::Complete => break,
                LogStep::Open => {
                    server.take(next);
                    ship.from(server.stored);
                }
                _ => {
                    if !server.take(next) {
                        server.store(&mut ship);
                    }
                }
            }
        }
        prop_assert!(ship.is_complete());
        prop_assert_eq!(server.stored, size);
    }
}
