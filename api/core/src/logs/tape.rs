//! The offsets of one log on its way from a node to the blobs, as a state machine: what is stored,
//! what was received, what is shown to live readers, and what to ask the node for.
//!
//! Not here: blobs, streams, clocks, memory budgets of more than one log. The owner calls
//! [`Tape::take`], stores the bytes, and then [`Tape::stored`].

use bytes::Bytes;
use std::collections::VecDeque;

/// The most bytes of one log that are received and not yet stored. Above the 4 MiB which an agent
/// sends before it waits for an acknowledgement, so that a well-behaved agent is never turned away.
pub const UNSTORED_MAX: u64 = 6 * 1024 * 1024;

/// Messages below this are glued together, so that a log of one-byte messages costs a server no
/// more than its bytes.
const GLUE_MAX: usize = 16 * 1024;

/// What became of bytes from the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// So many of them were new.
    Fresh(u64),
    /// All of them were there already; say again how much is stored.
    Known,
    /// Bytes before them are missing: ask for those from `Tape::stored_to` on.
    Gap,
    /// Bytes before them are missing and were asked for already.
    Waiting,
    /// No room until some are stored; the owner asks again then.
    Full,
}

/// Bytes to be stored as one blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Where they begin in the log.
    pub offset: u64,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// One log.
#[derive(Debug)]
pub struct Tape {
    /// Everything before is stored.
    stored: u64,
    /// The end of the batch that is being stored.
    storing: Option<u64>,
    /// Everything before was received.
    received: u64,
    /// Where the log ends, once the node has said so.
    end: Option<u64>,
    /// The newest bytes with the offset of each piece: at least all that are not stored.
    window: VecDeque<(u64, Bytes)>,
    /// The node was asked to go back, and has sent so many bytes since that do not fit.
    asked: Option<u64>,
    /// Bytes were turned away for want of room.
    thirsty: bool,
}

impl Tape {
    /// A log of which the first `stored` bytes are stored.
    pub fn new(stored: u64) -> Self {
        Self {
            stored,
            storing: None,
            received: stored,
            end: None,
            window: VecDeque::new(),
            asked: None,
            thirsty: false,
        }
    }

    /// Everything before this is stored.
    pub fn stored_to(&self) -> u64 {
        self.stored
    }

    /// Everything before this was received.
    pub fn received_to(&self) -> u64 {
        self.received
    }

    /// Received and not yet stored.
    pub fn unstored(&self) -> u64 {
        self.received - self.stored
    }

    /// True when the node has said where the log ends and all of it is stored.
    pub fn is_complete(&self) -> bool {
        self.end == Some(self.stored)
    }

    /// True when the node has said where the log ends and all of it was received.
    pub fn is_ended(&self) -> bool {
        self.end == Some(self.received)
    }

    /// A stream of the node begins or starts over; it is told [`Tape::stored_to`].
    pub fn reopened(&mut self) -> u64 {
        self.asked = None;
        self.thirsty = false;
        self.stored
    }

    /// Bytes from the node: `offset` is that of the first one; with `end` the log ends with them.
    /// `room` false: the server's memory is used up.
    ///
    /// A log that ends before what was received already lost its tail with its machine: what was
    /// received stands, and the log ends there.
    pub fn accept(&mut self, offset: u64, bytes: Bytes, end: bool, room: bool) -> Verdict {
        let Some(after) = offset.checked_add(bytes.len() as u64) else {
            return Verdict::Waiting;
        };
        if offset > self.received {
            return self.missing(bytes.len() as u64);
        }
        if self.end.is_some() || after <= self.received {
            self.asked = None;
            if end && self.end.is_none() {
                self.end = Some(self.received);
            }
            return Verdict::Known;
        }
        if !room || self.unstored() >= UNSTORED_MAX {
            self.thirsty = true;
            return Verdict::Full;
        }
        self.asked = None;
        let known = usize::try_from(self.received - offset).expect("less than the length of the bytes");
        let fresh = bytes.slice(known..);
        let count = fresh.len() as u64;
        self.append(fresh);
        if end {
            self.end = Some(self.received);
        }
        Verdict::Fresh(count)
    }

    /// What was on its way when the node was asked to go back does not fit either and is no reason
    /// to ask again; more than can have been on its way is.
    fn missing(&mut self, len: u64) -> Verdict {
        if self.thirsty {
            return Verdict::Waiting;
        }
        let since = self.asked.map(|bytes| bytes.saturating_add(len));
        self.asked = Some(since.filter(|bytes| *bytes <= UNSTORED_MAX).unwrap_or(0));
        if self.asked == since {
            Verdict::Waiting
        } else {
            Verdict::Gap
        }
    }

    fn append(&mut self, bytes: Bytes) {
        let at = self.received;
        self.received += bytes.len() as u64;
        if let Some((_, last)) = self.window.back_mut()
            && last.len() + bytes.len() <= GLUE_MAX
        {
            *last = Bytes::from([last.as_ref(), bytes.as_ref()].concat());
            return;
        }
        self.window.push_back((at, bytes));
    }

    /// True when bytes were turned away and there is room again: ask the node for those from
    /// [`Tape::stored_to`] on. Answers true once.
    pub fn quench(&mut self, room: bool) -> bool {
        let again = self.thirsty && room && self.unstored() <= UNSTORED_MAX / 2;
        if again {
            self.thirsty = false;
            self.asked = Some(0);
        }
        again
    }

    /// True when bytes were turned away and the node was not yet asked for them.
    pub fn is_thirsty(&self) -> bool {
        self.thirsty
    }

    /// The next bytes to be stored, at most `max` and at least one; `None` when there are none or
    /// a batch is on its way. One batch at a time: what is stored has no gaps.
    pub fn take(&mut self, max: u64) -> Option<Batch> {
        if self.storing.is_some() || self.unstored() == 0 {
            return None;
        }
        let to = self.received.min(self.stored + max.max(1));
        let mut bytes = Vec::with_capacity(usize::try_from(to - self.stored).expect("bounded by UNSTORED_MAX"));
        let mut at = self.stored;
        while at < to {
            let piece = self.piece(at, to - at).expect("what is not stored is in the window");
            at += piece.len() as u64;
            bytes.extend_from_slice(&piece);
        }
        self.storing = Some(to);
        Some(Batch {
            offset: self.stored,
            bytes,
        })
    }

    /// The batch is stored.
    pub fn stored(&mut self) {
        if let Some(to) = self.storing.take() {
            self.stored = to;
        }
    }

    /// Lets go of the oldest bytes in memory, except those not yet stored and the newest `keep`.
    pub fn trim(&mut self, keep: u64) {
        let from = self.stored.min(self.received.saturating_sub(keep));
        while self
            .window
            .front()
            .is_some_and(|(at, piece)| at + piece.len() as u64 <= from)
        {
            self.window.pop_front();
        }
    }

    /// Bytes that are held in memory.
    pub fn held(&self) -> u64 {
        self.received - self.window_from()
    }

    /// Live bytes from `offset` on, at most `max`, shared and not copied; `None` when they are no
    /// longer (read the blobs) or not yet there.
    pub fn piece(&self, offset: u64, max: u64) -> Option<Bytes> {
        let index = self.window.partition_point(|(at, _)| *at <= offset).checked_sub(1)?;
        let (at, piece) = self.window.get(index)?;
        let skip = usize::try_from(offset - at).ok().filter(|s| *s < piece.len())?;
        let to = piece
            .len()
            .min(skip.saturating_add(usize::try_from(max).unwrap_or(usize::MAX)));
        Some(piece.slice(skip..to))
    }

    /// The offset of the oldest byte in memory.
    fn window_from(&self) -> u64 {
        self.window.front().map_or(self.received, |(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::super::cover::{Cover, Segment};
    use super::*;
    use proptest::prelude::*;

    fn accept(tape: &mut Tape, offset: u64, text: &str, end: bool) -> Verdict {
        tape.accept(offset, Bytes::copy_from_slice(text.as_bytes()), end, true)
    }

    fn store(tape: &mut Tape) -> Option<Batch> {
        let batch = tape.take(1 << 20);
        tape.stored();
        tape.trim(0);
        batch
    }

    #[test]
    fn overlap_is_trimmed_and_a_gap_is_asked_for_once() {
        let mut tape = Tape::new(0);
        assert_eq!(accept(&mut tape, 0, "abc", false), Verdict::Fresh(3));
        assert_eq!(accept(&mut tape, 1, "bcd", false), Verdict::Fresh(1));
        assert_eq!(accept(&mut tape, 0, "ab", false), Verdict::Known);
        assert_eq!(accept(&mut tape, 5, "f", false), Verdict::Gap);
        assert_eq!(accept(&mut tape, 6, "g", false), Verdict::Waiting);
        assert_eq!(accept(&mut tape, 4, "efg", true), Verdict::Fresh(3));
        assert!(tape.is_ended() && !tape.is_complete());
        assert_eq!(
            store(&mut tape),
            Some(Batch {
                offset: 0,
                bytes: b"abcdefg".to_vec()
            })
        );
        assert!(tape.is_complete());
        assert_eq!(
            accept(&mut tape, 7, "h", false),
            Verdict::Known,
            "nothing follows the end"
        );
        assert_eq!(
            accept(&mut tape, 9, "j", false),
            Verdict::Gap,
            "a new gap is asked for again"
        );
    }

    #[test]
    fn an_empty_log_is_complete_with_its_end() {
        let mut tape = Tape::new(0);
        assert!(!tape.is_complete());
        assert_eq!(accept(&mut tape, 0, "", true), Verdict::Known);
        assert!(tape.is_complete());
    }

    #[test]
    fn a_log_that_lost_its_tail_ends_with_what_was_received() {
        let mut tape = Tape::new(10);
        assert_eq!(accept(&mut tape, 4, "xy", true), Verdict::Known);
        assert!(tape.is_complete());
        assert_eq!(tape.stored_to(), 10);
    }

    #[test]
    fn what_finds_no_room_is_asked_for_when_there_is_some() {
        let mut tape = Tape::new(0);
        let big = Bytes::from(vec![7; UNSTORED_MAX as usize]);
        assert_eq!(tape.accept(0, big, false, true), Verdict::Fresh(UNSTORED_MAX));
        assert_eq!(accept(&mut tape, UNSTORED_MAX, "x", false), Verdict::Full);
        assert_eq!(accept(&mut tape, UNSTORED_MAX + 1, "y", false), Verdict::Waiting);
        assert!(!tape.quench(true), "nothing was stored");
        while store(&mut tape).is_some() {}
        assert!(!tape.quench(false), "the server is full");
        assert!(tape.quench(true));
        assert!(!tape.quench(true), "only once");
        assert_eq!(accept(&mut tape, UNSTORED_MAX, "x", false), Verdict::Fresh(1));
        assert_eq!(
            tape.accept(UNSTORED_MAX + 1, Bytes::from_static(b"y"), false, false),
            Verdict::Full
        );
    }

    #[test]
    fn a_node_that_does_not_go_back_is_asked_again() {
        let mut tape = Tape::new(0);
        let piece = Bytes::from(vec![0; 256 * 1024]);
        let asked = (0..100)
            .filter(|_| tape.accept(9, piece.clone(), false, true) == Verdict::Gap)
            .count();
        assert_eq!(asked, 4, "once, and again after every 6 MiB");
    }

    #[test]
    fn small_messages_are_glued() {
        let mut tape = Tape::new(0);
        for offset in 0..100_000 {
            assert_eq!(accept(&mut tape, offset, "z", false), Verdict::Fresh(1));
        }
        assert!(tape.window.len() <= 100_000 / GLUE_MAX + 1, "{}", tape.window.len());
    }

    #[test]
    fn an_offset_at_the_end_of_the_numbers_does_nothing() {
        let mut tape = Tape::new(0);
        assert_eq!(accept(&mut tape, u64::MAX, "xx", true), Verdict::Waiting);
        assert_eq!(tape.received_to(), 0);
    }

    /// What happens to a log: the node sends a slice (possibly again, possibly too far ahead), a
    /// batch is stored, or the server is killed with what it had not stored, or between storing
    /// and knowing it.
    #[derive(Debug, Clone)]
    enum Event {
        Send { back: u64, len: u64 },
        Skip { ahead: u64 },
        Store { max: u64 },
        Kill,
        KillAfterPut { max: u64 },
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let event = prop_oneof![
            6 => (0u64..40, 1u64..60).prop_map(|(back, len)| Event::Send { back, len }),
            1 => (1u64..50).prop_map(|ahead| Event::Skip { ahead }),
            4 => (1u64..80).prop_map(|max| Event::Store { max }),
            1 => Just(Event::Kill),
            1 => (1u64..80).prop_map(|max| Event::KillAfterPut { max }),
        ];
        proptest::collection::vec(event, 0..80)
    }

    fn name(offset: u64, bytes: &[u8]) -> String {
        format!("log/r/0/1.1/{offset:020}-{}", bytes.len())
    }

    /// A node, a server and its blobs.
    struct World {
        log: Vec<u8>,
        tape: Tape,
        blobs: Vec<(u64, Vec<u8>)>,
        sent: u64,
        acked: u64,
    }

    impl World {
        fn new(len: usize) -> Self {
            Self {
                log: (0..len).map(|i| (i * 7 % 251) as u8).collect(),
                tape: Tape::new(0),
                blobs: Vec::new(),
                sent: 0,
                acked: 0,
            }
        }

        fn send(&mut self, from: u64, len: u64) {
            let from = from.min(self.log.len() as u64);
            let to = (from + len).min(self.log.len() as u64);
            let bytes = Bytes::copy_from_slice(&self.log[from as usize..to as usize]);
            let end = to == self.log.len() as u64;
            self.sent = match self.tape.accept(from, bytes, end, true) {
                Verdict::Gap => self.tape.stored_to(),
                // What is still on its way after the node was asked to go back.
                Verdict::Waiting => self.sent,
                _ => to,
            };
        }

        fn put(&mut self, max: u64) {
            if let Some(batch) = self.tape.take(max) {
                self.blobs.push((batch.offset, batch.bytes));
            }
        }

        fn restart(&mut self) {
            let blobs = self
                .blobs
                .iter()
                .map(|(offset, bytes)| (name(*offset, bytes), bytes.len() as u64));
            let stored = Cover::of(blobs).len();
            assert!(stored >= self.acked, "something acknowledged was lost");
            self.tape = Tape::new(stored);
            self.sent = self.tape.reopened();
        }

        fn apply(&mut self, event: &Event) {
            match *event {
                Event::Send { back, len } => self.send(self.sent.saturating_sub(back), len),
                Event::Skip { ahead } => self.send(self.sent + ahead, 5),
                Event::Store { max } => {
                    self.put(max);
                    self.tape.stored();
                    self.tape.trim(16);
                    self.acked = self.tape.stored_to();
                }
                Event::Kill => self.restart(),
                Event::KillAfterPut { max } => {
                    self.put(max);
                    self.restart();
                }
            }
            assert!(self.tape.held() <= UNSTORED_MAX + 16 + GLUE_MAX as u64);
        }

        fn finish(&mut self) {
            for _ in 0..1_000 {
                if self.tape.is_complete() {
                    return;
                }
                self.send(self.sent, 64);
                if self.tape.received_to() == self.log.len() as u64 {
                    self.apply(&Event::Store { max: 1 << 20 });
                }
            }
            panic!("the log never became complete");
        }

        fn read_back(&self) -> Vec<u8> {
            let by_name: std::collections::BTreeMap<_, _> = self
                .blobs
                .iter()
                .map(|(offset, bytes)| (name(*offset, bytes), bytes))
                .collect();
            let cover = Cover::of(by_name.iter().map(|(name, bytes)| (name.clone(), bytes.len() as u64)));
            let slice = |s: &Segment<String>| by_name[&s.blob][s.skip as usize..(s.skip + s.len) as usize].to_vec();
            cover.segments.iter().flat_map(slice).collect()
        }
    }

    proptest! {
        #[test]
        fn whatever_happens_the_stored_log_is_what_the_step_wrote(len in 0usize..2_000, events in events()) {
            let mut world = World::new(len);
            for event in &events {
                world.apply(event);
            }
            world.finish();
            prop_assert_eq!(world.read_back(), world.log.clone());
        }
    }
}
